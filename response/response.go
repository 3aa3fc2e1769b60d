// Package response takes access away, by stored plans: it plans, has approved,
// carries out, verifies and undoes.
//
// A plan is state in the store. Whoever carries it out writes what he is about
// to do before he does it, and every step can be done again without doing more;
// so a process may die at any instant, and [Responses.CarryOut] goes on from
// what is written. Two that carry out one plan at the same time find out by its
// version, and one gives way.
package response

import (
	"context"
	"sync"
	"time"

	"remit"
	"remit/connector"
)

// Store is what responses need of the store.
type Store interface {
	remit.ResponseStore
	Systems(ctx context.Context) ([]remit.System, error)
	Usage(ctx context.Context, f remit.ActivityFilter, page remit.PageRequest) ([]remit.Usage, string, error)
	Lineage(ctx context.Context, f remit.ActivityFilter, page remit.PageRequest) ([]remit.Lineage, string, error)
	Presences(ctx context.Context, f remit.ActivityFilter, page remit.PageRequest) ([]remit.Presence, string, error)
	States(ctx context.Context, system remit.ID, kind, key string) ([]remit.State, error)
	Checkpoint(ctx context.Context, c remit.Checkpoint) error
	Findings(ctx context.Context, f remit.FindingFilter, page remit.PageRequest) ([]remit.Finding, string, error)
	FindingCounts(ctx context.Context, system remit.ID) ([]remit.FacetCount, error)
	Identities(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Identity, string, error)
	Credentials(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Credential, string, error)
}

// Options are the parts of [Responses].
type Options struct {
	Store Store

	// Enforcer returns what can change a system. An error says why that cannot
	// be, as in mode observe.
	Enforcer func(ctx context.Context, system remit.ID) (connector.Enforcer, error)

	// Issuer returns what can give the credentials of a system successors, and
	// Destination the place at an address; system is the one that is meant where
	// the address names none. Without them nothing is rotated.
	Issuer      func(ctx context.Context, system remit.ID) (connector.Issuer, error)
	Destination func(ctx context.Context, system remit.ID, address string) (connector.Destination, error)

	// Rotation is what the configuration says of the rotation of a credential:
	// where its secret goes, and how. Only what is about that counts. nil: nothing.
	Rotation func(system remit.ID, credential remit.Ref) RotationRequest

	// Approvals is how many people beside the one who asked must approve a plan
	// of a system; 0 lets it run at once. nil means one, always.
	Approvals func(system remit.ID) int

	// Mode is how far Remit may go in a system; nil: as far as Enforcer lets it.
	Mode func(system remit.ID) remit.Mode

	// Protected says that an identity must never be touched; nil: none is.
	Protected func(identity remit.Ref) bool

	// Wait bounds how long a step is tried and its effect waited for, a minute
	// when 0.
	Wait time.Duration

	Now func() time.Time // nil is [time.Now]
}

// Responses makes plans and carries them out. It is safe for concurrent use.
type Responses struct {
	o        Options
	limiting sync.Mutex
}

// New returns the responses of a store.
func New(o Options) *Responses {
	if o.Approvals == nil {
		o.Approvals = func(remit.ID) int { return 1 }
	}
	if o.Mode == nil {
		o.Mode = func(remit.ID) remit.Mode { return remit.ModeEnforce }
	}
	if o.Protected == nil {
		o.Protected = func(remit.Ref) bool { return false }
	}
	if o.Wait <= 0 {
		o.Wait = time.Minute
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Responses{o: o}
}

// Get returns a response. [remit.NotFound] when there is none of that ID.
func (s *Responses) Get(ctx context.Context, id remit.ID) (remit.Response, error) {
	some, _, err := s.o.Store.Responses(ctx, remit.ResponseFilter{IDs: []remit.ID{id}}, remit.PageRequest{Limit: 1})
	if err != nil {
		return remit.Response{}, err
	}
	if len(some) == 0 {
		return remit.Response{}, remit.Errorf(remit.NotFound, "read plan", "there is no plan %s: `remit plans list` shows them", id)
	}
	return some[0], nil
}

// Prepare installs in the system of a name what steps will need, ahead of that.
// [remit.NotFound] while no system of that name has been read.
func (s *Responses) Prepare(ctx context.Context, system string) error {
	all, err := s.o.Store.Systems(ctx)
	if err != nil {
		return err
	}
	for _, one := range all {
		if one.Name != system {
			continue
		}
		enforcer, err := s.o.Enforcer(ctx, one.ID)
		if err != nil {
			return err
		}
		return enforcer.Prepare(ctx)
	}
	return remit.Errorf(remit.NotFound, "prepare", "the system %s has not been read yet", system)
}

// move writes a response in a new state, with what happened.
func (s *Responses) move(ctx context.Context, r remit.Response, to remit.ResponseState, actor, note string) (remit.Response, error) {
	s.set(&r, to, actor, note)
	return s.o.Store.PutResponse(ctx, r)
}

// set is move for a plan that is about to be written anyway.
func (s *Responses) set(r *remit.Response, to remit.ResponseState, actor, note string) {
	r.State, r.Changed = to, s.o.Now().UTC()
	r.History = append(r.History, remit.ResponseEvent{Time: r.Changed, Actor: actor, State: to, Note: note})
}
