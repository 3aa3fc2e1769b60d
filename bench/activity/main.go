// Command activity measures how many audit events the pipeline takes on one
// core: it makes the audit log of a cluster, or takes a real one, and imports it
// as `remit import activity` does, into a store of its own, with attribution,
// lineage, usage, rules and baselines, without and with the archive. Each
// measurement is a process of its own with GOMAXPROCS=1.
//
//	go run ./bench/activity
//	go run ./bench/activity -log /var/log/kubernetes/audit.log -growth=false -rounds 10
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"text/tabwriter"
	"time"
)

func main() {
	var b bench
	flag.IntVar(&b.events, "events", 2_000_000, "how many events the log has")
	flag.IntVar(&b.identities, "identities", 100_000, "of how many identities")
	flag.IntVar(&b.rules, "rules", 300, "how many rules; above the built-in ones they are varied")
	flag.StringVar(&b.log, "log", "", "a `file` with the audit log to take instead of making one")
	flag.IntVar(&b.rounds, "rounds", 1, "of the log that -log names: how often it goes on, with IDs and times of its own")
	flag.IntVar(&b.most, "most", 1_000_000, "the most identities of which growth is measured")
	flag.StringVar(&b.make, "make", "", "only make a log, in this `file`, and in one whose name ends in .before the log that teaches its identities")
	flag.DurationVar(&b.every, "checkpoint-every", 20*time.Second, "time between checkpoints")
	flag.StringVar(&b.peer, "peer", "", "audit2rbac's `program`, to be timed on the same log (see peer.go)")
	flag.StringVar(&b.subject, "subject", "system:apiserver", "the `user` of whom it is asked")
	flag.BoolVar(&b.shares, "shares", true, "tell the share of each stage")
	flag.BoolVar(&b.growth, "growth", true, "measure growth with rules and identities")
	flag.StringVar(&b.keep, "cpuprofile", "", "keep the CPU profiles in this `directory`")
	one := flag.String("one", "", "one measurement, as JSON: what this program calls itself with")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := func() error {
		if *one == "" {
			return b.run(ctx)
		}
		var m measurement
		if err := json.Unmarshal([]byte(*one), &m); err != nil {
			return err
		}
		r, err := m.run(ctx)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(r)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	events, identities, rules int
	rounds, most              int
	log, make, keep           string
	peer, subject             string
	every                     time.Duration
	shares, growth            bool

	dir string
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.make != "" {
		_, err := writeLogs(b.make+".before", b.make, b.events, b.identities)
		return err
	}
	if b.dir, err = os.MkdirTemp("", "remit-bench-activity-*"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	lesson, log := "", b.log
	switch {
	case log == "":
		if lesson, log, err = b.made(b.events, b.identities); err != nil {
			return err
		}
	case b.rounds > 1:
		log = filepath.Join(b.dir, "log")
		if err := goOn(b.log, log, b.rounds); err != nil {
			return err
		}
		fmt.Printf("%s, %d times\n\n", b.log, b.rounds)
	}
	t := table("measured")
	plain := measurement{Lesson: lesson, Log: log, Rules: b.rules, Baselines: true, Every: b.every, Profile: filepath.Join(b.dir, "plain")}
	if b.keep != "" {
		plain.Heap = filepath.Join(b.keep, "heap")
	}
	if b.log == "" {
		plain.Identities = b.identities
	}
	archived, events := plain, int64(0)
	archived.Archive, archived.Profile = true, filepath.Join(b.dir, "archived")
	for _, one := range []struct {
		words string
		m     measurement
	}{{"everything, without the archive", plain}, {"everything, with the archive", archived}} {
		r, err := one.m.elsewhere(ctx)
		if err != nil {
			return err
		}
		t.row(one.words, r)
		events = r.Events
	}
	t.Flush()
	if b.peer != "" {
		if err := peer(ctx, b.peer, log, b.subject, events); err != nil {
			return err
		}
	}
	if b.keep != "" {
		for _, name := range []string{"plain", "archived"} {
			data, err := os.ReadFile(filepath.Join(b.dir, name))
			if err == nil {
				err = os.WriteFile(filepath.Join(b.keep, name), data, 0o600)
			}
			if err != nil {
				return err
			}
		}
	}
	if b.shares {
		if err := shares(ctx, plain.Profile, archived.Profile); err != nil {
			return err
		}
	}
	if !b.growth || b.log != "" {
		return nil
	}
	fmt.Println()
	t = table("rules")
	for _, n := range []int{10, 100, 300, 1000, 3000} {
		m := measurement{Lesson: lesson, Log: log, Identities: b.identities, Rules: n, Baselines: true, Every: b.every}
		r, err := m.elsewhere(ctx)
		if err != nil {
			return err
		}
		t.row(fmt.Sprintf("%d (%d asked)", n, r.Asked), r)
	}
	t.Flush()
	fmt.Println()
	t = table("identities")
	for n := 1_000; n <= b.most; n *= 10 {
		lesson, log, err := b.made(b.events, n)
		if err != nil {
			return err
		}
		m := measurement{Lesson: lesson, Log: log, Identities: n, Rules: b.rules, Baselines: true, Every: b.every}
		r, err := m.elsewhere(ctx)
		if err != nil {
			return err
		}
		t.row(fmt.Sprint(n), r)
		for _, file := range []string{lesson, log} {
			if err := os.Remove(file); err != nil {
				return err
			}
		}
	}
	return t.Flush()
}

func (b *bench) made(events, identities int) (lesson, log string, err error) {
	log = filepath.Join(b.dir, fmt.Sprintf("audit-%d.log", identities))
	lesson = log + ".before"
	size, err := writeLogs(lesson, log, events, identities)
	if err == nil {
		fmt.Printf("a log of %d events of %d identities, %d bytes an event, and one that teaches them\n\n", events, identities, size)
	}
	return lesson, log, err
}

// elsewhere measures in a process of its own, on one core.
func (m measurement) elsewhere(ctx context.Context) (r result, err error) {
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	what, err := json.Marshal(m)
	if err != nil {
		return r, err
	}
	cmd := exec.CommandContext(ctx, self, "-one", string(what))
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("measure: %w", err)
	}
	return r, json.NewDecoder(bytes.NewReader(out)).Decode(&r)
}

type rows struct{ *tabwriter.Writer }

// columns begins a table.
func columns(head string) rows {
	t := rows{tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)}
	fmt.Fprintln(t, head)
	return t
}

// table begins a table of measurements.
func table(of string) rows {
	return columns(of + "\tmet first\tevents\tevents/s\tCPU an event\tcheckpoints\tof the time\tpeak memory\tdatabase\tarchive\tfindings\t")
}

func (t rows) row(words string, r result) {
	archived, lesson := "-", "-"
	if r.Parquet > 0 {
		archived = fmt.Sprintf("%d B an event", r.Parquet/(r.Events+r.Lesson.Events))
	}
	if l := r.Lesson; l.Events > 0 {
		lesson = fmt.Sprintf("%.0f/s, %.2f µs", float64(l.Events)/l.Wall.Seconds(), float64(l.CPU.Microseconds())/float64(l.Events))
	}
	fmt.Fprintf(t, "%s\t%s\t%d\t%.0f\t%.2f µs\t%d\t%.0f %%\t%d MB\t%d MB\t%s\t%d\t\n", words, lesson, r.Events, float64(r.Events)/r.Wall.Seconds(),
		float64(r.CPU.Microseconds())/float64(r.Events), r.Checkpoints, 100*r.CheckpointsTook.Seconds()/r.Wall.Seconds(),
		r.Peak>>20, r.Database>>20, archived, r.Findings)
}
