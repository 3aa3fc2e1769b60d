package kubernetes

import (
	"encoding/json"
	"maps"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit"
	"remit/connector/secret"
)

// credentialConfig is what the recognition of credentials needs. All of it is
// required but Fingerprint, without which credentials carry none.
type credentialConfig struct {
	System      remit.ID
	Scanner     *secret.Scanner
	Fingerprint func([]byte) string

	// ExtendTokenExpiration is the API server's
	// --service-account-extend-token-expiration, true by default.
	ExtendTokenExpiration bool
	Now                   func() time.Time
}

// credentials makes credentials of the objects in which they lie. What becomes
// what is documented in docs/connectors/kubernetes.md. Its methods read the
// objects that they are given, keep nothing of them, and never put a secret's
// value into a record. It is safe for concurrent use.
type credentials struct {
	credentialConfig
}

// newCredentials fails with [remit.Invalid] when the configuration is not
// complete.
func newCredentials(cfg credentialConfig) (*credentials, error) {
	const op = "set up recognition of credentials"
	switch {
	case cfg.System == "":
		return nil, remit.Errorf(remit.Invalid, op, "no system")
	case cfg.Scanner == nil:
		return nil, remit.Errorf(remit.Invalid, op, "no scanner")
	case cfg.Now == nil:
		return nil, remit.Errorf(remit.Invalid, op, "no clock")
	}
	if cfg.Fingerprint == nil {
		cfg.Fingerprint = func([]byte) string { return "" }
	}
	return &credentials{cfg}, nil
}

// maxCredentials bounds what one object yields. A Secret holds a megabyte; who
// fills it with a thousand keys is told of the first.
const maxCredentials = 512

// The attributes of credentials that policies read.
const (
	attrRule         = "rule"          // the rule that recognised it
	attrRecognisedBy = "recognised-by" // "name": by the entry's name alone
	attrUnread       = "unread"        // "true": its value was not read
	attrPartial      = "partial"       // "true": the value was not looked at in full
)

// place is where credentials lie: what they have in common with their object.
type place struct {
	ref      remit.Ref
	location remit.ID
	uid      string
	created  time.Time
	rotated  time.Time
	labels   map[string]string

	// exposure is "" for a Secret, which is meant to hold them.
	exposure string
}

func placeOf(ref remit.Ref, meta *metav1.ObjectMeta) place {
	return place{
		ref: ref, uid: string(meta.UID), created: meta.CreationTimestamp.UTC(), labels: meta.Labels,
	}
}

// found collects the credentials of one place.
type found struct {
	c   *credentials
	at  place
	out []remit.Credential

	keys map[string]int // keys given out, to number what shares one
	// Certificates and keys are matched when all of the object was seen.
	certificates []certificateAt
	private      []privateAt
}

type certificateAt struct {
	key  string
	cert secret.Certificate
}

type privateAt struct {
	key string
	pk  secret.PrivateKey
}

func (c *credentials) at(p place) *found {
	return &found{c: c, at: p, keys: make(map[string]int)}
}

// add appends a credential of the given key and returns it to be filled in. The
// second credential under a key becomes KEY#2, and so on. It returns a scratch
// credential when the object has yielded enough.
func (f *found) add(key string, typ remit.CredentialType) *remit.Credential {
	if len(f.out) >= maxCredentials {
		return new(remit.Credential{Record: remit.Record{Attributes: map[string]string{}}})
	}
	key, id := f.key(key)
	cred := remit.Credential{
		Record: remit.Record{
			ID: id, System: f.c.System, Ref: f.at.ref,
			Incarnation: f.at.uid, Created: f.at.created, Since: f.at.rotated,
			Labels: maps.Clone(f.at.labels), Attributes: map[string]string{},
		},
		Type: typ, Status: remit.Active, Key: key, Location: f.at.location, Rotated: f.at.rotated,
	}
	if cred.Since.IsZero() {
		cred.Since = f.at.created
	}
	if f.at.exposure != "" {
		cred.Exposure = []string{f.at.exposure}
	}
	f.out = append(f.out, cred)
	return &f.out[len(f.out)-1]
}

// key numbers a key that is there already, and makes the credential's ID.
func (f *found) key(key string) (string, remit.ID) {
	f.keys[key]++
	if n := f.keys[key]; n > 1 {
		key += "#" + strconv.Itoa(n)
	}
	return key, remit.CredentialID(f.c.System, f.at.ref, key)
}

// done finishes the collection: statuses by the clock, and no empty maps.
func (f *found) done() []remit.Credential {
	f.pair()
	f.joinAWS()
	now := f.c.Now()
	for i := range f.out {
		cred := &f.out[i]
		if cred.Status == remit.Active && !cred.Expires.IsZero() && !cred.Expires.After(now) {
			cred.Status = remit.Expired
		}
		if len(cred.Attributes) == 0 {
			cred.Attributes = nil
		}
	}
	return f.out
}

// authenticates sets whom the credential authenticates.
func (c *credentials) authenticates(cred *remit.Credential, holder remit.Ref) {
	cred.Holder = holder
	cred.Identity = remit.IdentityID(c.System, holder)
}

// refOfUser turns the name by which the API server knows a user into the
// reference of its identity.
func refOfUser(name string) remit.Ref {
	if rest, ok := strings.CutPrefix(name, "system:serviceaccount:"); ok {
		if ns, account, ok := strings.Cut(rest, ":"); ok && ns != "" && account != "" && !strings.Contains(account, ":") {
			return remit.Ref{Kind: "ServiceAccount", Namespace: ns, Name: account}
		}
	}
	if node, ok := strings.CutPrefix(name, "system:node:"); ok && node != "" {
		return remit.Ref{Kind: "Node", Name: node}
	}
	return remit.Ref{Kind: "User", Name: name}
}

// dataChanged is when the data of an object last changed, as its managed fields
// tell: the youngest entry that owns data. Writers of metadata (a label, an
// annotation) do not count. An object without managed fields has not changed
// since its creation as far as can be known.
func dataChanged(meta *metav1.ObjectMeta) time.Time {
	var last time.Time
	for _, m := range meta.ManagedFields {
		if m.FieldsV1 == nil || m.Time == nil || m.Subresource != "" || !m.Time.After(last) {
			continue
		}
		var top map[string]json.RawMessage
		if json.Unmarshal(m.FieldsV1.GetRawBytes(), &top) != nil {
			continue
		}
		for _, field := range []string{"f:data", "f:stringData", "f:binaryData"} {
			if _, ok := top[field]; ok {
				last = m.Time.UTC()
				break
			}
		}
	}
	if last.IsZero() {
		return meta.CreationTimestamp.UTC()
	}
	return last
}

// dataKeys are the keys of an object's data as its managed fields name them,
// for when the data itself was not read.
func dataKeys(meta *metav1.ObjectMeta) []string {
	keys := make(map[string]bool)
	for _, m := range meta.ManagedFields {
		if m.FieldsV1 == nil {
			continue
		}
		var top map[string]json.RawMessage
		if json.Unmarshal(m.FieldsV1.GetRawBytes(), &top) != nil {
			continue
		}
		var fields map[string]json.RawMessage
		if json.Unmarshal(top["f:data"], &fields) != nil {
			continue
		}
		for k := range fields {
			if name, ok := strings.CutPrefix(k, "f:"); ok {
				keys[name] = true
			}
		}
	}
	return entryNames(keys)
}
