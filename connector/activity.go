package connector

import (
	"encoding/binary"

	"github.com/valyala/fastjson"

	"remit"
)

// Source is one kind of audit events that a connector understands.
type Source struct {
	Name      string // as users name it: "kubernetes", "aws-cloudtrail"
	Title     string // "AWS CloudTrail"
	Connector string // the first part of the identity of its systems: "aws"

	// Product and Service are Sigma's logsource of such events.
	Product, Service string
}

// Decoder reads the raw audit events of one source. A decoder has no state and
// is safe for concurrent use; whatever it is given is data from outside, which
// it may refuse but must not choke on.
type Decoder interface {
	Source() Source

	// Recognizes says whether a raw event, or a document of several, is of
	// this source, from a few fields that no other source has.
	Recognizes(v *fastjson.Value) bool

	// Split returns the raw events inside v, or v alone when it is one event:
	// the items of an EventList, the Records of a CloudTrail file. A raw event
	// keeps the wrapping that tells its system apart (a log entry around a
	// Kubernetes event); a list does not.
	Split(v *fastjson.Value) []*fastjson.Value

	// Decode fills e, which is empty but for its Views' capacity, from one raw
	// event. Strings come from the interner, so that nothing in e.Activity
	// refers to v, whose memory is reused; Views do refer to it. An event that
	// lacks a field leaves it zero. An [remit.Invalid] error says what is
	// wrong with an event of which nothing can be made; [ErrIgnored] that it
	// is of no interest (the first of two stages of one request).
	Decode(v *fastjson.Value, in *Interner, e *Event) error

	// Strip removes token material and other secrets from a raw event, in
	// place, and says whether it changed anything. What is taken out becomes
	// the string "stripped", so that its place can still be seen.
	Strip(v *fastjson.Value, arena *fastjson.Arena) bool
}

// Event is one raw event and what was read from it.
type Event struct {
	remit.Activity

	// Views are the event as rules see it: the raw event under its source's
	// logsource and, where its platform wraps another system's event, that
	// one in its own form too. Valid until the parser is used again.
	Views []View
}

// View is an event in the form that rules for one logsource expect.
type View struct {
	Product, Service string
	JSON             *fastjson.Value
}

// Reset empties e for the next event and keeps its memory.
func (e *Event) Reset() {
	views := e.Views[:0]
	chain := e.Chain[:0:0] // the former one may have been kept
	*e = Event{Views: views}
	e.Chain = chain
}

// ErrIgnored is what Decode returns for an event that counts for nothing.
var ErrIgnored = remit.Errorf(remit.Invalid, "", "the event is of no interest")

// Stripped stands in raw events where a secret was.
const Stripped = "stripped"

// Interner gives one string for equal bytes, so that decoding the names that
// come again and again in a log allocates nothing. Equal strings that it gave
// share their memory most of the time, which makes comparing them cheap. Not
// safe for concurrent use.
type Interner struct {
	known  map[string]string
	bytes  int
	recent [1 << recentBits]string // by a hash that is cheaper than the map's

	reads map[string]any // see Remember
	held  int
}

// The bounds of an interner: what is longer is copied, and when it is full it
// forgets everything, which costs no more than the first filling did. A large
// cluster has 100,000 pods, each with some strings of its own.
const (
	internLongest = 256
	internBytes   = 48 << 20
	readsBytes    = 48 << 20
	recentBits    = 12
)

// String returns b as a string that does not refer to b's memory.
func (in *Interner) String(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	slot := &in.recent[endsHash(b)>>(64-recentBits)]
	if *slot == string(b) {
		return *slot
	}
	if s, ok := in.known[string(b)]; ok {
		*slot = s
		return s
	}
	s := string(b)
	if len(s) > internLongest {
		return s
	}
	if in.known == nil || in.bytes > internBytes {
		in.known, in.bytes = make(map[string]string, 1024), 0
	}
	in.known[s] = s
	in.bytes += len(s) + 64
	*slot = s
	return s
}

// endsHash mixes the length, the first and the last eight bytes: names in a log
// differ at their ends.
func endsHash(b []byte) uint64 {
	const multiplier = 0x9E3779B97F4A7C15
	n := len(b)
	if n < 8 {
		var h uint64
		for _, c := range b {
			h = h<<8 | uint64(c)
		}
		return (h ^ uint64(n)<<56) * multiplier
	}
	h := binary.LittleEndian.Uint64(b)*multiplier ^ binary.LittleEndian.Uint64(b[n-8:]) ^ uint64(n)
	h ^= h >> 29
	return h * multiplier
}

// Remember returns what was read from these bytes before, or what read makes of
// them now: a decoder that finds the same caller in event after event reads him
// once. Decoders share it, so key begins with what tells theirs apart. What is
// remembered is forgotten now and then, and takes about size bytes beside key.
func (in *Interner) Remember(key []byte, size int, read func() any) any {
	if known, ok := in.reads[string(key)]; ok {
		return known
	}
	if in.reads == nil || in.held > readsBytes {
		in.reads, in.held = make(map[string]any, 1024), 0
	}
	made := read()
	in.reads[string(key)] = made
	in.held += len(key) + size + 64
	return made
}

// Get returns the string at the path in v, "" when there is none.
func (in *Interner) Get(v *fastjson.Value, path ...string) string {
	return in.String(v.GetStringBytes(path...))
}
