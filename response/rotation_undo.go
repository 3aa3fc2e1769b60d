package response

import (
	"context"
	"time"

	"remit"
)

// undoRotation takes a rotation back, as long as the old credential lives. What no
// destination can have is ended. Where the new one is in use already, every
// destination must be able to give back what it held: Remit does not know the old
// secret, and to end the new one under those who use it would be an outage. The
// new one ends after the same grace as the old one would have; until then the plan
// is being undone, and Due says how long.
func (s *Responses) undoRotation(ctx context.Context, r remit.Response, by string) (remit.Response, error) {
	const op = "undo rotation"
	for {
		g, err := s.saga(ctx, r)
		if err != nil {
			return r, err
		}
		switch r.State {
		case remit.ResponseVerified, remit.ResponseFailed, remit.ResponseRunning:
			if err := g.undoable(op); err != nil {
				return r, err
			}
			r.Due = time.Time{}
			// Who is carrying it out finds that at his next write, and lets go.
			moved, err := s.move(ctx, r, remit.ResponseUndoing, by, "")
			if remit.KindOf(err) == remit.Conflict {
				// He wrote first, and it may be too late now.
				if r, err = s.Get(ctx, r.ID); err == nil {
					continue
				}
			}
			if err != nil {
				return r, err
			}
			r = moved
		case remit.ResponseUndoing:
		case remit.ResponseUndone:
			return r, nil
		default:
			return r, remit.Errorf(remit.Conflict, op, "it is %s: nothing of it was done", r.State)
		}
		break
	}
	release, err := s.hold(ctx, op, r.ID)
	if err != nil {
		return r, err
	}
	defer release()
	if r, err = s.Get(ctx, r.ID); err != nil || r.State != remit.ResponseUndoing {
		return r, err // another has undone it meanwhile
	}
	g, err := s.saga(ctx, r)
	if err != nil {
		return r, err
	}
	if err := g.endAttempts(ctx, false); err != nil {
		return g.r, err
	}
	if g.offered() {
		if err := g.restore(ctx); err != nil {
			return g.r, err
		}
		grace, err := g.grace()
		if err != nil {
			return g.r, err
		}
		if due := g.state.Restored.Add(grace); g.o.Now().Before(due) {
			g.r.Due = due
			return g.r, g.put(ctx)
		}
		if err := g.endAttempts(ctx, true); err != nil {
			return g.r, err
		}
	}
	g.r.Steps[0].State, g.r.Due = remit.ResponseUndone, time.Time{}
	return s.move(ctx, g.r, remit.ResponseUndone, "remit", "")
}

// undoable says why a rotation cannot be taken back, before anything is changed.
func (g *saga) undoable(op string) error {
	if g.r.Steps[g.endStep()].Tries > 0 {
		return remit.Errorf(remit.Conflict, op, "the old credential has been ended and cannot be brought back: rotate again instead")
	}
	if !g.offered() {
		return nil
	}
	first, end := g.deliveries()
	for i := first; i < end; i++ {
		if step := g.r.Steps[i]; step.Tries > 0 && step.Undo == "" {
			return remit.Errorf(remit.Unsupported, op, "%s holds the new secret and cannot be given the old one, and to end the new one would cut off who uses it: the old one lives, so that nothing is broken; rotate again instead", step.Object)
		}
	}
	return nil
}

// offered says whether a destination may have a successor.
func (g *saga) offered() bool {
	for _, a := range g.state.Attempts {
		if a.Offered {
			return true
		}
	}
	return false
}

// endAttempts ends the successors: those that no destination can have, or all.
func (g *saga) endAttempts(ctx context.Context, all bool) error {
	for n := range g.state.Attempts {
		a := &g.state.Attempts[n]
		if a.Ended || a.Offered && !all {
			continue
		}
		until, err := g.endOne(ctx, 0, a.known())
		if err != nil {
			return remit.Errorf(remit.KindOf(err), "undo rotation", "end %s: %w", a.Ref, err)
		}
		if !until.IsZero() {
			g.note("%s cannot be ended before %s", a.Ref, until.UTC().Format(time.RFC3339))
		}
		g.state.Attempts[n].Ended = true
		if err := g.put(ctx); err != nil {
			return err
		}
	}
	return nil
}

// restore gives the destinations back what they held, those first that hold a
// secret, and those after them that start again for it.
func (g *saga) restore(ctx context.Context) error {
	first, end := g.deliveries()
	for i := first; i < end; i++ {
		if step := g.r.Steps[i]; step.Tries == 0 || step.State == remit.ResponseUndone {
			continue
		}
		d, step, plan, _, err := g.at(ctx, i)
		if err == nil {
			err = g.attempt(ctx, step, d.Restore, nil)
		}
		if err != nil {
			g.r.Steps[i].Failure = err.Error()
			if e := g.put(ctx); e != nil {
				return e
			}
			return remit.Errorf(remit.KindOf(err), "undo rotation", "%s: %w", plan.To, err)
		}
		g.r.Steps[i].State, g.r.Steps[i].Failure = remit.ResponseUndone, ""
		if err := g.put(ctx); err != nil {
			return err
		}
	}
	if g.state.Restored.IsZero() {
		g.state.Restored = g.o.Now().UTC()
		return g.put(ctx)
	}
	return nil
}
