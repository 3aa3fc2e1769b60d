// Package seen remembers which events were counted, so that an event that comes
// twice, by a batch sent again or by a log imported over what a webhook has
// delivered, counts once.
//
// An event is known by a 64-bit hash of its ID, kept by the hour of the event's
// own time: of ten million events in one hour, the chance that any one is taken
// for another is below one in three hundred thousand.
package seen

import (
	"context"
	"encoding/binary"
	"slices"

	"remit"
)

// Loader reads the sets of an hour that were stored; see
// [remit.ActivityReader].
type Loader interface {
	Seen(ctx context.Context, system remit.ID, hour int64) ([]remit.SeenChunk, error)
}

// Set is the events of one system. It is not safe for concurrent use.
type Set struct {
	system remit.ID
	loader Loader // nil when nothing was stored before
	max    int
	hours  map[int64]*hour
	last   *hour // the hour of the last event, which is most often the next one's
	clock  int64
	held   int
}

type hour struct {
	number int64
	known  hashes
	fresh  []uint64 // since the last checkpoint
	used   int64
}

// New returns a set that holds up to max hashes in memory (0 is 16 million,
// at most 512 MB) beside those of the hour in use; hours that rest are read again
// when they are needed.
func New(system remit.ID, loader Loader, max int) *Set {
	if max <= 0 {
		max = 16 << 20
	}
	return &Set{system: system, loader: loader, max: max, hours: make(map[int64]*hour)}
}

// Add says whether the event is new, and remembers it.
func (s *Set) Add(ctx context.Context, number int64, id uint64) (bool, error) {
	h := s.last
	if h == nil || h.number != number {
		var err error
		if h, err = s.hour(ctx, number); err != nil {
			return false, err
		}
		s.last = h
	}
	if !h.known.add(id) {
		return false, nil
	}
	h.fresh = append(h.fresh, id)
	s.held++
	return true, nil
}

func (s *Set) hour(ctx context.Context, number int64) (*hour, error) {
	s.clock++
	if h := s.hours[number]; h != nil {
		h.used = s.clock
		return h, nil
	}
	h := &hour{number: number, used: s.clock}
	if s.loader != nil {
		chunks, err := s.loader.Seen(ctx, s.system, number)
		if err != nil {
			return nil, err
		}
		for _, c := range chunks {
			for b := c.IDs; len(b) >= 8; b = b[8:] {
				h.known.add(binary.LittleEndian.Uint64(b))
			}
		}
	}
	s.held += h.known.len()
	s.hours[number] = h
	return h, nil
}

// Changed appends what was added since it was last called to a checkpoint.
func (s *Set) Changed(c *remit.Checkpoint) {
	at := len(c.Seen)
	for _, h := range s.hours {
		if len(h.fresh) == 0 {
			continue
		}
		ids := make([]byte, 0, 8*len(h.fresh))
		for _, id := range h.fresh {
			ids = binary.LittleEndian.AppendUint64(ids, id)
		}
		c.Seen = append(c.Seen, remit.SeenChunk{System: s.system, Hour: h.number, IDs: ids})
	}
	slices.SortFunc(c.Seen[at:], func(a, b remit.SeenChunk) int { return int(a.Hour - b.Hour) })
}

// Committed says that what Changed returned is on disk, from where hours that
// rest can be read again: those are forgotten when too much is held.
func (s *Set) Committed(loader Loader) {
	s.loader = loader
	for _, h := range s.hours {
		h.fresh = h.fresh[:0]
	}
	for s.held > s.max && len(s.hours) > 1 {
		var oldest *hour
		for _, h := range s.hours {
			if h != s.last && (oldest == nil || h.used < oldest.used) {
				oldest = h
			}
		}
		if oldest == nil {
			return
		}
		s.held -= oldest.known.len()
		delete(s.hours, oldest.number)
	}
}

// hashes is a set of numbers that are hashes already: open addressing, at most
// half full, so that most lookups cost one cache miss.
type hashes struct {
	slots []uint64 // 0 is free
	shift uint8
	n     int
	zero  bool // 0 is in the set
}

func (h *hashes) len() int {
	if h.zero {
		return h.n + 1
	}
	return h.n
}

// add says whether the number is new.
func (h *hashes) add(id uint64) bool {
	if id == 0 {
		was := h.zero
		h.zero = true
		return !was
	}
	if 2*(h.n+1) > len(h.slots) {
		h.grow()
	}
	if !h.place(id) {
		return false
	}
	h.n++
	return true
}

func (h *hashes) place(id uint64) bool {
	mask := len(h.slots) - 1
	for at := int(id >> h.shift); ; at = (at + 1) & mask {
		switch h.slots[at] {
		case 0:
			h.slots[at] = id
			return true
		case id:
			return false
		}
	}
}

func (h *hashes) grow() {
	old := h.slots
	if len(old) == 0 {
		h.slots, h.shift = make([]uint64, 1<<8), 64-8
		return
	}
	h.slots, h.shift = make([]uint64, 2*len(old)), h.shift-1
	for _, id := range old {
		if id != 0 {
			h.place(id)
		}
	}
}
