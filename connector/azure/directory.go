package azure

import (
	"bytes"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// Directory decodes Entra's audit logs: changes of users, groups, applications,
// roles and policies. It implements [connector.Decoder].
type Directory struct{}

var _ connector.Decoder = Directory{}

// Source names the events.
func (Directory) Source() connector.Source {
	return connector.Source{
		Name: "azure-directory", Title: "Microsoft Entra audit logs", Connector: "azure",
		Product: "azure", Service: "auditlogs",
	}
}

// Recognizes says whether v is a directory audit event, or a list of them.
func (Directory) Recognizes(v *fastjson.Value) bool { return recognizes(v, maxWraps, isDirectory) }

// Split returns the events inside v, without the list around them.
func (Directory) Split(v *fastjson.Value) []*fastjson.Value { return split(nil, v, maxWraps) }

func isDirectory(v *fastjson.Value) bool {
	for _, key := range [...]string{"category", "Type"} {
		if string(v.GetStringBytes(key)) == "AuditLogs" {
			return true
		}
	}
	return v.Exists("activityDisplayName") && v.Exists("initiatedBy")
}

// directory holds the fields of an event that are read.
type directory struct {
	id, time, activity, result, why, agent, kind *fastjson.Value
	initiator, targets, details, tenant          *fastjson.Value
}

func (f *directory) read(v *fastjson.Value) {
	visit(v, func(key []byte, value *fastjson.Value) {
		var field **fastjson.Value
		switch string(key) {
		case "id":
			field = &f.id
		case "activitydatetime":
			field = &f.time
		case "activitydisplayname":
			field = &f.activity
		case "result":
			field = &f.result
		case "resultreason":
			field = &f.why
		case "useragent":
			field = &f.agent
		case "operationtype", "aadoperationtype":
			field = &f.kind
		case "initiatedby":
			field = &f.initiator
		case "targetresources":
			field = &f.targets
		case "additionaldetails":
			field = &f.details
		case "aadtenantid":
			field = &f.tenant
		default:
			return
		}
		if *field == nil {
			*field = value
		}
	})
}

// Decode reads one event.
func (a Directory) Decode(v *fastjson.Value, in *connector.Interner, e *connector.Event) error {
	const op = "decode Entra audit event"
	if v == nil || v.Type() != fastjson.TypeObject {
		return remit.Errorf(remit.Invalid, op, "not a JSON object")
	}
	var r record
	r.read(v)
	inner := object(r.properties)
	if inner == nil {
		inner = v
	}
	var f directory
	f.read(inner)
	name := firstOf(text(f.activity), text(r.operation))
	if len(name) == 0 {
		return remit.Errorf(remit.Invalid, op, "it has neither activityDisplayName nor operationName: check that the file is of Entra's audit logs")
	}

	tenant := given(text(r.tenant))
	if r.stored || len(tenant) == 0 {
		tenant = firstOf(given(text(f.tenant)), tenantOf(text(r.resourceID)))
	}
	e.Native = lowered(tenant, in)
	e.Time = connector.ParseTime(text(f.time))
	if e.Time.IsZero() {
		e.Time = connector.ParseTime(text(r.time))
	}
	e.Action = in.String(name)
	e.Write = !reads(name)
	e.UserAgent = in.String(firstOf(text(f.agent), f.detail("User-Agent")))

	initiator := object(f.initiator)
	person, app := initiator.Get("user"), initiator.Get("app")
	client := given(app.GetStringBytes("appId"))
	e.Address = address(firstOf(person.GetStringBytes("ipAddress"), app.GetStringBytes("ipAddress"), text(r.address)), in)
	switch upn, id := person.GetStringBytes("userPrincipalName"), given(person.GetStringBytes("id")); {
	case bytes.IndexByte(upn, '@') > 0:
		e.Actor, e.Type, e.Principal = user(upn, in), remit.Human, in.String(upn)
		if len(client) > 0 {
			e.Chain = append(e.Chain, application(e.Native, client, in))
		}
	case len(client) > 0:
		e.Actor, e.Type = application(e.Native, client, in), remit.Application
		e.Principal = in.String(firstOf(given(app.GetStringBytes("servicePrincipalId")), client))
	case len(app.GetStringBytes("servicePrincipalId")) > 0:
		id := app.GetStringBytes("servicePrincipalId")
		e.Actor = remit.Ref{Kind: kindServicePrincipal, Namespace: e.Native, Name: lowered(id, in)}
		e.Type, e.Principal = remit.Application, in.String(id)
	case len(app.GetStringBytes("displayName")) > 0: // Microsoft's own services have no more
		e.Actor = remit.Ref{Kind: "Service", Name: in.Get(app, "displayName")}
		e.Type, e.Principal = remit.Application, e.Actor.Name
	case len(id) > 0:
		e.Actor, e.Type, e.Principal = remit.Ref{Kind: kindUser, Name: lowered(id, in)}, remit.Human, in.String(id)
	}

	f.outcome(&r, in, e)
	targets := list(f.targets)
	if len(targets) > 0 {
		e.Resource = f.target(targets[0], in, e)
	}
	if e.Outcome == remit.Allowed {
		for _, target := range targets {
			if e.Minted = f.minted(target, in, e); e.Minted.Credential != "" {
				break
			}
		}
	}
	if id := text(f.id); len(id) > 0 {
		e.ID = string(id) // not interned: no other event has it
	} else {
		e.ID = connector.HashID(v, a.Strip)
	}
	e.Views = append(e.Views, connector.View{Product: "azure", Service: "auditlogs", JSON: v})
	return nil
}

// list returns the items of a list, which Log Analytics writes as a string.
func list(v *fastjson.Value) []*fastjson.Value {
	if b := v.GetStringBytes(); len(b) > 0 && b[0] == '[' {
		var p fastjson.Parser // its values live in it, not in v's
		if inner, err := p.ParseBytes(b); err == nil {
			return inner.GetArray()
		}
	}
	return v.GetArray()
}

// detail returns one of the additional details.
func (f *directory) detail(key string) []byte {
	for _, d := range list(f.details) {
		if string(d.GetStringBytes("key")) == key {
			return d.GetStringBytes("value")
		}
	}
	return nil
}

func (f *directory) outcome(r *record, in *connector.Interner, e *connector.Event) {
	result := firstOf(text(f.result), text(r.result))
	if len(result) == 0 || bytes.EqualFold(result, []byte("success")) || string(result) == "0" {
		e.Outcome = remit.Allowed
		return
	}
	why := firstOf(text(f.why), text(r.description))
	e.Outcome, e.Reason = remit.Failed, reason(why, in)
	for _, part := range [...]string{"Denied", "Forbidden", "Unauthorized", "Insufficient", "privileges", "Blocked"} {
		if bytes.Contains(why, []byte(part)) {
			e.Outcome = remit.Denied
		}
	}
}

// target refers to what the event is about: a user by name, an application and
// its service principal by client ID where that is told, others by ID.
func (f *directory) target(t *fastjson.Value, in *connector.Interner, e *connector.Event) remit.Ref {
	kind := t.GetStringBytes("type")
	if upn := t.GetStringBytes("userPrincipalName"); bytes.IndexByte(upn, '@') > 0 {
		return user(upn, in)
	}
	switch string(kind) {
	case kindApplication, kindServicePrincipal:
		if client := f.client(t); len(client) > 0 {
			return application(e.Native, client, in)
		}
	}
	id := firstOf(t.GetStringBytes("id"), t.GetStringBytes("displayName"))
	if len(id) == 0 {
		return remit.Ref{}
	}
	return remit.Ref{Kind: in.String(kind), Namespace: e.Native, Name: lowered(id, in)}
}

// client returns the client ID of an application or service principal.
func (f *directory) client(t *fastjson.Value) []byte {
	for _, p := range list(t.Get("modifiedProperties")) {
		switch string(p.GetStringBytes("displayName")) {
		case "AppId", "TargetId.ServicePrincipalNames":
			if id := guid(firstOf(p.GetStringBytes("newValue"), p.GetStringBytes("oldValue"))); id != nil {
				return id
			}
		}
	}
	return guid(f.detail("AppId"))
}

// guid returns the first GUID in b, nil when there is none.
func guid(b []byte) []byte {
	for i := 0; i+len(noID) <= len(b); i++ {
		n := 0
		for n < len(noID) {
			c := b[i+n]
			hex := '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
			if (noID[n] == '-') != (c == '-') || c != '-' && !hex {
				break
			}
			n++
		}
		if n == len(noID) {
			return b[i : i+n]
		}
	}
	return nil
}

// minted reads a secret or certificate that was added to an application: the
// key whose ID the new value has and the old one has not. Sign-ins with it are
// logged with that ID.
func (f *directory) minted(t *fastjson.Value, in *connector.Interner, e *connector.Event) remit.Minted {
	for _, p := range list(t.Get("modifiedProperties")) {
		if string(p.GetStringBytes("displayName")) != "KeyDescription" {
			continue
		}
		before := p.GetStringBytes("oldValue")
		for rest := p.GetStringBytes("newValue"); ; {
			i := bytes.Index(rest, []byte("KeyIdentifier="))
			if i < 0 {
				return remit.Minted{}
			}
			rest = rest[i+len("KeyIdentifier="):]
			key := guid(rest[:min(len(rest), len(noID))])
			if key == nil || bytes.Contains(before, key) {
				continue
			}
			m := remit.Minted{Credential: string(key), Type: remit.ClientSecret, For: f.target(t, in, e)}
			description, _, _ := bytes.Cut(rest, []byte{']'})
			if bytes.Contains(description, []byte("X509")) {
				m.Type = remit.Certificate
			}
			return m
		}
	}
	return remit.Minted{}
}

// reads says whether an activity, a sentence in English, changes nothing.
func reads(name []byte) bool {
	for _, verb := range [...]string{"Get ", "Read ", "Download ", "List ", "View ", "Export ", "Validate "} {
		if bytes.HasPrefix(name, []byte(verb)) {
			return true
		}
	}
	return false
}
