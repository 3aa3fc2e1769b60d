package storetest

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"remit"
)

// sameRecord compares two records as a store does: by what their JSON says.
func sameRecord(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// testModel plays random sequences of runs to the store and to the model. Each
// sequence has a system of its own in the one store, so that the store is full
// of others' records while it answers.
func testModel(t *testing.T, s Store) {
	t.Cleanup(func() { closeStore(t, s) })
	sequence := 0
	rapid.Check(t, func(rt *rapid.T) {
		sequence++
		m := newMachine(t, s, fmt.Sprintf("sequence %d", sequence))
		rt.Repeat(map[string]func(*rapid.T){
			"start":    m.start,
			"begin":    m.begin,
			"apply":    m.apply,
			"complete": m.complete,
			"":         m.check,
			"ask":      m.ask,
			"ask past": m.askPast,
			"history":  m.history,
			"reopen":   func(rt *rapid.T) { m.reopen(rt, &s) },
		})
	})
}

// machine is a store, its model, and the run that writes both.
type machine struct {
	t      *testing.T
	s      Store
	model  *model
	system remit.ID
	run    remit.InventoryRun
	seen   map[string]map[remit.ID]bool // by section begun
	now    time.Time
	times  []time.Time // that something happened at
}

func newMachine(t *testing.T, s Store, name string) *machine {
	m := &machine{t: t, s: s, model: newModel(), system: system(t, s, name), now: noon}
	m.newRun()
	return m
}

func (m *machine) newRun() {
	m.run = start(m.t, m.s, m.system)
	m.seen = make(map[string]map[remit.ID]bool)
}

var (
	sections  = rapid.SampledFrom([]string{"accounts", "secrets", "bindings"})
	letters   = rapid.SampledFrom([]string{"a", "b", "c", "d"})
	spaces    = rapid.SampledFrom([]string{"", "x", "y"})
	steps     = rapid.SampledFrom([]time.Duration{-time.Hour, 0, time.Microsecond, time.Minute, time.Hour, 24 * time.Hour})
	kindsList = []remit.RecordKind{remit.KindIdentity, remit.KindCredential, remit.KindRole, remit.KindGrant, remit.KindRelation, remit.KindResource}
)

// tick moves the clock, sometimes back.
func (m *machine) tick(rt *rapid.T) time.Time {
	m.now = m.now.Add(steps.Draw(rt, "step"))
	m.times = append(m.times, m.now)
	return m.now
}

// someTime draws a time around those of the sequence, or none.
func (m *machine) someTime(rt *rapid.T, label string) time.Time {
	switch rapid.IntRange(0, 3).Draw(rt, label) {
	case 0:
		return time.Time{}
	case 1:
		return m.now.Add(steps.Draw(rt, label+" step"))
	case 2:
		if len(m.times) > 0 {
			return rapid.SampledFrom(m.times).Draw(rt, label+" seen")
		}
	}
	return noon.Add(time.Duration(rapid.IntRange(-100, 200).Draw(rt, label+" hours")) * time.Hour)
}

func (m *machine) start(*rapid.T) { m.newRun() }

func (m *machine) begin(rt *rapid.T) {
	section := sections.Draw(rt, "section")
	m.run.Begin(section)
	m.seen[section] = make(map[remit.ID]bool)
}

func (m *machine) apply(rt *rapid.T) {
	section := sections.Draw(rt, "section")
	records := m.records(rt)
	var deleted []remit.ID
	if rapid.IntRange(0, 3).Draw(rt, "with deletions") == 0 {
		gone := m.records(rt)
		each(gone, func(r any) { deleted = append(deleted, shapeOf(r).ID) })
	}
	learned := m.tick(rt)
	got, err := m.run.Apply(m.t.Context(), section, learned, records, deleted)
	if err != nil {
		rt.Fatalf("apply: %v", err)
	}
	want := m.model.apply(section, learned, records, deleted, func(id remit.ID) {
		if m.seen[section] != nil {
			m.seen[section][id] = true
		}
	})
	same(rt, "apply", got, want)
}

func (m *machine) complete(rt *rapid.T) {
	section := sections.Draw(rt, "section")
	learned := m.tick(rt)
	got, err := m.run.Complete(m.t.Context(), section, learned)
	if m.seen[section] == nil {
		if remit.KindOf(err) != remit.Conflict {
			rt.Fatalf("complete without begin: %v", err)
		}
		return
	}
	if err != nil {
		rt.Fatalf("complete: %v", err)
	}
	got.Touched = append([]remit.ID{}, got.Touched...)
	same(rt, "complete", got, m.model.complete(section, learned, m.seen[section]))
	delete(m.seen, section)
}

// reopen ends the run as a crash does, and the store where it can be.
func (m *machine) reopen(rt *rapid.T, s *Store) {
	r, ok := m.s.(Reopener)
	if !ok || rapid.IntRange(0, 3).Draw(rt, "really") > 0 {
		return
	}
	m.s = r.Reopen(m.t)
	*s = m.s
	m.newRun()
}

// records draws a small page of records of every kind, whose names repeat.
func (m *machine) records(rt *rapid.T) remit.Records {
	var out remit.Records
	for range rapid.IntRange(0, 5).Draw(rt, "records") {
		m.draw(rt, &out)
	}
	return out
}

func (m *machine) draw(rt *rapid.T, out *remit.Records) {
	namespace, name := spaces.Draw(rt, "namespace"), letters.Draw(rt, "name")
	common := func(r *remit.Record) {
		r.Since = m.someTime(rt, "since")
		r.Environment = rapid.SampledFrom([]string{"", "production"}).Draw(rt, "environment")
		r.BuiltIn = rapid.Bool().Draw(rt, "built in")
		r.Incarnation = rapid.SampledFrom([]string{"", "1", "2"}).Draw(rt, "incarnation")
	}
	status := rapid.SampledFrom([]remit.Status{remit.Active, remit.Disabled})
	who := func(label string) remit.ID {
		return identity(m.system, spaces.Draw(rt, label+" namespace"), letters.Draw(rt, label)).ID
	}
	switch rapid.IntRange(0, 5).Draw(rt, "kind") {
	case 0:
		r := identity(m.system, namespace, name+"-"+name)
		common(&r.Record)
		r.Status = status.Draw(rt, "status")
		r.Type = rapid.SampledFrom([]remit.IdentityType{remit.Human, remit.Agent}).Draw(rt, "type")
		r.Expires = m.someTime(rt, "expires")
		for _, o := range rapid.SliceOfN(rapid.SampledFrom([]string{"ann", "bob"}), 0, 2).Draw(rt, "owners") {
			r.Owners = append(r.Owners, remit.Owner{Name: o})
		}
		out.Identities = append(out.Identities, r)
	case 1:
		r := credential(m.system, namespace, name, who("holder"))
		common(&r.Record)
		r.Status = status.Draw(rt, "status")
		r.NeverExpires = rapid.Bool().Draw(rt, "never")
		r.Provider = rapid.SampledFrom([]string{"", "aws"}).Draw(rt, "provider")
		r.LastUsed = m.someTime(rt, "used")
		out.Credentials = append(out.Credentials, r)
	case 2:
		r := role(m.system, namespace, name)
		common(&r.Record)
		out.Roles = append(out.Roles, r)
	case 3:
		r := grant(m.system, namespace, name, who("receiver"), role(m.system, "", letters.Draw(rt, "role")).ID)
		common(&r.Record)
		r.Status = status.Draw(rt, "status")
		out.Grants = append(out.Grants, r)
	case 4:
		r := relation(m.system, who("from"), who("to"), "")
		common(&r.Record)
		out.Relations = append(out.Relations, r)
	case 5:
		r := resource(m.system, namespace, name)
		common(&r.Record)
		r.Type = rapid.SampledFrom([]string{"secret", "bucket"}).Draw(rt, "type")
		out.Resources = append(out.Resources, r)
	}
}

// list asks the store for a list of any kind, in pages of limit.
func (m *machine) list(rt *rapid.T, kind remit.RecordKind, f remit.Filter, limit int) []any {
	f.System = m.system
	page := remit.PageRequest{Limit: limit}
	switch kind {
	case remit.KindIdentity:
		return anys(all(m.t, m.s.Identities, f, page))
	case remit.KindCredential:
		return anys(all(m.t, m.s.Credentials, f, page))
	case remit.KindRole:
		return anys(all(m.t, m.s.Roles, f, page))
	case remit.KindGrant:
		return anys(all(m.t, m.s.Grants, f, page))
	case remit.KindRelation:
		return anys(all(m.t, m.s.Relations, f, page))
	case remit.KindResource:
		return anys(all(m.t, m.s.Resources, f, page))
	}
	rt.Fatalf("no kind %s", kind)
	return nil
}

func anys[T any](list []T) []any {
	var out []any
	for _, r := range list {
		out = append(out, r)
	}
	return out
}

// check compares counts and lists of one kind after each step.
func (m *machine) check(rt *rapid.T) {
	kind := rapid.SampledFrom(kindsList).Draw(rt, "of")
	counts, err := m.s.Counts(m.t.Context(), kind, m.system)
	same(rt, "counts of "+string(kind), counted(m.t, counts, err), m.model.counts(kind))
	same(rt, "list of "+string(kind), m.list(rt, kind, remit.Filter{}, rapid.IntRange(1, 5).Draw(rt, "limit")), m.model.list(kind, remit.Filter{}))
}

// filter draws a filter of a few fields.
func (m *machine) filter(rt *rapid.T) remit.Filter {
	var f remit.Filter
	maybe := func(label string) bool { return rapid.IntRange(0, 3).Draw(rt, label) == 0 }
	if maybe("by namespace") {
		f.Namespaces = rapid.SliceOfN(spaces, 1, 2).Draw(rt, "namespaces")
	}
	if maybe("by name") {
		f.Names = rapid.SliceOfN(letters, 1, 2).Draw(rt, "names")
	}
	if maybe("by search") {
		f.Search = letters.Draw(rt, "search")
	}
	if maybe("by type") {
		f.Types = []string{rapid.SampledFrom([]string{"human", "agent", "secret", "static-token"}).Draw(rt, "types")}
	}
	if maybe("by status") {
		f.Statuses = rapid.SliceOfN(rapid.SampledFrom([]remit.Status{remit.Active, remit.Disabled}), 1, 2).Draw(rt, "statuses")
	}
	if maybe("by environment") {
		f.Environments = rapid.SliceOfN(rapid.SampledFrom([]string{"", "production"}), 1, 2).Draw(rt, "environments")
	}
	if maybe("by built in") {
		f.BuiltIn = yes(rapid.Bool().Draw(rt, "built"))
	}
	if maybe("by holder") {
		f.Identities = []remit.ID{identity(m.system, spaces.Draw(rt, "hns"), letters.Draw(rt, "h")).ID}
	}
	if maybe("by owner") {
		f.Owner = "ann"
	}
	if maybe("by no owner") {
		f.Unowned = true
	}
	if maybe("by expiry") {
		f.ExpiresBefore = m.someTime(rt, "before")
	}
	if maybe("by use") {
		f.UsedBefore = m.someTime(rt, "used before")
	}
	if maybe("by never") {
		f.NeverExpires = yes(rapid.Bool().Draw(rt, "never"))
	}
	return f
}

func (m *machine) ask(rt *rapid.T) {
	kind, f := rapid.SampledFrom(kindsList).Draw(rt, "of"), m.filter(rt)
	same(rt, fmt.Sprintf("%s of %+v", kind, f), m.list(rt, kind, f, rapid.IntRange(1, 5).Draw(rt, "limit")), m.model.list(kind, f))
}

func (m *machine) askPast(rt *rapid.T) {
	kind, f := rapid.SampledFrom(kindsList).Draw(rt, "of"), remit.Filter{}
	if rapid.Bool().Draw(rt, "filtered") {
		f = m.filter(rt)
	}
	f.At = m.someTime(rt, "at")
	same(rt, fmt.Sprintf("%s of %+v", kind, f), m.list(rt, kind, f, rapid.IntRange(1, 5).Draw(rt, "limit")), m.model.list(kind, f))
}

func (m *machine) history(rt *rapid.T) {
	var known []remit.ID
	for id := range m.model.current {
		known = append(known, id)
	}
	for _, v := range m.model.former {
		known = append(known, shapeOf(v.record).ID)
	}
	if len(known) == 0 {
		return
	}
	slices.Sort(known)
	id := rapid.SampledFrom(slices.Compact(known)).Draw(rt, "history of")
	got, err := m.s.History(m.t.Context(), id)
	if err != nil {
		rt.Fatalf("history: %v", err)
	}
	same(rt, "history", got, m.model.history(id))
}

// testFindingModel plays random lives of findings.
func testFindingModel(t *testing.T, s Store) {
	sequence := 0
	rapid.Check(t, func(rt *rapid.T) {
		sequence++
		sys := system(t, s, fmt.Sprintf("sequence %d", sequence))
		m := make(findingModel)
		now := noon
		policies := rapid.SampledFrom([]string{"p", "q", "r"})
		draw := func(rt *rapid.T) remit.Finding {
			f := finding(sys, policies.Draw(rt, "policy"), rapid.SampledFrom(remit.Severities).Draw(rt, "severity"),
				identity(sys, "ns", letters.Draw(rt, "subject")))
			f.Message = rapid.SampledFrom([]string{"it is wrong", "it is worse"}).Draw(rt, "message")
			return f
		}
		tick := func(rt *rapid.T) time.Time {
			now = now.Add(time.Duration(rapid.IntRange(0, 3).Draw(rt, "hours")) * time.Hour)
			return now
		}
		rt.Repeat(map[string]func(*rapid.T){
			"put": func(rt *rapid.T) {
				list := rapid.SliceOfN(rapid.Custom(draw), 0, 4).Draw(rt, "findings")
				at := tick(rt)
				got, err := s.PutFindings(t.Context(), at, list)
				if err != nil {
					rt.Fatalf("put: %v", err)
				}
				same(rt, "put", got, m.put(at, list))
			},
			"resolve": func(rt *rapid.T) {
				scope := remit.FindingScope{System: sys, Policies: rapid.SliceOfN(policies, 0, 2).Draw(rt, "policies")}
				if rapid.Bool().Draw(rt, "of subject") {
					scope.Subjects = []remit.ID{identity(sys, "ns", letters.Draw(rt, "subject")).ID}
				}
				since := now.Add(-time.Duration(rapid.IntRange(-1, 2).Draw(rt, "since")) * time.Hour)
				got, err := s.ResolveFindings(t.Context(), scope, since, now)
				if err != nil {
					rt.Fatalf("resolve: %v", err)
				}
				same(rt, "resolve", got, m.resolve(scope, since, now))
			},
			"set": func(rt *rapid.T) {
				id := draw(rt).ID
				state := rapid.SampledFrom([]remit.FindingState{remit.Open, remit.Acknowledged, remit.Suppressed}).Draw(rt, "state")
				at, until := tick(rt), time.Time{}
				if state == remit.Suppressed {
					until = at.Add(2 * time.Hour)
				}
				err := s.SetFindingState(t.Context(), id, state, until, at)
				switch have := m[id]; {
				case have == nil && remit.KindOf(err) == remit.NotFound:
				case have != nil && have.State == remit.Resolved && remit.KindOf(err) == remit.Conflict:
				case have != nil && err == nil && have.State != remit.Resolved:
					have.State, have.SuppressedUntil, have.Last = state, until, at
				default:
					rt.Fatalf("set %s of %+v: %v", state, have, err)
				}
			},
			"": func(rt *rapid.T) {
				f := remit.FindingFilter{System: sys}
				switch rapid.IntRange(0, 4).Draw(rt, "filter") {
				case 1:
					f.MinimumSeverity = rapid.SampledFrom(remit.Severities).Draw(rt, "least")
				case 2:
					f.States = []remit.FindingState{remit.Open}
				case 3:
					f.Policies = []string{policies.Draw(rt, "of policy")}
				case 4:
					f.Search = letters.Draw(rt, "search")
				}
				limit := rapid.IntRange(1, 5).Draw(rt, "limit")
				same(rt, "findings", append([]remit.Finding{}, all(t, s.Findings, f, remit.PageRequest{Limit: limit})...), m.list(f))
				counts, err := s.FindingCounts(t.Context(), sys)
				same(rt, "counts", counted(t, counts, err), m.counts(sys))
			},
		})
	})
}
