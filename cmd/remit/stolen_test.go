//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"remit"
	"remit/e2e/cluster"
)

// TestStolenToken plays the theft of a pod's token on a real API server, reads
// the audit log of it, and expects the fork, the root, every descendant and one
// finding of high severity, on that account and on none of the nine others.
func TestStolenToken(t *testing.T) {
	ctx := t.Context()
	c := cluster.Start(t)
	const namespace, agent = "shop", "shop/v1.4 (linux/amd64) kubernetes/client-go"
	node, err := c.AddNode(ctx, "node-a", "127.10.0.2")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client.RbacV1().Roles(namespace).Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "worker"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "list"}},
		{APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, Verbs: []string{"create"}},
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	client := func(token, address string) *kubernetes.Clientset {
		config := cluster.FromAddress(c.TokenConfig(token), address)
		config.UserAgent = agent
		out, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	name := func(i int) string { return fmt.Sprintf("worker-%d", i) }
	address := func(i int) string { return fmt.Sprintf("127.20.0.%d", 10+i) }
	tokens := make([]string, 10)
	for i := range tokens {
		sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name(i), Namespace: namespace}}
		if _, err := c.Client.CoreV1().ServiceAccounts(namespace).Create(ctx, sa, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Client.RbacV1().RoleBindings(namespace).Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name(i)}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "worker"},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: name(i)}},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name(i), Namespace: namespace}, Spec: corev1.PodSpec{
			ServiceAccountName: name(i), Containers: []corev1.Container{{Name: "worker", Image: "shop/worker:1.4"}},
		}}
		if _, err := c.Client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := node.Bind(ctx, namespace, name(i)); err != nil {
			t.Fatal(err)
		}
		if err := node.Run(ctx, namespace, name(i), address(i)); err != nil {
			t.Fatal(err)
		}
	}
	work := func(token, from string) {
		t.Helper()
		if _, err := client(token, from).CoreV1().ConfigMaps(namespace).List(ctx, metav1.ListOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 { // the normal life: the node renews, the pods work
		for i := range tokens {
			status, err := node.PodToken(ctx, namespace, name(i), cluster.TokenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			tokens[i] = status.Token
			work(tokens[i], address(i))
		}
	}
	// The theft, from another address with the same user agent.
	const attacker = "127.66.6.6"
	stolen := tokens[3]
	work(stolen, attacker)
	var minted string
	for range 3 {
		status, err := client(stolen, attacker).CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name(3),
			&authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		minted = status.Status.Token
		work(minted, attacker)
		stolen = minted
		for i := range tokens {
			work(tokens[i], address(i))
		}
	}
	time.Sleep(time.Second) // the log is written behind the answer

	dir := t.TempDir()
	command := func(args ...string) string {
		t.Helper()
		out, err := run(t, append(args, "--data-dir", dir)...)
		if err != nil {
			t.Fatalf("remit %s: %v", strings.Join(args, " "), err)
		}
		return out
	}
	command("scan", "--kubeconfig", c.Kubeconfig, "--system", "prod", "--output", filepath.Join(dir, "scan.json"), "--format", "json")
	t.Log(command("import", "activity", "--system", "prod", c.AuditLog))
	again := command("import", "activity", "--system", "prod", c.AuditLog)
	if !strings.HasPrefix(again, "0 events") {
		t.Errorf("read again, the log adds: %s", again)
	}

	var detections []remit.Finding
	for line := range strings.Lines(command("findings", "--format", "json")) {
		var f remit.Finding
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatal(err)
		}
		if f.EventCount > 0 {
			detections = append(detections, f)
			t.Logf("%s %s %s: %s", f.Severity, f.Policy, f.Subject.Ref, f.Words)
		}
	}
	victim := remit.Ref{Kind: "ServiceAccount", Namespace: namespace, Name: name(3)}
	high := 0
	for _, f := range detections {
		switch {
		case f.Subject.Ref == victim:
			high++
			if f.Severity.Rank() < remit.High.Rank() {
				t.Errorf("the theft is %s, not high", f.Severity)
			}
			if !slices.Contains(f.Addresses, attacker) {
				t.Errorf("the attacker's address is not among %v", f.Addresses)
			}
			if len(f.Credentials) < 5 {
				t.Errorf("root, stolen token and three descendants expected: %v", f.Credentials)
			}
			if len(f.Events) == 0 || f.Words == "" || f.First.IsZero() {
				t.Errorf("events, words or time are missing: %+v", f)
			}
		case f.Subject.Namespace == namespace:
			t.Errorf("alarm on an innocent account: %s %s", f.Subject.Ref, f.Words)
		}
	}
	if high != 1 {
		t.Errorf("%d findings for the theft, not 1", high)
	}
	tree := command("activity", "system:serviceaccount:shop:worker-3")
	t.Log(tree)
	for _, word := range []string{"FORK", "MINTED BY ITSELF", "root", attacker} {
		if !strings.Contains(tree, word) {
			t.Errorf("the tree does not say %q", word)
		}
	}
	if strings.Contains(command("activity", "--events", "--limit", "0"), minted) {
		t.Error("a minted token is in the archive")
	}
}
