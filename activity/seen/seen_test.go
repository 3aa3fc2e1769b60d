package seen

import (
	"context"
	"testing"

	"pgregory.net/rapid"

	"remit"
)

// memory keeps chunks as a store does.
type memory map[int64][]remit.SeenChunk

func (m memory) Seen(_ context.Context, _ remit.ID, hour int64) ([]remit.SeenChunk, error) {
	return m[hour], nil
}

// TestSet says that a set says of each event once that it is new, whatever is
// written, forgotten and read again in between.
func TestSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stored := memory{}
		s := New("sys_a", stored, rapid.IntRange(1, 40).Draw(t, "max"))
		type event struct {
			hour int64
			id   uint64
		}
		known := map[event]bool{}
		ids := rapid.OneOf(rapid.Uint64(), rapid.Uint64Range(0, 8), rapid.Map(rapid.Uint64Range(0, 99), func(n uint64) uint64 { return n << 56 }))
		for range rapid.IntRange(1, 800).Draw(t, "events") {
			e := event{rapid.Int64Range(0, 3).Draw(t, "hour"), ids.Draw(t, "id")}
			fresh, err := s.Add(t.Context(), e.hour, e.id)
			if err != nil {
				t.Fatal(err)
			}
			if fresh == known[e] {
				t.Fatalf("%v is new: %t", e, fresh)
			}
			known[e] = true
			if rapid.IntRange(0, 20).Draw(t, "checkpoint") == 0 {
				var c remit.Checkpoint
				s.Changed(&c)
				for _, chunk := range c.Seen {
					stored[chunk.Hour] = append(stored[chunk.Hour], chunk)
				}
				s.Committed(stored)
			}
		}
	})
}
