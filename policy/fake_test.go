package policy

import (
	"context"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"remit"
)

// fakeInventory is an inventory with the indexes of a real store and real
// pages, which counts its queries.
type fakeInventory struct {
	systems []remit.System

	identities  table[remit.Identity]
	credentials table[remit.Credential]
	roles       table[remit.Role]
	grants      table[remit.Grant]
	relations   table[remit.Relation]
	resources   table[remit.Resource]

	mu      sync.Mutex
	queries int
	page    int // at most so many a page; 0 is what is asked for
}

// table keeps records in the order of their IDs, with indexes from other IDs
// and words to positions.
type table[T any] struct {
	rows  []T
	id    func(*T) remit.ID
	keys  map[string]func(*T) string
	index map[string]map[string][]int
}

func (t *table[T]) build(rows []T, id func(*T) remit.ID, keys map[string]func(*T) string) {
	t.rows, t.id, t.keys = slices.Clone(rows), id, keys
	sort.Slice(t.rows, func(i, j int) bool { return id(&t.rows[i]) < id(&t.rows[j]) })
	keys["id"] = func(r *T) string { return string(id(r)) }
	t.index = map[string]map[string][]int{}
	for name, key := range keys {
		t.index[name] = map[string][]int{}
		for i := range t.rows {
			if k := key(&t.rows[i]); k != "" {
				t.index[name][k] = append(t.index[name][k], i)
			}
		}
	}
}

func (t *table[T]) list(f *fakeInventory, page remit.PageRequest, by map[string][]string, keep func(*T) bool) ([]T, string, error) {
	f.mu.Lock()
	f.queries++
	f.mu.Unlock()
	start := 0
	if page.After != "" {
		start, _ = strconv.Atoi(page.After)
	}
	limit := page.Limit
	if f.page > 0 {
		limit = min(limit, f.page)
	}
	var out []T
	var positions []int
	indexed := false
	for name, values := range by {
		if len(values) == 0 {
			continue
		}
		if indexed {
			panic("the fake joins no indexes")
		}
		indexed = true
		for _, v := range values {
			positions = append(positions, t.index[name][v]...)
		}
		slices.Sort(positions)
	}
	if indexed {
		for i := start; i < len(positions); i++ {
			r := &t.rows[positions[i]]
			if !keep(r) {
				continue
			}
			if len(out) == limit {
				return out, strconv.Itoa(i), nil
			}
			out = append(out, *r)
		}
		return out, "", nil
	}
	for i := start; i < len(t.rows); i++ {
		if !keep(&t.rows[i]) {
			continue
		}
		if len(out) == limit {
			return out, strconv.Itoa(i), nil
		}
		out = append(out, t.rows[i])
	}
	return out, "", nil
}

func newFake(all remit.Records, systems ...remit.System) *fakeInventory {
	f := &fakeInventory{systems: systems}
	f.identities.build(all.Identities, func(r *remit.Identity) remit.ID { return r.ID }, map[string]func(*remit.Identity) string{})
	f.credentials.build(all.Credentials, func(r *remit.Credential) remit.ID { return r.ID }, map[string]func(*remit.Credential) string{
		"identity":    func(r *remit.Credential) string { return string(r.Identity) },
		"location":    func(r *remit.Credential) string { return string(r.Location) },
		"fingerprint": func(r *remit.Credential) string { return r.Fingerprint },
		"native":      func(r *remit.Credential) string { return r.Native },
	})
	f.roles.build(all.Roles, func(r *remit.Role) remit.ID { return r.ID }, map[string]func(*remit.Role) string{})
	f.grants.build(all.Grants, func(r *remit.Grant) remit.ID { return r.ID }, map[string]func(*remit.Grant) string{
		"identity": func(r *remit.Grant) string { return string(r.Identity) },
		"role":     func(r *remit.Grant) string { return string(r.Role) },
	})
	f.relations.build(all.Relations, func(r *remit.Relation) remit.ID { return r.ID }, map[string]func(*remit.Relation) string{
		"from": func(r *remit.Relation) string { return string(r.From) },
		"to":   func(r *remit.Relation) string { return string(r.To) },
	})
	f.resources.build(all.Resources, func(r *remit.Resource) remit.ID { return r.ID }, map[string]func(*remit.Resource) string{})
	return f
}

func texts(ids []remit.ID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(id)
	}
	return out
}

func inSystem(f remit.Filter, r *remit.Record) bool { return f.System == "" || f.System == r.System }

func (f *fakeInventory) Systems(context.Context) ([]remit.System, error) { return f.systems, nil }

func (f *fakeInventory) Identities(_ context.Context, q remit.Filter, page remit.PageRequest) ([]remit.Identity, string, error) {
	return f.identities.list(f, page, map[string][]string{"id": texts(q.IDs)}, func(r *remit.Identity) bool { return inSystem(q, &r.Record) })
}

func (f *fakeInventory) Credentials(_ context.Context, q remit.Filter, page remit.PageRequest) ([]remit.Credential, string, error) {
	by := map[string][]string{
		"id": texts(q.IDs), "identity": texts(q.Identities), "location": texts(q.Locations),
		"fingerprint": q.Fingerprints, "native": q.Natives,
	}
	return f.credentials.list(f, page, by, func(r *remit.Credential) bool { return inSystem(q, &r.Record) })
}

func (f *fakeInventory) Roles(_ context.Context, q remit.Filter, page remit.PageRequest) ([]remit.Role, string, error) {
	return f.roles.list(f, page, map[string][]string{"id": texts(q.IDs)}, func(r *remit.Role) bool { return inSystem(q, &r.Record) })
}

func (f *fakeInventory) Grants(_ context.Context, q remit.Filter, page remit.PageRequest) ([]remit.Grant, string, error) {
	by := map[string][]string{"id": texts(q.IDs), "identity": texts(q.Identities), "role": texts(q.RoleIDs)}
	return f.grants.list(f, page, by, func(r *remit.Grant) bool { return inSystem(q, &r.Record) })
}

func (f *fakeInventory) Relations(_ context.Context, q remit.Filter, page remit.PageRequest) ([]remit.Relation, string, error) {
	by := map[string][]string{"id": texts(q.IDs), "from": texts(q.Identities), "to": texts(q.To)}
	return f.relations.list(f, page, by, func(r *remit.Relation) bool {
		return inSystem(q, &r.Record) && (len(q.Types) == 0 || slices.Contains(q.Types, string(r.Type)))
	})
}

func (f *fakeInventory) Resources(_ context.Context, q remit.Filter, page remit.PageRequest) ([]remit.Resource, string, error) {
	return f.resources.list(f, page, map[string][]string{"id": texts(q.IDs)}, func(r *remit.Resource) bool { return inSystem(q, &r.Record) })
}

// fakeFindings keeps findings by the rules of remit.FindingStore.
type fakeFindings struct {
	mu  sync.Mutex
	all map[remit.ID]remit.Finding
}

func newFindings() *fakeFindings { return &fakeFindings{all: map[remit.ID]remit.Finding{}} }

func (f *fakeFindings) PutFindings(_ context.Context, now time.Time, put []remit.Finding) (remit.FindingChanges, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var c remit.FindingChanges
	for _, one := range put {
		old, known := f.all[one.ID]
		switch {
		case !known:
			one.First = now
			c.Opened++
		case old.State == remit.Resolved:
			one.First, one.Reopened = old.First, old.Reopened+1
			c.Opened++
			c.Reopened++
		default:
			one.First = old.First
			c.Confirmed++
		}
		one.Last = now
		f.all[one.ID] = one
	}
	return c, nil
}

func (f *fakeFindings) ResolveFindings(_ context.Context, scope remit.FindingScope, since, now time.Time) (remit.FindingChanges, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var c remit.FindingChanges
	for id, one := range f.all {
		if one.State == remit.Resolved || one.System != scope.System || !slices.Contains(scope.Policies, one.Policy) ||
			len(scope.Subjects) > 0 && !slices.Contains(scope.Subjects, one.Subject.ID) || !one.Last.Before(since) {
			continue
		}
		one.State, one.Resolved = remit.Resolved, now
		f.all[id] = one
		c.Resolved++
	}
	return c, nil
}

// open lists "policy subject" of what is not resolved, sorted.
func (f *fakeFindings) open() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, one := range f.all {
		if one.State != remit.Resolved {
			out = append(out, one.Policy+" "+one.Subject.Ref.String())
		}
	}
	sort.Strings(out)
	return out
}
