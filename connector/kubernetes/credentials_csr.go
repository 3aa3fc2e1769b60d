package kubernetes

import (
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"

	"remit"
	"remit/connector/secret"
)

// fromCSR makes a credential of a certificate request and of the certificate
// that was issued for it. Client signers issue certificates that the API server
// accepts as their subject; what others issue authenticates nobody here.
func (c *credentials) fromCSR(csr *certificatesv1.CertificateSigningRequest) []remit.Credential {
	p := placeOf(remit.Ref{Kind: "CertificateSigningRequest", Name: csr.Name}, &csr.ObjectMeta)
	f := c.at(p)
	cred := f.add("", remit.Certificate)
	cred.Attributes["signer"] = csr.Spec.SignerName
	if csr.Spec.Username != "" {
		cred.Attributes["requestor"] = csr.Spec.Username
	}
	if csr.Spec.ExpirationSeconds != nil {
		cred.Lifetime = int64(*csr.Spec.ExpirationSeconds)
	}

	var name string
	var groups []string
	if r, err := secret.ParseRequest(csr.Spec.Request); err == nil {
		name, groups = r.CommonName, r.Organizations
		cred.Subject, cred.Algorithm, cred.KeyBits = r.Subject, r.Algorithm, r.KeyBits
	}
	cred.Status = remit.Pending
	for _, cond := range csr.Status.Conditions {
		// A condition without a status counts as true (before v1.19 they
		// had none).
		if cond.Status != corev1.ConditionTrue && cond.Status != "" {
			continue
		}
		if cond.Type == certificatesv1.CertificateDenied || cond.Type == certificatesv1.CertificateFailed {
			cred.Status = remit.Disabled
		}
	}
	// What was signed counts, not what was asked for: a signer may change it.
	if bundle, _ := secret.ParseBundle(csr.Status.Certificate, nil); len(bundle.Certificates) > 0 {
		issued := &bundle.Certificates[0]
		f.certificate(cred, issued)
		name, groups = issued.CommonName, issued.Organizations
		if cred.Status == remit.Pending {
			cred.Status = remit.Active // and expired by the clock
		}
	}
	if len(groups) > 0 {
		cred.Attributes["groups"] = strings.Join(groups, ",")
	}
	switch csr.Spec.SignerName {
	case certificatesv1.KubeAPIServerClientSignerName, certificatesv1.KubeAPIServerClientKubeletSignerName:
		cred.Provider = "kubernetes"
		if name != "" {
			c.authenticates(cred, refOfUser(name))
		}
	}
	return f.done()
}
