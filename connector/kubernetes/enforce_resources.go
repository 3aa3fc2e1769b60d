package kubernetes

import (
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// enforcedResources are the kinds that an enforcer asks for by name.
var enforcedResources = map[string]struct {
	gv       schema.GroupVersion
	resource string
}{
	"Namespace":                        {corev1.SchemeGroupVersion, "namespaces"},
	"ConfigMap":                        {corev1.SchemeGroupVersion, "configmaps"},
	"ServiceAccount":                   {corev1.SchemeGroupVersion, "serviceaccounts"},
	"Secret":                           {corev1.SchemeGroupVersion, "secrets"},
	"Role":                             {rbacv1.SchemeGroupVersion, "roles"},
	"ClusterRole":                      {rbacv1.SchemeGroupVersion, "clusterroles"},
	"RoleBinding":                      {rbacv1.SchemeGroupVersion, "rolebindings"},
	"ClusterRoleBinding":               {rbacv1.SchemeGroupVersion, "clusterrolebindings"},
	"ValidatingAdmissionPolicy":        {admissionv1.SchemeGroupVersion, "validatingadmissionpolicies"},
	"ValidatingAdmissionPolicyBinding": {admissionv1.SchemeGroupVersion, "validatingadmissionpolicybindings"},
	"SubjectAccessReview":              {authorizationv1.SchemeGroupVersion, "subjectaccessreviews"},
	"Pod":                              {corev1.SchemeGroupVersion, "pods"},
	"Deployment":                       {appsv1.SchemeGroupVersion, "deployments"},
	"StatefulSet":                      {appsv1.SchemeGroupVersion, "statefulsets"},
	"DaemonSet":                        {appsv1.SchemeGroupVersion, "daemonsets"},
	"CronJob":                          {batchv1.SchemeGroupVersion, "cronjobs"},
	"CertificateSigningRequest":        {certificatesv1.SchemeGroupVersion, "certificatesigningrequests"},
	"SelfSubjectReview":                {authenticationv1.SchemeGroupVersion, "selfsubjectreviews"},
}
