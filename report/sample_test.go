package report

import (
	"flag"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"testing"
	"time"

	"remit"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares what a writer wrote with the file of that name.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s has changed; look at it, and run the test with -update if it is right. Got:\n%s", path, got)
	}
}

var sampleTime = time.Date(2026, 11, 23, 9, 30, 0, 0, time.UTC)

func ago(days int) time.Time { return sampleTime.AddDate(0, 0, -days) }

// sample is a small cluster with much that is wrong, as a user would meet it.
func sample() *Document {
	d := &Document{Generated: sampleTime, Remit: "0.1.0"}
	system := remit.System{
		ID: remit.SystemID("kubernetes", "3f1c"), Connector: "kubernetes", Name: "prod", Native: "3f1c",
		Version: "v1.36.3", Address: "https://10.0.0.1:6443", Mode: remit.ModeObserve, Observed: sampleTime,
		Gaps: []remit.Gap{{
			Section: "nodes", Reason: `nodes is forbidden: User "system:serviceaccount:remit:remit" cannot list resource "nodes" in API group "" at the cluster scope`,
			Need: "list nodes",
		}},
	}
	d.Systems = []remit.System{system}
	identity := func(kind, namespace, name string, t remit.IdentityType, change func(*remit.Identity)) remit.Identity {
		r := remit.Ref{Kind: kind, Namespace: namespace, Name: name}
		i := remit.Identity{Record: remit.Record{ID: remit.IdentityID(system.ID, r), System: system.ID, Ref: r, Created: ago(500)}, Type: t, Status: remit.Active}
		if namespace != "" {
			i.Environment = "production"
		}
		if kind == "ServiceAccount" {
			i.Principal = "system:serviceaccount:" + namespace + ":" + name
		}
		if change != nil {
			change(&i)
		}
		d.Identities = append(d.Identities, i)
		return i
	}
	deployer := identity("ServiceAccount", "ci", "deployer", remit.ServiceAccount, func(i *remit.Identity) {
		i.Labels = map[string]string{"app.kubernetes.io/name": "deployer", "helm.sh/chart": "deployer-1.4.2"}
		i.Attributes = map[string]string{"automount": "true"}
		i.Incarnation = "0b7e0f6c-8a11-4a53-9c6e-0d7a7ad3a2f1"
	})
	api := identity("ServiceAccount", "payments", "api", remit.ServiceAccount, func(i *remit.Identity) {
		i.Owners = []remit.Owner{{Name: "team-payments", Source: "label team"}, {Name: "dana@example.com", Source: "field manager", Status: remit.OwnerLeft}}
		i.LastActive = ago(1)
	})
	agent := identity("Deployment", "support", "answer-bot", remit.Agent, func(i *remit.Identity) {
		i.Attributes = map[string]string{"agent": "langgraph", "model-provider": "openai"}
		i.Owners = []remit.Owner{{Name: "bob@example.com", Source: "annotation owner", Status: remit.OwnerLeft}}
	})
	bob := identity("User", "", "bob@example.com", remit.Human, func(i *remit.Identity) { i.Principal = i.Name })
	all := identity("Group", "", "system:serviceaccounts", remit.Group, func(i *remit.Identity) { i.BuiltIn = true; i.Principal = i.Name })
	ns := identity("Group", "", "system:serviceaccounts:ci", remit.Group, func(i *remit.Identity) { i.BuiltIn = true; i.Principal = i.Name })
	old := identity("ServiceAccount", "legacy", "importer", remit.ServiceAccount, func(i *remit.Identity) { i.Status = remit.Absent; i.LastActive = ago(400) })
	for n := range 7 {
		identity("Deployment", "shop", fmt.Sprintf("web-%d", n+1), remit.Workload, nil)
	}

	credential := func(kind, namespace, name, key string, t remit.CredentialType, of *remit.Identity, change func(*remit.Credential)) remit.Credential {
		r := remit.Ref{Kind: kind, Namespace: namespace, Name: name}
		c := remit.Credential{
			Record: remit.Record{ID: remit.CredentialID(system.ID, r, key), System: system.ID, Ref: r, Created: ago(412)},
			Type:   t, Status: remit.Active, Key: key, Location: remit.ResourceID(system.ID, r), Provider: "kubernetes",
		}
		if of != nil {
			c.Identity, c.Holder = of.ID, of.Ref
		}
		if change != nil {
			change(&c)
		}
		d.Credentials = append(d.Credentials, c)
		return c
	}
	token := credential("Secret", "ci", "deployer-token", "token", remit.StaticToken, &deployer, func(c *remit.Credential) {
		c.NeverExpires = true
		c.Rotated = ago(412)
		c.LastUsed = ago(120)
		c.Attributes = map[string]string{"legacy": "true"}
	})
	credential("Deployment", "support", "answer-bot", "bot/OPENAI_API_KEY", remit.APIKey, &agent, func(c *remit.Credential) {
		c.Provider, c.Exposure, c.Fingerprint = "openai", []string{"environment"}, "hmac:5b0c"
	})
	credential("Pod", "payments", "api", "automount", remit.ShortLivedToken, &api, func(c *remit.Credential) {
		c.Lifetime, c.GrantedLifetime, c.Audiences = 3600, 365*24*3600, []string{"https://kubernetes.default.svc"}
	})
	certificate := credential("Secret", "payments", "api-tls", "tls.crt", remit.Certificate, nil, func(c *remit.Credential) {
		c.Expires, c.Issued, c.Algorithm, c.KeyBits, c.Subject, c.Issuer = ago(-20), ago(70), "RSA", 2048, "CN=api", "CN=ca"
		c.Native = "X509SHA256=77aa"
	})

	role := func(kind, namespace, name string, permissions ...remit.Permission) remit.Role {
		r := remit.Ref{Kind: kind, Namespace: namespace, Name: name}
		role := remit.Role{Record: remit.Record{ID: remit.RoleID(system.ID, r), System: system.ID, Ref: r, BuiltIn: name == "cluster-admin"}, Permissions: permissions}
		d.Roles = append(d.Roles, role)
		return role
	}
	admin := role("ClusterRole", "", "cluster-admin",
		remit.Permission{Actions: []string{"*"}, Resources: []string{"*.*"}}, remit.Permission{Actions: []string{"*"}, Resources: []string{"/*"}})
	reader := role("Role", "payments", "reader",
		remit.Permission{Actions: []string{"get", "list", "watch"}, Resources: []string{"pods", "services", "configmaps", "endpoints", "events", "deployments.apps", "replicasets.apps", "jobs.batch"}},
		remit.Permission{Actions: []string{"get"}, Resources: []string{"secrets"}, Names: []string{"api-tls"}})
	grant := func(kind, namespace, name string, to remit.Identity, role remit.Role) remit.Grant {
		r := remit.Ref{Kind: kind, Namespace: namespace, Name: name}
		g := remit.Grant{
			Record: remit.Record{ID: remit.GrantID(system.ID, r, to.ID), System: system.ID, Ref: r, Created: ago(300)},
			Status: remit.Active, Identity: to.ID, Subject: to.Ref, Role: role.ID, RoleRef: role.Ref, Scope: namespace, Origin: "helm",
		}
		d.Grants = append(d.Grants, g)
		return g
	}
	adminGrant := grant("ClusterRoleBinding", "", "ci-deployer", deployer, admin)
	grant("RoleBinding", "payments", "api-reader", api, reader)
	grant("RoleBinding", "payments", "ci-reader", ns, reader)
	dangling := grant("RoleBinding", "legacy", "importer", old, remit.Role{Record: remit.Record{Ref: remit.Ref{Kind: "Role", Namespace: "legacy", Name: "importer"}}})
	d.Grants[len(d.Grants)-1].Status = remit.Dangling

	relation := func(t remit.RelationType, right remit.Right, from, to remit.Ref, fromID, toID remit.ID, scope string) {
		d.Relations = append(d.Relations, remit.Relation{
			Record: remit.Record{ID: remit.RelationID(fromID, toID, t, right, scope), System: system.ID, Ref: remit.Ref{Kind: string(t), Name: from.Name}},
			Type:   t, From: fromID, To: toID, FromRef: from, ToRef: to, Right: right, Scope: scope,
		})
	}
	relation(remit.MemberOf, "", deployer.Ref, ns.Ref, deployer.ID, ns.ID, "")
	relation(remit.MemberOf, "", ns.Ref, all.Ref, ns.ID, all.ID, "")
	relation(remit.CanActAs, remit.MintToken, bob.Ref, ns.Ref, bob.ID, ns.ID, "ci")
	relation(remit.CanActAs, remit.Exec, agent.Ref, deployer.Ref, agent.ID, deployer.ID, "ci")
	relation(remit.CanActAs, remit.Impersonate, deployer.Ref, remit.Ref{Kind: "Group", Name: "system:masters"}, deployer.ID, remit.IdentityID(system.ID, remit.Ref{Kind: "Group", Name: "system:masters"}), "")
	runner := d.Identities[7]
	relation(remit.RunsAs, "", runner.Ref, deployer.Ref, runner.ID, deployer.ID, "")
	relation(remit.Holds, "", runner.Ref, token.Ref, runner.ID, token.Location, "")
	relation(remit.Holds, "", deployer.Ref, certificate.Ref, deployer.ID, certificate.Location, "")

	d.Resources = append(d.Resources,
		remit.Resource{Record: remit.Record{ID: token.Location, System: system.ID, Ref: token.Ref, Attributes: map[string]string{"type": "kubernetes.io/service-account-token"}}, Type: "secret"},
		remit.Resource{Record: remit.Record{ID: certificate.Location, System: system.ID, Ref: certificate.Ref}, Type: "secret", CrownJewel: true},
	)

	finding := func(policy, title string, severity remit.Severity, kind remit.RecordKind, r remit.Ref, id remit.ID, of remit.ID, message, remedy string, risks, controls []string, evidence ...remit.Fact) {
		d.Findings = append(d.Findings, remit.Finding{
			ID: remit.FindingID(policy, id), Policy: policy, Title: title, Severity: severity, System: system.ID,
			Subject: remit.Subject{Record: kind, Ref: r, ID: id}, Identity: of, Message: message, Evidence: evidence,
			Risks: risks, Controls: controls, Remedy: remedy, State: remit.Open, First: ago(3), Last: sampleTime,
		})
	}
	finding("credential-never-expires", "A credential never expires", remit.High, remit.KindCredential, token.Ref, token.ID, deployer.ID,
		"The token in Secret ci/deployer-token has been valid for 412 days and has no end.",
		"Delete the Secret and let the workload use a projected token, which the kubelet renews every hour.",
		[]string{"NHI7", "T1528"}, []string{"SOC 2 CC6.1", "NIST SP 800-53 IA-5(1)", "PCI DSS 8.6.3"},
		remit.Fact{Name: "made", Value: "2025-10-07"}, remit.Fact{Name: "last used", Value: "2026-07-26"})
	finding("machine-admin", "A machine may do everything", remit.Critical, remit.KindGrant, adminGrant.Ref, adminGrant.ID, deployer.ID,
		"ServiceAccount ci/deployer is cluster-admin everywhere through ClusterRoleBinding ci-deployer: whoever takes its token owns the cluster.",
		"Bind a role that allows only what the deployments need, in the namespaces that it deploys to.",
		[]string{"NHI5", "T1078"}, []string{"SOC 2 CC6.3", "NIST SP 800-53 AC-6(7)"},
		remit.Fact{Name: "role", Value: "ClusterRole cluster-admin"}, remit.Fact{Name: "allows", Value: "every action on everything"}, remit.Fact{Name: "bound by", Value: "helm"})
	finding("machine-unowned", "Nobody owns a machine identity", remit.Medium, remit.KindIdentity, deployer.Ref, deployer.ID, "",
		"Nobody answers for ServiceAccount ci/deployer.", "Label it with its team: kubectl -n ci label serviceaccount deployer team=TEAM.",
		[]string{"NHI1"}, []string{"ISO/IEC 27001:2022 A.5.16"})
	finding("agent-key-exposed", "An agent's key can be read in its environment", remit.High, remit.KindCredential, d.Credentials[1].Ref, d.Credentials[1].ID, agent.ID,
		"The OpenAI key of Deployment support/answer-bot stands in the variable OPENAI_API_KEY of its pod template.",
		"Put the key into a Secret, rotate it, and let only this account read it.",
		[]string{"NHI2", "ASI03"}, []string{"NIST SP 800-53 IA-5(7)"},
		remit.Fact{Name: "variable", Value: "bot/OPENAI_API_KEY"}, remit.Fact{Name: "rule", Value: "openai-api-key"})
	finding("grant-dangling", "A binding names what does not exist", remit.Low, remit.KindGrant, dangling.Ref, dangling.ID, old.ID,
		"RoleBinding legacy/importer waits for an account that anyone may make.", "Delete the binding.",
		[]string{"NHI1"}, nil, remit.Fact{Name: "missing", Value: "subject"})
	finding("certificate-expires-soon", "A certificate expires soon", remit.Info, remit.KindCredential, certificate.Ref, certificate.ID, "",
		"The certificate in Secret payments/api-tls expires in 20 days.", "Renew it.", nil, nil)
	for _, i := range d.Identities[7:] {
		finding("machine-unowned", "Nobody owns a machine identity", remit.Medium, remit.KindIdentity, i.Ref, i.ID, "",
			"Nobody answers for Deployment "+place(i.Ref)+".", "Label it with its team: kubectl -n "+i.Namespace+" label deployment "+i.Name+" team=TEAM.",
			[]string{"NHI1"}, []string{"ISO/IEC 27001:2022 A.5.16"})
	}
	finding("workload-privileged", "A workload runs privileged", remit.High, remit.KindIdentity, runner.Ref, runner.ID, "",
		"Suppressed and so not to be seen.", "", nil, nil)
	d.Findings[len(d.Findings)-1].State = remit.Suppressed
	d.Findings[len(d.Findings)-1].SuppressedUntil = ago(-30)
	return d
}

// made is a source of as many records as wanted, which are made as they are
// read and never all in memory.
type made struct {
	identities, findings int
	read                 *int // how often a list was gone through
}

func (m made) Header() Header { return Header{Generated: sampleTime, Version: "0.1.0"} }

func (m made) system() remit.System {
	return remit.System{ID: remit.SystemID("kubernetes", "big"), Connector: "kubernetes", Name: "big", Mode: remit.ModeObserve}
}

func (m made) Systems() iter.Seq2[remit.System, error] {
	return Records([]remit.System{m.system()})
}

func (m made) identity(n int) remit.Identity {
	r := remit.Ref{Kind: "ServiceAccount", Namespace: fmt.Sprintf("team-%d", n%500), Name: fmt.Sprintf("account-%d", n)}
	return remit.Identity{Record: remit.Record{ID: remit.IdentityID(m.system().ID, r), System: m.system().ID, Ref: r}, Type: remit.ServiceAccount, Status: remit.Active}
}

func generate[T any](n int, one func(int) T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for i := range n {
			if !yield(one(i), nil) {
				return
			}
		}
	}
}

func (m made) Identities() iter.Seq2[remit.Identity, error] {
	return generate(m.identities, m.identity)
}

func (m made) Credentials() iter.Seq2[remit.Credential, error] {
	return generate(m.identities, func(n int) remit.Credential {
		r := remit.Ref{Kind: "Secret", Namespace: "x", Name: fmt.Sprintf("token-%d", n)}
		return remit.Credential{Record: remit.Record{ID: remit.CredentialID(m.system().ID, r, "token"), System: m.system().ID, Ref: r}, Type: remit.StaticToken, Status: remit.Active, NeverExpires: true}
	})
}
func (m made) Roles() iter.Seq2[remit.Role, error] { return Records([]remit.Role(nil)) }
func (m made) Grants() iter.Seq2[remit.Grant, error] {
	return generate(m.identities, func(n int) remit.Grant {
		i := m.identity(n)
		r := remit.Ref{Kind: "RoleBinding", Namespace: i.Namespace, Name: i.Name}
		return remit.Grant{Record: remit.Record{ID: remit.GrantID(m.system().ID, r, i.ID), System: m.system().ID, Ref: r}, Status: remit.Active, Identity: i.ID, Subject: i.Ref}
	})
}
func (m made) Relations() iter.Seq2[remit.Relation, error] { return Records([]remit.Relation(nil)) }
func (m made) Resources() iter.Seq2[remit.Resource, error] { return Records([]remit.Resource(nil)) }

func (m made) Findings() iter.Seq2[remit.Finding, error] {
	if m.read != nil {
		*m.read++
	}
	return generate(m.findings, func(n int) remit.Finding {
		i := m.identity(n % m.identities)
		policy := fmt.Sprintf("policy-%d", n%40)
		return remit.Finding{
			ID: remit.FindingID(policy, i.ID), Policy: policy, Title: "Something is wrong", Severity: remit.Severities[n%40%5],
			System: i.System, Subject: remit.Subject{Record: remit.KindIdentity, Ref: i.Ref, ID: i.ID},
			Message:  "Something is wrong with " + i.Name + ", in a sentence of a usual length that says what and why.",
			Evidence: []remit.Fact{{Name: "number", Value: fmt.Sprint(n)}}, Remedy: "Mend it.", State: remit.Open,
		}
	})
}
