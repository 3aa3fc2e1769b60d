//go:build unix

package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// Kubelet runs the pods of a cluster on nodes of its own: it plays the
// scheduler and the nodes' kubelets, with their credentials and their watches.
// A new pod is bound to the next node; the node mints its tokens and reports it
// running at an address of its own; a deleted pod is removed. Nothing is
// executed.
type Kubelet struct {
	Nodes []*Node

	cluster *Cluster
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	pods    map[types.NamespacedName]Pod
	lastErr error
	changed chan struct{} // closed, and replaced, when the above change
}

// Pod is a pod that Kubelet runs.
type Pod struct {
	Namespace      string
	Name           string
	UID            types.UID
	Labels         map[string]string
	ServiceAccount string
	// IP is the pod's address, on loopback; a connection may come from it.
	IP   string
	Node *Node
	// Token is what a container would read from its projected volume; it is
	// empty for a pod without one.
	Token string
}

// Config returns a configuration that does requests as the pod does: with its
// token, and from its address.
func (p Pod) Config() *rest.Config {
	return FromAddress(p.Node.cluster.TokenConfig(p.Token), p.IP)
}

// StartKubelet adds nodes, named node-1 and so on at 127.10.0.1 and so on, and
// runs pods on them, at addresses of 127.20.0.0/16 and so on, until the cluster
// is closed. Options.Nodes does the same at the start. Once is enough: two of
// them would both want every pod.
func (c *Cluster) StartKubelet(ctx context.Context, nodes int) (*Kubelet, error) {
	const most = 200 // the second byte of the pods' addresses
	if nodes < 1 || nodes > most {
		return nil, fmt.Errorf("start %d nodes: the number has to be between 1 and %d", nodes, most)
	}
	scheduler, err := c.schedulerClient()
	if err != nil {
		return nil, err
	}
	k := &Kubelet{cluster: c, pods: map[types.NamespacedName]Pod{}, changed: make(chan struct{})}
	for i := range nodes {
		n, err := c.AddNode(ctx, fmt.Sprintf("node-%d", i+1), fmt.Sprintf("127.10.0.%d", i+1))
		if err != nil {
			return nil, err
		}
		k.Nodes = append(k.Nodes, n)
	}

	life, cancel := context.WithCancel(context.Background())
	k.cancel = cancel
	synced := []cache.InformerSynced{}
	var next atomic.Uint64
	hasSynced, err := k.follow(life, scheduler, fields.OneTermEqualSelector("spec.nodeName", ""), func(ctx context.Context, p *corev1.Pod) error {
		if p.Spec.NodeName != "" || p.DeletionTimestamp != nil || p.Spec.SchedulerName != corev1.DefaultSchedulerName {
			return nil
		}
		n := k.Nodes[next.Add(1)%uint64(len(k.Nodes))]
		err := bind(ctx, scheduler, p, n.Name)
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return nil // bound by the test itself, or gone
		}
		return err
	})
	if err != nil {
		k.stop()
		return nil, err
	}
	synced = append(synced, hasSynced)
	for i, n := range k.Nodes {
		var lastIP atomic.Uint32
		nextIP := func() string {
			ip := lastIP.Add(1)
			return fmt.Sprintf("127.%d.%d.%d", 20+i, ip>>8&0xff, ip&0xff)
		}
		hasSynced, err := k.follow(life, n.Client, fields.OneTermEqualSelector("spec.nodeName", n.Name), func(ctx context.Context, p *corev1.Pod) error {
			return k.sync(ctx, n, p, nextIP)
		})
		if err != nil {
			k.stop()
			return nil, err
		}
		synced = append(synced, hasSynced)
	}
	for _, has := range synced {
		for !has() {
			select {
			case <-ctx.Done():
				k.stop()
				return nil, fmt.Errorf("list the pods as the scheduler and the nodes: %w", context.Cause(ctx))
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	c.mu.Lock()
	c.kubelets = append(c.kubelets, k)
	c.mu.Unlock()
	return k, nil
}

// follow watches pods and calls do for each change, again after an error,
// never twice at a time for the same pod.
func (k *Kubelet) follow(life context.Context, client *kubernetes.Clientset, selector fields.Selector, do func(context.Context, *corev1.Pod) error) (cache.InformerSynced, error) {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = selector.String()
	}))
	informer := factory.Core().V1().Pods().Informer()
	queue := workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](20*time.Millisecond, 2*time.Second),
	)
	enqueue := func(obj any) {
		if p, ok := obj.(*corev1.Pod); ok {
			queue.Add(types.NamespacedName{Namespace: p.Namespace, Name: p.Name})
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    enqueue,
		UpdateFunc: func(_, obj any) { enqueue(obj) },
		DeleteFunc: func(obj any) {
			if unknown, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = unknown.Obj
			}
			if p, ok := obj.(*corev1.Pod); ok && p.Spec.NodeName != "" {
				k.forget(p)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("watch the pods with %s: %w", selector, err)
	}
	lister := factory.Core().V1().Pods().Lister()
	k.running.Go(func() { informer.RunWithContext(life) })
	k.running.Go(func() { <-life.Done(); queue.ShutDown() })
	for range 4 {
		k.running.Go(func() {
			for {
				key, shutdown := queue.Get()
				if shutdown {
					return
				}
				p, err := lister.Pods(key.Namespace).Get(key.Name)
				if err == nil {
					err = do(life, p)
				}
				switch {
				case err == nil || apierrors.IsNotFound(err):
					queue.Forget(key)
				case life.Err() == nil:
					k.failed(err)
					queue.AddRateLimited(key)
				}
				queue.Done(key)
			}
		})
	}
	return informer.HasSynced, nil
}

// sync does the next step of a pod on its node.
func (k *Kubelet) sync(ctx context.Context, n *Node, p *corev1.Pod, nextIP func() string) error {
	switch {
	case p.DeletionTimestamp != nil:
		return n.remove(ctx, p)
	case p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed:
		k.forget(p)
		return nil
	case p.Status.Phase != corev1.PodPending || k.runs(p):
		return nil
	}
	pod := Pod{
		Namespace: p.Namespace, Name: p.Name, UID: p.UID, Labels: p.Labels,
		ServiceAccount: p.Spec.ServiceAccountName, Node: n,
	}
	// A pod's volumes are there before it runs.
	if projection := tokenProjection(p); projection != nil {
		o := TokenOptions{}
		if projection.Audience != "" {
			o.Audiences = []string{projection.Audience}
		}
		if s := projection.ExpirationSeconds; s != nil {
			o.Lifetime = time.Duration(*s) * time.Second
		}
		status, err := n.mint(ctx, p, o)
		if err != nil {
			return err
		}
		pod.Token = status.Token
	}
	pod.IP = nextIP()
	if err := n.setStatus(ctx, p, statusRunning(p, n.IP, pod.IP)); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pods[types.NamespacedName{Namespace: p.Namespace, Name: p.Name}] = pod
	k.tell()
	return nil
}

// tokenProjection is the first service-account token among the pod's volumes:
// the one that admission adds, unless the pod has one of its own before it.
func tokenProjection(p *corev1.Pod) *corev1.ServiceAccountTokenProjection {
	for _, v := range p.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			if source.ServiceAccountToken != nil {
				return source.ServiceAccountToken
			}
		}
	}
	return nil
}

// runs says whether the pod was made to run, whatever the watch has seen.
func (k *Kubelet) runs(p *corev1.Pod) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pods[types.NamespacedName{Namespace: p.Namespace, Name: p.Name}].UID == p.UID
}

func (k *Kubelet) forget(p *corev1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := types.NamespacedName{Namespace: p.Namespace, Name: p.Name}
	if k.pods[key].UID == p.UID {
		delete(k.pods, key)
		k.tell()
	}
}

func (k *Kubelet) failed(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lastErr = err
}

// tell wakes those who wait. k.mu is held.
func (k *Kubelet) tell() {
	close(k.changed)
	k.changed = make(chan struct{})
}

// Pods are the pods of a namespace that run now and match the label selector,
// sorted by name. An empty namespace means all of them, an empty selector
// everything.
func (k *Kubelet) Pods(namespace, selector string) ([]Pod, error) {
	pods, _, err := k.find(namespace, selector)
	return pods, err
}

// WaitPods waits until that many pods, and no more, run and match; see Pods.
func (k *Kubelet) WaitPods(ctx context.Context, namespace, selector string, n int) ([]Pod, error) {
	for {
		pods, changed, err := k.find(namespace, selector)
		if err != nil || len(pods) == n {
			return pods, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			k.mu.Lock()
			lastErr := k.lastErr
			k.mu.Unlock()
			err := fmt.Errorf("wait for %d running pods with labels %q in namespace %q: there are %d: %w",
				n, selector, namespace, len(pods), context.Cause(ctx))
			if lastErr != nil {
				err = errors.Join(err, fmt.Errorf("the last failure of the kubelet: %w", lastErr))
			}
			return nil, err
		}
	}
}

func (k *Kubelet) find(namespace, selector string) (_ []Pod, changed <-chan struct{}, _ error) {
	s, err := labels.Parse(selector)
	if err != nil {
		return nil, nil, fmt.Errorf("parse the label selector %q: %w", selector, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var found []Pod
	for key, p := range k.pods {
		if (namespace == "" || key.Namespace == namespace) && s.Matches(labels.Set(p.Labels)) {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(a, b Pod) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return found, k.changed, nil
}

// stop ends the watches and waits for what is going on.
func (k *Kubelet) stop() {
	k.cancel()
	k.running.Wait()
}
