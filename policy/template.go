package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// template is a text with {expressions} in it, which are replaced by their
// values: "{credential.key} is {days(age(credential.changed))} days old".
// A brace itself is written twice.
type template struct {
	source string
	parts  []part
	shell  bool // values are quoted for a shell: the text holds commands
}

type part struct {
	text string
	expr *expression // nil: the text
}

// compileTemplate finds and compiles the expressions in a text.
func compileTemplate(env *cel.Env, t text, shell bool, report fault) *template {
	out := &template{source: t.value, shell: shell}
	runes := []rune(t.value)
	wrong := func(offset int, message string) *template {
		report(t, offset, message)
		return nil
	}
	var plain strings.Builder
	for i := 0; i < len(runes); {
		switch r := runes[i]; {
		case (r == '{' || r == '}') && i+1 < len(runes) && runes[i+1] == r:
			plain.WriteRune(r)
			i += 2
		case r == '}':
			return wrong(i, "a } without its {: write }} for a brace")
		case r == '{':
			end := closing(runes, i)
			if end < 0 {
				return wrong(i, "a { without its }: write {{ for a brace")
			}
			source := string(runes[i+1 : end])
			if strings.TrimSpace(source) == "" {
				return wrong(i, "nothing between { and }")
			}
			e := compile(env, t, i+1, source, report)
			if e == nil {
				return nil
			}
			if plain.Len() > 0 {
				out.parts = append(out.parts, part{text: plain.String()})
				plain.Reset()
			}
			out.parts = append(out.parts, part{expr: e})
			i = end + 1
		default:
			plain.WriteRune(r)
			i++
		}
	}
	if plain.Len() > 0 {
		out.parts = append(out.parts, part{text: plain.String()})
	}
	return out
}

// closing finds the brace that ends the expression which begins at open: not
// one inside a string or a map.
func closing(runes []rune, open int) int {
	depth := 0
	var quoted rune
	for i := open; i < len(runes); i++ {
		r := runes[i]
		switch {
		case quoted != 0:
			if r == '\\' {
				i++
			} else if r == quoted {
				quoted = 0
			}
		case r == '"' || r == '\'':
			quoted = r
		case r == '{':
			depth++
		case r == '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

func (t *template) render(f *frame) (string, error) {
	if len(t.parts) == 1 && t.parts[0].expr == nil {
		return t.parts[0].text, nil
	}
	var b strings.Builder
	for _, p := range t.parts {
		if p.expr == nil {
			b.WriteString(p.text)
			continue
		}
		v, err := p.expr.eval(f)
		if err != nil {
			return "", fmt.Errorf("%s: %w", p.expr.source, err)
		}
		s := format(v)
		if t.shell {
			s = shellQuote(s)
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

func (t *template) expressions() []*expression {
	var out []*expression
	for _, p := range t.parts {
		if p.expr != nil {
			out = append(out, p.expr)
		}
	}
	return out
}

const (
	shownItems = 5   // of a list; the rest is counted
	shownRunes = 200 // of one name; names are data from outside
)

// format writes a value for people. Names are written as they are: whoever
// shows a finding escapes it.
func format(v ref.Val) string {
	switch o := v.(type) {
	case types.String:
		return shorten(string(o))
	case types.Int:
		return strconv.FormatInt(int64(o), 10)
	case types.Bool:
		if o {
			return "yes"
		}
		return "no"
	case types.Timestamp:
		if o.IsZero() {
			return "unknown"
		}
		return o.UTC().Format("2006-01-02")
	case types.Duration:
		return formatSpan(o.Duration)
	case *refObject:
		return shorten(o.it.String())
	case *ownerObject:
		return shorten(o.it.Name)
	case *permissionObject:
		return shorten(strings.Join(o.it.Actions, ", ") + " on " + strings.Join(o.it.Resources, ", "))
	case *systemObject:
		return shorten(o.it.Name)
	case *relationObject:
		word := string(o.it.Relation.Type)
		if o.it.Right != "" {
			word = string(o.it.Right)
		}
		return word + " " + shorten(o.it.Relation.ToRef.String())
	case *credentialObject:
		s := o.it.Ref.String()
		if o.it.Key != "" {
			s += " key " + o.it.Key
		}
		return shorten(s)
	case words:
		var all []string
		for it := o.Iterator(); it.HasNext() == types.True; {
			k, _ := it.Next().Value().(string)
			all = append(all, k+"="+o[k])
		}
		return joinSome(all, len(all))
	case traits.Lister:
		n, _ := o.Size().(types.Int)
		var all []string
		for it := o.Iterator(); it.HasNext() == types.True && len(all) < shownItems; {
			all = append(all, format(it.Next()))
		}
		return joinSome(all, int(n))
	}
	if s, ok := subjectOf(v); ok {
		return shorten(s.Ref.String())
	}
	if d, ok := v.(types.Double); ok {
		return strconv.FormatFloat(float64(d), 'g', -1, 64)
	}
	return shorten(fmt.Sprint(v.Value()))
}

func joinSome(all []string, n int) string {
	if len(all) > shownItems {
		all = all[:shownItems]
	}
	s := strings.Join(all, ", ")
	if n > len(all) {
		s += " and " + strconv.Itoa(n-len(all)) + " more"
	}
	return s
}

func shorten(s string) string {
	s = strings.ToValidUTF8(s, "�")
	if utf8.RuneCountInString(s) <= shownRunes {
		return s
	}
	return string([]rune(s)[:shownRunes-1]) + "…"
}

// shellQuote makes a value safe to paste into a POSIX shell as part of a
// command. Names of bindings and users may hold anything, so a command that
// Remit suggests must not run what someone hid in a name.
func shellQuote(s string) string {
	safe := s != ""
	plain := true
	for _, r := range s {
		if unicode.IsControl(r) || !unicode.IsPrint(r) {
			plain = false
		}
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("-_./:@%+,=", r):
		default:
			safe = false
		}
	}
	if safe {
		return s
	}
	if plain {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	var b strings.Builder
	b.WriteString("$'")
	for _, c := range []byte(s) {
		if c >= ' ' && c < 0x7f && c != '\'' && c != '\\' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String() + "'"
}

// formatFact writes a piece of evidence; times are exact there.
func formatFact(v ref.Val) string {
	if t, ok := v.(types.Timestamp); ok && !t.IsZero() {
		return t.UTC().Format(time.RFC3339)
	}
	return format(v)
}
