package aws

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// mint reads the credential that the event issued. A refused or failed call
// issues none, whatever its response holds.
func (d *decoding) mint() {
	e, in := d.event, d.in
	if d.response == nil || e.Outcome != remit.Allowed || d.response.Type() != fastjson.TypeObject {
		return
	}
	if key := d.response.Get("accessKey"); key != nil {
		id := key.GetStringBytes("accessKeyId")
		if len(id) == 0 || string(d.name) != "CreateAccessKey" {
			return
		}
		e.Minted = remit.Minted{Credential: string(id), Type: remit.APIKey, For: e.Actor}
		user := key.GetStringBytes("userName")
		if len(user) == 0 {
			user = text(d.request.Get("userName"))
		}
		if len(user) > 0 {
			e.Minted.For = remit.Ref{Kind: kindUser, Namespace: e.Native, Name: in.String(user)}
		}
		return
	}
	credentials := d.response.Get("credentials")
	if credentials == nil { // IAM Roles Anywhere
		credentials = d.response.Get("credentialSet", "0", "credentials")
	}
	if credentials == nil {
		return
	}
	id := either(credentials, "accessKeyId", "accessKeyID")
	if len(id) == 0 {
		return
	}
	m := remit.Minted{
		Credential: string(id),
		Type:       remit.ShortLivedToken,
		Expires:    expiration(credentials.Get("expiration")),
	}
	if d.request != nil {
		m.Lifetime = lifetime(d.request.Get("durationSeconds"))
	}
	session := parseARN(d.response.GetStringBytes("assumedRoleUser", "arn"))
	switch {
	case len(session.resource) > 0:
		m.For = session.identity(in)
	case d.request != nil && len(d.request.GetStringBytes("roleArn")) > 0:
		m.For = parseARN(d.request.GetStringBytes("roleArn")).identity(in)
	default:
		if a := parseARN(d.response.GetStringBytes("federatedUser", "arn")); len(a.resource) > 0 {
			m.For = a.identity(in)
		} else if string(d.name) == "GetSessionToken" {
			m.For = e.Actor
		}
	}
	m.Bound = d.boundBy(session)
	e.Minted = m
}

// boundBy tells what a role session is bound to when one of the services that
// hand sessions to what they run has begun it, which then gives it that name.
// From anybody else the name proves nothing.
func (d *decoding) boundBy(session arn) remit.Ref {
	if d.identity == nil || string(d.identity.GetStringBytes("type")) != "AWSService" {
		return remit.Ref{}
	}
	name := sessionName(session, nil)
	if len(session.resource) == 0 && d.request != nil {
		name = d.request.GetStringBytes("roleSessionName")
	}
	account := d.in.String(session.account)
	if account == "" {
		account = d.event.Native
	}
	ref := remit.Ref{Namespace: account, Name: d.in.String(name)}
	switch invokedBy := d.identity.GetStringBytes("invokedBy"); {
	case ref.Name == "":
	case string(invokedBy) == "ec2.amazonaws.com" && isInstance(name):
		ref.Kind = kindInstance
		return ref
	case string(invokedBy) == "lambda.amazonaws.com" && !bytes.HasPrefix(name, []byte("awslambda_")): // that is Lambda itself
		ref.Kind = "lambda:Function"
		return ref
	case string(invokedBy) == "ecs-tasks.amazonaws.com":
		ref.Kind = "ecs:Task"
		return ref
	}
	return remit.Ref{}
}

// layouts are how Java's formatter writes the expiration of credentials.
var layouts = [...]string{"Jan 2, 2006, 3:04:05 PM", "Jan 2, 2006 3:04:05 PM"}

// expiration reads a time, which is text or milliseconds (seconds, when small)
// since 1970. It returns the zero time for anything else.
func expiration(v *fastjson.Value) time.Time {
	if v == nil {
		return time.Time{}
	}
	if v.Type() == fastjson.TypeNumber {
		n := v.GetInt64()
		switch {
		case n <= 0:
			return time.Time{}
		case n > 1e11:
			return time.UnixMilli(n).UTC()
		}
		return time.Unix(n, 0).UTC()
	}
	b := bytes.TrimSpace(text(v))
	if t := connector.ParseTime(b); !t.IsZero() || len(b) > 64 {
		return t
	}
	s := strings.ReplaceAll(string(b), "\u202f", " ") // newer Java puts it before AM and PM
	for _, layout := range layouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t
		}
	}
	return time.Time{}
}

// longestLifetime is more than any service gives: 36 hours.
const longestLifetime = 7 * 24 * 3600

func lifetime(v *fastjson.Value) time.Duration {
	if v == nil {
		return 0
	}
	n := v.GetInt64()
	if b := text(v); len(b) > 0 && len(b) < 12 {
		n, _ = strconv.ParseInt(string(b), 10, 64)
	}
	if n < 0 || n > longestLifetime {
		return 0
	}
	return time.Duration(n) * time.Second
}
