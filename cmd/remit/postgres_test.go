package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"remit/e2e/postgres"
)

// TestPostgresStore keeps a scan in PostgreSQL and answers from there.
func TestPostgresStore(t *testing.T) {
	manifest := filepath.Join(t.TempDir(), "binding.yaml")
	if err := os.WriteFile(manifest, []byte(`apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: everybody}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: Group, apiGroup: rbac.authorization.k8s.io, name: "system:authenticated"}]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	store := []string{"--store", postgres.Database(t), "--data-dir", t.TempDir()}
	if _, err := run(t, append([]string{"scan", "--from", manifest, "--system", "shop", "--quiet"}, store...)...); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, append([]string{"findings", "--system", "shop"}, store...)...)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "everybody") {
		t.Errorf("findings from PostgreSQL:\n%s", out)
	}
}
