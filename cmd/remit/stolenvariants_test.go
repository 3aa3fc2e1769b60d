//go:build unix

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"remit"
	"remit/e2e/cluster"
)

// legacyToken makes a token of an account that lies in a Secret and never ends.
func (s *shop) legacyToken(account string) string {
	s.t.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: account + "-token", Annotations: map[string]string{corev1.ServiceAccountNameKey: account}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}
	if _, err := s.Client.CoreV1().Secrets(shopNamespace).Create(s.t.Context(), secret, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	var token string
	wait(s.t, "the controller to fill the Secret", func() bool {
		got, err := s.Client.CoreV1().Secrets(shopNamespace).Get(s.t.Context(), secret.Name, metav1.GetOptions{})
		if err != nil {
			s.t.Fatal(err)
		}
		token = string(got.Data[corev1.ServiceAccountTokenKey])
		return token != ""
	})
	return token
}

// stretch copies an audit log with all times between events made longer, so that
// what took seconds took hours.
func stretch(t *testing.T, from, to string, factor float64) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w := bufio.NewWriter(out)
	var first time.Time
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var event map[string]any
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			t.Fatal(err)
		}
		for _, field := range [...]string{"requestReceivedTimestamp", "stageTimestamp"} {
			at, err := time.Parse(time.RFC3339Nano, event[field].(string))
			if err != nil {
				t.Fatal(err)
			}
			if first.IsZero() {
				first = at
			}
			event[field] = first.Add(time.Duration(factor * float64(at.Sub(first)))).Format(time.RFC3339Nano)
		}
		if err := json.NewEncoder(w).Encode(event); err != nil {
			t.Fatal(err)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
}

// TestStolenVariants plays other thefts on a real API server: of a pod's token
// that is only used to read; of one that mints for another account; of a legacy
// token; of a client certificate. Each is a finding about whom was robbed, and
// all others are left alone. Renewals take seconds; the log is stretched so that
// they are ten minutes apart.
func TestStolenVariants(t *testing.T) {
	s := openShop(t, cluster.Start(t))
	for _, name := range [...]string{"importer", "backup", "vault"} {
		s.account(name)
	}
	if _, err := s.Client.RbacV1().RoleBindings(shopNamespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "deployer"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "worker"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "deployer"}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	legacy, certificate := s.TokenConfig(s.legacyToken("importer")), s.Config("deployer")
	const legacyAt, certificateAt = "127.20.0.50", "127.30.0.1"
	life := func(rounds int) {
		for range rounds {
			s.live(1)
			s.work(legacy, legacyAt)
			s.work(certificate, certificateAt)
		}
	}
	const rounds, thefts = 60, 8
	began := time.Now()
	life(rounds)
	factor := float64(rounds) * float64(10*time.Minute) / float64(time.Since(began))
	token := func(i int) *rest.Config { return s.TokenConfig(s.tokens[i]) }
	vault := ""
	for range thefts {
		s.work(token(5), attacker) // reads only
		if vault == "" {
			vault = s.mint(token(6), attacker, "backup") // for another account
		}
		s.work(s.TokenConfig(vault), attacker)
		s.work(legacy, attacker)      // a token that never ends
		s.work(certificate, attacker) // a certificate, with which tokens are minted
		s.mint(certificate, attacker, "vault")
		life(1)
	}
	time.Sleep(time.Second) // the log is written behind the answer

	dir := t.TempDir()
	log := filepath.Join(dir, "stretched.log")
	stretch(t, s.AuditLog, log, factor)
	for _, args := range [][]string{
		{"scan", "--kubeconfig", s.Kubeconfig, "--system", "prod", "--output", filepath.Join(dir, "scan.json"), "--format", "json", "--data-dir", dir},
		{"import", "activity", "--system", "prod", "--data-dir", dir, log},
	} {
		if _, err := run(t, args...); err != nil {
			t.Fatalf("remit %s: %v", strings.Join(args, " "), err)
		}
	}
	account := func(name string) remit.Ref {
		return remit.Ref{Kind: "ServiceAccount", Namespace: shopNamespace, Name: name}
	}
	least := map[remit.Ref]remit.Severity{
		account(worker(5)):               remit.High,
		account(worker(6)):               remit.High,
		account("importer"):              remit.Medium,
		{Kind: "User", Name: "deployer"}: remit.Medium,
	}
	// What was minted for them is in a stranger's hands.
	allowed := map[remit.Ref]bool{account("backup"): true, account("vault"): true}
	found := map[remit.Ref]int{}
	for _, f := range detections(t, dir) {
		t.Logf("%s %s %s: %s", f.Severity, f.Policy, f.Subject.Ref, f.Words)
		found[f.Subject.Ref]++
		want, robbed := least[f.Subject.Ref]
		switch {
		case robbed && f.Severity.Rank() < want.Rank():
			t.Errorf("the theft from %s is %s", f.Subject.Ref, f.Severity)
		case !robbed && !allowed[f.Subject.Ref] && f.Subject.Namespace == shopNamespace:
			t.Errorf("alarm on an innocent account: %s %s", f.Subject.Ref, f.Words)
		case robbed && !strings.Contains(fmt.Sprint(f.Addresses), attacker):
			t.Errorf("the attacker's address is not among %v of %s", f.Addresses, f.Subject.Ref)
		}
	}
	for ref := range least {
		if found[ref] != 1 {
			t.Errorf("%d findings about %s, not 1", found[ref], ref)
		}
	}
}

// TestChainedRole: an access key assumes a role, whose session assumes another
// and then itself again and again, by CloudTrail: the chain is told down to the
// user, and the session that renews itself is a finding.
func TestChainedRole(t *testing.T) {
	dir := t.TempDir()
	at := time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)
	var records []string
	assume := func(identity, role, session, key string, minutes int) {
		records = append(records, fmt.Sprintf(`{"eventVersion":"1.11","eventSource":"sts.amazonaws.com","eventName":"AssumeRole","awsRegion":"eu-west-1",`+
			`"eventTime":"%s","eventID":"e-%d","sourceIPAddress":"203.0.113.9","userAgent":"Boto3/1.34","eventType":"AwsApiCall","recipientAccountId":"123456789012",`+
			`"userIdentity":%s,"requestParameters":{"roleArn":"arn:aws:iam::123456789012:role/%s","roleSessionName":"%s"},`+
			`"responseElements":{"credentials":{"accessKeyId":"%s","expiration":"%s"},"assumedRoleUser":{"arn":"arn:aws:sts::123456789012:assumed-role/%[4]s/%[5]s","assumedRoleId":"AROA:%[5]s"}}}`,
			at.Add(time.Duration(minutes)*time.Minute).Format(time.RFC3339), len(records), identity, role, session, key,
			at.Add(time.Duration(minutes+60)*time.Minute).Format(time.RFC3339)))
	}
	user := `{"type":"IAMUser","principalId":"AIDA1","arn":"arn:aws:iam::123456789012:user/ann","accountId":"123456789012","accessKeyId":"AKIAANN","userName":"ann"}`
	session := func(role, key string) string {
		return fmt.Sprintf(`{"type":"AssumedRole","principalId":"AROA:%s","arn":"arn:aws:sts::123456789012:assumed-role/%[1]s/s","accountId":"123456789012","accessKeyId":"%s",`+
			`"sessionContext":{"sessionIssuer":{"type":"Role","principalId":"AROA","arn":"arn:aws:iam::123456789012:role/%[1]s","accountId":"123456789012","userName":"%[1]s"}}}`, role, key)
	}
	assume(user, "build", "s", "ASIA1", 0)
	assume(session("build", "ASIA1"), "deploy", "s", "ASIA2", 5)
	for n := range 4 { // the session renews itself for as long as it likes
		assume(session("deploy", fmt.Sprintf("ASIA%d", 2+n)), "deploy", "s", fmt.Sprintf("ASIA%d", 3+n), 50*(n+1))
	}
	file := filepath.Join(dir, "trail.json")
	if err := os.WriteFile(file, []byte(`{"Records":[`+strings.Join(records, ",")+`]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, "import", "activity", "--data-dir", dir, file); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, f := range detections(t, dir) {
		t.Logf("%s %s %s: %s", f.Severity, f.Policy, f.Subject.Ref, f.Words)
		found = found || strings.HasSuffix(f.Subject.Name, "deploy") && f.Severity.Rank() >= remit.Medium.Rank() && len(f.Credentials) >= 5
	}
	if !found {
		t.Error("the session that renews itself is no finding")
	}
	tree, err := run(t, "activity", "123456789012/deploy", "--data-dir", dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(tree)
	for _, word := range []string{"AKIAANN", "ASIA6", "FORK", "root"} {
		if !strings.Contains(tree, word) {
			t.Errorf("the tree does not say %q", word)
		}
	}
}
