package remit

import "time"

// Finding is something wrong with one subject. It is opened by a policy or a
// detection, never duplicated, resolved when mended and opened again when the
// same thing comes back; First stays for good.
type Finding struct {
	ID       ID       `json:"id"`
	Policy   string   `json:"policy"` // the rule's id
	Title    string   `json:"title"`
	Severity Severity `json:"severity"`
	System   ID       `json:"system"`
	Subject  Subject  `json:"subject"`

	// Identity is whom it concerns, where that is another than the subject:
	// the holder of a credential, the receiver of a grant. May be "".
	Identity ID `json:"identity,omitempty"`

	// Related are the other things involved: the role behind a grant, the
	// workloads that share an account.
	Related []Subject `json:"related,omitempty"`

	// Message says in one sentence what is wrong here; Evidence are the facts
	// that show it. Neither holds a secret.
	Message  string `json:"message"`
	Evidence []Fact `json:"evidence"`

	Risks    []string `json:"risks"`    // "NHI7", "ASI03", "T1528"
	Controls []string `json:"controls"` // "SOC 2 CC6.1", "NIST SP 800-53 AC-6(7)"
	Remedy   string   `json:"remedy"`

	// Of a detection's finding, what was seen: the credentials and the
	// addresses, as the log writes them, and the IDs of the events that matched,
	// the first of each (see MaxSeen) in order. EventCount is how many events
	// matched in all. Words explain in sentences, with numbers, what is unusual.
	// First and Last of such a finding are the times of events.
	Credentials []string `json:"credentials,omitempty"`
	Addresses   []string `json:"addresses,omitempty"`
	Events      []string `json:"events,omitempty"`
	EventCount  int64    `json:"event_count,omitempty"`
	Words       string   `json:"words,omitempty"`

	State           FindingState `json:"state"`
	First           time.Time    `json:"first"` // when it was first found
	Last            time.Time    `json:"last"`  // when it was last confirmed or changed
	Resolved        time.Time    `json:"resolved,omitzero"`
	SuppressedUntil time.Time    `json:"suppressed_until,omitzero"`
	Reopened        int          `json:"reopened,omitempty"` // how often it came back
}

// MaxSeen is how many credentials, addresses and event IDs one finding names.
const MaxSeen = 100

// Subject is the record that a finding is about, in its system's words.
type Subject struct {
	Record RecordKind `json:"record"` // identity, credential, grant, role
	Ref
	ID ID `json:"id"`
}

// Fact is one piece of evidence: a name of a few words, and a value.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// FindingState is where a finding stands.
type FindingState string

// The states of a finding.
const (
	Open         FindingState = "open"
	Acknowledged FindingState = "acknowledged"
	Suppressed   FindingState = "suppressed"
	Resolved     FindingState = "resolved"
)

// Severity grades a finding.
type Severity string

// The severities, from the least.
const (
	Info     Severity = "info"
	Low      Severity = "low"
	Medium   Severity = "medium"
	High     Severity = "high"
	Critical Severity = "critical"
)

// Severities lists all severities from the least to the worst.
var Severities = []Severity{Info, Low, Medium, High, Critical}

// Rank orders severities: 1 for Info to 5 for Critical, 0 for an unknown word.
func (s Severity) Rank() int {
	for i, known := range Severities {
		if s == known {
			return i + 1
		}
	}
	return 0
}

// ParseSeverity returns the severity of that name, or an [Invalid] error that
// lists the names there are.
func ParseSeverity(name string) (Severity, error) {
	if s := Severity(name); s.Rank() > 0 {
		return s, nil
	}
	return "", Errorf(Invalid, "severity", "no severity %q: use info, low, medium, high or critical", name)
}
