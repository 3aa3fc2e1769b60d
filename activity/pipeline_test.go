package activity_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"remit"
	"remit/activity"
	"remit/activity/archive"
	"remit/connector"
	"remit/connector/aws"
	"remit/connector/kubernetes"
	"remit/detect"
	"remit/detect/rules"
	"remit/detect/sigma"
	"remit/store/sqlstore"
)

var decoders = []connector.Decoder{kubernetes.Audit, aws.CloudTrail{}}

var start = time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)

// place is a directory with a store, an archive and dead letters, and the
// pipeline that is open on it.
type place struct {
	t     *testing.T
	store *sqlstore.Store
	dir   string
	*activity.Pipeline
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{t: t, dir: t.TempDir()}
	var err error
	if p.store, err = sqlstore.Open(t.Context(), filepath.Join(p.dir, "remit.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.store.Close() })
	p.restart()
	return p
}

// restart leaves what has no checkpoint behind, as a crash does.
func (p *place) restart() {
	p.t.Helper()
	engine, err := builtIn()
	if err != nil {
		p.t.Fatal(err)
	}
	detector, err := detect.New(p.t.Context(), detect.Options{Engine: engine.Clone(), States: p.store})
	if err != nil {
		p.t.Fatal(err)
	}
	kept, err := archive.Open(filepath.Join(p.dir, "archive"), archive.Options{})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = kept.Close() })
	dead, err := activity.OpenDeadLetters(filepath.Join(p.dir, "dead-letters.jsonl"), func() time.Time { return start })
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = dead.Close() })
	p.Pipeline = activity.New(activity.Options{
		Store: p.store, Decoders: decoders, Detector: detector, Archive: kept,
		DeadLetter: dead.Put,
		Now:        func() time.Time { return start.Add(100 * 24 * time.Hour) },
	})
	if _, err := p.Recover(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}

// builtIn compiles the built-in rules, once for all tests.
var builtIn = sync.OnceValues(func() (*sigma.Engine, error) {
	all, err := rules.Load()
	if err != nil {
		return nil, err
	}
	engine, _ := sigma.Compile(all, sigma.Options{Attributed: detect.Attributed})
	return engine, nil
})

var learned = start.Add(99 * 24 * time.Hour)

func (p *place) feed(documents ...string) {
	p.t.Helper()
	p.feedAt(learned, documents...)
}

func (p *place) feedAt(at time.Time, documents ...string) {
	p.t.Helper()
	for _, d := range documents {
		if err := p.Feed(p.t.Context(), activity.Input{Source: "test", Learned: at}, []byte(d)); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *place) checkpoint() {
	p.t.Helper()
	if err := p.Checkpoint(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}

// contents is everything that the store holds of activity, and what the archive
// holds, as JSON.
func (p *place) contents() string {
	p.t.Helper()
	p.checkpoint()
	var b strings.Builder
	show := func(what string, one any) {
		text, err := json.Marshal(one)
		if err != nil {
			p.t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %s\n", what, text)
	}
	ctx, filter := p.t.Context(), remit.ActivityFilter{}
	check := func(err error) {
		p.t.Helper()
		if err != nil {
			p.t.Fatal(err)
		}
	}
	systems, err := p.store.Systems(ctx)
	check(err)
	for _, s := range systems {
		show("system", s.ID)
		for _, kind := range []string{"correlation", "incident"} {
			states, err := p.store.States(ctx, s.ID, kind, "")
			check(err)
			for _, one := range states {
				show("state "+kind, one)
			}
		}
		for hour := start.Unix() / 3600; hour < start.Unix()/3600+60; hour++ {
			chunks, err := p.store.Seen(ctx, s.ID, hour)
			check(err)
			n := 0
			for _, c := range chunks {
				n += len(c.IDs)
			}
			if n > 0 {
				show("seen", []any{hour, n})
			}
		}
	}
	states, err := p.store.States(ctx, "", "baseline", "")
	check(err)
	for _, one := range states {
		show("state", one)
	}
	check(remit.Each(ctx, filter, p.store.Presences, func(one remit.Presence) error { show("presence", one); return nil }))
	check(remit.Each(ctx, filter, p.store.Usage, func(one remit.Usage) error { show("usage", one); return nil }))
	check(remit.Each(ctx, filter, p.store.Lineage, func(one remit.Lineage) error { show("lineage", one); return nil }))
	findings, _, err := p.store.Findings(ctx, remit.FindingFilter{}, remit.PageRequest{Limit: 1000})
	check(err)
	for _, f := range findings {
		show("finding", f)
	}
	for _, e := range p.events() {
		show("event", e)
	}
	return b.String()
}

// events are those in the archive.
func (p *place) events() (all []remit.Activity) {
	p.t.Helper()
	files, err := activity.Manifest(p.t.Context(), p.store, "", time.Time{}, time.Time{})
	if err != nil {
		p.t.Fatal(err)
	}
	a, err := archive.Open(filepath.Join(p.dir, "archive"), archive.Options{})
	if err != nil {
		p.t.Fatal(err)
	}
	defer a.Close()
	err = a.Query(p.t.Context(), files, archive.Query{}, func(e *remit.Activity, _ []byte) error {
		all = append(all, *e)
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return all
}

func (p *place) presence(principal string) remit.Presence {
	p.t.Helper()
	var found remit.Presence
	err := remit.Each(p.t.Context(), remit.ActivityFilter{}, p.store.Presences, func(one remit.Presence) error {
		if one.Principal == principal {
			found = one
		}
		return nil
	})
	if err != nil || found.Identity == "" {
		p.t.Fatalf("%s was not seen: %v", principal, err)
	}
	return found
}

func (p *place) lineage(credential string) remit.Lineage {
	p.t.Helper()
	all, _, err := p.store.Lineage(p.t.Context(), remit.ActivityFilter{Credentials: []string{credential}}, remit.PageRequest{Limit: 10})
	if err != nil || len(all) != 1 {
		p.t.Fatalf("%s: %d entries, %v", credential, len(all), err)
	}
	return all[0]
}

// audit is one event of a cluster's audit log; more is what else it has.
func audit(id string, at time.Time, account, token, verb, more string) string {
	return fmt.Sprintf(`{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":%q,"stage":"ResponseComplete","verb":%q,`+
		`"user":{"username":"system:serviceaccount:shop:%s","extra":{"authentication.kubernetes.io/credential-id":["JTI=%s"]}},`+
		`"sourceIPs":["10.0.0.1"],"userAgent":"kubectl/1.36","responseStatus":{"code":200},"requestReceivedTimestamp":%q%s}`,
		id, verb, account, token, at.Format("2006-01-02T15:04:05.000000Z07:00"), more)
}

func secrets(id string, at time.Time, account, token string) string {
	return audit(id, at, account, token, "get", `,"objectRef":{"resource":"secrets","namespace":"shop","name":"db","apiVersion":"v1"}`)
}

// mint is a TokenRequest of account for another.
func mint(id string, at time.Time, account, token, of, issued string) string {
	return audit(id, at, account, token, "create", fmt.Sprintf(`,"objectRef":{"resource":"serviceaccounts","subresource":"token","namespace":"shop","name":%q,"apiVersion":"v1"},`+
		`"annotations":{"authentication.kubernetes.io/issued-credential-id":"JTI=%s"}`, of, issued))
}

// trail is one CloudTrail event.
func trail(id string, at time.Time, identity, name, more string) string {
	return fmt.Sprintf(`{"eventVersion":"1.11","eventID":%q,"eventTime":%q,"eventSource":"sts.amazonaws.com","eventName":%q,"awsRegion":"eu-west-1",`+
		`"sourceIPAddress":"198.51.100.7","userAgent":"aws-cli/2","recipientAccountId":"123456789012","userIdentity":%s%s}`,
		id, at.UTC().Format(time.RFC3339), name, identity, more)
}

const ann = `{"type":"IAMUser","arn":"arn:aws:iam::123456789012:user/ann","userName":"ann","accountId":"123456789012","accessKeyId":"AKIA1"}`

// TestOnce counts an event once however it comes: again, in another file, in a
// list, printed over several lines, before and after a restart.
func TestOnce(t *testing.T) {
	p := newPlace(t)
	k8s := secrets("a-1", start, "api", "1")
	cloud := trail("c-1", start, ann, "GetCallerIdentity", "")
	noID := strings.Replace(secrets("", start, "api", "1"), `"auditID":"",`, "", 1)
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, []byte(noID), "", "  "); err != nil {
		t.Fatal(err)
	}
	again := []string{
		k8s, cloud, noID, pretty.String(),
		`{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[` + k8s + `,` + k8s + `, ` + noID + `]}`,
		`[` + k8s + `]`,
		`{"Records":[` + cloud + `,` + cloud + `]}`,
		`{"detail-type":"AWS API Call via CloudTrail","detail":` + cloud + `}`,
	}
	p.feed(again...)
	if c := p.Counts(); c.Events != 3 || c.Dead != 0 || c.Duplicate != 8 {
		t.Errorf("%+v", c)
	}
	p.checkpoint()
	p.feed(again...)
	p.checkpoint()
	p.restart()
	p.feed(again...)
	if c := p.Counts(); c.Events != 0 || c.Duplicate != 11 {
		t.Errorf("after a restart: %+v", c)
	}
	p.checkpoint()
	if got := p.presence("system:serviceaccount:shop:api").Count; got != 2 {
		t.Errorf("%d events of api", got)
	}
	if got := len(p.events()); got != 3 {
		t.Errorf("%d events in the archive", got)
	}
}

// TestSameIDOtherEvent counts requests for which a client chose one audit ID:
// all but the first would be hidden.
func TestSameIDOtherEvent(t *testing.T) {
	p := newPlace(t)
	p.feed(secrets("chosen", start, "api", "1"), secrets("chosen", start.Add(time.Second), "api", "1"), secrets("chosen", start, "web", "2"))
	if c := p.Counts(); c.Events != 3 {
		t.Errorf("%+v", c)
	}
}

// TestWithoutTime keeps an event that has no time at the moment at which it
// was learned, and counts it once: it counted again with every import.
func TestWithoutTime(t *testing.T) {
	p := newPlace(t)
	event := strings.Replace(secrets("a-1", start, "api", "1"), `"requestReceivedTimestamp":"2026-11-20T08:00:00.000000Z"`, `"x":1`, 1)
	p.feedAt(learned, event)
	p.checkpoint()
	p.restart()
	p.feedAt(learned.Add(100*time.Hour), event, event)
	p.checkpoint()
	if got := p.presence("system:serviceaccount:shop:api"); got.Count != 1 || !got.Last.Equal(learned) {
		t.Errorf("%d events, the last at %s", got.Count, got.Last)
	}
}

// TestImpossibleTime takes a time that no calendar has for none: what is kept of
// such an event could not be written, and no import would have passed it.
func TestImpossibleTime(t *testing.T) {
	p := newPlace(t)
	at := start.Format("2006-01-02T15:04:05.000000Z07:00")
	for n, impossible := range []string{"9999-12-31T23:59:59-12:00", "0000-01-01T00:00:00+12:00"} {
		id := fmt.Sprintf("a-%d", n)
		p.feed(
			strings.Replace(secrets(id, start, "api", "1"), at, impossible, 1),
			strings.Replace(mint("m"+id, start, "api", "1", "api", "2"+id), at, impossible, 1),
			strings.Replace(mint("e"+id, start, "api", "1", "api", "3"+id), `"annotations"`, `"responseObject":{"status":{"expirationTimestamp":"`+impossible+`"}},"annotations"`, 1),
		)
	}
	p.checkpoint()
	if c := p.Counts(); c.Events != 6 {
		t.Errorf("%+v", c)
	}
	if len(p.events()) != 6 {
		t.Error("not all are in the archive")
	}
}

// TestDeadLetters keeps what cannot be read, with the reason and without any
// secret: reasons quoted the event, and short passwords and the values of
// Secrets stayed.
func TestDeadLetters(t *testing.T) {
	p := newPlace(t)
	short, jwt := "hunter2!", "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhcGkifQ.c2lnbmF0dXJlc2lnbmF0dXJl"
	whole := secrets("0000aaaa-1111-2222-3333-444455556666", start, "api", "1")
	documents := []string{
		whole[:len(whole)-30],
		`{"kind":"Event","requestObject":{"data":{"password":"` + short + `"}},"x":"` + jwt,
		`{"password":"` + short + `" "more":"` + jwt + `"}`,
		`{"a":` + jwt + `}`,
		`password=` + short + ` token=` + jwt + ` the rest of a line`,
		`"` + short + `","` + jwt + `",1`,
		`{"kind":"Secret","apiVersion":"v1","data":{"DB":"` + short + `","jwt":["` + jwt + `"]},"auditID":"0000aaaa-1111-2222-3333-444455556666"}`,
		`{"kind":"` + jwt + `","nested":{"kind":{"kind":"` + jwt + `","list":["` + short + `"]}}}`,
		`"` + jwt + `"`, `["` + short + `"]`, `12`,
		`{"kind":"Event","auditID":"x","verb":"","user":{"username":""},"requestObject":{"data":{"k":"` + short + `"},"stringData":{"p":"` + jwt + `"}},"responseObject":{"status":{"token":"` + jwt + `"}}}`,
		`{"message":"{\"apiVersion\":\"audit.k8s.io/v1\",\"x\":\"` + short + `\",` + jwt + `"}`,
	}
	p.feed(documents...)
	if c := p.Counts(); c.Events != 0 || c.Dead != int64(len(documents)) {
		t.Errorf("%+v", c)
	}
	dead, err := os.ReadFile(filepath.Join(p.dir, "dead-letters.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(dead)), "\n")
	if len(lines) != len(documents) {
		t.Errorf("%d dead letters of %d", len(lines), len(documents))
	}
	for n, line := range lines {
		for _, secret := range []string{short, jwt, jwt[:24], jwt[len(jwt)-24:]} {
			if strings.Contains(line, secret) {
				t.Errorf("event %d: %s is in %s", n, secret, line)
			}
		}
		var one struct{ Source, Reason, Event string }
		if err := json.Unmarshal([]byte(line), &one); err != nil || one.Source != "test" || one.Reason == "" || one.Event == "" {
			t.Errorf("%s: %v", line, err)
		}
	}
	// What it was can still be told.
	for n, want := range map[int]string{0: `"auditID":"0000aaaa-1111-2222-3333-444455556666"`, 6: `"kind":"Secret"`} {
		if !strings.Contains(lines[n], strings.ReplaceAll(want, `"`, `\"`)) {
			t.Errorf("no %s in %s", want, lines[n])
		}
	}
	if !strings.Contains(lines[4], "the rest of a line") {
		t.Errorf("%s", lines[4])
	}
}

// TestArchiveHasNoSecret takes tokens out of what is archived.
func TestArchiveHasNoSecret(t *testing.T) {
	p := newPlace(t)
	p.feed(audit("a-1", start, "api", "1", "create", `,"objectRef":{"resource":"secrets","namespace":"shop","name":"db"},"requestObject":{"kind":"Secret","data":{"p":"aHVudGVyMg=="}},`+
		`"responseObject":{"kind":"Secret","data":{"p":"aHVudGVyMg=="}}`))
	p.checkpoint()
	err := filepath.WalkDir(p.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte("aHVudGVyMg")) {
			t.Errorf("%s holds a secret", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestInterrupted crashes between checkpoints again and again and reads each
// stretch anew: all is as after one uninterrupted run.
func TestInterrupted(t *testing.T) {
	log := busyLog(40)
	once := newPlace(t)
	once.feed(log...)
	want := once.contents()

	p := newPlace(t)
	random := rand.New(rand.NewPCG(3, 4))
	committed := 0
	for n := 0; n < len(log); n++ {
		p.feed(log[n])
		switch random.IntN(8) {
		case 0:
			p.checkpoint()
			committed = n + 1
		case 1:
			p.restart()
			n = max(committed-3, 0) - 1 // an import begins at the beginning of the file
			if random.IntN(2) == 0 {
				n = committed - 1
			}
		}
		if random.IntN(4) == 0 {
			p.checkpoint()
			committed = n + 1
		}
	}
	if got := p.contents(); withoutBaselines(got) != withoutBaselines(want) {
		t.Errorf("differs in\n%s", difference(got, want))
	}
}

// TestTwoImports reads one input into two directories: what is stored and found
// is the same to the byte.
func TestTwoImports(t *testing.T) {
	dir := t.TempDir()
	log := busyLog(100)
	for n, part := range [][]string{log[:len(log)/2], log[len(log)/3:]} { // they overlap
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("audit-%d.log", n)), []byte(strings.Join(part, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(every time.Duration) string {
		p := newPlace(t)
		files, err := activity.FindLogs([]string{dir}, decoders)
		if err != nil {
			t.Fatal(err)
		}
		i := activity.Import{Pipeline: p.Pipeline, Every: every, Checkpoint: func(ctx context.Context) error { return p.Checkpoint(ctx) }}
		if err := i.Run(t.Context(), files); err != nil {
			t.Fatal(err)
		}
		text := p.contents()
		// When it was learned is the time of the import.
		return learnedTime.ReplaceAllString(text, `"learned":""`)
	}
	first, second := run(time.Hour), run(time.Hour)
	if first != second {
		t.Errorf("differs in\n%s", difference(first, second))
	}
	if !strings.Contains(first, "\nfinding ") {
		t.Error("nothing was found")
	}
}

// TestAnyOrder counts the same, and has the same bounds and lineages, whatever
// the order of events is.
func TestAnyOrder(t *testing.T) {
	log := []string{
		mint("m-1", start, "node", "cert", "api", "t1"),
		secrets("u-1", start.Add(time.Minute), "api", "t1"),
		mint("m-2", start.Add(2*time.Minute), "api", "t1", "api", "t2"),
		secrets("u-2", start.Add(3*time.Minute), "api", "t2"),
		secrets("u-3", start.Add(50*time.Minute), "api", "t2"),
	}
	for range 4 {
		p := newPlace(t)
		for _, n := range rand.Perm(len(log)) {
			p.feed(log[n])
		}
		p.checkpoint()
		who := p.presence("system:serviceaccount:shop:api")
		if who.Count != 4 || !who.First.Equal(start.Add(time.Minute)) || !who.Last.Equal(start.Add(50*time.Minute)) {
			t.Errorf("%+v", who)
		}
		got := p.lineage("JTI=t2")
		if got.Parent != "JTI=t1" || got.Root != "JTI=cert" || got.Depth != 2 || got.Uses != 2 || !got.SelfMinted || !got.First.Equal(start.Add(3*time.Minute)) {
			t.Errorf("%+v", got)
		}
		if !p.lineage("JTI=t1").Forked {
			t.Error("no fork")
		}
	}
}

// TestImpersonation counts what was done as another under that other's rights
// and under the actor's name, and that the actor exercised the right to act as him;
// each time that the same comes again.
func TestImpersonation(t *testing.T) {
	p := newPlace(t)
	p.feed(audit("a-1", start, "ops", "1", "get", `,"impersonatedUser":{"username":"system:serviceaccount:shop:db"},"objectRef":{"resource":"secrets","namespace":"shop","name":"db"}`))
	for i := range 3 {
		p.feed(audit(fmt.Sprint("a-", 2+i), start.Add(time.Minute), "ops", "1", "get", `,"impersonatedUser":{"username":"system:serviceaccount:shop:db"},"objectRef":{"resource":"secrets","namespace":"shop","name":"db"}`))
	}
	p.checkpoint()
	actor := p.presence("system:serviceaccount:shop:ops")
	if actor.Count != 4 {
		t.Errorf("%+v", actor)
	}
	as := remit.IdentityID(actor.System, remit.Ref{Kind: "ServiceAccount", Namespace: "shop", Name: "db"})
	var used []remit.Usage
	err := remit.Each(t.Context(), remit.ActivityFilter{}, p.store.Usage, func(u remit.Usage) error { used = append(used, u); return nil })
	if err != nil || len(used) != 2 {
		t.Fatalf("%+v, %v", used, err)
	}
	for _, u := range used {
		did := u.Identity == as && u.Action == "get" && u.Resource.Kind == "secrets"
		acted := u.Identity == actor.Identity && u.Action == "impersonate" && u.Resource == remit.Ref{Kind: "ServiceAccount", Namespace: "shop", Name: "db"}
		if !did && !acted || u.Count != 4 {
			t.Errorf("%+v", u)
		}
	}
	if e := p.events(); len(e) != 4 || e[0].Identity != actor.Identity {
		t.Errorf("%+v", e)
	}
}

// TestAssumedRoles follows a chain of roles in CloudTrail, of two accounts, to
// the user's key.
func TestAssumedRoles(t *testing.T) {
	p := newPlace(t)
	session := func(role, key string) string {
		return fmt.Sprintf(`{"type":"AssumedRole","arn":"arn:aws:sts::123456789012:assumed-role/%s/ann","accountId":"123456789012","accessKeyId":%q,`+
			`"sessionContext":{"sessionIssuer":{"type":"Role","arn":"arn:aws:iam::123456789012:role/%[1]s","accountId":"123456789012","userName":%[1]q}}}`, role, key)
	}
	assume := func(role, key string) string {
		return fmt.Sprintf(`,"requestParameters":{"roleArn":"arn:aws:iam::123456789012:role/%s","roleSessionName":"ann"},`+
			`"responseElements":{"credentials":{"accessKeyId":%q,"sessionToken":"IQoJb3JpZ2luX2VjEXAMPLEEXAMPLEEXAMPLE","expiration":"Nov 20, 2026, 9:00:00 AM"}}`, role, key)
	}
	p.feed(
		trail("c-1", start, ann, "AssumeRole", assume("deploy", "ASIA1")),
		trail("c-2", start.Add(time.Minute), session("deploy", "ASIA1"), "AssumeRole", assume("admin", "ASIA2")),
		trail("c-3", start.Add(2*time.Minute), session("admin", "ASIA2"), "GetCallerIdentity", ""),
		secrets("a-1", start, "api", "1"), // another system in the same stream
	)
	p.checkpoint()
	got := p.lineage("ASIA2")
	if got.Parent != "ASIA1" || got.Root != "AKIA1" || got.Depth != 2 || got.Uses != 1 {
		t.Errorf("%+v", got)
	}
	if holder := p.lineage("ASIA1").Holder; holder.Name != "deploy" {
		t.Errorf("ASIA1 is of %+v", holder)
	}
	systems, err := p.store.Systems(t.Context())
	if err != nil || len(systems) != 2 {
		t.Errorf("%d systems, %v", len(systems), err)
	}
	for _, e := range p.events() {
		if e.ID == "c-3" && e.Root != "AKIA1" {
			t.Errorf("%+v", e)
		}
	}
}

// busyLog is a log of two clusters' worth of accounts of which one is robbed.
func busyLog(n int) []string {
	random := rand.New(rand.NewPCG(1, 2))
	var all []string
	at := start
	for i := range n {
		at = at.Add(time.Duration(random.IntN(3000)) * time.Second)
		account := fmt.Sprintf("a%d", random.IntN(5))
		token := fmt.Sprintf("%s-%d", account, i/20)
		switch random.IntN(6) {
		case 0:
			all = append(all, mint(fmt.Sprintf("m-%d", i), at, account, token, account, fmt.Sprintf("%s-%d-stolen", account, i)))
		case 1:
			all = append(all, audit(fmt.Sprintf("b-%d", i), at, account, token, "create", `,"objectRef":{"resource":"clusterrolebindings","name":"x","apiGroup":"rbac.authorization.k8s.io"},"requestObject":{"roleRef":{"kind":"ClusterRole","name":"cluster-admin"}}`))
		case 2:
			all = append(all, trail(fmt.Sprintf("c-%d", i), at, ann, "GetCallerIdentity", ""))
		case 3:
			all = append(all, audit(fmt.Sprintf("l-%d", i), at, account, token, "list", `,"objectRef":{"resource":"secrets","apiVersion":"v1"}`))
		default:
			all = append(all, secrets(fmt.Sprintf("s-%d", i), at, account, token))
		}
	}
	return all
}

var learnedTime = regexp.MustCompile(`"learned":"[^"]*"`)

// withoutBaselines leaves out the states that are written anew at different
// checkpoints, and say the same.
func withoutBaselines(contents string) string {
	var kept []string
	for line := range strings.Lines(contents) {
		if !strings.HasPrefix(line, "state {") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// difference are the lines that only one of two texts has.
func difference(a, b string) string {
	var out strings.Builder
	in := func(text string) map[string]bool {
		all := map[string]bool{}
		for line := range strings.Lines(text) {
			all[line] = true
		}
		return all
	}
	first, second := in(a), in(b)
	for line := range first {
		if !second[line] {
			fmt.Fprintf(&out, "< %s", line)
		}
	}
	for line := range second {
		if !first[line] {
			fmt.Fprintf(&out, "> %s", line)
		}
	}
	return out.String()
}

// TestNobodysEvents holds that events of which nobody can say whose they are stop
// an import, which can be told, and no queue, behind which others wait.
func TestNobodysEvents(t *testing.T) {
	p := newPlace(t)
	for _, name := range []string{"a", "b"} {
		id := remit.SystemID("kubernetes", name)
		if err := p.store.PutSystem(t.Context(), remit.System{ID: id, Connector: "kubernetes", Name: name, Native: name}); err != nil {
			t.Fatal(err)
		}
	}
	event := []byte(`{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"nobodys","stage":"ResponseComplete","verb":"get",` +
		`"user":{"username":"system:serviceaccount:ns:a"},"requestReceivedTimestamp":"2026-11-20T08:00:00Z"}`)
	if err := p.Feed(t.Context(), activity.Input{Source: "queue", Learned: start, Unattended: true}, event); err != nil {
		t.Fatal(err)
	}
	if c := p.Counts(); c.Dead != 1 || c.Events != 0 {
		t.Errorf("%+v", c)
	}
	text, err := os.ReadFile(filepath.Join(p.dir, "dead-letters.jsonl"))
	if err != nil || !strings.Contains(string(text), "names no system and 2 of that kind are known") || !strings.Contains(string(text), "nobodys") {
		t.Errorf("%s %v", text, err)
	}
	if err := p.Feed(t.Context(), activity.Input{Source: "audit.log", Learned: start}, event); remit.KindOf(err) != remit.Invalid {
		t.Errorf("an import goes on: %v", err)
	}
}

// TestAnnounced holds that an urgent finding is in the store before the checkpoint
// that it belongs to, and that a crash between the two leaves nothing of it but
// what reading the events again gives.
func TestAnnounced(t *testing.T) {
	p := newPlace(t)
	theft := func(from, to int) {
		for n := from; n < to; n++ {
			p.feed(mint(fmt.Sprint("theft-", n), start.Add(time.Duration(n)*time.Minute), "a", fmt.Sprint(n), "a", fmt.Sprint(n+1)))
		}
	}
	findings := func() string {
		all, _, err := p.store.Findings(t.Context(), remit.FindingFilter{}, remit.PageRequest{})
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	theft(0, 3)
	if !p.Urgent() {
		t.Fatal("nothing is urgent")
	}
	if _, err := p.Announce(t.Context()); err != nil {
		t.Fatal(err)
	}
	announced := findings()
	if !strings.Contains(announced, "theft-0") || p.Urgent() {
		t.Fatalf("announced: %s", announced)
	}
	lineage := func() (all []remit.Lineage) {
		err := remit.Each(t.Context(), remit.ActivityFilter{}, p.store.Lineage, func(l remit.Lineage) error {
			all = append(all, l)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	// Who contains what the finding names needs to know what was minted by it.
	early := lineage()
	if len(early) != 4 {
		t.Fatalf("announced lineage: %+v", early)
	}
	p.restart() // nothing else was written
	theft(0, 3)
	p.checkpoint()
	for i, l := range lineage() {
		if l.Announced || l.Uses > 1 || !early[i].Announced || l.Credential != early[i].Credential || l.Parent != early[i].Parent || l.Root != early[i].Root || l.SelfMinted != early[i].SelfMinted {
			t.Errorf("%+v\nafter a crash:\n%+v", early[i], l)
		}
	}
	if again := findings(); again != announced {
		t.Errorf("%s\nafter a crash:\n%s", announced, again)
	}
	theft(3, 5)
	p.checkpoint()
	if more := findings(); strings.Count(more, `"policy"`) != 1 || !strings.Contains(more, "theft-4") {
		t.Errorf("%s", more)
	}
}
