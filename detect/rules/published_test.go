package rules_test

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/valyala/fastjson"

	"remit/connector"
	"remit/detect"
	"remit/detect/sigma"
)

// unseenFields are fields of published rules that no event at hand has, and why.
var unseenFields = map[string]string{
	"aws status": "CloudTrail has none; the rule means that there is no errorCode",
	"aws requestParameters.containerDefinitions.command": "there is no event of that API",
	"aws requestParameters.enable":                       "there is no event of that API",
	"aws requestParameters.layers":                       "there is no event of that API",
	"kubernetes hostPath":                                "there is no such pod",
	"kubernetes capabilities":                            "there is no such pod",
}

// TestPublishedRulesFindTheirFields says that each field that the published
// rules read is where our decoders present it, in real events of its source.
func TestPublishedRulesFindTheirFields(t *testing.T) {
	dir := shared("sigma")
	if dir == "" {
		t.Skip("no shared/data/sigma beside the module")
	}
	published, faults := sigma.LoadDir(dir)
	for _, err := range faults {
		t.Error(err)
	}
	engine, _ := sigma.Compile(published, sigma.Options{Attributed: detect.Attributed, Aliases: aliases()})
	views := map[string][]*fastjson.Value{}
	fired := map[string]bool{}
	detector, err := detect.New(t.Context(), detect.Options{Engine: engine, BaselineOff: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, raw := range realEvents(t) {
		v, err := fastjson.ParseBytes(raw)
		if err != nil {
			t.Fatal(err)
		}
		d := decoderOf(v)
		if d == nil {
			continue
		}
		var e connector.Event
		if d.Decode(v, &connector.Interner{}, &e) != nil {
			continue
		}
		for _, view := range e.Views {
			views[view.Product] = append(views[view.Product], view.JSON)
		}
		signals, err := detector.Match(t.Context(), &e, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range signals {
			fired[s.Rule] = true
		}
	}
	rules := map[string]int{}
	matched := map[string]int{}
	for _, r := range published {
		product := r.Logsource.Product
		if len(views[product]) == 0 {
			continue // no source of ours
		}
		rules[product]++
		if fired[r.ID] {
			matched[product]++
		}
	fields:
		for _, f := range engine.FieldsOf(r) {
			for _, v := range views[product] {
				for _, path := range append([]string{f.Name}, f.Paths...) {
					if hasPath(v, path) {
						continue fields
					}
				}
			}
			if unseenFields[product+" "+f.Name] == "" {
				t.Errorf("%s: no event of %s has the field %s %v", filepath.Base(r.Path), product, f.Name, f.Paths)
			}
		}
	}
	for product, n := range rules {
		t.Logf("%-10s %3d rules, %3d of them match one of %d events", product, n, matched[product], len(views[product]))
	}
}

// realEvents are the labelled events and those of healthy systems.
func realEvents(t *testing.T) (all [][]byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(shared("labelled-events"), "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Skip("no shared/data/labelled-events beside the module")
	}
	for _, file := range files {
		for _, l := range readLabelled(t, file) {
			all = append(all, l.Log)
		}
	}
	if files, err = filepath.Glob("testdata/healthy/*.jsonl"); err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			all = append(all, []byte(lines.Text()))
		}
	}
	return all
}

// hasPath says whether there is something at a dotted path, as the engine looks
// for it.
func hasPath(v *fastjson.Value, path string) bool {
	switch v.Type() {
	case fastjson.TypeArray:
		for _, element := range v.GetArray() {
			if hasPath(element, path) {
				return true
			}
		}
	case fastjson.TypeObject:
		for end := len(path); end > 0; end = strings.LastIndexByte(path[:end], '.') {
			if kid := v.Get(path[:end]); kid != nil && (end == len(path) || hasPath(kid, path[end+1:])) {
				return true
			}
		}
	}
	return false
}

// TestFieldsAsRulesCallThem has rules find, under the names that they use, what
// events have elsewhere.
func TestFieldsAsRulesCallThem(t *testing.T) {
	const pod = `{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"1","stage":"ResponseComplete","verb":"create","user":{"username":"jane"},` +
		`"objectRef":{"resource":"pods","namespace":"a","name":"b","apiGroup":"x"},"responseStatus":{"code":201},"requestReceivedTimestamp":"2026-03-01T00:00:00Z","requestObject":{"spec":{`
	const entry = `{"logName":"projects/p/logs/cloudaudit.googleapis.com%2Factivity","insertId":"1","timestamp":"2026-03-01T00:00:00Z","resource":{"type":"service_account"},` +
		`"protoPayload":{"@type":"type.googleapis.com/google.cloud.audit.AuditLog","serviceName":"iam.googleapis.com","methodName":"google.iam.admin.v1.DeleteServiceAccount",` +
		`"authenticationInfo":{"principalEmail":"a@example.com"},"authorizationInfo":[{"permission":"iam.serviceAccounts.delete","granted":true}],"resourceName":"projects/-/serviceAccounts/1"}}`
	for _, test := range []struct {
		name, logsource, selection, event string
		want                              bool
	}{
		{"host path", "product: kubernetes, service: audit", "hostPath: '*'", pod + `"volumes":[{"name":"x","hostPath":{"path":"/"}}]}}}`, true},
		{"no host path", "product: kubernetes, service: audit", "hostPath: '*'", pod + `"volumes":[{"name":"x","emptyDir":{}}]}}}`, false},
		{"capabilities", "product: kubernetes, service: audit", "capabilities: '*'", pod + `"containers":[{"securityContext":{"capabilities":{"add":["SYS_ADMIN"]}}}]}}}`, true},
		{"capabilities of an init container", "product: kubernetes, service: audit", "capabilities: SYS_ADMIN", pod + `"containers":[{}],"initContainers":[{"securityContext":{"capabilities":{"add":["SYS_ADMIN"]}}}]}}}`, true},
		{"capabilities dropped", "product: kubernetes, service: audit", "capabilities: '*'", pod + `"containers":[{"securityContext":{"capabilities":{"drop":["ALL"]}}}]}}}`, false},
		{"group", "product: kubernetes, service: audit", "apiGroup: x", pod + `}}}`, true},
		{"method by its permission", "product: gcp, service: gcp.audit", "gcp.audit.method_name|endswith: .serviceAccounts.delete", entry, true},
		{"method by its name", "product: gcp, service: gcp.audit", "gcp.audit.method_name|endswith: .DeleteServiceAccount", entry, true},
		{"another method", "product: gcp, service: gcp.audit", "gcp.audit.method_name|endswith: .serviceAccounts.create", entry, false},
	} {
		all, err := sigma.Parse("t.yml", []byte("title: t\nname: t\nid: 00000000-0000-4000-8000-000000000001\nlogsource: {"+test.logsource+"}\ndetection:\n  sel:\n    "+test.selection+"\n  condition: sel\n"))
		if err != nil {
			t.Fatal(err)
		}
		engine, _ := sigma.Compile(all, sigma.Options{Attributed: detect.Attributed, Aliases: aliases()})
		found, err := match(t, engine, []byte(test.event))
		if err != nil || (len(found) == 1) != test.want {
			t.Errorf("%s: %v, %v", test.name, found, err)
		}
	}
}
