package baseline

// index finds the slot of a key: a hash table with open addressing, at most half
// full, of one word an entry, so that looking something up among a million costs
// one cache miss. Keys are hashes already; their upper halves give the place and
// are kept, and whoever asks compares the rest.
type index struct {
	words []uint64 // the upper half of the key, and the slot plus one; 0 is free
	shift uint8    // of the upper half, to its place
	n     int
}

func (x *index) home(word uint64) uint32 { return uint32(word>>32) >> x.shift }

// find returns the slot of a key.
func (x *index) find(key uint64, keys []slotInfo) (uint32, bool) {
	if x.n == 0 {
		return 0, false
	}
	mask := uint32(len(x.words) - 1)
	for at := x.home(key); ; at = (at + 1) & mask {
		word := x.words[at]
		if word == 0 {
			return 0, false
		}
		if slot := uint32(word) - 1; word>>32 == key>>32 && keys[slot].key == key {
			return slot, true
		}
	}
}

// insert adds a key that is not there.
func (x *index) insert(key uint64, slot uint32) {
	if 2*(x.n+1) > len(x.words) {
		x.grow()
	}
	x.n++
	x.place(key>>32<<32 | uint64(slot+1))
}

func (x *index) place(word uint64) {
	mask := uint32(len(x.words) - 1)
	at := x.home(word)
	for x.words[at] != 0 {
		at = (at + 1) & mask
	}
	x.words[at] = word
}

func (x *index) grow() {
	old := x.words
	if len(old) == 0 {
		x.words, x.shift = make([]uint64, 16), 32-4
		return
	}
	x.words, x.shift = make([]uint64, 2*len(old)), x.shift-1
	for _, word := range old {
		if word != 0 {
			x.place(word)
		}
	}
}

// remove takes out a key that is there, and moves back what stands behind it only
// because its place was taken.
func (x *index) remove(key uint64, slot uint32) {
	mask := uint32(len(x.words) - 1)
	hole := x.home(key)
	for x.words[hole] != key>>32<<32|uint64(slot+1) {
		hole = (hole + 1) & mask
	}
	x.n--
	for at := hole; ; {
		at = (at + 1) & mask
		word := x.words[at]
		if word == 0 {
			break
		}
		// It may move when its home is not between the hole and itself.
		if (at-x.home(word))&mask >= (at-hole)&mask {
			x.words[hole] = word
			hole = at
		}
	}
	x.words[hole] = 0
}
