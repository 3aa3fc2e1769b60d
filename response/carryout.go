package response

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"remit"
)

// CarryOut does what an approved plan says, step by step, and verifies each, or
// goes on with one that was begun. It returns the plan as it stands then; the
// error says why it is not in effect as a whole. A plan of which a step failed for
// good is failed: the steps before it stay in effect, for half a containment is
// better than none, until somebody undoes it or plans anew.
//
// While another carries it out, CarryOut waits for him; [remit.Conflict] when that
// takes too long.
func (s *Responses) CarryOut(ctx context.Context, id remit.ID) (remit.Response, error) {
	const op = "carry out plan"
	release, err := s.hold(ctx, op, id)
	if err != nil {
		return remit.Response{ID: id}, err
	}
	defer release()
	r, err := s.Get(ctx, id)
	if err != nil {
		return r, err
	}
	switch r.State {
	case remit.ResponseApproved, remit.ResponseRunning:
	case remit.ResponseVerified:
		return r, nil
	default:
		return r, remit.Errorf(remit.Conflict, op, "it is %s", r.State)
	}
	if err := s.stopped(ctx); err != nil {
		return r, err
	}
	if r.Action == remit.Rotate {
		return s.rotate(ctx, r)
	}
	enforcer, err := s.o.Enforcer(ctx, r.System)
	if err != nil {
		return r, err
	}
	if r.State == remit.ResponseApproved {
		s.set(&r, remit.ResponseRunning, "remit", "") // written with the first step
	}
	for i := range r.Steps {
		if r.Steps[i].State == remit.ResponseVerified {
			continue
		}
		if err := s.stopped(ctx); err != nil {
			return r, err
		}
		// From here on the step may be in effect, whatever becomes of this process.
		r.Steps[i].Tries++
		if r, err = s.o.Store.PutResponse(ctx, r); err != nil {
			return r, err
		}
		if err := s.try(ctx, r.Steps[i], enforcer.Do, enforcer.Verify, func() error { return s.unchanged(ctx, r) }); err != nil {
			return s.failed(ctx, r, i, err)
		}
		step := &r.Steps[i]
		step.State, step.Failure, step.Done = remit.ResponseVerified, "", s.o.Now().UTC()
		if r, err = s.o.Store.PutResponse(ctx, r); err != nil {
			return r, err
		}
	}
	if r.Due = (time.Time{}); r.Action == remit.Contain {
		r.Due = s.o.Now().Add(looksEvery)
	}
	return s.move(ctx, r, remit.ResponseVerified, "remit", "")
}

// hold waits until nobody else holds a plan, no longer than a step may take.
func (s *Responses) hold(ctx context.Context, op string, id remit.ID) (release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Wait+10*time.Second)
	defer cancel()
	for {
		release, err := s.o.Store.HoldResponse(context.WithoutCancel(ctx), id)
		if remit.KindOf(err) != remit.Conflict {
			return release, err
		}
		select {
		case <-ctx.Done():
			return nil, remit.Errorf(remit.Conflict, op, "another is carrying it out: `remit plans show %s` tells how far he is", id)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// unchanged ends the tries at a step of a plan that was stopped, or that somebody
// wants undone.
func (s *Responses) unchanged(ctx context.Context, r remit.Response) error {
	if err := s.stopped(ctx); err != nil {
		return err
	}
	now, err := s.Get(ctx, r.ID)
	if err == nil && now.Version != r.Version {
		err = remit.Errorf(remit.Conflict, "carry out plan", "it is %s meanwhile", now.State)
	}
	return err
}

// Undo gives back what a plan took, the last step first, or goes on with an undo
// that was begun. A step that cannot be undone stays, and the history says so. One
// whose object somebody else has changed since is left to him, and keeps no other
// from being undone: the plan is failed then, and can be undone again.
func (s *Responses) Undo(ctx context.Context, id remit.ID, by string) (remit.Response, error) {
	const op = "undo plan"
	r, err := s.Get(ctx, id)
	if err != nil {
		return r, err
	}
	if r.Action == remit.Rotate {
		return s.undoRotation(ctx, r, by)
	}
	enforcer, err := s.o.Enforcer(ctx, r.System)
	if err != nil {
		return r, err
	}
	state := r.State
	if state == remit.ResponseApproved && slices.ContainsFunc(r.Steps, func(step remit.Step) bool { return step.Tries > 0 }) {
		state = remit.ResponseRunning // steps were added to one that is in effect
	}
	switch state {
	case remit.ResponseVerified, remit.ResponseFailed, remit.ResponseRunning:
		// Who is carrying it out finds that at his next write, and lets go.
		if r, err = s.undoing(ctx, r, by); err != nil {
			return r, err
		}
	case remit.ResponseUndoing:
	case remit.ResponseUndone:
		return r, nil
	default:
		return r, remit.Errorf(remit.Conflict, op, "it is %s: nothing of it was done", r.State)
	}
	release, err := s.hold(ctx, op, id)
	if err != nil {
		return r, err
	}
	defer release()
	if r, err = s.Get(ctx, id); err != nil {
		return r, err
	}
	if r.State != remit.ResponseUndoing { // another has undone it meanwhile
		return r, nil
	}
	var notes []string
	var failed error
	retry := false
	for i := len(r.Steps) - 1; i >= 0; i-- {
		step := &r.Steps[i]
		switch {
		case step.Tries == 0 || step.State == remit.ResponseUndone:
			continue
		case step.Undo == "":
			notes = append(notes, fmt.Sprintf("step %d cannot be undone: %s", i+1, step.Does))
			continue
		}
		switch err := s.try(ctx, *step, enforcer.Undo, nil, nil); {
		case err == nil:
			step.State, step.Failure = remit.ResponseUndone, ""
		case remit.KindOf(err) == remit.Conflict && step.State == remit.ResponseFailed:
			// It failed because the object was not as planned, and it still is not.
			notes = append(notes, fmt.Sprintf("step %d had not been done, and its object is as others made it", i+1))
			step.State = remit.ResponseUndone
		default:
			step.Failure = err.Error()
			failed = errors.Join(failed, remit.Errorf(remit.KindOf(err), op, "step %d: %w", i+1, err))
			retry = retry || again(err)
		}
		if r, err = s.o.Store.PutResponse(ctx, r); err != nil {
			return r, errors.Join(failed, err)
		}
	}
	switch note := strings.Join(notes, "; "); {
	case failed == nil:
		return s.move(ctx, r, remit.ResponseUndone, "remit", note)
	case retry:
		return r, failed
	default:
		if r, err = s.move(ctx, r, remit.ResponseFailed, "remit", "not undone as a whole: "+failed.Error()); err != nil {
			return r, errors.Join(failed, err)
		}
		return r, failed
	}
}

// undoing says that a plan is to be undone, whoever writes it at the same time.
func (s *Responses) undoing(ctx context.Context, r remit.Response, by string) (remit.Response, error) {
	const tries = 10
	for n := 1; ; n++ {
		r.Due = time.Time{}
		moved, err := s.move(ctx, r, remit.ResponseUndoing, by, "")
		if remit.KindOf(err) != remit.Conflict || n == tries {
			return moved, err
		}
		if r, err = s.Get(ctx, r.ID); err != nil || r.State == remit.ResponseUndoing {
			return r, err
		}
	}
}

// try does a step until it is in effect, within the time there is for it. Before
// each further try, proceed may end them; it may be nil.
func (s *Responses) try(ctx context.Context, step remit.Step, do, verify func(context.Context, remit.Step) error, proceed func() error) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Wait)
	defer cancel()
	const longest = 5 * time.Second
	var last error // that was not about the time that is over
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, longest) {
		err := do(ctx, step)
		if err == nil && verify != nil {
			// Not in effect yet is no reason to give up.
			if err = verify(ctx, step); remit.KindOf(err) == remit.Conflict {
				err = remit.Errorf(remit.Unavailable, "verify", "it is done and not in effect: %w", err)
			}
		}
		if err == nil || !again(err) {
			return err
		}
		// A request that the end of the time cut off says nothing about why.
		if ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
			last = err
		} else if err = last; err == nil {
			err = remit.Errorf(remit.Unavailable, "", "%s had not answered within %s", step.Object, s.o.Wait)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
		if proceed != nil {
			if err := proceed(); err != nil {
				return interrupted{err}
			}
		}
	}
}

// interrupted is why a step is not tried any further, which is no failure of it.
type interrupted struct{ error }

func (i interrupted) Unwrap() error { return i.error }

// pause is how long a plan rests whose step has not succeeded in so many tries,
// each of which took what [Options] Wait gives it.
func pause(tries int) time.Duration {
	return min(5*time.Second<<min(tries, 10), 5*time.Minute)
}

// again says whether an error may go away by itself.
func again(err error) bool {
	switch remit.KindOf(err) {
	case remit.Unavailable, remit.Internal:
		return true
	}
	return false
}

// failed writes that a plan did not get on, at a step. What may go away by itself
// leaves the plan running, for another try; and so does a caller who does not wait
// any longer.
func (s *Responses) failed(ctx context.Context, r remit.Response, step int, cause error) (remit.Response, error) {
	const op = "carry out plan"
	where := fmt.Sprintf("step %d", step+1)
	if errors.As(cause, new(interrupted)) {
		return r, cause
	}
	r.Steps[step].Failure = cause.Error()
	if ctx.Err() != nil {
		return r, remit.Errorf(remit.Unavailable, op, "%s: %w", where, context.Cause(ctx))
	}
	err := remit.Errorf(remit.KindOf(cause), op, "%s: %w", where, cause)
	var e error
	if again(cause) {
		r.Due = s.o.Now().Add(pause(r.Steps[step].Tries))
		r, e = s.o.Store.PutResponse(ctx, r)
		return r, errors.Join(err, e)
	}
	r.Steps[step].State = remit.ResponseFailed
	r, e = s.move(ctx, r, remit.ResponseFailed, "remit", where+": "+cause.Error())
	return r, errors.Join(err, e)
}
