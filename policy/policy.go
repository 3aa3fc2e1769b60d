package policy

import (
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"remit"
)

// Policy is one rule: what is wrong, how bad, and what to do. Its fields are
// what its document says, with the user's overrides applied; they are for
// reading only.
type Policy struct {
	ID          string           `json:"id"`
	Title       string           `json:"title"`
	Description string           `json:"description"` // why it matters
	Group       string           `json:"group"`       // the name of its file, without its number and .yaml
	Subject     remit.RecordKind `json:"subject"`     // identity, credential or grant

	Severity remit.Severity `json:"severity"`
	// SeverityWhen are the exceptions, the worst severity first; the first
	// one that holds counts.
	SeverityWhen []SeverityRule `json:"severity_when,omitempty"`

	// Family names policies that are about one problem: when several of them
	// match a subject, only the worst is reported.
	Family string `json:"family,omitempty"`

	Match    string       `json:"match"`
	Message  string       `json:"message"`
	Evidence []Expression `json:"evidence,omitempty"`
	Related  []string     `json:"related,omitempty"`
	Risks    []string     `json:"risks,omitempty"`
	Controls []string     `json:"controls,omitempty"`
	Remedy   string       `json:"remedy"`

	Parameters []Parameter `json:"parameters,omitempty"`
	Scope      *Scope      `json:"scope,omitempty"`
	Disabled   bool        `json:"disabled,omitempty"`
	Cases      []Case      `json:"-"`

	File       string   `json:"file"`
	Line       int      `json:"line"`
	BuiltIn    bool     `json:"built_in"`             // of the pack
	Overridden []string `json:"overridden,omitempty"` // the files that changed it

	order   int     // in the set: decides within a family
	written *Policy // before overrides; nil when there are none
	texts   policyTexts
	program *program // nil when it did not compile
}

// SeverityRule is a severity and when it holds.
type SeverityRule struct {
	Severity remit.Severity `json:"severity"`
	When     string         `json:"when"`
}

// Expression is a named expression.
type Expression struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Parameter is a value of a policy that can be changed without rewriting it.
type Parameter struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Type        string `json:"type"`    // duration, int, string, bool, list of string
	Default     string `json:"default"` // as it is written in YAML
	Value       string `json:"value"`   // what holds now

	value ref.Val
}

// policyTexts are the texts of a policy with their places in the file.
type policyTexts struct {
	id       text
	match    text
	message  text
	remedy   text
	severity []text
	evidence []text
	related  []text
}

// program is a policy that can run.
type program struct {
	guards   []guard
	match    *expression
	severity []*expression
	message  *template
	remedy   *template
	evidence []*expression
	related  []*expression
	params   ref.Val

	matchNeeds need // before match can run
	textNeeds  need // before the texts of a match can be written
}

// compileAll makes the policy's program, or reports every fault in it.
func (p *Policy) compileAll(shared *cel.Env, report fault) {
	name, subject := variable(p.Subject)
	params := newClass("params of "+p.ID, "")
	for i := range p.Parameters {
		v := p.Parameters[i].value
		field(params, p.Parameters[i].Name, celTypeOf(v), p.Parameters[i].Description,
			func(*object[[]Parameter]) bool { return true },
			func(*object[[]Parameter]) ref.Val { return v })
	}
	base := shared.CELTypeProvider().(*provider)
	env, err := shared.Extend(
		cel.CustomTypeProvider(&provider{Provider: base.Provider, classes: base.classes, params: params}),
		cel.Variable(name, subject.typ),
		cel.Variable("params", params.typ),
	)
	if err != nil {
		report(p.texts.id, 0, err.Error())
		return
	}
	faults := 0
	wrong := func(t text, offset int, message string) {
		faults++
		report(t, offset, message)
	}
	one := func(t text, want *cel.Type, wanted string) *expression {
		e := compile(env, t, 0, t.value, wrong)
		if e != nil && want != nil && !e.output.IsExactType(want) {
			wrong(t, 0, "the expression gives "+typeWord(e.output)+", where "+wanted+" is needed")
		}
		return e
	}
	out := &program{params: &object[[]Parameter]{class: params}}
	out.match = one(p.texts.match, cel.BoolType, "true or false")
	for _, t := range p.texts.severity {
		out.severity = append(out.severity, one(t, cel.BoolType, "true or false"))
	}
	out.message = compileTemplate(env, p.texts.message, false, wrong)
	out.remedy = compileTemplate(env, p.texts.remedy, true, wrong)
	for _, t := range p.texts.evidence {
		out.evidence = append(out.evidence, one(t, nil, ""))
	}
	for _, t := range p.texts.related {
		e := one(t, nil, "")
		if e != nil && !relatable(e.output) {
			wrong(t, 0, "related gives "+typeWord(e.output)+", where a record or a list of records is needed")
		}
		out.related = append(out.related, e)
	}
	if faults > 0 {
		return
	}
	out.guards = guards(out.match.ast.Expr(), name, subject)
	out.matchNeeds = needs(out.match)
	rest := append(append(append([]*expression{}, out.severity...), out.evidence...), out.related...)
	rest = append(append(rest, out.message.expressions()...), out.remedy.expressions()...)
	for _, e := range rest {
		out.textNeeds |= needs(e)
	}
	p.program = out
}

// relatable says whether values of the type can stand in a finding's Related.
func relatable(t *cel.Type) bool {
	switch t.Kind() {
	case types.ListKind:
		return relatable(t.Parameters()[0])
	case types.DynKind:
		return true
	}
	switch classByName[t.TypeName()] {
	case identityClass, identityRecordClass, credentialClass, credentialRecClass,
		grantClass, grantRecordClass, roleClass, resourceClass:
		return true
	}
	return false
}

func celTypeOf(v ref.Val) *cel.Type {
	switch v.(type) {
	case types.String:
		return cel.StringType
	case types.Int:
		return cel.IntType
	case types.Bool:
		return cel.BoolType
	case types.Duration:
		return cel.DurationType
	}
	return cel.ListType(cel.StringType)
}

// result is a match of one policy.
type result struct {
	policy   *Policy
	severity remit.Severity
	also     []*Policy // of the same family, not reported
}

// matches runs the policy's condition.
func (p *program) matches(f *frame) (bool, error) {
	f.params = p.params
	return p.match.holds(f)
}

// grade finds the severity of a match.
func (p *Policy) grade(f *frame) (remit.Severity, error) {
	f.params = p.program.params
	for i, e := range p.program.severity {
		ok, err := e.holds(f)
		if err != nil {
			return p.Severity, err
		}
		if ok {
			return p.SeverityWhen[i].Severity, nil
		}
	}
	return p.Severity, nil
}

// write makes the finding of a match.
func (p *Policy) write(f *frame, r result, now time.Time) (remit.Finding, error) {
	f.params = p.program.params
	subject, _ := subjectOf(f.subject)
	out := remit.Finding{
		ID: remit.FindingID(p.ID, subject.ID), Policy: p.ID, Title: p.Title,
		Severity: r.severity, Subject: subject,
		Risks: p.Risks, Controls: p.Controls,
		State: remit.Open, First: now, Last: now,
	}
	switch o := f.subject.(type) {
	case *identityObject:
		out.System = o.it.System
	case *credentialObject:
		out.System, out.Identity = o.it.System, o.it.Credential.Identity
	case *grantObject:
		out.System, out.Identity = o.it.System, o.it.Grant.Identity
	}
	var err error
	if out.Message, err = p.program.message.render(f); err != nil {
		return out, err
	}
	if out.Remedy, err = p.program.remedy.render(f); err != nil {
		return out, err
	}
	out.Evidence = []remit.Fact{}
	for i, e := range p.program.evidence {
		v, err := e.eval(f)
		if err != nil {
			return out, err
		}
		if s := formatFact(v); s != "" {
			out.Evidence = append(out.Evidence, remit.Fact{Name: p.Evidence[i].Name, Value: s})
		}
	}
	for _, other := range r.also {
		out.Evidence = append(out.Evidence, remit.Fact{Name: "Also", Value: other.Title + " (" + other.ID + ")"})
	}
	seen := map[remit.ID]bool{subject.ID: true}
	for _, e := range p.program.related {
		v, err := e.eval(f)
		if err != nil {
			return out, err
		}
		out.Related = relate(out.Related, v, seen)
	}
	return out, nil
}

// maxRelated keeps a finding readable: an account that a thousand workloads
// share has a thousand related records.
const maxRelated = 50

func relate(all []remit.Subject, v ref.Val, seen map[remit.ID]bool) []remit.Subject {
	if s, ok := subjectOf(v); ok {
		if s.ID != "" && !seen[s.ID] && len(all) < maxRelated {
			seen[s.ID] = true
			all = append(all, s)
		}
		return all
	}
	if list, ok := v.(traits.Lister); ok {
		for it := list.Iterator(); it.HasNext() == types.True && len(all) < maxRelated; {
			all = relate(all, it.Next(), seen)
		}
	}
	return all
}
