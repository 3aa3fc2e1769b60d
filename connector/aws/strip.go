package aws

import (
	"github.com/valyala/fastjson"

	"remit/connector"
)

// Strip takes secrets out of an event: session tokens, secret keys, passwords,
// user data, tokens of federation, the environment of functions and tasks, and
// what [connector.StripTokens] finds in any text.
func (CloudTrail) Strip(v *fastjson.Value, arena *fastjson.Arena) bool {
	if v == nil {
		return false
	}
	changed := connector.StripTokens(v, arena, isSecret)
	if v.Type() != fastjson.TypeObject {
		return changed
	}
	v.GetObject().Visit(func(key []byte, part *fastjson.Value) {
		switch string(key) {
		case "requestParameters", "requestparameters", "responseElements", "responseelements":
			if stripVariables(part, arena, stripLevels) {
				changed = true
			}
		}
	})
	return changed
}

// stripLevels is how deep in a request variables lie at most: in a task
// definition's list of containers, three.
const stripLevels = 8

// stripVariables replaces the values of environment variables, whose names are
// the customer's: Lambda's environment.variables, and the lists of names and
// values of ECS, CodeBuild and App Runner.
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
			switch string(key) {
			case "userData": // {"value": …} of ModifyInstanceAttribute
				if connector.StripAll(item, arena) {
					changed = true
				}
			case "variables", "environmentVariables", "environment", "environmentVariablesOverride", "runtimeEnvironmentVariables":
				if stripValues(item, arena) {
					changed = true
				}
			default:
				if stripVariables(item, arena, levels-1) {
					changed = true
				}
			}
		})
	}
	return changed
}

// stripValues strips a map of variables, or a list of objects with a value; of
// other objects, as Lambda's around its variables, what lies in them.
func stripValues(v *fastjson.Value, arena *fastjson.Arena) bool {
	switch v.Type() {
	case fastjson.TypeArray:
		var changed bool
		for _, item := range v.GetArray() {
			if item.Type() == fastjson.TypeObject && connector.StripAll(item.Get("value"), arena) {
				changed = true
			}
		}
		return changed
	case fastjson.TypeObject:
		if inner := v.Get("variables"); inner != nil && inner.Type() == fastjson.TypeObject {
			return connector.StripAll(inner, arena)
		}
		if inner := v.Get("environmentVariables"); inner != nil {
			return stripValues(inner, arena)
		}
		if v.Exists("computeType") || v.Exists("image") { // of a CodeBuild project
			return false
		}
		return connector.StripAll(v, arena)
	}
	return false
}

// isSecret knows the names of what is secret wherever it stands in an event.
// Services write their parameters with a small or a capital letter.
func isSecret(key string) bool {
	switch key {
	case "sessionToken", "SessionToken", "secretAccessKey", "SecretAccessKey",
		"password", "Password", "oldPassword", "newPassword", "initialPassword",
		"masterUserPassword", "MasterUserPassword", "masterPassword", "tdeCredentialPassword",
		"adminPassword", "adminUserPassword", "userPassword", "previousPassword", "proposedPassword",
		"temporaryPassword", "serviceAccountPassword", "smbGuestPassword",
		"userData", "UserData", "passwordData",
		"webIdentityToken", "WebIdentityToken", "SAMLAssertion", "sAMLAssertion", "samlAssertion",
		"accessToken", "refreshToken", "idToken", "clientSecret", "subjectToken", "authorizationToken",
		"signinToken", "SigninToken", "deviceCode", "codeVerifier",
		"secretString", "SecretString", "secretBinary", "SecretBinary",
		"privateKey", "PrivateKey", "keyMaterial", "privateKeyMaterial", "plaintext", "plaintextDataKey",
		"authToken", "AuthToken", "tokenValue", "oauthToken", "OAuthToken", "secretHash",
		"serviceSpecificCredentialSecret", "servicePassword", "preSharedKey", "PreSharedKey",
		"X-Amz-Security-Token", "X-Amz-Signature", "x-amz-security-token", "x-amz-signature":
		return true
	}
	return false
}
