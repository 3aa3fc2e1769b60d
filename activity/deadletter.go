package activity

import (
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// dead hands an event on of which nothing can be made.
func (p *Pipeline) dead(in Input, reason error, v *fastjson.Value, raw []byte) error {
	p.counts.Dead++
	if p.options.DeadLetter == nil {
		return nil
	}
	p.raw = Harmless(p.options.Decoders, v, raw, &p.arena, p.raw[:0])
	return p.options.DeadLetter(in.Source, reason, p.raw)
}

// Harmless appends to b what may be kept of an event of which nothing can be
// made: v without what any decoder knows to be secret or, where it is no JSON (v
// is nil), raw without any long piece that may be a token. v is changed, and the
// arena is reset.
func Harmless(decoders []connector.Decoder, v *fastjson.Value, raw []byte, arena *fastjson.Arena, b []byte) []byte {
	if v == nil {
		return append(b, maskRuns(raw)...)
	}
	for _, d := range decoders {
		d.Strip(v, arena)
	}
	b = connector.AppendJSON(b, v)
	arena.Reset()
	return b
}

// longestRun is the longest piece of unbroken text of which it is taken that it
// can be no key or token, and longestDead how much of a broken event is kept.
const (
	longestRun  = 20
	longestDead = 64 << 10
)

// maskRuns keeps of text that is not JSON what tells a reader what it was: every
// long unbroken run of letters and digits may be a token and is taken out.
func maskRuns(text []byte) []byte {
	if len(text) > longestDead {
		text = text[:longestDead]
	}
	out := make([]byte, 0, len(text))
	for len(text) > 0 {
		n := 0
		for n < len(text) && runs(text[n]) {
			n++
		}
		switch {
		case n > longestRun:
			out = append(out, connector.Stripped...)
		case n > 0:
			out = append(out, text[:n]...)
		default:
			n = 1
			out = append(out, text[0])
		}
		text = text[n:]
	}
	return out
}

func runs(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '+' || c == '/' || c == '=' || c == '.'
}

// DeadLetters writes the events of which nothing could be made, one JSON object
// a line, with the reason and the source. It is safe for concurrent use by one
// process.
type DeadLetters struct {
	mu   sync.Mutex
	path string
	file *os.File
	size int64
	most int64
	now  func() time.Time
}

// maxDeadLetters bounds the file: a sender of rubbish must not fill the disk. One
// former file is kept beside the present one.
const maxDeadLetters = 64 << 20

// OpenDeadLetters appends to the file at path, which is made when it is not
// there; when it is full it becomes path.1. A nil now is [time.Now].
func OpenDeadLetters(path string, now func() time.Time) (*DeadLetters, error) {
	d := &DeadLetters{path: path, most: maxDeadLetters, now: now}
	if d.now == nil {
		d.now = time.Now
	}
	return d, d.open()
}

func (d *DeadLetters) open() error {
	file, err := os.OpenFile(d.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return remit.Errorf(remit.Unavailable, "open dead letters", "%w", err)
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return remit.Errorf(remit.Unavailable, "open dead letters", "%w", err)
	}
	d.file, d.size = file, info.Size()
	return nil
}

// Close ends it.
func (d *DeadLetters) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.file.Close()
}

// Put writes one event; see [Options].DeadLetter.
func (d *DeadLetters) Put(source string, reason error, raw []byte) error {
	line, err := json.Marshal(struct {
		Time   time.Time `json:"time"`
		Source string    `json:"source"`
		Reason string    `json:"reason"`
		Event  string    `json:"event"`
	}{d.now().UTC(), source, reason.Error(), string(raw[:min(len(raw), longestDead)])})
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.size > 0 && d.size+int64(len(line)) > d.most {
		if err := errors.Join(d.file.Close(), os.Rename(d.path, d.path+".1"), d.open()); err != nil {
			return remit.Errorf(remit.Unavailable, "write dead letters", "%w", err)
		}
	}
	n, err := d.file.Write(append(line, '\n'))
	d.size += int64(n)
	if err != nil {
		return remit.Errorf(remit.Unavailable, "write dead letters", "%w", err)
	}
	return nil
}
