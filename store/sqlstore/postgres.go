package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"remit"
)

// postgresConnections bounds the connections of one process; a server allows
// 100 in all by default.
const postgresConnections = 10

// postgresPlanning makes the planner take the index that a statement is written
// for. Left alone it goes by statistics, and while a first listing fills the
// tables, and for a while after, these say that the tables are empty: it then
// reads all and sorts, for every page.
var postgresPlanning = map[string]string{
	// A plan made for an empty table is not kept.
	"plan_cache_mode": "force_custom_plan",
	// Every statement has an index. Where one has to sort, the columns of its
	// order are hidden (see hide), so that nothing but sorting is left.
	"enable_seqscan": "off",
	"enable_sort":    "off",
	// What is off counts as very dear, and what is dear would be compiled.
	"jit": "off",
}

func openPostgres(ctx context.Context, url string) (*Store, error) {
	const op = "open store"
	config, err := pgx.ParseConfig(url)
	if err != nil {
		// The error repeats the URL, with the password taken out by pgx.
		return nil, remit.Errorf(remit.Invalid, op, "%w: write postgres://user@host/database", err)
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "remit"
	}
	// An acknowledged write is on disk, whatever the server's default is.
	config.RuntimeParams["synchronous_commit"] = "on"
	config.RuntimeParams["timezone"] = "UTC"
	for name, value := range postgresPlanning {
		config.RuntimeParams[name] = value
	}

	e := postgresEngine{where: fmt.Sprintf("database %s on %s as user %s", config.Database, config.Host, config.User)}
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(postgresConnections)
	db.SetMaxIdleConns(postgresConnections)
	s := &Store{engine: e, db: db, readers: db, where: e.where, closed: make(chan struct{})}
	if err := s.openPostgres(ctx); err != nil {
		_ = db.Close()
		return nil, s.fail(op, err)
	}
	return s, nil
}

func (s *Store) openPostgres(ctx context.Context) error {
	if err := s.db.PingContext(ctx); err != nil {
		return err
	}
	// Names are kept as they come, in any script; another encoding would
	// refuse some of them one day, in the middle of a listing.
	var encoding string
	if err := s.db.QueryRowContext(ctx, "SHOW server_encoding").Scan(&encoding); err != nil {
		return err
	}
	if encoding != "UTF8" {
		return remit.Errorf(remit.Unsupported, "", "%s has the encoding %s: make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0", s.where, encoding)
	}
	return migrate(ctx, s.db, s.engine, advisoryLock{})
}

// advisoryLock lets one process migrate at a time. It waits in the server,
// where goose's own lock asks again every few seconds.
type advisoryLock struct{}

// The number is of this purpose only: the first 60 bits of
// SHA-256("remit schema").
const advisoryKey = 0xf204a531470b605

func (advisoryLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", int64(advisoryKey))
	return err
}

func (advisoryLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, "SELECT pg_advisory_unlock($1)", int64(advisoryKey))
	return err
}

type postgresEngine struct{ where string }

func (postgresEngine) in(column string) string { return column + " = ANY (?)" }
func (postgresEngine) texts(list []string) any { return list }
func (postgresEngine) keys(list []int64) any   { return list }
func (postgresEngine) wordsInRow() bool        { return true }
func (postgresEngine) begin() string           { return "BEGIN" }
func (postgresEngine) forUpdate() string       { return " FOR UPDATE" }
func (postgresEngine) dialect() goose.Dialect  { return goose.DialectPostgres }

func (postgresEngine) hide(column string) string {
	if numberColumns[column] {
		return "(" + column + " + 0)"
	}
	return "(" + column + " || '')"
}

// numberColumns are the columns that hold numbers, in any table.
var numberColumns = func() map[string]bool {
	numbers := map[string]bool{"key": true, "valid_to": true, "removed": true, "made": true}
	for _, shapes := range [][]columnShape{
		sharedColumns, findingColumns,
		identities.shapes(), credentials.shapes(), roles.shapes(), grants.shapes(), relations.shapes(), resources.shapes(),
	} {
		for _, c := range shapes {
			if c.typ == intColumn || c.typ == smallColumn {
				numbers[c.name] = true
			}
		}
	}
	return numbers
}()

func (postgresEngine) snapshot() *sql.TxOptions {
	return &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead}
}

func (postgresEngine) rebind(query string) string {
	n := strings.Count(query, "?")
	if n == 0 {
		return query
	}
	var b strings.Builder
	b.Grow(len(query) + 2*n)
	for i := 1; ; i++ {
		before, after, found := strings.Cut(query, "?")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(i))
		query = after
	}
}

// Text is compared by bytes, as in SQLite and in Go, not by the rules of the
// server's language.
func (postgresEngine) schema() schemaWords {
	return schemaWords{
		Key:  "bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
		Text: `text COLLATE "C"`, Int: "bigint", Small: "smallint", Blob: "bytea",
		WordsColumn: "tsvector",
		CreateWords: func(table string) string {
			return "CREATE INDEX " + table + "_by_words ON " + table + " USING gin (words);"
		},
	}
}

// insert sends each column as one array: a statement of any number of rows is
// planned once and has few parameters.
func (e postgresEngine) insert(ctx context.Context, t *tx, table string, columns []columnShape, rows [][]any, conflict string, each func(string, int64)) error {
	if len(rows) == 0 {
		return nil
	}
	args := make([]any, len(columns))
	var arrays, selected strings.Builder
	for i, c := range columns {
		if i > 0 {
			arrays.WriteString(", ")
			selected.WriteString(", ")
		}
		switch c.typ {
		case textColumn, wordsColumn:
			arrays.WriteString("?::text[]")
			args[i] = columnOf[string](rows, i)
		case intColumn:
			arrays.WriteString("?::bigint[]")
			args[i] = columnOf[int64](rows, i)
		case smallColumn:
			arrays.WriteString("?::bigint[]::smallint[]")
			args[i] = columnOf[int64](rows, i)
		case blobColumn:
			arrays.WriteString("?::bytea[]")
			args[i] = columnOf[[]byte](rows, i)
		}
		if c.typ == wordsColumn {
			// No parser takes part: the words are lexemes as they are.
			selected.WriteString("array_to_tsvector(string_to_array(u." + c.name + ", ' '))")
		} else {
			selected.WriteString("u." + c.name)
		}
	}
	query := "INSERT INTO " + table + " (" + columnNames(columns, "") + ") SELECT " + selected.String() +
		" FROM unnest(" + arrays.String() + ") AS u (" + columnNames(columns, "") + ")" + conflict
	if each == nil {
		return t.exec(ctx, query, args...)
	}
	return t.query(ctx, query+" RETURNING "+columns[0].name+", key", args, func(r *sql.Rows) error {
		var id string
		var key int64
		if err := r.Scan(&id, &key); err != nil {
			return err
		}
		each(id, key)
		return nil
	})
}

// columnOf gathers column i of rows.
func columnOf[T any](rows [][]any, i int) []T {
	out := make([]T, len(rows))
	for j, row := range rows {
		out[j] = row[i].(T)
	}
	return out
}

func (postgresEngine) putWords(context.Context, *tx, string, [][]any) error  { return nil }
func (postgresEngine) dropWords(context.Context, *tx, string, []int64) error { return nil }

func (postgresEngine) wordsTerm(string) string { return "words @@ ?::text::tsquery" }

func (e postgresEngine) wordsProbe(table string) string {
	return "SELECT 1 FROM " + table + " WHERE " + e.wordsTerm(table)
}

func (postgresEngine) wordsQuery(alternatives [][]string, beginnings bool) string {
	return wordsExpression(alternatives, " | ", " & ", func(b *strings.Builder, word string) {
		b.WriteString("'" + word + "'")
		if beginnings {
			b.WriteString(":*")
		}
	})
}

// retry: two writers met. Locks are taken in one order, so this is rare; what
// remains is two listings that find the same record at the same moment.
func (postgresEngine) retry(err error) bool {
	var known *pgconn.PgError
	if !errors.As(err, &known) {
		return false
	}
	switch known.Code {
	case "40001", "40P01", "23505": // serialization failure, deadlock, unique violation
		return true
	}
	return false
}

func (e postgresEngine) failure(op string, err error) error {
	if errors.Is(err, sql.ErrConnDone) || strings.Contains(err.Error(), "database is closed") {
		return remit.Errorf(remit.Unavailable, op, "the store is closed")
	}
	var known *pgconn.PgError
	if !errors.As(err, &known) {
		var connecting *pgconn.ConnectError
		if errors.As(err, &connecting) || pgconn.SafeToRetry(err) {
			return remit.Errorf(remit.Unavailable, op, "cannot reach %s: is the server running and the address right? (%w)", e.where, err)
		}
		return remit.Errorf(remit.Internal, op, "%s: %w", e.where, err)
	}
	switch known.Code {
	case "28P01", "28000":
		return remit.Errorf(remit.Unauthorized, op, "%s: the server refused the user or password: look at the URL, PGPASSWORD and pg_hba.conf (%w)", e.where, err)
	case "3D000":
		return remit.Errorf(remit.NotFound, op, "%s does not exist: make it with CREATE DATABASE (%w)", e.where, err)
	case "42501":
		return remit.Errorf(remit.Forbidden, op, "%s: the user may not do that: make it the owner of the database, or grant it CREATE on the schema (%w)", e.where, err)
	case "53100":
		return remit.Errorf(remit.Unavailable, op, "%s: the server's disk is full (%w)", e.where, err)
	}
	switch known.Code[:2] {
	case "08", "53", "57", "40", "55": // connection, resources, shutdown, conflict, lock
		return remit.Errorf(remit.Unavailable, op, "%s: %w: try again", e.where, err)
	}
	return remit.Errorf(remit.Internal, op, "%s: %w", e.where, err)
}
