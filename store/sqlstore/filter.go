package sqlstore

import (
	"slices"

	"remit"
)

// filterSource turns a filter into a source on one of the tables of a kind,
// with the terms that choose few rows first. ok is false when the filter asks
// for what the kind does not have, so that nothing is chosen.
func filterSource[T any](e engine, k *kind[T], f remit.Filter, former bool) (src source, ok bool) {
	src = source{table: k.table(), former: former, value: "doc"}
	if former {
		src.table = k.history()
	}
	b := filterBuilder{engine: e, kindHas: k.has, ok: true}
	const (
		both   = inCurrent | inFormer
		scoped = inCurrent | inScope
	)

	b.texts("id", columnTexts(f.IDs), both)
	switch k.name {
	case remit.KindIdentity:
		b.texts("id", columnTexts(f.Identities), both)
	case remit.KindRelation:
		b.references("from_id", columnTexts(f.Identities), both)
	default:
		b.references("identity", columnTexts(f.Identities), both)
	}
	b.references("to_id", columnTexts(f.To), both)
	b.references("via", columnTexts(f.Grantors), both)
	b.references("role", columnTexts(f.RoleIDs), both)
	b.references("location", columnTexts(f.Locations), both)
	b.references("native", columnTexts(f.Natives), inCurrent)
	b.references("fingerprint", columnTexts(f.Fingerprints), inCurrent)

	match, tests := nameTests(&b, k, f, former)

	b.exceptions("status", columnTexts(f.Statuses), string(remit.Active))
	b.exceptions("environment", columnTexts(f.Environments), "")
	b.flag("built_in", f.BuiltIn, scoped)
	b.flag("never_expires", f.NeverExpires, scoped)
	if f.Unowned {
		no := false
		b.flag(ownedColumn, &no, scoped)
	}
	b.texts("provider", columnTexts(f.Providers), scoped)
	b.texts("type", columnTexts(f.Types), scoped)
	b.texts("kind", columnTexts(f.Kinds), scoped)
	b.texts("namespace", columnTexts(f.Namespaces), scoped)
	b.before("expires", micros(f.ExpiresBefore), scoped)
	b.before("last_used", micros(f.UsedBefore), scoped)

	if !f.At.IsZero() {
		b.terms = append(b.terms, during(f.At, former)...)
	}
	src.terms = b.terms
	if match != nil || len(tests) > 0 {
		src.keep = keeper(k, match, tests)
	}
	return src, b.ok
}

// nameTests adds the terms of what is found by words and by owners. These are
// tested on the name and on the record too, since the word index is bounded,
// and since the history has neither words nor owners beside it.
func nameTests[T any](b *filterBuilder, k *kind[T], f remit.Filter, former bool) (match func(string) bool, tests []func(*T) bool) {
	if f.Owner != "" {
		if k.owners == nil {
			b.ok = false
			return nil, nil
		}
		tests = append(tests, func(r *T) bool { return claimedBefore(k.owners(r), f.Owner) })
		if !former {
			b.terms = append(b.terms, term{
				sql:     "{} IN (SELECT identity FROM identity_owners WHERE owner = ?)",
				columns: []string{"key"}, args: []any{columnText(f.Owner)}, served: inCurrent, loose: true,
			})
		}
	}
	if words := searchWords(f.Search); len(words) > 0 {
		match = nameMatcher(f.Search)
		if !former {
			b.terms = append(b.terms, searchTerm(b.engine, k.table(), words))
		}
	}
	if len(f.Names) > 0 {
		// No index begins with the name; its words lead to it.
		if words, all := nameWords(f.Names); all && !former {
			b.terms = append(b.terms, wordsTerm(b.engine, k.table(), words, false))
		}
		b.texts("name", columnTexts(f.Names), 0)
	}
	return match, tests
}

// keeper tests the name, if match is not nil, and the record, which it decodes
// only where the name alone does not decide.
func keeper[T any](k *kind[T], match func(string) bool, tests []func(*T) bool) func(string, []byte) (bool, error) {
	return func(column string, doc []byte) (bool, error) {
		name, whole := wholeText(column)
		if match != nil && whole {
			if !match(name) {
				return false, nil
			}
			if len(tests) == 0 {
				return true, nil
			}
		}
		r, err := decode[T](doc)
		if err != nil {
			return false, err
		}
		if match != nil && !whole && !match(k.record(&r).Name) {
			return false, nil
		}
		for _, test := range tests {
			if !test(&r) {
				return false, nil
			}
		}
		return true, nil
	}
}

// filterBuilder gathers terms. A condition on a column that the kind does not
// have chooses nothing.
type filterBuilder struct {
	engine  engine
	kindHas func(column string) bool
	terms   []term
	ok      bool
}

func (b *filterBuilder) has(column string) bool {
	if b.kindHas(column) || slices.ContainsFunc(sharedColumns, func(c columnShape) bool { return c.name == column }) {
		return true
	}
	b.ok = false
	return false
}

func (b *filterBuilder) texts(column string, values []string, served service) {
	if len(values) > 0 && b.has(column) {
		b.terms = append(b.terms, oneOf(b.engine, column, values, served))
	}
}

// references tests a column whose index leaves out the empty ones.
func (b *filterBuilder) references(column string, values []string, served service) {
	if len(values) > 0 && b.has(column) {
		b.terms = append(b.terms, oneOf(b.engine, column, values, served).known())
	}
}

// exceptions tests a column whose index leaves out the usual value.
func (b *filterBuilder) exceptions(column string, values []string, usual string) {
	if len(values) > 0 && b.has(column) {
		served := inCurrent
		if column == "status" {
			served |= inScope
		}
		b.terms = append(b.terms, oneOf(b.engine, column, values, served).unlike(usual, values))
	}
}

func (b *filterBuilder) flag(column string, value *bool, served service) {
	if value != nil && b.has(column) {
		b.terms = append(b.terms, flagged(column, *value, served))
	}
}

// before tests for a time before a time; what is not known was before any.
func (b *filterBuilder) before(column string, at int64, served service) {
	if at != 0 && b.has(column) {
		t := compare(column, "<", at, served)
		if column == "expires" {
			t.sql += " AND " + ending
		}
		b.terms = append(b.terms, t)
	}
}
