package kubernetes

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"remit"
)

// canActAs reads a role and its binding, with a few accounts around, and returns
// whom its holder can act as.
func canActAs(t *testing.T, cluster bool, rules string) []string {
	t.Helper()
	kind, meta := "Role", "{name: r, namespace: prod}"
	if cluster {
		kind, meta = "ClusterRole", "{name: r}"
	}
	text := fmt.Sprintf(`
kind: Namespace
apiVersion: v1
metadata: {name: prod}
---
{kind: ServiceAccount, apiVersion: v1, metadata: {name: default, namespace: prod}}
---
{kind: ServiceAccount, apiVersion: v1, metadata: {name: one, namespace: prod}}
---
{kind: ServiceAccount, apiVersion: v1, metadata: {name: one, namespace: dev}}
---
{kind: ServiceAccount, apiVersion: v1, metadata: {name: two, namespace: prod}}
---
{kind: Secret, apiVersion: v1, type: kubernetes.io/service-account-token, metadata: {name: one-token, namespace: prod, annotations: {kubernetes.io/service-account.name: one}}, data: {token: eA==}}
---
{kind: Pod, apiVersion: v1, metadata: {name: web, namespace: prod}, spec: {serviceAccountName: two, containers: [{name: c, image: i}]}}
---
{kind: ClusterRole, apiVersion: rbac.authorization.k8s.io/v1, metadata: {name: reader}, rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]}
---
{kind: %[1]s, apiVersion: rbac.authorization.k8s.io/v1, metadata: %[2]s, rules: [%[3]s]}
---
{kind: %[1]sBinding, apiVersion: rbac.authorization.k8s.io/v1, metadata: %[2]s, roleRef: {kind: %[1]s, name: r}, subjects: [{kind: User, name: u}]}
`, kind, meta, rules)
	records, gaps, _ := read(t, manifests(text), Config{})
	if len(gaps) > 0 {
		t.Fatalf("gaps: %+v", gaps)
	}
	var out []string
	for _, r := range records.Relations {
		if r.Type != remit.CanActAs || r.FromRef.Name != "u" {
			continue
		}
		to := r.ToRef.Name
		if r.ToRef.Namespace != "" {
			to = r.ToRef.Namespace + "/" + to
		}
		out = append(out, string(r.Right)+" "+strings.Replace(to, "system:serviceaccounts", "accounts", 1))
		if cluster != (r.Scope == "") || r.Via == "" {
			t.Errorf("relation %+v has a wrong scope or no grant", r)
		}
	}
	slices.Sort(out)
	return out
}

func TestCanActAs(t *testing.T) {
	for _, test := range []struct {
		name    string
		cluster bool
		rules   string
		want    []string
	}{
		{"nothing", true, `{apiGroups: [""], resources: [pods, configmaps], verbs: [get, list]}`, nil},
		{"tokens of all accounts", true, `{apiGroups: [""], resources: [serviceaccounts/token], verbs: [create]}`, []string{"mint-token accounts"}},
		{"tokens of a namespace", false, `{apiGroups: [""], resources: [serviceaccounts/token], verbs: [create]}`, []string{"mint-token accounts:prod"}},
		{"tokens of one account", false, `{apiGroups: [""], resources: [serviceaccounts/token], resourceNames: [one], verbs: [create]}`, []string{"mint-token prod/one"}},
		{"tokens of a name anywhere", true, `{apiGroups: [""], resources: [serviceaccounts/token], resourceNames: [one], verbs: [create]}`, []string{"mint-token dev/one", "mint-token prod/one"}},
		{"tokens of nobody there is", false, `{apiGroups: [""], resources: [serviceaccounts/token], resourceNames: [gone], verbs: [create]}`, nil},
		{"a subresource of all", false, `{apiGroups: [""], resources: ["*/token"], verbs: [create]}`, []string{"mint-token accounts:prod"}},
		{"only the accounts, not their tokens", false, `{apiGroups: [""], resources: [serviceaccounts], verbs: [create]}`, nil},
		{"exec", false, `{apiGroups: [""], resources: [pods/exec], verbs: [create]}`, []string{"exec accounts:prod"}},
		{"exec by get, over a web socket", false, `{apiGroups: [""], resources: [pods/exec], verbs: [get]}`, []string{"exec accounts:prod"}},
		{"attach", true, `{apiGroups: [""], resources: [pods/attach], verbs: [create]}`, []string{"exec accounts"}},
		{"exec into one pod", false, `{apiGroups: [""], resources: [pods/exec], resourceNames: [web], verbs: [create]}`, []string{"exec prod/two"}},
		{"another image for a pod", false, `{apiGroups: [""], resources: [pods], verbs: [patch]}`, []string{"exec accounts:prod"}},
		{"ephemeral containers", false, `{apiGroups: [""], resources: [pods/ephemeralcontainers], verbs: [update]}`, []string{"exec accounts:prod"}},
		{"create pods", true, `{apiGroups: [""], resources: [pods], verbs: [create]}`, []string{"create-workload accounts"}},
		{"create with names never matches", false, `{apiGroups: [""], resources: [pods], resourceNames: [web], verbs: [create]}`, nil},
		{"create cron jobs", false, `{apiGroups: [batch], resources: [cronjobs], verbs: [create]}`, []string{"create-workload accounts:prod"}},
		{"change one deployment", false, `{apiGroups: [apps], resources: [deployments], resourceNames: [x], verbs: [patch]}`, []string{"create-workload accounts:prod"}},
		{"scale only", false, `{apiGroups: [apps], resources: [deployments/scale], verbs: [patch]}`, nil},
		{"deployments of the wrong group", false, `{apiGroups: [""], resources: [deployments], verbs: [create]}`, nil},
		{"read secrets", true, `{apiGroups: [""], resources: [secrets], verbs: [list]}`, []string{"read-secrets accounts"}},
		{"read one secret", false, `{apiGroups: [""], resources: [secrets], resourceNames: [one-token], verbs: [get]}`, []string{"read-secrets prod/one"}},
		{"read a secret of a name anywhere", true, `{apiGroups: [""], resources: [secrets], resourceNames: [one-token], verbs: [watch]}`, []string{"read-secrets prod/one"}},
		{"impersonate groups", true, `{apiGroups: [""], resources: [groups], verbs: [impersonate]}`, []string{"impersonate system:masters"}},
		{"impersonate users", true, `{apiGroups: [""], resources: [users], verbs: [impersonate]}`, []string{"impersonate system:authenticated"}},
		{"impersonate one user", true, `{apiGroups: [""], resources: [users], resourceNames: [bob, "system:serviceaccount:prod:one", "system:node:n1"], verbs: [impersonate]}`, []string{"impersonate bob", "impersonate n1", "impersonate prod/one"}},
		{"users are in no namespace", false, `{apiGroups: [""], resources: [users, groups], verbs: [impersonate]}`, nil},
		{"impersonate accounts of a namespace", false, `{apiGroups: [""], resources: [serviceaccounts], verbs: [impersonate]}`, []string{"impersonate accounts:prod"}},
		{"a uid alone names nobody", true, `{apiGroups: [authentication.k8s.io], resources: [uids, "userextras/scopes"], verbs: [impersonate]}`, nil},
		{"bind", true, `{apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], verbs: [bind]}`, []string{"bind system:masters"}},
		{"bind in a namespace", false, `{apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], verbs: [bind]}`, []string{"bind accounts:prod"}},
		{"bind a harmless role", true, `{apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], resourceNames: [reader], verbs: [bind]}`, nil},
		{"bind cluster-admin", false, `{apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], resourceNames: [cluster-admin], verbs: [bind]}`, []string{"bind accounts:prod"}},
		{"escalate", true, `{apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], resourceNames: [x], verbs: [escalate]}`, []string{"escalate system:masters"}},
		{"write bindings: the server lets nobody give what he has not", true, `{apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles, clusterrolebindings], verbs: [create, update, patch]}`, nil},
		{"kubelets", true, `{apiGroups: [""], resources: [nodes/proxy], verbs: [get]}`, []string{"node-proxy accounts"}},
		{"nodes are in no namespace", false, `{apiGroups: [""], resources: [nodes/proxy], verbs: [get]}`, nil},
		{"approve and any signer", true, `{apiGroups: [certificates.k8s.io], resources: [certificatesigningrequests/approval], verbs: [update]}, {apiGroups: [certificates.k8s.io], resources: [signers], verbs: [approve]}`, []string{"sign-certificate system:masters"}},
		{"approve for nodes", true, `{apiGroups: [certificates.k8s.io], resources: [certificatesigningrequests/approval], verbs: [update]}, {apiGroups: [certificates.k8s.io], resources: [signers], resourceNames: [kubernetes.io/kube-apiserver-client-kubelet], verbs: [approve]}`, []string{"sign-certificate system:nodes"}},
		{"approve without a signer", true, `{apiGroups: [certificates.k8s.io], resources: [certificatesigningrequests/approval], verbs: [update]}`, nil},
		{"everything in a namespace", false, `{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}`, []string{
			"bind accounts:prod", "create-workload accounts:prod", "escalate accounts:prod", "exec accounts:prod",
			"impersonate accounts:prod", "mint-token accounts:prod", "read-secrets accounts:prod",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := canActAs(t, test.cluster, test.rules); !slices.Equal(got, test.want) {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

// Approval and signer may come from two roles.
func TestApprovalFromTwoRoles(t *testing.T) {
	const text = `
{kind: ClusterRole, apiVersion: rbac.authorization.k8s.io/v1, metadata: {name: a}, rules: [{apiGroups: [certificates.k8s.io], resources: [certificatesigningrequests/approval], verbs: [update]}]}
---
{kind: ClusterRole, apiVersion: rbac.authorization.k8s.io/v1, metadata: {name: b}, rules: [{apiGroups: [certificates.k8s.io], resources: [signers], verbs: [approve]}]}
---
{kind: ClusterRoleBinding, apiVersion: rbac.authorization.k8s.io/v1, metadata: {name: a}, roleRef: {kind: ClusterRole, name: a}, subjects: [{kind: User, name: u}]}
---
{kind: ClusterRoleBinding, apiVersion: rbac.authorization.k8s.io/v1, metadata: {name: b}, roleRef: {kind: ClusterRole, name: b}, subjects: [{kind: User, name: u}]}
`
	records, _, _ := read(t, manifests(text), Config{})
	for _, r := range records.Relations {
		if r.Right == remit.SignCert {
			return
		}
	}
	t.Error("the two rights together are not seen")
}
