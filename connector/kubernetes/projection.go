package kubernetes

import (
	"remit"
)

// projection is one unit on its way to records. It reads the model only through
// its own methods, which note what was read.
type projection struct {
	*model
	unit  unit
	out   remit.Records
	reads map[fact]struct{} // nil when nobody will ask
}

func (p *projection) note(what factKind, ref remit.Ref) {
	if p.reads != nil {
		p.reads[fact{what, ref}] = struct{}{}
	}
}

// object returns an object of the cluster, or nil.
func (p *projection) object(kind, namespace, name string) *object {
	return p.lookup(remit.Ref{Kind: kind, Namespace: namespace, Name: name})
}

func (p *projection) lookup(ref remit.Ref) *object {
	p.note(factObject, ref)
	return p.get(ref)
}

// mentioned says whether anything names the identity.
func (p *projection) mentioned(who remit.Ref) bool { return p.mentionOf(who) != nil }

// mentionOf returns who names the identity, or nil. Only its counters going to
// and from zero count as a change of it.
func (p *projection) mentionOf(who remit.Ref) *mention {
	p.note(factMention, who)
	return p.model.mentioned[who]
}

// controlled lists what a controller controls.
func (p *projection) controlled(by remit.Ref) []remit.Ref {
	p.note(factOwned, by)
	return sortedRefs(p.owned[by])
}

// named lists the accounts or Secrets of a name in all namespaces.
func (p *projection) named(kind, name string) []remit.Ref {
	ref := remit.Ref{Kind: kind, Name: name}
	p.note(factByName, ref)
	return sortedRefs(p.byName[ref])
}

// listed says whether a listing was read completely.
func (p *projection) listed(resource string) bool {
	p.note(factComplete, remit.Ref{Kind: resource})
	return p.complete[resource]
}

func (p *projection) identityID(ref remit.Ref) remit.ID {
	return remit.IdentityID(p.system, ref)
}

// record makes the common part of a record about an object.
func (p *projection) record(id remit.ID, ref remit.Ref, m *meta) remit.Record {
	r := remit.Record{ID: id, System: p.system, Ref: ref}
	if m != nil {
		r.Incarnation = m.uid
		r.Created = m.created
		r.Since = m.since
		r.Labels = m.labels
		r.Environment = m.environment
		if m.assumed {
			set(&r.Attributes, "namespace-assumed", "true")
		}
	}
	return r
}

// set puts a value into an attribute map that may be nil; "" leaves it out.
func set(attributes *map[string]string, key, value string) {
	if value == "" {
		return
	}
	if *attributes == nil {
		*attributes = map[string]string{}
	}
	(*attributes)[key] = value
}

// project fills in the records of a unit about an object or identity.
func (p *projection) project() {
	ref := p.unit.ref
	o := p.lookup(ref)
	switch ref.Kind {
	case "ServiceAccount":
		p.account(ref, o)
	case "Node":
		p.node(ref, o)
	case "User":
		p.user(ref)
	case "Group":
		p.group(ref)
	case "OIDCIssuer":
		p.issuer(ref)
	case "Namespace":
		p.namespace(ref, o)
	case "Secret", "ConfigMap":
		p.holder(ref, o)
	case "CertificateSigningRequest":
		p.request(ref, o)
	case "Role", "ClusterRole":
		p.role(ref, o)
	case "RoleBinding", "ClusterRoleBinding":
		p.binding(ref, o)
	case "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "APIService":
		p.integration(ref, o)
	default:
		p.workload(ref, o)
	}
}

// finish sets what every record of a unit has alike.
func (p *projection) finish() {
	for i := range p.out.Identities {
		r := &p.out.Identities[i]
		r.Environment = p.environment(r.Environment, r.Namespace)
	}
	for i := range p.out.Credentials {
		r := &p.out.Credentials[i]
		r.Environment = p.environment(r.Environment, r.Namespace)
	}
	for i := range p.out.Roles {
		r := &p.out.Roles[i]
		r.Environment = p.environment(r.Environment, r.Namespace)
	}
	for i := range p.out.Grants {
		r := &p.out.Grants[i]
		r.Environment = p.environment(r.Environment, r.Namespace)
	}
	for i := range p.out.Relations {
		r := &p.out.Relations[i]
		r.Environment = p.environment(r.Environment, r.Namespace)
	}
	for i := range p.out.Resources {
		r := &p.out.Resources[i]
		namespace := r.Namespace
		if r.Kind == "Namespace" {
			namespace = r.Name
		}
		r.Environment = p.environment(r.Environment, namespace)
	}
}

// relate adds a relation between two identities.
func (p *projection) relate(t remit.RelationType, from, to remit.Ref, toID remit.ID) *remit.Relation {
	fromID := p.identityID(from)
	p.out.Relations = append(p.out.Relations, remit.Relation{
		Record: remit.Record{
			ID:     remit.RelationID(fromID, toID, t, "", ""),
			System: p.system,
			Ref:    remit.Ref{Kind: string(t), Namespace: from.Namespace, Name: from.Name},
		},
		Type: t, From: fromID, To: toID, FromRef: from, ToRef: to,
	})
	return &p.out.Relations[len(p.out.Relations)-1]
}

// memberOf adds the membership of an identity in a group.
func (p *projection) memberOf(who remit.Ref, group string) {
	to := remit.Ref{Kind: "Group", Name: group}
	r := p.relate(remit.MemberOf, who, to, p.identityID(to))
	r.BuiltIn = builtInGroup(group)
}

// namespace is a resource that grants are scoped to.
func (p *projection) namespace(ref remit.Ref, o *object) {
	if o == nil {
		return
	}
	r := remit.Resource{Record: p.record(remit.ResourceID(p.system, ref), ref, &o.meta), Type: "namespace"}
	r.BuiltIn = ref.Name == "kube-system" || ref.Name == "kube-public" || ref.Name == "kube-node-lease" || ref.Name == "default"
	p.out.Resources = append(p.out.Resources, r)
}
