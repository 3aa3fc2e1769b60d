package server

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"remit"
)

// Certificates gives the listener its TLS certificate: the one in two files of the
// user's, read again when they change, or one of an authority of its own, for
// which a sender needs nothing but the authority's certificate. Safe for
// concurrent use.
type Certificates struct {
	certFile, keyFile string
	authority         *Authority
	hosts             []string

	mu      sync.Mutex
	current *tls.Certificate
	checked time.Time
	changed time.Time // of the newer of the files
}

// recheck is how often the files, or the certificate's age, are looked at.
const recheck = 10 * time.Second

// The lifetimes of what the own authority issues. A server's certificate is made
// anew after two thirds of its life, and at every start.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	serverLife    = 90 * 24 * time.Hour
)

// FileCertificates serves the certificate in PEM files.
func FileCertificates(certFile, keyFile string) (*Certificates, error) {
	c := &Certificates{certFile: certFile, keyFile: keyFile}
	_, err := c.Get(nil)
	return c, err
}

// OwnCertificates serves certificates of an authority for host names and IP
// addresses; "localhost" and the loopback addresses are always among them.
func OwnCertificates(authority *Authority, hosts []string) (*Certificates, error) {
	c := &Certificates{authority: authority, hosts: slices.Concat(hosts, []string{"localhost", "127.0.0.1", "::1"})}
	_, err := c.Get(nil)
	return c, err
}

// Get is a tls.Config's GetCertificate. A file that can no longer be read leaves
// the certificate as it was.
func (c *Certificates) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.current != nil && now.Sub(c.checked) < recheck {
		return c.current, nil
	}
	c.checked = now
	made, err := c.renew(now)
	switch {
	case err == nil:
		c.current = made
	case c.current == nil:
		return nil, err
	}
	return c.current, nil
}

func (c *Certificates) renew(now time.Time) (*tls.Certificate, error) {
	if c.authority != nil {
		if c.current != nil && now.Before(c.current.Leaf.NotBefore.Add(serverLife*2/3)) {
			return c.current, nil
		}
		return c.authority.issue(c.hosts, now)
	}
	const op = "read certificate"
	newest := time.Time{}
	for _, path := range [...]string{c.certFile, c.keyFile} {
		info, err := os.Stat(path)
		if err != nil {
			return nil, remit.Errorf(remit.Invalid, op, "%w", err)
		}
		if info.ModTime().After(newest) {
			newest = info.ModTime()
		}
	}
	if c.current != nil && newest.Equal(c.changed) {
		return c.current, nil
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return nil, remit.Errorf(remit.Invalid, op, "%s, %s: %w", c.certFile, c.keyFile, err)
	}
	c.changed = newest
	return &pair, nil
}

// Authority is Remit's own certificate authority. Its key lies in the data
// directory, readable by its owner only.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// OpenAuthority reads the authority in a file of a data directory, or makes it.
func OpenAuthority(dataDir string) (*Authority, error) {
	const op = "open certificate authority"
	path := filepath.Join(dataDir, "authority.pem")
	for range 3 {
		text, err := os.ReadFile(path)
		if err == nil {
			return parseAuthority(path, text)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, remit.Errorf(remit.Unavailable, op, "%w", err)
		}
		if text, err = makeAuthority(time.Now()); err != nil {
			return nil, remit.Errorf(remit.Internal, op, "%w", err)
		}
		if err := putOnce(path, text); err != nil {
			return nil, remit.Errorf(remit.Unavailable, op, "%w", err)
		}
	}
	return nil, remit.Errorf(remit.Unavailable, op, "%s disappears as soon as it is made", path)
}

// putOnce writes a file as a whole unless it is there already: of several
// processes that start at once, one wins and all read the same.
func putOnce(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func parseAuthority(path string, text []byte) (*Authority, error) {
	damaged := func(err error) (*Authority, error) {
		return nil, remit.Errorf(remit.Invalid, "open certificate authority",
			"%s is damaged: put the original back, or remove it and give every sender the new certificate (%w)", path, err)
	}
	var a Authority
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		var err error
		switch block.Type {
		case "CERTIFICATE":
			a.cert, err = x509.ParseCertificate(block.Bytes)
			a.pem = pem.EncodeToMemory(block)
		case "EC PRIVATE KEY":
			a.key, err = x509.ParseECPrivateKey(block.Bytes)
		}
		if err != nil {
			return damaged(err)
		}
	}
	if a.cert == nil || a.key == nil || !a.key.PublicKey.Equal(a.cert.PublicKey) {
		return damaged(errors.New("certificate and key are not both there"))
	}
	return &a, nil
}

func makeAuthority(now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Remit authority"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // to memory
	_ = pem.Encode(&out, &pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
	return out.Bytes(), nil
}

func serial() *big.Int {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails (crypto/rand)
	raw[0] &= 0x7f           // RFC 5280, section 4.1.2.2: positive, at most 20 octets
	return new(big.Int).SetBytes(raw[:])
}

// PEM is the authority's certificate, with which senders recognise Remit.
func (a *Authority) PEM() []byte { return a.pem }

// issue makes a server's certificate with a key of its own, which only lives in
// memory.
func (a *Authority) issue(hosts []string, now time.Time) (*tls.Certificate, error) {
	const op = "issue certificate"
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, remit.Errorf(remit.Internal, op, "%w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "remit"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(serverLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if host != "" {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return nil, remit.Errorf(remit.Internal, op, "%w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, remit.Errorf(remit.Internal, op, "%w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}
