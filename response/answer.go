package response

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"remit"
)

// Responder answers findings by rules. It is safe for concurrent use.
type Responder struct {
	responses *Responses
	rules     []Rule
	log       *slog.Logger

	mu    sync.Mutex
	busy  map[remit.ID]*later // subjects that are being answered about
	tried map[remit.ID]string // by finding, what could not be done about it

	settled map[remit.ID]settled // by finding
}

// NewResponder returns what answers findings by rules, of which the first that is
// about a finding counts. The rules were checked.
func NewResponder(s *Responses, rules []Rule, log *slog.Logger) *Responder {
	return &Responder{responses: s, rules: rules, log: log, busy: map[remit.ID]*later{}, tried: map[remit.ID]string{}, settled: map[remit.ID]settled{}}
}

// superseded is how old a proposal is at least before another takes its place,
// because the attacker has more credentials by now.
const superseded = time.Minute

// maxFailures is how many plans about one finding may fail before it is left to
// people.
const maxFailures = 3

// maxRemembered bounds what is remembered of findings that nothing could be done
// about, or about which nothing is left to do.
const maxRemembered = 100_000

// atOnce is how many findings are answered at the same time: one system that is slow
// to answer must not keep the others from being looked after.
const atOnce = 8

// answered are the states of findings that are answered: not what somebody has
// suppressed.
var answered = []remit.FindingState{remit.Open, remit.Acknowledged}

// Look answers every open finding that a rule is about.
func (a *Responder) Look(ctx context.Context) error {
	systems, err := a.systems(ctx)
	if err != nil {
		return err
	}
	counts, err := a.responses.o.Store.FindingCounts(ctx, "")
	if err != nil {
		return err
	}
	var work errgroup.Group
	work.SetLimit(atOnce)
	defer work.Wait()
	for i := range a.rules {
		rule := &a.rules[i]
		f := remit.FindingFilter{MinimumSeverity: rule.Severity, States: answered}
		for _, c := range counts {
			if len(rule.Policies) > 0 && c.Facet == "policy" && rule.names(c.Value) {
				f.Policies = append(f.Policies, c.Value)
			}
		}
		if len(rule.Policies) > 0 && len(f.Policies) == 0 {
			continue
		}
		page := remit.PageRequest{Limit: 500}
		for {
			some, next, err := a.responses.o.Store.Findings(ctx, f, page)
			if err != nil {
				return err
			}
			for n := range some {
				if a.rule(&some[n], systems) == rule && !a.isSettled(&some[n]) {
					work.Go(func() error {
						a.answer(ctx, rule, &some[n])
						return nil
					})
				}
			}
			if page.After = next; next == "" {
				break
			}
		}
	}
	return ctx.Err()
}

// Answer answers findings that are new or worse.
func (a *Responder) Answer(ctx context.Context, findings []remit.Finding) error {
	systems, err := a.systems(ctx)
	if err != nil {
		return err
	}
	// What a person has said of a finding stands in the store alone.
	f := remit.FindingFilter{States: answered}
	for i := range findings {
		f.IDs = append(f.IDs, findings[i].ID)
	}
	if len(f.IDs) == 0 {
		return nil
	}
	if findings, _, err = a.responses.o.Store.Findings(ctx, f, remit.PageRequest{Limit: 1000}); err != nil {
		return err
	}
	var work errgroup.Group
	work.SetLimit(atOnce)
	defer work.Wait()
	for i := range findings {
		if rule := a.rule(&findings[i], systems); rule != nil {
			work.Go(func() error {
				a.answer(ctx, rule, &findings[i])
				return nil
			})
		}
	}
	return ctx.Err()
}

// settled is a finding about which there was nothing left to do.
type settled struct {
	text  string // what was looked at
	until time.Time
}

// unchangedFor is how long that is believed of a finding that has not changed.
const unchangedFor = time.Minute

func settledText(f *remit.Finding) string {
	return fmt.Sprint(f.Severity, f.State, f.Reopened, f.EventCount, len(f.Credentials))
}

func (a *Responder) isSettled(f *remit.Finding) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	s, known := a.settled[f.ID]
	return known && s.text == settledText(f) && a.responses.o.Now().Before(s.until)
}

func (a *Responder) settle(f *remit.Finding) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.settled) >= maxRemembered {
		clear(a.settled)
	}
	a.settled[f.ID] = settled{settledText(f), a.responses.o.Now().Add(unchangedFor)}
}

func (a *Responder) systems(ctx context.Context) (map[remit.ID]string, error) {
	all, err := a.responses.o.Store.Systems(ctx)
	names := make(map[remit.ID]string, len(all))
	for _, s := range all {
		names[s.ID] = s.Name
	}
	return names, err
}

func (a *Responder) rule(f *remit.Finding, systems map[remit.ID]string) *Rule {
	for i := range a.rules {
		if a.rules[i].about(f, systems[f.System]) {
			return &a.rules[i]
		}
	}
	return nil
}

// later is what came about a subject while it was being answered about.
type later struct {
	rule    *Rule
	finding *remit.Finding
}

// answer does what a rule says about a finding, or has whoever is answering about
// the same subject do it after that.
func (a *Responder) answer(ctx context.Context, rule *Rule, f *remit.Finding) {
	if a.responses.o.Mode(f.System) == remit.ModeObserve {
		return
	}
	subject := f.Subject.ID
	a.mu.Lock()
	if next := a.busy[subject]; next != nil {
		next.rule, next.finding = rule, f
		a.mu.Unlock()
		return
	}
	next := new(later)
	a.busy[subject] = next
	a.mu.Unlock()
	for f != nil {
		a.once(ctx, rule, f)
		a.mu.Lock()
		if rule, f = next.rule, next.finding; f == nil {
			delete(a.busy, subject)
		}
		next.rule, next.finding = nil, nil
		a.mu.Unlock()
	}
}

// once says in the log what became of a finding: one about which nothing can be
// done must not keep the others from being answered. The same about the same is
// said once.
func (a *Responder) once(ctx context.Context, rule *Rule, f *remit.Finding) {
	r, err := a.responses.answer(ctx, rule, f)
	log := a.log.With("finding", f.ID, "subject", f.Subject.String(), "rule", rule.Name)
	if r.ID != "" {
		log = log.With("plan", r.ID, "state", r.State)
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		if a.first(f.ID, err.Error()) {
			level := slog.LevelError
			if remit.KindOf(err) == remit.Unsupported {
				level = slog.LevelWarn // there is nothing to repair, as for a copy of a token elsewhere
			}
			log.Log(ctx, level, "nothing could be done about a finding", "error", err)
		}
	case r.ID != "":
		log.Warn("answered a finding")
	default:
		a.settle(f)
	}
}

// first says whether that was not said about a finding just before.
func (a *Responder) first(finding remit.ID, text string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tried[finding] == text {
		return false
	}
	if len(a.tried) >= maxRemembered {
		clear(a.tried)
	}
	a.tried[finding] = text
	return true
}

// past is what was done about a finding before.
type past struct {
	decided        bool           // a person wanted it undone, or not done
	waiting        remit.Response // a proposal
	active         bool           // a plan that is in effect, or about to be
	own            remit.Response // the newest such that the rule made
	failed         int
	stolen, forged map[string]bool // what is held by plans that are active, or would be by the one that waits
	grades         map[remit.Grade]bool
}

// before reads what was done about a finding by an action, and by who asks for it.
func (s *Responses) before(ctx context.Context, f *remit.Finding, action remit.Action, asker string) (p past, err error) {
	p.stolen, p.forged, p.grades = map[string]bool{}, map[string]bool{}, map[remit.Grade]bool{}
	err = s.since(ctx, remit.ResponseFilter{Subjects: []remit.ID{f.Subject.ID}}, time.Time{}, func(r *remit.Response) {
		ours := r.Action == action && r.Cause == string(f.ID) && r.Opening == f.Reopened
		holds := false
		switch r.State {
		case remit.ResponseProposed:
			if holds = ours; ours && p.waiting.ID == "" {
				p.waiting = *r
			}
		case remit.ResponseApproved, remit.ResponseRunning, remit.ResponseVerified:
			// Whoever asked for it. What was contained is so until it is undone; what was
			// rotated is due again one day.
			holds = r.Action == action && (ours || action == remit.Contain || r.State != remit.ResponseVerified)
			p.active = p.active || holds
			if ours && r.AskedBy == asker && p.own.ID == "" {
				p.own = *r
			}
		case remit.ResponseRejected, remit.ResponseUndoing, remit.ResponseUndone:
			p.decided = p.decided || ours
		case remit.ResponseFailed:
			if !ours {
				break
			}
			p.failed++
			p.decided = p.decided || slices.ContainsFunc(r.History, func(e remit.ResponseEvent) bool { return e.State == remit.ResponseUndoing })
		}
		if !holds {
			return
		}
		for _, c := range r.Stolen {
			p.stolen[c] = true
		}
		for _, c := range r.Forged {
			p.forged[c] = true
		}
		for _, step := range r.Steps {
			p.grades[step.Grade] = true
		}
	})
	return p, err
}

// missing is what of t no plan holds as it should be.
func (p *past) missing(t taken) taken {
	out := t
	out.stolen, out.forged = nil, nil
	for _, c := range t.stolen {
		if !p.stolen[c] && !p.forged[c] {
			out.stolen = append(out.stolen, c)
		}
	}
	for _, c := range t.forged {
		if !p.forged[c] {
			out.forged = append(out.forged, c)
		}
	}
	return out
}

// answer makes a plan about a finding and, when the rule says so, carries it out.
// The response is the zero one when nothing is left to do.
func (s *Responses) answer(ctx context.Context, rule *Rule, f *remit.Finding) (remit.Response, error) {
	var none remit.Response
	p, err := s.before(ctx, f, rule.Action, rule.asker())
	if err != nil || p.decided || p.failed >= maxFailures {
		return none, err
	}
	q, err := s.about(ctx, f)
	if err != nil {
		return none, err
	}
	q.Action, q.Grades, q.AskedBy = rule.Action, rule.Grades, rule.asker()
	if p.active || p.waiting.ID != "" {
		if rule.Action != remit.Contain {
			return none, nil
		}
		t, err := s.take(ctx, q, s.o.Now())
		if more := p.missing(t); err != nil || len(more.stolen)+len(more.forged) == 0 {
			return none, err
		}
		if p.active && !p.grades[remit.FreezeCredentials] && !p.grades[remit.RefuseCredentials] {
			return none, nil // the whole identity is cut off
		}
		if p.waiting.ID != "" && s.o.Now().Sub(p.waiting.Made) < superseded {
			return none, nil
		}
	}
	if p.active {
		q.held = &p
		// Where the cluster does not ask Remit just now, what was found is frozen.
		if q.Grades = []remit.Grade{remit.FreezeCredentials}; p.grades[remit.RefuseCredentials] {
			q.Grades = append(q.Grades, remit.RefuseCredentials)
		}
	}
	r, err := s.Plan(ctx, q)
	if err != nil {
		return none, err
	}
	if p.waiting.ID != "" {
		if _, err := s.move(ctx, p.waiting, remit.ResponseExpired, "remit", fmt.Sprintf("more credentials are known by now: plan %s takes its place", r.ID)); err != nil {
			return none, err
		}
	}
	if p.own.ID != "" && rule.Unapproved && s.o.Mode(r.System) == remit.ModeEnforce {
		r, err = s.extend(ctx, rule, p.own, r)
	} else {
		r, err = s.proposeBy(ctx, rule, r)
	}
	if err != nil || r.State != remit.ResponseApproved {
		return r, err
	}
	return s.CarryOut(ctx, r.ID)
}

// extend adds the steps of another plan to one that is in effect, so that one undo
// gives all of it back. While that one is being carried out, nothing is added: what
// is missing is found again.
func (s *Responses) extend(ctx context.Context, rule *Rule, r, by remit.Response) (remit.Response, error) {
	if r.State != remit.ResponseVerified {
		return remit.Response{}, nil
	}
	for _, why := range by.Why {
		if !slices.Contains(r.Why, why) {
			r.Why = append(r.Why, why)
		}
	}
	r.Steps = append(r.Steps, by.Steps...)
	r.Stolen, r.Forged = append(r.Stolen, by.Stolen...), append(r.Forged, by.Forged...)
	r.Due = time.Time{}
	return s.move(ctx, r, remit.ResponseApproved, rule.asker(), fmt.Sprintf("more credentials are known by now: %d", len(by.Stolen)+len(by.Forged)))
}

// proposeBy stores a plan of a rule, approved where the rule needs nobody for it.
func (s *Responses) proposeBy(ctx context.Context, rule *Rule, r remit.Response) (remit.Response, error) {
	if !rule.Unapproved || s.o.Mode(r.System) != remit.ModeEnforce {
		return s.move(ctx, r, remit.ResponseProposed, r.AskedBy, "")
	}
	s.limiting.Lock() // until it is written, it does not count
	defer s.limiting.Unlock()
	within, err := s.mayTouch(ctx, rule, r.Subject.ID, r.Made)
	if err != nil {
		return r, err
	}
	if !within {
		return s.move(ctx, r, remit.ResponseProposed, r.AskedBy, "the rule has touched as many identities within the hour as it may: somebody has to approve")
	}
	return s.move(ctx, r, remit.ResponseApproved, r.AskedBy, "the rule asks for no approval")
}

// about makes a request of a finding: about its subject, and about the credentials
// that it names.
func (s *Responses) about(ctx context.Context, f *remit.Finding) (Request, error) {
	q := Request{
		System: f.System, Subject: f.Subject, Suspects: f.Credentials, Cause: string(f.ID), Opening: f.Reopened,
		Identity: f.Subject.Ref, IdentityID: f.Subject.ID,
	}
	if f.Subject.Record == remit.KindIdentity {
		return q, nil
	}
	q.Identity, q.IdentityID = remit.Ref{}, f.Identity
	if f.Subject.Record == remit.KindCredential {
		some, _, err := s.o.Store.Credentials(ctx, remit.Filter{IDs: []remit.ID{f.Subject.ID}}, remit.PageRequest{Limit: 1})
		if err != nil {
			return q, err
		}
		if len(some) > 0 {
			q.Credential, q.Identity = some[0].Native, some[0].Holder
		}
	}
	if q.IdentityID != "" && q.Identity == (remit.Ref{}) {
		some, _, err := s.o.Store.Identities(ctx, remit.Filter{IDs: []remit.ID{q.IdentityID}}, remit.PageRequest{Limit: 1})
		if err != nil {
			return q, err
		}
		if len(some) > 0 {
			q.Identity = some[0].Ref
		}
	}
	return q, nil
}
