package trigger_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"remit"
	"remit/server/token"
	"remit/server/trigger"
	"remit/ssf"
	"remit/store/sqlstore"
)

var key = bytes.Repeat([]byte{7}, 32)

// cluster is a system with a few identities.
var cluster = remit.System{ID: remit.SystemID("kubernetes", "uid"), Connector: "kubernetes", Name: "prod", Native: "uid", Mode: remit.ModeObserve}

func person(name string) remit.Identity {
	ref := remit.Ref{Kind: "User", Name: name}
	return remit.Identity{
		Record: remit.Record{ID: remit.IdentityID(cluster.ID, ref), System: cluster.ID, Ref: ref},
		Type:   remit.Human, Status: remit.Active, Principal: name,
	}
}

func account(namespace, name, uid string) remit.Identity {
	ref := remit.Ref{Kind: "ServiceAccount", Namespace: namespace, Name: name}
	return remit.Identity{
		Record: remit.Record{ID: remit.IdentityID(cluster.ID, ref), System: cluster.ID, Ref: ref, Incarnation: uid},
		Type:   remit.ServiceAccount, Status: remit.Active, Principal: "system:serviceaccount:" + namespace + ":" + name,
	}
}

func put(t *testing.T, store *sqlstore.Store, records remit.Records) {
	t.Helper()
	if err := store.PutSystem(t.Context(), cluster); err != nil {
		t.Fatal(err)
	}
	run, err := store.StartRun(t.Context(), cluster.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := run.Apply(t.Context(), "all", time.Now(), records, nil); err != nil {
		t.Fatal(err)
	}
}

// provider is a transmitter written from the specifications: it signs tokens with
// keys that it publishes, and serves polls.
type provider struct {
	*httptest.Server
	mu      sync.Mutex
	keys    map[string]*ecdsa.PrivateKey
	asked   int // for the keys
	pending map[string]string
	acked   []string
	errors  map[string]string
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{keys: map[string]*ecdsa.PrivateKey{}, pending: map[string]string{}, errors: map[string]string{}}
	p.addKey(t, "one")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/ssf-configuration", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, p.URL, p.URL+"/keys")
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asked++
		set := jose.JSONWebKeySet{}
		for id, k := range p.keys {
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.Public(), KeyID: id, Algorithm: "ES256", Use: "sig"})
		}
		_ = json.NewEncoder(w).Encode(set)
	})
	mux.HandleFunc("POST /poll", func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Ack     []string
			SetErrs map[string]struct{ Err string }
		}
		if r.Header.Get("Authorization") != "Bearer poll-secret" || json.NewDecoder(r.Body).Decode(&q) != nil {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, id := range q.Ack {
			p.acked = append(p.acked, id)
			delete(p.pending, id)
		}
		for id, e := range q.SetErrs {
			p.errors[id] = e.Err
			delete(p.pending, id)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"sets": p.pending})
	})
	p.Server = httptest.NewTLSServer(mux)
	t.Cleanup(p.Close)
	return p
}

func (p *provider) addKey(t *testing.T, id string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys[id] = k
}

const audience = "https://remit.example.com"

// set makes the claims of an event about a subject, as of SSF 1.0.
func (p *provider) set(id, typ string, subject, event map[string]any) map[string]any {
	if event == nil {
		event = map[string]any{"event_timestamp": time.Now().Unix()}
	}
	return map[string]any{
		"iss": p.URL, "aud": []string{"https://other.example.com", audience}, "iat": time.Now().Unix(), "jti": id, "txn": "t-" + id,
		"sub_id": subject, "events": map[string]any{typ: event},
	}
}

// sign signs claims with the key of that ID.
func (p *provider) sign(t *testing.T, kid, typ string, claims map[string]any) string {
	t.Helper()
	p.mu.Lock()
	k := p.keys[kid]
	p.mu.Unlock()
	return signWith(t, jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: k, KeyID: kid}}, typ, claims)
}

func signWith(t *testing.T, key jose.SigningKey, typ string, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(key, new(jose.SignerOptions).WithType(jose.ContentType(typ)))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	out, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func mail(address string) map[string]any {
	return map[string]any{"format": "email", "email": address}
}

// post is the receiver with all around it, behind TLS.
type post struct {
	*httptest.Server
	path     string // of the data directory
	store    *sqlstore.Store
	tokens   *token.Tokens
	secret   string // of a token for signals
	source   *ssf.Source
	receiver *ssf.Receiver
	log      bytes.Buffer
}

func newPost(t *testing.T, p *provider) *post {
	t.Helper()
	o := &post{path: t.TempDir()}
	o.open(t, p)
	var err error
	if o.secret, _, err = o.tokens.Create(t.Context(), token.Request{Client: "idp", Scope: token.SendSignals}); err != nil {
		t.Fatal(err)
	}
	put(t, o.store, remit.Records{Identities: []remit.Identity{
		person("Alice@example.com"), person("bob"), account("shop", "worker", "u1"), person("https://idp.example.com#00u1"),
	}})
	return o
}

// open starts everything over what the data directory has, as after a restart.
func (o *post) open(t *testing.T, p *provider) {
	t.Helper()
	if o.Server != nil {
		o.Close()
		o.store.Close()
	}
	var err error
	if o.store, err = sqlstore.Open(t.Context(), filepath.Join(o.path, "remit.db")); err != nil {
		t.Fatal(err)
	}
	if o.tokens, err = token.New(o.store, key, nil); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(io.MultiWriter(&o.log, t.Output()), nil))
	o.source = &ssf.Source{
		Name: "idp", Issuer: p.URL, Audience: audience, Systems: []string{"prod"}, Keys: &ssf.Keys{Issuer: p.URL, Client: p.Client()},
	}
	o.receiver = &ssf.Receiver{Store: o.store, Log: log, Names: func(name string) []string {
		if name == "bob@example.com" {
			return []string{"bob@example.com", "bob"}
		}
		return nil
	}}
	mux := http.NewServeMux()
	mux.Handle(trigger.SignalsPath+"idp", trigger.NewPush(trigger.Push{Receiver: o.receiver, Tokens: o.tokens, Log: log}).Handler(o.source))
	o.Server = httptest.NewTLSServer(mux)
	t.Cleanup(func() { o.Close(); o.store.Close() })
}

// push delivers a token, and returns the status and the error's code.
func (o *post) push(t *testing.T, set string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, o.URL+trigger.SignalsPath+"idp", strings.NewReader(set))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", ssf.MediaType)
	r.Header.Set("Authorization", "Bearer "+o.secret)
	w, err := o.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	var answer struct{ Err string }
	_ = json.NewDecoder(w.Body).Decode(&answer)
	return w.StatusCode, answer.Err
}

func (o *post) findings(t *testing.T, states ...remit.FindingState) map[string]remit.Finding {
	t.Helper()
	return findingsOf(t, o.store, states...)
}

func findingsOf(t *testing.T, store *sqlstore.Store, states ...remit.FindingState) map[string]remit.Finding {
	t.Helper()
	list, _, err := store.Findings(t.Context(), remit.FindingFilter{States: states}, remit.PageRequest{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]remit.Finding{}
	for _, f := range list {
		out[f.Policy+" "+f.Subject.Name] = f
	}
	return out
}

// TestPush holds what an event about each form of subject becomes.
func TestPush(t *testing.T) {
	p := newProvider(t)
	o := newPost(t, p)
	for name, test := range map[string]struct {
		typ     string
		subject map[string]any
		event   map[string]any
		want    string // policy and subject
		is      remit.Severity
	}{
		"mail, in another case": {ssf.SessionRevoked, mail("alice@EXAMPLE.com"), nil, "idp-session-revoked Alice@example.com", remit.High},
		"issuer and subject": {
			ssf.CredentialChange,
			map[string]any{"format": "iss_sub", "iss": "https://idp.example.com", "sub": "00u1"},
			map[string]any{"change_type": "revoke", "credential_type": "password", "reason_admin": map[string]string{"en": "lost phone"}},
			"idp-credential-change https://idp.example.com#00u1", remit.High,
		},
		"complex": {
			ssf.AccountDisabled,
			map[string]any{
				"format": "complex", "user": map[string]any{"format": "opaque", "id": "system:serviceaccount:shop:worker"},
				"tenant": map[string]any{"format": "opaque", "id": "acme"},
			},
			map[string]any{"reason": "hijacking"},
			"idp-account-disabled worker", remit.Critical,
		},
		"aliases": {
			ssf.AccountPurged, map[string]any{"format": "aliases", "identifiers": []any{
				map[string]any{"format": "phone_number", "phone_number": "+12065550100"}, mail("alice@example.com"),
			}}, map[string]any{}, "idp-account-purged Alice@example.com", remit.High,
		},
		"by another name of the person": {ssf.CredentialCompromise, mail("bob@example.com"), map[string]any{}, "idp-credential-compromise bob", remit.Critical},
	} {
		t.Run(name, func(t *testing.T) {
			if status, code := o.push(t, p.sign(t, "one", "secevent+jwt", p.set(name, test.typ, test.subject, test.event))); status != http.StatusAccepted {
				t.Fatalf("%d %s", status, code)
			}
			f, ok := o.findings(t, remit.Open)[test.want]
			if !ok || f.Severity != test.is || f.System != cluster.ID || len(f.Evidence) == 0 {
				t.Errorf("%s: %+v", test.want, f)
			}
		})
	}
	signals, err := ssf.Signals(t.Context(), o.store)
	if err != nil || len(signals) != 5 {
		t.Errorf("%d signals, %v", len(signals), err)
	}
}

// TestPushRefuses holds that a token that is not the provider's, not for us or not
// of now is refused with the code that RFC 8935 has for it, and changes nothing.
func TestPushRefuses(t *testing.T) {
	p := newProvider(t)
	o := newPost(t, p)
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := func(change func(map[string]any)) map[string]any {
		set := p.set("x", ssf.SessionRevoked, mail("alice@example.com"), nil)
		change(set)
		return set
	}
	with := func(change func(map[string]any)) string { return p.sign(t, "one", "secevent+jwt", good(change)) }
	nothing := func(map[string]any) {}
	unsigned := func() string {
		parts := strings.Split(with(nothing), ".")
		return "eyJhbGciOiJub25lIiwidHlwIjoic2VjZXZlbnQrand0In0." + parts[1] + "."
	}
	der, err := x509.MarshalPKIXPublicKey(p.keys["one"].Public())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	for name, test := range map[string]struct {
		set  string
		code string
	}{
		"another's signature": {signWith(t, jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: stranger, KeyID: "one"}}, "secevent+jwt", good(nothing)), ssf.AuthenticationFailed},
		"unsigned":            {unsigned(), ssf.InvalidRequest},
		"signed by the public key as a secret": {
			signWith(t, jose.SigningKey{Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: public, KeyID: "one"}}, "secevent+jwt", good(nothing)), ssf.InvalidRequest,
		},
		"an ID token":    {p.sign(t, "one", "JWT", good(nothing)), ssf.InvalidRequest},
		"issuer":         {with(func(m map[string]any) { m["iss"] = "https://evil.example.com" }), ssf.InvalidIssuer},
		"audience":       {with(func(m map[string]any) { m["aud"] = "https://other.example.com" }), ssf.InvalidAudience},
		"of the future":  {with(func(m map[string]any) { m["iat"] = time.Now().Add(time.Hour).Unix() }), ssf.InvalidRequest},
		"of long ago":    {with(func(m map[string]any) { m["iat"] = time.Now().Add(-8 * 24 * time.Hour).Unix() }), ssf.InvalidRequest},
		"no time":        {with(func(m map[string]any) { delete(m, "iat") }), ssf.InvalidRequest},
		"no ID":          {with(func(m map[string]any) { delete(m, "jti") }), ssf.InvalidRequest},
		"with an end":    {with(func(m map[string]any) { m["exp"] = time.Now().Unix() }), ssf.InvalidRequest},
		"no events":      {with(func(m map[string]any) { m["events"] = map[string]any{} }), ssf.InvalidRequest},
		"no subject":     {with(func(m map[string]any) { delete(m, "sub_id") }), ssf.InvalidRequest},
		"broken subject": {with(func(m map[string]any) { m["sub_id"] = "alice" }), ssf.InvalidRequest},
		"no token":       {"alice@example.com", ssf.InvalidRequest},
	} {
		if status, code := o.push(t, test.set); status != http.StatusBadRequest || code != test.code {
			t.Errorf("%s: %d %s; want 400 %s", name, status, code, test.code)
		}
	}
	right := o.secret
	for secret, want := range map[string]int{"remit_wrong": http.StatusUnauthorized, "": http.StatusUnauthorized} {
		o.secret = secret
		if status, code := o.push(t, with(nothing)); status != want || code != ssf.AuthenticationFailed {
			t.Errorf("token %q: %d %s", secret, status, code)
		}
	}
	var err2 error
	if o.secret, _, err2 = o.tokens.Create(t.Context(), token.Request{Client: "collector", Scope: token.SendEvents}); err2 != nil {
		t.Fatal(err2)
	}
	if status, code := o.push(t, with(nothing)); status != http.StatusForbidden || code != ssf.AccessDenied {
		t.Errorf("a token for events: %d %s", status, code)
	}
	o.secret = right
	if status, _ := o.push(t, strings.Repeat("a", ssf.MaxToken+1)); status != http.StatusRequestEntityTooLarge {
		t.Errorf("too large: %d", status)
	}
	if got := o.findings(t); len(got) > 0 {
		t.Errorf("findings all the same: %v", slices.Collect(maps.Keys(got)))
	}
}

// TestReplay holds that a token counts once, also after a restart, that it is
// acknowledged each time, and that another token with its ID is refused.
func TestReplay(t *testing.T) {
	p := newProvider(t)
	o := newPost(t, p)
	claims := p.set("once", ssf.SessionRevoked, mail("alice@example.com"), nil)
	set := p.sign(t, "one", "secevent+jwt", claims)
	for range 3 {
		if status, code := o.push(t, set); status != http.StatusAccepted {
			t.Fatalf("%d %s", status, code)
		}
		if f := o.findings(t)["idp-session-revoked Alice@example.com"]; f.EventCount != 1 || f.Reopened != 0 {
			t.Errorf("counted %d times, reopened %d", f.EventCount, f.Reopened)
		}
		o.open(t, p)
	}
	claims["iat"] = time.Now().Unix() + 1 // issued anew, as after a long outage
	if status, code := o.push(t, p.sign(t, "one", "secevent+jwt", claims)); status != http.StatusAccepted {
		t.Errorf("issued anew: %d %s", status, code)
	}
	claims["sub_id"] = mail("mallory@example.com")
	if status, code := o.push(t, p.sign(t, "one", "secevent+jwt", claims)); status != http.StatusBadRequest || code != ssf.InvalidRequest {
		t.Errorf("another token with the ID: %d %s", status, code)
	}
}

// TestKeyRotation holds that a new key is taken up, and that the provider is not
// asked for its keys as often as somebody sends tokens.
func TestKeyRotation(t *testing.T) {
	p := newProvider(t)
	o := newPost(t, p)
	now := time.Now()
	o.source.Keys.Now = func() time.Time { return now }
	send := func(kid, id string) int {
		status, _ := o.push(t, p.sign(t, kid, "secevent+jwt", p.set(id, ssf.SessionRevoked, mail("alice@example.com"), nil)))
		return status
	}
	if status := send("one", "a"); status != http.StatusAccepted || p.asked != 1 {
		t.Fatalf("%d, asked %d times", status, p.asked)
	}
	p.addKey(t, "two")
	for i := range 5 {
		if status := send("two", fmt.Sprint("b", i)); status != http.StatusServiceUnavailable || p.asked != 1 {
			t.Errorf("at once: %d, asked %d times", status, p.asked)
		}
	}
	now = now.Add(31 * time.Second)
	if status := send("two", "c"); status != http.StatusAccepted || p.asked != 2 {
		t.Errorf("later: %d, asked %d times", status, p.asked)
	}
	if status := send("one", "d"); status != http.StatusAccepted {
		t.Errorf("the former key: %d", status)
	}
	// The provider is down, and its keys are known.
	p.Close()
	now = now.Add(2 * time.Hour)
	if status := send("one", "e"); status != http.StatusAccepted {
		t.Errorf("while it is down: %d", status)
	}
}

// TestAccountStates holds that an account that is enabled again resolves the
// finding, and that what comes late or in the wrong order changes nothing.
func TestAccountStates(t *testing.T) {
	p := newProvider(t)
	o := newPost(t, p)
	n := 0
	tell := func(typ string, ago time.Duration) remit.FindingState {
		t.Helper()
		n++
		event := map[string]any{"event_timestamp": time.Now().Add(-ago).Unix()}
		if status, code := o.push(t, p.sign(t, "one", "secevent+jwt", p.set(fmt.Sprint(n), typ, mail("alice@example.com"), event))); status != http.StatusAccepted {
			t.Fatalf("%d %s", status, code)
		}
		return o.findings(t)["idp-account-disabled Alice@example.com"].State
	}
	for i, step := range []struct {
		typ  string
		ago  time.Duration
		want remit.FindingState
	}{
		{ssf.AccountDisabled, 60 * time.Minute, remit.Open},
		{ssf.AccountEnabled, 90 * time.Minute, remit.Open}, // of before it was disabled
		{ssf.AccountEnabled, 50 * time.Minute, remit.Resolved},
		{ssf.AccountDisabled, 55 * time.Minute, remit.Resolved}, // late
		{ssf.AccountDisabled, 40 * time.Minute, remit.Open},
		{ssf.AccountEnabled, 45 * time.Minute, remit.Open}, // late
		{ssf.AccountEnabled, 30 * time.Minute, remit.Resolved},
	} {
		if got := tell(step.typ, step.ago); got != step.want {
			t.Errorf("step %d: %s; want %s", i, got, step.want)
		}
	}
	if f := o.findings(t)["idp-account-disabled Alice@example.com"]; f.Reopened != 1 {
		t.Errorf("reopened %d times", f.Reopened)
	}
}

// TestUnmatched holds that a subject that nobody is known by is told, and never
// taken for somebody whose name is like it.
func TestUnmatched(t *testing.T) {
	p := newProvider(t)
	o := newPost(t, p)
	o.source.Systems = nil
	for id, subject := range map[string]map[string]any{
		"mail":   mail("carol@example.com"),
		"part":   mail("alice@example.com.evil.org"),
		"bare":   {"format": "opaque", "id": "bob"}, // the issuer names nobody in prod
		"phone":  {"format": "phone_number", "phone_number": "+12065550100"},
		"tenant": {"format": "complex", "tenant": map[string]any{"format": "opaque", "id": "bob"}},
		"future": {"format": "iris_scan", "id": "bob"},
	} {
		if status, code := o.push(t, p.sign(t, "one", "secevent+jwt", p.set(id, ssf.SessionRevoked, subject, nil))); status != http.StatusAccepted {
			t.Errorf("%s: %d %s", id, status, code)
		}
	}
	if got := o.findings(t); len(got) > 0 {
		t.Errorf("findings: %v", slices.Collect(maps.Keys(got)))
	}
	signals, err := ssf.Signals(t.Context(), o.store)
	if err != nil || len(signals) != 6 || slices.ContainsFunc(signals, func(s ssf.Signal) bool { return s.Outcome != ssf.Unmatched }) {
		t.Errorf("%+v, %v", signals, err)
	}
	if !strings.Contains(o.log.String(), "carol@example.com") {
		t.Error("the log does not tell whom nobody is known by")
	}
}

// TestPollSignals takes tokens by poll, acknowledges what is on disk and says what
// is wrong with the others.
func TestPollSignals(t *testing.T) {
	p := newProvider(t)
	o := newPost(t, p)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("poll-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	for _, id := range []string{"a", "b"} {
		p.mu.Unlock()
		set := p.sign(t, "one", "secevent+jwt", p.set(id, ssf.SessionRevoked, mail("alice@example.com"), nil))
		p.mu.Lock()
		p.pending[id] = set
	}
	p.pending["torn"] = "torn"
	p.mu.Unlock()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	poll := ssf.Poll{
		Source: o.source, Receiver: o.receiver, Log: o.receiver.Log, Endpoint: p.URL + "/poll", TokenFile: file, Client: p.Client(),
		Every: 20 * time.Millisecond,
	}
	go func() { done <- poll.Run(ctx) }()
	defer func() { stop(); <-done }()
	eventually(t, "acknowledgements", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.pending) == 0 && len(p.acked) == 2 && p.errors["torn"] == ssf.InvalidRequest
	})
	if f := o.findings(t)["idp-session-revoked Alice@example.com"]; f.EventCount != 2 {
		t.Errorf("%+v", f)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
