package policy

import (
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// guard is a condition that must hold for a match and that needs no
// interpreter: most policies begin with what they are not about
// (`credential.type == "certificate" && …`), so that most evaluations end
// here. In CEL false && anything is false, even an error, so a guard never
// changes a result.
type guard func(subject any) bool

// guards finds the conjuncts of an expression that are simple comparisons of a
// field of the subject.
func guards(e ast.Expr, variable string, c *class) []guard {
	if e.Kind() == ast.CallKind && e.AsCall().FunctionName() == operators.LogicalAnd {
		var out []guard
		for _, arg := range e.AsCall().Args() {
			out = append(out, guards(arg, variable, c)...)
		}
		return out
	}
	if g := simple(e, variable, c); g != nil {
		return []guard{g}
	}
	return nil
}

func simple(e ast.Expr, variable string, c *class) guard {
	if f := flagOf(e, variable, c); f != nil {
		return f
	}
	if e.Kind() != ast.CallKind {
		return nil
	}
	call := e.AsCall()
	args := call.Args()
	switch call.FunctionName() {
	case operators.LogicalNot:
		if f := flagOf(args[0], variable, c); f != nil {
			return func(o any) bool { return !f(o) }
		}
	case operators.Equals, operators.NotEquals:
		get, want, ok := textOf(args[0], variable, c), "", false
		if get != nil {
			want, ok = constant(args[1])
		} else if get = textOf(args[1], variable, c); get != nil {
			want, ok = constant(args[0])
		}
		if get == nil || !ok {
			return nil
		}
		if call.FunctionName() == operators.Equals {
			return func(o any) bool { return get(o) == want }
		}
		return func(o any) bool { return get(o) != want }
	case operators.In:
		get := textOf(args[0], variable, c)
		if get == nil || args[1].Kind() != ast.ListKind {
			return nil
		}
		var all []string
		for _, el := range args[1].AsList().Elements() {
			s, ok := constant(el)
			if !ok {
				return nil
			}
			all = append(all, s)
		}
		return func(o any) bool {
			have := get(o)
			for _, s := range all {
				if s == have {
					return true
				}
			}
			return false
		}
	}
	return nil
}

func constant(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().(types.String)
	return string(s), ok
}

// flagOf: the subject's field is true, or is set.
func flagOf(e ast.Expr, variable string, c *class) guard {
	if e.Kind() != ast.SelectKind || !isVariable(e.AsSelect().Operand(), variable) {
		return nil
	}
	name := e.AsSelect().FieldName()
	if e.AsSelect().IsTestOnly() {
		if f := c.fields[name]; f != nil && !neighbourly(c, name) {
			return func(o any) bool { return f.IsSet(o) }
		}
		return nil
	}
	return c.flag[name]
}

// textOf: a text field of the subject, or one of its labels or attributes.
func textOf(e ast.Expr, variable string, c *class) func(any) string {
	var operand ast.Expr
	var key string
	switch e.Kind() {
	case ast.SelectKind:
		if e.AsSelect().IsTestOnly() {
			return nil
		}
		operand, key = e.AsSelect().Operand(), e.AsSelect().FieldName()
		if isVariable(operand, variable) {
			return c.text[key]
		}
	case ast.CallKind:
		if e.AsCall().FunctionName() != operators.Index {
			return nil
		}
		k, ok := constant(e.AsCall().Args()[1])
		if !ok {
			return nil
		}
		operand, key = e.AsCall().Args()[0], k
	default:
		return nil
	}
	if operand.Kind() != ast.SelectKind || operand.AsSelect().IsTestOnly() || !isVariable(operand.AsSelect().Operand(), variable) {
		return nil
	}
	if get := c.words[operand.AsSelect().FieldName()]; get != nil {
		return func(o any) string { return get(o)[key] }
	}
	return nil
}

func isVariable(e ast.Expr, name string) bool {
	return e.Kind() == ast.IdentKind && e.AsIdent() == name
}
