// Package aws knows Amazon Web Services.
//
// [CloudTrail] decodes the events of AWS CloudTrail. Field meanings are those of
// https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
// and, of the identity, cloudtrail-event-reference-user-identity.html beside it.
package aws

import (
	"bytes"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// CloudTrail decodes AWS CloudTrail events: management, data, network activity
// and sign-in events. It implements [connector.Decoder].
type CloudTrail struct{}

var _ connector.Decoder = CloudTrail{}

// FieldAliases leads from the field names of Sigma rules for CloudTrail to paths
// in the raw event, where they differ: nowhere, for the rules use the event's own.
var FieldAliases = map[string]string{}

// Fields are the first keys of events, whose rest is as free as the API that was
// called.
// Source: https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
var Fields = []string{
	"eventTime", "eventVersion", "userIdentity", "eventSource", "eventName", "awsRegion", "sourceIPAddress", "userAgent",
	"errorCode", "errorMessage", "requestParameters", "responseElements", "additionalEventData", "requestID", "eventID",
	"eventType", "apiVersion", "managementEvent", "readOnly", "resources", "recipientAccountId", "serviceEventDetails",
	"sharedEventID", "vpcEndpointId", "vpcEndpointAccountId", "eventCategory", "addendum", "sessionCredentialFromConsole",
	"eventContext", "edgeDeviceDetails", "tlsDetails", "insightDetails",
}

// Source names the events.
func (CloudTrail) Source() connector.Source {
	return connector.Source{
		Name: "aws-cloudtrail", Title: "AWS CloudTrail", Connector: "aws",
		Product: "aws", Service: "cloudtrail",
	}
}

// maxWraps is how many wrappings may lie around an event.
const maxWraps = 4

// Recognizes says whether v is a CloudTrail event, a file or list of them, or
// one in the wrapping of EventBridge, CloudWatch Logs or LookupEvents.
func (CloudTrail) Recognizes(v *fastjson.Value) bool {
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
	case fastjson.TypeString:
		b := v.GetStringBytes()
		return len(b) > 0 && b[0] == '{' && (bytes.Contains(b, []byte(`"eventSource"`)) || bytes.Contains(b, []byte(`"eventsource"`)))
	case fastjson.TypeObject:
		if isEvent(v) {
			return true
		}
		inner := unwrap(v)
		return inner != nil && recognizes(inner, wraps-1)
	}
	return false
}

// isEvent tells CloudTrail's events from those of S3 notifications, which have
// an eventSource and an eventName too.
func isEvent(v *fastjson.Value) bool {
	source := either(v, "eventSource", "eventsource")
	if len(source) == 0 || bytes.HasPrefix(source, []byte("aws:")) {
		return false
	}
	return len(either(v, "eventName", "eventname")) > 0 || v.Exists("userIdentity") && v.Exists("eventVersion")
}

func either(v *fastjson.Value, key, other string) []byte {
	if b := v.GetStringBytes(key); len(b) > 0 {
		return b
	}
	return v.GetStringBytes(other)
}

// unwrap returns what lies in a wrapping: of a file, EventBridge, a subscription
// of CloudWatch Logs, LookupEvents, or a log shipper. nil when v is none.
func unwrap(v *fastjson.Value) *fastjson.Value {
	if r := v.Get("Records"); r != nil && r.Type() == fastjson.TypeArray {
		return r
	}
	if d := v.Get("detail"); d != nil && v.Exists("detail-type") {
		return d
	}
	for _, key := range [...]string{"logEvents", "Events", "CloudTrailEvent", "message", "@message"} {
		if w := v.Get(key); w != nil && (w.Type() == fastjson.TypeArray || w.Type() == fastjson.TypeString) {
			return w
		}
	}
	return nil
}

// Split returns the events inside v, without their wrappings; see Recognizes.
func (CloudTrail) Split(v *fastjson.Value) []*fastjson.Value {
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
		case fastjson.TypeString:
			// The values live in a parser of their own, not in v's.
			var p fastjson.Parser
			if inner, err := p.ParseBytes(v.GetStringBytes()); err == nil {
				return split(out, inner, wraps-1)
			}
		case fastjson.TypeObject:
			if !isEvent(v) {
				if inner := unwrap(v); inner != nil {
					return split(out, inner, wraps-1)
				}
			}
		}
	}
	return append(out, v)
}

// record holds the fields of an event that are read, found in one pass.
type record struct {
	id, time, source, name, kind, account *fastjson.Value
	address, agent                        *fastjson.Value
	errorCode, errorMessage               *fastjson.Value
	readOnly, console                     *fastjson.Value

	identity, request, response, resources, details *fastjson.Value
}

func (r *record) read(v *fastjson.Value) {
	v.GetObject().Visit(func(key []byte, value *fastjson.Value) {
		var field **fastjson.Value
		switch string(key) { // in lower case as some log stores write them
		case "eventID", "eventid":
			field = &r.id
		case "eventTime", "eventtime":
			field = &r.time
		case "eventSource", "eventsource":
			field = &r.source
		case "eventName", "eventname":
			field = &r.name
		case "eventType", "eventtype":
			field = &r.kind
		case "recipientAccountId", "recipientaccountid":
			field = &r.account
		case "sourceIPAddress", "sourceipaddress":
			field = &r.address
		case "userAgent", "useragent":
			field = &r.agent
		case "errorCode", "errorcode":
			field = &r.errorCode
		case "errorMessage", "errormessage":
			field = &r.errorMessage
		case "readOnly", "readonly":
			field = &r.readOnly
		case "sessionCredentialFromConsole", "sessioncredentialfromconsole":
			field = &r.console
		case "userIdentity", "useridentity":
			field = &r.identity
		case "requestParameters", "requestparameters":
			field = &r.request
		case "responseElements", "responseelements":
			field = &r.response
		case "resources":
			field = &r.resources
		case "serviceEventDetails", "serviceeventdetails":
			field = &r.details
		default:
			return
		}
		if *field == nil {
			*field = value
		}
	})
}

// text returns the bytes of a string, nil for anything else and for no value.
func text(v *fastjson.Value) []byte { return v.GetStringBytes() }

// Decode reads one event.
func (c CloudTrail) Decode(v *fastjson.Value, in *connector.Interner, e *connector.Event) error {
	if v == nil || v.Type() != fastjson.TypeObject {
		return remit.Errorf(remit.Invalid, "decode CloudTrail event", "not a JSON object")
	}
	var r record
	r.read(v)
	source, name := text(r.source), text(r.name)
	if len(name) == 0 && len(source) == 0 {
		if string(text(r.kind)) == "AwsCloudTrailInsight" {
			return connector.ErrIgnored // a statistic about events, no event
		}
		return remit.Errorf(remit.Invalid, "decode CloudTrail event",
			"it has neither eventName nor eventSource: check that the file is CloudTrail's")
	}

	e.Native = in.String(text(r.account))
	if e.Native == "" {
		e.Native = in.Get(r.identity, "accountId")
	}
	e.Time = connector.ParseTime(text(r.time))
	e.Action = action(source, name, in)
	e.Address = in.String(text(r.address))
	e.UserAgent = in.String(text(r.agent))

	d := decoding{record: &r, event: e, in: in, service: serviceOf(source), name: name}
	d.identify()
	d.outcome()
	d.resource()
	d.mint()
	e.Write = writes(r.readOnly, name)
	if id := text(r.id); len(id) > 0 {
		e.ID = string(id) // not interned: no other event has it
	} else {
		e.ID = connector.HashID(v, c.Strip)
	}
	e.Views = append(e.Views, connector.View{Product: "aws", Service: "cloudtrail", JSON: v})
	return nil
}

// decoding is the work on one event.
type decoding struct {
	*record
	event   *connector.Event
	in      *connector.Interner
	service []byte // "s3"
	name    []byte
}

// serviceOf returns "s3" of "s3.amazonaws.com".
func serviceOf(source []byte) []byte {
	if i := bytes.IndexByte(source, '.'); i >= 0 {
		return source[:i]
	}
	return source
}

func action(source, name []byte, in *connector.Interner) string {
	var room [128]byte
	b := append(room[:0], serviceOf(source)...)
	if len(b) > 0 && len(name) > 0 {
		b = append(b, ':')
	}
	return in.String(append(b, name...))
}

// deniedBy are what the codes of refusals contain, of authentication as well as
// of authorization.
var deniedBy = [...]string{
	"AccessDenied", "Unauthorized", "Forbidden", "NotAuthorized", "AuthFailure", "AuthorizationError",
	"InvalidClientTokenId", "UnrecognizedClient", "ExpiredToken", "InvalidAccessKeyId",
	"SignatureDoesNotMatch", "InvalidSignature", "InvalidToken", "MissingAuthenticationToken",
	"IncompleteSignature", "OptInRequired", "InvalidIdentityToken", "IDPRejectedClaim",
}

// longestReason bounds Reason: error messages can quote whole requests.
const longestReason = 512

func (d *decoding) outcome() {
	e := d.event
	e.Outcome = remit.Allowed
	if code := text(d.errorCode); len(code) > 0 {
		e.Outcome = remit.Failed
		for _, part := range deniedBy {
			if bytes.Contains(code, []byte(part)) {
				e.Outcome = remit.Denied
				break
			}
		}
		e.Reason = reason(code, text(d.errorMessage), d.in)
		return
	}
	// Sign-in events say how they ended under their own name.
	var result []byte
	if d.response != nil && d.response.Type() == fastjson.TypeObject && string(d.service) == "signin" {
		result = d.response.GetStringBytes(string(d.name))
	} else if string(text(d.kind)) == "AwsServiceEvent" {
		result = d.details.GetStringBytes(string(d.name))
	}
	if string(result) == "Failure" {
		e.Outcome = remit.Denied
		e.Reason = reason(nil, text(d.errorMessage), d.in)
		return
	}
	if message := text(d.errorMessage); len(message) > 0 && string(d.service) == "signin" && result == nil {
		e.Outcome = remit.Denied
		e.Reason = reason(nil, message, d.in)
	}
}

func reason(code, message []byte, in *connector.Interner) string {
	if len(message) == 0 {
		return in.String(code)
	}
	if len(message) > longestReason {
		message = bytes.ToValidUTF8(message[:longestReason], nil)
	}
	if len(code) == 0 {
		return in.String(message)
	}
	b := make([]byte, 0, len(code)+2+len(message))
	b = append(b, code...)
	b = append(b, ": "...)
	return in.String(append(b, message...))
}

// readers are the first words of the names of calls that change nothing.
var readers = [...]string{
	"Get", "List", "Describe", "Head", "BatchGet", "BatchDescribe", "Lookup", "Search", "Select", "Query", "Scan",
	"Check", "View", "Validate", "Simulate", "Preview", "Estimate", "Download", "Discover", "Detect", "Filter",
}

func writes(readOnly *fastjson.Value, name []byte) bool {
	if readOnly != nil {
		switch readOnly.Type() {
		case fastjson.TypeTrue:
			return false
		case fastjson.TypeFalse:
			return true
		case fastjson.TypeString:
			return !bytes.EqualFold(readOnly.GetStringBytes(), []byte("true"))
		}
	}
	for _, verb := range readers {
		if rest, ok := bytes.CutPrefix(name, []byte(verb)); ok && (len(rest) == 0 || rest[0] < 'a' || rest[0] > 'z') {
			return false
		}
	}
	return len(name) > 0
}
