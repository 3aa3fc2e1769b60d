// Package inventory brings what connectors see into the store: it reconciles
// whole readings and live changes, settles who owns each identity, and keeps
// account of what could not be read.
package inventory

import (
	"context"
	"fmt"
	"slices"
	"time"

	"remit"
	"remit/connector"
)

// Reconciler writes inventories into a store. It is safe for concurrent use by
// one goroutine a system.
type Reconciler struct {
	// Store receives the inventory.
	Store remit.InventoryWriter

	// People settles whether owners can still answer; its zero value knows
	// nobody and leaves the question open.
	People People

	// Mode is written into each system that is read; "" is [remit.ModeObserve].
	Mode remit.Mode

	// Progress, if not nil, is told after each page what was written so far.
	Progress func(Progress)

	// Changed, if not nil, is told the IDs that each page touched, after they
	// are in the store. A later page waits until it returns.
	Changed func(ctx context.Context, system remit.ID, touched []remit.ID) error

	// Now is the clock; nil is [time.Now].
	Now func() time.Time
}

// Progress is how far a reading has come.
type Progress struct {
	Section string // the listing being read
	Records int    // records read so far, in all sections
}

// Result is what a reading brought.
type Result struct {
	System  remit.System
	Changes remit.Changes // Touched stays empty: a whole system is not a list
}

// applyLimit bounds the records of one transaction, so that a connector's large
// page neither holds the write lock for long nor grows without bound in memory.
const applyLimit = 1000

// Sync reads a connector's whole inventory once and makes the store equal to
// it, except for what could not be read, which stays as it was.
func (r *Reconciler) Sync(ctx context.Context, c connector.Connector) (Result, error) {
	pass, err := r.start(ctx, c)
	if err != nil {
		return Result{}, err
	}
	readErr := c.Inventory(ctx, pass.take)
	// What was read stands and its gaps are told even when the rest broke off.
	if err := pass.finish(context.WithoutCancel(ctx)); err != nil && readErr == nil {
		return pass.result, err
	}
	if readErr != nil {
		return pass.result, fmt.Errorf("read inventory of %s: %w", pass.result.System.Name, readErr)
	}
	return pass.result, nil
}

// Watch keeps the store equal to a system until ctx ends: a whole reading
// first, then every change as it happens.
func (r *Reconciler) Watch(ctx context.Context, w connector.Watcher) error {
	pass, err := r.start(ctx, w)
	if err != nil {
		return err
	}
	pass.live = true
	err = w.Watch(ctx, pass.take)
	if finishErr := pass.finish(context.WithoutCancel(ctx)); finishErr != nil && err == nil {
		err = finishErr
	}
	if err != nil {
		return fmt.Errorf("watch %s: %w", pass.result.System.Name, err)
	}
	return nil
}

func (r *Reconciler) start(ctx context.Context, c connector.Connector) (*pass, error) {
	system, err := c.System(ctx)
	if err != nil {
		return nil, err
	}
	if system.Mode = r.Mode; system.Mode == "" {
		system.Mode = remit.ModeObserve
	}
	if err := r.Store.PutSystem(ctx, system); err != nil {
		return nil, err
	}
	run, err := r.Store.StartRun(ctx, system.ID)
	if err != nil {
		return nil, err
	}
	return &pass{Reconciler: r, run: run, result: Result{System: system}, gaps: map[string]remit.Gap{}}, nil
}

func (r *Reconciler) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now().UTC()
}

// pass is one reading of one system.
type pass struct {
	*Reconciler
	run    remit.InventoryRun
	result Result
	gaps   map[string]remit.Gap // by section and reason
	seen   int
	live   bool
}

// take writes one page. It is the pass's connector.Emit.
func (p *pass) take(ctx context.Context, page connector.Page) error {
	if page.Begin {
		p.run.Begin(page.Section)
		p.closeGaps(page.Section)
	}
	learned := p.now()
	p.settleOwners(page.Records.Identities)
	for _, part := range split(page.Records, applyLimit) {
		changes, err := p.run.Apply(ctx, page.Section, learned, part, nil)
		if err != nil {
			return err
		}
		if err := p.applied(ctx, changes); err != nil {
			return err
		}
		p.seen += part.Len()
	}
	for deleted := range slices.Chunk(page.Deleted, applyLimit) {
		changes, err := p.run.Apply(ctx, page.Section, learned, remit.Records{}, deleted)
		if err != nil {
			return err
		}
		if err := p.applied(ctx, changes); err != nil {
			return err
		}
	}
	if page.Gap != nil {
		p.gaps[page.Gap.Section+"\x00"+page.Gap.Reason] = *page.Gap
	}
	if page.Complete && page.Gap == nil {
		changes, err := p.run.Complete(ctx, page.Section, learned)
		if err != nil {
			return err
		}
		if err := p.applied(ctx, changes); err != nil {
			return err
		}
	}
	if p.live && (page.Gap != nil || page.Begin || page.Complete) {
		// While watching there is no end at which to say what is missing.
		if err := p.finish(ctx); err != nil {
			return err
		}
	}
	if p.Progress != nil {
		p.Progress(Progress{Section: page.Section, Records: p.seen})
	}
	return nil
}

func (p *pass) applied(ctx context.Context, c remit.Changes) error {
	p.result.Changes.Added += c.Added
	p.result.Changes.Updated += c.Updated
	p.result.Changes.Removed += c.Removed
	p.result.Changes.Unchanged += c.Unchanged
	if p.Changed != nil && len(c.Touched) > 0 {
		return p.Changed(ctx, p.result.System.ID, c.Touched)
	}
	return nil
}

// closeGaps forgets what was missing of a section that is listed anew.
func (p *pass) closeGaps(section string) {
	for key, gap := range p.gaps {
		if gap.Section == section {
			delete(p.gaps, key)
		}
	}
}

// finish records when the system was read and what is missing.
func (p *pass) finish(ctx context.Context) error {
	gaps := make([]remit.Gap, 0, len(p.gaps))
	for _, gap := range p.gaps {
		gaps = append(gaps, gap)
	}
	slices.SortFunc(gaps, func(a, b remit.Gap) int {
		return cmpStrings(a.Section, b.Section, a.Reason, b.Reason)
	})
	p.result.System.Gaps = gaps
	p.result.System.Observed = p.now()
	return p.Store.PutSystem(ctx, p.result.System)
}

// split cuts a set of records into parts of at most limit records.
func split(records remit.Records, limit int) []remit.Records {
	var parts []remit.Records
	for records.Len() > 0 {
		var part remit.Records
		room := limit
		move(&part.Identities, &records.Identities, &room)
		move(&part.Credentials, &records.Credentials, &room)
		move(&part.Roles, &records.Roles, &room)
		move(&part.Grants, &records.Grants, &room)
		move(&part.Relations, &records.Relations, &room)
		move(&part.Resources, &records.Resources, &room)
		parts = append(parts, part)
	}
	return parts
}

// move takes as many records from the front of from as there is room for.
func move[T any](to, from *[]T, room *int) {
	n := min(len(*from), *room)
	*to, *from = (*from)[:n:n], (*from)[n:]
	*room -= n
}

// cmpStrings compares pairs of strings in turn.
func cmpStrings(pairs ...string) int {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i] < pairs[i+1] {
			return -1
		}
		if pairs[i] > pairs[i+1] {
			return 1
		}
	}
	return 0
}
