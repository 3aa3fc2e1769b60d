package sqlstore

import (
	"context"
	"slices"

	"remit"
)

// Findings lists findings; see [remit.FindingStore]. Beside the orders of
// records there is "severity", the worst first and then by name, which is the
// order when none is asked for.
func (s *Store) Findings(ctx context.Context, f remit.FindingFilter, page remit.PageRequest) ([]remit.Finding, string, error) {
	const op, list = "list findings", string(remit.KindFinding)
	var out []remit.Finding
	next := ""
	err := s.read(ctx, op, func(r *reader) error {
		o := orderWorst
		if page.Sort != "" && page.Sort != orderWorst.name {
			var err error
			if o, err = recordOrder(page.Sort, false); err != nil {
				return remit.Errorf(remit.Invalid, "", "no order %q: use severity, name, kind, created or id", page.Sort)
			}
		}
		limit, err := pageLimit(page)
		if err != nil {
			return err
		}
		after, err := readCursor(page.After, list, f, o)
		if err != nil {
			return err
		}
		src, err := findingSource(r.engine, f)
		if err != nil {
			return err
		}
		hits, err := r.list(ctx, []source{src}, o, after, limit+1)
		if err != nil {
			return err
		}
		if len(hits) > limit {
			hits = hits[:limit]
			next = writeCursor(list, f, o, hits[limit-1].position)
		}
		out = make([]remit.Finding, len(hits))
		for i, h := range hits {
			if out[i], err = decodeFinding(h.doc); err != nil {
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

// findingSource turns a filter into a source. Its scope are the states.
func findingSource(e engine, f remit.FindingFilter) (source, error) {
	src := source{table: "findings", value: findingDoc, scope: scope{column: "state", texts: append(slices.Clone(unresolved), string(remit.Resolved))}}
	if len(f.States) > 0 {
		src.scope.texts = columnTexts(f.States)
		slices.Sort(src.scope.texts)
		src.scope.texts = slices.Compact(src.scope.texts)
	}
	b := filterBuilder{engine: e, kindHas: func(string) bool { return true }, ok: true}
	b.texts("id", columnTexts(f.IDs), inCurrent)
	b.texts("subject", columnTexts(f.Subjects), inCurrent)
	if len(f.Identities) > 0 {
		ids := e.texts(columnTexts(f.Identities))
		b.terms = append(b.terms, term{
			sql: "{} IN (SELECT key FROM findings WHERE " + e.in("subject") +
				" UNION SELECT key FROM findings WHERE " + e.in("identity") + " AND identity <> '')",
			columns: []string{"key"}, args: []any{ids, ids}, served: inCurrent,
		})
	}
	if words := searchWords(f.Search); len(words) > 0 {
		match := nameMatcher(f.Search)
		b.terms = append(b.terms, searchTerm(e, "findings", words))
		src.keep = func(column string, doc []byte) (bool, error) {
			name, whole := wholeText(column)
			if !whole {
				finding, err := decodeFinding(doc)
				if err != nil {
					return false, err
				}
				name = finding.Subject.Name
			}
			return match(name), nil
		}
	}
	b.texts("namespace", columnTexts(f.Namespaces), inCurrent|inScope)
	b.texts("policy", columnTexts(f.Policies), inCurrent)
	if len(f.Risks) > 0 {
		b.terms = append(b.terms, term{
			sql:     "{} IN (SELECT finding FROM finding_risks WHERE " + e.in("risk") + ")",
			columns: []string{"key"}, args: []any{e.texts(columnTexts(f.Risks))}, served: inCurrent,
		})
	}
	if f.System != "" {
		b.terms = append(b.terms, term{
			sql:     "{} = (SELECT key FROM systems WHERE id = ?)",
			columns: []string{"system"}, args: []any{columnText(string(f.System))}, served: inCurrent,
		})
	}
	if f.MinimumSeverity != "" {
		if f.MinimumSeverity.Rank() == 0 {
			_, err := remit.ParseSeverity(string(f.MinimumSeverity))
			return source{}, err
		}
		b.terms = append(b.terms, compare("weight", "<=", weightOf(f.MinimumSeverity), inCurrent|inScope))
	}
	src.terms = b.terms
	return src, nil
}
