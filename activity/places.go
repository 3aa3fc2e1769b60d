package activity

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"remit"
)

// places is what the inventory tells of a system: who is known, where the pods
// and nodes are that credentials are bound to, and which workloads run as whom.
type places struct {
	store      Inventory
	system     remit.ID
	identities map[remit.ID]remit.IdentityType
	nodes      map[string][]netip.Addr

	// bound are the objects that credentials are bound to, of the kinds that
	// were read: all of a kind at once, for a query for each of a hundred
	// thousand pods would take a minute.
	bound map[remit.Ref]*place
	read  map[string]bool

	images map[remit.ID]string     // of workloads
	runsAs map[remit.ID][]remit.ID // workloads by the identity that they run as
}

// place is where an object is, as the inventory knows it.
type place struct {
	addresses []netip.Addr
	node      string // on which it runs
}

func newPlaces(ctx context.Context, store Inventory, id remit.ID) (*places, error) {
	p := &places{store: store, system: id}
	return p, p.refresh(ctx)
}

func (p *places) refresh(ctx context.Context) error {
	p.identities, p.nodes = make(map[remit.ID]remit.IdentityType), make(map[string][]netip.Addr)
	p.bound, p.read = make(map[remit.Ref]*place), make(map[string]bool)
	p.images, p.runsAs = make(map[remit.ID]string), make(map[remit.ID][]remit.ID)
	err := pages(ctx, remit.Filter{System: p.system}, p.store.Identities, func(i remit.Identity) {
		p.take(&i)
	})
	if err != nil {
		return err
	}
	return pages(ctx, remit.Filter{System: p.system, Types: []string{string(remit.RunsAs)}}, p.store.Relations, func(r remit.Relation) {
		p.runsAs[r.To] = append(p.runsAs[r.To], r.From)
	})
}

// pages calls each with every record that a filter chooses.
func pages[T any](ctx context.Context, f remit.Filter, list func(context.Context, remit.Filter, remit.PageRequest) ([]T, string, error), each func(T)) error {
	page := remit.PageRequest{Limit: 1000, Sort: "name"}
	for {
		some, next, err := list(ctx, f, page)
		if err != nil {
			return err
		}
		for _, one := range some {
			each(one)
		}
		if next == "" {
			return nil
		}
		page.After = next
	}
}

// take notes an identity, and says whether it is a workload that has got other
// images than before.
func (p *places) take(i *remit.Identity) (rolledOut bool) {
	p.identities[i.ID] = i.Type
	if i.Kind == "Node" {
		p.nodes[i.Name] = addresses(i.Attributes["addresses"])
	}
	images := i.Attributes["images"]
	if images == "" {
		return false
	}
	before, known := p.images[i.ID]
	p.images[i.ID] = images
	return known && before != images
}

func (p *places) identity(id remit.ID) (remit.IdentityType, bool) {
	t, ok := p.identities[id]
	return t, ok
}

// rollouts are when the workloads that run as an identity got other images, the
// earliest first, as far as the inventory's history knows.
func (p *places) rollouts(ctx context.Context, identity remit.ID) ([]time.Time, error) {
	var all []time.Time
	for _, workload := range p.runsAs[identity] {
		if p.images[workload] == "" {
			continue
		}
		versions, err := p.store.History(ctx, workload)
		if err != nil {
			return nil, err
		}
		for n := 0; n+1 < len(versions); n++ { // the newest first
			newer, ok1 := versions[n].Record.(remit.Identity)
			older, ok2 := versions[n+1].Record.(remit.Identity)
			if ok1 && ok2 && newer.Attributes["images"] != older.Attributes["images"] {
				all = append(all, versions[n].From)
			}
		}
	}
	slices.SortFunc(all, time.Time.Compare)
	return all, nil
}

// changed takes over what the inventory has learned about some of its records: it
// calls each with those that are identities, and returns the identities whose
// workloads were rolled out anew.
func (p *places) changed(ctx context.Context, ids []remit.ID, each func(*remit.Identity)) (rolledOut []remit.ID, err error) {
	var identities, resources, workloads []remit.ID
	for _, id := range ids {
		switch id.Kind() {
		case remit.KindIdentity:
			identities = append(identities, id)
		case remit.KindResource:
			resources = append(resources, id)
		}
	}
	for some := range slices.Chunk(identities, 500) {
		err := pages(ctx, remit.Filter{System: p.system, IDs: some}, p.store.Identities, func(i remit.Identity) {
			_, known := p.identities[i.ID]
			if p.take(&i) || !known && i.Attributes["images"] != "" {
				workloads = append(workloads, i.ID)
			}
			each(&i)
		})
		if err != nil {
			return nil, err
		}
	}
	for some := range slices.Chunk(workloads, 500) {
		err := pages(ctx, remit.Filter{System: p.system, Identities: some, Types: []string{string(remit.RunsAs)}}, p.store.Relations, func(r remit.Relation) {
			// A new workload of an identity that has others is a rollout too.
			rolledOut = append(rolledOut, r.To)
			if !slices.Contains(p.runsAs[r.To], r.From) {
				p.runsAs[r.To] = append(p.runsAs[r.To], r.From)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	// One that was removed stays as it was: its last events come late, and a
	// successor of the same name is told like any change.
	for some := range slices.Chunk(resources, 500) {
		err := pages(ctx, remit.Filter{System: p.system, IDs: some}, p.store.Resources, func(r remit.Resource) {
			if p.read[r.Kind] {
				p.put(&r)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	if len(p.bound) > maxActors { // years of pods that are gone
		p.bound, p.read = make(map[remit.Ref]*place), make(map[string]bool)
	}
	return rolledOut, nil
}

func (p *places) put(r *remit.Resource) {
	p.bound[r.Ref] = &place{addresses: addresses(r.Attributes["addresses"]), node: r.Attributes["node"]}
}

// outside says whether the address of an activity is known to be none of what
// its credential is bound to, nor of the node of it.
func (p *places) outside(ctx context.Context, a *remit.Activity) (bool, error) {
	if !p.read[a.Bound.Kind] {
		kind := remit.Filter{System: p.system, Kinds: []string{a.Bound.Kind}}
		if err := pages(ctx, kind, p.store.Resources, func(r remit.Resource) { p.put(&r) }); err != nil {
			return false, err
		}
		p.read[a.Bound.Kind] = true
	}
	at := p.bound[a.Bound]
	if at == nil || len(at.addresses) == 0 {
		return false, nil
	}
	from, err := netip.ParseAddr(a.Address)
	if err != nil {
		return false, nil
	}
	from = from.Unmap()
	return !slices.Contains(at.addresses, from) && !slices.Contains(p.nodes[a.Node], from) && !slices.Contains(p.nodes[at.node], from), nil
}

func addresses(list string) []netip.Addr {
	var out []netip.Addr
	for text := range strings.SplitSeq(list, ",") {
		if a, err := netip.ParseAddr(strings.TrimSpace(text)); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// InventoryChanged tells the pipeline which records of a system the inventory has
// changed, so that it knows new identities, where pods run now, and what was
// deployed. It is called like Feed, by the goroutine that feeds.
func (p *Pipeline) InventoryChanged(ctx context.Context, system remit.ID, ids []remit.ID) error {
	s := p.systems[system]
	if s == nil {
		return nil // read when the first event comes
	}
	rolledOut, err := s.places.changed(ctx, ids, func(i *remit.Identity) {
		if a := s.actors[i.Ref]; a != nil {
			a.kind, a.known = i.Type, true
		}
	})
	if err != nil {
		return err
	}
	if s.rolledOut != nil {
		for _, id := range rolledOut {
			s.rolledOut(id, p.options.Now())
		}
	}
	return nil
}
