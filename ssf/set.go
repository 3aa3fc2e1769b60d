package ssf

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// MaxToken is the size of the largest token that is read, in bytes. Events are
// around one kilobyte.
const MaxToken = 64 << 10

// The bounds of what a token says.
const (
	maxEvents = 8
	maxID     = 256
	maxReason = 512

	// clockSkew is by how much a transmitter's clock may be ahead.
	clockSkew = 5 * time.Minute
)

// Event is one event of a token.
type Event struct {
	Type string // its URI
	Time time.Time

	// Subject is the token's, or with older transmitters the event's own.
	Subject Subject

	Reason         string // reason_admin, in English where there is a choice
	Initiator      string // initiating_entity: admin, user, policy or system
	CredentialType string
	Change         string // change_type of a credential: create, revoke, update or delete
	State          string // of a verification
	Status         string // of a stream that was updated
	Hijacked       bool   // an account was disabled because of a hijacking
}

// Token is what a Security Event Token says.
type Token struct {
	Issuer   string
	ID       string // jti
	Issued   time.Time
	Audience []string
	Events   []Event

	// Sum is a digest of what the token tells: of two tokens with one ID it tells
	// a repetition, which may be signed anew, from another token.
	Sum string
}

// texts is a claim that is one text or a list of them.
type texts []string

func (t *texts) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*t = texts{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(t))
}

// reason is a text, or texts by their language (CAEP 1.0, section 2).
type reason string

func (r *reason) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*r = reason(one)
		return nil
	}
	var many map[string]string
	if json.Unmarshal(b, &many) != nil {
		return nil // a reason decides nothing
	}
	languages := make([]string, 0, len(many))
	for l := range many {
		languages = append(languages, l)
	}
	slices.Sort(languages)
	for _, l := range languages {
		if *r == "" || strings.HasPrefix(l, "en") {
			*r = reason(many[l])
		}
	}
	return nil
}

// header reads what a token's header says before its signature can be verified.
func header(raw []byte) (*jose.JSONWebSignature, jose.Header, error) {
	if len(raw) > MaxToken {
		return nil, jose.Header{}, refuse(InvalidRequest, "the token is larger than %d bytes", MaxToken)
	}
	signed, err := jose.ParseSignedCompact(strings.TrimSpace(string(raw)), algorithms)
	if err != nil || len(signed.Signatures) != 1 {
		return nil, jose.Header{}, refuse(InvalidRequest, "no signed token in compact form with an asymmetric algorithm")
	}
	h := signed.Signatures[0].Protected
	typ, _ := h.ExtraHeaders[jose.HeaderType].(string)
	// A token of another type, as an ID token of the same issuer, is no event.
	if t := strings.TrimPrefix(strings.ToLower(typ), "application/"); t != "secevent+jwt" {
		return nil, jose.Header{}, refuse(InvalidRequest, "the header's typ is not secevent+jwt")
	}
	return signed, h, nil
}

// claims reads what a verified token says.
func claims(payload []byte) (Token, error) {
	var c struct {
		Iss    string                     `json:"iss"`
		Aud    texts                      `json:"aud"`
		Iat    float64                    `json:"iat"`
		Exp    json.RawMessage            `json:"exp"`
		Jti    string                     `json:"jti"`
		Toe    float64                    `json:"toe"`
		SubID  json.RawMessage            `json:"sub_id"`
		Events map[string]json.RawMessage `json:"events"`
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		return Token{}, refuse(InvalidRequest, "the claims are no JSON object of the expected types")
	}
	switch {
	case c.Jti == "" || len(c.Jti) > maxID:
		return Token{}, refuse(InvalidRequest, "the token has no jti of up to %d bytes", maxID)
	case c.Exp != nil:
		// SSF 1.0, section 4: so that no token is both an event and a login.
		return Token{}, refuse(InvalidRequest, "a token of an event has no exp")
	case len(c.Events) == 0 || len(c.Events) > maxEvents:
		return Token{}, refuse(InvalidRequest, "the token has not between 1 and %d events", maxEvents)
	}
	t := Token{Issuer: c.Iss, ID: c.Jti, Issued: timeOf(c.Iat), Audience: c.Aud}
	types := make([]string, 0, len(c.Events))
	for typ := range c.Events {
		types = append(types, typ)
	}
	slices.Sort(types)
	said := []string{string(c.SubID)}
	for _, typ := range types {
		said = append(said, typ, string(c.Events[typ]))
		e, err := event(typ, c.Events[typ], c.SubID)
		if err != nil {
			return Token{}, err
		}
		if e.Time.IsZero() {
			e.Time = timeOf(c.Toe)
		}
		// An event is not younger than the token that tells of it.
		if e.Time.IsZero() || e.Time.After(t.Issued) {
			e.Time = t.Issued
		}
		t.Events = append(t.Events, e)
	}
	t.Sum = digest(said...)
	return t, nil
}

func event(typ string, raw, subID json.RawMessage) (Event, error) {
	var v struct {
		Timestamp      float64         `json:"event_timestamp"`
		Subject        json.RawMessage `json:"subject"`
		ReasonAdmin    reason          `json:"reason_admin"`
		Initiator      string          `json:"initiating_entity"`
		CredentialType string          `json:"credential_type"`
		Change         string          `json:"change_type"`
		Reason         string          `json:"reason"`
		State          string          `json:"state"`
		Status         string          `json:"status"`
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return Event{}, refuse(InvalidRequest, "an event's members are not of the expected types")
	}
	e := Event{
		Type: clip(typ, maxField), Time: timeOf(v.Timestamp), Reason: clip(string(v.ReasonAdmin), maxReason), Initiator: clip(v.Initiator, 64),
		CredentialType: clip(v.CredentialType, 64), Change: clip(v.Change, 64), State: clip(v.State, maxID), Status: clip(v.Status, 64),
		Hijacked: v.Reason == "hijacking",
	}
	if v.Reason != "" && e.Reason == "" {
		e.Reason = clip(v.Reason, maxReason)
	}
	if subID == nil {
		subID = v.Subject // before SSF 1.0 the subject was in the event
	}
	if subID == nil {
		if typ == Verification || typ == StreamUpdated {
			return e, nil
		}
		return Event{}, refuse(InvalidRequest, "the token has no sub_id")
	}
	var err error
	e.Subject, err = parseSubject(subID)
	return e, err
}

// timeOf reads seconds since 1970; drafts of CAEP had milliseconds.
func timeOf(n float64) time.Time {
	if n > 1e11 {
		n /= 1000
	}
	if math.IsNaN(n) || n <= 0 || n > 253402300799 {
		return time.Time{}
	}
	return time.Unix(int64(n), 0).UTC()
}

// digest hashes texts, each behind its length.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		var n [8]byte
		for i := range n {
			n[i] = byte(len(p) >> (8 * i))
		}
		h.Write(n[:])
		h.Write([]byte(p))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
