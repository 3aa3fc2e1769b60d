package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"remit"
	"remit/connector"
	"remit/e2e/cluster"
)

// legacyTokenOf makes a long-lived token of an account and returns it as the
// inventory knows it, and its holder.
func legacyTokenOf(t *testing.T, c *cluster.Cluster, name string, who remit.Ref) (remit.Credential, *kubernetes.Clientset, string) {
	t.Helper()
	secrets := c.Client.CoreV1().Secrets(who.Namespace)
	_, err := secrets.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": "a"}, Annotations: map[string]string{corev1.ServiceAccountNameKey: who.Name}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var made *corev1.Secret
	enforceEventually(t, func() error {
		made, err = secrets.Get(t.Context(), name, metav1.GetOptions{})
		if err == nil && len(made.Data[corev1.ServiceAccountTokenKey]) == 0 {
			err = fmt.Errorf("it has no token yet")
		}
		return err
	})
	token := string(made.Data[corev1.ServiceAccountTokenKey])
	client, err := kubernetes.NewForConfig(c.TokenConfig(token))
	if err != nil {
		t.Fatal(err)
	}
	return remit.Credential{
		Record: remit.Record{
			ID: "crd_legacy", Ref: remit.Ref{Kind: "Secret", Namespace: who.Namespace, Name: name}, Incarnation: string(made.UID), Labels: made.Labels, Created: made.CreationTimestamp.Time,
			Attributes: map[string]string{"legacy": "true"},
		},
		Type: remit.StaticToken, Key: "token", Provider: "kubernetes", Status: remit.Active, Holder: who, NeverExpires: true,
	}, client, token
}

func reads(client *kubernetes.Clientset, ns string) error {
	_, err := client.CoreV1().ConfigMaps(ns).List(context.Background(), metav1.ListOptions{})
	return err
}

func revoking(c remit.Credential) connector.Order {
	return connector.Order{
		Action: remit.Revoke, Subject: remit.Subject{Record: remit.KindCredential, Ref: c.Ref, ID: c.ID}, Identity: c.Holder, Credentials: []remit.Credential{c},
	}
}

// carryOut does and verifies every step, each twice.
func carryOut(t *testing.T, e *Enforcer, planned connector.Planned) {
	t.Helper()
	for _, s := range planned.Steps {
		for range 2 {
			if err := e.Do(t.Context(), s); err != nil {
				t.Fatalf("%s: %v", s.Does, err)
			}
		}
		enforceEventually(t, func() error { return e.Verify(t.Context(), s) })
	}
}

// giveBack undoes every step, the last first, each twice.
func giveBack(t *testing.T, e *Enforcer, planned connector.Planned) {
	t.Helper()
	for _, s := range slices.Backward(planned.Steps) {
		for range 2 {
			if err := e.Undo(t.Context(), s); err != nil && s.Undo != "" {
				t.Fatalf("undo %s: %v", s.Does, err)
			}
		}
	}
}

func tell(t *testing.T, planned connector.Planned) {
	t.Helper()
	for _, s := range planned.Steps {
		if s.Does == "" || s.Diff == "" || s.Before == nil || s.After == nil || s.Breaks == "" && s.Change != changeMakeRole && s.Change != changeMakeBinding {
			t.Errorf("the step does not tell everything: %+v", s)
		}
		for _, text := range []string{s.Diff, s.Does, string(s.Before), string(s.After)} {
			if strings.Contains(text, "eyJ") {
				t.Errorf("the step holds a token: %s", text)
			}
		}
		t.Logf("%s%s · %s\n%sbreaks: %s\nundo: %s", s.Grade, s.Change, s.Does, s.Diff, s.Breaks, s.Undo)
	}
	t.Log(strings.Join(planned.Why, "\n"))
}

// as returns an object as text, without what every write changes.
func asWritten(t *testing.T, o kubernetesObject) string {
	t.Helper()
	o.SetManagedFields(nil)
	o.SetResourceVersion("")
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestRevokeLegacyToken(t *testing.T) {
	t.Parallel()
	c, e := openEnforcer(t)
	ctx := t.Context()
	ns := c.Namespace(t)
	who := enforceWorker(t, c, ns, "worker")
	cred, client, token := legacyTokenOf(t, c, "worker-token", who)
	enforceEventually(t, func() error { return reads(client, ns) })
	planned, err := e.Plan(ctx, revoking(cred))
	if err != nil {
		t.Fatal(err)
	}
	tell(t, planned)
	if len(planned.Steps) != 1 || planned.Steps[0].Undo != "" {
		t.Fatalf("one step that cannot be undone is expected: %+v", planned.Steps)
	}
	if err := reads(client, ns); err != nil {
		t.Fatalf("the plan has changed something: %v", err)
	}
	wantKind(t, e.Verify(ctx, planned.Steps[0]), remit.Conflict)
	start := time.Now()
	carryOut(t, e, planned)
	for !apierrors.IsUnauthorized(reads(client, ns)) {
		if time.Since(start) > time.Minute {
			t.Fatal("the token still works after a minute")
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("401 %v after it was done", time.Since(start))
	wantKind(t, e.Undo(ctx, planned.Steps[0]), remit.Unsupported)

	// A Secret of the same name is not deleted by the old plan, and may hold the
	// same token, as the plan says.
	next, _, again := legacyTokenOf(t, c, "worker-token", who)
	t.Logf("the token of a Secret of the same name is the same: %v", again == token)
	wantKind(t, e.Do(ctx, planned.Steps[0]), remit.Conflict)
	wantKind(t, e.Verify(ctx, planned.Steps[0]), remit.Conflict)
	_, err = e.Plan(ctx, revoking(cred))
	wantKind(t, err, remit.Conflict)
	if err := c.Client.CoreV1().Secrets(ns).Delete(ctx, "worker-token", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = e.Plan(ctx, revoking(next))
	wantKind(t, err, remit.NotFound)

	// What was minted with it is frozen as well.
	third, _, _ := legacyTokenOf(t, c, "worker-token-2", who)
	status, err := c.Token(ctx, ns, "worker", cluster.TokenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	minted := enforceHolderOf(t, c, status.Token, who)
	order := revoking(third)
	order.Forged = []string{LegacyTokenPrefix + ns + "/worker", minted.credential}
	if planned, err = e.Plan(ctx, order); err != nil {
		t.Fatal(err)
	}
	tell(t, planned)
	if len(planned.Steps) != 2 || planned.Steps[1].Grade != remit.FreezeCredentials {
		t.Fatalf("the Secret and the minted token are expected: %+v", planned.Steps)
	}
	carryOut(t, e, planned)
	minted.wants(t, "the minted token", true, false, false)
	giveBack(t, e, planned)
	enforceEventually(t, func() error { return minted.write(ctx) })
}

func TestRevokeBootstrapTokenAndFrozen(t *testing.T) {
	t.Parallel()
	c, e := openEnforcer(t)
	ctx := t.Context()
	ns := c.Namespace(t)
	made, err := c.Client.CoreV1().Secrets(metav1.NamespaceSystem).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-abcdef"}, Type: corev1.SecretTypeBootstrapToken,
		StringData: map[string]string{"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bootstrap := remit.Credential{
		Record: remit.Record{ID: "crd_bootstrap", Ref: remit.Ref{Kind: "Secret", Namespace: made.Namespace, Name: made.Name}, Incarnation: string(made.UID), Attributes: map[string]string{"bootstrap": "true"}},
		Type:   remit.StaticToken, Key: "token-secret", Provider: "kubernetes", Holder: remit.Ref{Kind: "User", Name: "system:bootstrap:abcdef"},
	}
	planned, err := e.Plan(ctx, revoking(bootstrap))
	if err != nil {
		t.Fatal(err)
	}
	tell(t, planned)
	carryOut(t, e, planned)
	if _, err := c.Client.CoreV1().Secrets(made.Namespace).Get(ctx, made.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the bootstrap token is still there: %v", err)
	}

	// A single short-lived token is frozen, and the plan says what would end it.
	who := enforceWorker(t, c, ns, "worker")
	tokens := make([]*enforceHolder, 2)
	for i := range tokens {
		status, err := c.Token(ctx, ns, "worker", cluster.TokenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		tokens[i] = enforceHolderOf(t, c, status.Token, who)
	}
	logged := remit.Credential{
		Record: remit.Record{ID: "crd_logged", Ref: remit.Ref{Kind: "Credential", Name: tokens[0].credential}, Attributes: map[string]string{"bound-pod": "worker-1"}},
		Type:   remit.ShortLivedToken, Native: tokens[0].credential, Holder: who, Expires: time.Now().Add(time.Hour),
	}
	if planned, err = e.Plan(ctx, revoking(logged)); err != nil {
		t.Fatal(err)
	}
	tell(t, planned)
	if why := strings.Join(planned.Why, " "); !strings.Contains(why, "cannot revoke a single token") || !strings.Contains(why, "pod worker-1") {
		t.Errorf("the plan does not say what would end it: %s", why)
	}
	carryOut(t, e, planned)
	tokens[0].wants(t, "the revoked token", true, false, false)
	tokens[1].wants(t, "another token", true, true, true)
	giveBack(t, e, planned)
	enforceEventually(t, func() error { return tokens[0].write(ctx) })
}

// TestRevokeRefuses says in words what Kubernetes cannot revoke.
func TestRevokeRefuses(t *testing.T) {
	_, e := openEnforcer(t)
	in := func(ref remit.Ref, key string, attributes map[string]string) remit.Record {
		return remit.Record{ID: "crd_x", Ref: ref, Attributes: attributes}
	}
	secret := remit.Ref{Kind: "Secret", Namespace: "shop", Name: "keys"}
	user := remit.Ref{Kind: "User", Name: "jane"}
	for _, c := range []struct {
		kind remit.ErrorKind
		c    remit.Credential
		says string
	}{
		{remit.Unsupported, remit.Credential{Record: in(secret, "", nil), Key: "STRIPE", Type: remit.APIKey, Provider: "stripe"}, "is one of stripe: only there can it be revoked"},
		{remit.Unsupported, remit.Credential{Record: in(secret, "", nil), Key: ".dockerconfigjson/ghcr.io", Type: remit.StaticToken, Provider: "ghcr.io"}, "is one of ghcr.io"},
		{remit.Unsupported, remit.Credential{Record: in(secret, "", nil), Key: "tls.crt", Type: remit.Certificate, Native: "X509SHA256=00", Issuer: "CN=ca"}, "no login to this cluster: whoever issued it (CN=ca)"},
		{remit.Unsupported, remit.Credential{Record: in(secret, "", nil), Key: "password", Type: remit.Password}, "is not known"},
		{remit.Unsupported, remit.Credential{Record: in(secret, "", map[string]string{"legacy": "true", "jwt": "true", "bound-secret": "api-token"}), Key: "k", Type: remit.StaticToken, Provider: "kubernetes", Holder: remit.Ref{Kind: "ServiceAccount", Namespace: "shop", Name: "api"}}, "revoke the one in the Secret shop/api-token"},
		{remit.Unsupported, remit.Credential{Record: in(secret, "", map[string]string{"groups": "dev," + groupMasters}), Type: remit.Certificate, Native: "X509SHA256=00", Holder: user}, groupMasters},
		{remit.Unsupported, remit.Credential{Record: in(remit.Ref{Kind: "Deployment", Namespace: "shop", Name: "api"}, "", nil), Key: "automount", Type: remit.ShortLivedToken, Provider: "kubernetes", Holder: remit.Ref{Kind: "ServiceAccount", Namespace: "shop", Name: "api"}}, "contain the identity"},
		{remit.Forbidden, remit.Credential{Record: in(secret, "", nil), Type: remit.Certificate, Native: "X509SHA256=00", Holder: remit.Ref{Kind: "User", Name: enforcerUser}}, "Remit itself"},
		{remit.Forbidden, remit.Credential{Record: in(secret, "", nil), Type: remit.Certificate, Native: "X509SHA256=00", Holder: remit.Ref{Kind: "User", Name: "system:kube-scheduler"}}, "part of the cluster"},
		{remit.Forbidden, remit.Credential{Record: in(secret, "", map[string]string{"legacy": "true"}), Holder: remit.Ref{Kind: "ServiceAccount", Namespace: enforceSystemNamespace, Name: "x"}}, "Remit's own"},
		{remit.Invalid, remit.Credential{Record: in(secret, "", map[string]string{"legacy": "true"}), Holder: remit.Ref{Kind: "ServiceAccount", Namespace: "shop", Name: "x"}}, "does not know the uid"},
	} {
		_, err := e.Plan(t.Context(), revoking(c.c))
		wantKind(t, err, c.kind)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v\n(%q expected)", c.c, err, c.says)
		}
	}
	_, err := e.Plan(t.Context(), connector.Order{Action: remit.Revoke, Identity: user, Subject: remit.Subject{Record: remit.KindIdentity, Ref: user}})
	wantKind(t, err, remit.Invalid)
}

func acting(action remit.Action, who remit.Ref, credentials ...remit.Credential) connector.Order {
	o := contain(who)
	o.Action, o.Credentials = action, credentials
	return o
}

// TestDisable takes an account everything and every way in, and gives it back to
// the byte.
func TestDisable(t *testing.T) {
	t.Parallel()
	c, e := openEnforcer(t)
	ctx := t.Context()
	ns := c.Namespace(t)
	who := enforceWorker(t, c, ns, "worker")
	wide := bind(t, c, "disable-view-"+ns, "view", bindingSubject(who), rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "User", Name: "another"})
	cred, legacy, _ := legacyTokenOf(t, c, "worker-token", who)
	status, err := c.Token(ctx, ns, "worker", cluster.TokenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	live := enforceHolderOf(t, c, status.Token, who)
	enforceEventually(t, func() error { return reads(legacy, ns) })
	secrets, accounts := c.Client.CoreV1().Secrets(ns), c.Client.CoreV1().ServiceAccounts(ns)
	enforceEventually(t, func() error { // the API server notes the use
		s, err := secrets.Get(ctx, "worker-token", metav1.GetOptions{})
		if err == nil && s.Labels[labelLastUsed] == "" {
			err = fmt.Errorf("no use is noted")
		}
		return err
	})
	look := func() (all []string) {
		t.Helper()
		secret, err := secrets.Get(ctx, "worker-token", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		account, err := accounts.Get(ctx, "worker", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		narrow, err := c.Client.RbacV1().RoleBindings(ns).Get(ctx, "worker", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		shared, err := c.Client.RbacV1().ClusterRoleBindings().Get(ctx, wide.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return []string{asWritten(t, secret), asWritten(t, account), asWritten(t, narrow), asWritten(t, shared)}
	}
	before := look()
	order := acting(remit.Disable, who, cred)
	order.Forged = []string{live.credential, LegacyTokenPrefix + ns + "/worker"}
	planned, err := e.Plan(ctx, order)
	if err != nil {
		t.Fatal(err)
	}
	tell(t, planned)
	var sorts []string
	for _, s := range planned.Steps {
		sorts = append(sorts, string(s.Grade)+s.Change)
		wantKind(t, e.Verify(ctx, s), remit.Conflict)
	}
	if want := []string{changeAutomount, changeInvalidateToken, string(remit.FreezeCredentials), string(remit.RemoveGrants), string(remit.RemoveGrants)}; !slices.Equal(sorts, want) {
		t.Fatalf("the steps are %v, not %v", sorts, want)
	}
	if !slices.Equal(look(), before) {
		t.Error("the plan has changed something")
	}
	start := time.Now()
	carryOut(t, e, planned)
	if err := live.read(ctx); !apierrors.IsForbidden(err) {
		t.Errorf("the account may still read: %v", err)
	}
	pod, err := c.Client.CoreV1().Pods(ns).Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "late"}, Spec: corev1.PodSpec{
		ServiceAccountName: "worker", Containers: []corev1.Container{{Name: "c", Image: "i"}},
	}}, metav1.CreateOptions{})
	if err != nil || len(pod.Spec.Volumes) != 0 {
		t.Errorf("a pod that starts is given a token: %+v %v", pod.Spec.Volumes, err)
	}
	for !apierrors.IsUnauthorized(reads(legacy, ns)) {
		if time.Since(start) > time.Minute {
			t.Fatal("the long-lived token is still accepted after a minute")
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("the long-lived token is refused %v after it all began", time.Since(start))
	giveBack(t, e, planned)
	if after := look(); !slices.Equal(after, before) {
		t.Errorf("undone it is\n%s\nand was\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
	}
	enforceEventually(t, func() error { return reads(legacy, ns) })
	enforceEventually(t, func() error { return live.write(ctx) })

	// What somebody else has changed is left to him.
	if planned, err = e.Plan(ctx, order); err != nil {
		t.Fatal(err)
	}
	if _, err := accounts.Patch(ctx, "worker", types.MergePatchType, []byte(`{"automountServiceAccountToken":true}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	wantKind(t, e.Do(ctx, planned.Steps[0]), remit.Conflict)
	if err := secrets.Delete(ctx, "worker-token", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wantKind(t, e.Do(ctx, planned.Steps[1]), remit.Conflict)

	// A user has grants and credentials, and no account.
	user := remit.Ref{Kind: "User", Name: "another"}
	order = acting(remit.Disable, user)
	order.Forged = []string{"X509SHA256=00aa"}
	if planned, err = e.Plan(ctx, order); err != nil || len(planned.Steps) != 2 {
		t.Errorf("%+v %v", planned, err)
	}
	for kind, orders := range map[remit.ErrorKind][]connector.Order{
		remit.Forbidden: {
			acting(remit.Disable, remit.Ref{Kind: "User", Name: enforcerUser}), acting(remit.Disable, remit.Ref{Kind: "ServiceAccount", Namespace: "kube-system", Name: "coredns"}),
			acting(remit.Disable, remit.Ref{Kind: "Group", Name: groupMasters}), acting(remit.RemoveIdentity, remit.Ref{Kind: "ServiceAccount", Namespace: enforceSystemNamespace, Name: "x"}),
		},
		remit.NotFound: {acting(remit.Disable, remit.Ref{Kind: "User", Name: "nobody"}), acting(remit.Disable, remit.Ref{Kind: "ServiceAccount", Namespace: ns, Name: "nobody"}), acting(remit.RemoveIdentity, remit.Ref{Kind: "ServiceAccount", Namespace: ns, Name: "nobody"})},
		remit.Unsupported: {
			acting(remit.Disable, remit.Ref{Kind: "Node", Name: "node-a"}), acting(remit.RemoveIdentity, user), acting(remit.RemoveIdentity, remit.Ref{Kind: "ServiceAccount", Namespace: ns, Name: "default"}),
			acting("dance", who),
		},
		remit.Invalid: {acting(remit.Disable, remit.Ref{}), acting(remit.Reduce, who)},
	} {
		for _, o := range orders {
			_, err := e.Plan(ctx, o)
			wantKind(t, err, kind)
		}
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	c, e := openEnforcer(t)
	ctx := t.Context()
	ns := c.Namespace(t)
	who := enforceWorker(t, c, ns, "worker")
	accounts := c.Client.CoreV1().ServiceAccounts(ns)
	before, err := accounts.Patch(ctx, "worker", types.MergePatchType, []byte(`{"metadata":{"labels":{"team":"a"},"annotations":{"note":"kept"}},"imagePullSecrets":[{"name":"pull"}]}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cred, _, _ := legacyTokenOf(t, c, "worker-token", who)
	planned, err := e.Plan(ctx, acting(remit.RemoveIdentity, who, cred))
	if err != nil {
		t.Fatal(err)
	}
	tell(t, planned)
	if len(planned.Steps) != 3 || planned.Steps[1].Change != changeDeleteSecret || planned.Steps[2].Change != changeDeleteAccount {
		t.Fatalf("the grant, the Secret and the account are expected: %+v", planned.Steps)
	}
	carryOut(t, e, planned)
	if _, err := accounts.Get(ctx, "worker", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Fatalf("the account is still there: %v", err)
	}
	if _, err := c.Client.CoreV1().Secrets(ns).Get(ctx, "worker-token", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the token is still there: %v", err)
	}
	giveBack(t, e, planned)
	now, err := accounts.Get(ctx, "worker", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if now.UID == before.UID || now.Labels["team"] != "a" || now.Annotations["note"] != "kept" || now.Annotations[recreatedFrom] != string(before.UID) || len(now.ImagePullSecrets) != 1 {
		t.Errorf("not made anew as it was: %+v", now)
	}
	status, err := c.Token(ctx, ns, "worker", cluster.TokenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	enforceEventually(t, func() error { return enforceHolderOf(t, c, status.Token, who).read(ctx) })
	wantKind(t, e.Do(ctx, planned.Steps[2]), remit.Conflict) // it is another one
}

// TestReduce leaves a workload what it used, on a real API server, while it uses
// it all the time and is never refused.
func TestReduce(t *testing.T) {
	t.Parallel()
	c, e := openEnforcer(t)
	ctx := t.Context()
	ns := c.Namespace(t)
	who := enforceWorker(t, c, ns, "worker")
	rbac := c.Client.RbacV1()
	another := rbacv1.Subject{Kind: "ServiceAccount", Namespace: ns, Name: "default"}
	wide := bind(t, c, "reduce-admin-"+ns, "admin", another, bindingSubject(who))
	unused := bind(t, c, "reduce-nodes-"+ns, "system:node-reader-"+ns, bindingSubject(who))
	for _, name := range []string{"a", "b"} {
		if _, err := c.Client.CoreV1().ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	status, err := c.Token(ctx, ns, "worker", cluster.TokenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := c.TokenConfig(status.Token)
	config.QPS, config.Burst = 1000, 1000
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	work := []func(context.Context) error{
		func(ctx context.Context) error {
			_, err := client.CoreV1().ConfigMaps(ns).Get(ctx, "a", metav1.GetOptions{})
			return err
		},
		func(ctx context.Context) error {
			_, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
			return err
		},
		func(ctx context.Context) error {
			_, err := client.CoreV1().ServiceAccounts(ns).CreateToken(ctx, "worker", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
			return err
		},
	}
	secrets := func() error { _, err := client.CoreV1().Secrets(ns).List(ctx, metav1.ListOptions{}); return err }
	for _, f := range append(work, func(context.Context) error { return secrets() }) {
		enforceEventually(t, func() error { return f(ctx) })
	}

	time.Sleep(1100 * time.Millisecond) // the bindings are older than the period, which counts in seconds
	since := time.Now()
	by := func(binding remit.Ref, u remit.Usage) remit.Usage {
		u.Binding = binding
		return u
	}
	admin, own := remit.Ref{Kind: "ClusterRoleBinding", Name: wide.Name}, remit.Ref{Kind: "RoleBinding", Namespace: ns, Name: "worker"}
	order := acting(remit.Reduce, who)
	order.Use = &connector.Use{Since: since, Until: since.Add(time.Hour), Names: 5, Logged: []string{"create", "get", "list"}, Used: []remit.Usage{
		by(admin, did("get", "configmaps", ns, "a", since)), by(admin, did("list", "pods", ns, "", since)),
		by(own, did("create", "serviceaccounts/token", ns, "worker", since)),
	}}
	planned, err := e.Plan(ctx, order)
	if err != nil {
		t.Fatal(err)
	}
	tell(t, planned)
	var sorts []string
	for _, s := range planned.Steps {
		sorts = append(sorts, string(s.Grade)+s.Change)
	}
	want := []string{changeMakeRole, changeMakeRole, changeMakeBinding, changeMakeBinding, string(remit.RemoveGrants), changeReplaceGrant, changeReplaceGrant}
	if !slices.Equal(sorts, want) {
		t.Fatalf("the steps are %v, not %v", sorts, want)
	}
	look := func() (all []string) {
		t.Helper()
		for _, name := range []string{wide.Name, unused.Name} {
			b, err := rbac.ClusterRoleBindings().Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, asWritten(t, b))
		}
		bindings, err := rbac.RoleBindings(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range bindings.Items {
			all = append(all, asWritten(t, &bindings.Items[i]))
		}
		roles, err := rbac.Roles(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range roles.Items {
			all = append(all, asWritten(t, &roles.Items[i]))
		}
		return all
	}
	before := look()

	working, stop := context.WithCancel(ctx)
	defer stop()
	var done atomic.Int64
	var workers sync.WaitGroup
	for _, f := range work {
		workers.Go(func() {
			for working.Err() == nil {
				if err := f(working); err != nil && working.Err() == nil {
					t.Errorf("the workload is refused what it uses: %v", err)
					return
				}
				done.Add(1)
			}
		})
	}
	start := time.Now()
	carryOut(t, e, planned)
	t.Logf("reduced in %v", time.Since(start))
	if err := secrets(); !apierrors.IsForbidden(err) {
		t.Errorf("what was not used is still allowed: %v", err)
	}
	other, err := e.review(ctx, remit.Ref{Kind: "ServiceAccount", Namespace: ns, Name: "default"}, access{Verb: "list", Resource: "secrets", Namespace: ns})
	if err != nil || !other.Allowed {
		t.Errorf("another subject of the binding has lost it: %+v %v", other, err)
	}
	order.Use.Used[0].Binding = remit.Ref{} // and the log would not tell
	if again, err := e.Plan(ctx, order); err != nil || len(again.Steps) != 0 {
		t.Errorf("reduced again there would be something to take: %+v %v", again.Steps, err)
	}
	start = time.Now()
	giveBack(t, e, planned)
	t.Logf("undone in %v", time.Since(start))
	time.Sleep(200 * time.Millisecond)
	stop()
	workers.Wait()
	t.Logf("the workload made %d requests meanwhile", done.Load())
	if done.Load() < 500 {
		t.Errorf("the workload made %d requests only", done.Load())
	}
	if err := secrets(); err != nil {
		t.Errorf("what was taken is not given back: %v", err)
	}
	if after := look(); !slices.Equal(after, before) {
		t.Errorf("undone it is\n%s\nand was\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
	}

	// What somebody else has made of what Remit made is left to him.
	if err := e.Do(ctx, planned.Steps[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := rbac.Roles(ns).Patch(ctx, planned.Steps[0].Object.Name, types.MergePatchType, []byte(`{"rules":[]}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	wantKind(t, e.Verify(ctx, planned.Steps[0]), remit.Conflict)
	wantKind(t, e.Do(ctx, planned.Steps[0]), remit.Conflict)
	wantKind(t, e.Undo(ctx, planned.Steps[0]), remit.Conflict)

	// A log without reads, a binding within the period, a group.
	order.Use.Logged = []string{"create", "update"}
	_, err = e.Plan(ctx, order)
	wantKind(t, err, remit.Unsupported)
	order.Use.Logged, order.Use.Since = []string{"get"}, since.Add(-time.Hour)
	if young, err := e.Plan(ctx, order); err != nil || len(young.Steps) != 0 || !strings.Contains(strings.Join(young.Why, " "), "within the period") {
		t.Errorf("bindings within the period are reduced: %+v %v", young, err)
	}
	order.Subject.Ref = remit.Ref{Kind: "Group", Name: "devs"}
	order.Identity = order.Subject.Ref
	_, err = e.Plan(ctx, order)
	wantKind(t, err, remit.Unsupported)
}
