package sqlstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"strings"

	"remit"
)

// cursor is the place behind the last row of a page. It carries the place
// itself and not a number of rows, so that nothing is passed over or repeated
// when rows come or go between two pages. Callers see it as an opaque text;
// there is nothing to gain by forging one.
type cursor struct {
	List     string `json:"l"` // the kind of record
	Sort     string `json:"s"`
	Filter   []byte `json:"f"` // a hash: the place means nothing in another list
	Position []any  `json:"p"`
}

const (
	defaultPage = 100
	maxPage     = 1000
)

// pageLimit checks the size of a page.
func pageLimit(page remit.PageRequest) (int, error) {
	switch {
	case page.Limit == 0:
		return defaultPage, nil
	case page.Limit < 0 || page.Limit > maxPage:
		return 0, remit.Errorf(remit.Invalid, "", "a page of %d: ask for 1 to %d", page.Limit, maxPage)
	}
	return page.Limit, nil
}

// filterHash is of everything that chooses the list.
func filterHash(filter any) []byte {
	b, err := json.Marshal(filter)
	if err != nil { // a time beyond the years of JSON
		b = []byte(err.Error())
	}
	sum := sha256.Sum256(b)
	return sum[:8]
}

func writeCursor(list string, filter any, o order, position []any) string {
	b, err := json.Marshal(cursor{list, o.name, filterHash(filter), position})
	if err != nil {
		panic(err) // texts and numbers
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// readCursor returns the position that a cursor holds, nil for the first page.
func readCursor(after, list string, filter any, o order) ([]any, error) {
	if after == "" {
		return nil, nil
	}
	foreign := remit.Errorf(remit.Invalid, "", "the cursor is not of this list: begin again with the first page")
	b, err := base64.RawURLEncoding.Strict().DecodeString(after)
	if err != nil {
		return nil, foreign
	}
	var c cursor
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return nil, foreign
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, foreign
	}
	if c.List != list || c.Sort != o.name || !bytes.Equal(c.Filter, filterHash(filter)) || len(c.Position) != len(o.columns) {
		return nil, foreign
	}
	for i, col := range o.columns {
		switch v := c.Position[i].(type) {
		case string:
			if col.number || len(v) > maxColumnText || strings.IndexByte(v, 0) >= 0 {
				return nil, foreign
			}
		case json.Number:
			n, err := v.Int64()
			if !col.number || err != nil {
				return nil, foreign
			}
			c.Position[i] = n
		default:
			return nil, foreign
		}
	}
	return c.Position, nil
}
