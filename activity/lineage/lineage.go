// Package lineage keeps the tree of credentials of one system: which credential
// minted which, down from roots that were not seen to be minted, and what each
// was used for and from where.
//
// It is built from facts in events and from nothing else. Kubernetes names in
// the answer to a TokenRequest the token that it issued and, with every
// request, the token that made it; AWS names both access keys of an AssumeRole;
// OpenBao both accessors of a token creation.
package lineage

import (
	"cmp"
	"slices"
	"time"
	"unsafe"

	"remit"
)

// Options bound a tree. The zero value takes the defaults.
type Options struct {
	// Idle is how long a credential whose end the log does not tell counts as
	// alive after its last use; 0 is 24 hours.
	Idle time.Duration

	// Max is how many credentials are kept one by one; 0 is a million. Above
	// it Idle shrinks for those that can go. Roots and forks are never given up.
	Max int
}

// Tree is the lineage of one system. It is not safe for concurrent use.
type Tree struct {
	system  remit.ID
	options Options
	nodes   map[string]*node
	dirty   map[*node]struct{}
	waiting map[string][]*node // of those that were loaded, by the parent that was not
	ended   []remit.Lineage
	recent  [1 << recentBits]*node // by where the credential's text is in memory

	// now is the latest event time, which is the tree's only clock.
	now     time.Time
	swept   time.Time
	largest int // at the last sweep
}

// recentBits is for a cache before the map: most events come with a credential
// that came shortly before, and its text is interned.
const recentBits = 14

func slot(credential string) uint64 {
	return uint64(uintptr(unsafe.Pointer(unsafe.StringData(credential)))) * 0x9E3779B97F4A7C15 >> (64 - recentBits)
}

type node struct {
	remit.Lineage
	parent *node
	steps  int // mintings from parent to here: more than one where those between ended
	kept   int // children that are in the tree
	own    int // of these, minted for the same identity
	dirty  bool
	stored bool // a checkpoint has it
}

// under puts a node below its parent.
func (n *node) under(p *node, steps int) {
	n.parent, n.steps = p, max(steps, 1)
	p.kept++
	if n.SelfMinted {
		p.own++
	}
}

// forks says whether two lines go on from a node for its own identity: it was
// given by another and yet minted for itself, or it did so twice. Of a line that
// renews itself for years only the beginning is a fork.
func (n *node) forks() bool { return n.Parent != "" && (n.own > 1 || n.own > 0 && !n.SelfMinted) }

// New returns an empty tree.
func New(system remit.ID, o Options) *Tree {
	if o.Idle <= 0 {
		o.Idle = 24 * time.Hour
	}
	if o.Max <= 0 {
		o.Max = 1_000_000
	}
	return &Tree{system: system, options: o, nodes: make(map[string]*node), dirty: make(map[*node]struct{})}
}

// Load puts entries that were stored into the tree. Parents need not come before
// their children, be it in one call or in several. What was only announced comes
// again by its events.
func (t *Tree) Load(all []remit.Lineage) {
	for _, l := range all {
		if l.Announced {
			continue
		}
		if old := t.nodes[l.Credential]; old != nil {
			// Twice; what hangs together already stays so.
			parent := old.Parent
			if old.Lineage = l; old.parent != nil {
				old.Parent = parent
			}
			t.hang(old)
			continue
		}
		n := t.add(&node{Lineage: l, stored: true})
		for _, at := range [...]time.Time{l.Last, l.Minted} {
			if at.After(t.now) {
				t.now = at
			}
		}
		t.hang(n)
		for _, child := range t.waiting[n.Credential] {
			t.hang(child)
		}
		delete(t.waiting, n.Credential)
	}
	t.largest = len(t.nodes)
	t.swept = t.now
}

// hang puts a node that was loaded below its parent, or has it wait for that.
func (t *Tree) hang(n *node) {
	if n.Parent == "" || n.parent != nil {
		return
	}
	switch p := t.nodes[n.Parent]; {
	case p == nil:
		if t.waiting == nil {
			t.waiting = make(map[string][]*node)
		}
		t.waiting[n.Parent] = append(t.waiting[n.Parent], n)
	case !p.descendsFrom(n): // a ring has no root, and no walk up would end
		n.under(p, n.Depth-p.Depth)
	}
}

// Len is the number of credentials that are kept one by one.
func (t *Tree) Len() int { return len(t.nodes) }

// Observe adds what an event shows and fills in Parent, Root, Depth and
// SelfMinted of a. a.Identity must be set; holder is the identity of whom
// a.Minted authenticates, when it is set.
func (t *Tree) Observe(a *remit.Activity, holder remit.ID) {
	if a.Time.After(t.now) {
		t.now = a.Time
	}
	// Sweeping is bound to events and not to checkpoints, so that an import
	// ends with the tree that the live stream ends with.
	if t.now.Sub(t.swept) >= time.Hour || len(t.nodes) > t.options.Max && len(t.nodes) > t.largest+t.largest/8 {
		t.sweep()
	}
	var by *node
	if a.Credential != "" {
		by = t.use(a)
		a.Parent, a.Root, a.Depth = by.Parent, by.Root, by.Depth
		a.SelfMinted = by.inSelfMinted()
	}
	if a.Minted.Credential != "" && a.Minted.Credential != a.Credential {
		t.mint(a, by, holder)
	}
}

// use notes a use of the credential of a.
func (t *Tree) use(a *remit.Activity) *node {
	recent := &t.recent[slot(a.Credential)]
	n := *recent
	if n == nil || n.Credential != a.Credential {
		n = t.nodes[a.Credential]
		*recent = n
	}
	if n == nil {
		n = t.add(&node{Lineage: remit.Lineage{
			System: t.system, Credential: a.Credential, Type: a.CredentialType,
			Identity: a.Identity, Holder: a.Actor, Bound: a.Bound, Root: a.Credential,
		}})
	}
	if n.Identity == "" {
		n.Identity, n.Holder = a.Identity, a.Actor
	}
	if n.Bound == (remit.Ref{}) {
		n.Bound = a.Bound
	}
	if n.Type == "" {
		n.Type = a.CredentialType
	}
	if n.First.IsZero() || a.Time.Before(n.First) {
		n.First = a.Time
	}
	if a.Time.After(n.Last) {
		n.Last = a.Time
	}
	if a.Outcome == remit.Allowed && a.Time.After(n.Allowed) {
		n.Allowed = a.Time
	}
	n.Uses++
	n.Addresses = note(n.Addresses, a.Address)
	n.UserAgents = note(n.UserAgents, a.UserAgent)
	t.touch(n)
	return n
}

// note adds a value to a short list of distinct ones.
func note(list []string, value string) []string {
	if value == "" || len(list) >= remit.MaxPlaces || slices.Contains(list, value) {
		return list
	}
	return append(list, value)
}

// mint adds the credential that an event issued. by is nil when the log does
// not tell with what it was asked for.
func (t *Tree) mint(a *remit.Activity, by *node, holder remit.ID) {
	m := &a.Minted
	n := t.nodes[m.Credential]
	if n == nil {
		n = t.add(&node{Lineage: remit.Lineage{System: t.system, Credential: m.Credential, Root: m.Credential}})
	}
	if n.parent != nil || n.Parent != "" || by != nil && by.descendsFrom(n) {
		return // told twice, or a forged log that would make a ring
	}
	n.Type, n.Identity, n.Holder, n.Bound = m.Type, cmp.Or(holder, n.Identity), m.For, m.Bound
	n.Minted, n.Expires = a.Time, m.Expires
	t.touch(n)
	if by == nil {
		return
	}
	n.Parent = by.Credential
	n.SelfMinted = by.Identity != "" && by.Identity == n.Identity
	n.under(by, 1)
	by.Children++
	by.Forked = by.Forked || by.forks()
	t.touch(by)
	t.settle(n)
}

// settle gives a credential that was used before its minting was seen, and
// those minted with it meanwhile, their place below the new parent.
func (t *Tree) settle(n *node) {
	n.Root, n.Depth = n.parent.Root, n.parent.Depth+n.steps
	if n.kept == 0 {
		return
	}
	n.Forked = n.Forked || n.forks() // only now is known that it came from above
	// A late record of a minting is rare, so all are looked at.
	for moved := true; moved; {
		moved = false
		for _, c := range t.nodes {
			if c.parent != nil && (c.Root != c.parent.Root || c.Depth != c.parent.Depth+c.steps) {
				c.Root, c.Depth = c.parent.Root, c.parent.Depth+c.steps
				t.touch(c)
				moved = true
			}
		}
	}
}

func (n *node) descendsFrom(other *node) bool {
	for ; n != nil; n = n.parent {
		if n == other {
			return true
		}
	}
	return false
}

func (n *node) inSelfMinted() bool {
	for ; n != nil; n = n.parent {
		if n.SelfMinted {
			return true
		}
	}
	return false
}

func (t *Tree) add(n *node) *node {
	t.nodes[n.Credential] = n
	return n
}

func (t *Tree) touch(n *node) {
	if !n.dirty {
		n.dirty = true
		t.dirty[n] = struct{}{}
	}
}

// Identity returns whom a credential is known to authenticate, or "".
func (t *Tree) Identity(credential string) (remit.ID, remit.Ref) {
	if n := t.nodes[credential]; n != nil {
		return n.Identity, n.Holder
	}
	return "", remit.Ref{}
}

// Changed appends what has changed since it was last called, and what ended, to
// a checkpoint.
func (t *Tree) Changed(c *remit.Checkpoint) {
	at := len(c.Lineage)
	for n := range t.dirty {
		n.dirty, n.stored = false, true
		c.Lineage = append(c.Lineage, n.entry())
	}
	clear(t.dirty)
	slices.SortFunc(c.Lineage[at:], func(a, b remit.Lineage) int { return cmp.Compare(a.Credential, b.Credential) })
	c.LineageEnded = append(c.LineageEnded, t.ended...)
	t.ended = nil
}

// Announce appends to a checkpoint what no checkpoint has yet of the lineages of
// some credentials. It comes again, in full, with the next Changed.
func (t *Tree) Announce(credentials []string, c *remit.Checkpoint) {
	roots := make(map[string]bool, 1)
	for _, credential := range credentials {
		if n := t.nodes[credential]; n != nil {
			roots[n.Root] = true
		}
	}
	for n := range t.dirty {
		if roots[n.Root] && !n.stored {
			l := n.entry()
			l.Announced = true
			c.Lineage = append(c.Lineage, l)
		}
	}
}

// entry is what is written of a node.
func (n *node) entry() remit.Lineage {
	l := n.Lineage
	l.Addresses, l.UserAgents = slices.Clone(l.Addresses), slices.Clone(l.UserAgents)
	return l
}

// sweep removes credentials that ended and from which nothing goes on; a parent
// remembers how many. It runs once an hour of event time, and when the tree has
// grown beyond its bound. Roots, forks and what is alive stay.
func (t *Tree) sweep() {
	for idle := t.options.Idle; ; idle /= 2 {
		t.sweepOnce(idle)
		if len(t.nodes) <= t.options.Max || idle < time.Minute {
			break
		}
	}
	t.swept, t.largest = t.now, len(t.nodes)
}

func (t *Tree) sweepOnce(idle time.Duration) {
	var gone []*node
	for _, n := range t.nodes {
		if t.ends(n, idle) {
			gone = append(gone, n)
		}
	}
	// The order decides what is swept in which round, so it must not be the map's.
	slices.SortFunc(gone, func(a, b *node) int { return cmp.Compare(a.Credential, b.Credential) })
	if len(gone) > 0 {
		clear(t.recent[:])
	}
	for len(gone) > 0 {
		n := gone[len(gone)-1]
		gone = gone[:len(gone)-1]
		t.remove(n)
		p := n.parent
		p.kept--
		if n.SelfMinted {
			p.own--
		}
		p.Gone += 1 + n.Gone
		t.touch(p)
		if t.ends(p, idle) {
			gone = append(gone, p)
		}
	}
	t.shorten(idle)
}

// remove forgets a node, in the store as well.
func (t *Tree) remove(n *node) {
	delete(t.nodes, n.Credential)
	if n.dirty {
		n.dirty = false
		delete(t.dirty, n)
	}
	t.ended = append(t.ended, remit.Lineage{System: t.system, Credential: n.Credential})
}

// shorten takes credentials that ended out of the midst of lines that go on from
// them alone: of one that renewed itself for a year remain its root, its fork and
// what is alive. Depths still count every minting.
func (t *Tree) shorten(idle time.Duration) {
	// Where nodes are passed does not matter: each line is shortened to the same.
	for _, n := range t.nodes {
		short := false
		for p := n.parent; p != nil && p.parent != nil && p.kept == 1 && !p.Forked && (n.SelfMinted || !p.SelfMinted) && !p.Alive(t.now, idle); p = n.parent {
			above := p.parent
			if p.SelfMinted {
				above.own--
			}
			above.kept--
			above.Gone += 1 + p.Gone
			n.Parent = above.Credential
			n.under(above, n.steps+p.steps)
			t.touch(above)
			t.remove(p)
			short = true
		}
		if short {
			clear(t.recent[:])
			t.touch(n)
		}
	}
}

func (t *Tree) ends(n *node, idle time.Duration) bool {
	return n.parent != nil && n.kept == 0 && !n.Forked && !n.Alive(t.now, idle)
}

// Now is the latest event time that the tree has seen.
func (t *Tree) Now() time.Time { return t.now }
