package lifecycle

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"remit"
)

// Span is a length of time in a policy: days, as "90d", or what
// [time.ParseDuration] reads, as "36h". It is never negative, and at most a
// hundred years.
type Span time.Duration

const (
	day      = 24 * time.Hour
	longest  = 100 * 365 * day
	spanHelp = "write 90d, 36h or 15m"
)

// ParseSpan reads a length of time. An error is [remit.Invalid].
func ParseSpan(text string) (Span, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 32); err == nil && n <= uint64(longest/day) {
			return Span(time.Duration(n) * day), nil
		}
	} else if d, err := time.ParseDuration(text); err == nil && d >= 0 && d <= longest {
		return Span(d), nil
	}
	return 0, remit.Errorf(remit.Invalid, "", "%q is no length of time up to 100 years: "+spanHelp, text)
}

// UnmarshalYAML reads one; a fault names its line and its key.
func (s *Span) UnmarshalYAML(node ast.Node) error {
	scalar, ok := node.(ast.ScalarNode)
	if !ok {
		return faultAt(node, "a length of time stands here: "+spanHelp)
	}
	parsed, err := ParseSpan(scalar.GetToken().Value)
	if err != nil {
		return faultAt(node, err.Error())
	}
	*s = parsed
	return nil
}

func faultAt(node ast.Node, message string) error {
	path := strings.TrimPrefix(node.GetPath(), "$.")
	return &yaml.SyntaxError{Message: path + ": " + message, Token: node.GetToken()}
}

// String writes it as a policy does.
func (s Span) String() string {
	d := time.Duration(s)
	switch {
	case d > 0 && d%day == 0:
		return strconv.FormatInt(int64(d/day), 10) + "d"
	case d > 0 && d%time.Hour == 0:
		return strconv.FormatInt(int64(d/time.Hour), 10) + "h"
	}
	return d.String()
}

// words is the same for a sentence: "90 days".
func (s Span) words() string {
	d := time.Duration(s)
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{day, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if d >= unit.length && d%unit.length == 0 {
			n := int64(d / unit.length)
			if n == 1 {
				return "1 " + unit.name
			}
			return strconv.FormatInt(n, 10) + " " + unit.name + "s"
		}
	}
	return s.String()
}

// seconds makes a number of seconds a length of time that does not overflow.
func seconds(n int64) time.Duration {
	if n > int64(math.MaxInt64/time.Second) {
		return math.MaxInt64
	}
	return time.Duration(n) * time.Second
}
