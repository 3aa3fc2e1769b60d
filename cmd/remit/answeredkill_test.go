//go:build unix

package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit"
	"remit/e2e/cluster"
	"remit/store/sqlstore"
)

// TestAnsweredKilled kills `remit serve` at random moments while it contains thefts
// by a rule, by all three grades of a plan, and the command that undoes them, until
// each is done. Then nothing that the plan says is cut works, everything has been
// changed once, and undone all is as it was, but for what cannot be undone.
// REMIT_KILLS sets how often it is killed.
func TestAnsweredKilled(t *testing.T) {
	kills := 8
	if n, err := strconv.Atoi(os.Getenv("REMIT_KILLS")); err == nil {
		kills = n
	}
	program := built(t)
	dir := t.TempDir()
	s := openShop(t, cluster.Start(t))
	// An API server gives up events that a webhook does not take for long enough, which
	// so many restarts are: those of a log that is followed are never lost.
	text := "logs: [{path: " + s.AuditLog + ", system: prod}]\nsystems:\n  - name: prod\n    kubeconfig: " + s.Kubeconfig + "\n    mode: enforce\n    enforce: {kubeconfig: " + s.Kubeconfig + "}\n" +
		"respond:\n  - {name: theft, severity: high, do: contain, grades: [freeze-credentials, remove-grants, kill-tokens], approval: none, hourly: 100000}\n"
	if err := os.WriteFile(filepath.Join(dir, "remit.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	serve := func() *daemon { return serving(t, "--data-dir", dir) }
	served := serve()
	store, err := sqlstore.Open(t.Context(), filepath.Join(dir, "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	wait(t, "what containment needs to be in place", func() bool {
		_, err := s.Client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Get(t.Context(), "remit-containment", metav1.GetOptions{})
		return err == nil
	})

	random := rand.New(rand.NewPCG(3, 4))
	during := map[string]int{}
	states := func(id remit.ID) string { // how far the plan is at this moment
		all, _, err := store.Responses(t.Context(), remit.ResponseFilter{Subjects: []remit.ID{id}}, remit.PageRequest{Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 0 {
			return "before the plan"
		}
		done := 0
		for _, step := range all[0].Steps {
			if step.State != remit.ResponseProposed {
				done++
			}
		}
		return fmt.Sprintf("%s, %d of %d steps", all[0].State, done, len(all[0].Steps))
	}
	killed, undoneKilled := 0, 0
	for n := 0; killed+undoneKilled < kills; n++ {
		victim := fmt.Sprintf("victim-%d", n)
		ref := remit.Ref{Kind: "ServiceAccount", Namespace: shopNamespace, Name: victim}
		id := victimID(t, store, ref)
		s.addVictim(victim, n)
		before, err := s.Client.RbacV1().RoleBindings(shopNamespace).Get(t.Context(), victim, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		account, err := s.Client.CoreV1().ServiceAccounts(shopNamespace).Get(t.Context(), victim, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		status, err := s.node.PodToken(t.Context(), shopNamespace, victim, cluster.TokenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		held := []string{status.Token}
		for range 2 {
			held = append(held, s.mint(s.TokenConfig(held[len(held)-1]), attacker, victim))
		}
		plan := func() (r remit.Response) {
			all, _, err := store.Responses(t.Context(), remit.ResponseFilter{Subjects: []remit.ID{id}}, remit.PageRequest{Limit: 10})
			if err != nil {
				t.Fatal(err)
			}
			if len(all) > 1 {
				t.Fatalf("%d plans about %s", len(all), victim)
			}
			if len(all) == 1 {
				r = all[0]
			}
			return r
		}
		for tries := 0; plan().State != remit.ResponseVerified; {
			// The first kill may come before there is a plan, those after it come soon
			// after the server has begun again: it goes on at once.
			longest := 700
			if tries > 0 {
				longest = 2500
			}
			time.Sleep(time.Duration(random.IntN(longest)) * time.Millisecond)
			if plan().State == remit.ResponseVerified || killed+undoneKilled >= kills || tries >= 4 {
				wait(t, "the plan to be carried out: "+victim, func() bool { return plan().State == remit.ResponseVerified })
				break
			}
			served.kill()
			during[states(id)]++
			killed, tries = killed+1, tries+1
			served = serve()
		}
		r := plan()

		// All is in effect, and was done once.
		for i, token := range held {
			if _, err := s.from(s.TokenConfig(token), attacker).CoreV1().ServiceAccounts(shopNamespace).CreateToken(t.Context(), victim, &authenticationv1.TokenRequest{}, metav1.CreateOptions{}); err == nil {
				t.Errorf("%s: token %d still mints", victim, i)
			}
		}
		contained, err := s.Client.CoreV1().Secrets("remit-system").Get(t.Context(), "remit-contained", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		// What was found meanwhile may have been added: the plan is read after that.
		freezing := 0
		for _, step := range plan().Steps {
			if step.Grade == remit.FreezeCredentials {
				freezing++
			}
		}
		for key, value := range contained.Data {
			if words := strings.Fields(string(value)); len(words) > freezing {
				t.Errorf("%s: %s is held %d times by %d steps: %s", victim, key, len(words), freezing, value)
			}
		}
		if binding, err := s.Client.RbacV1().RoleBindings(shopNamespace).Get(t.Context(), victim, metav1.GetOptions{}); err == nil && len(binding.Subjects) > 0 {
			t.Errorf("%s still has its grant", victim)
		}
		anew, err := s.Client.CoreV1().ServiceAccounts(shopNamespace).Get(t.Context(), victim, metav1.GetOptions{})
		if err != nil || anew.UID == account.UID {
			t.Errorf("%s was not made anew: %v", victim, err)
		}

		// Undone by a command that is killed, too.
		for tries := 0; ; tries++ {
			var said bytes.Buffer
			undo := exec.Command(program, "plans", "undo", string(r.ID), "--as", "bob", "--data-dir", dir)
			undo.Stdout, undo.Stderr = &said, &said
			if err := undo.Start(); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- undo.Wait() }()
			if tries < 2 && killed+undoneKilled < kills {
				select {
				case <-time.After(time.Duration(100+random.IntN(500)) * time.Millisecond):
					if undo.Process.Kill() == nil {
						during["undo: "+states(id)]++
						undoneKilled++
					}
					<-done
				case err := <-done:
					if err != nil {
						t.Fatalf("undo of %s: %v %s", victim, err, said.String())
					}
				}
			} else if err := <-done; err != nil {
				t.Fatalf("undo of %s: %v %s", victim, err, said.String())
			}
			if plan().State == remit.ResponseUndone {
				break
			}
		}
		after, err := s.Client.RbacV1().RoleBindings(shopNamespace).Get(t.Context(), victim, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		before.ResourceVersion, after.ResourceVersion, before.ManagedFields, after.ManagedFields = "", "", nil, nil
		if before.UID != after.UID { // it may have been made anew, as a whole
			before.UID, before.CreationTimestamp, after.UID, after.CreationTimestamp = "", metav1.Time{}, "", metav1.Time{}
		}
		if was, is := asJSON(t, before), asJSON(t, after); was != is {
			t.Errorf("%s: undone the binding is %s, and was %s", victim, is, was)
		}
		if contained, err = s.Client.CoreV1().Secrets("remit-system").Get(t.Context(), "remit-contained", metav1.GetOptions{}); err != nil || len(contained.Data) > 0 {
			t.Errorf("%s: undone, there is still held: %v %v", victim, contained.Data, err)
		}
		if again, err := s.Client.CoreV1().ServiceAccounts(shopNamespace).Get(t.Context(), victim, metav1.GetOptions{}); err != nil || again.UID != anew.UID {
			t.Errorf("%s was made anew twice: %v", victim, err)
		}
	}
	t.Logf("killed serve %d times and undo %d times:", killed, undoneKilled)
	for where, n := range during {
		t.Logf("  %3d  %s", n, where)
	}
	served.stop(t)
}

// addVictim makes an account and a pod that runs as it.
func (s *shop) addVictim(name string, n int) {
	s.t.Helper()
	ctx := s.t.Context()
	s.account(name)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: shopNamespace}, Spec: corev1.PodSpec{
		ServiceAccountName: name, Containers: []corev1.Container{{Name: "worker", Image: "shop/worker:1.4"}},
	}}
	if _, err := s.Client.CoreV1().Pods(shopNamespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	if err := s.node.Bind(ctx, shopNamespace, name); err != nil {
		s.t.Fatal(err)
	}
	if err := s.node.Run(ctx, shopNamespace, name, fmt.Sprintf("127.21.%d.%d", n/250, 1+n%250)); err != nil {
		s.t.Fatal(err)
	}
}
