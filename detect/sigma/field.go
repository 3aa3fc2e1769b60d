package sigma

import (
	"strings"
	"unsafe"

	"github.com/valyala/fastjson"
)

// field is a field that some rule names.
type field struct {
	name string
	attr int // place in Event.Attributed, attrNone or attrIdentity
}

const (
	attrNone     = -1
	attrIdentity = -2
)

// The field of keywords: the whole event.
const unboundField = 0

// val is one value that a field has in an event.
type val struct {
	kind  valKind
	isLow bool
	text  string
	low   string // text folded, once isLow
	canon string // of a number, where that is not text
	json  *fastjson.Value
}

type valKind uint8

const (
	valNull valKind = iota
	valText
	valNumber
	valObject // text is its JSON, made when it is asked for
)

// slot is what is known of one field in one view: its values are
// Engine.vals[from:to].
type slot struct {
	event    uint64 // of which it is known
	present  bool
	from, to int32
}

// maxScratch is how much memory an engine keeps from one event to the next.
const maxScratch = 1 << 20

// resolve finds the values of a field in the current view, once an event.
func (e *Engine) resolve(f int) slot {
	s := &e.slots[e.view*len(e.p.fields)+f]
	if s.event == e.event {
		return *s
	}
	*s = slot{event: e.event, from: int32(len(e.vals))}
	switch at := e.p.fields[f].attr; {
	case at == attrIdentity:
		if e.ev.Identity != "" {
			e.vals = append(e.vals, val{kind: valText, text: e.ev.Identity})
			s.present = true
		}
	case at >= 0:
		if at < len(e.ev.Attributed) {
			s.present = e.attributed(e.ev.Attributed[at])
		}
	default:
		root := e.ev.Views[e.view].JSON
		if root == nil {
			break
		}
		if f == unboundField {
			e.vals = append(e.vals, val{kind: valObject, json: root})
			s.present = true
			break
		}
		if alias := e.plan.aliases[f]; alias != "" {
			for path := range strings.SplitSeq(alias, " ") {
				s.present = e.walk(root, path) || s.present
			}
		}
		if !s.present {
			s.present = e.walk(root, e.p.fields[f].name)
		}
	}
	s.to = int32(len(e.vals))
	return *s
}

func (e *Engine) attributed(v Value) bool {
	switch v.kind {
	case valueText:
		e.vals = append(e.vals, val{kind: valText, text: v.text})
	case valueNumber:
		from := len(e.scratch)
		e.scratch = appendNumber(e.scratch, v.number)
		e.vals = append(e.vals, val{kind: valNumber, text: text(e.scratch[from:])})
	default:
		return false
	}
	return true
}

// walk collects the values at a dotted path below v and says whether there is
// anything. An element of an array counts as the array; of the ways to cut the
// path into keys, the one with the longest first key that leads somewhere is
// taken, for keys may hold dots themselves. Each object is entered at most
// once, so that this is linear in the event.
func (e *Engine) walk(v *fastjson.Value, path string) bool {
	switch v.Type() {
	case fastjson.TypeArray:
		found := false
		for _, element := range v.GetArray() {
			found = e.walk(element, path) || found
		}
		return found
	case fastjson.TypeObject:
		object := v.GetObject()
		for end := len(path); end > 0; end = strings.LastIndexByte(path[:end], '.') {
			kid := object.Get(path[:end])
			switch {
			case kid == nil:
			case end == len(path):
				e.collect(kid)
				return true
			case e.walk(kid, path[end+1:]):
				return true
			}
		}
	}
	return false
}

func (e *Engine) collect(v *fastjson.Value) {
	switch v.Type() {
	case fastjson.TypeArray:
		for _, element := range v.GetArray() {
			e.collect(element)
		}
	case fastjson.TypeObject:
		e.vals = append(e.vals, val{kind: valObject, json: v})
	case fastjson.TypeString:
		e.vals = append(e.vals, val{kind: valText, text: text(v.GetStringBytes())})
	case fastjson.TypeNumber:
		from := len(e.scratch)
		e.scratch = v.MarshalTo(e.scratch)
		literal := text(e.scratch[from:])
		n := val{kind: valNumber, text: literal}
		if !plainInteger(literal) {
			if f, ok := parseNumber(literal); ok {
				from = len(e.scratch)
				e.scratch = appendNumber(e.scratch, f)
				n.canon = text(e.scratch[from:])
			}
		}
		e.vals = append(e.vals, n)
	case fastjson.TypeTrue:
		e.vals = append(e.vals, val{kind: valText, text: "true"})
	case fastjson.TypeFalse:
		e.vals = append(e.vals, val{kind: valText, text: "false"})
	default:
		e.vals = append(e.vals, val{kind: valNull})
	}
}

// text is b as a string that shares its memory. What it is used on, the event
// and the engine's scratch memory, is not written while the event is matched.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// lowOf returns a value's text folded.
func (e *Engine) lowOf(v *val) string {
	if !v.isLow {
		v.isLow = true
		v.low = e.textOf(v)
		if !folded(v.low) {
			from := len(e.scratch)
			e.scratch = appendFold(e.scratch, v.low)
			v.low = text(e.scratch[from:])
		}
	}
	return v.low
}

// textOf returns a value's text, which for an object is its JSON.
func (e *Engine) textOf(v *val) string {
	if v.kind == valObject && v.text == "" {
		from := len(e.scratch)
		e.scratch = v.json.MarshalTo(e.scratch)
		v.text = text(e.scratch[from:])
	}
	return v.text
}
