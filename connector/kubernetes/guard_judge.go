package kubernetes

import (
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"remit"
)

// GuardJudge tells what a guard would refuse, with the expressions that it gives
// to the API server. It is safe for concurrent use.
type GuardJudge struct {
	rules []judgedRule
}

type judgedRule struct {
	rule       GuardRule
	leaveOut   []string // namespaces
	resources  []judgedResource
	conditions []cel.Program
	variables  []judgedVariable
}

type judgedResource struct {
	operation, group, resource string // of a subresource with it
}

type judgedVariable struct {
	name    string
	program cel.Program
}

// GuardRequest is a request to change something, as admission sees it.
type GuardRequest struct {
	Operation string // "CREATE" or "UPDATE"
	Group     string
	Resource  string // "serviceaccounts"
	Sub       string // its subresource, or ""
	Namespace string
	Name      string
	User      string // who asks; "" is nobody who is exempt
	Groups    []string

	// Object is what is written, of JSON, its numbers int64 or float64; nil when
	// that is not known. Old is what is there before, Home the namespace.
	Object, Old, Home map[string]any
}

// GuardViolation is what a rule says against a request.
type GuardViolation struct {
	Rule    GuardRule
	Message string // "" when the request is not known well enough to judge
}

// NewGuardJudge compiles the rules of a guard that are on.
func NewGuardJudge(g Guard) (*GuardJudge, error) {
	const op = "compile guard"
	if err := g.Check(); err != nil {
		return nil, err
	}
	options := []cel.EnvOption{
		cel.OptionalTypes(), cel.CrossTypeNumericComparisons(true), cel.HomogeneousAggregateLiterals(), ext.Strings(),
		cel.Variable("variables", cel.MapType(cel.StringType, cel.DynType)),
	}
	for _, name := range []string{"object", "oldObject", "request", "namespaceObject"} {
		options = append(options, cel.Variable(name, cel.DynType))
	}
	env, err := cel.NewEnv(options...)
	if err != nil {
		return nil, remit.Errorf(remit.Internal, op, "%w", err)
	}
	compile := func(rule GuardRule, name, expression string) (cel.Program, error) {
		ast, issues := env.Compile(expression)
		if issues.Err() != nil {
			return nil, remit.Errorf(remit.Internal, op, "%s: %s: %w", rule, name, issues.Err())
		}
		program, err := env.Program(ast, cel.CostLimit(guardCost))
		if err != nil {
			return nil, remit.Errorf(remit.Internal, op, "%s: %s: %w", rule, name, err)
		}
		return program, nil
	}
	j := &GuardJudge{}
	for _, rule := range GuardRules {
		policy, _ := g.objects(rule, "")
		if policy == nil {
			continue
		}
		one := judgedRule{rule: rule}
		for _, e := range policy.Spec.MatchConstraints.NamespaceSelector.MatchExpressions {
			one.leaveOut = append(one.leaveOut, e.Values...)
		}
		for _, r := range policy.Spec.MatchConstraints.ResourceRules {
			for _, operation := range r.Operations {
				for _, resource := range r.Resources {
					one.resources = append(one.resources, judgedResource{string(operation), r.APIGroups[0], resource})
				}
			}
		}
		for _, c := range policy.Spec.MatchConditions {
			program, err := compile(rule, c.Name, c.Expression)
			if err != nil {
				return nil, err
			}
			one.conditions = append(one.conditions, program)
		}
		for _, v := range policy.Spec.Variables {
			program, err := compile(rule, v.Name, v.Expression)
			if err != nil {
				return nil, err
			}
			one.variables = append(one.variables, judgedVariable{v.Name, program})
		}
		j.rules = append(j.rules, one)
	}
	return j, nil
}

// guardCost is what one expression may cost, as in the API server
// (k8s.io/apiserver pkg/apis/cel: PerCallLimit).
const guardCost = 1_000_000

// Judge says which rules are broken by a request, in their order, and which can
// not be judged because its object is not known. An error is of the first rule
// that could not be evaluated; those before it stand.
func (j *GuardJudge) Judge(q GuardRequest) ([]GuardViolation, error) {
	var found []GuardViolation
	for _, rule := range j.rules {
		if !rule.about(q) {
			continue
		}
		message, applies, err := rule.judge(q)
		switch {
		case err != nil:
			return found, err
		case !applies:
		case q.Object == nil:
			found = append(found, GuardViolation{Rule: rule.rule})
		case message != "":
			found = append(found, GuardViolation{rule.rule, message})
		}
	}
	return found, nil
}

func (r *judgedRule) about(q GuardRequest) bool {
	resource := q.Resource
	if q.Sub != "" {
		resource += "/" + q.Sub
	}
	return slices.Contains(r.resources, judgedResource{q.Operation, q.Group, resource}) && !slices.Contains(r.leaveOut, q.Namespace)
}

// judge evaluates the rule, as far as the object is known.
func (r *judgedRule) judge(q GuardRequest) (message string, applies bool, err error) {
	request := map[string]any{
		"operation": q.Operation, "namespace": q.Namespace, "name": q.Name, "subResource": q.Sub,
		"resource": map[string]any{"group": q.Group, "version": "v1", "resource": q.Resource},
		"userInfo": map[string]any{"username": q.User, "groups": q.Groups},
	}
	variables := map[string]any{}
	input := map[string]any{"request": request, "object": known(q.Object), "oldObject": known(q.Old), "namespaceObject": known(q.Home), "variables": variables}
	for _, c := range r.conditions {
		out, _, err := c.Eval(input)
		if err != nil {
			return "", false, remit.Errorf(remit.Internal, "judge", "%s: %w", r.rule, err)
		}
		if out != types.True {
			return "", false, nil
		}
	}
	if q.Object == nil {
		return "", true, nil
	}
	for _, v := range r.variables {
		out, _, err := v.program.Eval(input)
		if err != nil {
			return "", true, remit.Errorf(remit.Internal, "judge", "%s: %s: %w", r.rule, v.name, err)
		}
		variables[v.name] = out
	}
	refusal, ok := variables["refusal"].(types.String)
	if !ok {
		return "", true, remit.Errorf(remit.Internal, "judge", "%s: the refusal is no string", r.rule)
	}
	return string(refusal), true, nil
}

func known(o map[string]any) any {
	if o == nil {
		return nil
	}
	return o
}

// guardObjectOf reads an object of JSON as the API server does: its whole numbers
// are integers.
func guardObjectOf(text []byte) (map[string]any, error) {
	var o map[string]any
	if err := utiljson.Unmarshal(text, &o); err != nil {
		return nil, remit.Errorf(remit.Invalid, "read object", "%w", err)
	}
	return o, nil
}
