package baseline

import (
	"fmt"

	"remit"
)

// What the sets of an identity hold, and where each lies in its array.
const (
	networks      = iota // /24, /64
	agentsUsed           // user agents without versions
	operations           // action and kind of resource
	resources            // kind and namespace
	kindsOfThings = iota
)

var bounds = [kindsOfThings + 1]int{0, 12, 20, 52, 84}

// kinds are four small sets of the things that an identity was seen with. The
// usual ones are moved to the front of each, where they are found at once; when a
// set is full, the one seen least often makes room, so that no flood of new names
// drives the usual ones out.
type kinds struct {
	used [kindsOfThings]uint8

	// How often an active hour, and an active day, brings something new, as a
	// moving average in 1/255: what is new all the time is no news.
	hourly, daily [kindsOfThings]uint8
	// Which sets something new came to in this hour and on this day.
	newHour, newDay uint8
	hours, days     uint8 // active ones, up to 255
	told            uint8 // signals of this day

	// 24 bits of the thing's tag, and how often it was seen; all of a set are
	// halved when one would not fit. They share a word, and the words come
	// last here, to be in few cache lines.
	things [84]uint32
}

// The averages above which something new is expected, and those above which it
// is told as a mere piece of information.
const (
	expectedHourly, expectedDaily = 64, 70
	commonHourly, commonDaily     = 24, 32
)

// firstsPerDay bounds the signals of one identity and day, which matters when
// somebody makes up new names by the million.
const firstsPerDay = 12

// seenMask is the part of a word that counts.
const seenMask = 0xff

// see says whether the thing is in the set, and adds it when it is not.
func (k *kinds) see(of int, tag uint32) bool {
	low, n := bounds[of], int(k.used[of])
	set := k.things[low : low+n]
	tag &^= seenMask
	for i, thing := range set {
		if thing^tag > seenMask {
			continue
		}
		if thing&seenMask == seenMask {
			for j, other := range set {
				set[j] = other - other&seenMask/2
			}
		}
		set[i]++
		if i > 0 && set[i]&seenMask > set[i-1]&seenMask {
			set[i], set[i-1] = set[i-1], set[i]
		}
		return true
	}
	at := low + n
	if at < bounds[of+1] {
		k.used[of]++
	} else {
		at = low
		for i := low; i < low+n; i++ {
			if k.things[i]&seenMask <= k.things[at]&seenMask {
				at = i
			}
		}
	}
	k.things[at] = tag | 1
	return false
}

// roll starts a new hour, and a new day when it is time for one. The first of each
// does not count: everything is new then.
func (k *kinds) roll(newDay bool) {
	if k.hours > 0 {
		rollAll(&k.hourly, k.newHour, k.hours > 1)
	}
	k.newHour = 0
	k.hours += min(1, 255-k.hours)
	if newDay {
		if k.days > 0 {
			rollAll(&k.daily, k.newDay, k.days > 1)
		}
		k.newDay, k.told = 0, 0
		k.days += min(1, 255-k.days)
	}
}

func rollAll(rates *[kindsOfThings]uint8, brought uint8, counts bool) {
	if !counts {
		return
	}
	for i := range rates {
		rate := int(rates[i])
		if brought&(1<<i) != 0 {
			rate += (255 - rate + 7) / 8
		} else {
			rate -= (rate + 7) / 8
		}
		rates[i] = uint8(rate)
	}
}

// firsts tells what the identity does, or comes from, for the first time.
func (b *Baselines) firsts(id *identity, s *seen, settling bool, found []remit.Signal) []remit.Signal {
	k := &id.kinds
	a := s.a
	kind := hash(b.options.Seed, a.Resource.Kind)
	operation := hash(kind, a.Action)
	resource := hash(kind, a.Resource.Namespace)

	var news uint8
	if a.Action != "" && !k.see(operations, tag(operation)) {
		news |= 1 << operations
	}
	if a.Resource.Kind != "" && !k.see(resources, tag(resource)) {
		news |= 1 << resources
	}
	if s.from.tag != 0 && !k.see(networks, s.from.tag) {
		news |= 1 << networks
	}
	if s.by.tag != 0 && !k.see(agentsUsed, s.by.tag) {
		news |= 1 << agentsUsed
	}
	if news == 0 {
		id.calm = sum(id.calm, 1)
		return found
	}
	id.calm = 0
	k.newHour |= news
	k.newDay |= news

	var shares [2]share
	if news&(1<<operations|1<<resources) != 0 {
		shares = b.peersDo(s, tag(operation), tag(resource))
	}
	if !id.learned {
		return b.unlikePeers(id, s, shares[0], found)
	}
	if news&(1<<operations) != 0 {
		news &^= 1 << resources // told by the operation
	}
	for of := range kindsOfThings {
		if news&(1<<of) != 0 {
			found = b.first(id, s, of, settling, shares, found)
		}
	}
	return found
}

func (b *Baselines) first(id *identity, s *seen, of int, settling bool, shares [2]share, found []remit.Signal) []remit.Signal {
	k, a := &id.kinds, s.a
	severity := remit.Low
	if of == networks {
		// A pod has an address of its own, and with the next pod another;
		// attribution knows which ones are its. What came from outside of
		// them is told, after a deployment too.
		if a.Bound.Name != "" {
			if !a.Outside {
				return found
			}
			severity = remit.Medium
		}
	} else if settling {
		return found
	}
	if severity == remit.Low {
		if k.hourly[of] > expectedHourly || k.daily[of] > expectedDaily {
			return found
		}
		if k.hourly[of] > commonHourly || k.daily[of] > commonDaily || a.Type == remit.Human ||
			id.age < b.learnFor {
			severity = remit.Info
		}
	}
	var peers string
	if of >= operations {
		switch does := shares[of-operations]; {
		case does.members < fewPeers:
		case 2*does.doing >= does.members:
			return found // as most of its peers do
		case does.doing == 0:
			peers = fmt.Sprintf("; none of its %d peers%s does so", does.members, in(a.Actor.Namespace))
		default:
			peers = fmt.Sprintf("; peers%s that do so: %d of %d", in(a.Actor.Namespace), does.doing, does.members)
			severity = remit.Info
		}
	}
	if k.told >= firstsPerDay {
		return found
	}
	k.told++

	what := [kindsOfThings]string{
		networks:   "come from " + s.network(),
		agentsUsed: "use " + or(shown(a.UserAgent), "this user agent"),
		operations: s.what(),
		resources:  "touch " + or(shown(a.Resource.Kind), "this kind of resource") + in(a.Resource.Namespace),
	}[of]
	usual := [kindsOfThings]string{
		networks: "network", agentsUsed: "user agent", operations: "operation", resources: "kind of resource",
	}[of]
	signal := s.signal(firstRules[of], fmt.Sprintf("never before did it %s, in %d activities since %s with %d different: %s%s",
		what, id.events-1, date(id.first), k.used[of]-1, usual, peers))
	signal.Severity = severity
	signal.Evidence = append(signal.Evidence, remit.Fact{Name: "Known since", Value: date(id.first)})
	return append(found, signal)
}
