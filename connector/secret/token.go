package secret

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"remit"
)

// maxToken bounds a JSON Web Token; the API server's are about 1 KB.
const maxToken = 64 << 10

// Token is what the claims of a JSON Web Token (RFC 7519) say. They are read
// without verifying the signature: facts about what the token claims to be,
// never a reason to trust it.
type Token struct {
	Algorithm string // of the header: "RS256"
	Subject   string
	Issuer    string
	Audiences []string
	ID        string // jti
	Issued    time.Time
	NotBefore time.Time
	Expires   time.Time // zero: never

	// The claims of a Kubernetes service-account token; ServiceAccount is ""
	// for all others. Legacy marks the kind without end that is kept in a
	// Secret, named by Secret.
	Legacy         bool
	Namespace      string
	ServiceAccount string
	AccountUID     string
	Pod, PodUID    string
	Node           string
	Secret         string
}

// Provider tells the platform that accepts the token, as far as its issuer
// tells, or "".
func (t *Token) Provider() string {
	iss := strings.ToLower(t.Issuer)
	switch {
	case t.ServiceAccount != "":
		return "kubernetes"
	case strings.Contains(iss, "accounts.google.com") || strings.HasSuffix(iss, ".gserviceaccount.com"):
		return "gcp"
	case strings.Contains(iss, "token.actions.githubusercontent.com"):
		return "github"
	case strings.HasPrefix(iss, "https://gitlab.com"):
		return "gitlab"
	case strings.Contains(iss, "login.microsoftonline.com") || strings.Contains(iss, "sts.windows.net"):
		return "azure"
	case strings.Contains(iss, "cognito-idp."):
		return "aws"
	case strings.Contains(iss, ".okta.com"):
		return "okta"
	case strings.Contains(iss, ".auth0.com"):
		return "auth0"
	case iss == "supabase":
		return "supabase"
	}
	return ""
}

// audiences is a claim that is one string or a list of them (RFC 7519, 4.1.3).
type audiences []string

func (a *audiences) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audiences{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(b, &many); err != nil {
		return err
	}
	*a = many
	return nil
}

type ref struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

type claims struct {
	Sub        string    `json:"sub"`
	Iss        string    `json:"iss"`
	Aud        audiences `json:"aud"`
	Jti        string    `json:"jti"`
	Exp        float64   `json:"exp"`
	Iat        float64   `json:"iat"`
	Nbf        float64   `json:"nbf"`
	Kubernetes struct {
		Namespace      string `json:"namespace"`
		ServiceAccount ref    `json:"serviceaccount"`
		Pod            ref    `json:"pod"`
		Node           ref    `json:"node"`
		Secret         ref    `json:"secret"`
	} `json:"kubernetes.io"`
	LegacyNamespace string `json:"kubernetes.io/serviceaccount/namespace"`
	LegacyName      string `json:"kubernetes.io/serviceaccount/service-account.name"`
	LegacyUID       string `json:"kubernetes.io/serviceaccount/service-account.uid"`
	LegacySecret    string `json:"kubernetes.io/serviceaccount/secret.name"`
}

// ParseToken reads the claims of a signed JSON Web Token in compact form
// (RFC 7515, section 3.1), among them those of Kubernetes service-account tokens
// of both kinds
// (https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/).
// The signature is not verified. It fails with [remit.Invalid] for anything else,
// unsigned and encrypted tokens included, and for more than 64 KiB.
func ParseToken(raw []byte) (Token, error) {
	const op = "read token"
	raw = bytes.TrimSpace(raw)
	if len(raw) > maxToken {
		return Token{}, remit.Errorf(remit.Invalid, op, "longer than %d bytes", maxToken)
	}
	parts := bytes.Split(raw, []byte{'.'})
	if len(parts) != 3 || len(parts[2]) < 8 {
		return Token{}, remit.Errorf(remit.Invalid, op, "not three parts and a signature")
	}
	var head struct {
		Alg string `json:"alg"`
	}
	if err := decodePart(parts[0], &head); err != nil || head.Alg == "" {
		return Token{}, remit.Errorf(remit.Invalid, op, "the header is no JSON object with an algorithm")
	}
	var c claims
	if err := decodePart(parts[1], &c); err != nil {
		// The decoder's message quotes nothing, but adds nothing either.
		return Token{}, remit.Errorf(remit.Invalid, op, "the claims are no JSON object of the expected types")
	}
	if _, err := decodeBase64(parts[2]); err != nil {
		return Token{}, remit.Errorf(remit.Invalid, op, "the signature is not base64url")
	}
	t := Token{
		Algorithm: short(head.Alg), Subject: short(c.Sub), Issuer: short(c.Iss), ID: short(c.Jti),
		Issued: numericDate(c.Iat), NotBefore: numericDate(c.Nbf), Expires: numericDate(c.Exp),
	}
	for i, a := range c.Aud {
		if i == 16 {
			break
		}
		t.Audiences = append(t.Audiences, short(a))
	}
	switch {
	case c.LegacyName != "" && c.LegacyNamespace != "":
		t.Legacy = true
		t.Namespace, t.ServiceAccount = short(c.LegacyNamespace), short(c.LegacyName)
		t.AccountUID, t.Secret = short(c.LegacyUID), short(c.LegacySecret)
	case c.Kubernetes.ServiceAccount.Name != "" && c.Kubernetes.Namespace != "":
		k := c.Kubernetes
		t.Namespace, t.ServiceAccount, t.AccountUID = short(k.Namespace), short(k.ServiceAccount.Name), short(k.ServiceAccount.UID)
		t.Pod, t.PodUID, t.Node, t.Secret = short(k.Pod.Name), short(k.Pod.UID), short(k.Node.Name), short(k.Secret.Name)
	}
	return t, nil
}

func decodePart(part []byte, v any) error {
	b, err := decodeBase64(part)
	if err != nil {
		return err
	}
	if b = bytes.TrimSpace(b); len(b) == 0 || b[0] != '{' {
		return remit.Errorf(remit.Invalid, "", "no JSON object")
	}
	return json.Unmarshal(b, v)
}

func decodeBase64(part []byte) ([]byte, error) {
	out := make([]byte, base64.RawURLEncoding.DecodedLen(len(part)))
	n, err := base64.RawURLEncoding.Decode(out, part)
	return out[:n], err
}

// numericDate reads seconds since the epoch (RFC 7519, section 2); years beyond
// 9999 have no JSON form and count as not given.
func numericDate(sec float64) time.Time {
	if math.IsNaN(sec) || sec <= 0 || sec > 253402300799 {
		return time.Time{}
	}
	return time.Unix(int64(sec), 0).UTC()
}

// short bounds a text from outside; nothing that names a thing is longer.
func short(s string) string {
	const most = 512
	if len(s) > most {
		s = s[:most]
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "�")
	}
	return s
}
