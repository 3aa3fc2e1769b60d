package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"time"
)

// cluster makes the audit log of a cluster, at level Metadata as an API server
// writes it. A machine does the same few things again and again, with a token
// that the kubelet of its node renews before it is an hour old; few do much and
// many do little; and now and then one touches a name of which there are
// thousands.
type cluster struct {
	r      *rand.Rand
	zipf   *rand.Zipf
	actors []actor
	nodes  int
	now    time.Time
	step   time.Duration
	line   []byte
	serial uint64
}

// actor is a service account with one pod.
type actor struct {
	token   uint64 // of which its credential's ID is made
	renewed time.Time
	seed    uint32
}

const (
	// perActor is how often a machine does something, on average: what its
	// controllers, probes and leases come to.
	perActor = 30 * time.Second
	// renewal is when a kubelet renews a token of an hour.
	renewal = 48 * time.Minute
	// perNode is how many pods a node has.
	perNode = 50
)

var began = time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)

func newCluster(identities int) *cluster {
	r := rand.New(rand.NewPCG(7, uint64(identities)))
	c := &cluster{
		r: r, actors: make([]actor, identities), nodes: max(1, identities/perNode),
		now: began, step: perActor / time.Duration(identities),
		zipf: rand.NewZipf(r, 1.05, float64(max(identities/20, 1)), uint64(identities-1)),
	}
	for i := range c.actors {
		c.actors[i] = actor{token: r.Uint64(), renewed: began.Add(-time.Duration(r.Int64N(int64(renewal)))), seed: r.Uint32()}
	}
	return c
}

// does are the requests that machines make; an actor makes a few of them.
var does = []struct {
	verb, group, version, resource, sub, name string
	code                                      int
}{
	{"update", "coordination.k8s.io", "v1", "leases", "", "leader", 200},
	{"get", "coordination.k8s.io", "v1", "leases", "", "leader", 200},
	{"get", "", "v1", "configmaps", "", "settings", 200},
	{"watch", "", "v1", "configmaps", "", "", 200},
	{"list", "", "v1", "pods", "", "", 200},
	{"watch", "", "v1", "pods", "", "", 200},
	{"get", "", "v1", "endpoints", "", "service", 200},
	{"patch", "apps", "v1", "deployments", "status", "web", 200},
	{"update", "apps", "v1", "replicasets", "status", "web-5d4f8c7b9", 200},
	{"list", "discovery.k8s.io", "v1", "endpointslices", "", "", 200},
	{"watch", "networking.k8s.io", "v1", "ingresses", "", "", 200},
	{"get", "", "v1", "services", "", "service", 200},
	{"create", "authorization.k8s.io", "v1", "subjectaccessreviews", "", "", 201},
	{"create", "authentication.k8s.io", "v1", "tokenreviews", "", "", 201},
	{"patch", "", "v1", "events", "", "web.17a0c2", 200},
	{"get", "", "v1", "serviceaccounts", "", "default", 200},
}

func (c *cluster) next() []byte { return c.of(int(c.zipf.Uint64())) }

// of is the next event of one actor.
func (c *cluster) of(i int) []byte {
	c.now = c.now.Add(c.step)
	a := &c.actors[i]
	if c.now.Sub(a.renewed) > renewal {
		a.token, a.renewed = c.r.Uint64(), c.now
		return c.renew(i, a)
	}
	if c.r.Uint32N(2) == 0 {
		return c.platform(i)
	}
	seed := a.seed
	op := does[(seed>>(4*(c.r.Uint32N(16)/6)))%uint32(len(does))]
	name, code := op.name, op.code
	switch dice := c.r.Uint32N(1000); {
	case dice < 4: // a pod of many
		op.verb, op.group, op.resource, op.sub, name = "get", "", "pods", "", "worker-"+strconv.Itoa(int(c.r.Uint32N(100_000)))
	case dice < 8:
		code = 404
	case dice < 10:
		code = 403
	}
	c.begin(i, op.verb, op.group, op.version, namespace(i), op.resource, op.sub, name)
	b := c.line
	b = append(b, `"user":{"username":"system:serviceaccount:`...)
	b = append(append(append(b, namespace(i)...), ':'), account(i)...)
	b = append(appendUID(append(b, `","uid":"`...), uint64(i)*0x9E3779B97F4A7C15, uint64(i)), `","groups":["system:serviceaccounts","system:serviceaccounts:`...)
	b = append(append(b, namespace(i)...), `","system:authenticated"],"extra":{"authentication.kubernetes.io/credential-id":["JTI=`...)
	b = append(appendUID(b, a.token, uint64(i)), `"],"authentication.kubernetes.io/node-name":["`...)
	b = c.node(b, i)
	b = append(appendUID(append(b, `"],"authentication.kubernetes.io/node-uid":["`...), uint64(i/perNode), 77), `"],"authentication.kubernetes.io/pod-name":["`...)
	b = append(append(append(b, account(i)...), '-'), strconv.FormatUint(uint64(seed), 36)...)
	b = append(appendUID(append(b, `"],"authentication.kubernetes.io/pod-uid":["`...), uint64(seed), uint64(i)), `"]}},"sourceIPs":["10.`...)
	b = strconv.AppendInt(b, int64(i>>16&255), 10)
	b = strconv.AppendInt(append(b, '.'), int64(i>>8&255), 10)
	b = strconv.AppendInt(append(b, '.'), int64(i&255), 10)
	b = append(append(append(b, `"],"userAgent":"`...), agents[seed%uint32(len(agents))]...), '"')
	c.line = b
	c.end(op.group, op.version, namespace(i), op.resource, op.sub, name, code, i, 0)
	return c.line
}

// platform is a request of the node of an actor, or of the control plane: half
// of what an API server logs.
func (c *cluster) platform(i int) []byte {
	if c.r.Uint32N(4) == 0 {
		part := parts[c.r.Uint32N(uint32(len(parts)))]
		c.begin(i, part.verb, part.group, "v1", "kube-system", part.resource, "", part.name)
		b := append(append(c.line, `"user":{"username":"`...), part.user...)
		b = append(append(b, `","groups":["system:authenticated"],"extra":{"authentication.kubernetes.io/credential-id":["X509SHA256=`...), part.certificate...)
		b = append(append(b, `"]}},"sourceIPs":["172.16.255.1"],"userAgent":"`...), part.agent...)
		c.line = append(b, '"')
		c.end(part.group, "v1", "kube-system", part.resource, "", part.name, 200, i, 0)
		return c.line
	}
	op := kubelet[c.r.Uint32N(uint32(len(kubelet)))]
	ns, name := op.namespace, string(c.node(nil, i))
	if ns == "" {
		ns, name = namespace(i), account(i)+"-"+strconv.FormatUint(uint64(c.actors[i].seed), 36)
	}
	c.begin(i, op.verb, op.group, "v1", ns, op.resource, op.sub, name)
	c.kubelet(i)
	c.end(op.group, "v1", ns, op.resource, op.sub, name, 200, i, 0)
	return c.line
}

var kubelet = []struct{ verb, group, namespace, resource, sub string }{
	{"update", "coordination.k8s.io", "kube-node-lease", "leases", ""},
	{"get", "coordination.k8s.io", "kube-node-lease", "leases", ""},
	{"patch", "", "", "pods", "status"},
	{"get", "", "", "pods", ""},
}

const certificate = "5f0b6a1c9d3e47828f0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f"

var parts = []struct{ user, agent, verb, group, resource, name, certificate string }{
	{"system:kube-controller-manager", "kube-controller-manager/v1.36.3 (linux/amd64) kubernetes/9ff2f1c/leader-election", "update", "coordination.k8s.io", "leases", "kube-controller-manager", "01" + certificate},
	{"system:kube-controller-manager", "kube-controller-manager/v1.36.3 (linux/amd64) kubernetes/9ff2f1c/shared-informers", "watch", "apps", "deployments", "", "01" + certificate},
	{"system:kube-scheduler", "kube-scheduler/v1.36.3 (linux/amd64) kubernetes/9ff2f1c/leader-election", "update", "coordination.k8s.io", "leases", "kube-scheduler", "02" + certificate},
	{"system:kube-scheduler", "kube-scheduler/v1.36.3 (linux/amd64) kubernetes/9ff2f1c/scheduler", "watch", "", "pods", "", "02" + certificate},
	{"system:apiserver", "kube-apiserver/v1.36.3 (linux/amd64) kubernetes/9ff2f1c", "get", "", "namespaces", "kube-system", "03" + certificate},
}

// renew is a kubelet's TokenRequest for the pod of an actor.
func (c *cluster) renew(i int, a *actor) []byte {
	c.begin(i, "create", "", "v1", namespace(i), "serviceaccounts", "token", account(i))
	c.kubelet(i)
	c.end("", "v1", namespace(i), "serviceaccounts", "token", account(i), 201, i, a.token)
	return c.line
}

// kubelet writes the user, the address and the agent of an actor's node.
func (c *cluster) kubelet(i int) {
	node := i / perNode
	b := append(c.line, `"user":{"username":"system:node:`...)
	b = append(c.node(b, i), `","groups":["system:nodes","system:authenticated"],"extra":{"authentication.kubernetes.io/credential-id":["X509SHA256=`...)
	for k := range uint64(4) {
		b = appendHex(b, (uint64(node)+k+1)*0x9E3779B97F4A7C15, 16)
	}
	b = strconv.AppendInt(append(b, `"]}},"sourceIPs":["172.16.`...), int64(node>>8&255), 10)
	b = strconv.AppendInt(append(b, '.'), int64(node&255), 10)
	b = append(b, `"],"userAgent":"kubelet/v1.36.3 (linux/amd64) kubernetes/9ff2f1c"`...)
	c.line = b
}

var agents = []string{
	"manager/v0.0.0 (linux/amd64) kubernetes/$Format/leader-election", "kube-state-metrics/v2.14.0 (linux/amd64) kube-state-metrics/21c9ae8",
	"cert-manager-controller/v1.17.1 (linux/amd64) cert-manager/1a2b3c4", "Go-http-client/2.0", "external-dns/v0.15.1 (linux/amd64) kubernetes/$Format",
	"argocd-application-controller/v2.14.4 (linux/amd64) kubernetes/9ff2f1c",
}

func namespace(i int) string { return "team-" + strconv.Itoa(i/25) }
func account(i int) string   { return "app-" + strconv.Itoa(i) + "-controller" }

func (c *cluster) node(b []byte, i int) []byte {
	return append(strconv.AppendInt(append(b, "ip-172-16-"...), int64(i/perNode), 10), ".eu-central-1.compute.internal"...)
}

// begin writes what comes before the user.
func (c *cluster) begin(i int, verb, group, version, ns, resource, sub, name string) {
	b := append(c.line[:0], `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"`...)
	c.serial++
	b = append(appendUID(b, c.r.Uint64(), c.serial), `","stage":"ResponseComplete","requestURI":"/`...)
	if group == "" {
		b = append(append(b, "api/"...), version...)
	} else {
		b = append(append(append(append(b, "apis/"...), group...), '/'), version...)
	}
	b = append(append(append(append(b, "/namespaces/"...), ns...), '/'), resource...)
	if name != "" {
		b = append(append(b, '/'), name...)
	}
	if sub != "" {
		b = append(append(b, '/'), sub...)
	}
	switch verb {
	case "list":
		b = append(b, "?limit=500&resourceVersion=0"...)
	case "watch":
		b = strconv.AppendUint(append(b, "?allowWatchBookmarks=true&resourceVersion="...), c.serial+1_000_000, 10)
		b = append(b, "&timeoutSeconds=441&watch=true"...)
	}
	c.line = append(append(append(b, `","verb":"`...), verb...), `",`...)
}

// end writes what comes after the user agent.
func (c *cluster) end(group, version, ns, resource, sub, name string, code, i int, issued uint64) {
	b := append(append(c.line, `,"objectRef":{"resource":"`...), resource...)
	b = append(append(append(b, `","namespace":"`...), ns...), '"')
	if name != "" {
		b = append(append(append(b, `,"name":"`...), name...), '"')
	}
	if group != "" {
		b = append(append(append(b, `,"apiGroup":"`...), group...), '"')
	}
	b = append(append(append(b, `,"apiVersion":"`...), version...), '"')
	if sub != "" {
		b = append(append(append(b, `,"subresource":"`...), sub...), '"')
	}
	b = append(b, `},"responseStatus":{"metadata":{},`...)
	switch code {
	case 403:
		b = append(b, `"status":"Failure","message":"forbidden","reason":"Forbidden",`...)
	case 404:
		b = append(b, `"status":"Failure","message":"not found","reason":"NotFound",`...)
	}
	b = append(strconv.AppendInt(append(b, `"code":`...), int64(code), 10), `},"requestReceivedTimestamp":"`...)
	const layout = "2006-01-02T15:04:05.000000Z"
	b = append(c.now.AppendFormat(b, layout), `","stageTimestamp":"`...)
	b = append(c.now.Add(time.Duration(c.r.IntN(9_000_000))).AppendFormat(b, layout), `","annotations":{`...)
	if issued != 0 {
		b = append(appendUID(append(b, `"authentication.kubernetes.io/issued-credential-id":"JTI=`...), issued, uint64(i)),
			`","authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""}}`...)
	} else if code == 403 {
		b = append(b, `"authorization.k8s.io/decision":"forbid","authorization.k8s.io/reason":""}}`...)
	} else {
		b = append(append(b, `"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"RBAC: allowed by RoleBinding \"`...), account(i)...)
		b = append(append(append(append(append(b, '/'), ns...), `\" of Role \"`...), account(i)...), `\" to ServiceAccount \"`...)
		b = append(append(append(append(b, account(i)...), '/'), ns...), `\""}}`...)
	}
	c.line = append(b, '\n')
}

func appendHex(b []byte, n uint64, digits int) []byte {
	for digits > 0 {
		digits--
		b = append(b, "0123456789abcdef"[n>>(4*digits)&15])
	}
	return b
}

func appendUID(b []byte, x, y uint64) []byte {
	b = append(appendHex(b, x>>32, 8), '-')
	b = append(appendHex(b, x>>16, 4), '-', '4')
	b = append(appendHex(b, x, 3), '-', '8')
	b = append(appendHex(b, y>>48, 3), '-')
	return appendHex(b, y, 12)
}

// perLesson is how many events of each identity the log begins with that teaches.
const perLesson = 4

// writeLogs writes a log of so many events to a file, and before it, to another,
// one in which every identity comes up, for what it costs to meet it once is
// another figure than what it costs from then on. It returns the bytes of an
// event.
func writeLogs(lesson, log string, events, identities int) (int64, error) {
	c := newCluster(identities)
	_, err := c.write(lesson, perLesson*identities, func(i int) []byte { return c.of(i % identities) })
	if err != nil {
		return 0, err
	}
	size, err := c.write(log, events, func(int) []byte { return c.next() })
	return size / int64(events), err
}

func (c *cluster) write(path string, events int, event func(int) []byte) (size int64, err error) {
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	for i := range events {
		n, err := w.Write(event(i))
		if err != nil {
			return 0, err
		}
		size += int64(n)
	}
	if err := w.Flush(); err != nil {
		return 0, fmt.Errorf("write %s: %w", path, err)
	}
	return size, f.Close()
}
