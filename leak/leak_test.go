package leak_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"remit"
	"remit/connector/secret"
	"remit/leak"
	"remit/store/sqlstore"
)

var key = bytes.Repeat([]byte{7}, 32)

var cluster = remit.System{ID: remit.SystemID("kubernetes", "uid"), Connector: "kubernetes", Name: "prod", Native: "uid", Mode: remit.ModeObserve}

// token makes a token of a service account, as a cluster signs them.
func token(jti, namespace, name, uid string, expires time.Time) string {
	part := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	return part(map[string]any{"alg": "RS256", "kid": "k"}) + "." + part(map[string]any{
		"iss": "https://kubernetes.default.svc", "sub": "system:serviceaccount:" + namespace + ":" + name, "jti": jti, "exp": expires.Unix(),
		"kubernetes.io": map[string]any{"namespace": namespace, "serviceaccount": map[string]any{"name": name, "uid": uid}},
	}) + "." + base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte(jti), 16))
}

// clientCertificate makes one, and returns its PEM and the PEM of its key.
func clientCertificate(t *testing.T) (cert, private string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "alice"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// office is a desk over a store on disk.
type office struct {
	*leak.Desk
	dir   string
	store *sqlstore.Store
	now   time.Time
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{dir: t.TempDir(), now: time.Now().UTC()}
	var err error
	if o.store, err = sqlstore.Open(t.Context(), filepath.Join(o.dir, "remit.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.store.Close() })
	digester, err := leak.NewDigester(key)
	if err != nil {
		t.Fatal(err)
	}
	o.Desk = &leak.Desk{Store: o.store, Digester: digester, Now: func() time.Time { return o.now }}
	return o
}

func (o *office) put(t *testing.T, records remit.Records, deleted ...remit.ID) {
	t.Helper()
	if err := o.store.PutSystem(t.Context(), cluster); err != nil {
		t.Fatal(err)
	}
	run, err := o.store.StartRun(t.Context(), cluster.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := run.Apply(t.Context(), "all", o.now, records, deleted); err != nil {
		t.Fatal(err)
	}
}

// take reads a file of reports.
func (o *office) take(t *testing.T, file string) []leak.Result {
	t.Helper()
	o.now = o.now.Add(time.Second)
	var leaks []leak.Leak
	err := leak.Decode(strings.NewReader(file), "", func(r *leak.Report) error {
		leaks = append(leaks, o.Digester.Digest(r, o.now))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	results, err := o.Take(t.Context(), leaks)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func (o *office) findings(t *testing.T, states ...remit.FindingState) []remit.Finding {
	t.Helper()
	list, _, err := o.store.Findings(t.Context(), remit.FindingFilter{States: states}, remit.PageRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func credential(name, value string) remit.Credential {
	fingerprint, err := secret.NewFingerprinter(key)
	if err != nil {
		panic(err)
	}
	ref := remit.Ref{Kind: "Secret", Namespace: "shop", Name: name}
	return remit.Credential{
		Record: remit.Record{ID: remit.CredentialID(cluster.ID, ref, "value"), System: cluster.ID, Ref: ref}, Key: "value",
		Type: remit.APIKey, Status: remit.Active, Fingerprint: fingerprint.Fingerprint([]byte(value)),
	}
}

// The secrets that reports hold. None of them may be found anywhere afterwards.
const (
	stripe   = "sk_live_51H8xQ2eZvKYlo2C9aBcDeFgHiJkLmNoPqRs"
	password = "correct-horse-battery-9"
)

func text(v any) string {
	out, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(out)
}

func gitleaks(rule, value, match, file string) map[string]any {
	return map[string]any{
		"RuleID": rule, "Secret": value, "Match": match, "File": file, "StartLine": 3, "EndLine": 3, "Commit": "4f6c1b0a92de4f6c1b0a92de", "Author": "a",
		"Link": "https://user:" + password + "@github.com/acme/web/blob/4f6c1b0a92de/" + file + "#L3", "Entropy": 4.2, "Message": "add " + value, "Tags": nil,
	}
}

// TestFormats holds that each format's secret is matched, and its place told.
func TestFormats(t *testing.T) {
	jwt := token("a1", "shop", "worker", "u1", time.Now().Add(time.Hour))
	cert, private := clientCertificate(t)
	for name, test := range map[string]struct {
		value string // of the credential in the inventory
		file  string
		place string
	}{
		"gitleaks": {stripe, text([]any{gitleaks("stripe-access-token", stripe, `key = "`+stripe+`"`, "app.yaml")}), "app.yaml:3 in commit 4f6c1b0a92de"},
		"trufflehog": {stripe, `{"level":"info","msg":"running"}` + "\n" + text(map[string]any{
			"SourceMetadata": map[string]any{"Data": map[string]any{"Git": map[string]any{
				"commit": "4f6c1b0a92de4f6c1b0a92de", "file": "app.yaml", "line": 3, "repository": "https://user:" + password + "@github.com/acme/web",
			}}}, "DetectorName": "Stripe", "Verified": true, "Raw": stripe, "RawV2": "", "Redacted": "",
		}) + "\n", "https://github.com/acme/web app.yaml:3 in commit 4f6c1b0a92de"},
		"sarif": {stripe, text(map[string]any{"version": "2.1.0", "runs": []any{map[string]any{
			"tool": map[string]any{"driver": map[string]any{"name": "gitleaks"}},
			"results": []any{map[string]any{
				"ruleId": "stripe-access-token", "message": map[string]any{"text": "found " + stripe},
				"locations": []any{map[string]any{"physicalLocation": map[string]any{
					"artifactLocation": map[string]any{"uri": "app.yaml"}, "region": map[string]any{"startLine": 3, "snippet": map[string]any{"text": stripe}},
				}}}, "partialFingerprints": map[string]any{"commitSha": "4f6c1b0a92de4f6c1b0a92de"},
			}},
		}}}), "app.yaml:3 in commit 4f6c1b0a92de"},
		"a line of code": {password, text(map[string]any{"runs": []any{map[string]any{"results": []any{map[string]any{
			"ruleId": "x", "locations": []any{map[string]any{"physicalLocation": map[string]any{
				"artifactLocation": map[string]any{"uri": "app.yaml"}, "region": map[string]any{"startLine": 3, "snippet": map[string]any{"text": `  dsn_secret: "` + password + `",`}},
			}}},
		}}}}}), "app.yaml:3"},
		"token": {jwt, text([]any{gitleaks("jwt", jwt, jwt, "app.yaml")}), "app.yaml:3 in commit 4f6c1b0a92de"},
		"key":   {private, text([]any{gitleaks("private-key", private, cert+private, "app.yaml")}), "app.yaml:3 in commit 4f6c1b0a92de"},
		// Named like what it holds.
		"hostile name": {stripe, text([]any{gitleaks("stripe", stripe, stripe, stripe+".yaml")}), "[secret].yaml:3 in commit 4f6c1b0a92de"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t)
			c := credential("deploy", test.value)
			o.put(t, remit.Records{Credentials: []remit.Credential{c}})
			results := o.take(t, test.file)
			if len(results) != 1 || len(results[0].Findings) != 1 {
				t.Fatalf("%+v", results)
			}
			all := o.findings(t, remit.Open)
			if len(all) != 1 || all[0].Subject.ID != c.ID || all[0].Severity != remit.Critical || all[0].Policy != leak.Policy {
				t.Fatalf("%+v", all)
			}
			if !slices.Contains(all[0].Evidence, remit.Fact{Name: "found in", Value: test.place}) {
				t.Errorf("evidence %+v; want it found in %s", all[0].Evidence, test.place)
			}
			o.nowhere(t, test.value, stripe, password, jwt, strings.Split(private, "\n")[1])
		})
	}
}

// nowhere holds that no secret is in any file of the data directory.
func (o *office) nowhere(t *testing.T, secrets ...string) {
	t.Helper()
	seen := 0
	err := filepath.WalkDir(o.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		seen++
		content, err := os.ReadFile(path)
		for _, s := range secrets {
			for _, form := range []string{s, base64.StdEncoding.EncodeToString([]byte(s)), text(s)[1 : len(text(s))-1]} {
				if bytes.Contains(content, []byte(form)) {
					t.Errorf("%s holds the secret %.12s…", path, s)
				}
			}
		}
		return err
	})
	if err != nil || seen == 0 {
		t.Fatalf("%d files, %v", seen, err)
	}
}

// TestClaims holds that a token which the inventory does not have is matched by
// what it says of itself, and a certificate by what the log writes for it.
func TestClaims(t *testing.T) {
	o := newOffice(t)
	ref := remit.Ref{Kind: "ServiceAccount", Namespace: "shop", Name: "worker"}
	worker := remit.Identity{
		Record: remit.Record{ID: remit.IdentityID(cluster.ID, ref), System: cluster.ID, Ref: ref, Incarnation: "u1"}, Type: remit.ServiceAccount, Status: remit.Active,
	}
	o.put(t, remit.Records{Identities: []remit.Identity{worker}})
	cert, _ := clientCertificate(t)
	bundle, err := secret.ParseBundle([]byte(cert), nil)
	if err != nil {
		t.Fatal(err)
	}
	native := bundle.Certificates[0].Native
	alice := remit.Ref{Kind: "User", Name: "alice"}
	if err := o.store.Checkpoint(t.Context(), remit.Checkpoint{Now: o.now, Lineage: []remit.Lineage{
		{System: cluster.ID, Credential: "JTI=seen", Root: "JTI=seen", Identity: worker.ID, Holder: ref},
		{System: cluster.ID, Credential: native, Root: native, Identity: remit.IdentityID(cluster.ID, alice), Holder: alice},
	}}); err != nil {
		t.Fatal(err)
	}
	soon := time.Now().Add(time.Hour)
	for value, want := range map[string]string{
		token("seen", "shop", "worker", "u1", soon):                        "JTI=seen",
		token("unseen", "shop", "worker", "u1", soon):                      "JTI=unseen",
		token("former", "shop", "worker", "u0", soon):                      "", // an account of that name before this one, or elsewhere
		token("other", "shop", "api", "u2", soon):                          "",
		token("ended", "shop", "worker", "u1", time.Now().Add(-time.Hour)): "",
		cert: native,
	} {
		results := o.take(t, text([]any{gitleaks("x", value, value, "a")}))
		var got string
		if len(results[0].Findings) > 0 {
			f, _, err := o.store.Findings(t.Context(), remit.FindingFilter{IDs: results[0].Findings}, remit.PageRequest{})
			if err != nil || len(f) != 1 || f[0].Identity == "" {
				t.Fatalf("%+v %v", f, err)
			}
			got = strings.Join(f[0].Credentials, " ")
		}
		if got != want {
			t.Errorf("matched %q; want %q", got, want)
		}
	}
}

// TestLevel holds that findings follow the inventory: a credential that comes
// later is found, one that ends is not a finding any more, one that comes back is.
func TestLevel(t *testing.T) {
	o := newOffice(t)
	o.put(t, remit.Records{})
	file := text([]any{gitleaks("stripe", stripe, stripe, "a.yaml"), gitleaks("stripe", stripe, stripe, "b.yaml"), gitleaks("generic", "REDACTED", "key=REDACTED", "c.yaml")})
	results := o.take(t, file)
	if len(results) != 3 || results[0].Matched() || !results[2].Redacted {
		t.Fatalf("%+v", results)
	}
	state := func() (string, int) {
		t.Helper()
		o.now = o.now.Add(time.Minute)
		if err := o.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		all := o.findings(t)
		if len(all) == 0 {
			return "none", 0
		}
		places := 0
		for _, f := range all[0].Evidence {
			if f.Name == "found in" {
				places++
			}
		}
		return string(all[0].State), places
	}
	if got, _ := state(); got != "none" {
		t.Errorf("without a credential: %s", got)
	}
	c := credential("deploy", stripe)
	o.put(t, remit.Records{Credentials: []remit.Credential{c}})
	if got, places := state(); got != "open" || places != 2 {
		t.Errorf("with it: %s, %d places", got, places)
	}
	ended := c
	ended.Status = remit.Revoked
	o.put(t, remit.Records{Credentials: []remit.Credential{ended}})
	if got, _ := state(); got != "resolved" {
		t.Errorf("revoked: %s", got)
	}
	if results := o.take(t, file); !results[0].Known || results[0].Ended != 1 {
		t.Errorf("reported again: %+v", results[0])
	}
	o.put(t, remit.Records{Credentials: []remit.Credential{c}})
	if got, _ := state(); got != "open" {
		t.Errorf("back: %s", got)
	}
	o.put(t, remit.Records{}, c.ID)
	if got, _ := state(); got != "resolved" {
		t.Errorf("gone: %s", got)
	}
	states, err := o.store.States(t.Context(), "", "leak", "")
	if err != nil || len(states) != 3 {
		t.Errorf("%d leaks, %v", len(states), err)
	}
	o.now = o.now.Add(401 * 24 * time.Hour)
	if _, _ = state(); len(o.findings(t, remit.Open)) > 0 {
		t.Error("open after all")
	}
	if states, err := o.store.States(t.Context(), "", "leak", ""); err != nil || len(states) != 0 {
		t.Errorf("%d leaks after a year, %v", len(states), err)
	}
}

// TestBadFiles holds that an error tells the place, and nothing that stands there.
func TestBadFiles(t *testing.T) {
	for name, test := range map[string]struct {
		file   string
		format leak.Format
		want   string
	}{
		"torn":            {`[{"RuleID":"a","Secret":"` + stripe, "", "finding 1 is no JSON of gitleaks"},
		"second":          {`[{"RuleID":"a","Secret":"x"},{"Secret":` + stripe + `}]`, "", "finding 2 is no JSON of gitleaks"},
		"no report":       {stripe, "", "neither"},
		"other JSON":      {`{"` + stripe + `": 1}`, "", "line 1 is no finding of TruffleHog"},
		"torn line":       {`{"DetectorName":"a","Raw":"b"}` + "\n{" + stripe, leak.TruffleHog, "line 2 is no JSON of trufflehog"},
		"no SARIF":        {`{"version":"` + stripe + `"}`, leak.SARIF, "it has no runs"},
		"of another type": {`{"runs":"` + stripe + `"}`, leak.SARIF, "runs has another type there"},
	} {
		err := leak.Decode(strings.NewReader(test.file), test.format, func(*leak.Report) error { return nil })
		if remit.KindOf(err) != remit.Invalid || !strings.Contains(fmt.Sprint(err), test.want) || strings.Contains(fmt.Sprint(err), stripe[8:]) {
			t.Errorf("%s: %v; want %s", name, err, test.want)
		}
	}
	if err := leak.Decode(strings.NewReader(" \n"), "", nil); err != nil {
		t.Errorf("a scanner that found nothing: %v", err)
	}
	if err := leak.Decode(bytes.NewReader(make([]byte, leak.MaxFile+1)), "", nil); remit.KindOf(err) != remit.Invalid {
		t.Errorf("too large: %v", err)
	}
}
