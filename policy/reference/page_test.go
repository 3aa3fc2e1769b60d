package main

import (
	"os"
	"strings"
	"testing"

	"remit/policy"
)

func TestPageIsUpToDate(t *testing.T) {
	set, err := policy.Load()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("../" + page)
	if err != nil {
		t.Fatal(err)
	}
	got := write(set)
	if got != string(want) {
		t.Error("docs/reference/policies.md is not what the policies say: run go generate ./policy")
	}
	for _, p := range set.Policies() {
		for _, r := range p.Risks {
			if (strings.HasPrefix(r, "NHI") || strings.HasPrefix(r, "ASI")) && names[r] == "" {
				t.Errorf("%s: the risk %s has no name", p.ID, r)
			}
		}
	}
}
