package azure

import (
	"bytes"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// Activity decodes the activity log, and resource logs, such as those of Key
// Vault and of storage accounts, which have its form. It implements
// [connector.Decoder].
type Activity struct{}

var _ connector.Decoder = Activity{}

// Source names the events.
func (Activity) Source() connector.Source {
	return connector.Source{
		Name: "azure-activity", Title: "Azure activity log", Connector: "azure",
		Product: "azure", Service: "activitylogs",
	}
}

// Recognizes says whether v is an event of the activity log, or a list of them.
// It says no to the logs of Entra.
func (Activity) Recognizes(v *fastjson.Value) bool { return recognizes(v, maxWraps, isActivity) }

// Split returns the events inside v, without the list around them.
func (Activity) Split(v *fastjson.Value) []*fastjson.Value { return split(nil, v, maxWraps) }

// categories of the activity log and of storage's resource logs, in lower case.
var categories = map[string]bool{
	"administrative": true, "security": true, "servicehealth": true, "alert": true, "autoscale": true, "policy": true,
	"recommendation": true, "resourcehealth": true, "storageread": true, "storagewrite": true, "storagedelete": true,
}

func isActivity(v *fastjson.Value) bool {
	var r record
	r.read(v)
	if len(text(r.operation)) == 0 || isSignIn(v) || isDirectory(v) {
		return false
	}
	var room [40]byte
	if category := text(r.category); len(category) > 0 && len(category) <= len(room) {
		if categories[string(lower(room[:0], category))] {
			return true
		}
	}
	const prefix = "/subscriptions/"
	id := text(r.resourceID)
	return len(id) > len(prefix) && bytes.EqualFold(id[:len(prefix)], []byte(prefix))
}

// record holds the fields around an event that are read, found in one pass.
type record struct {
	id, time, operation, category, tenant, resourceID *fastjson.Value
	result, signature, description                    *fastjson.Value
	address, caller, statusCode, statusText, uri      *fastjson.Value

	identity, claims, authorization, properties, request *fastjson.Value

	stored bool // in Log Analytics, whose TenantId is a workspace's
}

func (r *record) read(v *fastjson.Value) {
	visit(v, func(key []byte, value *fastjson.Value) {
		var field **fastjson.Value
		switch string(key) {
		case "eventdataid":
			field = &r.id
		case "time", "eventtimestamp":
			field = &r.time
		case "timegenerated":
			field, r.stored = &r.time, true
		case "operationname", "operationnamevalue":
			field = &r.operation
		case "category", "categoryvalue":
			field = &r.category
		case "tenantid":
			field = &r.tenant
		case "resourceid", "_resourceid":
			field = &r.resourceID
		case "resulttype", "activitystatusvalue", "status":
			field = &r.result
		case "resultsignature", "activitysubstatusvalue", "substatus":
			field = &r.signature
		case "resultdescription":
			field = &r.description
		case "calleripaddress":
			field = &r.address
		case "caller":
			field = &r.caller
		case "statuscode":
			field = &r.statusCode
		case "statustext":
			field = &r.statusText
		case "uri":
			field = &r.uri
		case "identity":
			field = &r.identity
		case "claims":
			field = &r.claims
		case "authorization":
			field = &r.authorization
		case "properties":
			field = &r.properties
		case "httprequest":
			field = &r.request
		default:
			return
		}
		if *field == nil || len(text(*field)) == 0 && (*field).Type() == fastjson.TypeString {
			*field = value
		}
	})
}

// The names of claims that Azure writes as URIs.
const (
	claimUPN    = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/upn"
	claimMail   = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/emailaddress"
	claimName   = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name"
	claimTenant = "http://schemas.microsoft.com/identity/claims/tenantid"
	claimObject = "http://schemas.microsoft.com/identity/claims/objectidentifier"
)

// Decode reads one event. Of an operation that logs its start and its end, the
// start is ignored.
func (a Activity) Decode(v *fastjson.Value, in *connector.Interner, e *connector.Event) error {
	const op = "decode Azure activity"
	if v == nil || v.Type() != fastjson.TypeObject {
		return remit.Errorf(remit.Invalid, op, "not a JSON object")
	}
	var r record
	r.read(v)
	operation := text(r.operation)
	if len(operation) == 0 {
		return remit.Errorf(remit.Invalid, op, "it has no operationName: check that the file is of Azure's activity log")
	}
	switch string(text(r.result)) {
	case "Start", "Started":
		return connector.ErrIgnored
	}
	properties := object(r.properties)
	d := activity{record: &r, event: e, in: in, properties: properties}
	d.claims = object(r.claims)
	if d.claims == nil {
		identity := object(r.identity)
		if d.claims = identity.Get("claims"); d.claims == nil {
			d.claims = identity.Get("claim") // of Key Vault
		}
		d.identity = identity
	}

	tenant := given(text(r.tenant))
	inClaims := firstOf(d.claim(claimTenant), d.claim("tid"), d.identity.GetStringBytes("requester", "tenantId"))
	if r.stored || len(tenant) == 0 {
		tenant = firstOf(inClaims, properties.GetStringBytes("tenantId"), tenant)
	}
	e.Native = lowered(tenant, in)
	d.home = e.Native
	if len(inClaims) > 0 { // of a guest or a managing tenant
		d.home = lowered(inClaims, in)
	}

	e.Time = connector.ParseTime(text(r.time))
	e.Action = in.String(operation)
	e.Address = address(firstOf(text(r.address), r.request.GetStringBytes("clientIpAddress"), d.claim("ipaddr")), in)
	e.UserAgent = in.String(firstOf(properties.GetStringBytes("userAgentHeader"), properties.GetStringBytes("clientInfo")))
	e.Write = writes(operation, text(r.category))
	d.identify()
	d.outcome()
	d.resource()
	if id := given(firstOf(text(r.id), properties.GetStringBytes("eventDataId"))); len(id) > 0 {
		e.ID = string(id) // not interned: no other event has it
	} else {
		e.ID = connector.HashID(v, a.Strip)
	}
	e.Views = append(e.Views, connector.View{Product: "azure", Service: "activitylogs", JSON: v})
	return nil
}

// activity is the work on one event.
type activity struct {
	*record
	event *connector.Event
	in    *connector.Interner

	claims, identity, properties *fastjson.Value

	home string // the tenant of the actor
}

func (d *activity) claim(name string) []byte { return d.claims.GetStringBytes(name) }

// identify tells who did it, from the claims of the token, from storage's
// requester, or from the caller.
func (d *activity) identify() {
	e, in := d.event, d.in
	requester := d.identity.Get("requester")
	upn := firstOf(d.claim(claimUPN), d.claim("upn"), requester.GetStringBytes("upn"), d.claim("unique_name"), d.claim(claimMail), d.claim(claimName))
	client := given(firstOf(d.claim("appid"), d.claim("azp"), requester.GetStringBytes("appId")))
	id := given(firstOf(d.claim(claimObject), d.claim("oid"), requester.GetStringBytes("objectId")))
	caller := text(d.caller)
	name := d.claim("name")
	if len(upn) == 0 && bytes.IndexByte(caller, '@') > 0 {
		upn = caller
	}
	if len(upn) == 0 && len(client) == 0 && bytes.IndexByte(name, '@') > 0 {
		upn = name
	}
	if bytes.IndexByte(upn, '@') < 0 || string(d.claim("idtyp")) == "app" {
		upn = nil
	}
	if len(id) == 0 && len(caller) == len(noID) {
		id = given(caller)
	}
	e.Principal = in.String(firstOf(caller, upn, name, client, id))
	switch {
	case len(upn) > 0:
		e.Actor, e.Type = user(upn, in), remit.Human
		if len(client) > 0 { // the user let it act
			e.Chain = append(e.Chain, application(d.home, client, in))
		}
	case len(client) > 0:
		e.Actor, e.Type = application(d.home, client, in), remit.Application
	case len(id) > 0:
		e.Actor = remit.Ref{Kind: kindServicePrincipal, Namespace: d.home, Name: lowered(id, in)}
	}
	d.credential()
	if assignment := d.evidence("roleAssignmentId"); len(assignment) > 0 {
		e.Binding = remit.Ref{Kind: "RoleAssignment", Namespace: lowered(d.evidence("roleAssignmentScope"), in), Name: lowered(assignment, in)}
	}
}

func (d *activity) evidence(name string) []byte {
	authorization := object(d.authorization)
	if authorization == nil {
		authorization = d.identity.Get("authorization")
	}
	return authorization.GetStringBytes("evidence", name)
}

// credential reads the token's ID, which Entra's sign-in logs have too, and what
// a managed identity is bound to; of storage, the kind of key and its hash.
func (d *activity) credential() {
	e, in := d.event, d.in
	if token := d.claim("uti"); len(token) > 0 {
		e.Credential, e.CredentialType = in.String(token), remit.ShortLivedToken
	}
	if managed := d.claim("xms_mirid"); len(managed) > 0 {
		e.Type = remit.ServiceAccount
		if host := firstOf(d.claim("xms_az_rid"), managed); !containsFold(host, "/microsoft.managedidentity/") {
			e.Bound = resource(host, in)
		}
	}
	hash := d.identity.GetStringBytes("tokenHash")
	switch string(d.identity.GetStringBytes("type")) {
	case "AccountKey":
		e.Credential, e.CredentialType = in.String(hash), remit.APIKey
	case "SAS", "AccountSAS", "ServiceSAS", "UserDelegationSAS", "DelegationSas":
		e.Credential, e.CredentialType = in.String(hash), remit.StaticToken
	case "OAuth":
		e.Credential, e.CredentialType = firstString(e.Credential, in.String(hash)), remit.ShortLivedToken
	case "":
		if bytes.Contains(text(d.uri), []byte("sig=")) {
			e.CredentialType = remit.StaticToken // a shared access signature
		}
	}
}

func firstString(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func containsFold(b []byte, lowerPart string) bool {
	return bytes.Contains(lower(make([]byte, 0, len(b)), b), []byte(lowerPart))
}

// outcome reads the result. What of it is an HTTP status is in different fields
// in different logs: a number, or a word ("Forbidden", "Failed.Forbidden").
func (d *activity) outcome() {
	e, in := d.event, d.in
	e.Code = number(d.statusCode)
	for _, v := range [...]*fastjson.Value{d.signature, d.properties.Get("statusCode"), d.properties.Get("httpStatusCode")} {
		if e.Code == 0 {
			e.Code = number(v)
		}
	}
	if e.Code < 100 || e.Code > 599 {
		e.Code = 0
	}
	result := text(d.result)
	refused := e.Code == 401 || e.Code == 403
	for _, word := range [...][]byte{text(d.signature), d.properties.GetStringBytes("statusCode"), text(d.statusText), result} {
		for _, part := range [...]string{"Forbidden", "Unauthorized", "AuthorizationFail", "AuthenticationFail", "AuthorizationPermissionMismatch"} {
			refused = refused || bytes.Contains(word, []byte(part))
		}
	}
	failed := e.Code >= 400
	switch string(result) {
	case "", "Success", "Succeeded", "Accept", "Accepted", "Active", "Resolved", "Updated", "In Progress":
	default:
		failed = true
	}
	switch {
	case refused && (failed || len(result) == 0):
		e.Outcome = remit.Denied
	case failed:
		e.Outcome = remit.Failed
	default:
		e.Outcome = remit.Allowed
		return
	}
	e.Reason = reason(firstOf(
		d.properties.GetStringBytes("statusMessage"), text(d.description), text(d.statusText), d.properties.GetStringBytes("statusCode"),
	), in)
}

func (d *activity) resource() {
	e, in := d.event, d.in
	if key := d.properties.GetStringBytes("objectKey"); len(key) > 0 {
		// The names of storage's objects differ by case, and are many.
		e.Resource = remit.Ref{Kind: "microsoft.storage/storageaccounts/objects", Name: string(key)}
		e.Resource.Namespace = resource(text(d.resourceID), in).Namespace
		return
	}
	e.Resource = resource(firstOf(text(d.resourceID), object(d.authorization).GetStringBytes("scope")), in)
}

// resource refers to a resource by its ID, in lower case: kind is its type
// ("microsoft.keyvault/vaults"), the namespace its subscription.
func resource(id []byte, in *connector.Interner) remit.Ref {
	if len(id) == 0 {
		return remit.Ref{}
	}
	id = lower(make([]byte, 0, len(id)), bytes.TrimSuffix(id, []byte{'/'}))
	ref := remit.Ref{Name: in.String(id)}
	if rest, ok := bytes.CutPrefix(id, []byte("/subscriptions/")); ok {
		subscription, rest, _ := bytes.Cut(rest, []byte{'/'})
		ref.Namespace = in.String(subscription)
		ref.Kind = "microsoft.resources/subscriptions"
		if bytes.HasPrefix(rest, []byte("resourcegroups/")) {
			ref.Kind = "microsoft.resources/resourcegroups"
		}
	}
	const providers = "/providers/"
	if i := bytes.LastIndex(id, []byte(providers)); i >= 0 {
		// provider/type/name/type/name: all but the names.
		var kind []byte
		for n, part := range bytes.Split(id[i+len(providers):], []byte{'/'}) {
			if n == 0 {
				kind = append(kind, part...)
			} else if n%2 == 1 {
				kind = append(append(kind, '/'), part...)
			}
		}
		ref.Kind = in.String(kind)
	}
	return ref
}

// readers begin or end the names of operations that change nothing, in lower case.
var readers = [...]string{"get", "list", "read", "check", "validate", "search", "query", "export", "head", "peek", "describe", "audit"}

func writes(operation, category []byte) bool {
	switch string(category) {
	case "StorageRead":
		return false
	case "StorageWrite", "StorageDelete":
		return true
	}
	op := lower(make([]byte, 0, len(operation)), operation)
	op, action := bytes.CutSuffix(op, []byte("/action"))
	last := op[bytes.LastIndexByte(op, '/')+1:]
	if !action && len(last) < len(op) { // provider/type/verb
		return string(last) != "read"
	}
	for _, word := range readers {
		if bytes.HasPrefix(last, []byte(word)) || bytes.HasSuffix(last, []byte(word)) {
			return false
		}
	}
	return true
}
