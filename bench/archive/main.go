// Command archive measures the event archive: it writes events as an audit log
// of many machines has them, asks what an investigation asks, compacts every
// hour, and asks again.
//
//	go run ./bench/archive
//	go run ./bench/archive -events 100000000 -hours 24 -raw=false
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"remit"
	"remit/activity/archive"
)

func main() {
	var m measurement
	flag.IntVar(&m.events, "events", 2_000_000, "how many events")
	flag.IntVar(&m.hours, "hours", 6, "over how many hours they lie")
	flag.IntVar(&m.batch, "flush", 250_000, "events between two flushes")
	flag.BoolVar(&m.raw, "raw", true, "with raw events of 1 KB")
	flag.BoolVar(&m.compact, "compact", true, "compact, and ask again")
	flag.StringVar(&m.dir, "dir", "", "where to write, kept; without it a temporary directory")
	profile := flag.String("cpuprofile", "", "a file to write a CPU profile to")
	flag.Parse()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		defer pprof.StopCPUProfile()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := m.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type measurement struct {
	events, hours, batch int
	raw, compact         bool
	dir                  string

	archive *archive.Archive
	files   []archive.File
}

func (m *measurement) run(ctx context.Context) (err error) {
	if m.dir == "" {
		if m.dir, err = os.MkdirTemp("", "remit-bench-archive-*"); err != nil {
			return err
		}
		defer os.RemoveAll(m.dir)
	}
	if m.archive, err = archive.Open(m.dir, archive.Options{}); err != nil {
		return err
	}
	if err := m.write(ctx); err != nil {
		return err
	}
	fmt.Println("\nas flushed:")
	if err := m.ask(ctx); err != nil {
		return err
	}
	if m.compact {
		if err := m.compactAll(ctx); err != nil {
			return err
		}
		fmt.Println("\ncompacted:")
		if err := m.ask(ctx); err != nil {
			return err
		}
	}
	fmt.Printf("\npeak memory of the process: %d MB\n", peak()>>20)
	return nil
}

var (
	start  = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	system = remit.SystemID("kubernetes", "bench")
)

const (
	identities = 3000
	tokens     = 7 // of an identity in one hour
)

// credential is a token that an identity uses during one hour.
func credential(identity, hour, k int) string {
	return fmt.Sprintf("JTI=%08x-%04x-4000-8000-%012x", uint32(identity*2654435761), hour, k)
}

// needle is used once in 50,000 events by identity 17, all the time.
const needle = "JTI=deadbeef-0000-4000-8000-000000000000"

// world makes events without allocating for each.
type world struct {
	r      *rand.Rand
	actors [identities]remit.Activity
	tokens [identities][tokens]string
	hour   int
	raw    []byte
}

func newWorld() *world {
	w := &world{r: rand.New(rand.NewPCG(1, 2)), hour: -1}
	for i := range w.actors {
		ref := remit.Ref{Kind: "ServiceAccount", Namespace: fmt.Sprintf("team-%d", i%60), Name: fmt.Sprintf("app-%d", i)}
		w.actors[i] = remit.Activity{
			System: system, Identity: remit.IdentityID(system, ref), Actor: ref,
			Principal: "system:serviceaccount:" + ref.Namespace + ":" + ref.Name,
			Type:      remit.ServiceAccount, CredentialType: remit.ShortLivedToken,
			Bound: remit.Ref{Kind: "Pod", Namespace: ref.Namespace, Name: fmt.Sprintf("%s-7f9c6b5d4-%05x", ref.Name, i)},
			Node:  fmt.Sprintf("node-%d", i%200), Address: fmt.Sprintf("10.%d.%d.%d", i%7, i%200, i%250),
			UserAgent: "app/v1.4.2 (linux/amd64) kubernetes/9ff2f1c", Outcome: remit.Allowed, Code: 200, Known: true,
			Binding: remit.Ref{Kind: "RoleBinding", Namespace: ref.Namespace, Name: ref.Name},
		}
	}
	return w
}

var (
	verbs = []string{"get", "list", "watch", "update", "patch", "create"}
	kinds = []string{"configmaps", "secrets", "pods", "leases", "endpoints"}
	names = func() []string {
		all := make([]string, 5000)
		for i := range all {
			all[i] = fmt.Sprintf("object-%d", i)
		}
		return all
	}()
)

func (w *world) next(i int, t time.Time, raw bool, e *remit.Activity) []byte {
	if hour := int(t.Sub(start) / time.Hour); hour != w.hour {
		w.hour = hour
		for a := range w.tokens {
			for k := range w.tokens[a] {
				w.tokens[a][k] = credential(a, hour, k)
			}
		}
	}
	n := w.r.IntN(identities)
	if i%50_000 == 25_000 {
		n = 17
	}
	*e = w.actors[n]
	e.ID = fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", w.r.Uint32(), w.r.IntN(1<<16), w.r.IntN(1<<12), w.r.IntN(1<<12), i)
	e.Time, e.Learned = t, t.Add(300*time.Millisecond)
	e.Credential = w.tokens[n][w.r.IntN(tokens)]
	if i%50_000 == 25_000 {
		e.Credential = needle
	}
	e.Root = e.Credential
	e.Action = verbs[w.r.IntN(len(verbs))]
	e.Write = e.Action != "get" && e.Action != "list" && e.Action != "watch"
	e.Resource = remit.Ref{Kind: kinds[w.r.IntN(len(kinds))], Namespace: e.Actor.Namespace, Name: names[w.r.IntN(len(names))]}
	if w.r.IntN(500) == 0 {
		e.Outcome, e.Code, e.Reason = remit.Denied, 403, "no RBAC policy matched"
	}
	if !raw {
		return nil
	}
	w.raw = fmt.Appendf(w.raw[:0], `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":%q,"stage":"ResponseComplete","requestURI":"/api/v1/namespaces/%s/%s/%s?resourceVersion=%d","verb":%q,"user":{"username":%q,"uid":"%08x-1c2d-4e5f-8a9b-%012x","groups":["system:serviceaccounts","system:serviceaccounts:%s","system:authenticated"],"extra":{"authentication.kubernetes.io/credential-id":[%q],"authentication.kubernetes.io/node-name":[%q],"authentication.kubernetes.io/pod-name":[%q]}},"sourceIPs":[%q],"userAgent":%q,"objectRef":{"resource":%q,"namespace":%q,"name":%q,"apiVersion":"v1"},"responseStatus":{"metadata":{},"code":%d},"requestReceivedTimestamp":%q,"stageTimestamp":%q,"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"RBAC: allowed by RoleBinding \"%s/%s\" of Role \"app\" to ServiceAccount \"%s/%s\""}}`,
		e.ID, e.Resource.Namespace, e.Resource.Kind, e.Resource.Name, w.r.IntN(1<<24), e.Action, e.Principal, n, n*7919, e.Actor.Namespace,
		e.Credential, e.Node, e.Bound.Name, e.Address, e.UserAgent, e.Resource.Kind, e.Resource.Namespace, e.Resource.Name, e.Code,
		t.Format(time.RFC3339Nano), e.Learned.Format(time.RFC3339Nano), e.Binding.Namespace, e.Binding.Name, e.Actor.Namespace, e.Actor.Name)
	return w.raw
}

// write appends the events. Making them is not part of the time.
func (m *measurement) write(ctx context.Context) error {
	const chunk = 10_000
	w := newWorld()
	events := make([]remit.Activity, chunk)
	raws := make([][]byte, chunk)
	var appending, flushing time.Duration
	var flushes, size int
	step := time.Duration(m.hours) * time.Hour / time.Duration(m.events)
	open := false
	for i := 0; i < m.events; i += chunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(chunk, m.events-i)
		for k := range n {
			raw := w.next(i+k, start.Add(time.Duration(i+k)*step), m.raw, &events[k])
			raws[k] = append(raws[k][:0], raw...)
			if raw == nil {
				raws[k] = nil
			}
			size += len(raw)
		}
		begin := time.Now()
		if !open {
			if err := m.archive.Begin(fmt.Sprintf("%08d", i)); err != nil {
				return err
			}
			open = true
		}
		for k := range n {
			if err := m.archive.Append(&events[k], "bench", raws[k]); err != nil {
				return err
			}
		}
		appending += time.Since(begin)
		if (i+n)%m.batch == 0 || i+n == m.events {
			begin := time.Now()
			files, err := m.archive.Flush(ctx)
			if err != nil {
				return err
			}
			flushing += time.Since(begin)
			flushes++
			open = false
			m.files = append(m.files, files...)
		}
	}
	var bytes int64
	for _, f := range m.files {
		bytes += f.Bytes
	}
	fmt.Printf("%d events over %d hours, raw events of %d bytes\n", m.events, m.hours, size/m.events)
	fmt.Printf("append: %.0f events/s (%v), %d flushes: %v, together %.0f events/s on one core\n", float64(m.events)/appending.Seconds(),
		appending.Round(time.Millisecond), flushes, flushing.Round(time.Millisecond), float64(m.events)/(appending+flushing).Seconds())
	fmt.Printf("%d files, %.1f MB, %.0f bytes an event\n", len(m.files), float64(bytes)/1e6, float64(bytes)/float64(m.events))
	return nil
}

func (m *measurement) compactAll(ctx context.Context) error {
	begin := time.Now()
	hours := map[string][]archive.File{}
	for _, f := range m.files {
		hours[path.Dir(f.Path)] = append(hours[path.Dir(f.Path)], f)
	}
	var files []archive.File
	var bytes int64
	for _, in := range hours {
		for round := 0; len(in) > 0; round++ {
			made, replaced, err := m.archive.Compact(ctx, fmt.Sprintf("compacted-%04d", round), in)
			if err != nil {
				return err
			}
			if len(replaced) == 0 {
				files = append(files, in...)
				break
			}
			if err := m.archive.Remove(ctx, replaced); err != nil {
				return err
			}
			gone := make(map[string]bool, len(replaced))
			for _, f := range replaced {
				gone[f.Path] = true
			}
			in = append(slices.DeleteFunc(in, func(f archive.File) bool { return gone[f.Path] }), made...)
		}
	}
	m.files = files
	for _, f := range files {
		bytes += f.Bytes
	}
	took := time.Since(begin)
	fmt.Printf("\ncompacted to %d files, %.0f bytes an event, in %v: %.0f events/s\n", len(files), float64(bytes)/float64(m.events), took.Round(time.Millisecond), float64(m.events)/took.Seconds())
	return nil
}

// ask prints how long an investigation's questions take: the first time, and
// the best of three more.
func (m *measurement) ask(ctx context.Context) error {
	half := start.Add(time.Duration(m.hours) * time.Hour / 2)
	identity := newWorld().actors[17].Identity
	last := credential(17, m.hours-1, 3)
	questions := []struct {
		words string
		q     archive.Query
	}{
		{"all that a rare credential did, ever", archive.Query{Credential: needle, Raw: m.raw}},
		{"the same in the second half", archive.Query{Credential: needle, From: half, Raw: m.raw}},
		{"all that a credential of the last hour did", archive.Query{Credential: last, Raw: m.raw}},
		{"the same, of the last hour only", archive.Query{Credential: last, From: start.Add(time.Duration(m.hours-1) * time.Hour), Raw: m.raw}},
		{"a credential that never was", archive.Query{Credential: "JTI=ffffffff-ffff-4fff-8fff-ffffffffffff"}},
		{"a lineage", archive.Query{Root: needle}},
		{"an identity, newest 100", archive.Query{Identity: identity, Limit: 100}},
		{"an identity's denied events, newest 100", archive.Query{Identity: identity, Outcome: remit.Denied, Limit: 100}},
		{"who touched a secret, newest 100", archive.Query{Resource: remit.Ref{Kind: "secrets", Namespace: "team-17", Name: "object-42"}, Limit: 100}},
		{"the newest 100 of all", archive.Query{Limit: 100, Raw: m.raw}},
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "question\tevents\tfirst\tbest of 3\t")
	for _, question := range questions {
		var first, best time.Duration
		var n int
		for k := range 4 {
			if err := ctx.Err(); err != nil {
				return err
			}
			n = 0
			begin := time.Now()
			err := m.archive.Query(ctx, m.files, question.q, func(*remit.Activity, []byte) error { n++; return nil })
			if err != nil {
				return err
			}
			took := time.Since(begin)
			if k == 0 {
				first = took
			} else if best == 0 || took < best {
				best = took
			}
		}
		fmt.Fprintf(t, "%s\t%d\t%v\t%v\t\n", question.words, n, first.Round(100*time.Microsecond), best.Round(100*time.Microsecond))
	}
	return t.Flush()
}

// peak is the process's largest resident set, in bytes.
func peak() uint64 {
	text, err := os.ReadFile("/proc/self/status")
	if err == nil {
		for line := range strings.Lines(string(text)) {
			var kb uint64
			if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kb); err == nil {
				return kb << 10
			}
		}
	}
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) == nil && runtime.GOOS == "linux" {
		return uint64(usage.Maxrss) << 10
	}
	return 0
}
