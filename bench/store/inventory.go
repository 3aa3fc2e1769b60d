//go:build unix

package main

import (
	"fmt"
	"iter"
	"time"

	"remit"
)

// start is when the inventory was first learned.
var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// inventory makes the records of a company of n identities: each has three
// credentials and grants. It keeps none of them.
type inventory struct {
	system remit.ID
	n      int
}

func newInventory(n int) *inventory {
	return &inventory{system: remit.SystemID("bench", "bench"), n: n}
}

// pages makes the records, a page at a time; of an odd round one in a hundred
// is changed.
func (v *inventory) pages(size, round int) iter.Seq[remit.Records] {
	return func(yield func(remit.Records) bool) {
		var page remit.Records
		for i := range v.n {
			v.append(&page, i, round)
			if page.Len() >= size || i == v.n-1 {
				if !yield(page) {
					return
				}
				page = remit.Records{}
			}
		}
	}
}

func (v *inventory) append(page *remit.Records, i, round int) {
	id := v.identity(i)
	if round%2 == 1 && i%25 == 0 { // four records each: one in a hundred
		id.LastActive = start.Add(time.Duration(round) * 24 * time.Hour)
	}
	page.Identities = append(page.Identities, id)
	for k := range 1 + i%2 {
		page.Credentials = append(page.Credentials, v.credential(i, k, id))
	}
	for k := range 2 - i%2 {
		page.Grants = append(page.Grants, v.grant(i, k, id))
	}
}

func (v *inventory) record(kind string, i int, name string) remit.Record {
	return remit.Record{
		System: v.system, Ref: remit.Ref{Kind: kind, Namespace: fmt.Sprintf("team-%04d", i/200), Name: name},
		Incarnation: fmt.Sprintf("3f2a7c1e-0000-4000-8000-%012d", i), Created: start.Add(-time.Duration(i%10_000) * time.Hour),
		Labels: map[string]string{"app": name, "team": fmt.Sprint("team-", i/200)},
	}
}

func (v *inventory) identity(i int) remit.Identity {
	words := []string{"api", "worker", "gateway", "billing", "search", "mail", "ingest", "report"}
	r := remit.Identity{
		Record: v.record("ServiceAccount", i, fmt.Sprintf("%s-%s-%d", words[i%8], words[i/8%8], i)),
		Type:   remit.ServiceAccount, Status: remit.Active,
	}
	r.ID = remit.IdentityID(v.system, r.Ref)
	r.Principal = "system:serviceaccount:" + r.Namespace + ":" + r.Name
	switch {
	case i%100 == 1:
		r.Type = remit.Agent
	case i%10 == 2:
		r.Type = remit.Human
	}
	if i%1000 == 3 {
		r.Status = remit.Disabled
	}
	if i%3 > 0 {
		r.Owners = []remit.Owner{{Name: fmt.Sprint("team-", i/200), Source: "label team"}}
	}
	return r
}

func (v *inventory) credential(i, k int, holder remit.Identity) remit.Credential {
	r := remit.Credential{
		Record: v.record("Secret", i, fmt.Sprintf("%s-token-%d", holder.Name, k)),
		Type:   remit.StaticToken, Status: remit.Active, Key: "token", Identity: holder.ID, Holder: holder.Ref, Provider: "kubernetes",
		Issued: start.Add(-time.Duration(i%5000) * time.Hour),
	}
	r.ID = remit.CredentialID(v.system, r.Ref, r.Key)
	r.Native = fmt.Sprintf("JTI=%s", r.ID[4:])
	if r.NeverExpires = i%4 > 0; !r.NeverExpires {
		r.Expires = start.Add(time.Duration(i%9000) * time.Hour)
	}
	return r
}

func (v *inventory) grant(i, k int, to remit.Identity) remit.Grant {
	role := remit.Ref{Kind: "ClusterRole", Name: fmt.Sprintf("role-%d", i%500)}
	r := remit.Grant{
		Record: v.record("RoleBinding", i, fmt.Sprintf("%s-%d", to.Name, k)),
		Status: remit.Active, Identity: to.ID, Subject: to.Ref, Role: remit.RoleID(v.system, role), RoleRef: role, Scope: to.Namespace,
	}
	r.ID = remit.GrantID(v.system, r.Ref, to.ID)
	return r
}
