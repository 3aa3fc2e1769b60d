package storetest

import (
	"fmt"
	"strings"
	"testing"

	"remit"
)

// hostile are names as a hostile or careless system may give them. What is not
// UTF-8 may come back with U+FFFD in the place of each bad byte; all else comes
// back as it was.
var hostile = []string{
	"", " ", "\x00", "a\x00b", "a\x01b", "\x01\x01", "\x01\x02", "\x01\x03", "\x00\x01\x02\x03",
	"'; DROP TABLE identity; --", `"quoted" \ 'names'`, "100%_?", "$1", "?", "{}", "a:b|c&d!(e)<->*",
	"\xff\xfe", "a\xc3(b", "\xed\xa0\x80", "�", "\u2028line", "\u202egnp.exe", "<script>alert(1)</script>",
	"Ünïcödé", "ÜNÏCÖDÉ", "straße", "İstanbul", "東京", "مرحبا", "👩‍👩‍👧", "e\u0301", "é",
	"NULL", "null", "[1,2]", `{"a":1}`, "\n\r\t", "-", "--", "a-b", "a_b", "A-B",
}

// clean is what may become of a name that is not UTF-8.
func clean(s string) string { return string([]rune(s)) }

func testHostileNames(t *testing.T, s Store) {
	sys := system(t, s, "one")
	run := start(t, s, sys)
	for i, name := range hostile {
		id := identity(sys, name, name)
		id.Labels = map[string]string{name: name}
		id.Environment, id.Purpose = name, name
		id.Owners = []remit.Owner{{Name: name}, {Name: name}}
		cred := credential(sys, name, name, id.ID)
		cred.Native, cred.Fingerprint, cred.Provider = name, name, name
		page := remit.Records{Identities: []remit.Identity{id}, Credentials: []remit.Credential{cred}}
		section := name
		run.Begin(section)
		got := apply(t, run, section, noon, page)
		if got.Added != 2 {
			t.Fatalf("%q (%d): %+v", name, i, got)
		}
		if got := apply(t, run, section, noon, page); got.Unchanged != 2 {
			t.Errorf("%q seen again is %+v", name, got)
		}
		if got := complete(t, run, section, noon); got.Removed != 0 {
			t.Errorf("%q was applied and is removed", name)
		}
	}
	counts, err := s.Counts(t.Context(), remit.KindIdentity, "")
	must(t, err)
	perNamespace := make(map[string]int64)
	for _, c := range counts {
		if c.Facet == "namespace" {
			perNamespace[c.Value] = c.Count
		}
	}
	for _, name := range hostile {
		id := identity(sys, name, name)
		got := all(t, s.Identities, remit.Filter{IDs: []remit.ID{id.ID}}, remit.PageRequest{})
		if len(got) != 1 || got[0].Name != clean(name) || got[0].Namespace != clean(name) || got[0].Purpose != clean(name) {
			t.Errorf("%q came back as %+v", name, got)
			continue
		}
		twins := int64(0)
		for _, other := range hostile {
			if clean(other) == clean(name) {
				twins++
			}
		}
		if perNamespace[clean(name)] != twins {
			t.Errorf("%q is counted %d times, want %d", name, perNamespace[clean(name)], twins)
		}
		for what, f := range map[string]remit.Filter{
			"name":        {Names: []string{name}},
			"namespace":   {Namespaces: []string{name}},
			"environment": {Environments: []string{name}},
			"owner":       {Owner: name},
		} {
			if what == "owner" && name == "" {
				continue
			}
			if got := all(t, s.Identities, f, remit.PageRequest{}); int64(len(got)) != twins {
				t.Errorf("by %s %q: %d, want %d", what, name, len(got), twins)
			}
		}
		for what, f := range map[string]remit.Filter{
			"native":      {Natives: []string{name}},
			"fingerprint": {Fingerprints: []string{name}},
			"provider":    {Providers: []string{name}},
		} {
			if name == "" && what != "provider" {
				continue // nobody asks for what has none
			}
			if got := all(t, s.Credentials, f, remit.PageRequest{}); int64(len(got)) != twins {
				t.Errorf("by %s %q: %d, want %d", what, name, len(got), twins)
			}
		}
	}
	for _, sort := range []string{"name", "kind", "created", "id"} {
		if got := all(t, s.Identities, remit.Filter{}, remit.PageRequest{Limit: 7, Sort: sort}); len(got) != len(hostile) {
			t.Errorf("a walk by %s finds %d of %d", sort, len(got), len(hostile))
		}
	}
	for _, word := range hostile {
		if _, _, err := s.Identities(t.Context(), remit.Filter{Search: word}, remit.PageRequest{}); err != nil {
			t.Errorf("search %q: %v", word, err)
		}
	}
}

// testLongNames: an index of PostgreSQL refuses an entry of 2.7 kB, which broke
// whole listings.
func testLongNames(t *testing.T, s Store) {
	sys := system(t, s, "one")
	run := start(t, s, sys)
	var list []remit.Identity
	for i, unit := range []string{"a", "é", "a\x00", "word ", "w-"} {
		for _, end := range []string{"1", "2"} {
			name := fmt.Sprintf("%d%s%s", i, strings.Repeat(unit, 20_000), end)
			list = append(list, identity(sys, name, name))
		}
	}
	for range 2 {
		apply(t, run, "s", noon, identities(list...))
	}
	for _, want := range list {
		for what, f := range map[string]remit.Filter{"name": {Names: []string{want.Name}}, "namespace": {Namespaces: []string{want.Namespace}}} {
			got := all(t, s.Identities, f, remit.PageRequest{})
			if len(got) != 1 || got[0].Name != want.Name {
				t.Errorf("by %s %.20q…: %d records", what, want.Name, len(got))
			}
		}
	}
	if got := all(t, s.Identities, remit.Filter{}, remit.PageRequest{Limit: 1}); len(got) != len(list) {
		t.Errorf("a walk finds %d of %d", len(got), len(list))
	}
	if got := all(t, s.Identities, remit.Filter{Search: strings.Repeat("a", 15_000)}, remit.PageRequest{}); len(got) != 0 {
		t.Errorf("a long word that begins none finds %d", len(got))
	}
	if got := all(t, s.Identities, remit.Filter{Search: "0" + strings.Repeat("a", 15_000)}, remit.PageRequest{}); len(got) != 2 {
		t.Errorf("the beginning of a long word finds %d, want 2", len(got))
	}
	counts, err := s.Counts(t.Context(), remit.KindIdentity, sys)
	if got := counted(t, counts, err)["namespace="+list[0].Namespace]; got != 1 {
		t.Errorf("the whole value of a long facet is counted %d times", got)
	}
}

func testSearch(t *testing.T, s Store) {
	sys := system(t, s, "one")
	run := start(t, s, sys)
	all6 := []string{"payments-api", "Payments.Worker_2", "api-gateway", "ÜBER-Straße", "東京-bot", "x509:7"}
	var list []remit.Identity
	for _, n := range all6 {
		list = append(list, identity(sys, "ns", n))
	}
	apply(t, run, "s", noon, identities(list...))
	for search, want := range map[string][]string{
		"payments":          {"payments-api", "Payments.Worker_2"},
		"PAY":               {"payments-api", "Payments.Worker_2"},
		"pay api":           {"payments-api"},
		"api pay":           {"payments-api"},
		"api":               {"payments-api", "api-gateway"},
		"api-g":             {"api-gateway"},
		"ments":             {},
		"worker2":           {},
		"worker_2":          {"Payments.Worker_2"},
		"über":              {"ÜBER-Straße"},
		"uber":              {},
		"ÜB stra":           {"ÜBER-Straße"},
		"東":                 {"東京-bot"},
		"京":                 {},
		"bot":               {"東京-bot"},
		"x509":              {"x509:7"},
		"7":                 {"x509:7"},
		"-":                 all6, // no word asks for nothing
		"pay pay pay":       {"payments-api", "Payments.Worker_2"},
		"payments or api":   {},
		"NOT":               {},
		`"payments"`:        {"payments-api", "Payments.Worker_2"},
		"payments* & !api":  {"payments-api"},
		"name:payments":     {},
		"payments-api-more": {},
	} {
		got := make(map[string]bool)
		for _, n := range names(all(t, s.Identities, remit.Filter{Search: search}, remit.PageRequest{})) {
			got[n] = true
		}
		if len(got) != len(want) {
			t.Errorf("search %q finds %v, want %v", search, got, want)
			continue
		}
		for _, n := range want {
			if !got[n] {
				t.Errorf("search %q misses %q", search, n)
			}
		}
	}
	// What is removed is not found, and what comes back is.
	apply(t, run, "s", noon, remit.Records{}, list[0].ID)
	if got := all(t, s.Identities, remit.Filter{Search: "payments"}, remit.PageRequest{}); len(got) != 1 {
		t.Errorf("after a removal: %v", names(got))
	}
	apply(t, run, "s", noon, identities(list[0]))
	if got := all(t, s.Identities, remit.Filter{Search: "payments"}, remit.PageRequest{}); len(got) != 2 {
		t.Errorf("after its return: %v", names(got))
	}
}
