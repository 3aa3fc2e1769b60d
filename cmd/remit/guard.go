package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"remit"
	"remit/connector/kubernetes"
	"remit/response"
)

func newGuardCommand(global *globalFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "guard",
		Short: "Keep new weaknesses out of a cluster, by admission policies that Remit maintains",
		Long: `The guard is a set of ValidatingAdmissionPolicies that Remit generates from the
configuration (guard: in remit.yaml): how long tokens live and whom they are for,
no new long-lived tokens in Secrets, no machine becomes an administrator, new
accounts and workloads name an owner. It is off unless the configuration says
audit or enforce of a rule.

Preview it, run it in audit, read the report, and then enforce it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newGuardPreviewCommand(global), newGuardApplyCommand(global), newGuardRemoveCommand(global), newGuardReportCommand(global))
	return cmd
}

func newGuardApplyCommand(global *globalFlags) *cobra.Command {
	var f responseFlags
	var system, format string
	var preview, now bool
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Bring a cluster's guard to what the configuration says, by a plan",
		Long: `Apply plans what differs between the guard in the cluster and the configuration,
and carries it out when no approval is asked for; otherwise the plan waits for
"remit plans approve". With --plan it shows what it would do.

A rule is enforced only when it has run in audit, as it is, for the configuration's
audit_for (7 days), or with --now. What was enforced before and has been changed or
deleted in the cluster is put back at once.`,
		Example: `  remit guard apply --system prod --plan
  remit guard apply --system prod --as alice`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return applyGuard(cmd, global, &f, guardQuestion{system: system, format: format, preview: preview, now: now})
		},
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&system, "system", "", "the cluster of this `name`; it need not be said where only one is configured")
	flags.BoolVar(&preview, "plan", false, "show the plan, and change nothing")
	flags.BoolVar(&now, "now", false, "enforce also what has not run in audit for long enough")
	flags.StringVarP(&format, "format", "f", "text", "output format: `text|json`")
	return cmd
}

func newGuardRemoveCommand(global *globalFlags) *cobra.Command {
	var f responseFlags
	var system, format string
	var preview bool
	cmd := &cobra.Command{
		Use:   "remove",
		Short: "Take all policies of the guard out of a cluster, by a plan",
		Long: `Remove takes the guard away, whatever the configuration says of it. Take guard: out
of the configuration as well, or "remit serve" finds that it is missing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.guard = func(g *kubernetes.Guard) { *g = kubernetes.Guard{} }
			return applyGuard(cmd, global, &f, guardQuestion{system: system, format: format, preview: preview, now: true})
		},
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&system, "system", "", "the cluster of this `name`; it need not be said where only one is configured")
	flags.BoolVar(&preview, "plan", false, "show the plan, and change nothing")
	flags.StringVarP(&format, "format", "f", "text", "output format: `text|json`")
	return cmd
}

// guardQuestion is what the user said.
type guardQuestion struct {
	system, format string
	preview, now   bool
}

func applyGuard(cmd *cobra.Command, global *globalFlags, f *responseFlags, q guardQuestion) error {
	ctx := cmd.Context()
	if err := planFormat(q.format); err != nil {
		return err
	}
	c, err := readConfig(global)
	if err != nil {
		return err
	}
	data, err := openDataDir(ctx, global, false)
	if err != nil {
		return err
	}
	defer data.Close()
	system, _, err := guardedSystem(ctx, data, c, q.system)
	if err != nil {
		return err
	}
	responses, plan, err := planGuard(ctx, data, c, f, system, q.preview, q.now)
	switch {
	case errors.Is(err, response.ErrNothing):
		fmt.Fprintf(cmd.OutOrStdout(), "the guard of %s is as it is to be: there is nothing to change\n", system.Name)
		return nil
	case err != nil:
		return err
	case q.preview:
		return writePlan(cmd.OutOrStdout(), plan, q.format)
	}
	return propose(cmd, responses, plan, q.format)
}

// guardedSystem is the cluster that the user means, and its configuration.
func guardedSystem(ctx context.Context, data *dataDir, c *config, name string) (remit.System, systemConfig, error) {
	systems, err := data.Store.Systems(ctx)
	if err != nil {
		return remit.System{}, systemConfig{}, err
	}
	if name == "" {
		if len(c.Systems) != 1 {
			return remit.System{}, systemConfig{}, remit.Errorf(remit.Invalid, "", "%d systems are configured: say which with --system", len(c.Systems))
		}
		name = c.Systems[0].Name
	}
	id, err := knownSystem(systems, name)
	if err != nil {
		return remit.System{}, systemConfig{}, remit.Errorf(remit.KindOf(err), "", "%w (`remit scan --system %s` makes it known)", err, name)
	}
	system := systems[slices.IndexFunc(systems, func(s remit.System) bool { return s.ID == id })]
	configured := systemConfig{Name: system.Name}
	for _, s := range c.Systems {
		if s.Name == system.Name {
			configured = s
		}
	}
	return system, configured, nil
}

// planGuard plans towards the guard that is configured. What was in force before
// needs no other audit.
func planGuard(ctx context.Context, data *dataDir, c *config, f *responseFlags, system remit.System, preview, now bool) (*response.Responses, remit.Response, error) {
	atOnce := *f
	atOnce.guard = func(g *kubernetes.Guard) {
		if f.guard != nil {
			f.guard(g)
		}
		g.AuditFor = 0
	}
	request := response.Request{
		System: system.ID, Action: remit.Guard, AskedBy: f.actor(),
		Subject: remit.Subject{Record: remit.KindSystem, Ref: remit.Ref{Kind: "Cluster", Name: system.Name}, ID: system.ID},
	}
	responses := atOnce.responses(c, data, preview)
	plan, err := responses.Plan(ctx, request)
	if err != nil || now {
		return responses, plan, err
	}
	before, err := guardedBefore(ctx, data, system.ID)
	if err != nil || before.restoredBy(plan) {
		return responses, plan, err
	}
	responses = f.responses(c, data, preview)
	plan, err = responses.Plan(ctx, request)
	return responses, plan, err
}

// guardHistory is what plans have left of the guard of a system.
type guardHistory struct {
	left   map[remit.Ref]string // each object, as the last plan about it left it
	first  remit.Response       // the first that was carried out
	exists bool
}

func guardedBefore(ctx context.Context, data *dataDir, system remit.ID) (guardHistory, error) {
	h := guardHistory{left: map[remit.Ref]string{}}
	page := remit.PageRequest{Limit: 1000}
	for {
		some, next, err := data.Store.Responses(ctx, remit.ResponseFilter{System: system, States: []remit.ResponseState{remit.ResponseVerified}}, page)
		if err != nil {
			return h, err
		}
		for _, r := range some {
			if r.Action != remit.Guard {
				continue
			}
			h.first, h.exists = r, true // the newest come first
			for _, s := range r.Steps {
				if _, later := h.left[s.Object]; !later {
					h.left[s.Object] = compact(s.After)
				}
			}
		}
		if page.After = next; next == "" {
			return h, nil
		}
	}
}

// restoredBy says whether a plan does nothing but to put back what the last plans
// had left, which somebody has changed since.
func (h guardHistory) restoredBy(plan remit.Response) bool {
	return !slices.ContainsFunc(plan.Steps, func(s remit.Step) bool {
		left, known := h.left[s.Object]
		return !known || left != compact(s.After)
	})
}

func compact(text json.RawMessage) string {
	var out bytes.Buffer
	if err := json.Compact(&out, text); err != nil {
		return ""
	}
	return out.String()
}
