package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"remit"
	"remit/store/sqlstore"
)

// warming is how long the background runs before the first theft.
const warming = 3 * time.Second

// result is what one measurement found.
type result struct {
	sent                          float64 // events a second that the background came to
	answered, visible, background []time.Duration
	queue                         []sample
	behind                        int64 // events that the background could not send in time
	refused                       int   // requests that had to be sent again
	missing                       int   // thefts without a finding
	cut                           bool  // by the limit of time
}

// measure plays the thefts against a server of its own, with a data directory of
// its own.
func (b *bench) measure(ctx context.Context, rate int) (r result, err error) {
	s, err := b.serve(ctx, filepath.Join(b.dir, fmt.Sprintf("data-%d", rate)))
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	store, err := sqlstore.Open(ctx, filepath.Join(s.data, "remit.db"))
	if err != nil {
		return r, err
	}
	defer store.Close()

	load := background{server: s, rate: rate, batch: b.batch, identities: b.identities}
	loading, stop := context.WithTimeout(ctx, b.limit)
	defer stop()
	ended := make(chan struct{})
	began := time.Now()
	go func() {
		defer close(ended)
		load.run(loading)
	}()
	sampled := make(chan []sample, 1)
	go func() { sampled <- s.sample(loading) }()
	if rate > 0 {
		pause(loading, warming)
	}
	for i := range b.thefts {
		answered, visible, err := b.steal(loading, s, store, i)
		switch {
		case loading.Err() != nil && ctx.Err() == nil:
			r.cut = true
		case errors.Is(err, errNotSeen):
			r.missing++
		case err != nil:
			return r, fmt.Errorf("theft %d: %w", i, err)
		default:
			r.answered, r.visible = append(r.answered, answered), append(r.visible, visible)
		}
		if r.cut {
			break
		}
		pause(loading, b.pause/2+time.Duration(rand.Int64N(int64(b.pause)+1)))
	}
	took := time.Since(began)
	stop()
	<-ended
	r.queue = <-sampled
	r.sent = float64(load.events.Load()) / took.Seconds()
	r.behind = max(0, int64(float64(rate)*took.Seconds())-load.events.Load())
	r.background, r.refused = load.times(), int(load.refused.Load())
	log.Printf("at %d events a second: %d findings in %s", rate, len(r.visible), took.Round(time.Second))
	return r, nil
}

var errNotSeen = errors.New("no finding")

// steal plays one theft and waits until its finding is visible to another client
// of the store.
func (b *bench) steal(ctx context.Context, s *server, store *sqlstore.Store, i int) (answered, visible time.Duration, err error) {
	began := time.Now()
	body := theft(i)
	for {
		err := s.send(ctx, body)
		if err == nil {
			break
		}
		if _, ok := errors.AsType[again](err); !ok || time.Since(began) > b.patience {
			return 0, 0, err
		}
		pause(ctx, 100*time.Millisecond)
	}
	answered = time.Since(began)
	// A system is made with its first event.
	id, err := s.victim(ctx, store, i)
	if err != nil {
		return 0, 0, err
	}
	tick := time.NewTicker(b.poll)
	defer tick.Stop()
	for {
		found, _, err := store.Findings(ctx, remit.FindingFilter{Identities: []remit.ID{id}, MinimumSeverity: remit.High}, remit.PageRequest{Limit: 1})
		if err != nil {
			return 0, 0, err
		}
		if len(found) > 0 {
			return answered, time.Since(began), nil
		}
		if time.Since(began) > b.patience {
			return 0, 0, errNotSeen
		}
		select {
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		case <-tick.C:
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// quantiles are the columns of a row.
func quantiles(all []time.Duration) string {
	if len(all) == 0 {
		return "-\t-\t-\t-\t"
	}
	all = slices.Sorted(slices.Values(all))
	at := func(q float64) string {
		return fmt.Sprintf("%.1f ms", float64(all[int(q*float64(len(all)-1))].Microseconds())/1000)
	}
	return at(.5) + "\t" + at(.9) + "\t" + at(.99) + "\t" + at(1) + "\t"
}

// words tell what waited in the queue, and what went wrong.
func (r *result) words() string {
	words := "the queue was not asked"
	if len(r.queue) > 0 {
		most := func(of func(sample) float64) (middle, most float64) {
			var all []float64
			for _, s := range r.queue {
				all = append(all, of(s))
			}
			slices.Sort(all)
			return all[len(all)/2], all[len(all)-1]
		}
		batches, mostBatches := most(func(s sample) float64 { return s.batches })
		size, mostSize := most(func(s sample) float64 { return s.bytes })
		waiting, mostWaiting := most(func(s sample) float64 { return s.uncounted })
		words = fmt.Sprintf("queue p50 %.0f batches, %.1f MB; at most %.0f and %.1f MB; events not yet counted p50 %.0f, at most %.0f, at the end %.0f",
			batches, size/1e6, mostBatches, mostSize/1e6, waiting, mostWaiting, r.queue[len(r.queue)-1].uncounted)
	}
	if len(r.queue) > 0 {
		last := r.queue[len(r.queue)-1]
		words += fmt.Sprintf("; %.0f checkpoints of %.0f ms; %.0f µs of processor time an event, %.0f MB of memory",
			last.checkpoints, 1000*last.checkpointS/max(1, last.checkpoints), 1e6*last.cpu/max(1, last.counted), last.memory/1e6)
	}
	if half := len(r.visible) / 2; half > 0 {
		first, second := slices.Sorted(slices.Values(r.visible[:half])), slices.Sorted(slices.Values(r.visible[half:]))
		words += fmt.Sprintf("; visible p50 in the first half %s, in the second %s", first[half/2].Round(time.Millisecond), second[half/2].Round(time.Millisecond))
	}
	words += fmt.Sprintf("; %d requests sent again", r.refused)
	if r.behind > 0 {
		words += fmt.Sprintf("; the sender was %d events behind at the end", r.behind)
	}
	if r.missing > 0 {
		words += fmt.Sprintf("; %d THEFTS WITHOUT A FINDING IN TIME", r.missing)
	}
	if r.cut {
		words += "; ended by -limit"
	}
	return words
}
