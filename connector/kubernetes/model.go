package kubernetes

import (
	"cmp"
	"encoding/json"
	"hash/maphash"
	"reflect"
	"slices"

	"remit"
)

// model is a picture of the cluster, stripped to what the inventory needs, and
// the bookkeeping that says which records a change of it concerns. It is used
// from one goroutine at a time.
type model struct {
	system       remit.ID
	owns         ownerReader
	environments environmentReader
	agents       *agentMatcher
	scope        namespaceScope

	// offline says that objects come from files: then no controller has
	// resolved aggregation, and what is not there may be elsewhere.
	offline bool

	// live says that changes will follow, so that dependencies and what was
	// handed over have to be remembered. A snapshot saves that memory.
	live bool

	tables   map[string]*table // by kind
	complete map[string]bool   // listings that were read completely, by resource

	mentioned map[remit.Ref]*mention
	owned     map[remit.Ref]map[remit.Ref]struct{} // pods, ReplicaSets and Jobs by their controller
	byName    map[remit.Ref]map[remit.Ref]struct{} // accounts and Secrets of a name in any namespace

	// aggregating work is bounded over the whole model, since hostile roles
	// can make it quadratic.
	aggregationBudget int
	selected          map[string][]*object // ClusterRoles by the selector that selects them

	powers map[remit.Ref]powers // of roles; forgotten when the role changes

	units map[unit]*unitState
	dirty map[*unitState]struct{}
	facts map[fact]*dependents
	seed  maphash.Seed
}

// table holds the objects of one kind.
type table struct {
	objects map[remit.Ref]*object
}

// unit is the smallest thing that is projected at once: everything that is
// handed over about one object or subject, or (access) about what one subject
// can come to act as.
type unit struct {
	access bool
	ref    remit.Ref
}

// unitState remembers what a unit gave last time.
type unitState struct {
	unit
	section string
	given   []given
	reads   []fact
}

// given is one record that was handed over, and a hash of its content.
type given struct {
	id   remit.ID
	hash uint64
}

// fact is something about the model that a projection can read, and whose
// change makes the projection out of date.
type fact struct {
	what factKind
	ref  remit.Ref
}

type factKind uint8

const (
	factObject   factKind = iota // the object of that name, or that there is none
	factMention                  // who names that identity
	factOwned                    // what that controller controls
	factByName                   // which accounts or Secrets are so named
	factComplete                 // whether the listing (in Kind) was read completely
)

func newModel(system remit.ID, cfg Config, agents *agentMatcher, offline, live bool) *model {
	m := &model{
		system:            system,
		owns:              newOwnerReader(cfg.OwnerKeys),
		environments:      newEnvironmentReader(cfg.EnvironmentKeys, cfg.Environment),
		agents:            agents,
		scope:             newNamespaceScope(cfg.Namespaces),
		offline:           offline,
		live:              live,
		tables:            map[string]*table{},
		complete:          map[string]bool{},
		mentioned:         map[remit.Ref]*mention{},
		owned:             map[remit.Ref]map[remit.Ref]struct{}{},
		byName:            map[remit.Ref]map[remit.Ref]struct{}{},
		aggregationBudget: maxAggregated,
		selected:          map[string][]*object{},
		powers:            map[remit.Ref]powers{},
		units:             map[unit]*unitState{},
		dirty:             map[*unitState]struct{}{},
		facts:             map[fact]*dependents{},
		seed:              maphash.MakeSeed(),
	}
	for _, name := range alwaysThere {
		m.touchUnit(unit{ref: remit.Ref{Kind: "Group", Name: name}})
	}
	return m
}

// alwaysThere are the groups that every cluster has.
var alwaysThere = []string{groupMasters, groupAuthenticated, groupUnauthenticated, groupAccounts}

func (m *model) table(kind string) *table {
	t := m.tables[kind]
	if t == nil {
		t = &table{objects: map[remit.Ref]*object{}}
		m.tables[kind] = t
	}
	return t
}

// get returns an object without noting that it was read.
func (m *model) get(ref remit.Ref) *object {
	if t := m.tables[ref.Kind]; t != nil {
		return t.objects[ref]
	}
	return nil
}

// put adds or replaces an object. An object that is in no way different from
// before makes nothing dirty.
func (m *model) put(o *object) {
	t := m.table(o.ref.Kind)
	old := t.objects[o.ref]
	m.slim(o)
	if old != nil && reflect.DeepEqual(old.meta, o.meta) && reflect.DeepEqual(old.body, o.body) {
		return
	}
	t.objects[o.ref] = o
	m.reindex(old, o)
	m.changed(o.ref)
	if old == nil {
		// What it controls may have come first.
		for ref := range m.owned[o.ref] {
			if c := m.get(ref); c != nil && ref != o.ref {
				w := *c.body.(*workload)
				m.put(&object{ref: c.ref, meta: c.meta, body: &w})
			}
		}
	}
}

// remove forgets an object.
func (m *model) remove(ref remit.Ref) {
	t := m.tables[ref.Kind]
	if t == nil || t.objects[ref] == nil {
		return
	}
	old := t.objects[ref]
	delete(t.objects, ref)
	m.reindex(old, nil)
	m.changed(ref)
}

// setComplete notes whether a listing is known completely.
func (m *model) setComplete(resource string, complete bool) {
	if m.complete[resource] == complete {
		return
	}
	m.complete[resource] = complete
	m.touch(fact{factComplete, remit.Ref{Kind: resource}})
}

// sectionComplete says whether a section can be complete.
func (m *model) sectionComplete(section string) bool {
	for _, in := range inputs(section) {
		if !m.complete[in] {
			return false
		}
	}
	return true
}

// changed marks everything that depends on the object.
func (m *model) changed(ref remit.Ref) {
	delete(m.powers, ref)
	m.touchUnit(unit{ref: ref})
	m.touch(fact{factObject, ref})
}

func (m *model) touchUnit(u unit) {
	s := m.units[u]
	if s == nil {
		s = &unitState{unit: u}
		m.units[u] = s
	}
	m.dirty[s] = struct{}{}
}

func (m *model) touch(f fact) {
	if d := m.facts[f]; d != nil {
		d.each(func(s *unitState) { m.dirty[s] = struct{}{} })
	}
}

// touchSection makes a whole section dirty, so that it is handed over anew.
func (m *model) touchSection(section string) {
	for _, s := range m.units {
		if s.section == section || s.section == "" && m.sectionOf(s.unit) == section {
			m.dirty[s] = struct{}{}
			s.forgetHashes()
		}
	}
}

func (s *unitState) forgetHashes() {
	for i := range s.given {
		s.given[i].hash = 0
	}
}

// reindex brings the indexes from the old form of an object to the new one;
// either may be nil.
func (m *model) reindex(old, now *object) {
	type entry struct {
		who remit.Ref
		by  mentionKind
	}
	collect := func(o *object) map[entry]struct{} {
		if o == nil || o.body == nil {
			return nil
		}
		set := map[entry]struct{}{}
		o.body.mentions(o.ref, func(who remit.Ref, by mentionKind) { set[entry{who, by}] = struct{}{} })
		return set
	}
	before, after := collect(old), collect(now)
	self := cmp.Or(now, old).ref
	for e := range before {
		if _, still := after[e]; !still {
			m.unmention(e.who, e.by, self)
		}
	}
	for e := range after {
		if _, had := before[e]; !had {
			m.mention(e.who, e.by, self)
		}
	}

	oldOwner, newOwner := controllerOf(old), controllerOf(now)
	if oldOwner != newOwner {
		m.unlink(m.owned, factOwned, oldOwner, self)
		m.link(m.owned, factOwned, newOwner, self)
	}
	if now != nil && m.offline {
		if b, ok := now.body.(*binding); ok {
			m.touchUnit(unit{ref: b.role}) // it may be one that only we know of
		}
	}
	if newOwner != (remit.Ref{}) {
		// The evidence about a controller changed, not only its existence.
		m.touch(fact{factOwned, newOwner})
		m.touchController(newOwner)
	}
	if oldOwner != (remit.Ref{}) && oldOwner != newOwner {
		m.touchController(oldOwner)
	}

	if was, is := reachedByName(old), reachedByName(now); was != is {
		name := remit.Ref{Kind: self.Kind, Name: self.Name}
		if is {
			m.link(m.byName, factByName, name, self)
		} else {
			m.unlink(m.byName, factByName, name, self)
		}
	}
}

// reachedByName says whether a role that names an object can lead to somebody:
// to an account, or to whom the credentials in a Secret authenticate.
func reachedByName(o *object) bool {
	if o == nil {
		return false
	}
	switch body := o.body.(type) {
	case *serviceAccount:
		return true
	case *holder:
		return o.ref.Kind == "Secret" && slices.ContainsFunc(body.credentials, func(c remit.Credential) bool { return c.Holder != remit.Ref{} })
	}
	return false
}

// touchController makes the workload dirty that a controlled object may be
// evidence for.
func (m *model) touchController(ref remit.Ref) {
	if ref.Kind != "Node" { // static pods are their own workloads
		m.touchUnit(unit{ref: ref})
	}
}

func (m *model) link(index map[remit.Ref]map[remit.Ref]struct{}, what factKind, at, ref remit.Ref) {
	if at == (remit.Ref{}) {
		return
	}
	set := index[at]
	if set == nil {
		set = map[remit.Ref]struct{}{}
		index[at] = set
	}
	set[ref] = struct{}{}
	m.touch(fact{what, at})
}

func (m *model) unlink(index map[remit.Ref]map[remit.Ref]struct{}, what factKind, at, ref remit.Ref) {
	set := index[at]
	if set == nil {
		return
	}
	delete(set, ref)
	if len(set) == 0 {
		delete(index, at)
	}
	m.touch(fact{what, at})
}

// flush projects every dirty unit and hands over what changed, section by
// section in their order. What a unit that moved to another section no longer
// gives is reported to left, out of that order. It stops at the first error.
func (m *model) flush(emit func(section string, records remit.Records, deleted []remit.ID) error, left func(section string, deleted []remit.ID) error) error {
	units := make([]*unitState, 0, len(m.dirty))
	rank := make(map[string]int, len(sectionOrder))
	for i, name := range sectionOrder {
		rank[name] = i
	}
	type ranked struct {
		rank int
		*unitState
	}
	order := make([]ranked, 0, len(m.dirty))
	for s := range m.dirty {
		order = append(order, ranked{rank[m.sectionOf(s.unit)], s})
	}
	clear(m.dirty)
	slices.SortFunc(order, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.ref.Kind, b.ref.Kind),
			cmp.Compare(a.ref.Namespace, b.ref.Namespace), cmp.Compare(a.ref.Name, b.ref.Name))
	})
	for _, r := range order {
		units = append(units, r.unitState)
	}
	order = nil

	for i, s := range units {
		units[i] = nil
		was := s.section
		section, records, deleted := m.projectUnit(s)
		if was != section && len(deleted) > 0 {
			if err := left(was, deleted); err != nil {
				return err
			}
			deleted = nil
		}
		if records.Len() == 0 && len(deleted) == 0 {
			continue
		}
		if err := emit(section, records, deleted); err != nil {
			return err
		}
	}
	return nil
}

// projectUnit projects one unit and returns what is different from last time.
func (m *model) projectUnit(s *unitState) (string, remit.Records, []remit.ID) {
	p := &projection{model: m, unit: s.unit}
	if m.live {
		p.reads = map[fact]struct{}{}
	}
	section := m.sectionOf(s.unit)
	if s.access {
		p.access()
	} else {
		p.project()
	}
	p.finish()
	if !m.live {
		delete(m.units, s.unit)
		return section, p.out, nil
	}

	m.rewire(s, p.reads)
	moved := s.section != section
	s.section = section
	before := make(map[remit.ID]uint64, len(s.given))
	for _, g := range s.given {
		before[g.id] = g.hash
	}
	count := p.out.Len()
	s.given = slices.Grow(s.given[:0], count)[:0]
	fresh := func(id remit.ID, record any) bool {
		h := m.hash(record)
		s.given = append(s.given, given{id, h})
		old, had := before[id]
		delete(before, id)
		return !had || old != h || moved
	}
	p.out.Identities = keep(p.out.Identities, func(r *remit.Identity) bool { return fresh(r.ID, r) })
	p.out.Credentials = keep(p.out.Credentials, func(r *remit.Credential) bool { return fresh(r.ID, r) })
	p.out.Roles = keep(p.out.Roles, func(r *remit.Role) bool { return fresh(r.ID, r) })
	p.out.Grants = keep(p.out.Grants, func(r *remit.Grant) bool { return fresh(r.ID, r) })
	p.out.Relations = keep(p.out.Relations, func(r *remit.Relation) bool { return fresh(r.ID, r) })
	p.out.Resources = keep(p.out.Resources, func(r *remit.Resource) bool { return fresh(r.ID, r) })
	var deleted []remit.ID
	for id := range before {
		deleted = append(deleted, id)
	}
	slices.Sort(deleted)
	if len(s.given) == 0 && !m.rooted(s.unit) {
		// Nothing is left that could give it anything; whatever names it
		// again makes it anew.
		m.rewire(s, nil)
		delete(m.units, s.unit)
	}
	return section, p.out, deleted
}

// rooted says whether there is still something that could give a unit records.
func (m *model) rooted(u unit) bool {
	e := m.mentioned[u.ref]
	if u.access {
		return e != nil && len(e.bindings) > 0
	}
	return e != nil || m.get(u.ref) != nil || len(m.owned[u.ref]) > 0
}

func keep[T any](records []T, fresh func(*T) bool) []T {
	out := records[:0]
	for i := range records {
		if fresh(&records[i]) {
			out = append(out, records[i])
		}
	}
	return slices.Clip(out)
}

// hash tells contents apart; 64 bits with a random seed are enough to see a
// change.
func (m *model) hash(record any) uint64 {
	b, err := json.Marshal(record)
	if err != nil {
		return 0 // then it always counts as changed
	}
	return maphash.Bytes(m.seed, b) | 1
}

// rewire replaces what a unit depends on.
func (m *model) rewire(s *unitState, reads map[fact]struct{}) {
	for _, f := range s.reads {
		if _, still := reads[f]; still {
			continue
		}
		if d := m.facts[f]; d != nil {
			d.remove(s)
			if d.empty() {
				delete(m.facts, f)
			}
		}
	}
	had := s.reads
	s.reads = make([]fact, 0, len(reads))
	old := make(map[fact]struct{}, len(had))
	for _, f := range had {
		old[f] = struct{}{}
	}
	for f := range reads {
		s.reads = append(s.reads, f)
		if _, was := old[f]; was {
			continue
		}
		d := m.facts[f]
		if d == nil {
			d = &dependents{}
			m.facts[f] = d
		}
		d.add(s)
	}
}

// dependents are the units that read a fact: few for most facts, thousands for
// a namespace.
type dependents struct {
	few  []*unitState
	many map[*unitState]struct{}
}

func (d *dependents) add(s *unitState) {
	if d.many != nil {
		d.many[s] = struct{}{}
		return
	}
	if len(d.few) < 8 {
		d.few = append(d.few, s)
		return
	}
	d.many = make(map[*unitState]struct{}, 16)
	for _, f := range d.few {
		d.many[f] = struct{}{}
	}
	d.few = nil
	d.many[s] = struct{}{}
}

func (d *dependents) remove(s *unitState) {
	delete(d.many, s)
	if i := slices.Index(d.few, s); i >= 0 {
		d.few = slices.Delete(d.few, i, i+1)
	}
}

func (d *dependents) empty() bool { return len(d.few) == 0 && len(d.many) == 0 }

func (d *dependents) each(f func(*unitState)) {
	for _, s := range d.few {
		f(s)
	}
	for s := range d.many {
		f(s)
	}
}

// sectionOf says in which section a unit's records are handed over.
func (m *model) sectionOf(u unit) string {
	if u.access {
		return sectionAccess
	}
	o := m.get(u.ref)
	if o != nil {
		if _, ok := o.body.(*custom); ok {
			return sectionAgents
		}
		return listingOf[u.ref.Kind].resource
	}
	switch l := listingOf[u.ref.Kind]; {
	case u.ref.Kind == "User", u.ref.Kind == "Group", u.ref.Kind == "OIDCIssuer", u.ref.Kind == "ServiceAccount", u.ref.Kind == "Node":
		return sectionSubjects
	case l != nil && !podControllers[u.ref.Kind]:
		return l.resource
	}
	return "pods"
}
