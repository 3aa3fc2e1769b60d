package kubernetes

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"remit"
	"remit/connector"
)

// read reads files and returns their records and gaps.
func read(t testing.TB, fsys fstest.MapFS, cfg Config) (remit.Records, []remit.Gap, *Connector) {
	t.Helper()
	c, err := OpenFS(fsys, "test", cfg)
	if err != nil {
		t.Fatal(err)
	}
	records, gaps := all(t, c)
	return records, gaps, c
}

func all(t testing.TB, c *Connector) (records remit.Records, gaps []remit.Gap) {
	t.Helper()
	err := c.Inventory(t.Context(), func(_ context.Context, page connector.Page) error {
		records.Append(page.Records)
		if page.Gap != nil {
			gaps = append(gaps, *page.Gap)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return records, gaps
}

func manifests(text string) fstest.MapFS {
	return fstest.MapFS{"a.yaml": {Data: []byte(text)}}
}

func identity(records remit.Records, kind, namespace, name string) *remit.Identity {
	for i := range records.Identities {
		if records.Identities[i].Ref == (remit.Ref{Kind: kind, Namespace: namespace, Name: name}) {
			return &records.Identities[i]
		}
	}
	return nil
}

// The ways in which one account is written down all give that account.
func TestFileFormats(t *testing.T) {
	const account = `apiVersion: v1
kind: ServiceAccount
metadata: {name: a, namespace: team}
`
	const asJSON = `{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"a","namespace":"team"}}`
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	fmt.Fprint(z, account)
	z.Close()
	for name, file := range map[string]struct{ path, data string }{
		"one document":           {"a.yaml", account},
		"several documents":      {"a.yml", "---\n# nothing\n---\n" + account + "---\n" + account},
		"windows line ends":      {"a.yaml", strings.ReplaceAll("---\n"+account+"---\n", "\n", "\r\n")},
		"byte order mark":        {"a.yaml", "\uFEFF" + account},
		"document on the marker": {"a.yaml", "--- {apiVersion: v1, kind: ServiceAccount, metadata: {name: a, namespace: team}}\n"},
		"end of stream":          {"a.yaml", account + "...\n"},
		"a List as kubectl writes": {"a.yaml", `apiVersion: v1
items:
- apiVersion: v1
  kind: ServiceAccount
  metadata:
    annotations:
      text: |
        - not an item
        items:
    name: a
    namespace: team
kind: List
metadata:
  resourceVersion: ""
`},
		"a List with indented items": {"a.yaml", "kind: List\napiVersion: v1\nitems:\n  - apiVersion: v1\n    kind: ServiceAccount\n    metadata: {name: a, namespace: team}\n  # end\n"},
		"a List in flow style":       {"a.yaml", "{kind: List, apiVersion: v1, items: [{apiVersion: v1, kind: ServiceAccount, metadata: {name: a, namespace: team}}]}\n"},
		"a List in a List":           {"a.yaml", "kind: List\napiVersion: v1\nitems:\n- kind: List\n  apiVersion: v1\n  items:\n  - apiVersion: v1\n    kind: ServiceAccount\n    metadata: {name: a, namespace: team}\n"},
		"a typed list":               {"a.yaml", "apiVersion: v1\nkind: ServiceAccountList\nitems:\n- metadata: {name: a, namespace: team}\n"},
		"JSON":                       {"a.json", asJSON},
		"JSON, several":              {"a.json", asJSON + "\n" + asJSON},
		"JSON, a List":               {"a.json", `{"apiVersion":"v1","kind":"List","items":[` + asJSON + `,` + asJSON + `],"metadata":{}}`},
		"JSON, kind after items":     {"a.json", `{"items":[` + asJSON + `],"kind":"List","apiVersion":"v1"}`},
		"JSON, a typed list":         {"a.json", `{"kind":"ServiceAccountList","apiVersion":"v1","items":[{"metadata":{"name":"a","namespace":"team"}}]}`},
		"JSON, a sequence":           {"a.json", "\n  [" + asJSON + "]"},
		"JSON in a .yaml":            {"a.yaml", asJSON},
		"gzip":                       {"dir/a.yaml.gz", zipped.String()},
	} {
		t.Run(name, func(t *testing.T) {
			records, gaps, _ := read(t, fstest.MapFS{file.path: {Data: []byte(file.data)}}, Config{})
			if len(gaps) > 0 {
				t.Errorf("gaps: %+v", gaps)
			}
			if identity(records, "ServiceAccount", "team", "a") == nil {
				t.Errorf("the account is not there: %+v", records.Identities)
			}
		})
	}
}

// What cannot be read is said, with file and line, and the rest is read.
func TestBadDocuments(t *testing.T) {
	const good = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: %s, namespace: team}\n"
	fsys := fstest.MapFS{
		"chart/a.yaml": {Data: []byte(fmt.Sprintf(good, "first") + "---\nkind: Secret\nmetadata: {{ .Values.name }}\ndata: {password: aHVudGVyMg==}\n---\n" + fmt.Sprintf(good, "second"))},
		"b.yaml":       {Data: []byte("# heading\n\nkind: Deployment\napiVersion: apps/v1\nmetadata: {name: d, namespace: team}\nspec: {replicas: many}\n")},
		"c.json":       {Data: []byte("{\n\"kind\": \"List\",\n\"items\": [\n{\"apiVersion\":\"v1\",\"kind\":\"ServiceAccount\",\"metadata\":{\"name\":\"third\",\"namespace\":\"team\"}},\n{\"kind\":\n]}\n")},
		"d.yaml":       {Data: []byte("just words\n")},
		"e.yaml":       {Data: []byte("a: b\n")},
		"f.yaml":       {Data: []byte("apiVersion: v1\nkind: Service\nmetadata: {name: s}\n---\napiVersion: example.com/v1\nkind: Secret\nmetadata: {name: s}\n")},
		"g.yaml":       {Data: []byte("apiVersion: v1\nkind: Secret\nmetadata: {}\n")},
		"h.yaml.gz":    {Data: []byte{0x1f, 0x8b, 0, 0}},
		"i.yaml":       {Data: []byte("a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n")},
		"j.yaml":       {Data: []byte("apiVersion: v1\nkind: Pod\nmetadata: null\nspec: null\n")},
		"k.yaml":       {Data: []byte(strings.Repeat("[", 100_000))},
	}
	var pages []connector.Page
	c, err := OpenFS(fsys, "dir", Config{})
	if err != nil {
		t.Fatal(err)
	}
	var records remit.Records
	var gaps []string
	err = c.Inventory(t.Context(), func(_ context.Context, page connector.Page) error {
		pages = append(pages, page)
		records.Append(page.Records)
		if page.Gap != nil {
			gaps = append(gaps, page.Gap.Reason)
		}
		if page.Complete {
			t.Errorf("%s is complete, though some documents could not be read", page.Section)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"first", "second", "third"} {
		if identity(records, "ServiceAccount", "team", name) == nil {
			t.Errorf("the account %s is not there", name)
		}
	}
	told := strings.Join(gaps, "\n")
	for _, want := range []string{"dir/chart/a.yaml:5:", "dir/b.yaml:3:", "dir/c.json:5:", "dir/d.yaml:1:", "dir/e.yaml:1:", "dir/g.yaml:1:", "dir/h.yaml.gz:0:", "dir/i.yaml:1:", "dir/j.yaml:1:"} {
		if !strings.Contains(told, want) {
			t.Errorf("%s is not told in:\n%s", want, told)
		}
	}
	if strings.Contains(told, "aHVudGVyMg") {
		t.Errorf("a message quotes a Secret:\n%s", told)
	}
	if got := c.Ignored(); got["Service"] != 1 || got["Secret"] != 1 {
		t.Errorf("ignored kinds: %v", got)
	}
}

// Nothing is bound to be cluster-wide because a file leaves a namespace out.
func TestNamespaceOfFiles(t *testing.T) {
	const text = `apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: b}
roleRef: {kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: a}]
`
	records, _, _ := read(t, manifests(text), Config{FileNamespace: "team"})
	if len(records.Grants) != 1 {
		t.Fatalf("%d grants", len(records.Grants))
	}
	g := records.Grants[0]
	if g.Scope != "team" || g.Namespace != "team" || g.Subject.Namespace != "team" || g.Attributes["namespace-assumed"] != "true" {
		t.Errorf("grant %+v", g)
	}
	for _, r := range records.Relations {
		if r.Type == remit.CanActAs && r.Scope != "team" {
			t.Errorf("%s can act as %s in %q", r.FromRef, r.ToRef, r.Scope)
		}
	}
}

// Aggregation is resolved, over several steps and in circles.
func TestAggregation(t *testing.T) {
	const text = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: a, labels: {to: b}}
aggregationRule: {clusterRoleSelectors: [{matchLabels: {to: a}}]}
rules: []
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: b, labels: {to: a}}
aggregationRule: {clusterRoleSelectors: [{matchExpressions: [{key: to, operator: In, values: [b]}]}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: c, labels: {to: b}}
rules: [{apiGroups: [""], resources: [secrets], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: x}
roleRef: {kind: ClusterRole, name: a}
subjects: [{kind: User, name: u}]
`
	records, gaps, _ := read(t, manifests(text), Config{})
	if len(gaps) > 0 {
		t.Errorf("gaps %+v", gaps)
	}
	for _, r := range records.Roles {
		if len(r.Permissions) != 1 || r.Permissions[0].Resources[0] != "secrets" {
			t.Errorf("role %s has %+v", r.Name, r.Permissions)
		}
	}
	found := false
	for _, r := range records.Relations {
		found = found || r.FromRef.Name == "u" && r.Right == remit.ReadSecrets
	}
	if !found {
		t.Error("the aggregated right is not seen")
	}
}

func TestOpenFilesErrors(t *testing.T) {
	empty := t.TempDir()
	for name, test := range map[string]struct {
		paths []string
		kind  remit.ErrorKind
	}{
		"missing": {[]string{filepath.Join(empty, "nothing")}, remit.NotFound},
		"empty":   {[]string{empty}, remit.Invalid},
		"no path": {nil, remit.Invalid},
	} {
		if _, err := OpenFiles(test.paths, Config{}); remit.KindOf(err) != test.kind {
			t.Errorf("%s: %v, want %s", name, err, test.kind)
		}
	}
	if _, err := OpenFS(manifests(""), "x", Config{Secrets: "some"}); remit.KindOf(err) != remit.Invalid {
		t.Errorf("a wrong mode: %v", err)
	}
	c, err := OpenFS(manifests(""), "x", Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Watch(t.Context(), nil); remit.KindOf(err) != remit.Unsupported {
		t.Errorf("watching files: %v", err)
	}
}

// A dump made with kubectl gives what the cluster itself gives.
func TestOfflineIsOnline(t *testing.T) {
	c, p := plantedCluster(t)
	dir := t.TempDir()
	names := make([]string, 0, len(listings))
	for _, l := range listings {
		name := l.resource
		if l.group != "" {
			name += "." + l.group
		}
		names = append(names, name)
	}
	for _, format := range []string{"yaml", "json"} {
		t.Run(format, func(t *testing.T) {
			var live, offline map[string]int
			// The cluster may change between the two: then once more.
			for range 10 {
				live = shapes(t, openFor(t, c.Admin, Config{}))
				path := filepath.Join(dir, "dump."+format)
				out, err := exec.Command(c.Binaries.Kubectl, "--kubeconfig", c.Kubeconfig, "get", strings.Join(names, ","), "--all-namespaces", "--show-managed-fields", "-o", format).Output()
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, out, 0o600); err != nil {
					t.Fatal(err)
				}
				k, err := OpenFiles([]string{path}, Config{Name: "rights"})
				if err != nil {
					t.Fatal(err)
				}
				offline = shapes(t, k)
				if fmt.Sprint(live) == fmt.Sprint(offline) {
					break
				}
			}
			shown := 0
			for record, n := range live {
				if offline[record] != n && shown < 10 {
					shown++
					t.Errorf("only in the cluster: %s", record)
				}
			}
			for record, n := range offline {
				if live[record] != n && shown < 20 {
					shown++
					t.Errorf("only in the files: %s", record)
				}
				for _, canary := range p.Canaries() {
					if strings.Contains(record, canary) {
						t.Errorf("a secret left the connector: %s", record)
					}
				}
			}
			if len(live) < 300 {
				t.Errorf("%d records: too few to mean anything", len(live))
			}
		})
	}
}

func shapes(t *testing.T, c *Connector) map[string]int {
	t.Helper()
	records, gaps := all(t, c)
	if len(gaps) > 0 {
		t.Errorf("gaps: %+v", gaps)
	}
	out := map[string]int{}
	put := func(record any) {
		b, err := json.Marshal(record)
		if err != nil {
			t.Fatal(err)
		}
		out[string(b)]++
	}
	for _, r := range records.Identities {
		put(r)
	}
	for _, r := range records.Credentials {
		put(r)
	}
	for _, r := range records.Roles {
		put(r)
	}
	for _, r := range records.Grants {
		put(r)
	}
	for _, r := range records.Relations {
		put(r)
	}
	for _, r := range records.Resources {
		put(r)
	}
	return out
}
