package sigma

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strconv"

	"go.yaml.in/yaml/v3"

	"remit"
)

// What a rule file may hold. Real rules stay far below; what is above would
// only cost memory.
const (
	maxFile  = 1 << 20 // bytes
	maxNodes = 100_000 // YAML nodes a document, aliases counted where they are used
	maxDepth = 32      // YAML nesting
)

func at(name string, line int) string {
	if name == "" {
		name = "rule"
	}
	return name + ":" + strconv.Itoa(line)
}

// fault is an error of a document with its place.
func fault(name string, line int, field, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	if field != "" {
		what = field + ": " + what
	}
	return remit.Errorf(remit.Invalid, "parse rule", "%s: %s", at(name, line), what)
}

// yamlKind is the sort of a YAML value.
type yamlKind uint8

const (
	yamlNull yamlKind = iota
	yamlString
	yamlInt
	yamlFloat
	yamlBool
	yamlList
	yamlMap
)

// value is one YAML value. Unlike yaml.Node it has its aliases resolved and its
// size checked; unlike decoded values it has its line and the order of its keys.
type value struct {
	kind yamlKind
	text string // of a scalar, as written
	line int
	keys []string // of a map
	list []*value // of a list, or the map's values in the order of keys
}

func (v *value) get(key string) *value {
	if v == nil || v.kind != yamlMap {
		return nil
	}
	for i, k := range v.keys {
		if k == key {
			return v.list[i]
		}
	}
	return nil
}

func (v *value) scalar() bool { return v != nil && v.kind != yamlList && v.kind != yamlMap }

// documents splits a file into its YAML documents.
func documents(name string, doc []byte) ([]*value, error) {
	if len(doc) > maxFile {
		return nil, fault(name, 1, "", "the file has %d bytes: at most %d are read", len(doc), maxFile)
	}
	var all []*value
	for decoder := yaml.NewDecoder(bytes.NewReader(doc)); ; {
		var node yaml.Node
		if err := decode(decoder, &node); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return all, remit.Errorf(remit.Invalid, "parse rule", "%s: not YAML: %w", path.Clean(name), err)
		}
		if len(node.Content) == 0 || node.Content[0].Tag == "!!null" {
			continue // an empty document between two "---"
		}
		r := reader{name: name, left: maxNodes}
		v, err := r.value(node.Content[0], 0)
		if err != nil {
			return all, err
		}
		all = append(all, v)
	}
}

// decode is decoder.Decode that cannot panic: the library turns its own
// failures into errors, but its input here is anybody's.
func decode(decoder *yaml.Decoder, node *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the YAML cannot be read: %v", r)
		}
	}()
	return decoder.Decode(node)
}

type reader struct {
	name string
	left int
}

func (r *reader) value(n *yaml.Node, depth int) (*value, error) {
	if r.left--; r.left < 0 {
		return nil, fault(r.name, n.Line, "", "the document has more than %d values: aliases count where they are used", maxNodes)
	}
	if depth > maxDepth {
		return nil, fault(r.name, n.Line, "", "nested deeper than %d", maxDepth)
	}
	v := &value{line: n.Line}
	switch n.Kind {
	case yaml.AliasNode:
		return r.value(n.Alias, depth+1)
	case yaml.SequenceNode:
		v.kind = yamlList
		for _, item := range n.Content {
			e, err := r.value(item, depth+1)
			if err != nil {
				return nil, err
			}
			v.list = append(v.list, e)
		}
	case yaml.MappingNode:
		v.kind = yamlMap
		if err := r.mapping(v, n, depth); err != nil {
			return nil, err
		}
	case yaml.ScalarNode:
		v.text = n.Value
		switch n.ShortTag() {
		case "!!null":
			v.kind = yamlNull
		case "!!bool":
			v.kind = yamlBool
		case "!!int":
			v.kind = yamlInt
		case "!!float":
			v.kind = yamlFloat
		default:
			v.kind = yamlString
		}
	default:
		return nil, fault(r.name, n.Line, "", "not a value")
	}
	return v, nil
}

func (r *reader) mapping(v *value, n *yaml.Node, depth int) error {
	seen := make(map[string]bool, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			return fault(r.name, key.Line, "", "a key is a list or a map: use a string")
		}
		if key.ShortTag() == "!!merge" {
			return fault(r.name, key.Line, "<<", "merge keys are not part of Sigma: write the fields out")
		}
		if seen[key.Value] {
			return fault(r.name, key.Line, key.Value, "the key is there twice: only one of them would count")
		}
		seen[key.Value] = true
		e, err := r.value(n.Content[i+1], depth+1)
		if err != nil {
			return err
		}
		v.keys, v.list = append(v.keys, key.Value), append(v.list, e)
	}
	return nil
}

// any returns v as decoded YAML.
func (v *value) any() any {
	switch v.kind {
	case yamlNull:
		return nil
	case yamlBool:
		return v.text == "true" || v.text == "True" || v.text == "TRUE"
	case yamlInt:
		if i, err := strconv.ParseInt(v.text, 0, 64); err == nil {
			return int(i)
		}
		return v.text
	case yamlFloat:
		if f, err := strconv.ParseFloat(v.text, 64); err == nil && !math.IsInf(f, 0) {
			return f
		}
		return v.text
	case yamlList:
		list := make([]any, len(v.list))
		for i, e := range v.list {
			list[i] = e.any()
		}
		return list
	case yamlMap:
		m := make(map[string]any, len(v.keys))
		for i, k := range v.keys {
			m[k] = v.list[i].any()
		}
		return m
	}
	return v.text
}

// merge returns over laid over v: maps are joined key by key, anything else is
// replaced.
func (v *value) merge(over *value) *value {
	if v == nil || v.kind != yamlMap || over.kind != yamlMap {
		return over
	}
	m := &value{kind: yamlMap, line: over.line, keys: append([]string(nil), v.keys...), list: append([]*value(nil), v.list...)}
	place := make(map[string]int, len(m.keys))
	for i, k := range m.keys {
		place[k] = i
	}
	for i, k := range over.keys {
		if p, ok := place[k]; ok {
			m.list[p] = m.list[p].merge(over.list[i])
		} else {
			m.keys, m.list = append(m.keys, k), append(m.list, over.list[i])
		}
	}
	return m
}
