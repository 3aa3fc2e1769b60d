package gcp

import (
	"github.com/valyala/fastjson"

	"remit/connector"
)

// Strip takes secrets out of an entry: private keys, access and ID tokens,
// signed blobs, the values of secrets and keys in requests and responses, and
// what [connector.StripTokens] finds in any text.
func (Audit) Strip(v *fastjson.Value, arena *fastjson.Arena) bool {
	if v == nil {
		return false
	}
	changed := connector.StripTokens(v, arena, isSecret)
	if v.Type() != fastjson.TypeObject {
		return changed
	}
	if p := payload(v); p != nil {
		for _, part := range [...]string{"request", "response"} {
			if stripVariables(p.Get(part), arena, stripLevels) {
				changed = true
			}
		}
	}
	return changed
}

// stripLevels is how deep in a request environment variables lie at most.
const stripLevels = 12

// stripVariables replaces the values of environment variables, whose names are
// the customer's: maps of Cloud Functions, lists of names and values of Cloud
// Run and Cloud Build's "NAME=value".
func stripVariables(v *fastjson.Value, arena *fastjson.Arena, levels int) bool {
	if v == nil || levels == 0 {
		return false
	}
	var changed bool
	switch v.Type() {
	case fastjson.TypeArray:
		for _, item := range v.GetArray() {
			if stripVariables(item, arena, levels-1) {
				changed = true
			}
		}
	case fastjson.TypeObject:
		v.GetObject().Visit(func(key []byte, item *fastjson.Value) {
			var did bool
			switch string(key) {
			case "environmentVariables", "buildEnvironmentVariables", "environment_variables", "secretEnv":
				did = connector.StripAll(item, arena)
			case "env":
				for _, variable := range item.GetArray() {
					if variable.Type() == fastjson.TypeObject {
						variable = variable.Get("value")
					}
					if connector.StripAll(variable, arena) {
						did = true
					}
				}
			default:
				did = stripVariables(item, arena, levels-1)
			}
			changed = changed || did
		})
	}
	return changed
}

// isSecret knows the names of what is secret wherever it stands in an entry.
func isSecret(key string) bool {
	switch key {
	case "privateKeyData", "private_key_data", "privateKey", "private_key",
		"accessToken", "access_token", "idToken", "id_token", "refreshToken", "refresh_token",
		"token", "jwt", "signedJwt", "signed_jwt", "signedBlob", "signed_blob", "signature",
		"subjectToken", "subject_token", "assertion", "authorizationCode",
		"password", "rootPassword", "root_password", "userPassword", "adminPassword",
		"clientSecret", "client_secret", "sharedSecret", "shared_secret",
		"keyString", "key_string", "rawKey", "raw_key", "rsaEncryptedKey",
		"plaintext", "secretData", "secret_data", "hmacKey", "clientKey", "client_key", "preSharedKey":
		return true
	}
	return false
}
