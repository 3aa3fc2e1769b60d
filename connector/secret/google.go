package secret

import (
	"bytes"
	"encoding/json"

	"remit"
)

// googleKey recognises the key file of a Google Cloud service account
// (https://cloud.google.com/iam/docs/keys-create-delete) and of Google's
// "authorized_user" logins.
func googleKey(doc []byte, fingerprint Fingerprint) (Found, bool) {
	if len(doc) == 0 || doc[0] != '{' || !bytes.Contains(doc, []byte(`"type"`)) {
		return Found{}, false
	}
	var f struct {
		Type         string `json:"type"`
		PrivateKeyID string `json:"private_key_id"`
		PrivateKey   string `json:"private_key"`
		ClientEmail  string `json:"client_email"`
		RefreshToken string `json:"refresh_token"`
	}
	if json.Unmarshal(doc, &f) != nil {
		return Found{}, false
	}
	switch {
	case f.Type == "service_account" && len(f.PrivateKey) > 64 && !placeholder(f.PrivateKeyID):
		return Found{
			Rule: "gcp-service-account-key", Provider: "gcp", Type: remit.APIKey, Native: short(f.PrivateKeyID),
			Account: short(f.ClientEmail), Fingerprint: fingerprintOf(fingerprint, []byte(f.PrivateKey)),
		}, true
	case f.Type == "authorized_user" && len(f.RefreshToken) > 16 && !placeholder(f.RefreshToken):
		return Found{
			Rule: "gcp-refresh-token", Provider: "gcp", Type: remit.StaticToken,
			Fingerprint: fingerprintOf(fingerprint, []byte(f.RefreshToken)),
		}, true
	}
	return Found{}, false
}
