package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"slices"
	"strings"

	"remit"
)

// orderNewest is the order of responses. Its index is walked backwards.
var orderNewest = order{name: "newest", columns: []orderColumn{{name: "made", number: true}, idColumn}}

// PutResponse writes a response that was read at r.Version; see
// [remit.ResponseStore]. What it returns is what Responses will answer: times
// are kept to the microsecond. [remit.Invalid] when the ID is not one of a
// response or a step's Before or After is no JSON, [remit.NotFound] when there is
// no response of that ID and r.Version is not 0.
func (s *Store) PutResponse(ctx context.Context, r remit.Response) (remit.Response, error) {
	const op = "put response"
	if r.ID.Kind() != remit.KindResponse || !plainID(r.ID) {
		return remit.Response{}, remit.Errorf(remit.Invalid, op, "%q is not the ID of a response", string(r.ID))
	}
	read := r.Version
	r.Version++
	plainResponse(&r)
	doc, err := responseDoc(&r)
	if err != nil {
		return remit.Response{}, remit.Errorf(remit.Invalid, op, "response %s: %w", r.ID, err)
	}
	id, values := string(r.ID), []any{
		columnText(string(r.System)), columnText(string(r.Subject.ID)), columnText(string(r.State)), micros(r.Made), r.Version, doc,
	}
	query, args := `UPDATE responses SET system = ?, subject = ?, state = ?, made = ?, version = ?, doc = ?
		WHERE id = ? AND version = ? RETURNING id`, append(values, id, read)
	if read == 0 {
		query, args = `INSERT INTO responses (system, subject, state, made, version, doc, id)
			VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING RETURNING id`, append(values, id)
	}
	err = s.write(ctx, op, func(t *tx) error {
		written := false
		if err := t.query(ctx, query, args, func(*sql.Rows) error { written = true; return nil }); err != nil || written {
			return err
		}
		var have int64
		err := t.query(ctx, "SELECT version FROM responses WHERE id = ?", []any{id}, func(rows *sql.Rows) error { return rows.Scan(&have) })
		switch {
		case err != nil:
			return err
		case have == 0:
			return remit.Errorf(remit.NotFound, "", "there is no response %s", r.ID)
		case read == 0:
			return remit.Errorf(remit.Conflict, "", "response %s was made already, and has version %d", r.ID, have)
		}
		return remit.Errorf(remit.Conflict, "", "response %s has version %d, and version %d was read: read it again", r.ID, have, read)
	})
	if err != nil {
		return remit.Response{}, err
	}
	return decode[remit.Response]([]byte(doc))
}

// plainResponse brings the times of r into the form that is kept. What the
// caller holds stays as it is.
func plainResponse(r *remit.Response) {
	r.Made, r.Changed, r.Expires, r.Due = plainTime(r.Made), plainTime(r.Changed), plainTime(r.Expires), plainTime(r.Due)
	r.Steps, r.Used, r.History = slices.Clone(r.Steps), slices.Clone(r.Used), slices.Clone(r.History)
	for i := range r.Steps {
		r.Steps[i].Done = plainTime(r.Steps[i].Done)
	}
	for i := range r.Used {
		r.Used[i].First, r.Used[i].Last = plainTime(r.Used[i].First), plainTime(r.Used[i].Last)
	}
	for i := range r.History {
		r.History[i].Time = plainTime(r.History[i].Time)
	}
}

// responseDoc writes r so that what a step is to put back comes back as it was
// given, but for white space: what is raw is not escaped anew. Raw is also where
// bytes that are not UTF-8 come past the encoder.
func responseDoc(r *remit.Response) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return "", err
	}
	return cleanText(strings.TrimSuffix(b.String(), "\n")), nil
}

// Responses lists responses, the newest first and of those of one microsecond
// the greatest ID; see [remit.ResponseStore]. There is no other order.
func (s *Store) Responses(ctx context.Context, f remit.ResponseFilter, page remit.PageRequest) ([]remit.Response, string, error) {
	const op, list = "list responses", string(remit.KindResponse)
	out, next := []remit.Response{}, ""
	err := s.read(ctx, op, func(r *reader) error {
		if page.Sort != "" {
			return remit.Errorf(remit.Invalid, "", "no order %q: responses come the newest first", page.Sort)
		}
		limit, err := pageLimit(page)
		if err != nil {
			return err
		}
		after, err := readCursor(page.After, list, f, orderNewest)
		if err != nil {
			return err
		}
		var last []any
		query, args := responseQuery(r.engine, f, after)
		return r.query(ctx, query, append(args, limit+1), func(rows *sql.Rows) error {
			if len(out) == limit {
				next = writeCursor(list, f, orderNewest, last)
				return nil
			}
			var made int64
			var id string
			var doc []byte
			if err := rows.Scan(&made, &id, &doc); err != nil {
				return err
			}
			one, err := decode[remit.Response](doc)
			out, last = append(out, one), []any{made, id}
			return err
		})
	})
	if err != nil {
		return nil, "", err
	}
	return out, next, nil
}

// responseQuery writes the query of a page, without its limit. A filter that
// chooses few rows is looked up in its index and they are sorted; without one
// the list is walked in its order. Every other column is hidden, so that the
// engine does not choose otherwise.
func responseQuery(e engine, f remit.ResponseFilter, after []any) (query string, args []any) {
	driver := ""
	switch {
	case len(f.IDs) > 0:
		driver = "id"
	case len(f.Subjects) > 0:
		driver = "subject"
	case len(f.States) > 0 && !slices.ContainsFunc(f.States, ended):
		driver = "state"
	}
	column := func(name string) string {
		if walked := driver == "" && name != "state"; walked || name == driver {
			return name
		}
		if name == "system" {
			name = "responses.system" // a text here, and in other tables a number: see numberColumns
		}
		return e.hide(name)
	}
	var c conditions
	if f.System != "" {
		c.term(column("system")+" = ?", columnText(string(f.System)))
	}
	for _, l := range []listTerm{{"id", columnTexts(f.IDs)}, {"subject", columnTexts(f.Subjects)}, {"state", columnTexts(f.States)}} {
		if len(l.values) > 0 {
			c.term(e.in(column(l.column)), e.texts(l.values))
		}
	}
	if after != nil {
		c.term("("+orderNewest.list(column)+") < (?, ?)", after...)
	}
	where := ""
	if len(c.terms) > 0 {
		where = " WHERE " + strings.Join(c.terms, " AND ")
	}
	descending := orderNewest.list(func(name string) string { return column(name) + " DESC" })
	return "SELECT made, id, doc FROM responses" + where + " ORDER BY " + descending + " LIMIT ?", c.args
}

// ended says whether responses gather in that state, where nothing is left to do
// for a worker.
func ended(s remit.ResponseState) bool {
	switch s {
	case remit.ResponseProposed, remit.ResponseApproved, remit.ResponseRunning, remit.ResponseUndoing:
		return false
	}
	return true
}
