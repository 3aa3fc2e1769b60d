package sqlstore

import (
	"context"

	"remit"
)

// rowColumns are the columns of a kind's current table in the order in which
// row fills them. A row that replaces another begins with its key; a new one,
// with its ID.
func rowColumns[T any](t *tx, k *kind[T], withKey bool) []columnShape {
	columns := make([]columnShape, 0, 18+len(k.columns))
	if withKey {
		columns = append(columns, columnShape{name: "key", typ: intColumn})
	}
	columns = append(columns, sharedColumns...)
	columns = append(columns, k.shapes()...)
	columns = append(columns, columnShape{name: "hash", typ: blobColumn}, columnShape{name: "doc", typ: textColumn})
	if t.wordsInRow() {
		columns = append(columns, columnShape{name: "words", typ: wordsColumn})
	}
	return columns
}

// sharedColumns are those of every kind, current and former.
var sharedColumns = []columnShape{
	{name: "id", typ: textColumn},
	{name: "system", typ: intColumn},
	{name: "section", typ: textColumn},
	{name: "valid_from", typ: intColumn},
	{name: "learned_at", typ: intColumn},
	{name: "kind", typ: textColumn},
	{name: "namespace", typ: textColumn},
	{name: "name", typ: textColumn},
	{name: "environment", typ: textColumn},
	{name: "built_in", typ: smallColumn},
	{name: "created", typ: intColumn},
}

// row fills the columns of rowColumns; key 0 is a new row.
func row[T any](c *change, k *kind[T], columns []columnShape, in *incoming[T], key, from int64) []any {
	out := make([]any, 0, len(columns))
	if key != 0 {
		out = append(out, key)
	}
	out = appendShared(out, k, &in.record, c.run.key, c.section, from, micros(c.learned))
	out = append(out, in.hash[:], in.doc)
	if c.wordsInRow() {
		out = append(out, indexedWords(k.record(&in.record).Name))
	}
	return out
}

func appendShared[T any](out []any, k *kind[T], r *T, system int64, section string, from, learned int64) []any {
	rec := k.record(r)
	out = append(
		out, string(rec.ID), system, section, from, learned,
		columnText(rec.Kind), columnText(rec.Namespace), columnText(rec.Name),
		columnText(rec.Environment), boolInt(rec.BuiltIn), micros(rec.Created),
	)
	for _, col := range k.columns {
		out = append(out, col.value(r))
	}
	return out
}

// retire writes versions to the history, each with its end.
func retire[T any](ctx context.Context, c *change, k *kind[T], list []*current[T], ends []int64, removed bool) error {
	columns := append([]columnShape{}, sharedColumns...)
	columns = append(columns, k.shapes()...)
	columns = append(
		columns,
		columnShape{name: "valid_to", typ: intColumn},
		columnShape{name: "removed", typ: smallColumn},
		columnShape{name: "doc", typ: textColumn},
	)
	rows := make([][]any, len(list))
	for i, have := range list {
		out := make([]any, 0, len(columns))
		out = appendShared(out, k, &have.record, have.system, have.section, have.validFrom, have.learnedAt)
		rows[i] = append(out, ends[i], boolInt(removed), have.doc)
	}
	return c.insert(ctx, c.tx, k.history(), columns, rows, "", nil)
}

func appendOwners[T any](out [][]any, k *kind[T], r *T, key int64) [][]any {
	if k.owners == nil {
		return out
	}
	owners := k.owners(r)
	for i, o := range owners {
		if !claimedBefore(owners[:i], o.Name) {
			out = append(out, []any{columnText(o.Name), key})
		}
	}
	return out
}

// claimedBefore says whether a name is among owners, by what its column holds.
func claimedBefore(owners []remit.Owner, name string) bool {
	for _, o := range owners {
		if o.Name == name || columnText(o.Name) == columnText(name) {
			return true
		}
	}
	return false
}

func putOwners(ctx context.Context, c *change, rows [][]any) error {
	columns := []columnShape{{name: "owner", typ: textColumn}, {name: "identity", typ: intColumn}}
	return c.insert(ctx, c.tx, "identity_owners", columns, rows, "", nil)
}
