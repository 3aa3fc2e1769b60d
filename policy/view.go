package policy

import (
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"remit"
)

// The data behind what an expression sees. A record alone (IdentityRecord and
// so on) has the fields of the vocabulary; the subject of a policy, and the
// identity that it belongs to, has its neighbourhood as well, as far as some
// policy asks for it.
type (
	identityData struct {
		*remit.Identity
		near *neighbours // nil for a record alone
	}
	credentialData struct {
		*remit.Credential
		identity *identityObject // with its neighbourhood; nil when it has none
		location *resourceObject
		users    traits.Lister
		copies   traits.Lister
	}
	grantData struct {
		*remit.Grant
		identity    *identityObject // of a grant alone: a record
		role        *roleObject
		permissions *permissions
	}
	roleData struct {
		*remit.Role
		permissions *permissions
	}
	resourceData struct{ *remit.Resource }
	relationData struct {
		*remit.Relation
		from, to *identityObject
	}
	systemData struct{ *remit.System }

	identityObject   = object[identityData]
	credentialObject = object[credentialData]
	grantObject      = object[grantData]
	roleObject       = object[roleData]
	resourceObject   = object[resourceData]
	relationObject   = object[relationData]
	systemObject     = object[systemData]
	refObject        = object[remit.Ref]
	ownerObject      = object[remit.Owner]
	permissionObject = object[*remit.Permission]
)

// neighbours are the records around an identity. Lists that no policy asks for
// stay empty.
type neighbours struct {
	credentials traits.Lister
	grants      traits.Lister
	effective   traits.Lister
	assigned    traits.Lister
	groups      traits.Lister
	accounts    traits.Lister
	workloads   traits.Lister
	relations   traits.Lister
	inbound     traits.Lister

	reaching []*grantObject // what effective shows

	want, have need
}

func newNeighbours() *neighbours {
	return &neighbours{
		credentials: emptyList, grants: emptyList, effective: emptyList, assigned: emptyList, groups: emptyList,
		accounts: emptyList, workloads: emptyList, relations: emptyList, inbound: emptyList,
	}
}

func (d identityData) subject() remit.Subject {
	return remit.Subject{Record: remit.KindIdentity, Ref: d.Ref, ID: d.ID}
}

func (d credentialData) subject() remit.Subject {
	return remit.Subject{Record: remit.KindCredential, Ref: d.Ref, ID: d.ID}
}

func (d grantData) subject() remit.Subject {
	return remit.Subject{Record: remit.KindGrant, Ref: d.Ref, ID: d.ID}
}

func (d roleData) subject() remit.Subject {
	return remit.Subject{Record: remit.KindRole, Ref: d.Ref, ID: d.ID}
}

func (d resourceData) subject() remit.Subject {
	return remit.Subject{Record: remit.KindResource, Ref: d.Ref, ID: d.ID}
}

// What stands in where there is no record: every field of it is empty.
var (
	noIdentity = &identityObject{class: identityClass, it: identityData{Identity: &remit.Identity{}, near: newNeighbours()}}
	noRecord   = &identityObject{class: identityRecordClass, it: identityData{Identity: &remit.Identity{}}}
	noRole     = &roleObject{class: roleClass, it: roleData{Role: &remit.Role{}, permissions: newPermissions(nil)}}
	noResource = &resourceObject{class: resourceClass, it: resourceData{Resource: &remit.Resource{}}}
)

func objectList[T any](all []*object[T]) traits.Lister {
	if len(all) == 0 {
		return emptyList
	}
	vals := make([]ref.Val, len(all))
	for i, o := range all {
		vals[i] = o
	}
	return types.NewRefValList(types.DefaultTypeAdapter, vals)
}

// The types that expressions see.
var (
	refClass            = newClass("Ref", "the name of a thing in its own system's words")
	ownerClass          = newClass("Owner", "a claim that a person or team answers for an identity")
	permissionClass     = newClass("Permission", "actions that are allowed, or denied, on resources")
	systemClass         = newClass("System", "the connected system that the subject belongs to")
	resourceClass       = newClass("Resource", "what a grant or an activity is about, or what a credential lies in")
	roleClass           = newClass("Role", "a named set of permissions")
	identityRecordClass = newClass("IdentityRecord", "an identity without its neighbourhood")
	credentialRecClass  = newClass("CredentialRecord", "a credential without its neighbourhood")
	grantRecordClass    = newClass("GrantRecord", "a grant, with its role and permissions")
	relationClass       = newClass("Relation", "a directed edge between identities")
	identityClass       = newClass("Identity", "an identity and what is around it")
	credentialClass     = newClass("Credential", "a credential and what is around it")
	grantClass          = newClass("Grant", "a grant, whose identity has its neighbourhood")

	// classes lists them in the order of the reference.
	classes = []*class{
		identityClass, credentialClass, grantClass,
		identityRecordClass, credentialRecClass, grantRecordClass, roleClass, permissionClass,
		relationClass, resourceClass, ownerClass, refClass, systemClass,
	}
	classByName = map[string]*class{}
)

func init() {
	refFields()
	ownerFields()
	permissionFields()
	systemFields()
	resourceFields()
	roleFields()
	identityFields(identityRecordClass)
	credentialFields(credentialRecClass)
	grantFields(grantRecordClass, identityRecordClass)
	relationFields()
	neighbourFields()
	for _, c := range classes {
		classByName[c.name] = c
	}
}

func recordFields[T any](c *class, rec func(*object[T]) *remit.Record) {
	textField(c, "id", "Remit's ID of the record", func(o *object[T]) string { return string(rec(o).ID) })
	textField(c, "system_id", "the ID of its system", func(o *object[T]) string { return string(rec(o).System) })
	textField(c, "kind", "the system's word for it: ServiceAccount, Secret, ClusterRoleBinding", func(o *object[T]) string { return rec(o).Kind })
	textField(c, "namespace", "the namespace, account or organization that contains it", func(o *object[T]) string { return rec(o).Namespace })
	textField(c, "name", "its name in its system", func(o *object[T]) string { return rec(o).Name })
	textField(c, "incarnation", "the system's own uid for this life of it", func(o *object[T]) string { return rec(o).Incarnation })
	timeField(c, "created", "when the system made it", func(o *object[T]) time.Time { return rec(o).Created })
	timeField(c, "since", "when it came to be as it is now", func(o *object[T]) time.Time { return rec(o).Since })
	flagField(c, "built_in", "the platform itself brings it", func(o *object[T]) bool { return rec(o).BuiltIn })
	textField(c, "environment", "production, staging, development or another word; empty when nothing tells", func(o *object[T]) string { return rec(o).Environment })
	wordsField(c, "labels", "the system's own labels or tags", func(o *object[T]) map[string]string { return rec(o).Labels })
	wordsField(c, "attributes", "facts that the connector found; its page lists them", func(o *object[T]) map[string]string { return rec(o).Attributes })
}

func refFields() {
	c := refClass
	textField(c, "kind", "the system's word for it", func(o *refObject) string { return o.it.Kind })
	textField(c, "namespace", "what contains it", func(o *refObject) string { return o.it.Namespace })
	textField(c, "name", "its name", func(o *refObject) string { return o.it.Name })
}

func newRef(r remit.Ref) ref.Val { return &refObject{class: refClass, it: r} }

func ownerFields() {
	c := ownerClass
	textField(c, "name", "a mail address, team or user name, as claimed", func(o *ownerObject) string { return o.it.Name })
	textField(c, "source", "where the claim was found", func(o *ownerObject) string { return o.it.Source })
	textField(c, "status", "present, left, or empty when not known", func(o *ownerObject) string { return string(o.it.Status) })
	textField(c, "identity", "the ID of the owner's own record, if there is one", func(o *ownerObject) string { return string(o.it.Identity) })
}

func permissionFields() {
	c := permissionClass
	textsField(c, "actions", "what is allowed: get, create, s3:GetObject; * is all", func(o *permissionObject) []string { return o.it.Actions })
	textsField(c, "resources", "on which types of resource, in the system's notation", func(o *permissionObject) []string { return o.it.Resources })
	textsField(c, "names", "only on resources so named; empty is all", func(o *permissionObject) []string { return o.it.Names })
	flagField(c, "deny", "it forbids instead of allowing", func(o *permissionObject) bool { return o.it.Deny })
	textField(c, "condition", "in the system's language", func(o *permissionObject) string { return o.it.Condition })
}

func systemFields() {
	c := systemClass
	textField(c, "id", "Remit's ID of the system", func(o *systemObject) string { return string(o.it.ID) })
	textField(c, "name", "the user's word for it", func(o *systemObject) string { return o.it.Name })
	textField(c, "connector", "what kind of system it is: kubernetes", func(o *systemObject) string { return o.it.Connector })
	textField(c, "version", "the platform's version", func(o *systemObject) string { return o.it.Version })
	textField(c, "mode", "observe, recommend or enforce", func(o *systemObject) string { return string(o.it.Mode) })
	flagField(c, "recorded", "the inventory came from a recording", func(o *systemObject) bool { return o.it.Recorded })
	flagField(c, "complete", "every part of the inventory could be read; ask for it before concluding something from what is not there", func(o *systemObject) bool { return len(o.it.Gaps) == 0 })
	textsField(c, "gaps", "the parts of the inventory that could not be read", func(o *systemObject) []string {
		out := make([]string, len(o.it.Gaps))
		for i, g := range o.it.Gaps {
			out[i] = g.Section
		}
		return out
	})
	wordsField(c, "attributes", "facts that the connector found", func(o *systemObject) map[string]string { return o.it.Attributes })
}

func resourceFields() {
	c := resourceClass
	recordFields(c, func(o *resourceObject) *remit.Record { return &o.it.Resource.Record })
	textField(c, "type", "namespace, secret, configmap, bucket", func(o *resourceObject) string { return o.it.Resource.Type })
	flagField(c, "crown_jewel", "marked as what must not be lost", func(o *resourceObject) bool { return o.it.CrownJewel })
}

func roleFields() {
	c := roleClass
	recordFields(c, func(o *roleObject) *remit.Record { return &o.it.Role.Record })
	listField(c, "permissions", permissionClass, "what the role allows", func(o *roleObject) traits.Lister { return o.it.permissions })
	flagField(c, "aggregates", "the permissions are gathered from other roles", func(o *roleObject) bool { return o.it.Aggregates })
}

func identityFields(c *class) {
	recordFields(c, func(o *identityObject) *remit.Record { return &o.it.Identity.Record })
	textField(c, "type", "human, service-account, workload, application, agent, role or group", func(o *identityObject) string { return string(o.it.Identity.Type) })
	flagField(c, "machine", "it acts without a person behind each action; false for humans and groups", func(o *identityObject) bool { return o.it.Identity.Type.Machine() })
	textField(c, "status", "active, disabled, expired, revoked, pending or absent", func(o *identityObject) string { return string(o.it.Status) })
	textField(c, "principal", "the name that the audit log writes for it", func(o *identityObject) string { return o.it.Principal })
	textField(c, "display_name", "its name for people", func(o *identityObject) string { return o.it.DisplayName })
	textField(c, "purpose", "what it is for", func(o *identityObject) string { return o.it.Purpose })
	listField(c, "owners", ownerClass, "who answers for it, the strongest claim first", func(o *identityObject) traits.Lister {
		if len(o.it.Owners) == 0 {
			return emptyList
		}
		all := make([]*ownerObject, len(o.it.Owners))
		for i := range o.it.Owners {
			all[i] = &ownerObject{class: ownerClass, it: o.it.Owners[i]}
		}
		return objectList(all)
	})
	timeField(c, "expires", "when it ends", func(o *identityObject) time.Time { return o.it.Expires })
	timeField(c, "last_active", "when it last did something", func(o *identityObject) time.Time { return o.it.LastActive })
}

func credentialFields(c *class) {
	recordFields(c, func(o *credentialObject) *remit.Record { return &o.it.Credential.Record })
	textField(c, "type", "api-key, static-token, short-lived-token, client-secret, certificate, ssh-key, private-key, password or federated-trust", func(o *credentialObject) string { return string(o.it.Credential.Type) })
	textField(c, "status", "active, disabled, expired, revoked or pending", func(o *credentialObject) string { return string(o.it.Status) })
	textField(c, "key", "the entry of the object in which it lies: a Secret's data key, CONTAINER/VARIABLE", func(o *credentialObject) string { return o.it.Key })
	objectField(c, "holder", refClass, "whom it authenticates, in the system's words", func(o *credentialObject) bool { return o.it.Holder != remit.Ref{} }, func(o *credentialObject) ref.Val { return newRef(o.it.Holder) })
	textField(c, "provider", "the platform that accepts it: kubernetes, aws, stripe", func(o *credentialObject) string { return o.it.Provider })
	textField(c, "native", "the ID that its system's audit log writes for it", func(o *credentialObject) string { return o.it.Native })
	textField(c, "fingerprint", "a keyed hash of the secret, by which copies are recognised", func(o *credentialObject) string { return o.it.Fingerprint })
	textField(c, "parent", "the ID of the credential that minted it", func(o *credentialObject) string { return string(o.it.Parent) })
	timeField(c, "issued", "when it was issued", func(o *credentialObject) time.Time { return o.it.Issued })
	timeField(c, "expires", "when it ends", func(o *credentialObject) time.Time { return o.it.Expires })
	timeField(c, "last_used", "when it was last used", func(o *credentialObject) time.Time { return o.it.LastUsed })
	timeField(c, "rotated", "when it was last replaced", func(o *credentialObject) time.Time { return o.it.Rotated })
	timeField(c, "changed", "the last of rotated, issued and created that is known: since when this secret has been in use", func(o *credentialObject) time.Time {
		t := o.it.Rotated
		if o.it.Issued.After(t) {
			t = o.it.Issued
		}
		if t.IsZero() {
			t = o.it.Created
		}
		return t
	})
	flagField(c, "never_expires", "the system sets no end to it", func(o *credentialObject) bool { return o.it.NeverExpires })
	secondsField(c, "lifetime", "what was asked for at each issue", func(o *credentialObject) int64 { return o.it.Lifetime })
	secondsField(c, "granted_lifetime", "what the system really gives", func(o *credentialObject) int64 { return o.it.GrantedLifetime })
	textsField(c, "audiences", "who should accept it; empty is the system's default", func(o *credentialObject) []string { return o.it.Audiences })
	textsField(c, "exposure", "places not meant for secrets in which it can be read: configmap, environment, annotation", func(o *credentialObject) []string { return o.it.Exposure })
	textField(c, "algorithm", "RSA, ECDSA, Ed25519", func(o *credentialObject) string { return o.it.Algorithm })
	numberField(c, "key_bits", "the size of its key", func(o *credentialObject) int64 { return int64(o.it.KeyBits) })
	textField(c, "subject", "the subject of a certificate", func(o *credentialObject) string { return o.it.Subject })
	textField(c, "issuer", "the issuer of a certificate", func(o *credentialObject) string { return o.it.Issuer })
}

func grantFields(c, identity *class) {
	recordFields(c, func(o *grantObject) *remit.Record { return &o.it.Grant.Record })
	textField(c, "status", "active or dangling", func(o *grantObject) string { return string(o.it.Status) })
	none := ref.Val(noIdentity)
	if identity == identityRecordClass {
		none = noRecord
	}
	objectField(c, "identity", identity, "who receives it", func(o *grantObject) bool { return o.it.identity != nil }, func(o *grantObject) ref.Val {
		if o.it.identity == nil {
			return none
		}
		return o.it.identity
	})
	objectField(c, "subject", refClass, "who receives it, in the system's words", func(o *grantObject) bool { return o.it.Subject != remit.Ref{} }, func(o *grantObject) ref.Val { return newRef(o.it.Subject) })
	objectField(c, "role", roleClass, "the role that it gives; empty when the role could not be read", func(o *grantObject) bool { return o.it.role != nil }, func(o *grantObject) ref.Val {
		if o.it.role == nil {
			return noRole
		}
		return o.it.role
	})
	objectField(c, "role_ref", refClass, "the role that it gives, in the system's words", func(o *grantObject) bool { return o.it.RoleRef != remit.Ref{} }, func(o *grantObject) ref.Val { return newRef(o.it.RoleRef) })
	listField(c, "permissions", permissionClass, "everything that it allows: the role's permissions and its own", func(o *grantObject) traits.Lister { return o.it.permissions })
	textField(c, "scope", "where it holds: a namespace, a path; empty is the whole system", func(o *grantObject) string { return o.it.Scope })
	textField(c, "condition", "in the system's language", func(o *grantObject) string { return o.it.Condition })
	textField(c, "origin", "what put it there: helm, argocd, a field manager", func(o *grantObject) string { return o.it.Origin })
	timeField(c, "expires", "when it ends", func(o *grantObject) time.Time { return o.it.Expires })
}

func relationFields() {
	c := relationClass
	recordFields(c, func(o *relationObject) *remit.Record { return &o.it.Relation.Record })
	textField(c, "type", "member-of, runs-as, can-act-as, trusted-by, same-actor or holds", func(o *relationObject) string { return string(o.it.Relation.Type) })
	objectField(c, "from", identityRecordClass, "who it leads from", func(o *relationObject) bool { return true }, func(o *relationObject) ref.Val { return o.it.from })
	objectField(c, "to", identityRecordClass, "who it leads to; for holds, the resource", func(o *relationObject) bool { return true }, func(o *relationObject) ref.Val { return o.it.to })
	textField(c, "right", "of can-act-as: impersonate, mint-token, exec, create-workload, read-secrets, bind, escalate, node-proxy or sign-certificate", func(o *relationObject) string { return string(o.it.Right) })
	textField(c, "scope", "where the right holds; empty is everywhere", func(o *relationObject) string { return o.it.Scope })
	textField(c, "via", "the ID of the grant that gives the right", func(o *relationObject) string { return string(o.it.Via) })
}

// neighbourFields declares the subjects: the record's fields and the
// neighbourhood. need.go knows what each of these fields costs to load.
func neighbourFields() {
	c := identityClass
	identityFields(c)
	near := func(pick func(*neighbours) traits.Lister) func(*identityObject) traits.Lister {
		return func(o *identityObject) traits.Lister {
			if o.it.near == nil {
				return emptyList
			}
			return pick(o.it.near)
		}
	}
	listField(c, "credentials", credentialRecClass, "the credentials that authenticate it", near(func(n *neighbours) traits.Lister { return n.credentials }))
	listField(c, "grants", grantRecordClass, "the grants that it receives itself", near(func(n *neighbours) traits.Lister { return n.grants }))
	listField(c, "effective_grants", grantRecordClass, "its grants, those of its groups (and theirs), and for a workload those of the account that it runs as", near(func(n *neighbours) traits.Lister { return n.effective }))
	listField(c, "assigned_grants", grantRecordClass, "of effective_grants what somebody decided for it: without what is built in, and without the grants of built-in groups such as system:authenticated, which are a matter of those groups", near(func(n *neighbours) traits.Lister { return n.assigned }))
	listField(c, "groups", identityRecordClass, "the groups that it is in, directly or through others", near(func(n *neighbours) traits.Lister { return n.groups }))
	listField(c, "accounts", identityRecordClass, "the accounts that a workload runs as", near(func(n *neighbours) traits.Lister { return n.accounts }))
	listField(c, "workloads", identityRecordClass, "the workloads that run as this account", near(func(n *neighbours) traits.Lister { return n.workloads }))
	listField(c, "relations", relationClass, "every relation that leads from it", near(func(n *neighbours) traits.Lister { return n.relations }))
	listField(c, "inbound", relationClass, "every relation that leads to it, without member-of", near(func(n *neighbours) traits.Lister { return n.inbound }))

	c = credentialClass
	credentialFields(c)
	objectField(c, "identity", identityClass, "whom it authenticates; has() tells whether that is known", func(o *credentialObject) bool { return o.it.identity != nil }, func(o *credentialObject) ref.Val {
		if o.it.identity == nil {
			return noIdentity
		}
		return o.it.identity
	})
	objectField(c, "location", resourceClass, "the resource that it lies in", func(o *credentialObject) bool { return o.it.location != nil }, func(o *credentialObject) ref.Val {
		if o.it.location == nil {
			return noResource
		}
		return o.it.location
	})
	listField(c, "users", identityRecordClass, "the workloads that are given it", func(o *credentialObject) traits.Lister {
		if o.it.users == nil {
			return emptyList
		}
		return o.it.users
	})
	listField(c, "copies", credentialRecClass, "the other credentials with the same secret, in any system; certificates only where the private key lies beside them", func(o *credentialObject) traits.Lister {
		if o.it.copies == nil {
			return emptyList
		}
		return o.it.copies
	})

	grantFields(grantClass, identityClass)
}
