package server_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit"
	"remit/connector"
	"remit/connector/kubernetes"
	"remit/e2e/cluster"
	"remit/inventory"
	"remit/policy"
	"remit/server"
	"remit/store/sqlstore"
)

// judging counts on the real policies.
type judging struct{ *policy.Evaluator }

func (j judging) EvaluateSystem(ctx context.Context, system remit.ID) error {
	_, err := j.Evaluate(ctx, system)
	return err
}

func (j judging) EvaluateSubjects(ctx context.Context, system remit.ID, touched []remit.ID) error {
	_, err := j.Evaluator.EvaluateSubjects(ctx, system, touched)
	return err
}

// TestWatch follows a real cluster: what is made, changed and deleted is in the
// store within a second, its finding opens and resolves by itself, and an outage
// of the API server loses nothing.
func TestWatch(t *testing.T) {
	c := cluster.Start(t)
	store, err := sqlstore.Open(t.Context(), filepath.Join(t.TempDir(), "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	set, err := policy.Load()
	if err != nil {
		t.Fatal(err)
	}
	watcher, err := kubernetes.OpenRESTConfig(c.Admin, kubernetes.Config{Name: "watched"})
	if err != nil {
		t.Fatal(err)
	}
	watch := server.Watch{
		Reconciler: inventory.Reconciler{Store: store},
		Evaluator:  judging{policy.NewEvaluator(set, store, store)},
		Log:        slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- watch.Run(ctx, []connector.Watcher{watcher}) }()
	defer func() {
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	}()

	account := func() int {
		found, _, err := store.Identities(t.Context(), remit.Filter{Kinds: []string{"ServiceAccount"}, Namespaces: []string{"default"}, Names: []string{"intruder"}}, remit.PageRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	findings := func(state remit.FindingState) int {
		found, _, err := store.Findings(t.Context(), remit.FindingFilter{Policies: []string{"administrator-machine"}, States: []remit.FindingState{state}}, remit.PageRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	eventually := func(what string, within time.Duration, is func() bool) {
		t.Helper()
		began := time.Now()
		for !is() {
			if time.Since(began) > 30*time.Second {
				t.Fatalf("%s: not after %s", what, time.Since(began))
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Logf("%s: after %s (aim %s)", what, time.Since(began).Round(time.Millisecond), within)
	}
	eventually("the first reading", 5*time.Second, func() bool {
		found, _, err := store.Identities(t.Context(), remit.Filter{Kinds: []string{"ServiceAccount"}}, remit.PageRequest{})
		return err == nil && len(found) > 10
	})

	accounts, bindings := c.Client.CoreV1().ServiceAccounts("default"), c.Client.RbacV1().ClusterRoleBindings()
	intrude := func() {
		t.Helper()
		if _, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "intruder"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := bindings.Create(t.Context(), &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "intruder"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: "intruder"}},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	leave := func() {
		t.Helper()
		if err := bindings.Delete(t.Context(), "intruder", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := accounts.Delete(t.Context(), "intruder", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	intrude()
	eventually("a new account", time.Second, func() bool { return account() == 1 })
	eventually("its finding", 2*time.Second, func() bool { return findings(remit.Open) == 1 })
	leave()
	eventually("the account's end", time.Second, func() bool { return account() == 0 })
	eventually("its finding's resolution", 2*time.Second, func() bool { return findings(remit.Open) == 0 && findings(remit.Resolved) == 1 })

	c.StopAPIServer()
	time.Sleep(2 * time.Second)
	if err := c.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	intrude()
	eventually("after an outage, a new account", 30*time.Second, func() bool { return account() == 1 })
	eventually("and the finding again", 30*time.Second, func() bool { return findings(remit.Open) == 1 })
	found, _, err := store.Findings(t.Context(), remit.FindingFilter{Policies: []string{"administrator-machine"}}, remit.PageRequest{})
	if err != nil || len(found) != 1 || found[0].Reopened != 1 {
		t.Errorf("the finding is opened again, not doubled: %+v, %v", found, err)
	}
}
