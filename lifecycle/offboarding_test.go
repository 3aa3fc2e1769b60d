package lifecycle_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"remit"
	"remit/inventory"
	"remit/lifecycle"
	"remit/policy"
)

// office is a world in which the built-in policies are evaluated before, as they
// are when Remit serves.
type office struct {
	*world
	policies *policy.Evaluator
}

func newOffice(t *testing.T, o lifecycle.Offboarding, people string) *office {
	t.Helper()
	w := newWorld(t, &lifecycle.Config{Offboarding: &o})
	set, err := policy.Load()
	w.must(err)
	known, err := inventory.ReadPeople("people.csv", strings.NewReader(people))
	w.must(err)
	w.judge.People = known
	evaluator := policy.NewEvaluator(set, w.store, w.store)
	evaluator.Now = func() time.Time { return w.now }
	return &office{w, evaluator}
}

// change writes records and has everybody judge what they touch.
func (o *office) change(r remit.Records, gone ...remit.ID) {
	o.Helper()
	o.later(time.Second)
	touched := o.put(r, gone...)
	_, err := o.policies.EvaluateSubjects(o.Context(), o.system.ID, touched)
	o.must(err)
	o.changed(touched)
}

// judged has everybody judge everything, after some time.
func (o *office) judged(after time.Duration) {
	o.Helper()
	o.later(after)
	_, err := o.policies.Evaluate(o.Context(), o.system.ID)
	o.must(err)
	o.whole()
}

func (o *office) deployment(name string) (remit.Identity, remit.Relation) {
	d := remit.Identity{Record: o.record("Deployment", name, 300), Type: remit.Workload, Status: remit.Active}
	account := o.account(name)
	ref := remit.Ref{Kind: "runs-as", Namespace: "ci", Name: name}
	r := remit.Relation{
		Record: remit.Record{ID: remit.RelationID(d.ID, account.ID, remit.RunsAs, "", ""), System: o.system.ID, Ref: ref},
		Type:   remit.RunsAs, From: d.ID, To: account.ID, FromRef: d.Ref, ToRef: account.Ref,
	}
	return d, r
}

func (o *office) binding(to remit.Identity) remit.Grant {
	ref := remit.Ref{Kind: "RoleBinding", Namespace: "ci", Name: to.Name}
	return remit.Grant{
		Record:   remit.Record{ID: remit.GrantID(o.system.ID, ref, to.ID), System: o.system.ID, Ref: ref, Created: o.now.Add(-300 * day)},
		Identity: to.ID, Subject: to.Ref, Scope: "ci", Status: remit.Active,
		Permissions: []remit.Permission{{Actions: []string{"update"}, Resources: []string{"configmaps"}}},
	}
}

// TestWorkloadGone plays the life of an account: its workload goes, it is to be
// disabled at once; the workload comes back, and all is well; it goes again, the
// account is disabled by a plan and so has no rights left, and is still to be
// removed when the grace has passed; and it comes back even then.
func TestWorkloadGone(t *testing.T) {
	o := newOffice(t, lifecycle.Offboarding{}, "")
	account := o.account("api")
	deployment, runs := o.deployment("api")
	grant := o.binding(account)
	o.change(remit.Records{Identities: []remit.Identity{account, deployment}, Relations: []remit.Relation{runs}, Grants: []remit.Grant{grant}})
	o.expect("at work")

	o.change(remit.Records{}, deployment.ID, runs.ID)
	o.expect("its workload is gone", "offboarding-disable api low")
	f := o.findings(remit.FindingFilter{Policies: []string{lifecycle.PolicyOffboardDisable}})[0]
	if !strings.Contains(f.Message, "disable ServiceAccount ci/api now; on 2026-04-02 it is to be removed, unless a workload runs as it again") {
		t.Error(f.Message)
	}

	o.change(remit.Records{Identities: []remit.Identity{deployment}, Relations: []remit.Relation{runs}})
	o.expect("its workload is back")

	o.judged(10 * day)
	o.change(remit.Records{}, deployment.ID, runs.ID)
	o.expect("gone again", "offboarding-disable api low")

	plan, err := o.store.PutResponse(t.Context(), remit.Response{
		ID: remit.ResponseID(account.ID, remit.Disable, o.now), System: o.system.ID, Action: remit.Disable, State: remit.ResponseVerified, Made: o.now,
		Subject: remit.Subject{Record: remit.KindIdentity, Ref: account.Ref, ID: account.ID},
	})
	o.must(err)
	o.change(remit.Records{}, grant.ID)
	o.expect("disabled, without rights", "offboarding-disable api low")
	o.judged(29 * day)
	o.expect("in its grace", "offboarding-disable api low")
	o.judged(2 * day)
	o.expect("after its grace", "offboarding-disable api low", "offboarding-remove api low")

	o.change(remit.Records{Identities: []remit.Identity{deployment}, Relations: []remit.Relation{runs}})
	o.expect("back at last")
	o.change(remit.Records{}, deployment.ID, runs.ID)
	o.expect("an account without rights harms nobody")

	plan.State = remit.ResponseUndone
	_, err = o.store.PutResponse(t.Context(), plan)
	o.must(err)
	o.change(remit.Records{Grants: []remit.Grant{grant}})
	o.expect("given back, and nothing runs as it", "offboarding-disable api low")
}

// TestUserIsHeard holds that a finding that a user suppressed offboards nobody, nor
// do identities and causes that the configuration leaves out.
func TestUserIsHeard(t *testing.T) {
	begin := func(c lifecycle.Offboarding) *office {
		o := newOffice(t, c, "")
		account := o.account("api")
		o.change(remit.Records{Identities: []remit.Identity{account}, Grants: []remit.Grant{o.binding(account)}})
		return o
	}
	o := begin(lifecycle.Offboarding{})
	o.expect("an orphan", "offboarding-disable api low")
	f := o.findings(remit.FindingFilter{Policies: []string{"account-orphaned"}})[0]
	o.must(o.store.SetFindingState(t.Context(), f.ID, remit.Suppressed, o.now.Add(day), o.now))
	o.judged(time.Minute)
	o.expect("suppressed")
	o.judged(2 * day)
	o.expect("no longer suppressed", "offboarding-disable api low")

	begin(lifecycle.Offboarding{Except: []string{"ServiceAccount ci/*"}}).expect("left out")
	begin(lifecycle.Offboarding{Causes: []lifecycle.Cause{lifecycle.PersonLeft}}).expect("for other causes only")
}

// TestPeopleLeave holds that a person who left is to be disabled at once, and that
// what such a person owned is let alone as long as it is at work, or may be.
func TestPeopleLeave(t *testing.T) {
	o := newOffice(t, lifecycle.Offboarding{}, "mallory@example.com, left\nalice@example.com\n")
	human := func(name string) remit.Identity {
		ref := remit.Ref{Kind: "User", Name: name}
		return remit.Identity{Record: remit.Record{ID: remit.IdentityID(o.system.ID, ref), System: o.system.ID, Ref: ref}, Type: remit.Human, Status: remit.Active, Principal: name}
	}
	owned := func(name string) remit.Identity {
		i := o.account(name)
		i.Owners = []remit.Owner{{Name: "mallory@example.com", Source: "annotation owner", Status: remit.OwnerLeft}}
		return i
	}
	quiet, busy, running, unseen := owned("quiet"), owned("busy"), owned("running"), owned("unseen")
	quiet.LastActive, busy.LastActive = o.now.Add(-60*day), o.now.Add(-day)
	deployment, runs := o.deployment("running")
	o.change(remit.Records{
		Identities: []remit.Identity{human("mallory@example.com"), human("alice@example.com"), quiet, busy, running, unseen, deployment},
		Relations:  []remit.Relation{runs},
	})
	want := []string{"offboarding-disable mallory@example.com high", "offboarding-disable quiet medium"}
	o.expect("left", want...)
	o.judged(time.Minute)
	o.expect("as a whole", want...)
	o.judged(31 * day)
	got := o.told()
	for _, more := range []string{"offboarding-remove mallory@example.com high", "offboarding-remove quiet medium"} {
		if !slices.Contains(got, more) {
			t.Errorf("%q lack %s", got, more)
		}
	}

	quiet.Owners[0] = remit.Owner{Name: "alice@example.com", Source: "annotation owner", Status: remit.OwnerPresent}
	o.change(remit.Records{Identities: []remit.Identity{quiet}})
	for _, word := range o.told() {
		if strings.Contains(word, "quiet") {
			t.Errorf("with another owner: %s", word)
		}
	}
}

// TestIdentityDeleted holds that rights of what was deleted ask for its end, and
// that the finding tells when that went with its namespace.
func TestIdentityDeleted(t *testing.T) {
	o := newOffice(t, lifecycle.Offboarding{}, "")
	ghost := o.account("ghost")
	ghost.Status = remit.Absent
	grant := o.binding(ghost)
	grant.Status, grant.Attributes = remit.Dangling, map[string]string{"missing": "subject"}
	namespace := func(name string) remit.Resource {
		ref := remit.Ref{Kind: "Namespace", Name: name}
		return remit.Resource{Record: remit.Record{ID: remit.ResourceID(o.system.ID, ref), System: o.system.ID, Ref: ref}, Type: "namespace"}
	}
	o.change(remit.Records{Identities: []remit.Identity{ghost}, Grants: []remit.Grant{grant}, Resources: []remit.Resource{namespace("ci"), namespace("default")}})
	says := func(want string) {
		t.Helper()
		f := o.findings(remit.FindingFilter{Policies: []string{lifecycle.PolicyOffboardDisable}})
		if len(f) != 1 || f[0].State != remit.Open || !strings.Contains(f[0].Message, want) {
			t.Errorf("%+v; want %s", f, want)
		}
	}
	says("It was deleted and still has grants: disable ServiceAccount ci/ghost now")
	o.put(remit.Records{}, namespace("ci").ID)
	o.judged(time.Minute)
	says("It went with its namespace ci and still has grants")

	ghost.Status, grant.Status, grant.Attributes = remit.Active, remit.Active, nil
	deployment, runs := o.deployment("ghost")
	o.change(remit.Records{Identities: []remit.Identity{ghost, deployment}, Relations: []remit.Relation{runs}, Grants: []remit.Grant{grant}})
	o.expect("made again")
}
