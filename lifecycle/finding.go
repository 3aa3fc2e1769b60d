package lifecycle

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"remit"
)

// The policies of the findings on credentials. What a rule does at each:
// at [PolicyNotice] nothing but tell, at [PolicyRotationDue] and the limits rotate
// or disable, at [PolicyRevoke] revoke.
const (
	PolicyNotice         = "lifecycle-notice"
	PolicyRotationDue    = "lifecycle-rotation-due"
	PolicyMaxAge         = "lifecycle-max-age"
	PolicyIdle           = "lifecycle-idle"
	PolicyExpiryRequired = "lifecycle-expiry-required"
	PolicyMaxLifetime    = "lifecycle-max-lifetime"
	PolicyRevoke         = "lifecycle-revoke"
)

// credentialPolicies are all of them. Only these are resolved on credentials, so
// that no finding of another evaluation is.
var credentialPolicies = []string{
	PolicyNotice, PolicyRotationDue, PolicyMaxAge, PolicyIdle, PolicyExpiryRequired, PolicyMaxLifetime, PolicyRevoke,
}

// limits are the policies of those that say that a limit is broken, by the demand.
var limits = map[string]string{
	demandAge: PolicyMaxAge, demandIdle: PolicyIdle, demandExpiry: PolicyExpiryRequired, demandLifetime: PolicyMaxLifetime,
}

// FindingPolicies lists the policies of all findings that a [Judge] writes. No
// policy of a user may have one of these IDs: each would resolve the other's.
func FindingPolicies() []string { return slices.Concat(credentialPolicies, offboardingPolicies) }

// factTold is the piece of evidence that keeps since when a finding is told. The
// store's First does not serve: it stays when a finding is opened again.
const factTold = "First told"

// toldSince reads it back; zero when it is not there.
func toldSince(f *remit.Finding) time.Time {
	for _, fact := range f.Evidence {
		if fact.Name == factTold {
			if t, err := time.Parse(time.RFC3339, fact.Value); err == nil {
				return t
			}
		}
	}
	return time.Time{}
}

// tell makes of a finding that stands what [Case] knows of it.
func tell(f *remit.Finding, now time.Time) Told {
	t := Told{Since: toldSince(f)}
	if f.State == remit.Suppressed && f.SuppressedUntil.After(now) {
		t.Held = f.SuppressedUntil
	}
	return t
}

// broken says whether a standing breaks a limit, so that it matters when that was
// first told.
func broken(s *remit.Standing) bool {
	return slices.ContainsFunc(s.Demands, func(d remit.LifecycleDemand) bool {
		return limits[d.Demand] != "" && (d.State == remit.LifecycleInGrace || d.State == remit.LifecycleOverdue)
	})
}

// findings are what a standing has to tell.
func findings(k *Case, s *remit.Standing) []remit.Finding {
	var out []remit.Finding
	var soon, over []remit.LifecycleDemand
	for _, d := range s.Demands {
		switch {
		case d.State == remit.LifecycleDueSoon:
			soon = append(soon, d)
		case d.Demand == demandRotation && (d.State == remit.LifecycleDue || d.State == remit.LifecycleOverdue):
			out = append(out, rotationDue(s, d))
		case limits[d.Demand] != "" && (d.State == remit.LifecycleInGrace || d.State == remit.LifecycleOverdue):
			out = append(out, limitBroken(k, s, d))
			if d.State == remit.LifecycleOverdue {
				over = append(over, d)
			}
		}
	}
	if len(soon) > 0 {
		out = append(out, notice(s, soon))
	}
	if len(over) > 0 {
		out = append(out, revoke(s, over))
	}
	return out
}

func finding(s *remit.Standing, policy, title string, severity remit.Severity, message, remedy string, evidence ...remit.Fact) remit.Finding {
	f := remit.Finding{
		ID: remit.FindingID(policy, s.Credential), Policy: policy, Title: title, Severity: severity, System: s.System,
		Subject:  remit.Subject{Record: remit.KindCredential, Ref: s.Ref, ID: s.Credential},
		Identity: s.Identity, Message: message, Remedy: remedy,
		Risks:    []string{"NHI7"},
		Controls: []string{"SOC 2 CC6.1", "ISO/IEC 27001 A.5.17", "NIST SP 800-53 IA-5(1)", "NIST CSF PR.AA-01", "PCI DSS 8.6.3"},
	}
	owner := s.Owner
	if owner == "" {
		owner = "nobody"
	}
	f.Evidence = append([]remit.Fact{{Name: "Lifecycle policy", Value: s.Policy}, {Name: "Owner", Value: owner}}, evidence...)
	for _, fact := range []struct {
		name string
		at   time.Time
	}{{"In use since", s.Start}, {"Last used", s.LastUsed}, {"Expires", s.Expires}} {
		if !fact.at.IsZero() {
			f.Evidence = append(f.Evidence, remit.Fact{Name: fact.name, Value: exactly(fact.at)})
		}
	}
	return f
}

// noticeSeverity rises with each notice: the last is of medium severity.
func noticeSeverity(given, all int) remit.Severity {
	switch all - given {
	case 0:
		return remit.Medium
	case 1:
		return remit.Low
	}
	return remit.Info
}

func notice(s *remit.Standing, soon []remit.LifecycleDemand) remit.Finding {
	slices.SortStableFunc(soon, func(a, b remit.LifecycleDemand) int { return a.Due.Compare(b.Due) })
	first := soon[0]
	severity := remit.Info
	var facts []remit.Fact
	for _, d := range soon {
		if given := noticeSeverity(d.Notice, d.Notices); given.Rank() > severity.Rank() {
			severity = given
		}
		facts = append(facts, remit.Fact{Name: "Due", Value: exactly(d.Due) + ", as it " + d.Words})
	}
	what := map[string]string{
		demandRotation: "is to be rotated by %s",
		demandAge:      "reaches its greatest age on %s",
		demandIdle:     "will have been unused for too long on %s",
		demandEnd:      "expires on %s",
	}[first.Demand]
	message := name(s) + " " + fmt.Sprintf(what, dayOf(first.Due))
	if first.Demand != demandEnd {
		message += ": " + because(s, first.Words)
	}
	remedy := "Rotate it before " + dayOf(first.Due) + "."
	if first.Demand == demandIdle {
		remedy = "If it is still needed, use it before " + dayOf(first.Due) + "; if not, remove it now."
	}
	return finding(s, PolicyNotice, "Credential that is due soon", severity, message, remedy, facts...)
}

func rotationDue(s *remit.Standing, d remit.LifecycleDemand) remit.Finding {
	severity, late := remit.Medium, "; from "+dayOf(d.Ends)+" on it is overdue"
	if d.State == remit.LifecycleOverdue {
		severity, late = remit.High, "; since "+dayOf(d.Ends)+" it is overdue"
	}
	return finding(s, PolicyRotationDue, "Credential that is due for rotation", severity,
		name(s)+" is due for rotation since "+dayOf(d.Due)+late+": "+because(s, d.Words),
		"Rotate it now: make its successor, put it where it is used, and end the old one.",
		remit.Fact{Name: "Due", Value: exactly(d.Due)}, remit.Fact{Name: "Overdue from", Value: exactly(d.Ends)})
}

func limitBroken(k *Case, s *remit.Standing, d remit.LifecycleDemand) remit.Finding {
	policy := limits[d.Demand]
	title, what, remedy := "", "", "Rotate it"
	switch d.Demand {
	case demandAge:
		title, what = "Credential beyond its greatest age", "is in use since "+dayOf(s.Start)+", and since "+dayOf(d.Due)+" for too long"
	case demandIdle:
		title, what, remedy = "Credential that is not used any more", "was last used on "+dayOf(s.LastUsed), "Disable it, or use it again if it is needed"
	case demandExpiry:
		title, what, remedy = "Credential without an end", "never expires", "Put one that expires in its place"
	case demandLifetime:
		title, what, remedy = "Credential that lives too long", "never expires", "Put one of a shorter life in its place"
		if life := life(&k.Credential); life < math.MaxInt64 {
			what = "lives for " + Span(life.Truncate(time.Minute)).words()
		}
	}
	severity, then := remit.Medium, "on "+dayOf(d.Ends)+" it is to be revoked"
	before := " before " + dayOf(d.Ends) + "."
	switch {
	case d.State == remit.LifecycleOverdue:
		severity, then, before = remit.High, "since "+dayOf(d.Ends)+" it is to be revoked", " now."
	case d.Next.Step == stepRotate:
		then = "it is being rotated"
	}
	told := k.Told[policy].Since
	if told.IsZero() {
		told = toldNow(s.At)
	}
	return finding(s, policy, title, severity, name(s)+" "+what+"; "+then+": "+because(s, d.Words), remedy+before,
		remit.Fact{Name: factTold, Value: exactly(told)}, remit.Fact{Name: "Grace ends", Value: exactly(d.Ends)})
}

func revoke(s *remit.Standing, over []remit.LifecycleDemand) remit.Finding {
	since := over[0].Ends
	var why []string
	for _, d := range over {
		since = earlier(since, d.Ends)
		why = append(why, "it "+d.Words)
	}
	return finding(s, PolicyRevoke, "Credential that is to be revoked", remit.High,
		fmt.Sprintf("%s is to be revoked now: its grace ended on %s, and the lifecycle policy %s says that %s", name(s), dayOf(since), s.Policy, strings.Join(why, ", and that ")),
		"Revoke it. If it is still needed, rotate it first.",
		remit.Fact{Name: "Grace ended", Value: exactly(since)})
}
