//go:build unix

package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// authority is the cluster's certificate authority: it signs the API server's
// certificate, the client certificates, and approved certificate requests, as
// kubeadm's does.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of the cluster's CA: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serialNumber(),
		Subject:               pkix.Name{CommonName: "kubernetes"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(10, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		DNSNames:              []string{"kubernetes"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the certificate of the cluster's CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of the cluster's CA: %w", err)
	}
	return &authority{cert: cert, key: key, pem: certPEM(der)}, nil
}

// issue signs a certificate for a new key.
func (a *authority) issue(template *x509.Certificate) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key for %s: %w", template.Subject, err)
	}
	template.SerialNumber = serialNumber()
	template.NotBefore = time.Now().Add(-5 * time.Minute)
	template.NotAfter = time.Now().AddDate(1, 0, 0)
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, private.Public(), a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("sign a certificate for %s: %w", template.Subject, err)
	}
	key, err = keyPEM(private)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the key of %s: %w", template.Subject, err)
	}
	return certPEM(der), key, nil
}

func (a *authority) issueClient(user string, groups []string) (cert, key []byte, err error) {
	return a.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: groups},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

func (a *authority) issueServer() (cert, key []byte, err error) {
	return a.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{
			"localhost", "kubernetes", "kubernetes.default",
			"kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback, net.ParseIP(serviceIP)},
	})
}

// keyFiles are the paths of what the servers read.
type keyFiles struct {
	caCert, caKey         string
	serverCert, serverKey string
	tokenKey, tokenPublic string
}

// writeKeys makes the cluster's keys. The one that signs service-account
// tokens is RSA, as kubeadm's is, so that tokens look (RS256) and weigh as
// tokens do elsewhere.
func writeKeys(path func(...string) string, ca *authority) (keyFiles, error) {
	f := keyFiles{
		caCert: path("ca.crt"), caKey: path("ca.key"),
		serverCert: path("apiserver.crt"), serverKey: path("apiserver.key"),
		tokenKey: path("sa.key"), tokenPublic: path("sa.pub"),
	}
	serverCert, serverKey, err := ca.issueServer()
	if err != nil {
		return f, err
	}
	caKey, err := keyPEM(ca.key)
	if err != nil {
		return f, fmt.Errorf("encode the key of the cluster's CA: %w", err)
	}
	signing, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return f, fmt.Errorf("make the key that signs service-account tokens: %w", err)
	}
	tokenKey, err := keyPEM(signing)
	if err != nil {
		return f, fmt.Errorf("encode the key that signs service-account tokens: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(signing.Public())
	if err != nil {
		return f, fmt.Errorf("encode the key that verifies service-account tokens: %w", err)
	}
	for _, file := range []struct {
		path string
		data []byte
	}{
		{f.caCert, ca.pem},
		{f.caKey, caKey},
		{f.serverCert, serverCert},
		{f.serverKey, serverKey},
		{f.tokenKey, tokenKey},
		{f.tokenPublic, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})},
	} {
		if err := os.WriteFile(file.path, file.data, 0o600); err != nil {
			return f, fmt.Errorf("write a key of the cluster: %w", err)
		}
	}
	return f, nil
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func keyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// serialNumber draws one of 120 bits, of which no two are the same in practice.
func serialNumber() *big.Int {
	var b [15]byte
	_, _ = rand.Read(b[:]) // never fails
	return new(big.Int).SetBytes(b[:])
}
