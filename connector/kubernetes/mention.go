package kubernetes

import (
	"slices"
	"strings"

	"remit"
)

// mentionKind is how an object names an identity.
type mentionKind uint8

const (
	byBinding     mentionKind = iota // as a subject of a binding
	byCertificate                    // as the subject of a client certificate
	byKubeconfig                     // as a user of a stored kubeconfig
	byToken                          // as the account of a token
	byAccount                        // as a group of service accounts
	byWorkload                       // as the account that a workload runs as
	byNode                           // as the group of nodes
	byFlag                           // in a flag of the API server
	mentionKinds
)

// mentionWords are the values of the attribute named-by.
var mentionWords = [mentionKinds]string{"binding", "certificate", "kubeconfig", "token", "account", "workload", "node", "api-server"}

// mention is who names one identity.
type mention struct {
	count    [mentionKinds]int
	bindings map[remit.Ref]struct{}
	holders  map[remit.Ref]struct{} // objects with a credential of it
}

func (m *model) mention(who remit.Ref, by mentionKind, object remit.Ref) {
	e := m.mentioned[who]
	if e == nil {
		e = &mention{}
		m.mentioned[who] = e
	}
	e.count[by]++
	first := e.count[by] == 1
	switch by {
	case byBinding:
		if e.bindings == nil {
			e.bindings = map[remit.Ref]struct{}{}
		}
		e.bindings[object] = struct{}{}
	case byCertificate, byKubeconfig, byToken:
		if e.holders == nil {
			e.holders = map[remit.Ref]struct{}{}
		}
		e.holders[object] = struct{}{}
	}
	m.touchMentioned(who, by, first)
}

func (m *model) unmention(who remit.Ref, by mentionKind, object remit.Ref) {
	e := m.mentioned[who]
	if e == nil {
		return
	}
	e.count[by]--
	last := e.count[by] == 0
	switch by {
	case byBinding:
		delete(e.bindings, object)
	case byCertificate, byKubeconfig, byToken:
		delete(e.holders, object)
	}
	if e.count == ([mentionKinds]int{}) {
		delete(m.mentioned, who)
	}
	m.touchMentioned(who, by, last)
}

// touchMentioned makes the identity's units dirty. edge says that the first
// mention of a kind came or the last one went; the many in between matter only
// where the set of those who name it does.
func (m *model) touchMentioned(who remit.Ref, by mentionKind, edge bool) {
	switch by {
	case byBinding:
		m.touchUnit(unit{access: true, ref: who})
	case byCertificate, byKubeconfig, byToken:
		m.touchUnit(unit{ref: who})
	}
	if edge {
		m.touchUnit(unit{ref: who})
		m.touch(fact{factMention, who})
	}
}

// words lists how an identity is named, for the attribute named-by.
func (e *mention) words() string {
	var words []string
	for by := range mentionKinds {
		if e.count[by] > 0 {
			words = append(words, mentionWords[by])
		}
	}
	return strings.Join(words, ",")
}

// sortedRefs lists a set in a stable order.
func sortedRefs(set map[remit.Ref]struct{}) []remit.Ref {
	refs := make([]remit.Ref, 0, len(set))
	for ref := range set {
		refs = append(refs, ref)
	}
	slices.SortFunc(refs, compareRefs)
	return refs
}

func compareRefs(a, b remit.Ref) int {
	if c := strings.Compare(a.Kind, b.Kind); c != 0 {
		return c
	}
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}
