package sigma

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"remit"
)

// The bounds of an explanation.
const (
	maxFacts     = 32
	maxFactValue = 256 // bytes
)

// Explain returns why a rule matched an event, which must be the one that it
// matched, with its JSON still valid: for each field that a selection asked for
// and found, "selection: field" with the value found. Of a correlation it tells
// the group, the times and what was counted. There are at most 32 facts, and
// values are cut after 256 bytes; nothing is taken out of them.
func (e *Engine) Explain(m Match, ev *Event) []remit.Fact {
	if m.Rule == nil || m.View < 0 || m.View >= len(ev.Views) {
		return nil
	}
	e.begin(ev)
	defer e.end()
	e.look(m.View)
	x := explanation{e: e, seen: map[remit.Fact]bool{}}
	if c := m.Correlated; c != nil {
		x.correlated(m.Rule, c)
		// And what of the event at hand counted.
		for _, ref := range m.Rule.correlation.rules {
			for _, one := range e.p.rules {
				if (ref == one.rule.ID || ref == one.rule.Name) && (ev.Any || one.rule.Logsource.asks(ev.Views[m.View].logsource())) && e.holds(one.root) {
					x.node(one.root, "")
				}
			}
		}
		return x.facts
	}
	for _, one := range e.p.rules {
		if one.rule == m.Rule {
			x.node(one.root, "")
		}
	}
	return x.facts
}

type explanation struct {
	e     *Engine
	facts []remit.Fact
	seen  map[remit.Fact]bool
}

func (x *explanation) add(name, value string) {
	if len(value) > maxFactValue {
		end := maxFactValue
		for end > 0 && !utf8.RuneStart(value[end]) {
			end--
		}
		value = value[:end] + "…"
	}
	// The values refer to the event, whose memory is used again.
	f := remit.Fact{Name: name, Value: strings.Clone(value)}
	if len(x.facts) < maxFacts && !x.seen[f] {
		x.seen[f] = true
		x.facts = append(x.facts, f)
	}
}

func (x *explanation) correlated(r *Rule, c *Correlated) {
	for _, m := range c.Group {
		x.add(m.Field, m.Value)
	}
	what := map[string]string{
		"event_count": "events", "value_count": "different values", "value_sum": "sum", "value_avg": "average",
		"value_percentile": "percentile", "temporal": "rules matched", "temporal_ordered": "rules matched in order",
	}[r.correlation.kind]
	if len(r.correlation.fields) > 0 {
		what += " of " + strings.Join(r.correlation.fields, ", ")
	}
	x.add(what, string(appendNumber(nil, c.Value)))
	x.add("first event", c.First.Format(time.RFC3339Nano))
	x.add("last event", c.Last.Format(time.RFC3339Nano))
	x.add("within", r.correlation.timespan.String())
}

// node adds the facts of what holds below n, which holds itself. What holds
// because something is not there has no value to show.
func (x *explanation) node(n *node, selection string) {
	if n.name != "" {
		selection = n.name
	}
	switch n.op {
	case opSelection:
		x.test(n.test, selection)
	case opNot:
	default:
		for _, kid := range n.kids {
			if x.e.holds(kid) {
				x.node(kid, selection)
			}
		}
	}
}

func (x *explanation) test(t *test, selection string) {
	name := x.e.p.fields[t.field].name
	label := name
	if t.field == unboundField {
		label = "keyword"
	}
	if selection != "" {
		label = selection + ": " + label
	}
	s := x.e.resolve(t.field)
	if s.from == s.to || t.kind == testText && t.null && nullIn(x.e.vals[s.from:s.to]) {
		x.add(label, "(absent or null)")
		return
	}
	if t.field == unboundField {
		for i := range t.patterns {
			if x.e.fits(t, i, &x.e.vals[s.from]) {
				x.add(label, describe(&t.patterns[i]))
			}
		}
		for _, re := range t.exprs {
			if found := re.FindString(x.e.textOf(&x.e.vals[s.from])); found != "" {
				x.add(label, found)
			}
		}
		return
	}
	// Of several values those that meet the test alone; a test for all of
	// several things may be met by the values together only.
	met := false
	for i := s.from; i < s.to; i++ {
		if x.e.meets(t, i) {
			met = true
			x.add(label, x.e.textOf(&x.e.vals[i]))
		}
	}
	for i := s.from; i < s.to && !met; i++ {
		x.add(label, x.e.textOf(&x.e.vals[i]))
	}
}

// meets says whether one value alone meets one of the things a test asks for.
func (e *Engine) meets(t *test, i int32) bool {
	alone := *t
	alone.all = false
	vals := e.vals[i : i+1]
	switch t.kind {
	case testText:
		return e.testText(&alone, vals)
	case testRegexp:
		for _, re := range t.exprs {
			if vals[0].kind != valNull && re.MatchString(e.textOf(&vals[0])) {
				return true
			}
		}
	case testCIDR:
		for _, network := range t.networks {
			if vals[0].kind == valText && inNetwork(network, vals[0].text) {
				return true
			}
		}
	case testNumber:
		n, ok := numberOf(&vals[0], t.part)
		for _, limit := range t.numbers {
			if ok && t.compare.holds(n, limit) {
				return true
			}
		}
	}
	return false
}

// describe returns a pattern as a rule would write it.
func describe(p *pattern) string {
	if p.shape != glob {
		return p.text
	}
	var parts []string
	for _, seg := range p.segs {
		part := ""
		for _, t := range seg {
			switch t.kind {
			case tokenOne:
				part += "?"
			case tokenDash:
				part += "-"
			default:
				part += t.text
			}
		}
		parts = append(parts, part)
	}
	return fmt.Sprintf("*%s*", strings.Join(parts, "*"))
}

// Coverage is how many rules look for one risk.
type Coverage struct {
	Risk  string // "T1528", "NHI7"
	Rules []*Rule
}

// Coverage returns the risks that the evaluated rules name, in the order of
// their identifiers.
func (e *Engine) Coverage() []Coverage {
	return coverage(e.p.all)
}
