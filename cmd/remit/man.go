package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"remit"
)

func newManCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIRECTORY",
		Short:   "Write the manual pages into a directory",
		Example: `  remit man /usr/local/share/man/man1`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return remit.Errorf(remit.Invalid, "write manual pages", "%w", err)
			}
			header := &doc.GenManHeader{Title: "REMIT", Section: "1", Source: "remit " + versionString(), Manual: "Remit"}
			if err := doc.GenManTree(cmd.Root(), header, args[0]); err != nil {
				return remit.Errorf(remit.Unavailable, "write manual pages", "%w", err)
			}
			return nil
		},
	}
}
