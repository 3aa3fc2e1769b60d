//go:build unix

package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"remit"
	"remit/leak"
	"remit/server/trigger"
	"remit/ssf"
	"remit/store/sqlstore"
)

// TestSignalsKilled kills a server that an identity provider pushes signals to, at
// any moments, while the provider sends again what was not acknowledged: each
// counts once, and each that is sent once more afterwards changes nothing.
func TestSignalsKilled(t *testing.T) {
	const kills, signals = 4, 60
	dir, address := t.TempDir(), freeAddress(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, content any) {
		t.Helper()
		text, ok := content.(string)
		if !ok {
			b, err := json.Marshal(content)
			if err != nil {
				t.Fatal(err)
			}
			text = string(b)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("keys.json", jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "one", Algorithm: "RS256", Use: "sig"}}})
	write("remit.yaml", fmt.Sprintf(`
listen: {address: %q}
signals:
- {name: okta, issuer: "https://acme.okta.com", audience: "https://remit.example.com", jwks_file: keys.json, push: true}
`, address))
	write("cluster.yaml", `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: alice}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: User, name: alice@example.com, apiGroup: rbac.authorization.k8s.io}]
`)
	if _, err := run(t, "scan", "--data-dir", dir, "--from", filepath.Join(dir, "cluster.yaml"), "--system", "shop", "--quiet"); err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: "one"}}, new(jose.SignerOptions).WithType("secevent+jwt"))
	if err != nil {
		t.Fatal(err)
	}
	tokens := make([]string, signals)
	for i := range tokens {
		text, err := json.Marshal(map[string]any{
			"iss": "https://acme.okta.com", "aud": "https://remit.example.com", "iat": time.Now().Unix(), "jti": fmt.Sprint("jti-", i),
			"sub_id": map[string]string{"format": "email", "email": "alice@example.com"},
			"events": map[string]any{ssf.SessionRevoked: map[string]any{"event_timestamp": time.Now().Unix()}},
		})
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signer.Sign(text)
		if err != nil {
			t.Fatal(err)
		}
		if tokens[i], err = signed.CompactSerialize(); err != nil {
			t.Fatal(err)
		}
	}
	s := newSender(t, dir, address, "--for", "signals")
	push := func(ctx context.Context, set string) int {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+trigger.SignalsPath+"okta", strings.NewReader(set))
		if err != nil {
			return 0
		}
		r.Header.Set("Content-Type", ssf.MediaType)
		r.Header.Set("Authorization", "Bearer "+s.token)
		w, err := s.client.Do(r)
		if err != nil {
			return 0
		}
		w.Body.Close()
		return w.StatusCode
	}
	var sent sync.WaitGroup
	for worker := range 4 {
		sent.Go(func() {
			for i := worker; i < signals; i += 4 {
				for push(t.Context(), tokens[i]) != http.StatusAccepted && t.Context().Err() == nil {
					time.Sleep(5 * time.Millisecond)
				}
				time.Sleep(30 * time.Millisecond)
			}
		})
	}
	serve := func() *daemon { return serving(t, "--data-dir", dir, "--no-watch") }
	for i := range kills {
		d := serve()
		wait(t, "the server", func() bool { return push(t.Context(), tokens[0]) == http.StatusAccepted })
		time.Sleep(time.Duration(30+70*i) * time.Millisecond)
		d.kill()
	}
	d := serve()
	sent.Wait()
	for _, set := range tokens {
		if status := push(t.Context(), set); status != http.StatusAccepted {
			t.Errorf("a token once more: %d", status)
		}
	}
	d.stop(t)

	store, err := sqlstore.Open(t.Context(), filepath.Join(dir, "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	found, _, err := store.Findings(t.Context(), remit.FindingFilter{Policies: []string{"idp-session-revoked"}}, remit.PageRequest{})
	if err != nil || len(found) != 1 || found[0].EventCount != signals || found[0].State != remit.Open {
		t.Errorf("%+v, %v", found, err)
	}
	if all, err := ssf.Signals(t.Context(), store); err != nil || len(all) != signals {
		t.Errorf("%d signals, %v", len(all), err)
	}
}

// TestTriggersServed goes once through everything that `remit serve` takes in and
// sends, on its real listener: what a script reports, what GitHub reports, and a
// plan whose signal goes out to a receiver, which is the server itself.
func TestTriggersServed(t *testing.T) {
	const leaked = "sk_live_51H8xQ2eZvKYlo2C9aBcDeFgHiJkLmNoPqRs"
	dir, elsewhere, address := t.TempDir(), t.TempDir(), freeAddress(t)
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// What is configured lies elsewhere: the data directory must hold no secret.
	cluster, config := filepath.Join(elsewhere, "cluster.yaml"), filepath.Join(elsewhere, "remit.yaml")
	write(cluster, `
apiVersion: v1
kind: Secret
metadata: {name: stripe, namespace: shop}
stringData: {STRIPE_KEY: `+leaked+`}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: worker, namespace: shop, uid: u1}
`)
	if _, err := run(t, "scan", "--data-dir", dir, "--from", cluster, "--system", "shop", "--quiet"); err != nil {
		t.Fatal(err)
	}
	signals := newSender(t, dir, address, "--for", "signals")
	triggers := newSender(t, dir, address, "--for", "triggers")
	metrics := newSender(t, dir, address, "--for", "metrics")
	authority, err := run(t, "token", "authority", "--data-dir", dir)
	if err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(elsewhere, "authority.pem"), authority)
	write(filepath.Join(elsewhere, "self.token"), signals.token)
	write(filepath.Join(elsewhere, "hook"), "hook-secret\n")
	self := "https://" + address
	write(config, fmt.Sprintf(`
listen: {address: %[1]q}
signals:
- {name: self, issuer: %[2]q, audience: "https://self.example.com", systems: [shop], ca_file: authority.pem, push: true}
transmit:
  issuer: %[2]q
  receivers:
  - {name: self, audience: "https://self.example.com", endpoint: "%[2]s/v1/signals/self", token_file: self.token, ca_file: authority.pem}
leaks:
  github: {webhook_secret_file: hook, partner: true}
`, address, self))
	d := serving(t, "--data-dir", dir, "--config", config, "--no-watch")
	ask := func(as *sender, method, path, body string, headers ...string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), method, self+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+as.token)
		for i := 0; i+1 < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		w, err := as.client.Do(r)
		if err != nil {
			return 0, err.Error()
		}
		defer w.Body.Close()
		text, err := io.ReadAll(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		return w.StatusCode, string(text)
	}
	wait(t, "the transmitter's metadata", func() bool {
		status, text := ask(signals, http.MethodGet, ssf.WellKnown, "")
		return status == http.StatusOK && strings.Contains(text, `"issuer":"`+self+`"`)
	})

	const worker = `{"subject":"system:serviceaccount:shop:worker","reason":"seen in a dump"}`
	if status, text := ask(triggers, http.MethodPost, trigger.ReportPath, worker); status != http.StatusCreated || !strings.Contains(text, `"state":"open"`) {
		t.Errorf("report: %d %s", status, text)
	}
	if status, text := ask(signals, http.MethodPost, trigger.ReportPath, worker); status != http.StatusForbidden {
		t.Errorf("a report with a token for signals: %d %s", status, text)
	}
	if status, text := ask(triggers, http.MethodPost, trigger.ReportPath, `{"subject":"nobody","reason":"x"}`); status != http.StatusNotFound {
		t.Errorf("a report about nobody: %d %s", status, text)
	}

	const alert = `{"action":"created","alert":{"number":7,"secret_type":"stripe","html_url":"https://github.com/acme/web/security/secret-scanning/7"},"repository":{"full_name":"acme/web"}}`
	mac := hmac.New(sha256.New, []byte("hook-secret"))
	mac.Write([]byte(alert))
	if status, text := ask(triggers, http.MethodPost, trigger.GitHubHookPath, alert, "X-GitHub-Event", "secret_scanning_alert",
		"X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil))); status != http.StatusOK || !strings.Contains(text, `"leaks":1`) {
		t.Errorf("webhook: %d %s", status, text)
	}
	report := filepath.Join(elsewhere, "gitleaks.json")
	write(report, `[{"RuleID":"stripe","Secret":"`+leaked+`","File":"a.yaml","StartLine":1}]`)
	if out, err := run(t, "import", "leaks", "--data-dir", dir, report); err != nil || !strings.Contains(out, "1 of valid credentials") {
		t.Errorf("import while it serves: %s %v", out, err)
	}

	store, err := sqlstore.Open(t.Context(), filepath.Join(dir, "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	found, _, err := store.Identities(t.Context(), remit.Filter{Names: []string{"worker"}}, remit.PageRequest{})
	if err != nil || len(found) != 1 {
		t.Fatalf("%v %v", found, err)
	}
	// A token that was never seen in use is known by what it says of itself, and a
	// finding about it can be named.
	part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	jwt := part(`{"alg":"RS256"}`) + "." + part(fmt.Sprintf(`{"iss":"https://kubernetes.default.svc","sub":"system:serviceaccount:shop:worker","jti":"never-seen","exp":%d,"kubernetes.io":{"namespace":"shop","serviceaccount":{"name":"worker","uid":"u1"}}}`,
		time.Now().Add(time.Hour).Unix())) + "." + part(strings.Repeat("signature", 20))
	write(report, `[{"RuleID":"jwt","Secret":"`+jwt+`","File":"b.yaml","StartLine":1}]`)
	if out, err := run(t, "import", "leaks", "--data-dir", dir, report); err != nil || !strings.Contains(out, "1 of valid credentials") {
		t.Errorf("a token: %s %v", out, err)
	}
	ref := remit.Ref{Kind: "Credential", Name: "JTI=never-seen"}
	about := remit.FindingID(leak.Policy, remit.CredentialID(found[0].System, ref, ""))
	if status, text := ask(triggers, http.MethodPost, trigger.ReportPath, `{"subject":"`+string(about)+`","reason":"seen again"}`); status != http.StatusCreated || !strings.Contains(text, `"name":"JTI=never-seen"`) {
		t.Errorf("a report about the finding: %d %s", status, text)
	}

	made := time.Now().UTC()
	plan := remit.Response{
		ID: remit.ResponseID(found[0].ID, remit.Contain, made), System: found[0].System, Action: remit.Contain, AskedBy: "alice", Made: made, Changed: made,
		Subject: remit.Subject{Record: remit.KindIdentity, Ref: found[0].Ref, ID: found[0].ID}, State: remit.ResponseVerified,
		History: []remit.ResponseEvent{{Time: made, Actor: "remit", State: remit.ResponseVerified}},
	}
	if _, err := store.PutResponse(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	findings := func(policy string) int {
		all, _, err := store.Findings(t.Context(), remit.FindingFilter{Policies: []string{policy}, States: []remit.FindingState{remit.Open}}, remit.PageRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	wait(t, "the signal that Remit sent itself", func() bool { return findings("idp-session-revoked") == 1 })
	if findings("leaked-credential") != 2 || findings("reported") != 2 {
		t.Error("a finding is missing")
	}
	_, text := ask(metrics, http.MethodGet, "/metrics", "")
	for _, want := range []string{
		`remit_triggers_total{origin="signals self",outcome="finding"} 1`, `remit_triggers_total{origin="github",outcome="unmatched"} 1`,
		`remit_triggers_total{origin="client sender",outcome="finding"} 2`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	d.stop(t)
	if holds(t, dir, jwt) || holds(t, dir, leaked) || strings.Contains(d.out.String(), leaked) || holds(t, dir, signals.token) {
		t.Error("a secret is in the data directory or in the log")
	}
}
