package kubernetes

import (
	"slices"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"remit/connector"
)

// listing is one collection of the API server: what a request lists and
// watches. Its name is also the name of the section that it fills.
type listing struct {
	group, version, resource string
	kind                     string // the word in Ref.Kind
	namespaced               bool
	finds                    string

	// newObject makes the typed object to decode into.
	newObject func() runtime.Object

	// bulky says that single objects may be large in quantity, so that pages
	// of them have to be short.
	bulky bool

	// metadataOnly asks for PartialObjectMetadata; fieldSelector restricts.
	metadataOnly  bool
	fieldSelector string
	secretType    string // of a metadata listing: all its objects are of this type

	// custom marks resources that an agent rule named.
	custom bool
}

// section is the name under which the listing's records are handed over.
func (l *listing) section() string {
	if l.custom {
		return sectionAgents
	}
	return l.resource
}

// id tells listings apart that share a section.
func (l *listing) id() string {
	return l.resource + "." + l.group + "?" + l.fieldSelector
}

func (l *listing) groupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: l.group, Version: l.version}
}

// The sections whose records are drawn from several listings.
const (
	sectionSubjects = "subjects" // users, groups, accounts that are only named
	sectionAccess   = "access"   // who can act as whom
	sectionAgents   = "agents"   // custom resources
	sectionFiles    = "files"    // documents that could not be read
)

// listings are all collections read, in the order in which they are listed:
// controllers before what they control, so that a pod whose controller is known
// needs no description of its own.
var listings = []*listing{
	{version: "v1", resource: "namespaces", kind: "Namespace", newObject: newObject[corev1.Namespace], finds: "namespaces, with owners and environment for what lies in them"},
	{version: "v1", resource: "nodes", kind: "Node", newObject: newObject[corev1.Node], finds: "nodes, each an identity of its own"},
	{version: "v1", resource: "serviceaccounts", kind: "ServiceAccount", namespaced: true, newObject: newObject[corev1.ServiceAccount], finds: "service accounts and their federation with clouds"},
	{group: "apps", version: "v1", resource: "deployments", kind: "Deployment", namespaced: true, newObject: newObject[appsv1.Deployment], finds: "workloads, their projected tokens and keys in environment variables"},
	{group: "apps", version: "v1", resource: "statefulsets", kind: "StatefulSet", namespaced: true, newObject: newObject[appsv1.StatefulSet], finds: "workloads, their projected tokens and keys in environment variables"},
	{group: "apps", version: "v1", resource: "daemonsets", kind: "DaemonSet", namespaced: true, newObject: newObject[appsv1.DaemonSet], finds: "workloads, their projected tokens and keys in environment variables"},
	{group: "batch", version: "v1", resource: "cronjobs", kind: "CronJob", namespaced: true, newObject: newObject[batchv1.CronJob], finds: "workloads, their projected tokens and keys in environment variables"},
	{version: "v1", resource: "replicationcontrollers", kind: "ReplicationController", namespaced: true, newObject: newObject[corev1.ReplicationController], finds: "workloads, their projected tokens and keys in environment variables"},
	{group: "apps", version: "v1", resource: "replicasets", kind: "ReplicaSet", namespaced: true, newObject: newObject[appsv1.ReplicaSet], finds: "workloads, and whose pods are whose"},
	{group: "batch", version: "v1", resource: "jobs", kind: "Job", namespaced: true, newObject: newObject[batchv1.Job], finds: "workloads, and whose pods are whose"},
	{version: "v1", resource: "pods", kind: "Pod", namespaced: true, newObject: newObject[corev1.Pod], finds: "pods without a controller, controllers of unknown kinds, API server flags"},
	{group: rbacv1.GroupName, version: "v1", resource: "clusterroles", kind: "ClusterRole", newObject: newObject[rbacv1.ClusterRole], finds: "roles"},
	{group: rbacv1.GroupName, version: "v1", resource: "roles", kind: "Role", namespaced: true, newObject: newObject[rbacv1.Role], finds: "roles"},
	{group: rbacv1.GroupName, version: "v1", resource: "clusterrolebindings", kind: "ClusterRoleBinding", newObject: newObject[rbacv1.ClusterRoleBinding], finds: "grants; the users and groups that they name"},
	{group: rbacv1.GroupName, version: "v1", resource: "rolebindings", kind: "RoleBinding", namespaced: true, newObject: newObject[rbacv1.RoleBinding], finds: "grants; the users and groups that they name"},
	{group: certificatesv1.GroupName, version: "v1", resource: "certificatesigningrequests", kind: "CertificateSigningRequest", newObject: newObject[certificatesv1.CertificateSigningRequest], finds: "certificates asked for and issued"},
	{group: admissionv1.GroupName, version: "v1", resource: "validatingwebhookconfigurations", kind: "ValidatingWebhookConfiguration", newObject: newObject[admissionv1.ValidatingWebhookConfiguration], finds: "applications that see requests to the API server"},
	{group: admissionv1.GroupName, version: "v1", resource: "mutatingwebhookconfigurations", kind: "MutatingWebhookConfiguration", newObject: newObject[admissionv1.MutatingWebhookConfiguration], finds: "applications that change requests to the API server"},
	{group: "apiregistration.k8s.io", version: "v1", resource: "apiservices", kind: "APIService", newObject: newObject[apiService], finds: "applications that answer for a part of the API"},
	{version: "v1", resource: "configmaps", kind: "ConfigMap", namespaced: true, newObject: newObject[corev1.ConfigMap], bulky: true, finds: "credentials that lie in ConfigMaps"},
	{version: "v1", resource: "secrets", kind: "Secret", namespaced: true, newObject: newObject[corev1.Secret], bulky: true, finds: "credentials: tokens, certificates, keys and passwords"},
}

func newObject[T any, P interface {
	*T
	runtime.Object
}]() runtime.Object {
	return P(new(T))
}

// listTypes are the lists to decode pages into, by kind. What is not here is
// read as JSON.
var listTypes = map[string]func() runtime.Object{
	"Namespace":                      newObject[corev1.NamespaceList],
	"Node":                           newObject[corev1.NodeList],
	"ServiceAccount":                 newObject[corev1.ServiceAccountList],
	"Secret":                         newObject[corev1.SecretList],
	"ConfigMap":                      newObject[corev1.ConfigMapList],
	"Pod":                            newObject[corev1.PodList],
	"ReplicationController":          newObject[corev1.ReplicationControllerList],
	"Deployment":                     newObject[appsv1.DeploymentList],
	"StatefulSet":                    newObject[appsv1.StatefulSetList],
	"DaemonSet":                      newObject[appsv1.DaemonSetList],
	"ReplicaSet":                     newObject[appsv1.ReplicaSetList],
	"Job":                            newObject[batchv1.JobList],
	"CronJob":                        newObject[batchv1.CronJobList],
	"Role":                           newObject[rbacv1.RoleList],
	"ClusterRole":                    newObject[rbacv1.ClusterRoleList],
	"RoleBinding":                    newObject[rbacv1.RoleBindingList],
	"ClusterRoleBinding":             newObject[rbacv1.ClusterRoleBindingList],
	"CertificateSigningRequest":      newObject[certificatesv1.CertificateSigningRequestList],
	"ValidatingWebhookConfiguration": newObject[admissionv1.ValidatingWebhookConfigurationList],
	"MutatingWebhookConfiguration":   newObject[admissionv1.MutatingWebhookConfigurationList],
}

// listingOf finds a listing by the kind of its objects.
var listingOf = func() map[string]*listing {
	m := map[string]*listing{}
	for _, l := range listings {
		m[l.kind] = l
	}
	return m
}()

// derived are the sections that are drawn from several listings, with those
// listings: only when all of them were listed completely is it known what a
// derived section does not hold.
var derived = map[string][]string{
	"pods":          {"pods", "replicasets", "jobs", "deployments", "statefulsets", "daemonsets", "cronjobs", "replicationcontrollers"},
	"replicasets":   {"replicasets"},
	sectionSubjects: {"serviceaccounts", "nodes", "rolebindings", "clusterrolebindings", "certificatesigningrequests", "secrets", "configmaps", "pods", "replicasets", "jobs", "deployments", "statefulsets", "daemonsets", "cronjobs", "replicationcontrollers"},
	sectionAccess:   {"clusterroles", "roles", "clusterrolebindings", "rolebindings", "serviceaccounts", "secrets", "pods"},
}

// inputs are the listings that a section is drawn from.
func inputs(section string) []string {
	if in, ok := derived[section]; ok {
		return in
	}
	return []string{section}
}

// sectionOrder is the order in which sections are handed over: what others
// refer to comes first.
var sectionOrder = func() []string {
	order := make([]string, 0, len(listings)+4)
	for _, l := range listings {
		order = append(order, l.resource)
	}
	return append(order, sectionAgents, sectionSubjects, sectionAccess, sectionFiles)
}()

// sectionRank orders sections; unknown ones come last.
func sectionRank(section string) int {
	if i := slices.Index(sectionOrder, section); i >= 0 {
		return i
	}
	return len(sectionOrder)
}

// rule is the RBAC rule that a listing needs, as it is written in a role.
func (l *listing) rule() string {
	group := l.group
	return `{apiGroups: ["` + group + `"], resources: ["` + l.resource + `"], verbs: ["list", "watch"]}`
}

// describeSections lists the sections for [Connector.Describe].
func describeSections() []connector.Section {
	sections := make([]connector.Section, 0, len(sectionOrder))
	for _, l := range listings {
		sections = append(sections, connector.Section{Name: l.resource, Finds: l.finds, Needs: l.rule()})
	}
	return append(
		sections,
		connector.Section{Name: sectionAgents, Finds: "AI agents that are custom resources", Needs: "list and watch on the custom resources that agent rules name, where they are installed"},
		connector.Section{Name: sectionSubjects, Finds: "users, groups and accounts that bindings, workloads and certificates name", Needs: "the listings that name them"},
		connector.Section{Name: sectionAccess, Finds: "who can act as whom, and by what right", Needs: "the listings of roles, bindings, accounts, Secrets and pods"},
	)
}
