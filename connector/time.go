package connector

import "time"

// ParseTime reads the times that audit logs write: RFC 3339 with any fraction
// ("2026-11-23T14:05:06.123456Z"), and the forms of it that log stores make,
// with a space for the T and without a zone, which is UTC then. It returns the
// zero time for anything else. It allocates nothing.
func ParseTime(b []byte) time.Time {
	const date = len("2006-01-02T15:04:05")
	if len(b) < date || b[4] != '-' || b[7] != '-' || b[10] != 'T' && b[10] != ' ' || b[13] != ':' || b[16] != ':' {
		return time.Time{}
	}
	year, ok1 := digits(b[0:4])
	month, ok2 := digits(b[5:7])
	day, ok3 := digits(b[8:10])
	hour, ok4 := digits(b[11:13])
	minute, ok5 := digits(b[14:16])
	second, ok6 := digits(b[17:19])
	if !(ok1 && ok2 && ok3 && ok4 && ok5 && ok6) || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 60 {
		return time.Time{}
	}
	rest := b[date:]
	nanos := 0
	if len(rest) > 1 && rest[0] == '.' {
		n, scale := 1, 100_000_000
		for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
			nanos += int(rest[n]-'0') * scale
			scale /= 10
			n++
		}
		rest = rest[n:]
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, nanos, time.UTC)
	switch {
	case len(rest) == 0, len(rest) == 1 && (rest[0] == 'Z' || rest[0] == 'z'), string(rest) == " UTC":
		return t
	case len(rest) == 6 && (rest[0] == '+' || rest[0] == '-') && rest[3] == ':':
		hours, ok1 := digits(rest[1:3])
		minutes, ok2 := digits(rest[4:6])
		if !ok1 || !ok2 || hours > 23 || minutes > 59 {
			return time.Time{}
		}
		offset := time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
		if rest[0] == '+' {
			offset = -offset
		}
		return t.Add(offset)
	}
	return time.Time{}
}

func digits(b []byte) (int, bool) {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}
