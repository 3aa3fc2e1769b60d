package activity_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// TestRepeats holds that events whose text is known give exactly what they give
// when each is decoded: those in a list are. The log has renewals, thefts, tokens
// in what a client chose, refusals, and rules that match.
func TestRepeats(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	kinds := []string{
		`"verb":"list","requestURI":"/api/v1/pods","sourceIPs":["10.0.0.%[2]d"],"userAgent":"app/1.0","objectRef":{"resource":"pods","namespace":"ns","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":200}`,
		`"verb":"update","requestURI":"/apis/coordination.k8s.io/v1/leases/l","sourceIPs":["10.0.0.%[2]d"],"userAgent":"app/1.0","objectRef":{"resource":"leases","namespace":"ns","name":"l","uid":"u-%[2]d","apiGroup":"coordination.k8s.io","apiVersion":"v1","resourceVersion":"%[1]d"},"responseStatus":{"metadata":{},"code":200}`,
		`"verb":"get","requestURI":"/api/v1/secrets/s","sourceIPs":["10.0.0.%[2]d"],"userAgent":"curl/8","objectRef":{"resource":"secrets","namespace":"ns","name":"s","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":200}`,
		`"verb":"get","requestURI":"/api/v1/nodes","sourceIPs":["203.0.113.%[2]d"],"userAgent":"app/1.0","objectRef":{"resource":"nodes","apiVersion":"v1"},"responseStatus":{"metadata":{},"status":"Failure","reason":"Forbidden","code":403}`,
		`"verb":"create","requestURI":"/t","sourceIPs":["10.0.0.%[2]d"],"userAgent":"app/1.0","objectRef":{"resource":"serviceaccounts","namespace":"ns","name":"a%[2]d","apiVersion":"v1","subresource":"token"},"responseStatus":{"metadata":{},"code":201}`,
		`"verb":"get","requestURI":"/x?token=eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJlLXdpdGgtbWFueQ","sourceIPs":["10.0.0.%[2]d"],"userAgent":"app/1.0","objectRef":{"resource":"configmaps","namespace":"ns","name":"\"auditID\":\"x","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":200}`,
	}
	var lines []string
	for n := range 3000 {
		account, kind := random.IntN(4), random.IntN(len(kinds))
		if n > 2000 && n%10 == 1 { // who does nothing unusual, until it wakes after a pause
			account, kind = 7, 1
		}
		id := fmt.Sprintf("%08x-0000-4000-8000-%012x", n, n)
		switch random.IntN(60) {
		case 0: // chosen by the client: also what may be a token, and what came before
			id = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJlLXdpdGgtbWFueQ"
		case 1:
			id = "same"
		}
		at := start.Add(time.Duration(n) * 7 * time.Second)
		if random.IntN(30) == 0 {
			at = at.Add(-2 * time.Hour) // late
		}
		if n > 2600 {
			at = at.Add(100 * 24 * time.Hour) // what is known was done long ago
		}
		annotations := `{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"RBAC: allowed by RoleBinding \"b/ns\" of Role \"r\" to ServiceAccount \"a/ns\""}`
		if kind == 4 {
			annotations = strings.TrimSuffix(annotations, "}") + fmt.Sprintf(`,"authentication.kubernetes.io/issued-credential-id":"JTI=%d-%d"}`, account, n/500+1)
		}
		token := n / 500
		if account == 7 {
			token = 0
		}
		const layout = "2006-01-02T15:04:05.000000Z"
		lines = append(lines, `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"`+id+`","stage":"ResponseComplete",`+
			strings.NewReplacer("%[1]d", fmt.Sprint(n), "%[2]d", fmt.Sprint(account)).Replace(kinds[kind])+
			fmt.Sprintf(`,"user":{"username":"system:serviceaccount:ns:a%d","extra":{"authentication.kubernetes.io/credential-id":["JTI=%[1]d-%d"]}},`, account, token)+
			`"requestReceivedTimestamp":"`+at.Format(layout)+`","stageTimestamp":"`+at.Add(3*time.Millisecond).Format(layout)+`","annotations":`+annotations+`}`)
	}
	known, decoded := newPlace(t), newPlace(t)
	for n, line := range lines {
		known.feed(line)
		decoded.feed(`{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[` + line + `]}`)
		if n%700 == 699 {
			known.checkpoint()
			decoded.checkpoint()
		}
	}
	if a, b := known.Counts(), decoded.Counts(); a != b || a.Events < 2500 {
		t.Fatalf("%+v, decoded %+v", a, b)
	}
	if r := known.Repeats(); r < 1000 {
		t.Errorf("only %d events were known", r)
	}
	if r := decoded.Repeats(); r > 0 {
		t.Errorf("%d events of lists were known", r)
	}
	a, b := known.contents(), decoded.contents()
	if a == b {
		return
	}
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(as), len(bs)) {
		if as[i] != bs[i] {
			t.Fatalf("line %d of the contents:\n%s\ndecoded:\n%s", i, as[i], bs[i])
		}
	}
	t.Errorf("%d lines of contents, decoded %d", len(as), len(bs))
}

// TestRepeatOfAnotherSource: an event that begins as one source's and is taken by
// the decoder of another, which cannot tell repeats, once ended the process when
// it came a second time; and again at every start, for it was still in the queue.
func TestRepeatOfAnotherSource(t *testing.T) {
	p := newPlace(t)
	line := func(n int) string {
		return fmt.Sprintf(`{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a-%d","items":[{}],`+
			`"eventVersion":"1.11","eventSource":"s3.amazonaws.com","eventName":"GetObject","eventTime":"2026-11-20T08:00:00Z",`+
			`"userIdentity":{"type":"Root","accountId":"1"},"requestReceivedTimestamp":"2026-11-20T08:00:0%[1]dZ","stageTimestamp":"2026-11-20T08:00:0%[1]dZ"}`, n)
	}
	for n := range 4 {
		p.feed(audit(fmt.Sprint("own-", n), start, "a", "t", "get", ""), line(n)) // the stream is a cluster's
	}
	p.checkpoint()
	if c := p.Counts(); c.Events+c.Dead != 8 || p.Repeats() > 0 {
		t.Errorf("%+v, %d known", c, p.Repeats())
	}
}
