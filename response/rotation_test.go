package response_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"remit"
	"remit/connector"
	"remit/response"
	"remit/store/sqlstore"
)

// vault is a system that issues credentials, with places that hold them and a
// consumer at each place, who reads it when he starts again and uses what he has
// all the time. Its calls can be made to die like those of [world].
type vault struct {
	t fataler
	*world
	valid    map[string]bool
	issued   map[string]int
	secrets  map[string]string // of a credential; what a consumer has is one of these
	places   map[string]*place
	names    []string
	used     map[string]time.Time
	seen     bool // whether the system tells of use
	now      func() time.Time
	failures map[string]error // by call, once
	always   map[string]error
	forever  time.Duration // how long a credential lives on that is ended
}

type fataler interface {
	Fatalf(format string, args ...any)
}

// place is a destination. One that refers holds a name, the others a secret.
type place struct {
	refers, undoable bool
	holds            string // a secret, or a name
	was              string
	has              string // the consumer
	rolling          int    // verifications until a roll-out is over
	changes          int
}

const oldName = "old"

func newVault(t fataler, now func() time.Time) *vault {
	v := &vault{
		t: t, world: newWorld(), valid: map[string]bool{oldName: true}, issued: map[string]int{}, secrets: map[string]string{oldName: "secret of old"},
		places: map[string]*place{}, used: map[string]time.Time{}, seen: true, now: now, failures: map[string]error{}, always: map[string]error{},
	}
	return v
}

func (v *vault) add(name string, refers, undoable bool) {
	p := &place{refers: refers, undoable: undoable, holds: v.secrets[oldName]}
	if refers {
		p.holds = oldName
	}
	p.was, p.has = p.holds, v.secrets[oldName]
	v.places[name] = p
	v.names = append(v.names, name)
}

// work lets every consumer use what he has: it must always be accepted. Those that
// start again have what their place holds.
func (v *vault) work(restart func(string) bool) {
	for _, name := range v.names {
		p := v.places[name]
		if restart(name) {
			p.has = p.holds
			if p.refers {
				p.has = v.secrets[p.holds]
			}
		}
		accepted := false
		for credential, secret := range v.secrets {
			if secret == p.has && v.valid[credential] {
				accepted, v.used[credential] = true, v.now()
			}
		}
		if !accepted {
			v.t.Fatalf("the consumer at %s has %q, which is not accepted", name, p.has)
		}
	}
}

func (v *vault) once(call string) error {
	err := v.failures[call]
	delete(v.failures, call)
	if err == nil {
		err = v.always[call]
	}
	return err
}

func (v *vault) PlanRotation(context.Context, connector.RotationOrder) (connector.Rotation, error) {
	return connector.Rotation{
		Plan: json.RawMessage(`{}`), Old: []remit.Ref{{Kind: "Key", Name: oldName}},
		Issue: remit.Step{Object: remit.Ref{Kind: "Key", Name: "new"}, Does: "makes it"},
		End:   remit.Step{Object: remit.Ref{Kind: "Key", Name: oldName}, Does: "ends it"},
	}, nil
}

func (v *vault) Successor(_ json.RawMessage, attempt string) (remit.Ref, error) {
	return remit.Ref{Kind: "Key", Name: "new-" + attempt}, nil
}

func (v *vault) Issue(_ context.Context, _ json.RawMessage, ref remit.Ref) (i connector.Issued, s *connector.Secret, err error) {
	err = v.call(func() error {
		if err := v.once("issue"); err != nil {
			return err
		}
		if _, there := v.valid[ref.Name]; there {
			return remit.Errorf(remit.Conflict, "", "%s is there", ref)
		}
		v.valid[ref.Name], v.secrets[ref.Name] = true, "secret of "+ref.Name
		v.issued[ref.Name]++
		i, s = connector.Issued{Ref: ref}, connector.NewSecret("token", []byte(v.secrets[ref.Name]))
		return nil
	})
	return i, s, err
}

func (v *vault) End(_ context.Context, _ json.RawMessage, which connector.Issued) (until time.Time, err error) {
	err = v.call(func() error {
		if err := v.once("end"); err != nil {
			return err
		}
		if v.forever > 0 {
			until = now.Add(v.forever)
			if v.now().Before(until) {
				return nil
			}
			until = time.Time{}
		}
		if v.valid[which.Ref.Name] {
			v.valid[which.Ref.Name] = false
		}
		return nil
	})
	return until, err
}

func (v *vault) Used(_ context.Context, _ json.RawMessage, i connector.Issued) (at time.Time, err error) {
	err = v.call(func() error {
		if v.seen {
			at = v.used[i.Ref.Name]
		}
		return nil
	})
	return at, err
}

func (v *vault) Lives(_ context.Context, _ json.RawMessage, which connector.Issued) (lives bool, err error) {
	err = v.call(func() error {
		lives = v.valid[which.Ref.Name]
		return nil
	})
	return lives, err
}

// at is the destination at an address.
func (v *vault) at(_ context.Context, _ remit.ID, address string) (connector.Destination, error) {
	p := v.places[address]
	if p == nil {
		return nil, remit.Errorf(remit.NotFound, "", "there is no place %s", address)
	}
	return destination{v, p, address}, nil
}

type destination struct {
	*vault
	*place
	address string
}

func (d destination) Plan(context.Context, connector.Delivery) (connector.PlannedDelivery, error) {
	p := connector.PlannedDelivery{Refers: d.refers, Step: remit.Step{
		Object: remit.Ref{Kind: "Place", Name: d.address}, Does: "delivers to " + d.address, Before: quote("as found"),
	}}
	if d.undoable {
		p.Step.Undo = "puts back"
	}
	return p, nil
}

func (d destination) Deliver(_ context.Context, step remit.Step, l connector.Delivery) (got json.RawMessage, err error) {
	err = d.call(func() error {
		if err := d.once("deliver " + d.address); err != nil {
			return err
		}
		if string(step.Before) != `"as found"` {
			d.t.Fatalf("the step holds %s", step.Before)
		}
		new := l.Issued.Ref.Name
		if !d.refers {
			value, err := l.Secret.Part("")
			if err != nil {
				return err
			}
			new = string(value)
		}
		if d.holds != new {
			d.changes++
		}
		d.holds = new
		if d.refers {
			d.rolling = 1
		}
		got = quote(connector.SecretDigest([]byte(new)))
		return nil
	})
	return got, err
}

func (d destination) Verify(_ context.Context, _ remit.Step, got json.RawMessage) error {
	return d.call(func() error {
		var digest string
		if err := json.Unmarshal(got, &digest); err != nil {
			return err
		}
		if !connector.MatchesDigest(digest, []byte(d.holds)) {
			return remit.Errorf(remit.Conflict, "", "%s holds something else", d.address)
		}
		if d.rolling > 0 {
			d.rolling--
			return remit.Errorf(remit.Unavailable, "", "%s is rolling out", d.address)
		}
		return nil
	})
}

func (d destination) Restore(context.Context, remit.Step) error {
	return d.call(func() error {
		if !d.undoable {
			d.t.Fatalf("%s is asked for what it cannot do", d.address)
		}
		d.holds = d.was
		return nil
	})
}

// dying is a store that dies like the system does.
type dying struct {
	*sqlstore.Store
	v *vault
}

func (d dying) PutResponse(ctx context.Context, r remit.Response) (out remit.Response, err error) {
	text, _ := json.Marshal(r)
	for _, secret := range d.v.secrets {
		if strings.Contains(string(text), secret) {
			d.v.t.Fatalf("the plan holds a secret: %s", text)
		}
	}
	err = d.v.call(func() error {
		out, err = d.Store.PutResponse(ctx, r)
		return err
	})
	return out, err
}

const grace = 2 * time.Hour

func rotating(store *sqlstore.Store, v *vault) *response.Responses {
	return response.New(response.Options{
		Store: dying{store, v}, Wait: 300 * time.Millisecond, Now: v.now,
		Issuer:      func(context.Context, remit.ID) (connector.Issuer, error) { return v, nil },
		Destination: v.at,
		Approvals:   func(remit.ID) int { return 0 },
	})
}

func rotation(v *vault) response.RotationRequest {
	ref := remit.Ref{Kind: "Key", Name: oldName}
	return response.RotationRequest{
		System: system, Subject: remit.Subject{Record: remit.KindCredential, Ref: ref, ID: remit.CredentialID(system, ref, "")},
		To: v.names, Grace: grace, AskedBy: "alice",
	}
}

func proposeRotation(t *testing.T, s *response.Responses, v *vault) remit.Response {
	t.Helper()
	plan, err := s.PlanRotation(t.Context(), rotation(v))
	if err == nil {
		plan, err = s.Propose(t.Context(), plan)
	}
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// always starts every consumer again, never none.
func always(string) bool { return true }
func never(string) bool  { return false }

// TestRotation replaces a credential while two consumers use it.
func TestRotation(t *testing.T) {
	clock := now
	v, store := newVault(t, func() time.Time { return clock }), open(t)
	v.add("workload", true, true)
	v.add("file", false, false)
	s := rotating(store, v)
	plan := proposeRotation(t, s, v)
	if v.calls > 1 || plan.Steps[1].Object.Name != "file" {
		t.Fatalf("%d calls, %+v", v.calls, plan.Steps)
	}
	carry := func(state remit.ResponseState) remit.Response {
		t.Helper()
		got, err := s.CarryOut(t.Context(), plan.ID)
		if err != nil || got.State != state {
			t.Fatalf("%s, %v: %+v", got.State, err, got.History)
		}
		return got
	}
	got := carry(remit.ResponseRunning)
	if got.Due.IsZero() || got.Steps[3].State != remit.ResponseProposed || !v.valid[oldName] {
		t.Fatalf("it does not wait for use: %+v", got)
	}
	v.work(never)
	clock = clock.Add(time.Hour)
	got = carry(remit.ResponseRunning)
	v.work(always)
	clock = clock.Add(time.Minute)
	got = carry(remit.ResponseRunning)
	if want := clock.Add(grace); !got.Due.Equal(want) || !v.valid[oldName] {
		t.Fatalf("it waits until %s, not %s", got.Due, want)
	}
	clock = clock.Add(grace - time.Second)
	carry(remit.ResponseRunning)
	if !v.valid[oldName] {
		t.Fatal("the old one ended before the grace")
	}
	clock = clock.Add(time.Second)
	got = carry(remit.ResponseVerified)
	v.work(never)
	if v.valid[oldName] || len(v.issued) != 1 || !got.Due.IsZero() {
		t.Errorf("%v, %v, %s", v.valid, v.issued, got.Due)
	}
	if _, err := s.Undo(t.Context(), plan.ID, "bob"); remit.KindOf(err) != remit.Conflict {
		t.Errorf("it can be undone: %v", err)
	}
}

// TestRotationUnseen never ends the old credential while nobody uses the new one.
func TestRotationUnseen(t *testing.T) {
	clock := now
	v, store := newVault(t, func() time.Time { return clock }), open(t)
	v.add("file", false, false)
	v.seen = false
	s := rotating(store, v)
	plan := proposeRotation(t, s, v)
	for range 200 {
		got, err := s.CarryOut(t.Context(), plan.ID)
		v.work(always)
		if err != nil {
			if remit.KindOf(err) != remit.Conflict || got.State != remit.ResponseFailed || !strings.Contains(err.Error(), "not seen in use") {
				t.Fatalf("%s, %v", got.State, err)
			}
			break
		}
		if got.Due.Sub(clock) > 15*time.Minute || !got.Due.After(clock) {
			t.Fatalf("at %s it is due at %s", clock, got.Due)
		}
		clock = clock.Add(time.Hour)
	}
	if !v.valid[oldName] {
		t.Error("the old one ended")
	}
	// It is in use, and cannot be given back: both live.
	if _, err := s.Undo(t.Context(), plan.ID, "bob"); remit.KindOf(err) != remit.Unsupported {
		t.Errorf("%v", err)
	}
	v.work(always)
}

// TestRotationRefused ends what no destination took, and leaves alone what one may
// have.
func TestRotationRefused(t *testing.T) {
	for _, c := range []struct {
		name, call string
		err        error
		state      remit.ResponseState
		lives      int // successors
	}{
		{"not issued", "issue", remit.Errorf(remit.Forbidden, "", "no"), remit.ResponseFailed, 0},
		{"refused by the first", "deliver one", remit.Errorf(remit.Forbidden, "", "no"), remit.ResponseFailed, 0},
		{"refused by the second", "deliver two", remit.Errorf(remit.Forbidden, "", "no"), remit.ResponseFailed, 1},
		{"the first does not answer", "deliver one", remit.Errorf(remit.Unavailable, "", "no answer"), remit.ResponseRunning, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, store := newVault(t, func() time.Time { return now }), open(t)
			v.add("one", false, true)
			v.add("two", false, true)
			v.always[c.call] = c.err
			s := rotating(store, v)
			plan := proposeRotation(t, s, v)
			got, err := s.CarryOut(t.Context(), plan.ID)
			if remit.KindOf(err) != remit.KindOf(c.err) || got.State != c.state {
				t.Fatalf("%s, %v", got.State, err)
			}
			lives := 0
			for name, valid := range v.valid {
				if valid && name != oldName {
					lives++
				}
			}
			if lives != c.lives || !v.valid[oldName] {
				t.Errorf("%v", v.valid)
			}
			v.work(always)
		})
	}
}

// TestRotationPutBack does not end the old credential when somebody has put it
// back into a destination during the grace.
func TestRotationPutBack(t *testing.T) {
	clock := now
	v, store := newVault(t, func() time.Time { return clock }), open(t)
	v.add("file", false, false)
	s := rotating(store, v)
	plan := proposeRotation(t, s, v)
	for range 2 {
		if _, err := s.CarryOut(t.Context(), plan.ID); err != nil {
			t.Fatal(err)
		}
		v.work(always)
		clock = clock.Add(grace)
	}
	v.places["file"].holds = v.secrets[oldName]
	got, err := s.CarryOut(t.Context(), plan.ID)
	if remit.KindOf(err) != remit.Conflict || got.State != remit.ResponseFailed || !strings.Contains(err.Error(), "lives on") {
		t.Errorf("%s, %v", got.State, err)
	}
	v.work(always)
}

// TestRotationUndo gives back what the destinations had, and ends the new one only
// after the grace.
func TestRotationUndo(t *testing.T) {
	clock := now
	v, store := newVault(t, func() time.Time { return clock }), open(t)
	v.add("one", true, true)
	v.add("two", false, true)
	s := rotating(store, v)
	plan := proposeRotation(t, s, v)
	if _, err := s.CarryOut(t.Context(), plan.ID); err != nil {
		t.Fatal(err)
	}
	v.work(always)
	got, err := s.Undo(t.Context(), plan.ID, "bob")
	if err != nil || got.State != remit.ResponseUndoing || !got.Due.Equal(clock.Add(grace)) {
		t.Fatalf("%s, %s, %v", got.State, got.Due, err)
	}
	v.work(never)
	clock = clock.Add(grace)
	v.work(always)
	if got, err = s.Undo(t.Context(), plan.ID, "bob"); err != nil || got.State != remit.ResponseUndone {
		t.Fatalf("%s, %v", got.State, err)
	}
	v.work(never)
	for name, valid := range v.valid {
		if valid != (name == oldName) {
			t.Errorf("%s: %v", name, valid)
		}
	}
}

// TestRotationLasts waits for the end of what cannot be ended before its time.
func TestRotationLasts(t *testing.T) {
	clock := now
	v, store := newVault(t, func() time.Time { return clock }), open(t)
	v.add("file", false, false)
	v.forever = 100 * time.Hour
	s := rotating(store, v)
	plan := proposeRotation(t, s, v)
	var got remit.Response
	for range 3 {
		var err error
		if got, err = s.CarryOut(t.Context(), plan.ID); err != nil {
			t.Fatal(err)
		}
		v.work(always)
		clock = clock.Add(grace)
	}
	if got.State != remit.ResponseRunning || !got.Due.Equal(now.Add(v.forever)) {
		t.Fatalf("%s until %s", got.State, got.Due)
	}
	clock = got.Due
	if got, err := s.CarryOut(t.Context(), plan.ID); err != nil || got.State != remit.ResponseVerified || v.valid[oldName] {
		t.Errorf("%s, %v", got.State, err)
	}
}

// TestRotationKilled lets the process die at any call, before or after its effect,
// any number of times, while consumers use what they have. Whatever happened, none
// is ever refused; in the end the old credential has ended and no more than one
// lives, or the plan has failed and the old one lives.
func TestRotationKilled(t *testing.T) {
	store := open(t)
	clock := now
	ended, tries := map[remit.ResponseState]int{}, 0
	defer func() { t.Logf("%v with %d successors", ended, tries) }()
	rapid.Check(t, func(rt *rapid.T) {
		clock = clock.Add(100 * time.Hour)
		v := newVault(rt, func() time.Time { return clock })
		for i := range rapid.IntRange(1, 3).Draw(rt, "places") {
			v.add(fmt.Sprintf("place-%d", i), rapid.Bool().Draw(rt, "refers"), rapid.Bool().Draw(rt, "undoable"))
		}
		s := rotating(store, v)
		plan := proposeRotation(t, s, v)
		undoes := rapid.IntRange(0, 30).Draw(rt, "undone at")
		deaths := rapid.IntRange(0, 25).Draw(rt, "deaths")
		undoing, lastWork := false, clock
		var got remit.Response
		for turn := range 80 {
			v.calls, v.dieAt, v.after = 0, 0, rapid.Bool().Draw(rt, "after")
			if turn < deaths {
				v.dieAt = rapid.IntRange(1, 25).Draw(rt, "dies at")
			}
			if call := rapid.SampledFrom([]string{"", "", "", "issue", "end", "deliver place-0"}).Draw(rt, "fails"); call != "" {
				v.failures[call] = remit.Errorf(remit.Unavailable, "", "no answer")
			}
			if turn == undoes && undoes > 0 {
				undoing = true
			}
			out, err := alive(func() (remit.Response, error) {
				if undoing {
					return s.Undo(t.Context(), plan.ID, "bob")
				}
				return s.CarryOut(t.Context(), plan.ID)
			})
			v.dieAt = 0
			switch {
			case errors.Is(err, errDied):
			case err != nil && undoing && (remit.KindOf(err) == remit.Conflict || remit.KindOf(err) == remit.Unsupported):
				undoing = false // it says why not, and changes nothing
			case err != nil && remit.KindOf(err) != remit.Conflict && remit.KindOf(err) != remit.Unavailable:
				rt.Fatalf("%v", err)
			}
			if err == nil {
				got = out
			}
			// A consumer starts again within the grace, at any time.
			moves := rapid.SampledFrom([]time.Duration{0, time.Minute, grace / 2, grace}).Draw(rt, "time passes")
			restart := func(string) bool { return rapid.Bool().Draw(rt, "starts again") }
			if clock = clock.Add(moves); clock.Sub(lastWork) >= grace/2 {
				restart = always
			}
			if v.work(restart); clock.Sub(lastWork) >= grace/2 {
				lastWork = clock
			}
			if got, err = s.Get(t.Context(), plan.ID); err != nil {
				rt.Fatal(err)
			}
			if slices.Contains([]remit.ResponseState{remit.ResponseVerified, remit.ResponseFailed, remit.ResponseUndone}, got.State) {
				break
			}
		}
		ended[got.State]++
		tries += got.Steps[0].Tries
		var live []string
		for name, valid := range v.valid {
			if valid {
				live = append(live, name)
			}
			if v.issued[name] > 1 {
				rt.Fatalf("%s was issued %d times", name, v.issued[name])
			}
		}
		switch got.State {
		case remit.ResponseVerified:
			if len(live) != 1 || live[0] == oldName || v.used[live[0]].IsZero() {
				rt.Fatalf("it is verified, and %v live", live)
			}
			for name, p := range v.places {
				if p.holds != live[0] && p.holds != v.secrets[live[0]] {
					rt.Fatalf("%s holds %s", name, p.holds)
				}
			}
		case remit.ResponseUndone:
			if len(live) != 1 || live[0] != oldName {
				rt.Fatalf("it is undone, and %v live", live)
			}
		case remit.ResponseFailed:
			if !v.valid[oldName] {
				rt.Fatalf("it has failed, and the old one has ended: %+v", got.History)
			}
		default:
			rt.Fatalf("it is %s: %+v", got.State, got)
		}
		v.work(always)
	})
}
