package server

import (
	"bytes"
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"remit"
	"remit/activity"
	"remit/activity/archive"
	"remit/activity/queue"
	"remit/connector"
)

// Activity reads what waits in the queue through the pipeline and writes
// checkpoints now and then, and urgent findings at once. What it has not
// written when it dies is still in the queue.
type Activity struct {
	Queue ActivityQueue

	// Open makes the pipeline, going on from what the store has; close ends
	// it. It is called again after a failure.
	Open func(ctx context.Context) (p *activity.Pipeline, close func() error, err error)

	// Decoder finds the decoder of a source by its name; nil for "".
	Decoder func(name string) (connector.Decoder, error)

	// Positions tells how far the queue was read.
	Positions interface {
		Positions(ctx context.Context) ([]remit.Position, error)
	}

	// Every is at the latest how long counts stay unwritten; 0 is 5 seconds.
	Every time.Duration

	// Retention says how long events of a system are kept; nil keeps all.
	Retention func(system remit.ID) archive.Retention

	// Observe, if not nil, is told after each checkpoint what the pipeline has
	// done since the process began, and how long the checkpoint took.
	Observe func(counts activity.Counts, took time.Duration)

	// Announced, if not nil, is given the findings that are new or worse, as soon
	// as they are written. It must not wait for anything.
	Announced func([]remit.Finding)

	Log *slog.Logger

	mu      sync.Mutex
	changes map[remit.ID][]remit.ID // of the inventory, by system
	former  activity.Counts         // of pipelines that have ended
}

// ActivityQueue is where received events wait; [queue.Queue] is one.
type ActivityQueue interface {
	Read(ctx context.Context, after int64, interval time.Duration, each func(sequence int64, b queue.Batch) error, idle func() error) error
	Discard(ctx context.Context, upTo int64) error
	ID() string
}

// source is the name of the queue's position.
func (a *Activity) source() string { return "queue " + a.Queue.ID() }

const (
	// urgentGap is the least time between two announcements of findings: however
	// many come, most of the time is left for reading.
	urgentGap = 50 * time.Millisecond

	// idleEvery is how often to look whether a checkpoint is due while nothing
	// comes.
	idleEvery = 50 * time.Millisecond

	// tidyEvery is how often the archive's small files are merged and what is
	// too old is removed.
	tidyEvery = 10 * time.Minute
)

// InventoryChanged notes what the inventory has changed, for the pipeline. It is
// safe for concurrent use.
func (a *Activity) InventoryChanged(system remit.ID, ids []remit.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.changes == nil {
		a.changes = make(map[remit.ID][]remit.ID)
	}
	a.changes[system] = append(a.changes[system], ids...)
}

// Run reads until ctx ends, and then writes what it has read. It starts anew
// after a failure, with a pause that grows to a minute.
func (a *Activity) Run(ctx context.Context) error {
	pause := time.Second
	for {
		began := time.Now()
		err := a.once(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(began) > time.Minute {
			pause = time.Second
		}
		a.Log.Error("reading of events broke off; going on from the last checkpoint", "error", err, "pause", pause)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, time.Minute)
	}
}

// reading is one life of a pipeline.
type reading struct {
	*Activity
	pipeline *activity.Pipeline
	read     int64 // the sequence number read last
	written  int64 // the one of the last checkpoint
	last     time.Time
	dropped  time.Time
	took     time.Duration // for the last checkpoint

	announced  time.Time
	announcing time.Duration // the last announcement took

	torn bool // within a batch or a checkpoint, or after a failure in one
}

func (a *Activity) once(ctx context.Context) (err error) {
	p, closePipeline, err := a.Open(ctx)
	if err != nil {
		return err
	}
	r := &reading{Activity: a, pipeline: p, last: time.Now()}
	defer func() {
		a.former = sum(a.former, p.Counts())
		if closeErr := closePipeline(); err == nil {
			err = closeErr
		}
	}()
	all, err := a.Positions.Positions(ctx)
	if err != nil {
		return err
	}
	for _, at := range all {
		if at.Source == a.source() {
			r.read, r.written = at.Offset, at.Offset
		}
	}
	tidied := make(chan struct{})
	tidying, stop := context.WithCancel(ctx)
	go func() {
		defer close(tidied)
		a.tidy(tidying, p)
	}()
	defer func() {
		stop()
		<-tidied
	}()
	err = a.Queue.Read(ctx, r.read, idleEvery,
		func(sequence int64, b queue.Batch) error { return r.batch(ctx, sequence, b) },
		func() error { return r.idle(ctx) })
	if ctx.Err() != nil && !r.torn {
		// Asked to stop: what was read need not be read again. But a pipeline
		// that stopped in the midst of an event, or of a checkpoint, has noted
		// as seen what it would not count.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		return r.checkpoint(last)
	}
	return err
}

func (r *reading) batch(ctx context.Context, sequence int64, b queue.Batch) error {
	if sequence <= r.read {
		return nil
	}
	if err := r.takeChanges(ctx); err != nil {
		return err
	}
	r.torn = true
	decoder, err := r.Decoder(b.Source)
	if err != nil {
		decoder = nil // a source that this version does not know by that name
	}
	in := activity.Input{Source: "queue", System: b.System, Decoder: decoder, Learned: b.Learned, Unattended: true}
	for line := range bytes.Lines(b.Events) {
		if line = bytes.TrimSuffix(line, []byte("\n")); len(line) == 0 {
			continue
		}
		if err := r.pipeline.Feed(ctx, in, line); err != nil {
			return err
		}
	}
	r.read, r.torn = sequence, false
	return r.maybeCheckpoint(ctx)
}

func (r *reading) idle(ctx context.Context) error {
	if err := r.takeChanges(ctx); err != nil {
		return err
	}
	return r.maybeCheckpoint(ctx)
}

func (r *reading) takeChanges(ctx context.Context) error {
	r.mu.Lock()
	changes := r.changes
	r.changes = nil
	r.mu.Unlock()
	for system, ids := range changes {
		if err := r.pipeline.InventoryChanged(ctx, system, ids); err != nil {
			return err
		}
	}
	return nil
}

func (r *reading) maybeCheckpoint(ctx context.Context) error {
	// Writing must leave most of the time for reading, however slow the disk is.
	if r.read > r.written && time.Since(r.last) >= max(cmp.Or(r.Every, 5*time.Second), 4*r.took) {
		return r.checkpoint(ctx)
	}
	if r.pipeline.Urgent() && time.Since(r.announced) >= max(urgentGap, 2*r.announcing) {
		// A finding must not wait for all else that has changed to be written.
		began := time.Now()
		findings, err := r.pipeline.Announce(ctx)
		if err != nil {
			return err
		}
		if r.Announced != nil && len(findings) > 0 {
			r.Announced(findings)
		}
		r.announced, r.announcing = time.Now(), time.Since(began)
	}
	return nil
}

func (r *reading) checkpoint(ctx context.Context) error {
	if r.read == r.written {
		return nil
	}
	began := time.Now()
	r.torn = true
	err := r.pipeline.Checkpoint(ctx, remit.Position{Source: r.source(), Offset: r.read, Updated: began.UTC()})
	if err != nil {
		return err
	}
	r.written, r.last, r.took, r.torn = r.read, time.Now(), time.Since(began), false
	if r.Observe != nil {
		r.Observe(sum(r.former, r.pipeline.Counts()), r.took)
	}
	if time.Since(r.dropped) < time.Second {
		return nil
	}
	r.dropped = time.Now()
	return r.Queue.Discard(ctx, r.written)
}

func sum(a, b activity.Counts) activity.Counts {
	return activity.Counts{
		Events: a.Events + b.Events, Duplicate: a.Duplicate + b.Duplicate, Ignored: a.Ignored + b.Ignored, Dead: a.Dead + b.Dead,
	}
}

// tidy keeps the archive in order until ctx ends.
func (a *Activity) tidy(ctx context.Context, p *activity.Pipeline) {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		// An hour that has ended gets no more events, but for late ones, with
		// which it is merged again.
		if err := p.Compact(ctx, time.Now().Add(-5*time.Minute), a.Retention); err != nil && ctx.Err() == nil {
			a.Log.Error("the archive could not be tidied", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
