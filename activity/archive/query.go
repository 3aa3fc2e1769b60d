package archive

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"math/bits"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/parquet-go/parquet-go"
	"golang.org/x/sync/errgroup"

	"remit"
)

// Query says which events to give. A zero field asks for nothing.
type Query struct {
	System   remit.ID
	Event    string // the event's ID
	Identity remit.ID

	// Credential is as the log writes it. It matches the events that it was
	// used for and the one that minted it. Root matches its whole lineage.
	Credential string
	Root       string

	Action   string
	Resource remit.Ref // each part that is not ""
	Address  string
	Outcome  remit.Outcome

	From, To time.Time // From ≤ event time < To; zero is open

	// Limit ends the answer after so many events, at most [MaxLimit]; 0 gives
	// all of them.
	Limit int

	// Oldest gives the oldest events first instead of the newest.
	Oldest bool

	// Raw also gives the raw events, which cost most to read.
	Raw bool
}

// MaxLimit is the largest limit of a query, and how many events of one hour
// are put in exact order when the query has none.
const MaxLimit = 10_000

// maxSorted bounds the raw events that are in memory to be put in order.
const maxSorted = 512 << 20

// Query calls each for every event in files that q asks for, with its raw event
// where that was wanted and is kept, nil otherwise. files is what the manifest
// lists, or the part of it that may hold an answer; others are skipped without
// being opened.
//
// Events come in the order of their time. Only when a query without a limit
// matches more than [MaxLimit] events of one hour do the events of that hour
// come as they lie in the files. An error of each ends the query and is
// returned. What each is given is its own to keep.
//
// A file that is gone is a [remit.Conflict]: it was replaced meanwhile, read the
// manifest again. A file that is damaged is [remit.Internal]; events before
// it were given.
func (a *Archive) Query(ctx context.Context, files []File, q Query, each func(e *remit.Activity, raw []byte) error) error {
	if q.Limit < 0 || q.Limit > MaxLimit {
		return remit.Errorf(remit.Invalid, "query archive", "the limit is %d: use 0 for all events, or at most %d", q.Limit, MaxLimit)
	}
	left, at := q.Limit, hours(files, q)
	for some := 1; len(at) > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		// A small answer is most often spread over many hours: as long as
		// little is found, more of them are looked at together.
		n := min(some, len(at))
		found, err := a.matchAll(ctx, at[:n], q)
		if err != nil {
			return err
		}
		total := 0
		for _, m := range slices.Concat(found...) {
			total += m.count
		}
		if some = min(2*some, maxHours); total > MaxLimit {
			some = 1
		} else {
			found = [][]match{slices.Concat(found...)}
		}
		for _, matches := range found {
			given, err := a.give(ctx, matches, q, left, each)
			if err != nil {
				return err
			}
			if q.Limit > 0 {
				if left -= given; left == 0 {
					return nil
				}
			}
		}
		at = at[n:]
	}
	return nil
}

// maxHours is how many hours are looked at together at most.
const maxHours = 32

// hours are the files that may hold an answer, by hour, in the query's order.
func hours(files []File, q Query) [][]File {
	var may []File
	for _, f := range files {
		if q.System != "" && f.System != q.System ||
			!q.From.IsZero() && f.MaxTime.Before(q.From.Truncate(time.Microsecond)) ||
			!q.To.IsZero() && !f.MinTime.Before(q.To) {
			continue
		}
		may = append(may, f)
	}
	slices.SortFunc(may, func(x, y File) int {
		order := x.Hour.Compare(y.Hour)
		if !q.Oldest {
			order = -order
		}
		return cmp.Or(order, x.MinTime.Compare(y.MinTime), cmp.Compare(x.Path, y.Path))
	})
	var hours [][]File
	for start := 0; start < len(may); {
		end := start + 1
		for end < len(may) && may[end].Hour.Equal(may[start].Hour) {
			end++
		}
		hours = append(hours, may[start:end])
		start = end
	}
	return hours
}

// match is the rows of one row group that match.
type match struct {
	file  File
	group int
	rows  rowSet
	count int
	times []int64 // of the rows, in their order, where they are needed
}

// matchAll finds the matching rows of the files of some hours: of each hour, in
// the order of its files.
func (a *Archive) matchAll(ctx context.Context, hours [][]File, q Query) ([][]match, error) {
	files := slices.Concat(hours...)
	found := make([][]match, len(files))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, f := range files {
		g.Go(func() error {
			r, err := a.open(f)
			if err != nil {
				return err
			}
			defer r.Close()
			for group := range r.parquet.RowGroups() {
				if err := ctx.Err(); err != nil {
					return err
				}
				m, err := r.match(group, q)
				if err != nil {
					return damaged(f, err)
				}
				if m.count > 0 {
					found[i] = append(found[i], m)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	matches := make([][]match, len(hours))
	for i, hour := range hours {
		matches[i] = slices.Concat(found[:len(hour)]...)
		found = found[len(hour):]
	}
	return matches, nil
}

// condition is what a query asks of one row: one of the columns has the value.
type condition struct {
	value   string
	columns []string
}

// conditions lists what a query asks, what rules out most first.
func (q Query) conditions() []condition {
	all := []condition{
		{q.Event, []string{"event_id"}},
		{q.Credential, []string{"credential", "minted_credential"}},
		{q.Root, []string{"root"}},
		{string(q.Identity), []string{"identity"}},
		{q.Resource.Name, []string{"resource_name"}},
		{q.Address, []string{"address"}},
		{q.Resource.Namespace, []string{"resource_namespace"}},
		{q.Resource.Kind, []string{"resource_kind"}},
		{q.Action, []string{"action"}},
		{string(q.Outcome), []string{"outcome"}},
	}
	asked := all[:0]
	for _, c := range all {
		if c.value != "" {
			c.value = clean(c.value) // as it was kept
			asked = append(asked, c)
		}
	}
	return asked
}

// match finds the rows of one row group that match: by the statistics and the
// bloom filters first, which are a few bytes, then by the pages that may hold
// an answer.
func (r *reader) match(group int, q Query) (m match, err error) {
	defer catch(&err)
	rg := r.parquet.RowGroups()[group]
	chunks := rg.ColumnChunks()
	conditions := q.conditions()
	may := make([][]parquet.ColumnChunk, len(conditions))
	for i, c := range conditions {
		for _, name := range c.columns {
			leaf, ok := r.leaf[name]
			if !ok {
				continue
			}
			possible, err := mayHold(chunks[leaf], parquet.ByteArrayValue([]byte(c.value)))
			if err != nil {
				return m, err
			}
			if possible {
				may[i] = append(may[i], chunks[leaf])
			}
		}
		if len(may[i]) == 0 {
			return m, nil
		}
	}

	m = match{file: r.File, group: group, rows: allRows(int(rg.NumRows()))}
	for i, c := range conditions {
		before := m.rows
		var either rowSet
		for _, chunk := range may[i] {
			rows := slices.Clone(before)
			if err := filterEqual(chunk, rg.NumRows(), []byte(c.value), rows); err != nil {
				return m, err
			}
			either = either.or(rows)
		}
		if m.rows = either; m.rows.empty() {
			return m, nil
		}
	}
	timed := q.Limit > 0 || !q.From.IsZero() && r.MinTime.Before(q.From) || !q.To.IsZero() && !r.MaxTime.Before(q.To)
	if m.count = m.rows.count(); timed || m.count <= MaxLimit {
		if err := m.readTimes(chunks[r.leaf["time"]], rg.NumRows(), q); err != nil {
			return m, err
		}
	}
	return m, nil
}

// mayHold looks whether a column of a row group may hold a value.
func mayHold(chunk parquet.ColumnChunk, value parquet.Value) (bool, error) {
	if c, ok := chunk.(*parquet.FileColumnChunk); ok {
		if least, most, ok := c.Bounds(); ok && (bytes.Compare(value.ByteArray(), least.ByteArray()) < 0 || bytes.Compare(value.ByteArray(), most.ByteArray()) > 0) {
			return false, nil
		}
	}
	if filter := chunk.BloomFilter(); filter != nil {
		return filter.Check(value)
	}
	return true, nil
}

// filterEqual takes the rows out of the set whose value is another. Pages that
// hold none of the rows, or cannot hold the value, are not read.
func filterEqual(chunk parquet.ColumnChunk, total int64, value []byte, rows rowSet) error {
	c, err := newCursor(chunk, total)
	if err != nil {
		return err
	}
	defer c.close()
	index, err := chunk.ColumnIndex()
	if err != nil && !errors.Is(err, parquet.ErrMissingColumnIndex) {
		return err
	}
	wanted := int32(-2) // the value in the dictionary: -2 not looked for, -1 not there
	for page := range c.offsets.NumPages() {
		first, end := c.span(page)
		if !rows.any(int(first), int(end)) {
			continue
		}
		if index != nil && (bytes.Compare(value, index.MinValue(page).ByteArray()) < 0 || bytes.Compare(value, index.MaxValue(page).ByteArray()) > 0) {
			rows.clear(int(first), int(end))
			continue
		}
		if _, err := c.seek(first); err != nil {
			return err
		}
		if c.indexes != nil && wanted == -2 {
			wanted = lookup(c.page.Dictionary(), value)
		}
		for i := range int(end - first) {
			row := int(first) + i
			switch {
			case c.indexes != nil:
				if c.indexes[i] != wanted {
					rows.remove(row)
				}
			case !rows.has(row):
			case !bytes.Equal(c.bytes(i), value):
				rows.remove(row)
			}
		}
	}
	return nil
}

// lookup finds a value in a dictionary, -1 when it is not there.
func lookup(d parquet.Dictionary, value []byte) int32 {
	for i := range int32(d.Len()) {
		if bytes.Equal(d.Index(i).ByteArray(), value) {
			return i
		}
	}
	return -1
}

// readTimes reads the times of the rows and takes out those that the query does
// not ask for.
func (m *match) readTimes(chunk parquet.ColumnChunk, total int64, q Query) error {
	c, err := newCursor(chunk, total)
	if err != nil {
		return err
	}
	defer c.close()
	from, to := firstTime, lastTime+1
	if !q.From.IsZero() {
		from = ceilMicros(q.From)
	}
	if !q.To.IsZero() {
		to = ceilMicros(q.To)
	}
	m.times = make([]int64, 0, m.count)
	for _, row := range m.rows.list(nil, 0, -1) {
		i, err := c.seek(int64(row))
		if err != nil {
			return err
		}
		if t := c.int(i); t >= from && t < to {
			m.times = append(m.times, t)
		} else {
			m.rows.remove(int(row))
		}
	}
	m.count = len(m.times)
	return nil
}

// ceilMicros is the first microsecond that is not before t.
func ceilMicros(t time.Time) int64 {
	us := micros(t)
	if us < lastTime && fromMicros(us).Before(t) {
		us++
	}
	return us
}

// position is one matching row.
type position struct {
	time  int64
	match int
	row   int32
}

// give calls each for the rows that were found in one hour, in order, and says
// how many it gave.
func (a *Archive) give(ctx context.Context, found []match, q Query, left int, each func(*remit.Activity, []byte) error) (int, error) {
	total := 0
	for _, m := range found {
		total += m.count
	}
	if q.Limit == 0 && total > MaxLimit {
		return total, a.stream(ctx, found, q, each)
	}
	var positions []position
	order := func() {
		slices.SortFunc(positions, func(x, y position) int {
			order := cmp.Compare(x.time, y.time)
			if !q.Oldest {
				order = -order
			}
			return cmp.Or(order, cmp.Compare(x.match, y.match), cmp.Compare(x.row, y.row))
		})
		if q.Limit > 0 && len(positions) > left {
			positions = positions[:left]
		}
	}
	for i, m := range found {
		for k, row := range m.rows.list(nil, 0, -1) {
			positions = append(positions, position{m.times[k], i, row})
		}
		if len(positions) > 10*MaxLimit {
			order()
		}
	}
	order()
	rows, err := a.fetch(ctx, found, positions, q.Raw)
	if err != nil {
		return 0, err
	}
	for i := range rows {
		if err := each(rows[i].activity(), rows[i].rawBytes()); err != nil {
			return i, err
		}
	}
	return len(rows), nil
}

// slot is a position, and the place of its row in the answer.
type slot struct {
	position
	place int
}

// fetch reads the rows at the positions, in the positions' order, each file
// and page once, several files at a time.
func (a *Archive) fetch(ctx context.Context, found []match, positions []position, raw bool) ([]row, error) {
	slots := make([]slot, len(positions))
	for i, p := range positions {
		slots[i] = slot{p, i}
	}
	slices.SortFunc(slots, func(x, y slot) int {
		return cmp.Or(cmp.Compare(x.match, y.match), cmp.Compare(x.row, y.row))
	})
	rows := make([]row, len(positions))
	var size atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for len(slots) > 0 {
		file, n := found[slots[0].match].file, 1
		for n < len(slots) && found[slots[n].match].file.Path == file.Path {
			n++
		}
		of := slots[:n]
		slots = slots[n:]
		g.Go(func() error { return a.fetchFile(ctx, file, found, of, raw, rows, &size) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return rows, nil
}

// fetchFile reads the rows of one file.
func (a *Archive) fetchFile(ctx context.Context, file File, found []match, slots []slot, raw bool, rows []row, size *atomic.Int64) error {
	r, err := a.open(file)
	if err != nil {
		return err
	}
	defer r.Close()
	batch := make([]row, min(batchRows, len(slots)))
	numbers := make([]int32, 0, len(batch))
	for len(slots) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		group, n := found[slots[0].match].group, 1
		for n < len(slots) && found[slots[n].match].group == group {
			n++
		}
		g, err := r.group(group, raw)
		if err != nil {
			return damaged(file, err)
		}
		for of := range slices.Chunk(slots[:n], len(batch)) {
			numbers = numbers[:0]
			for _, s := range of {
				numbers = append(numbers, s.row)
			}
			if err := g.read(numbers, batch); err != nil {
				g.close()
				return damaged(file, err)
			}
			for i, s := range of {
				rows[s.place] = batch[i]
				batch[i].Chain, batch[i].MintedAudiences = nil, nil
				if batch[i].Raw != nil {
					size.Add(int64(len(*batch[i].Raw)))
				}
			}
			if size.Load() > maxSorted {
				g.close()
				return remit.Errorf(remit.Unsupported, "query archive", "the raw events of the answer are over %d MiB: ask for fewer events, or without the raw ones", maxSorted>>20)
			}
		}
		g.close()
		slots = slots[n:]
	}
	return nil
}

// stream gives rows as they lie in the files.
func (a *Archive) stream(ctx context.Context, found []match, q Query, each func(*remit.Activity, []byte) error) error {
	var r *reader
	defer func() {
		if r != nil {
			_ = r.Close()
		}
	}()
	for _, m := range found {
		if r == nil || r.Path != m.file.Path {
			if r != nil {
				_ = r.Close()
			}
			var err error
			if r, err = a.open(m.file); err != nil {
				return err
			}
		}
		err := r.rows(ctx, m.group, q.Raw, m.rows, func(rows []row) error {
			for i := range rows {
				if err := each(rows[i].activity(), rows[i].rawBytes()); err != nil {
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
			return damaged(m.file, err)
		}
	}
	return nil
}

// fromCaller tells an error of the caller's function from one of the file.
type fromCaller struct{ err error }

func (e fromCaller) Error() string { return e.err.Error() }

// rows calls each with batches of rows of one row group, in order. The batch is
// used again; its strings and raw events are not.
func (r *reader) rows(ctx context.Context, group int, raw bool, set rowSet, each func([]row) error) error {
	g, err := r.group(group, raw)
	if err != nil {
		return err
	}
	defer g.close()
	batch := make([]row, batchRows)
	numbers := make([]int32, 0, batchRows)
	for next := 0; ; {
		if err := ctx.Err(); err != nil {
			return fromCaller{err}
		}
		numbers = set.list(numbers[:0], next, batchRows)
		if len(numbers) == 0 {
			return nil
		}
		next = int(numbers[len(numbers)-1]) + 1
		if err := g.read(numbers, batch); err != nil {
			return err
		}
		if err := each(batch[:len(numbers)]); err != nil {
			return err
		}
	}
}

// rowSet is a set of rows of one row group, a bit each.
type rowSet []uint64

func allRows(n int) rowSet {
	s := make(rowSet, (n+63)/64)
	for i := range s {
		s[i] = ^uint64(0)
	}
	if n%64 != 0 {
		s[len(s)-1] = 1<<(n%64) - 1
	}
	return s
}

func (s rowSet) has(i int) bool { return s[i/64]>>(i%64)&1 != 0 }
func (s rowSet) remove(i int)   { s[i/64] &^= 1 << (i % 64) }

func (s rowSet) empty() bool {
	for _, word := range s {
		if word != 0 {
			return false
		}
	}
	return true
}

func (s rowSet) count() int {
	n := 0
	for _, word := range s {
		n += bits.OnesCount64(word)
	}
	return n
}

func (s rowSet) or(t rowSet) rowSet {
	if s == nil {
		return t
	}
	for i, word := range t {
		s[i] |= word
	}
	return s
}

// words calls f with each word that holds rows from first to end, and the mask
// of those rows.
func (s rowSet) words(first, end int, f func(i int, mask uint64) bool) {
	for i := first / 64; i*64 < end; i++ {
		mask := ^uint64(0)
		if i*64 < first {
			mask &= ^uint64(0) << (first - i*64)
		}
		if end-i*64 < 64 {
			mask &= 1<<(end-i*64) - 1
		}
		if !f(i, mask) {
			return
		}
	}
}

func (s rowSet) any(first, end int) (found bool) {
	s.words(first, end, func(i int, mask uint64) bool {
		found = s[i]&mask != 0
		return !found
	})
	return found
}

func (s rowSet) clear(first, end int) {
	s.words(first, end, func(i int, mask uint64) bool { s[i] &^= mask; return true })
}

// list appends the rows of the set from a row on, at most n when n ≥ 0.
func (s rowSet) list(rows []int32, from, n int) []int32 {
	for i := from / 64; i < len(s); i++ {
		word := s[i]
		if i == from/64 {
			word &= ^uint64(0) << (from % 64)
		}
		for ; word != 0; word &= word - 1 {
			if n >= 0 && len(rows) == n {
				return rows
			}
			rows = append(rows, int32(i*64+bits.TrailingZeros64(word)))
		}
	}
	return rows
}
