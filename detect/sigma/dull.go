package sigma

import (
	"hash/maphash"
	"math"
	"math/bits"
	"slices"
	"strings"

	"github.com/valyala/fastjson"
)

// Machines do the same few things again and again, so most events differ from
// one that matched nothing only in what no rule reads: their IDs and times. Such
// an event is dull: it is known by a hash of all that the rules of its logsource
// read, and none of them is asked. What that costs does not depend on how many
// rules there are.
//
// Two events that differ share a hash once in 2⁶⁴, under a key that is drawn anew
// in every process, so that nobody can make one that hides behind another.

// The bounds of the hashes that are kept, a power of two each.
const (
	leastDull = 1 << 10
	mostDull  = 1 << 20
)

var dullSeed = maphash.MakeSeed()

// dull is a set that forgets: a new hash takes the place of another one.
type dull struct {
	slots []uint64
	n     int // that were added since it grew
}

func (d *dull) has(h uint64) bool {
	return len(d.slots) > 0 && d.slots[h&uint64(len(d.slots)-1)] == h
}

func (d *dull) add(h uint64) {
	if n := len(d.slots); 2*d.n >= n && n < mostDull {
		old := d.slots
		d.slots, d.n = make([]uint64, max(2*n, leastDull)), 0
		for _, h := range old {
			if h != 0 {
				d.slots[h&uint64(len(d.slots)-1)] = h
				d.n++
			}
		}
	}
	d.slots[h&uint64(len(d.slots)-1)] = h
	d.n++
}

// reads is what the rules of a plan read of an event.
type reads struct {
	all        bool // a keyword looks everywhere: no event is like another
	json       *below
	attributed []attributedRead
	identity   bool
}

// attributedRead is an attributed field. Where rules do nothing with a number but
// compare it, all that matters is between which of their bounds it lies.
type attributedRead struct {
	at     int
	bounds []float64
}

// below is what is read below a place in an event's JSON.
type below struct {
	whole bool     // whatever there is
	paths []string // what is read deeper
	kids  []kid    // by the keys that were seen, about in their order in an event
}

type kid struct {
	key   string
	hash  uint64
	below *below // nil when it is not read
}

// The bounds of the keys that are remembered, which come with the events, and of
// the keys and elements of an event that is looked at; a larger one is unusual
// anyway, and the rules are asked.
const (
	maxKids  = 128
	maxSteps = 1024
)

func (p *program) readsOf(made *plan, key planKey) *reads {
	r := &reads{json: new(below)}
	fields := map[int]*attributedRead{}
	var visit func(n *node)
	note := func(f int, t *test) {
		if f == unboundField {
			r.all = true
			return
		}
		known := fields[f]
		if known == nil {
			known = &attributedRead{at: p.fields[f].attr, bounds: []float64{}}
			fields[f] = known
		}
		switch {
		case t.kind == testExists || known.bounds == nil:
		case t.kind == testNumber && t.part == wholeNumber:
			known.bounds = append(known.bounds, t.numbers...)
		default:
			known.bounds = nil
		}
	}
	visit = func(n *node) {
		if n.test != nil {
			note(n.test.field, n.test)
			if n.test.kind == testField {
				note(n.test.other, n.test)
			}
		}
		for _, kid := range n.kids {
			visit(kid)
		}
	}
	for _, c := range p.rules {
		if key.any || c.rule.Logsource.asks(key.logsource) {
			visit(c.root)
		}
	}
	for f, known := range fields {
		switch known.at {
		case attrNone:
			r.json.paths = append(r.json.paths, p.fields[f].name)
			if alias := made.aliases[f]; alias != "" {
				r.json.paths = append(r.json.paths, alias)
			}
		case attrIdentity:
			r.identity = true
		default:
			slices.Sort(known.bounds)
			r.attributed = append(r.attributed, *known)
		}
	}
	slices.Sort(r.json.paths)
	slices.SortFunc(r.attributed, func(a, b attributedRead) int { return a.at - b.at })
	return r
}

// hashRead hashes what rules read of the event at hand; false when they may
// read all of it.
func (e *Engine) hashRead() (uint64, bool) {
	h := uint64(1)
	e.steps = 0
	for i := range e.ev.Views {
		p := e.planFor(e.ev, &e.ev.Views[i])
		r := e.reads[p]
		if r == nil || r.all {
			return 0, false
		}
		h = mixed(h, uint64(i))
		h = mixed(h, uint64(p.number))
		if json := e.ev.Views[i].JSON; json != nil {
			h = e.hashJSON(r.json, json, h)
		}
		for k := range r.attributed {
			a := &r.attributed[k]
			if a.at < len(e.ev.Attributed) {
				h = hashValue(&e.ev.Attributed[a.at], a.bounds, h)
			}
		}
		if r.identity {
			h = mixed(h, maphash.String(dullSeed, e.ev.Identity))
		}
	}
	return max(h, 1), e.steps <= maxSteps // 0 is a free slot
}

// mixed adds a word to a hash. What is to be kept from those who would make a
// collision went through maphash before.
func mixed(h, word uint64) uint64 {
	return (bits.RotateLeft64(h, 23) ^ word) * 0x9E3779B97F4A7C15
}

func hashValue(v *Value, bounds []float64, h uint64) uint64 {
	switch {
	case v.kind == valueAbsent:
		return mixed(h, 0)
	case v.kind == valueText:
		return mixed(h, maphash.String(dullSeed, v.text))
	case bounds == nil || math.IsNaN(v.number):
		return mixed(h, math.Float64bits(v.number))
	}
	at, met := 0, 0
	for at < len(bounds) && bounds[at] <= v.number {
		met = b2i(bounds[at] == v.number)
		at++
	}
	return mixed(h, uint64(2*at+met+1))
}

func (e *Engine) hashJSON(b *below, v *fastjson.Value, h uint64) uint64 {
	t := v.Type()
	h = mixed(h, uint64(t)+1)
	switch {
	case t == fastjson.TypeString:
		if b.whole {
			h = mixed(h, maphash.Bytes(dullSeed, v.GetStringBytes()))
		}
	case b.whole && t != fastjson.TypeTrue && t != fastjson.TypeFalse && t != fastjson.TypeNull:
		from := len(e.scratch)
		e.scratch = v.MarshalTo(e.scratch)
		h = mixed(h, maphash.Bytes(dullSeed, e.scratch[from:]))
		e.scratch = e.scratch[:from]
	case t == fastjson.TypeArray:
		for _, element := range v.GetArray() {
			if e.steps++; e.steps > maxSteps {
				return h
			}
			h = e.hashJSON(b, element, h)
		}
		h = mixed(h, 11)
	case t == fastjson.TypeObject:
		i := 0
		v.GetObject().Visit(func(key []byte, item *fastjson.Value) {
			if e.steps++; e.steps > maxSteps {
				return
			}
			var k kid
			if i < len(b.kids) && b.kids[i].key == string(key) {
				k = b.kids[i]
			} else {
				k = b.kid(i, key)
			}
			i++
			if k.below != nil {
				h = e.hashJSON(k.below, item, mixed(h, k.hash))
			}
		})
		h = mixed(h, 12)
	}
	return h
}

// kid is what is read below a key, which is the i-th of its object.
func (b *below) kid(i int, key []byte) kid {
	at := -1
	for j := range b.kids {
		if b.kids[j].key == string(key) {
			at = j
			break
		}
	}
	if at < 0 {
		k := kid{key: string(key)}
		next := new(below)
		for _, path := range b.paths {
			if rest, ok := strings.CutPrefix(path, k.key); !ok {
				continue
			} else if rest == "" {
				next.whole = true
			} else if rest[0] == '.' {
				next.paths = append(next.paths, rest[1:])
			}
		}
		if next.whole || len(next.paths) > 0 {
			k.hash, k.below = maphash.String(dullSeed, k.key), next
		}
		if len(b.kids) >= maxKids {
			return k
		}
		at = len(b.kids)
		b.kids = append(b.kids, k)
	}
	found := b.kids[at]
	if i < len(b.kids) && i < at { // where it will stand in the next event
		b.kids[i], b.kids[at] = b.kids[at], b.kids[i]
	}
	return found
}
