package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"remit"
	"remit/activity"
	"remit/activity/archive"
	"remit/connector"
	"remit/connector/kubernetes"
	"remit/detect"
	"remit/detect/sigma"
	"remit/store/sqlstore"
)

// measurement is one import.
type measurement struct {
	Lesson     string // a log that comes before and does not count; "" for none
	Log        string
	Identities int // that the inventory has; 0 when it is not a log that was made
	Rules      int
	Archive    bool
	Baselines  bool
	Every      time.Duration // between checkpoints
	Profile    string        // where its CPU profile goes; "" for none
	Heap       string        // and that of its memory
}

// result is what one import took. CPU is of the whole process, the garbage
// collector's and the store's included.
type result struct {
	Events, Dead      int64
	Wall, CPU         time.Duration
	Peak              uint64
	Checkpoints       int
	CheckpointsTook   time.Duration
	Asked             int // rules that are asked about Kubernetes' events
	Findings          int
	Database, Parquet int64
	Lesson            rate // of the log before
}

// rate is how fast a log was taken.
type rate struct {
	Events    int64
	Wall, CPU time.Duration
}

// run imports the log into a data directory of its own, as `remit import
// activity` does.
func (m measurement) run(ctx context.Context) (r result, err error) {
	dir, err := os.MkdirTemp("", "remit-bench-activity-*")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	store, err := sqlstore.Open(ctx, filepath.Join(dir, "remit.db"))
	if err != nil {
		return r, err
	}
	defer store.Close()
	system := remit.System{ID: remit.SystemID("kubernetes", "bench"), Connector: "kubernetes", Name: "bench", Native: "bench", Mode: remit.ModeObserve, Recorded: true}
	if err := store.PutSystem(ctx, system); err != nil {
		return r, err
	}
	if m.Identities > 0 {
		if err := putInventory(ctx, store, system.ID, m.Identities); err != nil {
			return r, err
		}
	}
	options := activity.Options{Store: store, Decoders: []connector.Decoder{kubernetes.Audit}}
	var engine *sigma.Engine
	if m.Rules > 0 {
		all, err := ruleSet(m.Rules)
		if err != nil {
			return r, err
		}
		engine, _ = sigma.Compile(all, sigma.Options{Attributed: detect.Attributed})
		r.Asked = len(engine.RulesFor(sigma.Logsource{Product: "kubernetes", Service: "audit"}))
	}
	if m.Rules > 0 || m.Baselines {
		if options.Detector, err = detect.New(ctx, detect.Options{Engine: engine, States: store, BaselineOff: !m.Baselines}); err != nil {
			return r, err
		}
	}
	if m.Archive {
		a, err := archive.Open(filepath.Join(dir, "archive"), archive.Options{})
		if err != nil {
			return r, err
		}
		defer a.Close()
		options.Archive = a
	}
	p := activity.New(options)
	read := func(log string) (took rate, err error) {
		files, err := activity.FindLogs([]string{log}, options.Decoders)
		if err != nil {
			return took, err
		}
		run := activity.Import{Pipeline: p, System: system.ID, Every: m.Every}
		r.Checkpoints, r.CheckpointsTook = 0, 0
		run.Checkpoint = func(ctx context.Context) error {
			begin := time.Now()
			defer func() { r.Checkpoints++; r.CheckpointsTook += time.Since(begin) }()
			return p.Checkpoint(ctx)
		}
		before, wall, cpu := p.Counts().Events, time.Now(), processorTime()
		err = run.Run(ctx, files)
		return rate{p.Counts().Events - before, time.Since(wall), processorTime() - cpu}, err
	}
	if m.Lesson != "" {
		if r.Lesson, err = read(m.Lesson); err != nil {
			return r, err
		}
	}
	if m.Profile != "" {
		f, err := os.Create(m.Profile)
		if err != nil {
			return r, err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return r, err
		}
		defer pprof.StopCPUProfile()
	}
	took, err := read(m.Log)
	if err != nil {
		return r, err
	}
	r.Events, r.Wall, r.CPU = took.Events, took.Wall, took.CPU
	r.Dead, r.Peak = p.Counts().Dead, peak()
	if r.Dead > 0 {
		return r, fmt.Errorf("%d events of the log could not be read", r.Dead)
	}
	if m.Heap != "" {
		f, err := os.Create(m.Heap)
		if err != nil {
			return r, err
		}
		defer f.Close()
		if err := pprof.WriteHeapProfile(f); err != nil {
			return r, err
		}
	}
	counts, err := store.FindingCounts(ctx, system.ID)
	for _, c := range counts {
		if c.Facet == "severity" {
			r.Findings += int(c.Count)
		}
	}
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if info, e := d.Info(); err == nil && e == nil && !d.IsDir() {
			if strings.HasSuffix(path, ".parquet") {
				r.Parquet += info.Size()
			} else {
				r.Database += info.Size()
			}
		}
		return nil
	})
	return r, err
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peak is the process's largest resident set, in bytes.
func peak() uint64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		var kb uint64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kb); err == nil {
			return kb << 10
		}
	}
	return 0
}
