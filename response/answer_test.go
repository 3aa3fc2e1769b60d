package response_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"remit"
	"remit/connector"
	"remit/response"
	"remit/store/sqlstore"
)

// answering is a store, a system and what answers findings about it by rules.
type answering struct {
	t         *testing.T
	store     *sqlstore.Store
	world     *world
	responses *response.Responses
	responder *response.Responder
	log       *strings.Builder
	clock     time.Time
	mode      remit.Mode
}

// byCredential plans one freezing step for what is ordered, or a step of each grade
// that is asked for.
type byCredential struct{ *world }

func (w byCredential) Plan(_ context.Context, o connector.Order) (connector.Planned, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.orders = append(w.orders, o)
	grades := o.Grades
	if grades == nil {
		grades = []remit.Grade{remit.FreezeCredentials}
	}
	var p connector.Planned
	for _, g := range grades {
		if g == remit.RefuseCredentials {
			return p, remit.Errorf(remit.Unsupported, "", "not here")
		}
		name := fmt.Sprint(g, len(w.orders))
		w.objects[name] = "free"
		p.Steps = append(p.Steps, remit.Step{
			Grade: g, Object: remit.Ref{Kind: "Object", Name: name}, Does: "it cuts", Undo: "it gives back",
			Before: quote("free"), After: quote("cut"),
		})
	}
	return p, nil
}

func newAnswering(t *testing.T, rules ...response.Rule) *answering {
	t.Helper()
	a := &answering{t: t, store: open(t), world: newWorld(), log: new(strings.Builder), clock: now, mode: remit.ModeEnforce}
	a.responses = responses(a.store, a.world, func(o *response.Options) {
		o.Enforcer = func(context.Context, remit.ID) (connector.Enforcer, error) { return byCredential{a.world}, nil }
		o.Now = func() time.Time { return a.clock }
		o.Approvals = func(remit.ID) int { return 1 }
		o.Mode = func(remit.ID) remit.Mode { return a.mode }
		o.Protected = func(ref remit.Ref) bool { return ref.Name == "protected" }
	})
	for i := range rules {
		if err := rules[i].Check(); err != nil {
			t.Fatal(err)
		}
	}
	a.responder = response.NewResponder(a.responses, rules, slog.New(slog.NewTextHandler(a.log, nil)))
	return a
}

// find opens a finding about an account, and has the log show that it minted.
func (a *answering) find(name string, severity remit.Severity, minted int) remit.Finding {
	a.t.Helper()
	ref := remit.Ref{Kind: "ServiceAccount", Namespace: "shop", Name: name}
	id := remit.IdentityID(system, ref)
	root := "JTI=" + name
	c := remit.Checkpoint{Now: a.clock, Lineage: []remit.Lineage{{
		System: system, Credential: root, Identity: id, Holder: ref, Root: root, Minted: now, Expires: now.Add(100 * time.Hour),
	}}}
	f := remit.Finding{
		ID: remit.FindingID("theft", id), Policy: "token-forked", Severity: severity, System: system,
		Subject: remit.Subject{Record: remit.KindIdentity, Ref: ref, ID: id}, Identity: id, Credentials: []string{root}, EventCount: 1,
		First: now, Last: now,
	}
	for n := range minted {
		credential := fmt.Sprint(root, "-", n)
		c.Lineage = append(c.Lineage, remit.Lineage{
			System: system, Credential: credential, Identity: id, Holder: ref, Root: root, Parent: root, Depth: 1, SelfMinted: true,
			Minted: now, Expires: now.Add(100 * time.Hour),
		})
		f.Credentials = append(f.Credentials, credential)
	}
	c.Findings = []remit.Finding{f}
	if err := a.store.Checkpoint(a.t.Context(), c); err != nil {
		a.t.Fatal(err)
	}
	return f
}

func (a *answering) look() []remit.Response {
	a.t.Helper()
	if err := a.responder.Look(a.t.Context()); err != nil {
		a.t.Fatal(err)
	}
	return a.plans()
}

func (a *answering) plans() []remit.Response {
	a.t.Helper()
	all, _, err := a.store.Responses(a.t.Context(), remit.ResponseFilter{}, remit.PageRequest{Limit: 1000})
	if err != nil {
		a.t.Fatal(err)
	}
	return all
}

// work does once what is due on every plan.
func (a *answering) work() {
	a.t.Helper()
	due, err := a.responses.Due(a.t.Context())
	if err != nil {
		a.t.Fatal(err)
	}
	for _, p := range due {
		if _, err := a.responder.Work(a.t.Context(), p.ID); err != nil {
			a.t.Fatal(err)
		}
	}
}

var theft = response.Rule{Name: "theft", Policies: []string{"token-*"}, Severity: remit.High, Action: remit.Contain, Unapproved: true}

func states(all []remit.Response) string {
	var out []string
	for _, r := range all {
		out = append(out, string(r.State))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// TestAnswered has a finding answered once, however often it is looked at, and
// what the attacker mints later added to the same plan; one undo gives all back, and
// a person's word stands until the finding has gone and come again.
func TestAnswered(t *testing.T) {
	a := newAnswering(t, theft)
	f := a.find("worker", remit.High, 1)
	a.find("calm", remit.Medium, 1)
	for range 3 {
		a.look()
	}
	all := a.plans()
	if len(all) != 1 || all[0].State != remit.ResponseVerified || all[0].AskedBy != "rule theft" || all[0].Cause != string(f.ID) {
		t.Fatalf("%+v", all)
	}
	if o := a.world.orders[0]; !slices.Equal(o.Stolen, []string{"JTI=worker"}) || !slices.Equal(o.Forged, []string{"JTI=worker-0"}) || len(o.Minters) != 1 || o.Minters[0].Name != "worker" {
		t.Errorf("%+v", o)
	}
	a.find("worker", remit.High, 3)
	all = a.look()
	if len(all) != 1 || len(all[0].Steps) != 2 || len(all[0].Forged) != 3 || all[0].State != remit.ResponseVerified {
		t.Fatalf("%+v", all)
	}
	if o := a.world.orders[1]; len(o.Stolen) != 0 || !slices.Equal(o.Forged, []string{"JTI=worker-1", "JTI=worker-2"}) {
		t.Errorf("what is held already is ordered again: %+v", o)
	}
	if _, err := a.responses.Undo(t.Context(), all[0].ID, "bob"); err != nil {
		t.Fatal(err)
	}
	for name, text := range a.world.objects {
		if strings.HasPrefix(name, "freeze") && text != "free" {
			t.Errorf("%s is %s", name, text)
		}
	}
	a.find("worker", remit.High, 5)
	if all := a.look(); states(all) != "undone" {
		t.Errorf("a person has undone it, and then: %s", states(all))
	}
}

// TestAnsweredAtOnce answers what is announced as the store knows it: what a person
// has suppressed is left alone. One to which steps were added that are not done yet
// can be undone, also while everything is stopped.
func TestAnsweredAtOnce(t *testing.T) {
	a := newAnswering(t, theft)
	f := a.find("worker", remit.High, 1)
	if err := a.store.SetFindingState(t.Context(), f.ID, remit.Suppressed, now.Add(time.Hour), now); err != nil {
		t.Fatal(err)
	}
	if err := a.responder.Answer(t.Context(), []remit.Finding{f}); err != nil || len(a.plans()) != 0 {
		t.Fatalf("%v %+v", err, a.plans())
	}
	f = a.find("other", remit.High, 1)
	if err := a.responder.Answer(t.Context(), []remit.Finding{f}); err != nil || states(a.plans()) != "verified" {
		t.Fatalf("%v %s", err, states(a.plans()))
	}
	if err := a.responses.Stop(t.Context(), "carol", ""); err != nil {
		t.Fatal(err)
	}
	f = a.find("other", remit.High, 2)
	if err := a.responder.Answer(t.Context(), []remit.Finding{f}); err != nil || states(a.plans()) != "approved" {
		t.Fatalf("%v %s", err, states(a.plans()))
	}
	if r, err := a.responses.Undo(t.Context(), a.plans()[0].ID, "bob"); err != nil || r.State != remit.ResponseUndone {
		t.Errorf("%v %s", err, r.State)
	}
}

// TestAnsweredAgain has a finding that was mended and came back answered again.
func TestAnsweredAgain(t *testing.T) {
	a := newAnswering(t, response.Rule{Name: "idle", Policies: []string{"*-idle"}, Action: remit.Disable, Unapproved: true})
	ref := remit.Ref{Kind: "ServiceAccount", Namespace: "shop", Name: "worker"}
	id := remit.IdentityID(system, ref)
	put := func() {
		_, err := a.store.PutFindings(t.Context(), a.clock, []remit.Finding{{
			ID: remit.FindingID("account-idle", id), Policy: "account-idle", Severity: remit.Low, System: system,
			Subject: remit.Subject{Record: remit.KindIdentity, Ref: ref, ID: id}, Identity: id,
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	put()
	all := a.look()
	if states(all) != "verified" || a.world.orders[0].Action != remit.Disable {
		t.Fatalf("%s", states(all))
	}
	if _, err := a.responses.Undo(t.Context(), all[0].ID, "bob"); err != nil {
		t.Fatal(err)
	}
	a.clock = now.Add(time.Minute)
	put()
	if all := a.look(); states(all) != "undone" {
		t.Errorf("still the same finding: %s", states(all))
	}
	a.clock = now.Add(2 * time.Minute)
	if done, err := a.store.ResolveFindings(t.Context(), remit.FindingScope{System: system, Policies: []string{"account-idle"}}, a.clock, a.clock); err != nil || done.Resolved != 1 {
		t.Fatalf("%+v %v", done, err)
	}
	a.look()
	a.clock = now.Add(3 * time.Minute)
	put()
	if all := a.look(); states(all) != "undone verified" {
		t.Errorf("it has come back: %s", states(all))
	}
	// What was done once is done again when it is due again, as a rotation is.
	a.clock = now.Add(4 * time.Minute)
	if _, err := a.store.ResolveFindings(t.Context(), remit.FindingScope{System: system, Policies: []string{"account-idle"}}, a.clock, a.clock); err != nil {
		t.Fatal(err)
	}
	a.clock = now.Add(5 * time.Minute)
	put()
	for range 2 {
		if all := a.look(); states(all) != "undone verified verified" {
			t.Errorf("it has come back again: %s", states(all))
		}
	}
}

// TestRuleLimited leaves to people what a rule would do beyond its limit, what is
// not in mode enforce, and whatever a rule needs approval for; in mode observe
// nothing is planned at all.
func TestRuleLimited(t *testing.T) {
	limited := theft
	limited.Hourly = 2
	a := newAnswering(t, limited)
	for n := range 4 {
		a.find(fmt.Sprint("worker-", n), remit.High, 1)
	}
	if all := a.look(); states(all) != "proposed proposed verified verified" {
		t.Errorf("%s", states(all))
	}
	a.clock = now.Add(61 * time.Minute) // another hour, and what waits goes on waiting for a person
	a.find("worker-9", remit.High, 1)
	if all := a.look(); states(all) != "proposed proposed verified verified verified" {
		t.Errorf("an hour later: %s", states(all))
	}
	a.clock = now.Add(25 * time.Hour)
	a.work()
	if all := a.plans(); states(all) != "expired expired verified verified verified" {
		t.Errorf("a day later: %s", states(all))
	}
	for mode, want := range map[remit.Mode]string{remit.ModeObserve: "", remit.ModeRecommend: "proposed"} {
		a := newAnswering(t, theft)
		a.mode = mode
		a.find("worker", remit.High, 1)
		if all := a.look(); states(all) != want {
			t.Errorf("in mode %s: %q", mode, states(all))
		}
	}
	asking := theft
	asking.Unapproved = false
	a = newAnswering(t, asking)
	a.find("worker", remit.High, 1)
	all := a.look()
	if states(all) != "proposed" {
		t.Fatalf("%s", states(all))
	}
	// The attacker mints on while it waits: the newer plan takes the place of the
	// older, not at every token.
	a.clock = now.Add(30 * time.Second)
	a.find("worker", remit.High, 2)
	if all := a.look(); states(all) != "proposed" {
		t.Errorf("%s", states(all))
	}
	a.clock = now.Add(2 * time.Minute)
	all = a.look()
	if states(all) != "expired proposed" || len(all[0].Forged) != 2 {
		t.Errorf("%s", states(all))
	}
	if _, err := a.responses.Approve(t.Context(), all[0].ID, "bob"); err != nil {
		t.Fatal(err)
	}
	a.work() // approved by a person, carried out by the worker
	if all := a.plans(); states(all) != "expired verified" {
		t.Errorf("%s", states(all))
	}
}

// TestNothingToBeDone leaves findings about the protected alone and says so once,
// and gives up when plans keep failing; others are answered all the same.
func TestNothingToBeDone(t *testing.T) {
	a := newAnswering(t, theft)
	a.find("protected", remit.High, 1)
	a.find("worker", remit.High, 1)
	for range 3 {
		a.look()
	}
	if all := a.plans(); states(all) != "verified" {
		t.Errorf("%s", states(all))
	}
	if n := strings.Count(a.log.String(), "protected: take it out"); n != 1 {
		t.Errorf("said %d times:\n%s", n, a.log)
	}
	a = newAnswering(t, theft)
	a.find("worker", remit.High, 1)
	for n := range 10 {
		a.world.fail[fmt.Sprint(remit.FreezeCredentials, n)] = remit.Errorf(remit.Conflict, "", "changed by others")
	}
	for n := range 6 {
		a.clock = now.Add(time.Duration(n) * time.Second)
		a.look()
	}
	if all := a.plans(); states(all) != "failed failed failed" {
		t.Errorf("%s", states(all))
	}
}

// TestRuleWithoutPolicies is about detections only: nobody means to contain whoever
// has too many rights, or a token that is due.
func TestRuleWithoutPolicies(t *testing.T) {
	any := theft
	any.Policies = nil
	a := newAnswering(t, any)
	ref := remit.Ref{Kind: "ServiceAccount", Namespace: "shop", Name: "admin"}
	id := remit.IdentityID(system, ref)
	_, err := a.store.PutFindings(t.Context(), now, []remit.Finding{{
		ID: remit.FindingID("cluster-admin", id), Policy: "cluster-admin", Severity: remit.Critical, System: system,
		Subject: remit.Subject{Record: remit.KindIdentity, Ref: ref, ID: id}, Identity: id,
	}})
	if err != nil {
		t.Fatal(err)
	}
	a.find("worker", remit.High, 1)
	if all := a.look(); states(all) != "verified" || all[0].Subject.Name != "worker" {
		t.Errorf("%+v", all)
	}
}

// TestEscalated takes the next grade that the system has when what was cut off is
// still allowed something, once for each.
func TestEscalated(t *testing.T) {
	strict := theft
	strict.Escalate = []remit.Grade{remit.RefuseCredentials, remit.RemoveGrants}
	a := newAnswering(t, strict)
	a.find("worker", remit.High, 1)
	a.look()
	a.clock = now.Add(20 * time.Second)
	a.work()
	if all := a.plans(); states(all) != "verified" || all[0].Due.IsZero() {
		t.Fatalf("nothing goes on, and there are: %s", states(all))
	}
	ref := remit.Ref{Kind: "ServiceAccount", Namespace: "shop", Name: "worker"}
	err := a.store.Checkpoint(t.Context(), remit.Checkpoint{Now: a.clock, Lineage: []remit.Lineage{{
		System: system, Credential: "JTI=worker-0", Identity: remit.IdentityID(system, ref), Holder: ref, Root: "JTI=worker", Parent: "JTI=worker",
		SelfMinted: true, Minted: now, Expires: now.Add(time.Hour), First: now, Last: now.Add(30 * time.Second), Uses: 4, Allowed: now.Add(30 * time.Second),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		a.clock = now.Add(time.Minute + time.Duration(n)*20*time.Second)
		a.work()
	}
	all := a.plans()
	if states(all) != "verified verified" || all[0].Steps[0].Grade != remit.RemoveGrants || all[0].AskedBy != "rule theft" {
		t.Fatalf("%+v", all)
	}
	noted := slices.ContainsFunc(all[1].History, func(e remit.ResponseEvent) bool { return strings.Contains(e.Note, "still allowed: JTI=worker-0") })
	if !noted {
		t.Errorf("it is not noted: %+v", all[1].History)
	}
	a.clock = now.Add(3 * time.Hour)
	a.work()
	if all := a.plans(); !all[0].Due.IsZero() || !all[1].Due.IsZero() {
		t.Errorf("it is watched for ever: %s %s", all[0].Due, all[1].Due)
	}
}

// TestRuleChecked refuses rules that cannot be meant.
func TestRuleChecked(t *testing.T) {
	for want, rule := range map[string]response.Rule{
		"give it a name":                     {Severity: remit.High, Action: remit.Contain},
		"say what it does":                   {Name: "r", Severity: remit.High},
		`no action "destroy"`:                {Name: "r", Severity: remit.High, Action: "destroy"},
		"only containment has grades":        {Name: "r", Severity: remit.High, Action: remit.Rotate, Grades: []remit.Grade{remit.KillTokens}},
		`no grade "soft"`:                    {Name: "r", Severity: remit.High, Action: remit.Contain, Escalate: []remit.Grade{"soft"}},
		"it is about every finding there is": {Name: "r", Action: remit.Contain},
		`no severity "huge"`:                 {Name: "r", Severity: "huge", Action: remit.Contain},
		"is no pattern":                      {Name: "r", Policies: []string{"a["}, Action: remit.Contain},
		"hourly: -1":                         {Name: "r", Severity: remit.High, Action: remit.Contain, Hourly: -1},
	} {
		if err := rule.Check(); remit.KindOf(err) != remit.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%v (want %s)", err, want)
		}
	}
}
