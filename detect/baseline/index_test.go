package baseline

import (
	"math/rand/v2"
	"testing"
)

// The index must do what a map does, where many keys want the same place too.
func TestIndexIsAMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, few := range []uint64{4, 64, 1 << 32} {
		var x index
		slots := make([]slotInfo, 600)
		want := map[uint64]uint32{}
		for range 20_000 {
			slot := uint32(r.IntN(len(slots)))
			if key := slots[slot].key; key != 0 {
				x.remove(key, slot)
				delete(want, key)
				slots[slot].key = 0
			} else {
				key := r.Uint64N(few)<<32 | uint64(r.Uint32()) | 1
				if _, ok := want[key]; ok {
					continue
				}
				slots[slot].key = key
				x.insert(key, slot)
				want[key] = slot
			}
			if x.n != len(want) {
				t.Fatalf("%d keys, want %d", x.n, len(want))
			}
		}
		for key, slot := range want {
			if got, ok := x.find(key, slots); !ok || got != slot {
				t.Fatalf("key %x is at %d, %v; want %d", key, got, ok, slot)
			}
			if _, ok := x.find(key^2, slots); ok {
				if _, ok := want[key^2]; !ok {
					t.Fatalf("key %x was found", key^2)
				}
			}
		}
	}
}
