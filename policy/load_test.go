package policy

import (
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"cel.dev/cel-go/common/types"

	"remit"
)

func timestamp(t time.Time) types.Timestamp { return types.Timestamp{Time: t} }

// loadText loads the text as the only file.
func loadText(t testing.TB, content string) *Set {
	t.Helper()
	set := loadFaulty(t, content)
	for _, p := range set.Problems() {
		t.Error(p)
	}
	return set
}

func loadFaulty(t testing.TB, content string) *Set {
	t.Helper()
	set, err := load([]Source{{FS: fstest.MapFS{"my.yaml": {Data: []byte(content)}}}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func loadFiles(t testing.TB, files ...fstest.MapFS) *Set {
	t.Helper()
	var sources []Source
	for _, f := range files {
		sources = append(sources, Source{Name: "dir", FS: f})
	}
	set, err := Load(sources...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func file(content string) fstest.MapFS {
	return fstest.MapFS{"a.yaml": {Data: []byte(content)}}
}

func TestOverride(t *testing.T) {
	set := loadFiles(t, file(`
override: credential-not-rotated
severity: critical
parameters: {max_age: 30d}
scope: {namespaces: [payments]}
---
override: [agent-can-write, "webhook-*"]
disabled: true
---
override: "*"
scope:
  except:
    - namespaces: [sandbox-*]
`))
	for _, p := range set.Problems() {
		t.Error(p)
	}
	p := set.Policy("credential-not-rotated")
	if p.Severity != remit.Critical || len(p.SeverityWhen) != 0 || p.Parameters[0].Value != "30d" || p.Parameters[0].Default != "90d" || p.Parameters[1].Value != "180d" {
		t.Errorf("%+v", p)
	}
	if got := p.Overridden; !slices.Equal(got, []string{"dir/a.yaml", "dir/a.yaml"}) {
		t.Errorf("overridden by %q", got)
	}
	for id, runs := range map[string]bool{"agent-can-write": false, "webhook-outside": false, "agent-can-read-secrets": true} {
		if set.Policy(id).Runs() != runs {
			t.Errorf("%s runs: %v", id, !runs)
		}
	}
	all := records(t, `
credentials:
- {kind: Secret, namespace: payments, name: a, key: k, type: password, created: -40d}
- {kind: Secret, namespace: sandbox-1, name: a, key: k, type: password, created: -4000d}
`)
	var got []string
	for _, f := range check(t, set, all) {
		got = append(got, string(f.Severity)+" "+f.Policy+" "+f.Subject.Ref.String())
	}
	// The last override took the first one's scope away; sandboxes stay out.
	if want := []string{"critical credential-not-rotated Secret payments/a"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	// The pack's own tests do not depend on what a user sets.
	for _, r := range Test(t.Context(), set) {
		if !r.Passed() {
			t.Errorf("%s, %s: %s", r.Policy, r.Case, r.Fault)
		}
	}
}

func TestReplace(t *testing.T) {
	before := len(pack(t).Policies())
	set := loadFiles(t, file(`
id: weak-key
title: Ours
description: d
subject: credential
severity: low
match: credential.key_bits < 4096
message: m
remedy: r
---
id: ours-too
title: New
description: d
subject: identity
severity: info
match: identity.name == "x"
message: m
remedy: r
`))
	if n := len(set.Policies()); n != before+1 {
		t.Errorf("%d policies, want %d", n, before+1)
	}
	if p := set.Policy("weak-key"); p.Title != "Ours" || p.BuiltIn || !p.Runs() || p.Overridden[0] != "dir/a.yaml" {
		t.Errorf("%+v", p)
	}
}

func TestLoadProblems(t *testing.T) {
	content, err := packFiles.ReadFile("pack/20-credential-age.yaml")
	if err != nil {
		t.Fatal(err)
	}
	age := file(string(content))
	for content, want := range map[string]string{
		"override: weak-kye\ndisabled: true\n":                   "dir/a.yaml:1:11: no policy “weak-kye” (did you mean “weak-key”?)",
		"override: weak-key\nparameters: {min_rsa_bit: 4096}\n":  "dir/a.yaml:2:14: weak-key has no parameter “min_rsa_bit” (did you mean “min_rsa_bits”?)",
		"override: weak-key\nparameters: {min_rsa_bits: 90d}\n":  "dir/a.yaml:2:14: parameter “min_rsa_bits” of weak-key is a int, as in 2048",
		"override: weak-key\nmatch: 'true'\n":                    "dir/a.yaml:2:1: unknown field “match”: known are disabled, override, parameters, remedy, scope, severity",
		"override: weak-key\nscope: {}\n":                        "dir/a.yaml:2:8: an empty scope: name systems, namespaces, environments, labels, identities or except",
		"override: weak-key\nremedy: \"Use {credential.foo}\"\n": "dir/a.yaml:2:26: no field “foo”",
		"- a list\n": "dir/a.yaml:1:1: a policy is a mapping that begins with id:, or an override that begins with override:",
		"id: Bad_Id\ntitle: t\ndescription: d\nsubject: identity\nseverity: low\nmatch: 'true'\nmessage: m\nremedy: r\n": "dir/a.yaml:1:5: an id is lower-case words with dashes between them, such as token-never-expires",
	} {
		set, err := load([]Source{{FS: age}, {Name: "dir", FS: file(content)}})
		if err != nil {
			t.Fatal(err)
		}
		if got := set.Problems(); len(got) != 1 || got[0].String() != want {
			t.Errorf("%q: got %v, want %s", content, got, want)
		}
		running := 0
		for _, p := range set.Policies() {
			if p.Runs() {
				running++
			}
		}
		if running < len(set.Policies())-1 {
			t.Errorf("%q: only %d policies run", content, running)
		}
	}
	if _, err := Load(Dir("testdata/none")); remit.KindOf(err) != remit.NotFound {
		t.Errorf("a directory that is not there: %v", err)
	}
}

func TestExplain(t *testing.T) {
	set := pack(t)
	e, err := set.Explain("administrator-machine")
	if err != nil {
		t.Fatal(err)
	}
	if !e.Runs || e.Tests < 2 || !slices.Contains(e.Relatives, "administrator-human") {
		t.Errorf("%+v", e)
	}
	if _, err := set.Explain("administrator-machin"); remit.KindOf(err) != remit.NotFound || !strings.Contains(err.Error(), "did you mean “administrator-machine”") {
		t.Error(err)
	}
}

func TestFailingCaseIsTold(t *testing.T) {
	set := loadText(t, `
id: mine
title: t
description: d
subject: identity
severity: low
match: identity.name == "x"
message: "it is {identity.name}"
remedy: r
tests:
- {match: false, identity: {kind: User, name: x}}
- {match: true, identity: {kind: User, name: y}}
- {match: true, severity: high, identity: {kind: User, name: x}}
- {match: true, message: it is y, identity: {kind: User, name: x}}
- {match: true, identity: {kind: User, name: x}}
`)
	want := []string{"should not match, does: it is x", "should match, does not", "severity is low, should be high", `message is "it is x", should be "it is y"`, ""}
	for i, r := range Test(t.Context(), set) {
		if r.Fault != want[i] || r.Line != 11+i {
			t.Errorf("%+v, want %q", r, want[i])
		}
	}
}

func TestSpan(t *testing.T) {
	const day = 24 * time.Hour
	for s, want := range map[string]time.Duration{
		"90d": 90 * day, "2w": 14 * day, "1y": 365 * day, "12h": 12 * time.Hour, "1h30m": 90 * time.Minute, "-3d": -3 * day, "+3d": 3 * day, "0s": 0,
	} {
		if got, err := parseSpan(s); err != nil || got != want {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "d", "90", "90 d", "1.5d", "--3d", "99999999999d", "2147483647y", "h"} {
		if got, err := parseSpan(s); err == nil {
			t.Errorf("%q: %v", s, got)
		}
	}
	for d, want := range map[time.Duration]string{90 * day: "90 days", day: "1 day", 47 * time.Hour: "47 hours", time.Hour: "1 hour", 3607 * time.Second: "1 hour", 90 * time.Second: "1 minute", 0: "0 seconds"} {
		if got := formatSpan(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	for _, s := range []string{"90d", "12h", "1h30m", "45s"} {
		d, _ := parseSpan(s)
		if got := writeSpan(d); got != s {
			t.Errorf("%s is written %s", s, got)
		}
	}
}

// TestHowTo: what the documentation shows does what it says.
func TestHowTo(t *testing.T) {
	page, err := os.ReadFile("../docs/how-to/write-a-policy.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	for _, block := range strings.Split(string(page), "```yaml\n")[1:] {
		content, _, _ := strings.Cut(block, "```")
		set := loadFiles(t, file(content))
		for _, p := range set.Problems() {
			t.Error(p)
		}
		for _, r := range Test(t.Context(), set) {
			if !r.Passed() {
				t.Errorf("%s, test %s: %s", r.Policy, r.Case, r.Fault)
			}
		}
		shown++
	}
	if shown != 2 {
		t.Errorf("%d examples", shown)
	}
}
