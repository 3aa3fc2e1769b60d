package remit

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"strings"
)

// ID identifies one record. It is derived from what the thing is in its own
// system, never drawn at random, so that the same thing seen twice, by two
// connectors or on two machines, is the same record. An ID is a short prefix
// that names the kind of record, an underscore, and 26 characters of lower-case
// base32: safe in URLs, file names, shells and terminals, whatever the hostile
// name it was made from.
type ID string

// The prefixes of IDs, one a kind of record.
const (
	systemPrefix     = "sys"
	identityPrefix   = "idn"
	credentialPrefix = "crd"
	rolePrefix       = "rol"
	grantPrefix      = "grt"
	relationPrefix   = "rel"
	resourcePrefix   = "res"
	findingPrefix    = "fnd"
	responsePrefix   = "rsp"
)

// base32 without padding, lower case: 128 bits in 26 characters.
var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// newID hashes the parts, each behind its length so that ("a", "bc") and
// ("ab", "c") differ, and keeps 128 bits: at a billion records the chance of
// one collision is below 10⁻²⁰.
func newID(prefix string, parts ...string) ID {
	var buf [256]byte
	b := append(buf[:0], prefix...)
	for _, p := range parts {
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	sum := sha256.Sum256(b)
	var out [4 + 26]byte
	n := copy(out[:], prefix)
	out[n] = '_'
	idEncoding.Encode(out[n+1:], sum[:16])
	return ID(out[:n+1+26])
}

// Kind tells what kind of record the ID identifies, or "" when it is no ID of
// this vocabulary.
func (id ID) Kind() RecordKind {
	prefix, rest, ok := strings.Cut(string(id), "_")
	if !ok || len(rest) != 26 {
		return ""
	}
	return kindOfPrefix[prefix]
}

// RecordKind names a kind of record in the words of the vocabulary.
type RecordKind string

// The kinds of record the store keeps.
const (
	KindSystem     RecordKind = "system"
	KindIdentity   RecordKind = "identity"
	KindCredential RecordKind = "credential"
	KindRole       RecordKind = "role"
	KindGrant      RecordKind = "grant"
	KindRelation   RecordKind = "relation"
	KindResource   RecordKind = "resource"
	KindFinding    RecordKind = "finding"
	KindResponse   RecordKind = "response"
)

var kindOfPrefix = map[string]RecordKind{
	systemPrefix:     KindSystem,
	identityPrefix:   KindIdentity,
	credentialPrefix: KindCredential,
	rolePrefix:       KindRole,
	grantPrefix:      KindGrant,
	relationPrefix:   KindRelation,
	resourcePrefix:   KindResource,
	findingPrefix:    KindFinding,
	responsePrefix:   KindResponse,
}

// SystemID derives the ID of a system from its connector ("kubernetes") and
// from what identifies the instance everywhere: the uid of a cluster's
// kube-system namespace, an AWS account number, a GitHub organization's name.
func SystemID(connector, native string) ID {
	return newID(systemPrefix, connector, native)
}

// IdentityID derives the ID of an identity from its system and from the kind
// and name by which that system's own audit log can be made to know it. For
// Kubernetes that is (ServiceAccount, payments, api), which the log writes as
// system:serviceaccount:payments:api. The incarnation (uid) is not part of it.
func IdentityID(system ID, ref Ref) ID {
	return newID(identityPrefix, string(system), ref.Kind, ref.Namespace, ref.Name)
}

// ResourceID derives the ID of a resource from where it is in its system.
func ResourceID(system ID, ref Ref) ID {
	return newID(resourcePrefix, string(system), ref.Kind, ref.Namespace, ref.Name)
}

// CredentialID derives the ID of a credential from the object that holds it
// and the key within that object ("" when the object is the credential, as a
// minted token named by its JTI is).
func CredentialID(system ID, ref Ref, key string) ID {
	return newID(credentialPrefix, string(system), ref.Kind, ref.Namespace, ref.Name, key)
}

// RoleID derives the ID of a role.
func RoleID(system ID, ref Ref) ID {
	return newID(rolePrefix, string(system), ref.Kind, ref.Namespace, ref.Name)
}

// GrantID derives the ID of a grant from the binding and from whom it grants
// to: a binding with three subjects is three grants.
func GrantID(system ID, binding Ref, identity ID) ID {
	return newID(grantPrefix, string(system), binding.Kind, binding.Namespace, binding.Name, string(identity))
}

// RelationID derives the ID of a relation from its two ends and its meaning.
func RelationID(from, to ID, t RelationType, right Right, scope string) ID {
	return newID(relationPrefix, string(from), string(to), string(t), string(right), scope)
}

// FindingID derives the ID of a finding from the rule and its subject, so
// that the same rule failing on the same subject is one finding for good.
func FindingID(rule string, subject ID) ID {
	return newID(findingPrefix, rule, string(subject))
}
