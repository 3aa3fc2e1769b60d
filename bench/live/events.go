package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"time"
)

// event writes an audit event as an API server sends it, at level Metadata.
func event(b *bytes.Buffer, o origin, verb, resource, sub, name string, code int, note string) {
	const layout = "2006-01-02T15:04:05.000000Z"
	now := time.Now().UTC()
	uri := "/api/v1/namespaces/" + o.namespace + "/" + resource
	object := fmt.Sprintf(`"resource":%q,"namespace":%q`, resource, o.namespace)
	if name != "" {
		uri += "/" + name
		object += fmt.Sprintf(`,"name":%q`, name)
	}
	if sub != "" {
		uri += "/" + sub
		object += fmt.Sprintf(`,"subresource":%q`, sub)
	}
	if verb == "watch" {
		uri += "?allowWatchBookmarks=true&timeoutSeconds=441&watch=true"
	}
	fmt.Fprintf(b, `{"level":"Metadata","auditID":"%08x-%04x-4%03x-8000-%012x","stage":"ResponseComplete","requestURI":%q,"verb":%q,`,
		rand.Uint32(), rand.Uint32N(1<<16), rand.Uint32N(1<<12), rand.Uint64N(1<<48), uri, verb)
	fmt.Fprintf(b, `"user":{"username":"system:serviceaccount:%[1]s:%[2]s","uid":"6d1f0a52-0000-4000-8000-%012[3]x",`+
		`"groups":["system:serviceaccounts","system:serviceaccounts:%[1]s","system:authenticated"],"extra":{"authentication.kubernetes.io/credential-id":["JTI=%[4]s"],`+
		`"authentication.kubernetes.io/node-name":[%[5]q],"authentication.kubernetes.io/node-uid":["5c0e7b11-0000-4000-8000-%012[6]x"],`+
		`"authentication.kubernetes.io/pod-name":["%[2]s-5d4f8c7b9-x2x4z"],"authentication.kubernetes.io/pod-uid":["9b3a4c1d-0000-4000-8000-%012[3]x"]}},`,
		o.namespace, o.account, o.number, o.credential, o.node, o.number/50)
	fmt.Fprintf(b, `"sourceIPs":[%q],"userAgent":%q,"objectRef":{%s,"apiVersion":"v1"},"responseStatus":{"metadata":{},"code":%d},`+
		`"requestReceivedTimestamp":"%s","stageTimestamp":"%s","annotations":{%s"authorization.k8s.io/decision":"allow",`+
		`"authorization.k8s.io/reason":"RBAC: allowed by RoleBinding \"%s/%s\" of Role \"app\" to ServiceAccount \"%[8]s/%[9]s\""}}`,
		o.address, o.agent, object, code, now.Add(-3*time.Millisecond).Format(layout), now.Format(layout), note, o.account, o.namespace)
}

// origin is who does something from where.
type origin struct {
	number                     int
	namespace, account, node   string
	credential, address, agent string
}

var agents = [...]string{
	"manager/v0.0.0 (linux/amd64) kubernetes/$Format", "kube-state-metrics/v2.14.0 (linux/amd64) kube-state-metrics/21c9ae8",
	"cert-manager-controller/v1.17.1 (linux/amd64) cert-manager/1a2b3c4", "Go-http-client/2.0",
}

func worker(i int) origin {
	return origin{
		number: i, namespace: fmt.Sprintf("team-%d", i/25), account: fmt.Sprintf("app-%d", i), node: fmt.Sprintf("node-%d", i/50),
		credential: fmt.Sprintf("2a41e0c3-0000-4000-8000-%012x", i), address: fmt.Sprintf("10.0.%d.%d", i>>8&255, i&255), agent: agents[i%len(agents)],
	}
}

// does are what a worker does: the same few things again and again.
var does = [...]struct{ verb, resource, name string }{
	{"get", "configmaps", "settings"},
	{"watch", "configmaps", ""},
	{"list", "pods", ""},
	{"get", "endpoints", "service"},
	{"patch", "events", "web.17a0c2"},
	{"get", "services", "service"},
}

// ordinary are events of a background, as one request brings them.
func ordinary(b *bytes.Buffer, events, identities int) {
	b.Reset()
	begin(b)
	for n := range events {
		if n > 0 {
			b.WriteByte(',')
		}
		i := rand.IntN(identities)
		does := does[(i+rand.IntN(3))%len(does)]
		event(b, worker(i), does.verb, does.resource, "", does.name, 200, "")
	}
	b.WriteString("]}\n")
}

// The accounts that are robbed are none of the background's.
const robbed = "robbed"

func victim(i int) string { return fmt.Sprintf("victim-%d", i) }

// theft is a request in which the token of an account mints one for the same.
func theft(i int) *bytes.Buffer {
	o := worker(1<<20 + i)
	o.namespace, o.account, o.address, o.agent = robbed, victim(i), "203.0.113.66", "curl/8.5.0"
	b := new(bytes.Buffer)
	begin(b)
	event(b, o, "create", "serviceaccounts", "token", o.account, 201,
		fmt.Sprintf(`"authentication.kubernetes.io/issued-credential-id":"JTI=7c55d0b2-0000-4000-8000-%012x",`, i))
	b.WriteString("]}\n")
	return b
}

func begin(b *bytes.Buffer) {
	b.WriteString(`{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":[`)
}
