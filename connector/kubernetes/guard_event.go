package kubernetes

import (
	"strings"

	"github.com/valyala/fastjson"

	"remit"
)

// Event tells what a guard would have said of an event of the audit log that made
// something. raw is the event as the archive holds it, nil when it holds none;
// homes are [GuardHomes]. A match without a message is one that cannot be judged,
// for the log holds no body of the request: its level is Metadata, or its raw form
// is not kept any more.
func (j *GuardJudge) Event(a *remit.Activity, raw []byte, homes map[string]map[string]any) ([]GuardMatch, error) {
	if a.Action != "create" || a.Outcome != remit.Allowed {
		return nil, nil
	}
	kind, group, _ := strings.Cut(a.Resource.Kind, ".")
	q := GuardRequest{Operation: "CREATE", Group: group, Namespace: a.Resource.Namespace, Name: a.Resource.Name, Home: homes[a.Resource.Namespace]}
	q.Resource, q.Sub, _ = strings.Cut(kind, "/")
	q.User, q.Groups = a.Principal, groupsOf(a.Actor)
	if a.As != (remit.Ref{}) {
		q.User, q.Groups = principalOf(a.As), groupsOf(a.As)
	}
	if m := a.Minted; q.Resource == "serviceaccounts" && q.Sub == "token" && m.Lifetime > 0 {
		q.Object = objectOfMint(m)
	}
	if raw != nil {
		v, err := fastjson.ParseBytes(raw)
		if err != nil {
			return nil, remit.Errorf(remit.Invalid, "read event", "%w", err)
		}
		v = plainAudit(v)
		if strings.Contains(string(v.GetStringBytes("requestURI")), "dryRun=All") {
			return nil, nil
		}
		user := v.Get("user")
		if a.As != (remit.Ref{}) {
			user = v.Get("impersonatedUser")
		}
		if list := user.GetArray("groups"); len(list) > 0 {
			q.Groups = nil
			for _, g := range list {
				q.Groups = append(q.Groups, string(g.GetStringBytes()))
			}
		}
		if body := v.Get("requestObject"); body != nil && body.Type() == fastjson.TypeObject {
			if q.Object, err = guardObjectOf(body.MarshalTo(nil)); err != nil {
				return nil, err
			}
		}
	}
	found, err := j.Judge(q)
	var matches []GuardMatch
	for _, v := range found {
		matches = append(matches, GuardMatch{v.Rule, a.Resource, v.Message})
	}
	return matches, err
}

// plainAudit is an audit event out of what a platform wraps it in.
func plainAudit(v *fastjson.Value) *fastjson.Value {
	var inner []byte
	switch {
	case v.Get("auditID") != nil && v.Get("stage") != nil:
		return v
	case isGKE(v):
		return plainOfGKE(v)
	case v.Get("properties", "log") != nil:
		if inner = v.GetStringBytes("properties", "log"); inner == nil {
			return v.Get("properties", "log")
		}
	default:
		if inner = message(v); inner == nil {
			return v
		}
	}
	plain, err := fastjson.ParseBytes(inner)
	if err != nil {
		return v
	}
	return plain
}

// principalOf is how the log writes an identity.
func principalOf(actor remit.Ref) string {
	switch actor.Kind {
	case "ServiceAccount":
		return "system:serviceaccount:" + actor.Namespace + ":" + actor.Name
	case "Node":
		return "system:node:" + actor.Name
	}
	return actor.Name
}

func objectOfMint(m remit.Minted) map[string]any {
	spec := map[string]any{"expirationSeconds": int64(m.Lifetime.Seconds())}
	if len(m.Audiences) > 0 {
		spec["audiences"] = m.Audiences
	}
	if m.Bound.Kind != "" {
		spec["boundObjectRef"] = map[string]any{"kind": m.Bound.Kind}
	}
	return map[string]any{"spec": spec}
}
