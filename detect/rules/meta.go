package rules

import (
	"bytes"
	"encoding/json"
	"time"

	"remit"
	"remit/detect/sigma"
)

// Meta is what the block "remit:" of a rule says: how a match is told, and how
// the rule is tested.
type Meta struct {
	Controls []string `json:"controls"` // "NIST SP 800-53 AC-2(12)"
	Risks    []string `json:"risks"`    // "NHI7", "ASI03"; ATT&CK techniques stand in the tags
	Remedy   string   `json:"remedy"`   // what to do, in a sentence or two

	// Words tell a match in one sentence. A field in braces, raw or attributed,
	// stands for its value in the event: "{remit.principal} signed in".
	Words string `json:"words"`

	// Score weighs a match among others about the same identity; 0 when the
	// rule's level decides alone.
	Score float64 `json:"score"`

	Tests []Case `json:"tests"`
}

// Case is one test of a rule: what happens, and whether the rule must match it.
type Case struct {
	Name   string `json:"name"`
	Expect bool   `json:"expect"`

	// Before is what happens first; whether the rule matches that does not count.
	Before []Step `json:"before"`
	Step
}

// Step is an event, or the same event several times.
type Step struct {
	Event      json.RawMessage `json:"event"`      // the raw event, as its system writes it
	Attributed map[string]any  `json:"attributed"` // by name: "remit.address.public"

	Times int      `json:"times"` // how often it happens; 0 is once
	Every Duration `json:"every"` // how long after one the next happens; 0 is a second

	// Vary is a field, raw or attributed, that differs each time: its value,
	// if there is one, and a number.
	Vary string `json:"vary"`
}

// Duration is a time span written as Go does: "90s", "5m".
type Duration time.Duration

// UnmarshalText reads a span of time that is not negative.
func (d *Duration) UnmarshalText(text []byte) error {
	span, err := time.ParseDuration(string(text))
	if err != nil || span < 0 {
		return remit.Errorf(remit.Invalid, "", "%q is no span of time: write 90s or 5m", text)
	}
	*d = Duration(span)
	return nil
}

// maxEvents is how many events one test may play, and all tests of a rule ten
// times as many.
const maxEvents = 1000

// Of returns what the rule's block "remit:" says, the zero Meta when it has
// none. An [remit.Invalid] error names a key that there is not, or what is
// wrong with a value.
func Of(r *sigma.Rule) (Meta, error) {
	block, ok := r.Custom["remit"]
	if !ok {
		return Meta{}, nil
	}
	var m Meta
	fail := func(format string, args ...any) (Meta, error) {
		return Meta{}, remit.Errorf(remit.Invalid, "rule "+r.Ref(), format, args...)
	}
	text, err := json.Marshal(block)
	if err != nil {
		return fail("its block remit cannot be read: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&m); err != nil {
		return fail("its block remit cannot be read: %w", err)
	}
	all := 0
	for _, c := range m.Tests {
		events := 0
		for _, s := range append([]Step{c.Step}, c.Before...) {
			if s.Times < 0 || s.Times > maxEvents {
				return fail("the test %q repeats an event %d times: 0 to %d", c.Name, s.Times, maxEvents)
			}
			events += max(s.Times, 1)
		}
		if all += events; events > maxEvents || all > 10*maxEvents {
			return fail("the test %q plays %d events: at most %d, and all tests %d", c.Name, events, maxEvents, 10*maxEvents)
		}
	}
	return m, nil
}
