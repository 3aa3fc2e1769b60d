package report

import (
	"bytes"
	"context"
	"io"
	"iter"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"remit"
)

func TestLists(t *testing.T) {
	d := sample()
	for name, write := range map[string]func(io.Writer, TableOptions) error{
		"list-identities": func(w io.Writer, o TableOptions) error { return WriteIdentities(w, Records(d.Identities), o) },
		"list-credentials": func(w io.Writer, o TableOptions) error {
			return WriteCredentials(w, Records(d.Credentials), sampleTime, o)
		},
		"list-grants":   func(w io.Writer, o TableOptions) error { return WriteGrants(w, Records(d.Grants), o) },
		"list-findings": func(w io.Writer, o TableOptions) error { return WriteFindings(w, Records(d.Findings), o) },
	} {
		for _, width := range []int{0, 100} {
			var b bytes.Buffer
			if err := write(&b, TableOptions{Width: width}); err != nil {
				t.Fatal(err)
			}
			golden(t, name+"-"+strconv.Itoa(width)+".txt", b.Bytes())
		}
	}
	var b bytes.Buffer
	if err := WriteGrants(&b, Records([]remit.Grant{}), TableOptions{}); err != nil || b.String() != "No grants.\n" {
		t.Errorf("an empty list: %q, %v", b.String(), err)
	}
}

// A pipe gets every name whole, also those wider than the first records.
func TestListForPipeCutsNothing(t *testing.T) {
	var identities []remit.Identity
	for range listSample {
		identities = append(identities, remit.Identity{Record: remit.Record{Ref: remit.Ref{Name: "short"}}})
	}
	long := strings.Repeat("long", 100)
	identities = append(identities, remit.Identity{Record: remit.Record{Ref: remit.Ref{Name: long}}})
	var b bytes.Buffer
	if err := WriteIdentities(&b, Records(identities), TableOptions{}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), long) {
		t.Error("a long name was cut")
	}
}

// paged is a store that holds a document and answers in pages of two.
type paged struct {
	remit.InventoryReader
	remit.FindingStore
	d *Document
}

func pageOf[T any](all []T, after string) ([]T, string, error) {
	at, _ := strconv.Atoi(after)
	end := min(at+2, len(all))
	next := ""
	if end < len(all) {
		next = strconv.Itoa(end)
	}
	return all[at:end], next, nil
}

func (p paged) Systems(context.Context) ([]remit.System, error) { return p.d.Systems, nil }

func (p paged) Identities(_ context.Context, _ remit.Filter, r remit.PageRequest) ([]remit.Identity, string, error) {
	return pageOf(p.d.Identities, r.After)
}

func (p paged) Credentials(_ context.Context, _ remit.Filter, r remit.PageRequest) ([]remit.Credential, string, error) {
	return pageOf(p.d.Credentials, r.After)
}

func (p paged) Roles(_ context.Context, _ remit.Filter, r remit.PageRequest) ([]remit.Role, string, error) {
	return pageOf(p.d.Roles, r.After)
}

func (p paged) Grants(_ context.Context, _ remit.Filter, r remit.PageRequest) ([]remit.Grant, string, error) {
	return pageOf(p.d.Grants, r.After)
}

func (p paged) Relations(_ context.Context, _ remit.Filter, r remit.PageRequest) ([]remit.Relation, string, error) {
	return pageOf(p.d.Relations, r.After)
}

func (p paged) Resources(_ context.Context, _ remit.Filter, r remit.PageRequest) ([]remit.Resource, string, error) {
	return pageOf(p.d.Resources, r.After)
}

func (p paged) Findings(_ context.Context, _ remit.FindingFilter, r remit.PageRequest) ([]remit.Finding, string, error) {
	return pageOf(p.d.Findings, r.After)
}

func TestFromStore(t *testing.T) {
	d := sample()
	store := paged{d: d}
	src := FromStore(context.Background(), Header{Generated: d.Generated, Version: d.Remit}, store, store, StoreFilter{})
	var fromStore, fromDocument bytes.Buffer
	if err := WriteJSON(&fromStore, src); err != nil {
		t.Fatal(err)
	}
	if err := WriteJSON(&fromDocument, d.Source()); err != nil {
		t.Fatal(err)
	}
	if fromStore.String() != fromDocument.String() {
		t.Error("a store gives another document than the same records in memory")
	}
	src = FromStore(context.Background(), Header{}, store, store, StoreFilter{Inventory: remit.Filter{System: "sys_other"}})
	if systems, err := collect(src.Systems()); err != nil || len(systems) != 0 {
		t.Errorf("systems %v, %v", systems, err)
	}
}

// The groups come the worst first and lose nothing, also when one of them is too
// large to be held.
func TestEachGroup(t *testing.T) {
	d := &Document{}
	for n := range heldFindings + 10 {
		d.Findings = append(d.Findings, remit.Finding{ID: remit.ID(strconv.Itoa(n)), Policy: "large", Severity: remit.Low})
	}
	for _, s := range remit.Severities {
		d.Findings = append(d.Findings, remit.Finding{Policy: "small", Severity: s}, remit.Finding{Policy: "small", Severity: s, State: remit.Resolved})
	}
	tally := newTally(sampleTime)
	if err := tally.all(d.Source()); err != nil {
		t.Fatal(err)
	}
	var order []string
	err := eachGroup(d.Source(), tally.sorted(), func(g *group, findings iter.Seq2[remit.Finding, error]) error {
		list, err := collect(findings)
		order = append(order, string(g.severity)+" "+g.policy+" "+strconv.Itoa(len(list)))
		return err
	})
	want := []string{"critical small 1", "high small 1", "medium small 1", "low large " + strconv.Itoa(heldFindings+10), "low small 1", "info small 1"}
	if err != nil || !reflect.DeepEqual(order, want) {
		t.Errorf("%q, %v, want %q", order, err, want)
	}
}
