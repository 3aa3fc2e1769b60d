package seen_test

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"remit"
	"remit/activity/seen"
)

const system = remit.ID("sys_x")

// disk keeps what checkpoints wrote, as the store does.
type disk struct {
	chunks map[int64][]remit.SeenChunk
	reads  int
	broken error
}

func (d *disk) Seen(_ context.Context, of remit.ID, hour int64) ([]remit.SeenChunk, error) {
	d.reads++
	if of != system {
		return nil, nil
	}
	return d.chunks[hour], d.broken
}

func (d *disk) commit(c remit.Checkpoint) {
	for _, chunk := range c.Seen {
		d.chunks[chunk.Hour] = append(d.chunks[chunk.Hour], chunk)
	}
}

func newDisk() *disk { return &disk{chunks: map[int64][]remit.SeenChunk{}} }

func checkpoint(s *seen.Set, to *disk) {
	var c remit.Checkpoint
	s.Changed(&c)
	to.commit(c)
	s.Committed(to)
}

// TestAdd tells new events from known ones within an hour and apart from those
// of others: the same hash in another hour is another event.
func TestAdd(t *testing.T) {
	s := seen.New(system, nil, 0)
	for n, step := range []struct {
		hour int64
		id   uint64
		want bool
	}{
		{5, 1, true},
		{5, 1, false},
		{5, 2, true},
		{6, 1, true}, // another hour
		{5, 1, false},
		{6, 1, false},
		{-1, 0, true}, // before 1970, and a hash of zero
		{-1, 0, false},
		{0, 0, true},
		{0, 1<<64 - 1, true},
		{0, 1<<64 - 1, false},
	} {
		if got, err := s.Add(t.Context(), step.hour, step.id); got != step.want || err != nil {
			t.Errorf("step %d, hour %d, event %d: new %t, %v", n, step.hour, step.id, got, err)
		}
	}
}

// TestCheckpoint writes only what is new since the last checkpoint, by the hour
// and in order, so that the same events give the same bytes.
func TestCheckpoint(t *testing.T) {
	s := seen.New(system, nil, 0)
	d := newDisk()
	for _, hour := range []int64{9, 7, 8} {
		for id := range uint64(3) {
			if _, err := s.Add(t.Context(), hour, id); err != nil {
				t.Fatal(err)
			}
		}
	}
	var c remit.Checkpoint
	s.Changed(&c)
	var hours []int64
	for _, chunk := range c.Seen {
		hours = append(hours, chunk.Hour)
		if chunk.System != system || len(chunk.IDs) != 3*8 {
			t.Errorf("%+v", chunk)
		}
		for id := range uint64(3) {
			if got := binary.LittleEndian.Uint64(chunk.IDs[8*id:]); got != id {
				t.Errorf("the event that came as number %d is %d", id, got)
			}
		}
	}
	if !slices.Equal(hours, []int64{7, 8, 9}) {
		t.Errorf("hours %v", hours)
	}
	// The transaction failed: the next one has all of it again.
	var again remit.Checkpoint
	s.Changed(&again)
	if len(again.Seen) != 3 {
		t.Errorf("after a checkpoint that failed: %d hours", len(again.Seen))
	}
	d.commit(again)
	s.Committed(d)
	var none remit.Checkpoint
	s.Changed(&none)
	if len(none.Seen) != 0 {
		t.Errorf("written twice: %+v", none.Seen)
	}
}

// TestUnreadable says that an hour that cannot be read is an error and not an
// empty one, which would count its events again.
func TestUnreadable(t *testing.T) {
	d := newDisk()
	d.broken = errors.New("no store")
	s := seen.New(system, d, 0)
	if _, err := s.Add(t.Context(), 1, 1); !errors.Is(err, d.broken) {
		t.Errorf("%v", err)
	}
	d.broken = nil
	if fresh, err := s.Add(t.Context(), 1, 1); !fresh || err != nil {
		t.Errorf("%t, %v", fresh, err)
	}
}

// TestEviction keeps hours in memory only as long as they are used, and never
// one of which something is not on disk yet.
func TestEviction(t *testing.T) {
	d := newDisk()
	s := seen.New(system, d, 10)
	for hour := range int64(100) {
		for id := range uint64(5) {
			if fresh, err := s.Add(t.Context(), hour, id); !fresh || err != nil {
				t.Fatalf("hour %d: %t, %v", hour, fresh, err)
			}
		}
		if hour%10 == 9 {
			checkpoint(s, d)
		}
	}
	d.reads = 0
	for hour := range int64(100) {
		if fresh, err := s.Add(t.Context(), hour, 3); fresh || err != nil {
			t.Errorf("hour %d is forgotten: %t, %v", hour, fresh, err)
		}
	}
	if d.reads < 90 {
		t.Errorf("%d hours were read again: more than 10 events were held", d.reads)
	}
}

// TestExactlyOnce compares with a plain set over random hours, checkpoints,
// crashes and evictions: an event is new once; after a crash exactly what the
// lost checkpoint would have held is new again.
func TestExactlyOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type event struct {
			hour int64
			id   uint64
		}
		ctx := context.Background()
		d := newDisk()
		most := rapid.IntRange(1, 12).Draw(t, "max")
		// A system of which nothing is stored begins without a loader.
		s := seen.New(system, nil, most)
		onDisk, known := map[event]bool{}, map[event]bool{}
		commit := func() {
			checkpoint(s, d)
			for e := range known {
				onDisk[e] = true
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				e := event{rapid.Int64Range(-2, 6).Draw(t, "hour"), rapid.Uint64Range(0, 8).Draw(t, "event")}
				fresh, err := s.Add(ctx, e.hour, e.id)
				if err != nil || fresh == known[e] {
					t.Fatalf("%+v: new %t, %v, known %t", e, fresh, err, known[e])
				}
				known[e] = true
			},
			"checkpoint": func(*rapid.T) { commit() },
			"crash": func(*rapid.T) {
				s = seen.New(system, d, most)
				clear(known)
				for e := range onDisk {
					known[e] = true
				}
			},
		})
		// Whatever happened, all is there after one more start.
		commit()
		s = seen.New(system, d, most)
		for e := range known {
			if fresh, err := s.Add(ctx, e.hour, e.id); fresh || err != nil {
				t.Fatalf("%+v is forgotten: %t, %v", e, fresh, err)
			}
		}
		written := 0
		for _, chunks := range d.chunks {
			for _, c := range chunks {
				written += len(c.IDs) / 8
			}
		}
		if written != len(known) {
			t.Fatalf("%d hashes are on disk for %d events", written, len(known))
		}
	})
}
