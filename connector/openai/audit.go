// Package openai reads the audit log of an OpenAI organization.
package openai

import (
	"bytes"
	"time"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// Audit reads audit log events, alone or in the pages that the API gives. An
// event does not name its organization; Native is always "".
// Source: https://platform.openai.com/docs/api-reference/audit-logs
var Audit connector.Decoder = audit{}

// FieldAliases name, for fields as rules write them, where else they are in an
// event: an alias counts only when the event has no such field of its own.
var FieldAliases = map[string]string{
	"event_type": "type",
	"ip_address": "actor.session.ip_address",
	"user_agent": "actor.session.user_agent",
	"email":      "actor.session.user.email",
	"user_id":    "actor.session.user.id",
}

type audit struct{}

const op = "openai audit"

func (audit) Source() connector.Source {
	return connector.Source{Name: "openai", Title: "OpenAI audit log", Connector: "openai", Product: "openai", Service: "audit"}
}

func (d audit) Recognizes(v *fastjson.Value) bool {
	items := v.GetArray()
	if v.Type() == fastjson.TypeObject {
		items = v.GetArray("data")
	}
	if len(items) > 0 && items[0].Type() == fastjson.TypeObject && isEvent(items[0]) {
		return true
	}
	return v.Type() == fastjson.TypeObject && isEvent(v)
}

func isEvent(v *fastjson.Value) bool {
	return string(v.GetStringBytes("object")) == "organization.audit_log" ||
		bytes.HasPrefix(v.GetStringBytes("id"), []byte("audit_log-")) && len(v.GetStringBytes("type")) > 0
}

func (audit) Split(v *fastjson.Value) []*fastjson.Value {
	if v.Type() == fastjson.TypeArray {
		return v.GetArray()
	}
	if page := v.Get("data"); page != nil && page.Type() == fastjson.TypeArray && v.Get("actor") == nil {
		return page.GetArray()
	}
	return []*fastjson.Value{v}
}

func (d audit) Decode(v *fastjson.Value, in *connector.Interner, e *connector.Event) error {
	object, err := v.Object()
	if err != nil {
		return remit.Errorf(remit.Invalid, op, "an event is a JSON object, not %s", v.Type())
	}
	kind := v.GetStringBytes("type")
	if len(kind) == 0 {
		return remit.Errorf(remit.Invalid, op, "the event has no type")
	}
	e.Views = append(e.Views, connector.View{Product: "openai", Service: "audit", JSON: v})
	a := &e.Activity
	a.ID = string(v.GetStringBytes("id"))
	if a.ID == "" {
		a.ID = connector.HashID(v, d.Strip)
	}
	a.Time = timeOf(v.Get("effective_at"))
	a.Action = in.String(kind)
	if actor := v.Get("actor"); actor != nil {
		readActor(actor, in, a)
	}
	detail := detailOf(object)
	readResource(v, detail, kind, in, a)
	a.Write = !bytes.HasPrefix(kind, []byte("login.")) && !bytes.HasPrefix(kind, []byte("logout."))
	a.Outcome = remit.Allowed
	if bytes.HasSuffix(kind, []byte(".failed")) {
		a.Outcome = remit.Failed
		if string(kind) == "login.failed" {
			a.Outcome = remit.Denied
		}
		a.Reason = in.Get(detail, "error_message")
		if a.Reason == "" {
			a.Reason = in.Get(detail, "error_code")
		}
	}
	if id := detail.GetStringBytes("id"); len(id) > 0 && (string(kind) == "api_key.created" || string(kind) == "admin_api_key.created") {
		a.Minted = remit.Minted{Credential: in.String(id), Type: remit.APIKey, For: a.Actor}
	}
	return nil
}

// timeOf reads seconds since 1970, or the text that a log store made of them.
func timeOf(v *fastjson.Value) time.Time {
	if v == nil {
		return time.Time{}
	}
	if v.Type() == fastjson.TypeNumber {
		if s := v.GetFloat64(); s > 0 && s < 1e11 {
			return time.UnixMilli(int64(s * 1000)).UTC()
		}
		return time.Time{}
	}
	return connector.ParseTime(v.GetStringBytes())
}

// readActor names the user, or the service account, behind a session in the
// browser or an API key. The key's ID is the credential; a session has none.
func readActor(actor *fastjson.Value, in *connector.Interner, a *remit.Activity) {
	who := actor.Get("session")
	if key := actor.Get("api_key"); key != nil && key.Type() == fastjson.TypeObject {
		a.Credential = in.Get(key, "id")
		if a.Credential != "" {
			a.CredentialType = remit.APIKey
		}
		who = key
		if account := in.Get(key, "service_account", "id"); account != "" {
			a.Actor, a.Type = remit.Ref{Kind: "ServiceAccount", Name: account}, remit.ServiceAccount
		}
	}
	if session := actor.Get("session"); session != nil {
		a.Address, a.UserAgent = in.Get(session, "ip_address"), in.Get(session, "user_agent")
	}
	if a.Actor.Name == "" && who != nil {
		name := in.Get(who, "user", "email")
		if name == "" {
			name = in.Get(who, "user", "id")
		}
		switch {
		case name != "":
			a.Actor, a.Type = remit.Ref{Kind: "User", Name: name}, remit.Human
		case a.Credential != "":
			a.Actor, a.Type = remit.Ref{Kind: "APIKey", Name: a.Credential}, remit.Application
		}
	}
	a.Principal = a.Actor.Name
}

// detailOf is what the event says of its own type: api_key_created in an event
// of the type api_key.created. It is the one object beside actor and project.
func detailOf(object *fastjson.Object) *fastjson.Value {
	var detail *fastjson.Value
	object.Visit(func(key []byte, v *fastjson.Value) {
		switch string(key) {
		case "actor", "project":
		default:
			if detail == nil && v.Type() == fastjson.TypeObject {
				detail = v
			}
		}
	})
	return detail
}

func readResource(v, detail *fastjson.Value, kind []byte, in *connector.Interner, a *remit.Activity) {
	project := in.Get(v, "project", "id")
	name := detail.GetStringBytes("id")
	if configs := detail.GetArray("configs"); len(name) == 0 && len(configs) > 0 {
		name = configs[0].GetStringBytes("id")
	}
	if i := bytes.LastIndexByte(kind, '.'); i > 0 && len(name) > 0 {
		a.Resource = remit.Ref{Kind: in.String(kind[:i]), Namespace: project, Name: in.String(name)}
	} else if project != "" {
		a.Resource = remit.Ref{Kind: "project", Name: project}
	}
}

// Strip removes what stands under the names of secrets and tokens within any
// text. The log itself shows keys by their IDs.
func (audit) Strip(v *fastjson.Value, arena *fastjson.Arena) bool {
	return connector.StripTokens(v, arena, secretKey)
}

func secretKey(key string) bool {
	switch key {
	case "key", "secret", "client_secret", "signing_secret", "token", "access_token", "refresh_token", "password", "authorization":
		return true
	}
	return false
}
