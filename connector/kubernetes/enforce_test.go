package kubernetes

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"remit"
	"remit/connector"
	"remit/e2e/cluster"
)

// enforced is a cluster for these tests alone: in the shared one problems are
// planted, among which is that everybody may do everything, and a policy of the
// cluster would be in the way of the tests that change it at random.
var enforced = sync.OnceValues(func() (*cluster.Cluster, error) {
	return cluster.Run(context.Background(), cluster.Options{})
})

const enforcerUser = "remit-enforcer"

var enforcerOnce sync.Once

// openEnforcer is an enforcer that has just the rights that are documented.
func openEnforcer(t *testing.T) (*cluster.Cluster, *Enforcer) {
	t.Helper()
	c, err := enforced()
	if err != nil {
		t.Fatal(err)
	}
	enforcerOnce.Do(func() { allowEnforcer(t, c) })
	e, err := OpenEnforcerRESTConfig(c.Config(enforcerUser))
	if err != nil {
		t.Fatal(err)
	}
	return c, e
}

// allowEnforcer gives the user the rights that are documented.
func allowEnforcer(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	ctx := t.Context()
	all, system := EnforcerRights()
	must := func(err error) {
		t.Helper()
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	rbac := c.Client.RbacV1()
	user := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: enforcerUser}}
	_, err := rbac.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: enforcerUser}, Rules: all}, metav1.CreateOptions{})
	must(err)
	_, err = rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: enforcerUser}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: enforcerUser}, Subjects: user}, metav1.CreateOptions{})
	must(err)
	admin, err := OpenEnforcerRESTConfig(c.Admin) // makes the namespace
	must(err)
	must(admin.ensureContained(ctx))
	_, err = rbac.Roles(enforceSystemNamespace).Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: enforcerUser}, Rules: system}, metav1.CreateOptions{})
	must(err)
	_, err = rbac.RoleBindings(enforceSystemNamespace).Create(ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: enforcerUser}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: enforcerUser}, Subjects: user}, metav1.CreateOptions{})
	must(err)
}

// enforceWorker is a service account that may read and write ConfigMaps, mint tokens
// of its own kind and ask for certificates.
func enforceWorker(t *testing.T, c *cluster.Cluster, ns, name string) remit.Ref {
	t.Helper()
	ctx := t.Context()
	if _, err := c.Client.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client.RbacV1().Roles(ns).Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps", "secrets"}, Verbs: []string{"get", "list", "create", "update", "delete"}},
		{APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, Verbs: []string{"create"}},
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client.RbacV1().RoleBindings(ns).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: ns, Name: name}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return remit.Ref{Kind: "ServiceAccount", Namespace: ns, Name: name}
}

// enforceHolder is somebody with a token.
type enforceHolder struct {
	*kubernetes.Clientset
	credential string
	token      string
	ns, name   string
}

func enforceHolderOf(t *testing.T, c *cluster.Cluster, token string, who remit.Ref) *enforceHolder {
	t.Helper()
	var claims struct {
		ID string `json:"jti"`
	}
	parts := strings.Split(token, ".")
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(body, &claims)
	}
	if err != nil || claims.ID == "" {
		t.Fatalf("token without a jti: %v", err)
	}
	client, err := kubernetes.NewForConfig(c.TokenConfig(token))
	if err != nil {
		t.Fatal(err)
	}
	return &enforceHolder{Clientset: client, credential: "JTI=" + claims.ID, token: token, ns: who.Namespace, name: who.Name}
}

func (h *enforceHolder) read(ctx context.Context) error {
	_, err := h.CoreV1().ConfigMaps(h.ns).List(ctx, metav1.ListOptions{})
	return err
}

func (h *enforceHolder) write(ctx context.Context) error {
	_, err := h.CoreV1().ConfigMaps(h.ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "w-"}}, metav1.CreateOptions{})
	return err
}

func (h *enforceHolder) mint(ctx context.Context) (string, error) {
	status, err := cluster.Mint(ctx, h.Clientset, h.ns, h.name, cluster.TokenOptions{})
	if err != nil {
		return "", err
	}
	return status.Token, nil
}

// wants holds what a credential may do.
func (h *enforceHolder) wants(t *testing.T, who string, read, write, mint bool) {
	t.Helper()
	check := func(what string, allowed bool, err error) {
		t.Helper()
		switch {
		case allowed && err != nil:
			t.Errorf("%s cannot %s: %v", who, what, err)
		case !allowed && (err == nil || !strings.Contains(err.Error(), "Remit has contained this credential")):
			t.Errorf("%s can %s, or is refused in other words: %v", who, what, err)
		}
	}
	ctx := t.Context()
	check("read", read, h.read(ctx))
	check("write", write, h.write(ctx))
	_, err := h.mint(ctx)
	check("mint", mint, err)
}

func wantKind(t *testing.T, err error, kind remit.ErrorKind) {
	t.Helper()
	if remit.KindOf(err) != kind {
		t.Errorf("%q expected, not %q: %v", kind, remit.KindOf(err), err)
	}
}

func contain(who remit.Ref, grades ...remit.Grade) connector.Order {
	return connector.Order{Action: remit.Contain, Subject: remit.Subject{Record: remit.KindIdentity, Ref: who}, Identity: who, Grades: grades}
}

func planOne(t *testing.T, e *Enforcer, o connector.Order) (remit.Step, connector.Planned) {
	t.Helper()
	planned, err := e.Plan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(planned.Steps) != 1 {
		t.Fatalf("%d steps, not one: %+v", len(planned.Steps), planned)
	}
	s := planned.Steps[0]
	if s.Does == "" || s.Diff == "" || s.Before == nil || s.After == nil {
		t.Errorf("the step does not tell everything: %+v", s)
	}
	return s, planned
}

func TestEnforceFreeze(t *testing.T) {
	c, e := openEnforcer(t)
	ctx := t.Context()
	ns := c.Namespace(t)
	who := enforceWorker(t, c, ns, "worker")
	pod, err := c.Client.CoreV1().Pods(ns).Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "worker"}, Spec: corev1.PodSpec{
		ServiceAccountName: "worker", Containers: []corev1.Container{{Name: "c", Image: "i"}},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	status, err := c.Token(ctx, ns, "worker", cluster.TokenOptions{Bound: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}})
	if err != nil {
		t.Fatal(err)
	}
	a := enforceHolderOf(t, c, status.Token, who)
	token, err := a.mint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	b := enforceHolderOf(t, c, token, who)
	if token, err = a.mint(ctx); err != nil {
		t.Fatal(err)
	}
	other := enforceHolderOf(t, c, token, who)

	order := contain(who)
	order.Stolen, order.Forged = []string{a.credential}, []string{b.credential}
	// Nothing is installed at first, and the plan says so.
	for _, name := range []string{policyName, guardName} { // of an earlier run in this process
		admission := c.Client.AdmissionregistrationV1()
		_ = admission.ValidatingAdmissionPolicyBindings().Delete(ctx, name, metav1.DeleteOptions{})
		_ = admission.ValidatingAdmissionPolicies().Delete(ctx, name, metav1.DeleteOptions{})
	}
	step, planned := planOne(t, e, order)
	if step.Grade != remit.FreezeCredentials || !strings.Contains(strings.Join(planned.Why, " "), "not installed") {
		t.Errorf("unexpected plan: %+v", planned)
	}
	t.Logf("%s\n%s%s\n%s\n%s", step.Does, step.Diff, step.Breaks, step.Undo, strings.Join(planned.Why, "\n"))
	a.wants(t, "the stolen token", true, true, true)
	b.wants(t, "the forged token", true, true, true)

	for range 2 {
		start := time.Now()
		if err := e.Prepare(ctx); err != nil {
			t.Fatal(err)
		}
		t.Logf("prepared in %v", time.Since(start))
	}
	wantKind(t, e.Verify(ctx, step), remit.Conflict) // not done yet
	second, planned := planOne(t, e, order)
	if strings.Contains(strings.Join(planned.Why, " "), "not installed") {
		t.Errorf("the policies are as they were made, and the plan says otherwise: %q", planned.Why)
	}

	start := time.Now()
	for range 2 {
		if err := e.Do(ctx, step); err != nil {
			t.Fatal(err)
		}
	}
	done := time.Now()
	for b.write(ctx) == nil {
		if time.Since(done) > time.Minute {
			t.Fatal("never refused")
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("done twice in %v, refused %v after that (the policy was new)", done.Sub(start), time.Since(done))
	start = time.Now()
	if err := e.Verify(ctx, step); err != nil {
		t.Fatal(err)
	}
	t.Logf("verified in %v", time.Since(start))
	a.wants(t, "the stolen token", true, true, false)
	b.wants(t, "the forged token", true, false, false)
	other.wants(t, "another token", true, true, true)

	// A token Secret and a certificate are minted too.
	_, err = a.CoreV1().Secrets(ns).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "minted", Annotations: map[string]string{corev1.ServiceAccountNameKey: "worker"}}, Type: corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) {
		t.Errorf("a token Secret can be made: %v", err)
	}
	if _, err := a.CoreV1().Secrets(ns).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "plain"}}, metav1.CreateOptions{}); err != nil {
		t.Errorf("a plain Secret cannot be made: %v", err)
	}

	// Two plans hold the same: the first lets go, and it stays frozen.
	if err := e.Do(ctx, second); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := e.Undo(ctx, step); err != nil {
			t.Fatal(err)
		}
	}
	wantKind(t, e.Verify(ctx, step), remit.Conflict)
	if err := e.Verify(ctx, second); err != nil {
		t.Error(err)
	}
	b.wants(t, "the forged token", true, false, false)

	// Entries are merged under contention, and each plan's are its own.
	var steps []remit.Step
	for i := range 6 {
		o := contain(who)
		o.Forged = []string{fmt.Sprintf("JTI=independent-%d", i)}
		s, _ := planOne(t, e, o)
		steps = append(steps, s)
	}
	all := func(f func(context.Context, remit.Step) error) {
		t.Helper()
		var wg sync.WaitGroup
		for _, s := range steps {
			wg.Go(func() {
				if err := f(ctx, s); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	all(e.Do)
	all(e.Verify)
	all(e.Undo)
	if err := e.Verify(ctx, second); err != nil {
		t.Error(err)
	}

	// Odd keys, and no data at all, stop nobody.
	secrets := c.Client.CoreV1().Secrets(enforceSystemNamespace)
	if _, err := secrets.Patch(ctx, containedName, types.MergePatchType, []byte(`{"stringData":{"odd._-key":"\u0000 \n mint", "all.JTI-":"x", "all.":"", "mint.":"", "-":"", "all":"all"}}`), metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
	a.wants(t, "the stolen token", true, true, false)
	other.wants(t, "another token", true, true, true)
	if _, err := secrets.Patch(ctx, containedName, types.JSONPatchType, []byte(`[{"op":"remove","path":"/data"}]`), metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
	other.wants(t, "another token", true, true, true)
	enforceEventually(t, func() error { return b.write(ctx) })
	wantKind(t, e.Verify(ctx, second), remit.Conflict)
	if err := secrets.Delete(ctx, containedName, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	other.wants(t, "another token", true, true, true)
	if err := e.Undo(ctx, second); err != nil { // nothing is there to undo
		t.Error(err)
	}

	// It is all made anew.
	start = time.Now()
	if err := e.Do(ctx, second); err != nil {
		t.Fatal(err)
	}
	done = time.Now()
	for b.write(ctx) == nil && time.Since(done) < 15*time.Second {
	}
	t.Logf("refused %v after it was done, with the Secret made anew in %v", time.Since(done), done.Sub(start))
	if err := e.Verify(ctx, second); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := e.Undo(ctx, second); err != nil {
			t.Fatal(err)
		}
	}
	enforceEventually(t, func() error { return b.write(ctx) })
	a.wants(t, "the stolen token", true, true, true)
	b.wants(t, "the forged token", true, true, true)
	for range 5 {
		if err := e.Do(ctx, second); err != nil {
			t.Fatal(err)
		}
		done, tries := time.Now(), 0
		for b.write(ctx) == nil && time.Since(done) < 15*time.Second {
			tries++
		}
		t.Logf("refused %v after it was done, %d requests passed", time.Since(done), tries)
		if err := e.Undo(ctx, second); err != nil {
			t.Fatal(err)
		}
		enforceEventually(t, func() error { return b.write(ctx) })
	}

	// What somebody has changed in the policy is seen and mended.
	policies := c.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	if _, err := policies.Patch(ctx, policyName, types.MergePatchType, []byte(`{"spec":{"failurePolicy":"Ignore"}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	wantKind(t, e.Verify(ctx, second), remit.Conflict)
	if err := e.Do(ctx, second); err != nil {
		t.Fatal(err)
	}
	if err := e.Verify(ctx, second); err != nil {
		t.Error(err)
	}
	if err := e.Undo(ctx, second); err != nil {
		t.Fatal(err)
	}
}

// TestEnforceFreezeMadeAnew holds that containment acts after its policies were
// deleted and made anew: an API server no longer follows a ConfigMap for policies
// once no binding has named one for a second
// (https://github.com/kubernetes/kubernetes/issues/130887).
func TestEnforceFreezeMadeAnew(t *testing.T) {
	c, e := openEnforcer(t)
	ctx := t.Context()
	who := enforceWorker(t, c, c.Namespace(t), "worker")
	status, err := c.Token(ctx, who.Namespace, who.Name, cluster.TokenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	holder := enforceHolderOf(t, c, status.Token, who)
	order := contain(who)
	order.Forged = []string{holder.credential}
	for range 2 {
		step, _ := planOne(t, e, order)
		if err := e.Do(ctx, step); err != nil {
			t.Fatal(err)
		}
		if err := e.Verify(ctx, step); err != nil {
			t.Fatal(err)
		}
		holder.wants(t, "the forged token", true, false, false)
		if err := e.Undo(ctx, step); err != nil {
			t.Fatal(err)
		}
		enforceEventually(t, func() error { return holder.write(ctx) })
		for _, name := range []string{policyName, guardName} {
			admission := c.Client.AdmissionregistrationV1()
			if err := admission.ValidatingAdmissionPolicyBindings().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := admission.ValidatingAdmissionPolicies().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(3 * time.Second) // the API server looks at its policies once a second
	}
}

func enforceEventually(t *testing.T, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Errorf("not within a minute: %v", err)
}

// TestEnforceFreezeAdministrator holds that what is frozen cannot free itself,
// and that administrators of the cluster and Remit are never refused.
func TestEnforceFreezeAdministrator(t *testing.T) {
	c, e := openEnforcer(t)
	ctx := t.Context()
	ns := c.Namespace(t)
	who := enforceWorker(t, c, ns, "boss")
	bind(t, c, "boss-"+ns, "cluster-admin", rbacv1.Subject{Kind: "ServiceAccount", Namespace: ns, Name: "boss"})
	tokens := make([]*enforceHolder, 3)
	for i := range tokens {
		status, err := c.Token(ctx, ns, "boss", cluster.TokenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		tokens[i] = enforceHolderOf(t, c, status.Token, who)
	}
	stolen, forged, other := tokens[0], tokens[1], tokens[2]
	if err := e.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	order := contain(who)
	order.Stolen, order.Forged = []string{stolen.credential}, []string{forged.credential}
	step, _ := planOne(t, e, order)
	if err := e.Do(ctx, step); err != nil {
		t.Fatal(err)
	}
	if err := e.Verify(ctx, step); err != nil {
		t.Fatal(err)
	}
	dry := metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}
	free := func(h *enforceHolder) map[string]error {
		_, patched := h.CoreV1().Secrets(enforceSystemNamespace).Patch(ctx, containedName, types.MergePatchType, []byte(`{"stringData":{"x":"y"}}`), metav1.PatchOptions{DryRun: dry.DryRun})
		return map[string]error{
			"patch the Secret":     patched,
			"delete the Secret":    h.CoreV1().Secrets(enforceSystemNamespace).Delete(ctx, containedName, dry),
			"delete the Secrets":   h.CoreV1().Secrets(enforceSystemNamespace).DeleteCollection(ctx, dry, metav1.ListOptions{}),
			"delete the namespace": h.CoreV1().Namespaces().Delete(ctx, enforceSystemNamespace, dry),
			"delete the policy":    h.AdmissionregistrationV1().ValidatingAdmissionPolicies().Delete(ctx, policyName, dry),
			"delete the binding":   h.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Delete(ctx, policyName, dry),
		}
	}
	for name, h := range map[string]*enforceHolder{"stolen": stolen, "forged": forged} {
		for what, err := range free(h) {
			if err == nil {
				if what == "delete the policy" || what == "delete the binding" {
					continue // see below
				}
				t.Errorf("%s can %s", name, what)
			}
		}
	}
	for what, err := range free(other) {
		if err != nil {
			t.Errorf("another credential cannot %s: %v", what, err)
		}
	}
	// By the API server's own rule no policy is about policies, so one who may
	// delete them can. The plan says so.
	csr := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{GenerateName: "enforce-"}, Spec: certificatesv1.CertificateSigningRequestSpec{
		Request: signingRequest(t), SignerName: "example.com/enforce", Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
	}}
	if _, err := other.CertificatesV1().CertificateSigningRequests().Create(ctx, csr, metav1.CreateOptions{DryRun: dry.DryRun}); err != nil {
		t.Errorf("another credential cannot ask for a certificate: %v", err)
	}
	if _, err := stolen.CertificatesV1().CertificateSigningRequests().Create(ctx, csr, metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), "Remit has contained") {
		t.Errorf("the stolen token can ask for a certificate, or is refused otherwise: %v", err)
	}
	// A connection into a pod is no write, and is refused all the same.
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "target"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	if _, err := c.Client.CoreV1().Pods(ns).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	exec := func(h *enforceHolder) string {
		return fmt.Sprint(h.CoreV1().RESTClient().Get().Namespace(ns).Resource("pods").Name("target").SubResource("exec").Param("command", "sh").Do(ctx).Error())
	}
	if got := exec(forged); !strings.Contains(got, "Remit has contained") {
		t.Errorf("the forged token can open a shell, or is refused otherwise: %s", got)
	}
	if got := exec(stolen); strings.Contains(got, "Remit") {
		t.Errorf("the stolen token cannot open a shell: %s", got)
	}
	if _, err := forged.CoreV1().Pods(ns).Patch(ctx, "target", types.MergePatchType, []byte(`{"status":{"phase":"Failed"}}`), metav1.PatchOptions{}, "status"); err == nil || !strings.Contains(err.Error(), "Remit has contained") {
		t.Errorf("the forged token can write a status, or is refused otherwise: %v", err)
	}

	// The administrator's own certificate is listed, and does not matter.
	if _, err := c.Client.CoreV1().Secrets(enforceSystemNamespace).Patch(ctx, containedName, types.MergePatchType, []byte(`{"stringData":{"all.X509SHA256-00":"by hand"}}`), metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
	if err := e.Undo(ctx, step); err != nil {
		t.Fatal(err)
	}
	enforceEventually(t, func() error { return forged.write(ctx) })
}

func signingRequest(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "thief"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// bind binds a ClusterRole in the whole cluster until the test ends.
func bind(t *testing.T, c *cluster.Cluster, name, role string, subjects ...rbacv1.Subject) *rbacv1.ClusterRoleBinding {
	t.Helper()
	b, err := c.Client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kustomize.toolkit.fluxcd.io/name": "apps"}, Annotations: map[string]string{"note": "kept"}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}, Subjects: subjects,
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := c.Client.RbacV1().ClusterRoleBindings().Delete(context.Background(), name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	return b
}

func TestEnforceGrants(t *testing.T) {
	c, e := openEnforcer(t)
	ctx := t.Context()
	ns := c.Namespace(t)
	who := enforceWorker(t, c, ns, "worker")
	others := func(name string) rbacv1.Subject {
		return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "User", Name: name}
	}
	wide := bind(t, c, "view-"+ns, "view", others("first"), rbacv1.Subject{Kind: "ServiceAccount", Namespace: ns, Name: "worker"}, others("last"), others("system:serviceaccount:"+ns+":worker"))
	narrow, err := c.Client.RbacV1().RoleBindings(ns).Get(ctx, "worker", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	status, err := c.Token(ctx, ns, "worker", cluster.TokenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	h := enforceHolderOf(t, c, status.Token, who)
	enforceEventually(t, func() error { return h.read(ctx) })

	planned, err := e.Plan(ctx, contain(who))
	if err != nil {
		t.Fatal(err)
	}
	why := strings.Join(planned.Why, "\n")
	for _, s := range planned.Steps {
		t.Logf("%s\n%s%s", s.Does, s.Diff, s.Breaks)
	}
	t.Log(why)
	if len(planned.Steps) != 2 || !strings.Contains(why, "Flux") || !strings.Contains(why, groupAuthenticated) {
		t.Fatalf("unexpected plan")
	}
	for _, s := range planned.Steps {
		wantKind(t, e.Verify(ctx, s), remit.Conflict)
		for range 2 {
			if err := e.Do(ctx, s); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.Verify(ctx, s); err != nil {
			t.Error(err)
		}
	}
	done, passed := time.Now(), 0
	for !apierrors.IsForbidden(h.read(ctx)) {
		if passed++; time.Since(done) > time.Minute {
			t.Fatal("never refused")
		}
	}
	t.Logf("403 %v after the last grant was removed, %d requests passed", time.Since(done), passed)
	if again, err := e.Plan(ctx, contain(who)); err != nil || len(again.Steps) != 0 {
		t.Errorf("nothing is left to remove: %+v %v", again.Steps, err)
	}
	for _, s := range slices.Backward(planned.Steps) {
		for range 2 {
			if err := e.Undo(ctx, s); err != nil {
				t.Fatal(err)
			}
		}
	}
	enforceEventually(t, func() error { return h.read(ctx) })
	wideNow, err := c.Client.RbacV1().ClusterRoleBindings().Get(ctx, wide.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	narrowNow, err := c.Client.RbacV1().RoleBindings(ns).Get(ctx, "worker", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*metav1.ObjectMeta{&wide.ObjectMeta, &wideNow.ObjectMeta, &narrow.ObjectMeta, &narrowNow.ObjectMeta} {
		m.ManagedFields, m.ResourceVersion = nil, ""
	}
	if !reflect.DeepEqual(wide, wideNow) || !reflect.DeepEqual(narrow, narrowNow) {
		t.Errorf("not as before:\n%+v\n%+v\n%+v\n%+v", wide, wideNow, narrow, narrowNow)
	}

	// Somebody else changes the subjects, or makes the binding anew.
	if _, err := c.Client.RbacV1().ClusterRoleBindings().Patch(ctx, wide.Name, types.JSONPatchType, []byte(`[{"op":"remove","path":"/subjects/0"}]`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Client.RbacV1().RoleBindings(ns).Delete(ctx, "worker", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, s := range planned.Steps {
		wantKind(t, e.Do(ctx, s), remit.Conflict)
		wantKind(t, e.Undo(ctx, s), remit.Conflict)
	}

	for what, o := range map[remit.ErrorKind][]connector.Order{
		remit.NotFound:  {contain(remit.Ref{Kind: "ServiceAccount", Namespace: ns, Name: "nobody"}), contain(remit.Ref{Kind: "User", Name: "nobody"})},
		remit.Forbidden: {contain(remit.Ref{Kind: "User", Name: enforcerUser}), contain(remit.Ref{Kind: "Group", Name: groupMasters}), contain(remit.Ref{Kind: "User", Name: "system:kube-scheduler"}), contain(remit.Ref{Kind: "Group", Name: groupAuthenticated})},
		remit.Unsupported: {
			{Action: "dance", Identity: who}, contain(remit.Ref{Kind: "User", Name: "first"}, remit.Quarantine), contain(remit.Ref{Kind: "User", Name: "first"}, remit.KillTokens),
		},
		remit.Invalid: {contain(remit.Ref{}), contain(who, remit.FreezeCredentials), contain(who, "softly")},
	} {
		for _, order := range o {
			_, err := e.Plan(ctx, order)
			wantKind(t, err, what)
		}
	}
}

// TestEnforceLastAdministrator leaves the cluster with one administrator whom
// RBAC knows; the tests' own needs no binding.
func TestEnforceLastAdministrator(t *testing.T) {
	c, e := openEnforcer(t)
	ctx := t.Context()
	bindings := c.Client.RbacV1().ClusterRoleBindings()
	boss := remit.Ref{Kind: "User", Name: "the-boss"}
	first := bind(t, c, "boss-one", "cluster-admin", rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "User", Name: boss.Name})
	bind(t, c, "boss-two", "cluster-admin", first.Subjects...)
	planned, err := e.Plan(ctx, contain(boss))
	if err != nil || len(planned.Steps) != 2 { // system:masters is left
		t.Fatalf("%+v %v", planned, err)
	}
	builtIn, err := bindings.Get(ctx, "cluster-admin", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bindings.Patch(ctx, "cluster-admin", types.MergePatchType, []byte(`{"subjects":[]}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = e.Plan(ctx, contain(boss))
	wantKind(t, err, remit.Forbidden)
	wantKind(t, e.Do(ctx, planned.Steps[0]), remit.Forbidden) // planned before
	text, err := json.Marshal(map[string]any{"subjects": builtIn.Subjects})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bindings.Patch(ctx, "cluster-admin", types.MergePatchType, text, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, s := range planned.Steps {
		if err := e.Do(ctx, s); err != nil {
			t.Error(err)
		}
	}
}

// planLast is planOne for what begins with steps that go before it.
func planLast(t *testing.T, e *Enforcer, o connector.Order) (remit.Step, connector.Planned) {
	t.Helper()
	planned, err := e.Plan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return planned.Steps[len(planned.Steps)-1], planned
}

// TestEnforceRace has the holder of stolen and of forged tokens, with all of which
// he mints as fast as he can, outrun by no containment: what he minted before the
// account was held mints nothing that mints.
func TestEnforceRace(t *testing.T) {
	c, e := openEnforcer(t)
	ctx := t.Context()
	ns := c.Namespace(t)
	who := enforceWorker(t, c, ns, "racer")
	bystander := enforceWorker(t, c, ns, "bystander")
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "racer"}, Spec: corev1.PodSpec{ServiceAccountName: "racer", Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	made, err := c.Client.CoreV1().Pods(ns).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bound := &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: made.Name, UID: made.UID}
	token := func(name string, o cluster.TokenOptions) *enforceHolder {
		t.Helper()
		status, err := c.Token(ctx, ns, name, o)
		if err != nil {
			t.Fatal(err)
		}
		return enforceHolderOf(t, c, status.Token, remit.Ref{Namespace: ns, Name: name})
	}
	stolen, next := token("racer", cluster.TokenOptions{Bound: bound}), token("racer", cluster.TokenOptions{Bound: bound})
	free, other := token("racer", cluster.TokenOptions{}), token("bystander", cluster.TokenOptions{})
	enforceEventually(t, func() error { _, err := free.mint(ctx); return err })
	o := contain(who)
	o.Stolen, o.Minters = []string{stolen.credential}, []remit.Ref{who}
	step, _ := planOne(t, e, o)
	if err := e.Do(ctx, step); err != nil {
		t.Fatal(err)
	}
	if err := e.Verify(ctx, step); err != nil {
		t.Fatal(err)
	}
	mints := func(h *enforceHolder, o cluster.TokenOptions) error {
		_, err := cluster.Mint(ctx, h.Clientset, ns, "racer", o)
		return err
	}
	for what, err := range map[string]error{
		"the stolen one":              mints(stolen, cluster.TokenOptions{}),
		"one that is bound to no pod": mints(free, cluster.TokenOptions{}),
		"a pod's, for what is bound":  mints(next, cluster.TokenOptions{Bound: bound}),
	} {
		if err == nil || !strings.Contains(err.Error(), "Remit has contained") {
			t.Errorf("%s mints: %v", what, err)
		}
	}
	if err := mints(next, cluster.TokenOptions{}); err != nil {
		t.Errorf("the workload's own next token cannot mint: %v", err)
	}
	if err := free.write(ctx); err != nil {
		t.Errorf("what is not listed cannot write: %v", err)
	}
	if _, err := cluster.Mint(ctx, other.Clientset, ns, bystander.Name, cluster.TokenOptions{}); err != nil {
		t.Errorf("another account cannot mint: %v", err)
	}
	if err := e.Undo(ctx, step); err != nil {
		t.Fatal(err)
	}
	if err := mints(free, cluster.TokenOptions{}); err != nil {
		t.Errorf("undone, it cannot mint: %v", err)
	}
	// Admission does not see which long-lived token it is, but whose.
	o.Stolen = []string{LegacyTokenPrefix + ns + "/racer"}
	step, planned := planOne(t, e, o)
	if step.Grade != remit.FreezeCredentials || !strings.Contains(step.Diff, "mint.SA-"+ns+"_racer: ") || !strings.Contains(strings.Join(planned.Why, " "), "remit revoke") {
		t.Errorf("%+v", planned)
	}
}

func TestEnforceTokens(t *testing.T) {
	c, e := openEnforcer(t)
	ctx := t.Context()
	ns := c.Namespace(t)
	who := enforceWorker(t, c, ns, "worker")
	accounts := c.Client.CoreV1().ServiceAccounts(ns)
	change := []byte(`{"metadata":{"labels":{"team":"a"},"annotations":{"note":"kept"}},"automountServiceAccountToken":false,"secrets":[{"name":"own"}],"imagePullSecrets":[{"name":"pull"}]}`)
	before, err := accounts.Patch(ctx, "worker", types.MergePatchType, change, metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	status, err := c.Token(ctx, ns, "worker", cluster.TokenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	h := enforceHolderOf(t, c, status.Token, who)
	enforceEventually(t, func() error { return h.read(ctx) })
	step, planned := planLast(t, e, contain(who, remit.KillTokens))
	t.Logf("%s\n%s%s\n%s", step.Does, step.Diff, step.Breaks, strings.Join(planned.Why, "\n"))
	if step.Undo != "" {
		t.Error("it cannot be undone")
	}
	wantKind(t, e.Verify(ctx, step), remit.Conflict)
	// Nobody who holds the old token makes himself one of the new account.
	if first := planned.Steps[0]; len(planned.Steps) != 2 || first.Grade != remit.FreezeCredentials {
		t.Fatalf("%+v", planned.Steps)
	} else if err := e.Do(ctx, first); err != nil {
		t.Fatal(err)
	} else if err := e.Verify(ctx, first); err != nil {
		t.Fatal(err)
	}
	uids := map[types.UID]bool{}
	done := time.Now()
	for range 3 {
		if err := e.Do(ctx, step); err != nil {
			t.Fatal(err)
		}
		if len(uids) == 0 {
			done = time.Now()
		}
		now, err := accounts.Get(ctx, "worker", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		uids[now.UID] = true
		if now.UID == before.UID || now.Labels["team"] != "a" || now.Annotations["note"] != "kept" || now.Annotations[recreatedFrom] != string(before.UID) ||
			!reflect.DeepEqual(now.Secrets, before.Secrets) || !reflect.DeepEqual(now.ImagePullSecrets, before.ImagePullSecrets) || !reflect.DeepEqual(now.AutomountServiceAccountToken, before.AutomountServiceAccountToken) {
			t.Errorf("not made anew as it was: %+v", now)
		}
	}
	if len(uids) != 1 {
		t.Errorf("made anew %d times", len(uids))
	}
	if err := e.Verify(ctx, step); err != nil {
		t.Error(err)
	}
	for !apierrors.IsUnauthorized(h.read(ctx)) {
		if time.Since(done) > time.Minute {
			t.Fatal("the old token still works after a minute")
		}
		if _, err := h.mint(ctx); err == nil {
			t.Fatal("the old token has minted one of the new account")
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("401 %v after it was done", time.Since(done))
	wantKind(t, e.Undo(ctx, step), remit.Unsupported)

	// A crash between deletion and making it anew.
	step, _ = planLast(t, e, contain(who, remit.KillTokens))
	if err := accounts.Delete(ctx, "worker", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wantKind(t, e.Verify(ctx, step), remit.Conflict)
	if err := e.Do(ctx, step); err != nil {
		t.Fatal(err)
	}
	if now, err := accounts.Get(ctx, "worker", metav1.GetOptions{}); err != nil || now.Labels["team"] != "a" {
		t.Errorf("%+v %v", now, err)
	}
	// Changed since it was planned.
	step, _ = planLast(t, e, contain(who, remit.KillTokens))
	if _, err := accounts.Patch(ctx, "worker", types.MergePatchType, []byte(`{"metadata":{"labels":{"team":"b"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	wantKind(t, e.Do(ctx, step), remit.Conflict)

	// The controller makes those named default anew by itself.
	if _, err := accounts.Patch(ctx, "default", types.MergePatchType, change, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	step, _ = planLast(t, e, contain(remit.Ref{Kind: "ServiceAccount", Namespace: ns, Name: "default"}, remit.KillTokens))
	if err := accounts.Delete(ctx, "default", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	enforceEventually(t, func() error { _, err := accounts.Get(ctx, "default", metav1.GetOptions{}); return err })
	for range 2 {
		if err := e.Do(ctx, step); err != nil {
			t.Fatal(err)
		}
	}
	if now, err := accounts.Get(ctx, "default", metav1.GetOptions{}); err != nil || now.Labels["team"] != "a" || len(now.ImagePullSecrets) != 1 {
		t.Errorf("%+v %v", now, err)
	}
}

func TestEnforcePutsBack(t *testing.T) {
	for want, metas := range map[string][]metav1.ObjectMeta{
		"Argo CD": {
			{Annotations: map[string]string{"argocd.argoproj.io/tracking-id": "x"}},
			{Labels: map[string]string{"argocd.argoproj.io/instance": "x"}},
			{Labels: map[string]string{"app.kubernetes.io/instance": "x"}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "argocd-controller"}}},
		},
		"Flux": {{Labels: map[string]string{"kustomize.toolkit.fluxcd.io/name": "x"}}, {ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}, {Manager: "kustomize-controller"}}}},
		"Helm": {{Labels: map[string]string{"app.kubernetes.io/managed-by": "Helm"}}, {ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "helm"}}}},
		"the API server": {{
			Labels: map[string]string{"kubernetes.io/bootstrapping": "rbac-defaults"}, Annotations: map[string]string{"rbac.authorization.kubernetes.io/autoupdate": "true"},
		}},
		"": {{}, {Labels: map[string]string{"app.kubernetes.io/instance": "x"}}, {ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}}},
	} {
		for _, m := range metas {
			if got := putsBack(&m); !strings.HasPrefix(got, want) || (got == "") != (want == "") {
				t.Errorf("%+v is managed by %q, not %q", m, got, want)
			}
		}
	}
}

// TestEnforceManifest holds that the manifest gives the rights that are needed,
// with which the other tests run, and no more.
func TestEnforceManifest(t *testing.T) {
	text, err := os.ReadFile("../../deploy/kubernetes/enforcer.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all, system := EnforcerRights()
	found := map[string][]rbacv1.PolicyRule{}
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var role rbacv1.ClusterRole
		if err := yaml.Unmarshal([]byte(document), &role); err != nil {
			t.Fatal(err)
		}
		if role.Rules != nil {
			found[role.Kind] = role.Rules
		}
	}
	if want := map[string][]rbacv1.PolicyRule{"ClusterRole": all, "Role": system}; !reflect.DeepEqual(found, want) {
		t.Errorf("the manifest gives\n%+v, not\n%+v", found, want)
	}
}

func TestEnforceUnreachable(t *testing.T) {
	e, err := OpenEnforcerRESTConfig(&rest.Config{Host: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.Plan(t.Context(), contain(remit.Ref{Kind: "User", Name: "jane"}))
	wantKind(t, err, remit.Unavailable)
	wantKind(t, e.Prepare(t.Context()), remit.Unavailable)
	wantKind(t, e.Do(t.Context(), remit.Step{Grade: remit.FreezeCredentials}), remit.Invalid)
	wantKind(t, e.Do(t.Context(), remit.Step{Grade: remit.Quarantine}), remit.Invalid)
	wantKind(t, e.Do(t.Context(), remit.Step{Grade: "softly"}), remit.Unsupported)
}

func TestEnforceCredentialKeys(t *testing.T) {
	for _, hostile := range []string{
		"", "JTI", "JTI=", "JTI-abc", "jti=abc", "JTI=a=b", "JTI=a/b", "JTI=a b", "JTI=a\n", "JTI=ä", "JTI=\x00", " JTI=a", "X=1",
		"JTI=" + strings.Repeat("a", 250), `JTI="] || true`, "../JTI=a",
	} {
		if key, err := credentialKey(hostile); remit.KindOf(err) != remit.Invalid {
			t.Errorf("%q becomes %q", hostile, key)
		}
	}
	for id, want := range map[string]string{"JTI=0b7e-1": "JTI-0b7e-1", "X509SHA256=00ff": "X509SHA256-00ff"} {
		if key, err := credentialKey(id); err != nil || key != want {
			t.Errorf("%q becomes %q, %v", id, key, err)
		}
	}
	if err := containedFits(map[string][]byte{"a": make([]byte, 1<<19)}, map[string][]byte{"b": make([]byte, 1<<19)}); remit.KindOf(err) != remit.Unsupported {
		t.Errorf("a list that is too large: %v", err)
	}
}

func FuzzEnforceCredentialKey(f *testing.F) {
	f.Add("JTI=4e6a")
	f.Add("X509SHA256=00")
	f.Fuzz(func(t *testing.T, id string) {
		key, err := credentialKey(id)
		if err != nil {
			if remit.KindOf(err) != remit.Invalid {
				t.Error(err)
			}
			return
		}
		if len(key) > 246 || strings.ContainsFunc(key, func(r rune) bool {
			return !strings.ContainsRune("-._abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", r)
		}) {
			t.Errorf("%q becomes %q, which is no key", id, key)
		}
	})
}

// FuzzEnforceHolds holds that a plan lets go of what is its own, and of nothing
// else.
func FuzzEnforceHolds(f *testing.F) {
	f.Add("", false)
	f.Add("", true)
	f.Add("00ff00ff00ff00ff", true)
	f.Add("by  hand ", true)
	f.Fuzz(func(t *testing.T, value string, known bool) {
		const own, other = "0123456789abcdef", "fedcba9876543210"
		if strings.Contains(value, own) {
			return
		}
		if !known {
			value = ""
		}
		held := withHold(value, known, own)
		if again := withHold(held, true, own); again != held {
			t.Errorf("held twice: %q", again)
		}
		if free, keep := withoutHold(held, own); free != value || keep != known {
			t.Errorf("%q (%t) becomes %q (%t)", value, known, free, keep)
		}
		if rest, keep := withoutHold(withHold(held, true, other), own); !keep || !slices.Contains(strings.Fields(rest), other) {
			t.Errorf("another plan's hold is lost: %q", rest)
		}
		if same, keep := withoutHold(value, own); same != value || !keep {
			t.Errorf("%q becomes %q", value, same)
		}
	})
}

// TestEnforceKeys holds that what is refused is frozen too, and that what is only
// frozen, and what is held of an account, is not refused.
func TestEnforceKeys(t *testing.T) {
	for level, want := range map[string][]string{holdMint: {"mint.JTI-a"}, holdAll: {"all.JTI-a"}, holdRefuse: {"all.JTI-a", "refuse.JTI-a"}} {
		keys := keysOf("JTI-a", level)
		if !slices.Equal(keys, want) {
			t.Errorf("%s: %q", level, keys)
		}
		data := map[string][]byte{"refuse.SA-shop_worker": nil, "refuse": nil}
		for _, key := range keys {
			data[key] = nil
		}
		refused := refusedIn(data)
		if _, ok := refused["JTI=a"]; ok != (level == holdRefuse) || len(refused) > 1 {
			t.Errorf("%s: refused are %v", level, refused)
		}
	}
}
