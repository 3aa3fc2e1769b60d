package okta

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
	"remit/connector/connectortest"
)

// orHash is the ID that an event has, or the hash that stands for it.
func orHash(id, got string) string {
	if id == "" && strings.HasPrefix(got, "sha256:") {
		return got
	}
	return id
}

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return t
}

func user(name string) remit.Ref { return remit.Ref{Kind: "User", Name: name} }

const (
	chrome99  = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/99.0.4844.83 Safari/537.36"
	chrome102 = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/102.0.0.0 Safari/537.36"
	chrome108 = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/108.0.0.0 Safari/537.36"
	chrome123 = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/123.0.0.0 Safari/537.36"
)

// TestLabelledEvents reads every event; what each of some must give was written
// down by hand. Rows of counts that a store made of events count for nothing.
func TestLabelledEvents(t *testing.T) {
	casey := remit.Activity{
		ID: "aac560bd-f125-11ee-9caa-cd5d09945def", Time: at("2024-04-02T19:17:37.621Z"), Actor: user("casey.hill@hey.com"), Principal: "casey.hill@hey.com",
		Type: remit.Human, Credential: "externalSessionId=idxvF50v_5sT2-GOA7_K0Amyw", CredentialType: remit.ShortLivedToken,
		Action: "user.session.start", Resource: remit.Ref{Kind: "AppInstance", Name: "Okta Dashboard"}, Address: "99.108.5.25",
		UserAgent: chrome123, Outcome: remit.Allowed,
	}
	caseyFailed := casey
	caseyFailed.Outcome = remit.Denied
	homer := remit.Activity{
		ID: "AbC-123-XyZ", Time: at("2022-06-22T18:18:29.015Z"), Actor: user("homer.simpson@duff.com"), Principal: "homer.simpson@duff.com", Type: remit.Human,
		Credential: "externalSessionId=100-abc-9999", CredentialType: remit.ShortLivedToken, Address: "1.3.2.4", UserAgent: chrome102, Outcome: remit.Allowed,
	}
	homerWith := func(action string, write bool, resource remit.Ref, reason string) remit.Activity {
		a := homer
		a.Action, a.Write, a.Resource, a.Reason = action, write, resource, reason
		return a
	}
	behavior := homerWith("policy.evaluate_sign_on", false, remit.Ref{Kind: "AppInstance", Name: "Okta Admin Console"}, "Sign-on policy evaluation resulted in CHALLENGE")
	behavior.UserAgent = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML"
	rateLimit := remit.Activity{
		ID: "asdfdashh", Time: at("2022-08-29T16:07:26.592Z"), Actor: user("homer.simpson@duff.com"), Principal: "homer.simpson@duff.com", Type: remit.Human,
		Credential: "externalSessionId=abc12345", CredentialType: remit.ShortLivedToken, Action: "system.operation.rate_limit.violation",
		Resource: remit.Ref{Kind: "URL Pattern", Name: "/app/{app}/{key}/"}, Address: "1.2.3.4", UserAgent: "Chrome",
		Outcome: remit.Denied, Reason: "Too many requests attempted by an individual user",
	}
	rateLimitUnnamed := rateLimit
	rateLimitUnnamed.Actor, rateLimitUnnamed.Principal = user("00abc456"), "00abc456"
	peter := user("peter.griffin@company.com")
	want := map[string]remit.Activity{
		"Okta.Support.Access/Support Access Granted": {
			Time: at("2022-03-22T14:21:53.225Z"), Actor: user("homer@springfield.gov"), Principal: "homer@springfield.gov", Type: remit.Human,
			Action: "user.session.impersonation.grant", Write: true, Address: "1.1.1.1", UserAgent: chrome99, Outcome: remit.Allowed,
		},
		"Okta.Global.MFA.Disabled/MFA Disabled": {
			Time: at("2022-03-22T14:21:53.225Z"), Actor: user("homer@springfield.gov"), Principal: "homer@springfield.gov", Type: remit.Human,
			Action: "system.mfa.factor.deactivate", Write: true, Address: "1.1.1.1", UserAgent: chrome99, Outcome: remit.Allowed,
		},
		"Okta.Login.Success/Non-Login Event": {
			ID: "44aeb388-08b4-11ef-9cec-73ffcb6f9fdd", Time: at("2024-05-02T18:46:21.121Z"), Actor: user("jim.kalafut@panther.com"), Principal: "jim.kalafut@panther.com",
			Type: remit.Human, Credential: "requestApiTokenId=00T1bjatrp6Nl1dOc5d7", CredentialType: remit.StaticToken, Action: "system.org.rate_limit.warning",
			Resource: remit.Ref{Kind: "URL Pattern", Name: "/api/v1/logs"}, Address: "11.22.33.44", UserAgent: "Go-http-client/2.0", Outcome: remit.Allowed,
		},
		"Okta.Login.Success/Successful Login": casey,
		"Okta.Login.Success/Failed Login":     caseyFailed,
		"Okta.New.Behavior.Accessing.Admin.Console/New Behavior Accessing Admin Console (behavior)": behavior,
		"Okta.Org2org.Creation.Modification/Org2Org modified": homerWith("application.lifecycle.update", true,
			remit.Ref{Kind: "AppInstance", Name: "Okta Org2Org"}, "Sign-on policy evaluation resulted in CHALLENGE"),
		"Okta.Password.Extraction.via.SCIM/Other Event":                         homerWith("user.authentication.auth_via_mfa", false, peter, ""),
		"Okta.Password.Extraction.via.SCIM/FastPass Phishing Block Event":       homerWith("application.lifecycle.update", true, peter, ""),
		"Okta.Rate.Limits/system.operation.ratelimit.violation":                 rateLimit,
		"Okta.Rate.Limits/system.operation.ratelimit.violation - unknown altid": rateLimitUnnamed,
		"Okta.User.MFA.Factor.Suspend/Suspend Event":                            homerWith("user.mfa.factor.suspend", true, peter, ""),
		"Okta.User.MFA.Reset.All/Reset All Event":                               homerWith("user.mfa.factor.reset_all", true, peter, ""),
		"Okta.Rate.Limits/Non event": {
			ID: "aa-11-22-33-44-bb", Time: at("2022-12-13T00:58:19.811Z"), Actor: user("homer.simpson@duff.com"), Principal: "homer.simpson@duff.com", Type: remit.Human,
			Credential: "externalSessionId=xyz1234", CredentialType: remit.ShortLivedToken, Action: "group.privilege.grant", Write: true,
			Resource: remit.Ref{Kind: "AppInstance", Name: "App (123)"}, Address: "1.2.3.4", UserAgent: chrome108, Outcome: remit.Failed,
		},
		"Okta.User.Account.Locked/Account Lock Event": {
			ID: "aa-bb-cc-11", Time: at("2022-11-22T18:48:49.177Z"), Actor: user("homer.simpson@duff.com"), Principal: "homer.simpson@duff.com", Type: remit.Human,
			Credential: "externalSessionId=abcd-1234", CredentialType: remit.ShortLivedToken, Action: "user.account.lock", Write: true,
			Address: "1.2.3.4", UserAgent: "Chrome", Outcome: remit.Denied, Reason: "LOCKED_OUT",
		},
		"Okta.User.MFA.Reset.Single/User reset own MFA factor": { // no time, no ID
			Actor: user("homer@springfield.gov"), Principal: "homer@springfield.gov", Type: remit.Human,
			Credential: "externalSessionId=1111111", CredentialType: remit.ShortLivedToken, Action: "user.mfa.factor.deactivate", Write: true,
			Resource: user("homer@springfield.gov"), Address: "1.1.1.1", Outcome: remit.Allowed,
			UserAgent: "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/96.0.4664.55 Safari/537.36",
		},
	}
	seen, ignored := 0, 0
	for name, raw := range connectortest.LabelledLogs(t, "okta.jsonl") {
		v, err := fastjson.ParseBytes(raw)
		if err != nil {
			t.Fatal(err)
		}
		var e connector.Event
		err = SystemLog.Decode(v, &connector.Interner{}, &e)
		if errors.Is(err, connector.ErrIgnored) && strings.HasSuffix(strings.Split(name, "/")[0], ".Behavioral") {
			ignored++
			if SystemLog.Recognizes(v) {
				t.Errorf("%s: a row of counts is recognized", name)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !SystemLog.Recognizes(v) {
			t.Errorf("%s: not recognized", name)
		}
		if e.Action == "" || e.Actor.Name == "" || e.Address == "" || e.Outcome == "" || len(e.Views) != 1 {
			t.Errorf("%s: something is missing: %+v", name, e.Activity)
		}
		if w, ok := want[name]; ok {
			seen++
			w.ID = orHash(w.ID, e.ID)
			if !reflect.DeepEqual(e.Activity, w) {
				t.Errorf("%s:\n got %+v\nwant %+v", name, e.Activity, w)
			}
		}
	}
	if seen != len(want) {
		t.Errorf("%d of %d expectations met an event", seen, len(want))
	}
	if ignored != 12 {
		t.Errorf("%d rows of counts were ignored, there are 12", ignored)
	}
}
