//go:build unix

package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"remit/e2e/process"
)

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func value[T any](t *testing.T, conn *pgx.Conn, sql string) T {
	t.Helper()
	var v T
	if err := conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func TestDatabasesAreIndependent(t *testing.T) {
	t.Parallel()
	a, b := connect(t, Database(t)), connect(t, Database(t))
	if _, err := a.Exec(t.Context(), "CREATE TABLE things (name text)"); err != nil {
		t.Fatal(err)
	}
	if value[bool](t, b, "SELECT to_regclass('things') IS NOT NULL") {
		t.Error("the other database has the table too")
	}
	if value[string](t, a, "SHOW is_superuser") != "off" {
		t.Error("the role of a test's database is a superuser")
	}
}

func TestDatabaseSortsAsProductionDoes(t *testing.T) {
	t.Parallel()
	conn := connect(t, Database(t))
	if got := value[string](t, conn, "SELECT string_agg(n, '' ORDER BY n) FROM (VALUES ('b'), ('B'), ('a'), ('A')) v(n)"); got != "aAbB" {
		t.Errorf("sorted: %s", got)
	}
}

func TestDatabaseEndsWithItsTest(t *testing.T) {
	t.Parallel()
	var url string
	t.Run("", func(t *testing.T) {
		url = Database(t)
		connect(t, url)
	})
	_, err := pgx.Connect(t.Context(), url)
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != "28P01" && refused.Code != "3D000" {
		t.Errorf("connect to a dropped database: %v", err)
	}
}

func TestServer(t *testing.T) {
	t.Parallel()
	start := time.Now()
	s := Start(t, func(o *Options) { o.Settings = map[string]string{"log_statement": "all"} })
	t.Logf("started in %v", time.Since(start).Round(time.Millisecond))
	conn := connect(t, s.URL)
	if value[string](t, conn, "SHOW is_superuser") != "on" || value[string](t, conn, "SHOW fsync") != "off" {
		t.Error("the role is no superuser, or the server syncs")
	}
	log, err := os.ReadFile(s.Log)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), "SHOW is_superuser") {
		t.Errorf("the setting log_statement had no effect; log:\n%s", log)
	}
	config, err := pgx.ParseConfig(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	config.Password = "wrong"
	_, err = pgx.ConnectConfig(t.Context(), config)
	if err == nil || !strings.Contains(err.Error(), "password authentication failed") {
		t.Errorf("connect with a wrong password: %v", err)
	}
	if _, err := os.Stat(s.Dir()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory after Close: %v", err)
	}
}

func TestAnotherPortWhenTheFirstIsTaken(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	tries := 0
	s := Start(t, func(o *Options) {
		o.freePort = func() (int, error) {
			if tries++; tries == 1 {
				return taken.Addr().(*net.TCPAddr).Port, nil
			}
			return process.FreePort()
		}
	})
	if tries != 2 {
		t.Errorf("%d tries", tries)
	}
	connect(t, s.URL)
}

func TestRunTellsWhyItFailed(t *testing.T) {
	t.Parallel()
	_, err := Run(t.Context(), Options{Settings: map[string]string{"no_such_setting": "1"}})
	if err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("error %v", err)
	}
}

func TestAbsentProgramsAreAnError(t *testing.T) {
	t.Parallel()
	_, err := findProgramsIn([]string{t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "apt-get install postgresql") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v", err)
	}
}

func TestProgramsBehindLinks(t *testing.T) {
	t.Parallel()
	real, links := t.TempDir(), t.TempDir()
	for _, name := range []string{"initdb", "postgres"} {
		if err := os.WriteFile(filepath.Join(real, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(real, "initdb"), filepath.Join(links, "initdb")); err != nil {
		t.Fatal(err)
	}
	found, err := findProgramsIn([]string{t.TempDir(), links})
	if err != nil || found.postgres != filepath.Join(real, "postgres") {
		t.Errorf("%+v, %v", found, err)
	}
}

// TestNothingOutlivesAKilledParent kills a process that has a server, in a way
// it cannot react to.
func TestNothingOutlivesAKilledParent(t *testing.T) {
	t.Parallel()
	if os.Getenv("REMIT_E2E_CHILD") != "" {
		s, err := Run(context.Background(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := json.NewEncoder(os.Stdout).Encode(map[string]any{"dir": s.Dir(), "pids": s.Pids(), "url": s.URL}); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		t.Error("was not killed")
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNothingOutlivesAKilledParent$")
	cmd.Env = append(os.Environ(), "REMIT_E2E_CHILD=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var started struct {
		Dir  string
		Pids []int
		URL  string
	}
	if err := json.NewDecoder(out).Decode(&started); err != nil {
		t.Error(err)
	} else {
		connect(t, started.URL) // so that there is a session to end, too
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait() // says that it was killed
	start := time.Now()
	for {
		_, err := os.Stat(started.Dir)
		if errors.Is(err, os.ErrNotExist) && !slices.ContainsFunc(started.Pids, process.Alive) {
			break
		}
		if time.Since(start) > 30*time.Second {
			t.Fatalf("30 s after the kill: of %v something is left", started)
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("gone %v after the kill", time.Since(start).Round(time.Millisecond))
}
