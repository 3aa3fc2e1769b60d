package authorize_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"remit"
	"remit/server/authorize"
	"remit/server/token"
	"remit/store/sqlstore"
)

// away is what checks tokens when the store is away.
type away struct{}

func (away) Check(context.Context, string, token.Scope) (token.Token, error) {
	return token.Token{}, remit.Errorf(remit.Unavailable, "", "the database is away")
}

// TestHandler lets in who has a token for the system that he asks for, and nobody
// else, and never answers what an API server would ask about again.
func TestHandler(t *testing.T) {
	ctx := t.Context()
	store, err := sqlstore.Open(ctx, filepath.Join(t.TempDir(), "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	tokens, err := token.New(store, make([]byte, 32), nil)
	if err != nil {
		t.Fatal(err)
	}
	secret := func(scope token.Scope, system string) string {
		t.Helper()
		s, _, err := tokens.Create(ctx, token.Request{Client: "api-server", Scope: scope, System: system})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	handler := &authorize.Handler{
		Tokens: token.NewCache(tokens), Answers: map[string]http.Handler{"prod": answer, "eu / prod": answer}, Log: slog.New(slog.DiscardHandler),
	}
	mux := http.NewServeMux()
	mux.Handle(authorize.Pattern, handler)
	server := httptest.NewServer(mux)
	defer server.Close()
	ask := func(method, path, bearer string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, method, server.URL+path, strings.NewReader("a review"))
		if err != nil {
			t.Fatal(err)
		}
		if bearer != "" {
			r.Header.Set("Authorization", "Bearer "+bearer)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.Header.Get("Retry-After") != "" || bearer != "" && strings.Contains(string(body), bearer) {
			t.Errorf("%s %s: %v, %v, %s", method, path, err, resp.Header, body)
		}
		return resp.StatusCode, string(body)
	}
	prod, all := secret(token.Authorize, "prod"), secret(token.Authorize, "")
	for name, c := range map[string]struct {
		method, path, bearer string
		want                 int
	}{
		"its own":          {"POST", authorize.Path("prod"), prod, 200},
		"any":              {"POST", authorize.Path("prod"), all, 200},
		"an odd name":      {"POST", authorize.Path("eu / prod"), all, 200},
		"no token":         {"POST", authorize.Path("prod"), "", 401},
		"an unknown token": {"POST", authorize.Path("prod"), prod + "x", 401},
		"another scope":    {"POST", authorize.Path("prod"), secret(token.SendEvents, "prod"), 403},
		"another system":   {"POST", authorize.Path("prod"), secret(token.Authorize, "staging"), 403},
		"not answered for": {"POST", authorize.Path("staging"), all, 404},
		"another method":   {"GET", authorize.Path("prod"), prod, 405},
	} {
		got, body := ask(c.method, c.path, c.bearer)
		if got != c.want || (got == 200) != (body == "a review") {
			t.Errorf("%s: %d %s", name, got, body)
		}
	}
	handler.Tokens = away{}
	if got, body := ask("POST", authorize.Path("prod"), prod); got != 503 || strings.Contains(body, "database") {
		t.Errorf("%d %s", got, body)
	}
}
