package report

import (
	"cmp"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"remit"
)

// WriteIdentities writes a list of identities, one a line.
func WriteIdentities(w io.Writer, identities iter.Seq2[remit.Identity, error], o TableOptions) error {
	return writeList(w, identities, o, "identity", "identities", []listColumn[remit.Identity]{
		{"NAME", 26, func(i *remit.Identity) span { return span{place(i.Ref), normal} }},
		{"TYPE", 21, func(i *remit.Identity) span { return span{typeWord(i), normal} }},
		{"OWNER", 14, func(i *remit.Identity) span {
			word, worry := ownerWord(i)
			if worry {
				return span{strings.TrimPrefix(word, "owner "), yellow}
			}
			return span{cmp.Or(strings.TrimPrefix(word, "owner "), "-"), normal}
		}},
		{"ENVIRONMENT", 11, func(i *remit.Identity) span { return span{cmp.Or(i.Environment, "-"), normal} }},
		{"STATUS", 7, func(i *remit.Identity) span { return statusSpan(i.Status) }},
		{"LAST ACTIVE", 11, func(i *remit.Identity) span { return span{cmp.Or(day(i.LastActive), "not known"), normal} }},
	})
}

// WriteCredentials writes a list of credentials, one a line. Ages are told against
// now.
func WriteCredentials(w io.Writer, credentials iter.Seq2[remit.Credential, error], now time.Time, o TableOptions) error {
	return writeList(w, credentials, o, "credential", "credentials", []listColumn[remit.Credential]{
		{"CREDENTIAL", 28, func(c *remit.Credential) span { return span{lies(c), normal} }},
		{"TYPE", 12, func(c *remit.Credential) span { return span{string(c.Type), normal} }},
		{"IDENTITY", 14, func(c *remit.Credential) span { return span{cmp.Or(place(c.Holder), c.Provider, "-"), normal} }},
		{"UNTIL", 15, func(c *remit.Credential) span {
			word, worry := ending(c, now)
			word, _, _ = strings.Cut(strings.TrimPrefix(word, "expires "), " (")
			if worry {
				return span{word, yellow}
			}
			return span{word, normal}
		}},
		{"ROTATED", 10, func(c *remit.Credential) span {
			return span{cmp.Or(day(c.Rotated), day(c.Issued), day(c.Created), "not known"), normal}
		}},
		{"LAST USED", 10, func(c *remit.Credential) span { return span{cmp.Or(day(c.LastUsed), "not known"), normal} }},
	})
}

// lies says where a credential is: the object that holds it and its key there.
func lies(c *remit.Credential) string {
	text := ref(c.Ref)
	if c.Key != "" {
		text += " [" + c.Key + "]"
	}
	return text
}

// WriteGrants writes a list of grants, one a line.
func WriteGrants(w io.Writer, grants iter.Seq2[remit.Grant, error], o TableOptions) error {
	return writeList(w, grants, o, "grant", "grants", []listColumn[remit.Grant]{
		{"IDENTITY", 26, func(g *remit.Grant) span { return span{ref(g.Subject), normal} }},
		{"GETS", 22, func(g *remit.Grant) span { return span{gives(g), normal} }},
		{"WHERE", 12, func(g *remit.Grant) span { return span{where(g.Scope), normal} }},
		{"BY", 20, func(g *remit.Grant) span { return span{ref(g.Ref), normal} }},
		{"STATUS", 8, func(g *remit.Grant) span { return statusSpan(g.Status) }},
	})
}

// gives says what a grant gives: its role, or its permissions.
func gives(g *remit.Grant) string {
	if g.RoleRef != (remit.Ref{}) {
		return ref(g.RoleRef)
	}
	return shortList(permissionLines(g.Permissions), 3)
}

// where says in which scope something holds.
func where(scope string) string {
	if scope == "" {
		return "everywhere"
	}
	return scope
}

func statusSpan(s remit.Status) span {
	switch s {
	case remit.Active:
		return span{string(s), normal}
	case "":
		return span{"-", normal}
	case remit.Absent, remit.Dangling:
		return span{string(s), yellow}
	}
	return span{string(s), faint}
}

// WriteFindings writes a list of findings in the order given, one a line, or, when
// verbose, each with its evidence and remedy.
func WriteFindings(w io.Writer, findings iter.Seq2[remit.Finding, error], o TableOptions) error {
	if o.Verbose {
		return writeFullFindings(w, findings, o)
	}
	return writeList(w, findings, o, "finding", "findings", []listColumn[remit.Finding]{
		{"SEVERITY", 8, func(f *remit.Finding) span {
			return span{strings.ToUpper(string(f.Severity)), severityStyle(f.Severity)}
		}},
		{"SUBJECT", 30, func(f *remit.Finding) span { return span{ref(f.Subject.Ref), normal} }},
		// The title, as the message names the subject again.
		{"WHAT IS WRONG", 32, func(f *remit.Finding) span {
			text := cmp.Or(f.Title, f.Message)
			if s := stateOf(f); s != remit.Open {
				text = string(s) + ": " + text
			}
			return span{text, normal}
		}},
		{"POLICY", 24, func(f *remit.Finding) span { return span{f.Policy, faint} }},
	})
}

func writeFullFindings(w io.Writer, findings iter.Seq2[remit.Finding, error], o TableOptions) error {
	p := newPrinter(w, o)
	n := 0
	for f, err := range findings {
		if err != nil {
			return err
		}
		if n > 0 {
			p.blank()
		}
		n++
		pieces := []span{{ref(f.Subject.Ref), strong}, {string(f.Subject.Record), normal}, {string(f.ID), faint}}
		if s := stateOf(&f); s != remit.Open {
			pieces = append(pieces, span{string(s), yellow})
		}
		p.items(0, " · ", pieces...)
		p.finding(&f, 2, true)
	}
	if n > 0 {
		p.blank()
	}
	p.line(span{count(n, "finding", "findings"), faint})
	return p.close()
}

// listColumn is one column of a list: its heading, how many columns it wants at
// least, and what stands in it.
type listColumn[T any] struct {
	name string
	want int
	cell func(*T) span
}

// unlimited is a width that nothing reaches.
const unlimited = 1 << 30

// listSample is how many records are looked at before the columns are laid out.
const listSample = 500

// writeList lays out the columns by the first records and then writes record by
// record, so that a list of any length takes no memory.
func writeList[T any](w io.Writer, records iter.Seq2[T, error], o TableOptions, one, many string, list []listColumn[T]) error {
	p := newPrinter(w, o)
	if o.Width == 0 {
		p.width = unlimited
	}
	next, stop := iter.Pull2(records)
	defer stop()
	var sample [][]span
	read := func() ([]span, error) {
		r, err, ok := next()
		if err != nil || !ok {
			return nil, err
		}
		row := make([]span, len(list))
		for i, c := range list {
			row[i] = c.cell(&r)
			row[i].text = Visible(row[i].text)
		}
		return row, nil
	}
	for len(sample) < listSample {
		row, err := read()
		if err != nil {
			return err
		}
		if row == nil {
			break
		}
		sample = append(sample, row)
	}
	if len(sample) == 0 {
		p.line(span{"No " + many + ".", normal})
		return p.close()
	}
	widths := layout(list, sample, p.width)
	head := make([]span, len(list))
	for i, c := range list {
		head[i] = span{c.name, faint}
	}
	p.row(head, widths)
	n := 0
	for _, row := range sample {
		p.row(row, widths)
		n++
	}
	sample = nil
	for {
		row, err := read()
		if err != nil {
			return err
		}
		if row == nil {
			break
		}
		p.row(row, widths)
		n++
	}
	p.blank()
	p.line(span{count(n, one, many), faint})
	return p.close()
}

// layout shares the width among the columns: each gets what it holds while that
// is no more than it wants, and what is then left goes to those cut the most.
func layout[T any](list []listColumn[T], sample [][]span, width int) []int {
	needs := make([]int, len(list))
	for i, c := range list {
		needs[i] = len(c.name)
		for _, row := range sample {
			needs[i] = max(needs[i], columns(row[i].text))
		}
	}
	widths := make([]int, len(list))
	left := width - 2*(len(list)-1)
	for i, c := range list {
		widths[i] = min(needs[i], max(c.want, 4))
		left -= widths[i]
	}
	for left < 0 { // too narrow: the widest columns give way
		widest := 0
		for i := range widths {
			if widths[i] > widths[widest] {
				widest = i
			}
		}
		if widths[widest] <= 4 {
			break
		}
		widths[widest]--
		left++
	}
	for left > 0 {
		most, at := 0, -1
		for i := range widths {
			if short := needs[i] - widths[i]; short > most {
				most, at = short, i
			}
		}
		if at < 0 {
			break
		}
		widths[at]++
		left--
	}
	return widths
}

// row writes the cells of one line, each in its column. A cell wider than what
// the sample showed is cut, or pushes the rest of its line aside where the width
// is unlimited.
func (p *printer) row(cells []span, widths []int) {
	left := p.width
	for i, c := range cells {
		text := c.text
		if p.width < unlimited {
			text = cut(text, min(widths[i], left))
		}
		p.paint(text, c.style)
		if i == len(cells)-1 {
			break
		}
		gap := max(widths[i]-columns(text), 0) + 2
		left -= widths[i] + 2
		if left <= 0 {
			break
		}
		fmt.Fprintf(p.w, "%*s", gap, "")
	}
	p.blank()
}
