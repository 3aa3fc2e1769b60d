package sqlstore

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"remit"
)

var (
	presenceColumns = []columnShape{
		{name: "id", typ: textColumn},
		{name: "system", typ: textColumn},
		{name: "last", typ: intColumn},
		{name: "doc", typ: textColumn},
	}
	usageColumns = []columnShape{
		{name: "id", typ: textColumn},
		{name: "system", typ: textColumn},
		{name: "identity", typ: textColumn},
		{name: "root", typ: textColumn},
		{name: "binding", typ: textColumn},
		{name: "first", typ: intColumn},
		{name: "last", typ: intColumn},
		{name: "n", typ: intColumn},
		{name: "doc", typ: textColumn},
	}
	lineageColumns = []columnShape{
		{name: "id", typ: textColumn},
		{name: "system", typ: textColumn},
		{name: "credential", typ: textColumn},
		{name: "identity", typ: textColumn},
		{name: "parent", typ: textColumn},
		{name: "root", typ: textColumn},
		{name: "forked", typ: smallColumn},
		{name: "selfminted", typ: smallColumn},
		{name: "last", typ: intColumn},
		{name: "doc", typ: textColumn},
	}
	seenColumns = []columnShape{
		{name: "system", typ: textColumn},
		{name: "hour", typ: intColumn},
		{name: "learned", typ: intColumn},
		{name: "ids", typ: blobColumn},
	}
	stateColumns = []columnShape{
		{name: "system", typ: textColumn},
		{name: "kind", typ: textColumn},
		{name: "name", typ: textColumn},
		{name: "data", typ: blobColumn},
	}
	archiveColumns = []columnShape{
		{name: "path", typ: textColumn},
		{name: "system", typ: textColumn},
		{name: "hour", typ: intColumn},
		{name: "doc", typ: textColumn},
	}
)

// addUsage is what a further count of a combination does to its row.
const addUsage = ` ON CONFLICT (id) DO UPDATE SET n = usage_counts.n + excluded.n,
	first = CASE WHEN excluded.first < usage_counts.first THEN excluded.first ELSE usage_counts.first END,
	last = CASE WHEN excluded.last > usage_counts.last THEN excluded.last ELSE usage_counts.last END`

// Checkpoint writes everything in one transaction; see [remit.ActivityWriter].
// Each usage, presence and lineage may stand in it once.
func (s *Store) Checkpoint(ctx context.Context, c remit.Checkpoint) error {
	return s.write(ctx, "write checkpoint", func(t *tx) error {
		for _, put := range []func(context.Context, *tx, *remit.Checkpoint) error{
			putPositions, putPresences, putUsage, putLineage, putSeen, putStates, putDetections, putArchive,
		} {
			if err := put(ctx, t, &c); err != nil {
				return err
			}
		}
		return nil
	})
}

func putPositions(ctx context.Context, t *tx, c *remit.Checkpoint) error {
	for _, p := range c.Positions {
		detail := p.Detail
		if detail == nil {
			detail = []byte{}
		}
		err := t.exec(ctx, `INSERT INTO activity_positions (source, position, detail, updated) VALUES (?, ?, ?, ?)
			ON CONFLICT (source) DO UPDATE SET position = excluded.position, detail = excluded.detail, updated = excluded.updated`,
			columnText(p.Source), p.Offset, detail, micros(c.Now))
		if err != nil {
			return err
		}
	}
	return nil
}

// insertEach inserts the row of each item, a bounded number at a time: a
// checkpoint may have hundreds of thousands.
func insertEach[T any](ctx context.Context, t *tx, table string, columns []columnShape, items []T, row func(*T) ([]any, error), conflict string) error {
	const most = 4096
	rows := make([][]any, 0, min(len(items), most))
	for chunk := range slices.Chunk(items, most) {
		rows = rows[:0]
		for i := range chunk {
			r, err := row(&chunk[i])
			if err != nil {
				return err
			}
			rows = append(rows, r)
		}
		// Rows that lie together are written together.
		slices.SortFunc(rows, func(a, b []any) int { return cmp.Compare(a[0].(string), b[0].(string)) })
		if err := t.insert(ctx, t, table, columns, rows, conflict, nil); err != nil {
			return err
		}
	}
	return nil
}

func putPresences(ctx context.Context, t *tx, c *remit.Checkpoint) error {
	return insertEach(ctx, t, "presences", presenceColumns, c.Presences, func(p *remit.Presence) ([]any, error) {
		doc, err := json.Marshal(p)
		if err != nil {
			return nil, remit.Errorf(remit.Internal, "", "presence of %s: %w", p.Identity, err)
		}
		return []any{columnText(string(p.Identity)), columnText(string(p.System)), micros(p.Last), string(doc)}, nil
	}, overwrite(presenceColumns, "last", "doc"))
}

// usageDoc is what of a usage no column holds: there are more of them than of
// anything else in a store.
type usageDoc struct {
	Binding  remit.Ref     `json:"binding,omitzero"`
	Action   string        `json:"action"`
	Resource remit.Ref     `json:"resource"`
	Outcome  remit.Outcome `json:"outcome"`
}

func putUsage(ctx context.Context, t *tx, c *remit.Checkpoint) error {
	return insertEach(ctx, t, "usage_counts", usageColumns, c.Usage, func(u *remit.Usage) ([]any, error) {
		// What an identity did lies together, so that a checkpoint, which comes
		// in the order of identities, touches few pages. 80 bits tell apart
		// what one identity did.
		id := string(u.Identity) + "-" + hashOf(string(u.System), u.Root, u.Binding.Kind, u.Binding.Namespace, u.Binding.Name,
			u.Action, u.Resource.Kind, u.Resource.Namespace, u.Resource.Name, string(u.Outcome))[:20]
		doc, err := json.Marshal(usageDoc{u.Binding, u.Action, u.Resource, u.Outcome})
		if err != nil {
			return nil, remit.Errorf(remit.Internal, "", "usage of %s: %w", u.Identity, err)
		}
		return []any{
			columnText(id), columnText(string(u.System)), columnText(string(u.Identity)), columnText(u.Root),
			columnText(bindingText(u.Binding)), micros(u.First), micros(u.Last), u.Count, string(doc),
		}, nil
	}, addUsage)
}

func bindingText(r remit.Ref) string {
	if r == (remit.Ref{}) {
		return ""
	}
	return r.String()
}

func putLineage(ctx context.Context, t *tx, c *remit.Checkpoint) error {
	err := insertEach(ctx, t, "lineage", lineageColumns, c.Lineage, func(l *remit.Lineage) ([]any, error) {
		doc, err := json.Marshal(l)
		if err != nil {
			return nil, remit.Errorf(remit.Internal, "", "lineage of %s: %w", l.Credential, err)
		}
		return []any{
			hashOf(string(l.System), l.Credential), columnText(string(l.System)), columnText(l.Credential), columnText(string(l.Identity)),
			columnText(l.Parent), columnText(l.Root), boolInt(l.Forked), boolInt(l.SelfMinted), micros(l.Last), string(doc),
		}, nil
	}, overwrite(lineageColumns))
	if err != nil {
		return err
	}
	for ended := c.LineageEnded; len(ended) > 0; {
		n := min(len(ended), findingBatch)
		ids := make([]string, n)
		for i, l := range ended[:n] {
			ids[i] = hashOf(string(l.System), l.Credential)
		}
		if err := t.exec(ctx, "DELETE FROM lineage WHERE "+t.in("id"), t.texts(ids)); err != nil {
			return err
		}
		ended = ended[n:]
	}
	return nil
}

func putSeen(ctx context.Context, t *tx, c *remit.Checkpoint) error {
	rows := make([][]any, len(c.Seen))
	for i, s := range c.Seen {
		rows[i] = []any{columnText(string(s.System)), s.Hour, micros(c.Now), s.IDs}
	}
	return t.insert(ctx, t, "activity_seen", seenColumns, rows, "", nil)
}

func putStates(ctx context.Context, t *tx, c *remit.Checkpoint) error {
	sorted := slices.Clone(c.States)
	order := func(a, b remit.State) int {
		return cmp.Or(cmp.Compare(a.System, b.System), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Key, b.Key))
	}
	slices.SortStableFunc(sorted, order)
	rows := make([][]any, 0, len(sorted))
	for i, s := range sorted {
		if i+1 < len(sorted) && order(s, sorted[i+1]) == 0 {
			continue // the last one counts
		}
		system, kind, key := columnText(string(s.System)), columnText(s.Kind), columnText(s.Key)
		if s.Data != nil {
			rows = append(rows, []any{system, kind, key, s.Data})
			continue
		}
		err := t.exec(ctx, "DELETE FROM activity_states WHERE system = ? AND kind = ? AND name = ?", system, kind, key)
		if err != nil {
			return err
		}
	}
	return t.insert(ctx, t, "activity_states", stateColumns, rows, " ON CONFLICT (system, kind, name) DO UPDATE SET data = excluded.data", nil)
}

// putDetections writes the findings of detections. Their First and Last are the
// times of events, and each comes in full; only what people set about them
// stays as it is.
func putDetections(ctx context.Context, t *tx, c *remit.Checkpoint) error {
	if len(c.Findings) == 0 {
		return nil
	}
	var systems []string
	seen := make(map[string]bool)
	ids := make([]string, len(c.Findings))
	for i, f := range c.Findings {
		if f.ID.Kind() != remit.KindFinding || !plainID(f.ID) {
			return remit.Errorf(remit.Invalid, "", "%q is not the ID of a finding", string(f.ID))
		}
		if id := columnText(string(f.System)); !seen[id] {
			seen[id] = true
			systems = append(systems, id)
		}
		ids[i] = string(f.ID)
	}
	keys, err := keepSystems(ctx, t, systems)
	if err != nil {
		return err
	}
	known, err := readFindings(ctx, t, t.in("id"), t.texts(ids))
	if err != nil {
		return err
	}
	at := make(map[remit.ID]*stored, len(known))
	for _, f := range known {
		at[f.ID] = f
	}
	w := &findingWrite{tx: t, counts: make(counter)}
	for _, f := range c.Findings {
		f.First, f.Last = plainTime(f.First), plainTime(f.Last)
		next := &stored{system: keys[columnText(string(f.System))], putAt: micros(f.Last), Finding: f}
		next.State, next.Resolved, next.SuppressedUntil, next.Reopened = remit.Open, time.Time{}, time.Time{}, 0
		if before := at[f.ID]; before != nil {
			next.key = before.key
			next.State, next.SuppressedUntil, next.Reopened = before.State, before.SuppressedUntil, before.Reopened
			if before.State == remit.Resolved {
				next.State, next.Reopened = remit.Open, before.Reopened+1
			}
			if before.State == remit.Suppressed && !c.Now.Before(before.SuppressedUntil) {
				next.State, next.SuppressedUntil = remit.Open, time.Time{}
			}
		}
		if err := w.stage(at[f.ID], next); err != nil {
			return err
		}
	}
	// What is unchanged stays: its Last is the time of an event, and once became
	// that of the writing.
	w.same = nil
	return w.flush(ctx, micros(c.Now))
}

func putArchive(ctx context.Context, t *tx, c *remit.Checkpoint) error {
	rows := make([][]any, len(c.ArchiveAdded))
	for i, f := range c.ArchiveAdded {
		doc, err := json.Marshal(f)
		if err != nil {
			return remit.Errorf(remit.Internal, "", "archive file %s: %w", f.Path, err)
		}
		rows[i] = []any{columnText(f.Path), columnText(string(f.System)), f.Hour.Unix() / 3600, string(doc)}
	}
	if err := t.insert(ctx, t, "archive_files", archiveColumns, rows, overwrite(archiveColumns), nil); err != nil {
		return err
	}
	if len(c.ArchiveGone) == 0 {
		return nil
	}
	return t.exec(ctx, "DELETE FROM archive_files WHERE "+t.in("path"), t.texts(columnTexts(c.ArchiveGone)))
}

// hashOf is a key for a combination of texts: each stands behind its length, so
// that no two combinations share one.
func hashOf(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		n := len(p)
		for n >= 0x80 {
			b.WriteByte(byte(n) | 0x80)
			n >>= 7
		}
		b.WriteByte(byte(n))
		b.WriteString(p)
	}
	sum := sha256.Sum256([]byte(b.String()))
	return hex.EncodeToString(sum[:16])
}

// Positions lists how far every source was read; see [remit.ActivityReader].
func (s *Store) Positions(ctx context.Context) ([]remit.Position, error) {
	var out []remit.Position
	err := s.read(ctx, "read positions", func(r *reader) error {
		out = nil
		return r.query(ctx, "SELECT source, position, detail, updated FROM activity_positions ORDER BY source", nil, func(rows *sql.Rows) error {
			var p remit.Position
			var updated int64
			err := rows.Scan(&p.Source, &p.Offset, &p.Detail, &updated)
			p.Updated = timeOf(updated)
			out = append(out, p)
			return err
		})
	})
	return out, err
}

// Presences lists presences in the order of their IDs; see [remit.ActivityReader].
func (s *Store) Presences(ctx context.Context, f remit.ActivityFilter, page remit.PageRequest) ([]remit.Presence, string, error) {
	c := activityTerms(f, "id", "")
	return activityList[remit.Presence](ctx, s, "presences", "doc", c, f, page, func(rows *sql.Rows, id *string) (p remit.Presence, err error) {
		var doc []byte
		if err = rows.Scan(id, &doc); err != nil {
			return p, err
		}
		return decode[remit.Presence](doc)
	})
}

// Usage lists usage in a stable order; see [remit.ActivityReader].
func (s *Store) Usage(ctx context.Context, f remit.ActivityFilter, page remit.PageRequest) ([]remit.Usage, string, error) {
	c := activityTerms(f, "", "root")
	if len(f.Identities) > 0 {
		// What one did lies between two IDs.
		var either []string
		var args []any
		for _, id := range f.Identities {
			either = append(either, "id > ? AND id < ?")
			args = append(args, columnText(string(id))+"-", columnText(string(id))+".") // the character behind "-"
		}
		c.term("("+strings.Join(either, " OR ")+")", args...)
	}
	if len(f.Bindings) > 0 {
		texts := make([]string, len(f.Bindings))
		for i, b := range f.Bindings {
			texts[i] = bindingText(b)
		}
		c.list("binding", columnTexts(texts))
	}
	return activityList(ctx, s, "usage_counts", "doc, system, identity, root, first, last, n", c, f, page, func(rows *sql.Rows, id *string) (u remit.Usage, err error) {
		var doc []byte
		var first, last int64
		if err = rows.Scan(id, &doc, &u.System, &u.Identity, &u.Root, &first, &last, &u.Count); err != nil {
			return u, err
		}
		d, err := decode[usageDoc](doc)
		u.Root, u.First, u.Last = originalText(u.Root), timeOf(first), timeOf(last)
		u.Binding, u.Action, u.Resource, u.Outcome = d.Binding, d.Action, d.Resource, d.Outcome
		return u, err
	})
}

// Lineage lists credentials' places in their trees; see [remit.ActivityReader].
func (s *Store) Lineage(ctx context.Context, f remit.ActivityFilter, page remit.PageRequest) ([]remit.Lineage, string, error) {
	c := activityTerms(f, "identity", "root")
	if len(f.Credentials) > 0 {
		c.list("credential", columnTexts(f.Credentials))
	}
	if len(f.Parents) > 0 {
		c.list("parent", columnTexts(f.Parents))
	}
	if f.Forked {
		c.term("forked = 1")
	}
	if f.SelfMinted {
		c.term("selfminted = 1")
	}
	return activityList(ctx, s, "lineage", "doc", c, f, page, func(rows *sql.Rows, id *string) (l remit.Lineage, err error) {
		var doc []byte
		if err = rows.Scan(id, &doc); err != nil {
			return l, err
		}
		return decode[remit.Lineage](doc)
	})
}

// conditions are the terms of a WHERE clause; lists wait for the engine's form.
type conditions struct {
	terms []string
	args  []any
	lists []listTerm
}

type listTerm struct {
	column string
	values []string
}

func (c *conditions) term(t string, args ...any) {
	c.terms, c.args = append(c.terms, t), append(c.args, args...)
}

func (c *conditions) list(column string, values []string) {
	c.lists = append(c.lists, listTerm{column, values})
}

func activityTerms(f remit.ActivityFilter, identity, root string) *conditions {
	c := new(conditions)
	if f.System != "" {
		c.term("system = ?", columnText(string(f.System)))
	}
	if !f.Since.IsZero() {
		c.term("last >= ?", micros(f.Since))
	}
	if len(f.Identities) > 0 && identity != "" {
		c.list(identity, columnTexts(f.Identities))
	}
	if len(f.Roots) > 0 && root != "" {
		c.list(root, columnTexts(f.Roots))
	}
	return c
}

func activityList[T any](ctx context.Context, s *Store, table, columns string, c *conditions, f remit.ActivityFilter, page remit.PageRequest, scan func(*sql.Rows, *string) (T, error)) ([]T, string, error) {
	var out []T
	next := ""
	err := s.read(ctx, "list "+strings.ReplaceAll(table, "_", " "), func(r *reader) error {
		limit, err := pageLimit(page)
		if err != nil {
			return err
		}
		after, err := readCursor(page.After, table, f, orderIDs)
		if err != nil {
			return err
		}
		if after != nil {
			c.term("id > ?", after[0])
		}
		for _, l := range c.lists {
			c.term(r.in(l.column), r.texts(l.values))
		}
		where := ""
		if len(c.terms) > 0 {
			where = " WHERE " + strings.Join(c.terms, " AND ")
		}
		last := ""
		out, next = nil, ""
		return r.query(ctx, "SELECT id, "+columns+" FROM "+table+where+" ORDER BY id LIMIT ?", append(c.args, limit+1), func(rows *sql.Rows) error {
			var id string
			one, err := scan(rows, &id)
			if err != nil {
				return err
			}
			if len(out) == limit {
				next = writeCursor(table, f, orderIDs, []any{last})
				return nil
			}
			out, last = append(out, one), id
			return nil
		})
	})
	if err != nil {
		return nil, "", err
	}
	return out, next, nil
}

// Seen lists the sets of an hour in the order in which they were written; see
// [remit.ActivityReader].
func (s *Store) Seen(ctx context.Context, system remit.ID, hour int64) ([]remit.SeenChunk, error) {
	var out []remit.SeenChunk
	err := s.read(ctx, "read seen events", func(r *reader) error {
		out = nil
		return r.query(ctx, "SELECT ids FROM activity_seen WHERE system = ? AND hour = ? ORDER BY key", []any{columnText(string(system)), hour}, func(rows *sql.Rows) error {
			chunk := remit.SeenChunk{System: system, Hour: hour}
			err := rows.Scan(&chunk.IDs)
			out = append(out, chunk)
			return err
		})
	})
	return out, err
}

// States lists states in the order of their keys; see [remit.ActivityReader].
func (s *Store) States(ctx context.Context, system remit.ID, kind, key string) ([]remit.State, error) {
	var out []remit.State
	err := s.read(ctx, "read state", func(r *reader) error {
		out = nil
		query, args := "SELECT name, data FROM activity_states WHERE system = ? AND kind = ?", []any{columnText(string(system)), columnText(kind)}
		if key != "" {
			query, args = query+" AND name = ?", append(args, columnText(key))
		}
		return r.query(ctx, query+" ORDER BY name", args, func(rows *sql.Rows) error {
			st := remit.State{System: system, Kind: kind}
			err := rows.Scan(&st.Key, &st.Data)
			st.Key = originalText(st.Key)
			out = append(out, st)
			return err
		})
	})
	return out, err
}

// ArchiveFiles lists the manifest's files of the hours that lie in from to to
// (a zero time is no bound), of one system or of all; see [remit.ActivityReader].
func (s *Store) ArchiveFiles(ctx context.Context, system remit.ID, from, to time.Time) ([]remit.ArchiveFile, error) {
	var out []remit.ArchiveFile
	err := s.read(ctx, "read archive manifest", func(r *reader) error {
		out = nil
		c := new(conditions)
		if system != "" {
			c.term("system = ?", columnText(string(system)))
		}
		if !from.IsZero() {
			c.term("hour >= ?", from.Unix()/3600)
		}
		if !to.IsZero() {
			c.term("hour <= ?", to.Unix()/3600)
		}
		where := ""
		if len(c.terms) > 0 {
			where = " WHERE " + strings.Join(c.terms, " AND ")
		}
		return r.query(ctx, "SELECT doc FROM archive_files"+where+" ORDER BY hour, path", c.args, func(rows *sql.Rows) error {
			var doc []byte
			if err := rows.Scan(&doc); err != nil {
				return err
			}
			f, err := decode[remit.ArchiveFile](doc)
			out = append(out, f)
			return err
		})
	})
	return out, err
}
