package baseline

import (
	"math"
	"math/bits"

	"remit"
)

// group is what the identities of one kind in one namespace do. Sets of members
// are kept as 64 bits, in which each member sets one: their number is estimated
// from the bits that are set (linear counting), well up to about a hundred.
type group struct {
	first   uint32
	members uint64
	tags    [48]uint32
	who     [48]uint64
	used    uint8
}

// fewPeers is how many members a group must have to say something.
const fewPeers = 5

// share is how many of a group's members, without the one that asks, do a thing.
type share struct {
	members, doing int
	alike          bool // the members mostly do the same
	since          uint32
}

// peersDo says who else does the operation and touches the resource, and adds
// this one to them. It is asked only about what is new for an identity, so that
// usual activities never touch a group.
func (b *Baselines) peersDo(s *seen, operation, resource uint32) [2]share {
	actor := s.a.Actor
	key := hash(hash(hash(b.options.Seed^ofGroup, string(s.a.System)), actor.Kind), actor.Namespace)
	g := fetch(b, &b.groups, key, true)
	if g == nil {
		return [2]share{}
	}
	if g.first == 0 {
		g.first = s.t
	}
	me := uint64(1) << (s.identity >> 58)
	alike := g.alike()
	shares := [2]share{g.share(operation, me), g.share(resource^1<<31, me)}
	for i := range shares {
		shares[i].alike, shares[i].since = alike, g.first
	}
	g.members |= me
	return shares
}

func (g *group) share(tag uint32, me uint64) share {
	result := share{members: estimate(g.members &^ me)}
	for i, known := range g.tags[:g.used] {
		if known == tag {
			result.doing = estimate(g.who[i] &^ me)
			g.who[i] |= me
			return result
		}
	}
	at := int(g.used)
	if at < len(g.tags) {
		g.used++
	} else {
		at = 0
		for i := range g.who {
			if bits.OnesCount64(g.who[i]) <= bits.OnesCount64(g.who[at]) {
				at = i
			}
		}
	}
	g.tags[at], g.who[at] = tag, me
	return result
}

// alike says whether half of what the group does is done by half of it.
func (g *group) alike() bool {
	members, common := bits.OnesCount64(g.members), 0
	for _, who := range g.who[:g.used] {
		if 2*bits.OnesCount64(who) >= members {
			common++
		}
	}
	return g.used > 0 && 2*common >= int(g.used)
}

func estimate(members uint64) int {
	set := bits.OnesCount64(members)
	if set == 64 {
		set = 63
	}
	return int(math.Round(-64 * math.Log(1-float64(set)/64)))
}

// unlikePeers tells of an identity, still being learned, that does what none of
// its peers does though they are otherwise alike.
func (b *Baselines) unlikePeers(id *identity, s *seen, does share, found []remit.Signal) []remit.Signal {
	if does.members < fewPeers || does.doing > 0 || !does.alike || after(s.t, does.since) < b.learnFor ||
		id.kinds.told >= unlikePerDay {
		return found
	}
	id.kinds.told++
	return append(found, s.signal(unlikePeers, "it is new, and none of its "+
		count(does.members, "peer")+in(s.a.Actor.Namespace)+" was ever seen to "+s.what()))
}

// unlikePerDay bounds the signals about one new identity on its first days.
const unlikePerDay = 3

func (g *group) warm() uint32 { return uint32(g.used) }
