package response

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"remit"
)

// credentials are what is known of the credential that is to be revoked, and for
// other actions of those that authenticate the identity. Of what only the log knows
// there is a record with what the lineage tells.
func (s *Responses) credentials(ctx context.Context, q Request) ([]remit.Credential, error) {
	filter := remit.Filter{System: q.System, Identities: []remit.ID{q.IdentityID}}
	single := q.Action == remit.Revoke && q.Subject.Record == remit.KindCredential
	if single {
		filter = remit.Filter{System: q.System, IDs: []remit.ID{q.Subject.ID}}
	} else if q.IdentityID == "" {
		return nil, nil
	}
	var out []remit.Credential
	page := remit.PageRequest{Limit: 1000}
	for {
		some, next, err := s.o.Store.Credentials(ctx, filter, page)
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
		if page.After = next; next == "" {
			break
		}
	}
	if len(out) > 0 || !single {
		return out, nil
	}
	logged, err := s.logged(ctx, q)
	if err != nil {
		return nil, err
	}
	for _, l := range logged {
		c := remit.Credential{
			Record: remit.Record{ID: q.Subject.ID, System: q.System, Ref: q.Subject.Ref},
			Type:   l.Type, Status: remit.Active, Identity: l.Identity, Holder: l.Holder, Native: l.Credential,
			Issued: l.Minted, Expires: l.Expires, LastUsed: l.Last,
		}
		if l.Bound != (remit.Ref{}) {
			c.Attributes = map[string]string{"bound-" + strings.ToLower(l.Bound.Kind): l.Bound.Name}
		}
		out = append(out, c)
	}
	return out, nil
}

// logged is the lineage of the credential that a request is about.
func (s *Responses) logged(ctx context.Context, q Request) (out []remit.Lineage, err error) {
	if q.Credential == "" {
		return nil, nil
	}
	err = remit.Each(ctx, remit.ActivityFilter{System: q.System, Credentials: []string{q.Credential}}, s.o.Store.Lineage, func(l remit.Lineage) error {
		out = append(out, l)
		return nil
	})
	return out, err
}

// live are the credentials of an identity that work at that time, as the log
// writes them, and with them some others.
func (s *Responses) live(ctx context.Context, q Request, now time.Time, with ...[]string) ([]string, error) {
	out := merged(with...)
	if q.IdentityID == "" {
		return out, nil
	}
	err := remit.Each(ctx, remit.ActivityFilter{System: q.System, Identities: []remit.ID{q.IdentityID}}, s.o.Store.Lineage, func(l remit.Lineage) error {
		if l.Alive(now, rests) {
			out = append(out, l.Credential)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	known, err := s.credentials(ctx, q)
	if err != nil {
		return nil, err
	}
	for _, c := range known {
		if c.Native != "" && c.Status == remit.Active && (c.Expires.IsZero() || c.Expires.After(now)) {
			out = append(out, c.Native)
		}
	}
	return merged(out), nil
}

// merged are lists as one, sorted, each once.
func merged(lists ...[]string) []string {
	out := slices.Concat(lists...)
	slices.Sort(out)
	return slices.Compact(out)
}

// inUse tells who used a credential that is to be revoked, and would notice.
func (s *Responses) inUse(ctx context.Context, q Request, known []remit.Credential, now time.Time) ([]string, error) {
	logged, err := s.logged(ctx, q)
	if err != nil {
		return nil, err
	}
	const layout = "2006-01-02 15:04 UTC"
	for _, l := range logged {
		if l.Uses == 0 {
			continue
		}
		when := "It was in use within the last 30 days, so somebody will notice"
		if now.Sub(l.Last) > looksBack {
			when = "It was not in use within the last 30 days"
		}
		words := []string{fmt.Sprintf("%s: %d uses, the last at %s, from %s by %s.", when, l.Uses, l.Last.UTC().Format(layout), few(l.Addresses), few(l.UserAgents))}
		if l.Root != l.Credential {
			words = append(words, "What exactly it was used for is not counted apart from what else its holder does: `remit activity` shows that.")
		}
		return words, nil
	}
	for _, c := range known {
		if !c.LastUsed.IsZero() {
			return []string{fmt.Sprintf("The log has not shown it in use; its system says that it was last used on %s.", c.LastUsed.UTC().Format(time.DateOnly))}, nil
		}
	}
	return []string{"The log has not shown it in use. That says nothing of what the log did not cover."}, nil
}

func few(list []string) string {
	const most = 3
	switch {
	case len(list) == 0:
		return "somewhere"
	case len(list) > most:
		return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
	}
	return strings.Join(list, ", ")
}
