package storetest

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"remit"
)

func yes(b bool) *bool { return &b }

func testFilters(t *testing.T, s Store) {
	one, two := system(t, s, "one"), system(t, s, "two")
	a, b, c := identity(one, "ns", "a"), identity(one, "", "b"), identity(two, "ns", "c")
	b.Kind, b.Type, b.Status, b.Environment, b.BuiltIn = "User", remit.Human, remit.Disabled, "production", true
	b.Expires, b.Owners = noon, []remit.Owner{{Name: "ann"}, {Name: "bob"}}
	ra := role(one, "ns", "r")
	k1, k2, k3 := credential(one, "ns", "k1", a.ID), credential(one, "ns", "k2", b.ID), credential(two, "ns", "k3", "")
	k1.NeverExpires, k1.Location, k1.Native, k1.Provider = true, resource(one, "ns", "k1").ID, "JTI=1", "kubernetes"
	k2.Expires, k2.LastUsed, k2.Fingerprint, k2.Type = noon.Add(time.Hour), noon, "f2", remit.APIKey
	k3.Expires, k3.Fingerprint, k3.Provider, k3.Status = noon.Add(-time.Hour), "f2", "aws", remit.Expired
	g1, g2 := grant(one, "ns", "g1", a.ID, ra.ID), grant(one, "", "g2", b.ID, "")
	g2.Expires = noon
	r1, r2 := relation(one, a.ID, b.ID, g1.ID), relation(one, b.ID, c.ID, "")
	apply(t, start(t, s, one), "s", noon, remit.Records{
		Identities: []remit.Identity{a, b}, Credentials: []remit.Credential{k1, k2}, Roles: []remit.Role{ra},
		Grants: []remit.Grant{g1, g2}, Relations: []remit.Relation{r1, r2}, Resources: []remit.Resource{resource(one, "ns", "k1")},
	})
	apply(t, start(t, s, two), "s", noon, remit.Records{Identities: []remit.Identity{c}, Credentials: []remit.Credential{k3}})

	check := func(what string, got []string, want string) {
		t.Helper()
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", what, got, want)
		}
	}
	for _, past := range []time.Time{{}, noon.Add(time.Minute)} {
		for what, c := range map[string]struct {
			f    remit.Filter
			want string
		}{
			"all":              {remit.Filter{}, "a b c"},
			"system":           {remit.Filter{System: one}, "a b"},
			"no system":        {remit.Filter{System: remit.SystemID("test", "none")}, ""},
			"IDs":              {remit.Filter{IDs: []remit.ID{a.ID, c.ID, "idn_none"}}, "a c"},
			"identities":       {remit.Filter{Identities: []remit.ID{a.ID, c.ID}}, "a c"},
			"kind":             {remit.Filter{Kinds: []string{"User", "Robot"}}, "b"},
			"namespace":        {remit.Filter{Namespaces: []string{"ns"}}, "a c"},
			"no namespace":     {remit.Filter{Namespaces: []string{""}}, "b"},
			"name":             {remit.Filter{Names: []string{"a", "b", "z"}}, "a b"},
			"name is exact":    {remit.Filter{Names: []string{"A", "a "}}, ""},
			"type":             {remit.Filter{Types: []string{"human"}}, "b"},
			"types":            {remit.Filter{Types: []string{"human", "service-account"}}, "a b c"},
			"status":           {remit.Filter{Statuses: []remit.Status{remit.Disabled}}, "b"},
			"active":           {remit.Filter{Statuses: []remit.Status{remit.Active}}, "a c"},
			"any status":       {remit.Filter{Statuses: []remit.Status{remit.Active, remit.Disabled}}, "a b c"},
			"environment":      {remit.Filter{Environments: []string{"production"}}, "b"},
			"no environment":   {remit.Filter{Environments: []string{""}}, "a c"},
			"built in":         {remit.Filter{BuiltIn: yes(true)}, "b"},
			"not built in":     {remit.Filter{BuiltIn: yes(false)}, "a c"},
			"owner":            {remit.Filter{Owner: "bob"}, "b"},
			"owner is exact":   {remit.Filter{Owner: "bo"}, ""},
			"unowned":          {remit.Filter{Unowned: true}, "a c"},
			"expiring":         {remit.Filter{ExpiresBefore: noon.Add(1000)}, "b"},
			"not yet":          {remit.Filter{ExpiresBefore: noon}, ""},
			"and":              {remit.Filter{System: one, Types: []string{"human"}, Namespaces: []string{"ns"}}, ""},
			"and, found":       {remit.Filter{System: one, Statuses: []remit.Status{remit.Disabled}, BuiltIn: yes(true), Search: "b", Owner: "ann"}, "b"},
			"search in system": {remit.Filter{System: two, Search: "c"}, "c"},
		} {
			c.f.At = past
			check(what, names(all(t, s.Identities, c.f, remit.PageRequest{Limit: 1})), c.want)
		}
		for what, c := range map[string]struct {
			f    remit.Filter
			want string
		}{
			"holder":          {remit.Filter{Identities: []remit.ID{a.ID, b.ID}}, "k1 k2"},
			"location":        {remit.Filter{Locations: []remit.ID{resource(one, "ns", "k1").ID}}, "k1"},
			"native":          {remit.Filter{Natives: []string{"JTI=1"}}, "k1"},
			"fingerprint":     {remit.Filter{Fingerprints: []string{"f2"}}, "k2 k3"},
			"provider":        {remit.Filter{Providers: []string{"aws", "kubernetes"}}, "k1 k3"},
			"no provider":     {remit.Filter{Providers: []string{""}}, "k2"},
			"expiring":        {remit.Filter{ExpiresBefore: noon}, "k3"},
			"expiring later":  {remit.Filter{ExpiresBefore: noon.Add(2 * time.Hour)}, "k2 k3"},
			"unused":          {remit.Filter{UsedBefore: noon}, "k1 k3"},
			"unused for long": {remit.Filter{UsedBefore: noon.Add(1000)}, "k1 k2 k3"},
			"never expires":   {remit.Filter{NeverExpires: yes(true)}, "k1"},
			"may expire":      {remit.Filter{NeverExpires: yes(false)}, "k2 k3"},
			"type":            {remit.Filter{Types: []string{string(remit.APIKey)}}, "k2"},
			"status":          {remit.Filter{Statuses: []remit.Status{remit.Expired}}, "k3"},
		} {
			c.f.At = past
			var got []string
			for _, r := range all(t, s.Credentials, c.f, remit.PageRequest{Limit: 1}) {
				got = append(got, r.Name)
			}
			check(what, got, c.want)
		}
		for what, c := range map[string]struct {
			f    remit.Filter
			want string
		}{
			"receiver": {remit.Filter{Identities: []remit.ID{a.ID}}, "g1"},
			"role":     {remit.Filter{RoleIDs: []remit.ID{ra.ID}}, "g1"},
			"expiring": {remit.Filter{ExpiresBefore: noon.Add(time.Hour)}, "g2"},
		} {
			c.f.At = past
			var got []string
			for _, r := range all(t, s.Grants, c.f, remit.PageRequest{Limit: 1}) {
				got = append(got, r.Name)
			}
			check(what, got, c.want)
		}
		for what, c := range map[string]struct {
			f    remit.Filter
			want []remit.ID
		}{
			"from": {remit.Filter{Identities: []remit.ID{a.ID}}, []remit.ID{r1.ID}},
			"to":   {remit.Filter{To: []remit.ID{c.ID}}, []remit.ID{r2.ID}},
			"via":  {remit.Filter{Grantors: []remit.ID{g1.ID}}, []remit.ID{r1.ID}},
			"type": {remit.Filter{Types: []string{string(remit.CanActAs)}}, ids(r1.ID, r2.ID)},
		} {
			c.f.At = past
			var got []remit.ID
			for _, r := range all(t, s.Relations, c.f, remit.PageRequest{Limit: 1}) {
				got = append(got, r.ID)
			}
			slices.Sort(got)
			same(t, what, got, c.want)
		}
		if got := all(t, s.Resources, remit.Filter{Types: []string{"secret"}, At: past}, remit.PageRequest{}); len(got) != 1 {
			t.Errorf("resources by type: %v", got)
		}
		if got := all(t, s.Roles, remit.Filter{Search: "r", At: past}, remit.PageRequest{}); len(got) != 1 {
			t.Errorf("roles by name: %v", got)
		}
	}
}

// testForeignFilters: a field that a kind of record does not have chooses
// nothing of it.
func testForeignFilters(t *testing.T, s Store) {
	sys := system(t, s, "one")
	a := identity(sys, "ns", "a")
	apply(t, start(t, s, sys), "s", noon, remit.Records{
		Identities: []remit.Identity{a}, Credentials: []remit.Credential{credential(sys, "ns", "c", a.ID)},
		Roles: []remit.Role{role(sys, "ns", "r")}, Grants: []remit.Grant{grant(sys, "ns", "g", a.ID, "")},
		Relations: []remit.Relation{relation(sys, a.ID, a.ID, "")}, Resources: []remit.Resource{resource(sys, "ns", "s")},
	})
	for _, c := range []struct {
		what string
		f    remit.Filter
		want string // the kinds that have the field and are found
	}{
		{"to", remit.Filter{To: []remit.ID{a.ID}}, "relation"},
		{"identities", remit.Filter{Identities: []remit.ID{a.ID}}, "identity credential grant relation"},
		{"types", remit.Filter{Types: []string{"static-token", "secret", "service-account", "can-act-as"}}, "identity credential relation resource"},
		{"statuses", remit.Filter{Statuses: []remit.Status{remit.Active}}, "identity credential grant"},
		{"unowned", remit.Filter{Unowned: true}, "identity"},
		{"owner", remit.Filter{Owner: "ann"}, ""},
		{"natives", remit.Filter{Natives: []string{"n"}}, ""},
		{"providers", remit.Filter{Providers: []string{""}}, "credential"},
		{"never expires", remit.Filter{NeverExpires: yes(false)}, "credential"},
		{"unused", remit.Filter{UsedBefore: noon}, "credential"},
		{"expiring", remit.Filter{ExpiresBefore: noon}, ""},
	} {
		for _, at := range []time.Time{{}, noon} {
			c.f.At = at
			var got []string
			add := func(kind remit.RecordKind, n int) {
				if n > 0 {
					got = append(got, string(kind))
				}
			}
			add(remit.KindIdentity, len(all(t, s.Identities, c.f, remit.PageRequest{})))
			add(remit.KindCredential, len(all(t, s.Credentials, c.f, remit.PageRequest{})))
			add(remit.KindRole, len(all(t, s.Roles, c.f, remit.PageRequest{})))
			add(remit.KindGrant, len(all(t, s.Grants, c.f, remit.PageRequest{})))
			add(remit.KindRelation, len(all(t, s.Relations, c.f, remit.PageRequest{})))
			add(remit.KindResource, len(all(t, s.Resources, c.f, remit.PageRequest{})))
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s finds %v, want %s", c.what, got, c.want)
			}
		}
	}
}

// testOrders compares text by its bytes, as Go does: the language of a
// PostgreSQL server would put "a-b" behind "aa" and "B" behind "a".
func testOrders(t *testing.T, s Store) {
	one, two := system(t, s, "one"), system(t, s, "two")
	var list []remit.Identity
	for i, name := range []string{"b", "a", "B", "a-b", "aa", "é", "z", "Z", "_", "1", "10", "9"} {
		for j, sys := range []remit.ID{one, two} {
			r := identity(sys, []string{"", "x", "X"}[i%3], name)
			r.Kind = []string{"User", "ServiceAccount", "user"}[(i+j)%3]
			r.Created = noon.Add(time.Duration(i%5) * time.Hour)
			if i%2 == 0 {
				r.Expires = noon.Add(-time.Duration(i) * time.Hour)
			}
			list = append(list, r)
		}
	}
	for _, sys := range []remit.ID{one, two} {
		var part []remit.Identity
		for _, r := range list {
			if r.System == sys {
				part = append(part, r)
			}
		}
		apply(t, start(t, s, sys), "s", noon, identities(part...))
	}
	for sort, less := range identityOrders {
		want := slices.Clone(list)
		slices.SortFunc(want, less)
		for _, limit := range []int{1, 5, 1000} {
			got := all(t, s.Identities, remit.Filter{}, remit.PageRequest{Limit: limit, Sort: sort})
			same(t, fmt.Sprintf("by %s, pages of %d", sort, limit), got, want)
		}
	}
}

func testCursors(t *testing.T, s Store) {
	sys := system(t, s, "one")
	apply(t, start(t, s, sys), "s", noon, remit.Records{
		Identities: many(sys, "ns", 150), Resources: []remit.Resource{resource(sys, "ns", "a"), resource(sys, "ns", "b")},
	})
	for _, limit := range []int{-1, 1001} {
		_, _, err := s.Identities(t.Context(), remit.Filter{}, remit.PageRequest{Limit: limit})
		wantKind(t, err, remit.Invalid)
	}
	_, _, err := s.Identities(t.Context(), remit.Filter{}, remit.PageRequest{Sort: "colour"})
	wantKind(t, err, remit.Invalid)
	got, next, err := s.Identities(t.Context(), remit.Filter{}, remit.PageRequest{})
	must(t, err)
	if len(got) != 100 || next == "" {
		t.Errorf("the page of no size has %d", len(got))
	}
	if got, end, err := s.Identities(t.Context(), remit.Filter{}, remit.PageRequest{After: next}); len(got) != 50 || end != "" || err != nil {
		t.Errorf("the last page has %d, %q, %v", len(got), end, err)
	}

	// Of another order, another filter, another kind; torn, forged, nonsense.
	for _, page := range []remit.PageRequest{
		{After: next, Sort: "created"},
		{After: next[:len(next)-3]},
		{After: next + "AA"},
		{After: "nonsense!"},
		{After: base64.RawURLEncoding.EncodeToString([]byte(`{}`))},
		{After: base64.RawURLEncoding.EncodeToString([]byte(`null`))},
		{After: "\x00\xff"},
	} {
		_, _, err := s.Identities(t.Context(), remit.Filter{}, page)
		wantKind(t, err, remit.Invalid)
	}
	_, _, err = s.Identities(t.Context(), remit.Filter{Namespaces: []string{"ns"}}, remit.PageRequest{After: next})
	wantKind(t, err, remit.Invalid)
	_, _, err = s.Resources(t.Context(), remit.Filter{}, remit.PageRequest{After: next})
	wantKind(t, err, remit.Invalid)
	_, _, err = s.Findings(t.Context(), remit.FindingFilter{}, remit.PageRequest{After: next})
	wantKind(t, err, remit.Invalid)
}

// testPagesWhileWriting walks a list while records come, change and go around
// the walker: what stays is seen exactly once.
func testPagesWhileWriting(t *testing.T, s Store) {
	one, two := system(t, s, "one"), system(t, s, "two")
	stay := append(many(one, "m", 200), many(two, "m", 200)...)
	runs := map[remit.ID]remit.InventoryRun{one: start(t, s, one), two: start(t, s, two)}
	apply(t, runs[one], "s", noon, identities(stay[:200]...))
	apply(t, runs[two], "s", noon, identities(stay[200:]...))
	for _, sort := range []string{"name", "kind", "created", "expires", "id"} {
		seen := make(map[remit.ID]int)
		page := remit.PageRequest{Limit: 17, Sort: sort}
		for n := 0; ; n++ {
			got, next, err := s.Identities(t.Context(), remit.Filter{}, page)
			must(t, err)
			for _, r := range got {
				seen[r.ID]++
			}
			if next == "" {
				break
			}
			page.After = next
			for sys, run := range runs {
				var records remit.Records
				for _, ns := range []string{"a", "m", "z"} {
					r := identity(sys, ns, fmt.Sprintf("between-%s-%d", sort, n))
					r.Created = noon.Add(time.Duration(n) * time.Second)
					records.Identities = append(records.Identities, r)
				}
				changed := stay[(n*7)%200]
				if sys == two {
					changed = stay[200+(n*11)%200]
				}
				changed.Purpose = fmt.Sprint(sort, n)
				records.Identities = append(records.Identities, changed)
				gone := identity(sys, "m", fmt.Sprintf("between-%s-%d", sort, n-2)).ID
				apply(t, run, "s", noon.Add(time.Duration(n)*time.Minute), records, gone)
			}
		}
		for _, r := range stay {
			if seen[r.ID] != 1 {
				t.Fatalf("by %s, %s is seen %d times", sort, r.Ref, seen[r.ID])
			}
		}
		for id, n := range seen {
			if n > 1 {
				t.Fatalf("by %s, %s is seen %d times", sort, id, n)
			}
		}
	}
}

func testCounts(t *testing.T, s Store) {
	one, two := system(t, s, "one"), system(t, s, "two")
	a, b := identity(one, "ns", "a"), identity(one, "ns", "b")
	b.Type, b.Owners, b.BuiltIn, b.Environment = remit.Agent, []remit.Owner{{Name: "ann"}}, true, "production"
	key := credential(one, "ns", "key", a.ID)
	key.NeverExpires, key.Provider = true, "aws"
	run := start(t, s, one)
	apply(t, run, "s", noon, remit.Records{Identities: []remit.Identity{a, b}, Credentials: []remit.Credential{key}})
	apply(t, start(t, s, two), "s", noon, identities(identity(two, "ns", "a")))

	counts, err := s.Counts(t.Context(), remit.KindIdentity, one)
	same(t, "of one system", counted(t, counts, err), map[string]int64{
		"=": 2, "type=service-account": 1, "type=agent": 1, "status=active": 2, "kind=ServiceAccount": 2, "namespace=ns": 2,
		"environment=": 1, "environment=production": 1, "built_in=true": 1, "built_in=false": 1, "owned=true": 1, "owned=false": 1,
	})
	counts, err = s.Counts(t.Context(), remit.KindIdentity, "")
	same(t, "of all", counted(t, counts, err, "environment", "built_in", "owned", "type"), map[string]int64{
		"=": 3, "status=active": 3, "kind=ServiceAccount": 3, "namespace=ns": 3,
	})
	counts, err = s.Counts(t.Context(), remit.KindCredential, one)
	same(t, "credentials", counted(t, counts, err), map[string]int64{
		"=": 1, "type=static-token": 1, "status=active": 1, "kind=Secret": 1, "namespace=ns": 1, "environment=": 1,
		"built_in=false": 1, "provider=aws": 1, "never_expires=true": 1,
	})
	b.Type, b.Owners, b.Status = remit.Human, nil, remit.Disabled
	apply(t, run, "s", noon, identities(b), a.ID)
	counts, err = s.Counts(t.Context(), remit.KindIdentity, one)
	same(t, "after a change", counted(t, counts, err), map[string]int64{
		"=": 1, "type=human": 1, "status=disabled": 1, "kind=ServiceAccount": 1, "namespace=ns": 1,
		"environment=production": 1, "built_in=true": 1, "owned=false": 1,
	})
	counts, err = s.Counts(t.Context(), remit.KindRole, one)
	same(t, "of none", counted(t, counts, err), map[string]int64{})
}
