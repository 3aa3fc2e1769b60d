package kubernetes

import (
	"context"
	"fmt"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"remit"
	"remit/connector"
)

// recreatedFrom marks an account that Remit made anew with the uid of the one
// that it replaced, so that after a crash it is known to be whole.
const recreatedFrom = "remit.dev/recreated-from"

// accountState is what is kept of an account to make it anew. It names Secrets
// and holds nothing of them.
type accountState struct {
	UID         types.UID                     `json:"uid,omitempty"`
	Labels      map[string]string             `json:"labels,omitempty"`
	Annotations map[string]string             `json:"annotations,omitempty"`
	Owners      []metav1.OwnerReference       `json:"owners,omitempty"`
	Secrets     []corev1.ObjectReference      `json:"secrets,omitempty"`
	Pull        []corev1.LocalObjectReference `json:"pull,omitempty"`
	Automount   *bool                         `json:"automount,omitempty"`
}

func stateOfAccount(a *corev1.ServiceAccount) accountState {
	return accountState{
		UID: a.UID, Labels: a.Labels, Annotations: a.Annotations, Owners: a.OwnerReferences,
		Secrets: a.Secrets, Pull: a.ImagePullSecrets, Automount: a.AutomountServiceAccountToken,
	}
}

// planTokens chooses the mildest that ends the tokens: the end of the pods and
// Secrets that all of them hang on, or the account made anew.
func (e *Enforcer) planTokens(ctx context.Context, identity remit.Ref, o connector.Order) (connector.Planned, error) {
	const op = "plan containment"
	var planned connector.Planned
	if identity.Kind != "ServiceAccount" {
		return planned, remit.Errorf(remit.Unsupported, op, "only the tokens of a service account can be ended, not what %s signs in with", identity)
	}
	pods, tokens, secrets, whole := hangsOn(o)
	if whole == "" {
		return e.planEnds(ctx, pods, tokens, secrets)
	}
	account, err := e.account(ctx, op, identity)
	if err != nil {
		return planned, err
	}
	if len(account.Finalizers) > 0 {
		return planned, remit.Errorf(remit.Unsupported, op, "%s cannot be made anew at once: %s holds its deletion up", identity, strings.Join(account.Finalizers, ", "))
	}
	before := stateOfAccount(account)
	after := before
	after.UID = ""
	after.Annotations = maps.Clone(before.Annotations)
	if after.Annotations == nil {
		after.Annotations = map[string]string{}
	}
	after.Annotations[recreatedFrom] = string(before.UID)
	planned.Steps = []remit.Step{{
		Grade:  remit.KillTokens,
		Object: identity,
		Does:   fmt.Sprintf("Delete %s and make it anew with the same labels, annotations and references, so that every token of it ends within about 10 seconds.", identity),
		Diff:   lines("-", "uid: "+string(before.UID)) + lines("+", "uid: a new one", "annotation "+recreatedFrom+": "+string(before.UID)),
		Breaks: fmt.Sprintf("Pods that run as %s are refused until they are started again. Long-lived token Secrets of it are deleted by the cluster and do not come back.", identity),
		Before: mustJSON(before), After: mustJSON(after),
	}}
	planned.Why = append(planned.Why, fmt.Sprintf("The whole account is made anew, and not single pods or Secrets deleted, because %s.", whole),
		"Ending tokens cannot be undone: the old ones never work again. Grants stay, as they go by name: a new token of the account may do what the old one might.")
	if manager := putsBack(&account.ObjectMeta); manager != "" {
		planned.Why = append(planned.Why, fmt.Sprintf("%s is managed by %s; that does no harm, as its tokens end all the same.", identity, manager))
	}
	return planned, nil
}

func (e *Enforcer) doTokens(ctx context.Context, step remit.Step) error {
	const op = "end tokens"
	before, after, err := stepStates[accountState, accountState](op, step)
	if err != nil {
		return err
	}
	if before.UID == "" || step.Object.Kind != "ServiceAccount" {
		return remit.Errorf(remit.Invalid, op, "the step does not say which account it is about")
	}
	err = e.untilAlone(ctx, func() error {
		var account corev1.ServiceAccount
		err := e.get(ctx, "ServiceAccount", step.Object.Namespace, step.Object.Name, &account)
		switch {
		case err != nil && !apierrors.IsNotFound(err):
			return err
		case err == nil && account.UID != before.UID:
			return e.complete(ctx, &account, before, after)
		case err == nil:
			if !equality.Semantic.DeepEqual(stateOfAccount(&account), before) {
				return remit.Errorf(remit.Conflict, op, "%s has been changed by somebody else since it was planned", step.Object)
			}
			request, err := e.request("DELETE", "ServiceAccount", step.Object.Namespace, step.Object.Name)
			if err != nil {
				return err
			}
			// With both, a deletion that was sent twice never meets the new one.
			only := &metav1.Preconditions{UID: &before.UID, ResourceVersion: &account.ResourceVersion}
			if err := e.send(ctx, request.Body(&metav1.DeleteOptions{Preconditions: only}), nil); err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		}
		made := &corev1.ServiceAccount{
			ObjectMeta: metav1.ObjectMeta{Name: step.Object.Name, Labels: after.Labels, Annotations: after.Annotations, OwnerReferences: after.Owners},
			Secrets:    after.Secrets, ImagePullSecrets: after.Pull, AutomountServiceAccountToken: after.Automount,
		}
		return e.create(ctx, "ServiceAccount", step.Object.Namespace, made)
	})
	return e.explained(op, err)
}

// complete gives an account that somebody else was quicker to make anew, as the
// controller does with those named default, what it had before. One that is
// marked was made by Remit, and what it lacks has been taken from it since.
func (e *Enforcer) complete(ctx context.Context, account *corev1.ServiceAccount, before, after accountState) error {
	if account.Annotations[recreatedFrom] == string(before.UID) {
		return nil
	}
	missing := func(has, wanted map[string]string) map[string]string {
		add := map[string]string{}
		for key, value := range wanted {
			if _, ok := has[key]; !ok {
				add[key] = value
			}
		}
		return add
	}
	annotations := missing(account.Annotations, after.Annotations)
	annotations[recreatedFrom] = string(before.UID)
	change := map[string]any{"metadata": map[string]any{"labels": missing(account.Labels, after.Labels), "annotations": annotations}}
	if len(account.ImagePullSecrets) == 0 && len(after.Pull) > 0 {
		change["imagePullSecrets"] = after.Pull
	}
	if len(account.Secrets) == 0 && len(after.Secrets) > 0 {
		change["secrets"] = after.Secrets
	}
	if account.AutomountServiceAccountToken == nil && after.Automount != nil {
		change["automountServiceAccountToken"] = *after.Automount
	}
	return e.patch(ctx, "ServiceAccount", account, change)
}

func (e *Enforcer) verifyTokens(ctx context.Context, step remit.Step) error {
	const op = "verify ended tokens"
	before, _, err := stepStates[accountState, accountState](op, step)
	if err != nil {
		return err
	}
	account, err := e.account(ctx, op, step.Object)
	switch {
	case remit.KindOf(err) == remit.NotFound:
		return remit.Errorf(remit.Conflict, op, "%s is gone: its tokens have ended, but it was not made anew", step.Object)
	case err == nil && account.UID == before.UID:
		return remit.Errorf(remit.Conflict, op, "%s is still the same, and its tokens work", step.Object)
	}
	return err
}

func (e *Enforcer) undoTokens(_ context.Context, step remit.Step) error {
	return remit.Errorf(remit.Unsupported, "undo ended tokens", "the old tokens of %s cannot be brought back: pods are given new ones when they start", step.Object)
}
