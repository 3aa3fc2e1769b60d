//go:build unix

package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"remit"
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
		wait(t, time.Minute, "the server", func() bool { return push(t.Context(), tokens[0]) == http.StatusAccepted })
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
