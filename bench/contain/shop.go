package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"remit"
	"remit/e2e/cluster"
	"remit/e2e/process"
	"remit/store/sqlstore"
)

// shop is a cluster with an account and a pod for every theft, and what contains
// them.
type shop struct {
	cluster *cluster.Cluster
	node    *cluster.Node
	group   *process.Group
	process *process.Process
	store   *sqlstore.Store
}

const (
	namespace = "shop"
	attacker  = "127.66.6.6"
)

func worker(n int) string  { return fmt.Sprintf("worker-%d", n) }
func address(n int) string { return fmt.Sprintf("127.20.%d.%d", n/250, 1+n%250) }

func (b *bench) open(ctx context.Context, grade remit.Grade) (_ *shop, err error) {
	dir, err := os.MkdirTemp(b.dir, string(grade)+"-*")
	if err != nil {
		return nil, err
	}
	port, err := process.FreePort()
	if err != nil {
		return nil, err
	}
	listen := "127.0.0.1:" + strconv.Itoa(port)
	program := func(args ...string) ([]byte, error) {
		command := exec.CommandContext(ctx, b.program, args...)
		var said bytes.Buffer
		command.Stderr = &said
		out, err := command.Output()
		if err != nil {
			return nil, fmt.Errorf("remit %s: %w: %s", strings.Join(args[:2], " "), err, said.String())
		}
		return out, nil
	}
	webhook, err := program("token", "create", "audit", "--system", "prod", "--source", "kubernetes", "--webhook", "https://"+listen, "--data-dir", dir)
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(webhook)
	if err != nil {
		return nil, err
	}
	options := cluster.Options{
		AuditWebhookURL: config.Host, AuditWebhookCA: config.CAData, AuditWebhookToken: config.BearerToken, AuditWebhookDelay: b.delay,
	}
	asked := grade == remit.RefuseCredentials
	if asked {
		asks, err := program("token", "create", "authorize", "--for", "authorize", "--system", "prod", "--webhook", "https://"+listen, "--data-dir", dir)
		if err != nil {
			return nil, err
		}
		file := filepath.Join(dir, "api-server.kubeconfig")
		if err := os.WriteFile(file, asks, 0o600); err != nil {
			return nil, err
		}
		authorizers, err := program("token", "authorizer", "--kubeconfig", file)
		if err != nil {
			return nil, err
		}
		options.AuthorizationConfig = string(authorizers)
	}
	s := &shop{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.cluster, err = cluster.Run(ctx, options); err != nil {
		return nil, err
	}
	if err = s.fill(ctx, b.runs); err != nil {
		return nil, err
	}
	text := "systems:\n  - {name: prod, kubeconfig: " + s.cluster.Kubeconfig + ", authorize: " + strconv.FormatBool(asked) + ", mode: enforce, enforce: {kubeconfig: " + s.cluster.Kubeconfig + "}}\n" +
		"respond:\n  - {name: theft, severity: high, do: contain, grades: [" + string(grade) + "], approval: none, hourly: 100000}\n"
	if err = os.WriteFile(filepath.Join(dir, "remit.yaml"), []byte(text), 0o600); err != nil {
		return nil, err
	}
	if s.group, err = process.NewGroup("remit-bench-contain"); err != nil {
		return nil, err
	}
	if s.process, err = s.group.Start(process.Command{Name: "remit", Path: b.program, Args: []string{"serve", "--listen", listen, "--data-dir", dir}}); err != nil {
		return nil, err
	}
	if s.store, err = sqlstore.Open(ctx, filepath.Join(dir, "remit.db")); err != nil {
		return nil, err
	}
	return s, s.process.Wait(ctx, func(ctx context.Context) error {
		some, _, err := s.store.Resources(ctx, remit.Filter{Kinds: []string{"Pod"}, Names: []string{worker(b.runs - 1)}}, remit.PageRequest{})
		if err == nil && (len(some) != 1 || some[0].Attributes["addresses"] == "") {
			err = errors.New("the pods are not in the inventory yet")
		}
		if err == nil {
			_, err = s.cluster.Client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Get(ctx, "remit-containment", metav1.GetOptions{})
		}
		return err
	})
}

// fill makes the accounts, which may list ConfigMaps and mint, and their pods.
func (s *shop) fill(ctx context.Context, n int) (err error) {
	c := s.cluster.Client
	if s.node, err = s.cluster.AddNode(ctx, "node-a", "127.10.0.2"); err != nil {
		return err
	}
	if _, err = c.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	if _, err = c.RbacV1().Roles(namespace).Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "worker"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "list"}},
		{APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, Verbs: []string{"create"}},
	}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	for i := range n {
		name := metav1.ObjectMeta{Name: worker(i), Namespace: namespace}
		if _, err = c.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: name}, metav1.CreateOptions{}); err != nil {
			return err
		}
		if _, err = c.RbacV1().RoleBindings(namespace).Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: name, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "worker"},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: worker(i)}},
		}, metav1.CreateOptions{}); err != nil {
			return err
		}
		if _, err = c.CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{ObjectMeta: name, Spec: corev1.PodSpec{
			ServiceAccountName: worker(i), Containers: []corev1.Container{{Name: "worker", Image: "shop/worker:1.4"}},
		}}, metav1.CreateOptions{}); err != nil {
			return err
		}
		if err = s.node.Bind(ctx, namespace, worker(i)); err != nil {
			return err
		}
		if err = s.node.Run(ctx, namespace, worker(i), address(i)); err != nil {
			return err
		}
	}
	return nil
}

func (s *shop) close() error {
	var err error
	if s.store != nil {
		err = s.store.Close()
	}
	if s.process != nil {
		err = errors.Join(err, s.process.Stop(syscall.SIGTERM, 30*time.Second))
	}
	if s.group != nil {
		err = errors.Join(err, s.group.Close())
	}
	if s.cluster != nil {
		err = errors.Join(err, s.cluster.Close())
	}
	return err
}

func (s *shop) client(token, from string) (*kubernetes.Clientset, error) {
	config := cluster.FromAddress(s.cluster.TokenConfig(token), from)
	config.UserAgent = "shop/v1.4"
	config.QPS = -1
	return kubernetes.NewForConfig(config)
}

// calm is how long he has to be refused everything until it counts as the end, and
// patience how long anything may take.
const (
	calm     = time.Second
	patience = 30 * time.Second
)

// rob steals the token of a pod and goes on with it until he has been refused
// whatever he tried for a while.
func (s *shop) rob(ctx context.Context, n int) (r result, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	status, err := s.node.PodToken(ctx, namespace, worker(n), cluster.TokenOptions{})
	if err != nil {
		return r, err
	}
	stolen := status.Token
	workload, err := s.client(stolen, address(n))
	if err != nil {
		return r, err
	}
	working, rest := context.WithCancel(ctx)
	worked := make(chan struct{})
	go func() {
		defer close(worked)
		for working.Err() == nil {
			_, err := workload.CoreV1().ConfigMaps(namespace).List(ctx, metav1.ListOptions{})
			r.worked++
			if err != nil {
				r.failed++
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	defer func() {
		rest()
		<-worked
	}()
	var held []*kubernetes.Clientset
	mint := func(c *kubernetes.Clientset) error {
		made, err := c.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, worker(n), &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		r.mints++
		next, err := s.client(made.Status.Token, attacker)
		held = append(held, next)
		return err
	}
	first, err := s.client(stolen, attacker)
	if err != nil {
		return r, err
	}
	held = append(held, first)
	if err := mint(first); err != nil {
		return r, err
	}
	began := time.Now()
	for at := 0; ; at++ {
		if err := mint(held[len(held)-1]); err == nil {
			r.last = time.Since(began)
		} else if ctx.Err() != nil {
			return r, err
		} else if r.first == 0 {
			r.first = time.Since(began)
		}
		if mint(held[at%len(held)]) == nil {
			r.last = time.Since(began)
		} else if r.first == 0 {
			r.first = time.Since(began)
		}
		switch since := time.Since(began); {
		case r.first == 0 && since > patience:
			return r, fmt.Errorf("he was not refused within %s; Remit said: %s", patience, s.process.Tail(8))
		case r.first > 0 && since > r.last+calm:
			return r, nil
		case since > patience:
			return r, fmt.Errorf("he still mints after %s", patience)
		}
	}
}
