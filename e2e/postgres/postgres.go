//go:build unix

// Package postgres starts real PostgreSQL servers for tests, on loopback, in a
// temporary directory, without fsync.
//
// Most tests want a database and nothing else: [Database] gives a new one, in
// a server that the test process starts at the first call and that ends with
// it. A test about the server itself (its roles, its log) starts its own with
// [Start]; what is not a test uses [Run].
//
// The databases sort as en-US, like most servers in production do and SQLite
// and Go do not: what depends on another order has to say so in its queries.
package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"remit/e2e/process"
)

// startLimit bounds a start, which takes about two seconds on an idle machine.
const startLimit = 2 * time.Minute

// Options say how a server is to be.
type Options struct {
	// Settings are settings of postgresql.conf, such as log_connections: on.
	Settings map[string]string

	// freePort chooses the port; tests of this package set it.
	freePort func() (int, error)
}

// Server is a running server.
type Server struct {
	// URL connects to the database postgres as the superuser postgres.
	URL string
	// Log is the path of the server's log.
	Log string

	password string
	port     int
	group    *process.Group
	process  *process.Process
	last     atomic.Int64 // number of the last database
}

var shared = sync.OnceValues(func() (*Server, error) {
	return Run(context.Background(), Options{})
})

// Database returns the URL of a new, empty database in the server of this test
// process, which the first call starts. The role of the URL owns the database
// and is no superuser. The end of the test drops both.
func Database(t testing.TB) string {
	t.Helper()
	s, err := shared()
	if err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	return s.Database(t)
}

// Start starts a server for one test, which ends with the test.
func Start(t testing.TB, set ...func(*Options)) *Server {
	t.Helper()
	var o Options
	for _, f := range set {
		f(&o)
	}
	s, err := Run(t.Context(), o)
	if err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("the PostgreSQL server of this test: %v", err)
		}
	})
	return s
}

// Run starts a server and returns when it answers. The context bounds the
// start only; Close ends the server.
func Run(ctx context.Context, o Options) (_ *Server, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("PostgreSQL did not start within %v", startLimit))
	defer cancel()
	if o.freePort == nil {
		o.freePort = process.FreePort
	}
	programs, err := findPrograms()
	if err != nil {
		return nil, err
	}
	group, err := process.NewGroup("remit-postgres")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = group.Close() // what ended by itself is in err already
		}
	}()
	s := &Server{password: rand.Text(), group: group}
	credential, err := unprivileged(group.Dir())
	if err != nil {
		return nil, err
	}
	if err := s.initialize(ctx, programs, credential); err != nil {
		return nil, err
	}
	if err := s.start(ctx, programs, credential, o); err != nil {
		return nil, err
	}
	return s, nil
}

// programs are the paths of PostgreSQL's binaries.
type programs struct{ initdb, postgres string }

// findPrograms looks where PostgreSQL usually is: Debian keeps the server's
// binaries out of PATH.
func findPrograms() (programs, error) {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	dirs = append(dirs, "/usr/local/bin")
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",
		"/usr/pgsql-*/bin",
		"/opt/homebrew/opt/postgresql*/bin",
	} {
		found, _ := filepath.Glob(pattern) // the pattern is valid
		slices.Reverse(found)              // the newest first
		dirs = append(dirs, found...)
	}
	return findProgramsIn(dirs)
}

func findProgramsIn(dirs []string) (programs, error) {
	for _, dir := range dirs {
		// A directory of links may hold one of the two only; the links' target
		// then holds both.
		initdb, err := filepath.EvalSymlinks(filepath.Join(dir, "initdb"))
		if err != nil {
			continue
		}
		for _, postgres := range []string{filepath.Join(dir, "postgres"), filepath.Join(filepath.Dir(initdb), "postgres")} {
			if path, err := exec.LookPath(postgres); err == nil {
				return programs{initdb: initdb, postgres: path}, nil
			}
		}
	}
	return programs{}, errors.New("PostgreSQL 15 or later is needed and its initdb and postgres are neither in PATH nor in /usr/lib/postgresql: install it (Debian: apt-get install postgresql; macOS: brew install postgresql)")
}

// unprivileged hands the directory to a user that PostgreSQL agrees to run as,
// and returns that user's credential. It returns nil where this process itself
// runs as such a user.
func unprivileged(dir string) (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	var u *user.User
	var err error
	for _, name := range []string{"postgres", "nobody"} {
		if u, err = user.Lookup(name); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody: %w; run as another user", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user id of %s: %w", u.Username, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("group id of %s: %w", u.Username, err)
	}
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		return nil, fmt.Errorf("hand %s to the user %s, as which PostgreSQL runs: %w", dir, u.Username, err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

func (s *Server) dataDir() string { return s.group.Path("data") }

// initialize makes the data directory.
func (s *Server) initialize(ctx context.Context, programs programs, credential *syscall.Credential) error {
	passwordFile := s.group.Path("password")
	if err := os.WriteFile(passwordFile, []byte(s.password+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the superuser's password: %w", err)
	}
	if credential != nil {
		if err := os.Chown(passwordFile, int(credential.Uid), int(credential.Gid)); err != nil {
			return fmt.Errorf("hand the password to the user of PostgreSQL: %w", err)
		}
	}
	p, err := s.group.Start(process.Command{
		Name: "initdb",
		Path: programs.initdb,
		Args: []string{
			"--pgdata=" + s.dataDir(), "--username=postgres",
			"--auth=scram-sha-256", "--pwfile=" + passwordFile,
			"--encoding=UTF8", "--locale=C", // the language of the messages
			"--locale-provider=icu", "--icu-locale=en-US",
			"--no-sync", "--no-instructions",
		},
		Env:        environment(),
		Credential: credential,
	})
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
		if !p.Succeeded() {
			return fmt.Errorf("make a database directory with %s (PostgreSQL 15 or later with ICU): %w", programs.initdb, p.Err())
		}
		p.Kill() // it has ended, as it should
		return nil
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("make a database directory with %s: %w", programs.initdb, context.Cause(ctx))
	}
}

// start starts the server on a free port, and on another one if some process
// takes that port first.
func (s *Server) start(ctx context.Context, programs programs, credential *syscall.Credential, o Options) error {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": "",
		"max_connections":         "200",
		"shared_buffers":          "64MB",
		// A crash of the machine may lose a test's data.
		"fsync":              "off",
		"synchronous_commit": "off",
		"full_page_writes":   "off",
		// Its files lie in the data directory, and so vanish with it.
		"dynamic_shared_memory_type": "mmap",
	}
	maps.Copy(settings, o.Settings)
	for attempt := 1; ; attempt++ {
		port, err := o.freePort()
		if err != nil {
			return err
		}
		s.port = port
		s.URL = s.url("postgres", s.password, "postgres")
		args := []string{"-D", s.dataDir(), "-p", strconv.Itoa(port)}
		for _, name := range slices.Sorted(maps.Keys(settings)) {
			args = append(args, "-c", name+"="+settings[name])
		}
		// The server itself and not pg_ctl, which would take it out of the
		// sight of this process. On SIGQUIT it ends at once and frees its
		// shared memory, which SIGKILL would leave behind.
		name := "postgres"
		if attempt > 1 {
			name += "-" + strconv.Itoa(attempt) // a log of its own
		}
		s.process, err = s.group.Start(process.Command{
			Name: name, Path: programs.postgres, Args: args,
			Env: environment(), Credential: credential, DeathSignal: syscall.SIGQUIT,
		})
		if err != nil {
			return err
		}
		s.Log = s.process.Log()
		err = s.process.Wait(ctx, func(ctx context.Context) error {
			return s.query(ctx, "SELECT 1")
		})
		if err == nil || attempt == 5 || !s.process.LogContains("Address already in use") {
			return err
		}
		s.process.Kill() // it has ended: that is no error any more
	}
}

// query runs a statement as the superuser.
func (s *Server) query(ctx context.Context, sql string) (err error) {
	conn, err := pgx.Connect(ctx, s.URL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	_, err = conn.Exec(ctx, sql)
	return err
}

// Close ends the server and removes its directory. Its error says if the
// server had ended by itself before.
func (s *Server) Close() error {
	err := s.group.Err()
	return errors.Join(err, s.process.Stop(syscall.SIGQUIT, 10*time.Second), s.group.Close())
}

// Dir is the server's temporary directory.
func (s *Server) Dir() string { return s.group.Dir() }

// Pids are the server's main process and its guard.
func (s *Server) Pids() []int { return s.group.Pids() }

// Database returns the URL of a new, empty database, whose role owns it and is
// no superuser. The end of the test drops both.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name, url, err := s.newDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for _, sql := range []string{"DROP DATABASE " + name + " WITH (FORCE)", "DROP ROLE " + name} {
			if err := s.query(ctx, sql); err != nil {
				t.Errorf("%s: %v", sql, err)
			}
		}
	})
	return url
}

// NewDatabase returns the URL of a new, empty database like Database, which
// stays as long as the server.
func (s *Server) NewDatabase(ctx context.Context) (string, error) {
	_, url, err := s.newDatabase(ctx)
	return url, err
}

func (s *Server) newDatabase(ctx context.Context) (name, url string, err error) {
	name = "test_" + strconv.FormatInt(s.last.Add(1), 10)
	password := rand.Text() // letters and digits
	for _, sql := range []string{
		"CREATE ROLE " + name + " LOGIN PASSWORD '" + password + "'",
		"CREATE DATABASE " + name + " OWNER " + name,
	} {
		if err := s.query(ctx, sql); err != nil {
			return "", "", fmt.Errorf("make the database %s: %w; %s", name, err, s.process.Tail(10))
		}
	}
	return name, s.url(name, password, name), nil
}

func (s *Server) url(user, password, database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(user, password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)),
		Path:     database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// environment is that of this process without what would configure the server
// behind the test's back.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "PG") || strings.HasPrefix(v, "LC_") || strings.HasPrefix(v, "LANG")
	})
}
