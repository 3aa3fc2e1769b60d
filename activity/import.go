package activity

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// Import reads files of events, oldest first, and writes a checkpoint now and
// then and at the end. It may be run again, over the same files or over ones
// that overlap: what was counted counts no more.
type Import struct {
	Pipeline   *Pipeline
	System     remit.ID          // whose events they are; "" when the events tell
	Decoder    connector.Decoder // nil: recognised
	Checkpoint func(ctx context.Context) error

	// Every is how long reading goes on between checkpoints; 0 is 20 seconds.
	// It goes on five times as long as the last one took, at least, so that
	// writing them takes no more than a sixth of the time however large the
	// cluster is; and no longer than until [Pipeline.Full].
	Every time.Duration

	// Progress is called now and then; it may be nil.
	Progress func(Progress)
}

// Progress is how far an import has come.
type Progress struct {
	File        string
	Files, Done int   // files
	Bytes, Read int64 // of all files as they are stored
	Counts      Counts
	Elapsed     time.Duration
}

// LogFile is a file of events.
type LogFile struct {
	Path  string
	Size  int64
	First time.Time // of its first event; zero when it could not be told

	// Decoder is the one that recognised its first event; nil when none did.
	Decoder connector.Decoder
}

// FindLogs lists the files that paths name, and those in directories below
// them, in the order of their first events. Hidden files are left out of
// directories. [remit.NotFound] when a path does not exist, [remit.Invalid]
// when there is no file.
func FindLogs(paths []string, decoders []connector.Decoder) ([]LogFile, error) {
	const op = "find logs"
	var out []LogFile
	add := func(path string, info fs.FileInfo) {
		f := LogFile{Path: path, Size: info.Size()}
		f.First, f.Decoder = firstEvent(path, decoders)
		out = append(out, f)
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, remit.Errorf(remit.NotFound, op, "%s does not exist", path)
		case err != nil:
			return nil, remit.Errorf(remit.Unavailable, op, "%w", err)
		case !info.IsDir():
			add(path, info)
			continue
		}
		err = filepath.WalkDir(path, func(at string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if strings.HasPrefix(d.Name(), ".") && at != path {
				if d.IsDir() {
					return fs.SkipDir
				}
				return nil
			}
			if !d.Type().IsRegular() {
				return nil
			}
			info, err := d.Info()
			if err == nil && info.Size() > 0 {
				add(at, info)
			}
			return err
		})
		if err != nil {
			return nil, remit.Errorf(remit.Unavailable, op, "%w", err)
		}
	}
	if len(out) == 0 {
		return nil, remit.Errorf(remit.Invalid, op, "no file of events in %s", strings.Join(paths, ", "))
	}
	slices.SortStableFunc(out, func(a, b LogFile) int {
		return cmp.Or(a.First.Compare(b.First), cmp.Compare(a.Path, b.Path))
	})
	return out, nil
}

var errStop = errors.New("stop")

// firstEvent reads the time and the source of a file's first event. What goes wrong here goes
// wrong again, and is told, when the file is read.
func firstEvent(path string, decoders []connector.Decoder) (first time.Time, decoder connector.Decoder) {
	f, err := os.Open(path)
	if err != nil {
		return first, nil
	}
	defer f.Close()
	var parser fastjson.Parser
	var in connector.Interner
	tries := 0
	_ = Documents(f, func(doc []byte, _ int, _ int64) error {
		if tries++; tries > 100 {
			return errStop
		}
		v, err := parser.ParseBytes(doc)
		if err != nil {
			return nil
		}
		d := Recognize(decoders, v)
		if d == nil {
			return nil
		}
		for _, one := range d.Split(v) {
			var e connector.Event
			if d.Decode(one, &in, &e) == nil && !e.Time.IsZero() {
				first, decoder = e.Time, d
				return errStop
			}
		}
		return nil
	})
	return first, decoder
}

// Run reads the files. A file that cannot be read to its end does not keep the
// others from being read; its error is returned at the end.
func (i *Import) Run(ctx context.Context, files []LogFile) error {
	every := i.Every
	if every <= 0 {
		every = 20 * time.Second
	}
	began := time.Now()
	p := Progress{Files: len(files)}
	for _, f := range files {
		p.Bytes += f.Size
	}
	var failed []error
	last, told := began, began
	var took time.Duration
	var before int64
	for _, f := range files {
		p.File = f.Path
		n := 0
		err := i.file(ctx, f, func(read int64) error {
			if n++; n&1023 != 0 {
				return nil
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			now := time.Now()
			if i.Progress != nil && now.Sub(told) > 200*time.Millisecond {
				p.Read, p.Counts, p.Elapsed, told = before+read, i.Pipeline.Counts(), now.Sub(began), now
				i.Progress(p)
			}
			if now.Sub(last) > max(every, 5*took) || i.Pipeline.Full() {
				if err := i.Checkpoint(ctx); err != nil {
					return fatal{err}
				}
				last = time.Now()
				took = last.Sub(now)
			}
			return nil
		})
		var f1 fatal
		switch {
		case errors.As(err, &f1):
			return f1.error
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			failed = append(failed, remit.Errorf(remit.KindOf(err), "read "+f.Path, "%w", err))
		}
		before += f.Size
		p.Done++
	}
	if err := i.Checkpoint(ctx); err != nil {
		return err
	}
	p.Read, p.Counts, p.Elapsed = p.Bytes, i.Pipeline.Counts(), time.Since(began)
	if i.Progress != nil {
		i.Progress(p)
	}
	return errors.Join(failed...)
}

// fatal is an error after which nothing can go on.
type fatal struct{ error }

func (i *Import) file(ctx context.Context, f LogFile, tick func(read int64) error) error {
	file, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer file.Close()
	in := Input{Source: f.Path, System: i.System, Decoder: i.Decoder, Learned: time.Now().UTC()}
	return Documents(file, func(doc []byte, _ int, read int64) error {
		if err := i.Pipeline.Feed(ctx, in, doc); err != nil {
			return fatal{err}
		}
		return tick(read)
	})
}
