package kubernetes

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit"
	"remit/connector"
)

// clientSigner signs certificates with which one signs in to the API server.
// Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers
const clientSigner = certificatesv1.KubeAPIServerClientSignerName

// certificatePlan is what is known of the old certificate.
type certificatePlan struct {
	User   string    `json:"user"`
	Groups []string  `json:"groups,omitempty"`
	Issuer []byte    `json:"issuer"` // DER
	Key    string    `json:"key"`    // ECDSA, RSA or Ed25519
	Bits   int       `json:"bits,omitempty"`
	Native string    `json:"native"` // as the audit log writes it
	Ends   time.Time `json:"ends"`
	Freeze string    `json:"freeze,omitempty"` // the name of the hold; "" to wait only
}

// planCertificate plans the successor of a client certificate: one for the same
// user and groups, with a key of the same sort that is made in memory.
func (r *Rotator) planCertificate(op string, o connector.RotationOrder, p rotationPlan, s *corev1.Secret) (connector.Rotation, error) {
	var planned connector.Rotation
	block, _ := pem.Decode(s.Data[corev1.TLSCertKey])
	if block == nil {
		return planned, remit.Errorf(remit.Unsupported, op, "%s of %s holds no certificate in PEM", corev1.TLSCertKey, o.Subject.Ref)
	}
	old, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return planned, remit.Errorf(remit.Unsupported, op, "the certificate in %s cannot be read: %w", o.Subject.Ref, err)
	}
	switch {
	case !slices.Contains(old.ExtKeyUsage, x509.ExtKeyUsageClientAuth) || old.IsCA:
		return planned, remit.Errorf(remit.Unsupported, op, "the certificate in %s is not one to sign in to the API server with: who issues it (cert-manager, a CA of yours) must renew it", o.Subject.Ref)
	case old.Subject.CommonName == "":
		return planned, remit.Errorf(remit.Unsupported, op, "the certificate in %s names no user", o.Subject.Ref)
	case slices.Contains(old.Subject.Organization, groupMasters):
		return planned, remit.Errorf(remit.Forbidden, op, "the certificate in %s is of the group %s, for which the cluster signs none: make one as the cluster was set up", o.Subject.Ref, groupMasters)
	}
	sum := sha256.Sum256(old.Raw)
	c := &certificatePlan{
		User: old.Subject.CommonName, Groups: old.Subject.Organization, Issuer: old.RawIssuer,
		Native: "X509SHA256=" + hex.EncodeToString(sum[:]), Ends: old.NotAfter.UTC(),
	}
	switch key := old.PublicKey.(type) {
	case *ecdsa.PublicKey:
		c.Key, c.Bits = "ECDSA", key.Curve.Params().BitSize
	case *rsa.PublicKey:
		c.Key, c.Bits = "RSA", max(key.N.BitLen(), 2048)
	case ed25519.PublicKey:
		c.Key = "Ed25519"
	default:
		return planned, remit.Errorf(remit.Unsupported, op, "the key of the certificate in %s is of a sort that Remit does not make", o.Subject.Ref)
	}
	p.Seconds = max(lifetimeSeconds(o.Lifetime, int64(old.NotAfter.Sub(old.NotBefore)/time.Second)), leastSeconds)
	oldRef := remit.Ref{Kind: kindCertificate, Name: c.Native}
	planned.Old = []remit.Ref{oldRef}
	planned.To = []string{fmt.Sprintf("secret:%s/%s#%s,%s", p.Namespace, p.Secret, corev1.TLSCertKey, corev1.TLSPrivateKeyKey)}
	who := fmt.Sprintf("user %q, groups %q", c.User, c.Groups)
	planned.Issue = remit.Step{
		Object: o.Subject.Ref,
		Does:   fmt.Sprintf("Make a key pair in memory (%s), ask %s for a certificate for %s, valid for %s, and approve the request.", c.Key, clientSigner, who, spanOf(p.Seconds)),
		Diff:   lines("+", "CertificateSigningRequest remit-…: "+who, "expires after "+spanOf(p.Seconds)),
	}
	planned.End = remit.Step{
		Object: oldRef, Diff: lines("-", c.Native+", which ends "+c.Ends.Format(time.RFC3339)),
		Does: fmt.Sprintf("Wait for the old certificate to expire at %s. Kubernetes cannot revoke a certificate.", c.Ends.Format(time.RFC3339)),
	}
	if o.Freeze {
		name := make([]byte, 8)
		_, _ = rand.Read(name) // never fails (crypto/rand)
		c.Freeze = hex.EncodeToString(name)
		planned.End.Does = fmt.Sprintf("Freeze the old certificate, so that it can change nothing any more, and wait for it to expire at %s. It can read until then: Kubernetes cannot revoke a certificate.", c.Ends.Format(time.RFC3339))
		planned.End.Diff += lines("+", containedRef.String()+": "+c.Native)
		planned.End.Breaks = "Whoever still has the old certificate cannot write any more."
	} else {
		planned.Why = append(planned.Why, "The old certificate works until it expires. With --freeze it can write no more from the end of the grace on.")
	}
	planned.Why = append(planned.Why, "The use of a certificate is seen in the audit log only (Kubernetes 1.32 and later).")
	p.Certificate = c
	planned.Plan = mustJSON(p)
	return planned, nil
}

func (r *Rotator) issueCertificate(ctx context.Context, p rotationPlan, as remit.Ref) (issued connector.Issued, s *connector.Secret, err error) {
	const op = "issue certificate"
	c := p.Certificate
	if c == nil {
		return issued, nil, remit.Errorf(remit.Invalid, op, "the plan does not tell the old certificate")
	}
	key, usages, err := makeKey(c)
	if err != nil {
		return issued, nil, remit.Errorf(remit.Internal, op, "%w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: c.User, Organization: c.Groups}}, key)
	if err != nil {
		return issued, nil, remit.Errorf(remit.Internal, op, "%w", err)
	}
	seconds := int32(min(p.Seconds, 1<<31-1))
	csr := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: as.Name, Annotations: map[string]string{annotationBase: p.Namespace + "/" + p.Base}},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: clientSigner, ExpirationSeconds: &seconds, Usages: usages,
		},
	}
	if err := r.create(ctx, "CertificateSigningRequest", "", csr); err != nil {
		return issued, nil, r.explain(op, err)
	}
	var signed certificatesv1.CertificateSigningRequest
	err = r.untilAlone(ctx, func() error {
		if err := r.get(ctx, "CertificateSigningRequest", "", as.Name, &signed); err != nil {
			return err
		}
		signed.Status.Conditions = append(signed.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "RemitRotation", Message: "asked for by an approved plan",
		})
		request, err := r.request("PUT", "CertificateSigningRequest", "", as.Name)
		if err != nil {
			return err
		}
		return r.send(ctx, request.SubResource("approval").Body(&signed), nil)
	})
	if err != nil {
		return issued, nil, r.explained(op, err)
	}
	err = r.until(ctx, op, fmt.Sprintf("the cluster has not signed %s", as), func() (bool, error) {
		err := r.get(ctx, "CertificateSigningRequest", "", as.Name, &signed)
		for _, is := range signed.Status.Conditions {
			if is.Type == certificatesv1.CertificateFailed || is.Type == certificatesv1.CertificateDenied {
				return false, remit.Errorf(remit.Unsupported, op, "the cluster does not sign %s: %s", as, is.Message)
			}
		}
		return len(signed.Status.Certificate) > 0, r.explain(op, err)
	})
	if err != nil {
		return issued, nil, err
	}
	block, _ := pem.Decode(signed.Status.Certificate)
	if block == nil {
		return issued, nil, remit.Errorf(remit.Unsupported, op, "what the cluster signed is no certificate in PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return issued, nil, remit.Errorf(remit.Unsupported, op, "what the cluster signed cannot be read: %w", err)
	}
	if !bytes.Equal(cert.RawIssuer, c.Issuer) {
		return issued, nil, remit.Errorf(remit.Unsupported, op, "the old certificate is not one of this cluster: another authority signed it than the one that signs for the cluster")
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return issued, nil, remit.Errorf(remit.Internal, op, "%w", err)
	}
	defer clear(pkcs8)
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	sum := sha256.Sum256(cert.Raw)
	issued = connector.Issued{Ref: as, Native: "X509SHA256=" + hex.EncodeToString(sum[:]), Expires: cert.NotAfter.UTC()}
	bundle := slices.Concat(signed.Status.Certificate, private)
	return issued, connector.NewSecret("bundle", bundle).With(corev1.TLSCertKey, signed.Status.Certificate).With(corev1.TLSPrivateKeyKey, private), nil
}

// makeKey makes a key of the sort of the old one.
func makeKey(c *certificatePlan) (key crypto.Signer, usages []certificatesv1.KeyUsage, err error) {
	usages = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}
	switch c.Key {
	case "RSA":
		usages = append(usages, certificatesv1.UsageKeyEncipherment)
		key, err = rsa.GenerateKey(rand.Reader, c.Bits)
	case "Ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		curve := elliptic.P256()
		switch c.Bits {
		case 384:
			curve = elliptic.P384()
		case 521:
			curve = elliptic.P521()
		}
		key, err = ecdsa.GenerateKey(curve, rand.Reader)
	}
	return key, usages, err
}

// endCertificate takes back what can be taken back: the request, so that nothing is
// signed any more, and, if that was asked for, the right to write. A certificate
// lasts until its time.
func (r *Rotator) endCertificate(ctx context.Context, p rotationPlan, which connector.Issued) (time.Time, error) {
	const op = "end certificate"
	native, ends := which.Native, which.Expires
	if which.Ref.Kind == "CertificateSigningRequest" {
		var csr certificatesv1.CertificateSigningRequest
		err := r.get(ctx, "CertificateSigningRequest", "", which.Ref.Name, &csr)
		if err != nil && !apierrors.IsNotFound(err) {
			return time.Time{}, r.explain(op, err)
		}
		if err == nil {
			if csr.Annotations[annotationBase] != p.Namespace+"/"+p.Base {
				return time.Time{}, remit.Errorf(remit.Conflict, op, "%s was not made by this rotation, and stays", which.Ref)
			}
			if block, _ := pem.Decode(csr.Status.Certificate); block != nil {
				cert, err := x509.ParseCertificate(block.Bytes)
				if err != nil {
					return time.Time{}, remit.Errorf(remit.Unsupported, op, "what the cluster signed for %s cannot be read: %w", which.Ref, err)
				}
				sum := sha256.Sum256(cert.Raw)
				native, ends = "X509SHA256="+hex.EncodeToString(sum[:]), cert.NotAfter.UTC()
			} else {
				// The cluster itself removes the one that was signed; it is all that
				// tells how long its certificate lasts.
				request, err := r.request("DELETE", "CertificateSigningRequest", "", which.Ref.Name)
				if err != nil {
					return time.Time{}, err
				}
				only := &metav1.Preconditions{UID: &csr.UID, ResourceVersion: &csr.ResourceVersion}
				if err := r.send(ctx, request.Body(&metav1.DeleteOptions{Preconditions: only}), nil); apierrors.IsConflict(err) {
					return time.Time{}, remit.Errorf(remit.Unavailable, op, "%s is being signed just now: %w", which.Ref, err)
				} else if err != nil && !apierrors.IsNotFound(err) {
					return time.Time{}, r.explain(op, err)
				}
			}
		}
	} else if p.Certificate != nil {
		native, ends = p.Certificate.Native, p.Certificate.Ends
	}
	if !r.now().Before(ends) {
		return time.Time{}, nil
	}
	if p.Certificate != nil && p.Certificate.Freeze != "" && strings.HasPrefix(native, "X509SHA256=") {
		key, err := credentialKey(native)
		if err != nil {
			return time.Time{}, err
		}
		step := remit.Step{
			Object: containedRef,
			Before: mustJSON(frozenState{Entries: map[string]string{}}),
			After:  mustJSON(frozenState{Hold: p.Certificate.Freeze, Entries: map[string]string{key: holdAll}}),
		}
		if err := r.doFreeze(ctx, step); err != nil {
			return time.Time{}, err
		}
		if err := r.verifyFreeze(ctx, step); err != nil {
			if remit.KindOf(err) == remit.Conflict {
				err = remit.Errorf(remit.Unavailable, op, "it is frozen and not in effect yet: %w", err)
			}
			return time.Time{}, err
		}
	}
	return ends, nil
}
