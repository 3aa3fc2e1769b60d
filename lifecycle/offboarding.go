package lifecycle

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"remit"
)

// Offboarding is what happens to identities that are not needed any more.
type Offboarding struct {
	// Causes are for what an identity is offboarded; empty is all of them.
	Causes []Cause `yaml:"causes"`

	// Grace is how long after an identity was to be disabled it is to be
	// removed; nil is [DefaultOffboardingGrace].
	Grace *Span `yaml:"grace"`

	// UnusedFor is how long an identity whose owner has left must have done
	// nothing: one that is at work needs another owner, not its end. nil is 30
	// days.
	UnusedFor *Span `yaml:"unused_for"`

	// Except are identities that are never offboarded, as
	// "ServiceAccount payments/api"; * is any run of characters.
	Except []string `yaml:"except"`
}

// The defaults of [Offboarding].
const (
	DefaultOffboardingGrace = Span(30 * day)
	defaultUnusedFor        = Span(30 * day)
)

func (o *Offboarding) grace() time.Duration {
	if o.Grace != nil {
		return time.Duration(*o.Grace)
	}
	return time.Duration(DefaultOffboardingGrace)
}

func (o *Offboarding) unusedFor() time.Duration {
	if o.UnusedFor != nil {
		return time.Duration(*o.UnusedFor)
	}
	return time.Duration(defaultUnusedFor)
}

func (o *Offboarding) has(c Cause) bool { return len(o.Causes) == 0 || slices.Contains(o.Causes, c) }

func (o *Offboarding) check(at string) *fault {
	if o == nil {
		return nil
	}
	for i, c := range o.Causes {
		if !slices.Contains(Causes, c) {
			known := make([]string, len(Causes))
			for i, k := range Causes {
				known[i] = string(k)
			}
			return &fault{fmt.Sprintf("%s.causes[%d]", at, i), fmt.Sprintf("there is no cause %q: use %s", c, strings.Join(known, ", "))}
		}
	}
	return nil
}

// Cause is why an identity is offboarded.
type Cause string

// The causes. All but that a person has left rest on a finding of the built-in
// policy named beside them, so that whoever suppresses, narrows or disables that
// policy is heard here too.
const (
	PersonLeft      Cause = "person-left"      // a human identity whom the list of people calls left
	OwnerLeft       Cause = "owner-left"       // owner-left: the owner has left, and it is not at work
	WorkloadGone    Cause = "workload-gone"    // account-orphaned: nothing runs as it any more
	IdentityDeleted Cause = "identity-deleted" // dangling-subject: it was deleted, by itself or with its namespace or integration, and still has grants
)

// Causes lists the causes, the gravest first.
var Causes = []Cause{PersonLeft, IdentityDeleted, WorkloadGone, OwnerLeft}

// causeOf is the cause that a built-in policy's finding is.
var causeOf = map[string]Cause{"owner-left": OwnerLeft, "account-orphaned": WorkloadGone, "dangling-subject": IdentityDeleted}

// causePolicies are those policies.
var causePolicies = []string{"account-orphaned", "dangling-subject", "owner-left"}

// The policies of the findings on identities.
const (
	PolicyOffboardDisable = "offboarding-disable"
	PolicyOffboardRemove  = "offboarding-remove"
)

var offboardingPolicies = []string{PolicyOffboardDisable, PolicyOffboardRemove}

const factCause = "Cause"

// Leaver is an identity that may have to be offboarded, and what is known around it.
type Leaver struct {
	Identity remit.Identity

	// Causes are those of the findings that stand on it.
	Causes map[Cause]bool

	// Begun is the finding with which its offboarding began; nil before.
	Begun *remit.Finding

	// Disabled says that a plan has disabled it, and that this was not undone.
	Disabled bool

	PersonLeft   bool // the list of people calls it left
	Runs         bool // a workload runs as it
	NamespaceOut bool // its namespace is known to be gone

	Use Use // of any of its credentials
}

// cause tells why the identity is to be offboarded now; "" when it is not.
//
// Once it is disabled it may break no policy any more, for it has no grants left:
// the reason itself is then asked for, so that what comes back is let go.
func (o *Offboarding) cause(l *Leaver, now time.Time) Cause {
	if l.Identity.BuiltIn || among(o.Except, l.Identity.Ref.String()) && len(o.Except) > 0 {
		return ""
	}
	for _, c := range Causes {
		if !o.has(c) {
			continue
		}
		began := l.Disabled && l.Begun != nil && factOf(l.Begun, factCause) == string(c)
		switch c {
		case PersonLeft:
			if l.PersonLeft {
				return c
			}
		case IdentityDeleted:
			if l.Identity.Status == remit.Absent && (l.Causes[c] || began) {
				return c
			}
		case WorkloadGone:
			if !l.Runs && (l.Causes[c] || began) {
				return c
			}
		case OwnerLeft:
			left := len(l.Identity.Owners) > 0 && l.Identity.Owners[0].Status == remit.OwnerLeft
			if left && (l.Causes[c] || began) && (began || o.quiet(l, now)) {
				return c
			}
		}
	}
	return ""
}

// quiet says that an identity is known to have done nothing for long, and that
// nothing runs as it.
func (o *Offboarding) quiet(l *Leaver, now time.Time) bool {
	return !l.Runs && !l.Use.Last.IsZero() && earlier(now, l.Use.Until).Sub(l.Use.Last) >= o.unusedFor()
}

func factOf(f *remit.Finding, name string) string {
	for _, fact := range f.Evidence {
		if fact.Name == name {
			return fact.Value
		}
	}
	return ""
}

// offboard tells what is to be done with an identity, and when that will be more;
// zero when it will not.
func (o *Offboarding) offboard(l *Leaver, now time.Time) (out []remit.Finding, changes time.Time) {
	cause := o.cause(l, now)
	if cause == "" {
		return nil, time.Time{}
	}
	told := Told{Since: toldNow(now)}
	if l.Begun != nil {
		if begun := tell(l.Begun, now); !begun.Since.IsZero() {
			told = begun
		}
	}
	ends := later(told.Since.Add(o.grace()), told.Held)
	why, back := o.words(l, cause)
	severity, use := remit.Medium, "last used "+exactly(l.Use.Last)
	switch {
	case cause == PersonLeft:
		severity = remit.High
	case l.Use.Last.IsZero():
		// It may be at work where nobody sees it.
		severity, use = remit.Low, "not known: no use was ever seen, which may also be because nothing tells of it"
	}
	who := l.Identity.Ref.String()
	facts := []remit.Fact{
		{Name: factCause, Value: string(cause)},
		{Name: factTold, Value: exactly(told.Since)},
		{Name: "To be removed", Value: exactly(ends)},
		{Name: "Use", Value: use},
	}
	out = append(out, identityFinding(l, PolicyOffboardDisable, "Identity that is to be disabled", severity,
		fmt.Sprintf("%s: disable %s now; on %s it is to be removed, unless %s", why, who, dayOf(ends), back),
		"Disable it, which can be undone. If it is still needed, see to it that "+back+".", facts...))
	if now.Before(ends) {
		return out, ends
	}
	return append(out, identityFinding(l, PolicyOffboardRemove, "Identity that is to be removed", severity,
		fmt.Sprintf("%s, and that has not changed since %s: remove %s now", why, dayOf(told.Since), who),
		"Remove it, with its credentials and grants.", facts...)), time.Time{}
}

// words say why, and what would let the identity go on.
func (o *Offboarding) words(l *Leaver, c Cause) (why, back string) {
	switch c {
	case PersonLeft:
		return "This person has left", "the list of people says otherwise"
	case OwnerLeft:
		return fmt.Sprintf("Its owner, %s, has left, and it does nothing since %s", l.Identity.Owners[0].Name, dayOf(l.Use.Last)), "it gets another owner"
	case WorkloadGone:
		return "Nothing runs as it any more", "a workload runs as it again"
	}
	what := "It was deleted and still has grants"
	switch {
	case l.NamespaceOut:
		what = fmt.Sprintf("It went with its namespace %s and still has grants", l.Identity.Namespace)
	case l.Identity.Type == remit.Application:
		what = "This integration was removed and still has grants"
	}
	return what, "it is made again"
}

func identityFinding(l *Leaver, policy, title string, severity remit.Severity, message, remedy string, facts ...remit.Fact) remit.Finding {
	owner := "nobody"
	if len(l.Identity.Owners) > 0 {
		owner = cmp.Or(l.Identity.Owners[0].Name, owner)
	}
	return remit.Finding{
		ID: remit.FindingID(policy, l.Identity.ID), Policy: policy, Title: title, Severity: severity, System: l.Identity.System,
		Subject: remit.Subject{Record: remit.KindIdentity, Ref: l.Identity.Ref, ID: l.Identity.ID}, Identity: l.Identity.ID,
		Message: message, Remedy: remedy, Evidence: append([]remit.Fact{{Name: "Owner", Value: owner}}, facts...),
		Risks:    []string{"NHI1", "T1078"},
		Controls: []string{"SOC 2 CC6.2", "ISO/IEC 27001 A.5.18", "NIST SP 800-53 AC-2(3)", "NIST CSF PR.AA-01", "PCI DSS 8.2.5"},
	}
}
