package archive

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"remit"
)

// Each is what [Archive.Query] calls, and what the writers of exports are.
type Each = func(e *remit.Activity, raw []byte) error

// WriteJSON returns a function that writes each event as one line of JSON, in
// the form of [remit.Activity], with its raw event as the member "raw": as JSON
// where it is JSON, as a string otherwise.
func WriteJSON(w io.Writer) Each {
	out := lines(w)
	return func(e *remit.Activity, raw []byte) error {
		return out.Encode(struct {
			*remit.Activity
			Raw any `json:"raw,omitempty"`
		}{e, rawValue(raw)})
	}
}

func lines(w io.Writer) *json.Encoder {
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	return out
}

func rawValue(raw []byte) any {
	switch {
	case raw == nil:
		return nil
	case json.Valid(raw):
		return json.RawMessage(raw)
	}
	return string(raw)
}

// WriteCSV returns a function that writes each event as one line of
// comma-separated values (RFC 4180, UTF-8, LF), behind a line with the names of
// the columns, which are those of the archive's files. A list is one cell: its
// elements are separated by "; ", those of chain are kind namespace/name. Cells
// are safe to open in a spreadsheet: what could begin a formula gets an apostrophe
// in front, and control characters are spelled out. The line of names is written
// with the first event.
func WriteCSV(w io.Writer) Each {
	out := csv.NewWriter(w)
	first := true
	var r row
	return func(e *remit.Activity, raw []byte) error {
		if first {
			if err := out.Write(columnNames); err != nil {
				return err
			}
			first = false
		}
		r.set(e, "")
		if err := out.Write(append(r.cells(), cell(string(raw)))); err != nil {
			return err
		}
		out.Flush()
		return out.Error()
	}
}

// csvFields are the fields of a row that come from an event: system_name does
// not, and the raw event comes beside it.
var csvFields, columnNames = func() (fields []int, names []string) {
	t := reflect.TypeFor[row]()
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("parquet"), ","); name != "system_name" && name != rawColumn {
			fields, names = append(fields, i), append(names, name)
		}
	}
	return fields, append(names, rawColumn)
}()

func (r *row) cells() []string {
	cells := make([]string, len(csvFields), len(csvFields)+1)
	for i, field := range csvFields {
		switch v := reflect.ValueOf(r).Elem().Field(field).Interface().(type) {
		case string:
			cells[i] = cell(v)
		case bool:
			cells[i] = strconv.FormatBool(v)
		case int32:
			cells[i] = strconv.Itoa(int(v))
		case int64:
			if name := columnNames[i]; name == "time" || name == "learned" {
				cells[i] = fromMicros(v).Format(time.RFC3339Nano)
			} else {
				cells[i] = strconv.FormatInt(v, 10)
			}
		case *int64:
			if v != nil {
				cells[i] = fromMicros(*v).Format(time.RFC3339Nano)
			}
		case []string:
			cells[i] = cell(strings.Join(v, "; "))
		case []actor:
			links := make([]string, len(v))
			for k, link := range v {
				links[k] = remit.Ref(link).String()
			}
			cells[i] = cell(strings.Join(links, "; "))
		}
	}
	return cells
}

// cell makes a text safe to open in a spreadsheet. See OWASP, CSV Injection.
func cell(s string) string {
	if s == "" {
		return s
	}
	if strings.ContainsFunc(s, unseen) || !utf8.ValidString(s) {
		var b strings.Builder
		for _, c := range s {
			if unseen(c) {
				fmt.Fprintf(&b, `\u%04x`, c)
			} else {
				b.WriteRune(c)
			}
		}
		s = b.String()
	}
	if c, _ := utf8.DecodeRuneInString(s); strings.ContainsRune("=+-@'\uff1d\uff0b\uff0d\uff20", c) {
		return "'" + s
	}
	return s
}

func unseen(c rune) bool { return unicode.IsControl(c) || unicode.Is(unicode.Cf, c) }
