package okta

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
	"remit/connector/connectortest"
)

// examples are events written by hand, in the forms that Okta documents.
func examples(t testing.TB) []string {
	t.Helper()
	b, err := os.ReadFile("testdata/events.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func TestExamples(t *testing.T) {
	app := func(id string) remit.Ref { return remit.Ref{Kind: "Application", Name: id} }
	want := []remit.Activity{
		{ // an app is given a token for a user
			ID: "u-1", Time: at("2024-05-01T10:00:00.123Z"), Actor: app("0oaapp1"), Principal: "0oaapp1", Type: remit.Application,
			Minted: remit.Minted{Credential: "JTI=AT.jti-1", Type: remit.ShortLivedToken, For: user("alice@acme.example"), Expires: at("2024-05-01T11:00:00Z")},
			Chain:  []remit.Ref{user("alice@acme.example")}, Action: "app.oauth2.token.grant.access_token", Resource: user("alice@acme.example"),
			Address: "203.0.113.10", UserAgent: "okta-auth/1", Outcome: remit.Allowed,
		},
		{
			ID: "u-2", Time: at("2024-05-01T10:01:00Z"), Actor: user("root@acme.example"), Principal: "root@acme.example", Type: remit.Human,
			Credential: "externalSessionId=102abc", CredentialType: remit.ShortLivedToken,
			Minted: remit.Minted{Credential: "requestApiTokenId=00Tnew", Type: remit.StaticToken, For: user("root@acme.example")},
			Action: "system.api_token.create", Write: true, Resource: remit.Ref{Kind: "Token", Name: "00Tnew"}, Address: "198.51.100.4", Outcome: remit.Allowed,
		},
		{ // that token in use
			ID: "u-3", Time: at("2024-05-01T10:02:00Z"), Actor: user("root@acme.example"), Principal: "root@acme.example", Type: remit.Human,
			Credential: "requestApiTokenId=00Tnew", CredentialType: remit.StaticToken, Action: "group.user_membership.add", Write: true,
			Resource: user("bob@acme.example"), Address: "198.51.100.5", Outcome: remit.Allowed,
		},
		{ // a password in the place of a login goes nowhere
			ID: "u-4", Time: at("2024-05-01T10:03:00Z"), Actor: user("unknown"), Principal: "unknown", Type: remit.Human,
			Action: "user.session.start", Address: "192.0.2.77", Outcome: remit.Denied, Reason: "VERIFICATION_ERROR",
		},
		{
			ID: "u-5", Time: at("2024-05-01T10:04:00Z"), Actor: user("support@okta.example"), Principal: "support@okta.example", Type: remit.Human,
			As: user("root@acme.example"), Action: "user.session.impersonation.initiate", Resource: user("root@acme.example"), Outcome: remit.Allowed,
		},
		{
			ID: "u-6", Time: at("2024-05-01T10:05:00Z"), Actor: remit.Ref{Kind: "SystemPrincipal", Name: "system@okta.com"}, Principal: "system@okta.com", Type: remit.Workload,
			Action: "user.lifecycle.deactivate", Write: true, Resource: user("bob@acme.example"), Outcome: remit.Failed, Reason: "in use",
		},
		{
			ID: "u-7", Time: at("2024-05-01T10:06:00Z"), Actor: user("bob@acme.example"), Principal: "bob@acme.example", Type: remit.Human,
			Action: "user.account.reset_password", Write: true, Address: "192.0.2.9", Outcome: remit.Allowed,
		},
		{ // nothing was issued
			ID: "u-8", Time: at("2024-05-01T10:07:00Z"), Actor: app("0oasvc"), Principal: "0oasvc", Type: remit.Application,
			Action: "app.oauth2.as.token.grant.access_token", Resource: remit.Ref{Kind: "access_token"}, Outcome: remit.Denied, Reason: "invalid_client",
		},
		{
			ID: "u-9", Time: at("2024-05-01T10:08:00Z"), Actor: app("0oasvc"), Principal: "0oasvc", Type: remit.Application,
			Minted: remit.Minted{Credential: "hash=h2", Type: remit.ShortLivedToken, For: app("0oasvc")},
			Action: "app.oauth2.as.token.grant.access_token", Resource: remit.Ref{Kind: "access_token"}, Outcome: remit.Allowed,
		},
	}
	for i, raw := range examples(t) {
		v := fastjson.MustParse(raw)
		if !SystemLog.Recognizes(v) {
			t.Errorf("not recognized: %s", raw)
		}
		var e connector.Event
		if err := SystemLog.Decode(v, &connector.Interner{}, &e); err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		if !reflect.DeepEqual(e.Activity, want[i]) {
			t.Errorf("%s:\n got %+v\nwant %+v", raw, e.Activity, want[i])
		}
	}
}

func TestSplitsEventHooks(t *testing.T) {
	v := fastjson.MustParse(`{"eventType":"com.okta.event_hook","source":"https://acme.okta.com/api/v1/eventHooks/1","data":{"events":[` + examples(t)[0] + `,` + examples(t)[1] + `]}}`)
	if !SystemLog.Recognizes(v) {
		t.Error("not recognized")
	}
	events := SystemLog.Split(v)
	if len(events) != 2 || string(events[1].GetStringBytes("uuid")) != "u-2" {
		t.Errorf("split into %v", events)
	}
}

func TestRefusesWhatIsNoEvent(t *testing.T) {
	for _, raw := range []string{`1`, `[]`, `{}`, `{"eventType":7}`, `{"detail-type":"x","detail":[]}`} {
		err := SystemLog.Decode(fastjson.MustParse(raw), &connector.Interner{}, &connector.Event{})
		if remit.KindOf(err) != remit.Invalid {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestDoesNotRecognizeOthers(t *testing.T) {
	for _, raw := range []string{
		`{}`, `[]`, `{"eventName":"GetObject","eventType":"AwsApiCall","userIdentity":{"type":"Root"}}`,
		`{"action":"org.add_member","actor":"cat"}`, `{"class_uid":3002,"actor":{"user":{}}}`, `{"type":"api_key.created","actor":{"type":"session"}}`,
	} {
		if SystemLog.Recognizes(fastjson.MustParse(raw)) {
			t.Errorf("recognized: %s", raw)
		}
	}
}

// TestFieldAliases says what a rule of any spelling finds.
func TestFieldAliases(t *testing.T) {
	for from, to := range map[string]string{
		"eventtype":                            "eventType",
		"eventType":                            "eventtype",
		"legacyeventtype":                      "legacyEventType",
		"displaymessage":                       "displayMessage",
		"displayMessage":                       "displaymessage",
		"actor.alternateid":                    "actor.alternateId",
		"securitycontext.isproxy":              "securityContext.isProxy",
		"securityContext.isProxy":              "securitycontext.isProxy",
		"debugcontext.debugdata.requesturi":    "debugContext.debugData.requestUri",
		"debugContext.debugData.behaviors":     "debugcontext.debugData.behaviors",
		"target.displayname":                   "target.displayName",
		"client.useragent.rawuseragent":        "client.userAgent.rawUserAgent",
		"transaction.detail.requestapitokenid": "transaction.detail.requestApiTokenId",
	} {
		if FieldAliases[from] != to {
			t.Errorf("%s is an alias of %q, not %q", from, FieldAliases[from], to)
		}
	}
	if len(FieldAliases) < len(paths) {
		t.Errorf("%d aliases of %d paths", len(FieldAliases), len(paths))
	}
}

func TestStrip(t *testing.T) {
	for _, c := range []struct{ raw, want string }{
		{
			`{"debugContext":{"debugData":{"clientSecret":"abc","grantType":"refresh_token"}}}`,
			`{"debugContext":{"debugData":{"clientSecret":"stripped","grantType":"refresh_token"}}}`,
		},
		{
			`{"debugContext":{"debugData":{"url":"/oauth2/v1/token?code=abc123&state=x","requestUri":"/reset_password/drpR9sYxNUbTMCzkBZJd"}}}`,
			`{"debugContext":{"debugData":{"url":"/oauth2/v1/token?code=stripped&state=x","requestUri":"/reset_password/stripped"}}}`,
		},
		{
			`{"detail-type":"SystemLog","detail":{"debugContext":{"debugData":{"url":"/login/token/redirect?stateToken=00abc"}}}}`,
			`{"detail-type":"SystemLog","detail":{"debugContext":{"debugData":{"url":"/login/token/redirect?stateToken=stripped"}}}}`,
		},
		{
			`{"actor":{"id":"unknown","alternateId":"Tr0ub4dor&3","displayName":"unknown"},"eventType":"user.session.start","outcome":{"result":"FAILURE"}}`,
			`{"actor":{"id":"unknown","alternateId":"stripped","displayName":"stripped"},"eventType":"user.session.start","outcome":{"result":"FAILURE"}}`,
		},
		{`{"actor":{"id":"unknown","alternateId":"al@acme.example"},"eventType":"user.session.start","outcome":{"result":"FAILURE"}}`, ""},
		{`{"actor":{"id":"00u1","alternateId":"al"},"eventType":"user.session.start","outcome":{"result":"FAILURE"}}`, ""},
		{`{"debugContext":{"debugData":{"url":"/api/v1/users?limit=100","requestUri":"/welcome/x"}},"target":[{"detailEntry":{"hash":"h"}}]}`, ""},
	} {
		v := fastjson.MustParse(c.raw)
		changed := SystemLog.Strip(v, &fastjson.Arena{})
		want := c.want
		if want == "" {
			want = c.raw
		}
		if got := v.String(); got != want || changed != (c.want != "") {
			t.Errorf("%s:\n got %s (%v)\nwant %s", c.raw, got, changed, want)
		}
		if SystemLog.Strip(v, &fastjson.Arena{}) {
			t.Errorf("%s: stripped twice", c.raw)
		}
	}
}

func FuzzSystemLog(f *testing.F) {
	connectortest.FuzzDecoder(f, []connector.Decoder{SystemLog}, examples(f)...)
}

func BenchmarkDecoder(b *testing.B) { connectortest.BenchmarkDecoder(b, SystemLog, examples(b)[0]) }
