package trigger_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"remit"
	"remit/connector/secret"
	"remit/leak"
	"remit/server/trigger"
	"remit/store/sqlstore"
)

const leaked = "ghp_Zq8RkT3vXw5YbN1mLc7PdJ9sHf2GaK4UeQ6B"

// hub is GitHub: its public keys, its API, and what it signs.
type hub struct {
	keys, api *httptest.Server
	key       *ecdsa.PrivateKey
}

func newHub(t *testing.T) *hub {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	h := &hub{key: k}
	h.keys = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"public_keys": []any{map[string]any{"key_identifier": "k1", "key": public, "is_current": true}}})
	}))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /repos/acme/web/secret-scanning/alerts/7", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer api-secret" {
			http.Error(w, "{}", http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, `{"number":7,"state":"open","secret_type":"github_personal_access_token","secret":%q}`, leaked)
	})
	mux.HandleFunc("GET /repos/acme/web/secret-scanning/alerts/7/locations", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `[{"type":"commit","details":{"path":"ci/deploy.sh","start_line":12,"commit_sha":"4f6c1b0a92de4f6c"}}]`)
	})
	h.api = httptest.NewServer(mux) // on this machine only
	t.Cleanup(func() { h.keys.Close(); h.api.Close() })
	return h
}

func (h *hub) sign(t *testing.T, body string) string {
	t.Helper()
	sum := sha256.Sum256([]byte(body))
	out, err := ecdsa.SignASN1(rand.Reader, h.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(out)
}

func hook(body string) string {
	mac := hmac.New(sha256.New, []byte("hook-secret"))
	mac.Write([]byte(body))
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// TestGitHub holds that what GitHub reports is a finding when it is answered, that
// only GitHub is believed, and that the secret is nowhere afterwards.
func TestGitHub(t *testing.T) {
	h := newHub(t)
	dir := t.TempDir()
	store, err := sqlstore.Open(t.Context(), filepath.Join(dir, "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	fingerprint, err := secret.NewFingerprinter(key)
	if err != nil {
		t.Fatal(err)
	}
	ref := remit.Ref{Kind: "Secret", Namespace: "ci", Name: "github"}
	put(t, store, remit.Records{Credentials: []remit.Credential{{
		Record: remit.Record{ID: remit.CredentialID(cluster.ID, ref, "token"), System: cluster.ID, Ref: ref}, Key: "token",
		Type: remit.APIKey, Status: remit.Active, Fingerprint: fingerprint.Fingerprint([]byte(leaked)),
	}}})
	digester, err := leak.NewDigester(key)
	if err != nil {
		t.Fatal(err)
	}
	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte("api-secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	alerts, err := leak.NewAlertReader(h.api.URL, tokenFile)
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	log := slog.New(slog.NewTextHandler(io.MultiWriter(&said, t.Output()), nil))
	g := trigger.NewGitHub(trigger.GitHub{
		Desk: &leak.Desk{Store: store, Digester: digester, Log: log}, Log: log, Alerts: alerts,
		Keys: &leak.GitHubKeys{URL: h.keys.URL, Client: h.keys.Client()}, Secret: func() ([]byte, error) { return []byte("hook-secret"), nil },
	})
	mux := http.NewServeMux()
	mux.HandleFunc(trigger.GitHubHookPath, g.Hook)
	mux.HandleFunc(trigger.GitHubPartnerPath, g.Partner)
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	send := func(path, body string, headers map[string]string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range headers {
			r.Header.Set(name, value)
		}
		w, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Body.Close()
		text, err := io.ReadAll(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		return w.StatusCode, string(text)
	}
	partner := fmt.Sprintf(`[{"token":%q,"type":"github_token","url":"https://github.com/acme/web/blob/4f6c1b0a92de4f6c/app/config.yaml","source":"content"},{"token":"unknown-to-us-1234","type":"t","url":"","source":"issue_body"}]`, leaked)
	const alert = `{"action":"created","alert":{"number":7,"secret_type":"github_personal_access_token","html_url":"https://github.com/acme/web/security/secret-scanning/7"},"repository":{"full_name":"acme/web"}}`
	signed := func(body string) map[string]string {
		return map[string]string{"Github-Public-Key-Identifier": "k1", "Github-Public-Key-Signature": h.sign(t, body)}
	}
	hooked := func(event, body string) map[string]string {
		return map[string]string{"X-GitHub-Event": event, "X-Hub-Signature-256": hook(body)}
	}
	if status, _ := send(trigger.GitHubPartnerPath, partner, map[string]string{
		"Github-Public-Key-Identifier": "k2", "Github-Public-Key-Signature": h.sign(t, partner),
	}); status != http.StatusForbidden {
		t.Errorf("partner, a key that GitHub does not have: %d", status)
	}
	for name, test := range map[string]struct {
		path, body string
		headers    map[string]string
		want       int
	}{
		"partner, another body":  {trigger.GitHubPartnerPath, partner, signed(partner + " "), http.StatusForbidden},
		"partner, no signature":  {trigger.GitHubPartnerPath, partner, nil, http.StatusForbidden},
		"partner, no list":       {trigger.GitHubPartnerPath, `{"token":"` + leaked + `"}`, signed(`{"token":"` + leaked + `"}`), http.StatusBadRequest},
		"webhook, another body":  {trigger.GitHubHookPath, alert, hooked("secret_scanning_alert", alert+" "), http.StatusForbidden},
		"webhook, no signature":  {trigger.GitHubHookPath, alert, map[string]string{"X-GitHub-Event": "secret_scanning_alert"}, http.StatusForbidden},
		"webhook, another event": {trigger.GitHubHookPath, alert, hooked("push", alert), http.StatusBadRequest},
		"webhook, other repository": {
			trigger.GitHubHookPath, strings.ReplaceAll(alert, "acme/web\"}", "acme/../../user\"}"),
			hooked("secret_scanning_alert", strings.ReplaceAll(alert, "acme/web\"}", "acme/../../user\"}")), http.StatusBadRequest,
		},
		"ping":     {trigger.GitHubHookPath, `{"zen":"x"}`, hooked("ping", `{"zen":"x"}`), http.StatusOK},
		"resolved": {trigger.GitHubHookPath, strings.Replace(alert, "created", "resolved", 1), hooked("secret_scanning_alert", strings.Replace(alert, "created", "resolved", 1)), http.StatusOK},
	} {
		if status, text := send(test.path, test.body, test.headers); status != test.want || strings.Contains(text, leaked) {
			t.Errorf("%s: %d %s; want %d", name, status, text, test.want)
		}
		if got := findingsOf(t, store); len(got) > 0 {
			t.Fatalf("%s: a finding", name)
		}
	}
	if status, text := send(trigger.GitHubPartnerPath, partner, signed(partner)); status != http.StatusOK || text != "{\"leaks\":2,\"findings\":1}\n" {
		t.Errorf("partner: %d %s", status, text)
	}
	if status, text := send(trigger.GitHubHookPath, alert, hooked("secret_scanning_alert", alert)); status != http.StatusOK || text != "{\"leaks\":1,\"findings\":1}\n" {
		t.Errorf("webhook: %d %s", status, text)
	}
	f := findingsOf(t, store, remit.Open)["leaked-credential github"]
	for _, want := range []string{"acme/web app/config.yaml in commit 4f6c1b0a92de", "acme/web ci/deploy.sh:12 in commit 4f6c1b0a92de"} {
		found := false
		for _, e := range f.Evidence {
			found = found || e.Value == want
		}
		if !found {
			t.Errorf("%+v lacks %s", f.Evidence, want)
		}
	}
	if !strings.Contains(said.String(), "findings=0") {
		t.Error("the log does not tell of the secret that matches nothing")
	}
	h.api.Close()
	other := strings.ReplaceAll(alert, `"number":7`, `"number":8`)
	if status, _ := send(trigger.GitHubHookPath, other, hooked("secret_scanning_alert", other)); status != http.StatusServiceUnavailable {
		t.Errorf("while GitHub's API is down: %d", status)
	}
	if strings.Contains(said.String(), leaked) {
		t.Error("the log has the secret")
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if bytes.Contains(content, []byte(leaked)) {
			t.Errorf("%s holds the secret", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
