package sigma

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/valyala/fastjson"
	"pgregory.net/rapid"
)

// TestDull says that an engine which has seen events before finds what one finds
// that has not, whatever of them came again and with what differences.
func TestDull(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rules []*Rule
		for i := range rapid.SampledFrom([]int{1, 3, 8}).Draw(t, "rules") {
			parsed, err := Parse("rules.yml", []byte(drawRule(t, fmt.Sprintf("r%02d", i)).yaml()))
			if err != nil {
				t.Fatal(err)
			}
			rules = append(rules, parsed...)
		}
		for i := range rapid.IntRange(0, 3).Draw(t, "comparisons") {
			text := fmt.Sprintf("title: n%d\nid: n%d\nlogsource: {product: p}\ndetection:\n  selection:\n    remit.days|%s: %d\n  condition: selection\n", i, i,
				rapid.SampledFrom([]string{"gt", "gte", "lt", "lte"}).Draw(t, "comparison"), rapid.IntRange(0, 3).Draw(t, "bound"))
			parsed, err := Parse("numbers.yml", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			rules = append(rules, parsed...)
		}
		e, unsupported := Compile(rules, Options{Attributed: []string{"remit.days", "remit.name"}})
		if len(unsupported) > 0 {
			t.Fatalf("%s", unsupported[0].Reason)
		}
		var texts []string
		for range rapid.IntRange(1, 4).Draw(t, "events") {
			text, _ := json.Marshal(drawEvent(t))
			texts = append(texts, string(text))
		}
		var parser fastjson.Parser
		for range 30 {
			v, err := parser.Parse(rapid.SampledFrom(texts).Draw(t, "event"))
			if err != nil {
				t.Fatal(err)
			}
			days := rapid.SampledFrom([]Value{{}, Number(0), Number(0.5), Number(1), Number(2.5), Number(4), String("2")}).Draw(t, "days")
			ev := Event{
				Views:      []View{{Product: "p", Service: rapid.SampledFrom([]string{"s", "o"}).Draw(t, "service"), JSON: v}},
				Attributed: []Value{days, String(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name"))},
			}
			var got, want []string
			for _, m := range e.Match(&ev, nil) {
				got = append(got, m.Rule.ID)
			}
			for _, m := range e.Clone().Match(&ev, nil) {
				want = append(want, m.Rule.ID)
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("got %v, a new engine %v, for %s, %v", got, want, v, days)
			}
		}
	})
}

// TestDullIsUsed says that what is read by no rule makes no difference.
func TestDullIsUsed(t *testing.T) {
	rules, err := Parse("rule.yml", []byte("title: t\nid: a\nlogsource: {product: p}\ndetection:\n  selection:\n    verb: delete\n    user.name: [a, b]\n    remit.days|gte: 30\n  condition: selection\n"))
	if err != nil {
		t.Fatal(err)
	}
	e, _ := Compile(rules, Options{Attributed: []string{"remit.days"}})
	for i := range 100 {
		v := fastjson.MustParse(fmt.Sprintf(`{"id":"%d","verb":"get","user":{"name":"a","uid":"%d"}}`, i, i))
		ev := Event{Views: []View{{Product: "p", JSON: v}}, Attributed: []Value{Number(float64(i) / 10)}}
		if len(e.Match(&ev, nil)) > 0 {
			t.Fatal("it matched")
		}
	}
	if e.dull.n != 1 {
		t.Errorf("%d different events, want 1", e.dull.n)
	}
	ev := Event{Views: []View{{Product: "p", JSON: fastjson.MustParse(`{"verb":"delete","user":{"name":"b"}}`)}}, Attributed: []Value{Number(30)}}
	for range 2 {
		if len(e.Match(&ev, nil)) != 1 {
			t.Error("it did not match")
		}
	}
}
