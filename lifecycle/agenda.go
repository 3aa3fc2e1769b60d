package lifecycle

import (
	"time"

	"remit"
)

// agenda holds what is to be judged again within the hour. What comes later is
// found when the whole system is judged, so it stays small.
type agenda map[remit.ID]*plan // by system

type plan struct {
	at map[remit.ID]time.Time

	// overflow is when the whole system is judged because more came than had
	// room; zero when all had.
	overflow time.Time
}

const (
	// maxAgenda is how many records of one system are on the agenda.
	maxAgenda = 10_000

	// overflowPause is how long what found no room waits at least, so that a
	// system of which much is due all the time is not judged all the time.
	overflowPause = 5 * time.Minute
)

// note puts a record on the agenda, in place of when it was on it before.
func (a agenda) note(system, id remit.ID, at, now time.Time) {
	p := a[system]
	if at.IsZero() || at.Sub(now) > every {
		if p != nil {
			delete(p.at, id)
		}
		return
	}
	if p == nil {
		p = &plan{at: map[remit.ID]time.Time{}}
		a[system] = p
	}
	if _, there := p.at[id]; there || len(p.at) < maxAgenda {
		p.at[id] = at
		return
	}
	at = later(at, now.Add(overflowPause))
	if p.overflow.IsZero() || at.Before(p.overflow) {
		p.overflow = at
	}
}

// take removes what is due from the agenda and returns it; whole says that the
// system is to be judged as a whole instead.
func (a agenda) take(system remit.ID, now time.Time) (due []remit.ID, whole bool) {
	p := a[system]
	if p == nil {
		return nil, false
	}
	if !p.overflow.IsZero() && !p.overflow.After(now) {
		return nil, true
	}
	for id, at := range p.at {
		if !at.After(now) {
			due = append(due, id)
			delete(p.at, id)
		}
	}
	return due, false
}

// forget clears the agenda of a system, which is about to be judged as a whole.
func (a agenda) forget(system remit.ID) { delete(a, system) }

// first is the first moment on the agenda; zero when it is empty.
func (a agenda) first() time.Time {
	var first time.Time
	earliest := func(t time.Time) {
		if first.IsZero() || t.Before(first) {
			first = t
		}
	}
	for _, p := range a {
		for _, at := range p.at {
			earliest(at)
		}
		if !p.overflow.IsZero() {
			earliest(p.overflow)
		}
	}
	return first
}
