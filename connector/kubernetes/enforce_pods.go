package kubernetes

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"remit"
	"remit/connector"
)

// podState is what a step about a pod found.
type podState struct {
	UID types.UID `json:"uid"`
}

// believed is for how long the API server goes on believing a token that has ended:
// it keeps what it found out for so long.
const believed = 10 * time.Second

// hangsOn is what the tokens of an order end with: pods that they are bound to, in
// order, each with the number of these, and Secrets that long-lived ones lie in. why
// is not "" when one hangs on neither, or none is known.
func hangsOn(o connector.Order) (pods []remit.Ref, tokens map[remit.Ref]int, secrets []remit.Credential, why string) {
	all := slices.Concat(o.Stolen, o.Forged)
	if len(all) == 0 {
		return nil, nil, nil, "no single credential is known to be stolen"
	}
	tokens = map[remit.Ref]int{}
	loose, one := 0, ""
	for _, c := range all {
		at := o.Bound[c]
		switch {
		case strings.HasPrefix(c, LegacyTokenPrefix):
			n := len(secrets)
			for _, in := range o.Credentials {
				// All of an account have one name in the log.
				if legacySecret(in) && in.Incarnation != "" && LoggedCredential(in) == c {
					secrets = append(secrets, in)
				}
			}
			if len(secrets) == n {
				loose, one = loose+1, c
			}
		case at.Kind == "Pod" && at.Name != "" && at.Namespace != "":
			if tokens[at]++; tokens[at] == 1 {
				pods = append(pods, at)
			}
		default:
			loose, one = loose+1, c
		}
	}
	if loose > 0 {
		return nil, nil, nil, fmt.Sprintf("%d of %d credentials are bound to no pod, and lie in no Secret that is known (%s)", loose, len(all), one)
	}
	slices.SortFunc(pods, func(a, b remit.Ref) int { return cmp.Compare(a.String(), b.String()) })
	return pods, tokens, secrets, ""
}

// planEnds ends tokens with what they hang on: what else the account runs goes on.
func (e *Enforcer) planEnds(ctx context.Context, pods []remit.Ref, tokens map[remit.Ref]int, secrets []remit.Credential) (connector.Planned, error) {
	const op = "plan containment"
	planned := connector.Planned{Why: []string{
		"All credentials hang on pods or Secrets, so these are deleted and not the account: the tokens end with them, and what else the account runs works on. What was minted otherwise and is in no log yet does not end by this.",
		"Ending tokens cannot be undone: the old ones never work again.",
	}}
	for _, ref := range pods {
		var pod corev1.Pod
		err := e.get(ctx, "Pod", ref.Namespace, ref.Name, &pod)
		if apierrors.IsNotFound(err) {
			planned.Why = append(planned.Why, fmt.Sprintf("The %s is gone, and the tokens that were bound to it with it.", ref))
			continue
		}
		if err != nil {
			return connector.Planned{}, e.explain(op, err)
		}
		planned.Steps = append(planned.Steps, podStep(&pod, ref, tokens[ref]))
	}
	for _, c := range secrets {
		step, err := e.deleteSecretStep(ctx, op, c)
		if remit.KindOf(err) == remit.NotFound {
			planned.Why = append(planned.Why, fmt.Sprintf("The %s is gone, and its token with it.", c.Ref))
			continue
		}
		if err != nil {
			return connector.Planned{}, err
		}
		step.Grade = remit.KillTokens
		planned.Steps, planned.Why = append(planned.Steps, step), append(planned.Why, secretWhy(c, c.Holder)...)
	}
	return planned, nil
}

func podStep(pod *corev1.Pod, ref remit.Ref, tokens int) remit.Step {
	grace := time.Duration(0)
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil && pod.Spec.NodeName != "" {
		grace = time.Duration(*s) * time.Second
	}
	breaks := "What it does stops. Nothing starts it again: it has no controller, and does not come back."
	if owner, _ := controller(pod); owner != (remit.Ref{}) {
		breaks = fmt.Sprintf("What it does stops, until its %s %s has started another in its place.", owner.Kind, owner.Name)
	}
	return remit.Step{
		Grade:  remit.KillTokens,
		Object: ref,
		Does: fmt.Sprintf("Delete the %s, so that what is bound to it (%s) ends: when it has stopped, for which it has %s, and at most %s later.",
			ref, numbered(tokens, "credential"), grace, believed),
		Diff:   lines("-", "uid: "+string(pod.UID)),
		Breaks: breaks,
		Before: mustJSON(podState{pod.UID}), After: mustJSON(struct{}{}),
	}
}

// podNow reads the pod of a step; nil when it is gone, or another has its name.
func (e *Enforcer) podNow(ctx context.Context, op string, step remit.Step) (*corev1.Pod, podState, error) {
	before, _, err := stepStates[podState, struct{}](op, step)
	if err != nil {
		return nil, before, err
	}
	if before.UID == "" || step.Object.Kind != "Pod" {
		return nil, before, remit.Errorf(remit.Invalid, op, "the step does not say which pod it is about")
	}
	var pod corev1.Pod
	err = e.get(ctx, "Pod", step.Object.Namespace, step.Object.Name, &pod)
	if apierrors.IsNotFound(err) || err == nil && pod.UID != before.UID {
		return nil, before, nil
	}
	return &pod, before, e.explain(op, err)
}

func (e *Enforcer) doPod(ctx context.Context, step remit.Step) error {
	const op = "delete a pod"
	pod, before, err := e.podNow(ctx, op, step)
	if err != nil || pod == nil || pod.DeletionTimestamp != nil {
		return err
	}
	request, err := e.request("DELETE", "Pod", step.Object.Namespace, step.Object.Name)
	if err != nil {
		return err
	}
	// With the uid, a deletion that was sent twice never meets a successor.
	err = e.send(ctx, request.Body(&metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &before.UID}}), nil)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // it is gone; a successor has another uid
	}
	return e.explain(op, err)
}

func (e *Enforcer) verifyPod(ctx context.Context, step remit.Step) error {
	const op = "verify a deleted pod"
	pod, _, err := e.podNow(ctx, op, step)
	switch {
	case err != nil || pod == nil:
		return err
	case pod.DeletionTimestamp != nil && len(pod.Finalizers) > 0:
		return remit.Errorf(remit.Conflict, op, "the %s is ending, and %s holds that up", step.Object, strings.Join(pod.Finalizers, ", "))
	case pod.DeletionTimestamp != nil:
		return remit.Errorf(remit.Conflict, op, "the %s has not ended yet, and its tokens work until it has", step.Object)
	}
	return remit.Errorf(remit.Conflict, op, "the %s is still there, and its tokens work", step.Object)
}

func (e *Enforcer) undoPod(_ context.Context, step remit.Step) error {
	return remit.Errorf(remit.Unsupported, "undo a deleted pod", "the %s cannot be brought back: its controller, if it has one, has started another", step.Object)
}
