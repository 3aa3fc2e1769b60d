package connector

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"remit"
)

// NewestFirst polls a log that its API lists newest first, in pages of the
// form {"data": […], "has_more": …, "last_id": …}, and hands it out oldest
// first: it reads the log in windows of time that are small enough to be held
// in memory. Within a window the API may list in any order.
//
// Its position is JSON: a [Round]; "at", up to where the round has come; "span",
// the length of the next window in seconds, 0 when it ends in the present; and
// "until", the newest time that was seen when a window turned out to be too long.
type NewestFirst struct {
	Op string

	// LookBack is how long after its time an event may appear in the log.
	LookBack time.Duration

	// Ask asks for the events from a time, in whole seconds, to another,
	// exclusive, or to the present when that is zero; behind a cursor, the
	// last_id of the page before, when there is one.
	Ask func(ctx context.Context, from, to time.Time, cursor string) (*Answer, error)

	// Time reads the time of one raw event, zero when it has none.
	Time func(raw []byte) time.Time

	// Most is how many events a window is to have at most, 5000 when it is 0.
	Most int
}

type newestFirstPosition struct {
	Round
	At    time.Time `json:"at"`
	Span  int64     `json:"span,omitempty"`
	Until time.Time `json:"until,omitzero"`
}

// The bounds of a window: more is read only where it all has the same second.
const (
	windowEvents = 5000
	windowBytes  = 64 << 20
	secondBytes  = 256 << 20
	longestSpan  = 100 * 365 * 24 * 3600
)

// Poll is [Poller.Poll]; it hands out one window.
func (n *NewestFirst) Poll(ctx context.Context, position []byte, since time.Time, emit func(raw []byte) error) (next []byte, more bool, err error) {
	p, err := n.position(position, since)
	if err != nil {
		return position, false, err
	}
	var window []RawEvent
	var to time.Time
	for {
		to = time.Time{}
		if p.Span > 0 {
			to = p.At.Add(time.Duration(p.Span) * time.Second)
		}
		var whole bool
		window, whole, err = n.window(ctx, &p, to)
		if err != nil {
			return position, false, err
		}
		if whole {
			break
		}
		p.shrink(window)
	}
	// The other way round, and then by time in case the API's order is not
	// exactly that.
	slices.Reverse(window)
	slices.SortStableFunc(window, func(a, b RawEvent) int { return a.Time.Compare(b.Time) })
	if err := p.Emit(window, emit); err != nil {
		return WritePosition(p), false, err
	}
	if to.IsZero() {
		p.Again(n.LookBack)
		p.At, p.Until = p.Since, time.Time{}
		return WritePosition(p), false, nil
	}
	p.At, p.Span = to, min(p.Span*2, longestSpan)
	if p.At.Add(time.Duration(p.Span) * time.Second).After(p.Until) {
		p.Span = 0
	}
	return WritePosition(p), true, nil
}

func (n *NewestFirst) position(position []byte, since time.Time) (p newestFirstPosition, err error) {
	if len(position) == 0 {
		p.Since = since.UTC().Truncate(time.Second)
		p.At = p.Since
		return p, nil
	}
	if err := ReadPosition(n.Op, position, &p); err != nil {
		return p, err
	}
	if p.At.IsZero() || p.Since.IsZero() || p.Span < 0 || p.Span > longestSpan {
		return p, remit.Errorf(remit.Invalid, n.Op, "the stored position cannot be read: it does not say from when")
	}
	return p, nil
}

// window reads the events from p.At to a time. It gives up, and says that they
// are not whole, when they are more than a window may have.
func (n *NewestFirst) window(ctx context.Context, p *newestFirstPosition, to time.Time) (events []RawEvent, whole bool, err error) {
	shortest := p.Span == 1
	most := n.Most
	if most == 0 {
		most = windowEvents
	}
	var bytes int
	for cursor := ""; ; {
		answer, err := n.Ask(ctx, p.At, to, cursor)
		if err != nil {
			return nil, false, err
		}
		p.Answered(answer.Date())
		var page struct {
			Data    *[]json.RawMessage `json:"data"`
			HasMore bool               `json:"has_more"`
			LastID  string             `json:"last_id"`
		}
		if err := json.Unmarshal(answer.JSON, &page); err != nil || page.Data == nil {
			return nil, false, remit.Errorf(remit.Unavailable, n.Op, "the answer is not a page of events")
		}
		for _, raw := range *page.Data {
			events = append(events, RawEvent{Time: n.Time(raw), JSON: raw})
			bytes += len(raw)
		}
		switch {
		case !page.HasMore:
			return events, true, nil
		case len(*page.Data) == 0 || page.LastID == "" || page.LastID == cursor:
			return nil, false, remit.Errorf(remit.Unavailable, n.Op, "the answer says that more follows, and not how to get it")
		case bytes > secondBytes:
			return nil, false, remit.Errorf(remit.Unavailable, n.Op, "the log has more than %d bytes from one second: something is wrong with it", secondBytes)
		case !shortest && (len(events) > most || bytes > windowBytes):
			return events, false, nil
		}
		cursor = page.LastID
	}
}

// shrink makes the next window shorter than one that was too long, by how
// much time the events took that were read of it.
func (p *newestFirstPosition) shrink(read []RawEvent) {
	newest, oldest := time.Time{}, time.Time{}
	for _, e := range read {
		if e.Time.IsZero() {
			continue
		}
		if newest.IsZero() || e.Time.After(newest) {
			newest = e.Time
		}
		if oldest.IsZero() || e.Time.Before(oldest) {
			oldest = e.Time
		}
	}
	span := int64(newest.Sub(oldest)/time.Second) / 2
	if p.Span > 0 {
		span = min(span, p.Span/2)
	} else {
		p.Until = newest
	}
	p.Span = max(span, 1)
}
