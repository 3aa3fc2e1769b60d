package kubernetes

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"

	"remit"
)

// The arithmetic of RBAC rules: which of them allow what was done, and the
// smallest that still do. Nothing here asks a server.
// Source: k8s.io/kubernetes/pkg/apis/rbac/v1 (evaluation_helpers.go).

// right is what a request asks for, as RBAC sees it, without the name of the
// object.
type right struct {
	verb, group, resource string // resource with its subresource
	namespace             string // "" for the cluster, and for all namespaces
	url                   string // in place of the resource
}

// use is a right that was exercised.
type use struct {
	right
	names   map[string]time.Time // by name, when it was first used
	unnamed bool                 // also without a name, or under too many to tell
	first   time.Time
}

// rightOf reads what a usage exercised, and the name of the object: "" where it
// has none and "*" for too many to tell. It is false for what is no request.
func rightOf(u *remit.Usage) (r right, name string, ok bool) {
	if u.Action == string(remit.Impersonate) {
		r, name = right{verb: u.Action, namespace: u.Resource.Namespace}, u.Resource.Name
		switch u.Resource.Kind {
		case "ServiceAccount":
			r.resource = "serviceaccounts"
		case "User":
			r.resource = "users"
		case "Node":
			r.resource, name = "users", nodePrefix+name
		case "Group":
			r.resource = "groups"
		}
		return r, name, r.resource != ""
	}
	if u.Resource.Kind == "URL" {
		return right{verb: u.Action, url: u.Resource.Name}, "", u.Resource.Name != ""
	}
	r = right{verb: u.Action, namespace: u.Resource.Namespace}
	r.resource, r.group, _ = strings.Cut(u.Resource.Kind, ".")
	return r, u.Resource.Name, r.resource != "" && r.verb != ""
}

func has(list []string, s string) bool {
	return slices.Contains(list, s) || slices.Contains(list, "*")
}

// matches says whether a rule is about a right, whatever names it is limited to.
func matches(rule *rbacv1.PolicyRule, r right) bool {
	if !has(rule.Verbs, r.verb) {
		return false
	}
	if r.url != "" {
		return slices.ContainsFunc(rule.NonResourceURLs, func(u string) bool {
			prefix, open := strings.CutSuffix(u, "*")
			return u == r.url || open && strings.HasPrefix(r.url, prefix)
		})
	}
	if !has(rule.APIGroups, r.group) {
		return false
	}
	if has(rule.Resources, r.resource) {
		return true
	}
	_, sub, nested := strings.Cut(r.resource, "/")
	return nested && slices.Contains(rule.Resources, "*/"+sub)
}

// covering says whether rules allow a right on all names (open), and otherwise on
// which.
func covering(rules []rbacv1.PolicyRule, r right) (open bool, names []string) {
	for i := range rules {
		switch rule := &rules[i]; {
		case !matches(rule, r):
		case r.url != "" || len(rule.ResourceNames) == 0:
			return true, nil
		default:
			for _, name := range rule.ResourceNames {
				names = appendNew(names, name)
			}
		}
	}
	return false, names
}

// allow says whether rules allow a right on a name, "*" being any that there may
// be.
func allow(rules []rbacv1.PolicyRule, r right, name string) bool {
	open, names := covering(rules, r)
	if open {
		return true
	}
	return slices.Contains(names, name) || len(names) > 0 && name == "*"
}

// nameable says whether a right is narrowed to names. To create, to list, to
// watch and to delete a collection is not about a name that is there; a
// subresource is made below an object that is.
func nameable(r right) bool {
	switch r.verb {
	case "get", "update", "patch", "delete", string(remit.Impersonate):
		return r.url == ""
	case "create":
		return strings.Contains(r.resource, "/")
	}
	return false
}

// narrowing is how far rights are narrowed to names.
type narrowing struct {
	most    int       // more names than that are none
	settled time.Time // a name that was first used later may not be the last
}

// narrows says whether some names are few and stable enough.
func (n narrowing) narrows(first map[string]time.Time) bool {
	if len(first) == 0 || len(first) > n.most {
		return false
	}
	for _, at := range first {
		if at.After(n.settled) {
			return false
		}
	}
	return true
}

// part is the rules that hold in one namespace, or ("") in the cluster.
type part struct {
	namespace string
	rules     []rbacv1.PolicyRule
}

// narrow returns the smallest rules that allow what was used and nothing that
// the given ones, of a binding in a namespace or ("") of the cluster, do not. What
// a binding of the cluster is used for in a few namespaces only is granted in
// those. kept are further rules, which hold where the binding does.
func narrow(namespace string, rules []rbacv1.PolicyRule, uses []*use, kept []rbacv1.PolicyRule, n narrowing) []part {
	spaces := map[string]time.Time{}
	for _, u := range uses {
		if at, known := spaces[u.namespace]; u.namespace != "" && (!known || u.first.Before(at)) {
			spaces[u.namespace] = u.first
		}
	}
	byNamespace := namespace == "" && n.narrows(spaces)
	places := map[string]map[right]*use{}
	add := func(u *use) {
		at := namespace
		if byNamespace && u.namespace != "" {
			at = u.namespace
		}
		place := places[at]
		if place == nil {
			place = map[right]*use{}
			places[at] = place
		}
		r := u.right
		r.namespace = ""
		sum := place[r]
		if sum == nil {
			sum = &use{right: r, names: map[string]time.Time{}, first: u.first}
			place[r] = sum
		}
		sum.unnamed = sum.unnamed || u.unnamed
		for name, first := range u.names {
			if at, known := sum.names[name]; !known || first.Before(at) {
				sum.names[name] = first
			}
		}
	}
	for _, u := range uses {
		add(u)
		if u.verb == "watch" { // one that breaks begins with a list
			list := *u
			list.verb = "list"
			if open, names := covering(rules, list.right); open || len(names) > 0 {
				add(&list)
			}
		}
	}
	if len(kept) > 0 && places[namespace] == nil {
		places[namespace] = map[right]*use{}
	}
	var out []part
	for _, at := range slices.Sorted(maps.Keys(places)) {
		b := ruleBuilder{}
		for r, u := range places[at] {
			if names, ok := namesFor(rules, u, n); ok {
				b.add(r, names)
			}
		}
		built := b.rules()
		if at == namespace {
			for _, rule := range kept {
				if !coverRule(built, &rule) {
					built = append(built, rule)
				}
			}
		}
		out = append(out, part{at, built})
	}
	return out
}

// namesFor are the names to which a use is narrowed; none for all. It is false for
// what the rules do not allow at all.
func namesFor(rules []rbacv1.PolicyRule, u *use, n narrowing) (names []string, ok bool) {
	open, granted := covering(rules, u.right)
	switch {
	case open && nameable(u.right) && !u.unnamed && n.narrows(u.names):
		return slices.Sorted(maps.Keys(u.names)), true
	case open:
		return nil, true
	case u.unnamed || !nameable(u.right):
		return slices.Sorted(slices.Values(granted)), len(granted) > 0
	}
	for _, name := range slices.Sorted(maps.Keys(u.names)) {
		if slices.Contains(granted, name) {
			names = append(names, name)
		}
	}
	return names, len(names) > 0
}

// ruleBuilder gathers verbs by what they are about.
type ruleBuilder map[ruleKey]map[string]bool

type ruleKey struct{ group, resource, url, names string }

// The names of objects hold none of these.
const nameSeparator = "\x00"

func (b ruleBuilder) add(r right, names []string) {
	k := ruleKey{r.group, r.resource, r.url, strings.Join(names, nameSeparator)}
	if b[k] == nil {
		b[k] = map[string]bool{}
	}
	b[k][r.verb] = true
}

// rules writes what was gathered: resources of one group with the same verbs, and
// no names, share a rule, which adds nothing to them.
func (b ruleBuilder) rules() []rbacv1.PolicyRule {
	type shared struct{ group, verbs, names, resource string } // resource only with names
	byKey := map[shared]*rbacv1.PolicyRule{}
	var out []*rbacv1.PolicyRule
	keys := slices.SortedFunc(maps.Keys(b), func(x, y ruleKey) int {
		return cmp.Or(cmp.Compare(x.url, y.url), cmp.Compare(x.group, y.group), cmp.Compare(x.resource, y.resource), cmp.Compare(x.names, y.names))
	})
	for _, k := range keys {
		verbs := slices.Sorted(maps.Keys(b[k]))
		s := shared{group: k.group, verbs: strings.Join(verbs, " "), names: k.names}
		if k.url != "" {
			s.group = "\x00url" // apart from every group
		} else if k.names != "" {
			s.resource = k.resource
		}
		rule := byKey[s]
		if rule == nil {
			rule = &rbacv1.PolicyRule{Verbs: verbs}
			if k.url == "" {
				rule.APIGroups = []string{k.group}
			}
			if k.names != "" {
				rule.ResourceNames = strings.Split(k.names, nameSeparator)
			}
			byKey[s] = rule
			out = append(out, rule)
		}
		if k.url != "" {
			rule.NonResourceURLs = append(rule.NonResourceURLs, k.url)
		} else {
			rule.Resources = append(rule.Resources, k.resource)
		}
	}
	rules := make([]rbacv1.PolicyRule, len(out))
	for i, rule := range out {
		rules[i] = *rule
	}
	return rules
}

// each calls f with every right that a rule spells out, wildcards as they stand,
// until f says false, and says whether it never did.
func each(rule *rbacv1.PolicyRule, f func(right) bool) bool {
	for _, verb := range rule.Verbs {
		for _, url := range rule.NonResourceURLs {
			if !f(right{verb: verb, url: url}) {
				return false
			}
		}
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				if !f(right{verb: verb, group: group, resource: resource}) {
					return false
				}
			}
		}
	}
	return true
}

// coverRule says whether rules allow all that another does. It may say no of rules
// that do so only together, as by every verb there is.
func coverRule(rules []rbacv1.PolicyRule, rule *rbacv1.PolicyRule) bool {
	budget := maxProduct
	return each(rule, func(r right) bool {
		if budget--; budget < 0 {
			return false
		}
		open, names := covering(rules, r)
		if open || r.url != "" {
			return open
		}
		return len(rule.ResourceNames) > 0 && !slices.ContainsFunc(rule.ResourceNames, func(name string) bool { return !slices.Contains(names, name) })
	})
}

func coverAll(rules, others []rbacv1.PolicyRule) bool {
	for i := range others {
		if !coverRule(rules, &others[i]) {
			return false
		}
	}
	return true
}

// The groups of APIs whose rights are asked for by other means than a request.
const (
	groupCertificates   = "certificates.k8s.io"
	groupAuthentication = "authentication.k8s.io"
)

// unseenOf are the parts of rules whose use the audit log cannot show as such,
// with words for each: what the API server asks for on the way (bind, escalate,
// sign), and what others ask it about (kubelets, proxies in front of metrics).
// The former are kept where the log shows what they are needed for, the latter
// where the rule spells them out: what only a wildcard gives was hardly meant.
func unseenOf(rules []rbacv1.PolicyRule, uses []*use) (kept []rbacv1.PolicyRule, words []string) {
	used := func(group string, verbs []string, resources ...string) bool {
		return slices.ContainsFunc(uses, func(u *use) bool {
			return u.group == group && slices.Contains(verbs, u.verb) && slices.Contains(resources, u.resource)
		})
	}
	keep := func(rule rbacv1.PolicyRule, why string) {
		kept = append(kept, rule)
		words = append(words, ruleLine(&rule)+" ("+why+")")
	}
	// What is needed for something that was done.
	writes := []string{"create", "update", "patch"}
	for _, need := range []struct {
		when                  bool
		verb, group, resource string
		why                   string
	}{
		{used(rbacv1.GroupName, writes, "rolebindings", "clusterrolebindings"), "bind", rbacv1.GroupName, "roles", "it wrote bindings"},
		{used(rbacv1.GroupName, writes, "rolebindings", "clusterrolebindings"), "bind", rbacv1.GroupName, "clusterroles", "it wrote bindings"},
		{used(rbacv1.GroupName, writes, "roles"), "escalate", rbacv1.GroupName, "roles", "it wrote roles"},
		{used(rbacv1.GroupName, writes, "clusterroles"), "escalate", rbacv1.GroupName, "clusterroles", "it wrote roles"},
		{used(groupCertificates, writes, "certificatesigningrequests/approval"), "approve", groupCertificates, "signers", "it approved certificates"},
		{used(groupCertificates, writes, "certificatesigningrequests/status"), "sign", groupCertificates, "signers", "it signed certificates"},
		{used(groupCertificates, writes, "clustertrustbundles"), "attest", groupCertificates, "signers", "it wrote trust bundles"},
	} {
		if !need.when {
			continue
		}
		open, names := covering(rules, right{verb: need.verb, group: need.group, resource: need.resource})
		if open || len(names) > 0 {
			keep(rbacv1.PolicyRule{Verbs: []string{need.verb}, APIGroups: []string{need.group}, Resources: []string{need.resource}, ResourceNames: names}, need.why)
		}
	}
	impersonates := slices.ContainsFunc(uses, func(u *use) bool { return u.verb == string(remit.Impersonate) })
	for i := range rules {
		rule := &rules[i]
		var resources []string
		for _, resource := range rule.Resources {
			if slices.Contains(rule.APIGroups, "") && strings.HasPrefix(resource, "nodes/") && resource != "nodes/status" {
				resources = append(resources, resource)
			}
		}
		if len(resources) > 0 {
			keep(rbacv1.PolicyRule{Verbs: rule.Verbs, APIGroups: []string{""}, Resources: resources, ResourceNames: rule.ResourceNames}, "kubelets are asked directly")
		}
		for _, url := range rule.NonResourceURLs {
			if strings.HasPrefix(url, "/metrics") && has(rule.Verbs, "get") {
				keep(rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{url}}, "other servers ask whether metrics may be read")
			}
		}
		for _, resource := range rule.Resources {
			if strings.HasSuffix(resource, "/finalizers") && has(rule.Verbs, "update") {
				keep(rbacv1.PolicyRule{Verbs: []string{"update"}, APIGroups: rule.APIGroups, Resources: []string{resource}, ResourceNames: rule.ResourceNames}, "asked for when an object names its owner")
			}
		}
		if slices.Contains(rule.Verbs, "use") && !slices.Contains(rule.Resources, "*") && len(rule.Resources) > 0 {
			keep(rbacv1.PolicyRule{Verbs: []string{"use"}, APIGroups: rule.APIGroups, Resources: rule.Resources, ResourceNames: rule.ResourceNames}, "asked for when a pod is made")
		}
		if impersonates && has(rule.Verbs, string(remit.Impersonate)) && (has(rule.APIGroups, groupAuthentication) || has(rule.APIGroups, "")) {
			var with []string
			for _, resource := range rule.Resources {
				if resource == "groups" || resource == "uids" || strings.HasPrefix(resource, "userextras/") {
					with = append(with, resource)
				}
			}
			if len(with) > 0 {
				keep(rbacv1.PolicyRule{Verbs: []string{string(remit.Impersonate)}, APIGroups: rule.APIGroups, Resources: with, ResourceNames: rule.ResourceNames}, "it impersonated")
			}
		}
	}
	return kept, words
}

// ruleLine writes a rule for people: "get, list  configmaps, deployments.apps  named a, b".
func ruleLine(rule *rbacv1.PolicyRule) string {
	const most = 40 // of a list
	list := func(all []string) string {
		more := ""
		if len(all) > most {
			all, more = all[:most], ", …"
		}
		return strings.Join(all, ", ") + more
	}
	about := slices.Clone(rule.NonResourceURLs)
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			if len(about) > most {
				break
			}
			about = append(about, resourceName(group, resource))
		}
	}
	line := list(rule.Verbs) + "  " + list(about)
	if len(rule.ResourceNames) > 0 {
		line += "  named " + list(rule.ResourceNames)
	}
	return line
}
