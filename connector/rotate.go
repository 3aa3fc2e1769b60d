package connector

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"remit"
)

// Issuer gives the credentials of its system successors. Like an [Enforcer] it
// stands on what its plan holds and on nothing else, so that another process than
// the one that planned can go on; every method but Issue can be called again after
// a crash, and does nothing twice. Errors are of the kinds that Enforcer names.
//
// A successor has a name before it exists: whoever crashes while it is made can
// end it without having seen it.
type Issuer interface {
	// PlanRotation reads a credential and tells how it would be replaced. It
	// changes nothing. [remit.NotFound] when there is no such credential,
	// [remit.Unsupported] when it cannot be replaced, [remit.Forbidden] when it
	// must not be, as the one that Remit itself signs in with.
	PlanRotation(ctx context.Context, o RotationOrder) (Rotation, error)

	// Successor names the successor that an attempt makes: attempt is unique, of
	// ten characters of a-z and 2-7. It asks nobody.
	Successor(plan json.RawMessage, attempt string) (remit.Ref, error)

	// Issue makes the successor of that name and returns its secret, which exists
	// nowhere else unless the system itself keeps it. [remit.Conflict] when there
	// is something of that name already. When it fails, it may have been made all
	// the same.
	Issue(ctx context.Context, plan json.RawMessage, successor remit.Ref) (Issued, *Secret, error)

	// End ends a credential for good: an old one of the plan, or a successor,
	// made or not, of which only the Ref may be known. It is no error when there is none. Where a credential cannot
	// be ended before its time, End does what it can and returns that time; zero
	// when it has ended.
	End(ctx context.Context, plan json.RawMessage, which Issued) (time.Time, error)

	// Used tells when a successor was last used, by anybody but Remit; zero when
	// it was not, or when the system does not tell. Of what an audit log shows,
	// the caller knows already.
	Used(ctx context.Context, plan json.RawMessage, issued Issued) (time.Time, error)

	// Lives says whether a credential is accepted still.
	Lives(ctx context.Context, plan json.RawMessage, which Issued) (bool, error)
}

// RotationOrder says which credential is to be replaced.
type RotationOrder struct {
	Subject remit.Subject

	// As is the sort of successor, in the connector's words; "" for one like the
	// old one.
	As string

	// Lifetime is how long the successor is to be valid; 0 for as long as the old
	// one was.
	Lifetime time.Duration

	// Freeze asks for an old credential that cannot be ended before its time to
	// be frozen meanwhile, where the connector can do that.
	Freeze bool
}

// Rotation is an issuer's answer to an order.
type Rotation struct {
	// Plan is all that the other methods need, without secrets.
	Plan json.RawMessage

	// Old are what ends when the successor is in use; the first is the subject.
	Old []remit.Ref

	// Issue and End are the steps that make the successor and that end what is
	// old, as far as an issuer knows them: the words, the diff, and what breaks.
	Issue, End remit.Step

	// To are destinations that follow from the system itself, as a workload
	// that mounts the credential does: addresses, as users write them.
	To []string

	// NoSecret says that nothing is to be delivered: the platform itself gives
	// those who refer to the successor what they need.
	NoSecret bool

	Why []string
}

// Issued is what may be known of a successor.
type Issued struct {
	Ref remit.Ref `json:"ref"`

	// Native is how the audit log of its system writes it, and Identity whom the
	// log names only when it is used; "" and zero where there is no such thing.
	Native   string    `json:"native,omitempty"`
	Identity remit.Ref `json:"identity,omitzero"`

	// Mints is an identity for which the platform itself mints short-lived tokens
	// in place of a secret that is delivered: one of them, minted since, is the
	// successor in use.
	Mints remit.Ref `json:"mints,omitzero"`

	// Handle is what its system knows it by, where that comes to be with it.
	Handle string `json:"handle,omitempty"`

	Expires time.Time `json:"expires,omitzero"` // zero: never
}

// Destination is a place that is to hold a new secret, or that refers to where it
// lies. Its methods can be called again after a crash.
type Destination interface {
	// Plan reads the place and tells what delivery would change. The step holds
	// no secret; its Undo is "" when the place cannot give back what it held.
	// [remit.NotFound] when there is no such place.
	Plan(ctx context.Context, d Delivery) (PlannedDelivery, error)

	// Deliver puts the new secret in its place, whatever is there, and returns a
	// receipt, from which Verify can tell whether it is there still. The receipt
	// holds no secret. [ErrSecretGone] when it needs the secret and there is
	// none any more. Of step only Object and Before count.
	Deliver(ctx context.Context, step remit.Step, d Delivery) (receipt json.RawMessage, err error)

	// Verify asks the place whether it holds what was delivered, and whether
	// those that have to start again for it have done so. [remit.Unavailable]
	// when it may come to that by itself, [remit.Conflict] when something else is
	// there.
	Verify(ctx context.Context, step remit.Step, receipt json.RawMessage) error

	// Restore gives back what the place held when it was planned, as far as the
	// system itself kept it. [remit.Unavailable] when it is on the way,
	// [remit.Unsupported] when that cannot be.
	Restore(ctx context.Context, step remit.Step) error
}

// ErrSecretGone is the error of a destination that needs a secret that is lost: the
// process that issued it has ended. The way on is another successor.
var ErrSecretGone = errors.New("the new secret is gone with the process that had it")

// Delivery is what is delivered.
type Delivery struct {
	// Replaces are the credentials in whose place the successor comes.
	Replaces []remit.Ref

	// Issued is the successor and Secret its secret; both are zero for Plan.
	// Secret is nil as well when the process that issued it has ended.
	Issued Issued
	Secret *Secret
}

// PlannedDelivery is a destination's answer.
type PlannedDelivery struct {
	Step remit.Step
	Why  []string

	// Refers says that the place holds no secret and refers to where one lies: it
	// comes after those that hold it, and needs no secret in memory.
	Refers bool

	// Restart are addresses of destinations that have to start again to see the
	// new secret, because they read it only at their start.
	Restart []string
}

// Secret is a secret on its way from its issuer to its destinations, with the
// parts that belong to it. However it is printed, logged or marshalled, nothing of
// it is shown. It is not safe for concurrent use with Zero.
//
// The parts are behind a function, which prints as an address: fmt looks into
// fields that it cannot call a method of.
type Secret struct{ parts func() *[]secretPart }

type secretPart struct {
	name  string
	value []byte
}

// hidden is what is shown of a secret.
const hidden = "[secret]"

// NewSecret makes a secret, of which the value is the main part. It keeps the
// value: Zero overwrites it.
func NewSecret(part string, value []byte) *Secret {
	parts := []secretPart{{part, value}}
	return &Secret{func() *[]secretPart { return &parts }}
}

// With adds a part, as the user name to a password.
func (s *Secret) With(part string, value []byte) *Secret {
	parts := s.parts()
	*parts = append(*parts, secretPart{part, value})
	return s
}

// Part returns a part, "" for the main one. It is the secret's own memory: use it
// and let it go. [remit.Invalid] when there is no such part.
func (s *Secret) Part(name string) ([]byte, error) {
	if s == nil {
		return nil, ErrSecretGone
	}
	parts := *s.parts()
	names := make([]string, len(parts))
	for i, p := range parts {
		if p.name == name || name == "" {
			return p.value, nil
		}
		names[i] = p.name
	}
	return nil, remit.Errorf(remit.Invalid, "deliver", "this credential has no part %q: it has %s", name, strings.Join(names, ", "))
}

// Zero overwrites the secret in memory. It is there for a core dump's sake: the
// runtime and the kernel may have copied it. A nil secret has nothing to overwrite.
func (s *Secret) Zero() {
	if s == nil {
		return
	}
	parts := s.parts()
	for _, p := range *parts {
		clear(p.value)
	}
	*parts = nil
}

// String and the methods below hide the secret.
func (Secret) String() string { return hidden }

// GoString implements [fmt.GoStringer].
func (Secret) GoString() string { return hidden }

// Format implements [fmt.Formatter], for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue implements [slog.LogValuer].
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalJSON implements [json.Marshaler].
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }

// MarshalText implements [encoding.TextMarshaler].
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// SecretDigest tells what a place holds without telling it: SHA-256 behind a salt.
// That is enough for what is issued here, which nobody can guess, and would not be
// for what people choose.
func SecretDigest(value []byte) string {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails (crypto/rand)
	return digest(salt, value)
}

// MatchesDigest says whether a value is the one that a digest was made of.
func MatchesDigest(of string, value []byte) bool {
	salt, _, ok := strings.Cut(of, ".")
	raw, err := base64.RawURLEncoding.DecodeString(salt)
	return ok && err == nil && subtle.ConstantTimeCompare([]byte(digest(raw, value)), []byte(of)) == 1
}

func digest(salt, value []byte) string {
	h := sha256.New()
	h.Write(salt)
	h.Write(value)
	return base64.RawURLEncoding.EncodeToString(salt) + "." + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}
