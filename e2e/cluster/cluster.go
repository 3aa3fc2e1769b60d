//go:build unix

// Package cluster starts real Kubernetes control planes for tests: etcd,
// kube-apiserver and kube-controller-manager, built from the versions that
// e2e/kubeapi pins, on loopback, in a temporary directory. They are set up as
// kubeadm does it: a CA for client certificates, authorization by Node and
// RBAC, NodeRestriction, bound service-account tokens, signed certificate
// requests, an audit log.
//
// There is no kubelet and no scheduler, since there are no containers to run;
// [Node] and [Kubelet] do over the API what those do, with their credentials.
//
// A test calls [Start]; anything else calls [Run] and Close. Clusters are
// independent of each other, and end with their process however it ends.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"remit/e2e/process"
)

const (
	serviceRange = "10.96.0.0/16"
	serviceIP    = "10.96.0.1"

	// Issuer is the issuer of the cluster's service-account tokens.
	Issuer = "https://kubernetes.default.svc.cluster.local"

	// startLimit bounds a start, without the build; a start takes a few
	// seconds, and many times that on a machine that is busy.
	startLimit = 3 * time.Minute
)

// MetadataAuditPolicy is the audit policy unless Options say otherwise: every
// request, at both stages that lineage needs, without bodies.
const MetadataAuditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: Metadata
`

// Options say how a cluster is to be. The zero value is a control plane with a
// controller manager and an audit log at level Metadata.
type Options struct {
	// AuditPolicy is an audit.k8s.io/v1 Policy; empty means MetadataAuditPolicy.
	AuditPolicy string

	// AuditWebhookURL, when set, makes the API server post its audit events
	// there as well, in batches, at the latest AuditWebhookDelay after the
	// first (0 means one second; Kubernetes' own default is 30). A receiver
	// with a certificate not known to the system needs AuditWebhookCA (PEM).
	// AuditWebhookToken is sent as a bearer token.
	AuditWebhookURL   string
	AuditWebhookCA    []byte
	AuditWebhookToken string
	AuditWebhookDelay time.Duration

	// AuthorizationConfig is an apiserver.config.k8s.io
	// AuthorizationConfiguration; it replaces Node,RBAC, so it has to name
	// those too. The API server follows changes of the file
	// Cluster.AuthorizationConfigFile.
	AuthorizationConfig string

	// NoControllerManager leaves the controller manager out: no default
	// service accounts, no garbage collection, no signed requests, no pods of
	// Deployments. It saves half a second and 100 MB.
	NoControllerManager bool

	// Nodes is how many nodes to add and to run pods on, see Kubelet; 0 means
	// none, and pods stay pending unless the test plays the kubelet itself.
	Nodes int

	// APIServerArgs and ControllerManagerArgs are added to the servers'
	// command lines, after ours; of a flag given twice the last counts.
	APIServerArgs         []string
	ControllerManagerArgs []string

	// Logf is told about the build and the waits; nil means standard error.
	Logf func(format string, args ...any)

	// freePort chooses the port; tests of this package set it.
	freePort func() (int, error)
}

// Cluster is a running cluster.
type Cluster struct {
	// URL is the address of the API server.
	URL string
	// CAFile is the certificate of the cluster's CA, CA the same in memory.
	CAFile string
	CA     []byte
	// Admin authenticates as kubernetes-admin in the group system:masters.
	// Copy it before changing it.
	Admin *rest.Config
	// Client is a client with Admin.
	Client *kubernetes.Clientset
	// Kubeconfig is the path of a kubeconfig for Admin.
	Kubeconfig string
	// AuditLog is the path of the audit log. An event is in it when the
	// request it is about has been answered.
	AuditLog string
	// AuthorizationConfigFile is the path of Options.AuthorizationConfig, or
	// empty.
	AuthorizationConfigFile string
	// Binaries are the programs the cluster runs, and kubectl of the same
	// version.
	Binaries Binaries
	// Kubelet runs pods on Options.Nodes nodes; it is nil if there are none.
	Kubelet *Kubelet

	ca    *authority
	keys  keyFiles
	group *process.Group
	opts  Options

	apiServer     *process.Process
	apiServerArgs []string

	mu        sync.Mutex
	scheduler *kubernetes.Clientset
	kubelets  []*Kubelet
	closed    bool
}

// Start starts a cluster that is closed at the end of the test, and fails the
// test if it cannot, or if a server had ended by itself meanwhile.
//
//	c := cluster.Start(t)
//	c := cluster.Start(t, func(o *cluster.Options) { o.Nodes = 2 })
func Start(t testing.TB, set ...func(*Options)) *Cluster {
	t.Helper()
	var o Options
	for _, f := range set {
		f(&o)
	}
	c, err := Run(t.Context(), o)
	if err != nil {
		t.Fatalf("start a Kubernetes cluster: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("the Kubernetes cluster of this test: %v", err)
		}
	})
	return c
}

var shared = sync.OnceValues(func() (*Cluster, error) {
	return Run(context.Background(), Options{Nodes: 2})
})

// Shared returns a cluster with two nodes that the tests of this test process
// share; the first call starts it, and it ends with the process. Tests that
// keep to namespaces of their own ([Cluster.Namespace]) can use it at the same
// time. What lies outside of namespaces needs a name that no other test takes,
// the same test under -count included.
func Shared(t testing.TB) *Cluster {
	t.Helper()
	c, err := shared()
	if err != nil {
		t.Fatalf("start the Kubernetes cluster of this test process: %v", err)
	}
	return c
}

// Namespace makes a namespace for a test, in which pods can be created. The end
// of the test deletes it.
func (c *Cluster) Namespace(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("the controller manager took longer than a minute"))
	defer cancel()
	ns, err := c.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("make a namespace: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err := c.Client.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("delete the namespace %s: %v", ns.Name, err)
		}
	})
	for !c.opts.NoControllerManager {
		_, err := c.Client.CoreV1().ServiceAccounts(ns.Name).Get(ctx, "default", metav1.GetOptions{})
		if err == nil {
			break
		}
		if !apierrors.IsNotFound(err) || ctx.Err() != nil {
			t.Fatalf("wait for the service account of the namespace %s: %v", ns.Name, errors.Join(err, context.Cause(ctx)))
		}
		time.Sleep(10 * time.Millisecond)
	}
	return ns.Name
}

// Run starts a cluster and returns when it answers and, with a controller
// manager, when pods can be created in the default namespace. The context
// bounds the start only; Close ends the cluster.
func Run(ctx context.Context, o Options) (_ *Cluster, err error) {
	if o.Logf == nil {
		o.Logf = func(format string, args ...any) { fmt.Fprintf(os.Stderr, "cluster: "+format+"\n", args...) }
	}
	if o.freePort == nil {
		o.freePort = process.FreePort
	}
	if o.AuditPolicy == "" {
		o.AuditPolicy = MetadataAuditPolicy
	}
	if o.AuditWebhookDelay == 0 {
		o.AuditWebhookDelay = time.Second
	}
	if o.Nodes > 0 && o.NoControllerManager {
		return nil, errors.New("Options.Nodes needs the controller manager, which makes the service accounts that pods run as")
	}
	binaries, err := Build(ctx, o.Logf)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("the cluster did not start within %v", startLimit))
	defer cancel()

	group, err := process.NewGroup("remit-cluster")
	if err != nil {
		return nil, err
	}
	c := &Cluster{Binaries: binaries, group: group, opts: o, AuditLog: group.Path("audit.log")}
	defer func() {
		if err != nil {
			_ = group.Close() // what ended by itself is in err already
		}
	}()

	etcd, err := c.startEtcd()
	if err != nil {
		return nil, err
	}
	// While etcd starts, the keys are made.
	if c.ca, err = newAuthority(); err != nil {
		return nil, err
	}
	if c.keys, err = writeKeys(group.Path, c.ca); err != nil {
		return nil, err
	}
	c.CA, c.CAFile = c.ca.pem, c.keys.caCert
	// An API server that finds no etcd tries again only after a second.
	if err := etcd.Wait(ctx, c.etcdListens); err != nil {
		return nil, err
	}
	if err := c.startAPIServer(ctx); err != nil {
		return nil, err
	}
	if !o.NoControllerManager {
		if err := c.startControllerManager(ctx); err != nil {
			return nil, err
		}
	}
	if o.Nodes > 0 {
		if c.Kubelet, err = c.StartKubelet(ctx, o.Nodes); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Close ends the cluster and removes its directory. Its error says which
// servers had ended by themselves before. Further calls do nothing.
func (c *Cluster) Close() error {
	c.mu.Lock()
	closed, kubelets := c.closed, c.kubelets
	c.closed = true
	c.mu.Unlock()
	if closed {
		return nil
	}
	for _, k := range kubelets {
		k.stop()
	}
	return c.group.Close()
}

// Dir is the cluster's temporary directory: keys, logs, etcd's data.
func (c *Cluster) Dir() string { return c.group.Dir() }

// Pids are the processes of the cluster.
func (c *Cluster) Pids() []int { return c.group.Pids() }

// startEtcd starts etcd on a socket, so that it needs no port. Its data need
// not survive a power cut: without fsync a start takes half the time and a
// slow disk does not make the API server time out.
func (c *Cluster) startEtcd() (*process.Process, error) {
	// Nobody connects to the peer address; it only has to agree with itself.
	const peer = "http://127.0.0.1:1"
	return c.group.Start(process.Command{
		Name: "etcd",
		Path: c.Binaries.Etcd,
		Args: []string{
			"--data-dir=" + c.group.Path("etcd"),
			"--listen-client-urls=" + c.etcdURL(),
			"--advertise-client-urls=http://127.0.0.1:1", // unix is refused here
			"--listen-peer-urls=unix://peer.sock:1",      // a file in the working directory
			"--initial-advertise-peer-urls=" + peer,
			"--initial-cluster=default=" + peer,
			"--unsafe-no-fsync",
			"--log-level=warn",
			// There is nobody to wait for in an election.
			"--heartbeat-interval=50",
			"--election-timeout=250",
		},
		Env: cleanEnv("ETCD_"),
	})
}

func (c *Cluster) etcdSocket() string { return c.group.Path("etcd.sock") }
func (c *Cluster) etcdURL() string    { return "unix://" + c.etcdSocket() }

func (c *Cluster) etcdListens(ctx context.Context) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.etcdSocket())
	if err != nil {
		return err
	}
	return conn.Close()
}

// startAPIServer starts the API server on a free port and waits until it is
// ready. Between our choice of the port and its use another process may take
// it: then another port is tried.
func (c *Cluster) startAPIServer(ctx context.Context) error {
	args, err := c.makeAPIServerArgs()
	if err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		port, err := c.opts.freePort()
		if err != nil {
			return err
		}
		c.URL = "https://127.0.0.1:" + strconv.Itoa(port)
		if err := c.makeAdmin(); err != nil {
			return err
		}
		// On the log of the last attempt alone the next decision is made.
		if err := os.Remove(c.group.Path("kube-apiserver.log")); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("begin a new log for the API server: %w", err)
		}
		c.apiServerArgs = append(args[:len(args):len(args)], "--secure-port="+strconv.Itoa(port))
		err = c.launchAPIServer(ctx)
		if err == nil || attempt == 5 || !strings.Contains(err.Error(), "address already in use") {
			return err
		}
		c.apiServer.Kill() // it has ended: that is no error any more
	}
}

func (c *Cluster) launchAPIServer(ctx context.Context) error {
	p, err := c.group.Start(process.Command{Name: "kube-apiserver", Path: c.Binaries.APIServer, Args: c.apiServerArgs})
	if err != nil {
		return err
	}
	c.apiServer = p
	client, err := rest.HTTPClientFor(c.Admin)
	if err != nil {
		return fmt.Errorf("make a client for the API server: %w", err)
	}
	defer client.CloseIdleConnections()
	return p.Wait(ctx, func(ctx context.Context) error { return getReady(ctx, client, c.URL) })
}

// StopAPIServer ends the API server, as an upgrade or a crash does: requests
// fail and watches break. The cluster keeps its data.
func (c *Cluster) StopAPIServer() { c.apiServer.Kill() }

// StartAPIServer starts the API server again at the same address, after
// StopAPIServer, and returns when it is ready.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("the API server did not start within %v", startLimit))
	defer cancel()
	return c.launchAPIServer(ctx)
}

func (c *Cluster) makeAPIServerArgs() ([]string, error) {
	o := c.opts
	policy := c.group.Path("audit-policy.yaml")
	if err := os.WriteFile(policy, []byte(o.AuditPolicy), 0o600); err != nil {
		return nil, fmt.Errorf("write the audit policy: %w", err)
	}
	args := []string{
		"--etcd-servers=" + c.etcdURL(),
		"--bind-address=127.0.0.1",
		// There is no other API server to tell about this one, and Kubernetes
		// refuses a loopback address in Endpoints.
		"--advertise-address=127.0.0.1",
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=" + serviceRange,
		"--tls-cert-file=" + c.keys.serverCert,
		"--tls-private-key-file=" + c.keys.serverKey,
		"--client-ca-file=" + c.keys.caCert,
		"--service-account-issuer=" + Issuer,
		"--service-account-key-file=" + c.keys.tokenPublic,
		"--service-account-signing-key-file=" + c.keys.tokenKey,
		"--enable-admission-plugins=NodeRestriction",
		"--enable-bootstrap-token-auth=true",
		"--allow-privileged=true",
		"--audit-policy-file=" + policy,
		"--audit-log-path=" + c.AuditLog,
		"--audit-log-mode=blocking",
		"--audit-log-maxsize=4096", // never rotated under a test's eyes
	}
	if o.AuthorizationConfig == "" {
		args = append(args, "--authorization-mode=Node,RBAC")
	} else {
		c.AuthorizationConfigFile = c.group.Path("authorization-config.yaml")
		if err := os.WriteFile(c.AuthorizationConfigFile, []byte(o.AuthorizationConfig), 0o600); err != nil {
			return nil, fmt.Errorf("write the authorization configuration: %w", err)
		}
		args = append(args, "--authorization-config="+c.AuthorizationConfigFile)
	}
	if o.AuditWebhookURL != "" {
		file := c.group.Path("audit-webhook.kubeconfig")
		if err := writeKubeconfig(file, &rest.Config{
			Host:            o.AuditWebhookURL,
			BearerToken:     o.AuditWebhookToken,
			TLSClientConfig: rest.TLSClientConfig{CAData: o.AuditWebhookCA},
		}); err != nil {
			return nil, err
		}
		args = append(
			args,
			"--audit-webhook-config-file="+file,
			"--audit-webhook-mode=batch",
			"--audit-webhook-batch-max-wait="+o.AuditWebhookDelay.String(),
			"--audit-webhook-initial-backoff=1s",
		)
	}
	return append(args, o.APIServerArgs...), nil
}

// makeAdmin makes what needs to know the server's address.
func (c *Cluster) makeAdmin() (err error) {
	c.Admin, err = c.config("kubernetes-admin", "system:masters")
	if err != nil {
		return err
	}
	c.Kubeconfig = c.group.Path("admin.kubeconfig")
	if err := writeKubeconfig(c.Kubeconfig, c.Admin); err != nil {
		return err
	}
	c.Client, err = kubernetes.NewForConfig(c.Admin)
	if err != nil {
		return fmt.Errorf("make the administrator's client: %w", err)
	}
	return nil
}

func (c *Cluster) startControllerManager(ctx context.Context) error {
	config, err := c.config("system:kube-controller-manager")
	if err != nil {
		return err
	}
	kubeconfig := c.group.Path("controller-manager.kubeconfig")
	if err := writeKubeconfig(kubeconfig, config); err != nil {
		return err
	}
	args := []string{
		"--kubeconfig=" + kubeconfig,
		"--secure-port=0", // nothing asks it
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--controllers=*,bootstrapsigner,tokencleaner",
		"--service-account-private-key-file=" + c.keys.tokenKey,
		"--root-ca-file=" + c.keys.caCert,
		"--cluster-signing-cert-file=" + c.keys.caCert,
		"--cluster-signing-key-file=" + c.keys.caKey,
		"--service-cluster-ip-range=" + serviceRange,
		// Tests want many pods at once; the default of 20 requests a second
		// suits clusters that have time.
		"--kube-api-qps=500",
		"--kube-api-burst=1000",
		// Nodes here send no heartbeats, and are not to be declared lost.
		"--node-monitor-grace-period=10000h",
	}
	p, err := c.group.Start(process.Command{
		Name: "kube-controller-manager",
		Path: c.Binaries.ControllerManager,
		Args: append(args, c.opts.ControllerManagerArgs...),
	})
	if err != nil {
		return err
	}
	return p.Wait(ctx, func(ctx context.Context) error {
		if _, err := c.Client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return fmt.Errorf("the service account of the default namespace: %w", err)
		}
		return nil
	})
}

// getReady asks the API server whether it is ready; if not, its answer lists
// the checks that fail.
func getReady(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz?verbose", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", req.URL, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s: %s", req.URL, resp.Status, failedChecks(string(body)))
	}
	return nil
}

// failedChecks keeps the lines of a /readyz answer that are not "[+]... ok".
func failedChecks(body string) string {
	var failed []string
	for line := range strings.Lines(body) {
		if !strings.HasPrefix(line, "[+]") {
			failed = append(failed, strings.TrimSpace(line))
		}
	}
	return strings.Join(failed, "; ")
}

// cleanEnv is the environment without the variables of a prefix, which would
// configure a server behind the test's back.
func cleanEnv(prefix string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, prefix) {
			env = append(env, v)
		}
	}
	return env
}

// writeKubeconfig writes a kubeconfig that does what the configuration does.
func writeKubeconfig(path string, c *rest.Config) error {
	config := clientcmdapi.NewConfig()
	config.Clusters["e2e"] = &clientcmdapi.Cluster{Server: c.Host, CertificateAuthorityData: c.CAData}
	config.AuthInfos["e2e"] = &clientcmdapi.AuthInfo{
		ClientCertificateData: c.CertData, ClientKeyData: c.KeyData, Token: c.BearerToken,
	}
	config.Contexts["e2e"] = &clientcmdapi.Context{Cluster: "e2e", AuthInfo: "e2e"}
	config.CurrentContext = "e2e"
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return fmt.Errorf("write the kubeconfig %s: %w", path, err)
	}
	return nil
}
