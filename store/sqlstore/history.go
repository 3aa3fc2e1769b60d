package sqlstore

import (
	"context"
	"database/sql"

	"remit"
)

// History lists the versions of a record, the newest first, and none for an ID
// that was never seen; see [remit.InventoryReader]. [remit.Invalid] when the ID
// is not one of a kind that has a history.
func (s *Store) History(ctx context.Context, id remit.ID) ([]remit.Version, error) {
	switch id.Kind() {
	case remit.KindIdentity:
		return history(ctx, s, identities, id)
	case remit.KindCredential:
		return history(ctx, s, credentials, id)
	case remit.KindRole:
		return history(ctx, s, roles, id)
	case remit.KindGrant:
		return history(ctx, s, grants, id)
	case remit.KindRelation:
		return history(ctx, s, relations, id)
	case remit.KindResource:
		return history(ctx, s, resources, id)
	}
	return nil, remit.Errorf(remit.Invalid, "read history", "%q is not the ID of an inventory record", string(id))
}

func history[T any](ctx context.Context, s *Store, k *kind[T], id remit.ID) ([]remit.Version, error) {
	var out []remit.Version
	err := s.read(ctx, "read history", func(r *reader) error {
		scan := func(rows *sql.Rows) error {
			var from, to, learned, removed int64
			var doc []byte
			if err := rows.Scan(&from, &to, &learned, &removed, &doc); err != nil {
				return err
			}
			record, err := decode[T](doc)
			out = append(out, remit.Version{
				From: timeOf(from), To: timeOf(to), Learned: timeOf(learned), Removed: removed != 0, Record: record,
			})
			return err
		}
		key := []any{columnText(string(id))}
		err := r.query(ctx, "SELECT valid_from, 0, learned_at, 0, doc FROM "+k.table()+" WHERE id = ?", key, scan)
		if err != nil {
			return err
		}
		return r.query(ctx, "SELECT valid_from, valid_to, learned_at, removed, doc FROM "+k.history()+
			" WHERE id = ? ORDER BY valid_to DESC", key, scan)
	})
	return out, err
}
