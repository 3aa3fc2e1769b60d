package secret

import (
	"bytes"
	//lint:ignore SA1019 old certificates have such keys, and are what this is for
	"crypto/dsa"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"time"

	"remit"
)

// Bounds on a bundle of certificates. The largest that are in use, the roots of
// browsers and operating systems, have under 200.
const (
	maxCertificates = 512
	maxKeys         = 64
	maxBlocks       = 1024
)

// Certificate is what an X.509 certificate (RFC 5280) says.
type Certificate struct {
	// Native is "X509SHA256=" and the hexadecimal SHA-256 of the certificate:
	// the credential-id that the Kubernetes API server writes into its audit
	// log for a request made with it.
	Native string

	Subject       string
	Issuer        string
	CommonName    string
	Organizations []string
	NotBefore     time.Time
	NotAfter      time.Time
	Algorithm     string // "RSA", "ECDSA", "Ed25519", …
	KeyBits       int
	CA            bool
	SelfSigned    bool // the signature is its own key's
	Server        bool // extended key usages: serverAuth, clientAuth or any
	Client        bool

	// KeyID is the hexadecimal SHA-256 of the public key
	// (SubjectPublicKeyInfo); equal to that of the private key that belongs
	// to it.
	KeyID string
}

// PrivateKey is what is told of a private key.
type PrivateKey struct {
	Algorithm string // "RSA", "ECDSA", "Ed25519", "PGP"; "" when encrypted and not told
	KeyBits   int
	Encrypted bool
	OpenSSH   bool // in OpenSSH's own format

	// KeyID is as that of a Certificate; "" where the public key cannot be
	// had: encrypted keys, and those of OpenSSH and PGP.
	KeyID       string
	Fingerprint string // of the key's encoding without the armour
}

// Bundle is what a value holds of certificates and keys, in its order.
type Bundle struct {
	Certificates []Certificate
	Keys         []PrivateKey
	Cut          bool // there was more than is read
}

// ParseBundle reads certificates and private keys out of a PEM bundle (RFC 7468,
// also indented or with its line ends written as \n, as within YAML and JSON), or
// out of one DER-encoded certificate or key. Of a bundle at most 512
// certificates and 64 keys are read, of a value at most [MaxValue] bytes.
//
// A block that is broken does not hide the others: they are returned together
// with an error of kind [remit.Invalid] that names the places (the number of the
// block and its line). A value without certificates and keys is an empty Bundle
// and no error.
func ParseBundle(data []byte, fingerprint Fingerprint) (Bundle, error) {
	var out Bundle
	if len(data) > MaxValue {
		data, out.Cut = data[:MaxValue], true
	}
	const begin = "-----BEGIN "
	if !bytes.Contains(data, []byte(begin)) {
		out.der(data, fingerprint)
		return out, nil
	}
	data = unindent(data)
	var broken []error
	line, seen := 1, 0
	for number := 1; ; number++ {
		i := bytes.Index(data[seen:], []byte(begin))
		if i < 0 {
			break
		}
		line += bytes.Count(data[seen:seen+i], []byte{'\n'})
		seen += i
		if number > maxBlocks || len(out.Certificates) >= maxCertificates || len(out.Keys) >= maxKeys {
			out.Cut = true
			break
		}
		// Each block is decoded by itself: pem.Decode skips what it cannot
		// read without saying so, and would search the rest of the value
		// again for each of many broken blocks.
		stop := len(data)
		if j := bytes.Index(data[seen+len(begin):], []byte(begin)); j >= 0 {
			stop = seen + len(begin) + j
		}
		block, _ := pem.Decode(data[seen:stop])
		var err error
		if block == nil {
			err = errors.New("no complete PEM block")
		} else {
			err = out.block(block, fingerprint)
		}
		if err != nil && len(broken) < 16 {
			broken = append(broken, remit.Errorf(remit.Invalid, "read certificates", "block %d, line %d: %w", number, line, err))
		}
		line += bytes.Count(data[seen:stop], []byte{'\n'})
		seen = stop
	}
	if len(broken) > 0 {
		return out, remit.Errorf(remit.Invalid, "", "%w", errors.Join(broken...))
	}
	return out, nil
}

// unindent makes the text of a bundle readable for package pem, which wants its
// markers at the beginnings of lines.
func unindent(data []byte) []byte {
	if bytes.Contains(data, []byte(`\n`)) {
		data = bytes.ReplaceAll(data, []byte(`\r`), nil)
		data = bytes.ReplaceAll(data, []byte(`\n`), []byte("\n"))
	}
	if !bytes.Contains(data, []byte(" -----")) && !bytes.Contains(data, []byte("\t-----")) && !bytes.Contains(data, []byte(`"-----`)) {
		return data
	}
	out := make([]byte, 0, len(data))
	for l := range bytes.Lines(data) {
		if i := bytes.Index(l, []byte("-----BEGIN ")); i > 0 {
			l = l[i:]
		}
		out = append(out, bytes.TrimLeft(l, " \t")...)
	}
	return out
}

func (b *Bundle) block(block *pem.Block, fingerprint Fingerprint) error {
	switch {
	case block.Type == "CERTIFICATE" || block.Type == "TRUSTED CERTIFICATE" || block.Type == "X509 CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return errors.New("no certificate that can be read")
		}
		b.Certificates = append(b.Certificates, certificate(cert))
		return nil
	case block.Type == "OPENSSH PRIVATE KEY":
		key, err := openSSHKey(block.Bytes)
		if err != nil {
			return err
		}
		key.Fingerprint = fingerprintOf(fingerprint, block.Bytes)
		b.Keys = append(b.Keys, key)
		return nil
	case block.Type == "PGP PRIVATE KEY BLOCK":
		b.Keys = append(b.Keys, PrivateKey{Algorithm: "PGP", Fingerprint: fingerprintOf(fingerprint, block.Bytes)})
		return nil
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		key := PrivateKey{Fingerprint: fingerprintOf(fingerprint, block.Bytes)}
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			key.Encrypted = true
			if word, _, ok := strings.Cut(block.Type, " "); ok && (word == "RSA" || word == "DSA") {
				key.Algorithm = word
			} else if ok && word == "EC" {
				key.Algorithm = "ECDSA"
			}
			b.Keys = append(b.Keys, key)
			return nil
		}
		parsed, ok := parseKey(block.Bytes)
		if !ok {
			return errors.New("no private key that can be read")
		}
		key.describe(parsed)
		b.Keys = append(b.Keys, key)
		return nil
	}
	return nil // public keys, requests, parameters: no credentials
}

// der reads a value that is one certificate, or one key, in DER.
func (b *Bundle) der(data []byte, fingerprint Fingerprint) {
	if len(data) < 32 || data[0] != 0x30 || data[1] < 0x80 && int(data[1])+2 != len(data) {
		return
	}
	if certs, err := x509.ParseCertificates(data); err == nil {
		if len(certs) > maxCertificates {
			certs, b.Cut = certs[:maxCertificates], true
		}
		for _, c := range certs {
			b.Certificates = append(b.Certificates, certificate(c))
		}
		return
	}
	if parsed, ok := parseKey(data); ok {
		key := PrivateKey{Fingerprint: fingerprintOf(fingerprint, data)}
		key.describe(parsed)
		b.Keys = append(b.Keys, key)
	}
}

func parseKey(der []byte) (any, bool) {
	if k, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return k, true
	}
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k, true
	}
	if k, err := x509.ParseECPrivateKey(der); err == nil {
		return k, true
	}
	return nil, false
}

func (k *PrivateKey) describe(parsed any) {
	var public any
	switch p := parsed.(type) {
	case *rsa.PrivateKey:
		public = &p.PublicKey
	case *ecdsa.PrivateKey:
		public = &p.PublicKey
	case ed25519.PrivateKey:
		public = p.Public()
	case *ecdh.PrivateKey:
		public = p.PublicKey()
	}
	k.Algorithm, k.KeyBits = algorithm(public)
	if spki, err := x509.MarshalPKIXPublicKey(public); err == nil {
		sum := sha256.Sum256(spki)
		k.KeyID = hex.EncodeToString(sum[:])
	}
}

func algorithm(public any) (string, int) {
	switch p := public.(type) {
	case *rsa.PublicKey:
		return "RSA", p.N.BitLen()
	case *ecdsa.PublicKey:
		return "ECDSA", p.Curve.Params().BitSize
	case ed25519.PublicKey:
		return "Ed25519", 256
	case *ecdh.PublicKey:
		return "X25519", 256
	case *dsa.PublicKey:
		return "DSA", p.P.BitLen()
	}
	return "", 0
}

func certificate(c *x509.Certificate) Certificate {
	sum := sha256.Sum256(c.Raw)
	// The raw key, and not the parsed one encoded again: keys in unusual
	// encodings keep their identity.
	keySum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	out := Certificate{
		Native:     "X509SHA256=" + hex.EncodeToString(sum[:]),
		Subject:    short(c.Subject.String()),
		Issuer:     short(c.Issuer.String()),
		CommonName: short(c.Subject.CommonName),
		NotBefore:  c.NotBefore.UTC(),
		NotAfter:   c.NotAfter.UTC(),
		CA:         c.IsCA,
		KeyID:      hex.EncodeToString(keySum[:]),
	}
	for i, o := range c.Subject.Organization {
		if i == 64 {
			break
		}
		out.Organizations = append(out.Organizations, short(o))
	}
	out.Algorithm, out.KeyBits = algorithm(c.PublicKey)
	if out.Algorithm == "" && c.PublicKeyAlgorithm != x509.UnknownPublicKeyAlgorithm {
		out.Algorithm = c.PublicKeyAlgorithm.String()
	}
	out.SelfSigned = selfSigned(c, out.KeyBits)
	out.Server = slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
	out.Client = slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
	return out
}

// selfSigned tells whether a certificate vouches for itself. Key identifiers
// (RFC 5280, section 4.2.1.1) settle it where they are there; the signature is
// checked only without them, since that costs more than all the rest.
func selfSigned(c *x509.Certificate, bits int) bool {
	if !bytes.Equal(c.RawSubject, c.RawIssuer) {
		return false // the usual case
	}
	if len(c.AuthorityKeyId) > 0 && len(c.SubjectKeyId) > 0 {
		return bytes.Equal(c.AuthorityKeyId, c.SubjectKeyId)
	}
	var insecure x509.InsecureAlgorithmError
	err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature)
	// Go does not check MD5 and keys under 1024 bits at all, and over 8192
	// refuses: the names must do.
	return err == nil || errors.As(err, &insecure) || c.PublicKeyAlgorithm == x509.RSA && (bits < 1024 || bits > 8192)
}

// Keystore tells a binary keystore by its first bytes: "java-keystore" (JKS and
// JCEKS), "pkcs12" (RFC 7292: a sequence that begins with version 3), or "".
// What is in it is not known without its password; a truststore looks the same.
func Keystore(data []byte) string {
	switch {
	case len(data) < 32:
		return ""
	case bytes.HasPrefix(data, []byte{0xfe, 0xed, 0xfe, 0xed}), bytes.HasPrefix(data, []byte{0xce, 0xce, 0xce, 0xce}):
		return "java-keystore"
	case data[0] == 0x30:
		head := 2
		if data[1] > 0x80 && data[1] <= 0x84 {
			head += int(data[1] & 0x7f)
		}
		// The DER object identifiers of PKCS #7 data or signedData follow.
		if bytes.HasPrefix(data[head:], []byte{0x02, 0x01, 0x03}) &&
			bytes.Contains(data[head:min(len(data), head+32)], []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07}) {
			return "pkcs12"
		}
	}
	return ""
}
