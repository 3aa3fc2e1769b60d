package policy

import (
	"context"
	"slices"

	"cel.dev/cel-go/common/types/ref"

	"remit"
)

// subject is a record on the page at hand, with the policies that may match it.
type subject struct {
	object ref.Val
	record *remit.Record

	candidates []*Policy
	matched    []*Policy
	want, have need
}

func sortIDs(all []remit.ID) { slices.Sort(all) }

// identitySubjects wraps the records of a page.
func identitySubjects(page []remit.Identity) []*subject {
	out := make([]*subject, len(page))
	for i := range page {
		out[i] = &subject{object: newIdentity(&page[i]), record: &page[i].Record}
	}
	return out
}

func credentialSubjects(page []remit.Credential) []*subject {
	out := make([]*subject, len(page))
	for i := range page {
		out[i] = &subject{object: &credentialObject{class: credentialClass, it: credentialData{Credential: &page[i]}}, record: &page[i].Record}
	}
	return out
}

func grantSubjects(page []remit.Grant) []*subject {
	out := make([]*subject, len(page))
	for i := range page {
		g := &page[i]
		out[i] = &subject{object: &grantObject{class: grantClass, it: grantData{Grant: g, permissions: newPermissions(g.Permissions)}}, record: &g.Record}
	}
	return out
}

// load brings what the subjects want and do not have.
func (l *loader) load(ctx context.Context, kind remit.RecordKind, all []*subject) error {
	var some []*subject
	for _, s := range all {
		if s.want&^s.have != 0 {
			some = append(some, s)
		}
	}
	if len(some) == 0 {
		return nil
	}
	var err error
	switch kind {
	case remit.KindIdentity:
		err = l.loadIdentities(ctx, some)
	case remit.KindCredential:
		err = l.loadCredentials(ctx, some)
	case remit.KindGrant:
		err = l.loadGrants(ctx, some)
	}
	for _, s := range some {
		s.have |= s.want
	}
	return err
}

func (l *loader) loadIdentities(ctx context.Context, all []*subject) error {
	objects := make([]*identityObject, len(all))
	for i, s := range all {
		objects[i] = s.object.(*identityObject)
		objects[i].it.near.want |= s.want & needNeighbours
	}
	return l.surround(ctx, objects)
}

// holders gives every subject its identity, one object for all that share it,
// and surrounds it.
func (l *loader) holders(ctx context.Context, all []*subject, of func(*subject) remit.ID, slot func(*subject) **identityObject) error {
	var want ids
	shared := map[remit.ID]*identityObject{}
	for _, s := range all {
		if s.want&needIdentity == 0 {
			continue
		}
		if have := *slot(s); have != nil {
			shared[have.it.ID] = have
		}
	}
	for _, s := range all {
		if s.want&needIdentity != 0 && shared[of(s)] == nil {
			want.add(of(s))
		}
	}
	records, err := l.identityRecords(ctx, want.all)
	if err != nil {
		return err
	}
	var objects []*identityObject
	for _, s := range all {
		id := of(s)
		if s.want&needIdentity == 0 || id == "" {
			continue
		}
		o := shared[id]
		if o == nil {
			r := records[id]
			if r == nil {
				continue
			}
			o = newIdentity(r.it.Identity)
			shared[id] = o
		}
		*slot(s) = o
		o.it.near.want |= s.want & needNeighbours
		objects = append(objects, o)
	}
	return l.surround(ctx, objects)
}

func (l *loader) loadGrants(ctx context.Context, all []*subject) error {
	var grants []*grantObject
	for _, s := range all {
		if s.want&^s.have&needRole != 0 {
			grants = append(grants, s.object.(*grantObject))
		}
	}
	if err := l.giveRoles(ctx, grants); err != nil {
		return err
	}
	return l.holders(ctx, all,
		func(s *subject) remit.ID { return s.object.(*grantObject).it.Grant.Identity },
		func(s *subject) **identityObject { return &s.object.(*grantObject).it.identity })
}

func (l *loader) loadCredentials(ctx context.Context, all []*subject) error {
	err := l.holders(ctx, all,
		func(s *subject) remit.ID { return s.object.(*credentialObject).it.Credential.Identity },
		func(s *subject) **identityObject { return &s.object.(*credentialObject).it.identity })
	if err != nil {
		return err
	}
	wanting := func(n need) []*credentialObject {
		var out []*credentialObject
		for _, s := range all {
			if s.want&^s.have&n != 0 {
				out = append(out, s.object.(*credentialObject))
			}
		}
		return out
	}
	if err := l.giveLocations(ctx, wanting(needLocation)); err != nil {
		return err
	}
	if err := l.giveUsers(ctx, wanting(needUsers)); err != nil {
		return err
	}
	return l.giveCopies(ctx, wanting(needCopies))
}

func (l *loader) giveLocations(ctx context.Context, all []*credentialObject) error {
	var want ids
	for _, c := range all {
		want.add(c.it.Location)
	}
	found := map[remit.ID]*resourceObject{}
	err := chunks(want.all, func(some []remit.ID) error {
		return drain(ctx, l.in.Resources, remit.Filter{IDs: some}, func(r *remit.Resource) {
			found[r.ID] = &resourceObject{class: resourceClass, it: resourceData{r}}
		})
	})
	for _, c := range all {
		c.it.location = found[c.it.Location]
	}
	return err
}

// giveUsers finds who is given a credential: the workloads that hold what it
// lies in, and the workload in whose own specification it stands.
func (l *loader) giveUsers(ctx context.Context, all []*credentialObject) error {
	var places, users ids
	for _, c := range all {
		places.add(c.it.Location)
		if c.it.Location == "" {
			users.add(remit.IdentityID(c.it.System, c.it.Ref))
		}
	}
	holding := map[remit.ID][]*remit.Relation{}
	err := chunks(places.all, func(some []remit.ID) error {
		return drain(ctx, l.in.Relations, remit.Filter{To: some, Types: []string{string(remit.Holds)}}, func(r *remit.Relation) {
			if have := holding[r.To]; len(have) < MaxNeighbours {
				holding[r.To] = append(have, r)
				users.add(r.From)
			}
		})
	})
	if err != nil {
		return err
	}
	records, err := l.identityRecords(ctx, users.all)
	if err != nil {
		return err
	}
	for _, c := range all {
		var out []*identityObject
		for _, r := range holding[c.it.Location] {
			if o := records[r.From]; o != nil {
				out = append(out, o)
			} else {
				out = append(out, newRecord(&remit.Identity{Record: remit.Record{ID: r.From, Ref: r.FromRef}}))
			}
		}
		if c.it.Location == "" {
			if o := records[remit.IdentityID(c.it.System, c.it.Ref)]; o != nil {
				out = append(out, o)
			}
		}
		c.it.users = objectList(out)
	}
	return nil
}

// secretOf is what copies of a credential have in common with it, "" for what
// is no secret: a certificate without its private key may lie anywhere.
func secretOf(c *remit.Credential) (fingerprint, native string) {
	if c.Type == remit.Certificate && c.Attributes["private-key"] != "true" {
		return "", ""
	}
	return c.Fingerprint, c.Native
}

// giveCopies finds the same secret elsewhere. A secret that lies in thousands
// of places is read once and remembered.
func (l *loader) giveCopies(ctx context.Context, all []*credentialObject) error {
	byKey := map[remit.ID][]*credentialObject{} // fingerprint or native → credentials
	key := func(prefix, s string) remit.ID { return remit.ID(prefix + s) }
	var fingerprints, natives []string
	asked := map[remit.ID]bool{}
	for _, c := range all {
		fp, native := secretOf(c.it.Credential)
		for _, k := range []struct {
			prefix, value string
			into          *[]string
		}{{"f:", fp, &fingerprints}, {"n:", native, &natives}} {
			id := key(k.prefix, k.value)
			if k.value == "" || asked[id] {
				continue
			}
			asked[id] = true
			if hot, ok := l.hot.get(id); ok {
				byKey[id] = hot
				continue
			}
			*k.into = append(*k.into, k.value)
		}
	}
	full := map[remit.ID]bool{}
	take := func(prefix string, of func(*remit.Credential) string) func(*remit.Credential) {
		return func(r *remit.Credential) {
			fp, native := secretOf(r)
			if fp == "" && native == "" {
				return
			}
			id := key(prefix, of(r))
			if len(byKey[id]) > MaxCopies {
				full[id] = true
				return
			}
			byKey[id] = append(byKey[id], &credentialObject{class: credentialRecClass, it: credentialData{Credential: r}})
		}
	}
	if len(fingerprints) > 0 {
		if err := drain(ctx, l.in.Credentials, remit.Filter{Fingerprints: fingerprints}, take("f:", func(r *remit.Credential) string { return r.Fingerprint })); err != nil {
			return err
		}
	}
	if len(natives) > 0 {
		if err := drain(ctx, l.in.Credentials, remit.Filter{Natives: natives}, take("n:", func(r *remit.Credential) string { return r.Native })); err != nil {
			return err
		}
	}
	for id := range full {
		l.hot.put(id, byKey[id])
	}
	for _, c := range all {
		fp, native := secretOf(c.it.Credential)
		seen := ids{}
		seen.add(c.it.ID)
		var out []*credentialObject
		for _, id := range []remit.ID{key("f:", fp), key("n:", native)} {
			for _, other := range byKey[id] {
				if len(out) < MaxCopies && seen.add(other.it.ID) {
					out = append(out, other)
				}
			}
		}
		c.it.copies = objectList(out)
	}
	return nil
}
