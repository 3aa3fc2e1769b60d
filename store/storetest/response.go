package storetest

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"remit"
)

// response makes a plan for a subject.
func response(subject remit.Identity, made time.Time) remit.Response {
	return remit.Response{
		ID: remit.ResponseID(subject.ID, remit.Contain, made), System: subject.System, Action: remit.Contain,
		Subject: remit.Subject{Record: remit.KindIdentity, Ref: subject.Ref, ID: subject.ID},
		State:   remit.ResponseProposed, AskedBy: "ann", Made: made, Changed: made, Expires: made.Add(24 * time.Hour),
		Steps: []remit.Step{{Grade: remit.RemoveGrants, Object: subject.Ref, Does: "it removes", State: remit.ResponseProposed}},
	}
}

func putResponse(t testing.TB, s Store, r remit.Response) remit.Response {
	t.Helper()
	r, err := s.PutResponse(t.Context(), r)
	must(t, err)
	return r
}

// oneResponse returns the only response of that ID.
func oneResponse(t testing.TB, s Store, id remit.ID) remit.Response {
	t.Helper()
	got := all(t, s.Responses, remit.ResponseFilter{IDs: []remit.ID{id}}, remit.PageRequest{})
	if len(got) != 1 {
		t.Fatalf("%d responses of ID %s", len(got), id)
	}
	return got[0]
}

// testResponses writes a response in full and reads it back, twice.
func testResponses(t *testing.T, s Store) {
	sys := remit.SystemID("test", "one")
	who := identity(sys, "ns", "a")
	at := func(m int) time.Time { return noon.Add(time.Duration(m) * time.Minute) }
	r := response(who, at(0))
	r.Cause, r.Why, r.ApprovedBy = string(remit.FindingID("p", who.ID)), []string{"one", "two"}, []string{"bob", "cid"}
	r.Steps = []remit.Step{
		{
			Grade: remit.FreezeCredentials, Object: remit.Ref{Kind: "Secret", Namespace: "ns", Name: "k"}, Does: "it freezes", Diff: "- a\n+ b\n", Breaks: "c", Undo: "it thaws",
			State: remit.ResponseVerified, Tries: 3, Failure: "it was not there", Done: at(5),
			Before: json.RawMessage(`{"z":1,"a":{"html":"<b>&\u003c\u2028","big":12345678901234567890,"n":1.50,"nul":"\u0000"},"list":[null,true]}`), After: json.RawMessage(`null`),
		},
		{Grade: remit.Quarantine, Object: who.Ref, Does: "it ends", State: remit.ResponseProposed, After: json.RawMessage(`["x"]`)},
	}
	r.Used = []remit.Usage{{
		System: sys, Identity: who.ID, Root: "JTI=1", Binding: remit.Ref{Kind: "RoleBinding", Name: "b"}, Action: "get", Resource: remit.Ref{Kind: "Secret", Name: "*"},
		Outcome: remit.Allowed, First: at(-9), Last: at(-1), Count: 1 << 40,
	}}
	r.History = []remit.ResponseEvent{
		{Time: at(0), Actor: "ann", State: remit.ResponseProposed, Note: "note"},
		{Time: at(1), Actor: "bob", State: remit.ResponseApproved},
	}
	want := r
	want.Version = 1
	got := putResponse(t, s, r)
	same(t, "put", got, want)
	same(t, "read", oneResponse(t, s, r.ID), want)
	if r.Version != 0 {
		t.Error("the caller's own was changed")
	}
	before := oneResponse(t, s, r.ID).Steps[0].Before
	if string(before) != string(r.Steps[0].Before) {
		t.Errorf("before: %s, want %s", before, r.Steps[0].Before)
	}

	// Everything of it may change, and what is gone is gone.
	next := remit.Response{
		ID: r.ID, System: remit.SystemID("test", "two"), Subject: remit.Subject{ID: "idn_other"}, Action: remit.Revoke, Version: got.Version,
		State: remit.ResponseRunning, Made: at(7), Changed: at(8), AskedBy: "dan",
	}
	want = next
	want.Version = 2
	same(t, "put again", putResponse(t, s, next), want)
	same(t, "read again", oneResponse(t, s, r.ID), want)
	for _, f := range []remit.ResponseFilter{{System: sys}, {Subjects: []remit.ID{who.ID}}, {States: []remit.ResponseState{remit.ResponseProposed}}} {
		if got := all(t, s.Responses, f, remit.PageRequest{}); len(got) != 0 {
			t.Errorf("%+v still finds it", f)
		}
	}
	for _, f := range []remit.ResponseFilter{{System: next.System}, {Subjects: []remit.ID{"idn_other"}}, {States: []remit.ResponseState{remit.ResponseRunning}}} {
		if got := all(t, s.Responses, f, remit.PageRequest{}); len(got) != 1 {
			t.Errorf("%+v does not find it", f)
		}
	}

	// Times come back in UTC and to the microsecond, and the caller's stay.
	zone := time.FixedZone("elsewhere", -7*3600)
	odd := noon.Add(789).In(zone)
	r = response(identity(sys, "ns", "times"), odd)
	r.Steps[0].Done, r.History, r.Used = odd, []remit.ResponseEvent{{Time: odd}}, []remit.Usage{{First: odd, Last: odd}}
	r.Expires = time.Date(123456, 1, 1, 0, 0, 0, 0, time.UTC)
	got = putResponse(t, s, r)
	same(t, "times", oneResponse(t, s, r.ID), got)
	for _, at := range []time.Time{got.Made, got.Changed, got.Steps[0].Done, got.History[0].Time, got.Used[0].First, got.Used[0].Last} {
		if !at.Equal(noon) || at.Location() != time.UTC {
			t.Errorf("%v, want %v", at, noon)
		}
	}
	if got.Expires.Year() != 9999 || r.Steps[0].Done != odd || r.History[0].Time != odd || r.Used[0].Last != odd {
		t.Errorf("expires %v; the caller's own: %+v", got.Expires, r)
	}
}

func testResponseVersions(t *testing.T, s Store) {
	who := identity(remit.SystemID("test", "one"), "ns", "a")
	fresh := response(who, noon)
	first := putResponse(t, s, fresh)
	_, err := s.PutResponse(t.Context(), fresh)
	wantKind(t, err, remit.Conflict)

	// Two have read the same version.
	one, two := first, first
	one.State, two.State = remit.ResponseApproved, remit.ResponseRejected
	one = putResponse(t, s, one)
	if one.Version != 2 {
		t.Errorf("the second version is %d", one.Version)
	}
	_, err = s.PutResponse(t.Context(), two)
	wantKind(t, err, remit.Conflict)
	same(t, "of the first writer", oneResponse(t, s, first.ID), one)

	for _, version := range []int64{0, 1, 3, -1} {
		stale := one
		stale.Version = version
		_, err = s.PutResponse(t.Context(), stale)
		wantKind(t, err, remit.Conflict)
	}
	same(t, "after conflicts", oneResponse(t, s, first.ID), one)

	unknown := response(who, noon.Add(time.Second))
	unknown.Version = 1
	_, err = s.PutResponse(t.Context(), unknown)
	wantKind(t, err, remit.NotFound)
	if got := all(t, s.Responses, remit.ResponseFilter{}, remit.PageRequest{}); len(got) != 1 {
		t.Errorf("%d responses", len(got))
	}

	for v := int64(2); v < 20; v++ {
		if one = putResponse(t, s, one); one.Version != v+1 {
			t.Fatalf("version %d follows %d", one.Version, v)
		}
	}
}

// testResponseRaces lets many write the same version at once: one of them wins.
func testResponseRaces(t *testing.T, s Store) {
	const writers, rounds = 8, 12
	r := response(identity(remit.SystemID("test", "one"), "ns", "a"), noon)
	for round := range rounds {
		var mu sync.Mutex
		var won []remit.Response
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for i := range writers {
			mine := r
			mine.AskedBy = fmt.Sprintf("%d of %d", i, round)
			wg.Go(func() {
				<-begin
				got, err := s.PutResponse(context.WithoutCancel(t.Context()), mine)
				if err != nil {
					wantKind(t, err, remit.Conflict)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				won = append(won, got)
			})
		}
		close(begin)
		wg.Wait()
		if len(won) != 1 || won[0].Version != r.Version+1 {
			t.Fatalf("round %d: %d have won: %+v", round, len(won), won)
		}
		same(t, "the winner's", oneResponse(t, s, r.ID), won[0])
		r = won[0]
	}
}

func testResponseFilters(t *testing.T, s Store) {
	one, two := remit.SystemID("test", "one"), remit.SystemID("test", "two")
	a, b, c := identity(one, "ns", "a"), identity(one, "ns", "b"), identity(two, "ns", "c")
	made := make(map[string]remit.Response)
	for i, p := range []struct {
		name  string
		who   remit.Identity
		state remit.ResponseState
	}{
		{"a1", a, remit.ResponseVerified},
		{"a2", a, remit.ResponseProposed},
		{"b1", b, remit.ResponseRunning},
		{"c1", c, remit.ResponseProposed},
		{"c2", c, remit.ResponseFailed},
	} {
		r := response(p.who, noon.Add(time.Duration(i)*time.Minute))
		r.AskedBy, r.State = p.name, p.state
		made[p.name] = putResponse(t, s, r)
	}
	states := func(list ...remit.ResponseState) []remit.ResponseState { return list }
	idsOf := func(names ...string) (out []remit.ID) {
		for _, n := range names {
			out = append(out, made[n].ID)
		}
		return out
	}
	for what, c := range map[string]struct {
		f    remit.ResponseFilter
		want string // the newest first
	}{
		"all":               {remit.ResponseFilter{}, "c2 c1 b1 a2 a1"},
		"system":            {remit.ResponseFilter{System: one}, "b1 a2 a1"},
		"no system":         {remit.ResponseFilter{System: remit.SystemID("test", "none")}, ""},
		"IDs":               {remit.ResponseFilter{IDs: append(idsOf("a1", "c1", "a1"), "rsp_none")}, "c1 a1"},
		"no ID":             {remit.ResponseFilter{IDs: []remit.ID{"rsp_none"}}, ""},
		"subject":           {remit.ResponseFilter{Subjects: []remit.ID{a.ID}}, "a2 a1"},
		"subjects":          {remit.ResponseFilter{Subjects: []remit.ID{a.ID, c.ID}}, "c2 c1 a2 a1"},
		"state":             {remit.ResponseFilter{States: states(remit.ResponseVerified)}, "a1"},
		"a worker's":        {remit.ResponseFilter{States: states(remit.ResponseProposed, remit.ResponseRunning)}, "c1 b1 a2"},
		"states":            {remit.ResponseFilter{States: states(remit.ResponseProposed, remit.ResponseFailed)}, "c2 c1 a2"},
		"no state":          {remit.ResponseFilter{States: states("x")}, ""},
		"system, state":     {remit.ResponseFilter{System: one, States: states(remit.ResponseProposed)}, "a2"},
		"system, ended":     {remit.ResponseFilter{System: two, States: states(remit.ResponseVerified, remit.ResponseFailed)}, "c2"},
		"subject, state":    {remit.ResponseFilter{Subjects: []remit.ID{a.ID, b.ID}, States: states(remit.ResponseVerified, remit.ResponseRunning)}, "b1 a1"},
		"subject elsewhere": {remit.ResponseFilter{System: two, Subjects: []remit.ID{a.ID}}, ""},
		"IDs, subject":      {remit.ResponseFilter{IDs: idsOf("a1", "b1", "c1"), Subjects: []remit.ID{a.ID, c.ID}}, "c1 a1"},
		"every":             {remit.ResponseFilter{System: two, IDs: idsOf("a1", "c1", "c2"), Subjects: []remit.ID{c.ID}, States: states(remit.ResponseProposed, remit.ResponseVerified)}, "c1"},
	} {
		for _, limit := range []int{0, 1} {
			var got []string
			for _, r := range all(t, s.Responses, c.f, remit.PageRequest{Limit: limit}) {
				got = append(got, r.AskedBy)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s, by %d: %v, want %s", what, limit, got, c.want)
			}
		}
	}
}

// testResponsePages walks a long list in which many were made at one time, and
// offers it cursors of others.
func testResponsePages(t *testing.T, s Store) {
	const n = 250
	systems := []remit.ID{remit.SystemID("test", "one"), remit.SystemID("test", "two")}
	states := []remit.ResponseState{remit.ResponseProposed, remit.ResponseVerified, remit.ResponseFailed}
	var want []remit.Response
	for i := range n {
		r := response(identity(systems[i%2], "ns", fmt.Sprint("a", i)), noon.Add(time.Duration(i*7%60)*time.Microsecond))
		r.State = states[i%3]
		want = append(want, putResponse(t, s, r))
	}
	slices.SortFunc(want, func(a, b remit.Response) int {
		return cmp.Or(b.Made.Compare(a.Made), cmp.Compare(b.ID, a.ID))
	})
	walk := func(f remit.ResponseFilter, limit int) {
		t.Helper()
		got := all(t, s.Responses, f, remit.PageRequest{Limit: limit})
		i := 0
		for _, r := range want {
			if f.System != "" && r.System != f.System || len(f.States) > 0 && !slices.Contains(f.States, r.State) {
				continue
			}
			if i >= len(got) || got[i].ID != r.ID {
				t.Fatalf("%+v by %d: the response %d of %d is another", f, limit, i, len(got))
			}
			i++
		}
		if i != len(got) {
			t.Fatalf("%+v by %d: %d, want %d", f, limit, len(got), i)
		}
	}
	for _, limit := range []int{0, 1, 7, 125, 249, 250, 1000} {
		walk(remit.ResponseFilter{}, limit)
		walk(remit.ResponseFilter{System: systems[0]}, limit)
		walk(remit.ResponseFilter{States: states[:1]}, limit)
		walk(remit.ResponseFilter{System: systems[1], States: states[1:]}, limit)
	}

	got, next, err := s.Responses(t.Context(), remit.ResponseFilter{}, remit.PageRequest{})
	must(t, err)
	if len(got) != 100 || next == "" {
		t.Errorf("the page of no size has %d", len(got))
	}
	if got, end, err := s.Responses(t.Context(), remit.ResponseFilter{}, remit.PageRequest{Limit: n}); len(got) != n || end != "" || err != nil {
		t.Errorf("the page of all has %d, %q, %v", len(got), end, err)
	}
	for _, page := range []remit.PageRequest{
		{Limit: -1},
		{Limit: 1001},
		{Sort: "colour"},
		{Sort: "name"},
		{After: next[:len(next)-3]},
		{After: next + "AA"},
		{After: "nonsense!"},
		{After: base64.RawURLEncoding.EncodeToString([]byte(`{}`))},
		{After: "\x00\xff"},
	} {
		_, _, err := s.Responses(t.Context(), remit.ResponseFilter{}, page)
		wantKind(t, err, remit.Invalid)
	}
	_, _, err = s.Responses(t.Context(), remit.ResponseFilter{System: systems[0]}, remit.PageRequest{After: next})
	wantKind(t, err, remit.Invalid)
	_, _, err = s.Findings(t.Context(), remit.FindingFilter{}, remit.PageRequest{After: next})
	wantKind(t, err, remit.Invalid)

	// What is written behind the walker, or anew, moves nothing.
	seen := make(map[remit.ID]bool)
	page := remit.PageRequest{Limit: 40}
	for i := 0; ; i++ {
		part, next, err := s.Responses(t.Context(), remit.ResponseFilter{}, page)
		must(t, err)
		for _, r := range part {
			if seen[r.ID] {
				t.Fatalf("%s comes twice", r.ID)
			}
			seen[r.ID] = true
		}
		if next == "" {
			break
		}
		page.After = next
		part[0].State = remit.ResponseExpired
		putResponse(t, s, part[0])
		putResponse(t, s, response(identity(systems[0], "new", fmt.Sprint(i)), noon.Add(time.Hour)))
	}
	if len(seen) != n {
		t.Errorf("%d of %d", len(seen), n)
	}
}

func testInvalidResponses(t *testing.T, s Store) {
	who := identity(remit.SystemID("test", "one"), "ns", "a")
	for _, id := range []remit.ID{
		"", "rsp_", "rsp_short", "x", who.ID, remit.FindingID("p", who.ID), "rsp_" + remit.ID(strings.Repeat("A", 26)),
		"rsp_" + remit.ID(strings.Repeat("\x00", 26)), "rsp_" + remit.ID(strings.Repeat("'", 26)),
	} {
		for _, version := range []int64{0, 1} {
			r := response(who, noon)
			r.ID, r.Version = id, version
			_, err := s.PutResponse(t.Context(), r)
			wantKind(t, err, remit.Invalid)
		}
	}
	for _, raw := range []string{"{", "{} {}", "no", "\x00", "\"\x00\""} {
		before, after := response(who, noon), response(who, noon)
		before.Steps[0].Before, after.Steps[0].After = json.RawMessage(raw), json.RawMessage(raw)
		for _, r := range []remit.Response{before, after} {
			_, err := s.PutResponse(t.Context(), r)
			wantKind(t, err, remit.Invalid)
		}
	}
	if got := all(t, s.Responses, remit.ResponseFilter{}, remit.PageRequest{}); len(got) != 0 {
		t.Errorf("%d responses were written", len(got))
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	_, err := s.PutResponse(stopped, response(who, noon))
	wantKind(t, err, remit.Unavailable)
	putResponse(t, s, response(who, noon))
}

// testHeldResponses holds a response, which nobody else can then, however the
// caller's context ends, and lets it go.
func testHeldResponses(t *testing.T, s Store) {
	id := response(identity("sys", "ns", "a"), noon).ID
	ctx, cancel := context.WithCancel(t.Context())
	release, err := s.HoldResponse(ctx, id)
	must(t, err)
	cancel()
	for range 2 {
		_, err = s.HoldResponse(t.Context(), id)
		wantKind(t, err, remit.Conflict)
	}
	putResponse(t, s, response(identity("sys", "ns", "a"), noon)) // who only writes is not kept from it
	release()
	var holders, most atomic.Int32
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			for range 20 {
				release, err := s.HoldResponse(t.Context(), id)
				if remit.KindOf(err) == remit.Conflict {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if n := holders.Add(1); n > most.Load() {
					most.Store(n)
				}
				time.Sleep(time.Millisecond)
				holders.Add(-1)
				release()
			}
		})
	}
	work.Wait()
	same(t, "holders at once", most.Load(), 1)
	_, err = s.HoldResponse(t.Context(), "nothing")
	wantKind(t, err, remit.Invalid)
}

func testHostileResponses(t *testing.T, s Store) {
	for i, name := range append(slices.Clone(hostile), strings.Repeat("long\x00", 5000)) {
		who := identity(remit.ID(name), name, name)
		raw, err := json.Marshal(map[string]string{name: name})
		must(t, err)
		r := response(who, noon.Add(time.Duration(i)*time.Second))
		r.Subject.Kind, r.Subject.ID, r.System, r.State = name, remit.ID(name), remit.ID(name), remit.ResponseState(name)
		r.AskedBy, r.Cause, r.Why, r.ApprovedBy = name, name, []string{name}, []string{name}
		r.Steps[0].Does, r.Steps[0].Diff, r.Steps[0].Failure = name, name, name
		r.Steps[0].Before, r.Steps[0].After = raw, json.RawMessage("\"\xff\"")
		r.History = []remit.ResponseEvent{{Actor: name, State: remit.ResponseState(name), Note: name}}
		r = putResponse(t, s, r)
		same(t, fmt.Sprintf("%.40q written again", name), putResponse(t, s, r).Version, 2)
		got := oneResponse(t, s, r.ID)
		for what, text := range map[string]string{
			"name": got.Subject.Name, "namespace": got.Subject.Namespace, "kind": got.Subject.Kind, "subject": string(got.Subject.ID),
			"system": string(got.System), "state": string(got.State), "asked by": got.AskedBy, "why": got.Why[0], "does": got.Steps[0].Does,
			"actor": got.History[0].Actor, "note": got.History[0].Note,
		} {
			if text != clean(name) {
				t.Errorf("the %s %.40q came back as %.40q", what, name, text)
			}
		}
		if string(got.Steps[0].Before) != string(raw) || string(got.Steps[0].After) != "\"\uFFFD\"" {
			t.Errorf("before %.40s, after %s", got.Steps[0].Before, got.Steps[0].After)
		}
		filters := map[string]remit.ResponseFilter{
			"system": {System: remit.ID(name), IDs: []remit.ID{r.ID}}, "subject": {Subjects: []remit.ID{remit.ID(name)}}, "state": {States: []remit.ResponseState{remit.ResponseState(name)}},
		}
		for what, f := range filters {
			if !slices.ContainsFunc(all(t, s.Responses, f, remit.PageRequest{Limit: 1}), func(one remit.Response) bool { return one.ID == r.ID }) {
				t.Errorf("by %s %.40q it is not found", what, name)
			}
		}
	}
	if got := all(t, s.Responses, remit.ResponseFilter{}, remit.PageRequest{Limit: 7}); len(got) != len(hostile)+1 {
		t.Errorf("a walk finds %d of %d", len(got), len(hostile)+1)
	}
}
