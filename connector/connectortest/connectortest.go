// Package connectortest is the suite that every connector passes, against the
// real system: nothing planted is missed, a bad network changes nothing, what
// cannot be read is said and hides nothing else, no secret leaves, and a watch
// arrives where a fresh inventory does.
package connectortest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"remit"
	"remit/connector"
)

// Setup is a real system with known things in it, and the ways in which the
// suite may reach it. A system that does not speak HTTP leaves Server empty: the
// parts of the suite that break the network then fail the test with a message
// unless NoNetwork says why they cannot be.
type Setup struct {
	// Server is the address of the real system's API, and Transport reaches
	// it with all rights that the connector needs. The suite puts a faulty
	// proxy in front of it.
	Server    string
	Transport http.RoundTripper
	NoNetwork string

	// Open opens the connector. address is where the system is to be
	// reached: "" for itself, else the proxy, which speaks plain HTTP and
	// needs no login. Each call opens a new one.
	Open func(t testing.TB, address string) connector.Connector

	// Planted are records that an inventory must contain.
	Planted []remit.ID

	// Canaries are secret values that lie in the system and must not be in
	// any page.
	Canaries []string

	// Sections maps the sections that can be forbidden one by one to what
	// their requests' paths contain.
	Sections map[string]string

	// Change makes one random change of the system; nil when the connector
	// cannot watch.
	Change func(ctx context.Context, r *rand.Rand) error

	// Volatile removes from a record what may differ between two readings of
	// an unchanged system; nil when nothing may.
	Volatile func(record any)

	// Seed makes Change repeatable; 0 chooses one, which is logged.
	Seed uint64
}

// Run runs the suite.
func Run(t *testing.T, s Setup) {
	t.Helper()
	if s.Open == nil {
		t.Fatal("Setup.Open is missing")
	}
	if s.Server == "" && s.NoNetwork == "" {
		t.Fatal("Setup.Server is missing: say in NoNetwork why the network cannot be broken")
	}
	t.Run("Complete", s.complete)
	t.Run("Stable", s.stable)
	t.Run("NoSecrets", s.noSecrets)
	t.Run("EmitFails", s.emitFails)
	t.Run("Cancelled", s.cancelled)
	if s.Server != "" {
		t.Run("BadNetwork", s.badNetwork)
		t.Run("BacksOff", s.backsOff)
		t.Run("HangingServer", s.hanging)
		t.Run("Forbidden", s.forbidden)
		t.Run("Unreachable", s.unreachable)
		t.Run("LoginRefused", s.loginRefused)
	}
	if s.Change != nil {
		t.Run("Watch", s.watch)
		if s.Server != "" {
			t.Run("WatchBadNetwork", s.watchBadNetwork)
		}
	}
}

// patient bounds everything that has to happen, generously: a slow machine is
// no failure.
const patient = 2 * time.Minute

// read reads a whole inventory onto a shelf.
func (s Setup) read(t testing.TB, c connector.Connector) *shelf {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	sh := newShelf(t, c, s.Volatile)
	if err := c.Inventory(ctx, sh.take); err != nil {
		t.Fatalf("Inventory: %v", err)
	}
	return sh
}

func (s Setup) complete(t *testing.T) {
	c := s.Open(t, "")
	sh := s.read(t, c)
	for _, gap := range sh.gaps {
		t.Errorf("a gap, though everything may be read: %+v", gap)
	}
	for _, id := range s.Planted {
		if _, ok := sh.records[id]; !ok {
			t.Errorf("the planted record %s was not found", id)
		}
	}
	described := map[string]bool{}
	for _, section := range c.Describe().Sections {
		described[section.Name] = true
		if section.Finds == "" {
			t.Errorf("section %s does not say what it finds", section.Name)
		}
	}
	for section := range sh.sections {
		if !described[section] {
			t.Errorf("section %q is not described", section)
		}
		if !sh.completed[section] {
			t.Errorf("section %q was not completed, though there was no gap", section)
		}
	}
	system, err := c.System(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := remit.SystemID(c.Describe().Name, system.Native); system.ID != want || system.Native == "" || system.Connector != c.Describe().Name {
		t.Errorf("system %+v: its id is not made of connector and native id", system)
	}
	for id, r := range sh.records {
		if r.record.System != system.ID {
			t.Errorf("%s %s belongs to the system %q", id, r.record.Ref, r.record.System)
		}
		if r.record.Kind == "" || r.record.Name == "" {
			t.Errorf("%s has no kind or name: %+v", id, r.record.Ref)
		}
		if id.Kind() != r.kind {
			t.Errorf("%s is a %s by its id and was handed over as a %s", id, id.Kind(), r.kind)
		}
	}
	sh.checkReferences()
}

func (s Setup) stable(t *testing.T) {
	first := s.read(t, s.Open(t, ""))
	second := s.read(t, s.Open(t, ""))
	first.compare(t, second, "the first reading", "the second")
}

func (s Setup) noSecrets(t *testing.T) {
	if len(s.Canaries) == 0 {
		t.Fatal("Setup.Canaries is empty: plant secrets, and name them")
	}
	c := s.Open(t, "")
	var all bytes.Buffer
	err := c.Inventory(t.Context(), func(_ context.Context, page connector.Page) error {
		return json.NewEncoder(&all).Encode(page)
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, canary := range s.Canaries {
		if len(canary) < 8 {
			t.Errorf("canary %d is too short to be told from chance", i)
			continue
		}
		if i := bytes.Index(all.Bytes(), []byte(canary)); i >= 0 {
			from, to := max(0, i-200), min(all.Len(), i+len(canary)+100)
			t.Errorf("a secret left the connector: …%s…", all.Bytes()[from:to])
		}
	}
}

func (s Setup) emitFails(t *testing.T) {
	enough := errors.New("enough")
	calls := 0
	err := s.Open(t, "").Inventory(t.Context(), func(context.Context, connector.Page) error {
		calls++
		if calls == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Errorf("Inventory returned %v, want emit's own error", err)
	}
	if calls != 3 {
		t.Errorf("emit was called %d times: want none after its error", calls)
	}
}

func (s Setup) cancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var at time.Time
	err := s.Open(t, "").Inventory(ctx, func(context.Context, connector.Page) error {
		if at.IsZero() {
			at = time.Now()
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Inventory returned %v, want context.Canceled", err)
	}
	if took := time.Since(at); took > 5*time.Second {
		t.Errorf("Inventory returned %v after it was cancelled", took)
	}
}

// badNetwork reads through a network in which every kind of failure happens, and
// expects what a good one gives.
func (s Setup) badNetwork(t *testing.T) {
	clean := s.read(t, s.Open(t, ""))
	for _, f := range []struct {
		name  string
		fault fault
	}{
		{"a page is cut", fault{cut: 0.5}},
		{"the connection is reset", fault{reset: true}},
		{"500", fault{status: http.StatusInternalServerError}},
		{"502 with a page of a proxy", fault{status: http.StatusBadGateway, body: "<html><b>Bad Gateway</b></html>"}},
		{"503", fault{status: http.StatusServiceUnavailable}},
		{"429", fault{status: http.StatusTooManyRequests, retryAfter: "1"}},
		{"410", fault{status: http.StatusGone, onlyContinued: true, most: 4, body: `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410,"message":"The provided continue parameter is too old"}`}},
	} {
		t.Run(f.name, func(t *testing.T) {
			p := newProxy(t, s.Server, s.Transport)
			f.fault.every = 3
			p.set(&f.fault)
			through := s.read(t, s.Open(t, p.address()))
			for _, gap := range through.gaps {
				t.Errorf("a passing failure was reported as a gap: %+v", gap)
			}
			clean.compare(t, through, "a good network", "a bad one")
			if p.hits() == 0 {
				t.Error("nothing failed: the test is worth nothing")
			}
		})
	}
}

// backsOff looks whether the connector waits as long as the server asks.
func (s Setup) backsOff(t *testing.T) {
	const asked = 2 * time.Second
	p := newProxy(t, s.Server, s.Transport)
	p.set(&fault{status: http.StatusTooManyRequests, retryAfter: "2", every: 4})
	s.read(t, s.Open(t, p.address()))
	if p.hits() == 0 {
		t.Fatal("nothing failed: the test is worth nothing")
	}
	for _, wait := range p.waits() {
		if wait < asked-50*time.Millisecond {
			t.Errorf("a request was repeated after %v: the server asked for %v", wait, asked)
		}
	}
}

// hanging cancels while the server does not answer.
func (s Setup) hanging(t *testing.T) {
	p := newProxy(t, s.Server, s.Transport)
	c := s.Open(t, p.address())
	if _, err := c.System(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.set(&fault{hang: true, every: 1})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	begin := time.Now()
	err := c.Inventory(ctx, func(context.Context, connector.Page) error { return nil })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Inventory returned %v, want context.DeadlineExceeded", err)
	}
	if took := time.Since(begin); took > 6*time.Second {
		t.Errorf("Inventory returned %v after it was cancelled", took-time.Second)
	}
}

// forbidden takes one right after the other away, and expects the gap to be told
// and everything else to be there.
func (s Setup) forbidden(t *testing.T) {
	clean := s.read(t, s.Open(t, ""))
	for section, path := range s.Sections {
		t.Run(section, func(t *testing.T) {
			p := newProxy(t, s.Server, s.Transport)
			p.set(&fault{status: http.StatusForbidden, every: 1, path: path, body: `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"forbidden by the test"}`})
			sh := newShelf(t, s.Open(t, p.address()), s.Volatile)
			// What an earlier reading knew is on the shelf already.
			sh.preload(clean)
			ctx, cancel := context.WithTimeout(t.Context(), patient)
			defer cancel()
			if err := sh.connector.Inventory(ctx, sh.take); err != nil {
				t.Fatalf("Inventory fails as a whole: %v", err)
			}
			i := slices.IndexFunc(sh.gaps, func(g remit.Gap) bool { return g.Section == section })
			if i < 0 {
				t.Fatalf("no gap is reported for %s: %v", section, sh.gaps)
			}
			if !strings.Contains(sh.gaps[i].Reason, "forbidden by the test") {
				t.Errorf("the reason is not in the server's words: %q", sh.gaps[i].Reason)
			}
			if sh.gaps[i].Need == "" {
				t.Error("the gap does not say what right would close it")
			}
			if sh.completed[section] {
				t.Error("the section was completed, though it was not read")
			}
			for id, r := range clean.records {
				if _, ok := sh.records[id]; !ok {
					t.Errorf("%s %s of section %s was removed by a reading that could not see %s", id, r.record.Ref, r.section, section)
				}
				if _, shown := sh.shown[id]; !shown && !sh.sectionSuffers(r.section) {
					t.Errorf("%s %s of section %s is hidden, though only %s was forbidden", id, r.record.Ref, r.section, section)
				}
			}
		})
	}
}

func (s Setup) unreachable(t *testing.T) {
	p := newProxy(t, s.Server, s.Transport)
	address := p.address()
	p.close()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	_, err := s.Open(t, address).System(ctx)
	if remit.KindOf(err) != remit.Unavailable {
		t.Errorf("System of an unreachable server: %v (%s), want %s", err, remit.KindOf(err), remit.Unavailable)
	}
	if err != nil && !strings.Contains(err.Error(), strings.TrimPrefix(address, "http://")) {
		t.Errorf("the error does not say what does not answer: %v", err)
	}
}

func (s Setup) loginRefused(t *testing.T) {
	p := newProxy(t, s.Server, s.Transport)
	p.set(&fault{status: http.StatusUnauthorized, every: 1, body: `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Unauthorized","code":401,"message":"Unauthorized"}`})
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	if _, err := s.Open(t, p.address()).System(ctx); remit.KindOf(err) != remit.Unauthorized {
		t.Errorf("System with a refused login: %v (%s), want %s", err, remit.KindOf(err), remit.Unauthorized)
	}
	// Expired in the middle of a reading.
	p.set(nil)
	c := s.Open(t, p.address())
	if _, err := c.System(ctx); err != nil {
		t.Fatal(err)
	}
	p.set(&fault{status: http.StatusUnauthorized, every: 1, body: `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Unauthorized","code":401,"message":"Unauthorized"}`})
	if err := c.Inventory(ctx, func(context.Context, connector.Page) error { return nil }); remit.KindOf(err) != remit.Unauthorized {
		t.Errorf("Inventory with a login that expired: %v (%s), want %s", err, remit.KindOf(err), remit.Unauthorized)
	}
}
