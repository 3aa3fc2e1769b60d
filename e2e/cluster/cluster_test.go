//go:build unix

package cluster_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"remit/e2e/cluster"
	"remit/e2e/process"
)

const credentialID = "authentication.kubernetes.io/credential-id"

// auditEvent is what the tests read of an audit event.
type auditEvent struct {
	Stage string
	Verb  string
	User  struct {
		Username string
		Extra    map[string][]string
	}
	ObjectRef   struct{ Resource, Subresource, Namespace, Name string }
	SourceIPs   []string
	Annotations map[string]string
}

func auditEvents(t *testing.T, c *cluster.Cluster) []auditEvent {
	t.Helper()
	data, err := os.ReadFile(c.AuditLog)
	if err != nil {
		t.Fatal(err)
	}
	var events []auditEvent
	for line := range bytes.Lines(data) {
		var e auditEvent
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // still being written
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("audit event %s: %v", line, err)
		}
		events = append(events, e)
	}
	return events
}

func client(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	k, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// until waits for something that the cluster does in its own time.
func until(t *testing.T, what string, done func() (bool, error)) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		ok, err := done()
		if err != nil {
			t.Fatalf("wait until %s: %v", what, err)
		}
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("wait until %s: not within 30 s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func newNamespace(t *testing.T, c *cluster.Cluster, name string) {
	t.Helper()
	ctx := t.Context()
	_, err := c.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the namespace has its service account", func() (bool, error) {
		_, err := c.Client.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, ignoreNotFound(err)
	})
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func pod(namespace, name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example.org/app:1"}}},
	}
}

// grant binds a new role with one rule to a service account.
func grant(t *testing.T, c *cluster.Cluster, namespace, serviceAccount string, rule rbacv1.PolicyRule) {
	t.Helper()
	ctx := t.Context()
	meta := metav1.ObjectMeta{Namespace: namespace, Name: "granted-" + serviceAccount}
	_, err := c.Client.RbacV1().Roles(namespace).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{rule}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Client.RbacV1().RoleBindings(namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: serviceAccount}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// TestCluster has its parts share one cluster, as most tests should.
func TestCluster(t *testing.T) {
	t.Parallel()
	start := time.Now()
	c := cluster.Start(t, func(o *cluster.Options) { o.Nodes = 2 })
	t.Logf("started in %v", time.Since(start).Round(time.Millisecond))

	for _, part := range []struct {
		name string
		run  func(*testing.T, *cluster.Cluster)
	}{
		{"tells the version that is pinned", testVersion},
		{"serves kubectl", testKubectl},
		{"fills legacy token secrets", testLegacyToken},
		{"signs approved certificate requests", testSigning},
		{"aggregates cluster roles", testAggregation},
		{"has bound tokens that end with their pod", testBoundToken},
		{"records the lineage of tokens", testLineage},
		{"records source addresses", testSourceAddress},
		{"enforces admission policies", testAdmissionPolicy},
		{"confines nodes", testNodeRestriction},
		{"runs the pods of deployments", testDeployment},
		{"lets a test play the kubelet", testNode},
	} {
		t.Run(part.name, func(t *testing.T) {
			t.Parallel()
			part.run(t, c)
		})
	}
}

func testVersion(t *testing.T, c *cluster.Cluster) {
	goMod, err := os.ReadFile("../kubeapi/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Client.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if want := "k8s.io/kubernetes " + v.GitVersion; !strings.Contains(string(goMod), want) {
		t.Errorf("go.mod does not contain %q", want)
	}
	if got := v.Major + "." + v.Minor; !strings.HasPrefix(v.GitVersion, "v"+got+".") {
		t.Errorf("version %s, but major.minor %s", v.GitVersion, got)
	}
}

func testKubectl(t *testing.T, c *cluster.Cluster) {
	out, err := exec.CommandContext(t.Context(), c.Binaries.Kubectl, "--kubeconfig", c.Kubeconfig, "auth", "whoami").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "kubernetes-admin") || !strings.Contains(string(out), "system:masters") {
		t.Errorf("whoami: %s", out)
	}
}

func testLegacyToken(t *testing.T, c *cluster.Cluster) {
	ctx := t.Context()
	newNamespace(t, c, "legacy")
	if _, err := c.Client.CoreV1().ServiceAccounts("legacy").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "old"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := c.Client.CoreV1().Secrets("legacy").Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "old-token", Annotations: map[string]string{corev1.ServiceAccountNameKey: "old"}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var secret *corev1.Secret
	until(t, "the secret has a token", func() (bool, error) {
		secret, err = c.Client.CoreV1().Secrets("legacy").Get(ctx, "old-token", metav1.GetOptions{})
		return err == nil && len(secret.Data["token"]) > 0, err
	})
	if !bytes.Equal(bytes.TrimSpace(secret.Data["ca.crt"]), bytes.TrimSpace(c.CA)) {
		t.Error("the secret's ca.crt is not the cluster's CA")
	}
	_, err = client(t, c.TokenConfig(string(secret.Data["token"]))).CoreV1().Pods("legacy").List(ctx, metav1.ListOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "system:serviceaccount:legacy:old") {
		t.Errorf("list with the legacy token: %v", err)
	}
	for _, e := range auditEvents(t, c) {
		if e.User.Username == "system:serviceaccount:legacy:old" && e.Annotations["authentication.k8s.io/legacy-token"] != "" {
			return
		}
	}
	t.Error("no audit event says that a legacy token was used")
}

func testSigning(t *testing.T, c *cluster.Cluster) {
	ctx := t.Context()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "ana", Organization: []string{"payments"}},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	requests := c.Client.CertificatesV1().CertificateSigningRequests()
	r, err := requests.Create(ctx, &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "ana"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			SignerName: certificatesv1.KubeAPIServerClientSignerName,
			Usages:     []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Test",
	})
	if _, err := requests.UpdateApproval(ctx, "ana", r, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "the approved request is signed", func() (bool, error) {
		r, err = requests.Get(ctx, "ana", metav1.GetOptions{})
		return err == nil && len(r.Status.Certificate) > 0, err
	})
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	config := c.TokenConfig("")
	config.CertData = r.Status.Certificate
	config.KeyData = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	_, err = client(t, config).CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `"ana"`) {
		t.Errorf("list with the signed certificate: %v", err)
	}
}

func testAggregation(t *testing.T, c *cluster.Cluster) {
	ctx := t.Context()
	rule := rbacv1.PolicyRule{APIGroups: []string{"example.org"}, Resources: []string{"widgets"}, Verbs: []string{"get"}}
	_, err := c.Client.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "widgets", Labels: map[string]string{"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
		Rules:      []rbacv1.PolicyRule{rule},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the role view has the new rule", func() (bool, error) {
		view, err := c.Client.RbacV1().ClusterRoles().Get(ctx, "view", metav1.GetOptions{})
		return err == nil && slices.ContainsFunc(view.Rules, func(r rbacv1.PolicyRule) bool {
			return slices.Equal(r.Resources, rule.Resources)
		}), err
	})
}

func testBoundToken(t *testing.T, c *cluster.Cluster) {
	ctx := t.Context()
	newNamespace(t, c, "bound")
	if _, err := c.Client.CoreV1().Pods("bound").Create(ctx, pod("bound", "one"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pods, err := c.Kubelet.WaitPods(ctx, "bound", "", 1)
	if err != nil {
		t.Fatal(err)
	}
	k := client(t, pods[0].Config())
	if _, err := k.CoreV1().Pods("bound").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Fatalf("list with the pod's token: %v", err)
	}
	if err := c.Client.CoreV1().Pods("bound").Delete(ctx, "one", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Kubelet.WaitPods(ctx, "bound", "", 0); err != nil {
		t.Fatal(err)
	}
	until(t, "the token is refused", func() (bool, error) {
		_, err := k.CoreV1().Pods("bound").List(ctx, metav1.ListOptions{})
		if apierrors.IsForbidden(err) {
			return false, nil
		}
		return apierrors.IsUnauthorized(err), err2(err, apierrors.IsUnauthorized)
	})
}

// err2 is err unless it is the expected one.
func err2(err error, expected func(error) bool) error {
	if expected(err) {
		return nil
	}
	return err
}

func testLineage(t *testing.T, c *cluster.Cluster) {
	ctx := t.Context()
	newNamespace(t, c, "lineage")
	grant(t, c, "lineage", "default", rbacv1.PolicyRule{
		APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, Verbs: []string{"create"},
	})
	parent, err := c.ServiceAccountConfig(ctx, "lineage", "default")
	if err != nil {
		t.Fatal(err)
	}
	minted, err := cluster.Mint(ctx, client(t, parent), "lineage", "default", cluster.TokenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, c.TokenConfig(minted.Token)).CoreV1().Pods("lineage").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Fatalf("list with the minted token: %v", err)
	}
	// administrator's certificate -> parent -> child
	var root, parentID, childID string
	issued := map[string]string{}
	for _, e := range auditEvents(t, c) {
		if e.Stage != "ResponseComplete" || e.ObjectRef.Namespace != "lineage" {
			continue
		}
		id := strings.Join(e.User.Extra[credentialID], ",")
		switch {
		case e.ObjectRef.Subresource == "token":
			issued[e.Annotations["authentication.kubernetes.io/issued-credential-id"]] = id
			if e.User.Username == "kubernetes-admin" {
				root = id
			} else {
				parentID = id
			}
		case e.Verb == "list" && e.ObjectRef.Resource == "pods" && e.User.Username == "system:serviceaccount:lineage:default":
			childID = id
		}
	}
	if !strings.HasPrefix(root, "X509SHA256=") || !strings.HasPrefix(parentID, "JTI=") || !strings.HasPrefix(childID, "JTI=") {
		t.Errorf("credentials: root %q, parent %q, child %q", root, parentID, childID)
	}
	if issued[parentID] != root || issued[childID] != parentID {
		t.Errorf("root %q, parent %q, child %q, but issued: %q", root, parentID, childID, issued)
	}
}

func testSourceAddress(t *testing.T, c *cluster.Cluster) {
	config := cluster.FromAddress(c.Config("eve"), "127.66.6.6")
	if _, err := client(t, config).CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Fatalf("list as eve: %v", err)
	}
	for _, e := range auditEvents(t, c) {
		if e.User.Username == "eve" {
			if !slices.Equal(e.SourceIPs, []string{"127.66.6.6"}) {
				t.Errorf("source addresses %q", e.SourceIPs)
			}
			return
		}
	}
	t.Error("no audit event of eve")
}

func testAdmissionPolicy(t *testing.T, c *cluster.Cluster) {
	ctx := t.Context()
	newNamespace(t, c, "guarded")
	api := c.Client.AdmissionregistrationV1()
	if _, err := api.ValidatingAdmissionPolicies().Create(ctx, &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "no-config"},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
				},
			}}},
			Validations: []admissionv1.Validation{{Expression: `object.metadata.namespace != "guarded"`}},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.ValidatingAdmissionPolicyBindings().Create(ctx, &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "no-config"},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: "no-config", ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	i := 0
	until(t, "the policy refuses", func() (bool, error) {
		i++
		_, err := c.Client.CoreV1().ConfigMaps("guarded").Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: "c" + strconv.Itoa(i)},
		}, metav1.CreateOptions{})
		return apierrors.IsInvalid(err), err2(err, apierrors.IsInvalid)
	})
}

func testNodeRestriction(t *testing.T, c *cluster.Cluster) {
	ctx := t.Context()
	node := c.Kubelet.Nodes[0]
	_, err := node.Client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "another"}}, metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("a node makes another node: %v", err)
	}
	if _, err := node.Client.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a node lists secrets: %v", err)
	}
}

func testDeployment(t *testing.T, c *cluster.Cluster) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	newNamespace(t, c, "web")
	replicas, app := int32(3), map[string]string{"app": "web"}
	deployments := c.Client.AppsV1().Deployments("web")
	start := time.Now()
	_, err := deployments.Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: app},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app}, Spec: pod("", "").Spec},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pods, err := c.Kubelet.WaitPods(ctx, "web", "app=web", 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("3 pods run after %v", time.Since(start).Round(time.Millisecond))
	until(t, "the deployment is available", func() (bool, error) {
		d, err := deployments.Get(ctx, "web", metav1.GetOptions{})
		return err == nil && d.Status.AvailableReplicas == 3, err
	})
	nodes, ips := map[string]bool{}, map[string]bool{}
	for _, p := range pods {
		nodes[p.Node.Name], ips[p.IP] = true, true
	}
	if len(ips) != 3 || len(nodes) != 2 {
		t.Errorf("3 pods have %d addresses on %d nodes", len(ips), len(nodes))
	}

	// A request as a pod is attributed to the pod, and its token to its node.
	p := pods[0]
	if _, err := client(t, p.Config()).CoreV1().Secrets("web").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Fatalf("list as a pod: %v", err)
	}
	var used auditEvent
	mintedBy := map[string]string{}
	for _, e := range auditEvents(t, c) {
		if id := e.Annotations["authentication.kubernetes.io/issued-credential-id"]; id != "" {
			mintedBy[id] = e.User.Username
		}
		if e.User.Username == "system:serviceaccount:web:default" && e.ObjectRef.Resource == "secrets" {
			used = e
		}
	}
	if got := used.User.Extra["authentication.kubernetes.io/pod-name"]; !slices.Equal(got, []string{p.Name}) {
		t.Errorf("pod name %q in the audit log, want %s", got, p.Name)
	}
	if !slices.Equal(used.SourceIPs, []string{p.IP}) {
		t.Errorf("source addresses %q in the audit log, want %s", used.SourceIPs, p.IP)
	}
	if got, want := mintedBy[strings.Join(used.User.Extra[credentialID], "")], "system:node:"+p.Node.Name; got != want {
		t.Errorf("the pod's token was minted by %q, want %s", got, want)
	}
	if err := deployments.Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Kubelet.WaitPods(ctx, "web", "", 0); err != nil {
		t.Fatal(err)
	}
}

// testNode takes a pod through its life by hand: a pod with another scheduler
// is left alone by Kubelet until it is bound, so the node is one that Kubelet
// does not run.
func testNode(t *testing.T, c *cluster.Cluster) {
	ctx := t.Context()
	newNamespace(t, c, "manual")
	node, err := c.AddNode(ctx, "manual-node", "127.9.9.9")
	if err != nil {
		t.Fatal(err)
	}
	p := pod("manual", "job")
	p.Spec.SchedulerName = "by-hand"
	p.Spec.RestartPolicy = corev1.RestartPolicyNever
	pods := c.Client.CoreV1().Pods("manual")
	if _, err := pods.Create(ctx, p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := node.Bind(ctx, "manual", "job"); err != nil {
		t.Fatal(err)
	}
	token, err := node.PodToken(ctx, "manual", "job", cluster.TokenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, c.TokenConfig(token.Token)).CoreV1().Pods("manual").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("list with the pod's token: %v", err)
	}
	phase := func(want corev1.PodPhase) {
		t.Helper()
		got, err := pods.Get(ctx, "job", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got.Status.Phase != want || got.Status.PodIP != "127.9.9.10" || got.Spec.NodeName != "manual-node" {
			t.Errorf("phase %s, address %s, node %s", got.Status.Phase, got.Status.PodIP, got.Spec.NodeName)
		}
	}
	if err := node.Run(ctx, "manual", "job", "127.9.9.10"); err != nil {
		t.Fatal(err)
	}
	phase(corev1.PodRunning)
	if err := node.Finish(ctx, "manual", "job", corev1.PodSucceeded); err != nil {
		t.Fatal(err)
	}
	phase(corev1.PodSucceeded)
	if err := node.Remove(ctx, "manual", "job"); err != nil {
		t.Fatal(err)
	}
	if _, err := pods.Get(ctx, "job", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("get the removed pod: %v", err)
	}
}

func TestSharedClusterHasNamespacesForItsTests(t *testing.T) {
	t.Parallel()
	c := cluster.Shared(t)
	if cluster.Shared(t) != c {
		t.Error("two shared clusters in one process")
	}
	names := map[string]bool{}
	t.Run("", func(t *testing.T) {
		for range 2 {
			name := c.Namespace(t)
			names[name] = true
			if _, err := c.Client.CoreV1().Pods(name).Create(t.Context(), pod(name, "one"), metav1.CreateOptions{}); err != nil {
				t.Error(err)
			}
			if _, err := c.Kubelet.WaitPods(t.Context(), name, "", 1); err != nil {
				t.Error(err)
			}
		}
	})
	if len(names) != 2 {
		t.Errorf("namespaces %v", names)
	}
	for name := range names {
		until(t, "the namespace ends with its test", func() (bool, error) {
			_, err := c.Client.CoreV1().Namespaces().Get(t.Context(), name, metav1.GetOptions{})
			return apierrors.IsNotFound(err), ignoreNotFound(err)
		})
	}
}

func TestClustersAreIndependent(t *testing.T) {
	t.Parallel()
	clusters := make(chan *cluster.Cluster, 2)
	t.Run("start", func(t *testing.T) {
		for range 2 {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				c, err := cluster.Run(t.Context(), cluster.Options{NoControllerManager: true})
				if err != nil {
					t.Fatal(err)
				}
				clusters <- c
			})
		}
	})
	close(clusters)
	var both []*cluster.Cluster
	for c := range clusters {
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
		both = append(both, c)
	}
	if len(both) != 2 {
		t.Fatal("a cluster did not start")
	}
	a, b := both[0], both[1]
	if a.URL == b.URL || a.Dir() == b.Dir() {
		t.Fatalf("both are at %s in %s", a.URL, a.Dir())
	}
	ctx := t.Context()
	if _, err := a.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "only-a"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Client.CoreV1().Namespaces().Get(ctx, "only-a", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the other cluster has it too: %v", err)
	}
	stranger := a.Config("kubernetes-admin", "system:masters")
	stranger.Host, stranger.CAData = b.URL, b.CA
	if _, err := client(t, stranger).CoreV1().Namespaces().List(ctx, metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("one cluster's administrator at the other: %v", err)
	}
}

func TestAuditWebhook(t *testing.T) {
	t.Parallel()
	events := make(chan string, 10000)
	receiver := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer webhook-token" {
			t.Errorf("authorization %q", r.Header.Get("Authorization"))
		}
		var list struct {
			Kind  string
			Items []struct {
				User struct{ Username string }
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&list); err != nil || list.Kind != "EventList" {
			t.Errorf("kind %q: %v", list.Kind, err)
		}
		for _, item := range list.Items {
			select {
			case events <- item.User.Username:
			default:
			}
		}
	}))
	defer receiver.Close()
	c := cluster.Start(t, func(o *cluster.Options) {
		o.NoControllerManager = true
		o.AuditWebhookURL = receiver.URL + "/audit"
		o.AuditWebhookCA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: receiver.Certificate().Raw})
		o.AuditWebhookToken = "webhook-token"
		o.AuditWebhookDelay = 100 * time.Millisecond
		o.AuditPolicy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Request\n  users: [ben]\n- level: None\n"
	})
	_, _ = client(t, c.Config("ben")).CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
	select {
	case user := <-events:
		if user != "ben" {
			t.Errorf("an event of %q, which the policy leaves out", user)
		}
	case <-time.After(20 * time.Second):
		t.Error("no event arrived within 20 s")
	}
}

// TestAuthorizationConfig puts an authorizer of the test's own before RBAC,
// which is what a self-managed cluster offers to refuse one credential.
func TestAuthorizationConfig(t *testing.T) {
	t.Parallel()
	authorizer := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Spec struct{ User string }
		}
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, `{"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview","status":{"allowed":false,"denied":%t,"reason":"cut off"}}`,
			review.Spec.User == "mallory")
	}))
	defer authorizer.Close()
	kubeconfig := filepath.Join(t.TempDir(), "authorizer.kubeconfig")
	if err := cluster.WriteKubeconfig(kubeconfig, &rest.Config{Host: authorizer.URL, TLSClientConfig: rest.TLSClientConfig{
		CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authorizer.Certificate().Raw}),
	}}); err != nil {
		t.Fatal(err)
	}
	c := cluster.Start(t, func(o *cluster.Options) {
		o.NoControllerManager = true
		o.AuthorizationConfig = fmt.Sprintf(`apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- type: Webhook
  name: containment
  webhook:
    timeout: 3s
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: NoOpinion
    authorizedTTL: 1s
    unauthorizedTTL: 1s
    connectionInfo:
      type: KubeConfigFile
      kubeConfigFile: %s
    matchConditions:
    - expression: "!('system:masters' in request.groups)"
- type: Node
  name: node
- type: RBAC
  name: rbac
`, kubeconfig)
	})
	_, err := client(t, c.Config("mallory")).CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("list as mallory: %v", err)
	}
}

func TestAPIServerStopsAndStarts(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	ctx := t.Context()
	newNamespace(t, c, "before")
	c.StopAPIServer()
	if _, err := c.Client.CoreV1().Namespaces().Get(ctx, "before", metav1.GetOptions{}); err == nil || apierrors.ReasonForError(err) != metav1.StatusReasonUnknown {
		t.Errorf("a request to a stopped API server: %v", err)
	}
	if err := c.StartAPIServer(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client.CoreV1().Namespaces().Get(ctx, "before", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	newNamespace(t, c, "after") // the controller manager works on
}

func TestRunTellsWhyItFailed(t *testing.T) {
	t.Parallel()
	_, err := cluster.Run(t.Context(), cluster.Options{APIServerArgs: []string{"--no-such-flag"}})
	if err == nil || !strings.Contains(err.Error(), "kube-apiserver ended") || !strings.Contains(err.Error(), "no-such-flag") {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("no more time"))
	_, err = cluster.Run(ctx, cluster.Options{})
	if err == nil || !strings.Contains(err.Error(), "no more time") {
		t.Errorf("error %v", err)
	}
}

// TestNothingOutlivesAKilledParent kills a process that has a cluster, in a way
// it cannot react to.
func TestNothingOutlivesAKilledParent(t *testing.T) {
	t.Parallel()
	if os.Getenv("REMIT_E2E_CHILD") != "" {
		child(t)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNothingOutlivesAKilledParent$")
	cmd.Env = append(os.Environ(), "REMIT_E2E_CHILD=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var started struct {
		Dir  string
		Pids []int
	}
	if err := json.NewDecoder(out).Decode(&started); err != nil {
		t.Error(err)
	}
	if len(started.Pids) != 4 || started.Dir == "" { // guard, etcd, API server, controller manager
		t.Errorf("before the kill: %+v", started)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait() // says that it was killed
	start := time.Now()
	until(t, "nothing is left", func() (bool, error) {
		_, err := os.Stat(started.Dir)
		return errors.Is(err, os.ErrNotExist) && !slices.ContainsFunc(started.Pids, process.Alive), nil
	})
	t.Logf("gone %v after the kill", time.Since(start).Round(time.Millisecond))
}

// child is the process that is killed.
func child(t *testing.T) {
	c, err := cluster.Run(context.Background(), cluster.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(map[string]any{"dir": c.Dir(), "pids": c.Pids()}); err != nil {
		t.Error(err)
	}
	time.Sleep(time.Minute)
	t.Error("was not killed")
}
