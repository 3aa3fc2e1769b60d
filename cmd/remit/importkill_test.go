//go:build unix

package main

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"remit"
	"remit/activity"
	"remit/activity/archive"
	"remit/store/sqlstore"
)

// writeAuditLog writes a log of n events of many accounts, whose tokens are
// renewed now and then, and every tenth event twice.
func writeAuditLog(t *testing.T, path string, n int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	start := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		account := random.IntN(200)
		line := fmt.Sprintf(`{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"id-%d","stage":"ResponseComplete","verb":"get",`+
			`"user":{"username":"system:serviceaccount:ns:a%d","extra":{"authentication.kubernetes.io/credential-id":["JTI=%d-%d"]}},`+
			`"sourceIPs":["10.0.0.%d"],"userAgent":"x/1","objectRef":{"resource":"configmaps","namespace":"ns","name":"c%d"},`+
			`"responseStatus":{"code":200},"requestReceivedTimestamp":"%s"}`,
			i, account, account, i/5000, account, random.IntN(60), start.Add(time.Duration(i)*200*time.Millisecond).Format(time.RFC3339Nano))
		fmt.Fprintln(w, line)
		if i%10 == 0 {
			fmt.Fprintln(w, line)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
}

// counted sums up what a data directory holds: events in usage, in presences and
// in the archive.
func counted(t *testing.T, dir string) (usage, presences, events int64) {
	t.Helper()
	ctx := context.Background()
	store, err := sqlstore.Open(ctx, filepath.Join(dir, "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	usage, presences = sums(t, store)
	return usage, presences, int64(len(archived(t, dir)))
}

// archived are the IDs of the events in the archive of a data directory, none of
// which may be there twice.
func archived(t *testing.T, dir string) map[string]bool {
	t.Helper()
	ctx := context.Background()
	store, err := sqlstore.Open(ctx, filepath.Join(dir, "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	a, err := archive.Open(filepath.Join(dir, "archive"), archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	files, err := activity.Manifest(ctx, store, "", time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	err = a.Query(ctx, files, archive.Query{}, func(e *remit.Activity, _ []byte) error {
		if seen[e.ID] {
			t.Errorf("%s is in the archive twice", e.ID)
		}
		seen[e.ID] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

// sums are the events in usage and in presences of a store.
func sums(t *testing.T, store *sqlstore.Store) (usage, presences int64) {
	t.Helper()
	ctx := context.Background()
	if err := remit.Each(ctx, remit.ActivityFilter{}, store.Usage, func(u remit.Usage) error { usage += u.Count; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := remit.Each(ctx, remit.ActivityFilter{}, store.Presences, func(p remit.Presence) error { presences += p.Count; return nil }); err != nil {
		t.Fatal(err)
	}
	return usage, presences
}

// TestImportKilled kills an import again and again at random moments and starts
// it anew: in the end every event is counted and archived exactly once.
// REMIT_KILLS sets how often.
func TestImportKilled(t *testing.T) {
	kills, events := 8, 20_000
	if n, err := strconv.Atoi(os.Getenv("REMIT_KILLS")); err == nil {
		kills = n
	}
	dir := t.TempDir()
	binary := built(t)
	log := filepath.Join(dir, "audit.log")
	writeAuditLog(t, log, events)
	data := filepath.Join(dir, "data")
	started := func() *exec.Cmd {
		return exec.Command(binary, "import", "activity", "--data-dir", data, "--checkpoint-every", "50ms", log)
	}
	killed, finished := 0, 0
	for killed < kills {
		if finished > 0 { // nothing is left to be interrupted: begin with an empty directory
			if u, p, a := counted(t, data); u != int64(events) || p != int64(events) || a != int64(events) {
				t.Fatalf("after %d kills: %d in usage, %d in presences, %d in the archive, of %d", killed, u, p, a, events)
			}
			os.RemoveAll(data)
			finished = 0
		}
		cmd := started()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("import: %v", err)
			}
			finished++
		case <-time.After(time.Duration(50+rand.IntN(900)) * time.Millisecond):
			_ = cmd.Process.Kill()
			if err := <-done; err == nil {
				finished++
			} else {
				killed++
			}
		}
	}
	if out, err := started().CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if u, p, a := counted(t, data); u != int64(events) || p != int64(events) || a != int64(events) {
		t.Errorf("after %d kills: %d in usage, %d in presences, %d in the archive, of %d", killed, u, p, a, events)
	}
	t.Logf("%d kills", killed)
}
