package sigma

import (
	"encoding/base64"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"

	"github.com/valyala/fastjson"

	"remit"
)

// node is a condition with its selections, compiled. Nodes are shared: what a
// condition names twice is there once.
type node struct {
	op   op // opSelection is a test here
	n    int
	kids []*node
	test *test
	name string // of the selection whose root this is
}

// testKind is what a test does with a field's values.
type testKind uint8

const (
	testText   testKind = iota // patterns and null
	testRegexp                 // regular expressions
	testCIDR                   // networks
	testNumber                 // comparisons
	testExists
	testField // another field's values
)

// test asks one thing of one field.
type test struct {
	kind  testKind
	field int
	all   bool // all values must be met, instead of any
	cased bool

	null     bool // of testText: absent and null are met
	patterns []pattern
	escaped  []pattern // the patterns as they look inside JSON; nil when no different
	set      map[string]struct{}

	exprs    []*regexp.Regexp
	networks []netip.Prefix
	compare  op2
	numbers  []float64
	part     timePart
	exists   bool
	other    int // of testField
	shape    shape
}

// op2 is a comparison of two numbers.
type op2 uint8

const (
	compareEq op2 = iota
	compareGt
	compareGte
	compareLt
	compareLte
)

// fewValues is how many plain values are compared one by one.
const fewValues = 8

// builder compiles selections.
type builder struct {
	rule         *Rule
	field        func(name string) (int, error)
	placeholders map[string][]string
}

// check compiles a rule for its errors only. What is merely not supported is
// left for [Compile] to name.
func check(r *Rule) error {
	b := builder{rule: r, field: func(string) (int, error) { return 0, nil }}
	d := r.detection
	if r.Kind == Filter {
		d = r.filter.detection
	}
	if d == nil {
		return nil
	}
	if _, err := b.detection(d); err != nil && remit.KindOf(err) == remit.Invalid {
		return err
	}
	return nil
}

// section is what stands before the names of selections in messages.
func (b *builder) section() string {
	if b.rule.Kind == Filter {
		return "filter."
	}
	return "detection."
}

func (b *builder) fail(line int, field, format string, args ...any) error {
	return fault(b.rule.Path, line, field, format, args...)
}

// unable is a fault of what the rule may ask and this engine cannot do.
func (b *builder) unable(line int, field, format string, args ...any) error {
	return remit.Errorf(remit.Unsupported, "compile rule", "%s: %s: %s", at(b.rule.Path, line), field, fmt.Sprintf(format, args...))
}

// detection compiles all conditions, joined by or. Every selection is
// compiled, so that a fault in one that no condition names is found as well.
func (b *builder) detection(d *detection) (*node, error) {
	selections := make(map[string]*node, len(d.names))
	var later error // an unsupported one; a fault goes first
	for _, name := range d.names {
		n, err := b.selection(b.section()+name, d.selections[name])
		if err != nil {
			if remit.KindOf(err) == remit.Invalid {
				return nil, err
			}
			if later == nil {
				later = err
			}
			continue
		}
		named := *n
		named.name = name
		selections[name] = &named
	}
	if later != nil {
		return nil, later
	}
	if d.timeframe && !slices.ContainsFunc(d.conditions, func(c condition) bool { return c.pipe != "" }) {
		return nil, b.unable(b.rule.Line, b.section()+"timeframe", "means nothing without an aggregation: write a correlation instead")
	}
	weights := make(map[string]int, len(selections))
	for name, n := range selections {
		weights[name] = n.weight()
	}
	root := &node{op: opOr}
	left := maxWeight
	for _, c := range d.conditions {
		if c.pipe != "" {
			return nil, b.unable(c.line, b.section()+"condition",
				"the aggregation %q is of Sigma before 2.0: write a correlation instead", clip("| "+c.pipe))
		}
		if left -= c.expr.weight(weights); left < 0 {
			return nil, b.fail(c.line, b.section()+"condition", "asks more than %d things of one event", maxWeight)
		}
		root.kids = append(root.kids, bind(c.expr, selections))
	}
	if len(root.kids) == 1 {
		return root.kids[0], nil
	}
	return root, nil
}

// maxWeight is how many tests a rule may ask of one event, counting those of a
// selection each time that a condition names it.
const maxWeight = 200_000

func (n *node) weight() int {
	sum := 1
	for _, kid := range n.kids {
		sum += kid.weight()
	}
	return sum
}

func (e *expr) weight(of map[string]int) int {
	if e.op == opSelection {
		return of[e.name]
	}
	sum := 1
	for _, kid := range e.kids {
		sum += kid.weight(of)
	}
	return sum
}

func bind(e *expr, selections map[string]*node) *node {
	if e.op == opSelection {
		return selections[e.name]
	}
	n := &node{op: e.op, n: e.n}
	for _, kid := range e.kids {
		n.kids = append(n.kids, bind(kid, selections))
	}
	return n
}

func (b *builder) selection(field string, v *value) (*node, error) {
	switch v.kind {
	case yamlMap:
		if len(v.keys) == 0 {
			return nil, b.fail(v.line, field, "is empty")
		}
		return b.mapping(field, v)
	case yamlList:
		if len(v.list) == 0 {
			return nil, b.fail(v.line, field, "is empty")
		}
		n := &node{op: opOr}
		var keywords []*value
		for _, e := range v.list {
			if e.scalar() {
				keywords = append(keywords, e)
				continue
			}
			if e.kind == yamlList || len(e.keys) == 0 {
				return nil, b.fail(e.line, field, "holds a list, or an empty map: use maps of fields, or keywords")
			}
			kid, err := b.mapping(field, e)
			if err != nil {
				return nil, err
			}
			n.kids = append(n.kids, kid)
		}
		if len(keywords) > 0 {
			kid, err := b.item(field, "", keywords, v.line)
			if err != nil {
				return nil, err
			}
			n.kids = append(n.kids, kid)
		}
		if len(n.kids) == 1 {
			return n.kids[0], nil
		}
		return n, nil
	case yamlNull:
		return nil, b.fail(v.line, field, "is empty")
	}
	return b.item(field, "", []*value{v}, v.line)
}

func (b *builder) mapping(field string, v *value) (*node, error) {
	n := &node{op: opAnd}
	var later error
	for i, key := range v.keys {
		e := v.list[i]
		values := []*value{e}
		if e.kind == yamlList {
			values = e.list
		}
		kid, err := b.item(field, key, values, e.line)
		if err != nil {
			if remit.KindOf(err) == remit.Invalid {
				return nil, err
			}
			if later == nil {
				later = err
			}
			continue
		}
		n.kids = append(n.kids, kid)
	}
	if later != nil {
		return nil, later
	}
	if len(n.kids) == 1 {
		return n.kids[0], nil
	}
	return n, nil
}

// item is one "field|modifiers: values" while it is compiled.
type item struct {
	*builder
	where string // for messages
	line  int
	name  string // the field's
	test  *test
	neq   bool

	re, cidr, ref, exists bool
	number                bool // a comparison or a part of a time
	changed               bool // the tokens are no longer those of values
	flags                 string
	values                []*value
	tokens                [][]token
}

// item compiles the values of one key; keywords have the key "".
func (b *builder) item(where, key string, values []*value, line int) (*node, error) {
	name, modifiers, _ := strings.Cut(key, "|")
	it := item{builder: b, where: where + "." + key, line: line, name: name, test: &test{}, values: values}
	if key == "" {
		it.where = where
	}
	if len(values) == 0 {
		return nil, b.fail(line, it.where, "has no values")
	}
	for _, v := range values {
		if !v.scalar() {
			return nil, b.fail(v.line, it.where, "a value is a list or a map: use strings and numbers")
		}
		it.tokens = append(it.tokens, it.tokensOf(v))
	}
	if strings.Contains(key, "|") {
		for _, m := range strings.Split(modifiers, "|") {
			if err := it.modify(m); err != nil {
				return nil, err
			}
		}
	}
	var err error
	if it.test.field, err = b.field(name); err != nil {
		return nil, b.unable(line, it.where, "%v", err)
	}
	if err := it.finish(); err != nil {
		return nil, err
	}
	n := &node{op: opSelection, test: it.test}
	if it.neq {
		n = &node{op: opNot, kids: []*node{n}}
	}
	return n, nil
}

func (it *item) tokensOf(v *value) []token {
	if v.kind == yamlString {
		return parseTokens(v.text)
	}
	return []token{{tokenLiteral, v.text}}
}

func (it *item) modify(m string) error {
	if it.re && (m == "i" || m == "m" || m == "s") {
		it.flags += m
		return nil
	}
	switch m {
	case "contains":
		it.each(func(t []token) []token { return endStar(startStar(t)) })
		it.test.shape = contains
	case "startswith":
		it.each(endStar)
		it.test.shape = prefix
	case "endswith":
		it.each(startStar)
		it.test.shape = suffix
	case "all":
		it.test.all = true
	case "cased":
		it.test.cased = true
	case "re":
		it.re = true
	case "cidr":
		it.cidr = true
	case "exists":
		it.exists = true
	case "fieldref":
		it.ref = true
	case "neq":
		it.neq = true
	case "gt", "gte", "lt", "lte":
		it.number = true
		it.test.compare = map[string]op2{"gt": compareGt, "gte": compareGte, "lt": compareLt, "lte": compareLte}[m]
	case "minute", "hour", "day", "week", "month", "year":
		it.number = true
		it.test.part = timeParts[m]
	case "windash":
		it.each(windash)
	case "base64", "base64offset", "wide", "utf16le", "utf16be", "utf16":
		return it.encode(m)
	case "expand":
		return it.expand()
	case "":
		return it.fail(it.line, it.where, "has an empty modifier")
	default:
		return it.unable(it.line, it.where, "the modifier %q is not known", clip(m))
	}
	return nil
}

func (it *item) each(f func([]token) []token) {
	for i := range it.tokens {
		it.tokens[i] = f(it.tokens[i])
	}
}

// encode replaces the values by what they are in another encoding.
func (it *item) encode(m string) error {
	var out [][]token
	for _, tokens := range it.tokens {
		text, ok := plain(tokens)
		if !ok {
			return it.unable(it.line, it.where, "a value with wildcards cannot be encoded: put contains after %s", m)
		}
		literal := func(s string) { out = append(out, []token{{tokenLiteral, s}}) }
		switch m {
		case "base64":
			literal(base64.StdEncoding.EncodeToString([]byte(text)))
		case "base64offset":
			for _, s := range base64Offsets(text) {
				literal(s)
			}
		default:
			literal(utf16Of(text, m))
		}
	}
	it.tokens, it.changed = out, true
	return nil
}

// base64Offsets returns the part of text's Base64 form that does not depend on
// what stands around it, for each of the three places it may begin at.
func base64Offsets(text string) []string {
	var all []string
	for offset := range 3 {
		encoded := base64.StdEncoding.EncodeToString([]byte("\x00\x00"[:offset] + text))
		// The first characters hold bits of what is before, the last ones of
		// what is after.
		start := []int{0, 2, 3}[offset]
		end := len(encoded) - []int{0, 3, 2}[(offset+len(text))%3]
		if start < end {
			all = append(all, encoded[start:end])
		}
	}
	return all
}

func utf16Of(text, order string) string {
	var out []byte
	if order == "utf16" {
		out = append(out, 0xff, 0xfe)
	}
	for _, unit := range utf16.Encode([]rune(text)) {
		high, low := byte(unit>>8), byte(unit)
		if order == "utf16be" {
			out = append(out, high, low)
		} else {
			out = append(out, low, high)
		}
	}
	return string(out)
}

var placeholder = regexp.MustCompile(`\\%|%([0-9A-Za-z_][0-9A-Za-z_.-]*)%`)

// maxExpanded is how many values the placeholders of one field may give.
const maxExpanded = 100_000

// expand replaces placeholders by their values, in all combinations.
func (it *item) expand() error {
	var out [][]token
	for i, v := range it.values {
		if i >= len(it.tokens) {
			break
		}
		texts := []string{""}
		rest := v.text
		for rest != "" {
			m := placeholder.FindStringSubmatchIndex(rest)
			if m == nil {
				break
			}
			before, inserts := rest[:m[0]], []string{"%"}
			if m[2] >= 0 {
				name := rest[m[2]:m[3]]
				if inserts = it.placeholders[name]; len(inserts) == 0 {
					return it.unable(it.line, it.where, "the placeholder %%%s%% has no values here", clip(name))
				}
			}
			rest = rest[m[1]:]
			var next []string
			for _, t := range texts {
				for _, in := range inserts {
					next = append(next, t+before+in)
				}
			}
			if texts = next; len(texts)+len(out) > maxExpanded {
				return it.unable(it.line, it.where, "the placeholders give more than %d values", maxExpanded)
			}
		}
		for _, t := range texts {
			out = append(out, parseTokens(t+rest))
		}
	}
	it.tokens, it.changed = out, true
	return nil
}

// finish turns the values into what the test needs.
func (it *item) finish() error {
	t := it.test
	kinds := b2i(it.re) + b2i(it.cidr) + b2i(it.ref) + b2i(it.exists) + b2i(it.number)
	for _, v := range it.values {
		if v.kind == yamlNull && (kinds > 0 || it.changed || t.shape != exact || it.name == "") {
			return it.fail(v.line, it.where, "null stands alone: a field without modifiers is null or is not")
		}
	}
	if it.name == "" && kinds > b2i(it.re) {
		return it.fail(it.line, it.where, "a keyword has no field: these modifiers need one")
	}
	if kinds > 1 {
		return it.unable(it.line, it.where, "these modifiers cannot be combined")
	}
	switch {
	case it.exists:
		t.kind = testExists
		if v := it.values[0]; len(it.values) != 1 || v.kind != yamlBool && !strings.EqualFold(v.text, "true") && !strings.EqualFold(v.text, "false") {
			return it.fail(it.line, it.where, "exists takes true or false")
		}
		t.exists = strings.EqualFold(it.values[0].text, "true")
	case it.ref:
		t.kind = testField
		return it.finishRef()
	case it.re:
		t.kind = testRegexp
		return it.finishRegexp()
	case it.cidr:
		t.kind = testCIDR
		for _, v := range it.values {
			p, err := netip.ParsePrefix(v.text)
			if err != nil {
				if addr, err2 := netip.ParseAddr(v.text); err2 == nil {
					p, err = addr.Prefix(addr.BitLen())
				}
				if err != nil {
					return it.fail(v.line, it.where, "%q is no network: write 10.0.0.0/8 or 2001:db8::/32", clip(v.text))
				}
			}
			t.networks = append(t.networks, p.Masked())
		}
	case it.number:
		t.kind = testNumber
		for _, v := range it.values {
			n, ok := parseNumber(v.text)
			if !ok {
				return it.fail(v.line, it.where, "%q is not a number", clip(v.text))
			}
			t.numbers = append(t.numbers, n)
		}
	default:
		it.finishText()
	}
	return nil
}

func (it *item) finishRef() error {
	if len(it.values) != 1 {
		return it.unable(it.line, it.where, "fieldref takes one field")
	}
	if it.values[0].kind != yamlString || it.values[0].text == "" || it.name == "" {
		return it.fail(it.line, it.where, "fieldref compares a field with a field")
	}
	other, err := it.field(it.values[0].text)
	if err != nil {
		return it.unable(it.line, it.where, "%v", err)
	}
	it.test.other = other
	return nil
}

func (it *item) finishRegexp() error {
	for _, v := range it.values {
		flags, source := it.flags, v.text
		switch it.test.shape {
		case prefix:
			source = "^(?:" + source + ")"
		case suffix:
			source = "(?:" + source + ")$"
		}
		if flags != "" {
			source = "(?" + flags + ")" + source
		}
		re, err := regexp.Compile(source)
		if err != nil {
			return it.unable(v.line, it.where, "the regular expression needs what RE2 does not have: %v", err)
		}
		it.test.exprs = append(it.test.exprs, re)
	}
	return nil
}

func (it *item) finishText() {
	t := it.test
	t.kind = testText
	unbound := it.name == ""
	if !it.changed {
		// Numbers are met by how they are written and by what they are.
		for i, v := range it.values {
			if v.kind == yamlNull {
				t.null = true
				it.tokens[i] = nil
				continue
			}
			if (v.kind == yamlInt || v.kind == yamlFloat) && t.shape == exact {
				if c := canonicalNumber(v.text); c != v.text && !t.all {
					it.tokens = append(it.tokens, []token{{tokenLiteral, c}})
				} else if c != v.text {
					it.tokens[i] = []token{{tokenLiteral, c}}
				}
			}
		}
	}
	all := make([]pattern, 0, len(it.tokens))
	plainOnly := !t.all && !unbound
	var escaped []pattern
	differ := false
	for i, tokens := range it.tokens {
		if tokens == nil && i < len(it.values) && it.values[i].kind == yamlNull && t.null {
			continue
		}
		if unbound && !it.re {
			tokens = endStar(startStar(tokens))
		}
		if !t.cased {
			tokens = foldTokens(tokens)
		}
		p := compilePattern(tokens)
		plainOnly = plainOnly && p.shape == exact
		all = append(all, p)
		in := escapeTokens(tokens)
		differ = differ || !slices.Equal(in, tokens)
		escaped = append(escaped, compilePattern(in))
	}
	t.patterns = all
	if differ {
		t.escaped = escaped
	}
	if plainOnly && len(all) > fewValues {
		t.set = make(map[string]struct{}, len(all))
		for _, p := range all {
			t.set[p.text] = struct{}{}
		}
	}
}

func foldTokens(tokens []token) []token {
	out := slices.Clone(tokens)
	for i := range out {
		out[i].text = fold(out[i].text)
	}
	return out
}

// escapeTokens returns the tokens as they stand inside a JSON string.
func escapeTokens(tokens []token) []token {
	out := slices.Clone(tokens)
	var arena fastjson.Arena
	for i, t := range out {
		if t.kind == tokenLiteral {
			quoted := string(arena.NewString(t.text).MarshalTo(nil))
			out[i].text = strings.TrimSuffix(strings.TrimPrefix(quoted, `"`), `"`)
		}
	}
	return out
}

// plainInteger says whether s is an integer as JSON and YAML write it at its
// shortest.
func plainInteger(s string) bool {
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || digits[0] == '0' && s != "0" {
		return false
	}
	for i := 0; i < len(digits); i++ {
		if digits[i] < '0' || digits[i] > '9' {
			return false
		}
	}
	return true
}

// canonicalNumber returns one text for all ways to write a number, and what is
// no number as it is.
func canonicalNumber(s string) string {
	if plainInteger(s) {
		return s
	}
	if i, err := strconv.ParseInt(s, 0, 64); err == nil {
		return strconv.FormatInt(i, 10)
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
		return string(appendNumber(nil, f))
	}
	return s
}

// appendNumber appends f in the form of canonicalNumber.
func appendNumber(dst []byte, f float64) []byte {
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return strconv.AppendInt(dst, int64(f), 10)
	}
	return strconv.AppendFloat(dst, f, 'g', -1, 64)
}

// parseNumber reads a decimal number, with a fraction and an exponent if need
// be, and nothing else that strconv takes.
func parseNumber(s string) (float64, bool) {
	if s == "" || len(s) > 64 {
		return 0, false
	}
	digits, dots, exps := 0, 0, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			digits++
		case c == '.' && dots == 0 && exps == 0:
			dots++
		case (c == 'e' || c == 'E') && exps == 0 && digits > 0 && i+1 < len(s):
			exps++
		case (c == '-' || c == '+') && i+1 < len(s) && (i == 0 || s[i-1] == 'e' || s[i-1] == 'E'):
		default:
			return 0, false
		}
	}
	if digits == 0 {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil
}
