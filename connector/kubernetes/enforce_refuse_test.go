package kubernetes

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"remit"
	"remit/e2e/cluster"
)

// webhook is the server side of an authorization webhook, which can be away, have
// another certificate, and be answered by another Authorizer from one moment to the
// next, as after a restart.
type webhook struct {
	t       *testing.T
	address string
	ca      *x509.Certificate
	key     *ecdsa.PrivateKey
	caPEM   []byte

	cert   atomic.Pointer[tls.Certificate]
	answer atomic.Pointer[Authorizer]
	asked  atomic.Int64
	server *http.Server
}

func newWebhook(t *testing.T) *webhook {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w := &webhook{t: t, key: key}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err == nil {
		w.ca, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.caPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	w.certify(time.Now().Add(time.Hour))
	w.start("127.0.0.1:0")
	t.Cleanup(w.stop)
	return w
}

// certify serves a certificate that ends then.
func (w *webhook) certify(end time.Time) {
	w.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(end.UnixNano()), NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: end,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, w.ca, w.key.Public(), w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	w.cert.Store(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: w.key})
}

func (w *webhook) start(address string) {
	w.t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		w.t.Fatal(err)
	}
	w.address = l.Addr().String()
	w.server = &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.asked.Add(1)
		if r.Header.Get("Authorization") != "Bearer secret" {
			http.Error(rw, "who are you", http.StatusUnauthorized)
			return
		}
		w.answer.Load().ServeHTTP(rw, r)
	}), TLSConfig: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return w.cert.Load(), nil }}}
	go w.server.ServeTLS(l, "", "")
}

// stop ends it with all its connections.
func (w *webhook) stop() { w.server.Close() }

// follow has the list of a cluster followed from now on, by a login of its own.
func (w *webhook) follow(c *cluster.Cluster) (end func()) {
	w.t.Helper()
	a, err := OpenAuthorizerRESTConfig(c.Config(authorizerUser), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := a.Run(ctx); err == nil {
			w.t.Error("it ended without a reason")
		}
	}()
	w.answer.Store(a)
	return func() {
		cancel()
		<-ended
	}
}

const authorizerUser = "remit-reader"

// refusing is a cluster that asks a webhook, and an enforcer of it.
func refusing(t *testing.T) (*webhook, *cluster.Cluster, *Enforcer) {
	t.Helper()
	w := newWebhook(t)
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "remit.kubeconfig")
	err := cluster.WriteKubeconfig(kubeconfig, &rest.Config{
		Host: "https://" + w.address + "/v1/kubernetes/prod/authorize", BearerToken: "secret", TLSClientConfig: rest.TLSClientConfig{CAData: w.caPEM},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.answer.Store(&Authorizer{}) // knows nothing yet
	c := cluster.Start(t, func(o *cluster.Options) {
		o.NoControllerManager = true
		o.AuthorizationConfig = string(AuthorizationConfiguration(kubeconfig, []string{enforcerUser, authorizerUser}))
	})
	allowEnforcer(t, c)
	text, err := os.ReadFile("../../deploy/kubernetes/authorizer.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var role rbacv1.Role
	if err := yaml.UnmarshalStrict(text, &role); err != nil {
		t.Fatal(err)
	}
	rbac := c.Client.RbacV1()
	if _, err := rbac.Roles(enforceSystemNamespace).Create(t.Context(), &role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := rbac.RoleBindings(enforceSystemNamespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: authorizerUser}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	e, err := OpenEnforcerRESTConfig(c.Config(enforcerUser))
	if err != nil {
		t.Fatal(err)
	}
	return w, c, e
}

// reads says whether somebody may read; any other failure than Remit's refusal ends
// the test.
func (h *enforceHolder) reads(t *testing.T) bool {
	t.Helper()
	err := h.read(t.Context())
	if err != nil && !(apierrors.IsForbidden(err) && strings.Contains(err.Error(), refusal)) {
		t.Fatal(err)
	}
	return err == nil
}

// TestEnforceRefuse plays the refusal of a stolen token on a real API server that
// asks a webhook, through everything that can go wrong with that.
func TestEnforceRefuse(t *testing.T) {
	w, c, e := refusing(t)
	ctx := t.Context()
	ns := c.Namespace(t)
	who := enforceWorker(t, c, ns, "worker")
	holder := func() *enforceHolder {
		t.Helper()
		status, err := c.Token(ctx, ns, "worker", cluster.TokenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return enforceHolderOf(t, c, status.Token, who)
	}
	stolen, other := holder(), holder()
	want := func(when string, reads bool) {
		t.Helper()
		if got := stolen.reads(t); got != reads {
			t.Errorf("%s the stolen token reads: %t", when, got)
		}
		if !other.reads(t) {
			t.Errorf("%s another token does not read", when)
		}
	}
	eventually := func(what string, f func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !f(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not within a minute: %s", what)
			}
		}
	}
	if err := e.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	order := contain(who, remit.RefuseCredentials)
	order.Stolen, order.Minters = []string{stolen.credential}, []remit.Ref{who}

	// Nobody has read the list yet: the grade is refused in words, and everybody
	// goes on.
	_, err := e.Plan(ctx, order)
	wantKind(t, err, remit.Unsupported)
	if err == nil || !strings.Contains(err.Error(), "does not ask Remit first") {
		t.Errorf("%v", err)
	}
	// With others it is left out, and these are done.
	both := order
	both.Grades = []remit.Grade{remit.FreezeCredentials, remit.RefuseCredentials}
	if planned, err := e.Plan(ctx, both); err != nil || len(planned.Steps) != 1 || !strings.Contains(strings.Join(planned.Why, " "), "refuse-credentials is left out") {
		t.Errorf("%+v, %v", planned, err)
	}
	want("before the list is read", true)

	end := w.follow(c)
	eventually("the list is read", func() bool { return w.answer.Load().Ready() })
	secrets := c.Client.CoreV1().Secrets(enforceSystemNamespace)
	key, err := credentialKey(stolen.credential)
	if err != nil {
		t.Fatal(err)
	}
	// Somebody wrote an entry of his own, in his own way.
	if _, err := secrets.Patch(ctx, containedName, types.MergePatchType, fmt.Appendf(nil, `{"stringData":{%q:"  by hand  "}}`, holdAll+"."+key), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	data := func() map[string][]byte {
		t.Helper()
		s, err := secrets.Get(ctx, containedName, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return s.Data
	}
	before := data()
	step, planned := planOne(t, e, order)
	t.Logf("%s\n%s%s\n%s\n%s", step.Does, step.Diff, step.Breaks, step.Undo, strings.Join(planned.Why, "\n"))
	wantKind(t, e.Verify(ctx, step), remit.Conflict)
	want("before it is done", true)
	for range 2 {
		if err := e.Do(ctx, step); err != nil {
			t.Fatal(err)
		}
	}
	eventually("the stolen token is refused", func() bool { return !stolen.reads(t) })
	if err := e.Verify(ctx, step); err != nil {
		t.Error(err)
	}
	want("done", false)
	if err := stolen.write(ctx); !apierrors.IsForbidden(err) {
		t.Errorf("the stolen token writes: %v", err)
	}
	if _, err := c.Client.CoreV1().ConfigMaps(ns).List(ctx, metav1.ListOptions{}); err != nil {
		t.Errorf("an administrator: %v", err)
	}

	// A second plan holds the same: the first lets go, and it stays refused.
	second, _ := planOne(t, e, order)
	if err := e.Do(ctx, second); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := e.Undo(ctx, step); err != nil {
			t.Fatal(err)
		}
	}
	want("held by a second plan", false)
	if err := e.Verify(ctx, second); err != nil {
		t.Error(err)
	}

	// Remit is away: reads go on as before, and writes stay frozen.
	w.stop()
	want("without the webhook", true)
	if err := stolen.write(ctx); !apierrors.IsInvalid(err) {
		t.Errorf("without the webhook the stolen token writes: %v", err)
	}
	_, err = e.Plan(ctx, order)
	wantKind(t, err, remit.Unsupported)
	// It is another process then, which reads the list anew.
	end()
	end = w.follow(c)
	w.start(w.address)
	eventually("it is refused after a restart", func() bool { return !stolen.reads(t) })
	want("after a restart", false)

	// Its certificate has expired, and is replaced.
	w.certify(time.Now().Add(-time.Minute))
	w.stop()
	w.start(w.address)
	want("with an expired certificate", true)
	w.certify(time.Now().Add(time.Hour))
	eventually("it is refused with a new certificate", func() bool { return !stolen.reads(t) })

	// The API server is away and comes back: the list is followed again.
	c.StopAPIServer()
	time.Sleep(300 * time.Millisecond)
	if err := c.StartAPIServer(ctx); err != nil {
		t.Fatal(err)
	}
	want("after the API server's restart", false)
	if err := e.Undo(ctx, second); err != nil {
		t.Fatal(err)
	}
	eventually("it is free again", func() bool { return stolen.reads(t) })
	if got := data(); !reflect.DeepEqual(got, before) {
		t.Errorf("undone the entries are %q, and were %q", got, before)
	}

	// The Secret is deleted: nothing is refused any more.
	if err := e.Do(ctx, step); err != nil {
		t.Fatal(err)
	}
	eventually("it is refused again", func() bool { return !stolen.reads(t) })
	if err := secrets.Delete(ctx, containedName, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually("it is free without the list", func() bool { return stolen.reads(t) })
	wantKind(t, e.Verify(ctx, step), remit.Conflict)
	if err := e.Undo(ctx, step); err != nil {
		t.Error(err)
	}

	measureRefusal(t, e, step, stolen)
	end()

	// Not the API server's to ask about, or Remit itself.
	for _, who := range []remit.Ref{{Kind: "Node", Name: "n"}, {Kind: "Group", Name: "g"}} {
		o := contain(who, remit.RefuseCredentials)
		o.Stolen = []string{"X509SHA256=00"}
		_, err := e.Plan(ctx, o)
		wantKind(t, err, remit.Unsupported)
	}
	_, err = e.Plan(ctx, contain(who, remit.RefuseCredentials))
	wantKind(t, err, remit.Invalid)
	self, err := e.self(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	o := contain(remit.Ref{Kind: "User", Name: "jane"}, remit.RefuseCredentials)
	o.Stolen = self.Extra[extraCredential]
	_, err = e.Plan(ctx, o)
	wantKind(t, err, remit.Forbidden)
	wantKind(t, e.Verify(ctx, remit.Step{
		Grade: remit.RefuseCredentials, Before: []byte(`{}`), After: []byte(`{"hold":"0123456789abcdef","entries":{"JTI-a":"refused"}}`),
	}), remit.Invalid)
}

// measureRefusal measures from the end of Do to the first refusal of a token that
// reads all the time.
func measureRefusal(t *testing.T, e *Enforcer, step remit.Step, stolen *enforceHolder) {
	t.Helper()
	const runs = 100
	took := make([]time.Duration, 0, runs)
	for range runs {
		if err := e.Do(t.Context(), step); err != nil {
			t.Fatal(err)
		}
		done := time.Now()
		for stolen.reads(t) {
			if time.Since(done) > time.Minute {
				t.Fatal("never refused")
			}
		}
		took = append(took, time.Since(done))
		if err := e.Undo(t.Context(), step); err != nil {
			t.Fatal(err)
		}
		for undone := time.Now(); !stolen.reads(t); {
			if time.Since(undone) > time.Minute {
				t.Fatal("never free")
			}
		}
	}
	slices.Sort(took)
	t.Logf("refused after it was done, %d runs: p50 %v, p99 %v, most %v", runs, took[runs/2], took[runs*99/100], took[runs-1])
	if half := took[runs/2]; half > time.Second {
		t.Errorf("half of the refusals took more than %v", half)
	}
}

func TestAuthorizerAnswers(t *testing.T) {
	a := &Authorizer{}
	ask := func(body string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		a.ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader(body)))
		if w.Header().Get("Retry-After") != "" || w.Code == 500 || w.Code == 504 || w.Code == 429 {
			t.Errorf("%d, after which the API server asks again: %s", w.Code, body)
		}
		return w
	}
	review := func(extra string) string {
		return `{"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview","spec":{"user":"u"` + extra + `},"status":{"allowed":false}}`
	}
	id := func(credentials string) string {
		return review(`,"extra":{"authentication.kubernetes.io/credential-id":[` + credentials + `]}`)
	}
	if w := ask(id(`"JTI=a"`)); w.Code != http.StatusServiceUnavailable {
		t.Errorf("%d before the list is read", w.Code)
	}
	contained := map[string][]byte{}
	for _, key := range []string{
		"all.JTI-a", "refuse.JTI-a", "mint.JTI-b", "refuse.JTI-c", "all.JTI-d", "refused.JTI-d", "JTI-d", ".refuse.JTI-d",
		"refuse.X509SHA256-00ff", "refuse.SA-ns_name", "refuse.JTI-e-f", "refuse.", "refuse", "refuse.odd",
	} {
		contained[key] = nil
	}
	a.keep(contained)
	for body, denied := range map[string]bool{
		id(`"JTI=a"`): true, id(`"JTI=c"`): true, id(`"X509SHA256=00ff"`): true, id(`"JTI=e-f"`): true, id(`"x","JTI=a"`): true,
		id(`"JTI=remit-probe"`): true, id(`"JTI=b"`): false, id(`"JTI=d"`): false, id(`"JTI-a"`): false, id(`"SA-ns_name"`): false, id(`"SA=ns_name"`): false,
		id(`"jti=a"`): false, id(``): false, id(`""`): false, review(``): false, review(`,"extra":{}`): false, review(`,"extra":null`): false,
		review(`,"Extra":{"authentication.kubernetes.io/credential-id":["JTI=a"]}`): false,
	} {
		w := ask(body)
		if w.Code != http.StatusOK || strings.Contains(w.Body.String(), `"denied":true`) != denied || strings.Contains(w.Body.String(), `"allowed":true`) {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	for _, body := range []string{
		``, `{`, `null`, `[]`, `"x"`, `{}`, `{"apiVersion":"authorization.k8s.io/v1beta1","kind":"SubjectAccessReview","spec":{}}`,
		`{"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview"}`, `{"apiVersion":"authorization.k8s.io/v1","kind":"TokenReview","spec":{}}`,
		review(`,"extra":{"authentication.kubernetes.io/credential-id":"JTI=a"}`), review(`,"extra":[]`), id(`1`),
	} {
		if w := ask(body); w.Code != http.StatusBadRequest {
			t.Errorf("%q: %d", body, w.Code)
		}
	}
	if w := ask(review(`,"uid":"` + strings.Repeat("a", maxReview) + `"`)); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("%d for a review that is too long", w.Code)
	}
}

func FuzzAuthorizer(f *testing.F) {
	f.Add(`{"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview","spec":{"extra":{"authentication.kubernetes.io/credential-id":["JTI=a"]}}}`)
	f.Add(`{"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview","spec":{"extra":{"authentication.kubernetes.io/credential-id":["JTI=b", "x"]}}}`)
	a := &Authorizer{}
	a.keep(map[string][]byte{"refuse.JTI-a": nil})
	f.Fuzz(func(t *testing.T, body string) {
		w := httptest.NewRecorder()
		a.ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader(body)))
		denied := strings.Contains(w.Body.String(), `"denied":true`)
		if w.Code != http.StatusOK && w.Code != http.StatusBadRequest || denied && (w.Code != http.StatusOK || !strings.Contains(body, "JTI") && !strings.Contains(body, `\u`)) {
			t.Errorf("%q: %d %s", body, w.Code, w.Body)
		}
	})
}
