package sigma

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// token is a part of a value: literal text, or something that stands for other
// text.
type token struct {
	kind tokenKind
	text string // of a literal
}

type tokenKind uint8

const (
	tokenLiteral tokenKind = iota
	tokenStar              // any number of characters
	tokenOne               // one character
	tokenDash              // one of the characters in dashes
)

// dashes are what the windash modifier takes for one another.
const dashes = "-/–—―"

// parseTokens reads a value with wildcards: "*" and "?" stand for other text
// unless a backslash is before them; a backslash before anything else is itself.
func parseTokens(s string) []token {
	var tokens []token
	var literal strings.Builder
	flush := func() {
		if literal.Len() > 0 {
			tokens = append(tokens, token{tokenLiteral, literal.String()})
			literal.Reset()
		}
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s) && strings.IndexByte(`*?\`, s[i+1]) >= 0:
			i++
			literal.WriteByte(s[i])
		case c == '*':
			flush()
			if len(tokens) == 0 || tokens[len(tokens)-1].kind != tokenStar {
				tokens = append(tokens, token{kind: tokenStar})
			}
		case c == '?':
			flush()
			tokens = append(tokens, token{kind: tokenOne})
		default:
			literal.WriteByte(c)
		}
	}
	flush()
	return tokens
}

// plain returns the text of tokens without wildcards.
func plain(tokens []token) (string, bool) {
	var text strings.Builder
	for _, t := range tokens {
		if t.kind != tokenLiteral {
			return "", false
		}
		text.WriteString(t.text)
	}
	return text.String(), true
}

func startStar(tokens []token) []token {
	if len(tokens) > 0 && tokens[0].kind == tokenStar {
		return tokens
	}
	return append([]token{{kind: tokenStar}}, tokens...)
}

func endStar(tokens []token) []token {
	if len(tokens) > 0 && tokens[len(tokens)-1].kind == tokenStar {
		return tokens
	}
	return append(tokens[:len(tokens):len(tokens)], token{kind: tokenStar})
}

// windash replaces the dashes that begin a word, as the flags of a command do,
// by a token that stands for any of them.
func windash(tokens []token) []token {
	var out []token
	before := ' '
	for _, t := range tokens {
		if t.kind != tokenLiteral {
			out, before = append(out, t), ' '
			continue
		}
		start := 0
		for i, r := range t.text {
			size := utf8.RuneLen(r)
			if size < 0 {
				size = 1
			}
			after, _ := utf8.DecodeRuneInString(t.text[i+size:])
			if strings.ContainsRune(dashes, r) && r != utf8.RuneError && !word(before) && word(after) {
				if i > start {
					out = append(out, token{tokenLiteral, t.text[start:i]})
				}
				out, start = append(out, token{kind: tokenDash}), i+size
			}
			before = r
		}
		if start < len(t.text) {
			out = append(out, token{tokenLiteral, t.text[start:]})
		}
	}
	return out
}

func word(r rune) bool {
	return r == '_' || r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r))
}

// shape is the fastest way to match a pattern.
type shape uint8

const (
	exact    shape = iota // text
	prefix                // text*
	suffix                // *text
	contains              // *text*
	anything              // *
	glob                  // all others
)

// pattern is a compiled value.
type pattern struct {
	shape shape
	text  string
	segs  [][]token // of a glob: what stands between its stars
	open  [2]bool   // of a glob: whether it begins, and ends, with a star
}

func compilePattern(tokens []token) pattern {
	stars := 0
	special := false
	for _, t := range tokens {
		stars += b2i(t.kind == tokenStar)
		special = special || t.kind == tokenOne || t.kind == tokenDash
	}
	if !special {
		first := len(tokens) > 0 && tokens[0].kind == tokenStar
		last := len(tokens) > 1 && tokens[len(tokens)-1].kind == tokenStar
		var text strings.Builder
		for _, t := range tokens {
			text.WriteString(t.text)
		}
		switch {
		case stars == 0:
			return pattern{shape: exact, text: text.String()}
		case len(tokens) == 1:
			return pattern{shape: anything}
		case stars == 1 && first:
			return pattern{shape: suffix, text: text.String()}
		case stars == 1 && last:
			return pattern{shape: prefix, text: text.String()}
		case stars == 2 && first && last:
			return pattern{shape: contains, text: text.String()}
		}
	}
	p := pattern{shape: glob}
	var seg []token
	for i, t := range tokens {
		if t.kind != tokenStar {
			seg = append(seg, t)
			continue
		}
		if i == 0 {
			p.open[0] = true
		} else if len(seg) > 0 {
			p.segs, seg = append(p.segs, seg), nil
		}
		p.open[1] = i == len(tokens)-1
	}
	if len(seg) > 0 {
		p.segs = append(p.segs, seg)
	}
	return p
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// match takes time in the length of s for each part between stars, for a part
// with "?" multiplied by that part's length.
func (p *pattern) match(s string) bool {
	switch p.shape {
	case exact:
		return s == p.text
	case prefix:
		return strings.HasPrefix(s, p.text)
	case suffix:
		return strings.HasSuffix(s, p.text)
	case contains:
		return strings.Contains(s, p.text)
	case anything:
		return true
	}
	segs := p.segs
	if !p.open[0] {
		n, ok := forward(segs[0], s)
		if !ok {
			return false
		}
		if len(segs) == 1 && !p.open[1] {
			return n == len(s)
		}
		s, segs = s[n:], segs[1:]
	}
	if !p.open[1] {
		n, ok := backward(segs[len(segs)-1], s)
		if !ok {
			return false
		}
		s, segs = s[:len(s)-n], segs[:len(segs)-1]
	}
	for _, seg := range segs {
		n, ok := find(seg, s)
		if !ok {
			return false
		}
		s = s[n:]
	}
	return true
}

// forward matches seg at the start of s and returns how much of s that takes.
func forward(seg []token, s string) (int, bool) {
	n := 0
	for _, t := range seg {
		if t.kind == tokenLiteral {
			if !strings.HasPrefix(s[n:], t.text) {
				return 0, false
			}
			n += len(t.text)
			continue
		}
		r, size := utf8.DecodeRuneInString(s[n:])
		if size == 0 || t.kind == tokenDash && !strings.ContainsRune(dashes, r) {
			return 0, false
		}
		n += size
	}
	return n, true
}

// backward matches seg at the end of s.
func backward(seg []token, s string) (int, bool) {
	n := 0
	for i := len(seg) - 1; i >= 0; i-- {
		t, rest := seg[i], s[:len(s)-n]
		if t.kind == tokenLiteral {
			if !strings.HasSuffix(rest, t.text) {
				return 0, false
			}
			n += len(t.text)
			continue
		}
		r, size := utf8.DecodeLastRuneInString(rest)
		if size == 0 || t.kind == tokenDash && !strings.ContainsRune(dashes, r) {
			return 0, false
		}
		n += size
	}
	return n, true
}

// find returns where the first match of seg in s ends.
func find(seg []token, s string) (int, bool) {
	for start := 0; start <= len(s); {
		if seg[0].kind == tokenLiteral {
			i := strings.Index(s[start:], seg[0].text)
			if i < 0 {
				return 0, false
			}
			start += i
		}
		if n, ok := forward(seg, s[start:]); ok {
			return start + n, true
		}
		_, size := utf8.DecodeRuneInString(s[start:])
		start += max(size, 1)
	}
	return 0, false
}

// foldRune returns the rune that stands for all that differ from r in case
// only, the same that strings.EqualFold takes for equal.
func foldRune(r rune) rune {
	if r < utf8.RuneSelf {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}
	least := r
	for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
		if next < utf8.RuneSelf {
			return unicode.ToLower(next)
		}
		least = min(least, next)
	}
	return least
}

// folded says whether folding would leave s as it is.
func folded(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

// appendFold appends s folded to dst; bytes that are not UTF-8 stay.
func appendFold(dst []byte, s string) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			dst = append(dst, c)
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			dst = append(dst, c)
		} else {
			dst = utf8.AppendRune(dst, foldRune(r))
		}
		i += size
	}
	return dst
}

func fold(s string) string {
	if folded(s) {
		return s
	}
	return string(appendFold(nil, s))
}
