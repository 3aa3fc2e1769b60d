package storetest

import (
	"testing"
	"time"

	"remit"
)

func testHistory(t *testing.T, s Store) {
	sys := system(t, s, "one")
	run := start(t, s, sys)
	a := identity(sys, "ns", "a")
	a.Since = noon.Add(-24 * time.Hour)
	b := a
	b.Status, b.Since = remit.Disabled, noon.Add(30*time.Minute)
	apply(t, run, "s", noon, identities(a))
	apply(t, run, "s", noon.Add(time.Hour), identities(b))
	apply(t, run, "s", noon.Add(2*time.Hour), remit.Records{}, a.ID)
	versions, err := s.History(t.Context(), a.ID)
	must(t, err)
	same(t, "history", versions, []remit.Version{
		{From: b.Since, To: noon.Add(2 * time.Hour), Learned: noon.Add(time.Hour), Removed: true, Record: b},
		{From: a.Since, To: b.Since, Learned: noon, Record: a},
	})
	if _, ok := versions[0].Record.(remit.Identity); !ok {
		t.Errorf("the record is a %T", versions[0].Record)
	}
}

// testSinceGuarded gives times that cannot be: versions still follow each
// other, none begins in the future of whoever learned it.
func testSinceGuarded(t *testing.T, s Store) {
	sys := system(t, s, "one")
	run := start(t, s, sys)
	a := identity(sys, "ns", "a")
	a.Since = noon.Add(48 * time.Hour)
	apply(t, run, "s", noon, identities(a))
	b := a
	b.Purpose, b.Since = "backwards", noon.Add(-time.Hour)
	apply(t, run, "s", noon.Add(time.Hour), identities(b))
	c := b
	c.Purpose = "the clock went back"
	apply(t, run, "s", noon.Add(-time.Hour), identities(c))
	apply(t, run, "s", noon.Add(-2*time.Hour), remit.Records{}, a.ID)
	d := c
	d.Purpose, d.Since = "again", noon.Add(-72*time.Hour)
	apply(t, run, "s", noon.Add(3*time.Hour), identities(d))
	versions, err := s.History(t.Context(), a.ID)
	must(t, err)
	const tick = time.Microsecond
	hour := noon.Add(time.Hour)
	same(t, "history", versions, []remit.Version{
		{From: hour.Add(2 * tick), Learned: noon.Add(3 * time.Hour), Record: d},
		{From: hour.Add(tick), To: hour.Add(2 * tick), Learned: noon.Add(-time.Hour), Removed: true, Record: c},
		{From: hour, To: hour.Add(tick), Learned: hour, Record: b},
		{From: noon, To: hour, Learned: noon, Record: a},
	})
}

func testIncarnations(t *testing.T, s Store) {
	sys := system(t, s, "one")
	run := start(t, s, sys)
	first := identity(sys, "ns", "a")
	first.Incarnation, first.Created, first.Since = "uid-1", noon.Add(-time.Hour), noon.Add(-time.Hour)
	second := first
	second.Incarnation, second.Created, second.Since = "uid-2", noon.Add(time.Hour), noon.Add(time.Hour)
	apply(t, run, "s", noon, identities(first))
	got := apply(t, run, "s", noon.Add(2*time.Hour), identities(second))
	if got.Updated != 1 {
		t.Errorf("a new incarnation is %+v", got)
	}
	versions, err := s.History(t.Context(), first.ID)
	must(t, err)
	same(t, "history", versions, []remit.Version{
		{From: second.Since, Learned: noon.Add(2 * time.Hour), Record: second},
		{From: first.Since, To: second.Since, Learned: noon, Record: first},
	})
}

// testTimes keeps times to the microsecond, in UTC, whatever year a system
// claims: RFC 3339 ends with the year 9999, a certificate need not.
func testTimes(t *testing.T, s Store) {
	sys := system(t, s, "one")
	run := start(t, s, sys)
	zone := time.FixedZone("elsewhere", -7*3600)
	for name, times := range map[string]struct{ in, want time.Time }{
		"microseconds":   {noon, noon},
		"zone":           {noon.In(zone), noon},
		"nanoseconds":    {noon.Add(789), noon},
		"zero":           {time.Time{}, time.Time{}},
		"1970":           {time.Unix(0, 0), time.Unix(0, 0).UTC()},
		"before 1970":    {time.Date(1950, 1, 1, 0, 0, 0, 1000, time.UTC), time.Date(1950, 1, 1, 0, 0, 0, 1000, time.UTC)},
		"no expiry":      {time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)},
		"beyond":         {time.Date(123456, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC)},
		"before Christ":  {time.Date(-44, 3, 15, 0, 0, 0, 0, time.UTC), time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC)},
		"monotonic time": {time.Now(), time.Now()},
	} {
		c := credential(sys, "ns", name, "")
		if name == "monotonic time" {
			times.in = time.Now()
			times.want = times.in.UTC().Truncate(time.Microsecond)
		}
		c.Created, c.Since, c.Issued, c.Expires, c.LastUsed, c.Rotated = times.in, times.in, times.in, times.in, times.in, times.in
		apply(t, run, "s", noon.Add(time.Hour), remit.Records{Credentials: []remit.Credential{c}})
		got := all(t, s.Credentials, remit.Filter{IDs: []remit.ID{c.ID}}, remit.PageRequest{})
		if len(got) != 1 {
			t.Fatalf("%s: %d records", name, len(got))
		}
		for field, at := range map[string]time.Time{
			"created": got[0].Created, "since": got[0].Since, "issued": got[0].Issued,
			"expires": got[0].Expires, "last used": got[0].LastUsed, "rotated": got[0].Rotated,
		} {
			if !at.Equal(times.want) || at.Location() != time.UTC {
				t.Errorf("%s: %s is %v, want %v", name, field, at, times.want)
			}
		}
	}
}

// testPast asks for states that were: what was added, changed, moved away from
// a filter and removed.
func testPast(t *testing.T, s Store) {
	sys := system(t, s, "one")
	run := start(t, s, sys)
	a, b := identity(sys, "ns", "a"), identity(sys, "ns", "b")
	a.Owners = []remit.Owner{{Name: "ann"}}
	a2 := a
	a2.Type, a2.Environment, a2.Owners = remit.Agent, "production", nil
	key := credential(sys, "ns", "key", a.ID)
	key2 := key
	key2.Identity = b.ID
	hours := func(n float64) time.Time { return noon.Add(time.Duration(n * float64(time.Hour))) }

	apply(t, run, "s", hours(1), remit.Records{Identities: []remit.Identity{a}, Credentials: []remit.Credential{key}})
	apply(t, run, "s", hours(2), remit.Records{Identities: []remit.Identity{a2, b}, Credentials: []remit.Credential{key2}})
	apply(t, run, "s", hours(3), remit.Records{}, a.ID)
	apply(t, run, "s", hours(5), identities(a))

	for _, c := range []struct {
		what   string
		at     time.Time
		filter remit.Filter
		want   []string
	}{
		{"before all", hours(0.5), remit.Filter{}, nil},
		{"the instant it came", hours(1), remit.Filter{}, []string{"a"}},
		{"one", hours(1.5), remit.Filter{}, []string{"a"}},
		{"both", hours(2.5), remit.Filter{}, []string{"a", "b"}},
		{"the instant it went", hours(3), remit.Filter{}, []string{"b"}},
		{"gone", hours(4), remit.Filter{}, []string{"b"}},
		{"back", hours(6), remit.Filter{}, []string{"a", "b"}},
		{"former type", hours(1.5), remit.Filter{Types: []string{string(remit.ServiceAccount)}}, []string{"a"}},
		{"later type", hours(1.5), remit.Filter{Types: []string{string(remit.Agent)}}, nil},
		{"type then", hours(2.5), remit.Filter{Types: []string{string(remit.Agent)}}, []string{"a"}},
		{"environment then", hours(2.5), remit.Filter{Environments: []string{"production"}}, []string{"a"}},
		{"owner then", hours(1.5), remit.Filter{Owner: "ann"}, []string{"a"}},
		{"owner no more", hours(2.5), remit.Filter{Owner: "ann"}, nil},
		{"unowned then", hours(2.5), remit.Filter{Unowned: true}, []string{"a", "b"}},
		{"name then", hours(2.5), remit.Filter{Search: "A"}, []string{"a"}},
		{"by ID", hours(2.5), remit.Filter{IDs: []remit.ID{a.ID}}, []string{"a"}},
	} {
		c.filter.At = c.at
		for _, sort := range []string{"name", "kind", "created", "expires", "id"} {
			got := all(t, s.Identities, c.filter, remit.PageRequest{Limit: 1, Sort: sort})
			if len(got) != len(c.want) {
				t.Errorf("%s, by %s: %v, want %v", c.what, sort, names(got), c.want)
			} else if sort == "name" {
				same(t, c.what, names(got), append([]string{}, c.want...))
			}
		}
	}
	for at, want := range map[time.Time]remit.ID{hours(1.5): a.ID, hours(2.5): b.ID} {
		got := all(t, s.Credentials, remit.Filter{At: at, Identities: []remit.ID{want}}, remit.PageRequest{})
		if len(got) != 1 || got[0].Identity != want {
			t.Errorf("the holder at %v: %v", at, got)
		}
	}
}
