// Package ingest takes raw audit events in, by HTTP, by following files and by
// asking systems for them, and puts them into the queue: stripped of secrets, in
// the order in which they came, and on disk before anybody is told that they are
// taken. What they mean is the pipeline's business, which reads the queue.
package ingest

import (
	"bytes"
	"context"
	"io"
	"sync"
	"time"

	"github.com/valyala/fastjson"

	"remit"
	"remit/activity"
	"remit/activity/queue"
	"remit/connector"
)

// Queue is where events wait; [queue.Queue] is one. Put returns when the batch is
// on disk, with [remit.Unavailable] when there is no room.
type Queue interface {
	Put(ctx context.Context, b queue.Batch) error
}

// Intake makes batches of raw events and queues them. It is safe for concurrent
// use.
type Intake struct {
	Queue    Queue
	Decoders []connector.Decoder

	// DeadLetter is called with every event of which nothing can be made, and
	// with the reason; raw holds no secret and is the caller's again. Its error
	// means that the event could not be kept, so it is not taken.
	DeadLetter func(source string, reason error, raw []byte) error

	// Observe, if not nil, is told what was taken from whom.
	Observe func(Origin, Taken)

	Now func() time.Time // nil is time.Now

	batches sync.Pool // of *batch
}

// Origin says from where events come and whose they are.
type Origin struct {
	Name    string            // for messages and metrics: "client prod-audit", a path
	System  remit.ID          // "" when the events tell
	Decoder connector.Decoder // nil when it is recognised
}

// Taken is what became of what was handed in.
type Taken struct {
	Events int64 // queued
	Dead   int64 // of which nothing can be made; kept aside with the reason
	Bytes  int64 // of the queued events, without secrets
}

// batchBytes and batchEvents are when a batch is queued: the sooner, the less is
// sent again after a failure; the later, the fewer writes (docs/reference/measurements.md).
const (
	batchBytes  = 1 << 20
	batchEvents = 2000
)

// batch is the memory that one call needs.
type batch struct {
	parser fastjson.Parser
	arena  fastjson.Arena
	last   connector.Decoder
	events bytes.Buffer
	n      int64
	one    []byte
	dead   []byte
}

// Take queues every event of what r brings (see [activity.Documents]; at most
// limit bytes after decompression, 0 sets no bound). It returns when all of them
// are on disk. With an error, some may be in the queue already: handing in all of
// them again does no harm.
func (i *Intake) Take(ctx context.Context, from Origin, r io.Reader, limit int64) (Taken, error) {
	var taken Taken
	b := i.batch()
	defer i.batches.Put(b)
	err := activity.DocumentsWithin(r, limit, func(document []byte, _ int, _ int64) error {
		return i.document(ctx, from, b, document, &taken)
	})
	if err == nil {
		err = i.flush(ctx, from, b, &taken)
	}
	if i.Observe != nil {
		i.Observe(from, taken)
	}
	return taken, err
}

// Lines is Take for text of which every line is a document, whatever it looks
// like: a torn line harms no other.
func (i *Intake) Lines(ctx context.Context, from Origin, text []byte) (Taken, error) {
	var taken Taken
	b := i.batch()
	defer i.batches.Put(b)
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if err := i.document(ctx, from, b, line, &taken); err != nil {
			return taken, err
		}
	}
	err := i.flush(ctx, from, b, &taken)
	if i.Observe != nil {
		i.Observe(from, taken)
	}
	return taken, err
}

func (i *Intake) batch() *batch {
	b, _ := i.batches.Get().(*batch)
	if b == nil {
		b = new(batch)
	}
	b.events.Reset()
	b.n, b.last = 0, nil
	return b
}

func (i *Intake) document(ctx context.Context, from Origin, b *batch, document []byte, taken *Taken) error {
	v, err := b.parser.ParseBytes(document)
	if err != nil {
		return i.dead(from, b, activity.NotJSON(document), nil, document, taken)
	}
	d := from.Decoder
	if d == nil {
		if d = b.last; d == nil || !d.Recognizes(v) {
			d = activity.Recognize(i.Decoders, v)
		}
		if d == nil {
			return i.dead(from, b, remit.Errorf(remit.Invalid, "", "an event of no source that Remit knows: name the source"), v, nil, taken)
		}
		b.last = d
	}
	if t := v.Type(); t != fastjson.TypeObject && t != fastjson.TypeArray {
		return i.dead(from, b, remit.Errorf(remit.Invalid, "", "no event but a %s", t), v, nil, taken)
	}
	for _, event := range d.Split(v) {
		whole := event == v
		if d.Strip(event, &b.arena) || !whole || bytes.IndexByte(document, '\n') >= 0 {
			// A line is one event, as the queue's batches are lines.
			b.one = connector.AppendJSON(b.one[:0], event)
		} else {
			b.one = append(b.one[:0], document...)
		}
		if len(b.one) > queue.MaxBatch/2 {
			err := remit.Errorf(remit.Invalid, "", "an event of %d bytes: at most %d are taken", len(b.one), queue.MaxBatch/2)
			if err := i.dead(from, b, err, nil, b.one, taken); err != nil {
				return err
			}
			continue
		}
		if b.events.Len()+len(b.one) > batchBytes || b.n >= batchEvents {
			if err := i.flush(ctx, from, b, taken); err != nil {
				return err
			}
		}
		b.events.Write(b.one)
		b.events.WriteByte('\n')
		b.n++
	}
	b.arena.Reset()
	return nil
}

func (i *Intake) dead(from Origin, b *batch, reason error, v *fastjson.Value, raw []byte, taken *Taken) error {
	text, reason := activity.Harmless(i.Decoders, reason, v, raw, &b.arena, b.dead[:0])
	b.dead = text
	if err := i.DeadLetter(from.Name, reason, text); err != nil {
		return remit.Errorf(remit.Unavailable, "keep dead letter", "%w", err)
	}
	taken.Dead++
	return nil
}

// flush queues what was gathered.
func (i *Intake) flush(ctx context.Context, from Origin, b *batch, taken *Taken) error {
	if b.n == 0 {
		return nil
	}
	now := time.Now
	if i.Now != nil {
		now = i.Now
	}
	out := queue.Batch{System: from.System, Learned: now().UTC(), Events: b.events.Bytes()}
	if d := from.Decoder; d != nil {
		out.Source = d.Source().Name
	}
	if err := i.Queue.Put(ctx, out); err != nil {
		return err
	}
	taken.Events += b.n
	taken.Bytes += int64(b.events.Len())
	b.events.Reset()
	b.n = 0
	return nil
}
