package remit

import (
	"context"
	"encoding/json"
	"strconv"
	"time"
)

// Response is a stored plan to change a system. It is state, not a running
// function: a worker may die at any instant and another goes on from the plan.
// It is previewed before it is approved, and what each step found before it
// changed anything is kept in it, so that the step can be undone.
type Response struct {
	ID      ID            `json:"id"`
	System  ID            `json:"system"`
	Action  Action        `json:"action"`
	Subject Subject       `json:"subject"`
	Steps   []Step        `json:"steps"`
	State   ResponseState `json:"state"`

	// Version counts the writes: whoever writes a plan says which version he
	// read, so that two workers never carry out the same one.
	Version int64 `json:"version"`

	Cause      string    `json:"cause,omitempty"`       // the finding, decision or trigger; "" when a person asked
	Opening    int       `json:"opening,omitempty"`     // how often the finding had come back by then
	Why        []string  `json:"why,omitempty"`         // why these steps were chosen, and what to know before they run
	AskedBy    string    `json:"asked_by"`              // who or what asked
	ApprovedBy []string  `json:"approved_by,omitempty"` // never AskedBy
	Made       time.Time `json:"made"`
	Changed    time.Time `json:"changed"`
	Expires    time.Time `json:"expires"` // a proposal that nobody approved until then is void

	// Due is when there is something to do again, of a running one that waits: for
	// a grace period to end, for the next look whether it still holds, for another
	// try. Zero: at once.
	Due time.Time `json:"due,omitzero"`

	// Stolen and Forged are the credentials, as the log writes them, that it holds:
	// those that the legitimate holder uses as well, and those that only an
	// attacker has.
	Stolen []string `json:"stolen,omitempty"`
	Forged []string `json:"forged,omitempty"`

	// Used is what the subject did within the last 30 days, the most first: what
	// may break.
	Used []Usage `json:"used,omitempty"`

	History []ResponseEvent `json:"history,omitempty"` // the oldest first
}

// ResponseEvent is something that happened to a response.
type ResponseEvent struct {
	Time  time.Time     `json:"time"`
	Actor string        `json:"actor"` // who did it: a person, a policy, "remit"
	State ResponseState `json:"state"` // the response's, from then on
	Note  string        `json:"note,omitempty"`
}

// ResponseID derives the ID of a response from its subject and from when it was
// planned, in nanoseconds.
func ResponseID(subject ID, action Action, made time.Time) ID {
	return newID(responsePrefix, string(subject), string(action), strconv.FormatInt(made.UnixNano(), 10))
}

// Action is what a response does to its subject.
type Action string

// The actions.
const (
	Revoke  Action = "revoke"  // a credential ends for good
	Rotate  Action = "rotate"  // a credential gets a successor
	Disable Action = "disable" // an identity may do nothing and cannot get in, until it is undone
	Reduce  Action = "reduce"  // an identity keeps what it used of what it was given
	Contain Action = "contain" // an attacker is cut off
	Guard   Action = "guard"   // new weaknesses are kept out of the system

	// RemoveIdentity deletes an identity from its system: the end of an
	// offboarding, after the grace in which it was disabled. It is an action of
	// its own, and no harder way of disabling, because what is undone is another
	// thing: disabled, an identity is the same again; removed, only one of its
	// name can be made anew, and its credentials are gone. So the two are
	// approved apart, and protected apart.
	RemoveIdentity Action = "remove"
)

// Actions lists the actions.
var Actions = []Action{Revoke, Rotate, Disable, Reduce, Contain, RemoveIdentity}

// Grade is how hard a step of containment cuts, from what only the attacker
// notices to what ends the workload.
type Grade string

// The grades of containment, in their order.
const (
	FreezeCredentials Grade = "freeze-credentials" // what is listed can neither mint nor write
	RefuseCredentials Grade = "refuse-credentials" // what is listed is refused everything
	RemoveGrants      Grade = "remove-grants"      // the identity may do nothing any more
	KillTokens        Grade = "kill-tokens"        // every token of the identity ends
	Quarantine        Grade = "quarantine"         // the workload stops
)

// Grades lists the grades from the mildest.
var Grades = []Grade{FreezeCredentials, RefuseCredentials, RemoveGrants, KillTokens, Quarantine}

// Phase is what a step of a rotation does. The phases come in their order: an old
// credential ends only when its successor was seen in use.
type Phase string

// The phases of a rotation.
const (
	Issue    Phase = "issue"     // the successor is made
	Deliver  Phase = "deliver"   // one destination gets it
	AwaitUse Phase = "await-use" // until it is seen in use
	End      Phase = "end"       // the old one ends, after its grace
)

// Step is one change of a response, of one object.
type Step struct {
	Grade  Grade         `json:"grade,omitempty"`  // of containment, and of other actions that cut in the same way
	Phase  Phase         `json:"phase,omitempty"`  // of rotation
	Change string        `json:"change,omitempty"` // what sort of change it is, in the connector's words, where neither of those tells
	Object Ref           `json:"object"`           // what is changed
	Does   string        `json:"does"`             // what it changes, in words
	Diff   string        `json:"diff"`             // the same, line by line: what goes begins with "-", what comes with "+"
	Breaks string        `json:"breaks"`           // who will notice; "" when nobody
	Undo   string        `json:"undo"`             // how it is undone; "" when it cannot be
	State  ResponseState `json:"state"`

	// Before is what the system held when the step was planned and After what
	// it is to hold, in the connector's own form and without secrets. They are
	// written before anything is changed.
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`

	Tries   int       `json:"tries,omitempty"`
	Failure string    `json:"failure,omitempty"` // of the last try
	Done    time.Time `json:"done,omitzero"`     // when it was seen to be in effect
}

// ResponseState is where a response or one of its steps stands.
type ResponseState string

// The states of a response. Those of a step are proposed, verified, failed and
// undone.
const (
	ResponseProposed ResponseState = "proposed"
	ResponseRejected ResponseState = "rejected"
	ResponseApproved ResponseState = "approved"
	ResponseRunning  ResponseState = "running"
	ResponseVerified ResponseState = "verified" // every step is seen to be in effect
	ResponseFailed   ResponseState = "failed"
	ResponseUndoing  ResponseState = "undoing"
	ResponseUndone   ResponseState = "undone"
	ResponseExpired  ResponseState = "expired"
)

// ResponseStates lists the states of a response.
var ResponseStates = []ResponseState{
	ResponseProposed, ResponseRejected, ResponseApproved, ResponseRunning, ResponseVerified, ResponseFailed,
	ResponseUndoing, ResponseUndone, ResponseExpired,
}

// ResponseStore keeps responses.
type ResponseStore interface {
	// PutResponse writes a response that was read at r.Version, 0 for a new
	// one, and returns it with the version that it has now. When another has
	// written it since, or made it, it is a [Conflict] and nothing is written.
	PutResponse(ctx context.Context, r Response) (Response, error)

	// HoldResponse keeps everybody else from holding a response until release is
	// called or the process ends: who carries it out holds it. It writes nothing
	// and waits for nobody: [Conflict] when another holds it.
	HoldResponse(ctx context.Context, id ID) (release func(), err error)

	// Responses lists responses, the newest first.
	Responses(ctx context.Context, f ResponseFilter, page PageRequest) ([]Response, string, error)
}

// ResponseFilter chooses responses; its zero value chooses all.
type ResponseFilter struct {
	System   ID
	IDs      []ID
	Subjects []ID
	States   []ResponseState
}

// Review is an access-review campaign.
type Review struct {
	ID    ID           `json:"id"`
	Name  string       `json:"name"`
	Opens time.Time    `json:"opens"`
	Due   time.Time    `json:"due"`
	Items []ReviewItem `json:"items"`
}

// ReviewItem asks one reviewer about one subject.
type ReviewItem struct {
	Subject  Subject   `json:"subject"`
	Reviewer Owner     `json:"reviewer"`
	Evidence []Fact    `json:"evidence"`
	Decision Decision  `json:"decision,omitempty"` // "" while open
	Reason   string    `json:"reason,omitempty"`
	Decided  time.Time `json:"decided,omitzero"`
	Response ID        `json:"response,omitempty"` // what the decision caused
}

// Decision is a reviewer's answer.
type Decision string

// The decisions.
const (
	Keep     Decision = "keep"
	Narrow   Decision = "narrow"
	Remove   Decision = "remove"
	Delegate Decision = "delegate"
)

// Evidence is one entry of the tamper-evident record of what Remit saw, decided
// and did.
type Evidence struct {
	Index   uint64    `json:"index"` // its leaf in the log, from 0
	Time    time.Time `json:"time"`
	Actor   string    `json:"actor"`
	Event   string    `json:"event"`
	Subject Subject   `json:"subject"`
	Detail  []Fact    `json:"detail,omitempty"`
}
