package sigma

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fastjson"
	"pgregory.net/rapid"
)

const parts = `title: a
name: a
logsource: {product: p}
detection: {s: {what: a}, condition: s}
---
title: b
name: b
logsource: {product: p}
detection: {s: {what: b}, condition: s}
---
title: c
name: c
logsource: {product: p}
detection: {s: {what: c}, condition: s}
---
`

func correlationOf(kind, rules, condition string) string {
	text := parts + fmt.Sprintf("title: k\nid: k\ncorrelation:\n  type: %s\n  rules: [%s]\n  group-by: [who]\n  timespan: 10s\n", kind, rules)
	if condition != "" {
		text += "  condition: " + condition + "\n"
	}
	return text
}

var epoch = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// happens is one event of the correlations here.
type happens struct {
	at              int // seconds
	what, who, with string
	n               int
}

func (h happens) event(id int) *Event {
	v := fastjson.MustParse(fmt.Sprintf(`{"what":%q,"who":%q,"with":%q,"n":%d}`, h.what, h.who, h.with, h.n))
	if h.who == "" {
		v.Del("who")
	}
	return &Event{Views: []View{{Product: "p", JSON: v}}, Time: epoch.Add(time.Duration(h.at) * time.Second), ID: fmt.Sprintf("e%d", id)}
}

// run returns at which events, counted from 0, the correlation matched.
func run(e *Engine, all []happens) []int {
	var at []int
	for i, h := range all {
		for _, m := range e.Match(h.event(i), nil) {
			if m.Correlated != nil {
				at = append(at, i)
			}
		}
	}
	return at
}

func TestCorrelations(t *testing.T) {
	a := func(at int) happens { return happens{at: at, what: "a", who: "u", with: "x", n: 1} }
	b := func(at int) happens { return happens{at: at, what: "b", who: "u", with: "y", n: 2} }
	by := func(h happens, who string) happens { h.who = who; return h }
	with := func(h happens, with string) happens { h.with = with; return h }
	n := func(h happens, n int) happens { h.n = n; return h }
	cases := []struct {
		name, kind, rules, condition string
		events                       []happens
		want                         []int
	}{
		{"reached", "event_count", "a", "{gte: 3}", []happens{a(0), a(5), a(10)}, []int{2}},
		{"too slow", "event_count", "a", "{gte: 3}", []happens{a(0), a(5), a(11)}, nil},
		{"once a timespan", "event_count", "a", "{gte: 2}", []happens{a(0), a(1), a(2), a(11), a(12), a(13)}, []int{1, 4}},
		{"groups apart", "event_count", "a", "{gte: 2}", []happens{a(0), by(a(1), "v"), by(a(2), "v")}, []int{2}},
		{"without a group", "event_count", "a", "{gte: 1}", []happens{by(a(0), "")}, nil},
		{"other rules", "event_count", "a", "{gte: 2}", []happens{a(0), b(1)}, nil},
		{"two rules", "event_count", "a, b", "{gt: 1}", []happens{a(0), b(1)}, []int{1}},
		{"a range", "event_count", "a", "{gt: 1, lte: 3}", []happens{a(0), a(1)}, []int{1}},
		{"fewer", "event_count", "a", "{lt: 2}", []happens{a(0), a(1)}, []int{0}},
		{"exactly", "event_count", "a", "{eq: 2}", []happens{a(0), a(1), a(2)}, []int{1}},
		{"not so many", "event_count", "a", "{neq: 1}", []happens{a(0), a(1)}, []int{1}},
		{"a late one counts", "event_count", "a", "{gte: 3}", []happens{a(2), a(10), a(5)}, []int{2}},
		{"too late", "event_count", "a", "{gte: 2}", []happens{a(20), a(5), a(6)}, nil},
		{"different values", "value_count", "a", "{field: with, gte: 2}", []happens{a(0), a(1), with(a(2), "y")}, []int{2}},
		{"same value", "value_count", "a", "{field: with, gte: 2}", []happens{a(0), a(1), a(2)}, nil},
		{"a pair of fields", "value_count", "a", "{field: [with, n], gte: 3}", []happens{a(0), n(a(1), 2), with(a(2), "y")}, []int{2}},
		{"sum", "value_sum", "a", "{field: n, gt: 9}", []happens{n(a(0), 5), n(a(4), 4), n(a(11), 5), n(a(12), 1)}, []int{3}},
		{"average", "value_avg", "a", "{field: n, gte: 5}", []happens{n(a(0), 2), n(a(1), 8)}, []int{1}},
		{"median", "value_percentile", "a", "{field: n, percentile: 50, gte: 5}", []happens{n(a(0), 1), n(a(1), 9), n(a(2), 9)}, []int{2}},
		{"together", "temporal", "a, b", "", []happens{b(0), a(9)}, []int{1}},
		{"apart", "temporal", "a, b", "", []happens{b(0), a(11)}, nil},
		{"some of them", "temporal", "a, b, c", "{gte: 2}", []happens{b(0), a(1)}, []int{1}},
		{"in order", "temporal_ordered", "a, b", "", []happens{a(0), b(9)}, []int{1}},
		{"out of order", "temporal_ordered", "a, b", "", []happens{b(0), a(9)}, nil},
		{"arrived out of order", "temporal_ordered", "a, b", "", []happens{b(5), a(4)}, []int{1}},
	}
	for _, c := range cases {
		t.Run(c.kind+" "+c.name, func(t *testing.T) {
			e := engineOf(t, correlationOf(c.kind, c.rules, c.condition), Options{})
			if got := run(e, c.events); !slices.Equal(got, c.want) {
				t.Errorf("matched at %v, not %v", got, c.want)
			}
		})
	}
}

func TestCorrelated(t *testing.T) {
	e := engineOf(t, correlationOf("event_count", "a", "{gte: 3}"), Options{})
	var found []Match
	var last *Event
	for i := range 3 {
		last = happens{at: i, what: "a", who: "u"}.event(i)
		found = e.Match(last, found)
	}
	if len(found) != 1 {
		t.Fatalf("%d matches, the parts of a correlation among them", len(found))
	}
	c := found[0].Correlated
	if c.Count != 3 || !c.First.Equal(epoch) || !c.Last.Equal(epoch.Add(2*time.Second)) || strings.Join(c.Events, " ") != "e0 e1 e2" || !slices.Equal(c.Group, []Member{{"who", "u"}}) {
		t.Errorf("found %+v", *c)
	}
	facts := fmt.Sprint(e.Explain(found[0], last))
	for _, want := range []string{"{who u}", "{events 3}", "{within 10s}", "{s: what a}"} {
		if !strings.Contains(facts, want) {
			t.Errorf("explained as %s, without %s", facts, want)
		}
	}
}

// TestChain is the specification's example: many failures, then a success.
func TestChain(t *testing.T) {
	const outer = `title: break-in
id: outer
correlation: {type: temporal_ordered, rules: [many, b], group-by: [user], timespan: 1m, aliases: {user: {many: who, b: who}}}
---
title: many
name: many
correlation: {type: event_count, rules: [a], group-by: [who], timespan: 10s, condition: {gte: 3}}
---
`
	e := engineOf(t, outer+parts+"title: x\nname: x\nlogsource: {product: p}\ndetection: {s: {what: x}, condition: s}\n", Options{})
	var got []string
	for i, h := range []happens{
		{at: 0, what: "b", who: "u"},
		{at: 1, what: "a", who: "u"},
		{at: 2, what: "a", who: "u"},
		{at: 3, what: "b", who: "u"},
		{at: 4, what: "a", who: "u"},
		{at: 30, what: "b", who: "v"},
		{at: 31, what: "c", who: "u"},
		{at: 32, what: "b", who: "u"},
	} {
		for _, m := range e.Match(h.event(i), nil) {
			got = append(got, fmt.Sprintf("%d:%s", i, m.Rule.Title))
		}
	}
	if strings.Join(got, " ") != "6:c 7:break-in" {
		t.Errorf("matched %v", got)
	}
}

func TestGenerate(t *testing.T) {
	e := engineOf(t, correlationOf("event_count", "a", "{gte: 2}")+"  generate: true\n", Options{})
	if got := e.Match(happens{what: "a", who: "u"}.event(0), nil); len(got) != 1 || got[0].Rule.Name != "a" {
		t.Errorf("matched %+v", got)
	}
}

// counted is what a correlation means, event by event over everything seen.
type counted struct {
	kind  string
	want  []string // the rules
	least float64
	all   []happens
	clock int
	fired int
	begun bool
}

func (c *counted) add(h happens) bool {
	if c.begun && h.at < c.clock-10 {
		return false
	}
	if !c.begun {
		c.begun, c.clock, c.fired = true, h.at, math.MinInt32
	}
	c.all, c.clock = append(c.all, h), max(c.clock, h.at)
	var window []happens
	for _, one := range c.all {
		if one.at >= c.clock-10 {
			window = append(window, one)
		}
	}
	if c.clock-c.fired <= 10 || !c.holds(window) {
		return false
	}
	c.fired = c.clock
	return true
}

func (c *counted) holds(window []happens) bool {
	values, whats := map[string]bool{}, map[string]bool{}
	sum := 0
	var numbers []int
	for _, h := range window {
		values[h.with], whats[h.what] = true, true
		sum += h.n
		numbers = append(numbers, h.n)
	}
	slices.Sort(numbers)
	switch c.kind {
	case "event_count":
		return float64(len(window)) >= c.least
	case "value_count":
		return float64(len(values)) >= c.least
	case "value_sum":
		return float64(sum) >= c.least
	case "value_avg":
		return float64(sum)/float64(len(window)) >= c.least
	case "value_percentile":
		return float64(numbers[(len(numbers)*75+99)/100-1]) >= c.least
	case "temporal":
		return len(whats) == len(c.want)
	}
	// Some sequence of different events, in the order in which they came.
	var ordered func(from, part, start int) bool
	ordered = func(from, part, start int) bool {
		if part == len(c.want) {
			return true
		}
		for i := from; i < len(window); i++ {
			if window[i].what != c.want[part] {
				continue
			}
			first := start
			if part == 0 {
				first = window[i].at
			}
			if window[i].at-first <= 10 && ordered(i+1, part+1, first) {
				return true
			}
		}
		return false
	}
	return ordered(0, 0, 0)
}

// TestCorrelationIsBruteForce compares all kinds of correlations with counting
// everything again at each event; and goes on from a snapshot somewhere.
func TestCorrelationIsBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom(correlationKinds).Draw(t, "kind")
		least := rapid.IntRange(1, 6).Draw(t, "least")
		want, condition := []string{"a"}, fmt.Sprintf("{field: with, gte: %d}", least)
		switch kind {
		case "value_sum", "value_avg":
			condition = fmt.Sprintf("{field: n, gte: %d}", least)
		case "value_percentile":
			condition = fmt.Sprintf("{field: n, percentile: 75, gte: %d}", least)
		case "temporal", "temporal_ordered":
			want, condition = []string{"a", "b", "c"}[:rapid.IntRange(2, 3).Draw(t, "parts")], ""
		}
		rules, err := Parse("x.yml", []byte(correlationOf(kind, strings.Join(want, ", "), condition)))
		if err != nil {
			t.Fatal(err)
		}
		e, _ := Compile(rules, Options{})
		groups := map[string]*counted{}
		at, late := 0, 3
		if kind == "temporal_ordered" {
			late = 0 // of late events there it only promises the common case
		}
		count := rapid.IntRange(1, 60).Draw(t, "events")
		snapshotAt := rapid.IntRange(0, count).Draw(t, "snapshot at")
		for i := range count {
			at += rapid.SampledFrom([]int{0, 1, 1, 2, 3, 7}).Draw(t, "step")
			h := happens{
				at: at - rapid.SampledFrom([]int{0, 0, 1, late, late * 4}).Draw(t, "late")*min(late, 1), what: rapid.SampledFrom(want).Draw(t, "what"),
				who: rapid.SampledFrom([]string{"u", "v"}).Draw(t, "who"), with: rapid.SampledFrom([]string{"x", "y", "z", "w"}).Draw(t, "with"),
				n: rapid.IntRange(-2, 9).Draw(t, "n"),
			}
			if i == snapshotAt {
				b, err := e.Snapshot()
				if err != nil {
					t.Fatal(err)
				}
				again, _ := Compile(rules, Options{})
				if err := again.Restore(b); err != nil {
					t.Fatal(err)
				}
				if c, _ := again.Snapshot(); !bytes.Equal(b, c) {
					t.Fatalf("restored as %s, not %s", c, b)
				}
				e = again
			}
			c := groups[h.who]
			if c == nil {
				c = &counted{kind: kind, want: want, least: float64(least)}
				groups[h.who] = c
			}
			if got, want := len(e.Match(h.event(i), nil)) == 1, c.add(h); got != want {
				t.Fatalf("%s: event %d, %+v, matched: %v, not %v; before it %+v", kind, i, h, got, want, c.all)
			}
		}
	})
}

// TestBoundedState says that memory stays bounded, that what is dropped is
// counted, and that it is what was used least recently.
func TestBoundedState(t *testing.T) {
	for _, kind := range correlationKinds {
		condition := "{field: n, gte: 1000000, percentile: 50}"
		if strings.HasPrefix(kind, "temporal") {
			condition = ""
		}
		rules, err := Parse("x.yml", []byte(correlationOf(kind, "a, b", condition)))
		if err != nil {
			t.Fatal(err)
		}
		e, unsupported := Compile(rules, Options{MaxState: 100})
		if len(unsupported) > 0 {
			t.Fatal(unsupported[0].Reason)
		}
		for i := range 1000 {
			e.Match(happens{at: i / 100, what: "a", who: fmt.Sprint("u", i%300), n: i}.event(i), nil)
			e.Match(happens{at: i / 100, what: "a", who: "always", n: i}.event(i), nil)
		}
		m := e.Memory()
		if m.Groups+m.Events > 100 || m.Dropped == 0 {
			t.Errorf("%s: remembers %+v", kind, m)
		}
		b, err := e.Snapshot()
		if err != nil || !bytes.Contains(b, []byte(`"values":"BmFsd2F5cw=="`)) { // "always", after its length
			t.Errorf("%s: the group that is always used is gone, %v", kind, err)
		}
	}
}

func TestTimelessEvents(t *testing.T) {
	e := engineOf(t, correlationOf("event_count", "a", "{gte: 1}"), Options{})
	ev := happens{what: "a", who: "u"}.event(0)
	ev.Time = time.Time{}
	if got := e.Match(ev, nil); len(got) != 0 || e.Memory().Late != 1 {
		t.Errorf("an event without a time matched %v, %+v", got, e.Memory())
	}
}

func TestRestoreFaults(t *testing.T) {
	e := engineOf(t, correlationOf("temporal", "a, b", ""), Options{})
	e.Match(happens{what: "a", who: "u"}.event(0), nil)
	good, err := e.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var s snapshot
	if err := json.Unmarshal(good, &s); err != nil {
		t.Fatal(err)
	}
	broken := s
	broken.Groups = slices.Clone(s.Groups)
	broken.Groups[0].Entries = nil
	short, _ := json.Marshal(broken)
	for _, b := range [][]byte{nil, []byte("{"), []byte(`{"version":99}`), short} {
		if err := e.Restore(b); err == nil {
			t.Errorf("%q was restored", b)
		}
		if got := e.Match(happens{at: 1, what: "b", who: fmt.Sprint("w", len(b))}.event(1), nil); len(got) != 0 {
			t.Errorf("matched %v", got)
		}
	}
	if got := e.Match(happens{at: 1, what: "b", who: "u"}.event(1), nil); len(got) != 1 {
		t.Error("a failed restore has lost the state")
	}
	other := engineOf(t, correlationOf("temporal", "a, c", ""), Options{})
	if err := other.Restore(good); err != nil || other.Memory().Groups != 0 {
		t.Errorf("another correlation took the state over: %v, %+v", err, other.Memory())
	}
}

// FuzzRestore feeds damaged snapshots.
func FuzzRestore(f *testing.F) {
	kinds := map[string]string{"event_count": "{gte: 3}", "value_count": "{field: with, gte: 3}", "value_percentile": "{field: n, percentile: 50, gte: 1000}", "temporal_ordered": ""}
	for kind, condition := range kinds {
		e := engineOf(f, correlationOf(kind, "a, b", condition), Options{})
		for i := range 4 {
			e.Match(happens{at: i, what: "a", who: "u", with: fmt.Sprint(i % 2), n: i}.event(i), nil)
		}
		b, err := e.Snapshot()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(kind, b)
	}
	f.Fuzz(func(t *testing.T, kind string, b []byte) {
		condition, ok := kinds[kind]
		if !ok {
			return
		}
		e := engineOf(t, correlationOf(kind, "a, b", condition), Options{MaxState: 50})
		if e.Restore(b) != nil {
			return
		}
		for i := range 4 {
			e.Match(happens{at: i * 6, what: []string{"a", "b"}[i%2], who: "u", with: fmt.Sprint(i), n: i}.event(i), nil)
		}
		if _, err := e.Snapshot(); err != nil {
			t.Error(err)
		}
	})
}
