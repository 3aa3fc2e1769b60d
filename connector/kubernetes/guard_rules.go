package kubernetes

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
)

// What the rules say, in CEL as the API server evaluates it
// (https://kubernetes.io/docs/reference/using-api/cel/). A field that may be
// absent is asked for with ?, and a list that may be null is compared with null:
// whoever writes an object chooses what is in it, and an expression that fails
// judges nothing. Remit evaluates the same expressions for its preview, so they
// use what cel-go and the API server have in common.

// guardText is a rule.
type guardText struct {
	leaveOut  []string // namespaces
	resources []admissionv1.NamedRuleWithOperations
	variables []admissionv1.Variable
	refusal   string // a string: why it is refused, "" when it is not
}

var guardTexts = map[GuardRule]func(Guard) guardText{
	GuardTokens:       Guard.tokens,
	GuardTokenSecrets: Guard.tokenSecrets,
	GuardAdmins:       Guard.admins,
	GuardOwners:       Guard.owners,
}

// askers are the conditions on who asks. The parts of the cluster itself are
// always left alone, for it would stand still without them: its controllers only
// carry on what somebody asked for, who was judged; nodes ask for tokens of pods
// that were judged; and whoever is in system:masters could take the policies away
// as well.
func (g Guard) askers(login string) []admissionv1.MatchCondition {
	conditions := []admissionv1.MatchCondition{
		{Name: "not-the-cluster", Expression: `!request.userInfo.?groups.orValue([]).exists(g, g in ` +
			celList(groupMasters, groupNodes, groupAccounts+":"+namespaceSystem) + `) && ` +
			`!(request.userInfo.?username.orValue("") in ` + celList(sortedKeys(guardParts)...) + `)`},
	}
	users := slices.Clone(g.Exempt.Users)
	if login != "" {
		users = append(users, login)
	}
	if len(users) > 0 {
		users = slices.Compact(slices.Sorted(slices.Values(users)))
		conditions = append(conditions, admissionv1.MatchCondition{
			Name: "not-exempt", Expression: `!(request.userInfo.?username.orValue("") in ` + celList(users...) + `)`,
		})
	}
	return conditions
}

// guardParts are the users as which parts of the cluster itself write.
var guardParts = words(`system:apiserver system:kube-controller-manager system:kube-scheduler`)

const (
	namespaceSystem = "kube-system"

	// Where the template of a workload's pods is, and the workloads.
	guardTemplate = `(request.resource.resource == "pods" ? optional.of(dyn(object)) : ` +
		`request.resource.resource == "cronjobs" ? dyn(object).?spec.?jobTemplate.?spec.?template : dyn(object).?spec.?template)`
	guardOldTemplate = `(request.resource.resource == "cronjobs" ? dyn(oldObject).?spec.?jobTemplate.?spec.?template : dyn(oldObject).?spec.?template)`

	guardAccountOfPod = `request.?namespace.orValue("") + "/" + ` + guardTemplate + `.?spec.?serviceAccountName.orValue("default")`
)

// guardWorkloads are what makes pods, and pods.
func guardWorkloads(template ...admissionv1.OperationType) []admissionv1.NamedRuleWithOperations {
	return []admissionv1.NamedRuleWithOperations{
		guardResources([]admissionv1.OperationType{admissionv1.Create}, "", "pods"),
		guardResources(template, "", "replicationcontrollers"),
		guardResources(template, "apps", "daemonsets", "deployments", "replicasets", "statefulsets"),
		guardResources(template, "batch", "cronjobs", "jobs"),
	}
}

func guardResources(operations []admissionv1.OperationType, group string, resources ...string) admissionv1.NamedRuleWithOperations {
	rule := resourceRule(group, resources...)
	rule.Operations = operations
	return rule
}

// tokens refuses tokens that are asked for too long a time or for an audience that
// is not to have any. What is asked for is not always what is given: unless the
// API server was told otherwise, a token for a pod and the server's own audience
// that is asked for exactly 3607 seconds is valid for a year
// (k8s.io/kubernetes v1.36.3, pkg/registry/core/serviceaccount/storage/token.go).
// Admission puts a volume that asks for just that into every pod, and so it is
// never refused; who asks for it by himself is.
func (g Guard) tokens() guardText {
	longest := g.maxLifetime()
	create, update := admissionv1.Create, admissionv1.Update
	granted := `(dyn(object).?spec.?expirationSeconds.orValue(3600))`
	if !g.NotExtended {
		granted = fmt.Sprintf(`(dyn(object).?spec.?expirationSeconds.orValue(3600) == %d && dyn(object).?spec.?boundObjectRef.?kind.orValue("") == "Pod" ? %d : dyn(object).?spec.?expirationSeconds.orValue(3600))`,
			automountLifetime, extendedLifetime)
	}
	tooLong := fmt.Sprintf(`t.?expirationSeconds.orValue(3600) > %d && !(t.?expirationSeconds.orValue(3600) == %d && t.?audience.orValue("") == "")`, longest, automountLifetime)
	text := guardText{
		resources: append([]admissionv1.NamedRuleWithOperations{
			guardResources([]admissionv1.OperationType{create}, "", "serviceaccounts/token"),
		}, guardWorkloads(create, update)...),
		variables: []admissionv1.Variable{
			{Name: "asked", Expression: `request.resource.resource == "serviceaccounts"`},
			{Name: "account", Expression: `variables.asked ? request.?namespace.orValue("") + "/" + request.?name.orValue("") : ` + guardAccountOfPod},
			{Name: "volumes", Expression: `variables.asked ? [] : ` + guardTemplate + `.?spec.?volumes.orValue([])`},
			// A pod's volumes never change; a template that keeps its own is not new.
			{Name: "kept", Expression: `request.operation == "UPDATE" && ` + guardOldTemplate + `.?spec.?volumes.orValue([]) == variables.volumes`},
			{Name: "projected", Expression: `variables.volumes == null || variables.kept ? [] : ` +
				`variables.volumes.filter(v, v.?projected.?sources.orValue(null) != null && v.projected.sources.exists(s, has(s.serviceAccountToken)))`},
		},
	}
	long := fmt.Sprintf("Remit's guard: a token may be valid for at most %s", guardSpan(longest))
	exempt := g.exemptAccount()
	text.refusal = exempt + ` ? "" : ` +
		`variables.asked && ` + granted + ` > ` + fmt.Sprint(longest) + ` ? ` + celString(long+", and this one would be for longer.") + ` : ` +
		guardAnyToken(tooLong) + ` ? ` + celString(long+", and a volume asks for longer (expirationSeconds).") + ` : `
	if len(g.Audiences) > 0 {
		audiences := celList(slices.Compact(slices.Sorted(slices.Values(g.Audiences)))...)
		text.refusal += `variables.asked && dyn(object).?spec.?audiences.orValue(null) != null && dyn(object).spec.audiences.exists(a, !(a in ` + audiences + `)) ? ` +
			celString("Remit's guard: tokens are not given for this audience.") + ` : ` +
			guardAnyToken(`t.?audience.orValue("") != "" && !(t.audience in `+audiences+`)`) + ` ? ` +
			celString("Remit's guard: tokens are not given for the audience that a volume names.") + ` : `
	}
	text.refusal += `""`
	return text
}

// guardAnyToken says whether a condition holds of a token t of a volume.
func guardAnyToken(condition string) string {
	return `variables.projected.exists(v, v.projected.sources.exists(s, has(s.serviceAccountToken) && [s.serviceAccountToken].exists(t, ` + condition + `)))`
}

// guardSpan writes a number of seconds for people.
func guardSpan(seconds int64) string {
	switch d := time.Duration(seconds) * time.Second; {
	case d%(24*time.Hour) == 0:
		return numbered(int(d/(24*time.Hour)), "day")
	case d%time.Hour == 0:
		return numbered(int(d/time.Hour), "hour")
	case d%time.Minute == 0:
		return numbered(int(d/time.Minute), "minute")
	}
	return numbered(int(seconds), "second")
}

// exemptAccount is the condition that variables.account is left alone.
func (g Guard) exemptAccount() string {
	if len(g.Exempt.Accounts) == 0 {
		return "false"
	}
	return `variables.account in ` + celList(slices.Compact(slices.Sorted(slices.Values(g.Exempt.Accounts)))...)
}

// tokenSecrets refuses Secrets that the cluster would fill with a token that never
// ends. The type of a Secret cannot be changed later.
func (g Guard) tokenSecrets() guardText {
	return guardText{
		resources: []admissionv1.NamedRuleWithOperations{guardResources([]admissionv1.OperationType{admissionv1.Create}, "", "secrets")},
		variables: []admissionv1.Variable{
			{Name: "account", Expression: `request.?namespace.orValue("") + "/" + dyn(object).?metadata.?annotations[?"kubernetes.io/service-account.name"].orValue("")`},
		},
		refusal: `dyn(object).?type.orValue("") != "kubernetes.io/service-account-token" || ` + g.exemptAccount() + ` ? "" : ` +
			celString("Remit's guard: a token in a Secret never ends. Use a projected volume, or kubectl create token."),
	}
}

// admins refuses what makes a machine an administrator. Of a binding admission
// sees the name of its role and not what is in it; so roles are judged as they
// are written, whomever they are for. What an object held before is let be.
func (g Guard) admins() guardText {
	roles := slices.Compact(slices.Sorted(slices.Values(append([]string{"cluster-admin"}, g.AdminRoles...))))
	machines := slices.Compact(slices.Sorted(slices.Values(g.Machines)))
	// The exempt ones in each way in which a subject can be written.
	var users, groups []string
	for _, account := range g.Exempt.Accounts {
		namespace, name, _ := strings.Cut(account, "/")
		users = append(users, "system:serviceaccount:"+namespace+":"+name)
	}
	var prefixes []string
	for _, namespace := range g.Exempt.Namespaces {
		groups = append(groups, groupAccounts+":"+namespace)
		prefixes = append(prefixes, `s.name.startsWith(`+celString("system:serviceaccount:"+namespace+":")+`)`)
	}
	exemptUser := `s.name in ` + celList(users...)
	for _, p := range prefixes {
		exemptUser += ` || ` + p
	}
	machine := `s.kind == "ServiceAccount" ? !(s.?namespace.orValue("") in ` + celList(g.Exempt.Namespaces...) + `) && !(s.?namespace.orValue("") + "/" + s.name in ` + celList(g.Exempt.Accounts...) + `) : ` +
		`s.kind == "Group" ? (s.name in ` + celList(append([]string{"system:authenticated", "system:unauthenticated", groupAccounts, groupNodes}, machines...)...) +
		` || s.name.startsWith("` + groupAccounts + `:")) && !(s.name in ` + celList(groups...) + `) : ` +
		`(s.name.startsWith("system:") || s.name in ` + celList(machines...) + `) && !(` + exemptUser + `)`

	verb := func(v string) string { return `(` + celString(v) + ` in r.verbs || "*" in r.verbs)` }
	group := func(name string) string {
		return `r.?apiGroups.orValue([]).exists(g, g == ` + celString(name) + ` || g == "*")`
	}
	resource := func(names ...string) string {
		return `r.?resources.orValue([]).exists(x, x in ` + celList(append(names, "*")...) + `)`
	}
	powerful := `("*" in r.verbs && "*" in r.?apiGroups.orValue([]) && "*" in r.?resources.orValue([])) || ` +
		`((` + verb("escalate") + ` || ` + verb("bind") + `) && ` + group("rbac.authorization.k8s.io") + ` && ` + resource("roles", "clusterroles") + `) || ` +
		`(` + verb("impersonate") + ` && ` + group("") + ` && ` + resource("users", "groups", "serviceaccounts") + `)`

	both := []admissionv1.OperationType{admissionv1.Create, admissionv1.Update}
	return guardText{
		resources: []admissionv1.NamedRuleWithOperations{
			guardResources(both, "rbac.authorization.k8s.io", "clusterrolebindings", "clusterroles", "rolebindings", "roles"),
		},
		variables: []admissionv1.Variable{
			{Name: "subjects", Expression: guardNewList("subjects")},
			{Name: "hadSubjects", Expression: guardOldList("subjects")},
			{Name: "rules", Expression: guardNewList("rules")},
			{Name: "hadRules", Expression: guardOldList("rules")},
			{Name: "admin", Expression: `dyn(object).?roleRef.?kind.orValue("") == "ClusterRole" && dyn(object).roleRef.name in ` + celList(roles...)},
		},
		refusal: `variables.admin && variables.subjects.exists(s, (` + machine + `) && !(s in variables.hadSubjects)) ? ` +
			celString("Remit's guard: a machine must not be made an administrator. Give it a role with what it needs.") + ` : ` +
			`variables.rules.exists(r, r.?verbs.orValue(null) != null && (` + powerful + `) && !(r in variables.hadRules)) ? ` +
			celString("Remit's guard: a role must not allow everything, nor escalate, bind or impersonate. Name what it needs.") + ` : ""`,
	}
}

func guardNewList(field string) string {
	return `dyn(object).?` + field + `.orValue(null) == null ? [] : dyn(object).` + field
}

func guardOldList(field string) string {
	return `request.operation != "UPDATE" || dyn(oldObject).?` + field + `.orValue(null) == null ? [] : dyn(oldObject).` + field
}

// owners refuses new accounts and workloads that name nobody who answers for
// them, on themselves, on the template of their pods or on their namespace. What
// a controller made for something else is that one's.
func (g Guard) owners() guardText {
	owned := func(of string) string {
		var each []string
		for _, set := range []string{"labels", "annotations"} {
			each = append(each, `[`+of+`.?`+set+`.orValue({})].exists(m, m != null && m.exists(k, k.matches(`+
				celString(ownerKeyPattern(g.OwnerKeys))+`) && !m[k].matches(`+celString(noOwnerPattern)+`)))`)
		}
		return `(` + strings.Join(each, ` || `) + `)`
	}
	example := "owner"
	if len(g.OwnerKeys) > 0 {
		example = g.OwnerKeys[0]
	}
	return guardText{
		leaveOut: []string{namespaceSystem},
		resources: append([]admissionv1.NamedRuleWithOperations{
			guardResources([]admissionv1.OperationType{admissionv1.Create}, "", "serviceaccounts"),
		}, guardWorkloads(admissionv1.Create)...),
		variables: []admissionv1.Variable{
			{Name: "account", Expression: `request.resource.resource == "serviceaccounts" ? request.?namespace.orValue("") + "/" + dyn(object).?metadata.?name.orValue("") : ` + guardAccountOfPod},
			{Name: "controlled", Expression: `dyn(object).?metadata.?ownerReferences.orValue([]).exists(r, r.?controller.orValue(false))`},
			{Name: "owned", Expression: owned(`dyn(object).?metadata`) + ` || ` + owned(guardTemplate+`.?metadata`) + ` || ` +
				`namespaceObject != null && ` + owned(`dyn(namespaceObject).?metadata`)},
		},
		refusal: `variables.controlled || variables.owned || ` + g.exemptAccount() + ` ? "" : ` +
			celString("Remit's guard: say who answers for this, in a label or an annotation (as "+example+") of it or of its namespace."),
	}
}

// ownerKeyPattern matches the keys that [ownerReader] reads.
func ownerKeyPattern(keys []string) string {
	var suffixes, whole []string
	seen := map[string]bool{}
	for _, key := range slices.Concat(keys, ownerKeys) {
		key = strings.ToLower(key)
		if seen[key] {
			continue
		}
		seen[key] = true
		if strings.Contains(key, "/") {
			whole = append(whole, regexp.QuoteMeta(key))
		} else {
			suffixes = append(suffixes, regexp.QuoteMeta(key))
		}
	}
	return `^(?i:(?:.*/)?(?:` + strings.Join(suffixes, `|`) + `)|` + strings.Join(whole, `|`) + `)$`
}

// noOwnerPattern matches the values in which [names] finds nobody.
const (
	noOwnerPattern = `^(?i:` + noOwner + `(?:[,;\n]` + noOwner + `)*)$`
	noOwner        = `[\s"'\[\]]*(?:none|unknown|n/a|na|tbd|todo|nobody|null|-)?[\s"'\[\]]*`
)

// celList writes a list of strings.
func celList(items ...string) string {
	quoted := make([]string, len(items))
	for i, s := range items {
		quoted[i] = celString(s)
	}
	return `[` + strings.Join(quoted, `, `) + `]`
}
