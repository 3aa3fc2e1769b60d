package response

import (
	"cmp"
	"context"
	"path"
	"slices"
	"time"

	"remit"
)

// Rule says what Remit does about findings without being asked.
type Rule struct {
	Name string // tells it from others, and stands for who asked in its plans

	// What findings it is about: their policies, as patterns of [path.Match], the
	// least severity, and the names of their systems. What is empty is not asked for;
	// but a rule that names no policy is only about what was seen to happen, as
	// detections tell it, and not about what is merely set up badly.
	Policies []string
	Severity remit.Severity
	Systems  []string

	// What is done: an action and, of containment, its grades; nil lets the
	// connector choose the mildest that cuts. Escalate are further grades, each
	// of which is taken when what was cut off goes on being allowed.
	Action   remit.Action
	Grades   []remit.Grade
	Escalate []remit.Grade

	// Unapproved has the plans carried out at once in systems of mode enforce,
	// those of no more than Hourly identities within an hour (10 when 0), for a
	// rule that is wrong must not stop everything. All others wait for approval.
	Unapproved bool
	Hourly     int
}

// hourly is how many identities a rule may touch an hour where it does not say.
const hourly = 10

// asker is who asks for the plans of a rule.
func (r *Rule) asker() string { return "rule " + r.Name }

// about says whether the rule is about a finding of a system.
func (r *Rule) about(f *remit.Finding, system string) bool {
	return f.Severity.Rank() >= r.Severity.Rank() &&
		(len(r.Systems) == 0 || slices.Contains(r.Systems, system)) &&
		(len(r.Policies) == 0 && f.EventCount > 0 || r.names(f.Policy))
}

// names says whether a pattern of the rule is about a policy.
func (r *Rule) names(policy string) bool {
	return slices.ContainsFunc(r.Policies, func(pattern string) bool {
		ok, err := path.Match(pattern, policy)
		return ok && err == nil
	})
}

// Check says what is wrong with a rule: [remit.Invalid].
func (r *Rule) Check() error {
	known := func(grades []remit.Grade) error {
		for _, g := range grades {
			if !slices.Contains(remit.Grades, g) {
				return remit.Errorf(remit.Invalid, "", "no grade %q: use one of %q", g, remit.Grades)
			}
		}
		return nil
	}
	switch {
	case r.Name == "":
		return remit.Errorf(remit.Invalid, "", "give it a name")
	case r.Action == "":
		return remit.Errorf(remit.Invalid, "", "say what it does, for example do: contain")
	case !slices.Contains(remit.Actions, r.Action):
		return remit.Errorf(remit.Invalid, "", "no action %q: use one of %q", r.Action, remit.Actions)
	case r.Action != remit.Contain && len(r.Grades)+len(r.Escalate) > 0:
		return remit.Errorf(remit.Invalid, "", "only containment has grades")
	case r.Action == remit.RemoveIdentity && r.Unapproved:
		return remit.Errorf(remit.Invalid, "", "what is removed does not come back as it was, so a person has to approve it: leave approval: none out, or disable")
	case len(r.Policies) == 0 && r.Severity == "":
		return remit.Errorf(remit.Invalid, "", "it is about every finding there is: name policies, or the least severity")
	case r.Severity != "" && r.Severity.Rank() == 0:
		_, err := remit.ParseSeverity(string(r.Severity))
		return err
	case r.Hourly < 0:
		return remit.Errorf(remit.Invalid, "", "hourly: %d: use the number of identities that it may touch an hour", r.Hourly)
	}
	for _, p := range r.Policies {
		if _, err := path.Match(p, ""); err != nil {
			return remit.Errorf(remit.Invalid, "", "policies: %q is no pattern: only * and ? and [] are special", p)
		}
	}
	return cmp.Or(known(r.Grades), known(r.Escalate))
}

// mayTouch says whether a rule may touch a subject unapproved, within its limit.
func (s *Responses) mayTouch(ctx context.Context, r *Rule, subject remit.ID, now time.Time) (bool, error) {
	touched := map[remit.ID]bool{}
	err := s.since(ctx, remit.ResponseFilter{}, now.Add(-time.Hour), func(p *remit.Response) {
		if p.AskedBy == r.asker() && p.State != remit.ResponseProposed && p.State != remit.ResponseRejected && p.State != remit.ResponseExpired {
			touched[p.Subject.ID] = true
		}
	})
	return err == nil && (touched[subject] || len(touched) < cmp.Or(r.Hourly, hourly)), err
}

// since calls each with the responses that were made after a time, the newest
// first.
func (s *Responses) since(ctx context.Context, f remit.ResponseFilter, after time.Time, each func(*remit.Response)) error {
	page := remit.PageRequest{Limit: 200}
	for {
		some, next, err := s.o.Store.Responses(ctx, f, page)
		if err != nil {
			return err
		}
		for i := range some {
			if some[i].Made.Before(after) {
				return nil
			}
			each(&some[i])
		}
		if next == "" {
			return nil
		}
		page.After = next
	}
}
