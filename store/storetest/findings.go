package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"remit"
)

func finding(system remit.ID, policy string, severity remit.Severity, subject remit.Identity) remit.Finding {
	return remit.Finding{
		ID: remit.FindingID(policy, subject.ID), Policy: policy, Title: "title of " + policy, Severity: severity, System: system,
		Subject: remit.Subject{Record: remit.KindIdentity, Ref: subject.Ref, ID: subject.ID},
		Message: "it is wrong", Evidence: []remit.Fact{{Name: "fact", Value: "1"}}, Risks: []string{"NHI7"}, Controls: []string{"CC6.1"},
	}
}

func put(t testing.TB, s Store, now time.Time, list ...remit.Finding) remit.FindingChanges {
	t.Helper()
	changes, err := s.PutFindings(t.Context(), now, list)
	must(t, err)
	return changes
}

func resolve(t testing.TB, s Store, scope remit.FindingScope, since, now time.Time) remit.FindingChanges {
	t.Helper()
	changes, err := s.ResolveFindings(t.Context(), scope, since, now)
	must(t, err)
	return changes
}

// one returns the only finding of that ID.
func one(t testing.TB, s Store, id remit.ID) remit.Finding {
	t.Helper()
	got := all(t, s.Findings, remit.FindingFilter{IDs: []remit.ID{id}}, remit.PageRequest{})
	if len(got) != 1 {
		t.Fatalf("%d findings of ID %s", len(got), id)
	}
	return got[0]
}

func testFindingLife(t *testing.T, s Store) {
	sys := system(t, s, "one")
	at := func(h int) time.Time { return noon.Add(time.Duration(h) * time.Hour) }
	f := finding(sys, "p", remit.High, identity(sys, "ns", "a"))
	scope := remit.FindingScope{System: sys, Policies: []string{"p"}}

	same(t, "opened", put(t, s, at(0), f), remit.FindingChanges{Opened: 1})
	want := f
	want.State, want.First, want.Last = remit.Open, at(0), at(0)
	same(t, "open", one(t, s, f.ID), want)

	same(t, "confirmed", put(t, s, at(1), f), remit.FindingChanges{Confirmed: 1})
	want.Last = at(1)
	same(t, "still open", one(t, s, f.ID), want)

	f.Message, f.Severity, f.Evidence = "it is worse", remit.Critical, nil
	f.First, f.State = at(-100), remit.Resolved // of no weight
	same(t, "confirmed with other words", put(t, s, at(2), f, f), remit.FindingChanges{Confirmed: 1})
	want.Message, want.Severity, want.Evidence, want.Last = f.Message, f.Severity, nil, at(2)
	same(t, "the words follow", one(t, s, f.ID), want)

	same(t, "put since", resolve(t, s, scope, at(2), at(3)), remit.FindingChanges{})
	same(t, "not put since", resolve(t, s, scope, at(3), at(3)), remit.FindingChanges{Resolved: 1})
	want.State, want.Resolved, want.Last = remit.Resolved, at(3), at(3)
	same(t, "resolved", one(t, s, f.ID), want)
	same(t, "once", resolve(t, s, scope, at(9), at(9)), remit.FindingChanges{})

	same(t, "back", put(t, s, at(4), f), remit.FindingChanges{Opened: 1, Reopened: 1})
	want.State, want.Resolved, want.Last, want.Reopened = remit.Open, time.Time{}, at(4), 1
	same(t, "open again", one(t, s, f.ID), want)

	must(t, s.SetFindingState(t.Context(), f.ID, remit.Acknowledged, time.Time{}, at(5)))
	put(t, s, at(6), f)
	want.State, want.Last = remit.Acknowledged, at(6)
	same(t, "acknowledged stays", one(t, s, f.ID), want)
	must(t, s.SetFindingState(t.Context(), f.ID, remit.Open, time.Time{}, at(7)))
	want.State, want.Last = remit.Open, at(7)
	same(t, "opened by hand", one(t, s, f.ID), want)

	resolve(t, s, scope, at(8), at(8))
	wantKind(t, s.SetFindingState(t.Context(), f.ID, remit.Acknowledged, time.Time{}, at(9)), remit.Conflict)
	wantKind(t, s.SetFindingState(t.Context(), f.ID, remit.Resolved, time.Time{}, at(9)), remit.Invalid)
	wantKind(t, s.SetFindingState(t.Context(), f.ID, "mended", time.Time{}, at(9)), remit.Invalid)
	wantKind(t, s.SetFindingState(t.Context(), "fnd_none", remit.Open, time.Time{}, at(9)), remit.NotFound)

	g := finding(sys, "early", remit.Low, identity(sys, "ns", "a"))
	g.First = at(-10)
	put(t, s, at(9), g)
	if got := one(t, s, g.ID).First; !got.Equal(at(-10)) {
		t.Errorf("a detection on what happened before was first found %v", got)
	}
	_, err := s.PutFindings(t.Context(), noon, []remit.Finding{{ID: "nonsense", System: sys}})
	wantKind(t, err, remit.Invalid)
}

func testFindingSuppression(t *testing.T, s Store) {
	sys := system(t, s, "one")
	at := func(h int) time.Time { return noon.Add(time.Duration(h) * time.Hour) }
	f := finding(sys, "p", remit.High, identity(sys, "ns", "a"))
	put(t, s, at(0), f)
	for _, until := range []time.Time{{}, at(0), at(1)} {
		wantKind(t, s.SetFindingState(t.Context(), f.ID, remit.Suppressed, until, at(1)), remit.Invalid)
	}
	must(t, s.SetFindingState(t.Context(), f.ID, remit.Suppressed, at(5), at(1)))
	for h, want := range map[int]remit.FindingState{2: remit.Suppressed, 4: remit.Suppressed} {
		put(t, s, at(h), f)
		if got := one(t, s, f.ID); got.State != want || !got.SuppressedUntil.Equal(at(5)) {
			t.Errorf("at %d it is %s until %v", h, got.State, got.SuppressedUntil)
		}
	}
	same(t, "lapsed", put(t, s, at(5), f), remit.FindingChanges{Confirmed: 1})
	if got := one(t, s, f.ID); got.State != remit.Open || !got.SuppressedUntil.IsZero() {
		t.Errorf("lapsed, it is %s until %v", got.State, got.SuppressedUntil)
	}
	// A suppressed finding is resolved like any, and comes back open.
	must(t, s.SetFindingState(t.Context(), f.ID, remit.Suppressed, at(50), at(6)))
	same(t, "resolved", resolve(t, s, remit.FindingScope{System: sys, Policies: []string{"p"}}, at(7), at(7)), remit.FindingChanges{Resolved: 1})
	put(t, s, at(8), f)
	if got := one(t, s, f.ID); got.State != remit.Open || got.Reopened != 1 || !got.SuppressedUntil.IsZero() {
		t.Errorf("back, it is %+v", got)
	}
}

func testFindingScope(t *testing.T, s Store) {
	sys, other := system(t, s, "one"), system(t, s, "two")
	a, b, c := identity(sys, "ns", "a"), identity(sys, "ns", "b"), identity(other, "ns", "c")
	for _, policy := range []string{"p", "q"} {
		put(t, s, noon, finding(sys, policy, remit.Low, a), finding(sys, policy, remit.Low, b), finding(other, policy, remit.Low, c))
	}
	later := noon.Add(time.Hour)
	for _, step := range []struct {
		scope remit.FindingScope
		want  int
	}{
		{remit.FindingScope{System: sys}, 0},
		{remit.FindingScope{System: sys, Policies: []string{"none"}}, 0},
		{remit.FindingScope{System: sys, Policies: []string{"p", "q"}, Subjects: []remit.ID{c.ID}}, 0},
		{remit.FindingScope{System: sys, Policies: []string{"p"}, Subjects: []remit.ID{a.ID}}, 1},
		{remit.FindingScope{System: sys, Policies: []string{"p"}}, 1},
		{remit.FindingScope{System: sys, Policies: []string{"p", "q"}}, 2},
		{remit.FindingScope{System: other, Policies: []string{"p", "q"}}, 2},
	} {
		if got := resolve(t, s, step.scope, later, later); got.Resolved != step.want {
			t.Errorf("%+v resolves %d, want %d", step.scope, got.Resolved, step.want)
		}
	}
	_, err := s.ResolveFindings(t.Context(), remit.FindingScope{Policies: []string{"p"}}, later, later)
	wantKind(t, err, remit.Invalid)

	// More than a store writes at once.
	var list []remit.Finding
	for _, r := range many(sys, "many", 2500) {
		list = append(list, finding(sys, "m", remit.Info, r))
	}
	same(t, "many", put(t, s, noon, list...), remit.FindingChanges{Opened: 2500})
	same(t, "many again", put(t, s, later, list...), remit.FindingChanges{Confirmed: 2500})
	same(t, "many resolved", resolve(t, s, remit.FindingScope{System: sys, Policies: []string{"m"}}, later.Add(1000), later.Add(1000)),
		remit.FindingChanges{Resolved: 2500})
}

func testFindingFilters(t *testing.T, s Store) {
	sys, other := system(t, s, "one"), system(t, s, "two")
	a, b, c := identity(sys, "ns", "alpha-one"), identity(sys, "ns", "beta"), identity(other, "", "alpha-two")
	f1, f2, f3 := finding(sys, "p", remit.Low, a), finding(sys, "q", remit.High, b), finding(other, "p", remit.Critical, c)
	f2.Risks, f2.Identity = []string{"ASI03", "T1528", "ASI03"}, a.ID
	f3.Risks = nil
	put(t, s, noon, f1, f2, f3)
	must(t, s.SetFindingState(t.Context(), f2.ID, remit.Acknowledged, time.Time{}, noon))
	label := map[remit.ID]string{f1.ID: "1", f2.ID: "2", f3.ID: "3"}
	for what, c := range map[string]struct {
		f    remit.FindingFilter
		want string // in the default order: the worst first
	}{
		"all":           {remit.FindingFilter{}, "3 2 1"},
		"system":        {remit.FindingFilter{System: sys}, "2 1"},
		"no system":     {remit.FindingFilter{System: remit.SystemID("test", "none")}, ""},
		"IDs":           {remit.FindingFilter{IDs: []remit.ID{f1.ID, f3.ID}}, "3 1"},
		"policy":        {remit.FindingFilter{Policies: []string{"p", "none"}}, "3 1"},
		"severity":      {remit.FindingFilter{MinimumSeverity: remit.High}, "3 2"},
		"least":         {remit.FindingFilter{MinimumSeverity: remit.Info}, "3 2 1"},
		"state":         {remit.FindingFilter{States: []remit.FindingState{remit.Acknowledged}}, "2"},
		"states":        {remit.FindingFilter{States: []remit.FindingState{remit.Open, remit.Acknowledged, remit.Open}}, "3 2 1"},
		"resolved":      {remit.FindingFilter{States: []remit.FindingState{remit.Resolved}}, ""},
		"subject":       {remit.FindingFilter{Subjects: []remit.ID{a.ID}}, "1"},
		"identity":      {remit.FindingFilter{Identities: []remit.ID{a.ID}}, "2 1"},
		"namespace":     {remit.FindingFilter{Namespaces: []string{"ns"}}, "2 1"},
		"no namespace":  {remit.FindingFilter{Namespaces: []string{""}}, "3"},
		"risk":          {remit.FindingFilter{Risks: []string{"T1528", "NHI7"}}, "2 1"},
		"search":        {remit.FindingFilter{Search: "ALPHA"}, "3 1"},
		"search words":  {remit.FindingFilter{Search: "two alp"}, "3"},
		"and":           {remit.FindingFilter{System: sys, Policies: []string{"p"}, Search: "alpha", MinimumSeverity: remit.Low}, "1"},
		"and, but none": {remit.FindingFilter{System: sys, Policies: []string{"p"}, MinimumSeverity: remit.High}, ""},
	} {
		for _, limit := range []int{1, 10} {
			var got []string
			for _, f := range all(t, s.Findings, c.f, remit.PageRequest{Limit: limit}) {
				got = append(got, label[f.ID])
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s: %v, want %s", what, got, c.want)
			}
		}
	}
	_, _, err := s.Findings(t.Context(), remit.FindingFilter{MinimumSeverity: "dreadful"}, remit.PageRequest{})
	wantKind(t, err, remit.Invalid)
	_, _, err = s.Findings(t.Context(), remit.FindingFilter{}, remit.PageRequest{Sort: "colour"})
	wantKind(t, err, remit.Invalid)
}

func testFindingCounts(t *testing.T, s Store) {
	sys, other := system(t, s, "one"), system(t, s, "two")
	a, b, c := identity(sys, "ns", "a"), identity(sys, "ns", "b"), identity(other, "ns", "c")
	f1, f2, f3 := finding(sys, "p", remit.Low, a), finding(sys, "q", remit.High, b), finding(other, "p", remit.High, c)
	f2.Risks = []string{"ASI03", "ASI03", "NHI7"}
	put(t, s, noon, f1, f2, f3)
	must(t, s.SetFindingState(t.Context(), f2.ID, remit.Suppressed, noon.Add(time.Hour), noon))
	counts, err := s.FindingCounts(t.Context(), sys)
	same(t, "of one system", counted(t, counts, err), map[string]int64{
		"=": 2, "severity=low": 1, "severity=high": 1, "policy=p": 1, "policy=q": 1,
		"state=open": 1, "state=suppressed": 1, "risk=NHI7": 2, "risk=ASI03": 1,
	})
	f1.Severity, f1.Risks = remit.Critical, nil
	put(t, s, noon.Add(time.Minute), f1)
	resolve(t, s, remit.FindingScope{System: sys, Policies: []string{"q"}}, noon.Add(time.Minute), noon.Add(time.Minute))
	counts, err = s.FindingCounts(t.Context(), "")
	same(t, "of all", counted(t, counts, err), map[string]int64{
		"=": 2, "severity=critical": 1, "severity=high": 1, "policy=p": 2, "state=open": 2, "risk=NHI7": 1,
	})
}

func testHostileFindings(t *testing.T, s Store) {
	sys := system(t, s, "one")
	for i, name := range hostile {
		subject := identity(sys, name, name)
		f := finding(sys, fmt.Sprint("p", i), remit.High, subject)
		f.Policy, f.Message, f.Risks = name, name, []string{name, name}
		f.Evidence = []remit.Fact{{Name: name, Value: name}}
		for range 2 {
			put(t, s, noon, f)
		}
		got := one(t, s, f.ID)
		if got.Message != clean(name) || got.Policy != clean(name) || got.Subject.Name != clean(name) {
			t.Errorf("%q came back as %+v", name, got)
		}
		if got := all(t, s.Findings, remit.FindingFilter{Policies: []string{name}, Risks: []string{name}}, remit.PageRequest{}); len(got) == 0 {
			t.Errorf("%q is not found", name)
		}
		if got := resolve(t, s, remit.FindingScope{System: sys, Policies: []string{name}, Subjects: []remit.ID{subject.ID}}, noon.Add(1000), noon.Add(1000)); got.Resolved != 1 {
			t.Errorf("%q resolves %d", name, got.Resolved)
		}
	}
	counts, err := s.FindingCounts(t.Context(), sys)
	same(t, "counts", counted(t, counts, err), map[string]int64{})
}

func testFindingPages(t *testing.T, s Store) {
	sys := system(t, s, "one")
	var list []remit.Finding
	for i, r := range many(sys, "ns", 120) {
		f := finding(sys, "p", remit.Severities[i%5], r)
		f.First = noon.Add(-time.Duration(i%7) * time.Hour)
		list = append(list, f)
	}
	put(t, s, noon, list...)
	for i, f := range list {
		switch i % 4 {
		case 1:
			must(t, s.SetFindingState(t.Context(), f.ID, remit.Acknowledged, time.Time{}, noon))
		case 2:
			must(t, s.SetFindingState(t.Context(), f.ID, remit.Suppressed, noon.Add(time.Hour), noon))
		}
	}
	for sort, less := range findingOrders {
		want := slices.Clone(list)
		slices.SortFunc(want, less)
		got := all(t, s.Findings, remit.FindingFilter{}, remit.PageRequest{Limit: 13, Sort: sort})
		for i := range want {
			if len(got) != len(want) || got[i].ID != want[i].ID {
				t.Fatalf("by %q the finding %d of %d is another", sort, i, len(got))
			}
		}
	}
}
