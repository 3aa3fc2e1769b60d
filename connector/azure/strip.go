package azure

import (
	"bytes"

	"github.com/valyala/fastjson"

	"remit/connector"
)

// Strip takes secrets out of an event: see strip.
func (Activity) Strip(v *fastjson.Value, arena *fastjson.Arena) bool { return strip(v, arena) }

// Strip takes secrets out of an event: see strip.
func (SignIn) Strip(v *fastjson.Value, arena *fastjson.Arena) bool { return strip(v, arena) }

// Strip takes secrets out of an event: see strip.
func (Directory) Strip(v *fastjson.Value, arena *fastjson.Arena) bool { return strip(v, arena) }

// strip takes out passwords, keys, connection strings, tokens of claims, shared
// access signatures and what [connector.StripTokens] finds, also within the
// requests and responses that an event quotes as text. Quotes of operations
// that handle secrets lose all their values; one that was cut is taken out.
func strip(v *fastjson.Value, arena *fastjson.Arena) bool {
	if v == nil {
		return false
	}
	changed := connector.StripTokens(v, arena, isSecret)
	if v.Type() != fastjson.TypeObject {
		return changed
	}
	var operation []byte
	var parts [4]*fastjson.Value
	n := 0
	visit(v, func(key []byte, value *fastjson.Value) {
		switch string(key) {
		case "operationname", "operationnamevalue":
			if operation == nil {
				b := text(value)
				operation = lower(make([]byte, 0, len(b)), b)
			}
		case "properties", "properties_d":
			if n < len(parts) {
				parts[n] = value
				n++
			}
		}
	})
	all := handlesSecrets(operation)
	for _, properties := range parts[:n] {
		visit(properties, func(key []byte, value *fastjson.Value) {
			switch string(key) {
			case "requestbody", "responsebody":
			default:
				return
			}
			b := value.GetStringBytes()
			switch {
			case len(b) > 0 && (b[0] == '{' || b[0] == '[') && fastjson.ValidateBytes(b) != nil:
				changed = connector.StripAll(value, arena) || changed
			case all:
				changed = connector.StripTokens(value, arena, anyKey) || changed
			}
		})
	}
	return changed
}

func anyKey(string) bool { return true }

// handlesSecrets says whether an operation, in lower case, takes or gives
// secrets under names that do not tell.
func handlesSecrets(operation []byte) bool {
	for _, part := range [...]string{
		"/secrets/", "/listkeys", "/listsecrets", "/listcredential", "/listadmincredential", "/listclusteradmin", "/listclusteruser",
		"/regeneratekey", "/sites/config", "/slots/config", "/containergroups/", "/containerapps/", "/listconnectionstrings",
		"/listaccountsas", "/listservicesas", "/runcommand", "/extensions/write", "/variables/", "/credentials/",
		"/deployments/", "/virtualmachinescalesets/write", // parameters and protected settings are objects
	} {
		if bytes.Contains(operation, []byte(part)) {
			return true
		}
	}
	return false
}

// isSecret knows the names of what is secret wherever it stands in an event.
func isSecret(key string) bool {
	switch key {
	case "password", "Password", "adminPassword", "administratorLoginPassword", "administratorPassword", "newPassword",
		"sqlAdministratorLoginPassword", "accessToken", "AccessToken", "access_token", "refreshToken", "refresh_token",
		"idToken", "id_token", "clientSecret", "client_secret", "secretText", "appSecret", "servicePrincipalKey",
		"accountKey", "storageAccountKey", "primaryKey", "secondaryKey", "primaryMasterKey", "secondaryMasterKey",
		"connectionString", "primaryConnectionString", "secondaryConnectionString", "sasToken", "sasUri", "sharedAccessKey",
		"sharedAccessSignature", "accountSasToken", "serviceSasToken", "customData", "userData", "commandToExecute",
		"protectedSettings", "privateKey", "sharedKey", "authorizationKey", "authKey", "registrationToken",
		"temporaryAccessPass", "assertion", "client_assertion":
		return true
	}
	return false
}
