package openai

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

// examples are events written by hand, in the forms that the API documents: it
// names the detail as the type is, log stores with an underscore.
func examples(t testing.TB) []string {
	t.Helper()
	b, err := os.ReadFile("testdata/events.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func TestExamples(t *testing.T) {
	account := remit.Ref{Kind: "ServiceAccount", Name: "svc-1"}
	want := []remit.Activity{
		{
			ID: "audit_log-1", Time: at("2023-12-18T00:00:00Z"), Actor: account, Principal: "svc-1", Type: remit.ServiceAccount,
			Credential: "key-parent", CredentialType: remit.APIKey, Minted: remit.Minted{Credential: "key-child", Type: remit.APIKey, For: account},
			Action: "api_key.created", Write: true, Resource: remit.Ref{Kind: "api_key", Namespace: "proj_1", Name: "key-child"}, Outcome: remit.Allowed,
		},
		{
			ID: "audit_log-2", Time: at("2023-12-18T00:00:01Z"), Actor: remit.Ref{Kind: "User", Name: "user-1"}, Principal: "user-1", Type: remit.Human,
			Action: "project.archived", Write: true, Resource: remit.Ref{Kind: "project", Name: "proj_1"}, Address: "192.0.2.1", Outcome: remit.Allowed,
		},
		{
			ID: "audit_log-3", Time: at("2023-12-18T00:00:02.5Z"), Actor: remit.Ref{Kind: "User", Name: "a@example.com"}, Principal: "a@example.com",
			Type: remit.Human, Action: "login.failed", Address: "192.0.2.2", UserAgent: "curl", Outcome: remit.Denied, Reason: "bad",
		},
		{
			ID: "audit_log-4", Time: at("2023-12-18T00:00:03Z"), Actor: remit.Ref{Kind: "APIKey", Name: "key-x"}, Principal: "key-x", Type: remit.Application,
			Credential: "key-x", CredentialType: remit.APIKey, Action: "service_account.created", Write: true,
			Resource: remit.Ref{Kind: "service_account", Name: "svc-2"}, Outcome: remit.Allowed,
		},
	}
	for i, raw := range examples(t) {
		var e connector.Event
		if err := Audit.Decode(fastjson.MustParse(raw), &connector.Interner{}, &e); err != nil {
			t.Errorf("%s: %v", raw, err)
		} else if !reflect.DeepEqual(e.Activity, want[i]) {
			t.Errorf("%s:\n got %+v\nwant %+v", raw, e.Activity, want[i])
		}
	}
}

func TestSplitsPages(t *testing.T) {
	v := fastjson.MustParse(`{"object":"list","data":[` + strings.Join(examples(t), ",") + `]}`)
	if !Audit.Recognizes(v) || len(Audit.Split(v)) != len(examples(t)) {
		t.Error("a page is not split")
	}
}

func TestStrip(t *testing.T) {
	v := fastjson.MustParse(examples(t)[3])
	if !Audit.Strip(v, &fastjson.Arena{}) || strings.Contains(v.String(), "not-a-real-secret") {
		t.Errorf("not stripped: %s", v)
	}
	if v := fastjson.MustParse(examples(t)[0]); Audit.Strip(v, &fastjson.Arena{}) {
		t.Errorf("stripped, though it has no secret: %s", v)
	}
}

func FuzzAudit(f *testing.F) {
	connectortest.FuzzDecoder(f, []connector.Decoder{Audit}, examples(f)...)
}

// TestRefusesWhatIsNoEvent says how hostile documents end.
func TestRefusesWhatIsNoEvent(t *testing.T) {
	for _, raw := range []string{`1`, `[]`, `{}`, `{"type":7}`, `{"data":[1]}`} {
		v := fastjson.MustParse(raw)
		if err := Audit.Decode(v, &connector.Interner{}, &connector.Event{}); remit.KindOf(err) != remit.Invalid {
			t.Errorf("%s: %v", raw, err)
		}
		if Audit.Recognizes(v) {
			t.Errorf("recognized: %s", raw)
		}
	}
}
