package sqlstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"strings"

	"remit"
)

// incoming is a record on its way into the store.
type incoming[T any] struct {
	id     string
	record T
	doc    string
	hash   [16]byte
	before *current[T] // nil when it is new
}

// current is what the store has of a record.
type current[T any] struct {
	key       int64
	hash      [16]byte
	section   string
	system    int64
	validFrom int64
	learnedAt int64
	doc       string // read only of what changed
	record    T
}

// apply writes the records of one kind.
func apply[T any](ctx context.Context, c *change, k *kind[T], records []T) error {
	if len(records) == 0 {
		return nil
	}
	list, err := prepare(c, k, records)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return nil
	}
	if err := matchCurrent(ctx, c, k, list); err != nil {
		return err
	}
	var added, changed []*incoming[T]
	var moved []int64
	seen := c.seen[k.name]
	for _, in := range list {
		switch {
		case in.before == nil:
			added = append(added, in)
		case in.before.hash != in.hash:
			changed = append(changed, in)
			seen = append(seen, in.before.key)
		default:
			c.done.Unchanged++
			seen = append(seen, in.before.key)
			if in.before.section != c.section {
				moved = append(moved, in.before.key)
			}
		}
	}
	c.seen[k.name] = seen
	if len(moved) > 0 {
		err := c.exec(ctx, "UPDATE "+k.table()+" SET section = ? WHERE "+c.in("key"), c.section, c.keys(moved))
		if err != nil {
			return err
		}
	}
	if err := add(ctx, c, k, added); err != nil {
		return err
	}
	return replace(ctx, c, k, changed)
}

// prepare checks the records, keeps the last of each ID and writes each as
// JSON, from which the hash is taken that tells whether it has changed. The
// hash is a cryptographic one, cut to 128 bits: nobody may craft a change that
// is not seen.
func prepare[T any](c *change, k *kind[T], records []T) ([]*incoming[T], error) {
	list := make([]*incoming[T], 0, len(records))
	at := make(map[string]*incoming[T], len(records))
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	for i := range records {
		r := records[i]
		rec := k.record(&r)
		if rec.ID.Kind() != k.name || !plainID(rec.ID) {
			return nil, remit.Errorf(remit.Invalid, "", "%q is not the ID of %s %s", string(rec.ID), k.name, rec.Ref)
		}
		if rec.System != c.run.system {
			return nil, remit.Errorf(remit.Invalid, "", "%s %s (%s) is of system %q, and the run writes system %s", k.name, rec.Ref, rec.ID, string(rec.System), c.run.system)
		}
		if c.going[string(rec.ID)] {
			continue
		}
		k.plain(&r)
		buf.Reset()
		if err := enc.Encode(&r); err != nil {
			return nil, remit.Errorf(remit.Internal, "", "%s %s: %w", k.name, rec.ID, err)
		}
		doc := buf.Bytes()[:buf.Len()-1] // without the newline
		sum := sha256.Sum256(doc)
		id := string(rec.ID)
		in := at[id]
		if in == nil {
			in = &incoming[T]{id: id}
			at[id] = in
			list = append(list, in)
		}
		in.record, in.doc, in.hash = r, string(doc), [16]byte(sum[:16])
	}
	return list, nil
}

// plainID says whether an ID has no other characters than IDs have.
func plainID(id remit.ID) bool {
	return strings.Trim(string(id), "abcdefghijklmnopqrstuvwxyz234567_") == ""
}

// matchCurrent finds what the store has of the records.
func matchCurrent[T any](ctx context.Context, c *change, k *kind[T], list []*incoming[T]) error {
	ids := make([]string, len(list))
	at := make(map[string]*incoming[T], len(list))
	for i, in := range list {
		ids[i] = in.id
		at[in.id] = in
	}
	query := "SELECT id, key, hash, section, system, valid_from FROM " + k.table() + " WHERE " + c.in("id")
	var id sql.RawBytes
	var hash sql.RawBytes
	return c.query(ctx, query, []any{c.texts(ids)}, func(rows *sql.Rows) error {
		have := new(current[T])
		if err := rows.Scan(&id, &have.key, &hash, &have.section, &have.system, &have.validFrom); err != nil {
			return err
		}
		copy(have.hash[:], hash)
		if in := at[string(id)]; in != nil {
			in.before = have
		}
		return nil
	})
}

// add writes records that the store does not have.
func add[T any](ctx context.Context, c *change, k *kind[T], list []*incoming[T]) error {
	if len(list) == 0 {
		return nil
	}
	// What was here before, and went, ended at some time; the new life cannot
	// begin before that.
	ended, err := lastEnds(ctx, c, k, list)
	if err != nil {
		return err
	}
	columns := rowColumns(c.tx, k, false)
	rows := make([][]any, len(list))
	at := make(map[string]*incoming[T], len(list))
	for i, in := range list {
		from := since(k, &in.record, micros(c.learned))
		if end, ok := ended[in.id]; ok {
			from = max(from, end)
		}
		rows[i] = row(c, k, columns, in, 0, from)
		at[in.id] = in
		k.countFacets(&in.record, c.counts.of(c.run.key, k.name, 1))
		c.touched[k.record(&in.record).ID] = struct{}{}
		if k.concerns != nil {
			k.concerns(&in.record, c.touch)
		}
	}
	c.done.Added += len(list)
	seen := c.seen[k.name]
	words := make([][]any, 0, len(list))
	owners := make([][]any, 0)
	err = c.insert(ctx, c.tx, k.table(), columns, rows, "", func(id string, key int64) {
		in := at[id]
		seen = append(seen, key)
		if !c.wordsInRow() {
			words = append(words, []any{key, indexedWords(k.record(&in.record).Name)})
		}
		owners = appendOwners(owners, k, &in.record, key)
	})
	if err != nil {
		return err
	}
	c.seen[k.name] = seen
	if err := c.putWords(ctx, c.tx, k.table(), words); err != nil {
		return err
	}
	return putOwners(ctx, c, owners)
}

// replace writes records that have changed; their former versions move to the
// history.
func replace[T any](ctx context.Context, c *change, k *kind[T], list []*incoming[T]) error {
	if len(list) == 0 {
		return nil
	}
	before := make([]*current[T], len(list))
	for i, in := range list {
		before[i] = in.before
	}
	if err := readCurrent(ctx, c, k, before); err != nil {
		return err
	}
	columns := rowColumns(c.tx, k, true)
	rows := make([][]any, len(list))
	ends := make([]int64, len(list))
	keys := make([]int64, len(list))
	var renamed []int64
	var words, owners [][]any
	for i, in := range list {
		have := in.before
		learned := micros(c.learned)
		from := since(k, &in.record, learned)
		if from <= have.validFrom { // it tells no better time, or one that cannot be
			from = max(learned, have.validFrom+1)
		}
		ends[i], keys[i] = from, have.key
		rows[i] = row(c, k, columns, in, have.key, from)

		k.countFacets(&have.record, c.counts.of(have.system, k.name, -1))
		k.countFacets(&in.record, c.counts.of(c.run.key, k.name, 1))
		c.touched[k.record(&in.record).ID] = struct{}{}
		if k.concerns != nil {
			k.concerns(&have.record, c.touch)
			k.concerns(&in.record, c.touch)
		}
		if name := k.record(&in.record).Name; !c.wordsInRow() && name != k.record(&have.record).Name {
			renamed = append(renamed, have.key)
			words = append(words, []any{have.key, indexedWords(name)})
		}
		owners = appendOwners(owners, k, &in.record, have.key)
	}
	c.done.Updated += len(list)
	if err := retire(ctx, c, k, before, ends, false); err != nil {
		return err
	}
	if err := c.insert(ctx, c.tx, k.table(), columns, rows, overwrite(columns), nil); err != nil {
		return err
	}
	if len(renamed) > 0 {
		if err := c.dropWords(ctx, c.tx, k.table(), renamed); err != nil {
			return err
		}
		if err := c.putWords(ctx, c.tx, k.table(), words); err != nil {
			return err
		}
	}
	if k.owners == nil {
		return nil
	}
	if err := c.exec(ctx, "DELETE FROM identity_owners WHERE "+c.in("identity"), c.keys(keys)); err != nil {
		return err
	}
	return putOwners(ctx, c, owners)
}

// since is when a version begins: when its system says, unless that is in the
// future of whoever saw it, else when it was learned.
func since[T any](k *kind[T], r *T, learned int64) int64 {
	if s := micros(k.record(r).Since); s != 0 && s < learned {
		return s
	}
	return learned
}

// lastEnds returns the end of the last former version of each record that has
// one.
func lastEnds[T any](ctx context.Context, c *change, k *kind[T], list []*incoming[T]) (map[string]int64, error) {
	ids := make([]string, len(list))
	for i, in := range list {
		ids[i] = in.id
	}
	ended := make(map[string]int64)
	query := "SELECT id, max(valid_to) FROM " + k.history() + " WHERE " + c.in("id") + " GROUP BY id"
	err := c.query(ctx, query, []any{c.texts(ids)}, func(rows *sql.Rows) error {
		var id string
		var end int64
		err := rows.Scan(&id, &end)
		ended[id] = end
		return err
	})
	return ended, err
}

// readCurrent reads the rest of current rows of which the key is known.
func readCurrent[T any](ctx context.Context, c *change, k *kind[T], list []*current[T]) error {
	keys := make([]int64, len(list))
	at := make(map[int64]*current[T], len(list))
	for i, have := range list {
		keys[i] = have.key
		at[have.key] = have
	}
	query := "SELECT key, system, section, valid_from, learned_at, doc FROM " + k.table() + " WHERE " + c.in("key")
	return c.query(ctx, query, []any{c.keys(keys)}, func(rows *sql.Rows) error {
		var key int64
		var have current[T]
		if err := rows.Scan(&key, &have.system, &have.section, &have.validFrom, &have.learnedAt, &have.doc); err != nil {
			return err
		}
		into := at[key]
		have.key, have.hash = key, into.hash
		var err error
		have.record, err = decode[T]([]byte(have.doc))
		*into = have
		return err
	})
}
