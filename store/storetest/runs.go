package storetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"remit"
)

func testSystems(t *testing.T, s Store) {
	empty, err := s.Systems(t.Context())
	must(t, err)
	if len(empty) != 0 {
		t.Fatalf("a new store has systems: %v", empty)
	}
	b := remit.System{
		ID: remit.SystemID("kubernetes", "b"), Connector: "kubernetes", Name: "b", Native: "b", Version: "v1.37",
		Mode: remit.ModeObserve, Observed: noon, Gaps: []remit.Gap{{Section: "secrets", Reason: "forbidden", Need: "list"}},
		Attributes: map[string]string{"region": "eu"},
	}
	a := remit.System{ID: remit.SystemID("aws", "a"), Connector: "aws", Name: "a", Mode: remit.ModeEnforce}
	must(t, s.PutSystem(t.Context(), b))
	must(t, s.PutSystem(t.Context(), a))
	got, err := s.Systems(t.Context())
	must(t, err)
	same(t, "systems", got, []remit.System{a, b})

	b.Gaps, b.Version = nil, "v1.38"
	must(t, s.PutSystem(t.Context(), b))
	got, err = s.Systems(t.Context())
	must(t, err)
	same(t, "systems after a change", got, []remit.System{a, b})

	wantKind(t, s.PutSystem(t.Context(), remit.System{ID: remit.SystemID("aws", "c"), Name: "b"}), remit.Conflict)
	wantKind(t, s.PutSystem(t.Context(), remit.System{ID: "sys_short", Name: "c"}), remit.Invalid)
	wantKind(t, s.PutSystem(t.Context(), remit.System{ID: remit.SystemID("aws", "c")}), remit.Invalid)
}

func testRunNeedsSystem(t *testing.T, s Store) {
	_, err := s.StartRun(t.Context(), remit.SystemID("test", "absent"))
	wantKind(t, err, remit.NotFound)
}

func testInvalidRecords(t *testing.T, s Store) {
	sys, other := system(t, s, "one"), system(t, s, "two")
	run := start(t, s, sys)
	foreign := identity(other, "ns", "foreign")
	nameless := identity(sys, "ns", "good")
	nameless.ID = ""
	wrong := identity(sys, "ns", "good")
	wrong.ID = role(sys, "ns", "r").ID
	shouting := identity(sys, "ns", "good")
	shouting.ID = "idn_ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for _, bad := range []remit.Identity{foreign, nameless, wrong, shouting} {
		_, err := run.Apply(t.Context(), "s", noon, identities(identity(sys, "ns", "good"), bad), nil)
		wantKind(t, err, remit.Invalid)
	}
	_, err := run.Apply(t.Context(), "s", time.Time{}, identities(identity(sys, "ns", "good")), nil)
	wantKind(t, err, remit.Invalid)
	if got := all(t, s.Identities, remit.Filter{}, remit.PageRequest{}); len(got) != 0 {
		t.Errorf("a refused page left %v behind", names(got))
	}
	_, err = s.History(t.Context(), "nonsense")
	wantKind(t, err, remit.Invalid)
	_, err = s.Counts(t.Context(), remit.KindFinding, "")
	wantKind(t, err, remit.Invalid)
	versions, err := s.History(t.Context(), identity(sys, "ns", "never").ID)
	if err != nil || len(versions) != 0 {
		t.Errorf("the history of what was never seen is %v, %v", versions, err)
	}
}

func testTouched(t *testing.T, s Store) {
	sys := system(t, s, "one")
	run := start(t, s, sys)
	a, b := identity(sys, "ns", "a"), identity(sys, "ns", "b")
	c := credential(sys, "ns", "c", a.ID)
	page := remit.Records{Identities: []remit.Identity{a, b}, Credentials: []remit.Credential{c}}

	same(t, "first", apply(t, run, "s", noon, page), remit.Changes{Added: 3, Touched: ids(a.ID, b.ID, c.ID)})
	same(t, "again", apply(t, run, "s", noon.Add(time.Hour), page), remit.Changes{Unchanged: 3, Touched: []remit.ID{}})

	// The same instant in another zone, and the same lists, are no change.
	page.Credentials[0].Expires = noon
	apply(t, run, "s", noon, page)
	page.Credentials[0].Expires = noon.In(time.FixedZone("elsewhere", 3600))
	page.Credentials[0].Labels = map[string]string{}
	same(t, "another zone", apply(t, run, "s", noon, page), remit.Changes{Unchanged: 3, Touched: []remit.ID{}})

	// A credential that changes hands concerns both.
	page.Credentials[0].Identity = b.ID
	same(t, "changed hands", apply(t, run, "s", noon.Add(2*time.Hour), page),
		remit.Changes{Updated: 1, Unchanged: 2, Touched: ids(a.ID, b.ID, c.ID)})
	same(t, "removed", apply(t, run, "s", noon.Add(3*time.Hour), remit.Records{}, c.ID),
		remit.Changes{Removed: 1, Touched: ids(b.ID, c.ID)})
}

func testTouchedEnds(t *testing.T, s Store) {
	sys := system(t, s, "one")
	run := start(t, s, sys)
	a, b := identity(sys, "ns", "a"), identity(sys, "ns", "b")
	r, secret := role(sys, "ns", "r"), resource(sys, "ns", "secret")
	g := grant(sys, "ns", "g", a.ID, r.ID)
	acts := relation(sys, a.ID, b.ID, g.ID)
	holds := relation(sys, b.ID, secret.ID, "")
	got := apply(t, run, "s", noon, remit.Records{
		Roles: []remit.Role{r}, Grants: []remit.Grant{g}, Relations: []remit.Relation{acts, holds}, Resources: []remit.Resource{secret},
	})
	same(t, "added", got, remit.Changes{Added: 5, Touched: ids(a.ID, b.ID, r.ID, g.ID, acts.ID, holds.ID, secret.ID)})
	got = apply(t, run, "s", noon.Add(time.Hour), remit.Records{}, holds.ID)
	same(t, "removed", got, remit.Changes{Removed: 1, Touched: ids(b.ID, holds.ID)})
}

func testLastWins(t *testing.T, s Store) {
	sys := system(t, s, "one")
	run := start(t, s, sys)
	first, last := identity(sys, "ns", "a"), identity(sys, "ns", "a")
	first.Purpose, last.Purpose = "first", "last"
	same(t, "twice in a page", apply(t, run, "s", noon, identities(first, last)), remit.Changes{Added: 1, Touched: ids(first.ID)})
	same(t, "the last", all(t, s.Identities, remit.Filter{}, remit.PageRequest{}), []remit.Identity{last})
	same(t, "twice again", apply(t, run, "s", noon, identities(first, last)), remit.Changes{Unchanged: 1, Touched: []remit.ID{}})

	// What is shown and deleted at once goes, as with two pages in turn.
	same(t, "and deleted", apply(t, run, "s", noon.Add(time.Hour), identities(first, identity(sys, "ns", "new")), first.ID, identity(sys, "ns", "new").ID),
		remit.Changes{Removed: 1, Touched: ids(first.ID)})
	versions, err := s.History(t.Context(), first.ID)
	must(t, err)
	same(t, "history", versions, []remit.Version{{From: noon, To: noon.Add(time.Hour), Learned: noon, Removed: true, Record: last}})
}

func testPartialListing(t *testing.T, s Store) {
	sys := system(t, s, "one")
	run := start(t, s, sys)
	list := many(sys, "ns", 10)
	run.Begin("s")
	apply(t, run, "s", noon, identities(list...))
	complete(t, run, "s", noon)

	// A listing that breaks off, and a run that ends without a word.
	run.Begin("s")
	apply(t, run, "s", noon, identities(list[:3]...))
	run = start(t, s, sys)
	run.Begin("other")
	complete(t, run, "other", noon)
	if got := all(t, s.Identities, remit.Filter{}, remit.PageRequest{}); len(got) != 10 {
		t.Fatalf("%d of 10 are left", len(got))
	}

	// A failed page leaves a hole, of which the connector knows.
	run.Begin("s")
	apply(t, run, "s", noon, identities(list[5:]...))
	got := complete(t, run, "s", noon.Add(time.Hour))
	if got.Removed != 5 || len(got.Touched) != 5 {
		t.Errorf("a whole listing of 5 of 10 removed %d and touched %d", got.Removed, len(got.Touched))
	}
	same(t, "left", names(all(t, s.Identities, remit.Filter{}, remit.PageRequest{})), names(list[5:]))
}

func testCompleteNeedsBegin(t *testing.T, s Store) {
	sys := system(t, s, "one")
	run := start(t, s, sys)
	apply(t, run, "s", noon, identities(many(sys, "ns", 3)...))
	_, err := run.Complete(t.Context(), "s", noon)
	wantKind(t, err, remit.Conflict)
	run.Begin("s")
	complete(t, run, "s", noon)
	_, err = run.Complete(t.Context(), "s", noon)
	wantKind(t, err, remit.Conflict)
}

func testBeginForgets(t *testing.T, s Store) {
	sys := system(t, s, "one")
	run := start(t, s, sys)
	list := many(sys, "ns", 4)
	run.Begin("s")
	apply(t, run, "s", noon, identities(list...))
	run.Begin("s") // the listing expired, the connector begins again
	apply(t, run, "s", noon, identities(list[:2]...))
	if got := complete(t, run, "s", noon); got.Removed != 2 {
		t.Errorf("removed %d, want 2", got.Removed)
	}
}

func testMoved(t *testing.T, s Store) {
	sys := system(t, s, "one")
	run := start(t, s, sys)
	a := identity(sys, "ns", "a")
	run.Begin("first")
	apply(t, run, "first", noon, identities(a, identity(sys, "ns", "b")))
	complete(t, run, "first", noon)

	got := apply(t, run, "second", noon.Add(time.Hour), identities(a))
	same(t, "moved", got, remit.Changes{Unchanged: 1, Touched: []remit.ID{}})
	run.Begin("first")
	if got := complete(t, run, "first", noon.Add(2*time.Hour)); got.Removed != 1 {
		t.Errorf("the section that it left removed %d, want only the other", got.Removed)
	}
	versions, err := s.History(t.Context(), a.ID)
	must(t, err)
	if len(versions) != 1 {
		t.Errorf("moving made versions: %v", versions)
	}
	run.Begin("second")
	if got := complete(t, run, "second", noon.Add(3*time.Hour)); got.Removed != 1 {
		t.Errorf("the section that it came to removed %d, want 1", got.Removed)
	}
}

func testDeletion(t *testing.T, s Store) {
	one, two := system(t, s, "one"), system(t, s, "two")
	run, other := start(t, s, one), start(t, s, two)
	list := many(one, "ns", 4)
	apply(t, run, "s", noon, identities(list...))
	// Twice, what never was, of another system, of no kind: nothing of that is
	// an error, since a watch may tell of what was gone before it began.
	got := apply(t, run, "s", noon.Add(time.Hour), remit.Records{},
		list[0].ID, list[0].ID, identity(one, "ns", "never").ID, remit.ID("nonsense"))
	same(t, "deleted", got, remit.Changes{Removed: 1, Touched: ids(list[0].ID)})
	same(t, "by another system", apply(t, other, "s", noon, remit.Records{}, list[1].ID), remit.Changes{Touched: []remit.ID{}})
	// The system's word holds whichever section showed it last.
	same(t, "of another section", apply(t, run, "t", noon.Add(time.Hour), remit.Records{}, list[2].ID),
		remit.Changes{Removed: 1, Touched: ids(list[2].ID)})
	same(t, "left", names(all(t, s.Identities, remit.Filter{}, remit.PageRequest{})), []string{list[1].Name, list[3].Name})
}

// testLargeSection crosses the sizes in which a store works internally.
func testLargeSection(t *testing.T, s Store) {
	sys := system(t, s, "one")
	run := start(t, s, sys)
	list := many(sys, "ns", 5003)
	run.Begin("s")
	for part := range slices.Chunk(list, 997) {
		apply(t, run, "s", noon, identities(part...))
	}
	complete(t, run, "s", noon)
	if got := all(t, s.Identities, remit.Filter{}, remit.PageRequest{Limit: 1000}); len(got) != len(list) {
		t.Fatalf("%d of %d", len(got), len(list))
	}
	run.Begin("s")
	apply(t, run, "s", noon, identities(list[4000], list[5002]))
	if got := complete(t, run, "s", noon.Add(time.Hour)); got.Removed != len(list)-2 || len(got.Touched) != got.Removed {
		t.Errorf("removed %d, touched %d of %d", got.Removed, len(got.Touched), len(list)-2)
	}
	same(t, "left", names(all(t, s.Identities, remit.Filter{}, remit.PageRequest{})), names([]remit.Identity{list[4000], list[5002]}))
	// What was, found far behind the first names.
	then := remit.Filter{At: noon, Search: "004998"}
	same(t, "found in the past", names(all(t, s.Identities, then, remit.PageRequest{Limit: 1})), []string{"account-004998"})
	counts, err := s.Counts(t.Context(), remit.KindIdentity, sys)
	if got := counted(t, counts, err)["="]; got != 2 {
		t.Errorf("counted %d, want 2", got)
	}
}

// testConcurrentRuns writes several systems, and one system twice, at once,
// while others read.
func testConcurrentRuns(t *testing.T, s Store) {
	const each, pages = 40, 5
	systems := []remit.ID{system(t, s, "a"), system(t, s, "b"), system(t, s, "b2")}
	var wg sync.WaitGroup
	for _, sys := range append(systems, systems[0]) {
		run := start(t, s, sys)
		wg.Go(func() {
			for page := range pages {
				var records remit.Records
				for i := range each {
					id := identity(sys, "ns", fmt.Sprintf("n%d", page*each+i))
					records.Identities = append(records.Identities, id)
					records.Credentials = append(records.Credentials, credential(sys, "ns", id.Name, id.ID))
				}
				if _, err := run.Apply(context.WithoutCancel(t.Context()), "s", noon, records, nil); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 10 {
				if _, _, err := s.Identities(t.Context(), remit.Filter{System: sys}, remit.PageRequest{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, kind := range []remit.RecordKind{remit.KindIdentity, remit.KindCredential} {
		for _, sys := range systems {
			counts, err := s.Counts(t.Context(), kind, sys)
			if got := counted(t, counts, err)["="]; got != each*pages {
				t.Errorf("%d of kind %s are counted, want %d", got, kind, each*pages)
			}
		}
	}
	if got := all(t, s.Identities, remit.Filter{}, remit.PageRequest{}); len(got) != 3*each*pages {
		t.Errorf("%d identities, want %d", len(got), 3*each*pages)
	}
}

// testStoppedCaller ends the context of a write and expects nothing of it, and
// a store that goes on.
func testStoppedCaller(t *testing.T, s Store) {
	sys := system(t, s, "one")
	run := start(t, s, sys)
	stopped, stop := context.WithCancel(t.Context())
	stop()
	_, err := run.Apply(stopped, "s", noon, identities(many(sys, "ns", 10)...), nil)
	wantKind(t, err, remit.Unavailable)
	for i := range 10 {
		soon, stop := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond)
		_, err := run.Apply(soon, "s", noon, identities(many(sys, "ns", 500)...), nil)
		stop()
		counts, countErr := s.Counts(t.Context(), remit.KindIdentity, sys)
		got := counted(t, counts, countErr)["="]
		if err != nil && got != 0 || err == nil && got != 500 {
			t.Fatalf("after %v there are %d", err, got)
		}
		if err == nil {
			break
		}
	}
	apply(t, run, "s", noon, identities(many(sys, "ns", 500)...))
}
