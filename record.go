package remit

import (
	"strings"
	"time"
)

// Ref names a thing in the words of its own system, so that a user finds it
// there: kind "ServiceAccount", namespace "payments", name "api". Everything in
// it is data from outside and may be hostile: escape it where it is shown.
type Ref struct {
	Kind      string `json:"kind"`                // the system's word: ServiceAccount, Secret, iam:Role
	Namespace string `json:"namespace,omitempty"` // the container: a namespace, account or organization; may be ""
	Name      string `json:"name"`
}

// String returns kind namespace/name for messages. It does not escape.
func (r Ref) String() string {
	var b strings.Builder
	b.WriteString(r.Kind)
	b.WriteByte(' ')
	if r.Namespace != "" {
		b.WriteString(r.Namespace)
		b.WriteByte('/')
	}
	b.WriteString(r.Name)
	return b.String()
}

// Record is what every inventoried thing has in common.
type Record struct {
	ID     ID `json:"id"`
	System ID `json:"system"`
	Ref

	// Incarnation is the system's own uid for this life of the thing: deleted
	// and made again it is the same record with a new incarnation. May be "".
	Incarnation string `json:"incarnation,omitempty"`

	// Created is when the system made it. Since is when it came to be as it
	// is now, as far as the system tells; it starts a version in the history
	// and, when zero, the time of learning stands in for it.
	Created time.Time `json:"created,omitzero"`
	Since   time.Time `json:"since,omitzero"`

	// BuiltIn marks what the platform itself brings (system:masters, the
	// default ClusterRoles), told apart from what the user made.
	BuiltIn bool `json:"built_in,omitempty"`

	// Environment is "production", "staging", "development" or another word
	// of the user's, or "" when nothing tells.
	Environment string `json:"environment,omitempty"`

	// Labels are the system's own labels or tags. Attributes are facts that
	// the connector found and its page documents; policies may read them.
	// Neither ever holds a secret.
	Labels     map[string]string `json:"labels,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Records is a set of inventory records of any kind, as connectors hand them
// over and as the store writes them.
type Records struct {
	Identities  []Identity
	Credentials []Credential
	Roles       []Role
	Grants      []Grant
	Relations   []Relation
	Resources   []Resource
}

// Len is the number of records in the set.
func (r *Records) Len() int {
	return len(r.Identities) + len(r.Credentials) + len(r.Roles) + len(r.Grants) + len(r.Relations) + len(r.Resources)
}

// Append adds all of other to the set.
func (r *Records) Append(other Records) {
	r.Identities = append(r.Identities, other.Identities...)
	r.Credentials = append(r.Credentials, other.Credentials...)
	r.Roles = append(r.Roles, other.Roles...)
	r.Grants = append(r.Grants, other.Grants...)
	r.Relations = append(r.Relations, other.Relations...)
	r.Resources = append(r.Resources, other.Resources...)
}
