package baseline

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"time"

	"remit"
)

// version is the first byte of every stored state.
const version = 1

// clockKey is the key of the clock's own state.
const clockKey = "clock"

// Changed gives each record that changed since the last call: its key, of at most
// 17 ASCII characters, and its state, which is valid during the call only. The
// order is that of the first changes. When each fails, its error is returned, and
// what it was not given successfully comes again with the next call.
//
// When a record could not be loaded since the last call (see [Options].Load),
// nothing is given and that error is returned, once: the caller's batch should
// count as not processed.
func (b *Baselines) Changed(each func(key string, state []byte) error) error {
	if err := b.failed; err != nil {
		b.failed = nil
		return err
	}
	if b.clock != b.clockMoved {
		e := encoder(append(b.buffer[:0], version))
		e.uint(b.clock.now)
		e.uint(b.clock.ahead)
		e.uint(b.clock.events)
		b.buffer = e
		if err := each(clockKey, e); err != nil {
			return err
		}
		b.clockMoved = b.clock
	}
	if err := store(b, &b.identities, each); err != nil {
		return err
	}
	if err := store(b, &b.strands, each); err != nil {
		return err
	}
	if err := store(b, &b.mintings, each); err != nil {
		return err
	}
	return store(b, &b.groups, each)
}

func store[T any, P record[T]](b *Baselines, t *table[T, P], each func(string, []byte) error) error {
	for i, slot := range t.dirty {
		b.buffer = t.at(slot).encode(append(b.buffer[:0], version))
		if err := each(keyOf(t.kind, t.slots[slot].key), b.buffer); err != nil {
			t.dirty = t.dirty[:copy(t.dirty, t.dirty[i:])]
			return err
		}
		t.slots[slot].flags &^= changed
	}
	t.dirty = t.dirty[:0]
	return nil
}

// Load puts a stored record into memory, in place of what is there under that
// key. It fails with [remit.Invalid] for a key or a state that [Baselines.Changed]
// did not give, and then changes nothing. The clock is under "clock" and should be
// loaded before anything is observed.
func (b *Baselines) Load(key string, state []byte) error {
	if key == clockKey {
		d, ok := decoderOf(state)
		c := clock{now: d.uint(), ahead: d.uint(), events: d.uint()}
		if !ok || !d.done() || seconds(time.Unix(int64(c.now), 0)) != c.now {
			return remit.Errorf(remit.Invalid, "load baseline", "the state of the clock is damaged")
		}
		b.clock, b.clockMoved = c, c
		return nil
	}
	raw, err := hex.DecodeString(key[min(1, len(key)):])
	if err != nil || len(raw) != 8 {
		return remit.Errorf(remit.Invalid, "load baseline", "%.20q is no key of a baseline", key)
	}
	number, ok := binary.BigEndian.Uint64(raw), false
	switch key[0] {
	case ofIdentity:
		ok = load(&b.identities, number, state)
	case ofStrand:
		ok = load(&b.strands, number, state)
	case ofMinting:
		ok = load(&b.mintings, number, state)
	case ofGroup:
		ok = load(&b.groups, number, state)
	default:
		return remit.Errorf(remit.Invalid, "load baseline", "%.20q is no key of a baseline", key)
	}
	if !ok {
		return remit.Errorf(remit.Invalid, "load baseline", "the state of record %s is damaged or of a newer version", key)
	}
	return nil
}

func load[T any, P record[T]](t *table[T, P], key uint64, state []byte) bool {
	var decoded T
	if !P(&decoded).decode(state) {
		return false
	}
	if slot, ok := t.index.find(key, t.slots); ok {
		*t.at(slot) = decoded
		return true
	}
	*t.add(key) = decoded
	return true
}

// LastEvent returns the time of the last event that went into a stored state, so
// that a store can delete what is older than it wishes to keep. It fails with
// [remit.Invalid] for what is no state, and returns the zero time for a state that
// does not tell.
func LastEvent(key string, state []byte) (time.Time, error) {
	b := New(Options{Identities: 1})
	if err := b.Load(key, state); err != nil {
		return time.Time{}, err
	}
	var last uint32
	switch key[0] {
	case ofIdentity:
		last = b.identities.at(0).last
	case ofStrand:
		for _, s := range b.strands.at(0).spots {
			last = max(last, s.last)
		}
	case ofMinting:
		m := b.mintings.at(0)
		last = m.boundLast
		for _, u := range m.renewers {
			last = max(last, u.last)
		}
	}
	if last == 0 {
		return time.Time{}, nil
	}
	return time.Unix(int64(last), 0).UTC(), nil
}

// encoder writes numbers as varints: most are small. Times are written as they
// are, counters too, so that nothing is lost and a restored state goes on exactly.
type encoder []byte

func (e *encoder) uint(n uint32)    { *e = binary.AppendUvarint(*e, uint64(n)) }
func (e *encoder) byte(n uint8)     { *e = append(*e, n) }
func (e *encoder) word(n uint32)    { *e = binary.LittleEndian.AppendUint32(*e, n) }
func (e *encoder) long(n uint64)    { *e = binary.LittleEndian.AppendUint64(*e, n) }
func (e *encoder) float(f float32)  { e.word(math.Float32bits(f)) }
func (e *encoder) bytes(raw []byte) { *e = append(*e, raw...) }

func (e *encoder) bool(set bool) {
	if set {
		e.byte(1)
	} else {
		e.byte(0)
	}
}

// decoder reads what an encoder wrote. After the first fault all it reads is 0.
type decoder struct {
	rest []byte
	bad  bool
}

func decoderOf(state []byte) (decoder, bool) {
	if len(state) == 0 || state[0] != version {
		return decoder{bad: true}, false
	}
	return decoder{rest: state[1:]}, true
}

func (d *decoder) done() bool { return !d.bad && len(d.rest) == 0 }

func (d *decoder) take(n int) []byte {
	if d.bad || len(d.rest) < n {
		d.bad, d.rest = true, nil
		return nil
	}
	taken := d.rest[:n]
	d.rest = d.rest[n:]
	return taken
}

func (d *decoder) uint() uint32 {
	n, size := binary.Uvarint(d.rest)
	if d.bad || size <= 0 || n > math.MaxUint32 {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[size:]
	return uint32(n)
}

// time reads seconds that leave room to be added to.
func (d *decoder) time() uint32 {
	t := d.uint()
	if t > math.MaxUint32-366*day {
		d.bad = true
	}
	return t
}

func (d *decoder) byte() uint8 {
	if raw := d.take(1); raw != nil {
		return raw[0]
	}
	return 0
}

// upTo reads a byte that may be n at the most.
func (d *decoder) upTo(n int) uint8 {
	b := d.byte()
	if int(b) > n {
		d.bad = true
		return 0
	}
	return b
}

func (d *decoder) bool() bool { return d.upTo(1) == 1 }

func (d *decoder) word() uint32 {
	if raw := d.take(4); raw != nil {
		return binary.LittleEndian.Uint32(raw)
	}
	return 0
}

func (d *decoder) long() uint64 {
	if raw := d.take(8); raw != nil {
		return binary.LittleEndian.Uint64(raw)
	}
	return 0
}

// float reads a number of seconds: finite and not negative.
func (d *decoder) float() float32 {
	f := math.Float32frombits(d.word())
	if !(f >= 0 && f <= math.MaxUint32) {
		d.bad = true
		return 0
	}
	return f
}

func (d *decoder) bytes(into []byte) { copy(into, d.take(len(into))) }

func (id *identity) encode(b []byte) []byte {
	e := encoder(b)
	for _, n := range []uint32{id.first, id.last, id.age, id.events, id.calm, id.deployed, id.pause, id.hour} {
		e.uint(n)
	}
	e.bool(id.learned)

	k := &id.kinds
	for of := range kindsOfThings {
		e.byte(k.used[of])
		for at := bounds[of]; at < bounds[of]+int(k.used[of]); at++ {
			e.word(k.things[at])
		}
	}
	e.bytes(k.hourly[:])
	e.bytes(k.daily[:])
	e.bytes([]byte{k.newHour, k.newDay, k.hours, k.days, k.told})

	p := &id.pace
	for _, n := range p.hours {
		e.uint(n)
	}
	for _, n := range p.numbers() {
		e.uint(*n)
	}
	e.bool(p.toldVolume)
	e.bool(p.toldDenied)
	e.bool(p.toldFailed)

	w := &id.week
	e.bytes(w.hours[:])
	e.bytes(w.days[:])
	e.byte(w.seen)
	e.uint(uint32(w.told))
	return e
}

func (id *identity) decode(state []byte) bool {
	d, _ := decoderOf(state)
	id.first, id.last = d.time(), d.time()
	id.age, id.events, id.calm = d.uint(), d.uint(), d.uint()
	id.deployed, id.pause, id.hour = d.time(), d.uint(), d.time()
	id.learned = d.bool()

	k := &id.kinds
	for of := range kindsOfThings {
		k.used[of] = d.upTo(bounds[of+1] - bounds[of])
		for at := bounds[of]; at < bounds[of]+int(k.used[of]); at++ {
			k.things[at] = d.word()
		}
	}
	d.bytes(k.hourly[:])
	d.bytes(k.daily[:])
	k.newHour, k.newDay, k.hours, k.days, k.told = d.byte(), d.byte(), d.byte(), d.byte(), d.byte()

	p := &id.pace
	for i := range p.hours {
		p.hours[i] = d.uint()
	}
	for _, n := range p.numbers() {
		*n = d.uint()
	}
	p.toldVolume, p.toldDenied, p.toldFailed = d.bool(), d.bool(), d.bool()

	w := &id.week
	d.bytes(w.hours[:])
	d.bytes(w.days[:])
	w.seen = d.byte()
	w.told = uint16(d.uint())
	return d.done() && id.events > 0
}

// numbers are all counts of a pace but the hours.
func (p *pace) numbers() [12]*uint32 {
	return [...]*uint32{
		&p.minute, &p.inHour, &p.inMinute, &p.denied, &p.failed, &p.limitHour, &p.limitMinute, &p.limitDenied, &p.limitFailed,
		&p.minutes, &p.denials, &p.errors,
	}
}

func (r *strand) encode(b []byte) []byte {
	e := encoder(b)
	e.byte(r.main)
	e.byte(r.used)
	e.uint(r.told)
	e.uint(r.times)
	for i := range r.spots[:r.used] {
		s := &r.spots[i]
		e.bytes(s.address[:])
		e.uint(s.first)
		e.uint(s.last)
		e.uint(s.count)
		e.byte(s.between)
		e.bool(s.stranger)
	}
	return e
}

func (r *strand) decode(state []byte) bool {
	d, _ := decoderOf(state)
	r.main, r.used = d.upTo(len(r.spots)-1), d.upTo(len(r.spots))
	r.told, r.times = d.time(), d.uint()
	for i := range r.spots[:r.used] {
		s := &r.spots[i]
		d.bytes(s.address[:])
		s.first, s.last, s.count = d.time(), d.time(), d.uint()
		s.between, s.stranger = d.byte(), d.bool()
	}
	return d.done() && r.main < r.used
}

func (r *minting) encode(b []byte) []byte {
	e := encoder(b)
	e.uint(r.bound)
	if r.bound > 0 {
		e.float(r.cadence)
		e.uint(r.boundLast)
		e.bytes(r.boundAddress[:])
		e.bytes(r.boundBy[:])
	}
	for _, n := range []uint32{r.strangers, r.lastStranger, r.inside, r.told} {
		e.uint(n)
	}
	e.byte(r.level)
	e.byte(r.used)
	for i := range r.renewers[:r.used] {
		u := &r.renewers[i]
		e.word(u.source)
		e.word(u.audience)
		e.uint(u.first)
		e.uint(u.last)
		e.float(u.mean)
		e.float(u.off)
		e.uint(u.count)
		e.bytes([]byte{u.irregular, u.split})
		e.uint(u.half)
		e.bool(u.even)
		e.bool(u.stranger)
		e.bytes(u.address[:])
		e.bytes(u.by[:])
	}
	return e
}

func (r *minting) decode(state []byte) bool {
	d, _ := decoderOf(state)
	if r.bound = d.uint(); r.bound > 0 {
		r.cadence, r.boundLast = d.float(), d.time()
		d.bytes(r.boundAddress[:])
		d.bytes(r.boundBy[:])
	}
	r.strangers, r.lastStranger, r.inside, r.told = d.uint(), d.time(), d.uint(), d.time()
	r.level = d.upTo(forkProved)
	r.used = d.upTo(len(r.renewers))
	for i := range r.renewers[:r.used] {
		u := &r.renewers[i]
		u.source, u.audience = d.word(), d.word()
		u.first, u.last = d.time(), d.time()
		u.mean, u.off, u.count = d.float(), d.float(), d.uint()
		u.irregular, u.split = d.byte(), d.byte()
		u.half, u.even, u.stranger = d.uint(), d.bool(), d.bool()
		d.bytes(u.address[:])
		d.bytes(u.by[:])
	}
	return d.done()
}

func (g *group) encode(b []byte) []byte {
	e := encoder(b)
	e.uint(g.first)
	e.long(g.members)
	e.byte(g.used)
	for i := range g.tags[:g.used] {
		e.word(g.tags[i])
		e.long(g.who[i])
	}
	return e
}

func (g *group) decode(state []byte) bool {
	d, _ := decoderOf(state)
	g.first, g.members = d.time(), d.long()
	g.used = d.upTo(len(g.tags))
	for i := range g.tags[:g.used] {
		g.tags[i], g.who[i] = d.word(), d.long()
	}
	return d.done()
}
