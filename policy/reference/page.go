package main

import (
	"fmt"
	"sort"
	"strings"

	"remit"
	"remit/policy"
)

// write makes the page. It depends on nothing but the set, so that the same
// policies give the same page.
func write(set *policy.Set) string {
	var b strings.Builder
	all := set.Policies()
	b.WriteString(`<!-- Generated from policy/pack by go generate ./policy. Do not edit. -->

# Policies

Remit looks at every identity, credential and grant with the policies below. Each of them can be switched off, narrowed, graded otherwise or replaced, and more can be added: see [write a policy](../how-to/write-a-policy.md).

- **Severity** is what holds unless one of the conditions below it does; of those the worst counts.
- **Family**: policies of one family are about one problem. When several of them match the same subject, only the worst is a finding (at equal severity the one that comes first here), and it names the others as evidence.
- **Parameters** are set by an override, without rewriting the policy.
- What is built into the platform (` + "`built_in`" + `) is left out where that matters.
- ` + "`{…}`" + ` in a remedy is filled in for each finding, quoted for a shell where a name needs it.

`)
	fmt.Fprintf(&b, "There are %d policies.\n", len(all))

	var groups []string
	in := map[string][]*policy.Policy{}
	for _, p := range all {
		if in[p.Group] == nil {
			groups = append(groups, p.Group)
		}
		in[p.Group] = append(in[p.Group], p)
	}
	for _, g := range groups {
		fmt.Fprintf(&b, "\n## %s\n\n| policy | severity | about | risks | finds |\n|---|---|---|---|---|\n", heading(g))
		for _, p := range in[g] {
			fmt.Fprintf(&b, "| [`%s`](#%s) | %s | %s | %s | %s |\n", p.ID, p.ID, severities(p), p.Subject, strings.Join(p.Risks, ", "), cell(p.Title))
		}
	}
	coverage(&b, all)
	for _, g := range groups {
		for _, p := range in[g] {
			section(&b, p)
		}
	}
	language(&b)
	return b.String()
}

func heading(group string) string {
	s := strings.ReplaceAll(group, "-", " ")
	return strings.ToUpper(s[:1]) + s[1:]
}

// severities lists all severities that a policy can have, the usual one first.
func severities(p *policy.Policy) string {
	out := []string{string(p.Severity)}
	for _, s := range p.SeverityWhen {
		out = append(out, string(s.Severity))
	}
	return strings.Join(out, ", ")
}

// cell escapes what would end a table's cell.
func cell(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "|", `\|`), "\n", " ")
}

// code shows an expression within a line.
func code(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return "`" + strings.ReplaceAll(s, "|", `\|`) + "`"
}

func section(b *strings.Builder, p *policy.Policy) {
	fmt.Fprintf(b, "\n### %s\n\n**%s.** %s\n\n", p.ID, p.Title, strings.TrimSpace(p.Description))
	fmt.Fprintf(b, "| | |\n|---|---|\n| about | %s |\n| severity | %s |\n", p.Subject, p.Severity)
	for _, s := range p.SeverityWhen {
		fmt.Fprintf(b, "| %s when | %s |\n", s.Severity, code(s.When))
	}
	if p.Family != "" {
		fmt.Fprintf(b, "| family | %s |\n", p.Family)
	}
	fmt.Fprintf(b, "| risks | %s |\n| controls | %s |\n", strings.Join(p.Risks, ", "), strings.Join(p.Controls, "; "))
	for _, par := range p.Parameters {
		fmt.Fprintf(b, "| `%s` | %s (%s); default %s |\n", par.Name, cell(par.Description), par.Type, code(par.Default))
	}
	fmt.Fprintf(b, "\nMatches when\n\n```cel\n%s\n```\n\nWhat to do\n\n```text\n%s\n```\n", strings.TrimSpace(p.Match), strings.TrimSpace(p.Remedy))
}

// names of the risks that the pack uses, in the words of their catalogues.
var names = map[string]string{
	"NHI1":  "Improper Offboarding",
	"NHI2":  "Secret Leakage",
	"NHI3":  "Vulnerable Third-Party NHI",
	"NHI4":  "Insecure Authentication",
	"NHI5":  "Overprivileged NHI",
	"NHI6":  "Insecure Cloud Deployment Configurations",
	"NHI7":  "Long-Lived Secrets",
	"NHI8":  "Environment Isolation",
	"NHI9":  "NHI Reuse",
	"NHI10": "Human Use of NHI",
	"ASI01": "Agent Goal Hijack",
	"ASI02": "Tool Misuse and Exploitation",
	"ASI03": "Identity and Privilege Abuse",
	"ASI10": "Rogue Agents",
}

func coverage(b *strings.Builder, all []*policy.Policy) {
	by := map[string][]string{}
	for _, p := range all {
		for _, r := range p.Risks {
			by[r] = append(by[r], p.ID)
		}
	}
	var risks []string
	for r := range by {
		if names[r] != "" {
			risks = append(risks, r)
		}
	}
	sort.Slice(risks, func(i, j int) bool {
		a, b := risks[i], risks[j]
		if a[:3] != b[:3] {
			return a[:3] > b[:3] // NHI before ASI
		}
		if len(a) != len(b) {
			return len(a) < len(b)
		}
		return a < b
	})
	b.WriteString("\n## By risk\n\nOWASP Non-Human Identities Top 10 (2025) and OWASP Top 10 for Agentic Applications (2026). Techniques of MITRE ATT&CK stand at each policy.\n\n| risk | policies |\n|---|---|\n")
	for _, r := range risks {
		links := make([]string, len(by[r]))
		for i, id := range by[r] {
			links[i] = fmt.Sprintf("[%s](#%s)", id, id)
		}
		fmt.Fprintf(b, "| %s %s | %s |\n", r, names[r], strings.Join(links, ", "))
	}
	b.WriteString("\n## The policies one by one\n")
}

func language(b *strings.Builder) {
	b.WriteString(`
## What an expression sees

Expressions are [CEL](https://cel.dev). Beside the subject, under the name ` + "`identity`, `credential` or `grant`" + `, there are ` + "`params`" + ` (the policy's parameters), ` + "`now`" + ` (the time of the evaluation, a timestamp) and ` + "`system`" + `.

- A field that is not known reads as its empty value: ` + "`\"\"`, `0`, `false`" + `, an empty list, the first instant. ` + "`has(credential.expires)`" + ` asks whether it is known. The functions on times below never hold for an unknown time.
- A label or attribute that is not there reads as ` + "`\"\"`" + `; ` + "`\"team\" in identity.labels`" + ` asks whether it is there. Names with dashes or dots are written ` + "`identity.attributes[\"host-pid\"]`" + `.
`)
	fmt.Fprintf(b, "- Lists of neighbours hold at most %d records (copies: %d). An expression that works too much on one subject is stopped and reported; all others go on.\n", policy.MaxNeighbours, policy.MaxCopies)
	b.WriteString("\n### Functions\n\nCEL's own operators, macros (`exists`, `all`, `filter`, `map`, `has`) and functions (`size`, `contains`, `startsWith`, `endsWith`, `matches`, `string`, `int`), and:\n\n| function | gives |\n|---|---|\n")
	for _, f := range policy.Functions {
		fmt.Fprintf(b, "| %s | %s |\n", code(f.Call), cell(f.Doc))
	}
	b.WriteString("\n### Types\n")
	types := policy.Types()
	known := map[string]policy.Type{}
	for _, t := range types {
		known[t.Name] = t
	}
	record := policy.Type{Name: "Record", Title: "what every record has"}
	for _, f := range known["Resource"].Fields {
		if own := f.Name == "type" || f.Name == "crown_jewel"; !own {
			record.Fields = append(record.Fields, f)
		}
	}
	known["Record"] = record
	for _, t := range append(types, record) {
		fmt.Fprintf(b, "\n#### %s\n\n%s", t.Name, sentence(t.Title))
		base := baseOf(t, known)
		if base.Name != "" {
			fmt.Fprintf(b, " It has the fields of [%s](#%s), and:", base.Name, strings.ToLower(base.Name))
		}
		b.WriteString("\n\n| field | type | |\n|---|---|---|\n")
		for _, f := range t.Fields {
			if !has(base, f) {
				fmt.Fprintf(b, "| `%s` | %s | %s |\n", f.Name, f.Type, cell(f.Doc))
			}
		}
	}
	words := make([]string, len(remit.Severities))
	for i, s := range remit.Severities {
		words[i] = string(s)
	}
	fmt.Fprintf(b, "\nSeverities, from the least: %s.\n", strings.Join(words, ", "))
}

// baseOf finds the type whose fields another one has as well, so that the page
// says each of them once.
func baseOf(t policy.Type, known map[string]policy.Type) policy.Type {
	if base, ok := known[t.Name+"Record"]; ok {
		return base
	}
	for _, f := range t.Fields {
		if f.Name == "incarnation" && t.Name != "Record" {
			return known["Record"]
		}
	}
	return policy.Type{}
}

func has(t policy.Type, f policy.Field) bool {
	for _, other := range t.Fields {
		if other == f {
			return true
		}
	}
	return false
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }
