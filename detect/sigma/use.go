package sigma

import (
	"slices"
	"strings"
)

// Field is a field that a rule reads.
type Field struct {
	Name string // as the rule writes it

	// Paths are where else it is looked for in events of the rule's logsource,
	// before the name itself; nil when there is no alias.
	Paths []string
}

// FieldsOf returns the fields of raw events that a detection rule reads, each
// once, in the order of their names; those that attribution adds are not among
// them, and neither is the whole event, in which keywords are searched.
func (e *Engine) FieldsOf(r *Rule) []Field {
	for _, c := range e.p.rules {
		if c.rule == r {
			return e.p.fieldsOf(c)
		}
	}
	return nil
}

func (p *program) fieldsOf(c *compiled) []Field {
	aliases := p.aliases(planKey{logsource: c.rule.Logsource})
	var fields []Field
	add := func(f int) {
		if f != unboundField && p.fields[f].attr == attrNone {
			fields = append(fields, Field{Name: p.fields[f].name, Paths: strings.Fields(aliases[f])})
		}
	}
	var visit func(*node)
	visit = func(n *node) {
		if n.op == opSelection {
			add(n.test.field)
			if n.test.kind == testField {
				add(n.test.other)
			}
		}
		for _, kid := range n.kids {
			visit(kid)
		}
	}
	visit(c.root)
	slices.SortFunc(fields, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(fields, func(a, b Field) bool { return a.Name == b.Name })
}
