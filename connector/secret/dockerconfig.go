package secret

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"

	"remit"
)

// maxRegistries bounds the registries of one file.
const maxRegistries = 512

// RegistryLogin is a login of a container registry, without its password.
type RegistryLogin struct {
	Host        string // "ghcr.io", "index.docker.io", with port and path where the file has them
	Username    string
	Token       bool // an identity or registry token instead of a password
	Fingerprint string
}

type dockerAuth struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// ParseDockerConfig reads the logins of a config.json of Docker
// (kubernetes.io/dockerconfigjson) or of the older .dockercfg form, which is the
// same without the outer object. Entries without a password, as credential
// helpers leave them, are no logins. The logins are sorted by host; at most 512
// are returned. It fails with [remit.Invalid] for anything that is no such file.
func ParseDockerConfig(data []byte, fingerprint Fingerprint) ([]RegistryLogin, error) {
	const op = "read registry logins"
	data = bytes.TrimSpace(data)
	if len(data) > MaxValue {
		return nil, remit.Errorf(remit.Invalid, op, "longer than %d bytes", MaxValue)
	}
	if len(data) == 0 || data[0] != '{' {
		return nil, remit.Errorf(remit.Invalid, op, "no JSON object")
	}
	var outer map[string]json.RawMessage
	if json.Unmarshal(data, &outer) != nil {
		return nil, remit.Errorf(remit.Invalid, op, "no JSON object")
	}
	auths := make(map[string]dockerAuth)
	if inner, ok := outer["auths"]; ok {
		if json.Unmarshal(inner, &auths) != nil {
			return nil, remit.Errorf(remit.Invalid, op, "auths is no object of logins")
		}
	} else {
		for host, raw := range outer {
			var a dockerAuth
			if json.Unmarshal(raw, &a) == nil && (a.Auth != "" || a.Password != "") {
				auths[host] = a
			}
		}
		if len(auths) == 0 && len(outer) > 0 && outer["credHelpers"] == nil && outer["credsStore"] == nil {
			return nil, remit.Errorf(remit.Invalid, op, "has neither auths nor logins")
		}
	}
	var out []RegistryLogin
	for host, a := range auths {
		l := RegistryLogin{Host: short(registryHost(host)), Username: short(a.Username)}
		password := a.Password
		if a.Auth != "" {
			if b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(a.Auth)); err == nil {
				if user, pw, ok := strings.Cut(strings.TrimRight(string(b), "\x00"), ":"); ok {
					if l.Username == "" {
						l.Username = short(user)
					}
					if password == "" {
						password = pw
					}
				}
			}
		}
		if t := cmp.Or(a.IdentityToken, a.RegistryToken); password == "" && t != "" {
			password, l.Token = t, true
		}
		if password == "" || l.Host == "" || placeholder(password) {
			continue
		}
		l.Fingerprint = fingerprintOf(fingerprint, []byte(password))
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b RegistryLogin) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Username, b.Username), cmp.Compare(a.Fingerprint, b.Fingerprint))
	})
	// https://index.docker.io/v1/ and …/v2/ are one registry.
	out = slices.CompactFunc(out, func(a, b RegistryLogin) bool { return a.Host == b.Host && a.Fingerprint == b.Fingerprint })
	if len(out) > maxRegistries {
		out = out[:maxRegistries]
	}
	return out, nil
}

func registryHost(key string) string {
	h := withoutLogin(strings.TrimSpace(key))
	if _, rest, ok := strings.Cut(h, "://"); ok {
		h = rest
	}
	h = strings.TrimRight(h, "/")
	for _, api := range []string{"/v1", "/v2"} {
		h = strings.TrimSuffix(h, api)
	}
	return strings.ToLower(h)
}
