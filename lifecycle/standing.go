package lifecycle

import (
	"fmt"
	"math"
	"time"

	"remit"
)

// The demands, in the words of a policy.
const (
	demandRotation = "rotate_every"
	demandAge      = "max_age"
	demandIdle     = "max_idle"
	demandExpiry   = "expiry_required"
	demandLifetime = "max_lifetime"
	demandEnd      = "expires" // the end that the system itself sets
)

// The steps of a life.
const (
	stepNotice  = "notice"
	stepRotate  = "rotate"
	stepDisable = "disable"
	stepExpire  = "expire"
	stepRevoke  = "revoke"
)

// Case is a credential and what is known around it.
type Case struct {
	Credential remit.Credential
	System     string          // the name of its system
	Identity   *remit.Identity // whom it authenticates; nil when that is not known

	// Holders are owners of those who hold it, for where whom it authenticates
	// is not known: somebody else's key has its owners here.
	Holders []remit.Owner

	Use Use

	// Told is since when the owner could know that a limit is broken, by the
	// policy of the finding that says so: no grace begins before.
	Told map[string]Told

	Response *remit.Response // under way for it; nil when none is
}

// owners are who answers for the credential, the strongest claim first.
func (k *Case) owners() []remit.Owner {
	if k.Identity != nil && len(k.Identity.Owners) > 0 {
		return k.Identity.Owners
	}
	return k.Holders
}

// Use is what is known of when a credential was used.
type Use struct {
	Last time.Time // zero: no use is known

	// Until is until when its uses are known. That no use is known after it
	// means nothing. Zero: nothing is known.
	Until time.Time
}

// Told is when a finding was first told.
type Told struct {
	Since time.Time

	// Held is until when somebody suppressed it; zero when nobody has. Nothing
	// is revoked for that reason before.
	Held time.Time
}

// Standing tells where a credential stands at a moment. It fails safe: an age or a
// use that is not known breaks no limit, and nothing is to be revoked before the
// grace has passed since the limit was broken and since it was told.
func (c *Config) Standing(k Case, now time.Time) remit.Standing {
	cred := &k.Credential
	s := remit.Standing{
		Credential: cred.ID, System: cred.System, Ref: cred.Ref, Key: cred.Key, Type: cred.Type, Identity: cred.Identity, Holder: cred.Holder,
		At: now, Start: start(cred), LastUsed: k.Use.Last, UsesKnown: earlier(now, k.Use.Until), Expires: cred.Expires, NeverExpires: cred.NeverExpires,
	}
	if owners := k.owners(); len(owners) > 0 {
		s.Owner = owners[0].Name
	}
	if !s.Start.IsZero() {
		s.Age = whole(now.Sub(s.Start))
	}
	if !s.LastUsed.IsZero() && !s.UsesKnown.IsZero() {
		s.Idle = whole(s.UsesKnown.Sub(later(s.LastUsed, s.Start)))
	}
	if k.Response != nil {
		s.Response, s.ResponseAction, s.ResponseState = k.Response.ID, k.Response.Action, k.Response.State
	}
	p := c.policy(&subject{system: k.System, credential: cred, identity: k.Identity, owners: k.owners()})
	if p != nil {
		s.Policy = p.Name
	}
	if cred.Status != remit.Active && cred.Status != "" || !cred.Expires.IsZero() && !now.Before(cred.Expires) {
		s.State = remit.LifecycleEnded
		return s
	}
	j := judgement{Policy: p, k: &k, s: &s, now: now}
	if p == nil || p.Exempt {
		s.State = remit.LifecycleNoPolicy
		if !cred.Expires.IsZero() {
			s.Next, s.Changes = remit.LifecycleStep{Step: stepExpire, At: cred.Expires}, cred.Expires
		}
		return s
	}
	j.rotation()
	j.age()
	j.idle()
	j.expiryRequired()
	j.lifetime()
	j.end()
	j.sum()
	return s
}

// start is since when a secret has been the credential. That an object was made is
// only then the issue of the secret in it when it holds one: what asks for tokens,
// or trusts somebody else's, does not age with its object.
func start(c *remit.Credential) time.Time {
	t := c.Issued
	if c.Rotated.After(t) {
		t = c.Rotated
	}
	if t.IsZero() && c.Type != remit.ShortLivedToken && c.Type != remit.FederatedTrust {
		t = c.Created
	}
	return t
}

// whole is a length of time in whole seconds, never negative.
func whole(d time.Duration) int64 { return int64(max(d, 0) / time.Second) }

// toldNow is when something that is first told now counts as told: evidence keeps
// seconds, and a grace must not end before its time.
func toldNow(now time.Time) time.Time {
	return now.Add(time.Second - 1).Truncate(time.Second)
}

// earlier is the earlier of two times; zero where the second is not known.
func earlier(a, b time.Time) time.Time {
	if b.IsZero() || b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// judgement is one credential under one policy.
type judgement struct {
	*Policy
	k   *Case
	s   *remit.Standing
	now time.Time
}

// date is what a demand comes down to: something is due at a time.
type date struct {
	demand string
	words  string
	due    time.Time
	span   time.Duration // how long it was to come, which notices are measured by
	at     time.Time     // what is taken for now: until when is known what it rests on
	step   string        // what is to be done then
	told   string        // the policy of the finding that says that the limit is broken; "" where nothing is revoked
}

func (j *judgement) rotation() {
	if j.RotateEvery > 0 {
		j.fromStart(date{demand: demandRotation, words: "must be rotated every " + j.RotateEvery.words(), step: stepRotate}, j.RotateEvery)
	}
}

func (j *judgement) age() {
	if j.MaxAge > 0 {
		j.fromStart(date{demand: demandAge, words: "may be at most " + j.MaxAge.words() + " old", step: stepRotate, told: PolicyMaxAge}, j.MaxAge)
	}
}

func (j *judgement) fromStart(d date, span Span) {
	if j.s.Start.IsZero() {
		j.unknown(d, "since when it has been in use is not known")
		return
	}
	d.due, d.span, d.at = j.s.Start.Add(time.Duration(span)), time.Duration(span), j.now
	j.add(d)
}

func (j *judgement) idle() {
	if j.MaxIdle <= 0 {
		return
	}
	d := date{demand: demandIdle, words: "may be unused for at most " + j.MaxIdle.words(), step: stepDisable, told: PolicyIdle}
	if j.s.LastUsed.IsZero() || j.s.UsesKnown.IsZero() {
		j.unknown(d, "when it was last used is not known")
		return
	}
	// What was rotated since has not rested longer than it is there.
	rests := later(j.s.LastUsed, j.s.Start)
	d.due, d.span, d.at = rests.Add(time.Duration(j.MaxIdle)), time.Duration(j.MaxIdle), j.s.UsesKnown
	j.add(d)
}

func (j *judgement) expiryRequired() {
	if !j.ExpiryRequired {
		return
	}
	c := &j.k.Credential
	d := date{demand: demandExpiry, words: "must have an end", step: stepRotate, told: PolicyExpiryRequired}
	switch {
	case c.NeverExpires:
		d.at = j.now
		j.add(d)
	case c.Expires.IsZero() && c.GrantedLifetime == 0 && c.Lifetime == 0:
		j.unknown(d, "whether it ends is not known")
	default:
		j.fine(d)
	}
}

func (j *judgement) lifetime() {
	if j.MaxLifetime <= 0 {
		return
	}
	d := date{demand: demandLifetime, words: "may live for at most " + j.MaxLifetime.words(), step: stepRotate, told: PolicyMaxLifetime, at: j.now}
	switch life := life(&j.k.Credential); {
	case life == 0:
		j.unknown(d, "how long it lives is not known")
	case life > time.Duration(j.MaxLifetime):
		j.add(d)
	default:
		j.fine(d)
	}
}

// life is how long a credential lives from its issue to its end; 0 when that is not
// known.
func life(c *remit.Credential) time.Duration {
	switch {
	case c.NeverExpires:
		return math.MaxInt64
	case c.GrantedLifetime > 0:
		return seconds(c.GrantedLifetime)
	case c.Lifetime > 0:
		return seconds(c.Lifetime)
	case !c.Expires.IsZero() && c.Expires.After(c.Issued) && !c.Issued.IsZero():
		return c.Expires.Sub(c.Issued)
	}
	return 0
}

// end is the end that the system sets, of which the owner gets notice too.
func (j *judgement) end() {
	c := &j.k.Credential
	if c.Expires.IsZero() {
		return
	}
	d := date{demand: demandEnd, words: "expires by itself", due: c.Expires, span: time.Duration(longest), at: j.now, step: stepExpire}
	if !j.s.Start.IsZero() {
		d.span = c.Expires.Sub(j.s.Start)
	}
	j.add(d)
}

func (j *judgement) unknown(d date, why string) {
	j.s.Demands = append(j.s.Demands, remit.LifecycleDemand{Demand: d.demand, State: remit.LifecycleUnknown, Words: d.words + "; " + why})
}

func (j *judgement) fine(d date) {
	j.s.Demands = append(j.s.Demands, remit.LifecycleDemand{Demand: d.demand, State: remit.LifecycleFine, Words: d.words})
}

// add judges a demand by its date. A date of zero was always broken.
func (j *judgement) add(d date) {
	out := remit.LifecycleDemand{Demand: d.demand, State: remit.LifecycleFine, Words: d.words, Due: d.due}
	if d.at.Before(d.due) && !j.now.Before(d.due) {
		j.unknown(d, "its uses are known until "+dayOf(d.at)+" only")
		return
	}
	if d.at.Before(d.due) {
		out.Next = remit.LifecycleStep{Step: d.step, At: d.due}
		j.changesAt(d.due)
		notices := j.notices(d.span)
		out.Notices = len(notices)
		for _, before := range notices {
			notice := d.due.Add(-before)
			if !d.at.Before(notice) {
				out.Notice++
				out.State = remit.LifecycleDueSoon
				continue
			}
			if notice.After(j.now) {
				out.Next = remit.LifecycleStep{Step: stepNotice, At: notice}
				j.changesAt(notice)
			}
			break
		}
		j.s.Demands = append(j.s.Demands, out)
		return
	}
	from := d.due
	if d.told != "" {
		told := j.k.Told[d.told]
		if told.Since.IsZero() {
			told.Since = toldNow(j.now)
		}
		from = later(d.due, told.Since)
		out.Ends = later(from.Add(j.grace()), told.Held)
	} else {
		out.Ends = from.Add(j.grace())
	}
	over := !j.now.Before(out.Ends)
	if !over {
		j.changesAt(out.Ends)
	}
	switch {
	case d.told == "" && over:
		out.State, out.Next = remit.LifecycleOverdue, remit.LifecycleStep{Step: d.step, At: d.due}
	case d.told == "":
		out.State, out.Next = remit.LifecycleDue, remit.LifecycleStep{Step: d.step, At: d.due}
	case over && j.rotating():
		// Its successor may not be in use yet: it ends with the rotation.
		out.State, out.Next = remit.LifecycleInGrace, remit.LifecycleStep{Step: stepRotate, At: d.due}
	case over:
		out.State, out.Next = remit.LifecycleOverdue, remit.LifecycleStep{Step: stepRevoke, At: out.Ends}
	default:
		out.State, out.Next = remit.LifecycleInGrace, remit.LifecycleStep{Step: stepRevoke, At: out.Ends}
	}
	j.s.Demands = append(j.s.Demands, out)
}

// rotating says that the credential is being replaced.
func (j *judgement) rotating() bool {
	r := j.k.Response
	return r != nil && r.Action == remit.Rotate && (r.State == remit.ResponseApproved || r.State == remit.ResponseRunning)
}

// changesAt notes a moment to come at which the standing will be another.
func (j *judgement) changesAt(t time.Time) {
	if t.After(j.now) && (j.s.Changes.IsZero() || t.Before(j.s.Changes)) {
		j.s.Changes = t
	}
}

// weight orders what is to be done now.
var weight = map[string]int{stepRevoke: 4, stepDisable: 3, stepRotate: 2, stepExpire: 1}

// sum makes one standing of all demands: the state that presses most, and the step
// that comes first, of those that are due already the gravest.
func (j *judgement) sum() {
	s := j.s
	s.State = remit.LifecycleUnknown
	for _, d := range s.Demands {
		// The system's own end says nothing about the policy's demands.
		if d.Demand == demandEnd && d.State == remit.LifecycleFine {
			continue
		}
		if d.State.Rank() < s.State.Rank() {
			s.State = d.State
		}
	}
	for _, d := range s.Demands {
		if d.Next.Step == "" {
			continue
		}
		now, best := !d.Next.At.After(j.now), !s.Next.At.After(j.now)
		switch {
		case s.Next.Step == "", now && !best,
			now && best && weight[d.Next.Step] > weight[s.Next.Step],
			!now && !best && d.Next.At.Before(s.Next.At):
			s.Next = d.Next
		}
	}
}

// name is how a sentence names a credential. It does not escape.
func name(s *remit.Standing) string {
	text := s.Ref.String()
	if s.Key != "" {
		text += " key " + s.Key
	}
	return text
}

// dayOf is a date in a sentence.
func dayOf(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// exactly is a time in evidence.
func exactly(t time.Time) string {
	if t.IsZero() {
		return "not known"
	}
	return t.UTC().Format(time.RFC3339)
}

// because names the policy behind a sentence.
func because(s *remit.Standing, words string) string {
	return fmt.Sprintf("the lifecycle policy %s says that it %s", s.Policy, words)
}
