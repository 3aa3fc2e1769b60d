package remit

import "time"

// Response is a stored plan to change a system. It is state, not a running
// function: a worker may die at any step and another goes on from the plan.
type Response struct {
	ID      ID            `json:"id"`
	System  ID            `json:"system"`
	Action  Action        `json:"action"`
	Subject Subject       `json:"subject"`
	Steps   []Step        `json:"steps"`
	State   ResponseState `json:"state"`

	Cause      string    `json:"cause"`                 // the finding, decision or trigger
	AskedBy    string    `json:"asked_by"`              // who or what asked
	ApprovedBy []string  `json:"approved_by,omitempty"` // never AskedBy
	Made       time.Time `json:"made"`
	Changed    time.Time `json:"changed"`
}

// Action is what a response does to its subject.
type Action string

// The actions.
const (
	Revoke  Action = "revoke"
	Rotate  Action = "rotate"
	Disable Action = "disable"
	Reduce  Action = "reduce"
	Contain Action = "contain"
)

// Step is one change of a response.
type Step struct {
	Does   string        `json:"does"`   // what it changes, in words
	Breaks string        `json:"breaks"` // who will notice; "" when nobody
	Undo   string        `json:"undo"`   // how it is undone; "" when it cannot be
	State  ResponseState `json:"state"`
}

// ResponseState is where a response or one of its steps stands.
type ResponseState string

// The states of a response.
const (
	ResponseProposed ResponseState = "proposed"
	ResponseApproved ResponseState = "approved"
	ResponseRunning  ResponseState = "running"
	ResponseVerified ResponseState = "verified"
	ResponseFailed   ResponseState = "failed"
	ResponseUndone   ResponseState = "undone"
	ResponseExpired  ResponseState = "expired"
)

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
