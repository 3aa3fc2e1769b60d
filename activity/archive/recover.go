package archive

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"remit"
)

// asideDir holds what recovery took out of the archive.
const asideDir = "set-aside"

// Recovered is what a recovery found.
type Recovered struct {
	// Lost are the files of the manifest that are missing, torn or changed.
	// Their events are no longer in the archive: take the files out of the
	// manifest and build them again from the queue or the source.
	Lost []Lost

	// SetAside is how many files were moved to the directory set-aside: what
	// the manifest does not know, and what of Lost was still there. Paths
	// names them, relative to the archive. Their events were never acknowledged,
	// and so come again; delete the directory when nobody needs to look.
	SetAside int
	Paths    []string
	Bytes    int64
}

// Lost is a file of the manifest that cannot be read any more, and why.
type Lost struct {
	File
	Reason string
}

// Recover makes the directory agree with the manifest after a crash: call it
// after [Open] and before anything else, with every file that the manifest
// lists. Files that the manifest does not know, finished or not, are moved
// aside; nothing is deleted but the scratch files of a compaction.
//
// Every file's size and footer are looked at, which costs a few milliseconds for
// a hundred files; with checksums also its contents, which takes as long as
// reading the archive. A crash cannot damage a flushed file, a disk can.
func (a *Archive) Recover(ctx context.Context, known []File, checksums bool) (Recovered, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var found Recovered
	if a.mark != nil {
		return found, remit.Errorf(remit.Conflict, "recover archive", "a mark is open: recover before the first one is begun")
	}
	if err := os.RemoveAll(filepath.Join(a.dir, scratch)); err != nil {
		return found, recovering(err)
	}

	sound := make(map[string]bool, len(known))
	for _, f := range known {
		if err := ctx.Err(); err != nil {
			return found, err
		}
		err := a.check(ctx, f, checksums)
		switch {
		case err == nil:
			sound[f.Path] = true
		case ctx.Err() != nil:
			return found, ctx.Err()
		default:
			found.Lost = append(found.Lost, Lost{f, err.Error()})
		}
	}

	var aside []string
	err := filepath.WalkDir(a.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(a.dir, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		top, _, _ := strings.Cut(rel, "/")
		switch {
		case d.IsDir() && rel != "." && !strings.HasPrefix(top, "system="):
			return fs.SkipDir // not ours
		case d.IsDir() || !strings.Contains(rel, "/"):
		case !sound[rel]:
			aside = append(aside, rel)
		}
		return ctx.Err()
	})
	if err != nil {
		return found, recovering(err)
	}
	for _, rel := range aside {
		n, err := a.setAside(rel)
		if err != nil {
			return found, recovering(err)
		}
		found.SetAside++
		found.Bytes += n
		found.Paths = append(found.Paths, rel)
	}
	return found, nil
}

func recovering(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return remit.Errorf(remit.Unavailable, "recover archive", "%w", err)
}

// setAside moves a file out of the way, under a name that is free, and says how
// large it is.
func (a *Archive) setAside(rel string) (int64, error) {
	from := filepath.Join(a.dir, filepath.FromSlash(rel))
	to := filepath.Join(a.dir, asideDir, filepath.FromSlash(rel))
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return 0, err
	}
	free := to
	for n := 2; ; n++ {
		if _, err := os.Lstat(free); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return 0, err
		}
		free = to + "." + strconv.Itoa(n)
	}
	info, err := os.Lstat(from)
	if err != nil {
		return 0, err
	}
	if err := os.Rename(from, free); err != nil {
		return 0, err
	}
	if err := syncDir(filepath.Dir(from)); err != nil {
		return 0, err
	}
	for dir := path.Join(asideDir, path.Dir(rel)); ; dir = path.Dir(dir) {
		if err := syncDir(filepath.Join(a.dir, filepath.FromSlash(dir))); err != nil {
			return 0, err
		}
		if dir == "." {
			return info.Size(), nil
		}
	}
}
