package remit

import "time"

// System is one connected platform instance: a cluster, an AWS account, a
// GitHub organization, a database server.
type System struct {
	ID        ID     `json:"id"`
	Connector string `json:"connector"` // "kubernetes"
	Name      string `json:"name"`      // the user's word for it; unique in one data directory

	// Native is what identifies the instance everywhere (see [SystemID]).
	Native  string `json:"native,omitempty"`
	Version string `json:"version,omitempty"` // the platform's version
	Address string `json:"address,omitempty"` // where it answers; "" when read from a file

	Mode Mode `json:"mode"`

	// Recorded says that the inventory came from a recording or a dump, and
	// is as old as that.
	Recorded bool `json:"recorded,omitempty"`

	// Observed is when its inventory was last read.
	Observed time.Time `json:"observed,omitzero"`

	// Gaps is what could not be read, and what right would mend it.
	Gaps []Gap `json:"gaps,omitempty"`

	Attributes map[string]string `json:"attributes,omitempty"`
}

// Gap is a part of a system's inventory that could not be read. What was read
// stands; what lies in the gap is unknown, not absent.
type Gap struct {
	Section string `json:"section"`        // the listing: "secrets"
	Reason  string `json:"reason"`         // what happened, in the system's words
	Need    string `json:"need,omitempty"` // the right or setting that closes the gap; may be ""
}

// Mode is how far Remit may go in a system.
type Mode string

// The modes. Observe is the default: read-only credentials, nothing changes.
const (
	ModeObserve   Mode = "observe"
	ModeRecommend Mode = "recommend" // plans are made, people run them
	ModeEnforce   Mode = "enforce"   // Remit acts, under policy and approval
)
