package remit

import "time"

// Activity is one attributed event: an identity, with a credential, did an
// action on a resource, from somewhere, at a time, with an outcome.
//
// A connector's decoder fills it in the words of the event's own system;
// attribution then adds the IDs, the lineage and what stands under "In context".
// A zero field is what the event does not tell.
type Activity struct {
	ID     string `json:"id"` // the event's own ID in its system, or a hash of the event
	System ID     `json:"system"`

	// Native is what identifies the event's system everywhere ([SystemID]), ""
	// where the event does not tell: a cluster's audit event names no cluster.
	Native string `json:"-"`

	Time    time.Time `json:"time"`    // when it happened, by the system's clock
	Learned time.Time `json:"learned"` // when Remit received it

	// Actor is who did it in the words of the inventory, so that
	// IdentityID(System, Actor) is the identity; Principal is the same as the
	// log writes it. Type is what the event tells of the sort of actor.
	Identity  ID           `json:"identity,omitempty"`
	Actor     Ref          `json:"actor"`
	Principal string       `json:"principal"`
	Type      IdentityType `json:"type,omitempty"`

	// Credential is what it was done with, as the log writes it: "JTI=…",
	// "X509SHA256=…", an access key ID, a session, or a hash of the token where
	// the system gives no ID; "" when the log does not tell.
	Credential     string         `json:"credential,omitempty"`
	CredentialType CredentialType `json:"credential_type,omitempty"`

	// Bound is the object that the credential is bound to and Node where that
	// runs: the pod of a projected token, the instance of a role session.
	Bound Ref    `json:"bound,omitzero"`
	Node  string `json:"node,omitempty"`

	// Minted is the credential that this event issued; its Credential is ""
	// when it issued none.
	Minted Minted `json:"minted,omitzero"`

	// As is whom the actor acts as, by impersonation: the identity whose
	// rights are exercised. Zero when it acts as itself.
	As Ref `json:"as,omitzero"`

	// Chain is who stands behind the actor: the identities on whose behalf it
	// acts or who became it by assuming a role, the nearest first, down to the
	// first actor. Empty when nobody does.
	Chain []Ref `json:"chain,omitempty"`

	// Action is the system's word: "get", "s3:GetObject", "org.add_member".
	// Write says that it changes something, where that can be told.
	Action   string `json:"action"`
	Write    bool   `json:"write,omitempty"`
	Resource Ref    `json:"resource"`

	// Binding is the binding that allowed it, where the log tells.
	Binding Ref `json:"binding,omitzero"`

	// Address is whence it came as the system itself saw it: an IP address,
	// or the system's word for itself ("ec2.amazonaws.com").
	Address   string  `json:"address,omitempty"`
	UserAgent string  `json:"user_agent,omitempty"`
	Outcome   Outcome `json:"outcome"`
	Code      int     `json:"code,omitempty"`   // HTTP status, where there is one
	Reason    string  `json:"reason,omitempty"` // why denied or failed

	// In context: filled by attribution, from the events before this one and
	// from the inventory.

	// Parent minted the credential, Root is the first of its lineage (itself,
	// when it was not seen to be minted) and Depth the number of mintings
	// between the two.
	Parent string `json:"parent,omitempty"`
	Root   string `json:"root,omitempty"`
	Depth  int    `json:"depth,omitempty"`

	// SelfMinted says that somewhere between Root and Credential one was
	// minted by a credential of the same identity.
	SelfMinted bool `json:"self_minted,omitempty"`

	// Outside says that the credential is bound to a pod or an instance and
	// Address is known to be none of its own or its node's.
	Outside bool `json:"outside,omitempty"`

	// Dormant is how long the identity had done nothing before this; 0 when
	// it was never seen before.
	Dormant time.Duration `json:"dormant,omitempty"`

	// Known says that the identity is in the inventory, Inventoried that there is
	// one of the system, so that an identity which is not in it is a stranger.
	Known       bool `json:"known,omitempty"`
	Inventoried bool `json:"-"`
}

// Minted is a credential that an event issued.
type Minted struct {
	Credential string         `json:"credential,omitempty"` // as the log will write it
	Type       CredentialType `json:"type,omitempty"`
	For        Ref            `json:"for,omitzero"`   // whom it authenticates
	Bound      Ref            `json:"bound,omitzero"` // what it is bound to; zero when free
	Expires    time.Time      `json:"expires,omitzero"`
	Lifetime   time.Duration  `json:"lifetime,omitempty"` // what was asked for; 0 when not known
	Audiences  []string       `json:"audiences,omitempty"`
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
// of one lineage. Of an activity as another there are two: what was done, by that
// other's rights, and that the actor acted as him, with [Impersonate] as the action
// and the other as the resource.
type Usage struct {
	System   ID      `json:"system"`
	Identity ID      `json:"identity"`
	Root     string  `json:"root,omitempty"` // the root of the lineage that acted, as the log writes it
	Binding  Ref     `json:"binding,omitzero"`
	Action   string  `json:"action"`
	Resource Ref     `json:"resource"` // Name is "*" where one identity touches too many to tell apart
	Outcome  Outcome `json:"outcome"`

	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Count int64     `json:"count"`
}
