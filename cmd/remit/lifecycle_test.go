//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit"
	"remit/e2e/cluster"
	"remit/store/sqlstore"
)

// TestLifecycle has `remit serve` watch a real cluster: a legacy token that grows
// too old is told by the clock alone, still is after the server was killed, and is
// to be revoked when its grace has passed and not before; when it is deleted all of
// that resolves. An account that is deleted and still has grants is to be disabled,
// then removed, until it is made again.
func TestLifecycle(t *testing.T) {
	const age, grace = 8 * time.Second, 8 * time.Second
	c := cluster.Start(t)
	dir := t.TempDir()
	config := "systems:\n  - {name: prod, kubeconfig: " + c.Kubeconfig + "}\n" +
		"lifecycle:\n  policies:\n    - {name: legacy, select: {types: [static-token], namespaces: [default]}, max_age: " + age.String() + ", grace: " + grace.String() + "}\n" +
		"  offboarding: {grace: 4s, causes: [identity-deleted]}\n"
	if err := os.WriteFile(filepath.Join(dir, "remit.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	accounts, secrets, bindings := c.Client.CoreV1().ServiceAccounts("default"), c.Client.CoreV1().Secrets("default"), c.Client.RbacV1().RoleBindings("default")
	account := func(name string) {
		t.Helper()
		if _, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	account("runner")
	account("leaver")
	if _, err := bindings.Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "leaver"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "edit"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: "leaver"}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}

	served := serving(t, "--data-dir", dir)
	store, err := sqlstore.Open(t.Context(), filepath.Join(dir, "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	told := func(policy string) remit.Finding {
		t.Helper()
		some, _, err := store.Findings(t.Context(), remit.FindingFilter{Policies: []string{policy}}, remit.PageRequest{})
		if err != nil || len(some) > 1 {
			t.Fatalf("%d findings of %s, %v", len(some), policy, err)
		}
		if len(some) == 0 {
			return remit.Finding{}
		}
		return some[0]
	}
	becomes := func(policy string, state remit.FindingState) remit.Finding {
		t.Helper()
		began := time.Now()
		wait(t, policy+" to be "+string(state), func() bool { return told(policy).State == state })
		f := told(policy)
		t.Logf("%s is %s after %s: %s", policy, state, time.Since(began).Round(100*time.Millisecond), f.Message)
		return f
	}
	wait(t, "the accounts to be in the inventory", func() bool {
		some, _, err := store.Identities(t.Context(), remit.Filter{Kinds: []string{"ServiceAccount"}, Names: []string{"runner", "leaver"}}, remit.PageRequest{})
		return err == nil && len(some) == 2
	})

	made, err := secrets.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "runner", Annotations: map[string]string{corev1.ServiceAccountNameKey: "runner"}}, Type: corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	created := made.CreationTimestamp.Time
	old := becomes("lifecycle-max-age", remit.Open)
	if early := created.Add(age); old.First.Before(early) {
		t.Errorf("told %s before its time", early.Sub(old.First))
	}
	served.kill()
	served = serving(t, "--data-dir", dir)
	over := becomes("lifecycle-revoke", remit.Open)
	if early := old.First.Add(grace); over.First.Before(early) {
		t.Errorf("to be revoked %s before its grace had passed", early.Sub(over.First))
	}
	out, err := run(t, "lifecycle", "status", "--data-dir", dir, "--state", "overdue")
	if err != nil || !strings.Contains(out, "1 overdue") || !strings.Contains(out, "Secret default/runner [token]") || !strings.Contains(out, "revoke now") {
		t.Errorf("%v\n%s", err, out)
	}
	t.Log("\n" + out)
	if err := secrets.Delete(t.Context(), "runner", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	becomes("lifecycle-max-age", remit.Resolved)
	becomes("lifecycle-revoke", remit.Resolved)

	if err := accounts.Delete(t.Context(), "leaver", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	becomes("offboarding-disable", remit.Open)
	becomes("offboarding-remove", remit.Open)
	account("leaver")
	becomes("offboarding-disable", remit.Resolved)
	becomes("offboarding-remove", remit.Resolved)
	served.stop(t)
	if strings.Contains(served.out.String(), "ERROR") {
		t.Errorf("it complained:\n%s", served.out.String())
	}
}
