package connector

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"slices"
	"time"

	"remit"
)

// Round is a poller's position in a log that lists events by their time, and
// in which an event may appear a while after its time. The log is read in
// rounds: each from Since to the present, the next from a look-back before the
// end of this one. What was handed out in the look-back is not handed out
// again, as far as Handed remembers it.
type Round struct {
	// Since is where the round begins; it never goes back.
	Since time.Time `json:"since"`

	// Began is when the round's first answer was made, by the system's clock;
	// zero before that. Events that appear while a long round is under way
	// have times of then, not of the round's end.
	Began time.Time `json:"began,omitzero"`

	// Newest is the time of the newest event that was handed out.
	Newest time.Time `json:"newest,omitzero"`

	Handed Handed `json:"handed,omitzero"`
}

// RawEvent is one raw event and its time, zero when it has none.
type RawEvent struct {
	Time time.Time
	JSON []byte
}

// Answered tells the round when an answer was made.
func (r *Round) Answered(at time.Time) {
	if r.Began.IsZero() {
		r.Began = at
	}
}

// Emit hands out those of the events that were not handed out yet, in their
// order, as arrays of at most a few hundred. With emit's error the round knows
// what emit had taken before.
func (r *Round) Emit(events []RawEvent, emit func(raw []byte) error) error {
	const together = 500
	fresh := make([]RawEvent, 0, min(len(events), together))
	for len(events) > 0 {
		fresh = fresh[:0]
		for len(events) > 0 && len(fresh) < together {
			if !r.Handed.has(events[0]) {
				fresh = append(fresh, events[0])
			}
			events = events[1:]
		}
		if len(fresh) == 0 {
			return nil
		}
		if err := emit(array(fresh)); err != nil {
			return err
		}
		r.Handed.add(fresh)
		for _, e := range fresh {
			if e.Time.After(r.Newest) {
				r.Newest = e.Time
			}
		}
	}
	return nil
}

func array(events []RawEvent) []byte {
	b := []byte{'['}
	for i, e := range events {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, e.JSON...)
	}
	return append(b, ']')
}

// Again begins the next round: lookBack before the newest event, or before
// this round began where that is earlier.
func (r *Round) Again(lookBack time.Duration) {
	end := r.Newest
	if !r.Began.IsZero() && r.Began.Before(end) {
		end = r.Began
	}
	if since := end.Add(-lookBack).UTC().Truncate(time.Second); !end.IsZero() && since.After(r.Since) {
		r.Since = since
	}
	r.Began = time.Time{}
	r.Handed.forget(r.Since)
}

// Handed remembers the latest events that were handed out, by a hash and their
// time. It forgets the oldest first: what it forgot may be handed out twice.
type Handed struct{ events map[[8]byte]uint32 }

// handedMost is how many events are remembered, at 16 bytes of a position each.
const handedMost = 1024

// hash is of the event's bytes, so that one that the system has changed since
// is another. It is of SHA-256: nobody can make an event that hides another.
func (e RawEvent) hash() (h [8]byte) {
	sum := sha256.Sum256(e.JSON)
	copy(h[:], sum[:])
	return h
}

// seconds fit until 2106; times outside are those of no real event.
func (e RawEvent) seconds() uint32 {
	return uint32(min(max(e.Time.Unix(), 0), math.MaxUint32))
}

func (h *Handed) has(e RawEvent) bool {
	_, ok := h.events[e.hash()]
	return ok
}

func (h *Handed) add(events []RawEvent) {
	if h.events == nil {
		h.events = make(map[[8]byte]uint32, len(events))
	}
	for _, e := range events {
		h.events[e.hash()] = e.seconds()
	}
	if len(h.events) > handedMost {
		for _, one := range h.sorted()[handedMost:] {
			delete(h.events, one.hash)
		}
	}
}

// forget forgets the events before a time.
func (h *Handed) forget(before time.Time) {
	limit := RawEvent{Time: before}.seconds()
	for hash, at := range h.events {
		if at < limit {
			delete(h.events, hash)
		}
	}
}

type handedEvent struct {
	hash [8]byte
	at   uint32
}

// sorted returns the events, the newest first.
func (h *Handed) sorted() []handedEvent {
	all := make([]handedEvent, 0, len(h.events))
	for hash, at := range h.events {
		all = append(all, handedEvent{hash, at})
	}
	slices.SortFunc(all, func(a, b handedEvent) int {
		return cmp.Or(cmp.Compare(b.at, a.at), bytes.Compare(a.hash[:], b.hash[:]))
	})
	return all
}

// IsZero says whether nothing is remembered.
func (h Handed) IsZero() bool { return len(h.events) == 0 }

// MarshalText writes 12 bytes an event, the time in seconds and the hash, in
// base64.
func (h Handed) MarshalText() ([]byte, error) {
	var b []byte
	for _, one := range h.sorted() {
		b = append(binary.BigEndian.AppendUint32(b, one.at), one.hash[:]...)
	}
	return base64.RawStdEncoding.AppendEncode(nil, b), nil
}

// UnmarshalText reads what MarshalText wrote.
func (h *Handed) UnmarshalText(text []byte) error {
	b, err := base64.RawStdEncoding.AppendDecode(nil, text)
	if err != nil || len(b)%12 != 0 || len(b)/12 > handedMost {
		return errors.New("it is no list of events that were handed out")
	}
	h.events = make(map[[8]byte]uint32, len(b)/12)
	for ; len(b) > 0; b = b[12:] {
		h.events[[8]byte(b[4:12])] = binary.BigEndian.Uint32(b)
	}
	return nil
}

// ReadPosition reads a position that is not empty into a struct. What the
// struct has no field for is refused: it is the position of another poller, or
// of a version that knew more. Errors are [remit.Invalid].
func ReadPosition(op string, position []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(position))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	if err == nil {
		if _, more := decoder.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows it")
		}
	}
	if err != nil {
		return remit.Errorf(remit.Invalid, op, "the stored position cannot be read: %w", err)
	}
	return nil
}

// WritePosition is the counterpart of [ReadPosition].
func WritePosition(position any) []byte {
	b, err := json.Marshal(position)
	if err != nil {
		panic("a position is made of what JSON can hold: " + err.Error())
	}
	return b
}

// SplitArray returns the values in a JSON array, as they are written; nil and
// false when it is none.
func SplitArray(document []byte) ([]json.RawMessage, bool) {
	var values []json.RawMessage
	if trimmed := bytes.TrimLeft(document, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '[' || json.Unmarshal(document, &values) != nil {
		return nil, false
	}
	return values, true
}
