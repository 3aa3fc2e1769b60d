package anthropic

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

// examples are activities written by hand, in the forms that the API documents.
func examples(t testing.TB) []string {
	t.Helper()
	b, err := os.ReadFile("testdata/events.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func TestExamples(t *testing.T) {
	organization := remit.Ref{Kind: "organization", Name: "org_1"}
	key := remit.Ref{Kind: "api_key", Name: "apikey_2"}
	admin := remit.Ref{Kind: "User", Name: "admin@example.com"}
	want := []remit.Activity{
		{
			ID: "activity_1", Native: "org_1", Time: at("2026-04-10T08:09:10Z"), Actor: remit.Ref{Kind: "APIKey", Name: "apikey_1"}, Principal: "apikey_1",
			Type: remit.Application, Credential: "apikey_1", CredentialType: remit.APIKey, Action: "compliance_api_accessed", Resource: organization,
			Address: "192.0.2.1", UserAgent: "curl", Outcome: remit.Denied, Code: 403,
		},
		{
			ID: "activity_2", Native: "org_1", Time: at("2026-04-10T08:10:10.5Z"), Actor: admin, Principal: "admin@example.com", Type: remit.Human,
			Minted: remit.Minted{Credential: "apikey_2", Type: remit.APIKey, For: admin, Expires: at("2026-07-01T00:00:00Z")},
			Action: "api_key_created", Write: true, Resource: key, Address: "192.0.2.2", Outcome: remit.Allowed,
		},
		{
			ID: "activity_3", Native: "org_1", Time: at("2026-04-10T08:11:10Z"), Actor: remit.Ref{Kind: "User", Name: "x@example.com"}, Principal: "x@example.com",
			Type: remit.Human, Action: "sso_login_failed", Resource: organization, Address: "192.0.2.3", Outcome: remit.Denied, Reason: "no such user",
		},
		{
			ID: "activity_4", Native: "org_1", Time: at("2026-04-10T08:12:10Z"), Actor: remit.Ref{Kind: "DirectorySync", Name: "dir_1"}, Principal: "dir_1",
			Type: remit.Application, Action: "org_user_deleted", Write: true, Resource: remit.Ref{Kind: "user", Name: "user_9"}, Outcome: remit.Allowed,
		},
		{
			ID: "activity_5", Native: "abcd", Time: at("2026-04-10T08:13:10Z"), Actor: remit.Ref{Kind: "AdminAPIKey", Name: "adminkey_1"}, Principal: "adminkey_1",
			Type: remit.Application, Credential: "adminkey_1", CredentialType: remit.APIKey, Action: "api_key_updated", Write: true, Resource: key, Outcome: remit.Allowed,
		},
		{
			ID: "activity_6", Native: "org_1", Time: at("2026-04-10T08:14:10Z"), Actor: remit.Ref{Kind: "System", Name: "anthropic"}, Principal: "anthropic",
			Type: remit.Workload, Action: "platform_spend_limit_updated", Write: true, Resource: organization, Outcome: remit.Allowed,
		},
		{
			ID: "activity_7", Native: "org_1", Time: at("2026-04-10T08:15:10Z"), Actor: remit.Ref{Kind: "robot", Name: "r_1"}, Principal: "r_1",
			Action: "claude_file_viewed", Resource: remit.Ref{Kind: "claude_file", Name: "file_1"}, Outcome: remit.Allowed,
		},
	}
	for i, raw := range examples(t) {
		var e connector.Event
		if err := Activity.Decode(fastjson.MustParse(raw), &connector.Interner{}, &e); err != nil {
			t.Errorf("%s: %v", raw, err)
		} else if !reflect.DeepEqual(e.Activity, want[i]) {
			t.Errorf("%s:\n got %+v\nwant %+v", raw, e.Activity, want[i])
		}
	}
}

func TestSplitsPages(t *testing.T) {
	v := fastjson.MustParse(`{"data":[` + strings.Join(examples(t), ",") + `],"has_more":false}`)
	if !Activity.Recognizes(v) || len(Activity.Split(v)) != len(examples(t)) {
		t.Error("a page is not split")
	}
}

func TestStrip(t *testing.T) {
	v := fastjson.MustParse(examples(t)[1])
	if !Activity.Strip(v, &fastjson.Arena{}) || strings.Contains(v.String(), "not-a-real-key") {
		t.Errorf("not stripped: %s", v)
	}
	if v := fastjson.MustParse(examples(t)[0]); Activity.Strip(v, &fastjson.Arena{}) {
		t.Errorf("stripped, though it has no secret: %s", v)
	}
}

func FuzzActivity(f *testing.F) {
	connectortest.FuzzDecoder(f, []connector.Decoder{Activity}, examples(f)...)
}

// TestRefusesWhatIsNoEvent says how hostile documents end.
func TestRefusesWhatIsNoEvent(t *testing.T) {
	for _, raw := range []string{`1`, `[]`, `{}`, `{"type":7}`, `{"data":[1]}`} {
		v := fastjson.MustParse(raw)
		if err := Activity.Decode(v, &connector.Interner{}, &connector.Event{}); remit.KindOf(err) != remit.Invalid {
			t.Errorf("%s: %v", raw, err)
		}
		if Activity.Recognizes(v) {
			t.Errorf("recognized: %s", raw)
		}
	}
}
