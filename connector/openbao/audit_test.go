package openbao

import (
	"errors"
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

// examples are entries written by hand, in the form that the audit devices'
// documentation describes.
func examples(t testing.TB) []string {
	t.Helper()
	b, err := os.ReadFile("testdata/events.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return t
}

func TestExamples(t *testing.T) {
	ci := remit.Ref{Kind: "Entity", Name: "e2853091-6c3c-2200-3ff7-0b664ed70c4d"}
	token := func(name string) remit.Ref { return remit.Ref{Kind: "Token", Name: name} }
	want := []remit.Activity{
		{}, // the response tells the same and more
		{ // a login by secret ID gives a token; the secret ID's HMAC ties it to r-7
			ID: "r-1", Time: at("2026-03-01T09:00:00.002Z"), Actor: ci, Principal: "approle", Type: remit.ServiceAccount,
			Credential: "hmac=hmac-sha256:5ec1", CredentialType: remit.ClientSecret,
			Minted: remit.Minted{
				Credential: "accessor=hmac-sha256:acc1", Type: remit.ShortLivedToken, For: ci,
				Expires: at("2026-03-01T09:20:00Z"), Lifetime: 20 * time.Minute,
			},
			Action: "update", Resource: remit.Ref{Kind: "approle", Name: "auth/approle/login"}, Address: "10.0.0.8", Outcome: remit.Allowed,
		},
		{
			ID: "r-2", Time: at("2026-03-01T09:01:00Z"), Actor: ci, Principal: "approle", Type: remit.ServiceAccount,
			Credential: "accessor=hmac-sha256:acc1", CredentialType: remit.ShortLivedToken,
			Action: "read", Resource: remit.Ref{Kind: "kv", Name: "secret/data/payments/db"}, Address: "10.0.0.8", UserAgent: "bao/2.5", Outcome: remit.Allowed,
		},
		{ // a child token
			ID: "r-3", Time: at("2026-03-01T09:02:00Z"), Actor: ci, Principal: "approle",
			Credential: "accessor=hmac-sha256:acc1", CredentialType: remit.ShortLivedToken,
			Minted: remit.Minted{
				Credential: "accessor=hmac-sha256:acc2", Type: remit.ShortLivedToken, For: remit.Ref{Kind: "Token", Namespace: "team-a", Name: "token-ci"},
				Expires: at("2026-03-01T09:12:00Z"), Lifetime: 10 * time.Minute,
			},
			Action: "update", Write: true, Resource: remit.Ref{Kind: "token", Namespace: "team-a", Name: "auth/token/create"}, Address: "10.0.0.8", Outcome: remit.Allowed,
		},
		{
			ID: "r-4", Time: at("2026-03-01T09:03:00Z"), Actor: token("token-ci"), Principal: "token-ci",
			Credential: "accessor=hmac-sha256:acc2", CredentialType: remit.ShortLivedToken,
			Action: "list", Resource: remit.Ref{Kind: "system", Name: "sys/policies/acl"}, Address: "10.0.0.9", Outcome: remit.Denied, Reason: "permission denied",
		},
		{ // an unknown token: nobody
			ID: "r-5", Time: at("2026-03-01T09:04:00Z"), Credential: "hmac=hmac-sha256:dead", CredentialType: remit.ShortLivedToken,
			Action: "read", Resource: remit.Ref{Kind: "secret", Name: "secret/data/x"}, Address: "192.0.2.44", Outcome: remit.Denied, Reason: "permission denied",
		},
		{
			ID: "r-6", Time: at("2026-03-01T09:05:00Z"), Actor: remit.Ref{Kind: "Alias", Namespace: "auth/userpass/", Name: "alice"}, Principal: "alice",
			Action: "update", Resource: remit.Ref{Kind: "userpass", Name: "auth/userpass/login/alice"}, Address: "192.0.2.44", Outcome: remit.Denied, Reason: "invalid credentials",
		},
		{
			ID: "r-7", Time: at("2026-03-01T09:06:00Z"), Actor: token("root"), Principal: "root",
			Credential: "accessor=hmac-sha256:rootacc", CredentialType: remit.StaticToken,
			Minted: remit.Minted{
				Credential: "hmac=hmac-sha256:5ec1", Type: remit.ClientSecret, For: remit.Ref{Kind: "approle", Name: "auth/approle/role/ci"}, Lifetime: time.Hour,
			},
			Action: "update", Write: true, Resource: remit.Ref{Kind: "approle", Name: "auth/approle/role/ci/secret-id"}, Address: "127.0.0.1", Outcome: remit.Allowed,
		},
		{
			ID: "r-8", Time: at("2026-03-01T09:07:00Z"), Actor: remit.Ref{Kind: "Entity", Name: "11111111-2222-3333-4444-555555555555"}, Principal: "kubernetes-shop-api",
			Type: remit.Workload, Credential: "accessor=hmac-sha256:acc3", CredentialType: remit.ShortLivedToken,
			Minted: remit.Minted{
				Credential: "lease=database/creds/readonly/abcd", Type: remit.Password,
				For: remit.Ref{Kind: "Entity", Name: "11111111-2222-3333-4444-555555555555"},
			},
			Action: "read", Resource: remit.Ref{Kind: "database", Name: "database/creds/readonly"}, Address: "10.1.2.3", Outcome: remit.Allowed,
		},
		{ // a batch token has no accessor
			ID: "r-9", Time: at("2026-03-01T09:08:00Z"), Actor: token("approle"), Principal: "approle",
			Credential: "hmac=hmac-sha256:ba7c", CredentialType: remit.ShortLivedToken,
			Minted: remit.Minted{Credential: "accessor=hmac-sha256:wacc", Type: remit.ShortLivedToken, For: token("approle"), Lifetime: 2 * time.Minute},
			Action: "update", Write: true, Resource: remit.Ref{Kind: "system", Name: "sys/wrapping/wrap"}, Address: "10.0.0.8", Outcome: remit.Allowed,
		},
		{ // a device with log_raw: no token becomes a name
			ID: "r-10", Time: at("2026-03-01T09:09:00Z"), Actor: token("token"), Principal: "token",
			Credential: "accessor=rawaccessor", CredentialType: remit.ShortLivedToken,
			Action: "update", Write: true, Resource: remit.Ref{Kind: "kv", Name: "secret/data/x"}, Address: "10.0.0.8", Outcome: remit.Allowed,
		},
		{ // a renewal issues nothing
			ID: "r-11", Time: at("2026-03-01T09:10:00Z"), Actor: ci, Principal: "approle",
			Credential: "accessor=hmac-sha256:acc1", CredentialType: remit.ShortLivedToken,
			Action: "update", Write: true, Resource: remit.Ref{Kind: "token", Name: "auth/token/renew-self"}, Address: "10.0.0.8", Outcome: remit.Allowed,
		},
	}
	for i, raw := range examples(t) {
		v := fastjson.MustParse(raw)
		if !Audit.Recognizes(v) {
			t.Errorf("not recognized: %s", raw)
		}
		var e connector.Event
		err := Audit.Decode(v, &connector.Interner{}, &e)
		if i == 0 {
			if !errors.Is(err, connector.ErrIgnored) {
				t.Errorf("a request that nothing is wrong with is not ignored: %v", err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		if !reflect.DeepEqual(e.Activity, want[i]) {
			t.Errorf("%s:\n got %+v\nwant %+v", raw, e.Activity, want[i])
		}
		if len(e.Views) != 2 {
			t.Errorf("%d views", len(e.Views))
		}
	}
}

func TestRefusesWhatIsNoEntry(t *testing.T) {
	for _, raw := range []string{`1`, `[]`, `{}`, `{"type":"response","request":[]}`, `{"type":"response","request":{"operation":1}}`} {
		v := fastjson.MustParse(raw)
		if err := Audit.Decode(v, &connector.Interner{}, &connector.Event{}); remit.KindOf(err) != remit.Invalid || errors.Is(err, connector.ErrIgnored) {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestKnowsLogins(t *testing.T) {
	for path, want := range map[string]bool{
		"auth/approle/login": true, "auth/userpass/login/al": true, "auth/a/b/login": true, "auth/jwt/oidc/callback": true,
		"auth/token/create": false, "auth/login": false, "secret/login": false, "auth/x/loginfo": false, "sys/auth": false,
	} {
		if got := isLogin([]byte(path)); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

func TestStrip(t *testing.T) {
	for _, c := range []struct{ raw, want string }{
		{ // log_raw: everything sent and given
			examples(t)[10],
			`{"time":"2026-03-01T09:09:00Z","type":"response","auth":{"client_token":"stripped","accessor":"rawaccessor","display_name":"token","token_type":"service","token_ttl":1200},` +
				`"request":{"id":"r-10","operation":"update","mount_type":"kv","client_token":"stripped","client_token_accessor":"rawaccessor","path":"secret/data/x","data":{"data":{"anything":"stripped"}},"remote_address":"10.0.0.8"},` +
				`"response":{"data":{"created_time":"stripped","version":1}}}`,
		},
		{ // a login at such a device, which failed
			`{"request":{"mount_type":"userpass","data":{"password":"hunter2","note":"x"},"headers":{"X-Vault-Token":["hvs.abc"],"user-agent":["bao"]}}}`,
			`{"request":{"mount_type":"userpass","data":{"password":"stripped","note":"x"},"headers":{"X-Vault-Token":["stripped"],"user-agent":["bao"]}}}`,
		},
		{
			`{"response":{"wrap_info":{"token":"hvs.xyz","accessor":"a"},"data":{"note":"x"}}}`,
			`{"response":{"wrap_info":{"token":"stripped","accessor":"a"},"data":{"note":"stripped"}}}`,
		},
		{`{"request":{"operation":"list","mount_type":"pki"},"response":{"data":{"keys":["a","b"]}}}`, ""},
		{`{"request":{"mount_type":"pki","data":{"common_name":"api.example"}},"response":{"data":{"serial_number":"39:dd"}}}`, ""},
		{examples(t)[1], ""},
		{examples(t)[2], ""},
		{examples(t)[7], ""},
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

func FuzzAudit(f *testing.F) {
	connectortest.FuzzDecoder(f, []connector.Decoder{Audit}, examples(f)...)
}

func BenchmarkDecoder(b *testing.B) { connectortest.BenchmarkDecoder(b, Audit, examples(b)[0]) }
