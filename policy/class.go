package policy

import (
	"fmt"
	"reflect"
	"sort"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"remit"
)

// A class is a type as expressions see it. The fields are declared one by one,
// with a getter each, instead of by reflection over the structs: that is what
// makes a field access a function call, and what lets a list of neighbours
// appear beside the fields of the record.
type class struct {
	name   string
	title  string // what it is, in words, for the reference
	typ    *cel.Type
	fields map[string]*types.FieldType
	docs   []Field

	// Native accessors of the fields on which a guard can decide without
	// entering the interpreter; see guard.go.
	text  map[string]func(any) string
	flag  map[string]func(any) bool
	words map[string]func(any) map[string]string
}

// Field documents one field of a type for the reference.
type Field struct{ Name, Type, Doc string }

// object is a value of a class. T is the data behind it.
type object[T any] struct {
	class *class
	it    T
}

func (o *object[T]) Type() ref.Type { return o.class.typ }
func (o *object[T]) Value() any     { return o }

func (o *object[T]) ConvertToNative(t reflect.Type) (any, error) {
	if reflect.TypeOf(o).AssignableTo(t) {
		return o, nil
	}
	return nil, fmt.Errorf("a %s is no %s", o.class.name, t)
}

func (o *object[T]) ConvertToType(t ref.Type) ref.Val {
	switch {
	case t == types.TypeType:
		return o.class.typ
	case t.TypeName() == o.class.name:
		return o
	}
	return types.NewErr("a %s is no %s", o.class.name, t.TypeName())
}

func (o *object[T]) Equal(other ref.Val) ref.Val {
	if other == ref.Val(o) {
		return types.True
	}
	a, ok := subjectOf(o)
	b, also := subjectOf(other)
	return types.Bool(ok && also && a.ID != "" && a.ID == b.ID)
}

// Get and IsSet serve the places in which CEL does not know the type, such as
// an element of a list that mixes records.
func (o *object[T]) Get(index ref.Val) ref.Val {
	name, ok := index.(types.String)
	if !ok {
		return types.NewErr("a field is named by a string")
	}
	f, ok := o.class.fields[string(name)]
	if !ok {
		return types.NewErr("no such field: %s", string(name))
	}
	v, err := f.GetFrom(o)
	if err != nil {
		return types.WrapErr(err)
	}
	return v.(ref.Val)
}

func (o *object[T]) IsSet(field ref.Val) ref.Val {
	name, _ := field.(types.String)
	f, ok := o.class.fields[string(name)]
	if !ok {
		return types.NewErr("no such field: %s", string(name))
	}
	return types.Bool(f.IsSet(o))
}

// subjectOf is a record as it is named in a finding.
func subjectOf(v ref.Val) (remit.Subject, bool) {
	switch o := v.(type) {
	case *identityObject:
		return o.it.subject(), true
	case *credentialObject:
		return o.it.subject(), true
	case *grantObject:
		return o.it.subject(), true
	case *roleObject:
		return o.it.subject(), true
	case *resourceObject:
		return o.it.subject(), true
	}
	return remit.Subject{}, false
}

func newClass(name, title string) *class {
	return &class{
		name: name, title: title,
		typ:    cel.ObjectType(name),
		fields: map[string]*types.FieldType{},
		text:   map[string]func(any) string{},
		flag:   map[string]func(any) bool{},
		words:  map[string]func(any) map[string]string{},
	}
}

// field declares a field. get is given a *object[T].
func field[T any](c *class, name string, t *cel.Type, doc string, set func(*object[T]) bool, get func(*object[T]) ref.Val) {
	c.docs = append(c.docs, Field{name, typeWord(t), doc})
	c.fields[name] = &types.FieldType{
		Type: t,
		IsSet: func(target any) bool {
			o, ok := target.(*object[T])
			return ok && set(o)
		},
		GetFrom: func(target any) (any, error) {
			o, ok := target.(*object[T])
			if !ok {
				return nil, fmt.Errorf("field %s: unexpected %T", name, target)
			}
			return get(o), nil
		},
	}
}

func textField[T any](c *class, name, doc string, get func(*object[T]) string) {
	field(c, name, cel.StringType, doc,
		func(o *object[T]) bool { return get(o) != "" },
		func(o *object[T]) ref.Val { return types.String(get(o)) })
	c.text[name] = func(o any) string { return get(o.(*object[T])) }
}

func flagField[T any](c *class, name, doc string, get func(*object[T]) bool) {
	field(c, name, cel.BoolType, doc, get, func(o *object[T]) ref.Val { return types.Bool(get(o)) })
	c.flag[name] = func(o any) bool { return get(o.(*object[T])) }
}

func numberField[T any](c *class, name, doc string, get func(*object[T]) int64) {
	field(c, name, cel.IntType, doc,
		func(o *object[T]) bool { return get(o) != 0 },
		func(o *object[T]) ref.Val { return types.Int(get(o)) })
}

func timeField[T any](c *class, name, doc string, get func(*object[T]) time.Time) {
	field(c, name, cel.TimestampType, doc,
		func(o *object[T]) bool { return !get(o).IsZero() },
		func(o *object[T]) ref.Val { return types.Timestamp{Time: get(o)} })
}

// secondsField shows a number of seconds as the duration that it means.
func secondsField[T any](c *class, name, doc string, get func(*object[T]) int64) {
	field(c, name, cel.DurationType, doc,
		func(o *object[T]) bool { return get(o) != 0 },
		func(o *object[T]) ref.Val { return types.Duration{Duration: time.Duration(get(o)) * time.Second} })
}

func textsField[T any](c *class, name, doc string, get func(*object[T]) []string) {
	field(c, name, cel.ListType(cel.StringType), doc,
		func(o *object[T]) bool { return len(get(o)) > 0 },
		func(o *object[T]) ref.Val {
			if s := get(o); len(s) > 0 {
				return types.NewStringList(types.DefaultTypeAdapter, s)
			}
			return emptyList
		})
}

func wordsField[T any](c *class, name, doc string, get func(*object[T]) map[string]string) {
	field(c, name, cel.MapType(cel.StringType, cel.StringType), doc,
		func(o *object[T]) bool { return len(get(o)) > 0 },
		func(o *object[T]) ref.Val { return words(get(o)) })
	c.words[name] = func(o any) map[string]string { return get(o.(*object[T])) }
}

func listField[T any](c *class, name string, of *class, doc string, get func(*object[T]) traits.Lister) {
	field(c, name, cel.ListType(of.typ), doc,
		func(o *object[T]) bool { return get(o).Size() != types.IntZero },
		func(o *object[T]) ref.Val { return get(o) })
}

func objectField[T any](c *class, name string, of *class, doc string, set func(*object[T]) bool, get func(*object[T]) ref.Val) {
	field(c, name, of.typ, doc, set, get)
}

var emptyList = types.NewRefValList(types.DefaultTypeAdapter, nil)

// typeWord names a type in the reference.
func typeWord(t *cel.Type) string {
	switch t.Kind() {
	case types.ListKind:
		return "list of " + typeWord(t.Parameters()[0])
	case types.MapKind:
		return "map of " + typeWord(t.Parameters()[1])
	case types.StructKind:
		return t.TypeName()
	}
	switch t.TypeName() {
	case "google.protobuf.Timestamp":
		return "timestamp"
	case "google.protobuf.Duration":
		return "duration"
	}
	return t.TypeName()
}

// words is a map of labels or attributes. A key that is not there reads as "",
// so that an expression need not ask first; `in` and has() tell whether it is
// there. That is why it is an Indexer and not CEL's Mapper, whose missing keys
// are errors.
type words map[string]string

// FindStringKey is the interpreter's fast path.
func (w words) FindStringKey(key string) (any, bool) {
	s, ok := w[key]
	return types.String(s), ok
}

func (w words) Get(index ref.Val) ref.Val {
	key, ok := index.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(index)
	}
	return types.String(w[string(key)])
}

func (w words) IsSet(index ref.Val) ref.Val { return w.Contains(index) }

func (w words) Contains(index ref.Val) ref.Val {
	key, ok := index.(types.String)
	if !ok {
		return types.False
	}
	_, ok = w[string(key)]
	return types.Bool(ok)
}

func (w words) Size() ref.Val  { return types.Int(len(w)) }
func (w words) Type() ref.Type { return types.MapType }
func (w words) Value() any     { return map[string]string(w) }

// Iterator goes through the keys in their order, so that a message made from
// them is the same every time.
func (w words) Iterator() traits.Iterator {
	keys := make([]string, 0, len(w))
	for k := range w {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return types.NewStringList(types.DefaultTypeAdapter, keys).Iterator()
}

func (w words) ConvertToNative(t reflect.Type) (any, error) {
	return types.NewStringStringMap(types.DefaultTypeAdapter, w).ConvertToNative(t)
}

func (w words) ConvertToType(t ref.Type) ref.Val {
	return types.NewStringStringMap(types.DefaultTypeAdapter, w).ConvertToType(t)
}

func (w words) Equal(other ref.Val) ref.Val {
	var rest map[string]string
	switch o := other.(type) {
	case words:
		rest = o
	case traits.Mapper:
		return o.Equal(types.NewStringStringMap(types.DefaultTypeAdapter, w))
	default:
		return types.False
	}
	if len(rest) != len(w) {
		return types.False
	}
	for k, v := range w {
		if got, ok := rest[k]; !ok || got != v {
			return types.False
		}
	}
	return types.True
}

// Type documents a type of the expressions for the reference.
type Type struct {
	Name, Title string
	Fields      []Field
}

// Types lists the types that expressions see, the subjects first.
func Types() []Type {
	out := make([]Type, len(classes))
	for i, c := range classes {
		out[i] = Type{Name: c.name, Title: c.title, Fields: append([]Field(nil), c.docs...)}
	}
	return out
}
