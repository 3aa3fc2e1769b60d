package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"go.yaml.in/yaml/v3"

	"remit"
)

// maxFile is the size of a policy file; the largest of the pack has 40 kB.
const maxFile = 1 << 20

// document is one YAML document: a policy, or an override of policies.
type document struct {
	policy   *Policy
	override *override
}

// override changes policies that are there already.
type override struct {
	ids        []text // ids, or patterns with *
	severity   remit.Severity
	disabled   *bool
	remedy     *text
	scope      *Scope
	parameters []setting
}

type setting struct {
	name text
	node *yaml.Node
}

// key is the name of an entry of a mapping, with its place.
func (d *decoder) key(k *yaml.Node) text {
	return text{value: k.Value, node: k, file: d.file, lines: d.lines}
}

// decoder reads the documents of one file. It is strict: a field that the
// format does not have is a problem, with its place, and so is one that stands
// twice.
type decoder struct {
	file     string
	lines    []string
	policy   string // the id of the document at hand, for problems
	problems []Problem
	failed   bool // the document at hand has a problem
}

func (d *decoder) problem(line, column int, message string) {
	d.failed = true
	d.problems = append(d.problems, Problem{File: d.file, Line: line, Column: column, Policy: d.policy, Message: message})
}

func (d *decoder) fault(n *yaml.Node, format string, args ...any) {
	d.problem(n.Line, n.Column, fmt.Sprintf(format, args...))
}

var yamlErrorLine = regexp.MustCompile(`^yaml: (?:unmarshal errors:\s*)?(?:line (\d+): )?`)

// readDocuments decodes a file. What follows a document that is no YAML at all
// is lost; everything before it counts.
func readDocuments(file string, content []byte) ([]document, []Problem) {
	d := &decoder{file: file}
	if len(content) > maxFile {
		d.problem(1, 1, "the file is too large: policies are at most 1 MiB a file")
		return nil, d.problems
	}
	d.lines = splitLines(string(content))
	dec := yaml.NewDecoder(bytes.NewReader(content))
	var docs []document
	for {
		var root yaml.Node
		err := dec.Decode(&root)
		if errors.Is(err, io.EOF) {
			return docs, d.problems
		}
		if err != nil {
			line := 1
			m := yamlErrorLine.FindStringSubmatch(err.Error())
			if m != nil && m[1] != "" {
				line, _ = strconv.Atoi(m[1])
				// The library counts the lines of what its parser (not its
				// scanner) finds from 0.
				if strings.Contains(err.Error(), "did not find expected") {
					line++
				}
			}
			d.policy = ""
			d.problem(line, 1, "not valid YAML: "+yamlErrorLine.ReplaceAllString(err.Error(), ""))
			return docs, d.problems
		}
		if root.Kind == 0 || len(root.Content) == 0 || root.Content[0].Tag == "!!null" {
			continue
		}
		d.policy, d.failed = "", false
		doc := d.document(root.Content[0])
		if !d.failed {
			docs = append(docs, doc)
		}
	}
}

func (d *decoder) document(n *yaml.Node) document {
	if n.Kind != yaml.MappingNode {
		d.fault(n, "a policy is a mapping that begins with id:, or an override that begins with override:")
		return document{}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == "override" {
			return document{override: d.override(n)}
		}
	}
	return document{policy: d.newPolicy(n)}
}

var idForm = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

func (d *decoder) newPolicy(n *yaml.Node) *Policy {
	p := &Policy{File: d.file, Line: n.Line}
	// The id first, so that every problem of the document names it.
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == "id" {
			d.policy = n.Content[i+1].Value
			p.Line = n.Content[i].Line
		}
	}
	given := d.fields(n, map[string]func(*yaml.Node){
		"id": func(n *yaml.Node) {
			p.texts.id = d.text(n)
			p.ID = p.texts.id.value
			if !idForm.MatchString(p.ID) {
				d.fault(n, "an id is lower-case words with dashes between them, such as token-never-expires")
			}
		},
		"title":       func(n *yaml.Node) { p.Title = d.text(n).value },
		"description": func(n *yaml.Node) { p.Description = d.text(n).value },
		"subject": func(n *yaml.Node) {
			p.Subject = remit.RecordKind(d.text(n).value)
			if name, _ := variable(p.Subject); name == "" {
				d.fault(n, "a subject is identity, credential or grant")
			}
		},
		"severity":      func(n *yaml.Node) { p.Severity = d.severity(n) },
		"severity_when": func(n *yaml.Node) { d.severityWhen(n, p) },
		"family": func(n *yaml.Node) {
			p.Family = d.text(n).value
			if !idForm.MatchString(p.Family) {
				d.fault(n, "a family is named by lower-case words with dashes between them")
			}
		},
		"match": func(n *yaml.Node) {
			p.texts.match = d.text(n)
			p.Match = p.texts.match.value
		},
		"message": func(n *yaml.Node) {
			p.texts.message = d.text(n)
			p.Message = p.texts.message.value
		},
		"evidence": func(n *yaml.Node) {
			d.each(n, func(k, v *yaml.Node) {
				t := d.text(v)
				p.texts.evidence = append(p.texts.evidence, t)
				p.Evidence = append(p.Evidence, Expression{Name: k.Value, Value: t.value})
			})
		},
		"related": func(n *yaml.Node) {
			for _, t := range d.texts(n) {
				p.texts.related = append(p.texts.related, t)
				p.Related = append(p.Related, t.value)
			}
		},
		"risks":    func(n *yaml.Node) { p.Risks = values(d.texts(n)) },
		"controls": func(n *yaml.Node) { p.Controls = values(d.texts(n)) },
		"remedy": func(n *yaml.Node) {
			p.texts.remedy = d.text(n)
			p.Remedy = p.texts.remedy.value
		},
		"parameters": func(n *yaml.Node) {
			d.each(n, func(k, v *yaml.Node) { p.Parameters = append(p.Parameters, d.parameter(k, v)) })
		},
		"scope":    func(n *yaml.Node) { p.Scope = d.scope(n, true) },
		"disabled": func(n *yaml.Node) { p.Disabled = d.flag(n) },
		"tests": func(n *yaml.Node) {
			for _, c := range d.sequence(n) {
				p.Cases = append(p.Cases, d.testCase(c, p.Subject))
			}
		},
	})
	for _, name := range []string{"id", "title", "description", "subject", "severity", "match", "message", "remedy"} {
		if !given[name] {
			d.fault(n, "the policy has no %s", name)
		}
	}
	return p
}

func (d *decoder) override(n *yaml.Node) *override {
	o := &override{}
	d.fields(n, map[string]func(*yaml.Node){
		"override": func(n *yaml.Node) { o.ids = d.texts(n) },
		"severity": func(n *yaml.Node) { o.severity = d.severity(n) },
		"disabled": func(n *yaml.Node) {
			f := d.flag(n)
			o.disabled = &f
		},
		"remedy": func(n *yaml.Node) {
			t := d.text(n)
			o.remedy = &t
		},
		"scope": func(n *yaml.Node) { o.scope = d.scope(n, true) },
		"parameters": func(n *yaml.Node) {
			d.each(n, func(k, v *yaml.Node) {
				o.parameters = append(o.parameters, setting{name: d.key(k), node: v})
			})
		},
	})
	return o
}

func (d *decoder) severityWhen(n *yaml.Node, p *Policy) {
	type one struct {
		rule SeverityRule
		text text
	}
	var all []one
	d.each(n, func(k, v *yaml.Node) {
		s := d.severity(k)
		t := d.text(v)
		all = append(all, one{SeverityRule{s, t.value}, t})
	})
	sort.SliceStable(all, func(i, j int) bool { return all[i].rule.Severity.Rank() > all[j].rule.Severity.Rank() })
	for _, o := range all {
		p.SeverityWhen = append(p.SeverityWhen, o.rule)
		p.texts.severity = append(p.texts.severity, o.text)
	}
}

func (d *decoder) severity(n *yaml.Node) remit.Severity {
	s, err := remit.ParseSeverity(d.text(n).value)
	if err != nil {
		d.fault(n, "a severity is info, low, medium, high or critical")
	}
	return s
}

var parameterForm = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

func (d *decoder) parameter(k, v *yaml.Node) Parameter {
	out := Parameter{Name: k.Value}
	if !parameterForm.MatchString(k.Value) {
		d.fault(k, "a parameter is named by lower-case words with _ between them")
	}
	given := d.fields(v, map[string]func(*yaml.Node){
		"description": func(n *yaml.Node) { out.Description = d.text(n).value },
		"default": func(n *yaml.Node) {
			out.value = d.value(n)
			out.Default = writeValue(out.value)
			out.Value = out.Default
			if out.value != nil {
				out.Type = typeWord(celTypeOf(out.value))
			}
		},
	})
	if !given["default"] {
		d.fault(v, "the parameter has no default")
		out.value = types.String("")
	}
	return out
}

// value reads a parameter: its form tells its type.
func (d *decoder) value(n *yaml.Node) ref.Val {
	switch n.Kind {
	case yaml.SequenceNode:
		return types.NewStringList(types.DefaultTypeAdapter, values(d.texts(n)))
	case yaml.ScalarNode:
		switch n.Tag {
		case "!!bool":
			return types.Bool(d.flag(n))
		case "!!int":
			i, err := strconv.ParseInt(n.Value, 10, 64)
			if err != nil {
				d.fault(n, "%s is no whole number", quote(n.Value))
			}
			return types.Int(i)
		case "!!str":
			if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0 && looksLikeSpan(n.Value) {
				span, _ := parseSpan(n.Value)
				return types.Duration{Duration: span}
			}
			return types.String(n.Value)
		}
	}
	d.fault(n, "a parameter is a length of time (90d), a whole number, true or false, a text or a list of texts")
	return types.String("")
}

// writeValue writes a parameter as it is written in YAML.
func writeValue(v ref.Val) string {
	switch o := v.(type) {
	case types.String:
		if looksLikeSpan(string(o)) || string(o) == "" {
			return strconv.Quote(string(o))
		}
		return string(o)
	case types.Int:
		return strconv.FormatInt(int64(o), 10)
	case types.Bool:
		return strconv.FormatBool(bool(o))
	case types.Duration:
		return writeSpan(o.Duration)
	case nil:
		return ""
	}
	list, err := v.ConvertToNative(stringsType)
	if err != nil {
		return ""
	}
	return "[" + strings.Join(list.([]string), ", ") + "]"
}

func (d *decoder) scope(n *yaml.Node, outer bool) *Scope {
	s := &Scope{}
	fields := map[string]func(*yaml.Node){
		"systems":      func(n *yaml.Node) { s.Systems = values(d.texts(n)) },
		"namespaces":   func(n *yaml.Node) { s.Namespaces = values(d.texts(n)) },
		"environments": func(n *yaml.Node) { s.Environments = values(d.texts(n)) },
		"identities":   func(n *yaml.Node) { s.Identities = values(d.texts(n)) },
		"labels": func(n *yaml.Node) {
			s.Labels = map[string]string{}
			d.each(n, func(k, v *yaml.Node) { s.Labels[k.Value] = d.text(v).value })
		},
	}
	if outer {
		fields["except"] = func(n *yaml.Node) {
			for _, e := range d.sequence(n) {
				s.Except = append(s.Except, *d.scope(e, false))
			}
		}
	}
	if given := d.fields(n, fields); len(given) == 0 {
		d.fault(n, "an empty scope: name systems, namespaces, environments, labels, identities or except")
	}
	return s
}

// fields reads a mapping of known fields and says which were given.
func (d *decoder) fields(n *yaml.Node, known map[string]func(*yaml.Node)) map[string]bool {
	given := map[string]bool{}
	d.each(n, func(k, v *yaml.Node) {
		read := known[k.Value]
		if read == nil {
			names := make([]string, 0, len(known))
			for name := range known {
				names = append(names, name)
			}
			sort.Strings(names)
			hint := meant(k.Value, names)
			if hint == "" {
				hint = ": known are " + strings.Join(names, ", ")
			}
			d.fault(k, "unknown field %s%s", quote(k.Value), hint)
			return
		}
		given[k.Value] = true
		read(v)
	})
	return given
}

// each goes through a mapping.
func (d *decoder) each(n *yaml.Node, visit func(k, v *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.fault(n, "a mapping (name: value) belongs here")
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Kind != yaml.ScalarNode:
			d.fault(k, "a name belongs here")
		case seen[k.Value]:
			d.fault(k, "%s stands here twice", quote(k.Value))
		default:
			seen[k.Value] = true
			visit(k, v)
		}
	}
}

func (d *decoder) sequence(n *yaml.Node) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		d.fault(n, "a list belongs here")
		return nil
	}
	return n.Content
}

// text reads a scalar. Aliases are not followed anywhere: a small file could
// stand for an enormous one.
func (d *decoder) text(n *yaml.Node) text {
	t := text{value: n.Value, node: n, file: d.file, lines: d.lines}
	switch {
	case n.Kind == yaml.AliasNode:
		d.fault(n, "aliases (*name) are not used in policies")
	case n.Kind != yaml.ScalarNode || n.Tag == "!!null":
		d.fault(n, "a text belongs here")
	}
	t.value = strings.TrimRight(t.value, "\n")
	if t.value == "" && n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		d.fault(n, "the text is empty")
	}
	return t
}

// texts reads a list of scalars, or a single one.
func (d *decoder) texts(n *yaml.Node) []text {
	if n.Kind == yaml.ScalarNode {
		return []text{d.text(n)}
	}
	var out []text
	for _, c := range d.sequence(n) {
		out = append(out, d.text(c))
	}
	return out
}

func values(all []text) []string {
	out := make([]string, len(all))
	for i, t := range all {
		out[i] = t.value
	}
	return out
}

func (d *decoder) flag(n *yaml.Node) bool {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
		d.fault(n, "true or false belongs here")
	}
	return n.Value == "true"
}

func (d *decoder) span(n *yaml.Node) time.Duration {
	span, err := parseSpan(d.text(n).value)
	if err != nil {
		d.fault(n, "%s", err)
	}
	return span
}
