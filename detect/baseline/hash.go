package baseline

import "math/bits"

// The multipliers are odd and have their bits well spread (those of
// SplitMix64); hashes are part of the stored state, so they never change.
const (
	multiplierA = 0xbf58476d1ce4e5b9
	multiplierB = 0x94d049bb133111eb
)

// hash mixes s into h, eight bytes at a time. Every step can be undone, so that
// no input wipes out what was there before. It is fast and stable, and not safe
// against one who knows h and seeks collisions: hence [Options].Seed.
func hash(h uint64, s string) uint64 {
	n := uint64(len(s))
	for len(s) >= 8 {
		h = step(h, uint64(s[0])|uint64(s[1])<<8|uint64(s[2])<<16|uint64(s[3])<<24|
			uint64(s[4])<<32|uint64(s[5])<<40|uint64(s[6])<<48|uint64(s[7])<<56)
		s = s[8:]
	}
	var last uint64
	for i := range len(s) {
		last |= uint64(s[i]) << (8 * i)
	}
	// The length comes last: ("a", "bc") and ("ab", "c") differ.
	return finish(step(h, last) + n*multiplierB)
}

func step(h, word uint64) uint64 {
	h = (h ^ word) * multiplierA
	return bits.RotateLeft64(h, 29) * multiplierB
}

func finish(h uint64) uint64 {
	h = (h ^ h>>30) * multiplierA
	h = (h ^ h>>27) * multiplierB
	return h ^ h>>31
}

// tag shortens a hash to what the small sets keep; 0 stands for nothing there.
func tag(h uint64) uint32 {
	if t := uint32(h >> 32); t != 0 {
		return t
	}
	return 1
}
