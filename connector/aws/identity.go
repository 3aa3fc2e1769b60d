package aws

import (
	"bytes"
	"strings"

	"github.com/valyala/fastjson"

	"remit"
)

// The kinds of reference to identities. The first two parts of an ARN make the
// kinds of everything else: see arn.ref.
const (
	kindRole           = "iam:Role"
	kindUser           = "iam:User"
	kindRoot           = "iam:Root"
	kindFederated      = "sts:FederatedUser"
	kindIdentityCenter = "identitystore:User"
	kindOIDC           = "oidc:Subject"
	kindSAML           = "saml:User"
	kindDirectory      = "ds:User"
	kindAccount        = "Account"
	kindService        = "Service"
	kindPerson         = "User"
	kindSource         = "SourceIdentity"
	kindInstance       = "ec2:Instance"
)

// hidden is what CloudTrail writes for what may be a mistyped password.
const hidden = "HIDDEN_DUE_TO_SECURITY_REASONS"

// identify reads userIdentity: who did it, with what, bound to what, for whom.
func (d *decoding) identify() {
	e, u, in := d.event, d.identity, d.in
	if u == nil || u.Type() != fastjson.TypeObject {
		return
	}
	kind := u.GetStringBytes("type")
	a := parseARN(u.GetStringBytes("arn"))
	account := u.GetStringBytes("accountId")
	if len(account) == 0 {
		account = a.account
	}
	if len(account) == 0 && string(kind) != "AWSService" && string(kind) != "AWSAccount" {
		account = text(d.account)
	}
	namespace := in.String(account)
	user := u.GetStringBytes("userName")
	invokedBy := u.GetStringBytes("invokedBy")
	if string(user) == hidden {
		user = nil
	}

	if session := u.Get("sessionContext"); session != nil && string(kind) != "FederatedUser" {
		// The issuer's ARN tells the account of a role also where the
		// event's own is another.
		if issuer := parseARN(session.GetStringBytes("sessionIssuer", "arn")); len(issuer.account) > 0 && len(a.account) == 0 {
			namespace = in.String(issuer.account)
		}
	}

	switch string(kind) {
	case "AssumedRole", "Role":
		e.Actor = remit.Ref{Kind: kindRole, Namespace: namespace, Name: in.String(d.role(a))}
		e.Type = remit.AssumableRole
	case "IAMUser":
		name := firstOf(a.last("user"), user)
		if len(name) == 0 && len(u.GetStringBytes("userName")) == 0 {
			name = u.GetStringBytes("principalId") // as calls through a VPC endpoint are logged
		}
		e.Actor = remit.Ref{Kind: kindUser, Namespace: namespace, Name: in.String(name)}
	case "Root":
		e.Actor = remit.Ref{Kind: kindRoot, Namespace: namespace, Name: "root"}
		e.Type = remit.Human
	case "FederatedUser":
		e.Actor = remit.Ref{Kind: kindFederated, Namespace: namespace, Name: in.String(a.last("federated-user"))}
	case "AWSService":
		e.Actor = remit.Ref{Kind: kindService, Name: in.String(invokedBy)}
		e.Type = remit.Application
	case "AWSAccount":
		e.Actor = remit.Ref{Kind: kindAccount, Namespace: namespace, Name: namespace}
	case "SAMLUser":
		e.Actor = remit.Ref{Kind: kindSAML, Namespace: in.Get(u, "identityProvider"), Name: in.String(user)}
		e.Type = remit.Human
	case "WebIdentityUser":
		e.Actor = remit.Ref{Kind: kindOIDC, Namespace: in.String(issuerOf(u.GetStringBytes("identityProvider"))), Name: in.String(user)}
		e.Type = subjectType(user)
	case "IdentityCenterUser":
		e.Actor = d.identityCenterUser(u.Get("onBehalfOf"))
		e.Type = remit.Human
	case "Directory":
		e.Actor = remit.Ref{Kind: kindDirectory, Namespace: namespace, Name: in.String(user)}
		e.Type = remit.Human
	default:
		switch {
		case len(a.resource) > 0:
			e.Actor = a.identity(in)
		case len(user) > 0: // "Unknown", as of the sign-in to IAM Identity Center
			e.Actor = remit.Ref{Kind: kindIdentityCenter, Name: in.String(user)}
			e.Type = remit.Human
		case len(invokedBy) > 0 && len(kind) == 0:
			e.Actor = remit.Ref{Kind: kindService, Name: in.String(invokedBy)}
			e.Type = remit.Application
		}
	}
	if e.Actor.Name == "" {
		e.Actor = remit.Ref{}
	}
	e.Principal = in.String(firstOf(u.GetStringBytes("arn"), user, u.GetStringBytes("principalId"), invokedBy))
	d.credential(u, a)
	d.chain(u, a, kind, invokedBy)
}

func firstOf(values ...[]byte) []byte {
	for _, v := range values {
		if len(v) > 0 {
			return v
		}
	}
	return nil
}

// role returns the name of the role of a session: of its ARN, or of what issued
// the session.
func (d *decoding) role(a arn) []byte {
	if a.is("assumed-role") {
		name, _, _ := bytes.Cut(a.rest(), []byte{'/'})
		return name
	}
	if name := a.last("role"); len(name) > 0 {
		return name
	}
	issuer := d.identity.Get("sessionContext", "sessionIssuer")
	if name := parseARN(text(issuer.Get("arn"))).last("role"); len(name) > 0 {
		return name
	}
	id, _, _ := bytes.Cut(d.identity.GetStringBytes("principalId"), []byte{':'})
	return firstOf(text(issuer.Get("userName")), d.identity.GetStringBytes("userName"), id)
}

// sessionName is the part of an assumed role's ARN that whoever assumed it chose.
func sessionName(a arn, u *fastjson.Value) []byte {
	if a.is("assumed-role") {
		_, name, _ := bytes.Cut(a.rest(), []byte{'/'})
		return name
	}
	_, name, _ := bytes.Cut(u.GetStringBytes("principalId"), []byte{':'})
	return name
}

func (d *decoding) credential(u *fastjson.Value, a arn) {
	e, in := d.event, d.in
	key := u.GetStringBytes("accessKeyId")
	if len(key) == 0 {
		key = u.GetStringBytes("accesKeyId") // a log store's mistake
	}
	switch {
	case len(key) > 0:
		e.Credential, e.CredentialType = in.String(key), keyType(key)
	case len(u.GetStringBytes("credentialId")) > 0:
		e.Credential, e.CredentialType = in.Get(u, "credentialId"), remit.ShortLivedToken
	case string(d.name) == "ConsoleLogin":
		switch e.Actor.Kind {
		case kindUser, kindRoot:
			e.CredentialType = remit.Password
		}
	case u.Exists("sessionContext", "attributes") || truth(d.console):
		// A session of the console has no key. One word for all would make
		// all of them one credential.
		var room [160]byte
		b := append(room[:0], "session"...)
		if id := u.GetStringBytes("principalId"); len(id) > 0 {
			b = append(append(b, ':'), id...)
		}
		e.Credential, e.CredentialType = in.String(b), remit.ShortLivedToken
	}
	if (truth(d.console) || string(d.name) == "ConsoleLogin") && e.Actor.Kind == kindUser {
		e.Type = remit.Human
	}
	if e.Actor.Kind == kindRole {
		if name := sessionName(a, u); isInstance(name) {
			e.Bound = remit.Ref{Kind: kindInstance, Namespace: e.Actor.Namespace, Name: in.String(name)}
		}
	}
}

// keyType tells long-lived keys from those of sessions:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-prefixes
func keyType(key []byte) remit.CredentialType {
	switch {
	case bytes.HasPrefix(key, []byte("ASIA")):
		return remit.ShortLivedToken
	case bytes.HasPrefix(key, []byte("AKIA")):
		return remit.APIKey
	}
	return ""
}

func truth(v *fastjson.Value) bool {
	if v == nil {
		return false
	}
	return v.Type() == fastjson.TypeTrue || v.Type() == fastjson.TypeString && bytes.EqualFold(v.GetStringBytes(), []byte("true"))
}

// isInstance says whether a role session's name is that of an instance, as EC2
// names the sessions of instance profiles.
func isInstance(name []byte) bool {
	if len(name) != len("i-1234abcd") && len(name) != len("i-0123456789abcdef0") || name[0] != 'i' || name[1] != '-' {
		return false
	}
	for _, c := range name[2:] {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// chain tells who stands behind the actor, the nearest first: the service that
// the call was made through, the person or workload whose session it is.
func (d *decoding) chain(u *fastjson.Value, a arn, kind, invokedBy []byte) {
	e, in := d.event, d.in
	add := func(ref remit.Ref) {
		if ref.Name == "" || ref == e.Actor {
			return
		}
		for _, known := range e.Chain {
			if known == ref {
				return
			}
		}
		e.Chain = append(e.Chain, ref)
	}
	if len(invokedBy) > 0 && string(kind) != "AWSService" && string(invokedBy) != "AWS Internal" {
		add(remit.Ref{Kind: kindService, Name: in.String(invokedBy)})
	}
	session := u.Get("sessionContext")
	if string(kind) == "FederatedUser" {
		issuer := parseARN(text(session.Get("sessionIssuer", "arn")))
		add(issuer.identity(in))
	}
	if e.Actor.Kind == kindRole {
		name := sessionName(a, u)
		switch {
		case strings.HasPrefix(e.Actor.Name, "AWSReservedSSO_"):
			// IAM Identity Center itself names these sessions, by user name.
			add(remit.Ref{Kind: kindIdentityCenter, Name: in.String(name)})
		case bytes.IndexByte(name, '@') > 0:
			add(remit.Ref{Kind: kindPerson, Name: in.String(name)})
		}
	}
	if session != nil {
		if web := session.Get("webIdFederationData"); web != nil {
			add(d.federated(web))
		}
		add(remit.Ref{Kind: kindSource, Namespace: e.Actor.Namespace, Name: in.Get(session, "sourceIdentity")})
	}
	if behalf := u.Get("onBehalfOf"); behalf != nil {
		add(d.identityCenterUser(behalf))
	}
}

// federated reads the provider and the subject of a session that was begun with
// a token of a foreign issuer.
func (d *decoding) federated(web *fastjson.Value) remit.Ref {
	issuer := issuerOf(web.GetStringBytes("federatedProvider"))
	if len(issuer) == 0 {
		return remit.Ref{}
	}
	var subject []byte
	web.GetObject("attributes").Visit(func(key []byte, v *fastjson.Value) {
		if subject == nil && (bytes.HasSuffix(key, []byte(":sub")) || string(key) == "sub") {
			subject = text(v)
		}
	})
	return remit.Ref{Kind: kindOIDC, Namespace: d.in.String(issuer), Name: d.in.String(subject)}
}

// issuerOf returns the issuer's host and path of a provider, which is written
// as its ARN or as itself.
func issuerOf(provider []byte) []byte {
	if a := parseARN(provider); a.is("oidc-provider") {
		return a.rest()
	}
	return provider
}

// subjectType judges a subject of a web identity by the forms of the issuers
// whose subjects are never people.
func subjectType(subject []byte) remit.IdentityType {
	for _, prefix := range [...]string{"system:serviceaccount:", "repo:", "project_path:", "organization:"} {
		if bytes.HasPrefix(subject, []byte(prefix)) {
			return remit.Workload
		}
	}
	return ""
}

func (d *decoding) identityCenterUser(behalf *fastjson.Value) remit.Ref {
	if behalf == nil {
		return remit.Ref{}
	}
	store := parseARN(behalf.GetStringBytes("identityStoreArn")).last("identitystore")
	return remit.Ref{Kind: kindIdentityCenter, Namespace: d.in.String(store), Name: d.in.Get(behalf, "userId")}
}
