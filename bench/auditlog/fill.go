package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"remit/e2e/cluster"
)

// town is a cluster in which everybody has something to do.
type town struct {
	cluster *cluster.Cluster
	pods    []*machine
	nodes   []*kubelet
	people  []*kubernetes.Clientset
	ci      *machine // a pipeline outside of the cluster
	probe   *kubernetes.Clientset
	rolled  atomic.Int64
	failed  atomic.Int64
}

// machine is a service account at work: the only pod of a Deployment, or
// something outside with a token.
type machine struct {
	pod    cluster.Pod
	seed   uint32
	config *rest.Config
	client *kubernetes.Clientset
	token  atomic.Pointer[string] // its kubelet renews it
	lease  sync.Mutex             // a process renews its lease once at a time
	steps  atomic.Int64
}

// kubelet is a node at work.
type kubelet struct {
	*cluster.Node
	client *kubernetes.Clientset
	lease  sync.Mutex
}

const (
	perNamespace = 15
	role         = "app"
	rolling      = 10 // Deployments that a pipeline rolls out again and again
)

var agents = [...]string{
	"manager/v0.0.0 (linux/amd64) kubernetes/$Format", "kube-state-metrics/v2.14.0 (linux/amd64) kube-state-metrics/21c9ae8",
	"cert-manager-controller/v1.17.1 (linux/amd64) cert-manager/1a2b3c4", "Go-http-client/2.0",
	"external-dns/v0.15.1 (linux/amd64) kubernetes/$Format", "argocd-application-controller/v2.14.4 (linux/amd64) kubernetes/9ff2f1c",
}

func namespace(i int) string { return fmt.Sprintf("team-%02d", i/perNamespace) }
func account(i int) string   { return fmt.Sprintf("app-%03d", i) }

// fill makes the accounts and their pods, and returns when all of these run.
func fill(ctx context.Context, c *cluster.Cluster, accounts int) (*town, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	t := &town{cluster: c}
	_, err := c.Client.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: role}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "list", "watch", "patch"}},
		{APIGroups: []string{""}, Resources: []string{"pods", "services", "serviceaccounts", "endpoints"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"create"}},
		{APIGroups: []string{"apps"}, Resources: []string{"deployments"}, Verbs: []string{"get", "list", "watch", "patch"}},
		{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"get", "create", "update"}},
	}}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	for i := 0; i < accounts; i += perNamespace {
		if err := t.makeNamespace(ctx, namespace(i)); err != nil {
			return nil, err
		}
	}
	group, making := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i := range accounts {
		group.Go(func() error { return t.makeAccount(making, namespace(i), account(i), "steady") })
	}
	for i := range rolling {
		group.Go(func() error { return t.makeAccount(making, namespace(0), fmt.Sprintf("web-%d", i), "rolling") })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	running, err := c.Kubelet.WaitPods(ctx, "", "tier=steady", accounts)
	if err != nil {
		return nil, err
	}
	for i, p := range running {
		m := &machine{pod: p, seed: rand.Uint32()}
		if err := m.open(p.Config(), agents[i%len(agents)]); err != nil {
			return nil, err
		}
		t.pods = append(t.pods, m)
	}
	for _, n := range c.Kubelet.Nodes {
		client, err := as(n.Config, "kubelet/v1.36.3 (linux/amd64) kubernetes/9ff2f1c")
		if err != nil {
			return nil, err
		}
		t.nodes = append(t.nodes, &kubelet{Node: n, client: client})
	}
	return t, t.outside(ctx)
}

// outside makes those who are not in the cluster.
func (t *town) outside(ctx context.Context) error {
	c := t.cluster
	for i, name := range []string{"alice", "bob", "carol"} {
		config := cluster.FromAddress(c.Config(name, "system:masters"), fmt.Sprintf("127.90.0.%d", 10+i))
		client, err := as(config, "kubectl/v1.36.3 (darwin/arm64) kubernetes/9ff2f1c")
		if err != nil {
			return err
		}
		t.people = append(t.people, client)
	}
	config, err := c.ServiceAccountConfig(ctx, namespace(0), "web-0")
	if err != nil {
		return err
	}
	t.ci = &machine{}
	if err := t.ci.open(cluster.FromAddress(config, "127.91.0.7"), "deploy/1.9 (linux/amd64) kubernetes/9ff2f1c"); err != nil {
		return err
	}
	t.probe, err = as(cluster.FromAddress(c.TokenConfig(""), "127.10.0.1"), "kube-probe/1.36")
	return err
}

// open makes the machine's client, with whatever token it has at the time.
func (m *machine) open(config *rest.Config, agent string) (err error) {
	config = rest.CopyConfig(config)
	token := config.BearerToken
	m.token.Store(&token)
	config.BearerToken, config.UserAgent = "", agent
	config.Wrap(func(inner http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			r = r.Clone(r.Context())
			r.Header.Set("Authorization", "Bearer "+*m.token.Load())
			return inner.RoundTrip(r)
		})
	})
	m.config = config
	m.client, err = kubernetes.NewForConfig(config)
	return err
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// as is a client with a user agent.
func as(config *rest.Config, agent string) (*kubernetes.Clientset, error) {
	config = rest.CopyConfig(config)
	config.UserAgent = agent
	return kubernetes.NewForConfig(config)
}

func (t *town) makeNamespace(ctx context.Context, name string) error {
	client := t.cluster.Client.CoreV1()
	if _, err := client.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	_, err := client.ConfigMaps(name).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "settings"}, Data: map[string]string{"level": "info"}}, metav1.CreateOptions{})
	return err
}

// makeAccount makes a service account, what it may do, its state and its
// Deployment; the pod is the controllers' work.
func (t *town) makeAccount(ctx context.Context, space, name, tier string) error {
	client := t.cluster.Client
	meta := metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name, "tier": tier}}
	if _, err := client.CoreV1().ServiceAccounts(space).Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{}); err != nil {
		return err
	}
	if _, err := client.RbacV1().RoleBindings(space).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: space, Name: name}},
	}, metav1.CreateOptions{}); err != nil {
		return err
	}
	if _, err := client.CoreV1().ConfigMaps(space).Create(ctx, &corev1.ConfigMap{ObjectMeta: meta}, metav1.CreateOptions{}); err != nil {
		return err
	}
	_, err := client.AppsV1().Deployments(space).Create(ctx, &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: meta.Labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: meta.Labels}, Spec: corev1.PodSpec{
			ServiceAccountName: name, Containers: []corev1.Container{{Name: "main", Image: "registry.example.com/" + name + ":1.0"}},
		}},
	}}, metav1.CreateOptions{})
	return err
}
