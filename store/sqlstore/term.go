package sqlstore

import (
	"slices"
	"strings"
	"time"
)

// term is one condition on a row. In its SQL "{}" stands for each of columns.
type term struct {
	sql     string
	columns []string
	args    []any
	served  service

	// probe selects what the term chooses from its index alone, where that
	// is less work than to select the rows, and limit is up to how many rows
	// its index is taken, where that is other than probeLimit.
	probe string
	limit int

	// loose says that the term only narrows the choice and that the source's
	// keep tests the same exactly, so it is left out where its index does not
	// help.
	loose bool
}

// service says which indexes serve a term.
type service int

const (
	inCurrent service = 1 << iota // an index of the current table
	inFormer                      // an index of the history
	inScope                       // an index that begins with the column of the source's scope
)

// write returns the condition, hidden from the indexes or not.
func (t term) write(e engine, hidden bool) string {
	s := t.sql
	for _, c := range t.columns {
		if hidden {
			c = e.hide(c)
		}
		s = strings.Replace(s, "{}", c, 1)
	}
	return s
}

// oneOf tests a column against a list of texts.
func oneOf(e engine, column string, list []string, served service) term {
	return term{sql: e.in("{}"), columns: []string{column}, args: []any{e.texts(list)}, served: served}
}

// known adds that the column is not empty, which the index on it says too.
func (t term) known() term {
	t.sql += " AND {} <> ''"
	t.columns = append(slices.Clone(t.columns), t.columns[0])
	return t
}

// unlike adds that the column is not the usual value, of which the index has
// none; where the usual value is asked for, no index serves.
func (t term) unlike(usual string, asked []string) term {
	if slices.Contains(asked, usual) {
		t.served = 0
		return t
	}
	t.sql += " AND {} <> '" + usual + "'"
	t.columns = append(slices.Clone(t.columns), t.columns[0])
	return t
}

// compare tests a column against a number.
func compare(column, operator string, n int64, served service) term {
	return term{sql: "{} " + operator + " ?", columns: []string{column}, args: []any{n}, served: served}
}

// flagged tests a column of truth. The literal lets an index serve that holds
// the true ones only.
func flagged(column string, value bool, served service) term {
	sql := "{} = 0"
	if value {
		sql = "{} = 1"
	}
	return term{sql: sql, columns: []string{column}, served: served}
}

// during tests whether a version covers a time.
func during(t time.Time, former bool) []term {
	at := micros(t)
	from := compare("valid_from", "<=", at, 0)
	if !former {
		return []term{from}
	}
	return []term{compare("valid_to", ">", at, inFormer), from}
}

// wordsLimit is the probeLimit of words: a row that the word index leads to lies
// anywhere in the table, while a walk tests the name beside the order.
const wordsLimit = 5_000

// wordsTerm narrows to rows with the words, or beginnings of words, of one of
// the alternatives. A few words of each are enough to find few rows.
func wordsTerm(e engine, table string, alternatives [][]string, beginnings bool) term {
	const few = 8
	short := make([][]string, len(alternatives))
	for i, words := range alternatives {
		short[i] = words[:min(len(words), few)]
	}
	return term{
		sql: e.wordsTerm(table), args: []any{e.wordsQuery(short, beginnings)}, served: inCurrent,
		probe: e.wordsProbe(table), limit: wordsLimit, loose: true,
	}
}

// searchTerm narrows to rows in whose names the words of a search begin words.
func searchTerm(e engine, table string, words []string) term {
	encoded := make([]string, len(words))
	for i, w := range words {
		encoded[i] = encodedWord(w)
	}
	return wordsTerm(e, table, [][]string{encoded}, true)
}

// nameWords returns the encoded words of each name; all is false when one has
// none, or when there are too many names for one question to the word index.
func nameWords(names []string) (words [][]string, all bool) {
	const most = 32
	for _, name := range names {
		w := strings.Fields(indexedWords(name))
		if len(w) == 0 || len(names) > most {
			return nil, false
		}
		words = append(words, w)
	}
	return words, true
}
