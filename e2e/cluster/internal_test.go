//go:build unix

package cluster

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit/e2e/process"
)

func TestAnotherPortWhenTheFirstIsTaken(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	tries := 0
	c := Start(t, func(o *Options) {
		o.NoControllerManager = true
		o.freePort = func() (int, error) {
			if tries++; tries == 1 {
				return taken.Addr().(*net.TCPAddr).Port, nil
			}
			return process.FreePort()
		}
	})
	if tries != 2 {
		t.Errorf("%d tries", tries)
	}
	if _, err := c.Client.CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}

// sourceModule writes a module that the build takes for e2e/kubeapi, with a
// program that is built in no time.
func sourceModule(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"go.mod":            "module example.org/source\n\ngo 1.26.0\n\nrequire k8s.io/kubernetes v1.99.1\n\nreplace k8s.io/kubernetes => ./kubernetes\n",
		"go.sum":            "",
		"main.go":           program,
		"kubernetes/go.mod": "module k8s.io/kubernetes\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var sourcePrograms = []program{{"example.org/source", "source"}}

func TestBuildHappensOnce(t *testing.T) {
	t.Parallel()
	source, root := sourceModule(t, "package main\n\nfunc main() { print(\"hello\") }\n"), t.TempDir()
	// As a build that was killed leaves it.
	spec, err := newBuildSpec(source, sourcePrograms)
	if err != nil {
		t.Fatal(err)
	}
	leftover := filepath.Join(root, spec.key+".tmp-1")
	if err := os.Mkdir(leftover, 0o755); err != nil {
		t.Fatal(err)
	}
	var builds atomic.Int32
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			dir, err := build(t.Context(), source, root, sourcePrograms, func(format string, _ ...any) {
				if strings.HasPrefix(format, "building") {
					builds.Add(1)
				}
			})
			if err != nil {
				t.Error(err)
				return
			}
			if out, err := exec.Command(filepath.Join(dir, "source")).CombinedOutput(); err != nil || string(out) != "hello" {
				t.Errorf("the built program: %q, %v", out, err)
			}
		})
	}
	all.Wait()
	if n := builds.Load(); n != 1 {
		t.Errorf("%d builds", n)
	}
	if _, err := os.Stat(leftover); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a killed build left: %v", err)
	}
}

func TestFailedBuildLeavesNothing(t *testing.T) {
	t.Parallel()
	source, root := sourceModule(t, "package main\n\nfunc main() { undefined() }\n"), t.TempDir()
	silent := func(string, ...any) {}
	_, err := build(t.Context(), source, root, sourcePrograms, silent)
	if err == nil || !strings.Contains(err.Error(), "undefined: undefined") {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("no more time"))
	_, err = build(ctx, source, root, sourcePrograms, silent)
	if err == nil || !strings.Contains(err.Error(), "no more time") || !strings.Contains(err.Error(), "e2e/cmd/servers") {
		t.Errorf("error %v", err)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".lock") {
			t.Errorf("it left %s", e.Name())
		}
	}
}

func TestBuildKeyFollowsWhatIsPinned(t *testing.T) {
	t.Parallel()
	source := sourceModule(t, "package main\n")
	key := func() string {
		t.Helper()
		spec, err := newBuildSpec(source, sourcePrograms)
		if err != nil {
			t.Fatal(err)
		}
		if args := strings.Join(spec.args, " "); !strings.Contains(args, "gitVersion=v1.99.1") || !strings.Contains(args, "gitMinor=99") {
			t.Errorf("arguments %s", args)
		}
		return spec.key
	}
	before := key()
	if again := key(); again != before {
		t.Error("two keys for the same source")
	}
	if err := os.WriteFile(filepath.Join(source, "go.sum"), []byte("\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if key() == before {
		t.Error("the same key for another go.sum")
	}
}
