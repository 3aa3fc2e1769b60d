// Command contain measures how long it takes from a theft to the first refusal. It
// starts a real API server with its audit webhook and `remit serve` with a rule that
// contains, and robs service accounts one after the other: the attacker mints with a
// pod's token, and then tries again and again, with all that he has, until he is
// refused. Meanwhile the robbed workload works on with the same token, and it is
// counted how often it was refused.
//
//	go run ./bench/contain
//	go run ./bench/contain -grades freeze-credentials -runs 20
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
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"remit"
)

func main() {
	var b bench
	grades := flag.String("grades", "freeze-credentials,refuse-credentials,remove-grants,kill-tokens", "grades of containment, one measurement each")
	flag.IntVar(&b.runs, "runs", 100, "how many thefts, in each measurement")
	flag.DurationVar(&b.delay, "delay", 100*time.Millisecond, "how long the API server gathers audit events before it sends them")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := b.run(ctx, *grades); err != nil {
		log.Fatal(err)
	}
}

type bench struct {
	runs  int
	delay time.Duration

	dir, program string
}

// result is what one theft came to.
type result struct {
	first time.Duration // from the answer to the first mint to the first refusal
	last  time.Duration // to the last answer that he got to a mint
	mints int           // that he got in all

	worked, failed int // requests of the workload
}

func (b *bench) run(ctx context.Context, grades string) (err error) {
	if b.dir, err = os.MkdirTemp("", "remit-bench-contain-*"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	b.program = filepath.Join(b.dir, "remit")
	build := exec.CommandContext(ctx, "go", "build", "-o", b.program, "remit/cmd/remit")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build remit: %w", err)
	}
	for name := range strings.SplitSeq(grades, ",") {
		grade := remit.Grade(strings.TrimSpace(name))
		if !slices.Contains(remit.Grades, grade) {
			return fmt.Errorf("-grades: no grade %q", grade)
		}
		all, err := b.measure(ctx, grade)
		if err != nil {
			return fmt.Errorf("%s: %w", grade, err)
		}
		var first, last []time.Duration
		mints, worked, failed := 0, 0, 0
		for _, r := range all {
			first, last = append(first, r.first), append(last, r.last)
			mints, worked, failed = max(mints, r.mints), worked+r.worked, failed+r.failed
		}
		fmt.Printf("%s, %d thefts\n", grade, len(all))
		t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "\tp50\tp90\tp99\tmost\t")
		fmt.Fprintf(t, "first refusal\t%s\n", quantiles(first))
		fmt.Fprintf(t, "last token he got\t%s\n", quantiles(last))
		t.Flush()
		fmt.Printf("he got at most %d tokens; of %d requests of the robbed workloads %d were refused\n\n", mints, worked, failed)
	}
	return nil
}

func quantiles(all []time.Duration) string {
	if len(all) == 0 {
		return "-\t-\t-\t-\t"
	}
	all = slices.Sorted(slices.Values(all))
	at := func(q float64) string {
		return fmt.Sprintf("%d ms", all[int(q*float64(len(all)-1))].Milliseconds())
	}
	return at(.5) + "\t" + at(.9) + "\t" + at(.99) + "\t" + at(1) + "\t"
}

func (b *bench) measure(ctx context.Context, grade remit.Grade) (_ []result, err error) {
	s, err := b.open(ctx, grade)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	var all []result
	for n := range b.runs {
		r, err := s.rob(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("theft %d: %w", n, err)
		}
		all = append(all, r)
	}
	return all, nil
}
