package activity

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/cespare/xxhash/v2"

	"remit"
	"remit/activity/lineage"
	"remit/activity/seen"
	"remit/activity/usage"
	"remit/connector"
)

// system is what the pipeline keeps of one system.
type system struct {
	id      remit.ID
	name    string
	store   Store
	fresh   bool // nothing was stored of it before
	actors  map[remit.Ref]*actor
	recent  [1 << recentBits]*actor // by where the names are in memory
	changes []*actor
	lineage *lineage.Tree
	usage   *usage.Table
	seen    *seen.Set
	places  *places

	rolledOut func(identity remit.ID, at time.Time) // tells the detector; may be nil
}

// actor is an identity as the log names it.
type actor struct {
	remit.Presence
	known bool // in the inventory
	kind  remit.IdentityType
	dirty bool

	// rollouts are when its workloads got new versions, the earliest first, of
	// which the detector has not been told.
	rollouts []time.Time
}

// early is how long before a rollout's time its first effects may be dated:
// inventory and activity come by different ways.
const early = 10 * time.Minute

// maxActors bounds how many actors are kept in memory; when there are more,
// all are forgotten after a checkpoint and read again as they come.
const maxActors = 1 << 20

// system returns the system of an event.
func (p *Pipeline) system(ctx context.Context, in Input, d connector.Decoder, native string) (*system, error) {
	if in.System != "" {
		if s := p.systems[in.System]; s != nil {
			return s, nil
		}
		return p.open(ctx, in.System)
	}
	name := systemName{d.Source().Connector, native}
	if s := p.byName[name]; s != nil {
		return s, nil
	}
	id, err := p.place(ctx, name, d.Source().Title)
	if err != nil {
		return nil, err
	}
	s, err := p.open(ctx, id)
	if err == nil {
		p.byName[systemName{strings.Clone(name.connector), strings.Clone(native)}] = s
	}
	return s, err
}

var errAmbiguous = errors.New("it is not known whose events these are")

// place finds the system that events belong to which name it so, or which name
// none: then it is the only connected system of their kind, or one that is made
// for them.
func (p *Pipeline) place(ctx context.Context, name systemName, title string) (remit.ID, error) {
	all, err := p.options.Store.Systems(ctx)
	if err != nil {
		return "", err
	}
	id := remit.SystemID(name.connector, cmp.Or(name.native, "unnamed"))
	var same []remit.System
	for _, s := range all {
		if s.ID == id {
			return id, nil
		}
		if s.Connector == name.connector {
			same = append(same, s)
		}
	}
	if name.native == "" && len(same) == 1 {
		return same[0].ID, nil
	}
	if name.native == "" && len(same) > 1 {
		return "", remit.Errorf(remit.Invalid, "place events",
			"%w: %s names no system and %d of that kind are known: say which with --system, for example --system %s", errAmbiguous, title, len(same), same[0].Name)
	}
	made := remit.System{
		ID: id, Connector: name.connector, Name: name.connector, Native: cmp.Or(name.native, "unnamed"),
		Mode: remit.ModeObserve, Recorded: true,
	}
	if name.native != "" {
		made.Name += "/" + name.native
	}
	return id, p.options.Store.PutSystem(ctx, made)
}

func (p *Pipeline) open(ctx context.Context, id remit.ID) (*system, error) {
	if s := p.systems[id]; s != nil {
		return s, nil
	}
	s := &system{
		id: id, store: p.options.Store,
		actors:  make(map[remit.Ref]*actor),
		lineage: lineage.New(id, lineage.Options{}),
		usage:   usage.New(id),
	}
	if p.options.Detector != nil {
		s.rolledOut = p.options.Detector.Deployed
	}
	all, err := s.store.Systems(ctx)
	if err != nil {
		return nil, err
	}
	for _, known := range all {
		if known.ID == id {
			s.name = known.Name
		}
	}
	filter := remit.ActivityFilter{System: id}
	some, _, err := s.store.Presences(ctx, filter, remit.PageRequest{Limit: 1})
	if err != nil {
		return nil, err
	}
	s.fresh = len(some) == 0
	s.seen = seen.New(id, s.store, 0)
	if !s.fresh {
		err := remit.Each(ctx, filter, s.store.Lineage, func(l remit.Lineage) error {
			s.lineage.Load([]remit.Lineage{l})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if s.places, err = newPlaces(ctx, s.store, id); err != nil {
		return nil, err
	}
	p.systems[id] = s
	return s, nil
}

// actor returns what is known of an identity that the log names.
func (s *system) actor(ctx context.Context, ref remit.Ref) (*actor, error) {
	recent := &s.recent[slot(ref)]
	if a := *recent; a != nil && a.Actor == ref {
		return a, nil
	}
	if a := s.actors[ref]; a != nil {
		*recent = a
		return a, nil
	}
	a := &actor{}
	a.System, a.Identity, a.Actor = s.id, remit.IdentityID(s.id, ref), ref
	a.kind, a.known = s.places.identity(a.Identity)
	var err error
	if a.rollouts, err = s.places.rollouts(ctx, a.Identity); err != nil {
		return nil, err
	}
	if !s.fresh {
		filter := remit.ActivityFilter{System: s.id, Identities: []remit.ID{a.Identity}}
		before, _, err := s.store.Presences(ctx, remit.ActivityFilter{System: s.id, Identities: filter.Identities}, remit.PageRequest{Limit: 1})
		if err != nil {
			return nil, err
		}
		if len(before) > 0 {
			a.Presence = before[0]
			err := remit.Each(ctx, filter, s.store.Usage, func(u remit.Usage) error {
				s.usage.Load([]remit.Usage{u})
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	s.actors[ref] = a
	*recent = a
	return a, nil
}

// recentBits is for a cache before the map of actors, whose names are interned.
const recentBits = 14

func slot(ref remit.Ref) uint64 {
	const multiplier = 0x9E3779B97F4A7C15
	h := uint64(uintptr(unsafe.Pointer(unsafe.StringData(ref.Name)))) * multiplier
	h ^= uint64(uintptr(unsafe.Pointer(unsafe.StringData(ref.Namespace))))
	return h * multiplier >> (64 - recentBits)
}

// attribute fills in what the event itself does not tell, and counts it.
// k is what is known of the event's text, or nil.
func (s *system) attribute(ctx context.Context, e *connector.Event, k *repeat) error {
	a := &e.Activity
	who, err := s.actor(ctx, a.Actor)
	if err != nil {
		return err
	}
	for len(who.rollouts) > 0 && a.Time.After(who.rollouts[0].Add(-early)) {
		if s.rolledOut != nil {
			s.rolledOut(who.Identity, who.rollouts[0])
		}
		who.rollouts = who.rollouts[1:]
	}
	a.Identity, a.Known, a.Inventoried = who.Identity, who.known, len(s.places.identities) > 0
	if who.kind != "" {
		a.Type = who.kind // the inventory knows better what the name only suggests
	}
	if !who.Last.IsZero() && a.Time.After(who.Last) {
		a.Dormant = a.Time.Sub(who.Last)
	}
	var holder remit.ID
	if a.Minted.For != (remit.Ref{}) {
		other, err := s.actor(ctx, a.Minted.For)
		if err != nil {
			return err
		}
		holder = other.Identity
	}
	s.lineage.Observe(a, holder)
	if a.Bound != (remit.Ref{}) {
		if a.Outside, err = s.places.outside(ctx, a); err != nil {
			return err
		}
	}
	if k == nil || !s.usage.Again(k.counted, a.Root, a.Time) {
		exercised := who.Identity
		if a.As != (remit.Ref{}) {
			other, err := s.actor(ctx, a.As)
			if err != nil {
				return err
			}
			exercised = other.Identity
			s.usage.Observe(actingAs(a), who.Identity)
		}
		counted := s.usage.Observe(a, exercised)
		if k != nil && a.As == (remit.Ref{}) { // which counts twice
			k.counted = counted
		}
	}

	if who.Principal == "" {
		who.Principal, who.Type, who.First = a.Principal, a.Type, a.Time
	}
	if a.Time.Before(who.First) {
		who.First = a.Time
	}
	if a.Time.After(who.Last) {
		who.Last = a.Time
	}
	who.Count++
	if a.Outcome == remit.Denied {
		who.Denied++
	}
	if !who.dirty {
		who.dirty = true
		s.changes = append(s.changes, who)
	}
	return nil
}

// actingAs is what else an event shows that is done as another: that its actor
// exercised the right to act as that one.
func actingAs(a *remit.Activity) *remit.Activity {
	return &remit.Activity{
		System: a.System, Time: a.Time, Actor: a.Actor, Root: a.Root,
		Action: string(remit.Impersonate), Resource: a.As, Outcome: remit.Allowed,
	}
}

func (s *system) changed(c *remit.Checkpoint) {
	at := len(c.Presences)
	for _, a := range s.changes {
		c.Presences = append(c.Presences, a.Presence)
	}
	slices.SortFunc(c.Presences[at:], func(a, b remit.Presence) int { return cmp.Compare(a.Identity, b.Identity) })
	s.lineage.Changed(c)
	s.usage.Changed(c)
	s.seen.Changed(c)
}

func (s *system) committed() {
	for _, a := range s.changes {
		a.dirty = false
	}
	s.changes = s.changes[:0]
	if len(s.actors) > maxActors {
		clear(s.actors)
		clear(s.recent[:])
		s.usage = usage.New(s.id)
		s.fresh = false
	}
	s.seen.Committed(s.store)
}

func (p *Pipeline) inOrder() []*system {
	all := make([]*system, 0, len(p.systems))
	for _, s := range p.systems {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *system) int { return cmp.Compare(a.id, b.id) })
	return all
}

// contentID is the ID of an event whose system gives it none.
func contentID(raw []byte) string {
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:16])
}

// eventHash tells events apart. The ID alone does not: a client may choose the
// auditID of its requests (the Audit-ID header), and would hide all but the
// first of them behind one.
func eventHash(a *remit.Activity) uint64 {
	var scratch [512]byte
	b := append(scratch[:0], a.ID...)
	b = binary.LittleEndian.AppendUint64(append(b, 0), uint64(a.Time.Unix()))
	b = binary.LittleEndian.AppendUint32(b, uint32(a.Time.Nanosecond()))
	for _, part := range [...]string{a.Principal, a.Action, a.Resource.Kind, a.Resource.Namespace, a.Resource.Name, a.Address} {
		b = append(append(b, 0), part...)
	}
	return xxhash.Sum64(b)
}
