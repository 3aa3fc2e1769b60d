package detect

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"remit"
)

// incident gathers the signals about one identity that come close together.
type incident struct {
	System   remit.ID  `json:"system"`
	Identity remit.ID  `json:"identity"`
	Actor    remit.Ref `json:"actor"`

	// Late says that a newer incident of the identity was known before it: its
	// events stand in an older log that was read after a newer one.
	Late bool `json:"late,omitempty"`

	// Key tells it from other incidents of the identity: the time of the event
	// that began it.
	Key string `json:"key"`

	// Open says that it is worth a finding; it never closes again.
	Open  bool      `json:"open,omitempty"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Signs []sign    `json:"signs"`

	Credentials []string `json:"credentials,omitempty"`
	Addresses   []string `json:"addresses,omitempty"`
	Events      []string `json:"events,omitempty"`
	Count       int64    `json:"count"`

	dirty  bool
	urgent bool // to be announced
}

// sign is one rule's part in an incident.
type sign struct {
	remit.Signal
	Count int64     `json:"count"`
	Last  time.Time `json:"last"`
}

// quiet is how long nothing happens, in event time, before the next signal
// begins another incident.
const quiet = 24 * time.Hour

// The bounds of an incident and of how many are held in memory.
const (
	maxSigns     = 24
	maxNamed     = 512 // bytes of a credential, an address or an event's ID
	maxIncidents = 100_000
)

// weight is what a signal of a severity adds to an incident's score, once a
// rule. Two of low severity do not make a medium one; four do.
func weight(s remit.Severity) int {
	switch s {
	case remit.Critical:
		return 30
	case remit.High:
		return 12
	case remit.Medium:
		return 4
	case remit.Low:
		return 1
	}
	return 0
}

// combine adds signals about one activity to the incident of its identity.
func (d *Detector) combine(ctx context.Context, a *remit.Activity, signals []remit.Signal) error {
	i, err := d.incident(ctx, a, false)
	if err != nil {
		return err
	}
	if !i.Last.IsZero() && i.First.Sub(a.Time) > quiet {
		if i, err = d.incident(ctx, a, true); err != nil {
			return err
		}
	}
	if i.Last.IsZero() || a.Time.Sub(i.Last) > quiet || i.First.Sub(a.Time) > quiet {
		if i.dirty && i.Open {
			d.ended = append(d.ended, i.finding()) // no checkpoint has it yet
		}
		*i = incident{
			System: a.System, Identity: a.Identity, Actor: a.Actor, Late: i.Late,
			Key: a.Time.UTC().Format(time.RFC3339Nano), First: a.Time, dirty: i.dirty,
		}
	}
	before := i.severity()
	for _, s := range signals {
		s.Event = clip(s.Event, maxNamed)
		i.add(s)
	}
	if a.Time.Before(i.First) {
		i.First = a.Time
	}
	if a.Time.After(i.Last) {
		i.Last = a.Time
	}
	i.Count++
	known := len(i.Credentials)
	for _, c := range [...]string{a.Root, a.Credential, a.Minted.Credential} {
		if c != "" {
			i.Credentials = appendNew(i.Credentials, clip(c, maxNamed), remit.MaxSeen)
		}
	}
	if a.Address != "" {
		i.Addresses = appendNew(i.Addresses, clip(a.Address, maxNamed), remit.MaxSeen)
	}
	i.Events = appendNew(i.Events, clip(a.ID, maxNamed), remit.MaxSeen)
	opened := !i.Open
	i.Open = i.Open || i.opens()
	opened = opened && i.Open
	now, more := i.severity(), len(i.Credentials) > known
	worse := (opened || now.Rank() > before.Rank()) && now.Rank() >= remit.Medium.Rank()
	if i.Open && (worse || more && now.Rank() >= remit.High.Rank()) {
		i.urgent, d.urgent = true, true // what it can do by the new credential is cut off the sooner
	}
	if !i.dirty {
		i.dirty = true
		d.changed = append(d.changed, i)
	}
	return nil
}

// incident returns the newest incident of who did a or, when late, the one of
// its past that was seen last.
func (d *Detector) incident(ctx context.Context, a *remit.Activity, late bool) (*incident, error) {
	key := incidentKey(a.Identity, late)
	if i := d.incidents[key]; i != nil {
		return i, nil
	}
	i := &incident{Late: late}
	if d.options.States != nil {
		kept, err := stateOf(ctx, d.options.States, a.System, stateIncident, key)
		if err != nil {
			return nil, err
		}
		if kept != nil {
			if err := json.Unmarshal(kept, i); err != nil {
				return nil, remit.Errorf(remit.Internal, "read incident", "of %s: %w", a.Identity, err)
			}
		}
	}
	d.incidents[key] = i
	return i, nil
}

func incidentKey(identity remit.ID, late bool) string {
	if late {
		return string(identity) + " late"
	}
	return string(identity)
}

func (i *incident) add(s remit.Signal) {
	for n := range i.Signs {
		if known := &i.Signs[n]; known.Rule == s.Rule {
			known.Count++
			if s.Time.After(known.Last) {
				known.Last = s.Time
			}
			if s.Severity.Rank() > known.Severity.Rank() {
				known.Signal = s
			}
			return
		}
	}
	if len(i.Signs) < maxSigns {
		i.Signs = append(i.Signs, sign{Signal: s, Count: 1, Last: s.Time})
		return
	}
	// Many weak signals must not hide a strong one.
	weakest := &i.Signs[0]
	for n := range i.Signs {
		if i.Signs[n].Severity.Rank() < weakest.Severity.Rank() {
			weakest = &i.Signs[n]
		}
	}
	if s.Severity.Rank() > weakest.Severity.Rank() {
		*weakest = sign{Signal: s, Count: 1, Last: s.Time}
	}
}

// score adds up what the rules weigh.
func (i *incident) score() (score int, worst remit.Severity) {
	worst = remit.Info
	for n := range i.Signs {
		score += weight(i.Signs[n].Severity)
		if i.Signs[n].Severity.Rank() > worst.Rank() {
			worst = i.Signs[n].Severity
		}
	}
	return score, worst
}

// severity is that of the worst signal, raised by one where several weak ones
// add up to it.
func (i *incident) severity() remit.Severity {
	score, worst := i.score()
	switch {
	case worst.Rank() < remit.High.Rank() && worst.Rank() >= remit.Medium.Rank() && score >= weight(remit.High):
		return remit.High
	case worst.Rank() < remit.Medium.Rank() && score >= weight(remit.Medium):
		return remit.Medium
	}
	return worst
}

// opens says whether the incident is worth a finding: one signal is, or the weak
// ones add up. What merely is the first of its kind for an identity is worth
// none by itself.
func (i *incident) opens() bool {
	for n := range i.Signs {
		s := &i.Signs[n]
		least := remit.Low
		if strings.HasPrefix(s.Rule, "baseline-") {
			least = remit.Medium
		}
		if s.Severity.Rank() >= least.Rank() {
			return true
		}
	}
	score, _ := i.score()
	return score >= weight(remit.Medium)
}

// write appends the incident's state and finding to a checkpoint.
func (i *incident) write(c *remit.Checkpoint) error {
	data, err := json.Marshal(i)
	if err != nil {
		return remit.Errorf(remit.Internal, "write incident", "of %s: %w", i.Identity, err)
	}
	c.States = append(c.States, remit.State{System: i.System, Kind: stateIncident, Key: incidentKey(i.Identity, i.Late), Data: data})
	if i.Open {
		c.Findings = append(c.Findings, i.finding())
	}
	return nil
}

// finding tells the incident.
func (i *incident) finding() remit.Finding {
	signs := slices.Clone(i.Signs)
	slices.SortStableFunc(signs, func(a, b sign) int {
		return cmp.Or(b.Severity.Rank()-a.Severity.Rank(), a.Time.Compare(b.Time))
	})
	worst := signs[0]
	f := remit.Finding{
		ID: remit.FindingID("incident "+i.Key, i.Identity), Policy: worst.Rule, Title: worst.Title, Severity: i.severity(),
		System: i.System, Subject: remit.Subject{Record: remit.KindIdentity, Ref: i.Actor, ID: i.Identity}, Identity: i.Identity,
		Message: worst.Words, Remedy: worst.Remedy,
		First: i.First, Last: i.Last,
		Credentials: slices.Clone(i.Credentials), Addresses: slices.Clone(i.Addresses), Events: slices.Clone(i.Events), EventCount: i.Count,
		Risks: []string{}, Controls: []string{}, Evidence: []remit.Fact{},
	}
	var words []string
	for n := range signs {
		s := &signs[n]
		text := strings.TrimSuffix(s.Words, ".")
		if s.Count > 1 {
			text += ", " + strconv.FormatInt(s.Count, 10) + " times until " + s.Last.UTC().Format("2006-01-02 15:04:05") + " UTC"
		}
		if n < 8 {
			words = append(words, text+".")
		}
		f.Evidence = append(f.Evidence, remit.Fact{Name: string(s.Severity) + " " + s.Rule, Value: s.Title})
		for _, fact := range s.Evidence {
			if n == 0 && len(f.Evidence) < 40 {
				f.Evidence = append(f.Evidence, fact)
			}
		}
		for _, r := range s.Risks {
			f.Risks = appendNew(f.Risks, r, 32)
		}
		for _, c := range s.Controls {
			f.Controls = appendNew(f.Controls, c, 32)
		}
	}
	f.Words = strings.Join(words, " ")
	if len(f.Credentials) > 0 {
		f.Evidence = append(f.Evidence, remit.Fact{Name: "first credential of the lineage", Value: f.Credentials[0]})
	}
	if len(f.Addresses) > 0 {
		f.Evidence = append(f.Evidence, remit.Fact{Name: "addresses", Value: strings.Join(f.Addresses[:min(len(f.Addresses), 8)], ", ")})
	}
	return f
}
