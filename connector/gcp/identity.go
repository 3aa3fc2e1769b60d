package gcp

import (
	"bytes"

	"github.com/valyala/fastjson"

	"remit"
)

// The kinds of reference to identities.
const (
	kindServiceAccount = "iam:ServiceAccount"
	kindPrincipal      = "iam:Principal" // of a workload or workforce identity pool
	kindUser           = "User"
	kindService        = "Service"
	kindApplication    = "Application"
)

// accountDomain ends the mail addresses of all service accounts.
const accountDomain = "gserviceaccount.com"

// identify reads authenticationInfo: who did it, with which key, for whom.
func (d *decoding) identify() {
	e := d.event
	info := d.payload.Get("authenticationInfo")
	mail := first(info, "principalEmail", "principal_email")
	subject := first(info, "principalSubject", "principal_subject")
	e.Actor, e.Type = d.principal(subject, mail)
	if len(mail) > 0 {
		e.Principal = d.in.String(mail)
	} else {
		e.Principal = d.in.String(subject)
	}
	if key := first(info, "serviceAccountKeyName", "service_account_key_name"); len(key) > 0 {
		e.Credential = d.in.String(key[bytes.LastIndexByte(key, '/')+1:])
		e.CredentialType = remit.PrivateKey
	}
	d.chain(info)
	// The client through which a person or account acts was let in by it.
	if client := info.GetStringBytes("oauthInfo", "oauthClientId"); len(client) > 0 {
		e.Chain = append(e.Chain, remit.Ref{Kind: kindApplication, Name: d.in.String(client)})
	}
}

// principal returns whom a subject and a mail address name, of which either may
// be empty. The subject tells the sort of principal, which the address alone
// does not always.
func (d *decoding) principal(subject, mail []byte) (remit.Ref, remit.IdentityType) {
	kind, rest, ok := bytes.Cut(subject, []byte{':'})
	if ok && string(kind) == "deleted" {
		kind, rest, ok = bytes.Cut(rest, []byte{':'})
		rest, _, _ = bytes.Cut(rest, []byte("?uid="))
	}
	if len(mail) == 0 && ok && string(kind) != "principal" {
		mail = rest
	}
	switch {
	case ok && (string(kind) == "principal" || string(kind) == "principalSet"):
		return d.federated(rest)
	case bytes.Contains(mail, []byte(".svc.id.goog[")):
		// GKE: PROJECT.svc.id.goog[NAMESPACE/ACCOUNT]
		pool, account, _ := bytes.Cut(mail, []byte{'['})
		return remit.Ref{
			Kind: kindPrincipal, Namespace: d.in.String(pool),
			Name: d.in.String(bytes.TrimSuffix(account, []byte{']'})),
		}, remit.Workload
	case len(mail) == 0:
		return remit.Ref{}, ""
	case bytes.HasSuffix(mail, []byte(accountDomain)) || string(kind) == "serviceAccount" && bytes.Equal(rest, mail):
		return d.account(mail), remit.ServiceAccount
	case string(mail) == "system@google.com":
		return remit.Ref{Kind: kindService, Name: "system@google.com"}, remit.Application
	}
	return remit.Ref{Kind: kindUser, Name: d.in.String(mail)}, remit.Human
}

// account returns a service account by its mail address, in the namespace of
// the project that the address tells, or else of the entry's:
// https://cloud.google.com/iam/docs/service-account-types
func (d *decoding) account(mail []byte) remit.Ref {
	ref := remit.Ref{Kind: kindServiceAccount, Namespace: d.event.Native, Name: d.in.String(mail)}
	name, domain, ok := bytes.Cut(mail, []byte{'@'})
	if !ok {
		return ref
	}
	if project, ok := bytes.CutSuffix(domain, []byte(".iam.gserviceaccount.com")); ok {
		// A project of an old organization is called "example.com:project"
		// and writes itself backwards.
		if id, org, ok := bytes.Cut(project, []byte{'.'}); ok {
			project = append(append(append(make([]byte, 0, len(project)), org...), ':'), id...)
		}
		ref.Namespace = d.in.String(project)
	} else if string(domain) == "appspot.gserviceaccount.com" {
		ref.Namespace = d.in.String(name)
	}
	return ref
}

// federated reads //iam.googleapis.com/…/POOL/subject/SUBJECT, the principal of
// a token of a foreign issuer.
func (d *decoding) federated(name []byte) (remit.Ref, remit.IdentityType) {
	name = bytes.TrimPrefix(name, []byte("//iam.googleapis.com/"))
	kind := remit.Workload
	if bytes.Contains(name, []byte("/workforcePools/")) {
		kind = remit.Human
	}
	ref := remit.Ref{Kind: kindPrincipal, Name: d.in.String(name)}
	if pool, subject, ok := bytes.Cut(name, []byte("/subject/")); ok {
		ref.Namespace, ref.Name = d.in.String(pool), d.in.String(subject)
	}
	return ref, kind
}

// chain tells who used the service account, the nearest first. The log has the delegations in the
// order in which they were made, the first actor first.
func (d *decoding) chain(info *fastjson.Value) {
	delegations := info.GetArray("serviceAccountDelegationInfo")
	if len(delegations) == 0 {
		delegations = info.GetArray("service_account_delegation_info")
	}
	for i := len(delegations) - 1; i >= 0; i-- {
		by := delegations[i]
		mail := by.GetStringBytes("firstPartyPrincipal", "principalEmail")
		subject := by.GetStringBytes("principalSubject")
		if len(mail) == 0 && len(subject) == 0 {
			subject = by.GetStringBytes("thirdPartyPrincipal", "thirdPartyClaims", "sub")
			if len(subject) > 0 {
				d.event.Chain = append(d.event.Chain, remit.Ref{
					Kind:      kindPrincipal,
					Namespace: d.in.Get(by, "thirdPartyPrincipal", "thirdPartyClaims", "iss"),
					Name:      d.in.String(subject),
				})
			}
			continue
		}
		if ref, _ := d.principal(subject, mail); ref.Name != "" && ref != d.event.Actor {
			d.event.Chain = append(d.event.Chain, ref)
		}
	}
}
