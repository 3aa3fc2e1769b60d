package lineage_test

import (
	"fmt"
	"testing"
	"time"

	"remit"
	"remit/activity/lineage"
)

// FuzzTree has a few credentials be used and mint each other in any order, with
// restarts from what was written and from what somebody has made of that: no
// ring comes about, each has a root, and all comes to an end.
func FuzzTree(f *testing.F) {
	f.Add([]byte{0, 1, 2, 1, 2, 0, 2, 0, 1})
	f.Add([]byte{0x01, 0x12, 0x23, 0x34, 0x40, 0xf0, 0x04, 0xf1, 0x55})
	f.Add([]byte("minted by itself and by all others, and again"))
	f.Fuzz(func(t *testing.T, steps []byte) {
		if len(steps) > 400 {
			return
		}
		stored := map[string]remit.Lineage{}
		tree := lineage.New(system, lineage.Options{Max: 16})
		at := start
		write := func() (all []remit.Lineage) {
			var c remit.Checkpoint
			tree.Changed(&c)
			for _, l := range c.LineageEnded {
				delete(stored, l.Credential)
			}
			for _, l := range c.Lineage {
				stored[l.Credential] = l
			}
			for _, l := range stored {
				all = append(all, l)
			}
			return all
		}
		for _, step := range steps {
			from, to := fmt.Sprintf("t%d", step>>4), fmt.Sprintf("t%d", step&15)
			switch {
			case step>>4 == 15: // a restart, one entry by one as well
				all := write()
				tree = lineage.New(system, lineage.Options{Max: 16})
				if step&1 == 0 {
					tree.Load(all)
				} else {
					for _, l := range all {
						tree.Load([]remit.Lineage{l})
					}
				}
			case step>>4 == 14: // somebody has written into the store
				l := stored[from]
				l.System, l.Credential, l.Parent, l.Root = system, to, fmt.Sprintf("t%d", step&7), to
				stored[to] = l
				tree.Load([]remit.Lineage{l})
			default:
				at = at.Add(time.Duration(step) * time.Minute)
				got := act(tree, at, remit.ID("i"+from[:2]), from, to, remit.ID("i"+to[:2]))
				if got.Root == "" || got.Depth < 0 {
					t.Fatalf("%+v", got)
				}
			}
		}
		parents := map[string]string{}
		for _, l := range write() {
			parents[l.Credential] = l.Parent
		}
		lineage.Walk(lineage.Forest(write(), at, 0), func(*lineage.Branch, int) {})
	})
}

// TestLoadOneByOne takes entries in any order, each in a call of its own, as
// they come from the store: children wait for their parents.
func TestLoadOneByOne(t *testing.T) {
	all := []remit.Lineage{
		{System: system, Credential: "c", Parent: "b", Root: "a", Depth: 2, Last: start},
		{System: system, Credential: "b", Parent: "a", Root: "a", Depth: 1, SelfMinted: true, Last: start},
		{System: system, Credential: "a", Root: "a", Last: start},
	}
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {0, 0, 1, 2, 2}} {
		tree := lineage.New(system, lineage.Options{})
		for _, n := range order {
			tree.Load(all[n : n+1])
		}
		if got := act(tree, start, "api", "c", "", ""); got.Root != "a" || got.Depth != 2 || !got.SelfMinted {
			t.Errorf("in the order %v: %+v", order, got)
		}
	}
}

// TestLoadRing comes to an end with a store in which credentials have minted
// each other.
func TestLoadRing(t *testing.T) {
	tree := lineage.New(system, lineage.Options{})
	tree.Load([]remit.Lineage{
		{System: system, Credential: "a", Parent: "b", Root: "a", Last: start},
		{System: system, Credential: "b", Parent: "a", Root: "a", Last: start},
		{System: system, Credential: "c", Parent: "c", Root: "c", Last: start},
	})
	for _, one := range []string{"a", "b", "c"} {
		act(tree, start, "api", one, "x"+one, "api")
	}
}
