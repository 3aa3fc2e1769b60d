package connectortest

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"

	"github.com/valyala/fastjson"

	"remit/connector"
)

// LabelledEvent is a raw event that others wrote for a rule of theirs, and
// whether that rule must match.
type LabelledEvent struct {
	Source   []string        `json:"source"`
	Rule     string          `json:"rule"`
	Case     string          `json:"case"`
	Expected bool            `json:"expected"`
	Log      json.RawMessage `json:"log"`
}

// Labelled reads the events of shared/data/labelled-events, which lies beside
// the project and is no part of it. Where there is no shared/data the test is
// skipped; a file that is missing in it is a failure.
func Labelled(t testing.TB, file string) []LabelledEvent {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		data := filepath.Join(dir, "shared", "data")
		if _, err := os.Stat(data); err == nil {
			return readLabelled(t, filepath.Join(data, "labelled-events", file))
		}
		if dir == filepath.Dir(dir) {
			t.Skip("there is no shared/data beside the project: the labelled events are not tested")
		}
		dir = filepath.Dir(dir)
	}
}

func readLabelled(t testing.TB, path string) (all []LabelledEvent) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var one LabelledEvent
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all = append(all, one)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// LabelledLogs are the raw events of a file by "rule/case".
func LabelledLogs(t testing.TB, file string) map[string]json.RawMessage {
	t.Helper()
	out := map[string]json.RawMessage{}
	for _, one := range Labelled(t, file) {
		out[one.Rule+"/"+one.Case] = one.Log
	}
	return out
}

// Decode decodes a document that holds one event; what else it is fails the
// test.
func Decode(t testing.TB, d connector.Decoder, document string) connector.Event {
	t.Helper()
	v, err := fastjson.Parse(document)
	if err != nil {
		t.Fatalf("%v in %s", err, document)
	}
	if !d.Recognizes(v) {
		t.Fatalf("not recognized: %s", document)
	}
	events := d.Split(v)
	if len(events) != 1 {
		t.Fatalf("%d events in %s", len(events), document)
	}
	var e connector.Event
	if err := d.Decode(events[0], new(connector.Interner), &e); err != nil {
		t.Fatalf("%v in %s", err, document)
	}
	return e
}

// FuzzDecoder holds what every decoder must: no document makes it panic,
// stripping leaves JSON with the same event in it, and stripping again changes
// nothing.
func FuzzDecoder(f *testing.F, decoders []connector.Decoder, seeds ...string) {
	for _, seed := range seeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		// The parser also takes what is no JSON (RFC 8259), such as 01 or bytes
		// that are no UTF-8; what stripping writes then need not be the same.
		strict := json.Valid(document) && utf8.Valid(document)
		for _, d := range decoders {
			v, err := fastjson.ParseBytes(document)
			if err != nil {
				return
			}
			fuzzDecoder(t, d, v, strict)
		}
	})
}

func fuzzDecoder(t *testing.T, d connector.Decoder, v *fastjson.Value, strict bool) {
	d.Recognizes(v)
	var in connector.Interner
	var arena fastjson.Arena
	for _, raw := range d.Split(v) {
		var before, after connector.Event
		decodeErr := d.Decode(raw, &in, &before)
		d.Strip(raw, &arena)
		again, err := fastjson.ParseBytes(connector.AppendJSON(nil, raw))
		if err != nil {
			t.Fatalf("no JSON after Strip: %v", err)
		}
		if decodeErr != nil || !strict {
			continue
		}
		if err := d.Decode(again, &in, &after); err != nil || after.ID != before.ID {
			t.Fatalf("after Strip: %v, ID %q was %q", err, after.ID, before.ID)
		}
		if d.Strip(again, &arena) {
			t.Fatalf("stripped twice: %s", connector.AppendJSON(nil, again))
		}
	}
}

// BenchmarkDecoder times parsing, decoding and stripping one event.
func BenchmarkDecoder(b *testing.B, d connector.Decoder, event string) {
	var p fastjson.Parser
	var in connector.Interner
	var arena fastjson.Arena
	var e connector.Event
	b.SetBytes(int64(len(event)))
	b.ReportAllocs()
	for b.Loop() {
		v, err := p.Parse(event)
		if err != nil {
			b.Fatal(err)
		}
		e.Reset()
		if err := d.Decode(v, &in, &e); err != nil {
			b.Fatal(err)
		}
		d.Strip(v, &arena)
		arena.Reset()
	}
}
