package kubernetes

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit"
	"remit/connector"
)

// Credentials are frozen by admission: a policy compares the credential of every
// request that changes something with the keys of one ConfigMap. Reads do not
// pass through admission, and a request made by impersonation carries the
// credential of nobody: neither is stopped by this. Nor is, by the API server's
// own rule, a change of admission policies: who may make one can lift this.
//
// What a contained credential mints in the moment before it is listed has no name
// here yet, and mints on. So the key of an account, made of its namespace and name,
// holds that account: its credentials that are bound to no pod mint nothing, and
// those of its pods nothing that is bound to anything. What can still be minted
// then mints no more, and is listed when the log has shown it.
//
// A value lists holds, separated by spaces: "mint:" or "all:" and the plan that
// holds. Several plans may hold the same credential, and it is free when the
// last has let go. A person may write just "mint" or "all".
const (
	policyName    = "remit-containment"
	guardName     = "remit-containment-guard"
	containedName = "remit-contained"
	probeName     = "remit-probe" // never really made
	probeKey      = "credential"

	// What a plan's name is made of has neither "mint" nor "all" in it, which
	// are looked for in the whole value.
	holdMint = "mint"
	holdAll  = "all"

	// Kubernetes takes 1 MiB of values, etcd 1.5 MiB of everything: keys,
	// values and what the API server adds.
	maxContained = 1 << 20
	// The longest key that Kubernetes takes.
	maxCredential = 253
)

// credentialForm is how a credential's identifier looks in the audit log. What
// else a key may not hold cannot be part of one.
var credentialForm = regexp.MustCompile(`^(JTI|X509SHA256)=[-._a-zA-Z0-9]+$`)

// credentialKey is the key of a credential in the ConfigMap.
func credentialKey(credential string) (string, error) {
	if len(credential) > maxCredential || !credentialForm.MatchString(credential) {
		return "", remit.Errorf(remit.Invalid, "plan containment",
			"%q is no credential as Kubernetes' audit log writes them: JTI=… or X509SHA256=…, of at most %d characters", truncate(credential, 80), maxCredential)
	}
	return strings.Replace(credential, "=", "-", 1), nil
}

// accountUser begins the user name of an account, and accountKey its key.
const (
	accountUser = "system:serviceaccount:"
	accountKey  = "SA-"
)

// keyOfAccount is the key of an account in the ConfigMap.
func keyOfAccount(ref remit.Ref) (string, bool) {
	key := accountKey + ref.Namespace + "_" + ref.Name
	return key, ref.Kind == "ServiceAccount" && keyForm.MatchString(key)
}

// freezeLevels says what is held of each credential and account, by its key. An
// account whose key would be too long is left out: its name is as long as it may be,
// and its credentials are held all the same.
func freezeLevels(stolen, forged []string, minters []remit.Ref) (map[string]string, error) {
	out := map[string]string{}
	for _, m := range minters {
		if key, ok := keyOfAccount(m); ok {
			out[key] = holdMint
		}
	}
	for _, c := range stolen {
		key, err := credentialKey(c)
		if err != nil {
			return nil, err
		}
		out[key] = holdMint
	}
	for _, c := range forged { // who is listed in both is cut wholly
		key, err := credentialKey(c)
		if err != nil {
			return nil, err
		}
		out[key] = holdAll
	}
	return out, nil
}

// The expressions of the policies. Everything that may be absent is asked for
// first: an error in the policy refuses the request, whosoever's it is.
const (
	isProbe = `request.operation == "CREATE" && request.resource.group == "" && request.resource.resource == "configmaps" && ` +
		`has(request.namespace) && request.namespace == "` + enforceSystemNamespace + `" && has(request.dryRun) && request.dryRun && ` +
		`object != null && has(object.metadata) && has(object.metadata.name) && object.metadata.name == "` + probeName + `" && ` +
		`has(object.data) && "` + probeKey + `" in object.data`

	// What an attacker would change to free himself. The name is absent when a
	// whole collection is deleted.
	isOwn = `(request.resource.group == "" && request.resource.resource == "configmaps" && has(request.namespace) && request.namespace == "` + enforceSystemNamespace + `" && ` +
		isNamed + containedName + isNamedEnd + `) || ` +
		`(request.resource.group == "" && request.resource.resource == "namespaces" && ` + isNamed + enforceSystemNamespace + isNamedEnd + `) || ` +
		`(request.resource.group == "admissionregistration.k8s.io" && request.resource.resource in ["validatingadmissionpolicies", "validatingadmissionpolicybindings"] && ` +
		isNamed + policyName + `", "` + guardName + isNamedEnd + `)`
	isNamed    = `(has(request.name) && request.name != "" ? request.name in ["`
	isNamedEnd = `"] : request.operation == "DELETE")`

	hasCredential = `has(request.userInfo.extra) && "` + extraCredential + `" in request.userInfo.extra && ` +
		`size(request.userInfo.extra["` + extraCredential + `"]) > 0`

	credentialOfRequest = `(` + isProbe + `) ? string(object.data["` + probeKey + `"]) : ` +
		`(` + hasCredential + `) ? request.userInfo.extra["` + extraCredential + `"][0].replace("=", "-") : ""`

	// Neither a namespace nor an account has "_" in its name.
	isAccount        = `has(request.userInfo.username) && request.userInfo.username.startsWith("` + accountUser + `")`
	accountOfRequest = `(` + isAccount + `) ? "` + accountKey + `" + request.userInfo.username.substring(22).replace(":", "_") : ""`
	holdOfAccount    = `variables.account != "" && params != null && has(params.data) && variables.account in params.data ? string(params.data[variables.account]) : ""`

	// What a pod's own token may mint all the same.
	isPodsUnbound = `has(request.userInfo.extra) && "` + extraPod + `" in request.userInfo.extra && ` +
		`request.resource.resource == "serviceaccounts" && object != null && !(has(object.spec) && has(object.spec.boundObjectRef) && object.spec.boundObjectRef != null)`

	holdOfRequest = `params != null && has(params.data) && variables.credential in params.data ? string(params.data[variables.credential]) : ""`

	// A Secret of that type is filled with a token by the controller.
	isMint = `(request.operation == "CREATE" && (` +
		`(request.resource.group == "" && request.resource.resource == "serviceaccounts" && has(request.subResource) && request.subResource == "token") || ` +
		`(request.resource.group == "certificates.k8s.io" && request.resource.resource == "certificatesigningrequests") || ` +
		`(request.resource.group == "" && request.resource.resource == "secrets" && object != null && has(object.type) && object.type == "kubernetes.io/service-account-token")))`
)

// desiredPolicies are the policy that freezes and the one that keeps what is
// frozen from freeing itself. The first fails closed, so it leaves alone what it
// takes to repair it; the second is about just that, and fails open.
func desiredPolicies(user string) []*admissionv1.ValidatingAdmissionPolicy {
	leaveOut := []admissionv1.MatchCondition{
		{Name: "has-credential", Expression: `(` + isProbe + `) || (` + hasCredential + `) || (` + isAccount + `)`},
		{Name: "not-masters", Expression: `(` + isProbe + `) || !has(request.userInfo.groups) || !("` + groupMasters + `" in request.userInfo.groups)`},
		{Name: "not-remit", Expression: `(` + isProbe + `) || !has(request.userInfo.username) || request.userInfo.username != ` + celString(user)},
	}
	variables := []admissionv1.Variable{
		{Name: "credential", Expression: credentialOfRequest},
		{Name: "hold", Expression: holdOfRequest},
		{Name: "account", Expression: accountOfRequest},
		{Name: "accountHold", Expression: holdOfAccount},
	}
	fail, ignore := admissionv1.Fail, admissionv1.Ignore
	freeze := newPolicy(policyName, fail, "*", "*/*")
	freeze.Spec.MatchConditions = append(slices.Clone(leaveOut), admissionv1.MatchCondition{Name: "not-own", Expression: `!(` + isOwn + `)`})
	freeze.Spec.Variables = variables
	freeze.Spec.Validations = []admissionv1.Validation{
		{
			Expression: `!variables.hold.contains("` + holdAll + `")`,
			Message:    "Remit has contained this credential: it may only read. Sign in with another, or ask whoever runs Remit.",
		},
		{
			Expression: `!variables.hold.contains("` + holdMint + `") || !(` + isMint + ` || (` + isProbe + `))`,
			Message:    "Remit has contained this credential: it may not make others. Sign in with another, or ask whoever runs Remit.",
		},
		{
			Expression: `!variables.accountHold.contains("` + holdAll + `") || !` + isMint,
			Message:    "Remit has contained this account: it may not make credentials. Ask whoever runs Remit.",
		},
		{
			Expression: `!variables.accountHold.contains("` + holdMint + `") || !` + isMint + ` || (` + isPodsUnbound + `)`,
			Message:    "Remit has contained this account: only its pods may make credentials for it, and none that are bound. Ask whoever runs Remit.",
		},
	}
	guard := newPolicy(guardName, ignore, "", "configmaps", "namespaces")
	guard.Spec.MatchConstraints.ResourceRules = append(guard.Spec.MatchConstraints.ResourceRules,
		resourceRule("admissionregistration.k8s.io", "validatingadmissionpolicies", "validatingadmissionpolicybindings"))
	guard.Spec.MatchConditions = append(slices.Clone(leaveOut), admissionv1.MatchCondition{Name: "own", Expression: isOwn})
	guard.Spec.Variables = variables
	guard.Spec.Validations = []admissionv1.Validation{{
		Expression: `!variables.hold.contains("` + holdAll + `") && !variables.hold.contains("` + holdMint + `") && variables.accountHold == ""`,
		Message:    "Remit has contained this credential: it may not change what contains it.",
	}}
	return []*admissionv1.ValidatingAdmissionPolicy{freeze, guard}
}

func resourceRule(group string, resources ...string) admissionv1.NamedRuleWithOperations {
	scope := admissionv1.AllScopes
	return admissionv1.NamedRuleWithOperations{RuleWithOperations: admissionv1.RuleWithOperations{
		Operations: []admissionv1.OperationType{admissionv1.OperationAll},
		Rule:       admissionv1.Rule{APIGroups: []string{group}, APIVersions: []string{"*"}, Resources: resources, Scope: &scope},
	}}
}

// newPolicy sets everything that the server would set by default, so that what
// it holds can be compared.
func newPolicy(name string, failure admissionv1.FailurePolicyType, group string, resources ...string) *admissionv1.ValidatingAdmissionPolicy {
	equivalent := admissionv1.Equivalent
	return &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: ownMeta(name),
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			ParamKind:     &admissionv1.ParamKind{APIVersion: "v1", Kind: "ConfigMap"},
			FailurePolicy: &failure,
			MatchConstraints: &admissionv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{}, ObjectSelector: &metav1.LabelSelector{}, MatchPolicy: &equivalent,
				ResourceRules: []admissionv1.NamedRuleWithOperations{resourceRule(group, resources...)},
			},
		},
	}
}

func desiredBinding(policy string) *admissionv1.ValidatingAdmissionPolicyBinding {
	allow := admissionv1.AllowAction
	return &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: ownMeta(policy),
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName:        policy,
			ParamRef:          &admissionv1.ParamRef{Name: containedName, Namespace: enforceSystemNamespace, ParameterNotFoundAction: &allow},
			ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}
}

func ownMeta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Labels: map[string]string{"app.kubernetes.io/managed-by": "remit"}}
}

// celString writes a string as CEL reads it: JSON's escapes are a part of CEL's.
func celString(s string) string { return string(mustJSON(s)) }

// prepareFreeze installs the policies. The ConfigMap comes first: bound to none,
// a policy lets everything pass.
func (e *Enforcer) prepareFreeze(ctx context.Context) error {
	const op = "prepare containment"
	self, err := e.self(ctx, op)
	if err != nil {
		return err
	}
	if err := e.ensureContained(ctx); err != nil {
		return e.explain(op, err)
	}
	for _, policy := range desiredPolicies(self.Username) {
		var is admissionv1.ValidatingAdmissionPolicy
		err := e.ensure(ctx, "ValidatingAdmissionPolicy", policy, &is, func() bool {
			same := equality.Semantic.DeepEqual(is.Spec, policy.Spec)
			is.Spec = policy.Spec
			return same
		})
		if apierrors.IsNotFound(err) {
			return remit.Errorf(remit.Unsupported, op, "the cluster has no ValidatingAdmissionPolicy: credentials can be frozen from Kubernetes 1.30 on, and are named in the log from 1.32 on: %w", err)
		}
		if err != nil {
			return e.explain(op, err)
		}
		binding := desiredBinding(policy.Name)
		var bound admissionv1.ValidatingAdmissionPolicyBinding
		err = e.ensure(ctx, "ValidatingAdmissionPolicyBinding", binding, &bound, func() bool {
			same := equality.Semantic.DeepEqual(bound.Spec, binding.Spec)
			bound.Spec = binding.Spec
			return same
		})
		if err != nil {
			return e.explain(op, err)
		}
	}
	return nil
}

// ensure makes an object of the cluster, or brings what there is up to date:
// adopt makes it so, and says whether it was so before.
func (e *Enforcer) ensure(ctx context.Context, kind string, want, is kubernetesObject, adopt func() bool) error {
	return e.untilAlone(ctx, func() error {
		err := e.get(ctx, kind, "", want.GetName(), is)
		switch {
		case apierrors.IsNotFound(err):
			return e.create(ctx, kind, "", want)
		case err != nil || adopt():
			return err
		}
		request, err := e.request("PUT", kind, "", want.GetName())
		if err != nil {
			return err
		}
		return e.send(ctx, request.Body(is), nil)
	})
}

// ensureContained makes the ConfigMap and its namespace where they are missing.
func (e *Enforcer) ensureContained(ctx context.Context) error {
	var contained corev1.ConfigMap
	err := e.get(ctx, "ConfigMap", enforceSystemNamespace, containedName, &contained)
	if !apierrors.IsNotFound(err) {
		return err
	}
	var namespace corev1.Namespace
	if err := e.get(ctx, "Namespace", "", enforceSystemNamespace, &namespace); apierrors.IsNotFound(err) {
		err := e.create(ctx, "Namespace", "", &corev1.Namespace{ObjectMeta: ownMeta(enforceSystemNamespace)})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	} else if err != nil {
		return err
	}
	made := &corev1.ConfigMap{ObjectMeta: ownMeta(containedName)}
	if err := e.create(ctx, "ConfigMap", enforceSystemNamespace, made); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}

// frozenState is what a step of freezing found or is to leave, of its own
// credentials only.
type frozenState struct {
	Hold    string            `json:"hold,omitempty"` // the plan, in After
	Entries map[string]string `json:"entries"`        // of the ConfigMap before; what is held after
}

func (e *Enforcer) planFreeze(ctx context.Context, identity remit.Ref, levels map[string]string) (connector.Planned, error) {
	const op = "plan containment"
	var planned connector.Planned
	if len(levels) == 0 {
		return planned, remit.Errorf(remit.Invalid, op, "to freeze credentials the order must name some")
	}
	var contained corev1.ConfigMap
	err := e.get(ctx, "ConfigMap", enforceSystemNamespace, containedName, &contained)
	if err != nil && !apierrors.IsNotFound(err) {
		return planned, e.explain(op, err)
	}
	var name [8]byte
	if _, err := rand.Read(name[:]); err != nil {
		return planned, err
	}
	before, after := frozenState{Entries: map[string]string{}}, frozenState{Hold: hex.EncodeToString(name[:]), Entries: levels}
	added := map[string]string{}
	minting, all := 0, 0
	var accounts, ended []string
	var diff strings.Builder
	for _, key := range sortedKeys(levels) {
		value, known := contained.Data[key]
		if known {
			before.Entries[key] = value
			diff.WriteString(lines("-", key+": "+value))
		}
		added[key] = withHold(value, levels[key], after.Hold)
		diff.WriteString(lines("+", key+": "+added[key]))
		switch account, isAccount := strings.CutPrefix(key, accountKey); {
		case isAccount && levels[key] == holdAll:
			ended = append(ended, strings.Replace(account, "_", "/", 1))
		case isAccount:
			accounts = append(accounts, strings.Replace(account, "_", "/", 1))
		case levels[key] == holdAll:
			all++
		default:
			minting++
		}
	}
	if err := containedFits(contained.Data, added); err != nil {
		return planned, err
	}
	step := remit.Step{
		Grade:  remit.FreezeCredentials,
		Object: remit.Ref{Kind: "ConfigMap", Namespace: enforceSystemNamespace, Name: containedName},
		Diff:   diff.String(),
		Undo:   "Take these entries out again; a credential that another plan holds as well stays frozen.",
		Before: mustJSON(before), After: mustJSON(after),
	}
	var does, breaks []string
	if minting > 0 {
		does = append(does, fmt.Sprintf("Stop %s of %s from minting others: tokens, certificates, token Secrets.", numbered(minting, "stolen credential"), identity))
		breaks = append(breaks, "The legitimate holder works on, but cannot mint either with the same credential; the pod's own token is renewed by its node all the same.")
	}
	if all > 0 {
		does = append(does, fmt.Sprintf("Refuse whatever %s of %s would change, mint or connect to; reads go on.", numbered(all, "forged credential"), identity))
	}
	if len(accounts) > 0 {
		does = append(does, fmt.Sprintf("Let %s mint only from their pods, and nothing that is bound: what was minted a moment ago has no name here yet.", strings.Join(accounts, ", ")))
		breaks = append(breaks, "So does whatever mints as these accounts with a token that is bound to no pod.")
	}
	if len(ended) > 0 {
		does = append(does, fmt.Sprintf("Let nothing mint as %s: whoever holds a token that has ended could still make one of the account that is made anew, as long as the API server believes it.", strings.Join(ended, ", ")))
		breaks = append(breaks, "The account cannot mint tokens for others, until this is undone; its pods get theirs from their nodes.")
	}
	step.Does, step.Breaks = strings.Join(does, " "), strings.Join(breaks, " ")
	planned.Steps = []remit.Step{step}
	planned.Why = append(planned.Why, "A frozen credential can still read, act as whom it may impersonate, and change admission policies where it has the right to: admission sees none of these. Where the identity is an administrator, remove its grants as well. A login of the group system:masters cannot be frozen.")
	if time.Now().UnixNano() < e.current.Load() {
		return planned, nil
	}
	if err := e.policiesCurrent(ctx, op); remit.KindOf(err) == remit.Conflict {
		planned.Why = append(planned.Why, "The admission policy is not installed or not up to date: the plan brings it up to date, and it takes a second or two to act the first time.")
	} else if err != nil {
		return connector.Planned{}, err
	}
	return planned, nil
}

// withHold adds a plan's hold to the value of an entry.
func withHold(value, level, hold string) string {
	if want := level + ":" + hold; !slices.Contains(strings.Fields(value), want) {
		return strings.TrimSpace(value + " " + want)
	}
	return value
}

// withoutHold takes a plan's holds out of the value of an entry.
func withoutHold(value, hold string) string {
	kept := strings.Fields(value)
	n := len(kept)
	kept = slices.DeleteFunc(kept, func(s string) bool { return s == holdMint+":"+hold || s == holdAll+":"+hold })
	if len(kept) == n {
		return value // somebody else's words stay as they are
	}
	return strings.Join(kept, " ")
}

func containedFits(data, added map[string]string) error {
	size := 0
	for key, value := range data {
		if _, replaced := added[key]; !replaced {
			size += len(key) + len(value)
		}
	}
	for key, value := range added {
		size += len(key) + len(value)
	}
	if size > maxContained {
		return remit.Errorf(remit.Unsupported, "freeze credentials",
			"the ConfigMap %s/%s would hold %d bytes, and Kubernetes takes %d: undo plans of credentials that have expired, or remove the grants instead",
			enforceSystemNamespace, containedName, size, maxContained)
	}
	return nil
}

// changeContained changes entries of the ConfigMap, and touches no other. An
// entry that edit makes "" goes.
func (e *Enforcer) changeContained(ctx context.Context, entries map[string]string, must bool, edit func(key, value string) string) error {
	const op = "freeze credentials"
	err := e.untilAlone(ctx, func() error {
		var contained corev1.ConfigMap
		err := e.get(ctx, "ConfigMap", enforceSystemNamespace, containedName, &contained)
		if apierrors.IsNotFound(err) {
			if !must {
				return nil
			}
			if err = e.ensureContained(ctx); err == nil {
				err = e.get(ctx, "ConfigMap", enforceSystemNamespace, containedName, &contained)
			}
		}
		if err != nil {
			return err
		}
		data, added := map[string]any{}, map[string]string{}
		for key := range entries {
			value, known := contained.Data[key]
			switch wanted := edit(key, value); {
			case wanted == "" && known:
				data[key] = nil
			case wanted != value:
				data[key], added[key] = wanted, wanted
			}
		}
		if len(data) == 0 {
			return nil
		}
		if len(added) > 0 && must {
			if err := containedFits(contained.Data, added); err != nil {
				return err
			}
		}
		return e.patch(ctx, "ConfigMap", &contained, map[string]any{"data": data})
	})
	return e.explained(op, err)
}

// explained is explain for what may be explained already.
func (e *Enforcer) explained(op string, err error) error {
	if err == nil || remit.KindOf(err) != remit.Internal {
		return err
	}
	return e.explain(op, err)
}

func (e *Enforcer) doFreeze(ctx context.Context, step remit.Step) error {
	after, err := frozenAfter(step)
	if err != nil {
		return err
	}
	// What is in place already acts the sooner.
	err = e.changeContained(ctx, after.Entries, true, func(key, value string) string {
		return withHold(value, after.Entries[key], after.Hold)
	})
	if err != nil {
		return err
	}
	err = e.policiesCurrent(ctx, "freeze credentials")
	if remit.KindOf(err) == remit.Conflict {
		err = e.prepareFreeze(ctx)
	}
	return err
}

func (e *Enforcer) undoFreeze(ctx context.Context, step remit.Step) error {
	after, err := frozenAfter(step)
	if err != nil {
		return err
	}
	return e.changeContained(ctx, after.Entries, false, func(_, value string) string {
		return withoutHold(value, after.Hold)
	})
}

var (
	holdForm = regexp.MustCompile(`^[0-9a-f]{16}$`)
	keyForm  = regexp.MustCompile(`^[-._a-zA-Z0-9]{1,253}$`)
)

func frozenAfter(step remit.Step) (frozenState, error) {
	const op = "freeze credentials"
	_, after, err := stepStates[json.RawMessage, frozenState](op, step)
	if err != nil {
		return after, err
	}
	whole := holdForm.MatchString(after.Hold) && len(after.Entries) > 0
	for key, level := range after.Entries {
		whole = whole && keyForm.MatchString(key) && (level == holdMint || level == holdAll)
	}
	if !whole {
		return after, remit.Errorf(remit.Invalid, op, "the step does not say what to freeze and for whom")
	}
	return after, nil
}

// Until when a policy that is new must have come into effect.
const (
	verifyPatience = 5 * time.Second
	verifyPause    = 100 * time.Millisecond
	maxProbes      = 50
)

// verifyFreeze asks for the entries and the policies, and then tries it: a
// ConfigMap that is not really to be made, in the name of one of the credentials,
// must be refused. It proves it for the API server that answers; others of the
// same cluster follow within moments.
func (e *Enforcer) verifyFreeze(ctx context.Context, step remit.Step) error {
	const op = "verify frozen credentials"
	after, err := frozenAfter(step)
	if err != nil {
		return err
	}
	var contained corev1.ConfigMap
	err = e.get(ctx, "ConfigMap", enforceSystemNamespace, containedName, &contained)
	if apierrors.IsNotFound(err) {
		return remit.Errorf(remit.Conflict, op, "the ConfigMap %s/%s is gone", enforceSystemNamespace, containedName)
	} else if err != nil {
		return e.explain(op, err)
	}
	for key, level := range after.Entries {
		if !slices.Contains(strings.Fields(contained.Data[key]), level+":"+after.Hold) {
			return remit.Errorf(remit.Conflict, op, "the entry %s of %s/%s has been changed", key, enforceSystemNamespace, containedName)
		}
	}
	if err := e.policiesCurrent(ctx, op); err != nil {
		return err
	}
	for end := time.Now().Add(verifyPatience); ; {
		refused, err := e.probeAll(ctx, after.Entries)
		if err != nil {
			return e.explain(op, err)
		}
		if refused {
			return nil
		}
		if time.Now().After(end) {
			return remit.Errorf(remit.Unavailable, op, "the API server does not act on the policy %s yet: try again", policyName)
		}
		if err := sleep(ctx, verifyPause); err != nil {
			return err
		}
	}
}

// probeAll says whether the policy refuses all of some credentials: another plan
// may have frozen one of them long ago. Beyond many, the rest is the same entry
// of the same ConfigMap.
func (e *Enforcer) probeAll(ctx context.Context, entries map[string]string) (refused bool, err error) {
	keys := sortedKeys(entries)
	for _, key := range keys[:min(len(keys), maxProbes)] {
		if refused, err := e.probe(ctx, key); err != nil || !refused {
			return false, err
		}
	}
	return true, nil
}

// probe says whether the policy refuses a credential.
func (e *Enforcer) probe(ctx context.Context, key string) (refused bool, err error) {
	request, err := e.request("POST", "ConfigMap", enforceSystemNamespace, "")
	if err != nil {
		return false, err
	}
	probe := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: probeName}, Data: map[string]string{probeKey: key}}
	err = e.send(ctx, request.Param("dryRun", metav1.DryRunAll).Body(probe), nil)
	if apierrors.IsInvalid(err) && strings.Contains(err.Error(), "Remit has contained") {
		return true, nil
	}
	return false, err
}

// policiesCurrent holds that the policies and their bindings are there and as
// Prepare makes them.
func (e *Enforcer) policiesCurrent(ctx context.Context, op string) error {
	self, err := e.self(ctx, op)
	if err != nil {
		return err
	}
	for _, policy := range desiredPolicies(self.Username) {
		var is admissionv1.ValidatingAdmissionPolicy
		var bound admissionv1.ValidatingAdmissionPolicyBinding
		err := e.get(ctx, "ValidatingAdmissionPolicy", "", policy.Name, &is)
		if err == nil {
			err = e.get(ctx, "ValidatingAdmissionPolicyBinding", "", policy.Name, &bound)
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return e.explain(op, err)
		}
		if err != nil || !equality.Semantic.DeepEqual(is.Spec, policy.Spec) || !equality.Semantic.DeepEqual(bound.Spec, desiredBinding(policy.Name).Spec) {
			e.current.Store(0)
			return remit.Errorf(remit.Conflict, op, "the admission policy %s or its binding is missing or not as Remit makes it: prepare again", policy.Name)
		}
	}
	e.current.Store(time.Now().Add(believes).UnixNano())
	return nil
}

// believes is for how long a plan takes it for granted that the policies are as they
// were seen. Whoever carries it out looks again.
const believes = 15 * time.Minute

func numbered(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
