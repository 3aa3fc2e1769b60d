package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"remit"
)

// findingBatch is how many findings one transaction writes.
const findingBatch = 1000

// stored is a finding as the store has it. When it was last put stands in a
// column and not in the record, so that confirming a finding of which nothing
// else has changed, which is what most evaluations do, writes one number.
type stored struct {
	key    int64
	system int64
	putAt  int64
	doc    string
	remit.Finding
}

var findingColumns = []columnShape{
	{name: "id", typ: textColumn},
	{name: "system", typ: intColumn},
	{name: "policy", typ: textColumn},
	{name: "state", typ: textColumn},
	{name: "weight", typ: smallColumn},
	{name: "subject", typ: textColumn},
	{name: "identity", typ: textColumn},
	{name: "kind", typ: textColumn},
	{name: "namespace", typ: textColumn},
	{name: "name", typ: textColumn},
	{name: "created", typ: intColumn},
	{name: "put_at", typ: intColumn},
	{name: "doc", typ: textColumn},
}

// weightOf orders severities from the worst, 0, to an unknown one.
func weightOf(s remit.Severity) int64 { return int64(len(remit.Severities) - s.Rank()) }

// findingWrite gathers what one transaction writes of findings.
type findingWrite struct {
	*tx
	counts  counter
	added   []*stored
	changed []*stored
	same    []int64 // keys of those that were only confirmed
	renamed []*stored
}

// count adds by to what a finding counts for, as long as it is not resolved.
func (w *findingWrite) count(f *stored, by int64) {
	if f.State == remit.Resolved {
		return
	}
	add := w.counts.of(f.system, remit.KindFinding, by)
	add("", "")
	add("severity", string(f.Severity))
	add("policy", f.Policy)
	add("state", string(f.State))
	for i, risk := range f.Risks {
		if !slices.Contains(f.Risks[:i], risk) {
			add("risk", risk)
		}
	}
}

// PutFindings opens, confirms and opens again; see [remit.FindingStore]. Of
// several findings with one ID the last counts. A new finding keeps a First
// that it brings, when that is before now. A suppression that has lapsed opens
// the finding, which counts as confirmed. It writes a thousand in each
// transaction; when one fails, those before it stand, and putting all again is
// right. [remit.Invalid] when an ID is not one of a finding.
func (s *Store) PutFindings(ctx context.Context, now time.Time, findings []remit.Finding) (remit.FindingChanges, error) {
	const op = "put findings"
	now = plainTime(now)
	last := make(map[remit.ID]int, len(findings))
	for i, f := range findings {
		if f.ID.Kind() != remit.KindFinding || !plainID(f.ID) {
			return remit.FindingChanges{}, remit.Errorf(remit.Invalid, op, "%q is not the ID of a finding", string(f.ID))
		}
		last[f.ID] = i
	}
	var batch []remit.Finding
	var sum remit.FindingChanges
	for i, f := range findings {
		if last[f.ID] == i {
			batch = append(batch, f)
		}
		if len(batch) < findingBatch && i < len(findings)-1 {
			continue
		}
		done, err := s.putFindings(ctx, op, now, batch)
		sum.Opened += done.Opened
		sum.Reopened += done.Reopened
		sum.Confirmed += done.Confirmed
		if err != nil {
			return sum, err
		}
		batch = batch[:0]
	}
	return sum, nil
}

func (s *Store) putFindings(ctx context.Context, op string, now time.Time, batch []remit.Finding) (remit.FindingChanges, error) {
	var done remit.FindingChanges
	if len(batch) == 0 {
		return done, nil
	}
	var systems []string
	ids := make([]string, len(batch))
	for i, f := range batch {
		systems = append(systems, columnText(string(f.System)))
		ids[i] = string(f.ID)
	}
	slices.Sort(systems)
	systems = slices.Compact(systems)
	err := s.write(ctx, op, func(t *tx) error {
		done = remit.FindingChanges{}
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
		for _, f := range batch {
			next := &stored{system: keys[columnText(string(f.System))], putAt: micros(now), Finding: f}
			next.put(at[f.ID], now, &done)
			if err := w.stage(at[f.ID], next); err != nil {
				return err
			}
		}
		return w.flush(ctx, micros(now))
	})
	return done, err
}

// put sets the state of a finding that an evaluation has found, from what was
// known of it.
func (f *stored) put(before *stored, now time.Time, done *remit.FindingChanges) {
	if before == nil {
		f.State, f.Last = remit.Open, now
		f.Resolved, f.SuppressedUntil, f.Reopened = time.Time{}, time.Time{}, 0
		if f.First = plainTime(f.First); f.First.IsZero() || f.First.After(now) {
			f.First = now
		}
		done.Opened++
		return
	}
	f.key = before.key
	f.First, f.Last, f.State = before.First, before.Last, before.State
	f.Resolved, f.SuppressedUntil, f.Reopened = time.Time{}, before.SuppressedUntil, before.Reopened
	switch {
	case before.State == remit.Resolved:
		f.State, f.Last, f.SuppressedUntil = remit.Open, now, time.Time{}
		f.Reopened++
		done.Opened++
		done.Reopened++
		return
	case before.State == remit.Suppressed && !now.Before(before.SuppressedUntil):
		f.State, f.Last, f.SuppressedUntil = remit.Open, now, time.Time{}
	}
	done.Confirmed++
}

// stage notes what has to be written for a finding that was before, or nil.
func (w *findingWrite) stage(before, next *stored) error {
	doc, err := json.Marshal(next.Finding)
	if err != nil {
		return remit.Errorf(remit.Internal, "", "finding %s: %w", next.ID, err)
	}
	next.doc = string(doc)
	switch {
	case before == nil:
		w.added = append(w.added, next)
	case before.doc == next.doc && before.system == next.system:
		w.same = append(w.same, next.key)
		return nil
	default:
		w.count(before, -1)
		w.changed = append(w.changed, next)
		if before.Subject.Name != next.Subject.Name {
			w.renamed = append(w.renamed, next)
		}
	}
	w.count(next, 1)
	return nil
}

// flush writes what was staged.
func (w *findingWrite) flush(ctx context.Context, now int64) error {
	if len(w.same) > 0 {
		err := w.exec(ctx, "UPDATE findings SET put_at = ? WHERE "+w.in("key"), now, w.keys(w.same))
		if err != nil {
			return err
		}
	}
	if err := w.insertAdded(ctx); err != nil {
		return err
	}
	if err := w.replaceChanged(ctx); err != nil {
		return err
	}
	return w.counts.write(ctx, w.tx)
}

func (w *findingWrite) insertAdded(ctx context.Context) error {
	at := make(map[string]*stored, len(w.added))
	rows := make([][]any, len(w.added))
	for i, f := range w.added {
		at[string(f.ID)] = f
		rows[i] = w.row(f)
	}
	err := w.insert(ctx, w.tx, "findings", w.columns(false), rows, "", func(id string, key int64) { at[id].key = key })
	if err != nil {
		return err
	}
	if err := w.putFindingWords(ctx, w.added); err != nil {
		return err
	}
	return w.putRisks(ctx, w.added)
}

func (w *findingWrite) replaceChanged(ctx context.Context) error {
	if len(w.changed) == 0 {
		return nil
	}
	rows := make([][]any, len(w.changed))
	for i, f := range w.changed {
		rows[i] = append([]any{f.key}, w.row(f)...)
	}
	columns := w.columns(true)
	if err := w.insert(ctx, w.tx, "findings", columns, rows, overwrite(columns), nil); err != nil {
		return err
	}
	if len(w.renamed) > 0 {
		if err := w.dropWords(ctx, w.tx, "findings", keysOf(w.renamed)); err != nil {
			return err
		}
		if err := w.putFindingWords(ctx, w.renamed); err != nil {
			return err
		}
	}
	if err := w.exec(ctx, "DELETE FROM finding_risks WHERE "+w.in("finding"), w.keys(keysOf(w.changed))); err != nil {
		return err
	}
	return w.putRisks(ctx, w.changed)
}

func keysOf(list []*stored) []int64 {
	keys := make([]int64, len(list))
	for i, f := range list {
		keys[i] = f.key
	}
	return keys
}

func (w *findingWrite) columns(withKey bool) []columnShape {
	var out []columnShape
	if withKey {
		out = append(out, columnShape{name: "key", typ: intColumn})
	}
	out = append(out, findingColumns...)
	if w.wordsInRow() {
		out = append(out, columnShape{name: "words", typ: wordsColumn})
	}
	return out
}

func (w *findingWrite) row(f *stored) []any {
	out := []any{
		string(f.ID), f.system, columnText(f.Policy), string(f.State), weightOf(f.Severity),
		columnText(string(f.Subject.ID)), columnText(string(f.Identity)),
		columnText(f.Subject.Kind), columnText(f.Subject.Namespace), columnText(f.Subject.Name),
		micros(f.First), f.putAt, f.doc,
	}
	if w.wordsInRow() {
		out = append(out, indexedWords(f.Subject.Name))
	}
	return out
}

func (w *findingWrite) putFindingWords(ctx context.Context, list []*stored) error {
	rows := make([][]any, len(list))
	for i, f := range list {
		rows[i] = []any{f.key, indexedWords(f.Subject.Name)}
	}
	return w.putWords(ctx, w.tx, "findings", rows)
}

func (w *findingWrite) putRisks(ctx context.Context, list []*stored) error {
	var rows [][]any
	for _, f := range list {
		risks := columnTexts(f.Risks)
		slices.Sort(risks)
		for _, risk := range slices.Compact(risks) {
			rows = append(rows, []any{risk, f.key})
		}
	}
	columns := []columnShape{{name: "risk", typ: textColumn}, {name: "finding", typ: intColumn}}
	return w.insert(ctx, w.tx, "finding_risks", columns, rows, "", nil)
}

// readFindings reads findings to change them.
func readFindings(ctx context.Context, t *tx, where string, args ...any) ([]*stored, error) {
	var out []*stored
	err := t.query(ctx, "SELECT key, system, put_at, doc FROM findings WHERE "+where, args, func(rows *sql.Rows) error {
		f := new(stored)
		if err := rows.Scan(&f.key, &f.system, &f.putAt, &f.doc); err != nil {
			return err
		}
		var err error
		f.Finding, err = decode[remit.Finding]([]byte(f.doc))
		out = append(out, f)
		return err
	})
	return out, err
}

// ResolveFindings resolves what an evaluation did not find again; see
// [remit.FindingStore]. [remit.Invalid] when the scope names no system.
func (s *Store) ResolveFindings(ctx context.Context, scope remit.FindingScope, since, now time.Time) (remit.FindingChanges, error) {
	const op = "resolve findings"
	var sum remit.FindingChanges
	if scope.System == "" {
		return sum, remit.Errorf(remit.Invalid, op, "the scope names no system")
	}
	if len(scope.Policies) == 0 {
		return sum, nil
	}
	since, now = plainTime(since), plainTime(now)
	for {
		n := 0
		err := s.write(ctx, op, func(t *tx) error {
			id := columnText(string(scope.System))
			keys, err := keepSystems(ctx, t, []string{id})
			if err != nil {
				return err
			}
			where := "system = ? AND " + t.in("state") + " AND " + t.in("policy") + " AND put_at < ?"
			args := []any{keys[id], t.texts(unresolved), t.texts(columnTexts(scope.Policies)), micros(since)}
			if len(scope.Subjects) > 0 {
				where += " AND " + t.in("subject")
				args = append(args, t.texts(columnTexts(scope.Subjects)))
			}
			list, err := readFindings(ctx, t, where+" LIMIT ?", append(args, findingBatch)...)
			if err != nil {
				return err
			}
			w := &findingWrite{tx: t, counts: make(counter)}
			for _, f := range list {
				next := *f
				next.State, next.Resolved, next.Last, next.SuppressedUntil = remit.Resolved, now, now, time.Time{}
				if err := w.stage(f, &next); err != nil {
					return err
				}
			}
			n = len(list)
			return w.flush(ctx, micros(now))
		})
		if err != nil {
			return sum, err
		}
		sum.Resolved += n
		if n < findingBatch {
			return sum, nil
		}
	}
}

var unresolved = []string{string(remit.Open), string(remit.Acknowledged), string(remit.Suppressed)}

// SetFindingState changes a state by hand; see [remit.FindingStore]. A finding
// may be suppressed only until a time after now ([remit.Invalid]), and a
// resolved one changes by its return only ([remit.Conflict]).
func (s *Store) SetFindingState(ctx context.Context, id remit.ID, state remit.FindingState, until, now time.Time) error {
	const op = "set finding state"
	until, now = plainTime(until), plainTime(now)
	switch state {
	case remit.Open, remit.Acknowledged:
		until = time.Time{}
	case remit.Suppressed:
		if !until.After(now) {
			return remit.Errorf(remit.Invalid, op, "a finding is suppressed until a time to come: say until when")
		}
	case remit.Resolved:
		return remit.Errorf(remit.Invalid, op, "a finding is resolved by mending what it found: acknowledge or suppress it instead")
	default:
		return remit.Errorf(remit.Invalid, op, "no state %q: use open, acknowledged or suppressed", string(state))
	}
	return s.write(ctx, op, func(t *tx) error {
		key := []any{columnText(string(id))}
		var system int64
		err := t.query(ctx, "SELECT system FROM findings WHERE id = ?", key, func(rows *sql.Rows) error { return rows.Scan(&system) })
		if err != nil {
			return err
		}
		if err := lockSystem(ctx, t, system); err != nil {
			return err
		}
		list, err := readFindings(ctx, t, "id = ?", key...)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return remit.Errorf(remit.NotFound, op, "no finding %q", string(id))
		}
		f := list[0]
		if f.State == remit.Resolved {
			return remit.Errorf(remit.Conflict, op, "finding %s is resolved since %s: it opens by itself when it comes back", id, f.Resolved.Format(time.RFC3339))
		}
		next := *f
		next.State, next.SuppressedUntil, next.Last = state, until, now
		w := &findingWrite{tx: t, counts: make(counter)}
		if err := w.stage(f, &next); err != nil {
			return err
		}
		if len(w.same) > 0 {
			return nil
		}
		return w.flush(ctx, micros(now))
	})
}

// FindingCounts counts unresolved findings from the counters; see
// [remit.FindingStore].
func (s *Store) FindingCounts(ctx context.Context, system remit.ID) ([]remit.FacetCount, error) {
	return s.counts(ctx, "count findings", remit.KindFinding, system)
}

// findingDoc is what a list reads of a finding: when it was put, and the record.
const findingDoc = "put_at || ' ' || doc"

// decodeFinding reads findingDoc: the last confirmation may be younger than
// the record.
func decodeFinding(doc []byte) (remit.Finding, error) {
	at, record, _ := strings.Cut(string(doc), " ")
	f, err := decode[remit.Finding]([]byte(record))
	if err != nil {
		return f, err
	}
	var put int64
	if err := json.Unmarshal([]byte(at), &put); err != nil {
		return f, remit.Errorf(remit.Internal, "read finding", "a stored finding is damaged: %w", err)
	}
	if t := timeOf(put); t.After(f.Last) && f.State != remit.Resolved {
		f.Last = t
	}
	return f, nil
}
