package report

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"remit"
)

// LifecycleCount is how many credentials are in each state of their life.
type LifecycleCount map[remit.LifecycleState]int

// WriteStandings writes where credentials stand in their life, one a line, with how
// many are in each state above. When verbose, what each is measured by follows it.
func WriteStandings(w io.Writer, counts LifecycleCount, total int, standings iter.Seq2[remit.Standing, error], o TableOptions) error {
	p := newPrinter(w, o)
	pieces := []span{{count(total, "credential", "credentials"), strong}}
	for _, s := range remit.LifecycleStates {
		if n := counts[s]; n > 0 {
			pieces = append(pieces, span{number(n) + " " + lifecycleWords[s], stateSpan(s).style})
		}
	}
	p.items(0, " · ", pieces...)
	if total == 0 {
		return p.close()
	}
	p.blank()
	if err := p.close(); err != nil {
		return err
	}
	if o.Verbose {
		return writeFullStandings(w, standings, o)
	}
	return writeList(w, standings, o, "credential", "credentials", []listColumn[remit.Standing]{
		{"CREDENTIAL", 28, func(s *remit.Standing) span { return span{standsFor(s), normal} }},
		{"OWNER", 14, func(s *remit.Standing) span {
			switch {
			case s.Owner == "" && s.Identity == "":
				return span{"not known", faint}
			case s.Owner == "":
				return span{"nobody", yellow}
			}
			return span{s.Owner, normal}
		}},
		{"AGE", 9, func(s *remit.Standing) span { return span{cmp.Or(length(s.Age), "not known"), normal} }},
		{"UNUSED", 9, func(s *remit.Standing) span {
			if s.LastUsed.IsZero() || s.UsesKnown.IsZero() {
				return span{"not known", faint}
			}
			return span{cmp.Or(length(s.Idle), "in use"), normal}
		}},
		{"STATE", 9, func(s *remit.Standing) span { return stateSpan(s.State) }},
		{"NEXT", 26, func(s *remit.Standing) span {
			next := nextStep(s)
			if plan := planSpan(s); plan.text != "" {
				next.text += " (" + plan.text + ")"
			}
			return next
		}},
		{"POLICY", 12, func(s *remit.Standing) span { return span{cmp.Or(s.Policy, "-"), faint} }},
	})
}

// standsFor is how a standing's credential is named.
func standsFor(s *remit.Standing) string {
	return lies(&remit.Credential{Record: remit.Record{Ref: s.Ref}, Key: s.Key})
}

func length(seconds int64) string {
	if seconds <= 0 {
		return ""
	}
	return duration(time.Duration(seconds) * time.Second)
}

// writeFullStandings writes each standing with what the policy demands of it.
func writeFullStandings(w io.Writer, standings iter.Seq2[remit.Standing, error], o TableOptions) error {
	p := newPrinter(w, o)
	n := 0
	for s, err := range standings {
		if err != nil {
			return err
		}
		if n > 0 {
			p.blank()
		}
		n++
		next := nextStep(&s)
		p.items(0, " · ", span{standsFor(&s), strong}, span{string(s.Type), normal}, stateSpan(s.State), next, planSpan(&s))
		var facts []span
		add := func(text string, t time.Time) {
			if !t.IsZero() {
				facts = append(facts, span{text + " " + since(t, s.At), faint})
			}
		}
		add("in use since", s.Start)
		add("last used", s.LastUsed)
		add("expires", s.Expires)
		if s.NeverExpires {
			facts = append(facts, span{"never expires", yellow})
		}
		who := "authenticates " + ref(s.Holder)
		if s.Holder == (remit.Ref{}) {
			who = "whom it authenticates is not known"
		}
		facts = append(facts, span{who, faint}, span{"owner " + cmp.Or(s.Owner, "nobody"), faint})
		p.items(2, " · ", facts...)
		for _, d := range s.Demands {
			if d.Demand == "expires" && d.State == remit.LifecycleFine {
				continue
			}
			words := s.Policy + ": it " + d.Words
			if !d.Due.IsZero() {
				words += ", due " + since(d.Due, s.At)
			}
			if !d.Ends.IsZero() {
				words += ", grace until " + day(d.Ends)
			}
			state := stateSpan(d.State)
			p.para(span{"  " + state.text, state.style}, 12, words, normal, 3)
		}
	}
	if n > 0 {
		p.blank()
	}
	p.line(span{count(n, "credential", "credentials"), faint})
	return p.close()
}

var lifecycleWords = map[remit.LifecycleState]string{
	remit.LifecycleOverdue:  "overdue",
	remit.LifecycleInGrace:  "in grace",
	remit.LifecycleDue:      "due",
	remit.LifecycleDueSoon:  "due soon",
	remit.LifecycleFine:     "fine",
	remit.LifecycleUnknown:  "not known",
	remit.LifecycleEnded:    "ended",
	remit.LifecycleNoPolicy: "without a policy",
}

func stateSpan(s remit.LifecycleState) span {
	text := cmp.Or(lifecycleWords[s], string(s))
	if s == remit.LifecycleNoPolicy {
		text = "no policy"
	}
	switch s {
	case remit.LifecycleOverdue:
		return span{text, red}
	case remit.LifecycleInGrace, remit.LifecycleDue:
		return span{text, yellow}
	case remit.LifecycleDueSoon:
		return span{text, cyan}
	case remit.LifecycleFine:
		return span{text, green}
	}
	return span{text, faint}
}

// nextStep says what comes next for a credential and when.
func nextStep(s *remit.Standing) span {
	switch {
	case s.Next.Step == "":
		return span{"-", faint}
	case !s.Next.At.After(s.At):
		text := s.Next.Step + " now"
		if !s.Next.At.IsZero() {
			text += ", since " + day(s.Next.At)
		}
		return span{text, stateSpan(s.State).style}
	}
	return span{s.Next.Step + " " + since(s.Next.At, s.At), normal}
}

// planSpan names the plan that is under way for a credential; "" when none is.
func planSpan(s *remit.Standing) span {
	if s.Response == "" {
		return span{}
	}
	return span{fmt.Sprintf("%s %s, %s", s.ResponseAction, s.ResponseState, s.Response), cyan}
}

// WriteStandingsCSV writes where credentials stand in their life as
// comma-separated values, as [WriteCSV] writes records.
func WriteStandingsCSV(w io.Writer, standings iter.Seq2[remit.Standing, error]) error {
	at := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return sane(t).Format(time.RFC3339)
	}
	out := csv.NewWriter(w)
	err := csvRows(out, standings, []column[remit.Standing]{
		{"credential", func(s *remit.Standing) string { return string(s.Credential) }},
		{"system", func(s *remit.Standing) string { return string(s.System) }},
		{"kind", func(s *remit.Standing) string { return s.Kind }},
		{"namespace", func(s *remit.Standing) string { return s.Namespace }},
		{"name", func(s *remit.Standing) string { return s.Name }},
		{"key", func(s *remit.Standing) string { return s.Key }},
		{"type", func(s *remit.Standing) string { return string(s.Type) }},
		{"identity", func(s *remit.Standing) string { return strings.TrimSpace(ref(s.Holder)) }},
		{"owner", func(s *remit.Standing) string { return s.Owner }},
		{"state", func(s *remit.Standing) string { return string(s.State) }},
		{"policy", func(s *remit.Standing) string { return s.Policy }},
		{"next", func(s *remit.Standing) string { return s.Next.Step }},
		{"next_at", func(s *remit.Standing) string { return at(s.Next.At) }},
		{"in_use_since", func(s *remit.Standing) string { return at(s.Start) }},
		{"last_used", func(s *remit.Standing) string { return at(s.LastUsed) }},
		{"expires", func(s *remit.Standing) string { return at(s.Expires) }},
		{"plan", func(s *remit.Standing) string { return string(s.Response) }},
	})
	if err != nil {
		return err
	}
	out.Flush()
	return out.Error()
}
