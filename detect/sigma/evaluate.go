package sigma

import (
	"net/netip"
	"strings"
)

// holds evaluates a condition on the current view.
func (e *Engine) holds(n *node) bool {
	switch n.op {
	case opSelection:
		return e.test(n.test)
	case opAnd:
		for _, kid := range n.kids {
			if !e.holds(kid) {
				return false
			}
		}
		return true
	case opOr:
		for _, kid := range n.kids {
			if e.holds(kid) {
				return true
			}
		}
		return false
	case opNot:
		return !e.holds(n.kids[0])
	}
	left := n.n
	for i, kid := range n.kids {
		if len(n.kids)-i < left {
			return false
		}
		if e.holds(kid) {
			if left--; left == 0 {
				return true
			}
		}
	}
	return false
}

func (e *Engine) test(t *test) bool {
	s := e.resolve(t.field)
	if t.kind == testExists {
		return s.present == t.exists
	}
	vals := e.vals[s.from:s.to]
	switch t.kind {
	case testText:
		if t.null && nullIn(vals) {
			if !t.all || len(t.patterns) == 0 {
				return true
			}
		} else if t.null && t.all {
			return false
		}
		return e.testText(t, vals)
	case testRegexp:
		return every(t.all, len(t.exprs), func(i int) bool {
			for j := range vals {
				if vals[j].kind != valNull && t.exprs[i].MatchString(e.textOf(&vals[j])) {
					return true
				}
			}
			return false
		})
	case testCIDR:
		return every(t.all, len(t.networks), func(i int) bool {
			for j := range vals {
				if vals[j].kind == valText && inNetwork(t.networks[i], vals[j].text) {
					return true
				}
			}
			return false
		})
	case testNumber:
		return every(t.all, len(t.numbers), func(i int) bool {
			for j := range vals {
				if n, ok := numberOf(&vals[j], t.part); ok && t.compare.holds(n, t.numbers[i]) {
					return true
				}
			}
			return false
		})
	}
	return e.testField(t, s)
}

// every asks for one, or all, of n things.
func every(all bool, n int, met func(int) bool) bool {
	for i := range n {
		if met(i) != all {
			return !all
		}
	}
	return all
}

// nullIn says whether a field with these values counts as null: it is absent,
// empty, or has a null.
func nullIn(vals []val) bool {
	for i := range vals {
		if vals[i].kind == valNull {
			return true
		}
	}
	return len(vals) == 0
}

func (e *Engine) testText(t *test, vals []val) bool {
	if t.set != nil {
		for i := range vals {
			v := &vals[i]
			if v.kind == valNull || v.kind == valObject {
				continue
			}
			s := v.text
			if !t.cased {
				s = e.lowOf(v)
			}
			if _, ok := t.set[s]; ok {
				return true
			}
			if v.canon != "" {
				if _, ok := t.set[v.canon]; ok {
					return true
				}
			}
		}
		return false
	}
	for i := range t.patterns {
		met := false
		for j := range vals {
			if e.fits(t, i, &vals[j]) {
				met = true
				break
			}
		}
		if met != t.all {
			return !t.all
		}
	}
	return t.all && len(t.patterns) > 0
}

// fits matches one pattern with one value. An object is met only by patterns
// with wildcards, on its JSON, where a text may stand escaped.
func (e *Engine) fits(t *test, i int, v *val) bool {
	p := &t.patterns[i]
	if v.kind == valNull || v.kind == valObject && p.shape == exact {
		return false
	}
	if p.shape == anything {
		return true
	}
	s := ""
	if t.cased {
		s = e.textOf(v)
	} else {
		s = e.lowOf(v)
	}
	if p.match(s) || v.canon != "" && p.match(v.canon) {
		return true
	}
	return v.kind == valObject && t.escaped != nil && t.escaped[i].match(s)
}

func inNetwork(network netip.Prefix, s string) bool {
	if len(s) < 2 || len(s) > 45 || strings.IndexByte(s, '%') >= 0 {
		return false
	}
	for i := 0; i < len(s); i++ { // a cheap look, for a failure to parse allocates
		c := s[i] | 0x20
		if (s[i] < '0' || s[i] > '9') && (c < 'a' || c > 'f') && s[i] != '.' && s[i] != ':' {
			return false
		}
	}
	addr, err := netip.ParseAddr(s)
	return err == nil && network.Contains(addr.Unmap())
}

func (o op2) holds(a, b float64) bool {
	switch o {
	case compareGt:
		return a > b
	case compareGte:
		return a >= b
	case compareLt:
		return a < b
	case compareLte:
		return a <= b
	}
	return a == b
}

// numberOf returns the number that a value is, or a part of the time that it is.
func numberOf(v *val, part timePart) (float64, bool) {
	if v.kind != valText && v.kind != valNumber {
		return 0, false
	}
	if part != wholeNumber {
		return part.of(v.text, v.kind == valNumber)
	}
	return parseNumber(v.text)
}

// maxCompared is how many values of a field are compared with those of
// another; with more of both, the time would grow with their product.
const maxCompared = 256

// testField compares the values of two fields, any with any.
func (e *Engine) testField(t *test, s slot) bool {
	other := e.resolve(t.other)
	for i := s.from; i < min(s.to, s.from+maxCompared); i++ {
		for j := other.from; j < min(other.to, other.from+maxCompared); j++ {
			a, b := &e.vals[i], &e.vals[j]
			if a.kind == valNull || a.kind == valObject || b.kind == valNull || b.kind == valObject {
				continue
			}
			x, y := a.text, b.text
			if !t.cased {
				x, y = e.lowOf(a), e.lowOf(b)
			}
			p := pattern{shape: t.shape, text: y}
			if p.match(x) {
				return true
			}
		}
	}
	return false
}
