package kubernetes

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"remit"
)

// explain turns a failure to talk to the API server into an error that says
// what to do. server is its address, login how the user chose it.
func explain(op string, err error, server, login string) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) && !isNet(err) {
		return err
	}
	var (
		unknownCA  x509.UnknownAuthorityError
		hostname   x509.HostnameError
		invalid    x509.CertificateInvalidError
		verify     *tls.CertificateVerificationError
		recordHead tls.RecordHeaderError
		dns        *net.DNSError
	)
	switch {
	case apierrors.IsUnauthorized(err):
		return remit.Errorf(remit.Unauthorized, op,
			"%s does not accept the login of %s: it has expired or been revoked; sign in again (kubectl get namespaces must work) and try again: %w", server, login, err)
	case apierrors.IsForbidden(err):
		return remit.Errorf(remit.Forbidden, op, "%s accepts the login of %s but allows it too little: %w", server, login, err)
	case errors.As(err, &unknownCA), errors.As(err, &invalid), errors.As(err, &hostname), errors.As(err, &verify):
		return remit.Errorf(remit.Unavailable, op,
			"the certificate of %s cannot be trusted: check certificate-authority and tls-server-name in the kubeconfig of %s, or whether something stands in between: %w", server, login, err)
	case errors.As(err, &recordHead), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return remit.Errorf(remit.Unavailable, op, "%s does not speak TLS: check the port and the scheme of server in the kubeconfig of %s: %w", server, login, err)
	case errors.As(err, &dns):
		return remit.Errorf(remit.Unavailable, op, "the name in %s is not known: check server in the kubeconfig of %s, and whether a VPN is needed: %w", server, login, err)
	case strings.Contains(err.Error(), "getting credentials: exec"):
		return remit.Errorf(remit.Unauthorized, op, "the login program in the kubeconfig of %s failed: run kubectl get namespaces to see why: %w", login, err)
	case isNet(err):
		return remit.Errorf(remit.Unavailable, op, "%s does not answer: check that the cluster of %s runs and can be reached from here: %w", server, login, err)
	}
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Code >= 500 {
		return remit.Errorf(remit.Unavailable, op, "%s answers with a failure of its own: %w", server, err)
	}
	return remit.Errorf(remit.Unavailable, op, "%s: %w", server, err)
}

func isNet(err error) bool {
	var ne net.Error
	var ue *url.Error
	return errors.As(err, &ne) || errors.As(err, &ue)
}

// outcome is what is to be done about a request that failed.
type outcome uint8

const (
	again     outcome = iota // try the same request again, later
	anew                     // the list is too old to be continued
	missing                  // the API does not have the collection
	refused                  // the rights do not suffice
	loggedOut                // the login is not accepted
	wrong                    // asking again would give the same answer
)

// judgeError says what is to be done about a failed request.
func judgeError(err error) outcome {
	switch {
	case apierrors.IsGone(err), apierrors.IsResourceExpired(err):
		return anew
	case apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err):
		return missing
	case apierrors.IsForbidden(err):
		return refused
	case apierrors.IsUnauthorized(err):
		return loggedOut
	case apierrors.IsBadRequest(err), apierrors.IsInvalid(err), apierrors.IsNotAcceptable(err):
		return wrong
	}
	return again // 429, 5xx, a cut connection, half a page
}

// gap says what could not be listed, in the server's words, and what would
// mend it.
func (t *task) gap(err error) *remit.Gap {
	g := &remit.Gap{Section: t.listing.section(), Reason: reason(err)}
	if t.namespace != "" {
		g.Reason = fmt.Sprintf("in namespace %s: %s", t.namespace, g.Reason)
	}
	if judgeError(err) == refused {
		g.Need = t.listing.rule()
		if t.namespace != "" {
			g.Need += " in a Role of namespace " + t.namespace
		} else {
			g.Need += " in a ClusterRole"
		}
	}
	return g
}

// reason is the text of an error, bounded: a proxy may answer with a page.
func reason(err error) string {
	return truncate(strings.TrimSpace(err.Error()), 500)
}
