package sigma

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// op is what an expression does with the expressions below it.
type op uint8

const (
	opSelection op = iota // the selection called name
	opAnd
	opOr
	opNot
	opAtLeast // n of them
)

// expr is a condition, parsed.
type expr struct {
	op   op
	name string
	n    int
	kids []*expr
}

// The bounds of one condition: what it nests and how many selections it names,
// counting each that a pattern stands for.
const (
	maxNesting = 100
	maxNamed   = 10_000
)

// parseCondition reads a condition over the selections of the given names.
//
//	condition = or [ "|" aggregation ]
//	or        = and { "or" and }
//	and       = not { "and" not }
//	not       = { "not" } ( "(" or ")" | number|"all"|"any" "of" ( "them" | pattern ) | name )
func parseCondition(text string, names []string) (condition, error) {
	if len(text) > maxCondition {
		return condition{}, fmt.Errorf("has %d bytes: at most %d are read", len(text), maxCondition)
	}
	text, pipe, piped := strings.Cut(text, "|")
	p := conditionParser{words: conditionWords(text), names: names, left: maxNamed}
	e, err := p.or(0)
	if err != nil {
		return condition{}, err
	}
	if w := p.next(); w != "" {
		return condition{}, fmt.Errorf("%q is not expected there: join selections with and, or", clip(w))
	}
	c := condition{expr: e}
	if piped {
		if c.pipe = strings.TrimSpace(pipe); c.pipe == "" {
			return condition{}, fmt.Errorf("ends with a |")
		}
	}
	return c, nil
}

// conditionWords splits a condition into names and parentheses.
func conditionWords(text string) []string {
	text = strings.NewReplacer("(", " ( ", ")", " ) ").Replace(text)
	return strings.Fields(text)
}

type conditionParser struct {
	words []string
	names []string
	left  int // selections that may still be named
}

func (p *conditionParser) peek() string {
	if len(p.words) == 0 {
		return ""
	}
	return p.words[0]
}

func (p *conditionParser) next() string {
	w := p.peek()
	if w != "" {
		p.words = p.words[1:]
	}
	return w
}

func (p *conditionParser) or(depth int) (*expr, error) { return p.joined("or", opOr, p.and, depth) }

func (p *conditionParser) and(depth int) (*expr, error) { return p.joined("and", opAnd, p.not, depth) }

func (p *conditionParser) joined(word string, op op, below func(int) (*expr, error), depth int) (*expr, error) {
	first, err := below(depth)
	if err != nil {
		return nil, err
	}
	kids := []*expr{first}
	for strings.EqualFold(p.peek(), word) {
		p.next()
		e, err := below(depth)
		if err != nil {
			return nil, err
		}
		kids = append(kids, e)
	}
	if len(kids) == 1 {
		return first, nil
	}
	return &expr{op: op, kids: kids}, nil
}

func (p *conditionParser) not(depth int) (*expr, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("is nested deeper than %d", maxNesting)
	}
	w := p.next()
	switch {
	case w == "":
		return nil, fmt.Errorf("ends where a selection is expected")
	case strings.EqualFold(w, "not"):
		e, err := p.not(depth + 1)
		if err != nil {
			return nil, err
		}
		return &expr{op: opNot, kids: []*expr{e}}, nil
	case w == "(":
		e, err := p.or(depth + 1)
		if err != nil {
			return nil, err
		}
		if p.next() != ")" {
			return nil, fmt.Errorf("a parenthesis is not closed")
		}
		return e, nil
	case strings.EqualFold(p.peek(), "of"):
		return p.of(w)
	}
	return p.selection(w)
}

func (p *conditionParser) selection(name string) (*expr, error) {
	if p.left--; p.left < 0 {
		return nil, fmt.Errorf("names more than %d selections", maxNamed)
	}
	if !slices.Contains(p.names, name) {
		return nil, fmt.Errorf("there is no selection %q: there are %s", clip(name), clip(strings.Join(p.names, ", ")))
	}
	return &expr{op: opSelection, name: name}, nil
}

// of reads what follows the quantity of "1 of them", "all of selection*".
func (p *conditionParser) of(quantity string) (*expr, error) {
	p.next() // "of"
	pattern := p.next()
	if pattern == "" || pattern == "(" || pattern == ")" {
		return nil, fmt.Errorf("%q of what? Use them, or a pattern like selection*", clip(quantity))
	}
	var kids []*expr
	for _, name := range p.names {
		if pattern == "them" && strings.HasPrefix(name, "_") {
			continue
		}
		if pattern != "them" && !nameMatches(pattern, name) {
			continue
		}
		e, err := p.selection(name)
		if err != nil {
			return nil, err
		}
		kids = append(kids, e)
	}
	if len(kids) == 0 {
		return nil, fmt.Errorf("no selection is called %q: there are %s", clip(pattern), clip(strings.Join(p.names, ", ")))
	}
	n := 0
	switch {
	case strings.EqualFold(quantity, "all"):
		n = len(kids)
	case strings.EqualFold(quantity, "any"):
		n = 1
	default:
		var err error
		if n, err = strconv.Atoi(quantity); err != nil || n < 1 {
			return nil, fmt.Errorf("%q of %s: use a number from 1, or all", clip(quantity), clip(pattern))
		}
	}
	switch {
	case n > len(kids):
		return nil, fmt.Errorf("%d of %s: there are only %d", n, clip(pattern), len(kids))
	case len(kids) == 1:
		return kids[0], nil
	case n == 1:
		return &expr{op: opOr, kids: kids}, nil
	case n == len(kids):
		return &expr{op: opAnd, kids: kids}, nil
	}
	return &expr{op: opAtLeast, n: n, kids: kids}, nil
}

// nameMatches tells whether a selection's name fits a pattern with "*".
func nameMatches(p, name string) bool {
	compiled := compilePattern(parseTokens(strings.ReplaceAll(p, "?", `\?`)))
	return compiled.match(name)
}
