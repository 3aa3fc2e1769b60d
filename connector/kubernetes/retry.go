package kubernetes

import (
	"context"
	"math/rand/v2"
	"time"
)

// retryPolicy says how often and how patiently a request is tried again.
type retryPolicy struct {
	attempts  int
	base, cap time.Duration
	longest   time.Duration // the longest wait that a server may ask for
}

// defaultRetry waits up to about a minute in all for a server that says
// nothing, and as long as it asks where it does.
var defaultRetry = retryPolicy{attempts: 8, base: 500 * time.Millisecond, cap: 20 * time.Second, longest: 2 * time.Minute}

// delay is how long to wait after the given failed attempt (from 1): doubling,
// with jitter, and at least what the server asked for.
func (p retryPolicy) delay(attempt int, asked time.Duration) time.Duration {
	d := min(p.base<<min(attempt-1, 16), p.cap)
	d = d/2 + rand.N(d/2+1)
	return max(d, min(asked, p.longest))
}

// sleep waits, or returns ctx's error at once when it ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
