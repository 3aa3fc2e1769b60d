package remit

import "time"

// Standing is where a credential stands in its life at one moment: which
// lifecycle policy holds for it, what that demands, and what comes next.
type Standing struct {
	Credential ID `json:"credential"`
	System     ID `json:"system"`
	Ref
	Key      string         `json:"key,omitempty"`
	Type     CredentialType `json:"type"`
	Identity ID             `json:"identity,omitempty"`
	Holder   Ref            `json:"holder,omitzero"`
	Owner    string         `json:"owner,omitempty"` // the strongest claim; "" when nobody is known

	At     time.Time      `json:"at"`               // the moment that it is told for
	Policy string         `json:"policy,omitempty"` // "" when none chooses it
	State  LifecycleState `json:"state"`

	// Start is since when this secret has been the credential: its issue or its
	// last rotation. LastUsed is its last known use, and UsesKnown until when
	// its uses are known: nothing after that says that it was not used. Zero is
	// not known.
	Start        time.Time `json:"start,omitzero"`
	LastUsed     time.Time `json:"last_used,omitzero"`
	UsesKnown    time.Time `json:"uses_known_until,omitzero"`
	Expires      time.Time `json:"expires,omitzero"`
	NeverExpires bool      `json:"never_expires,omitempty"`

	// Age and Idle are in seconds, 0 when not known. Idle counts to UsesKnown.
	Age  int64 `json:"age,omitempty"`
	Idle int64 `json:"idle,omitempty"`

	// Demands are what the policy demands, each with where it stands, in the
	// order of the policy's fields.
	Demands []LifecycleDemand `json:"demands,omitempty"`

	// Next is what comes next; its At is not after the Standing's when it is to
	// be done now. Changes is the next moment at which the standing will be
	// another, if nothing happens to the credential; zero when there is none.
	Next    LifecycleStep `json:"next,omitzero"`
	Changes time.Time     `json:"changes,omitzero"`

	// Response is the plan under way for it; "" when there is none.
	Response       ID            `json:"response,omitempty"`
	ResponseAction Action        `json:"response_action,omitempty"`
	ResponseState  ResponseState `json:"response_state,omitempty"`
}

// LifecycleDemand is one demand of a lifecycle policy on one credential.
type LifecycleDemand struct {
	Demand string         `json:"demand"` // "rotate_every", "max_age", … as the policy writes it; "expires" for the system's own end
	State  LifecycleState `json:"state"`

	// Due is when it is, or was, due; zero when that is not known. Ends is
	// when the grace behind it ends; zero before it is due.
	Due  time.Time `json:"due,omitzero"`
	Ends time.Time `json:"grace_ends,omitzero"`

	// Words say it in half a sentence: "must be rotated every 90 days".
	Words string `json:"words"`

	// Notice is which of Notices notices was given last, 1 for the first; 0
	// before that.
	Notice  int `json:"notice,omitempty"`
	Notices int `json:"notices,omitempty"`

	Next LifecycleStep `json:"next,omitzero"`
}

// LifecycleStep is what happens next in the life of a credential.
type LifecycleStep struct {
	Step string    `json:"step"` // "notice", "rotate", "disable", "expire" or "revoke"
	At   time.Time `json:"at"`
}

// LifecycleState is where a credential stands in its life.
type LifecycleState string

// The states of a life, from the one that presses most.
const (
	LifecycleOverdue  LifecycleState = "overdue"   // the grace has passed
	LifecycleInGrace  LifecycleState = "in-grace"  // a limit is broken, and the grace runs
	LifecycleDue      LifecycleState = "due"       // to be rotated now
	LifecycleDueSoon  LifecycleState = "due-soon"  // the first notice was given
	LifecycleFine     LifecycleState = "fine"      // nothing to do yet
	LifecycleUnknown  LifecycleState = "unknown"   // what the policy asks cannot be told
	LifecycleEnded    LifecycleState = "ended"     // it is expired, revoked or disabled
	LifecycleNoPolicy LifecycleState = "no-policy" // no policy demands anything of it
)

// LifecycleStates lists the states from the one that presses most.
var LifecycleStates = []LifecycleState{
	LifecycleOverdue, LifecycleInGrace, LifecycleDue, LifecycleDueSoon,
	LifecycleFine, LifecycleUnknown, LifecycleEnded, LifecycleNoPolicy,
}

// Rank orders the states: 1 for the one that presses most, 0 for an unknown word.
func (s LifecycleState) Rank() int {
	for i, known := range LifecycleStates {
		if s == known {
			return i + 1
		}
	}
	return 0
}
