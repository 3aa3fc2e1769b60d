//go:build unix && openbao

package openbao_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"remit"
	"remit/connector"
	"remit/connector/connectortest"
	"remit/connector/openbao"
	server "remit/e2e/openbao"
	"remit/response"
	"remit/store/sqlstore"
)

// rotatorPolicy is the least that Remit's token may do; docs/connectors/openbao.md
// has it.
const rotatorPolicy = `
path "auth/token/lookup-accessor" { capabilities = ["update"] }
path "auth/token/revoke-accessor" { capabilities = ["update"] }
path "auth/token/accessors"       { capabilities = ["list", "sudo"] }
path "auth/token/accessors/"      { capabilities = ["list", "sudo"] }
path "auth/token/create-orphan"   { capabilities = ["update", "sudo"] }
path "sys/audit"                  { capabilities = ["read", "sudo"] }
path "sys/audit-hash/*"           { capabilities = ["update"] }
path "secret/data/*"              { capabilities = ["read", "patch"] }
`

// bench is a server, and Remit with a token that may do no more than is documented.
type bench struct {
	*server.Server
	t     *testing.T
	remit *openbao.Server
}

func (b *bench) do(method, path string, body any) map[string]any {
	b.t.Helper()
	answer, err := b.Do(b.t.Context(), b.Token, method, path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer
}

// token makes one and returns it with its accessor.
func (b *bench) token(body map[string]any) (token, accessor string) {
	b.t.Helper()
	auth, _ := b.do("POST", "auth/token/create-orphan", body)["auth"].(map[string]any)
	token, _ = auth["client_token"].(string)
	accessor, _ = auth["accessor"].(string)
	return token, accessor
}

func open(t *testing.T, s *server.Server, token string) *openbao.Server {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := openbao.Open(openbao.Config{Address: s.URL, TokenFile: path})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func start(t *testing.T) *bench {
	t.Helper()
	b := &bench{Server: server.Start(t), t: t}
	b.do("PUT", "sys/policies/acl/remit", map[string]any{"policy": rotatorPolicy})
	b.do("PUT", "sys/policies/acl/app", map[string]any{"policy": `path "secret/data/app" { capabilities = ["read"] }`})
	token, _ := b.token(map[string]any{"policies": []string{"remit"}})
	b.remit = open(t, b.Server, token)
	return b
}

func order(accessor string) connector.RotationOrder {
	return connector.RotationOrder{Subject: remit.Subject{Record: remit.KindCredential, Ref: remit.Ref{Kind: "Token", Name: accessor}}}
}

func TestRotate(t *testing.T) {
	b := start(t)
	b.do("POST", "secret/data/app", map[string]any{"data": map[string]string{"token": "old", "other": "stays"}})
	t.Run("issuer", func(t *testing.T) {
		_, accessor := b.token(map[string]any{"policies": []string{"app"}, "ttl": "1h", "display_name": "app", "meta": map[string]string{"team": "shop"}})
		connectortest.Issuer(t, connectortest.IssuerSuite{Issuer: b.remit, Order: order(accessor), Accepted: func(t *testing.T, _ connector.Issued, token []byte) bool {
			answer, err := b.Do(t.Context(), string(token), "GET", "auth/token/lookup-self", nil)
			if err != nil {
				return false
			}
			data, _ := answer["data"].(map[string]any)
			meta, _ := data["meta"].(map[string]any)
			if data["display_name"] != "token-app" || meta["team"] != "shop" {
				t.Errorf("it is %v", data)
			}
			_, err = b.Do(t.Context(), string(token), "GET", "secret/data/app", nil)
			return err == nil
		}})
	})
	t.Run("kv", func(t *testing.T) {
		kv := func(address string) *openbao.KV {
			t.Helper()
			d, err := b.remit.KV(address)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		n := 0
		connectortest.Destination(t, connectortest.DestinationSuite{
			Destination: kv("secret/app#token,user=username"), Missing: kv("secret/missing#token"),
			Delivery: func(*testing.T) (connector.Delivery, string) {
				n++
				value := strings.Repeat(string(rune('a'+n)), 20)
				return connector.Delivery{Secret: connector.NewSecret("token", []byte(value)).With("username", []byte("u"))}, value + " u stays"
			},
			Holds: func(t *testing.T) string {
				answer := b.do("GET", "secret/data/app", nil)
				data, _ := answer["data"].(map[string]any)
				keys, _ := data["data"].(map[string]any)
				var parts []string
				for _, key := range []string{"token", "user", "other"} {
					text, _ := keys[key].(string)
					parts = append(parts, text)
				}
				return strings.Join(parts, " ")
			},
			Overwrite: func(*testing.T) {
				b.do("POST", "secret/data/app", map[string]any{"data": map[string]string{"token": "mine", "other": "stays"}})
			},
		})
		b.do("POST", "sys/mounts/one", map[string]any{"type": "kv", "options": map[string]string{"version": "1"}})
		if _, err := open(t, b.Server, b.Token).KV("nonsense"); remit.KindOf(err) != remit.Invalid {
			t.Errorf("%v", err)
		}
		first, err := open(t, b.Server, b.Token).KV("one/x#y")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := first.Plan(t.Context(), connector.Delivery{}); remit.KindOf(err) != remit.Unsupported {
			t.Errorf("version 1: %v", err)
		}
	})
	t.Run("refusals", func(t *testing.T) {
		_, root := b.token(map[string]any{"policies": []string{"root"}})
		own, accessor := b.token(map[string]any{"policies": []string{"remit"}})
		for name, c := range map[string]struct {
			by   *openbao.Server
			of   string
			want remit.ErrorKind
		}{
			"missing": {b.remit, "no-such-accessor", remit.NotFound},
			"root":    {b.remit, root, remit.Forbidden},
			"own":     {open(t, b.Server, own), accessor, remit.Forbidden},
			"no":      {open(t, b.Server, "s.wrong"), accessor, remit.Forbidden},
		} {
			if _, err := c.by.PlanRotation(t.Context(), order(c.of)); remit.KindOf(err) != c.want {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
		}
	})
	t.Run("saga", func(t *testing.T) { saga(t, b) })
}

var errDied = errors.New("it died")

type dying struct {
	connector.Issuer
	dies *int
}

func (d dying) Issue(ctx context.Context, plan json.RawMessage, ref remit.Ref) (connector.Issued, *connector.Secret, error) {
	issued, secret, err := d.Issuer.Issue(ctx, plan, ref)
	if *d.dies--; *d.dies >= 0 {
		panic(errDied)
	}
	return issued, secret, err
}

// saga replaces a token that lies in the server's own KV engine, twice, the second
// time after a crash, while a client reads and uses it.
func saga(t *testing.T, b *bench) {
	ctx := t.Context()
	first, accessor := b.token(map[string]any{"policies": []string{"app"}, "period": "1h", "display_name": "app"})
	b.do("POST", "secret/data/login", map[string]any{"data": map[string]string{"token": first}})
	read := func() string {
		t.Helper()
		answer := b.do("GET", "secret/data/login", nil)
		data, _ := answer["data"].(map[string]any)
		keys, _ := data["data"].(map[string]any)
		token, _ := keys["token"].(string)
		return token
	}
	store, err := sqlstore.Open(ctx, filepath.Join(t.TempDir(), "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	system, dies := remit.SystemID(openbao.Name, "test"), 0
	if err := store.PutSystem(ctx, remit.System{ID: system, Connector: openbao.Name, Name: "test", Native: "test"}); err != nil {
		t.Fatal(err)
	}
	responses := response.New(response.Options{
		Store: store, Approvals: func(remit.ID) int { return 0 },
		Issuer: func(context.Context, remit.ID) (connector.Issuer, error) { return dying{b.remit, &dies}, nil },
		Destination: func(context.Context, remit.ID, string) (connector.Destination, error) {
			return b.remit.KV("secret/login#token")
		},
	})
	// takeIn reads the log of the audit device.
	takeIn := func() {
		t.Helper()
		text, err := os.ReadFile(b.Log)
		if err != nil {
			t.Fatal(err)
		}
		point := remit.Checkpoint{Now: time.Now()}
		known := map[string]bool{}
		lines := bufio.NewScanner(bytes.NewReader(text))
		for lines.Buffer(nil, 1<<20); lines.Scan(); {
			var entry struct {
				Auth struct{ Accessor string }
				Time time.Time
			}
			if json.Unmarshal(lines.Bytes(), &entry) != nil || entry.Auth.Accessor == "" || known[entry.Auth.Accessor] {
				continue
			}
			known[entry.Auth.Accessor] = true
			credential := "accessor=" + entry.Auth.Accessor
			who := remit.Ref{Kind: "Token", Name: "app"}
			point.Lineage = append(point.Lineage, remit.Lineage{System: system, Credential: credential, Root: credential, Identity: remit.IdentityID(system, who), Holder: who, First: entry.Time, Last: entry.Time, Uses: 1})
		}
		if err := store.Checkpoint(ctx, point); err != nil {
			t.Fatal(err)
		}
	}
	using, stop := context.WithCancel(ctx)
	var client sync.WaitGroup
	defer client.Wait()
	defer stop()
	tokens, uses := map[string]bool{}, 0
	client.Go(func() {
		for ; using.Err() == nil; uses++ {
			token := read()
			tokens[token] = true
			if _, err := b.Do(using, token, "GET", "secret/data/app", nil); err != nil && using.Err() == nil {
				t.Errorf("the client failed after %d uses: %v", uses, err)
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	for crashes := range 2 {
		ref := order(accessor).Subject.Ref // the first of the line
		plan, err := responses.PlanRotation(ctx, response.RotationRequest{
			System: system, Subject: remit.Subject{Record: remit.KindCredential, Ref: ref, ID: remit.CredentialID(system, ref, "")},
			To: []string{"kv"}, Grace: 200 * time.Millisecond, AskedBy: "alice",
		})
		if err == nil {
			plan, err = responses.Propose(ctx, plan)
		}
		if err != nil {
			t.Fatal(err)
		}
		dies = crashes
		for end := time.Now().Add(time.Minute); plan.State != remit.ResponseVerified && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			func() {
				defer func() {
					if p := recover(); p != nil && p != errDied {
						panic(p)
					}
				}()
				got, err := responses.CarryOut(ctx, plan.ID)
				if err != nil {
					t.Error(err)
				}
				plan.State, plan.Steps = got.State, got.Steps
			}()
			takeIn()
		}
		if plan.State != remit.ResponseVerified || plan.Steps[0].Tries != crashes+1 {
			t.Fatalf("it is %s after %d tries", plan.State, plan.Steps[0].Tries)
		}
	}
	stop()
	client.Wait()
	t.Logf("%d uses of %d tokens", uses, len(tokens))
	if len(tokens) != 3 {
		t.Errorf("%d tokens were used", len(tokens))
	}
	lives := 0
	for token := range tokens {
		if _, err := b.Do(ctx, token, "GET", "auth/token/lookup-self", nil); err == nil {
			lives++
		}
	}
	if _, err := b.Do(ctx, read(), "GET", "secret/data/app", nil); err != nil || lives != 1 {
		t.Errorf("%d tokens live, the last: %v", lives, err)
	}
}

// TestOpen refuses what would send a secret in the clear, and follows nothing to
// another host.
func TestOpen(t *testing.T) {
	for _, bad := range []string{"", "bao.example.com", "http://bao.example.com:8200", "https://user:pass@bao.example.com", "ftp://127.0.0.1", "https://h/?x=y"} {
		if _, err := openbao.Open(openbao.Config{Address: bad}); remit.KindOf(err) != remit.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, good := range []string{"https://bao.example.com:8200", "http://127.0.0.1:8200", "http://[::1]:8200", "http://localhost:8200"} {
		if _, err := openbao.Open(openbao.Config{Address: good}); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	asked := false
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer other.Close()
	standby := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer standby.Close()
	_, err := open(t, &server.Server{URL: standby.URL}, "s3cr3t").PlanRotation(t.Context(), order("a"))
	if remit.KindOf(err) != remit.Unavailable || asked || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("%v, asked elsewhere: %v", err, asked)
	}
}
