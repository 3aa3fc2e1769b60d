package main

import (
	"fmt"
	"io/fs"
	"strings"

	"remit/detect/rules"
	"remit/detect/sigma"
)

// ruleSet is so many rules: the built-in ones of Kubernetes and those for every
// product first, then the others, then those of Kubernetes again and again, each
// for a namespace, an account or a kind of resource of its own, as rules that a
// company writes for itself are.
func ruleSet(n int) ([]*sigma.Rule, error) {
	all, err := rules.Load()
	if err != nil {
		return nil, err
	}
	var set, others []*sigma.Rule
	for _, r := range all {
		if r.Logsource.Product == "kubernetes" || r.Logsource.Product == "" {
			set = append(set, r)
		} else {
			others = append(others, r)
		}
	}
	if set = append(set, others...); n <= len(set) {
		return set[:n], nil
	}
	files, err := fs.Glob(rules.FS(), "kubernetes/*.yml")
	if err != nil {
		return nil, err
	}
	for k := 0; len(set) < n; k++ {
		text, err := fs.ReadFile(rules.FS(), files[k%len(files)])
		if err != nil {
			return nil, err
		}
		if strings.Contains(string(text), "\ncorrelation:") {
			continue
		}
		made, err := sigma.Parse(fmt.Sprintf("varied-%d.yml", k), []byte(varied(string(text), k)))
		if err != nil {
			return nil, err
		}
		set = append(set, made...)
	}
	return set, nil
}

// varied makes another rule of a rule's document.
func varied(text string, k int) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "id: "):
			line = fmt.Sprintf("id: 00000000-0000-4000-8000-%012x\n", k)
		case strings.HasPrefix(line, "name: "):
			line = fmt.Sprintf("name: varied-%d\n", k)
		case strings.HasPrefix(line, "  condition: "):
			condition := strings.TrimSpace(strings.TrimPrefix(line, "  condition: "))
			only := [...]string{
				fmt.Sprintf("objectRef.namespace: team-%d", k), fmt.Sprintf("remit.identity.name: %s", account(k)),
				fmt.Sprintf("objectRef.resource: kind-%d", k),
			}[k%3]
			line = fmt.Sprintf("  varied:\n    %s\n  condition: (%s) and varied\n", only, condition)
		}
		out.WriteString(line)
	}
	return out.String()
}
