package sqlstore

import (
	"context"
	"database/sql"

	"remit"
)

// Identities lists identities; see [remit.InventoryReader].
func (s *Store) Identities(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Identity, string, error) {
	return list(ctx, s, identities, "list identities", f, page)
}

// Credentials lists credentials; see [remit.InventoryReader].
func (s *Store) Credentials(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Credential, string, error) {
	return list(ctx, s, credentials, "list credentials", f, page)
}

// Roles lists roles; see [remit.InventoryReader].
func (s *Store) Roles(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Role, string, error) {
	return list(ctx, s, roles, "list roles", f, page)
}

// Grants lists grants; see [remit.InventoryReader].
func (s *Store) Grants(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Grant, string, error) {
	return list(ctx, s, grants, "list grants", f, page)
}

// Relations lists relations; see [remit.InventoryReader].
func (s *Store) Relations(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Relation, string, error) {
	return list(ctx, s, relations, "list relations", f, page)
}

// Resources lists resources; see [remit.InventoryReader].
func (s *Store) Resources(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Resource, string, error) {
	return list(ctx, s, resources, "list resources", f, page)
}

// list answers one page of a list of one kind.
func list[T any](ctx context.Context, s *Store, k *kind[T], op string, f remit.Filter, page remit.PageRequest) ([]T, string, error) {
	var out []T
	next := ""
	err := s.read(ctx, op, func(r *reader) error {
		o, err := recordOrder(page.Sort, k.has("expires"))
		if err != nil {
			return err
		}
		limit, err := pageLimit(page)
		if err != nil {
			return err
		}
		after, err := readCursor(page.After, string(k.name), f, o)
		if err != nil {
			return err
		}
		sources, err := recordSources(ctx, r, k, f, o)
		if err != nil {
			return err
		}
		hits, err := r.list(ctx, sources, o, after, limit+1)
		if err != nil {
			return err
		}
		if len(hits) > limit {
			hits = hits[:limit]
			next = writeCursor(string(k.name), f, o, hits[limit-1].position)
		}
		out = make([]T, len(hits))
		for i, h := range hits {
			if out[i], err = decode[T](h.doc); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	return out, next, nil
}

// recordSources returns the tables that a filter is answered from.
func recordSources[T any](ctx context.Context, r *reader, k *kind[T], f remit.Filter, o order) ([]source, error) {
	systems, err := systemsOf(ctx, r, f.System)
	if err != nil {
		return nil, err
	}
	var out []source
	for _, former := range []bool{false, true} {
		if former && f.At.IsZero() {
			break
		}
		src, ok := filterSource(r.engine, k, f, former)
		if !ok {
			return nil, nil
		}
		src.scope = scope{column: "system", keys: systems}
		if f.System != "" && (!o.scoped || o.ends) {
			// The walk is along all systems; a small one has its own index.
			whole := src.scope.whole(r.engine)
			whole.served = inCurrent
			src.terms = append(src.terms, whole)
		}
		out = append(out, src)
	}
	return out, nil
}

// systemsOf returns the keys of one system, or of all.
func systemsOf(ctx context.Context, r *reader, id remit.ID) ([]int64, error) {
	query, args := "SELECT key FROM systems ORDER BY key", []any(nil)
	if id != "" {
		query, args = "SELECT key FROM systems WHERE id = ?", []any{columnText(string(id))}
	}
	var keys []int64
	err := r.query(ctx, query, args, func(rows *sql.Rows) error {
		var key int64
		err := rows.Scan(&key)
		keys = append(keys, key)
		return err
	})
	return keys, err
}
