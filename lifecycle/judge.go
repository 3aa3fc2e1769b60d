package lifecycle

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"remit"
)

// Store is what a judge reads and writes: parts of [remit.InventoryReader],
// [remit.ActivityReader], [remit.FindingStore] and [remit.ResponseStore].
type Store interface {
	Systems(ctx context.Context) ([]remit.System, error)
	Identities(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Identity, string, error)
	Credentials(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Credential, string, error)
	Relations(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Relation, string, error)
	Resources(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Resource, string, error)

	Presences(ctx context.Context, f remit.ActivityFilter, page remit.PageRequest) ([]remit.Presence, string, error)
	Lineage(ctx context.Context, f remit.ActivityFilter, page remit.PageRequest) ([]remit.Lineage, string, error)

	Findings(ctx context.Context, f remit.FindingFilter, page remit.PageRequest) ([]remit.Finding, string, error)
	PutFindings(ctx context.Context, now time.Time, findings []remit.Finding) (remit.FindingChanges, error)
	ResolveFindings(ctx context.Context, scope remit.FindingScope, since, now time.Time) (remit.FindingChanges, error)

	Responses(ctx context.Context, f remit.ResponseFilter, page remit.PageRequest) ([]remit.Response, string, error)
}

// People knows who has left.
type People interface {
	// Status tells of a person by a mail address or another name; "" when that
	// is not known.
	Status(name string) remit.OwnerStatus
}

// Judge keeps the findings on lifecycles and offboarding current. It is safe for
// concurrent use.
type Judge struct {
	config *Config
	store  Store

	// People settles which humans have left; nil knows nobody.
	People People

	// Now is the clock; nil is [time.Now].
	Now func() time.Time

	// Log is told what could not be judged by the clock; nil is silent.
	Log *slog.Logger

	// judging is held while records are read and what they tell is written: of
	// two judgements the one that read first would otherwise write what is no
	// longer so. One of a whole system lets others in between its pages, and
	// wholes keeps two of those apart.
	judging, wholes sync.Mutex

	mu     sync.Mutex
	agenda agenda
	whole  map[remit.ID]time.Time // when a system was judged as a whole
	live   map[remit.ID]time.Time // until when a system's inventory is known to be current
	sleeps time.Time              // until when Run sleeps; zero while it does not
	wake   chan struct{}
}

// NewJudge makes a judge that judges by a configuration.
func NewJudge(c *Config, store Store) *Judge {
	return &Judge{
		config: c, store: store, agenda: agenda{},
		whole: map[remit.ID]time.Time{}, live: map[remit.ID]time.Time{}, wake: make(chan struct{}, 1),
	}
}

const (
	// every is how often a whole system is judged again: uses change without
	// any change to the inventory.
	every = time.Hour

	// pageSize is how many records are in memory at once.
	pageSize = 1000

	// chunk is how many IDs one question names; databases limit them.
	chunk = 500

	// maxTouched is how many changed records are judged one by one.
	maxTouched = 20_000
)

func (j *Judge) now() time.Time {
	if j.Now != nil {
		return j.Now().UTC()
	}
	return time.Now().UTC()
}

// EvaluateSystem judges everything in a system that was just read, or is being
// watched. The policies are to be evaluated before: offboarding builds on what
// they found. [remit.NotFound] when the system is unknown.
func (j *Judge) EvaluateSystem(ctx context.Context, system remit.ID) error {
	j.current(system)
	return j.system(ctx, system)
}

// EvaluateSubjects judges what a change concerns: the touched records, removed
// ones too, and the credentials of touched identities. It is to be called after
// the policies were evaluated on the same.
func (j *Judge) EvaluateSubjects(ctx context.Context, system remit.ID, touched []remit.ID) error {
	j.current(system)
	if len(touched) > maxTouched {
		return j.system(ctx, system)
	}
	r, err := j.start(ctx, system, &j.judging)
	if err != nil {
		return err
	}
	defer r.end()
	var credentials, identities []remit.ID
	for _, id := range touched {
		switch id.Kind() {
		case remit.KindCredential:
			credentials = append(credentials, id)
		case remit.KindIdentity:
			identities = append(identities, id)
		}
	}
	for some := range slices.Chunk(identities, chunk) {
		if err := r.credentials(ctx, remit.Filter{System: system, Identities: some}); err != nil {
			return err
		}
		if err := r.offboard(ctx, some); err != nil {
			return err
		}
	}
	return r.some(ctx, credentials)
}

// current notes that a system's inventory is up to date now.
func (j *Judge) current(system remit.ID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.live[system] = j.now()
}

// system judges everything in a system.
func (j *Judge) system(ctx context.Context, system remit.ID) error {
	r, err := j.start(ctx, system, &j.wholes)
	if err != nil {
		return err
	}
	defer r.end()
	r.everything = true
	j.mu.Lock()
	j.agenda.forget(system)
	delete(j.whole, system) // until it is done
	j.mu.Unlock()
	if err := r.credentials(ctx, remit.Filter{System: system}); err != nil {
		return err
	}
	if err := r.leavers(ctx); err != nil {
		return err
	}
	if err := r.resolve(ctx, FindingPolicies(), nil); err != nil {
		return err
	}
	j.mu.Lock()
	j.whole[system] = r.now
	j.mu.Unlock()
	return nil
}

// Run judges by the clock until ctx ends: each credential when its standing
// changes, and every system once an hour, for credentials come into use without a
// change to the inventory. Between, it sleeps.
func (j *Judge) Run(ctx context.Context) error {
	const again = time.Minute
	for {
		next, err := j.due(ctx)
		if err != nil {
			if ctx.Err() == nil && j.Log != nil {
				j.Log.Error("lifecycles could not be judged; trying again", "error", err, "pause", again)
			}
			err = j.wait(ctx, again, nil)
		} else {
			err = j.sleep(ctx, next)
		}
		if err != nil {
			return err
		}
	}
}

// gather is how long what is due waits at least, so that what is due within a
// second is judged together.
const gather = time.Second

// sleep waits until then, or until the agenda says.
func (j *Judge) sleep(ctx context.Context, until time.Time) error {
	j.mu.Lock()
	if first := j.agenda.first(); !first.IsZero() {
		until = earlier(until, first)
	}
	j.sleeps = until
	pause := max(min(until.Sub(j.now()), every), gather)
	j.mu.Unlock()
	err := j.wait(ctx, pause, j.wake)
	j.mu.Lock()
	j.sleeps = time.Time{}
	j.mu.Unlock()
	return err
}

// wait pauses until something wakes it; the error is ctx's.
func (j *Judge) wait(ctx context.Context, pause time.Duration, wake <-chan struct{}) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-wake:
	case <-timer.C:
	}
	return nil
}

// due judges what is due and tells when a whole system is again.
func (j *Judge) due(ctx context.Context) (time.Time, error) {
	systems, err := j.store.Systems(ctx)
	if err != nil {
		return time.Time{}, err
	}
	now := j.now()
	next := now.Add(every)
	for _, s := range systems {
		j.mu.Lock()
		ids, whole := j.agenda.take(s.ID, now)
		last, judged := j.whole[s.ID]
		j.mu.Unlock()
		switch {
		case whole, !judged, now.Sub(last) >= every:
			err = j.system(ctx, s.ID)
		case len(ids) > 0:
			if err = j.again(ctx, s.ID, ids); err != nil {
				j.mu.Lock()
				delete(j.whole, s.ID) // they are on the agenda no more
				j.mu.Unlock()
			}
		}
		if err != nil {
			return time.Time{}, err
		}
		j.mu.Lock()
		next = earlier(next, j.whole[s.ID].Add(every))
		j.mu.Unlock()
	}
	return next, nil
}

// again judges single records whose time has come.
func (j *Judge) again(ctx context.Context, system remit.ID, ids []remit.ID) error {
	r, err := j.start(ctx, system, &j.judging)
	if err != nil {
		return err
	}
	defer r.end()
	var credentials, identities []remit.ID
	for _, id := range ids {
		if id.Kind() == remit.KindCredential {
			credentials = append(credentials, id)
		} else {
			identities = append(identities, id)
		}
	}
	for some := range slices.Chunk(identities, chunk) {
		if err := r.offboard(ctx, some); err != nil {
			return err
		}
	}
	return r.some(ctx, credentials)
}

// run is one judgement.
type run struct {
	*gatherer
	judge      *Judge
	everything bool // what is not put will be resolved at the end
	end        func()
}

// start begins a judgement under a lock, which end lets go. The time of a judgement
// is after it has the lock: what it writes must not look older than what a
// judgement wrote that began before.
func (j *Judge) start(ctx context.Context, system remit.ID, lock sync.Locker) (*run, error) {
	lock.Lock()
	j.mu.Lock()
	live := j.live[system]
	j.mu.Unlock()
	g, err := newGatherer(ctx, j.config, j.store, j.People, system, live, j.now())
	if err != nil {
		lock.Unlock()
		return nil, err
	}
	return &run{gatherer: g, judge: j, end: lock.Unlock}, nil
}

// page is the lock under which one page is judged; a judgement of some records
// holds it already.
func (r *run) page() sync.Locker {
	if r.everything {
		return &r.judge.judging
	}
	return unlocked{}
}

// some judges the credentials of these IDs, and resolves what is told of those
// that are gone.
func (r *run) some(ctx context.Context, ids []remit.ID) error {
	if len(r.config.Policies) == 0 {
		return nil // what is left of former ones goes when the whole system is judged
	}
	for some := range slices.Chunk(ids, chunk) {
		if err := r.credentials(ctx, remit.Filter{System: r.system.ID, IDs: some}); err != nil {
			return err
		}
		if err := r.resolve(ctx, credentialPolicies, some); err != nil {
			return err
		}
	}
	return nil
}

// credentials judges the credentials that a filter chooses.
func (r *run) credentials(ctx context.Context, f remit.Filter) error {
	if len(r.config.Policies) == 0 {
		return nil
	}
	return eachPage(ctx, r.store.Credentials, f, byName, r.page(), func(page []remit.Credential) error {
		cases, err := r.cases(ctx, page)
		if err != nil {
			return err
		}
		var put []remit.Finding
		subjects := make([]remit.ID, len(cases))
		for i := range cases {
			k := &cases[i]
			subjects[i] = k.Credential.ID
			s := r.config.Standing(*k, r.now)
			put = append(put, findings(k, &s)...)
			r.note(k.Credential.ID, s.Changes)
		}
		return r.write(ctx, put, credentialPolicies, subjects)
	})
}

// leavers judges every identity that may have to be offboarded, or was.
func (r *run) leavers(ctx context.Context) error {
	if r.config.Offboarding == nil {
		return nil
	}
	judge := func(ids []remit.ID) error {
		for some := range slices.Chunk(ids, chunk) {
			if err := r.offboard(ctx, some); err != nil {
				return err
			}
		}
		return nil
	}
	f := remit.FindingFilter{System: r.system.ID, Policies: slices.Concat(causePolicies, offboardingPolicies), States: standingStates}
	err := eachPage(ctx, r.store.Findings, f, byID, unlocked{}, func(page []remit.Finding) error {
		var ids []remit.ID
		for i := range page {
			if id := page[i].Identity; id != "" {
				ids = append(ids, id)
			} else {
				ids = append(ids, page[i].Subject.ID)
			}
		}
		slices.Sort(ids)
		return judge(slices.Compact(ids))
	})
	if err != nil || r.people == nil || !r.config.Offboarding.has(PersonLeft) {
		return err
	}
	humans := remit.Filter{System: r.system.ID, Types: []string{string(remit.Human)}}
	return pages(ctx, r.store.Identities, humans, func(page []remit.Identity) error {
		var ids []remit.ID
		for i := range page {
			if r.left(&page[i]) {
				ids = append(ids, page[i].ID)
			}
		}
		return judge(ids)
	})
}

// offboard judges whether these identities are to be offboarded.
func (r *run) offboard(ctx context.Context, ids []remit.ID) error {
	if r.config.Offboarding == nil || len(ids) == 0 {
		return nil
	}
	lock := r.page()
	lock.Lock()
	defer lock.Unlock()
	all, err := r.leaversOf(ctx, ids)
	if err != nil {
		return err
	}
	var put []remit.Finding
	for i := range all {
		some, changes := r.config.Offboarding.offboard(&all[i], r.now)
		put = append(put, some...)
		r.note(all[i].Identity.ID, changes)
	}
	return r.write(ctx, put, offboardingPolicies, ids)
}

// write puts findings and resolves those of the same subjects that were not put.
func (r *run) write(ctx context.Context, put []remit.Finding, policies []string, subjects []remit.ID) error {
	if len(put) > 0 {
		if _, err := r.store.PutFindings(ctx, r.now, put); err != nil {
			return err
		}
	}
	for some := range slices.Chunk(subjects, chunk) {
		if err := r.resolve(ctx, policies, some); err != nil {
			return err
		}
	}
	return nil
}

// resolve resolves what these subjects, or with nil all, no longer have. A
// judgement of everything resolves once, at its end.
func (r *run) resolve(ctx context.Context, policies []string, subjects []remit.ID) error {
	if r.everything && subjects != nil {
		return nil
	}
	_, err := r.store.ResolveFindings(ctx, remit.FindingScope{System: r.system.ID, Policies: policies, Subjects: subjects}, r.now, r.now)
	return err
}

// note puts the moment at which a record is to be judged again on the agenda.
func (r *run) note(id remit.ID, at time.Time) {
	j := r.judge
	j.mu.Lock()
	j.agenda.note(r.system.ID, id, at, r.now)
	early := !at.IsZero() && at.Before(j.sleeps)
	j.mu.Unlock()
	if early {
		select {
		case j.wake <- struct{}{}:
		default:
		}
	}
}
