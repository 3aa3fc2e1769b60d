package policy

import (
	"testing"

	"pgregory.net/rapid"

	"remit"
)

func allow(actions, resources string, names ...string) remit.Permission {
	return remit.Permission{Actions: commas(actions), Resources: commas(resources), Names: names}
}

func TestAllows(t *testing.T) {
	deny := allow("get", "secrets")
	deny.Deny = true
	conditional := deny
	conditional.Condition = "on Sundays"
	for _, test := range []struct {
		permissions            []remit.Permission
		action, resource, name string
		want                   bool
	}{
		{[]remit.Permission{allow("get", "secrets")}, "get", "secrets", "", true},
		{[]remit.Permission{allow("get", "secrets")}, "list", "secrets", "", false},
		{[]remit.Permission{allow("get", "secrets")}, "get", "secrets.example.com", "", false},
		{[]remit.Permission{allow("*", "secrets")}, "get", "secrets", "", true},
		{[]remit.Permission{allow("*", "secrets")}, "*", "secrets", "", true},
		{[]remit.Permission{allow("get", "secrets")}, "*", "secrets", "", false},
		// "*" is the core group, "*.*" everything.
		{[]remit.Permission{allow("get", "*")}, "get", "secrets", "", true},
		{[]remit.Permission{allow("get", "*")}, "get", "deployments.apps", "", false},
		{[]remit.Permission{allow("get", "*.*")}, "get", "deployments.apps", "", true},
		{[]remit.Permission{allow("get", "*.*")}, "get", "secrets", "", true},
		{[]remit.Permission{allow("get", "*.apps")}, "get", "deployments.apps", "", true},
		{[]remit.Permission{allow("get", "*.apps")}, "get", "jobs.batch", "", false},
		{[]remit.Permission{allow("*", "*.apps")}, "*", "*.*", "", false},
		{[]remit.Permission{allow("*", "*")}, "*", "*.*", "", false},
		{[]remit.Permission{allow("get", "secrets.*")}, "get", "secrets", "", true},
		// A resource is not its subresources; "*" as the resource is.
		{[]remit.Permission{allow("create", "pods")}, "create", "pods/exec", "", false},
		{[]remit.Permission{allow("create", "pods/exec")}, "create", "pods", "", false},
		{[]remit.Permission{allow("create", "pods/*")}, "create", "pods/exec", "", true},
		{[]remit.Permission{allow("create", "pods/*")}, "create", "pods", "", false},
		{[]remit.Permission{allow("create", "*/exec")}, "create", "pods/exec", "", true},
		{[]remit.Permission{allow("create", "*")}, "create", "pods/exec", "", true},
		{[]remit.Permission{allow("create", "*.*")}, "create", "pods/exec", "", true},
		// The group may stand before or behind the subresource.
		{[]remit.Permission{allow("update", "deployments.apps/scale")}, "update", "deployments/scale.apps", "", true},
		{[]remit.Permission{allow("update", "certificatesigningrequests/approval.certificates.k8s.io")}, "update", "certificatesigningrequests.certificates.k8s.io/approval", "", true},
		// Names.
		{[]remit.Permission{allow("get", "secrets", "one")}, "get", "secrets", "", false},
		{[]remit.Permission{allow("get", "secrets", "one")}, "get", "secrets", "one", true},
		{[]remit.Permission{allow("get", "secrets", "one")}, "get", "secrets", "two", false},
		{[]remit.Permission{allow("get", "secrets")}, "get", "secrets", "two", true},
		// URLs are no resources.
		{[]remit.Permission{allow("get", "*.*")}, "get", "/metrics", "", false},
		{[]remit.Permission{allow("get", "/metrics")}, "get", "/metrics", "", true},
		{[]remit.Permission{allow("get", "/api*")}, "get", "/apis/apps", "", true},
		{[]remit.Permission{allow("get", "/*")}, "get", "secrets", "", false},
		// Denials.
		{[]remit.Permission{allow("get", "*.*"), deny}, "get", "secrets", "", false},
		{[]remit.Permission{deny, allow("get", "*.*")}, "get", "secrets", "", false},
		{[]remit.Permission{allow("get", "*.*"), deny}, "get", "pods", "", true},
		{[]remit.Permission{allow("get", "*.*"), conditional}, "get", "secrets", "", true},
		// Other systems' actions.
		{[]remit.Permission{allow("s3:Get*", "bucket")}, "s3:GetObject", "bucket", "", true},
		{[]remit.Permission{allow("s3:Get*", "bucket")}, "s3:PutObject", "bucket", "", false},
		{nil, "get", "secrets", "", false},
	} {
		p := newPermissions(test.permissions)
		for range 2 { // the second time from memory
			if got := p.allows(test.action, test.resource, test.name); got != test.want {
				t.Errorf("%v allows %s on %s %q: %v", test.permissions, test.action, test.resource, test.name, got)
			}
		}
	}
}

func TestWrites(t *testing.T) {
	for _, test := range []struct {
		p    remit.Permission
		want bool
	}{
		{allow("get, list, watch", "*.*"), false},
		{allow("*", "configmaps"), true},
		{allow("get, patch", "configmaps"), true},
		{allow("create", "selfsubjectaccessreviews.authorization.k8s.io"), false},
		{allow("create, update", "leases.coordination.k8s.io, events"), false},
		{allow("create", "leases.coordination.k8s.io, pods"), true},
		{allow("s3:GetObject, s3:ListBucket", "b"), false},
		{allow("s3:PutObject", "b"), true},
		{allow("SELECT", "t"), false},
		{allow("impersonate", "users"), true},
		{allow("get", "/metrics"), false},
	} {
		if got := newPermissions([]remit.Permission{test.p}).writes(); got != test.want {
			t.Errorf("%v writes: %v", test.p, got)
		}
	}
}

var (
	drawResource = rapid.Custom(func(t *rapid.T) string {
		s := rapid.SampledFrom([]string{"*", "pods", "secrets", "deployments"}).Draw(t, "resource")
		s += rapid.SampledFrom([]string{"", "", ".*", ".apps", ".example.com"}).Draw(t, "group")
		return s + rapid.SampledFrom([]string{"", "", "/*", "/exec", "/scale"}).Draw(t, "sub")
	})
	drawAction     = rapid.SampledFrom([]string{"*", "get", "list", "create", "update"})
	drawPermission = rapid.Custom(func(t *rapid.T) remit.Permission {
		return remit.Permission{
			Actions:   rapid.SliceOfN(drawAction, 1, 2).Draw(t, "actions"),
			Resources: rapid.SliceOfN(drawResource, 1, 2).Draw(t, "resources"),
			Names:     rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b"}), 0, 1).Draw(t, "names"),
		}
	})
)

func TestAllowsProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		some := rapid.SliceOfN(drawPermission, 0, 3).Draw(t, "some")
		more := rapid.SliceOfN(drawPermission, 0, 3).Draw(t, "more")
		action, resource := drawAction.Draw(t, "action"), drawResource.Draw(t, "resource")
		name := rapid.SampledFrom([]string{"", "a", "c"}).Draw(t, "name")
		ask := func(all []remit.Permission, action, resource, name string) bool {
			return newPermissions(all).allows(action, resource, name)
		}
		got := ask(some, action, resource, name)
		if got && !ask(append(append([]remit.Permission{}, more...), some...), action, resource, name) {
			t.Fatal("more permissions allow less")
		}
		if !ask([]remit.Permission{allow("*", "*.*")}, action, resource, name) {
			t.Fatal("everything does not allow this")
		}
		if ask(some, action, resource, "") && !ask(some, action, resource, name) {
			t.Fatal("what is allowed on all is not allowed on one")
		}
		if !ask([]remit.Permission{allow(action, resource)}, action, resource, name) {
			t.Fatal("a permission does not allow itself")
		}
		if ask(some, "*", resource, name) && !ask(some, action, resource, name) {
			t.Fatal("all actions do not allow this one")
		}
		if ask(some, action, "*.*", name) && !ask(some, action, resource, name) {
			t.Fatal("all resources do not allow this one")
		}
		denied := append([]remit.Permission{{Actions: []string{"*"}, Resources: []string{"*.*"}, Deny: true}}, some...)
		if ask(denied, action, resource, name) {
			t.Fatal("a denial of everything allows this")
		}
	})
}

// TestCoversIsTransitive: what covers something covers all that it covers.
func TestCoversIsTransitive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := parseResource(drawResource.Draw(t, "a")), parseResource(drawResource.Draw(t, "b")), parseResource(drawResource.Draw(t, "c"))
		if a.covers(b) && b.covers(c) && !a.covers(c) {
			t.Fatalf("%s covers %s, which covers %s, which the first does not", a.whole, b.whole, c.whole)
		}
	})
}

func TestGlob(t *testing.T) {
	for _, test := range []struct {
		pattern, s string
		want       bool
	}{
		{"a", "a", true},
		{"a", "ab", false},
		{"a*", "ab", true},
		{"*b", "ab", true},
		{"*", "", true},
		{"a*b*c", "aXbYc", true},
		{"a*b*c", "aXcYb", false},
		{"ab*ba", "aba", false},
		{"**", "x", true},
		{"team-*", "team-", true},
	} {
		if got := glob(test.pattern, test.s); got != test.want {
			t.Errorf("glob(%q, %q) = %v", test.pattern, test.s, got)
		}
	}
}
