package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"remit"
	"remit/response"
)

// guardDrift is the finding about a guard that is not in the cluster as it is
// configured.
const guardDrift = "guard-drift"

// guardEvery is how often the guard in a cluster is compared with the one that is
// configured.
const guardEvery = time.Minute

// guarding compares the guards of clusters with the configuration.
type guarding struct {
	data   *dataDir
	config *config
	log    *slog.Logger
	every  time.Duration
}

// run watches the guard of one system until ctx ends. Before a guard was applied
// to it there is nothing to watch.
func (g *guarding) run(ctx context.Context, s systemConfig) error {
	said := ""
	tick := time.NewTicker(g.every)
	defer tick.Stop()
	for {
		err := g.look(ctx, s)
		if err == nil {
			said = ""
		} else if ctx.Err() == nil && err.Error() != said {
			g.log.Error("the guard could not be compared with the configuration", "system", s.Name, "error", err)
			said = err.Error()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// look opens or resolves the finding of one system. Where Remit acts by itself, it
// plans to put back what was there before; a change of the configuration is for
// people to apply.
func (g *guarding) look(ctx context.Context, s systemConfig) error {
	systems, err := g.data.Store.Systems(ctx)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(systems, func(known remit.System) bool { return known.Name == s.Name })
	if at < 0 {
		return nil // it was not read yet
	}
	system := systems[at]
	before, err := guardedBefore(ctx, g.data, system.ID)
	if err != nil || !before.exists {
		return err
	}
	working, err := g.unfinished(ctx, system.ID)
	if err != nil || working != "" && working != remit.ResponseProposed {
		return err // somebody is at it
	}
	responses, plan, err := planGuard(ctx, g.data, g.config, &responseFlags{as: "remit"}, system, false, true)
	now := time.Now()
	scope := remit.FindingScope{System: system.ID, Policies: []string{guardDrift}}
	if errors.Is(err, response.ErrNothing) {
		_, err := g.data.Store.ResolveFindings(ctx, scope, now, now)
		return err
	}
	if err != nil {
		return err
	}
	restores := before.restoredBy(plan)
	finding := driftFinding(system, plan, restores)
	if _, err := g.data.Store.PutFindings(ctx, now, []remit.Finding{finding}); err != nil {
		return err
	}
	if !restores || s.Mode != remit.ModeEnforce || working != "" {
		return nil
	}
	plan.Cause = string(finding.ID)
	if plan, err = responses.Propose(ctx, plan); err != nil || plan.State != remit.ResponseApproved {
		return err
	}
	g.log.Warn("the guard is put back", "system", s.Name, "plan", plan.ID)
	if _, err = responses.CarryOut(ctx, plan.ID); err != nil {
		return err
	}
	_, err = g.data.Store.ResolveFindings(ctx, scope, time.Now(), time.Now())
	return err
}

// unfinished is the state of a plan of the guard that is not at its end, "" when
// there is none.
func (g *guarding) unfinished(ctx context.Context, system remit.ID) (remit.ResponseState, error) {
	filter := remit.ResponseFilter{System: system, States: []remit.ResponseState{
		remit.ResponseProposed, remit.ResponseApproved, remit.ResponseRunning, remit.ResponseUndoing,
	}}
	some, _, err := g.data.Store.Responses(ctx, filter, remit.PageRequest{Limit: 1000})
	if err != nil {
		return "", err
	}
	state := remit.ResponseState("")
	for _, r := range some {
		if r.Action != remit.Guard || r.State == remit.ResponseProposed && !time.Now().Before(r.Expires) {
			continue
		}
		if state == "" || state == remit.ResponseProposed {
			state = r.State
		}
	}
	return state, nil
}

// driftFinding says how the guard in a cluster differs from what it is to be.
func driftFinding(system remit.System, plan remit.Response, restores bool) remit.Finding {
	subject := plan.Subject
	severity, why := remit.High, "Somebody has changed or deleted it in the cluster since Remit put it there."
	if !restores {
		severity, why = remit.Medium, "The configuration has changed since it was applied, or somebody has changed the cluster."
	}
	f := remit.Finding{
		ID: remit.FindingID(guardDrift, system.ID), Policy: guardDrift, Title: "The admission guard is not as it is configured",
		Severity: severity, System: system.ID, Subject: subject,
		Risks: []string{"T1562"}, Controls: []string{"NIST SP 800-53 CM-6"},
		Remedy: fmt.Sprintf("Run `remit guard apply --system %s`; find out in the audit log who changed the policies.", cmp.Or(system.Name, string(system.ID))),
	}
	var names []string
	for _, s := range plan.Steps {
		state := "it differs"
		switch {
		case string(s.Before) == "null":
			state = "it is missing"
		case string(s.After) == "null":
			state = "it is there and not configured"
		}
		names = append(names, s.Object.String())
		f.Evidence = append(f.Evidence, remit.Fact{Name: s.Object.String(), Value: state})
	}
	f.Message = fmt.Sprintf("%d of the guard's objects are not as they are to be: %s. %s", len(names), strings.Join(names, ", "), why)
	return f
}
