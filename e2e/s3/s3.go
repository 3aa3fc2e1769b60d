//go:build unix

// Package s3 starts a real S3 server for tests, on loopback, over a temporary
// directory: the Versity S3 gateway, which e2e/versitygw pins.
package s3

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	"remit/e2e/process"
)

// startLimit bounds a start, which takes less than a second on an idle machine.
const startLimit = time.Minute

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
	group, err := process.NewGroup("remit-s3")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := group.Close(); err != nil {
			t.Errorf("the S3 server of this test: %v", err)
		}
	})
	ctx, cancel := context.WithTimeoutCause(t.Context(), startLimit, fmt.Errorf("the S3 server did not start within %v", startLimit))
	defer cancel()
	s, err := start(ctx, binary, group)
	if err != nil {
		t.Fatalf("start an S3 server: %v", err)
	}
	return s
}

// start starts the server on a free port, and on another one if some process
// takes that port first.
func start(ctx context.Context, binary string, group *process.Group) (*Server, error) {
	for _, dir := range []string{"data", "attributes"} {
		if err := os.Mkdir(group.Path(dir), 0o700); err != nil {
			return nil, err
		}
	}
	s := &Server{AccessKey: rand.Text(), SecretKey: rand.Text()}
	for attempt := 1; ; attempt++ {
		port, err := process.FreePort()
		if err != nil {
			return nil, err
		}
		address := "127.0.0.1:" + strconv.Itoa(port)
		s.URL = "http://" + address
		p, err := group.Start(process.Command{
			Name: "versitygw-" + strconv.Itoa(attempt), Path: binary,
			// Attributes of objects lie beside them: not every file system of a
			// temporary directory has them.
			Args: []string{"--port", address, "--quiet", "posix", "--sidecar", group.Path("attributes"), group.Path("data")},
			Env:  []string{"ROOT_ACCESS_KEY=" + s.AccessKey, "ROOT_SECRET_KEY=" + s.SecretKey, "HOME=" + group.Dir()},
		})
		if err != nil {
			return nil, err
		}
		err = p.Wait(ctx, s.answers)
		if err == nil || attempt == 5 || !p.LogContains("address already in use") {
			return s, err
		}
		p.Kill() // it has ended: that is no error any more
	}
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
