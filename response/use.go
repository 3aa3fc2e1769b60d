package response

import (
	"context"
	"fmt"
	"slices"
	"time"

	"remit"
	"remit/connector"
)

const (
	// usedWithin is how long something must have been unused to be taken, where
	// nobody says.
	usedWithin = 90 * 24 * time.Hour

	// logBehind is how far the end of the log may be behind.
	logBehind = 24 * time.Hour

	// sampled bounds the look at what the log holds of anybody.
	sampled = 5000
)

// use reads what an identity did, for a plan to reduce it. It is [remit.Invalid]
// when the log does not cover the period: what it does not show is not unused.
func (s *Responses) use(ctx context.Context, q Request, now time.Time) (*connector.Use, error) {
	const op = "plan"
	period := q.UsedWithin
	if period <= 0 {
		period = usedWithin
	}
	use := &connector.Use{Since: now.Add(-period), Until: now, Names: q.Names}
	var first, last time.Time
	err := remit.Each(ctx, remit.ActivityFilter{System: q.System}, s.o.Store.Presences, func(p remit.Presence) error {
		if first.IsZero() || p.First.Before(first) {
			first = p.First
		}
		if p.Last.After(last) {
			last = p.Last
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	const layout = "2006-01-02 15:04:05 UTC"
	switch {
	case first.IsZero():
		return nil, remit.Errorf(remit.Invalid, op, "no log of the system has been read, so what is used is not known: receive its events with `remit serve`, or read its log with `remit import activity`")
	case first.After(use.Since):
		return nil, remit.Errorf(remit.Invalid, op, "the log does not cover the last %s: it begins at %s, %s ago; reduce by what was used since then with --used-within",
			days(period), first.UTC().Format(layout), days(now.Sub(first)))
	case now.Sub(last) > logBehind:
		return nil, remit.Errorf(remit.Invalid, op, "the log does not cover the last %s: it ends at %s, %s ago; read on first", days(period), last.UTC().Format(layout), days(now.Sub(last)))
	}
	if q.IdentityID != "" {
		err = remit.Each(ctx, remit.ActivityFilter{System: q.System, Identities: []remit.ID{q.IdentityID}, Since: use.Since}, s.o.Store.Usage, func(u remit.Usage) error {
			use.Used = append(use.Used, u)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	page := remit.PageRequest{Limit: 1000}
	for seen := 0; seen < sampled; {
		some, next, err := s.o.Store.Usage(ctx, remit.ActivityFilter{System: q.System}, page)
		if err != nil {
			return nil, err
		}
		for _, u := range some {
			if !slices.Contains(use.Logged, u.Action) {
				use.Logged = append(use.Logged, u.Action)
			}
		}
		seen += len(some)
		if page.After = next; next == "" {
			break
		}
	}
	slices.Sort(use.Logged)
	return use, nil
}

// days writes a length of time as people say it.
func days(d time.Duration) string {
	const day = 24 * time.Hour
	if d < 2*day {
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%d days", d/day)
}
