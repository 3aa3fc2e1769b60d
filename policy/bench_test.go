package policy

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"remit"
)

// estate makes a large system that looks like real ones: namespaces of ten
// accounts, each with a workload, an automounted token, a secret and a binding;
// a tenth of everything has something wrong with it.
func estate(identities int) (remit.System, remit.Records) {
	system := remit.System{ID: remit.SystemID("kubernetes", "bench"), Connector: "kubernetes", Name: "bench"}
	var all remit.Records
	record := func(kind, namespace, name string) remit.Record {
		r := remit.Record{System: system.ID, Ref: remit.Ref{Kind: kind, Namespace: namespace, Name: name}, Created: caseNow.AddDate(0, 0, -200)}
		r.Environment = "production"
		r.Labels = map[string]string{"app.kubernetes.io/name": name}
		return r
	}
	identity := func(kind, namespace, name string, t remit.IdentityType) remit.ID {
		r := remit.Identity{Record: record(kind, namespace, name), Type: t, Status: remit.Active, Owners: []remit.Owner{{Name: "team", Source: "label"}}}
		r.BuiltIn = strings.HasPrefix(name, "system:")
		r.Attributes = map[string]string{"service-account": name, "images": "registry.example.com/" + name + ":1"}
		r.ID = remit.IdentityID(system.ID, r.Ref)
		all.Identities = append(all.Identities, r)
		return r.ID
	}
	relate := func(t remit.RelationType, from, to remit.ID, fromRef, toRef remit.Ref) {
		r := remit.Relation{Record: record("Relation", "", ""), Type: t, From: from, To: to, FromRef: fromRef, ToRef: toRef}
		r.ID = remit.RelationID(from, to, t, "", "")
		all.Relations = append(all.Relations, r)
	}
	var roles []remit.Role
	for i := range 200 {
		r := remit.Role{Record: record("ClusterRole", "", fmt.Sprint("role-", i))}
		r.Permissions = []remit.Permission{
			{Actions: []string{"get", "list", "watch"}, Resources: []string{"pods", "configmaps", "services", "deployments.apps"}},
			{Actions: []string{"create", "update", "patch"}, Resources: []string{"leases.coordination.k8s.io", "events"}},
		}
		switch i {
		case 1:
			r.Permissions = append(r.Permissions, remit.Permission{Actions: []string{"get"}, Resources: []string{"secrets"}})
		case 2:
			r.Permissions = []remit.Permission{{Actions: []string{"*"}, Resources: []string{"*.*"}}}
		}
		r.ID = remit.RoleID(system.ID, r.Ref)
		roles = append(roles, r)
	}
	all.Roles = roles
	everyone := identity("Group", "", "system:serviceaccounts", remit.Group)
	authenticated := identity("Group", "", "system:authenticated", remit.Group)
	groupRef := remit.Ref{Kind: "Group", Name: "system:serviceaccounts"}
	relate(remit.MemberOf, everyone, authenticated, groupRef, remit.Ref{Kind: "Group", Name: "system:authenticated"})
	var inNamespace remit.ID
	var namespace string
	for i := 0; len(all.Identities) < identities; i++ {
		if i%10 == 0 {
			namespace = fmt.Sprint("ns-", i/10)
			inNamespace = identity("Group", "", "system:serviceaccounts:"+namespace, remit.Group)
			relate(remit.MemberOf, inNamespace, everyone, remit.Ref{Kind: "Group", Name: "system:serviceaccounts:" + namespace}, groupRef)
		}
		name := fmt.Sprint("app-", i)
		account := identity("ServiceAccount", namespace, name, remit.ServiceAccount)
		workload := identity("Deployment", namespace, name, remit.Workload)
		accountRef, workloadRef := remit.Ref{Kind: "ServiceAccount", Namespace: namespace, Name: name}, remit.Ref{Kind: "Deployment", Namespace: namespace, Name: name}
		relate(remit.MemberOf, account, inNamespace, accountRef, remit.Ref{Kind: "Group", Name: "system:serviceaccounts:" + namespace})
		relate(remit.RunsAs, workload, account, workloadRef, accountRef)

		token := remit.Credential{Record: record("Deployment", namespace, name), Key: "automount", Type: remit.ShortLivedToken, Status: remit.Active, Identity: account, Holder: accountRef, Lifetime: 3607, GrantedLifetime: 3607}
		token.Attributes = map[string]string{"automounted": "true"}
		token.ID = remit.CredentialID(system.ID, token.Ref, token.Key)
		place := record("Secret", namespace, name)
		place.ID = remit.ResourceID(system.ID, place.Ref)
		all.Resources = append(all.Resources, remit.Resource{Record: place, Type: "secret"})
		relate(remit.Holds, workload, place.ID, workloadRef, place.Ref)
		password := remit.Credential{Record: record("Secret", namespace, name), Key: "password", Type: remit.Password, Status: remit.Active, Location: place.ID, Fingerprint: fmt.Sprint("f", i)}
		password.Rotated = caseNow.AddDate(0, 0, -i%100)
		password.ID = remit.CredentialID(system.ID, password.Ref, password.Key)
		certificate := remit.Credential{Record: record("Secret", namespace, name), Key: "tls.crt", Type: remit.Certificate, Status: remit.Active, Location: place.ID, Native: fmt.Sprint("X509SHA256=", i), Algorithm: "ECDSA", KeyBits: 256, Expires: caseNow.AddDate(0, 0, 60), GrantedLifetime: 90 * 86400}
		certificate.Attributes = map[string]string{"private-key": "true"}
		certificate.ID = remit.CredentialID(system.ID, certificate.Ref, certificate.Key)
		all.Credentials = append(all.Credentials, token, password, certificate)

		for j := range 3 {
			role := &roles[(i*3+j)%len(roles)]
			g := remit.Grant{Record: record("RoleBinding", namespace, fmt.Sprint(name, "-", j)), Status: remit.Active, Identity: account, Subject: accountRef, Role: role.ID, RoleRef: role.Ref, Scope: namespace}
			if i%10 == 0 && j == 0 {
				g.Kind, g.Namespace, g.Scope = "ClusterRoleBinding", "", ""
			}
			g.ID = remit.GrantID(system.ID, g.Ref, account)
			all.Grants = append(all.Grants, g)
		}
	}
	return system, all
}

// BenchmarkEvaluate runs the pack over 100,000 identities with 150,000
// credentials and as many grants, on one core.
func BenchmarkEvaluate(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	size := 100_000
	if testing.Short() {
		size = 5_000
	}
	system, all := estate(size)
	fake := newFake(all, system)
	set, err := Load()
	if err != nil {
		b.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var evaluations, found int64
	var peak uint64
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		e := NewEvaluator(set, fake, nil)
		e.Now = func() time.Time { return caseNow }
		report, err := e.Check(context.Background(), system.ID, func(remit.Finding) error {
			if found++; found%2000 == 0 {
				b.StopTimer()
				runtime.GC() // what is live, not what waits to be collected
				runtime.ReadMemStats(&after)
				peak = max(peak, after.HeapAlloc)
				b.StartTimer()
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		if len(report.Errors) > 0 {
			b.Fatal(report.Errors[0])
		}
		evaluations += report.Evaluations
	}
	seconds := b.Elapsed().Seconds()
	b.ReportMetric(float64(evaluations)/seconds, "evaluations/s")
	b.ReportMetric(float64(found)/float64(b.N), "findings/op")
	b.ReportMetric(float64(fake.queries)/float64(b.N), "queries/op")
	if peak > before.HeapAlloc {
		b.ReportMetric(float64(peak-before.HeapAlloc)/(1<<20), "MB-above-inventory")
	}
}

// BenchmarkExpression runs conditions that no guard decides.
func BenchmarkExpression(b *testing.B) {
	for name, source := range map[string]string{
		"fields": `credential.name.startsWith("app") && credential.type + "x" == "passwordx" && older_than(credential.rotated, duration("24h"))`,
		"list":   `identity.grants.exists(g, g.allows("get", "secrets"))`,
	} {
		b.Run(name, func(b *testing.B) {
			kind := "credential"
			if name == "list" {
				kind = "identity"
			}
			set := loadText(b, fmt.Sprintf("id: a\ntitle: t\ndescription: d\nsubject: %s\nseverity: low\nmessage: m\nremedy: r\nmatch: '%s'\n", kind, source))
			p := set.Policy("a")
			f := &frame{now: timestamp(caseNow)}
			if kind == "credential" {
				f.subject = &credentialObject{class: credentialClass, it: credentialData{Credential: &remit.Credential{Record: remit.Record{Ref: remit.Ref{Name: "app-1"}}, Type: remit.Password, Rotated: caseNow.AddDate(0, 0, -3)}}}
			} else {
				o := newIdentity(&remit.Identity{})
				var grants []*grantObject
				for range 5 {
					grants = append(grants, &grantObject{class: grantRecordClass, it: grantData{Grant: &remit.Grant{}, permissions: newPermissions([]remit.Permission{{Actions: []string{"get"}, Resources: []string{"pods", "configmaps"}}})}})
				}
				o.it.near.grants = objectList(grants)
				f.subject = o
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.program.matches(f); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "evaluations/s")
		})
	}
}
