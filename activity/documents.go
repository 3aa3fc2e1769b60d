package activity

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/valyala/fastjson"

	"remit"
)

// maxDocument bounds one JSON document of a file, in bytes: a CloudTrail file,
// an EventList. Lines of JSON are documents of their own.
const maxDocument = 256 << 20

// Documents calls each with every JSON document in r: a line of JSON lines, or
// a value of a file that is one value or several, however they are laid out.
// gzip and zstd are recognised by their first bytes. document is valid during
// the call; line is where it begins, counted from 1, and read is how many bytes
// of r, as they are stored, were taken so far. A line that is no JSON is handed
// over as it is. Errors are those of r, of a damaged compression, of a document
// above 256 MiB ([remit.Invalid]) and of each.
func Documents(r io.Reader, each func(document []byte, line int, read int64) error) error {
	return DocumentsWithin(r, 0, each)
}

// DocumentsWithin is [Documents] for what a stranger sends: it fails with
// [remit.Invalid] once r has brought more than most bytes after decompression; 0
// sets no bound.
func DocumentsWithin(r io.Reader, most int64, each func(document []byte, line int, read int64) error) error {
	counted := &countingReader{r: r}
	plain, closer, err := Decompress(counted)
	if err != nil {
		return err
	}
	defer closer()
	if most > 0 {
		plain = &boundedReader{plain, most}
	}
	in := bufio.NewReaderSize(plain, int(min(1<<20, max(4096, cmp.Or(most, 1<<20)))))
	line := 0
	var long []byte
	first := true
	for {
		text, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			if long = append(long, text...); len(long) > maxDocument {
				return remit.Errorf(remit.Invalid, "", "line %d is longer than %d MiB: split the file", line+1, maxDocument>>20)
			}
			continue
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return damaged(err)
		}
		line++
		if len(long) > 0 {
			long = append(long, text...)
			text, long = long, long[:0]
		}
		if line == 1 {
			text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
		}
		if doc := bytes.TrimSpace(text); len(doc) > 0 {
			if first && (doc[0] == '{' || doc[0] == '[') && fastjson.ValidateBytes(doc) != nil {
				// The first line is no whole value, so the file is not one of
				// lines.
				return values(io.MultiReader(bytes.NewReader(bytes.Clone(text)), in), line, counted, each)
			}
			first = false
			if err := each(doc, line, counted.n); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

func damaged(err error) error {
	if remit.KindOf(err) == remit.Invalid {
		return err
	}
	return remit.Errorf(remit.Invalid, "", "the file is damaged or cut short: %w", err)
}

// boundedReader fails instead of ending when there is more than it may bring.
type boundedReader struct {
	r    io.Reader
	left int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		var one [1]byte
		if n, err := b.r.Read(one[:]); n == 0 {
			return 0, err
		}
		return 0, remit.Errorf(remit.Invalid, "", "more events than are taken at once: send smaller batches")
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

// Decompress returns what r holds, without its compression where its first bytes
// are those of gzip or zstd, and what has to be called when it was read.
func Decompress(r io.Reader) (io.Reader, func(), error) {
	in := bufio.NewReaderSize(r, 256<<10)
	magic, err := in.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, nil, damaged(err)
		}
		return z, func() {}, nil
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<30))
		if err != nil {
			return nil, nil, damaged(err)
		}
		return z, z.Close, nil
	}
	return in, func() {}, nil
}

// values splits text into the JSON values at its top, by their brackets. What
// is cut off, as the first line of a log that was rotated within it, is handed
// over as it is and costs no other: a line break within a string, or an object
// where none may stand, begins anew.
func values(r io.Reader, line int, counted *countingReader, each func([]byte, int, int64) error) error {
	in := bufio.NewReaderSize(r, 1<<20)
	var doc, open []byte // open are the brackets that are
	began := line
	var last byte // that is no space
	inString, escaped := false, false
	for {
		chunk, err := in.Peek(1)
		if err == nil {
			chunk, _ = in.Peek(in.Buffered())
		}
		if len(chunk) == 0 {
			if !errors.Is(err, io.EOF) {
				return damaged(err)
			}
			return rest(doc, began, counted.n, each)
		}
		start := 0
		end := func(at int) error { // what is open ends before at
			doc = append(doc, chunk[start:at]...)
			err := rest(doc, began, counted.n, each)
			doc, open, start, began = doc[:0], open[:0], at, line
			return err
		}
		for i, c := range chunk {
			if c == '\n' {
				if inString {
					inString, escaped = false, false
					if err := end(i); err != nil {
						return err
					}
				}
				line++
			}
			switch {
			case escaped:
				escaped = false
			case inString:
				switch c {
				case '\\':
					escaped = true
				case '"':
					inString, last = false, c
				}
			case c == ' ' || c == '\n' || c == '\r' || c == '\t':
			case c == '"':
				inString = true
			case c == '{' || c == '[':
				if !mayOpen(open, last) || len(open) == 0 {
					if err := end(i); err != nil {
						return err
					}
				}
				open, last = append(open, c), c
			case (c == '}' || c == ']') && len(open) > 0:
				last = c
				if open = open[:len(open)-1]; len(open) == 0 {
					if err := end(i + 1); err != nil {
						return err
					}
				}
			default:
				last = c
			}
		}
		if doc = append(doc, chunk[start:]...); len(doc) > maxDocument {
			return remit.Errorf(remit.Invalid, "", "the value that begins in line %d is longer than %d MiB: split the file", began, maxDocument>>20)
		}
		if _, err := in.Discard(len(chunk)); err != nil {
			return damaged(err)
		}
	}
}

// mayOpen says whether an object or an array may stand behind last within the
// brackets that are open.
func mayOpen(open []byte, last byte) bool {
	switch {
	case len(open) == 0:
		return true
	case open[len(open)-1] == '{':
		return last == ':'
	}
	return last == '[' || last == ','
}

// rest hands over what stands between two values, when it is more than what may
// separate them.
func rest(doc []byte, line int, read int64, each func([]byte, int, int64) error) error {
	text := bytes.TrimLeft(doc, " \t\r\n,")
	line += bytes.Count(doc[:len(doc)-len(text)], []byte("\n"))
	if text = bytes.TrimRight(text, " \t\r\n"); len(text) == 0 {
		return nil
	}
	return each(text, line, read)
}
