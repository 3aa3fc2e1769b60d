package report

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/width"
)

// stackedMarks is how many combining marks one letter may carry before they are
// spelled out. Living scripts need no more than three; without a limit a name
// could paint over the lines around it.
const stackedMarks = 3

// Visible spells out everything in s that a terminal could act on or that a
// reader could not see: control characters and escape sequences, line breaks,
// bidirectional controls, invisible and unassigned characters, spaces that only
// look like one, heaps of combining marks, and bytes that are no UTF-8. What it
// returns is printable UTF-8 on one line. It is the text of the escapes of Go and
// of most shells: \n, \x1b, \u202e.
func Visible(s string) string {
	if plain(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 16)
	marks := stackedMarks // the first character has no base to combine with
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
			marks = stackedMarks
		case hidden(r):
			escapeRune(&b, r)
			marks = stackedMarks
		case unicode.Is(unicode.M, r):
			if marks >= stackedMarks {
				escapeRune(&b, r)
				break
			}
			marks++
			b.WriteRune(r)
		default:
			marks = 0
			b.WriteRune(r)
		}
		i += n
	}
	return b.String()
}

// plain says whether s is printable ASCII, as nearly everything is.
func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// hidden says whether a character must not be shown as it is.
func hidden(r rune) bool {
	switch {
	case r < utf8.RuneSelf:
		return r < ' ' || r > '~'
	case !unicode.IsPrint(r): // controls, format characters, other spaces, private use, unassigned
		return true
	case r == '\u2800': // the blank braille pattern
		return true
	}
	// Letters and marks by category, and yet invisible.
	return unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

func escapeRune(b *strings.Builder, r rune) {
	switch {
	case r == '\n':
		b.WriteString(`\n`)
	case r == '\r':
		b.WriteString(`\r`)
	case r == '\t':
		b.WriteString(`\t`)
	case r < 0x100:
		fmt.Fprintf(b, `\x%02x`, r)
	case r < 0x10000:
		fmt.Fprintf(b, `\u%04x`, r)
	default:
		fmt.Fprintf(b, `\U%08x`, r)
	}
}

// sentence is Visible for prose of a rule, in which a line break is only where
// its author broke the line: white space counts as one space.
func sentence(s string) string {
	return Visible(strings.Join(strings.Fields(s), " "))
}

// columns is how many columns of a terminal a visible text takes.
func columns(s string) int {
	n := 0
	for _, r := range s {
		n += runeColumns(r)
	}
	return n
}

func runeColumns(r rune) int {
	switch {
	case r < utf8.RuneSelf:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case r >= 0x1F1E6 && r <= 0x1F1FF: // halves of flags: narrow by property, wide in practice
		return 2
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// cut shortens a visible text to at most limit columns and marks that it did.
func cut(s string, limit int) string {
	if len(s) <= limit || columns(s) <= limit {
		return s
	}
	if limit <= 0 {
		return ""
	}
	n := 0
	for i, r := range s {
		w := runeColumns(r)
		if n+w > limit-1 {
			return s[:i] + "…"
		}
		n += w
	}
	return s
}

// pad cuts a visible text to limit columns and fills it up to them.
func pad(s string, limit int) string {
	s = cut(s, limit)
	return s + strings.Repeat(" ", max(0, limit-columns(s)))
}

// wrap breaks a visible text into lines of at most limit columns, between words
// where it can and within a word where it must.
func wrap(s string, limit int) []string {
	limit = max(limit, 8)
	var lines []string
	var line strings.Builder
	n := 0
	flush := func() {
		lines = append(lines, line.String())
		line.Reset()
		n = 0
	}
	for word := range strings.FieldsSeq(s) {
		w := columns(word)
		if n > 0 && n+1+w > limit {
			flush()
		}
		if n > 0 {
			line.WriteByte(' ')
			n++
		}
		for _, r := range word {
			rw := runeColumns(r)
			if n+rw > limit {
				flush()
			}
			line.WriteRune(r)
			n += rw
		}
	}
	if n > 0 {
		flush()
	}
	return lines
}
