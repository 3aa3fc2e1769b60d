package kubernetes

import (
	"cmp"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit"
)

// role is the reduced form of a Role or ClusterRole.
type role struct {
	rules     []rbacv1.PolicyRule
	selectors []metav1.LabelSelector // of an aggregating role
	assumed   bool                   // not seen: what Kubernetes brings by default
}

func (*role) mentions(remit.Ref, func(remit.Ref, mentionKind)) {}

// binding is the reduced form of a RoleBinding or ClusterRoleBinding.
type binding struct {
	role     remit.Ref
	subjects []remit.Ref // sorted, each once
}

func (b *binding) mentions(_ remit.Ref, f func(remit.Ref, mentionKind)) {
	for _, s := range b.subjects {
		f(s, byBinding)
	}
}

// The bounds on hostile roles. An API server takes objects of up to about 1.5
// MB, which is room for 10,000 rules, and a product of groups and resources
// multiplies what is written.
const (
	maxRules      = 20_000
	maxProduct    = 2_000     // groups × resources of one rule
	maxAggregated = 1_000_000 // rules gathered by aggregation, over all roles
)

func (r *reducer) role(rules []rbacv1.PolicyRule, aggregation *rbacv1.AggregationRule) *role {
	out := &role{rules: make([]rbacv1.PolicyRule, 0, min(len(rules), maxRules))}
	for i := range rules {
		if i == maxRules {
			break
		}
		out.rules = append(out.rules, *rules[i].DeepCopy())
	}
	if aggregation != nil {
		for i := range aggregation.ClusterRoleSelectors {
			out.selectors = append(out.selectors, *aggregation.ClusterRoleSelectors[i].DeepCopy())
		}
	}
	return out
}

func (r *reducer) binding(namespace string, roleRef rbacv1.RoleRef, subjects []rbacv1.Subject) *binding {
	b := &binding{role: remit.Ref{Kind: truncate(roleRef.Kind, maxLabel), Name: truncate(roleRef.Name, maxLabel)}}
	if roleRef.Kind == "Role" {
		b.role.Namespace = strings.Clone(namespace)
	}
	for _, s := range subjects {
		if s.Name == "" {
			continue
		}
		switch s.Kind {
		case rbacv1.ServiceAccountKind:
			// The RBAC authorizer takes an account without a namespace for
			// one of the binding's, and in a ClusterRoleBinding for nobody.
			ns := cmp.Or(s.Namespace, namespace)
			if ns == "" {
				continue
			}
			b.subjects = append(b.subjects, remit.Ref{Kind: "ServiceAccount", Namespace: truncate(ns, maxLabel), Name: truncate(s.Name, maxLabel)})
		case rbacv1.UserKind:
			b.subjects = append(b.subjects, refOfUser(truncate(s.Name, 4*maxLabel)))
		case rbacv1.GroupKind:
			b.subjects = append(b.subjects, remit.Ref{Kind: "Group", Name: truncate(s.Name, 4*maxLabel)})
		}
		// The authorizer knows no other kinds: they are given nothing.
	}
	slices.SortFunc(b.subjects, compareRefs)
	b.subjects = slices.Clip(slices.Compact(b.subjects))
	return b
}

// roleNamed returns the role of that name and how it is known: the object in
// the cluster, or, in files, one of the roles that every cluster has. It is nil
// when there is none.
func (p *projection) roleNamed(ref remit.Ref) *object {
	if o := p.lookup(ref); o != nil {
		return o
	}
	if p.offline && ref.Kind == "ClusterRole" {
		return defaultRoles()[ref.Name]
	}
	return nil
}

// roleAbsent says whether a role that a binding names is known not to exist.
func (p *projection) roleAbsent(ref remit.Ref) bool {
	switch ref.Kind {
	case "Role":
		return p.lookup(ref) == nil && p.scope.includes(ref.Namespace) && p.listed("roles")
	case "ClusterRole":
		if p.roleNamed(ref) != nil || !p.listed("clusterroles") {
			return false
		}
		// Files need not hold what is installed otherwise. Only a dump does,
		// and it is known by a role that every cluster has.
		return !p.offline || p.object("ClusterRole", "", "cluster-admin") != nil
	}
	return true // the authorizer knows no other kinds of role
}

// role projects a role.
func (p *projection) role(ref remit.Ref, o *object) {
	if o == nil {
		if p.offline && ref.Kind == "ClusterRole" {
			o = defaultRoles()[ref.Name]
		}
		if o == nil {
			return
		}
	}
	body, ok := o.body.(*role)
	if !ok {
		return
	}
	rules, truncated := p.effectiveRules(ref, o)
	r := remit.Role{
		Record:     p.record(remit.RoleID(p.system, ref), ref, &o.meta),
		Aggregates: len(body.selectors) > 0,
	}
	r.BuiltIn = builtInRole(ref, o)
	permissions, approximate := permissions(rules)
	r.Permissions = permissions
	if approximate {
		set(&r.Attributes, "approximate", "true")
	}
	if truncated {
		set(&r.Attributes, "truncated", "true")
	}
	if body.assumed {
		set(&r.Attributes, "assumed", "true")
	}
	p.out.Roles = append(p.out.Roles, r)
}

// effectiveRules are the rules that count. In a cluster a controller gathers
// those of aggregating roles and the authorizer reads what it wrote; in files
// nobody has done that yet.
func (p *projection) effectiveRules(ref remit.Ref, o *object) (rules []rbacv1.PolicyRule, truncated bool) {
	body, ok := o.body.(*role)
	if !ok {
		return nil, false
	}
	if !p.offline || len(body.selectors) == 0 || len(body.rules) > 0 {
		return body.rules, false
	}
	seen := map[remit.Ref]bool{ref: true}
	var gather func(b *role)
	gather = func(b *role) {
		for i := range b.selectors {
			for _, other := range p.selectRoles(&b.selectors[i]) {
				if p.model.aggregationBudget--; p.model.aggregationBudget < 0 || truncated {
					truncated = true
					return
				}
				if seen[other.ref] {
					continue // roles may aggregate each other in a circle
				}
				seen[other.ref] = true
				r, ok := other.body.(*role)
				if !ok {
					continue
				}
				if p.model.aggregationBudget -= 1 + len(r.rules); p.model.aggregationBudget < 0 || len(rules)+len(r.rules) > maxRules {
					truncated = true
					return
				}
				rules = append(rules, r.rules...)
				if len(r.rules) == 0 {
					gather(r)
				}
			}
		}
	}
	gather(body)
	return rules, truncated
}

// selectRoles finds the ClusterRoles that an aggregation rule selects.
func (p *projection) selectRoles(selector *metav1.LabelSelector) []*object {
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil || s.Empty() {
		return nil // the aggregation controller would refuse it too
	}
	// Only files are aggregated here, and files do not change while they are
	// read: whoever selects the same is given the same.
	text := s.String()
	if known, ok := p.model.selected[text]; ok {
		return known
	}
	var found []*object
	if t := p.tables["ClusterRole"]; t != nil {
		if p.model.aggregationBudget -= len(t.objects) / 8; p.model.aggregationBudget < 0 {
			return nil
		}
		for _, o := range t.objects {
			if s.Matches(labelSet(o.meta.labels)) {
				found = append(found, o)
			}
		}
	}
	slices.SortFunc(found, func(a, b *object) int { return compareRefs(a.ref, b.ref) })
	p.model.selected[text] = found
	return found
}

// labelSet reads labels for a selector without copying them.
type labelSet map[string]string

func (l labelSet) Has(key string) bool              { _, ok := l[key]; return ok }
func (l labelSet) Get(key string) string            { return l[key] }
func (l labelSet) Lookup(key string) (string, bool) { v, ok := l[key]; return v, ok }

// permissions writes rules in the vocabulary. approximate says that a rule was
// too large to be written out and is given as more than it is.
func permissions(rules []rbacv1.PolicyRule) (out []remit.Permission, approximate bool) {
	out = make([]remit.Permission, 0, len(rules))
	for i := range rules {
		rule := &rules[i]
		if len(rule.Verbs) == 0 {
			continue
		}
		if len(rule.NonResourceURLs) > 0 {
			out = append(out, remit.Permission{Actions: rule.Verbs, Resources: rule.NonResourceURLs})
		}
		if len(rule.Resources) == 0 || len(rule.APIGroups) == 0 {
			continue
		}
		groups := rule.APIGroups
		if len(groups)*len(rule.Resources) > maxProduct {
			groups, approximate = []string{"*"}, true
		}
		resources := make([]string, 0, len(groups)*len(rule.Resources))
		for _, group := range groups {
			for _, resource := range rule.Resources {
				resources = append(resources, resourceName(group, resource))
			}
		}
		out = append(out, remit.Permission{Actions: rule.Verbs, Resources: resources, Names: rule.ResourceNames})
	}
	return out, approximate
}

// resourceName writes a resource as schema.GroupResource does: "secrets",
// "pods/exec", "deployments.apps", "deployments/scale.apps", "*.*".
func resourceName(group, resource string) string {
	if group == "" {
		return resource
	}
	return resource + "." + group
}

// binding projects a binding: one grant for each subject.
func (p *projection) binding(ref remit.Ref, o *object) {
	if o == nil {
		return
	}
	b, ok := o.body.(*binding)
	if !ok {
		return
	}
	roleID := remit.RoleID(p.system, b.role)
	roleGone := p.roleAbsent(b.role)
	var roleBuiltIn bool
	if role := p.roleNamed(b.role); role != nil {
		roleBuiltIn = builtInRole(b.role, role)
	}
	record := p.record("", ref, &o.meta)
	for _, s := range b.subjects {
		who := p.identityID(s)
		g := remit.Grant{
			Record:   record,
			Status:   remit.Active,
			Identity: who, Subject: s,
			Role: roleID, RoleRef: b.role,
			Scope:   ref.Namespace,
			Origin:  o.meta.origin,
			Expires: o.meta.expires,
		}
		g.ID = remit.GrantID(p.system, ref, who)
		g.Attributes = nil
		for k, v := range record.Attributes {
			set(&g.Attributes, k, v)
		}
		g.BuiltIn = roleBuiltIn && builtInBinding(ref, b.role) && builtInSubject(s)
		switch {
		case roleGone:
			g.Status = remit.Dangling
			set(&g.Attributes, "missing", "role")
		case s.Kind == "ServiceAccount" && p.accountAbsent(s):
			g.Status = remit.Dangling
			set(&g.Attributes, "missing", "subject")
		}
		p.out.Grants = append(p.out.Grants, g)
	}
}
