package sigma

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"remit"
)

// Options are what rules are compiled for.
type Options struct {
	// Attributed are the names of the fields whose values [Event.Attributed]
	// has; all begin with "remit.".
	Attributed []string

	// Aliases give the path in the raw JSON of a field that rules call
	// otherwise, for the events of a logsource; an empty part of the logsource
	// is met by any, and the more parts are given, the more it counts. Of several
	// paths, with a space between them, all count. The field's own name is tried
	// when there is nothing at the path.
	Aliases map[Logsource]map[string]string

	// Placeholders are the values of the expand modifier's placeholders, by
	// their names without the percent signs.
	Placeholders map[string][]string

	// MaxState is how many events and groups correlations may remember
	// together, in one engine; 0 means 200,000. Beyond it the group that was
	// touched least recently is dropped, and counted.
	MaxState int
}

// Unsupported is a rule that is not, or not wholly, evaluated, with the reason.
type Unsupported struct {
	Rule   *Rule
	Reason string
}

// compiled is a rule as the engine runs it.
type compiled struct {
	rule  *Rule
	root  *node
	emits bool   // on its own, and not only for correlations
	feeds []feed // the correlations that refer to it
}

// program is what all clones of an engine share.
type program struct {
	options    Options
	fields     []field
	rules      []*compiled
	correlated []*correlator // in an order in which each follows those it refers to
	all        []*Rule

	mu    sync.Mutex
	plans map[planKey]*plan
	made  int // plans, of which not all are kept
}

// Engine matches events. It is not safe for concurrent use: [Engine.Clone] one
// for each goroutine.
type Engine struct {
	p *program

	// Of the event at hand.
	ev      *Event
	event   uint64 // counts events
	view    int
	plan    *plan
	vals    []val
	scratch []byte
	slots   []slot

	plans    []cachedPlan
	reads    map[*plan]*reads // of those plans
	dull     dull
	steps    int // of hashing what is read
	symbols  []uint32
	spans    [][2]int32
	asked    []uint64 // by rule: the view for which it was a candidate
	visit    uint64   // counts views
	hits     []hit
	firings  []firing
	groupKey []byte

	state *state
}

// hit is a rule that matched in a view.
type hit struct{ rule, view int }

// maxPlans is how many plans are kept; logsources are few, but their names come
// with the events.
const maxPlans = 256

// Compile joins rules into one engine. Rules that cannot be evaluated are
// returned with their reasons and left out; so are rules that another one, later
// in the list, replaces by having the same ID.
func Compile(rules []*Rule, o Options) (*Engine, []Unsupported) {
	if o.MaxState <= 0 {
		o.MaxState = 200_000
	}
	c := compiler{
		p:     &program{options: o, fields: []field{{name: "", attr: attrNone}}, plans: map[planKey]*plan{}},
		ids:   map[string]int{"": unboundField},
		attrs: map[string]int{},
		byRef: map[string]*Rule{},
	}
	for i, name := range o.Attributed {
		c.attrs[name] = i
	}
	if _, ok := c.attrs["remit.identity"]; !ok {
		c.attrs["remit.identity"] = attrIdentity
	}
	c.compile(rules)
	e := &Engine{p: c.p}
	return e.Clone(), c.unsupported
}

// Clone returns an engine with the same rules and no correlation state.
func (e *Engine) Clone() *Engine {
	return &Engine{p: e.p, reads: make(map[*plan]*reads), asked: make([]uint64, len(e.p.rules)), state: newState(e.p)}
}

// Rules returns the rules that are evaluated, in the order in which they were
// given; filters are among them when they apply to one.
func (e *Engine) Rules() []*Rule { return slices.Clone(e.p.all) }

// RulesFor returns the detection rules that are asked about events of a
// logsource.
func (e *Engine) RulesFor(l Logsource) []*Rule {
	var rules []*Rule
	for _, c := range e.p.rules {
		if c.rule.Logsource.asks(l) {
			rules = append(rules, c.rule)
		}
	}
	return rules
}

type compiler struct {
	p           *program
	ids         map[string]int // field name → place
	attrs       map[string]int
	byRef       map[string]*Rule // by ID and by name
	unsupported []Unsupported
}

func (c *compiler) refuse(r *Rule, format string, args ...any) {
	c.unsupported = append(c.unsupported, Unsupported{Rule: r, Reason: fmt.Sprintf(format, args...)})
}

// The bounds of a field's name.
const (
	maxFieldName = 1024
	maxFieldKeys = 64
)

func (c *compiler) field(name string) (int, error) {
	if id, ok := c.ids[name]; ok {
		return id, nil
	}
	f := field{name: name, attr: attrNone}
	if len(name) > maxFieldName || strings.Count(name, ".") > maxFieldKeys {
		return 0, fmt.Errorf("the field's name is longer than %d bytes or %d keys", maxFieldName, maxFieldKeys)
	}
	if strings.HasPrefix(name, "remit.") {
		at, ok := c.attrs[name]
		if !ok {
			return 0, fmt.Errorf("no field %q: there are %s", clip(name), strings.Join(c.p.options.Attributed, ", "))
		}
		f.attr = at
	}
	id := len(c.p.fields)
	c.p.fields = append(c.p.fields, f)
	c.ids[name] = id
	return id, nil
}

func (c *compiler) compile(rules []*Rule) {
	lastWithID := map[string]*Rule{}
	for _, r := range rules {
		if r.ID != "" {
			lastWithID[r.ID] = r
		}
	}
	var kept, filters, correlations []*Rule
	for _, r := range rules {
		if by := lastWithID[r.ID]; r.ID != "" && by != r {
			c.refuse(r, "%s has the same id and replaces it", at(by.Path, by.Line))
			continue
		}
		for _, ref := range []string{r.ID, r.Name} {
			if ref != "" {
				c.byRef[ref] = r
			}
		}
		switch kept = append(kept, r); r.Kind {
		case Filter:
			filters = append(filters, r)
		case Correlation:
			correlations = append(correlations, r)
		}
	}

	filtered := c.filters(filters)
	places := map[*Rule]int{}
	for _, r := range kept {
		if r.Kind != Detection {
			continue
		}
		root, err := c.builder(r).detection(r.detection)
		if err != nil {
			c.refuse(r, "%v", reason(err))
			continue
		}
		root = c.filtered(r, root, filtered)
		root.order()
		places[r] = len(c.p.rules)
		c.p.rules = append(c.p.rules, &compiled{rule: r, root: root, emits: true})
	}
	for _, f := range filtered {
		if f.used {
			places[f.rule] = -1
		} else {
			c.refuse(f.rule, "no rule of its logsource (%s) that it names is loaded", f.rule.Logsource)
		}
	}
	c.correlations(correlations, places)
	for _, r := range kept {
		if _, ok := places[r]; ok {
			c.p.all = append(c.p.all, r)
		}
	}
}

// reason is an error's text without the place that the rule has anyway.
func reason(err error) error {
	var e *remit.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

func (c *compiler) builder(r *Rule) *builder {
	return &builder{rule: r, field: c.field, placeholders: c.p.options.Placeholders}
}

// usableFilter is a filter that could be compiled.
type usableFilter struct {
	rule *Rule
	root *node // holds for what stays
	used bool
}

func (c *compiler) filters(rules []*Rule) []*usableFilter {
	var all []*usableFilter
	for _, r := range rules {
		root, err := c.builder(r).detection(r.filter.detection)
		if err != nil {
			c.refuse(r, "%v", reason(err))
			continue
		}
		// The specification's condition says what to take out. Converters join
		// the condition to the rule's instead, so that filters written for them
		// begin with "not" and say what stays.
		if root.op != opNot {
			root = &node{op: opNot, kids: []*node{root}}
		}
		all = append(all, &usableFilter{rule: r, root: root})
	}
	return all
}

func (c *compiler) filtered(r *Rule, root *node, filters []*usableFilter) *node {
	all := &node{op: opAnd, kids: []*node{root}}
	for _, f := range filters {
		names := f.rule.filter.rules
		named := len(names) == 0 || r.ID != "" && slices.Contains(names, r.ID) || r.Name != "" && slices.Contains(names, r.Name)
		if named && r.Logsource.within(f.rule.Logsource) {
			f.used = true
			all.kids = append(all.kids, f.root)
		}
	}
	if len(all.kids) == 1 {
		return root
	}
	return all
}

// cost is how dear a node is to evaluate, for the order among its siblings.
func (n *node) cost() int {
	if n.op != opSelection {
		sum := 0
		for _, kid := range n.kids {
			sum = min(sum+kid.cost(), 1<<20)
		}
		return sum
	}
	switch t := n.test; {
	case t.field == unboundField:
		return 1000
	case t.kind == testRegexp:
		return 100 * len(t.exprs)
	case t.kind != testText:
		return 10
	case t.set != nil:
		return 2
	default:
		return 1 + len(t.patterns)
	}
}

// order puts what is cheap first; that does not change what holds.
func (n *node) order() {
	seen := map[*node]bool{}
	var visit func(*node)
	visit = func(n *node) {
		if seen[n] || len(n.kids) == 0 {
			return
		}
		seen[n] = true
		for _, kid := range n.kids {
			visit(kid)
		}
		if n.op != opNot {
			slices.SortStableFunc(n.kids, func(a, b *node) int { return a.cost() - b.cost() })
		}
	}
	visit(n)
}

// Match appends the rules that match the event to found and returns it: rules
// in the order in which they were compiled, then correlations. An event takes
// no memory of its own unless a correlation counts it.
func (e *Engine) Match(ev *Event, found []Match) []Match {
	e.begin(ev)
	read, ok := uint64(0), false
	if !ev.Any {
		if read, ok = e.hashRead(); ok && e.dull.has(read) {
			e.end()
			return found
		}
	}
	for i := range ev.Views {
		e.view = i
		e.plan = e.planFor(ev, &ev.Views[i])
		e.candidates()
	}
	if ok && len(e.hits) == 0 {
		e.dull.add(read)
	}
	if len(e.hits) > 1 {
		slices.SortFunc(e.hits, func(a, b hit) int { return a.rule - b.rule })
	}
	feeds := false
	for _, h := range e.hits {
		c := e.p.rules[h.rule]
		if c.emits {
			found = append(found, Match{Rule: c.rule, View: h.view})
		}
		feeds = feeds || len(c.feeds) > 0
	}
	if feeds {
		found = e.correlate(found)
	}
	e.end()
	return found
}

func (e *Engine) begin(ev *Event) {
	e.ev = ev
	e.event++
	e.vals, e.scratch, e.hits = e.vals[:0], e.scratch[:0], e.hits[:0]
	if n := len(ev.Views) * len(e.p.fields); len(e.slots) < n {
		e.slots = make([]slot, n)
	}
}

// end forgets the event, and memory that an unusual one took.
func (e *Engine) end() {
	e.ev = nil
	if cap(e.scratch) > maxScratch {
		e.scratch = nil
	}
	if cap(e.vals) > maxScratch/64 {
		e.vals = nil
	}
	if cap(e.symbols) > maxScratch/4 {
		e.symbols = nil
	}
}

// consider evaluates a rule in the current view, once, by what of its condition
// is still to be asked.
func (e *Engine) consider(rule int32, root *node) {
	if e.asked[rule] == e.visit {
		return
	}
	e.asked[rule] = e.visit
	if root != nil && !e.holds(root) {
		return
	}
	if e.view > 0 {
		for _, h := range e.hits {
			if h.rule == int(rule) {
				return
			}
		}
	}
	e.hits = append(e.hits, hit{rule: int(rule), view: e.view})
}
