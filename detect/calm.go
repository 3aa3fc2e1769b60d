package detect

import (
	"context"
	"math"
	"slices"
	"time"

	"remit"
	"remit/connector"
)

// calm is what rules may read of an event beside its text: what attribution
// found out. Events of one text and one calm are alike to them.
type calm struct {
	system              remit.ID
	typ                 remit.IdentityType
	root                string
	depth               int
	known, inventoried  bool
	selfMinted, outside bool
	dormant             int // whole days; see dormancy
}

func calmOf(a *remit.Activity) calm {
	return calm{
		system: a.System, typ: a.Type, root: a.Root, depth: a.Depth,
		known: a.Known, inventoried: a.Inventoried, selfMinted: a.SelfMinted, outside: a.Outside, dormant: dormancy(a.Dormant),
	}
}

// dormancy tells lengths apart as far as rules with whole days do: 0, up to a
// day, exactly a day, up to two.
func dormancy(d time.Duration) int {
	const day = 24 * time.Hour
	n := 2 * int(d/day)
	if d%day > 0 {
		n++
	}
	return n
}

// Calm is the pipeline's: see there.
func (d *Detector) Calm(own []string) any {
	if d.matched || d.last.system == "" {
		return nil
	}
	if engine := d.options.Engine; engine != nil && !slices.Equal(own, d.own) {
		d.own = slices.Clone(own)
		d.ignores = engine.Ignores(own) && wholeDays(engine.Bounds(fieldDormantDays))
	}
	if d.options.Engine != nil && !d.ignores {
		return nil
	}
	c := d.last
	return &c
}

func wholeDays(bounds []float64, ok bool) bool {
	for _, b := range bounds {
		if b != math.Trunc(b) {
			return false
		}
	}
	return ok
}

// ObserveCalm is the pipeline's: see there.
func (d *Detector) ObserveCalm(ctx context.Context, e *connector.Event, known any) (bool, error) {
	if c, ok := known.(*calm); !ok || calmOf(&e.Activity) != *c {
		return false, nil
	}
	if d.baselines == nil {
		return true, nil
	}
	d.signals = d.baselines.Observe(&e.Activity, d.signals[:0])
	if len(d.signals) == 0 {
		return true, nil
	}
	return true, d.combine(ctx, &e.Activity, d.signals)
}
