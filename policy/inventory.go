package policy

import (
	"context"
	"time"

	"remit"
)

// Inventory is what an evaluation reads: a part of [remit.InventoryReader].
type Inventory interface {
	Systems(ctx context.Context) ([]remit.System, error)
	Identities(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Identity, string, error)
	Credentials(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Credential, string, error)
	Roles(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Role, string, error)
	Grants(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Grant, string, error)
	Relations(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Relation, string, error)
	Resources(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Resource, string, error)
}

// Findings is where an evaluation keeps what it finds: a part of
// [remit.FindingStore].
type Findings interface {
	PutFindings(ctx context.Context, now time.Time, findings []remit.Finding) (remit.FindingChanges, error)
	ResolveFindings(ctx context.Context, scope remit.FindingScope, since, now time.Time) (remit.FindingChanges, error)
}

// lister is one of the inventory's lists.
type lister[T any] func(context.Context, remit.Filter, remit.PageRequest) ([]T, string, error)

// drain reads all of a list.
func drain[T any](ctx context.Context, list lister[T], f remit.Filter, each func(*T)) error {
	return pages(ctx, list, f, 1000, func(all []T) error {
		for i := range all {
			each(&all[i])
		}
		return nil
	})
}

// pages reads a list page by page, in the order of names, which stays the same
// while records come and go, and in which the store has neighbours together.
func pages[T any](ctx context.Context, list lister[T], f remit.Filter, size int, each func([]T) error) error {
	page := remit.PageRequest{Limit: size, Sort: "name"}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		all, next, err := list(ctx, f, page)
		if err != nil {
			return err
		}
		if err := each(all); err != nil {
			return err
		}
		if next == "" {
			return nil
		}
		page.After = next
	}
}

// chunks cuts a list of IDs for filters; databases limit the values of a query.
func chunks(ids []remit.ID, each func([]remit.ID) error) error {
	const size = 500
	for len(ids) > 0 {
		n := min(size, len(ids))
		if err := each(ids[:n:n]); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

// cache keeps the last entries that were asked for: two generations, of which
// the older is dropped when the newer is full. It bounds memory without a list
// to keep in order.
type cache[V any] struct {
	limit    int
	now, old map[remit.ID]V
}

func newCache[V any](limit int) *cache[V] {
	return &cache[V]{limit: limit, now: map[remit.ID]V{}}
}

func (c *cache[V]) get(id remit.ID) (V, bool) {
	if v, ok := c.now[id]; ok {
		return v, true
	}
	v, ok := c.old[id]
	if ok {
		c.put(id, v)
	}
	return v, ok
}

func (c *cache[V]) put(id remit.ID, v V) {
	if len(c.now) >= c.limit {
		c.old, c.now = c.now, map[remit.ID]V{}
	}
	c.now[id] = v
}
