package activity

import (
	"context"
	"hash/maphash"

	"remit"
	"remit/activity/usage"
	"remit/connector"
)

// repeats knows raw events that differ from one decoded before only in what is
// always an event's own, its ID and times: they are not parsed again, and rules
// that found nothing in the first are not asked again.
//
// An event is known by a hash of its text without those values, under a key that
// is drawn anew in every process: two texts that differ share one in 2⁶⁴ times,
// and nobody can make one that hides behind another.
type repeats struct {
	known [1 << (repeatBits - 2)]shelf // by the first bits of the hash
	once  [1 << repeatBits]uint64      // seen one time: most texts never come again
	of    connector.Repeater           // who looked at the last text
	spans []connector.Span             // of it
	n     int64                        // events counted so
}

// repeatBits bounds how many are known, each of about 1 KB.
const repeatBits = 16

// shelf holds those whose hashes begin alike, those that came lately before the
// others. It is a line of the processor's cache long.
type shelf [4]struct {
	text uint64
	of   *repeat
}

var repeatSeed = maphash.MakeSeed()

// repeat is an event that came more than once.
type repeat struct {
	decoder  connector.Repeater
	system   *system
	activity remit.Activity // as it was decoded
	calm     any            // see Detector; nil when rules have to be asked
	counted  usage.Counted
}

// hash returns the hash of a document that is one event of a decoder, 0 when it
// is none that could be known.
func (r *repeats) hash(d connector.Repeater, system remit.ID, document []byte) uint64 {
	var ok bool
	r.of = d
	if r.spans, ok = d.Own(document, r.spans[:0]); !ok {
		return 0
	}
	const multiplier = 0x9E3779B97F4A7C15
	h, at := maphash.String(repeatSeed, string(system)), 0
	for _, s := range r.spans {
		h = (h ^ maphash.Bytes(repeatSeed, document[at:s.Start])) * multiplier
		h ^= h>>32 ^ uint64(s.Field)
		at = s.End
	}
	h = (h ^ maphash.Bytes(repeatSeed, document[at:])) * multiplier
	return max(h^h>>32, 1)
}

// find returns what is known of a text.
func (r *repeats) find(text uint64) *repeat {
	shelf := &r.known[text>>(64-repeatBits+2)]
	for i := range shelf {
		if shelf[i].text == text {
			k := shelf[i].of
			if i > 0 {
				shelf[i], shelf[i-1] = shelf[i-1], shelf[i]
			}
			return k
		}
	}
	return nil
}

// put makes a text known in the place of the one on its shelf that came least.
func (r *repeats) put(text uint64, k *repeat) {
	shelf := &r.known[text>>(64-repeatBits+2)]
	copy(shelf[1:], shelf[:])
	shelf[0].text, shelf[0].of = text, k
}

// learns says whether a text came before, so that it is worth to be known.
func (r *repeats) learns(text uint64) bool {
	slot := &r.once[text>>(64-repeatBits)]
	if *slot == text {
		return true
	}
	*slot = text
	return false
}

// repeater is the decoder of an input, where it can tell repeats.
func (p *Pipeline) repeater(in Input) connector.Repeater {
	if p.last == nil || in.Decoder != nil && in.Decoder != p.last {
		if in.Decoder == nil {
			return nil
		}
		p.last, p.lastRepeats = in.Decoder, nil
		p.lastRepeats, _ = in.Decoder.(connector.Repeater)
	}
	return p.lastRepeats
}

// again takes an event whose text is known. done is false when it has to be
// decoded after all.
func (p *Pipeline) again(ctx context.Context, in Input, k *repeat, document []byte) (done bool, err error) {
	e := &p.event
	e.Reset()
	e.Activity = k.activity
	if !k.decoder.Again(document, p.repeats.spans, &e.Activity) {
		return false, nil
	}
	s := k.system
	e.Learned, e.System = in.Learned, s.id
	fresh, err := s.seen.Add(ctx, e.Time.Unix()/3600, eventHash(&e.Activity))
	if err != nil {
		return true, err
	}
	if !fresh {
		p.counts.Duplicate++
		return true, nil
	}
	if err := s.attribute(ctx, e, k); err != nil {
		return true, err
	}
	p.counts.Events++
	p.repeats.n++
	p.dirty = true
	if d := p.options.Detector; d != nil {
		calm := false
		if k.calm != nil {
			if calm, err = d.ObserveCalm(ctx, e, k.calm); err != nil {
				return true, err
			}
		}
		if !calm {
			v, err := p.parser.ParseBytes(document)
			if err != nil {
				return true, remit.Errorf(remit.Internal, "read event again", "%w", err)
			}
			scratch := connector.Event{Views: e.Views}
			if err := k.decoder.Decode(v, &p.intern, &scratch); err != nil {
				return true, remit.Errorf(remit.Internal, "read event again", "%w", err)
			}
			e.Views = scratch.Views
			if err := d.Observe(ctx, e); err != nil {
				return true, err
			}
			k.calm = d.Calm(k.decoder.OwnFields())
		}
	}
	return true, p.archive(e, s, document)
}

// learn keeps a decoded event, of which nothing had to be stripped, for those of
// the same text that follow.
func (p *Pipeline) learn(text uint64, d connector.Repeater, s *system, decoded *remit.Activity, document []byte) {
	same := *decoded
	same.ID, same.Time = "", decoded.Time.AddDate(1, 0, 0)
	// The values that were found by their marks must be those that were decoded.
	if !d.Again(document, p.repeats.spans, &same) || same.ID != decoded.ID || !same.Time.Equal(decoded.Time) {
		return
	}
	var calm any
	if p.options.Detector != nil {
		calm = p.options.Detector.Calm(d.OwnFields())
	}
	p.repeats.put(text, &repeat{decoder: d, system: s, activity: *decoded, calm: calm})
}
