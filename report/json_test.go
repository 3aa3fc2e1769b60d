package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"runtime"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"remit"
)

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	if err := WriteJSON(&b, sample().Source()); err != nil {
		t.Fatal(err)
	}
	golden(t, "scan.json", b.Bytes())
}

func TestJSONRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var raw, first, second bytes.Buffer
		if err := WriteJSON(&raw, hostile(t).Source()); err != nil {
			t.Fatal(err)
		}
		// Bytes that are no UTF-8 become one and the same character in JSON,
		// so only what was read from it once comes back as it was.
		valid, err := ReadJSON(&raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := WriteJSON(&first, valid.Source()); err != nil {
			t.Fatal(err)
		}
		d, err := ReadJSON(bytes.NewReader(first.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		if err := WriteJSON(&second, d.Source()); err != nil {
			t.Fatal(err)
		}
		if first.String() != second.String() {
			t.Fatalf("read and written again it differs:\n%s\n%s", first.String(), second.String())
		}
		summary, err := Summarize(d.Source())
		if err != nil {
			t.Fatal(err)
		}
		a, _ := json.Marshal(summary)
		b, _ := json.Marshal(d.Summary)
		if !bytes.Equal(a, b) {
			t.Fatalf("the summary counts %s, counted anew %s", b, a)
		}
	})
}

// Escaping what a terminal acts on must not change what a parser reads.
func TestJSONKeepsNames(t *testing.T) {
	name := "a\x1b\u009b\u202e\u2028\U000e0041\U0001f511é"
	d := &Document{Identities: []remit.Identity{{Record: remit.Record{Ref: remit.Ref{Name: name}}}}}
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	read, err := ReadJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if got := read.Identities[0].Name; got != name {
		t.Errorf("the name came back as %q", got)
	}
}

func TestReadJSONRefuses(t *testing.T) {
	for text, want := range map[string]remit.ErrorKind{
		"":                            remit.Invalid,
		"<html>":                      remit.Invalid,
		"{}":                          remit.Invalid,
		`{"schema": "remit-scan/99"}`: remit.Unsupported,
	} {
		if _, err := ReadJSON(strings.NewReader(text)); remit.KindOf(err) != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// meter throws away what is written and looks from time to time at how much
// memory is in use.
type meter struct {
	written, looked int64
	peak            uint64
}

func (m *meter) Write(p []byte) (int, error) {
	m.written += int64(len(p))
	if m.written-m.looked > 4<<20 {
		m.looked = m.written
		m.peak = max(m.peak, inUse())
	}
	return len(p), nil
}

func inUse() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// TestMemoryIsBounded writes a scan that is never in memory as a whole.
func TestMemoryIsBounded(t *testing.T) {
	src := made{identities: 40_000, findings: 40_000}
	for name, write := range map[string]func(io.Writer) error{
		"JSON":  func(w io.Writer) error { return WriteJSON(w, src) },
		"SARIF": func(w io.Writer) error { return WriteSARIF(w, src) },
		"CSV":   func(w io.Writer) error { return WriteCSV(w, src, CSVOptions{}) },
		"HTML":  func(w io.Writer) error { return WriteHTML(w, src) },
		"list":  func(w io.Writer) error { return WriteIdentities(w, src.Identities(), TableOptions{Width: 100}) },
	} {
		t.Run(name, func(t *testing.T) {
			before := inUse()
			m := &meter{}
			if err := write(m); err != nil {
				t.Fatal(err)
			}
			// The counters of 40,000 identities with findings, and a batch of them.
			const bound = 64 << 20
			if grown := int64(m.peak) - int64(before); grown > bound {
				t.Errorf("%d MB written took %d MB of memory", m.written>>20, grown>>20)
			} else {
				t.Logf("%d MB written took %d MB of memory", m.written>>20, max(grown, 0)>>20)
			}
		})
	}
}

// failing is a source whose n-th record of every list is an error.
type failing struct {
	Source
	after int
}

var errBroken = remit.Errorf(remit.Unavailable, "read", "the store is gone")

func broken[T any](seq iter.Seq2[T, error], after int) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		n := 0
		for v, err := range seq {
			if n == after {
				var zero T
				yield(zero, errBroken)
				return
			}
			n++
			if !yield(v, err) {
				return
			}
		}
	}
}

func (f failing) Identities() iter.Seq2[remit.Identity, error] {
	return broken(f.Source.Identities(), f.after)
}

func (f failing) Findings() iter.Seq2[remit.Finding, error] {
	return broken(f.Source.Findings(), f.after)
}

// shut is a writer that takes so many bytes and then fails, as a full disk.
type shut struct{ left int }

var errFull = errors.New("no space left on device")

func (s *shut) Write(p []byte) (int, error) {
	if s.left < len(p) {
		return 0, errFull
	}
	s.left -= len(p)
	return len(p), nil
}

func TestErrorsAreTold(t *testing.T) {
	for name, write := range map[string]func(io.Writer, Source) error{
		"JSON":  WriteJSON,
		"SARIF": WriteSARIF,
		"CSV":   func(w io.Writer, src Source) error { return WriteCSV(w, src, CSVOptions{}) },
		"HTML":  WriteHTML,
		"table": func(w io.Writer, src Source) error { return WriteTable(w, src, TableOptions{}) },
		"identities": func(w io.Writer, src Source) error {
			return WriteIdentities(w, src.Identities(), TableOptions{})
		},
		"findings": func(w io.Writer, src Source) error {
			return WriteFindings(w, src.Findings(), TableOptions{Verbose: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := write(io.Discard, failing{sample().Source(), 2}); !errors.Is(err, errBroken) {
				t.Errorf("a broken source: %v", err)
			}
			if err := write(&shut{left: 100}, sample().Source()); !errors.Is(err, errFull) {
				t.Errorf("a full disk: %v", err)
			}
		})
	}
}

func TestTimesStaySane(t *testing.T) {
	for _, at := range []time.Time{{}, time.Unix(1<<55, 0), time.Unix(-1<<55, 0), time.Date(2026, 1, 1, 0, 0, 0, 0, time.FixedZone("odd", 30*3600))} {
		if _, err := sane(at).MarshalJSON(); err != nil {
			t.Errorf("%v: %v", at, err)
		}
	}
}
