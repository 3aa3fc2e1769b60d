package report

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	_ "embed" // the parts of the page
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"iter"
	"strings"

	"remit"
)

//go:embed page/report.css
var pageCSS string

//go:embed page/report.js
var pageJS string

//go:embed page/report.html
var pageHTML string

var page = template.Must(template.New("page").Parse(pageHTML))

// The caps of the page, which is read and printed. The JSON document has all.
const (
	htmlRows = 200 // of each table of the inventory
	htmlGaps = 50
	htmlTop  = 15 // worst identities
)

// WriteHTML writes one page that needs nothing beside itself: it asks for no
// other file, its content security policy forbids it to, and the styles and the
// script it allows are those within, by their hashes. Every finding that stands
// is in it, with its evidence and remedy, the worst first; of the inventory only
// the first rows are. It reads and filters without its script.
func WriteHTML(w io.Writer, src Source) error {
	t := newTally(src.Header().Generated)
	if err := t.all(src); err != nil {
		return err
	}
	worst, err := t.worst(src, htmlTop, 1)
	if err != nil {
		return err
	}
	worst = grave(worst)
	h := &htmlWriter{w: bufio.NewWriterSize(w, 64<<10), t: t}
	h.head(src.Header(), worst)
	err = eachGroup(src, t.sorted(), func(g *group, findings iter.Seq2[remit.Finding, error]) error {
		h.group(g)
		for f, err := range findings {
			if err != nil {
				return err
			}
			h.finding(&f, g)
		}
		h.raw("</section>\n")
		return h.err
	})
	if err != nil {
		return err
	}
	h.raw("</section>\n")
	if err := h.inventory(src); err != nil {
		return err
	}
	h.raw("<footer>Written by Remit. Where nothing is said of an owner, an end or a use, it is not known.</footer>\n")
	h.raw("<script>" + pageJS + "</script>\n</body>\n</html>\n")
	if h.err != nil {
		return h.err
	}
	return h.w.Flush()
}

// htmlWriter executes the page part by part. Every text of a record becomes
// [Visible] when it is put into one of the structs below, and is escaped by
// html/template when it is written.
type htmlWriter struct {
	w   *bufio.Writer
	t   *tally
	err error
}

func (h *htmlWriter) raw(s string) {
	if h.err == nil {
		_, h.err = h.w.WriteString(s)
	}
}

func (h *htmlWriter) part(name string, data any) {
	if h.err == nil {
		h.err = page.ExecuteTemplate(h.w, name, data)
	}
}

type (
	pageBody struct {
		Title, Generated, Version string
		Systems                   []pageSystem
		Recorded                  []pageSystem
		Gaps                      []pageGap
		MoreGaps                  int
		Numbers                   []pageNumber
		Sections                  []pageSection
		Worst                     []pageSuspect
		MoreWorst                 int
		Policies                  []pageGroup
		Filters                   []pageBadge
		Nothing, Hidden           string
	}
	pageSystem  struct{ Name, Platform, Identities, Credentials, Grants, Observed string }
	pageGap     struct{ System, Section, Reason, Need string }
	pageSection struct{ ID, Title string }
	pageBadge   struct{ Class, Text string }
	pageNumber  struct {
		Value, Label string
		Worry        bool
	}
	pageSuspect struct {
		Name, Type, Environment, Owner, Message string
		OwnerWorry                              bool
		Counts                                  []pageBadge
	}
	pageGroup struct {
		ID, Class, Severity, Title, Policy, Count, Findings, Remedy string
		Risks, Controls                                             []string
	}
	pageFinding struct {
		ID, Kind, Name, System, State, Message, Remedy string
		Facts                                          []remit.Fact
		Related                                        []string
	}
	pageTable struct {
		ID, Title, Note string
		Columns         []string
	}
	pageCell struct {
		Label, Text string
		Name, Worry bool
	}
)

func integrity(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// severityClass is a severity as a class of the page: a known word, whatever a
// document says.
func severityClass(s remit.Severity) string {
	if s.Rank() == 0 {
		return string(remit.Info)
	}
	return string(s)
}

func (h *htmlWriter) head(header Header, worst []*suspect) {
	summary := h.t.finish()
	title := "Access report"
	if len(h.t.systems) == 1 {
		title += ": " + Visible(h.t.systems[0].Name)
	}
	// Void elements are closed as in XML, which HTML allows, so that a test can
	// hold the page to the stricter of the two syntaxes.
	h.raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\" />\n" +
		`<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src ` + integrity(pageCSS) +
		`; script-src ` + integrity(pageJS) + `; base-uri 'none'; form-action 'none'" />` + "\n" +
		`<meta name="viewport" content="width=device-width, initial-scale=1" />` + "\n" +
		`<meta name="referrer" content="no-referrer" />` + "\n" +
		"<title>" + template.HTMLEscapeString(title) + "</title>\n<style>" + pageCSS + "</style>\n</head>\n<body>\n")

	body := pageBody{Title: title, Generated: minute(header.Generated), Version: Visible(header.Version)}
	for i := range h.t.systems {
		s, c := &h.t.systems[i], &summary.Systems[i]
		one := pageSystem{
			Name: Visible(cmp.Or(s.Name, string(s.ID))), Platform: Visible(platform(s)), Observed: minute(s.Observed),
			Identities:  count(c.Identities, "identity", "identities"),
			Credentials: count(c.Credentials, "credential", "credentials"),
			Grants:      count(c.Grants, "grant", "grants"),
		}
		body.Systems = append(body.Systems, one)
		if s.Recorded {
			body.Recorded = append(body.Recorded, one)
		}
		for _, g := range s.Gaps {
			if len(body.Gaps) == htmlGaps {
				body.MoreGaps++
				continue
			}
			body.Gaps = append(body.Gaps, pageGap{one.Name, Visible(g.Section), Visible(g.Reason), Visible(g.Need)})
		}
	}
	body.Numbers = []pageNumber{
		{number(summary.Findings.Standing), nouns(summary.Findings.Standing, "open finding", "open findings"), false},
		{number(summary.Identities.Total), nouns(summary.Identities.Total, "identity", "identities"), false},
		{number(summary.Identities.Machines), nouns(summary.Identities.Machines, "machine", "machines"), false},
		{number(summary.Identities.Unowned), "without an owner", summary.Identities.Unowned > 0},
		{number(summary.Credentials.Total), nouns(summary.Credentials.Total, "credential", "credentials"), false},
		{number(summary.Credentials.NeverExpire), nouns(summary.Credentials.NeverExpire, "never expires", "never expire"), summary.Credentials.NeverExpire > 0},
	}
	if len(worst) > 0 {
		body.Sections = append(body.Sections, pageSection{"worst", "Greatest risk"}, pageSection{"policies", "What was found"})
	}
	body.Sections = append(body.Sections, pageSection{"findings", "Findings"}, pageSection{"identities", "Identities"},
		pageSection{"credentials", "Credentials"}, pageSection{"grants", "Grants"})
	for _, s := range worst {
		body.Worst = append(body.Worst, suspectRow(s))
	}
	body.MoreWorst = len(h.t.scores) - len(worst)
	for _, g := range h.t.sorted() {
		body.Policies = append(body.Policies, groupOf(g))
	}
	for i := len(remit.Severities) - 1; i >= 0; i-- {
		s := remit.Severities[i]
		if n := summary.Findings.BySeverity[s]; n > 0 {
			body.Filters = append(body.Filters, pageBadge{string(s), number(n) + " " + string(s)})
		}
	}
	body.Nothing = "Nothing was found."
	if len(body.Gaps) > 0 {
		body.Nothing = "Nothing was found in what could be read."
	}
	if summary.Findings.Total > summary.Findings.Standing {
		body.Hidden = fmt.Sprintf("Not shown: %s suppressed, %s resolved.",
			number(summary.Findings.ByState[remit.Suppressed]), number(summary.Findings.ByState[remit.Resolved]))
	}
	h.part("body", body)
}

func nouns(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func suspectRow(s *suspect) pageSuspect {
	row := pageSuspect{Name: Visible(place(s.ref())), Type: Visible(cmp.Or(s.subject.Kind, string(s.subject.Record)))}
	if s.identity != nil {
		owner, worry := ownerWord(s.identity)
		row.Type = Visible(typeWord(s.identity))
		row.Environment = Visible(s.identity.Environment)
		row.Owner, row.OwnerWorry = Visible(strings.TrimPrefix(owner, "owner ")), worry
	}
	for _, f := range s.findings {
		row.Message = Visible(cmp.Or(f.Message, f.Title))
	}
	for _, piece := range severities(func(severity remit.Severity) int { return int(s.score[severity.Rank()]) }) {
		_, class, _ := strings.Cut(piece.text, " ")
		row.Counts = append(row.Counts, pageBadge{class, piece.text})
	}
	return row
}

// groupOf is what a group of findings shows of itself, here and in the list of
// policies that leads to it.
func groupOf(g *group) pageGroup {
	one := pageGroup{
		// An anchor of letters that are safe anywhere, whatever the policy is called.
		ID:       string(remit.FindingID(g.policy, remit.ID(g.severity))),
		Class:    severityClass(g.severity),
		Severity: Visible(string(g.severity)),
		Title:    cmp.Or(sentence(g.title), Visible(g.policy)),
		Policy:   Visible(g.policy),
		Count:    number(g.count),
		Findings: count(g.count, "finding", "findings"),
	}
	if g.oneRemedy {
		one.Remedy = sentence(g.remedy)
	}
	for _, r := range g.risks {
		one.Risks = append(one.Risks, Visible(r))
	}
	for _, c := range g.controls {
		one.Controls = append(one.Controls, Visible(c))
	}
	return one
}

func (h *htmlWriter) group(g *group) { h.part("group", groupOf(g)) }

func (h *htmlWriter) finding(f *remit.Finding, g *group) {
	one := pageFinding{
		ID:      Visible(string(f.ID)),
		Kind:    Visible(cmp.Or(f.Subject.Kind, string(f.Subject.Record))),
		Name:    Visible(place(f.Subject.Ref)),
		Message: Visible(cmp.Or(f.Message, f.Title)),
	}
	if len(h.t.systems) > 1 {
		one.System = Visible(h.t.systemName(f.System))
	}
	if s := stateOf(f); s != remit.Open {
		one.State = Visible(string(s))
	}
	if !g.oneRemedy {
		one.Remedy = sentence(f.Remedy)
	}
	for _, fact := range f.Evidence {
		one.Facts = append(one.Facts, remit.Fact{Name: Visible(fact.Name), Value: Visible(fact.Value)})
	}
	for _, r := range f.Related {
		one.Related = append(one.Related, Visible(ref(r.Ref)))
	}
	h.part("finding", one)
}

// inventory writes the first rows of each table: those that a reader looks for.
func (h *htmlWriter) inventory(src Source) error {
	t := h.t
	err := writeRows(h, "identities", "Identities", "with the greatest risk first", src.Identities(),
		func(a, b remit.Identity) int {
			return cmp.Or(t.scoreOf(a.ID).compare(t.scoreOf(b.ID)), compareBool(!unowned(&a), !unowned(&b)),
				compareBool(a.BuiltIn, b.BuiltIn), compareRecord(&a.Record, &b.Record))
		},
		[]string{"Identity", "Type", "Environment", "Owner", "Status", "Last active"},
		func(i *remit.Identity) []pageCell {
			owner, worry := ownerWord(i)
			return []pageCell{
				{Text: place(i.Ref), Name: true},
				{Text: typeWord(i)},
				{Text: i.Environment},
				{Text: strings.TrimPrefix(owner, "owner "), Worry: worry},
				{Text: string(i.Status)},
				{Text: day(i.LastActive)},
			}
		})
	if err != nil {
		return err
	}
	err = writeRows(h, "credentials", "Credentials", "with those that never expire first", src.Credentials(),
		func(a, b remit.Credential) int {
			return cmp.Or(compareBool(!a.NeverExpires, !b.NeverExpires), compareBool(len(a.Exposure) == 0, len(b.Exposure) == 0),
				compareRecord(&a.Record, &b.Record), cmp.Compare(a.Key, b.Key))
		},
		[]string{"Credential", "Type", "Identity", "Until", "Last used"},
		func(c *remit.Credential) []pageCell {
			until, worry := ending(c, t.now)
			return []pageCell{
				{Text: lies(c), Name: true},
				{Text: string(c.Type)},
				{Text: cmp.Or(place(c.Holder), c.Provider)},
				{Text: until, Worry: worry},
				{Text: day(c.LastUsed)},
			}
		})
	if err != nil {
		return err
	}
	return writeRows(h, "grants", "Grants", "with those that hold everywhere first", src.Grants(),
		func(a, b remit.Grant) int {
			return cmp.Or(compareBool(a.BuiltIn, b.BuiltIn), compareBool(a.Scope != "", b.Scope != ""), compareRecord(&a.Record, &b.Record))
		},
		[]string{"Identity", "Gets", "Where", "By", "Status"},
		func(g *remit.Grant) []pageCell {
			return []pageCell{
				{Text: ref(g.Subject), Name: true},
				{Text: gives(g)},
				{Text: where(g.Scope)},
				{Text: ref(g.Ref)},
				{Text: string(g.Status), Worry: g.Status == remit.Dangling},
			}
		})
}

// scoreOf is the score of an identity, also of one without findings.
func (t *tally) scoreOf(id remit.ID) *score {
	if s := t.scores[id]; s != nil {
		return s
	}
	return &score{}
}

func compareRecord(a, b *remit.Record) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID))
}

func writeRows[T any](h *htmlWriter, id, title, order string, records iter.Seq2[T, error], compare func(a, b T) int, columns []string, cells func(*T) []pageCell) error {
	first := best[T]{limit: htmlRows, compare: compare}
	total := 0
	for r, err := range records {
		if err != nil {
			return err
		}
		total++
		first.add(r)
	}
	table := pageTable{ID: id, Title: title, Columns: columns}
	switch {
	case total == 0:
		table.Note = "None."
		table.Columns = nil
	case total > len(first.kept):
		table.Note = fmt.Sprintf("The first %s of %s, %s. The JSON document has all of them.", number(len(first.kept)), number(total), order)
	}
	h.part("table", table)
	for _, r := range first.kept {
		row := cells(&r)
		for i := range row {
			row[i].Label = columns[i]
			row[i].Text = Visible(row[i].Text)
		}
		h.part("row", row)
	}
	h.raw("</tbody></table></section>\n")
	return h.err
}
