// Command live measures how long it takes from a webhook's request to a visible
// finding. It starts `remit serve` as a process, keeps a steady load of ordinary
// audit events on it, and plays thefts one after the other: each is a request with
// one event, in which the token of a service account mints another token for the
// same account. A second client of the store looks every few milliseconds whether
// the finding is there, as somebody who reads findings would.
//
//	go run ./bench/live
//	go run ./bench/live -rates 0,5000 -thefts 1000
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	var b bench
	rates := flag.String("rates", "0,2000,10000", "events a second in the background, one measurement each")
	flag.IntVar(&b.thefts, "thefts", 200, "how many thefts, in each measurement")
	flag.IntVar(&b.identities, "identities", 2000, "of how many identities the background is")
	flag.IntVar(&b.batch, "batch", 100, "events in a request of the background")
	flag.DurationVar(&b.pause, "pause", 250*time.Millisecond, "mean time between a finding and the next theft; each differs, up to a half")
	flag.DurationVar(&b.poll, "poll", 2*time.Millisecond, "how often to look for the finding")
	flag.DurationVar(&b.limit, "limit", 4*time.Minute, "how long one measurement may take")
	flag.DurationVar(&b.patience, "patience", 20*time.Second, "how long to wait for a finding")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := b.run(ctx, *rates); err != nil {
		log.Fatal(err)
	}
}

type bench struct {
	thefts, identities, batch    int
	pause, poll, limit, patience time.Duration

	dir, program string
}

func (b *bench) run(ctx context.Context, rates string) (err error) {
	var all []int
	for text := range strings.SplitSeq(rates, ",") {
		rate, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || rate < 0 {
			return fmt.Errorf("-rates: %q is no number of events", text)
		}
		all = append(all, rate)
	}
	if b.thefts < 1 || b.identities < 1 || b.batch < 1 {
		return errors.New("-thefts, -identities and -batch have to be at least 1")
	}
	if b.dir, err = os.MkdirTemp("", "remit-bench-live-*"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	b.program = filepath.Join(b.dir, "remit")
	build := exec.CommandContext(ctx, "go", "build", "-o", b.program, "remit/cmd/remit")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build remit: %w", err)
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "asked\tevents/s\tthefts\t\tp50\tp90\tp99\tmost\t")
	var queues []string
	for _, rate := range all {
		r, err := b.measure(ctx, rate)
		if err != nil {
			return fmt.Errorf("at %d events a second: %w", rate, err)
		}
		fmt.Fprintf(t, "%d\t%.0f\t%d\tacknowledged\t%s\n", rate, r.sent, len(r.answered), quantiles(r.answered))
		fmt.Fprintf(t, "\t\t\tfinding visible\t%s\n", quantiles(r.visible))
		fmt.Fprintf(t, "\t\t\tbackground acknowledged\t%s\n", quantiles(r.background))
		queues = append(queues, fmt.Sprintf("at %d: %s", rate, r.words()))
	}
	t.Flush()
	fmt.Println()
	for _, q := range queues {
		fmt.Println(q)
	}
	return nil
}
