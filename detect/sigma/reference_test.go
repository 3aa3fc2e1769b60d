package sigma

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/valyala/fastjson"
	"pgregory.net/rapid"
)

// The model of a rule for which it is plain what it means. refRule.matches is
// the meaning, refRule.yaml what the engine gets.
type refRule struct {
	id         string
	logsource  Logsource
	selections []refSelection
	condition  refCondition
}

type refSelection struct {
	name string
	maps [][]refItem // any of the maps, all items of one
}

type refItem struct {
	field    string
	modifier string // "", contains, startswith, endswith, exists, neq
	all      bool
	values   []any // string, int, bool, nil
}

type refCondition struct {
	op   string // name, not, and, or, any, all
	name string
	kids []refCondition
}

func (r refRule) yaml() string {
	var b strings.Builder
	fmt.Fprintf(&b, "title: %s\nid: %s\nlogsource:\n", r.id, r.id)
	for _, p := range [][2]string{{"product", r.logsource.Product}, {"service", r.logsource.Service}, {"category", r.logsource.Category}} {
		if p[1] != "" {
			fmt.Fprintf(&b, "  %s: %s\n", p[0], p[1])
		}
	}
	b.WriteString("detection:\n")
	for _, s := range r.selections {
		fmt.Fprintf(&b, "  %s:\n", s.name)
		for _, m := range s.maps {
			for i, item := range m {
				dash := "   "
				if i == 0 {
					dash = "  -"
				}
				key := item.field
				if item.modifier != "" {
					key += "|" + item.modifier
				}
				if item.all {
					key += "|all"
				}
				values, _ := json.Marshal(item.values)
				if len(item.values) == 1 {
					values, _ = json.Marshal(item.values[0])
				}
				fmt.Fprintf(&b, "%s %q: %s\n", dash, key, values)
			}
		}
	}
	fmt.Fprintf(&b, "  condition: %s\n", r.condition)
	return b.String()
}

func (c refCondition) String() string {
	switch c.op {
	case "not":
		return "not (" + c.kids[0].String() + ")"
	case "and", "or":
		var parts []string
		for _, kid := range c.kids {
			parts = append(parts, "("+kid.String()+")")
		}
		return strings.Join(parts, " "+c.op+" ")
	case "any":
		return "1 of them"
	case "all":
		return "all of s*"
	}
	return c.name
}

func (r refRule) matches(event any) bool { return r.holds(r.condition, event) }

func (r refRule) holds(c refCondition, event any) bool {
	all, some := true, false
	switch c.op {
	case "not":
		return !r.holds(c.kids[0], event)
	case "and", "or":
		for _, kid := range c.kids {
			one := r.holds(kid, event)
			all, some = all && one, some || one
		}
	default:
		for _, s := range r.selections {
			if c.op == "name" && s.name != c.name {
				continue
			}
			one := s.holds(event)
			all, some = all && one, some || one
		}
	}
	if c.op == "or" || c.op == "any" {
		return some
	}
	return all
}

func (s refSelection) holds(event any) bool {
	return slices.ContainsFunc(s.maps, func(m []refItem) bool {
		for _, item := range m {
			if !item.holds(event) {
				return false
			}
		}
		return true
	})
}

func (item refItem) holds(event any) bool {
	values, present := refLookup(event, item.field)
	if item.modifier == "exists" {
		return present == item.values[0].(bool)
	}
	met := func(want any) bool {
		if want == nil {
			return len(values) == 0 || slices.Contains(values, nil)
		}
		return slices.ContainsFunc(values, func(got any) bool { return refFits(want, item.modifier, got) })
	}
	result := item.all
	for _, want := range item.values {
		if met(want) != item.all {
			result = !item.all
			break
		}
	}
	return result != (item.modifier == "neq")
}

func refLookup(v any, path string) ([]any, bool) {
	switch v := v.(type) {
	case []any:
		var all []any
		found := false
		for _, e := range v {
			values, ok := refLookup(e, path)
			all, found = append(all, values...), found || ok
		}
		return all, found
	case map[string]any:
		keys := strings.Split(path, ".")
		for n := len(keys); n > 0; n-- {
			kid, ok := v[strings.Join(keys[:n], ".")]
			if !ok {
				continue
			}
			if n == len(keys) {
				return refFlat(kid), true
			}
			if values, ok := refLookup(kid, strings.Join(keys[n:], ".")); ok {
				return values, true
			}
		}
	}
	return nil, false
}

func refFlat(v any) []any {
	list, ok := v.([]any)
	if !ok {
		return []any{v}
	}
	var all []any
	for _, e := range list {
		all = append(all, refFlat(e)...)
	}
	return all
}

func refFits(want any, modifier string, got any) bool {
	object := false
	var text string
	switch got := got.(type) {
	case nil:
		return false
	case map[string]any:
		b, _ := json.Marshal(got)
		text, object = string(b), true
	case float64:
		text = strconv.FormatFloat(got, 'g', -1, 64)
	default:
		text = fmt.Sprint(got)
	}
	wild := ""
	if s, ok := want.(string); ok {
		wild = s
	} else {
		wild = fmt.Sprint(want)
	}
	if modifier == "contains" || modifier == "endswith" {
		wild = "*" + wild
	}
	if modifier == "contains" || modifier == "startswith" {
		wild += "*"
	}
	if object && !strings.ContainsAny(wild, "*?") {
		return false
	}
	expr := regexp.QuoteMeta(wild)
	expr = strings.ReplaceAll(strings.ReplaceAll(expr, `\*`, `.*`), `\?`, `.`)
	return regexp.MustCompile(`(?is)^` + expr + `$`).MatchString(text)
}

var (
	refFields = []string{"a", "b", "c.d", "c.e", "f.g.h", "x.y"}
	refTexts  = []string{"", "x", "X", "xy", "Yx", "1", "12", "true", "é", "É", "K", "*", "x*", "*y", "?", "x?", "*x*y"}
)

func drawRule(t *rapid.T, id string) refRule {
	r := refRule{id: id}
	r.logsource = rapid.SampledFrom([]Logsource{
		{Product: "p", Service: "s"}, {Product: "p"}, {Service: "s"}, {Category: "c"}, {Product: "q"}, {Product: "p", Service: "s", Category: "c"},
	}).Draw(t, "logsource")
	for i := range rapid.IntRange(1, 3).Draw(t, "selections") {
		s := refSelection{name: fmt.Sprintf("s%d", i)}
		for range rapid.IntRange(1, 2).Draw(t, "maps") {
			var m []refItem
			used := map[string]bool{}
			for range rapid.IntRange(1, 3).Draw(t, "items") {
				item := drawItem(t)
				if key := item.field + item.modifier + fmt.Sprint(item.all); !used[key] {
					used[key] = true
					m = append(m, item)
				}
			}
			s.maps = append(s.maps, m)
		}
		r.selections = append(r.selections, s)
	}
	r.condition = drawCondition(t, r, 2)
	return r
}

func drawItem(t *rapid.T) refItem {
	item := refItem{field: rapid.SampledFrom(refFields).Draw(t, "field")}
	item.modifier = rapid.SampledFrom([]string{"", "", "", "", "", "contains", "startswith", "endswith", "exists", "neq"}).Draw(t, "modifier")
	if item.modifier == "exists" {
		item.values = []any{rapid.Bool().Draw(t, "exists")}
		return item
	}
	item.all = rapid.IntRange(0, 4).Draw(t, "all") == 0
	for range rapid.SampledFrom([]int{1, 1, 1, 2, 3, 12}).Draw(t, "values") {
		item.values = append(item.values, rapid.OneOf(
			rapid.Map(rapid.SampledFrom(refTexts), func(s string) any { return s }),
			rapid.Map(rapid.IntRange(0, 13), func(i int) any { return i }),
			rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		).Draw(t, "value"))
	}
	if item.modifier == "" && !item.all && rapid.IntRange(0, 5).Draw(t, "null") == 0 {
		item.values[0] = nil
	}
	return item
}

func drawCondition(t *rapid.T, r refRule, depth int) refCondition {
	ops := []string{"name", "name", "any", "all"}
	if depth > 0 {
		ops = append(ops, "not", "and", "or", "and", "or")
	}
	c := refCondition{op: rapid.SampledFrom(ops).Draw(t, "op")}
	switch c.op {
	case "name":
		c.name = rapid.SampledFrom(r.selections).Draw(t, "selection").name
	case "not":
		c.kids = []refCondition{drawCondition(t, r, depth-1)}
	case "and", "or":
		c.kids = []refCondition{drawCondition(t, r, depth-1), drawCondition(t, r, depth-1)}
	}
	return c
}

func drawEvent(t *rapid.T) map[string]any {
	scalar := rapid.OneOf(
		rapid.Map(rapid.SampledFrom(refTexts), func(s string) any { return s }),
		rapid.Map(rapid.IntRange(0, 13), func(i int) any { return float64(i) }),
		rapid.SampledFrom([]any{true, false, nil, 1.5, map[string]any{"x": "y"}, []any{}, []any{[]any{"x"}, 1.0}}),
	)
	v := rapid.OneOf(scalar, scalar, scalar, rapid.Map(rapid.SliceOfN(scalar, 0, 3), func(l []any) any { return l }))
	event := map[string]any{}
	put := func(m map[string]any, key string) {
		if rapid.IntRange(0, 3).Draw(t, key) > 0 {
			m[key] = v.Draw(t, "value of "+key)
		}
	}
	put(event, "a")
	put(event, "b")
	inner := map[string]any{}
	put(inner, "d")
	put(inner, "e")
	if rapid.Bool().Draw(t, "list") {
		other := map[string]any{}
		put(other, "d")
		event["c"] = []any{inner, other, "x"}
	} else {
		event["c"] = inner
	}
	switch rapid.IntRange(0, 3).Draw(t, "dots") {
	case 0:
		put(event, "c.d")
	case 1:
		event["f.g"] = map[string]any{"h": v.Draw(t, "h")}
	case 2:
		event["f"] = map[string]any{"g.h": v.Draw(t, "h")}
	case 3:
		event["f"] = map[string]any{"g": map[string]any{"h": v.Draw(t, "h")}}
		event["x.y"] = v.Draw(t, "flat")
	}
	return event
}

// refAsks is Logsource.asks, said in another way.
func refAsks(rule, view Logsource) bool {
	differs := func(a, b string) bool { return a != "" && a != b }
	if differs(rule.Product, view.Product) || differs(rule.Service, view.Service) {
		return false
	}
	if rule.Product == "" && rule.Service == "" {
		return rule.Category == view.Category
	}
	return view.Category == "" || !differs(rule.Category, view.Category)
}

// TestEngineIsReference says that many rules together give what each means
// alone, whatever index they are found by.
func TestEngineIsReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rules []*Rule
		var models []refRule
		for i := range rapid.SampledFrom([]int{1, 3, 12, 30}).Draw(t, "rules") {
			model := drawRule(t, fmt.Sprintf("r%02d", i))
			parsed, err := Parse("rules.yml", []byte(model.yaml()))
			if err != nil {
				t.Fatalf("%v in\n%s", err, model.yaml())
			}
			models, rules = append(models, model), append(rules, parsed...)
		}
		e, unsupported := Compile(rules, Options{})
		if len(unsupported) > 0 {
			t.Fatalf("%s", unsupported[0].Reason)
		}
		var parsers [2]fastjson.Parser
		for range rapid.IntRange(1, 4).Draw(t, "events") {
			ev := Event{Any: rapid.IntRange(0, 3).Draw(t, "any") == 0}
			var events []map[string]any
			for i := range rapid.IntRange(1, 2).Draw(t, "views") {
				event := drawEvent(t)
				text, _ := json.Marshal(event)
				v := View{
					Product: "p", Service: rapid.SampledFrom([]string{"s", "o", ""}).Draw(t, "service"),
					Category: rapid.SampledFrom([]string{"c", ""}).Draw(t, "category"),
				}
				var err error
				if v.JSON, err = parsers[i].ParseBytes(text); err != nil {
					t.Fatal(err)
				}
				events = append(events, event)
				ev.Views = append(ev.Views, v)
			}
			var want []string
			for _, model := range models {
				for i, event := range events {
					if (ev.Any || refAsks(model.logsource, ev.Views[i].logsource())) && model.matches(any(event)) {
						want = append(want, model.id)
						break
					}
				}
			}
			var got []string
			for _, m := range e.Match(&ev, nil) {
				got = append(got, m.Rule.ID)
				e.Explain(m, &ev)
			}
			if !slices.Equal(got, want) {
				for _, model := range models {
					if slices.Contains(got, model.id) != slices.Contains(want, model.id) {
						t.Log(model.yaml())
					}
				}
				text, _ := json.Marshal(events)
				t.Fatalf("matched %v, not %v, on %s", got, want, text)
			}
		}
	})
}
