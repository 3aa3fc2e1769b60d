package storetest

import (
	"cmp"
	"slices"
	"strings"
	"time"
	"unicode"

	"remit"
)

// model is a store of maps that says what a store must answer.
type model struct {
	current map[remit.ID]*version
	former  []*version
}

// version is one version of a record of any kind.
type version struct {
	record  any
	section string
	from    time.Time
	to      time.Time // zero: still
	learned time.Time
	removed bool
}

func newModel() *model { return &model{current: make(map[remit.ID]*version)} }

// shape is what the model needs to know of a record of any kind; a field that
// its kind does not have is nil.
type shape struct {
	remit.Record
	kind     remit.RecordKind
	typ      *string
	status   *remit.Status
	expires  *time.Time
	owners   *[]remit.Owner
	holder   *remit.ID // what Filter.Identities means
	provider *string
	never    *bool
	used     *time.Time
	to, role *remit.ID
	concerns []remit.ID
}

func shapeOf(record any) shape {
	switch r := record.(type) {
	case remit.Identity:
		typ := string(r.Type)
		return shape{Record: r.Record, kind: remit.KindIdentity, typ: &typ, status: &r.Status, expires: &r.Expires, owners: &r.Owners, holder: &r.ID}
	case remit.Credential:
		typ := string(r.Type)
		return shape{
			Record: r.Record, kind: remit.KindCredential, typ: &typ, status: &r.Status, expires: &r.Expires, holder: &r.Identity,
			provider: &r.Provider, never: &r.NeverExpires, used: &r.LastUsed, concerns: []remit.ID{r.Identity},
		}
	case remit.Role:
		return shape{Record: r.Record, kind: remit.KindRole}
	case remit.Grant:
		return shape{
			Record: r.Record, kind: remit.KindGrant, status: &r.Status, expires: &r.Expires, holder: &r.Identity, role: &r.Role,
			concerns: []remit.ID{r.Identity},
		}
	case remit.Relation:
		typ := string(r.Type)
		return shape{Record: r.Record, kind: remit.KindRelation, typ: &typ, holder: &r.From, to: &r.To, concerns: []remit.ID{r.From, r.To}}
	case remit.Resource:
		typ := string(r.Type)
		return shape{Record: r.Record, kind: remit.KindResource, typ: &typ}
	}
	panic("no record")
}

// each calls f with every record of a set.
func each(records remit.Records, f func(any)) {
	for _, r := range records.Identities {
		f(r)
	}
	for _, r := range records.Credentials {
		f(r)
	}
	for _, r := range records.Roles {
		f(r)
	}
	for _, r := range records.Grants {
		f(r)
	}
	for _, r := range records.Relations {
		f(r)
	}
	for _, r := range records.Resources {
		f(r)
	}
}

// outcome gathers what a write does.
type outcome struct {
	remit.Changes
	touched map[remit.ID]bool
}

func (o *outcome) touch(records ...any) {
	for _, r := range records {
		s := shapeOf(r)
		o.touched[s.ID] = true
		for _, id := range s.concerns {
			if id.Kind() == remit.KindIdentity {
				o.touched[id] = true
			}
		}
	}
}

func (o *outcome) done() remit.Changes {
	o.Touched = []remit.ID{}
	for id := range o.touched {
		o.Touched = append(o.Touched, id)
	}
	slices.Sort(o.Touched)
	return o.Changes
}

// apply does what InventoryRun.Apply does. seen is told of each record.
func (m *model) apply(section string, learned time.Time, records remit.Records, deleted []remit.ID, seen func(remit.ID)) remit.Changes {
	o := &outcome{touched: make(map[remit.ID]bool)}
	last := make(map[remit.ID]any)
	var order []remit.ID
	each(records, func(r any) {
		id := shapeOf(r).ID
		if _, twice := last[id]; !twice {
			order = append(order, id)
		}
		last[id] = r
	})
	for _, id := range order {
		if slices.Contains(deleted, id) {
			continue
		}
		m.put(section, learned, last[id], o)
		seen(id)
	}
	for _, id := range deleted {
		m.remove(id, learned, o)
	}
	return o.done()
}

func (m *model) put(section string, learned time.Time, record any, o *outcome) {
	r := shapeOf(record)
	from := learned
	if !r.Since.IsZero() && r.Since.Before(learned) {
		from = r.Since
	}
	have := m.current[r.ID]
	switch {
	case have == nil:
		for _, v := range m.former {
			if shapeOf(v.record).ID == r.ID && v.to.After(from) {
				from = v.to
			}
		}
		o.Added++
	case sameRecord(have.record, record):
		have.section = section
		o.Unchanged++
		return
	default:
		if !from.After(have.from) {
			from = learned
		}
		if !from.After(have.from) {
			from = have.from.Add(time.Microsecond)
		}
		have.to = from
		m.former = append(m.former, have)
		o.Updated++
		o.touch(have.record)
	}
	o.touch(record)
	m.current[r.ID] = &version{record: record, section: section, from: from, learned: learned}
}

func (m *model) remove(id remit.ID, learned time.Time, o *outcome) {
	have := m.current[id]
	if have == nil {
		return
	}
	have.removed, have.to = true, learned
	if !have.to.After(have.from) {
		have.to = have.from.Add(time.Microsecond)
	}
	m.former = append(m.former, have)
	delete(m.current, id)
	o.Removed++
	o.touch(have.record)
}

func (m *model) complete(section string, learned time.Time, seen map[remit.ID]bool) remit.Changes {
	o := &outcome{touched: make(map[remit.ID]bool)}
	for id, v := range m.current {
		if v.section == section && !seen[id] {
			m.remove(id, learned, o)
		}
	}
	return o.done()
}

// list answers a filter, in the order of names.
func (m *model) list(kind remit.RecordKind, f remit.Filter) []any {
	var out []any
	add := func(v *version) {
		if shapeOf(v.record).kind == kind && chosen(v.record, f) {
			out = append(out, v.record)
		}
	}
	for _, v := range m.current {
		if f.At.IsZero() || !v.from.After(f.At) {
			add(v)
		}
	}
	for _, v := range m.former {
		if !f.At.IsZero() && !v.from.After(f.At) && v.to.After(f.At) {
			add(v)
		}
	}
	slices.SortFunc(out, func(a, b any) int { return byRecord(shapeOf(a).Record, shapeOf(b).Record) })
	return out
}

// chosen is what a filter means.
func chosen(record any, f remit.Filter) bool {
	r := shapeOf(record)
	return among(f.IDs, &r.ID) && among(f.Kinds, &r.Kind) && among(f.Namespaces, &r.Namespace) && among(f.Names, &r.Name) &&
		among(f.Types, r.typ) && among(f.Statuses, r.status) && among(f.Environments, &r.Environment) &&
		equal(f.BuiltIn, &r.BuiltIn) && equal(f.NeverExpires, r.never) &&
		among(f.Identities, r.holder) && among(f.To, r.to) && among(f.RoleIDs, r.role) && among(f.Providers, r.provider) &&
		(f.System == "" || f.System == r.System) &&
		(f.Owner == "" || r.owners != nil && slices.ContainsFunc(*r.owners, func(o remit.Owner) bool { return o.Name == f.Owner })) &&
		(!f.Unowned || r.owners != nil && len(*r.owners) == 0) &&
		(f.ExpiresBefore.IsZero() || r.expires != nil && !r.expires.IsZero() && r.expires.Before(f.ExpiresBefore)) &&
		(f.UsedBefore.IsZero() || r.used != nil && r.used.Before(f.UsedBefore)) &&
		found(r.Name, f.Search)
}

func among[T comparable](wanted []T, have *T) bool {
	return len(wanted) == 0 || have != nil && slices.Contains(wanted, *have)
}

func equal(wanted, have *bool) bool {
	return wanted == nil || have != nil && *have == *wanted
}

func found(name, search string) bool {
	words := func(s string) []string {
		return strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	}
	for _, wanted := range words(search) {
		if !slices.ContainsFunc(words(name), func(w string) bool { return strings.HasPrefix(w, wanted) }) {
			return false
		}
	}
	return true
}

// counts counts by scanning.
func (m *model) counts(kind remit.RecordKind) map[string]int64 {
	out := make(map[string]int64)
	for _, v := range m.current {
		r := shapeOf(v.record)
		if r.kind != kind {
			continue
		}
		out["="]++
		out["kind="+r.Kind]++
		out["namespace="+r.Namespace]++
		out["environment="+r.Environment]++
		out["built_in="+word(r.BuiltIn)]++
		if r.typ != nil {
			out["type="+*r.typ]++
		}
		if r.status != nil {
			out["status="+string(*r.status)]++
		}
		if r.owners != nil {
			out["owned="+word(len(*r.owners) > 0)]++
		}
		if r.provider != nil {
			out["provider="+*r.provider]++
		}
		if r.never != nil {
			out["never_expires="+word(*r.never)]++
		}
	}
	return out
}

func word(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

// history lists the versions of a record, the newest first.
func (m *model) history(id remit.ID) []remit.Version {
	out := []remit.Version{}
	add := func(v *version) {
		out = append(out, remit.Version{From: v.from, To: v.to, Learned: v.learned, Removed: v.removed, Record: v.record})
	}
	for _, v := range m.former {
		if shapeOf(v.record).ID == id {
			add(v)
		}
	}
	slices.SortFunc(out, func(a, b remit.Version) int { return b.From.Compare(a.From) })
	if v := m.current[id]; v != nil {
		out = append([]remit.Version{{From: v.from, Learned: v.learned, Record: v.record}}, out...)
	}
	return out
}

// findingModel is a FindingStore of a map.
type findingModel map[remit.ID]*modelFinding

type modelFinding struct {
	remit.Finding
	put time.Time
}

func (m findingModel) put(now time.Time, list []remit.Finding) (done remit.FindingChanges) {
	last := make(map[remit.ID]int)
	for i, f := range list {
		last[f.ID] = i
	}
	for i, f := range list {
		if last[f.ID] != i {
			continue
		}
		have := m[f.ID]
		f.State, f.First, f.Last = remit.Open, now, now
		switch {
		case have == nil:
			done.Opened++
		case have.State == remit.Resolved:
			f.First, f.Reopened = have.First, have.Reopened+1
			done.Opened++
			done.Reopened++
		default:
			f.First, f.Reopened = have.First, have.Reopened
			if have.State == remit.Acknowledged || have.State == remit.Suppressed && have.SuppressedUntil.After(now) {
				f.State, f.SuppressedUntil = have.State, have.SuppressedUntil
			}
			done.Confirmed++
		}
		m[f.ID] = &modelFinding{f, now}
	}
	return done
}

func (m findingModel) resolve(scope remit.FindingScope, since, now time.Time) (done remit.FindingChanges) {
	for _, f := range m {
		if f.State != remit.Resolved && f.System == scope.System && slices.Contains(scope.Policies, f.Policy) &&
			(len(scope.Subjects) == 0 || slices.Contains(scope.Subjects, f.Subject.ID)) && f.put.Before(since) {
			f.State, f.Resolved, f.Last, f.SuppressedUntil = remit.Resolved, now, now, time.Time{}
			done.Resolved++
		}
	}
	return done
}

func (m findingModel) list(f remit.FindingFilter) []remit.Finding {
	out := []remit.Finding{}
	for _, have := range m {
		if among(f.Policies, &have.Policy) && among(f.States, &have.State) && among(f.Subjects, &have.Subject.ID) &&
			(f.System == "" || f.System == have.System) && have.Severity.Rank() >= f.MinimumSeverity.Rank() && found(have.Subject.Name, f.Search) {
			out = append(out, have.Finding)
		}
	}
	slices.SortFunc(out, func(a, b remit.Finding) int { return cmp.Or(worstFirst(a, b), cmp.Compare(a.ID, b.ID)) })
	return out
}

func (m findingModel) counts(system remit.ID) map[string]int64 {
	out := make(map[string]int64)
	for _, f := range m {
		if f.State == remit.Resolved || f.System != system {
			continue
		}
		out["="]++
		out["severity="+string(f.Severity)]++
		out["policy="+f.Policy]++
		out["state="+string(f.State)]++
		for _, risk := range f.Risks {
			out["risk="+risk]++
		}
	}
	return out
}
