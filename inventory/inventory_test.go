package inventory_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"remit"
	"remit/connector"
	"remit/inventory"
	"remit/store/sqlstore"
)

// script is a connector that shows prepared pages.
type script struct {
	pages []connector.Page
	fail  error
}

var system = remit.System{ID: remit.SystemID("script", "1"), Connector: "script", Name: "script"}

func (s script) Describe() connector.Description                   { return connector.Description{Name: "script"} }
func (s script) System(context.Context) (remit.System, error)      { return system, nil }
func (s script) Watch(ctx context.Context, e connector.Emit) error { return s.Inventory(ctx, e) }
func (s script) Inventory(ctx context.Context, emit connector.Emit) error {
	for _, p := range s.pages {
		if err := emit(ctx, p); err != nil {
			return err
		}
	}
	return s.fail
}

func account(name string, owners ...remit.Owner) remit.Identity {
	ref := remit.Ref{Kind: "ServiceAccount", Namespace: "payments", Name: name}
	return remit.Identity{
		Record: remit.Record{ID: remit.IdentityID(system.ID, ref), System: system.ID, Ref: ref},
		Type:   remit.ServiceAccount, Status: remit.Active, Owners: owners,
	}
}

func accounts(section string, names ...string) connector.Page {
	p := connector.Page{Section: section, Begin: true, Complete: true}
	for _, name := range names {
		p.Records.Identities = append(p.Records.Identities, account(name))
	}
	return p
}

func open(t *testing.T) *sqlstore.Store {
	t.Helper()
	store, err := sqlstore.Open(t.Context(), filepath.Join(t.TempDir(), "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

func names(t *testing.T, store *sqlstore.Store) string {
	t.Helper()
	found, _, err := store.Identities(t.Context(), remit.Filter{System: system.ID}, remit.PageRequest{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, i := range found {
		all = append(all, i.Name)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// What is gone from a complete listing goes; what a partial one did not see
// stays, and the gap is told with the system.
func TestSyncRemovesOnlyWhatWasLookedFor(t *testing.T) {
	store := open(t)
	r := inventory.Reconciler{Store: store}
	sync := func(pages ...connector.Page) inventory.Result {
		t.Helper()
		result, err := r.Sync(t.Context(), script{pages: pages})
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	sync(accounts("a", "api", "batch"), accounts("b", "cron"))
	if got := names(t, store); got != "api batch cron" {
		t.Fatalf("after the first reading: %s", got)
	}

	gap := &remit.Gap{Section: "a", Reason: "forbidden", Need: "list serviceaccounts"}
	result := sync(
		connector.Page{Section: "a", Begin: true, Records: remit.Records{Identities: []remit.Identity{account("api")}}},
		connector.Page{Section: "a", Gap: gap},
		accounts("b", "cron", "dump"),
	)
	if got := names(t, store); got != "api batch cron dump" {
		t.Errorf("after a partial reading: %s; want batch, which was not looked for to the end, kept", got)
	}
	if len(result.System.Gaps) != 1 || result.System.Gaps[0] != *gap {
		t.Errorf("gaps: %v", result.System.Gaps)
	}

	result = sync(accounts("a", "api"), accounts("b"))
	if got := names(t, store); got != "api" {
		t.Errorf("after a complete reading: %s", got)
	}
	if len(result.System.Gaps) != 0 || result.Changes.Removed != 3 {
		t.Errorf("gaps %v, removed %d; want none, 3", result.System.Gaps, result.Changes.Removed)
	}
}

// A page that claims to be complete and yet has a gap completes nothing.
func TestSyncGapBeatsComplete(t *testing.T) {
	store := open(t)
	r := inventory.Reconciler{Store: store}
	if _, err := r.Sync(t.Context(), script{pages: []connector.Page{accounts("a", "api", "batch")}}); err != nil {
		t.Fatal(err)
	}
	page := accounts("a", "api")
	page.Gap = &remit.Gap{Section: "a", Reason: "cut off"}
	if _, err := r.Sync(t.Context(), script{pages: []connector.Page{page}}); err != nil {
		t.Fatal(err)
	}
	if got := names(t, store); got != "api batch" {
		t.Errorf("%s; want api batch", got)
	}
}

// A reading that breaks off keeps what it brought and fails.
func TestSyncBreaksOff(t *testing.T) {
	store := open(t)
	r := inventory.Reconciler{Store: store}
	broken := errors.New("connection reset")
	_, err := r.Sync(t.Context(), script{pages: []connector.Page{accounts("a", "api")}, fail: broken})
	if !errors.Is(err, broken) {
		t.Errorf("error %v; want %v", err, broken)
	}
	if got := names(t, store); got != "api" {
		t.Errorf("%s; want api", got)
	}
}

// A page larger than a transaction is written whole, deletions too, and tells
// what it touched.
func TestSyncLargePages(t *testing.T) {
	store := open(t)
	touched := 0
	r := inventory.Reconciler{Store: store, Changed: func(_ context.Context, _ remit.ID, ids []remit.ID) error {
		touched += len(ids)
		return nil
	}}
	page := connector.Page{Section: "a", Begin: true, Complete: true}
	var ids []remit.ID
	for n := range 3500 {
		i := account(fmt.Sprintf("app-%04d", n))
		page.Records.Identities = append(page.Records.Identities, i)
		ids = append(ids, i.ID)
	}
	result, err := r.Sync(t.Context(), script{pages: []connector.Page{page}})
	if err != nil {
		t.Fatal(err)
	}
	if result.Changes.Added != 3500 || touched != 3500 {
		t.Errorf("added %d, touched %d; want 3500", result.Changes.Added, touched)
	}
	if err := r.Watch(t.Context(), script{pages: []connector.Page{{Section: "a", Deleted: ids[:3499]}}}); err != nil {
		t.Fatal(err)
	}
	if got := names(t, store); got != "app-3499" {
		t.Errorf("left: %.100s", got)
	}
}

// Owners are known by any way of writing their name, and keep their order.
func TestOwners(t *testing.T) {
	people, err := inventory.ReadPeople("people.csv", strings.NewReader("# who is here\nAlice@Example.com, present\nmallory@example.com, left\n\nteam-payments\n"))
	if err != nil {
		t.Fatal(err)
	}
	store := open(t)
	r := inventory.Reconciler{Store: store, People: people, Now: func() time.Time { return time.Unix(1e9, 0).UTC() }}
	page := connector.Page{Section: "a", Begin: true, Complete: true, Records: remit.Records{Identities: []remit.Identity{
		account("api", remit.Owner{Name: "mallory@example.com", Source: "label owner"}, remit.Owner{Name: "@team-payments", Source: "namespace label team"}),
		account("batch", remit.Owner{Name: "Mallory@example.com", Source: "label owner"}),
		account("cron", remit.Owner{Name: "carol", Source: "label owner"}),
	}}}
	if _, err := r.Sync(t.Context(), script{pages: []connector.Page{page}}); err != nil {
		t.Fatal(err)
	}
	found, _, err := store.Identities(t.Context(), remit.Filter{}, remit.PageRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range found {
		for _, o := range i.Owners {
			got = append(got, fmt.Sprintf("%s:%s:%s", i.Name, o.Name, o.Status))
		}
	}
	want := "api:mallory@example.com:left api:@team-payments:present batch:Mallory@example.com:left cron:carol:"
	if strings.Join(got, " ") != want {
		t.Errorf("owners\n%s\nwant\n%s", strings.Join(got, " "), want)
	}
}

func TestReadPeopleRefuses(t *testing.T) {
	for input, want := range map[string]string{
		"alice\nbob, gone\n": `people.csv:2: "gone" is neither present nor left`,
		", left\n":           "people.csv:1: no name",
	} {
		_, err := inventory.ReadPeople("people.csv", strings.NewReader(input))
		if remit.KindOf(err) != remit.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v; want %s", input, err, want)
		}
	}
}
