package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"

	"remit"
)

// Store is an open store. It is safe for concurrent use, and other processes
// may have the same store open.
type Store struct {
	engine  engine
	db      *sql.DB // to write with
	readers *sql.DB // to read with; the same as db in PostgreSQL
	single  chan *tx
	closed  chan struct{}
	close   sync.Once
	where   string
}

var (
	_ remit.InventoryWriter = (*Store)(nil)
	_ remit.InventoryReader = (*Store)(nil)
	_ remit.FindingStore    = (*Store)(nil)
	_ remit.ActivityWriter  = (*Store)(nil)
	_ remit.ActivityReader  = (*Store)(nil)
	_ remit.ResponseStore   = (*Store)(nil)
)

// Open opens a store, makes it when there is none, and brings its schema to the
// version of this binary. url is a path or "sqlite:///path/remit.db" for
// SQLite, or "postgres://user@host/database" for PostgreSQL. Several processes
// may open one store at the same moment.
//
// [remit.Invalid] when url names no engine or a path that cannot be one,
// [remit.Forbidden] when the directory, the file or the database refuses,
// [remit.Unauthorized] for a wrong user or password, [remit.NotFound] when the
// PostgreSQL database does not exist, [remit.Conflict] when the schema is newer
// than the binary, [remit.Unavailable] when the server does not answer or
// another process keeps the file locked.
func Open(ctx context.Context, url string) (*Store, error) {
	const op = "open store"
	scheme, rest, found := strings.Cut(url, "://")
	switch {
	case url == "":
		return nil, remit.Errorf(remit.Invalid, op, "no store is named: give a path, or postgres://user@host/database")
	case !found:
		return openSQLite(ctx, strings.TrimPrefix(url, "sqlite:"))
	case scheme == "sqlite":
		return openSQLite(ctx, rest)
	case scheme == "postgres", scheme == "postgresql":
		return openPostgres(ctx, url)
	}
	return nil, remit.Errorf(remit.Invalid, op, "no engine %q: use a path, sqlite:///path/remit.db, or postgres://user@host/database", scheme)
}

// Close ends the store's connections; what runs fails as unavailable. Closing
// again does nothing.
func (s *Store) Close() error {
	var err error
	s.close.Do(func() {
		close(s.closed)
		if s.single != nil {
			t := <-s.single // after the writer that has it
			for _, stmt := range t.stmts {
				_ = stmt.Close()
			}
			if t.conn != nil {
				_ = t.conn.Close()
			}
		}
		err = s.readers.Close()
		if s.db != s.readers {
			err = errors.Join(err, s.db.Close())
		}
	})
	return err
}

// String names the store without its password.
func (s *Store) String() string { return s.where }
