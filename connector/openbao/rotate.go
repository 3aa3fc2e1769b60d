package openbao

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"remit"
	"remit/connector"
)

var _ connector.Issuer = (*Server)(nil)

// kindToken is the kind of a token as a Ref, named by its accessor.
const kindToken = "Token"

// What a successor's metadata say: which attempt made it, and which token was the
// first of its line.
const (
	metaAttempt = "remit_rotation"
	metaBase    = "remit_rotation_of"
)

// successorPrefix begins the name of a successor, whose accessor is not known before
// it is made.
const successorPrefix = "remit-"

// plan is what a rotation stands on.
type plan struct {
	Accessor    string            `json:"accessor"`
	Base        string            `json:"base"`
	Role        string            `json:"role,omitempty"`
	DisplayName string            `json:"display_name"`
	Policies    []string          `json:"policies"`
	Meta        map[string]string `json:"meta,omitempty"`
	TTL         int64             `json:"ttl"` // seconds
	Period      int64             `json:"period,omitempty"`
	MaxTTL      int64             `json:"explicit_max_ttl,omitempty"`
	Renewable   bool              `json:"renewable"`
	Audit       string            `json:"audit,omitempty"` // the audit device whose log shows its use
}

// token is what the server tells of a token; never the token.
type token struct {
	Accessor    string            `json:"accessor"`
	Type        string            `json:"type"`
	Path        string            `json:"path"`
	Role        string            `json:"role"`
	EntityID    string            `json:"entity_id"`
	DisplayName string            `json:"display_name"`
	Policies    []string          `json:"policies"`
	Meta        map[string]string `json:"meta"`
	CreationTTL int64             `json:"creation_ttl"`
	MaxTTL      int64             `json:"explicit_max_ttl"`
	Period      int64             `json:"period"`
	Renewable   bool              `json:"renewable"`
	Orphan      bool              `json:"orphan"`
	Uses        int64             `json:"num_uses"`
	Expires     *time.Time        `json:"expire_time"`
}

// PlanRotation implements [connector.Issuer]. The subject is a token by its accessor,
// or by that of the first of its line.
func (s *Server) PlanRotation(ctx context.Context, o connector.RotationOrder) (planned connector.Rotation, err error) {
	const op = "plan rotation"
	accessor := o.Subject.Ref.Name
	switch {
	case o.Subject.Ref.Kind != kindToken || accessor == "":
		return planned, remit.Errorf(remit.Unsupported, op, "%s is no token: name one by its accessor", o.Subject.Ref)
	case o.As != "" || o.Freeze:
		return planned, remit.Errorf(remit.Invalid, op, "OpenBao has one sort of token only, and ends it at once")
	}
	old, err := s.lookup(ctx, op, accessor)
	if remit.KindOf(err) == remit.NotFound {
		if old, err = s.newest(ctx, op, accessor); err == nil && old == nil {
			err = remit.Errorf(remit.NotFound, op, "there is no token with the accessor %q, nor one that came in its place", accessor)
		}
	}
	if err != nil {
		return planned, err
	}
	var self data[token]
	if err := s.do(ctx, op, http.MethodGet, "auth/token/lookup-self", nil, &self); err != nil {
		return planned, err
	}
	switch {
	case self.Data.Accessor == old.Accessor:
		return planned, remit.Errorf(remit.Forbidden, op, "this token is what Remit itself signs in with: rotate it with another")
	case slices.Contains(old.Policies, "root"):
		return planned, remit.Errorf(remit.Forbidden, op, "a root token is not replaced but revoked: make another with the recovery or unseal keys when you need one")
	case old.Type != "service":
		return planned, remit.Errorf(remit.Unsupported, op, "a %s token cannot be revoked, and ends by itself", old.Type)
	case !strings.HasPrefix(old.Path, "auth/token/create") || old.EntityID != "":
		return planned, remit.Errorf(remit.Unsupported, op, "the token was given by a login (%s): who logs in again gets another; rotate what he logs in with", old.Path)
	case old.Uses > 0:
		return planned, remit.Errorf(remit.Unsupported, op, "the token ends after some more uses by itself")
	}
	p := plan{
		Accessor: old.Accessor, Base: old.Accessor, Role: old.Role, DisplayName: strings.TrimPrefix(old.DisplayName, "token-"), Policies: old.Policies,
		Meta: maps.Clone(old.Meta), TTL: old.CreationTTL, Period: old.Period, MaxTTL: old.MaxTTL, Renewable: old.Renewable,
	}
	if base := old.Meta[metaBase]; base != "" {
		p.Base = base
	}
	if o.Lifetime > 0 {
		p.TTL, p.Period, p.MaxTTL = int64(o.Lifetime/time.Second), 0, 0
	}
	ref := remit.Ref{Kind: kindToken, Name: old.Accessor}
	planned.Old = []remit.Ref{ref}
	lasts := "as the old one"
	if p.TTL > 0 {
		lasts = (time.Duration(p.TTL) * time.Second).String()
	}
	planned.Issue = remit.Step{
		Object: ref, Does: fmt.Sprintf("Make a second token %q with the policies %s, valid for %s.", p.DisplayName, strings.Join(p.Policies, ", "), lasts),
		Diff: fmt.Sprintf("+ token %q: policies %s, for %s\n", p.DisplayName, strings.Join(p.Policies, ", "), lasts),
	}
	planned.End = remit.Step{
		Object: ref, Does: "Revoke the old token, and with it what it has leased and the tokens that it made.",
		Diff: "- token " + old.Accessor + "\n", Breaks: "Whoever still has the old token, or a lease or a token that it got by it (a database login, a child token).",
	}
	if !old.Orphan && p.Role == "" {
		planned.Why = append(planned.Why, "The old token ends with its parent; the new one is an orphan, and does not end with Remit's own.")
	}
	if p.Audit, err = s.auditDevice(ctx, op); err != nil || p.Audit == "" {
		planned.Why = append(planned.Why, "OpenBao does not tell when a token is used, and no audit device could be found with which Remit would know the new one in the log: its use will not be seen, and the old one not end. Enable one, and let Remit's token read sys/audit and write sys/audit-hash.")
	} else {
		planned.Why = append(planned.Why, fmt.Sprintf("The use of a token is seen in the log of an audit device only: let Remit take that of %s in under this system's name.", p.Audit))
	}
	planned.Plan, err = json.Marshal(p)
	return planned, err
}

// auditDevice is the first audit device; "" when there is none.
func (s *Server) auditDevice(ctx context.Context, op string) (string, error) {
	var devices data[map[string]json.RawMessage]
	if err := s.do(ctx, op, http.MethodGet, "sys/audit", nil, &devices); err != nil {
		return "", err
	}
	for _, path := range slices.Sorted(maps.Keys(devices.Data)) {
		return strings.TrimSuffix(path, "/"), nil
	}
	return "", nil
}

// lookup asks for a token. [remit.NotFound] when there is none.
func (s *Server) lookup(ctx context.Context, op, accessor string) (*token, error) {
	var found data[token]
	err := s.do(ctx, op, http.MethodPost, "auth/token/lookup-accessor", map[string]string{"accessor": accessor}, &found)
	if err != nil {
		// It says 403 of an accessor that it does not know, and 404 or 400 of one
		// that has just ended.
		if kind := remit.KindOf(err); (kind == remit.Forbidden || kind == remit.Unsupported) && strings.Contains(err.Error(), "invalid accessor") {
			err = remit.Errorf(remit.NotFound, op, "%w", err)
		}
		return nil, err
	}
	return &found.Data, nil
}

// each looks every token up. That is a request for each: the server has no other way
// to find one by what is said of it.
func (s *Server) each(ctx context.Context, op string, visit func(*token)) error {
	var all data[struct {
		Keys []string `json:"keys"`
	}]
	if err := s.do(ctx, op, http.MethodGet, "auth/token/accessors?list=true", nil, &all); err != nil {
		return err
	}
	for _, accessor := range all.Data.Keys {
		found, err := s.lookup(ctx, op, accessor)
		if remit.KindOf(err) == remit.NotFound {
			continue // it has ended meanwhile
		} else if err != nil {
			return err
		}
		visit(found)
	}
	return nil
}

// newest is the token that came in the place of one last, or nil.
func (s *Server) newest(ctx context.Context, op, base string) (newest *token, err error) {
	var made int64
	err = s.each(ctx, op, func(t *token) {
		var at int64
		if t.Meta[metaBase] != base {
			return
		}
		if t.Expires != nil {
			at = t.Expires.UnixNano()
		}
		if newest == nil || at > made {
			newest, made = t, at
		}
	})
	return newest, err
}

// attempted is the token that an attempt made, or nil.
func (s *Server) attempted(ctx context.Context, op string, name string) (found *token, err error) {
	err = s.each(ctx, op, func(t *token) {
		if t.Meta[metaAttempt] == strings.TrimPrefix(name, successorPrefix) {
			found = t
		}
	})
	return found, err
}

func readPlan(text json.RawMessage) (p plan, err error) {
	if err = json.Unmarshal(text, &p); err == nil && p.Accessor == "" {
		err = errors.New("it names no token")
	}
	if err != nil {
		err = remit.Errorf(remit.Invalid, "rotate", "the plan cannot be read: %w", err)
	}
	return p, err
}

// Successor implements [connector.Issuer].
func (s *Server) Successor(_ json.RawMessage, attempt string) (remit.Ref, error) {
	return remit.Ref{Kind: kindToken, Name: successorPrefix + attempt}, nil
}

// Issue implements [connector.Issuer].
func (s *Server) Issue(ctx context.Context, text json.RawMessage, as remit.Ref) (issued connector.Issued, secret *connector.Secret, err error) {
	const op = "issue token"
	p, err := readPlan(text)
	if err != nil {
		return issued, nil, err
	}
	if other, err := s.attempted(ctx, op, as.Name); err != nil {
		return issued, nil, err
	} else if other != nil {
		return issued, nil, remit.Errorf(remit.Conflict, op, "there is a token of this attempt already")
	}
	meta := maps.Clone(p.Meta)
	if meta == nil {
		meta = map[string]string{}
	}
	meta[metaAttempt], meta[metaBase] = strings.TrimPrefix(as.Name, successorPrefix), p.Base
	body := map[string]any{
		"policies": p.Policies, "display_name": p.DisplayName, "meta": meta, "renewable": p.Renewable, "type": "service",
		"no_default_policy": !slices.Contains(p.Policies, "default"),
	}
	for key, seconds := range map[string]int64{"ttl": p.TTL, "period": p.Period, "explicit_max_ttl": p.MaxTTL} {
		if seconds > 0 {
			body[key] = fmt.Sprintf("%ds", seconds)
		}
	}
	path := "auth/token/create-orphan"
	if p.Role != "" {
		path = "auth/token/create/" + url.PathEscape(p.Role)
	}
	var answer struct {
		Auth struct {
			Token    string   `json:"client_token"`
			Accessor string   `json:"accessor"`
			Lease    int64    `json:"lease_duration"`
			Policies []string `json:"policies"`
		} `json:"auth"`
	}
	before := time.Now()
	if err := s.do(ctx, op, http.MethodPost, path, body, &answer); err != nil {
		return issued, nil, err
	}
	if answer.Auth.Token == "" || answer.Auth.Accessor == "" {
		return issued, nil, remit.Errorf(remit.Unsupported, op, "the server gave no token that could be ended")
	}
	secret = connector.NewSecret("token", []byte(answer.Auth.Token))
	issued = connector.Issued{Ref: as, Handle: answer.Auth.Accessor}
	if answer.Auth.Lease > 0 && p.Period == 0 {
		issued.Expires = before.Add(time.Duration(answer.Auth.Lease) * time.Second).UTC().Truncate(time.Second)
	}
	if p.Audit != "" {
		var hashed data[struct {
			Hash string `json:"hash"`
		}]
		if err := s.do(ctx, op, http.MethodPost, "sys/audit-hash/"+escape(p.Audit), map[string]string{"input": answer.Auth.Accessor}, &hashed); err != nil {
			secret.Zero()
			return issued, nil, err
		}
		issued.Native = accessor + hashed.Data.Hash
	}
	return issued, secret, nil
}

// accessorOf is the accessor of a credential of a plan; "" when there is none.
func (s *Server) accessorOf(ctx context.Context, op string, which connector.Issued) (string, error) {
	if which.Handle != "" || !strings.HasPrefix(which.Ref.Name, successorPrefix) {
		if which.Handle != "" {
			return which.Handle, nil
		}
		return which.Ref.Name, nil
	}
	found, err := s.attempted(ctx, op, which.Ref.Name)
	if err != nil || found == nil {
		return "", err
	}
	return found.Accessor, nil
}

// End implements [connector.Issuer].
func (s *Server) End(ctx context.Context, _ json.RawMessage, which connector.Issued) (time.Time, error) {
	const op = "end token"
	accessor, err := s.accessorOf(ctx, op, which)
	if err != nil || accessor == "" {
		return time.Time{}, err
	}
	if _, err := s.lookup(ctx, op, accessor); remit.KindOf(err) == remit.NotFound {
		return time.Time{}, nil
	} else if err != nil {
		return time.Time{}, err
	}
	return time.Time{}, s.do(ctx, op, http.MethodPost, "auth/token/revoke-accessor", map[string]string{"accessor": accessor}, nil)
}

// Used implements [connector.Issuer]: the server does not tell.
func (s *Server) Used(context.Context, json.RawMessage, connector.Issued) (time.Time, error) {
	return time.Time{}, nil
}

// Lives implements [connector.Issuer].
func (s *Server) Lives(ctx context.Context, _ json.RawMessage, which connector.Issued) (bool, error) {
	const op = "look for token"
	accessor, err := s.accessorOf(ctx, op, which)
	if err != nil || accessor == "" {
		return false, err
	}
	_, err = s.lookup(ctx, op, accessor)
	if remit.KindOf(err) == remit.NotFound {
		return false, nil
	}
	return err == nil, err
}
