package lifecycle

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"remit"
)

// standingStates are the states of a finding that is not resolved.
var standingStates = []remit.FindingState{remit.Open, remit.Acknowledged, remit.Suppressed}

// gatherer finds out what is known around the records of one system, at one moment.
type gatherer struct {
	config *Config
	store  Store
	people People
	system remit.System
	now    time.Time

	read   time.Time  // until when the inventory shows uses; zero when it cannot be relied upon
	logged *time.Time // until when the log does; nil before it was asked for

	// confirmed says that the findings on all records and the plans for them are
	// read, not only of those that break a limit: another process has judged, and
	// has seen more.
	confirmed bool
}

// newGatherer makes one. live is until when the system's inventory is known to be
// current, beside what the system itself says.
func newGatherer(ctx context.Context, c *Config, store Store, people People, system remit.ID, live, now time.Time) (*gatherer, error) {
	all, err := store.Systems(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(s remit.System) bool { return s.ID == system })
	if i < 0 {
		return nil, remit.Errorf(remit.NotFound, "judge lifecycles", "no system %s", system)
	}
	g := &gatherer{config: c, store: store, people: people, system: all[i], now: now}
	// Where a part could not be read, the uses that it would have shown are
	// unknown and not absent.
	if len(g.system.Gaps) == 0 {
		g.read = later(g.system.Observed, live)
	}
	return g, nil
}

// logHorizons are how far back it is looked for the newest event of a system.
var logHorizons = []time.Duration{time.Hour, 6 * time.Hour, day, 7 * day, 30 * day, 90 * day, 365 * day}

// logKnown is until when the log of the system is known to have come in: the time
// of an event, of the newest or one not much older. A log that stopped says nothing
// about what happened since.
func (g *gatherer) logKnown(ctx context.Context) (time.Time, error) {
	if g.logged != nil {
		return *g.logged, nil
	}
	var newest time.Time
	for _, back := range logHorizons {
		some, _, err := g.store.Presences(ctx, remit.ActivityFilter{System: g.system.ID, Since: g.now.Add(-back)}, remit.PageRequest{Limit: 1})
		if err != nil {
			return time.Time{}, err
		}
		if len(some) > 0 {
			newest = some[0].Last
			break
		}
	}
	g.logged = &newest
	return newest, nil
}

// used adds what one source tells of uses to what is known.
func (u *Use) used(last, until time.Time) {
	if last.IsZero() {
		return
	}
	u.Last, u.Until = later(u.Last, last), later(u.Until, until)
}

// lastUse is the last use that the inventory shows. A system that tells the day
// only, at its beginning, may mean its end.
func lastUse(c *remit.Credential) time.Time {
	t := c.LastUsed.UTC()
	if !t.IsZero() && t.Equal(t.Truncate(day)) {
		t = t.Add(day - time.Second)
	}
	return t
}

// cases finds out what is known around credentials of the system.
func (g *gatherer) cases(ctx context.Context, credentials []remit.Credential) ([]Case, error) {
	identities, err := g.authenticated(ctx, credentials)
	if err != nil {
		return nil, err
	}
	uses, err := g.uses(ctx, credentials)
	if err != nil {
		return nil, err
	}
	owners, err := g.owners(ctx, credentials)
	if err != nil {
		return nil, err
	}
	cases := make([]Case, len(credentials))
	var ask []remit.ID
	for i, c := range credentials {
		cases[i] = Case{Credential: c, System: g.system.Name, Identity: identities[c.Identity], Holders: owners[c.Location], Use: uses[c.Native]}
		cases[i].Use.used(lastUse(&c), g.read)
		if g.confirmed {
			ask = append(ask, c.ID)
		} else if s := g.config.Standing(cases[i], g.now); broken(&s) {
			ask = append(ask, c.ID)
		}
	}
	told, confirmed, err := g.told(ctx, ask)
	if err != nil {
		return nil, err
	}
	plans, err := g.underWay(ctx, ask)
	if err != nil {
		return nil, err
	}
	for i := range cases {
		id := cases[i].Credential.ID
		cases[i].Told, cases[i].Response = told[id], plans[id]
		if at := confirmed[id]; g.confirmed && !at.IsZero() {
			cases[i].Use.Until = later(cases[i].Use.Until, at)
		}
	}
	return cases, nil
}

// authenticated are the identities that credentials authenticate.
func (g *gatherer) authenticated(ctx context.Context, credentials []remit.Credential) (map[remit.ID]*remit.Identity, error) {
	var ids []remit.ID
	for i := range credentials {
		if credentials[i].Identity != "" {
			ids = append(ids, credentials[i].Identity)
		}
	}
	return g.identities(ctx, ids)
}

// owners are who answers for those who hold credentials of which it is not known
// whom they authenticate, by the place where the credentials lie.
func (g *gatherer) owners(ctx context.Context, credentials []remit.Credential) (map[remit.ID][]remit.Owner, error) {
	var places []remit.ID
	for i := range credentials {
		if c := &credentials[i]; c.Identity == "" && c.Location != "" {
			places = append(places, c.Location)
		}
	}
	holders := map[remit.ID][]remit.ID{} // of each place
	slices.Sort(places)
	for some := range slices.Chunk(slices.Compact(places), chunk) {
		f := remit.Filter{To: some, Types: []string{string(remit.Holds)}}
		err := pages(ctx, g.store.Relations, f, func(page []remit.Relation) error {
			for _, r := range page {
				if have := holders[r.To]; len(have) < maxHolders {
					holders[r.To] = append(have, r.From)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	identities, err := g.identities(ctx, slices.Concat(slices.Collect(maps.Values(holders))...))
	out := map[remit.ID][]remit.Owner{}
	for place, ids := range holders {
		for _, id := range ids {
			if i := identities[id]; i != nil && len(out[place]) == 0 {
				out[place] = i.Owners
			}
		}
	}
	return out, err
}

// maxHolders is how many holders of one place are looked at for an owner.
const maxHolders = 16

func (g *gatherer) identities(ctx context.Context, ids []remit.ID) (map[remit.ID]*remit.Identity, error) {
	out := map[remit.ID]*remit.Identity{}
	slices.Sort(ids)
	for some := range slices.Chunk(slices.Compact(ids), chunk) {
		err := pages(ctx, g.store.Identities, remit.Filter{IDs: some}, func(page []remit.Identity) error {
			for i := range page {
				out[page[i].ID] = &page[i]
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// uses are what the log shows of credentials, by their native IDs.
func (g *gatherer) uses(ctx context.Context, credentials []remit.Credential) (map[string]Use, error) {
	var natives []string
	for i := range credentials {
		if credentials[i].Native != "" {
			natives = append(natives, credentials[i].Native)
		}
	}
	out := map[string]Use{}
	slices.Sort(natives)
	for some := range slices.Chunk(slices.Compact(natives), chunk) {
		until, err := g.logKnown(ctx)
		if err != nil {
			return nil, err
		}
		f := remit.ActivityFilter{System: g.system.ID, Credentials: some}
		err = remit.Each(ctx, f, g.store.Lineage, func(l remit.Lineage) error {
			u := out[l.Credential]
			u.used(l.Last, until)
			out[l.Credential] = u
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// told finds what findings say of credentials already: since when a limit is told
// to be broken, and when it was last confirmed that one is not used.
func (g *gatherer) told(ctx context.Context, ids []remit.ID) (told map[remit.ID]map[string]Told, confirmed map[remit.ID]time.Time, err error) {
	told, confirmed = map[remit.ID]map[string]Told{}, map[remit.ID]time.Time{}
	for some := range slices.Chunk(ids, chunk) {
		f := remit.FindingFilter{System: g.system.ID, Policies: credentialPolicies, Subjects: some, States: standingStates}
		err := eachPage(ctx, g.store.Findings, f, byID, unlocked{}, func(page []remit.Finding) error {
			for i := range page {
				f := &page[i]
				if told[f.Subject.ID] == nil {
					told[f.Subject.ID] = map[string]Told{}
				}
				told[f.Subject.ID][f.Policy] = tell(f, g.now)
				if f.Policy == PolicyIdle {
					confirmed[f.Subject.ID] = f.Last
				}
			}
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return told, confirmed, nil
}

// underWay are the plans that go on, or wait to be approved, by their subject.
func (g *gatherer) underWay(ctx context.Context, ids []remit.ID) (map[remit.ID]*remit.Response, error) {
	out := map[remit.ID]*remit.Response{}
	for some := range slices.Chunk(ids, chunk) {
		f := remit.ResponseFilter{System: g.system.ID, Subjects: some, States: []remit.ResponseState{
			remit.ResponseProposed, remit.ResponseApproved, remit.ResponseRunning, remit.ResponseUndoing,
		}}
		err := eachPage(ctx, g.store.Responses, f, newest, unlocked{}, func(page []remit.Response) error {
			for i := range page {
				if out[page[i].Subject.ID] == nil { // the newest first
					out[page[i].Subject.ID] = &page[i]
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// left says whether a human is one who has left.
func (g *gatherer) left(i *remit.Identity) bool {
	if g.people == nil || i.Type != remit.Human {
		return false
	}
	for _, name := range []string{i.Name, i.Principal, i.DisplayName} {
		if name != "" && g.people.Status(name) == remit.OwnerLeft {
			return true
		}
	}
	return false
}

// leaversOf finds out what is known around identities that may have to be
// offboarded. Groups, nodes and workloads are not among them: a workload is
// stopped by whoever runs it, and what it runs as is an identity of its own.
func (g *gatherer) leaversOf(ctx context.Context, ids []remit.ID) ([]Leaver, error) {
	causes, begun, err := g.causes(ctx, ids)
	if err != nil {
		return nil, err
	}
	var out []Leaver
	at := map[remit.ID]int{}
	var there []remit.ID
	err = pages(ctx, g.store.Identities, remit.Filter{System: g.system.ID, IDs: ids}, func(page []remit.Identity) error {
		for _, i := range page {
			l := Leaver{Identity: i, Causes: causes[i.ID], Begun: begun[i.ID], PersonLeft: g.left(&i)}
			if i.Type == remit.Group || i.Type == remit.Workload || len(l.Causes) == 0 && l.Begun == nil && !l.PersonLeft {
				continue
			}
			l.Disabled = i.Status == remit.Disabled
			l.Use.used(i.LastActive, g.read)
			at[i.ID] = len(out)
			there = append(there, i.ID)
			out = append(out, l)
		}
		return nil
	})
	if err != nil || len(there) == 0 {
		return nil, err
	}
	err = pages(ctx, g.store.Relations, remit.Filter{To: there, Types: []string{string(remit.RunsAs)}}, func(page []remit.Relation) error {
		for _, r := range page {
			out[at[r.To]].Runs = true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = pages(ctx, g.store.Credentials, remit.Filter{Identities: there}, func(page []remit.Credential) error {
		uses, err := g.uses(ctx, page)
		if err != nil {
			return err
		}
		for i := range page {
			l := &out[at[page[i].Identity]]
			l.Use.used(lastUse(&page[i]), g.read)
			l.Use.used(uses[page[i].Native].Last, uses[page[i].Native].Until)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := g.presences(ctx, there, out, at); err != nil {
		return nil, err
	}
	if err := g.disabled(ctx, there, out, at); err != nil {
		return nil, err
	}
	return out, g.namespaces(ctx, out)
}

// causes are the findings that identities are to be offboarded for, and those with
// which that has begun.
func (g *gatherer) causes(ctx context.Context, ids []remit.ID) (map[remit.ID]map[Cause]bool, map[remit.ID]*remit.Finding, error) {
	causes, begun := map[remit.ID]map[Cause]bool{}, map[remit.ID]*remit.Finding{}
	f := remit.FindingFilter{System: g.system.ID, Policies: append([]string{PolicyOffboardDisable}, causePolicies...), Identities: ids, States: standingStates}
	err := eachPage(ctx, g.store.Findings, f, byID, unlocked{}, func(page []remit.Finding) error {
		for i := range page {
			f := &page[i]
			id := f.Identity
			if id == "" {
				id = f.Subject.ID
			}
			cause, ok := causeOf[f.Policy]
			switch {
			case f.Policy == PolicyOffboardDisable:
				begun[id] = f
			case !ok, f.State == remit.Suppressed && f.SuppressedUntil.After(g.now):
				// Somebody said that this is as it should be.
			case cause == WorkloadGone && f.Severity == remit.Info:
				// It was only just made: its workload may still come.
			default:
				if causes[id] == nil {
					causes[id] = map[Cause]bool{}
				}
				causes[id][cause] = true
			}
		}
		return nil
	})
	return causes, begun, err
}

// presences adds what the log shows of identities.
func (g *gatherer) presences(ctx context.Context, ids []remit.ID, out []Leaver, at map[remit.ID]int) error {
	until, err := g.logKnown(ctx)
	if err != nil {
		return err
	}
	f := remit.ActivityFilter{System: g.system.ID, Identities: ids}
	return remit.Each(ctx, f, g.store.Presences, func(p remit.Presence) error {
		if i, ok := at[p.Identity]; ok {
			out[i].Use.used(p.Last, until)
		}
		return nil
	})
}

// disabled notes which identities a plan has disabled: the newest that says so, as
// long as it was not undone.
func (g *gatherer) disabled(ctx context.Context, ids []remit.ID, out []Leaver, at map[remit.ID]int) error {
	f := remit.ResponseFilter{System: g.system.ID, Subjects: ids, States: []remit.ResponseState{remit.ResponseRunning, remit.ResponseVerified}}
	return eachPage(ctx, g.store.Responses, f, newest, unlocked{}, func(page []remit.Response) error {
		for _, r := range page {
			if i, ok := at[r.Subject.ID]; ok && (r.Action == remit.Disable || r.Action == remit.Contain) {
				out[i].Disabled = true
			}
		}
		return nil
	})
}

// namespaces notes whose namespace is gone. A system that has none says nothing.
func (g *gatherer) namespaces(ctx context.Context, all []Leaver) error {
	var names []string
	for i := range all {
		if l := &all[i]; l.Identity.Status == remit.Absent && l.Identity.Namespace != "" {
			names = append(names, l.Identity.Namespace)
		}
	}
	slices.Sort(names)
	if names = slices.Compact(names); len(names) == 0 || len(g.system.Gaps) > 0 {
		return nil
	}
	there, any := map[string]bool{}, false
	for _, f := range []remit.Filter{{System: g.system.ID, Types: []string{"namespace"}, Names: names}, {System: g.system.ID, Types: []string{"namespace"}}} {
		some, _, err := g.store.Resources(ctx, f, remit.PageRequest{Limit: pageSize})
		if err != nil {
			return err
		}
		for _, r := range some {
			any = true
			there[r.Name] = true
		}
		if any {
			break
		}
	}
	for i := range all {
		l := &all[i]
		l.NamespaceOut = any && l.Identity.Status == remit.Absent && l.Identity.Namespace != "" && !there[l.Identity.Namespace]
	}
	return nil
}

// lister is one of the store's lists.
type lister[F, T any] func(context.Context, F, remit.PageRequest) ([]T, string, error)

// The orders that stay the same while records come and go. What lies together in a
// system has neighbouring names, and the store keeps it together: by ID, which is a
// hash, each record of a page would be read from another place of the disk.
var (
	byName = remit.PageRequest{Limit: pageSize, Sort: "name"}
	byID   = remit.PageRequest{Limit: pageSize, Sort: "id"}
)

// newest is the order of responses, their only one.
var newest = remit.PageRequest{Limit: pageSize}

// pages reads a list of the inventory page by page.
func pages[T any](ctx context.Context, list lister[remit.Filter, T], f remit.Filter, each func([]T) error) error {
	return eachPage(ctx, list, f, byName, unlocked{}, each)
}

// eachPage reads a list page by page, and each page under a lock.
func eachPage[F, T any](ctx context.Context, list lister[F, T], f F, page remit.PageRequest, lock sync.Locker, each func([]T) error) error {
	one := func() error {
		lock.Lock()
		defer lock.Unlock()
		some, next, err := list(ctx, f, page)
		page.After = next
		if err != nil || len(some) == 0 {
			return err
		}
		return each(some)
	}
	for {
		if err := one(); err != nil {
			return err
		}
		if page.After == "" {
			return nil
		}
	}
}

// unlocked is a lock that keeps nobody out.
type unlocked struct{}

func (unlocked) Lock()   {}
func (unlocked) Unlock() {}
