package kubernetes

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit"
)

// within fails the test when f takes absurdly long for what it does: the bound
// is a hundred times what it takes, so that it catches squares and not slow
// machines.
func within(t *testing.T, limit time.Duration, f func()) {
	t.Helper()
	begin := time.Now()
	f()
	if took := time.Since(begin); took > limit {
		t.Errorf("took %v", took)
	}
}

// A cluster made to hurt: large, circular, empty and absurd.
func TestHostile(t *testing.T) {
	var b strings.Builder
	// A role with 10,000 rules of names, bound to 2,000 subjects.
	b.WriteString(`{"kind":"Role","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"name":"many","namespace":"ns"},"rules":[`)
	for i := range 10_000 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"verbs":["create","get","bind","impersonate"],"apiGroups":["","rbac.authorization.k8s.io"],"resources":["serviceaccounts/token","secrets","roles","serviceaccounts"],"resourceNames":["n%d"]}`, i)
	}
	b.WriteString("]}\n")
	b.WriteString(`{"kind":"RoleBinding","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"name":"many","namespace":"ns"},"roleRef":{"kind":"Role","name":"many"},"subjects":[`)
	for i := range 2_000 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"kind":"User","name":"u%d"}`, i)
	}
	b.WriteString("]}\n")
	// A rule whose product is 25 million resources.
	words := strings.TrimSuffix(strings.Repeat(`"w",`, 5_000), ",")
	fmt.Fprintf(&b, `{"kind":"ClusterRole","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"name":"product"},"rules":[{"verbs":["get"],"apiGroups":[%s],"resources":[%s]}]}`+"\n", words, words)
	// 1,500 roles that aggregate all roles, which aggregate all roles.
	for i := range 1_500 {
		fmt.Fprintf(&b, `{"kind":"ClusterRole","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"name":"agg%d","labels":{"a":"b"}},"aggregationRule":{"clusterRoleSelectors":[{"matchExpressions":[{"key":"a","operator":"Exists"}]}]}}`+"\n", i)
		fmt.Fprintf(&b, `{"kind":"ClusterRole","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"name":"leaf%d","labels":{"a":"b"}},"rules":[{"verbs":["get"],"apiGroups":[""],"resources":["r%d"]}]}`+"\n", i, i)
	}
	// A megabyte of annotation, and a thousand labels.
	fmt.Fprintf(&b, `{"kind":"ServiceAccount","apiVersion":"v1","metadata":{"name":"big","namespace":"ns","annotations":{"owner":%q,"description":%q},"labels":{`, strings.Repeat("a@b.c, ", 150_000), strings.Repeat("é", 500_000))
	for i := range 1000 {
		fmt.Fprintf(&b, `"k%d":"v",`, i)
	}
	b.WriteString(`"team":"x"}}}` + "\n")
	// Absurd times and names.
	b.WriteString(`{"kind":"ServiceAccount","apiVersion":"v1","metadata":{"name":"\u001b[2J<script>alert(1)</script>\u202e","namespace":"ns","creationTimestamp":"0000-01-01T00:00:00Z"}}` + "\n")
	b.WriteString(`{"kind":"ServiceAccount","apiVersion":"v1","metadata":{"name":"future","namespace":"ns","creationTimestamp":"9999-12-31T23:59:59Z","managedFields":[null,{"manager":null,"time":null,"fieldsV1":null}]}}` + "\n")
	// Nulls wherever they can be.
	for _, l := range listings {
		version := l.version
		if l.group != "" {
			version = l.group + "/" + l.version
		}
		fmt.Fprintf(&b, `{"kind":%q,"apiVersion":%q,"metadata":{"name":"null","namespace":"ns","labels":null,"annotations":{"x":null},"ownerReferences":[null,{"kind":"ReplicaSet","name":"","controller":true}]},"spec":null,"rules":[null,{"verbs":null}],"subjects":[null,{"kind":"ServiceAccount"}],"webhooks":[null,{"clientConfig":{"url":"%%zz"}}],"data":null,"status":null}`+"\n", l.kind, version)
	}

	fsys := fstest.MapFS{"h.json": {Data: []byte(b.String())}}
	within(t, time.Minute, func() {
		records, gaps, _ := read(t, fsys, Config{})
		for _, gap := range gaps {
			t.Errorf("gap: %+v", gap)
		}
		if n := records.Len(); n > 60_000 {
			t.Errorf("%d records of a few thousand objects", n)
		}
		size := 0
		for _, r := range records.Roles {
			size += len(r.Permissions)
			if r.Name == "product" && r.Attributes["approximate"] != "true" {
				t.Error("the role that was cut does not say so")
			}
		}
		if size > 2_500_000 {
			t.Errorf("%d permissions", size)
		}
		big := identity(records, "ServiceAccount", "ns", "big")
		if big == nil || len(big.Owners) > maxClaims || len(big.Purpose) > maxPurpose+4 || len(big.Labels) > maxLabels || !utf8.ValidString(big.Purpose) {
			t.Errorf("the big account is kept as it came")
		}
		if id := identity(records, "ServiceAccount", "ns", "\x1b[2J<script>alert(1)</script>\u202e"); id == nil || !id.Created.IsZero() {
			t.Errorf("the account with the odd name: %+v", id)
		}
	})
}

// One subject in very many bindings costs in proportion, not in squares.
func TestManyBindings(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"kind":"ClusterRole","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"name":"r"},"rules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}]}` + "\n")
	for i := range 5_000 {
		fmt.Fprintf(&b, `{"kind":"RoleBinding","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"name":"b","namespace":"ns%d"},"roleRef":{"kind":"ClusterRole","name":"r"},"subjects":[{"kind":"Group","name":"developers"}]}`+"\n", i)
	}
	within(t, 30*time.Second, func() {
		records, _, _ := read(t, fstest.MapFS{"b.json": {Data: []byte(b.String())}}, Config{})
		if len(records.Grants) != 5_000 || len(records.Relations) < 35_000 {
			t.Errorf("%d grants, %d relations", len(records.Grants), len(records.Relations))
		}
	})
}

// FuzzFiles reads whatever comes as a file. It must not panic, and whatever it
// makes of it must be able to be written down.
func FuzzFiles(f *testing.F) {
	for _, seed := range []string{
		"", "---", "a: b", "{", "[", "{}", "[]", "null", "\x1f\x8b", "--- {a: b}", "items:\n- a", "items:\n  - a\n b",
		`{"kind":"List","items":[{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}]}`,
		`{"items":null}`, `{"items":{}}`, `{"items":[],"items":[]}`, `{"kind":"List","items":[{"kind":"List","items":[[[]]]}]}`,
		"kind: List\nitems:\n- kind: Secret\n  apiVersion: v1\n  metadata: {name: x}\n  data: {token: eA==}\nmetadata: {}\n",
		"apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n...\n---\n# c\n",
		`{"kind":"RoleBinding","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"name":"b"},"roleRef":{"kind":"ClusterRole","name":"cluster-admin"},"subjects":[{"kind":"User","name":"u"}]}`,
		`{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"d"},"spec":{"template":{"spec":{"containers":[{"name":"c","image":"i","env":[{"name":"OPENAI_API_KEY","value":"x"}]}]}}}}`,
	} {
		f.Add([]byte(seed), "a.yaml")
		f.Add([]byte(seed), "a.json")
	}
	cfg, err := Config{}.withDefaults()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		if !fs.ValidPath(name) || name == "." || !manifestName(name) {
			name = "a.yaml"
		}
		c, err := OpenFS(fstest.MapFS{name: {Data: data}}, "fuzz", cfg)
		if err != nil {
			return // a hidden file
		}
		records, gaps := all(t, c)
		for _, out := range []any{records, gaps} {
			if _, err := json.Marshal(out); err != nil {
				t.Fatal(err)
			}
		}
		seen := map[remit.ID]bool{}
		for _, r := range records.Identities {
			if seen[r.ID] {
				t.Fatalf("%s twice", r.Ref)
			}
			seen[r.ID] = true
		}
	})
}

// FuzzDocuments takes files apart: nothing may be lost on a line that is not
// there, and the splitter must agree with itself however the reads are cut.
func FuzzDocuments(f *testing.F) {
	f.Add([]byte("a: b\n---\nc: d\n"), 1)
	f.Add([]byte("items:\n- a: b\n- c: d\nkind: List\n"), 3)
	f.Add([]byte(`{"items":[{"a":1},{"b":2}]}`), 2)
	f.Fuzz(func(t *testing.T, data []byte, chunk int) {
		split := func(in *bufio.Reader) (docs []string) {
			lines := bytes.Count(data, []byte("\n")) + 1
			_ = readDocuments(in, "f", func(d document) error {
				if d.line < 1 || d.line > lines {
					t.Fatalf("a document on line %d of %d", d.line, lines)
				}
				docs = append(docs, fmt.Sprint(d.line, d.list, string(d.data)))
				return nil
			}, func(line int, _ error) { docs = append(docs, fmt.Sprint("bad ", line)) })
			return docs
		}
		whole := split(bufio.NewReaderSize(bytes.NewReader(data), 64<<10))
		pieces := split(bufio.NewReaderSize(&slow{bytes.NewReader(data), 1 + abs(chunk)%64}, 64<<10))
		if len(whole) != len(pieces) {
			t.Fatalf("%d documents at once, %d in pieces", len(whole), len(pieces))
		}
	})
}

type slow struct {
	in *bytes.Reader
	n  int
}

func (s *slow) Read(p []byte) (int, error) { return s.in.Read(p[:min(len(p), s.n)]) }

func abs(n int) int {
	if n < 0 {
		return -(n + 1)
	}
	return n
}

// FuzzProjection feeds one JSON object as every kind into a model that is being
// watched, changes it, and takes it away again.
func FuzzProjection(f *testing.F) {
	for _, seed := range []string{
		`{"metadata":{"name":"a","namespace":"b"}}`,
		`{"metadata":{"name":"a","namespace":"b","labels":{"owner":"x"}},"rules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"],"resourceNames":["a"]}],"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"owner":"x"}}]}}`,
		`{"metadata":{"name":"a","namespace":"b","ownerReferences":[{"kind":"ReplicaSet","apiVersion":"apps/v1","name":"a","controller":true}]},"spec":{"template":{"spec":{"volumes":[{"secret":{"secretName":"a"}}]}}},"roleRef":{"kind":"Role","name":"a"},"subjects":[{"kind":"ServiceAccount","name":"a"}]}`,
		`{"metadata":{"name":"a"},"spec":{"signerName":"kubernetes.io/kube-apiserver-client","request":"eA=="},"webhooks":[{"clientConfig":{"url":"https://x"},"rules":[{"apiGroups":["*"],"resources":["*"]}]}]}`,
	} {
		f.Add([]byte(seed), []byte(`{"metadata":{"name":"a","namespace":"b"}}`))
	}
	reducer := newTestReducer(f, Config{})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		m := newModel(testSystem, Config{}, reducer.agents, false, true)
		setAllComplete(m)
		seen := collected{}
		flush := func() {
			if err := m.flush(seen.add, seen.gone); err != nil {
				t.Fatal(err)
			}
		}
		flush()
		empty := len(seen)
		var refs []remit.Ref
		for _, data := range [][]byte{first, second} {
			for _, l := range listings {
				o := l.newObject()
				if json.Unmarshal(data, o) != nil {
					continue
				}
				if reduced := reducer.reduce(l, o); reduced != nil {
					refs = append(refs, l.refOf(o.(metav1.Object)))
					m.put(reduced)
				}
			}
			flush()
		}
		for _, ref := range refs {
			m.remove(ref)
		}
		flush()
		if len(seen) != empty {
			t.Fatalf("%d records are left of an empty cluster: %v", len(seen)-empty, seen)
		}
	})
}
