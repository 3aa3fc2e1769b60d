package detect_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/valyala/fastjson"
	"pgregory.net/rapid"

	"remit"
	"remit/connector"
	"remit/detect"
	"remit/detect/sigma"
)

const system = remit.ID("sys_x")

var start = time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)

// engineOf compiles one rule a severity, each of which matches an action that
// is called like it ("high", "high-2", …).
func engineOf(t testing.TB, more ...string) *sigma.Engine {
	t.Helper()
	if len(more) == 0 && plainEngine != nil {
		return plainEngine.Clone()
	}
	plain := len(more) == 0
	var all []*sigma.Rule
	for _, level := range []string{"informational", "low", "medium", "high", "critical"} {
		for n := range 40 {
			name := level
			if n > 0 {
				name += "-" + strconv.Itoa(n)
			}
			more = append(more, fmt.Sprintf(`title: A %[1]s thing
id: 00000000-0000-4000-8000-%012[3]x
name: %[1]s
level: %[2]s
logsource: {product: p}
detection: {sel: {remit.action: %[1]s}, condition: sel}
remit: {remedy: Look., words: "{remit.principal} did %[1]s from {remit.address} with {remit.user_agent}"}
`, name, level, len(more)))
		}
	}
	for n, text := range more {
		rules, err := sigma.Parse(fmt.Sprintf("%d.yml", n), []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rules...)
	}
	engine, unsupported := sigma.Compile(all, sigma.Options{Attributed: detect.Attributed})
	for _, u := range unsupported {
		t.Fatalf("%s: %s", u.Rule.Title, u.Reason)
	}
	if plain {
		plainEngine = engine
	}
	return engine
}

// plainEngine is that of the levels alone, compiled once.
var plainEngine *sigma.Engine

// states keeps what checkpoints wrote.
type states map[[3]string][]byte

func (s states) States(_ context.Context, system remit.ID, kind, key string) ([]remit.State, error) {
	var out []remit.State
	for k, data := range s {
		if k[0] == string(system) && k[1] == kind && (key == "" || k[2] == key) {
			out = append(out, remit.State{System: system, Kind: kind, Key: k[2], Data: data})
		}
	}
	slices.SortFunc(out, func(a, b remit.State) int { return strings.Compare(a.Key, b.Key) })
	return out, nil
}

// tester is what tests and property tests have in common.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// watch is a detector with what its checkpoints have written.
type watch struct {
	t        tester
	options  detect.Options
	d        *detect.Detector
	kept     states
	findings map[remit.ID]remit.Finding
}

func newWatch(t tester, engine *sigma.Engine, baselines bool) *watch {
	w := &watch{t: t, kept: states{}, findings: map[remit.ID]remit.Finding{}}
	w.options = detect.Options{Engine: engine, States: w.kept, BaselineOff: !baselines}
	w.restart()
	return w
}

// restart goes on from the last checkpoint, as after a crash.
func (w *watch) restart() {
	w.t.Helper()
	d, err := detect.New(context.Background(), w.options)
	if err != nil {
		w.t.Fatal(err)
	}
	w.d = d
}

func (w *watch) checkpoint() {
	w.t.Helper()
	var c remit.Checkpoint
	if err := w.d.Changed(&c); err != nil {
		w.t.Fatal(err)
	}
	for _, s := range c.States {
		w.kept[[3]string{string(s.System), s.Kind, s.Key}] = s.Data
	}
	for _, f := range c.Findings {
		if f.ID == "" || f.Message == "" || f.Policy == "" || f.Risks == nil || f.Controls == nil || f.Evidence == nil {
			w.t.Errorf("an incomplete finding: %+v", f)
		}
		w.findings[f.ID] = f
	}
}

// activityAt is an action of an account.
func activityAt(at time.Time, who, action string) remit.Activity {
	ref := remit.Ref{Kind: "ServiceAccount", Namespace: "shop", Name: who}
	return remit.Activity{
		ID: who + "/" + action + "/" + at.Format(time.RFC3339Nano), System: system, Time: at, Identity: remit.IdentityID(system, ref), Actor: ref,
		Principal: "system:serviceaccount:shop:" + who, Type: remit.ServiceAccount, Action: action,
		Credential: "JTI=" + who, Root: "JTI=" + who, CredentialType: remit.ShortLivedToken, Address: "10.0.0.1", UserAgent: "kubectl/1.36", Outcome: remit.Allowed,
	}
}

var nothing = fastjson.MustParse(`{}`)

func (w *watch) observe(all ...remit.Activity) {
	w.t.Helper()
	for _, a := range all {
		e := connector.Event{Activity: a, Views: []connector.View{{Product: "p", JSON: nothing}}}
		if err := w.d.Observe(context.Background(), &e); err != nil {
			w.t.Fatal(err)
		}
	}
}

// found are the findings so far in the order of their first events.
func (w *watch) found() []remit.Finding {
	w.checkpoint()
	var all []remit.Finding
	for _, f := range w.findings {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b remit.Finding) int {
		if c := a.First.Compare(b.First); c != 0 {
			return c
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
	return all
}

// one is the only finding.
func (w *watch) one() remit.Finding {
	w.t.Helper()
	all := w.found()
	if len(all) != 1 {
		w.t.Fatalf("%d findings: %+v", len(all), all)
	}
	return all[0]
}

// TestOneIncident combines what one identity does within a day into one finding,
// and tells it by the worst of it.
func TestOneIncident(t *testing.T) {
	w := newWatch(t, engineOf(t), false)
	second := activityAt(start.Add(23*time.Hour), "api", "high")
	second.Address, second.Root, second.Credential, second.Minted.Credential = "10.9.0.4", "X509SHA256=1", "JTI=stolen", "JTI=next"
	last := activityAt(start.Add(46*time.Hour), "api", "medium") // a day after the second, two after the first
	w.observe(
		activityAt(start, "api", "medium"), second, last,
		activityAt(start, "web", "medium"), // another identity
		activityAt(start, "api", "harmless"),
	)
	all := w.found()
	if len(all) != 2 {
		t.Fatalf("%d findings", len(all))
	}
	f := all[slices.IndexFunc(all, func(f remit.Finding) bool { return f.Subject.Name == "api" })]
	if f.Severity != remit.High || f.Policy != "high" || f.Title != "A high thing" || f.Remedy != "Look." ||
		f.Message != "system:serviceaccount:shop:api did high from 10.9.0.4 with kubectl/1.36" {
		t.Errorf("%s %s %q %q", f.Severity, f.Policy, f.Title, f.Message)
	}
	if !f.First.Equal(start) || !f.Last.Equal(last.Time) || f.EventCount != 3 || len(f.Events) != 3 {
		t.Errorf("from %s to %s, %d events %v", f.First, f.Last, f.EventCount, f.Events)
	}
	if !slices.Equal(f.Addresses, []string{"10.0.0.1", "10.9.0.4"}) || !slices.Equal(f.Credentials, []string{"JTI=api", "X509SHA256=1", "JTI=stolen", "JTI=next"}) {
		t.Errorf("%v %v", f.Addresses, f.Credentials)
	}
	if !strings.Contains(f.Words, "did medium from 10.0.0.1 with kubectl/1.36, 2 times until 2026-11-22 06:00:00 UTC.") {
		t.Errorf("words: %s", f.Words)
	}
	if f.Subject.ID != last.Identity || f.Identity != last.Identity || f.Subject.Ref != last.Actor || f.System != system {
		t.Errorf("about %+v", f.Subject)
	}
}

// TestQuiet begins another finding when more than a day has passed, and keeps
// the ID of one that goes on.
func TestQuiet(t *testing.T) {
	w := newWatch(t, engineOf(t), false)
	w.observe(activityAt(start, "api", "high"))
	first := w.one()
	w.observe(activityAt(start.Add(24*time.Hour), "api", "high"))
	if again := w.one(); again.ID != first.ID || again.EventCount != 2 {
		t.Errorf("the ID became %s, with %d events", again.ID, again.EventCount)
	}
	w.observe(activityAt(start.Add(48*time.Hour+time.Second), "api", "high"))
	all := w.found()
	if len(all) != 2 || all[0].ID != first.ID || all[1].EventCount != 1 {
		t.Errorf("%+v", all)
	}
}

// TestIncidentsBetweenCheckpoints keeps each of several incidents that one
// checkpoint sees, as when a month's log is imported in seconds: all but the
// last were lost.
func TestIncidentsBetweenCheckpoints(t *testing.T) {
	w := newWatch(t, engineOf(t), false)
	for day := range 10 {
		w.observe(activityAt(start.Add(time.Duration(day)*48*time.Hour), "api", "high"))
	}
	if all := w.found(); len(all) != 10 {
		t.Errorf("%d findings of 10 incidents", len(all))
	}
}

// TestOlderLog reads October after November: what happened in October is not
// part of November's incident, whose beginning it had become, and November goes
// on as it was.
func TestOlderLog(t *testing.T) {
	w := newWatch(t, engineOf(t), false)
	november := start
	october := start.Add(-30 * 24 * time.Hour)
	w.observe(activityAt(november, "api", "high"))
	first := w.one()
	w.observe(
		activityAt(october, "api", "medium"), activityAt(october.Add(time.Hour), "api", "medium"),
		activityAt(october.Add(72*time.Hour), "api", "high-1"),
	)
	w.checkpoint()
	w.restart()
	w.observe(activityAt(october.Add(73*time.Hour), "api", "high-1"), activityAt(november.Add(time.Hour), "api", "high"))
	all := w.found()
	if len(all) != 3 {
		t.Fatalf("%d findings: %+v", len(all), all)
	}
	for n, want := range []struct {
		first  time.Time
		events int64
	}{{october, 2}, {october.Add(72 * time.Hour), 2}, {november, 2}} {
		if !all[n].First.Equal(want.first) || all[n].EventCount != want.events {
			t.Errorf("finding %d: from %s, %d events", n, all[n].First, all[n].EventCount)
		}
	}
	if all[2].ID != first.ID {
		t.Error("the newest incident became another one")
	}
}

// TestOutOfOrder gives one finding with the right bounds however the events of
// an incident come.
func TestOutOfOrder(t *testing.T) {
	actions := []string{"low", "medium", "high", "medium-1", "low-1"}
	for range 20 {
		w := newWatch(t, engineOf(t), false)
		for _, n := range rand.Perm(len(actions)) {
			w.observe(activityAt(start.Add(time.Duration(n)*4*time.Hour), "api", actions[n]))
		}
		w.observe(activityAt(start.Add(5*time.Hour), "api", "high"), activityAt(start.Add(3*time.Hour), "api", "high"))
		f := w.one()
		if !f.First.Equal(start) || !f.Last.Equal(start.Add(16*time.Hour)) || f.Severity != remit.High || f.EventCount != 7 {
			t.Errorf("%s to %s, %s, %d events", f.First, f.Last, f.Severity, f.EventCount)
		}
		// The last of three came first or second, and said "until 11:00".
		if !strings.Contains(f.Words, "3 times until 2026-11-20 16:00:00 UTC") {
			t.Errorf("words: %s", f.Words)
		}
	}
}

// TestSeverity adds up what several rules say about one identity.
func TestSeverity(t *testing.T) {
	for _, test := range []struct {
		actions string
		want    remit.Severity // "" for no finding
	}{
		{"informational", ""},
		{"informational informational-1 informational-2 informational-3 informational-4", ""},
		{"low", remit.Low},
		{"low low-1 low-2", remit.Low},
		{"low low low low low low", remit.Low}, // one rule counts once
		{"low low-1 low-2 low-3", remit.Medium},
		{"low low-1 low-2 low-3 low-4 low-5 low-6 low-7 low-8 low-9 low-10 low-11 low-12", remit.Medium}, // and no further
		{"medium", remit.Medium},
		{"medium low low-1 low-2", remit.Medium},
		{"medium medium-1", remit.Medium},
		{"medium medium-1 medium-2", remit.High},
		{"medium medium-1 low low-1 low-2 low-3", remit.High},
		{"medium medium medium medium", remit.Medium},
		{"high medium medium-1 medium-2", remit.High},
		{"high high-1 high-2 high-3", remit.High},
		{"low critical", remit.Critical},
	} {
		w := newWatch(t, engineOf(t), false)
		for n, action := range strings.Fields(test.actions) {
			w.observe(activityAt(start.Add(time.Duration(n)*time.Minute), "api", action))
		}
		got := remit.Severity("")
		for _, f := range w.found() {
			got = f.Severity
		}
		if got != test.want {
			t.Errorf("%s: %q, not %q", test.actions, got, test.want)
		}
	}
}

// TestUrgent says when somebody should see a finding at once: when one of at
// least medium severity is new or worse, and not again when nothing is.
func TestUrgent(t *testing.T) {
	w := newWatch(t, engineOf(t), false)
	at := start
	for _, step := range []struct {
		action string
		want   bool
	}{
		{"informational", false},
		{"low", false},
		{"low-1", false},
		{"low-2", false},
		{"low-3", true}, // adds up to medium
		{"low-4", false},
		{"medium", false}, // is medium already
		{"medium-1", true},
		{"medium-2", false},
		{"high", false}, // is high already
		{"critical", true},
		{"critical-1", false},
	} {
		at = at.Add(time.Minute)
		w.observe(activityAt(at, "api", step.action))
		if got := w.d.Urgent(); got != step.want {
			t.Errorf("after %s: urgent %t", step.action, got)
		}
		w.checkpoint()
		if w.d.Urgent() {
			t.Errorf("after %s: still urgent when it is written", step.action)
		}
	}
	// Urgency stays until it is written.
	w.observe(activityAt(at.Add(48*time.Hour), "api", "high"), activityAt(at.Add(48*time.Hour), "api", "harmless"))
	if !w.d.Urgent() {
		t.Error("forgotten")
	}
}

// TestBounded keeps a finding small whatever an identity does, and the worst of
// it in: a flood of weak signals hid all that came after.
func TestBounded(t *testing.T) {
	w := newWatch(t, engineOf(t), false)
	for n := range 500 {
		a := activityAt(start.Add(time.Duration(n)*time.Second), "api", "low-"+strconv.Itoa(1+n%39))
		a.ID, a.Address, a.Credential = strings.Repeat("e", 10_000)+strconv.Itoa(n), fmt.Sprintf("10.0.%d.%d", n/256, n%256), fmt.Sprintf("JTI=%d", n)
		w.observe(a)
	}
	w.observe(activityAt(start.Add(time.Hour), "api", "critical"))
	f := w.one()
	if f.Severity != remit.Critical || f.Policy != "critical" {
		t.Errorf("%s %s: the worst is hidden", f.Severity, f.Policy)
	}
	if len(f.Credentials) != remit.MaxSeen || len(f.Addresses) != remit.MaxSeen || len(f.Events) > remit.MaxSeen || f.EventCount != 501 {
		t.Errorf("%d credentials, %d addresses, %d events of %d", len(f.Credentials), len(f.Addresses), len(f.Events), f.EventCount)
	}
	if text, err := json.Marshal(f); err != nil || len(text) > 64<<10 {
		t.Errorf("the finding has %d bytes: %v", len(text), err)
	}
	state := w.kept[[3]string{string(system), "incident", string(f.Identity)}]
	if len(state) == 0 || len(state) > 128<<10 {
		t.Errorf("the state has %d bytes", len(state))
	}
}

// TestHostileText shows a reader nothing that a client chose to be unreadable.
func TestHostileText(t *testing.T) {
	for _, hostile := range []string{
		"\x1b]0;owned\a\x1b[31m",
		"\x9b31m", // the same as ESC [ to old terminals, and no UTF-8: it came through as it was
		"a\r\nb\u202egnp.exe",
		"\u2028\u200b",
		strings.Repeat("\U0010ffff", 5000),
		strings.Repeat("é", 5000),
		`ends with a quote and has an escape"` + "\x00" + `"`,
		"{remit.address}{",
	} {
		w := newWatch(t, engineOf(t), true)
		a := activityAt(start, "api", "high")
		a.Principal, a.UserAgent, a.Address, a.Credential, a.Root, a.ID = hostile, hostile, hostile, hostile, hostile, hostile
		a.Resource.Name, a.Minted.Credential, a.Minted.For.Name, a.Reason = hostile, hostile, hostile, hostile
		a.Chain = []remit.Ref{{Name: hostile}}
		w.observe(a)
		f := w.one()
		check := func(what, text string, most int) {
			if len(text) > most {
				t.Errorf("%s of %.20q has %d bytes", what, hostile, len(text))
			}
			if !utf8.ValidString(text) {
				t.Errorf("%s of %.20q is no UTF-8: %.200q", what, hostile, text)
			}
			for _, r := range text {
				if !strconv.IsPrint(r) {
					t.Errorf("%s of %.20q has %q", what, hostile, r)
					break
				}
			}
		}
		check("message", f.Message, 1000)
		check("words", f.Words, 8000)
		for _, fact := range f.Evidence {
			check("evidence", fact.Value, 5000)
		}
		for _, list := range [][]string{f.Credentials, f.Addresses, f.Events} {
			for _, one := range list {
				check("list", one, 600)
			}
		}
	}
	// What ends with a quote keeps it.
	w := newWatch(t, engineOf(t), false)
	a := activityAt(start, "api", "high")
	a.Principal = "\x01\"x\""
	w.observe(a)
	if got := w.one().Message; !strings.HasPrefix(got, `\x01\"x\" did high`) {
		t.Errorf("%s", got)
	}
}

// TestRestored interrupts a run at random checkpoints and goes on from each, or
// crashes before one and reads again what came since: the findings are those of
// one uninterrupted run. Correlations and baselines go on as well.
func TestRestored(t *testing.T) {
	engine := engineOf(t, `title: Three at once
name: three
type: correlation
correlation: {type: event_count, rules: [counted], group-by: [remit.identity], timespan: 1h, condition: {gte: 3}}
level: high
`, `title: Counted
name: counted
level: low
logsource: {product: p}
detection: {sel: {remit.action: counted}, condition: sel}
`)
	rapid.Check(t, func(t *rapid.T) {
		action := rapid.SampledFrom([]string{"informational", "low", "medium", "high", "counted", "counted", "harmless"})
		var events []remit.Activity
		at := start
		for n := range rapid.IntRange(1, 40).Draw(t, "events") {
			at = at.Add(rapid.SampledFrom([]time.Duration{0, time.Minute, 20 * time.Minute, 7 * time.Hour, 25 * time.Hour, -time.Minute, -30 * time.Hour}).Draw(t, "pause"))
			a := activityAt(at, rapid.SampledFrom([]string{"api", "web"}).Draw(t, "who"), action.Draw(t, "action"))
			a.ID = strconv.Itoa(n)
			a.Address = rapid.SampledFrom([]string{"10.0.0.1", "10.9.0.4", ""}).Draw(t, "address")
			events = append(events, a)
		}
		once := newWatch(t, engine, true)
		once.observe(events...)
		want := once.found()

		again := newWatch(t, engine, true)
		committed := 0
		for n := 0; n < len(events); n++ {
			again.observe(events[n])
			switch rapid.IntRange(0, 3).Draw(t, "then") {
			case 0:
				again.checkpoint()
				committed = n + 1
			case 1:
				again.checkpoint()
				committed = n + 1
				again.restart()
			case 2:
				if rapid.Bool().Draw(t, "crash") {
					again.restart()
					n = committed - 1
					again.checkpoint() // what nothing was fed to changes nothing
				}
			}
		}
		if got := again.found(); !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %s\nwant %s", text(got), text(want))
		}
	})
}

func text(all []remit.Finding) string {
	b, _ := json.MarshalIndent(all, "", " ")
	return string(b)
}

// FuzzStates goes on from states that somebody else has written: they are
// refused, or lead to findings that can be written.
func FuzzStates(f *testing.F) {
	engine := engineOf(f, `title: Three at once
name: three
type: correlation
correlation: {type: event_count, rules: [counted], group-by: [remit.identity], timespan: 1h, condition: {gte: 3}}
level: high
`, `title: Counted
name: counted
level: low
logsource: {product: p}
detection: {sel: {remit.action: counted}, condition: sel}
`)
	w := newWatch(f, engine, true)
	for n, action := range []string{"counted", "counted", "high", "low", "counted", "harmless"} {
		w.observe(activityAt(start.Add(time.Duration(n)*time.Minute), "api", action))
	}
	w.checkpoint()
	for key, data := range w.kept {
		f.Add(slices.Index([]string{"baseline", "correlation", "incident"}, key[1]), data)
	}
	f.Add(2, []byte(`{"open":true,"first":"2026-11-20T08:00:00Z","last":"2026-11-20T08:00:00Z","signs":null}`))
	f.Add(2, []byte(`{"open":true,"last":"9999-12-31T23:59:59-23:59","signs":[{"severity":"none"}]}`))
	first := activityAt(start, "api", "high")
	keys := [][3]string{{"", "baseline", "clock"}, {string(system), "correlation", "rules"}, {string(system), "incident", string(first.Identity)}}
	for key := range w.kept {
		if key[1] == "baseline" && key[2] != "clock" {
			keys = append(keys, key)
		}
	}
	f.Fuzz(func(t *testing.T, kind int, data []byte) {
		kept := states{}
		for _, key := range keys {
			if kind == slices.Index([]string{"baseline", "correlation", "incident"}, key[1]) {
				kept[key] = data
			}
		}
		d, err := detect.New(context.Background(), detect.Options{Engine: engine, States: kept})
		if err != nil {
			return
		}
		for n, action := range []string{"counted", "high", "low", "counted", "counted"} {
			e := connector.Event{Activity: activityAt(start.Add(time.Duration(n)*13*time.Hour), "api", action), Views: []connector.View{{Product: "p", JSON: nothing}}}
			if err := d.Observe(context.Background(), &e); err != nil {
				return
			}
		}
		d.Urgent()
		var c remit.Checkpoint
		if err := d.Changed(&c); err != nil {
			return
		}
		for _, finding := range c.Findings {
			if finding.ID == "" || len(finding.Evidence) == 0 {
				t.Fatalf("%+v", finding)
			}
			if _, err := json.Marshal(finding); err != nil {
				t.Fatal(err)
			}
		}
	})
}
