package report

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"time"
	"unicode/utf8"

	"remit"
)

// WriteJSON writes the scan document, one record a line, and holds one record at
// a time. The format is [Document] and docs/reference/scan.schema.json.
func WriteJSON(w io.Writer, src Source) error {
	h := src.Header()
	t := newTally(h.Generated)
	d := newJSONWriter(w)

	// The systems come first of all because "recorded" follows from them.
	for s, err := range src.Systems() {
		if err != nil {
			return err
		}
		t.system(&s)
	}
	d.raw("{\n")
	d.field("schema", Schema)
	d.field("generated", sane(h.Generated))
	d.field("remit", h.Version)
	d.field("recorded", t.recorded())
	writeArray(d, "systems", Records(t.systems), cleanSystem, nil)
	writeArray(d, "identities", src.Identities(), cleanIdentity, t.identity)
	writeArray(d, "credentials", src.Credentials(), cleanCredential, t.credential)
	writeArray(d, "roles", src.Roles(), cleanRole, func(*remit.Role) { t.summary.Roles++ })
	writeArray(d, "grants", src.Grants(), cleanGrant, t.grant)
	writeArray(d, "relations", src.Relations(), cleanRelation, func(*remit.Relation) { t.summary.Relations++ })
	writeArray(d, "resources", src.Resources(), cleanResource, func(*remit.Resource) { t.summary.Resources++ })
	writeArray(d, "findings", src.Findings(), cleanFinding, t.finding)
	d.raw(`"summary": `)
	d.value(t.finish())
	d.raw("\n}\n")
	return d.close()
}

// MarshalJSON writes the document as [WriteJSON] does: with lists that are never
// null, and a summary of what it holds.
func (d Document) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	err := WriteJSON(&b, d.Source())
	return b.Bytes(), err
}

// ReadJSON reads a scan document that WriteJSON wrote. It fails with
// [remit.Invalid] when the input is no such document, and with
// [remit.Unsupported] when it is one of a later format.
func ReadJSON(r io.Reader) (*Document, error) {
	var d Document
	if err := json.NewDecoder(bufio.NewReader(r)).Decode(&d); err != nil {
		return nil, remit.Errorf(remit.Invalid, "read scan document", "not a scan document: %w", err)
	}
	switch d.Schema {
	case Schema:
		return &d, nil
	case "":
		return nil, remit.Errorf(remit.Invalid, "read scan document", "not a scan document: it has no \"schema\"")
	}
	return nil, remit.Errorf(remit.Unsupported, "read scan document", "the document is of format %q, this version reads %q", d.Schema, Schema)
}

// jsonWriter writes JSON piece by piece. The first error stays, and nothing is
// written after it.
type jsonWriter struct {
	w      *bufio.Writer
	buffer bytes.Buffer
	encode *json.Encoder
	err    error
}

func newJSONWriter(w io.Writer) *jsonWriter {
	d := &jsonWriter{w: bufio.NewWriterSize(w, 64<<10)}
	d.encode = json.NewEncoder(&d.buffer)
	return d
}

func (d *jsonWriter) raw(s string) {
	if d.err == nil {
		_, d.err = d.w.WriteString(s)
	}
}

// value writes v. What a terminal would act on is escaped, so that the document
// may be looked at as it is, and still means the same to a parser.
func (d *jsonWriter) value(v any) {
	if d.err != nil {
		return
	}
	d.buffer.Reset()
	if err := d.encode.Encode(v); err != nil {
		d.err = remit.Errorf(remit.Internal, "write document", "%T: %w", v, err)
		return
	}
	_, d.err = d.w.Write(escapeJSON(bytes.TrimSuffix(d.buffer.Bytes(), []byte("\n"))))
}

func (d *jsonWriter) field(name string, v any) {
	d.raw(`"` + name + `": `)
	d.value(v)
	d.raw(",\n")
}

func (d *jsonWriter) close() error {
	if d.err == nil {
		d.err = d.w.Flush()
	}
	return d.err
}

// writeArray writes one field of records, and a comma behind it. Each record is
// counted as the source has it and written as clean makes it.
func writeArray[T any](d *jsonWriter, name string, records iter.Seq2[T, error], clean func(*T), count func(*T)) {
	if d.err != nil {
		return // without asking the source for more
	}
	d.raw(`"` + name + `": [`)
	separator := "\n"
	for r, err := range records {
		if err != nil && d.err == nil {
			d.err = err
		}
		if d.err != nil {
			return
		}
		if count != nil {
			count(&r)
		}
		clean(&r)
		d.raw(separator)
		d.value(r)
		separator = ",\n"
	}
	if separator != "\n" {
		d.raw("\n")
	}
	d.raw("],\n")
}

// escapeJSON writes what hidden finds as \uXXXX. In valid JSON nothing but
// strings holds other than ASCII, so the text need not be parsed.
func escapeJSON(b []byte) []byte {
	first := bytes.IndexFunc(b, func(r rune) bool { return r > '~' && hidden(r) })
	if first < 0 {
		return b
	}
	out := append(make([]byte, 0, len(b)+64), b[:first]...)
	for rest := b[first:]; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		switch {
		case r <= '~' || !hidden(r):
			out = append(out, rest[:n]...)
		case r < 0x10000:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xD800+r>>10, 0xDC00+r&0x3FF)
		}
		rest = rest[n:]
	}
	return out
}

// The clean functions make a copy of a record fit to be written: no list that
// the format promises is null, and no time that a hostile token or certificate
// claims (the year 60000) makes the whole document fail.

// lastTime is the latest that RFC 3339 can write.
var lastTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

func sane(t time.Time) time.Time {
	t = t.UTC()
	switch {
	case t.Year() > 9999:
		return lastTime
	case t.Year() < 1:
		return time.Time{}
	}
	return t
}

func cleanTimes(times ...*time.Time) {
	for _, t := range times {
		*t = sane(*t)
	}
}

func cleanSystem(s *remit.System) { cleanTimes(&s.Observed) }

func cleanIdentity(i *remit.Identity) {
	cleanTimes(&i.Created, &i.Since, &i.Expires, &i.LastActive)
}

func cleanCredential(c *remit.Credential) {
	cleanTimes(&c.Created, &c.Since, &c.Issued, &c.Expires, &c.LastUsed, &c.Rotated)
}

func cleanRole(r *remit.Role) {
	cleanTimes(&r.Created, &r.Since)
	r.Permissions = cleanPermissions(r.Permissions)
}

func cleanGrant(g *remit.Grant) {
	cleanTimes(&g.Created, &g.Since, &g.Expires)
	g.Permissions = cleanPermissions(g.Permissions)
}

func cleanRelation(r *remit.Relation) { cleanTimes(&r.Created, &r.Since) }

func cleanResource(r *remit.Resource) { cleanTimes(&r.Created, &r.Since) }

func cleanFinding(f *remit.Finding) {
	cleanTimes(&f.First, &f.Last, &f.Resolved, &f.SuppressedUntil)
	f.State = stateOf(f)
	f.Evidence = present(f.Evidence)
	f.Risks = present(f.Risks)
	f.Controls = present(f.Controls)
}

func cleanPermissions(list []remit.Permission) []remit.Permission {
	cleaned := make([]remit.Permission, len(list))
	for i, p := range list {
		p.Actions = present(p.Actions)
		p.Resources = present(p.Resources)
		cleaned[i] = p
	}
	return cleaned
}

// present returns the list, empty rather than nil.
func present[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
