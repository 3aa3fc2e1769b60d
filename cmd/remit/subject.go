package main

import (
	"context"
	"fmt"
	"strings"

	"remit"
	"remit/connector/kubernetes"
	"remit/response"
)

// finder says what a name stands for that may be an identity's and a credential's.
type finder int

const (
	identityFirst finder = iota
	identityOnly
	credentialOnly
)

// subjectOf finds what the user means: a finding, a credential of the inventory or
// the log, or an identity of the inventory or the log.
func subjectOf(ctx context.Context, data *dataDir, system, name string, find finder) (q response.Request, err error) {
	systems, err := data.Store.Systems(ctx)
	if err != nil {
		return q, err
	}
	if system != "" {
		if q.System, err = knownSystem(systems, system); err != nil {
			return q, err
		}
	}
	switch id := remit.ID(name); id.Kind() {
	case remit.KindFinding:
		found, _, err := data.Store.Findings(ctx, remit.FindingFilter{IDs: []remit.ID{id}}, remit.PageRequest{Limit: 1})
		if err != nil {
			return q, err
		}
		if len(found) == 0 {
			return q, remit.Errorf(remit.NotFound, "", "there is no finding %s", name)
		}
		q.Cause, q.Opening, q.Suspects = name, found[0].Reopened, found[0].Credentials
		if found[0].Subject.Kind == loggedKind && find != identityOnly {
			return findingsCredential(ctx, data, q, &found[0])
		}
		if found[0].Subject.Record == remit.KindCredential && find != identityOnly {
			name = string(found[0].Subject.ID)
		} else if find == credentialOnly {
			return q, remit.Errorf(remit.Invalid, "", "the finding %s is about %s and no credential: name one", name, found[0].Subject)
		}
	case remit.KindIdentity:
		if find == credentialOnly {
			return q, remit.Errorf(remit.Invalid, "", "%s is an identity: name one of its credentials; `remit inventory credentials` lists them", name)
		}
	}
	isCredential := remit.ID(name).Kind() == remit.KindCredential || strings.Contains(name, "=")
	switch {
	case isCredential && find == identityOnly:
		return q, remit.Errorf(remit.Invalid, "", "%s is a credential: name the identity that it authenticates", name)
	case strings.Contains(name, "="):
		return loggedCredential(ctx, data, systems, q, name)
	case isCredential, find == credentialOnly:
		return storedCredential(ctx, data, systems, q, name)
	}
	identity, err := findIdentity(ctx, data, q.System, name)
	switch remit.KindOf(err) {
	case "":
		q.System, q.Identity, q.IdentityID = identity.System, identity.Ref, identity.ID
	case remit.NotFound:
		if p, missing := findPresence(ctx, data, systems, remit.ActivityFilter{System: q.System}, name); missing == nil {
			q.System, q.Identity, q.IdentityID = p.System, p.Actor, p.Identity
			break
		}
		if find == identityFirst {
			if of, missing := storedCredential(ctx, data, systems, q, name); remit.KindOf(missing) != remit.NotFound {
				return of, missing
			}
		}
		return q, err
	default:
		return q, err
	}
	q.Subject = remit.Subject{Record: remit.KindIdentity, Ref: q.Identity, ID: q.IdentityID}
	return q, nil
}

// loggedKind is the kind of a credential that is named as the log does, because no
// inventory holds it.
const loggedKind = "Credential"

// findingsCredential is a credential that only a finding names: a token that has
// leaked may not have been seen in use yet.
func findingsCredential(ctx context.Context, data *dataDir, q response.Request, f *remit.Finding) (response.Request, error) {
	q.System, q.Subject, q.Credential = f.System, f.Subject, f.Subject.Name
	if f.Identity == "" {
		return q, nil
	}
	holder, err := findIdentity(ctx, data, f.System, string(f.Identity))
	if err != nil {
		return q, err
	}
	q.Identity, q.IdentityID = holder.Ref, holder.ID
	return q, nil
}

// loggedCredential finds a credential by how the log writes it: one that the log
// has shown, or that lies where the inventory found it.
func loggedCredential(ctx context.Context, data *dataDir, systems []remit.System, q response.Request, name string) (response.Request, error) {
	// All long-lived tokens of an account share one name in the log.
	if account, ok := strings.CutPrefix(name, kubernetes.LegacyTokenPrefix); ok {
		namespace, account, _ := strings.Cut(account, "/")
		identity, err := findIdentity(ctx, data, q.System, "system:serviceaccount:"+namespace+":"+account)
		if err != nil {
			return q, err
		}
		found, _, err := data.Store.Credentials(ctx, remit.Filter{System: q.System, Identities: []remit.ID{identity.ID}, Kinds: []string{"Secret"}}, remit.PageRequest{Limit: 1000})
		if err != nil {
			return q, err
		}
		var those []remit.Credential
		for _, c := range found {
			if kubernetes.LoggedCredential(c) == name {
				those = append(those, c)
			}
		}
		return oneCredential(systems, q, name, those)
	}
	found, _, err := data.Store.Lineage(ctx, remit.ActivityFilter{System: q.System, Credentials: []string{name}}, remit.PageRequest{Limit: 2})
	switch {
	case err != nil:
		return q, err
	case len(found) == 0:
		known, _, err := data.Store.Credentials(ctx, remit.Filter{System: q.System, Natives: []string{name}}, remit.PageRequest{Limit: 20})
		if err != nil {
			return q, err
		}
		if len(known) == 0 {
			return q, remit.Errorf(remit.NotFound, "", "the log has shown no credential %q: name the identity that holds it", name)
		}
		return oneCredential(systems, q, name, known)
	case len(found) > 1:
		return q, remit.Errorf(remit.Invalid, "", "%s is known in %s and in %s: say --system", name, systemName(systems, found[0].System), systemName(systems, found[1].System))
	}
	l := found[0]
	ref := remit.Ref{Kind: loggedKind, Name: name}
	q.System, q.Identity, q.IdentityID, q.Credential = l.System, l.Holder, l.Identity, name
	q.Subject = remit.Subject{Record: remit.KindCredential, Ref: ref, ID: remit.CredentialID(l.System, ref, "")}
	return q, nil
}

// storedCredential finds a credential of the inventory by its ID or by the object
// that it lies in: Secret/payments/api-token, payments/api-token or api-token.
func storedCredential(ctx context.Context, data *dataDir, systems []remit.System, q response.Request, name string) (response.Request, error) {
	filters := []remit.Filter{{Names: []string{name}}}
	if id := remit.ID(name); id.Kind() == remit.KindCredential {
		filters = []remit.Filter{{IDs: []remit.ID{id}}}
	} else if first, rest, ok := strings.Cut(name, "/"); ok {
		filters = []remit.Filter{{Namespaces: []string{first}, Names: []string{rest}}, {Kinds: []string{first}, Names: []string{rest}}}
		if namespace, last, ok := strings.Cut(rest, "/"); ok {
			filters = []remit.Filter{{Kinds: []string{first}, Namespaces: []string{namespace}, Names: []string{last}}}
		}
	}
	for _, filter := range filters {
		filter.System = q.System
		found, _, err := data.Store.Credentials(ctx, filter, remit.PageRequest{Limit: 20})
		if err != nil {
			return q, err
		}
		if len(found) > 0 {
			return oneCredential(systems, q, name, found)
		}
	}
	return q, remit.Errorf(remit.NotFound, "", "no credential is called %q: `remit inventory credentials` lists them with their IDs", name)
}

// oneCredential makes a request about the one credential that was found.
func oneCredential(systems []remit.System, q response.Request, name string, found []remit.Credential) (response.Request, error) {
	if len(found) == 0 {
		return q, remit.Errorf(remit.NotFound, "", "the inventory knows no credential that the log would write as %q: scan the cluster first", name)
	}
	if len(found) > 1 {
		var which []string
		for _, c := range found {
			at := c.Ref.String()
			if c.Key != "" {
				at += " " + c.Key
			}
			which = append(which, fmt.Sprintf("%s (%s in %s)", c.ID, at, systemName(systems, c.System)))
		}
		return q, remit.Errorf(remit.Invalid, "", "%q may be any of %d credentials: name one by its ID: %s", name, len(found), strings.Join(which, ", "))
	}
	c := found[0]
	q.System, q.Identity, q.IdentityID, q.Credential = c.System, c.Holder, c.Identity, kubernetes.LoggedCredential(c)
	q.Subject = remit.Subject{Record: remit.KindCredential, Ref: c.Ref, ID: c.ID}
	return q, nil
}
