package kubernetes

import (
	"context"
	"log/slog"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"remit"
)

// task reads one collection: in the whole cluster, or in one namespace. It lists,
// and in a watch then follows what changes, and reports both as events.
type task struct {
	listing   *listing
	namespace string // "" is all

	client    *client
	reducer   *reducer
	retry     retryPolicy
	pageLimit int64 // 0 is the usual one
	log       *slog.Logger
	events    chan<- event
	slots     chan struct{} // bounds how many list at once

	// seen is what was put and not removed since, be it by a listing that broke
	// off, so that a complete one can tell what is gone. Only a watch needs it.
	seen map[remit.Ref]struct{}
	live bool
}

// event is what a task reports. Exactly one of put, gone and ended is set.
type event struct {
	task  *task
	put   []*object
	gone  []remit.Ref
	ended bool  // a listing ended
	err   error // why it did not see everything; nil when it did
	fatal error // nothing more can be read
}

// send hands an event on, unless ctx ends first.
func (t *task) send(ctx context.Context, e event) error {
	e.task = t
	select {
	case t.events <- e:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// maxRelists bounds how often a listing is begun anew because the server no
// longer knows its version.
const maxRelists = 5

// list lists the whole collection, and returns the version from which to watch.
// It tries again what is worth it, from the page that broke.
func (t *task) list(ctx context.Context) (version string, err error) {
	select {
	case t.slots <- struct{}{}:
		defer func() { <-t.slots }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	var now map[remit.Ref]struct{}
	if t.live {
		now = map[remit.Ref]struct{}{}
		if t.seen == nil {
			t.seen = map[remit.Ref]struct{}{}
		}
	}
	note := &hint{}
	ctx = context.WithValue(ctx, hintKey{}, note)
	options := metav1.ListOptions{Limit: pageLimit, FieldSelector: t.listing.fieldSelector}
	if t.listing.bulky && !t.listing.metadataOnly {
		options.Limit = bulkyPageLimit
	}
	if t.pageLimit > 0 {
		options.Limit = t.pageLimit
	}
	for attempt, relists := 1, 0; ; {
		var objects []*object
		largest := 1
		next, v, err := t.client.page(ctx, t.listing, t.namespace, options, func(o runtime.Object) {
			if sized, ok := o.(interface{ Size() int }); ok {
				largest = max(largest, sized.Size())
			}
			if reduced := t.reducer.reduce(t.listing, o); reduced != nil {
				objects = append(objects, reduced)
			}
		})
		if err == nil {
			attempt = 1
			for _, o := range objects {
				if t.live {
					now[o.ref] = struct{}{}
					t.seen[o.ref] = struct{}{}
				}
			}
			if len(objects) > 0 {
				if err := t.send(ctx, event{put: objects}); err != nil {
					return "", err
				}
			}
			if next != "" {
				options.Continue = next
				if t.listing.bulky && t.pageLimit == 0 && !t.listing.metadataOnly {
					options.Limit = min(max(bulkyPageBytes/int64(largest), bulkyPageLimit), pageLimit)
				}
				continue
			}
			return v, t.forget(ctx, now)
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		switch judgeError(err) {
		case missing: // the API server has no such collection, so nothing is in it
			return "", t.forget(ctx, now)
		case anew:
			if relists++; relists > maxRelists {
				return "", err
			}
			t.log.Info("listing anew", "section", t.listing.resource, "reason", reason(err))
			options.Continue = ""
			if t.live {
				clear(now)
			}
			continue
		case refused, wrong:
			return "", err
		case loggedOut:
			// A program that gives logins is asked again by client-go; what
			// is refused after that stays so.
			if attempt >= 3 {
				return "", err
			}
		}
		if attempt >= t.retry.attempts {
			return "", err
		}
		wait := t.retry.delay(attempt, note.take())
		t.log.Info("trying again", "section", t.listing.resource, "attempt", attempt, "wait", wait, "reason", reason(err))
		attempt++
		if err := sleep(ctx, wait); err != nil {
			return "", err
		}
	}
}

// forget reports what an earlier listing showed and this one does not.
func (t *task) forget(ctx context.Context, now map[remit.Ref]struct{}) error {
	if !t.live {
		return nil
	}
	var gone []remit.Ref
	for ref := range t.seen {
		if _, still := now[ref]; !still {
			gone = append(gone, ref)
		}
	}
	t.seen = now
	if len(gone) == 0 {
		return nil
	}
	return t.send(ctx, event{gone: gone})
}

// run does the task: once, or (in a watch) until ctx ends.
func (t *task) run(ctx context.Context) {
	absent := false // the API server has no such collection, and that was told
	for failures := 0; ctx.Err() == nil; {
		version, err := t.list(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && judgeError(err) == loggedOut:
			_ = t.send(ctx, event{fatal: err})
			return
		case err != nil:
			_ = t.send(ctx, event{ended: true, err: err})
		case version != "" || !absent:
			absent = version == ""
			if t.send(ctx, event{ended: true}) != nil {
				return
			}
		}
		if !t.live {
			return
		}
		if err == nil && version != "" {
			failures = 0
			t.watch(ctx, version)
			continue
		}
		// Forbidden, or not there: it may become possible while we run.
		failures++
		if sleep(ctx, patience.delay(failures, 0)) != nil {
			return
		}
	}
}
