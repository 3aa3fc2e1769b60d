package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"remit"
)

// sqlitePragmas are set on every connection.
//
// journal_mode WAL lets readers go on while one writes. synchronous FULL syncs
// the log at every commit: with NORMAL a killed process would lose nothing
// either, but a power cut could take back transactions that were acknowledged,
// and others discard their copy on that acknowledgement. A transaction holds a
// page of a thousand records, so the sync is a small part of it. The checkpoint
// is rarer than by default (4 MiB), because keys and IDs are random and a bulk
// load dirties most pages of the indexes again and again.
const sqlitePragmas = "_pragma=busy_timeout(30000)" +
	"&_pragma=journal_mode(WAL)" +
	"&_pragma=synchronous(FULL)" +
	"&_pragma=foreign_keys(1)" +
	"&_pragma=wal_autocheckpoint(16384)" +
	"&_pragma=journal_size_limit(134217728)" +
	"&_pragma=temp_store(MEMORY)"

const (
	sqliteWriterCache = "&_pragma=cache_size(-131072)" // 128 MiB, the upper levels of the indexes
	sqliteReaderCache = "&_pragma=cache_size(-16384)&_pragma=query_only(1)"
)

func openSQLite(ctx context.Context, path string) (*Store, error) {
	const op = "open store"
	if path == "" || strings.HasSuffix(path, "/") {
		return nil, remit.Errorf(remit.Invalid, op, "%q names no file: give the path of the database file, as /var/lib/remit/remit.db", path)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, remit.Errorf(remit.Invalid, op, "%q: %w", path, err)
	}
	if err := prepareFile(path); err != nil {
		return nil, err
	}
	unlock, err := lockFile(ctx, path+".lock", time.Minute)
	if err != nil {
		return nil, err
	}
	defer unlock()

	e := sqliteEngine{path}
	uri := e.uri()
	s := &Store{engine: e, where: path, closed: make(chan struct{}), single: make(chan *tx, 1)}
	if s.db, err = sql.Open("sqlite", uri+sqliteWriterCache+"&_txlock=immediate"); err != nil {
		return nil, s.engine.failure(op, err)
	}
	s.db.SetMaxOpenConns(1)
	if err := migrate(ctx, s.db, s.engine, nil); err != nil {
		_ = s.db.Close()
		return nil, s.fail(op, err)
	}
	if s.readers, err = sql.Open("sqlite", uri+sqliteReaderCache); err != nil {
		_ = s.db.Close()
		return nil, s.engine.failure(op, err)
	}
	s.readers.SetMaxOpenConns(max(4, runtime.GOMAXPROCS(0)))
	s.readers.SetMaxIdleConns(max(4, runtime.GOMAXPROCS(0)))
	s.single <- &tx{engine: s.engine}
	return s, nil
}

// prepareFile makes the directory and the file, for the owner only: the
// inventory is a map of a company's weak spots. SQLite gives its other files
// the mode of this one.
func prepareFile(path string) error {
	const op = "open store"
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return remit.Errorf(remit.Forbidden, op, "cannot make the data directory %s: %w: make it, or choose another", dir, err)
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return remit.Errorf(remit.Invalid, op, "%s is a directory: give the path of the database file in it, as %s", path, filepath.Join(path, "remit.db"))
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrPermission) {
		return remit.Errorf(remit.Forbidden, op, "no right to write %s: run as the user that owns it, or change its owner (%w)", path, err)
	}
	if err != nil {
		return remit.Errorf(remit.Unavailable, op, "cannot open %s: %w", path, err)
	}
	return f.Close()
}

// lockFile takes a lock between processes and within this one, and waits for it
// that long: while the schema is looked at, for two that start at once must
// neither both switch the journal nor both migrate, and while a plan is carried
// out. SQLite itself is the lock, on an empty file of its own, since its locks
// exist on every system and end with their process.
func lockFile(ctx context.Context, path string, wait time.Duration) (unlock func(), err error) {
	const op = "lock store"
	e := sqliteEngine{path}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?_pragma=busy_timeout("+strconv.FormatInt(wait.Milliseconds(), 10)+")&_txlock=exclusive")
	if err != nil {
		return nil, e.failure(op, err)
	}
	t, err := db.BeginTx(ctx, nil)
	if err != nil {
		_ = db.Close()
		return nil, e.failure(op, err)
	}
	_ = os.Chmod(path, 0o600)
	return func() {
		_ = t.Rollback()
		_ = db.Close()
	}, nil
}

type sqliteEngine struct{ path string }

// uri names the file to the driver.
func (e sqliteEngine) uri() string {
	return "file:" + (&url.URL{Path: e.path}).EscapedPath() + "?" + sqlitePragmas
}

func (sqliteEngine) rebind(query string) string { return query }
func (sqliteEngine) in(column string) string {
	return column + " IN (SELECT value FROM json_each(?))"
}
func (sqliteEngine) texts(list []string) any   { return jsonList(list) }
func (sqliteEngine) keys(list []int64) any     { return jsonList(list) }
func (sqliteEngine) hide(column string) string { return "+" + column }
func (sqliteEngine) wordsInRow() bool          { return false }
func (sqliteEngine) snapshot() *sql.TxOptions  { return nil }
func (sqliteEngine) begin() string             { return "BEGIN IMMEDIATE" }
func (sqliteEngine) forUpdate() string         { return "" }
func (sqliteEngine) dialect() goose.Dialect    { return goose.DialectSQLite3 }

// jsonList writes a list of texts or numbers, which cannot fail.
func jsonList[T string | int64](list []T) string {
	if list == nil {
		return "[]"
	}
	b, _ := json.Marshal(list)
	return string(b)
}

// A word index of FTS5 that keeps neither the text nor the positions, only
// which rows have a word. The words come encoded (see writeWord), so the
// tokenizer has nothing to do but split at spaces.
func (sqliteEngine) schema() schemaWords {
	return schemaWords{
		Key: "INTEGER PRIMARY KEY AUTOINCREMENT", Text: "TEXT", Int: "INTEGER", Small: "INTEGER", Blob: "BLOB",
		WithoutRowid: " WITHOUT ROWID",
		CreateWords: func(table string) string {
			return "CREATE VIRTUAL TABLE " + table + "_words USING fts5 (words, content = '', contentless_delete = 1, detail = none, tokenize = \"ascii tokenchars '_'\");"
		},
	}
}

// sqliteBatches are the numbers of rows that one INSERT takes: few, so that
// each is prepared once.
var sqliteBatches = []int{64, 8, 1}

func (sqliteEngine) insert(ctx context.Context, t *tx, table string, columns []columnShape, rows [][]any, conflict string, each func(string, int64)) error {
	args := make([]any, 0, sqliteBatches[0]*len(columns))
	for len(rows) > 0 {
		n := 1
		for _, size := range sqliteBatches {
			if size <= len(rows) {
				n = size
				break
			}
		}
		args = args[:0]
		for _, row := range rows[:n] {
			args = append(args, row...)
		}
		rows = rows[n:]
		query := sqliteInsert(table, columns, n, conflict, each != nil)
		if each == nil {
			if err := t.exec(ctx, query, args...); err != nil {
				return err
			}
			continue
		}
		err := t.query(ctx, query, args, func(r *sql.Rows) error {
			var id string
			var key int64
			if err := r.Scan(&id, &key); err != nil {
				return err
			}
			each(id, key)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func sqliteInsert(table string, columns []columnShape, n int, conflict string, returning bool) string {
	var b strings.Builder
	b.WriteString("INSERT INTO " + table + " (" + columnNames(columns, "") + ") VALUES ")
	row := "(" + strings.Repeat("?, ", len(columns)-1) + "?)"
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(row)
	}
	b.WriteString(conflict)
	if returning {
		b.WriteString(" RETURNING " + columns[0].name + ", key")
	}
	return b.String()
}

// columnNames lists the names of columns, each behind a prefix.
func columnNames(columns []columnShape, prefix string) string {
	var b strings.Builder
	for i, c := range columns {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(prefix)
		b.WriteString(c.name)
	}
	return b.String()
}

// overwrite is the conflict clause that overwrites the row of the same key, the
// first column: the named columns, or all of them. To name those that can change
// spares the indexes of the others.
func overwrite(columns []columnShape, names ...string) string {
	if len(names) == 0 {
		for _, c := range columns[1:] {
			names = append(names, c.name)
		}
	}
	var b strings.Builder
	b.WriteString(" ON CONFLICT (" + columns[0].name + ") DO UPDATE SET ")
	for i, name := range names {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(name + " = excluded." + name)
	}
	return b.String()
}

func (e sqliteEngine) putWords(ctx context.Context, t *tx, table string, rows [][]any) error {
	return e.insert(ctx, t, table+"_words", []columnShape{{name: "rowid"}, {name: "words"}}, rows, "", nil)
}

func (e sqliteEngine) dropWords(ctx context.Context, t *tx, table string, keys []int64) error {
	return t.exec(ctx, "DELETE FROM "+table+"_words WHERE "+e.in("rowid"), e.keys(keys))
}

func (sqliteEngine) wordsTerm(table string) string {
	return "key IN (SELECT rowid FROM " + table + "_words WHERE " + table + "_words MATCH ?)"
}

func (sqliteEngine) wordsProbe(table string) string {
	return "SELECT 1 FROM " + table + "_words WHERE " + table + "_words MATCH ?"
}

func (sqliteEngine) wordsQuery(alternatives [][]string, beginnings bool) string {
	return wordsExpression(alternatives, " OR ", " AND ", func(b *strings.Builder, word string) {
		b.WriteString(`"` + word + `"`)
		if beginnings {
			b.WriteString(" *")
		}
	})
}

// wordsExpression writes alternatives of conjunctions of words.
func wordsExpression(alternatives [][]string, or, and string, write func(*strings.Builder, string)) string {
	var b strings.Builder
	for i, words := range alternatives {
		if i > 0 {
			b.WriteString(or)
		}
		b.WriteByte('(')
		for j, word := range words {
			if j > 0 {
				b.WriteString(and)
			}
			write(&b, word)
		}
		b.WriteByte(')')
	}
	return b.String()
}

// retry is never needed: a transaction takes the write lock as it begins.
func (sqliteEngine) retry(error) bool { return false }

func (e sqliteEngine) failure(op string, err error) error {
	if errors.Is(err, sql.ErrConnDone) || strings.Contains(err.Error(), "database is closed") {
		return remit.Errorf(remit.Unavailable, op, "the store is closed")
	}
	var known *sqlite.Error
	if !errors.As(err, &known) {
		return remit.Errorf(remit.Internal, op, "%s: %w", e.path, err)
	}
	switch known.Code() & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return remit.Errorf(remit.Unavailable, op, "another process keeps %s locked: end it, or try again (%w)", e.path, err)
	case sqlite3.SQLITE_FULL:
		return remit.Errorf(remit.Unavailable, op, "the disk of %s is full: free some space and try again (%w)", e.path, err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH:
		return remit.Errorf(remit.Forbidden, op, "cannot write %s: its directory must be writable too, for the files beside it (%w)", e.path, err)
	case sqlite3.SQLITE_NOTADB:
		return remit.Errorf(remit.Invalid, op, "%s is not a SQLite database: give another path (%w)", e.path, err)
	case sqlite3.SQLITE_CORRUPT:
		return remit.Errorf(remit.Internal, op, "%s is damaged: restore a backup, or move it away and read the systems again (%w)", e.path, err)
	case sqlite3.SQLITE_IOERR:
		return remit.Errorf(remit.Unavailable, op, "reading or writing %s failed: look at its disk (%w)", e.path, err)
	}
	return remit.Errorf(remit.Internal, op, "%s: %w", e.path, err)
}
