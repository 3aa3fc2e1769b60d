package lineage

import (
	"cmp"
	"slices"
	"time"

	"remit"
)

// Branch is a credential and what it minted, as a tree is drawn.
type Branch struct {
	remit.Lineage
	Live     bool // at the time that was asked for
	Children []*Branch
}

// Forest arranges entries into trees by their parents: roots, and entries whose
// parent is not among them, in the order of their first appearance. Entries that
// name each other in a ring, which no log can do, are left out.
func Forest(all []remit.Lineage, at time.Time, idle time.Duration) []*Branch {
	if idle <= 0 {
		idle = 24 * time.Hour
	}
	branches := make(map[string]*Branch, len(all))
	order := make([]*Branch, 0, len(all))
	for _, l := range all {
		b := &Branch{Lineage: l, Live: l.Alive(at, idle)}
		branches[l.Credential] = b
		order = append(order, b)
	}
	slices.SortFunc(order, func(a, b *Branch) int {
		return cmp.Or(began(a).Compare(began(b)), cmp.Compare(a.Credential, b.Credential))
	})
	var roots []*Branch
	for _, b := range order {
		if p := branches[b.Parent]; b.Parent != "" && p != nil && p != b {
			p.Children = append(p.Children, b)
		} else {
			roots = append(roots, b)
		}
	}
	return roots
}

func began(b *Branch) time.Time {
	switch {
	case b.Minted.IsZero():
		return b.First
	case b.First.IsZero() || b.Minted.Before(b.First):
		return b.Minted
	}
	return b.First
}

// Walk calls f with every branch below the given ones, parents first.
func Walk(branches []*Branch, f func(b *Branch, depth int)) {
	type entry struct {
		*Branch
		depth int
	}
	var stack []entry
	push := func(list []*Branch, depth int) {
		for _, b := range slices.Backward(list) {
			stack = append(stack, entry{b, depth})
		}
	}
	push(branches, 0)
	for len(stack) > 0 {
		top := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		f(top.Branch, top.depth)
		push(top.Children, top.depth+1)
	}
}
