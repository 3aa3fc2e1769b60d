package sqlstore

import (
	"context"
	"database/sql"
	"slices"
	"strings"
)

// probeLimit is up to how many rows a filter's own index is taken and the rows
// sorted. Beyond it the list is walked in its order and the filter tested row
// by row. Of N rows that a walk passes, a filter that more than probeLimit of
// them meet fills a page of n within about n·N/probeLimit rows: 15,000 for a
// page of a hundred of three million, as much work as sorting probeLimit rows.
//
// A variable for the tests, which hold few rows and must walk all the same.
var probeLimit = 20_000

// walkChunk is how many rows are read at once where keep may drop some.
const walkChunk = 1000

// source is a table to list from.
type source struct {
	table  string
	former bool   // a history
	value  string // what is read of a row
	terms  []term
	scope  scope

	// keep tests a record where no column tells, by its name as the column
	// holds it and by what is read of the row; nil keeps all.
	keep func(name string, doc []byte) (bool, error)
}

// scope is the column that the indexes of most orders begin with, and its
// values: a list is the merge of one walk for each.
type scope struct {
	column string
	keys   []int64  // the values, of a column of numbers
	texts  []string // or of a column of texts
}

func (s scope) size() int { return len(s.keys) + len(s.texts) }

// part is the term for value i.
func (s scope) part(i int) term {
	t := term{sql: "{} = ?", columns: []string{s.column}}
	if s.keys != nil {
		t.args = []any{s.keys[i]}
	} else {
		t.args = []any{s.texts[i]}
	}
	return t
}

// whole is the term for all values.
func (s scope) whole(e engine) term {
	t := term{sql: e.in("{}"), columns: []string{s.column}}
	if s.keys != nil {
		t.args = []any{e.keys(s.keys)}
	} else {
		t.args = []any{e.texts(s.texts)}
	}
	return t
}

// list returns the first limit rows of the sources behind a position, in
// order.
func (r *reader) list(ctx context.Context, sources []source, o order, after []any, limit int) ([]hit, error) {
	var all []hit
	for _, src := range sources {
		if src.scope.size() == 0 {
			continue
		}
		driver, err := r.driver(ctx, src)
		if err != nil {
			return nil, err
		}
		for _, l := range r.lanes(src, o, driver, after) {
			hits, err := r.walk(ctx, src, l.part, driver, l.order, l.after, limit)
			if err != nil {
				return nil, err
			}
			for i := range hits {
				hits[i].position = append(slices.Clone(l.prefix), hits[i].position...)
			}
			all = mergeHits(all, hits, limit)
		}
	}
	return all, nil
}

// lane is one walk of those that a list merges.
type lane struct {
	part   term
	order  order
	after  []any
	prefix []any // of the list's positions, where the lane's order leaves it out
}

// lanes returns the walks over a source: one along a driver's index, else one
// for each value of the scope.
func (r *reader) lanes(src source, o order, driver int, after []any) []lane {
	whole := src.scope.whole(r.engine)
	if driver >= 0 || !o.scoped {
		return []lane{{part: whole, order: o, after: after}}
	}
	var out []lane
	ends := o.ends && !src.former
	if ended := ends && after != nil && after[0] == int64(forever); !ended {
		for i := range src.scope.size() {
			part := src.scope.part(i)
			if ends {
				part.sql += " AND " + ending
			}
			out = append(out, lane{part: part, order: o, after: after})
		}
	}
	if ends {
		whole.sql += " AND " + endless
		rest := lane{part: whole, order: orderIDs, prefix: []any{int64(forever)}}
		if after != nil && after[0] == int64(forever) {
			rest.after = after[1:]
		}
		out = append(out, rest)
	}
	return out
}

// driver returns which term chooses few rows by its index, or -1.
func (r *reader) driver(ctx context.Context, src source) (int, error) {
	index := inCurrent
	if src.former {
		index = inFormer
	}
	for i, t := range src.terms {
		if t.served&index == 0 {
			continue
		}
		limit, n := probeLimit, 0
		if t.limit > 0 {
			limit = min(limit, t.limit)
		}
		query, args := probe(r.engine, src, t)
		err := r.query(ctx, query, append(args, limit+1), func(rows *sql.Rows) error {
			return rows.Scan(&n)
		})
		if err != nil {
			return -1, err
		}
		if n <= limit {
			return i, nil
		}
	}
	return -1, nil
}

// probe counts the rows of a term in its index, up to a limit, the last
// parameter.
func probe(e engine, src source, t term) (query string, args []any) {
	args = append([]any{}, t.args...)
	if t.probe != "" {
		return "SELECT count(*) FROM (" + t.probe + " LIMIT ?) AS few", args
	}
	where := t.write(e, false)
	if t.served&inScope != 0 {
		whole := src.scope.whole(e)
		where, args = whole.write(e, false)+" AND "+where, append(append([]any{}, whole.args...), args...)
	}
	return "SELECT count(*) FROM (SELECT 1 FROM " + src.table + " WHERE " + where + " LIMIT ?) AS few", args
}

// walk reads rows in order until limit have been kept: along the index of the
// order, or, with a driver, along the driver's.
func (r *reader) walk(ctx context.Context, src source, part term, driver int, o order, after []any, limit int) ([]hit, error) {
	chunk := limit
	if src.keep != nil {
		chunk = max(limit, walkChunk)
	}
	var hits []hit
	for {
		query, args := walkQuery(r.engine, src, part, driver, o, after...)
		n := 0
		var last []any
		err := r.query(ctx, query, append(args, chunk), func(rows *sql.Rows) error {
			h, name, err := scanHit(rows, o)
			if err != nil {
				return err
			}
			n, last = n+1, h.position
			if len(hits) == limit {
				return nil
			}
			if src.keep != nil {
				if ok, err := src.keep(name, h.doc); !ok {
					return err
				}
			}
			hits = append(hits, h)
			return nil
		})
		if err != nil || n < chunk || len(hits) == limit {
			return hits, err
		}
		after = last
	}
}

// walkQuery is the statement of a walk; its last parameter is a limit.
func walkQuery(e engine, src source, part term, driver int, o order, after ...any) (query string, args []any) {
	plain := func(c string) string { return c }
	ordered := plain
	scopeHidden := !o.scoped
	if driver >= 0 {
		ordered = e.hide
		scopeHidden = src.terms[driver].served&inScope == 0
	}
	var where strings.Builder
	where.WriteString(part.write(e, scopeHidden))
	args = append(args, part.args...)
	for i, t := range src.terms {
		if t.loose && i != driver {
			continue
		}
		where.WriteString(" AND ")
		where.WriteString(t.write(e, i != driver))
		args = append(args, t.args...)
	}
	if after != nil {
		if len(o.columns) == 1 {
			where.WriteString(" AND " + o.list(ordered) + " > ?")
		} else {
			where.WriteString(" AND (" + o.list(ordered) + ") > (" + strings.Repeat("?, ", len(o.columns)-1) + "?)")
		}
		args = append(args, after...)
	}
	return "SELECT " + o.list(plain) + ", name, " + src.value + " FROM " + src.table + " WHERE " + where.String() +
		" ORDER BY " + o.list(ordered) + " LIMIT ?", args
}

func scanHit(rows *sql.Rows, o order) (h hit, name string, err error) {
	h = hit{position: make([]any, len(o.columns))}
	texts, numbers := make([]string, len(o.columns)), make([]int64, len(o.columns))
	into := make([]any, 0, len(o.columns)+2)
	for i, c := range o.columns {
		if c.number {
			into = append(into, &numbers[i])
		} else {
			into = append(into, &texts[i])
		}
	}
	if err := rows.Scan(append(into, &name, &h.doc)...); err != nil {
		return h, "", err
	}
	for i, c := range o.columns {
		if c.number {
			h.position[i] = numbers[i]
		} else {
			h.position[i] = texts[i]
		}
	}
	return h, name, nil
}

// mergeHits merges two lists in order and keeps the first limit.
func mergeHits(a, b []hit, limit int) []hit {
	if len(a) == 0 {
		return b
	}
	out := make([]hit, 0, min(len(a)+len(b), limit))
	for len(out) < limit && (len(a) > 0 || len(b) > 0) {
		if len(b) == 0 || len(a) > 0 && compareHits(a[0], b[0]) <= 0 {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return out
}
