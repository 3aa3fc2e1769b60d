package sigma

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/valyala/fastjson"

	"remit"
)

func rulesOf(t testing.TB, text string) []*Rule {
	t.Helper()
	rules, err := Parse("test.yml", []byte(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return rules
}

func engineOf(t testing.TB, text string, o Options) *Engine {
	t.Helper()
	e, unsupported := Compile(rulesOf(t, text), o)
	for _, u := range unsupported {
		t.Fatalf("%s: %s", u.Rule.Ref(), u.Reason)
	}
	return e
}

func eventOf(t testing.TB, text string) *Event {
	t.Helper()
	v, err := fastjson.Parse(text)
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return &Event{Views: []View{{Product: "p", JSON: v}}, ID: "e1", Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
}

func ruleWith(detection string) string {
	return "title: t\nid: t\nlogsource: {product: p}\ndetection:\n" + detection
}

func selection(text string) string {
	return ruleWith("  sel:\n    " + strings.ReplaceAll(text, "\n", "\n    ") + "\n  condition: sel\n")
}

// TestSelections is the specification of selections and modifiers, by example.
func TestSelections(t *testing.T) {
	shift := func(n int, s string) string {
		return base64.StdEncoding.EncodeToString([]byte(strings.Repeat("#", n) + s + "##"))
	}
	cases := []struct {
		selection string
		yes, no   []string
	}{
		// Values.
		{`a: Foo`, []string{`{"a":"foo"}`, `{"a":"FOO"}`, `{"a":["x","Foo"]}`, `{"a":[["foo"]]}`}, []string{`{"a":"foo "}`, `{"a":null}`, `{}`, `{"A":"foo"}`, `{"a":{"foo":1}}`}},
		{`a: straße`, []string{`{"a":"STRAßE"}`}, []string{`{"a":"strasse"}`}},
		{`a: Kelvin`, []string{`{"a":"\u212aelvin"}`}, nil},
		{`a: ÉCOLE`, []string{`{"a":"école"}`}, []string{`{"a":"ecole"}`}},
		{`a: [x, y]`, []string{`{"a":"x"}`, `{"a":"Y"}`}, []string{`{"a":"z"}`}},
		{`a: [a1, a2, a3, a4, a5, a6, a7, a8, a9]`, []string{`{"a":"A9"}`}, []string{`{"a":"a0"}`}},
		{`a: ''`, []string{`{"a":""}`}, []string{`{"a":null}`, `{}`, `{"a":" "}`}},
		{`a: null`, []string{`{"a":null}`, `{}`, `{"a":[]}`}, []string{`{"a":""}`, `{"a":0}`}},
		{`a: [null, x]`, []string{`{}`, `{"a":"x"}`}, []string{`{"a":"y"}`}},
		{`a: 4625`, []string{`{"a":4625}`, `{"a":"4625"}`, `{"a":4625.0}`, `{"a":4.625e3}`}, []string{`{"a":46250}`, `{"a":"4625x"}`}},
		{`a: '4625'`, []string{`{"a":4625}`, `{"a":"4625"}`}, []string{`{"a":462}`}},
		{`a: 9007199254740993`, []string{`{"a":9007199254740993}`}, []string{`{"a":9007199254740992}`}},
		{`a: 1.50`, []string{`{"a":1.5}`, `{"a":"1.50"}`}, []string{`{"a":1.51}`}},
		{`a: true`, []string{`{"a":true}`, `{"a":"True"}`}, []string{`{"a":false}`, `{"a":1}`}},
		{`a: 'true'`, []string{`{"a":true}`}, []string{`{"a":"yes"}`}},
		{"a: x\nb: y", []string{`{"a":"x","b":"y"}`}, []string{`{"a":"x"}`, `{"a":"x","b":"x"}`}},
		{"- a: x\n- b: y", []string{`{"a":"x"}`, `{"b":"y"}`}, []string{`{"a":"y","b":"x"}`}},

		// Wildcards and escapes.
		{`a: 'x*z'`, []string{`{"a":"xz"}`, `{"a":"XyyZ"}`, `{"a":"x\nz"}`}, []string{`{"a":"xzy"}`, `{"a":"yxz"}`}},
		{`a: 'x?z'`, []string{`{"a":"xyz"}`, `{"a":"xéz"}`}, []string{`{"a":"xz"}`, `{"a":"xyyz"}`}},
		{`a: '*a?c*'`, []string{`{"a":"abc"}`, `{"a":"zzaaxc!"}`}, []string{`{"a":"ac"}`}},
		{`a: '?*?'`, []string{`{"a":"ab"}`, `{"a":"éé"}`}, []string{`{"a":"a"}`, `{"a":""}`}},
		{`a: 'ab*ba'`, []string{`{"a":"abba"}`, `{"a":"ab-ba"}`}, []string{`{"a":"aba"}`}},
		{`a: '*'`, []string{`{"a":""}`, `{"a":1}`, `{"a":{}}`}, []string{`{}`, `{"a":null}`}},
		{`a: 'x\*z'`, []string{`{"a":"x*z"}`}, []string{`{"a":"xyz"}`}},
		{`a: 'x\?z'`, []string{`{"a":"x?z"}`}, []string{`{"a":"xyz"}`}},
		{`a: 'C:\Win*'`, []string{`{"a":"c:\\windows"}`}, []string{`{"a":"c:windows"}`}},
		{`a: 'C:\\*'`, []string{`{"a":"c:\\x"}`, `{"a":"c:\\"}`}, []string{`{"a":"c:*"}`}},
		{`a: 'C:\\\*'`, []string{`{"a":"c:\\*"}`}, []string{`{"a":"c:\\x"}`}},
		{`a: '\\\\srv'`, []string{`{"a":"\\\\srv"}`}, []string{`{"a":"\\srv"}`}},

		// Fields.
		{`a.b.c: x`, []string{`{"a":{"b":{"c":"x"}}}`, `{"a.b.c":"x"}`, `{"a.b":{"c":"x"}}`, `{"a":{"b.c":"x"}}`, `{"a":[{"b":1},{"b":[{"c":"x"}]}]}`}, []string{`{"a":{"b":"x"}}`, `{"c":"x"}`}},
		{`a.b.c: x`, []string{`{"a.b":{"d":1},"a":{"b":{"c":"x"}}}`}, []string{`{"a.b":{"c":"y"},"a":{"b":{"c":"x"}}}`}},
		{`annotations.authorization.k8s.io/decision: allow`, []string{`{"annotations":{"authorization.k8s.io/decision":"allow"}}`}, []string{`{"annotations":{"authorization.k8s.io/decision":"forbid"}}`}},

		// String modifiers.
		{`a|contains: oo`, []string{`{"a":"FOOD"}`, `{"a":["x","oo"]}`}, []string{`{"a":"fo"}`}},
		{`a|contains: 12`, []string{`{"a":4123}`}, []string{`{"a":1}`}},
		{`a|startswith: fo`, []string{`{"a":"Food"}`}, []string{`{"a":"xfood"}`}},
		{`a|endswith: od`, []string{`{"a":"Food"}`}, []string{`{"a":"foods"}`}},
		{`a|contains|all: [x, y]`, []string{`{"a":"yx"}`, `{"a":["x","y"]}`}, []string{`{"a":"x"}`}},
		{`a|cased: Foo`, []string{`{"a":"Foo"}`}, []string{`{"a":"foo"}`}},
		{`a|contains|cased: Foo`, []string{`{"a":"aFoo"}`}, []string{`{"a":"afoo"}`}},
		{`a|neq: x`, []string{`{"a":"y"}`, `{}`}, []string{`{"a":"X"}`}},
		{`a|neq: [x, y]`, []string{`{"a":"z"}`}, []string{`{"a":"x"}`, `{"a":"y"}`}},
		{`a|exists: true`, []string{`{"a":1}`, `{"a":null}`, `{"a":""}`}, []string{`{"b":1}`}},
		{`a|exists: false`, []string{`{"b":1}`}, []string{`{"a":null}`}},
		{`a|windash|contains: ' -enc '`, []string{`{"a":"p -enc x"}`, `{"a":"p /ENC x"}`, `{"a":"p –enc x"}`, `{"a":"p ―enc x"}`}, []string{`{"a":"p enc x"}`, `{"a":"p +enc x"}`}},
		{`a|windash: a-b -c`, []string{`{"a":"a-b /c"}`}, []string{`{"a":"a/b -c"}`}},

		// Objects are their JSON for what has wildcards.
		{`a|contains: '"s3:Get"'`, []string{`{"a":{"b":["s3:Get"]}}`, `{"a":{"policy":"{\"Action\":\"s3:Get\"}"}}`}, []string{`{"a":{"b":"s3:GetObject"}}`}},

		// Regular expressions.
		{`a|re: '^f.o$'`, []string{`{"a":"foo"}`}, []string{`{"a":"Foo"}`, `{"a":"fooo"}`}},
		{`a|re|i: '^f.o$'`, []string{`{"a":"FOO"}`}, nil},
		{`a|re: 'x.y'`, nil, []string{`{"a":"x\ny"}`}},
		{`a|re|s: 'x.y'`, []string{`{"a":"x\ny"}`}, nil},
		{`a|re|m: '^y$'`, []string{`{"a":"x\ny"}`}, []string{`{"a":"xy"}`}},
		{`a|re|i|m: '^Y$'`, []string{`{"a":"x\ny"}`}, nil},
		{`a|re|all: ['^x', 'y$']`, []string{`{"a":"x.y"}`}, []string{`{"a":"x"}`}},

		// Networks.
		{`a|cidr: 10.0.0.0/8`, []string{`{"a":"10.2.3.4"}`, `{"a":"::ffff:10.1.1.1"}`, `{"a":["1.1.1.1","10.0.0.1"]}`}, []string{`{"a":"11.0.0.1"}`, `{"a":"10"}`, `{"a":"10.x"}`, `{"a":10}`}},
		{`a|cidr: ['2001:db8::/32', '192.168.0.7']`, []string{`{"a":"2001:DB8::1"}`, `{"a":"192.168.0.7"}`}, []string{`{"a":"2001:db9::1"}`, `{"a":"192.168.0.8"}`}},

		// Encodings.
		{`a|base64: foo`, []string{`{"a":"Zm9v"}`}, []string{`{"a":"foo"}`}},
		{`a|base64offset|contains: http://`, []string{`{"a":"` + shift(0, "http://") + `"}`, `{"a":"` + shift(1, "http://") + `"}`, `{"a":"` + shift(2, "http://") + `"}`}, []string{`{"a":"` + shift(0, "ftp://") + `"}`}},
		{`a|utf16le|base64: cmd`, []string{`{"a":"YwBtAGQA"}`}, []string{`{"a":"Y21k"}`}},
		{`a|wide|base64: cmd`, []string{`{"a":"YwBtAGQA"}`}, nil},
		{`a|utf16be|base64: cmd`, []string{`{"a":"AGMAbQBk"}`}, nil},
		{`a|utf16|base64: cmd`, []string{`{"a":"//5jAG0AZAA="}`}, nil},

		// Numbers and times.
		{`a|gt: 5`, []string{`{"a":6}`, `{"a":"5.1"}`, `{"a":[1,9]}`}, []string{`{"a":5}`, `{"a":"x"}`, `{}`, `{"a":"inf"}`}},
		{`a|gte: 5`, []string{`{"a":5}`}, []string{`{"a":4.9}`}},
		{`a|lt: 5`, []string{`{"a":-1}`}, []string{`{"a":5}`}},
		{`a|lte: 5`, []string{`{"a":5e0}`}, []string{`{"a":50}`}},
		{`a|hour: 13`, []string{`{"a":"2026-03-01T13:59:00Z"}`, `{"a":"2026-03-01T13:59:00.123+02:00"}`, `{"a":"2026-03-01 13:00:00"}`}, []string{`{"a":"2026-03-01T12:00:00Z"}`, `{"a":"13"}`, `{"a":"x"}`}},
		{`a|hour|gte: 22`, []string{`{"a":"2026-03-01T23:00:00Z"}`}, []string{`{"a":"2026-03-01T21:00:00Z"}`}},
		{`a|minute: 59`, []string{`{"a":"2026-03-01T13:59:00Z"}`}, []string{`{"a":"2026-03-01T13:58:00Z"}`}},
		{`a|day: 1`, []string{`{"a":"2026-03-01"}`}, []string{`{"a":"2026-03-02"}`}},
		{`a|week: 9`, []string{`{"a":"2026-03-01"}`}, []string{`{"a":"2026-03-02"}`}},
		{`a|month: 3`, []string{`{"a":"2026-03-01"}`, `{"a":1772323200}`, `{"a":1772323200000}`}, []string{`{"a":"2026-04-01"}`}},
		{`a|year: 2026`, []string{`{"a":"2026-03-01"}`}, []string{`{"a":"2025-03-01"}`}},

		// Fields with fields.
		{`a|fieldref: b.c`, []string{`{"a":"x","b":{"c":"X"}}`, `{"a":["x","y"],"b":{"c":"y"}}`}, []string{`{"a":"x","b":{"c":"y"}}`, `{"a":"x"}`, `{}`}},
		{`a|fieldref|startswith: b`, []string{`{"a":"xyz","b":"xy"}`}, []string{`{"a":"xyz","b":"yz"}`}},
		{`a|fieldref|endswith: b`, []string{`{"a":"xyz","b":"yz"}`}, []string{`{"a":"xyz","b":"xy"}`}},
		{`a|fieldref|contains: b`, []string{`{"a":"xyz","b":"y"}`}, []string{`{"a":"xyz","b":"q"}`}},
		{`a|fieldref|neq: b`, []string{`{"a":"x","b":"y"}`}, []string{`{"a":"x","b":"x"}`}},

		// Keywords.
		{`- evil`, []string{`{"a":{"b":"so EVIL"}}`, `{"evil":1}`}, []string{`{"a":"vile"}`}},
		{`[one, two]`, []string{`{"a":"two"}`}, []string{`{"a":"three"}`}},
		{`'|all': [one, two]`, []string{`{"a":"one","b":"two"}`}, []string{`{"a":"one"}`}},
		{`- 'say "hi"'`, []string{`{"a":"he may say \"hi\" now"}`}, []string{`{"a":"say hi"}`}},
		{`- 'a*z'`, []string{`{"x":"abcz"}`}, []string{`{"x":"za"}`}},
		{`'|re': 'e[v]il\d'`, []string{`{"x":"evil7"}`}, []string{`{"x":"evil"}`}},
	}
	for _, c := range cases {
		t.Run(c.selection, func(t *testing.T) {
			e := engineOf(t, selection(c.selection), Options{})
			for i, text := range slices.Concat(c.yes, c.no) {
				want := i < len(c.yes)
				ev := eventOf(t, text)
				got := e.Match(ev, nil)
				if (len(got) == 1) != want {
					t.Errorf("matches %s: %v, not %v", text, !want, want)
				}
				if len(got) == 1 && !strings.Contains(c.selection, "neq") && len(e.Explain(got[0], ev)) == 0 {
					t.Errorf("nothing explains the match of %s", text)
				}
			}
		})
	}
}

// TestConditions tries each condition on selections a to d that are true and
// false as named.
func TestConditions(t *testing.T) {
	cases := []struct{ condition, yes, no string }{
		{"a", "a ab", "- b"},
		{"a and b", "ab abc", "a b"},
		{"a or b", "a b", "- c"},
		{"not a", "- b", "a"},
		{"not not a", "a", "-"},
		{"a and not b", "a ac", "ab b"},
		{"a or b and c", "a bc", "b c"},
		{"(a or b) and c", "ac bc", "a b ab c"},
		{"a AND (b OR NOT c)", "ab abc a", "ac b"},
		{"1 of them", "a b sel1", "- _x"},
		{"any of them", "a", "-"},
		{"all of sel*", "sel1+sel2", "sel1 sel2"},
		{"1 of sel*", "sel1 sel2", "a"},
		{"2 of them", "ab sel1+sel2", "a sel1 _x+a"},
		{"2 of sel*", "sel1+sel2", "sel1"},
		{"a and not 1 of sel*", "a", "a+sel1 b"},
		{"1 of *1", "sel1", "sel2"},
		{"_x", "_x", "a"},
		{"[a, b]", "a b", "c"},
	}
	selections := []string{"a", "b", "c", "sel1", "sel2", "_x"}
	for _, c := range cases {
		var b strings.Builder
		for _, s := range selections {
			fmt.Fprintf(&b, "  %s: {%s: '1'}\n", s, s)
		}
		fmt.Fprintf(&b, "  condition: %s\n", c.condition)
		e := engineOf(t, ruleWith(b.String()), Options{})
		try := func(set string, want bool) {
			v := fastjson.MustParse(`{}`)
			names := strings.Split(set, "+")
			if len(names) == 1 && !slices.Contains(selections, set) {
				names = strings.Split(set, "")
			}
			for _, name := range names {
				v.Set(name, fastjson.MustParse(`"1"`))
			}
			ev := &Event{Views: []View{{Product: "p", JSON: v}}}
			if got := len(e.Match(ev, nil)) == 1; got != want {
				t.Errorf("%q with %s: %v", c.condition, set, got)
			}
		}
		for set := range strings.FieldsSeq(c.yes) {
			try(set, true)
		}
		for set := range strings.FieldsSeq(c.no) {
			try(set, false)
		}
	}
}

// TestFaults says that what is wrong with a rule is told with its place.
func TestFaults(t *testing.T) {
	cases := []struct{ name, doc, want string }{
		{"not YAML", "title: [", "not YAML"},
		{"a list", "- a", "test.yml:1: the document is not a map"},
		{"no title", "logsource: {product: p}\ndetection: {a: {b: c}, condition: a}", "title: is missing"},
		{"no logsource", "title: t\ndetection: {a: {b: c}, condition: a}", "logsource: is missing"},
		{"empty logsource", "title: t\nlogsource: {definition: x}\ndetection: {a: {b: c}, condition: a}", "names no product"},
		{"no detection", "title: t\nlogsource: {product: p}", "none, or more than one"},
		{"level", "title: t\nlevel: dire", `test.yml:2: level: no level "dire"`},
		{"no condition", ruleWith("  a: {b: c}\n"), "detection.condition: is missing"},
		{"unknown selection", ruleWith("  a: {b: c}\n  condition: b\n"), `test.yml:6: detection.condition: there is no selection "b": there are a`},
		{"open parenthesis", ruleWith("  a: {b: c}\n  condition: (a\n"), "not closed"},
		{"two names", ruleWith("  a: {b: c}\n  condition: a a\n"), `"a" is not expected`},
		{"no operand", ruleWith("  a: {b: c}\n  condition: a and\n"), "ends where"},
		{"nothing called so", ruleWith("  a: {b: c}\n  condition: 1 of x*\n"), "no selection is called"},
		{"too many of", ruleWith("  a: {b: c}\n  condition: 2 of them\n"), "there are only 1"},
		{"key twice", ruleWith("  a:\n    b: c\n    b: d\n  condition: a\n"), "test.yml:7: b: the key is there twice"},
		{"network", selection("a|cidr: 10.0.0.0/40"), "is no network"},
		{"number", selection("a|gt: many"), "is not a number"},
		{"exists", selection("a|exists: maybe"), "true or false"},
		{"nested value", selection("a: {b: c}"), "a value is a list or a map"},
		{"no values", selection("a: []"), "has no values"},
		{"null and more", selection("a|contains: null"), "null stands alone"},
		{"keyword network", selection("'|cidr': 10.0.0.0/8"), "a keyword has no field"},
		{"merge key", "title: t\n<<: {a: b}", "merge keys"},
		{"correlation type", "title: t\ncorrelation: {type: magic, rules: [a], timespan: 1m}", `correlation.type: no type "magic"`},
		{"timespan", "title: t\ncorrelation: {type: temporal, rules: [a], timespan: 1 fortnight}", "correlation.timespan"},
		{"no bound", "title: t\ncorrelation: {type: event_count, rules: [a], timespan: 1m}", "correlation.condition: is missing"},
		{"value field", "title: t\ncorrelation: {type: value_count, rules: [a], timespan: 1m, condition: {gte: 3}}", "condition.field: is missing"},
		{"filter rules", "title: t\nlogsource: {product: p}\nfilter: {a: {b: c}, condition: a}", "filter.rules: is missing"},
		{"depth", "title: t\nx: " + strings.Repeat("[", 40) + strings.Repeat("]", 40), "nested deeper"},
		{"alias bomb", "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]", "more than 100000 values"},
		{"alias of itself", "a: &a [*a]", ""},
		{"size", strings.Repeat("#", maxFile+1), "at most"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			rules, err := Parse("test.yml", []byte(c.doc))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%d rules and the error %v, without %q", len(rules), err, c.want)
			}
			if remit.KindOf(err) != remit.Invalid {
				t.Errorf("the error's kind is %s", remit.KindOf(err))
			}
		})
	}
}

// TestUnsupported says that what cannot be evaluated is named, and that the
// other rules are not touched by it.
func TestUnsupported(t *testing.T) {
	cases := []struct{ name, doc, want string }{
		{"modifier", selection("a|magic: x"), `the modifier "magic" is not known`},
		{"lookahead", selection("a|re: '(?!x)y'"), "RE2"},
		{"placeholder", selection("a|expand: '%Servers%'"), "%Servers% has no values"},
		{"attribute", selection("remit.nonsense: x"), `no field "remit.nonsense"`},
		{"aggregation", ruleWith("  a: {b: c}\n  timeframe: 5m\n  condition: a | count() by x > 5\n"), "write a correlation"},
		{"timeframe", ruleWith("  a: {b: c}\n  timeframe: 5m\n  condition: a\n"), "write a correlation"},
		{"encoded wildcard", selection("a|base64: 'x*'"), "wildcards"},
		{"combination", selection("a|re|cidr: x"), "cannot be combined"},
		{"missing rule", "title: t\ncorrelation: {type: temporal, rules: [nobody, x], timespan: 1m, group-by: [a]}", `"nobody", which is not loaded`},
		{"circle", "title: t\nname: a\ncorrelation: {type: temporal, rules: [a], timespan: 1m}", "refers back"},
		{"alias", "title: t\ncorrelation: {type: temporal, rules: [ok], timespan: 1m, group-by: [u], aliases: {u: {other: x}}}", `the alias "u" names no field of "ok"`},
		{"percentile", "title: t\ncorrelation: {type: value_percentile, rules: [ok], timespan: 1m, condition: {field: a, gt: 1}}", "percentile: 95"},
		{"unused filter", "title: t\nlogsource: {product: q}\nfilter: {rules: [ok], a: {b: c}, condition: a}", "no rule of its logsource"},
		{"same id", "title: t\nid: ok\nlogsource: {product: p}\ndetection: {a: {b: c}, condition: a}", "replaces it"},
	}
	const ok = "\n---\ntitle: fine\nid: ok\nlogsource: {product: p}\ndetection: {s: {k: v}, condition: s}\n"
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			e, unsupported := Compile(rulesOf(t, c.doc+ok), Options{Attributed: []string{"remit.known"}})
			if len(unsupported) != 1 || unsupported[0].Rule.Title != "t" || !strings.Contains(unsupported[0].Reason, c.want) {
				t.Fatalf("unsupported: %+v, without %q", unsupported, c.want)
			}
			if c.name == "alias" || c.name == "percentile" || c.name == "missing rule" {
				t.Log(unsupported[0].Reason)
			}
			if got := e.Match(eventOf(t, `{"k":"v"}`), nil); len(got) != 1 || got[0].Rule.ID != "ok" {
				t.Errorf("the other rule matched as %+v", got)
			}
		})
	}
}

func TestDocuments(t *testing.T) {
	const doc = `
action: global
title: Shared
logsource: {product: p}
level: high
tags: [attack.t1528, attack.credential-access, attack.t1552.007, owasp.nhi7, cve.2021-44228]
remit: {remedy: [revoke], weak: true, weight: 3}
---
id: one
detection: {s: {a: 1}, condition: s}
---

---
id: two
title: Own
detection: {s: {a: 2}, condition: s}
`
	rules := rulesOf(t, doc)
	if len(rules) != 2 || rules[0].Title != "Shared" || rules[1].Title != "Own" || rules[1].Severity() != remit.High {
		t.Fatalf("read %+v", rules)
	}
	if got := strings.Join(rules[0].Risks, " "); got != "T1528 T1552.007 NHI7" {
		t.Errorf("risks: %s", got)
	}
	if got := fmt.Sprint(rules[0].Custom); got != "map[remit:map[remedy:[revoke] weak:true weight:3]]" {
		t.Errorf("custom fields: %s", got)
	}
	e, _ := Compile(rules, Options{})
	if c := e.Coverage(); len(c) != 3 || c[0].Risk != "NHI7" || len(c[0].Rules) != 2 {
		t.Errorf("coverage: %+v", c)
	}
	loaded, faults := Load(fstest.MapFS{
		"a/good.yml": {Data: []byte(doc)}, "bad.yaml": {Data: []byte("title: [")}, "readme.md": {Data: []byte("# x")},
		"huge.yml": {Data: make([]byte, maxFile+1)},
	})
	if len(loaded) != 2 || len(faults) != 2 || loaded[0].Path != "a/good.yml" {
		t.Errorf("loaded %d rules with %v", len(loaded), faults)
	}
}

// TestFaultyAmongGood says that a faulty document costs no other.
func TestFaultyAmongGood(t *testing.T) {
	rules, err := Parse("x.yml", []byte(selection("a: 1")+"---\ntitle: broken\n---\n"+selection("a: 2")))
	if len(rules) != 2 || err == nil || !strings.Contains(err.Error(), "x.yml:9") {
		t.Errorf("%d rules, %v", len(rules), err)
	}
}

func TestLogsources(t *testing.T) {
	rule := func(id, logsource string) string {
		return fmt.Sprintf("title: t\nid: %s\nlogsource: {%s}\ndetection: {s: {a: 1}, condition: s}\n---\n", id, logsource)
	}
	e := engineOf(t, rule("product", "product: p")+rule("both", "product: P, service: s")+rule("service", "service: s")+
		rule("category", "category: c")+rule("all", "product: p, service: s, category: c")+rule("other", "product: q"), Options{})
	cases := []struct {
		view View
		any  bool
		want string
	}{
		{View{Product: "p"}, false, "product"},
		{View{Product: "p", Service: "s"}, false, "product both service all"},
		{View{Product: "p", Service: "s", Category: "c"}, false, "product both service category all"},
		{View{Product: "p", Service: "s", Category: "d"}, false, "product both service"},
		{View{Category: "c"}, false, "category"},
		{View{}, false, ""},
		{View{}, true, "product both service category all other"},
	}
	for _, c := range cases {
		c.view.JSON = fastjson.MustParse(`{"a":1}`)
		var got []string
		for _, m := range e.Match(&Event{Views: []View{c.view}, Any: c.any}, nil) {
			got = append(got, m.Rule.ID)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: asked %v, not %s", c.view.logsource(), got, c.want)
		}
	}
	two := &Event{Views: []View{{Product: "p", JSON: fastjson.MustParse(`{}`)}, {Product: "q", JSON: fastjson.MustParse(`{"a":1}`)}}}
	if got := e.Match(two, nil); len(got) != 1 || got[0].Rule.ID != "other" || got[0].View != 1 {
		t.Errorf("of two views: %+v", got)
	}
}

func TestAttributedAndAliases(t *testing.T) {
	text := ruleWith("  s: {remit.outside: true, remit.depth|gte: 3, remit.kind: agent, remit.identity|startswith: id-, eventName: Get}\n  condition: s\n")
	o := Options{
		Attributed: []string{"remit.outside", "remit.depth", "remit.kind", "remit.missing"},
		Aliases: map[Logsource]map[string]string{
			{}:             {"eventName": "wrong"},
			{Product: "p"}: {"eventName": "call.method"},
		},
	}
	e := engineOf(t, text, o)
	for _, c := range []struct {
		json string
		attr []Value
		want bool
	}{
		{`{"call":{"method":"GET"}}`, []Value{Bool(true), Number(3), String("agent")}, true},
		{`{"eventName":"get"}`, []Value{Bool(true), Number(3), String("agent")}, true},
		{`{"wrong":"get"}`, []Value{Bool(true), Number(3), String("agent")}, false},
		{`{"eventName":"get"}`, []Value{Bool(false), Number(3), String("agent")}, false},
		{`{"eventName":"get"}`, []Value{Bool(true), Number(2.5), String("agent")}, false},
		{`{"eventName":"get"}`, []Value{Bool(true), Number(3)}, false},
		{`{"eventName":"get"}`, nil, false},
	} {
		ev := eventOf(t, c.json)
		ev.Attributed, ev.Identity = c.attr, "id-1"
		if got := e.Match(ev, nil); (len(got) == 1) != c.want {
			t.Errorf("%s %v: %v", c.json, c.attr, got)
		}
	}
	only := engineOf(t, selection("remit.outside: true"), o)
	if got := only.Match(&Event{Views: []View{{Product: "p"}}, Attributed: []Value{Bool(true)}}, nil); len(got) != 1 {
		t.Error("a rule on attributed fields needs no JSON")
	}
}

func TestPlaceholders(t *testing.T) {
	e := engineOf(t, selection(`a|expand: 'x-%env%-\%env%-%host%'`), Options{Placeholders: map[string][]string{"env": {"prod", "te*"}, "host": {"h1"}}})
	for text, want := range map[string]bool{
		`{"a":"x-prod-%env%-h1"}`: true, `{"a":"X-TEST-%env%-H1"}`: true, `{"a":"x-dev-%env%-h1"}`: false,
	} {
		if got := e.Match(eventOf(t, text), nil); (len(got) == 1) != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestFilters(t *testing.T) {
	for name, condition := range map[string]string{"as the specification": "admin", "as converters": "not admin"} {
		for _, rules := range []string{"[t]", "any"} {
			text := selection("a: 1") + "---\ntitle: f\nlogsource: {product: p}\nfilter: {rules: " + rules + ", admin: {user|startswith: adm_}, condition: " + condition + "}\n"
			e := engineOf(t, text, Options{})
			if got := e.Match(eventOf(t, `{"a":1,"user":"bob"}`), nil); len(got) != 1 {
				t.Errorf("%s, %s: a match that is not to be filtered is gone", name, rules)
			}
			if got := e.Match(eventOf(t, `{"a":1,"user":"ADM_eve"}`), nil); len(got) != 0 {
				t.Errorf("%s, %s: a match was not filtered", name, rules)
			}
		}
	}
}

func TestExplain(t *testing.T) {
	e := engineOf(t, ruleWith(`  sel:
    verb: [get, list]
    objectRef.resource: secrets
    groups|contains: adm
    gone: null
  filter: {user: system}
  words: [hello]
  condition: sel and words and not filter
`), Options{})
	ev := eventOf(t, `{"verb":"LIST","objectRef":{"resource":"secrets"},"groups":["users","admins","adm`+strings.Repeat("é", 300)+`"],"say":"Hello"}`)
	m := e.Match(ev, nil)
	if len(m) != 1 {
		t.Fatal("no match")
	}
	facts := e.Explain(m[0], ev)
	long := 0
	var got []string
	for _, f := range facts {
		if long = max(long, len(f.Value)); len(f.Value) < 100 {
			got = append(got, f.Name+"="+f.Value)
		}
	}
	slices.Sort(got)
	want := "sel: gone=(absent or null)|sel: groups=admins|sel: objectRef.resource=secrets|sel: verb=LIST|words: keyword=hello"
	if strings.Join(got, "|") != want {
		t.Errorf("explained as %s", strings.Join(got, "|"))
	}
	if long < 200 || long > maxFactValue+len("…") {
		t.Errorf("the longest value has %d bytes", long)
	}
}

// TestHostileEvents says that no event stops the engine or costs more than
// its size.
func TestHostileEvents(t *testing.T) {
	e := engineOf(t, selection("- a: x\n- a.b.c.d: y\n- c|fieldref: d\n- e|re: '(a*)*b'\n- f: 'a*a*a*a*b'\n- zzz"), Options{})
	big := strings.Repeat("a", 1<<20)
	list := "[" + strings.Repeat(`"a",`, 50_000) + `"b"]`
	for _, text := range []string{
		`null`, `[]`, `"x"`, `{"a":` + strings.Repeat(`[`, 200) + strings.Repeat(`]`, 200) + `}`,
		`{"e":"` + big + `","f":"` + big + `"}`, `{"c":` + list + `,"d":` + strings.ReplaceAll(list, "a", "q") + `}`,
		`{"a":{"a":1,"a":2,"":{"b":1}},"a.b":[{"c":[]}]}`, "{\"a\":\"\xff\xfe\",\"\xff\":1}",
	} {
		start := time.Now()
		v, err := fastjson.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		ev := &Event{Views: []View{{Product: "p", JSON: v}}}
		for _, m := range e.Match(ev, nil) {
			e.Explain(m, ev)
		}
		// Far more than it takes under the race detector on a busy machine, and
		// far less than what is not linear.
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("an event of %d bytes took %s", len(text), took)
		}
	}
	if cap(e.scratch) > maxScratch {
		t.Errorf("%d bytes are kept from a large event", cap(e.scratch))
	}
}

// TestClones says that clones work side by side and share no state.
func TestClones(t *testing.T) {
	e := engineOf(t, correlationOf("event_count", "a", "{gte: 3}")+"---\n"+selection("what|re: '^a+$'"), Options{})
	results := make(chan string)
	for range 4 {
		clone := e.Clone()
		go func() {
			var found []Match
			for i := range 3 {
				found = clone.Match(happens{at: i, what: "a", who: "u"}.event(i), found)
			}
			var ids []string
			for _, m := range found {
				ids = append(ids, m.Rule.ID)
			}
			results <- strings.Join(ids, " ")
		}()
	}
	for range 4 {
		if got := <-results; got != "t t t k" {
			t.Errorf("a clone matched %s", got)
		}
	}
}
