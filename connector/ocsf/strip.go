package ocsf

import (
	"github.com/valyala/fastjson"

	"remit/connector"
)

// Strip removes what stands under the names of secrets anywhere, for a product
// may keep the request as it came under unmapped or api.request.data, and
// tokens within any text.
func (events) Strip(v *fastjson.Value, arena *fastjson.Arena) bool {
	return connector.StripTokens(v, arena, secretKey)
}

func secretKey(key string) bool {
	switch key {
	case "password", "newPassword", "oldPassword", "new_password", "old_password", "passcode", "otp", "recovery_code", "recovery_codes",
		"secret", "secretAccessKey", "secret_access_key", "SecretAccessKey", "sessionToken", "session_token", "SessionToken",
		"clientSecret", "client_secret", "token", "accessToken", "access_token", "refreshToken", "refresh_token", "idToken", "id_token",
		"apiKey", "api_key", "apikey", "privateKey", "private_key", "SecretString", "secretString", "SecretBinary",
		"Authorization", "authorization", "Cookie", "cookie", "Set-Cookie", "set-cookie":
		return true
	}
	return false
}
