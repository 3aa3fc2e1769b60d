package main

import (
	"slices"

	"github.com/spf13/cobra"

	"remit"
	"remit/response"
)

func newContainCommand(global *globalFlags) *cobra.Command {
	var f askFlags
	var names []string
	cmd := &cobra.Command{
		Use:   "contain SUBJECT",
		Short: "Cut an identity, a credential or what a finding names off from its system, undoably",
		Long: `Contain makes a plan that cuts a subject off from its system, and carries it out
when the configuration asks for no approval; otherwise the plan waits for
"remit plans approve". With --plan it shows what it would do and changes nothing.

The subject is an identity (by its name, its ID or as the log names it), a
credential (by its ID, by the object that it lies in, or as the log writes it:
JTI=…, X509SHA256=…), or the ID of a finding.

Left alone, Remit takes the mildest grade that cuts: tokens that were minted by
the identity's own tokens can neither mint nor write any more, and those that
they descend from, which the workload uses as well, can mint no more. --grade
asks for others, which may be combined:

  freeze-credentials   the listed credentials can neither mint nor write
  remove-grants        the identity loses every grant that names it
  kill-tokens          every token of the service account ends; cannot be undone`,
		Example: `  remit contain system:serviceaccount:shop:worker-3 --plan
  remit contain fnd_4k2… --as alice
  remit contain JTI=4c5… --grade freeze-credentials`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			grades, err := gradesNamed(names)
			if err != nil {
				return err
			}
			return f.ask(cmd, global, args[0], identityFirst, func(q *response.Request) { q.Action, q.Grades = remit.Contain, grades })
		},
	}
	f.add(cmd)
	cmd.Flags().StringSliceVar(&names, "grade", nil, "the `grades` of containment; the default is the mildest that cuts")
	return cmd
}

func gradesNamed(names []string) (grades []remit.Grade, err error) {
	for _, name := range names {
		if !slices.Contains(remit.Grades, remit.Grade(name)) {
			return nil, remit.Errorf(remit.Invalid, "", "no grade %q: use freeze-credentials, remove-grants or kill-tokens", name)
		}
		grades = append(grades, remit.Grade(name))
	}
	return grades, nil
}
