package sigma

import (
	"slices"
	"strings"
)

// Ignores says whether no rule, of whatever logsource, reads any of the fields at
// these paths of an event's JSON, nor anything below or around them, nor all of
// the event as a keyword does. An event that matched nothing then matches nothing
// whatever they hold, as long as all else is the same.
func (e *Engine) Ignores(paths []string) bool {
	ignored := true
	e.p.eachTest(func(t *test, field int) {
		if field == unboundField {
			ignored = false
			return
		}
		f := &e.p.fields[field]
		if f.attr != attrNone {
			return
		}
		names := []string{f.name}
		for _, aliases := range e.p.options.Aliases {
			names = append(names, strings.Fields(aliases[f.name])...)
		}
		for _, name := range names {
			if slices.ContainsFunc(paths, func(path string) bool {
				return name == path || strings.HasPrefix(path, name+".") || strings.HasPrefix(name, path+".")
			}) {
				ignored = false
			}
		}
	})
	return ignored
}

// Matched says whether any rule matched the last event, also one that only a
// correlation counts.
func (e *Engine) Matched() bool { return len(e.hits) > 0 }

// Bounds are the numbers with which rules compare the attributed field of that
// place in Options.Attributed; false when they do something else with it.
func (e *Engine) Bounds(attributed int) (bounds []float64, ok bool) {
	ok = true
	e.p.eachTest(func(t *test, field int) {
		switch {
		case field == unboundField || e.p.fields[field].attr != attributed:
		case t.kind == testExists:
			bounds = append(bounds, 0) // absent is told apart from any length
		case t.kind == testNumber && t.part == wholeNumber:
			bounds = append(bounds, t.numbers...)
		default:
			ok = false
		}
	})
	return bounds, ok
}

// eachTest calls f with every test of every rule and every field that it reads.
func (p *program) eachTest(f func(t *test, field int)) {
	seen := map[*node]bool{}
	var visit func(n *node)
	visit = func(n *node) {
		if seen[n] {
			return
		}
		seen[n] = true
		if n.test != nil {
			f(n.test, n.test.field)
			if n.test.kind == testField {
				f(n.test, n.test.other)
			}
		}
		for _, kid := range n.kids {
			visit(kid)
		}
	}
	for _, c := range p.rules {
		visit(c.root)
	}
}
