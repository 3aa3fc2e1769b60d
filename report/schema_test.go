package report

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"remit"
)

const schemaFile = "../docs/reference/scan.schema.json"

func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	s, err := c.Compile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, document []byte) {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	if err != nil {
		t.Fatalf("the document is no JSON: %v", err)
	}
	if err := s.Validate(v); err != nil {
		t.Errorf("the document does not follow its schema: %v", err)
	}
}

func TestDocumentFollowsSchema(t *testing.T) {
	s := compiledSchema(t)
	for name, d := range map[string]*Document{"sample": sample(), "empty": {}, "full": full(t)} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := WriteJSON(&b, d.Source()); err != nil {
				t.Fatal(err)
			}
			validate(t, s, b.Bytes())
			if bytes.Contains(b.Bytes(), []byte("null")) {
				t.Error("a list is null")
			}
		})
	}
}

// full is a document in which every field of every record is set, to values that
// make trouble: times that JSON cannot hold, and no lists where the format
// promises lists.
func full(t *testing.T) *Document {
	d := &Document{}
	fill(reflect.ValueOf(d).Elem())
	d.Roles = append(d.Roles, remit.Role{Record: d.Roles[0].Record})
	d.Grants[0].Permissions = []remit.Permission{{}}
	d.Findings = append(d.Findings, d.Findings[0])
	d.Findings[1].Evidence, d.Findings[1].Risks, d.Findings[1].Controls = nil, nil, nil
	d.Findings[1].State = ""
	return d
}

func fill(v reflect.Value) {
	switch value := v.Addr().Interface().(type) {
	case *time.Time:
		*value = time.Date(60000, 1, 2, 3, 4, 5, 6, time.FixedZone("odd", 25*3600+7))
		return
	case *remit.ID:
		*value = remit.SystemID("a", "b")
		return
	case *Summary:
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("k"), reflect.ValueOf("v"))
	case reflect.String:
		if v.Type().PkgPath() == "remit" {
			v.SetString(constants[v.Type().Name()][0])
		} else {
			v.SetString("text")
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	}
}

// constants are the values of each string type of the vocabulary, read from its
// source, so that one added there is missed here.
var constants = func() map[string][]string {
	names, err := filepath.Glob("../*.go")
	if err != nil {
		panic(err)
	}
	values := map[string][]string{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			panic(err)
		}
		for _, decl := range file.Decls {
			g, ok := decl.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, spec := range g.Specs {
				c := spec.(*ast.ValueSpec)
				of, ok := c.Type.(*ast.Ident)
				if !ok || len(c.Values) != 1 {
					continue
				}
				if lit, ok := c.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
					v, _ := strconv.Unquote(lit.Value)
					values[of.Name] = append(values[of.Name], v)
				}
			}
		}
	}
	return values
}()

type schemaObject struct {
	Type        any                      `json:"type"`
	Description string                   `json:"description"`
	Ref         string                   `json:"$ref"`
	Format      string                   `json:"format"`
	Enum        []string                 `json:"enum"`
	Items       *schemaObject            `json:"items"`
	Properties  map[string]*schemaObject `json:"properties"`
	Required    []string                 `json:"required"`
	Defs        map[string]*schemaObject `json:"$defs"`
}

// TestSchemaIsComplete goes through every field that a document can have, as
// encoding/json sees it, and through the schema beside it.
func TestSchemaIsComplete(t *testing.T) {
	text, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	var root schemaObject
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	c := &completeness{t: t, root: &root, used: map[string]bool{}}
	c.object(reflect.TypeFor[Document](), &root, "document")
	for name := range root.Defs {
		if !c.used[name] {
			t.Errorf("$defs/%s is used by no field", name)
		}
	}
}

type completeness struct {
	t    *testing.T
	root *schemaObject
	used map[string]bool
}

func (c *completeness) resolve(s *schemaObject, where string) *schemaObject {
	if s.Ref == "" {
		return s
	}
	name, ok := strings.CutPrefix(s.Ref, "#/$defs/")
	if !ok || c.root.Defs[name] == nil {
		c.t.Errorf("%s: no %s", where, s.Ref)
		return &schemaObject{}
	}
	c.used[name] = true
	return c.root.Defs[name]
}

func (c *completeness) object(t reflect.Type, s *schemaObject, where string) {
	s = c.resolve(s, where)
	known := map[string]bool{}
	var walk func(reflect.Type)
	walk = func(t reflect.Type) {
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Anonymous && f.Tag.Get("json") == "" {
				walk(f.Type)
				continue
			}
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" || name == "-" {
				c.t.Errorf("%s: field %s has no name in JSON", where, f.Name)
				continue
			}
			known[name] = true
			property := s.Properties[name]
			if property == nil {
				c.t.Errorf("%s.%s (%s) is not in the schema", where, name, f.Type)
				continue
			}
			if property.Description == "" {
				c.t.Errorf("%s.%s has no description", where, name)
			}
			if always := !strings.Contains(options, "omit"); always != slices.Contains(s.Required, name) {
				c.t.Errorf("%s.%s: always written: %v, required by the schema: %v", where, name, always, !always)
			}
			c.value(f.Type, property, where+"."+name)
		}
	}
	walk(t)
	for name := range s.Properties {
		if !known[name] {
			c.t.Errorf("%s.%s is in the schema only", where, name)
		}
	}
}

func (c *completeness) value(t reflect.Type, s *schemaObject, where string) {
	switch t {
	case reflect.TypeFor[time.Time]():
		if s.Format != "date-time" {
			c.t.Errorf("%s is a time and the schema does not say so", where)
		}
		return
	case reflect.TypeFor[remit.ID]():
		if s.Ref != "#/$defs/id" {
			c.t.Errorf("%s is an id and the schema does not say so", where)
		}
		c.used["id"] = true
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		c.object(t, s, where)
	case reflect.Slice:
		if s.Type != "array" || s.Items == nil {
			c.t.Errorf("%s is a list and the schema does not say so", where)
			return
		}
		c.value(t.Elem(), s.Items, where+"[]")
	case reflect.String:
		s = c.resolve(s, where)
		if t.PkgPath() == "remit" {
			want, got := slices.Sorted(slices.Values(constants[t.Name()])), slices.Sorted(slices.Values(s.Enum))
			if !slices.Equal(want, got) {
				c.t.Errorf("%s (%s): the schema allows %q, the vocabulary has %q", where, t, got, want)
			}
		}
	case reflect.Map:
		if t.Key().PkgPath() == "remit" {
			want := slices.Sorted(slices.Values(constants[t.Key().Name()]))
			if got := slices.Sorted(slices.Values(s.Required)); !slices.Equal(want, got) {
				c.t.Errorf("%s: the schema requires %q, the vocabulary has %q", where, got, want)
			}
		}
	}
}
