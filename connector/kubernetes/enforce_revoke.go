package kubernetes

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"remit"
	"remit/connector"
)

// The sorts of change of steps that are no grade of containment.
const (
	changeDeleteSecret    = "delete-secret"
	changeInvalidateToken = "invalidate-token"
	changeAutomount       = "stop-automount"
	changeDeleteAccount   = "delete-account"
	changeMakeRole        = "make-role"
	changeMakeBinding     = "make-binding"
	changeReplaceGrant    = "replace-grant"
)

// LoggedCredential is how the audit log writes a credential of the inventory; ""
// for what never appears there. All legacy tokens of one account share one name.
func LoggedCredential(c remit.Credential) string {
	switch {
	case legacySecret(c) && c.Holder.Kind == "ServiceAccount":
		return LegacyTokenPrefix + c.Holder.Namespace + "/" + c.Holder.Name
	case freezable(c):
		return c.Native
	}
	return ""
}

// legacySecret says whether a credential is the token of a Secret of the type
// service-account-token, and no copy of one.
func legacySecret(c remit.Credential) bool {
	return c.Kind == "Secret" && c.Attributes["legacy"] == "true" && c.Attributes["jwt"] == ""
}

func bootstrapSecret(c remit.Credential) bool {
	return c.Kind == "Secret" && c.Attributes["bootstrap"] == "true"
}

// freezable says whether a credential signs in to this cluster under an ID that
// admission sees.
func freezable(c remit.Credential) bool {
	return c.Holder != (remit.Ref{}) && len(c.Native) <= maxCredential && credentialForm.MatchString(c.Native)
}

// frozenOf are the credentials among some, as the log writes them, that can be
// frozen, with all they do; rest counts the others.
func frozenOf(lists ...[]string) (levels map[string]string, rest int) {
	levels = map[string]string{}
	for _, list := range lists {
		for _, c := range list {
			if key, err := credentialKey(c); err == nil {
				levels[key] = holdAll
			} else {
				rest++
			}
		}
	}
	return levels, rest
}

// planRevoke ends one credential. What Kubernetes cannot revoke is frozen, and
// what is not Kubernetes' own is refused.
func (e *Enforcer) planRevoke(ctx context.Context, o connector.Order) (connector.Planned, error) {
	const op = "plan revocation"
	var planned connector.Planned
	if o.Subject.Record != remit.KindCredential || len(o.Credentials) != 1 {
		return planned, remit.Errorf(remit.Invalid, op, "the order does not name one credential")
	}
	c := o.Credentials[0]
	who := o.Identity
	if who == (remit.Ref{}) {
		who = c.Holder
	}
	// The user of a bootstrap token is none of the cluster's own parts.
	if who != (remit.Ref{}) && !bootstrapSecret(c) {
		if err := e.mayContain(ctx, op, who); err != nil {
			return planned, err
		}
		if err := ownNamespace(op, who); err != nil {
			return planned, err
		}
	}
	levels, _ := frozenOf(o.Stolen, o.Forged)
	switch {
	case legacySecret(c), bootstrapSecret(c):
		step, err := e.deleteSecretStep(ctx, op, c)
		if err != nil {
			return planned, err
		}
		planned.Steps = append(planned.Steps, step)
		planned.Why = append(planned.Why, secretWhy(c, who)...)
		if len(levels) > 0 {
			planned.Why = append(planned.Why, "What was minted with it does not end with it, so that is frozen as well.")
		}
	case c.Attributes["legacy"] == "true":
		from := "the Secret of its account"
		if s := c.Attributes["bound-secret"]; s != "" {
			from = fmt.Sprintf("the Secret %s/%s", c.Holder.Namespace, s)
		}
		return planned, remit.Errorf(remit.Unsupported, op, "it is a copy of a long-lived token: revoke the one in %s, and no copy works any more", from)
	case freezable(c):
		if slices.Contains(strings.Split(c.Attributes["groups"], ","), groupMasters) {
			return planned, remit.Errorf(remit.Unsupported, op,
				"a certificate of the group %s can be neither revoked nor frozen: it works until %s, or until the cluster trusts another authority", groupMasters, until(c.Expires))
		}
		if key, err := credentialKey(c.Native); err == nil {
			levels[key] = holdAll
		}
		planned.Why = append(planned.Why, frozenWhy(c))
	default:
		return planned, foreign(op, c)
	}
	if len(levels) == 0 {
		return planned, nil
	}
	add, err := e.planFreeze(ctx, who, levels)
	if err != nil {
		return connector.Planned{}, err
	}
	for i := range add.Steps {
		add.Steps[i].Does = fmt.Sprintf("Refuse whatever %s would change, mint or connect to; reads go on.", numbered(len(levels), "credential"))
		add.Steps[i].Breaks = "Whoever uses it can only read from then on."
	}
	planned.Steps, planned.Why = append(planned.Steps, add.Steps...), append(planned.Why, add.Why...)
	return planned, nil
}

// secretWhy tells what to know of a token that ends with its Secret.
func secretWhy(c remit.Credential, who remit.Ref) []string {
	if bootstrapSecret(c) {
		return []string{"A bootstrap token ends with its Secret, within about 10 seconds. It cannot be undone: nodes that are yet to join need a new one (kubeadm token create)."}
	}
	return []string{
		fmt.Sprintf("A long-lived token of %s ends with its Secret, within about 10 seconds, for the API server remembers a login that long. It cannot be undone, for Remit keeps no token.", who),
		"Give a Secret that is to take its place another name: such a token holds neither an ID nor a time, so that a cluster which signs with RSA signs the very same token again for the same name.",
	}
}

// frozenWhy tells why a credential is frozen and not revoked, and what would end
// it.
func frozenWhy(c remit.Credential) string {
	if strings.HasPrefix(c.Native, "X509") {
		return fmt.Sprintf("Kubernetes cannot revoke a client certificate, which works until %s: it is frozen instead. What it may read, it still reads: remove the grants of %s to end that as well.", until(c.Expires), c.Holder)
	}
	ends := "deleting the account, or making it anew, ends it, and every other token of it"
	for _, kind := range []string{"pod", "secret", "node"} {
		if name := c.Attributes["bound-"+kind]; name != "" {
			ends = fmt.Sprintf("it is bound to the %s %s, and deleting that ends it within about 10 seconds", kind, name)
			break
		}
	}
	return fmt.Sprintf("Kubernetes cannot revoke a single token, which works until %s: it is frozen instead. To end it wholly: %s.", until(c.Expires), ends)
}

func until(t time.Time) string {
	if t.IsZero() {
		return "its end, which is not known"
	}
	return t.UTC().Format("2006-01-02 15:04 UTC")
}

// foreign refuses what another platform accepts.
func foreign(op string, c remit.Credential) error {
	at := c.Ref.String()
	if c.Key != "" {
		at += " (" + truncate(c.Key, maxLabel) + ")"
	}
	switch {
	case c.Provider != "" && c.Provider != "kubernetes":
		return remit.Errorf(remit.Unsupported, op, "the credential in the %s is one of %s: only there can it be revoked; deleting this copy would not end it", at, truncate(c.Provider, maxLabel))
	case c.Type == remit.Certificate:
		return remit.Errorf(remit.Unsupported, op, "the certificate in the %s is no login to this cluster: whoever issued it (%s) can revoke it", at, truncate(c.Issuer, maxLabel))
	case c.Provider == "kubernetes":
		return remit.Errorf(remit.Unsupported, op, "the %s in the %s has no ID of its own that Kubernetes could refuse: contain the identity that it authenticates, or delete the object that it is bound to", c.Type, at)
	}
	return remit.Errorf(remit.Unsupported, op, "which platform accepts the %s in the %s is not known: revoke it there; deleting this copy would not end it", c.Type, at)
}

// secretState is what is kept of a Secret for the record: its metadata, and of
// its annotations none, for kubectl keeps the values in one.
type secretState struct {
	UID     types.UID         `json:"uid"`
	Labels  map[string]string `json:"labels,omitempty"`
	Holder  remit.Ref         `json:"holder,omitzero"`
	Created time.Time         `json:"created,omitzero"`
}

// deleteSecretStep deletes the Secret that a credential of the inventory lies in.
// It is deleted by the uid that the inventory knows, so that no Secret need ever
// be read.
func (e *Enforcer) deleteSecretStep(ctx context.Context, op string, c remit.Credential) (remit.Step, error) {
	state := secretState{UID: types.UID(c.Incarnation), Labels: c.Labels, Holder: c.Holder, Created: c.Created}
	if state.UID == "" {
		return remit.Step{}, remit.Errorf(remit.Invalid, op, "the inventory does not know the uid of the %s: scan the cluster itself first", c.Ref)
	}
	switch err := e.deleteSecret(ctx, c.Ref, state.UID, metav1.DryRunAll); {
	case err == nil, apierrors.IsForbidden(err): // a preview, with the login that reads
	case apierrors.IsNotFound(err):
		return remit.Step{}, remit.Errorf(remit.NotFound, op, "the %s is gone already", c.Ref)
	case apierrors.IsConflict(err):
		return remit.Step{}, remit.Errorf(remit.Conflict, op, "the %s has been made anew since the inventory was read: scan the cluster again", c.Ref)
	default:
		return remit.Step{}, e.explain(op, err)
	}
	what := "bootstrap token"
	if legacySecret(c) {
		what = "long-lived token of " + c.Holder.String()
	}
	gone := []string{"Secret " + c.Namespace + "/" + c.Name + ", uid " + string(state.UID)}
	if !c.Created.IsZero() {
		gone = append(gone, "made "+until(c.Created))
	}
	return remit.Step{
		Change: changeDeleteSecret,
		Object: c.Ref,
		Does:   fmt.Sprintf("Delete the %s, which holds a %s.", c.Ref, what),
		Diff:   lines("-", gone...),
		Breaks: "Whoever uses the token is refused within about 10 seconds; pods that mount the Secret do not start again without it.",
		Before: mustJSON(state), After: mustJSON(struct{}{}),
	}, nil
}

func (e *Enforcer) deleteSecret(ctx context.Context, ref remit.Ref, uid types.UID, dryRun ...string) error {
	request, err := e.request("DELETE", "Secret", ref.Namespace, ref.Name)
	if err != nil {
		return err
	}
	return e.send(ctx, request.Body(&metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}, DryRun: dryRun}), nil)
}

func secretBefore(op string, step remit.Step) (secretState, error) {
	before, _, err := stepStates[secretState, struct{}](op, step)
	if err == nil && (before.UID == "" || step.Object.Kind != "Secret") {
		err = remit.Errorf(remit.Invalid, op, "the step does not say which Secret it is about")
	}
	return before, err
}

func (e *Enforcer) doDeleteSecret(ctx context.Context, step remit.Step) error {
	const op = "delete a token's Secret"
	before, err := secretBefore(op, step)
	if err != nil {
		return err
	}
	switch err := e.deleteSecret(ctx, step.Object, before.UID); {
	case apierrors.IsNotFound(err):
		return nil
	case apierrors.IsConflict(err):
		return remit.Errorf(remit.Conflict, op, "the %s has been made anew since it was planned, and may hold the very same token: scan the cluster again and make a new plan", step.Object)
	default:
		return e.explain(op, err)
	}
}

// verifyDeleteSecret asks by a deletion that is not carried out, which takes no
// right to read Secrets.
func (e *Enforcer) verifyDeleteSecret(ctx context.Context, step remit.Step) error {
	const op = "verify a deleted Secret"
	before, err := secretBefore(op, step)
	if err != nil {
		return err
	}
	switch err := e.deleteSecret(ctx, step.Object, before.UID, metav1.DryRunAll); {
	case apierrors.IsNotFound(err):
		return nil
	case err == nil:
		return remit.Errorf(remit.Conflict, op, "the %s is still there: something holds its deletion up", step.Object)
	case apierrors.IsConflict(err):
		return remit.Errorf(remit.Conflict, op, "a Secret of the name %s/%s has been made again, and may hold the very same token", step.Object.Namespace, step.Object.Name)
	default:
		return e.explain(op, err)
	}
}

func (e *Enforcer) undoDeleteSecret(_ context.Context, step remit.Step) error {
	return remit.Errorf(remit.Unsupported, "undo a deleted Secret", "the token that lay in the %s cannot be brought back, as Remit keeps none: make a new one", step.Object)
}
