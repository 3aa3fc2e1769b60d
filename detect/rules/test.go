package rules

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fastjson"

	"remit"
	"remit/detect/sigma"
)

// Result is how one test of a rule went.
type Result struct {
	Rule   *sigma.Rule
	Test   string // its name; "" when the rule itself is at fault
	Expect bool
	Got    bool

	// Err says why the test could not be run: the rule is not supported, or
	// the test is written wrongly. Nil when it ran.
	Err error
}

// OK says whether the test ran and went as expected.
func (r Result) OK() bool { return r.Err == nil && r.Got == r.Expect }

// Test runs the tests that the rules bring, compiled with the options. A
// correlation is tested together with all other rules, a detection with the
// filters alone, because one that is there to be counted is silent beside its
// correlation. A rule without tests has no result, unless it cannot be compiled.
func Test(rules []*sigma.Rule, o sigma.Options) []Result {
	together, unsupported := sigma.Compile(rules, o)
	var results []Result
	var filters []*sigma.Rule
	for _, r := range rules {
		if r.Kind == sigma.Filter {
			filters = append(filters, r)
		}
	}
	for _, u := range unsupported {
		results = append(results, Result{Rule: u.Rule, Err: remit.Errorf(remit.Unsupported, "rule "+u.Rule.Ref(), "%s", u.Reason)})
	}
	for _, r := range rules {
		meta, err := Of(r)
		if err != nil {
			results = append(results, Result{Rule: r, Err: err})
			continue
		}
		engine := together
		if r.Kind == sigma.Detection && len(meta.Tests) > 0 {
			engine, _ = sigma.Compile(append(filters[:len(filters):len(filters)], r), o)
		}
		for _, c := range meta.Tests {
			got, err := c.run(engine.Clone(), r, o.Attributed)
			results = append(results, Result{Rule: r, Test: c.Name, Expect: c.Expect, Got: got, Err: err})
		}
	}
	return results
}

// run says whether the rule matches one of the events of c. An engine's clone
// has no memory of other tests.
func (c *Case) run(engine *sigma.Engine, r *sigma.Rule, attributed []string) (bool, error) {
	p := &player{engine: engine, rule: r, attributed: attributed, now: time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC)}
	for _, s := range c.Before {
		if _, err := p.play(s); err != nil {
			return false, err
		}
	}
	return p.play(c.Step)
}

type player struct {
	engine     *sigma.Engine
	rule       *sigma.Rule
	attributed []string
	now        time.Time
	parser     fastjson.Parser
	events     int
}

func (p *player) play(s Step) (bool, error) {
	event := s.Event
	if len(event) == 0 {
		event = json.RawMessage("{}")
	}
	every := time.Duration(s.Every)
	if every == 0 {
		every = time.Second
	}
	matched := false
	for i := range max(s.Times, 1) {
		v, err := p.parser.ParseBytes(event)
		if err != nil || v.Type() != fastjson.TypeObject {
			return false, remit.Errorf(remit.Invalid, "rule "+p.rule.Ref(), "the event of a test is not an object")
		}
		values, err := p.values(s, i)
		if err != nil {
			return false, err
		}
		if s.Vary != "" && !strings.HasPrefix(s.Vary, "remit.") {
			vary(v, strings.Split(s.Vary, "."), i)
		}
		p.now = p.now.Add(every)
		p.events++
		l := p.rule.Logsource
		ev := sigma.Event{
			Views:      []sigma.View{{Product: l.Product, Service: l.Service, Category: l.Category, JSON: v}},
			Attributed: values,
			Time:       p.now,
			ID:         "test-" + strconv.Itoa(p.events),
			Any:        p.rule.Kind == sigma.Correlation, // which has no logsource of its own
		}
		for _, m := range p.engine.Match(&ev, nil) {
			matched = matched || m.Rule == p.rule
		}
	}
	return matched, nil
}

// values are the attributed fields in the engine's order.
func (p *player) values(s Step, i int) ([]sigma.Value, error) {
	values := make([]sigma.Value, len(p.attributed))
	place := func(name string) int {
		for at, known := range p.attributed {
			if known == name {
				return at
			}
		}
		return -1
	}
	for name, v := range s.Attributed {
		at := place(name)
		if at < 0 {
			return nil, remit.Errorf(remit.Invalid, "rule "+p.rule.Ref(), "there is no attributed field %q", name)
		}
		switch v := v.(type) {
		case string:
			values[at] = sigma.String(v)
		case bool:
			values[at] = sigma.Bool(v)
		case float64:
			values[at] = sigma.Number(v)
		case nil: // absent
		default:
			return nil, remit.Errorf(remit.Invalid, "rule "+p.rule.Ref(), "the attributed field %q is a text, a number, true or false", name)
		}
		if name == s.Vary {
			values[at] = sigma.String(fmt.Sprintf("%v-%d", v, i))
		}
	}
	return values, nil
}

// vary appends a number to the field at the path, which it makes when there is
// none.
func vary(v *fastjson.Value, path []string, i int) {
	var arena fastjson.Arena
	for _, key := range path[:len(path)-1] {
		next := v.Get(key)
		if next == nil || next.Type() != fastjson.TypeObject {
			next = arena.NewObject()
			v.Set(key, next)
		}
		v = next
	}
	last := path[len(path)-1]
	v.Set(last, arena.NewString(string(v.GetStringBytes(last))+"-"+strconv.Itoa(i)))
}
