package github

import (
	"bytes"

	"github.com/valyala/fastjson"

	"remit/connector"
)

// Strip removes the secrets of hooks and apps, secrets that secret scanning
// found, recovery codes, and GitHub tokens and addresses of incoming webhooks in
// any text: commit messages and hook addresses hold them. The hash of a token
// (hashed_token) stays, for it is the credential's name.
func (audit) Strip(v *fastjson.Value, arena *fastjson.Arena) bool {
	changed := connector.StripTokens(v, arena, secretKey)
	return stripText(v, arena) || changed
}

func secretKey(key string) bool {
	switch key {
	case "secret", "secret_value", "encrypted_value", "client_secret", "webhook_secret", "token", "access_token",
		"refresh_token", "registration_token", "jit_config", "encoded_jit_config", "private_key", "pem",
		"password", "recovery_code", "recovery_codes", "two_factor_recovery_codes", "otp", "device_code", "authorization":
		return true
	}
	return false
}

// stripText cuts tokens out of every string. Setting the value through its
// pointer reaches the second of two equal keys, too.
func stripText(v *fastjson.Value, arena *fastjson.Arena) bool {
	changed := false
	switch v.Type() {
	case fastjson.TypeString:
		if clean, ok := cutTokens(v.GetStringBytes()); ok {
			*v = *arena.NewStringBytes(clean)
			return true
		}
	case fastjson.TypeArray:
		for _, item := range v.GetArray() {
			changed = stripText(item, arena) || changed
		}
	case fastjson.TypeObject:
		v.GetObject().Visit(func(_ []byte, item *fastjson.Value) {
			changed = stripText(item, arena) || changed
		})
	}
	return changed
}

// marks begin what authenticates; each is followed by at least so many
// characters of it. Prefixes of tokens: https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/about-authentication-to-github
var marks = [...]struct {
	mark  []byte
	least int
}{
	{[]byte("ghp_"), 30},
	{[]byte("gho_"), 30},
	{[]byte("ghu_"), 30},
	{[]byte("ghs_"), 30},
	{[]byte("ghr_"), 30},
	{[]byte("github_pat_"), 22},
	{[]byte("hooks.slack.com/services/"), 8},
	{[]byte("discord.com/api/webhooks/"), 8},
	{[]byte("webhook.office.com/"), 8},
}

// cutTokens returns b without tokens, and whether it had any.
func cutTokens(b []byte) ([]byte, bool) {
	if len(b) < 24 {
		return b, false
	}
	changed := false
	for _, m := range marks {
		if clean, ok := cutMark(b, m.mark, m.least); ok {
			b, changed = clean, true
		}
	}
	return b, changed
}

// cutMark replaces what follows each mark. Each byte is copied at most once.
func cutMark(b, mark []byte, least int) ([]byte, bool) {
	var out []byte
	copied, from := 0, 0
	for {
		i := bytes.Index(b[from:], mark)
		if i < 0 {
			break
		}
		start := from + i + len(mark)
		end := start
		for end < len(b) && secretChar(b[end]) {
			end++
		}
		from = end
		if end-start >= least && string(b[start:end]) != connector.Stripped {
			out = append(append(out, b[copied:start]...), connector.Stripped...)
			copied = end
		}
	}
	if out == nil {
		return b, false
	}
	return append(out, b[copied:]...), true
}

func secretChar(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-' || c == '/' || c == '@' || c == '.'
}
