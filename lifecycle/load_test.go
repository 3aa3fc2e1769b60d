package lifecycle

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"remit"
)

// decode reads a document as `remit.yaml` is read.
func decodeConfig(path string, text []byte) (*Config, error) {
	var document struct {
		Lifecycle Config `yaml:"lifecycle"`
	}
	if err := decode(path, text, &document); err != nil {
		return nil, err
	}
	return &document.Lifecycle, document.Lifecycle.Complete(path, text, "$.lifecycle")
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("more.yaml", "policies:\n  - {name: third, max_idle: 36h}\n")
	write("all/b.yml", "policies: [{name: fifth, exempt: true}]\n")
	write("all/a.yaml", "policies: [{name: fourth, expiry_required: true, notices: []}]\n")
	write("all/notes.txt", "not a policy\n")
	c, err := decodeConfig(filepath.Join(dir, "remit.yaml"), []byte(`
lifecycle:
  files: [more.yaml, all]
  policies:
    - name: first
      select: {types: [static-token], systems: ["prod-*"], labels: {team: build}, except: [{namespaces: [kube-system]}]}
      rotate_every: 60d
      max_age: 90d
      grace: 0s
      notices: [7d, 30d]
    - {name: second, max_lifetime: 24h}
  offboarding: {grace: 14d, causes: [person-left]}
`))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range c.Policies {
		names = append(names, p.Name)
	}
	if !slices.Equal(names, []string{"first", "second", "third", "fourth", "fifth"}) {
		t.Errorf("%q", names)
	}
	first := c.Policies[0]
	if first.grace() != 0 || c.Policies[1].grace() != 14*day || !slices.Equal(first.notices(100*day), []time.Duration{30 * day, 7 * day}) ||
		len(c.Policies[3].notices(100*day)) != 0 || !slices.Equal(c.Policies[1].notices(day*10), []time.Duration{day}) {
		t.Errorf("%+v", c.Policies)
	}
	if c.Offboarding.grace() != 14*day || c.Offboarding.has(OwnerLeft) || !c.Offboarding.has(PersonLeft) {
		t.Errorf("%+v", c.Offboarding)
	}
}

func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "bad.yaml"), []byte("policies:\n  - name: x\n    max_age: 1d\n    gracé: 3d\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "taken.yaml"), []byte("policies:\n  - {name: x, max_age: 1d}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ text, want string }{
		{"- name: x\n      max_age: 90 days", `[5:16] lifecycle.policies[0].max_age: "90 days" is no length of time`},
		{"- name: x\n      max_age: -3h", `lifecycle.policies[0].max_age: "-3h" is no length`},
		{"- name: x\n      max_age: 40000d", "100 years"},
		{"- name: x\n      max_age: [1d]", "lifecycle.policies[0].max_age: a length of time stands here"},
		{"- name: x\n      maxage: 90d", `[5:7] unknown field "maxage"`},
		{"- max_age: 90d", "remit.yaml:4: lifecycle.policies[0]: a policy needs a name"},
		{"- {name: x, max_age: 1d}\n    - name: y\n      max_age: 1d\n    - max_age: 1d\n      name: x", "remit.yaml:8: lifecycle.policies[2].name: a policy of the name \"x\""},
		{"- name: x", "remit.yaml:4: lifecycle.policies[0]: it demands nothing"},
		{"- name: x\n      exempt: true\n      max_age: 1d", "remit.yaml:5: lifecycle.policies[0].exempt: a policy that exempts demands nothing"},
		{"- name: x\n      max_age: 1d\n      rotate_every: 2d", "remit.yaml:6: lifecycle.policies[0].rotate_every: 2d is longer than max_age, 1d"},
		{"- name: x\n      max_age: 1d\n      notices:\n        - 1h\n        - 0s", "remit.yaml:8: lifecycle.policies[0].notices[1]: 0 is no time before"},
		{"- name: x\n      max_age: 1d\n      select:\n        types: [statictoken]", `remit.yaml:7: lifecycle.policies[0].select.types[0]: there is no "statictoken": use api-key, `},
		{"- name: x\n      max_age: 1d\n      select: {except: [{identity_types: [robot]}]}", `lifecycle.policies[0].select.except[0].identity_types[0]: there is no "robot"`},
		{"- {name: x, max_age: 1d}\n  offboarding:\n    causes: [gone]", `remit.yaml:6: lifecycle.offboarding.causes[0]: there is no cause "gone": use person-left, `},
		{"- {name: x, max_age: 1d}\n  files: [missing.yaml]", "missing.yaml"},
		{"- {name: y, max_age: 1d}\n  files: [bad.yaml]", `bad.yaml: [4:5] unknown field "gracé"`},
		{"- {name: x, max_age: 1d}\n  files: [taken.yaml]", `taken.yaml:2: policies[0].name: a policy of the name "x" is in`},
	} {
		text := "# a comment\nlifecycle:\n  policies:\n    " + test.text + "\n"
		_, err := decodeConfig(filepath.Join(dir, "remit.yaml"), []byte(text))
		if remit.KindOf(err) != remit.Invalid || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s\n%v\nwant %s", text, err, test.want)
		}
	}
}

// FuzzRead holds that no document stops Remit, and that what is read can be judged
// by.
func FuzzRead(f *testing.F) {
	f.Add("lifecycle: {policies: [{name: x, max_age: 90d, select: {labels: {a: b*}}}], offboarding: {grace: 1d}}")
	f.Add("lifecycle:\n  policies:\n    - name: x\n      notices: [1d, 0s]\n      rotate_every: 9999999h")
	f.Add("lifecycle: {offboarding: {causes: [person-left], except: [\"*\"]}}")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "files") {
			t.Skip() // it would read them
		}
		c, err := decodeConfig("remit.yaml", []byte(text))
		if err != nil {
			return
		}
		c.Standing(Case{Credential: token(100), Use: Use{Last: ago(3), Until: noon}}, noon)
	})
}
