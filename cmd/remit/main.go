// Command remit governs access for every identity, human or machine.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"remit"
	"remit/report"
)

// The exit codes, documented in docs/reference/cli.md.
const (
	exitOK          = 0
	exitFindings    = 1 // --fail-on: there are findings of that severity
	exitUsage       = 2 // the command line, a file or a policy is wrong
	exitUnavailable = 3 // a system or the store does not answer, or refuses
	exitInternal    = 4 // a fault of Remit
)

func main() { os.Exit(Main()) }

// Main runs the command line and returns the exit code.
func Main() int {
	// The first signal ends the work in order, a second one at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	defer stop()
	defer startProfile()()
	err := newCommand().ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var failed *failOnError
	if errors.As(err, &failed) {
		fmt.Fprintln(os.Stderr, "remit: "+report.Visible(err.Error()))
		return exitFindings
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "remit: interrupted")
		return 128 + int(syscall.SIGINT)
	}
	fmt.Fprintln(os.Stderr, "remit: "+report.Visible(err.Error()))
	return exitCode(err)
}

func exitCode(err error) int {
	var e *remit.Error
	if !errors.As(err, &e) {
		return exitInternal
	}
	switch e.Kind {
	case remit.Invalid, remit.NotFound, remit.Conflict, remit.Unsupported:
		return exitUsage
	case remit.Unavailable, remit.Unauthorized, remit.Forbidden:
		return exitUnavailable
	}
	return exitInternal
}

// globalFlags are the flags that every command has.
type globalFlags struct {
	dataDir string
	store   string
	config  string
}

// fromEnvironment fills in what the command line left open. It is not the flags'
// default, which --help would show: the store's URL may hold a password.
func (f *globalFlags) fromEnvironment() {
	f.dataDir = cmp.Or(f.dataDir, os.Getenv("REMIT_DATA_DIR"))
	f.store = cmp.Or(f.store, os.Getenv("REMIT_STORE"))
	f.config = cmp.Or(f.config, os.Getenv("REMIT_CONFIG"))
}

func newCommand() *cobra.Command {
	var global globalFlags
	root := &cobra.Command{
		Use:   "remit",
		Short: "Govern access for every identity, human or machine",
		Long: `Remit answers four questions about every identity and credential of the systems
it is connected to: who owns it, what may it do, what does it do, and until when.

Start with "remit demo", which needs nothing, or "remit scan", which reads the
Kubernetes cluster of your current context and changes nothing in it.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		Args:              cobra.NoArgs,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRun:  func(*cobra.Command, []string) { global.fromEnvironment() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return remit.Errorf(remit.Invalid, "", "%w (see %s --help)", err, cmd.CommandPath())
	})
	flags := root.PersistentFlags()
	flags.StringVar(&global.dataDir, "data-dir", "",
		"`directory` in which Remit keeps its data (REMIT_DATA_DIR); a scan without one keeps nothing")
	flags.StringVar(&global.store, "store", "",
		"`URL` of a PostgreSQL store (REMIT_STORE); the default is a SQLite file in the data directory")
	flags.StringVar(&global.config, "config", "",
		"configuration `file` (REMIT_CONFIG); the default is remit.yaml in the data directory")
	root.AddCommand(
		newScanCommand(&global),
		newDemoCommand(&global),
		newInventoryCommand(&global),
		newFindingsCommand(&global),
		newExplainCommand(&global),
		newPolicyCommand(&global),
		newLifecycleCommand(&global),
		newServeCommand(&global),
		newTokenCommand(&global),
		newImportCommand(&global),
		newActivityCommand(&global),
		newContainCommand(&global),
		newRevokeCommand(&global),
		newDisableCommand(&global),
		newReduceCommand(&global),
		newRemoveCommand(&global),
		newRotateCommand(&global),
		newGuardCommand(&global),
		newPlansCommand(&global),
		newStopAllCommand(&global),
		newRulesCommand(),
		newVersionCommand(),
		newManCommand(),
	)
	asInvalid(root)
	return root
}

// asInvalid makes the argument errors of every command errors of ours, so that
// they end with the exit code for wrong usage.
func asInvalid(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return remit.Errorf(remit.Invalid, "", "%w (see %s --help)", err, cmd.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		asInvalid(sub)
	}
}
