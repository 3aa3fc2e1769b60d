// Package secret knows secrets when it sees them and forgets them at once.
//
// Connectors hand it the values that they come across: entries of Secrets and
// ConfigMaps, environment variables, parameters. It answers with facts (which
// rule, which platform accepts it, when it ends, a keyed fingerprint) and never
// with the value: no type that leaves the package has a field for one, and no
// error quotes its input.
//
//   - [Scanner] recognises API keys, tokens and passwords in text;
//   - [ParseBundle] reads certificates and private keys;
//   - [ParseToken] reads the claims of a JSON Web Token;
//   - [ParseKubeconfig] and [ParseDockerConfig] read the logins in those files;
//   - [Named] judges an entry by its name alone;
//   - [Fingerprinter] makes the fingerprints.
//
// Every input is taken to be hostile: each function bounds what it reads and
// says so, and none panics.
package secret

// MaxValue is how many bytes of one value are looked at; the rest is not
// scanned and the result says that it was cut. Kubernetes and etcd hold no
// larger Secret or ConfigMap.
const MaxValue = 1 << 20

// Fingerprint makes the keyed fingerprint of a secret; see [Fingerprinter].
// It may be called concurrently. Where a function of this package takes one,
// nil means that no fingerprints are wanted.
type Fingerprint = func(secret []byte) string

func fingerprintOf(f Fingerprint, secret []byte) string {
	if f == nil || len(secret) == 0 {
		return ""
	}
	return f(secret)
}
