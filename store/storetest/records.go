package storetest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"remit"
)

// noon is when most tests begin; with microseconds, which must not be lost.
var noon = time.Date(2026, 3, 14, 12, 0, 0, 123456000, time.UTC)

// system puts a system of that name and returns its ID.
func system(t testing.TB, s Store, name string) remit.ID {
	t.Helper()
	id := remit.SystemID("test", name)
	must(t, s.PutSystem(t.Context(), remit.System{ID: id, Connector: "test", Name: name, Mode: remit.ModeObserve}))
	return id
}

func start(t testing.TB, s Store, system remit.ID) remit.InventoryRun {
	t.Helper()
	run, err := s.StartRun(t.Context(), system)
	must(t, err)
	return run
}

func apply(t testing.TB, run remit.InventoryRun, section string, learned time.Time, records remit.Records, deleted ...remit.ID) remit.Changes {
	t.Helper()
	changes, err := run.Apply(t.Context(), section, learned, records, deleted)
	must(t, err)
	return changes
}

func complete(t testing.TB, run remit.InventoryRun, section string, learned time.Time) remit.Changes {
	t.Helper()
	changes, err := run.Complete(t.Context(), section, learned)
	must(t, err)
	return changes
}

func record(ref remit.Ref, system, id remit.ID) remit.Record {
	return remit.Record{ID: id, System: system, Ref: ref}
}

func identity(system remit.ID, namespace, name string) remit.Identity {
	ref := remit.Ref{Kind: "ServiceAccount", Namespace: namespace, Name: name}
	return remit.Identity{
		Record: record(ref, system, remit.IdentityID(system, ref)),
		Type:   remit.ServiceAccount, Status: remit.Active,
	}
}

func credential(system remit.ID, namespace, name string, holder remit.ID) remit.Credential {
	ref := remit.Ref{Kind: "Secret", Namespace: namespace, Name: name}
	return remit.Credential{
		Record: record(ref, system, remit.CredentialID(system, ref, "token")),
		Type:   remit.StaticToken, Status: remit.Active, Key: "token", Identity: holder,
	}
}

func grant(system remit.ID, namespace, name string, to, role remit.ID) remit.Grant {
	ref := remit.Ref{Kind: "RoleBinding", Namespace: namespace, Name: name}
	return remit.Grant{
		Record: record(ref, system, remit.GrantID(system, ref, to)),
		Status: remit.Active, Identity: to, Role: role, Scope: namespace,
	}
}

func role(system remit.ID, namespace, name string) remit.Role {
	ref := remit.Ref{Kind: "Role", Namespace: namespace, Name: name}
	return remit.Role{
		Record:      record(ref, system, remit.RoleID(system, ref)),
		Permissions: []remit.Permission{{Actions: []string{"get"}, Resources: []string{"secrets"}}},
	}
}

func relation(system remit.ID, from, to, via remit.ID) remit.Relation {
	ref := remit.Ref{Kind: "Pod", Name: string(from)}
	return remit.Relation{
		Record: record(ref, system, remit.RelationID(from, to, remit.CanActAs, remit.Exec, "")),
		Type:   remit.CanActAs, Right: remit.Exec, From: from, To: to, Via: via,
	}
}

func resource(system remit.ID, namespace, name string) remit.Resource {
	ref := remit.Ref{Kind: "Secret", Namespace: namespace, Name: name}
	return remit.Resource{Record: record(ref, system, remit.ResourceID(system, ref)), Type: "secret"}
}

func identities(list ...remit.Identity) remit.Records { return remit.Records{Identities: list} }

// many makes n identities, in the order of their names.
func many(system remit.ID, namespace string, n int) []remit.Identity {
	out := make([]remit.Identity, n)
	for i := range out {
		out[i] = identity(system, namespace, fmt.Sprintf("account-%06d", i))
	}
	return out
}

// all walks a list in pages of limit and returns every record.
func all[T, F any](t testing.TB, list func(context.Context, F, remit.PageRequest) ([]T, string, error), f F, page remit.PageRequest) []T {
	t.Helper()
	var out []T
	for {
		part, next, err := list(t.Context(), f, page)
		must(t, err)
		if limit := page.Limit; limit > 0 && (len(part) > limit || next != "" && len(part) < limit) {
			t.Fatalf("a page of %d has %d records and the cursor %q", limit, len(part), next)
		}
		out = append(out, part...)
		if next == "" {
			return out
		}
		if next == page.After {
			t.Fatalf("the cursor %q leads to itself", next)
		}
		page.After = next
	}
}

// names lists the names of identities.
func names(list []remit.Identity) []string {
	out := make([]string, len(list))
	for i, r := range list {
		out[i] = r.Name
	}
	return out
}

// ids lists IDs, sorted.
func ids(list ...remit.ID) []remit.ID {
	out := slices.Clone(list)
	slices.Sort(out)
	return out
}

// counted turns counts into a map without the facets named.
func counted(t testing.TB, counts []remit.FacetCount, err error, without ...string) map[string]int64 {
	t.Helper()
	must(t, err)
	out := make(map[string]int64)
	for _, c := range counts {
		if slices.Contains(without, c.Facet) {
			continue
		}
		if c.Count <= 0 {
			t.Errorf("%d of %s %q are counted", c.Count, c.Facet, c.Value)
		}
		key := c.Facet + "=" + c.Value
		if _, twice := out[key]; twice {
			t.Errorf("%s is counted twice", key)
		}
		out[key] = c.Count
	}
	return out
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t testing.TB, err error, kind remit.ErrorKind) {
	t.Helper()
	if remit.KindOf(err) != kind {
		t.Errorf("the error is %v (%s): want %s", err, remit.KindOf(err), kind)
	}
}

// fatal is what of testing.TB and rapid.T a comparison needs.
type fatal interface {
	Helper()
	Fatalf(format string, args ...any)
}

// same compares by JSON, in which an empty list and none are told apart only
// where a reader of the API could.
func same(t fatal, what string, got, want any) {
	t.Helper()
	g, err := json.MarshalIndent(got, "", " ")
	if err == nil {
		var w []byte
		if w, err = json.MarshalIndent(want, "", " "); string(g) == string(w) {
			return
		}
		t.Fatalf("%s: got %s\nwant %s", what, g, w)
	}
	t.Fatalf("%s: %v", what, err)
}
