//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"remit"
	"remit/e2e/cluster"
	"remit/e2e/postgres"
	"remit/store/sqlstore"
)

// TestServedRotationKilled kills `remit serve` at random moments while it rotates, by
// a rule, tokens that have grown too old, and passwords of a database by command,
// several at a time, and kills those commands. Meanwhile a client of each uses what
// its destination holds, and is never refused. In the end each was rotated once, the
// old one is refused, and of all successors that were begun only the last is left.
// REMIT_KILLS sets how often something is killed.
func TestServedRotationKilled(t *testing.T) {
	const tokens, passwords = 6, 2 // at a time
	kills := 8
	if n, err := strconv.Atoi(os.Getenv("REMIT_KILLS")); err == nil {
		kills = n
	}
	program := built(t)
	dir := t.TempDir()
	c := cluster.Start(t)
	db := postgres.Start(t)
	ctx := t.Context()
	ns := c.Namespace(t)
	conn, err := pgx.Connect(ctx, db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := os.WriteFile(filepath.Join(dir, "db.url"), []byte(db.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	var config strings.Builder
	fmt.Fprintf(&config, `
systems:
  - {name: prod, kubeconfig: %[1]s, mode: enforce, enforce: {kubeconfig: %[1]s}}
  - {name: orders-db, connector: postgres, mode: enforce, approvals: 0, enforce: {url_file: db.url}}
lifecycle:
  policies: [{name: legacy, select: {types: [static-token], namespaces: [%[2]s], names: ["token-*"]}, max_age: 1s}]
respond:
  - {name: rotate-in-time, policies: [lifecycle-max-age], do: rotate, approval: none, hourly: 100000}
logs: [{path: %[3]s, system: prod}]
rotation:
`, c.Kubeconfig, ns, c.AuditLog)
	for n := range kills + tokens {
		fmt.Fprintf(&config, "  - {credential: %[1]s/token-%[2]d, system: prod, kind: bound-token, lifetime: 30d, grace: 1s, to: [\"secret:%[1]s/client-%[2]d#token\"]}\n", ns, n)
	}
	for n := range kills + passwords {
		fmt.Fprintf(&config, "  - {credential: role-%[2]d, system: orders-db, grace: 1s, to: [\"secret:%[1]s/database-%[2]d#username,password@prod\"]}\n", ns, n)
	}
	if err := os.WriteFile(filepath.Join(dir, "remit.yaml"), []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	secrets := c.Client.CoreV1().Secrets(ns)
	data := func(name string) map[string][]byte {
		t.Helper()
		s, err := secrets.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return s.Data
	}
	create := func(s *corev1.Secret) {
		t.Helper()
		if _, err := secrets.Create(ctx, s, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	serve := func() *daemon { return serving(t, "--data-dir", dir) }
	served := serve()
	store, err := sqlstore.Open(ctx, filepath.Join(dir, "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	plans := func() map[string][]remit.Response {
		t.Helper()
		byName := map[string][]remit.Response{}
		for page := (remit.PageRequest{Limit: 1000}); ; {
			some, next, err := store.Responses(ctx, remit.ResponseFilter{}, page)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range some {
				byName[r.Subject.Ref.Name] = append(byName[r.Subject.Ref.Name], r)
			}
			if page.After = next; next == "" {
				return byName
			}
		}
	}
	usesToken := func(ctx context.Context, token []byte) error {
		client, err := kubernetes.NewForConfig(c.TokenConfig(string(token)))
		if err == nil {
			_, err = client.Discovery().RESTClient().Get().AbsPath("/api").DoRaw(ctx)
		}
		return err
	}

	random := rand.New(rand.NewPCG(5, 6))
	during := map[string]int{}
	killed, uses, successors, rotated, failed := 0, 0, 0, 0, 0
	for batch := 0; killed < kills; batch++ {
		var names []string // of the old ones
		var old [][]byte
		using, rest := context.WithCancel(ctx)
		var clients sync.WaitGroup
		var counting sync.Mutex
		use := func(what string, once func() error) {
			clients.Go(func() {
				for using.Err() == nil {
					if err := once(); err != nil && using.Err() == nil {
						t.Errorf("the client of %s failed: %v", what, err)
						return
					}
					counting.Lock()
					uses++
					counting.Unlock()
					time.Sleep(200 * time.Millisecond)
				}
			})
		}
		for i := range tokens {
			n := batch*tokens + i
			name, place := fmt.Sprintf("token-%d", n), fmt.Sprintf("client-%d", n)
			names = append(names, name)
			if _, err := c.Client.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{corev1.ServiceAccountNameKey: name}}, Type: corev1.SecretTypeServiceAccountToken})
			wait(t, "the token", func() bool { return len(data(name)["token"]) > 0 })
			token := data(name)["token"]
			old = append(old, token)
			create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: place}, Data: map[string][]byte{"token": token}})
			use(name, func() error {
				s, err := secrets.Get(using, place, metav1.GetOptions{})
				if err != nil {
					return err
				}
				return usesToken(using, s.Data["token"])
			})
		}
		for i := range passwords {
			n := batch*passwords + i
			name, place := fmt.Sprintf("role-%d", n), fmt.Sprintf("database-%d", n)
			names = append(names, name)
			if _, err := conn.Exec(ctx, `CREATE ROLE "`+name+`" LOGIN PASSWORD 'first'`); err != nil {
				t.Fatal(err)
			}
			create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: place}, Data: map[string][]byte{"username": []byte(name), "password": []byte("first")}})
			use(name, func() error {
				s, err := secrets.Get(using, place, metav1.GetOptions{})
				if err != nil {
					return err
				}
				session, err := pgx.ParseConfig(db.URL)
				if err != nil {
					return err
				}
				session.User, session.Password = string(s.Data["username"]), string(s.Data["password"])
				conn, err := pgx.ConnectConfig(using, session)
				if err != nil {
					return err
				}
				defer conn.Close(context.WithoutCancel(using))
				_, err = conn.Exec(using, "SELECT pg_sleep(0.3)") // its use is looked for among the sessions
				return err
			})
		}

		// at is how far each is that is not done.
		at := func() (all []string) {
			byName := plans()
			for _, name := range names {
				where := "before the plan"
				if r := byName[name]; len(r) > 0 {
					if r[0].State == remit.ResponseVerified {
						continue
					}
					where = string(r[0].State)
					for _, step := range r[0].Steps {
						if step.State != remit.ResponseVerified {
							where += ", before " + string(step.Phase)
							break
						}
					}
					if after := string(r[0].Steps[0].After); strings.Contains(after, `"given_up"`) {
						where += ", the second or later successor"
					} else if after != "" {
						where += ", a successor is begun"
					}
				}
				all = append(all, where)
			}
			return all
		}
		kill := func(what string, process func()) {
			for _, where := range at() {
				during[what+": "+where]++
			}
			process()
			killed++
		}
		// soon waits for a moment: any, or one shortly after something has been done.
		soon := func(longest int, ended <-chan struct{}) {
			if random.IntN(2) > 0 {
				before := fmt.Sprint(at())
				for until := time.Now().Add(2 * time.Second); time.Now().Before(until) && fmt.Sprint(at()) == before; {
					select {
					case <-ended:
						return
					case <-time.After(3 * time.Millisecond):
					}
				}
				longest = 60
			}
			select {
			case <-ended:
			case <-time.After(time.Duration(random.IntN(longest)) * time.Millisecond):
			}
		}
		// The passwords are asked for by commands that are killed, until there is a
		// plan; then it is the server that goes on with it.
		began := time.Now()
		killing := func() bool { return killed < kills && time.Since(began) < time.Minute } // it must come to an end
		for {
			all, done := plans(), 0
			for i, name := range names {
				if r := all[name]; len(r) > 0 && r[0].State == remit.ResponseVerified {
					done++
				} else if i >= tokens && (len(r) == 0 || r[0].State == remit.ResponseFailed) {
					var said bytes.Buffer
					rotate := exec.Command(program, "rotate", name, "--as", "alice", "--data-dir", dir)
					rotate.Stdout, rotate.Stderr = &said, &said
					if err := rotate.Start(); err != nil {
						t.Fatal(err)
					}
					ended := make(chan struct{})
					go func() { _ = rotate.Wait(); close(ended) }()
					if killing() && random.IntN(2) > 0 {
						soon(3000, ended)
						select {
						case <-ended:
						default:
							kill("command", func() { _ = rotate.Process.Kill() })
						}
					}
					<-ended
					if strings.Contains(said.String(), "panic") {
						t.Errorf("rotate %s: %s", name, said.String())
					}
				}
			}
			if done == len(names) {
				break
			}
			if time.Since(began) > 10*time.Minute {
				for _, name := range names {
					text, _ := json.Marshal(all[name])
					t.Logf("%s: %s", name, text)
				}
				t.Fatalf("of %d credentials %d are rotated after %s", len(names), done, time.Since(began))
			}
			if !killing() {
				time.Sleep(200 * time.Millisecond)
				continue
			}
			soon(3000, nil)
			kill("serve", served.kill)
			served = serve()
		}
		t.Logf("killed %d times, %d credentials rotated", killed, rotated+len(names))
		// The API server may remember what was ended for ten seconds.
		for i, token := range old {
			wait(t, "the old token to be refused: "+names[i], func() bool { return usesToken(ctx, token) != nil })
		}
		rest()
		clients.Wait()

		all := plans()
		for i, name := range names {
			rotated++
			// One plan makes so many successors and no more; then another begins anew.
			for p, r := range all[name] {
				if p > 0 && (r.State != remit.ResponseFailed || !strings.Contains(r.History[len(r.History)-1].Note, "successors")) {
					text, _ := json.MarshalIndent(all[name], "", " ")
					t.Errorf("%d plans for %s: %s", len(all[name]), name, text)
				}
				failed += min(p, 1)
				var state struct {
					Attempts []struct {
						Ref   remit.Ref `json:"ref"`
						Ended bool      `json:"ended"`
					} `json:"attempts"`
				}
				if err := json.Unmarshal(r.Steps[0].After, &state); err != nil {
					t.Fatal(err)
				}
				successors += len(state.Attempts)
				for k, a := range state.Attempts {
					last := p == 0 && k == len(state.Attempts)-1
					lives := false
					if i < tokens {
						_, err := secrets.Get(ctx, a.Ref.Name, metav1.GetOptions{})
						lives = err == nil
					} else if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1 AND rolcanlogin)", a.Ref.Name).Scan(&lives); err != nil {
						t.Fatal(err)
					}
					if lives != last || a.Ended == last {
						t.Errorf("%s: successor %d of %d, %s: it lives: %t, the plan says ended: %t", name, k+1, len(state.Attempts), a.Ref, lives, a.Ended)
					}
				}
			}
			if i < tokens {
				if _, err := secrets.Get(ctx, name, metav1.GetOptions{}); err == nil {
					t.Errorf("%s is left", name)
				}
			} else if err := signIn(ctx, db.URL, name, "first"); err == nil {
				t.Errorf("the old password of %s is accepted", name)
			}
		}
	}
	// What is in no plan is not in the cluster either.
	left, err := secrets.List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, all := range plans() {
		for _, r := range all {
			known[string(r.Steps[0].After)] = true
		}
	}
	for _, s := range left.Items {
		if strings.HasPrefix(s.Name, "client-") || strings.HasPrefix(s.Name, "database-") {
			continue
		}
		found := false
		for after := range known {
			found = found || strings.Contains(after, s.Name)
		}
		if !found {
			t.Errorf("Secret %s belongs to no plan", s.Name)
		}
	}
	t.Logf("killed %d times; %d credentials rotated, %d successors begun, %d plans failed and began anew, %d uses; where each was when something was killed:", killed, rotated, successors, failed, uses)
	for where, n := range during {
		t.Logf("  %3d  %s", n, where)
	}
	served.stop(t)
}
