package secret

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"

	"remit"
)

// minKey is the least length of an installation key: half of the hash's output
// (RFC 2104, section 3, discourages keys shorter than the hash; 16 bytes is
// where guessing the key stops being cheaper than guessing the secret).
const minKey = 16

// Fingerprinter turns secrets into keyed fingerprints: two copies of one secret
// have the same fingerprint, and nothing else can be learned from one without
// the installation's key, not even by trying a dictionary of weak passwords.
//
// The fingerprint is "hmac:" and the first 128 bits, in lower-case hexadecimal,
// of HMAC-SHA-256 (RFC 2104) over the exact bytes of the secret. It is the same
// in every run and on every machine that has the key; a new installation key
// makes all new fingerprints. It is safe for concurrent use.
type Fingerprinter struct{ key []byte }

// NewFingerprinter makes a Fingerprinter under the installation's key, of which
// it keeps a copy. It fails with [remit.Invalid] for a key of under 16 bytes.
func NewFingerprinter(key []byte) (*Fingerprinter, error) {
	if len(key) < minKey {
		return nil, remit.Errorf(remit.Invalid, "make fingerprinter",
			"the installation key has %d bytes; at least %d random bytes are needed", len(key), minKey)
	}
	return &Fingerprinter{key: append([]byte(nil), key...)}, nil
}

// Fingerprint returns the fingerprint of a secret, or "" for an empty one.
func (f *Fingerprinter) Fingerprint(secret []byte) string {
	if len(secret) == 0 {
		return ""
	}
	mac := hmac.New(sha256.New, f.key)
	mac.Write(secret) // never fails (hash.Hash)
	sum := mac.Sum(make([]byte, 0, sha256.Size))
	return "hmac:" + hex.EncodeToString(sum[:16])
}
