package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"remit"
	"remit/report"
	"remit/response"
)

func newPlansCommand(global *globalFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plans",
		Short: "List, approve, carry out and undo the plans by which Remit changes a system",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPlansListCommand(global), newPlansShowCommand(global), newPlansApproveCommand(global),
		newPlansRejectCommand(global), newPlansResumeCommand(global), newPlansUndoCommand(global))
	return cmd
}

func newPlansListCommand(global *globalFlags) *cobra.Command {
	var states []string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List plans, the newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			data, err := openDataDir(ctx, global, false)
			if err != nil {
				return err
			}
			defer data.Close()
			systems, err := data.Store.Systems(ctx)
			if err != nil {
				return err
			}
			var f remit.ResponseFilter
			for _, name := range states {
				state := remit.ResponseState(name)
				if !slices.Contains(remit.ResponseStates, state) {
					return remit.Errorf(remit.Invalid, "", "no state %q: see remit plans list --help", name)
				}
				f.States = append(f.States, state)
			}
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "PLAN\tSTATE\tMADE\tSYSTEM\tDOES\tASKED BY\tAPPROVED BY")
			page := remit.PageRequest{Limit: 1000}
			for {
				some, next, err := data.Store.Responses(ctx, f, page)
				if err != nil {
					return err
				}
				for _, r := range some {
					fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s %s\t%s\t%s\n", r.ID, r.State, r.Made.Format("2006-01-02 15:04"),
						report.Visible(systemName(systems, r.System)), r.Action, report.Visible(r.Subject.String()), report.Visible(r.AskedBy), report.Visible(strings.Join(r.ApprovedBy, ", ")))
				}
				if page.After = next; next == "" {
					return t.Flush()
				}
			}
		},
	}
	cmd.Flags().StringSliceVar(&states, "state", nil, "only in these `states`: proposed, approved, running, verified, failed, rejected, undoing, undone, expired")
	return cmd
}

func newPlansShowCommand(global *globalFlags) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "show PLAN",
		Short: "Show what a plan changes, what it breaks and what became of it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := planFormat(format); err != nil {
				return err
			}
			return onPlan(cmd, global, &responseFlags{}, args[0], func(ctx context.Context, s *response.Responses, id remit.ID) error {
				r, err := s.Get(ctx, id)
				if err != nil {
					return err
				}
				return writePlan(cmd.OutOrStdout(), r, format)
			})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "text", "output format: `text|json`")
	return cmd
}

func newPlansApproveCommand(global *globalFlags) *cobra.Command {
	var f responseFlags
	cmd := &cobra.Command{
		Use:   "approve PLAN",
		Short: "Approve a plan of somebody else, and carry it out when that was the last approval",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return onPlan(cmd, global, &f, args[0], func(ctx context.Context, s *response.Responses, id remit.ID) error {
				r, err := s.Approve(ctx, id, f.actor())
				if err == nil && r.State == remit.ResponseApproved {
					r, err = s.CarryOut(ctx, id)
				}
				return tellPlan(cmd, r, err)
			})
		},
	}
	f.add(cmd)
	return cmd
}

func newPlansRejectCommand(global *globalFlags) *cobra.Command {
	var f responseFlags
	var why string
	cmd := &cobra.Command{
		Use:   "reject PLAN",
		Short: "End a plan that was not approved",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return onPlan(cmd, global, &f, args[0], func(ctx context.Context, s *response.Responses, id remit.ID) error {
				r, err := s.Reject(ctx, id, f.actor(), why)
				return tellPlan(cmd, r, err)
			})
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&why, "why", "", "the `reason`, for the history of the plan")
	return cmd
}

func newPlansResumeCommand(global *globalFlags) *cobra.Command {
	var f responseFlags
	cmd := &cobra.Command{
		Use:   "resume PLAN",
		Short: "Go on with an approved plan that was interrupted, or with its undoing",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return onPlan(cmd, global, &f, args[0], func(ctx context.Context, s *response.Responses, id remit.ID) error {
				r, err := s.Get(ctx, id)
				switch {
				case err != nil:
				case r.State == remit.ResponseUndoing:
					r, err = s.Undo(ctx, id, f.actor())
				default:
					r, err = s.CarryOut(ctx, id)
				}
				return tellPlan(cmd, r, err)
			})
		},
	}
	f.add(cmd)
	return cmd
}

func newPlansUndoCommand(global *globalFlags) *cobra.Command {
	var f responseFlags
	cmd := &cobra.Command{
		Use:   "undo PLAN",
		Short: "Give back what a plan took away",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return onPlan(cmd, global, &f, args[0], func(ctx context.Context, s *response.Responses, id remit.ID) error {
				r, err := s.Undo(ctx, id, f.actor())
				return tellPlan(cmd, r, err)
			})
		},
	}
	f.add(cmd)
	return cmd
}

// onPlan calls do with the responses of the data directory and a plan's ID.
func onPlan(cmd *cobra.Command, global *globalFlags, f *responseFlags, plan string, do func(context.Context, *response.Responses, remit.ID) error) error {
	ctx := cmd.Context()
	id := remit.ID(plan)
	if id.Kind() != remit.KindResponse {
		return remit.Errorf(remit.Invalid, "", "%q is no plan's ID: `remit plans list` shows them", plan)
	}
	data, err := openDataDir(ctx, global, false)
	if err != nil {
		return err
	}
	defer data.Close()
	responses, err := f.responsesOf(global, data, false)
	if err != nil {
		return err
	}
	return do(ctx, responses, id)
}

// tellPlan says in a line where a plan stands.
func tellPlan(cmd *cobra.Command, r remit.Response, err error) error {
	if r.ID != "" {
		done := 0
		for _, s := range r.Steps {
			if s.State == remit.ResponseVerified {
				done++
			}
		}
		fmt.Fprintf(cmd.OutOrStdout(), "plan %s is %s: %d of %d steps in effect%s\n", r.ID, r.State, done, len(r.Steps), goesOn(r))
	}
	return err
}
