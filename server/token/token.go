// Package token makes and checks the access tokens of Remit itself: with one, an
// API server, a collector or a script sends events, and an identity provider its
// signals.
//
// Remit governs itself: a token is a credential of an identity in a system of
// its own named "remit", listed, aged and judged with everything else. Only its
// fingerprint is kept.
package token

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"

	"remit"
	"remit/connector/secret"
)

// Scope is what a token may do.
type Scope string

// The scopes.
const (
	SendEvents   Scope = "events"    // hand in audit events
	ReadMetrics  Scope = "metrics"   // read Remit's own metrics
	SendSignals  Scope = "signals"   // push the signals of an identity provider
	ReadSignals  Scope = "streams"   // receive the signals that Remit sends
	SendTriggers Scope = "triggers"  // report what must cause a response
	Authorize    Scope = "authorize" // ask whether a request is refused
)

// Scopes lists all there are.
var Scopes = []Scope{SendEvents, ReadMetrics, SendSignals, ReadSignals, SendTriggers, Authorize}

// purposes say what a client with a token of each scope does.
var purposes = map[Scope]string{
	SendEvents: "sends events to Remit", ReadMetrics: "reads the metrics of Remit", SendSignals: "pushes an identity provider's signals to Remit",
	ReadSignals: "receives the signals of Remit", SendTriggers: "reports to Remit what must cause a response",
	Authorize: "asks Remit which requests are refused",
}

// Prefix begins every token, so that scanners and people recognise one.
const Prefix = "remit_"

// Lifetimes of a token.
const (
	DefaultLifetime = 365 * 24 * time.Hour
	MaxLifetime     = 2 * 365 * 24 * time.Hour
)

// Token is what is known of an access token.
type Token struct {
	Client string // the identity that holds it
	ID     string // tells the tokens of one client apart; not secret
	Scope  Scope

	// System is the name of the system whose events may be sent with it, or for
	// which it may ask, and Source the events' source; "" where the events tell, or
	// for any.
	System string
	Source string

	Status   remit.Status
	Issued   time.Time
	Expires  time.Time
	LastUsed time.Time // to the hour
}

// Store is what tokens need of the store.
type Store interface {
	remit.InventoryWriter
	Systems(ctx context.Context) ([]remit.System, error)
	Identities(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Identity, string, error)
	Credentials(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Credential, string, error)
}

// Tokens is safe for concurrent use, also by several processes.
type Tokens struct {
	store       Store
	fingerprint *secret.Fingerprinter
	system      remit.System
	now         func() time.Time
}

// The words of Remit's own system.
const (
	connectorName = "remit"
	systemName    = "remit"
	clientKind    = "Client"
	tokenKind     = "Token"
	sectionName   = "tokens"
)

// New returns the tokens of an installation, whose key fingerprints them. A nil
// now is [time.Now].
func New(store Store, installationKey []byte, now func() time.Time) (*Tokens, error) {
	fingerprint, err := secret.NewFingerprinter(installationKey)
	if err != nil {
		return nil, err
	}
	if now == nil {
		now = time.Now
	}
	// The installation's name must not tell its key.
	mac := hmac.New(sha256.New, installationKey)
	mac.Write([]byte("installation"))
	native := hex.EncodeToString(mac.Sum(nil)[:8])
	return &Tokens{
		store: store, fingerprint: fingerprint, now: now,
		system: remit.System{
			ID: remit.SystemID(connectorName, native), Connector: connectorName, Name: systemName,
			Native: native, Mode: remit.ModeObserve,
		},
	}, nil
}

// System is the system in which the tokens are listed.
func (t *Tokens) System() remit.ID { return t.system.ID }

// Request says what token is wanted.
type Request struct {
	Client   string // a name of letters, digits, dot, dash and underscore, up to 63
	Scope    Scope
	System   string
	Source   string
	Owner    string        // who answers for the client; may be ""
	Lifetime time.Duration // 0 is DefaultLifetime; at most MaxLifetime
}

// Create makes a token and returns its secret, which is kept nowhere. A client
// may have several, so that one can be replaced without a pause: create, install,
// revoke the former. [remit.Invalid] says what of the request cannot be.
func (t *Tokens) Create(ctx context.Context, r Request) (string, Token, error) {
	const op = "create token"
	if !validName(r.Client) {
		return "", Token{}, remit.Errorf(remit.Invalid, op, "%q is no name of a client: use up to 63 letters, digits, dots, dashes and underscores", r.Client)
	}
	if !slices.Contains(Scopes, r.Scope) {
		return "", Token{}, remit.Errorf(remit.Invalid, op, "no scope %q: use one of %v", r.Scope, Scopes)
	}
	r.Lifetime = cmp.Or(r.Lifetime, DefaultLifetime)
	if r.Lifetime < time.Minute || r.Lifetime > MaxLifetime {
		return "", Token{}, remit.Errorf(remit.Invalid, op, "a token lives between a minute and %d days", MaxLifetime/(24*time.Hour))
	}
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // never fails (crypto/rand)
	text := Prefix + base64.RawURLEncoding.EncodeToString(raw[:])
	print := t.fingerprint.Fingerprint([]byte(text))
	now := t.now().UTC().Truncate(time.Second)

	client := remit.Ref{Kind: clientKind, Name: r.Client}
	identity := remit.Identity{
		Record: remit.Record{ID: remit.IdentityID(t.system.ID, client), System: t.system.ID, Ref: client, Created: now},
		Type:   remit.Application, Status: remit.Active, Principal: "remit:client:" + r.Client,
		Purpose: purposes[r.Scope],
	}
	known, _, err := t.store.Identities(ctx, remit.Filter{IDs: []remit.ID{identity.ID}}, remit.PageRequest{Limit: 1})
	if err != nil {
		return "", Token{}, err
	}
	if len(known) > 0 {
		identity.Created, identity.Owners = known[0].Created, known[0].Owners
	}
	if r.Owner != "" {
		identity.Owners = []remit.Owner{{Name: r.Owner, Source: "token create"}}
	}
	id := strings.TrimPrefix(print, "hmac:")[:12]
	ref := remit.Ref{Kind: tokenKind, Namespace: r.Client, Name: id}
	credential := remit.Credential{
		Record: remit.Record{ID: remit.CredentialID(t.system.ID, ref, ""), System: t.system.ID, Ref: ref, Created: now, Attributes: map[string]string{
			"scope": string(r.Scope),
		}},
		Type: remit.StaticToken, Status: remit.Active, Identity: identity.ID, Holder: client, Provider: connectorName,
		Fingerprint: print, Issued: now, Expires: now.Add(r.Lifetime), Lifetime: int64(r.Lifetime / time.Second),
	}
	for name, value := range map[string]string{"system": r.System, "source": r.Source} {
		if value != "" {
			credential.Attributes[name] = value
		}
	}
	err = t.write(ctx, remit.Records{Identities: []remit.Identity{identity}, Credentials: []remit.Credential{credential}})
	if err != nil {
		return "", Token{}, err
	}
	return text, tokenOf(&credential), nil
}

func validName(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c != '-' && c != '_' && c != '.' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

func (t *Tokens) write(ctx context.Context, records remit.Records) error {
	system := t.system
	system.Observed = t.now().UTC()
	if err := t.store.PutSystem(ctx, system); err != nil {
		return err
	}
	run, err := t.store.StartRun(ctx, t.system.ID)
	if err != nil {
		return err
	}
	_, err = run.Apply(ctx, sectionName, t.now().UTC(), records, nil)
	return err
}

// Check says which token it is that somebody presents. [remit.Unauthorized] when
// it is unknown, ended or revoked, and [remit.Forbidden] when it is for something
// else; the messages are for the one who presents it and tell him no more.
func (t *Tokens) Check(ctx context.Context, presented string, scope Scope) (Token, error) {
	const op = "check token"
	refused := func() (Token, error) {
		return Token{}, remit.Errorf(remit.Unauthorized, op, "the token is not accepted: it is unknown, has expired or was revoked")
	}
	if !strings.HasPrefix(presented, Prefix) || len(presented) > 128 {
		return refused()
	}
	print := t.fingerprint.Fingerprint([]byte(presented))
	found, _, err := t.store.Credentials(ctx, remit.Filter{System: t.system.ID, Fingerprints: []string{print}}, remit.PageRequest{Limit: 1})
	if err != nil {
		return Token{}, err
	}
	now := t.now().UTC()
	if len(found) == 0 || found[0].Status != remit.Active || !now.Before(found[0].Expires) {
		return refused()
	}
	c := &found[0]
	out := tokenOf(c)
	if out.Scope != scope {
		return Token{}, remit.Errorf(remit.Forbidden, op, "the token is for %s, not for %s", out.Scope, scope)
	}
	if hour := now.Truncate(time.Hour); c.LastUsed.Before(hour) {
		c.LastUsed = hour
		if err := t.write(ctx, remit.Records{Credentials: []remit.Credential{*c}}); err != nil {
			return Token{}, err
		}
	}
	return out, nil
}

// List lists all tokens, by client and age.
func (t *Tokens) List(ctx context.Context) ([]Token, error) {
	all, err := t.all(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Token, 0, len(all))
	for i := range all {
		out = append(out, tokenOf(&all[i]))
	}
	slices.SortFunc(out, func(a, b Token) int {
		return cmp.Or(cmp.Compare(a.Client, b.Client), a.Issued.Compare(b.Issued), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

func (t *Tokens) all(ctx context.Context) (all []remit.Credential, err error) {
	page := remit.PageRequest{Limit: 1000}
	for {
		some, next, err := t.store.Credentials(ctx, remit.Filter{System: t.system.ID, Kinds: []string{tokenKind}}, page)
		if err != nil {
			return nil, err
		}
		if all = append(all, some...); next == "" {
			return all, nil
		}
		page.After = next
	}
}

// Revoke ends the token of that ID, or all active ones of the client of that
// name, at once, and returns which. [remit.NotFound] when there is none.
func (t *Tokens) Revoke(ctx context.Context, name string) ([]Token, error) {
	all, err := t.all(ctx)
	if err != nil {
		return nil, err
	}
	var records remit.Records
	var out []Token
	for _, c := range all {
		if c.Status == remit.Active && (c.Name == name || c.Namespace == name) {
			c.Status, c.Since = remit.Revoked, t.now().UTC()
			records.Credentials = append(records.Credentials, c)
			out = append(out, tokenOf(&c))
		}
	}
	if len(out) == 0 {
		return nil, remit.Errorf(remit.NotFound, "revoke token", "no active token or client %q: see remit token list", name)
	}
	return out, t.write(ctx, records)
}

// Bearer returns the bearer token of a request (RFC 6750), "" when it has none.
func Bearer(r *http.Request) string {
	scheme, text, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(text)
}

func tokenOf(c *remit.Credential) Token {
	return Token{
		Client: c.Namespace, ID: c.Name, Scope: Scope(c.Attributes["scope"]), System: c.Attributes["system"], Source: c.Attributes["source"],
		Status: c.Status, Issued: c.Issued, Expires: c.Expires, LastUsed: c.LastUsed,
	}
}
