package archive

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"remit"
)

// TestBitFlips changes single bits of a file: verification always sees it, and
// a query gives an error or the truth, never a panic or another event.
func TestBitFlips(t *testing.T) {
	ctx := context.Background()
	a := open(t, Options{RowGroup: 500})
	files := fill(t, a, "m", 0, 1500, nil)
	want := ids(t, a, files, Query{})
	name, err := a.path(files[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	sound, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	seen, flips := 0, 1000
	if testing.Short() {
		flips = 100
	}
	for range flips {
		torn := slices.Clone(sound)
		at := r.IntN(len(torn))
		torn[at] ^= 1 << r.IntN(8)
		if err := os.WriteFile(name, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		if lost, err := a.Verify(ctx, files); err != nil || len(lost) != 1 || lost[0].Path != files[0].Path {
			t.Fatalf("byte %d of %d: verification says %v, %v", at, len(sound), lost, err)
		}
		var got []string
		err := a.Query(ctx, files, Query{Raw: true}, func(e *remit.Activity, raw []byte) error {
			i := 0
			_, _ = fmt.Sscanf(e.ID, "event-%d", &i)
			if whole, wholeRaw := sample(i); e.Credential != whole.Credential || e.Principal != whole.Principal || string(raw) != string(wholeRaw) {
				t.Errorf("byte %d of %d: event %s is another", at, len(sound), e.ID)
			}
			got = append(got, e.ID)
			return nil
		})
		if err == nil && !slices.Equal(got, want) {
			t.Errorf("byte %d of %d: %d events without an error, want %d", at, len(sound), len(got), len(want))
		}
		if err != nil {
			seen++
		}
		if _, _, err := a.Compact(ctx, "c", append(files, files...)); err == nil {
			t.Errorf("byte %d of %d: damage was compacted", at, len(sound))
		}
	}
	t.Logf("%d of %d flips made a query fail, the others hit what it does not read", seen, flips)
}

func TestTruncated(t *testing.T) {
	a := open(t, Options{RowGroup: 500})
	files := fill(t, a, "m", 0, 600, nil)
	name, _ := a.path(files[0].Path)
	sound, _ := os.ReadFile(name)
	for _, n := range []int{0, 1, 7, 8, 12, len(sound) / 2, len(sound) - 1} {
		if err := os.WriteFile(name, sound[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		for _, bytes := range []int64{files[0].Bytes, int64(n)} { // also if the manifest agreed
			f := files[0]
			f.Bytes = bytes
			err := a.Query(context.Background(), []File{f}, Query{}, func(*remit.Activity, []byte) error { return nil })
			if err == nil || !strings.Contains(err.Error(), f.Path) {
				t.Errorf("%d bytes: %v, want an error that names the file", n, err)
			}
		}
	}
}

// FuzzRead: no file, whatever is in it, does more than fail to be read.
func FuzzRead(f *testing.F) {
	a := open(f, Options{RowGroup: 20})
	files := fill(f, a, "m", 0, 40, nil)
	name, _ := a.path(files[0].Path)
	sound, err := os.ReadFile(name)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sound)
	f.Add([]byte("PAR1"))
	f.Add([]byte("PAR1\x00\x00\x00\x00PAR1"))
	one, _ := sample(7)
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		lie := files[0]
		lie.Bytes = int64(len(data))
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		lie.Footer, _ = footerSum(file, lie.Bytes) // as if it had been written like that
		_ = file.Close()
		for _, q := range []Query{{Raw: true}, {Credential: one.Credential, Limit: 3}} {
			_ = a.Query(context.Background(), []File{lie}, q, func(*remit.Activity, []byte) error { return nil })
		}
	})
}

// TestRecover: what the manifest does not know is set aside, not deleted, and
// what is lost of the manifest is told.
func TestRecover(t *testing.T) {
	ctx := context.Background()
	a := open(t, Options{})
	write := func(rel string, data []byte) {
		t.Helper()
		name := filepath.Join(a.dir, filepath.FromSlash(rel))
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	known := slices.Concat(fill(t, a, "1", 0, 100, nil), fill(t, a, "2", 100, 200, nil), fill(t, a, "3", 200, 300, nil), fill(t, a, "4", 300, 400, nil))
	unknown := fill(t, a, "5", 400, 500, nil)
	partial := strings.TrimSuffix(known[0].Path, "1-0001.parquet") + "6-0001.parquet.part"
	write(partial, []byte("half a file"))
	write("note.txt", []byte("the user's own"))
	write("notes/x.parquet", []byte("the user's own"))
	write(scratch+"/run.part", []byte("a run"))

	data, _ := os.ReadFile(filepath.Join(a.dir, filepath.FromSlash(known[1].Path)))
	write(known[1].Path, data[:len(data)/2])
	data, _ = os.ReadFile(filepath.Join(a.dir, filepath.FromSlash(known[2].Path)))
	data[100] ^= 1
	write(known[2].Path, data)
	if err := os.Remove(filepath.Join(a.dir, filepath.FromSlash(known[3].Path))); err != nil {
		t.Fatal(err)
	}

	found, err := a.Recover(ctx, known, true)
	if err != nil {
		t.Fatal(err)
	}
	var lost []string
	for _, l := range found.Lost {
		lost = append(lost, l.Path)
		if l.Reason == "" {
			t.Errorf("%s is lost for no reason", l.Path)
		}
	}
	if want := []string{known[1].Path, known[2].Path, known[3].Path}; !slices.Equal(lost, want) {
		t.Errorf("lost %v, want %v", lost, want)
	}
	want := []string{known[1].Path, known[2].Path, unknown[0].Path, partial}
	slices.Sort(want)
	slices.Sort(found.Paths)
	if !slices.Equal(found.Paths, want) || found.SetAside != 4 || found.Bytes == 0 {
		t.Errorf("set aside %v (%d, %d bytes), want %v", found.Paths, found.SetAside, found.Bytes, want)
	}
	for _, rel := range append(want, "../note.txt", "../notes/x.parquet") {
		if _, err := os.Stat(filepath.Join(a.dir, asideDir, filepath.FromSlash(rel))); err != nil {
			t.Errorf("%s is neither aside nor where it was: %v", rel, err)
		}
	}
	if _, err := os.Stat(filepath.Join(a.dir, scratch)); !errors.Is(err, os.ErrNotExist) {
		t.Error("a compaction's scratch is left")
	}
	if got := ids(t, a, known[:1], Query{}); len(got) != 100 {
		t.Errorf("the sound file has %d events left", len(got))
	}
	again, err := a.Recover(ctx, known[:1], true)
	if err != nil || len(again.Lost) > 0 || again.SetAside > 0 {
		t.Errorf("a second recovery found %+v, %v", again, err)
	}
	// The same mark can be used again, and be set aside again under another name.
	unknown = fill(t, a, "5", 400, 500, nil)
	if found, err = a.Recover(ctx, known[:1], false); err != nil || found.SetAside != 1 {
		t.Errorf("a third recovery: %+v, %v", found, err)
	}
	if _, err := os.Stat(filepath.Join(a.dir, asideDir, filepath.FromSlash(unknown[0].Path)) + ".2"); err != nil {
		t.Error(err)
	}
}

func TestRetain(t *testing.T) {
	ctx := context.Background()
	a := open(t, Options{})
	var files []File
	for day := range 10 {
		files = append(files, fill(t, a, fmt.Sprint("d", day), 0, 100, func(e *remit.Activity) { e.Time = e.Time.AddDate(0, 0, -day) })...)
	}
	other := fill(t, a, "other", 0, 100, func(e *remit.Activity) { e.System = staging; e.Time = e.Time.AddDate(-3, 0, 0) })
	all := append(slices.Clone(files), other...)
	days := func(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }
	now := start.Add(12 * time.Hour)
	each := files[0].Bytes + 200
	for name, test := range map[string]struct {
		r                 Retention
		remove, dropRawed int
	}{
		"nothing": {Retention{}, 0, 0},
		"age":     {Retention{Age: days(7)}, 3, 0},
		"size":    {Retention{Bytes: 4 * each}, 6, 0},
		"raw":     {Retention{RawAge: days(2)}, 0, 8},
		"all":     {Retention{Age: days(7), Bytes: 8 * each, RawAge: days(2)}, 3, 5},
	} {
		remove, drop := Retain(all, now, func(system remit.ID) Retention {
			if system == production {
				return test.r
			}
			return Retention{}
		})
		if len(remove) != test.remove || len(drop) != test.dropRawed {
			t.Errorf("%s: %d to remove and %d to drop raw events of, want %d and %d", name, len(remove), len(drop), test.remove, test.dropRawed)
		}
		for _, f := range append(remove, drop...) {
			if f.System != production {
				t.Errorf("%s: %s is another system's", name, f.Path)
			}
		}
	}

	remove, drop := Retain(files, now, func(remit.ID) Retention { return Retention{Age: days(7), RawAge: days(2)} })
	var made []File
	for i, f := range drop {
		m, replaced, err := a.DropRaw(ctx, fmt.Sprint("raw", i), f)
		if err != nil || len(m) != 1 || len(replaced) != 1 || m[0].Raw || m[0].Rows != f.Rows || m[0].Bytes >= f.Bytes {
			t.Fatalf("without raw events: %+v for %+v, %v", m, replaced, err)
		}
		made = append(made, m...)
	}
	if err := a.Remove(ctx, append(remove, drop...)); err != nil {
		t.Fatal(err)
	}
	n := 0
	err := a.Query(ctx, made, Query{Raw: true}, func(e *remit.Activity, raw []byte) error {
		n++
		if raw != nil || e.Principal == "" {
			t.Errorf("event %s: principal %q, raw %q", e.ID, e.Principal, raw)
		}
		return nil
	})
	if err != nil || n != 100*len(made) {
		t.Errorf("%d events, want %d: %v", n, 100*len(made), err)
	}
	if m, r, err := a.DropRaw(ctx, "again", made[0]); len(m)+len(r) > 0 || err != nil {
		t.Error("what has no raw events was written again")
	}
	if dirs, _ := filepath.Glob(filepath.Join(a.dir, "system="+string(production), "*")); len(dirs) != 7 {
		t.Errorf("%d days are left, want 7: empty directories go", len(dirs))
	}
	if err := a.Remove(ctx, remove); err != nil {
		t.Errorf("removed twice: %v", err)
	}
}

// TestCompactLarge goes through sorted runs on disk, and leaves none behind.
func TestCompactLarge(t *testing.T) {
	ctx := context.Background()
	a := open(t, Options{})
	files := slices.Concat(fill(t, a, "1", 0, 40_000, nil), fill(t, a, "2", 40_000, 70_000, nil))
	made, replaced, err := a.Compact(ctx, "c", files)
	if err != nil || len(made) != 1 || len(replaced) != 2 || made[0].Rows != 70_000 {
		t.Fatalf("%+v for %+v: %v", made, replaced, err)
	}
	if left := glob(t, a.dir, ".part"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	var last row
	seen := map[string]bool{}
	err = a.each(ctx, made[0], true, func(r *row) error {
		if inOrder(&last, r) > 0 {
			return fmt.Errorf("%s comes behind %s", r.EventID, last.EventID)
		}
		last = *r
		seen[r.EventID] = true
		return nil
	})
	if err != nil || len(seen) != 70_000 {
		t.Errorf("%d events: %v", len(seen), err)
	}
	if made, replaced, err := a.Compact(ctx, "d", made); len(made)+len(replaced) > 0 || err != nil {
		t.Errorf("one compacted file was compacted again: %v", err)
	}
	two := fill(t, a, "3", 0, 10, func(e *remit.Activity) { e.System = staging })
	if _, _, err := a.Compact(ctx, "e", append(made, append(two, files[0])...)); remit.KindOf(err) != remit.Invalid {
		t.Errorf("files of two systems: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := a.Compact(cancelled, "f", files); !errors.Is(err, context.Canceled) {
		t.Errorf("a compaction that was cancelled: %v", err)
	}
	if left := glob(t, a.dir, ".part"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
