package postgres

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"remit"
	"remit/connector"
)

var _ connector.Issuer = (*Server)(nil)

// kindRole is the kind of a role as a Ref.
const kindRole = "Role"

// commentPrefix begins the comment of a login role that a rotation made; the name of
// the role that it signs in for follows.
const commentPrefix = "Login made by Remit for the role "

// plan is what a rotation stands on.
type plan struct {
	Role  string `json:"role"`  // as which the sessions act
	Limit int    `json:"limit"` // of connections, -1 for none
	Until string `json:"until,omitempty"`
}

func readPlan(text json.RawMessage) (p plan, err error) {
	if err = json.Unmarshal(text, &p); err == nil && p.Role == "" {
		err = errors.New("it names no role")
	}
	if err != nil {
		err = remit.Errorf(remit.Invalid, "rotate", "the plan cannot be read: %w", err)
	}
	return p, err
}

// role is what PostgreSQL tells of a role.
type role struct {
	Name, Comment             string
	Login, Super, Replication bool
	Limit                     int
}

const selectRole = `SELECT rolname, coalesce(shobj_description(oid, 'pg_authid'), ''), rolcanlogin, rolsuper, rolreplication, rolconnlimit FROM pg_roles `

func readRole(ctx context.Context, conn *pgx.Conn, name string) (role, error) {
	rows, err := conn.Query(ctx, selectRole+"WHERE rolname = $1", name)
	if err != nil {
		return role{}, err
	}
	r, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[role])
	if errors.Is(err, pgx.ErrNoRows) {
		err = remit.Errorf(remit.NotFound, "read role", "there is no role %q", name)
	}
	return r, err
}

// PlanRotation implements [connector.Issuer]. The subject is a role, or a login role
// that an earlier rotation made for it.
func (s *Server) PlanRotation(ctx context.Context, o connector.RotationOrder) (planned connector.Rotation, err error) {
	const op = "plan rotation"
	name := o.Subject.Ref.Name
	switch {
	case o.Subject.Ref.Kind != kindRole || name == "":
		return planned, remit.Errorf(remit.Unsupported, op, "%s is no role: PostgreSQL has no other credential", o.Subject.Ref)
	case o.As != "" || o.Freeze:
		return planned, remit.Errorf(remit.Invalid, op, "PostgreSQL has one sort of credential only, and ends it at once")
	}
	err = s.with(ctx, op, func(ctx context.Context, conn *pgx.Conn) error {
		r, err := readRole(ctx, conn, name)
		if err != nil {
			return err
		}
		if base, ok := strings.CutPrefix(r.Comment, commentPrefix); ok {
			if r, err = readRole(ctx, conn, base); err != nil {
				return err
			}
		}
		var current, session string
		if err := conn.QueryRow(ctx, "SELECT current_user, session_user").Scan(&current, &session); err != nil {
			return err
		}
		switch {
		case r.Name == current || r.Name == session || name == session:
			return remit.Errorf(remit.Forbidden, op, "%q is what Remit itself signs in as: rotate its password with another login", r.Name)
		case r.Super || r.Replication:
			return remit.Errorf(remit.Unsupported, op, "%q is a superuser or replicates, which a member does not inherit: rotate its password by hand", r.Name)
		}
		rows, err := conn.Query(ctx, selectRole+`WHERE rolcanlogin AND (rolname = $1 OR shobj_description(oid, 'pg_authid') = $2) ORDER BY rolname = $3 DESC, rolname`,
			r.Name, commentPrefix+r.Name, name)
		if err != nil {
			return err
		}
		old, err := pgx.CollectRows(rows, pgx.RowToStructByPos[role])
		if err != nil {
			return err
		}
		if len(old) == 0 {
			return remit.Errorf(remit.NotFound, op, "nobody signs in as %q: it may not log in, and no rotation made a login for it", r.Name)
		}
		p := plan{Role: r.Name, Limit: old[0].Limit}
		if o.Lifetime > 0 {
			p.Until = s.now().Add(o.Lifetime).UTC().Format(time.RFC3339)
		}
		var minus []string
		for _, l := range old {
			planned.Old = append(planned.Old, remit.Ref{Kind: kindRole, Name: l.Name})
			minus = append(minus, "login of "+l.Name)
		}
		planned.Plan, err = json.Marshal(p)
		diff := func(sign string, lines []string) (b strings.Builder) {
			for _, line := range lines {
				fmt.Fprintf(&b, "%s %s\n", sign, line)
			}
			return b
		}
		plus := diff("+", []string{"role " + p.Role + "_…: may log in, member of " + p.Role + ", acts as it", "its settings: those of " + p.Role})
		gone := diff("-", minus)
		planned.Issue = remit.Step{
			Object: remit.Ref{Kind: kindRole, Name: r.Name}, Diff: plus.String(),
			Does: fmt.Sprintf("Make a login role of its own with a new password, a member of %q, whose sessions act as %q.", r.Name, r.Name),
		}
		planned.End = remit.Step{
			Object: planned.Old[0], Diff: gone.String(),
			Does:   fmt.Sprintf("Take from %s the right to log in and the password; a login role that a rotation made is dropped when nothing needs it. Sessions that are open go on.", names(planned.Old)),
			Breaks: "Whoever connects with the old user name and password.",
		}
		planned.Why = []string{
			"A role has one password, and to change it would end the old one before anybody has the new. So the user name changes with the password: deliver both (the parts username and password). What the role owns and may do stays as it is.",
			fmt.Sprintf("pg_hba.conf must let the new login in: a line that names %q does so only for that name, one that names +%s for all its logins. Remit tries the new login before it delivers it.", r.Name, r.Name),
			"Use is seen among the sessions of the server (pg_stat_activity).",
		}
		return err
	})
	return planned, err
}

func names(all []remit.Ref) string {
	out := make([]string, len(all))
	for i, r := range all {
		out[i] = fmt.Sprintf("%q", r.Name)
	}
	return strings.Join(out, ", ")
}

// Successor implements [connector.Issuer].
func (s *Server) Successor(text json.RawMessage, attempt string) (remit.Ref, error) {
	p, err := readPlan(text)
	if err != nil {
		return remit.Ref{}, err
	}
	const longest = 63 // NAMEDATALEN - 1, in bytes
	base := p.Role
	if most := longest - len(attempt) - 1; len(base) > most {
		base = strings.ToValidUTF8(base[:most], "")
	}
	return remit.Ref{Kind: kindRole, Name: base + "_" + attempt}, nil
}

// Issue implements [connector.Issuer].
func (s *Server) Issue(ctx context.Context, text json.RawMessage, as remit.Ref) (issued connector.Issued, secret *connector.Secret, err error) {
	const op = "issue password"
	p, err := readPlan(text)
	if err != nil {
		return issued, nil, err
	}
	password := []byte(rand.Text())
	secret = connector.NewSecret("password", password).With("username", []byte(as.Name)).
		With("pgpass", fmt.Appendf(nil, "*:*:*:%s:%s\n", strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(as.Name), password))
	credentials, err := json.Marshal(map[string]string{"username": as.Name, "password": string(password)})
	if err != nil {
		return issued, nil, remit.Errorf(remit.Internal, op, "%w", err)
	}
	secret.With("json", append(credentials, '\n'))
	verifier, err := scramVerifier(password)
	if err != nil {
		return issued, nil, err
	}
	err = s.inTx(ctx, op, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL password_encryption = 'scram-sha-256'"); err != nil {
			return err
		}
		// The role and its password are one statement: there is no moment in which
		// it exists without.
		create := fmt.Sprintf("CREATE ROLE %%I LOGIN CONNECTION LIMIT %d PASSWORD %%L IN ROLE %%I", p.Limit)
		args := []string{as.Name, verifier, p.Role}
		if p.Until != "" {
			create, args = strings.Replace(create, " IN ROLE", " VALID UNTIL %L IN ROLE", 1), []string{as.Name, verifier, p.Until, p.Role}
		}
		if err := exec(ctx, tx, create, args...); err != nil {
			return err
		}
		if err := exec(ctx, tx, "COMMENT ON ROLE %I IS %L", as.Name, commentPrefix+p.Role); err != nil {
			return err
		}
		if err := copySettings(ctx, tx, p.Role, as.Name); err != nil {
			return err
		}
		return exec(ctx, tx, "ALTER ROLE %I SET role TO %I", as.Name, p.Role)
	})
	if err == nil {
		err = s.try(ctx, op, as.Name, string(password))
	}
	if err != nil {
		secret.Zero()
		return issued, nil, err
	}
	issued = connector.Issued{Ref: as}
	if p.Until != "" {
		issued.Expires, _ = time.Parse(time.RFC3339, p.Until) // it was written so
	}
	return issued, secret, nil
}

// copySettings gives a login the settings of the role, which count for the one that
// signs in. FROM CURRENT takes a list as a list, as that of search_path.
func copySettings(ctx context.Context, tx pgx.Tx, from, to string) error {
	type setting struct{ Database, Name, Value string }
	rows, err := tx.Query(ctx, `SELECT coalesce(d.datname, ''), split_part(c, '=', 1), substr(c, strpos(c, '=') + 1)
		FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) c
		WHERE r.rolname = $1`, from)
	if err != nil {
		return err
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[setting])
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.Name == "role" {
			continue
		}
		if _, err := tx.Exec(ctx, "SELECT set_config($1, $2, true)", s.Name, s.Value); err != nil {
			return err
		}
		statement, args := "ALTER ROLE %I SET %I FROM CURRENT", []string{to, s.Name}
		if s.Database != "" {
			statement, args = "ALTER ROLE %I IN DATABASE %I SET %I FROM CURRENT", []string{to, s.Database, s.Name}
		}
		// A name with a dot is two identifiers.
		if prefix, name, ok := strings.Cut(s.Name, "."); ok {
			statement = strings.Replace(statement, "SET %I", "SET %I.%I", 1)
			args = append(args[:len(args)-1], prefix, name)
		}
		if err := exec(ctx, tx, statement, args...); err != nil {
			return remit.Errorf(cmp.Or(remit.KindOf(explain("", err)), remit.Unavailable), "issue password", "the setting %s of %q cannot be given to its new login: %w", s.Name, from, err)
		}
	}
	return nil
}

// try signs in as a login: whether pg_hba.conf lets it in is known by nothing else.
func (s *Server) try(ctx context.Context, op, user, password string) error {
	c, err := s.config()
	if err != nil {
		return err
	}
	c.User, c.Password = user, password
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, c)
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		if pg.Code == "42501" || pg.Code == "3D000" { // it signed in, and may not use this database
			return nil
		}
		return remit.Errorf(remit.Unsupported, op, "the server does not let the new login %q in: %s (%s); see its pg_hba.conf", user, pg.Message, pg.Code)
	}
	if err != nil {
		return explain(op, err)
	}
	return explain(op, conn.Close(ctx))
}

// End implements [connector.Issuer]. A login ends by losing the right to log in; one
// that a rotation made is dropped as well, unless a session or an object still needs
// it.
func (s *Server) End(ctx context.Context, text json.RawMessage, which connector.Issued) (time.Time, error) {
	const op = "end password"
	p, err := readPlan(text)
	if err != nil {
		return time.Time{}, err
	}
	made := false
	err = s.inTx(ctx, op, func(ctx context.Context, tx pgx.Tx) error {
		r, err := readRole(ctx, tx.Conn(), which.Ref.Name)
		if err != nil {
			return err
		}
		if made = r.Comment == commentPrefix+p.Role; !made && r.Name != p.Role {
			return remit.Errorf(remit.Conflict, op, "%s was not made by a rotation of %q, and stays", which.Ref, p.Role)
		}
		return exec(ctx, tx, "ALTER ROLE %I NOLOGIN PASSWORD NULL", r.Name)
	})
	if remit.KindOf(err) == remit.NotFound {
		return time.Time{}, nil
	}
	if err != nil || !made {
		return time.Time{}, err
	}
	err = s.inTx(ctx, op, func(ctx context.Context, tx pgx.Tx) error {
		var used bool
		err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1)", which.Ref.Name).Scan(&used)
		if err != nil || used {
			return err
		}
		return exec(ctx, tx, "DROP ROLE %I", which.Ref.Name)
	})
	if kind := remit.KindOf(err); kind == remit.Unavailable || kind == remit.NotFound {
		err = nil // it has ended; what is left of it owns something, or is gone by another hand
	}
	return time.Time{}, err
}

// How long and how often the sessions are looked at: short ones are seen only while
// they last.
const (
	watchFor   = 2 * time.Second
	watchEvery = 20 * time.Millisecond
)

// Used implements [connector.Issuer]: whether there is a session of that login.
func (s *Server) Used(ctx context.Context, _ json.RawMessage, issued connector.Issued) (used time.Time, err error) {
	err = s.with(ctx, "look for use", func(ctx context.Context, conn *pgx.Conn) error {
		for end := time.Now().Add(watchFor); ; {
			var seen bool
			err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1 AND application_name <> $2)", issued.Ref.Name, ownName).Scan(&seen)
			if seen {
				used = s.now().UTC()
			}
			if err != nil || seen || time.Now().After(end) {
				return err
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(watchEvery):
			}
		}
	})
	return used, err
}

// Lives implements [connector.Issuer].
func (s *Server) Lives(ctx context.Context, _ json.RawMessage, which connector.Issued) (lives bool, err error) {
	err = s.with(ctx, "look for role", func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1 AND rolcanlogin AND coalesce(rolvaliduntil, 'infinity') > now())", which.Ref.Name).Scan(&lives)
	})
	return lives, err
}
