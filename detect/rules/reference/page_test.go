package main

import (
	"os"
	"testing"
)

func TestPageIsUpToDate(t *testing.T) {
	want, err := os.ReadFile("../" + page)
	if err != nil {
		t.Fatal(err)
	}
	got, err := fromRules()
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Error("docs/reference/detections.md is not what the rules say: run go generate ./detect/rules")
	}
}
