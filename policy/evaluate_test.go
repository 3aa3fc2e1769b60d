package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"remit"
)

// oneRule is a set of one policy.
func oneRule(t testing.TB, subject, match string, more ...string) *Set {
	t.Helper()
	return loadText(t, fmt.Sprintf("id: rule\ntitle: A rule\ndescription: d\nsubject: %s\nseverity: low\nmatch: |\n  %s\nmessage: found\nremedy: r\n%s", subject, match, strings.Join(more, "\n")))
}

func caseSystemRecord() remit.System {
	return remit.System{ID: systemOfCase(caseSystem), Connector: "kubernetes", Name: caseSystem}
}

func evaluator(set *Set, f *fakeInventory, findings Findings, now time.Time) *Evaluator {
	e := NewEvaluator(set, f, findings)
	e.Now = func() time.Time { return now }
	return e
}

const shop = `
identities:
- {kind: ServiceAccount, namespace: shop, name: web, owners: [{name: shop, source: label}]}
- {kind: ServiceAccount, namespace: shop, name: idle, owners: [{name: shop, source: label}]}
- {kind: Deployment, namespace: shop, name: web}
- {kind: Group, name: operators}
roles:
- {kind: ClusterRole, name: reader, permissions: ["get, list on secrets"]}
grants:
- {kind: ClusterRoleBinding, name: operators, identity: Group operators, role: ClusterRole reader}
relations:
- {type: runs-as, from: Deployment shop/web, to: ServiceAccount shop/web}
- {type: member-of, from: ServiceAccount shop/web, to: Group inner}
- {type: member-of, from: Group inner, to: Group operators}
- {type: holds, from: Deployment shop/web, to: Secret shop/db}
credentials:
- {kind: Secret, namespace: shop, name: db, key: password, type: password, identity: ServiceAccount shop/web, fingerprint: f, created: -10d}
- {kind: Secret, namespace: other, name: db, key: password, type: password, fingerprint: f, created: -10d}
`

// TestNeighbourhood: what an expression sees around its subject, with pages of
// one record, so that nothing depends on what is loaded together.
func TestNeighbourhood(t *testing.T) {
	for _, test := range []struct {
		subject, match string
		want           []string
	}{
		{"identity", `identity.workloads.exists(w, w.name == "web")`, []string{"ServiceAccount shop/web"}},
		{"identity", `identity.accounts.exists(a, a.owners.size() == 1)`, []string{"Deployment shop/web"}},
		{"identity", `identity.groups.exists(g, g.name == "operators")`, []string{"Deployment shop/web", "Group inner", "ServiceAccount shop/web"}},
		{"identity", `identity.allows("get", "secrets")`, []string{"Deployment shop/web", "Group inner", "Group operators", "ServiceAccount shop/web"}},
		{"identity", `identity.grants.size() == 1`, []string{"Group operators"}},
		{"identity", `identity.effective_grants.exists(g, g.identity.name == "operators" && g.role.name == "reader") && identity.grants.size() == 0`, []string{"Deployment shop/web", "Group inner", "ServiceAccount shop/web"}},
		{"identity", `identity.credentials.exists(c, c.key == "password")`, []string{"ServiceAccount shop/web"}},
		{"identity", `identity.relations.exists(r, r.type == "holds" && r.to.kind == "Secret")`, []string{"Deployment shop/web"}},
		{"identity", `identity.inbound.exists(r, r.type == "runs-as" && r.from.type == "workload")`, []string{"ServiceAccount shop/web"}},
		{"identity", `identity.inbound.exists(r, r.type == "member-of")`, nil},
		{"credential", `credential.users.exists(u, u.kind == "Deployment")`, []string{"Secret shop/db"}},
		{"credential", `credential.copies.size() == 1 && credential.copies[0].namespace == "shop"`, []string{"Secret other/db"}},
		{"credential", `credential.identity.workloads.size() == 1`, []string{"Secret shop/db"}},
		{"credential", `credential.identity.allows("list", "secrets")`, []string{"Secret shop/db"}},
		{"credential", `!has(credential.identity) && credential.identity.name == ""`, []string{"Secret other/db"}},
		{"grant", `grant.allows("get", "secrets") && grant.identity.type == "group" && grant.identity.inbound.size() == 0`, []string{"ClusterRoleBinding operators"}},
		{"grant", `grant.identity.grants.size() == 1`, []string{"ClusterRoleBinding operators"}},
	} {
		set := oneRule(t, test.subject, test.match)
		f := newFake(records(t, shop), caseSystemRecord())
		f.page = 1
		e := evaluator(set, f, nil, caseNow)
		e.PageSize = 1
		var got []string
		report, err := e.Check(context.Background(), systemOfCase(caseSystem), func(f remit.Finding) error {
			got = append(got, f.Subject.Ref.String())
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range report.Errors {
			t.Errorf("%s: %s", test.match, e.Message)
		}
		slices.Sort(got)
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: found %q, want %q", test.match, got, test.want)
		}
	}
}

// TestFindingsFollow: findings open, are confirmed, resolve when mended and
// open again, and a disabled policy's findings resolve.
func TestFindingsFollow(t *testing.T) {
	ctx, system := context.Background(), systemOfCase(caseSystem)
	findings := newFindings()
	set := oneRule(t, "credential", `credential.copies.size() > 0`)
	all := records(t, shop)
	now := caseNow
	run := func(set *Set, all remit.Records) Report {
		t.Helper()
		now = now.Add(time.Hour)
		r, err := evaluator(set, newFake(all, caseSystemRecord()), findings, now).Evaluate(ctx, system)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if c := run(set, all).Changes; c.Opened != 2 {
		t.Errorf("first run: %+v", c)
	}
	if c := run(set, all).Changes; c.Confirmed != 2 || c.Resolved != 0 {
		t.Errorf("second run: %+v", c)
	}
	mended := all
	mended.Credentials = slices.Clone(all.Credentials)[:1]
	if c := run(set, mended).Changes; c.Resolved != 2 {
		t.Errorf("mended: %+v", c)
	}
	if c := run(set, all).Changes; c.Reopened != 2 {
		t.Errorf("back again: %+v", c)
	}
	disabled := oneRule(t, "credential", `credential.copies.size() > 0`, "disabled: true")
	if c := run(disabled, all).Changes; c.Resolved != 2 {
		t.Errorf("disabled: %+v", c)
	}
}

// TestIncremental: after each change, looking at what was touched gives what a
// whole evaluation gives.
func TestIncremental(t *testing.T) {
	ctx, system := context.Background(), systemOfCase(caseSystem)
	set := loadText(t, `
id: reads-secrets
title: a
description: d
subject: identity
severity: low
match: identity.allows("get", "secrets")
message: m
remedy: r
---
id: has-copies
title: b
description: d
subject: credential
severity: low
match: credential.copies.size() > 0
message: m
remedy: r
---
id: is-used
title: c
description: d
subject: credential
severity: low
match: credential.users.size() > 0
message: m
remedy: r
---
id: role-reads-secrets
title: e
description: d
subject: grant
severity: low
match: grant.allows("get", "secrets")
message: m
remedy: r
`)
	whole := records(t, shop)
	for name, change := range map[string]func(*remit.Records) []remit.ID{
		"the role changes": func(all *remit.Records) []remit.ID {
			all.Roles[0].Permissions = nil
			return []remit.ID{all.Roles[0].ID}
		},
		"the grant of the outer group goes": func(all *remit.Records) []remit.ID {
			g := all.Grants[0]
			all.Grants = nil
			return []remit.ID{g.ID, g.Identity}
		},
		"the account leaves its group": func(all *remit.Records) []remit.ID {
			r := all.Relations[1]
			all.Relations = slices.Delete(all.Relations, 1, 2)
			return []remit.ID{r.ID, r.From, r.To}
		},
		"the workload no longer holds the Secret": func(all *remit.Records) []remit.ID {
			r := all.Relations[3]
			all.Relations = all.Relations[:3]
			return []remit.ID{r.ID, r.From, r.To}
		},
		"a copy changes": func(all *remit.Records) []remit.ID {
			all.Credentials[0].Environment = "staging"
			return []remit.ID{all.Credentials[0].ID}
		},
		"a credential goes": func(all *remit.Records) []remit.ID {
			c := all.Credentials[0]
			all.Credentials = all.Credentials[1:]
			return []remit.ID{c.ID, c.Identity, all.Credentials[0].ID}
		},
	} {
		t.Run(name, func(t *testing.T) {
			step, full := newFindings(), newFindings()
			if _, err := evaluator(set, newFake(whole, caseSystemRecord()), step, caseNow).Evaluate(ctx, system); err != nil {
				t.Fatal(err)
			}
			all := remit.Records{
				Identities: slices.Clone(whole.Identities), Credentials: slices.Clone(whole.Credentials), Roles: slices.Clone(whole.Roles),
				Grants: slices.Clone(whole.Grants), Relations: slices.Clone(whole.Relations),
			}
			touched := change(&all)
			later := caseNow.Add(time.Minute)
			report, err := evaluator(set, newFake(all, caseSystemRecord()), step, later).EvaluateSubjects(ctx, system, touched)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := evaluator(set, newFake(all, caseSystemRecord()), full, later).Evaluate(ctx, system); err != nil {
				t.Fatal(err)
			}
			if got, want := step.open(), full.open(); !slices.Equal(got, want) {
				t.Errorf("open after the step %q, after a whole evaluation %q (%d subjects)", got, want, report.Subjects)
			}
		})
	}
}

// TestOneFailureStopsNothing: an expression that fails on one subject is
// reported, and everything else goes on; what it found before stays open.
func TestOneFailureStopsNothing(t *testing.T) {
	ctx, system := context.Background(), systemOfCase(caseSystem)
	findings := newFindings()
	all := records(t, shop)
	good := `
---
id: good
title: good
description: d
subject: credential
severity: low
match: credential.namespace == "shop"
message: m
remedy: r
`
	rule := func(match string) *Set {
		return loadText(t, "id: bad\ntitle: A\ndescription: d\nsubject: credential\nseverity: low\nmessage: m\nremedy: r\nmatch: |\n  "+match+good)
	}
	if _, err := evaluator(rule(`credential.key == "password"`), newFake(all, caseSystemRecord()), findings, caseNow).Evaluate(ctx, system); err != nil {
		t.Fatal(err)
	}
	report, err := evaluator(rule(`credential.audiences[int(credential.created) % 7 + 3] == "x" || credential.namespace == "none"`), newFake(all, caseSystemRecord()), findings, caseNow.Add(time.Hour)).Evaluate(ctx, system)
	if err != nil {
		t.Fatal(err)
	}
	if report.ErrorCount != 2 || len(report.Errors) != 2 || report.Errors[0].Policy != "bad" {
		t.Errorf("errors: %+v", report.Errors)
	}
	want := []string{"bad Secret other/db", "bad Secret shop/db", "good Secret shop/db"}
	if got := findings.open(); !slices.Equal(got, want) {
		t.Errorf("open %q, want %q", got, want)
	}
}

// TestCostIsLimited: no expression works for long or fills the memory.
func TestCostIsLimited(t *testing.T) {
	doubling := `["0123456789"]` + strings.Repeat(".map(x, x + x)", 40) + `[0].size() > 0`
	for name, match := range map[string]string{
		"nested loops": `[1,2,3,4,5,6,7,8,9,10].exists(a, [1,2,3,4,5,6,7,8,9,10].exists(b, [1,2,3,4,5,6,7,8,9,10].exists(c, [1,2,3,4,5,6,7,8,9,10].exists(d, [1,2,3,4,5,6,7,8,9,10].exists(e, [1,2,3,4,5,6,7,8,9,10].exists(f, a+b+c+d+e+f == 0))))))`,
		"doubling":     doubling,
		"joining":      strings.ReplaceAll(doubling, "x + x", `join([x, x], "")`),
		"a bad regex":  `"` + strings.Repeat("a", 500) + `".matches("(a*)*(a*)*(a*)*b") || [1,2,3,4,5,6,7,8,9,10].all(i, [1,2,3,4,5,6,7,8,9,10].all(j, !"` + strings.Repeat("a", 2000) + `".matches("(a*)*b")))`,
	} {
		t.Run(name, func(t *testing.T) {
			set := loadText(t, fmt.Sprintf("id: rule\ntitle: A\ndescription: d\nsubject: credential\nseverity: low\nmessage: m\nremedy: r\nmatch: |\n  %s\n", match))
			start := time.Now()
			report, err := evaluator(set, newFake(records(t, shop), caseSystemRecord()), newFindings(), caseNow).Evaluate(context.Background(), systemOfCase(caseSystem))
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %s", took)
			}
			if name != "a bad regex" && (len(report.Errors) == 0 || !strings.Contains(report.Errors[0].Message, "too much")) {
				t.Errorf("errors: %+v", report.Errors)
			}
		})
	}
}

func TestStops(t *testing.T) {
	e := evaluator(pack(t), newFake(records(t, shop), caseSystemRecord()), newFindings(), caseNow)
	if _, err := e.Evaluate(context.Background(), "sys_none"); remit.KindOf(err) != remit.NotFound {
		t.Errorf("unknown system: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := e.Evaluate(ctx, systemOfCase(caseSystem)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestNoQueryPerSubject: the number of queries grows with the pages, not with
// the records.
func TestNoQueryPerSubject(t *testing.T) {
	queries := func(size int) int {
		system, all := estate(size)
		f := newFake(all, system)
		if _, err := evaluator(pack(t), f, newFindings(), caseNow).Evaluate(context.Background(), system.ID); err != nil {
			t.Fatal(err)
		}
		return f.queries
	}
	small, large := queries(300), queries(2000)
	if large > 8*small || large > 300 {
		t.Errorf("%d queries for 300 identities, %d for 2000", small, large)
	}
}

// TestHostileNames: a name is data, in a message, and in a command that is
// pasted into a shell.
func TestHostileNames(t *testing.T) {
	set := loadText(t, "id: rule\ntitle: A\ndescription: d\nsubject: grant\nseverity: low\nmatch: 'true'\nmessage: \"grant {grant.name}\"\nremedy: |\n  kubectl delete rolebinding {grant.name} -n {grant.namespace}\n")
	all := records(t, `
grants: [{kind: RoleBinding, namespace: ok-1, name: placeholder, identity: User a, scope: x}]
`)
	for name, command := range map[string]string{
		"plain.name:a":             "plain.name:a",
		"x; rm -rf ~":              "'x; rm -rf ~'",
		"$(curl evil)":             "'$(curl evil)'",
		"it's":                     `'it'\''s'`,
		"a\nb":                     `$'a\x0ab'`,
		"\x1b]0;title\x07":         `$'\x1b]0;title\x07'`,
		"{grant.namespace} {{x}}":  "'{grant.namespace} {{x}}'",
		"\u202eright-to-left":      `$'\xe2\x80\xaeright-to-left'`,
		strings.Repeat("long", 99): strings.Repeat("long", 49) + "lon…",
	} {
		all.Grants[0].Name = name
		found := check(t, set, all)
		if len(found) != 1 {
			t.Fatal(found)
		}
		if len(name) < 200 && found[0].Message != "grant "+name {
			t.Errorf("message %q", found[0].Message)
		}
		want := "kubectl delete rolebinding " + command + " -n ok-1"
		if len(name) > 200 {
			want = "kubectl delete rolebinding '" + command + "' -n ok-1"
		}
		if found[0].Remedy != want {
			t.Errorf("remedy %q, want %q", found[0].Remedy, want)
		}
	}
}

func TestConcurrentEvaluations(t *testing.T) {
	system, all := estate(300)
	f := newFake(all, system)
	e := evaluator(pack(t), f, newFindings(), caseNow)
	done := make(chan error, 4)
	for range cap(done) {
		go func() {
			_, err := e.Evaluate(context.Background(), system.ID)
			done <- err
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
