package ingest_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/klauspost/compress/zstd"

	"remit"
	"remit/activity/queue"
	"remit/connector"
	"remit/connector/kubernetes"
	"remit/server/ingest"
	"remit/server/token"
	"remit/store/sqlstore"
)

// shelf is a queue in memory that can be full or broken.
type shelf struct {
	mu      sync.Mutex
	batches []queue.Batch
	err     error
}

func (s *shelf) Put(_ context.Context, b queue.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	b.Events = bytes.Clone(b.Events)
	s.batches = append(s.batches, b)
	return nil
}

func (s *shelf) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// ids are the auditIDs of all queued events, in order.
func (s *shelf) ids(t testing.TB) (ids []string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.batches {
		for line := range bytes.Lines(b.Events) {
			var e struct{ AuditID string }
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatalf("%v in %s", err, line)
			}
			ids = append(ids, e.AuditID)
		}
	}
	return ids
}

func (s *shelf) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, one := range s.batches {
		b.Write(one.Events)
	}
	return b.String()
}

// grave collects dead letters.
type grave struct {
	mu    sync.Mutex
	lines []string
}

func (g *grave) put(source string, reason error, raw []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lines = append(g.lines, fmt.Sprintf("%s: %v: %s", source, reason, raw))
	return nil
}

func (g *grave) text() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Join(g.lines, "\n")
}

func event(id string) string {
	return fmt.Sprintf(`{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":%q,"stage":"ResponseComplete","verb":"get","user":{"username":"system:serviceaccount:ns:a"},"requestReceivedTimestamp":"2026-11-25T10:00:00Z"}`, id)
}

func list(ids ...string) string {
	events := make([]string, len(ids))
	for i := range ids {
		events[i] = event(ids[i])
	}
	return `{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[` + strings.Join(events, ",") + `]}`
}

// desk is a handler with all around it.
type desk struct {
	*ingest.Handler
	queue   *shelf
	grave   *grave
	tokens  *token.Tokens
	secret  string // of a token for the system prod
	metrics string // of one for metrics
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	store, err := sqlstore.Open(t.Context(), filepath.Join(t.TempDir(), "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	d := new(desk)
	d.clear()
	if d.tokens, err = token.New(store, bytes.Repeat([]byte{7}, 32), nil); err != nil {
		t.Fatal(err)
	}
	if d.secret, _, err = d.tokens.Create(t.Context(), token.Request{Client: "prod-audit", Scope: token.SendEvents, System: "prod", Source: "kubernetes"}); err != nil {
		t.Fatal(err)
	}
	if d.metrics, _, err = d.tokens.Create(t.Context(), token.Request{Client: "prometheus", Scope: token.ReadMetrics}); err != nil {
		t.Fatal(err)
	}
	d.Handler = ingest.NewHandler(ingest.Handler{
		Intake: &ingest.Intake{Queue: d, Decoders: []connector.Decoder{kubernetes.Audit}, DeadLetter: d.put},
		Tokens: d.tokens,
		System: func(_ context.Context, name string, _ connector.Decoder) (remit.ID, error) {
			if name != "prod" {
				return "", remit.Errorf(remit.Unavailable, "", "not read yet")
			}
			return "sys_prod", nil
		},
		Decoder: func(name string) (connector.Decoder, error) {
			if name == "" {
				return nil, nil
			}
			return kubernetes.Audit, nil
		},
		Log: slog.New(slog.DiscardHandler),
	})
	return d
}

// clear empties the queue and the grave.
func (d *desk) clear() { d.queue, d.grave = new(shelf), new(grave) }

// Put and put are the present queue's and grave's.
func (d *desk) Put(ctx context.Context, b queue.Batch) error { return d.queue.Put(ctx, b) }

func (d *desk) put(source string, reason error, raw []byte) error {
	return d.grave.put(source, reason, raw)
}

func (d *desk) post(secret, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, ingest.Path, strings.NewReader(body))
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w
}

func packed(t *testing.T, how, text string) string {
	t.Helper()
	var b bytes.Buffer
	switch how {
	case "gzip":
		z := gzip.NewWriter(&b)
		_, _ = z.Write([]byte(text))
		_ = z.Close()
	case "zstd":
		z, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = z.Write([]byte(text))
		_ = z.Close()
	}
	return b.String()
}

func TestTaken(t *testing.T) {
	d := newDesk(t)
	for name, test := range map[string]struct {
		body string
		ids  string
		dead int
	}{
		"a webhook's list":     {list("a", "b"), "a b", 0},
		"lines":                {event("a") + "\n" + event("b") + "\n", "a b", 0},
		"lines without an end": {event("a") + "\n" + event("b"), "a b", 0},
		"an empty list":        {list(), "", 0},
		"nothing":              {"", "", 0},
		"gzip":                 {packed(t, "gzip", list("a")), "a", 0},
		"zstd":                 {packed(t, "zstd", event("a")), "a", 0},
		"laid out over lines":  {strings.ReplaceAll(list("a", "b"), ",", ",\n"), "a b", 0},
		"a broken line":        {event("a") + "\nrubbish\n" + event("b"), "a b", 1},
		"numbers":              {event("a") + "\n17\n", "a", 1},
		"lists of several":     {list("a", "b") + "\n" + list("c"), "a b c", 0},
	} {
		t.Run(name, func(t *testing.T) {
			d.clear()
			w := d.post(d.secret, test.body)
			if w.Code != http.StatusOK {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			if got := strings.Join(d.queue.ids(t), " "); got != test.ids {
				t.Errorf("queued %q, not %q", got, test.ids)
			}
			if len(d.grave.lines) != test.dead || !strings.Contains(w.Body.String(), fmt.Sprintf(`"dead":%d`, test.dead)) {
				t.Errorf("%d dead: %s; answer %s", len(d.grave.lines), d.grave.text(), w.Body)
			}
			for _, b := range d.queue.batches {
				if b.System != "sys_prod" || b.Source != kubernetes.Audit.Source().Name || b.Learned.IsZero() {
					t.Errorf("%+v", b)
				}
			}
		})
	}
}

func TestRefused(t *testing.T) {
	d := newDesk(t)
	other, _, err := d.tokens.Create(t.Context(), token.Request{Client: "other", Scope: token.SendEvents, System: "unread"})
	if err != nil {
		t.Fatal(err)
	}
	get := httptest.NewRecorder()
	d.ServeHTTP(get, httptest.NewRequest(http.MethodGet, ingest.Path, nil))
	for name, test := range map[string]struct {
		answer *httptest.ResponseRecorder
		status int
		header string
	}{
		"no token":              {d.post("", list("a")), 401, "WWW-Authenticate"},
		"a wrong token":         {d.post(token.Prefix+"wrong", list("a")), 401, "WWW-Authenticate"},
		"a token for metrics":   {d.post(d.metrics, list("a")), 403, ""},
		"GET":                   {get, 405, "Allow"},
		"a system not read yet": {d.post(other, list("a")), 503, "Retry-After"},
		"damaged compression":   {d.post(d.secret, packed(t, "gzip", list("a"))[:40]), 400, ""},
		"a bomb":                {d.post(d.secret, packed(t, "gzip", strings.Repeat(" ", 65<<20))), 400, ""},
	} {
		if test.answer.Code != test.status || test.header != "" && test.answer.Header().Get(test.header) == "" {
			t.Errorf("%s: %d %s %v", name, test.answer.Code, test.answer.Body, test.answer.Header())
		}
		if test.answer.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %s", name, test.answer.Header().Get("Content-Type"))
		}
	}
	if ids := d.queue.ids(t); len(ids) > 0 {
		t.Errorf("queued all the same: %v", ids)
	}
}

// TestBackPressure holds that a sender is told when there is no room, and that
// sending again then is enough.
func TestBackPressure(t *testing.T) {
	d := newDesk(t)
	d.queue.fail(remit.Errorf(remit.Unavailable, "queue events", "the queue is full"))
	if w := d.post(d.secret, list("a")); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	d.queue.fail(errors.New("disk on fire at /var/secret"))
	if w := d.post(d.secret, list("a")); w.Code != 500 || strings.Contains(w.Body.String(), "fire") || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	d.queue.fail(nil)
	if w := d.post(d.secret, list("a")); w.Code != 200 {
		t.Errorf("%d", w.Code)
	}
}

// TestSenderGoesAway: a connection that broke was once told, and logged, as a file
// that is damaged, which is never sent again.
func TestSenderGoesAway(t *testing.T) {
	d := newDesk(t)
	for _, how := range []string{"lines", "list", "indented", "gzip", "zstd"} {
		whole := event("a") + "\n" + event("b") + "\n"
		switch how {
		case "list":
			whole = list("a", "b")
		case "indented":
			whole = strings.ReplaceAll(list("a", "b"), ",", ",\n")
		case "gzip", "zstd":
			whole = packed(t, how, whole)
		}
		for _, arrived := range []int{0, 1, len(whole) / 2, len(whole)} {
			r := httptest.NewRequest(http.MethodPost, ingest.Path, io.MultiReader(strings.NewReader(whole[:arrived]), iotest.ErrReader(io.ErrUnexpectedEOF)))
			r.Header.Set("Authorization", "Bearer "+d.secret)
			w := httptest.NewRecorder()
			d.ServeHTTP(w, r)
			if w.Code != http.StatusRequestTimeout || w.Header().Get("Retry-After") == "" {
				t.Errorf("%q, %d bytes of it: %d %s", how, arrived, w.Code, w.Body)
			}
		}
	}
	if len(d.grave.lines) > 0 {
		t.Errorf("dead: %s", d.grave.text())
	}
}

// TestNoSecretIsQueued: an audit event at level RequestResponse carries the token
// that it minted, and not even the queue may have it; nor may dead letters.
func TestNoSecretIsQueued(t *testing.T) {
	d := newDesk(t)
	const secret = "eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJlLXdpdGgtbWFueS1ieXRlcw"
	minted := strings.TrimSuffix(event("a"), "}") + `,"responseObject":{"kind":"TokenRequest","status":{"token":"` + secret + `"}}}`
	w := d.post(d.secret, `{"kind":"EventList","items":[`+minted+`]}`+"\n"+minted+"\n{\"torn\": \""+secret+"\n")
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if len(d.queue.ids(t)) != 2 || strings.Contains(d.queue.text(), secret) || !strings.Contains(d.queue.text(), connector.Stripped) {
		t.Errorf("queued: %s", d.queue.text())
	}
	if len(d.grave.lines) != 1 || strings.Contains(d.grave.text(), secret) {
		t.Errorf("dead: %s", d.grave.text())
	}
}

// TestLargeBatches holds that a large body becomes batches that fit, in order.
func TestLargeBatches(t *testing.T) {
	d := newDesk(t)
	var body, want strings.Builder
	for i := range 12_000 {
		fmt.Fprintln(&body, event(fmt.Sprint(i)))
		fmt.Fprintf(&want, "%d ", i)
	}
	huge := strings.TrimSuffix(event("huge"), "}") + `,"requestObject":{"data":"` + strings.Repeat("x", queue.MaxBatch) + `"}}`
	if w := d.post(d.secret, body.String()+huge+"\n"); w.Code != 200 || !strings.Contains(w.Body.String(), `"events":12000,"dead":1`) {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if got := strings.Join(d.queue.ids(t), " "); got != strings.TrimSpace(want.String()) {
		t.Error("events are missing or out of order")
	}
	if len(d.queue.batches) < 2 {
		t.Errorf("%d batches", len(d.queue.batches))
	}
	for _, b := range d.queue.batches {
		if len(b.Events) > queue.MaxBatch {
			t.Errorf("a batch of %d bytes", len(b.Events))
		}
	}
}

// TestRefusalsLogged holds that a sender who is asked to come again does not fill the
// log, and that whoever is turned away for good is told of each time.
func TestRefusalsLogged(t *testing.T) {
	d := newDesk(t)
	var log bytes.Buffer
	d.Log = slog.New(slog.NewTextHandler(&log, nil))
	early, _, err := d.tokens.Create(t.Context(), token.Request{Client: "new", Scope: token.SendEvents, System: "new", Source: "kubernetes"})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		for bearer, want := range map[string]int{early: 503, d.metrics: 403} {
			if w := d.post(bearer, list("a")); w.Code != want {
				t.Fatalf("%d: %s", w.Code, w.Body)
			}
		}
	}
	if again, never := strings.Count(log.String(), "status=503"), strings.Count(log.String(), "status=403"); again != 1 || never != 5 {
		t.Errorf("%d and %d lines:\n%s", again, never, log.String())
	}
}

func TestManyAtOnce(t *testing.T) {
	d := newDesk(t)
	var all sync.WaitGroup
	var mu sync.Mutex
	status := map[int]int{}
	for i := range 64 {
		all.Go(func() {
			for {
				w := d.post(d.secret, list(fmt.Sprint(i)))
				mu.Lock()
				status[w.Code]++
				mu.Unlock()
				if w.Code == 200 {
					return
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	all.Wait()
	for code := range status {
		if code != 200 && code != 429 {
			t.Errorf("%d answers of %d", status[code], code)
		}
	}
	if len(d.queue.ids(t)) != 64 {
		t.Errorf("%d events", len(d.queue.ids(t)))
	}
}
