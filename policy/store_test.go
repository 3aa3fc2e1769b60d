package policy_test

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"remit"
	"remit/policy"
	"remit/store/sqlstore"
)

// TestStore runs the built-in policies over the real store: what they ask for,
// it answers, and findings open, stay and resolve in it.
func TestStore(t *testing.T) {
	ctx := t.Context()
	store, err := sqlstore.Open(ctx, filepath.Join(t.TempDir(), "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()

	system := remit.System{ID: remit.SystemID("kubernetes", "uid"), Connector: "kubernetes", Name: "prod", Mode: remit.ModeObserve}
	if err := store.PutSystem(ctx, system); err != nil {
		t.Fatal(err)
	}
	record := func(kind, namespace, name string) remit.Record {
		return remit.Record{System: system.ID, Ref: remit.Ref{Kind: kind, Namespace: namespace, Name: name}}
	}
	account := remit.Identity{Record: record("ServiceAccount", "ci", "runner"), Type: remit.ServiceAccount, Status: remit.Active, Owners: []remit.Owner{{Name: "ci", Source: "label"}}}
	account.ID = remit.IdentityID(system.ID, account.Ref)
	agent := remit.Identity{Record: record("Deployment", "ai", "helper"), Type: remit.Agent, Status: remit.Active, Owners: []remit.Owner{{Name: "ai", Source: "label"}}}
	agent.Attributes = map[string]string{"agent": "crewai", "agent-known": "true"}
	agent.ID = remit.IdentityID(system.ID, agent.Ref)
	group := remit.Identity{Record: record("Group", "", "agents"), Type: remit.Group, Status: remit.Active}
	group.ID = remit.IdentityID(system.ID, group.Ref)
	role := remit.Role{Record: record("ClusterRole", "", "cluster-admin"), Permissions: []remit.Permission{{Actions: []string{"*"}, Resources: []string{"*.*"}}}}
	role.ID = remit.RoleID(system.ID, role.Ref)
	secrets := remit.Role{Record: record("Role", "ai", "secrets"), Permissions: []remit.Permission{{Actions: []string{"get"}, Resources: []string{"secrets"}}}}
	secrets.ID = remit.RoleID(system.ID, secrets.Ref)
	admin := remit.Grant{Record: record("ClusterRoleBinding", "", "ci-admin"), Status: remit.Active, Identity: account.ID, Subject: account.Ref, Role: role.ID, RoleRef: role.Ref}
	admin.ID = remit.GrantID(system.ID, admin.Ref, account.ID)
	reads := remit.Grant{Record: record("RoleBinding", "ai", "agents"), Status: remit.Active, Identity: group.ID, Subject: group.Ref, Role: secrets.ID, RoleRef: secrets.Ref, Scope: "ai"}
	reads.ID = remit.GrantID(system.ID, reads.Ref, group.ID)
	member := remit.Relation{Record: record("Relation", "", "m"), Type: remit.MemberOf, From: agent.ID, To: group.ID, FromRef: agent.Ref, ToRef: group.Ref}
	member.ID = remit.RelationID(agent.ID, group.ID, remit.MemberOf, "", "")
	copies := make([]remit.Credential, 2)
	for i, environment := range []string{"production", "staging"} {
		c := remit.Credential{Record: record("Secret", environment, "key"), Key: "api-key", Type: remit.APIKey, Status: remit.Active, Fingerprint: "f"}
		c.Environment = environment
		c.ID = remit.CredentialID(system.ID, c.Ref, c.Key)
		copies[i] = c
	}
	apply := func(records remit.Records, deleted []remit.ID) []remit.ID {
		t.Helper()
		run, err := store.StartRun(ctx, system.ID)
		if err != nil {
			t.Fatal(err)
		}
		changes, err := run.Apply(ctx, "all", time.Now(), records, deleted)
		if err != nil {
			t.Fatal(err)
		}
		return changes.Touched
	}
	apply(remit.Records{
		Identities: []remit.Identity{account, agent, group}, Roles: []remit.Role{role, secrets}, Grants: []remit.Grant{admin, reads},
		Relations: []remit.Relation{member}, Credentials: copies,
	}, nil)

	set, err := policy.Load()
	if err != nil {
		t.Fatal(err)
	}
	e := policy.NewEvaluator(set, store, store)
	now := time.Now().UTC()
	e.Now = func() time.Time { return now }
	open := func() []string {
		t.Helper()
		all, _, err := store.Findings(ctx, remit.FindingFilter{States: []remit.FindingState{remit.Open}}, remit.PageRequest{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, f := range all {
			out = append(out, f.Policy+" "+f.Subject.Ref.String())
		}
		slices.Sort(out)
		return out
	}
	report, err := e.Evaluate(ctx, system.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range report.Errors {
		t.Errorf("%+v", e)
	}
	want := []string{
		"account-orphaned ServiceAccount ci/runner",
		"administrator-machine ClusterRoleBinding ci-admin",
		"agent-can-read-secrets Deployment ai/helper",
		"production-secret-outside-production Secret staging/key",
	}
	if got := open(); !slices.Equal(got, want) {
		t.Errorf("open\n%q, want\n%q", got, want)
	}

	// Mended one by one, seen by what the store says was touched.
	now = now.Add(time.Minute)
	if _, err := e.EvaluateSubjects(ctx, system.ID, apply(remit.Records{}, []remit.ID{reads.ID})); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	// The copy in staging is not touched, and no copy of production any more.
	if _, err := e.EvaluateSubjects(ctx, system.ID, apply(remit.Records{}, []remit.ID{copies[0].ID})); err != nil {
		t.Fatal(err)
	}
	want = want[:2]
	if got := open(); !slices.Equal(got, want) {
		t.Errorf("after mending: open\n%q, want\n%q", got, want)
	}
}
