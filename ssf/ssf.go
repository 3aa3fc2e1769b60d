// Package ssf speaks the OpenID Shared Signals Framework 1.0 both ways: it
// receives what an identity provider tells of sessions, credentials and accounts
// (CAEP 1.0, RISC 1.0), and tells others what Remit has cut off.
//
// Events are Security Event Tokens (RFC 8417), delivered by push (RFC 8935) or by
// poll (RFC 8936). What is received becomes findings on the identities that it
// names; what is sent is derived from the stored responses.
package ssf

import (
	"fmt"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
)

// MediaType is that of a Security Event Token (RFC 8417, section 7.2).
const MediaType = "application/secevent+jwt"

// WellKnown is where a transmitter's metadata lie (SSF 1.0, section 7.2).
const WellKnown = "/.well-known/ssf-configuration"

// The event types, by their URIs.
const (
	SessionRevoked         = caep + "session-revoked"
	CredentialChange       = caep + "credential-change"
	TokenClaimsChange      = caep + "token-claims-change"
	DeviceComplianceChange = caep + "device-compliance-change"

	AccountDisabled      = risc + "account-disabled"
	AccountEnabled       = risc + "account-enabled"
	AccountPurged        = risc + "account-purged"
	CredentialCompromise = risc + "credential-compromise"

	Verification  = stream + "verification"
	StreamUpdated = stream + "stream-updated"

	caep   = "https://schemas.openid.net/secevent/caep/event-type/"
	risc   = "https://schemas.openid.net/secevent/risc/event-type/"
	stream = "https://schemas.openid.net/secevent/ssf/event-type/"
)

// The error codes of RFC 8935, section 2.4, which RFC 8936 takes over.
const (
	InvalidRequest       = "invalid_request"
	InvalidKey           = "invalid_key"
	InvalidIssuer        = "invalid_issuer"
	InvalidAudience      = "invalid_audience"
	AuthenticationFailed = "authentication_failed"
	AccessDenied         = "access_denied"
)

// Refusal is why a token is not accepted; its texts are for the transmitter, and
// quote nothing of the token.
type Refusal struct {
	Code        string `json:"err"`
	Description string `json:"description"`
}

func (r *Refusal) Error() string { return r.Code + ": " + r.Description }

func refuse(code, format string, args ...any) error {
	return &Refusal{Code: code, Description: fmt.Sprintf(format, args...)}
}

// algorithms are those by which a token may be signed. All are asymmetric: with a
// symmetric one, whoever can read a key could forge.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// clip bounds a text from outside.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}
