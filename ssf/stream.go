package ssf

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"remit"
)

// The statuses of a stream (SSF 1.0, section 8.1.2).
const (
	StreamEnabled  = "enabled"
	StreamPaused   = "paused"   // events are held
	StreamDisabled = "disabled" // events are dropped
)

// The ways of delivery, by their URNs.
const (
	DeliverByPush = "urn:ietf:rfc:8935"
	DeliverByPoll = "urn:ietf:rfc:8936"
)

// Supported are the types of events that Remit sends.
var Supported = []string{SessionRevoked, CredentialChange, AccountDisabled, AccountEnabled}

// Stream is a stream to one receiver.
type Stream struct {
	ID          string    `json:"id"`
	Client      string    `json:"client"` // whose token manages it; "" of one that the configuration makes
	Audience    string    `json:"audience"`
	Description string    `json:"description,omitempty"`
	Events      []string  `json:"events"` // that were asked for
	Status      string    `json:"status"`
	Reason      string    `json:"reason,omitempty"`
	Created     time.Time `json:"created"` // what happened before is not told
	Verified    time.Time `json:"verified,omitzero"`
	Push        bool      `json:"push,omitempty"`
}

func (s *Stream) wants(typ string) bool { return slices.Contains(s.Events, typ) }

// delivered are the events that were asked for and that there are.
func (s *Stream) delivered() []string {
	out := []string{}
	for _, typ := range Supported {
		if s.wants(typ) {
			out = append(out, typ)
		}
	}
	return out
}

// StreamPath is where receivers manage their streams.
const StreamPath = "/v1/streams"

// verifyEvery is the least time between two verifications of a stream.
const verifyEvery = 10 * time.Second

// Configuration is a stream as its receiver is told of it (SSF 1.0, section
// 8.1.1).
type Configuration struct {
	StreamID        string   `json:"stream_id"`
	Issuer          string   `json:"iss"`
	Audience        string   `json:"aud"`
	EventsSupported []string `json:"events_supported"`
	EventsRequested []string `json:"events_requested"`
	EventsDelivered []string `json:"events_delivered"`
	Delivery        Delivery `json:"delivery"`
	MinVerification int      `json:"min_verification_interval"`
	Description     string   `json:"description,omitempty"`
}

// Delivery is how a stream is delivered.
type Delivery struct {
	Method   string `json:"method"`
	Endpoint string `json:"endpoint_url,omitempty"`
}

func (t *Transmitter) configuration(s *Stream) Configuration {
	c := Configuration{
		StreamID: s.ID, Issuer: t.Issuer, Audience: s.Audience, EventsSupported: Supported, EventsRequested: s.Events,
		EventsDelivered: s.delivered(), MinVerification: int(verifyEvery / time.Second), Description: s.Description,
		Delivery: Delivery{Method: DeliverByPush},
	}
	if !s.Push {
		c.Delivery = Delivery{Method: DeliverByPoll, Endpoint: t.Issuer + StreamPath + "/" + s.ID + "/poll"}
	}
	return c
}

// Metadata is what Remit tells of itself as a transmitter.
func (t *Transmitter) Metadata() Metadata {
	return Metadata{
		SpecVersion: "1_0", Issuer: t.Issuer, JWKS: t.Issuer + StreamPath + "/jwks.json",
		DeliveryMethods: []string{DeliverByPush, DeliverByPoll},
		Configuration:   t.Issuer + StreamPath, Status: t.Issuer + StreamPath + "/status", Verification: t.Issuer + StreamPath + "/verify",
		Authorization: []Scheme{{URN: "urn:ietf:rfc:6750"}}, DefaultSubjects: "ALL",
	}
}

// StreamRequest is what a receiver asks a stream to be.
type StreamRequest struct {
	StreamID    string    `json:"stream_id"`
	Events      []string  `json:"events_requested"`
	Delivery    *Delivery `json:"delivery"`
	Description *string   `json:"description"`
}

// DecodeStreamRequest reads a request; [remit.Invalid] for what is none.
func DecodeStreamRequest(text []byte) (StreamRequest, error) {
	const op = "read stream"
	var q StreamRequest
	if err := json.Unmarshal(text, &q); err != nil {
		return q, remit.Errorf(remit.Invalid, op, "the body is no JSON object of a stream's configuration")
	}
	if q.Delivery != nil && q.Delivery.Method != DeliverByPoll {
		return q, remit.Errorf(remit.Invalid, op, "only delivery by poll (%s) can be asked for here: where Remit pushes to is set in its configuration", DeliverByPoll)
	}
	if len(q.Events) > 64 || slices.ContainsFunc(q.Events, func(e string) bool { return len(e) > maxField }) {
		return q, remit.Errorf(remit.Invalid, op, "events_requested: at most 64 of %d bytes", maxField)
	}
	if q.Description != nil && len(*q.Description) > maxReason {
		return q, remit.Errorf(remit.Invalid, op, "description: at most %d bytes", maxReason)
	}
	return q, nil
}

// CreateStream makes the stream of a client, which begins now. A client has one:
// [remit.Conflict] when it has it already.
func (t *Transmitter) CreateStream(ctx context.Context, client string, q StreamRequest) (Configuration, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.streams {
		if s.Client == client {
			return Configuration{}, remit.Errorf(remit.Conflict, "create stream", "the client %s has the stream %s already", client, s.ID)
		}
	}
	s := &Stream{
		ID: strings.ToLower(rand.Text()), Client: client, Audience: t.Issuer + "/clients/" + client, Events: q.Events,
		Status: StreamEnabled, Created: t.now(),
	}
	if len(s.Events) == 0 {
		s.Events = Supported
	}
	if q.Description != nil {
		s.Description = *q.Description
	}
	if err := t.putStream(ctx, s); err != nil {
		return Configuration{}, err
	}
	return t.configuration(s), nil
}

// ConfiguredStream is the ID of the stream to a receiver of the configuration.
func ConfiguredStream(receiver string) string { return "to-" + receiver }

// OpenStream makes the stream to a receiver of the configuration, or goes on with
// the one that there is.
func (t *Transmitter) OpenStream(ctx context.Context, receiver, audience string, events []string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(events) == 0 {
		events = Supported
	}
	s := Stream{ID: ConfiguredStream(receiver), Status: StreamEnabled, Created: t.now(), Push: true}
	if known := t.streams[s.ID]; known != nil {
		s = *known
		if s.Audience == audience && slices.Equal(s.Events, events) {
			return nil
		}
	}
	s.Audience, s.Events = audience, events
	return t.putStream(ctx, &s)
}

func (t *Transmitter) putStream(ctx context.Context, s *Stream) error {
	data, err := json.Marshal(s)
	if err != nil {
		return remit.Errorf(remit.Internal, "write stream", "%w", err)
	}
	err = t.Store.Checkpoint(ctx, remit.Checkpoint{Now: t.now(), States: []remit.State{{Kind: streamKind, Key: s.ID, Data: data}}})
	if err != nil {
		return err
	}
	t.streams[s.ID] = s
	if t.queued[s.ID] == nil {
		t.queued[s.ID] = map[string]*queued{}
	}
	return nil
}

// stream finds a client's stream; [remit.NotFound] when there is none, or it is
// another's.
func (t *Transmitter) stream(client, id string) (*Stream, error) {
	if s := t.streams[id]; s != nil && s.Client == client && client != "" {
		return s, nil
	}
	return nil, remit.Errorf(remit.NotFound, "find stream", "there is no such stream of the client %s", client)
}

// Streams lists the streams of a client.
func (t *Transmitter) Streams(client string) []Configuration {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := []Configuration{}
	for _, s := range t.streams {
		if s.Client == client && client != "" {
			out = append(out, t.configuration(s))
		}
	}
	return out
}

// StreamOf is one stream of a client.
func (t *Transmitter) StreamOf(client, id string) (Configuration, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, err := t.stream(client, id)
	if err != nil {
		return Configuration{}, err
	}
	return t.configuration(s), nil
}

// ChangeStream changes what the request names, or with replace all of it.
func (t *Transmitter) ChangeStream(ctx context.Context, client string, q StreamRequest, replace bool) (Configuration, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, err := t.stream(client, q.StreamID)
	if err != nil {
		return Configuration{}, err
	}
	next := *s
	if q.Events != nil || replace {
		next.Events = q.Events
	}
	if q.Description != nil {
		next.Description = *q.Description
	} else if replace {
		next.Description = ""
	}
	if err := t.putStream(ctx, &next); err != nil {
		return Configuration{}, err
	}
	return t.configuration(&next), nil
}

// DeleteStream ends a stream, with what is queued for it.
func (t *Transmitter) DeleteStream(ctx context.Context, client, id string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, err := t.stream(client, id); err != nil {
		return err
	}
	write := remit.Checkpoint{Now: t.now(), States: []remit.State{{Kind: streamKind, Key: id}}}
	for token := range t.queued[id] {
		write.States = append(write.States, remit.State{Kind: queuedKind + " " + id, Key: token})
	}
	if err := t.Store.Checkpoint(ctx, write); err != nil {
		return err
	}
	delete(t.streams, id)
	delete(t.queued, id)
	t.wake()
	return nil
}

// Status is whether a stream delivers.
type Status struct {
	StreamID string `json:"stream_id"`
	Status   string `json:"status"`
	Reason   string `json:"reason,omitempty"`
}

// StreamStatus is the status of a client's stream.
func (t *Transmitter) StreamStatus(client, id string) (Status, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, err := t.stream(client, id)
	if err != nil {
		return Status{}, err
	}
	return Status{s.ID, s.Status, s.Reason}, nil
}

// SetStreamStatus changes it. What happens while a stream is disabled is not told
// later.
func (t *Transmitter) SetStreamStatus(ctx context.Context, client string, q Status) (Status, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.Contains([]string{StreamEnabled, StreamPaused, StreamDisabled}, q.Status) || len(q.Reason) > maxReason {
		return Status{}, remit.Errorf(remit.Invalid, "set stream status", "status: use enabled, paused or disabled, and a reason of at most %d bytes", maxReason)
	}
	s, err := t.stream(client, q.StreamID)
	if err != nil {
		return Status{}, err
	}
	next := *s
	if s.Status == StreamDisabled && q.Status != StreamDisabled {
		next.Created = t.now()
	}
	next.Status, next.Reason = q.Status, q.Reason
	if err := t.putStream(ctx, &next); err != nil {
		return Status{}, err
	}
	t.wake()
	return Status{next.ID, next.Status, next.Reason}, nil
}

// Verify queues a verification event with the state that the receiver gave, which
// may be "". [remit.Unavailable] when it has just asked.
func (t *Transmitter) Verify(ctx context.Context, client, id, state string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, err := t.stream(client, id)
	if err != nil {
		return err
	}
	if len(state) > maxID {
		return remit.Errorf(remit.Invalid, "verify stream", "state: at most %d bytes", maxID)
	}
	now := t.now()
	if now.Sub(s.Verified) < verifyEvery {
		return remit.Errorf(remit.Unavailable, "verify stream", "it was verified within the last %s", verifyEvery)
	}
	body := map[string]any{}
	if state != "" {
		body["state"] = state
	}
	e := told{id: digest("verification", id, now.String()), typ: Verification, time: now, body: body}
	claims, err := t.claimsOf(&e, map[string]any{"format": "opaque", "id": id}, s.Audience)
	if err != nil {
		return remit.Errorf(remit.Internal, "verify stream", "%w", err)
	}
	next := *s
	next.Verified = now
	data, err := json.Marshal(next)
	if err != nil {
		return remit.Errorf(remit.Internal, "verify stream", "%w", err)
	}
	q := &queued{Token: e.id, Time: now, Claims: claims}
	write := remit.Checkpoint{Now: now, States: []remit.State{{Kind: streamKind, Key: id, Data: data}}}
	if err := put(&write, id, q); err != nil {
		return err
	}
	if err := t.Store.Checkpoint(ctx, write); err != nil {
		return err
	}
	t.streams[id], t.queued[id][q.Token] = &next, q
	t.wake()
	return nil
}
