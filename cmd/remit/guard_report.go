package main

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"remit"
	"remit/activity/archive"
	"remit/connector/kubernetes"
	"remit/report"
)

func newGuardReportCommand(global *globalFlags) *cobra.Command {
	var system, format, from string
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Tell what the guard has refused, or would have refused in audit, since it was applied",
		Long: `Report reads what the API server's audit log says of each request that broke a rule,
from the events that Remit has taken in. The API server notes the first policy that
was broken by a request, and no other.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := planFormat(format); err != nil {
				return err
			}
			start, err := dayOrTime("--from", from)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			c, err := readConfig(global)
			if err != nil {
				return err
			}
			data, err := openDataDir(ctx, global, false)
			if err != nil {
				return err
			}
			defer data.Close()
			known, _, err := guardedSystem(ctx, data, c, system)
			if err != nil {
				return err
			}
			if start.IsZero() {
				history, err := guardedBefore(ctx, data, known.ID)
				if err != nil {
					return err
				}
				if !history.exists {
					return remit.Errorf(remit.NotFound, "", "no guard was applied to %s from here: say --from, or remit guard apply", known.Name)
				}
				start = history.first.Made
			}
			tally := guardTally{}
			log, err := eachEvent(ctx, data, archive.Query{System: known.ID, From: start}, func(a *remit.Activity, _ []byte) error {
				if v, refused, ok := kubernetes.GuardVerdict(a.Reason); ok {
					tally.add(guardEvents{Rule: v.Rule, Message: v.Message, Refused: refused}, a)
				}
				return nil
			})
			if err != nil {
				return err
			}
			if !log {
				return remit.Errorf(remit.NotFound, "", "there is no archive of events: the guard writes to the cluster's audit log, which Remit has to take in (remit serve, or remit import activity)")
			}
			events := tally.sorted()
			if format == "json" {
				document := json.NewEncoder(cmd.OutOrStdout())
				document.SetIndent("", "  ")
				return document.Encode(struct {
					System string        `json:"system"`
					Since  time.Time     `json:"since"`
					Events []guardEvents `json:"events"`
				}{known.Name, start, events})
			}
			return writeGuardReport(&lineWriter{w: cmd.OutOrStdout()}, known.Name, start, events)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&system, "system", "", "the cluster of this `name`; it need not be said where only one is configured")
	flags.StringVar(&from, "from", "", "from this `date` or time on; the default is when the guard was first applied")
	flags.StringVarP(&format, "format", "f", "text", "output format: `text|json`")
	return cmd
}

func writeGuardReport(out *lineWriter, system string, since time.Time, events []guardEvents) error {
	out.line("GUARD of %s, since %s UTC", report.Visible(system), since.UTC().Format("2006-01-02 15:04"))
	let := slices.DeleteFunc(slices.Clone(events), func(e guardEvents) bool { return e.Refused })
	refused := slices.DeleteFunc(slices.Clone(events), func(e guardEvents) bool { return !e.Refused })
	out.line("\nREFUSED")
	writeGuardEvents(out, refused)
	out.line("\nLET THROUGH IN AUDIT, and would have been refused")
	writeGuardEvents(out, let)
	return out.err
}
