package main

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"remit/detect/rules"
	"remit/detect/sigma"
)

// systems are the folders of the rules, in the order of the page.
var systems = []struct{ folder, title, words string }{
	{"kubernetes", "Kubernetes", "The audit log of the API server, plain and as EKS, AKS and GKE deliver it."},
	{"aws", "AWS", "CloudTrail."},
	{"gcp", "Google Cloud", "Cloud Audit Logs, and what Google Workspace writes into them."},
	{"azure", "Azure", "The activity log, resource logs of key vaults and storage, and the directory's audit log."},
	{"github", "GitHub", "The audit log of an organization or enterprise, and webhook deliveries."},
	{"okta", "Okta", "The System Log."},
	{"openbao", "OpenBao and Vault", "The log of audit devices."},
	{"ai", "AI platforms", "Bedrock through CloudTrail, and the activity of Anthropic's and OpenAI's organizations."},
}

type entry struct {
	*sigma.Rule
	meta rules.Meta
}

// write makes the page. It depends on nothing but the rules, so that the same
// rules give the same page.
func write(all []*sigma.Rule) (string, error) {
	var b strings.Builder
	b.WriteString(`<!-- Generated from detect/rules by go generate ./detect/rules. Do not edit. -->

# Detections

Remit looks at every event with the rules below. They are [Sigma](../concepts/sigma.md) documents; rules of your own, or of others, stand beside them. What is unusual for one identity is the [baselines'](../concepts/baselines.md) matter.

- **Level** is how bad a match is by itself. Matches about one identity are combined into one finding; those of level informational are a record, or are counted by others, and make none alone.
- **Counts** says that a rule is a correlation: it matches when what its parts match adds up.
- **Wrong when** names what looks the same and is harmless. Leave such identities out with a Sigma filter.
- ` + "`{…}`" + ` is filled in from the event.

`)
	by := map[string][]entry{}
	counts := map[string]int{}
	for _, r := range all {
		meta, err := rules.Of(r)
		if err != nil {
			return "", err
		}
		folder := path.Dir(r.Path)
		by[folder] = append(by[folder], entry{r, meta})
		counts[r.Level]++
	}
	fmt.Fprintf(&b, "There are %d rules: ", len(all))
	var parts []string
	for _, level := range levels {
		parts = append(parts, fmt.Sprintf("%d %s", counts[level], level))
	}
	b.WriteString(strings.Join(parts, ", ") + ".\n")
	for _, s := range systems {
		list := by[s.folder]
		delete(by, s.folder)
		slices.SortStableFunc(list, func(a, b entry) int {
			return cmp.Or(cmp.Compare(slices.Index(levels, a.Level), slices.Index(levels, b.Level)), strings.Compare(a.Name, b.Name))
		})
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| rule | level | finds | risks |\n|---|---|---|---|\n", s.title, s.words)
		for _, e := range list {
			fmt.Fprintf(&b, "| [`%s`](#%s) | %s | %s | %s |\n", e.Name, e.Name, e.Level, cell(e.Title), strings.Join(e.risks(), ", "))
		}
		for _, e := range list {
			e.section(&b)
		}
	}
	for folder := range by {
		return "", fmt.Errorf("the page does not know the folder %s", folder)
	}
	return b.String(), nil
}

var levels = []string{"critical", "high", "medium", "low", "informational"}

func (e entry) risks() []string { return append(slices.Clone(e.meta.Risks), e.Rule.Risks...) }

func (e entry) section(b *strings.Builder) {
	fmt.Fprintf(b, "\n### %s\n\n**%s.** %s\n\n| | |\n|---|---|\n| level | %s |\n", e.Name, e.Title, e.Description, e.Level)
	if e.Kind == sigma.Correlation {
		b.WriteString("| counts | what several events add up to |\n")
	}
	fmt.Fprintf(b, "| says | %s |\n", cell(e.meta.Words))
	if len(e.FalsePositives) > 0 {
		fmt.Fprintf(b, "| wrong when | %s |\n", cell(strings.Join(e.FalsePositives, " ")))
	}
	fmt.Fprintf(b, "| what to do | %s |\n| risks | %s |\n| controls | %s |\n", cell(e.meta.Remedy), strings.Join(e.risks(), ", "), strings.Join(e.meta.Controls, "; "))
	if len(e.References) > 0 {
		fmt.Fprintf(b, "| see | %s |\n", cell(strings.Join(e.References, " ")))
	}
}

// cell escapes what would end a table's cell.
func cell(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(strings.TrimSpace(s), "|", `\|`), "\n", " ")
}
