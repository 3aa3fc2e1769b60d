package sigma

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"sort"

	"remit"
)

// snapshotVersion changes when a snapshot can no longer be read by what wrote
// the one before.
const snapshotVersion = 1

// snapshot is the correlation state as it is stored. Texts are bytes, for those
// of events need not be UTF-8.
type snapshot struct {
	Version int             `json:"version"`
	Dropped int64           `json:"dropped"`
	Late    int64           `json:"late"`
	Groups  []snapshotGroup `json:"groups"` // the one used least recently first
}

type snapshotGroup struct {
	Correlation string          `json:"correlation"` // correlator.key
	Values      []byte          `json:"values"`      // of group-by, as in group.key
	Clock       int64           `json:"clock"`
	Matched     bool            `json:"matched,omitempty"`
	Fired       int64           `json:"fired,omitempty"`
	Sum         float64         `json:"sum,omitempty"`
	Entries     []snapshotEntry `json:"entries"`
	Start       []int64         `json:"start,omitempty"`
	Ends        []int64         `json:"ends,omitempty"`
}

type snapshotEntry struct {
	Time   int64   `json:"t"`
	ID     []byte  `json:"i,omitempty"`
	Value  []byte  `json:"v,omitempty"`
	Number float64 `json:"n,omitempty"`
}

// Snapshot returns the correlation state, for [Engine.Restore]. Its size is
// bounded by [Options.MaxState].
func (e *Engine) Snapshot() ([]byte, error) {
	s := snapshot{Version: snapshotVersion, Dropped: e.state.dropped, Late: e.state.late, Groups: make([]snapshotGroup, 0, len(e.state.groups))}
	g := e.state.oldest
	for range e.state.groups {
		_, n := binary.Uvarint([]byte(g.key))
		one := snapshotGroup{
			Correlation: e.p.correlated[g.correlator].key, Values: []byte(g.key[n:]),
			Clock: g.clock, Matched: g.matched, Fired: g.fired, Sum: g.sum, Start: g.start, Ends: g.ends,
			Entries: make([]snapshotEntry, len(g.entries)),
		}
		for i, x := range g.entries {
			one.Entries[i] = snapshotEntry{Time: x.time, ID: []byte(x.id), Value: []byte(x.value), Number: x.number}
		}
		s.Groups = append(s.Groups, one)
		g = g.next
	}
	b, err := json.Marshal(s)
	if err != nil {
		return nil, remit.Errorf(remit.Internal, "save correlations", "%w", err)
	}
	return b, nil
}

// Restore replaces the correlation state by that of a snapshot: later events
// give the matches that they would have given in the engine that made it. What
// belongs to correlations that are no longer there, or have changed, is left
// out. After an error, of kind [remit.Invalid], the state is as before.
func (e *Engine) Restore(b []byte) error {
	var in snapshot
	if err := json.Unmarshal(b, &in); err != nil {
		return remit.Errorf(remit.Invalid, "restore correlations", "the snapshot cannot be read: %w", err)
	}
	if in.Version != snapshotVersion {
		return remit.Errorf(remit.Invalid, "restore correlations", "the snapshot has version %d, not %d: start without it", in.Version, snapshotVersion)
	}
	places := make(map[string]int, len(e.p.correlated))
	for i, c := range e.p.correlated {
		places[c.key] = i
	}
	s := newState(e.p)
	s.dropped, s.late = in.Dropped, in.Late
	for i := range in.Groups {
		one := &in.Groups[i]
		id, ok := places[one.Correlation]
		if !ok {
			continue
		}
		if !e.restore(s, id, one) {
			return remit.Errorf(remit.Invalid, "restore correlations", "group %d of the snapshot is damaged: start without it", i)
		}
	}
	s.shrink(e.p.options.MaxState)
	e.state = s
	return nil
}

// damaged says whether a number is beyond all that counting could give.
func (g *snapshotGroup) damaged() bool {
	beyond := func(f, most float64) bool { return !(math.Abs(f) <= most) }
	for _, x := range g.Entries {
		if beyond(x.Number, maxSummand) || x.Time < never {
			return true
		}
	}
	for _, t := range append(append([]int64{g.Clock}, g.Start...), g.Ends...) {
		if t < never || t > -never {
			return true
		}
	}
	return beyond(g.Sum, maxSummand*maxSummand) || len(g.Entries) == 0 && g.Sum != 0
}

func (e *Engine) restore(s *state, id int, one *snapshotGroup) bool {
	c := e.p.correlated[id]
	key := string(append(binary.AppendUvarint(nil, uint64(id)), one.Values...))
	if s.groups[key] != nil || one.damaged() {
		return false
	}
	g := &group{correlator: id, key: key}
	s.insert(g, c)
	g.clock, g.matched, g.fired, g.sum = one.Clock, one.Matched, one.Fired, one.Sum
	if g.start != nil {
		if len(one.Entries) != len(g.start) || len(one.Start) != len(g.start) || len(one.Ends) != len(g.start) {
			return false
		}
		copy(g.start, one.Start)
		copy(g.ends, one.Ends)
		s.size -= len(g.entries) // counted again below
		g.entries = g.entries[:0]
	} else if !sort.SliceIsSorted(one.Entries, func(i, j int) bool { return one.Entries[i].Time < one.Entries[j].Time }) {
		return false
	}
	if c.spec.kind == "value_count" {
		g.latest = make(map[string]int64, len(one.Entries))
	}
	for _, x := range one.Entries {
		g.entries = append(g.entries, entry{time: x.Time, id: string(x.ID), value: string(x.Value), number: x.Number})
		s.size++
		if g.latest != nil {
			if _, twice := g.latest[string(x.Value)]; twice {
				return false
			}
			g.latest[string(x.Value)] = x.Time
		}
		if c.spec.kind == "value_percentile" {
			g.sorted = append(g.sorted, x.Number)
		}
	}
	if c.spec.kind == "value_percentile" {
		sort.Float64s(g.sorted)
	}
	return true
}
