package response

import (
	"context"
	"slices"

	"remit"
)

// Approve adds an approval. [remit.Forbidden] for the one who asked; a plan is
// approved when as many others as the configuration asks for have done so.
func (s *Responses) Approve(ctx context.Context, id remit.ID, by string) (remit.Response, error) {
	const op = "approve plan"
	r, err := s.proposed(ctx, op, id)
	if err != nil {
		return r, err
	}
	switch {
	case by == "":
		return r, remit.Errorf(remit.Invalid, op, "it is not known who approves")
	case by == r.AskedBy:
		return r, remit.Errorf(remit.Forbidden, op, "%s asked for it: somebody else has to approve", by)
	case slices.Contains(r.ApprovedBy, by):
		return r, remit.Errorf(remit.Conflict, op, "%s has approved it already", by)
	}
	r.ApprovedBy = append(r.ApprovedBy, by)
	state := remit.ResponseProposed
	if len(r.ApprovedBy) >= s.o.Approvals(r.System) {
		state = remit.ResponseApproved
	}
	return s.move(ctx, r, state, by, "approved")
}

// Reject ends a plan that was not carried out.
func (s *Responses) Reject(ctx context.Context, id remit.ID, by, why string) (remit.Response, error) {
	r, err := s.proposed(ctx, "reject plan", id)
	if err != nil {
		return r, err
	}
	return s.move(ctx, r, remit.ResponseRejected, by, why)
}

// proposed reads a plan that waits for approval, and lets it expire.
func (s *Responses) proposed(ctx context.Context, op string, id remit.ID) (remit.Response, error) {
	r, err := s.Get(ctx, id)
	if err != nil {
		return r, err
	}
	if r.State == remit.ResponseProposed && !s.o.Now().Before(r.Expires) {
		if r, err = s.move(ctx, r, remit.ResponseExpired, "remit", "nobody approved it in time"); err != nil {
			return r, err
		}
	}
	if r.State != remit.ResponseProposed {
		return r, remit.Errorf(remit.Conflict, op, "it is %s", r.State)
	}
	return r, nil
}
