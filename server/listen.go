package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"remit"
)

// The bounds of a connection. A body of the largest size needs time on a slow
// line, but a sender who sends nothing must not hold a connection.
const (
	headerTimeout = 10 * time.Second
	bodyTimeout   = 2 * time.Minute
	idleTimeout   = 2 * time.Minute
	maxHeader     = 32 << 10
	drainTimeout  = 10 * time.Second
)

// Listen opens a TCP address for TLS 1.2 and later. [remit.Unavailable] when it
// cannot be had.
func Listen(address string, certificates *Certificates) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, remit.Errorf(remit.Unavailable, "listen", "%w", err)
	}
	return tls.NewListener(l, &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: certificates.Get, NextProtos: []string{"h2", "http/1.1"},
	}), nil
}

// Serve answers requests until ctx ends, and then finishes those that have begun.
func Serve(ctx context.Context, l net.Listener, handler http.Handler, log *slog.Logger) error {
	s := &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: bodyTimeout, WriteTimeout: bodyTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), // strangers' handshakes
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	select {
	case err := <-ended:
		return remit.Errorf(remit.Unavailable, "serve requests", "%w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := s.Shutdown(drain); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return remit.Errorf(remit.Unavailable, "serve requests", "%w", err)
	}
	return ctx.Err()
}
