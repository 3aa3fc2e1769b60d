package sqlstore

import (
	"context"
	"database/sql"
	"io"
	"log/slog"

	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
)

// Jobs opens the queue of jobs that lies in this store, and makes its tables when
// there are none. close ends it; the store must be open until then.
func (s *Store) Jobs(ctx context.Context) (driver riverdriver.Driver[*sql.Tx], closeJobs func() error, err error) {
	const op = "open jobs"
	driver, closeJobs, err = s.engine.jobs(s.db)
	if err != nil {
		return nil, nil, s.fail(op, err)
	}
	// What it migrates is no news to whoever runs Remit.
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err == nil {
		_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	}
	if err != nil {
		_ = closeJobs()
		return nil, nil, s.fail(op, err)
	}
	return driver, closeJobs, nil
}

// jobs opens another connection to the file: the one of the store is one writer's,
// and his alone. A transaction begins as one that writes, so that it waits for its
// turn and is not refused in the midst.
func (e sqliteEngine) jobs(*sql.DB) (riverdriver.Driver[*sql.Tx], func() error, error) {
	db, err := sql.Open("sqlite", e.uri()+"&_txlock=immediate")
	if err != nil {
		return nil, nil, err
	}
	db.SetMaxOpenConns(1)
	return riversqlite.New(db), db.Close, nil
}

func (postgresEngine) jobs(db *sql.DB) (riverdriver.Driver[*sql.Tx], func() error, error) {
	return riverdatabasesql.New(db), func() error { return nil }, nil
}
