package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"remit"
	"remit/lifecycle"
	"remit/policy"
	"remit/report"
	"remit/server"
)

func newLifecycleCommand(global *globalFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lifecycle",
		Short: "Tell until when credentials may be used",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newLifecycleStatusCommand(global))
	return cmd
}

// statusFlags choose what `remit lifecycle status` lists.
type statusFlags struct {
	readingFlags
	outputFlags
	namespaces, states []string
}

func newLifecycleStatusCommand(global *globalFlags) *cobra.Command {
	var f statusFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "List where each credential stands, and what comes next and when",
		Long: `Status lists the credentials in the order of what comes next: what is to be done
already, then notices, rotations and ends by their date. The policies are those
under lifecycle in the configuration; the first that chooses a credential holds.

Without a data directory it reads the system first, as "remit scan" does.`,
		Example: `  remit lifecycle status --data-dir ~/.remit
  remit lifecycle status --state overdue,in-grace,due --verbose
  remit lifecycle status --namespace payments --format csv`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, global) },
	}
	f.readingFlags.add(cmd)
	f.outputFlags.add(cmd, "table", "json", "csv")
	flags := cmd.Flags()
	flags.StringSliceVarP(&f.namespaces, "namespace", "n", nil, "only in these `namespaces`")
	flags.StringSliceVar(&f.states, "state", nil, "only in these `states`: "+lifecycleStates())
	return cmd
}

func lifecycleStates() string {
	var words []string
	for _, s := range remit.LifecycleStates {
		words = append(words, string(s))
	}
	return strings.Join(words, ", ")
}

func (f *statusFlags) run(cmd *cobra.Command, global *globalFlags) error {
	ctx := cmd.Context()
	if err := f.check(); err != nil {
		return err
	}
	filter := lifecycle.Filter{Namespaces: f.namespaces}
	for _, word := range f.states {
		state := remit.LifecycleState(word)
		if !slices.Contains(remit.LifecycleStates, state) {
			return remit.Errorf(remit.Invalid, "", "no state %q: use %s", word, lifecycleStates())
		}
		filter.States = append(filter.States, state)
	}
	c, err := readConfig(global)
	if err != nil {
		return err
	}
	data, system, err := f.open(ctx, global)
	if err != nil {
		return err
	}
	defer data.Close()
	filter.System = system
	status, err := lifecycle.NewStatus(ctx, &c.Lifecycle, data.Store, filter, time.Now().UTC())
	if err != nil {
		return err
	}
	if len(c.Lifecycle.Policies) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "remit: the configuration has no lifecycle policies, so nothing is demanded of any credential: see docs/how-to/lifecycle.md")
	}
	return f.write(cmd, func(w io.Writer, o report.TableOptions) error {
		standings := status.Standings(ctx)
		switch f.format {
		case "json":
			return writeLines(w, standings)
		case "csv":
			return report.WriteStandingsCSV(w, standings)
		}
		return report.WriteStandings(w, status.Count, status.Total, standings, o)
	})
}

// standings tells where credentials of one system stand under the configuration.
func standings(ctx context.Context, c *config, data *dataDir, system remit.ID, credentials []remit.Credential, now time.Time) (map[remit.ID]remit.Standing, error) {
	if len(c.Lifecycle.Policies) == 0 || len(credentials) == 0 {
		return nil, nil
	}
	return lifecycle.Standings(ctx, &c.Lifecycle, data.Store, system, credentials, now)
}

// newLifecycleJudge makes the judge of lifecycles and offboarding.
func newLifecycleJudge(c *config, data *dataDir, now func() time.Time) *lifecycle.Judge {
	judge := lifecycle.NewJudge(&c.Lifecycle, data.Store)
	judge.People, judge.Now = c.people, now
	return judge
}

// notLifecycles refuses policies that have the ID of a lifecycle's finding: each
// would resolve what the other found.
func notLifecycles(set *policy.Set) error {
	for _, id := range lifecycle.FindingPolicies() {
		if p := set.Policy(id); p != nil {
			return remit.Errorf(remit.Invalid, "load policies", "%s:%d: the id %s belongs to the lifecycle: give the policy another", p.File, p.Line, id)
		}
	}
	return nil
}

// withLifecycles judges lifecycles after the policies, for offboarding builds on
// what those found.
type withLifecycles struct {
	policies   server.Evaluator
	lifecycles *lifecycle.Judge
}

func (w withLifecycles) EvaluateSystem(ctx context.Context, system remit.ID) error {
	if err := w.policies.EvaluateSystem(ctx, system); err != nil {
		return err
	}
	return w.lifecycles.EvaluateSystem(ctx, system)
}

func (w withLifecycles) EvaluateSubjects(ctx context.Context, system remit.ID, touched []remit.ID) error {
	if err := w.policies.EvaluateSubjects(ctx, system, touched); err != nil {
		return err
	}
	return w.lifecycles.EvaluateSubjects(ctx, system, touched)
}
