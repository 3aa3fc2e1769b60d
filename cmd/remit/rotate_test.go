//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
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
)

// TestRotateCommands rotates, by the command line alone, a service account's token
// into one that expires, whose use only the cluster's log shows, and a database
// password into a Secret of the same cluster, while clients use both all the time.
func TestRotateCommands(t *testing.T) {
	c := cluster.Start(t)
	db := postgres.Start(t)
	ctx := t.Context()
	home := newHome(t)
	dir, command, must, write := home.path, home.run, home.must, home.write
	ns := c.Namespace(t)
	secrets := c.Client.CoreV1().Secrets(ns)
	if _, err := c.Client.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "ci"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	create := func(s *corev1.Secret) {
		t.Helper()
		if _, err := secrets.Create(ctx, s, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "ci-token", Annotations: map[string]string{corev1.ServiceAccountNameKey: "ci"}}, Type: corev1.SecretTypeServiceAccountToken})
	var token []byte
	wait(t, "the token", func() bool {
		s, err := secrets.Get(ctx, "ci-token", metav1.GetOptions{})
		if err == nil {
			token = s.Data["token"]
		}
		return len(token) > 0
	})
	place := write("token", string(token))
	create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "orders"}, Data: map[string][]byte{"username": []byte("orders"), "password": []byte("first")}})
	conn, err := pgx.Connect(ctx, db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(ctx, "CREATE ROLE orders LOGIN PASSWORD 'first'"); err != nil {
		t.Fatal(err)
	}

	write("db.url", db.URL)
	config := func(mode string) {
		t.Helper()
		write("remit.yaml", `
systems:
  - {name: prod, kubeconfig: `+c.Kubeconfig+`, mode: `+mode+`, enforce: {kubeconfig: `+c.Kubeconfig+`}}
  - {name: orders-db, connector: postgres, mode: `+mode+`, approvals: 0, enforce: {url_file: db.url}}
rotation:
  - {credential: `+ns+`/ci-token, system: prod, kind: bound-token, lifetime: 30d, grace: 1s, to: ["file:`+place+`"]}
  - {credential: orders, system: orders-db, grace: 1s, to: ["secret:`+ns+`/orders#username,password@prod"]}
`)
	}
	config("observe")
	must("scan", "--system", "prod", "--output", filepath.Join(dir, "scan.json"), "--format", "json")
	preview := must("rotate", ns+"/ci-token", "--plan")
	t.Log("\n" + preview)
	if strings.Contains(preview, "eyJ") || !strings.Contains(preview, "STEP 4 · end") {
		t.Errorf("the plan is\n%s", preview)
	}
	if _, err := command("rotate", ns+"/ci-token", "--as", "alice"); remit.KindOf(err) != remit.Forbidden {
		t.Errorf("in mode observe: %v", err)
	}
	if text, err := os.ReadFile(place); err != nil || !bytes.Equal(text, token) {
		t.Errorf("a preview has changed something: %v", err)
	}
	config("recommend")

	using, stop := context.WithCancel(ctx)
	var clients sync.WaitGroup
	defer clients.Wait()
	defer stop()
	uses := [2]int{}
	use := func(n int, once func() error) {
		clients.Go(func() {
			for ; using.Err() == nil; uses[n]++ {
				if err := once(); err != nil && using.Err() == nil {
					t.Errorf("client %d failed after %d uses: %v", n, uses[n], err)
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	use(0, func() error {
		text, err := os.ReadFile(place)
		if err != nil {
			return err
		}
		client, err := kubernetes.NewForConfig(c.TokenConfig(string(text)))
		if err != nil {
			return err
		}
		_, err = client.Discovery().RESTClient().Get().AbsPath("/api").DoRaw(using)
		return err
	})
	use(1, func() error {
		s, err := secrets.Get(using, "orders", metav1.GetOptions{})
		if err != nil {
			return err
		}
		return signIn(using, db.URL, string(s.Data["username"]), string(s.Data["password"]))
	})

	var plan remit.Response
	read := func(args ...string) {
		t.Helper()
		if err := json.Unmarshal([]byte(must(append(args, "--format", "json")...)), &plan); err != nil {
			t.Fatal(err)
		}
	}
	until := func(state remit.ResponseState, between func()) {
		t.Helper()
		wait(t, "the plan to be "+string(state), func() bool {
			if between != nil {
				between()
			}
			if _, err := command("plans", "resume", string(plan.ID)); err != nil {
				t.Fatal(err)
			}
			read("plans", "show", string(plan.ID))
			return plan.State == state
		})
	}
	// The cluster's, by approval, and by what its log shows.
	read("rotate", ns+"/ci-token", "--as", "alice")
	if plan.State != remit.ResponseProposed {
		t.Fatalf("it is %s", plan.State)
	}
	out := must("plans", "approve", string(plan.ID), "--as", "bob")
	if !strings.Contains(out, "running: 2 of 4 steps in effect; it waits until") {
		t.Errorf("approved: %s", out)
	}
	log := filepath.Join(dir, "audit.log")
	until(remit.ResponseVerified, func() {
		text, err := os.ReadFile(c.AuditLog)
		if err != nil {
			t.Fatal(err)
		}
		write("audit.log", string(text[:bytes.LastIndexByte(text, '\n')+1]))
		must("import", "activity", "--system", "prod", log)
	})
	t.Log("\n" + must("plans", "show", string(plan.ID)))
	if _, err := secrets.Get(ctx, "ci-token", metav1.GetOptions{}); err == nil {
		t.Error("the old token lives")
	}

	// The database's, which needs no approval.
	read("rotate", "orders", "--as", "alice")
	until(remit.ResponseVerified, nil)
	stop()
	clients.Wait()
	if err := signIn(ctx, db.URL, "orders", "first"); err == nil {
		t.Error("the old password is accepted")
	}
	t.Logf("%d and %d uses", uses[0], uses[1])
	for _, name := range []string{"remit.db", "remit.db-wal"} {
		stored, err := os.ReadFile(filepath.Join(dir, name))
		if os.IsNotExist(err) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		now, err := os.ReadFile(place)
		if err != nil {
			t.Fatal(err)
		}
		s, err := secrets.Get(ctx, "orders", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(stored, now) || bytes.Contains(stored, s.Data["password"]) {
			t.Errorf("%s holds a secret", name)
		}
	}
}

// signIn connects to a database as a role.
func signIn(ctx context.Context, url, user, password string) error {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return err
	}
	config.User, config.Password = user, password
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	return conn.Close(context.WithoutCancel(ctx))
}
