package sigma

import (
	"time"

	"github.com/valyala/fastjson"
)

// Event is one event as rules see it.
type Event struct {
	// Views are the event in the forms that rules expect. A rule matches when
	// it matches one of them.
	Views []View

	// Attributed are the values of the fields in [Options.Attributed], in the
	// same order; what is missing at the end is absent.
	Attributed []Value

	// Time is when it happened; correlations live on it. ID and Identity are
	// whom correlations name; the field remit.identity is Identity, unless
	// Attributed has one.
	Time         time.Time
	ID, Identity string

	// Any asks every rule whatever its logsource.
	Any bool
}

// View is an event in the form that one logsource has. JSON may be nil: then
// only attributed fields are there. It must not be used elsewhere meanwhile.
type View struct {
	Product, Service, Category string
	JSON                       *fastjson.Value
}

func (v *View) logsource() Logsource {
	return Logsource{Product: v.Product, Service: v.Service, Category: v.Category}
}

// Value is the value of an attributed field. The zero Value is absent.
type Value struct {
	kind   valueKind
	text   string
	number float64
}

type valueKind uint8

const (
	valueAbsent valueKind = iota
	valueText
	valueNumber
)

// String is the value of a text field; "" is present and empty.
func String(s string) Value { return Value{kind: valueText, text: s} }

// Number is the value of a numeric field.
func Number(f float64) Value { return Value{kind: valueNumber, number: f} }

// Bool is the value of a field that is true or false.
func Bool(b bool) Value {
	if b {
		return Value{kind: valueText, text: "true"}
	}
	return Value{kind: valueText, text: "false"}
}

// Match is one rule that matched.
type Match struct {
	Rule *Rule

	// View is the place in [Event.Views] of the view that matched; of a
	// correlation, the one in which its last part matched.
	View int

	// Correlated is what a correlation found, nil for other rules.
	Correlated *Correlated
}

// Correlated is what a correlation found in one group of events.
type Correlated struct {
	Group []Member // the fields of group-by with their values

	First, Last time.Time // of the events that count

	// Count is how many events, values or rules count, and for value_sum,
	// value_avg and value_percentile how many events there are.
	Count int64
	// Value is what the condition was compared with.
	Value float64

	// Events are the IDs of the events that count, the latest [MaxEvents] of
	// them in the order of time.
	Events []string
}

// Member is one field of a group.
type Member struct{ Field, Value string }

// MaxEvents is how many event IDs a [Correlated] names.
const MaxEvents = 100
