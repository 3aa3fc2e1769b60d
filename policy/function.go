package policy

import (
	"sort"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/parser"

	commoncel "cel.dev/cel-go/common"
)

// Function documents one function for the reference.
type Function struct{ Call, Doc string }

// Functions lists what expressions can call beside CEL's own functions, in the
// order of the reference.
var Functions = []Function{
	{"x.allows(action, resource)", "whether `x` (a grant, a role, a list of permissions, or an identity with everything that reaches it) allows the action on every resource of that type. Resources are written as on the connector's page: `secrets`, `pods/exec`, `deployments.apps`, `*.*`. Ask for `*` to find wildcards: `allows(\"*\", \"*.*\")` is true for administrators only"},
	{"x.allows(action, resource, name)", "the same, on the resource of that name"},
	{"x.writes()", "whether `x` can change anything (leases, events and access reviews do not count)"},
	{"age(time)", "how long ago that was; zero when the time is not known"},
	{"until(time)", "how long it is until then; zero when it has passed or is not known"},
	{"older_than(time, duration)", "whether the time is known and longer ago than that"},
	{"within(time, duration)", "whether the time is known, has not passed, and comes within that"},
	{"passed(time)", "whether the time is known and has passed"},
	{"days(duration)", "the whole days in a duration"},
	{"count(list, noun)", "`1 workload`, `3 workloads`: the size of a list (or a number) with its noun, for messages"},
	{"count(list, noun, plural)", "the same, where the plural is not formed with s"},
	{"distinct(list)", "the different texts in a list, sorted"},
	{"join(list, separator)", "the texts in a list, joined"},
	{"lower(text)", "the text in lower case"},
	{"trim_prefix(text, prefix)", "the text without that beginning"},
	{"glob(text, pattern)", "whether the text matches a pattern in which `*` stands for any run of characters"},
	{"is_production(environment)", "whether the word means production: production, prod, prd, live"},
	{"is_nonproduction(environment)", "whether the word is known and does not mean production"},
}

// env builds the environment that all policies share. It is built once: the
// standard library alone takes milliseconds.
func newEnv() (*cel.Env, error) {
	registry, err := types.NewRegistry()
	if err != nil {
		return nil, err
	}
	list := cel.ListType(permissionClass.typ)
	text, when, span := cel.StringType, cel.TimestampType, cel.DurationType
	texts := cel.ListType(text)

	var allows, writes []cel.FunctionOpt
	for _, of := range []struct {
		id string
		t  *cel.Type
	}{
		{"permissions", list},
		{"grant", grantClass.typ},
		{"grant_record", grantRecordClass.typ},
		{"role", roleClass.typ},
		{"identity", identityClass.typ},
	} {
		allows = append(allows,
			cel.MemberOverload(of.id+"_allows", []*cel.Type{of.t, text, text}, cel.BoolType, cel.FunctionBinding(allowsFunc)),
			cel.MemberOverload(of.id+"_allows_name", []*cel.Type{of.t, text, text, text}, cel.BoolType, cel.FunctionBinding(allowsFunc)))
		writes = append(writes,
			cel.MemberOverload(of.id+"_writes", []*cel.Type{of.t}, cel.BoolType, cel.UnaryBinding(writesFunc)))
	}

	return cel.NewCustomEnv(
		cel.StdLib(),
		cel.CustomTypeAdapter(registry),
		cel.CustomTypeProvider(&provider{Provider: registry, classes: classByName}),
		cel.Variable("now", when),
		cel.Variable("system", systemClass.typ),
		cel.HomogeneousAggregateLiterals(),
		cel.DefaultUTCTimeZone(true),
		cel.ParserExpressionSizeLimit(maxExpression),
		cel.ParserRecursionLimit(60),
		cel.ExpressionNodeLimit(4000),
		cel.RegexProgramSizeLimit(1000),
		cel.Macros(
			withNow("age", 1), withNow("until", 1), withNow("passed", 1),
			withNow("older_than", 2), withNow("within", 2),
		),
		cel.Function("allows", allows...),
		cel.Function("writes", writes...),
		cel.Function("age", cel.Overload("age", []*cel.Type{when, when}, span, cel.BinaryBinding(func(t, now ref.Val) ref.Val {
			return since(instant(t), instant(now))
		}))),
		cel.Function("until", cel.Overload("until", []*cel.Type{when, when}, span, cel.BinaryBinding(func(t, now ref.Val) ref.Val {
			return since(instant(now), instant(t))
		}))),
		cel.Function("passed", cel.Overload("passed", []*cel.Type{when, when}, cel.BoolType, cel.BinaryBinding(func(t, now ref.Val) ref.Val {
			return types.Bool(!instant(t).IsZero() && !instant(t).After(instant(now)))
		}))),
		cel.Function("older_than", cel.Overload("older_than", []*cel.Type{when, span, when}, cel.BoolType, cel.FunctionBinding(func(args ...ref.Val) ref.Val {
			t, d, now := instant(args[0]), args[1].(types.Duration).Duration, instant(args[2])
			return types.Bool(!t.IsZero() && now.Sub(t) > d)
		}))),
		cel.Function("within", cel.Overload("within", []*cel.Type{when, span, when}, cel.BoolType, cel.FunctionBinding(func(args ...ref.Val) ref.Val {
			t, d, now := instant(args[0]), args[1].(types.Duration).Duration, instant(args[2])
			return types.Bool(!t.IsZero() && t.After(now) && t.Sub(now) <= d)
		}))),
		cel.Function("days", cel.Overload("days", []*cel.Type{span}, cel.IntType, cel.UnaryBinding(func(d ref.Val) ref.Val {
			return types.Int(d.(types.Duration).Duration / (24 * time.Hour))
		}))),
		cel.Function("count",
			cel.Overload("count_int", []*cel.Type{cel.IntType, text}, text, cel.FunctionBinding(countFunc)),
			cel.Overload("count_list", []*cel.Type{cel.ListType(cel.DynType), text}, text, cel.FunctionBinding(countFunc)),
			cel.Overload("count_int_plural", []*cel.Type{cel.IntType, text, text}, text, cel.FunctionBinding(countFunc)),
			cel.Overload("count_list_plural", []*cel.Type{cel.ListType(cel.DynType), text, text}, text, cel.FunctionBinding(countFunc))),
		cel.Function("distinct", cel.Overload("distinct", []*cel.Type{texts}, texts, cel.UnaryBinding(func(v ref.Val) ref.Val {
			var out []string
			seen := map[string]bool{}
			for it := v.(traits.Lister).Iterator(); it.HasNext() == types.True; {
				s, _ := it.Next().Value().(string)
				if !seen[s] {
					seen[s] = true
					out = append(out, s)
				}
			}
			sort.Strings(out)
			return types.NewStringList(types.DefaultTypeAdapter, out)
		}))),
		cel.Function("join", cel.Overload("join", []*cel.Type{texts, text}, text, cel.BinaryBinding(func(v, sep ref.Val) ref.Val {
			var out []string
			for it := v.(traits.Lister).Iterator(); it.HasNext() == types.True; {
				s, _ := it.Next().Value().(string)
				out = append(out, s)
			}
			return types.String(strings.Join(out, sep.Value().(string)))
		}))),
		cel.Function("lower", cel.Overload("lower", []*cel.Type{text}, text, cel.UnaryBinding(func(v ref.Val) ref.Val {
			return types.String(strings.ToLower(v.Value().(string)))
		}))),
		cel.Function("trim_prefix", cel.Overload("trim_prefix", []*cel.Type{text, text}, text, cel.BinaryBinding(func(v, p ref.Val) ref.Val {
			return types.String(strings.TrimPrefix(v.Value().(string), p.Value().(string)))
		}))),
		cel.Function("glob", cel.Overload("glob", []*cel.Type{text, text}, cel.BoolType, cel.BinaryBinding(func(v, p ref.Val) ref.Val {
			return types.Bool(glob(p.Value().(string), v.Value().(string)))
		}))),
		cel.Function("is_production", cel.Overload("is_production", []*cel.Type{text}, cel.BoolType, cel.UnaryBinding(func(v ref.Val) ref.Val {
			return types.Bool(production(v.Value().(string)))
		}))),
		cel.Function("is_nonproduction", cel.Overload("is_nonproduction", []*cel.Type{text}, cel.BoolType, cel.UnaryBinding(func(v ref.Val) ref.Val {
			s := v.Value().(string)
			return types.Bool(s != "" && !production(s))
		}))),
	)
}

// withNow lets an author write age(t): the hidden last argument is the time of
// the evaluation, the same for all policies of a run.
func withNow(name string, args int) cel.Macro {
	return cel.GlobalMacro(name, args, func(h parser.ExprHelper, _ ast.Expr, given []ast.Expr) (ast.Expr, *commoncel.Error) {
		return h.NewCall(name, append(append([]ast.Expr{}, given...), h.NewIdent("now"))...), nil
	})
}

func instant(v ref.Val) time.Time { return v.(types.Timestamp).Time }

// since is the time from one instant to another, never below zero, and zero
// where one of them is not known.
func since(from, to time.Time) ref.Val {
	if from.IsZero() || to.IsZero() || to.Before(from) {
		return types.Duration{}
	}
	return types.Duration{Duration: to.Sub(from)}
}

func allowsFunc(args ...ref.Val) ref.Val {
	action, resource, name := string(args[1].(types.String)), string(args[2].(types.String)), ""
	if len(args) == 4 {
		name = string(args[3].(types.String))
	}
	if o, ok := args[0].(*identityObject); ok {
		if o.it.near != nil {
			for _, g := range o.it.near.reaching {
				if g.it.permissions.allows(action, resource, name) {
					return types.True
				}
			}
		}
		return types.False
	}
	p, ok := permissionsOf(args[0])
	if !ok {
		return types.MaybeNoSuchOverloadErr(args[0])
	}
	return types.Bool(p.allows(action, resource, name))
}

func writesFunc(v ref.Val) ref.Val {
	if o, ok := v.(*identityObject); ok {
		if o.it.near != nil {
			for _, g := range o.it.near.reaching {
				if g.it.permissions.writes() {
					return types.True
				}
			}
		}
		return types.False
	}
	p, ok := permissionsOf(v)
	if !ok {
		return types.MaybeNoSuchOverloadErr(v)
	}
	return types.Bool(p.writes())
}

func countFunc(args ...ref.Val) ref.Val {
	var n int64
	switch v := args[0].(type) {
	case types.Int:
		n = int64(v)
	case traits.Sizer:
		n = int64(v.Size().(types.Int))
	default:
		return types.MaybeNoSuchOverloadErr(args[0])
	}
	noun := string(args[1].(types.String))
	if n != 1 {
		if len(args) == 3 {
			noun = string(args[2].(types.String))
		} else {
			noun += "s"
		}
	}
	return types.String(strconv.FormatInt(n, 10) + " " + noun)
}

// production knows the words that mean it; connectors mostly write the first.
func production(environment string) bool {
	switch strings.ToLower(environment) {
	case "production", "prod", "prd", "live":
		return true
	}
	return false
}

// glob matches in linear time: with one kind of wildcard the earliest match of
// each piece is as good as any later one.
func glob(pattern, s string) bool {
	head, rest, wild := strings.Cut(pattern, "*")
	if !wild {
		return s == pattern
	}
	if !strings.HasPrefix(s, head) {
		return false
	}
	s = s[len(head):]
	for {
		piece, more, wild := strings.Cut(rest, "*")
		if !wild {
			return strings.HasSuffix(s, piece)
		}
		i := strings.Index(s, piece)
		if i < 0 {
			return false
		}
		s, rest = s[i+len(piece):], more
	}
}

// provider adds the classes to CEL's own types.
type provider struct {
	types.Provider
	classes map[string]*class
	params  *class // the parameters of one policy; nil in the shared environment
}

func (p *provider) class(name string) *class {
	if p.params != nil && name == p.params.name {
		return p.params
	}
	return p.classes[name]
}

func (p *provider) FindStructType(name string) (*types.Type, bool) {
	if c := p.class(name); c != nil {
		return types.NewTypeTypeWithParam(c.typ), true
	}
	return p.Provider.FindStructType(name)
}

func (p *provider) FindStructFieldNames(name string) ([]string, bool) {
	if c := p.class(name); c != nil {
		names := make([]string, len(c.docs))
		for i, d := range c.docs {
			names[i] = d.Name
		}
		return names, true
	}
	return p.Provider.FindStructFieldNames(name)
}

func (p *provider) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	if c := p.class(name); c != nil {
		f, ok := c.fields[field]
		return f, ok
	}
	return p.Provider.FindStructFieldType(name, field)
}

func (p *provider) NewValue(name string, fields map[string]ref.Val) ref.Val {
	if p.class(name) != nil {
		return types.NewErr("a record cannot be made in an expression")
	}
	return p.Provider.NewValue(name, fields)
}

// meter prices the functions whose work depends on the records, for the limit
// on what an expression may cost.
type meter struct{}

func (meter) CallCost(function, _ string, args []ref.Val, result ref.Val) *uint64 {
	cost := uint64(1)
	switch function {
	case "allows", "writes":
		switch o := args[0].(type) {
		case *identityObject:
			if o.it.near != nil {
				for _, g := range o.it.near.reaching {
					cost += uint64(len(g.it.permissions.rules))
				}
			}
		default:
			if p, ok := args[0].(*permissions); ok {
				cost += uint64(len(p.rules))
			} else if g, ok := args[0].(*grantObject); ok {
				cost += uint64(len(g.it.permissions.rules))
			} else if s, ok := args[0].(traits.Sizer); ok {
				cost += 10 * uint64(s.Size().(types.Int))
			}
		}
	case "distinct", "join":
		if s, ok := args[0].(traits.Sizer); ok {
			cost += uint64(s.Size().(types.Int))
		}
		// Joining what was joined before doubles a text with every step.
		if s, ok := result.(types.String); ok {
			cost += uint64(len(s)) / 10
		}
	case "glob", "lower", "trim_prefix":
		if s, ok := args[0].(types.String); ok {
			cost += uint64(len(s)) / 10
		}
	default:
		return nil
	}
	return &cost
}
