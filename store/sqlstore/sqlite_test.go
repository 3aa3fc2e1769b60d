package sqlstore_test

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"remit"
	"remit/store/sqlstore"
	"remit/store/storetest"
)

// TestMain makes the test binary the child of the crash tests, too.
func TestMain(m *testing.M) {
	storetest.Main(openURL)
	m.Run()
}

func openURL(ctx context.Context, url string) (storetest.Store, error) {
	return sqlstore.Open(ctx, url)
}

// reopened is a store that the suite may close and open again.
type reopened struct {
	*sqlstore.Store
	url string
}

func (r reopened) Reopen(t testing.TB) storetest.Store {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return openStore(t, r.url)
}

func openStore(t testing.TB, url string) reopened {
	t.Helper()
	s, err := sqlstore.Open(context.WithoutCancel(t.Context()), url)
	if err != nil {
		t.Fatal(err)
	}
	return reopened{s, url}
}

func newSQLite(t testing.TB) storetest.Store {
	return openStore(t, filepath.Join(t.TempDir(), "remit.db"))
}

func TestSQLite(t *testing.T) {
	t.Parallel()
	storetest.Run(t, newSQLite)
}

// TestSQLiteWalking runs the suite as if every filter were met by most rows. It
// is not parallel: others would walk with it.
func TestSQLiteWalking(t *testing.T) {
	if testing.Short() {
		t.Skip("the suite a second time")
	}
	t.Cleanup(sqlstore.AlwaysWalk())
	storetest.Run(t, newSQLite)
}

func TestSQLiteCrash(t *testing.T) {
	t.Parallel()
	storetest.Crash(t, openURL, "sqlite://"+filepath.Join(t.TempDir(), "remit.db"))
}

// TestSQLiteFileOfTheOwner: the inventory is nobody else's to read.
func TestSQLiteFileOfTheOwner(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data", "dir")
	s := openStore(t, filepath.Join(dir, "remit.db"))
	defer s.Close()
	if err := s.PutSystem(t.Context(), remit.System{ID: remit.SystemID("test", "a"), Name: "a"}); err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v (%v), want 0600", f.Name(), info.Mode(), err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory has mode %v (%v), want 0700", info.Mode(), err)
	}
}

func TestSQLiteOddPaths(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"with space.db", "100%.db", "a?b#c.db", "ünï.db"} {
		path := filepath.Join(t.TempDir(), name)
		s := openStore(t, path)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%q was opened as another file: %v", name, err)
		}
	}
}

// TestSQLiteOpenErrors: an error says what happened, to what, and what to do.
func TestSQLiteOpenErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("this is no database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(dir, "newer.db")
	if err := openStore(t, newer).Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", newer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("INSERT INTO schema_version (version_id, is_applied) VALUES (9999, 1)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]struct {
		kind remit.ErrorKind
		says string
	}{
		"":                              {remit.Invalid, "give a path"},
		"mysql://localhost/remit":       {remit.Invalid, "mysql"},
		"sqlite://":                     {remit.Invalid, "names no file"},
		dir + "/":                       {remit.Invalid, "names no file"},
		dir:                             {remit.Invalid, "is a directory"},
		filepath.Join(text, "remit.db"): {remit.Forbidden, "data directory"},
		text:                            {remit.Invalid, "not a SQLite database"},
		newer:                           {remit.Conflict, "9999"},
	} {
		s, err := sqlstore.Open(t.Context(), url)
		if err == nil {
			_ = s.Close()
		}
		if remit.KindOf(err) != want.kind || !strings.Contains(err.Error(), want.says) {
			t.Errorf("open %q: %v (%s), want %s and %q", url, err, remit.KindOf(err), want.kind, want.says)
		}
	}
}

func TestSQLiteReadOnlyDirectory(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	_, err := sqlstore.Open(t.Context(), filepath.Join(dir, "remit.db"))
	if remit.KindOf(err) != remit.Forbidden {
		t.Errorf("%v (%s), want forbidden", err, remit.KindOf(err))
	}
}

// openAtOnce opens one new store many times at the same moment, each as a
// process of its own would, and writes through each.
func openAtOnce(t *testing.T, url string) {
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			s, err := sqlstore.Open(t.Context(), url)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			name := string(rune('a' + i))
			if err := s.PutSystem(t.Context(), remit.System{ID: remit.SystemID("test", name), Name: name}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s := openStore(t, url)
	defer s.Close()
	if systems, err := s.Systems(t.Context()); err != nil || len(systems) != 6 {
		t.Errorf("%d systems, %v: want 6", len(systems), err)
	}
}

func TestSQLiteOpenAtOnce(t *testing.T) {
	t.Parallel()
	openAtOnce(t, filepath.Join(t.TempDir(), "remit.db"))
}
