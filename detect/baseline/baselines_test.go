package baseline_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"remit"
	"remit/detect/baseline"
)

// some draws a log in which anything may happen: few names, so that things come
// again, and now and then a name, a date or an address that is none.
func some(t *rapid.T, n int) []remit.Activity {
	r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	at := start
	var log []remit.Activity
	for range n {
		at = at.Add(time.Duration(r.ExpFloat64() * float64(20*time.Minute)))
		if r.IntN(200) == 0 {
			at = at.Add(time.Duration(r.IntN(50)) * 24 * time.Hour)
		}
		who := account([]string{"a", "b"}[r.IntN(2)], fmt.Sprintf("n%d", r.IntN(4)))
		a := does(who, at.Add(-time.Duration(r.IntN(60))*time.Second), []string{"get", "list", "create"}[r.IntN(3)],
			fmt.Sprintf("kind-%d", min(r.IntN(4)*r.IntN(4), 6)), who.Namespace, fmt.Sprintf("10.1.%d.7", r.IntN(2)*r.IntN(2)),
			[]string{"api/1", "curl/8", ""}[r.IntN(3)*r.IntN(2)])
		a.Outcome = []remit.Outcome{remit.Allowed, remit.Denied, remit.Failed}[r.IntN(3)*r.IntN(2)]
		if r.IntN(3) == 0 {
			a = bound(a, fmt.Sprintf("pod-%d", r.IntN(2)))
		}
		if r.IntN(4) == 0 {
			a.Minted = remit.Minted{Credential: "JTI=m", For: account("a", "n1"), Audiences: []string{"x"}[:r.IntN(2)]}
			if r.IntN(2) == 0 {
				a.Minted.Bound = remit.Ref{Kind: "Pod", Namespace: "a", Name: "pod-1"}
			}
			a.SelfMinted = r.IntN(2) == 0
		}
		switch r.IntN(100) {
		case 0:
			a.Time = time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC)
		case 1:
			a.Time = time.Time{}
		case 2:
			a.Address = "ec2.amazonaws.com"
		case 3:
			a = remit.Activity{Identity: a.Identity, Time: a.Time}
		}
		log = append(log, a)
	}
	// And two pods that behave, but for one whose token is stolen.
	regular, who := pods(r, 2, 8*time.Hour)
	for at := start.Add(5 * time.Hour); at.Before(start.Add(8 * time.Hour)); at = at.Add(time.Duration(4+r.IntN(8)) * time.Minute) {
		regular = append(regular, mintsItself(who, "api-1", []string{"", "api-1"}[r.IntN(2)], "10.9.0.4", "curl/8", at))
	}
	for at := start.Add(6 * time.Hour); at.Before(start.Add(8 * time.Hour)); at = at.Add(time.Duration(4+r.IntN(8)) * time.Minute) {
		regular = append(regular, renews("node-0", "127.10.0.2", at, who, "api-0"))
	}
	slices.SortStableFunc(regular, func(a, b remit.Activity) int { return a.Time.Compare(b.Time) })
	at = start
	for i := range log { // in between, each in its own order
		for len(regular) > 0 && regular[0].Time.Before(at) {
			log, regular = append(log, regular[0]), regular[1:]
		}
		at = at.Add(time.Minute / 2)
		log = append(log, log[i])
	}
	return log[n:]
}

// quick are options under which everything happens within a short log.
var quick = baseline.Options{LearnFor: 24 * time.Hour, LearnEvents: 10, LearnLeast: time.Hour, Repeat: time.Minute, Dormant: 5 * 24 * time.Hour}

func signals(b *baseline.Baselines, log []remit.Activity) (found []remit.Signal) {
	for i := range log {
		found = b.Observe(&log[i], found)
	}
	return found
}

// shelf is a store of states.
type shelf map[string][]byte

func (s shelf) put(key string, state []byte) error {
	s[key] = bytes.Clone(state)
	return nil
}

func (s shelf) get(key string) ([]byte, error) { return s[key], nil }

func restored(t interface{ Fatal(...any) }, s shelf, o baseline.Options) *baseline.Baselines {
	b := baseline.New(o)
	for _, key := range slices.Sorted(maps.Keys(s)) {
		if o.Load != nil && key != "clock" {
			continue
		}
		if err := b.Load(key, s[key]); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func TestSameInputSameOutput(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := some(t, 1200)
		if one, two := signals(baseline.New(quick), log), signals(baseline.New(quick), log); !reflect.DeepEqual(one, two) {
			t.Fatal("two runs over one log differ")
		}
	})
}

// However often it is stopped and restored, from a few records or through the
// loader with almost nothing in memory, it says what it would have said.
func TestRestore(t *testing.T) {
	told := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		log := some(t, 1200)
		never := baseline.New(quick)
		want := signals(never, log)
		for _, s := range want {
			told[s.Rule]++
		}

		for _, lazily := range []bool{false, true} {
			s := shelf{}
			o := quick
			if lazily {
				o.Load, o.Identities = s.get, 1
			}
			b := baseline.New(o)
			var got []remit.Signal
			for rest := log; len(rest) > 0; {
				n := min(rapid.IntRange(1, 700).Draw(t, "until"), len(rest))
				got = append(got, signals(b, rest[:n])...)
				rest = rest[n:]
				if err := b.Changed(s.put); err != nil {
					t.Fatal(err)
				}
				if rapid.Bool().Draw(t, "stopped") {
					b = restored(t, s, o)
				}
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("restored (lazily: %v): %d signals, never stopped: %d", lazily, len(got), len(want))
			}

			once := shelf{}
			if err := never.Changed(once.put); err != nil {
				t.Fatal(err)
			}
			if len(once) > 0 && !reflect.DeepEqual(s, once) {
				t.Fatal("the stored states differ")
			}
		}
	})
	t.Logf("signals compared, by rule: %v", told)
}

func TestChangedGivesOnlyWhatChanged(t *testing.T) {
	b := baseline.New(baseline.Options{})
	one, two := account("a", "one"), account("a", "two")
	act := func(who remit.Ref, at time.Duration) {
		a := does(who, start.Add(at), "get", "pods", "a", "10.0.0.1", "x/1")
		b.Observe(&a, nil)
	}
	act(one, 0)
	act(two, time.Minute)
	full := errors.New("the disk is full")
	n := 0
	if err := b.Changed(func(string, []byte) error {
		if n++; n > 2 {
			return full
		}
		return nil
	}); !errors.Is(err, full) {
		t.Errorf("error %v, want that of the store", err)
	}
	s := shelf{}
	if err := b.Changed(s.put); err != nil {
		t.Fatal(err)
	}
	if _, ok := s[b.Key(remit.IdentityID(cluster, two))]; !ok {
		t.Error("what could not be stored does not come again")
	}
	s = shelf{}
	act(one, 2*time.Minute)
	if err := b.Changed(s.put); err != nil {
		t.Fatal(err)
	}
	if _, ok := s[b.Key(remit.IdentityID(cluster, two))]; ok {
		t.Error("what did not change is given")
	}
	if len(s) != 3 { // clock, identity, strand
		t.Errorf("%d records, want 3", len(s))
	}
	for key, state := range s {
		if last, err := baseline.LastEvent(key, state); err != nil || key[0] == 'i' && !last.Equal(start.Add(2*time.Minute)) {
			t.Errorf("%s: last event %v, %v", key, last, err)
		}
	}
}

// A store that cannot be read must not make known identities new ones.
func TestStoreFails(t *testing.T) {
	s, down := shelf{}, false
	o := baseline.Options{Load: func(key string) ([]byte, error) {
		if down {
			return nil, remit.Errorf(remit.Unavailable, "read store", "no connection")
		}
		return s.get(key)
	}}
	who := account("apps", "controller")
	b := baseline.New(o)
	signals(b, steady(who, start, start.Add(9*24*time.Hour)))
	if err := b.Changed(s.put); err != nil {
		t.Fatal(err)
	}
	before := maps.Clone(s)

	b, down = baseline.New(o), true
	silent(t, observe(b, []remit.Activity{does(who, start.Add(10*24*time.Hour), "get", "secrets", "x", "10.1.0.5", "x")}))
	if err := b.Changed(s.put); remit.KindOf(err) != remit.Unavailable {
		t.Errorf("error %v, want that of the store", err)
	}
	down = false
	if err := b.Changed(s.put); err != nil {
		t.Fatal(err)
	}
	delete(before, "clock")
	for key, state := range before {
		if !bytes.Equal(s[key], state) {
			t.Errorf("record %s was lost while the store was down", key)
		}
	}
}

func TestWrongDates(t *testing.T) {
	who := account("apps", "controller")
	far := does(who, time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC), "get", "deployments", "apps", "10.1.0.5", "controller/v1.2.3")
	old := does(who, start.Add(-3000*24*time.Hour), "get", "deployments", "apps", "10.1.0.5", "controller/v1.2.3")
	none := does(who, time.Time{}, "get", "deployments", "apps", "10.1.0.5", "controller/v1.2.3")
	ancient := does(who, time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC), "get", "deployments", "apps", "10.1.0.5", "controller/v1.2.3")
	b := baseline.New(baseline.Options{})
	log := steady(who, start, start.Add(9*24*time.Hour))
	var found []remit.Signal
	for i := range log {
		found = b.Observe(&log[i], found)
		for _, wrong := range []remit.Activity{far, old, none, ancient} {
			if i%500 == 100 {
				found = b.Observe(&wrong, found)
			}
		}
	}
	for _, s := range found {
		t.Errorf("%s: %s", s.Rule, s.Words)
	}
	if n := rules(observe(b, []remit.Activity{does(who, start.Add(9*24*time.Hour), "get", "secrets", "x", "10.1.0.5", "controller/v1")})); n["baseline-new-operation"] != 1 {
		t.Errorf("signals %v: wrong dates must not undo what was learned", n)
	}

	// One date far ahead ends no learning.
	b = baseline.New(baseline.Options{})
	signals(b, append(steady(who, start, start.Add(4*time.Hour)), far))
	silent(t, observe(b, []remit.Activity{does(who, start.Add(4*time.Hour), "get", "secrets", "x", "10.1.0.5", "controller/v1")}))

	// A stream that goes on after a year does go on.
	b = baseline.New(baseline.Options{})
	signals(b, steady(who, start, start.Add(9*24*time.Hour)))
	next := start.Add(365 * 24 * time.Hour)
	if n := rules(observe(b, steady(who, next, next.Add(time.Hour)))); n["baseline-dormant-wakes"] != 1 {
		t.Errorf("signals %v, want a dormant identity that wakes", n)
	}
}

func TestLateEventsAreNoPause(t *testing.T) {
	who := account("apps", "controller")
	log := steady(who, start, start.Add(9*24*time.Hour))
	r := rand.New(rand.NewPCG(8, 8))
	for i := range log { // up to an hour out of order
		j := min(i+r.IntN(30), len(log)-1)
		log[i], log[j] = log[j], log[i]
	}
	for _, s := range signals(baseline.New(baseline.Options{}), log) {
		t.Errorf("%s: %s", s.Rule, s.Words)
	}
}

// Whoever makes up names by the million gets few signals, costs no memory and does
// not wash away what is usual.
func TestFloodOfNames(t *testing.T) {
	who := account("apps", "controller")
	b := baseline.New(baseline.Options{Identities: 1000})
	signals(b, steady(who, start, start.Add(9*24*time.Hour)))
	var before, later runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	n, found := 0, []remit.Signal(nil)
	for i := range 200_000 {
		at := start.Add(9*24*time.Hour + time.Duration(i)*10*time.Millisecond)
		a := does(who, at, fmt.Sprintf("verb-%d", i), fmt.Sprintf("kind-%d", i), fmt.Sprintf("ns-%d", i),
			fmt.Sprintf("10.%d.%d.1", i>>8&255, i&255), fmt.Sprintf("agent-%c%c%c", 'a'+i%26, 'a'+i/26%26, 'a'+i/676%26))
		a.Credential, a.Root = fmt.Sprint(i), fmt.Sprint(i)
		a.Minted = remit.Minted{Credential: "x", For: account("x", fmt.Sprint(i)), Bound: remit.Ref{Kind: "Pod", Name: fmt.Sprint(i)}}
		found = b.Observe(&a, found[:0])
		n += len(found)
	}
	runtime.GC()
	runtime.ReadMemStats(&later)
	if n > 20 {
		t.Errorf("%d signals about one flood", n)
	}
	if grown := int64(later.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("200,000 names cost %d KiB", grown>>10)
	}
	for _, h := range observe(b, steady(who, start.Add(12*24*time.Hour), start.Add(13*24*time.Hour))) {
		t.Errorf("the usual is unusual after the flood: %s", h)
	}
}

func TestHostileFields(t *testing.T) {
	long := strings.Repeat("\x1b[31m\xff(/", 1<<16)
	b := baseline.New(quick)
	for i := range 200 {
		at := start.Add(time.Duration(i) * time.Hour)
		a := remit.Activity{
			Identity: remit.ID("idn_x"), Time: at, Action: long, Address: long, UserAgent: long, Credential: long, Root: long,
			Actor: remit.Ref{Kind: long, Namespace: long, Name: long}, Resource: remit.Ref{Kind: long, Namespace: long, Name: long},
			Bound: remit.Ref{Name: long}, Minted: remit.Minted{Credential: long, For: remit.Ref{Name: long}, Audiences: []string{long}},
			Dormant: -1,
		}
		if i%10 == 9 {
			a.Action, a.Resource.Kind, a.Address, a.UserAgent = fmt.Sprint(i, long), fmt.Sprint(i, long), "fe80::1%"+fmt.Sprint(i), "x"+long
		}
		for _, s := range b.Observe(&a, nil) {
			if len(s.Words) > 1000 || strings.ContainsAny(s.Words, "\x1b\n") || !utf8.ValidString(s.Words) {
				t.Fatalf("words of %d bytes: %.200q", len(s.Words), s.Words)
			}
		}
	}
	if found := b.Observe(&remit.Activity{}, nil); found != nil {
		t.Errorf("an empty activity: %v", found)
	}
}

// fleet makes n identities known and returns usual activities of them.
func fleet(b *baseline.Baselines, n, rounds int) []remit.Activity {
	r := rand.New(rand.NewPCG(9, 9))
	log := make([]remit.Activity, n)
	for i := range log {
		who := account(fmt.Sprintf("ns-%d", i/50), fmt.Sprintf("sa-%d", i))
		a := does(who, start, "get", "deployments", who.Namespace, fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255), "controller/v1.36.3 (linux/amd64) kubernetes/1a2b3c")
		log[i] = bound(a, who.Name)
		log[i].Minted = remit.Minted{Credential: "x", For: who, Bound: log[i].Bound}
	}
	for round := range rounds {
		for i := range log {
			a := &log[i]
			a.Time = start.Add(time.Duration(round) * 25 * time.Hour / 6)
			a.Action, a.Resource.Kind = []string{"get", "list", "watch"}[round%3], fmt.Sprintf("kind-%d", round%5)
			b.Observe(a, nil)
		}
	}
	for i := range log {
		log[i].Minted = remit.Minted{}
	}
	r.Shuffle(n, func(i, j int) { log[i], log[j] = log[j], log[i] })
	return log
}

// TestMemory measures what 100,000 identities cost, each with a pod whose token is
// used and renewed: four records of them.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("measures 100,000 identities")
	}
	const n = 100_000
	var before, later runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	b := baseline.New(baseline.Options{Identities: 2 * n})
	fleet(b, n, 15)
	runtime.GC()
	runtime.ReadMemStats(&later)
	each := (int64(later.HeapAlloc) - int64(before.HeapAlloc)) / n

	stored, kinds, records := 0, map[byte]int{}, map[byte]int{}
	if err := b.Changed(func(key string, state []byte) error {
		stored += len(key) + len(state)
		kinds[key[0]] += len(state)
		records[key[0]]++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes per identity in memory, %d stored", each, stored/n)
	for _, kind := range "imsg" {
		t.Logf("%c: %d records of %d bytes stored", kind, records[byte(kind)], kinds[byte(kind)]/max(records[byte(kind)], 1))
	}
	if each > 1536 {
		t.Errorf("%d bytes per identity in memory", each)
	}
	if stored/n > 600 {
		t.Errorf("%d bytes per identity stored", stored/n)
	}
	runtime.KeepAlive(b)
}

func TestNothingIsAllocated(t *testing.T) {
	b := baseline.New(baseline.Options{})
	log := fleet(b, 100, 10)
	found, i := make([]remit.Signal, 0, 4), 0
	if n := testing.AllocsPerRun(1000, func() {
		a := &log[i%len(log)]
		a.Time = a.Time.Add(time.Minute)
		found = b.Observe(a, found[:0])
		i++
	}); n > 0 {
		t.Errorf("%v allocations for a usual activity", n)
	}
}

// BenchmarkObserve measures usual activities of random ones of many identities.
// As in the pipeline, each was decoded just before, so that its fields are in the
// cache: that is not timed, what was learned about its identity is.
func BenchmarkObserve(b *testing.B) {
	for _, c := range []struct {
		n      int
		skewed bool // a few of them do most, as in life
	}{{1_000, false}, {100_000, true}, {100_000, false}, {1_000_000, false}} {
		n := c.n
		b.Run(fmt.Sprintf("%d/skewed=%v", n, c.skewed), func(b *testing.B) {
			known := baseline.New(baseline.Options{Identities: 1_000_000})
			log := fleet(known, n, 3)
			at := start.Add(30 * time.Hour)
			var found []remit.Signal
			var decoded [256]remit.Activity
			var spent time.Duration
			for i := range log { // the first activity of an hour costs more
				log[i].Time = at
				found = known.Observe(&log[i], found[:0])
			}
			i, zipf := 0, rand.NewZipf(rand.New(rand.NewPCG(1, 1)), 1.1, 1, uint64(n-1))
			b.ResetTimer()
			for range b.N / len(decoded) {
				for j := range decoded {
					if c.skewed {
						i = int(zipf.Uint64())
					}
					at = at.Add(time.Millisecond)
					decoded[j] = log[i]
					a := &decoded[j]
					a.Time = at
					for _, field := range []*string{(*string)(&a.Identity), (*string)(&a.System), &a.Actor.Namespace, &a.Actor.Name, &a.Resource.Kind, &a.Resource.Namespace, &a.Address, &a.Bound.Name, &a.Bound.Namespace} {
						*field = strings.Clone(*field)
					}
					if i++; i == len(log) {
						i = 0
					}
				}
				began := time.Now()
				for j := range decoded {
					found = known.Observe(&decoded[j], found[:0])
				}
				spent += time.Since(began)
			}
			if len(found) > 0 {
				b.Error("a usual activity is unusual")
			}
			b.ReportMetric(float64(spent)/float64(max(b.N/len(decoded), 1)*len(decoded)), "ns/observe")
		})
	}
}

// FuzzLoad feeds states that nobody stored: they are refused, or used without harm,
// and then stored as they were.
func FuzzLoad(f *testing.F) {
	b := baseline.New(quick)
	log, who := tenPods(rand.New(rand.NewPCG(1, 1)), 3*time.Hour)
	signals(b, log[:len(log)/4])
	_ = b.Changed(func(key string, state []byte) error {
		f.Add(key, bytes.Clone(state))
		return nil
	})
	f.Add("clock", []byte{1})
	f.Add("i", []byte{})
	f.Fuzz(func(t *testing.T, key string, state []byte) {
		b := baseline.New(quick)
		if err := b.Load(key, state); err != nil {
			if remit.KindOf(err) != remit.Invalid {
				t.Fatalf("error of kind %q: %v", remit.KindOf(err), err)
			}
			return
		}
		if _, err := baseline.LastEvent(key, state); err != nil {
			t.Fatal(err)
		}
		at := start.Add(3 * time.Hour)
		if key[0] == 'i' {
			// Whatever its key, let it be met.
			key = b.Key(remit.IdentityID(cluster, who))
			if err := b.Load(key, state); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 50 {
			a := mintsItself(who, "api-3", "api-3", "10.9.0.4", "curl/8.4", at.Add(time.Duration(i)*time.Hour))
			b.Observe(&a, nil)
		}
		s := shelf{}
		if err := b.Changed(s.put); err != nil {
			t.Fatal(err)
		}
		restored(t, s, quick)
	})
}
