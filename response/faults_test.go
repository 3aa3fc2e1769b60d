package response_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"remit"
	"remit/connector"
	"remit/connector/kubernetes"
	"remit/e2e/cluster"
	"remit/response"
)

// faulty lies between an enforcer and its API server: requests are slowed down,
// refused as too many, lost before they arrive, or answered with nothing after they
// had their effect.
type faulty struct {
	next   http.RoundTripper
	random *rand.Rand
	rate   float64 // of requests, 0 to 1
	count  map[string]int
	lock   chan struct{}
}

func (f *faulty) choose() string {
	f.lock <- struct{}{}
	defer func() { <-f.lock }()
	if f.random.Float64() >= f.rate {
		return ""
	}
	what := []string{"slow", "too many", "unavailable", "lost", "unanswered"}[f.random.IntN(5)]
	f.count[what]++
	return what
}

func (f *faulty) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := func(code int, reason metav1.StatusReason, header ...string) (*http.Response, error) {
		text := fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d,"message":"made by a test"}`, reason, code)
		out := &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(text)), Request: r}
		for i := 0; i+1 < len(header); i += 2 {
			out.Header.Set(header[i], header[i+1])
		}
		return out, nil
	}
	switch f.choose() {
	case "slow":
		time.Sleep(300 * time.Millisecond)
	case "too many":
		return answer(http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, "Retry-After", "1")
	case "unavailable":
		return answer(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable)
	case "lost":
		return nil, errors.New("connection refused, by a test")
	case "unanswered":
		out, err := f.next.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		_, _ = io.Copy(io.Discard, out.Body)
		_ = out.Body.Close()
		return nil, errors.New("connection reset, by a test")
	}
	return f.next.RoundTrip(r)
}

// victim makes an account with a grant and returns what both are like.
func victim(t *testing.T, c *cluster.Cluster, ns, name string) (remit.Ref, *corev1.ServiceAccount, *rbacv1.RoleBinding) {
	t.Helper()
	ctx := t.Context()
	account, err := c.Client.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": "a"}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	binding, err := c.Client.RbacV1().RoleBindings(ns).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"note": "kept"}}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: ns, Name: name}, {Kind: "ServiceAccount", Namespace: ns, Name: "another"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return remit.Ref{Kind: "ServiceAccount", Namespace: ns, Name: name}, account, binding
}

func containment(who remit.Ref, credential string) response.Request {
	return response.Request{
		System: system, Action: remit.Contain, Subject: remit.Subject{Record: remit.KindIdentity, Ref: who, ID: remit.IdentityID(system, who)},
		Identity: who, IdentityID: remit.IdentityID(system, who), Credential: credential, AskedBy: "alice",
		Grades: []remit.Grade{remit.FreezeCredentials, remit.RemoveGrants, remit.KillTokens},
	}
}

// TestFaults carries containments out and undoes them on a real API server that
// answers badly: each comes to its end, what is changed is changed once, and undone
// the grant is as it was. REMIT_FAULTS sets how many, with twice as many faults.
func TestFaults(t *testing.T) {
	c := cluster.Shared(t)
	ns := c.Namespace(t)
	ctx := t.Context()
	f := &faulty{random: rand.New(rand.NewPCG(5, 6)), count: map[string]int{}, lock: make(chan struct{}, 1)}
	config := rest.CopyConfig(c.Admin)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { f.next = next; return f })
	enforcer, err := kubernetes.OpenEnforcerRESTConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	store := open(t)
	s := response.New(response.Options{
		Store: store, Wait: 5 * time.Second, Approvals: func(remit.ID) int { return 0 },
		Enforcer: func(context.Context, remit.ID) (connector.Enforcer, error) { return enforcer, nil },
	})
	again := func(what string, once func() error) {
		t.Helper()
		for end := time.Now().Add(2 * time.Minute); ; {
			err := once()
			if err == nil {
				return
			}
			if kind := remit.KindOf(err); kind != remit.Unavailable || time.Now().After(end) {
				t.Fatalf("%s: %q %v", what, kind, err)
			}
		}
	}
	rounds, rate := 2, 0.15
	if more, err := strconv.Atoi(os.Getenv("REMIT_FAULTS")); err == nil {
		rounds, rate = more, 0.3
	}
	for n := range rounds {
		who, account, binding := victim(t, c, ns, fmt.Sprint("victim-", n))
		f.rate = rate
		var plan remit.Response
		again("plan", func() (err error) {
			plan, err = s.Plan(ctx, containment(who, "JTI=of-"+who.Name))
			return err
		})
		if plan, err = s.Propose(ctx, plan); err != nil {
			t.Fatal(err)
		}
		again("carry out", func() error { _, err := s.CarryOut(ctx, plan.ID); return err })
		f.rate = 0
		anew, err := c.Client.CoreV1().ServiceAccounts(ns).Get(ctx, who.Name, metav1.GetOptions{})
		if err != nil || anew.UID == account.UID || anew.Labels["team"] != "a" {
			t.Errorf("not made anew as it was: %+v %v", anew, err)
		}
		f.rate = rate
		again("undo", func() error { _, err := s.Undo(ctx, plan.ID, "bob"); return err })
		f.rate = 0
		after, err := c.Client.RbacV1().RoleBindings(ns).Get(ctx, who.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(after.Subjects, after.Annotations, after.RoleRef) != fmt.Sprint(binding.Subjects, binding.Annotations, binding.RoleRef) {
			t.Errorf("undone it is %+v, and was %+v", after, binding)
		}
		if again, err := c.Client.CoreV1().ServiceAccounts(ns).Get(ctx, who.Name, metav1.GetOptions{}); err != nil || again.UID != anew.UID {
			t.Errorf("made anew twice: %v", err)
		}
	}
	t.Logf("faults: %v", f.count)
}

// TestAPIServerDown has the API server go away in the midst: the plan stays running,
// says why, is tried again when it is due, and goes on when the server is back.
func TestAPIServerDown(t *testing.T) {
	c := cluster.Start(t, func(o *cluster.Options) { o.NoControllerManager = true })
	ctx := t.Context()
	if _, err := c.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	enforcer, err := kubernetes.OpenEnforcerRESTConfig(c.Admin)
	if err != nil {
		t.Fatal(err)
	}
	s := response.New(response.Options{
		Store: open(t), Wait: time.Second, Approvals: func(remit.ID) int { return 0 },
		Enforcer: func(context.Context, remit.ID) (connector.Enforcer, error) { return enforcer, nil },
	})
	who, _, _ := victim(t, c, "shop", "victim")
	plan, err := s.Plan(ctx, containment(who, "JTI=of-victim"))
	if err == nil {
		plan, err = s.Propose(ctx, plan)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.StopAPIServer()
	r, err := s.CarryOut(ctx, plan.ID)
	if remit.KindOf(err) != remit.Unavailable || r.State != remit.ResponseRunning || r.Steps[0].Failure == "" || !r.Due.After(time.Now()) {
		t.Errorf("%v: %+v", err, r)
	}
	if err := c.StartAPIServer(ctx); err != nil {
		t.Fatal(err)
	}
	// It is ready before it acts on admission policies: until then it is tried again.
	for end := time.Now().Add(time.Minute); ; {
		if r, err = s.CarryOut(ctx, plan.ID); remit.KindOf(err) != remit.Unavailable || time.Now().After(end) {
			break
		}
	}
	if err != nil || r.State != remit.ResponseVerified {
		t.Errorf("%v: %+v", err, r)
	}
}

// TestRightTaken has the login lose a right in the midst: the plan fails with words
// that say which, what was done before stays in effect, and it can be undone when
// the right is back.
func TestRightTaken(t *testing.T) {
	c := cluster.Shared(t)
	ns := c.Namespace(t)
	ctx := t.Context()
	var forbidden atomic.Bool
	config := rest.CopyConfig(c.Admin)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if forbidden.Load() && strings.Contains(r.URL.Path, "rolebindings") && r.Method == http.MethodPatch {
				text := `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"rolebindings is forbidden: User \"remit\" cannot patch resource"}`
				return &http.Response{StatusCode: 403, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
			}
			return next.RoundTrip(r)
		})
	})
	enforcer, err := kubernetes.OpenEnforcerRESTConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	s := response.New(response.Options{
		Store: open(t), Wait: 5 * time.Second, Approvals: func(remit.ID) int { return 0 },
		Enforcer: func(context.Context, remit.ID) (connector.Enforcer, error) { return enforcer, nil },
	})
	who, _, _ := victim(t, c, ns, "victim")
	plan, err := s.Plan(ctx, containment(who, "JTI=of-"+ns))
	if err == nil {
		plan, err = s.Propose(ctx, plan)
	}
	if err != nil {
		t.Fatal(err)
	}
	forbidden.Store(true)
	r, err := s.CarryOut(ctx, plan.ID)
	if remit.KindOf(err) != remit.Forbidden || r.State != remit.ResponseFailed || r.Steps[0].State != remit.ResponseVerified || r.Steps[1].State != remit.ResponseFailed || !strings.Contains(r.Steps[1].Failure, "rolebindings") {
		t.Fatalf("%v: %+v", err, r)
	}
	forbidden.Store(false)
	if r, err = s.Undo(ctx, plan.ID, "bob"); err != nil || r.State != remit.ResponseUndone {
		t.Errorf("%v: %+v", err, r)
	}
	contained, err := c.Client.CoreV1().Secrets("remit-system").Get(ctx, "remit-contained", metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	for key, value := range contained.Data {
		if strings.HasSuffix(key, ".JTI-of-"+ns) {
			t.Errorf("undone, %s is still held: %s", key, value)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
