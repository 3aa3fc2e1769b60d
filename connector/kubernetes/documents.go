package kubernetes

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// readYAML takes a stream of YAML documents apart, line by line: whatever the
// size of a dump, only one object of it is in memory. What kubectl writes for
// several objects is one document, a List; its items are recognised by their
// indentation and read one by one too.
func readYAML(in *bufio.Reader, name string, lines int, use func(document) error, bad func(int, error)) error {
	s := yamlSplitter{name: name, use: use, bad: bad, line: lines}
	for {
		text, err := readLine(in)
		if err != nil && !errors.Is(err, io.EOF) {
			bad(s.line+1, err)
			return s.document()
		}
		if len(text) > 0 {
			s.line++
			if err := s.add(text); err != nil {
				return err
			}
		}
		if err != nil {
			return s.document()
		}
	}
}

// readLine reads a line with its end, but of an absurdly long one only as much
// as makes the document too large.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(line) <= maxDocument {
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

type yamlSplitter struct {
	name string
	use  func(document) error
	bad  func(int, error)
	line int

	text  bytes.Buffer // of the document, or of one item
	first int          // the line at which text begins
	large bool         // text was too large and is dropped

	// Of a List whose items are at the left margin, as kubectl writes it:
	items  bool         // the items have begun
	head   bytes.Buffer // what is not items
	marker []byte       // what an item's lines are indented by
}

func (s *yamlSplitter) add(text []byte) error {
	if isSeparator(text) {
		if err := s.document(); err != nil {
			return err
		}
		if rest := bytes.TrimSpace(text[3:]); len(rest) > 0 && rest[0] != '#' {
			return s.add(append(rest, '\n'))
		}
		return nil
	}
	if bytes.HasPrefix(text, []byte("...")) && len(bytes.TrimSpace(text)) == 3 {
		return s.document()
	}
	if !s.items && bytes.HasPrefix(text, []byte("items:")) && isBare(text[len("items:"):]) && s.text.Len() < 4096 {
		s.items, s.marker = true, nil
		s.head.Reset()
		s.head.Write(s.text.Bytes())
		s.text.Reset()
		s.first = 0
		return nil
	}
	if s.items {
		indent := text[:len(text)-len(bytes.TrimLeft(text, " "))]
		rest := text[len(indent):]
		switch {
		case isBare(text):
			// Empty lines and comments belong to the item before.
		case bytes.HasPrefix(rest, []byte("- ")) && (s.marker == nil || len(indent) == len(s.marker)):
			if err := s.item(); err != nil {
				return err
			}
			s.marker = append([]byte{}, indent...)
			// The dash becomes white space: the item is a document of its own.
			text = append(append(append([]byte{}, indent...), "  "...), rest[2:]...)
		case len(indent) == 0:
			if err := s.item(); err != nil {
				return err
			}
			s.items = false
			s.text.Write(s.head.Bytes())
			s.first = 0
		}
	}
	s.write(text)
	return nil
}

func (s *yamlSplitter) write(text []byte) {
	if s.first == 0 {
		if isBare(text) {
			return
		}
		s.first = s.line
	}
	if s.text.Len()+len(text) > maxDocument {
		s.large = true
		s.text.Reset()
	}
	if !s.large {
		s.text.Write(text)
	}
}

// isSeparator says whether a line separates documents.
func isSeparator(text []byte) bool {
	return bytes.HasPrefix(text, []byte("---")) && (len(text) == 3 || strings.ContainsRune(" \t\r\n", rune(text[3])))
}

// isBare says whether a line says nothing.
func isBare(text []byte) bool {
	text = bytes.TrimSpace(text)
	return len(text) == 0 || text[0] == '#'
}

// item ends an item of a List.
func (s *yamlSplitter) item() error { return s.end(s.listKind()) }

// listKind is the kind of the List that is being read, as far as it is known
// before its items.
func (s *yamlSplitter) listKind() schema.GroupVersionKind {
	var t struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	_ = yaml.Unmarshal(s.head.Bytes(), &t) // then the items have to name their kind
	return schema.FromAPIVersionAndKind(t.APIVersion, t.Kind)
}

// document ends a document.
func (s *yamlSplitter) document() error {
	if s.items {
		s.items = false
		err := s.item()
		s.head.Reset()
		return err
	}
	return s.end(schema.GroupVersionKind{})
}

func (s *yamlSplitter) end(list schema.GroupVersionKind) error {
	text, first, large := s.text.Bytes(), s.first, s.large
	defer func() {
		s.text.Reset()
		s.first, s.large = 0, false
	}()
	if large {
		s.bad(first, fmt.Errorf("the document is larger than %d MiB", maxDocument>>20))
		return nil
	}
	if first == 0 {
		return nil
	}
	data, err := toJSON(text)
	if err != nil {
		s.bad(first+yamlErrorLine(err), err)
		return nil
	}
	return unwrap(document{data: data, file: s.name, line: first, list: list}, s.use, s.bad, 0)
}

// yamlErrorLine is how many lines below the beginning of the document the YAML
// library met the error.
func yamlErrorLine(err error) int {
	var n int
	if i := strings.Index(err.Error(), "line "); i >= 0 {
		if _, scanErr := fmt.Sscanf(err.Error()[i:], "line %d", &n); scanErr == nil && n > 0 {
			return n - 1
		}
	}
	return 0
}

// unwrap hands on a document, or the items of one that is a List.
func unwrap(d document, use func(document) error, bad func(int, error), depth int) error {
	data := bytes.TrimSpace(d.data)
	if len(data) == 0 || bytes.Equal(data, []byte("null")) {
		return nil
	}
	switch data[0] {
	case '{':
	case '[':
		// A bare sequence of objects.
		var items []json.RawMessage
		if err := json.Unmarshal(data, &items); err != nil {
			bad(d.line, err)
			return nil
		}
		return unwrapAll(items, d, schema.GroupVersionKind{}, use, bad, depth)
	default:
		bad(d.line, errors.New("the document is no object of Kubernetes"))
		return nil
	}
	var list struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Items      []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(data, &list); err != nil || !strings.HasSuffix(list.Kind, "List") || list.Items == nil {
		if len(data) == 2 || list.Kind == "" && d.list.Kind == "" && isListRest(data) {
			return nil // {} and what is left of a List without its items
		}
		if strings.HasSuffix(list.Kind, "List") && err == nil {
			return nil // an empty one
		}
		return use(d)
	}
	return unwrapAll(list.Items, d, schema.FromAPIVersionAndKind(list.APIVersion, list.Kind), use, bad, depth)
}

// isListRest says whether an object has nothing but what a List has beside its
// items.
func isListRest(data []byte) bool {
	var m map[string]json.RawMessage
	if json.Unmarshal(data, &m) != nil {
		return false
	}
	for key := range m {
		if key != "metadata" && key != "apiVersion" {
			return false
		}
	}
	return true
}

func unwrapAll(items []json.RawMessage, d document, list schema.GroupVersionKind, use func(document) error, bad func(int, error), depth int) error {
	if depth > 4 {
		bad(d.line, errors.New("lists lie within lists too deep"))
		return nil
	}
	for _, item := range items {
		if err := unwrap(document{data: item, file: d.file, line: d.line, list: list}, use, bad, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// readJSON takes a stream of JSON values apart. The items of a List are read
// one by one, so that a dump is never in memory as a whole.
func readJSON(in *bufio.Reader, name string, lines int, use func(document) error, bad func(int, error)) error {
	counter := &lineCounter{in: in, first: lines + 1}
	dec := json.NewDecoder(counter)
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		line := counter.at(dec.InputOffset())
		if err != nil {
			bad(counter.at(nextValue(dec)), err)
			return nil
		}
		switch token {
		case json.Delim('['):
			err = jsonItems(dec, counter, name, schema.GroupVersionKind{}, use, bad)
		case json.Delim('{'):
			err = jsonObject(dec, counter, name, line, use, bad)
		default:
			bad(line, errors.New("the document is no object of Kubernetes"))
			continue
		}
		var syntax *jsonFailure
		if errors.As(err, &syntax) {
			bad(counter.at(nextValue(dec)), syntax.err)
			return nil // there is no telling where the next value begins
		}
		if err != nil {
			return err
		}
	}
}

// jsonFailure is an error of the JSON itself, told apart from one of use.
type jsonFailure struct{ err error }

func (f *jsonFailure) Error() string { return f.err.Error() }

// nextValue is the offset of the value that comes next: InputOffset stays behind
// the one before, and so often on the line above.
func nextValue(dec *json.Decoder) int64 {
	offset := dec.InputOffset()
	ahead, ok := dec.Buffered().(io.ByteReader)
	if !ok {
		return offset
	}
	for {
		b, err := ahead.ReadByte()
		if err != nil || !strings.ContainsRune(" \t\r\n,:", rune(b)) {
			return offset
		}
		offset++
	}
}

// jsonItems reads the items of an array whose beginning has been read.
func jsonItems(dec *json.Decoder, counter *lineCounter, name string, list schema.GroupVersionKind, use func(document) error, bad func(int, error)) error {
	for dec.More() {
		line := counter.at(nextValue(dec))
		var item json.RawMessage
		if err := dec.Decode(&item); err != nil {
			return &jsonFailure{err}
		}
		if err := unwrap(document{data: item, file: name, line: line, list: list}, use, bad, 1); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil { // the end of the array
		return &jsonFailure{err}
	}
	return nil
}

// jsonObject reads an object whose beginning has been read: one of Kubernetes,
// or a List of them.
func jsonObject(dec *json.Decoder, counter *lineCounter, name string, line int, use func(document) error, bad func(int, error)) error {
	fields := map[string]json.RawMessage{}
	size := 0
	isList := false
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return &jsonFailure{err}
		}
		key, ok := token.(string)
		if !ok {
			return &jsonFailure{errors.New("a key is no string")}
		}
		if key == "items" && !isList {
			var kind, version string
			_ = json.Unmarshal(fields["kind"], &kind)          // may follow the items
			_ = json.Unmarshal(fields["apiVersion"], &version) // likewise
			open, err := dec.Token()
			if err != nil {
				return &jsonFailure{err}
			}
			if open == nil {
				isList = true // "items": null
				continue
			}
			if open != json.Delim('[') {
				return &jsonFailure{errors.New("items is no list")}
			}
			isList = true
			if err := jsonItems(dec, counter, name, schema.FromAPIVersionAndKind(version, kind), use, bad); err != nil {
				return err
			}
			continue
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return &jsonFailure{err}
		}
		if size += len(key) + len(value); size <= maxDocument {
			fields[key] = value
		}
	}
	if _, err := dec.Token(); err != nil { // the end of the object
		return &jsonFailure{err}
	}
	if isList {
		return nil
	}
	if size > maxDocument {
		bad(line, fmt.Errorf("the document is larger than %d MiB", maxDocument>>20))
		return nil
	}
	data, err := json.Marshal(fields)
	if err != nil {
		bad(line, err)
		return nil
	}
	return unwrap(document{data: data, file: name, line: line}, use, bad, 0)
}

// lineCounter knows the line of an offset of a stream that is read ahead. It
// forgets the lines before an offset that was asked for.
type lineCounter struct {
	in     io.Reader
	offset int64
	ends   []int64 // offsets behind line ends that were read and not passed yet
	passed int
	first  int
}

func (c *lineCounter) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	for i, b := range p[:n] {
		if b == '\n' {
			c.ends = append(c.ends, c.offset+int64(i)+1)
		}
	}
	c.offset += int64(n)
	return n, err
}

// at returns the line of an offset. Offsets have to be asked in order.
func (c *lineCounter) at(offset int64) int {
	i := 0
	for i < len(c.ends) && c.ends[i] <= offset {
		i++
	}
	c.ends = c.ends[i:]
	c.passed += i
	return c.first + c.passed
}
