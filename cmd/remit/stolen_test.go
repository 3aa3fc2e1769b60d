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
	"k8s.io/client-go/rest"

	"remit"
	"remit/e2e/cluster"
	"remit/store/sqlstore"
)

// shop is a cluster with ten accounts whose pods' tokens are renewed by their
// node and who do the same few things again and again.
type shop struct {
	*cluster.Cluster
	t      *testing.T
	node   *cluster.Node
	tokens []string // the present one of each account
}

const (
	shopNamespace = "shop"
	shopAgent     = "shop/v1.4 (linux/amd64) kubernetes/client-go"
	attacker      = "127.66.6.6"
)

func worker(i int) string        { return fmt.Sprintf("worker-%d", i) }
func workerAddress(i int) string { return fmt.Sprintf("127.20.0.%d", 10+i) }
func workerRef(i int) remit.Ref {
	return remit.Ref{Kind: "ServiceAccount", Namespace: shopNamespace, Name: worker(i)}
}

// openShop makes the accounts, which may read configmaps and mint tokens.
func openShop(t *testing.T, c *cluster.Cluster) *shop {
	t.Helper()
	ctx := t.Context()
	s := &shop{Cluster: c, t: t, tokens: make([]string, 10)}
	var err error
	if s.node, err = c.AddNode(ctx, "node-a", "127.10.0.2"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: shopNamespace}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client.RbacV1().Roles(shopNamespace).Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "worker"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "list"}},
		{APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, Verbs: []string{"create"}},
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for i := range s.tokens {
		s.account(worker(i))
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: worker(i), Namespace: shopNamespace}, Spec: corev1.PodSpec{
			ServiceAccountName: worker(i), Containers: []corev1.Container{{Name: "worker", Image: "shop/worker:1.4"}},
		}}
		if _, err := c.Client.CoreV1().Pods(shopNamespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := s.node.Bind(ctx, shopNamespace, worker(i)); err != nil {
			t.Fatal(err)
		}
		if err := s.node.Run(ctx, shopNamespace, worker(i), workerAddress(i)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// account makes a service account that may do what a worker may.
func (s *shop) account(name string) {
	s.t.Helper()
	ctx := s.t.Context()
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: shopNamespace}}
	if _, err := s.Client.CoreV1().ServiceAccounts(shopNamespace).Create(ctx, sa, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.Client.RbacV1().RoleBindings(shopNamespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "worker"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: shopNamespace, Name: name}},
	}, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// from is a client of an address.
func (s *shop) from(config *rest.Config, address string) *kubernetes.Clientset {
	config = cluster.FromAddress(config, address)
	config.UserAgent = shopAgent
	out, err := kubernetes.NewForConfig(config)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *shop) work(config *rest.Config, address string) {
	s.t.Helper()
	if _, err := s.from(config, address).CoreV1().ConfigMaps(shopNamespace).List(s.t.Context(), metav1.ListOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// mint asks for a token of an account and returns it.
func (s *shop) mint(config *rest.Config, address, account string) string {
	s.t.Helper()
	r, err := s.from(config, address).CoreV1().ServiceAccounts(shopNamespace).CreateToken(s.t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return r.Status.Token
}

// live lets some renewals pass: the node renews every token, the pods work.
func (s *shop) live(rounds int) {
	s.t.Helper()
	for range rounds {
		for i := range s.tokens {
			status, err := s.node.PodToken(s.t.Context(), shopNamespace, worker(i), cluster.TokenOptions{})
			if err != nil {
				s.t.Fatal(err)
			}
			s.tokens[i] = status.Token
			s.work(s.TokenConfig(s.tokens[i]), workerAddress(i))
		}
	}
}

// rob plays the theft of a pod's token: it is used from elsewhere with the same
// user agent, mints tokens for the same account, and then only those are used.
func (s *shop) rob(i int) (last string) {
	s.t.Helper()
	stolen := s.tokens[i]
	s.work(s.TokenConfig(stolen), attacker)
	for range 3 {
		stolen = s.mint(s.TokenConfig(stolen), attacker, worker(i))
		s.work(s.TokenConfig(stolen), attacker)
		for n := range s.tokens {
			s.work(s.TokenConfig(s.tokens[n]), workerAddress(n))
		}
	}
	return stolen
}

// detections are the findings of detections in a data directory.
func detections(t *testing.T, dir string) (all []remit.Finding) {
	t.Helper()
	out, err := run(t, "findings", "--format", "json", "--data-dir", dir)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		var f remit.Finding
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatal(err)
		}
		if f.EventCount > 0 {
			all = append(all, f)
		}
	}
	return all
}

// wantTheft holds that the findings tell of the theft of one account, with all
// that is to be known of it, and of no other.
func wantTheft(t *testing.T, all []remit.Finding, victim remit.Ref) {
	t.Helper()
	high := 0
	for _, f := range all {
		t.Logf("%s %s %s: %s", f.Severity, f.Policy, f.Subject.Ref, f.Words)
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
		case f.Subject.Namespace == shopNamespace:
			t.Errorf("alarm on an innocent account: %s %s", f.Subject.Ref, f.Words)
		}
	}
	if high != 1 {
		t.Errorf("%d findings for the theft, not 1", high)
	}
}

// wantTree holds that the tree of the robbed account shows the fork and the root.
func wantTree(t *testing.T, dir, principal string) {
	t.Helper()
	tree, err := run(t, "activity", principal, "--data-dir", dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(tree)
	for _, word := range []string{"FORK", "MINTED BY ITSELF", "root", attacker} {
		if !strings.Contains(tree, word) {
			t.Errorf("the tree does not say %q", word)
		}
	}
}

// TestStolenToken plays the theft of a pod's token on a real API server, reads
// the audit log of it, and expects the fork, the root, every descendant and one
// finding of high severity, on that account and on none of the nine others.
func TestStolenToken(t *testing.T) {
	s := openShop(t, cluster.Start(t))
	s.live(4)
	minted := s.rob(3)
	time.Sleep(time.Second) // the log is written behind the answer

	home := newHome(t)
	dir, command := home.path, home.must
	log := home.learn(s.Kubeconfig, s.AuditLog)
	t.Log(command("import", "activity", "--system", "prod", log))
	again := command("import", "activity", "--system", "prod", log)
	if !strings.HasPrefix(again, "0 events") {
		t.Errorf("read again, the log adds: %s", again)
	}
	wantTheft(t, detections(t, dir), workerRef(3))
	wantTree(t, dir, "system:serviceaccount:shop:worker-3")
	if strings.Contains(command("activity", "--events", "--limit", "0"), minted) {
		t.Error("a minted token is in the archive")
	}
}

// TestStolenTokenLive is the same by the cluster's audit webhook: the finding is
// there within a second of the first mint.
func TestStolenTokenLive(t *testing.T) {
	dir, address := t.TempDir(), freeAddress(t)
	s := openShop(t, cluster.Start(t, auditsTo(t, address, "--data-dir", dir)))
	served := serving(t, "--kubeconfig", s.Kubeconfig, "--system", "prod", "--listen", address, "--data-dir", dir)
	store, err := sqlstore.Open(t.Context(), filepath.Join(dir, "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	found := func() []remit.Finding {
		all, _, err := store.Findings(t.Context(), remit.FindingFilter{Identities: []remit.ID{victimID(t, store, workerRef(3))}, MinimumSeverity: remit.High}, remit.PageRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	// The inventory has the pods, and their life is normal.
	wait(t, "the pods to be in the inventory", func() bool {
		some, _, err := store.Resources(t.Context(), remit.Filter{Kinds: []string{"Pod"}, Names: []string{worker(9)}}, remit.PageRequest{})
		return err == nil && len(some) == 1 && some[0].Attributes["addresses"] != ""
	})
	s.live(4)
	wait(t, "the events to be counted", func() bool {
		some, _, err := store.Presences(t.Context(), remit.ActivityFilter{}, remit.PageRequest{Limit: 1000})
		return err == nil && slices.ContainsFunc(some, func(p remit.Presence) bool { return p.Actor == workerRef(9) && p.Count >= 4 })
	})
	if len(found()) > 0 {
		t.Fatal("an alarm before the theft")
	}
	began := time.Now()
	s.work(s.TokenConfig(s.tokens[3]), attacker)
	s.mint(s.TokenConfig(s.tokens[3]), attacker, worker(3))
	minted := time.Now()
	wait(t, "the finding", func() bool { return len(found()) > 0 })
	t.Logf("the finding was visible %s after the answer to the first mint (%s after the theft began)",
		time.Since(minted).Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	if late := time.Since(minted); late > time.Second && !raceEnabled {
		t.Errorf("the finding came %s after the first mint", late)
	}
	last := s.rob(3)
	wait(t, "all events", func() bool {
		some, _, err := store.Lineage(t.Context(), remit.ActivityFilter{Identities: []remit.ID{victimID(t, store, workerRef(3))}}, remit.PageRequest{Limit: 1000})
		self := 0
		for _, l := range some {
			if l.SelfMinted && l.Uses > 0 {
				self++
			}
		}
		return err == nil && self >= 3
	})
	served.stop(t)
	wantTheft(t, detections(t, dir), workerRef(3))
	wantTree(t, dir, "system:serviceaccount:shop:worker-3")
	for _, where := range []string{"archive", "queue"} {
		if holds(t, filepath.Join(dir, where), last) {
			t.Errorf("a minted token is in the %s", where)
		}
	}
}

// victimID is the ID of an account of the system prod.
func victimID(t *testing.T, store *sqlstore.Store, ref remit.Ref) remit.ID {
	t.Helper()
	systems, err := store.Systems(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range systems {
		if s.Name == "prod" {
			return remit.IdentityID(s.ID, ref)
		}
	}
	return "none"
}
