package kubernetes

import (
	"net"
	"net/url"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"remit"
)

// integration is the reduced form of what the API server calls: admission
// webhooks and aggregated APIs.
type integration struct {
	urls, services []string // whom it calls; services are written namespace/name
	external       bool     // some of it is outside the cluster
	intercepts     []string
	failure        string // the most permissive failure policy of its webhooks
	everywhere     bool   // no selector keeps a namespace out
	insecure       bool
	mutates        bool
	local          bool // an APIService that the API server answers itself
	namespace      string
}

func (*integration) mentions(remit.Ref, func(remit.Ref, mentionKind)) {}

// maxIntercepts bounds how much of a webhook's rules is written down.
const maxIntercepts = 200

// hook is what validating and mutating webhooks have in common.
type hook struct {
	client     admissionv1.WebhookClientConfig
	rules      []admissionv1.RuleWithOperations
	failure    *admissionv1.FailurePolicyType
	namespaces *metav1.LabelSelector
}

func validatingWebhooks(c *admissionv1.ValidatingWebhookConfiguration) *integration {
	hooks := make([]hook, 0, len(c.Webhooks))
	for i := range c.Webhooks {
		w := &c.Webhooks[i]
		hooks = append(hooks, hook{w.ClientConfig, w.Rules, w.FailurePolicy, w.NamespaceSelector})
	}
	return webhooks(hooks)
}

func mutatingWebhooks(c *admissionv1.MutatingWebhookConfiguration) *integration {
	hooks := make([]hook, 0, len(c.Webhooks))
	for i := range c.Webhooks {
		w := &c.Webhooks[i]
		hooks = append(hooks, hook{w.ClientConfig, w.Rules, w.FailurePolicy, w.NamespaceSelector})
	}
	in := webhooks(hooks)
	in.mutates = true
	return in
}

func webhooks(hooks []hook) *integration {
	in := &integration{failure: string(admissionv1.Fail)}
	urls, services, intercepts := map[string]struct{}{}, map[string]struct{}{}, map[string]struct{}{}
	for _, h := range hooks {
		if h.client.URL != nil {
			urls[plainURL(*h.client.URL)] = struct{}{}
			in.external = in.external || outside(*h.client.URL)
		}
		if s := h.client.Service; s != nil {
			services[truncate(s.Namespace+"/"+s.Name, maxLabel)] = struct{}{}
			in.namespace = truncate(s.Namespace, maxLabel)
		}
		for _, rule := range h.rules {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					if len(intercepts) < maxIntercepts {
						intercepts[truncate(resourceName(group, resource), maxLabel)] = struct{}{}
					}
				}
			}
		}
		if h.failure != nil && *h.failure == admissionv1.Ignore {
			in.failure = string(admissionv1.Ignore)
		}
		if h.namespaces == nil || len(h.namespaces.MatchLabels)+len(h.namespaces.MatchExpressions) == 0 {
			in.everywhere = true
		}
	}
	in.urls, in.services, in.intercepts = cloneSorted(urls), cloneSorted(services), cloneSorted(intercepts)
	return in
}

// plainURL leaves out what may carry a secret: user information and query.
func plainURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(not a URL)"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return truncate(u.String(), maxLabel)
}

// outside says whether a URL leads out of the cluster. A private address may be
// a node's or the next data centre's: it counts as outside only when it is
// public or a name.
func outside(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil {
		return true
	}
	host := u.Hostname()
	if ip := net.ParseIP(host); ip != nil {
		return !ip.IsPrivate() && !ip.IsLoopback() && !ip.IsLinkLocalUnicast()
	}
	return host != "localhost" && !strings.HasSuffix(host, ".svc") && !strings.HasSuffix(host, ".cluster.local")
}

// apiService is apiregistration.k8s.io/v1 APIService, as far as it is read. Its
// own package would bring in the whole aggregator.
type apiService struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              struct {
		Service *struct {
			Namespace string `json:"namespace,omitempty"`
			Name      string `json:"name,omitempty"`
		} `json:"service,omitempty"`
		Group                 string `json:"group,omitempty"`
		Version               string `json:"version,omitempty"`
		InsecureSkipTLSVerify bool   `json:"insecureSkipTLSVerify,omitempty"`
	} `json:"spec,omitempty"`
}

// GetObjectKind and DeepCopyObject make it an object of the API machinery.
func (a *apiService) GetObjectKind() schema.ObjectKind { return &a.TypeMeta }

func (a *apiService) DeepCopyObject() runtime.Object {
	c := *a
	a.ObjectMeta.DeepCopyInto(&c.ObjectMeta)
	if a.Spec.Service != nil {
		s := *a.Spec.Service
		c.Spec.Service = &s
	}
	return &c
}

func apiServiceBody(a *apiService) *integration {
	in := &integration{insecure: a.Spec.InsecureSkipTLSVerify, local: a.Spec.Service == nil, everywhere: true}
	if s := a.Spec.Service; s != nil {
		in.services = []string{truncate(s.Namespace+"/"+s.Name, maxLabel)}
		in.namespace = truncate(s.Namespace, maxLabel)
		in.intercepts = []string{truncate(resourceName(a.Spec.Group, "*"), maxLabel)}
	}
	return in
}

// integration projects a webhook configuration or an aggregated API. What the
// API server answers itself is no application.
func (p *projection) integration(ref remit.Ref, o *object) {
	if o == nil {
		return
	}
	in, ok := o.body.(*integration)
	if !ok || in.local {
		return
	}
	identity := remit.Identity{
		Record:  p.record(p.identityID(ref), ref, &o.meta),
		Type:    remit.Application,
		Status:  remit.Active,
		Purpose: o.meta.purpose,
		Expires: o.meta.expires,
		Owners:  p.owners(p.ownersOf(&o.meta, in.namespace)...),
	}
	identity.Environment = p.environment(o.meta.environment, in.namespace)
	set(&identity.Attributes, "url", strings.Join(in.urls, ","))
	set(&identity.Attributes, "service", strings.Join(in.services, ","))
	set(&identity.Attributes, "intercepts", strings.Join(in.intercepts, ","))
	set(&identity.Attributes, "failure-policy", in.failure)
	if in.external {
		set(&identity.Attributes, "external", "true")
	}
	if in.everywhere {
		set(&identity.Attributes, "scope", "all")
	}
	if in.insecure {
		set(&identity.Attributes, "insecure-tls", "true")
	}
	if in.mutates {
		set(&identity.Attributes, "mutates", "true")
	}
	p.out.Identities = append(p.out.Identities, identity)
}

// issuer projects an OpenID Connect issuer that the API server trusts to say
// who its users are.
func (p *projection) issuer(ref remit.Ref) {
	if p.mentionOf(ref) == nil {
		return
	}
	identity := remit.Identity{Record: p.record(p.identityID(ref), ref, nil), Type: remit.Application, Status: remit.Active}
	set(&identity.Attributes, "source", "kube-apiserver --oidc-issuer-url")
	set(&identity.Attributes, "url", plainURL(ref.Name))
	p.out.Identities = append(p.out.Identities, identity)
}

// flags are the values of command-line flags, by name, in order.
type flags map[string][]string

// apiServerAttributes maps the flags of the API server that matter to who gets
// in, to attributes of the system.
var apiServerAttributes = []string{
	"anonymous-auth", "authorization-mode", "enable-admission-plugins", "oidc-issuer-url",
	"service-account-extend-token-expiration", "service-account-issuer", "service-account-max-token-expiration",
	"token-auth-file", "enable-bootstrap-token-auth", "authentication-config", "authorization-config",
}

// apiServerFlags reads the flags of a static kube-apiserver pod, as kubeadm and
// most distributions run it. Any other pod gives nil.
func apiServerFlags(pod *corev1.Pod) flags {
	if pod.Namespace != "kube-system" || pod.Labels["component"] != "kube-apiserver" {
		return nil
	}
	found := flags{}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if c.Name != "kube-apiserver" {
			continue
		}
		args := slices.Concat(c.Command, c.Args)
		for j := 0; j < len(args) && len(found) < 500; j++ {
			arg, ok := strings.CutPrefix(args[j], "--")
			if !ok {
				continue
			}
			name, value, ok := strings.Cut(arg, "=")
			if !ok {
				// A boolean flag stands alone; another takes what follows.
				value = "true"
				if j+1 < len(args) && !strings.HasPrefix(args[j+1], "-") {
					j++
					value = args[j]
				}
			}
			found[name] = append(found[name], truncate(value, maxLabel))
		}
	}
	return found
}

// attributes are the flags as attributes of the system.
func (f flags) attributes() map[string]string {
	var out map[string]string
	for _, name := range apiServerAttributes {
		set(&out, name, strings.Join(f[name], ","))
	}
	return out
}
