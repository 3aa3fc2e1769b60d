package secret

import (
	"bytes"
	"encoding/base64"
	"math"
	"net"
	"net/url"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"remit"
)

// words splits a name as people write names of settings (snake_case,
// kebab-case, dotted.paths, camelCase) into lower-case words without digits.
// Only the last 128 bytes count: what a name means stands at its end.
func words(name string) []string {
	if len(name) > 128 {
		name = name[len(name)-128:]
	}
	var out []string
	var cur []rune
	flush := func() {
		if len(cur) > 0 {
			out = append(out, strings.ToLower(string(cur)))
			cur = cur[:0]
		}
	}
	runes := []rune(name)
	for i, r := range runes {
		switch {
		case !unicode.IsLetter(r):
			flush()
			continue
		case unicode.IsUpper(r) && i > 0 && unicode.IsLower(runes[i-1]):
			flush() // apiKey
		case unicode.IsUpper(r) && i+1 < len(runes) && unicode.IsLower(runes[i+1]) && i > 0 && unicode.IsUpper(runes[i-1]):
			flush() // APIKey
		}
		cur = append(cur, r)
	}
	flush()
	return out
}

func set(list string) map[string]bool {
	m := make(map[string]bool)
	for w := range strings.FieldsSeq(list) {
		m[w] = true
	}
	return m
}

var (
	// qualifiers follow the word that says what the entry is, and say nothing.
	qualifiers = set(`value val text txt plain plaintext raw string str data b base encoded bytes
		prod production stage staging dev development test testing live sandbox qa preprod local
		primary secondary old new current previous next prev main default backup override v a`)
	passwordWords = set(`password passwd passphrase passcode pwd pass pw userpass pswd`)
	tokenWords    = set(`token tokens bearer authorization pat jwt`)
	secretWords   = set(`secret secrets credential credentials creds cred psk apikey apikeys secretkey accesskey
		privatekey authkey signingkey encryptionkey licensekey otp totp`)
	// keyKinds, before "key", tell a secret key from a key of a map.
	keyKinds = set(`api access secret private auth encryption encrypt decryption signing sign signature master service
		account shared hmac license licence session storage client webhook deploy app application admin root ssh jwt
		crypto cipher aes rsa security cookie ingest ingestion write read server unseal recovery wrapping seal host`)
	publicWords = set(`public pub publishable publickey example sample dummy fake placeholder`)
	suffixes    = []struct {
		suffix string
		typ    remit.CredentialType
	}{
		{"clientsecret", remit.ClientSecret},
		{"password", remit.Password},
		{"passwd", remit.Password},
		{"passphrase", remit.Password},
		{"token", remit.StaticToken},
		{"privatekey", remit.PrivateKey},
		{"apikey", remit.APIKey},
		{"accesskey", remit.APIKey},
		{"secretkey", remit.APIKey},
		{"secret", remit.APIKey},
	}
	// references, before "secret" or "token", tell the name of a thing that
	// holds a secret from the secret ("existingSecret", "imagePullSecrets").
	references = set(`existing pull pulling tls ref of from mount csrf has use with no without is enable enabled require required disable`)
)

// nameType judges the name of an entry: the type of credential that it claims
// to hold, or false when the name is not convincingly that of a secret. The
// last word decides, since "secret_name", "token_url" and "key_id" are no
// secrets and "name_secret" is one.
func nameType(name string) (remit.CredentialType, bool) {
	w := words(name)
	for len(w) > 1 && qualifiers[w[len(w)-1]] {
		w = w[:len(w)-1]
	}
	if len(w) == 0 {
		return "", false
	}
	for _, x := range w {
		if publicWords[x] {
			return "", false
		}
	}
	last := w[len(w)-1]
	var before string
	if len(w) > 1 {
		before = w[len(w)-2]
	}
	if references[before] {
		return "", false
	}
	switch {
	case passwordWords[last]:
		return remit.Password, true
	case tokenWords[last]:
		return remit.StaticToken, true
	case secretWords[last]:
		if before == "client" {
			return remit.ClientSecret, true
		}
		return remit.APIKey, true
	case last == "key" || last == "keys":
		switch {
		case before == "private" || before == "ssh":
			return remit.PrivateKey, true
		case keyKinds[before]:
			return remit.APIKey, true
		}
		return "", false
	}
	for _, s := range suffixes {
		if strings.HasSuffix(last, s.suffix) {
			return s.typ, true
		}
	}
	return "", false
}

// Named judges an entry by its name ("password", "api-key", "clientSecret"),
// for values in which nothing is recognisable: whether it is a credential, and
// of which type. An entry with a secret's name is still none when its value is
// empty, a placeholder, a reference to a secret that lies elsewhere, a switch, a
// number below a million, an address, a path, a public key or certificate. It
// is safe for concurrent use.
func Named(name string, value []byte) (remit.CredentialType, bool) {
	typ, ok := nameType(name)
	if !ok {
		return "", false
	}
	v := bytes.TrimSpace(value)
	if len(v) == 0 || len(v) > MaxValue {
		return "", false
	}
	// Binary values are keys as they are; text has to look like a secret.
	if utf8.Valid(v) && innocent(string(v)) {
		return "", false
	}
	if typ != remit.Password && utf8.Valid(v) {
		// A token is not a word: "token: kubernetes" names a token.
		if len(v) < 8 || (len(v) < 32 && identifier.Match(v) && !bytes.ContainsAny(v, "0123456789")) {
			return "", false
		}
	}
	return typ, true
}

// NamedType judges a name without its value; see [Named].
func NamedType(name string) (remit.CredentialType, bool) { return nameType(name) }

// Hashed tells whether a value is the hash of a password (crypt, bcrypt,
// argon2, PBKDF2, SCRAM), which verifies a password and does not open anything.
func Hashed(value []byte) bool { return hashed.Match(bytes.TrimSpace(value)) }

var (
	hashed     = regexp.MustCompile(`^(?:[\w.@-]{1,64}:)?(?:\$(?:2[abxy]|1|5|6|apr1|y|argon2(?:id|i|d)|pbkdf2(?:-sha\d+)?|scrypt)\$|SCRAM-SHA-\d+\$|md5[0-9a-f]{32}$|\{S?SHA\d*\})`)
	identifier = regexp.MustCompile(`^[A-Za-z][A-Za-z_./:-]*$`)
	// Beginnings and whole values that stand for a secret to be filled in.
	instruction = regexp.MustCompile(`^(?:your|my|the|some|enter|put|set|add|todo|fixme|fake)[-_ ].*(?:key|token|secret|password|here|value)|(?:key|token|secret|password)[-_ ]?(?:here|goes)|^test[-_ ]?(?:key|token|secret|password|only)$|^(?:0123456789|123456789)(?:0|abcdef)*$`)
	templates   = regexp.MustCompile(`^\s*(?:\$\{[^}]*\}|\$\([^)]*\)|\$[A-Za-z_]\w*|%[A-Za-z_]\w*%|\{\{.*\}\}|<[^<>]{1,80}>|\[[a-zA-Z _-]{1,80}\]|@[A-Za-z_]\w*@|__\w+__)\s*$|\{\{.{1,200}\}\}|\$\{[A-Za-z_][^}]{0,200}\}|\$\([A-Za-z_]\w*\)|<(?:your|my|insert|path|vault|secret|token|password|key|api|enter|replace)[^<>]{0,80}>`)
	stores      = regexp.MustCompile(`^(?:arn:aws[\w-]*:(?:secretsmanager|ssm|kms):|projects/[^/]+/secrets/)`)
	plainNumber = regexp.MustCompile(`^[+-]?\d{1,6}(?:\.\d+)?(?:ms|s|m|h|d|Ki|Mi|Gi|k|M|G|B|KB|MB|GB|%)?$`)
	hostPort    = regexp.MustCompile(`^(?i:(?:[a-z0-9](?:[a-z0-9-]{0,62})\.)+[a-z][a-z0-9-]{1,62})\.?(?::\d{1,5})?(?:/\S*)?$|^(?i:localhost|[a-z0-9-]{1,63}):\d{2,5}$`)
	filePath    = regexp.MustCompile(`^(?:~|\.{1,2})?(?:/[\w.@+-]+)+/?$|^[A-Za-z]:\\`)
	mailAddress = regexp.MustCompile(`^[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+$`)
	publicKey   = regexp.MustCompile(`^(?:ssh-(?:rsa|ed25519|dss)|ecdsa-sha2-\S+|sk-\S+@openssh\.com) AAAA|^-----BEGIN (?:[A-Z0-9 ]*PUBLIC KEY(?: BLOCK)?|CERTIFICATE|X509 CRL|CERTIFICATE REQUEST|DH PARAMETERS|EC PARAMETERS)-----|^age1[a-z0-9]{58}$|^(?:sha256|sha512|sha1|md5)[:-]`)
)

// stand are words that no secret contains and a value does that stands where
// one should be; separators are left out of both. fillers are such values.
var (
	stand = strings.Fields(`changeme changeit changethis replaceme replacethis replacewith insertyour inserthere example placeholder
		redacted dummy notset notused notreal notneeded notrequired notapplicable xxxxx ***** 1234567890abcdef 1234567890qwerty`)
	fillers = set(`n/a na none null nil undefined unset unknown empty tbd todo secret password token required optional
		enabled disabled on off yes no true false default`)
	// elsewhere are the beginnings of references to where a secret lies: vals
	// and helm-secrets, Vault and bank-vaults, ArgoCD's vault plugin, SOPS,
	// 1Password, cloud stores. All are lower case.
	elsewhere = strings.Fields(`ref+ vault: secretref: secretsref: op:// awssm: aws-sm: awsssm: ssm: gcpsm: gcp-sm: azurekv: keyvault:
		env: file: os.environ/ kv/ secret/ secrets/ enc[aes @microsoft.keyvault doppler: akeyless: conjur: infisical: bws:
		k8s: valuefrom !vault <path:`)
	separators = strings.NewReplacer("-", "", "_", "", " ", "")
)

// placeholder tells what stands where a secret should be, and examples out of
// documentation (AKIAIOSFODNN7EXAMPLE).
func placeholder(v string) bool {
	v = strings.Trim(v, " \t\r\n'\"`")
	if len(v) == 0 {
		return true
	}
	if len(v) > 4096 {
		return false // nobody writes a placeholder of that length
	}
	low := strings.ToLower(v)
	if fillers[low] {
		return true
	}
	for _, prefix := range elsewhere {
		if strings.HasPrefix(low, prefix) {
			return true
		}
	}
	for _, prefix := range []string{"xxx", "***", "...", "---", "deadbeef"} {
		if strings.HasPrefix(low, prefix) && !strings.HasPrefix(low, "-----begin") {
			return true
		}
	}
	joined := separators.Replace(low)
	for _, word := range stand {
		if strings.Contains(joined, word) {
			return true
		}
	}
	if strings.ContainsAny(v, "$%{<[@_") && templates.MatchString(v) || stores.MatchString(low) || instruction.MatchString(low) {
		return true
	}
	// One character over and over, and runs of two or three.
	distinct := make(map[rune]struct{}, 8)
	for _, r := range v {
		distinct[r] = struct{}{}
		if len(distinct) > 3 {
			return false
		}
	}
	return len(distinct) <= 2 || len(v) >= 16
}

// innocent tells values that are no secrets whatever their entry is called.
func innocent(v string) bool {
	if placeholder(v) || plainNumber.MatchString(v) || filePath.MatchString(v) ||
		mailAddress.MatchString(v) || publicKey.MatchString(v) {
		return true
	}
	if len(v) <= 255 && hostPort.MatchString(v) {
		return true
	}
	if net.ParseIP(v) != nil {
		return true
	}
	if i := strings.Index(v, "://"); i > 0 && i < 24 && !strings.ContainsAny(v, " \n") {
		if u, err := url.Parse(v); err == nil && u.Host != "" {
			if u.User == nil {
				return true
			}
			_, has := u.User.Password()
			return !has
		}
	}
	if len(v) > 1 && (v[0] == '{' || v[0] == '[') && (v[len(v)-1] == '}' || v[len(v)-1] == ']') {
		return true // a document: its entries were looked at one by one
	}
	if strings.Count(v, "\n") > 2 {
		return true // a file, likewise
	}
	if strings.Count(v, " ") > 6 {
		return true // prose
	}
	return false
}

// passwordLike tells a password written into a configuration file from a word,
// an expression or a type that stands behind the same key.
func passwordLike(v string) bool {
	if len(v) < 6 || len(v) > 128 || innocent(v) || strings.ContainsAny(v, "(){}<>[];,`|") || Hashed([]byte(v)) {
		return false
	}
	return strings.ContainsAny(v, "0123456789!@%^&*+~?") && entropy(v) > 2
}

// entropy is the Shannon entropy of the text in bits a byte, as gitleaks counts
// it, so that its rules' thresholds mean the same here.
func entropy(s string) float64 {
	if s == "" {
		return 0
	}
	var counts [256]int
	for i := range len(s) {
		counts[s[i]]++
	}
	var e float64
	inv := 1 / float64(len(s))
	for _, c := range counts {
		if c > 0 {
			f := float64(c) * inv
			e -= f * math.Log2(f)
		}
	}
	return e
}

// Unwrap undoes a second layer of base64 when it hides a document, a key or a
// certificate, as happens when a value was encoded by hand before it was put
// into a Secret. It returns other values as they are.
func Unwrap(value []byte) []byte {
	v := bytes.TrimSpace(value)
	if len(v) < 24 || len(v) > MaxValue {
		return value
	}
	// "-----BEGIN", "{", "apiVersion", "eyJ" as base64 begins them.
	if !bytes.HasPrefix(v, []byte("LS0tLS1")) && v[0] != 'e' && !bytes.HasPrefix(v, []byte("YXBpVm")) &&
		!bytes.HasPrefix(v, []byte("ZXlK")) && !bytes.HasPrefix(v, []byte("a2luZD")) {
		return value
	}
	clean := bytes.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == ' ' || r == '\t' {
			return -1
		}
		return r
	}, v)
	out := make([]byte, base64.StdEncoding.DecodedLen(len(clean)))
	n, err := base64.StdEncoding.Decode(out, clean)
	if err != nil {
		return value
	}
	out = out[:n]
	for _, p := range []string{"-----BEGIN ", "{", "apiVersion", "kind:", "eyJ"} {
		if bytes.HasPrefix(out, []byte(p)) {
			return out
		}
	}
	return value
}

// NamedInPlain is [Named] for places that are not meant for secrets, where most
// entries are settings: a token or key must look random as well, and the name of
// a thing that holds a password is none.
func NamedInPlain(name string, value []byte) (remit.CredentialType, bool) {
	typ, ok := Named(name, value)
	if !ok || !utf8.Valid(value) {
		return "", false
	}
	v := string(bytes.TrimSpace(value))
	if strings.ContainsAny(v, " \t\r\n") || len(v) > 4096 {
		return "", false
	}
	if typ == remit.Password {
		return typ, !holder.MatchString(v)
	}
	return typ, len(v) >= 16 && strings.ContainsAny(v, "0123456789") && entropy(v) > 3 && !holder.MatchString(v)
}

// holder is a name, in lower case and with hyphens as Kubernetes wants it, that
// says that it names a secret.
var holder = regexp.MustCompile(`^[a-z0-9.-]*(?:secret|cred|password|passwd|token|key|auth)[a-z0-9.-]*$`)

// Placeholder tells whether a value only stands where a secret should be: a
// documentation example, a template's variable, a reference to a secret that
// lies elsewhere.
func Placeholder(value []byte) bool { return placeholder(string(bytes.TrimSpace(value))) }
