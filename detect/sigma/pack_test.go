package sigma

import (
	"os"
	"path/filepath"
	"testing"
)

// published returns the directory of SigmaHQ's rules beside the repository, ""
// when there is none.
func published() string {
	dir, err := os.Getwd()
	for err == nil {
		if found := filepath.Join(dir, "shared", "data", "sigma"); isDir(found) {
			return found
		}
		up := filepath.Dir(dir)
		if up == dir {
			break
		}
		dir = up
	}
	return ""
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// TestPublishedRules says that all rules of SigmaHQ for the systems that Remit
// reads are evaluated.
func TestPublishedRules(t *testing.T) {
	dir := published()
	if dir == "" {
		t.Skip("shared/data/sigma, SigmaHQ's rules, is not beside the repository")
	}
	rules, faults := Load(os.DirFS(dir))
	for _, err := range faults {
		t.Error(err)
	}
	if len(rules) < 100 {
		t.Errorf("only %d rules were found in %s", len(rules), dir)
	}
	e, unsupported := Compile(rules, Options{})
	for _, u := range unsupported {
		t.Errorf("%s: %s", u.Rule.Path, u.Reason)
	}
	if got := len(e.Rules()); got != len(rules) {
		t.Errorf("%d of %d rules are evaluated", got, len(rules))
	}
	for _, l := range []Logsource{
		{Product: "kubernetes", Service: "audit"},
		{Product: "aws", Service: "cloudtrail"},
		{Product: "gcp", Service: "gcp.audit"},
		{Product: "github", Service: "audit"},
		{Product: "okta", Service: "okta"},
	} {
		if len(e.RulesFor(l)) == 0 {
			t.Errorf("no rules are asked about %s", l)
		}
		p := e.p.newPlan(planKey{logsource: l})
		t.Logf("%s: %d rules, %d fields looked up, %d indexes, %d rules asked always", l, len(e.RulesFor(l)), len(p.looked), len(p.indexes), len(p.rest))
	}
}
