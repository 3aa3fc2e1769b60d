// Package anthropic reads the Activity Feed of Anthropic's Compliance API.
package anthropic

import (
	"bytes"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// Activity reads activities, alone or in the pages that the API gives.
// Source: https://platform.claude.com/docs/en/manage-claude/compliance-activity-feed
var Activity connector.Decoder = activity{}

// FieldAliases name, for fields as rules write them, where else they are in an
// event: an alias counts only when the event has no such field of its own.
var FieldAliases = map[string]string{
	"event_type": "type",
	"ip_address": "actor.ip_address",
	"user_agent": "actor.user_agent",
	"email":      "actor.email_address",
	"user_id":    "actor.user_id",
}

type activity struct{}

const op = "anthropic activity"

func (activity) Source() connector.Source {
	return connector.Source{Name: "anthropic", Title: "Anthropic activity feed", Connector: "anthropic", Product: "anthropic", Service: "activity"}
}

func (d activity) Recognizes(v *fastjson.Value) bool {
	items := v.GetArray()
	if v.Type() == fastjson.TypeObject {
		items = v.GetArray("data")
	}
	if len(items) > 0 && items[0].Type() == fastjson.TypeObject && isActivity(items[0]) {
		return true
	}
	return v.Type() == fastjson.TypeObject && isActivity(v)
}

func isActivity(v *fastjson.Value) bool {
	return len(v.GetStringBytes("type")) > 0 && bytes.HasSuffix(v.GetStringBytes("actor", "type"), []byte("_actor"))
}

func (activity) Split(v *fastjson.Value) []*fastjson.Value {
	if v.Type() == fastjson.TypeArray {
		return v.GetArray()
	}
	if page := v.Get("data"); page != nil && page.Type() == fastjson.TypeArray && v.Get("actor") == nil {
		return page.GetArray()
	}
	return []*fastjson.Value{v}
}

func (d activity) Decode(v *fastjson.Value, in *connector.Interner, e *connector.Event) error {
	object, err := v.Object()
	if err != nil {
		return remit.Errorf(remit.Invalid, op, "an activity is a JSON object, not %s", v.Type())
	}
	kind := v.GetStringBytes("type")
	if len(kind) == 0 {
		return remit.Errorf(remit.Invalid, op, "the activity has no type")
	}
	e.Views = append(e.Views, connector.View{Product: "anthropic", Service: "activity", JSON: v})
	a := &e.Activity
	a.ID = string(v.GetStringBytes("id"))
	if a.ID == "" {
		a.ID = connector.HashID(v, d.Strip)
	}
	a.Native = in.Get(v, "organization_id")
	if a.Native == "" {
		a.Native = in.Get(v, "organization_uuid")
	}
	a.Time = connector.ParseTime(v.GetStringBytes("created_at"))
	a.Action = in.String(kind)
	if actor := v.Get("actor"); actor != nil {
		readActor(actor, in, a)
		a.Address, a.UserAgent = in.Get(actor, "ip_address"), in.Get(actor, "user_agent")
	}
	readResource(object, in, a)
	a.Write = writes(kind, v.GetStringBytes("request_method"))
	readOutcome(v, kind, in, a)
	if bytes.HasSuffix(kind, []byte("key_created")) && bytes.HasSuffix([]byte(a.Resource.Kind), []byte("key")) && a.Outcome == remit.Allowed {
		a.Minted = remit.Minted{
			Credential: a.Resource.Name, Type: remit.APIKey, For: a.Actor,
			Expires: connector.ParseTime(v.GetStringBytes("expires_at")),
		}
	}
	return nil
}

// readActor names who did it: a user by mail address, a key by its ID, which is
// the credential, too.
func readActor(actor *fastjson.Value, in *connector.Interner, a *remit.Activity) {
	kind := actor.GetStringBytes("type")
	key := func(field, kind string) {
		a.Credential = in.Get(actor, field)
		a.Actor, a.CredentialType, a.Type = remit.Ref{Kind: kind, Name: a.Credential}, remit.APIKey, remit.Application
	}
	switch string(kind) {
	case "user_actor":
		a.Actor, a.Type = remit.Ref{Kind: "User", Name: in.Get(actor, "email_address")}, remit.Human
		if a.Actor.Name == "" {
			a.Actor.Name = in.Get(actor, "user_id")
		}
	case "unauthenticated_user_actor":
		a.Actor, a.Type = remit.Ref{Kind: "User", Name: in.Get(actor, "unauthenticated_email_address")}, remit.Human
	case "api_actor":
		key("api_key_id", "APIKey")
	case "admin_api_key_actor":
		key("admin_api_key_id", "AdminAPIKey")
	case "scim_directory_sync_actor":
		a.Actor, a.Type = remit.Ref{Kind: "DirectorySync", Name: in.Get(actor, "directory_id")}, remit.Application
	case "system_actor":
		a.Actor, a.Type = remit.Ref{Kind: "System", Name: in.Get(actor, "service")}, remit.Workload
		if a.Actor.Name == "" {
			a.Actor.Name = "system"
		}
	case "anthropic_actor":
		a.Actor, a.Type = remit.Ref{Kind: "System", Name: "anthropic"}, remit.Workload
	default:
		// A sort of actor that came later is named by the first ID it has.
		actor.GetObject().Visit(func(key []byte, v *fastjson.Value) {
			if a.Actor.Name == "" && bytes.HasSuffix(key, []byte("_id")) {
				a.Actor = remit.Ref{Kind: in.String(bytes.TrimSuffix(kind, []byte("_actor"))), Name: in.String(v.GetStringBytes())}
			}
		})
	}
	if a.Actor.Name == "" {
		a.Actor, a.Type, a.CredentialType = remit.Ref{}, "", ""
	}
	a.Principal = a.Actor.Name
}

// readResource takes the first ID that the activity has beside its own and its
// organization's: mcp_server_id names an mcp_server.
func readResource(object *fastjson.Object, in *connector.Interner, a *remit.Activity) {
	object.Visit(func(key []byte, v *fastjson.Value) {
		if a.Resource.Name != "" || !bytes.HasSuffix(key, []byte("_id")) || string(key) == "organization_id" {
			return
		}
		if id := v.GetStringBytes(); len(id) > 0 {
			a.Resource = remit.Ref{Kind: in.String(key[:len(key)-len("_id")]), Name: in.String(id)}
		}
	})
	if a.Resource.Name == "" && a.Native != "" {
		a.Resource = remit.Ref{Kind: "organization", Name: a.Native}
	}
}

func writes(kind, method []byte) bool {
	switch string(method) {
	case "GET", "HEAD":
		return false
	case "POST", "PUT", "PATCH", "DELETE":
		return true
	}
	for _, ending := range [...]string{"_viewed", "_accessed", "_listed", "_downloaded", "_searched", "_exported", "_initiated", "_failed", "_login_succeeded", "_logged_in", "_logged_out"} {
		if bytes.HasSuffix(kind, []byte(ending)) {
			return false
		}
	}
	return true
}

func readOutcome(v *fastjson.Value, kind []byte, in *connector.Interner, a *remit.Activity) {
	a.Outcome = remit.Allowed
	if code := v.GetInt("status_code"); code >= 100 && code < 600 {
		a.Code = code
	}
	switch {
	case bytes.HasSuffix(kind, []byte("login_failed")), a.Code == 401, a.Code == 403:
		a.Outcome = remit.Denied
	case bytes.HasSuffix(kind, []byte("_failed")), a.Code >= 400:
		a.Outcome = remit.Failed
	default:
		return
	}
	for _, key := range [...]string{"reason", "error", "failure_reason"} {
		if a.Reason == "" {
			a.Reason = in.Get(v, key)
		}
	}
}

// Strip removes what stands under the names of secrets, API keys wherever the
// feed might show one, and tokens within any text.
func (activity) Strip(v *fastjson.Value, arena *fastjson.Arena) bool {
	return connector.StripTokens(v, arena, secretKey)
}

func secretKey(key string) bool {
	switch key {
	case "key", "api_key", "secret", "secret_key", "client_secret", "token", "access_token", "refresh_token",
		"authorization_token", "scim_token", "webhook_secret", "password", "authorization", "x-api-key":
		return true
	}
	return false
}
