package kubernetes

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"remit"
	"remit/connector"
)

// QuarantineMode is how a workload is stopped.
type QuarantineMode string

// The modes.
const (
	// QuarantineScaleDown has a workload's controller run no pods: its scale is
	// zero, it is suspended, or it finds no node. It is the default.
	QuarantineScaleDown QuarantineMode = "scale-down"
	// QuarantineIsolate leaves the pods, for a look at them, and takes the network
	// from them, where the cluster's network plugin enforces policies.
	QuarantineIsolate QuarantineMode = "isolate"
)

// QuarantineModes lists them.
var QuarantineModes = []QuarantineMode{QuarantineScaleDown, QuarantineIsolate}

// noNode is a label that no node has: a DaemonSet that asks for it runs nowhere. It
// has no scale that could be zero.
const noNode = "remit.dev/quarantined"

// runState is what a step about a workload found or is to leave: of its fields
// the one that its kind has.
type runState struct {
	UID          types.UID         `json:"uid"`
	Replicas     *int32            `json:"replicas,omitempty"`
	Suspend      *bool             `json:"suspend,omitempty"`
	NodeSelector map[string]string `json:"node_selector,omitempty"`
}

func (s runState) equal(o runState) bool { return bytes.Equal(mustJSON(s), mustJSON(o)) }

// stoppable is a workload as quarantine sees it.
type stoppable struct {
	kubernetesObject
	kind     string
	template *corev1.PodTemplateSpec
	selector *metav1.LabelSelector // of its pods; nil when only the labels of the template tell
	state    runState
	running  int32 // pods, as its controller says
	current  bool  // the controller has seen the state
	ended    bool  // a Job that is finished
}

// stoppableKinds are what quarantine can stop, in the order in which it does: what
// starts others comes first.
var stoppableKinds = []string{"CronJob", "Job", "Deployment", "StatefulSet", "ReplicaSet", "ReplicationController", "DaemonSet"}

func stoppableOf(o runtime.Object) *stoppable {
	var s stoppable
	observed := int64(0)
	switch o := o.(type) {
	case *batchv1.CronJob:
		s = stoppable{o, "CronJob", &o.Spec.JobTemplate.Spec.Template, nil, runState{Suspend: o.Spec.Suspend}, 0, true, false}
		observed = o.Generation
	case *batchv1.Job:
		done := slices.ContainsFunc(o.Status.Conditions, func(c batchv1.JobCondition) bool {
			return (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue
		})
		s = stoppable{o, "Job", &o.Spec.Template, o.Spec.Selector, runState{Suspend: o.Spec.Suspend}, o.Status.Active, true, done}
		observed = o.Generation // a Job does not tell
	case *appsv1.Deployment:
		s = stoppable{o, "Deployment", &o.Spec.Template, o.Spec.Selector, runState{Replicas: o.Spec.Replicas}, o.Status.Replicas, true, false}
		observed = o.Status.ObservedGeneration
	case *appsv1.StatefulSet:
		s = stoppable{o, "StatefulSet", &o.Spec.Template, o.Spec.Selector, runState{Replicas: o.Spec.Replicas}, o.Status.Replicas, true, false}
		observed = o.Status.ObservedGeneration
	case *appsv1.ReplicaSet:
		s = stoppable{o, "ReplicaSet", &o.Spec.Template, o.Spec.Selector, runState{Replicas: o.Spec.Replicas}, o.Status.Replicas, true, false}
		observed = o.Status.ObservedGeneration
	case *corev1.ReplicationController:
		s = stoppable{o, "ReplicationController", o.Spec.Template, &metav1.LabelSelector{MatchLabels: o.Spec.Selector}, runState{Replicas: o.Spec.Replicas}, o.Status.Replicas, true, false}
		observed = o.Status.ObservedGeneration
	case *appsv1.DaemonSet:
		s = stoppable{o, "DaemonSet", &o.Spec.Template, o.Spec.Selector, runState{NodeSelector: o.Spec.Template.Spec.NodeSelector}, o.Status.CurrentNumberScheduled + o.Status.NumberMisscheduled, true, false}
		observed = o.Status.ObservedGeneration
	}
	if s.kubernetesObject == nil || s.template == nil {
		return nil
	}
	s.state.UID, s.current = s.GetUID(), observed >= s.GetGeneration()
	return &s
}

func (s *stoppable) ref() remit.Ref {
	return remit.Ref{Kind: s.kind, Namespace: s.GetNamespace(), Name: s.GetName()}
}

// stopped is the state in which it runs nothing.
func (s *stoppable) stopped() runState {
	out := runState{UID: s.state.UID}
	switch s.kind {
	case "CronJob", "Job":
		yes := true
		out.Suspend = &yes
	case "DaemonSet":
		out.NodeSelector = maps.Clone(s.state.NodeSelector)
		if out.NodeSelector == nil {
			out.NodeSelector = map[string]string{}
		}
		out.NodeSelector[noNode] = "true"
	default:
		out.Replicas = new(int32)
	}
	return out
}

// listed lists the objects of a kind in a namespace.
func (e *Enforcer) listed(ctx context.Context, op string, l *listing, namespace, fields string) ([]runtime.Object, error) {
	var out []runtime.Object
	options := metav1.ListOptions{Limit: pageLimit, FieldSelector: fields}
	for tries := 1; ; {
		next, _, err := e.client.page(ctx, l, namespace, options, func(o runtime.Object) { out = append(out, o) })
		switch {
		case err != nil && judgeError(err) == anew && tries < enforceTries:
			tries++
			out, options.Continue = nil, ""
		case err != nil:
			return nil, e.explain(op, err)
		case next == "":
			return out, nil
		default:
			options.Continue = next
		}
	}
}

// workloadsOf finds what runs as an account: the workloads whose pods would, and of
// the pods that run those that none of these controls.
func (e *Enforcer) workloadsOf(ctx context.Context, op string, account remit.Ref) (all []*stoppable, alone []*corev1.Pod, pods []*corev1.Pod, err error) {
	for _, kind := range stoppableKinds {
		found, err := e.listed(ctx, op, listingOf[kind], account.Namespace, "")
		if err != nil {
			return nil, nil, nil, err
		}
		for _, o := range found {
			s := stoppableOf(o)
			if s == nil || s.ended || cmp.Or(s.template.Spec.ServiceAccountName, "default") != account.Name {
				continue
			}
			if owner, _ := controller(s); s.kind == "ReplicaSet" && owner.Kind == "Deployment" {
				continue // its Deployment says how many there are
			}
			all = append(all, s)
		}
	}
	found, err := e.listed(ctx, op, listingOf["Pod"], account.Namespace, "")
	if err != nil {
		return nil, nil, nil, err
	}
	for _, o := range found {
		pod, ok := o.(*corev1.Pod)
		if !ok || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		pods = append(pods, pod)
		if cmp.Or(pod.Spec.ServiceAccountName, "default") != account.Name {
			continue
		}
		if owner, _ := controller(pod); !slices.Contains(stoppableKinds, owner.Kind) {
			alone = append(alone, pod)
		}
	}
	return all, alone, pods, nil
}

func (e *Enforcer) planQuarantine(ctx context.Context, identity remit.Ref) (connector.Planned, error) {
	const op = "plan containment"
	if identity.Kind != "ServiceAccount" {
		return connector.Planned{}, remit.Errorf(remit.Unsupported, op, "only what runs as a service account can be quarantined: nothing runs as %s", identity)
	}
	all, alone, pods, err := e.workloadsOf(ctx, op, identity)
	if err != nil {
		return connector.Planned{}, err
	}
	var planned connector.Planned
	if len(all) == 0 && len(alone) == 0 {
		planned.Why = append(planned.Why, fmt.Sprintf("Nothing runs as %s: there is nothing to stop.", identity))
		return planned, nil
	}
	if e.quarantine == QuarantineIsolate {
		return e.planIsolation(ctx, identity, all, alone, pods)
	}
	for _, s := range all {
		after := s.stopped()
		if s.state.equal(after) {
			planned.Why = append(planned.Why, fmt.Sprintf("The %s runs nothing already.", s.ref()))
			continue
		}
		planned.Steps = append(planned.Steps, s.step(after))
		if manager := putsBack(&metav1.ObjectMeta{Labels: s.GetLabels(), Annotations: s.GetAnnotations(), ManagedFields: s.GetManagedFields()}); manager != "" {
			planned.Why = append(planned.Why, fmt.Sprintf("The %s is managed by %s: stop it at its source as well.", s.ref(), manager))
		}
		if owner, _ := controller(s); owner != (remit.Ref{}) && !slices.Contains(stoppableKinds, owner.Kind) {
			planned.Why = append(planned.Why, fmt.Sprintf("The %s is controlled by %s %s, which may start it again.", s.ref(), owner.Kind, owner.Name))
		}
	}
	if len(alone) > 0 {
		if len(planned.Steps) == 0 {
			return planned, remit.Errorf(remit.Unsupported, op, "what runs as %s cannot be scaled down, as no controller has a scale for it (%s): isolate it instead (quarantine: isolate), or end its tokens", identity, podNames(alone))
		}
		planned.Why = append(planned.Why, fmt.Sprintf("Left running, as no controller has a scale for them: %s. To delete them would be for good; isolate them instead.", podNames(alone)))
	}
	return planned, nil
}

func podNames(pods []*corev1.Pod) string {
	const most = 5
	var names []string
	for _, p := range pods[:min(len(pods), most)] {
		names = append(names, p.Name)
	}
	if len(pods) > most {
		names = append(names, fmt.Sprintf("and %d more", len(pods)-most))
	}
	return "pods " + strings.Join(names, ", ")
}

// step stops a workload.
func (s *stoppable) step(after runState) remit.Step {
	step := remit.Step{
		Grade: remit.Quarantine, Object: s.ref(), Before: mustJSON(s.state), After: mustJSON(after),
		Undo: "Give it back what it had; it starts its pods anew.",
	}
	switch s.kind {
	case "CronJob":
		step.Does, step.Breaks = fmt.Sprintf("Suspend the %s: it starts no more Jobs.", s.ref()), "Its runs are missed, and not made up for."
		step.Undo = "Let it start Jobs again at its times."
	case "Job":
		step.Does, step.Breaks = fmt.Sprintf("Suspend the %s: its pods are deleted.", s.ref()), "Its work stops, and begins again with new pods when it is undone."
	case "DaemonSet":
		step.Does = fmt.Sprintf("Have the %s run on no node, by a node selector that none has: a DaemonSet has no scale.", s.ref())
		step.Breaks = "Its pods stop on every node."
		step.Diff = lines("+", "nodeSelector "+noNode+": true")
		return step
	default:
		was := "1"
		if s.state.Replicas != nil {
			was = strconv.Itoa(int(*s.state.Replicas))
		}
		step.Does, step.Breaks = fmt.Sprintf("Scale the %s down to zero: its pods are deleted.", s.ref()), "What it does stops; what is only in its pods is lost."
		step.Undo = "Scale it up again to " + was + "."
		step.Diff = lines("-", "replicas: "+was) + lines("+", "replicas: 0")
		return step
	}
	step.Diff = lines("-", "suspend: false") + lines("+", "suspend: true")
	return step
}

// workloadNow reads the workload of a step, which must still be the one that was
// planned for.
func (e *Enforcer) workloadNow(ctx context.Context, op string, step remit.Step, planned runState) (*stoppable, error) {
	l := listingOf[step.Object.Kind]
	if !slices.Contains(stoppableKinds, step.Object.Kind) || planned.UID == "" {
		return nil, remit.Errorf(remit.Invalid, op, "the step does not say which workload it is about")
	}
	o := l.newObject()
	err := e.get(ctx, step.Object.Kind, step.Object.Namespace, step.Object.Name, o)
	if apierrors.IsNotFound(err) {
		return nil, remit.Errorf(remit.Conflict, op, "the %s has been deleted since it was planned", step.Object)
	}
	if err != nil {
		return nil, err
	}
	s := stoppableOf(o)
	if s == nil || s.state.UID != planned.UID {
		return nil, remit.Errorf(remit.Conflict, op, "the %s has been made anew since it was planned", step.Object)
	}
	return s, nil
}

// setWorkload makes a workload run as it is to, if it does as it did.
func (e *Enforcer) setWorkload(ctx context.Context, op string, step remit.Step, from, to runState) error {
	err := e.untilAlone(ctx, func() error {
		s, err := e.workloadNow(ctx, op, step, to)
		if err != nil || s.state.equal(to) {
			return err
		}
		if s.ended {
			return nil // a finished Job runs nothing, and cannot be started again
		}
		if !s.state.equal(from) {
			return remit.Errorf(remit.Conflict, op, "the %s has been changed by somebody else since it was planned", step.Object)
		}
		var spec map[string]any
		switch s.kind {
		case "CronJob", "Job":
			spec = map[string]any{"suspend": to.Suspend}
		case "DaemonSet":
			selector := map[string]any{}
			for key := range from.NodeSelector {
				selector[key] = nil
			}
			for key, value := range to.NodeSelector {
				selector[key] = value
			}
			spec = map[string]any{"template": map[string]any{"spec": map[string]any{"nodeSelector": selector}}}
		default:
			spec = map[string]any{"replicas": to.Replicas}
		}
		return e.patch(ctx, s.kind, s, map[string]any{"spec": spec})
	})
	return e.explained(op, err)
}

func (e *Enforcer) doQuarantine(ctx context.Context, step remit.Step) error {
	const op = "quarantine"
	if step.Object.Kind == "NetworkPolicy" {
		return e.doIsolate(ctx, step)
	}
	before, after, err := stepStates[runState, runState](op, step)
	if err != nil {
		return err
	}
	return e.setWorkload(ctx, op, step, before, after)
}

func (e *Enforcer) undoQuarantine(ctx context.Context, step remit.Step) error {
	const op = "end a quarantine"
	if step.Object.Kind == "NetworkPolicy" {
		return e.undoIsolate(ctx, step)
	}
	before, after, err := stepStates[runState, runState](op, step)
	if err != nil {
		return err
	}
	return e.setWorkload(ctx, op, step, after, before)
}

func (e *Enforcer) verifyQuarantine(ctx context.Context, step remit.Step) error {
	const op = "verify a quarantine"
	if step.Object.Kind == "NetworkPolicy" {
		return e.verifyIsolate(ctx, step)
	}
	_, after, err := stepStates[runState, runState](op, step)
	if err != nil {
		return err
	}
	s, err := e.workloadNow(ctx, op, step, after)
	switch {
	case err != nil:
		return e.explained(op, err)
	case s.ended:
		return nil
	case !s.state.equal(after):
		return remit.Errorf(remit.Conflict, op, "the %s has been started again", step.Object)
	case !s.current || s.running > 0:
		return remit.Errorf(remit.Conflict, op, "the %s still runs pods", step.Object)
	}
	return nil
}

// isolation is what a step about a NetworkPolicy is to leave. Nothing was before.
type isolation struct {
	Spec networkingv1.NetworkPolicySpec `json:"spec"`
}

// quarantinePrefix begins the name of a policy that isolates.
const quarantinePrefix = "remit-quarantine-"

var networkPolicies = &listing{
	group: networkingv1.GroupName, version: "v1", resource: "networkpolicies", kind: "NetworkPolicy", namespaced: true,
	newObject: newObject[networkingv1.NetworkPolicy],
}

// planIsolation makes a policy for the pods of each workload, which allows nothing.
// An empty selector, which would mean every pod, is never made.
func (e *Enforcer) planIsolation(ctx context.Context, identity remit.Ref, all []*stoppable, alone, pods []*corev1.Pod) (connector.Planned, error) {
	const op = "plan containment"
	planned := connector.Planned{Why: []string{
		"A NetworkPolicy takes effect only where the cluster's network plugin enforces policies (Calico, Cilium and most others; not flannel by itself, nor kubenet). Whether it does cannot be seen from here: try it. Pods on the node's own network are not touched by it.",
	}}
	type target struct {
		ref      remit.Ref
		selector metav1.LabelSelector
		labels   map[string]string // of its pods
	}
	var targets []target
	for _, s := range all {
		t := target{ref: s.ref(), labels: s.template.Labels}
		if s.selector != nil {
			t.selector = *s.selector
		} else {
			t.selector.MatchLabels = s.template.Labels
		}
		targets = append(targets, t)
	}
	for _, p := range alone {
		targets = append(targets, target{remit.Ref{Kind: "Pod", Namespace: p.Namespace, Name: p.Name}, metav1.LabelSelector{MatchLabels: p.Labels}, p.Labels})
	}
	policies, err := e.listed(ctx, op, networkPolicies, identity.Namespace, "")
	if err != nil {
		return planned, err
	}
	known := map[string]bool{}
	for _, t := range targets {
		selector, err := metav1.LabelSelectorAsSelector(&t.selector)
		if err != nil || selector.Empty() {
			planned.Why = append(planned.Why, fmt.Sprintf("The pods of %s cannot be selected, as they have no labels: they are left as they are.", t.ref))
			continue
		}
		if known[selector.String()] {
			continue
		}
		known[selector.String()] = true
		var name [8]byte
		_, _ = rand.Read(name[:]) // never fails (crypto/rand)
		step := remit.Step{
			Grade:  remit.Quarantine,
			Object: remit.Ref{Kind: "NetworkPolicy", Namespace: identity.Namespace, Name: quarantinePrefix + hex.EncodeToString(name[:])},
			Does:   fmt.Sprintf("Take the network from the pods of %s: nothing reaches them, and they reach nothing.", t.ref),
			Diff:   lines("+", "pods "+selector.String(), "allowed in: nothing", "allowed out: nothing"),
			Breaks: "What it does over the network stops; the pods go on running." + others(identity, selector, pods),
			Undo:   "Delete the policy.",
			Before: mustJSON(struct{}{}),
			After: mustJSON(isolation{networkingv1.NetworkPolicySpec{
				PodSelector: t.selector, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
			}}),
		}
		planned.Steps = append(planned.Steps, step)
		for _, o := range policies {
			if p, ok := o.(*networkingv1.NetworkPolicy); ok && lets(p, t.labels) {
				planned.Why = append(planned.Why, fmt.Sprintf("The NetworkPolicy %s lets the pods of %s have some traffic all the same: policies add up, and one that allows nothing takes nothing away. Delete it, or scale down instead.", p.Name, t.ref))
			}
		}
	}
	if len(planned.Steps) == 0 {
		return planned, remit.Errorf(remit.Unsupported, op, "what runs as %s cannot be isolated, as its pods have no labels: scale it down instead (quarantine: scale-down)", identity)
	}
	return planned, nil
}

// others names the pods of other accounts that a selector meets as well.
func others(identity remit.Ref, selector labels.Selector, pods []*corev1.Pod) string {
	var met []*corev1.Pod
	for _, p := range pods {
		if cmp.Or(p.Spec.ServiceAccountName, "default") != identity.Name && selector.Matches(labels.Set(p.Labels)) {
			met = append(met, p)
		}
	}
	if len(met) == 0 {
		return ""
	}
	return fmt.Sprintf(" The same labels meet pods of other accounts, which lose the network too: %s.", podNames(met))
}

// lets says whether a policy of somebody else lets pods with these labels have any
// traffic.
func lets(p *networkingv1.NetworkPolicy, podLabels map[string]string) bool {
	if strings.HasPrefix(p.Name, quarantinePrefix) || len(p.Spec.Ingress)+len(p.Spec.Egress) == 0 {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
	return err == nil && selector.Matches(labels.Set(podLabels))
}

// isolationNow reads the policy of a step; nil when it is not there. A
// [remit.Conflict] is one that is not as the step makes it.
func (e *Enforcer) isolationNow(ctx context.Context, op string, step remit.Step) (*networkingv1.NetworkPolicy, isolation, error) {
	_, after, err := stepStates[struct{}, isolation](op, step)
	if err != nil {
		return nil, after, err
	}
	s := after.Spec.PodSelector
	if !strings.HasPrefix(step.Object.Name, quarantinePrefix) || len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		return nil, after, remit.Errorf(remit.Invalid, op, "the step does not say which pods it isolates")
	}
	var p networkingv1.NetworkPolicy
	err = e.get(ctx, "NetworkPolicy", step.Object.Namespace, step.Object.Name, &p)
	switch {
	case apierrors.IsNotFound(err):
		return nil, after, nil
	case err != nil:
		return nil, after, e.explain(op, err)
	case !equality.Semantic.DeepEqual(p.Spec, after.Spec):
		return nil, after, remit.Errorf(remit.Conflict, op, "the %s has been changed by somebody else", step.Object)
	}
	return &p, after, nil
}

func (e *Enforcer) doIsolate(ctx context.Context, step remit.Step) error {
	const op = "isolate"
	p, after, err := e.isolationNow(ctx, op, step)
	if err != nil || p != nil {
		return err
	}
	err = e.create(ctx, "NetworkPolicy", step.Object.Namespace, &networkingv1.NetworkPolicy{ObjectMeta: ownMeta(step.Object.Name), Spec: after.Spec})
	if apierrors.IsAlreadyExists(err) { // the same step, by another process
		_, _, err := e.isolationNow(ctx, op, step)
		return err
	}
	return e.explain(op, err)
}

func (e *Enforcer) verifyIsolate(ctx context.Context, step remit.Step) error {
	const op = "verify an isolation"
	p, _, err := e.isolationNow(ctx, op, step)
	if err == nil && p == nil {
		return remit.Errorf(remit.Conflict, op, "the %s is gone", step.Object)
	}
	return err
}

func (e *Enforcer) undoIsolate(ctx context.Context, step remit.Step) error {
	const op = "end an isolation"
	p, _, err := e.isolationNow(ctx, op, step)
	if err != nil || p == nil {
		return err
	}
	request, err := e.request("DELETE", "NetworkPolicy", step.Object.Namespace, step.Object.Name)
	if err != nil {
		return err
	}
	only := &metav1.Preconditions{UID: &p.UID, ResourceVersion: &p.ResourceVersion}
	if err := e.send(ctx, request.Body(&metav1.DeleteOptions{Preconditions: only}), nil); err != nil && !apierrors.IsNotFound(err) {
		return e.explain(op, err)
	}
	return nil
}
