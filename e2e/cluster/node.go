//go:build unix

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Node is a node without a machine: its methods do what the kubelet of the
// node does, with a node's certificate and from the node's address.
type Node struct {
	Name string
	IP   string
	// Config authenticates as the node's kubelet.
	Config *rest.Config
	Client *kubernetes.Clientset

	cluster *Cluster
}

// AddNode registers a node, as its kubelet does. Every address in 127.0.0.0/8
// can be its IP.
func (c *Cluster) AddNode(ctx context.Context, name, ip string) (*Node, error) {
	config, err := c.config("system:node:"+name, "system:nodes")
	if err != nil {
		return nil, err
	}
	config = FromAddress(config, ip)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make the client of the node %s: %w", name, err)
	}
	n := &Node{Name: name, IP: ip, Config: config, Client: client, cluster: c}
	now := metav1.Now()
	capacity := corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("64"),
		corev1.ResourceMemory: resource.MustParse("256Gi"),
		corev1.ResourcePods:   resource.MustParse("10000"),
	}
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			corev1.LabelHostname: name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64",
		}},
		Status: corev1.NodeStatus{
			Capacity: capacity, Allocatable: capacity,
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: ip},
				{Type: corev1.NodeHostName, Address: name},
			},
			Conditions: []corev1.NodeCondition{{
				Type: corev1.NodeReady, Status: corev1.ConditionTrue,
				Reason: "KubeletReady", Message: "kubelet is posting ready status",
				LastHeartbeatTime: now, LastTransitionTime: now,
			}},
			NodeInfo: corev1.NodeSystemInfo{OperatingSystem: "linux", Architecture: "amd64"},
		},
	}
	if _, err := client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
		return nil, fmt.Errorf("register the node %s: %w", name, err)
	}
	return n, nil
}

// Bind puts a pending pod on the node. It is the scheduler's work, and done
// with the scheduler's credential.
func (n *Node) Bind(ctx context.Context, namespace, pod string) error {
	scheduler, err := n.cluster.schedulerClient()
	if err != nil {
		return err
	}
	return bind(ctx, scheduler, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: pod}}, n.Name)
}

// bind binds the very pod, if its uid is given.
func bind(ctx context.Context, scheduler *kubernetes.Clientset, pod *corev1.Pod, node string) error {
	err := scheduler.CoreV1().Pods(pod.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("bind the pod %s/%s to the node %s: %w", pod.Namespace, pod.Name, node, err)
	}
	return nil
}

// schedulerClient is the client that all bindings of the cluster are made with.
func (c *Cluster) schedulerClient() (*kubernetes.Clientset, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.scheduler != nil {
		return c.scheduler, nil
	}
	config, err := c.config("system:kube-scheduler")
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make the scheduler's client: %w", err)
	}
	c.scheduler = client
	return client, nil
}

// Run reports a pod of the node as running and ready at that address.
func (n *Node) Run(ctx context.Context, namespace, pod, podIP string) error {
	p, err := n.pod(ctx, namespace, pod)
	if err != nil {
		return err
	}
	return n.setStatus(ctx, p, statusRunning(p, n.IP, podIP))
}

// Finish reports a pod of the node as ended: corev1.PodSucceeded or
// corev1.PodFailed.
func (n *Node) Finish(ctx context.Context, namespace, pod string, phase corev1.PodPhase) error {
	p, err := n.pod(ctx, namespace, pod)
	if err != nil {
		return err
	}
	return n.setStatus(ctx, p, statusEnded(p, phase))
}

// PodToken mints a token for a pod of the node, bound to the pod, as a kubelet
// does for a projected volume. Its audience and lifetime are those of the
// options; what it is bound to is the pod.
func (n *Node) PodToken(ctx context.Context, namespace, pod string, o TokenOptions) (*authenticationv1.TokenRequestStatus, error) {
	p, err := n.pod(ctx, namespace, pod)
	if err != nil {
		return nil, err
	}
	return n.mint(ctx, p, o)
}

// Remove deletes a terminating pod of the node for good, as a kubelet does
// when its containers have ended.
func (n *Node) Remove(ctx context.Context, namespace, pod string) error {
	p, err := n.pod(ctx, namespace, pod)
	if err != nil {
		return err
	}
	return n.remove(ctx, p)
}

func (n *Node) pod(ctx context.Context, namespace, name string) (p *corev1.Pod, err error) {
	err = untilRelated(ctx, func() error {
		p, err = n.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("get the pod %s/%s as the node %s: %w", namespace, name, n.Name, err)
	}
	return p, nil
}

func (n *Node) mint(ctx context.Context, p *corev1.Pod, o TokenOptions) (*authenticationv1.TokenRequestStatus, error) {
	o.Bound = &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: p.Name, UID: p.UID}
	var r *authenticationv1.TokenRequest
	err := untilRelated(ctx, func() (err error) {
		r, err = n.Client.CoreV1().ServiceAccounts(p.Namespace).
			CreateToken(ctx, p.Spec.ServiceAccountName, o.request(), metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("mint a token of the service account %s/%s for the pod %s as the node %s: %w",
			p.Namespace, p.Spec.ServiceAccountName, p.Name, n.Name, err)
	}
	return &r.Status, nil
}

func (n *Node) setStatus(ctx context.Context, p *corev1.Pod, status corev1.PodStatus) error {
	patch, err := json.Marshal(map[string]any{
		// A pod of the same name made meanwhile is another pod.
		"metadata": map[string]any{"uid": p.UID},
		"status":   status,
	})
	if err != nil {
		return fmt.Errorf("encode the status of the pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	err = untilRelated(ctx, func() error {
		_, err := n.Client.CoreV1().Pods(p.Namespace).
			Patch(ctx, p.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		return err
	})
	if err != nil {
		return fmt.Errorf("report the pod %s/%s as %s: %w", p.Namespace, p.Name, status.Phase, err)
	}
	return nil
}

func (n *Node) remove(ctx context.Context, p *corev1.Pod) error {
	now := int64(0)
	err := n.Client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &p.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove the ended pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	return nil
}

// untilRelated repeats a node's request that is refused because the node
// authorizer or NodeRestriction have not yet seen that the pod is on the node:
// they follow the API by watches, some milliseconds behind.
func untilRelated(ctx context.Context, request func() error) error {
	deadline := time.Now().Add(5 * time.Second)
	for wait := 10 * time.Millisecond; ; wait *= 2 {
		err := request()
		if !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

func statusRunning(p *corev1.Pod, nodeIP, podIP string) corev1.PodStatus {
	now := metav1.Now()
	status := corev1.PodStatus{
		Phase: corev1.PodRunning, StartTime: &now,
		HostIP: nodeIP, HostIPs: []corev1.HostIP{{IP: nodeIP}},
		PodIP: podIP, PodIPs: []corev1.PodIP{{IP: podIP}},
	}
	for _, t := range []corev1.PodConditionType{corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		status.Conditions = append(status.Conditions,
			corev1.PodCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	started := true
	for _, c := range p.Spec.Containers {
		status.ContainerStatuses = append(status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, Ready: true, Started: &started,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		})
	}
	return status
}

func statusEnded(p *corev1.Pod, phase corev1.PodPhase) corev1.PodStatus {
	now := metav1.Now()
	exit, reason := int32(0), "Completed"
	if phase == corev1.PodFailed {
		exit, reason = 1, "Error"
	}
	status := corev1.PodStatus{Phase: phase}
	for _, t := range []corev1.PodConditionType{corev1.ContainersReady, corev1.PodReady} {
		status.Conditions = append(status.Conditions,
			corev1.PodCondition{Type: t, Status: corev1.ConditionFalse, Reason: "PodCompleted", LastTransitionTime: now})
	}
	started := false
	for _, c := range p.Spec.Containers {
		status.ContainerStatuses = append(status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, Started: &started,
			State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: exit, Reason: reason, FinishedAt: now,
			}},
		})
	}
	return status
}
