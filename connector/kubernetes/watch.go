package kubernetes

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"remit"
)

// patience is how a watch waits for what does not work now.
var patience = retryPolicy{base: time.Second, cap: 30 * time.Second, longest: 2 * time.Minute}

const (
	// watchSeconds is how long one watch request lasts at least; the server
	// ends it then, and the next one goes on from the last version. The upper
	// bound is twice that, so that not all of them end at once.
	watchSeconds = 300

	// silence is after how long without a connection the inventory no longer
	// counts as current.
	silence = time.Minute
)

// errCurrent ends a watch that hears from the server again after it was silent
// for so long that a gap was reported: a new listing closes it.
var errCurrent = errors.New("the server answers again")

// watch follows a collection from a version, over lost connections, until it has
// to be listed anew or ctx ends.
func (t *task) watch(ctx context.Context, version string) {
	note := &hint{}
	requestCtx := context.WithValue(ctx, hintKey{}, note)
	var lostSince time.Time
	told := false
	for failures := 0; ctx.Err() == nil; {
		seconds := int64(watchSeconds + rand.N(watchSeconds))
		began := time.Now()
		err := t.client.follow(requestCtx, t.listing, t.namespace, metav1.ListOptions{
			ResourceVersion: version,
			TimeoutSeconds:  &seconds,
			FieldSelector:   t.listing.fieldSelector,
		}, func(c change) error {
			if told {
				return errCurrent
			}
			failures, lostSince = 0, time.Time{}
			m, ok := c.object.(metav1.Object)
			if !ok {
				return nil
			}
			var sent error
			switch c.kind {
			case watch.Added, watch.Modified:
				if o := t.reducer.reduce(t.listing, c.object); o != nil {
					t.seen[o.ref] = struct{}{}
					sent = t.send(ctx, event{put: []*object{o}})
				}
			case watch.Deleted:
				ref := t.listing.refOf(m)
				delete(t.seen, ref)
				sent = t.send(ctx, event{gone: []remit.Ref{ref}})
			}
			// Only what was handed on counts as seen.
			if v := m.GetResourceVersion(); sent == nil && v != "" {
				version = v
			}
			return sent
		})
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			// The server ended it as asked. When it was suspiciously short,
			// something in between did.
			if lostSince = (time.Time{}); time.Since(began) > time.Second {
				failures = 0
				if told {
					return // list anew, which closes the gap
				}
				continue
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, errCurrent):
			return
		case judgeError(err) == anew, judgeError(err) == refused, judgeError(err) == missing, judgeError(err) == loggedOut:
			t.log.Info("listing anew", "section", t.listing.resource, "reason", reason(err))
			return // the listing finds out which of them holds, and says so
		default:
			if lostSince.IsZero() {
				lostSince = time.Now()
			}
			t.log.Info("watch lost", "section", t.listing.resource, "reason", reason(err))
			if !told && time.Since(lostSince) > silence {
				told = true
				if t.send(ctx, event{ended: true, err: err}) != nil {
					return
				}
			}
		}
		failures++
		if sleep(ctx, patience.delay(failures, note.take())) != nil {
			return
		}
	}
}
