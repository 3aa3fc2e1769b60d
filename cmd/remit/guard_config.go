package main

import (
	"time"

	"remit"
	"remit/connector/kubernetes"
)

// guardConfig is the admission guard of a cluster: what is refused from now on.
// Each rule is off (the default), audit or enforce.
type guardConfig struct {
	Tokens       kubernetes.GuardState `yaml:"tokens"`
	TokenSecrets kubernetes.GuardState `yaml:"token_secrets"`
	Admins       kubernetes.GuardState `yaml:"admins"`
	Owners       kubernetes.GuardState `yaml:"owners"`

	MaxTokenLifetime span     `yaml:"max_token_lifetime"` // a day
	Audiences        []string `yaml:"audiences"`          // empty: any
	AdminRoles       []string `yaml:"admin_roles"`        // beside cluster-admin
	Machines         []string `yaml:"machines"`           // users and groups

	Exempt guardExempt `yaml:"exempt"`

	// AuditFor is how long a rule must have run in audit before it may be
	// enforced; 7 days when it is left out.
	AuditFor *span `yaml:"audit_for"`
}

type guardExempt struct {
	Namespaces []string `yaml:"namespaces"`
	Accounts   []string `yaml:"accounts"` // namespace/name
	Users      []string `yaml:"users"`    // as the audit log names them
}

// guardAuditFor is how long a rule runs in audit, unless the configuration says.
const guardAuditFor = 7 * 24 * time.Hour

// guard is the guard of a system; of no configuration it is one that is off.
func (g *guardConfig) guard(c *config, s *systemConfig) (kubernetes.Guard, error) {
	if g == nil {
		return kubernetes.Guard{}, nil
	}
	guard := kubernetes.Guard{
		Rules: map[kubernetes.GuardRule]kubernetes.GuardState{
			kubernetes.GuardTokens: g.Tokens, kubernetes.GuardTokenSecrets: g.TokenSecrets, kubernetes.GuardAdmins: g.Admins, kubernetes.GuardOwners: g.Owners,
		},
		MaxTokenLifetime: time.Duration(g.MaxTokenLifetime), Audiences: g.Audiences, AdminRoles: g.AdminRoles, Machines: g.Machines,
		OwnerKeys: c.Owners, Exempt: kubernetes.GuardExempt(g.Exempt), AuditFor: guardAuditFor,
		NotExtended: s.ExtendTokenExpiration != nil && !*s.ExtendTokenExpiration,
	}
	if g.AuditFor != nil {
		guard.AuditFor = time.Duration(*g.AuditFor)
	}
	if err := guard.Check(); err != nil {
		return guard, remit.Errorf(remit.Invalid, "", "%w", err)
	}
	return guard, nil
}
