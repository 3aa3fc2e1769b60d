package sqlstore

import (
	"fmt"
	"math"
	"time"
)

// forever is the column value of an end that never comes.
const forever = math.MaxInt64

// ending chooses the rows that have an end, as the index on it says it, and
// endless the others.
var (
	ending  = fmt.Sprintf("expires < %d", int64(forever))
	endless = fmt.Sprintf("expires = %d", int64(forever))
)

var (
	earliest = time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC)
	latest   = time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC)
)

// plainTime returns t in UTC, to the microsecond, and within the years that
// JSON (RFC 3339) can write: a certificate may claim any year. Zero stays zero.
func plainTime(t time.Time) time.Time {
	switch {
	case t.IsZero():
		return time.Time{}
	case t.Before(earliest):
		return earliest
	case t.After(latest):
		return latest
	}
	return t.UTC().Truncate(time.Microsecond)
}

// micros returns t as columns hold it: microseconds since 1970, 0 for zero.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return plainTime(t).UnixMicro()
}

// microsOrForever is micros for an end: zero is never.
func microsOrForever(t time.Time) int64 {
	if t.IsZero() {
		return forever
	}
	return micros(t)
}

// timeOf undoes micros.
func timeOf(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
