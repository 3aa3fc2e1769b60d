//go:build unix

// Package build builds the servers that tests run against from Go modules of their
// own, once for all checkouts.
package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"remit/e2e/process"
)

// Program is a program that a module of e2e pins.
type Program struct {
	Module  string   // the module's folder in e2e, and the binary's name
	Package string   // the main package
	Title   string   // in messages: "the S3 server"
	Env     []string // of the build, beside the usual
}

// Build returns the path of the program, and builds it first if the user's cache
// does not hold it: a few minutes the first time. The cache is keyed by the pinned
// module and the flags, so that several checkouts share one build, and a lock lets
// only one process build. logf is told when a build begins; it may be nil.
func (p Program) Build(ctx context.Context, logf func(format string, args ...any)) (string, error) {
	if logf == nil {
		logf = func(string, ...any) {}
	}
	source, err := p.sourceDir()
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory for %s: %w; set HOME or XDG_CACHE_HOME", p.Title, err)
	}
	args := []string{"build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w"}
	env := []string{"CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GOEXPERIMENT=", "GOOS=" + runtime.GOOS, "GOARCH=" + runtime.GOARCH}
	env = append(env, p.Env...)
	h := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return "", fmt.Errorf("read the version of %s: %w", p.Title, err)
		}
		fmt.Fprintf(h, "%q\n", b)
	}
	fmt.Fprintf(h, "%q\n%q\n%q\n", p.Package, args, env)
	root := filepath.Join(cache, "remit", "e2e")
	binary := filepath.Join(root, p.Module+"-"+hex.EncodeToString(h.Sum(nil))[:16])
	// The binary appears by a rename, so it is complete when it is there.
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", fmt.Errorf("make the cache for %s: %w", p.Title, err)
	}
	unlock, err := p.lock(ctx, binary+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(binary); err == nil {
		return binary, nil // built by whom we waited for
	}
	logf("building %s into %s: once, for a few minutes", p.Title, binary)
	unfinished := binary + ".tmp" // the lock makes it ours
	if err := p.run(ctx, source, append(args, "-o", unfinished, p.Package), append(os.Environ(), env...)); err != nil {
		return "", err
	}
	if err := os.Rename(unfinished, binary); err != nil {
		return "", fmt.Errorf("move what was built of %s into place: %w", p.Title, err)
	}
	return binary, nil
}

// sourceDir finds the module in this checkout, from the working directory
// upwards: tests run in their package's folder.
func (p Program) sourceDir() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		found := filepath.Join(dir, "e2e", p.Module)
		if _, err := os.Stat(filepath.Join(found, "go.sum")); err == nil {
			return found, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find e2e/%s, which pins %s, above %s: run this inside a checkout of Remit", p.Module, p.Title, start)
		}
	}
}

// run runs the go command so that it ends with this process.
func (p Program) run(ctx context.Context, dir string, args, env []string) error {
	goCommand, err := exec.LookPath("go")
	if err != nil {
		return fmt.Errorf("build %s: %w; install Go", p.Title, err)
	}
	group, err := process.NewGroup("remit-build")
	if err != nil {
		return err
	}
	// A build that failed is an end by itself, too: it has been reported.
	defer func() { _ = group.Close() }()
	building, err := group.Start(process.Command{
		Name: "go-build", Path: goCommand, Args: args, Dir: dir, Env: env,
		DeathSignal: syscall.SIGINT, // lets it end its compilers
	})
	if err != nil {
		return err
	}
	select {
	case <-building.Done():
		if !building.Succeeded() {
			return fmt.Errorf("build %s in %s: %w", p.Title, dir, building.Err())
		}
		return nil
	case <-ctx.Done():
		_ = building.Stop(syscall.SIGINT, 10*time.Second)
		return fmt.Errorf("building %s was interrupted (%w): what was compiled is kept; to build it ahead: go run ./e2e/cmd/servers", p.Title, context.Cause(ctx))
	}
}

// lock takes an exclusive lock that the kernel frees when this process ends.
func (p Program) lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the build lock: %w", err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("wait for the process that builds %s (it holds %s): %w", p.Title, path, context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
}
