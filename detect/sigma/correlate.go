package sigma

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
	"time"
)

// feed is a rule's part in a correlation: its place among the rules of it.
type feed struct{ correlator, part int }

// firing is a part of a correlation that the event at hand met.
type firing struct{ correlator, part, view int }

// correlator is a compiled correlation.
type correlator struct {
	rule  *Rule
	spec  *correlation
	emits bool
	feeds []feed

	span   int64   // nanoseconds
	group  [][]int // by part: the fields of group-by
	values [][]int // by part: the fields whose values count
	limit  int     // how many entries are enough to know whether the condition holds
	key    string  // the same in each process that has the same correlation
}

// correlations compiles correlations in an order in which each follows those
// that it refers to.
func (c *compiler) correlations(rules []*Rule, places map[*Rule]int) {
	at := map[*Rule]int{}
	generates := map[*Rule]bool{}
	referred := map[*Rule]bool{}
	for progress := true; progress; {
		progress = false
		var waiting []*Rule
		for _, r := range rules {
			if !c.ready(r, places, at) {
				waiting = append(waiting, r)
				continue
			}
			progress = true
			made, err := c.correlator(r)
			if err != nil {
				c.refuse(r, "%v", err)
				continue
			}
			id := len(c.p.correlated)
			at[r], places[r] = id, -1
			c.p.correlated = append(c.p.correlated, made)
			for part, ref := range r.correlation.rules {
				to := c.byRef[ref]
				referred[to] = true
				generates[to] = generates[to] || r.correlation.generate
				if inner, ok := at[to]; ok {
					c.p.correlated[inner].feeds = append(c.p.correlated[inner].feeds, feed{id, part})
				} else {
					one := c.p.rules[places[to]]
					one.feeds = append(one.feeds, feed{id, part})
				}
			}
		}
		rules = waiting
	}
	for _, r := range rules {
		c.refuse(r, "%s", c.missing(r, places, at))
	}
	for r := range referred {
		emits := generates[r]
		if id, ok := at[r]; ok {
			c.p.correlated[id].emits = emits
		} else {
			c.p.rules[places[r]].emits = emits
		}
	}
}

// ready says whether all that a correlation refers to is compiled.
func (c *compiler) ready(r *Rule, places, at map[*Rule]int) bool {
	for _, ref := range r.correlation.rules {
		to := c.byRef[ref]
		if to == nil {
			return false
		}
		place, placed := places[to]
		_, correlated := at[to]
		if !correlated && (!placed || place < 0) {
			return false
		}
	}
	return true
}

func (c *compiler) missing(r *Rule, places, at map[*Rule]int) string {
	for _, ref := range r.correlation.rules {
		to := c.byRef[ref]
		if to == nil {
			return fmt.Sprintf("refers to the rule %q, which is not loaded", clip(ref))
		}
		_, placed := places[to]
		_, correlated := at[to]
		switch {
		case to.Kind == Filter:
			return fmt.Sprintf("refers to %q, which is a filter", clip(ref))
		case !placed && !correlated:
			return fmt.Sprintf("refers to %q, which is not evaluated itself, or refers back to this", clip(ref))
		}
	}
	return "cannot be evaluated"
}

func (c *compiler) correlator(r *Rule) (*correlator, error) {
	spec := r.correlation
	made := &correlator{rule: r, spec: spec, emits: true, span: int64(spec.timespan), limit: math.MaxInt}
	if spec.kind == "value_percentile" && spec.percent == 0 {
		return nil, fmt.Errorf("value_percentile needs to know which: add percentile: 95 to its condition")
	}
	for _, ref := range spec.rules {
		groups, err := c.correlatedFields(spec, ref, spec.groupBy)
		if err != nil {
			return nil, err
		}
		values, err := c.correlatedFields(spec, ref, spec.fields)
		if err != nil {
			return nil, err
		}
		made.group, made.values = append(made.group, groups), append(made.values, values)
	}
	if spec.kind == "event_count" || spec.kind == "value_count" {
		// What is beyond the greatest number in the condition makes no
		// difference to it.
		most := float64(MaxEvents)
		for _, b := range spec.ordinal {
			most = max(most, b.value+1)
		}
		made.limit = int(min(most+1, 1<<40))
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q %v %v %v %v", r.Ref(), spec.kind, spec.rules, spec.groupBy, spec.fields, spec.timespan, spec.ordinal, spec.percent, spec.aliases))
	made.key = hex.EncodeToString(sum[:16])
	return made, nil
}

// correlatedFields returns the fields of one part, with its aliases.
func (c *compiler) correlatedFields(spec *correlation, ref string, names []string) ([]int, error) {
	var ids []int
	for _, name := range names {
		if of, ok := spec.aliases[name]; ok {
			rule := c.byRef[ref]
			field := ""
			for _, called := range []string{ref, rule.Name, rule.ID} {
				if field == "" && called != "" {
					field = of[called]
				}
			}
			if field == "" {
				return nil, fmt.Errorf("the alias %q names no field of %q", clip(name), clip(ref))
			}
			name = field
		}
		if name == "" {
			return nil, fmt.Errorf("a field has no name")
		}
		id, err := c.field(name)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// entry is one event that a group remembers.
type entry struct {
	time   int64 // nanoseconds since 1970
	id     string
	value  string // of value_count
	number float64
}

// group is what is known of the events of one correlation with the same values
// in the fields of group-by.
type group struct {
	correlator int
	key        string // see appendKey
	prev, next *group // by last use

	clock   int64 // the latest time of its events
	fired   int64 // when it matched last, if it did
	matched bool

	entries []entry          // by time; of temporal, by part, those with a time
	latest  map[string]int64 // of value_count: the time of each value's entry
	sum     float64
	sorted  []float64 // of value_percentile

	// Of temporal_ordered, by part: the latest start of a sequence that ends
	// with this part, and where it ends.
	start, ends []int64
}

// never stands for a time at which nothing happened: before all times, and far
// enough from the least number to take a timespan away.
const never = math.MinInt64 / 2

// state is what all correlations of one engine remember.
type state struct {
	groups  map[string]*group
	oldest  *group // a ring: oldest.prev is the newest
	size    int    // groups and entries
	dropped int64
	late    int64
}

func newState(*program) *state { return &state{groups: map[string]*group{}} }

// Memory is how full the memory of correlations is.
type Memory struct {
	Groups, Events int
	Dropped        int64 // groups and events forgotten for lack of room
	Late           int64 // events that came too late to count
}

// Memory returns how full the memory of the engine's correlations is.
func (e *Engine) Memory() Memory {
	s := e.state
	return Memory{Groups: len(s.groups), Events: s.size - len(s.groups), Dropped: s.dropped, Late: s.late}
}

// The bounds of what a group remembers.
const (
	maxGroupValue  = 256     // bytes of a value; longer ones count by their hash
	maxGroupNumber = 10_000  // entries of value_percentile
	maxGroupEvents = 100_000 // entries of value_sum and value_avg
	maxEventID     = 512     // bytes; longer ones are cut
)

// correlate counts the hits of the event at hand.
func (e *Engine) correlate(found []Match) []Match {
	t := e.ev.Time
	if t.Year() < 1970 || t.Year() > 2200 {
		e.state.late++
		return found // an event without a time has no place in a window
	}
	now := t.UnixNano()
	e.firings = e.firings[:0]
	for _, h := range e.hits {
		for _, f := range e.p.rules[h.rule].feeds {
			e.firings = append(e.firings, firing{f.correlator, f.part, h.view})
		}
	}
	for len(e.firings) > 0 {
		slices.SortFunc(e.firings, func(a, b firing) int { return cmp.Or(a.correlator-b.correlator, a.part-b.part, a.view-b.view) })
		// Those behind feed only correlations that come later.
		id := e.firings[0].correlator
		n := 1
		for n < len(e.firings) && e.firings[n].correlator == id {
			n++
		}
		c := e.p.correlated[id]
		if what, view := e.count(id, e.firings[:n], now); what != nil {
			if c.emits {
				found = append(found, Match{Rule: c.rule, View: view, Correlated: what})
			}
			for _, f := range c.feeds {
				e.firings = append(e.firings, firing{f.correlator, f.part, view})
			}
		}
		e.firings = slices.Delete(e.firings, 0, n)
	}
	return found
}

// count adds the event to a correlation by the parts that it met and returns
// what that found, or nil.
func (e *Engine) count(id int, parts []firing, now int64) (*Correlated, int) {
	c := e.p.correlated[id]
	temporal := strings.HasPrefix(c.spec.kind, "temporal")
	// The last part of a sequence first: one event is not two steps of it.
	for i := len(parts) - 1; i >= 0; i-- {
		part := parts[i]
		if !temporal {
			part = parts[0] // an event counts once
		}
		e.look(part.view)
		var what *Correlated
		if g := e.group(id, c, part.part); g == nil {
			continue
		} else if now < g.clock-c.span {
			e.state.late++
		} else if e.add(c, g, part.part, now) {
			what = e.found(c, g)
		}
		if what != nil || !temporal {
			return what, part.view
		}
	}
	return nil, 0
}

// look makes a view the one in which fields are resolved.
func (e *Engine) look(view int) {
	e.view = view
	e.plan = e.planFor(e.ev, &e.ev.Views[view])
}

// appendKey appends the first value of a field, after its length; ok is false
// when the field has none.
func (e *Engine) appendKey(dst []byte, f int) ([]byte, bool) {
	s := e.resolve(f)
	for i := s.from; i < s.to; i++ {
		if e.vals[i].kind == valNull {
			continue
		}
		value := e.textOf(&e.vals[i])
		if len(value) > maxGroupValue {
			sum := sha256.Sum256([]byte(value))
			value = "sha256:" + hex.EncodeToString(sum[:])
		}
		dst = binary.AppendUvarint(dst, uint64(len(value)))
		return append(dst, value...), true
	}
	return dst, false
}

// group returns the group of the event at hand, nil when it lacks a field of
// group-by: such events have nothing in common.
func (e *Engine) group(id int, c *correlator, part int) *group {
	key := binary.AppendUvarint(e.groupKey[:0], uint64(id))
	for _, f := range c.group[part] {
		var ok bool
		if key, ok = e.appendKey(key, f); !ok {
			e.groupKey = key
			return nil
		}
	}
	e.groupKey = key
	s := e.state
	g := s.groups[string(key)]
	if g == nil {
		g = &group{correlator: id, key: string(key), clock: never}
		s.insert(g, c)
		s.shrink(e.p.options.MaxState)
	} else if g != s.oldest.prev {
		s.unlink(g)
		s.link(g)
	}
	return g
}

func (s *state) insert(g *group, c *correlator) {
	if n := len(c.spec.rules); strings.HasPrefix(c.spec.kind, "temporal") {
		g.entries = make([]entry, n)
		g.start, g.ends = make([]int64, n), make([]int64, n)
		for i := range n {
			g.entries[i].time, g.start[i], g.ends[i] = never, never, never
		}
		s.size += n
	}
	s.groups[g.key] = g
	s.size++
	s.link(g)
}

func (s *state) link(g *group) {
	if s.oldest == nil {
		g.prev, g.next, s.oldest = g, g, g
		return
	}
	g.prev, g.next = s.oldest.prev, s.oldest
	g.prev.next, g.next.prev = g, g
}

func (s *state) unlink(g *group) {
	if g.next == g {
		s.oldest = nil
		return
	}
	g.prev.next, g.next.prev = g.next, g.prev
	if s.oldest == g {
		s.oldest = g.next
	}
}

// shrink drops the groups that were used least recently until the rest fits,
// and of the last one its first events.
func (s *state) shrink(most int) {
	for s.size > most && s.oldest != nil && s.oldest.next != s.oldest {
		g := s.oldest
		s.unlink(g)
		delete(s.groups, g.key)
		s.size -= 1 + len(g.entries)
		s.dropped++
	}
	if g := s.oldest; g != nil && s.size > most && g.start == nil {
		n := min(s.size-most, len(g.entries))
		s.dropped += int64(n)
		s.forget(g, n)
	}
}

// forget removes the first n entries of a group.
func (s *state) forget(g *group, n int) {
	for i := range g.entries[:n] {
		old := &g.entries[i]
		g.sum -= old.number
		if g.latest != nil {
			delete(g.latest, old.value)
		}
		if g.sorted != nil {
			at := sort.SearchFloat64s(g.sorted, old.number)
			g.sorted = slices.Delete(g.sorted, at, at+1)
		}
		*old = entry{}
	}
	if g.entries = g.entries[n:]; len(g.entries) == 0 {
		g.sum = 0 // and with it what rounding left
	}
	s.size -= n
}

// add counts the event at hand in a group, and says whether the group matches
// and has not matched within the last timespan.
func (e *Engine) add(c *correlator, g *group, part int, now int64) bool {
	if !e.remember(c, g, part, now) {
		return false
	}
	e.state.shrink(e.p.options.MaxState)
	if !c.holds(g) || g.matched && g.clock-g.fired <= c.span {
		return false
	}
	g.matched, g.fired = true, g.clock
	return true
}

// remember puts the event at hand into a group and takes out what has left the
// window; false means that the event has no value to count.
func (e *Engine) remember(c *correlator, g *group, part int, now int64) bool {
	one := entry{time: now, id: strings.Clone(e.ev.ID[:min(len(e.ev.ID), maxEventID)])}
	switch c.spec.kind {
	case "temporal", "temporal_ordered":
		g.clock = max(g.clock, now)
		g.step(c, part, one)
		return true
	case "value_count":
		var value []byte
		for _, f := range c.values[part] {
			var ok bool
			if value, ok = e.appendKey(value, f); !ok {
				return false
			}
		}
		one.value = string(value)
	case "value_sum", "value_avg", "value_percentile":
		number, ok := e.number(c.values[part][0])
		if !ok {
			return false
		}
		one.number = number
	}
	g.clock = max(g.clock, now)
	s := e.state
	if c.spec.kind == "value_count" {
		if g.latest == nil {
			g.latest = map[string]int64{}
		}
		before, known := g.latest[one.value]
		if known && before >= now {
			return true
		}
		if known {
			at := sort.Search(len(g.entries), func(i int) bool { return g.entries[i].time >= before })
			for g.entries[at].value != one.value {
				at++
			}
			g.entries = slices.Delete(g.entries, at, at+1)
			s.size--
		}
		g.latest[one.value] = now
	}
	// Events come nearly in order: the place is near the end.
	at := len(g.entries)
	for at > 0 && g.entries[at-1].time > now {
		if at = at - 1; len(g.entries)-at > 16 {
			at = sort.Search(at, func(i int) bool { return g.entries[i].time > now })
			break
		}
	}
	g.entries = slices.Insert(g.entries, at, one)
	s.size++
	g.sum += one.number
	if c.spec.kind == "value_percentile" {
		g.sorted = slices.Insert(g.sorted, sort.SearchFloat64s(g.sorted, one.number), one.number)
	}
	expired := sort.Search(len(g.entries), func(i int) bool { return g.entries[i].time >= g.clock-c.span })
	if over := len(g.entries) - c.limit; over > expired {
		expired = over
	}
	if over := len(g.entries) - c.most(); over > expired {
		s.dropped += int64(over - expired)
		expired = over
	}
	s.forget(g, expired)
	return true
}

func (c *correlator) most() int {
	if c.spec.kind == "value_percentile" {
		return maxGroupNumber
	}
	return max(maxGroupEvents, min(c.limit, 1<<40))
}

// maxSummand keeps sums finite; what is beyond it does not count.
const maxSummand = 1e18

func (e *Engine) number(f int) (float64, bool) {
	s := e.resolve(f)
	for i := s.from; i < s.to; i++ {
		if n, ok := numberOf(&e.vals[i], wholeNumber); ok && math.Abs(n) <= maxSummand {
			return n, true
		}
	}
	return 0, false
}

// step notes that a part of a temporal correlation happened.
func (g *group) step(c *correlator, part int, one entry) {
	if one.time >= g.entries[part].time {
		g.entries[part] = one
	}
	if part == 0 {
		if one.time >= g.start[0] {
			g.start[0], g.ends[0] = one.time, one.time
		}
	} else if before := g.start[part-1]; before != never && g.ends[part-1] <= one.time && before >= one.time-c.span && before > g.start[part] {
		g.start[part], g.ends[part] = before, one.time
	}
	// An event that came late may be what an earlier one waited for.
	for i := max(part, 0) + 1; i < len(g.start); i++ {
		last := g.entries[i].time
		if g.start[i-1] == never || last == never || one.time >= g.clock || last < g.ends[i-1] || g.start[i-1] <= g.start[i] || g.start[i-1] < last-c.span {
			break
		}
		g.start[i], g.ends[i] = g.start[i-1], last
	}
}

// measure returns what the condition of a correlation is about.
func (c *correlator) measure(g *group) float64 {
	switch c.spec.kind {
	case "temporal":
		n := 0
		for i := range g.entries {
			n += b2i(g.entries[i].time != never && g.entries[i].time >= g.clock-c.span)
		}
		return float64(n)
	case "temporal_ordered":
		n := 0
		for i := range g.start {
			if g.start[i] != never && g.start[i] >= g.clock-c.span {
				n = i + 1
			}
		}
		return float64(n)
	case "value_sum":
		return g.sum
	case "value_avg":
		return g.sum / float64(max(len(g.entries), 1))
	case "value_percentile":
		// The nearest rank: the least value that so many are not above.
		rank := int(math.Ceil(c.spec.percent / 100 * float64(len(g.sorted))))
		return g.sorted[min(max(rank, 1), len(g.sorted))-1]
	}
	return float64(len(g.entries))
}

func (c *correlator) holds(g *group) bool {
	if len(g.entries) == 0 {
		return false
	}
	value := c.measure(g)
	if len(c.spec.ordinal) == 0 {
		return value >= float64(len(c.spec.rules))
	}
	for _, b := range c.spec.ordinal {
		if !b.holds(value) {
			return false
		}
	}
	return true
}

func (b bound) holds(value float64) bool {
	switch b.op {
	case "gt":
		return value > b.value
	case "gte":
		return value >= b.value
	case "lt":
		return value < b.value
	case "lte":
		return value <= b.value
	case "eq":
		return value == b.value
	}
	return value != b.value
}

// found describes a group that matched.
func (e *Engine) found(c *correlator, g *group) *Correlated {
	value := c.measure(g)
	what := &Correlated{Value: value, Count: int64(len(g.entries))}
	entries := g.entries
	if g.start != nil {
		what.Count = int64(value)
		entries = slices.Clone(entries)
		entries = slices.DeleteFunc(entries, func(one entry) bool { return one.time < g.clock-c.span })
		slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(a.time, b.time) })
	}
	what.First, what.Last = time.Unix(0, entries[0].time).UTC(), time.Unix(0, entries[len(entries)-1].time).UTC()
	for _, one := range entries[max(0, len(entries)-MaxEvents):] {
		if one.id != "" && (len(what.Events) == 0 || what.Events[len(what.Events)-1] != one.id) {
			what.Events = append(what.Events, one.id)
		}
	}
	rest := []byte(g.key)
	_, n := binary.Uvarint(rest)
	rest = rest[max(n, 0):]
	for _, name := range c.spec.groupBy {
		length, n := binary.Uvarint(rest)
		if n <= 0 || length > uint64(len(rest)-n) {
			break
		}
		what.Group = append(what.Group, Member{Field: name, Value: string(rest[n : n+int(length)])})
		rest = rest[n+int(length):]
	}
	return what
}
