package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"remit/e2e/cluster"
)

const (
	// perToken is how many requests a pod makes with one token, before its
	// kubelet renews it: what 48 minutes of one in half a minute come to.
	perToken = 96
	// perRollout is how often one thing is rolled out.
	perRollout = 3 * time.Second
)

// work has everybody work until ctx ends.
func (t *town) work(ctx context.Context, workers int) {
	var all sync.WaitGroup
	defer all.Wait()
	for i, m := range t.pods {
		all.Go(func() { m.follow(ctx, i%3 == 0) })
		if i%6 == 0 {
			all.Go(func() { m.lead(ctx) })
		}
	}
	all.Go(func() { t.rollOut(ctx) })
	for range workers {
		all.Go(func() {
			// Few do much, and many do little.
			r := rand.New(rand.NewPCG(rand.Uint64(), 1))
			often := rand.NewZipf(r, 1.05, float64(max(len(t.pods)/20, 1)), uint64(len(t.pods)-1))
			for ctx.Err() == nil {
				if err := t.step(ctx, r, t.pods[often.Uint64()]); err != nil && ctx.Err() == nil {
					t.failed.Add(1)
					time.Sleep(10 * time.Millisecond)
				}
			}
		})
	}
}

// step is one thing that somebody does.
func (t *town) step(ctx context.Context, r *rand.Rand, m *machine) error {
	switch dice := r.IntN(100); {
	case dice < 60:
		if n := m.steps.Add(1); n%perToken == int64(m.seed%perToken) {
			return t.renew(ctx, m)
		}
		return m.step(ctx, r)
	case dice < 94:
		return t.nodes[r.IntN(len(t.nodes))].step(ctx, r, t)
	case dice < 97:
		_, err := t.probe.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err
	case dice < 98:
		return look(ctx, r, t.people[r.IntN(len(t.people))])
	default:
		_, err := t.ci.client.AppsV1().Deployments(namespace(0)).Get(ctx, fmt.Sprintf("web-%d", r.IntN(rolling)), metav1.GetOptions{})
		return err
	}
}

// does are the requests that pods make; each pod makes four kinds of them.
var does = [...]func(context.Context, *machine) error{
	func(ctx context.Context, m *machine) error { // keep a lease
		return keep(ctx, m.client, &m.lease, m.pod.Namespace, m.pod.ServiceAccount+"-lock", m.pod.Name)
	},
	func(ctx context.Context, m *machine) error {
		_, err := m.client.CoreV1().ConfigMaps(m.pod.Namespace).Get(ctx, "settings", metav1.GetOptions{})
		return err
	},
	func(ctx context.Context, m *machine) error {
		patch := fmt.Sprintf(`{"data":{"at":"%d"}}`, time.Now().Unix())
		_, err := m.client.CoreV1().ConfigMaps(m.pod.Namespace).Patch(ctx, m.pod.ServiceAccount, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		return err
	},
	func(ctx context.Context, m *machine) error {
		_, err := m.client.CoreV1().Pods(m.pod.Namespace).List(ctx, metav1.ListOptions{Limit: 500, ResourceVersion: "0"})
		return err
	},
	func(ctx context.Context, m *machine) error {
		_, err := m.client.DiscoveryV1().EndpointSlices(m.pod.Namespace).List(ctx, metav1.ListOptions{Limit: 500})
		return err
	},
	func(ctx context.Context, m *machine) error {
		_, err := m.client.AppsV1().Deployments(m.pod.Namespace).Get(ctx, m.pod.ServiceAccount, metav1.GetOptions{})
		return err
	},
	func(ctx context.Context, m *machine) error {
		_, err := m.client.CoreV1().ServiceAccounts(m.pod.Namespace).Get(ctx, m.pod.ServiceAccount, metav1.GetOptions{})
		return err
	},
	func(ctx context.Context, m *machine) error {
		_, err := m.client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: m.pod.Namespace, Verb: "get", Resource: "configmaps"},
		}}, metav1.CreateOptions{})
		return err
	},
	func(ctx context.Context, m *machine) error {
		_, err := m.client.CoreV1().Events(m.pod.Namespace).Create(ctx, &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{GenerateName: m.pod.Name + "."},
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: m.pod.Namespace, Name: m.pod.Name, UID: m.pod.UID},
			Reason:         "Synced", Message: "in step with the API", Type: corev1.EventTypeNormal,
		}, metav1.CreateOptions{})
		return err
	},
	func(ctx context.Context, m *machine) error {
		_, err := m.client.CoreV1().ConfigMaps(m.pod.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "tier=steady"})
		return err
	},
}

// keep renews a lease, unless that is being done.
func keep(ctx context.Context, client *kubernetes.Clientset, one *sync.Mutex, space, name, holder string) error {
	if !one.TryLock() {
		return nil
	}
	defer one.Unlock()
	leases := client.CoordinationV1().Leases(space)
	lease, err := leases.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = leases.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	} else if err == nil {
		now := metav1.NowMicro()
		lease.Spec.HolderIdentity, lease.Spec.RenewTime = &holder, &now
		_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	}
	return err
}

func (m *machine) step(ctx context.Context, r *rand.Rand) error {
	switch dice := r.IntN(1000); {
	case dice < 6: // another pod, of many
		_, err := m.client.CoreV1().Pods(m.pod.Namespace).Get(ctx, fmt.Sprintf("worker-%05d", r.IntN(100_000)), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	case dice < 8: // what it may not do
		_, err := m.client.CoreV1().Secrets(m.pod.Namespace).List(ctx, metav1.ListOptions{})
		if apierrors.IsForbidden(err) {
			return nil
		}
		return err
	}
	kinds := m.seed >> (8 * r.IntN(4)) & 0xff
	return does[kinds%uint32(len(does))](ctx, m)
}

// follow is a pod's informers, whose watches end and begin anew as all do, only
// after seconds in place of minutes.
func (m *machine) follow(ctx context.Context, pods bool) {
	factory := informers.NewSharedInformerFactoryWithOptions(
		m.client, 0, informers.WithNamespace(m.pod.Namespace), informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			if o.TimeoutSeconds != nil {
				seconds := 8 + rand.Int64N(16)
				o.TimeoutSeconds = &seconds
			}
		}),
	)
	factory.Core().V1().ConfigMaps().Informer()
	if pods {
		factory.Core().V1().Pods().Informer()
	}
	factory.Start(ctx.Done())
	<-ctx.Done()
	factory.Shutdown()
}

// lead is a controller that holds its leader's lease.
func (m *machine) lead(ctx context.Context) {
	client, err := as(m.config, m.config.UserAgent+"/leader-election")
	if err != nil {
		return
	}
	lock := &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Namespace: m.pod.Namespace, Name: m.pod.ServiceAccount + "-leader"},
		Client:    client.CoordinationV1(), LockConfig: resourcelock.ResourceLockConfig{Identity: m.pod.Name},
	}
	for ctx.Err() == nil { // on a busy machine it may lose its lease
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
			Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) {}, OnStoppedLeading: func() {}},
		})
	}
}

// renew is a kubelet that renews the token of a pod.
func (t *town) renew(ctx context.Context, m *machine) error {
	for _, n := range t.nodes {
		if n.Node != m.pod.Node {
			continue
		}
		status, err := cluster.Mint(ctx, n.client, m.pod.Namespace, m.pod.ServiceAccount, cluster.TokenOptions{
			Bound: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: m.pod.Name, UID: m.pod.UID},
		})
		if err != nil {
			return err
		}
		m.token.Store(&status.Token)
	}
	return nil
}

// step is what a kubelet does: its lease, its status, its pods.
func (k *kubelet) step(ctx context.Context, r *rand.Rand, t *town) error {
	switch r.IntN(10) {
	case 0, 1, 2, 3:
		return keep(ctx, k.client, &k.lease, "kube-node-lease", k.Name, k.Name)
	case 4:
		_, err := k.client.CoreV1().Nodes().Get(ctx, k.Name, metav1.GetOptions{ResourceVersion: "0"})
		return err
	case 5:
		patch := fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","lastHeartbeatTime":%q}]}}`, time.Now().UTC().Format(time.RFC3339))
		_, err := k.client.CoreV1().Nodes().Patch(ctx, k.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
		return err
	}
	for range 20 { // one of its pods
		m := t.pods[r.IntN(len(t.pods))]
		if m.pod.Node != k.Node {
			continue
		}
		pods := k.client.CoreV1().Pods(m.pod.Namespace)
		if r.IntN(2) == 0 {
			_, err := pods.Get(ctx, m.pod.Name, metav1.GetOptions{})
			return err
		}
		patch := fmt.Sprintf(`{"metadata":{"uid":%q},"status":{"conditions":[{"type":"Ready","lastProbeTime":%q}]}}`, m.pod.UID, time.Now().UTC().Format(time.RFC3339))
		_, err := pods.Patch(ctx, m.pod.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
		return err
	}
	return nil
}

// look is a person who looks at something.
func look(ctx context.Context, r *rand.Rand, client *kubernetes.Clientset) (err error) {
	space := namespace(r.IntN(perNamespace * 4))
	switch r.IntN(3) {
	case 0:
		_, err = client.CoreV1().Pods(space).List(ctx, metav1.ListOptions{Limit: 500})
	case 1:
		_, err = client.AppsV1().Deployments(space).List(ctx, metav1.ListOptions{Limit: 500})
	default:
		_, err = client.CoreV1().Nodes().List(ctx, metav1.ListOptions{Limit: 500})
	}
	return err
}

// rollOut is a pipeline that rolls things out, for which the controllers make new
// pods, the nodes run them, and the old ones go.
func (t *town) rollOut(ctx context.Context) {
	tick := time.NewTicker(perRollout)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		n := t.rolled.Add(1)
		patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"version":"%d"}}}}}`, n)
		_, err := t.ci.client.AppsV1().Deployments(namespace(0)).
			Patch(ctx, fmt.Sprintf("web-%d", n%rolling), types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
		if err != nil && ctx.Err() == nil {
			t.failed.Add(1)
		}
	}
}
