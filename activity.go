package remit

import "time"

// Activity is one attributed event: an identity, with a credential, did an
// action on a resource, from somewhere, at a time, with an outcome.
type Activity struct {
	ID      string    `json:"id"` // the event's own ID in its system
	System  ID        `json:"system"`
	Time    time.Time `json:"time"`    // when it happened, by the system's clock
	Learned time.Time `json:"learned"` // when Remit received it

	Identity   ID     `json:"identity"`
	Principal  string `json:"principal"`            // as the log writes it
	Credential ID     `json:"credential,omitempty"` // "" when the log does not tell
	Native     string `json:"native,omitempty"`     // the credential, as the log writes it
	Minted     string `json:"minted,omitempty"`     // the credential that this event issued

	// Chain is who acts for whom, from the one who acts down to the first
	// actor; empty when identity and actor are one.
	Chain []ID `json:"chain,omitempty"`

	Action    string  `json:"action"` // "get", "s3:GetObject"
	Resource  Ref     `json:"resource"`
	Grant     ID      `json:"grant,omitempty"` // the grant that allowed it, where the log tells
	Address   string  `json:"address,omitempty"`
	UserAgent string  `json:"user_agent,omitempty"`
	Outcome   Outcome `json:"outcome"`
	Reason    string  `json:"reason,omitempty"`
}

// Outcome is how an activity ended.
type Outcome string

// The outcomes.
const (
	Allowed Outcome = "allowed"
	Denied  Outcome = "denied"
	Failed  Outcome = "failed" // allowed, and then an error
)

// Usage is what of a grant was exercised by an identity with the credentials
// of one lineage.
type Usage struct {
	System   ID        `json:"system"`
	Identity ID        `json:"identity"`
	Root     ID        `json:"root"` // the root of the lineage that acted
	Grant    ID        `json:"grant,omitempty"`
	Action   string    `json:"action"`
	Resource Ref       `json:"resource"`
	Outcome  Outcome   `json:"outcome"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	Count    int64     `json:"count"`
}
