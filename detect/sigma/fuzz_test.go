package sigma

import (
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/valyala/fastjson"
)

// FuzzParse feeds files, and runs what can be compiled of them on an event.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		selection("a|contains|all: [x, 'y*', 3]\nb: null"), correlationOf("temporal_ordered", "a, b", ""),
		ruleWith("  words: [x, {a|re|i: 'x.*'}]\n  f: {a|base64offset|contains: x, b|windash: ' -x', c|cidr: '::/0', d|hour|gte: 3}\n  condition: [words and not f, 1 of *]\n"),
		"action: global\ntitle: t\nlogsource: {product: p}\n---\ndetection: {s: {a: 1}, condition: s}\n",
		"title: f\nlogsource: {product: p}\nfilter: {rules: any, s: {a|fieldref|neq: b}, condition: not s}\n",
		"a: &a [*a]", "a: &a {b: 1}\nc: [*a, *a]", "{{{{", "- - - -", "\xff\xfe",
	} {
		f.Add([]byte(seed))
	}
	if dir := published(); dir != "" {
		seeds := 0
		_ = fs.WalkDir(os.DirFS(dir), ".", func(name string, _ fs.DirEntry, _ error) error {
			if doc, err := fs.ReadFile(os.DirFS(dir), name); err == nil && strings.HasSuffix(name, ".yml") && seeds < 20 {
				f.Add(doc)
				seeds++
			}
			return nil
		})
	}
	event := []byte(`{"a":["x",{"b":1}],"b":null,"c":"10.0.0.1","d":"2026-03-01T04:00:00Z","eventName":"X","verb":"get","objectRef":{"resource":"secrets"}}`)
	f.Fuzz(func(t *testing.T, doc []byte) {
		rules, _ := Parse("f.yml", doc)
		e, _ := Compile(rules, Options{})
		ev := &Event{Views: []View{{Product: "p", JSON: fastjson.MustParseBytes(event)}}, Any: true, Time: epoch, ID: "e"}
		for _, m := range e.Match(ev, nil) {
			e.Explain(m, ev)
		}
		if _, err := e.Snapshot(); err != nil {
			t.Error(err)
		}
	})
}

// FuzzCondition reads conditions over a few selections.
func FuzzCondition(f *testing.F) {
	for _, seed := range []string{"a and not (b or 1 of sel*)", "all of them", "2 of *", "not not a", "((((a))))", "a | count() by x > 5", "1 of", "of of of", "not"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		names := []string{"a", "b", "sel1", "sel2", "of", "not"}
		c, err := parseCondition(text, names)
		if err != nil {
			return
		}
		selections := map[string]*node{}
		for _, name := range names {
			selections[name] = &node{op: opSelection, test: &test{kind: testExists, field: 1}}
		}
		if c.expr.weight(map[string]int{"a": 1, "b": 1, "sel1": 1, "sel2": 1, "of": 1, "not": 1}) > 2*maxNamed+len(text) {
			t.Error("the condition grows beyond its text")
		}
		bind(c.expr, selections).needs()
	})
}

// FuzzMatch runs a rule of each kind of test on any event.
func FuzzMatch(f *testing.F) {
	for _, seed := range []string{`{"a":"x"}`, `{"a.b":{"c":[1,null,{"d":2}]}}`, `[[[{"a":1e400}]]]`, `{"a":"\ud800","b":"\u0000"}`, `{"a":NaN}`} {
		f.Add([]byte(seed))
	}
	e := engineOf(f, selection("- a: [x, 1, null]\n- a.b.c|contains: d\n- a|re: x+\n- a|cidr: 10.0.0.0/8\n- a|hour: 3\n- a|gt: 3\n- a|fieldref: b\n- a: 'x?*y'\n- a|exists: false\n- word"), Options{})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := fastjson.ParseBytes(b)
		if err != nil {
			return
		}
		ev := &Event{Views: []View{{Product: "p", JSON: v}}}
		for _, m := range e.Match(ev, nil) {
			for _, fact := range e.Explain(m, ev) {
				if len(fact.Value) > maxFactValue+len("…") {
					t.Errorf("a fact has %d bytes", len(fact.Value))
				}
			}
		}
	})
}
