package lifecycle

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"remit"
)

var noon = time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC)

func days(n int) Span { return Span(time.Duration(n) * day) }

func ago(n int) time.Time { return noon.AddDate(0, 0, -n) }

func spanAt(s Span) *Span { return &s }

// token is a legacy token of that age.
func token(age int) remit.Credential {
	ref := remit.Ref{Kind: "Secret", Namespace: "ci", Name: "runner"}
	sys := remit.SystemID("kubernetes", "1")
	return remit.Credential{
		Record: remit.Record{ID: remit.CredentialID(sys, ref, "token"), System: sys, Ref: ref, Created: ago(age), Labels: map[string]string{"team": "build"}},
		Type:   remit.StaticToken, Status: remit.Active, Key: "token", NeverExpires: true, Provider: "kubernetes",
		Holder: remit.Ref{Kind: "ServiceAccount", Namespace: "ci", Name: "runner"},
	}
}

func one(p Policy) *Config {
	p.Name = "p"
	return &Config{Policies: []Policy{p}}
}

func TestStanding(t *testing.T) {
	used := func(last, until int) Use { return Use{Last: ago(last), Until: ago(until)} }
	ends := func(c remit.Credential, in int) remit.Credential {
		c.NeverExpires, c.Expires = false, ago(-in)
		return c
	}
	for _, test := range []struct {
		name   string
		policy Policy
		c      remit.Credential
		use    Use
		told   map[string]Told
		state  remit.LifecycleState
		next   string // step and day
	}{
		{"young", Policy{RotateEvery: days(90)}, token(10), Use{}, nil, "fine", "notice 2026-05-08"},
		{"first notice", Policy{RotateEvery: days(90)}, token(80), Use{}, nil, "due-soon", "notice 2026-03-06"},
		{"last notice", Policy{RotateEvery: days(90)}, token(89), Use{}, nil, "due-soon", "rotate 2026-03-04"},
		{"due", Policy{RotateEvery: days(90)}, token(91), Use{}, nil, "due", "rotate 2026-03-02"},
		{"overdue", Policy{RotateEvery: days(90)}, token(200), Use{}, nil, "overdue", "rotate 2025-11-13"},
		{"its age is not known", Policy{RotateEvery: days(90)}, func() remit.Credential { c := token(0); c.Created = time.Time{}; return c }(), Use{}, nil, "unknown", " "},
		{"rotated since", Policy{RotateEvery: days(90)}, func() remit.Credential { c := token(200); c.Rotated = ago(1); return c }(), Use{}, nil, "fine", "notice 2026-05-17"},
		{"a source of tokens does not age with its object", Policy{MaxAge: days(1)}, func() remit.Credential { c := token(200); c.Type = remit.ShortLivedToken; return c }(), Use{}, nil, "unknown", " "},

		{"too old, and told only now", Policy{MaxAge: days(90)}, token(400), Use{}, nil, "in-grace", "revoke 2026-03-17"},
		{"too old, told long ago", Policy{MaxAge: days(90)}, token(400), Use{}, map[string]Told{PolicyMaxAge: {Since: ago(15)}}, "overdue", "revoke 2026-03-02"},
		{"the grace does not begin before the limit", Policy{MaxAge: days(90)}, token(91), Use{}, map[string]Told{PolicyMaxAge: {Since: ago(50)}}, "in-grace", "revoke 2026-03-16"},
		{"suppressed beyond the grace", Policy{MaxAge: days(90)}, token(400), Use{}, map[string]Told{PolicyMaxAge: {Since: ago(50), Held: ago(-5)}}, "in-grace", "revoke 2026-03-08"},
		{"without a grace", Policy{MaxAge: days(90), Grace: spanAt(0)}, token(400), Use{}, nil, "overdue", "revoke 2026-03-03"},
		{"what is told of another limit does not count", Policy{MaxAge: days(90)}, token(400), Use{}, map[string]Told{PolicyIdle: {Since: ago(50)}}, "in-grace", "revoke 2026-03-17"},

		{"in use", Policy{MaxIdle: days(30)}, token(400), used(1, 0), nil, "fine", "notice 2026-03-18"},
		{"idle", Policy{MaxIdle: days(30)}, token(400), used(40, 0), nil, "in-grace", "revoke 2026-03-17"},
		{"rotated since its last use", Policy{MaxIdle: days(30)}, func() remit.Credential { c := token(400); c.Rotated = ago(2); return c }(), used(40, 0), nil, "fine", "notice 2026-03-17"},
		{"its use is not known", Policy{MaxIdle: days(30)}, token(400), Use{}, nil, "unknown", " "},
		{"its use is known only until before", Policy{MaxIdle: days(30)}, token(400), used(40, 20), nil, "unknown", " "},
		{"its use was never known", Policy{MaxIdle: days(30)}, token(400), Use{Last: ago(40)}, nil, "unknown", " "},

		{"without an end", Policy{ExpiryRequired: true}, token(1), Use{}, nil, "in-grace", "revoke 2026-03-17"},
		{"with an end", Policy{ExpiryRequired: true}, ends(token(1), 10), Use{}, nil, "fine", "notice 2026-03-12"},
		{"with an end soon", Policy{ExpiryRequired: true}, ends(token(100), 10), Use{}, nil, "due-soon", "notice 2026-03-06"},
		{"whether it ends is not known", Policy{ExpiryRequired: true}, func() remit.Credential { c := token(1); c.NeverExpires = false; return c }(), Use{}, nil, "unknown", " "},
		{"lives too long", Policy{MaxLifetime: days(30)}, func() remit.Credential { c := ends(token(1), 60); c.Issued = ago(1); return c }(), Use{}, nil, "in-grace", "revoke 2026-03-17"},
		{"lives as long as it may", Policy{MaxLifetime: days(61)}, func() remit.Credential { c := ends(token(1), 60); c.Issued = ago(1); return c }(), Use{}, nil, "fine", "notice 2026-04-18"},
		{"is granted more than it may", Policy{MaxLifetime: days(1)}, func() remit.Credential {
			c := token(1)
			c.NeverExpires, c.Type, c.GrantedLifetime = false, remit.ShortLivedToken, 365*86400
			return c
		}(), Use{}, nil, "in-grace", "revoke 2026-03-17"},

		{"has ended", Policy{MaxAge: days(1)}, ends(token(400), 0), Use{}, nil, "ended", " "},
		{"was revoked", Policy{MaxAge: days(1)}, func() remit.Credential { c := token(400); c.Status = remit.Revoked; return c }(), Use{}, nil, "ended", " "},
		{"exempt", Policy{Exempt: true}, ends(token(400), 3), Use{}, nil, "no-policy", "expire 2026-03-06"},
		{"chosen by nothing", Policy{MaxAge: days(1), Select: Selector{Types: []string{"api-key"}}}, token(400), Use{}, nil, "no-policy", " "},

		{"revoking comes before rotating", Policy{RotateEvery: days(30), MaxAge: days(90)}, token(400), Use{}, map[string]Told{PolicyMaxAge: {Since: ago(15)}}, "overdue", "revoke 2026-03-02"},
		{"what is due before what will be", Policy{RotateEvery: days(30), MaxAge: days(90)}, token(31), Use{}, nil, "due", "rotate 2026-03-02"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := one(test.policy).Standing(Case{Credential: test.c, System: "prod", Use: test.use, Told: test.told}, noon)
			next := s.Next.Step + " "
			if s.Next.Step != "" {
				next += dayOf(s.Next.At)
			}
			if s.State != test.state || next != test.next {
				t.Errorf("%s, next %s; want %s, next %s\n%+v", s.State, next, test.state, test.next, s.Demands)
			}
			for _, f := range findings(&Case{Credential: test.c, Told: test.told}, &s) {
				t.Logf("%s %s: %s", f.Severity, f.Policy, f.Message)
				if !strings.HasPrefix(f.Message, "Secret ci/runner key token ") {
					t.Errorf("the message names no subject: %s", f.Message)
				}
			}
		})
	}
}

// TestFirstPolicyHolds holds that the order of policies decides, and not which is
// the strictest.
func TestFirstPolicyHolds(t *testing.T) {
	c := Config{Policies: []Policy{
		{Name: "ci", Select: Selector{Namespaces: []string{"c*"}, Except: []Selector{{Names: []string{"other"}}}}, MaxAge: days(900)},
		{Name: "all", MaxAge: days(1)},
	}}
	k := Case{Credential: token(400), System: "prod"}
	if s := c.Standing(k, noon); s.Policy != "ci" || s.State != remit.LifecycleFine {
		t.Errorf("%s: %s", s.Policy, s.State)
	}
	k.Credential.Name = "other"
	if s := c.Standing(k, noon); s.Policy != "all" || s.State != remit.LifecycleInGrace {
		t.Errorf("%s: %s", s.Policy, s.State)
	}
}

func TestSelector(t *testing.T) {
	holder := remit.Identity{
		Record: remit.Record{Ref: remit.Ref{Kind: "ServiceAccount", Namespace: "ci", Name: "runner"}, Environment: "production", Labels: map[string]string{"app": "runner"}},
		Type:   remit.ServiceAccount, Owners: []remit.Owner{{Name: "alice@example.com"}, {Name: "team-build"}},
	}
	c := token(1)
	x := subject{system: "prod-eu", credential: &c, identity: &holder, owners: holder.Owners}
	list := func(s ...string) []string { return s }
	for _, test := range []struct {
		s    Selector
		want bool
	}{
		{Selector{}, true},
		{Selector{Types: list("api-key", "static-token"), Kinds: list("Secret"), Providers: list("kubernetes")}, true},
		{Selector{Types: list("api-key")}, false},
		{Selector{Systems: list("prod-*"), Namespaces: list("ci"), Environments: list("production")}, true},
		{Selector{Systems: list("staging-*")}, false},
		{Selector{Environments: list("staging")}, false},
		{Selector{Owners: list("team-*")}, true},
		{Selector{Owners: list("mallory*")}, false},
		{Selector{IdentityTypes: list("service-account"), Identities: list("ServiceAccount ci/*")}, true},
		{Selector{Identities: list("ServiceAccount ops/*")}, false},
		{Selector{Labels: map[string]string{"team": "build", "app": "r*n*r"}}, true},
		{Selector{Labels: map[string]string{"team": "build", "stage": "*"}}, false},
		{Selector{Except: []Selector{{Namespaces: list("ci")}}}, false},
		{Selector{Except: []Selector{{Namespaces: list("ci"), Owners: list("bob")}}}, true},
	} {
		if got := test.s.selects(&x); got != test.want {
			t.Errorf("%+v: %t", test.s, got)
		}
	}
	x.identity, x.owners = nil, nil
	for _, s := range []Selector{{Owners: list("*")}, {IdentityTypes: list("service-account")}} {
		if s.selects(&x) {
			t.Errorf("%+v chooses what nobody is known to hold", s)
		}
	}
}

// anyPolicy and anyCase draw what may come.
func anyPolicy(t *rapid.T) Policy {
	span := func(name string) Span { return days(rapid.IntRange(0, 400).Draw(t, name)) }
	p := Policy{
		Name: "p", RotateEvery: span("rotate"), MaxAge: span("age"), MaxIdle: span("idle"), MaxLifetime: span("lifetime"),
		ExpiryRequired: rapid.Bool().Draw(t, "expiry"),
	}
	if rapid.Bool().Draw(t, "has grace") {
		p.Grace = spanAt(span("grace"))
	}
	return p
}

func anyCase(t *rapid.T) Case {
	when := func(name string) time.Time {
		if rapid.IntRange(0, 3).Draw(t, name+" unknown") == 0 {
			return time.Time{}
		}
		return noon.Add(time.Duration(rapid.Int64Range(-800*86400, 800*86400).Draw(t, name)) * time.Second)
	}
	c := token(0)
	c.Created, c.Issued, c.Rotated, c.Expires = when("created"), when("issued"), when("rotated"), when("expires")
	c.NeverExpires = c.Expires.IsZero() && rapid.Bool().Draw(t, "never")
	c.GrantedLifetime = rapid.Int64Range(0, 1e12).Draw(t, "granted")
	return Case{Credential: c, System: "prod", Use: Use{Last: when("last"), Until: when("until")}}
}

// TestNothingIsRevokedEarly lets time go on, with what is told kept as the store
// keeps it, and expects that nothing is to be revoked before its grace has passed
// since the limit was broken and since that was told, that what presses never
// presses less while nothing happens to the credential, and that the standing
// changes at the moments that it names and at no other.
func TestNothingIsRevokedEarly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, k := anyPolicy(t), anyCase(t)
		c := &Config{Policies: []Policy{p}}
		current := !k.Use.Until.IsZero() // the uses go on being known
		now := noon.Add(time.Duration(rapid.Int64Range(-900*86400, 0).Draw(t, "begin")) * time.Second)
		before := remit.LifecycleState("")
		var changes time.Time
		for range rapid.IntRange(1, 40).Draw(t, "looks") {
			if current {
				k.Use.Until = now
			}
			s := c.Standing(k, now)
			if before != "" && !changes.IsZero() && now.Before(changes) && s.State != before {
				t.Fatalf("it was %s until %s, and is %s at %s", before, changes, s.State, now)
			}
			if before != "" && before != remit.LifecycleUnknown && s.State.Rank() > before.Rank() && s.State != remit.LifecycleEnded {
				t.Fatalf("from %s to %s at %s", before, s.State, now)
			}
			if !s.Changes.IsZero() && !s.Changes.After(now) {
				t.Fatalf("at %s the next change is %s", now, s.Changes)
			}
			for _, d := range s.Demands {
				if d.Next.Step != stepRevoke {
					continue
				}
				policy := limits[d.Demand]
				told := k.Told[policy].Since
				if told.IsZero() {
					told = now
				}
				if d.Next.At.Before(told.Add(p.grace())) || d.Next.At.Before(d.Due.Add(p.grace())) {
					t.Fatalf("%s: told %s, due %s, to be revoked %s; the grace is %s", d.Demand, told, d.Due, d.Next.At, p.grace())
				}
				if d.Demand == demandIdle && (k.Use.Last.IsZero() || k.Use.Until.IsZero() || k.Use.Until.Sub(k.Use.Last) < time.Duration(p.MaxIdle)) {
					t.Fatalf("idle, with %+v", k.Use)
				}
			}
			// What findings tell is kept, and read back.
			told := map[string]Told{}
			for _, f := range findings(&k, &s) {
				told[f.Policy] = tell(&f, now)
				if f.Policy == PolicyRevoke && s.State != remit.LifecycleOverdue {
					t.Fatalf("to be revoked, and %s", s.State)
				}
			}
			k.Told = told
			before, changes = s.State, s.Changes
			// To the very moment of the change, just before it, or anywhere.
			step := time.Duration(rapid.Int64Range(1, 30*86400).Draw(t, "step")) * time.Second
			switch rapid.IntRange(0, 2).Draw(t, "to") {
			case 0:
				if changes.After(now) {
					step = changes.Sub(now)
				}
			case 1:
				if changes.After(now.Add(1)) {
					step = changes.Sub(now) - 1
				}
			}
			now = now.Add(step)
		}
	})
}

// TestSeverityRises holds that the notices, the due date and the end of the grace
// are told ever more gravely.
func TestSeverityRises(t *testing.T) {
	c := one(Policy{MaxAge: days(90)})
	k := Case{Credential: token(0), System: "prod"}
	var got []string
	for d := range 120 {
		now := noon.AddDate(0, 0, d)
		s := c.Standing(k, now)
		told := map[string]Told{}
		var words []string
		for _, f := range findings(&k, &s) {
			told[f.Policy] = tell(&f, now)
			words = append(words, f.Policy+" "+string(f.Severity))
		}
		k.Told = told
		if word := strings.Join(words, ", "); word != "" && !slices.Contains(got, word) {
			got = append(got, word)
		}
	}
	want := []string{
		"lifecycle-notice info", "lifecycle-notice low", "lifecycle-notice medium",
		"lifecycle-max-age medium", "lifecycle-max-age high, lifecycle-revoke high",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
