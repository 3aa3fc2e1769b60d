package ssf

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"remit"
)

// Source is a transmitter whose events are accepted.
type Source struct {
	Name     string // the user's word for it
	Issuer   string // its iss, exactly
	Audience string // that a token must name

	// Systems are the names of those whose identities the issuer names by more
	// than mail addresses; see [name].
	Systems []string

	Keys *Keys

	// MaxAge is how long after its iat a token is accepted, and so for how long
	// its ID is kept; 0 is [DefaultMaxAge].
	MaxAge time.Duration
}

// DefaultMaxAge lets a transmitter deliver after an outage of a week.
const DefaultMaxAge = 7 * 24 * time.Hour

func (s *Source) maxAge() time.Duration {
	if s.MaxAge > 0 {
		return s.MaxAge
	}
	return DefaultMaxAge
}

// Store is what a receiver needs of the store.
type Store interface {
	Systems(ctx context.Context) ([]remit.System, error)
	Identities(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Identity, string, error)
	Relations(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Relation, string, error)
	Presences(ctx context.Context, f remit.ActivityFilter, page remit.PageRequest) ([]remit.Presence, string, error)
	Findings(ctx context.Context, f remit.FindingFilter, page remit.PageRequest) ([]remit.Finding, string, error)
	ResolveFindings(ctx context.Context, scope remit.FindingScope, since, now time.Time) (remit.FindingChanges, error)
	States(ctx context.Context, system remit.ID, kind, key string) ([]remit.State, error)
	Checkpoint(ctx context.Context, c remit.Checkpoint) error
}

// Outcome is what became of an event.
type Outcome string

// The outcomes.
const (
	Found      Outcome = "finding"    // it is a finding
	Mended     Outcome = "resolved"   // it ended a finding, or there was none to end
	Unmatched  Outcome = "unmatched"  // no identity is known by that subject
	Superseded Outcome = "superseded" // something younger was told before
	Ignored    Outcome = "ignored"    // of a type that says nothing here
	Verified   Outcome = "verified"   // the stream was tried out
	Updated    Outcome = "updated"    // the transmitter changed the stream
	Repeated   Outcome = "repeated"   // the token had been taken before
	Refused    Outcome = "refused"    // the token is not acceptable
)

// Signal is the record of an event that was received. Those of a token make its
// ID known, so that it counts once.
type Signal struct {
	Source   string     `json:"source"`
	Token    string     `json:"token"` // the ID
	Type     string     `json:"type"`
	Subject  string     `json:"subject,omitempty"` // in words
	Time     time.Time  `json:"time"`              // of the event
	Received time.Time  `json:"received"`
	Outcome  Outcome    `json:"outcome"`
	Findings []remit.ID `json:"findings,omitempty"`
}

// taken is the record of a token.
type taken struct {
	Sum     string    `json:"sum"`
	Until   time.Time `json:"until"` // no token of that age is accepted any more
	Signals []Signal  `json:"signals"`
}

// The kinds of state that a receiver keeps.
const (
	takenKind   = "ssf-token"
	accountKind = "ssf-account" // when an account was last enabled, by identity
)

// Receiver accepts tokens and makes findings of them. It is safe for concurrent
// use; one process has one.
type Receiver struct {
	Store Store
	Log   *slog.Logger

	// Names, if not nil, are all names of a person who has this one, as the file
	// of people has them.
	Names func(name string) []string

	// Observe, if not nil, is told what became of every event, and Announced which
	// findings were written.
	Observe   func(source string, o Outcome)
	Announced func(findings []remit.ID)

	Now func() time.Time // nil is time.Now

	mu sync.Mutex
}

func (r *Receiver) now() time.Time {
	if r.Now != nil {
		return r.Now().UTC()
	}
	return time.Now().UTC()
}

// Receive takes one token. When it returns nil, everything that follows from the
// token is on disk, and the token need not be sent again; a token that was taken
// before has no further effect and is taken again, as RFC 8935 (section 2) and
// RFC 8936 (section 2.4) ask. A [*Refusal] is for the transmitter; any other error
// means that the same token should be sent again.
func (r *Receiver) Receive(ctx context.Context, from *Source, raw []byte) error {
	token, err := r.verify(ctx, from, raw)
	if err == nil {
		err = r.take(ctx, from, token)
	}
	var refusal *Refusal
	if errors.As(err, &refusal) {
		r.Log.Warn("signal refused", "source", from.Name, "code", refusal.Code, "reason", refusal.Description)
		r.observe(from, Refused)
	}
	return err
}

func (r *Receiver) observe(from *Source, o Outcome) {
	if r.Observe != nil {
		r.Observe(from.Name, o)
	}
}

// verify checks that the token is the source's, is for us, and is of now.
func (r *Receiver) verify(ctx context.Context, from *Source, raw []byte) (Token, error) {
	signed, head, err := header(raw)
	if err != nil {
		return Token{}, err
	}
	key, err := from.Keys.Key(ctx, head.KeyID, head.Algorithm)
	if err != nil {
		return Token{}, err
	}
	payload, err := signed.Verify(key)
	if err != nil {
		return Token{}, refuse(AuthenticationFailed, "the signature is not that of the key")
	}
	token, err := claims(payload)
	if err != nil {
		return Token{}, err
	}
	now := r.now()
	switch {
	case token.Issuer != from.Issuer:
		return Token{}, refuse(InvalidIssuer, "the token's iss is not the issuer of this stream")
	case !slices.Contains(token.Audience, from.Audience):
		return Token{}, refuse(InvalidAudience, "the token's aud does not name this receiver")
	case token.Issued.IsZero():
		return Token{}, refuse(InvalidRequest, "the token has no iat")
	case token.Issued.After(now.Add(clockSkew)):
		return Token{}, refuse(InvalidRequest, "the token's iat is more than %s ahead", clockSkew)
	case now.Sub(token.Issued) > from.maxAge():
		return Token{}, refuse(InvalidRequest, "the token's iat is more than %s ago", from.maxAge())
	}
	return token, nil
}

// take makes what follows from a token, once.
func (r *Receiver) take(ctx context.Context, from *Source, token Token) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := digest(token.Issuer, token.ID)
	known, err := r.Store.States(ctx, "", takenKind, key)
	if err != nil {
		return err
	}
	if len(known) > 0 {
		var before taken
		if err := json.Unmarshal(known[0].Data, &before); err != nil {
			return remit.Errorf(remit.Internal, "receive signal", "the record of a token is damaged: %w", err)
		}
		if before.Sum != token.Sum {
			return refuse(InvalidRequest, "another token had this jti")
		}
		r.Log.Info("signal repeated", "source", from.Name, "token", token.ID)
		r.observe(from, Repeated)
		return nil
	}
	now := r.now()
	write := remit.Checkpoint{Now: now}
	record := taken{Sum: token.Sum, Until: now.Add(from.maxAge() + clockSkew)}
	for i := range token.Events {
		s, err := r.event(ctx, from, &token, &token.Events[i], &write)
		if err != nil {
			return err
		}
		record.Signals = append(record.Signals, s)
	}
	data, err := json.Marshal(record)
	if err != nil {
		return remit.Errorf(remit.Internal, "receive signal", "%w", err)
	}
	// The findings and the token's ID are written together: a kill between
	// them would otherwise lose the one or count the other twice.
	write.States = append(write.States, remit.State{Kind: takenKind, Key: key, Data: data})
	if err := r.Store.Checkpoint(ctx, write); err != nil {
		return err
	}
	for _, s := range record.Signals {
		r.tell(from, s)
	}
	if len(write.Findings) > 0 && r.Announced != nil {
		ids := make([]remit.ID, len(write.Findings))
		for i := range ids {
			ids[i] = write.Findings[i].ID
		}
		r.Announced(ids)
	}
	return nil
}

func (r *Receiver) tell(from *Source, s Signal) {
	level := slog.LevelInfo
	if s.Outcome == Unmatched || s.Outcome == Updated {
		level = slog.LevelWarn
	}
	r.Log.Log(context.Background(), level, "signal received", "source", s.Source, "type", s.Type, "subject", s.Subject, "outcome", s.Outcome, "findings", len(s.Findings), "token", s.Token)
	r.observe(from, s.Outcome)
}

// event decides what one event means, and adds to the write what follows.
func (r *Receiver) event(ctx context.Context, from *Source, token *Token, e *Event, write *remit.Checkpoint) (Signal, error) {
	s := Signal{
		Source: from.Name, Token: token.ID, Type: e.Type, Time: e.Time, Received: write.Now, Outcome: Ignored,
	}
	if e.Subject.Format != "" {
		s.Subject = e.Subject.String()
	}
	meaning, known := meanings[e.Type]
	switch {
	case e.Type == Verification:
		s.Outcome = Verified
		return s, nil
	case e.Type == StreamUpdated:
		s.Outcome = Updated
		s.Subject = "the stream is " + e.Status
		return s, nil
	case !known && e.Type != AccountEnabled:
		return s, nil
	}
	matched, err := r.match(ctx, from, &e.Subject)
	if err != nil {
		return s, err
	}
	if len(matched) == 0 {
		s.Outcome = Unmatched
		return s, nil
	}
	if e.Type == AccountEnabled {
		s.Outcome, err = r.enabled(ctx, e, matched, write)
		return s, err
	}
	s.Outcome = Superseded
	for _, m := range matched {
		f, err := r.finding(ctx, from, token, e, meaning, m, write)
		if err != nil {
			return s, err
		}
		if f != nil {
			s.Outcome, s.Findings = Found, append(s.Findings, f.ID)
		}
	}
	return s, nil
}

// enabled ends the findings that an account was disabled, unless it was disabled
// again since.
func (r *Receiver) enabled(ctx context.Context, e *Event, matched []match, write *remit.Checkpoint) (Outcome, error) {
	outcome := Superseded
	for _, m := range matched {
		last, err := r.lastEnabled(ctx, m.id)
		if err != nil {
			return outcome, err
		}
		if e.Time.After(last) {
			text, err := e.Time.MarshalText()
			if err != nil {
				return outcome, remit.Errorf(remit.Internal, "receive signal", "%w", err)
			}
			write.States = append(write.States, remit.State{Kind: accountKind, Key: string(m.id), Data: text})
		}
		// What was last put at or after that time stays: it is of an event since.
		changes, err := r.Store.ResolveFindings(ctx, remit.FindingScope{
			System: m.system, Policies: []string{meanings[AccountDisabled].policy}, Subjects: []remit.ID{m.id},
		}, e.Time.Add(time.Microsecond), write.Now)
		if err != nil {
			return outcome, err
		}
		if changes.Resolved > 0 || e.Time.After(last) {
			outcome = Mended
		}
	}
	return outcome, nil
}

// lastEnabled is when an account was last told to be enabled; zero is never.
func (r *Receiver) lastEnabled(ctx context.Context, id remit.ID) (at time.Time, err error) {
	states, err := r.Store.States(ctx, "", accountKind, string(id))
	if err != nil || len(states) == 0 {
		return at, err
	}
	if err := at.UnmarshalText(states[0].Data); err != nil {
		return at, remit.Errorf(remit.Internal, "receive signal", "the record of an account is damaged: %w", err)
	}
	return at, nil
}

// Signals lists what was received and is still remembered, the newest first.
func Signals(ctx context.Context, from interface {
	States(ctx context.Context, system remit.ID, kind, key string) ([]remit.State, error)
},
) ([]Signal, error) {
	states, err := from.States(ctx, "", takenKind, "")
	if err != nil {
		return nil, err
	}
	var all []Signal
	for _, s := range states {
		var t taken
		if err := json.Unmarshal(s.Data, &t); err != nil {
			return nil, remit.Errorf(remit.Internal, "list signals", "the record of a token is damaged: %w", err)
		}
		all = append(all, t.Signals...)
	}
	slices.SortStableFunc(all, func(a, b Signal) int { return b.Received.Compare(a.Received) })
	return all, nil
}

// Keep removes, until ctx ends, what need not be remembered any more, and resolves
// findings of single moments a month after the last of them.
func (r *Receiver) Keep(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if err := r.Tidy(ctx); err != nil && ctx.Err() == nil {
			r.Log.Error("old signals could not be removed", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Tidy is one round of [Receiver.Keep].
func (r *Receiver) Tidy(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	states, err := r.Store.States(ctx, "", takenKind, "")
	if err != nil {
		return err
	}
	write := remit.Checkpoint{Now: now}
	for _, s := range states {
		var t taken
		if err := json.Unmarshal(s.Data, &t); err != nil || now.After(t.Until) {
			write.States = append(write.States, remit.State{Kind: takenKind, Key: s.Key})
		}
	}
	if len(write.States) > 0 {
		if err := r.Store.Checkpoint(ctx, write); err != nil {
			return err
		}
	}
	systems, err := r.Store.Systems(ctx)
	if err != nil {
		return err
	}
	for _, s := range systems {
		if _, err := r.Store.ResolveFindings(ctx, remit.FindingScope{System: s.ID, Policies: momentary}, now.Add(-momentLasts), now); err != nil {
			return err
		}
	}
	return nil
}
