package response

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"remit"
)

// A containment is looked at again and again for a while after it was verified:
// whether what was cut off is still allowed something.
const (
	looksEvery = 15 * time.Second
	looksFor   = time.Hour

	// settles is how long what was allowed before may still be: an API server
	// believes a token for ten seconds after it has ended.
	settles = 12 * time.Second
)

// stillActive begins the note about what goes on in spite of a containment.
const stillActive = "still allowed: "

// watch looks whether a containment holds, and takes the next grade of its rule
// when it does not. It returns the plan as it is then.
func (a *Responder) watch(ctx context.Context, r remit.Response) (remit.Response, error) {
	s := a.responses
	now := s.o.Now()
	text, err := s.goesOn(ctx, &r)
	if err != nil {
		return r, err
	}
	if r.Due = now.Add(looksEvery); now.Sub(verifiedAt(&r)) > looksFor {
		r.Due = time.Time{}
	}
	if text == "" || slices.ContainsFunc(r.History, func(e remit.ResponseEvent) bool { return strings.HasPrefix(e.Note, stillActive) }) {
		return s.o.Store.PutResponse(ctx, r)
	}
	a.log.Warn("what was contained is still active", "plan", r.ID, "subject", r.Subject.String(), "what", text)
	if err := a.escalate(ctx, &r); err != nil {
		// It is tried again at the next look.
		a.log.Error("a containment could not be made stricter", "plan", r.ID, "error", err)
		return s.o.Store.PutResponse(ctx, r)
	}
	return s.move(ctx, r, remit.ResponseVerified, "remit", stillActive+text)
}

func verifiedAt(r *remit.Response) time.Time {
	var last time.Time
	for _, step := range r.Steps {
		if step.Done.After(last) {
			last = step.Done
		}
	}
	return last
}

// goesOn tells what of what a containment cuts was allowed after it was in effect;
// "" when nothing was. Of what it cuts by credential, that is whatever the forged
// ones do; of an identity as a whole, what a grant other than the platform's own
// for everybody allowed.
func (s *Responses) goesOn(ctx context.Context, r *remit.Response) (string, error) {
	since := verifiedAt(r).Add(settles)
	text := ""
	if len(r.Forged) > 0 {
		err := remit.Each(ctx, remit.ActivityFilter{System: r.System, Credentials: r.Forged}, s.o.Store.Lineage, func(l remit.Lineage) error {
			if text == "" && l.Allowed.After(since) {
				text = fmt.Sprintf("%s at %s", l.Credential, l.Allowed.Format("15:04:05 UTC"))
			}
			return nil
		})
		if err != nil || text != "" {
			return text, err
		}
	}
	whole := slices.ContainsFunc(r.Steps, func(step remit.Step) bool { return step.Grade != "" && !byCredential(step) })
	if !whole || r.Subject.Record != remit.KindIdentity {
		return "", nil
	}
	err := remit.Each(ctx, remit.ActivityFilter{System: r.System, Identities: []remit.ID{r.Subject.ID}, Since: since}, s.o.Store.Usage, func(u remit.Usage) error {
		if text == "" && u.Outcome == remit.Allowed && u.Last.After(since) && u.Binding.Name != "" && !strings.HasPrefix(u.Binding.Name, "system:") {
			text = fmt.Sprintf("%s %s by %s at %s", u.Action, u.Resource, u.Binding, u.Last.Format("15:04:05 UTC"))
		}
		return nil
	})
	return text, err
}

// escalate takes the next grade of the rule that asked for a containment.
func (a *Responder) escalate(ctx context.Context, r *remit.Response) error {
	at := slices.IndexFunc(a.rules, func(rule Rule) bool { return rule.asker() == r.AskedBy })
	if at < 0 {
		return nil
	}
	rule, s := &a.rules[at], a.responses
	if s.o.Mode(r.System) == remit.ModeObserve {
		return nil
	}
	found, _, err := s.o.Store.Findings(ctx, remit.FindingFilter{IDs: []remit.ID{remit.ID(r.Cause)}}, remit.PageRequest{Limit: 1})
	if err != nil || len(found) == 0 {
		return err
	}
	f := &found[0]
	p, err := s.before(ctx, f, rule.Action, rule.asker())
	if err != nil || p.decided {
		return err
	}
	for _, grade := range rule.Escalate {
		if p.grades[grade] {
			continue
		}
		q, err := s.about(ctx, f)
		if err != nil {
			return err
		}
		q.Action, q.Grades, q.AskedBy = rule.Action, []remit.Grade{grade}, rule.asker()
		plan, err := s.Plan(ctx, q)
		if kind := remit.KindOf(err); kind == remit.Unsupported || kind == remit.NotFound {
			continue // a grade that the system does not have, or that would take nothing more
		}
		if err != nil {
			return err
		}
		if plan, err = s.proposeBy(ctx, rule, plan); err != nil || plan.State != remit.ResponseApproved {
			return err
		}
		_, err = s.CarryOut(ctx, plan.ID)
		return err
	}
	return nil
}
