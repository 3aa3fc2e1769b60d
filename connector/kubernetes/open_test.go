package kubernetes

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"remit"
)

// A kubeconfig that cannot be used is named, with its context and what to do.
func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const good = `
apiVersion: v1
kind: Config
clusters: [{name: c1, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u1, user: {token: t}}]
contexts: [{name: one, context: {cluster: c1, user: u1}}, {name: nocluster, context: {cluster: gone, user: u1}}, {name: nouser, context: {cluster: c1, user: gone}}]
`
	config := write("good", good)
	t.Setenv("HOME", dir)
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for name, test := range map[string]struct {
		cfg  Config
		want []string
	}{
		"no file":         {Config{Kubeconfig: filepath.Join(dir, "nothing")}, []string{"nothing", "--kubeconfig"}},
		"half a file":     {Config{Kubeconfig: write("half", "apiVersion: v1\nclusters: [{name: ")}, []string{"half", "cannot be read"}},
		"no such context": {Config{Kubeconfig: config, Context: "two"}, []string{"good", `"two"`, "one"}},
		"no current":      {Config{Kubeconfig: config}, []string{"good", "--context", "one"}},
		"bad current":     {Config{Kubeconfig: write("bad", good+"current-context: zero\n")}, []string{"bad", `"zero"`}},
		"no cluster":      {Config{Kubeconfig: config, Context: "nocluster"}, []string{"nocluster", `"gone"`}},
		"no user":         {Config{Kubeconfig: config, Context: "nouser"}, []string{"nouser", `"gone"`}},
		"bad data":        {Config{Kubeconfig: write("data", strings.Replace(good, "token: t", "client-certificate: missing.pem", 1)), Context: "one"}, []string{"one", "missing.pem"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(test.cfg)
			if remit.KindOf(err) != remit.Invalid {
				t.Fatalf("%v (%s)", err, remit.KindOf(err))
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}

	t.Setenv("KUBECONFIG", filepath.Join(dir, "unset"))
	if _, err := Open(Config{}); remit.KindOf(err) != remit.Invalid || !strings.Contains(err.Error(), "--from") {
		t.Errorf("without any kubeconfig: %v", err)
	}
	t.Setenv("KUBECONFIG", strings.Join([]string{filepath.Join(dir, "unset"), config}, string(filepath.ListSeparator)))
	c, err := Open(Config{Context: "one"})
	if err != nil {
		t.Fatal(err)
	}
	if c.name != "c1" {
		t.Errorf("the system is called %q, want the context's cluster", c.name)
	}
}

// What keeps the connector from a server is told apart.
func TestConnectErrors(t *testing.T) {
	quick := retryPolicy{attempts: 2, base: time.Millisecond, cap: time.Millisecond}
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	failing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }))
	defer failing.Close()
	for name, test := range map[string]struct {
		config *rest.Config
		kind   remit.ErrorKind
		want   string
	}{
		"nobody there":    {&rest.Config{Host: "https://127.0.0.1:1"}, remit.Unavailable, "does not answer"},
		"unknown name":    {&rest.Config{Host: "https://nothing.invalid"}, remit.Unavailable, "nothing.invalid"},
		"foreign CA":      {&rest.Config{Host: secure.URL}, remit.Unavailable, "cannot be trusted"},
		"no TLS":          {&rest.Config{Host: strings.Replace(plain.URL, "http:", "https:", 1)}, remit.Unavailable, "does not speak TLS"},
		"a broken server": {&rest.Config{Host: failing.URL}, remit.Unavailable, "failure of its own"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := OpenRESTConfig(test.config, Config{retry: quick})
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.System(t.Context())
			if remit.KindOf(err) != test.kind || !strings.Contains(fmt.Sprint(err), test.want) {
				t.Errorf("%v (%s), want %s that says %q", err, remit.KindOf(err), test.kind, test.want)
			}
		})
	}
}

func TestRetryDelay(t *testing.T) {
	p := retryPolicy{attempts: 3, base: time.Second, cap: 10 * time.Second, longest: time.Minute}
	for range 100 {
		if d := p.delay(1, 0); d < time.Second/2 || d > time.Second {
			t.Fatalf("first delay %v", d)
		}
		if d := p.delay(60, 0); d < 5*time.Second || d > 10*time.Second {
			t.Fatalf("late delay %v", d)
		}
		if d := p.delay(1, 30*time.Second); d < 30*time.Second {
			t.Fatalf("the server asked for 30 s and was given %v", d)
		}
		if d := p.delay(1, time.Hour); d > time.Minute {
			t.Fatalf("the server asked for an hour and was given %v", d)
		}
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "5": 5 * time.Second, "-1": 0, "soon": 0, "99999999": time.Hour, "Thu, 01 Jan 2026 00:00:07 GMT": 7 * time.Second, "Wed, 31 Dec 2025 00:00:00 GMT": -24 * time.Hour,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("%q: %v, want %v", header, got, want)
		}
	}
}
