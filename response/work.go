package response

import (
	"context"
	"time"

	"remit"
)

// Due lists the plans on which there is something to do, or will be: those that
// are to be carried out or undone, containments that are watched, and proposals
// that expire. Of systems in which Remit itself changes nothing, only the last.
func (s *Responses) Due(ctx context.Context) ([]remit.Response, error) {
	var all []remit.Response
	add := func(r *remit.Response) {
		if s.worksOn(r) {
			all = append(all, *r)
		}
	}
	unfinished := []remit.ResponseState{remit.ResponseProposed, remit.ResponseApproved, remit.ResponseRunning, remit.ResponseUndoing}
	if err := s.since(ctx, remit.ResponseFilter{States: unfinished}, time.Time{}, add); err != nil {
		return nil, err
	}
	// One that is watched was made no earlier than a proposal lives before that.
	verified := remit.ResponseFilter{States: []remit.ResponseState{remit.ResponseVerified}}
	return all, s.since(ctx, verified, s.o.Now().Add(-proposal-2*looksFor), add)
}

// worksOn says whether a worker has something to do on a plan, now or later.
func (s *Responses) worksOn(r *remit.Response) bool {
	if r.State == remit.ResponseProposed {
		return true
	}
	if s.o.Mode(r.System) != remit.ModeEnforce {
		return false
	}
	return r.State == remit.ResponseApproved || r.State == remit.ResponseRunning || r.State == remit.ResponseUndoing ||
		r.State == remit.ResponseVerified && !r.Due.IsZero()
}

// Work does what is to be done on a plan at this time, and says when there is
// something to do on it again; the zero time when never. An error is one to try
// again after.
func (a *Responder) Work(ctx context.Context, id remit.ID) (again time.Time, err error) {
	s := a.responses
	r, err := s.Get(ctx, id)
	if err != nil || !s.worksOn(&r) {
		return time.Time{}, err
	}
	if r.State == remit.ResponseProposed {
		r.Due = r.Expires
	}
	if now := s.o.Now(); now.Before(r.Due) {
		return r.Due, nil
	}
	switch r.State {
	case remit.ResponseProposed:
		r.Due = time.Time{}
		r, err = s.move(ctx, r, remit.ResponseExpired, "remit", "nobody approved it in time")
	case remit.ResponseUndoing:
		r, err = s.Undo(ctx, id, "remit")
	case remit.ResponseVerified:
		r, err = a.watch(ctx, r)
	default:
		r, err = s.CarryOut(ctx, id)
	}
	if err == nil && s.worksOn(&r) {
		return r.Due, nil
	}
	if remit.KindOf(err) == remit.Conflict || s.stopped(ctx) != nil {
		return s.o.Now().Add(looksEvery), nil // another works on it, or nobody may
	}
	if r.State == remit.ResponseFailed {
		return time.Time{}, nil // which it says itself
	}
	return time.Time{}, err
}

// Counts counts, by state, the plans that wait or are under way, and those that
// failed and were made within a day.
func (s *Responses) Counts(ctx context.Context) (map[remit.ResponseState]int, error) {
	counts := map[remit.ResponseState]int{}
	unfinished := []remit.ResponseState{remit.ResponseProposed, remit.ResponseApproved, remit.ResponseRunning, remit.ResponseUndoing, remit.ResponseFailed}
	for _, state := range unfinished {
		counts[state] = 0
	}
	count := func(r *remit.Response) { counts[r.State]++ }
	if err := s.since(ctx, remit.ResponseFilter{States: unfinished[:4]}, time.Time{}, count); err != nil {
		return nil, err
	}
	return counts, s.since(ctx, remit.ResponseFilter{States: unfinished[4:]}, s.o.Now().Add(-24*time.Hour), count)
}
