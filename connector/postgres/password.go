package postgres

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"remit"
	"remit/connector"
)

// Password is the password of a role as the destination of a secret that another
// system issues. It implements [connector.Destination]. To verify it, Remit's login
// must be a superuser: nobody else can read what the server keeps of a password.
type Password struct {
	*Server
	role, part string
}

var _ connector.Destination = (*Password)(nil)

// Password is the destination of a part of a secret, "" for its main one.
func (s *Server) Password(role, part string) (*Password, error) {
	if role == "" {
		return nil, remit.Errorf(remit.Invalid, "read destination", "no role is named: write role:NAME")
	}
	return &Password{s, role, part}, nil
}

func (d *Password) ref() remit.Ref { return remit.Ref{Kind: kindRole, Name: d.role} }

// verifier reads what the server keeps of the password.
func (d *Password) verifier(ctx context.Context, op string) (text string, err error) {
	err = d.with(ctx, op, func(ctx context.Context, conn *pgx.Conn) error {
		if _, err := readRole(ctx, conn, d.role); err != nil {
			return err
		}
		return conn.QueryRow(ctx, "SELECT coalesce(rolpassword, '') FROM pg_authid WHERE rolname = $1", d.role).Scan(&text)
	})
	return text, err
}

// Plan implements [connector.Destination].
func (d *Password) Plan(ctx context.Context, _ connector.Delivery) (connector.PlannedDelivery, error) {
	if _, err := d.verifier(ctx, "plan delivery"); err != nil {
		return connector.PlannedDelivery{}, err
	}
	return connector.PlannedDelivery{
		Step: remit.Step{
			Object: d.ref(), Does: fmt.Sprintf("Set the password of the role %q to the new secret.", d.role),
			Diff: "- password: the old one\n+ password: the new one\n", Breaks: "Whoever connects with the old password; sessions that are open go on.",
		},
		Why: []string{fmt.Sprintf("A role has one password: the old one of %q ends at once, before its users have the new. List it last, and expect that they fail to connect until then.", d.role)},
	}, nil
}

type passwordReceipt struct {
	Verifier string `json:"verifier"` // a digest of it
}

// Deliver implements [connector.Destination].
func (d *Password) Deliver(ctx context.Context, _ remit.Step, l connector.Delivery) (json.RawMessage, error) {
	const op = "deliver"
	value, err := l.Secret.Part(d.part)
	if err != nil {
		return nil, err
	}
	verifier, err := scramVerifier(value)
	if err != nil {
		return nil, err
	}
	err = d.inTx(ctx, op, func(ctx context.Context, tx pgx.Tx) error {
		return exec(ctx, tx, "ALTER ROLE %I PASSWORD %L", d.role, verifier)
	})
	if err != nil {
		return nil, err
	}
	return json.Marshal(passwordReceipt{connector.SecretDigest([]byte(verifier))})
}

// Verify implements [connector.Destination].
func (d *Password) Verify(ctx context.Context, _ remit.Step, receipt json.RawMessage) error {
	const op = "verify delivery"
	var got passwordReceipt
	if err := json.Unmarshal(receipt, &got); err != nil || got.Verifier == "" {
		return remit.Errorf(remit.Invalid, op, "the receipt of %s cannot be read: %w", d.ref(), err)
	}
	now, err := d.verifier(ctx, op)
	switch {
	case remit.KindOf(err) == remit.NotFound:
		return remit.Errorf(remit.Conflict, op, "%s is gone", d.ref())
	case err != nil:
		return err
	case !connector.MatchesDigest(got.Verifier, []byte(now)):
		return remit.Errorf(remit.Conflict, op, "somebody else has set the password of %s since", d.ref())
	}
	return nil
}

// Restore implements [connector.Destination].
func (d *Password) Restore(context.Context, remit.Step) error {
	return remit.Errorf(remit.Unsupported, "restore", "%s has not kept its former password", d.ref())
}
