// Package activity turns raw audit events into attributed activity: it decodes
// them, finds out who did it with which credential, from which root that
// credential descends, and what the identity exercised by it; has the
// detections look at it; and keeps the archive.
//
// One pipeline reads one stream after another, in order, in one goroutine. What
// it learns is in memory until [Pipeline.Checkpoint] writes all of it in one
// transaction together with the position up to which the stream was read, so
// that a process that dies at any instant counts nothing twice and, because the
// stream is still there, loses nothing. Event time is its only clock.
package activity

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"time"

	"github.com/valyala/fastjson"

	"remit"
	"remit/activity/archive"
	"remit/connector"
)

// Store is what the pipeline needs of the store.
type Store interface {
	remit.ActivityWriter
	remit.ActivityReader
	Inventory
	PutSystem(ctx context.Context, s remit.System) error
}

// Inventory is what the pipeline asks of the inventory.
type Inventory interface {
	Systems(ctx context.Context) ([]remit.System, error)
	Identities(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Identity, string, error)
	Resources(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Resource, string, error)
	Relations(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Relation, string, error)
	History(ctx context.Context, id remit.ID) ([]remit.Version, error)
}

// Detector looks at every attributed event, in order.
type Detector interface {
	// Observe looks at one event. e and its views are the caller's again when
	// it returns; the strings of its Activity may be kept.
	Observe(ctx context.Context, e *connector.Event) error

	// Changed appends findings and states that changed since it was last
	// called to a checkpoint.
	Changed(c *remit.Checkpoint) error

	// Calm returns, of the event that Observe looked at last, what was looked at
	// beside its text, when rules found nothing in it and read none of the
	// fields own; nil when they have to be asked again. ObserveCalm is Observe
	// for an event of the same text but for these fields, and calm what Calm
	// returned; false when more has changed: then nothing was done.
	Calm(own []string) any
	ObserveCalm(ctx context.Context, e *connector.Event, calm any) (bool, error)

	// Deployed says that a new version of a workload that runs as an identity was
	// rolled out, so that what it does now for the first time is no wonder.
	Deployed(identity remit.ID, at time.Time)

	// Urgent says whether a finding waits that somebody should see at once, and
	// Announce appends those findings, as they are now, to a checkpoint. They
	// come again, in full, with the next Changed.
	Urgent() bool
	Announce(c *remit.Checkpoint)
}

// Options are the parts of a pipeline.
type Options struct {
	Store    Store
	Decoders []connector.Decoder
	Detector Detector         // nil: none
	Archive  *archive.Archive // nil: none

	// NoRaw leaves the raw events out of the archive. Those that are kept hold
	// no secret.
	NoRaw bool

	// DeadLetter is called with every event of which nothing can be made, and
	// with the reason. raw holds no secret and is the caller's again.
	DeadLetter func(source string, reason error, raw []byte) error

	Now func() time.Time // nil is time.Now
}

// Counts is what a pipeline has done.
type Counts struct {
	Events    int64 // counted
	Duplicate int64 // had been counted before
	Ignored   int64 // stages of requests that say nothing
	Dead      int64 // undecodable
}

// Pipeline is safe for use by one goroutine at a time.
type Pipeline struct {
	options Options
	counts  Counts

	parser fastjson.Parser
	arena  fastjson.Arena
	intern connector.Interner
	event  connector.Event
	raw    []byte

	systems map[remit.ID]*system
	byName  map[systemName]*system
	repeats *repeats

	last        connector.Decoder
	lastRepeats connector.Repeater // the same; nil when it cannot tell repeats

	dirty   bool  // something was fed since the last checkpoint
	written int64 // events at the last checkpoint
	marked  bool  // the archive has begun a mark
}

type systemName struct{ connector, native string }

// New returns a pipeline that goes on from what the store has.
func New(o Options) *Pipeline {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Pipeline{options: o, systems: make(map[remit.ID]*system), byName: make(map[systemName]*system), repeats: new(repeats)}
}

// Repeats is how many of the counted events were known by their text.
func (p *Pipeline) Repeats() int64 { return p.repeats.n }

// Counts returns what was done since New.
func (p *Pipeline) Counts() Counts { return p.counts }

// Input says where raw events come from.
type Input struct {
	Source  string            // for messages: "audit.log", "webhook"
	System  remit.ID          // whose events they are; "" when the events tell
	Decoder connector.Decoder // nil: recognised from the events
	Learned time.Time         // when Remit received them

	// Unattended: nobody is there to say whose events without a system are.
	// They are dead letters then, and stop no others.
	Unattended bool
}

// Feed takes one document: a raw event, or a list of them in one of the forms
// that sources deliver. What cannot be decoded goes to the dead letters. An
// error is the store's or the archive's, and the pipeline must not be used on.
func (p *Pipeline) Feed(ctx context.Context, in Input, document []byte) error {
	text := uint64(0)
	if d := p.repeater(in); d != nil {
		if text = p.repeats.hash(d, in.System, document); text != 0 {
			if k := p.repeats.find(text); k != nil {
				if done, err := p.again(ctx, in, k, document); done {
					return err
				}
			}
		}
	}
	v, err := p.parser.ParseBytes(document)
	if err != nil {
		return p.dead(in, NotJSON(document), nil, document)
	}
	decoder := in.Decoder
	if decoder == nil {
		if decoder = p.recognize(v); decoder == nil {
			return p.dead(in, remit.Errorf(remit.Invalid, "", "an event of no source that Remit knows: name the source"), v, document)
		}
	}
	if v.Type() == fastjson.TypeObject || v.Type() == fastjson.TypeArray {
		events := decoder.Split(v)
		if len(events) == 1 && events[0] == v {
			return p.one(ctx, in, decoder, v, document, text)
		}
		for _, each := range events {
			if err := p.one(ctx, in, decoder, each, nil, 0); err != nil {
				return err
			}
		}
		return nil
	}
	return p.one(ctx, in, decoder, v, document, 0)
}

// recognize finds the decoder for a document; the last one's first, for a
// stream is of one source most of the time.
func (p *Pipeline) recognize(v *fastjson.Value) connector.Decoder {
	if p.last != nil && p.last.Recognizes(v) {
		return p.last
	}
	if d := Recognize(p.options.Decoders, v); d != nil {
		p.last, p.lastRepeats = d, nil
		p.lastRepeats, _ = d.(connector.Repeater)
		return d
	}
	return nil
}

// Recognize returns the first decoder whose source a document is of, or nil.
func Recognize(decoders []connector.Decoder, v *fastjson.Value) connector.Decoder {
	for _, d := range decoders {
		if d.Recognizes(v) {
			return d
		}
	}
	return nil
}

// one takes one raw event. raw is its text, or nil when it stands in a list; text
// is the hash by which repeats know it, or 0.
func (p *Pipeline) one(ctx context.Context, in Input, decoder connector.Decoder, v *fastjson.Value, raw []byte, text uint64) error {
	e := &p.event
	e.Reset()
	if err := decoder.Decode(v, &p.intern, e); err != nil {
		if errors.Is(err, connector.ErrIgnored) {
			p.counts.Ignored++
			return nil
		}
		return p.dead(in, err, v, raw)
	}
	e.Time, e.Minted.Expires = writable(e.Time), writable(e.Minted.Expires)
	if e.ID == "" {
		// The same for the event in a list, on a line and printed over several.
		p.raw = connector.AppendJSON(p.raw[:0], v)
		e.ID = contentID(p.raw)
	}
	hash, hour := eventHash(&e.Activity), e.Time.Unix()/3600
	if e.Time.IsZero() {
		// Without a time it cannot be put in order; that it came now is the
		// best that is known, and the same on every machine that reads it
		// from a queue. It is no part of what tells the event from others: it
		// would count again whenever it is read.
		e.Time, hour = in.Learned, 0
	}
	e.Learned = in.Learned
	s, err := p.system(ctx, in, decoder, e.Native)
	if in.Unattended && errors.Is(err, errAmbiguous) {
		return p.dead(in, err, v, raw)
	}
	if err != nil {
		return err
	}
	// Whoever found the text to be of its source need not be who decodes it.
	repeater, _ := decoder.(connector.Repeater)
	learns := text != 0 && repeater != nil && repeater == p.repeats.of && p.repeats.learns(text)
	var decoded remit.Activity
	if learns {
		decoded = e.Activity
	}
	e.System = s.id
	fresh, err := s.seen.Add(ctx, hour, hash)
	if err != nil {
		return err
	}
	if !fresh {
		p.counts.Duplicate++
		return nil
	}
	if err := s.attribute(ctx, e, nil); err != nil {
		return err
	}
	p.counts.Events++
	p.dirty = true
	if p.options.Detector != nil {
		if err := p.options.Detector.Observe(ctx, e); err != nil {
			return err
		}
	}
	changed := false
	if keeps := p.options.Archive != nil && !p.options.NoRaw; keeps || learns {
		if changed = decoder.Strip(v, &p.arena); keeps && (changed || raw == nil) {
			p.raw = connector.AppendJSON(p.raw[:0], v)
			raw = p.raw
		}
		p.arena.Reset()
	}
	if learns && !changed {
		p.learn(text, repeater, s, &decoded, raw)
	}
	return p.archive(e, s, raw)
}

// archive keeps an event; raw is without secrets.
func (p *Pipeline) archive(e *connector.Event, s *system, raw []byte) error {
	if p.options.Archive == nil {
		return nil
	}
	if !p.marked {
		if err := p.options.Archive.Begin(newMark(p.options.Now())); err != nil {
			return err
		}
		p.marked = true
	}
	if p.options.NoRaw {
		raw = nil
	}
	return p.options.Archive.Append(&e.Activity, s.name, raw)
}

// writable returns t, or no time when its year has not four digits: nothing that
// holds it could be written as JSON, and its event would stop all that follow.
func writable(t time.Time) time.Time {
	if t = t.UTC(); t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}

// Checkpoint writes what was learned since the last one, the files that the
// archive made of it, and the positions, in one transaction. After an error the
// pipeline must not be used on: what it learned is read again from the source.
func (p *Pipeline) Checkpoint(ctx context.Context, positions ...remit.Position) error {
	c := remit.Checkpoint{Now: p.options.Now(), Positions: positions}
	if p.options.Archive != nil && p.marked {
		files, err := p.options.Archive.Flush(ctx)
		if err != nil {
			return err
		}
		for _, f := range files {
			c.ArchiveAdded = append(c.ArchiveAdded, remit.ArchiveFile(f))
		}
		p.marked = false
	}
	for _, s := range p.inOrder() {
		s.changed(&c)
	}
	if p.options.Detector != nil {
		if err := p.options.Detector.Changed(&c); err != nil {
			return err
		}
	}
	if err := p.options.Store.Checkpoint(ctx, c); err != nil {
		return err
	}
	for _, s := range p.systems {
		s.committed()
	}
	p.dirty, p.written = false, p.counts.Events
	return nil
}

// Announce writes the findings that somebody should see at once, ahead of the
// checkpoint that they belong to, with the lineage of the credentials that they
// name, so that these can be cut off; and returns them. After a crash between the
// two, the events of that stretch are read again and give the same.
func (p *Pipeline) Announce(ctx context.Context) ([]remit.Finding, error) {
	c := remit.Checkpoint{Now: p.options.Now()}
	if p.options.Detector != nil {
		p.options.Detector.Announce(&c)
	}
	if len(c.Findings) == 0 {
		return nil, nil
	}
	named := make(map[remit.ID][]string)
	for _, f := range c.Findings {
		named[f.System] = append(named[f.System], f.Credentials...)
	}
	for id, credentials := range named {
		if s := p.systems[id]; s != nil {
			s.lineage.Announce(credentials, &c)
		}
	}
	return c.Findings, p.options.Store.Checkpoint(ctx, c)
}

// Recover makes the archive's directory agree with the store's manifest: call it
// before the first event. Files that a crash left behind are set aside, for
// their events come again; lost are files that the manifest lists and that are
// missing or damaged.
func (p *Pipeline) Recover(ctx context.Context) (archive.Recovered, error) {
	if p.options.Archive == nil {
		return archive.Recovered{}, nil
	}
	known, err := Manifest(ctx, p.options.Store, "", time.Time{}, time.Time{})
	if err != nil {
		return archive.Recovered{}, err
	}
	return p.options.Archive.Recover(ctx, known, false)
}

// Manifest lists the archive's files of the hours between two times, of one
// system or of all.
func Manifest(ctx context.Context, from remit.ActivityReader, system remit.ID, first, last time.Time) ([]archive.File, error) {
	listed, err := from.ArchiveFiles(ctx, system, first, last)
	if err != nil {
		return nil, err
	}
	files := make([]archive.File, len(listed))
	for i, f := range listed {
		files[i] = archive.File(f)
	}
	return files, nil
}

// Compact merges the small files of each hour that ended before a time, and
// applies the retention that of gives for each system (nil: nothing ends). It
// may run beside the pipeline.
func (p *Pipeline) Compact(ctx context.Context, before time.Time, of func(remit.ID) archive.Retention) error {
	a := p.options.Archive
	if a == nil {
		return nil
	}
	all, err := Manifest(ctx, p.options.Store, "", time.Time{}, time.Time{})
	if err != nil {
		return err
	}
	swap := func(made, gone []archive.File) error {
		if len(made)+len(gone) == 0 {
			return nil
		}
		c := remit.Checkpoint{Now: p.options.Now()}
		for _, f := range made {
			c.ArchiveAdded = append(c.ArchiveAdded, remit.ArchiveFile(f))
		}
		for _, f := range gone {
			c.ArchiveGone = append(c.ArchiveGone, f.Path)
		}
		if err := p.options.Store.Checkpoint(ctx, c); err != nil {
			return err
		}
		return a.Remove(ctx, gone)
	}
	if of != nil {
		remove, strip := archive.Retain(all, p.options.Now(), of)
		if err := swap(nil, remove); err != nil {
			return err
		}
		for _, f := range strip {
			made, replaced, err := a.DropRaw(ctx, newMark(p.options.Now()), f)
			if err != nil {
				return err
			}
			if err := swap(made, replaced); err != nil {
				return err
			}
		}
		if all, err = Manifest(ctx, p.options.Store, "", time.Time{}, time.Time{}); err != nil {
			return err
		}
	}
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].System == all[0].System && all[n].Hour.Equal(all[0].Hour) {
			n++
		}
		if n > 1 && all[0].Hour.Add(time.Hour).Before(before) {
			made, replaced, err := a.Compact(ctx, newMark(p.options.Now()), all[:n])
			if err != nil {
				return err
			}
			if err := swap(made, replaced); err != nil {
				return err
			}
		}
		all = all[n:]
	}
	return nil
}

// newMark names what the archive writes until the next checkpoint.
func newMark(now time.Time) string {
	var random [5]byte
	_, _ = rand.Read(random[:]) // never fails (crypto/rand)
	return now.UTC().Format("20060102T150405") + "-" + hex.EncodeToString(random[:])
}

// The bounds of what waits in memory for the next checkpoint: combinations that
// were counted, about 400 bytes each, and events, of which a hash each is kept.
const (
	maxCounted = 1 << 17
	maxUncut   = 8 << 20
)

// Full says that so much waits for the next checkpoint that it should be
// written, whatever the time.
func (p *Pipeline) Full() bool {
	counted := 0
	for _, s := range p.systems {
		counted += s.usage.Len()
	}
	return counted > maxCounted || p.counts.Events-p.written > maxUncut
}

// Dirty says whether events were fed since the last checkpoint.
func (p *Pipeline) Dirty() bool { return p.dirty }

// Urgent says whether there is something to announce.
func (p *Pipeline) Urgent() bool { return p.options.Detector != nil && p.options.Detector.Urgent() }
