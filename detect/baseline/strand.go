package baseline

import (
	"fmt"

	"remit"
)

// strand is from where one credential is used, or one lineage of credentials, or
// all tokens bound to one pod.
type strand struct {
	main  uint8 // the place it is usually used from
	used  uint8
	spots [3]spot
	told  uint32
	times uint32 // signals so far
}

// spot is a place from which a strand is used: the address of a pod's tokens, the
// network of all others.
type spot struct {
	address     [16]byte
	first, last uint32
	count       uint32
	between     uint8 // how often the usual place was used between two uses from here
	stranger    bool  // it came when the usual place was settled
}

const (
	// A place is the usual one after this many uses over this many seconds: of a
	// pod's tokens, and of all others.
	boundUses, boundFor = 20, 10 * 60
	freeUses, freeFor   = 50, 60 * 60
	// interleaved is within how many seconds uses of one credential from two
	// places are at the same time.
	interleaved = 15 * 60
	// How often a strand must have changed between its places and back before
	// it is told: a pod has one address, a person may have two networks.
	boundBetween, freeBetween = 1, 3
	// manyNetworks is with how many networks an identity roams.
	manyNetworks = 4
)

// strandKey returns the key of the strand that an activity belongs to, 0 when it
// tells neither credential nor address.
func (b *Baselines) strandKey(s *seen) uint64 {
	a := s.a
	key := b.options.Seed ^ ofStrand ^ s.identity
	switch {
	case !s.from.ip:
		return 0
	case a.Bound.Name != "":
		return hash(hash(hash(key, a.Bound.Kind), a.Bound.Namespace), a.Bound.Name)
	case a.Root != "":
		return hash(key, a.Root)
	case a.Credential != "":
		return hash(key, a.Credential)
	}
	return 0
}

// strandIsUsed tells of a credential that is in use at two places at once.
func (b *Baselines) strandIsUsed(s *seen, found []remit.Signal) []remit.Signal {
	if s.strand == 0 {
		return found
	}
	a, bound, address := s.a, s.a.Bound.Name != "", s.from.network
	if bound {
		address = s.from.address
	}
	r := fetch(b, &b.strands, s.strand, true)
	if r == nil {
		return found
	}
	here := r.at(address, bound, s.t)
	before := here.last
	here.count = sum(here.count, 1)
	here.last = max(here.last, s.t)
	main := &r.spots[r.main]
	if !here.stranger {
		if here != main && here.count > main.count {
			r.main = r.index(here)
		}
		return found
	}
	if here.count > 1 && main.last > before && after(s.t, main.last) <= interleaved && after(s.t, before) <= 2*interleaved {
		here.between += min(1, 255-here.between)
	}
	if main.last < here.first && here.count >= boundUses {
		// It has moved: a pod of the same name was started elsewhere.
		here.stranger, r.main = false, r.index(here)
		return found
	}
	need := uint8(freeBetween)
	if bound {
		need = boundBetween
	}
	if here.between < need || r.told != 0 && after(s.t, r.told) < b.repeat {
		return found
	}
	r.told = s.t
	r.times = sum(r.times, 1)

	noun := "its credential"
	if bound {
		noun = "its token bound to " + shownRef(a.Bound)
	}
	signal := s.signal(concurrentUse, fmt.Sprintf("%s is usually used from %s (%s since %s); now it is also used from %s, %s in between (%s from there)",
		noun, where(main.address, !bound), count(int(main.count), "time"), date(main.first), where(here.address, !bound),
		count(int(here.between), "time"), count(int(here.count), "use")))
	switch {
	case bound && isV4(main.address) != isV4(here.address) && !a.Outside:
		// Perhaps the other one of the pod's two addresses.
	case bound:
		signal.Severity = remit.High
	case a.Type == remit.Human || b.roams(s) || isV4(main.address) != isV4(here.address):
		// Two networks of one person, two of a pipeline's runners, or the two
		// addresses of one machine.
		signal.Severity = remit.Low
	}
	signal.Evidence = append(signal.Evidence,
		remit.Fact{Name: "Usual address", Value: where(main.address, !bound)},
		remit.Fact{Name: "Other address", Value: where(here.address, !bound)})
	return append(found, signal)
}

// roams says whether the identity is used from many networks anyway.
func (b *Baselines) roams(s *seen) bool {
	id := b.identities.get(s.identity)
	return id != nil && id.kinds.used[networks] > manyNetworks
}

// at returns the spot of that address, a new one when there is none.
func (r *strand) at(address [16]byte, bound bool, t uint32) *spot {
	for i := range r.spots[:r.used] {
		if r.spots[i].address == address {
			return &r.spots[i]
		}
	}
	main := &r.spots[r.main]
	settled := main.count >= freeUses && after(main.last, main.first) >= freeFor ||
		bound && main.count >= boundUses && after(main.last, main.first) >= boundFor
	at := r.used
	if int(at) < len(r.spots) {
		r.used++
	} else {
		// The usual place stays; of the others the one used longest ago goes.
		at = (r.main + 1) % uint8(len(r.spots))
		if other := (r.main + 2) % uint8(len(r.spots)); r.spots[other].last < r.spots[at].last {
			at = other
		}
	}
	r.spots[at] = spot{address: address, first: t, last: t, stranger: settled}
	return &r.spots[at]
}

func (r *strand) index(s *spot) uint8 {
	for i := range r.spots {
		if &r.spots[i] == s {
			return uint8(i)
		}
	}
	return 0
}

func (r *strand) warm() uint32 { return r.spots[0].last }
