package policy

import (
	"strings"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"remit"
)

// permissions is a list of permissions for an expression, with the patterns
// taken apart once. A role has one however many grants show it. Not safe for
// concurrent use: an evaluation has its own.
type permissions struct {
	traits.Lister
	raw   []remit.Permission
	rules []rule
	known map[[3]string]bool // answers of allows; roles are few and asked often
}

type rule struct {
	actions   []string
	resources []resourcePattern
	names     []string
	deny      bool
	condition bool
}

// resourcePattern is a resource in Kubernetes notation, taken apart:
// "deployments.apps/scale" is deployments, scale, apps.
type resourcePattern struct {
	whole    string // as written
	resource string
	sub      string // "" is none
	group    string // "" is the core group
	url      bool   // a non-resource URL: begins with "/"
}

func parseResource(s string) resourcePattern {
	p := resourcePattern{whole: s}
	if strings.HasPrefix(s, "/") {
		p.url = true
		return p
	}
	left, sub, _ := strings.Cut(s, "/")
	resource, group, ok := strings.Cut(left, ".")
	if !ok {
		// "deployments/scale.apps": the group may stand behind the
		// subresource as well.
		sub, group, _ = strings.Cut(sub, ".")
	}
	p.resource, p.sub, p.group = resource, sub, group
	return p
}

// covers says whether a pattern stands for (at least) everything that asked
// stands for, by the rules of Kubernetes RBAC: "*" as the resource is every
// resource with its subresources, "pods" is not its subresources, "*/scale" is
// that subresource of every resource.
// https://kubernetes.io/docs/reference/access-authn-authz/rbac/#referring-to-resources
func (p resourcePattern) covers(asked resourcePattern) bool {
	if p.whole == asked.whole {
		return true
	}
	if p.url || asked.url {
		if !p.url || !asked.url {
			return false
		}
		prefix, wild := strings.CutSuffix(p.whole, "*")
		return wild && strings.HasPrefix(asked.whole, prefix)
	}
	// Where names of other systems are asked for (an ARN, a table), the parts
	// are compared as they are; a lone "*.*" is everything everywhere.
	if p.group != "*" && p.group != asked.group {
		return false
	}
	switch {
	case p.resource == "*" && p.sub == "":
		return true
	case p.resource != "*" && p.resource != asked.resource:
		return false
	case p.sub == "*":
		return asked.sub != ""
	}
	return p.sub == asked.sub
}

// coversAction: "*" is all, and a "*" at the end stands for any rest, as in
// "s3:Get*".
func coversAction(pattern, asked string) bool {
	if pattern == asked || pattern == "*" {
		return true
	}
	prefix, wild := strings.CutSuffix(pattern, "*")
	return wild && strings.HasPrefix(asked, prefix)
}

func newPermissions(raw []remit.Permission) *permissions {
	p := &permissions{raw: raw, Lister: emptyList}
	if len(raw) == 0 {
		return p
	}
	p.rules = make([]rule, len(raw))
	all := make([]*permissionObject, len(raw))
	for i := range raw {
		r := &raw[i]
		p.rules[i] = rule{actions: r.Actions, names: r.Names, deny: r.Deny, condition: r.Condition != ""}
		p.rules[i].resources = make([]resourcePattern, len(r.Resources))
		for j, s := range r.Resources {
			p.rules[i].resources[j] = parseResource(s)
		}
		all[i] = &permissionObject{class: permissionClass, it: r}
	}
	p.Lister = objectList(all)
	return p
}

// join is the permissions of both.
func (p *permissions) join(more []remit.Permission) *permissions {
	if len(more) == 0 {
		return p
	}
	return newPermissions(append(append([]remit.Permission{}, p.raw...), more...))
}

// permissionsOf finds the permissions in a value: the list of a role or grant,
// or one that an expression made from several.
func permissionsOf(v ref.Val) (*permissions, bool) {
	switch o := v.(type) {
	case *permissions:
		return o, true
	case *grantObject:
		return o.it.permissions, true
	case *roleObject:
		return o.it.permissions, true
	case traits.Lister:
		var raw []remit.Permission
		for it := o.Iterator(); it.HasNext() == types.True; {
			one, ok := it.Next().(*permissionObject)
			if !ok {
				return nil, false
			}
			raw = append(raw, *one.it)
		}
		return newPermissions(raw), true
	}
	return nil, false
}

// allows says whether the action is allowed on the resource: on all of them
// (name ""), or on the one of that name. A permission that is restricted to
// names allows nothing on all. One under a condition counts as allowed; a
// denial under a condition does not count.
func (p *permissions) allows(action, resource, name string) bool {
	if len(p.rules) == 0 {
		return false // and nothing to remember: the empty list is shared
	}
	key := [3]string{action, resource, name}
	if answer, ok := p.known[key]; ok {
		return answer
	}
	asked := parseResource(resource)
	answer := false
	for i := range p.rules {
		r := &p.rules[i]
		if r.deny && r.condition || answer && !r.deny || !r.covers(action, asked, name) {
			continue
		}
		answer = !r.deny
		if r.deny {
			break
		}
	}
	if p.known == nil {
		p.known = map[[3]string]bool{}
	}
	if len(p.known) < 1000 { // an expression may ask for made-up names without end
		p.known[key] = answer
	}
	return answer
}

func (r *rule) covers(action string, asked resourcePattern, name string) bool {
	if len(r.names) > 0 && !contains(r.names, name) {
		return false
	}
	ok := false
	for _, a := range r.actions {
		if coversAction(a, action) {
			ok = true
			break
		}
	}
	if !ok {
		return false
	}
	for _, p := range r.resources {
		if p.covers(asked) {
			return true
		}
	}
	return false
}

func contains(all []string, one string) bool {
	if one == "" {
		return false
	}
	for _, s := range all {
		if s == one {
			return true
		}
	}
	return false
}

// writes says whether anything can be changed. Asking the platform about
// oneself is a "create" in Kubernetes, and changes nothing; neither do leases
// and events, which every controller writes.
func (p *permissions) writes() bool {
	for i := range p.rules {
		r := &p.rules[i]
		if r.deny {
			continue
		}
		changing := false
		for _, a := range r.actions {
			if !reads(a) {
				changing = true
				break
			}
		}
		if !changing {
			continue
		}
		for _, res := range r.resources {
			if !harmless[res.resource+"."+res.group] {
				return true
			}
		}
	}
	return false
}

var harmless = map[string]bool{
	"selfsubjectaccessreviews.authorization.k8s.io":  true,
	"selfsubjectrulesreviews.authorization.k8s.io":   true,
	"subjectaccessreviews.authorization.k8s.io":      true,
	"localsubjectaccessreviews.authorization.k8s.io": true,
	"selfsubjectreviews.authentication.k8s.io":       true,
	"tokenreviews.authentication.k8s.io":             true,
	"leases.coordination.k8s.io":                     true,
	"events.":                                        true,
	"events.events.k8s.io":                           true,
}

// reads knows actions that only read, in the words of several platforms.
func reads(action string) bool {
	if i := strings.LastIndexByte(action, ':'); i >= 0 { // s3:GetObject
		action = action[i+1:]
	}
	action = strings.ToLower(action)
	for _, word := range [...]string{"get", "list", "watch", "head", "describe", "read", "select", "view", "connect", "usage", "use", "search", "query"} {
		if strings.HasPrefix(action, word) {
			return true
		}
	}
	return false
}
