package kubernetes

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"remit"
	"remit/connector"
	"remit/e2e/cluster"
	"remit/inventory"
	"remit/store/sqlstore"
)

// clean is a cluster in which nothing is planted: among the planted problems is
// that everybody may do everything.
var clean = sync.OnceValues(func() (*cluster.Cluster, error) {
	return cluster.Run(context.Background(), cluster.Options{NoControllerManager: true})
})

func cleanCluster(t *testing.T) *cluster.Cluster {
	t.Helper()
	c, err := clean()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// reader makes an account with some of the roles that deploy/kubernetes gives,
// and returns its login.
func reader(t *testing.T, c *cluster.Cluster, roles ...string) *rest.Config {
	t.Helper()
	ctx := t.Context()
	ns := c.Namespace(t)
	file, err := os.ReadFile(filepath.Join("..", "..", "deploy", "kubernetes", "clusterrole.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "remit"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for doc := range bytes.SplitSeq(file, []byte("\n---\n")) {
		var role rbacv1.ClusterRole
		if err := yaml.UnmarshalStrict(doc, &role); err != nil {
			t.Fatal(err)
		}
		for _, rule := range role.Rules {
			for _, verb := range rule.Verbs {
				if verb != "list" && verb != "watch" {
					t.Errorf("the role %s allows %s: Remit only lists and watches", role.Name, verb)
				}
			}
		}
		if !slices.Contains(roles, role.Name) {
			continue
		}
		role.Name = ns + "-" + role.Name
		if _, err := c.Client.RbacV1().ClusterRoles().Create(ctx, &role, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		binding := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: role.Name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: ns, Name: "remit"}},
		}
		if _, err := c.Client.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx := context.WithoutCancel(ctx)
			_ = c.Client.RbacV1().ClusterRoleBindings().Delete(ctx, role.Name, metav1.DeleteOptions{})
			_ = c.Client.RbacV1().ClusterRoles().Delete(ctx, role.Name, metav1.DeleteOptions{})
		})
	}
	config, err := c.ServiceAccountConfig(ctx, ns, "remit")
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func openFor(t *testing.T, config *rest.Config, cfg Config) *Connector {
	t.Helper()
	cfg.Name = "rights"
	k, err := OpenRESTConfig(config, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func gapsOf(t *testing.T, k *Connector) (gaps []remit.Gap, complete map[string]bool) {
	t.Helper()
	complete = map[string]bool{}
	system, err := k.System(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	gaps = append(gaps, system.Gaps...)
	err = k.Inventory(t.Context(), func(_ context.Context, page connector.Page) error {
		if page.Gap != nil {
			gaps = append(gaps, *page.Gap)
		}
		complete[page.Section] = complete[page.Section] || page.Complete
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return gaps, complete
}

// The published role suffices, without a hole.
func TestLeastPrivilege(t *testing.T) {
	c := cleanCluster(t)
	gaps, _ := gapsOf(t, openFor(t, reader(t, c, "remit", "remit-secrets"), Config{}))
	if len(gaps) > 0 {
		t.Errorf("the published role leaves gaps: %+v", gaps)
	}
}

// Without the second role Secrets and ConfigMaps are missing, the gap says which
// rule would close it, and nothing else suffers but what is drawn from them.
func TestWithoutSecrets(t *testing.T) {
	c := cleanCluster(t)
	config := reader(t, c, "remit")
	gaps, complete := gapsOf(t, openFor(t, config, Config{}))
	if len(gaps) != 2 {
		t.Fatalf("gaps %+v: want secrets and configmaps", gaps)
	}
	for _, gap := range gaps {
		if gap.Section != "secrets" && gap.Section != "configmaps" {
			t.Errorf("a gap in %s", gap.Section)
		}
		if !strings.Contains(gap.Reason, "cannot list resource") || !strings.Contains(gap.Need, `resources: ["`+gap.Section+`"], verbs: ["list", "watch"]`) {
			t.Errorf("the gap does not say what happened and what closes it: %+v", gap)
		}
	}
	for section, done := range complete {
		switch section {
		case "secrets", "configmaps", sectionSubjects, sectionAccess:
			if done {
				t.Errorf("%s was completed without Secrets", section)
			}
		default:
			if !done {
				t.Errorf("%s was not completed, though it needs no Secrets", section)
			}
		}
	}

	// Configured so, it is the user's choice, and a gap all the same.
	gaps, complete = gapsOf(t, openFor(t, config, Config{Secrets: SecretNone}))
	if len(gaps) != 2 || !strings.Contains(gaps[0].Reason, "as configured") || !complete[sectionSubjects] {
		t.Errorf("with Secrets not read: gaps %+v, subjects complete %v", gaps, complete[sectionSubjects])
	}
}

// An account with no rights at all is told so, for every section.
func TestNoRights(t *testing.T) {
	c := cleanCluster(t)
	k := openFor(t, reader(t, c), Config{})
	err := k.Inventory(t.Context(), func(context.Context, connector.Page) error { return nil })
	if remit.KindOf(err) != remit.Forbidden {
		t.Errorf("an account without rights: %v (%s), want %s", err, remit.KindOf(err), remit.Forbidden)
	}
}

// With metadata only, what can be known without values is known, and the types
// are told apart by listing each for itself.
func TestSecretMetadata(t *testing.T) {
	c, p := plantedCluster(t)
	k := openFor(t, c.Admin, Config{Secrets: SecretMetadata})
	var credentials []remit.Credential
	resources := map[string]remit.Resource{}
	err := k.Inventory(t.Context(), func(_ context.Context, page connector.Page) error {
		if page.Section == "secrets" {
			credentials = append(credentials, page.Records.Credentials...)
			for _, r := range page.Records.Resources {
				resources[r.Namespace+"/"+r.Name] = r
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := resources["payments/gateway-token"].Attributes["type"]; got != "kubernetes.io/service-account-token" {
		t.Errorf("the type of a token Secret is %q", got)
	}
	if got := resources["checkout/mailer"].Attributes["type"]; got != "Opaque" {
		t.Errorf("the type of an opaque Secret is %q", got)
	}
	if !slices.ContainsFunc(credentials, func(c remit.Credential) bool {
		return c.Name == "gateway-token" && c.Holder == remit.Ref{Kind: "ServiceAccount", Namespace: "payments", Name: "gateway"}
	}) {
		t.Error("the account of a legacy token is not known, though an annotation names it")
	}
	secrets := 0
	for _, o := range p.Objects() {
		if o.GetKind() == "Secret" {
			secrets++
			if _, ok := resources[o.GetNamespace()+"/"+o.GetName()]; !ok {
				t.Errorf("the Secret %s/%s is missing", o.GetNamespace(), o.GetName())
			}
		}
	}
	if secrets == 0 {
		t.Error("no Secret is planted")
	}
}

// Restricted to namespaces, nothing of others is read, by an account that has
// rights only there.
func TestNamespaces(t *testing.T) {
	c, _ := plantedCluster(t)
	k := openFor(t, c.Admin, Config{Namespaces: []string{"payments", "staging"}})
	seen := map[string]bool{}
	err := k.Inventory(t.Context(), func(_ context.Context, page connector.Page) error {
		for _, r := range page.Records.Resources {
			if r.Kind == "Namespace" && r.Name != "payments" && r.Name != "staging" {
				t.Errorf("the namespace %s is read", r.Name)
			}
		}
		for _, r := range page.Records.Identities {
			if r.Kind == "Deployment" || r.Kind == "ServiceAccount" && r.Attributes["named-by"] == "" {
				seen[r.Namespace] = true
			}
			if r.Status == remit.Absent && r.Namespace != "payments" && r.Namespace != "staging" {
				t.Errorf("%s is called absent, though its namespace was not read", r.Ref)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) != 2 || !seen["payments"] || !seen["staging"] {
		t.Errorf("read namespaces %v", seen)
	}
}

// Through the real store: a reading that may not see Secrets removes nothing,
// and the next complete one removes what is really gone.
func TestPartialReadingDeletesNothing(t *testing.T) {
	c := cleanCluster(t)
	ctx := t.Context()
	ns := c.Namespace(t)
	for _, name := range []string{"stays", "goes"} {
		_, err := c.Client.CoreV1().Secrets(ns).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"password": "Xk29fjw02jf20fjw"}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	restricted := reader(t, c, "remit")
	store, err := sqlstore.Open(ctx, "sqlite:"+filepath.Join(t.TempDir(), "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	r := inventory.Reconciler{Store: store}
	read := func(config *rest.Config) inventory.Result {
		t.Helper()
		result, err := r.Sync(ctx, openFor(t, config, Config{}))
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	secrets := func() int {
		t.Helper()
		found, _, err := store.Credentials(ctx, remit.Filter{Kinds: []string{"Secret"}, Namespaces: []string{ns}}, remit.PageRequest{Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	read(c.Admin)
	if secrets() != 2 {
		t.Fatalf("%d credentials of two Secrets", secrets())
	}
	if err := c.Client.CoreV1().Secrets(ns).Delete(ctx, "goes", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	partial := read(restricted)
	if secrets() != 2 {
		t.Errorf("a reading without Secrets left %d of 2 credentials", secrets())
	}
	if partial.Changes.Removed != 0 {
		t.Errorf("a partial reading removed %d records", partial.Changes.Removed)
	}
	if len(partial.System.Gaps) != 2 {
		t.Errorf("the gaps are not kept with the system: %+v", partial.System.Gaps)
	}
	full := read(c.Admin)
	if secrets() != 1 || len(full.System.Gaps) != 0 {
		t.Errorf("after a complete reading there are %d credentials and the gaps %+v", secrets(), full.System.Gaps)
	}
	if again := read(c.Admin); again.Changes.Added+again.Changes.Updated+again.Changes.Removed != 0 {
		t.Errorf("a second reading of an unchanged cluster changed the store: %+v", again.Changes)
	}
}

// A change reaches emit within a second, at once after it was made.
func TestWatchIsFresh(t *testing.T) {
	c, _ := plantedCluster(t)
	ns := c.Namespace(t)
	k := openFor(t, c.Admin, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ready := make(chan struct{})
	arrived := make(chan time.Time, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- k.Watch(ctx, func(_ context.Context, page connector.Page) error {
			if page.Section == sectionAccess && page.Complete {
				close(ready)
			}
			for _, r := range page.Records.Identities {
				if r.Namespace == ns && r.Name == "fresh" {
					arrived <- time.Now()
				}
			}
			return nil
		})
	}()
	<-ready
	begin := time.Now()
	if _, err := c.Client.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "fresh"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case at := <-arrived:
		if took := at.Sub(begin); took > 5*time.Second {
			t.Errorf("a change took %v", took)
		} else {
			t.Logf("a change took %v", took)
		}
	case err := <-ended:
		t.Fatal(err)
	case <-time.After(time.Minute):
		t.Fatal("a change never arrived")
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("Watch returned nil")
	}
}
