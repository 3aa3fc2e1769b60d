package ssf

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/go-jose/go-jose/v4"

	"remit"
)

// KeyFile is where the signing keys lie in the data directory.
const KeyFile = "signals.key"

// Signer signs Remit's own tokens, by RS256 with keys of 2048 bits: what the CAEP
// interoperability profile asks every transmitter for.
type Signer struct {
	signer jose.Signer
	public jose.JSONWebKeySet
}

// OpenSigner reads the keys of a data directory, or makes the first. The file
// holds private keys in PEM (PKCS #8): the first signs, and all are published. To
// rotate, put a new key in front, and take the old one out a day later.
func OpenSigner(dataDir string) (*Signer, error) {
	const op = "open signing key"
	path := filepath.Join(dataDir, KeyFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeSigningKey(path); err != nil {
			return nil, remit.Errorf(remit.Unavailable, "make signing key", "%w", err)
		}
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, remit.Errorf(remit.Unavailable, op, "%w", err)
	}
	s := &Signer{}
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		text = rest
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		key, ok := parsed.(*rsa.PrivateKey)
		if err != nil || !ok || key.N.BitLen() < leastRSA {
			return nil, remit.Errorf(remit.Invalid, op, "%s: key %d is no RSA key of at least %d bits in PKCS #8", path, len(s.public.Keys)+1, leastRSA)
		}
		public := jose.JSONWebKey{Key: key.Public(), Algorithm: string(jose.RS256), Use: "sig"}
		sum, err := public.Thumbprint(crypto.SHA256)
		if err != nil {
			return nil, remit.Errorf(remit.Internal, op, "%w", err)
		}
		public.KeyID = base64.RawURLEncoding.EncodeToString(sum)
		if s.public.Keys = append(s.public.Keys, public); s.signer == nil {
			s.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: public.KeyID}},
				new(jose.SignerOptions).WithType("secevent+jwt"))
			if err != nil {
				return nil, remit.Errorf(remit.Internal, op, "%w", err)
			}
		}
	}
	if s.signer == nil {
		return nil, remit.Errorf(remit.Invalid, op, "%s holds no key in PEM: put the original file back, or remove it for a new key, which receivers read from the published key set", path)
	}
	return s, nil
}

// JWKS is the set of public keys.
func (s *Signer) JWKS() jose.JSONWebKeySet { return s.public }

// sign makes a token of claims, issued now: receivers refuse old ones, and one may
// have waited for its receiver.
func (s *Signer) sign(claims json.RawMessage, now time.Time) (string, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(claims, &all); err != nil {
		return "", remit.Errorf(remit.Internal, "sign signal", "a queued signal is damaged: %w", err)
	}
	all["iat"] = json.RawMessage(strconv.FormatInt(now.Unix(), 10))
	text, err := json.Marshal(all)
	if err != nil {
		return "", remit.Errorf(remit.Internal, "sign signal", "%w", err)
	}
	signed, err := s.signer.Sign(text)
	if err != nil {
		return "", remit.Errorf(remit.Internal, "sign signal", "%w", err)
	}
	return signed.CompactSerialize()
}

// makeSigningKey makes the file aside and links it into place, so that it is never
// seen half written, and of several processes one makes it.
func makeSigningKey(path string) error {
	key, err := rsa.GenerateKey(rand.Reader, leastRSA)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".signals-key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
