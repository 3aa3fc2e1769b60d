package ingest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"remit"
	"remit/activity"
)

// Positions keeps how far a source was read. [remit.ActivityWriter] and
// [remit.ActivityReader] together are one.
type Positions interface {
	Positions(ctx context.Context) ([]remit.Position, error)
	Checkpoint(ctx context.Context, c remit.Checkpoint) error
}

// position returns where a source was left, a zero one when it is new.
func position(ctx context.Context, from Positions, source string) (remit.Position, error) {
	all, err := from.Positions(ctx)
	if err != nil {
		return remit.Position{}, err
	}
	for _, p := range all {
		if p.Source == source {
			return p, nil
		}
	}
	return remit.Position{Source: source}, nil
}

// Tail follows a file to which another program appends lines, and which it
// rotates by renaming (as kube-apiserver and logrotate do) or by truncating.
// What was written while nobody followed is read first, also from files that were
// rotated away meanwhile, compressed or not.
type Tail struct {
	Path      string
	From      Origin
	Intake    *Intake
	Positions Positions
	Log       *slog.Logger

	// Every is how often the file is looked at; 0 is a quarter of a second.
	Every time.Duration
}

// headBytes is how much of a file's beginning tells it from others: an audit
// event has an ID of its own well within it.
const headBytes = 1024

// tailPosition is the Detail of a position: the file by its beginning, for a
// rename keeps that and a new file has another. Offset is into what the file
// holds without its compression.
type tailPosition struct {
	Head   string `json:"head"` // SHA-256 of the first Length bytes
	Length int64  `json:"length"`
}

// chunkBytes is how much of a file is taken at once, and the longest line.
const chunkBytes = 4 << 20

// Source is under what name the position is kept.
func (t *Tail) Source() string { return "tail " + t.Path }

// Run follows the file until ctx ends. It waits for a file that does not exist,
// and while the queue is full; its errors are those of the store and of a disk
// that cannot be read.
func (t *Tail) Run(ctx context.Context) error {
	p, err := position(ctx, t.Positions, t.Source())
	if err != nil {
		return err
	}
	f := &followed{tail: t}
	defer f.close()
	if err := f.resume(ctx, p); err != nil {
		return err
	}
	for {
		if err := f.advance(ctx); err != nil {
			return err
		}
		if !pass(ctx, t.every()) {
			return ctx.Err()
		}
	}
}

func (t *Tail) every() time.Duration { return cmp.Or(t.Every, 250*time.Millisecond) }

// pass lets time pass, and says whether ctx has not ended meanwhile.
func pass(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// followed is the file that is being read.
type followed struct {
	tail   *Tail
	file   *os.File // nil until there is one
	offset int64
	buffer []byte
	saved  int64 // offset of the last position that was written
	moved  bool  // another file has its name

	// ended are the last files that were read to their end: rotations in quick
	// succession leave files of the same time, which does not tell those that were
	// read from those that were not.
	ended []tailPosition
}

// endedKept is more files than are rotated away before a clock goes on.
const endedKept = 64

// end remembers that a file was read to its end.
func (f *followed) end(at tailPosition) {
	if len(f.ended) == endedKept {
		f.ended = slices.Delete(f.ended, 0, 1)
	}
	f.ended = append(f.ended, at)
}

func (f *followed) close() {
	if f.file != nil {
		f.file.Close()
		f.file = nil
	}
}

// resume reads what was written since the position to files that have been
// rotated away, and stands behind it in the present one.
func (f *followed) resume(ctx context.Context, p remit.Position) error {
	var at tailPosition
	if len(p.Detail) == 0 {
		return nil // never read: the present file from its beginning
	}
	if err := json.Unmarshal(p.Detail, &at); err != nil {
		return remit.Errorf(remit.Internal, "follow "+f.tail.Path, "the stored position is damaged: %w", err)
	}
	// The present file is opened before the others are listed: whatever is
	// rotated from now on is this one.
	for f.file == nil {
		if err := f.open(0); err != nil {
			return err
		}
		if f.file == nil && !pass(ctx, f.tail.every()) {
			return ctx.Err()
		}
	}
	if head(io.NewSectionReader(f.file, 0, at.Length), at.Length) == at.Head {
		f.offset = p.Offset
		return nil
	}
	rotated, err := f.others()
	if err != nil {
		return err
	}
	for _, name := range rotated {
		if !is(name, at) {
			continue
		}
		info, err := os.Stat(name)
		if err != nil {
			break // removed meanwhile
		}
		if err := f.whole(ctx, name, p.Offset); err != nil {
			return err
		}
		return f.since(ctx, info.ModTime())
	}
	f.tail.Log.Warn("the file that was read last is gone; what was written to it after that, if anything, is not known",
		"path", f.tail.Path, "read_until", p.Updated)
	return f.since(ctx, p.Updated)
}

// since reads the rotated files that were written to at a time or later, but for
// those that were read to their end. Nothing says in which order files of the
// same instant were written, so the instant itself belongs to it.
func (f *followed) since(ctx context.Context, then time.Time) error {
	rotated, err := f.others()
	if err != nil {
		return err
	}
	for _, name := range rotated {
		info, err := os.Stat(name)
		if err != nil || info.ModTime().Before(then) || f.hasEnded(name) {
			continue
		}
		if err := f.whole(ctx, name, 0); err != nil {
			return err
		}
	}
	return nil
}

// others lists the rotated files without the one that is open.
func (f *followed) others() ([]string, error) {
	all, err := f.tail.rotated()
	if err != nil {
		return nil, err
	}
	present, err := f.file.Stat()
	if err != nil {
		return nil, remit.Errorf(remit.Unavailable, "follow "+f.tail.Path, "%w", err)
	}
	return slices.DeleteFunc(all, func(name string) bool {
		info, err := os.Stat(name)
		return err != nil || os.SameFile(info, present)
	}), nil
}

// rotated lists the files beside the present one that may be former ones of it,
// the oldest first: audit-2026-11-25T10-00-00.000.log, audit.log.1, both perhaps
// compressed.
func (t *Tail) rotated() ([]string, error) {
	dir, base := filepath.Split(t.Path)
	stem := strings.TrimSuffix(base, filepath.Ext(base))
	entries, err := os.ReadDir(cmp.Or(dir, "."))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, remit.Errorf(remit.Unavailable, "follow "+t.Path, "%w", err)
	}
	type old struct {
		path string
		time time.Time
	}
	var all []old
	for _, e := range entries {
		name := e.Name()
		if name == base || !e.Type().IsRegular() || !strings.HasPrefix(name, stem+"-") && !strings.HasPrefix(name, base+".") {
			continue
		}
		if info, err := e.Info(); err == nil {
			all = append(all, old{filepath.Join(dir, name), info.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b old) int { return cmp.Or(a.time.Compare(b.time), cmp.Compare(a.path, b.path)) })
	paths := make([]string, len(all))
	for i := range all {
		paths[i] = all[i].path
	}
	return paths, nil
}

// is says whether a file begins as the one of a position.
func is(path string, at tailPosition) bool {
	if at.Length == 0 {
		return false
	}
	r, err := openPlain(path)
	if err != nil {
		return false
	}
	defer r.Close()
	return head(r, at.Length) == at.Head
}

func head(r io.Reader, length int64) string {
	h := sha256.New()
	if n, err := io.CopyN(h, r, length); err != nil || n != length {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}

// begins is how a file is known again of which that many bytes were read. r is at its
// beginning.
func begins(r io.Reader, read int64) tailPosition {
	length := min(read, headBytes)
	return tailPosition{Head: head(r, length), Length: length}
}

type plainFile struct {
	io.Reader
	done func()
	file *os.File
}

func (p *plainFile) Close() error { p.done(); return p.file.Close() }

func openPlain(path string) (*plainFile, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r, done, err := activity.Decompress(file)
	if err != nil {
		file.Close()
		return nil, err
	}
	return &plainFile{r, done, file}, nil
}

// whole takes a file that grows no more from an offset to its end.
func (f *followed) whole(ctx context.Context, path string, offset int64) error {
	r, err := openPlain(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed meanwhile
	}
	if err != nil {
		return remit.Errorf(remit.Unavailable, "follow "+f.tail.Path, "%s: %w", path, err)
	}
	defer r.Close()
	if _, err := io.CopyN(io.Discard, r, offset); err != nil {
		return nil // shorter than what was read of it
	}
	var rest []byte
	for at := offset; ; {
		n, err := io.ReadFull(r, f.room(len(rest)))
		text := f.buffer[:len(rest)+n]
		ended := err != nil
		if ended && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return remit.Errorf(remit.Unavailable, "follow "+f.tail.Path, "%s: %w", path, err)
		}
		taken := bytes.LastIndexByte(text, '\n') + 1
		if ended || taken == 0 && len(text) >= chunkBytes {
			taken = len(text) // a last line without its end, or a line that is too long
		}
		if err := f.take(ctx, text[:taken]); err != nil {
			return err
		}
		at += int64(taken)
		if ended {
			f.endWhole(path, at)
			return nil
		}
		rest = f.buffer[:copy(f.buffer, text[taken:])]
	}
}

// endWhole remembers a file, perhaps compressed, of which that much was read.
func (f *followed) endWhole(path string, read int64) {
	r, err := openPlain(path)
	if err != nil {
		return // removed meanwhile
	}
	defer r.Close()
	f.end(begins(r, read))
}

// hasEnded says whether a file was read to its end. What is shorter than a head has
// to be the whole of it: half a line, which a writer left, may be the beginning of
// any other.
func (f *followed) hasEnded(path string) bool {
	return slices.ContainsFunc(f.ended, func(at tailPosition) bool {
		r, err := openPlain(path)
		if err != nil {
			return false
		}
		defer r.Close()
		if head(r, at.Length) != at.Head {
			return false
		}
		if at.Length == headBytes {
			return true
		}
		n, err := io.CopyN(io.Discard, r, 1)
		return n == 0 && errors.Is(err, io.EOF)
	})
}

// room returns the part of the buffer behind what is kept in it.
func (f *followed) room(kept int) []byte {
	if f.buffer == nil {
		f.buffer = make([]byte, chunkBytes)
	}
	return f.buffer[kept:]
}

// take queues lines, and waits while there is no room for them.
func (f *followed) take(ctx context.Context, lines []byte) error {
	if len(lines) == 0 {
		return nil
	}
	return patiently(ctx, f.tail.Log, func() error {
		_, err := f.tail.Intake.Lines(ctx, f.tail.From, lines)
		return err
	})
}

// patiently does what fails while the queue is full or the store is away until
// it is done.
func patiently(ctx context.Context, log *slog.Logger, do func() error) error {
	pause := 100 * time.Millisecond
	for {
		err := do()
		if remit.KindOf(err) != remit.Unavailable || ctx.Err() != nil {
			return cmp.Or(ctx.Err(), err)
		}
		log.Warn("waiting to hand events on", "error", err, "pause", pause)
		if !pass(ctx, pause) {
			return ctx.Err()
		}
		pause = min(2*pause, 5*time.Second)
	}
}

func (f *followed) open(offset int64) error {
	file, err := os.Open(f.tail.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return remit.Errorf(remit.Unavailable, "follow "+f.tail.Path, "%w", err)
	}
	f.file, f.offset, f.saved, f.moved = file, offset, -1, false
	return nil
}

// advance takes what was appended, and goes on to the next file when the present
// one was rotated away.
func (f *followed) advance(ctx context.Context) error {
	if f.file == nil {
		if err := f.open(0); err != nil || f.file == nil {
			return err
		}
	}
	info, err := f.file.Stat()
	if err != nil {
		return remit.Errorf(remit.Unavailable, "follow "+f.tail.Path, "%w", err)
	}
	if info.Size() < f.offset {
		f.tail.Log.Info("the file was truncated; reading it from its beginning", "path", f.tail.Path)
		f.offset = 0
	}
	// What has the name must be looked up before the last bytes are read: what
	// is written to the former file after that is read in the next round.
	now, err := os.Stat(f.tail.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return remit.Errorf(remit.Unavailable, "follow "+f.tail.Path, "%w", err)
	}
	moved := err == nil && !os.SameFile(info, now)
	if err := f.read(ctx, moved && f.moved); err != nil {
		return err
	}
	if !moved || !f.moved {
		// The writer may have the former file open for a moment longer.
		f.moved = moved
		return nil
	}
	return f.next(ctx, info)
}

// next goes on from a file that was read to its end to the present one, by way of
// files that came and went between them.
func (f *followed) next(ctx context.Context, former fs.FileInfo) error {
	read := begins(io.NewSectionReader(f.file, 0, headBytes), f.offset)
	last := f.file
	if err := f.open(0); err != nil || f.file == last {
		return err // between the renaming and the new file: there is one soon
	}
	last.Close()
	f.end(read)
	if err := f.since(ctx, former.ModTime()); err != nil {
		return err
	}
	return f.read(ctx, false)
}

// read takes the complete lines between the offset and the end of the file; with
// last, the one without an end as well.
func (f *followed) read(ctx context.Context, last bool) error {
	for {
		text := f.room(0)
		n, err := f.file.ReadAt(text, f.offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return remit.Errorf(remit.Unavailable, "follow "+f.tail.Path, "%w", err)
		}
		text = text[:n]
		taken := bytes.LastIndexByte(text, '\n') + 1
		if last && errors.Is(err, io.EOF) || taken == 0 && n == chunkBytes {
			taken = n
		}
		if taken > 0 {
			if err := f.take(ctx, text[:taken]); err != nil {
				return err
			}
			f.offset += int64(taken)
			if err := f.save(ctx); err != nil {
				return err
			}
		}
		if taken == 0 || errors.Is(err, io.EOF) {
			return nil
		}
	}
}

// save writes the position behind what the queue has.
func (f *followed) save(ctx context.Context) error {
	if f.offset == f.saved {
		return nil
	}
	at, err := json.Marshal(begins(io.NewSectionReader(f.file, 0, headBytes), f.offset))
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	err = patiently(ctx, f.tail.Log, func() error {
		return f.tail.Positions.Checkpoint(ctx, remit.Checkpoint{Now: now, Positions: []remit.Position{
			{Source: f.tail.Source(), Offset: f.offset, Detail: at, Updated: now},
		}})
	})
	if err == nil {
		f.saved = f.offset
	}
	return err
}
