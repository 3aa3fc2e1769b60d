package remit

import "time"

// Credential is what an identity authenticates with. It never holds the secret
// itself: it is known by its native ID or by a keyed fingerprint.
type Credential struct {
	Record
	Type   CredentialType `json:"type"`
	Status Status         `json:"status"`

	// Key is the entry of the object (Ref) in which the credential lies: a
	// Secret's data key, "container/VARIABLE" of a workload. "" when the
	// object is the credential.
	Key string `json:"key,omitempty"`

	// Identity is whom it authenticates; "" where that is not known, as with
	// a foreign API key. Location is the resource that it lies in; "" for a
	// credential that lies nowhere in the system.
	Identity ID  `json:"identity,omitempty"`
	Holder   Ref `json:"holder,omitzero"` // Identity in its system's words
	Location ID  `json:"location,omitempty"`

	// Provider is the platform that accepts it: "kubernetes", "aws",
	// "stripe", or "" when unknown.
	Provider string `json:"provider,omitempty"`

	// Native is the ID that its system's audit log writes for it
	// ("JTI=…", "X509SHA256=…", an access key id). Fingerprint is an HMAC
	// of the secret under the installation's key, which makes copies of one
	// secret recognisable and nothing else. Either may be "".
	Native      string `json:"native,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"`

	// Parent is the credential that minted this one; "" at the root of a
	// lineage and where it is not known.
	Parent ID `json:"parent,omitempty"`

	Issued   time.Time `json:"issued,omitzero"`
	Expires  time.Time `json:"expires,omitzero"` // zero: never, or unknown where NeverExpires is false
	LastUsed time.Time `json:"last_used,omitzero"`
	Rotated  time.Time `json:"rotated,omitzero"`

	// NeverExpires says that the system sets no end to it.
	NeverExpires bool `json:"never_expires,omitempty"`

	// Lifetime is what was asked for at each issue and GrantedLifetime what
	// the system really gives; both in seconds, 0 when not known.
	Lifetime        int64 `json:"lifetime,omitempty"`
	GrantedLifetime int64 `json:"granted_lifetime,omitempty"`

	// Audiences are who should accept it; empty means the system's default.
	Audiences []string `json:"audiences,omitempty"`

	// Exposure lists the places, beside the one meant for secrets, in which
	// it can be read: "configmap", "environment", "annotation".
	Exposure []string `json:"exposure,omitempty"`

	// Algorithm ("RSA", "ECDSA", "Ed25519") and KeyBits of a key or
	// certificate; Subject and Issuer of a certificate.
	Algorithm string `json:"algorithm,omitempty"`
	KeyBits   int    `json:"key_bits,omitempty"`
	Subject   string `json:"subject,omitempty"`
	Issuer    string `json:"issuer,omitempty"`
}

// CredentialType says how a credential authenticates.
type CredentialType string

// The types of credential.
const (
	APIKey          CredentialType = "api-key"
	StaticToken     CredentialType = "static-token"
	ShortLivedToken CredentialType = "short-lived-token"
	ClientSecret    CredentialType = "client-secret"
	Certificate     CredentialType = "certificate"
	SSHKey          CredentialType = "ssh-key"
	PrivateKey      CredentialType = "private-key"
	Password        CredentialType = "password"
	FederatedTrust  CredentialType = "federated-trust"
)
