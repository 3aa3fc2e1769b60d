package trigger_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"remit"
	"remit/server/token"
	"remit/server/trigger"
	"remit/ssf"
	"remit/store/sqlstore"
)

// sender is a Remit that transmits, behind TLS.
type sender struct {
	*httptest.Server
	path        string
	store       *sqlstore.Store
	tokens      *token.Tokens
	transmitter *ssf.Transmitter
	mux         *http.ServeMux
}

func newSender(t *testing.T) *sender {
	t.Helper()
	s := &sender{path: t.TempDir(), mux: http.NewServeMux()}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }))
	t.Cleanup(s.Close)
	s.open(t)
	put(t, s.store, remit.Records{Identities: []remit.Identity{account("shop", "worker", "u1"), person("alice@example.com")}})
	return s
}

// open starts over, as after a kill: only what is on disk is known.
func (s *sender) open(t *testing.T) {
	t.Helper()
	if s.store != nil {
		s.store.Close()
	}
	var err error
	if s.store, err = sqlstore.Open(t.Context(), filepath.Join(s.path, "remit.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.store.Close() })
	if s.tokens, err = token.New(s.store, key, nil); err != nil {
		t.Fatal(err)
	}
	signer, err := ssf.OpenSigner(s.path)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	s.transmitter = &ssf.Transmitter{Issuer: s.URL, Signer: signer, Store: s.store, Log: log}
	if err := s.transmitter.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.mux = http.NewServeMux()
	streams := trigger.Streams{Transmitter: s.transmitter, Tokens: s.tokens, Log: log}
	streams.Mount(s.mux)
}

// contained writes a plan that was carried out, and undone where that is asked.
func (s *sender) contained(t *testing.T, of remit.Identity, n int, states ...remit.ResponseState) remit.Response {
	t.Helper()
	made := time.Now().Add(time.Duration(n) * time.Millisecond)
	r := remit.Response{
		ID: remit.ResponseID(of.ID, remit.Contain, made), System: cluster.ID, Action: remit.Contain, AskedBy: "rule stolen",
		Subject: remit.Subject{Record: remit.KindIdentity, Ref: of.Ref, ID: of.ID}, Made: made, Changed: made,
	}
	return s.move(t, r, states...)
}

func (s *sender) move(t *testing.T, r remit.Response, states ...remit.ResponseState) remit.Response {
	t.Helper()
	for _, state := range states {
		r.State = state
		r.History = append(r.History, remit.ResponseEvent{Time: time.Now(), Actor: "remit", State: state})
	}
	r, err := s.store.PutResponse(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// ask does a request of a receiver.
func (s *sender) ask(t *testing.T, secret, method, path string, body, into any) int {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	w, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	answer, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	if into != nil && w.StatusCode < 300 {
		if err := json.Unmarshal(answer, into); err != nil {
			t.Fatalf("%s: %v", answer, err)
		}
	}
	return w.StatusCode
}

type polled struct {
	Sets          map[string]string
	MoreAvailable bool
}

// TestStream takes a receiver through its stream: it makes one, verifies it, polls
// and acknowledges; a Remit that is killed in between loses nothing.
func TestStream(t *testing.T) {
	s := newSender(t)
	secret, _, err := s.tokens.Create(t.Context(), token.Request{Client: "siem", Scope: token.ReadSignals})
	if err != nil {
		t.Fatal(err)
	}
	worker := account("shop", "worker", "u1")
	s.contained(t, worker, 0, remit.ResponseRunning, remit.ResponseVerified) // before there is a stream
	time.Sleep(2 * time.Millisecond)

	var metadata ssf.Metadata
	if status := s.ask(t, "", http.MethodGet, ssf.WellKnown, nil, &metadata); status != 200 || metadata.Issuer != s.URL || metadata.Configuration != s.URL+"/v1/streams" {
		t.Fatalf("%d %+v", status, metadata)
	}
	var stream ssf.Configuration
	if status := s.ask(t, secret, http.MethodPost, "/v1/streams", map[string]any{
		"events_requested": []string{ssf.SessionRevoked, ssf.CredentialChange, "https://example.com/other"},
		"delivery":         map[string]string{"method": ssf.DeliverByPoll},
	}, &stream); status != http.StatusCreated || len(stream.EventsDelivered) != 2 || stream.Delivery.Endpoint == "" {
		t.Fatalf("%d %+v", status, stream)
	}
	if status := s.ask(t, secret, http.MethodPost, "/v1/streams", map[string]any{}, nil); status != http.StatusConflict {
		t.Errorf("a second stream: %d", status)
	}
	if status := s.ask(t, secret, http.MethodPut, "/v1/streams", map[string]any{
		"stream_id": stream.StreamID, "delivery": map[string]string{"method": ssf.DeliverByPush, "endpoint_url": "http://169.254.169.254/"},
	}, nil); status != http.StatusBadRequest {
		t.Errorf("push to where a receiver likes: %d", status)
	}
	if status := s.ask(t, secret, http.MethodPost, "/v1/streams/verify", map[string]any{"stream_id": stream.StreamID, "state": "s1"}, nil); status != http.StatusNoContent {
		t.Errorf("verify: %d", status)
	}

	plan := s.contained(t, worker, 1, remit.ResponseRunning, remit.ResponseVerified)
	s.contained(t, person("alice@example.com"), 2, remit.ResponseRunning) // not yet in effect
	derive := func() {
		t.Helper()
		if err := s.transmitter.Derive(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	poll := func(q map[string]any) polled {
		t.Helper()
		q["returnImmediately"] = true
		var got polled
		if status := s.ask(t, secret, http.MethodPost, "/v1/streams/"+stream.StreamID+"/poll", q, &got); status != 200 {
			t.Fatalf("poll: %d", status)
		}
		return got
	}
	derive()
	first := poll(map[string]any{})
	if len(first.Sets) != 2 {
		t.Fatalf("%d tokens; want the verification and one containment", len(first.Sets))
	}
	s.open(t) // killed before it was acknowledged
	derive()
	again := poll(map[string]any{})
	var ids []string
	for id := range first.Sets {
		ids = append(ids, id)
		if again.Sets[id] == "" {
			t.Errorf("token %s is gone, or has another ID", id)
		}
	}
	if len(again.Sets) != 2 {
		t.Errorf("%d tokens after the kill", len(again.Sets))
	}
	if one := poll(map[string]any{"maxEvents": 1}); len(one.Sets) != 1 || !one.MoreAvailable {
		t.Errorf("one at a time: %+v", one)
	}
	if left := poll(map[string]any{"ack": ids}); len(left.Sets) != 0 {
		t.Errorf("after the acknowledgement: %+v", left)
	}
	s.open(t)
	derive()
	if left := poll(map[string]any{}); len(left.Sets) != 0 {
		t.Errorf("acknowledged and told again: %+v", left)
	}
	s.move(t, plan, remit.ResponseUndoing, remit.ResponseUndone)
	derive()
	undone := poll(map[string]any{})
	if len(undone.Sets) != 1 {
		t.Errorf("undone: %+v", undone)
	}

	// Another client sees none of it.
	other, _, err := s.tokens.Create(t.Context(), token.Request{Client: "other", Scope: token.ReadSignals})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/v1/streams?stream_id=" + stream.StreamID, "/v1/streams/status?stream_id=" + stream.StreamID} {
		if status := s.ask(t, other, http.MethodGet, path, nil, nil); status != http.StatusNotFound {
			t.Errorf("%s as another: %d", path, status)
		}
	}
	if status := s.ask(t, other, http.MethodPost, "/v1/streams/"+stream.StreamID+"/poll", map[string]any{}, nil); status != http.StatusNotFound {
		t.Errorf("poll as another: %d", status)
	}
	if status := s.ask(t, "remit_no", http.MethodGet, "/v1/streams", nil, nil); status != http.StatusUnauthorized {
		t.Errorf("without a token: %d", status)
	}
	var status ssf.Status
	if code := s.ask(t, secret, http.MethodPost, "/v1/streams/status", map[string]any{"stream_id": stream.StreamID, "status": "paused"}, &status); code != 200 || status.Status != "paused" {
		t.Errorf("%d %+v", code, status)
	}
	if held := poll(map[string]any{}); len(held.Sets) != 0 {
		t.Error("a paused stream delivers")
	}
	if code := s.ask(t, secret, http.MethodDelete, "/v1/streams?stream_id="+stream.StreamID, nil, nil); code != http.StatusNoContent {
		t.Errorf("delete: %d", code)
	}
}

// TestFromRemitToRemit has one Remit push what it contained to another, through
// restarts of both: it arrives as a finding, once.
func TestFromRemitToRemit(t *testing.T) {
	s := newSender(t)
	p := &provider{Server: s.Server}
	o := newPost(t, p)
	if err := s.transmitter.OpenStream(t.Context(), "other", audience, nil); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Millisecond)
	for n, of := range []remit.Identity{account("shop", "worker", "u1"), person("alice@example.com")} {
		s.contained(t, of, n, remit.ResponseRunning, remit.ResponseVerified)
	}
	file := filepath.Join(t.TempDir(), "token")
	for i := range 3 {
		s.open(t)
		o.open(t, p)
		if err := os.WriteFile(file, []byte(o.secret), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Duration(1+i)*700*time.Millisecond)
		work := make(chan error, 2)
		go func() { work <- s.transmitter.Run(ctx) }()
		go func() {
			work <- s.transmitter.Deliver(ctx, ssf.Push{Receiver: "other", Endpoint: o.URL + trigger.SignalsPath + "idp", TokenFile: file, Client: o.Client()})
		}()
		<-work
		<-work
		stop()
	}
	got := o.findings(t, remit.Open)
	for _, want := range []string{"idp-session-revoked worker", "idp-session-revoked Alice@example.com"} {
		if f := got[want]; f.EventCount != 1 {
			t.Errorf("%s: %+v", want, f)
		}
	}
	if signals, err := ssf.Signals(t.Context(), o.store); err != nil || len(signals) != 2 {
		t.Errorf("%v %v", signals, err)
	}
}

// TestReports takes what a script reports, and says when it is over.
func TestReports(t *testing.T) {
	s := newSender(t)
	secret, _, err := s.tokens.Create(t.Context(), token.Request{Client: "soar", Scope: token.SendTriggers})
	if err != nil {
		t.Fatal(err)
	}
	worker := account("shop", "worker", "u1")
	var announced []remit.ID
	s.mux.Handle(trigger.ReportPath, &trigger.Reports{
		Tokens: s.tokens, Store: s.store, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Announced: func(ids []remit.ID) { announced = append(announced, ids...) },
		Subject: func(_ context.Context, _, name string) (trigger.Concerned, error) {
			if name != worker.Principal {
				return trigger.Concerned{}, remit.Errorf(remit.NotFound, "", "no identity is called %q", name)
			}
			return trigger.Concerned{System: cluster.ID, Subject: remit.Subject{Record: remit.KindIdentity, Ref: worker.Ref, ID: worker.ID}}, nil
		},
	})
	about := func(more string) json.RawMessage {
		return json.RawMessage(fmt.Sprintf(`{"subject":%q%s}`, worker.Principal, more))
	}
	var made struct {
		Finding remit.ID
		State   remit.FindingState
	}
	for i, step := range []struct {
		body json.RawMessage
		want int
		is   remit.FindingState
	}{
		{about(`,"reason":"seen in a dump","severity":"critical","links":["https://soar.example.com/1"]`), http.StatusCreated, remit.Open},
		{about(`,"reason":"seen in a dump again"`), http.StatusOK, remit.Open},
		{about(`,"resolved":true`), http.StatusOK, remit.Resolved},
		{about(`,"reason":"once more"`), http.StatusCreated, remit.Open},
		{about(``), http.StatusBadRequest, ""},
		{about(`,"reason":"x","severity":"grave"`), http.StatusBadRequest, ""},
		{about(`,"reason":"x","links":["javascript:alert(1)"]`), http.StatusBadRequest, ""},
		{about(`,"reason":"x","action":"contain"`), http.StatusBadRequest, ""},
		{json.RawMessage(`{"subject":"nobody","reason":"x"}`), http.StatusNotFound, ""},
		{json.RawMessage(`[]`), http.StatusBadRequest, ""},
		{json.RawMessage(`{"subject":"` + string(bytes.Repeat([]byte("a"), 70<<10)) + `"}`), http.StatusRequestEntityTooLarge, ""},
	} {
		if status := s.ask(t, secret, http.MethodPost, trigger.ReportPath, step.body, &made); status != step.want || step.is != "" && made.State != step.is {
			t.Errorf("step %d: %d %s; want %d %s", i, status, made.State, step.want, step.is)
		}
	}
	if f := findingsOf(t, s.store, remit.Open)["reported worker"]; f.Reopened != 1 || f.ID != made.Finding || len(announced) != 2 {
		t.Errorf("%+v, announced %v", f, announced)
	}
	if status := s.ask(t, "", http.MethodPost, trigger.ReportPath, about(`,"reason":"x"`), nil); status != http.StatusUnauthorized {
		t.Errorf("without a token: %d", status)
	}
}
