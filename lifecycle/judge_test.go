package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"remit"
	"remit/lifecycle"
	"remit/store/sqlstore"
)

const day = 24 * time.Hour

// world is a store with one system, whose clock a test moves.
type world struct {
	testing.TB
	store  *sqlstore.Store
	system remit.System
	run    remit.InventoryRun
	now    time.Time
	judge  *lifecycle.Judge
}

func newWorld(t testing.TB, c *lifecycle.Config) *world {
	t.Helper()
	store, err := sqlstore.Open(t.Context(), filepath.Join(t.TempDir(), "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	w := &world{TB: t, store: store, now: time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC)}
	w.system = remit.System{ID: remit.SystemID("kubernetes", "1"), Connector: "kubernetes", Name: "prod", Observed: w.now}
	w.must(store.PutSystem(t.Context(), w.system))
	w.run, err = store.StartRun(t.Context(), w.system.ID)
	w.must(err)
	w.judge = lifecycle.NewJudge(c, store)
	w.judge.Now = func() time.Time { return w.now }
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) put(r remit.Records, gone ...remit.ID) []remit.ID {
	w.Helper()
	changes, err := w.run.Apply(w.Context(), "all", w.now, r, gone)
	w.must(err)
	return changes.Touched
}

func (w *world) record(kind, name string, age int) remit.Record {
	ref := remit.Ref{Kind: kind, Namespace: "ci", Name: name}
	r := remit.Record{System: w.system.ID, Ref: ref, Created: w.now.AddDate(0, 0, -age)}
	if kind == "Secret" {
		r.ID = remit.CredentialID(w.system.ID, ref, "token")
	} else {
		r.ID = remit.IdentityID(w.system.ID, ref)
	}
	return r
}

func (w *world) account(name string) remit.Identity {
	return remit.Identity{Record: w.record("ServiceAccount", name, 500), Type: remit.ServiceAccount, Status: remit.Active}
}

func (w *world) token(name string, age int) remit.Credential {
	return remit.Credential{
		Record: w.record("Secret", name, age), Type: remit.StaticToken, Status: remit.Active, Key: "token", NeverExpires: true,
		Identity: w.account("runner").ID, Holder: w.account("runner").Ref,
	}
}

// told lists what stands: "policy name severity".
func (w *world) told() []string {
	w.Helper()
	var out []string
	for _, f := range w.findings(remit.FindingFilter{Policies: lifecycle.FindingPolicies(), States: []remit.FindingState{remit.Open, remit.Suppressed}}) {
		out = append(out, f.Policy+" "+f.Subject.Name+" "+string(f.Severity))
	}
	slices.Sort(out)
	return out
}

func (w *world) findings(f remit.FindingFilter) []remit.Finding {
	w.Helper()
	some, _, err := w.store.Findings(w.Context(), f, remit.PageRequest{Limit: 1000})
	w.must(err)
	return some
}

func (w *world) expect(what string, want ...string) {
	w.Helper()
	if got := w.told(); !slices.Equal(got, want) {
		w.Errorf("%s: %q; want %q", what, got, want)
	}
}

func (w *world) whole() {
	w.Helper()
	w.must(w.judge.EvaluateSystem(w.Context(), w.system.ID))
}

func (w *world) changed(touched []remit.ID) {
	w.Helper()
	w.must(w.judge.EvaluateSubjects(w.Context(), w.system.ID, touched))
}

func (w *world) later(d time.Duration) { w.now = w.now.Add(d) }

func tokens(p lifecycle.Policy) *lifecycle.Config {
	p.Name = "tokens"
	return &lifecycle.Config{Policies: []lifecycle.Policy{p}}
}

// TestLimitIsToldThenRevoked holds that a credential which is too old long before
// Remit sees it is told first, and to be revoked only when the grace has passed
// since; that a restart loses nothing; that what is suppressed is held; and that
// all of it resolves when the credential goes, and begins anew when it comes back.
func TestLimitIsToldThenRevoked(t *testing.T) {
	c := tokens(lifecycle.Policy{MaxAge: lifecycle.Span(90 * day)})
	w := newWorld(t, c)
	old := w.token("old", 400)
	w.put(remit.Records{Identities: []remit.Identity{w.account("runner")}, Credentials: []remit.Credential{old, w.token("young", 3)}})
	w.whole()
	w.expect("at first", "lifecycle-max-age old medium")
	f := w.findings(remit.FindingFilter{Policies: []string{lifecycle.PolicyMaxAge}})[0]
	if f.Identity != w.account("runner").ID || !strings.Contains(f.Message, "on 2026-03-17 it is to be revoked") {
		t.Errorf("%s of %s", f.Message, f.Identity)
	}

	w.later(13 * day)
	w.judge = lifecycle.NewJudge(c, w.store) // restarted
	w.judge.Now = func() time.Time { return w.now }
	w.changed([]remit.ID{old.ID})
	w.expect("in grace", "lifecycle-max-age old medium")

	w.later(day)
	w.must(w.store.SetFindingState(t.Context(), f.ID, remit.Suppressed, w.now.Add(2*day), w.now))
	w.later(time.Second)
	w.whole()
	w.expect("suppressed", "lifecycle-max-age old medium")
	w.later(2 * day)
	w.whole()
	w.expect("after its grace", "lifecycle-max-age old high", "lifecycle-revoke old high")

	w.later(time.Second)
	w.changed(w.put(remit.Records{}, old.ID))
	w.expect("gone")
	w.later(time.Second)
	w.changed(w.put(remit.Records{Credentials: []remit.Credential{old}}))
	w.expect("made again", "lifecycle-max-age old medium")

	rotated := old
	rotated.Rotated = w.now
	w.later(time.Second)
	w.changed(w.put(remit.Records{Credentials: []remit.Credential{rotated}}))
	w.expect("rotated")
}

// TestFindingsOfOthersStay holds that neither evaluation resolves what the other
// found on the same subject.
func TestFindingsOfOthersStay(t *testing.T) {
	w := newWorld(t, tokens(lifecycle.Policy{MaxAge: lifecycle.Span(90 * day)}))
	old := w.token("old", 400)
	w.put(remit.Records{Credentials: []remit.Credential{old}})
	other := remit.Finding{
		ID: remit.FindingID("credential-not-rotated", old.ID), Policy: "credential-not-rotated", Severity: remit.Low, System: w.system.ID,
		Subject: remit.Subject{Record: remit.KindCredential, Ref: old.Ref, ID: old.ID}, Message: "x", Evidence: []remit.Fact{},
	}
	_, err := w.store.PutFindings(t.Context(), w.now.Add(-time.Hour), []remit.Finding{other})
	w.must(err)
	w.whole()
	w.changed([]remit.ID{old.ID})
	if got := w.findings(remit.FindingFilter{Policies: []string{other.Policy}}); len(got) != 1 || got[0].State != remit.Open {
		t.Errorf("the policy's finding: %+v", got)
	}
	_, err = w.store.ResolveFindings(t.Context(), remit.FindingScope{System: w.system.ID, Policies: []string{other.Policy}}, w.now.Add(time.Hour), w.now.Add(time.Hour))
	w.must(err)
	w.expect("after the policies were evaluated", "lifecycle-max-age old medium")
}

// TestPoliciesTakenAway holds that with the configuration its findings go.
func TestPoliciesTakenAway(t *testing.T) {
	c := tokens(lifecycle.Policy{MaxAge: lifecycle.Span(90 * day)})
	w := newWorld(t, c)
	w.put(remit.Records{Credentials: []remit.Credential{w.token("old", 400)}})
	w.whole()
	w.expect("at first", "lifecycle-max-age old medium")
	w.later(time.Second)
	w.judge = lifecycle.NewJudge(&lifecycle.Config{}, w.store)
	w.judge.Now = func() time.Time { return w.now }
	w.whole()
	w.expect("without policies")
}

// TestIdle holds that a use in the log or in the inventory counts, that only a log
// which comes in says that something is idle, and that what could not be read says
// nothing.
func TestIdle(t *testing.T) {
	w := newWorld(t, tokens(lifecycle.Policy{MaxIdle: lifecycle.Span(30 * day)}))
	logged, labelled, silent := w.token("logged", 400), w.token("labelled", 400), w.token("silent", 400)
	logged.Native = "JTI=1"
	labelled.LastUsed = w.now.Add(-50 * day)
	w.put(remit.Records{Credentials: []remit.Credential{logged, labelled, silent}})
	event := func(newest time.Duration) {
		t.Helper()
		w.must(w.store.Checkpoint(t.Context(), remit.Checkpoint{
			Now:       w.now,
			Lineage:   []remit.Lineage{{System: w.system.ID, Credential: "JTI=1", Root: "JTI=1", Identity: logged.Identity, First: w.now.Add(-200 * day), Last: w.now.Add(-40 * day), Uses: 5}},
			Presences: []remit.Presence{{System: w.system.ID, Identity: logged.Identity, Actor: logged.Holder, First: w.now.Add(-200 * day), Last: w.now.Add(-newest), Count: 5}},
		}))
	}
	event(40 * day)
	w.whole()
	w.expect("the log has stopped", "lifecycle-idle labelled medium")
	event(time.Minute)
	w.later(time.Second)
	w.whole()
	w.expect("the log comes in", "lifecycle-idle labelled medium", "lifecycle-idle logged medium")

	w.system.Gaps = []remit.Gap{{Section: "secrets", Reason: "forbidden"}}
	w.must(w.store.PutSystem(t.Context(), w.system))
	w.later(time.Second)
	w.whole()
	w.expect("the inventory has a gap", "lifecycle-idle logged medium")
}

// TestRotationUnderWay holds that what is being rotated is not to be revoked, even
// when its grace has passed: its successor may not be in use yet.
func TestRotationUnderWay(t *testing.T) {
	c := tokens(lifecycle.Policy{MaxAge: lifecycle.Span(90 * day)})
	w := newWorld(t, c)
	old := w.token("old", 400)
	w.put(remit.Records{Credentials: []remit.Credential{old}})
	w.whole()
	plan := remit.Response{
		ID: remit.ResponseID(old.ID, remit.Rotate, w.now), System: w.system.ID, Action: remit.Rotate,
		Subject: remit.Subject{Record: remit.KindCredential, Ref: old.Ref, ID: old.ID}, State: remit.ResponseRunning, Made: w.now,
	}
	plan, err := w.store.PutResponse(t.Context(), plan)
	w.must(err)
	w.later(20 * day)
	w.whole()
	w.expect("rotating", "lifecycle-max-age old medium")
	status, err := lifecycle.NewStatus(t.Context(), c, w.store, lifecycle.Filter{}, w.now)
	w.must(err)
	for s, err := range status.Standings(t.Context()) {
		w.must(err)
		if s.Response != plan.ID || s.State != remit.LifecycleInGrace {
			t.Errorf("%+v", s)
		}
	}
	plan.State = remit.ResponseFailed
	_, err = w.store.PutResponse(t.Context(), plan)
	w.must(err)
	w.later(time.Second)
	w.whole()
	w.expect("failed", "lifecycle-max-age old high", "lifecycle-revoke old high")
}

// slowly is a store that lets something happen after it has listed credentials.
type slowly struct {
	*sqlstore.Store
	then func()
}

func (s *slowly) Credentials(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Credential, string, error) {
	some, next, err := s.Store.Credentials(ctx, f, page)
	if then := s.then; then != nil {
		s.then = nil
		then()
	}
	return some, next, err
}

// TestJudgedAtOnce changes a credential after a judgement of the whole system has
// read it: what that read must not stand in the end, nor must it resolve what was
// told meanwhile.
func TestJudgedAtOnce(t *testing.T) {
	for _, mended := range []bool{true, false} {
		c := tokens(lifecycle.Policy{MaxAge: lifecycle.Span(90 * day)})
		w := newWorld(t, c)
		w.now = time.Now().UTC()
		store := &slowly{Store: w.store}
		w.judge = lifecycle.NewJudge(c, store)
		old := w.token("old", 400)
		rotated := old
		rotated.Rotated = w.now
		before, after := old, rotated
		if !mended {
			before, after = rotated, old
		}
		w.put(remit.Records{Credentials: []remit.Credential{before}})
		judged := make(chan error, 1)
		store.then = func() {
			touched := w.put(remit.Records{Credentials: []remit.Credential{after}})
			go func() { judged <- w.judge.EvaluateSubjects(t.Context(), w.system.ID, touched) }()
			time.Sleep(200 * time.Millisecond) // it would be done by then, if nothing kept it
		}
		w.whole()
		w.must(<-judged)
		if mended {
			w.expect("rotated meanwhile")
		} else {
			w.expect("grown old meanwhile", "lifecycle-max-age old medium")
		}
	}
}

// TestRun holds that the clock alone makes findings, each at its moment and not
// before, and that a change wakes it.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		grace := lifecycle.Span(30 * time.Minute)
		w := newWorld(t, tokens(lifecycle.Policy{
			MaxAge: lifecycle.Span(time.Hour), Grace: &grace, Notices: &[]lifecycle.Span{lifecycle.Span(10 * time.Minute)},
		}))
		begin := time.Now().UTC()
		w.now, w.judge.Now = begin, nil
		w.put(remit.Records{Credentials: []remit.Credential{w.token("fresh", 0)}})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.judge.Run(ctx) }()
		for _, at := range []struct {
			minute int
			want   []string
		}{
			{49, nil},
			{51, []string{"lifecycle-notice fresh medium"}},
			{59, []string{"lifecycle-notice fresh medium"}},
			{61, []string{"lifecycle-max-age fresh medium"}},
			{89, []string{"lifecycle-max-age fresh medium"}},
			{92, []string{"lifecycle-max-age fresh high", "lifecycle-revoke fresh high"}},
		} {
			time.Sleep(time.Until(begin.Add(time.Duration(at.minute) * time.Minute)))
			synctest.Wait()
			w.expect(fmt.Sprintf("minute %d", at.minute), at.want...)
		}
		// A change brings a moment that comes before all others.
		w.now = time.Now().UTC()
		soon := w.token("soon", 0)
		soon.Issued = w.now.Add(-49 * time.Minute)
		w.changed(w.put(remit.Records{Credentials: []remit.Credential{soon}}))
		time.Sleep(62 * time.Second)
		synctest.Wait()
		w.expect("a change", "lifecycle-max-age fresh high", "lifecycle-notice soon medium", "lifecycle-revoke fresh high")
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		w.store.Close()
	})
}
