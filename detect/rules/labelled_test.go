package rules_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/valyala/fastjson"
	"go.yaml.in/yaml/v3"

	"remit"
	"remit/connector"
	"remit/connector/anthropic"
	"remit/connector/aws"
	"remit/connector/azure"
	"remit/connector/gcp"
	"remit/connector/github"
	"remit/connector/kubernetes"
	"remit/connector/okta"
	"remit/connector/openai"
	"remit/detect"
	"remit/detect/sigma"
)

// decoders in the order in which they are asked, with the aliases of the fields
// of their events.
var decoders = []struct {
	connector.Decoder
	aliases map[string]string
}{
	{kubernetes.Audit, kubernetes.FieldAliases},
	{aws.CloudTrail{}, aws.FieldAliases},
	{gcp.Audit{}, gcp.FieldAliases},
	{github.Audit, github.FieldAliases},
	{okta.SystemLog, okta.FieldAliases},
	{anthropic.Activity, anthropic.FieldAliases},
	{openai.Audit, openai.FieldAliases},
	{azure.Activity{}, azure.FieldAliases},
}

func aliases() map[sigma.Logsource]map[string]string {
	all := map[sigma.Logsource]map[string]string{}
	for _, d := range decoders {
		if d.aliases != nil {
			all[sigma.Logsource{Product: d.Source().Product}] = d.aliases
		}
	}
	return all
}

func decoderOf(v *fastjson.Value) connector.Decoder {
	for _, d := range decoders {
		if d.Recognizes(v) {
			return d
		}
	}
	return nil
}

// labelled is one event with the rule of another product that it was written
// for, and whether that rule must match.
type labelled struct {
	Source   []string        `json:"source"`
	Rule     string          `json:"rule"`
	Case     string          `json:"case"`
	Expected bool            `json:"expected"`
	Log      json.RawMessage `json:"log"`
}

// scope says what of these rules concerns us: see testdata/scope.yaml.
type scope struct {
	Rules map[string][]string
	Out   map[string]string
	Unmet map[string]map[string]string // rule, case: why
}

// score counts how our rules answer.
type score struct{ hit, missed, wrong, quiet int }

func (s score) recall() float64    { return ratio(s.hit, s.hit+s.missed) }
func (s score) precision() float64 { return ratio(s.hit, s.hit+s.wrong) }

func ratio(a, b int) float64 {
	if b == 0 {
		return 1
	}
	return float64(a) / float64(b)
}

// floors are what was reached, by file of events: neither may drop.
var floors = map[string]struct{ recall, precision float64 }{
	"anthropic":      {1, 1},
	"aws_cloudtrail": {0.959, 1},
	"aws_eks":        {1, 1},
	"azure_activity": {1, 1},
	"gcp_audit":      {1, 1},
	"gcp_k8s":        {1, 0.833},
	"github":         {1, 1},
	"kubernetes":     {1, 1},
	"okta":           {1, 1},
	"openai":         {1, 1},
}

// TestLabelledEvents measures the rules on events that nobody here wrote.
func TestLabelledEvents(t *testing.T) {
	dir := shared("labelled-events")
	if dir == "" {
		t.Skip("no shared/data/labelled-events beside the module")
	}
	text, err := os.ReadFile("testdata/scope.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var sc scope
	if err := yaml.Unmarshal(text, &sc); err != nil {
		t.Fatal(err)
	}
	all := builtIn(t)
	engine, unsupported := sigma.Compile(all, sigma.Options{Attributed: detect.Attributed, Aliases: aliases()})
	for _, u := range unsupported {
		t.Errorf("%s: %s", u.Rule.Name, u.Reason)
	}
	names := map[string]bool{}
	for _, r := range all {
		names[r.Name] = true
	}
	for theirs, ours := range sc.Rules {
		for _, name := range ours {
			if !names[name] {
				t.Errorf("scope: %s: there is no rule %s", theirs, name)
			}
		}
	}

	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	total, unmet := score{}, 0
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".jsonl")
		s, out := score{}, 0
		for _, l := range readLabelled(t, file) {
			ours, in := sc.Rules[l.Rule]
			if why := sc.Out[l.Rule]; why != "" {
				out++
				continue
			} else if !in {
				t.Errorf("scope: %s is neither in nor out", l.Rule)
				continue
			}
			found, err := match(t, engine, l.Log)
			if err != nil { // no rule can match: it counts as silence
				t.Logf("%s: %s: %s: %v", name, l.Rule, l.Case, err)
			}
			fired := slices.ContainsFunc(found, func(rule string) bool { return slices.Contains(ours, rule) })
			switch {
			case fired && l.Expected:
				s.hit++
			case !fired && !l.Expected:
				s.quiet++
			case fired:
				s.wrong++
			default:
				s.missed++
			}
			if why := sc.Unmet[l.Rule][l.Case]; fired != l.Expected && why != "" {
				unmet++
				t.Logf("%s: %s: %s: fired %v on purpose: %s", name, l.Rule, l.Case, fired, why)
			} else if fired != l.Expected {
				t.Logf("%s: %s: %s: MISS: expected %v, matched %v", name, l.Rule, l.Case, l.Expected, found)
			} else if why != "" {
				t.Errorf("scope: %s: %s is met after all", l.Rule, l.Case)
			}
		}
		t.Logf("%-24s recall %.3f (%d of %d), precision %.3f (%d of %d), silent where they should be %d; out of scope %d",
			name, s.recall(), s.hit, s.hit+s.missed, s.precision(), s.hit, s.hit+s.wrong, s.quiet, out)
		if floor := floors[name]; s.recall() < floor.recall-0.0005 || s.precision() < floor.precision-0.0005 {
			t.Errorf("%s: recall %.3f and precision %.3f: below %.3f and %.3f", name, s.recall(), s.precision(), floor.recall, floor.precision)
		}
		total.hit += s.hit
		total.missed += s.missed
		total.wrong += s.wrong
		total.quiet += s.quiet
	}
	t.Logf("all: recall %.3f, precision %.3f, on %d cases; %d of the differences are known and explained",
		total.recall(), total.precision(), total.hit+total.missed+total.wrong+total.quiet, unmet)
	for theirs := range maps.Keys(sc.Unmet) {
		if _, ok := sc.Rules[theirs]; !ok {
			t.Errorf("scope: unmet names %s, which is not in scope", theirs)
		}
	}
}

// match decodes one event as the product does and returns the rules that match.
func match(t *testing.T, engine *sigma.Engine, raw []byte) ([]string, error) {
	t.Helper()
	v, err := fastjson.ParseBytes(raw)
	if err != nil {
		return nil, err
	}
	d := decoderOf(v)
	if d == nil {
		return nil, remit.Errorf(remit.Unsupported, "", "no decoder knows the event")
	}
	var e connector.Event
	if err := d.Decode(v, &connector.Interner{}, &e); err != nil {
		return nil, fmt.Errorf("decoded by %s: %w", d.Source().Name, err)
	}
	detector, err := detect.New(t.Context(), detect.Options{Engine: engine, BaselineOff: true})
	if err != nil {
		return nil, err
	}
	signals, err := detector.Match(t.Context(), &e, false)
	var names []string
	for _, s := range signals {
		names = append(names, s.Rule)
	}
	return names, err
}

func readLabelled(t *testing.T, file string) []labelled {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []labelled
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<22)
	for lines.Scan() {
		var l labelled
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, l)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}
