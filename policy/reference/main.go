// Command reference writes docs/reference/policies.md from the built-in
// policies. `go generate ./policy` runs it; the tests fail when the page is not
// what it would write.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"remit/policy"
)

// page is where the reference lies, as seen from the package that generates it.
const page = "../docs/reference/policies.md"

func main() {
	set, err := policy.Load()
	if err != nil {
		fail(err)
	}
	if problems := set.Problems(); len(problems) > 0 {
		fail(fmt.Errorf("%s", problems[0]))
	}
	if err := os.MkdirAll(filepath.Dir(page), 0o755); err != nil {
		fail(err)
	}
	if err := os.WriteFile(page, []byte(write(set)), 0o644); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "reference:", err)
	os.Exit(1)
}
