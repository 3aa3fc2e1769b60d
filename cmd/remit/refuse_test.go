//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"remit"
	"remit/e2e/cluster"
)

// TestCredentialsRefused sets a real API server up as the documentation says, with
// what the commands print, plays the theft on it and has the thief refused
// everything, through a kill of Remit, until it is undone.
func TestCredentialsRefused(t *testing.T) {
	home, address := newHome(t), freeAddress(t)
	dir, command, must, write := home.path, home.run, home.must, home.write
	kubeconfig := write("api-server.kubeconfig", must("token", "create", "prod-authorize", "--for", "authorize", "--system", "prod", "--webhook", "https://"+address))
	s := openShop(t, cluster.Start(t, func(o *cluster.Options) {
		o.AuthorizationConfig = must("token", "authorizer", "--kubeconfig", kubeconfig)
	}))
	write("remit.yaml", "listen: {address: "+address+", events: false}\nsystems:\n"+
		"  - {name: prod, kubeconfig: "+s.Kubeconfig+", authorize: true, mode: recommend, enforce: {kubeconfig: "+s.Kubeconfig+"}, approvals: 0}\n")
	s.live(2)
	minted := s.rob(3)
	stolen := s.tokens[3]
	time.Sleep(time.Second) // the log is written behind the answer
	text, err := os.ReadFile(s.AuditLog)
	if err != nil {
		t.Fatal(err)
	}
	must("scan", "--system", "prod", "--output", filepath.Join(dir, "scan.json"), "--format", "json")
	must("import", "activity", "--system", "prod", write("audit.log", string(text[:bytes.LastIndexByte(text, '\n')+1])))

	refused := func(config *rest.Config, from string) bool {
		t.Helper()
		_, err := s.from(config, from).CoreV1().ConfigMaps(shopNamespace).List(t.Context(), metav1.ListOptions{})
		if err != nil && !(apierrors.IsForbidden(err) && strings.Contains(err.Error(), "Remit has contained this credential")) {
			t.Fatal(err)
		}
		return err != nil
	}
	// Without `remit serve` nobody is asked, and the grade is refused in words.
	contain := []string{"contain", "shop/worker-3", "--grade", "refuse-credentials", "--as", "alice", "--format", "json"}
	if _, err := command(contain...); remit.KindOf(err) != remit.Unsupported || !strings.Contains(err.Error(), "remit token authorizer") {
		t.Fatalf("without remit serve: %v", err)
	}
	serve := func() *daemon {
		t.Helper()
		d := serving(t, "--data-dir", dir, "--no-watch")
		wait(t, "remit serve to listen", func() bool { return strings.Contains(d.out.String(), "listening") })
		return d
	}
	d := serve()
	var plan remit.Response
	wait(t, "the list to be read", func() bool {
		out, err := command(contain...)
		if err != nil && remit.KindOf(err) != remit.Unsupported {
			t.Fatal(err)
		}
		return err == nil && json.Unmarshal([]byte(out), &plan) == nil
	})
	for who, token := range map[string]string{"the minted token": minted, "the stolen token": stolen} {
		if !refused(s.TokenConfig(token), attacker) {
			t.Errorf("%s reads", who)
		}
	}
	others := func(when string) {
		t.Helper()
		for i := range s.tokens {
			if i != 3 && refused(s.TokenConfig(s.tokens[i]), workerAddress(i)) {
				t.Errorf("%s another workload is refused", when)
			}
		}
	}
	others("while one is refused")
	// The robbed workload is given another token by its node, and works on.
	s.live(1)
	if refused(s.TokenConfig(s.tokens[3]), workerAddress(3)) {
		t.Error("the workload's next token is refused")
	}

	d.kill()
	others("without Remit")
	if refused(s.TokenConfig(minted), attacker) {
		t.Error("without Remit requests do not go on as before")
	}
	serve()
	wait(t, "it to be refused after a restart", func() bool { return refused(s.TokenConfig(minted), attacker) })
	t.Log(must("plans", "undo", string(plan.ID), "--as", "bob"))
	wait(t, "it to be undone", func() bool { return !refused(s.TokenConfig(minted), attacker) })
}
