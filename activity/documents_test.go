package activity_test

import (
	"bytes"
	"compress/gzip"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"remit"
	"remit/activity"
)

func documents(t *testing.T, in []byte) (out []string, err error) {
	t.Helper()
	err = activity.Documents(bytes.NewReader(in), func(doc []byte, _ int, _ int64) error {
		out = append(out, string(doc))
		return nil
	})
	return out, err
}

// TestDocuments reads every layout and compression that logs come in.
func TestDocuments(t *testing.T) {
	gz := func(s string) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write([]byte(s))
		_ = w.Close()
		return b.Bytes()
	}
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	zst := func(s string) []byte { return w.EncodeAll([]byte(s), nil) }
	for _, test := range []struct {
		name string
		in   []byte
		want []string
	}{
		{"lines", []byte("{\"a\":1}\n\n{\"b\":2}"), []string{`{"a":1}`, `{"b":2}`}},
		{"Windows lines behind a byte order mark", []byte("\xef\xbb\xbf{\"a\":1}\r\n{\"b\":2}\r\n"), []string{`{"a":1}`, `{"b":2}`}},
		{"a broken line among them", []byte("{\"a\":1}\n{oops\n{\"b\":2}\n"), []string{`{"a":1}`, `{oops`, `{"b":2}`}},
		{"one value over lines", []byte("{\n \"a\": \"}\\\"{\"\n}\n"), []string{"{\n \"a\": \"}\\\"{\"\n}"}},
		{"values over lines", []byte("{\n\"a\":1\n}\n{\n\"b\":[2]\n}"), []string{"{\n\"a\":1\n}", "{\n\"b\":[2]\n}"}},
		// A log that was rotated within a line lost all of its events.
		{"a first line that is cut in a string", []byte("{\"a\":\"x\n{\"b\":2}\n{\"c\":3}"), []string{`{"a":"x`, `{"b":2}`, `{"c":3}`}},
		{"a first line that is cut between fields", []byte("{\"a\":{\"b\":1},\n{\"b\":2}\n{\"c\":{}}"), []string{"{\"a\":{\"b\":1},", `{"b":2}`, `{"c":{}}`}},
		{"a first line that is cut in a list", []byte("[{\"a\":1}\n{\"b\":2}"), []string{`[{"a":1}`, `{"b":2}`}},
		{"values that commas separate", []byte("{\n\"a\":1\n},\n{\"b\":[[],[{}]]}\n,\n"), []string{"{\n\"a\":1\n}", `{"b":[[],[{}]]}`}},
		{"text between values is handed over", []byte("{\n\"a\":1}\nnote\n{\"b\":2}"), []string{"{\n\"a\":1}", "note", `{"b":2}`}},
		{"a value that is cut at the end", []byte("{\n\"a\":1}\n{\"b\":[2"), []string{"{\n\"a\":1}", `{"b":[2`}},
		{"brackets and breaks within strings", []byte("{\n\"a\": \"}]{\\n\\\\\"\n}"), []string{"{\n\"a\": \"}]{\\n\\\\\"\n}"}},
		{"gzip", gz("{\"a\":1}\n{\"b\":2}\n"), []string{`{"a":1}`, `{"b":2}`}},
		{"two gzip members", append(gz("{\"a\":1}\n"), gz("{\"b\":2}\n")...), []string{`{"a":1}`, `{"b":2}`}},
		{"zstd", zst("{\"a\":1}\n"), []string{`{"a":1}`}},
		{"nothing", nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := documents(t, test.in)
			if err != nil || strings.Join(got, "|") != strings.Join(test.want, "|") {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	cut := gz(strings.Repeat("{\"a\":1}\n", 1000))
	if _, err := documents(t, cut[:len(cut)-9]); remit.KindOf(err) != remit.Invalid {
		t.Errorf("a file that is cut short: %v", err)
	}
}

func FuzzDocuments(f *testing.F) {
	f.Add([]byte("{\"a\":1}\n{\"b\":2}"))
	f.Add([]byte("{\n\"a\":\"\\\"\"}"))
	f.Add([]byte("{\"a\":\"x\n{\"b\":2}\n"))
	f.Add([]byte("[\n{\"a\":1},\n{\"b\":[{}]}]\n\"}\n{\"a\" {}"))
	f.Add([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff})
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x24, 0, 1, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		taken, last := 0, 1
		_ = activity.Documents(bytes.NewReader(in), func(document []byte, line int, read int64) error {
			if len(document) == 0 || line < last || read < 0 || read > int64(len(in)) {
				t.Fatalf("%q in line %d, after line %d, at byte %d", document, line, last, read)
			}
			last = line
			taken += len(document)
			return nil
		})
		if packed := len(in) > 3 && (in[0] == 0x1f || in[0] == 0x28); !packed && taken > len(in) {
			t.Fatalf("%d bytes of %d", taken, len(in))
		}
		// Whole lines behind whatever it is are read all the same, unless it
		// ends within a list, where values may stand.
		if !bytes.ContainsAny(in, "[\x1f\x28") && len(in) < 1<<16 {
			whole := 0
			if err := activity.Documents(strings.NewReader(string(in)+"\n"+strings.Repeat("{\"whole\":{\"line\":1}}\n", 5)), func(document []byte, _ int, _ int64) error {
				if string(document) == `{"whole":{"line":1}}` {
					whole++
				}
				return nil
			}); err != nil || whole < 4 {
				t.Fatalf("%d of 5 lines, %v, behind %q", whole, err, in)
			}
		}
	})
}
