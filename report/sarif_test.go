package report

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"remit"
)

func TestSARIF(t *testing.T) {
	var b bytes.Buffer
	if err := WriteSARIF(&b, sample().Source()); err != nil {
		t.Fatal(err)
	}
	golden(t, "scan.sarif", b.Bytes())
	checkSARIF(t, b.Bytes(), sample())
}

func TestSARIFOfNothing(t *testing.T) {
	var b bytes.Buffer
	if err := WriteSARIF(&b, (&Document{}).Source()); err != nil {
		t.Fatal(err)
	}
	checkSARIF(t, b.Bytes(), &Document{})
}

func TestSARIFOfHostileNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := hostile(t)
		var b bytes.Buffer
		if err := WriteSARIF(&b, d.Source()); err != nil {
			t.Fatal(err)
		}
		checkSARIF(t, b.Bytes(), d)
	})
}

type object = map[string]any

// members are the members that an object of the format may have, by where it is;
// those with a star it must have (SARIF 2.1.0, chapter 3). The official schema is
// not kept here because its licence is not this project's.
var members = map[string][]string{
	"log":              {"$schema", "version*", "runs*"},
	"run":              {"tool*", "automationDetails", "columnKind", "invocations", "results*"},
	"tool":             {"driver*"},
	"driver":           {"name*", "version", "rules*", "language"},
	"rule":             {"id*", "name", "shortDescription*", "fullDescription*", "help*", "defaultConfiguration*", "properties*"},
	"help":             {"text*", "markdown*"},
	"message":          {"text*"},
	"configuration":    {"level*"},
	"rule bag":         {"tags*", "precision*", "security-severity", "risks*", "controls*"},
	"details":          {"id*"},
	"invocation":       {"executionSuccessful*", "endTimeUtc", "toolExecutionNotifications*"},
	"notification":     {"level*", "message*"},
	"result":           {"ruleId*", "ruleIndex*", "kind*", "level*", "message*", "locations*", "partialFingerprints*", "properties*"},
	"location":         {"physicalLocation*", "logicalLocations*"},
	"physical":         {"artifactLocation*", "region*"},
	"artifact":         {"uri*"},
	"region":           {"startLine*"},
	"logical location": {"name*", "fullyQualifiedName*", "kind*"},
}

func checkSARIF(t fataler, text []byte, d *Document) {
	t.Helper()
	var log object
	if err := json.Unmarshal(text, &log); err != nil {
		t.Fatalf("no JSON: %v\n%s", err, text)
	}
	is := func(what string, v any) object {
		t.Helper()
		o, ok := v.(object)
		if !ok {
			t.Fatalf("%s is no object but %v", what, v)
		}
		for _, m := range members[what] {
			if name, must := strings.CutSuffix(m, "*"); must && o[name] == nil {
				t.Fatalf("%s has no %s", what, name)
			}
		}
		for name := range o {
			if !slices.Contains(members[what], name) && !slices.Contains(members[what], name+"*") {
				t.Fatalf("%s has a member %s", what, name)
			}
		}
		return o
	}
	list := func(v any) []any {
		t.Helper()
		l, ok := v.([]any)
		if !ok {
			t.Fatalf("no list but %v", v)
		}
		return l
	}
	levels := []any{"none", "note", "warning", "error"}
	message := func(v any) {
		t.Helper()
		if is("message", v)["text"] == "" {
			t.Fatal("an empty message")
		}
	}

	is("log", log)
	runs := list(log["runs"])
	if log["version"] != "2.1.0" || len(runs) != 1 {
		t.Fatalf("version %v with %d runs", log["version"], len(runs))
	}
	run := is("run", runs[0])
	driver := is("driver", is("tool", run["tool"])["driver"])
	is("details", run["automationDetails"])
	for _, v := range list(run["invocations"]) {
		for _, n := range list(is("invocation", v)["toolExecutionNotifications"]) {
			n := is("notification", n)
			message(n["message"])
			if !slices.Contains(levels, n["level"]) {
				t.Fatalf("a notification of level %v", n["level"])
			}
		}
	}
	rules := list(driver["rules"])
	for _, v := range rules {
		rule := is("rule", v)
		if rule["id"] == "" {
			t.Fatal("a rule without an id")
		}
		message(rule["shortDescription"])
		message(rule["fullDescription"])
		is("help", rule["help"])
		is("configuration", rule["defaultConfiguration"])
		bag := is("rule bag", rule["properties"])
		if tags := list(bag["tags"]); len(tags) > 20 {
			t.Fatalf("%d tags", len(tags))
		}
	}

	want := map[string]bool{}
	for _, f := range d.Findings {
		if standing(&f) {
			id, _ := json.Marshal(cmp.Or(f.ID, remit.FindingID(f.Policy, f.Subject.ID)))
			var read string
			_ = json.Unmarshal(id, &read)
			want[read] = true
		}
	}
	for _, v := range list(run["results"]) {
		result := is("result", v)
		message(result["message"])
		if !slices.Contains(levels, result["level"]) {
			t.Fatalf("a result of level %v", result["level"])
		}
		index := int(result["ruleIndex"].(float64))
		if index < 0 || index >= len(rules) || rules[index].(object)["id"] != result["ruleId"] {
			t.Fatalf("result of rule %v has the index %d", result["ruleId"], index)
		}
		for _, l := range list(result["locations"]) {
			location := is("location", l)
			physical := is("physical", location["physicalLocation"])
			uri := is("artifact", physical["artifactLocation"])["uri"].(string)
			u, err := url.Parse(uri)
			if err != nil || u.IsAbs() || u.Host != "" || u.RawQuery != "" || u.Fragment != "" || strings.HasPrefix(uri, "/") ||
				strings.Contains("/"+uri+"/", "/../") || strings.Contains(uri, "//") {
				t.Fatalf("the location %q is no relative path: %v", uri, err)
			}
			is("region", physical["region"])
			for _, logical := range list(location["logicalLocations"]) {
				is("logical location", logical)
			}
		}
		prints := result["partialFingerprints"].(object)
		for name := range maps.Values(prints) {
			if name == "" {
				t.Fatal("an empty fingerprint")
			}
		}
		id := prints["remitFinding/v1"].(string)
		if prints["primaryLocationLineHash"] != id+":1" {
			t.Fatalf("fingerprints %v", prints)
		}
		if !want[id] {
			t.Fatalf("a result of the finding %q, which does not stand", id)
		}
	}
}

func TestSARIFSeverities(t *testing.T) {
	for severity, want := range map[remit.Severity][2]string{
		remit.Critical: {"error", "9.5"}, remit.High: {"error", "8.0"}, remit.Medium: {"warning", "5.5"},
		remit.Low: {"note", "2.0"}, remit.Info: {"note", ""}, "odd": {"note", ""},
	} {
		if got := [2]string{sarifLevel(severity), securitySeverity(severity)}; got != want {
			t.Errorf("%s: %v, want %v", severity, got, want)
		}
	}
}
