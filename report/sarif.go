package report

import (
	"cmp"
	"io"
	"iter"
	"net/url"
	"slices"
	"strings"
	"time"

	"remit"
)

// SARIF 2.1.0 (OASIS): only the parts of the format that Remit has something to
// say in. They are plain structs because the libraries for it build the whole log
// in memory.
type (
	sarifMessage struct {
		Text string `json:"text"`
	}
	sarifRule struct {
		ID                   string             `json:"id"`
		Name                 string             `json:"name,omitempty"`
		ShortDescription     sarifMessage       `json:"shortDescription"`
		FullDescription      sarifMessage       `json:"fullDescription"`
		Help                 sarifHelp          `json:"help"`
		DefaultConfiguration sarifConfiguration `json:"defaultConfiguration"`
		Properties           sarifRuleBag       `json:"properties"`
	}
	sarifHelp struct {
		Text     string `json:"text"`
		Markdown string `json:"markdown"`
	}
	sarifConfiguration struct {
		Level string `json:"level"`
	}
	sarifRuleBag struct {
		Tags             []string `json:"tags"`
		Precision        string   `json:"precision"`
		SecuritySeverity string   `json:"security-severity,omitempty"`
		Risks            []string `json:"risks"`
		Controls         []string `json:"controls"`
	}
	sarifResult struct {
		RuleID              string            `json:"ruleId"`
		RuleIndex           int               `json:"ruleIndex"`
		Kind                string            `json:"kind"`
		Level               string            `json:"level"`
		Message             sarifMessage      `json:"message"`
		Locations           []sarifLocation   `json:"locations"`
		PartialFingerprints map[string]string `json:"partialFingerprints"`
		Properties          sarifResultBag    `json:"properties"`
	}
	sarifLocation struct {
		PhysicalLocation sarifPhysical  `json:"physicalLocation"`
		LogicalLocations []sarifLogical `json:"logicalLocations"`
	}
	sarifPhysical struct {
		ArtifactLocation sarifArtifact `json:"artifactLocation"`
		Region           sarifRegion   `json:"region"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine int `json:"startLine"`
	}
	sarifLogical struct {
		Name               string `json:"name"`
		FullyQualifiedName string `json:"fullyQualifiedName"`
		Kind               string `json:"kind"`
	}
	sarifResultBag struct {
		Severity string        `json:"severity"`
		State    string        `json:"state"`
		Finding  remit.ID      `json:"finding"`
		System   string        `json:"system"`
		Identity remit.ID      `json:"identity,omitempty"`
		Evidence []remit.Fact  `json:"evidence"`
		Subject  remit.Subject `json:"subject"`
		Remedy   string        `json:"remedy,omitempty"`
	}
	sarifInvocation struct {
		ExecutionSuccessful        bool                `json:"executionSuccessful"`
		EndTimeUTC                 string              `json:"endTimeUtc,omitempty"`
		ToolExecutionNotifications []sarifNotification `json:"toolExecutionNotifications"`
	}
	sarifNotification struct {
		Level   string       `json:"level"`
		Message sarifMessage `json:"message"`
	}
)

// sarifSchema is where OASIS publishes the schema of the format.
const sarifSchema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

// WriteSARIF writes the findings that stand as SARIF 2.1.0, the worst first: one
// run, with the policies as its rules and the gaps as its notifications. It is
// made for code scanning: every result has a location, synthetic but stable
// (remit/SYSTEM/NAMESPACE/KIND/NAME), and fingerprints that follow the finding's
// ID, so that the same finding in the next scan is the same alert.
func WriteSARIF(w io.Writer, src Source) error {
	h := src.Header()
	t := newTally(h.Generated)
	for s, err := range src.Systems() {
		if err != nil {
			return err
		}
		t.system(&s)
	}
	for f, err := range src.Findings() {
		if err != nil {
			return err
		}
		t.finding(&f)
	}
	groups := t.sorted()
	rules, index := sarifRules(groups)

	d := newJSONWriter(w)
	d.raw("{\n")
	d.field("$schema", sarifSchema)
	d.field("version", "2.1.0")
	d.raw("\"runs\": [{\n\"tool\": {\"driver\": {\n")
	d.field("name", "Remit")
	if h.Version != "" {
		d.field("version", h.Version)
	}
	writeArray(d, "rules", Records(rules), func(*sarifRule) {}, nil)
	// writeArray ends with a comma, so a scalar closes the object.
	d.raw("\"language\": \"en\"\n}},\n")
	d.field("automationDetails", struct {
		ID string `json:"id"`
	}{sarifCategory(t.systems)})
	d.field("columnKind", "unicodeCodePoints")
	d.field("invocations", []sarifInvocation{invocation(h, t.systems)})
	d.raw(`"results": [`)
	separator := "\n"
	err := eachGroup(src, groups, func(g *group, findings iter.Seq2[remit.Finding, error]) error {
		for f, err := range findings {
			if err != nil {
				return err
			}
			cleanFinding(&f)
			d.raw(separator)
			d.value(sarifOf(&f, t.systemName(f.System), index[g.policy]))
			separator = ",\n"
		}
		return d.err
	})
	if err != nil {
		return err
	}
	d.raw("\n]\n}]\n}\n")
	return d.close()
}

// sarifRules makes one rule of each policy. A rule has one severity for all its
// results: the worst that it gave, which is the first in the order of groups.
func sarifRules(groups []*group) ([]sarifRule, map[string]int) {
	var rules []sarifRule
	index := map[string]int{}
	for _, g := range groups {
		at, known := index[g.policy]
		if known {
			bag := &rules[at].Properties
			bag.Risks = merge(bag.Risks, g.risks)
			bag.Controls = merge(bag.Controls, g.controls)
			continue
		}
		title := cmp.Or(sentence(g.title), Visible(g.policy), "unnamed")
		remedy := sentence(g.remedy)
		index[g.policy] = len(rules)
		rules = append(rules, sarifRule{
			ID:                   cmp.Or(Visible(g.policy), "unnamed"),
			ShortDescription:     sarifMessage{title},
			FullDescription:      sarifMessage{title},
			Help:                 sarifHelp{Text: helpText(g, title, remedy), Markdown: helpMarkdown(g, title, remedy)},
			DefaultConfiguration: sarifConfiguration{sarifLevel(g.severity)},
			Properties: sarifRuleBag{
				Precision:        "high",
				SecuritySeverity: securitySeverity(g.severity),
				Risks:            present(slices.Clone(g.risks)),
				Controls:         present(slices.Clone(g.controls)),
			},
		})
	}
	for i := range rules {
		bag := &rules[i].Properties
		// Code scanning reads no more than 20 tags.
		bag.Tags = append([]string{"security"}, bag.Risks[:min(len(bag.Risks), 19)]...)
	}
	return rules, index
}

func helpText(g *group, title, remedy string) string {
	text := title + "."
	if remedy != "" {
		text += "\n\nRemedy: " + remedy
	}
	if len(g.risks) > 0 {
		text += "\n\nRisks: " + strings.Join(g.risks, ", ")
	}
	if len(g.controls) > 0 {
		text += "\n\nControls: " + strings.Join(g.controls, ", ")
	}
	return text
}

func helpMarkdown(g *group, title, remedy string) string {
	text := "**" + markdown(title) + "**"
	if remedy != "" {
		text += "\n\n## Remedy\n\n" + markdown(remedy)
	}
	if len(g.risks) > 0 {
		text += "\n\n## Risks\n\n" + markdown(strings.Join(g.risks, ", "))
	}
	if len(g.controls) > 0 {
		text += "\n\n## Controls\n\n" + markdown(strings.Join(g.controls, ", "))
	}
	return text
}

// markdown escapes what Markdown (CommonMark, section 2.4) gives a meaning to:
// a remedy may name what an attacker named.
func markdown(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strings.ContainsRune("\\`*_{}[]<>()#+!|~&", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

func sarifLevel(s remit.Severity) string {
	switch s {
	case remit.Critical, remit.High:
		return "error"
	case remit.Medium:
		return "warning"
	}
	return "note"
}

// securitySeverity is the number by which GitHub names a severity: critical
// above 9.0, high from 7.0, medium from 4.0, low above 0. Info has none.
func securitySeverity(s remit.Severity) string {
	switch s {
	case remit.Critical:
		return "9.5"
	case remit.High:
		return "8.0"
	case remit.Medium:
		return "5.5"
	case remit.Low:
		return "2.0"
	}
	return ""
}

// sarifCategory keeps the alerts of one system apart from those of another that
// is uploaded to the same repository.
func sarifCategory(systems []remit.System) string {
	if len(systems) == 1 {
		return "remit/" + segment(systems[0].Name, systems[0].ID) + "/"
	}
	return "remit/"
}

func invocation(h Header, systems []remit.System) sarifInvocation {
	in := sarifInvocation{ExecutionSuccessful: true, ToolExecutionNotifications: []sarifNotification{}}
	if !h.Generated.IsZero() {
		in.EndTimeUTC = sane(h.Generated).Format(time.RFC3339)
	}
	for _, s := range systems {
		if s.Recorded {
			in.ToolExecutionNotifications = append(in.ToolExecutionNotifications, sarifNotification{
				"note", sarifMessage{Visible(s.Name + " was read from a recording of " + minute(s.Observed))},
			})
		}
		for _, g := range s.Gaps {
			text := s.Name + ": " + g.Section + " could not be read: " + g.Reason
			if g.Need != "" {
				text += "; needs " + g.Need
			}
			in.ToolExecutionNotifications = append(in.ToolExecutionNotifications, sarifNotification{"warning", sarifMessage{Visible(text)}})
		}
	}
	return in
}

func sarifOf(f *remit.Finding, system string, rule int) sarifResult {
	text := cmp.Or(Visible(f.Message), sentence(f.Title), Visible(f.Policy), "finding")
	id := string(cmp.Or(f.ID, remit.FindingID(f.Policy, f.Subject.ID)))
	qualified := Visible(strings.Join([]string{system, f.Subject.Kind, place(f.Subject.Ref)}, "/"))
	return sarifResult{
		RuleID:    cmp.Or(Visible(f.Policy), "unnamed"),
		RuleIndex: rule,
		Kind:      "fail",
		Level:     sarifLevel(f.Severity),
		Message:   sarifMessage{sarifText(text)},
		Locations: []sarifLocation{{
			PhysicalLocation: sarifPhysical{sarifArtifact{sarifURI(f, system)}, sarifRegion{1}},
			LogicalLocations: []sarifLogical{{Name: Visible(f.Subject.Name), FullyQualifiedName: qualified, Kind: "resource"}},
		}},
		PartialFingerprints: map[string]string{
			"remitFinding/v1": id,
			// GitHub compares this one only.
			"primaryLocationLineHash": id + ":1",
		},
		Properties: sarifResultBag{
			Severity: string(f.Severity),
			State:    string(f.State),
			Finding:  f.ID,
			System:   system,
			Identity: concernsIdentity(f),
			Evidence: f.Evidence,
			Subject:  f.Subject,
			Remedy:   sentence(f.Remedy),
		},
	}
}

// sarifText escapes what a message's text gives a meaning to: braces are
// placeholders and brackets links (SARIF 2.1.0, sections 3.11.5 and 3.11.6).
var sarifTextEscapes = strings.NewReplacer(`\`, `\\`, `{`, `{{`, `}`, `}}`, `[`, `\[`, `]`, `\]`)

func sarifText(s string) string { return sarifTextEscapes.Replace(s) }

// sarifURI is a relative reference (RFC 3986) that stands for the subject. There
// is no such file; code scanning shows it as where the alert is.
func sarifURI(f *remit.Finding, system string) string {
	parts := []string{"remit", segment(system, f.System)}
	if f.Subject.Namespace != "" {
		parts = append(parts, segment(f.Subject.Namespace, f.Subject.ID))
	}
	parts = append(parts, segment(f.Subject.Kind, f.Subject.ID), segment(f.Subject.Name, f.Subject.ID))
	return strings.Join(parts, "/")
}

// segment is one segment of a path; a text that is none, as "..", or too long for
// one, is replaced by the ID.
func segment(s string, id remit.ID) string {
	if strings.Trim(s, ".") == "" || len(s) > 200 {
		s = cmp.Or(string(id), "unknown")
	}
	return url.PathEscape(s)
}
