package kubernetes

import (
	"slices"
	"strconv"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"remit"
)

// power is one way in which a role lets its holder act as somebody else, before
// it is known in which scope the role is bound.
type power struct {
	right remit.Right
	over  subjectMatter
}

// subjectMatter is what a power is exercised on.
type subjectMatter uint8

const (
	overUsers subjectMatter = iota
	overGroups
	overAccounts     // the service account itself is named
	overPods         // a pod, and so the account that it runs as
	overSecrets      // a Secret, and so whom it authenticates
	overWorkloads    // anything that makes pods, and so any account of the namespace
	overClusterRoles // a ClusterRole to bind or to widen
	overRoles        // a Role to bind or to widen
	overNodes        // a node's kubelet
	overApprovals    // certificate requests
	overSigners      // the signers whose requests may be approved
)

// powers are the ways of a role. The names, sorted, are those that the rules
// restrict the power to; nil means all.
type powers map[power][]string

// maxTargets bounds how many single identities one power of one grant leads to.
// Beyond that the relation leads to the group that contains them, and says so:
// a hostile role with thousands of names must not make a relation of each for
// each of thousands of subjects.
const maxTargets = 200

// maxAccessRelations bounds the relations of one subject.
const maxAccessRelations = 50_000

// access projects what one subject can come to act as, through all bindings
// that name it. What it can do as a member of a group is the group's to say.
func (p *projection) access() {
	from := p.unit.ref
	e := p.mentionOf(from)
	if e == nil {
		return
	}
	type bound struct {
		grant   remit.ID
		scope   string
		powers  powers
		builtIn bool
	}
	var all []bound
	fromID := p.identityID(from)
	for _, ref := range sortedRefs(e.bindings) {
		o := p.lookup(ref)
		if o == nil {
			continue
		}
		b, ok := o.body.(*binding)
		if !ok {
			continue
		}
		role := p.roleNamed(b.role)
		if role == nil {
			continue
		}
		if ref.Kind == "ClusterRoleBinding" && b.role.Kind != "ClusterRole" {
			continue // refused by the API server and ignored by the authorizer
		}
		all = append(all, bound{
			grant:   remit.GrantID(p.system, ref, fromID),
			scope:   ref.Namespace,
			powers:  p.powersOf(b.role, role),
			builtIn: builtInRole(b.role, role) && builtInBinding(ref, b.role) && builtInSubject(from),
		})
	}
	// Approving a certificate takes two rights, which may come from two roles.
	mayApprove := false
	for _, b := range all {
		if _, ok := b.powers[power{remit.SignCert, overApprovals}]; ok && b.scope == "" {
			mayApprove = true
		}
	}
	given := map[remit.ID]bool{}
	for _, b := range all {
		for _, pw := range sortedPowers(b.powers) {
			if pw.over == overApprovals || pw.over == overSigners && !mayApprove {
				continue
			}
			targets, narrowed := p.targets(pw, b.powers[pw], b.scope)
			for _, to := range targets {
				toID := p.identityID(to)
				id := remit.RelationID(fromID, toID, remit.CanActAs, pw.right, b.scope)
				if toID == fromID || given[id] || len(given) >= maxAccessRelations {
					continue
				}
				given[id] = true
				r := remit.Relation{
					Record: remit.Record{
						ID: id, System: p.system, BuiltIn: b.builtIn,
						Ref: remit.Ref{Kind: string(remit.CanActAs), Namespace: from.Namespace, Name: from.Name},
					},
					Type: remit.CanActAs, From: fromID, To: toID, FromRef: from, ToRef: to,
					Right: pw.right, Scope: b.scope, Via: b.grant,
				}
				if b.scope != "" {
					r.Environment = p.environment("", b.scope)
				}
				if narrowed > 0 {
					// The role names so many that their group stands for them.
					set(&r.Attributes, "names", strconv.Itoa(narrowed))
				}
				p.out.Relations = append(p.out.Relations, r)
			}
		}
	}
}

func sortedPowers(p powers) []power {
	out := make([]power, 0, len(p))
	for pw := range p {
		out = append(out, pw)
	}
	slices.SortFunc(out, func(a, b power) int {
		if c := strings.Compare(string(a.right), string(b.right)); c != 0 {
			return c
		}
		return int(a.over) - int(b.over)
	})
	return out
}

// powersOf analyses a role, once for as long as it stays as it is.
func (p *projection) powersOf(ref remit.Ref, o *object) powers {
	if known, ok := p.model.powers[ref]; ok {
		return known
	}
	rules, _ := p.effectiveRules(ref, o)
	found := analyse(rules)
	if body, ok := o.body.(*role); ok && (!p.offline || len(body.selectors) == 0) {
		p.model.powers[ref] = found
	}
	return found
}

// analyse finds the powers in rules. Each rule is looked at once.
func analyse(rules []rbacv1.PolicyRule) powers {
	found := map[power]map[string]struct{}{}
	for i := range rules {
		analyseRule(&rules[i], found)
	}
	if len(found) == 0 {
		return nil
	}
	out := make(powers, len(found))
	for pw, names := range found {
		if names == nil {
			out[pw] = nil
			continue
		}
		sorted := make([]string, 0, len(names))
		for n := range names {
			sorted = append(sorted, n)
		}
		slices.Sort(sorted)
		out[pw] = sorted
	}
	return out
}

// ruleReader answers questions about one rule as the RBAC authorizer does.
// Source: k8s.io/kubernetes/pkg/apis/rbac/v1/evaluation_helpers.go.
type ruleReader struct {
	verbs, groups, resources map[string]bool
}

func (r ruleReader) verb(any ...string) bool {
	if r.verbs["*"] {
		return true
	}
	for _, v := range any {
		if r.verbs[v] {
			return true
		}
	}
	return false
}

func (r ruleReader) resource(group, resource string) bool {
	if !r.groups["*"] && !r.groups[group] {
		return false
	}
	if r.resources["*"] || r.resources[resource] {
		return true
	}
	_, sub, ok := strings.Cut(resource, "/")
	return ok && r.resources["*/"+sub]
}

func analyseRule(rule *rbacv1.PolicyRule, found map[power]map[string]struct{}) {
	if len(rule.Resources) == 0 {
		return
	}
	r := ruleReader{setOf(rule.Verbs), setOf(rule.APIGroups), setOf(rule.Resources)}
	var names map[string]struct{}
	if len(rule.ResourceNames) > 0 {
		names = make(map[string]struct{}, len(rule.ResourceNames))
		for _, n := range rule.ResourceNames {
			if n != "" {
				names[n] = struct{}{}
			}
		}
	}
	add := func(right remit.Right, over subjectMatter, names map[string]struct{}) {
		pw := power{right, over}
		have, ok := found[pw]
		switch {
		case ok && have == nil: // all of them already
		case names == nil:
			found[pw] = nil
		case !ok:
			own := make(map[string]struct{}, len(names))
			for n := range names {
				own[n] = struct{}{}
			}
			found[pw] = own
		default:
			for n := range names {
				have[n] = struct{}{}
			}
		}
	}

	if r.verb("impersonate") {
		if r.resource("", "users") {
			add(remit.Impersonate, overUsers, names)
		}
		if r.resource("", "groups") {
			add(remit.Impersonate, overGroups, names)
		}
		if r.resource("", "serviceaccounts") {
			add(remit.Impersonate, overAccounts, names)
		}
		// A uid or an extra field alone names nobody: it is only accepted
		// beside a user, which the rules above see.
	}
	if r.verb("create") && r.resource("", "serviceaccounts/token") {
		add(remit.MintToken, overAccounts, names)
	}
	// Over a web socket exec is a get, at least on servers before v1.35.
	if r.verb("create", "get") && (r.resource("", "pods/exec") || r.resource("", "pods/attach")) {
		add(remit.Exec, overPods, names)
	}
	// The image of a running pod may be replaced, and a container put beside
	// its own.
	if r.verb("update", "patch") && (r.resource("", "pods") || r.resource("", "pods/ephemeralcontainers")) {
		add(remit.Exec, overPods, names)
	}
	if r.verb("create") && r.resource("", "pods") && names == nil { // a create has no name to compare
		add(remit.CreateWorkload, overWorkloads, nil)
	}
	for _, c := range workloadResources {
		if !r.resource(c.group, c.resource) {
			continue
		}
		// Whatever the one that may be changed is called, it can be made to
		// run as any account of its namespace.
		if r.verb("create") && names == nil || r.verb("update", "patch") {
			add(remit.CreateWorkload, overWorkloads, nil)
			break
		}
	}
	if r.verb("get", "list", "watch") && r.resource("", "secrets") {
		add(remit.ReadSecrets, overSecrets, names)
	}
	// Writing roles and bindings is no escalation by itself: the API server
	// lets nobody give what he does not have. These two verbs lift that.
	if r.verb("bind") {
		if r.resource(rbacv1.GroupName, "clusterroles") {
			add(remit.Bind, overClusterRoles, names)
		}
		if r.resource(rbacv1.GroupName, "roles") {
			add(remit.Bind, overRoles, names)
		}
	}
	if r.verb("escalate") {
		// A named role can be widened to anything, so names restrict nothing.
		if r.resource(rbacv1.GroupName, "clusterroles") {
			add(remit.Escalate, overClusterRoles, nil)
		}
		if r.resource(rbacv1.GroupName, "roles") {
			add(remit.Escalate, overRoles, nil)
		}
	}
	if r.verb("get", "create") && r.resource("", "nodes/proxy") {
		add(remit.NodeProxy, overNodes, nil) // every node runs pods of somebody
	}
	if r.verb("update", "patch") && r.resource("certificates.k8s.io", "certificatesigningrequests/approval") {
		add(remit.SignCert, overApprovals, nil)
	}
	if r.verb("approve") && r.resource("certificates.k8s.io", "signers") {
		add(remit.SignCert, overSigners, names)
	}
}

// workloadResources are what makes pods, beside pods themselves.
var workloadResources = []struct{ group, resource string }{
	{"apps", "deployments"},
	{"apps", "statefulsets"},
	{"apps", "daemonsets"},
	{"apps", "replicasets"},
	{"batch", "jobs"},
	{"batch", "cronjobs"},
	{"", "replicationcontrollers"},
}

func setOf(list []string) map[string]bool {
	m := make(map[string]bool, len(list))
	for _, s := range list {
		m[s] = true
	}
	return m
}

// targets resolves a power in a scope ("" is the whole cluster) to the
// identities that it reaches. narrowed is how many names the role has where
// their group stands for them, and 0 otherwise.
func (p *projection) targets(pw power, names []string, scope string) (to []remit.Ref, narrowed int) {
	everyAccount := remit.Ref{Kind: "Group", Name: groupAccounts}
	if scope != "" {
		everyAccount = accountsOf(scope)
	}
	everyone := remit.Ref{Kind: "Group", Name: groupMasters}

	switch pw.over {
	case overUsers, overGroups:
		if scope != "" {
			return nil, 0 // users and groups are in no namespace, so no RoleBinding reaches them
		}
		if names == nil {
			if pw.over == overGroups {
				return []remit.Ref{everyone}, 0
			}
			// Any user, account or node, but none of the groups that only a
			// login gives.
			return []remit.Ref{{Kind: "Group", Name: groupAuthenticated}}, 0
		}
		for _, name := range firstNames(names) {
			if pw.over == overUsers {
				to = append(to, refOfUser(name))
			} else {
				to = append(to, remit.Ref{Kind: "Group", Name: name})
			}
		}
		return to, 0

	case overAccounts:
		if names == nil {
			return []remit.Ref{everyAccount}, 0
		}
		for _, name := range firstNames(names) {
			if scope != "" {
				if p.object("ServiceAccount", scope, name) != nil || !p.listed("serviceaccounts") {
					to = append(to, remit.Ref{Kind: "ServiceAccount", Namespace: scope, Name: name})
				}
			} else {
				to = append(to, p.named("ServiceAccount", name)...)
			}
		}

	case overPods:
		if names == nil || scope == "" {
			return []remit.Ref{everyAccount}, 0
		}
		for _, name := range firstNames(names) {
			if o := p.object("Pod", scope, name); o != nil {
				if w, ok := o.body.(*workload); ok {
					to = append(to, w.account)
				}
			}
		}

	case overSecrets:
		if names == nil {
			return []remit.Ref{everyAccount}, 0
		}
		for _, name := range firstNames(names) {
			secrets := []remit.Ref{{Kind: "Secret", Namespace: scope, Name: name}}
			if scope == "" {
				secrets = p.named("Secret", name)
			}
			for _, ref := range secrets[:min(len(secrets), maxTargets+1)] {
				o := p.lookup(ref)
				if o == nil {
					continue
				}
				for _, c := range bodyCredentials(o.body) {
					if c.Holder != (remit.Ref{}) && (c.Provider == "" || c.Provider == "kubernetes") {
						to = append(to, c.Holder)
					}
				}
			}
		}

	case overWorkloads:
		return []remit.Ref{everyAccount}, 0

	case overClusterRoles, overRoles:
		all := everyAccount
		if scope == "" && pw.over == overClusterRoles {
			all = everyone
		}
		if names == nil {
			return []remit.Ref{all}, 0
		}
		return p.bindTargets(pw.over, names, scope, all), 0

	case overNodes:
		if scope != "" {
			return nil, 0 // nodes are in no namespace
		}
		return []remit.Ref{everyAccount}, 0

	case overSigners:
		if scope != "" {
			return nil, 0
		}
		return signerTargets(names), 0
	}

	slices.SortFunc(to, compareRefs)
	to = slices.Compact(to)
	if len(to) > maxTargets || len(names) > maxTargets {
		return []remit.Ref{everyAccount}, len(names)
	}
	return to, 0
}

// bindTargets is what the right to bind named roles leads to: whatever the
// roles let their holder act as, and everybody where one of them allows all.
func (p *projection) bindTargets(over subjectMatter, names []string, scope string, all remit.Ref) []remit.Ref {
	// Each named role is looked into: beyond a few, the many stand for all.
	if len(names) > 20 {
		return []remit.Ref{all}
	}
	var to []remit.Ref
	for _, name := range firstNames(names) {
		ref := remit.Ref{Kind: "ClusterRole", Name: name}
		if over == overRoles {
			if scope == "" {
				continue // a Role of that name in some namespace
			}
			ref = remit.Ref{Kind: "Role", Namespace: scope, Name: name}
		}
		role := p.roleNamed(ref)
		if role == nil {
			continue
		}
		for pw, restricted := range p.powersOf(ref, role) {
			if pw.over == overApprovals || pw.over == overSigners {
				continue
			}
			if pw.right == remit.Bind || pw.right == remit.Escalate {
				if restricted == nil {
					to = append(to, all)
				}
				continue // named roles of named roles would lead in circles
			}
			reached, _ := p.targets(pw, restricted, scope)
			to = append(to, reached...)
		}
	}
	slices.SortFunc(to, compareRefs)
	to = slices.Compact(to)
	if len(to) > maxTargets {
		return []remit.Ref{all}
	}
	return to
}

// signerTargets is whom the certificates of signers authenticate. Signers of
// servers' certificates, and foreign ones, authenticate nobody to the API
// server.
func signerTargets(names []string) []remit.Ref {
	everyone := remit.Ref{Kind: "Group", Name: groupMasters}
	if names == nil {
		return []remit.Ref{everyone}
	}
	var to []remit.Ref
	has := func(name string) bool {
		return slices.Contains(names, name) || slices.Contains(names, "kubernetes.io/*")
	}
	if has("kubernetes.io/kube-apiserver-client") || has("kubernetes.io/legacy-unknown") {
		to = append(to, everyone)
	}
	if has("kubernetes.io/kube-apiserver-client-kubelet") {
		to = append(to, remit.Ref{Kind: "Group", Name: groupNodes})
	}
	return to
}

// firstNames are the names that are looked at singly, and one more.
func firstNames(names []string) []string { return names[:min(len(names), maxTargets+1)] }
