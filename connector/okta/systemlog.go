// Package okta reads the System Log of an Okta organization.
package okta

import (
	"bytes"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// SystemLog reads System Log events as the API gives them, as event hooks and
// Amazon EventBridge deliver them, and as log stores keep them: with the names
// of fields in lower case and with times without a zone.
//
// Nothing in an event that a client cannot choose tells which organization it
// is of, so Native is always "".
// Source: https://developer.okta.com/docs/api/openapi/okta-management/management/tag/SystemLog/
var SystemLog connector.Decoder = systemLog{}

type systemLog struct{}

const op = "okta system log"

func (systemLog) Source() connector.Source {
	return connector.Source{Name: "okta", Title: "Okta System Log", Connector: "okta", Product: "okta", Service: "okta"}
}

func (s systemLog) Recognizes(v *fastjson.Value) bool {
	if v.Type() == fastjson.TypeArray {
		items := v.GetArray()
		return len(items) > 0 && items[0].Type() == fastjson.TypeObject && s.Recognizes(items[0])
	}
	if events := hooked(v); events != nil {
		return len(events) > 0 && events[0].Type() == fastjson.TypeObject && isEvent(events[0])
	}
	if detail := v.Get("detail"); detail != nil && bytes.HasPrefix(v.GetStringBytes("source"), []byte("aws.partner/okta.com")) {
		return isEvent(detail)
	}
	return isEvent(v)
}

// isEvent knows an event by an event type beside an actor of Okta's form. An
// actor of CloudTrail, OCSF or GitHub has another.
func isEvent(v *fastjson.Value) bool {
	if get(v, "eventType", "eventtype") == nil && get(v, "legacyEventType", "legacyeventtype") == nil {
		return false
	}
	return v.Get("actor", "type") != nil || v.Get("actor", "alternateId") != nil || v.Get("actor", "alternateid") != nil
}

// hooked returns the events of an event hook's request; nil when v is none.
func hooked(v *fastjson.Value) []*fastjson.Value {
	if string(v.GetStringBytes("eventType")) != "com.okta.event_hook" {
		return nil
	}
	return v.GetArray("data", "events")
}

func (systemLog) Split(v *fastjson.Value) []*fastjson.Value {
	if v.Type() == fastjson.TypeArray {
		return v.GetArray()
	}
	if events := hooked(v); events != nil {
		return events
	}
	return []*fastjson.Value{v}
}

// get is the field of that name in Okta's or in a log store's spelling.
func get(v *fastjson.Value, name, lower string) *fastjson.Value {
	if item := v.Get(name); item != nil {
		return item
	}
	return v.Get(lower)
}

func getString(v *fastjson.Value, name, lower string) []byte {
	return get(v, name, lower).GetStringBytes()
}

func (d systemLog) Decode(v *fastjson.Value, in *connector.Interner, e *connector.Event) error {
	if detail := v.Get("detail"); detail != nil && v.Get("detail-type") != nil {
		v = detail // EventBridge
	}
	object, err := v.Object()
	if err != nil {
		return remit.Errorf(remit.Invalid, op, "an event is a JSON object, not %s", v.Type())
	}
	var f fields
	// A closure over f would put it on the heap.
	f.visit(object)
	if len(f.eventType) == 0 {
		f.eventType = f.legacy
	}
	if len(f.eventType) == 0 {
		if f.aggregate {
			return connector.ErrIgnored
		}
		return remit.Errorf(remit.Invalid, op, "the event has no eventType")
	}
	e.Views = append(e.Views, connector.View{Product: "okta", Service: "okta", JSON: v})
	f.fill(in, &e.Activity)
	if e.ID == "" {
		e.ID = connector.HashID(v, d.Strip)
	}
	return nil
}

// fields are the parts of an event, in its memory.
type fields struct {
	id, published, stored                  []byte
	eventType, legacy                      []byte
	actor, client, authentication, outcome *fastjson.Value
	target, transaction, debug, request    *fastjson.Value

	// aggregate says that it is a row of counts that a store made of many
	// events: nobody did it.
	aggregate bool
}

func (f *fields) visit(object *fastjson.Object) {
	object.Visit(func(key []byte, v *fastjson.Value) {
		switch string(key) {
		case "uuid":
			f.id = v.GetStringBytes()
		case "published":
			f.published = v.GetStringBytes()
		case "p_event_time":
			f.stored = v.GetStringBytes()
		case "eventType", "eventtype":
			f.eventType = v.GetStringBytes()
		case "legacyEventType", "legacyeventtype":
			f.legacy = v.GetStringBytes()
		case "actor":
			f.actor = v
		case "client":
			f.client = v
		case "authenticationContext", "authenticationcontext":
			f.authentication = v
		case "outcome":
			f.outcome = v
		case "target":
			f.target = v
		case "transaction":
			f.transaction = v
		case "debugContext", "debugcontext":
			f.debug = get(v, "debugData", "debugdata")
		case "request":
			f.request = v
		case "is_anomalous", "anomaly_severity_score":
			f.aggregate = true
		}
	})
}

func (f *fields) fill(in *connector.Interner, a *remit.Activity) {
	a.ID = string(f.id)
	a.Time = connector.ParseTime(f.published)
	if a.Time.IsZero() {
		a.Time = connector.ParseTime(f.stored)
	}
	a.Action = in.String(f.eventType)
	a.Write = writes(f.eventType)
	f.readOutcome(in, a)
	f.readActor(in, a)
	f.readCredential(in, a)
	f.readTargets(in, a)

	if f.client != nil {
		a.Address = in.String(getString(f.client, "ipAddress", "ipaddress"))
		if agent := get(f.client, "userAgent", "useragent"); agent != nil {
			a.UserAgent = in.String(getString(agent, "rawUserAgent", "rawuseragent"))
		}
	}
	if a.Address == "" && f.request != nil {
		// The nearest of the chain is what Okta itself saw.
		if chain := get(f.request, "ipChain", "ipchain").GetArray(); len(chain) > 0 {
			a.Address = in.Get(chain[len(chain)-1], "ip")
		}
	}
}

var unknown = []byte("unknown")

// nameOf is how an actor or a target is named: by its alternateId, the login
// of a user and the client ID of an app, or by its ID where it has none.
func nameOf(v *fastjson.Value) []byte {
	if name := getString(v, "alternateId", "alternateid"); len(name) > 0 && !bytes.Equal(name, unknown) && string(name) != connector.Stripped {
		return name
	}
	if id := v.GetStringBytes("id"); len(id) > 0 {
		return id
	}
	return getString(v, "displayName", "displayname")
}

func (f *fields) readActor(in *connector.Interner, a *remit.Activity) {
	if f.actor == nil {
		return
	}
	name := nameOf(f.actor)
	if mistyped(f.actor, f.eventType, f.outcome) {
		name = unknown
	}
	if len(name) == 0 {
		return
	}
	a.Principal = in.String(name)
	a.Actor = remit.Ref{Kind: "User", Name: a.Principal}
	switch kind := f.actor.GetStringBytes("type"); string(kind) {
	case "User", "":
		a.Type = remit.Human
	case "PublicClientApp", "Client", "OAuthClient", "AppInstance":
		a.Actor.Kind, a.Type = "Application", remit.Application
	case "AIAgent":
		a.Actor.Kind, a.Type = "AIAgent", remit.Agent
	case "SystemPrincipal":
		a.Actor.Kind, a.Type = "SystemPrincipal", remit.Workload
	default:
		a.Actor.Kind = in.String(kind)
	}
}

// mistyped says that a failed login names nobody whom Okta knows by something
// that is no login: people type their password there, and the log keeps it.
func mistyped(actor *fastjson.Value, eventType []byte, outcome *fastjson.Value) bool {
	if !bytes.HasPrefix(eventType, []byte("user.session.start")) && !bytes.HasPrefix(eventType, []byte("user.authentication.")) ||
		string(outcome.GetStringBytes("result")) != "FAILURE" {
		return false
	}
	if id := actor.GetStringBytes("id"); len(id) > 0 && !bytes.Equal(id, unknown) {
		return false
	}
	name := getString(actor, "alternateId", "alternateid")
	return len(name) > 0 && !bytes.Equal(name, unknown) && string(name) != connector.Stripped && !isLogin(name)
}

// isLogin tells a mail address, which Okta's logins are by default, and the ID
// of an app.
func isLogin(name []byte) bool {
	if bytes.HasPrefix(name, []byte("0oa")) {
		return true
	}
	at := bytes.IndexByte(name, '@')
	return at > 0 && bytes.IndexByte(name[at:], '.') > 1 && bytes.IndexByte(name, ' ') < 0
}

// readCredential prefers the API token, which lasts, to the session that Okta
// makes up for each request with it.
func (f *fields) readCredential(in *connector.Interner, a *remit.Activity) {
	if f.transaction != nil {
		if detail := f.transaction.Get("detail"); detail != nil {
			if id := getString(detail, "requestApiTokenId", "requestapitokenid"); len(id) > 0 {
				a.Credential, a.CredentialType = join(in, apiToken, id), remit.StaticToken
				return
			}
		}
	}
	if f.debug != nil && bytes.HasPrefix(f.eventType, []byte("app.oauth2.")) {
		if id := f.debug.GetStringBytes("jti"); len(id) > 0 {
			a.Credential, a.CredentialType = join(in, jti, id), remit.ShortLivedToken
			return
		}
	}
	if f.authentication != nil {
		if id := getString(f.authentication, "externalSessionId", "externalsessionid"); len(id) > 0 && !bytes.Equal(id, unknown) {
			a.Credential, a.CredentialType = join(in, session, id), remit.ShortLivedToken
		}
	}
}

// What begins the IDs of credentials.
const (
	apiToken  = "requestApiTokenId="
	session   = "externalSessionId="
	jti       = "JTI="
	tokenHash = "hash="
)

func join(in *connector.Interner, prefix string, b []byte) string {
	var scratch [160]byte
	return in.String(append(append(scratch[:0], prefix...), b...))
}

// readTargets tells what the event is about, whom it concerns, and what it
// issued.
func (f *fields) readTargets(in *connector.Interner, a *remit.Activity) {
	grant := bytes.HasPrefix(f.eventType, []byte("app.oauth2.")) && bytes.Contains(f.eventType, []byte(".grant"))
	var first, person *fastjson.Value
	for _, target := range f.target.GetArray() {
		if target.Type() != fastjson.TypeObject {
			continue
		}
		kind := target.GetStringBytes("type")
		switch {
		case isToken(kind):
			if grant && a.Minted.Credential == "" && a.Outcome == remit.Allowed {
				a.Minted = mintedOf(target, in)
			}
			if string(f.eventType) == "system.api_token.create" {
				if id := target.GetStringBytes("id"); len(id) > 0 {
					a.Minted = remit.Minted{Credential: join(in, apiToken, id), Type: remit.StaticToken}
				}
			}
		case string(kind) == "User" && person == nil:
			person = target
		}
		// How someone proved who he is, is not what he went to.
		if first == nil || bytes.HasPrefix(first.GetStringBytes("type"), []byte("Authenticator")) {
			first = target
		}
	}
	if first != nil {
		a.Resource = remit.Ref{Kind: in.Get(first, "type"), Name: in.String(nameOf(first))}
	}
	var user remit.Ref
	if person != nil {
		user = remit.Ref{Kind: "User", Name: in.String(nameOf(person))}
	}
	if a.Minted.Credential != "" {
		a.Minted.For = a.Actor
		if user.Name != "" {
			a.Minted.For = user
		}
	}
	if user.Name == "" || user == a.Actor {
		return
	}
	switch {
	case grant && a.Actor.Kind == "Application":
		a.Chain = append(a.Chain, user) // on whose behalf the app will act
	case string(f.eventType) == "user.session.impersonation.initiate":
		a.As = user
	}
}

func isToken(kind []byte) bool {
	switch string(kind) {
	case "access_token", "refresh_token", "id_token", "AccessToken", "RefreshToken", "IDToken", "Token", "token", "API Token", "ApiToken":
		return true
	}
	return false
}

// mintedOf reads an OAuth token that was granted: its jti, or its hash.
func mintedOf(target *fastjson.Value, in *connector.Interner) remit.Minted {
	detail := get(target, "detailEntry", "detailentry")
	m := remit.Minted{Type: remit.ShortLivedToken}
	switch id := target.GetStringBytes("id"); {
	case len(id) > 0:
		m.Credential = join(in, jti, id)
	default:
		hash := detail.GetStringBytes("hash")
		if len(hash) == 0 {
			return remit.Minted{}
		}
		m.Credential = join(in, tokenHash, hash)
	}
	m.Expires = connector.ParseTime(detail.GetStringBytes("expires"))
	return m
}

func (f *fields) readOutcome(in *connector.Interner, a *remit.Activity) {
	a.Outcome = remit.Allowed
	if f.outcome == nil {
		return
	}
	result := f.outcome.GetStringBytes("result")
	switch string(result) {
	case "DENY", "RATE_LIMIT":
		a.Outcome = remit.Denied
	case "FAILURE":
		a.Outcome = remit.Failed
		if authenticates(f.eventType) {
			a.Outcome = remit.Denied
		}
	case "ABANDONED":
		a.Outcome = remit.Failed
	case "CHALLENGE": // more proof is asked for; the reason says so
	default:
		return
	}
	a.Reason = in.Get(f.outcome, "reason")
}

// authenticates says that a failure of the event means that somebody was not
// let in.
func authenticates(eventType []byte) bool {
	for _, prefix := range [...]string{"user.session.", "user.authentication.", "user.account.lock", "user.mfa.", "policy.evaluate_sign_on", "app.oauth2.", "app.generic.unauth_app_access_attempt", "core.user_auth."} {
		if bytes.HasPrefix(eventType, []byte(prefix)) {
			return true
		}
	}
	return false
}

// writes says that an event changes the organization: most do, and what follows
// does not.
func writes(eventType []byte) bool {
	switch string(eventType) {
	case "user.session.clear", "user.session.end", "user.session.impersonation.grant", "user.session.impersonation.revoke", "user.session.impersonation.extend":
		return true
	}
	for _, prefix := range [...]string{"user.session.", "user.authentication.", "policy.evaluate_sign_on", "app.oauth2.", "system.org.rate_limit.", "system.operation.rate_limit.", "system.client.rate_limit.", "application.integration.", "app.generic.unauth_app_access_attempt", "security.", "core.user_auth.login", "user.account.report_suspicious_activity", "ai_agent."} {
		if bytes.HasPrefix(eventType, []byte(prefix)) {
			return false
		}
	}
	return true
}
