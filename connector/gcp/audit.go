// Package gcp knows Google Cloud.
//
// [Audit] decodes the entries of Cloud Audit Logs. Field meanings are those of
// https://cloud.google.com/logging/docs/reference/audit/auditlog/rest/Shared.Types/AuditLog
// within https://cloud.google.com/logging/docs/reference/v2/rest/v2/LogEntry.
package gcp

import (
	"bytes"
	"encoding/base64"
	"strings"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// Audit decodes Cloud Audit Logs of every service but Kubernetes, whose entries
// (of serviceName k8s.io) the Kubernetes connector reads. It implements
// [connector.Decoder].
type Audit struct{}

var _ connector.Decoder = Audit{}

// FieldAliases leads from field names of Sigma rules for Google Cloud and Google
// Workspace to dotted paths in the raw entry. A path goes through lists. Rules
// also use the raw entry's own names, which need no alias; an alias is for a
// name that the entry does not have.
var FieldAliases = map[string]string{
	// Rules often call a method by the permission that it needs: the method that
	// they call iam.serviceAccounts.delete is google.iam.admin.v1.DeleteServiceAccount.
	"gcp.audit.method_name":                                  "protoPayload.methodName protoPayload.authorizationInfo.permission",
	"gcp.audit.service_name":                                 "protoPayload.serviceName",
	"gcp.audit.resource_name":                                "protoPayload.resourceName",
	"gcp.audit.type":                                         "protoPayload.@type",
	"gcp.audit.authentication_info.principal_email":          "protoPayload.authenticationInfo.principalEmail",
	"gcp.audit.authentication_info.principal_subject":        "protoPayload.authenticationInfo.principalSubject",
	"gcp.audit.authentication_info.authority_selector":       "protoPayload.authenticationInfo.authoritySelector",
	"gcp.audit.authentication_info.service_account_key_name": "protoPayload.authenticationInfo.serviceAccountKeyName",
	"gcp.audit.authorization_info.permission":                "protoPayload.authorizationInfo.permission",
	"gcp.audit.authorization_info.granted":                   "protoPayload.authorizationInfo.granted",
	"gcp.audit.authorization_info.resource":                  "protoPayload.authorizationInfo.resource",
	"gcp.audit.request_metadata.caller_ip":                   "protoPayload.requestMetadata.callerIp",
	"gcp.audit.request_metadata.caller_supplied_user_agent":  "protoPayload.requestMetadata.callerSuppliedUserAgent",
	"gcp.audit.request":                                      "protoPayload.request",
	"gcp.audit.response":                                     "protoPayload.response",
	"gcp.audit.status.code":                                  "protoPayload.status.code",
	"gcp.audit.status.message":                               "protoPayload.status.message",
	"gcp.audit.num_response_items":                           "protoPayload.numResponseItems",
	"gcp.audit.logentry_operation.id":                        "operation.id",
	"gcp.audit.labels":                                       "labels",

	// The form in which a function receives an entry.
	"data.protoPayload.serviceName":                  "protoPayload.serviceName",
	"data.protoPayload.methodName":                   "protoPayload.methodName",
	"data.protoPayload.resourceName":                 "protoPayload.resourceName",
	"data.protoPayload.resource.type":                "resource.type",
	"data.protoPayload.logName":                      "logName",
	"data.protoPayload.authorizationInfo.permission": "protoPayload.authorizationInfo.permission",
	"data.protoPayload.authorizationInfo.granted":    "protoPayload.authorizationInfo.granted",

	// What some log stores rename, each way.
	"protoPayload.at_sign_type": "protoPayload.@type",
	"protoPayload.@type":        "protoPayload.at_sign_type",
	"protoPayload.Servicename":  "protoPayload.serviceName",

	// Google Workspace.
	"eventService": "protoPayload.serviceName",
	"eventName":    "protoPayload.metadata.event.eventName",
	"eventType":    "protoPayload.metadata.event.eventType",
	"setting_name": "protoPayload.metadata.event.parameter.value",
	"new_value":    "protoPayload.metadata.event.parameter.value",
}

// Fields are the first keys of log entries, whose rest is as free as the API
// that was called.
// Source: https://cloud.google.com/logging/docs/reference/v2/rest/v2/LogEntry
var Fields = []string{
	"protoPayload", "jsonPayload", "logName", "resource", "timestamp", "receiveTimestamp", "severity", "insertId", "labels",
	"operation", "trace", "traceSampled", "spanId", "sourceLocation", "httpRequest", "split", "errorGroups", "metadata",
}

// Source names the events.
func (Audit) Source() connector.Source {
	return connector.Source{
		Name: "gcp-audit", Title: "Google Cloud Audit Logs", Connector: "gcp",
		Product: "gcp", Service: "gcp.audit",
	}
}

// maxWraps is how many wrappings may lie around an entry.
const maxWraps = 4

// Recognizes says whether v is an audit log entry, a list of them, or one in
// the wrapping of Pub/Sub. It says no to entries of Kubernetes.
func (Audit) Recognizes(v *fastjson.Value) bool {
	return recognizes(v, maxWraps)
}

func recognizes(v *fastjson.Value, wraps int) bool {
	if v == nil || wraps < 0 {
		return false
	}
	switch v.Type() {
	case fastjson.TypeArray:
		items := v.GetArray()
		return len(items) > 0 && recognizes(items[0], wraps-1)
	case fastjson.TypeObject:
		if p := payload(v); p != nil {
			return isAudit(p) && !isKubernetes(p)
		}
		inner := unwrap(v)
		return inner != nil && recognizes(inner, wraps-1)
	}
	return false
}

// payload returns the AuditLog of an entry, under the names that it has in
// Cloud Logging, in log stores that write lower case, and in BigQuery.
func payload(v *fastjson.Value) *fastjson.Value {
	for _, key := range [...]string{"protoPayload", "protopayload", "proto_payload", "protopayload_auditlog"} {
		if p := v.Get(key); p != nil && p.Type() == fastjson.TypeObject {
			if inner := p.Get("audit_log"); inner != nil && inner.Type() == fastjson.TypeObject {
				return inner
			}
			return p
		}
	}
	return nil
}

func isAudit(p *fastjson.Value) bool {
	for _, key := range [...]string{"@type", "at_sign_type"} {
		if kind := p.GetStringBytes(key); len(kind) > 0 {
			return bytes.HasSuffix(kind, []byte("google.cloud.audit.AuditLog"))
		}
	}
	for _, key := range [...]string{"methodName", "serviceName", "authenticationInfo", "authorizationInfo"} {
		if p.Exists(key) {
			return true
		}
	}
	return false
}

func isKubernetes(p *fastjson.Value) bool {
	return string(p.GetStringBytes("serviceName")) == "k8s.io" ||
		bytes.HasPrefix(p.GetStringBytes("methodName"), []byte("io.k8s."))
}

// unwrap returns what lies in a wrapping: a list's entries, what a function
// receives, a message of Pub/Sub, whose data is the entry in base64. nil when v
// is none.
func unwrap(v *fastjson.Value) *fastjson.Value {
	if entries := v.Get("entries"); entries != nil && entries.Type() == fastjson.TypeArray {
		return entries
	}
	data := v.Get("data")
	if data == nil {
		data = v.Get("message", "data")
	}
	if data == nil {
		return nil
	}
	switch data.Type() {
	case fastjson.TypeObject:
		return data
	case fastjson.TypeString:
		b := data.GetStringBytes()
		if !bytes.HasPrefix(b, []byte("ey")) { // {"
			return nil
		}
		text, err := base64.StdEncoding.DecodeString(string(b))
		if err != nil {
			return nil
		}
		var p fastjson.Parser // its values live in it, not in v's
		if inner, err := p.ParseBytes(text); err == nil {
			return inner
		}
	}
	return nil
}

// Split returns the entries inside v, without their wrappings; see Recognizes.
func (Audit) Split(v *fastjson.Value) []*fastjson.Value {
	if v == nil {
		return nil
	}
	return split(nil, v, maxWraps)
}

func split(out []*fastjson.Value, v *fastjson.Value, wraps int) []*fastjson.Value {
	if wraps >= 0 {
		switch v.Type() {
		case fastjson.TypeArray:
			for _, item := range v.GetArray() {
				out = split(out, item, wraps-1)
			}
			return out
		case fastjson.TypeObject:
			if payload(v) == nil {
				if inner := unwrap(v); inner != nil {
					return split(out, inner, wraps-1)
				}
			}
		}
	}
	return append(out, v)
}

// Decode reads one entry.
func (a Audit) Decode(v *fastjson.Value, in *connector.Interner, e *connector.Event) error {
	if v == nil || v.Type() != fastjson.TypeObject {
		return remit.Errorf(remit.Invalid, "decode Cloud Audit Logs entry", "not a JSON object")
	}
	d := decoding{entry: v, payload: payload(v), event: e, in: in}
	if d.payload == nil {
		return remit.Errorf(remit.Invalid, "decode Cloud Audit Logs entry",
			"it has no protoPayload: check that the entry is of an audit log")
	}
	d.method = d.payload.GetStringBytes("methodName")
	d.service = d.payload.GetStringBytes("serviceName")
	d.resourceName = d.payload.GetStringBytes("resourceName")
	d.log = first(v, "logName", "logname", "log_name")

	if e.Time = connector.ParseTime(v.GetStringBytes("timestamp")); e.Time.IsZero() {
		e.Time = connector.ParseTime(firstOf(
			d.payload.GetStringBytes("requestMetadata", "requestAttributes", "time"),
			first(v, "receiveTimestamp", "receivetimestamp", "receive_timestamp"),
		))
	}
	e.Native = d.native()
	if e.Action = in.String(d.method); e.Action == "" { // the permission says nearly the same
		e.Action = in.Get(d.payload, "authorizationInfo", "0", "permission")
	}
	request := d.payload.Get("requestMetadata")
	e.Address = in.String(first(request, "callerIp", "callerIP", "caller_ip"))
	e.UserAgent = in.String(first(request, "callerSuppliedUserAgent", "caller_supplied_user_agent"))
	e.Code = v.GetInt("httpRequest", "status")

	d.identify()
	d.outcome()
	d.resource()
	d.mint()
	e.Write = d.writes()
	if id := first(v, "insertId", "insertid", "insert_id"); len(id) > 0 {
		e.ID = string(id) // not interned: no other entry has it
	} else {
		e.ID = connector.HashID(v, a.Strip)
	}
	e.Views = append(e.Views, connector.View{Product: "gcp", Service: "gcp.audit", JSON: v})
	switch string(d.service) {
	case "admin.googleapis.com":
		e.Views = append(e.Views, connector.View{Product: "gcp", Service: "google_workspace.admin", JSON: v})
	case "login.googleapis.com":
		e.Views = append(e.Views, connector.View{Product: "gcp", Service: "google_workspace.login", JSON: v})
	}
	return nil
}

// decoding is the work on one entry.
type decoding struct {
	entry, payload *fastjson.Value
	event          *connector.Event
	in             *connector.Interner

	method, service, resourceName, log []byte
}

// first returns the first of v's strings that is not empty. v may be nil.
func first(v *fastjson.Value, keys ...string) []byte {
	for _, key := range keys {
		if b := v.GetStringBytes(key); len(b) > 0 {
			return b
		}
	}
	return nil
}

func firstOf(values ...[]byte) []byte {
	for _, v := range values {
		if len(v) > 0 {
			return v
		}
	}
	return nil
}

// native returns what the entry's log belongs to: a project by its ID alone,
// and "organizations/123", "folders/123", "billingAccounts/X".
func (d *decoding) native() string {
	if owner, _, ok := bytes.Cut(d.log, []byte("/logs/")); ok {
		return d.in.String(bytes.TrimPrefix(owner, []byte("projects/")))
	}
	labels := d.entry.Get("resource", "labels")
	if id := labels.GetStringBytes("project_id"); len(id) > 0 {
		return d.in.String(id)
	}
	if id := labels.GetStringBytes("organization_id"); len(id) > 0 {
		return d.in.String(append([]byte("organizations/"), id...))
	}
	return d.in.String(projectOf(d.resourceName))
}

// projectOf returns the project of a resource's name, nil when it is in none or
// does not tell ("projects/_/buckets/b", "projects/-/serviceAccounts/a").
func projectOf(name []byte) []byte {
	name = bytes.TrimPrefix(name, []byte("//"))
	if i := bytes.Index(name, []byte("projects/")); i == 0 || i > 0 && name[i-1] == '/' {
		id, _, _ := bytes.Cut(name[i+len("projects/"):], []byte{'/'})
		if string(id) != "_" && string(id) != "-" {
			return id
		}
	}
	return nil
}

// The codes of google.rpc.Code that are refusals.
const (
	permissionDenied = 7
	unauthenticated  = 16
)

// longestReason bounds Reason.
const longestReason = 512

func (d *decoding) outcome() {
	e := d.event
	status := d.payload.Get("status")
	message := status.GetStringBytes("message")
	if len(message) > longestReason {
		message = bytes.ToValidUTF8(message[:longestReason], nil)
	}
	switch status.GetInt("code") {
	case 0:
		e.Outcome = remit.Allowed
		if permission := d.refused(); permission != nil {
			e.Outcome = remit.Denied
			if len(permission) > 0 {
				e.Reason = d.in.String(append([]byte("not granted: "), permission...))
			}
		}
		return
	case permissionDenied, unauthenticated:
		e.Outcome = remit.Denied
	default:
		e.Outcome = remit.Failed
	}
	e.Reason = d.in.String(message)
}

// refused returns the first permission that was not granted, "" in a slice of
// its own for one without a name, and nil when one was granted or nothing is
// told. A check that says nothing of its result says nothing here.
func (d *decoding) refused() []byte {
	var permission []byte
	for _, check := range d.payload.GetArray("authorizationInfo") {
		granted := check.Get("granted")
		if granted == nil {
			continue
		}
		switch granted.Type() {
		case fastjson.TypeTrue:
			return nil
		case fastjson.TypeFalse:
			if permission == nil {
				if permission = check.GetStringBytes("permission"); permission == nil {
					permission = []byte{}
				}
			}
		}
	}
	return permission
}

// readers are the first words of the names of calls that change nothing.
var readers = [...]string{"get", "list", "search", "read", "query", "lookup", "check", "test", "describe", "aggregatedlist", "batchget", "fetch", "view"}

// writes judges by what kind of permission was asked for, then by the method's
// verb, then by the log.
func (d *decoding) writes() bool {
	var told bool
	for _, check := range d.payload.GetArray("authorizationInfo") {
		kind := check.GetStringBytes("permissionType")
		if bytes.HasSuffix(kind, []byte("_WRITE")) {
			return true
		}
		told = told || bytes.HasSuffix(kind, []byte("_READ"))
	}
	if told {
		return false
	}
	verb := []byte(d.event.Action[strings.LastIndexByte(d.event.Action, '.')+1:])
	for _, reader := range readers {
		if len(verb) >= len(reader) && bytes.EqualFold(verb[:len(reader)], []byte(reader)) {
			if rest := verb[len(reader):]; len(rest) == 0 || rest[0] < 'a' || rest[0] > 'z' {
				return false
			}
		}
	}
	return len(verb) > 0
}
