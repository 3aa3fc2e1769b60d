package kubernetes

import (
	_ "embed"
	"strings"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"remit"
)

// What Kubernetes itself brings is known by name, from its own bootstrap policy
// (k8s.io/kubernetes v1.36.3, plugin/pkg/auth/authorizer/rbac/bootstrappolicy),
// and never by a label, a prefix or a namespace alone: those an attacker
// chooses freely to look like the platform. A name that a later version adds is
// shown as the user's until it is added here, which is the harmless mistake.

// builtInAccounts are the accounts of kube-system under which the controller
// manager runs its controllers.
var builtInAccounts = words(`
	attachdetach-controller bootstrap-signer certificate-controller clusterrole-aggregation-controller
	cronjob-controller daemon-set-controller deployment-controller device-taint-eviction-controller
	disruption-controller endpoint-controller endpointslice-controller endpointslicemirroring-controller
	ephemeral-volume-controller expand-controller generic-garbage-collector horizontal-pod-autoscaler
	job-controller legacy-service-account-token-cleaner namespace-controller node-controller
	persistent-volume-binder pod-garbage-collector pv-protection-controller pvc-protection-controller
	replicaset-controller replication-controller resource-claim-controller resourcequota-controller
	root-ca-cert-publisher route-controller selinux-warning-controller service-account-controller
	service-cidrs-controller service-controller statefulset-controller token-cleaner
	ttl-after-finished-controller ttl-controller validatingadmissionpolicy-status-controller
	volumeattributesclass-protection-controller cloud-provider kube-controller-manager kube-scheduler leader-election-controller
	kube-dns leader-election-controller storage-version-migrator-controller storage-version-garbage-collector
	podcertificaterequestcleaner kube-apiserver-serving-clustertrustbundle-publisher`)

var builtInUsers = words(`
	system:anonymous system:apiserver system:kube-controller-manager system:kube-scheduler
	system:kube-proxy system:kube-aggregator system:aggregator`)

var builtInGroups = words(`
	system:masters system:authenticated system:unauthenticated system:serviceaccounts system:nodes
	system:monitoring system:bootstrappers`)

var builtInClusterRoles = words(`
	admin cluster-admin edit view
	system:aggregate-to-admin system:aggregate-to-edit system:aggregate-to-view system:auth-delegator
	system:basic-user system:certificates.k8s.io:certificatesigningrequests:nodeclient
	system:certificates.k8s.io:certificatesigningrequests:selfnodeclient
	system:certificates.k8s.io:kube-apiserver-client-approver
	system:certificates.k8s.io:kube-apiserver-client-kubelet-approver
	system:certificates.k8s.io:kubelet-serving-approver system:certificates.k8s.io:legacy-unknown-approver
	system:cluster-trust-bundle-discovery system:discovery system:heapster system:kube-aggregator
	system:kube-controller-manager system:kube-dns system:kube-scheduler system:kubelet-api-admin
	system:monitoring system:node system:node-bootstrapper system:node-problem-detector
	system:node-proxier system:persistent-volume-provisioner system:public-info-viewer
	system:service-account-issuer-discovery system:volume-scheduler`)

var builtInRoles = words(`
	kube-public/system:controller:bootstrap-signer kube-system/extension-apiserver-authentication-reader
	kube-system/system::leader-locking-kube-controller-manager
	kube-system/system::leader-locking-kube-scheduler kube-system/system:controller:bootstrap-signer
	kube-system/system:controller:cloud-provider kube-system/system:controller:token-cleaner`)

func words(s string) map[string]bool { return setOf(strings.Fields(s)) }

func builtInAccount(ref remit.Ref) bool {
	return ref.Namespace == "kube-system" && builtInAccounts[ref.Name]
}

func builtInUser(name string) bool { return builtInUsers[name] }

func builtInGroup(name string) bool {
	return builtInGroups[name] || strings.HasPrefix(name, groupAccounts+":")
}

func builtInSubject(ref remit.Ref) bool {
	switch ref.Kind {
	case "ServiceAccount":
		return builtInAccount(ref)
	case "User":
		return builtInUser(ref.Name)
	case "Group":
		return builtInGroups[ref.Name]
	}
	return false
}

// builtInRole says whether a role is Kubernetes' own and nobody else has
// written to it, as far as its field managers tell.
func builtInRole(ref remit.Ref, o *object) bool {
	return builtInRoleName(ref) && !o.meta.foreign
}

func builtInRoleName(ref remit.Ref) bool {
	if ref.Kind == "Role" {
		return builtInRoles[ref.Namespace+"/"+ref.Name]
	}
	if controller, ok := strings.CutPrefix(ref.Name, "system:controller:"); ok {
		return ref.Kind == "ClusterRole" && builtInAccounts[controller]
	}
	return ref.Kind == "ClusterRole" && builtInClusterRoles[ref.Name]
}

// builtInBinding says whether a binding is one of Kubernetes' own, by its name
// and the role that it gives: they have the same name, but for one pair. Whom
// it gives it to is the caller's to check, for subjects can be added.
func builtInBinding(ref, role remit.Ref) bool {
	if !builtInRoleName(role) || (ref.Kind == "RoleBinding") != (role.Kind == "Role") {
		return false
	}
	return ref.Name == role.Name || ref.Name == "system::"+role.Name
}

//go:embed defaultroles.yaml
var defaultRolesYAML []byte

// defaultRoles are the four roles for users that every cluster has and that
// files hardly ever hold: what a binding in a manifest gives would be unknown
// without them.
var defaultRoles = sync.OnceValue(func() map[string]*object {
	var list rbacv1.ClusterRoleList
	if err := yaml.UnmarshalStrict(defaultRolesYAML, &list); err != nil {
		panic("the embedded defaultroles.yaml cannot be read: " + err.Error()) // a test reads it
	}
	roles := map[string]*object{}
	for _, r := range list.Items {
		body := (&reducer{}).role(r.Rules, nil)
		body.assumed = true
		roles[r.Name] = &object{ref: remit.Ref{Kind: "ClusterRole", Name: r.Name}, body: body}
	}
	return roles
})
