//go:build unix

package sqlstore_test

import (
	"net/url"
	"strings"
	"testing"

	"remit"
	"remit/e2e/postgres"
	"remit/store/sqlstore"
	"remit/store/storetest"
)

func newPostgres(t testing.TB) storetest.Store {
	return openStore(t, postgres.Database(t))
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	storetest.Run(t, newPostgres)
}

// TestPostgresWalking is TestSQLiteWalking for PostgreSQL.
func TestPostgresWalking(t *testing.T) {
	if testing.Short() {
		t.Skip("the suite a second time")
	}
	t.Cleanup(sqlstore.AlwaysWalk())
	storetest.Run(t, newPostgres)
}

func TestPostgresCrash(t *testing.T) {
	t.Parallel()
	storetest.Crash(t, openURL, postgres.Database(t))
}

func TestPostgresOpenAtOnce(t *testing.T) {
	t.Parallel()
	openAtOnce(t, postgres.Database(t))
}

// TestPostgresOpenErrors: an error says what happened, to what, and what to
// do, and never the password.
func TestPostgresOpenErrors(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-and-more"
	right := postgres.Database(t)
	changed := func(change func(*url.URL)) string {
		u, err := url.Parse(right)
		if err != nil {
			t.Fatal(err)
		}
		change(u)
		return u.String()
	}
	for what, c := range map[string]struct {
		url  string
		kind remit.ErrorKind
		says string
	}{
		"wrong password": {changed(func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), secret) }), remit.Unauthorized, "password"},
		"no server": {changed(func(u *url.URL) {
			u.Host, u.User = "127.0.0.1:1", url.UserPassword("remit", secret)
		}), remit.Unavailable, "is the server running"},
		"no such host":     {"postgres://remit:" + secret + "@host.invalid/remit", remit.Unavailable, "host.invalid"},
		"no such database": {changed(func(u *url.URL) { u.Path = "/none" }), remit.NotFound, "CREATE DATABASE"},
		"no URL":           {"postgres://remit:" + secret + "@[::1/remit", remit.Invalid, "postgres://"},
	} {
		s, err := sqlstore.Open(t.Context(), c.url)
		if err == nil {
			_ = s.Close()
			t.Errorf("%s: it opens", what)
			continue
		}
		if remit.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v (%s), want %s and %q", what, err, remit.KindOf(err), c.kind, c.says)
		}
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error tells the password: %v", what, err)
		}
	}
}
