package kubernetes

import (
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit"
	"remit/e2e/cluster"
)

// TestEnforcePods ends the tokens of a pod with the pod, and those of the account
// that are bound to none only with the account.
func TestEnforcePods(t *testing.T) {
	c, e := openEnforcer(t)
	ctx := t.Context()
	ns := c.Namespace(t)
	who := enforceWorker(t, c, ns, "worker")
	pods := c.Client.CoreV1().Pods(ns)
	start := func(name string, change ...func(*corev1.Pod)) *corev1.Pod {
		t.Helper()
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{ServiceAccountName: "worker", Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
		for _, f := range change {
			f(pod)
		}
		made, err := pods.Create(ctx, pod, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	token := func(pod *corev1.Pod) *enforceHolder {
		t.Helper()
		var o cluster.TokenOptions
		if pod != nil {
			o.Bound = &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}
		}
		status, err := c.Token(ctx, ns, "worker", o)
		if err != nil {
			t.Fatal(err)
		}
		return enforceHolderOf(t, c, status.Token, who)
	}
	ref := func(pod *corev1.Pod) remit.Ref { return remit.Ref{Kind: "Pod", Namespace: ns, Name: pod.Name} }

	lonely := start("lonely")
	bound, free := token(lonely), token(nil)
	enforceEventually(t, func() error { return bound.read(ctx) })
	order := contain(who, remit.KillTokens)
	order.Stolen = []string{bound.credential}
	order.Bound = map[string]remit.Ref{bound.credential: ref(lonely)}
	plan := func() ([]remit.Step, string) {
		t.Helper()
		planned, err := e.Plan(ctx, order)
		if err != nil {
			t.Fatal(err)
		}
		if len(planned.Steps) == 0 || planned.Steps[0].Grade != remit.FreezeCredentials {
			t.Fatalf("nothing keeps the token from minting until it ends: %+v", planned.Steps)
		}
		return planned.Steps[1:], strings.Join(planned.Why, "\n")
	}
	steps, why := plan()
	if len(steps) != 1 || steps[0].Object != ref(lonely) || steps[0].Undo != "" || !strings.Contains(steps[0].Breaks, "does not come back") {
		t.Fatalf("%+v", steps)
	}
	step := steps[0]
	t.Logf("%s\n%s%s\n%s", step.Does, step.Diff, step.Breaks, why)
	wantKind(t, e.Verify(ctx, step), remit.Conflict)
	for range 2 {
		if err := e.Do(ctx, step); err != nil {
			t.Fatal(err)
		}
	}
	done := time.Now()
	if err := e.Verify(ctx, step); err != nil {
		t.Error(err)
	}
	for !apierrors.IsUnauthorized(bound.read(ctx)) {
		if time.Since(done) > time.Minute {
			t.Fatal("the token still works after a minute")
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("401 %v after it was done", time.Since(done))
	if err := free.read(ctx); err != nil {
		t.Errorf("another token of the account: %v", err)
	}
	wantKind(t, e.Undo(ctx, step), remit.Unsupported)

	// A pod of the same name is another, and stays.
	again := start("lonely")
	if err := e.Do(ctx, step); err != nil {
		t.Fatal(err)
	}
	if err := e.Verify(ctx, step); err != nil {
		t.Error(err)
	}
	if now, err := pods.Get(ctx, "lonely", metav1.GetOptions{}); err != nil || now.UID != again.UID {
		t.Errorf("the successor is gone: %v", err)
	}

	// One with a controller is replaced; one that takes its time has not ended yet.
	yes := true
	node := "some-node"
	slow := start("slow", func(p *corev1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "example.com/v1", Kind: "Runner", Name: "r", UID: "11111111-1111-1111-1111-111111111111", Controller: &yes}}
		p.Spec.NodeName = node
	})
	slowly := token(slow)
	order.Stolen, order.Forged = []string{bound.credential, slowly.credential}, nil
	order.Bound[slowly.credential] = ref(slow)
	order.Bound[bound.credential] = remit.Ref{Kind: "Pod", Namespace: ns, Name: "ended"}
	steps, why = plan()
	if len(steps) != 1 || !strings.Contains(steps[0].Breaks, "Runner r has started another") || !strings.Contains(why, "is gone") {
		t.Fatalf("%+v\n%s", steps, why)
	}
	for range 2 {
		if err := e.Do(ctx, steps[0]); err != nil {
			t.Fatal(err)
		}
	}
	wantKind(t, e.Verify(ctx, steps[0]), remit.Conflict)
	none := int64(0)
	if err := pods.Delete(ctx, "slow", metav1.DeleteOptions{GracePeriodSeconds: &none}); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	if err := e.Verify(ctx, steps[0]); err != nil {
		t.Error(err)
	}

	// One that is bound to none ends with the account only.
	order.Forged = []string{free.credential}
	if steps, why = plan(); len(steps) != 1 || steps[0].Object != who || !strings.Contains(why, "1 of 3 credentials are bound to no pod") {
		t.Errorf("%+v\n%s", steps, why)
	}
	order.Stolen, order.Forged = nil, nil
	if steps, why = plan(); len(steps) != 1 || steps[0].Object != who || !strings.Contains(why, "no single credential is known") {
		t.Errorf("%+v\n%s", steps, why)
	}
	// A token of a Secret ends with that, when the inventory knows it.
	secret, err := c.Client.CoreV1().Secrets(ns).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "old", Annotations: map[string]string{corev1.ServiceAccountNameKey: "worker"}}, Type: corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	order.Stolen = []string{LegacyTokenPrefix + ns + "/worker"}
	if steps, why = plan(); len(steps) != 1 || steps[0].Object != who || !strings.Contains(why, "lie in no Secret that is known") {
		t.Errorf("%+v\n%s", steps, why)
	}
	in := remit.Credential{Holder: who, Key: "token", Type: remit.StaticToken, Record: remit.Record{
		Ref: remit.Ref{Kind: "Secret", Namespace: ns, Name: "old"}, Incarnation: string(secret.UID), Attributes: map[string]string{"legacy": "true"},
	}}
	order.Credentials = []remit.Credential{in}
	if steps, why = plan(); len(steps) != 1 || steps[0].Object != in.Ref || steps[0].Undo != "" || steps[0].Grade != remit.KillTokens {
		t.Fatalf("%+v\n%s", steps, why)
	}
	for range 2 {
		if err := e.Do(ctx, steps[0]); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Verify(ctx, steps[0]); err != nil {
		t.Error(err)
	}
	if _, err := c.Client.CoreV1().Secrets(ns).Get(ctx, "old", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the Secret is still there: %v", err)
	}
	wantKind(t, e.Do(ctx, remit.Step{Grade: remit.KillTokens, Object: ref(lonely), Before: []byte(`{}`), After: []byte(`{}`)}), remit.Invalid)
}
