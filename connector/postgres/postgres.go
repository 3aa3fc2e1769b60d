// Package postgres rotates the passwords of a PostgreSQL server's roles.
//
// A role has one password, and to change it would end the old one before anybody
// has the new. So each rotation makes a login role of its own, a member of the role
// whose password it was: its sessions act as that role from their first statement
// on, own what that role owns and have its settings. What ends is the login, while
// the role itself stays, with all that it owns and may do.
package postgres

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"remit"
)

// Name is the name of this connector: the first part of its systems' identity.
const Name = "postgres"

const (
	// ownName is the application_name of Remit's own sessions, which do not count
	// as use of a credential.
	ownName = "remit"

	connectTimeout = 10 * time.Second
	requestTimeout = 30 * time.Second
)

// Server is one PostgreSQL server, 14 or later. It is safe for concurrent use: each
// call makes a connection of its own.
//
// Its login needs CREATEROLE and, from PostgreSQL 16 on, the ADMIN option on the
// roles whose passwords it rotates. A superuser may do so as well; only that can be
// the destination of another system's secret.
type Server struct {
	urlFile string
	now     func() time.Time
}

// Config says which server it is.
type Config struct {
	// URLFile is a file with the connection URL or string of the login with which
	// Remit changes roles. It is read for every connection.
	URLFile string

	Now func() time.Time // nil is [time.Now]
}

// Open returns the server. It makes no connection.
func Open(cfg Config) (*Server, error) {
	s := &Server{urlFile: cfg.URLFile, now: cfg.Now}
	if s.now == nil {
		s.now = time.Now
	}
	_, err := s.config()
	return s, err
}

// config reads how to connect. Its errors hold nothing of the file's text.
func (s *Server) config() (*pgx.ConnConfig, error) {
	const op = "open postgres"
	if s.urlFile == "" {
		return nil, remit.Errorf(remit.Invalid, op, "no file with the connection URL is named: set enforce.url_file of the system")
	}
	text, err := os.ReadFile(s.urlFile)
	if err != nil {
		return nil, remit.Errorf(remit.Invalid, op, "%w", err)
	}
	c, err := pgx.ParseConfig(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, remit.Errorf(remit.Invalid, op, "%s does not hold a PostgreSQL URL, as postgres://user:password@host/database", s.urlFile)
	}
	c.ConnectTimeout = connectTimeout
	c.RuntimeParams["application_name"] = ownName
	return c, nil
}

// with calls f with a connection.
func (s *Server) with(ctx context.Context, op string, f func(context.Context, *pgx.Conn) error) error {
	c, err := s.config()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return explain(op, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return explain(op, f(ctx, conn))
}

// inTx calls f in a transaction.
func (s *Server) inTx(ctx context.Context, op string, f func(context.Context, pgx.Tx) error) error {
	return s.with(ctx, op, func(ctx context.Context, conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return f(ctx, tx) })
	})
}

// exec runs a statement into which the server itself puts names (%I) and texts
// (%L): those of statements about roles cannot be parameters.
func exec(ctx context.Context, tx pgx.Tx, format string, args ...string) error {
	var statement string
	if err := tx.QueryRow(ctx, "SELECT format($1, VARIADIC $2::text[])", format, args).Scan(&statement); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, statement)
	return err
}

// explain turns a failure into an error of the contract. A statement is never part
// of it.
// Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
func explain(op string, err error) error {
	var known *remit.Error
	var pg *pgconn.PgError
	var network net.Error
	var connecting *pgconn.ConnectError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &pg):
		kind := remit.Unavailable
		switch {
		case pg.Code == "42704", pg.Code == "3D000": // no such object, no such database
			kind = remit.NotFound
		case pg.Code == "42710": // there is one already
			kind = remit.Conflict
		case pg.Code == "42501": // insufficient privilege
			kind = remit.Forbidden
		case strings.HasPrefix(pg.Code, "28"): // authorization
			kind = remit.Unauthorized
		case strings.HasPrefix(pg.Code, "0A"), strings.HasPrefix(pg.Code, "42"), strings.HasPrefix(pg.Code, "22"):
			kind = remit.Unsupported
		}
		return remit.Errorf(kind, op, "the server answers: %s (%s)", pg.Message, pg.Code)
	case errors.As(err, &connecting), errors.As(err, &network), errors.Is(err, context.DeadlineExceeded):
		return remit.Errorf(remit.Unavailable, op, "the server cannot be reached: %w", err)
	}
	return remit.Errorf(remit.Unavailable, op, "%w", err)
}
