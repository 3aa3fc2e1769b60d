//go:build unix

// Command store measures the store at the size of a large company: it writes
// an inventory the way a connector's listing does, writes it again unchanged,
// writes it again with one record in a hundred changed, and asks the questions
// that people and pages ask. What it prints shows whether the cost of a record
// grows with the number of records before it.
//
//	go run ./bench/store -engine sqlite -identities 1000000
//	go run ./bench/store -engine postgres -identities 1000000
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"text/tabwriter"
	"time"

	"remit"
	"remit/e2e/postgres"
	"remit/store/sqlstore"
)

func main() {
	engine := flag.String("engine", "sqlite", "sqlite or postgres")
	identities := flag.Int("identities", 100_000, "how many identities; each has three credentials and grants")
	url := flag.String("url", "", "the store to write to, which must be new; without it a temporary one is made")
	page := flag.Int("page", 1000, "records in one transaction")
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
	if err := run(ctx, *engine, *url, *identities, *page); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, engine, url string, identities, page int) error {
	where, size, server, end, err := place(ctx, engine, url)
	if err != nil {
		return err
	}
	defer end()
	s, err := sqlstore.Open(ctx, where)
	if err != nil {
		return err
	}
	defer s.Close()
	b := &bench{store: s, inventory: newInventory(identities), page: page, server: server}
	if err := s.PutSystem(ctx, remit.System{ID: b.system, Connector: "bench", Name: "bench"}); err != nil {
		return err
	}
	fmt.Printf("%s: %d identities, %d records, %d a transaction\n", engine, identities, 4*identities, page)
	for _, phase := range []struct {
		name  string
		round int
	}{{"first", 0}, {"unchanged", 0}, {"1 % changed", 1}} {
		if err := b.write(ctx, phase.name, phase.round); err != nil {
			return err
		}
		fmt.Printf("  size on disk %s, peak memory of this process %s\n", megabytes(size(ctx)), megabytes(peakMemory()))
	}
	return b.ask(ctx)
}

// place returns where to keep the store, a function that measures it, the
// processes of the server, if there is one of ours, and a function that removes it.
func place(ctx context.Context, engine, url string) (where string, size func(context.Context) int64, pids []int, end func(), err error) {
	switch engine {
	case "sqlite":
		dir := ""
		end = func() {}
		if url == "" {
			if dir, err = os.MkdirTemp("", "remit-bench"); err != nil {
				return "", nil, nil, nil, err
			}
			end = func() { _ = os.RemoveAll(dir) }
			url = filepath.Join(dir, "remit.db")
		}
		path := strings.TrimPrefix(url, "sqlite://")
		return url, func(context.Context) int64 { return fileSizes(path, path+"-wal") }, nil, end, nil
	case "postgres":
		end = func() {}
		if url == "" {
			server, err := postgres.Run(ctx, postgres.Options{Settings: map[string]string{
				// As in production, and unlike the tests.
				"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on",
				"shared_buffers": "512MB", "max_wal_size": "4GB",
			}})
			if err != nil {
				return "", nil, nil, nil, err
			}
			end = func() { _ = server.Close() }
			pids = server.Pids()
			if url, err = server.NewDatabase(ctx); err != nil {
				end()
				return "", nil, nil, nil, err
			}
		}
		return url, func(ctx context.Context) int64 { return databaseSize(ctx, url) }, pids, end, nil
	}
	return "", nil, nil, nil, fmt.Errorf("no engine %q: use sqlite or postgres", engine)
}

// bench writes one inventory and asks about it.
type bench struct {
	store *sqlstore.Store
	*inventory
	page   int
	server []int // its processes
}

// write plays one whole listing and prints the speed of each step.
func (b *bench) write(ctx context.Context, name string, round int) error {
	const step = 100_000
	run, err := b.store.StartRun(ctx, b.system)
	if err != nil {
		return err
	}
	run.Begin("all")
	learned := start.Add(time.Duration(round) * 24 * time.Hour)
	begun, mark, spent := time.Now(), time.Now(), used(b.server)
	var sum remit.Changes
	var costs []float64 // of a record, in microseconds of a processor
	written, since := 0, 0
	fmt.Printf("%s; records/s (µs of processor a record) by %d:", name, step)
	for records := range b.pages(b.page, round) {
		c, err := run.Apply(ctx, "all", learned, records, nil)
		if err != nil {
			return err
		}
		sum.Added, sum.Updated, sum.Unchanged = sum.Added+c.Added, sum.Updated+c.Updated, sum.Unchanged+c.Unchanged
		n := records.Len()
		written, since = written+n, since+n
		if since >= step {
			now := used(b.server)
			costs = append(costs, float64((now-spent).Microseconds())/float64(since))
			fmt.Printf(" %.0f (%.0f)", float64(since)/time.Since(mark).Seconds(), costs[len(costs)-1])
			mark, spent, since = time.Now(), now, 0
		}
	}
	c, err := run.Complete(ctx, "all", learned)
	if err != nil {
		return err
	}
	all := time.Since(begun)
	fmt.Printf("\n  %d added, %d updated, %d unchanged, %d removed in %v: %.0f records/s", sum.Added, sum.Updated, sum.Unchanged, c.Removed, all.Round(time.Millisecond), float64(written)/all.Seconds())
	if last := len(costs) - 1; last > 0 {
		fmt.Printf("; a record of the last step costs %.2f times one of the first", costs[last]/costs[0])
	}
	fmt.Println()
	return nil
}

// ask times the questions.
func (b *bench) ask(ctx context.Context) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "question\tfirst\tmedian of 5\tfound")
	for _, q := range b.questions() {
		first, median, found, err := timed(ctx, q.ask)
		if err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
		fmt.Fprintf(w, "%s\t%v\t%v\t%d\n", q.name, first.Round(10*time.Microsecond), median.Round(10*time.Microsecond), found)
	}
	return w.Flush()
}
