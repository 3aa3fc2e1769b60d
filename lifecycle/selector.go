package lifecycle

import (
	"slices"
	"strings"

	"remit"
)

// Selector chooses credentials. The fields combine with and, the values within a
// field with or, but for Labels, which must all be there; every value may hold *
// for any run of characters. An empty selector chooses everything. The fields that
// the scope of a policy has too mean the same there.
type Selector struct {
	Types     []string `yaml:"types"`     // static-token, api-key, certificate, …
	Kinds     []string `yaml:"kinds"`     // in the system's words: Secret
	Providers []string `yaml:"providers"` // who accepts it: kubernetes, aws, stripe
	Names     []string `yaml:"names"`

	Systems      []string `yaml:"systems"` // names of systems
	Namespaces   []string `yaml:"namespaces"`
	Environments []string `yaml:"environments"` // of the credential, or else of whom it authenticates

	// Labels are of the credential's object, or else of whom it authenticates.
	Labels map[string]string `yaml:"labels"`

	// Identities is whom it authenticates ("ServiceAccount payments/api"),
	// IdentityTypes of which type that is, and Owners who answers for it, or else
	// for those who hold the credential: any of those who claim it.
	Identities    []string `yaml:"identities"`
	IdentityTypes []string `yaml:"identity_types"`
	Owners        []string `yaml:"owners"`

	// Except takes out again what any of these chooses.
	Except []Selector `yaml:"except"`
}

func (s *Selector) selects(x *subject) bool {
	return s.chooses(x) && !slices.ContainsFunc(s.Except, func(e Selector) bool { return e.selects(x) })
}

func (s *Selector) chooses(x *subject) bool {
	c := x.credential
	environment, identityType, identity := c.Environment, "", c.Holder.String()
	if x.identity != nil {
		if environment == "" {
			environment = x.identity.Environment
		}
		identityType, identity = string(x.identity.Type), x.identity.Ref.String()
	}
	return among(s.Types, string(c.Type)) && among(s.Kinds, c.Kind) && among(s.Providers, c.Provider) && among(s.Names, c.Name) &&
		among(s.Systems, x.system) && among(s.Namespaces, c.Namespace) && among(s.Environments, environment) &&
		among(s.Identities, identity) && among(s.IdentityTypes, identityType) &&
		(len(s.Owners) == 0 || slices.ContainsFunc(x.owners, func(o remit.Owner) bool { return among(s.Owners, o.Name) })) &&
		s.labelled(x)
}

func (s *Selector) labelled(x *subject) bool {
	for name, want := range s.Labels {
		have, ok := x.credential.Labels[name]
		if !ok && x.identity != nil {
			have, ok = x.identity.Labels[name]
		}
		if !ok || !glob(want, have) {
			return false
		}
	}
	return true
}

// among says whether any pattern matches; no pattern is all.
func among(patterns []string, s string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool { return glob(p, s) })
}

// glob matches a pattern in which * is any run of characters.
func glob(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == s
	}
	s, ok := strings.CutPrefix(s, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1 : len(parts)-1] {
		_, after, found := strings.Cut(s, part)
		if !found {
			return false
		}
		s = after
	}
	return strings.HasSuffix(s, parts[len(parts)-1])
}
