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
// request that changes something with the keys of one Secret. Reads do not
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
// A key says how much is held and of whom: "mint.", "all." or "refuse." and the
// credential or the account. Its value lists the plans that hold it, separated by
// spaces. Several may hold the same, and it is free when the last has let go. A
// person may write a key too, with whatever value. What is refused (see
// [Authorizer]) is held by "all." as well, since admission knows no "refuse".
//
// It is a Secret, though nothing in it is secret, because the API server follows
// Secrets for itself as long as it runs (a token is looked up there). Of the kinds
// that it follows for policies only, it forgets one for good as soon as no binding
// names it for a second: with a ConfigMap, a policy that was deleted and made anew,
// be it somebody else's, would be the end of containment until the next restart
// (https://github.com/kubernetes/kubernetes/issues/130887). A custom resource is
// taken up again, but is not there yet when an API server starts, and a policy that
// fails closed then refuses everything.
const (
	policyName    = "remit-containment"
	guardName     = "remit-containment-guard"
	containedName = "remit-contained"
	probeName     = "remit-probe" // never really made
	probeKey      = "credential"

	holdMint   = "mint"
	holdAll    = "all"
	holdRefuse = "refuse"

	// Kubernetes takes 1 MiB of values, etcd 1.5 MiB of everything: keys,
	// values and what the API server adds.
	maxContained = 1 << 20
	// The longest key that Kubernetes takes, without the level.
	maxCredential = 253 - len(holdRefuse+".")
)

// containedRef is the Secret that lists what is contained.
var containedRef = remit.Ref{Kind: "Secret", Namespace: enforceSystemNamespace, Name: containedName}

// credentialForm is how a credential's identifier looks in the audit log. What
// else a key may not hold cannot be part of one.
var credentialForm = regexp.MustCompile(`^(JTI|X509SHA256)=[-._a-zA-Z0-9]+$`)

// credentialKey names a credential in the keys of the Secret.
func credentialKey(credential string) (string, error) {
	if len(credential) > maxCredential || !credentialForm.MatchString(credential) {
		return "", remit.Errorf(remit.Invalid, "plan containment",
			"%q is no credential as Kubernetes' audit log writes them: JTI=… or X509SHA256=…, of at most %d characters", truncate(credential, 80), maxCredential)
	}
	return strings.Replace(credential, "=", "-", 1), nil
}

// credentialOfKey is the credential of a key, the inverse of credentialKey.
func credentialOfKey(key string) string { return strings.Replace(key, "-", "=", 1) }

// accountUser begins the user name of an account, and accountKey its key.
const (
	accountUser = "system:serviceaccount:"
	accountKey  = "SA-"
)

// keyOfAccount names an account in the keys of the Secret.
func keyOfAccount(ref remit.Ref) (string, bool) {
	key := accountKey + ref.Namespace + "_" + ref.Name
	return key, ref.Kind == "ServiceAccount" && keyForm.MatchString(key)
}

// freezeLevels says what is held of each credential and account, by its name. An
// account whose name would be too long is left out: its name is as long as it may be,
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
	isOwn = `(request.resource.group == "" && request.resource.resource == "secrets" && has(request.namespace) && request.namespace == "` + enforceSystemNamespace + `" && ` +
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

	// What a pod's own token may mint all the same.
	isPodsUnbound = `has(request.userInfo.extra) && "` + extraPod + `" in request.userInfo.extra && ` +
		`request.resource.resource == "serviceaccounts" && object != null && !(has(object.spec) && has(object.spec.boundObjectRef) && object.spec.boundObjectRef != null)`

	// A Secret of that type is filled with a token by the controller.
	isMint = `(request.operation == "CREATE" && (` +
		`(request.resource.group == "" && request.resource.resource == "serviceaccounts" && has(request.subResource) && request.subResource == "token") || ` +
		`(request.resource.group == "certificates.k8s.io" && request.resource.resource == "certificatesigningrequests") || ` +
		`(request.resource.group == "" && request.resource.resource == "secrets" && object != null && has(object.type) && object.type == "kubernetes.io/service-account-token")))`
)

// isHeld says whether what a variable names is held at a level. One that is absent
// is "", and nothing is held of it, whatever keys there are.
func isHeld(variable, level string) string {
	return `variables.` + variable + ` != "" && params != null && has(params.data) && "` + level + `." + variables.` + variable + ` in params.data`
}

// desiredPolicies are the policy that keeps what is frozen from freeing itself, and
// the one that freezes, in the order in which they are to be made. The one that
// freezes fails closed, so it leaves alone what it takes to repair it; the guard is
// about just that, and fails open. The guard comes first because API servers take
// policies up in the order in which they were made: a plan is verified by the other
// one, and where that acts, the guard does too.
func desiredPolicies(user string) []*admissionv1.ValidatingAdmissionPolicy {
	leaveOut := []admissionv1.MatchCondition{
		{Name: "has-credential", Expression: `(` + isProbe + `) || (` + hasCredential + `) || (` + isAccount + `)`},
		{Name: "not-masters", Expression: `(` + isProbe + `) || !has(request.userInfo.groups) || !("` + groupMasters + `" in request.userInfo.groups)`},
		{Name: "not-remit", Expression: `(` + isProbe + `) || !has(request.userInfo.username) || request.userInfo.username != ` + celString(user)},
	}
	variables := []admissionv1.Variable{
		{Name: "credential", Expression: credentialOfRequest},
		{Name: "account", Expression: accountOfRequest},
		{Name: "credentialAll", Expression: isHeld("credential", holdAll)},
		{Name: "credentialMint", Expression: isHeld("credential", holdMint)},
		{Name: "accountAll", Expression: isHeld("account", holdAll)},
		{Name: "accountMint", Expression: isHeld("account", holdMint)},
	}
	fail, ignore := admissionv1.Fail, admissionv1.Ignore
	freeze := newPolicy(policyName, fail, "*", "*/*")
	freeze.Spec.MatchConditions = append(slices.Clone(leaveOut), admissionv1.MatchCondition{Name: "not-own", Expression: `!(` + isOwn + `)`})
	freeze.Spec.Variables = variables
	freeze.Spec.Validations = []admissionv1.Validation{
		{
			Expression: `!variables.credentialAll`,
			Message:    "Remit has contained this credential: it may only read. Sign in with another, or ask whoever runs Remit.",
		},
		{
			Expression: `!variables.credentialMint || !(` + isMint + ` || (` + isProbe + `))`,
			Message:    "Remit has contained this credential: it may not make others. Sign in with another, or ask whoever runs Remit.",
		},
		{
			Expression: `!variables.accountAll || !` + isMint,
			Message:    "Remit has contained this account: it may not make credentials. Ask whoever runs Remit.",
		},
		{
			Expression: `!variables.accountMint || !` + isMint + ` || (` + isPodsUnbound + `)`,
			Message:    "Remit has contained this account: only its pods may make credentials for it, and none that are bound. Ask whoever runs Remit.",
		},
	}
	guard := newPolicy(guardName, ignore, "", "secrets", "namespaces")
	guard.Spec.MatchConstraints.ResourceRules = append(guard.Spec.MatchConstraints.ResourceRules,
		resourceRule("admissionregistration.k8s.io", "validatingadmissionpolicies", "validatingadmissionpolicybindings"))
	guard.Spec.MatchConditions = append(slices.Clone(leaveOut), admissionv1.MatchCondition{Name: "own", Expression: isOwn})
	guard.Spec.Variables = variables
	guard.Spec.Validations = []admissionv1.Validation{{
		Expression: `!variables.credentialAll && !variables.credentialMint && !variables.accountAll && !variables.accountMint`,
		Message:    "Remit has contained this credential: it may not change what contains it.",
	}}
	return []*admissionv1.ValidatingAdmissionPolicy{guard, freeze}
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
			ParamKind:     &admissionv1.ParamKind{APIVersion: "v1", Kind: "Secret"},
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

// prepareFreeze installs the policies. The Secret comes first: bound to none,
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

// ensureContained makes the Secret and its namespace where they are missing.
func (e *Enforcer) ensureContained(ctx context.Context) error {
	var contained corev1.Secret
	err := e.get(ctx, "Secret", enforceSystemNamespace, containedName, &contained)
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
	made := &corev1.Secret{ObjectMeta: ownMeta(containedName)}
	if err := e.create(ctx, "Secret", enforceSystemNamespace, made); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}

// frozenState is what a step of freezing found or is to leave, of its own
// credentials only.
type frozenState struct {
	Hold     string            `json:"hold,omitempty"`     // the plan, in After
	Identity *remit.Ref        `json:"identity,omitempty"` // whose they are, in After; nil in plans of older versions
	Entries  map[string]string `json:"entries"`            // of the Secret before, by key; the level of each name after
}

func (e *Enforcer) planFreeze(ctx context.Context, identity remit.Ref, levels map[string]string) (connector.Planned, error) {
	if len(levels) == 0 {
		return connector.Planned{}, remit.Errorf(remit.Invalid, "plan containment", "to freeze credentials the order must name some")
	}
	return e.planHold(ctx, identity, remit.FreezeCredentials, levels)
}

// planHold plans entries of the Secret, by the level of each name.
func (e *Enforcer) planHold(ctx context.Context, identity remit.Ref, grade remit.Grade, levels map[string]string) (connector.Planned, error) {
	const op = "plan containment"
	var planned connector.Planned
	var contained corev1.Secret
	err := e.get(ctx, "Secret", enforceSystemNamespace, containedName, &contained)
	if err != nil && !apierrors.IsNotFound(err) {
		return planned, e.explain(op, err)
	}
	var name [8]byte
	if _, err := rand.Read(name[:]); err != nil {
		return planned, err
	}
	before, after := frozenState{Entries: map[string]string{}}, frozenState{Hold: hex.EncodeToString(name[:]), Identity: &identity, Entries: levels}
	added := map[string][]byte{}
	minting, all, refused := 0, 0, 0
	var accounts, ended []string
	var diff strings.Builder
	for _, name := range sortedKeys(levels) {
		for _, key := range keysOf(name, levels[name]) {
			value, known := contained.Data[key]
			if known {
				before.Entries[key] = string(value)
				diff.WriteString(lines("-", key+": "+string(value)))
			}
			held := withHold(string(value), known, after.Hold)
			added[key] = []byte(held)
			diff.WriteString(lines("+", key+": "+held))
		}
		switch account, isAccount := strings.CutPrefix(name, accountKey); {
		case isAccount && levels[name] == holdAll:
			ended = append(ended, strings.Replace(account, "_", "/", 1))
		case isAccount:
			accounts = append(accounts, strings.Replace(account, "_", "/", 1))
		case levels[name] == holdRefuse:
			refused++
		case levels[name] == holdAll:
			all++
		default:
			minting++
		}
	}
	if err := containedFits(contained.Data, added); err != nil {
		return planned, err
	}
	step := remit.Step{
		Grade:  grade,
		Object: containedRef,
		Diff:   diff.String(),
		Undo:   "Take these entries out again; a credential that another plan holds as well stays as that one has it.",
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
	if refused > 0 {
		does = append(does, fmt.Sprintf("Refuse everything to %s of %s, reads too: Remit denies it when the API server asks.", numbered(refused, "credential"), identity))
		breaks = append(breaks, "Whoever uses one of these credentials is refused, a workload that it was stolen from as well, until it has another: a pod gets one when its node renews it, or when it is started again.")
	}
	if len(accounts) > 0 {
		does = append(does, fmt.Sprintf("Let pods alone mint as %s, and nothing that is bound: what was minted a moment ago has no name here yet.", strings.Join(accounts, ", ")))
		breaks = append(breaks, "Whatever mints as these accounts with a token that is bound to no pod no longer can.")
	}
	if len(ended) > 0 {
		does = append(does, fmt.Sprintf("Let nothing mint as %s: whoever holds a token that has ended could still make another, as long as the API server believes it.", strings.Join(ended, ", ")))
		breaks = append(breaks, "The account cannot mint tokens for others, until this is undone; its pods get theirs from their nodes.")
	}
	step.Does, step.Breaks = strings.Join(does, " "), strings.Join(breaks, " ")
	if grade == remit.RefuseCredentials {
		planned.Why = append(planned.Why, "A refused credential is frozen too: while Remit does not answer the API server it can read again, as far as the cluster's failurePolicy lets it, and not write. A login of the group system:masters cannot be refused.")
	} else {
		planned.Why = append(planned.Why, "A frozen credential can still read, act as whom it may impersonate, and change admission policies where it has the right to: admission sees none of these. Where the identity is an administrator, remove its grants as well. A login of the group system:masters cannot be frozen.")
	}
	planned.Steps = []remit.Step{step}
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

// keysOf are the keys of the Secret that hold a name at a level.
func keysOf(name, level string) []string {
	if level == holdRefuse {
		return []string{holdAll + "." + name, holdRefuse + "." + name}
	}
	return []string{level + "." + name}
}

// withHold adds a plan to the value of an entry, which is known or not there yet.
func withHold(value string, known bool, hold string) string {
	switch {
	case !known:
		return hold
	case slices.Contains(strings.Fields(value), hold):
		return value
	}
	return value + " " + hold
}

// withoutHold takes a plan out of the value of an entry. What else is in it stays to
// the letter; what the plan alone has made is no longer kept.
func withoutHold(value, hold string) (rest string, keep bool) {
	if value == hold {
		return "", false
	}
	padded := strings.ReplaceAll(" "+value+" ", " "+hold+" ", " ")
	value = padded[1 : len(padded)-1]
	if kept := strings.Fields(value); slices.Contains(kept, hold) { // somebody has set it apart otherwise
		value = strings.Join(slices.DeleteFunc(kept, func(s string) bool { return s == hold }), " ")
	}
	return value, true
}

func containedFits(data, added map[string][]byte) error {
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
			"the Secret %s/%s would hold %d bytes, and Kubernetes takes %d: undo plans of credentials that have expired, or remove the grants instead",
			enforceSystemNamespace, containedName, size, maxContained)
	}
	return nil
}

// changeContained changes the entries of a plan in the Secret, and touches no other.
// An entry that edit does not keep goes; one that is not known is not there yet.
func (e *Enforcer) changeContained(ctx context.Context, levels map[string]string, must bool, edit func(value string, known bool) (string, bool)) error {
	const op = "freeze credentials"
	err := e.untilAlone(ctx, func() error {
		var contained corev1.Secret
		err := e.get(ctx, "Secret", enforceSystemNamespace, containedName, &contained)
		if apierrors.IsNotFound(err) {
			if !must {
				return nil
			}
			if err = e.ensureContained(ctx); err == nil {
				err = e.get(ctx, "Secret", enforceSystemNamespace, containedName, &contained)
			}
		}
		if err != nil {
			return err
		}
		data, added := map[string]any{}, map[string][]byte{}
		for name, level := range levels {
			for _, key := range keysOf(name, level) {
				value, known := contained.Data[key]
				switch wanted, keep := edit(string(value), known); {
				case !keep && known:
					data[key] = nil
				case keep && (!known || wanted != string(value)):
					added[key] = []byte(wanted)
					data[key] = added[key]
				}
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
		return e.patch(ctx, "Secret", &contained, map[string]any{"data": data})
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
	err = e.changeContained(ctx, after.Entries, true, func(value string, known bool) (string, bool) {
		return withHold(value, known, after.Hold), true
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
	return e.changeContained(ctx, after.Entries, false, func(value string, known bool) (string, bool) {
		rest, keep := withoutHold(value, after.Hold)
		return rest, known && keep
	})
}

var (
	holdForm = regexp.MustCompile(`^[0-9a-f]{16}$`)
	keyForm  = regexp.MustCompile(fmt.Sprintf(`^[-._a-zA-Z0-9]{1,%d}$`, maxCredential))
)

func frozenAfter(step remit.Step) (frozenState, error) {
	const op = "freeze credentials"
	_, after, err := stepStates[json.RawMessage, frozenState](op, step)
	if err != nil {
		return after, err
	}
	whole := holdForm.MatchString(after.Hold) && len(after.Entries) > 0
	for key, level := range after.Entries {
		whole = whole && keyForm.MatchString(key) && (level == holdMint || level == holdAll || level == holdRefuse)
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
	var contained corev1.Secret
	err = e.get(ctx, "Secret", enforceSystemNamespace, containedName, &contained)
	if apierrors.IsNotFound(err) {
		return remit.Errorf(remit.Conflict, op, "%s is gone", containedRef)
	} else if err != nil {
		return e.explain(op, err)
	}
	for name, level := range after.Entries {
		for _, key := range keysOf(name, level) {
			if !slices.Contains(strings.Fields(string(contained.Data[key])), after.Hold) {
				return remit.Errorf(remit.Conflict, op, "the entry %s of %s has been changed", key, containedRef)
			}
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
// of the same Secret.
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
