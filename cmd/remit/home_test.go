package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"remit"
)

// home is the data directory of one Remit, which the commands of a test share.
type home struct {
	t    *testing.T
	path string
}

func newHome(t *testing.T) *home { return &home{t: t, path: t.TempDir()} }

// run runs a command, and returns what it printed.
func (h *home) run(args ...string) (string, error) {
	h.t.Helper()
	return run(h.t, append(args, "--data-dir", h.path)...)
}

// must runs a command that has to succeed.
func (h *home) must(args ...string) string {
	h.t.Helper()
	out, err := h.run(args...)
	if err != nil {
		h.t.Fatalf("remit %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// refused runs a command that has to fail, with an error of a kind and with words.
func (h *home) refused(want remit.ErrorKind, says string, args ...string) {
	h.t.Helper()
	if out, err := h.run(args...); remit.KindOf(err) != want || !strings.Contains(err.Error(), says) {
		h.t.Errorf("remit %s: %v (%q and %q expected)\n%s", strings.Join(args, " "), err, want, says, out)
	}
}

// write writes a file, which only its owner may read, and returns its path.
func (h *home) write(name, text string) string {
	h.t.Helper()
	path := filepath.Join(h.path, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// learn scans a cluster as the system prod, and returns a copy of its audit log as it
// is now, to be read in: the cluster's own goes on.
func (h *home) learn(kubeconfig, auditLog string) (log string) {
	h.t.Helper()
	h.must("scan", "--kubeconfig", kubeconfig, "--system", "prod", "--output", filepath.Join(h.path, "scan.json"), "--format", "json")
	text, err := os.ReadFile(auditLog)
	if err != nil {
		h.t.Fatal(err)
	}
	return h.write("audit.log", string(text[:bytes.LastIndexByte(text, '\n')+1]))
}
