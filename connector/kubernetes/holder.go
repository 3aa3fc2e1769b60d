package kubernetes

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit"
)

// holder is the reduced form of a Secret or ConfigMap: what lies in it, never
// its data.
type holder struct {
	typ         string // of a Secret
	keys        int
	credentials []remit.Credential
}

func (h *holder) mentions(_ remit.Ref, f func(remit.Ref, mentionKind)) {
	mentionHolders(h.credentials, f)
}

// request is the reduced form of a CertificateSigningRequest.
type request struct {
	credentials []remit.Credential
}

func (r *request) mentions(_ remit.Ref, f func(remit.Ref, mentionKind)) {
	mentionHolders(r.credentials, f)
}

// mentionHolders names those whom credentials authenticate, and the groups that
// certificates put them into.
func mentionHolders(credentials []remit.Credential, f func(remit.Ref, mentionKind)) {
	for i := range credentials {
		c := &credentials[i]
		by := byToken
		switch {
		case c.Attributes["kubeconfig"] == "true":
			by = byKubeconfig
		case c.Type == remit.Certificate:
			by = byCertificate
		}
		switch c.Holder.Kind {
		case "User", "ServiceAccount", "Node":
			f(c.Holder, by)
			if c.Type == remit.Certificate && c.Holder.Kind == "User" {
				for i, group := range organizations(*c) {
					if i == maxGroups {
						break
					}
					f(remit.Ref{Kind: "Group", Name: group}, byCertificate)
				}
			}
		}
	}
}

func (r *reducer) secret(s *corev1.Secret) *holder {
	return &holder{typ: truncate(string(s.Type), maxLabel), keys: len(s.Data), credentials: bound(r.credentials.fromSecret(s))}
}

func (r *reducer) secretMetadata(m *metav1.PartialObjectMetadata, typ string) *holder {
	return &holder{typ: typ, credentials: bound(r.credentials.fromSecretMetadata(m, typ))}
}

func (r *reducer) configMap(c *corev1.ConfigMap) *holder {
	return &holder{keys: len(c.Data) + len(c.BinaryData), credentials: bound(r.credentials.fromConfigMap(c))}
}

func (r *reducer) request(c *certificatesv1.CertificateSigningRequest) *request {
	return &request{credentials: bound(r.credentials.fromCSR(c))}
}

// bound makes a list of credentials ready to be kept: without the spare room of
// the slice that they were collected in.
func bound(credentials []remit.Credential) []remit.Credential {
	if len(credentials) == 0 {
		return nil
	}
	return slices.Clip(slices.Clone(credentials))
}

// credential completes one that recognition gave: whose it is, and what it has
// from the object that it lies in.
func (p *projection) credential(c remit.Credential, in remit.Ref, m *meta) remit.Credential {
	c.System = p.system
	c.Ref = in
	c.ID = remit.CredentialID(p.system, in, c.Key)
	if c.Created.IsZero() {
		c.Created = m.created
	}
	if c.Since.IsZero() {
		c.Since = m.since
	}
	if c.Incarnation == "" {
		c.Incarnation = m.uid
	}
	if c.Environment == "" {
		c.Environment = m.environment
	}
	if c.Holder != (remit.Ref{}) {
		c.Identity = p.identityID(c.Holder)
	}
	if m.assumed {
		c.Attributes = maps.Clone(c.Attributes)
		set(&c.Attributes, "namespace-assumed", "true")
	}
	return c
}

// bodyCredentials are the credentials that an object holds.
func bodyCredentials(b body) []remit.Credential {
	switch b := b.(type) {
	case *holder:
		return b.credentials
	case *request:
		return b.credentials
	}
	return nil
}

// holder projects a Secret or ConfigMap. A ConfigMap in which no credential
// lies is none of our business.
func (p *projection) holder(ref remit.Ref, o *object) {
	if o == nil {
		return
	}
	h, ok := o.body.(*holder)
	if !ok || ref.Kind == "ConfigMap" && len(h.credentials) == 0 {
		return
	}
	location := remit.ResourceID(p.system, ref)
	r := remit.Resource{Record: p.record(location, ref, &o.meta), Type: strings.ToLower(ref.Kind)}
	set(&r.Attributes, "type", h.typ)
	if h.keys > 0 {
		set(&r.Attributes, "keys", strconv.Itoa(h.keys))
	}
	p.out.Resources = append(p.out.Resources, r)
	for _, c := range h.credentials {
		c = p.credential(c, ref, &o.meta)
		c.Location = location
		if c.Labels == nil {
			c.Labels = o.meta.labels
		}
		p.out.Credentials = append(p.out.Credentials, c)
	}
}

// request projects a certificate request.
func (p *projection) request(ref remit.Ref, o *object) {
	if o == nil {
		return
	}
	for _, c := range bodyCredentials(o.body) {
		p.out.Credentials = append(p.out.Credentials, p.credential(c, ref, &o.meta))
	}
}

// organizations are the groups that a client certificate puts its user into:
// the organizations of its subject, as crypto/x509/pkix writes a name.
func organizations(c remit.Credential) []string {
	var groups []string
	for _, part := range splitName(c.Subject) {
		if group, ok := strings.CutPrefix(part, "O="); ok && group != "" {
			groups = append(groups, unescapeName(group))
		}
	}
	return groups
}

// splitName splits a distinguished name (RFC 2253) at its commas and plus signs,
// but not at escaped ones.
func splitName(name string) []string {
	var parts []string
	start := 0
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '\\':
			i++
		case ',', '+':
			parts = append(parts, strings.TrimLeft(name[start:i], " "))
			start = i + 1
		}
	}
	return append(parts, strings.TrimLeft(name[min(start, len(name)):], " "))
}

func unescapeName(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// federated reads where a federation annotation leads: the identity on the
// cloud's side, by the name that its own connector would give it.
func federated(c remit.Credential) (cloud string, to remit.Ref, id remit.ID, ok bool) {
	if c.Type != remit.FederatedTrust || c.Native == "" {
		return "", remit.Ref{}, "", false
	}
	cloud = c.Provider
	var account string
	switch cloud {
	case "aws":
		// arn:aws:iam::123456789012:role/path/name
		parts := strings.SplitN(c.Native, ":", 6)
		if len(parts) == 6 {
			account = parts[4]
			to = remit.Ref{Kind: "iam:Role", Namespace: account, Name: strings.TrimPrefix(parts[5], "role/")}
		}
	case "gcp":
		if _, domain, found := strings.Cut(c.Native, "@"); found {
			account, _, _ = strings.Cut(domain, ".")
			to = remit.Ref{Kind: "iam:ServiceAccount", Namespace: account, Name: c.Native}
		}
	case "azure":
		account = c.Attributes["tenant"]
		to = remit.Ref{Kind: "Application", Namespace: account, Name: c.Native}
	}
	if to == (remit.Ref{}) {
		to = remit.Ref{Kind: "Role", Name: c.Native}
	}
	return cloud, to, remit.IdentityID(remit.SystemID(cloud, account), to), true
}
