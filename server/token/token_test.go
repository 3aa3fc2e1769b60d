package token_test

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"remit"
	"remit/server/token"
	"remit/store/sqlstore"
)

// opened are tokens on a store of their own, with a clock that the test moves.
func opened(t *testing.T) (*token.Tokens, *sqlstore.Store, *time.Time) {
	t.Helper()
	store, err := sqlstore.Open(t.Context(), filepath.Join(t.TempDir(), "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	now := time.Date(2026, 11, 25, 10, 30, 0, 0, time.UTC)
	tokens, err := token.New(store, bytes.Repeat([]byte{7}, 32), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	return tokens, store, &now
}

func TestToken(t *testing.T) {
	ctx := t.Context()
	tokens, store, now := opened(t)
	secret, made, err := tokens.Create(ctx, token.Request{Client: "prod-audit", Scope: token.SendEvents, System: "prod", Source: "kubernetes", Owner: "platform", Lifetime: 48 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	check := func(secret string, scope token.Scope, want remit.ErrorKind) token.Token {
		t.Helper()
		got, err := tokens.Check(ctx, secret, scope)
		if remit.KindOf(err) != want {
			t.Errorf("%v, not %q", err, want)
		}
		if err != nil && strings.Contains(err.Error(), secret) && secret != "" {
			t.Errorf("the error tells the token: %v", err)
		}
		return got
	}
	if got := check(secret, token.SendEvents, ""); got.Client != "prod-audit" || got.System != "prod" || got.Source != "kubernetes" || got.ID != made.ID {
		t.Errorf("%+v", got)
	}
	check(secret, token.ReadMetrics, remit.Forbidden)
	check(secret+"x", token.SendEvents, remit.Unauthorized)
	check(strings.TrimPrefix(secret, token.Prefix), token.SendEvents, remit.Unauthorized)
	check("", token.SendEvents, remit.Unauthorized)
	check(token.Prefix+strings.Repeat("a", 1<<20), token.SendEvents, remit.Unauthorized)

	// Remit governs itself: the token is in the inventory, and its secret is not.
	credentials, _, err := store.Credentials(ctx, remit.Filter{System: tokens.System()}, remit.PageRequest{})
	if err != nil || len(credentials) != 1 {
		t.Fatalf("%d credentials, %v", len(credentials), err)
	}
	c := credentials[0]
	if c.Fingerprint == "" || strings.Contains(c.Fingerprint, secret) || !c.Expires.Equal(now.Add(48*time.Hour)) || !c.LastUsed.Equal(now.Truncate(time.Hour)) {
		t.Errorf("%+v", c)
	}
	identities, _, err := store.Identities(ctx, remit.Filter{System: tokens.System()}, remit.PageRequest{})
	if err != nil || len(identities) != 1 || len(identities[0].Owners) != 1 || identities[0].Type != remit.Application {
		t.Fatalf("%+v, %v", identities, err)
	}

	// A second token of the client, and the end of the first.
	second, _, err := tokens.Create(ctx, token.Request{Client: "prod-audit", Scope: token.SendEvents})
	if err != nil {
		t.Fatal(err)
	}
	*now = now.Add(48 * time.Hour)
	check(secret, token.SendEvents, remit.Unauthorized)
	check(second, token.SendEvents, "")
	if _, err := tokens.Revoke(ctx, "nobody"); remit.KindOf(err) != remit.NotFound {
		t.Errorf("revoked nobody: %v", err)
	}
	if ended, err := tokens.Revoke(ctx, "prod-audit"); err != nil || len(ended) != 2 {
		t.Errorf("%d ended, %v", len(ended), err)
	}
	check(second, token.SendEvents, remit.Unauthorized)
	all, err := tokens.List(ctx)
	if err != nil || len(all) != 2 || all[0].Status != remit.Revoked {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestAnotherInstallation holds that a token opens no other installation, even
// on the same store.
func TestAnotherInstallation(t *testing.T) {
	tokens, store, _ := opened(t)
	secret, _, err := tokens.Create(t.Context(), token.Request{Client: "a", Scope: token.SendEvents})
	if err != nil {
		t.Fatal(err)
	}
	other, err := token.New(store, bytes.Repeat([]byte{8}, 32), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Check(context.Background(), secret, token.SendEvents); remit.KindOf(err) != remit.Unauthorized {
		t.Errorf("%v", err)
	}
}

func TestRefusedRequests(t *testing.T) {
	tokens, _, _ := opened(t)
	for name, r := range map[string]token.Request{
		"no name":     {Scope: token.SendEvents},
		"hostile":     {Client: "a\x1b[31m", Scope: token.SendEvents},
		"path":        {Client: "../a", Scope: token.SendEvents},
		"no scope":    {Client: "a"},
		"other scope": {Client: "a", Scope: "admin"},
		"for ever":    {Client: "a", Scope: token.SendEvents, Lifetime: 10 * 365 * 24 * time.Hour},
	} {
		if _, _, err := tokens.Create(t.Context(), r); remit.KindOf(err) != remit.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
