package lineage_test

import (
	"fmt"
	"testing"
	"time"

	"remit"
	"remit/activity/lineage"
)

const system = remit.ID("sys_x")

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// act has an identity use a credential, and mint another for whom when minted
// is not "".
func act(t *lineage.Tree, at time.Time, who remit.ID, credential, minted string, whom remit.ID) remit.Activity {
	a := remit.Activity{System: system, Time: at, Identity: who, Actor: remit.Ref{Kind: "User", Name: string(who)}, Credential: credential, Address: "10.0.0.1"}
	if minted != "" {
		a.Minted = remit.Minted{Credential: minted, For: remit.Ref{Kind: "User", Name: string(whom)}, Expires: at.Add(time.Hour)}
	}
	t.Observe(&a, whom)
	return a
}

// TestForkAndSelfMinted follows a stolen token: it was given by a node, mints
// for its own account, and so is a fork; what descends from it is known by its
// root.
func TestForkAndSelfMinted(t *testing.T) {
	tree := lineage.New(system, lineage.Options{})
	act(tree, start, "node", "cert", "t1", "api")
	act(tree, start, "api", "t1", "a1", "api")
	act(tree, start, "api", "a1", "a2", "api")
	got := act(tree, start, "api", "a2", "", "")
	if got.Root != "cert" || got.Parent != "a1" || got.Depth != 3 || !got.SelfMinted {
		t.Errorf("%+v", got)
	}
	var c remit.Checkpoint
	tree.Changed(&c)
	forked := map[string]bool{}
	for _, l := range c.Lineage {
		forked[l.Credential] = l.Forked
	}
	if !forked["t1"] || forked["cert"] || forked["a2"] {
		t.Errorf("forks: %v", forked)
	}
}

// TestLateMinting puts a credential in its place that was used before the event
// of its minting came, with what it minted meanwhile; and refuses a ring, which
// only a forged log can hold.
func TestLateMinting(t *testing.T) {
	tree := lineage.New(system, lineage.Options{})
	act(tree, start, "api", "t1", "t2", "api")
	act(tree, start, "node", "cert", "t1", "api")
	if got := act(tree, start, "api", "t2", "", ""); got.Root != "cert" || got.Depth != 2 {
		t.Errorf("%+v", got)
	}
	act(tree, start, "api", "t2", "cert", "node")
	if got := act(tree, start, "node", "cert", "", ""); got.Root != "cert" || got.Depth != 0 {
		t.Errorf("after a ring: %+v", got)
	}
}

// TestSweep mints tokens for weeks: what ended goes, its parent remembers how
// many, and roots, forks and what is alive stay.
func TestSweep(t *testing.T) {
	tree := lineage.New(system, lineage.Options{})
	at := start
	n := 0
	for range 24 * 28 {
		at = at.Add(time.Hour)
		for pod := range 20 {
			n++
			token := fmt.Sprintf("t%d", n)
			act(tree, at, "node", "cert", token, remit.ID(fmt.Sprintf("api-%d", pod)))
			act(tree, at, remit.ID(fmt.Sprintf("api-%d", pod)), token, "", "")
		}
		if at.Sub(start) == 100*time.Hour {
			act(tree, at, "api-0", "t1981", "stolen", "api-0")
		}
	}
	if tree.Len() > 100 {
		t.Errorf("%d of %d credentials are kept one by one", tree.Len(), n)
	}
	kept := map[string]remit.Lineage{}
	var c remit.Checkpoint
	tree.Changed(&c)
	for _, l := range c.Lineage {
		kept[l.Credential] = l
	}
	root := kept["cert"]
	if root.Children != int64(n) || root.Gone == 0 {
		t.Errorf("the root: %+v", root)
	}
	if _, ok := kept[fmt.Sprintf("t%d", n)]; !ok {
		t.Error("a token that is alive is gone")
	}
	if !kept["t1981"].Forked {
		t.Errorf("the fork is gone: %+v", kept["t1981"])
	}
	// What was written can be read again, and the tree goes on.
	again := lineage.New(system, lineage.Options{})
	again.Load(c.Lineage)
	if got := act(again, at, "api-1", fmt.Sprintf("t%d", n), "", ""); got.Root != "cert" || got.Depth != 1 {
		t.Errorf("after a restart: %+v", got)
	}
}

// TestForkSeenLate marks a fork whose own minting is told after it has minted
// for itself, as when the logs of several API servers are read one by one: it
// stayed unmarked, and was swept in time.
func TestForkSeenLate(t *testing.T) {
	tree := lineage.New(system, lineage.Options{})
	act(tree, start.Add(2*time.Minute), "api", "t1", "t2", "api")
	act(tree, start, "node", "cert", "t1", "api")
	var c remit.Checkpoint
	tree.Changed(&c)
	for _, l := range c.Lineage {
		if l.Forked != (l.Credential == "t1") {
			t.Errorf("%s: forked %t", l.Credential, l.Forked)
		}
	}
}

// TestChainOfAYear renews a token with itself every ten minutes for a year: the
// tree stays small, and root, fork, what is alive and the depth are still known,
// also after the tree was stored and loaded on the way.
func TestChainOfAYear(t *testing.T) {
	tree := lineage.New(system, lineage.Options{})
	act(tree, start, "node", "cert", "t0", "api")
	const n = 365 * 24 * 6
	stored := map[string]remit.Lineage{}
	most := 0
	var last remit.Activity
	for i := range n {
		at := start.Add(time.Duration(i+1) * 10 * time.Minute)
		last = act(tree, at, "api", fmt.Sprintf("t%d", i), fmt.Sprintf("t%d", i+1), "api")
		most = max(most, tree.Len())
		if i%5000 != 4999 {
			continue
		}
		var c remit.Checkpoint
		tree.Changed(&c)
		for _, l := range c.LineageEnded {
			delete(stored, l.Credential)
		}
		for _, l := range c.Lineage {
			stored[l.Credential] = l
		}
		if i%10000 == 9999 {
			var all []remit.Lineage
			for _, l := range stored {
				all = append(all, l)
			}
			tree = lineage.New(system, lineage.Options{})
			tree.Load(all)
		}
	}
	if most > 400 {
		t.Errorf("%d credentials were kept at once", most)
	}
	if last.Root != "cert" || last.Depth != n || !last.SelfMinted {
		t.Errorf("%+v", last)
	}
	var c remit.Checkpoint
	tree.Changed(&c)
	for _, l := range c.Lineage {
		stored[l.Credential] = l
	}
	if fork := stored["t0"]; !fork.Forked || fork.Parent != "cert" || fork.Gone < n-400 {
		t.Errorf("the fork: %+v", fork)
	}
}
