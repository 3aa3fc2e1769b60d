// Package ocsf reads events in the Open Cybersecurity Schema Framework, as
// Amazon Security Lake and many products write them: API Activity, the classes
// of Identity and Access Management, and others by their common fields.
package ocsf

import (
	"bytes"
	"strconv"
	"time"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// Events reads OCSF events of any class, version 1.0 and later.
// Source: https://schema.ocsf.io
var Events connector.Decoder = events{}

// FieldAliases name, for fields as rules write them, where else they are in an
// event: an alias counts only when the event has no such field of its own.
var FieldAliases = map[string]string{
	"src_ip":                   "src_endpoint.ip",
	"user_agent":               "http_request.user_agent",
	"actor.user.email":         "actor.user.email_addr",
	"actor.invoked_by":         "actor.app_name",
	"actor.app_name":           "actor.invoked_by",
	"account_uid":              "cloud.account.uid",
	"cloud.account_uid":        "cloud.account.uid",
	"actor.user.account_uid":   "actor.user.account.uid",
	"resources.uid":            "resource.uid",
	"resources.name":           "resource.name",
	"metadata.event_uid":       "metadata.uid",
	"api.response.status_code": "api.response.code",
}

// The classes that are read in their own way.
const (
	accountChange        = 3001
	authentication       = 3002
	authorizeSession     = 3003
	entityManagement     = 3004
	userAccessManagement = 3005
	groupManagement      = 3006
	apiActivity          = 6003
)

type events struct{}

const op = "ocsf event"

func (events) Source() connector.Source {
	return connector.Source{Name: "ocsf", Title: "OCSF events", Connector: "ocsf", Product: "ocsf"}
}

func (d events) Recognizes(v *fastjson.Value) bool {
	if v.Type() == fastjson.TypeArray {
		items := v.GetArray()
		return len(items) > 0 && items[0].Type() == fastjson.TypeObject && d.Recognizes(items[0])
	}
	return v.GetInt("class_uid") > 0 && (v.Get("category_uid") != nil || v.Get("activity_id") != nil || v.Get("metadata") != nil)
}

func (events) Split(v *fastjson.Value) []*fastjson.Value {
	if v.Type() == fastjson.TypeArray {
		return v.GetArray()
	}
	return []*fastjson.Value{v}
}

func (d events) Decode(v *fastjson.Value, in *connector.Interner, e *connector.Event) error {
	if v.Type() != fastjson.TypeObject {
		return remit.Errorf(remit.Invalid, op, "an event is a JSON object, not %s", v.Type())
	}
	class := v.GetInt("class_uid")
	if class <= 0 {
		return remit.Errorf(remit.Invalid, op, "the event has no class_uid")
	}
	e.Views = append(e.Views, connector.View{Product: "ocsf", Service: serviceOf(class), JSON: v})
	a := &e.Activity
	a.ID = string(v.GetStringBytes("metadata", "uid"))
	if a.ID == "" {
		a.ID = connector.HashID(v, d.Strip)
	}
	a.Time = timeOf(v, "time", "time_dt")
	a.Native = native(v, in)
	a.UserAgent = in.Get(v, "http_request", "user_agent")
	a.Address = first(in, v.Get("src_endpoint"), "ip", "domain", "svc_name", "hostname", "name")

	readActor(v, class, in, a)
	readCredential(v, class, in, a)
	readAction(v, class, in, a)
	a.Resource = resource(v, class, in)
	readOutcome(v, class, in, a)
	if a.Outcome != remit.Allowed {
		a.Minted = remit.Minted{}
	}
	return nil
}

// serviceOf names a class in a rule's logsource.
func serviceOf(class int) string {
	switch class {
	case accountChange:
		return "account_change"
	case authentication:
		return "authentication"
	case authorizeSession:
		return "authorize_session"
	case entityManagement:
		return "entity_management"
	case userAccessManagement:
		return "user_access"
	case groupManagement:
		return "group_management"
	case apiActivity:
		return "api_activity"
	}
	return ""
}

// timeOf is a time in milliseconds since 1970, or as text beside it.
func timeOf(v *fastjson.Value, number, text string) time.Time {
	if ms := v.GetFloat64(number); ms > 0 && ms < 1e14 {
		return time.UnixMilli(int64(ms)).UTC()
	}
	if t := connector.ParseTime(v.GetStringBytes(number)); !t.IsZero() {
		return t
	}
	return connector.ParseTime(v.GetStringBytes(text))
}

// native is the account of the cloud, "aws:123456789012", or the tenant of a
// product that is none.
func native(v *fastjson.Value, in *connector.Interner) string {
	account := v.GetStringBytes("cloud", "account", "uid")
	if len(account) == 0 {
		return in.Get(v, "metadata", "tenant_uid")
	}
	var scratch [160]byte
	b := append(scratch[:0], v.GetStringBytes("cloud", "provider")...)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	if len(b) > 0 {
		b = append(b, ':')
	}
	return in.String(append(b, account...))
}

// first returns the first of the keys that v has, as text.
func first(in *connector.Interner, v *fastjson.Value, keys ...string) string {
	if v == nil {
		return ""
	}
	for _, key := range keys {
		if b := v.GetStringBytes(key); len(b) > 0 {
			return in.String(b)
		}
	}
	return ""
}

// readActor names who did it. The user of an authentication is who signs in;
// in the other classes it is whom the change is about.
func readActor(v *fastjson.Value, class int, in *connector.Interner, a *remit.Activity) {
	actor := v.Get("actor")
	user := actor.Get("user")
	if class == authentication {
		if u := v.Get("user"); first(in, u, "name", "email_addr", "uid") != "" {
			user = u
		}
	}
	service := first(in, actor, "invoked_by", "app_name", "app_uid")
	if name := first(in, user, "name", "email_addr", "uid"); name != "" {
		a.Actor = remit.Ref{Kind: first(in, user, "type"), Name: name}
		a.Principal = first(in, user, "uid", "name", "email_addr")
		switch user.GetInt("type_id") {
		case 1, 2: // user, administrator
			a.Type = remit.Human
		case 3: // the operating system's or the cloud's own
			a.Type = remit.Workload
		case 4:
			a.Type = remit.ServiceAccount
		}
		switch a.Actor.Kind {
		case "AssumedRole", "Role":
			a.Type = remit.AssumableRole
		case "Service", "AWSService", "ServiceAccount":
			a.Type = remit.ServiceAccount
		case "":
			a.Actor.Kind = "User"
		}
		if service != "" && service != name {
			a.Chain = append(a.Chain, remit.Ref{Kind: "Application", Name: service})
		}
		return
	}
	switch {
	case service != "":
		a.Actor, a.Type = remit.Ref{Kind: "Application", Name: service}, remit.Application
	case actor.Get("process") != nil:
		a.Actor, a.Type = remit.Ref{Kind: "Process", Name: first(in, actor.Get("process"), "name", "uid")}, remit.Workload
	case actor.Get("idp") != nil:
		a.Actor, a.Type = remit.Ref{Kind: "IdentityProvider", Name: first(in, actor.Get("idp"), "name", "uid")}, remit.Application
	}
	if a.Actor.Name == "" {
		a.Actor, a.Type = remit.Ref{}, ""
	}
	a.Principal = a.Actor.Name
}

// session begins the IDs of sessions, which are no credentials' own.
const session = "session="

// readCredential takes the credential's ID, an access key's for one, or the
// session; a sign-in begins the session that it names.
func readCredential(v *fastjson.Value, class int, in *connector.Interner, a *remit.Activity) {
	actor := v.Get("actor")
	for _, path := range [...][2]string{{"user", "credential_uid"}, {"session", "credential_uid"}} {
		if id := actor.GetStringBytes(path[0], path[1]); len(id) > 0 {
			a.Credential = in.String(id)
			break
		}
	}
	if id := actor.GetStringBytes("session", "uid"); a.Credential == "" && len(id) > 0 {
		a.Credential, a.CredentialType = join(in, session, id), remit.ShortLivedToken
	}
	if class != authentication {
		return
	}
	begun := v.Get("session")
	if id := begun.GetStringBytes("uid"); len(id) > 0 && v.GetInt("activity_id") == 1 {
		a.Minted = remit.Minted{
			Credential: join(in, session, id), Type: remit.ShortLivedToken, For: a.Actor,
			Expires: timeOf(begun, "expiration_time", "expiration_time_dt"),
		}
		if a.Minted.Credential == a.Credential {
			a.Credential, a.CredentialType = "", ""
		}
	}
}

func join(in *connector.Interner, prefix string, b []byte) string {
	var scratch [160]byte
	return in.String(append(append(scratch[:0], prefix...), b...))
}

// readAction takes the API's operation, or the word that the schema has for the
// activity.
func readAction(v *fastjson.Value, class int, in *connector.Interner, a *remit.Activity) {
	activity := v.GetInt("activity_id")
	a.Action = in.Get(v, "api", "operation")
	if a.Action == "" || class != apiActivity {
		if word := in.Get(v, "activity_name"); word != "" {
			a.Action = word
		} else if word := activityName(class, activity); word != "" {
			a.Action = word
		}
	}
	if a.Action == "" {
		a.Action = in.Get(v, "type_name")
	}
	if a.Action == "" {
		a.Action = strconv.Itoa(class*100 + activity) // as type_uid is
	}
	switch class {
	case authentication, authorizeSession:
	case apiActivity, entityManagement:
		switch activity {
		case 1, 3, 4:
			a.Write = true
		case 2:
		default:
			a.Write = !reads(a.Action)
		}
	default:
		a.Write = class/1000 == 3
	}
}

// activityName is the caption of an activity, for events that leave it out.
// Source: https://schema.ocsf.io/classes
func activityName(class, activity int) string {
	var names []string
	switch class {
	case accountChange:
		names = []string{
			"Create", "Enable", "Password Change", "Password Reset", "Disable", "Delete", "Attach Policy",
			"Detach Policy", "Lock", "MFA Factor Enable", "MFA Factor Disable", "Unlock",
		}
	case authentication:
		names = []string{
			"Logon", "Logoff", "Authentication Ticket", "Service Ticket Request", "Service Ticket Renew",
			"Preauth", "Account Switch",
		}
	case authorizeSession:
		names = []string{"Assign Privileges", "Assign Groups"}
	case entityManagement, apiActivity:
		names = []string{"Create", "Read", "Update", "Delete"}
	case userAccessManagement:
		names = []string{"Assign Privileges", "Revoke Privileges"}
	case groupManagement:
		names = []string{"Assign Privileges", "Revoke Privileges", "Add User", "Remove User", "Delete", "Create"}
	}
	if activity < 1 || activity > len(names) {
		return ""
	}
	return names[activity-1]
}

// reads tells the operations that only look, by the words that clouds begin
// them with.
func reads(operation string) bool {
	for _, verb := range [...]string{"Get", "List", "Describe", "Head", "Lookup", "Search", "Query", "get", "list", "describe", "head"} {
		if len(operation) >= len(verb) && operation[:len(verb)] == verb {
			return true
		}
	}
	return false
}

func resource(v *fastjson.Value, class int, in *connector.Interner) remit.Ref {
	item := v.Get("resource")
	if items := v.GetArray("resources"); len(items) > 0 {
		item = items[0]
	}
	if name := first(in, item, "name", "uid"); name != "" {
		return remit.Ref{Kind: first(in, item, "type"), Namespace: first(in, item, "namespace"), Name: name}
	}
	switch class {
	case accountChange, userAccessManagement, authorizeSession:
		if name := first(in, v.Get("user"), "name", "email_addr", "uid"); name != "" {
			kind := first(in, v.Get("user"), "type")
			if kind == "" {
				kind = "User"
			}
			return remit.Ref{Kind: kind, Name: name}
		}
	case groupManagement:
		if name := first(in, v.Get("group"), "name", "uid"); name != "" {
			return remit.Ref{Kind: "Group", Name: name}
		}
	case entityManagement:
		if name := first(in, v.Get("entity"), "name", "uid"); name != "" {
			return remit.Ref{Kind: first(in, v.Get("entity"), "type"), Name: name}
		}
	}
	for _, service := range [...]*fastjson.Value{v.Get("service"), v.Get("api", "service")} {
		if name := first(in, service, "name", "uid"); name != "" {
			return remit.Ref{Kind: "Service", Name: name}
		}
	}
	if name := first(in, v.Get("dst_endpoint"), "hostname", "domain", "svc_name", "ip"); name != "" {
		return remit.Ref{Kind: "Endpoint", Name: name}
	}
	return remit.Ref{}
}

func readOutcome(v *fastjson.Value, class int, in *connector.Interner, a *remit.Activity) {
	a.Outcome = remit.Allowed
	response := v.Get("api", "response")
	failure := response.GetStringBytes("error")
	if code := number(response.Get("code")); code >= 100 && code < 600 {
		a.Code = code
	} else if code := number(v.Get("http_response", "code")); code >= 100 && code < 600 {
		a.Code = code
	}
	failed := v.GetInt("status_id") == 2 || string(v.GetStringBytes("status")) == "Failure"
	if v.Get("status_id") == nil && v.Get("status") == nil {
		failed = len(failure) > 0 || a.Code >= 400
	}
	denied := a.Code == 401 || a.Code == 403 || forbids(failure) || forbids(v.GetStringBytes("status_code")) ||
		v.GetInt("action_id") == 2 || v.GetInt("disposition_id") == 2
	for _, decision := range v.GetArray("actor", "authorizations") {
		if word := decision.GetStringBytes("decision"); bytes.EqualFold(word, []byte("denied")) || bytes.EqualFold(word, []byte("deny")) {
			denied = true
		}
	}
	switch {
	case denied, failed && class == authentication:
		a.Outcome = remit.Denied
	case failed:
		a.Outcome = remit.Failed
	default:
		return
	}
	a.Reason = first(in, v, "status_detail")
	if a.Reason == "" {
		a.Reason = first(in, response, "error_message", "error", "message")
	}
	if a.Reason == "" {
		a.Reason = first(in, v, "status_code")
	}
}

func number(v *fastjson.Value) int {
	if v == nil {
		return 0
	}
	if b := v.GetStringBytes(); len(b) == 3 {
		n := 0
		for _, c := range b {
			if c < '0' || c > '9' {
				return 0
			}
			n = n*10 + int(c-'0')
		}
		return n
	}
	return v.GetInt()
}

// forbids tells the error codes of clouds that mean a lack of rights.
func forbids(code []byte) bool {
	for _, word := range [...]string{"AccessDenied", "UnauthorizedOperation", "Unauthorized", "Forbidden", "PERMISSION_DENIED", "AuthorizationFailed", "NotAuthorized"} {
		if bytes.Contains(code, []byte(word)) {
			return true
		}
	}
	return false
}
