package kubernetes

import (
	"strconv"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"

	"remit"
)

// The groups and users that the API server itself gives meaning to. Source:
// k8s.io/apiserver/pkg/authentication/user and .../serviceaccount.
const (
	groupMasters         = "system:masters"
	groupAuthenticated   = "system:authenticated"
	groupUnauthenticated = "system:unauthenticated"
	groupNodes           = "system:nodes"
	groupAccounts        = "system:serviceaccounts"
	userAnonymous        = "system:anonymous"

	accountPrefix = "system:serviceaccount:"
	nodePrefix    = "system:node:"
)

// serviceAccount is the reduced form of a ServiceAccount.
type serviceAccount struct {
	automount   *bool
	pullSecrets []string
	credentials []remit.Credential
}

func (a *serviceAccount) mentions(self remit.Ref, f func(remit.Ref, mentionKind)) {
	f(accountsOf(self.Namespace), byAccount)
}

// accountsOf is the group of all accounts of a namespace.
func accountsOf(namespace string) remit.Ref {
	return remit.Ref{Kind: "Group", Name: groupAccounts + ":" + namespace}
}

func (r *reducer) account(sa *corev1.ServiceAccount) *serviceAccount {
	a := &serviceAccount{credentials: bound(r.credentials.fromServiceAccount(sa))}
	if sa.AutomountServiceAccountToken != nil {
		v := *sa.AutomountServiceAccountToken
		a.automount = &v
	}
	for _, s := range sa.ImagePullSecrets {
		if s.Name != "" && len(a.pullSecrets) < maxMounts {
			a.pullSecrets = append(a.pullSecrets, strings.Clone(s.Name))
		}
	}
	return a
}

// account projects a service account, or one that is only named.
func (p *projection) account(ref remit.Ref, o *object) {
	id := p.identityID(ref)
	if o == nil {
		e := p.mentionOf(ref)
		if e == nil {
			return
		}
		identity := remit.Identity{
			Record:    p.record(id, ref, nil),
			Type:      remit.ServiceAccount,
			Status:    remit.Active,
			Principal: accountPrefix + ref.Namespace + ":" + ref.Name,
		}
		identity.BuiltIn = builtInAccount(ref)
		if p.accountAbsent(ref) {
			identity.Status = remit.Absent
		}
		set(&identity.Attributes, "named-by", e.words())
		if ref.Name == "default" {
			set(&identity.Attributes, "default", "true")
		}
		p.out.Identities = append(p.out.Identities, identity)
		p.memberOf(ref, groupAccounts+":"+ref.Namespace)
		return
	}
	a, _ := o.body.(*serviceAccount)
	if a == nil {
		a = &serviceAccount{}
	}
	identity := remit.Identity{
		Record:    p.record(id, ref, &o.meta),
		Type:      remit.ServiceAccount,
		Status:    remit.Active,
		Principal: accountPrefix + ref.Namespace + ":" + ref.Name,
		Purpose:   o.meta.purpose,
		Expires:   o.meta.expires,
		Owners:    p.owners(p.ownersOf(&o.meta, ref.Namespace)...),
	}
	identity.BuiltIn = builtInAccount(ref)
	set(&identity.Attributes, "automount", strconv.FormatBool(a.automount == nil || *a.automount))
	if ref.Name == "default" {
		set(&identity.Attributes, "default", "true")
	}
	var clouds []string
	for _, c := range a.credentials {
		c := p.credential(c, ref, &o.meta)
		c.Identity, c.Holder = id, ref
		if cloud, to, toID, ok := federated(c); ok {
			clouds = appendNew(clouds, cloud)
			p.relate(remit.TrustedBy, ref, to, toID)
		}
		p.out.Credentials = append(p.out.Credentials, c)
	}
	set(&identity.Attributes, "federation", strings.Join(clouds, ","))
	p.out.Identities = append(p.out.Identities, identity)
	p.memberOf(ref, groupAccounts+":"+ref.Namespace)
}

// accountAbsent says whether an account that is named is known not to exist.
func (p *projection) accountAbsent(ref remit.Ref) bool {
	if p.object("ServiceAccount", ref.Namespace, ref.Name) != nil || !p.scope.includes(ref.Namespace) || !p.listed("serviceaccounts") {
		return false
	}
	if !p.offline {
		return true
	}
	// Files may hold a part of a cluster only. A dump of a namespace's
	// accounts is known by the account named default, which every namespace
	// has. Manifests that define a namespace are taken to define its accounts
	// too, except for the default one.
	if p.object("ServiceAccount", ref.Namespace, "default") != nil {
		return true
	}
	return ref.Name != "default" && p.object("Namespace", "", ref.Namespace) != nil
}

// ownersOf is where claims about an object are looked for.
func (p *projection) ownersOf(m *meta, namespace string) []ownedBy {
	sets := []ownedBy{{meta: m}}
	if namespace != "" {
		if ns := p.object("Namespace", "", namespace); ns != nil {
			sets = append(sets, ownedBy{prefix: "namespace", meta: &ns.meta})
		}
	}
	return sets
}

// node is the reduced form of a Node.
type node struct {
	kubelet, image string
	addresses      string
}

func (*node) mentions(self remit.Ref, f func(remit.Ref, mentionKind)) {
	f(remit.Ref{Kind: "Group", Name: groupNodes}, byNode)
}

func (r *reducer) node(n *corev1.Node) *node {
	var addresses []string
	for _, a := range n.Status.Addresses {
		if len(addresses) < maxAddresses && (a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP) {
			addresses = append(addresses, truncate(a.Address, maxLabel))
		}
	}
	return &node{
		kubelet:   truncate(n.Status.NodeInfo.KubeletVersion, maxMeaning),
		image:     truncate(n.Status.NodeInfo.OSImage, maxMeaning),
		addresses: strings.Join(addresses, ","),
	}
}

// node projects a node, or one that is only named.
func (p *projection) node(ref remit.Ref, o *object) {
	identity := remit.Identity{Type: remit.Workload, Status: remit.Active, Principal: nodePrefix + ref.Name}
	id := p.identityID(ref)
	if o == nil {
		e := p.mentionOf(ref)
		if e == nil {
			return
		}
		identity.Record = p.record(id, ref, nil)
		if p.listed("nodes") && !p.offline {
			identity.Status = remit.Absent
		}
		set(&identity.Attributes, "named-by", e.words())
	} else {
		identity.Record = p.record(id, ref, &o.meta)
		identity.Owners = p.owners(p.ownersOf(&o.meta, "")...)
		if n, ok := o.body.(*node); ok {
			set(&identity.Attributes, "kubelet-version", n.kubelet)
			set(&identity.Attributes, "os-image", n.image)
			set(&identity.Attributes, "addresses", n.addresses)
		}
	}
	p.out.Identities = append(p.out.Identities, identity)
	p.memberOf(ref, groupNodes)
	p.memberOf(ref, groupAuthenticated)
}

// user projects a user. Kubernetes has no object for users: what is known of
// one is who names it.
func (p *projection) user(ref remit.Ref) {
	e := p.mentionOf(ref)
	if e == nil {
		return
	}
	identity := remit.Identity{
		Record:    p.record(p.identityID(ref), ref, nil),
		Type:      subjectType(ref.Name),
		Status:    remit.Active,
		Principal: ref.Name,
	}
	identity.BuiltIn = builtInUser(ref.Name)
	set(&identity.Attributes, "named-by", e.words())
	p.out.Identities = append(p.out.Identities, identity)
	if ref.Name == userAnonymous {
		p.memberOf(ref, groupUnauthenticated)
		return
	}
	p.memberOf(ref, groupAuthenticated)
	seen := map[string]bool{groupAuthenticated: true}
	for _, holder := range sortedRefs(e.holders) {
		o := p.lookup(holder)
		if o == nil {
			continue
		}
		for _, c := range bodyCredentials(o.body) {
			// A request that waits shows what its approval would bring.
			if c.Holder != ref || c.Status != remit.Active && c.Status != remit.Pending {
				continue
			}
			for _, group := range organizations(c) {
				if !seen[group] && len(seen) < maxGroups {
					seen[group] = true
					p.memberOf(ref, group)
				}
			}
		}
	}
}

// maxGroups bounds the groups of one user; a certificate could name thousands.
const maxGroups = 256

// group projects a group.
func (p *projection) group(ref remit.Ref) {
	e := p.mentionOf(ref)
	always := false
	for _, name := range alwaysThere {
		always = always || ref.Name == name
	}
	if e == nil && !always {
		return
	}
	identity := remit.Identity{
		Record:    p.record(p.identityID(ref), ref, nil),
		Type:      remit.Group,
		Status:    remit.Active,
		Principal: ref.Name,
	}
	identity.BuiltIn = builtInGroup(ref.Name)
	if e != nil {
		set(&identity.Attributes, "named-by", e.words())
	}
	switch namespace, ok := strings.CutPrefix(ref.Name, groupAccounts+":"); {
	case ref.Name == groupAccounts:
		p.memberOf(ref, groupAuthenticated)
	case ok:
		p.memberOf(ref, groupAccounts)
		identity.Environment = p.environment("", namespace)
	}
	p.out.Identities = append(p.out.Identities, identity)
}

// machineWords are words in a user's name that say that it is no person.
var machineWords = map[string]bool{
	"bot": true, "robot": true, "ci": true, "cd": true, "cicd": true, "service": true, "services": true, "svc": true, "serviceaccount": true,
	"automation": true, "automated": true, "pipeline": true, "pipelines": true, "runner": true, "deployer": true, "deploy": true, "deployment": true,
	"jenkins": true, "gitlab": true, "circleci": true, "buildkite": true, "teamcity": true, "travis": true, "drone": true, "tekton": true,
	"argocd": true, "argo": true, "flux": true, "fluxcd": true, "terraform": true, "ansible": true, "pulumi": true, "spinnaker": true, "crossplane": true,
	"renovate": true, "dependabot": true, "prometheus": true, "grafana": true, "datadog": true, "vault": true, "backup": true, "monitoring": true,
	"operator": true, "controller": true, "agent": true, "app": true, "application": true, "machine": true, "script": true, "cron": true, "exporter": true,
	"kubelet": true, "apiserver": true, "proxy": true, "gateway": true, "webhook": true, "sync": true,
}

// subjectType judges what sort of actor is behind a user's name.
func subjectType(name string) remit.IdentityType {
	if strings.HasPrefix(name, "system:") || strings.HasPrefix(name, "spiffe://") {
		return remit.Workload
	}
	lower := strings.ToLower(name)
	if strings.HasSuffix(lower, ".gserviceaccount.com") || strings.HasPrefix(lower, "arn:aws:sts:") || strings.Contains(lower, ":role/") {
		return remit.Application
	}
	// An OIDC user may be written as issuer#name, and only the part before the
	// @ of a mail address names somebody.
	if i := strings.LastIndexByte(lower, '#'); i >= 0 {
		lower = lower[i+1:]
	}
	local, _, _ := strings.Cut(lower, "@")
	if len(local) > maxLabel {
		local = local[:maxLabel]
	}
	for word := range strings.FieldsFuncSeq(local, func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsDigit(c) }) {
		if machineWords[word] {
			return remit.Application
		}
	}
	return remit.Human
}

func appendNew(list []string, s string) []string {
	for _, have := range list {
		if have == s {
			return list
		}
	}
	return append(list, s)
}
