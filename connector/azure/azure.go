// Package azure knows Microsoft Azure and Microsoft Entra ID.
//
// [Activity] decodes the activity log of Azure and the resource logs of the same
// form, [SignIn] the sign-in logs of Entra, and [Directory] its audit logs. Each
// reads the forms in which Azure Monitor streams and stores the events, the one
// of the REST and Graph APIs, and the columns of Log Analytics:
// https://learn.microsoft.com/azure/azure-monitor/platform/activity-log-schema
// https://learn.microsoft.com/graph/api/resources/signin
// https://learn.microsoft.com/graph/api/resources/directoryaudit
package azure

import (
	"bytes"
	"net/netip"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// FieldAliases leads from field names of Sigma rules for Azure, which are those
// of Log Analytics and of the portal, to dotted paths in the raw event as Azure
// Monitor streams it. A path goes through lists. One map serves the three
// sources: no path of one means something else in another.
var FieldAliases = map[string]string{
	"OperationName":      "operationName",
	"OperationNameValue": "operationName",
	"CategoryValue":      "category",
	"ResourceId":         "resourceId",
	"ResultType":         "resultType",
	"ResultDescription":  "resultDescription",
	"Resultdescription":  "resultDescription",
	"Caller":             "caller",

	"Username":                  "properties.userPrincipalName",
	"UserPrincipalName":         "properties.userPrincipalName",
	"userAgent":                 "properties.userAgent",
	"ClientApp":                 "properties.clientAppUsed",
	"AppDisplayName":            "properties.appDisplayName",
	"ResourceDisplayName":       "properties.resourceDisplayName",
	"AuthenticationRequirement": "properties.authenticationRequirement",
	"conditionalAccessStatus":   "properties.conditionalAccessStatus",
	"RiskState":                 "properties.riskState",
	"riskEventType":             "properties.riskEventType",
	"NetworkLocationDetails":    "properties.networkLocationDetails",
	"DeviceDetail.trusttype":    "properties.deviceDetail.trustType",
	"DeviceDetail.isCompliant":  "properties.deviceDetail.isCompliant",
	"DeviceDetail.deviceId":     "properties.deviceDetail.deviceId",

	"Category":                           "properties.category",
	"Status":                             "properties.result",
	"LoggedByService":                    "properties.loggedByService",
	"ActivityDisplayName":                "properties.activityDisplayName",
	"activityType":                       "properties.activityDisplayName",
	"properties.message":                 "properties.activityDisplayName",
	"Initiatedby":                        "properties.initiatedBy",
	"Target":                             "properties.targetResources",
	"TargetResources":                    "properties.targetResources",
	"targetResources.type":               "properties.targetResources.type",
	"TargetResources.modifiedProperties": "properties.targetResources.modifiedProperties",
	"TargetResources.modifiedProperties.newValue":    "properties.targetResources.modifiedProperties.newValue",
	"TargetResources.ModifiedProperties.NewValue":    "properties.targetResources.modifiedProperties.newValue",
	"TargetResources.ModifiedProperties.DisplayName": "properties.targetResources.modifiedProperties.displayName",
	"failure_status_reason":                          "properties.resultReason",
	"additionalDetails.additionalInfo":               "properties.additionalDetails.value",
}

// The kinds of reference to identities.
const (
	kindApplication      = "Application"
	kindUser             = "User"
	kindServicePrincipal = "ServicePrincipal"
)

// maxWraps is how many wrappings may lie around an event.
const maxWraps = 4

// recognizes says whether v is an event that is says yes to, or a list of such.
func recognizes(v *fastjson.Value, wraps int, is func(v *fastjson.Value) bool) bool {
	if v == nil || wraps < 0 {
		return false
	}
	switch v.Type() {
	case fastjson.TypeArray:
		items := v.GetArray()
		return len(items) > 0 && recognizes(items[0], wraps-1, is)
	case fastjson.TypeObject:
		if inner := unwrap(v); inner != nil {
			return recognizes(inner, wraps-1, is)
		}
		return is(v)
	}
	return false
}

// unwrap returns the list in a document of several events: {"records":[…]} of
// Event Hubs and of files, {"value":[…]} of the APIs. nil when v is none.
func unwrap(v *fastjson.Value) *fastjson.Value {
	for _, key := range [...]string{"records", "value"} {
		if list := v.Get(key); list != nil && list.Type() == fastjson.TypeArray {
			return list
		}
	}
	return nil
}

func split(out []*fastjson.Value, v *fastjson.Value, wraps int) []*fastjson.Value {
	if v == nil {
		return out
	}
	if wraps >= 0 {
		switch v.Type() {
		case fastjson.TypeArray:
			for _, item := range v.GetArray() {
				out = split(out, item, wraps-1)
			}
			return out
		case fastjson.TypeObject:
			if inner := unwrap(v); inner != nil {
				return split(out, inner, wraps-1)
			}
		}
	}
	return append(out, v)
}

// visit calls f with each key of an object, in lower case, for the forms of an
// event differ in that: callerIpAddress, CallerIpAddress, callerIPAddress. Keys
// too long to be of interest are left out. The key is valid during the call.
func visit(v *fastjson.Value, f func(key []byte, value *fastjson.Value)) {
	if v == nil || v.Type() != fastjson.TypeObject {
		return
	}
	var room [40]byte
	v.GetObject().Visit(func(key []byte, value *fastjson.Value) {
		if len(key) > len(room) {
			return
		}
		f(lower(room[:0], key), value)
	})
}

// lower appends b to dst with its ASCII capitals made small.
func lower(dst, b []byte) []byte {
	for _, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// text returns the bytes of a string, or of the value in {"value": …} as the
// REST API writes it; nil for anything else.
func text(v *fastjson.Value) []byte {
	if v != nil && v.Type() == fastjson.TypeObject {
		return v.GetStringBytes("value")
	}
	return v.GetStringBytes()
}

// object returns v, or what v holds when it is an object in a string, as the
// columns of Log Analytics are. nil when it is neither.
func object(v *fastjson.Value) *fastjson.Value {
	if v == nil {
		return nil
	}
	switch v.Type() {
	case fastjson.TypeObject:
		return v
	case fastjson.TypeString:
		if b := v.GetStringBytes(); len(b) > 0 && b[0] == '{' {
			var p fastjson.Parser // its values live in it, not in v's
			if inner, err := p.ParseBytes(b); err == nil && inner.Type() == fastjson.TypeObject {
				return inner
			}
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

// lowered interns b in lower case: names of users and IDs of resources mean the
// same in any case, and the logs write them in several.
func lowered(b []byte, in *connector.Interner) string {
	var room [256]byte
	return in.String(lower(room[:0], b))
}

// user refers to a person by the user principal name.
func user(upn []byte, in *connector.Interner) remit.Ref {
	return remit.Ref{Kind: kindUser, Name: lowered(upn, in)}
}

// application refers to an application by its client ID in its tenant. The
// service principal and the managed identity of one have the same.
func application(tenant string, client []byte, in *connector.Interner) remit.Ref {
	return remit.Ref{Kind: kindApplication, Namespace: tenant, Name: lowered(client, in)}
}

// address returns an IP address without the port that some logs give with it.
func address(b []byte, in *connector.Interner) string {
	if len(b) > 0 && (b[0] == '[' || bytes.Count(b, []byte{':'}) == 1) {
		if with, err := netip.ParseAddrPort(string(b)); err == nil {
			return with.Addr().String()
		}
	}
	return in.String(b)
}

// noID is the GUID that stands for none.
const noID = "00000000-0000-0000-0000-000000000000"

// given returns b, or nil when it is the GUID that stands for none.
func given(b []byte) []byte {
	if string(b) == noID {
		return nil
	}
	return b
}

// longestReason bounds Reason.
const longestReason = 512

func reason(b []byte, in *connector.Interner) string {
	if len(b) > longestReason {
		b = bytes.ToValidUTF8(b[:longestReason], nil)
	}
	return in.String(b)
}

// number reads a number that is one, or is written as text; 0 for anything else.
func number(v *fastjson.Value) int {
	if v == nil {
		return 0
	}
	if v.Type() == fastjson.TypeNumber {
		return v.GetInt()
	}
	return digits(v.GetStringBytes())
}

func digits(b []byte) int {
	if len(b) == 0 || len(b) > 9 {
		return 0
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0
		}
		n = n*10 + int(c-'0')
	}
	return n
}
