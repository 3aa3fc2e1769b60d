package kubernetes

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"remit"
)

// Guard says what a cluster is to refuse from now on: a set of
// ValidatingAdmissionPolicies that Remit generates from it and keeps in the
// cluster. Its zero value is none. Each rule is a policy and a binding of its own,
// so that one can be enforced while another is tried out.
type Guard struct {
	// Rules are the states of the rules; one that is missing is off.
	Rules map[GuardRule]GuardState

	// MaxTokenLifetime is the longest that a token may be asked for, at least 10
	// minutes, which is the least that the API gives; a day when 0. Audiences are
	// those that tokens may be for, the API server's own included; empty leaves
	// audiences alone.
	MaxTokenLifetime time.Duration
	Audiences        []string

	// AdminRoles are ClusterRoles that no machine may be given, beside
	// cluster-admin. Machines are users and groups that are machines, by their
	// names, beside accounts and what Kubernetes itself calls system:.
	AdminRoles []string
	Machines   []string

	// OwnerKeys are the labels and annotations that name an owner, beside the
	// built-in ones, as in [Config].
	OwnerKeys []string

	Exempt GuardExempt

	// AuditFor is how long a rule must have run in audit, as it is, before it may
	// be enforced; 0 lets it be enforced at once.
	AuditFor time.Duration

	// NotExtended says that the API server runs with
	// --service-account-extend-token-expiration=false. Otherwise a token for a pod
	// that is asked for 3607 seconds is valid for a year.
	NotExtended bool
}

// GuardExempt are those whom the rules leave alone.
type GuardExempt struct {
	// Namespaces: what is in them, and accounts of them that are given a role.
	Namespaces []string
	// Accounts, as "namespace/name": a token or token Secret of them, a role for
	// them, a pod that runs as them.
	Accounts []string
	// Users: whatever they ask for, by their names in the audit log.
	Users []string
}

// GuardRule is one rule of a guard.
type GuardRule string

// The rules.
const (
	GuardTokens       GuardRule = "tokens"        // lifetimes and audiences of tokens
	GuardTokenSecrets GuardRule = "token-secrets" // no long-lived tokens in Secrets
	GuardAdmins       GuardRule = "admins"        // no machine becomes an administrator
	GuardOwners       GuardRule = "owners"        // accounts and workloads name who answers for them
)

// GuardRules lists the rules.
var GuardRules = []GuardRule{GuardTokens, GuardTokenSecrets, GuardAdmins, GuardOwners}

// Title says what a rule is about.
func (r GuardRule) Title() string {
	switch r {
	case GuardTokens:
		return "how long tokens live and whom they are for"
	case GuardTokenSecrets:
		return "no new long-lived tokens in Secrets"
	case GuardAdmins:
		return "no machine becomes an administrator"
	case GuardOwners:
		return "new accounts and workloads name an owner"
	}
	return ""
}

// policy is the name of a rule's policy, and of its binding.
func (r GuardRule) policy() string { return guardPrefix + string(r) }

const guardPrefix = "remit-guard-"

// guardRuleOf is the rule of a policy, "" when it is none of the guard's.
func guardRuleOf(policy string) GuardRule {
	if r := GuardRule(strings.TrimPrefix(policy, guardPrefix)); r.policy() == policy && slices.Contains(GuardRules, r) {
		return r
	}
	return ""
}

// GuardState is how far a rule goes.
type GuardState string

// The states of a rule.
const (
	GuardOff     GuardState = "off"
	GuardAudit   GuardState = "audit"   // let through, warned of and written to the audit log
	GuardEnforce GuardState = "enforce" // refused, and written to the audit log
)

// State is how far a rule goes.
func (g Guard) State(r GuardRule) GuardState {
	if s := g.Rules[r]; s != "" {
		return s
	}
	return GuardOff
}

// On says whether any rule is on.
func (g Guard) On() bool {
	return slices.ContainsFunc(GuardRules, func(r GuardRule) bool { return g.State(r) != GuardOff })
}

const (
	guardDefaultLifetime = 24 * time.Hour
	guardMaxNames        = 500 // of each list: policies have to fit into etcd and into a CEL budget
)

var (
	guardNamespaceForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	guardAccountForm   = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$`)
)

// Check refuses what no policy can be made of, with the place in the
// configuration.
func (g Guard) Check() error {
	const op = "guard"
	for r, s := range g.Rules {
		if !slices.Contains(GuardRules, r) {
			return remit.Errorf(remit.Invalid, op, "there is no rule %q", r)
		}
		switch s {
		case "", GuardOff, GuardAudit, GuardEnforce:
		default:
			return remit.Errorf(remit.Invalid, op, "%s: no state %q: use off, audit or enforce", r, s)
		}
	}
	if l := g.MaxTokenLifetime; l != 0 && (l < leastLifetime*time.Second || l > extendedLifetime*time.Second) {
		return remit.Errorf(remit.Invalid, op, "max_token_lifetime: %s: use 10m to 365d", l)
	}
	for _, list := range []struct {
		name  string
		names []string
		form  *regexp.Regexp
		want  string
	}{
		{"audiences", g.Audiences, nil, ""},
		{"admin_roles", g.AdminRoles, nil, ""},
		{"machines", g.Machines, nil, ""},
		{"owners", g.OwnerKeys, nil, ""},
		{"exempt.namespaces", g.Exempt.Namespaces, guardNamespaceForm, "the name of a namespace"},
		{"exempt.accounts", g.Exempt.Accounts, guardAccountForm, "an account: write namespace/name"},
		{"exempt.users", g.Exempt.Users, nil, ""},
	} {
		if len(list.names) > guardMaxNames {
			return remit.Errorf(remit.Invalid, op, "%s: at most %d", list.name, guardMaxNames)
		}
		for _, name := range list.names {
			switch {
			case name == "" || len(name) > maxLabel || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == '\x7f' }):
				return remit.Errorf(remit.Invalid, op, "%s: %q is no name", list.name, truncate(name, 80))
			case list.form != nil && !list.form.MatchString(name):
				return remit.Errorf(remit.Invalid, op, "%s: %q is not %s", list.name, truncate(name, 80), list.want)
			}
		}
	}
	return nil
}

// maxLifetime is the longest lifetime of a token in seconds.
func (g Guard) maxLifetime() int64 {
	if g.MaxTokenLifetime == 0 {
		return int64(guardDefaultLifetime / time.Second)
	}
	return int64(g.MaxTokenLifetime / time.Second)
}

// objects are the policy and the binding of a rule, nil when it is off. login is
// as whom Remit changes the cluster: it is left alone, for it puts back what it
// took.
func (g Guard) objects(r GuardRule, login string) (*admissionv1.ValidatingAdmissionPolicy, *admissionv1.ValidatingAdmissionPolicyBinding) {
	state := g.State(r)
	if state == GuardOff {
		return nil, nil
	}
	// An audit must refuse nothing, whatever happens. What is enforced and cannot
	// be judged is refused: there is no webhook to be down and no parameter to be
	// missing, so all that can fail is an object that somebody made so large that
	// judging it costs more than the API server grants, and he would get past.
	// Owners are for order: that is not worth to refuse what cannot be judged.
	failure := admissionv1.Ignore
	actions := []admissionv1.ValidationAction{admissionv1.Audit, admissionv1.Warn}
	if state == GuardEnforce {
		actions = []admissionv1.ValidationAction{admissionv1.Deny, admissionv1.Audit}
		if r != GuardOwners {
			failure = admissionv1.Fail
		}
	}
	rule := guardTexts[r](g)
	equivalent, forbidden := admissionv1.Equivalent, metav1.StatusReasonForbidden
	policy := &admissionv1.ValidatingAdmissionPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "ValidatingAdmissionPolicy"},
		ObjectMeta: ownMeta(r.policy()),
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: &failure,
			MatchConstraints: &admissionv1.MatchResources{
				NamespaceSelector: guardNamespaces(append(rule.leaveOut, g.Exempt.Namespaces...)),
				ObjectSelector:    &metav1.LabelSelector{}, MatchPolicy: &equivalent, ResourceRules: rule.resources,
			},
			MatchConditions: g.askers(login),
			Variables:       append(rule.variables, admissionv1.Variable{Name: "refusal", Expression: rule.refusal}),
			Validations: []admissionv1.Validation{{
				Expression: `variables.refusal == ""`, MessageExpression: `variables.refusal`,
				Message: "Remit's guard refuses this: " + r.Title() + ".", Reason: &forbidden,
			}},
		},
	}
	return policy, &admissionv1.ValidatingAdmissionPolicyBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "ValidatingAdmissionPolicyBinding"},
		ObjectMeta: ownMeta(r.policy()),
		Spec:       admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: r.policy(), ValidationActions: actions},
	}
}

// guardNamespaces selects all namespaces but those. What is in none is selected.
func guardNamespaces(but []string) *metav1.LabelSelector {
	but = slices.Compact(slices.Sorted(slices.Values(but)))
	if len(but) == 0 {
		return &metav1.LabelSelector{}
	}
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: "kubernetes.io/metadata.name", Operator: metav1.LabelSelectorOpNotIn, Values: but},
	}}
}

// WriteYAML writes the policies and bindings as manifests. login is as in what
// Remit applies; "" leaves no login of Remit out.
func (g Guard) WriteYAML(w io.Writer, login string) error {
	var out bytes.Buffer
	for _, r := range GuardRules {
		policy, binding := g.objects(r, login)
		if policy == nil {
			continue
		}
		fmt.Fprintf(&out, "# Rule %s, %s: %s.\n", r, g.State(r), r.Title())
		for _, o := range []any{policy, binding} {
			text, err := yaml.Marshal(o)
			if err != nil {
				return remit.Errorf(remit.Internal, "write guard", "%w", err)
			}
			out.Write(withoutNothing(text))
			out.WriteString("---\n")
		}
	}
	_, err := w.Write(bytes.TrimSuffix(out.Bytes(), []byte("---\n")))
	return err
}

// withoutNothing leaves the empty status out, which no user writes.
func withoutNothing(manifest []byte) []byte {
	return bytes.ReplaceAll(manifest, []byte("status: {}\n"), nil)
}
