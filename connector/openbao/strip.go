package openbao

import (
	"bytes"

	"github.com/valyala/fastjson"

	"remit/connector"
)

// Strip removes what a device writes in the clear: with log_raw everything
// that was sent and given, tokens first. HMACs, which are what devices write
// otherwise, and accessors stay, for they are the credentials' names. Values of
// keys that an operator exempted from hashing stay unless their name is a
// secret's or the mount keeps secrets.
func (audit) Strip(v *fastjson.Value, arena *fastjson.Arena) bool {
	if v.Type() != fastjson.TypeObject {
		return connector.StripTokens(v, arena, secretKey)
	}
	request, response := v.Get("request"), v.Get("response")
	raw := false
	for _, place := range [...]struct {
		holder *fastjson.Value
		key    string
	}{
		{v.Get("auth"), "client_token"},
		{request, "client_token"},
		{response.Get("auth"), "client_token"},
		{response.Get("wrap_info"), "token"},
	} {
		token := place.holder.Get(place.key)
		if inClear(token) {
			raw = true
			*token = *arena.NewString(connector.Stripped)
		}
	}
	changed := raw
	if raw || keepsSecrets(request.GetStringBytes("mount_type")) {
		changed = stripClear(request.Get("data"), arena) || changed
		changed = stripClear(response.Get("data"), arena) || changed
	}
	changed = stripHeaders(request.Get("headers"), arena) || changed
	changed = stripNamed(request.Get("data"), arena) || changed
	if string(request.GetStringBytes("operation")) != "list" { // whose keys are names
		changed = stripNamed(response.Get("data"), arena) || changed
	}
	return connector.StripTokens(v, arena, nil) || changed
}

// inClear says that a value is text that is neither an HMAC nor stripped.
func inClear(v *fastjson.Value) bool {
	if v == nil || v.Type() != fastjson.TypeString {
		return false
	}
	b := v.GetStringBytes()
	return len(b) > 0 && !bytes.HasPrefix(b, hmacPrefix) && string(b) != connector.Stripped
}

// keepsSecrets says that what a mount takes and gives are secrets.
func keepsSecrets(mountType []byte) bool {
	switch string(mountType) {
	case "kv", "generic", "cubbyhole", "transit", "totp", "database", "ssh", "ldap":
		return true
	}
	return false
}

// stripClear replaces every text that is no HMAC.
func stripClear(v *fastjson.Value, arena *fastjson.Arena) bool {
	return walk(v, func(_ []byte, item *fastjson.Value) bool {
		if !inClear(item) {
			return false
		}
		*item = *arena.NewString(connector.Stripped)
		return true
	})
}

// stripNamed replaces text under the names of secrets.
func stripNamed(v *fastjson.Value, arena *fastjson.Arena) bool {
	return walk(v, func(key []byte, item *fastjson.Value) bool {
		if !inClear(item) || !secretKey(string(key)) {
			return false
		}
		*item = *arena.NewString(connector.Stripped)
		return true
	})
}

// stripHeaders replaces the headers that carry tokens; the others are what the
// operator has asked for.
func stripHeaders(v *fastjson.Value, arena *fastjson.Arena) bool {
	return walk(v, func(key []byte, item *fastjson.Value) bool {
		if !inClear(item) {
			return false
		}
		switch string(bytes.ToLower(key)) {
		case "x-vault-token", "authorization", "cookie", "x-vault-wrap-token":
			*item = *arena.NewString(connector.Stripped)
			return true
		}
		return false
	})
}

// walk calls leaf for every value that is neither a list nor an object, with
// the key that it or its list stands under, and says whether any call said so.
func walk(v *fastjson.Value, leaf func(key []byte, item *fastjson.Value) bool) bool {
	return walkUnder(nil, v, leaf)
}

func walkUnder(key []byte, v *fastjson.Value, leaf func([]byte, *fastjson.Value) bool) bool {
	if v == nil {
		return false
	}
	changed := false
	switch v.Type() {
	case fastjson.TypeArray:
		for _, item := range v.GetArray() {
			changed = walkUnder(key, item, leaf) || changed
		}
	case fastjson.TypeObject:
		v.GetObject().Visit(func(key []byte, item *fastjson.Value) {
			changed = walkUnder(key, item, leaf) || changed
		})
	default:
		changed = leaf(key, v)
	}
	return changed
}

// secretKey knows the parameters of the API that are secrets.
// Source: https://openbao.org/api-docs/
func secretKey(key string) bool {
	switch key {
	case "token", "client_token", "password", "passcode", "secret_id", "jwt", "role_secret", "secret", "secret_key",
		"access_key", "security_token", "session_token", "private_key", "private_key_passphrase", "credentials", "client_secret", "oidc_client_secret",
		"bindpass", "root_token", "key", "keys", "keys_base64", "recovery_keys", "recovery_keys_base64", "nonce_key",
		"otp", "otp_code", "code", "barcode", "plaintext", "ciphertext", "hmac", "signature", "signed_key", "signed_token",
		"pem_bundle", "pem_keys", "connection_url", "token_reviewer_jwt", "kubernetes_jwt", "certificate_key", "pkcs7", "iam_request_headers",
		"unseal_key", "encoded_token", "encoded_root_token", "service_account_token":
		return true
	}
	return false
}
