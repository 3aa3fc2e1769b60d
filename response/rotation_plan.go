package response

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"remit"
	"remit/connector"
)

// RotationRequest asks for a plan that replaces a credential.
type RotationRequest struct {
	System  remit.ID
	Subject remit.Subject

	// Identity is whom the credential authenticates, as far as it is known.
	Identity   remit.Ref
	IdentityID remit.ID

	// As, Lifetime and Freeze are as in [connector.RotationOrder].
	As       string
	Lifetime time.Duration
	Freeze   bool

	// To are the addresses of the destinations, beside those that follow from
	// the system itself.
	To []string

	// Grace is how long the old credential lives on after the new one was seen
	// in use; 0 means [DefaultGrace].
	Grace time.Duration

	AskedBy string
	Cause   string
	Opening int // how often the finding that is the cause has come back
}

// rotationOf is the rotation that a request asks for, as the configuration says how.
func (s *Responses) rotationOf(q Request) RotationRequest {
	var r RotationRequest
	if s.o.Rotation != nil {
		r = s.o.Rotation(q.System, q.Subject.Ref)
	}
	r.System, r.Subject, r.Identity, r.IdentityID = q.System, q.Subject, q.Identity, q.IdentityID
	r.AskedBy, r.Cause, r.Opening = q.AskedBy, q.Cause, q.Opening
	return r
}

// DefaultGrace is how long an old credential lives on after its successor was seen
// in use: those who read it only at their start have a day to start again.
const DefaultGrace = 24 * time.Hour

// deliveryPlan is what Before holds of a step that delivers.
type deliveryPlan struct {
	To    string          `json:"to"` // the destination's address
	Found json.RawMessage `json:"found,omitempty"`

	// Refers says that it needs no secret: see [connector.PlannedDelivery].
	Refers bool `json:"refers,omitempty"`
}

// endPlan is what Before holds of the step that ends the old credential.
type endPlan struct {
	Old   []remit.Ref `json:"old"`
	Grace string      `json:"grace"`
}

// PlanRotation makes a plan that replaces a credential, and writes nothing.
func (s *Responses) PlanRotation(ctx context.Context, q RotationRequest) (remit.Response, error) {
	const op = "plan rotation"
	var none remit.Response
	if s.o.Protected(q.Identity) || s.o.Protected(q.Subject.Ref) {
		return none, remit.Errorf(remit.Forbidden, op, "%s is protected: take it out of protected in the configuration first", q.Subject.Ref)
	}
	issuer, err := s.issuer(ctx, op, q.System)
	if err != nil {
		return none, err
	}
	planned, err := issuer.PlanRotation(ctx, connector.RotationOrder{Subject: q.Subject, As: q.As, Lifetime: q.Lifetime, Freeze: q.Freeze})
	if err != nil {
		return none, err
	}
	if q.Grace <= 0 {
		q.Grace = DefaultGrace
	}
	now := s.o.Now().UTC().Truncate(time.Microsecond)
	r := remit.Response{
		ID: remit.ResponseID(q.Subject.ID, remit.Rotate, now), System: q.System, Action: remit.Rotate, Subject: q.Subject,
		Why: planned.Why, State: remit.ResponseProposed, Cause: q.Cause, Opening: q.Opening, AskedBy: q.AskedBy,
		Made: now, Changed: now, Expires: now.Add(proposal),
	}
	issue := planned.Issue
	issue.Phase, issue.Before, issue.After = remit.Issue, planned.Plan, nil
	if issue.Undo == "" {
		issue.Undo = "It is ended."
	}
	deliveries, why, err := s.planDeliveries(ctx, q, planned)
	if err != nil {
		return none, err
	}
	r.Why = append(r.Why, why...)
	end := planned.End
	end.Phase, end.Undo = remit.End, ""
	end.Before, err = json.Marshal(endPlan{Old: planned.Old, Grace: q.Grace.String()})
	if err != nil {
		return none, remit.Errorf(remit.Internal, op, "%w", err)
	}
	end.Does = fmt.Sprintf("%s after the new one was seen in use: %s", spanWords(q.Grace), end.Does)
	r.Steps = append(append([]remit.Step{issue}, deliveries...), remit.Step{
		Phase: remit.AwaitUse, Object: issue.Object,
		Does: "Wait until the new credential is seen in use, in its system or in the log that Remit takes in. Nothing is ended before that.",
		Undo: "Nothing is changed by it.",
	}, end)
	for i := range r.Steps {
		r.Steps[i].State = remit.ResponseProposed
	}
	if q.IdentityID != "" {
		if r.Used, err = s.used(ctx, Request{System: q.System, IdentityID: q.IdentityID}, now); err != nil {
			return none, err
		}
	}
	return r, nil
}

// planDeliveries asks each destination for its step, and those for theirs that have
// to start again. What holds the secret comes first: it is delivered while there is
// one.
func (s *Responses) planDeliveries(ctx context.Context, q RotationRequest, planned connector.Rotation) (steps []remit.Step, why []string, err error) {
	const op = "plan rotation"
	var refer []remit.Step
	seen, undoable := map[string]bool{}, true
	for todo := slices.Concat(q.To, planned.To); len(todo) > 0; todo = todo[1:] {
		to := todo[0]
		if seen[to] {
			continue
		}
		seen[to] = true
		destination, err := s.destination(ctx, op, q.System, to)
		if err != nil {
			return nil, nil, err
		}
		p, err := destination.Plan(ctx, connector.Delivery{Replaces: planned.Old})
		if err != nil {
			return nil, nil, remit.Errorf(remit.KindOf(err), op, "%s: %w", to, err)
		}
		if planned.NoSecret && !p.Refers {
			return nil, nil, remit.Errorf(remit.Invalid, op, "%s would hold a secret, and there is none to deliver: leave it out", to)
		}
		step := p.Step
		step.Phase = remit.Deliver
		undoable = undoable && step.Undo != ""
		if step.Before, err = json.Marshal(deliveryPlan{To: to, Found: p.Step.Before, Refers: p.Refers}); err != nil {
			return nil, nil, remit.Errorf(remit.Internal, op, "%w", err)
		}
		step.After = nil
		if p.Refers {
			refer = append(refer, step)
		} else {
			steps = append(steps, step)
		}
		why = append(why, p.Why...)
		todo = slices.Concat(todo[:1:1], p.Restart, todo[1:])
	}
	steps = append(steps, refer...)
	if len(steps) == 0 {
		return nil, nil, remit.Errorf(remit.Invalid, op, "nobody would get the new secret, and Remit keeps none: name its destinations with --to, or in the configuration")
	}
	if undoable {
		why = append(why, "Until the old one ends this can be undone: every destination can be given back what it had, and the new one ends after the same grace.")
	} else {
		why = append(why, "Once the new secret is delivered this cannot be undone: the old secret is not known to Remit, and to end the new one would cut those off who use it. The way back is another rotation.")
	}
	return steps, why, nil
}

// issuer is that of a system.
func (s *Responses) issuer(ctx context.Context, op string, system remit.ID) (connector.Issuer, error) {
	if s.o.Issuer == nil {
		return nil, remit.Errorf(remit.Unsupported, op, "no system is set up in which credentials can be rotated")
	}
	return s.o.Issuer(ctx, system)
}

// destination is the one at an address; system is meant where it names none.
func (s *Responses) destination(ctx context.Context, op string, system remit.ID, to string) (connector.Destination, error) {
	if s.o.Destination == nil {
		return nil, remit.Errorf(remit.Unsupported, op, "no destination is set up")
	}
	return s.o.Destination(ctx, system, to)
}

// spanWords is a length of time as people write it.
func spanWords(d time.Duration) string {
	if day := 24 * time.Hour; d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
