package response

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"remit"
)

// CarryOut does what an approved plan says, step by step, and verifies each, or
// goes on with one that was begun. It returns the plan as it stands then; the
// error says why it is not in effect as a whole. A plan of which a step failed for
// good is failed: the steps before it stay in effect, for half a containment is
// better than none, until somebody undoes it or plans anew.
func (s *Responses) CarryOut(ctx context.Context, id remit.ID) (remit.Response, error) {
	const op = "carry out plan"
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
		if r, err = s.move(ctx, r, remit.ResponseRunning, "remit", ""); err != nil {
			return r, err
		}
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
		if err := s.try(ctx, r.Steps[i], enforcer.Do, enforcer.Verify); err != nil {
			return s.failed(ctx, r, i, err)
		}
		step := &r.Steps[i]
		step.State, step.Failure, step.Done = remit.ResponseVerified, "", s.o.Now().UTC()
		if r, err = s.o.Store.PutResponse(ctx, r); err != nil {
			return r, err
		}
	}
	return s.move(ctx, r, remit.ResponseVerified, "remit", "")
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
	switch r.State {
	case remit.ResponseVerified, remit.ResponseFailed, remit.ResponseRunning:
		if r, err = s.move(ctx, r, remit.ResponseUndoing, by, ""); err != nil {
			return r, err
		}
	case remit.ResponseUndoing:
	case remit.ResponseUndone:
		return r, nil
	default:
		return r, remit.Errorf(remit.Conflict, op, "it is %s: nothing of it was done", r.State)
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
		switch err := s.try(ctx, *step, enforcer.Undo, nil); {
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

// try does a step until it is in effect, within the time there is for it.
func (s *Responses) try(ctx context.Context, step remit.Step, do, verify func(context.Context, remit.Step) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Wait)
	defer cancel()
	const longest = 5 * time.Second
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
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
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
	r.Steps[step].Failure = cause.Error()
	if ctx.Err() != nil {
		return r, remit.Errorf(remit.Unavailable, op, "%s: %w", where, context.Cause(ctx))
	}
	err := remit.Errorf(remit.KindOf(cause), op, "%s: %w", where, cause)
	var e error
	if again(cause) {
		r, e = s.o.Store.PutResponse(ctx, r)
		return r, errors.Join(err, e)
	}
	r.Steps[step].State = remit.ResponseFailed
	r, e = s.move(ctx, r, remit.ResponseFailed, "remit", where+": "+cause.Error())
	return r, errors.Join(err, e)
}
