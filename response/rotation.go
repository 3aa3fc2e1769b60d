package response

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"remit"
	"remit/connector"
)

// A rotation is a saga. Its plan holds which successors were begun, under names
// that were written before they were made, and what each destination confirmed; its
// secret is in the memory of one process. When that process ends before all
// destinations have it, the successor is given up and another is made. One that no
// destination can have is ended at once. One that a destination may have is ended
// at the end, together with the old one: until all have the next, somebody may be
// using it.

const (
	// maxAttempts bounds how many successors one plan makes.
	maxAttempts = 10

	// maxAwait bounds how long a successor may go unused, or unrolled out, before
	// the plan gives up. The old credential lives on then.
	maxAwait = 7 * 24 * time.Hour

	// Between two looks whether a successor is used, or a roll-out over, lies a
	// quarter of the time that it took so far, and no less or more than this.
	leastLook, mostLook = 5 * time.Second, 15 * time.Minute
)

// rotation is what After holds of the step that issues.
type rotation struct {
	Attempts []attempt `json:"attempts,omitempty"`

	// Restored is when an undo had given all destinations back what they held.
	Restored time.Time `json:"restored,omitzero"`
}

// attempt is one successor.
type attempt struct {
	Ref    remit.Ref         `json:"ref"`
	Begun  time.Time         `json:"begun"`
	Issued *connector.Issued `json:"issued,omitempty"` // nil while it is not known to exist

	// Offered says that a destination may hold it, GivenUp that another is to be
	// made in its place, Ended that it was ended.
	Offered bool `json:"offered,omitempty"`
	GivenUp bool `json:"given_up,omitempty"`
	Ended   bool `json:"ended,omitempty"`

	// Delivered is when every destination was seen to hold it.
	Delivered time.Time `json:"delivered,omitzero"`
}

// known is what is known of it.
func (a attempt) known() connector.Issued {
	if a.Issued != nil {
		return *a.Issued
	}
	return connector.Issued{Ref: a.Ref}
}

// receipt is what After holds of a step that delivers.
type receipt struct {
	Attempt int             `json:"attempt"` // from 1
	Receipt json.RawMessage `json:"receipt,omitempty"`
}

// saga is a rotation that is being carried out.
type saga struct {
	*Responses
	r      remit.Response
	issuer connector.Issuer
	state  rotation
	secret *connector.Secret // of the last attempt; nil when this process does not have it
}

// errWaits says that there is nothing to do before the time in Response.Due.
var errWaits = errors.New("it waits")

// rotate carries a rotation out as far as it goes now. A plan that waits, for the
// use of the new credential or for the grace of the old one, stays running, with
// Due set, and is no error.
func (s *Responses) rotate(ctx context.Context, r remit.Response) (remit.Response, error) {
	g, err := s.saga(ctx, r)
	if err != nil {
		return r, err
	}
	defer func() { g.secret.Zero() }()
	if r.State == remit.ResponseApproved {
		if g.r, err = s.move(ctx, r, remit.ResponseRunning, "remit", ""); err != nil {
			return g.r, err
		}
	}
	for _, phase := range []func(context.Context) error{g.deliver, g.awaitUse, g.end} {
		err := s.stopped(ctx)
		if err == nil {
			err = phase(ctx)
		}
		if errors.Is(err, errWaits) {
			return g.r, nil
		} else if err != nil {
			return g.r, err
		}
	}
	g.r.Due = time.Time{}
	return s.move(ctx, g.r, remit.ResponseVerified, "remit", "")
}

func (s *Responses) saga(ctx context.Context, r remit.Response) (*saga, error) {
	const op = "carry out rotation"
	g := &saga{Responses: s, r: r}
	n := len(r.Steps)
	if n < 4 || r.Steps[0].Phase != remit.Issue || r.Steps[n-2].Phase != remit.AwaitUse || r.Steps[n-1].Phase != remit.End {
		return nil, remit.Errorf(remit.Invalid, op, "the steps of plan %s are not those of a rotation", r.ID)
	}
	if err := readState(r.Steps[0].After, &g.state); err != nil {
		return nil, remit.Errorf(remit.Invalid, op, "plan %s cannot be read: %w", r.ID, err)
	}
	var err error
	g.issuer, err = s.issuer(ctx, op, r.System)
	return g, err
}

// readState reads what a step holds, which may be nothing yet.
func readState(text json.RawMessage, into any) error {
	if len(text) == 0 {
		return nil
	}
	return json.Unmarshal(text, into)
}

// put writes what the saga knows.
func (g *saga) put(ctx context.Context) error {
	after, err := json.Marshal(g.state)
	if err != nil {
		return remit.Errorf(remit.Internal, "write rotation", "%w", err)
	}
	g.r.Steps[0].After = after
	r, err := g.o.Store.PutResponse(ctx, g.r)
	if err == nil {
		g.r = r
	}
	return err
}

// note puts something into the history.
func (g *saga) note(format string, args ...any) {
	g.r.History = append(g.r.History, remit.ResponseEvent{Time: g.o.Now().UTC(), Actor: "remit", State: g.r.State, Note: fmt.Sprintf(format, args...)})
}

// waits leaves the plan until a time.
func (g *saga) waits(ctx context.Context, until time.Time) error {
	g.r.Due = until.UTC()
	if err := g.put(ctx); err != nil {
		return err
	}
	return errWaits
}

// looks leaves the plan for a while that grows with the time it has taken since.
func (g *saga) looks(ctx context.Context, since time.Time) error {
	now := g.o.Now()
	return g.waits(ctx, now.Add(min(max(now.Sub(since)/4, leastLook), mostLook)))
}

// attempt does a step as [Responses.try] does, until somebody stops everything or
// wants the plan undone.
func (g *saga) attempt(ctx context.Context, step remit.Step, do, verify func(context.Context, remit.Step) error) error {
	proceed := func() error { return g.unchanged(ctx, g.r) }
	if g.r.State == remit.ResponseUndoing {
		proceed = nil // a stop does not keep anybody from undoing
	}
	return g.try(ctx, step, do, verify, proceed)
}

func isInterrupted(err error) bool { return errors.As(err, new(interrupted)) }

// stopAt writes that the plan did not get on at a step: it fails, or stays running
// when another try may help. A successor that no destination can have does not
// outlive a plan that fails.
func (g *saga) stopAt(ctx context.Context, step int, cause error) error {
	if isInterrupted(cause) {
		return cause
	}
	if last := g.last(); last != nil && !again(cause) && ctx.Err() == nil && !last.Offered && !last.GivenUp {
		if err := g.giveUp(ctx, "the plan fails"); err != nil {
			return errors.Join(cause, err)
		}
	}
	if after, err := json.Marshal(g.state); err == nil {
		g.r.Steps[0].After = after
	}
	r, err := g.failed(ctx, g.r, step, cause)
	g.r = r
	return err
}

func (g *saga) plan() json.RawMessage { return g.r.Steps[0].Before }

// last is the newest attempt, or nil.
func (g *saga) last() *attempt {
	if n := len(g.state.Attempts); n > 0 {
		return &g.state.Attempts[n-1]
	}
	return nil
}

// Which steps deliver, and those after them.
func (g *saga) deliveries() (first, end int) { return 1, len(g.r.Steps) - 2 }
func (g *saga) awaitStep() int               { return len(g.r.Steps) - 2 }
func (g *saga) endStep() int                 { return len(g.r.Steps) - 1 }

// deliver makes successors until one is with all destinations.
func (g *saga) deliver(ctx context.Context) error {
	for {
		if last := g.last(); last != nil && !last.GivenUp && !last.Delivered.IsZero() {
			return nil
		}
		if err := g.issue(ctx); err != nil {
			return err
		}
		err := g.deliverAll(ctx)
		if !errors.Is(err, connector.ErrSecretGone) {
			return err
		}
		if err := g.giveUp(ctx, "the process that had its secret ended before every destination had it"); err != nil {
			return err
		}
	}
}

// issue makes a successor, unless the last one can still be delivered.
func (g *saga) issue(ctx context.Context) error {
	if last := g.last(); last != nil && !last.GivenUp {
		if last.Issued != nil {
			return nil
		}
		if err := g.giveUp(ctx, "it is not known whether it was made"); err != nil {
			return err
		}
	}
	for len(g.state.Attempts) < maxAttempts {
		ref, err := g.issuer.Successor(g.plan(), attemptName(g.r.ID, len(g.state.Attempts)+1))
		if err != nil {
			return g.stopAt(ctx, 0, err)
		}
		// From here on it may exist, whatever becomes of this process.
		g.state.Attempts = append(g.state.Attempts, attempt{Ref: ref, Begun: g.o.Now().UTC()})
		g.r.Steps[0].State, g.r.Steps[0].Done = remit.ResponseProposed, time.Time{}
		g.r.Steps[0].Tries++
		if err := g.put(ctx); err != nil {
			return err
		}
		err = g.make(ctx, ref)
		if remit.KindOf(err) != remit.Conflict {
			return err
		}
		// The name is somebody else's, and so is what bears it.
		g.last().GivenUp, g.last().Ended = true, true
		g.note("there is a %s already: %v", ref, err)
	}
	return g.stopAt(ctx, 0, remit.Errorf(remit.Conflict, "", "%d successors could not be delivered: the history tells why", maxAttempts))
}

// make issues the last attempt. A [remit.Conflict] says that something else has its
// name.
func (g *saga) make(ctx context.Context, ref remit.Ref) error {
	issuing, cancel := context.WithTimeout(ctx, g.o.Wait)
	defer cancel()
	issued, secret, err := g.issuer.Issue(issuing, g.plan(), ref)
	if err != nil {
		secret.Zero()
		if remit.KindOf(err) == remit.Conflict {
			return err
		}
		if e := g.giveUp(ctx, "to make it failed"); e != nil {
			return errors.Join(err, e)
		}
		return g.stopAt(ctx, 0, err)
	}
	g.secret, g.last().Issued = secret, &issued
	step := &g.r.Steps[0]
	step.State, step.Failure, step.Done = remit.ResponseVerified, "", g.o.Now().UTC()
	return g.put(ctx)
}

// attemptName is unique to an attempt of a plan: ten characters of a-z and 2-7.
func attemptName(id remit.ID, n int) string {
	sum := sha256.Sum256([]byte(string(id) + "\x00" + strconv.Itoa(n)))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:10]
}

// giveUp leaves the last successor for another. When no destination can have it, it
// is ended first.
func (g *saga) giveUp(ctx context.Context, why string) error {
	g.secret.Zero()
	g.secret = nil
	last := g.last()
	switch {
	case last.Offered:
		g.note("%s is given up: %s. A destination may have it, so it ends with the old one.", last.Ref, why)
	default:
		until, err := g.issuer.End(ctx, g.plan(), last.known())
		if err != nil {
			err = remit.Errorf(remit.Unavailable, "", "%s was not delivered and has to be ended first: %w", last.Ref, err)
			r, e := g.failed(ctx, g.r, 0, err)
			g.r = r
			return errors.Join(e, err)
		}
		last.Ended = true
		if until.IsZero() {
			g.note("%s is ended: %s.", last.Ref, why)
		} else {
			g.note("%s is given up: %s. It is valid until %s, and nobody has its secret.", last.Ref, why, until.UTC().Format(time.RFC3339))
		}
	}
	last.GivenUp = true
	return g.put(ctx)
}

// deliverAll delivers the last successor to every destination, and then waits for
// all to hold it: the secret is on its way before anything is waited for.
func (g *saga) deliverAll(ctx context.Context) error {
	first, end := g.deliveries()
	for i := first; i < end; i++ {
		if err := g.stopped(ctx); err != nil {
			return err
		}
		if err := g.deliverTo(ctx, i); err != nil {
			return err
		}
	}
	for i := first; i < end; i++ {
		if err := g.verifyAt(ctx, i); err != nil {
			return err
		}
	}
	g.secret.Zero()
	g.secret = nil
	g.last().Delivered = g.o.Now().UTC()
	return g.put(ctx)
}

// at opens the destination of a step. What the step found is in the connector's
// own form, as it was planned.
func (g *saga) at(ctx context.Context, i int) (d connector.Destination, step remit.Step, plan deliveryPlan, got receipt, err error) {
	step = g.r.Steps[i]
	if err = readState(step.Before, &plan); err == nil {
		err = readState(step.After, &got)
	}
	if err != nil {
		return nil, step, plan, got, remit.Errorf(remit.Invalid, "deliver", "step %d cannot be read: %w", i+1, err)
	}
	step.Before, step.After = plan.Found, nil
	d, err = g.destination(ctx, "deliver", g.r.System, plan.To)
	return d, step, plan, got, err
}

// deliverTo delivers to the destination of a step, unless it has confirmed that it
// got the last successor.
func (g *saga) deliverTo(ctx context.Context, i int) error {
	d, step, plan, got, err := g.at(ctx, i)
	if err != nil {
		return g.stopAt(ctx, i, err)
	}
	n, last := len(g.state.Attempts), g.last()
	if got.Attempt == n && got.Receipt != nil {
		return nil
	}
	if g.secret == nil && !plan.Refers {
		return connector.ErrSecretGone
	}
	// From here on the destination may have it.
	offered := last.Offered
	last.Offered = true
	if err := g.receive(ctx, i, receipt{Attempt: n}, true); err != nil {
		return err
	}
	delivery := connector.Delivery{Issued: *g.last().Issued, Secret: g.secret}
	for _, p := range g.predecessors() {
		delivery.Replaces = append(delivery.Replaces, p.Ref)
	}
	err = g.attempt(ctx, step, func(ctx context.Context, step remit.Step) (err error) {
		got.Receipt, err = d.Deliver(ctx, step, delivery)
		return err
	}, nil)
	if err != nil {
		if errors.Is(err, connector.ErrSecretGone) || isInterrupted(err) {
			return err
		}
		if !again(err) {
			g.last().Offered = offered // it was refused
		}
		return g.stopAt(ctx, i, err)
	}
	if got.Receipt == nil {
		got.Receipt = json.RawMessage("{}")
	}
	return g.receive(ctx, i, receipt{Attempt: n, Receipt: got.Receipt}, false)
}

// receive writes what is known of a delivery.
func (g *saga) receive(ctx context.Context, i int, got receipt, begins bool) error {
	step := &g.r.Steps[i]
	after, err := json.Marshal(got)
	if err != nil {
		return remit.Errorf(remit.Internal, "write receipt", "%w", err)
	}
	step.After, step.State, step.Done = after, remit.ResponseProposed, time.Time{}
	if begins {
		step.Tries++
	}
	return g.put(ctx)
}

// verifyAt waits until the destination of a step holds what it confirmed. What was
// put back meanwhile is delivered once more.
func (g *saga) verifyAt(ctx context.Context, i int) error {
	for again := true; ; again = false {
		d, step, plan, got, err := g.at(ctx, i)
		if err != nil {
			return g.stopAt(ctx, i, err)
		}
		if step.State == remit.ResponseVerified {
			return nil
		}
		err = g.attempt(ctx, step, func(ctx context.Context, step remit.Step) error { return d.Verify(ctx, step, got.Receipt) }, nil)
		switch kind := remit.KindOf(err); {
		case isInterrupted(err):
			return err
		case err == nil:
			step := &g.r.Steps[i]
			step.State, step.Failure, step.Done = remit.ResponseVerified, "", g.o.Now().UTC()
			return g.put(ctx)
		case kind == remit.Conflict && again:
			if err := g.receive(ctx, i, receipt{Attempt: got.Attempt}, false); err != nil {
				return err
			}
			if err := g.deliverTo(ctx, i); err != nil {
				return err
			}
		case kind == remit.Unavailable && plan.Refers && ctx.Err() == nil && g.o.Now().Sub(g.last().Begun) < maxAwait:
			g.r.Steps[i].Failure = err.Error()
			return g.looks(ctx, g.last().Begun)
		default:
			return g.stopAt(ctx, i, err)
		}
	}
}

// predecessors are the credentials in whose place the last successor comes.
func (g *saga) predecessors() []connector.Issued {
	var plan endPlan
	_ = readState(g.r.Steps[g.endStep()].Before, &plan) // an unreadable one does not get to its end
	var all []connector.Issued
	for _, ref := range plan.Old {
		all = append(all, connector.Issued{Ref: ref})
	}
	for _, a := range g.state.Attempts[:len(g.state.Attempts)-1] {
		all = append(all, a.known())
	}
	return all
}

// awaitUse waits until the successor is seen in use.
func (g *saga) awaitUse(ctx context.Context) error {
	i, last := g.awaitStep(), g.last()
	step := &g.r.Steps[i]
	if step.State == remit.ResponseVerified {
		return nil
	}
	used, err := g.usedAt(ctx, last)
	if err != nil {
		return g.stopAt(ctx, i, err)
	}
	if used.IsZero() {
		if g.o.Now().Sub(last.Delivered) >= maxAwait {
			return g.stopAt(ctx, i, remit.Errorf(remit.Conflict, "", "within %s %s was not seen in use: the old one lives on. See whether its consumers have started again, and whether Remit gets the log of its system", spanWords(maxAwait), last.Ref))
		}
		return g.looks(ctx, last.Delivered)
	}
	step.State, step.Done, step.Failure = remit.ResponseVerified, g.o.Now().UTC(), ""
	g.note("%s was seen in use at %s", last.Ref, used.UTC().Format(time.RFC3339))
	return g.put(ctx)
}

// usedAt is when the successor was used, as its system or the log tells; zero when
// it was not.
func (g *saga) usedAt(ctx context.Context, a *attempt) (used time.Time, err error) {
	if a.Issued.Native != "" {
		f := remit.ActivityFilter{System: g.r.System, Credentials: []string{a.Issued.Native}}
		err := remit.Each(ctx, f, g.o.Store.Lineage, func(l remit.Lineage) error {
			if l.Uses > 0 && l.Last.After(used) {
				used = l.Last
			}
			return nil
		})
		if err != nil || !used.IsZero() {
			return used, err
		}
	}
	if who := a.Issued.Identity; who != (remit.Ref{}) {
		f := remit.ActivityFilter{System: g.r.System, Identities: []remit.ID{remit.IdentityID(g.r.System, who)}, Since: a.Begun}
		err := remit.Each(ctx, f, g.o.Store.Usage, func(u remit.Usage) error {
			if u.Last.After(used) {
				used = u.Last
			}
			return nil
		})
		if err != nil || !used.IsZero() {
			return used, err
		}
	}
	if who := a.Issued.Mints; who != (remit.Ref{}) {
		f := remit.ActivityFilter{System: g.r.System, Identities: []remit.ID{remit.IdentityID(g.r.System, who)}}
		err := remit.Each(ctx, f, g.o.Store.Lineage, func(l remit.Lineage) error {
			if l.Uses > 0 && l.Minted.After(a.Begun) && l.Last.After(used) {
				used = l.Last
			}
			return nil
		})
		if err != nil || !used.IsZero() {
			return used, err
		}
	}
	asking, cancel := context.WithTimeout(ctx, g.o.Wait)
	defer cancel()
	return g.issuer.Used(asking, g.plan(), *a.Issued)
}

// end ends, after the grace, the old credential and every successor that a
// destination may have had before the last. It looks first whether the last one
// still lives and is where it was delivered: to end the old one would be an outage
// otherwise.
func (g *saga) end(ctx context.Context) error {
	i := g.endStep()
	step := &g.r.Steps[i]
	if step.State == remit.ResponseVerified {
		return nil
	}
	grace, err := g.grace()
	if err != nil {
		return g.stopAt(ctx, i, err)
	}
	if due := g.r.Steps[g.awaitStep()].Done.Add(grace); g.o.Now().Before(due) {
		return g.waits(ctx, due)
	}
	if step.Tries == 0 {
		if err := g.stillThere(ctx); err != nil {
			return g.stopAt(ctx, i, err)
		}
	}
	step.Tries++
	if err := g.put(ctx); err != nil {
		return err
	}
	var until time.Time
	all := g.predecessors()
	old := len(all) - (len(g.state.Attempts) - 1)
	for n, which := range all {
		// A successor that nobody got is no danger while it lasts.
		waits := n < old || g.state.Attempts[n-old].Offered
		t, err := g.endOne(ctx, i, which)
		if err != nil {
			return g.stopAt(ctx, i, err)
		}
		if waits && t.After(until) {
			until = t
		}
	}
	for n := range g.state.Attempts[:len(g.state.Attempts)-1] {
		g.state.Attempts[n].Ended = true
	}
	if until.After(g.o.Now()) {
		g.r.Steps[i].Failure = ""
		return g.waits(ctx, until)
	}
	step = &g.r.Steps[i]
	step.State, step.Failure, step.Done = remit.ResponseVerified, "", g.o.Now().UTC()
	return g.put(ctx)
}

// grace is how long the old credential lives on.
func (g *saga) grace() (time.Duration, error) {
	i := g.endStep()
	var plan endPlan
	err := readState(g.r.Steps[i].Before, &plan)
	grace, e := time.ParseDuration(plan.Grace)
	if err = errors.Join(err, e); err != nil {
		return 0, remit.Errorf(remit.Invalid, "end", "step %d does not tell its grace: %w", i+1, err)
	}
	return grace, nil
}

// endOne ends a credential and asks its system whether it has ended.
func (g *saga) endOne(ctx context.Context, i int, which connector.Issued) (until time.Time, err error) {
	err = g.attempt(ctx, g.r.Steps[i], func(ctx context.Context, _ remit.Step) (err error) {
		until, err = g.issuer.End(ctx, g.plan(), which)
		return err
	}, func(ctx context.Context, _ remit.Step) error {
		if until.After(g.o.Now()) {
			return nil
		}
		lives, err := g.issuer.Lives(ctx, g.plan(), which)
		if err == nil && lives {
			err = remit.Errorf(remit.Conflict, "end", "%s still lives", which.Ref)
		}
		return err
	})
	return until, err
}

// stillThere gives an error unless the successor lives and is where it was
// delivered.
func (g *saga) stillThere(ctx context.Context) error {
	lives, err := g.issuer.Lives(ctx, g.plan(), g.last().known())
	if err != nil {
		return err
	}
	if !lives {
		return remit.Errorf(remit.Conflict, "end", "%s has been ended by somebody else: the old one lives on", g.last().Ref)
	}
	first, end := g.deliveries()
	for i := first; i < end; i++ {
		d, step, plan, got, err := g.at(ctx, i)
		if err != nil {
			return err
		}
		if err := g.attempt(ctx, step, func(ctx context.Context, step remit.Step) error { return d.Verify(ctx, step, got.Receipt) }, nil); isInterrupted(err) {
			return err
		} else if err != nil {
			return remit.Errorf(remit.KindOf(err), "end", "%s does not hold the new credential any more, so the old one lives on: %w", plan.To, err)
		}
	}
	return nil
}
