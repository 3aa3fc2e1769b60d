package main

import (
	"compress/gzip"
	"embed"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"remit"
	"remit/connector/kubernetes"
	"remit/connector/secret"
	"remit/inventory"
)

// recording is what a real API server listed of a cluster with known problems.
// `make demo-recording` makes it anew. Every secret in it was made up for it.
//
//go:embed demo/recording.json.gz
var recording embed.FS

const recordingFile = "demo/recording.json.gz"

// recordedPeople are who works where the recording was made.
//
//go:embed demo/people.csv
var recordedPeople string

// recordedAt is when the recording was made, which its gzip header tells.
func recordedAt() (time.Time, error) {
	file, err := recording.Open(recordingFile)
	if err != nil {
		return time.Time{}, err
	}
	defer file.Close()
	zipped, err := gzip.NewReader(file)
	if err != nil {
		return time.Time{}, remit.Errorf(remit.Internal, "read recording", "%w", err)
	}
	return zipped.ModTime.UTC(), nil
}

func newDemoCommand(global *globalFlags) *cobra.Command {
	var f scanFlags
	var explain string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show a scan of a recorded cluster; needs nothing",
		Long: `Demo scans a recording of a real Kubernetes API server that is built into Remit:
a small company's cluster with some fifty known problems in it. Everything else
is as in "remit scan". Ages are told as of the moment of the recording.`,
		Example: `  remit demo
  remit demo --explain ci/runner
  remit demo --format html --output demo.html`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.demo(cmd, global, explain) },
	}
	f.outputFlags.add(cmd, "table", "json", "sarif", "csv", "html")
	f.judgeFlags.add(cmd)
	f.filterFlags.add(cmd)
	cmd.Flags().StringVar(&explain, "explain", "", "explain one identity of the recording, by `name`")
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "show no progress")
	return cmd
}

func (f *scanFlags) demo(cmd *cobra.Command, global *globalFlags, explain string) error {
	ctx := cmd.Context()
	if err := f.check(); err != nil {
		return err
	}
	filter, err := f.filter()
	if err != nil {
		return err
	}
	c, err := readConfig(global)
	if err != nil {
		return err
	}
	if c.People == "" {
		if c.people, err = inventory.ReadPeople("demo/people.csv", strings.NewReader(recordedPeople)); err != nil {
			return err
		}
	}
	recorded, err := recordedAt()
	if err != nil {
		return err
	}
	now := func() time.Time { return recorded }
	data, err := openDataDir(ctx, global, true)
	if err != nil {
		return err
	}
	defer data.Close()
	fingerprinter, err := secret.NewFingerprinter(data.Key)
	if err != nil {
		return err
	}
	source, err := kubernetes.OpenFS(recording, recordingFile, kubernetes.Config{
		Name: "demo", Fingerprint: fingerprinter.Fingerprint, Now: now,
	})
	if err != nil {
		return err
	}
	system, err := f.scan(ctx, data, c, source, now, f.quiet)
	if err != nil {
		return err
	}
	if explain != "" {
		return f.explain(cmd, c, data, system.ID, explain, recorded)
	}
	filter.Inventory.System = system.ID
	return f.show(cmd, data, filter, recorded)
}
