package report

import (
	"bufio"
	"io"
	"strings"
)

// TableOptions say how text is laid out.
type TableOptions struct {
	// Width is the number of columns to use, at least 40. With 0 reports are
	// laid out for 100 columns, and lists are as wide as what they hold and
	// cut nothing, as a pipe wants them.
	Width int

	// Color allows the escape sequences that colour text (ECMA-48, SGR).
	// Nothing else ever writes one.
	Color bool

	// Verbose shows evidence and remedies, and lifts the caps.
	Verbose bool

	// Command is how the user asked for this report, for the suggestion of
	// another format; empty is "remit scan".
	Command string
}

const (
	minimumWidth = 40
	reportWidth  = 100
)

// style is how a piece of text looks where colours are allowed. The words say the
// same without it.
type style string

const (
	normal style = ""
	strong style = "1"
	faint  style = "2"
	red    style = "31"
	alarm  style = "1;31"
	yellow style = "33"
	cyan   style = "36"
	green  style = "32"
)

// span is a piece of text in one style.
type span struct {
	text  string
	style style
}

// printer lays text out in lines. All text goes through [Visible] here and
// nowhere else, so that nothing can be forgotten; what a style adds comes after.
type printer struct {
	w     *bufio.Writer
	width int
	color bool
}

func newPrinter(w io.Writer, o TableOptions) *printer {
	width := o.Width
	if width == 0 {
		width = reportWidth
	}
	return &printer{w: bufio.NewWriter(w), width: max(width, minimumWidth), color: o.Color}
}

// close writes what is left. A bufio.Writer keeps its first error, so no write
// before needs to look.
func (p *printer) close() error { return p.w.Flush() }

func (p *printer) paint(visible string, st style) {
	if visible == "" {
		return
	}
	if !p.color || st == normal {
		p.w.WriteString(visible)
		return
	}
	p.w.WriteString("\x1b[" + string(st) + "m" + visible + "\x1b[0m")
}

func (p *printer) blank() { p.w.WriteByte('\n') }

// line writes one line and cuts it at the width.
func (p *printer) line(spans ...span) {
	left := p.width
	for i, s := range spans {
		text := Visible(s.text)
		if i == len(spans)-1 {
			text = strings.TrimRight(text, " ")
		}
		text = cut(text, left)
		left -= columns(text)
		p.paint(text, s.style)
	}
	p.blank()
}

// para writes text behind a first piece that takes indent columns, and wraps it
// there. With most > 0 it is cut after so many lines.
func (p *printer) para(first span, indent int, text string, st style, most int) {
	indent = min(indent, p.width/2) // a hostile first piece must not take all
	lines := wrap(Visible(text), p.width-indent)
	if len(lines) == 0 {
		lines = []string{""}
	}
	if most > 0 && len(lines) > most {
		lines = lines[:most]
		lines[most-1] = cut(lines[most-1]+" …", p.width-indent)
		if !strings.HasSuffix(lines[most-1], "…") {
			lines[most-1] += "…"
		}
	}
	for i, l := range lines {
		lead := ""
		if i == 0 {
			lead = Visible(first.text)
		}
		if l == "" {
			p.paint(cut(lead, indent), first.style)
		} else {
			p.paint(pad(lead, indent), first.style)
			p.paint(l, st)
		}
		p.blank()
	}
}

// items writes short pieces one behind the other and breaks lines only between
// them.
func (p *printer) items(indent int, separator string, pieces ...span) {
	limit := p.width - indent
	n := 0
	for _, s := range pieces {
		text := cut(Visible(s.text), limit)
		if text == "" {
			continue
		}
		w := columns(text)
		switch {
		case n == 0:
			p.w.WriteString(strings.Repeat(" ", indent))
		case n+columns(separator)+w > limit:
			p.w.WriteString("\n" + strings.Repeat(" ", indent))
			n = 0
		default:
			p.paint(separator, faint)
			n += columns(separator)
		}
		p.paint(text, s.style)
		n += w
	}
	if n > 0 {
		p.blank()
	}
}

// heading begins a section.
func (p *printer) heading(title, note string) {
	p.blank()
	if note == "" {
		p.line(span{strings.ToUpper(title), strong})
		return
	}
	p.line(span{strings.ToUpper(title), strong}, span{"  " + note, faint})
}
