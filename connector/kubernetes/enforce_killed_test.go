package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit"
	"remit/connector"
)

// dying ends at one of its requests, before the server has it or before its answer
// is read, as a process does that is killed there. Further requests are not made.
type dying struct {
	next  http.RoundTripper
	at    int
	after bool
	calls int
}

var errKilled = errors.New("killed")

func (d *dying) RoundTrip(r *http.Request) (*http.Response, error) {
	d.calls++
	if d.calls < d.at {
		return d.next.RoundTrip(r)
	}
	if d.calls == d.at && d.after {
		if resp, err := d.next.RoundTrip(r); err == nil {
			resp.Body.Close()
		}
	}
	return nil, errKilled
}

// TestEnforceKilled kills the process at each request of a step, and of its undoing:
// another one goes on from the step alone, and in the end it is in effect, and then
// undone to the letter.
func TestEnforceKilled(t *testing.T) {
	c, e := openEnforcer(t)
	ctx := t.Context()
	ns := c.Namespace(t)
	who := enforceWorker(t, c, ns, "worker")
	quarantined(t, c, ns, "worker")
	if err := e.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	frozen := contain(who, remit.FreezeCredentials, remit.Quarantine)
	frozen.Forged = []string{"JTI=killed"}
	plan := func(o connector.Order) []remit.Step {
		t.Helper()
		planned, err := e.Plan(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		return planned.Steps
	}
	steps := plan(frozen)
	e.quarantine = QuarantineIsolate
	steps = append(steps, plan(contain(who, remit.Quarantine))...)

	// killed lets process after process die, each one request later than the last,
	// until one gets through. It says how many died.
	killed := func(after bool, do func(*Enforcer) error) (died int) {
		t.Helper()
		for at := 1; at < 40; at++ {
			config := c.Config(enforcerUser)
			d := &dying{at: at, after: after}
			config.Wrap(func(next http.RoundTripper) http.RoundTripper {
				d.next = next
				return d
			})
			one, err := OpenEnforcerRESTConfig(config)
			if err != nil {
				t.Fatal(err)
			}
			err = do(one)
			if d.calls < at {
				if err != nil {
					t.Fatal(err)
				}
				return at - 1
			}
			if err == nil && !after {
				t.Fatal("a request that failed was not noticed")
			}
		}
		t.Fatal("it never ends")
		return 0
	}
	state := func(s remit.Step) string {
		t.Helper()
		switch s.Object.Kind {
		case "Secret":
			s, err := c.Client.CoreV1().Secrets(s.Object.Namespace).Get(ctx, s.Object.Name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprint(s.Data)
		case "NetworkPolicy":
			_, err := c.Client.NetworkingV1().NetworkPolicies(ns).Get(ctx, s.Object.Name, metav1.GetOptions{})
			return fmt.Sprint(err == nil)
		}
		now, err := e.workloadNow(ctx, "", s, mustState(t, s))
		if err != nil {
			t.Fatal(err)
		}
		return string(mustJSON(now.state))
	}
	total := 0
	for _, s := range steps {
		before := state(s)
		for _, after := range []bool{false, true} {
			total += killed(after, func(e *Enforcer) error { return e.Do(ctx, s) })
			enforceEventually(t, func() error { return e.Verify(ctx, s) })
			total += killed(after, func(e *Enforcer) error { return e.Undo(ctx, s) })
			if got := state(s); got != before {
				t.Errorf("undone %s is %s, and was %s", s.Object, got, before)
			}
		}
	}
	for i, after := range []bool{false, true} {
		pod, err := c.Client.CoreV1().Pods(ns).Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p", i)}, Spec: corev1.PodSpec{
			ServiceAccountName: "worker", Containers: []corev1.Container{{Name: "c", Image: "i"}},
		}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s := podStep(pod, remit.Ref{Kind: "Pod", Namespace: ns, Name: pod.Name}, 1)
		total += killed(after, func(e *Enforcer) error { return e.Do(context.WithoutCancel(ctx), s) })
		if err := e.Verify(ctx, s); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d steps, killed %d times", len(steps)+2, total)
}

func mustState(t *testing.T, s remit.Step) runState {
	t.Helper()
	before, _, err := stepStates[runState, runState]("", s)
	if err != nil {
		t.Fatal(err)
	}
	return before
}
