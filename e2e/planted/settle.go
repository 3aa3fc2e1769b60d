package planted

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
)

// Settle waits until the controllers have finished with what was planted: every
// token Secret has its token, every approved request its certificate, and every
// Deployment its pods.
func Settle(ctx context.Context, client kubernetes.Interface, c *Cluster) error {
	var missing string
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		for _, o := range c.Objects() {
			done, err := settled(ctx, client, o.GetKind(), o.GetNamespace(), o.GetName())
			if err != nil {
				return false, err
			}
			if !done {
				missing = o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("wait until the planted cluster settles (%s does not): %w", missing, err)
	}
	return nil
}

func settled(ctx context.Context, client kubernetes.Interface, kind, namespace, name string) (bool, error) {
	switch kind {
	case "Secret":
		s, err := client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		return err == nil && (s.Type != corev1.SecretTypeServiceAccountToken || len(s.Data["token"]) > 0), err
	case "CertificateSigningRequest":
		r, err := client.CertificatesV1().CertificateSigningRequests().Get(ctx, name, metav1.GetOptions{})
		return err == nil && (len(r.Status.Conditions) == 0 || len(r.Status.Certificate) > 0), err
	case "Deployment":
		d, err := client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
		return err == nil && d.Status.Replicas > 0, err
	}
	return true, nil
}
