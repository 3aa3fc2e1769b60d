package planted

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"text/template"
	"time"
)

// forge makes the secrets of one planted cluster and remembers them. API keys
// are assembled from pieces so that no scanner takes this file for a leak.
type forge struct {
	secrets []string
	sticky  map[string]string
	keys    map[string]string // PEM in base64, by certificate
}

func newForge() *forge { return &forge{sticky: map[string]string{}, keys: map[string]string{}} }

func (f *forge) functions() template.FuncMap {
	return template.FuncMap{
		"random": f.random,
		"hex": func(n int) string {
			return f.secret(hex.EncodeToString(entropy(n))[:n])
		},
		"sticky": func(name string) string {
			if f.sticky[name] == "" {
				f.sticky[name] = f.random(32)
			}
			return f.sticky[name]
		},
		// An access key id names the key; it is no secret.
		"awskey":      func() string { return "AK" + "IA" + letters(16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") },
		"stripekey":   func() string { return f.secret("sk" + "_live_" + letters(48, alphanumeric)) },
		"githubtoken": func() string { return f.secret("gh" + "p_" + letters(36, alphanumeric)) },
		"openaikey": func() string {
			return f.secret("sk-" + letters(20, alphanumeric) + "T3Blbk" + "FJ" + letters(20, alphanumeric))
		},
		"cert":         f.certificate,
		"ca":           f.authority,
		"key":          func(name string) string { return f.keys[name] },
		"rsakey":       f.rsaKey,
		"csr":          f.request,
		"kubeconfig":   f.kubeconfig,
		"dockerconfig": f.dockerconfig,
		"workload":     workload,
		"deployment":   deployment,
		"role":         role,
		"clusterrole":  clusterRole,
		"bind":         bind,
	}
}

const alphanumeric = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

func (f *forge) secret(s string) string {
	f.secrets = append(f.secrets, s)
	return s
}

func (f *forge) random(n int) string { return f.secret(letters(n, alphanumeric)) }

func letters(n int, alphabet string) string {
	out := make([]byte, n)
	for i, b := range entropy(n) {
		out[i] = alphabet[int(b)%len(alphabet)]
	}
	return string(out)
}

func entropy(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return b
}

// newKey makes a private key; the small RSA ones are what is wrong with them.
func newKey(algorithm string, bits int) (crypto.Signer, error) {
	if algorithm == "RSA" {
		return rsa.GenerateKey(rand.Reader, bits)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

func (f *forge) keep(name string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	block := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	f.secret(strings.Split(block, "\n")[1])
	f.keys[name] = base64.StdEncoding.EncodeToString([]byte(block))
	return nil
}

// certificate issues a server certificate for so many days from an authority
// that nobody keeps; negative days have passed already.
func (f *forge) certificate(name, subject, algorithm string, bits, days int) (string, error) {
	issuerKey, err := newKey("ECDSA", 256)
	if err != nil {
		return "", err
	}
	issuer := &x509.Certificate{Subject: pkix.Name{CommonName: "planted-issuer"}}
	return f.issue(name, subject, algorithm, bits, days, issuer, issuerKey, false)
}

// authority makes a self-signed certificate authority.
func (f *forge) authority(name, subject, algorithm string, bits, days int) (string, error) {
	return f.issue(name, subject, algorithm, bits, days, nil, nil, true)
}

func (f *forge) issue(name, subject, algorithm string, bits, days int, issuer *x509.Certificate, issuerKey crypto.Signer, ca bool) (string, error) {
	key, err := newKey(algorithm, bits)
	if err != nil {
		return "", err
	}
	now := time.Now()
	from, to := now.Add(-time.Hour), now.AddDate(0, 0, days)
	if days < 30 { // it was issued for 60 days, and most of them have passed
		from = to.AddDate(0, 0, -60)
	}
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(entropy(8)), Subject: parseName(subject),
		NotBefore: from, NotAfter: to, BasicConstraintsValid: true, IsCA: ca,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{parseName(subject).CommonName},
	}
	if ca {
		template.KeyUsage, template.ExtKeyUsage, template.DNSNames = x509.KeyUsageCertSign, nil, nil
		issuer, issuerKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), issuerKey)
	if err != nil {
		return "", fmt.Errorf("issue %s: %w", subject, err)
	}
	if err := f.keep(name, key); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), nil
}

func (f *forge) rsaKey(bits int) (string, error) {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return "", err
	}
	block := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	f.secret(strings.Split(block, "\n")[1])
	return base64.StdEncoding.EncodeToString([]byte(block)), nil
}

// request makes a certificate signing request in base64 PEM.
func (f *forge) request(subject string) (string, error) {
	key, err := newKey("ECDSA", 256)
	if err != nil {
		return "", err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: parseName(subject)}, key)
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

func parseName(subject string) pkix.Name {
	var name pkix.Name
	for part := range strings.SplitSeq(subject, ",") {
		switch key, value, _ := strings.Cut(part, "="); key {
		case "CN":
			name.CommonName = value
		case "O":
			name.Organization = append(name.Organization, value)
		}
	}
	return name
}

func (f *forge) kubeconfig(user string) string {
	return base64.StdEncoding.EncodeToString([]byte(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://10.0.0.1:6443"}}]
contexts: [{name: c, context: {cluster: c, user: ` + user + `}}]
current-context: c
users: [{name: ` + user + `, user: {token: ` + f.random(40) + `}}]
`))
}

func (f *forge) dockerconfig(host, user string) (string, error) {
	if f.sticky[host] == "" {
		f.sticky[host] = f.random(28)
	}
	password := f.sticky[host]
	data, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{
		"username": user, "password": password,
		"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + password)),
	}}})
	return base64.StdEncoding.EncodeToString(data), err
}

// workload is a service account and a deployment that runs as it.
func workload(namespace, name string) string {
	return "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: " + name + ", namespace: " + namespace + "}\n---\n" +
		deployment(namespace, name, name, "registry.example.com/"+namespace+"/"+name+":1.0")
}

func deployment(namespace, name, account, image string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  selector: {matchLabels: {app: %[2]s}}
  template:
    metadata: {labels: {app: %[2]s}}
    spec: {serviceAccountName: %[3]s, containers: [{name: main, image: %[4]q}]}
`, namespace, name, account, image)
}

func role(namespace, name, group, resources, verbs string) string {
	return fmt.Sprintf("apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: %s, namespace: %s}\n"+
		"rules: [{apiGroups: [%q], resources: [%s], verbs: [%s]}]\n", name, namespace, group, resources, verbs)
}

func clusterRole(name, group, resources, verbs string) string {
	return fmt.Sprintf("apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: %s}\n"+
		"rules: [{apiGroups: [%q], resources: [%s], verbs: [%s]}]\n", name, group, resources, verbs)
}

// bind grants a role to the service account of the same name: a Role in its
// namespace, a ClusterRole everywhere.
func bind(namespace, name, kind, role string) string {
	meta, binding := "name: "+name, "ClusterRoleBinding"
	if kind == "Role" {
		meta, binding = meta+", namespace: "+namespace, "RoleBinding"
	}
	return fmt.Sprintf("apiVersion: rbac.authorization.k8s.io/v1\nkind: %s\nmetadata: {%s}\n"+
		"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: %s, name: %s}\n"+
		"subjects: [{kind: ServiceAccount, name: %s, namespace: %s}]\n", binding, meta, kind, role, name, namespace)
}
