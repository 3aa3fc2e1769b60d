package connectortest

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"remit"
	"remit/connector"
)

// IssuerSuite is what [Issuer] needs to know of an issuer and its real system.
type IssuerSuite struct {
	Issuer connector.Issuer
	Order  connector.RotationOrder

	// Accepted asks the system whether it accepts a credential, of which the main
	// part is passed.
	Accepted func(t *testing.T, issued connector.Issued, secret []byte) bool

	// Lasts says that a credential cannot be ended before its time.
	Lasts bool
}

// Issuer checks what is asked of every [connector.Issuer], against its real system.
// It leaves the old credential as it is.
func Issuer(t *testing.T, s IssuerSuite) {
	t.Helper()
	ctx := t.Context()
	planned, err := s.Issuer.PlanRotation(ctx, s.Order)
	if err != nil {
		t.Fatal(err)
	}
	if len(planned.Old) == 0 || planned.Issue.Does == "" || planned.Issue.Diff == "" || planned.End.Does == "" || planned.End.Diff == "" || !json.Valid(planned.Plan) {
		t.Errorf("the plan does not tell everything: %+v", planned)
	}
	name := func(attempt string) connector.Issued {
		t.Helper()
		ref, err := s.Issuer.Successor(planned.Plan, attempt)
		if err != nil {
			t.Fatal(err)
		}
		return connector.Issued{Ref: ref}
	}
	lives := func(which connector.Issued, want bool) {
		t.Helper()
		if got, err := s.Issuer.Lives(ctx, planned.Plan, which); err != nil || got != want {
			t.Errorf("%s lives: %v, %v, want %v", which.Ref, got, err, want)
		}
	}
	ends := func(which connector.Issued, made bool) {
		t.Helper()
		for range 2 {
			until, err := s.Issuer.End(ctx, planned.Plan, which)
			if err != nil || until.IsZero() == (s.Lasts && made) {
				t.Fatalf("%s ends %s, %v", which.Ref, until, err)
			}
		}
	}
	// A name is the attempt's own, and what was never made is no trouble to end.
	a, b := name("aaaaaaaaaa"), name("bbbbbbbbbb")
	if a.Ref == b.Ref || name("aaaaaaaaaa").Ref != a.Ref {
		t.Errorf("two attempts are called %s and %s", a.Ref, b.Ref)
	}
	lives(a, false)
	ends(a, false)
	old := connector.Issued{Ref: planned.Old[0]}
	lives(old, true)

	issued, secret, err := s.Issuer.Issue(ctx, planned.Plan, a.Ref)
	if err != nil {
		t.Fatal(err)
	}
	main, err := secret.Part("")
	if err != nil || len(main) < 16 {
		t.Fatalf("a secret of %d bytes, %v", len(main), err)
	}
	text, err := json.Marshal([]any{planned, issued})
	if err != nil || strings.Contains(string(text), string(main)) {
		t.Errorf("the plan holds the secret, or %v", err)
	}
	if issued.Ref != a.Ref {
		t.Errorf("%s was issued, not %s", issued.Ref, a.Ref)
	}
	if !s.Accepted(t, issued, main) {
		t.Error("the new credential is not accepted")
	}
	lives(issued, true)
	lives(old, true)
	if _, _, err := s.Issuer.Issue(ctx, planned.Plan, a.Ref); remit.KindOf(err) != remit.Conflict {
		t.Errorf("it is issued twice: %v", err)
	}
	if _, err := s.Issuer.Used(ctx, planned.Plan, issued); err != nil {
		t.Error(err)
	}
	// A crash: of the second only the name is known.
	if _, lost, err := s.Issuer.Issue(ctx, planned.Plan, b.Ref); err != nil {
		t.Fatal(err)
	} else {
		lost.Zero()
	}
	ends(b, true)
	ends(issued, true)
	if !s.Lasts {
		lives(b, false)
		lives(issued, false)
		for end := time.Now().Add(20 * time.Second); s.Accepted(t, issued, main); time.Sleep(200 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the ended credential is accepted still")
			}
		}
	}
	lives(old, true)

	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Issuer.PlanRotation(cancelled, s.Order); err == nil {
		t.Error("a cancelled plan is made")
	}
	if _, _, err := s.Issuer.Issue(cancelled, planned.Plan, name("cccccccccc").Ref); err == nil {
		t.Error("a cancelled successor is issued")
	}
}

// DestinationSuite is what [Destination] needs to know of a destination and its
// real place.
type DestinationSuite struct {
	Destination connector.Destination

	// Delivery is that of a new secret; each call gives another. Value is what
	// the place holds of it then.
	Delivery func(t *testing.T) (d connector.Delivery, value string)

	// Holds reads the place, and Overwrite lets somebody else write it.
	Holds     func(t *testing.T) string
	Overwrite func(t *testing.T)

	// Missing is a place that is not there; nil when each is made.
	Missing connector.Destination
}

// Destination checks what is asked of every [connector.Destination], against its
// real place.
func Destination(t *testing.T, s DestinationSuite) {
	t.Helper()
	ctx := t.Context()
	before := s.Holds(t)
	first, value := s.Delivery(t)
	planned, err := s.Destination.Plan(ctx, connector.Delivery{Replaces: first.Replaces})
	if err != nil {
		t.Fatal(err)
	}
	step := planned.Step
	if step.Does == "" || step.Diff == "" || step.Object.Name == "" || s.Holds(t) != before {
		t.Errorf("the plan does not tell everything, or changes something: %+v", planned)
	}
	if !planned.Refers {
		gone := first
		gone.Secret = nil
		if _, err := s.Destination.Deliver(ctx, step, gone); !errors.Is(err, connector.ErrSecretGone) {
			t.Errorf("without a secret: %v", err)
		}
	}
	var receipt json.RawMessage
	for range 2 {
		if receipt, err = s.Destination.Deliver(ctx, step, first); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Holds(t); got != value {
		t.Errorf("it holds %q, not %q", got, value)
	}
	if !json.Valid(receipt) || !planned.Refers && strings.Contains(string(receipt), value) {
		t.Errorf("the receipt is %s", receipt)
	}
	verify := func(receipt json.RawMessage, want remit.ErrorKind) {
		t.Helper()
		var err error
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if err = s.Destination.Verify(ctx, step, receipt); remit.KindOf(err) != remit.Unavailable || want == remit.Unavailable {
				break
			}
		}
		if remit.KindOf(err) != want {
			t.Errorf("to verify gives %v, want %q", err, want)
		}
	}
	verify(receipt, "")
	second, value := s.Delivery(t)
	second.Replaces = append(second.Replaces, first.Issued.Ref)
	next, err := s.Destination.Deliver(ctx, step, second)
	if err != nil || s.Holds(t) != value {
		t.Fatalf("it holds %q, not %q: %v", s.Holds(t), value, err)
	}
	verify(next, "")
	verify(receipt, remit.Conflict)
	s.Overwrite(t)
	verify(next, remit.Conflict)
	if next, err = s.Destination.Deliver(ctx, step, second); err != nil {
		t.Fatal(err)
	}
	verify(next, "")
	restored := remit.KindOf(nil)
	for range 100 {
		if restored = remit.KindOf(s.Destination.Restore(ctx, step)); restored != remit.Unavailable {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	switch {
	case step.Undo == "" && restored != remit.Unsupported:
		t.Errorf("it cannot be undone, and is: %q", restored)
	case step.Undo != "" && (restored != "" || s.Holds(t) != before):
		t.Errorf("restored (%q) it holds %q, not %q", restored, s.Holds(t), before)
	}
	if s.Missing != nil {
		if _, err := s.Missing.Plan(ctx, connector.Delivery{}); remit.KindOf(err) != remit.NotFound {
			t.Errorf("a place that is not there: %v", err)
		}
	}
}
