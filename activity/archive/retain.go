package archive

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"remit"
)

// Retention says how long events of one system are kept. A zero field sets no
// bound.
type Retention struct {
	Age    time.Duration // of the event, by its own system's clock
	Bytes  int64         // of all files of the system; the oldest hours go first
	RawAge time.Duration // after which only the columns are kept, not the raw event
}

// Retain looks which of files are to go, by the retention that of gives for each
// system. Remove are those that are too old, or too much; DropRaw are those whose
// raw events are too old, to be given to [Archive.DropRaw]. No file is in both.
// Nothing is changed: the caller takes what goes out of its manifest and then
// calls [Archive.Remove]. A file goes as a whole, when its latest event is
// too old.
func Retain(files []File, now time.Time, of func(system remit.ID) Retention) (remove, dropRaw []File) {
	systems := make(map[remit.ID][]File)
	for _, f := range files {
		systems[f.System] = append(systems[f.System], f)
	}
	for system, files := range systems {
		r := of(system)
		slices.SortFunc(files, func(x, y File) int { // the newest first
			return cmp.Or(-x.Hour.Compare(y.Hour), -x.MaxTime.Compare(y.MaxTime), cmp.Compare(x.Path, y.Path))
		})
		var total int64
		over := false // once a file is too much, so is everything older
		for _, f := range files {
			total += f.Bytes
			over = over || r.Bytes > 0 && total > r.Bytes
			age := now.Sub(f.MaxTime)
			switch {
			case over, r.Age > 0 && age > r.Age:
				remove = append(remove, f)
			case f.Raw && r.RawAge > 0 && age > r.RawAge:
				dropRaw = append(dropRaw, f)
			}
		}
	}
	byPath := func(x, y File) int { return cmp.Compare(x.Path, y.Path) }
	slices.SortFunc(remove, byPath)
	slices.SortFunc(dropRaw, byPath)
	return remove, dropRaw
}

// Remove deletes files that are no longer in the manifest: what a compaction
// replaced, what a retention ended, or what a flush made whose commit failed.
// Files that are gone already are no error. Directories that become empty go too.
func (a *Archive) Remove(ctx context.Context, files []File) error {
	a.mu.Lock() // so that no directory goes while a file is opened in it
	defer a.mu.Unlock()
	dirs := make(map[string]bool)
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		name, err := a.path(f.Path)
		if err != nil {
			return err
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return remit.Errorf(remit.Unavailable, "remove from archive", "%w", err)
		}
		dirs[filepath.Dir(name)] = true
	}
	for dir := range dirs {
		// From the hour up, for as long as nothing else is there.
		for len(dir) > len(a.dir) && os.Remove(dir) == nil {
			dir = filepath.Dir(dir)
		}
		if err := syncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return remit.Errorf(remit.Unavailable, "remove from archive", "%w", err)
		}
	}
	return nil
}
