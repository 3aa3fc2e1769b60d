package sigma

import (
	"cmp"
	"slices"
)

// planKey is for what a plan is made.
type planKey struct {
	logsource Logsource
	any       bool
}

type cachedPlan struct {
	key  planKey
	plan *plan
}

// plan is how the rules of one logsource are found: by the values of a few
// fields, of which each rule needs one to match.
type plan struct {
	number  int      // of its program's
	aliases []string // by field; "" where there is none

	looked  []looked
	indexes []index
	rest    []int32 // rules that need no known value

	// roots are, by rule, the conditions without what an index has already
	// shown to hold; nil when nothing holds but by evaluating.
	roots []*node
}

// looked is a field whose values are looked up.
type looked struct {
	field    int
	symbols  map[string]uint32 // folded value → symbol
	presence bool              // whether being there is a symbol as well
}

// symbolPresent is the symbol of a field that is there.
const symbolPresent = 0

// index leads from the symbols of one or two looked fields to rules.
type index struct {
	a, b  int // places in plan.looked; b is -1 for an index by one field
	rules map[uint64][]int32
	every []int32 // all rules of an index by two fields
}

// maxSymbols is how many symbols of a field are combined with those of another
// before all rules are asked instead.
const maxSymbols = 64

func (e *Engine) planFor(ev *Event, v *View) *plan {
	key := planKey{logsource: v.logsource(), any: ev.Any}
	if ev.Any {
		key.logsource = Logsource{}
	}
	for i := range e.plans {
		if e.plans[i].key == key {
			return e.plans[i].plan
		}
	}
	p := e.p.planFor(key)
	if len(e.plans) < maxPlans {
		e.plans = append(e.plans, cachedPlan{key, p})
		e.reads[p] = e.p.readsOf(p, key)
	}
	return p
}

func (p *program) planFor(key planKey) *plan {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.plans[key]; known != nil {
		return known
	}
	made := p.newPlan(key)
	p.made++
	made.number = p.made
	if len(p.plans) < maxPlans {
		p.plans[key] = made
	}
	return made
}

// candidates evaluates the rules that may match the current view.
func (e *Engine) candidates() {
	p := e.plan
	e.visit++
	e.symbols, e.spans = e.symbols[:0], e.spans[:0]
	for i := range p.looked {
		l := &p.looked[i]
		from := int32(len(e.symbols))
		s := e.resolve(l.field)
		if s.present && l.presence {
			e.symbols = append(e.symbols, symbolPresent)
		}
		if len(l.symbols) > 0 {
			for j := s.from; j < s.to; j++ {
				v := &e.vals[j]
				if v.kind == valNull || v.kind == valObject {
					continue
				}
				if symbol, ok := l.symbols[e.lowOf(v)]; ok {
					e.symbols = append(e.symbols, symbol)
				}
				if v.canon != "" {
					if symbol, ok := l.symbols[v.canon]; ok {
						e.symbols = append(e.symbols, symbol)
					}
				}
			}
		}
		e.spans = append(e.spans, [2]int32{from, int32(len(e.symbols))})
	}
	for i := range p.indexes {
		e.lookUp(&p.indexes[i])
	}
	for _, rule := range p.rest {
		e.consider(rule, e.p.rules[rule].root)
	}
}

func (e *Engine) lookUp(x *index) {
	as := e.symbols[e.spans[x.a][0]:e.spans[x.a][1]]
	if x.b < 0 {
		for _, a := range as {
			for _, rule := range x.rules[uint64(a)] {
				e.consider(rule, e.plan.roots[rule])
			}
		}
		return
	}
	bs := e.symbols[e.spans[x.b][0]:e.spans[x.b][1]]
	if len(as) > maxSymbols && len(bs) > maxSymbols {
		for _, rule := range x.every {
			e.consider(rule, e.p.rules[rule].root)
		}
		return
	}
	for _, a := range as {
		for _, b := range bs {
			for _, rule := range x.rules[uint64(a)<<32|uint64(b)] {
				e.consider(rule, e.plan.roots[rule])
			}
		}
	}
}

// atom is a value that a field must have, or that it is there at all.
type atom struct {
	field   int
	present bool
	value   string // folded
}

// need is a set of atoms of which one holds whenever the rule matches.
type need []atom

// The bounds of what is kept of a condition's needs.
const (
	maxNeeds = 8
	maxAtoms = 4096
)

// needs returns sets of which each has an atom that holds whenever n does;
// none when n may hold without.
func (n *node) needs() []need {
	switch n.op {
	case opSelection:
		return n.test.needs()
	case opAnd:
		var all []need
		for _, kid := range n.kids {
			all = append(all, kid.needs()...)
		}
		return best(all)
	case opNot:
		if kid := n.kids[0]; kid.op == opNot {
			return kid.kids[0].needs()
		}
		return nil
	}
	// One of the kids holds. Needs on one and the same field are joined, for a
	// single field is looked up fastest; and the best of each.
	var joined map[int]need
	var mixed need
	full := false
	for i, kid := range n.kids {
		needs := kid.needs()
		if len(needs) == 0 {
			return nil
		}
		if full = full || len(mixed) > maxAtoms; !full {
			mixed = append(mixed, needs[0]...)
		}
		next := map[int]need{}
		for _, one := range needs {
			f, ok := one.single()
			if !ok || next[f] != nil {
				continue
			}
			if before, ok := joined[f]; (ok || i == 0) && len(before) <= maxAtoms {
				next[f] = append(before, one...)
			}
		}
		joined = next
	}
	var all []need
	if !full {
		all = append(all, mixed)
	}
	for _, one := range joined {
		all = append(all, one)
	}
	return best(all)
}

// best keeps the most selective needs, in that order.
func best(all []need) []need {
	kept := all[:0]
	for _, one := range all {
		slices.SortFunc(one, func(a, b atom) int {
			return cmp.Or(a.field-b.field, b2i(a.present)-b2i(b.present), cmp.Compare(a.value, b.value))
		})
		if one = slices.Compact(one); len(one) <= maxAtoms {
			kept = append(kept, one)
		}
	}
	slices.SortStableFunc(kept, func(a, b need) int {
		return cmp.Or(a.presences()-b.presences(), a.fields()-b.fields(), len(a)-len(b), slices.CompareFunc(a, b, func(a, b atom) int {
			return cmp.Or(a.field-b.field, cmp.Compare(a.value, b.value))
		}))
	})
	return kept[:min(len(kept), maxNeeds)]
}

func (n need) presences() int {
	count := 0
	for _, a := range n {
		count += b2i(a.present)
	}
	return count
}

func (n need) fields() int {
	count := 0
	for i, a := range n {
		count += b2i(i == 0 || a.field != n[i-1].field)
	}
	return count
}

// single returns the field of a need that speaks of values of one field only.
func (n need) single() (int, bool) {
	for _, a := range n {
		if a.field != n[0].field || a.present {
			return 0, false
		}
	}
	return n[0].field, len(n) > 0
}

func (t *test) needs() []need {
	switch {
	case t.field == unboundField, t.kind == testText && t.null, t.kind == testExists && !t.exists:
		return nil
	case t.kind != testText:
		return []need{{{field: t.field, present: true}}}
	}
	var values need
	for i := range t.patterns {
		if t.patterns[i].shape != exact {
			if t.all {
				continue
			}
			return []need{{{field: t.field, present: true}}}
		}
		values = append(values, atom{field: t.field, value: fold(t.patterns[i].text)})
	}
	if len(values) == 0 {
		return []need{{{field: t.field, present: true}}}
	}
	if !t.all {
		return best([]need{values})
	}
	var all []need
	for _, a := range values {
		all = append(all, need{a})
	}
	return best(all)
}

// longPosting is from how many rules with one value it pays to look at a
// second field, and maxPairs how many such pairs of fields a plan has.
const (
	longPosting = 4
	maxPairs    = 8
)

func (p *program) newPlan(key planKey) *plan {
	made := &plan{aliases: p.aliases(key)}
	var m planner
	m.of = map[int][]need{}
	for i, c := range p.rules {
		if !key.any && !c.rule.Logsource.asks(key.logsource) {
			continue
		}
		if needs := c.root.needs(); len(needs) > 0 {
			m.of[i] = needs
			m.rules = append(m.rules, i)
		} else {
			made.rest = append(made.rest, int32(i))
		}
	}
	m.choose()
	m.build(made)
	made.roots = make([]*node, len(p.rules))
	for _, rule := range m.rules {
		made.roots[rule] = p.rules[rule].root.without(m.chosen[rule], m.second[rule])
	}
	return made
}

// without returns n less the tests that say no more than one of the needs; nil
// when nothing is left to be asked.
func (n *node) without(needs ...need) *node {
	switch n.op {
	case opSelection:
		for _, one := range needs {
			if len(one) > 0 && n.test.isNeed(one) {
				return nil
			}
		}
		return n
	case opAnd:
		left := &node{op: opAnd, name: n.name}
		for _, kid := range n.kids {
			if kid = kid.without(needs...); kid != nil {
				left.kids = append(left.kids, kid)
			}
		}
		switch len(left.kids) {
		case 0:
			return nil
		case 1:
			return left.kids[0]
		}
		return left
	}
	return n
}

// isNeed says whether a test holds whenever one of the need's atoms does.
func (t *test) isNeed(one need) bool {
	if t.kind != testText || t.cased || t.all && len(t.patterns) > 1 || t.null {
		return false
	}
	for i := range t.patterns {
		if t.patterns[i].shape != exact {
			return false
		}
	}
	own := t.needs()
	return len(own) == 1 && slices.Equal(own[0], one)
}

func (p *program) aliases(key planKey) []string {
	aliases := make([]string, len(p.fields))
	if key.any {
		return aliases
	}
	weight := make([]int, len(p.fields))
	for l, paths := range p.options.Aliases {
		if !key.logsource.within(l) {
			continue
		}
		w := 1 + b2i(l.Product != "") + b2i(l.Service != "") + b2i(l.Category != "")
		for i, f := range p.fields {
			if path := paths[f.name]; path != "" && f.attr == attrNone && w > weight[i] {
				aliases[i], weight[i] = path, w
			}
		}
	}
	return aliases
}

// planner chooses by which of its needs each rule is found.
type planner struct {
	rules  []int
	of     map[int][]need
	chosen map[int]need
	second map[int]need // where two fields are looked at
}

func (m *planner) on(rule, field int) need {
	for _, one := range m.of[rule] {
		if f, ok := one.single(); ok && f == field {
			return one
		}
	}
	return nil
}

func (m *planner) choose() {
	m.chosen, m.second = map[int]need{}, map[int]need{}
	popular := map[atom]int{}
	fields := map[int][]int{} // by field: the rules that have a need on it alone
	for _, rule := range m.rules {
		for _, one := range m.of[rule] {
			for _, a := range one {
				popular[a]++
			}
			if f, ok := one.single(); ok {
				fields[f] = append(fields[f], rule)
			}
		}
	}
	// Field after field, the one first that tells the most rules apart.
	order := make([]int, 0, len(fields))
	for f := range fields {
		order = append(order, f)
	}
	slices.Sort(order)
	for len(order) > 0 {
		at, most := -1, 0.0
		for i, f := range order {
			score := 0.0
			for _, rule := range fields[f] {
				if one := m.on(rule, f); m.chosen[rule] == nil {
					sum := 0
					for _, a := range one {
						sum += popular[a]
					}
					score += float64(len(one)) / float64(sum)
				}
			}
			if score > most {
				at, most = i, score
			}
		}
		if at < 0 {
			break
		}
		for _, rule := range fields[order[at]] {
			if m.chosen[rule] == nil {
				m.chosen[rule] = m.on(rule, order[at])
			}
		}
		order = slices.Delete(order, at, at+1)
	}
	for _, rule := range m.rules {
		if m.chosen[rule] == nil {
			m.chosen[rule] = m.of[rule][0]
		}
	}
	m.pairs(popular)
}

// pairs gives rules that share their value with many others a second field.
func (m *planner) pairs(popular map[atom]int) {
	posting := map[atom]int{}
	for _, one := range m.chosen {
		for _, a := range one {
			posting[a]++
		}
	}
	type pair struct{ a, b int }
	wanted := map[pair][]int{}
	for _, rule := range m.rules {
		one := m.chosen[rule]
		f, ok := one.single()
		longest := 0
		for _, a := range one {
			longest = max(longest, posting[a])
		}
		if !ok || longest <= longPosting {
			continue
		}
		var second need
		least := 0
		for _, other := range m.of[rule] {
			g, ok := other.single()
			if !ok || g == f || len(one)*len(other) > 256 {
				continue
			}
			sum := 0
			for _, a := range other {
				sum += popular[a]
			}
			if second == nil || sum < least {
				second, least = other, sum
			}
		}
		if second != nil {
			p := pair{f, second[0].field}
			wanted[p] = append(wanted[p], rule)
			m.second[rule] = second
		}
	}
	pairs := make([]pair, 0, len(wanted))
	for p := range wanted {
		pairs = append(pairs, p)
	}
	slices.SortFunc(pairs, func(x, y pair) int {
		return cmp.Or(len(wanted[y])-len(wanted[x]), x.a-y.a, x.b-y.b)
	})
	for i, p := range pairs {
		if i >= maxPairs || len(wanted[p]) <= longPosting {
			for _, rule := range wanted[p] {
				delete(m.second, rule)
			}
		}
	}
}

// build fills a plan's indexes from what was chosen.
func (m *planner) build(made *plan) {
	places := map[int]int{}
	place := func(f int) int {
		if _, ok := places[f]; !ok {
			places[f] = len(made.looked)
			made.looked = append(made.looked, looked{field: f, symbols: map[string]uint32{}})
		}
		return places[f]
	}
	symbol := func(a atom) uint32 {
		l := &made.looked[place(a.field)]
		if a.present {
			l.presence = true
			return symbolPresent
		}
		if _, ok := l.symbols[a.value]; !ok {
			l.symbols[a.value] = uint32(len(l.symbols) + 1)
		}
		return l.symbols[a.value]
	}
	at := map[[2]int]int{}
	find := func(a, b int) *index {
		key := [2]int{a, b}
		if _, ok := at[key]; !ok {
			at[key] = len(made.indexes)
			made.indexes = append(made.indexes, index{a: a, b: b, rules: map[uint64][]int32{}})
		}
		return &made.indexes[at[key]]
	}
	for _, rule := range m.rules {
		id := int32(rule)
		if second := m.second[rule]; second != nil {
			one := m.chosen[rule]
			x := find(place(one[0].field), place(second[0].field))
			x.every = append(x.every, id)
			for _, a := range one {
				for _, b := range second {
					key := uint64(symbol(a))<<32 | uint64(symbol(b))
					x.rules[key] = append(x.rules[key], id)
				}
			}
			continue
		}
		for _, a := range m.chosen[rule] {
			x := find(place(a.field), -1)
			key := uint64(symbol(a))
			x.rules[key] = append(x.rules[key], id)
		}
	}
}
