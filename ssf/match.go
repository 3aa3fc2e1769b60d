package ssf

import (
	"context"
	"slices"
	"strings"

	"remit"
)

// match is an identity that a subject names.
type match struct {
	id     remit.ID
	system remit.ID
	ref    remit.Ref
	by     string // under which name
}

// match finds the identities that a subject names: those of the inventory, those
// that only the log has shown, and those that are known to be the same actor in
// other systems. Names are equal or not; nothing is guessed.
func (r *Receiver) match(ctx context.Context, from *Source, s *Subject) ([]match, error) {
	var names []name
	for _, n := range s.names(from.Issuer) {
		names = append(names, n)
		if r.Names == nil {
			continue
		}
		for _, other := range r.Names(n.text) {
			// That these are one person's, a user has said.
			names = append(names, name{text: other})
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	all, err := r.Store.Systems(ctx)
	if err != nil {
		return nil, err
	}
	// Remit's own clients are not an identity provider's.
	listed := map[remit.ID]bool{}
	for _, system := range all {
		listed[system.ID] = slices.Contains(from.Systems, system.Name)
	}
	m := &matching{receiver: r, listed: listed, seen: map[remit.ID]bool{}}
	for _, n := range names {
		if err := m.inventory(ctx, n); err != nil {
			return nil, err
		}
	}
	if err := m.presences(ctx, names); err != nil {
		return nil, err
	}
	if err := m.sameActors(ctx); err != nil {
		return nil, err
	}
	return m.found, nil
}

// matching gathers identities, each once.
type matching struct {
	receiver *Receiver
	listed   map[remit.ID]bool // systems in which bare names count
	seen     map[remit.ID]bool
	found    []match
}

// maxMatched bounds how many identities one subject is.
const maxMatched = 256

func (m *matching) add(id, system remit.ID, ref remit.Ref, by string) {
	if !m.seen[id] && len(m.found) < maxMatched {
		m.seen[id] = true
		m.found = append(m.found, match{id: id, system: system, ref: ref, by: by})
	}
}

// inventory looks a name up among the identities of the inventory.
func (m *matching) inventory(ctx context.Context, n name) error {
	filters := []remit.Filter{{Names: []string{n.text}}}
	if isMail(n.text) {
		filters = append(filters, remit.Filter{Search: n.text}) // in whatever case it is written
	}
	if account, ok := strings.CutPrefix(n.text, "system:serviceaccount:"); ok {
		if namespace, account, ok := strings.Cut(account, ":"); ok {
			filters = append(filters, remit.Filter{Kinds: []string{"ServiceAccount"}, Namespaces: []string{namespace}, Names: []string{account}})
		}
	}
	for _, f := range filters {
		for page := (remit.PageRequest{Limit: 1000}); ; {
			some, next, err := m.receiver.Store.Identities(ctx, f, page)
			if err != nil {
				return err
			}
			for i := range some {
				id := &some[i]
				if id.Type != remit.Group && n.names(id.Name, id.Principal) && (!n.bare || m.listed[id.System]) {
					m.add(id.ID, id.System, id.Ref, n.text)
				}
			}
			if next == "" {
				break
			}
			page.After = next
		}
	}
	return nil
}

// names says whether it is one of these; mail addresses in whatever case.
func (n *name) names(these ...string) bool {
	return slices.ContainsFunc(these, func(s string) bool {
		return s != "" && (s == n.text || isMail(n.text) && strings.EqualFold(s, n.text))
	})
}

// presences looks the names up among those whom only the log has shown.
func (m *matching) presences(ctx context.Context, names []name) error {
	return remit.Each(ctx, remit.ActivityFilter{}, m.receiver.Store.Presences, func(p remit.Presence) error {
		for i := range names {
			n := &names[i]
			if p.Type != remit.Group && n.names(p.Actor.Name, p.Principal) && (!n.bare || m.listed[p.System]) {
				m.add(p.Identity, p.System, p.Actor, n.text)
			}
		}
		return nil
	})
}

// sameActors adds the identities that are known to be the same actor.
func (m *matching) sameActors(ctx context.Context) error {
	if len(m.found) == 0 {
		return nil
	}
	var ids []remit.ID
	for _, one := range m.found {
		ids = append(ids, one.id)
	}
	same := []string{string(remit.SameActor)}
	by := map[remit.ID]string{}
	for _, f := range []remit.Filter{{Identities: ids, Types: same}, {To: ids, Types: same}} {
		related, _, err := m.receiver.Store.Relations(ctx, f, remit.PageRequest{Limit: 1000})
		if err != nil {
			return err
		}
		for _, rel := range related {
			by[rel.From], by[rel.To] = rel.ToRef.Name, rel.FromRef.Name
		}
	}
	var others []remit.ID
	for id := range by {
		if !m.seen[id] {
			others = append(others, id)
		}
	}
	if len(others) == 0 {
		return nil
	}
	slices.Sort(others)
	some, _, err := m.receiver.Store.Identities(ctx, remit.Filter{IDs: others}, remit.PageRequest{Limit: 1000})
	if err != nil {
		return err
	}
	for _, i := range some {
		m.add(i.ID, i.System, i.Ref, "the same actor as "+by[i.ID])
	}
	return nil
}
