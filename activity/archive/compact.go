package archive

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"remit"
)

// The bounds of a compaction: so many rows, or so many bytes of raw events,
// are sorted in memory, and so many sorted runs are merged, at some 5 MB each.
// Large raw events make more runs of fewer rows.
const (
	runRows  = 50_000
	runBytes = 32 << 20
	maxRuns  = 16
	scratch  = ".compact" // runs on their way; a crash leaves nothing there that is needed
)

// Compact merges files of one hour of one system into one, sorted by identity,
// credential and time, so that what one credential did lies together: a few
// pages of each hour answer for it. The checksum of every file is verified on
// the way, so that damage is not copied into a file that looks sound.
//
// mark names the new file as in [Archive.Begin] and must not be used twice.
// What comes back is the new file and the ones that it stands for; of more than
// 800,000 events the rest is left for another compaction, and when there is
// nothing to gain both are empty. It takes up to about 350 MB. The caller commits the exchange to its
// manifest, then removes the replaced ones by [Archive.Remove]. Until then,
// and after a crash at any instant, they are untouched.
func (a *Archive) Compact(ctx context.Context, mark string, files []File) (made, replaced []File, err error) {
	if len(files) == 0 || len(files) == 1 && files[0].Compacted {
		return nil, nil, nil
	}
	for _, f := range files[1:] {
		if f.System != files[0].System || !f.Hour.Equal(files[0].Hour) {
			return nil, nil, remit.Errorf(remit.Invalid, "compact archive", "%s and %s are of two hours or systems", files[0].Path, f.Path)
		}
	}
	// The small ones first: what came late is merged before what is large already.
	files = slices.Clone(files)
	slices.SortStableFunc(files, func(x, y File) int { return cmp.Compare(x.Rows, y.Rows) })
	if replaced = together(files); replaced == nil {
		return nil, nil, nil
	}
	s := &sorter{archive: a, mark: fileName(mark)}
	defer s.close()
	for i, f := range replaced {
		if len(s.runs) >= maxRuns { // because of large raw events
			replaced = replaced[:i]
			break
		}
		if err := a.verify(ctx, f); err != nil {
			return nil, nil, err
		}
		if err := a.each(ctx, f, true, s.add); err != nil {
			return nil, nil, err
		}
	}
	made, err = a.write(ctx, mark, replaced[0], true, s.sorted)
	if err != nil {
		return nil, nil, err
	}
	return made, replaced, nil
}

// together is the first of the files that are worth to be merged into one: as
// many as fit, but not one alone that is sorted already, however small it is. It
// once stood in the way of all the larger ones.
func together(files []File) []File {
	for start := range files {
		end, rows := start+1, files[start].Rows
		for end < len(files) && rows+files[end].Rows <= maxRuns*runRows {
			rows += files[end].Rows
			end++
		}
		if end > start+1 || !files[start].Compacted {
			return files[start:end]
		}
	}
	return nil
}

// DropRaw writes a file again without the raw events, in the same order. What
// comes back, and what to do with it, is as with [Archive.Compact].
func (a *Archive) DropRaw(ctx context.Context, mark string, f File) (made, replaced []File, err error) {
	if !f.Raw {
		return nil, nil, nil
	}
	if err := a.verify(ctx, f); err != nil {
		return nil, nil, err
	}
	made, err = a.write(ctx, mark, f, f.Compacted, func(ctx context.Context, add func(*row) error) error {
		return a.each(ctx, f, false, add)
	})
	if err != nil {
		return nil, nil, err
	}
	return made, []File{f}, nil
}

// each gives every row of a file, as it lies there. The row's lists are used again.
func (a *Archive) each(ctx context.Context, f File, raw bool, each func(*row) error) error {
	r, err := a.open(f)
	if err != nil {
		return err
	}
	defer r.Close()
	for group, rg := range r.parquet.RowGroups() {
		err := r.rows(ctx, group, raw, allRows(int(rg.NumRows())), func(rows []row) error {
			for i := range rows {
				if err := each(&rows[i]); err != nil {
					return fromCaller{err}
				}
			}
			return nil
		})
		var caller fromCaller
		if errors.As(err, &caller) {
			return caller.err
		}
		if err != nil {
			return damaged(f, err)
		}
	}
	return nil
}

// write makes one finished file beside like out of the rows that fill adds.
func (a *Archive) write(ctx context.Context, mark string, like File, compacted bool, fill func(context.Context, func(*row) error) error) (made []File, err error) {
	w := &writing{partition: partition{like.System, floorHour(like.Hour.UnixMicro())}}
	if err := a.create(w, fileName(mark), 1); err != nil {
		return nil, rewriting(err)
	}
	defer func() {
		if err != nil {
			_ = w.drop()
		}
	}()
	w.SystemName, w.Compacted = like.SystemName, compacted
	w.w = &parquetWriter{w: newWriter(w, a.o.RowGroup, true)}
	err = fill(ctx, func(r *row) error {
		if r.Raw != nil {
			w.Raw = true
		}
		w.count(r.Time)
		return w.w.add(r)
	})
	if err != nil {
		return nil, rewriting(err)
	}
	if err := w.w.flush(); err != nil {
		return nil, rewriting(err)
	}
	if err := w.complete(); err != nil {
		return nil, rewriting(err)
	}
	made, err = a.place(ctx, []*writing{w})
	return made, rewriting(err)
}

func rewriting(err error) error {
	var known *remit.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	return remit.Errorf(remit.Unavailable, "rewrite archive", "%w: nothing was changed", err)
}

// add writes a row that comes from another file.
func (w *parquetWriter) add(r *row) error {
	next := w.next()
	chain, audiences := next.Chain[:0], next.MintedAudiences[:0]
	*next = *r
	next.Chain, next.MintedAudiences = append(chain, r.Chain...), append(audiences, r.MintedAudiences...)
	if r.Raw != nil {
		next.Raw = keep(w, *r.Raw)
	}
	if w.full() {
		return w.flush()
	}
	return nil
}

// inOrder is the order of compacted files.
func inOrder(x, y *row) int {
	return cmp.Or(
		strings.Compare(x.Identity, y.Identity),
		strings.Compare(x.Credential, y.Credential),
		cmp.Compare(x.Time, y.Time),
		strings.Compare(x.EventID, y.EventID),
	)
}

// sorter sorts rows in bounded memory: as many as fit are sorted and written
// out as a run, and the runs are merged.
type sorter struct {
	archive *Archive
	mark    string
	rows    []row
	order   []*row // the rows, sorted
	bytes   int
	runs    []*run
}

func (s *sorter) add(r *row) error {
	s.rows = append(s.rows, *r)
	kept := &s.rows[len(s.rows)-1]
	kept.Chain, kept.MintedAudiences = slices.Clone(r.Chain), slices.Clone(r.MintedAudiences)
	if r.Raw != nil {
		s.bytes += len(*r.Raw)
	}
	if len(s.rows) < runRows && s.bytes < runBytes {
		return nil
	}
	return s.spill()
}

func (s *sorter) sort() {
	s.order = s.order[:0]
	for i := range s.rows {
		s.order = append(s.order, &s.rows[i])
	}
	slices.SortFunc(s.order, inOrder)
}

// spill writes the rows in memory as a run.
func (s *sorter) spill() error {
	s.sort()
	dir := filepath.Join(s.archive.dir, scratch)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, fmt.Sprintf("%s-*%s", s.mark, partSuffix))
	if err != nil {
		return err
	}
	r := &run{file: f}
	s.runs = append(s.runs, r)
	w := &parquetWriter{w: newWriter(f, runRows, false)}
	for _, row := range s.order {
		if err := w.add(row); err != nil {
			return err
		}
	}
	clear(s.rows)
	s.rows, s.bytes = s.rows[:0], 0
	if err := w.flush(); err != nil {
		return err
	}
	if err := w.w.Close(); err != nil {
		return err
	}
	return r.open()
}

// sorted gives all rows in order.
func (s *sorter) sorted(ctx context.Context, each func(*row) error) error {
	if len(s.runs) == 0 {
		s.sort()
		for _, row := range s.order {
			if err := each(row); err != nil {
				return err
			}
		}
		return ctx.Err()
	}
	if len(s.rows) > 0 {
		if err := s.spill(); err != nil {
			return err
		}
	}
	s.rows, s.order = nil, nil
	var h runs
	for _, r := range s.runs {
		if err := r.next(); err == nil {
			h = append(h, r)
		} else if !errors.Is(err, io.EOF) {
			return err
		}
	}
	heap.Init(&h)
	for n := 0; len(h) > 0; n++ {
		if n%batchRows == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := each(h[0].row()); err != nil {
			return err
		}
		switch err := h[0].next(); {
		case err == nil:
			heap.Fix(&h, 0)
		case errors.Is(err, io.EOF):
			heap.Pop(&h)
		default:
			return err
		}
	}
	return nil
}

func (s *sorter) close() {
	for _, r := range s.runs {
		r.close()
	}
}

// run is a sorted file of rows, one row group long, that is read once.
type run struct {
	file   *os.File
	group  *groupReader
	total  int
	read   int   // rows read so far
	batch  []row // the last ones of these
	at     int
	number []int32
}

// runBatch is how many rows of each run are in memory while runs are merged.
const runBatch = 64

func (r *run) open() error {
	info, err := r.file.Stat()
	if err != nil {
		return err
	}
	footer, err := footerSum(r.file, info.Size())
	if err != nil {
		return err
	}
	reader, err := openReader(r.file, File{Bytes: info.Size(), Footer: footer})
	if err != nil {
		return err
	}
	r.total = int(reader.parquet.NumRows())
	r.group, err = reader.group(0, true)
	return err
}

// next goes to the next row; io.EOF behind the last.
func (r *run) next() error {
	if r.at++; r.at < len(r.batch) {
		return nil
	}
	if r.read == r.total {
		return io.EOF
	}
	n := min(runBatch, r.total-r.read)
	if r.batch == nil {
		r.batch = make([]row, runBatch)
	}
	r.number = r.number[:0]
	for i := range n {
		r.number = append(r.number, int32(r.read+i))
	}
	r.batch, r.at = r.batch[:n], 0
	r.read += n
	return r.group.read(r.number, r.batch)
}

func (r *run) row() *row { return &r.batch[r.at] }

func (r *run) close() {
	if r.group != nil {
		r.group.close()
	}
	_ = r.file.Close()
	_ = os.Remove(r.file.Name())
}

// runs is a heap of runs by their current row.
type runs []*run

func (h runs) Len() int           { return len(h) }
func (h runs) Less(i, j int) bool { return inOrder(h[i].row(), h[j].row()) < 0 }
func (h runs) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *runs) Push(r any)        { *h = append(*h, r.(*run)) }
func (h *runs) Pop() any {
	last := len(*h) - 1
	r := (*h)[last]
	*h = (*h)[:last]
	return r
}
