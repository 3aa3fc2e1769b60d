//go:build unix

package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"remit"
	"remit/server/ingest"
	"remit/store/sqlstore"
)

// sender posts events to a server as a cluster's audit webhook does.
type sender struct {
	url, token string
	client     *http.Client
}

// newSender makes a token in a data directory and a client with it.
func newSender(t *testing.T, dir, address string, flags ...string) *sender {
	t.Helper()
	secret, err := run(t, append([]string{"token", "create", "sender", "--data-dir", dir}, flags...)...)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := run(t, "token", "authority", "--data-dir", dir)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(authority))
	return &sender{
		url: "https://" + address + ingest.Path, token: strings.TrimSpace(secret),
		client: &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}},
	}
}

// send posts a body once; the status is 0 when no answer came.
func (s *sender) send(ctx context.Context, body []byte, encoding string) (status int, answer string) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	r.Header.Set("Authorization", "Bearer "+s.token)
	r.Header.Set("Content-Encoding", encoding)
	response, err := s.client.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(text)
}

// TestServeKilled kills a server that takes events in and follows a file, at
// random moments, while a sender sends what was not acknowledged again, as an API
// server does: in the end every event is counted and archived exactly once.
// REMIT_KILLS sets how often it is killed.
func TestServeKilled(t *testing.T) {
	kills := 4
	if n, err := strconv.Atoi(os.Getenv("REMIT_KILLS")); err == nil {
		kills = n
	}
	built(t) // now, for nobody writes anything meanwhile
	dir, address := t.TempDir(), freeAddress(t)
	s := newSender(t, dir, address, "--system", "prod", "--source", "kubernetes")
	log := filepath.Join(dir, "followed.log")
	config := fmt.Sprintf("logs:\n  - path: %s\n    system: prod\n", log)
	if err := os.WriteFile(filepath.Join(dir, "remit.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var events, resent atomic.Int64
	var followed atomic.Bool // following begins with the file that is there: from then on no line may be missed
	var expected []string    // complete when both writers have ended
	var noting sync.Mutex
	sent := func(ids ...string) {
		noting.Lock()
		defer noting.Unlock()
		expected = append(expected, ids...)
		events.Add(int64(len(ids)))
	}
	ended := make(chan struct{}, 2)
	go func() { // the webhook
		defer func() { ended <- struct{}{} }()
		random := rand.New(rand.NewPCG(1, 2))
		for n := 0; ctx.Err() == nil; n++ {
			var list bytes.Buffer
			list.WriteString(`{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[`)
			ids := make([]string, 1+random.IntN(40))
			for i := range ids {
				if i > 0 {
					list.WriteByte(',')
				}
				ids[i] = fmt.Sprintf("hook-%d-%d", n, i)
				list.WriteString(auditEvent(ids[i], random))
			}
			list.WriteString("]}")
			body, encoding := list.Bytes(), ""
			if n%3 == 0 {
				var packed bytes.Buffer
				z := gzip.NewWriter(&packed)
				_, _ = z.Write(body)
				_ = z.Close()
				body, encoding = packed.Bytes(), "gzip"
			}
			for {
				status, answer := s.send(context.WithoutCancel(ctx), body, encoding)
				// The answer may be cut short, but its status stands.
				if status == http.StatusOK && strings.HasSuffix(answer, "}\n") && !strings.Contains(answer, `"dead":0`) || status >= 400 && status < 500 && status != http.StatusTooManyRequests {
					t.Errorf("%d %s", status, answer)
					return
				}
				if status == http.StatusOK && random.IntN(10) > 0 { // some are sent again all the same
					break
				}
				resent.Add(1)
				time.Sleep(10 * time.Millisecond)
			}
			sent(ids...)
		}
	}()
	go func() { // the file, which is rotated now and then
		defer func() { ended <- struct{}{} }()
		random := rand.New(rand.NewPCG(3, 4))
		f, err := os.Create(log)
		for n := 0; ctx.Err() == nil && err == nil; n++ {
			id := fmt.Sprintf("file-%d", n)
			line := auditEvent(id, random) + "\n"
			cut := random.IntN(len(line)) // a reader may see half a line
			if _, err = f.WriteString(line[:cut]); err == nil {
				_, err = f.WriteString(line[cut:])
			}
			sent(id)
			if n%500 == 499 && followed.Load() {
				f.Close()
				if err = os.Rename(log, filepath.Join(dir, fmt.Sprintf("followed-%06d.log", n))); err == nil {
					f, err = os.Create(log)
				}
			}
			time.Sleep(2 * time.Millisecond)
		}
		if err != nil {
			t.Error(err)
		}
		f.Close()
	}()
	args := []string{"--no-watch", "--listen", address, "--data-dir", dir, "--checkpoint-every", "300ms"}
	store, err := sqlstore.Open(t.Context(), filepath.Join(dir, "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	d := serving(t, args...)
	wait(t, "the file to be read", func() bool {
		positions, err := store.Positions(t.Context())
		return err == nil && slices.ContainsFunc(positions, func(p remit.Position) bool { return strings.HasPrefix(p.Source, "tail ") })
	})
	followed.Store(true)
	d.kill()
	for range kills - 1 {
		d := serving(t, args...)
		time.Sleep(time.Duration(300+rand.IntN(1500)) * time.Millisecond)
		select {
		case <-d.done:
			t.Fatalf("serve ended by itself: %v\n%s", d.err, d.out.String())
		default:
		}
		d.kill()
	}
	d = serving(t, args...)
	stop()
	<-ended
	<-ended
	// It may take a while on a slow machine, but must go on.
	for before, since := int64(-1), time.Now(); time.Since(since) < time.Minute; time.Sleep(time.Second) {
		_, presences := sums(t, store)
		if presences >= events.Load() {
			break
		}
		if presences > before {
			before, since = presences, time.Now()
		}
	}
	d.stop(t)
	if u, p, a := counted(t, dir); u != events.Load() || p != events.Load() || a != events.Load() {
		t.Errorf("after %d kills: %d in usage, %d in presences, %d in the archive, of %d", kills, u, p, a, events.Load())
		t.Logf("not in the archive: %v", missing(t, dir, expected))
	}
	t.Logf("%d kills, %d events, %d batches sent again", kills, events.Load(), resent.Load())
}

// missing are the events, of those expected, that the archive does not have.
func missing(t *testing.T, dir string, expected []string) (ids []string) {
	t.Helper()
	have := archived(t, dir)
	for _, id := range expected {
		if !have[id] {
			ids = append(ids, id)
		}
	}
	return ids
}

// auditEvent is an event at level Metadata of one of many accounts.
func auditEvent(id string, random *rand.Rand) string {
	account := random.IntN(200)
	return fmt.Sprintf(`{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"%s","stage":"ResponseComplete","verb":"get",`+
		`"user":{"username":"system:serviceaccount:ns:a%d","extra":{"authentication.kubernetes.io/credential-id":["JTI=%d"]}},`+
		`"sourceIPs":["10.0.0.%d"],"userAgent":"x/1","objectRef":{"resource":"configmaps","namespace":"ns","name":"c%d"},`+
		`"responseStatus":{"code":200},"requestReceivedTimestamp":"%s"}`,
		id, account, account, account, random.IntN(60), time.Now().UTC().Format(time.RFC3339Nano))
}
