package main

import (
	"time"

	"github.com/spf13/cobra"

	"remit"
	"remit/response"
)

func newReduceCommand(global *globalFlags) *cobra.Command {
	var f askFlags
	within := span(90 * 24 * time.Hour)
	names := 5
	cmd := &cobra.Command{
		Use:   "reduce IDENTITY",
		Short: "Leave an identity of its rights what it used, undoably",
		Long: `Reduce makes a plan that leaves a service account or a user, of what it is granted,
what the log shows that it used, and carries it out when the configuration asks
for no approval. The plan shows the rules before and after, line by line.

For each binding Remit makes a role with what was used through it, binds the
identity alone to that, and then takes the identity out of the wide binding, whose
other subjects keep theirs: at no moment is a right missing that was used. What
was not used at all is taken away.

The log must cover the whole period; where it does not, Remit says how long it
does. What the identity does more rarely than that is refused afterwards: choose
a period in which everything it has to do happens.`,
		Example: `  remit reduce payments/api --plan
  remit reduce payments/api --used-within 30d --as alice`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case within <= 0:
				return remit.Errorf(remit.Invalid, "", "--used-within must be more than nothing")
			case names < 0:
				return remit.Errorf(remit.Invalid, "", "--names %d: use a number of resources, 0 for none", names)
			}
			return f.ask(cmd, global, args[0], identityOnly, func(q *response.Request) {
				q.Action, q.UsedWithin, q.Names = remit.Reduce, time.Duration(within), names
			})
		},
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.Var(&within, "used-within", "the period in which a right must have been used to be kept, as 90d")
	flags.IntVar(&names, "names", names, "narrow a right to single resources, and to single namespaces, when no more than so many were ever used, and no new one of late; 0 to never")
	return cmd
}
