//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit"
	"remit/e2e/cluster"
	"remit/e2e/postgres"
	"remit/store/sqlstore"
)

// TestTheftAnswered has `remit serve` contain a stolen token by a rule: the
// attacker, who mints as fast as he can with whatever he has, is refused within a
// second of his first mint and for good, while all workloads work on, the robbed
// one by the stolen token itself; a person undoes it and the rule does not come
// back to it.
func TestTheftAnswered(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		dir := t.TempDir()
		theftAnswered(t, dir, filepath.Join(dir, "remit.db"))
	})
	t.Run("postgres", func(t *testing.T) { theftAnswered(t, t.TempDir(), postgres.Database(t)) })
}

func theftAnswered(t *testing.T, dir, url string) {
	address := freeAddress(t)
	run := func(t *testing.T, args ...string) (string, error) {
		t.Helper()
		return run(t, append(args, "--data-dir", dir, "--store", url)...)
	}
	s := openShop(t, cluster.Start(t, auditsTo(t, address, "--data-dir", dir, "--store", url)))
	text := "systems:\n  - name: prod\n    kubeconfig: " + s.Kubeconfig + "\n    mode: enforce\n    enforce: {kubeconfig: " + s.Kubeconfig + "}\n" +
		"respond:\n  - {name: theft, severity: high, systems: [prod], do: contain, approval: none}\n"
	if err := os.WriteFile(filepath.Join(dir, "remit.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	served := serving(t, "--listen", address, "--data-dir", dir, "--store", url)
	store, err := sqlstore.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	plans := func() []remit.Response {
		all, _, err := store.Responses(t.Context(), remit.ResponseFilter{}, remit.PageRequest{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	wait(t, "the pods to be in the inventory", func() bool {
		some, _, err := store.Resources(t.Context(), remit.Filter{Kinds: []string{"Pod"}, Names: []string{worker(9)}}, remit.PageRequest{})
		return err == nil && len(some) == 1 && some[0].Attributes["addresses"] != ""
	})
	wait(t, "what containment needs to be in place", func() bool {
		_, err := s.Client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Get(t.Context(), "remit-containment", metav1.GetOptions{})
		return err == nil
	})
	s.live(4)
	mint := func(token, address string) (string, error) {
		r, err := s.from(s.TokenConfig(token), address).CoreV1().ServiceAccounts(shopNamespace).CreateToken(t.Context(), worker(3), &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if err != nil {
			return "", err
		}
		return r.Status.Token, nil
	}

	stolen := s.tokens[3]
	held := []string{stolen}
	if token, err := mint(stolen, attacker); err != nil {
		t.Fatal(err)
	} else {
		held = append(held, token)
	}
	began := time.Now()
	first := time.Duration(0)
	for time.Since(began) < 20*time.Second && (first == 0 || time.Since(began) < first+7*time.Second) {
		token, err := mint(held[len(held)-1], attacker)
		if err != nil {
			if first == 0 {
				first = time.Since(began)
			}
			// He tries all that he has, the newest first.
			if token, err = mint(held[(len(held)+int(time.Since(began)/time.Millisecond))%len(held)], attacker); err != nil {
				time.Sleep(5 * time.Millisecond)
				continue
			}
		}
		held = append(held, token)
		s.work(s.TokenConfig(s.tokens[len(held)%10]), workerAddress(len(held)%10))
	}
	if first == 0 {
		t.Fatalf("he was never refused; %d plans", len(plans()))
	}
	t.Logf("first refused %s after the answer to the first mint; %d tokens minted until then and in the race after it", first.Round(time.Millisecond), len(held)-1)
	if first > time.Second && !raceEnabled {
		t.Errorf("the first refusal came after %s", first)
	}
	for i, token := range held {
		if _, err := mint(token, attacker); err == nil {
			t.Errorf("token %d of %d still mints", i, len(held))
		}
	}
	for i := range s.tokens {
		s.work(s.TokenConfig(s.tokens[i]), workerAddress(i))
	}
	s.live(1)
	// What he minted in the race is added to the plan as it becomes known.
	all := plans()
	wait(t, "the plan to be carried out", func() bool {
		before := all
		time.Sleep(time.Second)
		all = plans()
		return len(before) > 0 && len(all) == len(before) && all[0].State == remit.ResponseVerified && all[0].Version == before[0].Version
	})
	if len(all) != 1 {
		t.Errorf("%d plans, not one", len(all))
	}
	for _, p := range all {
		if p.State != remit.ResponseVerified || p.Subject.Ref != workerRef(3) || p.AskedBy != "rule theft" {
			t.Errorf("plan %s %s about %s by %s", p.ID, p.State, p.Subject.Ref, p.AskedBy)
		}
	}
	out, err := run(t, "plans", "show", string(all[0].ID))
	t.Log(out, err)

	for _, p := range all {
		if out, err := run(t, "plans", "undo", string(p.ID), "--as", "bob", "--data-dir", dir); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
	}
	wait(t, "the containment to be undone", func() bool { _, err := mint(held[1], attacker); return err == nil })
	time.Sleep(3 * time.Second)
	if again := plans(); len(again) != len(all) {
		t.Errorf("after a person had undone it, there are %d plans, and were %d", len(again), len(all))
	}
	served.stop(t)
	if strings.Contains(served.out.String(), "ERROR") {
		t.Errorf("it complained:\n%s", served.out.String())
	}
}
