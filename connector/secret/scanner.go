package secret

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"github.com/zricethezav/gitleaks/v8/config"

	"remit"
)

// Bounds on one scan. A secret's rules are run on the text around their
// keywords; when a hostile value is full of keywords, the text given to regular
// expressions is bounded, and so the time: see BenchmarkScannerHostile.
const (
	before      = 96       // bytes ahead of a keyword that a match may begin in
	behind      = 288      // bytes behind a keyword, unless the rule reaches farther
	maxWindow   = 8 << 10  // windows are not merged beyond that
	maxExtent   = 64 << 10 // and not extended beyond that
	maxMatches  = 64       // of one rule in one window
	maxFound    = 256      // secrets of one value
	budget      = 2 << 20  // bytes through regular expressions for one value
	wholeLength = 1 << 10  // shorter texts are one window
)

// Scanner recognises API keys, tokens and passwords in values: by the default
// rules of gitleaks (https://github.com/gitleaks/gitleaks, MIT) as far as they
// find secrets, by rules of its own for passwords within URLs and connection
// strings, and by the claims of JSON Web Tokens. It is safe for concurrent use
// and keeps nothing of what it sees.
type Scanner struct {
	rules *ruleSet
}

// NewScanner returns a Scanner. The rules are compiled at the first call in a
// process (some 50 ms, 13 MB) and shared by all. It fails with
// [remit.Internal] when the rules that were built in cannot be used.
func NewScanner() (*Scanner, error) {
	rules, err := compiled()
	if err != nil {
		return nil, err
	}
	return &Scanner{rules: rules}, nil
}

// Found is one secret that was recognised, without the secret.
type Found struct {
	Rule     string // the rule's id: gitleaks' own, or one of this package
	Provider string // the platform that accepts it, or "" when unknown
	Type     remit.CredentialType

	// Native is the public identifier of the credential where the value
	// itself is one or names one: an AWS access key id, the id of a Google
	// service account key, "JTI=…" of a token.
	Native string

	// Account is whom the credential is for where the value says so: the
	// address of a Google service account.
	Account string

	// ByName says that the name under which the value stands made it a secret,
	// and nothing in the value. Where Named or NamedInPlain are asked anyway,
	// they know better.
	ByName bool

	Fingerprint string // see Fingerprinter
	Token       *Token // the claims, when it is a JSON Web Token
}

// Scanned is the result of a scan: what was found, in the order of the text.
type Scanned struct {
	Found []Found

	// Cut says that the value was too long, or too full of what looks like
	// secrets, to be looked at in full.
	Cut bool
}

// Scan looks for secrets in a value that stands under the given name (the key
// of a Secret, a variable's name, a file's name), which may be "". Placeholders,
// documentation examples and references to secrets kept elsewhere are not
// reported. At most [MaxValue] bytes are looked at, at most 256 secrets
// reported. PEM documents are left to [ParseBundle], kubeconfigs and registry
// logins to their parsers.
func (s *Scanner) Scan(name string, value []byte, fingerprint Fingerprint) Scanned {
	var out Scanned
	if len(value) > MaxValue {
		value, out.Cut = value[:MaxValue], true
	}
	trimmed := bytes.TrimSpace(value)
	if len(trimmed) < 6 {
		return out
	}
	if f, ok := googleKey(trimmed, fingerprint); ok {
		out.Found = append(out.Found, f)
		return out
	}
	sc := scan{set: s.rules, fingerprint: fingerprint, left: budget}
	// Rules that go by a key's name need the name beside the value, as it
	// would stand in a file. A document has names of its own.
	if name != "" && len(name) <= 253 && bytes.IndexByte(trimmed, '\n') < 0 {
		sc.text = name + "=" + string(trimmed)
		sc.offset = len(name) + 1
	} else {
		sc.text = string(trimmed)
	}
	sc.tokens()
	sc.run()
	out.Found = append(out.Found, sc.results()...)
	out.Cut = out.Cut || sc.cut
	return out
}

// span is a stretch of the text.
type span struct{ from, to int }

func (a span) overlaps(b span) bool { return a.from < b.to && b.from < a.to }

// hit is a match that stands, before overlapping ones are sorted out.
type hit struct {
	span
	rank  int // lower wins
	found Found
}

type scan struct {
	set         *ruleSet
	fingerprint Fingerprint
	text        string
	offset      int // where the value begins in the text
	hits        []hit
	left        int // bytes that may still go through regular expressions
	cut         bool
}

// lower maps ASCII letters to lower case and leaves all other bytes, so that
// offsets stay what they are (strings.ToLower changes the length of some text).
func lower(s string) []byte {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return b
}

// run finds the keywords and tries their rules around them.
func (sc *scan) run() {
	windows := make(map[int32][]span)
	short := len(sc.text) <= wholeLength
	sc.set.trie.Walk(lower(sc.text), func(end, n, pattern int64) bool {
		separated, known := false, false
		for _, rw := range sc.set.of[pattern] {
			i := rw.rule
			if rw.setting {
				if !known {
					separated, known = followed(sc.text[end+1:]), true
				}
				if !separated {
					continue
				}
			}
			w := windows[i]
			if short {
				if w == nil {
					windows[i] = []span{{0, len(sc.text)}}
				}
				continue
			}
			reach := behind
			if r := sc.set.rules[i].reach; r > 0 {
				reach = r
			}
			next := span{max(0, int(end-n)-before), min(len(sc.text), int(end)+reach)}
			if k := len(w) - 1; k >= 0 && next.from <= w[k].to && next.to-w[k].from <= maxWindow {
				w[k].to = max(w[k].to, next.to)
			} else {
				windows[i] = append(w, next)
			}
		}
		return true
	})
	// The order is fixed: what is left out when the budget ends must not
	// differ from one look to the next. Rules take turns, one window each, so
	// that a flood of one keyword does not hide another's secret.
	order := make([]int32, 0, len(windows))
	for i := range windows {
		order = append(order, i)
	}
	slices.Sort(order)
	for turn := 0; ; turn++ {
		more := false
		for _, i := range order {
			if turn >= len(windows[i]) {
				continue
			}
			more = true
			if sc.left <= 0 {
				sc.cut = true
				return
			}
			sc.try(int(i), windows[i][turn])
		}
		if !more {
			return
		}
	}
}

// followed tells whether a separator of names and values may follow a name that
// the text goes on from. It spares the expressions most of the words that are
// keywords and no names.
func followed(rest string) bool {
	for i := 0; i < len(rest) && i < 48; i++ {
		switch c := rest[i]; {
		case c == '=' || c == ':' || c == '>' || c == '|' || c == '?' || c == ',':
			return true
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v' || c == '\'' || c == '"':
		case c == '_' || c == '-' || c == '.' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z':
		default:
			return false
		}
	}
	return false
}

// nameStart goes back from a position over at most 50 bytes of a name.
func nameStart(text string, at int) int {
	for n := 0; n < 50 && at > 0; n++ {
		c := text[at-1]
		if c != '_' && c != '-' && c != '.' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			break
		}
		at--
	}
	return at
}

// try runs one rule on one window.
func (sc *scan) try(i int, w span) {
	r := &sc.set.rules[i]
	for {
		sc.left -= w.to - w.from
		text := sc.text[w.from:w.to]
		matches := r.re.FindAllStringSubmatchIndex(text, maxMatches+1)
		if len(matches) == 0 {
			return
		}
		// A match at the edge of the window may be cut off there, or exist
		// only because the window ends there.
		first, last := matches[0], matches[len(matches)-1]
		grow := w
		if last[1] == len(text) && w.to < len(sc.text) {
			grow.to = min(len(sc.text), w.to+(w.to-w.from))
		}
		if first[0] == 0 && w.from > 0 && !r.named {
			grow.from = max(0, w.from-before)
		}
		if grow != w && grow.to-grow.from <= maxExtent && sc.left > 0 {
			w = grow
			continue
		}
		if grow != w {
			sc.cut = true
		}
		if len(matches) > maxMatches {
			matches, sc.cut = matches[:maxMatches], true
		}
		for _, m := range matches {
			sc.consider(i, r, w, text, m)
		}
		return
	}
}

// consider decides whether a match of a rule is a secret.
func (sc *scan) consider(i int, r *rule, w span, text string, loc []int) {
	if len(sc.hits) >= 4*maxFound {
		sc.cut = true
		return
	}
	from, to := loc[0], loc[1]
	if r.group > 0 {
		from, to = loc[2*r.group], loc[2*r.group+1]
	} else {
		for g := 2; g+1 < len(loc); g += 2 {
			if loc[g] >= 0 && loc[g+1] > loc[g] {
				from, to = loc[g], loc[g+1]
				break
			}
		}
	}
	if from < 0 || to <= from {
		return
	}
	secret := text[from:to]
	at := span{w.from + from, w.from + to}
	if at.to <= sc.offset {
		return // the name that we put there ourselves
	}
	if r.entropy > 0 && entropy(secret) <= r.entropy {
		return
	}
	if r.named {
		loc[0] = nameStart(text, loc[0])
	}
	m := match{text: text[loc[0]:loc[1]], line: lineAround(text, loc[0], loc[1]), secret: secret}
	typ, provider := r.typ, r.provider
	if r.ours {
		for g := 0; g+1 < len(loc); g += 2 {
			s := ""
			if loc[g] >= 0 {
				s = text[loc[g]:loc[g+1]]
			}
			m.groups = append(m.groups, s)
		}
		var ok bool
		if typ, provider, ok = r.judge(m); !ok || placeholder(secret) {
			return
		}
	} else {
		// The rule takes any 40 hexadecimal digits near the platform's name,
		// which are rather a revision of its image.
		if r.id == "sourcegraph-access-token" && !strings.HasPrefix(secret, "sgp_") {
			return
		}
		if r.named {
			t, ok := nameType(nameIn(text[loc[0]:from]))
			if !ok || innocent(secret) {
				return
			}
			if r.id == genericRule {
				typ = t
			}
		} else if placeholder(secret) {
			return
		}
		if allowed(sc.set.global, m) || allowed(r.allow, m) {
			return
		}
	}
	f := Found{Rule: r.id, Provider: provider, Type: typ}
	f.ByName = w.from+loc[0] < sc.offset && (r.id == genericRule || r.id == configPasswordRule)
	if r.id == awsKeyRule {
		f.Native = secret // an identifier, public by its nature
	}
	rank := 1
	switch {
	case r.id == configPasswordRule || r.id == "connection-string" || r.id == "authorization-header" || r.reach >= curlReach:
		rank = 3
	case r.id == genericRule:
		rank = 4
	case r.named:
		rank = 2
	case r.ours:
		rank = 0
	}
	f.Fingerprint = fingerprintOf(sc.fingerprint, []byte(secret))
	sc.hits = append(sc.hits, hit{span: at, rank: rank*1000 + i, found: f})
}

// nameIn takes the name out of what stands ahead of a value: `"db.password": "`.
func nameIn(s string) string {
	s = strings.TrimRight(s, " \t\r\n'\"`=:>|,?\\")
	if i := strings.LastIndexAny(s, " \t\r\n'\"`=:>|,?\\"); i >= 0 {
		s = s[i+1:]
	}
	return s
}

func lineAround(text string, from, to int) string {
	if i := strings.LastIndexByte(text[:from], '\n'); i >= 0 {
		from = i + 1
	} else {
		from = 0
	}
	if i := strings.IndexByte(text[to:], '\n'); i >= 0 {
		to += i
	} else {
		to = len(text)
	}
	return text[from:to]
}

// allowed applies gitleaks' allowlists to a match. There are no commits and no
// paths here: an OR list goes by its expressions and stop words, an AND list
// that asks for a path never applies. (gitleaks: detect.checkFindingAllowed.)
func allowed(lists []*config.Allowlist, m match) bool {
	for _, a := range lists {
		target := m.secret
		switch a.RegexTarget {
		case "match":
			target = m.text
		case "line":
			target = m.line
		}
		byRegex := len(a.Regexes) > 0 && a.RegexAllowed(target)
		byWord := false
		if len(a.StopWords) > 0 {
			byWord, _ = a.ContainsStopWord(m.secret)
		}
		if a.MatchCondition == config.AllowlistMatchAnd {
			if len(a.Commits) == 0 && len(a.Paths) == 0 && (len(a.Regexes) == 0 || byRegex) && (len(a.StopWords) == 0 || byWord) {
				return true
			}
		} else if byRegex || byWord {
			return true
		}
	}
	return false
}

// tokens finds JSON Web Tokens, in one pass.
func (sc *scan) tokens() {
	for pos := 0; pos < len(sc.text); {
		i := strings.Index(sc.text[pos:], "eyJ")
		if i < 0 {
			return
		}
		from := pos + i
		to := from
		for to < len(sc.text) && tokenByte(sc.text[to]) {
			to++
		}
		pos = to
		if from > 0 && tokenByte(sc.text[from-1]) {
			continue
		}
		if len(sc.hits) >= maxFound {
			sc.cut = true
			return
		}
		raw := sc.text[from:to]
		t, err := ParseToken([]byte(raw))
		if err != nil || strings.Contains(strings.ToLower(t.Issuer), "example") {
			continue
		}
		f := Found{
			Rule: "jwt", Provider: t.Provider(), Type: remit.ShortLivedToken, Token: &t,
			Fingerprint: fingerprintOf(sc.fingerprint, []byte(raw)),
		}
		if t.ID != "" {
			f.Native = "JTI=" + t.ID
		}
		if t.Expires.IsZero() {
			f.Type = remit.StaticToken
		}
		sc.hits = append(sc.hits, hit{span: span{from, to}, rank: -1, found: f})
	}
}

func tokenByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-' || c == '.'
}

// results sorts out overlapping matches: the better rule wins, and of one
// secret that stands there twice one remains.
func (sc *scan) results() []Found {
	slices.SortFunc(sc.hits, func(a, b hit) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.from, b.from), cmp.Compare(b.to, a.to))
	})
	var kept []hit
	seen := make(map[string]bool)
	for _, h := range sc.hits {
		if slices.ContainsFunc(kept, func(k hit) bool { return k.overlaps(h.span) }) {
			continue
		}
		if f := h.found.Fingerprint; f != "" {
			if seen[f] {
				continue
			}
			seen[f] = true
		}
		if len(kept) == maxFound {
			sc.cut = true
			break
		}
		kept = append(kept, h)
	}
	slices.SortFunc(kept, func(a, b hit) int { return cmp.Compare(a.from, b.from) })
	out := make([]Found, len(kept))
	for i, h := range kept {
		out[i] = h.found
	}
	return out
}
