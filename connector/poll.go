package connector

import (
	"context"
	"time"
)

// Poller is a connector's way to the audit events of a system that has to be
// asked for them: an API with pages, a bucket of files.
//
// It is called by one goroutine at a time and keeps no state between calls:
// everything that it must remember is in the position.
type Poller interface {
	// Source says whose decoder reads the events.
	Source() Source

	// Native is what identifies the system that is asked ([remit.SystemID]).
	Native() string

	// Poll reads the events behind a position, the oldest first, and hands
	// them to emit as the API delivers them: one raw event, or a document of
	// several that Decoder.Split takes apart; emit's memory is Poll's again
	// when it returns. An empty position begins at since.
	//
	// It returns the position behind what emit has taken; more says that
	// further events wait already. With an error, next is still what was
	// taken before it (position itself, when that is nothing): the caller
	// keeps it and tries again. Events may be handed out twice, never left
	// out: where a system lists an event later than its time, or not in the
	// order of times, Poll goes back far enough.
	//
	// Errors: [remit.Unauthorized] and [remit.Forbidden] name the right that
	// is missing; [remit.Unavailable] that the system does not answer or asks
	// to wait, which a [RetryLater] may put a time to; emit's error as it is.
	Poll(ctx context.Context, position []byte, since time.Time, emit func(raw []byte) error) (next []byte, more bool, err error)
}

// RetryLater is an error of a system that says when it is to be asked again.
type RetryLater struct {
	Err   error // an [remit.Unavailable] one
	After time.Duration
}

func (e *RetryLater) Error() string { return e.Err.Error() }
func (e *RetryLater) Unwrap() error { return e.Err }
