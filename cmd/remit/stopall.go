package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newStopAllCommand(global *globalFlags) *cobra.Command {
	var f responseFlags
	var why string
	var resume bool
	cmd := &cobra.Command{
		Use:   "stop-all",
		Short: "Let no plan change anything any more, in any system, until --resume",
		Long: `Stop-all ends, at once and everywhere, that Remit changes systems: no plan that
uses this store is carried out any further. A step that is being done at this
instant is done. Plans can still be made, approved and undone.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			data, err := openDataDir(ctx, global, false)
			if err != nil {
				return err
			}
			defer data.Close()
			responses, err := f.responsesOf(global, data, false)
			if err != nil {
				return err
			}
			if resume {
				if err := responses.Resume(ctx); err != nil {
					return err
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "plans are carried out again: `remit plans resume PLAN` goes on with one that was interrupted")
				return err
			}
			if err := responses.Stop(ctx, f.actor(), why); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "no plan is carried out any further; `remit stop-all --resume` ends that")
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.as, "as", "", "`who` stops; the default is the user of this machine")
	flags.StringVar(&why, "why", "", "the `reason`, which everybody is told whom it stops")
	flags.BoolVar(&resume, "resume", false, "end the stop")
	return cmd
}
