package kubernetes

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"remit"
)

func TestOwners(t *testing.T) {
	const text = `
kind: Namespace
apiVersion: v1
metadata: {name: shop, labels: {team: retail}, annotations: {contact: "shop@example.com; ops@example.com"}}
---
kind: ServiceAccount
apiVersion: v1
metadata: {name: own, namespace: shop, labels: {example.com/team: checkout}, annotations: {owner: "alice@example.com"}}
---
kind: ServiceAccount
apiVersion: v1
metadata: {name: inherits, namespace: shop, labels: {app.kubernetes.io/managed-by: Helm, owner: unknown}, annotations: {meta.helm.sh/release-name: store}}
---
kind: ServiceAccount
apiVersion: v1
metadata: {name: edited, namespace: bare, managedFields: [{manager: bob@example.com}, {manager: kubectl}, {manager: ci-bot@example.com}]}
---
kind: Deployment
apiVersion: apps/v1
metadata: {name: web, namespace: bare}
spec: {template: {metadata: {labels: {squad: blue}}, spec: {containers: []}}}
---
kind: ServiceAccount
apiVersion: v1
metadata: {name: nobody, namespace: bare}
---
kind: ServiceAccount
apiVersion: v1
metadata: {name: cost, namespace: bare, labels: {cost-owner: finance}}
---
kind: RoleBinding
apiVersion: rbac.authorization.k8s.io/v1
metadata: {name: b, namespace: shop}
roleRef: {kind: ClusterRole, name: view}
subjects: [{kind: User, name: alice@example.com}]
`
	records, _, _ := read(t, manifests(text), Config{OwnerKeys: []string{"cost-owner"}})
	for name, want := range map[string]string{
		"shop/own":      "alice@example.com (annotation owner) checkout (label example.com/team) retail (namespace label team) shop@example.com (namespace annotation contact) ops@example.com (namespace annotation contact)",
		"shop/inherits": "retail (namespace label team) shop@example.com (namespace annotation contact) ops@example.com (namespace annotation contact) store (helm release)",
		"bare/edited":   "bob@example.com (field manager)",
		"bare/web":      "blue (pod template label squad)",
		"bare/nobody":   "",
		"bare/cost":     "finance (label cost-owner)",
	} {
		ns, short, _ := strings.Cut(name, "/")
		i := slices.IndexFunc(records.Identities, func(id remit.Identity) bool { return id.Namespace == ns && id.Name == short })
		if i < 0 {
			t.Fatalf("%s is not there", name)
		}
		var got []string
		for _, o := range records.Identities[i].Owners {
			got = append(got, fmt.Sprintf("%s (%s)", o.Name, o.Source))
			if o.Name == "alice@example.com" && o.Identity != remit.IdentityID(records.Identities[i].System, remit.Ref{Kind: "User", Name: "alice@example.com"}) {
				t.Errorf("%s: the owner is a user of the cluster, and not linked", name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q\nwant %q", name, strings.Join(got, " "), want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	const text = `
{kind: Namespace, apiVersion: v1, metadata: {name: a, labels: {environment: PROD}}}
---
{kind: Namespace, apiVersion: v1, metadata: {name: shop-dev, labels: {app.kubernetes.io/environment: canary}}}
---
{kind: ServiceAccount, apiVersion: v1, metadata: {name: s, namespace: a}}
---
{kind: ServiceAccount, apiVersion: v1, metadata: {name: s, namespace: shop-dev}}
---
{kind: ServiceAccount, apiVersion: v1, metadata: {name: s, namespace: pay-stg-1}}
---
{kind: ServiceAccount, apiVersion: v1, metadata: {name: s, namespace: product-devices}}
---
{kind: ServiceAccount, apiVersion: v1, metadata: {name: t, namespace: a, labels: {example.com/env: qa}}}
`
	for fallback, want := range map[string]string{"": "a/s production,a/t test,pay-stg-1/s staging,product-devices/s ,shop-dev/s canary", "live": "a/s production,a/t test,pay-stg-1/s staging,product-devices/s live,shop-dev/s canary"} {
		records, _, _ := read(t, manifests(text), Config{Environment: fallback})
		var got []string
		for _, id := range records.Identities {
			if id.Kind == "ServiceAccount" {
				got = append(got, id.Namespace+"/"+id.Name+" "+id.Environment)
			}
		}
		slices.Sort(got)
		if strings.Join(got, ",") != want {
			t.Errorf("fallback %q: %q, want %q", fallback, got, want)
		}
	}
}

func TestSubjectType(t *testing.T) {
	for name, want := range map[string]remit.IdentityType{
		"alice": remit.Human, "alice@example.com": remit.Human, "https://issuer.example.com#jane": remit.Human, "abbot": remit.Human,
		"jenkins-bot": remit.Application, "ci": remit.Application, "svc_deploy": remit.Application, "robot@example.com": remit.Application,
		"x@project.iam.gserviceaccount.com": remit.Application, "arn:aws:iam::123456789012:role/eks": remit.Application, "arn:aws:iam::123456789012:user/bob": remit.Human,
		"system:kube-proxy": remit.Workload, "spiffe://example.com/x": remit.Workload, "": remit.Human,
	} {
		if got := subjectType(name); got != want {
			t.Errorf("%q is %s, want %s", name, got, want)
		}
	}
}

func TestAgents(t *testing.T) {
	if n := len(builtInAgentRules()); n < 40 {
		t.Errorf("%d built-in rules, want at least 40", n)
	}
	user, err := ParseAgentRules("mine.yaml", strings.NewReader(`rules: [{id: mine, title: Ours, kind: agent, images: ["team/bot*"], provider: openai}]`))
	if err != nil {
		t.Fatal(err)
	}
	for i, test := range []struct{ labels, image, env, want, kind, known string }{
		{"", "docker.io/crewai/crewai:0.80", "", "crewai", "agent", "false"},
		{"", "registry.internal:5000/mirror/ollama/ollama@sha256:00", "", "ollama", "agent", "false"},
		{"", "vllm/vllm-openai", "", "vllm", "agent", "false"},
		{"", "ghcr.io/berriai/litellm:main", "", "litellm", "agent", "false"},
		{"", "example.com/app", "OPENAI_API_KEY", "openai-client", "agent", "false"},
		{"", "team/bot-2:1", "ANTHROPIC_API_KEY", "mine", "agent", "true"},
		{"remit.dev/agent: helper", "example.com/app", "", "label", "agent", "true"},
		{"ray.io/cluster: x", "example.com/app", "", "ray-serve", "agent", "false"},
		{"", "docker.io/library/postgres:17.2", "", "", "workload", ""},
		{"", "registry.example.com/payments/ledger:2", "PATH", "", "workload", ""},
		{"", "notollama/ollamax", "", "", "workload", ""},
		{"", "", "", "", "workload", ""},
		{"", ":::@@//", "", "", "workload", ""},
	} {
		env := ""
		if test.env != "" {
			env = fmt.Sprintf(", env: [{name: %s, value: x}]", test.env)
		}
		text := fmt.Sprintf(`{kind: Pod, apiVersion: v1, metadata: {name: p, namespace: ns, labels: {%s}}, spec: {containers: [{name: c, image: %q%s}]}}`, test.labels, test.image, env)
		records, gaps, _ := read(t, manifests(text), Config{AgentRules: user})
		id := identity(records, "Pod", "ns", "p")
		if id == nil {
			t.Fatalf("%d: no pod: %+v", i, gaps)
		}
		if id.Attributes["agent"] != test.want || string(id.Type) != test.kind || id.Attributes["agent-known"] != test.known {
			t.Errorf("%q %q %q: %s %v", test.labels, test.image, test.env, id.Type, id.Attributes)
		}
		if test.want == "mine" && id.Attributes["model-provider"] != "anthropic,openai" {
			t.Errorf("providers %q", id.Attributes["model-provider"])
		}
	}
	for _, bad := range []string{
		"rules: [{title: x}]", "rules: [{id: a}]", `rules: [{id: a, images: ["["]}]`, "rules: [{id: a, env: [X]}, {id: a, env: [Y]}]",
		"rules: [{id: a, resources: [Agent]}]", "rules: [{id: a, unknown: 1}]", "nonsense",
	} {
		if _, err := ParseAgentRules("x.yaml", strings.NewReader(bad)); remit.KindOf(err) != remit.Invalid || !strings.Contains(fmt.Sprint(err), "x.yaml") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	// A custom resource that a rule names is an agent; a look-alike of another
	// group is not, and a kind that the model knows is told apart.
	records, _, _ := read(t, manifests(`
{kind: Agent, apiVersion: kagent.dev/v1alpha2, metadata: {name: k, namespace: ns, labels: {team: ai}}}
---
{kind: Agent, apiVersion: other.dev/v1, metadata: {name: o, namespace: ns}}
`), Config{})
	if id := identity(records, "Agent", "ns", "k"); id == nil || id.Type != remit.Agent || id.Attributes["agent"] != "kagent" || len(id.Owners) != 1 {
		t.Errorf("the custom resource: %+v", id)
	}
	if identity(records, "Agent", "ns", "o") != nil {
		t.Error("a resource of another group counts as an agent")
	}
}

// Pods are shown as part of what made them, and nothing hides behind a claim.
func TestWorkloads(t *testing.T) {
	pod := func(name, owner, account string) string {
		return fmt.Sprintf("{kind: Pod, apiVersion: v1, metadata: {name: %s, namespace: ns, ownerReferences: [%s]}, spec: {serviceAccountName: %s, containers: [{name: c, image: i}]}}\n---\n", name, owner, account)
	}
	ref := func(kind, version, name, uid string) string {
		return fmt.Sprintf("{apiVersion: %s, kind: %s, name: %s, uid: %q, controller: true}", version, kind, name, uid)
	}
	text := `
{kind: Deployment, apiVersion: apps/v1, metadata: {name: web, namespace: ns, uid: "1"}, spec: {template: {spec: {serviceAccountName: a, containers: [{name: c, image: i}]}}}}
---
{kind: ReplicaSet, apiVersion: apps/v1, metadata: {name: web-1, namespace: ns, uid: "2", ownerReferences: [` + ref("Deployment", "apps/v1", "web", "1") + `]}, spec: {template: {spec: {serviceAccountName: a, containers: [{name: c, image: i}]}}}}
---
{kind: ReplicaSet, apiVersion: apps/v1, metadata: {name: loop-a, namespace: ns, uid: "3", ownerReferences: [` + ref("ReplicaSet", "apps/v1", "loop-b", "4") + `]}, spec: {template: {spec: {containers: []}}}}
---
{kind: ReplicaSet, apiVersion: apps/v1, metadata: {name: loop-b, namespace: ns, uid: "4", ownerReferences: [` + ref("ReplicaSet", "apps/v1", "loop-a", "3") + `]}, spec: {template: {spec: {containers: []}}}}
---
` + pod("web-1-a", ref("ReplicaSet", "apps/v1", "web-1", "2"), "a") +
		pod("thief", ref("ReplicaSet", "apps/v1", "web-1", "2"), "admin") +
		pod("stale", ref("ReplicaSet", "apps/v1", "web-1", "old"), "a") +
		pod("bare", "", "a") +
		pod("static", ref("Node", "v1", "node-1", "9"), "a") +
		pod("rollout-1", ref("Rollout", "argoproj.io/v1alpha1", "canary", "5"), "a") +
		pod("odd", ref("Secret", "evil.dev/v1", "s", "6"), "a") +
		pod("fake", ref("Deployment", "evil.dev/v1", "web", "1"), "a")
	records, gaps, _ := read(t, manifests(text), Config{})
	if len(gaps) > 0 {
		t.Fatalf("%+v", gaps)
	}
	var got []string
	for _, id := range records.Identities {
		if id.Type == remit.Workload {
			got = append(got, id.Kind+" "+id.Name)
		}
	}
	slices.Sort(got)
	want := []string{
		"Deployment web", "Deployment.evil.dev web", "Pod bare", "Pod stale", "Pod static", "Pod thief",
		"ReplicaSet loop-a", "ReplicaSet loop-b", "Rollout canary", "Secret.evil.dev s",
	}
	if !slices.Equal(got, want) {
		t.Errorf("workloads %q\nwant %q", got, want)
	}
}

// An implied token is dropped where the account refuses it and the pod is
// silent.
func TestAutomount(t *testing.T) {
	for _, test := range []struct {
		account, pod string
		want         bool
	}{
		{"", "", true}, {"false", "", false}, {"false", "true", true}, {"true", "false", false}, {"", "false", false}, {"true", "", true},
	} {
		line := func(v string) string {
			if v == "" {
				return ""
			}
			return ", automountServiceAccountToken: " + v
		}
		text := fmt.Sprintf("{kind: ServiceAccount, apiVersion: v1, metadata: {name: a, namespace: ns}%s}\n---\n{kind: Deployment, apiVersion: apps/v1, metadata: {name: d, namespace: ns}, spec: {template: {spec: {serviceAccountName: a, containers: [{name: c, image: i}]%s}}}}\n", line(test.account), line(test.pod))
		records, _, _ := read(t, manifests(text), Config{})
		got := slices.ContainsFunc(records.Credentials, func(c remit.Credential) bool { return c.Key == automountKey })
		if got != test.want {
			t.Errorf("account %q, pod %q: token %v, want %v", test.account, test.pod, got, test.want)
		}
	}
}

// The flags of the API server become attributes, and change what is granted.
func TestAPIServerFlags(t *testing.T) {
	const text = `
{kind: Namespace, apiVersion: v1, metadata: {name: kube-system, uid: abc}}
---
kind: Pod
apiVersion: v1
metadata: {name: kube-apiserver-a, namespace: kube-system, labels: {component: kube-apiserver}}
spec:
  containers:
  - name: kube-apiserver
    image: registry.k8s.io/kube-apiserver:v1.36.3
    command: [kube-apiserver, --oidc-issuer-url=https://login.example.com, --anonymous-auth=false, "--service-account-extend-token-expiration=false", --authorization-mode, "Node,RBAC", --service-account-key-file=/secret/path]
---
{kind: Deployment, apiVersion: apps/v1, metadata: {name: d, namespace: ns}, spec: {template: {spec: {containers: [{name: c, image: i}]}}}}
`
	records, _, c := read(t, manifests(text), Config{})
	system, err := c.System(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if system.Native != "abc" || system.Version != "v1.36.3" || system.Attributes["oidc-issuer-url"] != "https://login.example.com" || system.Attributes["anonymous-auth"] != "false" || system.Attributes["authorization-mode"] != "Node,RBAC" {
		t.Errorf("system %+v", system)
	}
	if _, ok := system.Attributes["service-account-key-file"]; ok {
		t.Error("flags that say nothing about access are kept")
	}
	if identity(records, "OIDCIssuer", "", "https://login.example.com") == nil {
		t.Error("the issuer is not an identity")
	}
	for _, cred := range records.Credentials {
		if cred.Key == automountKey && cred.Name == "d" && cred.GrantedLifetime != 3607 {
			t.Errorf("granted lifetime %d, though extension is off", cred.GrantedLifetime)
		}
	}
}
