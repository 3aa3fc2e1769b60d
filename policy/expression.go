package policy

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"remit"
)

const (
	// maxExpression is the length of one expression, in characters.
	maxExpression = 8000

	// maxCost stops an expression that works too much on one subject, in
	// CEL's units: about a tenth of a second. The built-in policies need some
	// hundreds.
	maxCost = 500_000
)

// expression is one compiled CEL expression.
type expression struct {
	source  string
	program cel.Program
	ast     *ast.AST
	output  *cel.Type
}

// frame holds what an expression can name. One serves all policies of one
// subject.
type frame struct {
	subject ref.Val
	now     ref.Val
	system  ref.Val
	params  ref.Val // of the policy
}

// ResolveName implements CEL's activation.
func (f *frame) ResolveName(name string) (any, bool) {
	switch name {
	case "identity", "credential", "grant":
		return f.subject, true
	case "params":
		return f.params, true
	case "now":
		return f.now, true
	case "system":
		return f.system, true
	}
	return nil, false
}

// Parent implements CEL's activation.
func (f *frame) Parent() cel.Activation { return nil }

func (e *expression) eval(f *frame) (ref.Val, error) {
	v, _, err := e.program.Eval(f)
	if err != nil {
		return nil, plainError(err)
	}
	if types.IsUnknownOrError(v) {
		return nil, errors.New("no value")
	}
	return v, nil
}

func (e *expression) holds(f *frame) (bool, error) {
	v, err := e.eval(f)
	return v == types.True, err
}

func plainError(err error) error {
	if strings.Contains(err.Error(), "cost limit") {
		return errors.New("the expression works too much on this subject: it was stopped")
	}
	return err
}

// compile parses and checks an expression whose first character is the given
// one of the text. It reports all faults in it.
func compile(env *cel.Env, t text, start int, source string, report fault) *expression {
	checked, issues := env.Compile(source)
	if issues != nil && issues.Err() != nil {
		lines := strings.Split(source, "\n")
		for _, e := range issues.Errors() {
			// CEL's line and column, in characters, to an offset in the text.
			offset := start
			for i := 0; i < e.Location.Line()-1 && i < len(lines); i++ {
				offset += len([]rune(lines[i])) + 1
			}
			offset += max(e.Location.Column(), 0)
			message, shift := plainIssue(e.Message, []rune(source), offset-start)
			report(t, offset+shift, message)
		}
		return nil
	}
	program, err := env.Program(checked,
		cel.EvalOptions(cel.OptOptimize),
		cel.CostTracking(meter{}),
		cel.CostLimit(maxCost),
	)
	if err != nil {
		report(t, start, err.Error())
		return nil
	}
	return &expression{source: source, program: program, ast: checked.NativeRep(), output: checked.OutputType()}
}

var (
	undefinedField = regexp.MustCompile(`^undefined field '([^']*)'`)
	undeclaredName = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
)

// plainIssue says what CEL says in words for people who do not know CEL, and
// what the misspelt word may have been. shift leads from where CEL points (the
// dot before a field, the parenthesis behind a function) to the word itself.
func plainIssue(message string, source []rune, at int) (plain string, shift int) {
	if m := undefinedField.FindStringSubmatch(message); m != nil {
		var known []string
		for _, c := range classes {
			for _, d := range c.docs {
				known = append(known, d.Name)
			}
		}
		if at < len(source) && source[at] == '.' {
			shift = 1
		}
		return "no field " + quote(m[1]) + meant(m[1], known), shift
	}
	if m := undeclaredName.FindStringSubmatch(message); m != nil {
		known := []string{"identity", "credential", "grant", "now", "params", "system"}
		for _, f := range Functions {
			name, _, _ := strings.Cut(strings.TrimPrefix(f.Call, "x."), "(")
			known = append(known, name)
		}
		name := []rune(m[1])
		if at <= len(source) && at >= len(name) && string(source[at-len(name):at]) == m[1] {
			shift = -len(name)
		}
		if known := []string{"identity", "credential", "grant"}; slices.Contains(known, m[1]) {
			return quote(m[1]) + " is not the subject of this policy", shift
		}
		return "unknown name " + quote(m[1]) + meant(m[1], known), shift
	}
	return message, 0
}

func meant(word string, known []string) string {
	if k := nearest(word, known); k != "" {
		return " (did you mean " + quote(k) + "?)"
	}
	return ""
}

func quote(s string) string { return "“" + s + "”" }

// variable is the name under which an expression sees its subject.
func variable(kind remit.RecordKind) (string, *class) {
	switch kind {
	case remit.KindIdentity:
		return "identity", identityClass
	case remit.KindCredential:
		return "credential", credentialClass
	case remit.KindGrant:
		return "grant", grantClass
	}
	return "", nil
}
