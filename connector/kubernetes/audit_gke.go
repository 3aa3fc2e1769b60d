package kubernetes

import (
	"bytes"

	"github.com/valyala/fastjson"
)

// plainOfGKE gives a GKE audit entry, a Cloud Audit Log entry about the service
// k8s.io, the form of the API server's own event, so that one set of rules
// serves all platforms.
//
//	methodName    io.k8s.authorization.rbac.v1.rolebindings.create
//	resourceName  rbac.authorization.k8s.io/v1/namespaces/NS/rolebindings/NAME/SUB
//
// Source: https://cloud.google.com/kubernetes-engine/docs/how-to/audit-logging
func plainOfGKE(entry *fastjson.Value) *fastjson.Value {
	var arena fastjson.Arena
	p := entry.Get("protoPayload")
	out := arena.NewObject()
	set := func(o *fastjson.Value, key string, b []byte) {
		if len(b) > 0 {
			o.Set(key, arena.NewStringBytes(b))
		}
	}
	out.Set("kind", arena.NewString("Event"))
	out.Set("apiVersion", arena.NewString("audit.k8s.io/v1"))
	// The operation's ID is the API server's auditID.
	id := entry.GetStringBytes("operation", "id")
	if len(id) == 0 {
		id = entry.GetStringBytes("insertId")
	}
	set(out, "auditID", id)
	out.Set("stage", arena.NewString("ResponseComplete"))

	at := entry.GetStringBytes("timestamp")
	if len(at) == 0 {
		at = entry.GetStringBytes("receiveTimestamp")
	}
	set(out, "requestReceivedTimestamp", at)

	user := arena.NewObject()
	principal := p.GetStringBytes("authenticationInfo", "principalEmail")
	set(user, "username", principal)
	out.Set("user", user)
	if by := p.GetStringBytes("authenticationInfo", "authoritySelector"); len(by) > 0 {
		as := arena.NewObject()
		set(as, "username", by)
		out.Set("impersonatedUser", as)
	}

	address := p.GetStringBytes("requestMetadata", "callerIp")
	if len(address) == 0 {
		address = p.GetStringBytes("requestMetadata", "callerIP")
	}
	if len(address) > 0 {
		ips := arena.NewArray()
		ips.SetArrayItem(0, arena.NewStringBytes(address))
		out.Set("sourceIPs", ips)
	}
	set(out, "userAgent", p.GetStringBytes("requestMetadata", "callerSuppliedUserAgent"))

	method := p.GetStringBytes("methodName")
	if i := bytes.LastIndexByte(method, '.'); i >= 0 {
		set(out, "verb", method[i+1:])
	}
	resourceName := p.GetStringBytes("resourceName")
	granted := true
	for _, one := range p.GetArray("authorizationInfo") {
		if len(resourceName) == 0 {
			resourceName = one.GetStringBytes("resource")
		}
		granted = granted && (one.Get("granted") == nil || one.GetBool("granted"))
	}
	if len(resourceName) == 0 { // some log stores leave it beside the payload
		for _, one := range entry.GetArray("authorizationInfo") {
			resourceName = one.GetStringBytes("resource")
		}
	}
	if ref := objectOfGKE(resourceName, &arena); ref != nil {
		out.Set("objectRef", ref)
	} else {
		set(out, "requestURI", resourceName)
	}

	status := arena.NewObject()
	response := p.Get("response")
	code := response.GetInt("code")
	switch {
	case !granted:
		code = 403
	case code == 0:
		code = httpOfRPC(p.GetInt("status", "code"))
	}
	status.Set("code", arena.NewNumberInt(code))
	set(status, "reason", response.GetStringBytes("reason"))
	out.Set("responseStatus", status)

	if labels := entry.Get("labels"); labels != nil && labels.Type() == fastjson.TypeObject {
		out.Set("annotations", labels)
	}
	if request := p.Get("request"); request != nil {
		out.Set("requestObject", request)
	}
	if response != nil {
		out.Set("responseObject", response)
	}
	return out
}

// objectOfGKE reads GROUP/VERSION[/namespaces/NS]/RESOURCE[/NAME[/SUBRESOURCE]];
// the core group is written "core". Nil when it is no resource.
func objectOfGKE(name []byte, arena *fastjson.Arena) *fastjson.Value {
	parts := bytes.Split(name, []byte("/"))
	if len(parts) < 3 || len(parts) > 16 {
		return nil
	}
	ref := arena.NewObject()
	if group := parts[0]; string(group) != "core" {
		ref.Set("apiGroup", arena.NewStringBytes(group))
	}
	ref.Set("apiVersion", arena.NewStringBytes(parts[1]))
	parts = parts[2:]
	if len(parts) >= 3 && string(parts[0]) == "namespaces" {
		ref.Set("namespace", arena.NewStringBytes(parts[1]))
		parts = parts[2:]
	}
	for i, key := range [...]string{"resource", "name", "subresource"} {
		if i < len(parts) && len(parts[i]) > 0 {
			ref.Set(key, arena.NewStringBytes(parts[i]))
		}
	}
	return ref
}

// httpOfRPC maps a google.rpc.Code to the HTTP status that it stands for.
// Source: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
func httpOfRPC(code int) int {
	switch code {
	case 0:
		return 200
	case 3, 9, 11:
		return 400
	case 5:
		return 404
	case 6, 10:
		return 409
	case 7:
		return 403
	case 8:
		return 429
	case 16:
		return 401
	}
	if code >= 400 && code <= 599 { // some entries carry the status itself
		return code
	}
	return 500
}
