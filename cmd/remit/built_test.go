package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

var build struct {
	once sync.Once
	path string
	out  []byte
	err  error
}

// built is the program, built once for all tests; with the race detector where
// they have it.
func built(t *testing.T) string {
	t.Helper()
	build.once.Do(func() {
		dir, err := os.MkdirTemp("", "remit-built-*")
		if err != nil {
			build.err = err
			return
		}
		build.path = filepath.Join(dir, "remit")
		args := []string{"build", "-o", build.path}
		if raceEnabled {
			args = append(args, "-race")
		}
		build.out, build.err = exec.Command("go", append(args, ".")...).CombinedOutput()
	})
	if build.err != nil {
		t.Fatalf("%v\n%s", build.err, build.out)
	}
	return build.path
}
