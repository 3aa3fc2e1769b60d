package sqlstore

import (
	"time"

	"remit"
)

// kind describes how one kind of record is kept. It is the only thing that
// tells the six kinds apart: everything else in the package is written once.
type kind[T any] struct {
	name   remit.RecordKind
	plural string // the name of its table: "grant" alone is a word of SQL

	record  func(*T) *remit.Record
	columns []column[T] // beside those that every record has
	times   func(*T) []*time.Time

	// facets are what is counted of it beside what every record has.
	facets func(*T, func(facet, value string))

	// concerns names the identities whose picture changes with the record.
	concerns func(*T, func(remit.ID))

	// owners are the names of who answers for it; nil for most kinds.
	owners func(*T) []remit.Owner
}

// column is one column of a kind's tables.
type column[T any] struct {
	columnShape
	value func(*T) any // string or int64, as the shape says
}

// columnShape is what the schema and the filters need to know of a column.
type columnShape struct {
	name string
	typ  columnType

	// index lists the columns of the index that serves filters on it ("" is
	// none), of the rows where holds only ("" is all).
	index, where string

	// reference says that it holds an ID, so it is looked up in the history
	// as well.
	reference bool
}

type columnType int

const (
	textColumn columnType = iota
	intColumn
	smallColumn // a boolean or a small number
	blobColumn
	wordsColumn // the words of a name, in an engine that keeps them in the row
)

func (k *kind[T]) table() string   { return k.plural }
func (k *kind[T]) history() string { return k.plural + "_history" }

// shapes are the kind's own columns without their values.
func (k *kind[T]) shapes() []columnShape {
	out := make([]columnShape, len(k.columns))
	for i, c := range k.columns {
		out[i] = c.columnShape
	}
	return out
}

// has says whether the kind has a column of that name.
func (k *kind[T]) has(name string) bool {
	for _, c := range k.columns {
		if c.name == name {
			return true
		}
	}
	return false
}

// countFacets calls add with each facet value of r.
func (k *kind[T]) countFacets(r *T, add func(facet, value string)) {
	rec := k.record(r)
	add("", "")
	add("kind", rec.Kind)
	add("namespace", rec.Namespace)
	add("environment", rec.Environment)
	add("built_in", boolWord(rec.BuiltIn))
	if k.facets != nil {
		k.facets(r, add)
	}
}

// plain brings the times of r into the form that is kept.
func (k *kind[T]) plain(r *T) {
	rec := k.record(r)
	rec.Created = plainTime(rec.Created)
	rec.Since = plainTime(rec.Since)
	if k.times != nil {
		for _, t := range k.times(r) {
			*t = plainTime(*t)
		}
	}
}

func boolWord(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

func boolInt(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// text makes a column of a text; reference a column of an ID, whose index
// leaves out the rows that have none.
func text[T any](name, index, where string, value func(*T) string) column[T] {
	return column[T]{
		columnShape{name: name, typ: textColumn, index: index, where: where},
		func(r *T) any { return columnText(value(r)) },
	}
}

func reference[T any](name string, value func(*T) remit.ID) column[T] {
	return column[T]{
		columnShape{name: name, typ: textColumn, index: name, where: name + " <> ''", reference: true},
		func(r *T) any { return columnText(string(value(r))) },
	}
}

func number[T any](name, index string, value func(*T) int64) column[T] {
	return column[T]{
		columnShape{name: name, typ: intColumn, index: index},
		func(r *T) any { return value(r) },
	}
}

// expiry makes a column of an end. Its index holds the rows that have one: most
// have none, and in an index they would stand in the order of their IDs, which
// is to say scattered, so that each new row would rewrite a page of it.
func expiry[T any](value func(*T) time.Time) column[T] {
	return column[T]{
		columnShape{name: "expires", typ: intColumn, index: "system, expires, id", where: ending},
		func(r *T) any { return microsOrForever(value(r)) },
	}
}

func flag[T any](name string, value func(*T) bool) column[T] {
	return column[T]{
		columnShape{name: name, typ: smallColumn, index: "system, " + name},
		func(r *T) any { return boolInt(value(r)) },
	}
}
