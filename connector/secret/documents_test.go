package secret

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"remit"
)

var (
	notBefore = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	notAfter  = time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
)

// newKey makes a key and its PKCS #8 encoding in PEM.
func newKey(t testing.TB, kind string) (crypto.Signer, string) {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "RSA":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ECDSA":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "Ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// newCertificate signs a certificate with its own key, or with the CA's.
func newCertificate(t testing.TB, key crypto.Signer, template x509.Certificate, ca *x509.Certificate, caKey crypto.Signer) (*x509.Certificate, string) {
	t.Helper()
	template.SerialNumber = big.NewInt(42)
	template.NotBefore, template.NotAfter = notBefore, notAfter
	parent, signer := &template, key
	if ca != nil {
		parent, signer = ca, caKey
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestParseBundle(t *testing.T) {
	t.Parallel()
	fp := testFingerprint(t)
	caKey, _ := newKey(t, "RSA")
	ca, caPEM := newCertificate(t, caKey, x509.Certificate{
		Subject: pkix.Name{CommonName: "corp root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	leafKey, leafKeyPEM := newKey(t, "ECDSA")
	leaf, leafPEM := newCertificate(t, leafKey, x509.Certificate{
		Subject:     pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, ca, caKey)

	check := func(t *testing.T, b Bundle) {
		t.Helper()
		if len(b.Certificates) != 2 || len(b.Keys) != 1 || b.Cut {
			t.Fatalf("got %d certificates, %d keys", len(b.Certificates), len(b.Keys))
		}
		c := b.Certificates[0]
		if want := fmt.Sprintf("X509SHA256=%x", sum(leaf.Raw)); c.Native != want {
			t.Errorf("native %s, want %s", c.Native, want)
		}
		if c.CommonName != "system:node:n1" || c.Organizations[0] != "system:nodes" || c.Issuer != "CN=corp root" ||
			c.Algorithm != "ECDSA" || c.KeyBits != 256 || !c.Client || c.Server || c.CA || c.SelfSigned ||
			!c.NotBefore.Equal(notBefore) || !c.NotAfter.Equal(notAfter) {
			t.Errorf("leaf: %+v", c)
		}
		if r := b.Certificates[1]; !r.CA || !r.SelfSigned || r.Algorithm != "RSA" || r.KeyBits != 2048 {
			t.Errorf("root: %+v", r)
		}
		if k := b.Keys[0]; k.KeyID != c.KeyID || k.Algorithm != "ECDSA" || k.KeyBits != 256 || k.Encrypted || k.Fingerprint == "" {
			t.Errorf("key: %+v", k)
		}
		mustNotHold(t, b, strings.Split(leafKeyPEM, "\n")[1])
	}
	all := leafPEM + "# a comment\n" + caPEM + leafKeyPEM
	quoted, _ := json.Marshal(all)
	for name, text := range map[string]string{
		"plain":  all,
		"crlf":   strings.ReplaceAll(all, "\n", "\r\n"),
		"yaml":   "bundle: |\n    " + strings.ReplaceAll(strings.TrimSpace(all), "\n", "\n    ") + "\n",
		"json":   `{"bundle":` + string(quoted) + `}`,
		"text":   "Bag Attributes\n\n" + all + "\ntrailer",
		"public": all + "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, err := ParseBundle([]byte(text), fp)
			if err != nil {
				t.Fatal(err)
			}
			check(t, b)
		})
	}

	t.Run("der", func(t *testing.T) {
		t.Parallel()
		b, err := ParseBundle(leaf.Raw, fp)
		if err != nil || len(b.Certificates) != 1 {
			t.Errorf("%+v, %v", b, err)
		}
		block, _ := pem.Decode([]byte(leafKeyPEM))
		if b, err = ParseBundle(block.Bytes, fp); err != nil || len(b.Keys) != 1 || b.Keys[0].Algorithm != "ECDSA" {
			t.Errorf("%+v, %v", b, err)
		}
	})
	t.Run("broken", func(t *testing.T) {
		t.Parallel()
		broken := "-----BEGIN CERTIFICATE-----\nMIIBAAAA\n-----END CERTIFICATE-----\n"
		cut := leafPEM[:len(leafPEM)/2]
		b, err := ParseBundle([]byte(caPEM+broken+leafPEM+cut), fp)
		if len(b.Certificates) != 2 {
			t.Errorf("the readable ones: got %d", len(b.Certificates))
		}
		line := strings.Count(caPEM, "\n") + 1
		if remit.KindOf(err) != remit.Invalid || !strings.Contains(err.Error(), fmt.Sprintf("block 2, line %d", line)) || !strings.Contains(err.Error(), "block 4") {
			t.Errorf("error without the place: %v", err)
		}
		if err != nil && strings.Contains(err.Error(), "MIIB") {
			t.Errorf("the error quotes its input: %v", err)
		}
	})
	t.Run("bounded", func(t *testing.T) {
		t.Parallel()
		b, _ := ParseBundle([]byte(strings.Repeat(leafPEM, 1200)), fp)
		if len(b.Certificates) != maxCertificates || !b.Cut {
			t.Errorf("%d certificates, cut %v", len(b.Certificates), b.Cut)
		}
		start := time.Now()
		if _, err := ParseBundle(bytes.Repeat([]byte("-----BEGIN CERTIFICATE-----\n"), 30000), fp); err == nil {
			t.Error("30,000 broken blocks are no error")
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("took %s", d)
		}
	})
	t.Run("nothing", func(t *testing.T) {
		t.Parallel()
		for _, v := range []string{"", "hello", "0", "0\x82", string(make([]byte, 100))} {
			if b, err := ParseBundle([]byte(v), fp); err != nil || len(b.Certificates)+len(b.Keys) > 0 {
				t.Errorf("%q: %+v, %v", v, b, err)
			}
		}
	})
}

func sum(b []byte) [32]byte { return sha256.Sum256(b) }

func TestPrivateKeys(t *testing.T) {
	t.Parallel()
	fp := testFingerprint(t)
	rsaKey, rsaPEM := newKey(t, "RSA")
	ecKey, ecPEM := newKey(t, "ECDSA")
	_, edPEM := newKey(t, "Ed25519")
	ecDER, err := x509.MarshalECPrivateKey(ecKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	armour := func(typ string, der []byte, headers map[string]string) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der, Headers: headers}))
	}
	private := "PRIVATE" + " KEY"
	for name, tt := range map[string]struct {
		text string
		want PrivateKey
	}{
		"rsa pkcs8": {rsaPEM, PrivateKey{Algorithm: "RSA", KeyBits: 2048}},
		"rsa pkcs1": {armour("RSA "+private, x509.MarshalPKCS1PrivateKey(rsaKey.(*rsa.PrivateKey)), nil), PrivateKey{Algorithm: "RSA", KeyBits: 2048}},
		"rsa 512":   {weak(t), PrivateKey{Algorithm: "RSA", KeyBits: 512}},
		"ecdsa":     {ecPEM, PrivateKey{Algorithm: "ECDSA", KeyBits: 256}},
		"ec sec1":   {armour("EC "+private, ecDER, nil), PrivateKey{Algorithm: "ECDSA", KeyBits: 256}},
		"ed25519":   {edPEM, PrivateKey{Algorithm: "Ed25519", KeyBits: 256}},
		"encrypted": {armour("ENCRYPTED "+private, []byte("whatever it is"), nil), PrivateKey{Encrypted: true}},
		"old encrypted": {
			armour("RSA "+private, []byte("whatever it is!!"), map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"}),
			PrivateKey{Algorithm: "RSA", Encrypted: true},
		},
		"openssh rsa":       {armour("OPENSSH "+private, openSSH("none", "ssh-rsa", rsaKey.Public().(*rsa.PublicKey).N), nil), PrivateKey{Algorithm: "RSA", KeyBits: 2048, OpenSSH: true}},
		"openssh ed25519":   {armour("OPENSSH "+private, openSSH("none", "ssh-ed25519", nil), nil), PrivateKey{Algorithm: "Ed25519", KeyBits: 256, OpenSSH: true}},
		"openssh encrypted": {armour("OPENSSH "+private, openSSH("aes256-ctr", "ecdsa-sha2-nistp384", nil), nil), PrivateKey{Algorithm: "ECDSA", KeyBits: 384, OpenSSH: true, Encrypted: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, err := ParseBundle([]byte(tt.text), fp)
			if err != nil || len(b.Keys) != 1 {
				t.Fatalf("%+v, %v", b, err)
			}
			got := b.Keys[0]
			if got.Fingerprint == "" {
				t.Error("no fingerprint")
			}
			if wantID := !got.Encrypted && !got.OpenSSH; (got.KeyID != "") != wantID {
				t.Errorf("KeyID = %q", got.KeyID)
			}
			got.Fingerprint, got.KeyID = "", ""
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// weak makes a key of 512 bits, which Go's own generator refuses.
func weak(t *testing.T) string {
	t.Helper()
	for {
		p, err := rand.Prime(rand.Reader, 256)
		if err != nil {
			t.Fatal(err)
		}
		q, err := rand.Prime(rand.Reader, 256)
		if err != nil {
			t.Fatal(err)
		}
		one, e := big.NewInt(1), big.NewInt(65537)
		n := new(big.Int).Mul(p, q)
		d := new(big.Int).ModInverse(e, new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one)))
		if d == nil || n.BitLen() != 512 {
			continue
		}
		der, err := asn1.Marshal(struct {
			Version             int
			N                   *big.Int
			E                   int
			D, P, Q, DP, DQ, QI *big.Int
		}{
			0, n, 65537, d, p, q, new(big.Int).Mod(d, new(big.Int).Sub(p, one)),
			new(big.Int).Mod(d, new(big.Int).Sub(q, one)), new(big.Int).ModInverse(q, p),
		})
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE" + " KEY", Bytes: der}))
	}
}

// openSSH encodes a private key file whose private half is rubbish, which is not
// looked at.
func openSSH(cipher, kind string, n *big.Int) []byte {
	str := func(parts ...[]byte) []byte {
		p := bytes.Join(parts, nil)
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(p))), p...)
	}
	public := str([]byte(kind))
	if n != nil {
		public = append(public, str([]byte{1, 0, 1})...)
		public = append(public, str(append([]byte{0}, n.Bytes()...))...)
	} else {
		public = append(public, str(make([]byte, 32))...)
	}
	return bytes.Join([][]byte{[]byte("openssh-key-v1\x00"), str([]byte(cipher)), str([]byte("none")), str(nil), {0, 0, 0, 1}, str(public), str(make([]byte, 64))}, nil)
}

// newToken encodes a token with a signature that nobody made.
func newToken(claims string) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"RS256","kid":"k"}`)) + "." + enc([]byte(claims)) + "." + enc(bytes.Repeat([]byte{0xa5, 0x5a, 0x77}, 60))
}

const (
	boundClaims = `{"aud":["https://kubernetes.default.svc"],"exp":1798761600,"iat":1767225600,"nbf":1767225600,` +
		`"iss":"https://kubernetes.default.svc","jti":"8d2ac8f4-0a47-4b4e-9c3c-3f2f5f7f0f11","sub":"system:serviceaccount:payments:api",` +
		`"kubernetes.io":{"namespace":"payments","node":{"name":"n1","uid":"u1"},"pod":{"name":"api-0","uid":"u2"},` +
		`"serviceaccount":{"name":"api","uid":"u3"},"warnafter":1767229207}}`
	legacyClaims = `{"iss":"kubernetes/serviceaccount","kubernetes.io/serviceaccount/namespace":"ci",` +
		`"kubernetes.io/serviceaccount/secret.name":"deployer-token","kubernetes.io/serviceaccount/service-account.name":"deployer",` +
		`"kubernetes.io/serviceaccount/service-account.uid":"u4","sub":"system:serviceaccount:ci:deployer"}`
	oidcClaims = `{"iss":"https://token.actions.githubusercontent.com","sub":"repo:acme/app:ref:refs/heads/main","aud":"sts.amazonaws.com","exp":1767229200,"iat":1767225600}`
)

func TestParseToken(t *testing.T) {
	t.Parallel()
	bound, err := ParseToken([]byte(newToken(boundClaims) + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if bound.ServiceAccount != "api" || bound.Namespace != "payments" || bound.Pod != "api-0" || bound.Node != "n1" || bound.AccountUID != "u3" ||
		bound.Legacy || bound.ID != "8d2ac8f4-0a47-4b4e-9c3c-3f2f5f7f0f11" || bound.Algorithm != "RS256" || bound.Provider() != "kubernetes" ||
		bound.Audiences[0] != "https://kubernetes.default.svc" || bound.Expires.Sub(bound.Issued) != 365*24*time.Hour {
		t.Errorf("bound: %+v", bound)
	}
	legacy, err := ParseToken([]byte(newToken(legacyClaims)))
	if err != nil {
		t.Fatal(err)
	}
	if !legacy.Legacy || legacy.ServiceAccount != "deployer" || legacy.Namespace != "ci" || legacy.Secret != "deployer-token" || !legacy.Expires.IsZero() {
		t.Errorf("legacy: %+v", legacy)
	}
	oidc, err := ParseToken([]byte(newToken(oidcClaims)))
	if err != nil {
		t.Fatal(err)
	}
	if oidc.Provider() != "github" || len(oidc.Audiences) != 1 || oidc.ServiceAccount != "" {
		t.Errorf("oidc: %+v", oidc)
	}
	enc := base64.RawURLEncoding.EncodeToString
	for name, raw := range map[string]string{
		"empty":     "",
		"words":     "a.b.c",
		"unsigned":  enc([]byte(`{"alg":"none"}`)) + "." + enc([]byte(`{}`)) + ".",
		"encrypted": strings.Repeat(enc([]byte(`{"alg":"dir"}`))+".", 4) + "x",
		"array":     enc([]byte(`["alg"]`)) + "." + enc([]byte(`{}`)) + ".c2lnbmF0dXJl",
		"types":     enc([]byte(`{"alg":"RS256"}`)) + "." + enc([]byte(`{"sub":{}}`)) + ".c2lnbmF0dXJl",
		"huge":      strings.Repeat("a", maxToken+1),
	} {
		if _, err := ParseToken([]byte(raw)); remit.KindOf(err) != remit.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Dates out of reach are not given dates: their JSON must be writable.
	far, err := ParseToken([]byte(newToken(`{"exp":1e300,"iat":-5}`)))
	if err != nil || !far.Expires.IsZero() || !far.Issued.IsZero() {
		t.Errorf("%+v, %v", far, err)
	}
	mustNotHold(t, far)
}

func TestScanToken(t *testing.T) {
	t.Parallel()
	s, fp := testScanner(t), testFingerprint(t)
	for _, claims := range []string{boundClaims, legacyClaims, oidcClaims} {
		raw := newToken(claims)
		for _, text := range []string{raw, "Authorization: Bearer " + raw, `{"access_token":"` + raw + `"}`, "a: 1\ntoken: " + raw + "\nb: 2\n"} {
			got := s.Scan("token", []byte(text), fp)
			if len(got.Found) != 1 || got.Found[0].Token == nil || got.Found[0].Fingerprint != fp([]byte(raw)) {
				t.Errorf("%.40s: %+v", text, got)
			}
			mustNotHold(t, got, raw, raw[len(raw)-40:])
		}
	}
}

func TestScanGoogleKey(t *testing.T) {
	t.Parallel()
	s, fp := testScanner(t), testFingerprint(t)
	_, key := newKey(t, "RSA")
	doc, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": "acme", "private_key_id": "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567",
		"private_key": key, "client_email": "app@acme.iam.gserviceaccount.com", "token_uri": "https://oauth2.googleapis.com/token",
	})
	if err != nil {
		t.Fatal(err)
	}
	got := s.Scan("key.json", doc, fp)
	if len(got.Found) != 1 || got.Found[0].Rule != "gcp-service-account-key" || got.Found[0].Account != "app@acme.iam.gserviceaccount.com" ||
		got.Found[0].Native != "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567" {
		t.Errorf("%+v", got)
	}
	mustNotHold(t, got, strings.Split(key, "\n")[1])
}

func TestParseKubeconfig(t *testing.T) {
	t.Parallel()
	fp := testFingerprint(t)
	key, keyPEM := newKey(t, "ECDSA")
	_, certPEM := newCertificate(t, key, x509.Certificate{Subject: pkix.Name{CommonName: "jane", Organization: []string{"ops"}}}, nil, nil)
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	token, opaque, password := newToken(legacyClaims), "tok-"+random(seeded(8), alnum, 30), "pw-"+random(seeded(9), alnum, 20)
	doc := `apiVersion: v1
kind: Config
current-context: a
clusters:
- name: prod
  cluster:
    server: https://admin:` + password + `@api.prod:6443?token=` + opaque + `
contexts:
- name: a
  context: {cluster: prod, user: jane}
users:
- name: jane
  user:
    client-certificate-data: ` + b64(certPEM) + `
    client-key-data: ` + b64(keyPEM) + `
- name: ci
  user:
    token: ` + token + `
- name: opaque
  user:
    token: ` + opaque + `
- name: basic
  user: {username: admin, password: ` + password + `}
- name: sso
  user:
    exec: {apiVersion: client.authentication.k8s.io/v1, command: aws, args: [eks, get-token]}
- name: gke
  user:
    auth-provider: {name: oidc, config: {refresh-token: ` + opaque + `}}
- name: files
  user: {client-certificate: /etc/a.crt, client-key: /etc/a.key}
`
	if !IsKubeconfig([]byte(doc)) {
		t.Error("not taken for a kubeconfig")
	}
	users, err := ParseKubeconfig([]byte(doc), fp)
	if err != nil {
		t.Fatal(err)
	}
	if len(users) != 7 {
		t.Fatalf("%d users", len(users))
	}
	jane := users[0]
	if jane.Certificate == nil || jane.Certificate.CommonName != "jane" || !jane.HasKey || jane.Key == nil || jane.Server != "https://api.prod:6443" || jane.Cluster != "prod" {
		t.Errorf("jane: %+v", jane)
	}
	if ci := users[1]; ci.Token == nil || ci.Token.ServiceAccount != "deployer" || ci.TokenFingerprint != fp([]byte(token)) {
		t.Errorf("ci: %+v", ci)
	}
	if o := users[2]; !o.HasToken || o.Token != nil {
		t.Errorf("opaque: %+v", o)
	}
	if p := users[3]; !p.HasPassword || p.Username != "admin" {
		t.Errorf("basic: %+v", p)
	}
	if e := users[4]; e.Exec != "aws" || e.HasToken {
		t.Errorf("sso: %+v", e)
	}
	if a := users[5]; a.AuthProvider != "oidc" || !a.HasProviderToken {
		t.Errorf("gke: %+v", a)
	}
	if f := users[6]; !f.Files || f.HasKey {
		t.Errorf("files: %+v", f)
	}
	mustNotHold(t, users, token, opaque, password, b64(keyPEM)[40:80])

	for name, bad := range map[string]string{
		"other kind": "kind: Pod\nusers: []\n",
		"tabs":       "kind: Config\n\tusers: " + opaque,
		"bomb":       "kind: Config\na: &a [x,x]\nb: &b [*a,*a]\nusers: []\n",
		"types":      "kind: Config\nusers: " + opaque + "\n",
	} {
		_, err := ParseKubeconfig([]byte(bad), fp)
		if remit.KindOf(err) != remit.Invalid {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), opaque) {
			t.Errorf("%s: the error quotes its input: %v", name, err)
		}
	}
}

func TestParseDockerConfig(t *testing.T) {
	t.Parallel()
	fp := testFingerprint(t)
	pw := "pw-" + random(seeded(10), alnum, 20)
	auth := base64.StdEncoding.EncodeToString([]byte("bot:" + pw))
	for name, tt := range map[string]struct {
		doc  string
		want []string // host user
	}{
		"json":           {`{"auths":{"https://index.docker.io/v1/":{"auth":"` + auth + `"},"ghcr.io":{"username":"jane","password":"` + pw + `"}}}`, []string{"ghcr.io jane", "index.docker.io bot"}},
		"two apis":       {`{"auths":{"https://index.docker.io/v1/":{"auth":"` + auth + `"},"https://index.docker.io/v2/":{"auth":"` + auth + `"}}}`, []string{"index.docker.io bot"}},
		"cfg":            {`{"registry.corp:5000":{"auth":"` + auth + `","email":"a@b"}}`, []string{"registry.corp:5000 bot"}},
		"path":           {`{"auths":{"registry.gitlab.com/acme":{"auth":"` + auth + `"}}}`, []string{"registry.gitlab.com/acme bot"}},
		"identity token": {`{"auths":{"acr.azurecr.io":{"identitytoken":"` + pw + `"}}}`, []string{"acr.azurecr.io "}},
		"login in host":  {`{"auths":{"https://u:` + pw + `@reg.io/":{"auth":"` + auth + `"}}}`, []string{"reg.io bot"}},
		"helpers":        {`{"auths":{"ghcr.io":{}},"credsStore":"ecr-login"}`, nil},
		"helpers only":   {`{"credHelpers":{"gcr.io":"gcloud"}}`, nil},
		"placeholder":    {`{"auths":{"ghcr.io":{"username":"u","password":"changeme"}}}`, nil},
		"bad auth":       {`{"auths":{"ghcr.io":{"auth":"%%%"}}}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			logins, err := ParseDockerConfig([]byte(tt.doc), fp)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, l := range logins {
				got = append(got, l.Host+" "+l.Username)
				if l.Fingerprint != fp([]byte(pw)) {
					t.Errorf("%s: not the password's fingerprint", l.Host)
				}
			}
			if strings.Join(got, ",") != strings.Join(tt.want, ",") {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			mustNotHold(t, logins, pw, auth)
		})
	}
	for _, bad := range []string{"", "x", "[]", `{"auths":[]}`, `{"a":1}`, strings.Repeat(" ", MaxValue+1) + "{"} {
		if _, err := ParseDockerConfig([]byte(bad), fp); remit.KindOf(err) != remit.Invalid {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}

func TestUnwrapAndKeystore(t *testing.T) {
	t.Parallel()
	_, key := newKey(t, "Ed25519")
	if got := Unwrap([]byte(base64.StdEncoding.EncodeToString([]byte(key)))); string(got) != key {
		t.Error("a key under base64 is not found")
	}
	for _, v := range []string{"", "hello", "LS0tLS1CRUdJTg%%", "eyJhbGciOiJIUzI1NiJ9eyJhbGciOiJIUzI1NiJ9"} {
		if got := Unwrap([]byte(v)); v != "eyJhbGciOiJIUzI1NiJ9eyJhbGciOiJIUzI1NiJ9" && string(got) != v {
			t.Errorf("%q became %q", v, got)
		}
	}
	if got := Keystore(append([]byte{0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2}, make([]byte, 40)...)); got != "java-keystore" {
		t.Errorf("got %q", got)
	}
	p12 := append([]byte{0x30, 0x82, 1, 0, 0x02, 0x01, 0x03, 0x30, 0x82, 0, 0xf0, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01}, make([]byte, 40)...)
	if got := Keystore(p12); got != "pkcs12" {
		t.Errorf("got %q", got)
	}
	if got := Keystore(make([]byte, 64)); got != "" {
		t.Errorf("got %q", got)
	}
}

var certificateTemplate = x509.Certificate{Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"test"}}
