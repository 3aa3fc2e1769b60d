package connectortest

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"remit"
	"remit/connector"
)

// shelf is a store in memory with just the rules of remit.InventoryRun: a
// record belongs to the section that it was last seen in, and only a section
// that was begun and completed removes what it did not show.
type shelf struct {
	t         testing.TB
	connector connector.Connector
	volatile  func(any)

	mu        sync.Mutex
	records   map[remit.ID]shelved
	sections  map[string]bool
	open      map[string]map[remit.ID]bool // shown since Begin
	completed map[string]bool
	shown     map[remit.ID]bool
	gaps      []remit.Gap
	pages     int
	inside    bool
}

// shelved is one record on the shelf.
type shelved struct {
	kind    remit.RecordKind
	section string
	record  remit.Record
	json    string
	refers  []remit.ID
}

func newShelf(t testing.TB, c connector.Connector, volatile func(any)) *shelf {
	if volatile == nil {
		volatile = func(any) {}
	}
	return &shelf{
		t: t, connector: c, volatile: volatile,
		records: map[remit.ID]shelved{}, sections: map[string]bool{}, open: map[string]map[remit.ID]bool{},
		completed: map[string]bool{}, shown: map[remit.ID]bool{},
	}
}

// preload puts what another shelf holds on this one.
func (sh *shelf) preload(other *shelf) {
	for id, r := range other.records {
		sh.records[id] = r
	}
}

// take is the connector.Emit of the shelf.
func (sh *shelf) take(_ context.Context, page connector.Page) error {
	sh.mu.Lock()
	if sh.inside {
		sh.t.Error("emit is called from two goroutines at a time")
	}
	sh.inside = true
	sh.mu.Unlock()
	defer func() {
		sh.mu.Lock()
		sh.inside = false
		sh.mu.Unlock()
	}()
	sh.mu.Lock()
	defer sh.mu.Unlock()

	sh.pages++
	if page.Section == "" {
		sh.t.Error("a page without a section")
	}
	if page.Begin {
		sh.sections[page.Section] = true
		sh.open[page.Section] = map[remit.ID]bool{}
		delete(sh.completed, page.Section)
		kept := sh.gaps[:0]
		for _, gap := range sh.gaps {
			if gap.Section != page.Section {
				kept = append(kept, gap)
			}
		}
		sh.gaps = kept
	}
	if page.Gap != nil {
		if page.Complete {
			sh.t.Errorf("section %s completes with a gap", page.Section)
		}
		if page.Gap.Section != page.Section || page.Gap.Reason == "" {
			sh.t.Errorf("section %s has the gap %+v", page.Section, *page.Gap)
		}
		sh.gaps = append(sh.gaps, *page.Gap)
	}
	for i := range page.Records.Identities {
		r := &page.Records.Identities[i]
		sh.put(page.Section, remit.KindIdentity, r.Record, r)
	}
	for i := range page.Records.Credentials {
		r := &page.Records.Credentials[i]
		sh.put(page.Section, remit.KindCredential, r.Record, r, r.Identity, r.Location)
	}
	for i := range page.Records.Roles {
		r := &page.Records.Roles[i]
		sh.put(page.Section, remit.KindRole, r.Record, r)
	}
	for i := range page.Records.Grants {
		r := &page.Records.Grants[i]
		refers := []remit.ID{r.Identity}
		if r.Status == remit.Active {
			refers = append(refers, r.Role)
		}
		sh.put(page.Section, remit.KindGrant, r.Record, r, refers...)
	}
	for i := range page.Records.Relations {
		r := &page.Records.Relations[i]
		refers := []remit.ID{r.From, r.Via}
		if r.Type == remit.CanActAs || r.Type == remit.MemberOf || r.Type == remit.RunsAs {
			refers = append(refers, r.To)
		}
		sh.put(page.Section, remit.KindRelation, r.Record, r, refers...)
	}
	for i := range page.Records.Resources {
		r := &page.Records.Resources[i]
		sh.put(page.Section, remit.KindResource, r.Record, r)
	}
	for _, id := range page.Deleted {
		delete(sh.records, id)
	}
	if page.Complete {
		shown, ok := sh.open[page.Section]
		if !ok {
			sh.t.Errorf("section %s completes without having begun", page.Section)
			return nil
		}
		for id, r := range sh.records {
			if r.section == page.Section && !shown[id] {
				delete(sh.records, id)
			}
		}
		delete(sh.open, page.Section)
		sh.completed[page.Section] = true
	}
	return nil
}

func (sh *shelf) put(section string, kind remit.RecordKind, r remit.Record, record any, refers ...remit.ID) {
	sh.volatile(record)
	text, err := json.Marshal(record)
	if err != nil {
		sh.t.Errorf("%s %s cannot be written down: %v", r.ID, r.Ref, err)
	}
	if _, ok := sh.open[section]; ok {
		sh.open[section][r.ID] = true
	}
	sh.shown[r.ID] = true
	sh.records[r.ID] = shelved{kind: kind, section: section, record: r, json: string(text), refers: refers}
}

// checkReferences reports references to records of the system that are not
// there.
func (sh *shelf) checkReferences() {
	for id, r := range sh.records {
		for _, to := range r.refers {
			if to == "" {
				continue
			}
			if _, ok := sh.records[to]; !ok {
				sh.t.Errorf("%s %s (section %s) refers to %s, which was not found: %s", id, r.record.Ref, r.section, to, r.json)
			}
		}
	}
}

// openGaps are the gaps that were not closed.
func (sh *shelf) openGaps() []remit.Gap {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return append([]remit.Gap(nil), sh.gaps...)
}

// sectionSuffers says whether a section was not completed.
func (sh *shelf) sectionSuffers(section string) bool { return !sh.completed[section] }

// compare reports how two shelves differ.
func (sh *shelf) compare(t testing.TB, other *shelf, name, otherName string) {
	t.Helper()
	for i, d := range sh.differences(other, name, otherName) {
		if i == 20 {
			t.Error("and more")
			return
		}
		t.Error(d)
	}
}

func (sh *shelf) differences(other *shelf, name, otherName string) []string {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	other.mu.Lock()
	defer other.mu.Unlock()
	var out []string
	for id, a := range sh.records {
		b, ok := other.records[id]
		switch {
		case !ok:
			out = append(out, fmt.Sprintf("%s has %s %s (section %s), and %s does not: %s", name, a.kind, a.record.Ref, a.section, otherName, a.json))
		case a.json != b.json:
			out = append(out, fmt.Sprintf("%s %s differs:\n%s: %s\n%s: %s", a.kind, a.record.Ref, name, a.json, otherName, b.json))
		}
	}
	for id, b := range other.records {
		if _, ok := sh.records[id]; !ok {
			out = append(out, fmt.Sprintf("%s has %s %s (section %s), and %s does not: %s", otherName, b.kind, b.record.Ref, b.section, name, b.json))
		}
	}
	return out
}
