package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"remit"
)

// PutSystem adds or replaces a system; see [remit.InventoryWriter].
func (s *Store) PutSystem(ctx context.Context, system remit.System) error {
	const op = "put system"
	if system.ID.Kind() != remit.KindSystem {
		return remit.Errorf(remit.Invalid, op, "%q is not the ID of a system", string(system.ID))
	}
	if system.Name == "" {
		return remit.Errorf(remit.Invalid, op, "the system %s has no name: give it one", system.ID)
	}
	system.Observed = plainTime(system.Observed)
	doc, err := json.Marshal(system)
	if err != nil {
		return remit.Errorf(remit.Internal, op, "system %s: %w", system.ID, err)
	}
	id, name := columnText(string(system.ID)), columnText(system.Name)
	return s.write(ctx, op, func(t *tx) error {
		other := ""
		err := t.query(ctx, "SELECT id FROM systems WHERE name = ? AND id <> ?", []any{name, id}, func(rows *sql.Rows) error {
			return rows.Scan(&other)
		})
		if err != nil {
			return err
		}
		if other != "" {
			return remit.Errorf(remit.Conflict, op, "the name %q belongs to another system (%s): choose another name for %s", system.Name, other, system.ID)
		}
		return t.exec(ctx, "INSERT INTO systems (id, connector, name, doc) VALUES (?, ?, ?, ?)"+
			" ON CONFLICT (id) DO UPDATE SET connector = excluded.connector, name = excluded.name, doc = excluded.doc",
			id, columnText(system.Connector), name, string(doc))
	})
}

// Systems lists the systems that were put, by name.
func (s *Store) Systems(ctx context.Context) ([]remit.System, error) {
	const op = "list systems"
	var out []remit.System
	err := s.read(ctx, op, func(r *reader) error {
		return r.query(ctx, "SELECT doc FROM systems WHERE doc IS NOT NULL ORDER BY name", nil, func(rows *sql.Rows) error {
			var doc []byte
			if err := rows.Scan(&doc); err != nil {
				return err
			}
			system, err := decode[remit.System](doc)
			out = append(out, system)
			return err
		})
	})
	return out, err
}

// systemKey returns the key of a system that was put.
func (s *Store) systemKey(ctx context.Context, op string, id remit.ID) (int64, error) {
	var key int64
	err := s.read(ctx, op, func(r *reader) error {
		err := r.tx.QueryRowContext(ctx, r.rebind("SELECT key FROM systems WHERE id = ? AND doc IS NOT NULL"), columnText(string(id))).Scan(&key)
		if errors.Is(err, sql.ErrNoRows) {
			return remit.Errorf(remit.NotFound, op, "no system %s: put it first", id)
		}
		return err
	})
	return key, err
}

// keepSystems returns the keys of systems, of which findings may be the first
// to speak, and locks them against other writers until the transaction ends.
// ids are sorted, so that two writers take the locks in one order.
func keepSystems(ctx context.Context, t *tx, ids []string) (map[string]int64, error) {
	for _, id := range ids {
		if err := t.exec(ctx, "INSERT INTO systems (id) VALUES (?) ON CONFLICT (id) DO NOTHING", id); err != nil {
			return nil, err
		}
	}
	keys := make(map[string]int64, len(ids))
	err := t.query(ctx, "SELECT id, key FROM systems WHERE "+t.in("id")+" ORDER BY id"+t.forUpdate(), []any{t.texts(ids)}, func(rows *sql.Rows) error {
		var id string
		var key int64
		err := rows.Scan(&id, &key)
		keys[id] = key
		return err
	})
	return keys, err
}

// lockSystem makes writers of one system's inventory go one after another.
func lockSystem(ctx context.Context, t *tx, system int64) error {
	if t.forUpdate() == "" {
		return nil
	}
	return t.query(ctx, "SELECT key FROM systems WHERE key = ?"+t.forUpdate(), []any{system}, func(*sql.Rows) error { return nil })
}

// decode reads a record back from its JSON.
func decode[T any](doc []byte) (T, error) {
	var r T
	if err := json.Unmarshal(doc, &r); err != nil {
		return r, remit.Errorf(remit.Internal, "read record", "a stored record is damaged: %w", err)
	}
	return r, nil
}
