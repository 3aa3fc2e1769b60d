package archive

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"sort"
	"strings"

	"github.com/parquet-go/parquet-go"

	"remit"
)

// reader is one open file of the archive. Not safe for concurrent use.
type reader struct {
	File
	file    *os.File
	parquet *parquet.File
	leaf    map[string]int // column path → index
}

// open opens a file of the manifest after it has looked at its size and its
// footer, so that what goes into the Parquet parser is what was written.
func (a *Archive) open(f File) (*reader, error) {
	name, err := a.path(f.Path)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, remit.Errorf(remit.Conflict, "read archive", "%s is gone: read the list of files again", f.Path)
	}
	if err != nil {
		return nil, remit.Errorf(remit.Unavailable, "read archive", "%w", err)
	}
	r, err := openReader(file, f)
	if err != nil {
		_ = file.Close()
		return nil, damaged(f, err)
	}
	return r, nil
}

func openReader(file *os.File, f File) (r *reader, err error) {
	defer catch(&err)
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() != f.Bytes {
		return nil, fmt.Errorf("it has %d bytes and should have %d", info.Size(), f.Bytes)
	}
	sum, err := footerSum(file, f.Bytes)
	if err != nil {
		return nil, err
	}
	if sum != f.Footer {
		return nil, errors.New("its footer is not the one that was written")
	}
	p, err := parquet.OpenFile(file, f.Bytes, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, err
	}
	r = &reader{File: f, file: file, parquet: p, leaf: make(map[string]int)}
	for i, path := range p.Schema().Columns() {
		r.leaf[strings.Join(path, ".")] = i
	}
	return r, nil
}

func (r *reader) Close() error { return r.file.Close() }

// damaged says that a file cannot be read, and what to do about it.
func damaged(f File, err error) error {
	var known *remit.Error
	if errors.As(err, &known) {
		return err
	}
	return remit.Errorf(remit.Internal, "read archive", "%s is damaged: %w; verify the archive, and build what is damaged again from the source", f.Path, err)
}

// catch turns a panic of the Parquet library over damaged data into an error.
func catch(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("the Parquet data make no sense: %v", p)
	}
}

// cursor reads one column of one row group, forwards, one page at a time.
type cursor struct {
	chunk   parquet.ColumnChunk
	pages   parquet.Pages
	offsets parquet.OffsetIndex
	total   int64 // rows of the group

	first, end int64 // the rows of the page
	page       parquet.Page

	strings []string // of the dictionary, made when they are needed
	made    []bool

	indexes []int32  // into the dictionary; or
	data    []byte   // plain byte arrays
	bounds  []uint32 // and where they begin
	ints64  []int64
	ints32  []int32
	bits    []byte

	// position gives, of an optional column with nulls in this page, where a
	// row's value is, or -1. values and starts hold a repeated column.
	position []int32
	allNull  bool
	values   []parquet.Value
	starts   []int32
}

func newCursor(chunk parquet.ColumnChunk, rows int64) (*cursor, error) {
	offsets, err := chunk.OffsetIndex()
	if err != nil {
		return nil, err
	}
	return &cursor{chunk: chunk, offsets: offsets, total: rows}, nil
}

func (c *cursor) close() {
	if c.page != nil {
		parquet.Release(c.page)
		c.page = nil
	}
	if c.pages != nil {
		_ = c.pages.Close()
	}
}

// pageOf is the index of the page that holds a row.
func (c *cursor) pageOf(row int64) int {
	return sort.Search(c.offsets.NumPages(), func(i int) bool { return c.offsets.FirstRowIndex(i) > row }) - 1
}

// span is the rows of a page.
func (c *cursor) span(page int) (first, end int64) {
	first, end = c.offsets.FirstRowIndex(page), c.total
	if page+1 < c.offsets.NumPages() {
		end = c.offsets.FirstRowIndex(page + 1)
	}
	return first, end
}

// seek makes the page that holds a row the current one and gives the row's
// place in it.
func (c *cursor) seek(row int64) (int, error) {
	if c.page != nil && row >= c.first && row < c.end {
		return int(row - c.first), nil
	}
	number := c.pageOf(row)
	if number < 0 {
		return 0, errors.New("a page is missing")
	}
	if c.page != nil {
		parquet.Release(c.page)
		c.page = nil
	}
	if c.pages == nil {
		c.pages = c.chunk.Pages()
	}
	c.first, c.end = c.span(number)
	if err := c.pages.SeekToRow(c.first); err != nil {
		return 0, err
	}
	page, err := c.pages.ReadPage()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, err
	}
	c.page = page
	if page.NumRows() != c.end-c.first {
		return 0, fmt.Errorf("a page has %d rows and should have %d", page.NumRows(), c.end-c.first)
	}
	return int(row - c.first), c.decode()
}

// decode makes the current page's values accessible by row.
func (c *cursor) decode() error {
	c.indexes, c.data, c.bounds, c.ints64, c.ints32, c.bits = nil, nil, nil, nil, nil, nil
	c.position, c.allNull, c.values, c.starts = nil, false, c.values[:0], c.starts[:0]
	page := c.page
	nulls := page.NumNulls()
	if nulls == page.NumValues() && nulls > 0 {
		c.allNull = true
		return nil
	}
	if len(page.RepetitionLevels()) > 0 {
		return c.decodeLists()
	}
	if nulls > 0 {
		c.position = make([]int32, 0, page.NumValues())
		next := int32(0)
		for _, level := range page.DefinitionLevels() {
			if level == 0 {
				c.position = append(c.position, -1)
				continue
			}
			c.position = append(c.position, next)
			next++
		}
	}
	data := page.Data()
	switch {
	case page.Dictionary() != nil:
		c.indexes = data.Int32()
		if n := page.Dictionary().Len(); len(c.strings) != n {
			c.strings, c.made = make([]string, n), make([]bool, n)
		}
	case c.chunk.Type().Kind() == parquet.ByteArray:
		c.data, c.bounds = data.ByteArray()
	case c.chunk.Type().Kind() == parquet.Int64:
		c.ints64 = data.Int64()
	case c.chunk.Type().Kind() == parquet.Int32:
		c.ints32 = data.Int32()
	case c.chunk.Type().Kind() == parquet.Boolean:
		c.bits = data.Boolean()
	default:
		return fmt.Errorf("a column has the type %s", c.chunk.Type())
	}
	return nil
}

func (c *cursor) decodeLists() error {
	values := c.page.Values()
	var buffer [256]parquet.Value
	for {
		n, err := values.ReadValues(buffer[:])
		for _, v := range buffer[:n] {
			if v.RepetitionLevel() == 0 {
				c.starts = append(c.starts, int32(len(c.values)))
			}
			c.values = append(c.values, v.Clone())
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	c.starts = append(c.starts, int32(len(c.values)))
	if int64(len(c.starts)) != c.end-c.first+1 {
		return errors.New("a page of lists has another number of rows")
	}
	return nil
}

// at resolves nulls: the place of a value in the page, or -1.
func (c *cursor) at(i int) int {
	switch {
	case c.allNull:
		return -1
	case c.position != nil:
		return int(c.position[i])
	}
	return i
}

// bytes is the value at a place, in the page's memory.
func (c *cursor) bytes(i int) []byte {
	if c.indexes != nil {
		return c.page.Dictionary().Index(c.indexes[i]).ByteArray()
	}
	return c.data[c.bounds[i]:c.bounds[i+1]]
}

// string is the value at a place, of its own memory. Values of a dictionary
// are made once.
func (c *cursor) string(i int) string {
	if c.indexes == nil {
		return string(c.bytes(i))
	}
	index := c.indexes[i]
	if !c.made[index] {
		c.strings[index], c.made[index] = string(c.bytes(i)), true
	}
	return c.strings[index]
}

func (c *cursor) int(i int) int64 {
	if c.indexes != nil {
		v := c.page.Dictionary().Index(c.indexes[i])
		if v.Kind() == parquet.Int32 {
			return int64(v.Int32())
		}
		return v.Int64()
	}
	if c.ints32 != nil {
		return int64(c.ints32[i])
	}
	return c.ints64[i]
}

func (c *cursor) bool(i int) bool { return c.bits[i/8]>>(i%8)&1 != 0 }

// list gives the values of a row of a repeated column, without nulls.
func (c *cursor) list(i int) []parquet.Value {
	if c.allNull {
		return nil
	}
	values := c.values[c.starts[i]:c.starts[i+1]]
	if len(values) == 1 && values[0].IsNull() {
		return nil
	}
	return values
}

// The columns of lists, and the field of each other column in a row.
const (
	audienceColumn       = "minted_audiences.list.element"
	chainKindColumn      = "chain.list.element.kind"
	chainNamespaceColumn = "chain.list.element.namespace"
	chainNameColumn      = "chain.list.element.name"
	rawColumn            = "raw"
)

var fieldOf = func() map[string]int {
	fields := make(map[string]int)
	t := reflect.TypeFor[row]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("parquet"), ",")
		if t.Field(i).Type.Kind() != reflect.Slice && name != rawColumn {
			fields[name] = i
		}
	}
	return fields
}()

// groupReader gives rows of one row group. It keeps one page of each column.
type groupReader struct {
	columns []column
}

type column struct {
	*cursor
	path  string
	field int // -1: raw, or a list
}

// group opens the columns of a row group, the raw events only when they are
// wanted. A column that the file does not have stays zero.
func (r *reader) group(number int, raw bool) (g *groupReader, err error) {
	defer catch(&err)
	group := r.parquet.RowGroups()[number]
	chunks := group.ColumnChunks()
	g = &groupReader{}
	for path, leaf := range r.leaf {
		field, ok := fieldOf[path]
		switch path {
		case rawColumn:
			field, ok = -1, raw
		case audienceColumn, chainKindColumn, chainNamespaceColumn, chainNameColumn:
			field, ok = -1, true
		}
		if !ok {
			continue
		}
		c, err := newCursor(chunks[leaf], group.NumRows())
		if err != nil {
			return nil, err
		}
		g.columns = append(g.columns, column{c, path, field})
	}
	// The kind of a chain's elements comes first and makes the elements.
	slices.SortFunc(g.columns, func(a, b column) int { return strings.Compare(a.path, b.path) })
	return g, nil
}

func (g *groupReader) close() {
	for _, c := range g.columns {
		c.close()
	}
}

// read fills out with the given rows, which ascend. Strings and raw events in
// it are of their own memory.
func (g *groupReader) read(rows []int32, out []row) (err error) {
	defer catch(&err)
	for i := range out[:len(rows)] {
		out[i] = row{Chain: out[i].Chain[:0], MintedAudiences: out[i].MintedAudiences[:0]}
	}
	for _, c := range g.columns {
		for k, number := range rows {
			i, err := c.seek(int64(number))
			if err != nil {
				return fmt.Errorf("column %s: %w", c.path, err)
			}
			c.set(&out[k], i)
		}
	}
	return nil
}

// set puts the value of a row into its field.
func (c column) set(r *row, i int) {
	if c.field >= 0 {
		if i = c.at(i); i < 0 {
			return
		}
		field := reflect.ValueOf(r).Elem().Field(c.field)
		switch field.Kind() {
		case reflect.String:
			field.SetString(c.string(i))
		case reflect.Int64, reflect.Int32:
			field.SetInt(c.int(i))
		case reflect.Bool:
			field.SetBool(c.bool(i))
		case reflect.Pointer:
			n := c.int(i)
			field.Set(reflect.ValueOf(&n))
		}
		return
	}
	switch c.path {
	case rawColumn:
		if i = c.at(i); i >= 0 {
			raw := string(c.bytes(i))
			r.Raw = &raw
		}
	case audienceColumn:
		for _, v := range c.list(i) {
			r.MintedAudiences = append(r.MintedAudiences, v.String())
		}
	default:
		for k, v := range c.list(i) {
			for len(r.Chain) <= k {
				r.Chain = append(r.Chain, actor{})
			}
			switch c.path {
			case chainKindColumn:
				r.Chain[k].Kind = v.String()
			case chainNamespaceColumn:
				r.Chain[k].Namespace = v.String()
			case chainNameColumn:
				r.Chain[k].Name = v.String()
			}
		}
	}
}
