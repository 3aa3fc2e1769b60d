package remit

// Relation is a directed edge between identities. Two of its types end
// elsewhere: [Holds] leads to the resource in which credentials lie.
type Relation struct {
	Record
	Type RelationType `json:"type"`
	From ID           `json:"from"`
	To   ID           `json:"to"`

	// FromRef and ToRef name both ends in their systems' words; an end in a
	// system that is not connected has no record, only this name.
	FromRef Ref `json:"from_ref"`
	ToRef   Ref `json:"to_ref"`

	// Right is by what right one identity can act as another; "" for the
	// other types. Scope is where the right holds ("" is everywhere) and Via
	// is the grant that gives it; "" where no single grant does.
	Right Right  `json:"right,omitempty"`
	Scope string `json:"scope,omitempty"`
	Via   ID     `json:"via,omitempty"`
}

// RelationType is what a relation means, read from From to To.
type RelationType string

// The types of relation.
const (
	MemberOf  RelationType = "member-of"  // an identity in a group, a group in a group
	RunsAs    RelationType = "runs-as"    // a workload and its service account
	CanActAs  RelationType = "can-act-as" // by Right
	TrustedBy RelationType = "trusted-by" // federation: To accepts From's credentials
	SameActor RelationType = "same-actor" // one actor across systems
	Holds     RelationType = "holds"      // an identity can read the credentials in a resource it is given
)

// Right is the way in which one identity can come to act as another.
type Right string

// The rights. A right on many identities is one relation to the group that
// contains them, never one relation each.
const (
	Impersonate    Right = "impersonate"      // name the other in a request
	MintToken      Right = "mint-token"       // ask for a token of the other
	Exec           Right = "exec"             // run a command where the other's token lies
	CreateWorkload Right = "create-workload"  // start a workload that runs as the other
	ReadSecrets    Right = "read-secrets"     // read the other's stored credentials
	Bind           Right = "bind"             // give itself any role, so anyone's rights
	Escalate       Right = "escalate"         // write rights it does not have into a role
	NodeProxy      Right = "node-proxy"       // reach every pod of a node past the API server
	SignCert       Right = "sign-certificate" // have a certificate in the other's name signed
)
