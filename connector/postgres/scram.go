package postgres

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"remit"
)

// scramIterations is what PostgreSQL itself uses (scram_iterations).
const scramIterations = 4096

// scramVerifier is what the server keeps of a password. It is computed here, so that
// the password is in no statement, and so in no log and no statistics of the server:
// who reads the verifier cannot sign in with it.
// Source: RFC 5802, section 3, RFC 7677, and
// https://www.postgresql.org/docs/current/catalog-pg-authid.html
func scramVerifier(password []byte) (string, error) {
	// Other characters would have to be prepared (RFC 4013) as each client does.
	for _, b := range password {
		if b < ' ' || b > '~' {
			return "", remit.Errorf(remit.Unsupported, "set password", "the secret has characters beside printable ASCII and cannot be a password here")
		}
	}
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails (crypto/rand)
	salted, err := pbkdf2.Key(sha256.New, string(password), salt, scramIterations, sha256.Size)
	if err != nil {
		return "", remit.Errorf(remit.Internal, "set password", "%w", err)
	}
	defer clear(salted)
	mac := func(text string) []byte {
		h := hmac.New(sha256.New, salted)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(mac("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", scramIterations, b64(salt), b64(stored[:]), b64(mac("Server Key"))), nil
}
