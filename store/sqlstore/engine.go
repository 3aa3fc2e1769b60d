package sqlstore

import (
	"context"
	"database/sql"

	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver"
)

// engine is what differs between SQLite and PostgreSQL. Statements are written
// once with "?" for parameters and with the pieces that the engine gives.
type engine interface {
	// rebind turns "?" into the engine's placeholders.
	rebind(query string) string

	// in tests a column against a list, given as one parameter of the form
	// that texts or keys makes: one statement serves lists of any length.
	in(column string) string
	texts(list []string) any
	keys(list []int64) any

	// hide names a column so that no index on it is used.
	hide(column string) string

	// insert writes rows. conflict is what to do about a row that is there
	// ("" is to fail; see overwrite). Where the engine gives the keys, each
	// is called with the first column, a text, and the key; it may be nil.
	insert(ctx context.Context, tx *tx, table string, columns []columnShape, rows [][]any, conflict string, each func(id string, key int64)) error

	// wordsInRow says whether the words of a name are a column of the row; if
	// not, putWords and dropWords keep them beside it.
	wordsInRow() bool
	putWords(ctx context.Context, tx *tx, table string, rows [][]any) error
	dropWords(ctx context.Context, tx *tx, table string, keys []int64) error

	// wordsTerm tests rows of table for words, and wordsProbe selects from
	// the index alone; the parameter of both is made by wordsQuery of
	// alternatives, each a list of encoded words, or of beginnings of words,
	// that must all be found.
	wordsTerm(table string) string
	wordsProbe(table string) string
	wordsQuery(alternatives [][]string, beginnings bool) string

	// snapshot are the options of a transaction that reads one state.
	snapshot() *sql.TxOptions

	// begin starts a writing transaction and forUpdate is what a SELECT adds
	// to lock rows until its end.
	begin() string
	forUpdate() string

	// hold takes the lock of a number, for as long as this process lives or until
	// release is called. release is nil when another has it.
	hold(ctx context.Context, db *sql.DB, n uint64) (release func(), err error)

	// jobs makes the queue of jobs of the database; close ends what it opened.
	jobs(db *sql.DB) (driver riverdriver.Driver[*sql.Tx], closeJobs func() error, err error)

	// retry says whether a transaction that failed so should simply be run
	// again.
	retry(err error) bool

	// failure turns an engine's error into one that a user can act on.
	failure(op string, err error) error

	schema() schemaWords
	dialect() goose.Dialect
}

// schemaWords are the engine's words for the migrations' placeholders.
type schemaWords struct {
	Key, Text, Int, Small, Blob, WithoutRowid, WordsColumn string

	// CreateWords makes what the words of a table are searched in.
	CreateWords func(table string) string
}
