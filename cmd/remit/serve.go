package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"remit"
	"remit/connector"
	"remit/inventory"
	"remit/policy"
	"remit/server"
	"remit/server/token"
)

// serveFlags are what `remit serve` can be told.
type serveFlags struct {
	connectFlags
	judgeFlags
	activityFlags
	listen     string
	noWatch    bool
	checkpoint time.Duration
	level      slog.Level
}

func newServeCommand(global *globalFlags) *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Watch the connected systems, take their events in, and keep the findings current",
		Long: `Serve watches the systems of the configuration, or the cluster of the current
context when there are none, and keeps the store and the findings current until
it is told to stop. It may be killed at any moment and started again.

With --listen it takes audit events in: a cluster's audit webhook, or JSON lines
sent with a token ("remit token create"). Files of events that the configuration
names are followed. What is unusual is a finding within a second.`,
		Example: `  remit serve --data-dir /var/lib/remit
  remit serve --data-dir ~/.remit --context prod --listen :8443`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, global) },
	}
	f.connectFlags.add(cmd)
	f.judgeFlags.add(cmd)
	f.activityFlags.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", "", "`address` to take events in at, as :8443; the default is the configuration's")
	flags.BoolVar(&f.noWatch, "no-watch", false, "watch no system: only take events in")
	flags.DurationVar(&f.checkpoint, "checkpoint-every", 5*time.Second, "how often counts are written; findings are at once")
	flags.TextVar(&f.level, "log-level", slog.LevelInfo, "least `level` of what is logged: DEBUG, INFO, WARN or ERROR")
	_ = flags.MarkHidden("from") // serve refuses it in words
	return cmd
}

func (f *serveFlags) run(cmd *cobra.Command, global *globalFlags) error {
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: f.level}))
	c, err := readConfig(global)
	if err != nil {
		return err
	}
	if f.listen != "" {
		c.Listen.Address = f.listen
	}
	data, err := openDataDir(cmd.Context(), global, false)
	if err != nil {
		return err
	}
	defer data.Close()
	var systems []connector.Watcher
	if !f.noWatch {
		if systems, err = f.watchers(c, data.Key); err != nil {
			return err
		}
	}
	evaluator, err := f.evaluator(data, c, time.Now)
	if err != nil {
		return err
	}
	work, ctx := errgroup.WithContext(cmd.Context())
	watch := server.Watch{
		Reconciler: inventory.Reconciler{Store: data.Store, People: c.people},
		Evaluator:  judging{evaluator},
		Log:        log,
	}
	lifecycles := newLifecycleJudge(c, data, time.Now)
	lifecycles.Log = log
	watch.Evaluator = withLifecycles{watch.Evaluator, lifecycles}
	responding, err := f.openResponding(ctx, data, c, log)
	if err != nil {
		return err
	}
	defer responding.Close()
	tokens, err := token.New(data.Store, data.Key, nil)
	if err != nil {
		return err
	}
	triggers, err := openTriggers(ctx, data, c, tokens, responding.Announced, log)
	if err != nil {
		return err
	}
	if c.takesEvents() {
		intake, err := f.openIntake(ctx, data, c, responding, log)
		if err != nil {
			return err
		}
		defer intake.Close()
		watch.Changed = intake.activity.InventoryChanged
		intake.triggers, triggers.metrics = triggers, intake.metrics
		intake.start(ctx, work)
	} else if f.noWatch && !triggers.polls() {
		return remit.Errorf(remit.Invalid, "serve", "nothing to do: leave --no-watch out, or say where events come from with --listen, or with logs or polls in the configuration")
	}
	triggers.start(ctx, work)
	responding.start(ctx, work)
	work.Go(func() error { return lifecycles.Run(ctx) })
	work.Go(func() error { return judgeTokens(ctx, watch.Evaluator, tokens.System(), time.Hour, log) })
	work.Go(func() error { return watch.Run(ctx, systems) })
	log.Info("watching", "systems", len(systems), "data", data.path)
	if err := work.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	log.Info("stopped")
	return nil
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
		if !system.watched() {
			continue
		}
		one, err := connectKubernetes(system, nil, c, key)
		if err != nil {
			return nil, remit.Errorf(remit.KindOf(err), "connect "+system.Name, "%w", err)
		}
		all = append(all, one)
	}
	return all, nil
}

// judgeTokens judges Remit's own tokens, at once and then again and again: they
// age and expire without any change, and no watch sees them.
func judgeTokens(ctx context.Context, e server.Evaluator, system remit.ID, every time.Duration, log *slog.Logger) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		// There is no such system before the first token.
		if err := e.EvaluateSystem(ctx, system); err != nil && remit.KindOf(err) != remit.NotFound && ctx.Err() == nil {
			log.Error("Remit's own tokens could not be judged", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
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
