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

// taken finds, in the lineage, what an attacker holds. Forged is what was minted
// by a credential of the identity, or by what such a one minted, and so on: the
// platform gives a workload its tokens, and a token that mints the next is how a
// thief stays. Stolen is what they descend from and what the request names: the
// legitimate holder uses it as well.
//
// What the log did not show is in neither.
func (s *Responses) taken(ctx context.Context, q Request, now time.Time) (stolen, forged []string, err error) {
	var suspects []remit.Lineage
	known := map[string]bool{}
	add := func(l remit.Lineage) error {
		if !known[l.Credential] {
			known[l.Credential] = true
			suspects = append(suspects, l)
		}
		return nil
	}
	named := slices.Clone(q.Suspects)
	if q.Credential != "" {
		named = append(named, q.Credential)
	}
	if len(named) > 0 {
		if err := remit.Each(ctx, remit.ActivityFilter{System: q.System, Credentials: named}, s.o.Store.Lineage, add); err != nil {
			return nil, nil, err
		}
	}
	asked := len(suspects)
	if q.Credential == "" && q.IdentityID != "" {
		if err := remit.Each(ctx, remit.ActivityFilter{System: q.System, Identities: []remit.ID{q.IdentityID}}, s.o.Store.Lineage, add); err != nil {
			return nil, nil, err
		}
	}

	minted := map[string]bool{} // by a suspect
	for at := 0; at < len(suspects); {
		parents := make([]string, 0, len(suspects)-at)
		for _, l := range suspects[at:] {
			parents = append(parents, l.Credential)
		}
		at = len(suspects)
		for some := range slices.Chunk(parents, 500) {
			err := remit.Each(ctx, remit.ActivityFilter{System: q.System, Parents: some}, s.o.Store.Lineage, func(l remit.Lineage) error {
				minted[l.Credential] = true
				return add(l)
			})
			if err != nil {
				return nil, nil, err
			}
		}
	}

	parentOf := map[string]bool{}
	for _, l := range suspects {
		if minted[l.Credential] || l.SelfMinted {
			parentOf[l.Parent] = true
		}
	}
	for i, l := range suspects {
		if !l.Alive(now, rests) {
			continue
		}
		switch {
		case minted[l.Credential] || l.SelfMinted:
			forged = append(forged, l.Credential)
		case i < asked || parentOf[l.Credential]:
			stolen = append(stolen, l.Credential)
		}
	}
	// A credential that the log has not shown can still be named.
	for _, name := range named {
		if !known[name] {
			stolen = append(stolen, name)
		}
	}
	slices.Sort(stolen)
	slices.Sort(forged)
	return slices.Compact(stolen), slices.Compact(forged), nil
}
