package response_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"remit"
	"remit/response"
	"remit/store/sqlstore"
)

// inventoried puts credentials of the account into the store.
func inventoried(t *testing.T, store *sqlstore.Store, credentials ...remit.Credential) {
	t.Helper()
	r, err := store.StartRun(t.Context(), system)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Apply(t.Context(), "secrets", now, remit.Records{Credentials: credentials}, nil); err != nil {
		t.Fatal(err)
	}
}

func credential(name, native string) remit.Credential {
	ref := remit.Ref{Kind: "Secret", Namespace: "shop", Name: name}
	return remit.Credential{
		Record: remit.Record{ID: remit.CredentialID(system, ref, "token"), System: system, Ref: ref}, Key: "token", Type: remit.StaticToken,
		Status: remit.Active, Identity: remit.IdentityID(system, account), Holder: account, Native: native,
	}
}

// TestDisableHolds gives the connector every live credential of the identity, of
// the log and of the inventory, and what was minted with them for others.
func TestDisableHolds(t *testing.T) {
	w, store := newWorld(), open(t)
	id := remit.IdentityID(system, account)
	other := remit.Ref{Kind: "ServiceAccount", Namespace: "shop", Name: "billing"}
	entry := func(credential, parent string, ref remit.Ref, ends time.Duration) remit.Lineage {
		return remit.Lineage{System: system, Credential: credential, Identity: remit.IdentityID(system, ref), Holder: ref, Parent: parent, Root: "pod", Minted: now.Add(-time.Hour), Expires: now.Add(ends), First: now, Last: now, Uses: 1}
	}
	ended := credential("old", "JTI=old")
	ended.Expires = now.Add(-time.Hour)
	inventoried(t, store, credential("kubeconfig", "JTI=lies-in-a-secret"), credential("api-token", ""), ended)
	if err := store.Checkpoint(t.Context(), remit.Checkpoint{Lineage: []remit.Lineage{
		entry("JTI=pod", "", account, time.Hour), entry("JTI=gone", "", account, -time.Minute), entry("JTI=for-billing", "JTI=pod", other, time.Hour),
	}}); err != nil {
		t.Fatal(err)
	}
	q := request()
	q.Action, q.IdentityID = remit.Disable, id
	plan, err := responses(store, w).Plan(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	o := w.orders[0]
	if want := []string{"JTI=for-billing", "JTI=lies-in-a-secret", "JTI=pod"}; !slices.Equal(o.Forged, want) || len(o.Stolen) != 0 {
		t.Errorf("held are %v and %v, not %v", o.Forged, o.Stolen, want)
	}
	if len(o.Credentials) != 3 || plan.Action != remit.Disable {
		t.Errorf("%+v", o.Credentials)
	}
	q.Action = remit.RemoveIdentity
	if _, err := responses(store, w).Plan(t.Context(), q); err != nil || len(w.orders[1].Credentials) != 3 || len(w.orders[1].Forged) != 0 {
		t.Errorf("%+v %v", w.orders[1], err)
	}
}

// TestRevokeTellsWhoUses says of a credential of the inventory, and of one that only
// the log knows, who used it and so will notice.
func TestRevokeTellsWhoUses(t *testing.T) {
	w, store := newWorld(), open(t)
	known, unused := credential("api-token", ""), credential("unused-token", "")
	unused.LastUsed = now.Add(-400 * 24 * time.Hour)
	inventoried(t, store, known, unused)
	id := remit.IdentityID(system, account)
	legacy := "legacy-token=shop/worker"
	err := store.Checkpoint(t.Context(), remit.Checkpoint{
		Lineage: []remit.Lineage{
			{System: system, Credential: legacy, Identity: id, Holder: account, Root: legacy, First: now, Last: now.Add(-time.Hour), Uses: 7, Addresses: []string{"10.0.0.1"}, UserAgents: []string{"shop/v1"}},
			{System: system, Credential: "JTI=one", Identity: id, Holder: account, Root: legacy, Parent: legacy, Minted: now, Expires: now.Add(time.Hour), Bound: remit.Ref{Kind: "Pod", Namespace: "shop", Name: "worker-1"}, Uses: 1, Last: now.Add(-50 * 24 * time.Hour)},
		},
		Usage: []remit.Usage{
			{System: system, Identity: id, Root: legacy, Action: "get", Resource: remit.Ref{Kind: "secrets", Namespace: "shop", Name: "db"}, Outcome: remit.Allowed, First: now, Last: now, Count: 7},
			{System: system, Identity: id, Root: "JTI=another", Action: "list", Resource: remit.Ref{Kind: "pods"}, Outcome: remit.Allowed, First: now, Last: now, Count: 9},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	revoke := func(c remit.Subject, logged string) remit.Response {
		t.Helper()
		q := request()
		q.Action, q.Subject, q.Credential = remit.Revoke, c, logged
		plan, err := responses(store, w).Plan(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return plan
	}
	of := func(c remit.Credential) remit.Subject {
		return remit.Subject{Record: remit.KindCredential, Ref: c.Ref, ID: c.ID}
	}
	plan := revoke(of(known), legacy)
	if why := plan.Why[0]; !strings.Contains(why, "7 uses") || !strings.Contains(why, "10.0.0.1") || !strings.Contains(why, "shop/v1") {
		t.Errorf("it does not say who uses it: %q", why)
	}
	if len(plan.Used) != 1 || plan.Used[0].Resource.Name != "db" {
		t.Errorf("what it was used for is %+v", plan.Used)
	}
	if o := w.orders[0]; len(o.Credentials) != 1 || o.Credentials[0].ID != known.ID {
		t.Errorf("%+v", o.Credentials)
	}
	if why := revoke(of(unused), "legacy-token=shop/unused").Why[0]; !strings.Contains(why, "last used on 2025-10-21") {
		t.Errorf("%q", why)
	}
	ref := remit.Ref{Kind: "Credential", Name: "JTI=one"}
	plan = revoke(remit.Subject{Record: remit.KindCredential, Ref: ref, ID: remit.CredentialID(system, ref, "")}, "JTI=one")
	if why := plan.Why[0]; !strings.Contains(why, "not in use within the last 30 days") {
		t.Errorf("%q", why)
	}
	o := w.orders[len(w.orders)-1]
	if len(o.Credentials) != 1 || o.Credentials[0].Native != "JTI=one" || o.Credentials[0].Attributes["bound-pod"] != "worker-1" || o.Credentials[0].Holder != account || !slices.Equal(o.Forged, []string{"JTI=one"}) {
		t.Errorf("%+v", o)
	}
}

// TestReduceAsksTheLog refuses a period that the log does not cover, and hands over
// what was used within one that it does.
func TestReduceAsksTheLog(t *testing.T) {
	w, store := newWorld(), open(t)
	id := remit.IdentityID(system, account)
	const day = 24 * time.Hour
	plan := func(within time.Duration) error {
		t.Helper()
		q := request()
		q.Action, q.UsedWithin, q.Names = remit.Reduce, within, 3
		_, err := responses(store, w).Plan(t.Context(), q)
		return err
	}
	refused := func(err error, says string) {
		t.Helper()
		if remit.KindOf(err) != remit.Invalid || !strings.Contains(err.Error(), says) {
			t.Errorf("%v (%q expected)", err, says)
		}
	}
	refused(plan(0), "no log of the system has been read")
	seen := func(first, last time.Time) {
		t.Helper()
		other := remit.Ref{Kind: "User", Name: "jane"}
		p := remit.Presence{System: system, Identity: remit.IdentityID(system, other), Actor: other, First: first, Last: last, Count: 1}
		if err := store.Checkpoint(t.Context(), remit.Checkpoint{Presences: []remit.Presence{p}}); err != nil {
			t.Fatal(err)
		}
	}
	seen(now.Add(-24*day), now)
	refused(plan(0), "the log does not cover the last 90 days: it begins at 2026-11-01 12:00:00 UTC, 24 days ago")
	seen(now.Add(-100*day), now.Add(-3*day))
	refused(plan(0), "it ends at 2026-11-22 12:00:00 UTC, 3 days ago")
	seen(now.Add(-100*day), now)
	usage := func(action string, of remit.ID, last time.Time) remit.Usage {
		return remit.Usage{System: system, Identity: of, Action: action, Resource: remit.Ref{Kind: "pods", Namespace: "shop"}, Outcome: remit.Allowed, First: last, Last: last, Count: 1}
	}
	if err := store.Checkpoint(t.Context(), remit.Checkpoint{Usage: []remit.Usage{
		usage("list", id, now.Add(-day)), usage("delete", id, now.Add(-95*day)), usage("get", remit.IdentityID(system, remit.Ref{Kind: "User", Name: "jane"}), now),
	}}); err != nil {
		t.Fatal(err)
	}
	if err := plan(0); err != nil {
		t.Fatal(err)
	}
	u := w.orders[0].Use
	if u == nil || len(u.Used) != 1 || u.Used[0].Action != "list" || !slices.Equal(u.Logged, []string{"delete", "get", "list"}) || u.Until.Sub(u.Since) != 90*day || u.Names != 3 {
		t.Errorf("%+v", u)
	}
	if err := plan(30 * day); err != nil || w.orders[1].Use.Until.Sub(w.orders[1].Use.Since) != 30*day {
		t.Errorf("%+v %v", w.orders, err)
	}
}

// TestRemovalNeedsAPerson lets no rule remove what would not come back as it was.
func TestRemovalNeedsAPerson(t *testing.T) {
	rule := response.Rule{Name: "offboard", Policies: []string{"orphan"}, Action: remit.RemoveIdentity}
	if err := rule.Check(); err != nil {
		t.Error(err)
	}
	rule.Unapproved = true
	if err := rule.Check(); remit.KindOf(err) != remit.Invalid {
		t.Errorf("%v", err)
	}
}
