package baseline

import (
	"math"
	"time"
)

const (
	day  = 24 * 60 * 60
	hour = 60 * 60

	// leap is how far, in seconds, one event may move the clock ahead: a log
	// with a quiet week goes on, an event dated 2090 does not.
	leap = 8 * day
	// leapEvents is how many events in a row must lie beyond a leap until
	// it is believed.
	leapEvents = 3
)

// clock is the latest event time that is believed, in seconds since 1970.
type clock struct {
	now    uint32
	ahead  uint32 // the earliest of the events in a row beyond the leap
	events uint32 // how many
}

// read returns the time to take for an event: its own, or now for one that has
// none or that is too far ahead.
func (c *clock) read(at time.Time) uint32 {
	t := seconds(at)
	switch {
	case t == 0:
		return c.now
	case c.now == 0 || t <= c.now+leap:
		c.now = max(c.now, t)
		c.ahead, c.events = 0, 0
		return t
	}
	// A row of events that go on from one another is the stream after a long
	// pause; one that lies far from its successor is a wrong date.
	if c.events == 0 || t+leap < c.ahead || t > c.ahead+leap {
		c.ahead, c.events = t, 1
		return c.now
	}
	c.events++
	if c.events < leapEvents {
		return c.now
	}
	c.now, c.ahead, c.events = t, 0, 0
	return t
}

// seconds since 1970, 0 for a time that is not there, is earlier or lies beyond
// 2105, so that adding to it never overflows.
func seconds(at time.Time) uint32 {
	s := at.Unix()
	if s <= 0 || s > math.MaxUint32-366*day {
		return 0
	}
	return uint32(s)
}

func after(t, since uint32) uint32 {
	if t <= since {
		return 0
	}
	return t - since
}
