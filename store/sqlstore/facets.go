package sqlstore

import (
	"context"
	"database/sql"
	"slices"
	"strings"

	"remit"
)

// counter gathers by how much a transaction changes each facet count.
type counter map[facetKey]int64

type facetKey struct {
	system int64
	kind   remit.RecordKind
	facet  string
	value  string
}

// of returns a function that adds by to the count of a facet's value.
func (c counter) of(system int64, kind remit.RecordKind, by int64) func(facet, value string) {
	return func(facet, value string) {
		c[facetKey{system, kind, facet, storedText(value)}] += by
	}
}

var facetColumns = []columnShape{
	{name: "system", typ: intColumn},
	{name: "kind", typ: textColumn},
	{name: "facet", typ: textColumn},
	{name: "facet_key", typ: textColumn},
	{name: "value", typ: textColumn},
	{name: "n", typ: intColumn},
}

// addCount adds to a count that is there.
const addCount = " ON CONFLICT (system, kind, facet, facet_key) DO UPDATE SET n = facet_counts.n + excluded.n"

// write adds the differences to the counters, in one order, so that two
// transactions do not wait for each other.
func (c counter) write(ctx context.Context, t *tx) error {
	changed := make([]facetKey, 0, len(c))
	shrunk := false
	for k, by := range c {
		if by != 0 {
			changed = append(changed, k)
		}
		shrunk = shrunk || by < 0
	}
	if len(changed) == 0 {
		return nil
	}
	slices.SortFunc(changed, func(a, b facetKey) int {
		switch {
		case a.system < b.system:
			return -1
		case a.system > b.system:
			return 1
		}
		if n := strings.Compare(string(a.kind), string(b.kind)); n != 0 {
			return n
		}
		if n := strings.Compare(a.facet, b.facet); n != 0 {
			return n
		}
		return strings.Compare(a.value, b.value)
	})
	rows := make([][]any, len(changed))
	var systems []int64
	for i, k := range changed {
		rows[i] = []any{k.system, string(k.kind), k.facet, columnTextOf(k.value), k.value, c[k]}
		if n := len(systems); n == 0 || systems[n-1] != k.system {
			systems = append(systems, k.system)
		}
	}
	if err := t.insert(ctx, t, "facet_counts", facetColumns, rows, addCount, nil); err != nil {
		return err
	}
	if !shrunk {
		return nil
	}
	// Values that nothing has any more would pile up: namespaces come and go.
	return t.exec(ctx, "DELETE FROM facet_counts WHERE n = 0 AND "+t.in("system"), t.keys(systems))
}

// Counts answers from the counters; see [remit.InventoryReader]. Facets and
// their values come sorted. [remit.Invalid] when kind is not counted.
func (s *Store) Counts(ctx context.Context, kind remit.RecordKind, system remit.ID) ([]remit.FacetCount, error) {
	const op = "count records"
	switch kind {
	case remit.KindIdentity, remit.KindCredential, remit.KindRole, remit.KindGrant, remit.KindRelation, remit.KindResource:
		return s.counts(ctx, op, kind, system)
	}
	return nil, remit.Errorf(remit.Invalid, op, "no counts of %q: ask for identity, credential, role, grant, relation or resource", string(kind))
}

func (s *Store) counts(ctx context.Context, op string, kind remit.RecordKind, system remit.ID) ([]remit.FacetCount, error) {
	query := "SELECT facet, value, CAST(sum(n) AS bigint) FROM facet_counts WHERE kind = ?"
	args := []any{string(kind)}
	if system != "" {
		query += " AND system IN (SELECT key FROM systems WHERE id = ?)"
		args = append(args, columnText(string(system)))
	} else {
		query += " AND system IN (SELECT key FROM systems)" // the primary key begins with it
	}
	var out []remit.FacetCount
	err := s.read(ctx, op, func(r *reader) error {
		return r.query(ctx, query+" GROUP BY facet, value HAVING sum(n) > 0 ORDER BY facet, value", args, func(rows *sql.Rows) error {
			var c remit.FacetCount
			if err := rows.Scan(&c.Facet, &c.Value, &c.Count); err != nil {
				return err
			}
			c.Value = originalText(c.Value)
			out = append(out, c)
			return nil
		})
	})
	return out, err
}
