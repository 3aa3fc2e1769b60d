package kubernetes

import (
	"testing"

	"remit"
)

// The names that count as Kubernetes' own are those that its API server makes,
// and no others.
func TestBuiltInNames(t *testing.T) {
	c := cleanCluster(t)
	records, _ := all(t, openFor(t, c.Admin, Config{}))
	roles, bindings := 0, 0
	for _, r := range records.Roles {
		if r.Labels["kubernetes.io/bootstrapping"] == "rbac-defaults" {
			roles++
			if !r.BuiltIn {
				t.Errorf("%s is Kubernetes' own and not marked", r.Ref)
			}
		}
	}
	for _, g := range records.Grants {
		if g.Labels["kubernetes.io/bootstrapping"] == "rbac-defaults" {
			bindings++
			if !g.BuiltIn {
				t.Errorf("%s for %s is Kubernetes' own and not marked", g.Ref, g.Subject)
			}
		}
	}
	if roles < 60 || bindings < 50 {
		t.Errorf("%d default roles and %d default grants: too few to mean anything", roles, bindings)
	}
	for _, id := range records.Identities {
		if id.Kind == "User" && !id.BuiltIn {
			t.Errorf("the user %s of an empty cluster is not marked", id.Name)
		}
	}
}

// What looks like the platform is not the platform.
func TestNotBuiltIn(t *testing.T) {
	const text = `
{kind: ServiceAccount, apiVersion: v1, metadata: {name: evil-controller, namespace: kube-system}}
---
{kind: ServiceAccount, apiVersion: v1, metadata: {name: replicaset-controller, namespace: default}}
---
{kind: ClusterRole, apiVersion: rbac.authorization.k8s.io/v1, metadata: {name: "system:evil", labels: {kubernetes.io/bootstrapping: rbac-defaults}}, rules: [{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}]}
---
{kind: ClusterRole, apiVersion: rbac.authorization.k8s.io/v1, metadata: {name: "system:basic-user", managedFields: [{manager: kubectl-edit, operation: Update}]}, rules: [{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}]}
---
{kind: ClusterRoleBinding, apiVersion: rbac.authorization.k8s.io/v1, metadata: {name: "system:evil", labels: {kubernetes.io/bootstrapping: rbac-defaults}}, roleRef: {kind: ClusterRole, name: "system:evil"}, subjects: [{kind: User, name: "system:evil"}]}
---
{kind: ClusterRoleBinding, apiVersion: rbac.authorization.k8s.io/v1, metadata: {name: cluster-admin}, roleRef: {kind: ClusterRole, name: cluster-admin}, subjects: [{kind: Group, name: "system:masters"}, {kind: ServiceAccount, name: evil-controller, namespace: kube-system}]}
---
{kind: ClusterRoleBinding, apiVersion: rbac.authorization.k8s.io/v1, metadata: {name: mine}, roleRef: {kind: ClusterRole, name: cluster-admin}, subjects: [{kind: Group, name: "system:masters"}]}
`
	records, _, _ := read(t, manifests(text), Config{})
	for _, id := range records.Identities {
		if id.BuiltIn && (id.Name == "evil-controller" || id.Name == "system:evil" || id.Namespace == "default") {
			t.Errorf("%s counts as Kubernetes' own", id.Ref)
		}
	}
	for _, r := range records.Roles {
		if r.BuiltIn && r.Name != "cluster-admin" {
			t.Errorf("the role %s counts as Kubernetes' own", r.Name)
		}
	}
	own := 0
	for _, g := range records.Grants {
		if !g.BuiltIn {
			continue
		}
		own++
		if g.Name != "cluster-admin" || g.Subject != (remit.Ref{Kind: "Group", Name: "system:masters"}) {
			t.Errorf("the grant %s to %s counts as Kubernetes' own", g.Ref, g.Subject)
		}
	}
	if own != 1 {
		t.Errorf("%d grants count as Kubernetes' own, want the one to system:masters", own)
	}
}
