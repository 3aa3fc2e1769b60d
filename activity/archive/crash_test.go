package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"remit"
)

// crashDir is the variable that makes a test binary the process that is killed.
const crashDir = "REMIT_TEST_ARCHIVE_CRASH"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		if err := writeForever(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// ledger stands for the caller's database: it is written as a whole or not.
type ledger struct {
	Next  int // the first event that is not acknowledged
	Mark  int
	Files []File
}

func (l *ledger) load(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "ledger.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(text, l)
}

func (l *ledger) commit(dir string) error {
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	name := filepath.Join(dir, "ledger.json")
	if err := os.WriteFile(name+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// writeForever is a caller of the archive: it recovers, then appends, flushes,
// acknowledges, compacts and removes, until it is killed.
func writeForever(dir string) error {
	ctx := context.Background()
	var l ledger
	if err := l.load(dir); err != nil {
		return err
	}
	a, err := Open(filepath.Join(dir, "archive"), Options{RowGroup: 200, OpenFiles: 4})
	if err != nil {
		return err
	}
	if _, err := a.Recover(ctx, l.Files, true); err != nil {
		return err
	}
	for range 100_000 {
		l.Mark++ // a failed mark's number is used again: it was not acknowledged
		if err := a.Begin(fmt.Sprintf("%06d", l.Mark)); err != nil {
			return err
		}
		n := 50 + rand.IntN(600)
		for i := range n {
			e, raw := crashed(l.Next + i)
			if err := a.Append(&e, "prod", raw); err != nil {
				return err
			}
		}
		files, err := a.Flush(ctx)
		if err != nil {
			return err
		}
		l.Next += n
		l.Files = append(l.Files, files...)
		if err := l.commit(dir); err != nil {
			return err
		}
		if l.Mark%4 == 0 {
			if err := l.compact(ctx, a, dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// compact merges the hour with the most files.
func (l *ledger) compact(ctx context.Context, a *Archive, dir string) error {
	hours := map[time.Time][]File{}
	var most time.Time
	for _, f := range l.Files {
		if hours[f.Hour] = append(hours[f.Hour], f); len(hours[f.Hour]) > len(hours[most]) {
			most = f.Hour
		}
	}
	l.Mark++
	made, replaced, err := a.Compact(ctx, fmt.Sprintf("%06d", l.Mark), hours[most])
	if err != nil {
		return err
	}
	gone := map[string]bool{}
	for _, f := range replaced {
		gone[f.Path] = true
	}
	l.Files = append(slices.DeleteFunc(l.Files, func(f File) bool { return gone[f.Path] }), made...)
	if err := l.commit(dir); err != nil {
		return err
	}
	return a.Remove(ctx, replaced)
}

// crashed is the i-th event of a log over three hours that come mixed.
func crashed(i int) (remit.Activity, []byte) {
	e, raw := sample(i)
	e.Time = e.Time.Add(time.Duration(i%3) * time.Hour)
	return e, raw
}

// TestCrash kills a writing process at random moments: whatever was
// acknowledged is there once, and whatever was not is not.
func TestCrash(t *testing.T) {
	kills := 30
	if testing.Short() {
		kills = 5
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ctx := context.Background()
	var aside int
	for kill := range kills {
		child := exec.Command(self)
		child.Env = append(os.Environ(), crashDir+"="+dir)
		var stderr bytes.Buffer
		child.Stderr = &stderr
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		if kill == kills/2 {
			// However slow the machine is, something must be acknowledged.
			for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
				var l ledger
				if err := l.load(dir); err == nil && l.Next > 0 {
					break
				}
			}
		}
		time.Sleep(time.Duration(20+rand.IntN(300)) * time.Millisecond)
		_ = child.Process.Kill()
		_ = child.Wait()
		if stderr.Len() > 0 {
			t.Fatalf("the writer failed: %s", stderr.String())
		}

		var l ledger
		if err := l.load(dir); err != nil {
			t.Fatal(err)
		}
		a, err := Open(filepath.Join(dir, "archive"), Options{})
		if err != nil {
			t.Fatal(err)
		}
		found, err := a.Recover(ctx, l.Files, true)
		if err != nil || len(found.Lost) > 0 {
			t.Fatalf("kill %d: lost %v: %v", kill, found.Lost, err)
		}
		aside += found.SetAside
		there := 0
		for _, path := range slices.Concat(glob(t, a.dir, ".part"), glob(t, a.dir, ".parquet")) {
			if rel, _ := filepath.Rel(a.dir, path); strings.HasPrefix(rel, "system=") {
				there++
			}
		}
		if there != len(l.Files) {
			t.Errorf("kill %d: %d files beside the manifest's %d", kill, there-len(l.Files), len(l.Files))
		}
		seen := make([]bool, l.Next)
		err = a.Query(ctx, l.Files, Query{Raw: true}, func(e *remit.Activity, raw []byte) error {
			var i int
			if _, err := fmt.Sscanf(e.ID, "event-%d", &i); err != nil || i >= l.Next || seen[i] {
				return fmt.Errorf("event %s was not acknowledged, or comes twice", e.ID)
			}
			seen[i] = true
			if want, wantRaw := crashed(i); !e.Time.Equal(want.Time) || e.Credential != want.Credential || !bytes.Equal(raw, wantRaw) {
				return fmt.Errorf("event %s came back as another", e.ID)
			}
			return nil
		})
		if missing := slices.Index(seen, false); err != nil || missing >= 0 {
			t.Fatalf("kill %d: event %d of %d acknowledged ones is missing: %v", kill, missing, l.Next, err)
		}
		if kill == kills-1 {
			t.Logf("%d kills: %d events acknowledged in %d files, %d files set aside", kills, l.Next, len(l.Files), aside)
			if l.Next == 0 {
				t.Error("nothing was ever acknowledged")
			}
		}
	}
}
