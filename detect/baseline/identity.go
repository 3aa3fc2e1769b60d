package baseline

import (
	"fmt"
	"time"

	"remit"
)

// identity is what is known of one identity.
type identity struct {
	first, last uint32 // times of events
	age         uint32 // sum of the times between events, each a day at the most
	events      uint32
	calm        uint32 // events since the last that brought something new
	learned     bool
	deployed    uint32 // the last deployment, 0 for none
	pause       uint32 // the longest ever between two events
	hour        uint32 // the latest in which it was active, since 1970

	kinds kinds
	pace  pace
	week  week
}

func (id *identity) warm() uint32 {
	k := &id.kinds
	return id.last + k.things[bounds[agentsUsed]] + k.things[bounds[operations]] + k.things[bounds[resources]] + id.pace.inHour
}

// early is how many seconds before the time of a deployment its first effects may
// be dated: inventory and activity come by different ways.
const early = 10 * 60

// identityDoes compares an activity with what its identity usually does.
func (b *Baselines) identityDoes(s *seen, found []remit.Signal) []remit.Signal {
	id := fetch(b, &b.identities, s.identity, true)
	if id == nil {
		return found
	}
	if id.events == 0 {
		id.first, id.last = s.t, s.t
	}
	pause := after(s.t, id.last)
	id.age = sum(id.age, min(pause, day))
	id.events = sum(id.events, 1)
	settling := id.deployed != 0 && s.t+early > id.deployed && after(s.t, id.deployed) < b.settle

	found = b.wakes(id, s, pause, found)
	if now := s.t / hour; now > id.hour {
		newDay := now/24 > id.hour/24
		found = b.unusualHour(id, s, now, newDay, found)
		id.kinds.roll(newDay)
		id.pace.rollHour(id.hour, now)
		id.hour = now
	}
	found = b.firsts(id, s, settling, found)
	found = b.bursts(id, s, settling, found)

	id.last = max(id.last, s.t)
	id.pause = max(id.pause, pause)
	if !id.learned {
		id.learned = b.knows(id, s.a.Type)
	}
	return found
}

// knows says whether an identity was seen for long enough. Before LearnFor it is
// so only for what repeats itself: the more different things an identity does, the
// longer nothing new must have come; people never repeat themselves that soon.
func (b *Baselines) knows(id *identity, of remit.IdentityType) bool {
	events := uint32(b.options.LearnEvents)
	if id.age >= b.learnFor {
		return id.events >= events
	}
	if of == remit.Human || id.age < b.learnLeast {
		return false
	}
	for _, n := range id.kinds.used {
		events += 10 * uint32(n)
	}
	return id.calm >= events
}

// wakes tells of an identity that had been quiet for longer than is usual.
func (b *Baselines) wakes(id *identity, s *seen, pause uint32, found []remit.Signal) []remit.Signal {
	usual := id.pause
	if id.events == 1 {
		// Not known here, but perhaps to the inventory.
		pause = uint32(min(max(s.a.Dormant, 0)/time.Second, 1<<31))
		usual = 0
	}
	if pause < b.dormant || pause/2 < usual {
		return found
	}
	words := fmt.Sprintf("it had done nothing for %s", span(pause))
	if usual > 0 {
		words += fmt.Sprintf("; its longest pause before was %s", span(usual))
	}
	signal := s.signal(dormantWakes, words+"; now "+s.what()+s.whence())
	return append(found, signal)
}

func sum(a, b uint32) uint32 {
	if a+b < a {
		return 1<<32 - 1
	}
	return a + b
}
