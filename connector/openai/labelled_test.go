package openai

import (
	"reflect"
	"testing"
	"time"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
	"remit/connector/connectortest"
)

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return t
}

// TestLabelledEvents reads every event; what each of some must give was written
// down by hand.
func TestLabelledEvents(t *testing.T) {
	event := func(id, action, mail, address, agent string, resource remit.Ref) remit.Activity {
		return remit.Activity{
			ID: id, Time: at("2023-12-18T00:00:00Z"), Actor: remit.Ref{Kind: "User", Name: mail}, Principal: mail, Type: remit.Human,
			Action: action, Write: true, Resource: resource, Address: address, UserAgent: agent, Outcome: remit.Allowed,
		}
	}
	created := func(a remit.Activity) remit.Activity {
		a.Minted = remit.Minted{Credential: a.Resource.Name, Type: remit.APIKey, For: a.Actor}
		return a
	}
	login := func(a remit.Activity) remit.Activity {
		a.Write = false
		return a
	}
	key := func(id string) remit.Ref { return remit.Ref{Kind: "api_key", Name: id} }
	list := func(id string) remit.Ref { return remit.Ref{Kind: "ip_allowlist", Name: id} }
	nested := created(event("audit_log-test005", "api_key.created", "suspicious@external.com", "", "", key("key-child001")))
	nested.Credential, nested.CredentialType = "key-parent001", remit.APIKey
	failed := login(event("audit_log-failed001", "login.failed", "user@company.com", "203.0.113.100", "Mozilla/5.0", remit.Ref{}))
	failed.Outcome, failed.Reason = remit.Denied, "Invalid username or password"
	const agent = "Mozilla/5.0"
	anomalous, allowlist := "OpenAI.API.Key.Anomalous.Activity/", "OpenAI.IP.Allowlist.Changes/"
	want := map[string]remit.Activity{
		anomalous + "API key created with read-only scopes - No Alert":       created(event("audit_log-test001", "api_key.created", "developer@company.com", "203.0.113.50", agent, key("key-abc123"))),
		anomalous + "API key with elevated permissions - Alert HIGH":         created(event("audit_log-test002", "api_key.created", "contractor@external.com", "192.0.2.100", "curl/7.68.0", key("key-suspicious001"))),
		anomalous + "API key updated with elevated permissions - Alert HIGH": event("audit_log-test003", "api_key.updated", "intern@company.com", "203.0.113.75", agent, key("key-existing123")),
		anomalous + "API key deleted - No Alert":                             event("audit_log-test004", "api_key.deleted", "unknown@suspicious.com", "198.18.0.50", "python-requests/2.28.0", key("key-production001")),
		anomalous + "API key with 'all' scope - Alert HIGH":                  nested,
		anomalous + "Login event - No Alert":                                 login(event("audit_log-test008", "login.succeeded", "user@company.com", "203.0.113.200", agent, remit.Ref{})),
		allowlist + "IP allowlist deleted - Alert CRITICAL":                  event("audit_log-ip001", "ip_allowlist.deleted", "admin@company.com", "203.0.113.100", agent, list("ipallow_org-abc123")),
		allowlist + "IP allowlist deactivated - Alert CRITICAL": event("audit_log-ip002", "ip_allowlist.config.deactivated", "contractor@external.com", "192.0.2.100", "curl/7.68.0",
			remit.Ref{Kind: "ip_allowlist.config", Name: "ipallow_org-abc123"}),
		allowlist + "IP allowlist updated with suspicious IP - Alert HIGH": event("audit_log-ip003", "ip_allowlist.updated", "admin@company.com", "203.0.113.100", agent, list("ipallow_org-abc123")),
		allowlist + "IP allowlist created - Alert MEDIUM":                  event("audit_log-ip004", "ip_allowlist.created", "admin@company.com", "203.0.113.100", agent, list("ipallow_org-new123")),
		"OpenAI.Login.Success/Successful login":                            login(event("audit_log-success001", "login.succeeded", "user@company.com", "203.0.113.100", agent, remit.Ref{})),
		"OpenAI.Login.Success/Failed login - No match":                     failed,
	}
	seen := 0
	for name, raw := range connectortest.LabelledLogs(t, "openai.jsonl") {
		v := fastjson.MustParseBytes(raw)
		if !Audit.Recognizes(v) {
			t.Errorf("%s: not recognized", name)
		}
		var e connector.Event
		if err := Audit.Decode(v, &connector.Interner{}, &e); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if e.ID == "" || e.Action == "" || e.Actor.Name == "" || e.Time.IsZero() {
			t.Errorf("%s: something is missing: %+v", name, e.Activity)
		}
		if w, ok := want[name]; ok {
			seen++
			if !reflect.DeepEqual(e.Activity, w) {
				t.Errorf("%s:\n got %+v\nwant %+v", name, e.Activity, w)
			}
		}
	}
	if seen != len(want) {
		t.Errorf("%d of %d expectations met an event", seen, len(want))
	}
}
