// Command watch measures how fresh the store is: clients change objects of a
// real API server at a steady rate while Remit watches it, and each change is
// timed from the answer of the API server until its record is in the store.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	k8s "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"remit"
	"remit/bench/load"
	"remit/connector/kubernetes"
	"remit/e2e/cluster"
	"remit/inventory"
	"remit/store/sqlstore"
)

func main() {
	accounts := flag.Int("accounts", 10_000, "service accounts in the cluster")
	rate := flag.Int("rate", 1000, "changes a second")
	seconds := flag.Int("seconds", 30, "how long")
	flag.Parse()
	if err := run(*accounts, *rate, *seconds); err != nil {
		log.Fatal(err)
	}
}

func run(accounts, rate, seconds int) (err error) {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	dir, err := os.MkdirTemp("", "bench-watch-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := cluster.Run(ctx, cluster.Options{NoControllerManager: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	size := load.Size{Namespaces: 100, ServiceAccounts: accounts, Pods: accounts, Bindings: accounts / 2, Secrets: accounts}
	if err := load.Fill(ctx, c.Admin, size, log.Printf); err != nil {
		return err
	}
	store, err := sqlstore.Open(ctx, filepath.Join(dir, "remit.db"))
	if err != nil {
		return err
	}
	defer store.Close()
	watcher, err := kubernetes.OpenRESTConfig(c.Admin, kubernetes.Config{Name: "bench"})
	if err != nil {
		return err
	}
	system, err := watcher.System(ctx)
	if err != nil {
		return err
	}

	times := newTimes()
	quiet := make(chan struct{}, 1)
	reconciler := inventory.Reconciler{
		Store: store,
		Changed: func(_ context.Context, _ remit.ID, touched []remit.ID) error {
			times.seen(touched)
			select {
			case quiet <- struct{}{}:
			default:
			}
			return nil
		},
	}
	watching := make(chan error, 1)
	go func() { watching <- reconciler.Watch(ctx, watcher) }()
	began := time.Now()
	for settled := false; !settled; { // the first reading is over when all is there and nothing comes any more
		select {
		case <-quiet:
		case <-time.After(2 * time.Second):
			settled = known(ctx, store) >= int64(accounts)
		case err := <-watching:
			return err
		}
	}
	log.Printf("first reading in the store after %s", (time.Since(began) - 2*time.Second).Round(100*time.Millisecond))

	sent, err := change(ctx, c.Admin, system.ID, times, accounts, rate, seconds)
	if err != nil {
		return err
	}
	time.Sleep(3 * time.Second)
	stop()
	if err := <-watching; err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	times.print(sent, seconds)
	return nil
}

// known is how many identities the store has.
func known(ctx context.Context, store *sqlstore.Store) int64 {
	counts, err := store.Counts(ctx, remit.KindIdentity, "")
	if err != nil {
		return 0
	}
	for _, c := range counts {
		if c.Facet == "" {
			return c.Count
		}
	}
	return 0
}

// change patches service accounts at a steady rate; each patch alters a label
// that the record shows.
func change(ctx context.Context, config *rest.Config, system remit.ID, times *times, accounts, rate, seconds int) (int, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = float32(2*rate), 2*rate
	client, err := k8s.NewForConfig(config)
	if err != nil {
		return 0, err
	}
	var all sync.WaitGroup
	var failed error
	var once sync.Once
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	began := time.Now()
	sent := 0
	limit := make(chan struct{}, 128)
	for ; time.Since(began) < time.Duration(seconds)*time.Second; sent++ {
		<-tick.C
		n := sent % accounts
		space, name := fmt.Sprintf("team-%03d", n%100), fmt.Sprintf("app-%05d", n)
		id := remit.IdentityID(system, remit.Ref{Kind: "ServiceAccount", Namespace: space, Name: name})
		limit <- struct{}{}
		all.Go(func() {
			defer func() { <-limit }()
			patch := fmt.Sprintf(`{"metadata":{"labels":{"changed":"%d"}}}`, sent)
			times.expect(id)
			_, err := client.CoreV1().ServiceAccounts(space).Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
			if err != nil {
				once.Do(func() { failed = err })
				return
			}
			times.answered(id)
		})
	}
	all.Wait()
	return sent, failed
}

// times matches changes with what the store was told. A change may be in the
// store before the client has its answer; it then took no time.
type times struct {
	mu      sync.Mutex
	waiting map[remit.ID]*instant
	took    []time.Duration
}

// instant is when the client had its answer, and when the store had the change.
type instant struct{ answered, seen time.Time }

func newTimes() *times { return &times{waiting: map[remit.ID]*instant{}} }

func (t *times) expect(id remit.ID) {
	t.mu.Lock()
	t.waiting[id] = &instant{}
	t.mu.Unlock()
}

func (t *times) answered(id remit.ID) {
	now := time.Now()
	t.mu.Lock()
	if c := t.waiting[id]; c != nil {
		c.answered = now
		t.settle(id, c)
	}
	t.mu.Unlock()
}

func (t *times) seen(ids []remit.ID) {
	now := time.Now()
	t.mu.Lock()
	for _, id := range ids {
		if c := t.waiting[id]; c != nil && c.seen.IsZero() {
			c.seen = now
			t.settle(id, c)
		}
	}
	t.mu.Unlock()
}

func (t *times) settle(id remit.ID, c *instant) {
	if c.answered.IsZero() || c.seen.IsZero() {
		return
	}
	t.took = append(t.took, max(0, c.seen.Sub(c.answered)))
	delete(t.waiting, id)
}

func (t *times) print(sent, seconds int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.Sort(t.took)
	at := func(q float64) time.Duration {
		if len(t.took) == 0 {
			return 0
		}
		return t.took[int(q*float64(len(t.took)-1))].Round(time.Millisecond)
	}
	fmt.Printf("%d changes, %d a second: in the store after p50 %s, p90 %s, p99 %s, at most %s; %d never seen\n",
		sent, sent/seconds, at(.5), at(.9), at(.99), at(1), len(t.waiting))
}
