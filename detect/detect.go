// Package detect looks at attributed activity: Sigma rules (package sigma) say
// what is wrong in any system, baselines (package baseline) what is unusual for
// one identity. Their signals about one identity are combined into one finding
// an incident.
package detect

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"remit"
	"remit/connector"
	"remit/detect/baseline"
	"remit/detect/sigma"
)

// States is what a detector reads of what it has kept before.
type States interface {
	States(ctx context.Context, system remit.ID, kind, key string) ([]remit.State, error)
}

// Options are the parts of a detector.
type Options struct {
	Engine *sigma.Engine // compiled with the fields [Attributed]; nil: no rules
	States States        // nil: nothing was kept, as when rules are tried on a file

	// Baseline tunes the baselines; Off leaves them out. Its Load is the
	// detector's own.
	Baseline    baseline.Options
	BaselineOff bool
}

// The kinds of states that a detector keeps.
const (
	stateBaseline    = "baseline"
	stateCorrelation = "correlation"
	stateIncident    = "incident"
)

// Detector looks at events in their order. It is not safe for concurrent use.
type Detector struct {
	options    Options
	manners    map[*sigma.Rule]*manner
	engines    map[remit.ID]*sigma.Engine // one a system: correlations do not cross systems
	correlated map[remit.ID]uint64        // a hash of the correlations that were last written
	baselines  *baseline.Baselines
	stored     map[string]struct{}  // the baselines that the store has
	incidents  map[string]*incident // by incidentKey
	changed    []*incident
	ended      []remit.Finding // of incidents that others have followed since the last checkpoint
	urgent     bool

	fields  attribution
	event   sigma.Event
	found   []sigma.Match
	signals []remit.Signal

	// Of the event that was observed last, for Calm.
	last    calm
	matched bool
	own     []string // fields, and whether the rules ignore them
	ignores bool
}

// New returns a detector that goes on from what it has kept.
func New(ctx context.Context, o Options) (*Detector, error) {
	d := &Detector{
		options: o, manners: make(map[*sigma.Rule]*manner), engines: make(map[remit.ID]*sigma.Engine),
		incidents: make(map[string]*incident), correlated: make(map[remit.ID]uint64),
	}
	if o.Engine != nil {
		for _, r := range o.Engine.Rules() {
			d.manners[r] = mannerOf(r)
		}
	}
	if o.BaselineOff {
		return d, nil
	}
	b := o.Baseline
	d.stored = make(map[string]struct{})
	if o.States != nil {
		b.Load = func(key string) ([]byte, error) {
			if _, ok := d.stored[key]; !ok {
				return nil, nil
			}
			return stateOf(ctx, o.States, "", stateBaseline, key)
		}
	}
	d.baselines = baseline.New(b)
	if o.States == nil {
		return d, nil
	}
	all, err := o.States.States(ctx, "", stateBaseline, "")
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		d.stored[s.Key] = struct{}{}
		if s.Key == "clock" {
			if err := d.baselines.Load(s.Key, s.Data); err != nil {
				return nil, err
			}
		}
	}
	return d, nil
}

func stateOf(ctx context.Context, from States, system remit.ID, kind, key string) ([]byte, error) {
	some, err := from.States(ctx, system, kind, key)
	if err != nil || len(some) == 0 {
		return nil, err
	}
	return some[0].Data, nil
}

// Match evaluates the rules on one event and nothing else: no baselines, no
// incidents. any asks every rule whatever its logsource.
func (d *Detector) Match(ctx context.Context, e *connector.Event, any bool) ([]remit.Signal, error) {
	d.signals = d.signals[:0]
	err := d.match(ctx, e, any)
	return d.signals, err
}

func (d *Detector) match(ctx context.Context, e *connector.Event, any bool) error {
	if d.options.Engine == nil {
		return nil
	}
	engine, err := d.engine(ctx, e.System)
	if err != nil {
		return err
	}
	ev := &d.event
	ev.Views = ev.Views[:0]
	for _, v := range e.Views {
		ev.Views = append(ev.Views, sigma.View{Product: v.Product, Service: v.Service, JSON: v.JSON})
	}
	ev.Attributed = d.fields.fill(e)
	ev.Time, ev.ID, ev.Identity, ev.Any = e.Time, e.ID, string(e.Identity), any
	d.found = engine.Match(ev, d.found[:0])
	d.matched = engine.Matched()
	for _, m := range d.found {
		d.signals = append(d.signals, d.signal(engine, m, e))
	}
	return nil
}

// signal tells a match.
func (d *Detector) signal(engine *sigma.Engine, m sigma.Match, e *connector.Event) remit.Signal {
	how := d.manners[m.Rule]
	s := remit.Signal{
		Rule: how.id, Title: m.Rule.Title, Severity: how.severity, Risks: how.risks, Controls: how.controls, Remedy: how.remedy,
		Time: e.Time, Event: e.ID,
	}
	s.Words = say(how.words, func(field string) (string, bool) { return fieldText(e, field) })
	for _, f := range engine.Explain(m, &d.event) {
		f.Value = clip(f.Value, 300)
		s.Evidence = append(s.Evidence, f)
	}
	if c := m.Correlated; c != nil {
		s.Words += " (" + strconv.FormatInt(c.Count, 10) + " from " + c.First.UTC().Format("2006-01-02 15:04:05") + " to " + c.Last.UTC().Format("15:04:05") + " UTC)"
	}
	return s
}

func (d *Detector) engine(ctx context.Context, system remit.ID) (*sigma.Engine, error) {
	if e := d.engines[system]; e != nil {
		return e, nil
	}
	e := d.options.Engine.Clone()
	if d.options.States != nil {
		kept, err := stateOf(ctx, d.options.States, system, stateCorrelation, "rules")
		if err != nil {
			return nil, err
		}
		if kept != nil {
			// A state of other rules is of no use, and the windows fill again.
			_ = e.Restore(kept)
		}
	}
	d.engines[system] = e
	return e, nil
}

// Observe looks at one attributed event; see the pipeline's Detector.
func (d *Detector) Observe(ctx context.Context, e *connector.Event) error {
	d.signals = d.signals[:0]
	if err := d.match(ctx, e, false); err != nil {
		return err
	}
	d.last = calmOf(&e.Activity)
	if d.baselines != nil {
		d.signals = d.baselines.Observe(&e.Activity, d.signals)
	}
	if len(d.signals) == 0 {
		return nil
	}
	return d.combine(ctx, &e.Activity, d.signals)
}

// Deployed says that a new version of a workload of an identity was rolled out.
func (d *Detector) Deployed(identity remit.ID, at time.Time) {
	if d.baselines != nil {
		d.baselines.Deployed(identity, at)
	}
}

// Urgent says whether a finding of at least medium severity is new or worse
// since the last checkpoint or announcement.
func (d *Detector) Urgent() bool { return d.urgent }

// Announce appends the findings that are urgent; see the pipeline's Detector.
func (d *Detector) Announce(c *remit.Checkpoint) {
	for _, i := range d.changed {
		if i.urgent && i.Open {
			c.Findings = append(c.Findings, i.finding())
		}
		i.urgent = false
	}
	d.urgent = false
}

// Changed appends findings and states; see the pipeline's Detector.
func (d *Detector) Changed(c *remit.Checkpoint) error {
	if d.baselines != nil {
		err := d.baselines.Changed(func(key string, state []byte) error {
			d.stored[key] = struct{}{}
			c.States = append(c.States, remit.State{Kind: stateBaseline, Key: key, Data: slices.Clone(state)})
			return nil
		})
		if err != nil {
			return err
		}
	}
	systems := make([]remit.ID, 0, len(d.engines))
	for id := range d.engines {
		systems = append(systems, id)
	}
	slices.Sort(systems)
	for _, id := range systems {
		data, err := d.engines[id].Snapshot()
		if err != nil {
			return err
		}
		if sum := xxhash.Sum64(data); sum != d.correlated[id] {
			d.correlated[id] = sum
			c.States = append(c.States, remit.State{System: id, Kind: stateCorrelation, Key: "rules", Data: data})
		}
	}
	c.Findings, d.ended = append(c.Findings, d.ended...), nil
	for _, i := range d.changed {
		i.dirty, i.urgent = false, false
		if err := i.write(c); err != nil {
			return err
		}
	}
	d.changed, d.urgent = d.changed[:0], false
	if len(d.incidents) > maxIncidents {
		clear(d.incidents)
	}
	return nil
}

// fieldText is the value of a field for words: an attributed one, or one of the
// raw event by its path.
func fieldText(e *connector.Event, field string) (string, bool) {
	a := &e.Activity
	some := func(s string) (string, bool) { return s, s != "" }
	switch field {
	case "remit.principal":
		return some(a.Principal)
	case "remit.identity.name":
		return some(a.Actor.Name)
	case "remit.identity.namespace":
		return some(a.Actor.Namespace)
	case "remit.identity.kind":
		return some(a.Actor.Kind)
	case "remit.identity.type":
		return some(string(a.Type))
	case "remit.identity.dormant_days":
		return strconv.Itoa(int(a.Dormant.Hours() / 24)), true
	case "remit.credential":
		return some(a.Credential)
	case "remit.credential.root":
		return some(a.Root)
	case "remit.credential.type":
		return some(string(a.CredentialType))
	case "remit.credential.depth":
		return strconv.Itoa(a.Depth), true
	case "remit.address":
		return some(a.Address)
	case "remit.user_agent":
		return some(a.UserAgent)
	case "remit.mint.for.kind":
		return some(a.Minted.For.Kind)
	case "remit.mint.for.namespace":
		return some(a.Minted.For.Namespace)
	case "remit.mint.for.name":
		return some(a.Minted.For.Name)
	case "remit.mint.lifetime":
		return strconv.Itoa(int(a.Minted.Lifetime.Seconds())), true
	case "remit.chain.first":
		if n := len(a.Chain); n > 0 {
			return some(a.Chain[n-1].Name)
		}
		return "", false
	case "remit.as":
		return some(a.As.Name)
	case "remit.action":
		return some(a.Action)
	case "remit.resource.kind":
		return some(a.Resource.Kind)
	case "remit.resource.namespace":
		return some(a.Resource.Namespace)
	case "remit.resource.name":
		return some(a.Resource.Name)
	case "remit.outcome":
		return some(string(a.Outcome))
	case "remit.code":
		return strconv.Itoa(a.Code), true
	}
	for _, view := range e.Views {
		if view.JSON == nil {
			continue
		}
		if v := view.JSON.Get(strings.Split(field, ".")...); v != nil {
			if text, err := v.StringBytes(); err == nil {
				return some(string(text))
			}
			return string(v.MarshalTo(nil)), true
		}
	}
	return "", false
}
