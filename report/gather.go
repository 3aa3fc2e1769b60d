package report

import (
	"context"
	"time"

	"remit"
)

// ExplainFromStore gathers what a store knows of one identity, with questions
// whose answers are small however large the store is. It fails with
// [remit.NotFound] when the store does not have it.
func ExplainFromStore(ctx context.Context, inventory remit.InventoryReader, findings remit.FindingStore, id remit.ID, now time.Time) (Explanation, error) {
	e := Explanation{Generated: now}
	g := gatherer{ctx: ctx, inventory: inventory}
	identities, _, err := inventory.Identities(ctx, remit.Filter{IDs: []remit.ID{id}}, remit.PageRequest{Limit: 1})
	if err != nil {
		return e, err
	}
	if len(identities) == 0 {
		return e, remit.Errorf(remit.NotFound, "explain", "there is no identity %s", id)
	}
	e.Identity = identities[0]
	systems, err := inventory.Systems(ctx)
	if err != nil {
		return e, err
	}
	for _, s := range systems {
		if s.ID == e.Identity.System {
			e.System = s
		}
	}

	// Groups may be in groups: one question for each level, until none is new.
	groups := []remit.ID{id}
	known := map[remit.ID]bool{id: true}
	for level := groups; len(level) > 0; {
		memberships := g.relations(remit.Filter{Identities: level, Types: []string{string(remit.MemberOf)}})
		e.Relations = append(e.Relations, memberships...)
		level = nil
		for _, r := range memberships {
			if !known[r.To] {
				known[r.To] = true
				level = append(level, r.To)
			}
		}
		groups = append(groups, level...)
	}

	e.Credentials = g.credentials(remit.Filter{Identities: []remit.ID{id}})
	var places []remit.ID
	own := map[remit.ID]bool{}
	for _, c := range e.Credentials {
		own[c.ID] = true
		if c.Location != "" {
			places = append(places, c.Location)
		}
	}
	actAs := []string{string(remit.CanActAs)}
	held := g.relations(remit.Filter{Identities: []remit.ID{id}, Types: []string{string(remit.Holds)}})
	e.Relations = append(e.Relations, held...)
	e.Relations = append(e.Relations, g.relations(remit.Filter{Identities: groups, Types: actAs})...)
	e.Relations = append(e.Relations, g.relations(remit.Filter{To: groups, Types: actAs})...)
	e.Relations = append(e.Relations, g.relations(remit.Filter{
		Identities: []remit.ID{id}, Types: []string{string(remit.RunsAs), string(remit.TrustedBy), string(remit.SameActor)},
	})...)
	e.Relations = append(e.Relations, g.relations(remit.Filter{
		To: []remit.ID{id}, Types: []string{string(remit.MemberOf), string(remit.RunsAs), string(remit.TrustedBy), string(remit.SameActor)},
	})...)
	if len(places) > 0 {
		e.Relations = append(e.Relations, g.relations(remit.Filter{To: places, Types: []string{string(remit.Holds)}})...)
	}
	if len(held) > 0 {
		var locations []remit.ID
		for _, r := range held {
			locations = append(locations, r.To)
		}
		for _, c := range g.credentials(remit.Filter{Locations: locations}) {
			if !own[c.ID] {
				e.Reach = append(e.Reach, c)
			}
		}
	}
	e.Relations = once(e.Relations)

	e.Grants = g.grants(remit.Filter{Identities: groups})
	var roles []remit.ID
	for _, grant := range e.Grants {
		if grant.Role != "" {
			roles = append(roles, grant.Role)
		}
	}
	if len(roles) > 0 {
		e.Roles = g.roles(remit.Filter{IDs: roles})
	}
	if g.err != nil {
		return e, g.err
	}
	standing := remit.FindingFilter{
		Identities: []remit.ID{id},
		States:     []remit.FindingState{remit.Open, remit.Acknowledged, remit.Suppressed},
	}
	for f, err := range pages(ctx, standing, findings.Findings) {
		if err != nil {
			return e, err
		}
		e.Findings = append(e.Findings, f)
	}
	e.History, err = inventory.History(ctx, id)
	return e, err
}

// once drops relations that were found twice, as the memberships of a group in
// itself are.
func once(relations []remit.Relation) []remit.Relation {
	seen := map[remit.ID]bool{}
	kept := relations[:0]
	for _, r := range relations {
		if !seen[r.ID] {
			seen[r.ID] = true
			kept = append(kept, r)
		}
	}
	return kept
}

// gatherer reads whole lists and remembers the first error.
type gatherer struct {
	ctx       context.Context
	inventory remit.InventoryReader
	err       error
}

// gatherLimit bounds each list of an explanation: beyond it nobody reads on, and
// `remit inventory` lists the rest.
const gatherLimit = 5000

func gather[T any](g *gatherer, f remit.Filter, list func(context.Context, remit.Filter, remit.PageRequest) ([]T, string, error)) []T {
	var all []T
	if g.err != nil {
		return nil
	}
	for record, err := range pages(g.ctx, f, list) {
		if err != nil {
			g.err = err
			return nil
		}
		if all = append(all, record); len(all) == gatherLimit {
			break
		}
	}
	return all
}

func (g *gatherer) relations(f remit.Filter) []remit.Relation {
	return gather(g, f, g.inventory.Relations)
}

func (g *gatherer) credentials(f remit.Filter) []remit.Credential {
	return gather(g, f, g.inventory.Credentials)
}

func (g *gatherer) grants(f remit.Filter) []remit.Grant { return gather(g, f, g.inventory.Grants) }
func (g *gatherer) roles(f remit.Filter) []remit.Role   { return gather(g, f, g.inventory.Roles) }
