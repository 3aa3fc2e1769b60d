// Package report renders what Remit found, for people and for programs: the
// table of a scan in a terminal, the explanation of one identity, lists of the
// inventory, and the documents that other tools read (JSON, SARIF, CSV) or
// people print (HTML).
//
// Every writer reads a [Source], a set of iterators, and holds no more of it
// than it must, so that a scan of hundreds of thousands of records is written in
// bounded memory. What grows with the scan is one small counter for each
// identity that has findings; texts are never held beyond a batch.
//
// Everything in a record is data from outside and may be hostile. In text and
// CSV, what a terminal could act on or a reader could not see is spelled out by
// [Visible]; in JSON and SARIF it is escaped; in HTML it is spelled out and
// escaped by html/template.
package report

import (
	"context"
	"iter"
	"slices"
	"time"

	"remit"
)

// Source is what a scan found. Writers go over an iterator as often as they
// need to, so each call of a method must yield the same records in the same
// order. A pair with an error ends the iteration, and the writer fails with that
// error. A Source need not be safe for concurrent use; the writers use none.
type Source interface {
	Header() Header
	Systems() iter.Seq2[remit.System, error]
	Identities() iter.Seq2[remit.Identity, error]
	Credentials() iter.Seq2[remit.Credential, error]
	Roles() iter.Seq2[remit.Role, error]
	Grants() iter.Seq2[remit.Grant, error]
	Relations() iter.Seq2[remit.Relation, error]
	Resources() iter.Seq2[remit.Resource, error]
	Findings() iter.Seq2[remit.Finding, error]
}

// Header is what a report says of itself.
type Header struct {
	Generated time.Time // when; also the time against which ages are told
	Version   string    // of Remit
}

// Records makes an iterator over records that are already in memory.
func Records[T any](records []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, r := range records {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// StoreFilter chooses what [FromStore] reads. Its zero value reads everything
// that is known now.
type StoreFilter struct {
	Inventory remit.Filter        // for every kind of record
	Findings  remit.FindingFilter // for findings
}

// FromStore reads a report's records out of a store, a page at a time. Where
// the filters name a system, only that system is in the report.
func FromStore(ctx context.Context, h Header, inventory remit.InventoryReader, findings remit.FindingStore, f StoreFilter) Source {
	if f.Findings.System == "" {
		f.Findings.System = f.Inventory.System
	}
	return &storeSource{ctx: ctx, header: h, inventory: inventory, findings: findings, filter: f}
}

// storeSource keeps ctx because an iterator has no other way to be given one.
type storeSource struct {
	ctx       context.Context
	header    Header
	inventory remit.InventoryReader
	findings  remit.FindingStore
	filter    StoreFilter
}

func (s *storeSource) Header() Header { return s.header }

func (s *storeSource) Systems() iter.Seq2[remit.System, error] {
	return func(yield func(remit.System, error) bool) {
		systems, err := s.inventory.Systems(s.ctx)
		if err != nil {
			yield(remit.System{}, err)
			return
		}
		for _, system := range systems {
			if s.filter.Inventory.System != "" && system.ID != s.filter.Inventory.System {
				continue
			}
			if !yield(system, nil) {
				return
			}
		}
	}
}

func (s *storeSource) Identities() iter.Seq2[remit.Identity, error] {
	return pages(s.ctx, s.filter.Inventory, s.inventory.Identities)
}

func (s *storeSource) Credentials() iter.Seq2[remit.Credential, error] {
	return pages(s.ctx, s.filter.Inventory, s.inventory.Credentials)
}

func (s *storeSource) Roles() iter.Seq2[remit.Role, error] {
	return pages(s.ctx, s.filter.Inventory, s.inventory.Roles)
}

func (s *storeSource) Grants() iter.Seq2[remit.Grant, error] {
	return pages(s.ctx, s.filter.Inventory, s.inventory.Grants)
}

func (s *storeSource) Relations() iter.Seq2[remit.Relation, error] {
	return pages(s.ctx, s.filter.Inventory, s.inventory.Relations)
}

func (s *storeSource) Resources() iter.Seq2[remit.Resource, error] {
	return pages(s.ctx, s.filter.Inventory, s.inventory.Resources)
}

func (s *storeSource) Findings() iter.Seq2[remit.Finding, error] {
	return pages(s.ctx, s.filter.Findings, s.findings.Findings)
}

// pages goes through a paged list of a store.
func pages[F, T any](ctx context.Context, filter F, list func(context.Context, F, remit.PageRequest) ([]T, string, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		// Sorted by ID, two reports of an unchanged system are equal.
		request := remit.PageRequest{Limit: 1000, Sort: "id"}
		for {
			records, next, err := list(ctx, filter, request)
			if err != nil {
				var zero T
				yield(zero, err)
				return
			}
			for _, r := range records {
				if !yield(r, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			request.After = next
		}
	}
}

// collect reads a short iterator into memory.
func collect[T any](seq iter.Seq2[T, error]) ([]T, error) {
	var all []T
	for v, err := range seq {
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// best keeps the limit records that come first by compare, whatever the length
// of the list they are picked from.
type best[T any] struct {
	limit   int
	compare func(a, b T) int
	kept    []T
}

func (b *best[T]) add(v T) {
	if len(b.kept) == b.limit && (b.limit == 0 || b.compare(v, b.kept[b.limit-1]) >= 0) {
		return
	}
	at, _ := slices.BinarySearchFunc(b.kept, v, b.compare)
	if len(b.kept) == b.limit {
		b.kept = b.kept[:b.limit-1]
	}
	b.kept = slices.Insert(b.kept, at, v)
}
