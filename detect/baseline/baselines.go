package baseline

import (
	"encoding/hex"
	"time"

	"remit"
)

// Options tune what [New] makes. A zero field has the default that stands with
// it.
type Options struct {
	// An identity is learned once it is LearnFor old (7 days), of which a pause
	// counts as a day at the most, and has LearnEvents activities (100); or
	// once LearnEvents activities in a row brought nothing new and it is
	// LearnLeast old (6 h), so that a log of one day is of use.
	LearnFor    time.Duration
	LearnEvents int
	LearnLeast  time.Duration

	// Settle is how long after [Baselines.Deployed] what is new about an
	// identity is learned without a signal (2 h).
	Settle time.Duration

	// Dormant is after how long a pause an identity wakes (30 days).
	Dormant time.Duration

	// Repeat is how soon a forked cadence or a concurrent use that goes on is
	// signalled again (6 h).
	Repeat time.Duration

	// Identities is how many identities stay in memory (200,000). As many
	// strands and mintings stay, and a tenth as many groups of peers.
	Identities int

	// Load returns the stored state of a record that is not in memory, nil when
	// there is none. nil means that there is no store to ask: what is evicted
	// is then forgotten. An error is reported by the next [Baselines.Changed];
	// meanwhile nothing is learned about the record.
	Load func(key string) ([]byte, error)

	// Seed goes into every hash, so that names that collide cannot be made
	// without knowing it. Stored states are only of use under the same seed.
	Seed uint64
}

func (o Options) withDefaults() Options {
	set := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	set(&o.LearnFor, 7*24*time.Hour)
	set(&o.LearnLeast, 6*time.Hour)
	set(&o.Settle, 2*time.Hour)
	set(&o.Dormant, 30*24*time.Hour)
	set(&o.Repeat, 6*time.Hour)
	if o.LearnEvents <= 0 {
		o.LearnEvents = 100
	}
	if o.Identities <= 0 {
		o.Identities = 200_000
	}
	return o
}

// Baselines knows what identities usually do. It is not safe for concurrent use.
type Baselines struct {
	options Options
	// The options in seconds.
	learnFor, learnLeast, settle, dormant, repeat uint32

	clock      clock
	clockMoved clock // as last stored

	identities table[identity, *identity]
	strands    table[strand, *strand]
	mintings   table[minting, *minting]
	groups     table[group, *group]

	agents agents
	places places

	failed error  // of the loader, since the last Changed
	buffer []byte // for encoding
	warmed uint32 // of no meaning: see table.warm
}

// The kinds of record, which begin their keys.
const (
	ofClock    = 'c'
	ofGroup    = 'g'
	ofIdentity = 'i'
	ofMinting  = 'm'
	ofStrand   = 's'
)

// New makes Baselines that know nothing.
func New(o Options) *Baselines {
	o = o.withDefaults()
	secs := func(d time.Duration) uint32 { return uint32(min(d/time.Second, 100*365*day)) }
	b := &Baselines{
		options: o, learnFor: secs(o.LearnFor), learnLeast: secs(o.LearnLeast), settle: secs(o.Settle),
		dormant: secs(o.Dormant), repeat: secs(o.Repeat),
	}
	n, stored := max(o.Identities, 16), o.Load != nil
	b.identities = table[identity, *identity]{kind: ofIdentity, limit: n, stored: stored}
	b.strands = table[strand, *strand]{kind: ofStrand, limit: n, stored: stored}
	b.mintings = table[minting, *minting]{kind: ofMinting, limit: n, stored: stored}
	b.groups = table[group, *group]{kind: ofGroup, limit: max(n/10, 16), stored: stored}
	return b
}

// Observe learns from a and appends to found what is unusual about it. An
// activity without an identity teaches nothing. Nothing is allocated when
// nothing is unusual and the identity is in memory.
func (b *Baselines) Observe(a *remit.Activity, found []remit.Signal) []remit.Signal {
	if a.Identity == "" {
		return found
	}
	t := b.clock.read(a.Time)
	if t == 0 {
		return found
	}
	from, _ := b.places.of(a.Address, b.options.Seed)
	by, _ := b.agents.of(a.UserAgent, b.options.Seed)
	s := seen{a: a, t: t, from: from, by: by, identity: b.identityKey(a.Identity)}
	s.strand = b.strandKey(&s)
	b.warmed = b.identities.warm(s.identity) + b.strands.warm(s.strand)

	found = b.identityDoes(&s, found)
	found = b.strandIsUsed(&s, found)
	if a.Minted.Credential != "" && a.Outcome != remit.Denied && a.Outcome != remit.Failed {
		found = b.tokenIsMinted(&s, found)
	}
	return found
}

// seen is an activity while it is looked at.
type seen struct {
	a        *remit.Activity
	t        uint32 // when, as the clock believes it
	from     place
	by       agent
	identity uint64
	strand   uint64 // 0 for none
}

// Deployed says that a new version of the workload behind the identity was rolled
// out. For [Options].Settle from then on, what is new about the identity is
// learned without a signal, and so are bursts; forked cadences, concurrent uses
// and networks outside the credential's own are signalled as ever. A deployment of
// an identity that is not known yet changes nothing: it is being learned anyway.
func (b *Baselines) Deployed(identity remit.ID, at time.Time) {
	t := seconds(at)
	if id := fetch(b, &b.identities, b.identityKey(identity), false); id != nil && t != 0 {
		id.deployed = t
	}
}

// fetch returns the record, from memory, from the store or, when make is set, an
// empty one; nil when there is none, or when the store failed.
func fetch[T any, P record[T]](b *Baselines, t *table[T, P], key uint64, make bool) P {
	if r := t.get(key); r != nil {
		return r
	}
	var state []byte
	if b.options.Load != nil {
		name := keyOf(t.kind, key)
		var err error
		if state, err = b.options.Load(name); err != nil {
			if b.failed == nil {
				b.failed = remit.Errorf(remit.KindOf(err), "load baseline", "record %s: %w", name, err)
			}
			return nil
		}
	}
	if state == nil && !make {
		return nil
	}
	r := t.add(key)
	if state != nil && !r.decode(state) {
		// Of no use to anyone: begin anew rather than never learn again.
		*r = *new(T)
	}
	return t.get(key)
}

func (b *Baselines) identityKey(identity remit.ID) uint64 {
	return hash(b.options.Seed^ofIdentity, string(identity))
}

// Key returns the key under which the state of an identity itself is stored (not
// that of its strands and mintings), so that it can be shown or forgotten.
func (b *Baselines) Key(identity remit.ID) string { return keyOf(ofIdentity, b.identityKey(identity)) }

// keyOf writes a key: the letter of the kind and 16 hexadecimal digits.
func keyOf(kind byte, key uint64) string {
	var raw [8]byte
	for i := range raw {
		raw[i] = byte(key >> (56 - 8*i))
	}
	var out [17]byte
	out[0] = kind
	hex.Encode(out[1:], raw[:])
	return string(out[:])
}
