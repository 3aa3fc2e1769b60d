package sigma

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"remit"
)

// Kind is what a document describes.
type Kind string

// The kinds of rules.
const (
	Detection   Kind = "detection"   // matches one event
	Correlation Kind = "correlation" // matches what several events have in common
	Filter      Kind = "filter"      // takes matches away from other rules
)

// Rule is one detection rule, correlation or filter as its document has it.
// Nobody changes it after [Parse]; it is safe for concurrent use.
type Rule struct {
	Kind Kind

	ID          string // a UUID by convention; "" when the document has none
	Name        string // by which correlations and filters may refer to it
	Title       string
	Description string
	Author      string
	License     string
	Level       string // informational, low, medium, high, critical, or ""
	Status      string // stable, test, experimental, deprecated, unsupported, or ""

	Tags           []string
	References     []string
	FalsePositives []string
	Fields         []string

	// Logsource is zero for correlations.
	Logsource Logsource

	// Risks are the identifiers in the tags: of MITRE ATT&CK techniques
	// ("attack.t1528" gives "T1528") and of OWASP lists ("owasp.nhi7" gives
	// "NHI7"), in the order of the tags.
	Risks []string

	// Custom are the fields at the document's top that Sigma does not know,
	// decoded as YAML: strings, numbers, booleans, nil, []any, map[string]any.
	Custom map[string]any

	// Path and Line say where the document begins. Lines count from 1.
	Path string
	Line int

	detection   *detection
	correlation *correlation
	filter      *filter
}

// Ref is how a rule is called in messages: its ID, else its name, else its
// place in the file.
func (r *Rule) Ref() string {
	switch {
	case r.ID != "":
		return r.ID
	case r.Name != "":
		return r.Name
	}
	return at(r.Path, r.Line)
}

// Logsource says of which events a rule speaks. An empty part of a rule's
// logsource is met by any.
type Logsource struct {
	Product, Service, Category string
}

// asks says whether a rule with this logsource is asked about events of
// another. Where the rule names a product or service, its category counts only
// against an event that has one: most sources give none.
func (l Logsource) asks(view Logsource) bool {
	if l.Product != "" && l.Product != view.Product || l.Service != "" && l.Service != view.Service {
		return false
	}
	if l.Category == "" || l.Category == view.Category {
		return true
	}
	return view.Category == "" && (l.Product != "" || l.Service != "")
}

// within says whether all that l speaks of is spoken of by a wider logsource.
func (l Logsource) within(wider Logsource) bool {
	return (wider.Product == "" || wider.Product == l.Product) &&
		(wider.Service == "" || wider.Service == l.Service) &&
		(wider.Category == "" || wider.Category == l.Category)
}

func (l Logsource) String() string {
	var parts []string
	for _, p := range []struct{ name, value string }{{"product", l.Product}, {"service", l.Service}, {"category", l.Category}} {
		if p.value != "" {
			parts = append(parts, p.name+"="+p.value)
		}
	}
	if len(parts) == 0 {
		return "any"
	}
	return strings.Join(parts, " ")
}

var (
	techniqueTag = regexp.MustCompile(`^attack\.(t\d{4}(?:\.\d{3})?)$`)
	owaspTag     = regexp.MustCompile(`^owasp\.([a-z]{2,8}\d{1,2})(?:[-:.]\d{4})?$`)
)

func risksOf(tags []string) []string {
	var risks []string
	for _, tag := range tags {
		tag = strings.ToLower(tag)
		for _, known := range []*regexp.Regexp{techniqueTag, owaspTag} {
			if m := known.FindStringSubmatch(tag); m != nil {
				risks = append(risks, strings.ToUpper(m[1]))
			}
		}
	}
	return risks
}

// Severity is the rule's level in the words of findings; a rule without one
// is medium.
func (r *Rule) Severity() remit.Severity {
	switch r.Level {
	case "informational":
		return remit.Info
	case "low", "high", "critical":
		return remit.Severity(r.Level)
	}
	return remit.Medium
}

// coverage groups rules by the risks that they look for; filters look for none.
func coverage(rules []*Rule) []Coverage {
	by := map[string][]*Rule{}
	for _, r := range rules {
		for _, risk := range r.Risks {
			if r.Kind != Filter && !slices.Contains(by[risk], r) {
				by[risk] = append(by[risk], r)
			}
		}
	}
	var all []Coverage
	for _, risk := range slices.Sorted(maps.Keys(by)) {
		all = append(all, Coverage{Risk: risk, Rules: by[risk]})
	}
	return all
}
