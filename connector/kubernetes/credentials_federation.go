package kubernetes

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"remit"
)

// federation annotations of service accounts, by which a cloud is asked to
// accept the account's tokens.
var federations = []struct {
	annotation string
	provider   string
	audience   string // what is asked for unless audienceFrom says otherwise
	// Annotations that change audience and lifetime, and the default of the
	// latter in seconds; "" and 0 where there are none.
	audienceFrom, lifetimeFrom string
	lifetime                   int64
	attributes                 map[string]string // attribute → annotation
}{
	{
		// https://docs.aws.amazon.com/eks/latest/userguide/associate-service-account-role.html
		annotation: "eks.amazonaws.com/role-arn", provider: "aws", audience: "sts.amazonaws.com",
		audienceFrom: "eks.amazonaws.com/audience", lifetimeFrom: "eks.amazonaws.com/token-expiration", lifetime: 86400,
	},
	{
		// https://cloud.google.com/kubernetes-engine/docs/how-to/workload-identity
		annotation: "iam.gke.io/gcp-service-account", provider: "gcp",
	},
	{
		// https://azure.github.io/azure-workload-identity/docs/topics/service-account-labels-and-annotations.html
		annotation: "azure.workload.identity/client-id", provider: "azure", audience: "api://AzureADTokenExchange",
		lifetimeFrom: "azure.workload.identity/service-account-token-expiration", lifetime: 3600,
		attributes: map[string]string{"tenant": "azure.workload.identity/tenant-id"},
	},
}

// fromServiceAccount makes credentials of the federation annotations of a
// service account: trust in its tokens that a cloud may have. Whether the cloud
// agrees is not known here.
func (c *credentials) fromServiceAccount(sa *corev1.ServiceAccount) []remit.Credential {
	ref := remit.Ref{Kind: "ServiceAccount", Namespace: sa.Namespace, Name: sa.Name}
	f := c.at(placeOf(ref, &sa.ObjectMeta))
	for _, fed := range federations {
		native := sa.Annotations[fed.annotation]
		if native == "" {
			continue
		}
		cred := f.add(fed.annotation, remit.FederatedTrust)
		c.authenticates(cred, ref)
		cred.Provider, cred.Native, cred.Lifetime = fed.provider, native, fed.lifetime
		audience := fed.audience
		if a := sa.Annotations[fed.audienceFrom]; a != "" {
			audience = a
		}
		if audience != "" {
			cred.Audiences = []string{audience}
		}
		if s, err := strconv.ParseInt(sa.Annotations[fed.lifetimeFrom], 10, 64); err == nil && s > 0 {
			cred.Lifetime = s
		}
		for attr, annotation := range fed.attributes {
			if v := sa.Annotations[annotation]; v != "" {
				cred.Attributes[attr] = v
			}
		}
	}
	return f.done()
}
