package remit

import "time"

// Identity is an actor in a system.
type Identity struct {
	Record
	Type   IdentityType `json:"type"`
	Status Status       `json:"status"`

	// Principal is the name that the system's audit log writes for it
	// ("system:serviceaccount:payments:api"), or "" for what never appears
	// there under its own name, as a Deployment.
	Principal string `json:"principal,omitempty"`

	DisplayName string `json:"display_name,omitempty"`
	Purpose     string `json:"purpose,omitempty"`

	// Owners are who answers for it, the strongest claim first. Empty means
	// unowned.
	Owners []Owner `json:"owners,omitempty"`

	Expires    time.Time `json:"expires,omitzero"`
	LastActive time.Time `json:"last_active,omitzero"`
}

// IdentityType says what sort of actor an identity is. It is a judgement that
// may be corrected and so is no part of the ID; the system's own word is
// Ref.Kind.
type IdentityType string

// The types of identity.
const (
	Human          IdentityType = "human"
	ServiceAccount IdentityType = "service-account"
	Workload       IdentityType = "workload"
	Application    IdentityType = "application" // OAuth app, integration, webhook, foreign issuer
	Agent          IdentityType = "agent"       // an AI agent or model gateway
	AssumableRole  IdentityType = "role"
	Group          IdentityType = "group"
)

// Machine says whether the identity acts without a person behind each action.
// Groups are neither: their members decide.
func (t IdentityType) Machine() bool {
	switch t {
	case ServiceAccount, Workload, Application, Agent, AssumableRole:
		return true
	}
	return false
}

// Status is where an identity, a credential or a grant stands.
type Status string

// The values of Status.
const (
	Active   Status = "active"
	Disabled Status = "disabled"
	Expired  Status = "expired"
	Revoked  Status = "revoked"
	Pending  Status = "pending" // asked for, not yet given: an unapproved certificate request

	// Absent is what something still refers to and the system no longer, or
	// not yet, has: the subject of a dangling binding.
	Absent Status = "absent"
	// Dangling is a grant whose role or identity is absent.
	Dangling Status = "dangling"
)

// Owner is a claim that a person or team answers for an identity.
type Owner struct {
	// Identity is the owner's own record, or "" where only the name is known.
	Identity ID     `json:"identity,omitempty"`
	Name     string `json:"name"` // a mail address, team or user name, as claimed

	// Source says where the claim was found: "label team", "namespace
	// annotation owner", "field manager". Inherited claims come after the
	// identity's own.
	Source string      `json:"source"`
	Status OwnerStatus `json:"status,omitempty"`
}

// OwnerStatus says whether an owner can still answer.
type OwnerStatus string

// The values of OwnerStatus; "" is unknown.
const (
	OwnerPresent OwnerStatus = "present"
	OwnerLeft    OwnerStatus = "left"
)
