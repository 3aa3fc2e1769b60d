package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"remit"
)

// The caps of a table, which is read in a minute.
const (
	tableSystems    = 5
	tableGaps       = 6
	tableIdentities = 8
	tableFindings   = 4 // of one identity
	tablePolicies   = 6
	tableMild       = 3 // identities, where the rest has nothing of high or critical

	// Verbose lifts the caps to what memory bounds.
	verboseIdentities = 200
	verboseFindings   = 100
)

// WriteTable writes what a user reads first: what was looked at and what could
// not be, who is at the greatest risk and why, and what to do next.
func WriteTable(w io.Writer, src Source, o TableOptions) error {
	limit, each := tableIdentities, tableFindings
	if o.Verbose {
		limit, each = verboseIdentities, verboseFindings
	}
	t := newTally(src.Header().Generated)
	if err := t.all(src); err != nil {
		return err
	}
	summary := t.finish()
	worst, err := t.worst(src, limit, each)
	if err != nil {
		return err
	}
	p := newPrinter(w, o)
	p.overview(t, &summary)
	p.gaps(t, o.Verbose)
	p.severities(&summary)
	if !o.Verbose {
		worst = grave(worst)
	}
	p.worst(worst, len(t.scores), o)
	p.policies(&summary, o.Verbose)
	p.next(worst, o)
	return p.close()
}

// overview is one line a system.
func (p *printer) overview(t *tally, summary *Summary) {
	for i, s := range summary.Systems {
		if i == tableSystems && len(summary.Systems) > tableSystems+1 {
			p.line(span{fmt.Sprintf("and %s more systems", number(len(summary.Systems)-i)), faint})
			break
		}
		system := &t.systems[i]
		machines := count(s.Machines, "machine", "machines")
		if s.Unowned > 0 {
			machines += ", " + number(s.Unowned) + " unowned"
		}
		credentials := count(s.Credentials, "credential", "credentials")
		switch {
		case s.NeverExpire == 1:
			credentials += " (1 never expires)"
		case s.NeverExpire > 1:
			credentials += " (" + number(s.NeverExpire) + " never expire)"
		}
		p.items(0, " · ",
			span{cmp.Or(system.Name, string(system.ID)), strong},
			span{platform(system), normal},
			span{count(s.Identities, "identity", "identities") + " (" + machines + ")", normal},
			span{credentials, normal},
			span{count(s.Grants, "grant", "grants"), normal},
		)
		if system.Recorded {
			p.para(span{"RECORDED ", yellow}, 9,
				"This was read from a recording. It shows the system as it was on "+minute(system.Observed)+", not as it is now.", normal, 0)
		}
	}
	if len(summary.Systems) == 0 {
		p.line(span{"No system was read.", normal})
	}
}

// gaps says what could not be read: silence about it would look like safety.
func (p *printer) gaps(t *tally, verbose bool) {
	total := 0
	for _, s := range t.systems {
		total += len(s.Gaps)
	}
	if total == 0 {
		return
	}
	p.heading("not read", "what lies there is unknown, not absent")
	shown := 0
	for _, s := range t.systems {
		for _, g := range s.Gaps {
			if shown == tableGaps && total > tableGaps+1 && !verbose {
				p.line(span{fmt.Sprintf("  and %s more", number(total-shown)), faint})
				return
			}
			section := g.Section
			if len(t.systems) > 1 {
				section = s.Name + " " + section
			}
			p.para(span{"  " + section, yellow}, 18, g.Reason, normal, 2)
			if g.Need != "" {
				p.para(span{"", normal}, 18, "needs "+g.Need, faint, 2)
			}
			shown++
		}
	}
}

func (p *printer) severities(summary *Summary) {
	f := &summary.Findings
	p.blank()
	if f.Standing == 0 {
		text := "No findings."
		if f.Total > 0 {
			text = "No open findings."
		}
		p.line(span{text, green})
	} else {
		pieces := severities(func(s remit.Severity) int { return f.BySeverity[s] })
		pieces[0].text = count(f.Standing, "finding", "findings") + ": " + pieces[0].text
		p.items(0, " · ", pieces...)
	}
	if hidden := f.Total - f.Standing; hidden > 0 {
		p.line(span{fmt.Sprintf("Not shown: %s suppressed, %s resolved.",
			number(f.ByState[remit.Suppressed]), number(f.ByState[remit.Resolved])), faint})
	}
}

// suspect is an identity, or another subject where no identity is known, with
// the worst of its findings.
type suspect struct {
	id       remit.ID
	subject  remit.Subject   // as the first finding names it
	identity *remit.Identity // nil when the source does not have it
	score    score
	findings []remit.Finding
}

func (s *suspect) ref() remit.Ref {
	if s.identity != nil {
		return s.identity.Ref
	}
	return s.subject.Ref
}

// worst finds the limit worst identities with at most each of their findings.
func (t *tally) worst(src Source, limit, each int) ([]*suspect, error) {
	top := best[*suspect]{limit: limit, compare: func(a, b *suspect) int {
		return cmp.Or(a.score.compare(&b.score), cmp.Compare(a.id, b.id))
	}}
	for id, s := range t.scores {
		top.add(&suspect{id: id, score: *s})
	}
	if len(top.kept) == 0 {
		return nil, nil
	}
	by := make(map[remit.ID]*suspect, len(top.kept))
	findings := make(map[remit.ID]*best[remit.Finding], len(top.kept))
	for _, s := range top.kept {
		by[s.id] = s
		findings[s.id] = &best[remit.Finding]{limit: each, compare: worstFirst}
	}
	for f, err := range src.Findings() {
		if err != nil {
			return nil, err
		}
		id := concerns(&f)
		if list := findings[id]; list != nil && standing(&f) {
			list.add(f)
			if by[id].subject.ID == "" || f.Subject.ID == id {
				by[id].subject = f.Subject
			}
		}
	}
	for i, err := range src.Identities() {
		if err != nil {
			return nil, err
		}
		if s := by[i.ID]; s != nil {
			s.identity = &i
		}
	}
	for _, s := range top.kept {
		s.findings = findings[s.id].kept
	}
	slices.SortStableFunc(top.kept, func(a, b *suspect) int {
		return cmp.Or(a.score.compare(&b.score), cmp.Compare(a.ref().Namespace, b.ref().Namespace), cmp.Compare(a.ref().Name, b.ref().Name))
	})
	return top.kept, nil
}

// grave leaves out those whose findings are all below high, once a few are
// shown: the policies sum them up, and one by one they would bury the worst.
func grave(worst []*suspect) []*suspect {
	for i, s := range worst {
		if i >= tableMild && s.score[remit.Critical.Rank()] == 0 && s.score[remit.High.Rank()] == 0 {
			return worst[:i]
		}
	}
	return worst
}

func (p *printer) worst(worst []*suspect, all int, o TableOptions) {
	if len(worst) == 0 {
		return
	}
	note := ""
	if len(worst) < all {
		note = fmt.Sprintf("%d of %s with findings", len(worst), number(all))
	}
	p.heading("worst first", note)
	for i, s := range worst {
		if i > 0 {
			p.blank()
		}
		p.suspect(s)
		for _, f := range s.findings {
			p.finding(&f, 2, o.Verbose)
		}
		if more := s.score.total() - len(s.findings); more > 0 {
			p.line(span{strings.Repeat(" ", 12) + fmt.Sprintf("and %s more", number(more)), faint})
		}
	}
	if more := all - len(worst); more > 0 {
		p.blank()
		p.line(span{fmt.Sprintf("and %s more with findings", number(more)), faint})
	}
}

// suspect writes the line above an identity's findings.
func (p *printer) suspect(s *suspect) {
	pieces := []span{{place(s.ref()), strong}}
	if s.identity == nil {
		word := string(s.subject.Record)
		if s.subject.Kind != "" {
			word += " (" + s.subject.Kind + ")"
		}
		pieces = append(pieces, span{word, normal})
	} else {
		pieces = append(pieces, span{typeWord(s.identity), normal}, span{s.identity.Environment, normal})
		if s.identity.Status != remit.Active && s.identity.Status != "" {
			pieces = append(pieces, span{string(s.identity.Status), yellow})
		}
		owner, worry := ownerWord(s.identity)
		if worry {
			pieces = append(pieces, span{owner, yellow})
		} else {
			pieces = append(pieces, span{owner, normal})
		}
	}
	p.items(0, " · ", pieces...)
}

// finding writes one finding beneath its identity; in full with why and remedy.
func (p *printer) finding(f *remit.Finding, indent int, full bool) {
	text := cmp.Or(f.Message, f.Title)
	most := 3
	if full {
		most = 0
	}
	column := indent + 10
	p.para(span{strings.Repeat(" ", indent) + strings.ToUpper(string(f.Severity)), severityStyle(f.Severity)}, column, text, normal, most)
	if full {
		p.why(f, column)
	}
}

// why writes what a finding rests on and how it is mended.
func (p *printer) why(f *remit.Finding, indent int) {
	margin := strings.Repeat(" ", indent)
	name := 0
	for _, fact := range f.Evidence {
		name = max(name, columns(Visible(fact.Name)))
	}
	name = min(name, 20)
	for _, fact := range f.Evidence {
		p.para(span{margin + cut(Visible(fact.Name), name), faint}, indent+name+2, fact.Value, normal, 4)
	}
	if f.Remedy != "" {
		p.para(span{margin + "Remedy", green}, indent+8, sentence(f.Remedy), normal, 0)
	}
	p.para(span{margin, normal}, indent, strings.Join(append([]string{f.Policy}, append(f.Risks[:len(f.Risks):len(f.Risks)], f.Controls...)...), " · "), faint, 0)
}

// policies lists the rules that found the most of the worst.
func (p *printer) policies(summary *Summary, verbose bool) {
	list := summary.Findings.Policies
	if len(list) == 0 {
		return
	}
	p.heading("by policy", "")
	shown := len(list)
	if !verbose && shown > tablePolicies+1 {
		shown = tablePolicies
	}
	digits, title, name := 1, 0, 0
	for _, s := range list[:shown] {
		digits = max(digits, len(number(s.Count)))
		title = max(title, columns(Visible(s.Title)))
		name = max(name, columns(Visible(s.Policy)))
	}
	title = min(title, max(p.width-2-8-2-digits-2-2-name, 24))
	for i, s := range list {
		if i == shown {
			rest := 0
			for _, more := range list[i:] {
				rest += more.Count
			}
			p.line(span{fmt.Sprintf("  and %d more policies with %s", len(list)-i, count(rest, "finding", "findings")), faint})
			break
		}
		p.line(
			span{"  " + pad(strings.ToUpper(string(s.Severity)), 8), severityStyle(s.Severity)},
			span{fmt.Sprintf("  %*s  ", digits, number(s.Count)), normal},
			span{pad(Visible(cmp.Or(s.Title, s.Policy)), title), normal},
			span{"  " + s.Policy, faint},
		)
	}
}

// next tells which commands lead on from here.
func (p *printer) next(worst []*suspect, o TableOptions) {
	type step struct{ command, why string }
	var steps []step
	for _, s := range worst {
		if s.identity != nil {
			steps = append(steps, step{"remit explain " + argument(s.identity.Ref, s.id), "all that is known of the worst"})
			break
		}
	}
	if len(worst) > 0 && !o.Verbose {
		steps = append(steps, step{cmp.Or(o.Command, "remit scan") + " --verbose", "evidence and remedies"})
	}
	steps = append(steps, step{cmp.Or(o.Command, "remit scan") + " --format html > report.html", "to read and to print"})

	p.heading("next", "")
	longest := 0
	for _, s := range steps {
		longest = max(longest, columns(Visible(s.command)))
	}
	for _, s := range steps {
		// A command is never cut: half of one would do something else.
		p.w.WriteString("  ")
		p.paint(Visible(s.command), cyan)
		if 2+longest+2+len(s.why) <= p.width {
			p.w.WriteString(strings.Repeat(" ", longest-columns(Visible(s.command))+2))
			p.paint(s.why, faint)
		}
		p.blank()
	}
}
