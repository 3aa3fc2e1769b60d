package report

import (
	"bytes"
	"encoding/csv"
	"encoding/xml"
	"errors"
	"io"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"remit"
)

// hostileText draws texts made of what attackers put into names.
var hostileText = rapid.Custom(func(t *rapid.T) string {
	pieces := rapid.SliceOfN(rapid.OneOf(
		rapid.SampledFrom([]string{
			"\x1b[31m", "\x1b]0;title\x07", "\x1b]8;;https://evil.example\x1b\\", "\x9b2J", "\u009b2J", "\u0085", "\x00", "\x7f",
			"\n", "\r", "\r\n", "\t", "\v", "\b\b\b", "\u2028", "\u2029",
			"\u202e", "\u2066", "\u2069", "\u200f", "\u061c", "\u200b", "\u200d", "\ufeff", "\u00ad", "\U000e0041", "\u3164", "\u2800", "\ufe0f",
			"\xff", "\xc3", "\xed\xa0\x80", "e\u0301\u0301\u0301\u0301\u0301\u0301", "\u0301",
			"<script>alert(1)</script>", "</style>", "<!--", "-->", "]]>", "\" onclick=\"x", "' x='", "&lt;", "&", "{{.}}", "javascript:alert(1)",
			"=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "'=1", "＝1", ",", ";", "\"", "\\", "`id`", "$(id)", "; rm -rf ~", "../..", "%2e",
			"日本語の名前", "Ünïcödé", "עברית", "🇨🇭", "👩‍👩‍👧", "a", " ", "   ", "very-long-" + strings.Repeat("x", 300),
		}),
		rapid.StringN(0, 8, 40),
	), 0, 5).Draw(t, "pieces")
	return strings.Join(pieces, "")
})

// hostile is the sample with any of its texts, also those that should be one of
// a few words, replaced by hostile ones.
func hostile(t *rapid.T) *Document {
	d := sample()
	spoil(t, reflect.ValueOf(d).Elem())
	return d
}

func spoil(t *rapid.T, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			if rapid.IntRange(0, 30).Draw(t, "odd time") == 0 {
				v.Set(reflect.ValueOf(time.Unix(rapid.Int64().Draw(t, "seconds"), 0)))
			}
			return
		}
		for i := range v.NumField() {
			spoil(t, v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			spoil(t, v.Index(i))
		}
	case reflect.Map:
		if v.Type() == reflect.TypeFor[map[string]string]() && v.Len() > 0 {
			v.SetMapIndex(reflect.ValueOf(hostileText.Draw(t, "key")), reflect.ValueOf(hostileText.Draw(t, "value")))
		}
	case reflect.String:
		// Most IDs stay, or nothing would belong to anything.
		odds := 3
		if v.Type() == reflect.TypeFor[remit.ID]() {
			odds = 40
		}
		if rapid.IntRange(0, odds).Draw(t, "spoil") == 0 {
			v.SetString(hostileText.Draw(t, "text"))
		}
	}
}

// harmless fails unless the text can do no more to a terminal than show printable
// characters in lines.
func harmless(t *rapid.T, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Fatalf("not UTF-8: %q", text)
	}
	for _, r := range text {
		if r == '\n' {
			continue
		}
		if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Bidi_Control, unicode.Co, unicode.Cs) || (unicode.IsSpace(r) && r != ' ') {
			t.Fatalf("%U reached the output: %q", r, text)
		}
	}
}

var colours = regexp.MustCompile(`\x1b\[[0-9;]{1,4}m`)

func TestTextIsHarmless(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := hostile(t)
		o := TableOptions{
			Width: rapid.SampledFrom([]int{0, 40, 80, 133}).Draw(t, "width"), Color: rapid.Bool().Draw(t, "color"),
			Verbose: rapid.Bool().Draw(t, "verbose"), Command: hostileText.Draw(t, "command"),
		}
		width := o.Width
		if width == 0 {
			width = reportWidth
		}
		check := func(name string, lines bool, write func(io.Writer) error) {
			var b bytes.Buffer
			if err := write(&b); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			text := b.String()
			if o.Color {
				text = colours.ReplaceAllString(text, "")
			}
			harmless(t, text)
			if body, _, _ := strings.Cut(text, "\nNEXT\n"); lines {
				for line := range strings.Lines(body) {
					if n := columns(strings.TrimSuffix(line, "\n")); n > width {
						t.Fatalf("%s: a line of %d columns, where there are %d: %q", name, n, width, line)
					}
				}
			}
		}
		check("table", true, func(w io.Writer) error { return WriteTable(w, d.Source(), o) })
		for _, i := range d.Identities[:3] {
			e, err := Explain(d.Source(), i.ID)
			if err != nil {
				continue // the ID was spoiled and is nobody's, or empty
			}
			e.History = []remit.Version{{From: sampleTime, Record: i}, {Record: d.Identities[3]}}
			check("explanation", true, func(w io.Writer) error { return WriteExplain(w, e, o) })
		}
		lines := o.Width > 0
		check("identities", lines, func(w io.Writer) error { return WriteIdentities(w, Records(d.Identities), o) })
		check("credentials", lines, func(w io.Writer) error { return WriteCredentials(w, Records(d.Credentials), sampleTime, o) })
		standings := []remit.Standing{sampleStanding(), sampleStanding()}
		spoil(t, reflect.ValueOf(standings))
		check("standings", lines || o.Verbose, func(w io.Writer) error {
			return WriteStandings(w, LifecycleCount{standings[0].State: 1, remit.LifecycleDue: 1}, 2, Records(standings), o)
		})
		check("standings CSV", false, func(w io.Writer) error { return WriteStandingsCSV(w, Records(standings)) })
		check("grants", lines, func(w io.Writer) error { return WriteGrants(w, Records(d.Grants), o) })
		check("findings", lines || o.Verbose, func(w io.Writer) error { return WriteFindings(w, Records(d.Findings), o) })
		for _, kind := range []remit.RecordKind{remit.KindFinding, remit.KindIdentity, remit.KindCredential, remit.KindGrant} {
			check("CSV", false, func(w io.Writer) error { return WriteCSV(w, d.Source(), CSVOptions{Of: kind}) })
		}
		check("JSON", false, func(w io.Writer) error { return WriteJSON(w, d.Source()) })
		check("SARIF", false, func(w io.Writer) error { return WriteSARIF(w, d.Source()) })
	})
}

// TestHTMLIsHarmless reads the page as strict XML, which fails on the first tag
// or attribute that was not closed, and allows only the elements and attributes
// of the template.
func TestHTMLIsHarmless(t *testing.T) {
	elements, attributes := parts(t, sample())
	attributes["class"], attributes["data-label"] = true, true
	for _, name := range []string{"div", "bdi", "li", "ul", "b", "p", "span", "section", "a", "h4", "article", "dl", "dt", "dd"} {
		elements[name] = true
	}
	rapid.Check(t, func(t *rapid.T) {
		d := hostile(t)
		gotElements, gotAttributes := parts(t, d)
		for name := range gotElements {
			if !elements[name] {
				t.Fatalf("an element %q came from outside", name)
			}
		}
		for name := range gotAttributes {
			if !attributes[name] {
				t.Fatalf("an attribute %q came from outside", name)
			}
		}
	})
}

// fataler is a test of either kind.
type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func parts(t fataler, d *Document) (elements, attributes map[string]bool) {
	t.Helper()
	var b bytes.Buffer
	if err := WriteHTML(&b, d.Source()); err != nil {
		t.Fatal(err)
	}
	elements, attributes = map[string]bool{}, map[string]bool{}
	x := xml.NewDecoder(&b)
	x.Entity = xml.HTMLEntity
	for {
		token, err := x.Token()
		if errors.Is(err, io.EOF) {
			return elements, attributes
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			elements[token.Name.Local] = true
			for _, a := range token.Attr {
				attributes[a.Name.Local] = true
				if a.Name.Local == "href" && !strings.HasPrefix(a.Value, "#") {
					t.Fatalf("a link leads out of the page: %q", a.Value)
				}
				if strings.HasPrefix(a.Name.Local, "on") || a.Name.Local == "style" || a.Name.Local == "src" {
					t.Fatalf("an attribute %s", a.Name.Local)
				}
			}
		case xml.CharData:
			for _, r := range string(token) {
				if r != '\n' && hidden(r) {
					t.Fatalf("%U reached the page", r)
				}
			}
		case xml.Comment, xml.ProcInst:
			t.Fatalf("%T in the page", token)
		}
	}
}

func TestCellsAreNoFormulas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := hostile(t)
		var b bytes.Buffer
		if err := WriteCSV(&b, d.Source(), CSVOptions{Of: remit.KindIdentity}); err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(&b).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) != len(d.Identities)+1 {
			t.Fatalf("%d rows of %d identities", len(rows), len(d.Identities))
		}
		for n, row := range rows[1:] {
			for _, cell := range row {
				if cell != "" && strings.ContainsAny(cell[:1], "=+-@\t\r\n") {
					t.Fatalf("a formula: %q", cell)
				}
			}
			// Taking off the apostrophe gives back what was written.
			if got, want := strings.TrimPrefix(row[3], "'"), Visible(d.Identities[n].Name); got != want {
				t.Fatalf("the name came back as %q, not %q", got, want)
			}
		}
	})
}
