package archive

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"remit"
)

func TestExportFromQuery(t *testing.T) {
	a := open(t, Options{})
	files := fill(t, a, "m", 0, 500, nil)
	for name, write := range map[string]func(*bytes.Buffer) Each{
		"JSON": func(b *bytes.Buffer) Each { return WriteJSON(b) },
		"CSV":  func(b *bytes.Buffer) Each { return WriteCSV(b) },
		"OCSF": func(b *bytes.Buffer) Each { return WriteOCSF(b) },
	} {
		var b bytes.Buffer
		if err := a.Query(context.Background(), files, Query{Raw: true}, write(&b)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		want := 500
		if name == "CSV" {
			want++
		}
		if n := strings.Count(b.String(), "\n"); n != want {
			t.Errorf("%s: %d lines, want %d", name, n, want)
		}
	}
}

func TestWriteJSON(t *testing.T) {
	var b bytes.Buffer
	each := WriteJSON(&b)
	e, raw := sample(100)
	for _, raw := range [][]byte{raw, []byte("no JSON <b>"), nil} {
		if err := each(&e, raw); err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	var got struct {
		remit.Activity
		Raw struct{ AuditID string }
	}
	if err := json.Unmarshal([]byte(lines[0]), &got); err != nil {
		t.Fatal(err)
	}
	if got.ID != e.ID || got.Raw.AuditID != e.ID || got.Minted.Credential != e.Minted.Credential || len(got.Chain) != 2 {
		t.Errorf("got %+v", got)
	}
	if !strings.HasSuffix(lines[1], `"raw":"no JSON <b>"}`) || strings.Contains(lines[2], `"raw"`) {
		t.Errorf("a raw event that is no JSON: %s; none: %s", lines[1], lines[2])
	}
}

func TestWriteCSV(t *testing.T) {
	var b bytes.Buffer
	e, _ := sample(100)
	e.Principal, e.Reason, e.UserAgent = "=HYPERLINK(\"http://evil\")", "two\nlines, and a \"quote\"", "\u202eright to left"
	if err := WriteCSV(&b)(&e, []byte("{\"a\":1}")); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&b).ReadAll()
	if err != nil || len(rows) != 2 {
		t.Fatalf("%d rows: %v", len(rows), err)
	}
	got := map[string]string{}
	for i, name := range rows[0] {
		got[name] = rows[1][i]
	}
	for name, want := range map[string]string{
		"event_id": e.ID, "principal": "'=HYPERLINK(\"http://evil\")", "reason": `two\u000alines, and a "quote"`, "user_agent": `\u202eright to left`,
		"time": e.Time.Format(time.RFC3339Nano), "minted_expires": "2026-11-23T15:00:00Z", "minted_audiences": "api; vault",
		"chain": "User alice; ServiceAccount " + e.Actor.Namespace + "/" + e.Actor.Name, "code": "200", "known": "false", "raw": `{"a":1}`,
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if _, ok := got["system_name"]; ok || rows[0][len(rows[0])-1] != "raw" {
		t.Errorf("the columns are %v", rows[0])
	}
}

// TestWriteOCSF looks for what the classes of OCSF 1.6.0 require.
func TestWriteOCSF(t *testing.T) {
	base, _ := sample(100)
	for name, test := range map[string]struct {
		change          func(*remit.Activity)
		class, activity int
		status          int
	}{
		"read":         {func(e *remit.Activity) { e.Action = "get" }, 6003, 2, 1},
		"s3 read":      {func(e *remit.Activity) { e.Action = "s3:GetObject" }, 6003, 2, 1},
		"create":       {func(e *remit.Activity) { e.Action = "create" }, 6003, 1, 1},
		"update":       {func(e *remit.Activity) { e.Action = "patch"; e.Outcome = remit.Denied }, 6003, 3, 2},
		"delete":       {func(e *remit.Activity) { e.Action = "iam:DeleteAccessKey"; e.Outcome = remit.Failed }, 6003, 4, 2},
		"other":        {func(e *remit.Activity) { e.Action = "impersonate"; e.Outcome = "" }, 6003, 99, 0},
		"sign-in":      {func(e *remit.Activity) { e.Action = "signin.amazonaws.com:ConsoleLogin" }, 3002, 1, 1},
		"sign-out":     {func(e *remit.Activity) { e.Action = "user.logout" }, 3002, 2, 1},
		"account made": {func(e *remit.Activity) { e.Action = "create"; e.Resource.Kind = "serviceaccounts" }, 3001, 1, 1},
		"account gone": {func(e *remit.Activity) { e.Action = "iam:DeleteUser"; e.Resource.Kind = "iam:User" }, 3001, 6, 1},
		"no address":   {func(e *remit.Activity) { e.Action, e.Address = "get", "" }, 6003, 2, 1},
	} {
		t.Run(name, func(t *testing.T) {
			e := base
			e.Outcome = remit.Allowed
			test.change(&e)
			var b bytes.Buffer
			if err := WriteOCSF(&b)(&e, []byte("raw")); err != nil {
				t.Fatal(err)
			}
			var got map[string]any
			if err := json.Unmarshal(b.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			at := func(path string) any {
				var v any = got
				for part := range strings.SplitSeq(path, ".") {
					m, _ := v.(map[string]any)
					v = m[part]
				}
				return v
			}
			required := []string{"metadata.version", "metadata.product.name", "metadata.product.vendor_name", "actor.user.name", "raw_data", "unmapped.root"}
			switch test.class {
			case 6003:
				required = append(required, "api.operation")
			case 3002:
				required = append(required, "user.name", "service.uid")
			case 3001:
				required = append(required, "user.name")
			}
			for _, path := range required {
				if s, _ := at(path).(string); s == "" {
					t.Errorf("%s is missing", path)
				}
			}
			if at("src_endpoint.ip") == nil && at("src_endpoint.name") == nil {
				t.Error("src_endpoint is empty")
			}
			for path, want := range map[string]int{
				"class_uid": test.class, "category_uid": test.class / 1000, "activity_id": test.activity,
				"type_uid": test.class*100 + test.activity, "status_id": test.status, "severity_id": 1,
			} {
				if n, ok := at(path).(float64); !ok || int(n) != want {
					t.Errorf("%s is %v, want %d", path, at(path), want)
				}
			}
			if n, _ := at("time").(float64); int64(n) != e.Time.UnixMilli() {
				t.Errorf("time is %v", at("time"))
			}
		})
	}
}
