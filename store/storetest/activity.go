package storetest

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"remit"
)

// testCheckpoints writes what a stretch of events changed, twice, and reads all
// of it back: counts add up, the rest is replaced.
func testCheckpoints(t *testing.T, s Store) {
	ctx := t.Context()
	at := time.Date(2026, 11, 23, 14, 5, 6, 0, time.UTC)
	id := remit.SystemID("kubernetes", "activity")
	ref := remit.Ref{Kind: "ServiceAccount", Namespace: "a\x00b", Name: "api"}
	who := remit.IdentityID(id, ref)
	finding := remit.Finding{
		ID: remit.FindingID("rule", who), Policy: "rule", Severity: remit.High, System: id,
		Subject: remit.Subject{Record: remit.KindIdentity, Ref: ref, ID: who}, First: at, Last: at.Add(time.Minute),
		Credentials: []string{"JTI=1"}, Events: []string{"e1"}, EventCount: 1, Words: "words",
	}
	use := func(n int64, at time.Time) remit.Usage {
		return remit.Usage{System: id, Identity: who, Root: "JTI=1", Binding: remit.Ref{Kind: "RoleBinding", Name: "b"}, Action: "get", Resource: ref, Outcome: remit.Allowed, First: at, Last: at, Count: n}
	}
	c := remit.Checkpoint{
		Now:       at.Add(time.Hour),
		Positions: []remit.Position{{Source: "queue", Offset: 7, Detail: []byte("x")}},
		Presences: []remit.Presence{{System: id, Identity: who, Actor: ref, Principal: "p", First: at, Last: at, Count: 3}},
		Usage:     []remit.Usage{use(3, at)},
		Lineage: []remit.Lineage{
			{System: id, Credential: "JTI=1", Identity: who, Holder: ref, Root: "JTI=1", Forked: true},
			{System: id, Credential: "JTI=2", Identity: who, Holder: ref, Root: "JTI=1", Parent: "JTI=1", Depth: 1},
		},
		Seen:         []remit.SeenChunk{{System: id, Hour: 9, IDs: []byte("12345678")}},
		States:       []remit.State{{Kind: "baseline", Key: "k", Data: []byte{0, 1}}, {System: id, Kind: "baseline", Key: "k", Data: []byte{2}}},
		Findings:     []remit.Finding{finding},
		ArchiveAdded: []remit.ArchiveFile{{Path: "p1", System: id, Hour: at.Truncate(time.Hour), Rows: 3}},
	}
	if err := s.Checkpoint(ctx, c); err != nil {
		t.Fatal(err)
	}
	finding.EventCount, finding.Last = 5, at.Add(2*time.Minute)
	err := s.Checkpoint(ctx, remit.Checkpoint{
		Now:       at.Add(2 * time.Hour),
		Positions: []remit.Position{{Source: "queue", Offset: 9}},
		Presences: []remit.Presence{{System: id, Identity: who, Actor: ref, Principal: "p", First: at, Last: at.Add(time.Minute), Count: 5}},
		Usage:     []remit.Usage{use(2, at.Add(-time.Minute))}, LineageEnded: []remit.Lineage{{System: id, Credential: "JTI=2"}},
		Seen:     []remit.SeenChunk{{System: id, Hour: 9, IDs: []byte("abcdefgh")}},
		States:   []remit.State{{Kind: "baseline", Key: "k"}},
		Findings: []remit.Finding{finding}, ArchiveAdded: []remit.ArchiveFile{{Path: "p2", System: id, Hour: at.Truncate(time.Hour), Rows: 5}}, ArchiveGone: []string{"p1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	must := func(what string, ok bool, err error) {
		t.Helper()
		if err != nil || !ok {
			t.Errorf("%s: %t, %v", what, ok, err)
		}
	}
	positions, err := s.Positions(ctx)
	must("position", len(positions) == 1 && positions[0].Offset == 9, err)
	presences, _, err := s.Presences(ctx, remit.ActivityFilter{Identities: []remit.ID{who}}, remit.PageRequest{})
	must("presence", len(presences) == 1 && presences[0].Count == 5 && presences[0].Actor == ref, err)
	usage, _, err := s.Usage(ctx, remit.ActivityFilter{System: id, Bindings: []remit.Ref{{Kind: "RoleBinding", Name: "b"}}}, remit.PageRequest{})
	must("usage", len(usage) == 1 && usage[0].Count == 5 && usage[0].First.Equal(at.Add(-time.Minute)) && usage[0].Last.Equal(at) && usage[0].Resource == ref, err)
	whole := use(5, at.Add(-time.Minute))
	whole.Last = at
	usage, _, err = s.Usage(ctx, remit.ActivityFilter{Identities: []remit.ID{who}, Roots: []string{whole.Root}}, remit.PageRequest{})
	must("usage of one", len(usage) == 1 && usage[0] == whole, err)
	usage, _, err = s.Usage(ctx, remit.ActivityFilter{Identities: []remit.ID{remit.IdentityID(id, remit.Ref{Name: "nobody"}), who}}, remit.PageRequest{})
	must("usage of two", len(usage) == 1 && usage[0] == whole, err)
	usage, _, err = s.Usage(ctx, remit.ActivityFilter{Identities: []remit.ID{remit.IdentityID(id, remit.Ref{Name: "nobody"})}}, remit.PageRequest{})
	must("usage of nobody", len(usage) == 0, err)
	lineage, _, err := s.Lineage(ctx, remit.ActivityFilter{System: id, Roots: []string{"JTI=1"}}, remit.PageRequest{})
	must("lineage", len(lineage) == 1 && lineage[0].Credential == "JTI=1", err)
	forks, _, err := s.Lineage(ctx, remit.ActivityFilter{Forked: true, Credentials: []string{"JTI=1"}}, remit.PageRequest{})
	must("forks", len(forks) == 1, err)
	seen, err := s.Seen(ctx, id, 9)
	must("seen", len(seen) == 2 && string(seen[0].IDs) == "12345678" && string(seen[1].IDs) == "abcdefgh", err)
	states, err := s.States(ctx, "", "baseline", "")
	must("a state that was removed", len(states) == 0, err)
	states, err = s.States(ctx, id, "baseline", "k")
	must("state", len(states) == 1 && states[0].Key == "k" && bytes.Equal(states[0].Data, []byte{2}), err)
	files, err := s.ArchiveFiles(ctx, id, at.Add(-time.Hour), at.Add(time.Hour))
	must("manifest", len(files) == 1 && files[0].Path == "p2" && files[0].Rows == 5, err)
	findings, _, err := s.Findings(ctx, remit.FindingFilter{System: id}, remit.PageRequest{})
	must("finding", len(findings) == 1 && findings[0].EventCount == 5 && findings[0].First.Equal(at) && findings[0].Last.Equal(at.Add(2*time.Minute)) &&
		findings[0].State == remit.Open && slices.Equal(findings[0].Credentials, []string{"JTI=1"}), err)
}

// testActivityLists walks a long list page by page: each entry once.
func testActivityLists(t *testing.T, s Store) {
	ctx := t.Context()
	id := remit.SystemID("kubernetes", "long")
	const n = 2500
	var c remit.Checkpoint
	for i := range n {
		c.Lineage = append(c.Lineage, remit.Lineage{System: id, Credential: fmt.Sprint("JTI=", i), Root: "r"})
	}
	if err := s.Checkpoint(ctx, c); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	page := remit.PageRequest{Limit: 700}
	for {
		some, next, err := s.Lineage(ctx, remit.ActivityFilter{System: id}, page)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range some {
			if seen[l.Credential] {
				t.Fatalf("%s comes twice", l.Credential)
			}
			seen[l.Credential] = true
		}
		if next == "" {
			break
		}
		page.After = next
	}
	if len(seen) != n {
		t.Errorf("%d of %d", len(seen), n)
	}
	if _, _, err := s.Usage(ctx, remit.ActivityFilter{System: id}, remit.PageRequest{After: "nonsense"}); remit.KindOf(err) != remit.Invalid {
		t.Errorf("a cursor of nothing: %v", err)
	}
}
