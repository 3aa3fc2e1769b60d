package kubernetes

import (
	"cmp"
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit"
	"remit/connector"
	"remit/connector/secret"
)

// boundSeconds is how long a bound token is valid unless its order says otherwise.
const boundSeconds = 90 * 24 * 60 * 60

// leastSeconds is the shortest life that Kubernetes gives a token or a certificate.
const leastSeconds = 600

// planToken plans the rotation of a service account's token: of a token Secret, or
// of a bound token, which is known by the Secret that it is bound to. The names of
// Secrets change, for two tokens must live at the same time; who refers to the old
// one is made to refer to the new.
func (r *Rotator) planToken(ctx context.Context, op string, o connector.RotationOrder, p rotationPlan, old *corev1.Secret) (connector.Rotation, error) {
	var planned connector.Rotation
	p.Account = cmp.Or(old.Annotations[corev1.ServiceAccountNameKey], old.Annotations[annotationAccount])
	account := remit.Ref{Kind: "ServiceAccount", Namespace: p.Namespace, Name: p.Account}
	if p.Account == "" {
		return planned, remit.Errorf(remit.Unsupported, op, "%s does not say whose token it is", o.Subject.Ref)
	}
	if _, err := r.account(ctx, op, account); err != nil {
		return planned, err
	}
	self, err := r.self(ctx, op)
	if err != nil {
		return planned, err
	}
	if refOfUser(self.Username) == account {
		return planned, remit.Errorf(remit.Forbidden, op, "%s is what Remit itself signs in as: rotate its credentials with another login", account)
	}
	oldRef := remit.Ref{Kind: "Secret", Namespace: p.Namespace, Name: p.Secret}
	wasBound := p.Sort == asBound
	p.Sort = cmp.Or(o.As, p.Sort)
	refer, byHand, err := r.referring(ctx, op, p.Namespace, p.Secret)
	if err != nil {
		return planned, err
	}
	planned.Old = []remit.Ref{oldRef}
	planned.End = remit.Step{
		Object: oldRef, Does: fmt.Sprintf("Delete %s: its token is refused within about 10 seconds.", oldRef),
		Diff: lines("-", oldRef.String()), Breaks: "Whoever still has the old token.",
	}
	if len(byHand) > 0 {
		planned.Why = append(planned.Why, fmt.Sprintf("%s: nothing makes these anew, so replace them by hand before the old token ends.", listed(byHand, "refers to it and has no controller", "refer to it and have no controller")))
	}
	switch p.Sort {
	case asToken:
		planned.To = workloadAddresses(refer)
		planned.Issue = remit.Step{
			Object: oldRef, Does: fmt.Sprintf("Make a second token Secret for %s, with the labels of the first.", account),
			Diff: lines("+", "Secret "+p.Namespace+"/"+p.Base+"-…: "+string(corev1.SecretTypeServiceAccountToken)),
		}
		planned.Why = append(planned.Why, "The new token does not expire either. --kind bound-token makes one that does; --kind projected lets workloads have tokens that the kubelet renews, which is better still.",
			"The API server notes the day on which a token Secret is first used, and the audit log shows the account: that is how its use is seen.")
	case asBound:
		if p.Seconds = lifetimeSeconds(o.Lifetime, boundSeconds); p.Seconds < leastSeconds {
			return planned, remit.Errorf(remit.Invalid, op, "Kubernetes gives no token for less than %d seconds", leastSeconds)
		}
		planned.Issue = remit.Step{
			Object: oldRef, Does: fmt.Sprintf("Make an empty Secret and ask for a token of %s that is bound to it and valid for %s: deleting the Secret ends it before that.", account, spanOf(p.Seconds)),
			Diff: lines("+", "Secret "+p.Namespace+"/"+p.Base+"-…: holds nothing", "token of "+account.String()+", for "+spanOf(p.Seconds)),
		}
		planned.Why = append(planned.Why, fmt.Sprintf("The new token expires after %s at the latest, so it has to be rotated before. Its use is seen in the audit log only.", spanOf(p.Seconds)))
		if len(refer) > 0 {
			planned.Why = append(planned.Why, fmt.Sprintf("%s, and a bound token is no Secret that could be mounted: use --kind projected for them.", listed(refs(refer), "mounts the old one", "mount the old one")))
		}
		if wasBound {
			planned.End.Does = fmt.Sprintf("Delete %s, to which the old token is bound: it is refused within about 10 seconds.", oldRef)
		}
	case asProjected:
		if len(refer) == 0 {
			return planned, remit.Errorf(remit.Unsupported, op, "no workload mounts %s: use --kind bound-token, and say where the token is to go", oldRef)
		}
		for _, w := range refer {
			if why := w.notProjectable(p.Secret, p.Account); why != "" {
				return planned, remit.Errorf(remit.Unsupported, op, "%s %s, and so cannot be given a projected token", w.ref, why)
			}
		}
		planned.To, planned.NoSecret = workloadAddresses(refer), true
		planned.Issue = remit.Step{
			Object: account, Does: fmt.Sprintf("Nothing is made: the kubelet mints tokens of %s for each pod, about an hour long, and renews them in the same file.", account),
			Diff: lines("+", "projected volume: token of "+account.String()+", ca.crt, namespace"),
		}
		planned.Why = append(planned.Why, "The workload's program must read the token file again and again; client libraries of Kubernetes do. Use of the new tokens is seen in the audit log only.")
	}
	if manager := putsBack(&old.ObjectMeta); manager != "" {
		planned.Why = append(planned.Why, fmt.Sprintf("%s is managed by %s: change the name there as well, or it comes back when it is deleted, as another token.", oldRef, manager))
	}
	planned.Plan = mustJSON(p)
	return planned, nil
}

// successorSecret is the Secret of a successor, with the labels of the old one but
// for what the API server notes of its use.
func (p rotationPlan) successorSecret(name string, annotations map[string]string) *corev1.Secret {
	labels := map[string]string{}
	for key, value := range p.Labels {
		if key != labelLastUsed && key != labelInvalidSince {
			labels[key] = value
		}
	}
	annotations[annotationBase] = p.Base
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, Annotations: annotations}}
}

func (r *Rotator) issueToken(ctx context.Context, p rotationPlan, as remit.Ref) (issued connector.Issued, s *connector.Secret, err error) {
	const op = "issue token"
	made := p.successorSecret(as.Name, map[string]string{corev1.ServiceAccountNameKey: p.Account})
	made.Type = corev1.SecretTypeServiceAccountToken
	if err := r.create(ctx, "Secret", as.Namespace, made); err != nil {
		return issued, nil, r.explain(op, err)
	}
	var filled corev1.Secret
	err = r.until(ctx, op, fmt.Sprintf("the cluster has not put a token into %s", as), func() (bool, error) {
		err := r.get(ctx, "Secret", as.Namespace, as.Name, &filled)
		return len(filled.Data[corev1.ServiceAccountTokenKey]) > 0, r.explain(op, err)
	})
	if err != nil {
		return issued, nil, err
	}
	s = connector.NewSecret(corev1.ServiceAccountTokenKey, filled.Data[corev1.ServiceAccountTokenKey]).
		With(corev1.ServiceAccountRootCAKey, filled.Data[corev1.ServiceAccountRootCAKey]).
		With(corev1.ServiceAccountNamespaceKey, filled.Data[corev1.ServiceAccountNamespaceKey])
	return connector.Issued{Ref: as}, s, nil
}

func (r *Rotator) issueBound(ctx context.Context, p rotationPlan, as remit.Ref) (issued connector.Issued, s *connector.Secret, err error) {
	const op = "issue token"
	made := p.successorSecret(as.Name, map[string]string{annotationAccount: p.Account})
	made.Type = corev1.SecretTypeOpaque
	if err := r.create(ctx, "Secret", as.Namespace, made); err != nil {
		return issued, nil, r.explain(op, err)
	}
	var bound corev1.Secret
	if err := r.get(ctx, "Secret", as.Namespace, as.Name, &bound); err != nil {
		return issued, nil, r.explain(op, err)
	}
	request, err := r.request("POST", "ServiceAccount", p.Namespace, p.Account)
	if err != nil {
		return issued, nil, err
	}
	var answer authenticationv1.TokenRequest
	err = r.send(ctx, request.SubResource("token").Body(&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &p.Seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Secret", APIVersion: "v1", Name: bound.Name, UID: bound.UID},
	}}), &answer)
	if err != nil {
		return issued, nil, r.explain(op, err)
	}
	issued = connector.Issued{Ref: as, Expires: answer.Status.ExpirationTimestamp.UTC()}
	token := []byte(answer.Status.Token)
	if t, err := secret.ParseToken(token); err == nil && t.ID != "" {
		issued.Native = "JTI=" + t.ID
	}
	return issued, connector.NewSecret("token", token), nil
}
