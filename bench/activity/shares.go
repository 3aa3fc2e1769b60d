package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// stages tell by a function's name to which stage what it does belongs. The
// first frame from the leaf up that is named here decides.
var stages = []struct{ function, stage string }{
	{"remit/activity/archive.", "archive"},
	{"remit/connector.AppendJSON", "archive: strip secrets"},
	{"remit/connector.StripTokens", "archive: strip secrets"},
	{"remit/connector/kubernetes.audit.Strip", "archive: strip secrets"},
	{"remit/connector.stripText", "archive: strip secrets"},
	{"remit/connector.(*stripper)", "archive: strip secrets"},
	{"remit/activity/seen.", "seen"},
	{"remit/activity.eventHash", "seen"},
	{"remit/activity/lineage.", "lineage"},
	{"remit/activity/usage.", "usage"},
	{"remit/detect/baseline.", "baselines"},
	{"remit/detect/sigma.", "rules"},
	{"remit/detect.(*attribution)", "rules"},
	{"remit/detect.", "rules"},
	{"remit/connector/kubernetes.", "decode"},
	{"remit/connector.", "decode"},
	{"remit/activity.(*system)", "attribution"},
	{"remit/activity.(*places)", "attribution"},
	{"remit.IdentityID", "attribution"},
	{"github.com/valyala/fastjson.(*Parser)", "parse"},
	{"remit/activity.Documents", "read lines"},
	{"remit/activity.(*Pipeline)", "the rest of the pipeline"},
	{"runtime.gcBgMarkWorker", "garbage collector"},
	{"runtime.bgsweep", "garbage collector"},
	{"runtime.bgscavenge", "garbage collector"},
}

// checkpoint is the frame below which all but the archive's work belongs to
// writing the store.
const checkpoint = "remit/activity.(*Pipeline).Checkpoint"

func stageOf(stack []string) string {
	for _, f := range stack {
		if f == checkpoint {
			for _, f := range stack {
				if strings.HasPrefix(f, "remit/activity/archive.") {
					return "archive"
				}
			}
			return "checkpoint"
		}
	}
	for _, f := range stack {
		for _, s := range stages {
			if strings.HasPrefix(f, s.function) {
				return s.stage
			}
		}
	}
	return "other"
}

// shares prints what share of each profile's time every stage has.
func shares(ctx context.Context, plain, archived string) error {
	one, err := sharesOf(ctx, plain)
	if err != nil {
		return err
	}
	two, err := sharesOf(ctx, archived)
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for name := range one {
		names[name] = true
	}
	for name := range two {
		names[name] = true
	}
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.SortFunc(sorted, func(a, b string) int {
		return cmp.Or(cmp.Compare(one[b], one[a]), cmp.Compare(two[b], two[a]), cmp.Compare(a, b))
	})
	fmt.Println()
	t := columns("share of the time\twithout the archive\twith the archive\t")
	for _, name := range sorted {
		fmt.Fprintf(t, "%s\t%.1f %%\t%.1f %%\t\n", name, 100*one[name], 100*two[name])
	}
	return t.Flush()
}

// sharesOf reads a CPU profile by way of `go tool pprof -traces`.
func sharesOf(ctx context.Context, profile string) (map[string]float64, error) {
	out, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-traces", profile).Output()
	if err != nil {
		return nil, fmt.Errorf("read the profile: %w", err)
	}
	took := map[string]float64{}
	total := 0.0
	var stack []string
	var sample float64
	end := func() {
		if len(stack) > 0 {
			took[stageOf(stack)] += sample
			total += sample
		}
		stack, sample = stack[:0], 0
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	begun := false
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "-----------+") {
			end()
			begun = true
			continue
		}
		if !begun || len(line) < 13 {
			continue
		}
		if d, err := time.ParseDuration(strings.TrimSpace(line[:10])); err == nil {
			sample = d.Seconds()
		}
		name, _, _ := strings.Cut(strings.TrimSpace(line[10:]), " (inline)")
		stack = append(stack, name)
	}
	end()
	for name := range took {
		took[name] /= total
	}
	return took, lines.Err()
}
