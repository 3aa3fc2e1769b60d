package policy

import "remit"

// Scope narrows a policy to some subjects. The fields combine with and, the
// values within a field with or; every value may hold * for any run of
// characters. An empty scope is everything.
type Scope struct {
	Systems      []string          `json:"systems,omitempty"` // names of systems
	Namespaces   []string          `json:"namespaces,omitempty"`
	Environments []string          `json:"environments,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`     // of the subject; all of them
	Identities   []string          `json:"identities,omitempty"` // "ServiceAccount payments/api": the subject, or whom it belongs to

	// Except takes subjects out again that match any of these.
	Except []Scope `json:"except,omitempty"`
}

// scoped is what a scope looks at.
type scoped struct {
	system   *remit.System
	record   *remit.Record
	scope    string // of a grant
	identity string // "kind namespace/name"
}

func (s *Scope) holds(x scoped) bool {
	if s == nil {
		return true
	}
	if !s.covers(x) {
		return false
	}
	for i := range s.Except {
		if s.Except[i].covers(x) {
			return false
		}
	}
	return true
}

func (s *Scope) covers(x scoped) bool {
	namespace := x.record.Namespace
	if namespace == "" {
		namespace = x.scope
	}
	if !anyGlob(s.Systems, x.system.Name) || !anyGlob(s.Namespaces, namespace) ||
		!anyGlob(s.Environments, x.record.Environment) || !anyGlob(s.Identities, x.identity) {
		return false
	}
	for k, want := range s.Labels {
		have, ok := x.record.Labels[k]
		if !ok || !glob(want, have) {
			return false
		}
	}
	return true
}

func anyGlob(patterns []string, s string) bool {
	for _, p := range patterns {
		if glob(p, s) {
			return true
		}
	}
	return len(patterns) == 0
}
