package report

import (
	"cmp"
	"iter"
	"slices"

	"remit"
)

// stateOf is a finding's state; a finding that never was in a store is open.
func stateOf(f *remit.Finding) remit.FindingState {
	return cmp.Or(f.State, remit.Open)
}

// standing says whether a finding still asks for something to be done.
func standing(f *remit.Finding) bool {
	s := stateOf(f)
	return s == remit.Open || s == remit.Acknowledged
}

// concerns is whom a finding is about: the identity, or the subject itself where
// no identity is known.
func concerns(f *remit.Finding) remit.ID {
	return cmp.Or(f.Identity, f.Subject.ID)
}

// score counts the findings of one identity by the rank of their severity.
type score [6]int32

// compare orders scores, the worst first: one critical finding is worse than any
// number of high ones.
func (s *score) compare(other *score) int {
	for rank := len(s) - 1; rank >= 0; rank-- {
		if c := cmp.Compare(other[rank], s[rank]); c != 0 {
			return c
		}
	}
	return 0
}

func (s *score) total() int {
	n := 0
	for _, c := range s {
		n += int(c)
	}
	return n
}

// groupKey tells groups of findings apart. A policy may judge one subject worse
// than another, so the severity is part of it.
type groupKey struct {
	severity remit.Severity
	policy   string
}

// group is all that the findings of one policy at one severity have in common.
type group struct {
	groupKey
	title           string
	count           int
	risks, controls []string
	remedy          string
	oneRemedy       bool // all of them say the same remedy
}

func (g *group) add(f *remit.Finding) {
	g.count++
	g.oneRemedy = g.oneRemedy && g.remedy == f.Remedy
	g.risks = merge(g.risks, f.Risks)
	g.controls = merge(g.controls, f.Controls)
}

// merge adds what is new to a short list.
func merge(list, more []string) []string {
	for _, s := range more {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// heldFindings is how many findings eachGroup holds at once.
const heldFindings = 16384

// eachGroup calls fn with the standing findings of each group, in the order of
// the groups. As many groups as fit are read in one pass over the source and
// sorted by subject; a group too large for that has a pass to itself and comes
// as the source yields it. So the order by severity costs neither memory nor a
// pass for each policy.
func eachGroup(src Source, groups []*group, fn func(*group, iter.Seq2[remit.Finding, error]) error) error {
	for len(groups) > 0 {
		n, held := 0, 0
		for n < len(groups) && held+groups[n].count <= heldFindings {
			held += groups[n].count
			n++
		}
		if n == 0 {
			if err := fn(groups[0], only(src.Findings(), groups[0].groupKey)); err != nil {
				return err
			}
			groups = groups[1:]
			continue
		}
		batch := make(map[groupKey][]remit.Finding, n)
		for _, g := range groups[:n] {
			batch[g.groupKey] = make([]remit.Finding, 0, g.count)
		}
		for f, err := range src.Findings() {
			if err != nil {
				return err
			}
			key := groupKey{f.Severity, f.Policy}
			if list, ok := batch[key]; ok && standing(&f) {
				batch[key] = append(list, f)
			}
		}
		for _, g := range groups[:n] {
			list := batch[g.groupKey]
			slices.SortStableFunc(list, bySubject)
			if err := fn(g, Records(list)); err != nil {
				return err
			}
		}
		groups = groups[n:]
	}
	return nil
}

func only(findings iter.Seq2[remit.Finding, error], key groupKey) iter.Seq2[remit.Finding, error] {
	return func(yield func(remit.Finding, error) bool) {
		for f, err := range findings {
			if err == nil && (f.Severity != key.severity || f.Policy != key.policy || !standing(&f)) {
				continue
			}
			if !yield(f, err) || err != nil {
				return
			}
		}
	}
}

func bySubject(a, b remit.Finding) int {
	return cmp.Or(
		cmp.Compare(a.System, b.System),
		cmp.Compare(a.Subject.Namespace, b.Subject.Namespace),
		cmp.Compare(a.Subject.Name, b.Subject.Name),
		cmp.Compare(a.ID, b.ID),
	)
}

// worstFirst orders findings for a list.
func worstFirst(a, b remit.Finding) int {
	return cmp.Or(cmp.Compare(b.Severity.Rank(), a.Severity.Rank()), cmp.Compare(a.Policy, b.Policy), bySubject(a, b))
}

// concernsIdentity is the identity that a finding is about, or "".
func concernsIdentity(f *remit.Finding) remit.ID {
	if f.Identity == "" && f.Subject.Record == remit.KindIdentity {
		return f.Subject.ID
	}
	return f.Identity
}
