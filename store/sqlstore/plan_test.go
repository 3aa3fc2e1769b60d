package sqlstore

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"remit"
)

// TestIndexesServe asks SQLite how it would answer: each filter that claims an
// index is looked up in one, and a page of each order is read along one, without
// sorting.
func TestIndexesServe(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.read(t.Context(), "plan", func(r *reader) error {
		p := planner{t, r}
		checkPlans(p, identities, "name", "kind", "created", "expires", "id")
		checkPlans(p, credentials, "name", "kind", "created", "expires", "id")
		checkPlans(p, roles, "name", "kind", "created", "id")
		checkPlans(p, grants, "name", "kind", "created", "expires", "id")
		checkPlans(p, relations, "name", "kind", "created", "id")
		checkPlans(p, resources, "name", "kind", "created", "id")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestResponseIndexesServe does the same for lists of responses: what chooses
// few is looked up and sorted, and all else walked in the order of the list.
func TestResponseIndexesServe(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ids := []remit.ID{"x"}
	live := []remit.ResponseState{remit.ResponseApproved, remit.ResponseRunning}
	for _, c := range []struct {
		f     remit.ResponseFilter
		index string
		sorts bool
	}{
		{remit.ResponseFilter{}, "responses_by_made", false},
		{remit.ResponseFilter{System: "x"}, "responses_by_system", false},
		{remit.ResponseFilter{States: []remit.ResponseState{remit.ResponseVerified}}, "responses_by_made", false},
		{remit.ResponseFilter{System: "x", States: append(live, remit.ResponseFailed)}, "responses_by_system", false},
		{remit.ResponseFilter{States: live}, "responses_by_state", true},
		{remit.ResponseFilter{System: "x", Subjects: ids, States: live}, "responses_by_subject", true},
		{remit.ResponseFilter{System: "x", IDs: ids, Subjects: ids, States: live}, "sqlite_autoindex_responses", true},
	} {
		for _, after := range [][]any{nil, {int64(1), "x"}} {
			err := s.read(t.Context(), "plan", func(r *reader) error {
				query, args := responseQuery(r.engine, c.f, after)
				plan := planner{t, r}.plan(query, append(args, 10))
				if !strings.Contains(plan, c.index) || strings.Contains(plan, "TEMP B-TREE FOR ORDER") != c.sorts {
					t.Errorf("%+v: %s", c.f, plan)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

type planner struct {
	t *testing.T
	r *reader
}

func (p planner) plan(query string, args []any) string {
	p.t.Helper()
	var steps []string
	err := p.r.query(context.Background(), "EXPLAIN QUERY PLAN "+query, args, func(rows *sql.Rows) error {
		var a, b, c int
		var detail string
		err := rows.Scan(&a, &b, &c, &detail)
		steps = append(steps, detail)
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.Join(steps, "; ")
}

func checkPlans[T any](p planner, k *kind[T], sorts ...string) {
	no := false
	ids, texts := []remit.ID{"x"}, []string{"x"}
	for _, f := range []remit.Filter{
		{IDs: ids},
		{Kinds: texts},
		{Namespaces: texts},
		{Names: texts},
		{Types: texts},
		{Statuses: []remit.Status{remit.Disabled}},
		{Environments: texts},
		{BuiltIn: new(true)},
		{Search: "x"},
		{Identities: ids},
		{To: ids},
		{Grantors: ids},
		{RoleIDs: ids},
		{Locations: ids},
		{Owner: "x"},
		{Unowned: true},
		{Natives: texts},
		{Fingerprints: texts},
		{Providers: texts},
		{ExpiresBefore: latest},
		{UsedBefore: latest},
		{NeverExpires: &no},
	} {
		src, ok := filterSource(p.r.engine, k, f, false)
		if !ok {
			continue
		}
		src.scope = scope{column: "system", keys: []int64{1, 2}}
		served := false
		for i, term := range src.terms {
			if term.served&inCurrent == 0 {
				continue
			}
			served = true
			query, args := probe(p.r.engine, src, term)
			if plan := p.plan(query, append(args, 10)); scans(plan, src.table) {
				p.t.Errorf("%s %+v: %s", k.name, f, plan)
			}
			part := src.scope.whole(p.r.engine)
			query, args = walkQuery(p.r.engine, src, part, i, orderNames)
			if plan := p.plan(query, append(args, 10)); scans(plan, src.table) || strings.Contains(plan, "_by_name") && len(f.Namespaces) == 0 {
				p.t.Errorf("%s %+v, sorted: %s", k.name, f, plan)
			}
		}
		if !served {
			p.t.Errorf("%s: no index serves %+v", k.name, f)
		}
	}
	for _, sort := range sorts {
		o, err := recordOrder(sort, k.has("expires"))
		if err != nil {
			p.t.Fatal(err)
		}
		src, _ := filterSource(p.r.engine, k, remit.Filter{Types: texts, Statuses: []remit.Status{remit.Active}}, false)
		src.scope = scope{column: "system", keys: []int64{1}}
		for _, l := range p.r.lanes(src, o, -1, nil) {
			query, args := walkQuery(p.r.engine, src, l.part, -1, l.order)
			plan := p.plan(query, append(args, 10))
			if !strings.Contains(plan, "_by_"+l.order.name) || strings.Contains(plan, "TEMP B-TREE FOR ORDER") {
				p.t.Errorf("%s by %s: %s", k.name, sort, plan)
			}
		}
	}
}

// scans says whether a plan reads a whole table.
func scans(plan, table string) bool {
	return strings.Contains(plan+";", "SCAN "+table+";") || strings.Contains(plan, "SCAN "+table+" ")
}
