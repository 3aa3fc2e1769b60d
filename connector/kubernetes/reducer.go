package kubernetes

import (
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"remit"
)

// reducer turns the API's objects into what the model keeps of them, at once
// when they arrive, so that neither secrets nor bulk survive the page that they
// came in. It is safe for concurrent use.
type reducer struct {
	credentials  *credentials
	owners       ownerReader
	environments environmentReader
	agents       *agentMatcher
}

func newReducer(cfg Config, c *credentials, agents *agentMatcher) *reducer {
	return &reducer{
		credentials:  c,
		owners:       newOwnerReader(cfg.OwnerKeys),
		environments: newEnvironmentReader(cfg.EnvironmentKeys, cfg.Environment),
		agents:       agents,
	}
}

// refOf is the key of an object in the model.
func (l *listing) refOf(o metav1.Object) remit.Ref {
	ref := remit.Ref{Kind: l.kind, Name: strings.Clone(o.GetName())}
	if l.namespaced {
		ref.Namespace = strings.Clone(o.GetNamespace())
	}
	return ref
}

// reduce reduces one object of a listing; nil for what is of no concern.
func (r *reducer) reduce(l *listing, in runtime.Object) *object {
	m, ok := in.(metav1.Object)
	if !ok || m.GetName() == "" {
		return nil
	}
	o := &object{ref: l.refOf(m)}
	switch in := in.(type) {
	case *corev1.Namespace:
	case *corev1.Node:
		o.body = r.node(in)
	case *corev1.ServiceAccount:
		o.body = r.account(in)
	case *corev1.Secret:
		o.body = r.secret(in)
	case *corev1.ConfigMap:
		o.body = r.configMap(in)
	case *corev1.Pod:
		o.body = r.pod(in)
	case *corev1.ReplicationController:
		o.body = r.controllerBody("ReplicationController", in, in.Spec.Replicas, in.Spec.Template)
	case *appsv1.Deployment:
		o.body = r.deployment(in)
	case *appsv1.StatefulSet:
		o.body = r.controllerBody("StatefulSet", in, in.Spec.Replicas, &in.Spec.Template)
	case *appsv1.DaemonSet:
		o.body = r.controllerBody("DaemonSet", in, nil, &in.Spec.Template)
	case *appsv1.ReplicaSet:
		o.body = r.controllerBody("ReplicaSet", in, in.Spec.Replicas, &in.Spec.Template)
	case *batchv1.Job:
		o.body = r.job(in)
	case *batchv1.CronJob:
		o.body = r.cronJob(in)
	case *rbacv1.Role:
		o.body = r.role(in.Rules, nil)
	case *rbacv1.ClusterRole:
		o.body = r.role(in.Rules, in.AggregationRule)
	case *rbacv1.RoleBinding:
		o.body = r.binding(in.Namespace, in.RoleRef, in.Subjects)
	case *rbacv1.ClusterRoleBinding:
		o.body = r.binding("", in.RoleRef, in.Subjects)
	case *certificatesv1.CertificateSigningRequest:
		o.body = r.request(in)
	case *admissionv1.ValidatingWebhookConfiguration:
		o.body = validatingWebhooks(in)
	case *admissionv1.MutatingWebhookConfiguration:
		o.body = mutatingWebhooks(in)
	case *apiService:
		o.body = apiServiceBody(in)
	case *metav1.PartialObjectMetadata:
		switch {
		case l.custom:
			o.body = &custom{agent: r.agents.custom(l.group, l.kind, in)}
		case l.kind == "Secret":
			o.body = r.secretMetadata(in, l.secretType)
		default:
			o.body = &holder{}
		}
	default:
		return nil
	}
	o.meta = r.reduceMeta(m)
	return o
}
