package anthropic

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
	organization := remit.Ref{Kind: "organization", Name: "org_01XYZ"}
	base := remit.Activity{
		Native: "org_01XYZ", Time: at("2026-05-07T10:00:00Z"), Actor: remit.Ref{Kind: "User", Name: "admin@example.com"}, Principal: "admin@example.com",
		Type: remit.Human, Resource: organization, Address: "10.0.0.1", Write: true, Outcome: remit.Allowed,
	}
	with := func(id, action, agent string, change func(*remit.Activity)) remit.Activity {
		a := base
		a.ID, a.Action, a.UserAgent = id, action, agent
		if change != nil {
			change(&a)
		}
		return a
	}
	who := func(mail, address string) func(*remit.Activity) {
		return func(a *remit.Activity) {
			a.Actor.Name, a.Principal, a.Address = mail, mail, address
		}
	}
	const agent = "Mozilla/5.0"
	want := map[string]remit.Activity{
		"Anthropic.Activity.IP.Restriction.Deleted/IP restriction deleted":               with("activity_01ABC123", "org_ip_restriction_deleted", agent, nil),
		"Anthropic.Activity.IP.Restriction.Deleted/IP restriction created - not a match": with("activity_01DEF456", "org_ip_restriction_created", "", nil),
		"Anthropic.Activity.MCP.Server.Created/MCP server created": with("activity_01ABC123", "mcp_server_created", agent, func(a *remit.Activity) {
			who("contractor@ext.example.com", "10.0.0.1")(a)
			a.Time, a.Resource = at("2026-04-28T19:26:58Z"), remit.Ref{Kind: "mcp_server", Name: "mcpsrv_01ABC"}
		}),
		"Anthropic.Activity.MCP.Server.Created/Non-matching event type": with("activity_01DEF456", "claude_chat_created", "", func(a *remit.Activity) {
			who("user@example.com", "10.0.0.2")(a)
			a.Time = at("2026-04-28T19:26:58Z")
		}),
		"Anthropic.Activity.Primary.Owner.Transferred/Primary owner transferred": with("activity_01ABC123", "primary_owner_transferred", agent, who("owner@example.com", "10.0.0.1")),
		"Anthropic.Activity.Primary.Owner.Transferred/Non-matching event type":   with("activity_01DEF456", "role_assignment_granted", "", who("admin@example.com", "10.0.0.2")),
		"Anthropic.Activity.Service.Key.Created/Service key created":             with("activity_01ABC123", "service_key_created", agent, nil),
		"Anthropic.Activity.Service.Key.Created/Non-matching event type":         with("activity_01DEF456", "service_key_revoked", "", nil),
		"Anthropic.Activity.Spend.Limit.Deleted/Spend limit deleted": with("activity_01ABC123", "platform_spend_limit_deleted", agent, func(a *remit.Activity) {
			a.Time = at("2026-04-30T09:46:26Z")
		}),
		"Anthropic.Activity.SSO.Disabled/SSO toggled off":            with("activity_01ABC123", "org_sso_toggled", agent, nil),
		"Anthropic.Activity.SSO.Disabled/SSO connection deactivated": with("activity_01GHI789", "org_sso_connection_deactivated", agent, who("admin@example.com", "10.0.0.3")),
		"Anthropic.Activity.SSO.Disabled/Non-matching event type": with("activity_01JKL012", "sso_login_succeeded", "", func(a *remit.Activity) {
			who("user@example.com", "10.0.0.4")(a)
			a.Write = false
		}),
	}
	seen := 0
	for name, raw := range connectortest.LabelledLogs(t, "anthropic.jsonl") {
		v := fastjson.MustParseBytes(raw)
		if !Activity.Recognizes(v) {
			t.Errorf("%s: not recognized", name)
		}
		var e connector.Event
		if err := Activity.Decode(v, &connector.Interner{}, &e); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if e.ID == "" || e.Action == "" || e.Actor.Name == "" || e.Address == "" || e.Time.IsZero() {
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
