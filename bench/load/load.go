// Package load fills a real cluster with many objects, as fast as its API server
// takes them, for measurements.
package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"golang.org/x/sync/errgroup"
)

// Size is how much to create.
type Size struct {
	Namespaces, ServiceAccounts, Pods, Bindings, Secrets int
}

// PodsPerDeployment is how many pods share one Deployment.
const PodsPerDeployment = 10

// Fill creates objects of that size: service accounts, Deployments with their
// ReplicaSets and pods, bindings of a few roles, and Secrets of which every
// tenth holds something that looks like a foreign API key.
func Fill(ctx context.Context, config *rest.Config, size Size, logf func(string, ...any)) error {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 5000, 5000
	config.ContentType, config.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	f := filler{client: client, size: size}
	for _, step := range []struct {
		what string
		n    int
		make func(context.Context, int) error
	}{
		{"namespaces", size.Namespaces, f.namespace},
		{"roles", size.Namespaces, f.role},
		{"service accounts", size.ServiceAccounts, f.account},
		{"deployments", size.Pods / PodsPerDeployment, f.deployment},
		{"bindings", size.Bindings, f.binding},
		{"secrets", size.Secrets, f.secret},
	} {
		began := time.Now()
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(64)
		for i := range step.n {
			group.Go(func() error {
				if err := step.make(ctx, i); err != nil && !apierrors.IsAlreadyExists(err) {
					return fmt.Errorf("create %s: %w", step.what, err)
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		logf("%6d %s in %s", step.n, step.what, time.Since(began).Round(time.Millisecond))
	}
	return nil
}

type filler struct {
	client *kubernetes.Clientset
	size   Size
}

var created = metav1.CreateOptions{}

func (f *filler) space(i int) string { return fmt.Sprintf("team-%03d", i%f.size.Namespaces) }

// account names the service account that object i uses, in the namespace of i.
func (f *filler) accountOf(i int) string {
	perSpace := max(1, f.size.ServiceAccounts/f.size.Namespaces)
	return fmt.Sprintf("app-%05d", (i/f.size.Namespaces)%perSpace*f.size.Namespaces+i%f.size.Namespaces)
}

func (f *filler) namespace(ctx context.Context, i int) error {
	_, err := f.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: f.space(i), Labels: map[string]string{"team": fmt.Sprintf("team-%d", i), "environment": "production"},
	}}, created)
	return err
}

func (f *filler) role(ctx context.Context, i int) error {
	_, err := f.client.RbacV1().Roles(f.space(i)).Create(ctx, &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "app"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "watch"}}},
	}, created)
	return err
}

func (f *filler) account(ctx context.Context, i int) error {
	_, err := f.client.CoreV1().ServiceAccounts(f.space(i)).Create(ctx, &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("app-%05d", i), Labels: map[string]string{"app": fmt.Sprintf("app-%05d", i)}},
	}, created)
	return err
}

// deployment creates a Deployment, its ReplicaSet and its pods, as the
// controllers would have left them.
func (f *filler) deployment(ctx context.Context, i int) error {
	space, name := f.space(i), fmt.Sprintf("app-%05d", i)
	labels := map[string]string{"app": name}
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels},
		Spec: corev1.PodSpec{
			ServiceAccountName: f.accountOf(i),
			Containers: []corev1.Container{{
				Name: "main", Image: "registry.example.com/" + name + ":1.0",
				Env: []corev1.EnvVar{{Name: "LOG_LEVEL", Value: "info"}, {Name: "PEER", Value: "https://peer." + space + ".svc:8443"}},
			}},
		},
	}
	replicas := int32(PodsPerDeployment)
	d, err := f.client.AppsV1().Deployments(space).Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec:       appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template},
	}, created)
	if err != nil {
		return err
	}
	r, err := f.client.AppsV1().ReplicaSets(space).Create(ctx, &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: name + "-6f8b9c5d7", Labels: labels, OwnerReferences: owner("Deployment", d.Name, d.UID)},
		Spec:       appsv1.ReplicaSetSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template},
	}, created)
	if err != nil {
		return err
	}
	for n := range PodsPerDeployment {
		_, err := f.client.CoreV1().Pods(space).Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%05d", r.Name, n), Labels: labels, OwnerReferences: owner("ReplicaSet", r.Name, r.UID)},
			Spec:       template.Spec,
		}, created)
		if err != nil {
			return err
		}
	}
	return nil
}

func owner(kind, name string, uid types.UID) []metav1.OwnerReference {
	yes := true
	return []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: name, UID: uid, Controller: &yes}}
}

func (f *filler) binding(ctx context.Context, i int) error {
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "app"}
	if i%10 == 0 {
		ref = rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"}
	}
	_, err := f.client.RbacV1().RoleBindings(f.space(i)).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("app-%05d", i)}, RoleRef: ref,
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: f.accountOf(i), Namespace: f.space(i)}},
	}, created)
	return err
}

const alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

func random(n int) string {
	var b strings.Builder
	for range n {
		b.WriteByte(alphabet[rand.IntN(len(alphabet))])
	}
	return b.String()
}

func (f *filler) secret(ctx context.Context, i int) error {
	data := map[string]string{"config.yaml": "listen: 0.0.0.0:8080\nname: " + random(200) + "\n", "username": "app"}
	if i%10 == 0 {
		data["github-token"] = "gh" + "p_" + random(36)
	} else {
		data["password"] = random(24)
	}
	_, err := f.client.CoreV1().Secrets(f.space(i)).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("secret-%05d", i)}, Type: corev1.SecretTypeOpaque, StringData: data,
	}, created)
	return err
}
