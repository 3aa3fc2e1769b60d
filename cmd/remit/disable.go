package main

import (
	"github.com/spf13/cobra"

	"remit"
	"remit/response"
)

func newDisableCommand(global *globalFlags) *cobra.Command {
	var f askFlags
	cmd := &cobra.Command{
		Use:   "disable IDENTITY",
		Short: "Take an identity all it may do and every way in, undoably",
		Long: `Disable makes a plan that takes an identity every grant that names it and every
way in, and carries it out when the configuration asks for no approval. What is
taken is kept, and "remit plans undo" puts it back exactly as it was.

Of a service account the grants are removed, its live credentials frozen, its
long-lived tokens made invalid where they lie, and pods that start as it are given
no token. Of a user its grants are removed and its live credentials frozen.`,
		Example: `  remit disable payments/importer --plan
  remit disable system:serviceaccount:payments:importer --as alice`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.ask(cmd, global, args[0], identityOnly, func(q *response.Request) { q.Action = remit.Disable })
		},
	}
	f.add(cmd)
	return cmd
}

func newRemoveCommand(global *globalFlags) *cobra.Command {
	var f askFlags
	cmd := &cobra.Command{
		Use:   "remove IDENTITY",
		Short: "Delete an identity from its system, after it was disabled for long enough",
		Long: `Remove makes a plan that deletes a service account with its grants and its
long-lived tokens, and carries it out when the configuration asks for no approval.
It is the end of an offboarding: disable the identity first, and remove it when
nobody has missed it.

Undoing makes an account of the same name with the same labels, annotations and
grants. It is another one all the same: it has a new uid, and the tokens of the
former one are gone.`,
		Example: `  remit remove payments/importer --plan
  remit remove payments/importer --as alice`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.ask(cmd, global, args[0], identityOnly, func(q *response.Request) { q.Action = remit.RemoveIdentity })
		},
	}
	f.add(cmd)
	return cmd
}
