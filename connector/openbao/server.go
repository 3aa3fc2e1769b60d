package openbao

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"remit"
)

// Name is the name of this connector: the first part of its systems' identity.
const Name = "openbao"

const (
	requestTimeout = 30 * time.Second
	maxAnswer      = 16 << 20
)

// Server is one OpenBao or Vault server, over its HTTP API. It is safe for
// concurrent use.
type Server struct {
	cfg  Config
	base *url.URL
	http *http.Client
}

// Config says which server it is, and how to sign in.
type Config struct {
	// Address is its URL, https but for this machine's own addresses.
	Address string

	// TokenFile is a file with the token with which Remit makes and ends tokens,
	// or writes secrets. It is read at every request.
	TokenFile string

	CAFile    string // certificates of its authority, PEM; "" for those of the system
	Namespace string // "" for the root
}

// Open returns the server. It makes no request.
func Open(cfg Config) (*Server, error) {
	const op = "open openbao"
	base, err := url.Parse(cfg.Address)
	if err != nil || base.Host == "" || base.Scheme != "https" && base.Scheme != "http" || base.User != nil || base.RawQuery != "" {
		return nil, remit.Errorf(remit.Invalid, op, "%q is no address of a server: write https://HOST:8200", cfg.Address)
	}
	if ip := net.ParseIP(base.Hostname()); base.Scheme == "http" && base.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, remit.Errorf(remit.Invalid, op, "%q would send secrets in the clear: use https", cfg.Address)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if cfg.CAFile != "" {
		text, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, remit.Errorf(remit.Invalid, op, "%w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return nil, remit.Errorf(remit.Invalid, op, "%s holds no certificate in PEM", cfg.CAFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &Server{cfg: cfg, base: base, http: &http.Client{
		Transport: transport,
		// A redirect would take the token to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// do sends a request. What it answers is read into a value, unless that is nil.
// Source: https://openbao.org/api-docs/
func (s *Server) do(ctx context.Context, op, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	token, err := os.ReadFile(s.cfg.TokenFile)
	if err != nil {
		return remit.Errorf(remit.Invalid, op, "%w", err)
	}
	var content []byte
	if body != nil {
		if content, err = json.Marshal(body); err != nil {
			return remit.Errorf(remit.Internal, op, "%w", err)
		}
		defer clear(content)
	}
	name, query, _ := strings.Cut(path, "?")
	u := s.base.JoinPath("v1", name)
	u.RawQuery = query
	r, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(content))
	if err != nil {
		return remit.Errorf(remit.Invalid, op, "%w", err)
	}
	r.Header.Set("X-Vault-Token", strings.TrimSpace(string(token)))
	r.Header.Set("X-Vault-Request", "true")
	if s.cfg.Namespace != "" {
		r.Header.Set("X-Vault-Namespace", s.cfg.Namespace)
	}
	if method == http.MethodPatch {
		r.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := s.http.Do(r)
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return err
		}
		return remit.Errorf(remit.Unavailable, op, "%s cannot be reached: %w", s.base.Host, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	defer clear(answer)
	if err != nil {
		return remit.Errorf(remit.Unavailable, op, "%s: %w", s.base.Host, err)
	}
	if resp.StatusCode >= 300 {
		return explain(op, s.base.Host, resp.StatusCode, answer)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return remit.Errorf(remit.Unavailable, op, "what %s answers cannot be read", s.base.Host)
	}
	return nil
}

// explain turns an answer into an error of the contract.
// Source: https://openbao.org/api-docs/#http-status-codes
func explain(op, host string, status int, answer []byte) error {
	var body struct {
		Errors []string `json:"errors"`
	}
	_ = json.Unmarshal(answer, &body) // a proxy's page has none
	const longest = 300
	text := strings.TrimSpace(strings.Join(body.Errors, "; "))
	text = cmp.Or(text[:min(len(text), longest)], http.StatusText(status))
	kind := remit.Unavailable
	switch {
	case status == http.StatusForbidden:
		return remit.Errorf(remit.Forbidden, op, "%s does not let Remit's token do that, or does not know it: %s", host, text)
	case status == http.StatusNotFound:
		kind = remit.NotFound
	case status == http.StatusTooManyRequests || status >= 500:
	case status < 400:
		return remit.Errorf(remit.Unavailable, op, "%s sends Remit elsewhere (%d): name the active server itself as the address", host, status)
	default:
		kind = remit.Unsupported
	}
	return remit.Errorf(kind, op, "%s answers: %s", host, text)
}

// escape is a path of segments.
func escape(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/")
}

// data is the envelope of most answers.
type data[T any] struct {
	Data T `json:"data"`
}
