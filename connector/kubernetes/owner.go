package kubernetes

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"remit"
)

// claim is one statement about who owns an object.
type claim struct {
	name, source string
	rank         int
}

// The ranks of claims that are not made under a key of [ownerKeys]. The keys
// have the ranks from 0.
const (
	rankMarker  = 1000
	rankManager = 2000
)

// ownerKeys are the labels and annotations in which teams write who owns what,
// the strongest first. Those without a slash also match behind a prefix.
// Sources: the a8r.io convention for annotations, OpenShift's requester,
// Rancher's creator, and what is found in the wild.
var ownerKeys = []string{
	"remit.dev/owner",
	"a8r.io/owner",
	"owner", "owners", "owner-email", "owned-by", "service-owner", "app-owner", "product-owner", "technical-owner",
	"team", "team-name", "owner-team", "owning-team", "squad", "tribe",
	"contact", "contacts", "contact-email", "maintainer", "maintainers", "responsible",
	"openshift.io/requester",
	"requester",
}

// ownerReader finds claims in labels and annotations.
type ownerReader struct {
	exact  map[string]int // whole keys and their ranks
	suffix map[string]int // keys that may follow a prefix
}

func newOwnerReader(keys []string) ownerReader {
	r := ownerReader{exact: map[string]int{}, suffix: map[string]int{}}
	for i, key := range slices.Concat(keys, ownerKeys) {
		key = strings.ToLower(key)
		if _, ok := r.exact[key]; ok {
			continue
		}
		r.exact[key] = i
		if !strings.Contains(key, "/") {
			r.suffix[key] = i
		}
	}
	return r
}

// claims lists who the labels and annotations say owns the object. An
// annotation is told apart from a label in the source only: they are as strong
// as each other.
func (r ownerReader) claims(labels, annotations map[string]string) []claim {
	var found []claim
	for _, set := range []struct {
		word   string
		values map[string]string
	}{{"label", labels}, {"annotation", annotations}} {
		for _, key := range sortedKeys(set.values) {
			rank, ok := r.rank(key)
			if !ok {
				continue
			}
			for _, name := range names(set.values[key]) {
				if len(found) == maxClaims {
					break
				}
				found = append(found, claim{name: name, source: set.word + " " + truncate(key, maxLabel), rank: rank})
			}
		}
	}
	slices.SortStableFunc(found, func(a, b claim) int { return cmp.Compare(a.rank, b.rank) })
	return found
}

func (r ownerReader) rank(key string) (int, bool) {
	key = strings.ToLower(key)
	if rank, ok := r.exact[key]; ok {
		return rank, true
	}
	if i := strings.LastIndexByte(key, '/'); i >= 0 {
		rank, ok := r.suffix[key[i+1:]]
		return rank, ok
	}
	return 0, false
}

// names splits a value that may name several owners.
func names(value string) []string {
	var out []string
	for part := range strings.FieldsFuncSeq(value, func(c rune) bool { return c == ',' || c == ';' || c == '\n' }) {
		part = strings.Trim(strings.TrimSpace(part), `"'[]`)
		switch strings.ToLower(part) {
		case "", "none", "unknown", "n/a", "na", "tbd", "todo", "nobody", "null", "-":
			continue // says that nobody is known
		}
		out = append(out, truncate(part, maxClaim))
		if len(out) == maxClaims {
			break
		}
	}
	return out
}

// markerClaims are what a packaging or GitOps tool wrote: it names no person,
// but somebody looks after that release or application.
func markerClaims(labels, annotations map[string]string) []claim {
	var found []claim
	add := func(name, source string) {
		if name != "" {
			found = append(found, claim{name: truncate(name, maxClaim), source: source, rank: rankMarker})
		}
	}
	add(annotations["meta.helm.sh/release-name"], "helm release")
	if id := annotations["argocd.argoproj.io/tracking-id"]; id != "" {
		app, _, _ := strings.Cut(id, ":")
		add(app, "argocd application")
	} else {
		add(labels["argocd.argoproj.io/instance"], "argocd application")
	}
	add(labels["kustomize.toolkit.fluxcd.io/name"], "flux kustomization")
	add(labels["helm.toolkit.fluxcd.io/name"], "flux release")
	return found
}

// personManager says whether a field manager is a person: only a mail address
// is one for sure, every other name may be a tool's.
func personManager(manager string) (string, bool) {
	name, domain, ok := strings.Cut(manager, "@")
	if !ok || name == "" || !strings.Contains(domain, ".") || strings.ContainsAny(manager, " /\t\n") || len(manager) > maxClaim {
		return "", false
	}
	if subjectType(manager) != remit.Human {
		return "", false
	}
	return strings.Clone(manager), true
}

func distinctClaims(claims []claim) []claim {
	seen := map[string]bool{}
	return slices.DeleteFunc(claims, func(c claim) bool {
		key := strings.ToLower(c.name)
		dup := seen[key]
		seen[key] = true
		return dup
	})
}

// owners settles who owns an object: its own claims, then what its namespace
// says, and markers and managers behind both.
func (p *projection) owners(sets ...ownedBy) []remit.Owner {
	var claims []claim
	for _, set := range sets {
		for _, c := range set.meta.claims {
			if set.prefix != "" {
				c.source = set.prefix + " " + c.source
			}
			claims = append(claims, c)
		}
	}
	// Keys come before markers and markers before managers, wherever they
	// stand; within these three the nearer object wins.
	slices.SortStableFunc(claims, func(a, b claim) int { return cmp.Compare(a.rank/rankMarker, b.rank/rankMarker) })
	claims = distinctClaims(claims)
	if len(claims) == 0 {
		return nil
	}
	owners := make([]remit.Owner, 0, min(len(claims), maxClaims))
	for _, c := range claims[:min(len(claims), maxClaims)] {
		owner := remit.Owner{Name: c.name, Source: c.source}
		if c.rank < rankMarker || c.rank >= rankManager {
			for _, kind := range []string{"User", "Group"} {
				if who := (remit.Ref{Kind: kind, Name: c.name}); p.mentioned(who) {
					owner.Identity = p.identityID(who)
					break
				}
			}
		}
		owners = append(owners, owner)
	}
	return owners
}

// ownedBy is metadata that may name an owner; prefix says whose it is where it
// is not the object's own.
type ownedBy struct {
	prefix string
	meta   *meta
}

func sortedKeys[T any](m map[string]T) []string {
	return slices.Sorted(maps.Keys(m))
}
