package archive

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"

	"remit"
)

const (
	batchRows  = 256       // rows that are handed to Parquet together
	batchBytes = 120 << 10 // or so many bytes of raw events
	rowBytes   = 1 << 10   // what a row takes in memory, about
	pageBytes  = 128 << 10 // what a reader decodes at least
	dictionary = 1 << 20   // a column with more distinct values is written plain
	hourMicros = int64(time.Hour / time.Microsecond)
	partSuffix = ".part"
	extension  = ".parquet"
	bloomBits  = 10 // of a value: one false hit in a hundred
)

// bloomed are the columns with a bloom filter in every row group.
var bloomed = []string{"event_id", "identity", "credential", "minted_credential", "root"}

// The bounds of what waits in memory for there to be enough for a file's next
// batch: partitions, and bytes.
const (
	maxPartitions = 1024
	maxWaiting    = 64 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// mark is what is being written between Begin and Flush.
type mark struct {
	name     string
	begun    time.Time
	failed   error // what made it useless
	bytes    int64 // of the files that were ended
	waiting  int   // bytes of rows that are in no file yet, about
	files    int   // that are open
	sequence int

	open  map[partition]*writing
	clock uint64     // counts appends, for the least recently used
	last  *writing   // where the last event went
	ended []*writing // complete, not yet in place
}

// partition is what one directory of the archive holds.
type partition struct {
	system remit.ID
	hour   int64 // in hours since 1970
}

func (p partition) dir() string {
	t := fromMicros(p.hour * hourMicros)
	return path.Join("system="+string(p.system), "date="+t.Format("2006-01-02"), "hour="+t.Format("15"))
}

// writing is one file that is being written.
type writing struct {
	File
	final string // on this machine
	file  *os.File
	out   *bufio.Writer
	hash  hash.Hash
	w     *parquetWriter

	partition partition
	used      uint64 // when, in appends
	waiting   int    // its part of the mark's
	min, max  int64
	placed    bool
}

// parquetWriter is rows on their way to a Parquet file, and its writer, nil
// before the first of them go there. Both are large and used for one file after
// another.
type parquetWriter struct {
	w    *parquet.GenericWriter[row]
	rows []row
	raw  []byte // backs the rows' raw events
	kept [batchRows]string
}

func (a *Archive) writer(out io.Writer) *parquet.GenericWriter[row] {
	if n := len(a.writers); n > 0 {
		w := a.writers[n-1]
		a.writers = a.writers[:n-1]
		w.Reset(out)
		return w
	}
	return newWriter(out, a.o.RowGroup, true)
}

func (a *Archive) batch() *parquetWriter {
	if n := len(a.batches); n > 0 {
		b := a.batches[n-1]
		a.batches = a.batches[:n-1]
		return b
	}
	return &parquetWriter{}
}

func newWriter(out io.Writer, rowGroup int, blooms bool) *parquet.GenericWriter[row] {
	options := []parquet.WriterOption{
		parquet.Compression(&zstd.Codec{Level: zstd.SpeedFastest}),
		parquet.MaxRowsPerRowGroup(int64(rowGroup)),
		parquet.PageBufferSize(pageBytes),
		parquet.DataPageStatistics(false), // the page index has them
		parquet.DictionaryMaxBytes(dictionary),
		parquet.CreatedBy("remit", "1", ""),
		parquet.ColumnIndexSizeLimit(func([]string) int { return 64 }),
		parquet.SkipPageBounds("raw"), // nobody looks for a raw event by its order
	}
	if blooms {
		filters := make([]parquet.BloomFilterColumn, len(bloomed))
		for i, column := range bloomed {
			filters[i] = parquet.SplitBlockFilter(bloomBits, column)
		}
		options = append(options, parquet.BloomFilters(filters...))
	}
	return parquet.NewGenericWriter[row](out, options...)
}

// next is the row to fill, with the lists of its former life.
func (w *parquetWriter) next() *row {
	if len(w.rows) < cap(w.rows) {
		w.rows = w.rows[:len(w.rows)+1]
	} else {
		w.rows = append(w.rows, row{})
	}
	return &w.rows[len(w.rows)-1]
}

// keep copies the raw event of the last row into the writer's own memory. It
// is good until the next flush.
func keep[T string | []byte](w *parquetWriter, raw T) *string {
	start := len(w.raw)
	w.raw = append(w.raw, raw...) // a former array stays with the rows that use it
	kept := w.raw[start:]
	at := &w.kept[len(w.rows)-1]
	*at = unsafe.String(unsafe.SliceData(kept), len(kept)) // these bytes are not written to before the flush
	return at
}

func (w *parquetWriter) full() bool { return len(w.rows) == batchRows || len(w.raw) >= batchBytes }

func (w *parquetWriter) flush() error {
	_, err := w.w.Write(w.rows)
	w.rows = w.rows[:0]
	if cap(w.raw) > 4*batchBytes { // a few huge events are not worth keeping memory for
		w.raw = nil
	}
	w.raw = w.raw[:0]
	return err
}

// Begin starts a mark: everything appended until [Archive.Flush] belongs to it,
// and its files are named after it. A mark must not be used again once its
// files are in the manifest. What an earlier mark appended and did not flush is
// thrown away, so that a caller whose batch failed begins it again, under the
// same mark or another.
func (a *Archive) Begin(name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.discard(); err != nil {
		return err
	}
	a.mark = &mark{name: fileName(name), begun: a.o.Now(), open: make(map[partition]*writing)}
	return nil
}

// fileName is a mark as it may stand in a file's name anywhere.
func fileName(name string) string {
	plain := len(name) > 0 && len(name) <= 64 && name[0] != '.' && name[0] != '_'
	for _, c := range []byte(name) {
		plain = plain && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_')
	}
	if plain {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return "x" + hex.EncodeToString(sum[:16])
}

// Append adds one event. raw is the event as its system wrote it, without
// secrets; it may be nil, and is copied before Append returns. An error spoils
// the mark: what is left is to [Archive.Begin] again with everything since the
// last flush.
//
// Nothing in an event makes it fail but a System that is no ID ([remit.Invalid],
// which spoils nothing). Strings are cut at 8 KiB and made valid UTF-8, lists
// after 64 elements, times outside the years 1 to 9999 become the nearest of
// those, times keep microseconds; a raw event over 1 MiB is left out.
func (a *Archive) Append(e *remit.Activity, systemName string, raw []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.mark
	if m == nil {
		return remit.Errorf(remit.Internal, "archive event", "no mark was begun")
	}
	if m.failed != nil {
		return m.failed
	}
	t := micros(e.Time)
	p := partition{e.System, floorHour(t)}
	w := m.last
	if w == nil || w.partition != p {
		var err error
		if w, err = a.of(p, systemName); err != nil {
			return err
		}
		m.last = w
	}
	m.clock++
	w.used = m.clock

	r := w.w.next()
	r.set(e, systemName)
	if raw != nil && !a.o.NoRaw && len(raw) <= maxRaw {
		if utf8.Valid(raw) {
			r.Raw = keep(w.w, raw)
		} else {
			r.Raw = keep(w.w, bytes.ToValidUTF8(raw, []byte("\uFFFD")))
		}
		w.Raw = true
	}
	w.count(t)
	size := rowBytes + len(raw)
	w.waiting += size
	m.waiting += size
	if w.w.full() {
		if err := a.flush(w); err != nil {
			return a.fail(err)
		}
		if w.size() >= a.o.CloseBytes {
			return a.end(w)
		}
	}
	return nil
}

func floorHour(us int64) int64 {
	h := us / hourMicros
	if us%hourMicros < 0 {
		h--
	}
	return h
}

func (w *writing) count(t int64) {
	if w.Rows == 0 {
		w.min, w.max = t, t
	}
	w.min, w.max = min(w.min, t), max(w.max, t)
	w.Rows++
}

// size is about how many bytes the file has so far, those in memory included.
func (w *writing) size() int64 {
	if w.w.w == nil {
		return 0
	}
	return w.w.w.Size()
}

// Due says whether the mark should be flushed: it has been open for CloseAfter,
// or its files have reached CloseBytes. Without a mark it is false.
func (a *Archive) Due() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.mark
	if m == nil || len(m.ended) == 0 && len(m.open) == 0 {
		return false
	}
	bytes := m.bytes
	for _, w := range m.open {
		bytes += w.size()
	}
	return bytes >= a.o.CloseBytes || a.o.Now().Sub(m.begun) >= a.o.CloseAfter
}

// of returns what is being written of a partition, and begins it.
func (a *Archive) of(p partition, systemName string) (*writing, error) {
	m := a.mark
	if w := m.open[p]; w != nil {
		return w, nil
	}
	if p.system.Kind() != remit.KindSystem || !plainID(p.system) {
		return nil, remit.Errorf(remit.Invalid, "archive event", "%q is no ID of a system", p.system)
	}
	if len(m.open) >= maxPartitions || m.waiting >= maxWaiting {
		if err := a.end(m.oldest(func(*writing) bool { return true })); err != nil {
			return nil, err
		}
	}
	w := &writing{partition: p, w: a.batch()}
	w.SystemName = clean(systemName)
	m.open[p] = w
	return w, nil
}

// oldest is what was not written to for longest, of what is meant; nil when
// there is none.
func (m *mark) oldest(meant func(*writing) bool) (oldest *writing) {
	for _, w := range m.open {
		if meant(w) && (oldest == nil || w.used < oldest.used) {
			oldest = w
		}
	}
	return oldest
}

// flush hands the waiting rows of a partition to Parquet. Only now, with the
// first rows, does it have a file, so that many partitions with few events each
// cost little memory and make no more files than need be.
func (a *Archive) flush(w *writing) error {
	m := a.mark
	if w.file == nil {
		if m.files >= a.o.OpenFiles {
			if err := a.end(m.oldest(func(w *writing) bool { return w.file != nil })); err != nil {
				return err
			}
		}
		m.sequence++
		if err := a.create(w, m.name, m.sequence); err != nil {
			return err
		}
		m.files++
		w.w.w = a.writer(w)
	}
	m.waiting -= w.waiting
	w.waiting = 0
	return w.w.flush()
}

func plainID(id remit.ID) bool {
	return strings.Trim(string(id[4:]), "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// create makes the file that a mark's sequence names, under its name of before
// it is complete.
func (a *Archive) create(w *writing, name string, sequence int) error {
	rel := path.Join(w.partition.dir(), fmt.Sprintf("%s-%04d%s", name, sequence, extension))
	final, err := a.path(rel)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(final), 0o700); err != nil {
		return err
	}
	if _, err := os.Lstat(final); err == nil {
		return remit.Errorf(remit.Conflict, "archive event", "%s is there already: a mark names one flush; run recovery, or use another mark", rel)
	}
	w.file, err = os.OpenFile(final+partSuffix, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	w.Path, w.Mark, w.Sequence = rel, name, sequence
	w.System, w.Hour = w.partition.system, fromMicros(w.partition.hour*hourMicros)
	w.final, w.out, w.hash = final, bufio.NewWriterSize(w.file, 256<<10), sha256.New()
	return nil
}

// Write takes what Parquet writes.
func (w *writing) Write(p []byte) (int, error) {
	w.hash.Write(p)
	w.Bytes += int64(len(p))
	return w.out.Write(p)
}

// end completes a file. It stays under its first name until the flush.
func (a *Archive) end(w *writing) error {
	m := a.mark
	delete(m.open, w.partition)
	if m.last == w {
		m.last = nil
	}
	if w.file == nil || len(w.w.rows) > 0 {
		if err := a.flush(w); err != nil {
			m.ended = append(m.ended, w) // to be thrown away
			return a.fail(err)
		}
	}
	m.files--
	m.ended = append(m.ended, w)
	if err := w.complete(); err != nil {
		return a.fail(err)
	}
	m.bytes += w.Bytes
	a.writers = append(a.writers, w.w.w)
	w.w.w = nil
	a.batches = append(a.batches, w.w)
	w.w = nil
	return nil
}

// complete writes what is left and the footer.
func (w *writing) complete() error {
	if err := w.w.w.Close(); err != nil {
		return err
	}
	if err := w.out.Flush(); err != nil {
		return err
	}
	footer, err := footerSum(w.file, w.Bytes)
	if err != nil {
		return err
	}
	w.Footer = footer
	w.Checksum = "sha256:" + hex.EncodeToString(w.hash.Sum(nil))
	w.MinTime, w.MaxTime = fromMicros(w.min), fromMicros(w.max)
	return nil
}

// maxFooter bounds the footers that are read: 54 columns of 32,767 row groups
// would be more, but no file of that size is made.
const maxFooter = 64 << 20

// footerSum is the CRC-32C of a Parquet file's footer, with its length and the
// magic bytes behind it.
func footerSum(f io.ReaderAt, size int64) (uint32, error) {
	var tail [8]byte
	if size < 12 {
		return 0, fmt.Errorf("it has %d bytes, too few for a Parquet file", size)
	}
	if _, err := f.ReadAt(tail[:], size-8); err != nil {
		return 0, err
	}
	length := int64(binary.LittleEndian.Uint32(tail[:4]))
	if string(tail[4:]) != "PAR1" || length > min(size-12, maxFooter) {
		return 0, fmt.Errorf("it does not end as a Parquet file does")
	}
	footer := make([]byte, length+8)
	if _, err := f.ReadAt(footer, size-int64(len(footer))); err != nil {
		return 0, err
	}
	return crc32.Checksum(footer, castagnoli), nil
}

// fail makes the mark useless and gives the error.
func (a *Archive) fail(err error) error {
	if remit.KindOf(err) == remit.Internal {
		err = remit.Errorf(remit.Unavailable, "archive event", "%w: the events since the last flush are not archived yet", err)
	}
	if a.mark != nil && a.mark.failed == nil {
		a.mark.failed = err
	}
	return err
}

// Flush completes every file of the mark, puts it in place for good, through
// to the disk, and returns what was made, nothing when no event was appended.
// The events count as archived once the caller has committed the files to its
// manifest. On an error nothing counts; begin again. Flush ends the mark.
func (a *Archive) Flush(ctx context.Context) ([]File, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.mark
	if m == nil {
		return nil, nil
	}
	if m.failed != nil {
		return nil, m.failed
	}
	for _, w := range m.open {
		if err := a.end(w); err != nil {
			return nil, err
		}
	}
	files, err := a.place(ctx, m.ended)
	if err != nil {
		return nil, a.fail(err)
	}
	a.mark = nil
	return files, nil
}

// place puts complete files in place: synced, renamed, and the directories
// synced up to the archive's own.
func (a *Archive) place(ctx context.Context, ended []*writing) ([]File, error) {
	files := make([]File, 0, len(ended))
	dirs := map[string]bool{}
	for _, w := range ended {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := w.file.Sync(); err != nil {
			return nil, err
		}
		if err := w.file.Close(); err != nil {
			return nil, err
		}
		w.file = nil
		if err := os.Rename(w.final+partSuffix, w.final); err != nil {
			return nil, err
		}
		w.placed = true
		for dir := path.Dir(w.Path); ; dir = path.Dir(dir) {
			dirs[dir] = true
			if dir == "." {
				break
			}
		}
		files = append(files, w.File)
	}
	for dir := range dirs {
		if err := syncDir(filepath.Join(a.dir, filepath.FromSlash(dir))); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// discard throws away what a mark wrote and nobody was told of.
func (a *Archive) discard() error {
	m := a.mark
	if m == nil {
		return nil
	}
	for _, w := range m.open {
		m.ended = append(m.ended, w)
	}
	clear(m.open)
	for _, w := range m.ended {
		if err := w.drop(); err != nil {
			return remit.Errorf(remit.Unavailable, "archive event", "throw away what was not flushed: %w", err)
		}
	}
	a.mark = nil
	return nil
}

func (w *writing) drop() error {
	if w.final == "" {
		return nil // it never had a file
	}
	if w.file != nil {
		_ = w.file.Close()
		w.file = nil
	}
	name := w.final + partSuffix
	if w.placed {
		name = w.final
	}
	if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// Close throws away what was appended and not flushed. The archive may be used
// again afterwards.
func (a *Archive) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writers, a.batches = nil, nil
	return a.discard()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
