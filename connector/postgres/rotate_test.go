//go:build unix

package postgres_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"remit"
	"remit/connector"
	"remit/connector/connectortest"
	"remit/connector/file"
	"remit/connector/postgres"
	database "remit/e2e/postgres"
	"remit/response"
	"remit/store/sqlstore"
)

var server = sync.OnceValues(func() (*database.Server, error) {
	return database.Run(context.Background(), database.Options{Settings: map[string]string{"log_statement": "all", "log_connections": "on"}})
})

func start(t *testing.T) *database.Server {
	t.Helper()
	s, err := server()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func run(t *testing.T, url string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

func as(t *testing.T, base, user, password string) string {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(user, password)
	return u.String()
}

func openAt(t *testing.T, url string) *postgres.Server {
	t.Helper()
	path := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(path, []byte(url+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := postgres.Open(postgres.Config{URLFile: path})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func order(role string) connector.RotationOrder {
	return connector.RotationOrder{Subject: remit.Subject{Record: remit.KindCredential, Ref: remit.Ref{Kind: "Role", Name: role}}}
}

// rotator is a login that is no superuser and may rotate a role.
func rotator(t *testing.T, s *database.Server, name, role string) *postgres.Server {
	t.Helper()
	run(t, s.URL, `CREATE ROLE "`+name+`" LOGIN CREATEROLE PASSWORD 'rotator'`)
	if version(t, s) >= 160000 {
		run(t, s.URL, `GRANT "`+role+`" TO "`+name+`" WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`)
	}
	return openAt(t, as(t, s.URL, name, "rotator"))
}

func version(t *testing.T, s *database.Server) (n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestIssuer(t *testing.T) {
	s := start(t)
	const role = `odd "role" %I o'brien $1`
	run(t, s.URL, `CREATE ROLE "`+strings.ReplaceAll(role, `"`, `""`)+`" LOGIN PASSWORD 'old'`)
	run(t, s.URL, `CREATE ROLE plain LOGIN CONNECTION LIMIT 7 PASSWORD 'old'`)
	for name, issuer := range map[string]*postgres.Server{role: openAt(t, s.URL), "plain": rotator(t, s, "suite_rotator", "plain")} {
		t.Run(name, func(t *testing.T) {
			connectortest.Issuer(t, connectortest.IssuerSuite{Issuer: issuer, Order: order(name), Accepted: func(t *testing.T, issued connector.Issued, password []byte) bool {
				conn, err := pgx.Connect(t.Context(), as(t, s.URL, issued.Ref.Name, string(password)))
				if err != nil {
					return false
				}
				var current, session string
				if err := conn.QueryRow(t.Context(), "SELECT current_user, session_user").Scan(&current, &session); err != nil || current != name || session != issued.Ref.Name {
					t.Errorf("it acts as %q and signs in as %q: %v", current, session, err)
				}
				return conn.Close(t.Context()) == nil
			}})
		})
	}
}

func TestRefusals(t *testing.T) {
	s := start(t)
	run(t, s.URL, "CREATE ROLE nologin", "CREATE ROLE replicates LOGIN REPLICATION", "CREATE ROLE boss LOGIN SUPERUSER", "CREATE ROLE app_refused LOGIN PASSWORD 'x'")
	admin, weak := openAt(t, s.URL), openAt(t, as(t, s.URL, "app_refused", "x"))
	for name, want := range map[string]remit.ErrorKind{
		"missing": remit.NotFound, "nologin": remit.NotFound, "replicates": remit.Unsupported, "boss": remit.Unsupported, "postgres": remit.Forbidden, "": remit.Unsupported,
	} {
		if _, err := admin.PlanRotation(t.Context(), order(name)); remit.KindOf(err) != want {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	run(t, s.URL, "CREATE ROLE other LOGIN PASSWORD 'x'")
	planned, err := weak.PlanRotation(t.Context(), order("other"))
	if err != nil {
		t.Fatal(err)
	}
	ref, err := weak.Successor(planned.Plan, "aaaaaaaaaa")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := weak.Issue(t.Context(), planned.Plan, ref); remit.KindOf(err) != remit.Forbidden {
		t.Errorf("without a right: %v", err)
	}
	if _, err := admin.End(t.Context(), planned.Plan, connector.Issued{Ref: remit.Ref{Kind: "Role", Name: "boss"}}); remit.KindOf(err) != remit.Conflict {
		t.Errorf("another's role is ended: %v", err)
	}
	wrong := openAt(t, as(t, s.URL, "postgres", "s3cr3t-wrong"))
	if _, err := wrong.PlanRotation(t.Context(), order("other")); remit.KindOf(err) != remit.Unauthorized || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("%v", err)
	}
	path := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(path, []byte("postgres://u:s3cr3t@host:port/x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.Open(postgres.Config{URLFile: path}); remit.KindOf(err) != remit.Invalid || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("%v", err)
	}
}

func TestPassword(t *testing.T) {
	s := start(t)
	run(t, s.URL, "CREATE ROLE target LOGIN PASSWORD 'old'")
	admin := openAt(t, s.URL)
	d, err := admin.Password("target", "")
	if err != nil {
		t.Fatal(err)
	}
	missing, err := admin.Password("no such role", "")
	if err != nil {
		t.Fatal(err)
	}
	candidates, n := []string{"old", "mine"}, 0
	connectortest.Destination(t, connectortest.DestinationSuite{
		Destination: d, Missing: missing,
		Delivery: func(*testing.T) (connector.Delivery, string) {
			n++
			value := strings.Repeat(string(rune('a'+n)), 20)
			candidates = append(candidates, value)
			return connector.Delivery{Secret: connector.NewSecret("token", []byte(value))}, value
		},
		Holds: func(t *testing.T) string {
			for _, c := range candidates {
				if conn, err := pgx.Connect(t.Context(), as(t, s.URL, "target", c)); err == nil {
					_ = conn.Close(t.Context())
					return c
				}
			}
			return ""
		},
		Overwrite: func(t *testing.T) { run(t, s.URL, "ALTER ROLE target PASSWORD 'mine'") },
	})
	if _, err := d.Deliver(t.Context(), remit.Step{}, connector.Delivery{Secret: connector.NewSecret("x", []byte("p\u00e4ss"))}); remit.KindOf(err) != remit.Unsupported {
		t.Errorf("%v", err)
	}
}

var errDied = errors.New("it died")

type dying struct {
	connector.Issuer
	dies *int
}

func (d dying) Issue(ctx context.Context, plan json.RawMessage, ref remit.Ref) (connector.Issued, *connector.Secret, error) {
	issued, secret, err := d.Issuer.Issue(ctx, plan, ref)
	if *d.dies--; *d.dies >= 0 {
		panic(errDied)
	}
	return issued, secret, err
}

// TestRotate replaces a password three times, the last after two crashes, while a
// client opens connections with what its file holds, makes tables and reads them.
func TestRotate(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	run(t, s.URL, "CREATE ROLE app LOGIN PASSWORD 'first'", "CREATE DATABASE app OWNER app", "REVOKE CONNECT ON DATABASE app FROM public",
		`ALTER ROLE app SET search_path TO "$user", shop, public`, "ALTER ROLE app IN DATABASE app SET work_mem TO '7MB'")
	appURL := strings.Replace(s.URL, "/postgres?", "/app?", 1)
	run(t, as(t, appURL, "app", "first"), "CREATE SCHEMA shop", "CREATE TABLE shop.t (n int)")
	issuer := rotator(t, s, "app_rotator", "app")

	dir := t.TempDir()
	path := filepath.Join(dir, "db.json")
	if err := os.WriteFile(path, []byte(`{"username":"app","password":"first"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	connect := func(ctx context.Context) (*pgx.Conn, string, error) {
		var login struct{ Username, Password string }
		text, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(text, &login)
		}
		if err != nil {
			return nil, "", err
		}
		conn, err := pgx.Connect(ctx, as(t, appURL, login.Username, login.Password))
		return conn, login.Password, err
	}
	store, err := sqlstore.Open(ctx, filepath.Join(dir, "remit.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	system, dies := remit.SystemID(postgres.Name, "test"), 0
	responses := response.New(response.Options{
		Store: store, Approvals: func(remit.ID) int { return 0 },
		Issuer: func(context.Context, remit.ID) (connector.Issuer, error) { return dying{issuer, &dies}, nil },
		Destination: func(context.Context, remit.ID, string) (connector.Destination, error) {
			return file.Open(path, "json")
		},
	})
	using, stop := context.WithCancel(ctx)
	var client sync.WaitGroup
	passwords, uses := map[string]bool{}, 0
	client.Go(func() {
		for ; using.Err() == nil; uses++ {
			conn, password, err := connect(using)
			if err == nil {
				passwords[password] = true
				_, err = conn.Exec(using, "INSERT INTO t VALUES (1); CREATE TABLE IF NOT EXISTS shop.made (n int); SELECT count(*) FROM made")
				_ = conn.Close(context.Background())
			}
			if err != nil && using.Err() == nil {
				t.Errorf("the client failed after %d uses: %v", uses, err)
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	rotate := func(crashes int) remit.Response {
		t.Helper()
		ref := order("app").Subject.Ref
		plan, err := responses.PlanRotation(ctx, response.RotationRequest{
			System: system, Subject: remit.Subject{Record: remit.KindCredential, Ref: ref, ID: remit.CredentialID(system, ref, "")},
			To: []string{"file"}, Grace: 200 * time.Millisecond, AskedBy: "alice",
		})
		if err == nil {
			plan, err = responses.Propose(ctx, plan)
		}
		if err != nil {
			t.Fatal(err)
		}
		dies = crashes
		for end := time.Now().Add(time.Minute); plan.State != remit.ResponseVerified && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			func() {
				defer func() {
					if p := recover(); p != nil && p != errDied {
						panic(p)
					}
				}()
				got, err := responses.CarryOut(ctx, plan.ID)
				if err != nil {
					t.Error(err)
				}
				plan.State, plan.Steps = got.State, got.Steps
			}()
		}
		if plan.State != remit.ResponseVerified {
			t.Fatalf("it is %s", plan.State)
		}
		if len(plan.Why) == 0 || plan.Steps[0].Tries != crashes+1 {
			t.Errorf("%d tries", plan.Steps[0].Tries)
		}
		return plan
	}
	for crashes := range 3 {
		rotate(crashes)
	}
	stop()
	client.Wait()
	t.Logf("%d uses of %d passwords", uses, len(passwords))
	if len(passwords) != 4 {
		t.Errorf("%d passwords were used", len(passwords))
	}
	// One login is left, with the settings of the role.
	conn, last, err := connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var current, path1, memory, owner string
	err = conn.QueryRow(ctx, "SELECT current_user, current_setting('search_path'), current_setting('work_mem'), (SELECT tableowner FROM pg_tables WHERE tablename = 'made')").Scan(&current, &path1, &memory, &owner)
	if err != nil || current != "app" || path1 != `"$user", shop, public` || memory != "7MB" || owner != "app" {
		t.Errorf("%s, %s, %s, %s, %v", current, path1, memory, owner, err)
	}
	var logins []string
	if err := conn.QueryRow(ctx, "SELECT array_agg(rolname::text) FROM pg_roles WHERE rolname LIKE 'app%' AND rolcanlogin AND rolname NOT IN ('app_rotator', 'app_refused')").Scan(&logins); err != nil || len(logins) != 1 {
		t.Errorf("%v may log in: %v", logins, err)
	}
	if _, err := pgx.Connect(ctx, as(t, appURL, "app", "first")); err == nil {
		t.Error("the first password is accepted still")
	}
	// No password was ever sent to the server.
	log, err := os.ReadFile(s.Log)
	if err != nil {
		t.Fatal(err)
	}
	delete(passwords, "first")
	for password := range passwords {
		if strings.Contains(string(log), password) {
			t.Error("a password is in the server's log")
		}
	}
	if !strings.Contains(string(log), "SCRAM-SHA-256$4096:") || last == "" {
		t.Error("the log does not show what this test is about")
	}
}
