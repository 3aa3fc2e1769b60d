package main

import (
	"context"
	"fmt"
	"io"
	"os"
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
	cmd.AddCommand(newImportActivityCommand(global))
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
	decoder := named
	data, err := openDataDir(ctx, global, false)
	if err != nil {
		return err
	}
	defer data.Close()
	files, err := activity.FindLogs(paths, decoders)
	if err != nil {
		return err
	}
	if decoder == nil {
		decoder = files[0].Decoder // for a system that is not known yet
	}
	system, err := namedSystem(ctx, data, f.system, decoder)
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
	return imported(cmd.OutOrStdout(), last, p, data)
}

func importing(p activity.Progress) string {
	percent := int64(100)
	if p.Bytes > 0 {
		percent = min(100, 100*p.Read/p.Bytes)
	}
	return fmt.Sprintf("%3d %% of %s in %d files, %d events, %.0f a second: %s",
		percent, byteSize(p.Bytes), p.Files, p.Counts.Events, float64(p.Counts.Events)/max(p.Elapsed.Seconds(), 0.001), p.File)
}

func byteSize(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
}

// imported tells what an import did, and where to look next.
func imported(w io.Writer, p activity.Progress, opened *openedPipeline, data *dataDir) error {
	c := p.Counts
	_, err := fmt.Fprintf(w, "%d events from %d files (%s) in %s, %.0f a second\n", c.Events, p.Done, byteSize(p.Bytes),
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
		fmt.Fprintf(w, "%d could not be read: %s tells why\n", c.Dead, report.Visible(data.path+string(os.PathSeparator)+"dead-letters.jsonl"))
	}
	_, err = fmt.Fprint(w, "\nNEXT\n  remit findings             what was not normal\n  remit activity             who did how much\n  remit activity IDENTITY    its credentials, which minted which, and what each did\n")
	return err
}

// namedSystem finds the system that the user calls so, or makes it; "" when no
// name is given.
func namedSystem(ctx context.Context, data *dataDir, name string, of connector.Decoder) (remit.ID, error) {
	if name == "" {
		return "", nil
	}
	all, err := data.Store.Systems(ctx)
	if err != nil {
		return "", err
	}
	for _, s := range all {
		if s.Name == name || string(s.ID) == name {
			return s.ID, nil
		}
	}
	kind := "kubernetes"
	if of != nil {
		kind = of.Source().Connector
	}
	made := remit.System{
		ID: remit.SystemID(kind, "named "+name), Connector: kind, Name: name, Native: "named " + name,
		Mode: remit.ModeObserve, Recorded: true,
	}
	return made.ID, data.Store.PutSystem(ctx, made)
}
