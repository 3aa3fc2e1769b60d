//go:build unix

package process_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"remit/e2e/process"
)

func newGroup(t *testing.T) *process.Group {
	t.Helper()
	g, err := process.NewGroup("remit-process-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g
}

func shell(t *testing.T, g *process.Group, name, script string) *process.Process {
	t.Helper()
	p, err := g.Start(process.Command{Name: name, Path: "/bin/sh", Args: []string{"-c", script}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func gone(pids []int, dir string) bool {
	_, err := os.Stat(dir)
	return errors.Is(err, os.ErrNotExist) && !slices.ContainsFunc(pids, process.Alive)
}

func TestCloseEndsAllAndRemovesTheDirectory(t *testing.T) {
	t.Parallel()
	g := newGroup(t)
	shell(t, g, "one", "exec sleep 60")
	shell(t, g, "two", "trap '' QUIT TERM; echo deaf; while :; do sleep 1; done")
	pids := g.Pids()
	if len(pids) != 3 {
		t.Errorf("pids %v", pids)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if !gone(pids, g.Dir()) {
		t.Errorf("of %v or %s something is left", pids, g.Dir())
	}
	if err := g.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
	if _, err := g.Start(process.Command{Name: "late", Path: "/bin/sh"}); err == nil {
		t.Error("a server starts in a closed group")
	}
}

func TestCloseTellsOfServersThatEndedBefore(t *testing.T) {
	t.Parallel()
	g := newGroup(t)
	p := shell(t, g, "server", "echo the reason; exit 3")
	stopped := shell(t, g, "stopped", "exec sleep 60")
	if err := stopped.Stop(syscall.SIGTERM, 10*time.Second); err != nil {
		t.Error(err)
	}
	<-p.Done()
	err := g.Close()
	if err == nil || !strings.Contains(err.Error(), "server ended (exit status 3)") || !strings.Contains(err.Error(), "the reason") {
		t.Errorf("error %v", err)
	}
	if err != nil && strings.Contains(err.Error(), "stopped ended") {
		t.Errorf("a server that was stopped is an error: %v", err)
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	g := newGroup(t)
	p := shell(t, g, "slow", "sleep 0.2; touch ready; exec sleep 60")
	ready := func(context.Context) error {
		_, err := os.Stat(g.Path("ready"))
		return err
	}
	if err := p.Wait(t.Context(), ready); err != nil {
		t.Error(err)
	}
	never := func(context.Context) error { return errors.New("not yet") }
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("too late"))
	defer cancel()
	if err := p.Wait(ctx, never); err == nil || !strings.Contains(err.Error(), "not yet") || !strings.Contains(err.Error(), "too late") {
		t.Errorf("error %v", err)
	}
	// What a server waits for may be another one, which has failed.
	shell(t, g, "other", "echo broken; exit 1")
	if err := p.Wait(t.Context(), never); err == nil || !strings.Contains(err.Error(), "other ended") || !strings.Contains(err.Error(), "broken") {
		t.Errorf("error %v", err)
	}
}

func TestStopKillsADeafServer(t *testing.T) {
	t.Parallel()
	g := newGroup(t)
	p := shell(t, g, "deaf", "trap '' TERM; touch ready; while :; do sleep 1; done")
	if err := p.Wait(t.Context(), func(context.Context) error { _, err := os.Stat(g.Path("ready")); return err }); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(syscall.SIGTERM, 50*time.Millisecond); err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("error %v", err)
	}
	if process.Alive(p.Pid()) {
		t.Error("it is alive")
	}
}

func TestKeptDirectory(t *testing.T) {
	t.Setenv(process.KeepEnv, "1")
	g := newGroup(t)
	shell(t, g, "server", "exec sleep 60")
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(g.Path("server.log")); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(g.Dir()); err != nil {
		t.Error(err)
	}
}

// TestServe has the port of the first try taken by somebody else.
func TestServe(t *testing.T) {
	t.Parallel()
	var addresses []string
	ran := t.Run("server", func(t *testing.T) {
		process.Serve(t, "process-test", func(_ *process.Group, address string) process.Command {
			addresses = append(addresses, address)
			script := "exec sleep 60"
			if len(addresses) == 1 {
				script = "echo bind: address already in use; exit 1"
			}
			return process.Command{Path: "/bin/sh", Args: []string{"-c", script}}
		}, func(context.Context) error {
			if len(addresses) == 1 {
				return errors.New("no answer")
			}
			return nil
		})
	})
	if !ran || len(addresses) != 2 || addresses[0] == addresses[1] {
		t.Errorf("it was started at %q", addresses)
	}
}

// TestNothingOutlivesAKilledParent kills a process that has a group, in a way
// it cannot react to.
func TestNothingOutlivesAKilledParent(t *testing.T) {
	t.Parallel()
	if os.Getenv("REMIT_E2E_CHILD") != "" {
		g, err := process.NewGroup("remit-process-test")
		if err != nil {
			t.Fatal(err)
		}
		shell(t, g, "one", "exec sleep 60")
		shell(t, g, "deaf", "trap '' HUP INT QUIT TERM; while :; do sleep 1; done")
		if err := json.NewEncoder(os.Stdout).Encode(map[string]any{"dir": g.Dir(), "pids": g.Pids()}); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		t.Error("was not killed")
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNothingOutlivesAKilledParent$")
	cmd.Env = append(os.Environ(), "REMIT_E2E_CHILD=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var started struct {
		Dir  string
		Pids []int
	}
	if err := json.NewDecoder(out).Decode(&started); err != nil || len(started.Pids) != 3 {
		t.Errorf("the child: %+v, %v", started, err)
	}
	time.Sleep(100 * time.Millisecond) // the servers set their traps
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait() // says that it was killed
	for start := time.Now(); !gone(started.Pids, started.Dir); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			t.Fatalf("30 s after the kill: of %+v something is left", started)
		}
	}
}
