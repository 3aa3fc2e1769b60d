package main

import (
	"strconv"
	"strings"
	"time"

	"remit"
)

// span is a length of time in the configuration and in flags: what
// [time.ParseDuration] reads, or days, as "90d".
type span time.Duration

// UnmarshalText reads one.
func (s *span) UnmarshalText(text []byte) error {
	d, err := parseSpan(string(text))
	*s = span(d)
	return err
}

// Set, String and Type make it a flag.
func (s *span) Set(text string) error { return s.UnmarshalText([]byte(text)) }

func (s *span) String() string {
	d := time.Duration(*s)
	if day := 24 * time.Hour; d > 0 && d%day == 0 {
		return strconv.Itoa(int(d/day)) + "d"
	}
	return d.String()
}

// Type is the word for it in --help.
func (*span) Type() string { return "duration" }

func parseSpan(text string) (time.Duration, error) {
	const longest = 100 * 365
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n <= longest {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	} else if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return d, nil
	}
	return 0, remit.Errorf(remit.Invalid, "", "%q is no length of time: write 90d, 36h or 15m", text)
}

// size is a number of bytes: a number, or one with KiB, MiB, GiB or TiB.
type size int64

// UnmarshalText reads one.
func (s *size) UnmarshalText(text []byte) error {
	number, shift := strings.TrimSpace(string(text)), 0
	for i, unit := range [...]string{"KiB", "MiB", "GiB", "TiB"} {
		if n, ok := strings.CutSuffix(number, unit); ok {
			number, shift = strings.TrimSpace(n), 10*(i+1)
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > 1<<62>>shift {
		return remit.Errorf(remit.Invalid, "", "%q is no size: write 500MiB or 20GiB", text)
	}
	*s = size(n << shift)
	return nil
}
