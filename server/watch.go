// Package server keeps Remit running: it watches the connected systems, keeps
// the store and the findings current, and starts again whatever breaks.
package server

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"remit"
	"remit/connector"
	"remit/inventory"
)

// Evaluator judges the inventory and keeps the findings.
type Evaluator interface {
	// EvaluateSystem judges everything in a system.
	EvaluateSystem(ctx context.Context, system remit.ID) error
	// EvaluateSubjects judges what changed: the records of these IDs and what
	// they touch.
	EvaluateSubjects(ctx context.Context, system remit.ID, touched []remit.ID) error
}

// Watch keeps the inventory and the findings of systems current.
type Watch struct {
	Reconciler inventory.Reconciler // Changed is the watch's own
	Evaluator  Evaluator
	Log        *slog.Logger

	// Changed, if not nil, is told what the inventory has changed, as it does.
	Changed func(system remit.ID, touched []remit.ID)

	// Settle is how long changes are gathered before they are judged
	// together; 0 is half a second. A change is in the inventory at once.
	Settle time.Duration

	// Whole is how often a whole system is judged again, because certificates
	// expire and tokens age without any change; 0 is an hour.
	Whole time.Duration
}

// wholeAbove is the number of touched records above which judging the whole
// system is cheaper than finding out what they touch.
const wholeAbove = 5000

// Run watches until ctx ends. A watch that fails is started again after a pause
// that grows to a minute; nothing of the inventory is removed meanwhile.
func (w *Watch) Run(ctx context.Context, systems []connector.Watcher) error {
	var all sync.WaitGroup
	for _, system := range systems {
		all.Go(func() { w.supervise(ctx, system) })
	}
	all.Wait()
	return ctx.Err()
}

func (w *Watch) supervise(ctx context.Context, c connector.Watcher) {
	const longest = time.Minute
	pause := time.Second
	for ctx.Err() == nil {
		began := time.Now()
		err := w.one(ctx, c)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > longest {
			pause = time.Second
		}
		w.Log.Error("watch broke off; starting it again", "connector", c.Describe().Name, "error", err, "pause", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause + rand.N(pause)): // not all watchers at once
		}
		pause = min(2*pause, longest)
	}
}

// one watches one system until its watch ends.
func (w *Watch) one(ctx context.Context, c connector.Watcher) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	judge := newJudge(w)
	reconciler := w.Reconciler
	reconciler.Changed = judge.touched
	var judging sync.WaitGroup
	judging.Go(func() { stop(judge.run(ctx)) })
	err := reconciler.Watch(ctx, c)
	stop(err)
	judging.Wait()
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// judge gathers what changed and has it evaluated in batches, so that a burst
// of changes to one account is judged once.
type judge struct {
	watch  *Watch
	wake   chan struct{}
	mu     sync.Mutex
	system remit.ID
	ids    map[remit.ID]struct{}
	whole  bool
}

func newJudge(w *Watch) *judge {
	return &judge{watch: w, wake: make(chan struct{}, 1), ids: map[remit.ID]struct{}{}, whole: true}
}

// touched is the reconciler's Changed.
func (j *judge) touched(_ context.Context, system remit.ID, touched []remit.ID) error {
	if j.watch.Changed != nil {
		j.watch.Changed(system, touched)
	}
	j.mu.Lock()
	j.system = system
	if !j.whole {
		for _, id := range touched {
			j.ids[id] = struct{}{}
		}
		if len(j.ids) > wholeAbove {
			j.whole = true
			clear(j.ids)
		}
	}
	j.mu.Unlock()
	select {
	case j.wake <- struct{}{}:
	default:
	}
	return nil
}

// run evaluates until ctx ends; it returns the first error of the evaluator,
// with which the watch starts over and judges everything again.
func (j *judge) run(ctx context.Context) error {
	settle, every := j.watch.Settle, j.watch.Whole
	if settle == 0 {
		settle = 500 * time.Millisecond
	}
	if every == 0 {
		every = time.Hour
	}
	again := time.NewTicker(every)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
			j.mu.Lock()
			j.whole = true
			j.mu.Unlock()
		case <-j.wake:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(settle):
			}
		}
		if err := j.evaluate(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

func (j *judge) evaluate(ctx context.Context) error {
	j.mu.Lock()
	system, whole := j.system, j.whole
	ids := make([]remit.ID, 0, len(j.ids))
	for id := range j.ids {
		ids = append(ids, id)
	}
	clear(j.ids)
	j.whole = false
	j.mu.Unlock()
	switch {
	case system == "" || !whole && len(ids) == 0:
		return nil
	case whole:
		return j.watch.Evaluator.EvaluateSystem(ctx, system)
	default:
		return j.watch.Evaluator.EvaluateSubjects(ctx, system, ids)
	}
}
