package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"remit"
	"remit/connector"
	"remit/inventory"
	"remit/policy"
	"remit/server"
)

func newServeCommand(global *globalFlags) *cobra.Command {
	var connect connectFlags
	var judge judgeFlags
	var level slog.Level
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Watch the connected systems and keep the inventory and the findings current",
		Long: `Serve watches the systems of the configuration, or the cluster of the current
context when there are none, and keeps the store and the findings current until
it is told to stop. It may be killed at any moment and started again.`,
		Example: `  remit serve --data-dir /var/lib/remit
  remit serve --data-dir ~/.remit --context prod`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			c, err := readConfig(global)
			if err != nil {
				return err
			}
			data, err := openDataDir(ctx, global, false)
			if err != nil {
				return err
			}
			defer data.Close()
			systems, err := connect.watchers(c, data.Key)
			if err != nil {
				return err
			}
			evaluator, err := judge.evaluator(data, c, time.Now)
			if err != nil {
				return err
			}
			watch := server.Watch{
				Reconciler: inventory.Reconciler{Store: data.Store, People: c.people},
				Evaluator:  judging{evaluator},
				Log:        log,
			}
			log.Info("watching", "systems", len(systems), "data", data.path)
			if err := watch.Run(ctx, systems); err != nil && !errors.Is(err, context.Canceled) {
				return err
			}
			log.Info("stopped")
			return nil
		},
	}
	connect.add(cmd)
	judge.add(cmd)
	cmd.Flags().TextVar(&level, "log-level", slog.LevelInfo, "least `level` of what is logged: DEBUG, INFO, WARN or ERROR")
	return cmd
}

// watchers connects to every system of the configuration, or to the one that
// the flags name.
func (f *connectFlags) watchers(c *config, key []byte) ([]connector.Watcher, error) {
	if len(f.from) > 0 {
		return nil, remit.Errorf(remit.Invalid, "", "serve watches clusters, not files: leave --from out")
	}
	if len(c.Systems) == 0 || f.Name != "" || f.Context != "" || f.Kubeconfig != "" {
		one, err := f.connect(c, key)
		return []connector.Watcher{one}, err
	}
	var all []connector.Watcher
	for _, system := range c.Systems {
		one, err := connectKubernetes(system, nil, c, key)
		if err != nil {
			return nil, remit.Errorf(remit.KindOf(err), "connect "+system.Name, "%w", err)
		}
		all = append(all, one)
	}
	return all, nil
}

// judging makes the policies the server's evaluator.
type judging struct{ *policy.Evaluator }

func (j judging) EvaluateSystem(ctx context.Context, system remit.ID) error {
	_, err := j.Evaluate(ctx, system)
	return err
}

func (j judging) EvaluateSubjects(ctx context.Context, system remit.ID, touched []remit.ID) error {
	_, err := j.Evaluator.EvaluateSubjects(ctx, system, touched)
	return err
}
