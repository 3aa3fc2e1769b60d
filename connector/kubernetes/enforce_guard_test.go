package kubernetes

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fastjson"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"remit"
	"remit/connector"
	"remit/e2e/cluster"
)

// guarded is a cluster for the tests of the guard, which is about everything in
// it. It has a controller manager and a node: both must work on.
var guarded = sync.OnceValues(func() (*cluster.Cluster, error) {
	return cluster.Run(context.Background(), cluster.Options{Nodes: 1})
})

func guardCluster(t *testing.T) *cluster.Cluster {
	t.Helper()
	c, err := guarded()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var guardedOnce sync.Once

// openGuard is an enforcer of a guard, with just the rights that are documented.
func openGuard(t *testing.T, g Guard) *Enforcer {
	t.Helper()
	c := guardCluster(t)
	guardedOnce.Do(func() {
		ctx := t.Context()
		rules, _ := EnforcerRights()
		role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: enforcerUser}, Rules: rules}
		if _, err := c.Client.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		for name, subject := range map[string]rbacv1.Subject{
			enforcerUser:    {APIGroup: rbacv1.GroupName, Kind: "User", Name: enforcerUser},
			"cluster-admin": {APIGroup: rbacv1.GroupName, Kind: "Group", Name: guardTesters},
		} {
			binding := &rbacv1.ClusterRoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: "guard-test-" + name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
				Subjects: []rbacv1.Subject{subject},
			}
			if _, err := c.Client.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		for namespace, account := range map[string]string{"shop": "api", "velero": "server", "istio-system": "api"} {
			if _, err := c.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Client.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	})
	e, err := OpenEnforcerRESTConfig(c.Config(enforcerUser))
	if err != nil {
		t.Fatal(err)
	}
	e.guard = g
	return e
}

// guardTesters may do everything and are no part of the cluster.
const guardTesters = "guard-testers"

// guardTester makes the requests of the cases.
type guardTester struct {
	*kubernetes.Clientset
	mu       sync.Mutex
	warnings []string
}

func (w *guardTester) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.warnings = append(w.warnings, text)
}

func newGuardTester(t *testing.T, user string, groups ...string) *guardTester {
	t.Helper()
	w := &guardTester{}
	config := rest.CopyConfig(guardCluster(t).Config(user, append(groups, guardTesters)...))
	config.WarningHandler = w
	var err error
	if w.Clientset, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	return w
}

// path is where a case's request goes.
func (c *guardCase) path(name string) string {
	q := c.request
	path := "/api/v1"
	if q.Group != "" {
		path = "/apis/" + q.Group + "/v1"
	}
	if q.Namespace != "" {
		path += "/namespaces/" + q.Namespace
	}
	path += "/" + q.Resource
	if name != "" {
		path += "/" + name
	}
	if q.Sub != "" {
		path += "/" + q.Sub
	}
	return path
}

// body is the object with what an API server wants to have beside it.
func (c *guardCase) body(t *testing.T, text string) []byte {
	t.Helper()
	o := guardYAML(t, text)
	kinds := map[string]string{
		"serviceaccounts": "ServiceAccount", "pods": "Pod", "deployments": "Deployment", "cronjobs": "CronJob", "secrets": "Secret", "configmaps": "ConfigMap",
		"rolebindings": "RoleBinding", "clusterrolebindings": "ClusterRoleBinding", "roles": "Role", "clusterroles": "ClusterRole",
	}
	o["kind"], o["apiVersion"] = kinds[c.request.Resource], strings.TrimPrefix(c.request.Group+"/v1", "/")
	if c.request.Sub == "token" {
		o["kind"], o["apiVersion"] = "TokenRequest", "authentication.k8s.io/v1"
	}
	if spec, ok := o["spec"].(map[string]any); ok && c.request.Resource == "deployments" && spec["template"] == nil {
		full := guardYAML(t, "spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}")
		for k, v := range full["spec"].(map[string]any) {
			spec[k] = v
		}
	}
	if spec, ok := o["spec"].(map[string]any); ok && c.request.Resource == "cronjobs" {
		pod := spec["jobTemplate"].(map[string]any)["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
		pod["restartPolicy"] = "Never"
	}
	text2, err := yaml.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	body, err := yaml.YAMLToJSON(text2)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// try makes the request of a case, without effect, and returns the answer.
func (c *guardCase) try(t *testing.T) (warnings []string, err error) {
	t.Helper()
	ctx := t.Context()
	user, groups := c.request.User, c.request.Groups
	if user == "" {
		user = "tester"
	}
	who := newGuardTester(t, user, groups...)
	admin := guardCluster(t).Client.CoreV1().RESTClient()
	if c.request.Operation == "UPDATE" {
		if err := admin.Post().AbsPath(c.path("")).Body(c.body(t, c.old)).Do(ctx).Error(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		defer func() {
			if err := admin.Delete().AbsPath(c.path("x")).Do(context.WithoutCancel(ctx)).Error(); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}()
		err = who.CoreV1().RESTClient().Put().AbsPath(c.path("x")).Param("dryRun", "All").SetHeader("Content-Type", "application/json").Body(c.body(t, c.object)).Do(ctx).Error()
		return who.warnings, err
	}
	name := ""
	if c.request.Sub != "" {
		name = c.request.Name
	}
	if strings.Contains(c.object, "kind: Pod, apiVersion: v1, name: x") {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: corev1.PodSpec{ServiceAccountName: "api", Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
		if _, err := guardCluster(t).Client.CoreV1().Pods("shop").Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		defer func() {
			now := int64(0)
			_ = guardCluster(t).Client.CoreV1().Pods("shop").Delete(context.WithoutCancel(ctx), "x", metav1.DeleteOptions{GracePeriodSeconds: &now})
		}()
	}
	err = who.CoreV1().RESTClient().Post().AbsPath(c.path(name)).Param("dryRun", "All").SetHeader("Content-Type", "application/json").Body(c.body(t, c.object)).Do(ctx).Error()
	return who.warnings, err
}

// carry plans and carries out, each step twice, and holds that it is then there.
func carryGuard(t *testing.T, e *Enforcer) connector.Planned {
	t.Helper()
	planned := planGuard(t, e)
	for _, s := range planned.Steps {
		for range 2 {
			if err := e.Do(t.Context(), s); err != nil {
				t.Fatalf("%s: %v", s.Does, err)
			}
		}
		if err := e.Verify(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s.Does, err)
		}
	}
	if again := planGuard(t, e); len(again.Steps) > 0 {
		t.Fatalf("there is still to do: %s\n%s", again.Steps[0].Does, again.Steps[0].Diff)
	}
	return planned
}

func planGuard(t *testing.T, e *Enforcer) connector.Planned {
	t.Helper()
	planned, err := e.Plan(t.Context(), connector.Order{Action: remit.Guard})
	if err != nil {
		t.Fatal(err)
	}
	return planned
}

// awaitGuard waits until all the rules act, or none.
func awaitGuard(t *testing.T, acts func(warnings []string, err error) bool) {
	t.Helper()
	began := time.Now()
	for _, name := range []string{"a long token", "a token Secret", "a role that may bind", "an account without an owner"} {
		all := guardCases()
		c := all[slices.IndexFunc(all, func(c guardCase) bool { return c.name == name })]
		for !acts(c.try(t)) {
			if time.Since(began) > 30*time.Second {
				t.Fatalf("the rule against %s does not change", name)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	t.Logf("in effect %v after it was written", time.Since(began).Round(time.Millisecond))
}

// passes says whether a request came through the guard: what an API server finds
// missing or there already, it finds behind admission.
func passes(err error) bool {
	return err == nil || apierrors.IsAlreadyExists(err) || strings.Contains(err.Error(), "node requested token not bound to a pod")
}

func refusedByGuard(_ []string, err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "Remit's guard: ")
}

func warnedByGuard(warnings []string, err error) bool {
	return err == nil && slices.ContainsFunc(warnings, func(w string) bool { return strings.Contains(w, "Remit's guard: ") })
}

func leftByGuard(warnings []string, err error) bool {
	return err == nil && !warnedByGuard(warnings, err)
}

// TestGuardOnServer lets a real API server judge the cases, in audit and enforced,
// with the cluster's own controllers and a node at work, and takes the guard away
// again.
func TestGuardOnServer(t *testing.T) {
	c := guardCluster(t)
	ctx := t.Context()
	audit := openGuard(t, allGuarded(GuardAudit))
	planned := carryGuard(t, audit)
	if len(planned.Steps) != 8 {
		t.Errorf("%d steps, not one for each policy and binding", len(planned.Steps))
	}
	awaitGuard(t, warnedByGuard)
	for _, one := range guardCases() {
		warnings, err := one.try(t)
		if !passes(err) {
			t.Errorf("%s: refused in audit: %v", one.name, err)
		}
		for _, rule := range GuardRules {
			warned := slices.ContainsFunc(warnings, func(w string) bool {
				return strings.Contains(w, "'"+rule.policy()+"'") && strings.Contains(w, "Remit's guard: ")
			})
			if warned != slices.Contains(one.want, rule) {
				t.Errorf("%s: rule %s warns: %v; all warnings: %q", one.name, rule, warned, warnings)
			}
		}
	}
	told := toldByGuard(t, c.AuditLog)
	for _, rule := range GuardRules {
		if told[string(rule)+" false"] == 0 || told[string(rule)+" true"] != 0 {
			t.Errorf("rule %s in the audit log: %v", rule, told)
		}
	}

	// Enforcing waits until the audit was long enough, of what is to be enforced.
	soon := openGuard(t, allGuarded(GuardEnforce))
	soon.guard.AuditFor = time.Hour
	_, err := soon.Plan(ctx, connector.Order{Action: remit.Guard})
	wantKind(t, err, remit.Forbidden)
	if !strings.Contains(fmt.Sprint(err), "can be enforced from") {
		t.Error(err)
	}
	soon.guard.AuditFor, soon.guard.MaxTokenLifetime = time.Nanosecond, 3*time.Hour
	_, err = soon.Plan(ctx, connector.Order{Action: remit.Guard})
	wantKind(t, err, remit.Forbidden)
	soon.guard = allGuarded(GuardEnforce)
	soon.guard.AuditFor = time.Nanosecond
	planned = carryGuard(t, soon)
	awaitGuard(t, refusedByGuard)
	for _, one := range guardCases() {
		_, err := one.try(t)
		switch {
		case len(one.want) > 0 && !refusedByGuard(nil, err):
			t.Errorf("%s: not refused: %v", one.name, err)
		case len(one.want) == 0 && !passes(err):
			t.Errorf("%s: refused: %v", one.name, err)
		}
	}
	told = toldByGuard(t, c.AuditLog)
	for _, rule := range GuardRules {
		if told[string(rule)+" true"] == 0 {
			t.Errorf("rule %s in the audit log: %v", rule, told)
		}
	}
	theClusterWorks(t, c)
	tooLargeIsRefused(t)
	for _, name := range guardNames() {
		p, err := c.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if p.Status.TypeChecking != nil && len(p.Status.TypeChecking.ExpressionWarnings) > 0 {
			t.Errorf("%s: the cluster warns of its types: %+v", name, p.Status.TypeChecking.ExpressionWarnings[0])
		}
	}

	// Undone it is in audit, as before; taken away it is gone, and that can be
	// undone as well.
	for _, s := range slices.Backward(planned.Steps) {
		for range 2 {
			if err := soon.Undo(ctx, s); err != nil {
				t.Fatal(err)
			}
		}
	}
	if again := planGuard(t, audit); len(again.Steps) > 0 {
		t.Errorf("undone it is not as it was: %s\n%s", again.Steps[0].Does, again.Steps[0].Diff)
	}
	none := openGuard(t, Guard{})
	gone := carryGuard(t, none)
	awaitGuard(t, leftByGuard)
	for _, s := range slices.Backward(gone.Steps) {
		if err := none.Undo(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	if again := planGuard(t, audit); len(again.Steps) > 0 {
		t.Errorf("put back it is not as it was: %s\n%s", again.Steps[0].Does, again.Steps[0].Diff)
	}
	carryGuard(t, none)
	if all, err := c.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(ctx, metav1.ListOptions{}); err != nil || len(all.Items) != 0 {
		t.Errorf("policies are left behind: %v, %v", all.Items, err)
	}
}

// toldByGuard counts what the audit log says of each rule, and whether it was
// refused.
func toldByGuard(t *testing.T, path string) map[string]int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	told := map[string]int{}
	in := &connector.Interner{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		v, err := fastjson.ParseBytes(lines.Bytes())
		if err != nil {
			continue // the last line is being written
		}
		var e connector.Event
		if Audit.Decode(v, in, &e) != nil {
			continue
		}
		if violation, refused, ok := GuardVerdict(e.Activity.Reason); ok {
			if !strings.HasPrefix(violation.Message, "Remit's guard: ") {
				t.Errorf("the log says %q", e.Activity.Reason)
			}
			if refused != (e.Activity.Outcome == remit.Denied) {
				t.Errorf("%q, and the outcome is %s", e.Activity.Reason, e.Activity.Outcome)
			}
			told[fmt.Sprint(violation.Rule, " ", refused)]++
		}
	}
	return told
}

// theClusterWorks makes a namespace and a Deployment: its controllers make the
// account, the pods and their root certificates, and the node mints their tokens.
func theClusterWorks(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	who := newGuardTester(t, "tester")
	const ns = "guarded-shop"
	if _, err := who.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	two := int32(2)
	labels := map[string]string{"app": "web"}
	web := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: map[string]string{"team": "shop"}},
		Spec: appsv1.DeploymentSpec{
			Replicas: &two, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}},
		},
	}
	if _, err := who.AppsV1().Deployments(ns).Create(ctx, web, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pods, err := c.Kubelet.WaitPods(ctx, ns, "app=web", 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pods {
		if p.Token == "" {
			t.Errorf("the pod %s has no token", p.Name)
		}
	}
	if _, err := who.AppsV1().Deployments(ns).Patch(ctx, "web", types.MergePatchType, []byte(`{"spec":{"replicas":1}}`), metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
	if err := who.CoreV1().Namespaces().Delete(ctx, ns, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	for {
		_, err := who.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return
		}
		if ctx.Err() != nil {
			t.Fatal("the namespace is not deleted")
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// tooLargeIsRefused holds that nobody gets past by making an object so large that
// judging it costs too much, and that what is large and innocent passes.
func tooLargeIsRefused(t *testing.T) {
	t.Helper()
	who := newGuardTester(t, "tester")
	role := func(rules, verbs int, last ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
		r := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "large"}}
		for i := range rules {
			rule := rbacv1.PolicyRule{APIGroups: []string{fmt.Sprintf("g%d.example.com", i)}, Resources: []string{"things"}}
			for k := range verbs {
				rule.Verbs = append(rule.Verbs, fmt.Sprintf("verb%d", k))
			}
			r.Rules = append(r.Rules, rule)
		}
		r.Rules = append(r.Rules, last...)
		return r
	}
	make := func(r *rbacv1.ClusterRole) (took time.Duration, err error) {
		began := time.Now()
		_, err = who.RbacV1().ClusterRoles().Create(t.Context(), r, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return time.Since(began), err
	}
	took, err := make(role(500, 8))
	if err != nil {
		t.Errorf("a role with 500 rules is refused: %v", err)
	}
	t.Logf("a role with 500 rules took %v", took)
	took, err = make(role(8000, 4, rbacv1.PolicyRule{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}}))
	if err == nil {
		t.Error("a role for everything passes behind 8000 others")
	}
	t.Logf("a role with 8000 rules took %v: %v", took, truncate(fmt.Sprint(err), 200))
}

// TestGuardInterrupted holds that whatever was done of a plan before its process
// died, the plan can be carried out and undone, and that what somebody else has
// changed meanwhile is left to him.
func TestGuardInterrupted(t *testing.T) {
	c := guardCluster(t)
	ctx := t.Context()
	e := openGuard(t, Guard{Rules: map[GuardRule]GuardState{GuardTokenSecrets: GuardAudit, GuardOwners: GuardAudit}})
	none := openGuard(t, Guard{})
	planned := planGuard(t, e)
	for done := range len(planned.Steps) + 1 {
		for _, s := range planned.Steps[:done] {
			if err := e.Do(ctx, s); err != nil {
				t.Fatal(err)
			}
		}
		if done%2 == 0 {
			for _, s := range planned.Steps {
				if err := e.Do(ctx, s); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, s := range slices.Backward(planned.Steps) {
			if err := e.Undo(ctx, s); err != nil {
				t.Fatal(err)
			}
		}
		if left := planGuard(t, none); len(left.Steps) > 0 {
			t.Fatalf("undone after %d steps there is left: %s", done, left.Steps[0].Does)
		}
	}
	for _, s := range planned.Steps {
		wantKind(t, e.Verify(ctx, s), remit.Conflict)
	}

	carryGuard(t, e)
	policies := c.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	if _, err := policies.Patch(ctx, GuardOwners.policy(), types.MergePatchType, []byte(`{"spec":{"matchConditions":[{"name":"never","expression":"false"}]}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(planned.Steps, func(s remit.Step) bool {
		return s.Object.Kind == kindPolicy && s.Object.Name == GuardOwners.policy()
	})
	wantKind(t, e.Do(ctx, planned.Steps[at]), remit.Conflict)
	wantKind(t, e.Undo(ctx, planned.Steps[at]), remit.Conflict)
	drift := planGuard(t, e)
	if len(drift.Steps) != 1 || !strings.Contains(drift.Steps[0].Diff, `- - expression: "false"`) {
		t.Errorf("the change is not seen: %+v", drift.Steps)
	}
	carryGuard(t, e)
	if err := c.Client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Delete(ctx, GuardOwners.policy(), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if drift = planGuard(t, e); len(drift.Steps) != 1 || drift.Steps[0].Object.Kind != kindBinding {
		t.Errorf("the deletion is not seen: %+v", drift.Steps)
	}
	carryGuard(t, none)
}

// A step about anything else than the guard's own objects is refused.
func TestGuardStepOfSomethingElse(t *testing.T) {
	e := openGuard(t, Guard{})
	spec := mustJSON(admissionv1.ValidatingAdmissionPolicySpec{})
	for _, s := range []remit.Step{
		{Object: remit.Ref{Kind: kindPolicy, Name: policyName}, Before: []byte("null"), After: spec},
		{Object: remit.Ref{Kind: kindBinding, Name: "remit-guard-everything"}, Before: []byte("null"), After: spec},
		{Object: remit.Ref{Kind: kindPolicy, Name: "remit-guard-tokens"}, After: spec},
		{Object: remit.Ref{Kind: kindPolicy, Name: "remit-guard-tokens"}, Before: []byte("null"), After: []byte("{")},
	} {
		wantKind(t, e.Do(t.Context(), s), remit.Invalid)
	}
	wantKind(t, e.Do(t.Context(), remit.Step{Object: remit.Ref{Kind: "ClusterRole", Name: "remit-guard-tokens"}}), remit.Unsupported)
}

// The API server's own audience must be among those that are allowed.
func TestGuardAudiences(t *testing.T) {
	e := openGuard(t, Guard{Rules: map[GuardRule]GuardState{GuardTokens: GuardAudit}, Audiences: []string{"vault"}})
	_, err := e.Plan(t.Context(), connector.Order{Action: remit.Guard})
	wantKind(t, err, remit.Invalid)
	if !strings.Contains(fmt.Sprint(err), cluster.Issuer) {
		t.Error(err)
	}
}
