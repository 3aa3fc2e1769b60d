package sqlstore

import (
	"context"
	"database/sql"
	"time"

	"remit"
)

const (
	// sweepPage is how many keys of a section are looked at in one
	// transaction, and removePage how many records one removes.
	sweepPage  = 20_000
	removePage = 2_000
)

// sweeper removes the records of one kind that a listing did not show, a page
// of keys in each transaction, so that a section of millions neither fills the
// memory nor keeps other writers out.
func sweeper[T any](k *kind[T]) func(context.Context, *run, string, time.Time, *listing, *remit.Changes) error {
	return func(ctx context.Context, r *run, section string, learned time.Time, l *listing, sum *remit.Changes) error {
		for last, more := int64(0), true; more; {
			from := last
			c, err := r.change(ctx, "complete listing", section, learned, func(c *change) error {
				last = from // a transaction may run again
				var gone []int64
				var err error
				gone, last, more, err = unseen(ctx, c, k, l, from)
				if err != nil || len(gone) == 0 {
					return err
				}
				return remove(ctx, c, k, gone)
			})
			if err != nil {
				return err
			}
			sum.Removed += c.done.Removed
			sum.Touched = append(sum.Touched, c.done.Touched...)
		}
		return nil
	}
}

// unseen returns keys of the section behind the key after that the listing has
// not shown, the key that it came to, and whether there may be more.
func unseen[T any](ctx context.Context, c *change, k *kind[T], l *listing, after int64) (gone []int64, last int64, more bool, err error) {
	last = after
	n := 0
	query := "SELECT key FROM " + k.table() + " WHERE system = ? AND section = ? AND key > ? ORDER BY key LIMIT ?"
	err = c.query(ctx, query, []any{c.run.key, c.section, after, sweepPage}, func(rows *sql.Rows) error {
		var key int64
		if err := rows.Scan(&key); err != nil {
			return err
		}
		n++
		if len(gone) == removePage {
			return nil
		}
		last = key
		if !l.has(k.name, key) {
			gone = append(gone, key)
		}
		return nil
	})
	return gone, last, n == sweepPage || len(gone) == removePage, err
}

// deleter removes records of one kind by ID, where they are of the run's system.
func deleter[T any](k *kind[T]) func(context.Context, *change, map[remit.RecordKind][]string) error {
	return func(ctx context.Context, c *change, byKind map[remit.RecordKind][]string) error {
		ids := byKind[k.name]
		if len(ids) == 0 {
			return nil
		}
		var keys []int64
		query := "SELECT key FROM " + k.table() + " WHERE " + c.in("id") + " AND system = ?"
		err := c.query(ctx, query, []any{c.texts(ids), c.run.key}, func(rows *sql.Rows) error {
			var key int64
			err := rows.Scan(&key)
			keys = append(keys, key)
			return err
		})
		if err != nil || len(keys) == 0 {
			return err
		}
		return remove(ctx, c, k, keys)
	}
}

// remove takes records away; their last versions move to the history.
func remove[T any](ctx context.Context, c *change, k *kind[T], keys []int64) error {
	list := make([]*current[T], len(keys))
	for i, key := range keys {
		list[i] = &current[T]{key: key}
	}
	if err := readCurrent(ctx, c, k, list); err != nil {
		return err
	}
	ends := make([]int64, len(list))
	for i, have := range list {
		ends[i] = max(micros(c.learned), have.validFrom+1)
		k.countFacets(&have.record, c.counts.of(have.system, k.name, -1))
		c.touched[k.record(&have.record).ID] = struct{}{}
		if k.concerns != nil {
			k.concerns(&have.record, c.touch)
		}
	}
	c.done.Removed += len(list)
	if err := retire(ctx, c, k, list, ends, true); err != nil {
		return err
	}
	if err := c.dropWords(ctx, c.tx, k.table(), keys); err != nil {
		return err
	}
	return c.exec(ctx, "DELETE FROM "+k.table()+" WHERE "+c.in("key"), c.keys(keys))
}
