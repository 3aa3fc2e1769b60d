package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"remit"
	"remit/connector"
	"remit/connector/connectortest"
	"remit/e2e/cluster"
	"remit/e2e/planted"
)

// TestConformance runs the suite of all connectors against a real API server in
// which problems are planted.
func TestConformance(t *testing.T) {
	c, p := plantedCluster(t)
	for _, ns := range []string{"churn-a", "churn-b-prod"} {
		if _, err := c.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	open := func(t testing.TB, address string) connector.Connector {
		config := c.Admin
		if address != "" {
			config = &rest.Config{Host: address}
		}
		k, err := OpenRESTConfig(config, Config{
			Name:      "conformance",
			pageLimit: 20, // so that there are pages to break
			retry:     retryPolicy{attempts: 6, base: 20 * time.Millisecond, cap: 200 * time.Millisecond, longest: time.Minute},
		})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	settle(t, open)
	system, err := open(t, "").System(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var want []remit.ID
	for _, o := range p.Objects() {
		ref := remit.Ref{Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName()}
		switch o.GetKind() {
		case "Namespace", "Secret":
			want = append(want, remit.ResourceID(system.ID, ref))
		case "Role", "ClusterRole":
			want = append(want, remit.RoleID(system.ID, ref))
		case "ServiceAccount", "Deployment", "StatefulSet", "DaemonSet", "CronJob", "APIService",
			"ValidatingWebhookConfiguration", "MutatingWebhookConfiguration":
			want = append(want, remit.IdentityID(system.ID, ref))
		case "CertificateSigningRequest":
			want = append(want, remit.CredentialID(system.ID, ref, ""))
		case "ConfigMap", "RoleBinding", "ClusterRoleBinding", "CustomResourceDefinition":
		default:
			t.Errorf("a planted %s: say here what becomes of it", o.GetKind())
		}
	}
	for _, name := range []string{"alice@example.com", "bob@example.com", "jenkins-bot"} {
		want = append(want, remit.IdentityID(system.ID, remit.Ref{Kind: "User", Name: name}))
	}

	transport, err := rest.TransportFor(c.Admin)
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, l := range listings {
		if l.kind != "Namespace" { // without it the system has another identity
			sections[l.resource] = "/" + l.resource
		}
	}
	connectortest.Run(t, connectortest.Setup{
		Server:    c.URL,
		Transport: alone{transport},
		Open:      open,
		Planted:   want,
		Canaries:  p.Canaries(),
		Sections:  sections,
		Change:    churn(c.Client),
	})
}

// planting plants the shared cluster once.
var planting struct {
	once sync.Once
	p    *planted.Cluster
	err  error
}

// plantedCluster is the cluster of all tests of the package, with the planted
// problems in it.
func plantedCluster(t *testing.T) (*cluster.Cluster, *planted.Cluster) {
	t.Helper()
	c := cluster.Shared(t)
	planting.once.Do(func() {
		if planting.p, planting.err = planted.New(); planting.err == nil {
			planting.err = planting.p.Plant(context.WithoutCancel(t.Context()), c.Admin)
		}
	})
	if planting.err != nil {
		t.Fatal(planting.err)
	}
	return c, planting.p
}

// alone keeps HTTP/2 out of the way: the proxy forwards what it is given.
type alone struct{ next http.RoundTripper }

func (a alone) RoundTrip(r *http.Request) (*http.Response, error) { return a.next.RoundTrip(r) }

// settle waits until the controllers have nothing left to do: two readings in a
// row that are alike.
func settle(t *testing.T, open func(testing.TB, string) connector.Connector) {
	t.Helper()
	last := ""
	for range 60 {
		now := ""
		err := open(t, "").Inventory(t.Context(), func(_ context.Context, page connector.Page) error {
			text, err := json.Marshal(page.Records)
			if page.Records.Len() > 0 {
				now += string(text)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if now == last {
			return
		}
		last = now
		time.Sleep(500 * time.Millisecond)
	}
	t.Fatal("the cluster does not come to rest")
}

// churn makes random changes of everything that depends on something else.
func churn(client kubernetes.Interface) func(context.Context, *rand.Rand) error {
	namespaces := []string{"churn-a", "churn-b-prod"}
	return func(ctx context.Context, r *rand.Rand) error {
		ns := namespaces[r.IntN(len(namespaces))]
		name := fmt.Sprintf("n%d", r.IntN(5))
		account := fmt.Sprintf("n%d", r.IntN(5))
		core, apps, rbac := client.CoreV1(), client.AppsV1(), client.RbacV1()
		var err error
		switch r.IntN(18) {
		case 0, 1:
			_, err = core.ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": account}}}, metav1.CreateOptions{})
		case 2:
			err = core.ServiceAccounts(ns).Delete(ctx, name, metav1.DeleteOptions{})
		case 3:
			_, err = core.ServiceAccounts(ns).Patch(ctx, name, types.MergePatchType, fmt.Appendf(nil, `{"automountServiceAccountToken":%v}`, r.IntN(2) == 0), metav1.PatchOptions{})
		case 4:
			_, err = core.Namespaces().Patch(ctx, ns, types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"labels":{"environment":"e%d","owner":"o%d"}}}`, r.IntN(3), r.IntN(3)), metav1.PatchOptions{})
		case 5, 6:
			_, err = rbac.Roles(ns).Create(ctx, &rbacv1.Role{
				ObjectMeta: metav1.ObjectMeta{Name: name},
				Rules: []rbacv1.PolicyRule{
					{Verbs: []string{"create"}, APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, ResourceNames: []string{"n1", "n2"}},
					{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"n0", "n3"}},
				},
			}, metav1.CreateOptions{})
		case 7:
			err = rbac.Roles(ns).Delete(ctx, name, metav1.DeleteOptions{})
		case 8:
			_, err = rbac.Roles(ns).Patch(ctx, name, types.MergePatchType, fmt.Appendf(nil, `{"rules":[{"verbs":["create","get"],"apiGroups":[""],"resources":["pods/exec"],"resourceNames":["n%d"]}]}`, r.IntN(5)), metav1.PatchOptions{})
		case 9, 10:
			_, err = rbac.RoleBindings(ns).Create(ctx, &rbacv1.RoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: name},
				RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: account},
				Subjects: []rbacv1.Subject{
					{Kind: "ServiceAccount", Namespace: ns, Name: account},
					{Kind: "User", APIGroup: rbacv1.GroupName, Name: "u" + name},
					{Kind: "Group", APIGroup: rbacv1.GroupName, Name: "g" + account},
				},
			}, metav1.CreateOptions{})
		case 11:
			err = rbac.RoleBindings(ns).Delete(ctx, name, metav1.DeleteOptions{})
		case 12:
			_, err = core.Secrets(ns).Create(ctx, &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{corev1.ServiceAccountNameKey: account}},
				Type:       corev1.SecretTypeServiceAccountToken,
			}, metav1.CreateOptions{})
			if apierrors.IsInvalid(err) || apierrors.IsForbidden(err) {
				err = nil
			}
		case 13:
			err = core.Secrets(ns).Delete(ctx, name, metav1.DeleteOptions{})
		case 14:
			one := int32(1)
			_, err = apps.Deployments(ns).Create(ctx, &appsv1.Deployment{
				ObjectMeta: metav1.ObjectMeta{Name: name},
				Spec: appsv1.DeploymentSpec{
					Replicas: &one,
					Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}},
					Template: corev1.PodTemplateSpec{
						ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}},
						Spec: corev1.PodSpec{ServiceAccountName: account, Containers: []corev1.Container{{
							Name: "c", Image: "example.com/" + name, EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "n0"}}}},
						}}},
					},
				},
			}, metav1.CreateOptions{})
		case 15:
			propagation := metav1.DeletePropagationBackground
			err = apps.Deployments(ns).Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: &propagation})
		case 16:
			_, err = core.Pods(ns).Create(ctx, &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: name},
				Spec:       corev1.PodSpec{ServiceAccountName: account, Containers: []corev1.Container{{Name: "c", Image: "ollama/ollama:1"}}},
			}, metav1.CreateOptions{})
			if apierrors.IsForbidden(err) { // the account is not there
				err = nil
			}
		case 17:
			none := int64(0)
			err = core.Pods(ns).Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &none})
		}
		if apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
}
