package remit

import (
	"errors"
	"fmt"
)

// ErrorKind says what sort of failure happened. Kinds map to HTTP status and
// exit codes at the edges; nothing else needs to know the error's text.
type ErrorKind string

// The kinds of error.
const (
	Internal     ErrorKind = "internal"     // a fault of ours
	Invalid      ErrorKind = "invalid"      // the input is wrong; the message says where
	NotFound     ErrorKind = "not found"    // no such thing
	Conflict     ErrorKind = "conflict"     // the state has moved on
	Unauthorized ErrorKind = "unauthorized" // not, or no longer, signed in
	Forbidden    ErrorKind = "forbidden"    // signed in, not allowed
	Unavailable  ErrorKind = "unavailable"  // not reachable now; may be tried again
	Unsupported  ErrorKind = "unsupported"  // the system or build cannot do that
)

// Error is a failure that a user or a caller can act on: what was attempted, on
// what it failed, and, in Err's text, what happened and what to do.
type Error struct {
	Kind ErrorKind
	Op   string // what was attempted: "list secrets", "open store"
	Err  error  // never nil
}

func (e *Error) Error() string {
	if e.Op == "" {
		return e.Err.Error()
	}
	return e.Op + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an [Error]. The format may wrap a cause with %w.
func Errorf(kind ErrorKind, op, format string, args ...any) error {
	return &Error{Kind: kind, Op: op, Err: fmt.Errorf(format, args...)}
}

// KindOf returns the kind of the outermost [Error] in err's chain, [Internal]
// when there is none, and "" when err is nil.
func KindOf(err error) ErrorKind {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}
