package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"remit"
	"remit/connector"
	"remit/inventory"
	"remit/policy"
	"remit/report"
)

// scanFlags are what `remit scan` can be told.
type scanFlags struct {
	connectFlags
	outputFlags
	judgeFlags
	filterFlags
	failOn          string
	requireComplete bool
	quiet           bool
}

func newScanCommand(global *globalFlags) *cobra.Command {
	var f scanFlags
	cmd := &cobra.Command{
		Use:   "scan",
		Short: "Read a system once and tell what is wrong with access in it",
		Long: `Scan reads a Kubernetes cluster (the current context, unless told otherwise), or
manifests with --from, judges every identity, credential and grant, and prints
the worst first. It needs the rights to list, says what it could not read, and
changes nothing.

With --data-dir it keeps what it saw, so that the next scan can tell what is new
and what was mended; without, it keeps nothing.`,
		Example: `  remit scan
  remit scan --context prod --format html --output prod.html
  remit scan --from manifests/ --format sarif --output remit.sarif --fail-on high
  kubectl get all,sa,roles,rolebindings,clusterroles,clusterrolebindings -A -o yaml > dump.yaml
  remit scan --from dump.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, global) },
	}
	f.connectFlags.add(cmd)
	f.outputFlags.add(cmd, "table", "json", "sarif", "csv", "html")
	f.judgeFlags.add(cmd)
	f.filterFlags.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.failOn, "fail-on", "", "exit with 1 when a finding is at least this severe: `info|low|medium|high|critical`")
	flags.BoolVar(&f.requireComplete, "require-complete", false, "exit with 3 when part of the inventory could not be read")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "show no progress")
	return cmd
}

func (f *scanFlags) run(cmd *cobra.Command, global *globalFlags) error {
	ctx := cmd.Context()
	if err := f.check(); err != nil {
		return err
	}
	var failOn remit.Severity
	if f.failOn != "" {
		var err error
		if failOn, err = remit.ParseSeverity(f.failOn); err != nil {
			return err
		}
	}
	filter, err := f.filter()
	if err != nil {
		return err
	}
	c, err := readConfig(global)
	if err != nil {
		return err
	}
	data, err := openDataDir(ctx, global, true)
	if err != nil {
		return err
	}
	defer data.Close()
	source, err := f.connect(c, data.Key)
	if err != nil {
		return err
	}
	system, err := f.scan(ctx, data, c, source, time.Now, f.quiet)
	if err != nil {
		return err
	}
	filter.Inventory.System = system.ID
	if err := f.show(cmd, data, filter, time.Now()); err != nil {
		return err
	}
	if failOn != "" {
		if err := failIfFindings(ctx, data, filter.Findings, failOn); err != nil {
			return err
		}
	}
	if f.requireComplete && len(system.Gaps) > 0 {
		return remit.Errorf(remit.Forbidden, "scan", "%d parts of %s could not be read", len(system.Gaps), system.Name)
	}
	return nil
}

// scan reads a system into the store and judges it.
func (f *judgeFlags) scan(ctx context.Context, data *dataDir, c *config, source connector.Connector, now func() time.Time, quiet bool) (remit.System, error) {
	shown := newProgress(quiet)
	defer shown.Done()
	evaluator, err := f.evaluator(data, c, now)
	if err != nil {
		return remit.System{}, err
	}
	reconciler := inventory.Reconciler{Store: data.Store, People: c.people, Progress: shown.Show, Now: now}
	result, err := reconciler.Sync(ctx, source)
	if err != nil {
		return remit.System{}, err
	}
	shown.Say("judging what was read")
	if _, err := evaluator.Evaluate(ctx, result.System.ID); err != nil {
		return remit.System{}, err
	}
	if err := newLifecycleJudge(c, data, now).EvaluateSystem(ctx, result.System.ID); err != nil {
		return remit.System{}, err
	}
	return result.System, nil
}

// show writes the report of one system in the format asked for.
func (f *outputFlags) show(cmd *cobra.Command, data *dataDir, filter report.StoreFilter, now time.Time) error {
	header := report.Header{Generated: now.UTC(), Version: versionString()}
	source := report.FromStore(cmd.Context(), header, data.Store, data.Store, filter)
	return f.write(cmd, func(w io.Writer, o report.TableOptions) error {
		switch f.format {
		case "json":
			return report.WriteJSON(w, source)
		case "sarif":
			return report.WriteSARIF(w, source)
		case "csv":
			return report.WriteCSV(w, source, report.CSVOptions{})
		case "html":
			return report.WriteHTML(w, source)
		default:
			return report.WriteTable(w, source, o)
		}
	})
}

// judgeFlags say with which policies a system is judged.
type judgeFlags struct {
	policies []string
	people   string
}

func (f *judgeFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&f.policies, "policies", nil, "`path` of policies of your own, beside the built-in ones; repeatable")
	flags.StringVar(&f.people, "people", "", "`file` of who can answer for an identity and who has left, one a line")
}

// evaluator loads the policies; those that do not compile are told on standard
// error, and the others run.
func (f *judgeFlags) evaluator(data *dataDir, c *config, now func() time.Time) (*policy.Evaluator, error) {
	if f.people != "" {
		var err error
		if c.people, err = readPeople(f.people); err != nil {
			return nil, err
		}
	}
	set, err := loadPolicies(c, f.policies)
	if err != nil {
		return nil, err
	}
	if err := notLifecycles(set); err != nil {
		return nil, err
	}
	return newEvaluator(set, data, now), nil
}

// filterFlags choose what a report shows. They do not change what is judged.
type filterFlags struct {
	namespaces []string
	severity   string
	policy     []string
	risks      []string
}

func (f *filterFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVarP(&f.namespaces, "namespace", "n", nil, "show only these `namespaces`")
	flags.StringVar(&f.severity, "severity", "", "show findings of at least this `severity`")
	flags.StringSliceVar(&f.policy, "policy", nil, "show findings of these policy `ids`")
	flags.StringSliceVar(&f.risks, "risk", nil, "show findings of these `risks`, as NHI7")
}

func (f *filterFlags) filter() (report.StoreFilter, error) {
	filter := report.StoreFilter{
		Inventory: remit.Filter{Namespaces: f.namespaces},
		Findings: remit.FindingFilter{
			Namespaces: f.namespaces, Policies: f.policy, Risks: f.risks,
			States: []remit.FindingState{remit.Open, remit.Acknowledged, remit.Suppressed},
		},
	}
	if f.severity != "" {
		least, err := remit.ParseSeverity(f.severity)
		if err != nil {
			return filter, err
		}
		filter.Findings.MinimumSeverity = least
	}
	return filter, nil
}

// failOnError ends a command with the exit code for findings.
type failOnError struct {
	severity remit.Severity
	count    int
	more     bool
}

func (e *failOnError) Error() string {
	more := ""
	if e.more {
		more = "at least "
	}
	return fmt.Sprintf("%s%d findings are %s or worse", more, e.count, e.severity)
}

func failIfFindings(ctx context.Context, data *dataDir, filter remit.FindingFilter, severity remit.Severity) error {
	if filter.MinimumSeverity.Rank() < severity.Rank() {
		filter.MinimumSeverity = severity
	}
	filter.States = []remit.FindingState{remit.Open} // what someone acknowledged does not fail the next run
	found, next, err := data.Store.Findings(ctx, filter, remit.PageRequest{Limit: 1000})
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return &failOnError{severity: severity, count: len(found), more: next != ""}
	}
	return nil
}
