package lifecycle

import (
	"slices"
	"time"

	"remit"
)

// Policy says until when the credentials that it selects may be used. A demand of
// zero is none.
type Policy struct {
	Name   string   `yaml:"name"` // its own among all policies
	Select Selector `yaml:"select"`

	// RotateEvery is how long one secret may stay the same before it is to be
	// rotated. Nothing is ever revoked because of it.
	RotateEvery Span `yaml:"rotate_every"`

	// MaxAge, MaxIdle and MaxLifetime are limits: since its issue or last
	// rotation, since its last use, and from issue to expiry. ExpiryRequired
	// asks for any end at all. What breaks a limit is to be revoked when the
	// grace has passed.
	MaxAge         Span `yaml:"max_age"`
	MaxIdle        Span `yaml:"max_idle"`
	MaxLifetime    Span `yaml:"max_lifetime"`
	ExpiryRequired bool `yaml:"expiry_required"`

	// Grace is how long after a limit, and after it was first told of, nothing
	// is revoked; nil is [DefaultGrace].
	Grace *Span `yaml:"grace"`

	// Notices are how long before a date the owner is told; nil is
	// [DefaultNotices], an empty list is none. A notice that is longer than
	// half of what it announces is left out: of a token that lives for a day,
	// nobody wants to know two weeks ahead.
	Notices *[]Span `yaml:"notices"`

	// Exempt takes what it selects out of all policies behind it.
	Exempt bool `yaml:"exempt"`
}

// DefaultGrace is the grace of a policy that names none.
const DefaultGrace = Span(14 * day)

// DefaultNotices are the notices of a policy that names none.
var DefaultNotices = []Span{Span(14 * day), Span(7 * day), Span(day)}

func (p *Policy) grace() time.Duration {
	if p.Grace != nil {
		return time.Duration(*p.Grace)
	}
	return time.Duration(DefaultGrace)
}

// notices lists the notices before a date that comes after a time of length span,
// the longest first.
func (p *Policy) notices(span time.Duration) []time.Duration {
	all := DefaultNotices
	if p.Notices != nil {
		all = *p.Notices
	}
	var out []time.Duration
	for _, n := range all {
		if n > 0 && time.Duration(n) <= span/2 {
			out = append(out, time.Duration(n))
		}
	}
	slices.Sort(out)
	slices.Reverse(out)
	return slices.Compact(out)
}

// demanding says whether the policy demands anything.
func (p *Policy) demanding() bool {
	return p.RotateEvery > 0 || p.MaxAge > 0 || p.MaxIdle > 0 || p.MaxLifetime > 0 || p.ExpiryRequired
}

// Config is what the configuration says under lifecycle.
type Config struct {
	// Policies are asked in their order, those of Files behind them: the first
	// that selects a credential is the one that holds for it.
	Policies []Policy `yaml:"policies"`

	// Files are further files of policies, or directories of which every .yaml
	// and .yml file is one.
	Files []string `yaml:"files"`

	// Offboarding turns on what happens to identities that are not needed any
	// more; nil is off.
	Offboarding *Offboarding `yaml:"offboarding"`
}

// policy finds the one that holds for a credential, nil when there is none.
func (c *Config) policy(s *subject) *Policy {
	for i := range c.Policies {
		if c.Policies[i].Select.selects(s) {
			return &c.Policies[i]
		}
	}
	return nil
}

// subject is what selectors look at.
type subject struct {
	system     string // its name
	credential *remit.Credential
	identity   *remit.Identity // nil when it is not known
	owners     []remit.Owner
}
