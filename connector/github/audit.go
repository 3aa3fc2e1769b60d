// Package github reads GitHub's audit log, as it is streamed, exported and
// given by the API, and the deliveries of webhooks.
package github

import (
	"bytes"
	"time"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// Audit reads the audit log of an organization or enterprise and webhook
// deliveries. A delivery has no ID of its own in its body, and neither have audit
// events that some log stores keep: they are known by a hash.
// Source: https://docs.github.com/en/enterprise-cloud@latest/admin/monitoring-activity-in-your-enterprise
var Audit connector.Decoder = audit{}

// FieldAliases name, for fields as rules write them, where else they are in an
// event: an alias counts only when the event has no such field of its own.
var FieldAliases = map[string]string{
	"at_sign_timestamp": "@timestamp",
	"@timestamp":        "at_sign_timestamp",
	"repository":        "repo",
	"repo":              "repository.full_name",
	"org":               "organization.login",
	"business":          "enterprise.slug",
	"actor":             "sender.login",
	"actor_id":          "sender.id",
	"actor_ip":          "data.actor_ip",
	"hook_id":           "data.hook_id",
	"team":              "data.team",
	"user":              "data.user",
	"events":            "data.events",
}

type audit struct{}

const op = "github audit"

func (audit) Source() connector.Source {
	return connector.Source{Name: "github", Title: "GitHub audit log", Connector: "github", Product: "github", Service: "audit"}
}

func (a audit) Recognizes(v *fastjson.Value) bool {
	if v.Type() == fastjson.TypeArray {
		items := v.GetArray()
		return len(items) > 0 && items[0].Type() == fastjson.TypeObject && a.Recognizes(items[0])
	}
	if isWebhook(v) {
		return true
	}
	if bytes.IndexByte(v.GetStringBytes("action"), '.') < 0 {
		return false
	}
	for _, key := range [...]string{"_document_id", "actor", "org", "business", "repo"} {
		if item := v.Get(key); item != nil && item.Type() == fastjson.TypeString {
			return true
		}
	}
	return false
}

// isWebhook tells a delivery by the objects that the audit log writes as names.
func isWebhook(v *fastjson.Value) bool {
	return v.Get("repository", "full_name") != nil || v.Get("organization", "login") != nil ||
		v.Get("sender", "login") != nil || v.Get("enterprise", "slug") != nil
}

func (audit) Split(v *fastjson.Value) []*fastjson.Value {
	if v.Type() == fastjson.TypeArray {
		return v.GetArray()
	}
	return []*fastjson.Value{v}
}

func (d audit) Decode(v *fastjson.Value, in *connector.Interner, e *connector.Event) error {
	object, err := v.Object()
	if err != nil {
		return remit.Errorf(remit.Invalid, op, "an event is a JSON object, not %s", v.Type())
	}
	if isWebhook(v) {
		err := decodeWebhook(v, object, in, e)
		if err == nil {
			e.ID = connector.HashID(v, d.Strip)
		}
		return err
	}
	f := fields{in: in}
	object.Visit(f.read)
	if data := v.GetObject("data"); data != nil {
		data.Visit(f.readNested)
	}
	if len(f.action) == 0 {
		return remit.Errorf(remit.Invalid, op, "the event has no action")
	}
	e.Views = append(e.Views, connector.View{Product: "github", Service: "audit", JSON: v})
	f.fill(&e.Activity)
	if e.ID == "" {
		e.ID = connector.HashID(v, d.Strip)
	}
	return nil
}

// fields are what Decode looks at, in the memory of the event.
type fields struct {
	in *connector.Interner

	id, action, operation        []byte
	at, created, stored          *fastjson.Value
	actor, user, nameID          []byte
	org, business, repo, team    []byte
	bot, agent                   bool
	access, hashedToken, tokenID []byte
	application                  []byte
	address, userAgent           []byte
	method                       []byte
	status                       int
	hookID, name, key, ruleset   []byte
	conclusion, reason           []byte
	programmaticID, fingerprint  []byte
	installationID, expires      []byte
	oauthApplicationID           []byte
}

// read takes the fields of the event itself; those of a nested data object,
// which older exports and the log stores have, fill what is missing.
func (f *fields) read(key []byte, v *fastjson.Value) { f.take(key, v, false) }

func (f *fields) readNested(key []byte, v *fastjson.Value) { f.take(key, v, true) }

func (f *fields) take(key []byte, v *fastjson.Value, nested bool) {
	var to *[]byte
	switch string(key) {
	case "_document_id":
		to = &f.id
	case "action":
		if len(f.action) == 0 {
			f.action = v.GetStringBytes()
		}
	case "operation_type":
		to = &f.operation
	case "@timestamp", "at_sign_timestamp":
		f.at = v
	case "created_at":
		if !nested || f.created == nil {
			f.created = v
		}
	case "p_event_time":
		f.stored = v
	case "actor":
		to = &f.actor
	case "actor_is_bot":
		f.bot = f.bot || v.GetBool()
	case "actor_is_agent":
		f.agent = f.agent || v.GetBool()
	case "external_identity_nameid":
		to = &f.nameID
	case "user":
		to = &f.user
	case "org":
		to = &f.org
	case "business":
		to = &f.business
	case "repo", "repository":
		to = &f.repo
	case "team":
		to = &f.team
	case "programmatic_access_type":
		to = &f.access
	case "hashed_token":
		to = &f.hashedToken
	case "token_id":
		to = &f.tokenID
	case "oauth_application_name", "oauth_application":
		to = &f.application
	case "oauth_application_id":
		to = &f.oauthApplicationID
	case "actor_ip":
		to = &f.address
	case "user_agent":
		to = &f.userAgent
	case "request_method":
		to = &f.method
	case "status_code":
		f.status = number(v)
	case "hook_id":
		to = &f.hookID
	case "name":
		to = &f.name
	case "key":
		to = &f.key
	case "ruleset_name":
		to = &f.ruleset
	case "conclusion":
		to = &f.conclusion
	case "reason", "failure_reason":
		to = &f.reason
	case "user_programmatic_access_id":
		to = &f.programmaticID
	case "fingerprint", "deploy_key_fingerprint":
		to = &f.fingerprint
	case "installation_id", "integration_installation_id":
		to = &f.installationID
	case "expires_at", "token_expires_at":
		to = &f.expires
	}
	if to != nil && len(*to) == 0 {
		*to = text(v)
	}
}

// text is a string, or a number as it was written.
func text(v *fastjson.Value) []byte {
	switch v.Type() {
	case fastjson.TypeString:
		return v.GetStringBytes()
	case fastjson.TypeNumber:
		return v.MarshalTo(nil)
	}
	return nil
}

func number(v *fastjson.Value) int {
	if v.Type() == fastjson.TypeNumber {
		return v.GetInt()
	}
	n := 0
	for _, c := range v.GetStringBytes() {
		if c < '0' || c > '9' || n > 999 {
			return 0
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// fill turns the fields into an activity.
func (f *fields) fill(a *remit.Activity) {
	in := f.in
	a.ID = string(f.id)
	a.Time = timeOf(f.at)
	if a.Time.IsZero() {
		a.Time = timeOf(f.created)
	}
	if a.Time.IsZero() {
		a.Time = timeOf(f.stored)
	}
	if len(f.org) == 0 {
		if owner, _, ok := bytes.Cut(f.repo, []byte("/")); ok {
			f.org = owner
		}
	}
	a.Action = in.String(f.action)
	a.Native = in.String(f.org)
	if a.Native == "" {
		a.Native = in.String(f.business)
	}
	a.Address, a.UserAgent = in.String(f.address), in.String(f.userAgent)
	kind := accessOf(f.access)
	f.readActor(kind, a)
	f.readCredential(kind, a)
	f.readMinted(kind, a)
	a.Resource = f.resource()
	a.Write = f.writes()
	f.readOutcome(a)
}

// timeOf reads the milliseconds since 1970 that GitHub writes, and the texts
// that log stores make of them, of which some have lost the point before the
// fraction of a second: "2024-12-17 00:00:00000000".
func timeOf(v *fastjson.Value) time.Time {
	if v == nil {
		return time.Time{}
	}
	if v.Type() == fastjson.TypeNumber {
		ms := v.GetFloat64()
		if !(ms > 0 && ms < 1e14) {
			return time.Time{}
		}
		return time.UnixMilli(int64(ms)).UTC()
	}
	b := v.GetStringBytes()
	t := connector.ParseTime(b)
	if seconds := len("2006-01-02 15:04:05"); t.IsZero() && len(b) > seconds && '0' <= b[seconds] && b[seconds] <= '9' {
		t = connector.ParseTime(b[:seconds])
	}
	return t
}

// The sorts of programmatic access, from programmatic_access_type.
type access int

const (
	browser access = iota // or unknown
	personalToken
	oauthToken
	appUserToken
	appToken
	publicKey
)

// accessOf knows GitHub's own words and the short ones that log stores use.
func accessOf(b []byte) access {
	switch string(b) {
	case "":
		return browser
	case "Personal access token (classic)", "Fine-grained personal access token", "Personal access token", "personal_access_token":
		return personalToken
	case "OAuth access token", "oauth_token":
		return oauthToken
	case "GitHub App user-to-server token":
		return appUserToken
	case "GitHub App server-to-server token", "github_app":
		return appToken
	case "Public Key (User/Deploy)", "Deploy key", "SSH key", "deploy_key", "ssh_key":
		return publicKey
	}
	var lower [64]byte
	low := bytes.ToLower(b[:min(len(b), len(lower))])
	switch {
	case bytes.Contains(low, []byte("user-to-server")):
		return appUserToken
	case bytes.Contains(low, []byte("server-to-server")):
		return appToken
	case bytes.Contains(low, []byte("personal access token")):
		return personalToken
	case bytes.Contains(low, []byte("oauth")):
		return oauthToken
	case bytes.Contains(low, []byte("key")):
		return publicKey
	}
	return browser
}

var botSuffix = []byte("[bot]")

// deployKey is what GitHub writes as the actor of a push with a deploy key.
const deployKey = "deploy_key"

func (f *fields) readActor(kind access, a *remit.Activity) {
	if len(f.actor) == 0 {
		return
	}
	a.Principal = f.in.String(f.actor)
	a.Actor = remit.Ref{Kind: "User", Name: a.Principal}
	a.Type = remit.Human
	switch {
	case a.Principal == deployKey:
		// The key is of a repository and acts for nobody.
		a.Actor = remit.Ref{Kind: "DeployKey", Namespace: f.in.String(f.repo), Name: a.Principal}
		a.Type = remit.ServiceAccount
		return
	case f.bot, kind == appToken, bytes.HasSuffix(f.actor, botSuffix):
		a.Actor.Kind, a.Type = "App", remit.Application
	}
	if f.agent {
		a.Type = remit.Agent
	}
	// The app through which a user acts, and the person whom the user is in
	// the identity provider.
	if kind == oauthToken || kind == appUserToken {
		switch {
		case len(f.application) > 0:
			a.Chain = append(a.Chain, remit.Ref{Kind: "OAuthApp", Name: f.in.String(f.application)})
		case len(f.oauthApplicationID) > 0:
			a.Chain = append(a.Chain, remit.Ref{Kind: "OAuthApp", Name: f.in.String(f.oauthApplicationID)})
		}
	}
	if len(f.nameID) > 0 {
		a.Chain = append(a.Chain, remit.Ref{Kind: "ExternalIdentity", Name: f.in.String(f.nameID)})
	}
}

func (f *fields) readCredential(kind access, a *remit.Activity) {
	a.Credential = f.token()
	a.CredentialType = credentialType(kind)
}

// token is the token that the event names: by its SHA-256, which is no secret,
// or by its number.
func (f *fields) token() string {
	switch {
	case len(f.hashedToken) > 0:
		return join(f.in, "hashed_token=", f.hashedToken)
	case len(f.tokenID) > 0 && string(f.tokenID) != "0":
		return join(f.in, "token_id=", f.tokenID)
	}
	return ""
}

func credentialType(kind access) remit.CredentialType {
	switch kind {
	case personalToken, oauthToken:
		return remit.StaticToken
	case appUserToken, appToken:
		return remit.ShortLivedToken
	case publicKey:
		return remit.SSHKey
	}
	return ""
}

func join(in *connector.Interner, prefix string, b []byte) string {
	var scratch [160]byte
	return in.String(append(append(scratch[:0], prefix...), b...))
}

// readMinted tells what credential an event issued, where it has an ID. The
// token that such an event names is the new one: it was made in the browser.
func (f *fields) readMinted(kind access, a *remit.Activity) {
	m := &a.Minted
	switch a.Action {
	case "personal_access_token.create", "personal_access_token.access_granted", "personal_access_token.credential_regenerated":
		m.Type = remit.StaticToken
		if len(f.programmaticID) > 0 {
			m.Credential = join(f.in, "user_programmatic_access_id=", f.programmaticID)
		}
	case "oauth_access.create", "oauth_access.regenerate", "oauth_authorization.create":
		m.Type = credentialType(kind)
		if m.Type == "" {
			m.Type = remit.StaticToken
		}
	case "public_key.create", "deploy_key.create", "repo.add_deploy_key":
		m.Type = remit.SSHKey
		if len(f.fingerprint) > 0 {
			m.Credential = join(f.in, "fingerprint=", f.fingerprint)
		}
		m.For = remit.Ref{Kind: "User", Name: f.in.String(f.user)}
		if len(f.repo) > 0 {
			m.For = remit.Ref{Kind: "DeployKey", Namespace: f.in.String(f.repo), Name: deployKey}
		}
	case "integration_installation.create", "integration_installation.repositories_added":
		if len(f.installationID) > 0 {
			m.Credential = join(f.in, "installation_id=", f.installationID)
			m.For = remit.Ref{Kind: "App", Name: f.in.String(f.name)}
		}
		m.Type = remit.ShortLivedToken
	default:
		return
	}
	switch a.Action {
	case "personal_access_token.create", "oauth_access.create", "oauth_access.regenerate", "oauth_authorization.create":
		if m.Credential == "" {
			m.Credential = a.Credential
		}
		a.Credential, a.CredentialType = "", ""
	}
	if m.Credential == "" {
		*m = remit.Minted{}
		return
	}
	if m.For.Name == "" {
		m.For = a.Actor
		if len(f.user) > 0 {
			m.For = remit.Ref{Kind: "User", Name: f.in.String(f.user)}
		}
	}
	m.Expires = connector.ParseTime(f.expires)
}

// resource tells what the event is about, from the part of its action before
// the point and from the names that it has.
func (f *fields) resource() remit.Ref {
	in := f.in
	category, verb, _ := bytes.Cut(f.action, []byte("."))
	holder := f.repo
	if len(holder) == 0 {
		holder = f.org
	}
	switch string(category) {
	case "hook":
		if len(f.hookID) > 0 {
			return remit.Ref{Kind: "hook", Namespace: in.String(holder), Name: in.String(f.hookID)}
		}
	case "team":
		if len(f.team) > 0 {
			return remit.Ref{Kind: "team", Namespace: in.String(f.org), Name: in.String(f.team)}
		}
	case "integration_installation", "integration_installation_request", "integration":
		if len(f.name) > 0 {
			return remit.Ref{Kind: "app", Namespace: in.String(f.org), Name: in.String(f.name)}
		}
	case "repository_ruleset":
		if len(f.ruleset) > 0 {
			return remit.Ref{Kind: "ruleset", Namespace: in.String(holder), Name: in.String(f.ruleset)}
		}
	case "business", "enterprise":
		if len(f.business) > 0 {
			return remit.Ref{Kind: "enterprise", Name: in.String(f.business)}
		}
	}
	if len(f.key) > 0 && (bytes.HasSuffix(verb, []byte("_secret")) || bytes.HasSuffix(category, []byte("_secret"))) {
		return remit.Ref{Kind: "secret", Namespace: in.String(holder), Name: in.String(f.key)}
	}
	ofOrg := bytes.Equal(category, []byte("org")) || bytes.HasPrefix(category, []byte("organization"))
	switch {
	case len(f.repo) > 0 && !ofOrg:
		return remit.Ref{Kind: "repo", Name: in.String(f.repo)}
	case len(f.org) > 0:
		return remit.Ref{Kind: "org", Name: in.String(f.org)}
	case len(f.business) > 0:
		return remit.Ref{Kind: "enterprise", Name: in.String(f.business)}
	case len(f.user) > 0:
		return remit.Ref{Kind: "user", Name: in.String(f.user)}
	}
	return remit.Ref{}
}

func (f *fields) writes() bool {
	switch string(f.action) {
	case "git.clone", "git.fetch", "repo.download_zip", "user.login", "user.logout", "user.failed_login",
		"user.two_factor_challenge_failure", "user.two_factor_challenge_success",
		"org.sso_response", "business.sso_response", "org.audit_log_export", "business.audit_log_export",
		"org.audit_log_git_event_export", "business.audit_log_git_event_export":
		return false
	case "api.request":
		switch string(f.method) {
		case "GET", "HEAD", "OPTIONS":
			return false
		}
		return true
	case "repo.access": // a change of visibility, whatever its type says
		return true
	}
	switch string(f.operation) {
	case "access", "authentication":
		return false
	}
	return true
}

func (f *fields) readOutcome(a *remit.Activity) {
	a.Outcome, a.Code = remit.Allowed, f.status
	switch {
	case f.status == 401 || f.status == 403:
		a.Outcome = remit.Denied
	case f.status >= 400:
		a.Outcome = remit.Failed
	}
	switch a.Action {
	case "user.failed_login", "user.two_factor_challenge_failure", "protected_branch.rejected_ref_update",
		"repository_ruleset.rejected_ref_update", "secret_scanning_push_protection.block", "org.sso_failure":
		a.Outcome = remit.Denied
	}
	switch string(f.conclusion) {
	case "failure", "timed_out", "startup_failure":
		a.Outcome = remit.Failed
		a.Reason = f.in.String(f.conclusion)
	}
	if a.Outcome != remit.Allowed && len(f.reason) > 0 {
		a.Reason = f.in.String(f.reason)
	}
}
