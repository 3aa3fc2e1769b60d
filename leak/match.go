package leak

import (
	"context"
	"slices"
	"time"

	"remit"
)

// exposed is what a leak exposes: a credential, or the account that a token of
// which nothing else is known claims.
type exposed struct {
	system   remit.ID
	subject  remit.Subject
	identity remit.ID // the holder; "" where it is the subject, or unknown
	native   string   // what the log writes for the credential; "" when unknown
	by       string   // by what it was recognised
	active   bool
	expires  time.Time // zero: never, or unknown
}

func (e *exposed) valid(now time.Time) bool {
	return e.active && (e.expires.IsZero() || now.Before(e.expires))
}

// matcher knows what the inventory and the log have of a set of leaks.
type matcher struct {
	byPrint  map[string][]remit.Credential
	byNative map[string][]remit.Credential
	lineage  map[string][]remit.Lineage
	accounts map[Claim][]remit.Identity
	legacy   map[Claim][]remit.Credential
}

// lookAtOnce is how many values one question names.
const lookAtOnce = 500

func newMatcher(ctx context.Context, store Store, leaks []Leak) (*matcher, error) {
	m := &matcher{
		byPrint: map[string][]remit.Credential{}, byNative: map[string][]remit.Credential{}, lineage: map[string][]remit.Lineage{},
		accounts: map[Claim][]remit.Identity{}, legacy: map[Claim][]remit.Credential{},
	}
	var prints, natives []string
	for i := range leaks {
		prints = append(prints, leaks[i].Fingerprints...)
		natives = append(natives, leaks[i].Natives...)
	}
	prints, natives = unique(prints), unique(natives)
	for some := range slices.Chunk(prints, lookAtOnce) {
		err := credentials(ctx, store, remit.Filter{Fingerprints: some}, func(c remit.Credential) {
			m.byPrint[c.Fingerprint] = append(m.byPrint[c.Fingerprint], c)
		})
		if err != nil {
			return nil, err
		}
	}
	for some := range slices.Chunk(natives, lookAtOnce) {
		err := credentials(ctx, store, remit.Filter{Natives: some}, func(c remit.Credential) {
			m.byNative[c.Native] = append(m.byNative[c.Native], c)
		})
		if err != nil {
			return nil, err
		}
		err = remit.Each(ctx, remit.ActivityFilter{Credentials: some}, store.Lineage, func(l remit.Lineage) error {
			m.lineage[l.Credential] = append(m.lineage[l.Credential], l)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for i := range leaks {
		for _, c := range leaks[i].Claims {
			if err := m.claimed(ctx, store, c); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

// claimed looks up whom a token claims to be. The account's uid decides: the same
// name in another cluster is another account.
func (m *matcher) claimed(ctx context.Context, store Store, c Claim) error {
	if _, done := m.accounts[c]; done || c.AccountUID == "" {
		return nil
	}
	m.accounts[c] = nil
	some, _, err := store.Identities(ctx, remit.Filter{
		Kinds: []string{"ServiceAccount"}, Namespaces: []string{c.Namespace}, Names: []string{c.Account},
	}, remit.PageRequest{Limit: 1000})
	if err != nil {
		return err
	}
	for _, i := range some {
		if i.Incarnation == c.AccountUID {
			m.accounts[c] = append(m.accounts[c], i)
		}
	}
	if c.Secret == "" || len(m.accounts[c]) == 0 {
		return nil
	}
	return credentials(ctx, store, remit.Filter{
		Kinds: []string{"Secret"}, Namespaces: []string{c.Namespace}, Names: []string{c.Secret},
	}, func(found remit.Credential) {
		holds := slices.ContainsFunc(m.accounts[c], func(i remit.Identity) bool { return i.ID == found.Identity })
		if holds && found.Attributes["legacy"] == "true" {
			m.legacy[c] = append(m.legacy[c], found)
		}
	})
}

func credentials(ctx context.Context, store Store, f remit.Filter, each func(remit.Credential)) error {
	for page := (remit.PageRequest{Limit: 1000}); ; {
		some, next, err := store.Credentials(ctx, f, page)
		if err != nil {
			return err
		}
		for _, c := range some {
			each(c)
		}
		if next == "" {
			return nil
		}
		page.After = next
	}
}

// exposed lists what a leak exposes, each once, the surest first: what the secret
// itself is, what its identifiers name, and whom its claims name.
func (m *matcher) exposed(l *Leak) (all []exposed) {
	seen := map[remit.ID]bool{}
	add := func(e exposed) {
		if !seen[e.subject.ID] {
			seen[e.subject.ID] = true
			all = append(all, e)
		}
	}
	natives := map[string]bool{} // that are accounted for
	credential := func(c *remit.Credential, by string) {
		natives[c.Native] = true
		add(exposed{
			system: c.System, subject: remit.Subject{Record: remit.KindCredential, Ref: c.Ref, ID: c.ID}, identity: c.Identity,
			native: c.Native, by: by, active: c.Status == remit.Active || c.Status == "", expires: c.Expires,
		})
	}
	for _, print := range l.Fingerprints {
		for i := range m.byPrint[print] {
			credential(&m.byPrint[print][i], "its fingerprint")
		}
	}
	for _, native := range l.Natives {
		for i := range m.byNative[native] {
			credential(&m.byNative[native][i], "its ID")
		}
	}
	expires := map[string]time.Time{}
	for _, c := range l.Claims {
		expires[c.Native] = c.Expires
	}
	for _, native := range l.Natives {
		if natives[native] {
			continue
		}
		for _, seenAs := range m.lineage[native] {
			natives[native] = true
			end := seenAs.Expires
			if end.IsZero() {
				end = expires[native]
			}
			add(minted(seenAs.System, native, seenAs.Identity, "its ID in the log", end))
		}
	}
	for _, c := range l.Claims {
		if c.Native != "" && natives[c.Native] {
			continue
		}
		for i := range m.legacy[c] {
			credential(&m.legacy[c][i], "its claims, which are not verified")
		}
		if len(m.legacy[c]) > 0 || c.Native == "" && len(all) > 0 {
			continue
		}
		for _, i := range m.accounts[c] {
			const by = "its claims, which are not verified"
			if c.Native != "" {
				add(minted(i.System, c.Native, i.ID, by, c.Expires))
				continue
			}
			add(exposed{
				system: i.System, subject: remit.Subject{Record: remit.KindIdentity, Ref: i.Ref, ID: i.ID}, by: by,
				active: true, expires: c.Expires,
			})
		}
	}
	return all
}

// minted is a credential that is in no inventory, as tokens that were minted and
// are held by a process are not: it is named as the log does.
func minted(system remit.ID, native string, identity remit.ID, by string, expires time.Time) exposed {
	ref := remit.Ref{Kind: "Credential", Name: native}
	return exposed{
		system: system, subject: remit.Subject{Record: remit.KindCredential, Ref: ref, ID: remit.CredentialID(system, ref, "")},
		identity: identity, native: native, by: by, active: true, expires: expires,
	}
}
