package policy

import (
	"context"

	"remit"
)

// concerned is what a change may give other findings: records whose expressions
// can see a record that changed.
type concerned struct {
	identities, credentials, grants ids
	other                           ids // touched records that are no subjects, or are gone
}

func (c *concerned) everything() []remit.ID {
	var all ids
	for _, part := range [][]remit.ID{c.identities.all, c.credentials.all, c.grants.all, c.other.all} {
		for _, id := range part {
			all.add(id)
		}
	}
	return all.all
}

func (c *concerned) add(id remit.ID) {
	switch id.Kind() {
	case remit.KindIdentity:
		c.identities.add(id)
	case remit.KindCredential:
		c.credentials.add(id)
	case remit.KindGrant:
		c.grants.add(id)
	default:
		c.other.add(id)
	}
}

// concern follows a change outwards by one step in every direction in which an
// expression can look, and by two where a group or an account stands between.
func (l *loader) concern(ctx context.Context, system remit.ID, touched []remit.ID) (*concerned, error) {
	c := &concerned{}
	var roles, resources []remit.ID
	for _, id := range touched {
		c.add(id)
		switch id.Kind() {
		case remit.KindRole:
			roles = append(roles, id)
		case remit.KindResource:
			resources = append(resources, id)
		}
	}
	grant := func(g *remit.Grant) {
		c.grants.add(g.ID)
		c.identities.add(g.Identity)
	}
	// A role: the grants of it. A resource: what lies in it.
	if err := chunks(roles, func(some []remit.ID) error {
		return drain(ctx, l.in.Grants, remit.Filter{System: system, RoleIDs: some}, grant)
	}); err != nil {
		return nil, err
	}
	if err := chunks(resources, func(some []remit.ID) error {
		return drain(ctx, l.in.Credentials, remit.Filter{System: system, Locations: some}, func(r *remit.Credential) { c.credentials.add(r.ID) })
	}); err != nil {
		return nil, err
	}
	// A credential: its holder, and its copies. A grant: its receiver.
	var fingerprints, natives []string
	there := map[remit.ID]bool{}
	known := func(r *remit.Credential) {
		there[r.ID] = true
		c.identities.add(r.Identity)
		fp, native := secretOf(r)
		if fp != "" {
			fingerprints = append(fingerprints, fp)
		}
		if native != "" {
			natives = append(natives, native)
		}
	}
	if err := chunks(c.credentials.all, func(some []remit.ID) error {
		return drain(ctx, l.in.Credentials, remit.Filter{System: system, IDs: some}, known)
	}); err != nil {
		return nil, err
	}
	if err := l.removed(ctx, c.credentials.all, there, known); err != nil {
		return nil, err
	}
	for _, f := range []remit.Filter{{System: system, Fingerprints: fingerprints}, {System: system, Natives: natives}} {
		if len(f.Fingerprints)+len(f.Natives) == 0 {
			continue
		}
		if err := drain(ctx, l.in.Credentials, f, func(r *remit.Credential) {
			if len(c.credentials.all) < maxTouched {
				c.credentials.add(r.ID)
			}
		}); err != nil {
			return nil, err
		}
	}
	if err := chunks(c.grants.all, func(some []remit.ID) error {
		return drain(ctx, l.in.Grants, remit.Filter{System: system, IDs: some}, grant)
	}); err != nil {
		return nil, err
	}
	// An identity: whoever gets its grants through it, the members of a group
	// and the workloads of an account, through groups in groups.
	frontier := append([]remit.ID(nil), c.identities.all...)
	for depth := 0; depth < maxDepth && len(frontier) > 0; depth++ {
		var next []remit.ID
		taken := 0
		err := chunks(frontier, func(some []remit.ID) error {
			f := remit.Filter{System: system, To: some, Types: []string{string(remit.MemberOf), string(remit.RunsAs)}}
			err := pages(ctx, l.in.Relations, f, 1000, func(page []remit.Relation) error {
				for i := range page {
					if taken < MaxNeighbours && c.identities.add(page[i].From) {
						taken++
						next = append(next, page[i].From)
					}
				}
				if taken >= MaxNeighbours {
					return errEnough
				}
				return nil
			})
			if err == errEnough {
				return nil
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		frontier = next
	}
	// And the identities' own credentials and grants, and what they hold.
	var held ids
	err := chunks(append([]remit.ID(nil), c.identities.all...), func(some []remit.ID) error {
		if err := drain(ctx, l.in.Credentials, remit.Filter{System: system, Identities: some}, func(r *remit.Credential) { c.credentials.add(r.ID) }); err != nil {
			return err
		}
		if err := drain(ctx, l.in.Grants, remit.Filter{System: system, Identities: some}, func(g *remit.Grant) { c.grants.add(g.ID) }); err != nil {
			return err
		}
		return drain(ctx, l.in.Relations, remit.Filter{System: system, Identities: some, Types: []string{string(remit.Holds)}}, func(r *remit.Relation) { held.add(r.To) })
	})
	if err != nil {
		return nil, err
	}
	err = chunks(held.all, func(some []remit.ID) error {
		return drain(ctx, l.in.Credentials, remit.Filter{System: system, Locations: some}, func(r *remit.Credential) { c.credentials.add(r.ID) })
	})
	return c, err
}

// historian is an inventory that remembers, as a store does.
type historian interface {
	History(ctx context.Context, id remit.ID) ([]remit.Version, error)
}

// maxRemoved is how many removed credentials are looked up in the history, one
// query each; where more went at once, a whole evaluation tells their copies.
const maxRemoved = 200

// removed finds what a credential was that is no longer there: its copies may
// be copies of nothing now.
func (l *loader) removed(ctx context.Context, all []remit.ID, there map[remit.ID]bool, each func(*remit.Credential)) error {
	history, ok := l.in.(historian)
	if !ok {
		return nil
	}
	asked := 0
	for _, id := range all {
		if there[id] || asked == maxRemoved {
			continue
		}
		asked++
		versions, err := history.History(ctx, id)
		if remit.KindOf(err) == remit.NotFound {
			continue
		}
		if err != nil {
			return err
		}
		if len(versions) > 0 {
			if c, ok := versions[0].Record.(remit.Credential); ok {
				each(&c)
			}
		}
	}
	return nil
}

type enough struct{}

func (enough) Error() string { return "enough" }

var errEnough error = enough{}
