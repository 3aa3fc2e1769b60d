package kubernetes

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// Audit reads the audit log of an API server (audit.k8s.io/v1 Event), plain and
// as EKS, AKS and GKE deliver it.
//
// A request is one activity, known by its auditID, whatever stages of it are
// logged: RequestReceived says nothing of its outcome and is ignored;
// ResponseStarted and ResponseComplete of one watch have the same ID and so
// count once, at the first of them.
// Source: https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/
var Audit connector.Decoder = audit{}

type audit struct{}

func (audit) Source() connector.Source {
	return connector.Source{Name: "kubernetes", Title: "Kubernetes audit log", Connector: "kubernetes", Product: "kubernetes", Service: "audit"}
}

// What the platforms wrap audit events in.
const (
	gkeService  = "k8s.io"
	gkeMethod   = "io.k8s."
	aksCategory = "kube-audit" // and kube-audit-admin, which leaves reads out
)

func (a audit) Recognizes(v *fastjson.Value) bool {
	switch {
	case v.Type() == fastjson.TypeArray:
		items := v.GetArray()
		return len(items) > 0 && items[0].Type() == fastjson.TypeObject && a.Recognizes(items[0])
	case isAudit(v):
		return true
	case isGKE(v):
		return true
	case isAKS(v):
		return true
	}
	for _, list := range [...]string{"items", "records", "logEvents"} {
		if items := v.GetArray(list); len(items) > 0 {
			return a.Recognizes(items[0])
		}
	}
	if m := message(v); m != nil {
		return bytes.Contains(m, []byte("audit.k8s.io/"))
	}
	return bytes.HasPrefix(v.GetStringBytes("apiVersion"), []byte("audit.k8s.io/"))
}

// isAudit recognises an event even where a log store has dropped what names its
// kind: no other log has a verb beside a user's name.
func isAudit(v *fastjson.Value) bool {
	if v.Type() != fastjson.TypeObject || v.Get("verb") == nil && v.Get("auditID") == nil && v.Get("requestURI") == nil {
		return false
	}
	if string(v.GetStringBytes("kind")) == "Event" && v.Get("verb") != nil && (v.Get("responseStatus") != nil || v.Get("sourceIPs") != nil) {
		return true
	}
	return v.Get("user", "username") != nil || string(v.GetStringBytes("kind")) == "Event" && v.Get("objectRef") != nil
}

func isGKE(v *fastjson.Value) bool {
	p := v.Get("protoPayload")
	return p != nil && (string(p.GetStringBytes("serviceName")) == gkeService || bytes.HasPrefix(p.GetStringBytes("methodName"), []byte(gkeMethod)))
}

func isAKS(v *fastjson.Value) bool {
	return bytes.HasPrefix(v.GetStringBytes("category"), []byte(aksCategory)) && v.Get("properties", "log") != nil
}

// message is an event that CloudWatch Logs holds as text, as EKS writes it.
func message(v *fastjson.Value) []byte {
	for _, key := range [...]string{"message", "@message"} {
		if m := v.GetStringBytes(key); len(m) > 0 && m[0] == '{' {
			return m
		}
	}
	return nil
}

func (audit) Split(v *fastjson.Value) []*fastjson.Value {
	if v.Type() == fastjson.TypeArray {
		return v.GetArray()
	}
	if v.Get("auditID") != nil {
		return []*fastjson.Value{v}
	}
	for _, list := range [...]string{"items", "records", "logEvents"} {
		if items := v.Get(list); items != nil && items.Type() == fastjson.TypeArray {
			return items.GetArray()
		}
	}
	return []*fastjson.Value{v}
}

func (a audit) Decode(v *fastjson.Value, in *connector.Interner, e *connector.Event) error {
	switch {
	case v.Type() != fastjson.TypeObject:
		return remit.Errorf(remit.Invalid, "kubernetes audit", "an event is a JSON object, not %s", v.Type())
	case v.Get("auditID") != nil && v.Get("stage") != nil: // most are plain, and need no look for a wrapping
	case isGKE(v):
		e.Views = append(e.Views, connector.View{Product: "gcp", Service: "gcp.audit", JSON: v})
		v = plainOfGKE(v)
	case v.Get("properties", "log") != nil:
		log := v.Get("properties", "log")
		if text, err := log.StringBytes(); err == nil {
			inner, err := parseInner(text)
			if err != nil {
				return remit.Errorf(remit.Invalid, "kubernetes audit", "properties.log is not JSON: %w", err)
			}
			log = inner
		}
		v = log
	default:
		if m := message(v); m != nil && v.Get("verb") == nil {
			inner, err := parseInner(m)
			if err != nil {
				return remit.Errorf(remit.Invalid, "kubernetes audit", "message is not JSON: %w", err)
			}
			v = inner
		}
	}
	e.Views = append(e.Views, connector.View{Product: "kubernetes", Service: "audit", JSON: v})
	return a.plain(v, in, e)
}

// parseInner parses an event that another carries as text. It gets memory of
// its own, for views refer to it.
func parseInner(text []byte) (*fastjson.Value, error) {
	v, err := fastjson.ParseBytes(text)
	if err == nil && v.Type() != fastjson.TypeObject {
		return nil, remit.Errorf(remit.Invalid, "", "it is %s, not an object", v.Type())
	}
	return v, err
}

// The keys of user.extra and of annotations that the API server itself writes.
const (
	extraCredential = "authentication.kubernetes.io/credential-id"
	extraPod        = "authentication.kubernetes.io/pod-name"
	extraNode       = "authentication.kubernetes.io/node-name"

	noteIssued   = "authentication.kubernetes.io/issued-credential-id"
	noteLegacy   = "authentication.k8s.io/legacy-token"
	noteDecision = "authorization.k8s.io/decision"
	noteReason   = "authorization.k8s.io/reason"
	noteRefusal  = "validation.policy.admission.k8s.io/validation_failure"
)

// LegacyTokenPrefix begins the credential of a request made with a long-lived
// token from a Secret. Such a token has no ID of its own in the log: what
// follows is the account that it is of.
const LegacyTokenPrefix = "legacy-token="

// plain reads an event in the API server's own form, in one pass over its
// fields.
func (audit) plain(v *fastjson.Value, in *connector.Interner, e *connector.Event) error {
	object, err := v.Object()
	if err != nil {
		return remit.Errorf(remit.Invalid, "kubernetes audit", "an event is a JSON object: %w", err)
	}
	var (
		stage, received, staged, reason []byte
		requestURI, forbidden           []byte
		address, agent                  []byte
		user, ref, status, notes        *fastjson.Value
		issued, legacy, refusal         *fastjson.Value
		request, response               *fastjson.Value
	)
	a := &e.Activity
	object.Visit(func(key []byte, v *fastjson.Value) {
		switch string(key) {
		case "auditID":
			a.ID = string(v.GetStringBytes())
		case "stage":
			stage = v.GetStringBytes()
		case "verb":
			a.Action = in.String(v.GetStringBytes())
		case "user":
			user = v
		case "impersonatedUser":
			if name := v.GetStringBytes("username"); len(name) > 0 {
				a.As = refOfUser(in.String(name))
			}
		case "sourceIPs":
			// All but the last are what the client claims; the last is the
			// connection's own.
			if ips := v.GetArray(); len(ips) > 0 {
				address = ips[len(ips)-1].GetStringBytes()
			}
		case "userAgent":
			agent = v.GetStringBytes()
		case "objectRef":
			ref = v
		case "requestURI":
			requestURI = v.GetStringBytes()
		case "responseStatus":
			status = v
		case "requestReceivedTimestamp":
			received = v.GetStringBytes()
		case "stageTimestamp":
			staged = v.GetStringBytes()
		case "annotations":
			notes = v
		case "requestObject":
			request = v
		case "responseObject":
			response = v
		}
	})
	if string(stage) == "RequestReceived" {
		return connector.ErrIgnored
	}
	if len(received) == 0 {
		received = staged
	}
	a.Time = connector.ParseTime(received)
	by := readCaller(user, address, agent, in)
	by.tell(a)
	a.Outcome = remit.Allowed
	if status != nil {
		a.Code = status.GetInt("code")
		if a.Code >= 400 {
			a.Outcome = remit.Failed
			a.Reason = in.Get(status, "reason")
		}
	}
	if notes != nil {
		if o, err := notes.Object(); err == nil {
			o.Visit(func(key []byte, v *fastjson.Value) {
				switch string(key) {
				case noteDecision:
					forbidden = v.GetStringBytes()
				case noteReason:
					reason = v.GetStringBytes()
				case noteIssued:
					issued = v
				case noteLegacy:
					legacy = v
				case noteRefusal:
					refusal = v
				}
			})
		}
	}
	if a.Code == 401 || a.Code == 403 || string(forbidden) == "forbid" {
		a.Outcome = remit.Denied
		if len(reason) > 0 {
			a.Reason = in.String(reason)
		}
	} else if len(reason) > 0 {
		if string(reason) != by.reason {
			by.reason, by.binding = string(reason), bindingOfReason(reason, in)
		}
		a.Binding = by.binding
	}
	if refusal != nil {
		readRefusal(refusal, in, a)
	}
	if legacy != nil {
		account := a.Actor.Name
		if a.Actor.Namespace != "" {
			account = a.Actor.Namespace + "/" + account
		}
		a.Credential, a.CredentialType = in.String([]byte(LegacyTokenPrefix+account)), remit.StaticToken
	}
	readObject(ref, requestURI, in, a)
	switch a.Action {
	case "get", "list", "watch", "head", "options":
	default:
		a.Write = true
	}
	if a.Action == "create" && a.Resource.Kind == "serviceaccounts/token" {
		readMint(issued, request, response, in, a)
	}
	if a.Action == "" && a.Principal == "" && a.Resource.Kind == "" {
		return remit.Errorf(remit.Invalid, "kubernetes audit", "the event has no verb, user or object")
	}
	return nil
}

// caller is who made a request, from where: in a log of many machines the same
// few hundred bytes in event after event.
type caller struct {
	principal      string
	actor          remit.Ref
	typ            remit.IdentityType
	credential     string
	credentialType remit.CredentialType
	bound          remit.Ref
	node           string
	address, agent string

	// The last reason for which he was allowed something, and its binding.
	reason  string
	binding remit.Ref
}

func (c *caller) tell(a *remit.Activity) {
	a.Principal, a.Actor, a.Type = c.principal, c.actor, c.typ
	a.Credential, a.CredentialType = c.credential, c.credentialType
	a.Bound, a.Node = c.bound, c.node
	a.Address, a.UserAgent = c.address, c.agent
}

// readCaller reads the user of an event; user may be nil.
func readCaller(user *fastjson.Value, address, agent []byte, in *connector.Interner) *caller {
	name := user.GetStringBytes("username")
	var credential, pod, node []byte
	if extra := user.GetObject("extra"); extra != nil {
		extra.Visit(func(key []byte, v *fastjson.Value) {
			switch string(key) {
			case extraCredential:
				credential = v.GetStringBytes("0")
			case extraPod:
				pod = v.GetStringBytes("0")
			case extraNode:
				node = v.GetStringBytes("0")
			}
		})
	}
	var scratch [512]byte
	key := append(scratch[:0], "kubernetes"...)
	for _, part := range [...][]byte{name, credential, pod, node, address, agent} {
		key = append(binary.AppendUvarint(key, uint64(len(part))), part...)
	}
	return in.Remember(key, int(unsafe.Sizeof(caller{}))+128, func() any {
		c := &caller{
			principal: in.String(name), credential: in.String(credential), node: in.String(node),
			address: in.String(address), agent: in.String(agent),
		}
		if c.principal != "" {
			c.actor = refOfUser(c.principal)
		}
		switch {
		case c.actor.Kind == "ServiceAccount":
			c.typ = remit.ServiceAccount
		case c.actor.Kind == "Node":
			c.typ = remit.Workload
		case strings.HasPrefix(c.principal, "system:"):
			c.typ = remit.Workload // the control plane's own parts, and anonymous
		case c.principal != "":
			c.typ = remit.Human
		}
		switch {
		case strings.HasPrefix(c.credential, "X509"):
			c.credentialType = remit.Certificate
		case c.credential != "":
			c.credentialType = remit.ShortLivedToken
		}
		if pod != nil {
			c.bound = remit.Ref{Kind: "Pod", Namespace: c.actor.Namespace, Name: in.String(pod)}
		}
		return c
	}).(*caller)
}

// readObject names the resource in the notation of permissions: "secrets",
// "pods/exec", "deployments/scale.apps"; what is no resource is a URL.
func readObject(ref *fastjson.Value, uri []byte, in *connector.Interner, a *remit.Activity) {
	resource := ref.GetStringBytes("resource")
	if len(resource) == 0 {
		if path, _, _ := bytes.Cut(uri, []byte("?")); len(path) > 0 {
			a.Resource = remit.Ref{Kind: "URL", Name: in.String(path)}
		}
		return
	}
	var scratch [128]byte
	kind := append(scratch[:0], resource...)
	if sub := ref.GetStringBytes("subresource"); len(sub) > 0 {
		kind = append(append(kind, '/'), sub...)
	}
	if group := ref.GetStringBytes("apiGroup"); len(group) > 0 {
		kind = append(append(kind, '.'), group...)
	}
	a.Resource = remit.Ref{Kind: in.String(kind), Namespace: in.Get(ref, "namespace"), Name: in.Get(ref, "name")}
}

// readMint reads what a TokenRequest asked for and got. At level Metadata only
// the ID of the new token is known.
// Source: https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/
func readMint(issued, request, response *fastjson.Value, in *connector.Interner, a *remit.Activity) {
	m := &a.Minted
	m.For = remit.Ref{Kind: "ServiceAccount", Namespace: a.Resource.Namespace, Name: a.Resource.Name}
	if issued != nil {
		m.Credential = in.String(issued.GetStringBytes())
	}
	if a.Outcome == remit.Allowed {
		m.Type = remit.ShortLivedToken
	}
	for _, o := range [...]*fastjson.Value{request, response} {
		spec := o.Get("spec")
		if spec == nil {
			continue
		}
		if seconds := spec.GetInt64("expirationSeconds"); seconds > 0 && seconds < 1<<32 {
			m.Lifetime = time.Duration(seconds) * time.Second
		}
		if b := spec.Get("boundObjectRef"); b != nil && b.Type() == fastjson.TypeObject {
			m.Bound = remit.Ref{Kind: in.Get(b, "kind"), Namespace: m.For.Namespace, Name: in.Get(b, "name")}
		}
		if list := spec.GetArray("audiences"); len(list) > 0 && len(list) <= 16 {
			m.Audiences = m.Audiences[:0:0]
			for _, one := range list {
				m.Audiences = append(m.Audiences, in.String(one.GetStringBytes()))
			}
		}
	}
	if at := response.GetStringBytes("status", "expirationTimestamp"); len(at) > 0 {
		m.Expires = connector.ParseTime(at)
	}
}

// bindingOfReason reads the binding out of what RBAC says of a request that it
// allowed:
//
//	RBAC: allowed by RoleBinding "name/namespace" of Role "r" to ServiceAccount "a/ns"
//
// Source: k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac and
// pkg/registry/rbac/validation, which quote names as Go does.
func bindingOfReason(reason []byte, in *connector.Interner) remit.Ref {
	rest, ok := bytes.CutPrefix(reason, []byte("RBAC: allowed by "))
	if !ok {
		return remit.Ref{}
	}
	kind, rest, ok := bytes.Cut(rest, []byte(" "))
	if !ok || len(rest) == 0 {
		return remit.Ref{}
	}
	name := rest
	if rest[0] == '"' {
		end := 1
		for end < len(rest) && rest[end] != '"' {
			if rest[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(rest) {
			return remit.Ref{}
		}
		name = rest[1:end]
		if bytes.IndexByte(name, '\\') >= 0 {
			plain, err := strconv.Unquote(string(rest[:end+1]))
			if err != nil {
				return remit.Ref{}
			}
			name = []byte(plain)
		}
	} else if i := bytes.IndexByte(rest, ' '); i >= 0 {
		name = rest[:i]
	}
	ref := remit.Ref{Kind: in.String(kind)}
	if i := bytes.LastIndexByte(name, '/'); i >= 0 && ref.Kind == "RoleBinding" {
		ref.Namespace, name = in.String(name[i+1:]), name[:i]
	}
	ref.Name = in.String(name)
	return ref
}
