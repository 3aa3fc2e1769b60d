package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"remit"
	"remit/activity"
	"remit/connector"
	"remit/report"
)

func newImportCommand(global *globalFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Read files into the data directory",
	}
	cmd.AddCommand(newImportActivityCommand(global), newImportLeaksCommand(global))
	return cmd
}

// importFlags choose what `remit import activity` reads.
type importFlags struct {
	activityFlags
	system, source string
	quiet          bool
	every          time.Duration
}

func newImportActivityCommand(global *globalFlags) *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use:   "activity FILE...",
		Short: "Read audit logs: who did what with which credential, and what was not normal",
		Long: `Import activity reads audit logs from files and directories, oldest first: JSON
lines, lists of events, plain or compressed by gzip or zstd. The source of each
file is recognised from its events.

Events count by their own times, so that an old log gives the findings that the
live stream would have given, and each once: a file that was read before, or that
overlaps with one, adds only what is new.

An event that names its system goes to that system. A cluster's audit log does
not: its events go to the one connected cluster, or to the one that --system
names.`,
		Example: `  remit import activity --data-dir ~/.remit /var/log/kubernetes/audit.log
  remit import activity --data-dir ~/.remit --system prod audit-2026-11.log.gz
  remit import activity --data-dir ~/.remit cloudtrail/`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, global, args) },
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.system, "system", "", "`name` of the system whose events they are; it is made when it is not known")
	flags.StringVar(&f.source, "source", "", "`source` of the events, as kubernetes; the default is to recognise it")
	flags.DurationVar(&f.every, "checkpoint-every", 20*time.Second, "how often what was read is written; a killed import reads again what came after")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "show no progress")
	return cmd
}

func (f *importFlags) run(cmd *cobra.Command, global *globalFlags, paths []string) error {
	ctx := cmd.Context()
	named, err := decoderNamed(f.source)
	if err != nil {
		return err
	}
	data, err := openDataDir(ctx, global, false)
	if err != nil {
		return err
	}
	defer data.Close()
	files, err := activity.FindLogs(paths, decoders)
	if err != nil {
		return err
	}
	system, err := f.namedSystem(ctx, data, named, files)
	if err != nil {
		return err
	}
	p, err := f.openPipeline(ctx, data)
	if err != nil {
		return err
	}
	defer p.Close()
	bar := newProgress(f.quiet)
	var last activity.Progress
	run := activity.Import{
		Pipeline: p.Pipeline, System: system, Decoder: named,
		Every:      f.every,
		Checkpoint: func(ctx context.Context) error { return p.Checkpoint(ctx) },
		Progress: func(now activity.Progress) {
			last = now
			bar.Say(importing(now))
		},
	}
	err = run.Run(ctx, files)
	bar.Done()
	if err != nil {
		return err
	}
	if err := p.Compact(ctx, time.Now(), nil); err != nil {
		return err
	}
	if c := last.Counts; c.Dead > 0 && c.Events+c.Duplicate+c.Ignored == 0 {
		return f.noneRead(c.Dead, named, files, data)
	}
	return imported(cmd.OutOrStdout(), last, data)
}

// noneRead tells of files in which there is no event that could be read.
func (f *importFlags) noneRead(dead int64, named connector.Decoder, files []activity.LogFile, data *dataDir) error {
	where := report.Visible(files[0].Path)
	if len(files) > 1 {
		where = fmt.Sprintf("%d files", len(files))
	}
	hint := "none of them is of a source that Remit knows: name it with --source (" + strings.Join(sourceNames(), ", ") + ")"
	if named != nil {
		hint = "they are not of the source " + named.Source().Name
		if like := recognized(files); len(like) > 0 && like[0] != named {
			hint += " but look like " + like[0].Source().Name + ": leave --source out"
		}
	}
	return remit.Errorf(remit.Invalid, "import activity", "nothing was read of %s in %s: %s; %s has them, with reasons",
		count(dead, "event"), where, hint, report.Visible(deadLetters(data)))
}

func deadLetters(data *dataDir) string { return filepath.Join(data.path, "dead-letters.jsonl") }

// recognized are the sources of files, each once.
func recognized(files []activity.LogFile) (all []connector.Decoder) {
	for _, f := range files {
		if f.Decoder != nil && !slices.Contains(all, f.Decoder) {
			all = append(all, f.Decoder)
		}
	}
	return all
}

// count writes a number of things.
func count[N ~int | ~int64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func importing(p activity.Progress) string {
	percent := int64(100)
	if p.Bytes > 0 {
		percent = min(100, 100*p.Read/p.Bytes)
	}
	return fmt.Sprintf("%3d %% of %s in %s, %s, %.0f a second: %s",
		percent, byteSize(p.Bytes), count(p.Files, "file"), count(p.Counts.Events, "event"), float64(p.Counts.Events)/max(p.Elapsed.Seconds(), 0.001), p.File)
}

func byteSize(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return count(n, "byte")
}

// imported tells what an import did, and where to look next.
func imported(w io.Writer, p activity.Progress, data *dataDir) error {
	c := p.Counts
	_, err := fmt.Fprintf(w, "%s from %s (%s) in %s, %.0f a second\n", count(c.Events, "event"), count(p.Done, "file"), byteSize(p.Bytes),
		p.Elapsed.Round(time.Millisecond), float64(c.Events)/max(p.Elapsed.Seconds(), 0.001))
	if err != nil {
		return err
	}
	if c.Duplicate > 0 {
		fmt.Fprintf(w, "%d had been counted before\n", c.Duplicate)
	}
	if c.Ignored > 0 {
		fmt.Fprintf(w, "%d tell nothing (a request's first stage)\n", c.Ignored)
	}
	if c.Dead > 0 {
		fmt.Fprintf(w, "%d could not be read: %s tells why\n", c.Dead, report.Visible(deadLetters(data)))
	}
	in := ""
	if os.Getenv("REMIT_DATA_DIR") != data.path {
		in = " --data-dir " + report.Visible(data.path)
	}
	_, err = fmt.Fprintf(w, "\nNEXT\n  remit findings%[1]s             what was not normal\n  remit activity%[1]s             who did how much\n  remit activity%[1]s IDENTITY    its credentials, which minted which, and what each did\n", in)
	return err
}

// namedSystem finds the system that --system names, or makes it; "" when none is
// named.
func (f *importFlags) namedSystem(ctx context.Context, data *dataDir, source connector.Decoder, files []activity.LogFile) (remit.ID, error) {
	if f.system == "" {
		return "", nil
	}
	const op = "import activity"
	of := recognized(files)
	if source != nil {
		of = []connector.Decoder{source}
	}
	for _, other := range of {
		if other.Source().Connector != of[0].Source().Connector {
			return "", remit.Errorf(remit.Invalid, op, "the files are of %s and of %s, and --system names one system: import them one after the other",
				of[0].Source().Name, other.Source().Name)
		}
	}
	return systemOf(ctx, data, f.system, of)
}
