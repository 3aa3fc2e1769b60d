package leak_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"remit"
	"remit/leak"
)

// FuzzDecode holds that no file of reports makes the decoder panic, that its
// errors say nothing that stands in the file, and that nothing which is kept of a
// report holds its secret.
func FuzzDecode(f *testing.F) {
	const planted = "sk_live_51H8xQ2eZvKYlo2C9aBcDeFgHiJkLmNoPqRs"
	for _, seed := range []string{
		`[{"RuleID":"a","Secret":"` + planted + `","Match":"x=` + planted + `","File":"` + planted + `","StartLine":1,"Commit":"c","Link":"https://a:b@h/x"}]`,
		`{"SourceMetadata":{"Data":{"Git":{"commit":"c","file":"f","line":1,"repository":"https://h/r"}}},"DetectorName":"AWS","Raw":"` + planted + `","RawV2":"a:` + planted + `","Redacted":"AKIA"}`,
		`{"runs":[{"tool":{"driver":{"name":"x"}},"results":[{"ruleId":"r","locations":[{"physicalLocation":{"artifactLocation":{"uri":"u"},"region":{"startLine":1,"snippet":{"text":"k=` + planted + `"}}}}]}]}]}`,
		`[]`, ``, `{}`, `[null]`, `{"runs":null}`, `{"runs":[null]}`, "\xef\xbb\xbf[]",
	} {
		f.Add([]byte(seed))
	}
	digester, err := leak.NewDigester(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		for _, format := range append([]leak.Format{""}, leak.Formats...) {
			err := leak.Decode(bytes.NewReader(file), format, func(r *leak.Report) error {
				holds := false
				for _, s := range append(append([][]byte(nil), r.Secrets...), r.Around...) {
					holds = holds || bytes.Contains(s, []byte(planted))
				}
				l := digester.Digest(r, time.Time{})
				kept, err := json.Marshal(l)
				if err != nil {
					t.Fatal(err)
				}
				if holds && len(r.Secrets) > 0 && string(bytes.TrimSpace(r.Secrets[0])) == planted && strings.Contains(string(kept), planted) {
					t.Errorf("kept: %s", kept)
				}
				return nil
			})
			if err != nil && (remit.KindOf(err) != remit.Invalid || strings.Contains(err.Error(), planted) || len(err.Error()) > 300) {
				t.Errorf("%v", err)
			}
		}
	})
}

// FuzzGitHub holds the same of what GitHub sends.
func FuzzGitHub(f *testing.F) {
	const planted = "sk_live_51H8xQ2eZvKYlo2C9aBcDeFgHiJkLmNoPqRs"
	for _, seed := range []string{
		`[{"token":"` + planted + `","type":"t","url":"https://github.com/acme/web/blob/c/` + planted + `","source":"content"}]`,
		`{"action":"created","alert":{"number":1,"secret_type":"t","html_url":"https://github.com/acme/web/security/secret-scanning/1"},"repository":{"full_name":"acme/web"}}`,
		`{"alert":{"number":1},"location":{"details":{"path":"p","start_line":1,"commit_sha":"c"}},"repository":{"full_name":"acme/.."}}`,
	} {
		f.Add([]byte(seed))
	}
	digester, err := leak.NewDigester(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		reports, err := leak.DecodePartner(body)
		if err != nil && strings.Contains(err.Error(), planted) {
			t.Errorf("%v", err)
		}
		for i := range reports {
			kept, err := json.Marshal(digester.Digest(&reports[i], time.Time{}))
			if err != nil || string(bytes.TrimSpace(reports[i].Secrets[0])) == planted && strings.Contains(string(kept), planted) {
				t.Errorf("kept: %s, %v", kept, err)
			}
		}
		alert, err := leak.DecodeAlert(body)
		if err == nil && (strings.Count(alert.Repository, "/") != 1 || strings.HasSuffix(alert.Repository, "/..") || strings.ContainsAny(alert.Repository, "?#%")) {
			t.Errorf("a repository %q", alert.Repository)
		}
		if err != nil && strings.Contains(err.Error(), planted) {
			t.Errorf("%v", err)
		}
	})
}
