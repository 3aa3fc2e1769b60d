package kubernetes

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit"
	"remit/connector"
)

const (
	bootstrapPrefix = "bootstrap-token-"

	// bootstrapSeconds is how long a bootstrap token is valid unless its order
	// says otherwise, as kubeadm's are.
	bootstrapSeconds = 24 * 60 * 60
)

// bootstrapPlan is what a bootstrap token may do. None of it is secret.
// Source: https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/
type bootstrapPlan struct {
	Data map[string]string `json:"data"`
}

// bootstrapCopied are the entries that a successor takes over.
var bootstrapCopied = []string{"description", "usage-bootstrap-authentication", "usage-bootstrap-signing", "auth-extra-groups"}

func (r *Rotator) planBootstrap(op string, o connector.RotationOrder, p rotationPlan, s *corev1.Secret) (connector.Rotation, error) {
	var planned connector.Rotation
	if p.Namespace != metav1.NamespaceSystem {
		return planned, remit.Errorf(remit.Unsupported, op, "a bootstrap token lies in kube-system: %s is none", o.Subject.Ref)
	}
	p.Bootstrap = &bootstrapPlan{Data: map[string]string{}}
	for _, key := range bootstrapCopied {
		if value, ok := s.Data[key]; ok {
			p.Bootstrap.Data[key] = string(value)
		}
	}
	lasts := int64(bootstrapSeconds)
	if ends, err := time.Parse(time.RFC3339, string(bytes.TrimSpace(s.Data["expiration"]))); err == nil {
		lasts = max(int64(ends.Sub(s.CreationTimestamp.Time)/time.Second), leastSeconds)
	} else {
		planned.Why = append(planned.Why, "The old token never expires. The new one does, after a day unless --lifetime says otherwise: it is for nodes that join, which do so once.")
	}
	p.Seconds = max(lifetimeSeconds(o.Lifetime, lasts), leastSeconds)
	old := remit.Ref{Kind: "Secret", Namespace: p.Namespace, Name: p.Secret}
	planned.Old = []remit.Ref{old}
	planned.Issue = remit.Step{
		Object: old, Does: fmt.Sprintf("Make another bootstrap token with the same usages and groups, valid for %s.", spanOf(p.Seconds)),
		Diff: lines("+", "Secret kube-system/bootstrap-token-…: expires after "+spanOf(p.Seconds)),
	}
	planned.End = remit.Step{
		Object: old, Does: fmt.Sprintf("Delete %s: its token is refused within about 10 seconds.", old), Diff: lines("-", old.String()),
		Breaks: "Nodes that join with the old token; those that have joined do not need it any more.",
	}
	planned.Why = append(planned.Why, "The use of a bootstrap token is seen in the audit log, by the user name that only it has.")
	planned.Plan = mustJSON(p)
	return planned, nil
}

func (r *Rotator) issueBootstrap(ctx context.Context, p rotationPlan, as remit.Ref) (connector.Issued, *connector.Secret, error) {
	const op = "issue bootstrap token"
	if p.Bootstrap == nil {
		return connector.Issued{}, nil, remit.Errorf(remit.Invalid, op, "the plan does not tell the old token")
	}
	id := as.Name[len(bootstrapPrefix):]
	value := randomText("abcdefghijklmnopqrstuvwxyz0123456789", 16)
	ends := r.now().Add(time.Duration(p.Seconds) * time.Second).UTC().Truncate(time.Second)
	made := p.successorSecret(as.Name, map[string]string{})
	made.Type = corev1.SecretTypeBootstrapToken
	made.Data = map[string][]byte{"token-id": []byte(id), "token-secret": value, "expiration": []byte(ends.Format(time.RFC3339))}
	for key, text := range p.Bootstrap.Data {
		made.Data[key] = []byte(text)
	}
	err := r.create(ctx, "Secret", as.Namespace, made)
	token := append([]byte(id+"."), value...)
	clear(value)
	secret := connector.NewSecret("token", token)
	if err != nil {
		secret.Zero()
		return connector.Issued{}, nil, r.explain(op, err)
	}
	return connector.Issued{Ref: as, Identity: remit.Ref{Kind: "User", Name: "system:bootstrap:" + id}, Expires: ends}, secret, nil
}

// randomText is text of n characters of an alphabet of at most 256, each as likely.
func randomText(alphabet string, n int) []byte {
	text := make([]byte, 0, n)
	limit := byte(256 - 256%len(alphabet))
	for random := make([]byte, n); len(text) < n; {
		_, _ = rand.Read(random) // never fails (crypto/rand)
		for _, b := range random {
			if (limit == 0 || b < limit) && len(text) < n {
				text = append(text, alphabet[int(b)%len(alphabet)])
			}
		}
	}
	return text
}
