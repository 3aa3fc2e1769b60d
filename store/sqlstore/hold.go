package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"hash/fnv"
	"strconv"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"remit"
)

// HoldResponse keeps everybody else from holding a response; see
// [remit.ResponseStore]. What holds is a lock of the engine, which ends with its
// process: PostgreSQL's advisory lock of a session, SQLite's of a file beside
// the database.
func (s *Store) HoldResponse(ctx context.Context, id remit.ID) (release func(), err error) {
	const op = "hold response"
	if id.Kind() != remit.KindResponse || !plainID(id) {
		return nil, remit.Errorf(remit.Invalid, op, "%q is not the ID of a response", string(id))
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(id)) // never fails (hash.Hash)
	release, err = s.engine.hold(ctx, s.db, h.Sum64())
	if err != nil {
		return nil, s.fail(op, err)
	}
	if release == nil {
		return nil, remit.Errorf(remit.Conflict, op, "another holds response %s", id)
	}
	return release, nil
}

// holdFiles is how many files SQLite's locks are spread over. Two responses that
// share one cannot be held at the same time, and whoever finds one held tries
// again.
const holdFiles = 64

func (e sqliteEngine) hold(ctx context.Context, _ *sql.DB, n uint64) (func(), error) {
	// A transaction ends with its context.
	release, err := lockFile(context.WithoutCancel(ctx), e.path+".hold-"+strconv.FormatUint(n%holdFiles, 16), 0)
	if known := (*sqlite.Error)(nil); errors.As(err, &known) && known.Code()&0xff == sqlite3.SQLITE_BUSY {
		return nil, nil
	}
	return release, err
}

// holdKey begins the keys of this purpose: the first 32 bits of
// SHA-256("remit response").
const holdKey = 0x6c2ef110

func (e postgresEngine) hold(ctx context.Context, db *sql.DB, n uint64) (func(), error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	held := false
	err = conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1, $2)", int32(holdKey), int32(uint32(n))).Scan(&held)
	if err != nil || !held {
		_ = conn.Close()
		return nil, err
	}
	return func() {
		quiet, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if _, err := conn.ExecContext(quiet, "SELECT pg_advisory_unlock($1, $2)", int32(holdKey), int32(uint32(n))); err != nil {
			discard(conn) // the lock ends with the session
		}
		_ = conn.Close()
	}, nil
}
