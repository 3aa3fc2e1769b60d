package response_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"remit"
	"remit/connector"
	"remit/response"
	"remit/store/sqlstore"
)

// world is a system whose objects are words, and a connector for it that can be
// made to die: at the call that is numbered so, before its effect or after.
type world struct {
	mu      sync.Mutex
	objects map[string]string
	fail    map[string]error // by object, of Do
	slow    int              // how many verifications say that it is not in effect yet
	changes map[string]int   // of each object

	calls, dieAt int
	after        bool
	orders       []connector.Order
}

// died is what the death of a process looks like to a test.
type died struct{}

func (w *world) call(effect func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	if w.calls == w.dieAt && !w.after {
		panic(died{})
	}
	err := effect()
	if w.calls == w.dieAt {
		panic(died{})
	}
	return err
}

func (w *world) Prepare(context.Context) error { return w.call(func() error { return nil }) }

func (w *world) Plan(_ context.Context, o connector.Order) (connector.Planned, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.orders = append(w.orders, o)
	var p connector.Planned
	for _, name := range []string{"one", "two", "three"} {
		p.Steps = append(p.Steps, remit.Step{
			Object: remit.Ref{Kind: "Object", Name: name}, Does: "empties " + name, Undo: "fills " + name,
			Before: quote(w.objects[name]), After: quote(""),
		})
	}
	return p, nil
}

func quote(s string) json.RawMessage { return json.RawMessage(fmt.Sprintf("%q", s)) }

func (w *world) Do(_ context.Context, s remit.Step) error {
	if err := w.fail[s.Object.Name]; err != nil {
		return w.call(func() error { return err })
	}
	return w.put(s.Object.Name, s.Before, s.After)
}

func (w *world) Undo(_ context.Context, s remit.Step) error {
	return w.put(s.Object.Name, s.After, s.Before)
}

func (w *world) put(name string, from, to json.RawMessage) error {
	return w.call(func() error {
		now := quote(w.objects[name])
		if string(now) == string(to) {
			return nil
		}
		if string(now) != string(from) {
			return remit.Errorf(remit.Conflict, "", "%s is %s, which the plan does not know", name, now)
		}
		var text string
		if err := json.Unmarshal(to, &text); err != nil {
			return err
		}
		w.objects[name] = text
		w.changes[name]++
		return nil
	})
}

func (w *world) Verify(_ context.Context, s remit.Step) error {
	return w.call(func() error {
		if w.slow > 0 {
			w.slow--
			return remit.Errorf(remit.Conflict, "", "not yet")
		}
		if string(quote(w.objects[s.Object.Name])) != string(s.After) {
			return remit.Errorf(remit.Conflict, "", "%s is not empty", s.Object.Name)
		}
		return nil
	})
}

func newWorld() *world {
	return &world{
		objects: map[string]string{"one": "1", "two": "2", "three": "3"}, changes: map[string]int{}, fail: map[string]error{},
	}
}

var (
	system  = remit.SystemID("kubernetes", "test")
	account = remit.Ref{Kind: "ServiceAccount", Namespace: "shop", Name: "worker"}
	now     = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
)

func request() response.Request {
	id := remit.IdentityID(system, account)
	return response.Request{
		System: system, Action: remit.Contain, Identity: account, IdentityID: id,
		Subject: remit.Subject{Record: remit.KindIdentity, Ref: account, ID: id}, AskedBy: "alice",
	}
}

func open(t *testing.T) *sqlstore.Store {
	t.Helper()
	store, err := sqlstore.Open(t.Context(), filepath.Join(t.TempDir(), "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	if err := store.PutSystem(t.Context(), remit.System{ID: system, Connector: "kubernetes", Name: "test", Native: "test"}); err != nil {
		t.Fatal(err)
	}
	return store
}

func responses(store *sqlstore.Store, w *world, set ...func(*response.Options)) *response.Responses {
	o := response.Options{
		Store: store, Wait: 300 * time.Millisecond, Now: func() time.Time { return now },
		Enforcer:  func(context.Context, remit.ID) (connector.Enforcer, error) { return w, nil },
		Approvals: func(remit.ID) int { return 0 },
	}
	for _, f := range set {
		f(&o)
	}
	return response.New(o)
}

func propose(t *testing.T, s *response.Responses) remit.Response {
	t.Helper()
	plan, err := s.Plan(t.Context(), request())
	if err == nil {
		plan, err = s.Propose(t.Context(), plan)
	}
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// TestCarryOutAndUndo does a plan, waits until it is in effect, and undoes it.
func TestCarryOutAndUndo(t *testing.T) {
	w, store := newWorld(), open(t)
	w.slow = 2
	s := responses(store, w)
	plan := propose(t, s)
	if w.calls != 0 {
		t.Fatal("a plan has changed something")
	}
	got, err := s.CarryOut(t.Context(), plan.ID)
	if err != nil || got.State != remit.ResponseVerified {
		t.Fatalf("%s, %v", got.State, err)
	}
	for name, text := range w.objects {
		if text != "" || w.changes[name] != 1 {
			t.Errorf("%s is %q after %d changes", name, text, w.changes[name])
		}
	}
	if got, err = s.Undo(t.Context(), plan.ID, "bob"); err != nil || got.State != remit.ResponseUndone {
		t.Fatalf("%s, %v", got.State, err)
	}
	if w.objects["one"] != "1" || w.objects["two"] != "2" || w.objects["three"] != "3" {
		t.Errorf("undone it is %v", w.objects)
	}
	var states []string
	for _, e := range got.History {
		states = append(states, string(e.State)+" "+e.Actor)
	}
	if h := strings.Join(states, ", "); h != "approved alice, running remit, verified remit, undoing bob, undone remit" {
		t.Errorf("the history is %s", h)
	}
	if _, err := s.CarryOut(t.Context(), plan.ID); remit.KindOf(err) != remit.Conflict {
		t.Errorf("an undone plan is carried out again: %v", err)
	}
}

// TestApproval lets nobody approve what he asked for, nobody approve twice, and
// carries nothing out before enough have.
func TestApproval(t *testing.T) {
	w, store, clock := newWorld(), open(t), now
	s := responses(store, w, func(o *response.Options) {
		o.Approvals = func(remit.ID) int { return 2 }
		o.Now = func() time.Time { return clock }
	})
	plan := propose(t, s)
	kind := func(want remit.ErrorKind, err error) {
		t.Helper()
		if remit.KindOf(err) != want {
			t.Errorf("the error is %v, want %q", err, want)
		}
	}
	_, err := s.CarryOut(t.Context(), plan.ID)
	kind(remit.Conflict, err)
	_, err = s.Approve(t.Context(), plan.ID, "alice")
	kind(remit.Forbidden, err)
	_, err = s.Approve(t.Context(), plan.ID, "bob")
	kind("", err)
	_, err = s.Approve(t.Context(), plan.ID, "bob")
	kind(remit.Conflict, err)
	_, err = s.CarryOut(t.Context(), plan.ID)
	kind(remit.Conflict, err)
	got, err := s.Approve(t.Context(), plan.ID, "carol")
	kind("", err)
	if got.State != remit.ResponseApproved || !slices.Equal(got.ApprovedBy, []string{"bob", "carol"}) {
		t.Errorf("it is %s by %v", got.State, got.ApprovedBy)
	}
	_, err = s.Reject(t.Context(), plan.ID, "dan", "")
	kind(remit.Conflict, err)
	clock = clock.Add(time.Second)
	late := propose(t, s)
	clock = clock.Add(25 * time.Hour)
	_, err = s.Approve(t.Context(), late.ID, "bob")
	kind(remit.Conflict, err)
	if got, _ = s.Get(t.Context(), late.ID); got.State != remit.ResponseExpired {
		t.Errorf("a day later it is %s", got.State)
	}
	if w.calls != 0 {
		t.Error("something was changed")
	}
}

// TestFailure keeps the steps that are in effect, says which failed, and undoes
// what was done.
func TestFailure(t *testing.T) {
	w, store := newWorld(), open(t)
	s := responses(store, w)
	plan := propose(t, s)
	w.objects["two"] = "somebody else's"
	got, err := s.CarryOut(t.Context(), plan.ID)
	if remit.KindOf(err) != remit.Conflict || got.State != remit.ResponseFailed || !strings.Contains(got.Steps[1].Failure, "somebody else's") {
		t.Fatalf("%s, %q, %v", got.State, got.Steps[1].Failure, err)
	}
	if got.Steps[0].State != remit.ResponseVerified || w.objects["one"] != "" || w.objects["three"] != "3" {
		t.Errorf("%v, %v", got.Steps[0].State, w.objects)
	}
	// What others made of the second is theirs; the first is given back.
	if got, err = s.Undo(t.Context(), plan.ID, "bob"); err != nil || got.State != remit.ResponseUndone || w.objects["one"] != "1" || w.objects["two"] != "somebody else's" || w.changes["three"] != 0 {
		t.Errorf("%s, %v, %v", got.State, w.objects, err)
	}
}

// TestUndoMeetsOthers gives back everything but what somebody else has changed
// since, says so, and can be done again. It once stopped there.
func TestUndoMeetsOthers(t *testing.T) {
	w, store := newWorld(), open(t)
	s := responses(store, w)
	plan := propose(t, s)
	if _, err := s.CarryOut(t.Context(), plan.ID); err != nil {
		t.Fatal(err)
	}
	w.objects["three"] = "somebody else's"
	got, err := s.Undo(t.Context(), plan.ID, "bob")
	if remit.KindOf(err) == "" || got.State != remit.ResponseFailed || got.Steps[2].Failure == "" || w.objects["one"] != "1" || w.objects["two"] != "2" {
		t.Fatalf("%s, %v, %v", got.State, w.objects, err)
	}
	w.objects["three"] = ""
	if got, err = s.Undo(t.Context(), plan.ID, "bob"); err != nil || got.State != remit.ResponseUndone || w.objects["three"] != "3" || w.changes["one"] != 2 {
		t.Errorf("%s, %v, %v", got.State, w.objects, err)
	}
}

// TestUnreachable leaves a plan running when the system does not answer, for
// another try.
func TestUnreachable(t *testing.T) {
	w, store := newWorld(), open(t)
	s := responses(store, w)
	plan := propose(t, s)
	w.fail["two"] = remit.Errorf(remit.Unavailable, "", "no route to host")
	got, err := s.CarryOut(t.Context(), plan.ID)
	if remit.KindOf(err) != remit.Unavailable || got.State != remit.ResponseRunning || got.Steps[1].Failure == "" {
		t.Fatalf("%s, %v", got.State, err)
	}
	delete(w.fail, "two")
	if got, err = s.CarryOut(t.Context(), plan.ID); err != nil || got.State != remit.ResponseVerified || w.changes["one"] != 1 || got.Steps[1].Failure != "" {
		t.Errorf("%s, %v, %v", got.State, w.changes, err)
	}
}

// TestStop lets nothing be done while all is stopped, and undoes all the same.
func TestStop(t *testing.T) {
	w, store := newWorld(), open(t)
	s := responses(store, w)
	done, plan := propose(t, s), remit.Response{}
	if _, err := s.CarryOut(t.Context(), done.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(t.Context(), "bob", "a storm of findings"); err != nil {
		t.Fatal(err)
	}
	later := responses(store, w, func(o *response.Options) { o.Now = func() time.Time { return now.Add(time.Second) } })
	plan = propose(t, later)
	if got, err := later.CarryOut(t.Context(), plan.ID); remit.KindOf(err) != remit.Forbidden || !strings.Contains(err.Error(), "a storm of findings") || got.State != remit.ResponseApproved {
		t.Errorf("%s, %v", got.State, err)
	}
	if got, err := s.Undo(t.Context(), done.ID, "bob"); err != nil || got.State != remit.ResponseUndone {
		t.Errorf("%s, %v", got.State, err)
	}
	if err := s.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	// What the plan found is no longer so, which a new one has to see.
	if _, err := later.CarryOut(t.Context(), plan.ID); remit.KindOf(err) != remit.Conflict {
		t.Errorf("%v", err)
	}
}

// TestProtected plans nothing against what the configuration protects, nor where
// nothing may be changed.
func TestProtected(t *testing.T) {
	w, store := newWorld(), open(t)
	s := responses(store, w, func(o *response.Options) { o.Protected = func(ref remit.Ref) bool { return ref == account } })
	if _, err := s.Plan(t.Context(), request()); remit.KindOf(err) != remit.Forbidden {
		t.Errorf("%v", err)
	}
	observed := remit.Errorf(remit.Forbidden, "", "mode observe")
	s = responses(store, w, func(o *response.Options) {
		o.Enforcer = func(context.Context, remit.ID) (connector.Enforcer, error) { return nil, observed }
	})
	if _, err := s.Plan(t.Context(), request()); !errors.Is(err, observed) {
		t.Errorf("%v", err)
	}
}

// TestTaken tells what an attacker minted from what he stole and from what is
// none of his.
func TestTaken(t *testing.T) {
	store := open(t)
	id := remit.IdentityID(system, account)
	other := remit.Ref{Kind: "ServiceAccount", Namespace: "shop", Name: "billing"}
	entry := func(credential, parent string, ref remit.Ref, self bool, ends time.Duration) remit.Lineage {
		return remit.Lineage{
			System: system, Credential: credential, Identity: remit.IdentityID(system, ref), Holder: ref, Parent: parent, Root: "node",
			SelfMinted: self, Minted: now.Add(-time.Hour), Expires: now.Add(ends), First: now, Last: now, Uses: 1,
		}
	}
	node := remit.Ref{Kind: "Node", Name: "node-a"}
	bound := func(credential, parent string, ref remit.Ref) remit.Lineage {
		l := entry(credential, parent, ref, false, time.Hour)
		l.Bound = remit.Ref{Kind: "Pod", Namespace: ref.Namespace, Name: credential}
		return l
	}
	err := store.Checkpoint(t.Context(), remit.Checkpoint{Lineage: []remit.Lineage{
		entry("node", "", node, false, time.Hour),
		bound("pod", "node", account),
		bound("other-pod", "node", account),
		entry("first", "pod", account, true, time.Hour),
		entry("ended", "first", account, true, -time.Minute),
		entry("second", "ended", account, true, time.Hour),
		entry("for-billing", "second", other, false, time.Hour),
		bound("billing-pod", "node", other),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name           string
		change         func(*response.Request)
		stolen, forged []string
	}{
		{"an identity", func(*response.Request) {}, []string{"pod"}, []string{"first", "for-billing", "second"}},
		{"a credential", func(q *response.Request) { q.Credential = "pod" }, []string{"pod"}, []string{"first", "for-billing", "second"}},
		{"one that was minted", func(q *response.Request) { q.Credential = "first" }, nil, []string{"first", "for-billing", "second"}},
		{"a finding's", func(q *response.Request) { q.Suspects = []string{"other-pod", "node", "unseen"} }, []string{"other-pod", "pod"}, []string{"first", "for-billing", "second"}},
		{"a node, which gives pods their tokens", func(q *response.Request) { q.IdentityID, q.Identity = remit.IdentityID(system, node), node }, nil, nil},
		{"a node's certificate", func(q *response.Request) { q.Credential = "node" }, []string{"node"}, nil},
		{"one that the log does not know", func(q *response.Request) { q.Credential = "unseen" }, []string{"unseen"}, nil},
		{"another identity", func(q *response.Request) { q.IdentityID = remit.IdentityID(system, other) }, nil, nil},
	} {
		w := newWorld()
		q := request()
		q.IdentityID = id
		c.change(&q)
		if _, err := responses(store, w).Plan(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		for _, credential := range slices.Concat(w.orders[0].Stolen, w.orders[0].Forged) {
			want := remit.Ref{}
			if credential == "pod" || credential == "other-pod" {
				want = remit.Ref{Kind: "Pod", Namespace: account.Namespace, Name: credential}
			}
			if got := w.orders[0].Bound[credential]; got != want {
				t.Errorf("%s: %s is bound to %s, not to %s", c.name, credential, got, want)
			}
		}
		if o := w.orders[0]; !slices.Equal(o.Stolen, c.stolen) || !slices.Equal(o.Forged, c.forged) {
			t.Errorf("%s: stolen %v and forged %v, want %v and %v", c.name, o.Stolen, o.Forged, c.stolen, c.forged)
		}
	}
}

// TestKilled lets the process die at any call, again and again, before or after
// its effect: another goes on, and in the end everything was done once, and
// undone once.
func TestKilled(t *testing.T) {
	store, moment := open(t), now
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld()
		moment = moment.Add(time.Second)
		s := responses(store, w, func(o *response.Options) { o.Now = func() time.Time { return moment } })
		plan := propose(t, s)
		until := func(want remit.ResponseState, do func() (remit.Response, error)) {
			for range 40 {
				w.calls, w.dieAt, w.after = 0, rapid.IntRange(0, 8).Draw(rt, "dies at"), rapid.Bool().Draw(rt, "after")
				got, err := alive(do)
				if err != nil && !errors.Is(err, errDied) {
					rt.Fatal(err)
				}
				if err == nil {
					if got.State != want {
						rt.Fatalf("it is %s, want %s", got.State, want)
					}
					return
				}
			}
		}
		until(remit.ResponseVerified, func() (remit.Response, error) { return s.CarryOut(t.Context(), plan.ID) })
		w.dieAt = 0
		if _, err := s.CarryOut(t.Context(), plan.ID); err != nil {
			rt.Fatal(err)
		}
		for name, text := range w.objects {
			if text != "" || w.changes[name] != 1 {
				rt.Fatalf("%s is %q after %d changes", name, text, w.changes[name])
			}
		}
		until(remit.ResponseUndone, func() (remit.Response, error) { return s.Undo(t.Context(), plan.ID, "bob") })
		w.dieAt = 0
		if _, err := s.Undo(t.Context(), plan.ID, "bob"); err != nil {
			rt.Fatal(err)
		}
		if w.objects["one"] != "1" || w.objects["two"] != "2" || w.objects["three"] != "3" || w.changes["one"] != 2 {
			rt.Fatalf("undone it is %v after %v", w.objects, w.changes)
		}
	})
}

var errDied = errors.New("it died")

func alive(do func() (remit.Response, error)) (r remit.Response, err error) {
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(died); !ok {
				panic(p)
			}
			err = errDied
		}
	}()
	return do()
}
