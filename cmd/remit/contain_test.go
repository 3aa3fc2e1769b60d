//go:build unix

package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"remit"
	"remit/e2e/cluster"
)

// TestStolenTokenContained plays the theft on a real API server, contains what the
// finding names, and expects that the attacker can mint no more, that the nine
// others and the robbed workload notice nothing, and that it can be undone.
func TestStolenTokenContained(t *testing.T) {
	s := openShop(t, cluster.Start(t))
	s.live(4)
	minted := s.rob(3)
	stolen := s.tokens[3]
	time.Sleep(time.Second) // the log is written behind the answer

	home := newHome(t)
	dir, must := home.path, home.must
	refused := func(want remit.ErrorKind, args ...string) {
		t.Helper()
		home.refused(want, "", args...)
	}
	must("import", "activity", "--system", "prod", home.learn(s.Kubeconfig, s.AuditLog))
	finding := ""
	for _, f := range detections(t, dir) {
		if f.Severity == remit.High && f.Subject.Ref == workerRef(3) {
			finding = string(f.ID)
		}
	}
	if finding == "" {
		t.Fatal("there is no finding")
	}

	configure := func(mode string) {
		t.Helper()
		text := "systems:\n  - name: prod\n    kubeconfig: " + s.Kubeconfig + "\n    mode: " + mode + "\n    enforce: {kubeconfig: " + s.Kubeconfig + "}\n" +
			"protected: [shop/worker-1]\n"
		if err := os.WriteFile(filepath.Join(dir, "remit.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mints := func(config *rest.Config, address string) bool {
		t.Helper()
		_, err := s.from(config, address).CoreV1().ServiceAccounts(shopNamespace).CreateToken(t.Context(), worker(3), &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		return err == nil
	}
	configure("observe")
	preview := must("contain", finding, "--plan")
	t.Log("\n" + preview)
	if strings.Contains(preview, "eyJ") {
		t.Error("the plan holds a token")
	}
	refused(remit.Forbidden, "contain", finding, "--as", "alice")
	configure("recommend")
	refused(remit.NotFound, "contain", "shop/nobody", "--as", "alice")
	refused(remit.Forbidden, "contain", "shop/worker-1", "--as", "alice")
	if !mints(s.TokenConfig(minted), attacker) {
		t.Fatal("the attacker was cut off before anything was done")
	}

	var plan remit.Response
	if err := json.Unmarshal([]byte(must("contain", finding, "--as", "alice", "--format", "json")), &plan); err != nil {
		t.Fatal(err)
	}
	id := string(plan.ID)
	refused(remit.Forbidden, "plans", "approve", id, "--as", "alice")
	must("stop-all", "--as", "carol", "--why", "not now")
	refused(remit.Forbidden, "plans", "approve", id, "--as", "bob")
	if !mints(s.TokenConfig(minted), attacker) {
		t.Error("a stopped plan was carried out")
	}
	must("stop-all", "--resume")
	t.Log(must("plans", "resume", id))
	done := time.Now()
	wait(t, "the attacker to be refused", func() bool { return !mints(s.TokenConfig(minted), attacker) })
	t.Logf("refused %s after the plan was verified", time.Since(done).Round(time.Millisecond))
	if mints(s.TokenConfig(stolen), attacker) {
		t.Error("the stolen token still mints")
	}

	// The workloads work on, the robbed one with the very token that was stolen,
	// and their nodes renew what they have.
	for i := range s.tokens {
		s.work(s.TokenConfig(s.tokens[i]), workerAddress(i))
	}
	s.live(1)
	if !mints(s.TokenConfig(s.tokens[3]), workerAddress(3)) {
		t.Error("the workload's next token cannot mint")
	}

	t.Log(must("plans", "undo", id, "--as", "bob"))
	wait(t, "the containment to be undone", func() bool { return mints(s.TokenConfig(minted), attacker) })
	t.Log("\n" + must("plans", "show", id) + must("plans", "list"))

	// The whole identity, by its grants, and back.
	before, err := s.Client.RbacV1().RoleBindings(shopNamespace).Get(context.Background(), worker(3), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(must("contain", "shop/worker-3", "--grade", "remove-grants", "--as", "alice", "--format", "json")), &plan); err != nil {
		t.Fatal(err)
	}
	must("plans", "approve", string(plan.ID), "--as", "bob")
	if mints(s.TokenConfig(s.tokens[3]), workerAddress(3)) {
		t.Error("without its grant the account mints")
	}
	must("plans", "undo", string(plan.ID), "--as", "bob")
	after, err := s.Client.RbacV1().RoleBindings(shopNamespace).Get(context.Background(), worker(3), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before.ResourceVersion, after.ResourceVersion, before.ManagedFields, after.ManagedFields = "", "", nil, nil
	if was, is := asJSON(t, before), asJSON(t, after); was != is {
		t.Errorf("undone the binding is %s, and was %s", is, was)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
