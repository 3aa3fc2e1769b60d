//go:build unix

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"remit"
)

// question is what people, pages and workers ask.
type question struct {
	name string
	ask  func(context.Context) (found int, err error)
}

// lister is a list of any kind.
type lister[T any] func(context.Context, remit.Filter, remit.PageRequest) ([]T, string, error)

func page[T any](list lister[T], f remit.Filter, sort string) func(context.Context) (int, error) {
	return func(ctx context.Context) (int, error) {
		got, _, err := list(ctx, f, remit.PageRequest{Limit: 100, Sort: sort})
		return len(got), err
	}
}

// second is a page behind the one that its filter begins with.
func second[T any](list lister[T], f remit.Filter) func(context.Context) (int, error) {
	after := ""
	return func(ctx context.Context) (int, error) {
		if after == "" {
			var err error
			for range 20 {
				if _, after, err = list(ctx, f, remit.PageRequest{Limit: 1000, After: after}); err != nil {
					return 0, err
				}
			}
		}
		got, _, err := list(ctx, f, remit.PageRequest{Limit: 100, After: after})
		return len(got), err
	}
}

func (b *bench) questions() []question {
	s := b.store
	at := b.n/6*3 + 1 // one that has an owner
	middle := b.identity(at)
	yes := true
	past, present := start.Add(12*time.Hour), start.Add(48*time.Hour)
	return []question{
		{"identities, first page", page(s.Identities, remit.Filter{}, "")},
		{"identities, page 200", second(s.Identities, remit.Filter{})},
		{"identities, newest order", page(s.Identities, remit.Filter{}, "created")},
		{"identities of one namespace", page(s.Identities, remit.Filter{Namespaces: []string{middle.Namespace}}, "")},
		{"identities by exact name", page(s.Identities, remit.Filter{Names: []string{middle.Name}}, "")},
		{"agents (1 in 100)", page(s.Identities, remit.Filter{Types: []string{"agent"}}, "")},
		{"service accounts (most)", page(s.Identities, remit.Filter{Types: []string{"service-account"}}, "")},
		{"disabled (1 in 1000)", page(s.Identities, remit.Filter{Statuses: []remit.Status{remit.Disabled}}, "")},
		{"unowned (1 in 3)", page(s.Identities, remit.Filter{Unowned: true}, "")},
		{"of one owner", page(s.Identities, remit.Filter{Owner: middle.Owners[0].Name}, "")},
		{"search, one found", page(s.Identities, remit.Filter{Search: fmt.Sprint(at)}, "")},
		{"search, 1 in 8", page(s.Identities, remit.Filter{Search: "bill"}, "")},
		{"search, 1 in 64", page(s.Identities, remit.Filter{Search: "bill gat"}, "")},
		{"credentials, first page", page(s.Credentials, remit.Filter{}, "")},
		{"credentials of one identity", page(s.Credentials, remit.Filter{Identities: []remit.ID{middle.ID}}, "")},
		{"credential by native ID", page(s.Credentials, remit.Filter{Natives: []string{b.credential(at, 0, middle).Native}}, "")},
		{"credentials, next to expire", page(s.Credentials, remit.Filter{ExpiresBefore: start.Add(24 * time.Hour)}, "expires")},
		{"never expire (3 in 4)", page(s.Credentials, remit.Filter{NeverExpires: &yes}, "")},
		{"grants of one identity", page(s.Grants, remit.Filter{Identities: []remit.ID{middle.ID}}, "")},
		{"grants of one role", page(s.Grants, remit.Filter{RoleIDs: []remit.ID{remit.RoleID(b.system, remit.Ref{Kind: "ClusterRole", Name: "role-7"})}}, "")},
		{"counts of credentials", func(ctx context.Context) (int, error) {
			c, err := s.Counts(ctx, remit.KindCredential, "")
			return len(c), err
		}},
		{"past, before the change, first page", page(s.Identities, remit.Filter{At: past}, "")},
		{"past, after the change, first page", page(s.Identities, remit.Filter{At: present}, "")},
		{"past, before all", page(s.Identities, remit.Filter{At: start.Add(-time.Hour)}, "")},
		{"past, one identity", page(s.Identities, remit.Filter{At: past, IDs: []remit.ID{middle.ID}}, "")},
		{"history of one identity", func(ctx context.Context) (int, error) {
			v, err := s.History(ctx, b.identity(0).ID)
			return len(v), err
		}},
	}
}

// timed asks six times: at first with what is cached by chance, then the median.
func timed(ctx context.Context, ask func(context.Context) (int, error)) (first, median time.Duration, found int, err error) {
	var times []time.Duration
	for range 6 {
		begun := time.Now()
		if found, err = ask(ctx); err != nil {
			return 0, 0, 0, err
		}
		times = append(times, time.Since(begun))
	}
	first = times[0]
	slices.Sort(times[1:])
	return first, times[1:][2], found, nil
}
