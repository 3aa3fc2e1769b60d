package main

import (
	"context"
	"io"
	"iter"
	"time"

	"github.com/spf13/cobra"

	"remit"
	"remit/report"
)

// findingsFlags choose what `remit findings` lists.
type findingsFlags struct {
	readingFlags
	outputFlags
	filterFlags
	states []string
	search string
}

func newFindingsCommand(global *globalFlags) *cobra.Command {
	var f findingsFlags
	cmd := &cobra.Command{
		Use:   "findings",
		Short: "List what is wrong",
		Long: `Findings lists what the policies and the detections found, the worst first. With a data directory it
answers from what was seen, without one it reads the system first, as "remit
scan" does.`,
		Example: `  remit findings --severity high
  remit findings --risk NHI7 --format csv
  remit findings --state resolved`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, global) },
	}
	f.readingFlags.add(cmd)
	f.outputFlags.add(cmd, "table", "json", "sarif", "csv", "html")
	f.filterFlags.add(cmd)
	cmd.Flags().StringSliceVar(&f.states, "state", nil, "only in these `states`: open, acknowledged, suppressed, resolved (default: all but resolved)")
	cmd.Flags().StringVar(&f.search, "search", "", "only with these `words` in the subject's name")
	return cmd
}

func (f *findingsFlags) run(cmd *cobra.Command, global *globalFlags) error {
	ctx := cmd.Context()
	if err := f.check(); err != nil {
		return err
	}
	filter, err := f.filter()
	if err != nil {
		return err
	}
	if len(f.states) > 0 {
		filter.Findings.States = nil
	}
	for _, name := range f.states {
		switch state := remit.FindingState(name); state {
		case remit.Open, remit.Acknowledged, remit.Suppressed, remit.Resolved:
			filter.Findings.States = append(filter.Findings.States, state)
		default:
			return remit.Errorf(remit.Invalid, "", "no state %q: use open, acknowledged, suppressed or resolved", name)
		}
	}
	filter.Findings.Search = f.search
	data, system, err := f.open(ctx, global)
	if err != nil {
		return err
	}
	defer data.Close()
	filter.Inventory.System, filter.Findings.System = system, system
	if f.format == "html" || f.format == "sarif" || f.format == "csv" {
		return f.show(cmd, data, filter, time.Now())
	}
	return f.write(cmd, func(w io.Writer, o report.TableOptions) error {
		worst := worstFirst(ctx, data.Store, filter.Findings)
		if f.format == "json" {
			return writeLines(w, worst)
		}
		return report.WriteFindings(w, worst, o)
	})
}

// worstFirst lists findings in the order in which a person looks at them.
func worstFirst(ctx context.Context, from remit.FindingStore, filter remit.FindingFilter) iter.Seq2[remit.Finding, error] {
	return func(yield func(remit.Finding, error) bool) {
		for page := (remit.PageRequest{Limit: 1000, Sort: "severity"}); ; {
			some, next, err := from.Findings(ctx, filter, page)
			if err != nil {
				yield(remit.Finding{}, err)
				return
			}
			for _, f := range some {
				if !yield(f, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			page.After = next
		}
	}
}
