//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"remit"
	"remit/e2e/cluster"
)

// TestActions reduces, disables, revokes and removes on a real API server, by what
// its own audit log shows: each is planned, approved, tried, and undone.
func TestActions(t *testing.T) {
	c := cluster.Start(t)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	core, rbac := c.Client.CoreV1(), c.Client.RbacV1()
	_, err := core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, metav1.CreateOptions{})
	must(err)
	_, err = core.ServiceAccounts("shop").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "api"}}, metav1.CreateOptions{})
	must(err)
	_, err = core.Secrets("shop").Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "api-token", Annotations: map[string]string{corev1.ServiceAccountNameKey: "api"}}, Type: corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{})
	must(err)
	_, err = core.Secrets("shop").Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "payment"}, StringData: map[string]string{"AWS_ACCESS_KEY_ID": "AKIAQ3EGVIU7TQ2XK4PL", "AWS_SECRET_ACCESS_KEY": "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"},
	}, metav1.CreateOptions{})
	must(err)
	_, err = rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "api-admin"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "shop", Name: "other"}, {Kind: "ServiceAccount", Namespace: "shop", Name: "api"}},
	}, metav1.CreateOptions{})
	must(err)
	legacy := ""
	wait(t, "the long-lived token", func() bool {
		s, err := core.Secrets("shop").Get(ctx, "api-token", metav1.GetOptions{})
		must(err)
		legacy = string(s.Data[corev1.ServiceAccountTokenKey])
		return legacy != ""
	})
	client, err := kubernetes.NewForConfig(c.TokenConfig(legacy))
	must(err)
	work := func() error {
		_, err := client.CoreV1().ConfigMaps("shop").List(ctx, metav1.ListOptions{})
		return err
	}
	secrets := func() error {
		_, err := client.CoreV1().Secrets("shop").List(ctx, metav1.ListOptions{})
		return err
	}
	wait(t, "the grant", func() bool { return work() == nil })

	// The period begins here, after the binding was made, and lasts until now.
	time.Sleep(1100 * time.Millisecond)
	begin := time.Now()
	time.Sleep(4 * time.Second) // a command may take so long to look
	for range 5 {
		must(work())
	}
	time.Sleep(time.Second) // the log is written behind the answer

	home := newHome(t)
	refused := home.refused
	say := func(args ...string) string {
		t.Helper()
		out := home.must(args...)
		if strings.Contains(out, "eyJ") || strings.Contains(out, "rB9v1KpZ8w") {
			t.Errorf("remit %s shows a secret", strings.Join(args, " "))
		}
		return out
	}
	home.write("remit.yaml", fmt.Sprintf("systems:\n  - name: prod\n    kubeconfig: %[1]s\n    mode: recommend\n    enforce: {kubeconfig: %[1]s}\n", c.Kubeconfig))
	log := home.learn(c.Kubeconfig, c.AuditLog)
	refused(remit.Invalid, "no log of the system has been read", "reduce", "shop/api", "--plan")
	say("import", "activity", "--system", "prod", log)

	state := func() string {
		t.Helper()
		var all []string
		crb, err := rbac.ClusterRoleBindings().Get(ctx, "api-admin", metav1.GetOptions{})
		must(err)
		account, err := core.ServiceAccounts("shop").Get(ctx, "api", metav1.GetOptions{})
		must(err)
		secret, err := core.Secrets("shop").Get(ctx, "api-token", metav1.GetOptions{})
		must(err)
		bindings, err := rbac.RoleBindings("shop").List(ctx, metav1.ListOptions{})
		must(err)
		for _, o := range []metav1.Object{crb, account, secret} {
			o.SetManagedFields(nil)
			o.SetResourceVersion("")
			all = append(all, asJSON(t, o))
		}
		return strings.Join(append(all, asJSON(t, bindings.Items)), "\n")
	}
	// act plans as alice, and approves as bob.
	act := func(args ...string) string {
		t.Helper()
		var plan remit.Response
		must(json.Unmarshal([]byte(say(append(args, "--as", "alice", "--format", "json")...)), &plan))
		if plan.State != remit.ResponseProposed {
			t.Fatalf("the plan is %s", plan.State)
		}
		t.Log(say("plans", "approve", string(plan.ID), "--as", "bob"))
		return string(plan.ID)
	}
	before := state()

	refused(remit.Invalid, "the log does not cover the last 90 days", "reduce", "shop/api", "--plan")
	within := func() string { return time.Since(begin).Round(time.Millisecond).String() }
	t.Log(say("reduce", "shop/api", "--used-within", within(), "--plan"))
	if got := state(); got != before {
		t.Error("a plan that was only shown has changed something")
	}
	id := act("reduce", "shop/api", "--used-within", within())
	if err := work(); err != nil {
		t.Errorf("reduced, it is refused what it used: %v", err)
	}
	if err := secrets(); !apierrors.IsForbidden(err) {
		t.Errorf("reduced, it may still read Secrets: %v", err)
	}
	say("plans", "undo", id, "--as", "bob")
	if got := state(); got != before {
		t.Errorf("undone it is\n%s\nand was\n%s", got, before)
	}
	must(secrets())

	refused(remit.Invalid, "name the identity that it authenticates", "disable", "crd_aaaaaaaaaaaaaaaaaaaaaaaaaa")
	id = act("disable", "shop/api")
	if err := work(); err == nil {
		t.Error("disabled, it may still read")
	}
	say("plans", "undo", id, "--as", "bob")
	if got := state(); got != before {
		t.Errorf("undone it is\n%s\nand was\n%s", got, before)
	}
	wait(t, "the token to work again", func() bool { return work() == nil })

	refused(remit.Unsupported, "is one of aws: only there can it be revoked", "revoke", "Secret/shop/payment", "--plan")
	refused(remit.Invalid, "is an identity", "revoke", string(remit.IdentityID(remit.SystemID("kubernetes", "x"), remit.Ref{Kind: "User", Name: "x"})))
	refused(remit.NotFound, "no credential is called", "revoke", "shop/nothing")
	preview := say("revoke", "shop/api-token", "--plan")
	t.Log("\n" + preview)
	for _, want := range []string{"It was in use within the last 30 days", "127.0.0.1", "list configmaps shop/", "cannot be undone"} {
		if !strings.Contains(preview, want) {
			t.Errorf("the plan does not say %q", want)
		}
	}
	if byLog := say("revoke", "legacy-token=shop/api", "--plan"); !strings.Contains(byLog, "Secret shop/api-token") {
		t.Errorf("as the log writes it, it is not found:\n%s", byLog)
	}
	id = act("revoke", "shop/api-token")
	if _, err := core.Secrets("shop").Get(ctx, "api-token", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("revoked, its Secret is still there: %v", err)
	}
	if out := say("plans", "undo", id, "--as", "bob"); !strings.Contains(out, "is undone") {
		t.Errorf("%s", out)
	}
	if out := say("plans", "show", id); !strings.Contains(out, "step 1 cannot be undone: Delete the Secret shop/api-token") {
		t.Errorf("the history does not say what could not be undone:\n%s", out)
	}
	refused(remit.NotFound, "is gone already", "revoke", "shop/api-token")

	id = act("remove", "shop/api")
	if _, err := core.ServiceAccounts("shop").Get(ctx, "api", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("removed, it is still there: %v", err)
	}
	say("plans", "undo", id, "--as", "bob")
	if _, err := core.ServiceAccounts("shop").Get(ctx, "api", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}
