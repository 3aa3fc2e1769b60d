package azure

import (
	"bytes"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// SignIn decodes Entra's sign-in logs: of people, interactive and not, of
// service principals and of managed identities. It implements
// [connector.Decoder].
type SignIn struct{}

var _ connector.Decoder = SignIn{}

// Source names the events.
func (SignIn) Source() connector.Source {
	return connector.Source{
		Name: "azure-signin", Title: "Microsoft Entra sign-in logs", Connector: "azure",
		Product: "azure", Service: "signinlogs",
	}
}

// Recognizes says whether v is a sign-in, or a list of them.
func (SignIn) Recognizes(v *fastjson.Value) bool { return recognizes(v, maxWraps, isSignIn) }

// Split returns the events inside v, without the list around them.
func (SignIn) Split(v *fastjson.Value) []*fastjson.Value { return split(nil, v, maxWraps) }

func isSignIn(v *fastjson.Value) bool {
	for _, key := range [...]string{"category", "Category", "Type"} {
		b := v.GetStringBytes(key)
		if len(b) >= len("SignInLogs") && bytes.EqualFold(b[len(b)-len("SignInLogs"):], []byte("SignInLogs")) {
			return true
		}
	}
	// Of the Graph API.
	return v.Exists("createdDateTime") && v.Exists("appId") && !v.Exists("operationName") &&
		(v.Exists("conditionalAccessStatus") || v.Exists("signInEventTypes") || v.Exists("clientAppUsed"))
}

// signIn holds the fields of a sign-in that are read.
type signIn struct {
	id, time, user, userID, client, address, agent, status  *fastjson.Value
	principal, principalName, key, thumbprint, federated    *fastjson.Value
	token, session, incoming, resource, resourceName        *fastjson.Value
	resourceTenant, homeTenant, managed, eventTypes, tenant *fastjson.Value
}

func (s *signIn) read(v *fastjson.Value) {
	visit(v, func(key []byte, value *fastjson.Value) {
		var field **fastjson.Value
		switch string(key) {
		case "id":
			field = &s.id
		case "createddatetime":
			field = &s.time
		case "userprincipalname":
			field = &s.user
		case "userid":
			field = &s.userID
		case "appid":
			field = &s.client
		case "ipaddress":
			field = &s.address
		case "useragent":
			field = &s.agent
		case "status":
			field = &s.status
		case "serviceprincipalid":
			field = &s.principal
		case "serviceprincipalname":
			field = &s.principalName
		case "serviceprincipalcredentialkeyid":
			field = &s.key
		case "serviceprincipalcredentialthumbprint":
			field = &s.thumbprint
		case "federatedcredentialid":
			field = &s.federated
		case "uniquetokenidentifier":
			field = &s.token
		case "sessionid":
			field = &s.session
		case "incomingtokentype":
			field = &s.incoming
		case "resourceid", "resourceidentity":
			field = &s.resource
		case "resourcedisplayname":
			field = &s.resourceName
		case "resourcetenantid":
			field = &s.resourceTenant
		case "hometenantid":
			field = &s.homeTenant
		case "managedserviceidentity", "managedidentitytype":
			field = &s.managed
		case "signineventtypes":
			field = &s.eventTypes
		case "aadtenantid":
			field = &s.tenant
		default:
			return
		}
		if *field == nil {
			*field = value
		}
	})
}

// signInAction is Entra's word for every sign-in, which its API leaves out.
const signInAction = "Sign-in activity"

// Decode reads one sign-in. The token that it gave is what it minted; the
// credential is the one that was shown: a service principal's secret or
// certificate by its key's ID, a person's by the session.
func (s SignIn) Decode(v *fastjson.Value, in *connector.Interner, e *connector.Event) error {
	const op = "decode Entra sign-in"
	if v == nil || v.Type() != fastjson.TypeObject {
		return remit.Errorf(remit.Invalid, op, "not a JSON object")
	}
	var r record
	r.read(v)
	inner := object(r.properties)
	if inner == nil {
		inner = v
	}
	var f signIn
	f.read(inner)
	if f.user == nil && f.userID == nil && f.client == nil && f.principal == nil {
		return remit.Errorf(remit.Invalid, op, "it names neither a user nor an application: check that the file is of Entra's sign-in logs")
	}

	tenant := given(text(r.tenant))
	if r.stored || len(tenant) == 0 {
		tenant = firstOf(given(text(f.tenant)), given(text(f.resourceTenant)), given(text(f.homeTenant)), tenantOf(text(r.resourceID)))
	}
	e.Native = lowered(tenant, in)
	e.Time = connector.ParseTime(text(f.time))
	if e.Time.IsZero() {
		e.Time = connector.ParseTime(text(r.time))
	}
	if e.Action = in.String(text(r.operation)); e.Action == "" {
		e.Action = signInAction
	}
	e.Address = address(firstOf(text(f.address), text(r.address)), in)
	e.UserAgent = in.String(text(f.agent))
	if app := given(text(f.resource)); len(app) > 0 && app[0] != '/' {
		e.Resource = application(e.Native, app, in)
	} else if name := text(f.resourceName); len(name) > 0 {
		e.Resource = remit.Ref{Kind: kindApplication, Namespace: e.Native, Name: in.String(name)}
	}

	f.outcome(&r, in, e)
	f.identify(text(r.category), in, e)
	f.credentials(in, e)
	if id := text(f.id); len(id) > 0 {
		e.ID = string(id) // not interned: no other event has it
	} else {
		e.ID = connector.HashID(v, s.Strip)
	}
	e.Views = append(e.Views, connector.View{Product: "azure", Service: "signinlogs", JSON: v})
	return nil
}

// tenantOf reads /tenants/TENANT/providers/Microsoft.aadiam.
func tenantOf(id []byte) []byte {
	rest, ok := bytes.CutPrefix(id, []byte("/tenants/"))
	if !ok {
		return nil
	}
	tenant, _, _ := bytes.Cut(rest, []byte{'/'})
	return tenant
}

func (f *signIn) identify(category []byte, in *connector.Interner, e *connector.Event) {
	upn, client := text(f.user), given(text(f.client))
	if bytes.IndexByte(upn, '@') > 0 {
		e.Actor, e.Type, e.Principal = user(upn, in), remit.Human, in.String(upn)
		if len(client) > 0 { // the user let it act
			e.Chain = append(e.Chain, application(e.Native, client, in))
		}
		return
	}
	principal := given(text(f.principal))
	e.Principal = in.String(firstOf(principal, upn, client))
	switch {
	case len(principal) == 0 && len(given(text(f.userID))) > 0:
		// Of a person whose name is not told, only the object's ID is.
		e.Actor, e.Type = remit.Ref{Kind: kindUser, Name: lowered(text(f.userID), in)}, remit.Human
		e.Principal = in.String(firstOf(upn, text(f.userID)))
	case len(client) > 0:
		e.Actor, e.Type = application(e.Native, client, in), remit.Application
		if bytes.HasPrefix(category, []byte("ManagedIdentity")) || f.isManaged() {
			e.Type = remit.ServiceAccount
		}
	case len(principal) > 0:
		e.Actor = remit.Ref{Kind: kindServicePrincipal, Namespace: e.Native, Name: lowered(principal, in)}
		e.Type = remit.Application
	}
}

func (f *signIn) isManaged() bool {
	for _, kind := range f.eventTypes.GetArray() {
		if string(text(kind)) == "managedIdentity" {
			return true
		}
	}
	kind := firstOf(f.managed.GetStringBytes("msiType"), text(f.managed))
	return len(kind) > 0 && string(kind) != "none"
}

func (f *signIn) credentials(in *connector.Interner, e *connector.Event) {
	machine := e.Type != remit.Human
	key, session, federated := given(text(f.key)), given(text(f.session)), given(text(f.federated))
	switch {
	case machine && len(key) > 0:
		e.Credential, e.CredentialType = in.String(key), remit.ClientSecret
		if len(text(f.thumbprint)) > 0 {
			e.CredentialType = remit.Certificate
		}
	case machine && len(federated) > 0:
		e.Credential, e.CredentialType = in.String(federated), remit.FederatedTrust
	case len(session) > 0:
		e.Credential, e.CredentialType = in.String(session), remit.ShortLivedToken
	}
	if token := text(f.token); len(token) > 0 && e.Outcome == remit.Allowed {
		e.Minted = remit.Minted{Credential: string(token), Type: remit.ShortLivedToken, For: e.Actor}
	}
}

// outcome: any code but 0 means that no token was given.
func (f *signIn) outcome(r *record, in *connector.Interner, e *connector.Event) {
	status := object(f.status)
	code, told := number(status.Get("errorCode")), status.Exists("errorCode")
	if !told {
		result := text(r.result)
		if r.result != nil && r.result.Type() == fastjson.TypeNumber {
			code = r.result.GetInt()
		} else if code = digits(result); code == 0 && len(result) > 0 && string(result) != "0" && !bytes.EqualFold(result, []byte("Success")) {
			code = -1
		}
	}
	e.Outcome = remit.Allowed
	if code == 0 {
		return
	}
	e.Outcome = remit.Denied
	why := firstOf(status.GetStringBytes("failureReason"), text(r.description))
	if len(why) == 0 || string(why) == "Other." {
		why = firstOf(status.GetStringBytes("additionalDetails"), why)
	}
	e.Reason = reason(why, in)
}
