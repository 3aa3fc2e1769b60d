package sigma

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"remit"
)

// detection is the detection section of a rule, or the filter section of a
// filter, before it is compiled.
type detection struct {
	names      []string // of the selections, as the document orders them
	selections map[string]*value
	conditions []condition
	timeframe  bool // the legacy "timeframe" is there
}

// condition is one condition: its expression and where it stands.
type condition struct {
	line int
	expr *expr
	// pipe is a legacy aggregation that followed the expression, "" when none.
	pipe string
}

// filter is what a filter says beside its selections.
type filter struct {
	*detection
	rules []string // IDs or names; empty means all of the logsource
}

// correlation is the correlation section of a rule.
type correlation struct {
	kind     string
	rules    []string
	groupBy  []string
	timespan time.Duration
	ordinal  []bound // the condition; all must hold
	fields   []string
	percent  float64
	aliases  map[string]map[string]string // alias → rule → field
	generate bool
	line     int
}

// bound is one comparison of a correlation's condition.
type bound struct {
	op    string // gt, gte, lt, lte, eq, neq
	value float64
}

// The bounds of one rule's detection.
const (
	maxSelections = 1000
	maxCondition  = 16 << 10 // bytes
	maxTimespan   = 366 * 24 * time.Hour
)

// Parse reads the rules of one YAML file; name is its path, for messages. A
// file may hold several documents; "action: global" documents are laid under
// those that follow.
//
// The rules of sound documents are returned even when others are faulty. The
// error, of kind [remit.Invalid], then tells file, line and field of each fault.
func Parse(name string, doc []byte) ([]*Rule, error) {
	docs, err := documents(name, doc)
	var faults []error
	if err != nil {
		faults = append(faults, err)
	}
	var rules []*Rule
	var global, last *value
	for _, d := range docs {
		if d.kind != yamlMap {
			faults = append(faults, fault(name, d.line, "", "the document is not a map of fields"))
			continue
		}
		action := d.get("action")
		if action != nil && d.get("detection") == nil || action != nil && slices.Contains([]string{"global", "reset", "repeat"}, action.text) {
			switch action.text {
			case "global":
				global = global.merge(d)
				continue
			case "reset":
				global, last = nil, nil
				continue
			case "repeat":
				d = last.merge(d)
			default:
				faults = append(faults, fault(name, action.line, "action", "no action %q: use global, reset or repeat", action.text))
				continue
			}
		}
		if global != nil {
			d = global.merge(d)
		}
		last = d
		rule, err := parseRule(name, d)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		rules = append(rules, rule)
	}
	if len(faults) > 0 {
		return rules, remit.Errorf(remit.Invalid, "", "%w", errors.Join(faults...))
	}
	return rules, nil
}

// Load reads the rules of all files below fsys that end in .yml or .yaml, in
// the order of their paths. A file that cannot be read, is too large or is
// faulty is told in an error each; all others are loaded.
func Load(fsys fs.FS) ([]*Rule, []error) { return load(fsys, "") }

// LoadDir is [Load] of a directory; faults and rules name files as the caller
// can open them.
func LoadDir(dir string) ([]*Rule, []error) { return load(os.DirFS(dir), dir) }

func load(fsys fs.FS, dir string) ([]*Rule, []error) {
	var rules []*Rule
	var faults []error
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			faults = append(faults, remit.Errorf(remit.Invalid, "load rules", "%w", err))
			return nil
		}
		if ext := strings.ToLower(path.Ext(name)); !entry.Type().IsRegular() || ext != ".yml" && ext != ".yaml" {
			return nil
		}
		if info, err := entry.Info(); err == nil && info.Size() > maxFile {
			faults = append(faults, remit.Errorf(remit.Invalid, "load rules", "%s has %d bytes: at most %d are read", path.Join(dir, name), info.Size(), maxFile))
			return nil
		}
		doc, err := fs.ReadFile(fsys, name)
		if err != nil {
			faults = append(faults, remit.Errorf(remit.Invalid, "load rules", "%s: %w", path.Join(dir, name), err))
			return nil
		}
		read, err := Parse(path.Join(dir, name), doc)
		if err != nil {
			faults = append(faults, err)
		}
		rules = append(rules, read...)
		return nil
	})
	if err != nil {
		faults = append(faults, remit.Errorf(remit.Invalid, "load rules", "%w", err))
	}
	return rules, faults
}

// section reads fields of one map and keeps the first fault.
type section struct {
	name string // of the file
	v    *value
	err  error
}

func (s *section) fail(line int, field, format string, args ...any) {
	if s.err == nil {
		s.err = fault(s.name, line, field, format, args...)
	}
}

func (s *section) string(field string) string {
	v := s.v.get(field)
	if v == nil || v.kind == yamlNull {
		return ""
	}
	if !v.scalar() {
		s.fail(v.line, field, "is not a string")
		return ""
	}
	return v.text
}

// strings reads a list of strings, or one string.
func (s *section) strings(field string) []string {
	v := s.v.get(field)
	if v == nil || v.kind == yamlNull {
		return nil
	}
	if v.scalar() {
		return []string{v.text}
	}
	var all []string
	for _, e := range v.list {
		if v.kind == yamlMap || !e.scalar() {
			s.fail(v.line, field, "is not a list of strings")
			return nil
		}
		all = append(all, e.text)
	}
	return all
}

// known are the fields at the top of a document that Sigma defines.
var known = map[string]bool{
	"title": true, "id": true, "name": true, "related": true, "taxonomy": true, "status": true,
	"description": true, "license": true, "references": true, "author": true, "date": true,
	"modified": true, "logsource": true, "detection": true, "fields": true, "falsepositives": true,
	"level": true, "tags": true, "scope": true, "correlation": true, "filter": true, "action": true, "generate": true,
}

func parseRule(name string, doc *value) (*Rule, error) {
	s := section{name: name, v: doc}
	r := &Rule{
		ID: s.string("id"), Name: s.string("name"), Title: s.string("title"),
		Description: strings.TrimSpace(s.string("description")),
		Author:      s.string("author"), License: s.string("license"),
		Level: strings.ToLower(s.string("level")), Status: strings.ToLower(s.string("status")),
		Tags: s.strings("tags"), References: s.strings("references"),
		FalsePositives: s.strings("falsepositives"), Fields: s.strings("fields"),
		Path: name, Line: doc.line,
	}
	r.Risks = risksOf(r.Tags)
	if r.Title == "" {
		s.fail(doc.line, "title", "is missing")
	}
	levels := []string{"", "informational", "low", "medium", "high", "critical"}
	if !slices.Contains(levels, r.Level) {
		s.fail(doc.get("level").line, "level", "no level %q: use %s", r.Level, strings.Join(levels[1:], ", "))
	}
	if t := s.string("taxonomy"); t != "" && t != "sigma" {
		s.fail(doc.get("taxonomy").line, "taxonomy", "%q is not read: only the default taxonomy is", t)
	}
	for i, key := range doc.keys {
		if !known[key] {
			if r.Custom == nil {
				r.Custom = map[string]any{}
			}
			r.Custom[key] = doc.list[i].any()
		}
	}

	detects, correlates, filters := doc.get("detection"), doc.get("correlation"), doc.get("filter")
	switch {
	case correlates != nil && detects == nil && filters == nil:
		r.Kind = Correlation
		r.correlation = s.correlation(correlates)
		if g := doc.get("generate"); g != nil && g.kind == yamlBool {
			r.correlation.generate = g.any() == true
		}
	case filters != nil && correlates == nil && detects == nil:
		r.Kind = Filter
		r.Logsource = s.logsource()
		r.filter = &filter{detection: s.detection("filter", filters, "rules")}
		inner := section{name: name, v: filters}
		r.filter.rules = inner.strings("rules")
		if inner.err != nil && s.err == nil {
			s.err = inner.err
		}
		if filters.get("rules") == nil {
			s.fail(filters.line, "filter.rules", "is missing: name rules, or any")
		}
		if rules := r.filter.rules; len(rules) == 1 && (strings.EqualFold(rules[0], "any") || strings.EqualFold(rules[0], "all")) {
			r.filter.rules = nil
		}
	case detects != nil && correlates == nil && filters == nil:
		r.Kind = Detection
		r.Logsource = s.logsource()
		r.detection = s.detection("detection", detects)
	default:
		s.fail(doc.line, "", "has none, or more than one, of detection, correlation and filter")
	}
	if s.err != nil {
		return nil, s.err
	}
	if err := check(r); err != nil {
		return nil, err
	}
	return r, nil
}

func (s *section) logsource() Logsource {
	v := s.v.get("logsource")
	if v == nil || v.kind != yamlMap {
		s.fail(s.v.line, "logsource", "is missing: name a product, service or category")
		return Logsource{}
	}
	inner := section{name: s.name, v: v}
	l := Logsource{
		Product: strings.ToLower(inner.string("product")), Service: strings.ToLower(inner.string("service")),
		Category: strings.ToLower(inner.string("category")),
	}
	if inner.err != nil {
		s.fail(v.line, "logsource", "product, service and category are strings")
	} else if l == (Logsource{}) {
		s.fail(v.line, "logsource", "names no product, service or category")
	}
	return l
}

// detection reads the selections and conditions of a section; except are keys
// of it that are no selections.
func (s *section) detection(field string, v *value, except ...string) *detection {
	d := &detection{selections: map[string]*value{}}
	if v.kind != yamlMap {
		s.fail(v.line, field, "is not a map of selections")
		return d
	}
	for i, key := range v.keys {
		if key == "condition" || key == "timeframe" || slices.Contains(except, key) {
			continue
		}
		d.names = append(d.names, key)
		d.selections[key] = v.list[i]
	}
	if len(d.names) == 0 || len(d.names) > maxSelections {
		s.fail(v.line, field, "has %d selections: it needs 1 to %d", len(d.names), maxSelections)
	}
	if v.get("timeframe") != nil {
		d.timeframe = true
	}
	c := v.get("condition")
	if c == nil {
		s.fail(v.line, field+".condition", "is missing")
		return d
	}
	all := []*value{c}
	if c.kind == yamlList {
		all = c.list
	}
	if len(all) == 0 {
		s.fail(c.line, field+".condition", "is empty")
	}
	for _, one := range all {
		if !one.scalar() {
			s.fail(one.line, field+".condition", "is not a string or a list of strings")
			return d
		}
		parsed, err := parseCondition(one.text, d.names)
		if err != nil {
			s.fail(one.line, field+".condition", "%v", err)
			return d
		}
		parsed.line = one.line
		d.conditions = append(d.conditions, parsed)
	}
	return d
}

var correlationKinds = []string{"event_count", "value_count", "temporal", "temporal_ordered", "value_sum", "value_avg", "value_percentile"}

func (s *section) correlation(v *value) *correlation {
	c := &correlation{line: v.line}
	if v.kind != yamlMap {
		s.fail(v.line, "correlation", "is not a map")
		return c
	}
	in := section{name: s.name, v: v}
	c.kind, c.rules, c.groupBy = in.string("type"), in.strings("rules"), in.strings("group-by")
	line := func(field string) int {
		if f := v.get(field); f != nil {
			return f.line
		}
		return v.line
	}
	if !slices.Contains(correlationKinds, c.kind) {
		in.fail(line("type"), "correlation.type", "no type %q: use %s", c.kind, strings.Join(correlationKinds, ", "))
	}
	if len(c.rules) == 0 || len(c.rules) > maxSelections {
		in.fail(line("rules"), "correlation.rules", "names %d rules: it needs 1 to %d", len(c.rules), maxSelections)
	}
	var err error
	if c.timespan, err = parseTimespan(in.string("timespan")); err != nil {
		in.fail(line("timespan"), "correlation.timespan", "%v", err)
	}
	if g := v.get("generate"); g != nil {
		c.generate = g.any() == true
	}
	if a := v.get("aliases"); a != nil && a.kind == yamlMap {
		c.aliases = map[string]map[string]string{}
		for i, alias := range a.keys {
			c.aliases[alias] = map[string]string{}
			of := a.list[i]
			for j, rule := range of.keys {
				if !of.list[j].scalar() {
					in.fail(of.line, "correlation.aliases."+alias, "is not a map of rules to fields")
					continue
				}
				c.aliases[alias][rule] = of.list[j].text
			}
		}
	}
	in.correlationCondition(c)
	if s.err == nil {
		s.err = in.err
	}
	return c
}

func (s *section) correlationCondition(c *correlation) {
	v := s.v.get("condition")
	temporal := c.kind == "temporal" || c.kind == "temporal_ordered"
	if v == nil && temporal {
		return // all of the rules
	}
	if v == nil || v.kind != yamlMap {
		s.fail(s.v.line, "correlation.condition", "is missing: give one of gt, gte, lt, lte, eq, neq")
		return
	}
	for i, key := range v.keys {
		e := v.list[i]
		switch key {
		case "gt", "gte", "lt", "lte", "eq", "neq":
			n, ok := parseNumber(e.text)
			if !e.scalar() || !ok {
				s.fail(e.line, "correlation.condition."+key, "is not a number")
			}
			c.ordinal = append(c.ordinal, bound{key, n})
		case "field":
			in := section{name: s.name, v: v}
			c.fields = in.strings("field")
			if in.err != nil {
				s.fail(e.line, "correlation.condition.field", "is not a field or a list of fields")
			}
		case "percentile":
			n, ok := parseNumber(e.text)
			if !ok || n <= 0 || n > 100 {
				s.fail(e.line, "correlation.condition.percentile", "is not a number above 0 and up to 100")
			}
			c.percent = n
		default:
			s.fail(e.line, "correlation.condition."+key, "no such comparison: use gt, gte, lt, lte, eq, neq and field")
		}
	}
	if len(c.ordinal) == 0 {
		s.fail(v.line, "correlation.condition", "compares with nothing: give one of gt, gte, lt, lte, eq, neq")
	}
	if strings.HasPrefix(c.kind, "value_") && len(c.fields) == 0 {
		s.fail(v.line, "correlation.condition.field", "is missing: %s needs the field whose values count", c.kind)
	}
	if len(c.fields) > 1 && c.kind != "value_count" {
		s.fail(v.line, "correlation.condition.field", "%s takes one field", c.kind)
	}
}

// parseTimespan reads a number and a letter: 30s, 5m, 1h, 7d (also w, and M
// for 30 days as old rules write it).
func parseTimespan(text string) (time.Duration, error) {
	units := map[byte]time.Duration{
		's': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour,
		'w': 7 * 24 * time.Hour, 'M': 30 * 24 * time.Hour,
	}
	if text == "" {
		return 0, errors.New("is missing: write 30s, 5m, 1h or 7d")
	}
	unit, ok := units[text[len(text)-1]]
	n, err := strconv.Atoi(text[:len(text)-1])
	if !ok || err != nil || n <= 0 {
		return 0, fmt.Errorf("%q is no time span: write 30s, 5m, 1h or 7d", clip(text))
	}
	if n > int(maxTimespan/unit) {
		return 0, fmt.Errorf("%q is longer than %d days", clip(text), int(maxTimespan.Hours()/24))
	}
	return time.Duration(n) * unit, nil
}

// clip shortens what is quoted in a message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
