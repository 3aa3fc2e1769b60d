package ssf

import (
	"context"
	"fmt"
	"slices"
	"time"

	"remit"
)

// meaning is what an event means as a finding.
type meaning struct {
	policy   string
	title    string
	severity remit.Severity
	says     string // after the source's name: "says that …"
	risks    []string
	controls []string
	remedy   string
}

// momentLasts is for how long a finding of a moment stands: a session that was
// revoked is of no interest when everything that came of it has ended.
const momentLasts = 30 * 24 * time.Hour

// sameMoment is within what time events are one occasion: providers send one for
// each session of a person.
const sameMoment = time.Hour

// momentary are the policies of such findings. That an account is disabled, or
// gone, is a state, and stands until it is told otherwise.
var momentary = []string{
	meanings[SessionRevoked].policy, meanings[CredentialChange].policy, meanings[CredentialCompromise].policy,
}

var meanings = map[string]meaning{
	SessionRevoked: {
		policy: "idp-session-revoked", title: "The identity provider revoked the sessions", severity: remit.High,
		says:  "revoked the sessions of",
		risks: []string{"NHI1", "T1078"}, controls: []string{"NIST SP 800-53 AC-2(3)", "NIST SP 800-53 IR-4", "SOC 2 CC7.4"},
		remedy: "Find out why, and end what was made in those sessions: remit contain with the ID of this finding cuts it off here.",
	},
	CredentialChange: {
		policy: "idp-credential-change", title: "The identity provider changed a login", severity: remit.Medium,
		says:  "changed a credential of",
		risks: []string{"T1098"}, controls: []string{"NIST SP 800-53 IA-5", "NIST SP 800-53 AC-2(4)", "SOC 2 CC6.1"},
		remedy: "Make sure that the person asked for it; tokens that the former credential obtained stay valid until they end.",
	},
	AccountDisabled: {
		policy: "idp-account-disabled", title: "The account is disabled at the identity provider", severity: remit.High,
		says:  "disabled the account of",
		risks: []string{"NHI1", "T1078"}, controls: []string{"NIST SP 800-53 AC-2(3)", "ISO/IEC 27001:2022 A.5.18", "SOC 2 CC6.2", "PCI DSS 4.0.1 8.2.6"},
		remedy: "Take away what the identity still has here: remit contain with the ID of this finding.",
	},
	AccountPurged: {
		policy: "idp-account-purged", title: "The account is gone at the identity provider", severity: remit.High,
		says:  "removed the account of",
		risks: []string{"NHI1", "T1078"}, controls: []string{"NIST SP 800-53 AC-2(3)", "ISO/IEC 27001:2022 A.5.18", "SOC 2 CC6.2"},
		remedy: "Remove what the identity still has here.",
	},
	CredentialCompromise: {
		policy: "idp-credential-compromise", title: "The identity provider found a login compromised", severity: remit.Critical,
		says:  "found a compromised credential of",
		risks: []string{"NHI2", "T1078", "T1552"}, controls: []string{"NIST SP 800-53 IR-4", "NIST SP 800-53 IA-5", "SOC 2 CC7.4"},
		remedy: "Contain the identity now: remit contain with the ID of this finding. Then see what it did: remit activity.",
	},
}

// finding adds to the write the finding that an event is on an identity. It
// returns nil when something younger was told before.
func (r *Receiver) finding(ctx context.Context, from *Source, token *Token, e *Event, m meaning, on match, write *remit.Checkpoint) (*remit.Finding, error) {
	if e.Type == AccountDisabled {
		enabled, err := r.lastEnabled(ctx, on.id)
		if err != nil || !e.Time.After(enabled) && !enabled.IsZero() {
			return nil, err
		}
	}
	f := remit.Finding{
		ID: remit.FindingID(m.policy, on.id), Policy: m.policy, Title: m.title, Severity: e.severity(m), System: on.system,
		Subject:  remit.Subject{Record: remit.KindIdentity, Ref: on.ref, ID: on.id},
		Message:  fmt.Sprintf("%s %s %s at %s%s", from.Name, m.says, on.ref, e.Time.Format(time.RFC3339), because(e)),
		Evidence: e.evidence(from, token, on), Risks: m.risks, Controls: m.controls, Remedy: m.remedy,
		Events: []string{token.ID}, EventCount: 1, First: e.Time, Last: e.Time,
	}
	at := slices.IndexFunc(write.Findings, func(other remit.Finding) bool { return other.ID == f.ID })
	if at >= 0 {
		return &write.Findings[at], nil // another event of this token said so
	}
	known, _, err := r.Store.Findings(ctx, remit.FindingFilter{IDs: []remit.ID{f.ID}}, remit.PageRequest{Limit: 1})
	if err != nil {
		return nil, err
	}
	if len(known) > 0 {
		before := &known[0]
		if slices.Contains(momentary, m.policy) && f.Last.Sub(before.Last) > sameMoment && (before.State == remit.Open || before.State == remit.Acknowledged) {
			// Another occasion: what was done about the last one does not answer
			// it, so the finding opens again.
			_, err := r.Store.ResolveFindings(ctx, remit.FindingScope{
				System: f.System, Policies: []string{f.Policy}, Subjects: []remit.ID{f.Subject.ID},
			}, f.Last, write.Now)
			if err != nil {
				return nil, err
			}
		}
		if before.First.Before(f.First) {
			f.First = before.First
		}
		if before.Last.After(f.Last) && before.State != remit.Resolved {
			// An older event that came late: what the younger one said stands.
			f.Last, f.Message, f.Evidence, f.Severity = before.Last, before.Message, before.Evidence, before.Severity
		}
		f.EventCount = before.EventCount + 1
		f.Events = before.Events
		if len(f.Events) < remit.MaxSeen {
			f.Events = append(slices.Clone(f.Events), token.ID)
		}
	}
	write.Findings = append(write.Findings, f)
	return &f, nil
}

// severity is that of the meaning, and more where the event says why.
func (e *Event) severity(m meaning) remit.Severity {
	switch {
	case e.Hijacked:
		return remit.Critical
	case e.Type == CredentialChange && (e.Change == "revoke" || e.Change == "delete"):
		return remit.High
	}
	return m.severity
}

func because(e *Event) string {
	if e.Reason == "" {
		return ""
	}
	return ": " + e.Reason
}

func (e *Event) evidence(from *Source, token *Token, on match) []remit.Fact {
	facts := []remit.Fact{
		{Name: "event", Value: e.Type},
		{Name: "issuer", Value: from.Issuer},
		{Name: "subject", Value: e.Subject.String()},
		{Name: "matched by", Value: on.by},
		{Name: "event time", Value: e.Time.Format(time.RFC3339)},
		{Name: "token", Value: token.ID},
	}
	for _, f := range []remit.Fact{
		{Name: "reason", Value: e.Reason},
		{Name: "initiated by", Value: e.Initiator},
		{Name: "credential type", Value: e.CredentialType},
		{Name: "change", Value: e.Change},
	} {
		if f.Value != "" {
			facts = append(facts, f)
		}
	}
	return facts
}
