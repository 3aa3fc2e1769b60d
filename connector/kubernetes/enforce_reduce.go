package kubernetes

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"remit"
	"remit/connector"
)

// An identity is reduced binding by binding: a role with what was used, a binding
// of the identity alone to it, and then the identity is taken out of the wide
// binding, whose role cannot be changed and whose other subjects keep theirs. So at
// each instant the identity has either the old binding or both or the new one.
//
// An API server learns of the kinds of roles and bindings by a watch each, of which
// one may be behind, and a cluster may have several API servers. None must see the
// old binding gone before it has seen the new ones and their roles, nor those gone
// before it has seen the old one back: hence the pause between the two.
const reduceSettle = time.Second

// The annotations of what a reduction made.
const (
	noteReduced     = "remit.dev/note"
	noteReducedFrom = "remit.dev/reduced-from"
)

// maxChecks bounds the access reviews that verify one binding.
const maxChecks = 50

// ownGrant is a binding that names the identity, and what was done through it.
type ownGrant struct {
	*grantBinding
	rules []rbacv1.PolicyRule
	uses  map[right]*use
	left  string // why it is left as it is; "" when it is not
}

func (g *ownGrant) allows(r right, name string) bool {
	return g.reaches(r) && allow(g.rules, r, name)
}

// reaches says whether a binding is about where a right is exercised.
func (b *grantBinding) reaches(r right) bool {
	return b.Namespace == "" || r.url == "" && r.namespace == b.Namespace
}

func (g *ownGrant) use(r right, name string, first time.Time) {
	u := g.uses[r]
	if u == nil {
		u = &use{right: r, names: map[string]time.Time{}, first: first}
		g.uses[r] = u
	}
	if first.Before(u.first) {
		u.first = first
	}
	if name == "" || name == "*" {
		u.unnamed = true
	} else if at, known := u.names[name]; !known || first.Before(at) {
		u.names[name] = first
	}
}

// useURLs counts every URL that a binding of the cluster allows.
func (g *ownGrant) useURLs(verb string, first time.Time) {
	if g.Namespace != "" {
		return
	}
	for i := range g.rules {
		if has(g.rules[i].Verbs, verb) {
			for _, url := range g.rules[i].NonResourceURLs {
				g.use(right{verb: verb, url: url}, "", first)
			}
		}
	}
}

// used are the uses in a stable order.
func (g *ownGrant) used() []*use {
	return slices.SortedFunc(maps.Values(g.uses), func(a, b *use) int {
		return cmp.Or(cmp.Compare(a.url, b.url), cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.group, b.group), cmp.Compare(a.resource, b.resource), cmp.Compare(a.verb, b.verb))
	})
}

// attribute tells of each use through which binding of the identity it was, and
// puts what the log does not tell down to one that allows it: so that no right
// that was used is lost, whether the log names no binding or one that is no more.
func attribute(own []*ownGrant, all map[remit.Ref]*ownGrant, used []remit.Usage) {
	byRef := map[remit.Ref]*ownGrant{}
	for _, g := range own {
		byRef[g.ref()] = g
	}
	// What is left as it is counts first, then what reaches least.
	order := slices.SortedStableFunc(slices.Values(own), func(a, b *ownGrant) int {
		rank := func(g *ownGrant) int {
			switch {
			case g.left != "":
				return 0
			case g.Namespace != "":
				return 1
			}
			return 2
		}
		return rank(a) - rank(b)
	})
	for i := range used {
		u := &used[i]
		r, name, ok := rightOf(u)
		if !ok || u.Outcome == remit.Denied {
			continue
		}
		if r.url == "*" { // too many to tell: whatever they may have been
			for _, g := range own {
				g.useURLs(r.verb, u.First)
			}
			continue
		}
		if g := byRef[u.Binding]; g != nil && g.allows(r, name) {
			g.use(r, name, u.First)
			continue
		}
		if b := all[u.Binding]; b != nil && byRef[u.Binding] == nil && b.allows(r, name) &&
			slices.ContainsFunc(b.subjects, func(s rbacv1.Subject) bool { return s.Kind == rbacv1.GroupKind }) {
			continue // as a member of a group, which it stays
		}
		for _, g := range order {
			if g.allows(r, name) {
				g.use(r, name, u.First)
				if name != "*" { // one may allow some of these, and one the others
					break
				}
			}
		}
	}
}

// reduced is what becomes of one binding.
type reduced struct {
	*ownGrant
	parts []part
	words []string // of what is kept though the log cannot show its use
}

// reduceAll says what becomes of the bindings that change.
func reduceAll(own []*ownGrant, n narrowing) (out []reduced) {
	var every []*use
	for _, g := range own {
		every = append(every, g.used()...)
	}
	for _, g := range own {
		if g.left != "" {
			continue
		}
		r := reduced{ownGrant: g}
		var kept []rbacv1.PolicyRule
		kept, r.words = unseenOf(g.rules, every)
		r.parts = narrow(g.Namespace, g.rules, g.used(), kept, n)
		if len(r.parts) == 1 && r.parts[0].namespace == g.Namespace && coverAll(r.parts[0].rules, g.rules) {
			g.left = "all of it was used"
			continue
		}
		out = append(out, r)
	}
	return out
}

func (e *Enforcer) planReduce(ctx context.Context, o connector.Order) (connector.Planned, error) {
	const op = "plan reduction"
	var planned connector.Planned
	identity, err := orderedIdentity(op, o)
	if err != nil {
		return planned, err
	}
	if o.Use == nil || !o.Use.Since.Before(o.Use.Until) {
		return planned, remit.Errorf(remit.Invalid, op, "the order does not tell what was used")
	}
	if err := e.mayContain(ctx, op, identity); err != nil {
		return planned, err
	}
	if err := ownNamespace(op, identity); err != nil {
		return planned, err
	}
	switch identity.Kind {
	case "Group":
		return planned, remit.Errorf(remit.Unsupported, op, "the log tells what the members of %s do, and not by which group they may: reduce the members, or take the group out of its bindings by hand", identity)
	case "Node":
		return planned, remit.Errorf(remit.Unsupported, op, "what a node may do is decided by the node authorizer, not by bindings")
	case "ServiceAccount":
		if _, err := e.account(ctx, op, identity); err != nil {
			return planned, err
		}
	}
	bindings, err := e.grantBindings(ctx, op, "ClusterRoleBinding", "RoleBinding")
	if err != nil {
		return planned, err
	}
	roles, err := e.roleRules(ctx, op)
	if err != nil {
		return planned, err
	}
	all := map[remit.Ref]*ownGrant{}
	var own []*ownGrant
	var byGroup []*ownGrant
	groups := groupsOf(identity)
	for _, b := range bindings {
		g := &ownGrant{grantBinding: b, rules: roles[roleOf(b)].rules, uses: map[right]*use{}}
		all[b.ref()] = g
		switch {
		case len(b.without(identity)) < len(b.subjects):
			if b.CreationTimestamp.After(o.Use.Since) {
				g.left = fmt.Sprintf("it was made on %s, within the period", until(b.CreationTimestamp.Time))
			}
			own = append(own, g)
		case slices.ContainsFunc(b.subjects, func(s rbacv1.Subject) bool {
			return s.Kind == rbacv1.GroupKind && slices.Contains(groups, s.Name)
		}):
			byGroup = append(byGroup, g)
		}
	}
	if len(own) == 0 {
		return planned, remit.Errorf(remit.NotFound, op, "no binding names %s: there is nothing of its own to reduce", identity)
	}
	if err := readsLogged(op, own, o.Use.Logged); err != nil {
		return planned, err
	}
	attribute(own, all, o.Use.Used)
	period := o.Use.Until.Sub(o.Use.Since)
	changes := reduceAll(own, narrowing{most: o.Use.Names, settled: o.Use.Until.Add(-period / 3)})
	if slices.ContainsFunc(changes, func(r reduced) bool { return r.administrates() }) {
		if is, others := otherAdministrators(bindings, identity); is && !others {
			return planned, lastAdministrator(op, identity)
		}
	}
	if changes, err = e.dropGone(ctx, op, changes); err != nil {
		return planned, err
	}
	return reduceSteps(op, identity, own, byGroup, changes, roles, o.Use)
}

// reduceSteps are the steps by which bindings become what they are to be, and what
// to know of them.
func reduceSteps(op string, identity remit.Ref, own, byGroup []*ownGrant, changes []reduced, roles map[remit.Ref]ruledRole, used *connector.Use) (connector.Planned, error) {
	var planned connector.Planned
	planned.Why = append(planned.Why, fmt.Sprintf("This is by what the log shows of %s from %s to %s; what it does less often than that is refused afterwards, until the plan is undone.", identity, until(used.Since), until(used.Until)))
	if len(used.Used) == 0 {
		planned.Why = append(planned.Why, fmt.Sprintf("In that time the log shows nothing of %s at all: disable it instead, if nobody needs it.", identity))
	}
	for _, g := range own {
		if g.left != "" {
			planned.Why = append(planned.Why, fmt.Sprintf("The %s stays as it is: %s.", g.ref(), g.left))
		}
	}
	var makeRoles, makeBindings, removals, replacements []remit.Step
	var replaced []reduced
	for _, r := range changes {
		if manager := putsBack(&r.ObjectMeta); manager != "" {
			planned.Why = append(planned.Why, fmt.Sprintf("The %s is managed by %s: change it at its source as well.", r.ref(), manager))
		}
		if len(r.words) > 0 {
			planned.Why = append(planned.Why, fmt.Sprintf("Kept of the %s, as the log cannot show whether it is used: %s. Take out by hand what is not needed.", r.ref(), strings.Join(r.words, "; ")))
		}
		if strong := strongIn(r.parts); strong != "" {
			planned.Why = append(planned.Why, fmt.Sprintf("What it used of the %s is enough to gain more: %s.", r.ref(), strong))
		}
		if len(r.parts) == 0 {
			step := r.step(identity, r.without(identity))
			step.Breaks = fmt.Sprintf("Nothing that the log has shown since %s: it was not used.", until(used.Since))
			removals = append(removals, step)
			continue
		}
		if roles[roleOf(r.grantBinding)].gathers {
			planned.Why = append(planned.Why, fmt.Sprintf("The %s gathers rules from other roles: what is added to it later, %s does not get.", roleOf(r.grantBinding), identity))
		}
		name := reducedName(r.grantBinding, identity, r.parts)
		for _, p := range r.parts {
			role, binding := makeSteps(identity, r.grantBinding, name, p, used)
			makeRoles, makeBindings = append(makeRoles, role), append(makeBindings, binding)
		}
		replacements = append(replacements, r.replaceStep(identity, used))
		replaced = append(replaced, r)
	}
	if n := len(replacements); n > 0 {
		// All at the end: until the last one, another binding may still allow it.
		last := &replacements[n-1]
		_, state, err := stepStates[grantState, replacedState](op, *last)
		if err != nil {
			return connector.Planned{}, err
		}
		state.Denied = takenRights(replaced, finally(changes, own, byGroup))
		last.After = mustJSON(state)
	}
	planned.Steps = slices.Concat(makeRoles, makeBindings, removals, replacements)
	if len(planned.Steps) == 0 {
		planned.Why = append(planned.Why, "There is nothing to take away.")
	}
	return planned, nil
}

// readsLogged refuses a log that shows no reads of anybody, which is one that
// leaves them out, where the identity may read.
func readsLogged(op string, own []*ownGrant, logged []string) error {
	reads := []string{"get", "list", "watch"}
	if slices.ContainsFunc(reads, func(verb string) bool { return slices.Contains(logged, verb) }) {
		return nil
	}
	for _, g := range own {
		if g.left == "" && slices.ContainsFunc(g.rules, func(rule rbacv1.PolicyRule) bool {
			return slices.ContainsFunc(reads, func(verb string) bool { return has(rule.Verbs, verb) })
		}) {
			return remit.Errorf(remit.Unsupported, op, "the log shows no read of anybody, so its audit policy leaves reads out and what is read cannot be told: log them at level Metadata, and reduce when the period is covered")
		}
	}
	return nil
}

// ruledRole is a role; one that gathers has its rules from others, by aggregation.
type ruledRole struct {
	rules   []rbacv1.PolicyRule
	gathers bool
}

// roleRules reads the rules of every role. It lists, as the login that reads may
// do no more.
func (e *Enforcer) roleRules(ctx context.Context, op string) (map[remit.Ref]ruledRole, error) {
	out := map[remit.Ref]ruledRole{}
	for _, kind := range []string{"ClusterRole", "Role"} {
		options := metav1.ListOptions{Limit: pageLimit}
		for tries := 1; ; {
			next, _, err := e.client.page(ctx, listingOf[kind], "", options, func(o runtime.Object) {
				switch o := o.(type) {
				case *rbacv1.ClusterRole: // the controller writes what it gathers into them
					out[remit.Ref{Kind: kind, Name: o.Name}] = ruledRole{o.Rules, o.AggregationRule != nil}
				case *rbacv1.Role:
					out[remit.Ref{Kind: kind, Namespace: o.Namespace, Name: o.Name}] = ruledRole{rules: o.Rules}
				}
			})
			if err != nil && judgeError(err) == anew && tries < enforceTries {
				tries++
				options.Continue = "" // the list grew too old
				continue
			}
			if err != nil {
				return nil, e.explain(op, err)
			}
			if options.Continue = next; next == "" {
				break
			}
		}
	}
	return out, nil
}

// roleOf is the role that a binding gives.
func roleOf(b *grantBinding) remit.Ref {
	ref := remit.Ref{Kind: b.role.Kind, Name: b.role.Name}
	if ref.Kind == "Role" {
		ref.Namespace = b.Namespace
	}
	return ref
}

// dropGone leaves out namespaces that are no more, in which nothing can be made
// nor used. It tries with what is not really made.
func (e *Enforcer) dropGone(ctx context.Context, op string, changes []reduced) ([]reduced, error) {
	gone := map[string]bool{}
	for i := range changes {
		r := &changes[i]
		var kept []part
		for _, p := range r.parts {
			if p.namespace != "" && r.Namespace == "" {
				is, known := gone[p.namespace]
				if !known {
					request, err := e.request("POST", "Role", p.namespace, "")
					if err != nil {
						return nil, err
					}
					probe := &rbacv1.Role{ObjectMeta: ownMeta(probeName)}
					err = e.send(ctx, request.Param("dryRun", metav1.DryRunAll).Body(probe), nil)
					if is = apierrors.IsNotFound(err); err != nil && !is && !apierrors.IsForbidden(err) && !apierrors.IsAlreadyExists(err) {
						return nil, e.explain(op, err)
					}
					gone[p.namespace] = is
				}
				if is {
					continue
				}
			}
			kept = append(kept, p)
		}
		r.parts = kept
	}
	return changes, nil
}

// strongIn names the verbs among some rules by which one can become another.
func strongIn(parts []part) string {
	var found []string
	for _, p := range parts {
		for i := range p.rules {
			for _, verb := range []string{"impersonate", "bind", "escalate"} {
				if has(p.rules[i].Verbs, verb) {
					found = appendNew(found, ruleLine(&p.rules[i]))
				}
			}
		}
	}
	return strings.Join(found, "; ")
}

// formerName is what a name that a reduction made is made of.
var formerName = regexp.MustCompile(`^remit-(.*)-[0-9a-f]{10}$`)

// reducedName names what replaces a binding for an identity: another name for
// another content, so that nothing that is in use is ever changed.
func reducedName(b *grantBinding, identity remit.Ref, parts []part) string {
	const longest = 150 // of a name that may be as long as a URL allows
	text := []string{string(b.UID), b.ref().String(), identity.String()}
	for _, p := range parts {
		text = append(text, p.namespace, string(mustJSON(p.rules)))
	}
	sum := sha256.Sum256(mustJSON(text))
	name := b.Name
	if former := formerName.FindStringSubmatch(name); former != nil && b.Labels[labelManagedBy] == managedByRemit {
		name = former[1]
	}
	return "remit-" + strings.ToValidUTF8(name[:min(len(name), longest)], "") + "-" + hex.EncodeToString(sum[:5])
}

const (
	labelManagedBy = "app.kubernetes.io/managed-by"
	managedByRemit = "remit"
)

// madeState is a role or a binding that a step makes.
type madeState struct {
	Annotations map[string]string   `json:"annotations"`
	Rules       []rbacv1.PolicyRule `json:"rules,omitempty"`
	Role        rbacv1.RoleRef      `json:"role,omitzero"`
	Subjects    []rbacv1.Subject    `json:"subjects,omitempty"`
}

// makeSteps make a role with a part of what was used, and bind the identity to it.
func makeSteps(identity remit.Ref, b *grantBinding, name string, p part, used *connector.Use) (role, binding remit.Step) {
	notes := map[string]string{
		noteReduced: fmt.Sprintf("What %s used of the %s %s between %s and %s, made by Remit in its place. Undo the plan to have the former back.",
			identity, b.role.Kind, b.role.Name, until(used.Since), until(used.Until)),
		noteReducedFrom: b.ref().String(),
	}
	prefix, where := "Cluster", "in the whole cluster"
	if p.namespace != "" {
		prefix, where = "", "in the namespace "+p.namespace
	}
	object := func(kind string) remit.Ref {
		return remit.Ref{Kind: prefix + kind, Namespace: p.namespace, Name: name}
	}
	role = remit.Step{
		Change: changeMakeRole,
		Object: object("Role"),
		Does:   fmt.Sprintf("Make the %s with what %s used of the %s %s.", object("Role"), identity, b.role.Kind, b.role.Name),
		Diff:   lines("+", ruleLines(p.rules)...),
		Undo:   "Delete it.",
		Before: mustJSON(struct{}{}), After: mustJSON(madeState{Annotations: notes, Rules: p.rules}),
	}
	binding = remit.Step{
		Change: changeMakeBinding,
		Object: object("RoleBinding"),
		Does:   fmt.Sprintf("Bind %s, and nobody else, to the %s %s.", identity, object("Role"), where),
		Diff:   lines("+", object("RoleBinding").String()+": "+object("Role").Kind+" "+name, "subject "+identity.String()),
		Undo:   "Delete it.",
		Before: mustJSON(struct{}{}),
		After: mustJSON(madeState{
			Annotations: notes,
			Role:        rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: object("Role").Kind, Name: name},
			Subjects:    []rbacv1.Subject{bindingSubject(identity)},
		}),
	}
	return role, binding
}

// bindingSubject names an identity as a binding does.
func bindingSubject(identity remit.Ref) rbacv1.Subject {
	if identity.Kind == "ServiceAccount" {
		return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: identity.Namespace, Name: identity.Name}
	}
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: identity.Kind, Name: identity.Name}
}

func ruleLines(rules []rbacv1.PolicyRule) []string {
	const most = 200
	out := make([]string, 0, len(rules))
	for i := range rules {
		if i == most {
			return append(out, fmt.Sprintf("… and %d more", len(rules)-most))
		}
		out = append(out, ruleLine(&rules[i]))
	}
	return out
}

// replacedState is a grantState, with what is to be asked of the API server when
// it is done.
type replacedState struct {
	grantState
	Allowed []access `json:"allowed,omitempty"`
	Denied  []access `json:"denied,omitempty"`
}

// access is a request that the identity may or may not make.
type access struct {
	Verb      string `json:"verb"`
	Group     string `json:"group,omitempty"`
	Resource  string `json:"resource,omitempty"` // with its subresource
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	URL       string `json:"url,omitempty"`
}

func (r right) access(name string) access {
	return access{r.verb, r.group, r.resource, r.namespace, name, r.url}
}

func (a access) String() string {
	if a.URL != "" {
		return a.Verb + " " + a.URL
	}
	return a.Verb + " " + remit.Ref{Kind: resourceName(a.Group, a.Resource), Namespace: a.Namespace, Name: cmp.Or(a.Name, "*")}.String()
}

// replaceStep takes the identity out of a binding, in whose place it has others.
func (r *reduced) replaceStep(identity remit.Ref, used *connector.Use) remit.Step {
	step := r.step(identity, r.without(identity))
	step.Grade, step.Change = "", changeReplaceGrant
	_, after, err := stepStates[grantState, replacedState]("", step)
	if err != nil {
		panic(err) // it was written just now
	}
	for _, u := range r.used() {
		names := slices.Sorted(maps.Keys(u.names))
		if u.unnamed || len(names) == 0 {
			names = []string{""}
		}
		if open, granted := covering(r.rules, u.right); !open && names[0] == "" && len(granted) > 0 {
			names = granted
		}
		if len(after.Allowed) < maxChecks {
			after.Allowed = append(after.Allowed, u.access(names[0]))
		}
	}
	step.After = mustJSON(after)
	before := ruleLines(r.rules)
	var now []string
	for _, p := range r.parts {
		for _, line := range ruleLines(p.rules) {
			if p.namespace != r.Namespace {
				line += "  in " + p.namespace
			}
			now = append(now, line)
		}
	}
	for _, line := range before {
		sign := "-"
		if slices.Contains(now, line) {
			sign = " "
		}
		step.Diff += lines(sign, line)
	}
	for _, line := range now {
		if !slices.Contains(before, line) {
			step.Diff += lines("+", line)
		}
	}
	step.Does = fmt.Sprintf("Take %s out of the %s, which gives the %s %s: it keeps what it used.", identity, r.ref(), r.role.Kind, r.role.Name)
	step.Breaks = fmt.Sprintf("What %s may do by it and did not do since %s is refused.", identity, until(used.Since))
	return step
}

// finally returns what says whether a right is allowed when all is done, as far
// as bindings and the groups tell that everybody of the kind is in.
func finally(changes []reduced, own, byGroup []*ownGrant) func(r right, name string) bool {
	return func(r right, name string) bool {
		for _, c := range changes {
			for _, p := range c.parts {
				if (p.namespace == "" || r.url == "" && p.namespace == r.namespace) && allow(p.rules, r, name) {
					return true
				}
			}
		}
		for _, g := range own {
			if g.left != "" && g.allows(r, name) {
				return true
			}
		}
		return slices.ContainsFunc(byGroup, func(g *ownGrant) bool { return g.allows(r, name) })
	}
}

// takenRights are a few rights that are taken away, one or two a binding: of a
// wildcard, ones that every cluster has.
func takenRights(changes []reduced, allowed func(r right, name string) bool) (out []access) {
	const each1, budget1 = 2, 5000
	spell := func(s string, all ...string) []string {
		if s == "*" {
			return all
		}
		return []string{s}
	}
	for _, c := range changes {
		found, budget := 0, budget1
		for i := range c.rules {
			rule := &c.rules[i]
			each(rule, func(r right) bool {
				for _, verb := range spell(r.verb, "delete", "create", "patch", "list", "get") {
					for _, group := range spell(r.group, "", "apps", rbacv1.GroupName) {
						for _, resource := range spell(r.resource, "secrets", "pods", "deployments", "rolebindings") {
							if budget--; budget < 0 || found == each1 {
								return false
							}
							try := right{verb: verb, group: group, resource: strings.Replace(resource, "*/", "deployments/", 1), namespace: c.Namespace}
							if r.url != "" {
								try = right{verb: verb, url: strings.TrimSuffix(r.url, "*")}
								if try.url == "" {
									try.url = "/"
								}
							}
							name := ""
							if len(rule.ResourceNames) > 0 {
								name = rule.ResourceNames[0]
							}
							if !allowed(try, name) {
								out, found = append(out, try.access(name)), found+1
							}
						}
					}
				}
				return true
			})
		}
	}
	return out[:min(len(out), maxChecks)]
}

// made is the object that a step makes.
func (s *madeState) made(ref remit.Ref) (kubernetesObject, error) {
	m := ownMeta(ref.Name)
	m.Annotations = s.Annotations
	switch ref.Kind {
	case "Role":
		return &rbacv1.Role{ObjectMeta: m, Rules: s.Rules}, nil
	case "ClusterRole":
		return &rbacv1.ClusterRole{ObjectMeta: m, Rules: s.Rules}, nil
	case "RoleBinding":
		return &rbacv1.RoleBinding{ObjectMeta: m, RoleRef: s.Role, Subjects: s.Subjects}, nil
	case "ClusterRoleBinding":
		return &rbacv1.ClusterRoleBinding{ObjectMeta: m, RoleRef: s.Role, Subjects: s.Subjects}, nil
	}
	return nil, remit.Errorf(remit.Invalid, "make a role or a binding", "%s is neither", ref)
}

// same says whether an object is as the step made it.
func (s *madeState) same(o kubernetesObject) bool {
	if o.GetLabels()[labelManagedBy] != managedByRemit {
		return false
	}
	switch o := o.(type) {
	case *rbacv1.Role:
		return equality.Semantic.DeepEqual(o.Rules, s.Rules)
	case *rbacv1.ClusterRole:
		return equality.Semantic.DeepEqual(o.Rules, s.Rules) && o.AggregationRule == nil
	case *rbacv1.RoleBinding:
		return o.RoleRef == s.Role && slices.Equal(o.Subjects, s.Subjects)
	case *rbacv1.ClusterRoleBinding:
		return o.RoleRef == s.Role && slices.Equal(o.Subjects, s.Subjects)
	}
	return false
}

// madeNow reads the object of a step that makes one; nil when there is none, and
// a conflict when it is another.
func (e *Enforcer) madeNow(ctx context.Context, op string, step remit.Step) (want, is kubernetesObject, err error) {
	_, after, err := stepStates[struct{}, madeState](op, step)
	if err != nil {
		return nil, nil, err
	}
	if want, err = after.made(step.Object); err != nil {
		return nil, nil, err
	}
	is = want.DeepCopyObject().(kubernetesObject)
	err = e.get(ctx, step.Object.Kind, step.Object.Namespace, step.Object.Name, is)
	switch {
	case apierrors.IsNotFound(err):
		return want, nil, nil
	case err != nil:
		return want, nil, e.explain(op, err)
	case !after.same(is):
		return want, is, remit.Errorf(remit.Conflict, op, "the %s is not as Remit made it", step.Object)
	}
	return want, is, nil
}

func (e *Enforcer) doMake(ctx context.Context, step remit.Step) error {
	const op = "make what was used a role"
	err := e.untilAlone(ctx, func() error {
		want, is, err := e.madeNow(ctx, op, step)
		if err != nil || is != nil {
			return err
		}
		return e.create(ctx, step.Object.Kind, step.Object.Namespace, want)
	})
	return e.explained(op, err)
}

func (e *Enforcer) verifyMake(ctx context.Context, step remit.Step) error {
	const op = "verify a role or a binding"
	_, is, err := e.madeNow(ctx, op, step)
	switch {
	case err != nil:
		return err
	case is == nil:
		return remit.Errorf(remit.Conflict, op, "there is no %s", step.Object)
	}
	return nil
}

// doReplaced waits until the new bindings are known everywhere before it takes the
// identity out of the old one.
func (e *Enforcer) doReplaced(ctx context.Context, step remit.Step) error {
	if err := sleep(ctx, reduceSettle); err != nil {
		return remit.Errorf(remit.Unavailable, "replace a grant", "%w", err)
	}
	return e.doGrants(ctx, step)
}

// undoReplaced waits until the old binding is known everywhere before the new ones
// go.
func (e *Enforcer) undoReplaced(ctx context.Context, step remit.Step) error {
	if err := e.undoGrants(ctx, step); err != nil {
		return err
	}
	if err := sleep(ctx, reduceSettle); err != nil {
		return remit.Errorf(remit.Unavailable, "put a grant back", "%w", err)
	}
	return nil
}

func (e *Enforcer) undoMake(ctx context.Context, step remit.Step) error {
	const op = "delete a role or a binding"
	err := e.untilAlone(ctx, func() error {
		_, is, err := e.madeNow(ctx, op, step)
		if err != nil || is == nil {
			return err
		}
		request, err := e.request("DELETE", step.Object.Kind, step.Object.Namespace, step.Object.Name)
		if err != nil {
			return err
		}
		uid, version := is.GetUID(), is.GetResourceVersion()
		only := &metav1.Preconditions{UID: &uid, ResourceVersion: &version}
		if err := e.send(ctx, request.Body(&metav1.DeleteOptions{Preconditions: only}), nil); !apierrors.IsNotFound(err) {
			return err
		}
		return nil
	})
	return e.explained(op, err)
}

// verifyReplaced asks the API server whether the identity may do what it used, and
// not any more what was taken. What another authorizer than RBAC allows was not
// granted by the binding, and is not the step's to take.
func (e *Enforcer) verifyReplaced(ctx context.Context, step remit.Step) error {
	const op = "verify what is left of a grant"
	if err := e.verifyGrants(ctx, step); err != nil {
		return err
	}
	_, after, err := stepStates[grantState, replacedState](op, step)
	if err != nil {
		return err
	}
	for _, a := range after.Allowed {
		switch status, err := e.review(ctx, after.Identity, a); {
		case err != nil:
			return e.explain(op, err)
		case !status.Allowed:
			return remit.Errorf(remit.Conflict, op, "%s may not %s any more, which it used", after.Identity, a)
		}
	}
	for _, a := range after.Denied {
		switch status, err := e.review(ctx, after.Identity, a); {
		case err != nil:
			return e.explain(op, err)
		case status.Allowed && (status.Reason == "" || strings.HasPrefix(status.Reason, "RBAC")):
			return remit.Errorf(remit.Conflict, op, "%s may still %s: %s", after.Identity, a, truncate(status.Reason, maxLabel))
		}
	}
	return nil
}

// review asks whether an identity may make a request.
func (e *Enforcer) review(ctx context.Context, who remit.Ref, a access) (authorizationv1.SubjectAccessReviewStatus, error) {
	review := authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: who.Name, Groups: groupsOf(who)}}
	if who.Kind == "ServiceAccount" {
		review.Spec.User = accountPrefix + who.Namespace + ":" + who.Name
	}
	if a.URL != "" {
		review.Spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Verb: a.Verb, Path: a.URL}
	} else {
		resource, sub, _ := strings.Cut(a.Resource, "/")
		review.Spec.ResourceAttributes = &authorizationv1.ResourceAttributes{
			Verb: a.Verb, Group: a.Group, Version: "*", Resource: resource, Subresource: sub, Namespace: a.Namespace, Name: a.Name,
		}
	}
	request, err := e.request("POST", "SubjectAccessReview", "", "")
	if err != nil {
		return review.Status, err
	}
	err = e.send(ctx, request.Body(&review), &review)
	return review.Status, err
}
