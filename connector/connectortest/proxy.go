package connectortest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fault is one way for a network or a server to fail. It meets every so many-th
// request that matches, and never the repetition of one that it has met: a
// connector that tries again gets through.
type fault struct {
	every         int    // 1 is every request, repeated or not
	most          int    // requests to meet at most; 0 is no bound
	path          string // only requests whose path contains it
	onlyContinued bool   // only requests for a further page
	watches       bool   // only watches; without it never a watch

	status     int
	body       string
	retryAfter string
	cut        float64 // the part of the body after which the connection ends
	reset      bool
	hang       bool
}

// proxy stands between a connector and the real server.
type proxy struct {
	server *httptest.Server

	mu      sync.Mutex
	fault   *fault
	seen    int
	met     map[string]bool
	failed  map[string]time.Time
	waited  []time.Duration
	hit     int
	streams map[int]func() // ends the watches that go on
	next    int
	stop    chan struct{}
}

func newProxy(t testing.TB, server string, transport http.RoundTripper) *proxy {
	t.Helper()
	target, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{met: map[string]bool{}, failed: map[string]time.Time{}, streams: map[int]func(){}, stop: make(chan struct{})}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Header.Del("Accept-Encoding")
		},
		Transport:     transport,
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			if !errors.Is(err, context.Canceled) {
				http.Error(w, err.Error(), http.StatusBadGateway)
			}
		},
	}
	p.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, forward) }))
	t.Cleanup(p.close)
	return p
}

func (p *proxy) address() string { return p.server.URL }

func (p *proxy) close() {
	p.mu.Lock()
	select {
	case <-p.stop:
	default:
		close(p.stop)
	}
	p.mu.Unlock()
	p.cutStreams()
	p.server.CloseClientConnections()
	p.server.Close()
}

// set chooses how requests fail from now on; nil lets all of them through.
func (p *proxy) set(f *fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	p.seen = 0
	p.met = map[string]bool{}
}

func (p *proxy) hits() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hit
}

// waits are the times between a failure and the repetition of its request.
func (p *proxy) waits() []time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waited
}

// cutStreams ends all watches that go on.
func (p *proxy) cutStreams() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, end := range p.streams {
		end()
	}
}

// choose decides whether a request fails.
func (p *proxy) choose(r *http.Request) *fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := r.URL.Path + "?" + r.URL.RawQuery
	if at, ok := p.failed[key]; ok {
		p.waited = append(p.waited, time.Since(at))
		delete(p.failed, key)
	}
	f := p.fault
	if f == nil || !strings.Contains(r.URL.Path, f.path) || f.onlyContinued && !strings.Contains(r.URL.RawQuery, "continue=") || isWatch(r) != f.watches && f.path == "" {
		return nil
	}
	p.seen++
	if f.every > 1 && (p.met[key] || p.seen%f.every != 0) || f.most > 0 && p.hit >= f.most {
		return nil
	}
	p.met[key] = true
	p.failed[key] = time.Now()
	p.hit++
	return f
}

func isWatch(r *http.Request) bool {
	return r.URL.Query().Get("watch") == "true" || r.URL.Query().Get("watch") == "1"
}

func (p *proxy) serve(w http.ResponseWriter, r *http.Request, forward http.Handler) {
	f := p.choose(r)
	switch {
	case f == nil:
		if isWatch(r) {
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			p.mu.Lock()
			id := p.next
			p.next++
			p.streams[id] = cancel
			p.mu.Unlock()
			defer func() {
				p.mu.Lock()
				delete(p.streams, id)
				p.mu.Unlock()
			}()
			r = r.WithContext(ctx)
		}
		forward.ServeHTTP(w, r)
	case f.hang:
		select {
		case <-r.Context().Done():
		case <-p.stop:
		}
	case f.reset:
		reset(w)
	case f.cut > 0:
		recorded := httptest.NewRecorder()
		forward.ServeHTTP(recorded, r)
		body := recorded.Body.Bytes()
		for key, values := range recorded.Header() {
			w.Header()[key] = values
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(recorded.Code)
		_, _ = io.Copy(w, bytes.NewReader(body[:int(float64(len(body))*f.cut)])) // cut off anyway
		panic(http.ErrAbortHandler)
	default:
		if f.retryAfter != "" {
			w.Header().Set("Retry-After", f.retryAfter)
		}
		if strings.HasPrefix(f.body, "{") {
			w.Header().Set("Content-Type", "application/json")
		}
		w.WriteHeader(f.status)
		_, _ = io.WriteString(w, f.body) // the client may be gone
	}
}

// reset ends the connection without an answer.
func reset(w http.ResponseWriter) {
	h, ok := w.(http.Hijacker)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	conn, _, err := h.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // an RST instead of a FIN
	}
	_ = conn.Close()
}
