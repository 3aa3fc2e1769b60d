package response

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"remit"
	"remit/connector"
)

// Request asks for a plan.
type Request struct {
	System  remit.ID
	Action  remit.Action
	Subject remit.Subject // an identity, or a credential of it

	// Identity is whom the subject is or authenticates. Its ID is "" when the
	// inventory and the log do not know it.
	Identity   remit.Ref
	IdentityID remit.ID

	// Credential is, of a subject that is one, how the log writes it. Suspects
	// are further credentials that an attacker is known to have had, as a
	// finding names them.
	Credential string
	Suspects   []string

	Grades []remit.Grade // to contain; nil: the mildest that cuts

	// To reduce: what was not used for so long is taken, 90 days when 0, and a
	// right is narrowed to at most so many resources by name, 0 to none.
	UsedWithin time.Duration
	Names      int

	AskedBy string
	Cause   string // a finding's ID, a decision's; "" when a person asked
	Opening int    // how often that finding has come back

	held *past // credentials that plans hold already are left out
}

// proposal is how long a plan waits to be approved: what it found may have
// changed after that.
const proposal = 24 * time.Hour

// looksBack is how far the uses go back that a plan shows.
const looksBack = 30 * 24 * time.Hour

// maxUsed is how many of them it shows.
const maxUsed = 20

// ErrNothing says that a system is as it is to be already.
var ErrNothing = errors.New("there is nothing to change")

// Plan makes a plan and writes nothing, neither to the store nor to the system.
func (s *Responses) Plan(ctx context.Context, q Request) (remit.Response, error) {
	const op = "plan"
	if q.Action == remit.Rotate {
		return s.PlanRotation(ctx, s.rotationOf(q))
	}
	if s.o.Protected(q.Identity) {
		return remit.Response{}, remit.Errorf(remit.Forbidden, op, "%s is protected: take it out of protected in the configuration first", q.Identity)
	}
	enforcer, err := s.o.Enforcer(ctx, q.System)
	if err != nil {
		return remit.Response{}, err
	}
	now := s.o.Now().UTC().Truncate(time.Microsecond) // as a store keeps it
	order, taken, err := s.order(ctx, q, now)
	if err != nil {
		return remit.Response{}, err
	}
	planned, err := enforcer.Plan(ctx, order)
	if err != nil {
		return remit.Response{}, err
	}
	if len(planned.Steps) == 0 && q.Action == remit.Guard {
		return remit.Response{}, remit.Errorf(remit.NotFound, op, "the guard of %s: %w", q.Subject.Name, ErrNothing)
	}
	if len(planned.Steps) == 0 {
		return remit.Response{}, nothing(op, q, planned.Why)
	}
	r := remit.Response{
		ID: remit.ResponseID(q.Subject.ID, q.Action, now), System: q.System, Action: q.Action, Subject: q.Subject,
		Steps: planned.Steps, Why: planned.Why, State: remit.ResponseProposed, Cause: q.Cause, Opening: q.Opening, AskedBy: q.AskedBy,
		Made: now, Changed: now, Expires: now.Add(proposal),
	}
	if slices.ContainsFunc(r.Steps, byCredential) {
		r.Stolen, r.Forged = order.Stolen, order.Forged
	}
	if taken.bound > 0 {
		r.Why = append(r.Why, fmt.Sprintf("%d credentials that it made for others are bound to where those run and are left alone: contain their identities if they are misused.", taken.bound))
	}
	for i := range r.Steps {
		r.Steps[i].State = remit.ResponseProposed
	}
	if q.IdentityID != "" {
		if r.Used, err = s.used(ctx, q, now); err != nil {
			return remit.Response{}, err
		}
	}
	if q.Action == remit.Revoke {
		words, err := s.inUse(ctx, q, order.Credentials, now)
		if err != nil {
			return remit.Response{}, err
		}
		r.Why = append(words, r.Why...)
	}
	return r, nil
}

// nothing is the answer to a request that would take nothing.
func nothing(op string, q Request, why []string) error {
	switch q.Action {
	case remit.Contain:
		return remit.Errorf(remit.NotFound, op, "there is nothing to take away from %s: it has no credential in the log that could be frozen, and no grant of its own", q.Identity)
	}
	return remit.Errorf(remit.NotFound, op, "there is nothing to %s: %s", q.Action, strings.Join(why, " "))
}

// order is what a connector is asked to plan.
func (s *Responses) order(ctx context.Context, q Request, now time.Time) (o connector.Order, t taken, err error) {
	o = connector.Order{Action: q.Action, Subject: q.Subject, Identity: q.Identity, Grades: q.Grades}
	switch q.Action {
	case remit.Contain, remit.Revoke, remit.Disable:
		if t, err = s.take(ctx, q, now); err != nil {
			return o, t, err
		}
		if q.held != nil {
			t = q.held.missing(t)
		}
		o.Stolen, o.Forged, o.Minters = t.stolen, t.forged, t.minters()
	case remit.Reduce:
		o.Use, err = s.use(ctx, q, now)
		return o, t, err
	}
	switch q.Action {
	case remit.Disable:
		if o.Forged, err = s.live(ctx, q, now, o.Stolen, o.Forged); err != nil {
			return o, t, err
		}
		o.Stolen = nil
	case remit.Revoke:
		o.Stolen, o.Forged = nil, merged(o.Stolen, o.Forged)
	case remit.RemoveIdentity:
	default:
		return o, t, nil
	}
	o.Credentials, err = s.credentials(ctx, q)
	return o, t, err
}

// Propose stores a plan. When nobody has to approve it, it is approved at once.
func (s *Responses) Propose(ctx context.Context, r remit.Response) (remit.Response, error) {
	if s.o.Approvals(r.System) > 0 {
		return s.move(ctx, r, remit.ResponseProposed, r.AskedBy, "")
	}
	return s.move(ctx, r, remit.ResponseApproved, r.AskedBy, "the configuration asks for no approval")
}

// byCredential says whether a step cuts single credentials off.
func byCredential(step remit.Step) bool {
	return step.Grade == remit.FreezeCredentials || step.Grade == remit.RefuseCredentials
}

// used is what an identity did lately, the most first.
func (s *Responses) used(ctx context.Context, q Request, now time.Time) ([]remit.Usage, error) {
	type key struct {
		action, kind, in, name string
		outcome                remit.Outcome
	}
	sums := map[key]*remit.Usage{}
	filter := remit.ActivityFilter{System: q.System, Identities: []remit.ID{q.IdentityID}, Since: now.Add(-looksBack)}
	if q.Action == remit.Revoke && q.Credential != "" {
		filter.Roots = []string{q.Credential} // and what was minted with it; see inUse for one that is no root
	}
	err := remit.Each(ctx, filter, s.o.Store.Usage, func(u remit.Usage) error {
		k := key{action: u.Action, kind: u.Resource.Kind, in: u.Resource.Namespace, outcome: u.Outcome, name: u.Resource.Name}
		sum := sums[k]
		if sum == nil {
			u.Root, u.Binding = "", remit.Ref{}
			sums[k] = &u
			return nil
		}
		sum.Count += u.Count
		if u.Last.After(sum.Last) {
			sum.Last = u.Last
		}
		if u.First.Before(sum.First) {
			sum.First = u.First
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	all := make([]remit.Usage, 0, len(sums))
	for _, u := range sums {
		all = append(all, *u)
	}
	slices.SortFunc(all, func(a, b remit.Usage) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(fmt.Sprint(a.Action, a.Resource, a.Outcome), fmt.Sprint(b.Action, b.Resource, b.Outcome)))
	})
	return all[:min(len(all), maxUsed)], nil
}
