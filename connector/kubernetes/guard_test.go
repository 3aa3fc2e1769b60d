package kubernetes

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fastjson"
	"sigs.k8s.io/yaml"

	"remit"
	"remit/connector"
	"remit/inventory"
	"remit/store/sqlstore"
)

var updateGolden = flag.Bool("update-guard", false, "write the golden files of the guard anew")

// allGuarded is a guard with every rule, and something in every list.
func allGuarded(state GuardState) Guard {
	g := Guard{
		Rules: map[GuardRule]GuardState{}, MaxTokenLifetime: 2 * time.Hour, Audiences: []string{"https://kubernetes.default.svc.cluster.local", "vault"},
		AdminRoles: []string{"platform-admin"}, Machines: []string{"ci", `odd"name\`}, OwnerKeys: []string{"example.com/Squad", "guild"},
		Exempt: GuardExempt{Namespaces: []string{"istio-system"}, Accounts: []string{"velero/server"}, Users: []string{"system:serviceaccount:flux-system:deployer"}},
	}
	for _, r := range GuardRules {
		g.Rules[r] = state
	}
	return g
}

// TestGuardGolden shows what is generated, so that a change of it is seen: whoever
// enforces a rule runs it in audit anew after each.
func TestGuardGolden(t *testing.T) {
	audit := Guard{Rules: map[GuardRule]GuardState{}}
	for _, r := range GuardRules {
		audit.Rules[r] = GuardAudit
	}
	for name, g := range map[string]Guard{"audit": audit, "enforce": allGuarded(GuardEnforce)} {
		var out bytes.Buffer
		if err := g.WriteYAML(&out, "remit-enforcer"); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", "guard", name+".yaml")
		if *updateGolden {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), want) {
			t.Errorf("%s: the generated policies differ: go test -run GuardGolden -update-guard, and look at the difference\n%s", path, out.Bytes())
		}
	}
}

// guardCase is a request and what the rules say; it is tried on the expressions
// and, by TestGuardOnServer, on an API server.
type guardCase struct {
	name    string
	request GuardRequest
	object  string // YAML
	old     string
	want    []GuardRule // in their order
}

func guardCases() []guardCase {
	token := GuardRequest{Operation: "CREATE", Resource: "serviceaccounts", Sub: "token", Namespace: "shop", Name: "api"}
	create := func(group, resource, namespace string) GuardRequest {
		return GuardRequest{Operation: "CREATE", Group: group, Resource: resource, Namespace: namespace}
	}
	update := func(group, resource, namespace string) GuardRequest {
		return GuardRequest{Operation: "UPDATE", Group: group, Resource: resource, Namespace: namespace}
	}
	const rbac = "rbac.authorization.k8s.io"
	owned := "metadata: {name: x, labels: {team: shop}}\n"
	pod := func(meta, volumes string) string {
		return meta + "spec: {serviceAccountName: api, containers: [{name: c, image: i}], volumes: [" + volumes + "]}\n"
	}
	template := func(volumes string) string {
		return owned + "spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}], volumes: [" + volumes + "]}}}\n"
	}
	volume := func(seconds int, audience string) string {
		return fmt.Sprintf("{name: v, projected: {sources: [{configMap: {name: c}}, {serviceAccountToken: {path: t, expirationSeconds: %d, audience: %q}}]}}", seconds, audience)
	}
	binding := func(role, subjects string) string {
		return owned + "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: " + role + "}\nsubjects: [" + subjects + "]\n"
	}
	account := "{kind: ServiceAccount, namespace: shop, name: api}"
	user := func(kind, name string) string {
		return fmt.Sprintf("{apiGroup: rbac.authorization.k8s.io, kind: %s, name: %q}", kind, name)
	}
	role := func(rules string) string { return owned + "rules: " + rules + "\n" }
	tokens, secrets, admins, owners := []GuardRule{GuardTokens}, []GuardRule{GuardTokenSecrets}, []GuardRule{GuardAdmins}, []GuardRule{GuardOwners}
	as := func(q GuardRequest, user string, groups ...string) GuardRequest {
		q.User, q.Groups = user, groups
		return q
	}
	return []guardCase{
		{"a short token", token, "spec: {expirationSeconds: 7200}", "", nil},
		{"a long token", token, "spec: {expirationSeconds: 7201}", "", tokens},
		{"no lifetime", token, "spec: {}", "", nil},
		{"an allowed audience", token, "spec: {audiences: [vault]}", "", nil},
		{"another audience", token, "spec: {audiences: [vault, sts.amazonaws.com]}", "", tokens},
		{"a long token for an exempt account", GuardRequest{Operation: "CREATE", Resource: "serviceaccounts", Sub: "token", Namespace: "velero", Name: "server"}, "spec: {expirationSeconds: 99999}", "", nil},
		{"a long token in an exempt namespace", GuardRequest{Operation: "CREATE", Resource: "serviceaccounts", Sub: "token", Namespace: "istio-system", Name: "api"}, "spec: {expirationSeconds: 99999}", "", nil},
		{"a long token for an exempt user", as(token, "system:serviceaccount:flux-system:deployer"), "spec: {expirationSeconds: 99999}", "", nil},
		{"a long token for an administrator of the cluster", as(token, "root", "system:masters"), "spec: {expirationSeconds: 99999}", "", nil},
		{"a long token for a node", as(token, "system:node:a", "system:nodes", "system:authenticated"), "spec: {expirationSeconds: 99999}", "", nil},
		{"a long token for somebody in other groups", as(token, "alice", "system:authenticated"), "spec: {expirationSeconds: 99999}", "", tokens},
		{"a free token of the lifetime that is extended", token, "spec: {expirationSeconds: 3607}", "", nil},
		{"a pod's token of the lifetime that is extended to a year", token, "spec: {expirationSeconds: 3607, boundObjectRef: {kind: Pod, apiVersion: v1, name: x}}", "", tokens},

		{"a pod with the usual token", create("", "pods", "shop"), pod(owned, volume(3607, "")), "", nil},
		{"a pod with a long token", create("", "pods", "shop"), pod(owned, volume(86400, "")), "", tokens},
		{"a pod with a token for somebody else", create("", "pods", "shop"), pod(owned, volume(3600, "sts.amazonaws.com")), "", tokens},
		{"a pod with a token for vault", create("", "pods", "shop"), pod(owned, volume(3600, "vault")), "", nil},
		{"a pod of a controller of the cluster", as(create("", "pods", "shop"), "system:serviceaccount:kube-system:replicaset-controller", "system:serviceaccounts", "system:serviceaccounts:kube-system"), pod("metadata: {name: x}\n", volume(86400, "")), "", nil},
		{"a deployment with a long token", create("apps", "deployments", "shop"), template(volume(86400, "")), "", tokens},
		{"a deployment whose long token is not new", update("apps", "deployments", "shop"), template(volume(86400, "")), template(volume(86400, "")), nil},
		{"a deployment whose token becomes longer", update("apps", "deployments", "shop"), template(volume(99999, "")), template(volume(86400, "")), tokens},
		{"a cron job with a long token", create("batch", "cronjobs", "shop"), owned + "spec: {schedule: '* * * * *', jobTemplate: {spec: " + strings.TrimPrefix(strings.TrimPrefix(strings.ReplaceAll(template(volume(86400, "")), "selector: {matchLabels: {a: b}}, ", ""), owned), "spec: ") + "}}", "", tokens},
		{"a deployment without volumes", create("apps", "deployments", "shop"), template(""), "", nil},

		{"a token Secret", create("", "secrets", "shop"), "metadata: {name: x, annotations: {kubernetes.io/service-account.name: api}}\ntype: kubernetes.io/service-account-token", "", secrets},
		{"a token Secret of an exempt account", create("", "secrets", "velero"), "metadata: {name: x, annotations: {kubernetes.io/service-account.name: server}}\ntype: kubernetes.io/service-account-token", "", nil},
		{"another Secret", create("", "secrets", "shop"), "metadata: {name: x}\ntype: Opaque", "", nil},

		{"cluster-admin for an account", create(rbac, "clusterrolebindings", ""), binding("cluster-admin", user("User", "alice@example.com")+", "+account), "", admins},
		{"cluster-admin in a namespace", create(rbac, "rolebindings", "shop"), binding("cluster-admin", account), "", admins},
		{"a configured role for an account", create(rbac, "rolebindings", "shop"), binding("platform-admin", account), "", admins},
		{"view for an account", create(rbac, "rolebindings", "shop"), binding("view", account), "", nil},
		{"cluster-admin for a person", create(rbac, "clusterrolebindings", ""), binding("cluster-admin", user("User", "alice@example.com")), "", nil},
		{"cluster-admin for a user that is a machine", create(rbac, "clusterrolebindings", ""), binding("cluster-admin", user("User", "ci")), "", admins},
		{"cluster-admin for an account as a user", create(rbac, "clusterrolebindings", ""), binding("cluster-admin", user("User", "system:serviceaccount:shop:api")), "", admins},
		{"cluster-admin for everybody", create(rbac, "clusterrolebindings", ""), binding("cluster-admin", user("Group", "system:authenticated")), "", admins},
		{"cluster-admin for the accounts of a namespace", create(rbac, "clusterrolebindings", ""), binding("cluster-admin", user("Group", "system:serviceaccounts:shop")), "", admins},
		{"cluster-admin for the accounts of an exempt namespace", create(rbac, "clusterrolebindings", ""), binding("cluster-admin", user("Group", "system:serviceaccounts:istio-system")+", {kind: ServiceAccount, namespace: istio-system, name: x}, "+user("User", "system:serviceaccount:istio-system:x")), "", nil},
		{"cluster-admin for an exempt account", create(rbac, "clusterrolebindings", ""), binding("cluster-admin", "{kind: ServiceAccount, namespace: velero, name: server}, "+user("User", "system:serviceaccount:velero:server")), "", nil},
		{"cluster-admin for nobody", create(rbac, "clusterrolebindings", ""), binding("cluster-admin", ""), "", nil},
		{"a binding that had the account", update(rbac, "clusterrolebindings", ""), binding("cluster-admin", account+", "+user("User", "bob")), binding("cluster-admin", account), nil},
		{"a binding that gets another account", update(rbac, "clusterrolebindings", ""), binding("cluster-admin", account+", {kind: ServiceAccount, namespace: shop, name: b}"), binding("cluster-admin", account), admins},
		{"a role for everything", create(rbac, "clusterroles", ""), role(`[{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}]`), "", admins},
		{"a role that may bind", create(rbac, "clusterroles", ""), role(`[{apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], verbs: [bind]}]`), "", admins},
		{"a role that may escalate", create(rbac, "roles", "shop"), role(`[{apiGroups: ["*"], resources: [roles], verbs: [get, escalate]}]`), "", admins},
		{"a role that may impersonate", create(rbac, "clusterroles", ""), role(`[{apiGroups: [""], resources: [users], verbs: [impersonate]}]`), "", admins},
		{"a role that may do everything to accounts", create(rbac, "clusterroles", ""), role(`[{apiGroups: [""], resources: [serviceaccounts], verbs: ["*"]}]`), "", admins},
		{"a role that reads everything", create(rbac, "clusterroles", ""), role(`[{apiGroups: ["*"], resources: ["*"], verbs: [get, list, watch]}]`), "", nil},
		{"a role that writes roles", create(rbac, "clusterroles", ""), role(`[{apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], verbs: [create, update]}]`), "", nil},
		{"a role without rules", create(rbac, "clusterroles", ""), owned + "rules: null", "", nil},
		{"a role of URLs", create(rbac, "clusterroles", ""), role(`[{nonResourceURLs: ["*"], verbs: ["*"]}]`), "", nil},
		{"a powerful role that keeps its rule", update(rbac, "clusterroles", ""), role(`[{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}, {apiGroups: [""], resources: [pods], verbs: [get]}]`), role(`[{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}]`), nil},
		{"a role that becomes powerful", update(rbac, "clusterroles", ""), role(`[{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}]`), role(`[]`), admins},

		{"an account without an owner", create("", "serviceaccounts", "shop"), "metadata: {name: x}", "", owners},
		{"an account whose owner is unknown", create("", "serviceaccounts", "shop"), "metadata: {name: x, labels: {owner: unknown}, annotations: {team: 'n/a; none'}}", "", owners},
		{"an account with an owner", create("", "serviceaccounts", "shop"), "metadata: {name: x, labels: {owner: alice}}", "", nil},
		{"an owner in an annotation behind a prefix", create("", "serviceaccounts", "shop"), "metadata: {name: x, annotations: {example.com/Team: shop}}", "", nil},
		{"an owner under a configured key", create("", "serviceaccounts", "shop"), "metadata: {name: x, labels: {example.com/squad: shop}}", "", nil},
		{"an owner under a key like a configured one", create("", "serviceaccounts", "shop"), "metadata: {name: x, labels: {squad-of: shop}}", "", owners},
		{"an account of the cluster's own namespace", create("", "serviceaccounts", "kube-system"), "metadata: {name: x}", "", nil},
		{"an exempt account", create("", "serviceaccounts", "velero"), "metadata: {name: server}", "", nil},
		{"a deployment whose template names an owner", create("apps", "deployments", "shop"), "metadata: {name: x}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}, annotations: {owner: alice}}, spec: {containers: [{name: c, image: i}]}}}", "", nil},
		{"a deployment without an owner", create("apps", "deployments", "shop"), "metadata: {name: x}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}", "", owners},
		{"a deployment without an owner is changed", update("apps", "deployments", "shop"), "metadata: {name: x}\nspec: {replicas: 2}", "metadata: {name: x}\nspec: {replicas: 1}", nil},
		{"a pod without an owner", create("", "pods", "shop"), pod("metadata: {name: x}\n", ""), "", owners},
		{"a pod of a controller", create("", "pods", "shop"), pod("metadata: {name: x, ownerReferences: [{apiVersion: example.com/v1, kind: Rollout, name: r, uid: u, controller: true}]}\n", ""), "", nil},
		{"something else", create("", "configmaps", "shop"), "metadata: {name: x}", "", nil},
	}
}

func guardYAML(t testing.TB, text string) map[string]any {
	t.Helper()
	if text == "" {
		return nil
	}
	body, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	o, err := guardObjectOf(body)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestGuardJudge(t *testing.T) {
	j, err := NewGuardJudge(allGuarded(GuardEnforce))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range guardCases() {
		q := c.request
		q.Object, q.Old = guardYAML(t, c.object), guardYAML(t, c.old)
		found, err := j.Judge(q)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		var rules []GuardRule
		for _, v := range found {
			rules = append(rules, v.Rule)
			if !strings.HasPrefix(v.Message, "Remit's guard: ") {
				t.Errorf("%s: refused in the words %q", c.name, v.Message)
			}
		}
		if !slices.Equal(rules, c.want) {
			t.Errorf("%s: refused by %v, not by %v", c.name, rules, c.want)
		}
	}
}

// A namespace answers for what is in it, and what is not known is not judged.
func TestGuardJudgeHome(t *testing.T) {
	j, err := NewGuardJudge(allGuarded(GuardAudit))
	if err != nil {
		t.Fatal(err)
	}
	q := GuardRequest{Operation: "CREATE", Resource: "serviceaccounts", Namespace: "shop", Object: guardYAML(t, "metadata: {name: x}")}
	q.Home = guardYAML(t, "metadata: {name: shop, annotations: {contact: shop@example.com}}")
	if found, err := j.Judge(q); err != nil || len(found) > 0 {
		t.Errorf("an account in a namespace with an owner: %v, %v", found, err)
	}
	q.Object = nil
	if found, err := j.Judge(q); err != nil || len(found) != 1 || found[0] != (GuardViolation{Rule: GuardOwners}) {
		t.Errorf("an account of which nothing is known: %v, %v", found, err)
	}
	q.Groups = []string{"system:masters"}
	if found, err := j.Judge(q); err != nil || len(found) != 0 {
		t.Errorf("an account that an administrator made: %v, %v", found, err)
	}
}

func TestGuardCheck(t *testing.T) {
	for name, g := range map[string]Guard{
		"rule":      {Rules: map[GuardRule]GuardState{"everything": GuardAudit}},
		"state":     {Rules: map[GuardRule]GuardState{GuardTokens: "deny"}},
		"short":     {MaxTokenLifetime: time.Minute},
		"long":      {MaxTokenLifetime: 366 * 24 * time.Hour},
		"namespace": {Exempt: GuardExempt{Namespaces: []string{"Shop"}}},
		"account":   {Exempt: GuardExempt{Accounts: []string{"api"}}},
		"empty":     {Audiences: []string{""}},
		"control":   {Machines: []string{"a\nb"}},
		"many":      {AdminRoles: slices.Repeat([]string{"a"}, guardMaxNames+1)},
	} {
		if err := g.Check(); remit.KindOf(err) != remit.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := allGuarded(GuardAudit).Check(); err != nil {
		t.Error(err)
	}
	if (Guard{Rules: map[GuardRule]GuardState{GuardTokens: GuardOff}}).On() {
		t.Error("a guard that is off is on")
	}
}

// FuzzGuardOwnerKey holds that the policy and the inventory agree on what names an
// owner.
func FuzzGuardOwner(f *testing.F) {
	f.Add("owner", "alice")
	f.Add("example.com/Team", "none; unknown")
	f.Add("a8r.io/owner", `"-"`)
	f.Add("guilds", "x")
	f.Add("team", "none-")
	f.Add("team", "none,;tbd")
	j, err := NewGuardJudge(allGuarded(GuardAudit))
	if err != nil {
		f.Fatal(err)
	}
	reader := newOwnerReader(allGuarded(GuardAudit).OwnerKeys)
	f.Fuzz(func(t *testing.T, key, value string) {
		plain := func(s string) bool {
			return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
		}
		// Keys are what Kubernetes takes. Inside of quotes the inventory minds
		// spaces and the policy does not.
		if !plain(key) || !plain(value) || strings.ContainsAny(value, `"'[]`) {
			return
		}
		found, err := j.Judge(GuardRequest{Operation: "CREATE", Resource: "serviceaccounts", Namespace: "shop", Object: map[string]any{
			"metadata": map[string]any{"name": "x", "annotations": map[string]any{key: value}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if claims := reader.claims(nil, map[string]string{key: value}); (len(claims) > 0) != (len(found) == 0) {
			t.Errorf("%q: %q: the inventory finds the owners %v, and the policy refuses %v", key, value, claims, found)
		}
	})
}

// TestGuardInventory tries a guard on what files hold, through the store.
func TestGuardInventory(t *testing.T) {
	ctx := t.Context()
	manifests := filepath.Join(t.TempDir(), "all.yaml")
	text := `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: owned, annotations: {contact: alice@example.com}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: api, namespace: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: quiet, namespace: owned}
---
apiVersion: v1
kind: Secret
metadata: {name: api-token, namespace: shop, annotations: {kubernetes.io/service-account.name: api}}
type: kubernetes.io/service-account-token
data: {token: eA==}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, labels: {team: shop}}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec:
      serviceAccountName: api
      containers: [{name: c, image: i}]
      volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t, expirationSeconds: 86400}}]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: boss}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, namespace: shop, name: api}, {kind: ServiceAccount, namespace: velero, name: server}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: binder, namespace: shop}
rules: [{apiGroups: [rbac.authorization.k8s.io], resources: [roles], verbs: [bind]}, {apiGroups: [apps], resources: ["*"], verbs: ["*"]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: shop}
rules: [{apiGroups: ["*"], resources: ["*"], verbs: [get]}, {apiGroups: [apps], resources: ["*"], verbs: ["*"]}]
`
	if err := os.WriteFile(manifests, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := OpenFiles([]string{manifests}, Config{Name: "files"})
	if err != nil {
		t.Fatal(err)
	}
	store, err := sqlstore.Open(ctx, "sqlite:"+filepath.Join(t.TempDir(), "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	read, err := (&inventory.Reconciler{Store: store}).Sync(ctx, files)
	if err != nil {
		t.Fatal(err)
	}
	j, err := NewGuardJudge(allGuarded(GuardAudit))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	if err := j.Inventory(ctx, store, read.System.ID, func(m GuardMatch) { found = append(found, string(m.Rule)+": "+m.Object.String()) }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(found)
	want := []string{
		"admins: ClusterRoleBinding boss", "admins: Role shop/binder", "owners: ServiceAccount shop/api",
		"token-secrets: Secret shop/api-token", "tokens: Deployment shop/web",
	}
	if !slices.Equal(found, want) {
		t.Errorf("found %q, not %q", found, want)
	}

	homes, err := GuardHomes(ctx, store, read.System.ID)
	if err != nil {
		t.Fatal(err)
	}
	event := func(user, groups, resource, namespace, body string) []GuardMatch {
		t.Helper()
		if body != "" {
			body = `,"requestObject":` + body
		}
		raw := []byte(`{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"1","stage":"ResponseComplete","verb":"create",` +
			`"requestURI":"/x","user":{"username":"` + user + `","groups":[` + groups + `]},"sourceIPs":["10.0.0.1"],` +
			`"objectRef":{"resource":"` + resource + `","namespace":"` + namespace + `","name":"x","apiVersion":"v1"},"responseStatus":{"code":201},` +
			`"requestReceivedTimestamp":"2026-11-20T10:00:00.000000Z"` + body + `}`)
		v, err := fastjson.ParseBytes(raw)
		if err != nil {
			t.Fatal(err)
		}
		var e connector.Event
		if err := Audit.Decode(v, &connector.Interner{}, &e); err != nil {
			t.Fatal(err)
		}
		found, err := j.Event(&e.Activity, raw, homes)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	const account = `{"metadata":{"name":"x"}}`
	if got := event("alice", "", "serviceaccounts", "shop", account); len(got) != 1 || got[0].Rule != GuardOwners || got[0].Message == "" {
		t.Errorf("an account without an owner: %+v", got)
	}
	if got := event("alice", "", "serviceaccounts", "owned", account); len(got) != 0 {
		t.Errorf("an account in a namespace with an owner: %+v", got)
	}
	if got := event("alice", `"system:masters"`, "serviceaccounts", "shop", account); len(got) != 0 {
		t.Errorf("an account that an administrator made: %+v", got)
	}
	if got := event("alice", "", "serviceaccounts", "shop", ""); len(got) != 1 || got[0].Message != "" {
		t.Errorf("an account of which the log holds nothing: %+v", got)
	}
	if got := event("system:serviceaccount:kube-system:job-controller", "", "pods", "shop", ""); len(got) != 0 {
		t.Errorf("a pod that a controller made: %+v", got)
	}
	if got := event("alice", "", "configmaps", "shop", ""); len(got) != 0 {
		t.Errorf("what no rule is about: %+v", got)
	}
}

// FuzzAuditRefusal holds that no note of the log stops an event from being read.
func FuzzAuditRefusal(f *testing.F) {
	f.Add(`[{"message":"Remit's guard: no","policy":"remit-guard-tokens","binding":"b","expressionIndex":0,"validationActions":["Deny","Audit"]}]`)
	f.Add(`[{"policy":"x"},{"policy":1},3,null]`)
	f.Add(`{`)
	f.Fuzz(func(t *testing.T, note string) {
		v := fastjson.MustParse(`{}`)
		v.Set("note", new(fastjson.Arena).NewString(note))
		a := remit.Activity{Code: 403, Outcome: remit.Denied}
		readRefusal(v.Get("note"), &connector.Interner{}, &a)
		if len(a.Reason) > maxRefusal+8 {
			t.Errorf("a reason of %d bytes", len(a.Reason))
		}
		if _, _, ok := GuardVerdict(a.Reason); ok && !strings.Contains(note, guardPrefix) {
			t.Errorf("%q is read as the guard's", note)
		}
	})
}
