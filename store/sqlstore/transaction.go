package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"

	"remit"
)

// tx is one writing transaction. It is not safe for concurrent use.
type tx struct {
	engine
	conn  *sql.Conn
	stmts map[string]*sql.Stmt // prepared on conn; nil where the driver keeps them itself
}

// writeAttempts is how often a transaction is run that the engine refuses for
// the sake of another one.
const writeAttempts = 5

// write runs f in a transaction, again when the engine asks for that, and
// commits it. When write returns nil the transaction is on disk.
func (s *Store) write(ctx context.Context, op string, f func(*tx) error) error {
	for attempt := 1; ; attempt++ {
		err := s.writeOnce(ctx, f)
		if err == nil {
			return nil
		}
		if attempt < writeAttempts && s.engine.retry(err) && ctx.Err() == nil {
			continue
		}
		return s.fail(op, err)
	}
}

func (s *Store) writeOnce(ctx context.Context, f func(*tx) error) (err error) {
	t, release, err := s.writer(ctx)
	if err != nil {
		return err
	}
	broken := false
	defer func() { release(broken) }()
	if _, err := t.conn.ExecContext(ctx, t.begin()); err != nil {
		broken = true // it may have begun before the caller went away
		return err
	}
	// A caller that goes away must not leave the connection in a
	// transaction, nor tear a commit that is under way.
	quiet := context.WithoutCancel(ctx)
	done := false
	defer func() {
		if !done { // an error or a panic
			if _, rollback := t.conn.ExecContext(quiet, "ROLLBACK"); rollback != nil {
				broken = true
			}
		}
	}()
	if err := f(t); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := t.conn.ExecContext(quiet, "COMMIT"); err != nil {
		return err
	}
	done = true
	return nil
}

// writer gives the connection to write with. SQLite has one, kept with its
// prepared statements and used by one caller at a time, which makes writers
// wait here, in order, and not in the engine's busy loop; PostgreSQL takes any
// from the pool, where the driver keeps prepared statements by itself.
func (s *Store) writer(ctx context.Context) (*tx, func(broken bool), error) {
	if s.single == nil {
		conn, err := s.db.Conn(ctx)
		if err != nil {
			return nil, nil, err
		}
		return &tx{engine: s.engine, conn: conn}, func(broken bool) {
			if broken {
				discard(conn)
			}
			_ = conn.Close()
		}, nil
	}
	select {
	case t := <-s.single:
		if t.conn == nil {
			conn, err := s.db.Conn(ctx)
			if err != nil {
				s.single <- t
				return nil, nil, err
			}
			t.conn, t.stmts = conn, make(map[string]*sql.Stmt)
		}
		return t, func(broken bool) {
			if broken {
				for _, stmt := range t.stmts {
					_ = stmt.Close()
				}
				discard(t.conn)
				_ = t.conn.Close()
				t.conn = nil
			}
			s.single <- t
		}, nil
	case <-s.closed:
		return nil, nil, errClosed
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

var errClosed = remit.Errorf(remit.Unavailable, "", "the store is closed")

// discard makes the pool forget a connection whose state is not known.
func discard(conn *sql.Conn) {
	_ = conn.Raw(func(any) error { return driver.ErrBadConn })
}

// stmt returns the statement prepared, or nil where the driver does that.
func (t *tx) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	if t.stmts == nil {
		return nil, nil
	}
	if s := t.stmts[query]; s != nil {
		return s, nil
	}
	s, err := t.conn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	t.stmts[query] = s
	return s, nil
}

func (t *tx) exec(ctx context.Context, query string, args ...any) error {
	query = t.rebind(query)
	s, err := t.stmt(ctx, query)
	if err != nil {
		return err
	}
	if s == nil {
		_, err = t.conn.ExecContext(ctx, query, args...)
	} else {
		_, err = s.ExecContext(ctx, args...)
	}
	return err
}

// query calls scan with each row of the answer.
func (t *tx) query(ctx context.Context, query string, args []any, scan func(*sql.Rows) error) error {
	query = t.rebind(query)
	s, err := t.stmt(ctx, query)
	if err != nil {
		return err
	}
	var rows *sql.Rows
	if s == nil {
		rows, err = t.conn.QueryContext(ctx, query, args...)
	} else {
		rows, err = s.QueryContext(ctx, args...)
	}
	if err != nil {
		return err
	}
	return eachRow(rows, scan)
}

// eachRow calls scan with each row and closes the rows.
func eachRow(rows *sql.Rows, scan func(*sql.Rows) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// read runs f on one state of the store, however much is written meanwhile.
func (s *Store) read(ctx context.Context, op string, f func(*reader) error) error {
	t, err := s.readers.BeginTx(ctx, s.engine.snapshot())
	if err != nil {
		return s.fail(op, err)
	}
	defer t.Rollback() //nolint:errcheck // nothing was written
	if err := f(&reader{s.engine, t}); err != nil {
		return s.fail(op, err)
	}
	return nil
}

// reader is one reading transaction.
type reader struct {
	engine
	tx *sql.Tx
}

func (r *reader) query(ctx context.Context, query string, args []any, scan func(*sql.Rows) error) error {
	rows, err := r.tx.QueryContext(ctx, r.rebind(query), args...)
	if err != nil {
		return err
	}
	return eachRow(rows, scan)
}

// fail gives an error its operation. What is an [remit.Error] already keeps its
// kind; what the engine says is translated.
func (s *Store) fail(op string, err error) error {
	var known *remit.Error
	if errors.As(err, &known) {
		if known.Op == op {
			return err
		}
		return &remit.Error{Kind: known.Kind, Op: op, Err: err}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return remit.Errorf(remit.Unavailable, op, "stopped before it was done: %w", err)
	}
	return s.engine.failure(op, err)
}
