package remit_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// The import rule of docs/architecture.md: each layer may import what it names
// here, itself, and everything outside this module. The longest prefix counts.
var mayImport = map[string][]string{
	"remit":           {}, // and no module but the standard library: see below
	"remit/connector": {"remit"},
	// A connector knows its system, the contract, and how to recognise a
	// secret; never another connector.
	"remit/connector/secret":        {"remit"},
	"remit/connector/kubernetes":    {"remit", "remit/connector", "remit/connector/secret"},
	"remit/connector/connectortest": {"remit", "remit/connector"},
	"remit/connector/aws":           {"remit", "remit/connector"},
	"remit/connector/azure":         {"remit", "remit/connector"},
	"remit/connector/gcp":           {"remit", "remit/connector"},
	"remit/connector/github":        {"remit", "remit/connector"},
	"remit/connector/okta":          {"remit", "remit/connector"},
	"remit/connector/openbao":       {"remit", "remit/connector"},
	"remit/connector/ocsf":          {"remit", "remit/connector"},
	"remit/connector/anthropic":     {"remit", "remit/connector"},
	"remit/connector/openai":        {"remit", "remit/connector"},
	"remit/connector/postgres":      {"remit", "remit/connector"},
	"remit/connector/file":          {"remit", "remit/connector"},

	// Capabilities do not know each other. Those that take what
	// connectors hand over, pages and events, also speak their contract.
	"remit/inventory": {"remit", "remit/connector"},
	"remit/activity":  {"remit", "remit/connector"},
	"remit/detect":    {"remit", "remit/connector"},
	"remit/response":  {"remit", "remit/connector"},
	"remit/leak":      {"remit", "remit/connector", "remit/connector/secret"},
	"remit/policy":    {"remit"},
	"remit/ssf":       {"remit"},
	"remit/lifecycle": {"remit"},
	"remit/report":    {"remit"},

	"remit/store": {"remit"},

	"remit/server":         {"remit", "remit/connector", "remit/inventory", "remit/activity", "remit/activity/queue", "remit/activity/archive", "remit/response"},
	"remit/server/token":   {"remit", "remit/connector/secret"},
	"remit/server/ingest":  {"remit", "remit/connector", "remit/activity", "remit/activity/queue", "remit/server/token"},
	"remit/server/trigger": {"remit", "remit/leak", "remit/ssf", "remit/server/token"},

	// Wiring, and what only tests and benchmarks use, may import everything.
	"remit/cmd":   {"*"},
	"remit/e2e":   {"*"},
	"remit/bench": {"*"},
}

// notByProduct are what the product must not contain.
var notByProduct = []string{"remit/cmd", "remit/e2e", "remit/bench", "remit/store/storetest", "remit/connector/connectortest"}

type listed struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T, args ...string) []listed {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports"}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// TestImportRule fails when a package imports what its layer may not know.
func TestImportRule(t *testing.T) {
	for _, p := range packages(t, "./...") {
		layer := layerOf(p.ImportPath)
		if layer == "" {
			t.Errorf("%s belongs to no layer: give it one here and in docs/architecture.md", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			if p.ImportPath == "remit" && strings.Contains(strings.Split(imported, "/")[0], ".") {
				t.Errorf("the root package imports %s: only the standard library", imported)
			}
			if imported != "remit" && !strings.HasPrefix(imported, "remit/") {
				continue
			}
			if !allowed(layer, imported) {
				t.Errorf("%s imports %s: the layer %s may not", p.ImportPath, imported, layer)
			}
		}
	}
}

func allowed(layer, imported string) bool {
	for _, may := range mayImport[layer] {
		if may == "*" || may == imported {
			return true
		}
	}
	return within(imported, layer)
}

func within(path, prefix string) bool {
	return path == prefix || prefix != "remit" && strings.HasPrefix(path, prefix+"/")
}

func layerOf(path string) string {
	var longest string
	for layer := range mayImport {
		if within(path, layer) && len(layer) > len(longest) {
			longest = layer
		}
	}
	return longest
}

// TestProductContents fails when the binary would carry test servers or suites,
// or need cgo.
func TestProductContents(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "./cmd/remit").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		path := lines.Text()
		for _, not := range notByProduct {
			if within(path, not) && path != "remit/cmd/remit" {
				t.Errorf("remit contains %s", path)
			}
		}
		if path == "testing" {
			t.Error("remit contains package testing")
		}
	}
}
