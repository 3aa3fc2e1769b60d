package kubernetes

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit"
	"remit/connector/secret"
)

// Secrets are put together when the tests run, so that no scanner takes this
// repository for a leak.

const (
	credAlnum = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	credUpper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
)

var (
	credNow     = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	credCreated = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	credChanged = time.Date(2025, 3, 1, 0, 0, 0, 0, time.UTC)
	credSystem  = remit.SystemID("kubernetes", "test")
)

func credRandom(seed uint64, alphabet string, n int) string {
	r := rand.New(rand.NewPCG(seed, 11))
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(b)
}

func credFingerprinter(t testing.TB) *secret.Fingerprinter {
	t.Helper()
	f, err := secret.NewFingerprinter([]byte("an installation key of 32 bytes!"))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func testCredentials(t testing.TB) *credentials {
	t.Helper()
	scanner, err := secret.NewScanner()
	if err != nil {
		t.Fatal(err)
	}
	c, err := newCredentials(credentialConfig{
		System: credSystem, Scanner: scanner, Fingerprint: credFingerprinter(t).Fingerprint,
		ExtendTokenExpiration: true, Now: func() time.Time { return credNow },
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func credMeta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: namespace, Name: name, UID: "uid-" + "1", CreationTimestamp: metav1.NewTime(credCreated),
		Labels: map[string]string{"app": "api"},
	}
}

// credLines writes what a test compares, one line a credential.
func credLines(creds []remit.Credential) string {
	var b strings.Builder
	for _, c := range creds {
		fmt.Fprintf(&b, "%s %s", c.Key, c.Type)
		if c.Provider != "" {
			fmt.Fprintf(&b, " by %s", c.Provider)
		}
		if c.Status != remit.Active {
			fmt.Fprintf(&b, " %s", c.Status)
		}
		if c.Holder != (remit.Ref{}) {
			fmt.Fprintf(&b, " of %s", c.Holder)
		}
		if len(c.Exposure) > 0 {
			fmt.Fprintf(&b, " in %s", strings.Join(c.Exposure, ","))
		}
		for _, k := range slices.Sorted(func(yield func(string) bool) {
			for k := range c.Attributes {
				if !yield(k) {
					return
				}
			}
		}) {
			fmt.Fprintf(&b, " %s=%s", k, c.Attributes[k])
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func wantCredentials(t *testing.T, got []remit.Credential, want string) {
	t.Helper()
	want = strings.ReplaceAll(strings.TrimPrefix(want, "\n"), "\t", "")
	if g := credLines(got); g != want {
		t.Errorf("got\n%s\nwant\n%s", g, want)
	}
	seen := make(map[remit.ID]bool)
	for _, c := range got {
		if seen[c.ID] {
			t.Errorf("%s is there twice", c.Key)
		}
		seen[c.ID] = true
		if c.ID != remit.CredentialID(credSystem, c.Ref, c.Key) {
			t.Errorf("%s: the ID is not that of ref and key", c.Key)
		}
		if c.Holder != (remit.Ref{}) && c.Identity != remit.IdentityID(credSystem, c.Holder) {
			t.Errorf("%s: identity and holder differ", c.Key)
		}
	}
}

// holdsNone fails when the JSON of the credentials holds any of the secrets, as
// it is or in base64.
func holdsNone(t *testing.T, creds []remit.Credential, secrets ...string) {
	t.Helper()
	b, err := json.Marshal(creds)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range secrets {
		for _, form := range []string{s, base64.StdEncoding.EncodeToString([]byte(s)), base64.RawURLEncoding.EncodeToString([]byte(s))} {
			if form != "" && strings.Contains(string(b), form) {
				t.Errorf("a secret is in the result: %s", b)
			}
		}
	}
}

func credKey(t testing.TB) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func credCertificate(t testing.TB, key crypto.Signer, template x509.Certificate) string {
	t.Helper()
	template.SerialNumber = big.NewInt(7)
	template.NotBefore, template.NotAfter = credCreated, credCreated.AddDate(2, 0, 0)
	der, err := x509.CreateCertificate(crand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func credToken(claims string) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"RS256"}`)) + "." + enc([]byte(claims)) + "." + enc([]byte(strings.Repeat("signature", 20)))
}

const credBoundClaims = `{"aud":["api"],"exp":1798761600,"iat":1767225600,"iss":"https://kubernetes.default.svc","jti":"8d2ac8f4-0a47",` +
	`"sub":"system:serviceaccount:payments:api","kubernetes.io":{"namespace":"payments","pod":{"name":"api-0","uid":"u"},"serviceaccount":{"name":"api","uid":"u"}}}`

func TestNewCredentials(t *testing.T) {
	t.Parallel()
	if _, err := newCredentials(credentialConfig{}); remit.KindOf(err) != remit.Invalid {
		t.Errorf("got %v", err)
	}
}

func TestFromSecretLegacyToken(t *testing.T) {
	t.Parallel()
	c := testCredentials(t)
	raw := credToken(`{"iss":"kubernetes/serviceaccount","sub":"system:serviceaccount:ci:deployer"}`)
	sec := &corev1.Secret{
		ObjectMeta: credMeta("ci", "deployer-token"), Type: corev1.SecretTypeServiceAccountToken,
		Data: map[string][]byte{"token": []byte(raw), "ca.crt": []byte("x"), "namespace": []byte("ci")},
	}
	sec.Annotations = map[string]string{corev1.ServiceAccountNameKey: "deployer", corev1.ServiceAccountUIDKey: "u9"}
	sec.Labels[labelLastUsed] = "2026-05-20"
	got := c.fromSecret(sec)
	wantCredentials(t, got, `
	token static-token by kubernetes of ServiceAccount ci/deployer account-uid=u9 legacy=true
	`)
	cred := got[0]
	if !cred.NeverExpires || !cred.LastUsed.Equal(time.Date(2026, 5, 20, 0, 0, 0, 0, time.UTC)) || !cred.Issued.Equal(credCreated) ||
		cred.Fingerprint == "" || cred.Location != remit.ResourceID(credSystem, remit.Ref{Kind: "Secret", Namespace: "ci", Name: "deployer-token"}) ||
		cred.Incarnation != "uid-1" {
		t.Errorf("%+v", cred)
	}
	holdsNone(t, got, raw, raw[len(raw)-50:])

	sec.Labels[labelInvalidSince] = "2026-05-21"
	if got := c.fromSecret(sec); got[0].Status != remit.Revoked || got[0].Attributes["invalid-since"] != "2026-05-21" {
		t.Errorf("%+v", got)
	}
	delete(sec.Labels, labelInvalidSince)
	sec.Data = nil
	if got := c.fromSecret(sec); got[0].Status != remit.Pending {
		t.Errorf("not filled in: %s", got[0].Status)
	}
}

func TestFromSecretTLS(t *testing.T) {
	t.Parallel()
	c := testCredentials(t)
	key, keyPEM := credKey(t)
	leaf := credCertificate(t, key, x509.Certificate{Subject: pkix.Name{CommonName: "api.corp"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	caKey, otherKey := credKey(t)
	ca := credCertificate(t, caKey, x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true})
	sec := &corev1.Secret{
		ObjectMeta: credMeta("web", "api-tls"), Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{"tls.crt": []byte(leaf + ca), "tls.key": []byte(keyPEM)},
	}
	got := c.fromSecret(sec)
	wantCredentials(t, got, `
	tls.crt certificate private-key=true self-signed=true usage=server
	tls.crt#2 certificate ca=true self-signed=true
	`)
	if cred := got[0]; !strings.HasPrefix(cred.Native, "X509SHA256=") || cred.Algorithm != "ECDSA" || cred.KeyBits != 256 || cred.Subject != "CN=api.corp" ||
		!cred.Expires.Equal(credCreated.AddDate(2, 0, 0)) || cred.Fingerprint == "" {
		t.Errorf("%+v", cred)
	}
	holdsNone(t, got, strings.Split(keyPEM, "\n")[1])

	// A key that is not the certificate's is a credential of its own.
	sec.Data["other.key"] = []byte(otherKey)
	sec.Data["tls.key"] = []byte(otherKey)
	sec.Data["tls.crt"] = []byte(leaf)
	wantCredentials(t, c.fromSecret(sec), `
	tls.crt certificate self-signed=true usage=server
	other.key private-key
	tls.key private-key
	`)
	sec.Data = map[string][]byte{"tls.crt": []byte("garbage"), "tls.key": []byte("-----BEGIN PRIVATE KEY-----\ngarbage")}
	wantCredentials(t, c.fromSecret(sec), "")

	expired := *c
	expired.Now = func() time.Time { return credCreated.AddDate(3, 0, 0) }
	sec.Data = map[string][]byte{"tls.crt": []byte(leaf)}
	if got := expired.fromSecret(sec); got[0].Status != remit.Expired {
		t.Errorf("status %s", got[0].Status)
	}
}

func TestFromSecretTypes(t *testing.T) {
	t.Parallel()
	c := testCredentials(t)
	_, keyPEM := credKey(t)
	pw := "pw-" + credRandom(1, credAlnum, 20)
	auth := base64.StdEncoding.EncodeToString([]byte("bot:" + pw))
	for name, tt := range map[string]struct {
		typ  corev1.SecretType
		data map[string]string
		want string
	}{
		"docker": {
			corev1.SecretTypeDockerConfigJson,
			map[string]string{".dockerconfigjson": `{"auths":{"ghcr.io":{"auth":"` + auth + `"},"https://index.docker.io/v1/":{"auth":"` + auth + `"}}}`},
			".dockerconfigjson/ghcr.io password by ghcr.io username=bot\n.dockerconfigjson/index.docker.io password by index.docker.io username=bot\n",
		},
		"dockercfg": {
			corev1.SecretTypeDockercfg,
			map[string]string{".dockercfg": `{"reg.corp:5000":{"auth":"` + auth + `"}}`},
			".dockercfg/reg.corp:5000 password by reg.corp:5000 username=bot\n",
		},
		"docker broken": {corev1.SecretTypeDockerConfigJson, map[string]string{".dockerconfigjson": `{"auths":`}, ""},
		"basic":         {corev1.SecretTypeBasicAuth, map[string]string{"username": "jane", "password": pw}, "password password username=jane\n"},
		"basic weak":    {corev1.SecretTypeBasicAuth, map[string]string{"username": "jane", "password": "12345"}, "password password username=jane\n"},
		"basic empty":   {corev1.SecretTypeBasicAuth, map[string]string{"username": "jane", "password": ""}, ""},
		"ssh":           {corev1.SecretTypeSSHAuth, map[string]string{"ssh-privatekey": keyPEM, "known_hosts": "github.com ssh-rsa AAAA"}, "ssh-privatekey ssh-key\n"},
		"bootstrap": {
			corev1.SecretTypeBootstrapToken,
			map[string]string{"token-id": "abcdef", "token-secret": pw, "expiration": "2026-07-01T00:00:00Z", "usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "false", "auth-extra-groups": "system:bootstrappers:kubeadm"},
			"token-secret static-token by kubernetes of User system:bootstrap:abcdef bootstrap=true groups=system:bootstrappers:kubeadm usages=authentication\n",
		},
		"bootstrap expired": {
			corev1.SecretTypeBootstrapToken,
			map[string]string{"token-id": "abcdef", "token-secret": pw, "expiration": "2026-05-01T00:00:00Z"},
			"token-secret static-token by kubernetes expired of User system:bootstrap:abcdef bootstrap=true usages=\n",
		},
		"helm":    {helmRelease, map[string]string{"release": pw, "password": pw}, ""},
		"foreign": {"corp.io/login", map[string]string{"user": "jane", "password": pw}, "password password recognised-by=name\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sec := &corev1.Secret{ObjectMeta: credMeta("a", "s"), Type: tt.typ, Data: map[string][]byte{}}
			for k, v := range tt.data {
				sec.Data[k] = []byte(v)
			}
			got := c.fromSecret(sec)
			wantCredentials(t, got, tt.want)
			for _, cred := range got {
				if cred.Fingerprint == "" {
					t.Errorf("%s has no fingerprint", cred.Key)
				}
				if cred.Expires.IsZero() == strings.HasPrefix(name, "bootstrap") {
					t.Errorf("expires %s", cred.Expires)
				}
			}
			holdsNone(t, got, pw, auth, strings.Split(keyPEM, "\n")[1])
		})
	}
}

func TestFromSecretOpaque(t *testing.T) {
	t.Parallel()
	c := testCredentials(t)
	key, keyPEM := credKey(t)
	cert := credCertificate(t, key, x509.Certificate{Subject: pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}})
	gh := "ghp" + "_" + credRandom(2, credAlnum, 36)
	pw := "pw-" + credRandom(3, credAlnum, 20)
	aws, awsSecret := "AKI"+"A"+credRandom(4, credUpper, 16), credRandom(5, credAlnum+"+/", 40)
	jwt := credToken(credBoundClaims)
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	kubeconfig := "apiVersion: v1\nkind: Config\nclusters:\n- {name: c, cluster: {server: 'https://api:6443'}}\ncontexts:\n- {name: x, context: {cluster: c, user: node}}\n" +
		"users:\n- name: node\n  user:\n    client-certificate-data: " + b64(cert) + "\n    client-key-data: " + b64(keyPEM) + "\n- name: api\n  user: {token: " + jwt + "}\n"
	for name, tt := range map[string]struct{ data, want map[string]string }{
		"api key":  {map[string]string{"GITHUB_TOKEN": gh}, map[string]string{"GITHUB_TOKEN": "api-key by github rule=github-pat"}},
		"by name":  {map[string]string{"password": pw, "username": "jane", "host": "db.internal", "port": "5432", "tls": "true", "empty": ""}, map[string]string{"password": "password recognised-by=name"}},
		"url":      {map[string]string{"uri": "postgres://u:" + pw + "@h/db"}, map[string]string{"uri": "password by postgres rule=url-password"}},
		"bare url": {map[string]string{"uri": "postgres://u@h/db", "url": "https://h/"}, nil},
		"aws": {
			map[string]string{"AWS_ACCESS_KEY_ID": aws, "AWS_SECRET_ACCESS_KEY": awsSecret, "AWS_REGION": "eu-west-1"},
			map[string]string{"AWS_SECRET_ACCESS_KEY": "api-key by aws rule=aws-secret-access-key"},
		},
		"aws file": {
			map[string]string{"credentials": "[default]\naws_access_key_id = " + aws + "\naws_secret_access_key = " + awsSecret + "\n"},
			map[string]string{"credentials": "api-key by aws rule=aws-secret-access-key"},
		},
		"aws profiles": {
			map[string]string{"credentials": "[a]\naws_access_key_id=" + aws + "\naws_secret_access_key=" + awsSecret + "\n[b]\naws_access_key_id=" + aws[:10] + credRandom(40, credUpper, 10) +
				"\naws_secret_access_key=" + credRandom(41, credAlnum+"+/", 40) + "\n", "token": pw},
			map[string]string{
				"credentials":   "api-key by aws rule=aws-secret-access-key",
				"credentials#2": "api-key by aws rule=aws-secret-access-key",
				"token":         "static-token recognised-by=name",
			},
		},
		"jwt": {map[string]string{"t": jwt}, map[string]string{"t": "short-lived-token by kubernetes of ServiceAccount payments/api bound-pod=api-0 jwt=true"}},
		"kubeconfig": {
			map[string]string{"value": kubeconfig},
			map[string]string{
				"value/node": "certificate by kubernetes of Node n1 groups=system:nodes kubeconfig=true private-key=true self-signed=true server=https://api:6443",
				"value/api":  "short-lived-token by kubernetes of ServiceAccount payments/api bound-pod=api-0 jwt=true kubeconfig=true",
			},
		},
		"env file":    {map[string]string{".env": "A=" + gh + "\nDB=redis://:" + pw + "@r:6379\n"}, map[string]string{".env": "api-key by github rule=github-pat", ".env#2": "password by redis rule=url-password"}},
		"twice":       {map[string]string{"k": b64(keyPEM)}, map[string]string{"k": "private-key"}},
		"references":  {map[string]string{"password": "ref+vault://x#y", "token": "vault:secret/data/a#b", "api-key": "${API_KEY}", "secret": "op://v/i/f"}, nil},
		"placeholder": {map[string]string{"password": "changeme", "token": "<token>", "AWS_ACCESS_KEY_ID": "AKIA" + "IOSFODNN7EXAMPLE"}, nil},
		"binary":      {map[string]string{"encryption-key": "\x00\xff\xfe\x80\x90\xa0\xb0\xc0", "cache": "\x00\xff\xfe\x80"}, map[string]string{"encryption-key": "api-key recognised-by=name"}},
		"keystore":    {map[string]string{"keystore.jks": "\xfe\xed\xfe\xed" + strings.Repeat("\x01", 60), "truststore.jks": "\xfe\xed\xfe\xed" + strings.Repeat("\x02", 60)}, map[string]string{"keystore.jks": "private-key rule=java-keystore"}},
		"hash":        {map[string]string{"admin.password": "$2a$10$" + credRandom(6, credAlnum, 53)}, map[string]string{"admin.password": "password hashed=true recognised-by=name"}},
		"docker":      {map[string]string{"config.json": `{"auths":{"ghcr.io":{"username":"bot","password":"` + pw + `"}}}`}, map[string]string{"config.json/ghcr.io": "password by ghcr.io username=bot"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sec := &corev1.Secret{ObjectMeta: credMeta("a", "s"), Type: corev1.SecretTypeOpaque, Data: map[string][]byte{}}
			for k, v := range tt.data {
				sec.Data[k] = []byte(v)
			}
			got := c.fromSecret(sec)
			found := map[string]string{}
			for _, cred := range got {
				found[cred.Key] = strings.TrimSuffix(strings.TrimPrefix(credLines([]remit.Credential{cred}), cred.Key+" "), "\n")
				if cred.Fingerprint == "" {
					t.Errorf("%s has no fingerprint", cred.Key)
				}
				if cred.Provider == "aws" && cred.Key != "credentials#2" && cred.Native != aws {
					t.Errorf("native = %q", cred.Native)
				}
			}
			if len(found) != len(tt.want) {
				t.Errorf("got %v, want %v", found, tt.want)
			}
			for k, w := range tt.want {
				if found[k] != w {
					t.Errorf("%s: got %q, want %q", k, found[k], w)
				}
			}
			holdsNone(t, got, gh, pw, awsSecret, jwt, strings.Split(keyPEM, "\n")[1])
		})
	}
}

func TestRotatedAndLastApplied(t *testing.T) {
	t.Parallel()
	c := testCredentials(t)
	pw := "pw-" + credRandom(7, credAlnum, 20)
	at := func(d time.Time) *metav1.Time { m := metav1.NewTime(d); return &m }
	sec := &corev1.Secret{ObjectMeta: credMeta("a", "s"), Data: map[string][]byte{"password": []byte(pw)}}
	sec.ManagedFields = []metav1.ManagedFieldsEntry{
		{Manager: "kubectl", Time: at(credChanged), FieldsV1: metav1.NewFieldsV1(`{"f:data":{".":{},"f:password":{}},"f:type":{}}`)},
		{Manager: "labeller", Time: at(credNow), FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:labels":{"f:data":{}}}}`)},
		{Manager: "broken", Time: at(credNow), FieldsV1: metav1.NewFieldsV1(`{`)},
	}
	applied := func(v string) map[string]string {
		doc, err := json.Marshal(map[string]any{"data": map[string][]byte{"password": []byte(v)}})
		if err != nil {
			t.Fatal(err)
		}
		return map[string]string{corev1.LastAppliedConfigAnnotation: string(doc)}
	}
	sec.Annotations = applied(pw)
	got := c.fromSecret(sec)
	wantCredentials(t, got, "password password in annotation recognised-by=name\n")
	if !got[0].Rotated.Equal(credChanged) || !got[0].Created.Equal(credCreated) {
		t.Errorf("rotated %s, created %s", got[0].Rotated, got[0].Created)
	}
	holdsNone(t, got, pw)
	// What kubectl applied once and something else changed since is exposed no
	// more.
	sec.Annotations = applied("older" + pw)
	wantCredentials(t, c.fromSecret(sec), "password password recognised-by=name\n")
	sec.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: `{"stringData":{"password":"` + pw + `"}}`}
	wantCredentials(t, c.fromSecret(sec), "password password in annotation recognised-by=name\n")
	sec.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: `{`}
	sec.ManagedFields = nil
	if got = c.fromSecret(sec); len(got) != 1 || len(got[0].Exposure) > 0 || !got[0].Rotated.Equal(credCreated) {
		t.Errorf("%+v", got)
	}
}

func TestFromSecretMetadata(t *testing.T) {
	t.Parallel()
	c := testCredentials(t)
	fields := func(keys ...string) []metav1.ManagedFieldsEntry {
		m := map[string]any{}
		for _, k := range keys {
			m["f:"+k] = map[string]any{}
		}
		raw, err := json.Marshal(map[string]any{"f:data": m})
		if err != nil {
			t.Fatal(err)
		}
		when := metav1.NewTime(credChanged)
		return []metav1.ManagedFieldsEntry{{Time: &when, FieldsV1: metav1.NewFieldsV1(string(raw))}}
	}
	for name, tt := range map[string]struct {
		typ, ns, name string
		keys          []string
		annotations   map[string]string
		want          string
	}{
		"token": {
			typ: string(corev1.SecretTypeServiceAccountToken), annotations: map[string]string{corev1.ServiceAccountNameKey: "deployer"},
			want: "token static-token by kubernetes of ServiceAccount a/deployer legacy=true unread=true\n",
		},
		"token, type unknown": {
			annotations: map[string]string{corev1.ServiceAccountNameKey: "deployer"},
			want:        "token static-token by kubernetes of ServiceAccount a/deployer legacy=true unread=true\n",
		},
		"tls":              {typ: string(corev1.SecretTypeTLS), want: "tls.crt certificate private-key=true unread=true\n"},
		"tls, by its keys": {keys: []string{"tls.crt", "tls.key"}, want: "tls.crt certificate private-key=true unread=true\n"},
		"opaque":           {typ: "Opaque", keys: []string{"password", "username", "host", "api-key"}, want: "api-key api-key recognised-by=name unread=true\npassword password recognised-by=name unread=true\n"},
		"opaque unknown":   {typ: "Opaque"},
		"contained":        {ns: enforceSystemNamespace, name: containedName, keys: []string{"mint.SA-shop_api-password"}},
		"as contained":     {name: containedName, keys: []string{"api-password"}, want: "api-password password recognised-by=name unread=true\n"},
		"helm":             {name: "sh.helm.release.v1.app.v1", keys: []string{"release", "token"}},
		"docker":           {typ: string(corev1.SecretTypeDockerConfigJson), want: ".dockerconfigjson password unread=true\n"},
		"basic":            {typ: string(corev1.SecretTypeBasicAuth), want: "password password unread=true\n"},
		"ssh":              {typ: string(corev1.SecretTypeSSHAuth), want: "ssh-privatekey ssh-key unread=true\n"},
		"bootstrap":        {typ: string(corev1.SecretTypeBootstrapToken), name: "bootstrap-token-abcdef", want: "token-secret static-token by kubernetes of User system:bootstrap:abcdef bootstrap=true unread=true\n"},
		"applied": {
			typ: "Opaque", keys: []string{"password"}, annotations: map[string]string{corev1.LastAppliedConfigAnnotation: `{"data":{"password":"aHVudGVyMmh1bnRlcg=="}}`},
			want: "password password in annotation recognised-by=name unread=true\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			meta := &metav1.PartialObjectMetadata{ObjectMeta: credMeta("a", "s")}
			if tt.name != "" {
				meta.Name = tt.name
			}
			if tt.ns != "" {
				meta.Namespace = tt.ns
			}
			meta.Annotations = tt.annotations
			if tt.keys != nil {
				meta.ManagedFields = fields(tt.keys...)
			}
			got := c.fromSecretMetadata(meta, tt.typ)
			wantCredentials(t, got, tt.want)
			for _, cred := range got {
				if cred.Fingerprint != "" || cred.NeverExpires && cred.Attributes["bootstrap"] == "true" {
					t.Errorf("more than metadata can tell: %+v", cred)
				}
			}
			holdsNone(t, got, "hunter2hunter")
		})
	}
}

// What is read and what is not are the same credential.
func TestMetadataHasTheSameIDs(t *testing.T) {
	t.Parallel()
	c := testCredentials(t)
	key, keyPEM := credKey(t)
	cert := credCertificate(t, key, x509.Certificate{Subject: pkix.Name{CommonName: "x"}})
	for _, sec := range []*corev1.Secret{
		{Type: corev1.SecretTypeServiceAccountToken, Data: map[string][]byte{"token": []byte(credToken(credBoundClaims))}},
		{Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": []byte(cert), "tls.key": []byte(keyPEM)}},
		{Type: corev1.SecretTypeBasicAuth, Data: map[string][]byte{"password": []byte("s3cr3tpw")}},
		{Type: corev1.SecretTypeSSHAuth, Data: map[string][]byte{"ssh-privatekey": []byte(keyPEM)}},
	} {
		sec.ObjectMeta = credMeta("a", "s")
		read := c.fromSecret(sec)
		unread := c.fromSecretMetadata(&metav1.PartialObjectMetadata{ObjectMeta: sec.ObjectMeta}, string(sec.Type))
		if len(read) != 1 || len(unread) != 1 || read[0].ID != unread[0].ID || read[0].Type != unread[0].Type {
			t.Errorf("%s:\n%+v\n%+v", sec.Type, read, unread)
		}
	}
}

func TestFromConfigMap(t *testing.T) {
	t.Parallel()
	c := testCredentials(t)
	key, keyPEM := credKey(t)
	cert := credCertificate(t, key, x509.Certificate{Subject: pkix.Name{CommonName: "x"}})
	gh, pw := "ghp"+"_"+credRandom(8, credAlnum, 36), "Pw1-"+credRandom(9, credAlnum, 16)
	cm := &corev1.ConfigMap{
		ObjectMeta: credMeta("a", "settings"),
		Data: map[string]string{
			"app.yaml": "db:\n  password: " + pw + "\n  host: db\n", "GITHUB_TOKEN": gh, "LOG_LEVEL": "debug", "ca.crt": cert,
			"DB_PASSWORD": "hunter2", "SECRET_NAME": "db-credentials", "TOKEN": "db-token", "server.key": keyPEM,
		},
		BinaryData: map[string][]byte{"blob": {0, 1, 2, 0xff}},
	}
	got := c.fromConfigMap(cm)
	wantCredentials(t, got, `
	DB_PASSWORD password in configmap recognised-by=name
	GITHUB_TOKEN api-key by github in configmap rule=github-pat
	app.yaml password in configmap rule=config-password
	ca.crt certificate in configmap private-key=true self-signed=true
	`)
	if got[0].Location != remit.ResourceID(credSystem, remit.Ref{Kind: "ConfigMap", Namespace: "a", Name: "settings"}) {
		t.Error("location is not the ConfigMap")
	}
	holdsNone(t, got, gh, pw, "hunter2", strings.Split(keyPEM, "\n")[1])

	cm.Data = map[string]string{"ca.crt": cert}
	cm.BinaryData = nil
	wantCredentials(t, c.fromConfigMap(cm), "ca.crt certificate self-signed=true\n")
	cm.Data["ca.crt"] = strings.Repeat(cert, trustBundle+1)
	wantCredentials(t, c.fromConfigMap(cm), "")
	cm.Name = "kube-root-ca.crt"
	cm.Data["ca.crt"] = cert
	wantCredentials(t, c.fromConfigMap(cm), "")
}

func TestFromPodSpec(t *testing.T) {
	t.Parallel()
	c := testCredentials(t)
	owner := remit.Ref{Kind: "Deployment", Namespace: "payments", Name: "api"}
	meta := credMeta("payments", "api")
	yes, no := true, false
	seconds := func(s int64) *int64 { return &s }
	projected := func(name, path, audience string, s *int64) corev1.Volume {
		return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ConfigMap: &corev1.ConfigMapProjection{}},
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: path, Audience: audience, ExpirationSeconds: s}},
		}}}}
	}
	const implied = "automount short-lived-token by kubernetes of ServiceAccount payments/api automounted=true\n"
	for name, tt := range map[string]struct {
		spec               corev1.PodSpec
		want               string
		lifetime, granted  int64
		withoutExtension   bool
		ref                remit.Ref
		deletedAnnotations bool
	}{
		"implied":  {spec: corev1.PodSpec{}, want: implied, lifetime: 3607, granted: 31536000},
		"asked":    {spec: corev1.PodSpec{AutomountServiceAccountToken: &yes}, want: implied, lifetime: 3607, granted: 31536000},
		"refused":  {spec: corev1.PodSpec{AutomountServiceAccountToken: &no}},
		"injected": {spec: corev1.PodSpec{Volumes: []corev1.Volume{projected("kube-api-access-x2x9q", "token", "", seconds(3607))}}, want: implied, lifetime: 3607, granted: 31536000},
		"off":      {spec: corev1.PodSpec{}, want: implied, lifetime: 3607, granted: 3607, withoutExtension: true},
		"default": {
			spec: corev1.PodSpec{AutomountServiceAccountToken: &no, Volumes: []corev1.Volume{projected("t", "api", "", nil)}},
			want: "t/api short-lived-token by kubernetes of ServiceAccount payments/api\n", lifetime: 3600, granted: 3600,
		},
		"vault": {
			spec: corev1.PodSpec{AutomountServiceAccountToken: &no, Volumes: []corev1.Volume{projected("t", "vault", "vault", seconds(3607))}},
			want: "t/vault short-lived-token by vault of ServiceAccount payments/api\n", lifetime: 3607, granted: 3607,
		},
		"too short": {
			spec: corev1.PodSpec{AutomountServiceAccountToken: &no, Volumes: []corev1.Volume{projected("t", "aws", "sts.amazonaws.com", seconds(60))}},
			want: "t/aws short-lived-token by aws of ServiceAccount payments/api\n", lifetime: 600, granted: 600,
		},
		"own mount": {
			spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", VolumeMounts: []corev1.VolumeMount{{MountPath: automountPath}}}}},
		},
		"live pod without": {spec: corev1.PodSpec{}, ref: remit.Ref{Kind: "Pod", Namespace: "payments", Name: "api-0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := *c
			c.ExtendTokenExpiration = !tt.withoutExtension
			ref := owner
			if tt.ref != (remit.Ref{}) {
				ref = tt.ref
			}
			tt.spec.ServiceAccountName = "api"
			got := c.fromPodSpec(ref, &meta, &tt.spec)
			wantCredentials(t, got, tt.want)
			if len(got) == 1 && (got[0].Lifetime != tt.lifetime || got[0].GrantedLifetime != tt.granted) {
				t.Errorf("lifetime %d, granted %d", got[0].Lifetime, got[0].GrantedLifetime)
			}
		})
	}
	// A template and a pod that was made of it yield the same credential.
	template := c.fromPodSpec(owner, &meta, &corev1.PodSpec{ServiceAccountName: "api"})
	podMeta := credMeta("payments", "api-7d9f8b6c5d-x2x9q")
	pod := c.fromPodSpec(owner, &podMeta, &corev1.PodSpec{ServiceAccountName: "api", Volumes: []corev1.Volume{projected("kube-api-access-x2x9q", "token", "", seconds(3607))}})
	if template[0].ID != pod[0].ID {
		t.Error("the ids differ")
	}
	mirror := credMeta("kube-system", "etcd-n1")
	mirror.Annotations = map[string]string{mirrorAnnotation: "x"}
	wantCredentials(t, c.fromPodSpec(remit.Ref{Kind: "Pod", Namespace: "kube-system", Name: "etcd-n1"}, &mirror, &corev1.PodSpec{}), "")
	wantCredentials(t, c.fromPodSpec(owner, &meta, nil), "")
}

func TestFromPodSpecEnvironment(t *testing.T) {
	t.Parallel()
	c := testCredentials(t)
	no := false
	meta := credMeta("payments", "api")
	gh, pw, stripe := "ghp"+"_"+credRandom(10, credAlnum, 36), "Pw1-"+credRandom(11, credAlnum, 16), "sk"+"_live_"+credRandom(12, credAlnum, 24)
	jwt := credToken(credBoundClaims)
	spec := &corev1.PodSpec{
		AutomountServiceAccountToken: &no,
		InitContainers:               []corev1.Container{{Name: "migrate", Env: []corev1.EnvVar{{Name: "DATABASE_URL", Value: "postgres://app:" + pw + "@db/app"}}}},
		Containers: []corev1.Container{{
			Name: "api",
			Env: []corev1.EnvVar{
				{Name: "STRIPE_KEY", Value: stripe},
				{Name: "DB_PASSWORD", Value: "hunter2"},
				{Name: "DB_USER", Value: "app"},
				{Name: "DB_URL", Value: "postgres://app:$(DB_PASSWORD)@db/app"},
				{Name: "OTHER_PASSWORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{}}},
				{Name: "KUBE_TOKEN", Value: jwt},
				{Name: "OTEL_RESOURCE_ATTRIBUTES", Value: "service.name=api,service.version=1.2.3"},
				{Name: "IMAGE", Value: "ghcr.io/a/b@sha256:" + strings.Repeat("0123456789abcdef", 4)},
				{Name: "PASSWORD_FILE", Value: "/run/secrets/pw"},
				{Name: "TOKEN_SECRET_NAME", Value: "api-token"},
			},
			Command: []string{"/bin/api"},
			Args:    []string{"--password=" + pw, "--token", gh, "--port", "8080", "--verbose", "--token-file=/run/token", "serve"},
		}, {
			Name: "sidecar", Args: []string{"sh", "-c", "curl -H 'Authorization: Bearer " + gh + "' https://api/"},
		}},
	}
	got := c.fromPodSpec(remit.Ref{Kind: "Deployment", Namespace: "payments", Name: "api"}, &meta, spec)
	wantCredentials(t, got, `
	migrate/DATABASE_URL password by postgres in environment rule=url-password
	api/STRIPE_KEY api-key by stripe in environment rule=stripe-access-token
	api/DB_PASSWORD password in environment recognised-by=name
	api/KUBE_TOKEN short-lived-token by kubernetes of ServiceAccount payments/api in environment bound-pod=api-0 jwt=true
	api/args password in arguments recognised-by=name
	api/args#2 api-key by github in arguments rule=github-pat
	sidecar/args api-key by github in arguments rule=github-pat
	`)
	holdsNone(t, got, gh, pw, stripe, jwt, "hunter2")
	for _, cred := range got {
		if cred.Location != "" {
			t.Errorf("%s has a location", cred.Key)
		}
	}
}

func TestFromCSR(t *testing.T) {
	t.Parallel()
	c := testCredentials(t)
	key, _ := credKey(t)
	request := func(cn string, o ...string) []byte {
		der, err := x509.CreateCertificateRequest(crand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn, Organization: o}}, key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	}
	issued := []byte(credCertificate(t, key, x509.Certificate{
		Subject: pkix.Name{CommonName: "jane", Organization: []string{"ops"}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}))
	cond := func(t certificatesv1.RequestConditionType) []certificatesv1.CertificateSigningRequestCondition {
		return []certificatesv1.CertificateSigningRequestCondition{{Type: t, Status: corev1.ConditionTrue}}
	}
	client := certificatesv1.KubeAPIServerClientSignerName
	for name, tt := range map[string]struct {
		signer string
		req    []byte
		status certificatesv1.CertificateSigningRequestStatus
		want   string
	}{
		"pending":  {client, request("jane", "ops"), certificatesv1.CertificateSigningRequestStatus{}, " certificate by kubernetes pending of User jane groups=ops requestor=bob signer=" + client + "\n"},
		"approved": {client, request("jane", "ops"), certificatesv1.CertificateSigningRequestStatus{Conditions: cond(certificatesv1.CertificateApproved)}, " certificate by kubernetes pending of User jane groups=ops requestor=bob signer=" + client + "\n"},
		"active": {
			client, request("jane", "ops"),
			certificatesv1.CertificateSigningRequestStatus{Conditions: cond(certificatesv1.CertificateApproved), Certificate: issued},
			" certificate by kubernetes of User jane groups=ops requestor=bob self-signed=true signer=" + client + " usage=client\n",
		},
		"denied": {client, request("jane"), certificatesv1.CertificateSigningRequestStatus{Conditions: cond(certificatesv1.CertificateDenied)}, " certificate by kubernetes disabled of User jane requestor=bob signer=" + client + "\n"},
		"failed": {client, request("jane"), certificatesv1.CertificateSigningRequestStatus{Conditions: cond(certificatesv1.CertificateFailed)}, " certificate by kubernetes disabled of User jane requestor=bob signer=" + client + "\n"},
		"node": {
			certificatesv1.KubeAPIServerClientKubeletSignerName, request("system:node:n1", "system:nodes"),
			certificatesv1.CertificateSigningRequestStatus{},
			" certificate by kubernetes pending of Node n1 groups=system:nodes requestor=bob signer=kubernetes.io/kube-apiserver-client-kubelet\n",
		},
		"account": {client, request("system:serviceaccount:a:b"), certificatesv1.CertificateSigningRequestStatus{}, " certificate by kubernetes pending of ServiceAccount a/b requestor=bob signer=" + client + "\n"},
		"serving": {
			certificatesv1.KubeletServingSignerName, request("system:node:n1", "system:nodes"),
			certificatesv1.CertificateSigningRequestStatus{},
			" certificate pending groups=system:nodes requestor=bob signer=kubernetes.io/kubelet-serving\n",
		},
		"broken": {client, []byte("garbage"), certificatesv1.CertificateSigningRequestStatus{Certificate: []byte("-----BEGIN CERTIFICATE-----")}, " certificate by kubernetes pending requestor=bob signer=" + client + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			day := int32(86400)
			csr := &certificatesv1.CertificateSigningRequest{
				ObjectMeta: credMeta("", "csr-1"),
				Spec:       certificatesv1.CertificateSigningRequestSpec{SignerName: tt.signer, Request: tt.req, Username: "bob", ExpirationSeconds: &day},
				Status:     tt.status,
			}
			got := c.fromCSR(csr)
			wantCredentials(t, got, tt.want)
			if got[0].Lifetime != 86400 || (name == "active") != strings.HasPrefix(got[0].Native, "X509SHA256=") {
				t.Errorf("%+v", got[0])
			}
		})
	}
}

func TestFromServiceAccount(t *testing.T) {
	t.Parallel()
	c := testCredentials(t)
	sa := &corev1.ServiceAccount{ObjectMeta: credMeta("payments", "api")}
	wantCredentials(t, c.fromServiceAccount(sa), "")
	sa.Annotations = map[string]string{
		"eks.amazonaws.com/role-arn":        "arn:aws:iam::123456789012:role/api",
		"iam.gke.io/gcp-service-account":    "api@acme.iam.gserviceaccount.com",
		"azure.workload.identity/client-id": "0b8c", "azure.workload.identity/tenant-id": "77aa",
		"eks.amazonaws.com/token-expiration": "3600",
	}
	got := c.fromServiceAccount(sa)
	wantCredentials(t, got, `
	eks.amazonaws.com/role-arn federated-trust by aws of ServiceAccount payments/api
	iam.gke.io/gcp-service-account federated-trust by gcp of ServiceAccount payments/api
	azure.workload.identity/client-id federated-trust by azure of ServiceAccount payments/api tenant=77aa
	`)
	if got[0].Native != "arn:aws:iam::123456789012:role/api" || got[0].Lifetime != 3600 || got[0].Audiences[0] != "sts.amazonaws.com" {
		t.Errorf("%+v", got[0])
	}
}

// What fills an object with thousands of secrets gets a bounded answer.
func TestCredentialsAreBounded(t *testing.T) {
	t.Parallel()
	c := testCredentials(t)
	sec := &corev1.Secret{ObjectMeta: credMeta("a", "s"), Data: map[string][]byte{}}
	for i := range 2000 {
		sec.Data[fmt.Sprintf("password-%04d", i)] = []byte(credRandom(uint64(i), credAlnum, 12))
	}
	got := c.fromSecret(sec)
	if len(got) != maxCredentials {
		t.Errorf("%d credentials", len(got))
	}
	again := c.fromSecret(sec)
	if credLines(got) != credLines(again) {
		t.Error("two looks at one object differ")
	}
}

func FuzzFromSecret(f *testing.F) {
	c := testCredentials(f)
	_, keyPEM := credKey(f)
	f.Add("password", []byte("hunter2hunter"), "Opaque", "{}")
	f.Add("tls.key", []byte(keyPEM), "kubernetes.io/tls", `{"data":{"tls.key":"eA=="}}`)
	f.Add(".dockerconfigjson", []byte(`{"auths":{"a":{"auth":"Ym90OnB3MTIzNDU2"}}}`), "kubernetes.io/dockerconfigjson", "")
	f.Add("value", []byte("kind: Config\nusers:\n- name: a\n  user: {token: abcdefgh12345678}\n"), "", "")
	f.Fuzz(func(t *testing.T, key string, value []byte, typ, applied string) {
		meta := credMeta("a", "s")
		meta.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: applied}
		got := c.fromSecret(&corev1.Secret{ObjectMeta: meta, Type: corev1.SecretType(typ), Data: map[string][]byte{key: value}})
		got = append(got, c.fromConfigMap(&corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{key: string(value)}})...)
		got = append(got, c.fromPodSpec(remit.Ref{Kind: "Pod"}, &meta, &corev1.PodSpec{Containers: []corev1.Container{{
			Env: []corev1.EnvVar{{Name: key, Value: string(value)}}, Args: []string{string(value), "--" + key, string(value)},
		}}})...)
		if _, err := json.Marshal(got); err != nil {
			t.Fatal(err)
		}
	})
}

// BenchmarkSecrets is the inventory of a large cluster: 20,000 Secrets of the
// usual kinds, with the values that are found in them.
func BenchmarkSecrets(b *testing.B) {
	c := testCredentials(b)
	key, keyPEM := credKey(b)
	cert := credCertificate(b, key, x509.Certificate{Subject: pkix.Name{CommonName: "x"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	secrets := make([]*corev1.Secret, 20000)
	for i := range secrets {
		s := &corev1.Secret{ObjectMeta: credMeta("a", fmt.Sprintf("s-%d", i)), Type: corev1.SecretTypeOpaque}
		seed := uint64(i)
		switch i % 5 {
		case 0:
			s.Data = map[string][]byte{"username": []byte("app"), "password": []byte(credRandom(seed, credAlnum, 20)), "host": []byte("db.internal"), "port": []byte("5432")}
		case 1:
			s.Type = corev1.SecretTypeTLS
			s.Data = map[string][]byte{"tls.crt": []byte(cert + cert), "tls.key": []byte(keyPEM), "ca.crt": []byte(cert)}
		case 2:
			s.Data = map[string][]byte{"GITHUB_TOKEN": []byte("ghp" + "_" + credRandom(seed, credAlnum, 36)), "DATABASE_URL": []byte("postgres://app:" + credRandom(seed, credAlnum, 16) + "@db/app")}
		case 3:
			s.Type = corev1.SecretTypeDockerConfigJson
			s.Data = map[string][]byte{".dockerconfigjson": []byte(`{"auths":{"ghcr.io":{"username":"bot","password":"` + credRandom(seed, credAlnum, 20) + `"}}}`)}
		case 4:
			s.Data = map[string][]byte{"application.yaml": []byte(strings.Repeat("server:\n  port: 8080\n  name: api\n  timeout: 30s\n", 40) + "db:\n  password: " + credRandom(seed, credAlnum, 16) + "1!\n")}
		}
		secrets[i] = s
	}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, s := range secrets {
			n += len(c.fromSecret(s))
		}
		if n < len(secrets) {
			b.Fatalf("%d credentials", n)
		}
	}
}
