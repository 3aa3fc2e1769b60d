package policy

import (
	"context"
	"errors"
	"time"

	"cel.dev/cel-go/common/types"

	"remit"
)

// Evaluator runs a set of policies over an inventory and keeps what they find.
// It is safe for concurrent use, as far as the inventory and the findings are.
type Evaluator struct {
	set       *Set
	inventory Inventory
	findings  Findings

	// Now is the clock; nil is the real one. One run has one time: it is
	// `now` in expressions and the Last of every finding it confirms.
	Now func() time.Time

	// PageSize is how many subjects are in memory at once, with what lies
	// around them; 0 means 500. At most 1000.
	PageSize int
}

// NewEvaluator makes an evaluator. findings may be nil: then nothing is kept,
// and only [Evaluator.Check] is of use.
func NewEvaluator(set *Set, inventory Inventory, findings Findings) *Evaluator {
	return &Evaluator{set: set, inventory: inventory, findings: findings}
}

// Report is what one run did.
type Report struct {
	System      remit.ID             `json:"system"`
	Started     time.Time            `json:"started"`
	Took        time.Duration        `json:"took"`
	Subjects    int                  `json:"subjects"`    // records looked at
	Evaluations int64                `json:"evaluations"` // policies times subjects
	Found       int                  `json:"found"`       // findings put
	Changes     remit.FindingChanges `json:"changes"`

	// Errors are evaluations that failed: that policy says nothing about
	// that subject, and resolves nothing in this run. Only the first
	// hundred are kept; ErrorCount counts all.
	Errors     []EvaluationError `json:"errors,omitempty"`
	ErrorCount int               `json:"error_count,omitempty"`
}

// EvaluationError is a policy that failed on one subject.
type EvaluationError struct {
	Policy  string        `json:"policy"`
	Subject remit.Subject `json:"subject"`
	Message string        `json:"message"`
}

const (
	maxErrors = 100
	putBatch  = 500

	// maxTouched is how many changed records are looked at one by one;
	// beyond that a whole evaluation is cheaper.
	maxTouched = 20_000
)

// Evaluate runs all policies over a whole system, and resolves the findings
// that are no longer so. It reads page by page; memory does not grow with the
// system. [remit.NotFound] when the system is unknown.
func (e *Evaluator) Evaluate(ctx context.Context, system remit.ID) (Report, error) {
	r, err := e.start(ctx, "evaluate policies", system)
	if err != nil {
		return Report{}, err
	}
	if err := r.everything(ctx); err != nil {
		return r.report, r.fail(err)
	}
	return r.finish(ctx, nil)
}

// EvaluateSubjects runs all policies over what a change concerns: the touched
// records (of any kind, removed ones too) and the identities, credentials and
// grants that see them. It resolves findings on exactly those. A change to a
// group looks at its first thousand members; a whole evaluation now and then
// sees the rest.
func (e *Evaluator) EvaluateSubjects(ctx context.Context, system remit.ID, touched []remit.ID) (Report, error) {
	if len(touched) > maxTouched {
		return e.Evaluate(ctx, system)
	}
	r, err := e.start(ctx, "evaluate policies", system)
	if err != nil {
		return Report{}, err
	}
	if len(touched) == 0 {
		r.report.Took = 0
		return r.report, nil
	}
	reached, err := r.loader.concern(ctx, system, touched)
	if err != nil {
		return r.report, r.fail(err)
	}
	if err := r.some(ctx, reached); err != nil {
		return r.report, r.fail(err)
	}
	return r.finish(ctx, reached.everything())
}

// Check runs all policies over a system and hands every finding to the caller
// instead of keeping it.
func (e *Evaluator) Check(ctx context.Context, system remit.ID, each func(remit.Finding) error) (Report, error) {
	r, err := e.start(ctx, "check policies", system)
	if err != nil {
		return Report{}, err
	}
	r.sink = func(_ context.Context, all []remit.Finding) error {
		for _, f := range all {
			if err := each(f); err != nil {
				return err
			}
		}
		return nil
	}
	if err := r.everything(ctx); err != nil {
		return r.report, r.fail(err)
	}
	if err := r.flush(ctx); err != nil {
		return r.report, r.fail(err)
	}
	r.report.Took = time.Since(r.began)
	return r.report, nil
}

// run is one evaluation.
type run struct {
	*Evaluator
	op     string
	system *remit.System
	loader *loader
	frame  frame
	now    time.Time
	began  time.Time
	sink   func(context.Context, []remit.Finding) error

	policies map[remit.RecordKind][]*Policy
	failed   map[*Policy]bool
	batch    []remit.Finding
	report   Report
}

func (e *Evaluator) start(ctx context.Context, op string, system remit.ID) (*run, error) {
	r := &run{
		Evaluator: e, op: op, loader: newLoader(e.inventory), began: time.Now(),
		policies: map[remit.RecordKind][]*Policy{}, failed: map[*Policy]bool{},
	}
	all, err := e.inventory.Systems(ctx)
	if err != nil {
		return nil, r.fail(err)
	}
	for i := range all {
		if all[i].ID == system {
			r.system = &all[i]
		}
	}
	if r.system == nil {
		return nil, remit.Errorf(remit.NotFound, op, "no system %s", system)
	}
	r.now = r.began.UTC()
	if e.Now != nil {
		r.now = e.Now().UTC()
	}
	r.frame = frame{
		now:    types.Timestamp{Time: r.now},
		system: &systemObject{class: systemClass, it: systemData{r.system}},
	}
	for _, p := range e.set.policies {
		if p.Runs() && anyGlob(scopeSystems(p.Scope), r.system.Name) {
			r.policies[p.Subject] = append(r.policies[p.Subject], p)
		}
	}
	r.sink = func(ctx context.Context, all []remit.Finding) error {
		changes, err := e.findings.PutFindings(ctx, r.now, all)
		r.count(changes)
		return err
	}
	r.report.System, r.report.Started = system, r.now
	return r, nil
}

func scopeSystems(s *Scope) []string {
	if s == nil {
		return nil
	}
	return s.Systems
}

func (r *run) fail(err error) error {
	var known *remit.Error
	if errors.As(err, &known) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return remit.Errorf(remit.Internal, r.op, "%w", err)
}

func (r *run) count(c remit.FindingChanges) {
	r.report.Changes.Opened += c.Opened
	r.report.Changes.Reopened += c.Reopened
	r.report.Changes.Confirmed += c.Confirmed
	r.report.Changes.Resolved += c.Resolved
}

func (r *run) size() int {
	if r.PageSize <= 0 || r.PageSize > 1000 {
		return 500
	}
	return r.PageSize
}

// everything evaluates the whole system.
func (r *run) everything(ctx context.Context) error {
	f := remit.Filter{System: r.system.ID}
	for _, part := range []func(context.Context, remit.Filter) error{r.identities, r.credentials, r.grants} {
		if err := part(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) identities(ctx context.Context, f remit.Filter) error {
	return pages(ctx, r.inventory.Identities, f, r.size(), func(page []remit.Identity) error {
		return r.page(ctx, remit.KindIdentity, identitySubjects(page))
	})
}

func (r *run) credentials(ctx context.Context, f remit.Filter) error {
	return pages(ctx, r.inventory.Credentials, f, r.size(), func(page []remit.Credential) error {
		return r.page(ctx, remit.KindCredential, credentialSubjects(page))
	})
}

func (r *run) grants(ctx context.Context, f remit.Filter) error {
	return pages(ctx, r.inventory.Grants, f, r.size(), func(page []remit.Grant) error {
		return r.page(ctx, remit.KindGrant, grantSubjects(page))
	})
}

// some evaluates the given records.
func (r *run) some(ctx context.Context, c *concerned) error {
	for _, part := range []struct {
		ids  []remit.ID
		eval func(context.Context, remit.Filter) error
	}{{c.identities.all, r.identities}, {c.credentials.all, r.credentials}, {c.grants.all, r.grants}} {
		err := chunks(part.ids, func(some []remit.ID) error {
			return part.eval(ctx, remit.Filter{System: r.system.ID, IDs: some})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// page evaluates the subjects of one page, in two steps: first what the
// conditions need is loaded and they are run; then, for the few that match,
// what their texts need.
func (r *run) page(ctx context.Context, kind remit.RecordKind, all []*subject) error {
	policies := r.policies[kind]
	r.report.Subjects += len(all)
	r.report.Evaluations += int64(len(all)) * int64(len(policies))
	for _, s := range all {
		for _, p := range policies {
			if p.mayMatch(s, r.system) {
				s.candidates = append(s.candidates, p)
				s.want |= p.program.matchNeeds
			}
		}
	}
	if err := r.loader.load(ctx, kind, all); err != nil {
		return err
	}
	for i, s := range all {
		if i%64 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		r.frame.subject = s.object
		for _, p := range s.candidates {
			ok, err := p.program.matches(&r.frame)
			if err != nil {
				r.wrong(p, s, err)
			} else if ok {
				s.matched = append(s.matched, p)
				s.want |= p.program.textNeeds
			}
		}
	}
	if err := r.loader.load(ctx, kind, all); err != nil {
		return err
	}
	for _, s := range all {
		if len(s.matched) > 0 {
			r.write(s)
		}
		if len(r.batch) >= putBatch {
			if err := r.flush(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// mayMatch decides what needs no interpreter: the scope and the guards.
func (p *Policy) mayMatch(s *subject, system *remit.System) bool {
	for _, g := range p.program.guards {
		if !g(s.object) {
			return false
		}
	}
	if p.Scope == nil {
		return true
	}
	x := scoped{system: system, record: s.record}
	switch o := s.object.(type) {
	case *identityObject:
		x.identity = o.it.Ref.String()
	case *credentialObject:
		x.identity = o.it.Holder.String()
	case *grantObject:
		x.identity, x.scope = o.it.Subject.String(), o.it.Scope
	}
	return p.Scope.holds(x)
}

// write makes the findings of a subject: of each family only the worst.
func (r *run) write(s *subject) {
	r.frame.subject = s.object
	var results []result
	for _, p := range s.matched {
		severity, err := p.grade(&r.frame)
		if err != nil {
			r.wrong(p, s, err)
			continue
		}
		this := result{policy: p, severity: severity}
		merged := false
		for i := range results {
			other := &results[i]
			if p.Family == "" || other.policy.Family != p.Family {
				continue
			}
			merged = true
			if worse(this, *other) {
				this.also = append(other.also, other.policy)
				*other = this
			} else {
				other.also = append(other.also, p)
			}
			break
		}
		if !merged {
			results = append(results, this)
		}
	}
	for _, res := range results {
		f, err := res.policy.write(&r.frame, res, r.now)
		if err != nil {
			r.wrong(res.policy, s, err)
			continue
		}
		r.report.Found++
		r.batch = append(r.batch, f)
	}
}

// worse decides within a family: by severity, and at the same severity by the
// order of the documents.
func worse(a, b result) bool {
	if a.severity.Rank() != b.severity.Rank() {
		return a.severity.Rank() > b.severity.Rank()
	}
	return a.policy.order < b.policy.order
}

func (r *run) wrong(p *Policy, s *subject, err error) {
	r.failed[p] = true
	r.report.ErrorCount++
	if len(r.report.Errors) < maxErrors {
		about, _ := subjectOf(s.object)
		r.report.Errors = append(r.report.Errors, EvaluationError{Policy: p.ID, Subject: about, Message: err.Error()})
	}
}

func (r *run) flush(ctx context.Context) error {
	if len(r.batch) == 0 {
		return nil
	}
	err := r.sink(ctx, r.batch)
	r.batch = nil // the sink may keep it
	return err
}

// finish stores the rest and resolves what was not found again. A policy that
// failed somewhere resolves nothing, for it may have missed something; one that
// is disabled, or does not look at this system, resolves everything.
func (r *run) finish(ctx context.Context, subjects []remit.ID) (Report, error) {
	if err := r.flush(ctx); err != nil {
		return r.report, r.fail(err)
	}
	scope := remit.FindingScope{System: r.system.ID, Subjects: subjects}
	for _, p := range r.set.policies {
		if !r.failed[p] && (p.program != nil || p.Disabled) {
			scope.Policies = append(scope.Policies, p.ID)
		}
	}
	resolve := func() error {
		changes, err := r.findings.ResolveFindings(ctx, scope, r.now, r.now)
		r.count(changes)
		return err
	}
	var err error
	if len(scope.Policies) > 0 {
		if subjects == nil {
			err = resolve()
		} else {
			err = chunks(subjects, func(some []remit.ID) error {
				scope.Subjects = some
				return resolve()
			})
		}
	}
	if err != nil {
		return r.report, r.fail(err)
	}
	r.report.Took = time.Since(r.began)
	return r.report, nil
}
