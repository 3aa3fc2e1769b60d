package kubernetes

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"remit"
	"remit/connector"
)

// grantBinding is a RoleBinding or a ClusterRoleBinding.
type grantBinding struct {
	metav1.ObjectMeta
	kind     string
	role     rbacv1.RoleRef
	subjects []rbacv1.Subject
}

func (b *grantBinding) ref() remit.Ref {
	return remit.Ref{Kind: b.kind, Namespace: b.Namespace, Name: b.Name}
}

func grantBindingOf(o runtime.Object) *grantBinding {
	switch o := o.(type) {
	case *rbacv1.RoleBinding:
		return &grantBinding{o.ObjectMeta, "RoleBinding", o.RoleRef, o.Subjects}
	case *rbacv1.ClusterRoleBinding:
		return &grantBinding{o.ObjectMeta, "ClusterRoleBinding", o.RoleRef, o.Subjects}
	}
	return nil
}

// subjectRef is whom the authorizer takes a subject for; the zero Ref for nobody.
func subjectRef(s rbacv1.Subject, namespace string) remit.Ref {
	switch s.Kind {
	case rbacv1.ServiceAccountKind:
		if ns := cmp.Or(s.Namespace, namespace); ns != "" {
			return remit.Ref{Kind: "ServiceAccount", Namespace: ns, Name: s.Name}
		}
	case rbacv1.UserKind:
		return refOfUser(s.Name)
	case rbacv1.GroupKind:
		return remit.Ref{Kind: "Group", Name: s.Name}
	}
	return remit.Ref{}
}

// without is the subjects of a binding but for an identity.
func (b *grantBinding) without(identity remit.Ref) []rbacv1.Subject {
	out := make([]rbacv1.Subject, 0, len(b.subjects))
	for _, s := range b.subjects {
		if subjectRef(s, b.Namespace) != identity {
			out = append(out, s)
		}
	}
	return out
}

// grantBindings reads all bindings of some kinds.
func (e *Enforcer) grantBindings(ctx context.Context, op string, kinds ...string) ([]*grantBinding, error) {
	var out []*grantBinding
	for _, kind := range kinds {
		var found []*grantBinding
		options := metav1.ListOptions{Limit: pageLimit}
		for tries := 1; ; {
			next, _, err := e.client.page(ctx, listingOf[kind], "", options, func(o runtime.Object) {
				if b := grantBindingOf(o); b != nil {
					found = append(found, b)
				}
			})
			if err != nil && judgeError(err) == anew && tries < enforceTries {
				tries++
				found, options.Continue = nil, "" // the list grew too old
				continue
			}
			if err != nil {
				return nil, e.explain(op, err)
			}
			if options.Continue = next; next == "" {
				break
			}
		}
		out = append(out, found...)
	}
	return out, nil
}

// otherAdministrators says whether anybody but the identity may do everything.
// The group system:masters counts: its certificates work without any binding.
func otherAdministrators(bindings []*grantBinding, identity remit.Ref) (is, others bool) {
	for _, b := range bindings {
		if !b.administrates() {
			continue
		}
		for _, s := range b.subjects {
			switch subjectRef(s, "") {
			case remit.Ref{}:
			case identity:
				is = true
			default:
				others = true
			}
		}
	}
	return is, others
}

func (b *grantBinding) administrates() bool {
	return b.kind == "ClusterRoleBinding" && b.role.Kind == "ClusterRole" && b.role.Name == "cluster-admin"
}

func lastAdministrator(op string, identity remit.Ref) error {
	return remit.Errorf(remit.Forbidden, op, "%s is the last administrator: nobody else is bound to cluster-admin; bind somebody else first", identity)
}

// grantState is what a step about a binding found or is to leave.
type grantState struct {
	Identity remit.Ref        `json:"identity"`
	UID      string           `json:"uid"`
	Role     rbacv1.RoleRef   `json:"role"`
	Subjects []rbacv1.Subject `json:"subjects"`
}

func (e *Enforcer) planGrants(ctx context.Context, identity remit.Ref) (connector.Planned, error) {
	const op = "plan containment"
	var planned connector.Planned
	bindings, err := e.grantBindings(ctx, op, "ClusterRoleBinding", "RoleBinding")
	if err != nil {
		return planned, err
	}
	if is, others := otherAdministrators(bindings, identity); is && !others {
		return planned, lastAdministrator(op, identity)
	}
	groups := map[string]bool{}
	for _, g := range groupsOf(identity) {
		groups[g] = true
	}
	var byGroup []string
	for _, b := range bindings {
		rest := b.without(identity)
		if len(rest) < len(b.subjects) {
			planned.Steps = append(planned.Steps, b.step(identity, rest))
			if manager := putsBack(&b.ObjectMeta); manager != "" {
				planned.Why = append(planned.Why, fmt.Sprintf("The %s is managed by %s: take the subject out at its source as well.", b.ref(), manager))
			}
		}
		for _, s := range b.subjects {
			if s.Kind == rbacv1.GroupKind && groups[s.Name] {
				byGroup = append(byGroup, fmt.Sprintf("%s (%s %s to %s)", b.ref(), b.role.Kind, b.role.Name, s.Name))
			}
		}
	}
	if len(planned.Steps) == 0 {
		if identity.Kind != "ServiceAccount" {
			return planned, remit.Errorf(remit.NotFound, op, "no binding names %s", identity)
		}
		planned.Why = append(planned.Why, fmt.Sprintf("No binding names %s: there is nothing of its own to take away.", identity))
	}
	if len(byGroup) > 0 {
		const most = 10
		more := ""
		if len(byGroup) > most {
			more = fmt.Sprintf(", and %d more", len(byGroup)-most)
			byGroup = byGroup[:most]
		}
		planned.Why = append(planned.Why, fmt.Sprintf("%s keeps what it is granted as a member of a group: %s%s.", identity, strings.Join(byGroup, "; "), more))
	}
	switch identity.Kind {
	case "User":
		planned.Why = append(planned.Why, "The cluster does not know the groups of a user, which come with the login: what they are granted stays. A login of the group system:masters may do everything without any binding.")
	case "Node":
		planned.Why = append(planned.Why, "What a node may do is decided by the node authorizer, not by bindings: that stays.")
	}
	return planned, nil
}

// groupsOf are the groups that everybody of a kind is in.
func groupsOf(identity remit.Ref) []string {
	switch identity.Kind {
	case "ServiceAccount":
		return []string{groupAccounts, accountsOf(identity.Namespace).Name, groupAuthenticated}
	case "Node":
		return []string{groupNodes, groupAuthenticated}
	case "User":
		return []string{groupAuthenticated}
	}
	return nil
}

func (b *grantBinding) step(identity remit.Ref, rest []rbacv1.Subject) remit.Step {
	before := grantState{Identity: identity, UID: string(b.UID), Role: b.role, Subjects: b.subjects}
	after := before
	after.Subjects = rest
	var diff strings.Builder
	fmt.Fprintf(&diff, "  %s: %s %s\n", b.ref(), b.role.Kind, b.role.Name)
	for _, s := range b.subjects {
		if subjectRef(s, b.Namespace) == identity {
			diff.WriteString(lines("-", "subject "+s.Kind+" "+strings.TrimPrefix(s.Namespace+"/", "/")+s.Name))
		}
	}
	where := "in the whole cluster"
	if b.Namespace != "" {
		where = "in the namespace " + b.Namespace
	}
	return remit.Step{
		Grade:  remit.RemoveGrants,
		Object: b.ref(),
		Does:   fmt.Sprintf("Take %s out of the %s, which gives the %s %s %s.", identity, b.ref(), b.role.Kind, b.role.Name, where),
		Diff:   diff.String(),
		Breaks: fmt.Sprintf("Everything that acts as %s is refused what this role allows, at once.", identity),
		Undo:   "Put the subject back where it was; labels, annotations and uid of the binding stay all along.",
		Before: mustJSON(before), After: mustJSON(after),
	}
}

// putsBack says what manages an object and would undo a change of it; "" when
// nothing is known to.
func putsBack(m *metav1.ObjectMeta) string {
	has := func(set map[string]string, prefix string) bool {
		for key := range set {
			if strings.HasPrefix(key, prefix) {
				return true
			}
		}
		return false
	}
	manager := func(names ...string) bool {
		return slices.ContainsFunc(m.ManagedFields, func(f metav1.ManagedFieldsEntry) bool { return slices.Contains(names, f.Manager) })
	}
	switch {
	case has(m.Annotations, "argocd.argoproj.io/"), has(m.Labels, "argocd.argoproj.io/"), manager("argocd-controller", "argocd-application-controller"):
		return "Argo CD, which will put it back when it syncs"
	case has(m.Labels, "kustomize.toolkit.fluxcd.io/"), has(m.Labels, "helm.toolkit.fluxcd.io/"), manager("kustomize-controller", "helm-controller"):
		return "Flux, which will put it back within its interval"
	case m.Labels["app.kubernetes.io/managed-by"] == "Helm", m.Annotations["meta.helm.sh/release-name"] != "", manager("helm"):
		return "Helm, which will put it back with the next upgrade"
	case m.Labels["kubernetes.io/bootstrapping"] != "" && m.Annotations["rbac.authorization.kubernetes.io/autoupdate"] == "true":
		return "the API server itself, which will put it back when it starts"
	}
	return ""
}

// grantNow reads the binding of a step, which must still be the one that was
// planned for.
func (e *Enforcer) grantNow(ctx context.Context, op string, step remit.Step, planned grantState) (*grantBinding, error) {
	var o kubernetesObject = &rbacv1.ClusterRoleBinding{}
	if step.Object.Kind == "RoleBinding" {
		o = &rbacv1.RoleBinding{}
	} else if step.Object.Kind != "ClusterRoleBinding" {
		return nil, remit.Errorf(remit.Invalid, op, "%s is no binding", step.Object)
	}
	err := e.get(ctx, step.Object.Kind, step.Object.Namespace, step.Object.Name, o)
	if apierrors.IsNotFound(err) {
		return nil, remit.Errorf(remit.Conflict, op, "the %s has been deleted since it was planned", step.Object)
	}
	if err != nil {
		return nil, e.explain(op, err)
	}
	b := grantBindingOf(o)
	if string(b.UID) != planned.UID || b.role != planned.Role {
		return nil, remit.Errorf(remit.Conflict, op, "the %s has been made anew since it was planned", step.Object)
	}
	return b, nil
}

// setSubjects makes the subjects of a binding what they are to be, if they are
// as they were.
func (e *Enforcer) setSubjects(ctx context.Context, op string, step remit.Step, from, to grantState) error {
	err := e.untilAlone(ctx, func() error {
		b, err := e.grantNow(ctx, op, step, to)
		if err != nil || slices.Equal(b.subjects, to.Subjects) {
			return err
		}
		if !slices.Equal(b.subjects, from.Subjects) {
			return remit.Errorf(remit.Conflict, op, "the subjects of the %s have been changed by somebody else since it was planned", step.Object)
		}
		subjects := to.Subjects
		if subjects == nil {
			subjects = []rbacv1.Subject{}
		}
		return e.patch(ctx, b.kind, b, map[string]any{"subjects": subjects})
	})
	return e.explained(op, err)
}

func (e *Enforcer) doGrants(ctx context.Context, step remit.Step) error {
	const op = "remove a grant"
	before, after, err := stepStates[grantState, grantState](op, step)
	if err != nil {
		return err
	}
	// Another plan may have removed the other administrators meanwhile. Two that
	// do so within the same milliseconds would not see each other; the group
	// system:masters, bound in every cluster, is there for that.
	if planned := (&grantBinding{kind: step.Object.Kind, role: before.Role}); planned.administrates() {
		bindings, err := e.grantBindings(ctx, op, "ClusterRoleBinding")
		if err != nil {
			return err
		}
		if is, others := otherAdministrators(bindings, before.Identity); is && !others {
			return lastAdministrator(op, before.Identity)
		}
	}
	return e.setSubjects(ctx, op, step, before, after)
}

func (e *Enforcer) undoGrants(ctx context.Context, step remit.Step) error {
	const op = "put a grant back"
	before, after, err := stepStates[grantState, grantState](op, step)
	if err != nil {
		return err
	}
	return e.setSubjects(ctx, op, step, after, before)
}

func (e *Enforcer) verifyGrants(ctx context.Context, step remit.Step) error {
	const op = "verify a removed grant"
	_, after, err := stepStates[grantState, grantState](op, step)
	if err != nil {
		return err
	}
	b, err := e.grantNow(ctx, op, step, after)
	if err != nil {
		return err
	}
	if len(b.without(after.Identity)) < len(b.subjects) {
		return remit.Errorf(remit.Conflict, op, "the %s names %s again", step.Object, after.Identity)
	}
	return nil
}
