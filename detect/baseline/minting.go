package baseline

import (
	"fmt"
	"math"
	"strings"

	"remit"
)

// minting is who issues the tokens of one identity for one pod, and how often;
// or, without a pod, who issues its free tokens, and how its bound ones are.
type minting struct {
	renewers [3]renewer
	used     uint8

	// Of the tokens bound to pods, where this record is about free ones.
	bound        uint32 // how many were minted in a regular cadence
	cadence      float32
	boundLast    uint32
	boundAddress [16]byte
	boundBy      [12]byte

	// Of those who mint beside the usual renewer.
	strangers    uint32 // tokens that they minted
	lastStranger uint32
	inside       uint32 // how often the usual renewer minted between two of theirs
	told         uint32
	level        uint8 // of the last signal
}

// renewer is one source of tokens: the same actor, at the same address, with the
// same program, for the same audience.
type renewer struct {
	source      uint32 // the hash of actor, address and program
	audience    uint32
	first, last uint32
	mean, off   float32 // of the intervals in seconds, and how far they are off it
	count       uint32  // intervals
	irregular   uint8   // in a row
	split       uint8   // how often in a row two intervals made up a usual one
	half        uint32  // an interval that may be the first part of a split one
	even        bool    // it was split in the middle
	stranger    bool    // it came when another renewed regularly
	address     [16]byte
	by          [12]byte
}

const (
	// regularAfter is how many intervals make a cadence, and regularOff how
	// far they may be off their mean on average.
	regularAfter, regularOff = 4, 0.25
	// retry is how many seconds apart mintings of one source are one.
	retry = 3
	// relearn is how many irregular intervals in a row are a new cadence.
	relearn = 6
	// boundRegular is how many regular mintings for pods an identity must have
	// before a token bound to nothing is unusual.
	boundRegular = 8
)

// The levels of a forked cadence.
const (
	forkSeen   = 1 // another minted
	forkProved = 2 // and the usual one goes on
)

// tokenIsMinted compares a minting with how the tokens of that identity, for that
// pod, are usually renewed.
func (b *Baselines) tokenIsMinted(s *seen, found []remit.Signal) []remit.Signal {
	a := s.a
	m := &a.Minted
	whom := hash(hash(hash(hash(b.options.Seed^ofMinting, string(a.System)), m.For.Kind), m.For.Namespace), m.For.Name)
	bound := m.Bound.Name != ""
	key := whom
	if bound {
		key = hash(hash(hash(whom, m.Bound.Kind), m.Bound.Namespace), m.Bound.Name)
	}
	r := fetch(b, &b.mintings, key, true)
	if r == nil {
		return found
	}
	actor := hash(hash(hash(b.options.Seed, a.Actor.Kind), a.Actor.Namespace), a.Actor.Name)
	source := tag(step(step(actor, uint64(s.from.tag)), uint64(s.by.tag)))
	address := s.from.address
	if !bound && !platform(a) {
		address = s.from.network // a person or a pipeline has more than one
	} else if s.from.ip {
		source = tag(step(uint64(source), hash(0, string(address[:]))))
	}
	var audience uint64
	for _, of := range m.Audiences[:min(len(m.Audiences), 16)] {
		audience = hash(audience, of)
	}

	usual := r.usual(source, s.t)
	it, fresh := r.renewer(source, tag(audience), s.t)
	if fresh {
		it.address, it.by = address, s.by.name
		it.stranger = usual >= 0 && !r.knows(source, it)
		if !bound && usual < 0 && !platform(a) && r.boundIsRegular(s.t) {
			it.stranger = !r.knows(source, it)
		}
	}
	since := it.last
	split := it.mint(s.t)

	if it.stranger {
		found = b.fork(r, it, s, usual, fresh, since, found)
	} else if split >= 2 && (r.told == 0 || after(s.t, r.told) >= b.repeat) {
		r.told, r.level = s.t, forkProved
		signal := s.signal(cadenceFork, fmt.Sprintf("the tokens of %s%s are usually renewed every %s from %s; %d times in a row now two came within that, from the same address with the same program",
			shownRef(m.For), forPod(m.Bound), span(uint32(it.mean)), sourceOf(it.address, it.by, !bound && !platform(a)), split))
		if it.even {
			// Or the cadence has become twice as fast.
			signal.Severity = remit.Low
		}
		found = append(found, s.minted(signal))
	}

	if bound && it.regular() && !it.stranger {
		mean, by, address := it.mean, it.by, it.address
		if all := fetch(b, &b.mintings, whom, true); all != nil {
			all.bound, all.cadence = sum(all.bound, 1), mean
			all.boundLast = max(all.boundLast, s.t)
			all.boundAddress, all.boundBy = address, by
		}
	}
	return found
}

// fork judges a token minted by one who is not the usual renewer.
func (b *Baselines) fork(r *minting, it *renewer, s *seen, usual int, fresh bool, since uint32, found []remit.Signal) []remit.Signal {
	a, m := s.a, &s.a.Minted
	// Whoever comes from yet another address each time is still one fork.
	last := r.boundLast
	if usual >= 0 {
		last = r.renewers[usual].last
	}
	if r.lastStranger != 0 && last > r.lastStranger {
		r.inside = sum(r.inside, 1)
	}
	r.strangers = sum(r.strangers, 1)
	r.lastStranger = max(r.lastStranger, s.t)
	if usual < 0 && m.Bound.Name != "" {
		// The usual renewer has stopped: the pod has moved, this is the new one.
		if it.count >= regularAfter {
			it.stranger = false
			r.strangers, r.lastStranger, r.inside, r.level = 0, 0, 0, 0
		}
		return found
	}

	// A node that mints for a pod may be where the pod has moved to, until the
	// former one goes on as well. All others have no business there.
	self := a.SelfMinted || a.Outside || a.Actor == m.For
	if !self && after(s.t, it.first) > b.learnFor {
		it.stranger = false // told for long enough
		return found
	}
	level, severity := uint8(0), remit.Low
	if !platform(a) {
		level = forkSeen
		if self || usual >= 0 && m.Bound.Name != "" {
			severity = remit.Medium
		}
	}
	if r.inside > 0 {
		level = forkProved
		switch {
		case self || m.Bound.Name != "":
			severity = remit.High
		case it.regular():
			severity = remit.Medium
		}
	}
	if level == 0 || level <= r.level && after(s.t, r.told) < b.repeat {
		return found
	}
	r.level, r.told = level, s.t

	free := m.Bound.Name == "" && !platform(a)
	var words string
	if usual >= 0 {
		u := &r.renewers[usual]
		words = fmt.Sprintf("the tokens of %s%s are usually renewed every %s from %s",
			shownRef(m.For), forPod(m.Bound), span(uint32(u.mean)), sourceOf(u.address, u.by, free))
	} else {
		words = fmt.Sprintf("the tokens of %s are usually bound to a pod and renewed every %s, last from %s",
			shownRef(m.For), span(uint32(r.cadence)), sourceOf(r.boundAddress, r.boundBy, false))
	}
	words += "; now also "
	if !fresh && after(s.t, since) > retry {
		words += fmt.Sprintf("every %s ", span(uint32(it.mean)))
	}
	words += "from " + or(shown(a.Address), "an unknown address")
	if a.UserAgent != "" {
		words += ", " + shown(a.UserAgent)
	}
	if usual < 0 {
		words += ", bound to nothing"
	}
	words += fmt.Sprintf(", by %s (%s so far)", shownRef(a.Actor), count(int(r.strangers), "token"))
	signal := s.signal(cadenceFork, words)
	signal.Severity = severity
	return append(found, s.minted(signal))
}

// minted adds to a signal what was minted, and for whom.
func (s *seen) minted(signal remit.Signal) remit.Signal {
	m := &s.a.Minted
	signal.Evidence = append(signal.Evidence,
		remit.Fact{Name: "Minted for", Value: shownRef(m.For)},
		remit.Fact{Name: "Minted for (ID)", Value: string(remit.IdentityID(s.a.System, m.For))})
	if m.Bound.Name != "" {
		signal.Evidence = append(signal.Evidence, remit.Fact{Name: "Bound to", Value: shownRef(m.Bound)})
	}
	signal.Evidence = append(signal.Evidence, remit.Fact{Name: "Minted credential", Value: shown(m.Credential)})
	return signal
}

// platform says whether the actor is a node, which mints for the pods on it.
func platform(a *remit.Activity) bool {
	return strings.HasPrefix(a.Principal, "system:node:") || strings.HasPrefix(a.Actor.Name, "system:node:") || a.Actor.Kind == "Node"
}

// usual returns which renewer of another source has a cadence that it kept up
// until now, -1 for none.
func (r *minting) usual(source, t uint32) int {
	best := -1
	for i := range r.renewers[:r.used] {
		u := &r.renewers[i]
		if u.source == source || u.stranger || !u.regular() || float32(after(t, u.last)) > 3*u.mean {
			continue
		}
		if best < 0 || u.count > r.renewers[best].count {
			best = i
		}
	}
	return best
}

func (r *minting) knows(source uint32, but *renewer) bool {
	for i := range r.renewers[:r.used] {
		if u := &r.renewers[i]; u != but && u.source == source && !u.stranger {
			return true
		}
	}
	return false
}

func (r *minting) boundIsRegular(t uint32) bool {
	return r.bound >= boundRegular && after(t, r.boundLast) <= uint32(min(3*r.cadence, 30*day))
}

// renewer returns the one of that source and audience, and whether it is new.
func (r *minting) renewer(source, audience, t uint32) (*renewer, bool) {
	for i := range r.renewers[:r.used] {
		if u := &r.renewers[i]; u.source == source && u.audience == audience {
			return u, false
		}
	}
	at := int(r.used)
	if at < len(r.renewers) {
		r.used++
	} else {
		// The one that minted least goes, a stranger first: nobody can drive
		// the usual renewer out.
		at = 0
		for i := range r.renewers {
			u, least := &r.renewers[i], &r.renewers[at]
			if u.stranger && !least.stranger || u.stranger == least.stranger && u.count <= least.count {
				at = i
			}
		}
	}
	r.renewers[at] = renewer{source: source, audience: audience, first: t, last: t}
	return &r.renewers[at], true
}

func (u *renewer) regular() bool { return u.count >= regularAfter && u.off <= regularOff*u.mean }

// mint learns one interval and returns how often in a row a usual interval was
// split in two.
func (u *renewer) mint(t uint32) (split uint8) {
	interval := after(t, u.last)
	if interval <= retry {
		return 0
	}
	u.last = t
	gap := float32(interval)
	if u.regular() && (gap < 0.8*u.mean || gap > 1.7*u.mean) {
		// A renewer that was restarted mints early once and goes on from there.
		// A second one beside it splits the intervals in two, again and again.
		u.irregular++
		switch {
		case gap > u.mean:
			u.half = 0
		case u.half > 0 && near(gap+float32(u.half), u.mean):
			u.even = near(gap, float32(u.half))
			u.half = 0
			u.split++
			split = u.split
		default:
			u.half = interval
		}
		if u.irregular >= relearn {
			u.count, u.mean, u.off, u.irregular, u.split, u.half = 1, gap, 0, 0, 0, 0
		}
		return split
	}
	u.irregular, u.split, u.half = 0, 0, 0
	u.count = sum(u.count, 1)
	if u.count == 1 {
		u.mean, u.off = gap, 0
		return 0
	}
	weight := max(1/float32(u.count), 1./16)
	u.off += (float32(math.Abs(float64(gap-u.mean))) - u.off) * weight
	u.mean += (gap - u.mean) * weight
	return 0
}

func near(a, b float32) bool { return a > 0.85*b && a < 1.15*b }

// sourceOf names a stored source: "127.10.0.2 (kubelet)".
func sourceOf(address [16]byte, by [12]byte, network bool) string {
	from := or(where(address, network), "an unknown address")
	if name := text(by[:]); name != "" {
		return from + " (" + name + ")"
	}
	return from
}

func forPod(bound remit.Ref) string {
	if bound.Name == "" {
		return ""
	}
	return " for " + shownRef(bound)
}

func (r *minting) warm() uint32 { return uint32(r.used) }
