package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// parseSpan reads a length of time as people write it in policies: 90d, 12h,
// 2w, 1y (of 365 days), or any of Go's forms. A sign may stand before it.
func parseSpan(s string) (time.Duration, error) {
	body, sign := s, time.Duration(1)
	switch {
	case strings.HasPrefix(s, "-"):
		body, sign = s[1:], -1
	case strings.HasPrefix(s, "+"):
		body = s[1:]
	}
	if len(body) > 1 {
		var unit time.Duration
		switch body[len(body)-1] {
		case 'd':
			unit = 24 * time.Hour
		case 'w':
			unit = 7 * 24 * time.Hour
		case 'y':
			unit = 365 * 24 * time.Hour
		}
		if unit > 0 {
			n, err := strconv.ParseUint(body[:len(body)-1], 10, 31)
			if err == nil && time.Duration(n) <= (1<<63-1)/unit {
				return sign * time.Duration(n) * unit, nil
			}
			return 0, fmt.Errorf("%q is no length of time: use 90d, 12h or 30m", s)
		}
	}
	d, err := time.ParseDuration(body)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no length of time: use 90d, 12h or 30m", s)
	}
	return sign * d, nil
}

// looksLikeSpan tells a length of time from any other word.
func looksLikeSpan(s string) bool {
	if s == "" || s[0] < '0' || s[0] > '9' {
		return false
	}
	_, err := parseSpan(s)
	return err == nil
}

// formatSpan writes a length of time for people, in its largest whole unit.
func formatSpan(d time.Duration) string {
	if d < 0 {
		d = -d
	}
	unit := func(n time.Duration, word string) string {
		if n == 1 {
			return "1 " + word
		}
		return strconv.FormatInt(int64(n), 10) + " " + word + "s"
	}
	switch {
	case d >= 48*time.Hour || d == 24*time.Hour:
		return unit(d/(24*time.Hour), "day")
	case d >= time.Hour:
		return unit(d/time.Hour, "hour")
	case d >= time.Minute:
		return unit(d/time.Minute, "minute")
	}
	return unit(d/time.Second, "second")
}

// writeSpan writes a length of time as parseSpan reads it.
func writeSpan(d time.Duration) string {
	const day = 24 * time.Hour
	if d != 0 && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
