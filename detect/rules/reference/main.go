// Command reference writes docs/reference/detections.md from the built-in
// detection rules. `go generate ./detect/rules` runs it; the tests fail when the
// page is not what it would write.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"remit/detect/rules"
)

// page is where the reference lies, as seen from the package that generates it.
const page = "../../docs/reference/detections.md"

func main() {
	text, err := fromRules()
	if err != nil {
		fail(err)
	}
	if err := os.MkdirAll(filepath.Dir(page), 0o755); err != nil {
		fail(err)
	}
	if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
		fail(err)
	}
}

func fromRules() (string, error) {
	all, err := rules.Load()
	if err != nil {
		return "", err
	}
	return write(all)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "reference:", err)
	os.Exit(1)
}
