// Package openbao reads the log of the audit devices of OpenBao and of
// HashiCorp Vault, whose form is the same.
package openbao

import (
	"bytes"
	"time"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// Audit reads the entries that an audit device writes, one before each request
// and one after it. The one after it tells all that the one before does and the
// outcome: of the ones before, only those with an error are read.
//
// A token is known by its accessor, and where it has none, as a batch token, by
// the HMAC that the device writes in its place. The device's salt makes both,
// so they are the same in every entry of one device, and say nothing outside
// of it. An entry does not name its cluster; Native is "" but for entries of a
// replicated cluster.
// Source: https://openbao.org/docs/audit/ and https://developer.hashicorp.com/vault/docs/audit/schema
var Audit connector.Decoder = audit{}

// FieldAliases name, for fields as rules write them, where else they are in an
// event: an alias counts only when the event has no such field of its own.
var FieldAliases = map[string]string{
	"operation":      "request.operation",
	"path":           "request.path",
	"remote_address": "request.remote_address",
	"namespace":      "request.namespace.path",
	"display_name":   "auth.display_name",
	"entity_id":      "auth.entity_id",
	"policies":       "auth.policies",
	"token_type":     "auth.token_type",
}

type audit struct{}

const op = "openbao audit"

func (audit) Source() connector.Source {
	return connector.Source{Name: "openbao", Title: "OpenBao and Vault audit log", Connector: "openbao", Product: "openbao", Service: "audit"}
}

func (d audit) Recognizes(v *fastjson.Value) bool {
	if v.Type() == fastjson.TypeArray {
		items := v.GetArray()
		return len(items) > 0 && items[0].Type() == fastjson.TypeObject && d.Recognizes(items[0])
	}
	switch string(v.GetStringBytes("type")) {
	case "request", "response":
		return v.Get("request", "operation") != nil && v.Get("request", "path") != nil
	}
	return false
}

func (audit) Split(v *fastjson.Value) []*fastjson.Value {
	if v.Type() == fastjson.TypeArray {
		return v.GetArray()
	}
	return []*fastjson.Value{v}
}

func (d audit) Decode(v *fastjson.Value, in *connector.Interner, e *connector.Event) error {
	if v.Type() != fastjson.TypeObject {
		return remit.Errorf(remit.Invalid, op, "an entry is a JSON object, not %s", v.Type())
	}
	request := v.Get("request")
	if request == nil || len(request.GetStringBytes("operation")) == 0 {
		return remit.Errorf(remit.Invalid, op, "the entry has no request with an operation")
	}
	failure := v.GetStringBytes("error")
	if string(v.GetStringBytes("type")) == "request" && len(failure) == 0 {
		return connector.ErrIgnored
	}
	e.Views = append(e.Views,
		connector.View{Product: "openbao", Service: "audit", JSON: v},
		connector.View{Product: "vault", Service: "audit", JSON: v})

	a := &e.Activity
	a.ID = string(request.GetStringBytes("id"))
	if a.ID == "" {
		a.ID = connector.HashID(v, d.Strip)
	}
	a.Time = connector.ParseTime(v.GetStringBytes("time"))
	a.Native = in.Get(request, "replication_cluster")
	a.Action = in.Get(request, "operation")
	a.Address = in.Get(request, "remote_address")
	a.UserAgent = in.String(header(request, "user-agent", "User-Agent"))

	path := request.GetStringBytes("path")
	namespace := in.String(bytes.TrimSuffix(request.GetStringBytes("namespace", "path"), []byte("/")))
	a.Resource = remit.Ref{Kind: mountType(request, path, in), Namespace: namespace, Name: in.String(path)}
	login := isLogin(path)
	a.Write = !login && writes(a.Action)

	auth, response := v.Get("auth"), v.Get("response")
	readActor(auth, path, namespace, login, in, a)
	readCredential(auth, request, in, a)
	readOutcome(v, failure, login, in, a)
	if a.Outcome == remit.Allowed {
		readMinted(request, response, path, namespace, in, a)
	}
	if login && a.Minted.Credential == a.Credential {
		// The auth of a login is the new token; it was done with what the
		// method takes.
		a.Credential, a.CredentialType = loginCredential(request, in)
	}
	return nil
}

// header is the first value of a header of the request, of those that the
// operator has asked to be audited.
func header(request *fastjson.Value, names ...string) []byte {
	headers := request.Get("headers")
	for _, name := range names {
		if values := headers.GetArray(name); len(values) > 0 {
			return values[0].GetStringBytes()
		}
	}
	return nil
}

// mountType is the type of the mount that was asked, or what the path says
// where the entry, of an older version, does not.
func mountType(request *fastjson.Value, path []byte, in *connector.Interner) string {
	if kind := in.Get(request, "mount_type"); kind != "" {
		return kind
	}
	first, _, _ := bytes.Cut(path, []byte("/"))
	switch string(first) {
	case "sys":
		return "system"
	case "auth":
		if bytes.HasPrefix(path, []byte("auth/token/")) {
			return "token"
		}
	}
	return in.String(first)
}

// isLogin tells the paths at which auth methods give tokens.
// Source: https://openbao.org/api-docs/auth/
func isLogin(path []byte) bool {
	if !bytes.HasPrefix(path, []byte("auth/")) {
		return false
	}
	rest := path[len("auth/"):]
	if i := bytes.Index(rest, []byte("/login")); i > 0 {
		after := rest[i+len("/login"):]
		return len(after) == 0 || after[0] == '/'
	}
	return bytes.HasSuffix(rest, []byte("/oidc/callback"))
}

func writes(operation string) bool {
	switch operation {
	case "create", "update", "patch", "delete", "revoke", "renew", "rollback":
		return true
	}
	return false
}

// readActor names the entity behind the token, and for a token without one
// what the auth method calls it. Who tries to log in and fails is named by the
// path, where that has a name: as the alias of its mount.
func readActor(auth *fastjson.Value, path []byte, namespace string, login bool, in *connector.Interner, a *remit.Activity) {
	a.Principal = in.Get(auth, "display_name")
	if id := auth.GetStringBytes("entity_id"); len(id) > 0 {
		a.Actor = remit.Ref{Kind: "Entity", Name: in.String(id)}
		if a.Principal == "" {
			a.Principal = a.Actor.Name
		}
	} else if a.Principal != "" {
		a.Actor = remit.Ref{Kind: "Token", Namespace: namespace, Name: a.Principal}
	} else if i := bytes.Index(path, []byte("/login/")); login && i > 0 {
		if name := path[i+len("/login/"):]; len(name) > 0 {
			a.Principal = in.String(name)
			a.Actor = remit.Ref{Kind: "Alias", Namespace: in.String(path[:i+1]), Name: a.Principal}
		}
	}
	metadata := auth.Get("metadata")
	switch {
	case metadata.GetStringBytes("service_account_name") != nil:
		a.Type = remit.Workload
	case metadata.GetStringBytes("role_name") != nil:
		a.Type = remit.ServiceAccount
	case metadata.GetStringBytes("username") != nil:
		a.Type = remit.Human
	}
}

// What begins the IDs of credentials.
const (
	accessor         = "accessor="
	hmac             = "hmac="
	lease            = "lease="
	secretIDAccessor = "secret_id_accessor="
)

var hmacPrefix = []byte("hmac-")

// tokenOf names a token by its accessor, or by its HMAC; never by itself, as a
// device with log_raw writes it.
func tokenOf(holder *fastjson.Value, accessorKey, tokenKey string, in *connector.Interner) string {
	if b := holder.GetStringBytes(accessorKey); len(b) > 0 {
		return join(in, accessor, b)
	}
	if b := holder.GetStringBytes(tokenKey); bytes.HasPrefix(b, hmacPrefix) {
		return join(in, hmac, b)
	}
	return ""
}

func join(in *connector.Interner, prefix string, b []byte) string {
	var scratch [192]byte
	return in.String(append(append(scratch[:0], prefix...), b...))
}

func readCredential(auth, request *fastjson.Value, in *connector.Interner, a *remit.Activity) {
	a.Credential = tokenOf(auth, "accessor", "client_token", in)
	if a.Credential == "" {
		a.Credential = tokenOf(request, "client_token_accessor", "client_token", in)
	}
	if a.Credential == "" {
		return
	}
	a.CredentialType = tokenType(auth)
}

// tokenType tells tokens that end from root tokens, which do not.
func tokenType(auth *fastjson.Value) remit.CredentialType {
	if auth.GetInt64("token_ttl") > 0 || string(auth.GetStringBytes("token_type")) == "batch" {
		return remit.ShortLivedToken
	}
	for _, policy := range auth.GetArray("policies") {
		if string(policy.GetStringBytes()) == "root" {
			return remit.StaticToken
		}
	}
	if auth.Get("token_ttl") == nil && auth.GetStringBytes("token_issue_time") == nil {
		return remit.ShortLivedToken // an older version that does not tell
	}
	return remit.StaticToken
}

// loginCredential is what a login was done with, where the HMAC of it is a
// secret's that was made at random: a secret ID (which the entry of its making
// has, too) or a JWT. The HMAC of a password could be guessed.
func loginCredential(request *fastjson.Value, in *connector.Interner) (string, remit.CredentialType) {
	if name := tokenOf(request, "client_token_accessor", "client_token", in); name != "" {
		return name, remit.ShortLivedToken
	}
	data := request.Get("data")
	if b := data.GetStringBytes("secret_id"); bytes.HasPrefix(b, hmacPrefix) {
		return join(in, hmac, b), remit.ClientSecret
	}
	if b := data.GetStringBytes("jwt"); bytes.HasPrefix(b, hmacPrefix) {
		return join(in, hmac, b), remit.ShortLivedToken
	}
	return "", ""
}

// readMinted tells what the response gave: a token, a token in a wrapping, a
// wrapping token, a secret ID, or a leased secret.
func readMinted(request, response *fastjson.Value, path []byte, namespace string, in *connector.Interner, a *remit.Activity) {
	m := &a.Minted
	granted := response.Get("auth")
	if name := tokenOf(granted, "accessor", "client_token", in); name != "" {
		if bytes.HasPrefix(path, []byte("auth/token/renew")) {
			return // the same token, for longer
		}
		m.Credential, m.Type = name, tokenType(granted)
		m.For = remit.Ref{Kind: "Token", Namespace: namespace, Name: in.Get(granted, "display_name")}
		if id := granted.GetStringBytes("entity_id"); len(id) > 0 {
			m.For = remit.Ref{Kind: "Entity", Name: in.String(id)}
		}
		m.Lifetime = seconds(granted.GetInt64("token_ttl"))
		if issued := connector.ParseTime(granted.GetStringBytes("token_issue_time")); m.Lifetime > 0 {
			if issued.IsZero() {
				issued = a.Time
			}
			if !issued.IsZero() {
				m.Expires = issued.Add(m.Lifetime)
			}
		}
		return
	}
	if wrap := response.Get("wrap_info"); wrap != nil {
		key := "wrapped_accessor"
		if len(wrap.GetStringBytes(key)) == 0 {
			key = "accessor"
		}
		if b := wrap.GetStringBytes(key); len(b) > 0 {
			m.Credential, m.Type, m.For = join(in, accessor, b), remit.ShortLivedToken, a.Actor
			if key == "accessor" {
				m.Lifetime = seconds(wrap.GetInt64("ttl"))
			}
		}
		return
	}
	data := response.Get("data")
	switch b := data.GetStringBytes("secret_id"); {
	case bytes.HasPrefix(b, hmacPrefix):
		m.Credential = join(in, hmac, b)
	case len(data.GetStringBytes("secret_id_accessor")) > 0:
		m.Credential = join(in, secretIDAccessor, data.GetStringBytes("secret_id_accessor"))
	}
	if m.Credential != "" {
		m.Type, m.For = remit.ClientSecret, remit.Ref{Kind: a.Resource.Kind, Namespace: namespace, Name: in.String(roleOf(path))}
		m.Lifetime = seconds(data.GetInt64("secret_id_ttl"))
		return
	}
	if id := response.GetStringBytes("secret", "lease_id"); len(id) > 0 && !bytes.HasPrefix(path, []byte("sys/")) {
		m.Credential, m.Type, m.For = join(in, lease, id), remit.Password, a.Actor
		switch a.Resource.Kind {
		case "pki":
			m.Type = remit.Certificate
		case "ssh":
			m.Type = remit.SSHKey
		case "aws", "gcp", "azure", "kubernetes":
			m.Type = remit.ShortLivedToken
		}
	}
}

// roleOf is the path of the role that a secret ID is of: it authenticates as
// auth/approle/role/ci, of which path is auth/approle/role/ci/secret-id.
func roleOf(path []byte) []byte {
	if i := bytes.LastIndexByte(path, '/'); i > 0 {
		return path[:i]
	}
	return path
}

// seconds is a duration that came as a number of seconds; what would not fit is 0.
func seconds(n int64) time.Duration {
	if n <= 0 || n > int64(100*365*24*time.Hour/time.Second) {
		return 0
	}
	return time.Duration(n) * time.Second
}

func readOutcome(v *fastjson.Value, failure []byte, login bool, in *connector.Interner, a *remit.Activity) {
	a.Outcome = remit.Allowed
	if allowed := v.Get("auth", "policy_results", "allowed"); allowed != nil && allowed.Type() == fastjson.TypeFalse {
		a.Outcome = remit.Denied
	}
	if len(failure) > 0 {
		if a.Outcome == remit.Allowed {
			a.Outcome = remit.Failed
		}
		if login || bytes.Contains(failure, []byte("permission denied")) {
			a.Outcome = remit.Denied
		}
		a.Reason = in.String(plain(failure))
		return
	}
	// A handler's own error lies in the data, alone. A secret that somebody
	// named error looks like that, too, and is read without one.
	data := v.GetObject("response", "data")
	if data == nil || data.Len() != 1 || data.Get("error") == nil || !a.Write && !login {
		return
	}
	a.Outcome = remit.Failed
	if login {
		a.Outcome = remit.Denied
	}
	if text := data.Get("error").GetStringBytes(); !bytes.HasPrefix(text, hmacPrefix) {
		a.Reason = in.String(text)
	}
}

// plain takes the list's decoration off an error of one line: "1 error
// occurred:\n\t* permission denied\n\n".
func plain(failure []byte) []byte {
	if _, rest, ok := bytes.Cut(failure, []byte("error occurred:\n\t* ")); ok {
		return bytes.TrimSpace(rest)
	}
	return bytes.TrimSpace(failure)
}
