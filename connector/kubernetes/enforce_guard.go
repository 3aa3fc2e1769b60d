package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"remit"
	"remit/connector"
)

// The guard's policies and bindings are changed one by one, each by a step of its
// own. A step holds the whole spec that it found and the one that it is to leave,
// null for none, so that it can be carried out and undone without the
// configuration that it was made from.
const (
	kindPolicy  = "ValidatingAdmissionPolicy"
	kindBinding = "ValidatingAdmissionPolicyBinding"
)

// guardNames are the names of the guard's policies and of their bindings.
func guardNames() []string {
	names := make([]string, len(GuardRules))
	for i, r := range GuardRules {
		names[i] = r.policy()
	}
	return names
}

// guardObject is a policy or a binding of the guard as it is in the cluster.
type guardObject struct {
	kind    string
	policy  admissionv1.ValidatingAdmissionPolicy
	binding admissionv1.ValidatingAdmissionPolicyBinding
	exists  bool
}

func (o *guardObject) object() kubernetesObject {
	if o.kind == kindPolicy {
		return &o.policy
	}
	return &o.binding
}

func (e *Enforcer) guardObject(ctx context.Context, kind, name string) (guardObject, error) {
	o := guardObject{kind: kind}
	err := e.get(ctx, kind, "", name, o.object())
	if apierrors.IsNotFound(err) {
		// A cluster that does not know the kind at all does not name the object.
		var status *apierrors.StatusError
		if errors.As(err, &status) && status.ErrStatus.Details != nil && status.ErrStatus.Details.Name == name {
			return guardObject{kind: kind}, nil
		}
		return o, remit.Errorf(remit.Unsupported, "read guard", "the cluster has no %s: a guard needs Kubernetes 1.30: %w", kind, err)
	}
	o.exists = err == nil
	return o, err
}

// spec is what a step keeps of the object.
func (o *guardObject) spec() json.RawMessage {
	switch {
	case !o.exists:
		return json.RawMessage("null")
	case o.kind == kindPolicy:
		return mustJSON(o.policy.Spec)
	}
	return mustJSON(o.binding.Spec)
}

// is says whether the object is what a step holds.
func (o *guardObject) is(spec json.RawMessage) (bool, error) {
	if string(spec) == "null" || !o.exists {
		return string(spec) == "null" && !o.exists, nil
	}
	if o.kind == kindPolicy {
		var want admissionv1.ValidatingAdmissionPolicySpec
		err := json.Unmarshal(spec, &want)
		return equality.Semantic.DeepEqual(o.policy.Spec, want), err
	}
	var want admissionv1.ValidatingAdmissionPolicyBindingSpec
	err := json.Unmarshal(spec, &want)
	return equality.Semantic.DeepEqual(o.binding.Spec, want), err
}

// planGuard plans what brings the cluster to the guard that is configured, and
// away from what is not any more. No step: it is there.
func (e *Enforcer) planGuard(ctx context.Context) (connector.Planned, error) {
	const op = "plan guard"
	var planned connector.Planned
	if err := e.guard.Check(); err != nil {
		return planned, err
	}
	self, err := e.self(ctx, op)
	if err != nil {
		return planned, err
	}
	for _, rule := range GuardRules {
		add, err := e.planRule(ctx, rule, self.Username)
		if err != nil {
			return connector.Planned{}, err
		}
		planned.Steps = append(planned.Steps, add.Steps...)
		planned.Why = append(planned.Why, add.Why...)
	}
	if len(planned.Steps) == 0 {
		return planned, nil
	}
	why, err := e.explainAudiences(ctx)
	if err != nil {
		return connector.Planned{}, err
	}
	planned.Why = append(planned.Why, why...)
	if e.guard.State(GuardTokens) != GuardOff && !e.guard.NotExtended && e.guard.maxLifetime() < extendedLifetime {
		planned.Why = append(planned.Why,
			"The token that Kubernetes itself puts into every pod asks for an hour and is valid for a year: no pod could start if that were refused. To end it, run the API server with --service-account-extend-token-expiration=false and set extend_token_expiration: false.")
	}
	if e.guard.On() {
		planned.Why = append(planned.Why,
			"A policy acts a second or two after it is written. Logins of system:masters, nodes, the parts of the cluster, accounts of kube-system and Remit's own login ("+self.Username+") are never refused; what exists already stays as it is.")
	}
	return planned, nil
}

func (e *Enforcer) planRule(ctx context.Context, rule GuardRule, login string) (connector.Planned, error) {
	const op = "plan guard"
	var planned connector.Planned
	policy, binding := e.guard.objects(rule, login)
	state := e.guard.State(rule)
	isPolicy, err := e.guardObject(ctx, kindPolicy, rule.policy())
	if err != nil {
		return planned, e.explained(op, err)
	}
	isBinding, err := e.guardObject(ctx, kindBinding, rule.policy())
	if err != nil {
		return planned, e.explained(op, err)
	}
	wantPolicy, wantBinding := json.RawMessage("null"), json.RawMessage("null")
	if policy != nil {
		wantPolicy, wantBinding = mustJSON(policy.Spec), mustJSON(binding.Spec)
	}
	// Without its binding a policy does nothing, and so the binding is made last
	// and goes first.
	order := []struct {
		is   *guardObject
		want json.RawMessage
	}{{&isPolicy, wantPolicy}, {&isBinding, wantBinding}}
	if policy == nil {
		order[0], order[1] = order[1], order[0]
	}
	for _, one := range order {
		same, err := one.is.is(one.want)
		if err != nil {
			return planned, remit.Errorf(remit.Internal, op, "%w", err)
		}
		if !same {
			planned.Steps = append(planned.Steps, guardStep(rule, state, one.is, one.want))
		}
	}
	if len(planned.Steps) == 0 {
		return planned, nil
	}
	if state == GuardEnforce {
		if err := e.auditedEnough(rule, policy.Spec, &isPolicy, &isBinding); err != nil {
			return connector.Planned{}, err
		}
	}
	if state != GuardOff {
		planned.Why = append(planned.Why, fmt.Sprintf("Rule %s (%s): %s.", rule, state, rule.Title()))
	}
	return planned, nil
}

// guardStep is the step that makes an object what it is to be.
func guardStep(rule GuardRule, state GuardState, is *guardObject, want json.RawMessage) remit.Step {
	before := is.spec()
	step := remit.Step{
		Object: remit.Ref{Kind: is.kind, Name: rule.policy()},
		Diff:   guardDiff(before, want), Before: before, After: want,
	}
	what := "the policy"
	if is.kind == kindBinding {
		what = "the binding that puts the policy into effect"
	}
	switch {
	case string(want) == "null":
		step.Does, step.Undo = "Delete "+what+" of the rule "+string(rule)+".", "Make it anew, as it was."
	case !is.exists:
		step.Does, step.Undo = "Make "+what+" of the rule "+string(rule)+".", "Delete it."
	default:
		step.Does, step.Undo = "Change "+what+" of the rule "+string(rule)+".", "Change it back."
	}
	if is.kind == kindBinding && string(want) != "null" {
		switch state {
		case GuardAudit:
			step.Does += " It refuses nothing: who breaks the rule is warned, and the audit log says so."
		case GuardEnforce:
			step.Does += " Who breaks the rule is refused."
			step.Breaks = "Whoever makes what the rule refuses (" + rule.Title() + ")."
		}
	}
	return step
}

// guardDiff tells the difference of two specs line by line.
func guardDiff(before, after json.RawMessage) string {
	text := func(spec json.RawMessage) []string {
		if string(spec) == "null" {
			return nil
		}
		out, err := yaml.JSONToYAML(spec)
		if err != nil {
			return []string{string(spec)}
		}
		return strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	}
	a, b := text(before), text(after)
	// The longest common subsequence: both are some hundred lines at most.
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for k := len(b) - 1; k >= 0; k-- {
			if a[i] == b[k] {
				common[i][k] = common[i+1][k+1] + 1
			} else {
				common[i][k] = max(common[i+1][k], common[i][k+1])
			}
		}
	}
	var out strings.Builder
	for i, k := 0, 0; i < len(a) || k < len(b); {
		switch {
		case i < len(a) && k < len(b) && a[i] == b[k]:
			i, k = i+1, k+1
		case k == len(b) || i < len(a) && common[i+1][k] >= common[i][k+1]:
			out.WriteString(lines("-", a[i]))
			i++
		default:
			out.WriteString(lines("+", b[k]))
			k++
		}
	}
	return out.String()
}

// auditedEnough holds that a rule which is to be enforced has run in audit as it
// is, for as long as the configuration asks for: the server notes when an object
// was last written.
func (e *Enforcer) auditedEnough(rule GuardRule, want admissionv1.ValidatingAdmissionPolicySpec, policy, binding *guardObject) error {
	const op = "plan guard"
	if e.guard.AuditFor <= 0 {
		return nil
	}
	const mend = "the rule %s is to run in audit for %s before it is enforced, so that you see what it would refuse (remit guard report): %s; --now enforces it at once"
	days := guardSpan(int64(e.guard.AuditFor / time.Second))
	is := policy.policy.Spec
	is.FailurePolicy = want.FailurePolicy
	_, audited := Guard{Rules: map[GuardRule]GuardState{rule: GuardAudit}}.objects(rule, "")
	if !policy.exists || !binding.exists || !equality.Semantic.DeepEqual(binding.binding.Spec, audited.Spec) || !equality.Semantic.DeepEqual(is, want) {
		return remit.Errorf(remit.Forbidden, op, mend, rule, days, "set it to audit first, with everything else as it is to be")
	}
	since := written(&policy.policy)
	if b := written(&binding.binding); b.After(since) {
		since = b
	}
	if time.Since(since) < e.guard.AuditFor {
		return remit.Errorf(remit.Forbidden, op, mend, rule, days, "it runs since "+since.UTC().Format("2006-01-02 15:04 UTC")+" and can be enforced from "+since.Add(e.guard.AuditFor).UTC().Format("2006-01-02 15:04 UTC")+" on")
	}
	return nil
}

// written is when an object was last written, its status left aside.
func written(o metav1.Object) time.Time {
	at := o.GetCreationTimestamp().Time
	for _, f := range o.GetManagedFields() {
		if f.Subresource == "" && f.Time != nil && f.Time.After(at) {
			at = f.Time.Time
		}
	}
	return at
}

// explainAudiences refuses audiences without the API server's own: nobody would
// get a token any more that it accepts. Where that may not be asked, it says so.
func (e *Enforcer) explainAudiences(ctx context.Context) ([]string, error) {
	const op = "plan guard"
	if len(e.guard.Audiences) == 0 || e.guard.State(GuardTokens) == GuardOff {
		return nil, nil
	}
	issuer, err := e.issuer(ctx)
	if err != nil {
		return []string{"The API server does not tell its own audience, so see to it that it is among the audiences that are allowed: " + strings.Join(e.guard.Audiences, ", ") + "."}, nil
	}
	for _, a := range e.guard.Audiences {
		if a == issuer {
			return nil, nil
		}
	}
	return nil, remit.Errorf(remit.Invalid, op, "the audiences of the guard lack %q, the API server's own, for which most tokens are: add it", issuer)
}

// issuer asks the API server as whom it issues tokens, which is also the audience
// of those that name none, unless --api-audiences says otherwise.
func (e *Enforcer) issuer(ctx context.Context) (string, error) {
	rc, err := e.client.of(admissionv1.SchemeGroupVersion)
	if err != nil {
		return "", err
	}
	text, err := rc.Get().AbsPath("/.well-known/openid-configuration").MaxRetries(0).Timeout(enforceTimeout).DoRaw(quiet(ctx))
	if err != nil {
		return "", err
	}
	var found struct {
		Issuer string `json:"issuer"`
	}
	if err := json.Unmarshal(text, &found); err != nil || found.Issuer == "" {
		return "", remit.Errorf(remit.Unsupported, "ask for the issuer", "it is not told: %w", err)
	}
	return found.Issuer, nil
}

// guardStates reads a step of a guard, and refuses one about anything else.
func guardStates(step remit.Step) (rule GuardRule, before, after json.RawMessage, err error) {
	const op = "guard"
	rule = guardRuleOf(step.Object.Name)
	if rule == "" || step.Object.Kind != kindPolicy && step.Object.Kind != kindBinding {
		return "", nil, nil, remit.Errorf(remit.Invalid, op, "%s is not of Remit's guard", step.Object)
	}
	if step.Before == nil || step.After == nil {
		return "", nil, nil, remit.Errorf(remit.Invalid, op, "the step about %s does not say what was and what is to be", step.Object)
	}
	return rule, step.Before, step.After, nil
}

func (e *Enforcer) doGuard(ctx context.Context, step remit.Step) error {
	_, before, after, err := guardStates(step)
	if err != nil {
		return err
	}
	return e.setGuard(ctx, step.Object, before, after)
}

func (e *Enforcer) undoGuard(ctx context.Context, step remit.Step) error {
	_, before, after, err := guardStates(step)
	if err != nil {
		return err
	}
	return e.setGuard(ctx, step.Object, after, before)
}

func (e *Enforcer) verifyGuard(ctx context.Context, step remit.Step) error {
	const op = "verify guard"
	_, _, after, err := guardStates(step)
	if err != nil {
		return err
	}
	o, err := e.guardObject(ctx, step.Object.Kind, step.Object.Name)
	if err != nil {
		return e.explained(op, err)
	}
	same, err := o.is(after)
	switch {
	case err != nil:
		return remit.Errorf(remit.Invalid, op, "the step about %s cannot be read: %w", step.Object, err)
	case !same:
		return remit.Errorf(remit.Conflict, op, "%s is not as it was to be", step.Object)
	}
	return nil
}

// setGuard makes an object what it is to be, if it is as it was.
func (e *Enforcer) setGuard(ctx context.Context, ref remit.Ref, from, to json.RawMessage) error {
	const op = "guard"
	err := e.untilAlone(ctx, func() error {
		o, err := e.guardObject(ctx, ref.Kind, ref.Name)
		if err != nil {
			return err
		}
		if done, err := o.is(to); done || err != nil {
			return err
		}
		if as, err := o.is(from); !as || err != nil {
			if err == nil {
				err = remit.Errorf(remit.Conflict, op, "somebody has changed %s since: make a new plan", ref)
			}
			return err
		}
		return e.writeGuard(ctx, &o, ref.Name, to)
	})
	return e.explained(op, err)
}

// writeGuard writes one object, as long as nobody else has done so since it was
// read.
func (e *Enforcer) writeGuard(ctx context.Context, o *guardObject, name string, to json.RawMessage) error {
	if string(to) == "null" {
		request, err := e.request("DELETE", o.kind, "", name)
		if err != nil {
			return err
		}
		uid, version := o.object().GetUID(), o.object().GetResourceVersion()
		options := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}}
		if err := e.send(ctx, request.Body(options), nil); !apierrors.IsNotFound(err) {
			return err
		}
		return nil
	}
	var err error
	if o.kind == kindPolicy {
		o.policy.Spec = admissionv1.ValidatingAdmissionPolicySpec{}
		err = json.Unmarshal(to, &o.policy.Spec)
	} else {
		o.binding.Spec = admissionv1.ValidatingAdmissionPolicyBindingSpec{}
		err = json.Unmarshal(to, &o.binding.Spec)
	}
	if err != nil {
		return remit.Errorf(remit.Invalid, "guard", "the step about %s cannot be read: %w", name, err)
	}
	if !o.exists {
		meta := ownMeta(name)
		o.object().SetName(meta.Name)
		o.object().SetLabels(meta.Labels)
		return e.create(ctx, o.kind, "", o.object())
	}
	request, err := e.request("PUT", o.kind, "", name)
	if err != nil {
		return err
	}
	return e.send(ctx, request.Body(o.object()), nil)
}
