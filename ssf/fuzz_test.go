package ssf

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// FuzzToken holds that no token and no claims make the reader panic, that what is
// refused is refused in words of ours, and that what is kept is bounded.
func FuzzToken(f *testing.F) {
	const head = "eyJhbGciOiJFUzI1NiIsInR5cCI6InNlY2V2ZW50K2p3dCIsImtpZCI6Im9uZSJ9."
	for _, seed := range []string{
		`{"iss":"https://idp","aud":"a","iat":1760000000,"jti":"1","sub_id":{"format":"email","email":"a@b"},"events":{"https://schemas.openid.net/secevent/caep/event-type/session-revoked":{"event_timestamp":1760000000,"reason_admin":{"en":"x"}}}}`,
		`{"aud":["a","b"],"jti":"1","events":{"x":{"subject":{"subject_type":"iss-sub","iss":"i","sub":"s"}}}}`,
		`{"jti":"1","sub_id":{"format":"complex","user":{"format":"aliases","identifiers":[{"format":"opaque","id":"1"}]},"tenant":{}},"events":{"x":{}}}`,
		`{"jti":"1","sub_id":{"a":{"a":{"a":{"a":{"format":"opaque"}}}}},"events":{"x":{}}}`,
		head + "e30.AAAA", "..", `{"iat":1e400}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var refusal *Refusal
		if _, _, err := header(raw); err != nil && (!errors.As(err, &refusal) || len(err.Error()) > 200) {
			t.Errorf("%v", err)
		}
		token, err := claims(raw)
		if err != nil {
			if !errors.As(err, &refusal) || len(err.Error()) > 200 {
				t.Errorf("%v", err)
			}
			return
		}
		if len(token.Events) > maxEvents || len(token.ID) > maxID {
			t.Errorf("%d events of %q", len(token.Events), token.ID)
		}
		for _, e := range token.Events {
			for _, n := range e.Subject.names("https://idp") {
				if len(n.text) > 2*maxField+1 {
					t.Errorf("a name of %d bytes", len(n.text))
				}
			}
			if len(e.Reason) > maxReason || len(e.Subject.String()) > 2*maxField+8 {
				t.Errorf("%+v", e)
			}
		}
	})
}

// FuzzRequests holds the same of what receivers and transmitters send.
func FuzzRequests(f *testing.F) {
	for _, seed := range []string{
		`{"sets":{"a":"b"},"moreAvailable":true}`, `{"maxEvents":-1,"ack":["a"],"setErrs":{"a":null}}`,
		`{"stream_id":"a","events_requested":["x"],"delivery":{"method":"urn:ietf:rfc:8936"}}`, `null`, `[`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for name, decode := range map[string]func() error{
			"answer": func() error { _, err := readPoll(raw); return err },
			"poll":   func() error { _, err := DecodePoll(raw); return err },
			"stream": func() error { _, err := DecodeStreamRequest(raw); return err },
		} {
			if err := decode(); err != nil && len(err.Error()) > 250 {
				t.Errorf("%s: %v", name, err)
			}
		}
		var subject json.RawMessage = raw
		if s, err := parseSubject(subject); err == nil && strings.TrimSpace(s.Format) == "" && s.Format == "" {
			t.Error("a subject without a format")
		}
	})
}
