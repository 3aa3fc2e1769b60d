package baseline

// chunk is how many records are allocated at a time: growing moves none.
const chunk = 256

// tries is how many records are looked at to find one to evict.
const tries = 64

// record is what a table holds: a type without pointers that knows its stored
// form.
type record[T any] interface {
	*T
	encode(b []byte) []byte
	decode(b []byte) bool
	warm() uint32 // reads what every activity will touch
}

// table is a bounded set of records of one kind. When it is full, the record not
// used for longest (by the second-chance approximation, which costs one bit) makes
// room. Where there is a store, one that changed since it was last stored stays.
type table[T any, P record[T]] struct {
	kind   byte // the first byte of its keys
	limit  int
	stored bool

	index  index
	chunks [][]T
	slots  []slotInfo
	dirty  []uint32 // the changed ones, in the order of their first change
	hand   int
}

// slotInfo is what a table knows of a record beside the record.
type slotInfo struct {
	key   uint64
	flags uint8
}

const (
	used    = 1 << iota // since the hand came by
	changed             // since last stored
)

func (t *table[T, P]) at(slot uint32) P { return &t.chunks[slot/chunk][slot%chunk] }

// get returns the record to change it, or nil when there is none in memory.
func (t *table[T, P]) get(key uint64) P {
	slot, ok := t.index.find(key, t.slots)
	if !ok {
		return nil
	}
	t.touch(slot)
	return t.at(slot)
}

// warm reads the record, if there is one, for no other end than to have it in the
// cache. The processor does not wait for it: several at once cost one wait.
func (t *table[T, P]) warm(key uint64) uint32 {
	if slot, ok := t.index.find(key, t.slots); ok {
		return t.at(slot).warm()
	}
	return 0
}

func (t *table[T, P]) touch(slot uint32) {
	info := &t.slots[slot]
	if info.flags&changed == 0 {
		t.dirty = append(t.dirty, slot)
	}
	info.flags = used | changed
}

// add makes an empty record, which is not yet counted as changed. It is valid
// until the next add.
func (t *table[T, P]) add(key uint64) P {
	slot, ok := uint32(0), false
	if len(t.slots) >= t.limit {
		slot, ok = t.evict()
	}
	if !ok {
		slot = uint32(len(t.slots))
		if slot%chunk == 0 {
			t.chunks = append(t.chunks, make([]T, chunk))
		}
		t.slots = append(t.slots, slotInfo{})
	}
	r := t.at(slot)
	*r = *new(T)
	t.slots[slot] = slotInfo{key: key, flags: t.slots[slot].flags&changed | used}
	t.index.insert(key, slot)
	return r
}

func (t *table[T, P]) evict() (uint32, bool) {
	keep := uint8(used)
	if t.stored {
		keep |= changed
	}
	for range tries {
		slot := t.next()
		if t.slots[slot].flags&keep == 0 {
			t.index.remove(t.slots[slot].key, slot)
			return slot, true
		}
		t.slots[slot].flags &^= used
	}
	if t.stored {
		return 0, false
	}
	slot := t.next()
	t.index.remove(t.slots[slot].key, slot)
	return slot, true
}

func (t *table[T, P]) next() uint32 {
	slot := t.hand
	t.hand = (t.hand + 1) % len(t.slots)
	return uint32(slot)
}
