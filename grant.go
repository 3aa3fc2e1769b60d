package remit

import "time"

// Role is a named set of permissions: a Kubernetes ClusterRole, an IAM policy,
// database privileges. It is kept once however often it is bound.
type Role struct {
	Record
	Permissions []Permission `json:"permissions"`

	// Aggregates says that the permissions are gathered from other roles.
	Aggregates bool `json:"aggregates,omitempty"`
}

// Permission allows (or, where Deny is set, forbids) actions on resources.
// In every list "*" means all.
type Permission struct {
	Actions []string `json:"actions"` // "get", "s3:GetObject"

	// Resources are the types of resource, in the system's own notation:
	// Kubernetes "secrets", "pods/exec", "deployments.apps", "*.*" (every
	// resource of every group); a non-resource URL starts with "/".
	Resources []string `json:"resources"`

	// Names restricts the permission to resources so named; empty is all.
	Names []string `json:"names,omitempty"`

	Deny      bool   `json:"deny,omitempty"`
	Condition string `json:"condition,omitempty"` // in the system's language; "" is none
}

// Grant gives a role, or single permissions, in a scope to an identity: the
// binding, as its system has it.
type Grant struct {
	Record
	Status Status `json:"status"`

	Identity ID  `json:"identity"`
	Subject  Ref `json:"subject"` // Identity in its system's words

	// Role and RoleRef name the role; both are zero for a grant of single
	// Permissions.
	Role        ID           `json:"role,omitempty"`
	RoleRef     Ref          `json:"role_ref,omitzero"`
	Permissions []Permission `json:"permissions,omitempty"`

	// Scope is where the grant holds: a namespace, a path; "" is the whole
	// system.
	Scope string `json:"scope,omitempty"`

	Condition string `json:"condition,omitempty"`

	// Origin is what put it there: "helm", "argocd", a field manager.
	Origin  string    `json:"origin,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
}

// Resource is what a grant or an activity is about.
type Resource struct {
	Record
	Type string `json:"type"` // "namespace", "secret", "pod", "bucket"

	// CrownJewel marks what the user must not lose.
	CrownJewel bool `json:"crown_jewel,omitempty"`
}
