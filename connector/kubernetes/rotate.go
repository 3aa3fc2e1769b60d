package kubernetes

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"remit"
	"remit/connector"
)

// Rotator gives the credentials of one cluster successors. It implements
// [connector.Issuer] and is safe for concurrent use. Its login needs the rights of
// [RotatorRights].
type Rotator struct {
	*Enforcer
	now func() time.Time
}

var _ connector.Issuer = (*Rotator)(nil)

// OpenRotator connects to the cluster that the configuration names, as [Open]
// does. It makes no request.
func OpenRotator(cfg Config) (*Rotator, error) {
	e, err := OpenEnforcer(cfg)
	if err != nil {
		return nil, err
	}
	now := cfg.Now
	if now == nil {
		now = time.Now
	}
	return &Rotator{e, now}, nil
}

// OpenRotatorRESTConfig connects with a configuration of client-go, for tests and
// for programs that have one.
func OpenRotatorRESTConfig(config *rest.Config) (*Rotator, error) {
	e, err := OpenEnforcerRESTConfig(config)
	if err != nil {
		return nil, err
	}
	return &Rotator{e, time.Now}, nil
}

// RotatorRights are the least rights for rotation: deploy/kubernetes/rotator.yaml
// has them. They include to read and write every Secret, so where only some
// namespaces are to be rotated in, bind the role there; the rest of it, which is
// about the cluster, is needed for client certificates only.
func RotatorRights() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		// Token Secrets, bootstrap tokens, Secrets as destinations.
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get", "list", "create", "patch", "delete"}},
		// Bound tokens.
		{APIGroups: []string{""}, Resources: []string{"serviceaccounts"}, Verbs: []string{"get"}},
		{APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, Verbs: []string{"create"}},
		// Who refers to a Secret, and has to start again.
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}},
		{APIGroups: []string{"apps"}, Resources: []string{"deployments", "statefulsets", "daemonsets"}, Verbs: []string{"get", "list", "patch"}},
		{APIGroups: []string{"batch"}, Resources: []string{"cronjobs"}, Verbs: []string{"get", "list", "patch"}},
		// Client certificates.
		{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"certificatesigningrequests"}, Verbs: []string{"get", "create", "delete"}},
		{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"certificatesigningrequests/approval"}, Verbs: []string{"update"}},
		{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"signers"}, Verbs: []string{"approve"}, ResourceNames: []string{clientSigner}},
	}
}

// The sorts of successor.
const (
	asToken       = "token"       // a long-lived token in a token Secret
	asBound       = "bound-token" // a token that expires, bound to a Secret that ends it
	asProjected   = "projected"   // tokens that the kubelet mints, in place of the Secret
	asCertificate = "certificate" // a client certificate, signed by the cluster
	asBootstrap   = "bootstrap-token"
)

// Annotations of what rotation makes.
const (
	// annotationBase is the name that the first of a line of Secrets had.
	annotationBase = "remit.dev/rotation-of"
	// annotationAccount is the account of a bound token, on the Secret that it
	// is bound to.
	annotationAccount = "remit.dev/token-of"
	// annotationRotated is the newest credential that a workload was started
	// again for.
	annotationRotated = "remit.dev/rotated-to"
)

// The kind of a certificate as a Ref, named as the log names it.
const kindCertificate = "Certificate"

// issueTimeout bounds the wait for a controller of the cluster to fill in what was
// asked for.
const issueTimeout = 30 * time.Second

// rotationPlan is what a rotation stands on.
type rotationPlan struct {
	Sort      string            `json:"sort"`
	Namespace string            `json:"namespace"`
	Base      string            `json:"base"` // of the successor's name
	Secret    string            `json:"secret"`
	UID       types.UID         `json:"uid"` // of the Secret
	Labels    map[string]string `json:"labels,omitempty"`
	Account   string            `json:"account,omitempty"`
	Seconds   int64             `json:"seconds,omitempty"` // lifetime
	Type      corev1.SecretType `json:"type,omitempty"`

	Certificate *certificatePlan `json:"certificate,omitempty"`
	Bootstrap   *bootstrapPlan   `json:"bootstrap,omitempty"`
}

func readRotationPlan(plan json.RawMessage) (p rotationPlan, err error) {
	if err = json.Unmarshal(plan, &p); err != nil {
		err = remit.Errorf(remit.Invalid, "rotate", "the plan cannot be read: %w", err)
	}
	return p, err
}

// PlanRotation implements [connector.Issuer]. The subject is a Secret.
func (r *Rotator) PlanRotation(ctx context.Context, o connector.RotationOrder) (connector.Rotation, error) {
	const op = "plan rotation"
	ref := o.Subject.Ref
	if ref.Kind != "Secret" || ref.Namespace == "" || ref.Name == "" {
		return connector.Rotation{}, remit.Errorf(remit.Unsupported, op, "%s is no Secret: Kubernetes has no other credential that could be replaced", ref)
	}
	secret, err := r.subject(ctx, op, ref)
	if err != nil {
		return connector.Rotation{}, err
	}
	p := rotationPlan{
		Sort: sortOf(secret), Namespace: secret.Namespace, Secret: secret.Name, UID: secret.UID,
		Base: cmp.Or(secret.Annotations[annotationBase], secret.Name), Labels: secret.Labels, Type: secret.Type,
	}
	if o.As != "" && o.As != p.Sort && !slices.Contains([]string{asBound, asProjected}, o.As) {
		return connector.Rotation{}, remit.Errorf(remit.Invalid, op, "a successor cannot be made as %q: use bound-token or projected, or leave it out for one like the old", o.As)
	}
	switch p.Sort {
	case asToken, asBound:
		return r.planToken(ctx, op, o, p, secret)
	case asCertificate:
		return r.planCertificate(op, o, p, secret)
	case asBootstrap:
		return r.planBootstrap(op, o, p, secret)
	}
	return connector.Rotation{}, remit.Errorf(remit.Unsupported, op,
		"%s holds no credential that the cluster itself issues: no service-account token, client certificate or bootstrap token. It can be the destination of another system's", ref)
}

// sortOf tells what credential of the cluster a Secret holds; "" when none.
func sortOf(secret *corev1.Secret) string {
	switch {
	case secret.Type == corev1.SecretTypeServiceAccountToken:
		return asToken
	case secret.Type == corev1.SecretTypeBootstrapToken:
		return asBootstrap
	case secret.Annotations[annotationAccount] != "":
		return asBound
	case len(secret.Data[corev1.TLSCertKey]) > 0:
		return asCertificate
	}
	return ""
}

// subject reads the Secret, or the newest that came in its place: a configuration
// goes on naming the first.
func (r *Rotator) subject(ctx context.Context, op string, ref remit.Ref) (*corev1.Secret, error) {
	var secret corev1.Secret
	err := r.get(ctx, "Secret", ref.Namespace, ref.Name, &secret)
	if err == nil || !apierrors.IsNotFound(err) {
		return &secret, r.explain(op, err)
	}
	var all corev1.SecretList
	if err := r.list(ctx, "Secret", ref.Namespace, &all); err != nil {
		return nil, r.explain(op, err)
	}
	var newest *corev1.Secret
	for i, s := range all.Items {
		if s.Annotations[annotationBase] == ref.Name && (newest == nil || newest.CreationTimestamp.Before(&s.CreationTimestamp)) {
			newest = &all.Items[i]
		}
	}
	if newest == nil {
		return nil, remit.Errorf(remit.NotFound, op, "there is no %s, nor one that came in its place", ref)
	}
	return newest, nil
}

// Successor implements [connector.Issuer].
func (r *Rotator) Successor(plan json.RawMessage, attempt string) (remit.Ref, error) {
	p, err := readRotationPlan(plan)
	if err != nil {
		return remit.Ref{}, err
	}
	switch p.Sort {
	case asProjected:
		return remit.Ref{Kind: "ServiceAccount", Namespace: p.Namespace, Name: p.Account}, nil
	case asCertificate:
		return remit.Ref{Kind: "CertificateSigningRequest", Name: "remit-" + attempt}, nil
	case asBootstrap:
		return remit.Ref{Kind: "Secret", Namespace: p.Namespace, Name: bootstrapPrefix + attempt[:6]}, nil
	}
	const longest = 253 // of an object's name
	base := p.Base
	if most := longest - len(attempt) - 1; len(base) > most {
		base = strings.TrimRight(base[:most], "-.")
	}
	return remit.Ref{Kind: "Secret", Namespace: p.Namespace, Name: base + "-" + attempt}, nil
}

// Issue implements [connector.Issuer].
func (r *Rotator) Issue(ctx context.Context, plan json.RawMessage, successor remit.Ref) (connector.Issued, *connector.Secret, error) {
	p, err := readRotationPlan(plan)
	if err != nil {
		return connector.Issued{}, nil, err
	}
	switch p.Sort {
	case asToken:
		return r.issueToken(ctx, p, successor)
	case asBound:
		return r.issueBound(ctx, p, successor)
	case asProjected:
		return connector.Issued{Ref: successor, Mints: successor}, nil, nil
	case asCertificate:
		return r.issueCertificate(ctx, p, successor)
	case asBootstrap:
		return r.issueBootstrap(ctx, p, successor)
	}
	return connector.Issued{}, nil, remit.Errorf(remit.Invalid, "issue", "no sort of credential %q", p.Sort)
}

// End implements [connector.Issuer].
func (r *Rotator) End(ctx context.Context, plan json.RawMessage, which connector.Issued) (time.Time, error) {
	const op = "end credential"
	p, err := readRotationPlan(plan)
	if err != nil {
		return time.Time{}, err
	}
	switch which.Ref.Kind {
	case kindCertificate, "CertificateSigningRequest":
		return r.endCertificate(ctx, p, which)
	case "ServiceAccount":
		return time.Time{}, nil // its tokens end by themselves
	}
	var secret corev1.Secret
	err = r.get(ctx, "Secret", which.Ref.Namespace, which.Ref.Name, &secret)
	if apierrors.IsNotFound(err) {
		return time.Time{}, nil
	} else if err != nil {
		return time.Time{}, r.explain(op, err)
	}
	if which.Ref.Name == p.Secret && secret.UID != p.UID {
		return time.Time{}, nil // the old one has ended, and this is another of its name
	}
	if which.Ref.Name != p.Secret && secret.Annotations[annotationBase] == "" {
		return time.Time{}, remit.Errorf(remit.Conflict, op, "%s was not made by a rotation, and stays", which.Ref)
	}
	request, err := r.request("DELETE", "Secret", which.Ref.Namespace, which.Ref.Name)
	if err != nil {
		return time.Time{}, err
	}
	err = r.send(ctx, request.Body(&metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &secret.UID}}), nil)
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return time.Time{}, r.explain(op, err)
}

// Used implements [connector.Issuer]. Of a token Secret the API server itself notes
// the day of its last use; the rest is in the audit log.
func (r *Rotator) Used(ctx context.Context, plan json.RawMessage, issued connector.Issued) (time.Time, error) {
	p, err := readRotationPlan(plan)
	if err != nil || p.Sort != asToken {
		return time.Time{}, err
	}
	var secret corev1.Secret
	err = r.get(ctx, "Secret", issued.Ref.Namespace, issued.Ref.Name, &secret)
	if err != nil && !apierrors.IsNotFound(err) {
		return time.Time{}, r.explain("look for use", err)
	}
	day, err := time.Parse(time.DateOnly, secret.Labels[labelLastUsed])
	if err != nil {
		return time.Time{}, nil
	}
	return day, nil
}

// Lives implements [connector.Issuer].
func (r *Rotator) Lives(ctx context.Context, plan json.RawMessage, which connector.Issued) (bool, error) {
	p, err := readRotationPlan(plan)
	if err != nil {
		return false, err
	}
	switch which.Ref.Kind {
	case kindCertificate:
		return p.Certificate != nil && r.now().Before(p.Certificate.Ends), nil
	case "CertificateSigningRequest":
		return r.now().Before(which.Expires), nil
	case "ServiceAccount":
		_, err := r.account(ctx, "look for credential", which.Ref)
		if remit.KindOf(err) == remit.NotFound {
			return false, nil
		}
		return err == nil, err
	}
	if !which.Expires.IsZero() && !r.now().Before(which.Expires) {
		return false, nil
	}
	var secret corev1.Secret
	err = r.get(ctx, "Secret", which.Ref.Namespace, which.Ref.Name, &secret)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, r.explain("look for credential", err)
	}
	return which.Ref.Name != p.Secret || secret.UID == p.UID, nil
}

// list reads a collection.
func (e *Enforcer) list(ctx context.Context, kind, namespace string, into kubernetesList) error {
	request, err := e.request("GET", kind, namespace, "")
	if err != nil {
		return err
	}
	return e.send(ctx, request, into)
}

// kubernetesList is a collection with its metadata.
type kubernetesList interface {
	metav1.ListInterface
	runtime.Object
}

// until calls ready until it says so, or time is up.
func (r *Rotator) until(ctx context.Context, op, what string, ready func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, issueTimeout)
	defer cancel()
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		ok, err := ready()
		if ok || err != nil {
			return err
		}
		if err := sleep(ctx, pause); err != nil {
			return remit.Errorf(remit.Unavailable, op, "%s: see whether the controller manager runs", what)
		}
	}
}

// lifetimeSeconds is how long a successor is valid: what was asked for, or as the old one.
func lifetimeSeconds(asked time.Duration, old int64) int64 {
	if asked > 0 {
		return int64(asked / time.Second)
	}
	return old
}

func spanOf(seconds int64) string {
	d := time.Duration(seconds) * time.Second
	if day := 24 * time.Hour; d >= 2*day {
		return fmt.Sprintf("%d days", d/day)
	}
	return d.String()
}
