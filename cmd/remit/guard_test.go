//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"remit"
	"remit/e2e/cluster"
)

// TestGuard goes a user's way on a real API server: audit, the report of it, then
// enforce; somebody deletes it and Remit puts it back; undone and taken away.
func TestGuard(t *testing.T) {
	c := cluster.Start(t, func(o *cluster.Options) { o.NoControllerManager = true })
	ctx, home := t.Context(), newHome(t)
	dir, command, must := home.path, home.run, home.must
	configure := func(mode, guard string) {
		t.Helper()
		text := "systems:\n  - name: prod\n    kubeconfig: " + c.Kubeconfig + "\n    enforce: {kubeconfig: " + c.Kubeconfig + "}\n    " + mode + "\n    guard: {" + guard + "}\n"
		home.write("remit.yaml", text)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "dev"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "dev"}},
	}
	if _, err := c.Client.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	config := rest.CopyConfig(c.Config("dev"))
	config.WarningHandler = rest.NoWarnings{}
	dev, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	account := func(options metav1.CreateOptions) error {
		_, err := dev.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{GenerateName: "new-"}}, options)
		return err
	}
	dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	refused := func() bool {
		err := account(dry)
		return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "Remit's guard: say who answers for this")
	}
	must("scan", "--kubeconfig", c.Kubeconfig, "--system", "prod", "--output", filepath.Join(dir, "scan.json"), "--format", "json")

	// In audit, approved by somebody else.
	configure("mode: recommend", "owners: audit, token_secrets: audit")
	if preview := must("guard", "apply", "--plan"); !strings.Contains(preview, "+ validationActions:") {
		t.Errorf("the plan does not show what it makes:\n%s", preview)
	}
	var plan remit.Response
	if err := json.Unmarshal([]byte(must("guard", "apply", "--as", "alice", "--format", "json")), &plan); err != nil {
		t.Fatal(err)
	}
	if _, err := command("plans", "approve", string(plan.ID), "--as", "alice"); remit.KindOf(err) != remit.Forbidden {
		t.Errorf("alice approves what she asked for: %v", err)
	}
	t.Log(must("plans", "approve", string(plan.ID), "--as", "bob"))
	if again := must("guard", "apply", "--as", "alice"); !strings.Contains(again, "nothing to change") {
		t.Errorf("applied twice: %s", again)
	}
	report := ""
	wait(t, "the audit to act", func() bool {
		if err := account(metav1.CreateOptions{}); err != nil {
			t.Fatalf("refused in audit: %v", err)
		}
		time.Sleep(200 * time.Millisecond)
		text, err := os.ReadFile(c.AuditLog)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(text, []byte("validation_failure"))
	})
	log := filepath.Join(dir, "audit.log")
	if text, err := os.ReadFile(c.AuditLog); err != nil {
		t.Fatal(err)
	} else if err := os.WriteFile(log, text[:bytes.LastIndexByte(text, '\n')+1], 0o600); err != nil {
		t.Fatal(err)
	}
	must("import", "activity", "--system", "prod", log)
	if report = must("guard", "report"); !strings.Contains(report, "× serviceaccounts in default") || !strings.Contains(report, "by dev") {
		t.Errorf("the report does not tell what dev made:\n%s", report)
	}
	t.Log("\n" + report + must("guard", "preview"))

	// Enforced: not before it has run for long enough, or at once.
	configure("mode: recommend\n    approvals: 0", "owners: enforce, token_secrets: audit")
	if _, err := command("guard", "apply", "--as", "alice"); remit.KindOf(err) != remit.Forbidden || !strings.Contains(err.Error(), "--now enforces it at once") {
		t.Errorf("enforced without an audit: %v", err)
	}
	if err := json.Unmarshal([]byte(must("guard", "apply", "--as", "alice", "--now", "--format", "json")), &plan); err != nil {
		t.Fatal(err)
	}
	if plan.State != remit.ResponseVerified || len(plan.Steps) != 1 {
		// owners fail open in both states, so its binding alone changes.
		t.Errorf("the plan is %s, of %d steps", plan.State, len(plan.Steps))
	}
	wait(t, "the guard to refuse", refused)

	// Somebody deletes the binding. It is found; and where Remit acts, mended.
	bindings := c.Client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	look := func() (found remit.Finding) {
		t.Helper()
		global := &globalFlags{dataDir: dir}
		conf, err := readConfig(global)
		if err != nil {
			t.Fatal(err)
		}
		data, err := openDataDir(ctx, global, false)
		if err != nil {
			t.Fatal(err)
		}
		defer data.Close()
		g := guarding{data: data, config: conf, log: slog.New(slog.NewTextHandler(io.Discard, nil))}
		if err := g.look(ctx, conf.Systems[0]); err != nil {
			t.Fatal(err)
		}
		all, _, err := data.Store.Findings(ctx, remit.FindingFilter{Policies: []string{guardDrift}}, remit.PageRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if len(all) > 0 {
			found = all[0]
		}
		return found
	}
	if f := look(); f.ID != "" {
		t.Errorf("nothing was changed, and there is a finding: %+v", f)
	}
	if err := bindings.Delete(ctx, "remit-guard-owners", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	f := look()
	if f.State != remit.Open || f.Severity != remit.High || !strings.Contains(f.Message, "ValidatingAdmissionPolicyBinding remit-guard-owners") {
		t.Errorf("the deletion is found as %+v", f)
	}
	if found := must("findings"); !strings.Contains(found, "The admission guard is not as it is configured") {
		t.Errorf("it is not among the findings:\n%s", found)
	}
	wait(t, "the deletion to act", func() bool { return !refused() })
	configure("mode: enforce", "owners: enforce, token_secrets: audit") // with one approval
	for range 2 {
		look()
	}
	if plans := must("plans", "list", "--state", "proposed"); strings.Count(plans, "guard") != 1 {
		t.Errorf("it is not proposed once:\n%s", plans)
	}
	configure("mode: enforce\n    approvals: 0", "owners: enforce, token_secrets: audit")
	for line := range strings.Lines(must("plans", "list", "--state", "proposed")) {
		if id, _, _ := strings.Cut(line, " "); strings.HasPrefix(id, "rsp_") {
			must("plans", "reject", id, "--as", "bob")
		}
	}
	if f = look(); f.State != remit.Resolved {
		t.Errorf("put back, the finding is %s", f.State)
	}
	wait(t, "the guard to refuse again", refused)
	if _, err := c.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies().Patch(ctx, "remit-guard-owners", types.MergePatchType,
		[]byte(`{"spec":{"failurePolicy":"Fail"}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	// The change came after the last audit; it was there before all the same.
	if out := must("guard", "apply", "--as", "alice"); !strings.Contains(out, "- failurePolicy: Fail") {
		t.Errorf("the change is not mended:\n%s", out)
	}

	// Taken away, and that undone; and then for good.
	if err := json.Unmarshal([]byte(must("guard", "remove", "--as", "alice", "--format", "json")), &plan); err != nil {
		t.Fatal(err)
	}
	wait(t, "the guard to go", func() bool { return !refused() })
	must("plans", "undo", string(plan.ID), "--as", "alice")
	wait(t, "the guard to come back", refused)
	must("guard", "remove", "--as", "alice")
	if all, err := bindings.List(ctx, metav1.ListOptions{}); err != nil || len(all.Items) > 0 {
		t.Errorf("bindings are left: %v %v", all.Items, err)
	}
	// The configuration asks for it still: that is told, and left to people.
	if f = look(); f.State != remit.Open || f.Severity != remit.Medium {
		t.Errorf("taken away, the finding is %+v", f)
	}
	if all, err := bindings.List(ctx, metav1.ListOptions{}); err != nil || len(all.Items) > 0 {
		t.Errorf("what was taken away is put back: %v %v", all.Items, err)
	}
	if out := must("guard", "remove", "--as", "alice"); !strings.Contains(out, "nothing to change") {
		t.Errorf("removed twice: %s", out)
	}
}
