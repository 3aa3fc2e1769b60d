package lifecycle_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"remit"
	"remit/lifecycle"
)

// BenchmarkEvaluateSystem judges a system of 100,000 credentials of 10,000
// accounts, of which one in a hundred breaks a limit, and lists where they stand.
// REMIT_CREDENTIALS sets another number, a multiple of 1,000.
func BenchmarkEvaluateSystem(b *testing.B) {
	c := tokens(lifecycle.Policy{MaxAge: lifecycle.Span(90 * day), MaxIdle: lifecycle.Span(30 * day)})
	w := newWorld(b, c)
	total := 100_000
	if n, err := strconv.Atoi(os.Getenv("REMIT_CREDENTIALS")); err == nil {
		total = n
	}
	for n := 0; n < total; n += 1000 {
		var r remit.Records
		for i := n; i < n+1000; i++ {
			age := i % 85
			if i%100 == 0 {
				age = 400
			}
			t := w.token(fmt.Sprintf("token-%06d", i), age)
			account := w.account(fmt.Sprintf("account-%05d", i/10))
			account.Owners = []remit.Owner{{Name: "team", Source: "label team"}}
			t.Identity, t.Holder, t.Native = account.ID, account.Ref, fmt.Sprintf("JTI=%06d", i)
			r.Credentials = append(r.Credentials, t)
			if i%10 == 0 {
				r.Identities = append(r.Identities, account)
			}
		}
		w.put(r)
	}
	b.Run("judge", func(b *testing.B) {
		for b.Loop() {
			w.later(time.Second)
			w.whole()
		}
		heap(b)
	})
	b.Run("status", func(b *testing.B) {
		for b.Loop() {
			status, err := lifecycle.NewStatus(b.Context(), c, w.store, lifecycle.Filter{}, w.now)
			w.must(err)
			n := 0
			for _, err := range status.Standings(b.Context()) {
				w.must(err)
				n++
			}
			if n != total || status.Count[remit.LifecycleInGrace] != total/100 {
				b.Fatal(n, status.Count)
			}
		}
		heap(b)
	})
}

// heap reports what is kept, which must not grow with the system.
func heap(b *testing.B) {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapAlloc)/1e6, "MB-kept")
}
