package policy

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"remit"
)

var update = flag.Bool("update", false, "write the golden files anew")

// loaded is the built-in pack; compiling it takes a while under the race
// detector.
var loaded = sync.OnceValues(func() (*Set, error) { return Load() })

func pack(t testing.TB) *Set {
	t.Helper()
	set, err := loaded()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range set.Problems() {
		t.Error(p)
	}
	return set
}

// TestPackTests runs the tests that the built-in policies carry.
func TestPackTests(t *testing.T) {
	results := Test(context.Background(), pack(t))
	for _, r := range results {
		if !r.Passed() {
			t.Errorf("%s:%d: %s, %s: %s", r.File, r.Line, r.Policy, r.Case, r.Fault)
		}
	}
	if len(results) < 150 {
		t.Errorf("only %d tests ran", len(results))
	}
}

// controls are the ones that findings may map to, in their one spelling.
var controls = regexp.MustCompile(`^(SOC 2 (CC6\.[1236]|CC7\.[234])|` +
	`ISO/IEC 27001 A\.(5\.1[5678]|8\.2|8\.3|8\.5|8\.15|8\.16)|` +
	`NIST SP 800-53 (AC-2|AC-2\((1|3|4|7|12)\)|AC-3|AC-5|AC-6|AC-6\((7|9)\)|AU-(2|3|6|9|10|12)|IA-[2349]|IA-5|IA-5\((1|7|13)\)|IR-4|SI-4)|` +
	`NIST CSF (ID\.AM|PR\.AA-0[135]|DE\.CM-03|DE\.AE|RS\.MI)|` +
	`PCI DSS (7\.2\.4|7\.2\.5|7\.2\.5\.1|8\.2\.1|8\.2\.6|8\.3\.9|8\.6\.[123]|10\.2))$`)

var risks = regexp.MustCompile(`^(NHI([1-9]|10)|ASI(0[1-9]|10)|T(1078|1098|1528|1552|1134|1136|1609|1613)|T1078\.004|T1098\.00[16]|T1550\.001|T1552\.007)$`)

// TestPackRules holds the built-in policies to what users may expect of them.
func TestPackRules(t *testing.T) {
	set := pack(t)
	if n := len(set.Policies()); n < 45 {
		t.Errorf("the pack has %d policies", n)
	}
	covered := map[string]bool{}
	titles := map[string]string{}
	for _, p := range set.Policies() {
		wrong := func(format string, args ...any) {
			t.Helper()
			t.Errorf("%s:%d: %s: %s", p.File, p.Line, p.ID, fmt.Sprintf(format, args...))
		}
		if titles[p.Title] != "" {
			wrong("has the title of %s", titles[p.Title])
		}
		titles[p.Title] = p.ID
		if len(p.Description) < 80 {
			wrong("the description hardly says why it matters")
		}
		if strings.HasSuffix(p.Title, ".") || strings.HasSuffix(strings.TrimSpace(p.Message), ".") {
			wrong("titles and messages end without a full stop")
		}
		owasp := false
		for _, r := range p.Risks {
			covered[r] = true
			owasp = owasp || strings.HasPrefix(r, "NHI") || strings.HasPrefix(r, "ASI")
			if !risks.MatchString(r) {
				wrong("unknown risk %s", r)
			}
		}
		if !owasp {
			wrong("no OWASP risk")
		}
		if len(p.Controls) < 2 {
			wrong("fewer than two controls")
		}
		for _, c := range p.Controls {
			if !controls.MatchString(c) {
				wrong("unknown control %s", c)
			}
		}
		for _, par := range p.Parameters {
			if par.Description == "" {
				wrong("parameter %s has no description", par.Name)
			}
		}
		match, none, message := 0, 0, false
		for _, c := range p.Cases {
			message = message || c.Message != ""
			if c.Want {
				match++
			} else {
				none++
			}
		}
		if match == 0 || none == 0 {
			wrong("needs a test that matches and one that does not")
		}
		if !message {
			wrong("no test of its message")
		}
	}
	for i := 1; i <= 10; i++ {
		if r := fmt.Sprint("NHI", i); !covered[r] {
			t.Errorf("no policy covers %s", r)
		}
	}
}

// TestPackList locks in which policies there are: an id that goes away, or a
// severity that changes, breaks somebody's dashboard and needs a line in the
// release notes.
func TestPackList(t *testing.T) {
	var b strings.Builder
	for _, p := range pack(t).Policies() {
		fmt.Fprintf(&b, "%s %s %s", p.ID, p.Subject, p.Severity)
		for _, s := range p.SeverityWhen {
			fmt.Fprintf(&b, ",%s", s.Severity)
		}
		fmt.Fprintf(&b, " %s\n", cmp.Or(p.Family, "-"))
	}
	const golden = "testdata/pack.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.String(); got != string(want) {
		t.Errorf("the pack is not that of %s (run with -update when that is meant):\n%s", golden, got)
	}
}

// records reads records in the short form of the tests.
func records(t testing.TB, short string) remit.Records {
	t.Helper()
	set := loadFaulty(t, "id: x\ntitle: x\ndescription: x\nsubject: identity\nseverity: low\nmatch: 'false'\nmessage: x\nremedy: x\ntests:\n- match: false\n  identity: {kind: Namespace, name: nobody, built_in: true}\n  with:\n"+indent(short))
	for _, p := range set.Problems() {
		t.Fatal(p)
	}
	return set.Policy("x").Cases[0].Records
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n    ") + "\n"
}

func check(t testing.TB, set *Set, all remit.Records) []remit.Finding {
	t.Helper()
	e := NewEvaluator(set, newMemory(all, nil), nil)
	e.Now = func() time.Time { return caseNow }
	var found []remit.Finding
	report, err := e.Check(context.Background(), systemOfCase(caseSystem), func(f remit.Finding) error {
		found = append(found, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range report.Errors {
		t.Errorf("%s on %s: %s", e.Policy, e.Subject.Ref, e.Message)
	}
	return found
}

// A cluster as kubeadm makes it, with nothing in it.
const freshCluster = `
identities:
- {kind: ServiceAccount, namespace: default, name: default, created: -30d, attributes: {default: "true", automount: "true"}}
- {kind: ServiceAccount, namespace: kube-system, name: default, created: -30d, attributes: {default: "true"}}
- {kind: ServiceAccount, namespace: kube-system, name: coredns, created: -30d}
- {kind: ServiceAccount, namespace: kube-system, name: kube-proxy, created: -30d}
- {kind: ServiceAccount, namespace: kube-system, name: bootstrap-signer, created: -30d}
- {kind: ServiceAccount, namespace: kube-system, name: clusterrole-aggregation-controller, built_in: true, created: -30d}
- {kind: ServiceAccount, namespace: kube-system, name: generic-garbage-collector, built_in: true, created: -30d}
- {kind: Deployment, namespace: kube-system, name: coredns, created: -30d}
- {kind: DaemonSet, namespace: kube-system, name: kube-proxy, attributes: {privileged: "true", host-network: "true"}}
- {kind: Pod, namespace: kube-system, name: kube-apiserver-cp, attributes: {host-network: "true", automount: "false"}}
- {kind: Node, name: cp}
- {kind: User, name: "system:kube-scheduler", type: workload, built_in: true}
- {kind: User, name: "system:anonymous", built_in: true}
- {kind: User, name: "system:bootstrap:abcdef", type: workload, built_in: true}
- {kind: Group, name: "system:masters", built_in: true}
- {kind: Group, name: "kubeadm:cluster-admins"}
- {kind: APIService, name: v1.apps, built_in: true}
- {kind: OIDCIssuer, name: "https://kubernetes.default.svc"}
credentials:
- {kind: Secret, namespace: kube-system, name: bootstrap-token-abcdef, key: token-secret, type: static-token, provider: kubernetes, identity: "User system:bootstrap:abcdef", created: -1h, expires: +23h, attributes: {bootstrap: "true", usages: "authentication,signing"}}
- {kind: ConfigMap, namespace: kube-system, name: kube-root-ca.crt, key: ca.crt, type: certificate, native: X509SHA256=1, algorithm: RSA, key_bits: 2048, expires: +3650d, granted_lifetime: 3650d, attributes: {ca: "true", self-signed: "true"}}
- {kind: ConfigMap, namespace: default, name: kube-root-ca.crt, key: ca.crt, type: certificate, native: X509SHA256=1, algorithm: RSA, key_bits: 2048, expires: +3650d, granted_lifetime: 3650d, attributes: {ca: "true", self-signed: "true"}}
- {kind: CertificateSigningRequest, name: csr-abcde, type: certificate, provider: kubernetes, identity: "User system:node:cp", subject: "O=system:nodes,CN=system:node:cp", expires: +365d, granted_lifetime: 365d, attributes: {groups: "system:nodes", signer: kubernetes.io/kube-apiserver-client-kubelet}}
- {kind: Deployment, namespace: kube-system, name: coredns, key: automount, type: short-lived-token, identity: ServiceAccount kube-system/coredns, lifetime: 3607s, granted_lifetime: 365d, attributes: {automounted: "true"}}
- {kind: DaemonSet, namespace: kube-system, name: kube-proxy, key: automount, type: short-lived-token, identity: ServiceAccount kube-system/kube-proxy, lifetime: 3607s, granted_lifetime: 365d, attributes: {automounted: "true"}}
roles:
- {kind: ClusterRole, name: cluster-admin, built_in: true, permissions: ["* on *.*", "* on /*"]}
- {kind: ClusterRole, name: "system:controller:clusterrole-aggregation-controller", built_in: true, permissions: ["escalate, get, list, patch, update, watch on clusterroles.rbac.authorization.k8s.io"]}
- {kind: ClusterRole, name: "system:controller:generic-garbage-collector", built_in: true, permissions: ["delete, get, list, patch, update, watch on *.*"]}
- {kind: ClusterRole, name: "system:kube-scheduler", built_in: true, permissions: ["create on pods/binding, events", "get, list, watch on pods, nodes"]}
- {kind: ClusterRole, name: "system:node-proxier", built_in: true, permissions: ["list, watch on services, endpoints, nodes", "create, patch, update on events"]}
- {kind: ClusterRole, name: "system:coredns", permissions: ["list, watch on endpoints, services, pods, namespaces", "list, watch on endpointslices.discovery.k8s.io"]}
- {kind: ClusterRole, name: "system:node-bootstrapper", built_in: true, permissions: ["create, get, list, watch on certificatesigningrequests.certificates.k8s.io"]}
- {kind: ClusterRole, name: "system:discovery", built_in: true, permissions: ["get on /api, /apis"]}
- {kind: ClusterRole, name: "system:basic-user", built_in: true, permissions: ["create on selfsubjectaccessreviews.authorization.k8s.io"]}
- {kind: ClusterRole, name: "system:public-info-viewer", built_in: true, permissions: ["get on /healthz, /version"]}
- {kind: ClusterRole, name: "kubeadm:get-nodes", permissions: ["get on nodes"]}
- {kind: Role, namespace: kube-public, name: "kubeadm:bootstrap-signer-clusterinfo", permissions: ["get on configmaps named cluster-info"]}
- {kind: Role, namespace: kube-system, name: "kubeadm:nodes-kubeadm-config", permissions: ["get on configmaps named kubeadm-config"]}
- {kind: Role, namespace: kube-system, name: "system:controller:bootstrap-signer", built_in: true, permissions: ["get, list, watch on secrets"]}
- {kind: ClusterRole, name: "system:certificates.k8s.io:certificatesigningrequests:nodeclient", built_in: true, permissions: ["create on certificatesigningrequests/nodeclient.certificates.k8s.io"]}
grants:
- {kind: ClusterRoleBinding, name: cluster-admin, built_in: true, identity: "Group system:masters", role: ClusterRole cluster-admin}
- {kind: ClusterRoleBinding, name: "kubeadm:cluster-admins", identity: "Group kubeadm:cluster-admins", role: ClusterRole cluster-admin}
- {kind: ClusterRoleBinding, name: "kubeadm:get-nodes", identity: "Group system:bootstrappers:kubeadm:default-node-token", role: "ClusterRole kubeadm:get-nodes"}
- {kind: ClusterRoleBinding, name: "kubeadm:kubelet-bootstrap", identity: "Group system:bootstrappers:kubeadm:default-node-token", role: "ClusterRole system:node-bootstrapper"}
- {kind: ClusterRoleBinding, name: "kubeadm:node-autoapprove-bootstrap", identity: "Group system:bootstrappers:kubeadm:default-node-token", role: "ClusterRole system:certificates.k8s.io:certificatesigningrequests:nodeclient"}
- {kind: ClusterRoleBinding, name: "kubeadm:node-proxier", identity: ServiceAccount kube-system/kube-proxy, role: "ClusterRole system:node-proxier"}
- {kind: ClusterRoleBinding, name: "system:coredns", identity: ServiceAccount kube-system/coredns, role: "ClusterRole system:coredns"}
- {kind: ClusterRoleBinding, name: "system:discovery", built_in: true, identity: "Group system:authenticated", role: "ClusterRole system:discovery"}
- {kind: ClusterRoleBinding, name: "system:basic-user", built_in: true, identity: "Group system:authenticated", role: "ClusterRole system:basic-user"}
- {kind: ClusterRoleBinding, name: "system:public-info-viewer", built_in: true, identity: "Group system:unauthenticated", role: "ClusterRole system:public-info-viewer"}
- {kind: ClusterRoleBinding, name: "system:controller:clusterrole-aggregation-controller", built_in: true, identity: ServiceAccount kube-system/clusterrole-aggregation-controller, role: "ClusterRole system:controller:clusterrole-aggregation-controller"}
- {kind: ClusterRoleBinding, name: "system:controller:generic-garbage-collector", built_in: true, identity: ServiceAccount kube-system/generic-garbage-collector, role: "ClusterRole system:controller:generic-garbage-collector"}
- {kind: ClusterRoleBinding, name: "system:kube-scheduler", built_in: true, identity: "User system:kube-scheduler", role: "ClusterRole system:kube-scheduler"}
- {kind: RoleBinding, namespace: kube-public, name: "kubeadm:bootstrap-signer-clusterinfo", identity: "User system:anonymous", role: "Role kube-public/kubeadm:bootstrap-signer-clusterinfo"}
- {kind: RoleBinding, namespace: kube-system, name: "kubeadm:nodes-kubeadm-config", identity: "Group system:nodes", role: "Role kube-system/kubeadm:nodes-kubeadm-config"}
- {kind: RoleBinding, namespace: kube-system, name: "system:controller:bootstrap-signer", built_in: true, identity: ServiceAccount kube-system/bootstrap-signer, role: "Role kube-system/system:controller:bootstrap-signer"}
relations:
- {type: runs-as, from: Deployment kube-system/coredns, to: ServiceAccount kube-system/coredns}
- {type: runs-as, from: DaemonSet kube-system/kube-proxy, to: ServiceAccount kube-system/kube-proxy}
- {type: runs-as, from: Pod kube-system/kube-apiserver-cp, to: ServiceAccount kube-system/default}
- {type: member-of, from: ServiceAccount kube-system/coredns, to: "Group system:serviceaccounts"}
- {type: member-of, from: "Group system:serviceaccounts", to: "Group system:authenticated"}
- {type: member-of, from: "User system:node:cp", to: "Group system:nodes"}
`

// TestFreshCluster: a new cluster has nothing to be ashamed of, and a user whose
// first scan is full of Kubernetes' own things would not do a second.
func TestFreshCluster(t *testing.T) {
	for _, f := range check(t, pack(t), records(t, freshCluster)) {
		t.Errorf("%s %s on %s: %s", f.Severity, f.Policy, f.Subject.Ref, f.Message)
	}
}

// TestOneProblemOneFinding: a grant of everything is not also reported as each
// of the rights that it contains.
func TestOneProblemOneFinding(t *testing.T) {
	for name, want := range map[string][]string{
		`
roles: [{kind: ClusterRole, name: cluster-admin, built_in: true, permissions: ["* on *.*", "* on /*"]}]
identities: [{kind: ServiceAccount, namespace: ci, name: runner, owners: [{name: ci, source: label}]}]
relations: [{type: runs-as, from: Deployment ci/runner, to: ServiceAccount ci/runner}]
grants: [{kind: ClusterRoleBinding, name: b, identity: ServiceAccount ci/runner, role: ClusterRole cluster-admin}]
`: {"administrator-machine"},
		`
roles: [{kind: ClusterRole, name: edit, built_in: true, permissions: ["get, list, watch, create, update, delete on secrets, pods, deployments.apps", "create on pods/exec, serviceaccounts/token", "impersonate on serviceaccounts"]}]
grants: [{kind: ClusterRoleBinding, name: b, identity: User carol@example.com, role: ClusterRole edit}]
`: {"secrets-readable-everywhere"},
		`
credentials: [{kind: ConfigMap, namespace: data, name: c, key: k, type: api-key, provider: aws, exposure: [configmap], created: -1d}]
`: {"secret-in-configmap"},
	} {
		all := records(t, name)
		all.Identities = slices.DeleteFunc(all.Identities, func(r remit.Identity) bool { return r.Kind == "Deployment" && len(r.Owners) == 0 })
		found := check(t, pack(t), all)
		var got []string
		for _, f := range found {
			got = append(got, f.Policy)
		}
		if !slices.Equal(got, want) {
			t.Errorf("found %v, want %v", got, want)
		}
	}
}

// TestAlsoIsEvidence: what the worst of a family leaves out, it names.
func TestAlsoIsEvidence(t *testing.T) {
	found := check(t, pack(t), records(t, `
credentials: [{kind: ConfigMap, namespace: data, name: c, key: k, type: api-key, provider: aws, exposure: [configmap]}]
`))
	if len(found) != 1 {
		t.Fatal(found)
	}
	var also []string
	for _, e := range found[0].Evidence {
		if e.Name == "Also" {
			also = append(also, e.Value)
		}
	}
	if want := []string{"Long-lived cloud key in the cluster (cloud-key-in-cluster)"}; !slices.Equal(also, want) {
		t.Errorf("also %q, want %q", also, want)
	}
}
