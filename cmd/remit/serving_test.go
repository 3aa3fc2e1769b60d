//go:build unix

package main

import (
	"bytes"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"remit/e2e/cluster"
)

// daemon is a running `remit serve`.
type daemon struct {
	cmd  *exec.Cmd
	out  lockedBuffer
	done chan struct{}
	err  error // once done
}

// lockedBuffer may be read while a process writes into it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// serving starts `remit serve`, which ends with the test.
func serving(t *testing.T, args ...string) *daemon {
	t.Helper()
	s := &daemon{cmd: exec.Command(built(t), append([]string{"serve"}, args...)...), done: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.done)
	}()
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("remit serve said:\n%s", s.out.String())
		}
	})
	return s
}

// stop asks it to end and waits for it.
func (s *daemon) stop(t *testing.T) {
	t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(30 * time.Second):
		t.Fatal("remit serve did not stop within 30 s")
	}
	if s.err != nil {
		t.Fatalf("remit serve: %v\n%s", s.err, s.out.String())
	}
}

// kill ends it at once.
func (s *daemon) kill() {
	_ = s.cmd.Process.Kill()
	<-s.done
}

// freeAddress is an address of the loopback on which nothing listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// patience is far longer than anything takes, on a machine that has much else to do
// as well. How fast it is, is measured elsewhere.
const patience = 2 * time.Minute

// wait waits until something is so.
func wait(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %s for %s", patience, what)
		}
	}
}

// holds says whether any file below a directory has a text in it.
func holds(t *testing.T, dir, text string) (found bool) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		found = found || bytes.Contains(content, []byte(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// auditsTo has a cluster send its audit log, every 100 ms, to the `remit serve` that
// is to listen at an address. The flags say where its data is.
func auditsTo(t *testing.T, address string, flags ...string) func(*cluster.Options) {
	t.Helper()
	webhook, err := run(t, append([]string{"token", "create", "prod-audit", "--system", "prod", "--source", "kubernetes", "--webhook", "https://" + address}, flags...)...)
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig([]byte(webhook))
	if err != nil {
		t.Fatal(err)
	}
	return func(o *cluster.Options) {
		o.AuditWebhookURL, o.AuditWebhookCA, o.AuditWebhookToken = config.Host, config.CAData, config.BearerToken
		o.AuditWebhookDelay = 100 * time.Millisecond
	}
}
