package policy

import (
	"context"

	"remit"
)

// The limits of a neighbourhood. An expression sees the first of each list;
// what is beyond them exists only in very large or hostile inventories.
const (
	MaxNeighbours = 1000 // of one kind around one identity
	MaxCopies     = 100  // of one secret

	maxDepth = 8 // groups in groups
)

// loader reads what lies around the subjects of one page, with one query for
// the whole page wherever there is something to ask, and keeps what page after
// page needs again: roles and groups.
type loader struct {
	in      Inventory
	roles   *cache[*roleObject]
	nodes   *cache[*node]
	records *cache[*identityObject]
	hot     *cache[[]*credentialObject] // secrets with very many copies, by a key made of their fingerprint
}

// node is a group, or an account that a workload runs as.
type node struct {
	record *identityObject
	next   []remit.ID // the groups that it is in
	grants []*grantObject
}

func newLoader(in Inventory) *loader {
	return &loader{
		in:      in,
		roles:   newCache[*roleObject](5000),
		nodes:   newCache[*node](5000),
		records: newCache[*identityObject](10000),
		hot:     newCache[[]*credentialObject](100),
	}
}

// ids collects IDs, each once, in the order in which they came.
type ids struct {
	seen map[remit.ID]bool
	all  []remit.ID
}

func (s *ids) add(id remit.ID) bool {
	if id == "" || s.seen[id] {
		return false
	}
	if s.seen == nil {
		s.seen = map[remit.ID]bool{}
	}
	s.seen[id] = true
	s.all = append(s.all, id)
	return true
}

func newIdentity(r *remit.Identity) *identityObject {
	return &identityObject{class: identityClass, it: identityData{Identity: r, near: newNeighbours()}}
}

func newRecord(r *remit.Identity) *identityObject {
	return &identityObject{class: identityRecordClass, it: identityData{Identity: r}}
}

// surround loads the lists that each identity wants and does not have yet.
func (l *loader) surround(ctx context.Context, all []*identityObject) error {
	by := make(map[remit.ID]*identityObject, len(all))
	todo := func(o *identityObject) need { return o.it.near.want &^ o.it.near.have }
	wanting := func(n need) []remit.ID {
		var out []remit.ID
		for id, o := range by {
			if todo(o)&n != 0 {
				out = append(out, id)
			}
		}
		sortIDs(out)
		return out
	}
	for _, o := range all {
		if todo(o) != 0 {
			by[o.it.ID] = o
			l.records.put(o.it.ID, newRecord(o.it.Identity))
		}
	}
	if len(by) == 0 {
		return nil
	}

	credentials := map[remit.ID][]*credentialObject{}
	err := chunks(wanting(needCredentials), func(some []remit.ID) error {
		return drain(ctx, l.in.Credentials, remit.Filter{Identities: some}, func(c *remit.Credential) {
			if have := credentials[c.Identity]; len(have) < MaxNeighbours {
				credentials[c.Identity] = append(have, &credentialObject{class: credentialRecClass, it: credentialData{Credential: c}})
			}
		})
	})
	if err != nil {
		return err
	}

	grants, err := l.grantsOf(ctx, wanting(needGrants|needEffective))
	if err != nil {
		return err
	}

	// Outgoing relations: all of them, or only those that lead to groups and
	// accounts.
	out := map[remit.ID][]*remit.Relation{}
	keep := func(into map[remit.ID][]*remit.Relation, end func(*remit.Relation) remit.ID) func(*remit.Relation) {
		return func(r *remit.Relation) {
			if have := into[end(r)]; len(have) < MaxNeighbours {
				into[end(r)] = append(have, r)
			}
		}
	}
	from := func(r *remit.Relation) remit.ID { return r.From }
	to := func(r *remit.Relation) remit.ID { return r.To }
	whole := wanting(needRelations)
	if err := chunks(whole, func(some []remit.ID) error {
		return drain(ctx, l.in.Relations, remit.Filter{Identities: some}, keep(out, from))
	}); err != nil {
		return err
	}
	var part []remit.ID
	for _, id := range wanting(needEffective | needGroups | needAccounts) {
		if todo(by[id])&needRelations == 0 {
			part = append(part, id)
		}
	}
	if err := chunks(part, func(some []remit.ID) error {
		return drain(ctx, l.in.Relations, remit.Filter{Identities: some, Types: []string{string(remit.MemberOf), string(remit.RunsAs)}}, keep(out, from))
	}); err != nil {
		return err
	}

	// Incoming ones, never member-of: a group may have every identity in it.
	in := map[remit.ID][]*remit.Relation{}
	if err := chunks(wanting(needInbound), func(some []remit.ID) error {
		return drain(ctx, l.in.Relations, remit.Filter{To: some, Types: []string{
			string(remit.RunsAs), string(remit.CanActAs), string(remit.TrustedBy), string(remit.SameActor),
		}}, keep(in, to))
	}); err != nil {
		return err
	}
	part = part[:0]
	for _, id := range wanting(needWorkloads) {
		if todo(by[id])&needInbound == 0 {
			part = append(part, id)
		}
	}
	if err := chunks(part, func(some []remit.ID) error {
		return drain(ctx, l.in.Relations, remit.Filter{To: some, Types: []string{string(remit.RunsAs)}}, keep(in, to))
	}); err != nil {
		return err
	}

	// The other ends, and the closure through groups and accounts.
	var ends, starts ids
	for id, o := range by {
		n := todo(o)
		for _, r := range out[id] {
			if n&needRelations != 0 && r.Type != remit.Holds || n&needAccounts != 0 && r.Type == remit.RunsAs {
				ends.add(r.To)
			}
			if n&(needEffective|needGroups) != 0 && (r.Type == remit.MemberOf || r.Type == remit.RunsAs) {
				starts.add(r.To)
			}
		}
		for _, r := range in[id] {
			if n&needInbound != 0 || r.Type == remit.RunsAs {
				ends.add(r.From)
			}
		}
	}
	records, err := l.identityRecords(ctx, ends.all)
	if err != nil {
		return err
	}
	nodes, err := l.reach(ctx, starts.all)
	if err != nil {
		return err
	}

	end := func(id remit.ID, ref remit.Ref) *identityObject {
		if o := records[id]; o != nil {
			return o
		}
		return newRecord(&remit.Identity{Record: remit.Record{ID: id, Ref: ref}})
	}
	for id, o := range by {
		near, n := o.it.near, todo(o)
		if n&needCredentials != 0 {
			near.credentials = objectList(credentials[id])
		}
		if n&needGrants != 0 {
			near.grants = objectList(grants[id])
		}
		var relations, inbound []*relationObject
		var accounts, workloads []*identityObject
		for _, r := range out[id] {
			if n&needRelations != 0 {
				relations = append(relations, &relationObject{class: relationClass, it: relationData{r, newRecord(o.it.Identity), end(r.To, r.ToRef)}})
			}
			if n&needAccounts != 0 && r.Type == remit.RunsAs {
				accounts = append(accounts, end(r.To, r.ToRef))
			}
		}
		for _, r := range in[id] {
			if n&needInbound != 0 {
				inbound = append(inbound, &relationObject{class: relationClass, it: relationData{r, end(r.From, r.FromRef), newRecord(o.it.Identity)}})
			}
			if n&needWorkloads != 0 && r.Type == remit.RunsAs {
				workloads = append(workloads, end(r.From, r.FromRef))
			}
		}
		if n&needRelations != 0 {
			near.relations = objectList(relations)
		}
		if n&needInbound != 0 {
			near.inbound = objectList(inbound)
		}
		if n&needAccounts != 0 {
			near.accounts = objectList(accounts)
		}
		if n&needWorkloads != 0 {
			near.workloads = objectList(workloads)
		}
		if n&(needGroups|needEffective) != 0 {
			groups, reaching := closure(out[id], nodes, grants[id])
			if n&needGroups != 0 {
				near.groups = objectList(groups)
			}
			if n&needEffective != 0 {
				near.reaching = reaching
				near.effective = objectList(reaching)
				near.assigned = objectList(assigned(reaching))
			}
		}
		near.have |= n
	}
	return nil
}

// closure walks from an identity's relations through groups and accounts.
func closure(out []*remit.Relation, nodes map[remit.ID]*node, own []*grantObject) (groups []*identityObject, reaching []*grantObject) {
	reaching = append(reaching, own...)
	var seen ids
	for _, r := range out {
		if r.Type == remit.MemberOf || r.Type == remit.RunsAs {
			seen.add(r.To)
		}
	}
	for i := 0; i < len(seen.all) && i < MaxNeighbours; i++ { // seen.all grows
		n := nodes[seen.all[i]]
		if n == nil {
			continue
		}
		if n.record.it.Identity.Type == remit.Group {
			groups = append(groups, n.record)
		}
		for _, g := range n.grants {
			if len(reaching) < MaxNeighbours {
				reaching = append(reaching, g)
			}
		}
		for _, next := range n.next {
			seen.add(next)
		}
	}
	return groups, reaching
}

// assigned leaves out what the platform brings and what everybody has.
func assigned(all []*grantObject) []*grantObject {
	var out []*grantObject
	for _, g := range all {
		to := g.it.identity
		if !g.it.BuiltIn && (to == nil || !to.it.BuiltIn || to.it.Identity.Type != remit.Group) {
			out = append(out, g)
		}
	}
	return out
}

// reach loads the groups and accounts that lead on from the given ones, with
// their grants.
func (l *loader) reach(ctx context.Context, start []remit.ID) (map[remit.ID]*node, error) {
	found := map[remit.ID]*node{}
	frontier := start
	for depth := 0; depth < maxDepth && len(frontier) > 0; depth++ {
		var missing []remit.ID
		for _, id := range frontier {
			if n, ok := l.nodes.get(id); ok {
				found[id] = n
			} else {
				missing = append(missing, id)
			}
		}
		if err := l.loadNodes(ctx, missing, found); err != nil {
			return nil, err
		}
		var next ids
		for _, id := range frontier {
			if n := found[id]; n != nil {
				for _, to := range n.next {
					if found[to] == nil {
						next.add(to)
					}
				}
			}
		}
		frontier = next.all
	}
	return found, nil
}

func (l *loader) loadNodes(ctx context.Context, missing []remit.ID, into map[remit.ID]*node) error {
	if len(missing) == 0 {
		return nil
	}
	records, err := l.identityRecords(ctx, missing)
	if err != nil {
		return err
	}
	grants, err := l.grantsOf(ctx, missing)
	if err != nil {
		return err
	}
	next := map[remit.ID][]remit.ID{}
	refs := map[remit.ID]remit.Ref{}
	err = chunks(missing, func(some []remit.ID) error {
		return drain(ctx, l.in.Relations, remit.Filter{Identities: some, Types: []string{string(remit.MemberOf)}}, func(r *remit.Relation) {
			refs[r.From] = r.FromRef
			if len(next[r.From]) < MaxNeighbours {
				next[r.From] = append(next[r.From], r.To)
			}
		})
	})
	if err != nil {
		return err
	}
	for _, id := range missing {
		n := &node{record: records[id], next: next[id], grants: grants[id]}
		if n.record == nil {
			n.record = newRecord(&remit.Identity{Record: remit.Record{ID: id, Ref: refs[id]}})
		}
		into[id] = n
		l.nodes.put(id, n)
	}
	return nil
}

// grantsOf loads the grants of identities, with their roles.
func (l *loader) grantsOf(ctx context.Context, of []remit.ID) (map[remit.ID][]*grantObject, error) {
	out := map[remit.ID][]*grantObject{}
	var all []*grantObject
	err := chunks(of, func(some []remit.ID) error {
		return drain(ctx, l.in.Grants, remit.Filter{Identities: some}, func(g *remit.Grant) {
			if have := out[g.Identity]; len(have) < MaxNeighbours {
				o := &grantObject{class: grantRecordClass, it: grantData{Grant: g}}
				out[g.Identity] = append(have, o)
				all = append(all, o)
			}
		})
	})
	if err != nil {
		return nil, err
	}
	if err := l.giveRoles(ctx, all); err != nil {
		return nil, err
	}
	records, err := l.identityRecords(ctx, of)
	if err != nil {
		return nil, err
	}
	for _, g := range all {
		g.it.identity = records[g.it.Grant.Identity]
	}
	return out, nil
}

// giveRoles resolves what grants allow.
func (l *loader) giveRoles(ctx context.Context, all []*grantObject) error {
	var missing ids
	roles := map[remit.ID]*roleObject{}
	for _, g := range all {
		id := g.it.Grant.Role
		if id == "" || roles[id] != nil {
			continue
		}
		if r, ok := l.roles.get(id); ok {
			roles[id] = r
		} else {
			missing.add(id)
		}
	}
	err := chunks(missing.all, func(some []remit.ID) error {
		return drain(ctx, l.in.Roles, remit.Filter{IDs: some}, func(r *remit.Role) {
			roles[r.ID] = &roleObject{class: roleClass, it: roleData{r, newPermissions(r.Permissions)}}
		})
	})
	if err != nil {
		return err
	}
	for _, id := range missing.all {
		l.roles.put(id, roles[id]) // nil too: a role that is not there stays so
	}
	for _, g := range all {
		if r := roles[g.it.Grant.Role]; r != nil {
			g.it.role = r
			g.it.permissions = r.it.permissions.join(g.it.Grant.Permissions)
		} else {
			g.it.permissions = newPermissions(g.it.Grant.Permissions)
		}
	}
	return nil
}

// identityRecords loads identities without their neighbourhood. What is not
// in the inventory is not in the answer.
func (l *loader) identityRecords(ctx context.Context, want []remit.ID) (map[remit.ID]*identityObject, error) {
	out := make(map[remit.ID]*identityObject, len(want))
	var missing ids
	for _, id := range want {
		if o, ok := l.records.get(id); !ok {
			missing.add(id)
		} else if o != nil {
			out[id] = o
		}
	}
	err := chunks(missing.all, func(some []remit.ID) error {
		return drain(ctx, l.in.Identities, remit.Filter{IDs: some}, func(r *remit.Identity) {
			out[r.ID] = newRecord(r)
		})
	})
	if err != nil {
		return nil, err
	}
	for _, id := range missing.all {
		l.records.put(id, out[id])
	}
	return out, nil
}
