package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"remit"
	"remit/connector"
)

// Name is the name of this connector: the first part of its systems' identity.
const Name = "kubernetes"

// Connector reads one cluster, or files of one. It implements
// [connector.Watcher] and is safe for concurrent use.
type Connector struct {
	cfg    Config
	agents *agentMatcher
	client *client // nil for files
	files  *files  // nil for a cluster
	name   string
	login  string // how the user chose the cluster, for messages

	mu     sync.Mutex
	system *remit.System
	extend bool // the API server extends automounted tokens
}

var _ connector.Watcher = (*Connector)(nil)

// Open connects to the cluster that the configuration names. It makes no
// request. It fails with [remit.Invalid] when the kubeconfig cannot be used; the
// message names the file and the context.
func Open(cfg Config) (*Connector, error) {
	const op = "open kubeconfig"
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	if cfg.Kubeconfig != "" {
		if _, err := os.Stat(cfg.Kubeconfig); err != nil {
			return nil, remit.Errorf(remit.Invalid, op, "%w: check --kubeconfig", err)
		}
		rules.ExplicitPath = cfg.Kubeconfig
	}
	files := strings.Join(kubeconfigFiles(rules), ", ")
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: cfg.Context})
	raw, err := loader.RawConfig()
	if err != nil {
		return nil, remit.Errorf(remit.Invalid, op, "%s cannot be read: %w", orNone(files), err)
	}
	name := raw.CurrentContext
	if cfg.Context != "" {
		name = cfg.Context
	}
	current := raw.Contexts[name]
	switch {
	case cfg.Context != "" && current == nil:
		return nil, remit.Errorf(remit.Invalid, op, "%s has no context %q: it has %s", orNone(files), cfg.Context, contextNames(raw.Contexts))
	case current == nil && len(raw.Clusters) > 0:
		if name == "" {
			return nil, remit.Errorf(remit.Invalid, op, "%s sets no current context: name one of %s with --context", files, contextNames(raw.Contexts))
		}
		return nil, remit.Errorf(remit.Invalid, op, "%s names the current context %q and does not have it: it has %s", files, name, contextNames(raw.Contexts))
	case current != nil && raw.Clusters[current.Cluster] == nil:
		return nil, remit.Errorf(remit.Invalid, op, "context %q of %s names the cluster %q, which is not there", name, files, current.Cluster)
	case current != nil && current.AuthInfo != "" && raw.AuthInfos[current.AuthInfo] == nil:
		return nil, remit.Errorf(remit.Invalid, op, "context %q of %s names the user %q, which is not there", name, files, current.AuthInfo)
	}
	config, err := loader.ClientConfig()
	if err != nil {
		if clientcmd.IsEmptyConfig(err) {
			return nil, remit.Errorf(remit.Invalid, op, "there is no kubeconfig (looked for %s) and this is no pod of a cluster: name one with --kubeconfig, or read files with --from", orNone(files))
		}
		return nil, remit.Errorf(remit.Invalid, op, "context %q of %s cannot be used: %w", name, orNone(files), err)
	}
	if cfg.Name == "" {
		cfg.Name = "in-cluster"
		if current != nil {
			cfg.Name = current.Cluster
		}
	}
	login := "this pod's account"
	if current != nil {
		login = fmt.Sprintf("context %q (%s)", name, orNone(files))
	}
	return open(config, cfg, login)
}

func kubeconfigFiles(rules *clientcmd.ClientConfigLoadingRules) []string {
	if rules.ExplicitPath != "" {
		return []string{rules.ExplicitPath}
	}
	return rules.Precedence
}

func orNone(files string) string {
	if files == "" {
		return "the kubeconfig"
	}
	return files
}

func contextNames[T any](contexts map[string]T) string {
	if len(contexts) == 0 {
		return "none"
	}
	return strings.Join(sortedKeys(contexts), ", ")
}

// OpenRESTConfig connects with a configuration of client-go, for tests and for
// programs that have one.
func OpenRESTConfig(config *rest.Config, cfg Config) (*Connector, error) {
	if cfg.Name == "" {
		cfg.Name = config.Host
	}
	return open(config, cfg, "the given configuration")
}

func open(config *rest.Config, cfg Config, login string) (*Connector, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	client, err := newClient(config)
	if err != nil {
		return nil, remit.Errorf(remit.Invalid, "open kubeconfig", "%s cannot be used: %w", login, err)
	}
	return &Connector{cfg: cfg, agents: newAgentMatcher(cfg.AgentRules), client: client, name: cfg.Name, login: login, extend: true}, nil
}

// Describe implements [connector.Connector].
func (c *Connector) Describe() connector.Description {
	d := connector.Description{Name: Name, Title: "Kubernetes", Sections: describeSections()}
	if c.client != nil {
		d.Can = []connector.Capability{connector.CanWatch}
	} else {
		d.Sections = append(d.Sections, connector.Section{Name: sectionFiles, Finds: "documents that cannot be read", Needs: "files that can be read"})
	}
	return d
}

func (c *Connector) address() string {
	if u, err := url.Parse(c.client.config.Host); err == nil {
		u.User = nil
		return u.String()
	}
	return c.client.config.Host
}

// System implements [connector.Connector]. It asks once and remembers the
// answer, but for a failure.
func (c *Connector) System(ctx context.Context) (remit.System, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.system != nil {
		return *c.system, nil
	}
	var system remit.System
	var err error
	var flags flags
	if c.files != nil {
		system, flags, err = c.files.system(ctx, c)
	} else {
		system, flags, err = c.askSystem(ctx)
	}
	if err != nil {
		return remit.System{}, err
	}
	system.Connector, system.Name, system.Mode = Name, c.name, remit.ModeObserve
	system.ID = remit.SystemID(Name, system.Native)
	for key, value := range flags.attributes() {
		set(&system.Attributes, key, value)
	}
	set(&system.Attributes, "secrets", string(c.cfg.Secrets))
	c.extend = extends(c.cfg.ExtendTokenExpiration, flags)
	c.system = &system
	return system, nil
}

// extends says whether the API server extends automounted tokens.
func extends(configured *bool, f flags) bool {
	if configured != nil {
		return *configured
	}
	for _, v := range f["service-account-extend-token-expiration"] {
		if strings.EqualFold(v, "false") || v == "0" {
			return false
		}
	}
	return true
}

func (c *Connector) newReducer(system remit.System) (*reducer, error) {
	c.mu.Lock()
	extend := c.extend
	c.mu.Unlock()
	credentials, err := newCredentials(credentialConfig{
		System: system.ID, Scanner: c.cfg.Scanner, Fingerprint: c.cfg.Fingerprint, ExtendTokenExpiration: extend, Now: c.cfg.Now,
	})
	if err != nil {
		return nil, err
	}
	return newReducer(c.cfg, credentials, c.agents), nil
}

// askSystem asks a live cluster which one it is.
func (c *Connector) askSystem(ctx context.Context) (remit.System, flags, error) {
	const op = "connect"
	system := remit.System{Address: c.address()}
	var v version.Info
	if err := c.client.patiently(ctx, "/version", &v, c.cfg.retry); err != nil {
		if judgeError(err) != refused {
			return system, nil, explain(op, err, c.address(), c.login)
		}
	} else {
		system.Version = v.GitVersion
	}
	// A list of one by name needs no right but that to list, which the
	// inventory needs anyway.
	found := false
	err := c.one(ctx, listingOf["Namespace"], "", metav1.ListOptions{FieldSelector: "metadata.name=kube-system"}, func(o runtime.Object) {
		if ns, ok := o.(*corev1.Namespace); ok && ns.Name == "kube-system" {
			system.Native, found = string(ns.UID), true
		}
	})
	if err != nil && judgeError(err) != refused {
		return system, nil, explain(op, err, c.address(), c.login)
	}
	if !found {
		// Some logins see single namespaces only. The address identifies the
		// cluster then, less well: it may have several.
		system.Native = "address:" + c.address()
		system.Gaps = append(system.Gaps, remit.Gap{
			Section: "namespaces", Reason: "the namespace kube-system, whose uid identifies the cluster, may not be listed: it is known by its address instead",
			Need: listingOf["Namespace"].rule() + " in a ClusterRole",
		})
	}
	var seen flags
	if c.cfg.Namespaces == nil || newNamespaceScope(c.cfg.Namespaces).includes("kube-system") {
		// Managed clusters do not show their control plane; not an error.
		err = c.one(ctx, listingOf["Pod"], "kube-system", metav1.ListOptions{LabelSelector: "component=kube-apiserver", Limit: 10}, func(o runtime.Object) {
			if pod, ok := o.(*corev1.Pod); ok && seen == nil {
				seen = apiServerFlags(pod)
			}
		})
		if err != nil && ctx.Err() != nil {
			return system, nil, ctx.Err()
		}
	}
	return system, seen, nil
}

// one lists a single page, patiently.
func (c *Connector) one(ctx context.Context, l *listing, namespace string, options metav1.ListOptions, each func(runtime.Object)) error {
	note := &hint{}
	ctx = context.WithValue(ctx, hintKey{}, note)
	for attempt := 1; ; attempt++ {
		_, _, err := c.client.page(ctx, l, namespace, options, each)
		if err == nil || ctx.Err() != nil || judgeError(err) != again || attempt >= c.cfg.retry.attempts {
			return err
		}
		if err := sleep(ctx, c.cfg.retry.delay(attempt, note.take())); err != nil {
			return err
		}
	}
}

// isRefusedConnection says that nobody listens at the address: at the very start
// there is no point in waiting for that to change.
func isRefusedConnection(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// baseName is a short name for what was read from a path.
func baseName(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return filepath.Base(path)
}
