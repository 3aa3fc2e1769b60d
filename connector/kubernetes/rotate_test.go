package kubernetes

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"remit"
	"remit/connector"
	"remit/connector/connectortest"
	"remit/e2e/cluster"
	"remit/response"
	"remit/store/sqlstore"
)

var rotated = sync.OnceValues(func() (*cluster.Cluster, error) {
	return cluster.Run(context.Background(), cluster.Options{Nodes: 1, APIServerArgs: []string{"--enable-bootstrap-token-auth"}})
})

var rotatorOnce sync.Once

// openRotator is a rotator that has just the rights that are documented, and those
// of an enforcer.
func openRotator(t *testing.T) (*cluster.Cluster, *Rotator) {
	t.Helper()
	c, err := rotated()
	if err != nil {
		t.Fatal(err)
	}
	const user = "remit-rotator"
	rotatorOnce.Do(func() {
		ctx := t.Context()
		admin, err := OpenEnforcerRESTConfig(c.Admin)
		if err != nil {
			t.Fatal(err)
		}
		if err := admin.ensureContained(ctx); err != nil {
			t.Fatal(err)
		}
		all, system := EnforcerRights()
		subjects := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: user}}
		for name, rules := range map[string][]rbacv1.PolicyRule{"rotator": RotatorRights(), "enforcer": all} {
			if _, err := c.Client.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			// For all tests, and so not with bind, which takes it back.
			if _, err := c.Client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}, Subjects: subjects}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.Client.RbacV1().Roles(enforceSystemNamespace).Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: user}, Rules: system}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Client.RbacV1().RoleBindings(enforceSystemNamespace).Create(ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: user}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: user}, Subjects: subjects}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	r, err := OpenRotatorRESTConfig(c.Config(user))
	if err != nil {
		t.Fatal(err)
	}
	return c, r
}

// tokenSecret is a filled token Secret of an account.
func tokenSecret(t *testing.T, c *cluster.Cluster, ns, name, account string) *corev1.Secret {
	t.Helper()
	ctx := t.Context()
	_, err := c.Client.CoreV1().Secrets(ns).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": "shop"}, Annotations: map[string]string{corev1.ServiceAccountNameKey: account}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		s, err := c.Client.CoreV1().Secrets(ns).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Data["token"]) > 0 {
			return s
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func order(ns, name string) connector.RotationOrder {
	ref := remit.Ref{Kind: "Secret", Namespace: ns, Name: name}
	return connector.RotationOrder{Subject: remit.Subject{Record: remit.KindCredential, Ref: ref}}
}

// accepts asks the API server whether it knows who that is.
func accepts(t *testing.T, config *rest.Config) bool {
	t.Helper()
	_, err := whoIs(t.Context(), config)
	if err != nil && !apierrors.IsUnauthorized(err) {
		t.Fatal(err)
	}
	return err == nil
}

// ended waits until a token is refused: the API server remembers for ten seconds
// what it has accepted.
func ended(t *testing.T, c *cluster.Cluster, token string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); accepts(t, c.TokenConfig(token)); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the old token is accepted still")
		}
	}
}

func whoIs(ctx context.Context, config *rest.Config) (string, error) {
	e, err := OpenEnforcerRESTConfig(config)
	if err != nil {
		return "", err
	}
	request, err := e.request("POST", "SelfSubjectReview", "", "")
	if err != nil {
		return "", err
	}
	result := request.SetHeader("Accept", "application/json").Body([]byte(`{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}`)).SetHeader("Content-Type", "application/json").Do(ctx)
	raw, err := result.Raw()
	if e := result.Error(); e != nil {
		err = e
	}
	return string(raw), err
}

// certificateConfig signs in with a certificate and a key.
func certificateConfig(c *cluster.Cluster, cert, key []byte) *rest.Config {
	config := rest.AnonymousClientConfig(c.Admin)
	config.CertData, config.KeyData = cert, key
	return config
}

// certificateSecret holds a client certificate of the cluster.
func certificateSecret(t *testing.T, c *cluster.Cluster, ns, name, user string) {
	t.Helper()
	config := c.Config(user, "robots")
	if _, err := c.Client.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: config.CertData, corev1.TLSPrivateKeyKey: config.KeyData},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// newBootstrapSecret is a bootstrap token.
func newBootstrapSecret(t *testing.T, c *cluster.Cluster, id string) string {
	t.Helper()
	const value = "0123456789abcdef"
	if _, err := c.Client.CoreV1().Secrets("kube-system").Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: bootstrapPrefix + id}, Type: corev1.SecretTypeBootstrapToken,
		StringData: map[string]string{"token-id": id, "token-secret": value, "usage-bootstrap-authentication": "true", "auth-extra-groups": "system:bootstrappers:test"},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Client.CoreV1().Secrets("kube-system").Delete(context.Background(), bootstrapPrefix+id, metav1.DeleteOptions{})
	})
	return id + "." + value
}

func TestIssuers(t *testing.T) {
	t.Parallel()
	c, r := openRotator(t)
	ns := c.Namespace(t)
	enforceWorker(t, c, ns, "worker")
	tokenSecret(t, c, ns, "worker-token", "worker")
	certificateSecret(t, c, ns, "robot", "robot")
	newBootstrapSecret(t, c, "abcdef")
	byToken := func(t *testing.T, _ connector.Issued, token []byte) bool {
		return accepts(t, c.TokenConfig(string(token)))
	}
	bound := order(ns, "worker-token")
	bound.As = asBound
	t.Run("token", func(t *testing.T) {
		t.Parallel()
		connectortest.Issuer(t, connectortest.IssuerSuite{Issuer: r, Order: order(ns, "worker-token"), Accepted: byToken})
	})
	t.Run("bound token", func(t *testing.T) {
		t.Parallel()
		connectortest.Issuer(t, connectortest.IssuerSuite{Issuer: r, Order: bound, Accepted: byToken})
	})
	t.Run("bootstrap token", func(t *testing.T) {
		t.Parallel()
		connectortest.Issuer(t, connectortest.IssuerSuite{Issuer: r, Order: order("kube-system", "bootstrap-token-abcdef"), Accepted: byToken})
	})
	t.Run("certificate", func(t *testing.T) {
		t.Parallel()
		connectortest.Issuer(t, connectortest.IssuerSuite{Issuer: r, Order: order(ns, "robot"), Lasts: true, Accepted: func(t *testing.T, _ connector.Issued, bundle []byte) bool {
			who, err := whoIs(t.Context(), certificateConfig(c, bundle, bundle))
			return err == nil && strings.Contains(who, `"robot"`) && strings.Contains(who, `"robots"`)
		}})
	})
}

// TestRotationRefusals says no, and why, to what cannot or must not be rotated.
func TestRotationRefusals(t *testing.T) {
	c, r := openRotator(t)
	ctx := t.Context()
	ns := c.Namespace(t)
	enforceWorker(t, c, ns, "worker")
	tokenSecret(t, c, ns, "worker-token", "worker")
	admin := c.Config("boss", "system:masters")
	for name, data := range map[string]map[string][]byte{
		"plain": {"password": []byte("x")}, "server": {corev1.TLSCertKey: c.CA}, "nonsense": {corev1.TLSCertKey: []byte("x")}, "boss": {corev1.TLSCertKey: admin.CertData},
	} {
		if _, err := c.Client.CoreV1().Secrets(ns).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	with := func(o connector.RotationOrder, as string) connector.RotationOrder { o.As = as; return o }
	for want, orders := range map[remit.ErrorKind][]connector.RotationOrder{
		remit.NotFound:    {order(ns, "missing")},
		remit.Unsupported: {order(ns, "plain"), order(ns, "server"), order(ns, "nonsense"), order("", "x"), with(order(ns, "worker-token"), asProjected)},
		remit.Forbidden:   {order(ns, "boss")},
		remit.Invalid:     {with(order(ns, "worker-token"), "magic")},
	} {
		for _, o := range orders {
			_, err := r.PlanRotation(ctx, o)
			wantKind(t, err, want)
		}
	}
	self, err := OpenRotatorRESTConfig(c.TokenConfig(string(tokenSecret(t, c, ns, "own", "worker").Data["token"])))
	if err != nil {
		t.Fatal(err)
	}
	bind(t, c, "self-"+ns, "cluster-admin", rbacv1.Subject{Kind: "ServiceAccount", Namespace: ns, Name: "worker"})
	_, err = self.PlanRotation(ctx, order(ns, "own"))
	wantKind(t, err, remit.Forbidden)
	for _, address := range []string{"", "x", "a/b", "a/b#", "a/b/c#d", "a/b#,", "/b#x"} {
		_, err := r.SecretDestination(address)
		wantKind(t, err, remit.Invalid)
	}
	for _, address := range []string{"", "a/b", "a/Pod/b", "a/Deployment/", "a/Deployment/b/c"} {
		_, err := r.WorkloadDestination(address)
		wantKind(t, err, remit.Invalid)
	}
	// What a rotation did not make is never deleted by one.
	planned, err := r.PlanRotation(ctx, order(ns, "worker-token"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.End(ctx, planned.Plan, connector.Issued{Ref: remit.Ref{Kind: "Secret", Namespace: ns, Name: "plain"}})
	wantKind(t, err, remit.Conflict)
}

// deployment mounts a Secret and has its token in a variable.
func deployment(t *testing.T, c *cluster.Cluster, ns, name, account, secret string, variable bool) {
	t.Helper()
	labels := map[string]string{"app": name}
	replicas := int32(2)
	spec := corev1.PodSpec{
		ServiceAccountName: account,
		Volumes:            []corev1.Volume{{Name: "token", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secret}}}},
		Containers:         []corev1.Container{{Name: "c", Image: "i", VolumeMounts: []corev1.VolumeMount{{Name: "token", MountPath: "/token"}}}},
	}
	if variable {
		spec.Containers[0].Env = []corev1.EnvVar{{Name: "TOKEN", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: secret}, Key: "token"}}}}
	}
	if _, err := c.Client.AppsV1().Deployments(ns).Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Kubelet.WaitPods(t.Context(), ns, "app="+name, 2); err != nil {
		t.Fatal(err)
	}
}

func TestDestinations(t *testing.T) {
	t.Parallel()
	c, r := openRotator(t)
	ctx := t.Context()
	ns := c.Namespace(t)
	secrets := c.Client.CoreV1().Secrets(ns)
	if _, err := secrets.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "app"}, Data: map[string][]byte{"password": []byte("old"), "other": []byte("stays")}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	open := func(address string) *SecretDestination {
		t.Helper()
		d, err := r.SecretDestination(address)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	n := 0
	t.Run("secret", func(t *testing.T) {
		connectortest.Destination(t, connectortest.DestinationSuite{
			Destination: open(ns + "/app#password,user=username"), Missing: open(ns + "/missing#x"),
			Delivery: func(*testing.T) (connector.Delivery, string) {
				n++
				value := strings.Repeat(string(rune('a'+n)), 20)
				return connector.Delivery{Secret: connector.NewSecret("password", []byte(value)).With("username", []byte("u"))}, value + " u stays"
			},
			Holds: func(t *testing.T) string {
				s, err := secrets.Get(t.Context(), "app", metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				return string(s.Data["password"]) + " " + string(s.Data["user"]) + " " + string(s.Data["other"])
			},
			Overwrite: func(t *testing.T) {
				if _, err := secrets.Patch(t.Context(), "app", "application/merge-patch+json", []byte(`{"data":{"password":"eA=="}}`), metav1.PatchOptions{}); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
	t.Run("workload", func(t *testing.T) {
		deployment(t, c, ns, "web", "default", "app", true)
		d, err := r.WorkloadDestination(ns + "/Deployment/web")
		if err != nil {
			t.Fatal(err)
		}
		missing, err := r.WorkloadDestination(ns + "/DaemonSet/web")
		if err != nil {
			t.Fatal(err)
		}
		deployments := c.Client.AppsV1().Deployments(ns)
		connectortest.Destination(t, connectortest.DestinationSuite{
			Destination: d, Missing: missing,
			Delivery: func(t *testing.T) (connector.Delivery, string) {
				n++
				name := "app-" + string(rune('a'+n))
				if _, err := secrets.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string][]byte{"token": []byte("x")}}, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
				old := []remit.Ref{{Kind: "Secret", Namespace: ns, Name: "app"}}
				return connector.Delivery{Replaces: old, Issued: connector.Issued{Ref: remit.Ref{Kind: "Secret", Namespace: ns, Name: name}}}, name + " " + name
			},
			Holds: func(t *testing.T) string {
				o, err := deployments.Get(t.Context(), "web", metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				spec := o.Spec.Template.Spec
				return spec.Volumes[0].Secret.SecretName + " " + spec.Containers[0].Env[0].ValueFrom.SecretKeyRef.Name
			},
			Overwrite: func(t *testing.T) {
				if _, err := deployments.Patch(t.Context(), "web", "application/merge-patch+json", []byte(`{"spec":{"template":{"metadata":{"annotations":{"`+annotationRotated+`":"mine"}}}}}`), metav1.PatchOptions{}); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
	// Who reads a Secret only at its start is started again.
	planned, err := open(ns+"/app#password").Plan(ctx, connector.Delivery{})
	if err != nil || !slices.Equal(planned.Restart, []string{"workload:" + ns + "/Deployment/web"}) {
		t.Errorf("%v, %v", planned.Restart, err)
	}
}

// rotationBench carries rotations out on a cluster whose log it takes in.
type rotationBench struct {
	*response.Responses
	t     *testing.T
	c     *cluster.Cluster
	store *sqlstore.Store
	id    remit.ID
	clock func() time.Time
	dies  func(issued connector.Issued) // after something was issued
}

type dyingIssuer struct {
	connector.Issuer
	b *rotationBench
}

func (d dyingIssuer) Issue(ctx context.Context, plan json.RawMessage, ref remit.Ref) (connector.Issued, *connector.Secret, error) {
	issued, secret, err := d.Issuer.Issue(ctx, plan, ref)
	if err == nil && d.b.dies != nil {
		d.b.dies(issued)
	}
	return issued, secret, err
}

func newRotationBench(t *testing.T, c *cluster.Cluster, r *Rotator) *rotationBench {
	t.Helper()
	store, err := sqlstore.Open(t.Context(), filepath.Join(t.TempDir(), "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	b := &rotationBench{t: t, c: c, store: store, id: remit.SystemID(Name, "test"), clock: time.Now}
	if err := store.PutSystem(t.Context(), remit.System{ID: b.id, Connector: Name, Name: "test", Native: "test"}); err != nil {
		t.Fatal(err)
	}
	r.now = func() time.Time { return b.clock() }
	b.Responses = response.New(response.Options{
		Store: store, Now: func() time.Time { return b.clock() }, Approvals: func(remit.ID) int { return 0 },
		Issuer: func(context.Context, remit.ID) (connector.Issuer, error) { return dyingIssuer{r, b}, nil },
		Destination: func(_ context.Context, _ remit.ID, address string) (connector.Destination, error) {
			kind, place, _ := strings.Cut(address, ":")
			if kind == "secret" {
				return r.SecretDestination(place)
			}
			return r.WorkloadDestination(place)
		},
	})
	return b
}

// takeIn reads the audit log of the cluster: which credential, and which user, was
// used.
func (b *rotationBench) takeIn() {
	b.t.Helper()
	text, err := os.ReadFile(b.c.AuditLog)
	if err != nil {
		b.t.Fatal(err)
	}
	var point remit.Checkpoint
	point.Now = time.Now()
	known := map[string]bool{}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		var event struct {
			User struct {
				Username string
				Extra    map[string][]string
			}
			StageTimestamp time.Time
			Verb           string
		}
		if json.Unmarshal(lines.Bytes(), &event) != nil {
			continue
		}
		who := refOfUser(event.User.Username)
		for _, credential := range event.User.Extra["authentication.kubernetes.io/credential-id"] {
			if !known[credential] {
				known[credential] = true
				point.Lineage = append(point.Lineage, remit.Lineage{
					System: b.id, Credential: credential, Root: credential, Identity: remit.IdentityID(b.id, who), Holder: who,
					Minted: event.StageTimestamp, First: event.StageTimestamp, Last: event.StageTimestamp, Uses: 1,
				})
			}
		}
		if !known[who.String()] && strings.HasPrefix(who.Name, "system:bootstrap:") {
			known[who.String()] = true
			point.Usage = append(point.Usage, remit.Usage{System: b.id, Identity: remit.IdentityID(b.id, who), Action: event.Verb, Outcome: remit.Allowed, Count: 1, First: event.StageTimestamp, Last: event.StageTimestamp})
		}
	}
	if err := b.store.Checkpoint(b.t.Context(), point); err != nil {
		b.t.Fatal(err)
	}
}

// run carries a rotation out to its end while use uses the credential all the time.
func (b *rotationBench) run(o connector.RotationOrder, to []string, use func(ctx context.Context) error) remit.Response {
	b.t.Helper()
	ctx := b.t.Context()
	plan, err := b.PlanRotation(ctx, response.RotationRequest{
		System: b.id, Subject: remit.Subject{Record: remit.KindCredential, Ref: o.Subject.Ref, ID: remit.CredentialID(b.id, o.Subject.Ref, "token")},
		As: o.As, Lifetime: o.Lifetime, Freeze: o.Freeze, To: to, Grace: 2 * time.Second, AskedBy: "alice",
	})
	if err == nil {
		plan, err = b.Propose(ctx, plan)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	using, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	uses := 0
	wg.Go(func() {
		for ; using.Err() == nil; uses++ {
			if err := use(using); err != nil && using.Err() == nil {
				b.t.Errorf("the client failed after %d uses: %v", uses, err)
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	start := time.Now()
	for time.Since(start) < time.Minute {
		var err error
		if plan, err = b.carry(ctx, plan.ID); err != nil && !errors.Is(err, errDied) {
			b.t.Errorf("%v", err)
			break
		}
		if plan.State == remit.ResponseVerified {
			break
		}
		b.takeIn()
		time.Sleep(100 * time.Millisecond)
	}
	// What was ended may be remembered by the API server for ten seconds.
	time.Sleep(500 * time.Millisecond)
	stop()
	wg.Wait()
	if plan.State != remit.ResponseVerified {
		b.t.Fatalf("it is %s: %+v", plan.State, plan)
	}
	b.t.Logf("verified after %s and %d uses; %d successors were made", time.Since(start).Round(time.Millisecond), uses, plan.Steps[0].Tries)
	return plan
}

var errDied = errors.New("it died")

func (b *rotationBench) carry(ctx context.Context, id remit.ID) (r remit.Response, err error) {
	defer func() {
		if p := recover(); p == errDied {
			r, err = remit.Response{ID: id}, errDied
		} else if p != nil {
			panic(p)
		}
	}()
	return b.CarryOut(ctx, id)
}

// podTokens uses, for every pod that runs, the token of the Secret that it mounts,
// which it read when it started; a pod with a projected token uses that.
func podTokens(c *cluster.Cluster, ns string) func(context.Context) error {
	tokens := map[string]string{}
	return func(ctx context.Context) error {
		pods, err := c.Kubelet.Pods(ns, "")
		if err != nil {
			return err
		}
		for _, p := range pods {
			token := tokens[string(p.UID)]
			if token == "" {
				pod, err := c.Client.CoreV1().Pods(ns).Get(ctx, p.Name, metav1.GetOptions{})
				if apierrors.IsNotFound(err) || err == nil && pod.DeletionTimestamp != nil {
					continue
				} else if err != nil {
					return err
				}
				if token = p.Token; pod.Spec.Volumes[0].Secret != nil {
					s, err := c.Client.CoreV1().Secrets(ns).Get(ctx, pod.Spec.Volumes[0].Secret.SecretName, metav1.GetOptions{})
					if err != nil {
						return err
					}
					token = string(s.Data["token"])
				}
				tokens[string(p.UID)] = token
			}
			client, err := kubernetes.NewForConfig(c.TokenConfig(token))
			if err != nil {
				return err
			}
			if _, err := client.CoreV1().ConfigMaps(ns).List(ctx, metav1.ListOptions{}); err != nil {
				// It may have been deleted in between, with its bound token.
				if _, gone := c.Client.CoreV1().Pods(ns).Get(ctx, p.Name, metav1.GetOptions{}); apierrors.IsNotFound(gone) {
					continue
				}
				return err
			}
		}
		return nil
	}
}

// TestRotateToken replaces a token Secret under a Deployment that uses it all the
// time; then again, by the name of the first; and turns it into projected tokens.
func TestRotateToken(t *testing.T) {
	t.Parallel()
	c, r := openRotator(t)
	ctx := t.Context()
	ns := c.Namespace(t)
	enforceWorker(t, c, ns, "worker")
	old := string(tokenSecret(t, c, ns, "worker-token", "worker").Data["token"])
	deployment(t, c, ns, "web", "worker", "worker-token", true)
	b := newRotationBench(t, c, r)
	secretOf := func() string {
		t.Helper()
		o, err := c.Client.AppsV1().Deployments(ns).Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if v := o.Spec.Template.Spec.Volumes[0]; v.Secret != nil {
			return v.Secret.SecretName
		}
		return ""
	}
	plan := b.run(order(ns, "worker-token"), nil, podTokens(c, ns))
	t.Logf("%+v", plan.History)
	first := secretOf()
	if !strings.HasPrefix(first, "worker-token-") {
		t.Fatalf("it refers to %s", first)
	}
	s, err := c.Client.CoreV1().Secrets(ns).Get(ctx, first, metav1.GetOptions{})
	if err != nil || s.Labels["team"] != "shop" || s.Annotations[annotationBase] != "worker-token" {
		t.Errorf("%v, %v", s, err)
	}
	ended(t, c, old)
	if text, _ := json.Marshal(plan); bytes.Contains(text, []byte("eyJ")) {
		t.Error("the plan holds a token")
	}

	// The configuration goes on naming the first. This time the process dies with
	// what it had issued.
	var lost []connector.Issued
	b.dies = func(i connector.Issued) {
		b.dies = nil
		lost = append(lost, i)
		panic(errDied)
	}
	b.run(order(ns, "worker-token"), nil, podTokens(c, ns))
	second := secretOf()
	if second == first || len(lost) != 1 || second == lost[0].Ref.Name || !strings.HasPrefix(second, "worker-token-") {
		t.Errorf("%s after %s and %v", second, first, lost)
	}
	for _, name := range []string{first, lost[0].Ref.Name} {
		if _, err := c.Client.CoreV1().Secrets(ns).Get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("%s: %v", name, err)
		}
	}

	projected := order(ns, "worker-token")
	projected.As = asProjected
	if _, err := r.PlanRotation(ctx, projected); remit.KindOf(err) != remit.Unsupported {
		t.Errorf("a token in a variable is turned into a file: %v", err)
	}
	if _, err := c.Client.AppsV1().Deployments(ns).Patch(ctx, "web", "application/json-patch+json", []byte(`[{"op":"remove","path":"/spec/template/spec/containers/0/env"}]`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	b.run(projected, nil, podTokens(c, ns))
	if now := secretOf(); now != "" {
		t.Errorf("it mounts %s still", now)
	}
	if _, err := c.Client.CoreV1().Secrets(ns).Get(ctx, second, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("%v", err)
	}
}

// TestRotateBoundToken turns a token without an end into one that has one, in a
// Secret that a client reads again and again.
func TestRotateBoundToken(t *testing.T) {
	t.Parallel()
	c, r := openRotator(t)
	ns := c.Namespace(t)
	enforceWorker(t, c, ns, "worker")
	old := tokenSecret(t, c, ns, "worker-token", "worker").Data["token"]
	secrets := c.Client.CoreV1().Secrets(ns)
	if _, err := secrets.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "ci"}, Data: map[string][]byte{"token": old}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	o := order(ns, "worker-token")
	o.As, o.Lifetime = asBound, time.Hour
	b := newRotationBench(t, c, r)
	use := func(ctx context.Context) error {
		s, err := secrets.Get(ctx, "ci", metav1.GetOptions{})
		if err != nil {
			return err
		}
		_, err = whoIs(ctx, c.TokenConfig(string(s.Data["token"])))
		return err
	}
	plan := b.run(o, []string{"secret:" + ns + "/ci#token"}, use)
	// The next one is as the last, by the name of the first, and after a crash.
	dies := 2
	b.dies = func(connector.Issued) {
		if dies--; dies >= 0 {
			panic(errDied)
		}
	}
	o.As = ""
	next := b.run(o, []string{"secret:" + ns + "/ci#token"}, use)
	if next.Steps[0].Tries != 3 || string(plan.Steps[0].After) == string(next.Steps[0].After) {
		t.Errorf("%d tries, %s", next.Steps[0].Tries, next.Steps[0].After)
	}
	all, err := secrets.List(t.Context(), metav1.ListOptions{})
	if err != nil || len(all.Items) != 2 { // the Secret of the client, and the one to which the token is bound
		t.Errorf("%d Secrets, %v", len(all.Items), err)
	}
	// It cannot be undone before its end, and says why.
	if _, err := b.Undo(t.Context(), next.ID, "bob"); remit.KindOf(err) != remit.Conflict {
		t.Errorf("%v", err)
	}
}

// TestRotateCertificate replaces a client certificate, freezes the old one and waits
// for its end.
func TestRotateCertificate(t *testing.T) {
	t.Parallel()
	c, r := openRotator(t)
	ctx := t.Context()
	ns := c.Namespace(t)
	certificateSecret(t, c, ns, "robot", "robot-"+ns)
	bind(t, c, "robot-"+ns, "cluster-admin", rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "User", Name: "robot-" + ns})
	if err := r.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	secrets := c.Client.CoreV1().Secrets(ns)
	read := func(ctx context.Context) (*kubernetes.Clientset, error) {
		s, err := secrets.Get(ctx, "robot", metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		return kubernetes.NewForConfig(certificateConfig(c, s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey]))
	}
	old, err := read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	writes := func(ctx context.Context, client *kubernetes.Clientset) error {
		_, err := client.CoreV1().ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "w-"}}, metav1.CreateOptions{})
		return err
	}
	o := order(ns, "robot")
	o.Freeze = true
	b := newRotationBench(t, c, r)
	// When the plan waits for the end of the old one, that comes.
	var ahead atomic.Int64 // the plan asks for the time while the client uses what it has
	frozen := false
	b.clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	plan, err := r.PlanRotation(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	p, err := readRotationPlan(plan.Plan)
	if err != nil {
		t.Fatal(err)
	}
	done := b.run(o, nil, func(ctx context.Context) error {
		client, err := read(ctx)
		if err != nil {
			return err
		}
		if err := writes(ctx, client); err != nil {
			return err
		}
		if !frozen {
			if err := writes(ctx, old); err != nil && strings.Contains(err.Error(), "Remit has contained") {
				frozen = true
				ahead.Store(int64(time.Until(p.Certificate.Ends) + time.Minute))
			}
		}
		return nil
	})
	if !frozen {
		t.Error("the old certificate was never refused")
	}
	t.Logf("%+v", done.History)
}

// TestRotateBootstrapToken replaces a token with which nodes join.
func TestRotateBootstrapToken(t *testing.T) {
	t.Parallel()
	c, r := openRotator(t)
	ns := c.Namespace(t)
	token := newBootstrapSecret(t, c, "fedcba")
	secrets := c.Client.CoreV1().Secrets(ns)
	if _, err := secrets.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "join"}, Data: map[string][]byte{"token": []byte(token)}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	b := newRotationBench(t, c, r)
	b.run(order("kube-system", "bootstrap-token-fedcba"), []string{"secret:" + ns + "/join#token"}, func(ctx context.Context) error {
		s, err := secrets.Get(ctx, "join", metav1.GetOptions{})
		if err != nil {
			return err
		}
		_, err = whoIs(ctx, c.TokenConfig(string(s.Data["token"])))
		return err
	})
	ended(t, c, token)
}

// TestRotatorManifest holds that the manifest and the code ask for the same rights.
func TestRotatorManifest(t *testing.T) {
	text, err := os.ReadFile("../../deploy/kubernetes/rotator.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var role rbacv1.ClusterRole
	if err := yaml.UnmarshalStrict(text, &role); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(role.Rules, RotatorRights()) {
		t.Errorf("deploy/kubernetes/rotator.yaml has\n%+v\nand the code\n%+v", role.Rules, RotatorRights())
	}
}
