package activity

import (
	"bytes"
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
	text, reason := Harmless(p.options.Decoders, reason, v, raw, &p.arena, p.raw[:0])
	p.raw = text
	return p.options.DeadLetter(in.Source, reason, text)
}

// Harmless appends to b what may be kept of an event of which nothing can be
// made, and returns what may be told of the reason: v without what its decoder
// knows to be secret, or without anything that may be when no decoder knows it;
// raw without any long piece that may be a token where it is no JSON (v is nil).
// v is changed, and the arena is reset.
func Harmless(decoders []connector.Decoder, reason error, v *fastjson.Value, raw []byte, arena *fastjson.Arena, b []byte) ([]byte, error) {
	if v == nil {
		return append(b, maskText(raw)...), reason
	}
	if Recognize(decoders, v) == nil {
		// Nobody knows what of it is secret: a Secret's manifest in a directory
		// of logs, say.
		maskValue(v, arena)
	} else {
		for _, d := range decoders {
			d.Strip(v, arena)
		}
		maskBroken(v, arena)
	}
	b = connector.AppendJSON(b, v)
	arena.Reset()
	// Parsers of what is inside quote what they stumble over.
	return b, remit.Errorf(remit.KindOf(reason), "", "%s", maskText([]byte(reason.Error())))
}

// NotJSON says where a document stops being JSON, without quoting it.
func NotJSON(document []byte) error {
	var at *json.SyntaxError
	if err := json.Unmarshal(document, new(json.RawMessage)); errors.As(err, &at) {
		return remit.Errorf(remit.Invalid, "", "not JSON, at byte %d of %d: %w", at.Offset, len(document), at)
	}
	return remit.Errorf(remit.Invalid, "", "not JSON, or nested too deeply")
}

// longestRun is the longest piece of unbroken text of which it is taken that it
// can be no key or token, and longestDead how much of a broken event is kept.
const (
	longestRun  = 20
	longestDead = 64 << 10
)

// telling are the fields whose values say what an event is, and are no secrets.
var telling = map[string]bool{
	"kind": true, "apiVersion": true, "level": true, "auditID": true, "stage": true, "verb": true,
	"requestReceivedTimestamp": true, "stageTimestamp": true,
	"eventVersion": true, "eventSource": true, "eventName": true, "eventID": true, "eventTime": true, "awsRegion": true,
	"logName": true, "insertId": true, "timestamp": true, "serviceName": true, "methodName": true, "severity": true,
	"operationName": true, "category": true, "correlationId": true,
	"action": true, "_document_id": true, "eventType": true, "uuid": true, "published": true,
	"type": true, "time": true,
}

// maskText keeps of text that is not JSON what tells a reader what it was:
// names, and what is neither in quotes nor long enough to be a token.
func maskText(text []byte) []byte {
	if len(text) > longestDead {
		text = text[:longestDead]
	}
	// First what is known to be secret: behind password=, say.
	var arena fastjson.Arena
	if v := arena.NewString(string(text)); connector.StripTokens(v, &arena, nil) {
		text = v.GetStringBytes()
	}
	var out, name []byte
	for len(text) > 0 {
		n := bytes.IndexByte(text, '"')
		if n < 0 {
			n = len(text)
		}
		out = maskRuns(out, text[:n])
		if text = text[n:]; len(text) == 0 {
			break
		}
		n = 1
		for n < len(text) && text[n] != '"' {
			if text[n] == '\\' {
				n++
			}
			n++
		}
		quoted := text[1:min(n, len(text))]
		text = text[min(n+1, len(text)):]
		out = append(out, '"')
		switch behind := bytes.TrimLeft(text, " \t\r\n"); {
		case len(behind) > 0 && behind[0] == ':':
			name = quoted
			out = maskRuns(out, quoted)
		case telling[string(name)]:
			name, out = nil, appendTelling(out, quoted)
		default:
			name, out = nil, append(out, connector.Stripped...)
		}
		out = append(out, '"')
	}
	return out
}

// maskValue replaces every string of v but those of telling fields.
func maskValue(v *fastjson.Value, arena *fastjson.Arena) {
	switch v.Type() {
	case fastjson.TypeObject:
		v.GetObject().Visit(func(key []byte, field *fastjson.Value) {
			if text := field.GetStringBytes(); telling[string(key)] && field.Type() == fastjson.TypeString {
				*field = *arena.NewString(string(appendTelling(nil, text)))
				return
			}
			maskValue(field, arena)
		})
	case fastjson.TypeArray, fastjson.TypeString:
		for _, item := range v.GetArray() {
			maskValue(item, arena)
		}
		if v.Type() == fastjson.TypeString {
			*v = *arena.NewString(connector.Stripped)
		}
	}
}

// maskBroken masks documents within v, carried as text, that are cut off or
// otherwise no JSON: what is secret in them could not be found.
func maskBroken(v *fastjson.Value, arena *fastjson.Arena) {
	switch v.Type() {
	case fastjson.TypeObject:
		v.GetObject().Visit(func(_ []byte, field *fastjson.Value) { maskBroken(field, arena) })
	case fastjson.TypeArray:
		for _, item := range v.GetArray() {
			maskBroken(item, arena)
		}
	case fastjson.TypeString:
		if text := bytes.TrimSpace(v.GetStringBytes()); len(text) > 0 && (text[0] == '{' || text[0] == '[') && fastjson.ValidateBytes(text) != nil {
			*v = *arena.NewString(string(maskText(text)))
		}
	}
}

// maskRuns appends text without its long unbroken runs of letters and digits,
// each of which may be a token.
func maskRuns(out, text []byte) []byte {
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

// appendTelling appends the value of a telling field: a UUID, by which an event is
// found again, as it is.
func appendTelling(out, text []byte) []byte {
	if isUUID(text) {
		return append(out, text...)
	}
	return maskRuns(out, text)
}

func isUUID(text []byte) bool {
	if len(text) != 36 {
		return false
	}
	for i, c := range text {
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case c < '0' || c > '9' && c < 'A' || c > 'F' && c < 'a' || c > 'f':
			return false
		}
	}
	return true
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
