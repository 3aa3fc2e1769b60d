package report

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestExamplesOfTheDocs runs each jq example of the reference page on a document.
// It needs jq, which `make setup` installs.
func TestExamplesOfTheDocs(t *testing.T) {
	if _, err := exec.LookPath("jq"); err != nil {
		t.Fatal("jq is not installed: run `make setup`, or apt-get install jq")
	}
	text, err := os.ReadFile("../docs/reference/scan-document.md")
	if err != nil {
		t.Fatal(err)
	}
	scan, err := os.ReadFile("testdata/scan.json")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{
		"scan.json": string(scan), "after.json": string(scan), "before.json": `{"findings": []}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	examples := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(examples) < 6 {
		t.Fatalf("%d examples found", len(examples))
	}
	for _, example := range examples {
		cmd := exec.Command("sh", "-c", example[1])
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if strings.Contains(example[1], "jq -e") {
			if err == nil || strings.TrimSpace(string(out)) != "false" {
				t.Errorf("the sample has a critical finding, and yet: %v\n%s", err, out)
			}
			continue
		}
		if err != nil || len(out) == 0 {
			t.Errorf("%s\n%v\n%s", example[1], err, out)
		}
	}
}
