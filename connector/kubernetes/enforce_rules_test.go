package kubernetes

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"remit"
	"remit/connector"
)

var (
	useUntil = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	useSince = useUntil.Add(-90 * 24 * time.Hour)
	longAgo  = useSince.Add(time.Hour)
	lately   = useUntil.Add(-time.Hour)
	reducee  = remit.Ref{Kind: "ServiceAccount", Namespace: "shop", Name: "worker"}
)

func rule(verbs, resources string, names ...string) rbacv1.PolicyRule {
	r := rbacv1.PolicyRule{Verbs: strings.Fields(verbs), ResourceNames: names}
	for _, resource := range strings.Fields(resources) {
		if strings.HasPrefix(resource, "/") {
			r.NonResourceURLs = append(r.NonResourceURLs, resource)
			continue
		}
		resource, group, _ := strings.Cut(resource, ".")
		r.Resources = appendNew(r.Resources, resource)
		r.APIGroups = appendNew(r.APIGroups, group)
	}
	return r
}

func did(action, resource, namespace, name string, first time.Time) remit.Usage {
	return remit.Usage{Action: action, Resource: remit.Ref{Kind: resource, Namespace: namespace, Name: name}, Outcome: remit.Allowed, First: first, Last: useUntil, Count: 1}
}

// grantOf is a binding of the worker with the rules of its role.
func grantOf(namespace string, rules ...rbacv1.PolicyRule) *ownGrant {
	kind := "RoleBinding"
	if namespace == "" {
		kind = "ClusterRoleBinding"
	}
	return &ownGrant{
		grantBinding: &grantBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "wide", Namespace: namespace, UID: "1"}, kind: kind,
			role: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "wide"}, subjects: []rbacv1.Subject{bindingSubject(reducee)},
		},
		rules: rules, uses: map[right]*use{},
	}
}

// TestNarrow says what is left of rules by what was done.
func TestNarrow(t *testing.T) {
	everything := rule("*", "*.*")
	for _, c := range []struct {
		name      string
		namespace string
		rules     []rbacv1.PolicyRule
		used      []remit.Usage
		want      []string // "nothing" for an unused binding, "same" for one that stays
	}{
		{"what was used, and no more", "shop", []rbacv1.PolicyRule{rule("get list watch create delete", "pods secrets")}, []remit.Usage{
			did("list", "pods", "shop", "", longAgo), did("delete", "pods", "shop", "*", longAgo),
		}, []string{"shop: delete, list  pods"}},
		{"few stable names, never of what has none", "shop", []rbacv1.PolicyRule{everything}, []remit.Usage{
			did("get", "configmaps", "shop", "a", longAgo), did("get", "configmaps", "shop", "b", longAgo), did("list", "configmaps", "shop", "a", longAgo),
			did("create", "configmaps", "shop", "a", longAgo), did("create", "serviceaccounts/token", "shop", "worker", longAgo), did("deletecollection", "pods", "shop", "", longAgo),
		}, []string{"shop: create, list  configmaps", "shop: get  configmaps  named a, b", "shop: deletecollection  pods", "shop: create  serviceaccounts/token  named worker"}},
		{"a name that is new, or too many", "shop", []rbacv1.PolicyRule{everything}, []remit.Usage{
			did("get", "configmaps", "shop", "a", lately), did("get", "secrets", "shop", "a", longAgo), did("get", "secrets", "shop", "b", longAgo),
			did("get", "secrets", "shop", "c", longAgo), did("get", "secrets", "shop", "d", longAgo),
		}, []string{"shop: get  configmaps, secrets"}},
		{"names that the role has stay", "shop", []rbacv1.PolicyRule{rule("get list update", "configmaps", "a", "b", "c")}, []remit.Usage{
			did("get", "configmaps", "shop", "b", lately), did("list", "configmaps", "shop", "a", longAgo),
		}, []string{"shop: list  configmaps  named a, b, c", "shop: get  configmaps  named b"}},
		{"few stable namespaces", "", []rbacv1.PolicyRule{everything}, []remit.Usage{
			did("list", "pods", "shop", "", longAgo), did("list", "pods", "bank", "", longAgo), did("get", "nodes", "", "*", longAgo),
		}, []string{": get  nodes", "bank: list  pods", "shop: list  pods"}},
		{"a namespace that is new", "", []rbacv1.PolicyRule{everything}, []remit.Usage{
			did("list", "pods", "shop", "", longAgo), did("list", "pods", "bank", "", lately),
		}, []string{": list  pods"}},
		{
			"a watch that breaks begins with a list", "shop",
			[]rbacv1.PolicyRule{everything},
			[]remit.Usage{did("watch", "deployments.apps", "shop", "", longAgo)},
			[]string{"shop: list, watch  deployments.apps"},
		},
		{"a subresource of a wildcard, and a URL", "", []rbacv1.PolicyRule{rule("*", "*/scale.*"), rule("get", "/healthz* /version")}, []remit.Usage{
			did("update", "deployments/scale.apps", "shop", "*", longAgo), did("get", "URL", "", "/healthz/etcd", longAgo), did("get", "pods", "shop", "x", longAgo),
		}, []string{": get  /healthz/etcd", "shop: update  deployments/scale.apps"}},
		{"URLs too many to tell", "", []rbacv1.PolicyRule{rule("get", "/a/* /b"), rule("post", "/c")}, []remit.Usage{did("get", "URL", "", "*", longAgo)}, []string{": get  /a/*, /b"}},
		{"unused", "shop", []rbacv1.PolicyRule{everything}, []remit.Usage{did("get", "pods", "bank", "x", longAgo)}, []string{"nothing"}},
		{"refused is not used", "shop", []rbacv1.PolicyRule{everything}, []remit.Usage{{Action: "get", Resource: remit.Ref{Kind: "pods", Namespace: "shop"}, Outcome: remit.Denied, First: longAgo}}, []string{"nothing"}},
		{"what came to nothing was allowed", "shop", []rbacv1.PolicyRule{everything}, []remit.Usage{{Action: "get", Resource: remit.Ref{Kind: "pods", Namespace: "shop", Name: "*"}, Outcome: remit.Failed, First: longAgo}}, []string{"shop: get  pods"}},
		{"all of it was used", "shop", []rbacv1.PolicyRule{rule("get list", "pods")}, []remit.Usage{did("get", "pods", "shop", "*", longAgo), did("list", "pods", "shop", "", longAgo)}, []string{"same"}},
		{"impersonate is kept when it was used, with what goes with it", "", []rbacv1.PolicyRule{rule("impersonate", "users groups serviceaccounts"), rule("impersonate", "userextras/x.authentication.k8s.io")}, []remit.Usage{
			did("impersonate", "User", "", "jane", longAgo),
		}, []string{": impersonate  users  named jane", ": impersonate  groups", ": impersonate  userextras/x.authentication.k8s.io"}},
		{"impersonate is not kept otherwise", "", []rbacv1.PolicyRule{rule("impersonate get", "users groups")}, nil, []string{"nothing"}},
		{"bind is kept for who wrote bindings, escalate is not", "shop", []rbacv1.PolicyRule{rule("*", "*.rbac.authorization.k8s.io")}, []remit.Usage{
			did("create", "rolebindings.rbac.authorization.k8s.io", "shop", "", longAgo),
		}, []string{
			"shop: create  rolebindings.rbac.authorization.k8s.io", "shop: bind  roles.rbac.authorization.k8s.io", "shop: bind  clusterroles.rbac.authorization.k8s.io",
		}},
		{"what kubelets and others ask for, where it is spelt out", "", []rbacv1.PolicyRule{rule("get", "nodes nodes/metrics"), rule("get", "/metrics /logs")}, nil, []string{": get  nodes/metrics", ": get  /metrics"}},
		{"and not where only a wildcard gives it", "", []rbacv1.PolicyRule{everything, rule("*", "/*")}, nil, []string{"nothing"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := grantOf(c.namespace, c.rules...)
			attribute([]*ownGrant{g}, map[remit.Ref]*ownGrant{g.ref(): g}, c.used)
			changes := reduceAll([]*ownGrant{g}, narrowing{most: 3, settled: useUntil.Add(-30 * 24 * time.Hour)})
			var got []string
			switch {
			case len(changes) == 0:
				got = []string{"same"}
			case len(changes[0].parts) == 0:
				got = []string{"nothing"}
			default:
				for _, p := range changes[0].parts {
					for _, line := range ruleLines(p.rules) {
						got = append(got, p.namespace+": "+line)
					}
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("left is\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// TestAttribute holds that what a group allowed is not put down to the identity,
// and that what a binding allowed that is no more is.
func TestAttribute(t *testing.T) {
	g := grantOf("", rule("*", "*.*"))
	discovery := &ownGrant{grantBinding: &grantBinding{kind: "ClusterRoleBinding", ObjectMeta: metav1.ObjectMeta{Name: "everybody"}, subjects: []rbacv1.Subject{{Kind: "Group", Name: groupAuthenticated}}}, rules: []rbacv1.PolicyRule{rule("get", "pods")}}
	by := func(u remit.Usage, binding string) remit.Usage {
		u.Binding = remit.Ref{Kind: "ClusterRoleBinding", Name: binding}
		return u
	}
	all := map[remit.Ref]*ownGrant{g.ref(): g, discovery.ref(): discovery}
	attribute([]*ownGrant{g}, all, []remit.Usage{by(did("get", "pods", "a", "x", longAgo), "everybody")})
	if len(g.uses) != 0 {
		t.Errorf("what a group allowed is put down to the identity: %v", g.used())
	}
	attribute([]*ownGrant{g}, all, []remit.Usage{by(did("get", "secrets", "a", "x", longAgo), "everybody"), by(did("list", "pods", "a", "", longAgo), "deleted"), did("watch", "pods", "a", "", longAgo)})
	if len(g.uses) != 3 {
		t.Errorf("not all is put down to the only binding that allows it: %v", g.used())
	}
}

// world is the RBAC of a cluster, as plain as can be.
type rbacWorld struct {
	roles    map[remit.Ref][]rbacv1.PolicyRule
	bindings map[remit.Ref]rbacWorldBinding
}

type rbacWorldBinding struct {
	role     remit.Ref
	subjects []rbacv1.Subject
}

// allows is an authorizer of its own, so that a mistake in the one under test is
// not believed.
func (w *rbacWorld) allows(who remit.Ref, verb, resource, namespace, name string) bool {
	resource, group, _ := strings.Cut(resource, ".")
	in := func(list []string, s string) bool { return slices.Contains(list, s) || slices.Contains(list, "*") }
	for ref, b := range w.bindings {
		if ref.Namespace != "" && ref.Namespace != namespace {
			continue
		}
		if !slices.Contains(b.subjects, rbacv1.Subject{Kind: "ServiceAccount", Namespace: who.Namespace, Name: who.Name}) {
			continue
		}
		for _, r := range w.roles[b.role] {
			sub := ""
			if i := strings.Index(resource, "/"); i > 0 {
				sub = "*" + resource[i:]
			}
			if in(r.Verbs, verb) && in(r.APIGroups, group) && (in(r.Resources, resource) || sub != "" && slices.Contains(r.Resources, sub)) &&
				(len(r.ResourceNames) == 0 || slices.Contains(r.ResourceNames, name)) {
				return true
			}
		}
	}
	return false
}

// apply does or undoes a step.
func (w *rbacWorld) apply(t *rapid.T, step remit.Step, undo bool) {
	switch {
	case step.Change == changeMakeRole || step.Change == changeMakeBinding:
		_, after, err := stepStates[struct{}, madeState]("", step)
		switch {
		case err != nil:
			t.Fatal(err)
		case undo:
			delete(w.roles, step.Object)
			delete(w.bindings, step.Object)
		case step.Change == changeMakeRole:
			w.roles[step.Object] = after.Rules
		default:
			role := remit.Ref{Kind: after.Role.Kind, Name: after.Role.Name}
			if role.Kind == "Role" {
				role.Namespace = step.Object.Namespace
			}
			w.bindings[step.Object] = rbacWorldBinding{role, after.Subjects}
		}
	default:
		before, after, err := stepStates[grantState, grantState]("", step)
		if err != nil {
			t.Fatal(err)
		}
		b := w.bindings[step.Object]
		if b.subjects = after.Subjects; undo {
			b.subjects = before.Subjects
		}
		w.bindings[step.Object] = b
	}
}

// TestReduceNeverTakesWhatWasUsed holds, for any roles and bindings and anything
// that was done by them, that between any two writes of the plan and of its
// undoing every right that was used is there, that the others of a binding keep
// theirs, that in the end nothing is allowed that was not before, and that undone
// all is as it was.
func TestReduceNeverTakesWhatWasUsed(t *testing.T) {
	verbs := []string{"get", "list", "watch", "create", "update", "delete", "bind", "escalate", "*"}
	resources := []string{"pods", "secrets", "pods/exec", "deployments.apps", "deployments/scale.apps", "roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io", "*/scale.apps", "*.apps", "*", "*.*"}
	names, namespaces := []string{"", "a", "b", "c"}, []string{"shop", "bank", "new", ""}
	some := func(t *rapid.T, from []string, label string) []string {
		return rapid.SliceOfNDistinct(rapid.SampledFrom(from), 1, 3, rapid.ID[string]).Draw(t, label)
	}
	other := remit.Ref{Kind: "ServiceAccount", Namespace: "shop", Name: "other"}
	type request struct{ verb, resource, namespace, name string }
	rapid.Check(t, func(t *rapid.T) {
		w := &rbacWorld{roles: map[remit.Ref][]rbacv1.PolicyRule{}, bindings: map[remit.Ref]rbacWorldBinding{}}
		roles := map[remit.Ref]ruledRole{}
		var own []*ownGrant
		all := map[remit.Ref]*ownGrant{}
		for i := range rapid.IntRange(1, 4).Draw(t, "bindings") {
			var rules []rbacv1.PolicyRule
			for range rapid.IntRange(0, 3).Draw(t, "rules") {
				var only []string
				if rapid.Bool().Draw(t, "with names") {
					only = some(t, names[1:], "names")
				}
				rules = append(rules, rule(strings.Join(some(t, verbs, "verbs"), " "), rapid.SampledFrom(resources).Draw(t, "resource"), only...))
			}
			role := remit.Ref{Kind: "ClusterRole", Name: fmt.Sprint("role-", i)}
			w.roles[role], roles[role] = rules, ruledRole{rules: rules}
			g := grantOf(rapid.SampledFrom(namespaces).Draw(t, "namespace"), rules...)
			g.Name, g.UID, g.role.Name = fmt.Sprint("binding-", i), "1", role.Name
			if rapid.Bool().Draw(t, "shared") {
				g.subjects = append([]rbacv1.Subject{bindingSubject(other)}, g.subjects...)
			}
			if rapid.IntRange(0, 5).Draw(t, "young") == 0 {
				g.left = "it is young"
			}
			w.bindings[g.ref()] = rbacWorldBinding{role, g.subjects}
			own, all[g.ref()] = append(own, g), g
		}
		concrete := slices.DeleteFunc(slices.Clone(resources), func(s string) bool { return strings.Contains(s, "*") })
		var may, used []request
		var usage []remit.Usage
		for _, verb := range verbs[:6] {
			for _, resource := range concrete {
				for _, namespace := range namespaces {
					for _, name := range names {
						if q := (request{verb, resource, namespace, name}); w.allows(reducee, verb, resource, namespace, name) {
							may = append(may, q)
						}
					}
				}
			}
		}
		if len(may) > 0 {
			for range rapid.IntRange(0, 6).Draw(t, "uses") {
				q := rapid.SampledFrom(may).Draw(t, "use")
				first := rapid.SampledFrom([]time.Time{longAgo, lately}).Draw(t, "first")
				u := did(q.verb, q.resource, q.namespace, q.name, first)
				u.Outcome = rapid.SampledFrom([]remit.Outcome{remit.Allowed, remit.Failed}).Draw(t, "outcome")
				if i := rapid.IntRange(0, len(own)).Draw(t, "binding"); i < len(own) {
					u.Binding = own[i].ref() // which may be another, or none, than allows it
				}
				used, usage = append(used, q), append(usage, u)
			}
		}
		before := &rbacWorld{roles: maps.Clone(w.roles), bindings: maps.Clone(w.bindings)}
		attribute(own, all, usage)
		changes := reduceAll(own, narrowing{most: rapid.IntRange(0, 3).Draw(t, "most"), settled: useUntil.Add(-30 * 24 * time.Hour)})
		planned, err := reduceSteps("", reducee, own, nil, changes, roles, &connector.Use{Since: useSince, Until: useUntil, Used: usage})
		if err != nil {
			t.Fatal(err)
		}
		check := func(when string) {
			for _, q := range used {
				if !w.allows(reducee, q.verb, q.resource, q.namespace, q.name) {
					t.Fatalf("%s: what was used is refused: %+v\n%+v", when, q, w)
				}
			}
			for _, verb := range verbs[:6] {
				for _, resource := range concrete {
					if ns := "shop"; w.allows(other, verb, resource, ns, "a") != before.allows(other, verb, resource, ns, "a") {
						t.Fatalf("%s: another subject of a binding may or may not %s %s", when, verb, resource)
					}
				}
			}
		}
		check("at first")
		for i, step := range planned.Steps {
			w.apply(t, step, false)
			check(fmt.Sprintf("after step %d of %d", i+1, len(planned.Steps)))
		}
		for _, verb := range verbs[:8] {
			for _, resource := range concrete {
				for _, namespace := range namespaces {
					for _, name := range names {
						if w.allows(reducee, verb, resource, namespace, name) && !before.allows(reducee, verb, resource, namespace, name) {
							t.Fatalf("it may now %s %s in %q named %q, which it might not", verb, resource, namespace, name)
						}
					}
				}
			}
		}
		for _, step := range planned.Steps {
			if step.Change != changeReplaceGrant {
				continue
			}
			_, after, err := stepStates[grantState, replacedState]("", step)
			if err != nil {
				t.Fatal(err)
			}
			for want, list := range map[bool][]access{true: after.Allowed, false: after.Denied} {
				for _, a := range list {
					if w.allows(reducee, a.Verb, resourceName(a.Group, a.Resource), a.Namespace, a.Name) != want {
						t.Fatalf("the review of %s would not be %v", a, want)
					}
				}
			}
		}
		for i, step := range slices.Backward(planned.Steps) {
			w.apply(t, step, true)
			check(fmt.Sprintf("after undoing step %d", i+1))
		}
		if fmt.Sprint(w) != fmt.Sprint(before) {
			t.Fatalf("undone it is\n%v, and was\n%v", w, before)
		}
	})
}
