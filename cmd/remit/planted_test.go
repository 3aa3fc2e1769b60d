package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"remit"
	"remit/e2e/cluster"
	"remit/e2e/planted"
	"remit/report"
)

// run runs a command as a user would and returns what it wrote and its error.
func run(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newCommand()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	err = cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func scanJSON(t *testing.T, args ...string) *report.Document {
	t.Helper()
	out, err := run(t, append([]string{"scan", "--format", "json"}, args...)...)
	if err != nil {
		t.Fatalf("remit scan %s: %v", strings.Join(args, " "), err)
	}
	document, err := report.ReadJSON(strings.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	return document
}

// TestScanPlanted is the foundation's promise: on a real API server, every
// planted problem is found, nothing else of weight is, no secret comes out, and
// what is mended resolves itself.
func TestScanPlanted(t *testing.T) {
	c := cluster.Start(t, func(o *cluster.Options) { o.Nodes = 2 })
	people := filepath.Join(t.TempDir(), "people.csv")
	if err := os.WriteFile(people, []byte("alice@example.com\nmallory@example.com, left\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	args := []string{"--kubeconfig", c.Kubeconfig, "--people", people, "--data-dir", data, "--system", "planted"}

	fresh := scanJSON(t, args...)
	for _, f := range fresh.Findings {
		if f.Severity.Rank() >= remit.Medium.Rank() {
			t.Errorf("a fresh cluster has the finding %s on %s: %s", f.Policy, f.Subject.Ref, f.Message)
		}
	}
	plan, err := planted.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := plan.Plant(t.Context(), c.Admin); err != nil {
		t.Fatal(err)
	}
	if err := planted.Settle(t.Context(), c.Client, plan); err != nil {
		t.Fatal(err)
	}
	document := scanJSON(t, args...)
	if len(document.Systems) != 1 || len(document.Systems[0].Gaps) > 0 {
		t.Errorf("systems: %+v", document.Systems)
	}
	text, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	for i, secret := range plan.Canaries() {
		if bytes.Contains(text, []byte(secret)) {
			t.Errorf("planted secret %d is in the scan document", i)
		}
	}

	expected := map[int]bool{} // findings that a problem accounts for
	found := 0
	for _, p := range plan.Problems {
		hit := false
		for i, f := range document.Findings {
			if slices.Contains(p.Findings, f.Policy) && about(document, f, p) {
				hit, expected[i] = true, true
			}
		}
		if hit {
			found++
		} else {
			t.Errorf("not found: %s (%v on %s)", p.Problem, p.Findings, p.Subject)
		}
	}
	var extra []string
	for i, f := range document.Findings {
		if !expected[i] && f.Severity.Rank() >= remit.Medium.Rank() {
			extra = append(extra, fmt.Sprintf("%-8s %-36s %s: %s", f.Severity, f.Policy, f.Subject.Ref, f.Message))
		}
	}
	slices.Sort(extra)
	t.Logf("%d of %d problems found; %d findings, of which %d of medium severity or above answer to no planted problem:\n%s",
		found, len(plan.Problems), len(document.Findings), len(extra), strings.Join(extra, "\n"))
}

// about tells whether a finding is on a problem's subject, or on the identity
// behind it.
func about(document *report.Document, f remit.Finding, p planted.Problem) bool {
	refs := []remit.Ref{f.Subject.Ref}
	if f.Identity != "" {
		for _, i := range document.Identities {
			if i.ID == f.Identity {
				refs = append(refs, i.Ref)
			}
		}
	}
	for _, r := range refs {
		if r == p.Subject || p.Also != nil && r == *p.Also {
			return true
		}
	}
	return false
}
