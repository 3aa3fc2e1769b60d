package report

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"remit"
)

// Explanation is everything known of one identity, as [WriteExplain] lays it
// out. Only Identity must be there; what is empty is said to be unknown or left
// out. [Explain] gathers one from a source.
type Explanation struct {
	Generated time.Time      `json:"generated"` // against which ages are told
	System    remit.System   `json:"system"`
	Identity  remit.Identity `json:"identity"`

	// Relations are those that lead from or to the identity, from or to the
	// groups it is in, and to where its credentials lie.
	Relations []remit.Relation `json:"relations"`

	// Grants are the identity's own and those of the groups it is in; Roles
	// are the roles that they name.
	Grants []remit.Grant `json:"grants"`
	Roles  []remit.Role  `json:"roles"`

	// Credentials are those that authenticate it; Reach those that lie where
	// it holds something, and so can be read by it.
	Credentials []remit.Credential `json:"credentials"`
	Reach       []remit.Credential `json:"reach"`

	// Standings are where Credentials stand in their life, as far as that was
	// asked.
	Standings map[remit.ID]remit.Standing `json:"standings,omitempty"`

	Findings []remit.Finding `json:"findings"`
	History  []remit.Version `json:"history"` // the newest first
}

// Explain gathers what a source knows of one identity, all but its history. It
// fails with [remit.NotFound] when the source does not have it.
func Explain(src Source, id remit.ID) (Explanation, error) {
	e := Explanation{Generated: src.Header().Generated}
	for i, err := range src.Identities() {
		if err != nil {
			return e, err
		}
		if i.ID == id {
			e.Identity = i
			break
		}
	}
	if e.Identity.ID == "" {
		return e, remit.Errorf(remit.NotFound, "explain", "the scan has no identity %s", id)
	}
	for s, err := range src.Systems() {
		if err != nil {
			return e, err
		}
		if s.ID == e.Identity.System {
			e.System = s
			break
		}
	}

	// Groups may be in groups: one pass for each level, until none is new.
	groups := map[remit.ID]bool{id: true}
	for more := true; more; {
		more = false
		for r, err := range src.Relations() {
			if err != nil {
				return e, err
			}
			if r.Type == remit.MemberOf && groups[r.From] && !groups[r.To] {
				groups[r.To] = true
				more = true
			}
		}
	}

	holds := map[remit.ID]bool{}
	for r, err := range src.Relations() {
		if err != nil {
			return e, err
		}
		if r.Type == remit.Holds && r.From == id {
			holds[r.To] = true
		}
	}
	places := map[remit.ID]bool{}
	for c, err := range src.Credentials() {
		if err != nil {
			return e, err
		}
		if c.Identity == id {
			e.Credentials = append(e.Credentials, c)
			if c.Location != "" {
				places[c.Location] = true
			}
		} else if c.Location != "" && holds[c.Location] {
			e.Reach = append(e.Reach, c)
		}
	}
	for r, err := range src.Relations() {
		if err != nil {
			return e, err
		}
		// Of a group, its other members and what they hold are no matter of
		// this identity's.
		of := r.From == id || r.To == id
		of = of || (r.Type == remit.MemberOf && groups[r.From])
		of = of || (r.Type == remit.CanActAs && (groups[r.From] || groups[r.To]))
		of = of || (r.Type == remit.Holds && places[r.To])
		if of {
			e.Relations = append(e.Relations, r)
		}
	}
	roles := map[remit.ID]bool{}
	for g, err := range src.Grants() {
		if err != nil {
			return e, err
		}
		if groups[g.Identity] {
			e.Grants = append(e.Grants, g)
			roles[g.Role] = g.Role != ""
		}
	}
	for r, err := range src.Roles() {
		if err != nil {
			return e, err
		}
		if roles[r.ID] {
			e.Roles = append(e.Roles, r)
		}
	}
	for f, err := range src.Findings() {
		if err != nil {
			return e, err
		}
		if concerns(&f) == id || f.Subject.ID == id {
			e.Findings = append(e.Findings, f)
		}
	}
	return e, nil
}

// The caps of an explanation, each lifted when verbose.
const (
	explainList        = 12 // lines of one section
	explainPermissions = 6  // of one grant
	explainVersions    = 8
)

// WriteExplain writes an explanation for people: who answers for the identity,
// what is wrong with it, what it may do, who can act as it, and until when.
func WriteExplain(w io.Writer, e Explanation, o TableOptions) error {
	p := explainer{printer: newPrinter(w, o), e: &e, verbose: o.Verbose}
	p.inGroups()
	p.head()
	p.owners()
	p.findings()
	p.grants()
	p.relations()
	p.credentials()
	p.facts()
	p.history()
	return p.close()
}

type explainer struct {
	*printer
	e       *Explanation
	verbose bool
	groups  map[remit.ID]remit.Ref // those that the identity is in, at any depth
}

// inGroups follows membership upwards from the identity.
func (p *explainer) inGroups() {
	p.groups = map[remit.ID]remit.Ref{}
	for more := true; more; {
		more = false
		for _, r := range p.e.Relations {
			_, member := p.groups[r.From]
			_, known := p.groups[r.To]
			if r.Type == remit.MemberOf && (member || r.From == p.e.Identity.ID) && !known && r.To != p.e.Identity.ID {
				p.groups[r.To] = r.ToRef
				more = true
			}
		}
	}
}

func (p *explainer) head() {
	i := &p.e.Identity
	p.para(span{"", normal}, 0, cmp.Or(place(i.Ref), string(i.ID)), strong, 0)
	pieces := []span{{typeWord(i), normal}}
	if p.e.System.Name != "" {
		pieces = append(pieces, span{p.e.System.Name + ", " + platform(&p.e.System), normal})
	}
	pieces = append(pieces, span{i.Environment, normal})
	if i.Status != "" {
		pieces = append(pieces, statusSpan(i.Status))
	}
	if i.BuiltIn {
		pieces = append(pieces, span{"comes with the platform", normal})
	}
	p.items(0, " · ", pieces...)
	p.line(span{string(i.ID), faint})
	if p.e.System.Recorded {
		p.para(span{"RECORDED ", yellow}, 9,
			"This was read from a recording. It shows the system as it was on "+minute(p.e.System.Observed)+", not as it is now.", normal, 0)
	}
	if i.Purpose != "" {
		p.blank()
		p.para(span{"", normal}, 0, i.Purpose, normal, 6)
	}
}

func (p *explainer) owners() {
	i := &p.e.Identity
	p.heading("who answers for it", "")
	if len(i.Owners) == 0 {
		switch {
		case unowned(i):
			p.para(span{"", normal}, 2, "Nobody: no label, annotation or history names an owner.", yellow, 0)
		case i.BuiltIn:
			p.para(span{"", normal}, 2, "The platform, which brings it.", normal, 0)
		case i.Status == remit.Absent:
			p.para(span{"", normal}, 2, "Nobody: something refers to it, but it does not exist.", yellow, 0)
		case i.Type == remit.Human:
			p.para(span{"", normal}, 2, "It is a person.", normal, 0)
		default:
			p.para(span{"", normal}, 2, "Not known.", normal, 0)
		}
		return
	}
	for n, owner := range i.Owners {
		if p.capped(n, len(i.Owners), explainList) {
			break
		}
		st, left := normal, ""
		if owner.Status == remit.OwnerLeft {
			st, left = yellow, ", has left"
		}
		p.line(span{"  " + owner.Name, st}, span{left, yellow}, span{"  by " + cmp.Or(owner.Source, "an unknown source"), faint})
	}
}

// capped says that a list of total lines ends at line n, and writes so.
func (p *explainer) capped(n, total, limit int) bool {
	if p.verbose || n < limit || total <= limit+1 {
		return false
	}
	p.line(span{fmt.Sprintf("  and %s more", number(total-n)), faint})
	return true
}

func (p *explainer) findings() {
	var stand []remit.Finding
	hidden := 0
	for _, f := range p.e.Findings {
		if standing(&f) {
			stand = append(stand, f)
		} else {
			hidden++
		}
	}
	slices.SortStableFunc(stand, worstFirst)
	p.heading("what is wrong", "")
	if len(stand) == 0 {
		p.line(span{"  Nothing that a policy or a detection found.", green})
	}
	for n, f := range stand {
		if n > 0 {
			p.blank()
		}
		if p.capped(n, len(stand), explainList) {
			break
		}
		p.finding(&f, 2, true)
	}
	if hidden > 0 {
		p.line(span{fmt.Sprintf("  Not shown: %d suppressed or resolved.", hidden), faint})
	}
}

func (p *explainer) grants() {
	e := p.e
	p.heading("what it may do", grantNote(e))
	if len(e.Grants) == 0 {
		p.para(span{"", normal}, 2, "No grant names it or a group it is in.", normal, 0)
		return
	}
	roles := make(map[remit.ID]*remit.Role, len(e.Roles))
	for i := range e.Roles {
		roles[e.Roles[i].ID] = &e.Roles[i]
	}
	// Its own first, then the widest.
	grants := slices.Clone(e.Grants)
	slices.SortStableFunc(grants, func(a, b remit.Grant) int {
		return cmp.Or(
			compareBool(a.Identity != e.Identity.ID, b.Identity != e.Identity.ID),
			compareBool(a.Scope != "", b.Scope != ""),
			cmp.Compare(a.Scope, b.Scope),
			cmp.Compare(a.RoleRef.Name, b.RoleRef.Name),
			cmp.Compare(a.ID, b.ID),
		)
	})
	for n, g := range grants {
		if p.capped(n, len(grants), explainList) {
			break
		}
		title := "single permissions"
		if g.RoleRef != (remit.Ref{}) {
			title = ref(g.RoleRef)
		}
		scope := "everywhere"
		if g.Scope != "" {
			scope = "in " + g.Scope
		}
		pieces := []span{{title, strong}, {scope, normal}}
		if g.Status != remit.Active && g.Status != "" {
			pieces = append(pieces, statusSpan(g.Status))
		}
		if !g.Expires.IsZero() {
			pieces = append(pieces, span{"until " + since(g.Expires, e.Generated), normal})
		}
		p.items(2, " · ", pieces...)
		by := "by " + ref(g.Ref)
		if g.Identity != e.Identity.ID {
			by = "as a member of " + place(g.Subject) + ", " + by
		}
		if g.Origin != "" {
			by += ", put there by " + g.Origin
		}
		p.para(span{"", normal}, 4, by, faint, 2)
		if g.Condition != "" {
			p.para(span{"", normal}, 4, "only if "+g.Condition, normal, 2)
		}
		permissions := g.Permissions
		if role := roles[g.Role]; role != nil {
			permissions = append(permissions[:len(permissions):len(permissions)], role.Permissions...)
		} else if g.Role != "" || g.RoleRef != (remit.Ref{}) {
			p.para(span{"", normal}, 4, "What the role allows is not known: it is not in this inventory.", yellow, 0)
		}
		for i, permission := range permissions {
			if i == explainPermissions && len(permissions) > explainPermissions+1 && !p.verbose {
				p.line(span{fmt.Sprintf("    and %s more", number(len(permissions)-i)), faint})
				break
			}
			p.para(span{"    - ", faint}, 6, permissionLine(permission), permissionStyle(permission), 3)
		}
	}
}

func grantNote(e *Explanation) string {
	if len(e.Grants) == 0 {
		return ""
	}
	return count(len(e.Grants), "grant", "grants")
}

// permissionStyle marks what allows everything.
func permissionStyle(p remit.Permission) style {
	if !p.Deny && slices.Contains(p.Actions, "*") && (slices.Contains(p.Resources, "*.*") || slices.Contains(p.Resources, "*")) {
		return red
	}
	return normal
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// edge is one line about a relation: how, and with whom.
type edge struct{ how, whom, note string }

func (p *explainer) relations() {
	id := p.e.Identity.ID
	var acts, actors, members, memberOf, runsAs, runs, holds, holders, trusts, same []edge
	mine := map[remit.ID]bool{}
	for _, c := range p.e.Credentials {
		if c.Location != "" {
			mine[c.Location] = true
		}
	}
	for _, r := range p.e.Relations {
		_, fromGroup := p.groups[r.From]
		toRef, toGroup := p.groups[r.To]
		scope := ""
		if r.Scope != "" {
			scope = "in " + r.Scope
		}
		switch r.Type {
		case remit.CanActAs:
			if r.From == id {
				acts = append(acts, edge{string(r.Right), ref(r.ToRef), scope})
			} else if fromGroup {
				acts = append(acts, edge{string(r.Right), ref(r.ToRef), join(scope, "as a member of "+place(r.FromRef))})
			}
			if r.From == id || r.BuiltIn && !p.verbose {
				continue // that it can act as itself, and that controllers can, says nothing
			}
			if r.To == id {
				actors = append(actors, edge{string(r.Right), ref(r.FromRef), scope})
			} else if toGroup {
				actors = append(actors, edge{string(r.Right), ref(r.FromRef), join(scope, "as anyone of "+place(toRef))})
			}
		case remit.MemberOf:
			if r.To == id {
				members = append(members, edge{"", ref(r.FromRef), ""})
			} else if r.From == id {
				memberOf = append(memberOf, edge{"", ref(r.ToRef), ""})
			} else if fromGroup {
				memberOf = append(memberOf, edge{"", ref(r.ToRef), "through " + place(r.FromRef)})
			}
		case remit.RunsAs:
			if r.From == id {
				runsAs = append(runsAs, edge{"", ref(r.ToRef), ""})
			} else if r.To == id {
				runs = append(runs, edge{"", ref(r.FromRef), ""})
			}
		case remit.Holds:
			if r.From == id {
				holds = append(holds, edge{"", ref(r.ToRef), p.credentialsIn(r.To)})
			} else if mine[r.To] {
				holders = append(holders, edge{"", ref(r.FromRef), "through " + ref(r.ToRef)})
			}
		case remit.TrustedBy:
			if r.From == id {
				trusts = append(trusts, edge{"is trusted by", ref(r.ToRef), ""})
			} else if r.To == id {
				trusts = append(trusts, edge{"trusts", ref(r.FromRef), ""})
			}
		case remit.SameActor:
			if r.From == id {
				same = append(same, edge{"", ref(r.ToRef), ""})
			} else if r.To == id {
				same = append(same, edge{"", ref(r.FromRef), ""})
			}
		}
	}
	p.edges("who can act as it", byWhom(actors))
	p.edges("whom it can act as", byWhom(acts))
	p.edges("what runs as it", runs)
	p.edges("it runs as", runsAs)
	p.edges("who holds its credentials", holders)
	p.edges("what it is given to read", holds)
	p.edges("it is a member of", memberOf)
	p.edges("its members", members)
	p.edges("trust across systems", trusts)
	p.edges("the same actor elsewhere", same)
}

// byWhom puts all rights over, or of, the same one into one line.
func byWhom(list []edge) []edge {
	type end struct{ whom, note string }
	rights := map[end][]string{}
	for _, e := range list {
		rights[end{e.whom, e.note}] = append(rights[end{e.whom, e.note}], e.how)
	}
	merged := make([]edge, 0, len(rights))
	for e, how := range rights {
		slices.Sort(how)
		note := "by " + strings.Join(slices.Compact(how), ", ")
		if e.note != "" {
			note += " (" + e.note + ")"
		}
		merged = append(merged, edge{"", e.whom, note})
	}
	return merged
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + ", " + b
}

// credentialsIn counts what lies in a resource that the identity can read.
func (p *explainer) credentialsIn(location remit.ID) string {
	n := 0
	for _, c := range p.e.Reach {
		if c.Location == location {
			n++
		}
	}
	if n == 0 {
		return ""
	}
	return "with " + count(n, "credential", "credentials")
}

func (p *explainer) edges(title string, list []edge) {
	if len(list) == 0 {
		return
	}
	slices.SortStableFunc(list, func(a, b edge) int {
		return cmp.Or(cmp.Compare(a.how, b.how), cmp.Compare(a.whom, b.whom), cmp.Compare(a.note, b.note))
	})
	list = slices.Compact(list)
	p.heading(title, number(len(list)))
	how := 0
	for _, l := range list {
		if l.how != "" {
			how = max(how, columns(Visible(l.how))+2)
		}
	}
	for n, l := range list {
		if p.capped(n, len(list), explainList) {
			break
		}
		text := l.whom
		if l.note != "" {
			text += "  " + l.note
		}
		p.para(span{"  " + l.how, yellow}, 2+how, text, normal, 3)
	}
}

func (p *explainer) credentials() {
	e := p.e
	p.heading("its credentials", "")
	if len(e.Credentials) == 0 {
		p.para(span{"", normal}, 2, "None is known.", normal, 0)
	}
	list := slices.Clone(e.Credentials)
	slices.SortStableFunc(list, func(a, b remit.Credential) int {
		_, worryA := ending(&a, e.Generated)
		_, worryB := ending(&b, e.Generated)
		return cmp.Or(compareBool(!worryA, !worryB), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Key, b.Key), cmp.Compare(a.ID, b.ID))
	})
	for n, c := range list {
		if p.capped(n, len(list), explainList) {
			break
		}
		word, worry := ending(&c, e.Generated)
		until := span{word, normal}
		if worry {
			until.style = yellow
		}
		p.items(2, " · ", span{string(c.Type), strong}, until, span{lies(&c), normal})
		var more []span
		add := func(format string, t time.Time) {
			if !t.IsZero() {
				more = append(more, span{fmt.Sprintf(format, since(t, e.Generated)), faint})
			}
		}
		add("issued %s", c.Issued)
		add("rotated %s", c.Rotated)
		add("last used %s", c.LastUsed)
		if len(c.Exposure) > 0 {
			more = append(more, span{"can be read in " + shortList(c.Exposure, 3), yellow})
		}
		if len(c.Audiences) > 0 {
			more = append(more, span{"for " + shortList(c.Audiences, 3), faint})
		}
		if c.Algorithm != "" {
			more = append(more, span{strings.TrimSpace(c.Algorithm + " " + csvNumber(int64(c.KeyBits))), faint})
		}
		p.items(4, " · ", more...)
		if s, ok := e.Standings[c.ID]; ok && s.Policy != "" {
			next := nextStep(&s)
			p.items(4, " · ", span{"lifecycle " + s.Policy, faint}, stateSpan(s.State), span{next.text, next.style}, planSpan(&s))
		}
	}
}

// facts writes what else is known.
func (p *explainer) facts() {
	i := &p.e.Identity
	p.heading("what else is known", "")
	fact := func(name, value string) {
		if value != "" {
			p.para(span{"  " + name, faint}, 20, value, normal, 3)
		}
	}
	fact("principal", i.Principal)
	fact("display name", i.DisplayName)
	fact("created", since(i.Created, p.e.Generated))
	fact("expires", since(i.Expires, p.e.Generated))
	fact("last active", cmp.Or(since(i.LastActive, p.e.Generated), "not known"))
	fact("incarnation", i.Incarnation)
	for _, name := range slices.Sorted(maps.Keys(i.Attributes)) {
		fact(name, i.Attributes[name])
	}
	if n := len(i.Labels); n > 0 {
		labels := make([]string, 0, n)
		for _, name := range slices.Sorted(maps.Keys(i.Labels)) {
			labels = append(labels, name+"="+i.Labels[name])
		}
		limit := 8
		if p.verbose {
			limit = n
		}
		p.para(span{"  labels", faint}, 20, shortList(labels, limit), normal, 0)
	}
}

func (p *explainer) history() {
	list := p.e.History
	if len(list) == 0 {
		return
	}
	p.heading("history", count(len(list), "version", "versions"))
	for n, v := range list {
		if p.capped(n, len(list), explainVersions) {
			break
		}
		what := "first seen"
		if n+1 < len(list) {
			what = "changed: " + cmp.Or(strings.Join(changed(list[n+1].Record, v.Record), ", "), "nothing that is kept")
		}
		if v.Removed {
			what += "; removed " + day(v.To)
		}
		p.para(span{"  " + cmp.Or(day(v.From), day(v.Learned), "unknown"), faint}, 14, what, normal, 2)
	}
}

// changed names the fields in which two versions of a record differ.
func changed(before, after any) []string {
	old, now := fields(before), fields(after)
	var names []string
	for name := range now {
		if !bytes.Equal(old[name], now[name]) {
			names = append(names, name)
		}
	}
	for name := range old {
		if _, ok := now[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func fields(record any) map[string]json.RawMessage {
	var m map[string]json.RawMessage
	b, err := json.Marshal(record)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		return nil // a record that cannot be compared has changed in ways not told
	}
	return m
}
