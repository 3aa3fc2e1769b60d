package remit

import "time"

// Signal is one detection's match on one activity. Signals about one identity
// combine into one finding an incident; weak ones alone make none.
type Signal struct {
	Rule     string   `json:"rule"` // the detection's ID
	Title    string   `json:"title"`
	Severity Severity `json:"severity"`
	Risks    []string `json:"risks,omitempty"`    // "T1528", "NHI7"
	Controls []string `json:"controls,omitempty"` // "NIST SP 800-53 AC-2(12)"
	Remedy   string   `json:"remedy,omitempty"`

	// Words say what is unusual, in a sentence with its numbers: "usually
	// every 10 min from node-a; now also every 7 min from 10.9.0.4".
	Words    string `json:"words"`
	Evidence []Fact `json:"evidence,omitempty"`

	Time  time.Time `json:"time"`            // of the event
	Event string    `json:"event,omitempty"` // its ID
}
