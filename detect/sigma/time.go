package sigma

import (
	"math"
	"time"
)

// timePart is a part of a date that the time modifiers take out.
type timePart uint8

const (
	wholeNumber timePart = iota
	partMinute
	partHour
	partDay
	partWeek
	partMonth
	partYear
)

var timeParts = map[string]timePart{
	"minute": partMinute, "hour": partHour, "day": partDay, "week": partWeek, "month": partMonth, "year": partYear,
}

// of returns the part of the time that s is, in the zone in which s is written.
// A number counts seconds since 1970, or milliseconds, microseconds or
// nanoseconds when it is too large for that, in UTC.
func (p timePart) of(s string, number bool) (float64, bool) {
	t, ok := time.Time{}, false
	if n, isNumber := parseNumber(s); isNumber && (number || len(s) > 4) {
		t, ok = fromNumber(n)
	} else {
		t, ok = fromText(s)
	}
	if !ok {
		return 0, false
	}
	switch p {
	case partMinute:
		return float64(t.Minute()), true
	case partHour:
		return float64(t.Hour()), true
	case partDay:
		return float64(t.Day()), true
	case partWeek:
		_, week := t.ISOWeek()
		return float64(week), true
	case partMonth:
		return float64(t.Month()), true
	}
	return float64(t.Year()), true
}

func fromNumber(n float64) (time.Time, bool) {
	for _, unit := range []float64{1, 1e3, 1e6, 1e9} {
		if math.Abs(n/unit) < 1e11 {
			return time.UnixMilli(int64(n / unit * 1e3)).UTC(), true
		}
	}
	return time.Time{}, false
}

func fromText(s string) (time.Time, bool) {
	if len(s) < 10 || len(s) > 40 || s[0] < '0' || s[0] > '9' {
		return time.Time{}, false
	}
	layouts := [...]string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999", time.DateOnly}
	for _, layout := range layouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
