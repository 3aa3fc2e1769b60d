package activity

import (
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/valyala/fastjson"

	"remit/connector"
)

// dead hands an event on of which nothing can be made.
func (p *Pipeline) dead(in Input, reason error, v *fastjson.Value, raw []byte) error {
	p.counts.Dead++
	if p.options.DeadLetter == nil {
		return nil
	}
	if v != nil {
		// It is JSON, so what is secret in it can be found.
		for _, d := range p.options.Decoders {
			d.Strip(v, &p.arena)
		}
		raw = connector.AppendJSON(p.raw[:0], v)
		p.raw = raw
		p.arena.Reset()
	} else {
		raw = maskRuns(raw)
	}
	return p.options.DeadLetter(in.Source, reason, raw)
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
// a line, with the reason and the source. It is safe for concurrent use.
type DeadLetters struct {
	mu  sync.Mutex
	w   io.Writer
	now func() time.Time
}

// NewDeadLetters writes to w; a nil now is [time.Now].
func NewDeadLetters(w io.Writer, now func() time.Time) *DeadLetters {
	if now == nil {
		now = time.Now
	}
	return &DeadLetters{w: w, now: now}
}

// Put writes one event; see [Options].DeadLetter.
func (d *DeadLetters) Put(source string, reason error, raw []byte) error {
	line, err := json.Marshal(struct {
		Time   time.Time `json:"time"`
		Source string    `json:"source"`
		Reason string    `json:"reason"`
		Event  string    `json:"event"`
	}{d.now().UTC(), source, reason.Error(), string(raw)})
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err = d.w.Write(append(line, '\n'))
	return err
}
