package kubernetes

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"remit"
	"remit/connector"
)

// A credential is refused by the authorization webhook that an [Authorizer]
// answers: it may not even read. The entry that says so also freezes it, so that
// while nobody answers the webhook it still cannot write.

// refuseLevels refuses every credential, whoever has it. What is held of accounts,
// which the API server does not ask about by name, is as freezing has it.
func refuseLevels(levels map[string]string) (refused int, out map[string]string) {
	out = maps.Clone(levels)
	for key := range levels {
		if !strings.HasPrefix(key, accountKey) {
			out[key] = holdRefuse
			refused++
		}
	}
	return refused, out
}

func (e *Enforcer) planRefuse(ctx context.Context, identity remit.Ref, levels map[string]string) (connector.Planned, error) {
	const op = "plan containment"
	n, levels := refuseLevels(levels)
	switch {
	case n == 0:
		return connector.Planned{}, remit.Errorf(remit.Invalid, op, "to refuse credentials the order must name some")
	case identity.Kind != "ServiceAccount" && identity.Kind != "User":
		return connector.Planned{}, remit.Errorf(remit.Unsupported, op, "the cluster does not ask Remit about %s: freeze its credentials instead", identity)
	}
	self, err := e.self(ctx, op)
	if err != nil {
		return connector.Planned{}, err
	}
	for _, own := range self.Extra[extraCredential] {
		if _, listed := levels[strings.Replace(own, "=", "-", 1)]; listed {
			return connector.Planned{}, remit.Errorf(remit.Forbidden, op, "%s is what Remit itself enforces with: contain it by hand, with another login", own)
		}
	}
	asked, err := e.refused(ctx, remit.Ref{Kind: "User", Name: probeName}, probeCredential)
	unknown := apierrors.IsForbidden(err) // a preview, with the login that reads
	if err != nil && !unknown {
		return connector.Planned{}, e.explain(op, err)
	}
	if !asked && !unknown {
		return connector.Planned{}, remit.Errorf(remit.Unsupported, op,
			"the grade %s is not available: the cluster does not ask Remit first about each request, or Remit does not answer; see `remit token authorizer --help`, and whether `remit serve` runs with authorize: true for this system. Freeze the credentials or remove the grants instead",
			remit.RefuseCredentials)
	}
	planned, err := e.planHold(ctx, identity, remit.RefuseCredentials, levels)
	if err == nil && unknown {
		planned.Why = append(planned.Why, "Whether the cluster asks Remit is not known: this login may not ask that (create subjectaccessreviews.authorization.k8s.io).")
	}
	return planned, err
}

// refused asks the API server whether Remit denies a credential what everybody
// may do: an authorizer that is asked before Remit would allow it.
func (e *Enforcer) refused(ctx context.Context, identity remit.Ref, credential string) (bool, error) {
	request, err := e.request("POST", "SubjectAccessReview", "", "")
	if err != nil {
		return false, err
	}
	user := identity.Name
	if identity.Kind == "ServiceAccount" {
		user = accountPrefix + identity.Namespace + ":" + identity.Name
	}
	review := authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user, Groups: groupsOf(identity),
		Extra:                 map[string]authorizationv1.ExtraValue{extraCredential: {credential}},
		NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: "/version", Verb: "get"},
	}}
	var answer authorizationv1.SubjectAccessReview
	if err := e.send(ctx, request.Body(&review), &answer); err != nil {
		return false, err
	}
	return answer.Status.Denied && strings.Contains(answer.Status.Reason, refusal), nil
}

// verifyRefuse holds that the credentials are frozen, and then asks the API server
// about each: it asks Remit, which must have heard of it. It proves it for the API
// server that answers, and for the Remit that this one asked.
func (e *Enforcer) verifyRefuse(ctx context.Context, step remit.Step) error {
	const op = "verify refused credentials"
	if err := e.verifyFreeze(ctx, step); err != nil {
		return err
	}
	after, err := frozenAfter(step)
	if err != nil {
		return err
	}
	if after.Identity == nil {
		return remit.Errorf(remit.Invalid, op, "the step does not say whose the credentials are")
	}
	keys := slices.DeleteFunc(sortedKeys(after.Entries), func(key string) bool { return after.Entries[key] != holdRefuse })
	for end := time.Now().Add(verifyPatience); ; {
		missing := ""
		for _, key := range keys[:min(len(keys), maxProbes)] {
			refused, err := e.refused(ctx, *after.Identity, credentialOfKey(key))
			if err != nil {
				return e.explain(op, err)
			}
			if !refused {
				missing = key
				break
			}
		}
		if missing == "" {
			return nil
		}
		if time.Now().After(end) {
			return remit.Errorf(remit.Unavailable, op, "the API server does not refuse %s yet: see whether `remit serve` answers it and follows %s", credentialOfKey(missing), containedRef)
		}
		if err := sleep(ctx, verifyPause); err != nil {
			return err
		}
	}
}
