package leak

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"remit"
)

// Policy is the rule's id of the findings.
const Policy = "leaked-credential"

// leakKind is the kind of state in which leaks are kept.
const leakKind = "leak"

// keepFor is for how long a leak is remembered that no valid credential matches.
const keepFor = 400 * 24 * time.Hour

// Store is what leaks need of the store.
type Store interface {
	Systems(ctx context.Context) ([]remit.System, error)
	Identities(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Identity, string, error)
	Credentials(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Credential, string, error)
	Lineage(ctx context.Context, f remit.ActivityFilter, page remit.PageRequest) ([]remit.Lineage, string, error)
	PutFindings(ctx context.Context, now time.Time, findings []remit.Finding) (remit.FindingChanges, error)
	ResolveFindings(ctx context.Context, scope remit.FindingScope, since, now time.Time) (remit.FindingChanges, error)
	States(ctx context.Context, system remit.ID, kind, key string) ([]remit.State, error)
	Checkpoint(ctx context.Context, c remit.Checkpoint) error
}

// Desk takes reports in, and keeps the findings equal to what the leaks that were
// reported expose now: a leak that nothing matched is a finding as soon as the
// credential is in the inventory, and no more when the credential has ended. It is
// safe for concurrent use, also by several processes.
type Desk struct {
	Store    Store
	Digester *Digester
	Log      *slog.Logger // nil logs nothing

	// Observe, if not nil, is told of every leak that is new, and whether a
	// credential matched it.
	Observe func(scanner string, matched bool)

	// Announced, if not nil, is told of the findings when some are new.
	Announced func(findings []remit.ID)

	Now func() time.Time // nil is time.Now

	mu sync.Mutex
}

func (d *Desk) now() time.Time {
	if d.Now != nil {
		return d.Now().UTC()
	}
	return time.Now().UTC()
}

// Result is what became of a leak.
type Result struct {
	Leak
	Known    bool       // it had been reported before
	Findings []remit.ID // on the valid credentials that it exposes
	Ended    int        // matched credentials that have ended
}

// Matched says whether a credential is known by the leak.
func (r *Result) Matched() bool { return len(r.Findings) > 0 || r.Ended > 0 }

// Take keeps leaks and makes findings of those that expose a credential. When it
// returns nil, both are on disk. Taking a leak again does no harm. The results
// are in the order of the leaks.
func (d *Desk) Take(ctx context.Context, leaks []Leak) ([]Result, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before, err := d.leaks(ctx)
	if err != nil {
		return nil, err
	}
	known := make(map[string]bool, len(before))
	for i := range before {
		known[before[i].key()] = true
	}
	results := make([]Result, len(leaks))
	keys := make([]string, len(leaks))
	var states []remit.State
	fresh := map[string]bool{}
	for i := range leaks {
		keys[i] = leaks[i].key()
		results[i] = Result{Leak: leaks[i], Known: known[keys[i]]}
		if known[keys[i]] || fresh[keys[i]] {
			continue
		}
		fresh[keys[i]] = true
		data, err := json.Marshal(leaks[i])
		if err != nil {
			return nil, remit.Errorf(remit.Internal, "take leaks", "%w", err)
		}
		states = append(states, remit.State{Kind: leakKind, Key: keys[i], Data: data})
	}
	for some := range slices.Chunk(states, 1000) {
		if err := d.Store.Checkpoint(ctx, remit.Checkpoint{Now: d.now(), States: some}); err != nil {
			return nil, err
		}
	}
	exposed, err := d.settle(ctx)
	if err != nil {
		return nil, err
	}
	for i := range results {
		x := exposed[keys[i]]
		results[i].Findings, results[i].Ended = x.findings, x.ended
		if fresh[keys[i]] {
			delete(fresh, keys[i])
			d.tell(&results[i])
		}
	}
	return results, nil
}

// tell logs a new leak: one that matches nothing must not be lost silently.
func (d *Desk) tell(r *Result) {
	if d.Observe != nil {
		d.Observe(r.Scanner, r.Matched())
	}
	if d.Log == nil {
		return
	}
	say := d.Log.Info
	if len(r.Findings) == 0 {
		say = d.Log.Warn
	}
	say("leaked secret reported", "scanner", r.Scanner, "rule", r.Rule, "place", r.Place.String(),
		"findings", len(r.Findings), "ended", r.Ended, "redacted", r.Redacted)
}

// Keep settles the findings until ctx ends, at once and then every so often.
func (d *Desk) Keep(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := d.Settle(ctx); err != nil && ctx.Err() == nil && d.Log != nil {
			d.Log.Error("leaks could not be compared with the inventory", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Settle makes the findings equal to what the reported leaks expose now.
func (d *Desk) Settle(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := d.settle(ctx)
	return err
}

// exposure is what a leak exposes.
type exposure struct {
	findings []remit.ID
	ended    int
}

func (d *Desk) settle(ctx context.Context) (map[string]exposure, error) {
	// Leaks are read after this time, so what another process reports meanwhile
	// is put later than it, and not resolved below.
	began := d.now()
	leaks, err := d.leaks(ctx)
	if err != nil {
		return nil, err
	}
	systems, err := d.Store.Systems(ctx)
	if err != nil {
		return nil, err
	}
	m, err := newMatcher(ctx, d.Store, leaks)
	if err != nil {
		return nil, err
	}
	out := make(map[string]exposure, len(leaks))
	cases := map[remit.ID]*exposedCase{}
	var order []remit.ID
	old := remit.Checkpoint{Now: began}
	for i := range leaks {
		l := &leaks[i]
		var x exposure
		for _, e := range m.exposed(l) {
			if !e.valid(began) {
				x.ended++
				continue
			}
			id := remit.FindingID(Policy, e.subject.ID)
			if !slices.Contains(x.findings, id) {
				x.findings = append(x.findings, id)
			}
			c := cases[id]
			if c == nil {
				c = &exposedCase{exposed: e}
				cases[id], order = c, append(order, id)
			}
			c.add(l, e)
		}
		if len(x.findings) == 0 && began.Sub(l.Seen) > keepFor {
			old.States = append(old.States, remit.State{Kind: leakKind, Key: l.key()})
		}
		out[l.key()] = x
	}
	findings := make([]remit.Finding, 0, len(order))
	for _, id := range order {
		findings = append(findings, cases[id].finding(id))
	}
	if len(findings) > 0 {
		changes, err := d.Store.PutFindings(ctx, began, findings)
		if err != nil {
			return nil, err
		}
		if changes.Opened > 0 && d.Announced != nil {
			d.Announced(order)
		}
	}
	for _, s := range systems {
		if _, err := d.Store.ResolveFindings(ctx, remit.FindingScope{System: s.ID, Policies: []string{Policy}}, began, d.now()); err != nil {
			return nil, err
		}
	}
	if len(old.States) > 0 {
		if err := d.Store.Checkpoint(ctx, old); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// leaks reads all leaks, the oldest first.
func (d *Desk) leaks(ctx context.Context) ([]Leak, error) {
	states, err := d.Store.States(ctx, "", leakKind, "")
	if err != nil {
		return nil, err
	}
	out := make([]Leak, len(states))
	for i, s := range states {
		if err := json.Unmarshal(s.Data, &out[i]); err != nil {
			return nil, remit.Errorf(remit.Internal, "read leaks", "a stored leak is damaged: %w", err)
		}
	}
	slices.SortStableFunc(out, func(a, b Leak) int { return a.Seen.Compare(b.Seen) })
	return out, nil
}

// exposedCase gathers all leaks of one credential.
type exposedCase struct {
	exposed exposed
	places  []string
	more    int
	by      []string
	rules   []string
	urls    []string
	natives []string
	first   time.Time
}

// maxPlaces is how many places a finding names.
const maxPlaces = 20

func (c *exposedCase) add(l *Leak, e exposed) {
	if c.first.IsZero() || l.Seen.Before(c.first) {
		c.first = l.Seen
	}
	place := l.Place.String()
	switch {
	case slices.Contains(c.places, place):
	case len(c.places) < maxPlaces:
		c.places = append(c.places, place)
		if l.Place.URL != "" {
			c.urls = append(c.urls, l.Place.URL)
		}
	default:
		c.more++
	}
	if rule := l.Scanner + " " + l.Rule; !slices.Contains(c.rules, rule) && len(c.rules) < maxPlaces {
		c.rules = append(c.rules, rule)
	}
	if !slices.Contains(c.by, e.by) {
		c.by = append(c.by, e.by)
	}
	if n := e.native; n != "" && !slices.Contains(c.natives, n) {
		c.natives = append(c.natives, n)
	}
}

func (c *exposedCase) finding(id remit.ID) remit.Finding {
	e := &c.exposed
	message := e.subject.String() + " was found in " + c.places[0]
	if others := len(c.places) - 1 + c.more; others > 0 {
		message += " and in " + itoa(others) + " more"
		if others == 1 {
			message += " place"
		} else {
			message += " places"
		}
	}
	f := remit.Finding{
		ID: id, Policy: Policy, Title: "The credential has leaked", Severity: remit.Critical, System: e.system,
		Subject: e.subject, Identity: e.identity, Message: message,
		Risks:    []string{"NHI2", "T1552"},
		Controls: []string{"NIST SP 800-53 IA-5(7)", "NIST SP 800-53 IR-4", "SOC 2 CC7.4", "ISO/IEC 27001:2022 A.5.17", "PCI DSS 4.0.1 8.6.2"},
		Remedy:   "Rotate or revoke the credential now, and see what was done with it since: removing it from where it was found does not help.",
		// By what the log writes, so that a response knows what to refuse.
		Credentials: c.natives, First: c.first,
	}
	for _, p := range c.places {
		f.Evidence = append(f.Evidence, remit.Fact{Name: "found in", Value: p})
	}
	if c.more > 0 {
		f.Evidence = append(f.Evidence, remit.Fact{Name: "found in", Value: itoa(c.more) + " more places"})
	}
	for _, u := range c.urls {
		f.Evidence = append(f.Evidence, remit.Fact{Name: "address", Value: u})
	}
	f.Evidence = append(f.Evidence,
		remit.Fact{Name: "reported by", Value: strings.Join(c.rules, ", ")},
		remit.Fact{Name: "matched by", Value: strings.Join(c.by, ", ")})
	return f
}
