package sqlstore

import (
	"context"
	"slices"
	"sync"
	"time"

	"remit"
)

// run is one pass over a system's inventory; see [remit.InventoryRun]. It is
// safe for concurrent use: writes of one run go one after another.
type run struct {
	store  *Store
	system remit.ID
	key    int64

	mu sync.Mutex

	// listings are the sections that were begun and not completed, with the
	// keys of what was applied since.
	listings map[string]*listing
}

// listing is what a section showed, a set for each kind.
type listing map[remit.RecordKind]*keySet

func (l listing) saw(kind remit.RecordKind, keys []int64) {
	set := l[kind]
	if set == nil {
		set = new(keySet)
		l[kind] = set
	}
	for _, k := range keys {
		set.add(k)
	}
}

func (l listing) has(kind remit.RecordKind, key int64) bool {
	set := l[kind]
	return set != nil && set.has(key)
}

// StartRun begins to write a system's inventory; see [remit.InventoryWriter].
func (s *Store) StartRun(ctx context.Context, system remit.ID) (remit.InventoryRun, error) {
	key, err := s.systemKey(ctx, "start run", system)
	if err != nil {
		return nil, err
	}
	return &run{store: s, system: system, key: key, listings: make(map[string]*listing)}, nil
}

// Begin starts a full listing; what an earlier Begin had seen is forgotten.
func (r *run) Begin(section string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listings[section] = &listing{}
}

// change is one transaction on a system's inventory and what it does.
type change struct {
	*tx
	run     *run
	section string // as the column holds it
	learned time.Time

	counts  counter
	done    remit.Changes
	touched map[remit.ID]struct{}
	seen    map[remit.RecordKind][]int64
	going   map[string]bool // IDs that are deleted with the same page
}

func (c *change) touch(id remit.ID) {
	if id.Kind() == remit.KindIdentity {
		c.touched[id] = struct{}{}
	}
}

// change runs f in one transaction and returns what it did.
func (r *run) change(ctx context.Context, op, section string, learned time.Time, f func(*change) error) (*change, error) {
	if learned.IsZero() {
		return nil, remit.Errorf(remit.Invalid, op, "section %q: the time of learning is missing", section)
	}
	var c *change
	err := r.store.write(ctx, op, func(t *tx) error {
		c = &change{
			tx: t, run: r, section: columnText(section), learned: plainTime(learned),
			counts: make(counter), touched: make(map[remit.ID]struct{}), seen: make(map[remit.RecordKind][]int64),
			going: make(map[string]bool),
		}
		if err := lockSystem(ctx, t, r.key); err != nil {
			return err
		}
		if err := f(c); err != nil {
			return err
		}
		return c.counts.write(ctx, t)
	})
	if err != nil {
		return nil, err
	}
	c.done.Touched = make([]remit.ID, 0, len(c.touched))
	for id := range c.touched {
		c.done.Touched = append(c.done.Touched, id)
	}
	slices.Sort(c.done.Touched)
	return c, nil
}

// Apply writes records and deletions in one transaction; see
// [remit.InventoryRun]. Of several records with one ID the last counts; one that
// is also among the deletions goes. A deletion holds whichever section showed
// the record last, for it is the system's own word. [remit.Invalid] when a record is not of the run's system or its ID not one
// of its kind.
func (r *run) Apply(ctx context.Context, section string, learned time.Time, records remit.Records, deleted []remit.ID) (remit.Changes, error) {
	const op = "apply inventory"
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := r.change(ctx, op, section, learned, func(c *change) error {
		for _, id := range deleted {
			c.going[string(id)] = true
		}
		if err := apply(ctx, c, identities, records.Identities); err != nil {
			return err
		}
		if err := apply(ctx, c, credentials, records.Credentials); err != nil {
			return err
		}
		if err := apply(ctx, c, roles, records.Roles); err != nil {
			return err
		}
		if err := apply(ctx, c, grants, records.Grants); err != nil {
			return err
		}
		if err := apply(ctx, c, relations, records.Relations); err != nil {
			return err
		}
		if err := apply(ctx, c, resources, records.Resources); err != nil {
			return err
		}
		return c.delete(ctx, deleted)
	})
	if err != nil {
		return remit.Changes{}, err
	}
	if l := r.listings[section]; l != nil {
		for kind, keys := range c.seen { // now that it is committed
			l.saw(kind, keys)
		}
	}
	return c.done, nil
}

// delete removes records by their IDs.
func (c *change) delete(ctx context.Context, ids []remit.ID) error {
	if len(ids) == 0 {
		return nil
	}
	byKind := make(map[remit.RecordKind][]string)
	for _, id := range ids {
		byKind[id.Kind()] = append(byKind[id.Kind()], columnText(string(id)))
	}
	deletes := []func(context.Context, *change, map[remit.RecordKind][]string) error{
		deleter(identities), deleter(credentials), deleter(roles), deleter(grants), deleter(relations), deleter(resources),
	}
	for _, f := range deletes {
		if err := f(ctx, c, byKind); err != nil {
			return err
		}
	}
	return nil
}

// Complete removes what the listing did not show; see [remit.InventoryRun]. It
// does so in transactions of bounded size: when one fails, a part of what is
// gone has been removed, and the section stays begun, so that Complete may be
// called again.
func (r *run) Complete(ctx context.Context, section string, learned time.Time) (remit.Changes, error) {
	const op = "complete listing"
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.listings[section]
	if l == nil {
		return remit.Changes{}, remit.Errorf(remit.Conflict, op, "the listing of section %q was not begun in this run, so nothing is removed", section)
	}
	var sum remit.Changes
	sweeps := []func(context.Context, *run, string, time.Time, *listing, *remit.Changes) error{
		sweeper(identities), sweeper(credentials), sweeper(roles), sweeper(grants), sweeper(relations), sweeper(resources),
	}
	for _, sweep := range sweeps {
		if err := sweep(ctx, r, section, learned, l, &sum); err != nil {
			return sum, err
		}
	}
	delete(r.listings, section)
	slices.Sort(sum.Touched)
	sum.Touched = slices.Compact(sum.Touched)
	return sum, nil
}
