package secret

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"

	"remit"
)

// maxUsers bounds the users of one kubeconfig.
const maxUsers = 256

// KubeUser is a user of a kubeconfig document: what it logs in with.
type KubeUser struct {
	Name    string
	Cluster string // of the first context that names the user
	Server  string // the cluster's address, without user and password

	Certificate *Certificate // client-certificate-data, the first of its chain
	Key         *PrivateKey  // client-key-data, when it can be read
	HasKey      bool         // client-key-data is there, readable or not

	HasToken         bool
	TokenFingerprint string
	Token            *Token // the claims, when it is a JSON Web Token

	Username            string // basic authentication, which no API server since v1.19 accepts
	HasPassword         bool
	PasswordFingerprint string

	Exec         string // the command that fetches a credential
	AuthProvider string // the name of the (removed) client-side provider
	// ProviderFingerprint is that of the token which the provider keeps in
	// the file, or "" when it keeps none.
	ProviderFingerprint string
	HasProviderToken    bool

	Files bool // a certificate, key or token is named as a file elsewhere
}

type kubeconfig struct {
	Kind     string `json:"kind"`
	Clusters []struct {
		Name    string `json:"name"`
		Cluster struct {
			Server string `json:"server"`
		} `json:"cluster"`
	} `json:"clusters"`
	Contexts []struct {
		Context struct {
			Cluster string `json:"cluster"`
			User    string `json:"user"`
		} `json:"context"`
	} `json:"contexts"`
	Users []struct {
		Name string `json:"name"`
		User struct {
			CertificateData string `json:"client-certificate-data"`
			Certificate     string `json:"client-certificate"`
			KeyData         string `json:"client-key-data"`
			Key             string `json:"client-key"`
			Token           string `json:"token"`
			TokenFile       string `json:"tokenFile"`
			Username        string `json:"username"`
			Password        string `json:"password"`
			Exec            *struct {
				Command string `json:"command"`
			} `json:"exec"`
			AuthProvider *struct {
				Name   string            `json:"name"`
				Config map[string]string `json:"config"`
			} `json:"auth-provider"`
		} `json:"user"`
	} `json:"users"`
}

// IsKubeconfig tells cheaply whether a value may be a kubeconfig document, so
// that only such are parsed.
func IsKubeconfig(data []byte) bool {
	if len(data) < 32 || len(data) > MaxValue {
		return false
	}
	return bytes.Contains(data, []byte("users")) && bytes.Contains(data, []byte("Config")) && kindConfig.Match(data)
}

var kindConfig = regexp.MustCompile(`(?m)(?:^|[{,\s])["']?kind["']?\s*:\s*["']?Config["']?\s*(?:$|[,}#])`)

// ParseKubeconfig reads the users of a kubeconfig document
// (https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/), YAML or
// JSON, without their secrets. It opens none of the files that the document
// names and runs nothing. At most 256 users are read. It fails with
// [remit.Invalid] when the value is no such document; a user whose certificate
// cannot be read is returned without one.
func ParseKubeconfig(data []byte, fingerprint Fingerprint) ([]KubeUser, error) {
	const op = "read kubeconfig"
	if len(data) > MaxValue {
		return nil, remit.Errorf(remit.Invalid, op, "longer than %d bytes", MaxValue)
	}
	if !aliasFree(data) {
		return nil, remit.Errorf(remit.Invalid, op, "has YAML anchors, which kubeconfigs do not use")
	}
	var doc kubeconfig
	if err := yaml.Unmarshal(data, &doc); err != nil {
		// The parser's message quotes lines: not passed on.
		return nil, remit.Errorf(remit.Invalid, op, "no YAML document of the expected shape")
	}
	if doc.Kind != "Config" {
		return nil, remit.Errorf(remit.Invalid, op, "kind is not Config")
	}
	servers := make(map[string]string, len(doc.Clusters))
	for _, c := range doc.Clusters {
		servers[c.Name] = withoutLogin(c.Cluster.Server)
	}
	clusterOf := make(map[string]string, len(doc.Contexts))
	for _, c := range doc.Contexts {
		if _, ok := clusterOf[c.Context.User]; !ok {
			clusterOf[c.Context.User] = c.Context.Cluster
		}
	}
	var out []KubeUser
	for i, u := range doc.Users {
		if i == maxUsers {
			break
		}
		cluster := clusterOf[u.Name]
		k := KubeUser{
			Name: short(u.Name), Cluster: short(cluster), Server: short(servers[cluster]),
			Username: short(u.User.Username),
			Files:    u.User.Certificate != "" || u.User.Key != "" || u.User.TokenFile != "",
		}
		if b, ok := decodeData(u.User.CertificateData); ok {
			// Broken ones are left out; the user is still told of.
			if bundle, _ := ParseBundle(b, nil); len(bundle.Certificates) > 0 {
				k.Certificate = &bundle.Certificates[0]
			}
		}
		if b, ok := decodeData(u.User.KeyData); ok {
			k.HasKey = true
			if bundle, _ := ParseBundle(b, fingerprint); len(bundle.Keys) > 0 {
				k.Key = &bundle.Keys[0]
			}
		}
		if t := strings.TrimSpace(u.User.Token); t != "" && !placeholder(t) {
			k.HasToken, k.TokenFingerprint = true, fingerprintOf(fingerprint, []byte(t))
			if claims, err := ParseToken([]byte(t)); err == nil {
				k.Token = &claims
			}
		}
		if p := u.User.Password; p != "" && !placeholder(p) {
			k.HasPassword, k.PasswordFingerprint = true, fingerprintOf(fingerprint, []byte(p))
		}
		if e := u.User.Exec; e != nil {
			k.Exec = short(e.Command)
		}
		if a := u.User.AuthProvider; a != nil {
			k.AuthProvider = short(a.Name)
			for _, key := range []string{"refresh-token", "id-token", "access-token", "client-secret"} {
				if t := a.Config[key]; t != "" && !placeholder(t) {
					k.HasProviderToken, k.ProviderFingerprint = true, fingerprintOf(fingerprint, []byte(t))
					break
				}
			}
		}
		out = append(out, k)
	}
	return out, nil
}

func decodeData(s string) ([]byte, bool) {
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == ' ' || r == '\t' {
			return -1
		}
		return r
	}, s)
	if s == "" {
		return nil, false
	}
	b, err := base64.StdEncoding.DecodeString(s)
	return b, err == nil && len(b) > 0
}

// withoutLogin removes user and password from an URL.
func withoutLogin(u string) string {
	scheme, rest, ok := strings.Cut(u, "://")
	if !ok {
		scheme, rest = "", u
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	if at := strings.LastIndexByte(rest[:end], '@'); at >= 0 {
		rest = rest[at+1:]
		end -= at + 1
	}
	if q := strings.IndexAny(rest, "?#"); q >= 0 {
		rest = rest[:q] // tokens travel in queries
	}
	if !ok {
		return rest
	}
	return scheme + "://" + rest
}

var anchors = regexp.MustCompile(`(?m)(?:^|[\s\[{,:-])[&*][A-Za-z0-9_-]+(?:\s|$|[,\]}])`)

// aliasFree keeps documents that multiply themselves through YAML's anchors
// away from the parser.
func aliasFree(data []byte) bool { return !anchors.Match(data) }
