package ssf

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"remit"
)

// told is an event that a response gives cause to tell others of.
type told struct {
	id   string // the token's: the same however often it is derived
	typ  string
	time time.Time
	body map[string]any
}

// derive lists what a response's history gives cause to tell: that it was seen to
// be in effect, and that it was undone. The history is in the store, so a kill at
// any instant loses none.
func derive(r *remit.Response) (all []told) {
	before := remit.ResponseState("")
	for i, h := range r.History {
		was := before
		before = h.State
		if h.State == was || h.State != remit.ResponseVerified && h.State != remit.ResponseUndone {
			continue
		}
		undone := h.State == remit.ResponseUndone
		typ, change := typeOf(r, undone)
		if typ == "" {
			continue
		}
		body := map[string]any{
			"event_timestamp": h.Time.Unix(), "initiating_entity": initiator(r),
			"reason_admin": map[string]string{"en": reasonFor(r, undone)},
		}
		if typ == CredentialChange {
			body["change_type"], body["credential_type"] = change, credentialType(r.Subject)
		}
		if typ == AccountDisabled || typ == AccountEnabled {
			// RISC 1.0 knows no such members.
			body = map[string]any{}
		}
		all = append(all, told{id: digest(string(r.ID), strconv.Itoa(i), string(h.State)), typ: typ, time: h.Time.UTC(), body: body})
	}
	return all
}

// typeOf is the type of event, and of a credential's change what it is.
func typeOf(r *remit.Response, undone bool) (typ, change string) {
	credential := r.Subject.Record == remit.KindCredential
	switch r.Action {
	case remit.Contain:
		switch {
		case undone:
			// CAEP has no word for sessions that may go on: the credentials work
			// again as they did.
			return CredentialChange, "update"
		case credential:
			return CredentialChange, "revoke"
		}
		return SessionRevoked, ""
	case remit.Revoke:
		if undone {
			return CredentialChange, "create"
		}
		return CredentialChange, "revoke"
	case remit.Rotate:
		return CredentialChange, "update"
	case remit.Disable:
		switch {
		case credential && undone:
			return CredentialChange, "update"
		case credential:
			return CredentialChange, "revoke"
		case undone:
			return AccountEnabled, ""
		}
		return AccountDisabled, ""
	}
	return "", "" // fewer rights end no session
}

func credentialType(s remit.Subject) string {
	if strings.HasPrefix(s.Name, "X509SHA256=") {
		return "x509"
	}
	return "app" // what is no person's password, device or certificate
}

func initiator(r *remit.Response) string {
	if r.AskedBy == "remit" || strings.HasPrefix(r.AskedBy, "policy ") || strings.HasPrefix(r.AskedBy, "rule ") {
		return "policy"
	}
	return "admin"
}

func reasonFor(r *remit.Response, undone bool) string {
	did := map[remit.Action]string{
		remit.Contain: "was contained", remit.Revoke: "was revoked", remit.Rotate: "was rotated", remit.Disable: "was disabled",
	}[r.Action]
	text := r.Subject.String() + " " + did
	if undone {
		text += ", and that was undone"
	}
	return clip(text+" (plan "+string(r.ID)+")", maxReason)
}

// claimsOf makes the claims of an event for a stream, all but the time of issue.
func (t *Transmitter) claimsOf(e *told, subject map[string]any, audience string) (json.RawMessage, error) {
	return json.Marshal(map[string]any{
		"iss": t.Issuer, "aud": audience, "jti": e.id, "toe": e.time.Unix(),
		"txn": e.id, "sub_id": subject, "events": map[string]any{e.typ: e.body},
	})
}

// subject is how others are told whom a response is about.
func (t *Transmitter) subject(ctx context.Context, r *remit.Response) (map[string]any, error) {
	systems, err := t.Store.Systems(ctx)
	if err != nil {
		return nil, err
	}
	system := string(r.System)
	for _, s := range systems {
		if s.ID == r.System {
			system = s.Name
		}
	}
	who, credential := r.Subject.ID, ""
	ref, principal := r.Subject.Ref, ""
	if r.Subject.Record == remit.KindCredential {
		if credential = r.Subject.Name; !strings.Contains(credential, "=") {
			credential = r.Subject.Ref.String()
		}
		who = ""
		known, _, err := t.Store.Credentials(ctx, remit.Filter{IDs: []remit.ID{r.Subject.ID}}, remit.PageRequest{Limit: 1})
		if err != nil {
			return nil, err
		}
		seen, _, err := t.Store.Lineage(ctx, remit.ActivityFilter{System: r.System, Credentials: []string{r.Subject.Name}}, remit.PageRequest{Limit: 1})
		if err != nil {
			return nil, err
		}
		switch {
		case len(known) > 0:
			who, ref = known[0].Identity, known[0].Holder
		case len(seen) > 0:
			who, ref = seen[0].Identity, seen[0].Holder
		}
	}
	if who != "" {
		known, _, err := t.Store.Identities(ctx, remit.Filter{IDs: []remit.ID{who}}, remit.PageRequest{Limit: 1})
		if err != nil {
			return nil, err
		}
		if len(known) > 0 {
			ref, principal = known[0].Ref, known[0].Principal
		}
	}
	if principal == "" && ref.Kind == "ServiceAccount" {
		principal = "system:serviceaccount:" + ref.Namespace + ":" + ref.Name
	} else if principal == "" && strings.HasSuffix(ref.Kind, "User") {
		principal = ref.Name
	}
	subject := subjectOf(ref, principal, system)
	if credential != "" {
		subject["session"] = map[string]any{"format": "opaque", "id": credential}
	}
	return subject, nil
}
