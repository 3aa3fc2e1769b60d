package kubernetes

import (
	"context"
	"strings"

	"remit"
)

// GuardInventory is what a guard is tried on.
type GuardInventory interface {
	Identities(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Identity, string, error)
	Credentials(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Credential, string, error)
	Roles(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Role, string, error)
	Grants(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Grant, string, error)
	Resources(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Resource, string, error)
}

// GuardMatch is something that a rule is against.
type GuardMatch struct {
	Rule    GuardRule `json:"rule"`
	Object  remit.Ref `json:"object"`
	Message string    `json:"message"`
}

// guardKinds are the kinds of identity that owners are asked of, and where they
// are in the API.
var guardKinds = map[string][2]string{
	"ServiceAccount":        {"", "serviceaccounts"},
	"Pod":                   {"", "pods"},
	"ReplicationController": {"", "replicationcontrollers"},
	"DaemonSet":             {"apps", "daemonsets"},
	"Deployment":            {"apps", "deployments"},
	"ReplicaSet":            {"apps", "replicasets"},
	"StatefulSet":           {"apps", "statefulsets"},
	"CronJob":               {"batch", "cronjobs"},
	"Job":                   {"batch", "jobs"},
}

// Inventory tells what of the inventory a guard would refuse if it were made anew,
// by somebody who is not exempt. What Kubernetes itself brings is left out, and so
// are the accounts named default, which a controller makes.
func (j *GuardJudge) Inventory(ctx context.Context, store GuardInventory, system remit.ID, each func(GuardMatch)) error {
	judge := func(object remit.Ref, q GuardRequest) error {
		found, err := j.Judge(q)
		for _, v := range found {
			each(GuardMatch{v.Rule, object, v.Message})
		}
		return err
	}
	builtIn := false
	filter := remit.Filter{System: system, BuiltIn: &builtIn}
	if err := eachOf(ctx, filter, store.Identities, func(i remit.Identity) error {
		at, ok := guardKinds[i.Kind]
		if !ok || i.Status == remit.Absent || i.Kind == "ServiceAccount" && i.Attributes["default"] == "true" {
			return nil
		}
		return judge(i.Ref, GuardRequest{Operation: "CREATE", Group: at[0], Resource: at[1], Namespace: i.Namespace, Name: i.Name, Object: objectOfIdentity(i)})
	}); err != nil {
		return err
	}
	// Those of the cluster's own accounts count as well.
	if err := eachOf(ctx, remit.Filter{System: system}, store.Credentials, func(c remit.Credential) error {
		q, ok := requestOfCredential(c)
		if !ok {
			return nil
		}
		return judge(c.Ref, q)
	}); err != nil {
		return err
	}
	if err := eachOf(ctx, filter, store.Grants, func(g remit.Grant) error {
		resource := "clusterrolebindings"
		if g.Kind == "RoleBinding" {
			resource = "rolebindings"
		}
		return judge(g.Ref, GuardRequest{Operation: "CREATE", Group: rbacGroup, Resource: resource, Namespace: g.Namespace, Name: g.Name, Object: map[string]any{
			"roleRef":  map[string]any{"kind": g.RoleRef.Kind, "name": g.RoleRef.Name},
			"subjects": []any{subjectOf(g.Subject)},
		}})
	}); err != nil {
		return err
	}
	return eachOf(ctx, filter, store.Roles, func(r remit.Role) error {
		resource := "clusterroles"
		if r.Kind == "Role" {
			resource = "roles"
		}
		return judge(r.Ref, GuardRequest{Operation: "CREATE", Group: rbacGroup, Resource: resource, Namespace: r.Namespace, Name: r.Name, Object: map[string]any{
			"rules": rulesOf(r.Permissions),
		}})
	})
}

const rbacGroup = "rbac.authorization.k8s.io"

// objectOfIdentity is as much of an object as says whose it is. Whether a claim
// stands on the object, on its template or on its namespace is all the same.
func objectOfIdentity(i remit.Identity) map[string]any {
	notes := map[string]any{}
	for _, o := range i.Owners {
		if key, ok := claimKey(o.Source); ok {
			notes[key] = o.Name
		}
	}
	object := map[string]any{"metadata": map[string]any{"name": i.Name, "annotations": notes}}
	if account := i.Attributes["service-account"]; account != "" {
		object["spec"] = podOrTemplate(i.Kind, map[string]any{"serviceAccountName": account})
	}
	return object
}

// claimKey is the label or annotation that an owner was read from: "namespace
// label team".
func claimKey(source string) (string, bool) {
	for _, word := range []string{"label ", "annotation "} {
		if at := strings.Index(source, word); at >= 0 {
			return source[at+len(word):], true
		}
	}
	return "", false
}

// podOrTemplate puts the spec of pods where a kind has it.
func podOrTemplate(kind string, spec map[string]any) map[string]any {
	template := map[string]any{"template": map[string]any{"spec": spec}}
	switch kind {
	case "Pod":
		return spec
	case "CronJob":
		return map[string]any{"jobTemplate": map[string]any{"spec": template}}
	}
	return template
}

// requestOfCredential is what would make a credential: a Secret or a workload.
func requestOfCredential(c remit.Credential) (GuardRequest, bool) {
	q := GuardRequest{Operation: "CREATE", Namespace: c.Namespace, Name: c.Name}
	switch at, workload := guardKinds[c.Kind]; {
	case c.Kind == "Secret" && c.Attributes["legacy"] == "true":
		q.Resource = "secrets"
		q.Object = map[string]any{
			"type":     "kubernetes.io/service-account-token",
			"metadata": map[string]any{"name": c.Name, "annotations": map[string]any{"kubernetes.io/service-account.name": c.Holder.Name}},
		}
	case workload && c.Lifetime > 0 && c.Attributes["automounted"] != "true":
		token := map[string]any{"path": "token", "expirationSeconds": c.Lifetime}
		if len(c.Audiences) > 0 {
			token["audience"] = c.Audiences[0]
		}
		q.Group, q.Resource = at[0], at[1]
		q.Object = map[string]any{
			// Whose it is, is another matter.
			"metadata": map[string]any{"name": c.Name, "annotations": map[string]any{"owner": "somebody"}},
			"spec": podOrTemplate(c.Kind, map[string]any{
				"serviceAccountName": c.Holder.Name,
				"volumes":            []any{map[string]any{"projected": map[string]any{"sources": []any{map[string]any{"serviceAccountToken": token}}}}},
			}),
		}
	default:
		return q, false
	}
	return q, true
}

func subjectOf(ref remit.Ref) map[string]any {
	switch ref.Kind {
	case "ServiceAccount":
		return map[string]any{"kind": ref.Kind, "namespace": ref.Namespace, "name": ref.Name}
	case "Node":
		return map[string]any{"kind": "User", "name": "system:node:" + ref.Name}
	}
	return map[string]any{"kind": ref.Kind, "name": ref.Name}
}

// rulesOf writes permissions as rules: one for each resource, as the rules are
// judged for each resource alone.
func rulesOf(permissions []remit.Permission) []any {
	var rules []any
	for _, p := range permissions {
		for _, name := range p.Resources {
			if strings.HasPrefix(name, "/") {
				continue
			}
			resource, group, _ := strings.Cut(name, ".")
			rules = append(rules, map[string]any{"verbs": p.Actions, "apiGroups": []string{group}, "resources": []string{resource}})
		}
	}
	return rules
}

// eachOf calls f with every record of a list.
func eachOf[T any](ctx context.Context, filter remit.Filter, list func(context.Context, remit.Filter, remit.PageRequest) ([]T, string, error), f func(T) error) error {
	page := remit.PageRequest{Limit: 1000}
	for {
		some, next, err := list(ctx, filter, page)
		if err != nil {
			return err
		}
		for _, one := range some {
			if err := f(one); err != nil {
				return err
			}
		}
		if page.After = next; next == "" {
			return nil
		}
	}
}

// GuardHomes are what the inventory knows of the namespaces of a system that
// counts for a guard: their labels, and the owners that their annotations name
// where anything in them has no nearer one.
func GuardHomes(ctx context.Context, store GuardInventory, system remit.ID) (map[string]map[string]any, error) {
	homes := map[string]map[string]any{}
	notes := func(namespace string) map[string]any {
		home := homes[namespace]
		if home == nil {
			home = map[string]any{"metadata": map[string]any{"name": namespace, "annotations": map[string]any{}}}
			homes[namespace] = home
		}
		return home["metadata"].(map[string]any)["annotations"].(map[string]any)
	}
	if err := eachOf(ctx, remit.Filter{System: system, Kinds: []string{"Namespace"}}, store.Resources, func(r remit.Resource) error {
		of := notes(r.Name)
		for k, v := range r.Labels {
			of[k] = v
		}
		return nil
	}); err != nil {
		return nil, err
	}
	err := eachOf(ctx, remit.Filter{System: system}, store.Identities, func(i remit.Identity) error {
		for _, o := range i.Owners {
			if key, ok := claimKey(o.Source); ok && strings.HasPrefix(o.Source, "namespace ") && i.Namespace != "" {
				notes(i.Namespace)[key] = o.Name
			}
		}
		return nil
	})
	return homes, err
}
