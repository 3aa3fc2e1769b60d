//go:build unix

// Package openbao starts a real OpenBao server for tests, on loopback, in memory:
// the one that e2e/bao pins.
package openbao

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"

	"remit/e2e/build"
	"remit/e2e/process"
)

// Server is a running server, unsealed, with a KV engine of version 2 at secret/.
type Server struct {
	URL   string
	Token string // the root token
	Log   string // the path of the file of its audit device "file"
}

// Build returns the path of the server that e2e/bao pins, and builds it first if
// that was not done yet.
func Build(ctx context.Context, logf func(format string, args ...any)) (string, error) {
	return build.Program{
		Module: "bao", Package: "github.com/openbao/openbao", Title: "the OpenBao server",
		// The checksum database lacks some of its modules; go.sum has them all.
		Env: []string{"GONOSUMDB=github.com/openbao/*"},
	}.Build(ctx, logf)
}

// Start starts a server that ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	binary, err := Build(t.Context(), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Token: rand.Text()}
	process.Serve(t, "openbao", func(g *process.Group, address string) process.Command {
		s.URL, s.Log = "http://"+address, g.Path("audit.log")
		config := g.Path("config.hcl")
		text := fmt.Sprintf("audit \"file\" \"file\" {\n  options = {\n    file_path = %q\n  }\n}\n", s.Log)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return process.Command{
			Path: binary,
			Args: []string{"server", "-dev", "-dev-no-store-token", "-dev-listen-address=" + address, "-config=" + config},
			Env:  []string{"BAO_DEV_ROOT_TOKEN_ID=" + s.Token, "HOME=" + g.Dir()},
		}
	}, func(ctx context.Context) error {
		_, err := s.Do(ctx, s.Token, "GET", "auth/token/lookup-self", nil)
		return err
	})
	return s
}

// Do sends a request with a token, and returns the answer.
func (s *Server) Do(ctx context.Context, token, method, path string, body any) (map[string]any, error) {
	content, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, method, s.URL+"/v1/"+path, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	r.Header.Set("X-Vault-Token", token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(text))
	}
	var answer map[string]any
	if len(text) > 0 {
		err = json.Unmarshal(text, &answer)
	}
	return answer, errors.Join(err)
}
