package policy

import (
	"context"
	"slices"
	"sort"

	"remit"
)

// memory is an inventory of a few records, for the tests that policies carry.
// It knows the filters that an evaluation uses.
type memory struct {
	systems []remit.System
	records remit.Records
}

func newMemory(records remit.Records, gaps []string) *memory {
	m := &memory{records: records}
	seen := map[remit.ID]bool{}
	add := func(id remit.ID, name string) {
		if !seen[id] {
			seen[id] = true
			m.systems = append(m.systems, remit.System{ID: id, Connector: "kubernetes", Name: name, Mode: remit.ModeObserve})
		}
	}
	add(systemOfCase(caseSystem), caseSystem)
	for _, g := range gaps {
		m.systems[0].Gaps = append(m.systems[0].Gaps, remit.Gap{Section: g})
	}
	return m
}

func (m *memory) Systems(context.Context) ([]remit.System, error) { return m.systems, nil }

// selectRecords filters and orders by ID. Pages are not cut: the records of a
// test are few.
func selectRecords[T any](all []T, f remit.Filter, record func(*T) *remit.Record, more func(*T) bool) ([]T, string, error) {
	var out []T
	for i := range all {
		r := record(&all[i])
		if f.System != "" && r.System != f.System || len(f.IDs) > 0 && !slices.Contains(f.IDs, r.ID) || !more(&all[i]) {
			continue
		}
		out = append(out, all[i])
	}
	sort.Slice(out, func(i, j int) bool { return record(&out[i]).ID < record(&out[j]).ID })
	return out, "", nil
}

// chosen says whether a filter that asks for any of the values lets this pass.
func chosen[T comparable](asked []T, have T) bool {
	return len(asked) == 0 || slices.Contains(asked, have)
}

func (m *memory) Identities(_ context.Context, f remit.Filter, _ remit.PageRequest) ([]remit.Identity, string, error) {
	return selectRecords(m.records.Identities, f, func(r *remit.Identity) *remit.Record { return &r.Record },
		func(r *remit.Identity) bool { return chosen(f.Identities, r.ID) })
}

func (m *memory) Credentials(_ context.Context, f remit.Filter, _ remit.PageRequest) ([]remit.Credential, string, error) {
	return selectRecords(m.records.Credentials, f, func(r *remit.Credential) *remit.Record { return &r.Record },
		func(r *remit.Credential) bool {
			return chosen(f.Identities, r.Identity) && chosen(f.Locations, r.Location) &&
				chosen(f.Fingerprints, r.Fingerprint) && chosen(f.Natives, r.Native)
		})
}

func (m *memory) Roles(_ context.Context, f remit.Filter, _ remit.PageRequest) ([]remit.Role, string, error) {
	return selectRecords(m.records.Roles, f, func(r *remit.Role) *remit.Record { return &r.Record },
		func(*remit.Role) bool { return true })
}

func (m *memory) Grants(_ context.Context, f remit.Filter, _ remit.PageRequest) ([]remit.Grant, string, error) {
	return selectRecords(m.records.Grants, f, func(r *remit.Grant) *remit.Record { return &r.Record },
		func(r *remit.Grant) bool { return chosen(f.Identities, r.Identity) && chosen(f.RoleIDs, r.Role) })
}

func (m *memory) Relations(_ context.Context, f remit.Filter, _ remit.PageRequest) ([]remit.Relation, string, error) {
	return selectRecords(m.records.Relations, f, func(r *remit.Relation) *remit.Record { return &r.Record },
		func(r *remit.Relation) bool {
			return chosen(f.Identities, r.From) && chosen(f.To, r.To) && chosen(f.Types, string(r.Type))
		})
}

func (m *memory) Resources(_ context.Context, f remit.Filter, _ remit.PageRequest) ([]remit.Resource, string, error) {
	return selectRecords(m.records.Resources, f, func(r *remit.Resource) *remit.Record { return &r.Record },
		func(*remit.Resource) bool { return true })
}
