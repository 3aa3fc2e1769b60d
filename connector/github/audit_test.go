package github

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

// examples are events written by hand, in the forms that GitHub documents.
func examples(t testing.TB) []string {
	t.Helper()
	b, err := os.ReadFile("testdata/events.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func TestExamples(t *testing.T) {
	repo := remit.Ref{Kind: "repo", Name: "acme/shop"}
	org := remit.Ref{Kind: "org", Name: "acme"}
	want := []remit.Activity{
		{
			ID: "doc-1", Native: "acme", Time: ms(1700000000123), Actor: remit.Ref{Kind: "App", Name: "octo-deployer[bot]"}, Principal: "octo-deployer[bot]",
			Type: remit.Application, Credential: "hashed_token=q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=", CredentialType: remit.ShortLivedToken,
			Action: "repo.create_actions_secret", Write: true, Resource: remit.Ref{Kind: "secret", Namespace: "acme/shop", Name: "DEPLOY_KEY"},
			Address: "203.0.113.9", UserAgent: "octokit.js/3.1", Outcome: remit.Allowed,
		},
		{ // a user through an OAuth app: the app and the person in the identity provider stand behind
			ID: "doc-2", Native: "acme", Time: ms(1700000001000), Actor: user("alice"), Principal: "alice", Type: remit.Human,
			Credential: "hashed_token=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", CredentialType: remit.StaticToken,
			Chain:  []remit.Ref{{Kind: "OAuthApp", Name: "Ship It"}, {Kind: "ExternalIdentity", Name: "alice@acme.example"}},
			Action: "git.clone", Resource: repo, Address: "198.51.100.7", Outcome: remit.Allowed,
		},
		{
			ID: "doc-3", Native: "acme", Time: ms(1700000002000), Actor: user("alice"), Principal: "alice", Type: remit.Human,
			Credential: "token_id=12", CredentialType: remit.StaticToken, Action: "api.request", Write: true, Resource: org,
			Address: "198.51.100.7", UserAgent: "curl/8.5", Outcome: remit.Denied, Code: 403,
		},
		{
			ID: "doc-4", Native: "acme", Time: ms(1700000003000), Actor: user("root-admin"), Principal: "root-admin", Type: remit.Human,
			Minted: remit.Minted{Credential: "user_programmatic_access_id=5512", Type: remit.StaticToken, For: user("bob")},
			Action: "personal_access_token.access_granted", Write: true, Resource: org, Outcome: remit.Allowed,
		},
		{ // the token is the new one, not that of the request
			ID: "doc-5", Native: "acme-inc", Time: ms(1700000004000), Actor: user("bob"), Principal: "bob", Type: remit.Human,
			Minted: remit.Minted{
				Credential: "hashed_token=BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB=", Type: remit.StaticToken,
				For: user("bob"), Expires: at("2023-12-14T22:13:24Z"),
			},
			Action: "oauth_access.create", Write: true, Resource: remit.Ref{Kind: "enterprise", Name: "acme-inc"}, Outcome: remit.Allowed,
		},
		{
			ID: "doc-6", Native: "acme", Time: ms(1700000005000), Actor: user("bob"), Principal: "bob", Type: remit.Human,
			Minted: remit.Minted{Credential: "fingerprint=SHA256:abcdefgh", Type: remit.SSHKey, For: remit.Ref{Kind: "DeployKey", Namespace: "acme/shop", Name: "deploy_key"}},
			Action: "public_key.create", Write: true, Resource: repo, Outcome: remit.Allowed,
		},
		{
			ID: "doc-7", Native: "acme-inc", Time: ms(1700000006000), Actor: user("bob"), Principal: "bob", Type: remit.Human,
			Action: "user.failed_login", Resource: remit.Ref{Kind: "enterprise", Name: "acme-inc"}, Address: "192.0.2.5",
			Outcome: remit.Denied, Reason: "invalid credentials",
		},
		{
			ID: "doc-8", Native: "acme", Time: ms(1700000007000), Actor: remit.Ref{Kind: "DeployKey", Namespace: "acme/shop", Name: "deploy_key"},
			Principal: "deploy_key", Type: remit.ServiceAccount, Credential: "hashed_token=CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC=",
			CredentialType: remit.SSHKey, Action: "git.push", Write: true, Resource: repo, Outcome: remit.Allowed,
		},
		{
			ID: "doc-9", Native: "acme", Time: ms(1700000008000), Actor: user("bob"), Principal: "bob", Type: remit.Human,
			Action: "hook.create", Write: true, Resource: remit.Ref{Kind: "hook", Namespace: "acme", Name: "8"}, Outcome: remit.Allowed,
		},
		{
			ID: "doc-10", Native: "acme", Time: ms(1700000009000), Actor: remit.Ref{Kind: "App", Name: "github-actions[bot]"}, Principal: "github-actions[bot]",
			Type: remit.Application, Action: "workflows.completed_workflow_run", Write: true, Resource: repo, Outcome: remit.Failed, Reason: "failure",
		},
		{
			ID: "doc-11", Native: "acme", Time: ms(1700000010000), Actor: user("root-admin"), Principal: "root-admin", Type: remit.Human,
			Minted: remit.Minted{Credential: "installation_id=31337", Type: remit.ShortLivedToken, For: remit.Ref{Kind: "App", Name: "Ship It"}},
			Action: "integration_installation.create", Write: true, Resource: remit.Ref{Kind: "app", Namespace: "acme", Name: "Ship It"}, Outcome: remit.Allowed,
		},
		{
			ID: "doc-12", Native: "acme", Time: ms(1700000011000), Actor: remit.Ref{Kind: "App", Name: "copilot-swe-agent[bot]"}, Principal: "copilot-swe-agent[bot]",
			Type: remit.Agent, Action: "pull_request.create", Write: true, Resource: repo, Outcome: remit.Allowed,
		},
		{
			Native: "acme", Time: at("2024-05-01T10:00:00Z"), Actor: remit.Ref{Kind: "App", Name: "github-advanced-security[bot]"},
			Principal: "github-advanced-security[bot]", Type: remit.Application, Action: "alert.created", Write: true, Resource: repo, Outcome: remit.Allowed,
		},
		{
			Native: "acme", Time: ms(1700000012000), Actor: user("bob"), Principal: "bob", Type: remit.Human,
			Action: "push", Write: true, Resource: repo, Outcome: remit.Allowed,
		},
	}
	for i, raw := range examples(t) {
		e, err := decode(t, raw)
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		want[i].ID = orHash(want[i].ID, e.ID)
		if !reflect.DeepEqual(e.Activity, want[i]) {
			t.Errorf("%s:\n got %+v\nwant %+v", raw, e.Activity, want[i])
		}
	}
}

func TestRefusesWhatIsNoEvent(t *testing.T) {
	for _, raw := range []string{`1`, `"x"`, `[]`, `{}`, `{"action":7}`, `{"repository":{"full_name":"a/b"}}`} {
		v := fastjson.MustParse(raw)
		err := Audit.Decode(v, &connector.Interner{}, &connector.Event{})
		if remit.KindOf(err) != remit.Invalid {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestDoesNotRecognizeOthers(t *testing.T) {
	for _, raw := range []string{
		`{}`, `[]`, `{"action":"login"}`, `{"eventName":"GetObject","eventSource":"s3.amazonaws.com"}`,
		`{"eventType":"user.session.start","actor":{"type":"User"}}`, `{"class_uid":6003,"actor":{},"action":"Allowed"}`,
		`{"verb":"get","user":{"username":"x"},"requestURI":"/"}`,
	} {
		if Audit.Recognizes(fastjson.MustParse(raw)) {
			t.Errorf("recognized: %s", raw)
		}
	}
}

func TestSplitsLists(t *testing.T) {
	if n := len(Audit.Split(fastjson.MustParse(`[{"action":"a.b"},{"action":"c.d"}]`))); n != 2 {
		t.Errorf("%d events of a list of 2", n)
	}
	if n := len(Audit.Split(fastjson.MustParse(`{"action":"a.b"}`))); n != 1 {
		t.Errorf("%d events of one", n)
	}
}

func TestStrip(t *testing.T) {
	for _, c := range []struct{ raw, want string }{
		{`{"config":{"secret":"hunter2","url":"https://example.com/x"}}`, `{"config":{"secret":"stripped","url":"https://example.com/x"}}`},
		{`{"config":{"url":"https://hooks.slack.com/services/T000/B000/abcdefghijkl"}}`, `{"config":{"url":"https://hooks.slack.com/services/stripped"}}`},
		{`{"alert":{"secret":"AKIAIOSFODNN7EXAMPLE","secret_type":"aws"}}`, `{"alert":{"secret":"stripped","secret_type":"aws"}}`},
		{`{"message":"a ghp_abcdefghijklmnopqrstuvwxyz0123456789, b github_pat_11ABCDEFG0aaaaaaaaaaaaaa."}`, `{"message":"a ghp_stripped, b github_pat_stripped"}`},
		{`{"recovery_codes":["aaaa-bbbb","cccc-dddd"]}`, `{"recovery_codes":["stripped","stripped"]}`},
		{`{"hashed_token":"q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=","token_id":"7","token_scopes":"repo"}`, ""},
		{`{"key":"DEPLOY_KEY","name":"ghp_short","note":"see ghp_ prefix in the documentation of tokens"}`, ""},
	} {
		v := fastjson.MustParse(c.raw)
		changed := Audit.Strip(v, &fastjson.Arena{})
		want := c.want
		if want == "" {
			want = c.raw
		}
		if got := v.String(); got != want || changed != (c.want != "") {
			t.Errorf("%s:\n got %s (%v)\nwant %s", c.raw, got, changed, want)
		}
		if Audit.Strip(v, &fastjson.Arena{}) {
			t.Errorf("%s: stripped twice", c.raw)
		}
	}
}

func TestFieldAliases(t *testing.T) {
	for from, to := range FieldAliases {
		if from == to || from == "" || to == "" {
			t.Errorf("%q is an alias of %q", from, to)
		}
	}
}

func FuzzAudit(f *testing.F) {
	connectortest.FuzzDecoder(f, []connector.Decoder{Audit}, examples(f)...)
}

func BenchmarkDecoder(b *testing.B) { connectortest.BenchmarkDecoder(b, Audit, examples(b)[0]) }
