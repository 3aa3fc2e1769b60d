package response

import (
	"context"
	"slices"
	"time"

	"remit"
)

// rests is how long a credential whose end the log does not tell may have
// rested and still count as one that can be used.
const rests = 24 * time.Hour

// taken is what an attacker holds, as far as the lineage tells.
type taken struct {
	stolen, forged []string
	holders        map[string]remit.Ref // whom each of these authenticates

	// bound is how many credentials were left alone that the identity made for
	// others and that are bound to where these run: to give workloads their
	// tokens is what nodes and controllers are for.
	bound int
}

// take finds what an attacker holds. Forged is what a credential of the identity
// minted for itself or freely for others, and what such a one minted, and so on:
// the platform gives a workload its tokens, and a token that mints the next is how
// a thief stays. Stolen is what they descend from and what the request names: the
// legitimate holder uses it as well.
//
// Of what a finding names, only the identity's own counts: it also names who
// issued the stolen token, and to freeze a node's certificate would stop all that
// run on it. What the log did not show is in neither.
func (s *Responses) take(ctx context.Context, q Request, now time.Time) (t taken, err error) {
	t.holders = map[string]remit.Ref{}
	var suspects []remit.Lineage
	known := map[string]bool{}
	add := func(l remit.Lineage) error {
		if !known[l.Credential] {
			known[l.Credential] = true
			suspects = append(suspects, l)
		}
		return nil
	}
	if q.Credential != "" {
		if err := remit.Each(ctx, remit.ActivityFilter{System: q.System, Credentials: []string{q.Credential}}, s.o.Store.Lineage, add); err != nil {
			return t, err
		}
		if len(suspects) == 0 { // it can be named all the same
			t.stolen = append(t.stolen, q.Credential)
		}
	}
	if len(q.Suspects) > 0 {
		err := remit.Each(ctx, remit.ActivityFilter{System: q.System, Credentials: q.Suspects}, s.o.Store.Lineage, func(l remit.Lineage) error {
			if l.Identity != q.IdentityID {
				return nil
			}
			return add(l)
		})
		if err != nil {
			return t, err
		}
	}
	asked := len(suspects)
	if q.Credential == "" && q.IdentityID != "" {
		if err := remit.Each(ctx, remit.ActivityFilter{System: q.System, Identities: []remit.ID{q.IdentityID}}, s.o.Store.Lineage, add); err != nil {
			return t, err
		}
	}

	forged, parentOf := map[string]bool{}, map[string]bool{}
	for _, l := range suspects {
		if l.SelfMinted {
			forged[l.Credential], parentOf[l.Parent] = true, true
		}
	}
	for at := 0; at < len(suspects); {
		parents := make([]string, 0, len(suspects)-at)
		for _, l := range suspects[at:] {
			parents = append(parents, l.Credential)
		}
		at = len(suspects)
		for some := range slices.Chunk(parents, 500) {
			err := remit.Each(ctx, remit.ActivityFilter{System: q.System, Parents: some}, s.o.Store.Lineage, func(l remit.Lineage) error {
				if !l.SelfMinted && l.Bound != (remit.Ref{}) && !forged[l.Parent] {
					t.bound++
					return nil
				}
				forged[l.Credential], parentOf[l.Parent] = true, true
				return add(l)
			})
			if err != nil {
				return t, err
			}
		}
	}
	for i, l := range suspects {
		switch {
		case !l.Alive(now, rests):
			continue
		case forged[l.Credential]:
			t.forged = append(t.forged, l.Credential)
		case i < asked || parentOf[l.Credential]:
			t.stolen = append(t.stolen, l.Credential)
		default:
			continue
		}
		t.holders[l.Credential] = l.Holder
	}
	slices.Sort(t.stolen)
	slices.Sort(t.forged)
	return t, nil
}

// minters are whom the credentials authenticate.
func (t *taken) minters() (all []remit.Ref) {
	for _, c := range slices.Concat(t.stolen, t.forged) {
		if holder := t.holders[c]; holder != (remit.Ref{}) && !slices.Contains(all, holder) {
			all = append(all, holder)
		}
	}
	return all
}
