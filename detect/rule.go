package detect

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"remit"
	"remit/detect/sigma"
)

// manner is how a rule's match is told: what its "remit:" block says, or what
// can be made of a rule that has none.
type manner struct {
	id       string
	severity remit.Severity
	risks    []string
	controls []string
	remedy   string
	words    string // a template with {field} in it
}

func mannerOf(r *sigma.Rule) *manner {
	block, ours := r.Custom["remit"].(map[string]any)
	m := &manner{id: r.Ref(), risks: r.Risks, severity: severityOf(r.Level)}
	if ours && r.Name != "" {
		m.id = r.Name // a word of the product; others are known by their UUIDs
	}
	texts := func(key string) (out []string) {
		list, _ := block[key].([]any)
		for _, one := range list {
			if s, ok := one.(string); ok {
				out = append(out, s)
			}
		}
		return out
	}
	m.controls = texts("controls")
	for _, risk := range texts("risks") {
		m.risks = appendNew(m.risks[:len(m.risks):len(m.risks)], risk, 32)
	}
	m.remedy, _ = block["remedy"].(string)
	m.words, _ = block["words"].(string)
	if m.words == "" {
		m.words = "{remit.principal} did {remit.action} on {remit.resource.kind} {remit.resource.name} from {remit.address}: " + r.Title
	}
	return m
}

func severityOf(level string) remit.Severity {
	switch level {
	case "critical":
		return remit.Critical
	case "high":
		return remit.High
	case "medium":
		return remit.Medium
	case "low":
		return remit.Low
	}
	return remit.Info
}

// say fills the placeholders of a template; what is absent reads "?".
func say(template string, value func(field string) (string, bool)) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(template, "{")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		field, after, ok := strings.Cut(rest, "}")
		if !ok {
			b.WriteByte('{')
			b.WriteString(rest)
			return b.String()
		}
		if s, ok := value(field); ok {
			b.WriteString(clip(s, 200))
		} else {
			b.WriteByte('?')
		}
		template = after
	}
}

// clip bounds a text that came from outside, in bytes, and writes what is not
// printable as escapes.
func clip(s string, most int) string {
	cut := len(s) > most
	if cut {
		s = strings.ToValidUTF8(s[:most], "")
	}
	if !printable(s) {
		s = strconv.Quote(s)
		s = s[1 : len(s)-1]
		if len(s) > most {
			s, cut = strings.ToValidUTF8(s[:most], ""), true
		}
	}
	if cut {
		s += "…"
	}
	return s
}

func printable(s string) bool {
	for _, r := range s {
		if !strconv.IsPrint(r) {
			return false
		}
	}
	return utf8.ValidString(s)
}

func appendNew[T comparable](list []T, one T, most int) []T {
	for _, have := range list {
		if have == one {
			return list
		}
	}
	if len(list) >= most {
		return list
	}
	return append(list, one)
}
