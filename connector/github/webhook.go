package github

import (
	"bytes"
	"time"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// decodeWebhook reads a webhook delivery. The event's name is in a header that
// no store keeps, so it is told from the object that the delivery is about:
// "pull_request" and the action "opened" are "pull_request.opened", and a body
// with commits is a "push". Authors of commits are claims, and nobody's actor.
// Source: https://docs.github.com/en/webhooks/webhook-events-and-payloads
func decodeWebhook(v *fastjson.Value, object *fastjson.Object, in *connector.Interner, e *connector.Event) error {
	var subject *fastjson.Value
	var name []byte
	push := false
	object.Visit(func(key []byte, item *fastjson.Value) {
		switch string(key) {
		case "commits", "head_commit":
			push = true
		case "repository", "organization", "enterprise", "sender", "installation", "pusher", "changes":
		default:
			if subject == nil && item.Type() == fastjson.TypeObject {
				subject, name = item, key
			}
		}
	})
	a := &e.Activity
	action := v.GetStringBytes("action")
	switch {
	case push:
		a.Action, subject = "push", nil
	case len(name) > 0 && len(action) > 0:
		var scratch [128]byte
		a.Action = in.String(append(append(append(scratch[:0], name...), '.'), action...))
	case len(name) > 0:
		a.Action = in.String(name)
	case len(action) > 0:
		a.Action = in.String(action)
	default:
		return remit.Errorf(remit.Invalid, op, "the webhook delivery tells of no event")
	}
	a.Write = true
	switch string(name) {
	case "workflow_job", "workflow_run", "check_run", "check_suite", "hook":
		a.Write = push // reports of GitHub itself
	}

	repo := v.GetStringBytes("repository", "full_name")
	org := v.GetStringBytes("organization", "login")
	if len(org) == 0 {
		org, _, _ = bytes.Cut(repo, []byte("/"))
	}
	if len(org) == 0 {
		org = v.GetStringBytes("enterprise", "slug")
	}
	a.Native = in.String(org)
	switch {
	case len(repo) > 0:
		a.Resource = remit.Ref{Kind: "repo", Name: in.String(repo)}
	case len(org) > 0:
		a.Resource = remit.Ref{Kind: "org", Name: in.String(org)}
	}

	login := v.GetStringBytes("sender", "login")
	if len(login) == 0 {
		login = v.GetStringBytes("pusher", "name")
	}
	if len(login) > 0 {
		a.Principal = in.String(login)
		a.Actor, a.Type = remit.Ref{Kind: "User", Name: a.Principal}, remit.Human
		if string(v.GetStringBytes("sender", "type")) == "Bot" || bytes.HasSuffix(login, botSuffix) {
			a.Actor.Kind, a.Type = "App", remit.Application
		}
	}

	a.Time = webhookTime(v, subject)
	a.Outcome = remit.Allowed
	if subject != nil {
		switch string(subject.GetStringBytes("conclusion")) {
		case "failure", "timed_out", "startup_failure":
			a.Outcome, a.Reason = remit.Failed, in.Get(subject, "conclusion")
		}
	}
	e.Views = append(e.Views, connector.View{Product: "github", Service: "webhook", JSON: v})
	return nil
}

// webhookTime is when the subject last changed, or the repository was pushed
// to; zero when the delivery does not tell. The times of commits do not count,
// for who commits may set them.
func webhookTime(v, subject *fastjson.Value) time.Time {
	if subject == nil {
		switch pushed := v.Get("repository", "pushed_at"); {
		case pushed == nil:
			return time.Time{}
		case pushed.Type() == fastjson.TypeNumber:
			if s := pushed.GetInt64(); s > 0 && s < 1e11 {
				return time.Unix(s, 0).UTC()
			}
			return time.Time{}
		default:
			return connector.ParseTime(pushed.GetStringBytes())
		}
	}
	for _, key := range [...]string{"completed_at", "updated_at", "started_at", "created_at"} {
		if t := connector.ParseTime(subject.GetStringBytes(key)); !t.IsZero() {
			return t
		}
	}
	return time.Time{}
}
