//go:build unix

// Package s3 starts a real S3 server for tests, on loopback, over a temporary
// directory: the Versity S3 gateway, which e2e/versitygw pins.
package s3

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"os"
	"testing"

	"remit/e2e/process"
)

// Server is a running server without buckets. Whoever has the keys may do
// everything.
type Server struct {
	URL, AccessKey, SecretKey string
}

// Start starts a server that ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	binary, err := Build(t.Context(), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{AccessKey: rand.Text(), SecretKey: rand.Text()}
	process.Serve(t, "versitygw", func(g *process.Group, address string) process.Command {
		s.URL = "http://" + address
		for _, dir := range []string{"data", "attributes"} {
			if err := os.MkdirAll(g.Path(dir), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		return process.Command{
			Path: binary,
			// Attributes of objects lie beside them: not every file system of a
			// temporary directory has them.
			Args: []string{"--port", address, "--quiet", "posix", "--sidecar", g.Path("attributes"), g.Path("data")},
			Env:  []string{"ROOT_ACCESS_KEY=" + s.AccessKey, "ROOT_SECRET_KEY=" + s.SecretKey, "HOME=" + g.Dir()},
		}
	}, s.answers)
	return s
}

// answers asks without a login, which the server refuses as S3 does.
func (s *Server) answers(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		return errors.New("answered " + response.Status)
	}
	return nil
}
