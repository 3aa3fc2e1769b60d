//go:build unix

package file_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"remit"
	"remit/connector"
	"remit/connector/connectortest"
	"remit/connector/file"
)

func TestFile(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "token"), filepath.Join(dir, "link")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("token", link); err != nil {
		t.Fatal(err)
	}
	// What a crash left, of which nothing must stay.
	if err := os.WriteFile(filepath.Join(dir, ".token.remit-new"), []byte("left"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := func(path string) *file.File {
		t.Helper()
		f, err := file.Open(path, "password")
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	n := 0
	connectortest.Destination(t, connectortest.DestinationSuite{
		Destination: at(link), Missing: at(filepath.Join(dir, "no", "token")),
		Delivery: func(*testing.T) (connector.Delivery, string) {
			n++
			value := strings.Repeat(string(rune('a'+n)), 30)
			return connector.Delivery{Secret: connector.NewSecret("x", []byte("not this")).With("password", []byte(value))}, value
		},
		Holds: func(t *testing.T) string {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		},
		Overwrite: func(t *testing.T) {
			if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	})
	info, err := os.Lstat(link)
	if err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", info.Mode(), err)
	}
	if info, err = os.Stat(path); err != nil || info.Mode() != 0o640 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 2 {
		t.Errorf("there are %v, %v", all, err)
	}

	// A new file is for its owner alone.
	fresh := at(filepath.Join(dir, "fresh"))
	planned, err := fresh.Plan(t.Context(), connector.Delivery{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.Deliver(t.Context(), planned.Step, connector.Delivery{Secret: connector.NewSecret("password", []byte("new"))}); err != nil {
		t.Fatal(err)
	}
	if info, err = os.Stat(filepath.Join(dir, "fresh")); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}

	for _, bad := range []string{"", "token", "./token", "/a/../b", "/a/"} {
		if _, err := file.Open(bad, ""); remit.KindOf(err) != remit.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	for _, odd := range []string{dir, filepath.Join(dir, "dangling"), os.DevNull} {
		if _, err := at(odd).Plan(t.Context(), connector.Delivery{}); remit.KindOf(err) != remit.Unsupported {
			t.Errorf("%s: %v", odd, err)
		}
	}
}
