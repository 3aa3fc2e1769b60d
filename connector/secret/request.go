package secret

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"

	"remit"
)

// Request is what a certificate request (PKCS #10, RFC 2986) asks for.
type Request struct {
	Subject       string
	CommonName    string
	Organizations []string
	Algorithm     string
	KeyBits       int
}

// ParseRequest reads a certificate request in PEM. It fails with [remit.Invalid]
// when there is none.
func ParseRequest(data []byte) (Request, error) {
	const op = "read certificate request"
	if len(data) > MaxValue || !bytes.Contains(data, []byte("-----BEGIN ")) {
		return Request{}, remit.Errorf(remit.Invalid, op, "no PEM block")
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return Request{}, remit.Errorf(remit.Invalid, op, "no PEM block")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return Request{}, remit.Errorf(remit.Invalid, op, "no certificate request that can be read")
	}
	r := Request{Subject: short(csr.Subject.String()), CommonName: short(csr.Subject.CommonName)}
	for i, o := range csr.Subject.Organization {
		if i == 64 {
			break
		}
		r.Organizations = append(r.Organizations, short(o))
	}
	r.Algorithm, r.KeyBits = algorithm(csr.PublicKey)
	return r, nil
}
