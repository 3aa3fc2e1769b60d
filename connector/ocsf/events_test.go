package ocsf

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
	"remit/connector/connectortest"
)

// examples are events written by hand, in the form of the published schema.
func examples(t testing.TB) []string {
	t.Helper()
	b, err := os.ReadFile("testdata/events.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func ms(n int64) time.Time { return time.UnixMilli(n).UTC() }

func TestExamples(t *testing.T) {
	user := func(name string) remit.Ref { return remit.Ref{Kind: "User", Name: name} }
	want := []remit.Activity{
		{
			ID: "ev-1", Native: "aws:123456789012", Time: ms(1700000000123), Actor: remit.Ref{Kind: "AssumedRole", Name: "deployer"},
			Principal: "arn:aws:sts::123456789012:assumed-role/deployer/ci", Type: remit.AssumableRole, Credential: "ASIAIOSFODNN7EXAMPLE",
			Chain: []remit.Ref{{Kind: "Application", Name: "cloudformation.amazonaws.com"}}, Action: "GetObject",
			Resource: remit.Ref{Kind: "AWS::S3::Object", Name: "arn:aws:s3:::b/k"}, Address: "203.0.113.5", UserAgent: "aws-cli/2", Outcome: remit.Allowed,
		},
		{
			ID: "ev-2", Native: "aws:123456789012", Time: ms(1700000001000), Actor: remit.Ref{Kind: "IAMUser", Name: "alice"}, Principal: "alice", Type: remit.Human,
			Credential: "AKIAIOSFODNN7EXAMPLE", Action: "PutUserPolicy", Write: true, Address: "203.0.113.6", Outcome: remit.Denied, Code: 403, Reason: "not authorized",
		},
		{
			ID: "ev-3", Native: "acme.okta.example", Time: ms(1700000002000), Actor: user("alice"), Principal: "alice", Type: remit.Human,
			Minted: remit.Minted{Credential: "session=s-1", Type: remit.ShortLivedToken, For: user("alice"), Expires: ms(1700003602000)},
			Action: "Logon", Resource: remit.Ref{Kind: "Service", Name: "Dashboard"}, Address: "198.51.100.2", Outcome: remit.Allowed,
		},
		{ // who signs in, not the daemon; a failed one begins no session
			ID: "ev-4", Time: ms(1700000003000), Actor: user("alice"), Principal: "alice", Action: "Logon",
			Resource: remit.Ref{Kind: "Endpoint", Name: "bastion"}, Address: "192.0.2.3", Outcome: remit.Denied, Reason: "LOGON_USER_BAD_PASSWORD",
		},
		{
			ID: "ev-5", Native: "azure:tenant-1", Time: ms(1700000004000), Actor: user("helpdesk"), Principal: "helpdesk", Type: remit.Human,
			Credential: "session=s-9", CredentialType: remit.ShortLivedToken, Action: "Password Reset", Write: true, Resource: user("bob"), Outcome: remit.Allowed,
		},
		{
			ID: "ev-6", Time: ms(1700000005000), Actor: remit.Ref{Kind: "Application", Name: "terraform"}, Principal: "terraform", Type: remit.Application,
			Action: "Assign Privileges", Write: true, Resource: remit.Ref{Kind: "ServiceAccount", Name: "svc-ci"}, Outcome: remit.Allowed,
		},
		{
			ID: "ev-7", Time: ms(1700000006000), Actor: user("helpdesk"), Principal: "helpdesk",
			Action: "Add User", Write: true, Resource: remit.Ref{Kind: "Group", Name: "admins"}, Outcome: remit.Allowed,
		},
		{
			ID: "ev-8", Time: ms(1700000007000), Action: "Get", Resource: remit.Ref{Kind: "Endpoint", Name: "api.example"},
			Address: "192.0.2.9", UserAgent: "curl", Outcome: remit.Denied, Code: 403,
		},
		{
			Time: ms(1700000008000), Actor: remit.Ref{Kind: "Service", Name: "u-77"}, Principal: "u-77", Type: remit.ServiceAccount,
			Action: "ListBuckets", Resource: remit.Ref{Kind: "Service", Name: "storage"}, Outcome: remit.Allowed,
		},
	}
	for i, raw := range examples(t) {
		v := fastjson.MustParse(raw)
		if !Events.Recognizes(v) {
			t.Errorf("not recognized: %s", raw)
		}
		var e connector.Event
		if err := Events.Decode(v, &connector.Interner{}, &e); err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		if want[i].ID == "" && strings.HasPrefix(e.ID, "sha256:") {
			want[i].ID = e.ID
		}
		if !reflect.DeepEqual(e.Activity, want[i]) {
			t.Errorf("%s:\n got %+v\nwant %+v", raw, e.Activity, want[i])
		}
	}
}

func TestRefusesWhatIsNoEvent(t *testing.T) {
	for _, raw := range []string{`1`, `[]`, `{}`, `{"class_uid":"6003"}`, `{"class_uid":-1}`} {
		v := fastjson.MustParse(raw)
		if err := Events.Decode(v, &connector.Interner{}, &connector.Event{}); remit.KindOf(err) != remit.Invalid {
			t.Errorf("%s: %v", raw, err)
		}
		if Events.Recognizes(v) {
			t.Errorf("recognized: %s", raw)
		}
	}
}

func TestStrip(t *testing.T) {
	v := fastjson.MustParse(examples(t)[1])
	if !Events.Strip(v, &fastjson.Arena{}) || strings.Contains(v.String(), "hunter2") {
		t.Errorf("not stripped: %s", v)
	}
	if v := fastjson.MustParse(examples(t)[0]); Events.Strip(v, &fastjson.Arena{}) {
		t.Errorf("stripped, though it has no secret: %s", v)
	}
}

func FuzzEvents(f *testing.F) {
	connectortest.FuzzDecoder(f, []connector.Decoder{Events}, examples(f)...)
}
