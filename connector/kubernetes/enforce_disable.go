package kubernetes

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"remit"
	"remit/connector"
)

// partOfCluster refuses to end what the cluster itself runs as. Containing it is
// allowed, for that is an emergency.
func partOfCluster(op string, identity remit.Ref) error {
	if identity.Kind == "ServiceAccount" && identity.Namespace == metav1.NamespaceSystem {
		return remit.Errorf(remit.Forbidden, op, "%s is a part of the cluster itself, which would not work without it: in an emergency contain it", identity)
	}
	return ownNamespace(op, identity)
}

// ownNamespace refuses to touch what Remit itself runs as.
func ownNamespace(op string, identity remit.Ref) error {
	if identity.Kind == "ServiceAccount" && identity.Namespace == enforceSystemNamespace {
		return remit.Errorf(remit.Forbidden, op, "%s is one of Remit's own: change it by hand", identity)
	}
	return nil
}

// legacyOf are the long-lived tokens of an account among some credentials, each
// of which has a Secret of its own.
func legacyOf(identity remit.Ref, credentials []remit.Credential) (out []remit.Credential) {
	for _, c := range credentials {
		if legacySecret(c) && c.Holder == identity {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b remit.Credential) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// planDisable takes an identity all it may do and every way in, so that it can be
// put back exactly.
func (e *Enforcer) planDisable(ctx context.Context, o connector.Order) (connector.Planned, error) {
	const op = "plan to disable"
	var planned connector.Planned
	identity, err := orderedIdentity(op, o)
	if err != nil {
		return planned, err
	}
	if err := e.mayContain(ctx, op, identity); err != nil {
		return planned, err
	}
	if err := partOfCluster(op, identity); err != nil {
		return planned, err
	}
	if identity.Kind == "Node" {
		return planned, remit.Errorf(remit.Unsupported, op, "what a node may do is decided by the node authorizer: drain it and delete the Node")
	}
	add := func(more connector.Planned) {
		planned.Steps, planned.Why = append(planned.Steps, more.Steps...), append(planned.Why, more.Why...)
	}
	levels, unfrozen := frozenOf(o.Stolen, o.Forged)
	if identity.Kind == "ServiceAccount" {
		account, err := e.account(ctx, op, identity)
		if err != nil {
			return planned, err
		}
		add(planAutomount(identity, account))
		for _, c := range legacyOf(identity, o.Credentials) {
			if c.Status != remit.Active {
				continue
			}
			if c.Incarnation == "" {
				return connector.Planned{}, remit.Errorf(remit.Invalid, op, "the inventory does not know the uid of the %s: scan the cluster itself first", c.Ref)
			}
			planned.Steps = append(planned.Steps, invalidateStep(c, time.Now()))
			unfrozen = 0 // the log knows them all under one name
		}
	}
	if len(levels) > 0 {
		freeze, err := e.planFreeze(ctx, identity, levels)
		if err != nil {
			return connector.Planned{}, err
		}
		for i := range freeze.Steps {
			freeze.Steps[i].Does = fmt.Sprintf("Refuse whatever %s of %s would change, mint or connect to.", numbered(len(levels), "live credential"), identity)
			freeze.Steps[i].Breaks = fmt.Sprintf("Everything that signs in as %s can only read, and without grants of its own not even that.", identity)
		}
		add(freeze)
	}
	if unfrozen > 0 {
		planned.Why = append(planned.Why, fmt.Sprintf("%s in the log cannot be frozen, as admission does not see which it is: without grants it may do nothing of its own.", numbered(unfrozen, "credential")))
	}
	switch grants, err := e.planGrants(ctx, identity); {
	case err == nil:
		add(grants)
	case remit.KindOf(err) == remit.NotFound && len(planned.Steps) > 0:
		planned.Why = append(planned.Why, fmt.Sprintf("No binding names %s: there is no grant of its own to take away.", identity))
	default:
		return connector.Planned{}, err
	}
	if identity.Kind == "ServiceAccount" {
		planned.Why = append(planned.Why, "A pod that names the token in its own volumes, or asks for it in its own spec, is still given one when it starts: with that it may do nothing, as no grant of its own is left.")
	} else {
		planned.Why = append(planned.Why, fmt.Sprintf("The cluster keeps no list of logins: %s can sign in again with a credential that Remit has not seen. Disable it where it signs in, too.", identity))
	}
	return planned, nil
}

// automountState is what a step about automounting found or is to leave.
type automountState struct {
	UID       types.UID `json:"uid"`
	Automount *bool     `json:"automount,omitempty"`
}

func planAutomount(identity remit.Ref, account *corev1.ServiceAccount) connector.Planned {
	var planned connector.Planned
	is := account.AutomountServiceAccountToken
	if is != nil && !*is {
		return planned
	}
	no := false
	diff := lines("+", "automountServiceAccountToken: false")
	if is != nil {
		diff = lines("-", "automountServiceAccountToken: "+strconv.FormatBool(*is)) + diff
	}
	planned.Steps = []remit.Step{{
		Change: changeAutomount,
		Object: identity,
		Does:   fmt.Sprintf("Give pods that start as %s no token any more.", identity),
		Diff:   diff,
		Breaks: fmt.Sprintf("Pods that start as %s from then on find no token where they look for it.", identity),
		Undo:   "Set automountServiceAccountToken to what it was.",
		Before: mustJSON(automountState{account.UID, is}), After: mustJSON(automountState{account.UID, &no}),
	}}
	if manager := putsBack(&account.ObjectMeta); manager != "" {
		planned.Why = []string{fmt.Sprintf("%s is managed by %s: change it at its source as well.", identity, manager)}
	}
	return planned
}

// automountNow reads the account of a step, which must still be the one that was
// planned for.
func (e *Enforcer) automountNow(ctx context.Context, op string, step remit.Step, uid types.UID) (*corev1.ServiceAccount, error) {
	if uid == "" || step.Object.Kind != "ServiceAccount" {
		return nil, remit.Errorf(remit.Invalid, op, "the step does not say which account it is about")
	}
	account, err := e.account(ctx, op, step.Object)
	switch {
	case remit.KindOf(err) == remit.NotFound:
		return nil, remit.Errorf(remit.Conflict, op, "%s has been deleted since it was planned", step.Object)
	case err == nil && account.UID != uid:
		return nil, remit.Errorf(remit.Conflict, op, "%s has been made anew since it was planned", step.Object)
	}
	return account, err
}

func (e *Enforcer) setAutomount(ctx context.Context, op string, step remit.Step, from, to automountState) error {
	err := e.untilAlone(ctx, func() error {
		account, err := e.automountNow(ctx, op, step, to.UID)
		switch {
		case err != nil, equality.Semantic.DeepEqual(account.AutomountServiceAccountToken, to.Automount):
			return err
		case !equality.Semantic.DeepEqual(account.AutomountServiceAccountToken, from.Automount):
			return remit.Errorf(remit.Conflict, op, "automountServiceAccountToken of %s has been changed by somebody else since it was planned", step.Object)
		}
		return e.patch(ctx, "ServiceAccount", account, map[string]any{"automountServiceAccountToken": to.Automount})
	})
	return e.explained(op, err)
}

func (e *Enforcer) doAutomount(ctx context.Context, step remit.Step) error {
	const op = "stop automounting"
	before, after, err := stepStates[automountState, automountState](op, step)
	if err != nil {
		return err
	}
	return e.setAutomount(ctx, op, step, before, after)
}

func (e *Enforcer) undoAutomount(ctx context.Context, step remit.Step) error {
	const op = "automount again"
	before, after, err := stepStates[automountState, automountState](op, step)
	if err != nil {
		return err
	}
	return e.setAutomount(ctx, op, step, after, before)
}

func (e *Enforcer) verifyAutomount(ctx context.Context, step remit.Step) error {
	const op = "verify stopped automounting"
	_, after, err := stepStates[automountState, automountState](op, step)
	if err != nil {
		return err
	}
	account, err := e.automountNow(ctx, op, step, after.UID)
	if err == nil && !equality.Semantic.DeepEqual(account.AutomountServiceAccountToken, after.Automount) {
		return remit.Errorf(remit.Conflict, op, "%s automounts its tokens again", step.Object)
	}
	return err
}

// invalidState is what a step that invalidates a long-lived token found or is to
// leave. The API server refuses such a token while its Secret has the label, which
// is its own way to retire unused ones, so it works again without.
// Source: k8s.io/kubernetes/pkg/serviceaccount (legacy.go) and
// https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
type invalidState struct {
	UID   types.UID `json:"uid"`
	Since string    `json:"since,omitempty"` // the label; "" for none
}

func invalidateStep(c remit.Credential, now time.Time) remit.Step {
	since := now.UTC().Format(time.DateOnly)
	uid := types.UID(c.Incarnation)
	return remit.Step{
		Change: changeInvalidateToken,
		Object: c.Ref,
		Does:   fmt.Sprintf("Make the long-lived token in the %s invalid, and keep it.", c.Ref),
		Diff:   lines("+", "label "+labelInvalidSince+": "+since),
		Breaks: "Whoever uses the token is refused within about 10 seconds.",
		Undo:   "Take the label off again: the same token works as before.",
		Before: mustJSON(invalidState{UID: uid}), After: mustJSON(invalidState{uid, since}),
	}
}

// labelSecret sets or ("") takes off the label of a Secret and returns the one it
// has then. The API server is asked to answer with the metadata alone.
func (e *Enforcer) labelSecret(ctx context.Context, ref remit.Ref, uid types.UID, change map[string]any, dryRun bool) (string, error) {
	request, err := e.request("PATCH", "Secret", ref.Namespace, ref.Name)
	if err != nil {
		return "", err
	}
	metadata := map[string]any{"uid": uid}
	maps.Copy(metadata, change)
	if dryRun {
		request.Param("dryRun", metav1.DryRunAll)
	}
	ctx, cancel := context.WithTimeout(quiet(ctx), enforceTimeout)
	defer cancel()
	result := request.SetHeader("Content-Type", string(types.MergePatchType)).
		SetHeader("Accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").
		Body([]byte(mustJSON(map[string]any{"metadata": metadata}))).Do(ctx)
	if err := result.Error(); err != nil { // Raw would not read the server's reason
		return "", err
	}
	body, err := result.Raw()
	if err != nil {
		return "", err
	}
	var is metav1.PartialObjectMetadata
	if err := json.Unmarshal(body, &is); err != nil {
		return "", fmt.Errorf("the metadata of the %s cannot be read: %w", ref, err)
	}
	return is.Labels[labelInvalidSince], nil
}

func invalidStates(op string, step remit.Step) (before, after invalidState, err error) {
	before, after, err = stepStates[invalidState, invalidState](op, step)
	if err == nil && (after.UID == "" || after.Since == "" || step.Object.Kind != "Secret") {
		err = remit.Errorf(remit.Invalid, op, "the step does not say which Secret it is about")
	}
	return before, after, err
}

func (e *Enforcer) setInvalid(ctx context.Context, op string, step remit.Step, uid types.UID, since any) error {
	_, err := e.labelSecret(ctx, step.Object, uid, map[string]any{"labels": map[string]any{labelInvalidSince: since}}, false)
	switch {
	case apierrors.IsNotFound(err):
		return remit.Errorf(remit.Conflict, op, "the %s has been deleted since it was planned", step.Object)
	case apierrors.IsConflict(err):
		return remit.Errorf(remit.Conflict, op, "the %s has been made anew since it was planned", step.Object)
	}
	return e.explain(op, err)
}

func (e *Enforcer) doInvalidate(ctx context.Context, step remit.Step) error {
	const op = "make a token invalid"
	_, after, err := invalidStates(op, step)
	if err != nil {
		return err
	}
	return e.setInvalid(ctx, op, step, after.UID, after.Since)
}

func (e *Enforcer) undoInvalidate(ctx context.Context, step remit.Step) error {
	const op = "make a token valid again"
	before, after, err := invalidStates(op, step)
	if err != nil {
		return err
	}
	var since any // null takes the label off
	if before.Since != "" {
		since = before.Since
	}
	return e.setInvalid(ctx, op, step, after.UID, since)
}

// verifyInvalidate asks by a change of nothing that is not carried out, which
// answers with the labels and takes no right to read Secrets.
func (e *Enforcer) verifyInvalidate(ctx context.Context, step remit.Step) error {
	const op = "verify an invalid token"
	_, after, err := invalidStates(op, step)
	if err != nil {
		return err
	}
	switch since, err := e.labelSecret(ctx, step.Object, after.UID, nil, true); {
	case apierrors.IsNotFound(err): // and so is its token
		return nil
	case apierrors.IsConflict(err):
		return remit.Errorf(remit.Conflict, op, "the %s has been made anew", step.Object)
	case err == nil && since == "":
		return remit.Errorf(remit.Conflict, op, "the label %s of the %s has been taken off", labelInvalidSince, step.Object)
	default:
		return e.explain(op, err)
	}
}

// planRemove deletes an account, with its long-lived tokens and its grants, which
// an account that somebody makes under the same name would have otherwise.
func (e *Enforcer) planRemove(ctx context.Context, o connector.Order) (connector.Planned, error) {
	const op = "plan removal"
	var planned connector.Planned
	identity, err := orderedIdentity(op, o)
	if err != nil {
		return planned, err
	}
	if err := e.mayContain(ctx, op, identity); err != nil {
		return planned, err
	}
	if err := partOfCluster(op, identity); err != nil {
		return planned, err
	}
	switch {
	case identity.Kind != "ServiceAccount":
		return planned, remit.Errorf(remit.Unsupported, op, "Kubernetes keeps no list of users and groups from which %s could be removed: disable it, and remove it where it signs in", identity)
	case identity.Name == "default":
		return planned, remit.Errorf(remit.Unsupported, op, "the cluster makes %s anew at once: disable it instead", identity)
	}
	account, err := e.account(ctx, op, identity)
	if err != nil {
		return planned, err
	}
	if len(account.Finalizers) > 0 {
		return planned, remit.Errorf(remit.Unsupported, op, "%s cannot be deleted: %s holds that up", identity, strings.Join(account.Finalizers, ", "))
	}
	grants, err := e.planGrants(ctx, identity)
	if err != nil {
		return planned, err
	}
	planned.Steps, planned.Why = append(planned.Steps, grants.Steps...), append(planned.Why, grants.Why...)
	legacy := legacyOf(identity, o.Credentials)
	for _, c := range legacy {
		step, err := e.deleteSecretStep(ctx, op, c)
		if remit.KindOf(err) == remit.NotFound {
			continue
		}
		if err != nil {
			return connector.Planned{}, err
		}
		planned.Steps = append(planned.Steps, step)
	}
	before := stateOfAccount(account)
	planned.Steps = append(planned.Steps, remit.Step{
		Change: changeDeleteAccount,
		Object: identity,
		Does:   fmt.Sprintf("Delete %s, so that every token of it ends within about 10 seconds.", identity),
		Diff:   lines("-", append([]string{identity.String() + ", uid " + string(before.UID)}, metaLines(account)...)...),
		Breaks: fmt.Sprintf("Pods that run as %s are refused, and none starts as it any more.", identity),
		Undo:   "Make an account of the same name, with the same labels, annotations and references. It has a new uid: no token of the former one works with it, and pods that run are given new ones when they start again.",
		Before: mustJSON(before), After: mustJSON(struct{}{}),
	})
	if len(legacy) > 0 {
		planned.Why = append(planned.Why, fmt.Sprintf("Undoing brings %s back, not its tokens: what lay in %s is gone, as Remit keeps no token.", identity, numbered(len(legacy), "Secret")))
	}
	if manager := putsBack(&account.ObjectMeta); manager != "" {
		planned.Why = append(planned.Why, fmt.Sprintf("%s is managed by %s: remove it at its source as well.", identity, manager))
	}
	return planned, nil
}

// metaLines are the labels and annotations of an object, a line each.
func metaLines(m metav1.Object) (out []string) {
	for _, key := range sortedKeys(m.GetLabels()) {
		out = append(out, "label "+key+": "+m.GetLabels()[key])
	}
	for _, key := range sortedKeys(m.GetAnnotations()) {
		out = append(out, "annotation "+key+": "+truncate(m.GetAnnotations()[key], maxLabel))
	}
	return out
}

func (e *Enforcer) deletedAccount(ctx context.Context, op string, step remit.Step) (before accountState, account *corev1.ServiceAccount, err error) {
	before, _, err = stepStates[accountState, struct{}](op, step)
	if err == nil && (before.UID == "" || step.Object.Kind != "ServiceAccount") {
		err = remit.Errorf(remit.Invalid, op, "the step does not say which account it is about")
	}
	if err != nil {
		return before, nil, err
	}
	account, err = e.account(ctx, op, step.Object)
	if remit.KindOf(err) == remit.NotFound {
		return before, nil, nil
	}
	return before, account, err
}

func (e *Enforcer) doDeleteAccount(ctx context.Context, step remit.Step) error {
	const op = "delete an account"
	err := e.untilAlone(ctx, func() error {
		before, account, err := e.deletedAccount(ctx, op, step)
		switch {
		case err != nil || account == nil:
			return err
		case account.UID != before.UID:
			return remit.Errorf(remit.Conflict, op, "%s has been made anew since it was planned", step.Object)
		case !equality.Semantic.DeepEqual(stateOfAccount(account), before):
			return remit.Errorf(remit.Conflict, op, "%s has been changed by somebody else since it was planned", step.Object)
		}
		request, err := e.request("DELETE", "ServiceAccount", step.Object.Namespace, step.Object.Name)
		if err != nil {
			return err
		}
		only := &metav1.Preconditions{UID: &before.UID, ResourceVersion: &account.ResourceVersion}
		if err := e.send(ctx, request.Body(&metav1.DeleteOptions{Preconditions: only}), nil); !apierrors.IsNotFound(err) {
			return err
		}
		return nil
	})
	return e.explained(op, err)
}

func (e *Enforcer) verifyDeleteAccount(ctx context.Context, step remit.Step) error {
	const op = "verify a deleted account"
	before, account, err := e.deletedAccount(ctx, op, step)
	switch {
	case err != nil || account == nil:
		return err
	case account.UID == before.UID:
		return remit.Errorf(remit.Conflict, op, "%s is still there", step.Object)
	}
	return remit.Errorf(remit.Conflict, op, "somebody has made %s anew", step.Object)
}

func (e *Enforcer) undoDeleteAccount(ctx context.Context, step remit.Step) error {
	const op = "make an account anew"
	err := e.untilAlone(ctx, func() error {
		before, account, err := e.deletedAccount(ctx, op, step)
		switch {
		case err != nil:
			return err
		case account != nil && (account.UID == before.UID || account.Annotations[recreatedFrom] == string(before.UID)):
			return nil
		case account != nil:
			return remit.Errorf(remit.Conflict, op, "somebody else has made %s anew", step.Object)
		}
		annotations := maps.Clone(before.Annotations)
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[recreatedFrom] = string(before.UID)
		return e.create(ctx, "ServiceAccount", step.Object.Namespace, &corev1.ServiceAccount{
			ObjectMeta: metav1.ObjectMeta{Name: step.Object.Name, Labels: before.Labels, Annotations: annotations, OwnerReferences: before.Owners},
			Secrets:    before.Secrets, ImagePullSecrets: before.Pull, AutomountServiceAccountToken: before.Automount,
		})
	})
	return e.explained(op, err)
}
