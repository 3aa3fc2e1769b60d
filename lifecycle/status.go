package lifecycle

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"time"

	"remit"
)

// Filter chooses standings; its zero value chooses all.
type Filter struct {
	System     remit.ID
	Namespaces []string
	States     []remit.LifecycleState
}

// Status is where credentials stand at a moment.
type Status struct {
	// Count is how many credentials are in each state, and Total in all, before
	// the states are chosen.
	Count map[remit.LifecycleState]int
	Total int

	config *Config
	store  Store
	now    time.Time
	order  []place
}

// place is a credential in the order of a status. A million of them are some tens
// of megabytes.
type place struct {
	system, id remit.ID
	next       int64 // of the next step, in seconds
	rank       int
}

// NewStatus looks at all credentials that a filter chooses. What comes next comes
// first: what is to be done already, the longest due before, then by its time, and
// at the end that of which nothing will come.
func NewStatus(ctx context.Context, c *Config, store Store, f Filter, now time.Time) (*Status, error) {
	s := &Status{config: c, store: store, now: now, Count: map[remit.LifecycleState]int{}}
	systems, err := store.Systems(ctx)
	if err != nil {
		return nil, err
	}
	for _, system := range systems {
		if f.System != "" && system.ID != f.System {
			continue
		}
		g, err := s.gatherer(ctx, system.ID)
		if err != nil {
			return nil, err
		}
		chosen := remit.Filter{System: system.ID, Namespaces: f.Namespaces}
		err = pages(ctx, store.Credentials, chosen, func(page []remit.Credential) error {
			cases, err := g.cases(ctx, page)
			if err != nil {
				return err
			}
			for _, k := range cases {
				standing := c.Standing(k, now)
				s.Total++
				s.Count[standing.State]++
				if len(f.States) == 0 || slices.Contains(f.States, standing.State) {
					s.order = append(s.order, placeOf(&standing))
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	// What is equal stays in the order of names, in which it is also stored.
	slices.SortStableFunc(s.order, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.next, b.next), cmp.Compare(a.rank, b.rank))
	})
	return s, nil
}

func placeOf(s *remit.Standing) place {
	p := place{system: s.System, id: s.Credential, rank: s.State.Rank(), next: 1 << 62}
	if s.Next.Step != "" {
		p.next = s.Next.At.Unix()
	}
	return p
}

// gatherer is one that knows that another process has judged.
func (s *Status) gatherer(ctx context.Context, system remit.ID) (*gatherer, error) {
	g, err := newGatherer(ctx, s.config, s.store, nil, system, time.Time{}, s.now)
	if err == nil {
		g.confirmed = true
	}
	return g, err
}

// Standings lists where they stand, in the order of [NewStatus].
func (s *Status) Standings(ctx context.Context) iter.Seq2[remit.Standing, error] {
	return func(yield func(remit.Standing, error) bool) {
		for some := range slices.Chunk(s.order, chunk) {
			ids := map[remit.ID][]remit.ID{}
			for _, p := range some {
				ids[p.system] = append(ids[p.system], p.id)
			}
			found := map[remit.ID]remit.Standing{}
			for system, of := range ids {
				err := pages(ctx, s.store.Credentials, remit.Filter{System: system, IDs: of}, func(page []remit.Credential) error {
					return s.stand(ctx, system, page, found)
				})
				if err != nil {
					yield(remit.Standing{}, err)
					return
				}
			}
			for _, p := range some {
				// One that went meanwhile is left out.
				if standing, ok := found[p.id]; ok && !yield(standing, nil) {
					return
				}
			}
		}
	}
}

func (s *Status) stand(ctx context.Context, system remit.ID, credentials []remit.Credential, into map[remit.ID]remit.Standing) error {
	g, err := s.gatherer(ctx, system)
	if err != nil {
		return err
	}
	cases, err := g.cases(ctx, credentials)
	if err != nil {
		return err
	}
	for _, k := range cases {
		into[k.Credential.ID] = s.config.Standing(k, s.now)
	}
	return nil
}

// Standings tells where these credentials of one system stand, by their ID.
func Standings(ctx context.Context, c *Config, store Store, system remit.ID, credentials []remit.Credential, now time.Time) (map[remit.ID]remit.Standing, error) {
	s := &Status{config: c, store: store, now: now}
	out := map[remit.ID]remit.Standing{}
	return out, s.stand(ctx, system, credentials, out)
}
