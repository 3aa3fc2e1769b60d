// Package archive keeps every event, for years, in files that other engines
// read as they are: Parquet, compressed by zstd, partitioned by system and hour.
//
//	system=<ID>/date=2026-11-23/hour=14/<mark>-0001.parquet
//
// The archive holds files and nothing else. Which of them count is written in
// the caller's database, the manifest: [Archive.Flush], [Archive.Compact] and
// [Archive.DropRaw] make files and say so, the caller commits the list together
// with what it counted from the same events, and only then are the files that
// were replaced removed by [Archive.Remove]. Readers are handed the files of the
// manifest, so that an event is seen once or not yet, whatever crashed when.
// After a crash [Archive.Recover] puts aside what the manifest does not know.
//
// The schema, and queries for DuckDB, ClickHouse and Athena, are on
// docs/reference/archive.md.
package archive

import (
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/parquet-go/parquet-go"

	"remit"
)

// Options say how an archive writes. The zero value is the default.
type Options struct {
	// RowGroup is how many rows are compressed and indexed together, 50,000
	// when 0. More make queries faster and the writer's memory larger.
	RowGroup int

	// OpenFiles is how many files are written at a time, 16 when 0. Each
	// takes about 10 MB. When there is enough for another, the one that was
	// not written for longest is ended; what is not enough waits in memory.
	OpenFiles int

	// CloseBytes ends a file at about that size, 256 MiB when 0. CloseAfter
	// is how long a mark should stay open, one minute when 0: see
	// [Archive.Due].
	CloseBytes int64
	CloseAfter time.Duration

	// NoRaw leaves out the raw events.
	NoRaw bool

	// Now is the clock for CloseAfter, [time.Now] when nil.
	Now func() time.Time
}

// File is one finished file of an archive, as the manifest keeps it.
type File struct {
	// Path is where it is, relative to the archive's directory, with slashes.
	Path string `json:"path"`

	System     remit.ID  `json:"system"`
	SystemName string    `json:"system_name"`
	Hour       time.Time `json:"hour"` // the start of the hour whose events it holds, UTC

	Rows  int64 `json:"rows"`
	Bytes int64 `json:"bytes"`

	// MinTime and MaxTime are the times of the earliest and the latest event.
	MinTime time.Time `json:"min_time"`
	MaxTime time.Time `json:"max_time"`

	// Checksum is "sha256:" and the hash of the file in hexadecimal. Footer is
	// the CRC-32C of the file's last part, which every reader checks first.
	Checksum string `json:"checksum"`
	Footer   uint32 `json:"footer"`

	// Mark is what the caller gave when it was made and Sequence which of
	// the mark's files it is, from 1.
	Mark     string `json:"mark"`
	Sequence int    `json:"sequence"`

	Raw       bool `json:"raw"`       // whether any row has its raw event
	Compacted bool `json:"compacted"` // whether it was made by Compact, and so is sorted
}

// Archive is a directory of Parquet files. Its methods are safe for concurrent
// use; one mark is open at a time, and one process may write to a directory.
type Archive struct {
	dir string
	o   Options

	mu      sync.Mutex // guards what is being written
	mark    *mark
	writers []*parquet.GenericWriter[row] // that may be used again
	batches []*parquetWriter              // the same, without a writer
}

// Open opens the archive in a directory, which is made when it is not there.
// It does not read the files in it.
func Open(dir string, o Options) (*Archive, error) {
	if o.RowGroup <= 0 {
		o.RowGroup = 50_000
	}
	if o.OpenFiles <= 0 {
		o.OpenFiles = 16
	}
	if o.CloseBytes <= 0 {
		o.CloseBytes = 256 << 20
	}
	if o.CloseAfter <= 0 {
		o.CloseAfter = time.Minute
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, remit.Errorf(remit.Invalid, "open archive", "%w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, remit.Errorf(remit.Unavailable, "open archive", "%w: the archive needs a directory that it may write to", err)
	}
	return &Archive{dir: dir, o: o}, nil
}

// path is where a file of the manifest is on this machine. A path that leaves
// the archive's directory is refused.
func (a *Archive) path(rel string) (string, error) {
	local, err := filepath.Localize(rel)
	if err != nil {
		return "", remit.Errorf(remit.Invalid, "archive", "%q is no path within the archive", rel)
	}
	return filepath.Join(a.dir, local), nil
}
