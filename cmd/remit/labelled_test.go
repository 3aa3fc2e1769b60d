package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"remit/connector/connectortest"
)

// labelledFiles are the files of labelled events, and whether Remit reads their
// source.
var labelledFiles = map[string]bool{
	"anthropic": true, "aws_cloudtrail": true, "aws_eks": true, "azure_activity": true, "gcp_audit": true, "gcp_k8s": true,
	"github": true, "kubernetes": true, "okta": true, "openai": true, "gravitational_teleport": false,
}

// noEvents are rules whose labelled events are no events of their source but rows
// of a statistic that somebody made of many.
var noEvents = map[string]bool{
	"Okta.SkeletonKeyBypass.Behavioral": true, "Okta.SWA.OffHoursAccess.Behavioral": true,
}

// TestRulesRunOnLabelledEvents runs the rules, ours and published ones, over all
// events that nobody here wrote: each of a source that Remit reads is decoded,
// and no source that is named wrongly makes it fail.
func TestRulesRunOnLabelledEvents(t *testing.T) {
	dir := t.TempDir()
	var all bytes.Buffer
	for name, read := range labelledFiles {
		events := connectortest.Labelled(t, name+".jsonl")
		var log bytes.Buffer
		for _, e := range events {
			log.Write(e.Log)
			log.WriteByte('\n')
		}
		all.Write(log.Bytes())
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, log.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		lines := rulesRun(t, path)
		seen := map[int]bool{}
		for _, l := range lines {
			seen[l.Line] = true
			e := events[l.Line-1]
			switch key := name + ": " + e.Rule + ": " + e.Case; {
			case read && l.Error != "" && !noEvents[e.Rule]:
				t.Errorf("%s: %s\n%s", key, l.Error, e.Log)
			case (!read || noEvents[e.Rule]) && l.Error == "":
				t.Errorf("%s: taken for one of %s", key, l.Activity.Source)
			}
		}
		if len(seen) != len(events) {
			t.Errorf("%s: %d of %d lines are answered", name, len(seen), len(events))
		}
	}
	path := filepath.Join(dir, "all")
	if err := os.WriteFile(path, all.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	events := bytes.Count(all.Bytes(), []byte("\n"))
	for _, source := range append(sourceNames(), "none") {
		if got := len(rulesRun(t, path, "--source", source)); got < events {
			t.Errorf("--source %s: %d of %d lines are answered", source, got, events)
		}
	}
}

// rulesRun runs `remit rules run` on a file.
func rulesRun(t *testing.T, path string, args ...string) (all []ruleLine) {
	t.Helper()
	cmd := newRulesRunCommand()
	var out, errors strings.Builder
	cmd.SetOut(&out)
	cmd.SetErr(&errors)
	cmd.SetArgs(append(args, path))
	if err := cmd.ExecuteContext(t.Context()); err != nil || errors.String() != "" {
		t.Fatalf("%s: %v\n%s", path, err, errors.String())
	}
	lines := bufio.NewScanner(strings.NewReader(out.String()))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var l ruleLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil || l.Rules == nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		all = append(all, l)
	}
	return all
}
