package rules_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"remit/detect"
	"remit/detect/rules"
	"remit/detect/sigma"
)

func builtIn(t testing.TB) []*sigma.Rule {
	t.Helper()
	all, err := rules.Load()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestRules runs every rule's own tests.
func TestRules(t *testing.T) {
	results := rules.Test(builtIn(t), sigma.Options{Attributed: detect.Attributed})
	for _, r := range results {
		switch {
		case r.Err != nil:
			t.Errorf("%s: %s: %v", r.Rule.Name, r.Test, r.Err)
		case !r.OK():
			t.Errorf("%s: %s: matched %v, should be %v", r.Rule.Name, r.Test, r.Got, r.Expect)
		}
	}
	t.Logf("%d rules, %d tests", len(builtIn(t)), len(results))
}

var (
	slug      = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	uuid      = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	technique = regexp.MustCompile(`^attack\.t\d{4}(\.\d{3})?$`)
	risk      = regexp.MustCompile(`^(NHI([1-9]|10)|ASI(0[1-9]|10))$`)
	control   = regexp.MustCompile(`^(SOC 2 CC\d\.\d|ISO/IEC 27001 A\.\d\.\d+|NIST SP 800-53 [A-Z]{2}-\d+(\(\d+\))?|NIST CSF [A-Z]{2}\.[A-Z]{2}(-\d{2})?|PCI DSS \d+\.\d+(\.\d+)*)$`)
	// The tactics of ATT&CK 19, which split defense evasion in two.
	tactics = []string{
		"reconnaissance", "resource-development", "initial-access", "execution", "persistence", "privilege-escalation",
		"stealth", "defense-impairment", "credential-access", "discovery", "lateral-movement", "collection", "command-and-control", "exfiltration", "impact",
	}
	placeholder = regexp.MustCompile(`\{([^}]*)\}`)
)

// TestEveryRuleIsComplete fails on what a finding, a report or an auditor would
// miss.
func TestEveryRuleIsComplete(t *testing.T) {
	all := builtIn(t)
	if len(all) < 100 {
		t.Errorf("%d rules", len(all))
	}
	names, ids, titles := map[string]bool{}, map[string]bool{}, map[string]string{}
	policies := policyIDs(t)
	for _, r := range all {
		t.Run(r.Name, func(t *testing.T) {
			if !slug.MatchString(r.Name) || names[r.Name] {
				t.Errorf("the name %q is no slug, or is not unique", r.Name)
			}
			if policies[r.Name] {
				t.Errorf("a policy has this name")
			}
			if r.Path != path.Join(path.Dir(r.Path), r.Name+".yml") {
				t.Errorf("stands in %s", r.Path)
			}
			if system := path.Dir(r.Path); !strings.HasPrefix(r.Name, system+"-") {
				t.Errorf("stands among those of %s", system)
			}
			if !uuid.MatchString(r.ID) || ids[r.ID] {
				t.Errorf("the id %q is no UUID, or is not unique", r.ID)
			}
			if other := titles[path.Dir(r.Path)+r.Title]; other != "" {
				t.Errorf("has the title of %s", other)
			}
			names[r.Name], ids[r.ID], titles[path.Dir(r.Path)+r.Title] = true, true, r.Name
			if r.Level == "" || r.Description == "" || r.Author == "" {
				t.Error("lacks a level, a description or an author")
			}
			if r.Level == "medium" && len(r.FalsePositives) == 0 {
				t.Error("does not say when it is wrong")
			}
			techniques := 0
			for _, tag := range r.Tags {
				if technique.MatchString(tag) {
					techniques++
				} else if tactic, ok := strings.CutPrefix(tag, "attack."); !ok || !slices.Contains(tactics, tactic) {
					t.Errorf("the tag %q is no tactic or technique of ATT&CK", tag)
				}
			}
			if techniques == 0 {
				t.Error("names no technique")
			}
			meta, err := rules.Of(r)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range meta.Controls {
				if !control.MatchString(c) {
					t.Errorf("no control %q", c)
				}
			}
			for _, one := range meta.Risks {
				if !risk.MatchString(one) {
					t.Errorf("no risk %q", one)
				}
			}
			if len(meta.Controls) == 0 || len(meta.Risks) == 0 || meta.Remedy == "" || meta.Words == "" {
				t.Error("lacks controls, risks, a remedy or words")
			}
			for _, m := range placeholder.FindAllStringSubmatch(meta.Words, -1) {
				if strings.HasPrefix(m[1], "remit.") && !slices.Contains(detect.Attributed, m[1]) {
					t.Errorf("the words name %s, which there is not", m[1])
				}
			}
			yes, no := 0, 0
			for _, c := range meta.Tests {
				if c.Expect {
					yes++
				} else {
					no++
				}
			}
			if yes == 0 || no == 0 {
				t.Errorf("has %d tests that match and %d that do not", yes, no)
			}
		})
	}
}

// policyIDs are taken: a finding's rule is known by one name, be it a policy or
// a detection.
func policyIDs(t *testing.T) map[string]bool {
	ids := map[string]bool{}
	root := os.DirFS("../../policy/pack")
	files, err := fs.Glob(root, "*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no policies: %v", err)
	}
	line := regexp.MustCompile(`(?m)^id: *([a-z0-9-]+)`)
	for _, f := range files {
		text, err := fs.ReadFile(root, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range line.FindAllSubmatch(text, -1) {
			ids[string(m[1])] = true
		}
	}
	if len(ids) < 50 {
		t.Fatalf("only %d policies found", len(ids))
	}
	return ids
}

// TestTestsOfUsers shows what comes back for a rule that is not the product's.
func TestTestsOfUsers(t *testing.T) {
	const document = `
title: Example
logsource: {product: kubernetes, service: audit}
detection:
  selection: {verb: delete}
  condition: selection
remit:
  tests:
    - {name: right, expect: true, event: {verb: delete}}
    - {name: wrong, expect: true, event: {verb: get}}
    - {name: unknown field, expect: true, event: {verb: get}, attributed: {remit.nothing: 1}}
`
	parsed, err := sigma.Parse("example.yml", []byte(document))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rules.Test(parsed, sigma.Options{Attributed: detect.Attributed}) {
		switch {
		case r.Err != nil:
			got = append(got, r.Test+": error")
		case r.OK():
			got = append(got, r.Test+": ok")
		default:
			got = append(got, r.Test+": failed")
		}
	}
	if want := []string{"right: ok", "wrong: failed", "unknown field: error"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOfRefuses(t *testing.T) {
	for name, block := range map[string]string{
		"an unknown key":  "remit: {wrods: a}",
		"too many times":  "remit: {tests: [{name: a, times: 1000000000}]}",
		"a negative span": "remit: {tests: [{name: a, every: -5s}]}",
		"a text as block": "remit: text",
	} {
		parsed, err := sigma.Parse("a.yml", []byte("title: A\nlogsource: {product: a}\ndetection: {s: {a: 1}, condition: s}\n"+block+"\n"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := rules.Of(parsed[0]); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// shared finds a folder of test data beside the module, "" when it is absent.
func shared(name string) string {
	dir, err := os.Getwd()
	for err == nil {
		at := filepath.Join(dir, "shared", "data", name)
		if _, err := os.Stat(at); err == nil {
			return at
		}
		up := filepath.Dir(dir)
		if up == dir {
			break
		}
		dir = up
	}
	return ""
}
