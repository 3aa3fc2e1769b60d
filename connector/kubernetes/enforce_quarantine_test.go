package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"remit"
	"remit/e2e/cluster"
)

// quarantined makes one workload of each kind that runs as the account.
func quarantined(t *testing.T, c *cluster.Cluster, ns, account string) {
	t.Helper()
	ctx := t.Context()
	template := func(app string) corev1.PodTemplateSpec {
		return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}}, Spec: corev1.PodSpec{
			ServiceAccountName: account, Containers: []corev1.Container{{Name: "c", Image: "i"}},
		}}
	}
	selector := func(app string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
	}
	named := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name} }
	two := int32(2)
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	apps, batch, core := c.Client.AppsV1(), c.Client.BatchV1(), c.Client.CoreV1()
	o := metav1.CreateOptions{}
	must(apps.Deployments(ns).Create(ctx, &appsv1.Deployment{ObjectMeta: named("web"), Spec: appsv1.DeploymentSpec{Replicas: &two, Selector: selector("web"), Template: template("web")}}, o))
	must(apps.StatefulSets(ns).Create(ctx, &appsv1.StatefulSet{ObjectMeta: named("db"), Spec: appsv1.StatefulSetSpec{Selector: selector("db"), Template: template("db")}}, o))
	must(apps.ReplicaSets(ns).Create(ctx, &appsv1.ReplicaSet{ObjectMeta: named("old"), Spec: appsv1.ReplicaSetSpec{Selector: selector("old"), Template: template("old")}}, o))
	daemon := template("agent")
	daemon.Spec.NodeSelector = map[string]string{"disk": "fast"}
	must(apps.DaemonSets(ns).Create(ctx, &appsv1.DaemonSet{ObjectMeta: named("agent"), Spec: appsv1.DaemonSetSpec{Selector: selector("agent"), Template: daemon}}, o))
	older := template("older")
	must(core.ReplicationControllers(ns).Create(ctx, &corev1.ReplicationController{ObjectMeta: named("older"), Spec: corev1.ReplicationControllerSpec{Selector: map[string]string{"app": "older"}, Template: &older}}, o))
	job := template("job")
	job.Spec.RestartPolicy = corev1.RestartPolicyNever
	must(batch.Jobs(ns).Create(ctx, &batchv1.Job{ObjectMeta: named("job"), Spec: batchv1.JobSpec{Template: job}}, o))
	nightly := template("")
	nightly.Labels, nightly.Spec.RestartPolicy = nil, corev1.RestartPolicyNever
	must(batch.CronJobs(ns).Create(ctx, &batchv1.CronJob{ObjectMeta: named("nightly"), Spec: batchv1.CronJobSpec{Schedule: "0 0 1 1 *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: nightly}}}}, o))
	bare := template("bare")
	must(core.Pods(ns).Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "bare", Labels: bare.Labels}, Spec: bare.Spec}, o))
	// Not his.
	foreign := template("web")
	foreign.Spec.ServiceAccountName = ""
	must(apps.Deployments(ns).Create(ctx, &appsv1.Deployment{ObjectMeta: named("foreign"), Spec: appsv1.DeploymentSpec{Selector: selector("web"), Template: foreign}}, o))
}

// TestEnforceQuarantine stops one workload of each kind and starts it again as it
// was.
func TestEnforceQuarantine(t *testing.T) {
	c, e := openEnforcer(t)
	ctx := t.Context()
	ns := c.Namespace(t)
	who := enforceWorker(t, c, ns, "worker")
	planned, err := e.Plan(ctx, contain(who, remit.Quarantine))
	if err != nil || len(planned.Steps) != 0 || !strings.Contains(strings.Join(planned.Why, ""), "Nothing runs") {
		t.Errorf("with nothing that runs: %+v, %v", planned, err)
	}
	quarantined(t, c, ns, "worker")
	running := func(app string, want bool) {
		t.Helper()
		enforceEventually(t, func() error {
			pods, err := c.Client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: "app=" + app})
			if err != nil {
				return err
			}
			mine := slices.ContainsFunc(pods.Items, func(p corev1.Pod) bool { return p.Spec.ServiceAccountName == "worker" })
			if mine != want {
				return fmt.Errorf("pods of %s run: %t", app, mine)
			}
			return nil
		})
	}
	started := []string{"web", "db", "old", "older", "job"} // no node is here for the DaemonSet
	for _, app := range started {
		running(app, true)
	}
	planned, err = e.Plan(ctx, contain(who, remit.Quarantine))
	if err != nil {
		t.Fatal(err)
	}
	spec := func(ref remit.Ref) string {
		t.Helper()
		o := listingOf[ref.Kind].newObject()
		if err := e.get(ctx, ref.Kind, ref.Namespace, ref.Name, o); err != nil {
			t.Fatal(err)
		}
		var whole struct{ Spec json.RawMessage }
		if err := json.Unmarshal(mustJSON(o), &whole); err != nil {
			t.Fatal(err)
		}
		return string(whole.Spec)
	}
	var kinds []string
	before := map[remit.Ref]string{}
	for _, s := range planned.Steps {
		kinds = append(kinds, s.Object.Kind+" "+s.Object.Name)
		before[s.Object] = spec(s.Object)
		t.Logf("%s\n%s%s\n%s", s.Does, s.Diff, s.Breaks, s.Undo)
		if s.Does == "" || s.Diff == "" || s.Breaks == "" || s.Undo == "" {
			t.Errorf("the step does not tell everything: %+v", s)
		}
	}
	if got := strings.Join(kinds, ", "); got != "CronJob nightly, Job job, Deployment web, StatefulSet db, ReplicaSet old, ReplicationController older, DaemonSet agent" {
		t.Errorf("it stops %s", got)
	}
	if why := strings.Join(planned.Why, "\n"); !strings.Contains(why, "pods bare") {
		t.Errorf("it does not tell of the pod without a controller: %s", why)
	}
	for _, s := range planned.Steps {
		if s.Object.Kind != "DaemonSet" { // runs nothing here
			wantKind(t, e.Verify(ctx, s), remit.Conflict)
		}
		for range 2 {
			if err := e.Do(ctx, s); err != nil {
				t.Fatalf("%s: %v", s.Object, err)
			}
		}
		enforceEventually(t, func() error { return e.Verify(ctx, s) })
		if spec(s.Object) == before[s.Object] {
			t.Errorf("nothing has become of %s", s.Object)
		}
	}
	for _, app := range started {
		running(app, false)
	}
	if again, err := e.Plan(ctx, contain(who, remit.Quarantine)); remit.KindOf(err) != remit.Unsupported || len(again.Steps) > 0 {
		t.Errorf("with nothing left but a pod without a controller: %+v %v", again, err)
	}
	for _, s := range planned.Steps {
		for range 2 {
			if err := e.Undo(ctx, s); err != nil {
				t.Fatalf("%s: %v", s.Object, err)
			}
		}
		if after := spec(s.Object); after != before[s.Object] {
			t.Errorf("undone %s is\n%s\nand was\n%s", s.Object, after, before[s.Object])
		}
	}
	for _, app := range started {
		running(app, true)
	}

	// Somebody scales it meanwhile, or makes it anew.
	web := planned.Steps[2]
	deployments := c.Client.AppsV1().Deployments(ns)
	if _, err := deployments.Patch(ctx, "web", types.MergePatchType, []byte(`{"spec":{"replicas":5}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	wantKind(t, e.Do(ctx, web), remit.Conflict)
	wantKind(t, e.Undo(ctx, web), remit.Conflict)
	if err := deployments.Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	enforceEventually(t, func() error {
		if _, err := deployments.Get(ctx, "web", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is still there: %v", err)
		}
		return nil
	})
	for _, f := range []func(context.Context, remit.Step) error{e.Do, e.Verify, e.Undo} {
		wantKind(t, f(ctx, web), remit.Conflict)
		wantKind(t, f(ctx, remit.Step{Grade: remit.Quarantine, Object: remit.Ref{Kind: "Secret", Namespace: ns, Name: "a"}, Before: []byte(`{"uid":"1"}`), After: []byte(`{"uid":"1"}`)}), remit.Invalid)
	}
	_, err = e.Plan(ctx, contain(remit.Ref{Kind: "User", Name: "jane"}, remit.Quarantine))
	wantKind(t, err, remit.Unsupported)
}

// TestEnforceIsolate takes the network from the same workloads.
func TestEnforceIsolate(t *testing.T) {
	c, e := openEnforcer(t)
	e.quarantine = QuarantineIsolate
	ctx := t.Context()
	ns := c.Namespace(t)
	who := enforceWorker(t, c, ns, "worker")
	quarantined(t, c, ns, "worker")
	policies := c.Client.NetworkingV1().NetworkPolicies(ns)
	if _, err := policies.Create(ctx, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "lets-in"}, Spec: networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}, Ingress: []networkingv1.NetworkPolicyIngressRule{{}},
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	enforceEventually(t, func() error {
		pods, err := c.Client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
		if err == nil && !slices.ContainsFunc(pods.Items, func(p corev1.Pod) bool { return p.Spec.ServiceAccountName == "default" }) {
			err = fmt.Errorf("the other account's pods do not run yet")
		}
		return err
	})
	planned, err := e.Plan(ctx, contain(who, remit.Quarantine))
	if err != nil {
		t.Fatal(err)
	}
	why := strings.Join(planned.Why, "\n")
	t.Log(why)
	for _, want := range []string{"network plugin", "lets-in lets the pods of StatefulSet", "CronJob " + ns + "/nightly cannot be selected"} {
		if !strings.Contains(why, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if len(planned.Steps) != 7 {
		t.Errorf("%d policies", len(planned.Steps))
	}
	met := false
	for _, s := range planned.Steps {
		met = met || strings.Contains(s.Breaks, "pods of other accounts")
		wantKind(t, e.Verify(ctx, s), remit.Conflict)
		for range 2 {
			if err := e.Do(ctx, s); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.Verify(ctx, s); err != nil {
			t.Error(err)
		}
		p, err := policies.Get(ctx, s.Object.Name, metav1.GetOptions{})
		if err != nil || len(p.Spec.PodSelector.MatchLabels) == 0 || len(p.Spec.PolicyTypes) != 2 || len(p.Spec.Ingress)+len(p.Spec.Egress) > 0 {
			t.Errorf("%+v, %v", p, err)
		}
	}
	if !met {
		t.Error("it does not tell of the pods of other accounts with the same labels")
	}
	changed := planned.Steps[0]
	if _, err := policies.Patch(ctx, changed.Object.Name, types.MergePatchType, []byte(`{"spec":{"egress":[{}]}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	wantKind(t, e.Verify(ctx, changed), remit.Conflict)
	wantKind(t, e.Undo(ctx, changed), remit.Conflict)
	for _, s := range planned.Steps[1:] {
		for range 2 {
			if err := e.Undo(ctx, s); err != nil {
				t.Fatal(err)
			}
		}
	}
	left, err := policies.List(ctx, metav1.ListOptions{})
	if err != nil || len(left.Items) != 2 {
		t.Errorf("undone there are %d policies, %v", len(left.Items), err)
	}
	wantKind(t, e.Do(ctx, remit.Step{
		Grade: remit.Quarantine, Object: remit.Ref{Kind: "NetworkPolicy", Namespace: ns, Name: quarantinePrefix + "x"}, Before: []byte(`{}`), After: []byte(`{"spec":{"podSelector":{}}}`),
	}), remit.Invalid)
}
