package okta

import (
	"bytes"

	"github.com/valyala/fastjson"

	"remit/connector"
)

// Strip removes tokens, passwords and one-time codes under their names, those
// that stand in the addresses of requests (a password reset's, an activation's,
// a sign-in's), and what was typed for a login and is none: often the password.
func (systemLog) Strip(v *fastjson.Value, arena *fastjson.Arena) bool {
	changed := connector.StripTokens(v, arena, secretKey)
	if v.Type() != fastjson.TypeObject {
		return changed
	}
	if detail := v.Get("detail"); detail != nil && v.Get("detail-type") != nil {
		v = detail
	}
	if debug := get(get(v, "debugContext", "debugcontext"), "debugData", "debugdata"); debug != nil {
		for _, key := range [...]string{"requestUri", "url", "redirectUri", "targetUrl", "requesturi", "redirecturi"} {
			address := debug.Get(key)
			if address == nil || address.Type() != fastjson.TypeString {
				continue
			}
			if clean, ok := stripAddress(address.GetStringBytes()); ok {
				*address = *arena.NewStringBytes(clean)
				changed = true
			}
		}
	}
	actor := v.Get("actor")
	eventType := getString(v, "eventType", "eventtype")
	if len(eventType) == 0 {
		eventType = getString(v, "legacyEventType", "legacyeventtype")
	}
	if actor == nil || actor.Type() != fastjson.TypeObject || !mistyped(actor, eventType, v.Get("outcome")) {
		return changed
	}
	for _, key := range [...]string{"alternateId", "alternateid", "displayName", "displayname"} {
		if name := actor.Get(key); name != nil && name.Type() == fastjson.TypeString {
			*name = *arena.NewString(connector.Stripped)
		}
	}
	return true
}

func secretKey(key string) bool {
	switch key {
	case "clientSecret", "client_secret", "clientAssertion", "client_assertion", "assertion",
		"accessToken", "access_token", "refreshToken", "refresh_token", "idToken", "id_token",
		"sessionToken", "stateToken", "stateHandle", "recoveryToken", "activationToken", "interactionHandle", "deviceSecret", "device_secret",
		"password", "newPassword", "oldPassword", "passCode", "passcode", "otp", "answer", "sharedSecret", "shared_secret",
		"code", "codeVerifier", "code_verifier", "deviceToken", "privateKey", "apiToken", "token":
		return true
	}
	return false
}

// places are where a token follows in the path of an address.
var places = [...][]byte{
	[]byte("/reset_password/"), []byte("/reset-password/"), []byte("/signin/reset/"), []byte("/welcome/"),
	[]byte("/signin/verify/token/"), []byte("/activate/"), []byte("/account/unlock/"), []byte("/signin/unlock/"), []byte("/email/verify/"),
}

// leastToken is how long at least a token in a path is.
const leastToken = 12

// stripAddress returns an address without the tokens in its path and the values
// of secret parameters of its query, and whether it had any.
func stripAddress(b []byte) ([]byte, bool) {
	path, query, hasQuery := bytes.Cut(b, []byte("?"))
	changed := false
	for _, place := range places {
		i := bytes.Index(path, place)
		if i < 0 {
			continue
		}
		start := i + len(place)
		end := start
		for end < len(path) && path[end] != '/' {
			end++
		}
		if end-start < leastToken {
			continue
		}
		path = append(append(append([]byte(nil), path[:start]...), connector.Stripped...), path[end:]...)
		changed = true
	}
	var out []byte
	if hasQuery {
		for i, pair := range bytes.Split(query, []byte("&")) {
			if i > 0 {
				out = append(out, '&')
			}
			name, value, ok := bytes.Cut(pair, []byte("="))
			out = append(out, name...)
			if !ok {
				continue
			}
			out = append(out, '=')
			if len(value) > 0 && string(value) != connector.Stripped && isSecretParameter(name) {
				value = []byte(connector.Stripped)
				changed = true
			}
			out = append(out, value...)
		}
	}
	if !changed {
		return b, false
	}
	clean := append([]byte(nil), path...)
	if hasQuery {
		clean = append(append(clean, '?'), out...)
	}
	return clean, true
}

func isSecretParameter(name []byte) bool {
	switch string(name) {
	case "token", "stateToken", "sessionToken", "recoveryToken", "activationToken", "stateHandle", "code", "code_verifier",
		"client_secret", "client_assertion", "access_token", "id_token", "refresh_token", "id_token_hint", "SAMLResponse", "password", "otp":
		return true
	}
	return false
}
