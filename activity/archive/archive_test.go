package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"remit"
)

var start = time.Date(2026, 11, 23, 14, 0, 0, 0, time.UTC)

var (
	production = remit.SystemID("kubernetes", "production")
	staging    = remit.SystemID("kubernetes", "staging")
)

// sample is the i-th event of a small world: 30 identities, each with 4
// credentials one after another, on 7 resources.
func sample(i int) (remit.Activity, []byte) {
	r := rand.New(rand.NewPCG(1, uint64(i)))
	n := r.IntN(30)
	ref := remit.Ref{Kind: "ServiceAccount", Namespace: fmt.Sprintf("team-%d", n%5), Name: fmt.Sprintf("app-%d", n)}
	e := remit.Activity{
		ID:             fmt.Sprintf("event-%08d", i),
		System:         production,
		Time:           start.Add(time.Duration(i) * 10 * time.Millisecond),
		Learned:        start.Add(time.Duration(i)*10*time.Millisecond + time.Second),
		Actor:          ref,
		Principal:      "system:serviceaccount:" + ref.Namespace + ":" + ref.Name,
		Type:           remit.ServiceAccount,
		Credential:     fmt.Sprintf("JTI=%d-%d", n, r.IntN(4)),
		CredentialType: remit.ShortLivedToken,
		Root:           fmt.Sprintf("JTI=%d-0", n),
		Action:         []string{"get", "list", "create"}[r.IntN(3)],
		Resource:       remit.Ref{Kind: "secrets", Namespace: ref.Namespace, Name: fmt.Sprintf("secret-%d", r.IntN(7))},
		Address:        fmt.Sprintf("10.0.0.%d", n),
		Outcome:        []remit.Outcome{remit.Allowed, remit.Allowed, remit.Denied, remit.Failed}[r.IntN(4)],
		Code:           200,
	}
	e.Identity = remit.IdentityID(e.System, ref)
	if i%100 == 0 {
		e.Action = "create"
		e.Minted = remit.Minted{
			Credential: fmt.Sprintf("JTI=minted-%d", i), Type: remit.ShortLivedToken, For: ref,
			Expires: start.Add(time.Hour), Lifetime: time.Hour, Audiences: []string{"api", "vault"},
		}
		e.Chain = []remit.Ref{{Kind: "User", Name: "alice"}, ref}
	}
	return e, fmt.Appendf(nil, `{"auditID":%q,"verb":%q,"user":{"username":%q}}`, e.ID, e.Action, e.Principal)
}

func open(t testing.TB, o Options) *Archive {
	t.Helper()
	a, err := Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// fill appends sample events from first to end under one mark and flushes.
func fill(t testing.TB, a *Archive, mark string, first, end int, change func(*remit.Activity)) []File {
	t.Helper()
	if err := a.Begin(mark); err != nil {
		t.Fatal(err)
	}
	for i := first; i < end; i++ {
		e, raw := sample(i)
		if change != nil {
			change(&e)
		}
		if err := a.Append(&e, "prod", raw); err != nil {
			t.Fatal(err)
		}
	}
	files, err := a.Flush(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func ids(t testing.TB, a *Archive, files []File, q Query) []string {
	t.Helper()
	found := []string{}
	err := a.Query(context.Background(), files, q, func(e *remit.Activity, _ []byte) error {
		found = append(found, e.ID)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestLayout(t *testing.T) {
	a := open(t, Options{})
	files := fill(t, a, "00000007", 0, 400_000, nil)
	if len(files) != 2 {
		t.Fatalf("%d files for 400,000 events over 67 minutes, want one an hour", len(files))
	}
	slices.SortFunc(files, func(x, y File) int { return x.Hour.Compare(y.Hour) })
	want := "system=" + string(production) + "/date=2026-11-23/hour=14/00000007-0001.parquet"
	f := files[0]
	if f.Path != want {
		t.Errorf("path %s, want %s", f.Path, want)
	}
	last := start.Add(time.Hour - 10*time.Millisecond)
	if f.Rows != 360_000 || !f.MinTime.Equal(start) || !f.MaxTime.Equal(last) || !f.Raw || f.SystemName != "prod" {
		t.Errorf("the manifest says %+v", f)
	}
	info, err := os.Stat(filepath.Join(a.dir, filepath.FromSlash(f.Path)))
	if err != nil || info.Size() != f.Bytes {
		t.Errorf("size %v (%v), manifest %d", info.Size(), err, f.Bytes)
	}
	if parts := glob(t, a.dir, ".part"); len(parts) > 0 {
		t.Errorf("left behind: %v", parts)
	}
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	var again File
	if err := json.Unmarshal(text, &again); err != nil || !reflect.DeepEqual(again, f) {
		t.Errorf("a manifest's line does not survive JSON: %+v (%v)", again, err)
	}
}

func glob(t testing.TB, dir, suffix string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, suffix) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestRoundTrip: whatever an event holds, a query gives it back, before and
// after the file was compacted.
func TestRoundTrip(t *testing.T) {
	text := rapid.OneOf(rapid.Just(""), rapid.String(), rapid.SampledFrom([]string{"a", "b", "'; drop table events; --", "\x00", "…\u202e", strings.Repeat("x", maxString)}))
	ref := rapid.Custom(func(t *rapid.T) remit.Ref {
		return remit.Ref{Kind: text.Draw(t, "kind"), Namespace: text.Draw(t, "namespace"), Name: text.Draw(t, "name")}
	})
	refs := rapid.SliceOfN(ref, 0, 4)
	texts := rapid.SliceOfN(text, 0, 4)
	when := rapid.Custom(func(t *rapid.T) time.Time {
		return time.UnixMicro(rapid.Int64Range(firstTime, lastTime).Draw(t, "µs")).UTC()
	})
	soon := rapid.Custom(func(t *rapid.T) time.Time {
		return start.Add(time.Duration(rapid.Int64Range(0, 2*hourMicros).Draw(t, "µs")) * time.Microsecond)
	})
	duration := rapid.Custom(func(t *rapid.T) time.Duration {
		return time.Duration(rapid.Int64Range(-1<<52, 1<<52).Draw(t, "µs")) * time.Microsecond
	})
	type pair struct {
		e   remit.Activity
		raw []byte
	}
	dir := t.TempDir()
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		a, err := Open(filepath.Join(dir, fmt.Sprint(run)), Options{RowGroup: rapid.IntRange(1, 40).Draw(t, "row group"), OpenFiles: 2})
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(a.dir)
		if err := a.Begin("m"); err != nil {
			t.Fatal(err)
		}
		want := map[string]pair{}
		for i := range rapid.IntRange(1, 60).Draw(t, "events") {
			p := pair{e: remit.Activity{
				ID: fmt.Sprint(i), System: rapid.SampledFrom([]remit.ID{production, staging}).Draw(t, "system"), Native: text.Draw(t, "native"),
				Time: rapid.OneOf(soon, soon, soon, when).Draw(t, "time"), Learned: when.Draw(t, "learned"),
				Identity: remit.ID(text.Draw(t, "identity")), Actor: ref.Draw(t, "actor"), Principal: text.Draw(t, "principal"),
				Type: remit.IdentityType(text.Draw(t, "type")), Credential: text.Draw(t, "credential"),
				CredentialType: remit.CredentialType(text.Draw(t, "credential type")), Bound: ref.Draw(t, "bound"), Node: text.Draw(t, "node"),
				Chain: refs.Draw(t, "chain"), Action: text.Draw(t, "action"), Write: rapid.Bool().Draw(t, "write"),
				Resource: ref.Draw(t, "resource"), Binding: ref.Draw(t, "binding"), Address: text.Draw(t, "address"),
				UserAgent: text.Draw(t, "user agent"), Outcome: remit.Outcome(text.Draw(t, "outcome")), Code: int(rapid.Int32().Draw(t, "code")),
				Reason: text.Draw(t, "reason"), Parent: text.Draw(t, "parent"), Root: text.Draw(t, "root"), Depth: int(rapid.Int32().Draw(t, "depth")),
				SelfMinted: rapid.Bool().Draw(t, "self"), Outside: rapid.Bool().Draw(t, "outside"), Dormant: duration.Draw(t, "dormant"), Known: rapid.Bool().Draw(t, "known"),
			}}
			if rapid.Bool().Draw(t, "minted") {
				p.e.Minted = remit.Minted{
					Credential: text.Draw(t, "minted"), Type: remit.CredentialType(text.Draw(t, "minted type")), For: ref.Draw(t, "for"), Bound: ref.Draw(t, "bound"),
					Expires: when.Filter(func(t time.Time) bool { return !t.IsZero() }).Draw(t, "expires"), Lifetime: duration.Draw(t, "lifetime"), Audiences: texts.Draw(t, "audiences"),
				}
			}
			if rapid.Bool().Draw(t, "raw") {
				p.raw = []byte(rapid.StringN(0, 300, -1).Draw(t, "raw event"))
			}
			if err := a.Append(&p.e, "name", p.raw); err != nil {
				t.Fatal(err)
			}
			if len(p.e.Chain) == 0 {
				p.e.Chain = nil
			}
			if len(p.e.Minted.Audiences) == 0 {
				p.e.Minted.Audiences = nil
			}
			want[p.e.ID] = p
		}
		files, err := a.Flush(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		check := func() {
			seen := map[string]bool{}
			err := a.Query(context.Background(), files, Query{Raw: true, Oldest: true}, func(e *remit.Activity, raw []byte) error {
				p, ok := want[e.ID]
				if !ok || seen[e.ID] {
					return fmt.Errorf("event %s is not known or came twice", e.ID)
				}
				seen[e.ID] = true
				if !reflect.DeepEqual(*e, p.e) {
					return fmt.Errorf("got  %+v\nwant %+v", *e, p.e)
				}
				if string(raw) != string(p.raw) || (raw == nil) != (p.raw == nil) {
					return fmt.Errorf("raw %q, want %q", raw, p.raw)
				}
				return nil
			})
			if err != nil || len(seen) != len(want) {
				t.Fatalf("%d of %d events: %v", len(seen), len(want), err)
			}
		}
		check()
		byPartition := map[string][]File{}
		for _, f := range files {
			byPartition[filepath.Dir(f.Path)] = append(byPartition[filepath.Dir(f.Path)], f)
		}
		files = nil
		for _, in := range byPartition {
			made, _, err := a.Compact(context.Background(), "c", in)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, made...)
		}
		check()
	})
}

// TestHostile: what cannot be kept as it is, is kept as near as can be, and
// nothing can leave the archive's directory.
func TestHostile(t *testing.T) {
	a := open(t, Options{})
	for _, system := range []remit.ID{"", "sys_", "../../../../etc", "sys_../../../../../aaaaaaaaaaaaa", remit.IdentityID(production, remit.Ref{})} {
		if err := a.Begin("m"); err != nil {
			t.Fatal(err)
		}
		if err := a.Append(&remit.Activity{System: system}, "", nil); remit.KindOf(err) != remit.Invalid {
			t.Errorf("system %q: %v, want invalid", system, err)
		}
	}
	long := strings.Repeat("é", maxString)
	events := []remit.Activity{
		{ID: "bytes", Principal: "a\xffb\xc3", Reason: long},
		{ID: "past", Time: time.Date(-5000, 1, 1, 0, 0, 0, 0, time.UTC)},
		{ID: "zero"},
		{ID: "future", Time: time.Date(250_000_000, 1, 1, 0, 0, 0, 0, time.UTC)},
		{ID: "chain", Chain: make([]remit.Ref, 10_000)},
		{ID: "raw"},
		{ID: "huge"},
	}
	for i := range events {
		e := &events[i]
		e.System = production
		raw := map[string][]byte{"raw": []byte("{\"a\":\"\xff\"}"), "huge": make([]byte, maxRaw+1)}[e.ID]
		if err := a.Append(e, "name", raw); err != nil {
			t.Fatalf("%s: %v", e.ID, err)
		}
	}
	files, err := a.Flush(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	err = a.Query(context.Background(), files, Query{Raw: true}, func(e *remit.Activity, raw []byte) error {
		seen++
		switch e.ID {
		case "bytes":
			if e.Principal != "a\uFFFDb\uFFFD" || e.Reason != long[:maxString] {
				t.Errorf("bad bytes became %q, a long string %d bytes", e.Principal, len(e.Reason))
			}
		case "past", "zero":
			if !e.Time.IsZero() {
				t.Errorf("%s: %v", e.ID, e.Time)
			}
		case "future":
			if e.Time.Year() != 9999 {
				t.Errorf("%s: %v", e.ID, e.Time)
			}
		case "chain":
			if len(e.Chain) != maxList {
				t.Errorf("a chain of %d", len(e.Chain))
			}
		case "raw":
			if string(raw) != "{\"a\":\"\uFFFD\"}" {
				t.Errorf("raw %q", raw)
			}
		case "huge":
			if raw != nil {
				t.Errorf("a raw event of %d bytes was kept", len(raw))
			}
		}
		return nil
	})
	if err != nil || seen != len(events) {
		t.Errorf("%d of %d events came back: %v", seen, len(events), err)
	}
	for _, path := range []string{"../x", "/etc/passwd", "a/../../x", ""} {
		if _, err := a.path(path); remit.KindOf(err) != remit.Invalid {
			t.Errorf("the path %q is taken", path)
		}
	}
}

// TestMarks: what was not flushed is gone with the next mark, and a mark that
// was used is refused rather than written over.
func TestMarks(t *testing.T) {
	ctx := context.Background()
	a := open(t, Options{OpenFiles: 2})
	e, _ := sample(1)
	if err := a.Append(&e, "", nil); err == nil {
		t.Error("an event without a mark was taken")
	}
	if files, err := a.Flush(ctx); err != nil || len(files) != 0 {
		t.Errorf("a flush of nothing: %v, %v", files, err)
	}
	if err := a.Begin("one"); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		e.Time = start.Add(time.Duration(i) * time.Hour)
		if err := a.Append(&e, "", nil); err != nil {
			t.Fatal(err)
		}
	}
	if done := glob(t, a.dir, ".parquet"); len(done) != 0 {
		t.Errorf("files in place before the flush: %v", done)
	}
	files := fill(t, a, "one", 0, 10, nil)
	if all := append(glob(t, a.dir, ".part"), glob(t, a.dir, ".parquet")...); len(all) != len(files) {
		t.Errorf("%v is there, want %v alone", all, files)
	}
	if err := a.Begin("one"); err != nil {
		t.Fatal(err)
	}
	e, _ = sample(1)
	if err := a.Append(&e, "", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Flush(ctx); remit.KindOf(err) != remit.Conflict {
		t.Errorf("a mark that was used already: %v, want a conflict", err)
	}
	if got := ids(t, a, files, Query{}); len(got) != 10 {
		t.Errorf("the first use of the mark has %d events left", len(got))
	}
	if got, want := fileName("../../x"), fileName("../../x"); got != want || strings.ContainsAny(got, "/.") {
		t.Errorf("a hostile mark names the file %s", got)
	}
}

func TestDue(t *testing.T) {
	now := start
	a := open(t, Options{CloseAfter: time.Minute, CloseBytes: 100_000, Now: func() time.Time { return now }})
	e, raw := sample(1)
	add := func() {
		t.Helper()
		if err := a.Append(&e, "", raw); err != nil {
			t.Fatal(err)
		}
	}
	if a.Due() {
		t.Error("due without a mark")
	}
	_ = a.Begin("a")
	now = now.Add(time.Hour)
	if a.Due() {
		t.Error("due without an event")
	}
	add()
	if !a.Due() {
		t.Error("not due after an hour")
	}
	_ = a.Begin("b")
	add()
	if a.Due() {
		t.Error("due at once")
	}
	for i := range 100_000 {
		e.ID = fmt.Sprint(rand.Uint64(), i)
		add()
	}
	if !a.Due() {
		t.Error("not due for its size")
	}
}

// TestQuery compares every kind of query with a plain loop over the events,
// over files as they were flushed, and after compaction.
func TestQuery(t *testing.T) {
	a := open(t, Options{RowGroup: 1000})
	var files []File
	var all []remit.Activity
	for mark := range 6 {
		system := []remit.ID{production, staging}[mark%2]
		change := func(e *remit.Activity) {
			e.System = system
			e.Time = e.Time.Add(time.Duration(mark) * 20 * time.Minute)
			all = append(all, *e)
		}
		files = append(files, fill(t, a, fmt.Sprint("m", mark), mark*3000, (mark+1)*3000, change)...)
	}
	one, _ := sample(4711)
	queries := map[string]Query{
		"everything":          {},
		"oldest first":        {Oldest: true},
		"system":              {System: staging},
		"event":               {Event: "event-00004711"},
		"identity":            {Identity: one.Identity},
		"credential":          {Credential: one.Credential},
		"minted credential":   {Credential: "JTI=minted-1200"},
		"root":                {Root: one.Root},
		"action":              {Action: "list"},
		"resource":            {Resource: remit.Ref{Name: "secret-3"}},
		"resource and kind":   {Resource: remit.Ref{Kind: "secrets", Namespace: "team-1", Name: "secret-3"}},
		"address":             {Address: one.Address},
		"outcome":             {Outcome: remit.Denied, Limit: 100},
		"from":                {From: start.Add(50 * time.Minute)},
		"to":                  {To: start.Add(30*time.Minute + 5*time.Microsecond), Oldest: true},
		"from and to":         {From: start.Add(10 * time.Second), To: start.Add(45 * time.Minute), Credential: one.Credential},
		"newest few":          {Limit: 7},
		"oldest few":          {Limit: 5000, Oldest: true},
		"several":             {Identity: one.Identity, Action: "get", Outcome: remit.Allowed, From: start.Add(time.Minute)},
		"nothing":             {Credential: "JTI=none"},
		"nothing between two": {Identity: one.Identity, Credential: "JTI=none"},
	}
	check := func(state string) {
		for name, q := range queries {
			t.Run(state+"/"+name, func(t *testing.T) {
				want := matching(all, q)
				got := ids(t, a, files, q)
				if !slices.Equal(got, want) {
					t.Errorf("%d events, want %d; the first ones are %v, want %v", len(got), len(want), head(got), head(want))
				}
			})
		}
	}
	check("flushed")

	groups := map[string][]File{}
	for _, f := range files {
		groups[filepath.Dir(f.Path)] = append(groups[filepath.Dir(f.Path)], f)
	}
	old := files
	files = nil
	for _, in := range groups {
		made, replaced, err := a.Compact(context.Background(), "compacted", in)
		if err != nil {
			t.Fatal(err)
		}
		if len(made) != 1 || len(replaced) != len(in) || !made[0].Compacted {
			t.Fatalf("%d files became %d, standing for %d", len(in), len(made), len(replaced))
		}
		files = append(files, made...)
	}
	check("compacted")
	if err := a.Remove(context.Background(), old); err != nil {
		t.Fatal(err)
	}
	check("removed")

	err := a.Query(context.Background(), old, Query{}, func(*remit.Activity, []byte) error { return nil })
	if remit.KindOf(err) != remit.Conflict {
		t.Errorf("a query of files that are gone: %v, want a conflict", err)
	}
	stop := errors.New("stop")
	if err := a.Query(context.Background(), files, Query{}, func(*remit.Activity, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the caller's error came back as %v", err)
	}
	if err := a.Query(context.Background(), files, Query{Limit: MaxLimit + 1}, nil); remit.KindOf(err) != remit.Invalid {
		t.Errorf("a limit too large: %v", err)
	}
}

func head(s []string) []string { return s[:min(len(s), 3)] }

// matching is what a query means.
func matching(all []remit.Activity, q Query) []string {
	var found []remit.Activity
	for _, e := range all {
		if (q.System == "" || e.System == q.System) && (q.Event == "" || e.ID == q.Event) &&
			(q.Identity == "" || e.Identity == q.Identity) &&
			(q.Credential == "" || e.Credential == q.Credential || e.Minted.Credential == q.Credential) &&
			(q.Root == "" || e.Root == q.Root) && (q.Action == "" || e.Action == q.Action) &&
			(q.Resource.Kind == "" || e.Resource.Kind == q.Resource.Kind) &&
			(q.Resource.Namespace == "" || e.Resource.Namespace == q.Resource.Namespace) &&
			(q.Resource.Name == "" || e.Resource.Name == q.Resource.Name) &&
			(q.Address == "" || e.Address == q.Address) && (q.Outcome == "" || e.Outcome == q.Outcome) &&
			(q.From.IsZero() || !e.Time.Before(q.From)) && (q.To.IsZero() || e.Time.Before(q.To)) {
			found = append(found, e)
		}
	}
	slices.SortStableFunc(found, func(x, y remit.Activity) int {
		if q.Oldest {
			return x.Time.Compare(y.Time)
		}
		return y.Time.Compare(x.Time)
	})
	if q.Limit > 0 {
		found = found[:min(len(found), q.Limit)]
	}
	ids := []string{}
	for _, e := range found {
		ids = append(ids, e.ID)
	}
	return ids
}

// TestLargeHour: more events in an hour than are put in order come all, once.
func TestLargeHour(t *testing.T) {
	a := open(t, Options{RowGroup: 5000})
	files := fill(t, a, "m", 0, 3*MaxLimit, nil)
	got := ids(t, a, files, Query{})
	slices.Sort(got)
	if len(slices.Compact(got)) != 3*MaxLimit {
		t.Errorf("%d events, want %d", len(got), 3*MaxLimit)
	}
	got = ids(t, a, files, Query{Limit: MaxLimit, From: start.Add(time.Second)})
	if len(got) != MaxLimit || got[0] != fmt.Sprintf("event-%08d", 3*MaxLimit-1) || !slices.IsSortedFunc(got, func(x, y string) int { return strings.Compare(y, x) }) {
		t.Errorf("the newest %d are %d, from %v", MaxLimit, len(got), head(got))
	}
}

// TestManyHours: events of many hours in turn make one file an hour, not one an
// event, however few files are open at a time.
func TestManyHours(t *testing.T) {
	a := open(t, Options{OpenFiles: 2})
	const hours, each = 150, 60
	i := 0
	files := fill(t, a, "m", 0, hours*each, func(e *remit.Activity) {
		e.Time = start.Add(time.Duration(i%hours)*time.Hour + time.Duration(i)*time.Microsecond)
		i++
	})
	if len(files) != hours {
		t.Errorf("%d files for %d hours", len(files), hours)
	}
	if got := ids(t, a, files, Query{}); len(got) != hours*each {
		t.Errorf("%d events, want %d", len(got), hours*each)
	}
}

// TestNulls: a raw event that is not there stays not there, wherever it is not.
func TestNulls(t *testing.T) {
	a := open(t, Options{})
	for k := range 20 { // k events without, k with, k without
		if err := a.Begin(fmt.Sprint(k)); err != nil {
			t.Fatal(err)
		}
		for i := range 300 {
			e, _ := sample(i)
			var raw []byte
			if i/(k+1)%3 == 1 {
				raw = []byte(e.ID)
				e.Minted = remit.Minted{Expires: start}
			} else {
				e.Minted = remit.Minted{}
			}
			if err := a.Append(&e, "", raw); err != nil {
				t.Fatal(err)
			}
		}
		files, err := a.Flush(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		r, err := a.open(files[0])
		if err != nil {
			t.Fatal(err)
		}
		chunks := r.parquet.RowGroups()[0].ColumnChunks()
		for _, column := range []string{"raw", "minted_expires"} {
			c, err := newCursor(chunks[r.leaf[column]], 300)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 300 {
				at, err := c.seek(int64(i))
				if err != nil {
					t.Fatal(err)
				}
				if null := c.at(at) < 0; null == (i/(k+1)%3 == 1) {
					t.Fatalf("%s of row %d is null: %v (runs of %d)", column, i, null, k+1)
				}
			}
			c.close()
		}
		_ = r.Close()
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{0, 1024} {
		b.Run(fmt.Sprintf("raw=%d", size), func(b *testing.B) {
			a := open(b, Options{})
			events := make([]remit.Activity, 5000)
			raws := make([][]byte, len(events))
			for i := range events {
				e, raw := sample(i)
				events[i] = e
				for len(raw) < size {
					raw = fmt.Appendf(raw, `,{"name":%q,"at":"%d","by":%q}`, e.Resource.Name, i*7919, e.Principal)
				}
				if size > 0 {
					raws[i] = raw
				}
			}
			if err := a.Begin("m"); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if err := a.Append(&events[i%len(events)], "prod", raws[i%len(events)]); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			if _, err := a.Flush(context.Background()); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
