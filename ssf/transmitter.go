package ssf

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"remit"
)

// TransmitterStore is what a transmitter needs of the store.
type TransmitterStore interface {
	Systems(ctx context.Context) ([]remit.System, error)
	Identities(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Identity, string, error)
	Credentials(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Credential, string, error)
	Lineage(ctx context.Context, f remit.ActivityFilter, page remit.PageRequest) ([]remit.Lineage, string, error)
	Responses(ctx context.Context, f remit.ResponseFilter, page remit.PageRequest) ([]remit.Response, string, error)
	States(ctx context.Context, system remit.ID, kind, key string) ([]remit.State, error)
	Checkpoint(ctx context.Context, c remit.Checkpoint) error
}

// Transmitter tells receivers what responses have cut off, at least once. What is
// to be told is derived from the stored responses again and again, and an event is
// queued in the store for each stream until its receiver has acknowledged it; so a
// kill at any instant loses none, and a token that is delivered twice has the same
// ID both times. It is safe for concurrent use; one process has one. Start it with
// [Transmitter.Open].
type Transmitter struct {
	Issuer string // https://…, without a slash at its end
	Signer *Signer
	Store  TransmitterStore
	Log    *slog.Logger

	Now func() time.Time // nil is time.Now

	mu      sync.Mutex
	streams map[string]*Stream
	queued  map[string]map[string]*queued // by stream and token
	moving  map[remit.ID]bool             // responses that were changing at the last look
	whole   time.Time                     // when all responses were last looked at
	changed chan struct{}                 // closed, and made anew, when something is queued
	ended   chan struct{}                 // closed when Run ends: nobody waits any longer
}

// horizon is for how long an event is kept for a receiver that does not take it.
const horizon = 90 * 24 * time.Hour

// The kinds of state that a transmitter keeps.
const (
	streamKind = "ssf-stream"
	queuedKind = "ssf-queued"
)

// queued is an event of a stream.
type queued struct {
	Token  string          `json:"token"` // the ID
	Time   time.Time       `json:"time"`  // of the event
	Claims json.RawMessage `json:"claims,omitempty"`

	// Done is when its receiver acknowledged it, or when it was too old. What is
	// done is remembered, or it would be derived once more.
	Done    time.Time `json:"done,omitzero"`
	Tries   int       `json:"tries,omitempty"`
	Next    time.Time `json:"next,omitzero"` // not before then
	Failure string    `json:"failure,omitempty"`
}

func (t *Transmitter) now() time.Time {
	if t.Now != nil {
		return t.Now().UTC()
	}
	return time.Now().UTC()
}

// Open reads the streams and what is queued.
func (t *Transmitter) Open(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.streams, t.queued, t.moving = map[string]*Stream{}, map[string]map[string]*queued{}, map[remit.ID]bool{}
	t.changed, t.ended = make(chan struct{}), make(chan struct{})
	states, err := t.Store.States(ctx, "", streamKind, "")
	if err != nil {
		return err
	}
	for _, s := range states {
		var one Stream
		if err := json.Unmarshal(s.Data, &one); err != nil {
			return remit.Errorf(remit.Internal, "read streams", "a stored stream is damaged: %w", err)
		}
		t.streams[one.ID] = &one
		t.queued[one.ID] = map[string]*queued{}
		events, err := t.Store.States(ctx, "", queuedKind+" "+one.ID, "")
		if err != nil {
			return err
		}
		for _, e := range events {
			var q queued
			if err := json.Unmarshal(e.Data, &q); err != nil {
				return remit.Errorf(remit.Internal, "read streams", "a queued signal is damaged: %w", err)
			}
			t.queued[one.ID][q.Token] = &q
		}
	}
	return nil
}

// Run derives what is to be told until ctx ends. It is called once.
func (t *Transmitter) Run(ctx context.Context) error {
	defer close(t.ended)
	const every = time.Second
	failing := false
	for {
		if err := t.Derive(ctx); err != nil && ctx.Err() == nil {
			if !failing {
				t.Log.Error("what is to be told to receivers could not be read", "error", err)
			}
			failing = true
		} else {
			failing = false
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(every):
		}
	}
}

// wholeEvery is how often all responses are looked at. In between only those are
// that are new or were changing; an old one that somebody undoes takes a while.
const wholeEvery = time.Minute

// Derive is one round of [Transmitter.Run].
func (t *Transmitter) Derive(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.streams) == 0 {
		return nil
	}
	now := t.now()
	moving := map[remit.ID]bool{}
	look := func(f remit.ResponseFilter, all bool) error {
		for page := (remit.PageRequest{Limit: 100}); ; {
			some, next, err := t.Store.Responses(ctx, f, page)
			if err != nil {
				return err
			}
			for i := range some {
				switch some[i].State {
				case remit.ResponseApproved, remit.ResponseRunning, remit.ResponseUndoing:
					moving[some[i].ID] = true
				}
				if err := t.enqueue(ctx, &some[i], now); err != nil {
					return err
				}
			}
			if next == "" || !all {
				return nil
			}
			page.After = next
		}
	}
	if now.Sub(t.whole) >= wholeEvery {
		if err := look(remit.ResponseFilter{}, true); err != nil {
			return err
		}
		t.forget(ctx, now)
		t.whole, t.moving = now, moving
		return nil
	}
	if err := look(remit.ResponseFilter{}, false); err != nil {
		return err
	}
	if err := look(remit.ResponseFilter{States: []remit.ResponseState{remit.ResponseApproved, remit.ResponseRunning, remit.ResponseUndoing}}, true); err != nil {
		return err
	}
	if ids := slices.Sorted(maps.Keys(t.moving)); len(ids) > 0 {
		if err := look(remit.ResponseFilter{IDs: ids}, true); err != nil {
			return err
		}
	}
	t.moving = moving
	return nil
}

// enqueue queues what a response gives cause to tell, for every stream that asked
// for it and does not have it yet.
func (t *Transmitter) enqueue(ctx context.Context, r *remit.Response, now time.Time) error {
	var subject map[string]any
	write := remit.Checkpoint{Now: now}
	added := map[*queued]string{}
	for _, e := range derive(r) {
		for _, s := range t.streams {
			if t.queued[s.ID][e.id] != nil || s.Status == StreamDisabled || e.time.Before(s.Created) || now.Sub(e.time) > horizon || !s.wants(e.typ) {
				continue
			}
			if subject == nil {
				var err error
				if subject, err = t.subject(ctx, r); err != nil {
					return err
				}
			}
			claims, err := t.claimsOf(&e, subject, s.Audience)
			if err != nil {
				return remit.Errorf(remit.Internal, "queue signal", "%w", err)
			}
			q := &queued{Token: e.id, Time: e.time, Claims: claims}
			if err := put(&write, s.ID, q); err != nil {
				return err
			}
			added[q] = s.ID
		}
	}
	if len(added) == 0 {
		return nil
	}
	if err := t.Store.Checkpoint(ctx, write); err != nil {
		return err
	}
	for q, stream := range added {
		t.queued[stream][q.Token] = q
	}
	t.wake()
	return nil
}

// wake tells whoever waits for events that there are some.
func (t *Transmitter) wake() {
	close(t.changed)
	t.changed = make(chan struct{})
}

func put(write *remit.Checkpoint, stream string, q *queued) error {
	data, err := json.Marshal(q)
	if err != nil {
		return remit.Errorf(remit.Internal, "queue signal", "%w", err)
	}
	write.States = append(write.States, remit.State{Kind: queuedKind + " " + stream, Key: q.Token, Data: data})
	return nil
}

// forget gives events up that nobody took within the horizon, and removes what
// cannot be derived again.
func (t *Transmitter) forget(ctx context.Context, now time.Time) {
	write := remit.Checkpoint{Now: now}
	gone := map[*queued]string{}
	for stream, all := range t.queued {
		for _, q := range all {
			if now.Sub(q.Time) <= horizon+time.Hour {
				continue
			}
			if q.Done.IsZero() {
				t.Log.Error("a signal was not taken in time", "stream", stream, "token", q.Token, "failure", q.Failure)
			}
			write.States = append(write.States, remit.State{Kind: queuedKind + " " + stream, Key: q.Token})
			gone[q] = stream
		}
	}
	if len(gone) == 0 {
		return
	}
	if err := t.Store.Checkpoint(ctx, write); err != nil {
		t.Log.Error("old signals could not be removed", "error", err)
		return
	}
	for q, stream := range gone {
		delete(t.queued[stream], q.Token)
	}
}

// pending are the events of a stream that are to be delivered now, the oldest
// first.
func (t *Transmitter) pending(stream string, now time.Time) []*queued {
	var all []*queued
	for _, q := range t.queued[stream] {
		if q.Done.IsZero() && !now.Before(q.Next) {
			all = append(all, q)
		}
	}
	slices.SortFunc(all, func(a, b *queued) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Token, b.Token)) })
	return all
}

// settle notes that events were acknowledged, and that others were refused, which
// are tried again later: the receiver may come to know a new key.
func (t *Transmitter) settle(ctx context.Context, stream string, acked []string, refused map[string]*Refusal) error {
	now := t.now()
	write := remit.Checkpoint{Now: now}
	next := map[string]*queued{}
	for _, id := range acked {
		if q := t.queued[stream][id]; q != nil && q.Done.IsZero() {
			next[id] = &queued{Token: q.Token, Time: q.Time, Done: now}
		}
	}
	for id, why := range refused {
		if q := t.queued[stream][id]; q != nil && q.Done.IsZero() && why != nil {
			failed := *q
			failed.Tries++
			failed.Next = now.Add(min(time.Minute<<min(failed.Tries-1, 10), time.Hour))
			failed.Failure = clip(why.Error(), maxReason)
			next[id] = &failed
			t.Log.Error("a receiver refused a signal; it is tried again", "stream", stream, "token", id, "code", clip(why.Code, 64), "reason", clip(why.Description, maxReason), "next", failed.Next)
		}
	}
	if len(next) == 0 {
		return nil
	}
	for _, q := range next {
		if err := put(&write, stream, q); err != nil {
			return err
		}
	}
	if err := t.Store.Checkpoint(ctx, write); err != nil {
		return err
	}
	maps.Copy(t.queued[stream], next)
	return nil
}
