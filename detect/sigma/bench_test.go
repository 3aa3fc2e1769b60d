package sigma

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fastjson"
)

// auditEvent is a Kubernetes audit event in the length that they have.
const auditEvent = `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"0f1c8e2a-6c0a-4d2e-9b1e-2f6d9b0a7c11",
"stage":"ResponseComplete","requestURI":"/api/v1/namespaces/shop/configmaps/leader","verb":"update",
"user":{"username":"system:serviceaccount:shop:cart","uid":"1d0f","groups":["system:serviceaccounts","system:authenticated"],
"extra":{"authentication.kubernetes.io/credential-id":["JTI=4f3c"],"authentication.kubernetes.io/pod-name":["cart-7f"]}},
"sourceIPs":["10.1.2.3"],"userAgent":"cart/v1.2 (linux/amd64)",
"objectRef":{"resource":"configmaps","namespace":"shop","name":"leader","uid":"77","apiVersion":"v1","resourceVersion":"812"},
"responseStatus":{"metadata":{},"code":200},"requestReceivedTimestamp":"2026-03-01T12:00:00.000000Z","stageTimestamp":"2026-03-01T12:00:00.003000Z",
"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"RBAC: allowed by RoleBinding"}}`

var (
	benchVerbs     = []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}
	benchResources = []string{"pods", "secrets", "roles", "rolebindings", "clusterroles", "clusterrolebindings", "serviceaccounts", "nodes", "deployments", "daemonsets", "cronjobs", "jobs", "networkpolicies", "certificatesigningrequests", "validatingwebhookconfigurations", "events", "leases", "namespaces", "services", "ingresses"}
)

// benchRules returns n rules: one in share for the audit log, nearly all of
// them by verb and resource, and the others for other products.
func benchRules(n, share int) string {
	var b strings.Builder
	for i := range n {
		detection := fmt.Sprintf("verb: [%s, %s]\n    objectRef.resource: %s\n    user.username|startswith: bad%d", benchVerbs[i%8], benchVerbs[(i+3)%8], benchResources[i/8%20], i)
		if i%5 == 0 {
			// A dozen that do have the event's verb and resource, and no more.
			detection = fmt.Sprintf("verb: update\n    objectRef.resource: configmaps\n    objectRef.name|contains: secret%d", i)
			if i%25 != 0 || i > 300 {
				detection = fmt.Sprintf("objectRef.subresource: sub%d\n    verb: create", i)
			}
		}
		if i%97 == 96 {
			detection = fmt.Sprintf("user.username|endswith: ':evil%d'", i)
		}
		product := "kubernetes, service: audit"
		if i%share != 0 {
			product = []string{"aws, service: cloudtrail", "gcp, service: gcp.audit", "github, service: audit", "okta, service: okta"}[i%4]
		}
		fmt.Fprintf(&b, "title: t\nid: r%d\nlogsource: {product: %s}\ndetection:\n  sel:\n    %s\n  condition: sel\n---\n", i, product, detection)
	}
	return b.String()
}

func BenchmarkMatch(b *testing.B) {
	for _, c := range []struct {
		name     string
		n, share int
	}{{"10", 10, 1}, {"300", 300, 1}, {"3000", 3000, 1}, {"3000mixed", 3000, 7}} {
		b.Run(c.name, func(b *testing.B) {
			e := engineOf(b, benchRules(c.n, c.share), Options{})
			ev := &Event{Views: []View{{Product: "kubernetes", Service: "audit", JSON: fastjson.MustParse(auditEvent)}}}
			var found []Match
			b.ReportAllocs()
			for b.Loop() {
				found = e.Match(ev, found[:0])
			}
			if len(found) > 0 {
				b.Fatal("matched")
			}
		})
	}
}

// BenchmarkParsed is BenchmarkMatch on events just parsed, as they come: keys
// and texts are then read for the first time.
func BenchmarkParsed(b *testing.B) {
	for _, n := range []int{0, 300} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			e, _ := Compile(rulesOf(b, benchRules(n, 1)), Options{})
			var parser fastjson.Parser
			var found []Match
			b.ReportAllocs()
			for b.Loop() {
				v, err := parser.Parse(auditEvent)
				if err != nil {
					b.Fatal(err)
				}
				found = e.Match(&Event{Views: []View{{Product: "kubernetes", Service: "audit", JSON: v}}}, found[:0])
			}
		})
	}
}

func BenchmarkEventCount(b *testing.B) {
	e := engineOf(b, correlationOf("event_count", "a", "{gte: 100}"), Options{})
	events := make([]*Event, 1000)
	for i := range events {
		events[i] = happens{at: i, what: "a", who: fmt.Sprint("u", i%50)}.event(i)
	}
	var found []Match
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		ev := events[i%len(events)]
		ev.Time = epoch.Add(time.Duration(i) * 10 * time.Millisecond)
		found = e.Match(ev, found[:0])
		i++
	}
}

// TestNoAllocation says that an event that no rule matches takes no memory.
func TestNoAllocation(t *testing.T) {
	e := engineOf(t, benchRules(300, 1), Options{})
	ev := &Event{Views: []View{{Product: "kubernetes", Service: "audit", JSON: fastjson.MustParse(auditEvent)}}}
	if n := testing.AllocsPerRun(100, func() { e.Match(ev, nil) }); n != 0 {
		t.Errorf("%v allocations an event", n)
	}
}
