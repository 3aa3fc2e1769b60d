package kubernetes

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"remit"
	"remit/connector"
)

// Enforcer contains identities of one cluster and keeps its guard. It implements
// [connector.Enforcer] and is safe for concurrent use. Its login is another than
// the one that reads, with the rights of [EnforcerRights].
//
// It tries a request again only when another writer came in between: whoever
// carries out a plan tries again what is [remit.Unavailable].
type Enforcer struct {
	client *client
	login  string
	guard  Guard

	quarantine QuarantineMode

	current atomic.Int64 // until when the policies are believed to be in place, in Unix nanoseconds
	known   atomic.Pointer[knownSelf]
}

// knownSelf is as whom the cluster knows this login, and until when that is
// believed: its groups may change.
type knownSelf struct {
	user  authenticationv1.UserInfo
	until time.Time
}

// selfBelieved is for how long.
const selfBelieved = 10 * time.Minute

var _ connector.Enforcer = (*Enforcer)(nil)

// OpenEnforcer connects to the cluster that the configuration names, as [Open]
// does. It makes no request.
func OpenEnforcer(cfg Config) (*Enforcer, error) {
	c, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	return &Enforcer{client: c.client, login: c.login, guard: cfg.Guard, quarantine: cfg.Quarantine}, nil
}

// OpenEnforcerRESTConfig connects with a configuration of client-go, for tests
// and for programs that have one.
func OpenEnforcerRESTConfig(config *rest.Config) (*Enforcer, error) {
	const login = "the given configuration"
	client, err := newClient(config)
	if err != nil {
		return nil, remit.Errorf(remit.Invalid, "open kubeconfig", "%s cannot be used: %w", login, err)
	}
	return &Enforcer{client: client, login: login}, nil
}

// enforceSystemNamespace holds what Remit itself keeps in a cluster.
const enforceSystemNamespace = "remit-system"

// fieldManager is the name under which changes appear in managedFields.
const fieldManager = "remit"

const (
	enforceTimeout = 30 * time.Second // of one request
	enforceTries   = 8                // against other writers of the same object
)

// EnforcerRights are the least rights of an enforcer's login: the rules of a
// ClusterRole, and those of a Role in the namespace remit-system, which is made by
// hand then: deploy/kubernetes/enforcer.yaml has both. A login that may make
// Secrets and ConfigMaps everywhere needs no Role, and Prepare makes the namespace.
//
// Who may bind roles can become an administrator: guard this login like one. The
// right cannot be less, as a grant that cannot be put back must not be removed.
func EnforcerRights() (cluster, system []rbacv1.PolicyRule) {
	cluster = []rbacv1.PolicyRule{
		// Prepare: the namespace, the policy and its binding.
		{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"create"}},
		{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"get"}, ResourceNames: []string{enforceSystemNamespace}},
		{
			APIGroups: []string{"admissionregistration.k8s.io"},
			Resources: []string{"validatingadmissionpolicies", "validatingadmissionpolicybindings"}, Verbs: []string{"create"},
		},
		{
			APIGroups: []string{"admissionregistration.k8s.io"},
			Resources: []string{"validatingadmissionpolicies", "validatingadmissionpolicybindings"}, Verbs: []string{"get", "update"},
			ResourceNames: append([]string{policyName, guardName}, guardNames()...),
		},
		{
			APIGroups: []string{"admissionregistration.k8s.io"},
			Resources: []string{"validatingadmissionpolicies", "validatingadmissionpolicybindings"}, Verbs: []string{"delete"},
			ResourceNames: guardNames(),
		},
		// The API server's own audience, which a guard must not refuse.
		{NonResourceURLs: []string{"/.well-known/openid-configuration"}, Verbs: []string{"get"}},
		// Who writes a policy must be able to get a Secret named "*", which no
		// Secret is: this gives no Secret away.
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}, ResourceNames: []string{"*"}},
		// Grants. To write a binding one must hold the role's rights or bind.
		{APIGroups: []string{rbacv1.GroupName}, Resources: []string{"rolebindings", "clusterrolebindings"}, Verbs: []string{"get", "list", "create", "patch", "delete"}},
		// Roles with what was used. To write one, one must hold its rights or
		// escalate.
		{APIGroups: []string{rbacv1.GroupName}, Resources: []string{"roles", "clusterroles"}, Verbs: []string{"get", "list", "create", "delete", "bind", "escalate"}},
		// To ask whether what was used is still allowed, what was taken is not, and a
		// credential is refused.
		{APIGroups: []string{"authorization.k8s.io"}, Resources: []string{"subjectaccessreviews"}, Verbs: []string{"create"}},
		// Accounts, and making them anew.
		{APIGroups: []string{""}, Resources: []string{"serviceaccounts"}, Verbs: []string{"get", "create", "patch", "delete"}},
		// Pods, which are deleted to end the tokens that are bound to them.
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get", "list", "delete"}},
		// Workloads, which are stopped, and policies that take the network from them.
		{APIGroups: []string{""}, Resources: []string{"replicationcontrollers"}, Verbs: []string{"get", "list", "patch"}},
		{APIGroups: []string{appsv1.GroupName}, Resources: []string{"deployments", "statefulsets", "daemonsets", "replicasets"}, Verbs: []string{"get", "list", "patch"}},
		{APIGroups: []string{batchv1.GroupName}, Resources: []string{"jobs", "cronjobs"}, Verbs: []string{"get", "list", "patch"}},
		{APIGroups: []string{networkingv1.GroupName}, Resources: []string{"networkpolicies"}, Verbs: []string{"get", "list", "create", "delete"}},
		// Tokens that lie in Secrets, which are deleted and marked and never read.
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"patch", "delete"}},
	}
	system = []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"create"}}, // never really: the probe
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"create"}},
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get", "patch"}, ResourceNames: []string{containedName}},
	}
	return cluster, system
}

// Prepare implements [connector.Enforcer].
func (e *Enforcer) Prepare(ctx context.Context) error { return e.prepareFreeze(ctx) }

// Plan implements [connector.Enforcer].
func (e *Enforcer) Plan(ctx context.Context, o connector.Order) (connector.Planned, error) {
	switch o.Action {
	case remit.Contain:
		return e.planContain(ctx, o)
	case remit.Revoke:
		return e.planRevoke(ctx, o)
	case remit.Disable:
		return e.planDisable(ctx, o)
	case remit.RemoveIdentity:
		return e.planRemove(ctx, o)
	case remit.Reduce:
		return e.planReduce(ctx, o)
	case remit.Guard:
		return e.planGuard(ctx)
	}
	return connector.Planned{}, remit.Errorf(remit.Unsupported, "plan", "%s is not what the connector of Kubernetes can do", cmp.Or(o.Action, "no action"))
}

// orderedIdentity is whom an order is about.
func orderedIdentity(op string, o connector.Order) (remit.Ref, error) {
	identity := o.Identity
	if identity == (remit.Ref{}) && o.Subject.Record == remit.KindIdentity {
		identity = o.Subject.Ref
	}
	if identity.Kind == "User" {
		identity = refOfUser(identity.Name) // accounts and nodes are users too
	}
	if identity.Name == "" || identity.Kind == "ServiceAccount" && identity.Namespace == "" {
		return identity, remit.Errorf(remit.Invalid, op, "the order does not name an identity")
	}
	return identity, nil
}

func (e *Enforcer) planContain(ctx context.Context, o connector.Order) (connector.Planned, error) {
	const op = "plan containment"
	var planned connector.Planned
	identity, err := orderedIdentity(op, o)
	if err != nil {
		return planned, err
	}
	whole := o
	legacy := func(c string) bool { return strings.HasPrefix(c, LegacyTokenPrefix) }
	if slices.ContainsFunc(o.Stolen, legacy) || slices.ContainsFunc(o.Forged, legacy) {
		o.Stolen, o.Forged = slices.DeleteFunc(slices.Clone(o.Stolen), legacy), slices.DeleteFunc(slices.Clone(o.Forged), legacy)
		planned.Why = append(planned.Why, "A long-lived token has no name that admission sees, so it can be frozen only together with its account, and what it changes goes on: `remit revoke` ends it.")
	}
	frozen, err := freezeLevels(o.Stolen, o.Forged, o.Minters)
	if err != nil {
		return planned, err
	}
	grades := o.Grades
	if grades == nil {
		grades = []remit.Grade{remit.RemoveGrants}
		if len(frozen) > 0 {
			grades = []remit.Grade{remit.FreezeCredentials}
			planned.Why = append(planned.Why, "The credentials are known, so they alone are frozen: what else the identity does goes on. They can still read; to stop that, remove the grants as well.")
		} else {
			planned.Why = append(planned.Why, "No single credential is known to be stolen, so the grants of the identity are removed: it acts at once, and can be undone.")
		}
	}
	if err := e.mayContain(ctx, op, identity); err != nil {
		return planned, err
	}
	if identity.Kind == "ServiceAccount" {
		if _, err := e.account(ctx, op, identity); err != nil {
			return planned, err
		}
	}
	if key, ok := keyOfAccount(identity); ok && slices.Contains(grades, remit.KillTokens) {
		// For ten seconds the API server believes a token that has ended, and its
		// holder could mint one of the account that was made anew.
		frozen[key] = holdAll
		if !slices.Contains(grades, remit.FreezeCredentials) {
			grades = append([]remit.Grade{remit.FreezeCredentials}, grades...)
		}
	}
	for _, grade := range remit.Grades { // the mildest first, whatever their order is
		if !slices.Contains(grades, grade) {
			continue
		}
		var add connector.Planned
		var err error
		switch grade {
		case remit.FreezeCredentials:
			add, err = e.planFreeze(ctx, identity, frozen)
		case remit.RefuseCredentials:
			add, err = e.planRefuse(ctx, identity, frozen)
		case remit.RemoveGrants:
			add, err = e.planGrants(ctx, identity)
		case remit.KillTokens:
			add, err = e.planTokens(ctx, identity, whole)
		case remit.Quarantine:
			add, err = e.planQuarantine(ctx, identity)
		}
		// What cannot be done must not keep from what can.
		if leftOut := grade == remit.RefuseCredentials || grade == remit.Quarantine; leftOut && remit.KindOf(err) == remit.Unsupported && len(grades) > 1 {
			add, err = connector.Planned{Why: append(add.Why, fmt.Sprintf("The grade %s is left out: %v.", grade, errors.Unwrap(err)))}, nil
		}
		if err != nil {
			return connector.Planned{}, err
		}
		planned.Steps = append(planned.Steps, add.Steps...)
		planned.Why = append(planned.Why, add.Why...)
	}
	for _, grade := range grades {
		if !slices.Contains(remit.Grades, grade) {
			return connector.Planned{}, remit.Errorf(remit.Invalid, op, "no grade of containment is called %q", grade)
		}
	}
	return planned, nil
}

// enforceGrade is how the steps of one grade, or of one sort of change, are
// carried out.
type enforceGrade struct {
	do, verify, undo func(context.Context, remit.Step) error
}

func (e *Enforcer) grade(step remit.Step) (enforceGrade, error) {
	switch step.Change {
	case changeDeleteSecret:
		return enforceGrade{e.doDeleteSecret, e.verifyDeleteSecret, e.undoDeleteSecret}, nil
	case changeInvalidateToken:
		return enforceGrade{e.doInvalidate, e.verifyInvalidate, e.undoInvalidate}, nil
	case changeAutomount:
		return enforceGrade{e.doAutomount, e.verifyAutomount, e.undoAutomount}, nil
	case changeDeleteAccount:
		return enforceGrade{e.doDeleteAccount, e.verifyDeleteAccount, e.undoDeleteAccount}, nil
	case changeMakeRole, changeMakeBinding:
		return enforceGrade{e.doMake, e.verifyMake, e.undoMake}, nil
	case changeReplaceGrant:
		return enforceGrade{e.doReplaced, e.verifyReplaced, e.undoReplaced}, nil
	case "":
	default:
		return enforceGrade{}, remit.Errorf(remit.Unsupported, "carry out", "steps that are to %q are not known here", step.Change)
	}
	switch step.Grade {
	case remit.FreezeCredentials:
		return enforceGrade{e.doFreeze, e.verifyFreeze, e.undoFreeze}, nil
	case remit.RemoveGrants:
		return enforceGrade{e.doGrants, e.verifyGrants, e.undoGrants}, nil
	case remit.RefuseCredentials:
		return enforceGrade{e.doFreeze, e.verifyRefuse, e.undoFreeze}, nil
	case remit.KillTokens:
		if step.Object.Kind == "Pod" {
			return enforceGrade{e.doPod, e.verifyPod, e.undoPod}, nil
		}
		return enforceGrade{e.doTokens, e.verifyTokens, e.undoTokens}, nil
	case remit.Quarantine:
		return enforceGrade{e.doQuarantine, e.verifyQuarantine, e.undoQuarantine}, nil
	case "":
		if step.Object.Kind == kindPolicy || step.Object.Kind == kindBinding {
			return enforceGrade{e.doGuard, e.verifyGuard, e.undoGuard}, nil
		}
	}
	return enforceGrade{}, remit.Errorf(remit.Unsupported, "contain", "steps of the grade %q are not known here", step.Grade)
}

// Do implements [connector.Enforcer].
func (e *Enforcer) Do(ctx context.Context, step remit.Step) error {
	g, err := e.grade(step)
	if err != nil {
		return err
	}
	return g.do(ctx, step)
}

// Verify implements [connector.Enforcer].
func (e *Enforcer) Verify(ctx context.Context, step remit.Step) error {
	g, err := e.grade(step)
	if err != nil {
		return err
	}
	return g.verify(ctx, step)
}

// Undo implements [connector.Enforcer].
func (e *Enforcer) Undo(ctx context.Context, step remit.Step) error {
	g, err := e.grade(step)
	if err != nil {
		return err
	}
	return g.undo(ctx, step)
}

// stepStates reads what a step found and what it is to leave.
func stepStates[B, A any](op string, step remit.Step) (before B, after A, err error) {
	if err = json.Unmarshal(step.Before, &before); err == nil {
		err = json.Unmarshal(step.After, &after)
	}
	if err != nil {
		err = remit.Errorf(remit.Invalid, op, "the step about %s cannot be read: %w", step.Object, err)
	}
	return before, after, err
}

// mustJSON writes a state of a step; its types hold nothing that cannot be
// written.
func mustJSON(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

// explain turns a failed request into an error of the contract.
func (e *Enforcer) explain(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsNotFound(err):
		return remit.Errorf(remit.NotFound, op, "%w", err)
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return remit.Errorf(remit.Conflict, op, "%w", err)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsMethodNotSupported(err), apierrors.IsRequestEntityTooLargeError(err):
		return remit.Errorf(remit.Unsupported, op, "the cluster does not take it: %w", err)
	}
	return explain(op, err, e.client.config.Host, e.login)
}

// request begins a request about an object, or with name "" its collection.
func (e *Enforcer) request(verb, kind, namespace, name string) (*rest.Request, error) {
	r := enforcedResources[kind]
	rc, err := e.client.of(r.gv)
	if err != nil {
		return nil, err
	}
	request := rc.Verb(verb).Resource(r.resource).MaxRetries(0).Timeout(enforceTimeout)
	if verb != "GET" && verb != "DELETE" {
		request.Param("fieldManager", fieldManager)
	}
	if namespace != "" {
		request.Namespace(namespace)
	}
	if name != "" {
		request.Name(name)
	}
	return request, nil
}

// send sends a request with what is in it and reads the answer.
func (e *Enforcer) send(ctx context.Context, request *rest.Request, into runtime.Object) error {
	ctx, cancel := context.WithTimeout(quiet(ctx), enforceTimeout)
	defer cancel()
	result := request.Do(ctx)
	if into == nil {
		return result.Error()
	}
	return result.Into(into)
}

func (e *Enforcer) get(ctx context.Context, kind, namespace, name string, into runtime.Object) error {
	request, err := e.request("GET", kind, namespace, name)
	if err != nil {
		return err
	}
	return e.send(ctx, request, into)
}

func (e *Enforcer) create(ctx context.Context, kind, namespace string, o runtime.Object) error {
	request, err := e.request("POST", kind, namespace, "")
	if err != nil {
		return err
	}
	return e.send(ctx, request.Body(o), nil)
}

// patch changes just what it names: an update would lose the fields that a newer
// server has and this program does not know. The version in it makes it fail
// when another has written the object since it was read.
func (e *Enforcer) patch(ctx context.Context, kind string, m metav1.Object, change map[string]any) error {
	request, err := e.request("PATCH", kind, m.GetNamespace(), m.GetName())
	if err != nil {
		return err
	}
	metadata, _ := change["metadata"].(map[string]any)
	if metadata == nil {
		metadata = map[string]any{}
	}
	metadata["uid"], metadata["resourceVersion"] = m.GetUID(), m.GetResourceVersion()
	change["metadata"] = metadata
	body, err := json.Marshal(change)
	if err != nil {
		return err
	}
	// Verb does not set what Patch does.
	return e.send(ctx, request.SetHeader("Content-Type", string(types.MergePatchType)).Body(body), nil)
}

// untilAlone calls f again as long as other writers come in between.
func (e *Enforcer) untilAlone(ctx context.Context, f func() error) error {
	var err error
	for attempt := 1; attempt <= enforceTries; attempt++ {
		if err = f(); !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			return err
		}
		// Not as patient as a scan: somebody waits for a credential to be cut.
		if err := sleep(ctx, quickRetry.delay(attempt, 0)); err != nil {
			return err
		}
	}
	return remit.Errorf(remit.Unavailable, "contain", "others keep writing the same object: %w", err)
}

var quickRetry = retryPolicy{attempts: enforceTries, base: 5 * time.Millisecond, cap: 500 * time.Millisecond}

// self asks as whom the cluster knows this login.
func (e *Enforcer) self(ctx context.Context, op string) (authenticationv1.UserInfo, error) {
	if known := e.known.Load(); known != nil && time.Now().Before(known.until) {
		return known.user, nil
	}
	request, err := e.request("POST", "SelfSubjectReview", "", "")
	if err != nil {
		return authenticationv1.UserInfo{}, err
	}
	var review authenticationv1.SelfSubjectReview
	if err := e.send(ctx, request.Body(&authenticationv1.SelfSubjectReview{}), &review); err != nil {
		return authenticationv1.UserInfo{}, e.explain(op, err)
	}
	e.known.Store(&knownSelf{user: review.Status.UserInfo, until: time.Now().Add(selfBelieved)})
	return review.Status.UserInfo, nil
}

// mayContain refuses what would end the cluster, or Remit's own access to it.
func (e *Enforcer) mayContain(ctx context.Context, op string, identity remit.Ref) error {
	self, err := e.self(ctx, op)
	if err != nil {
		return err
	}
	switch {
	case refOfUser(self.Username) == identity, identity.Kind == "Group" && slices.Contains(self.Groups, identity.Name):
		return remit.Errorf(remit.Forbidden, op, "%s is what Remit itself enforces as: contain it by hand, with another login", identity)
	case (identity.Kind == "Group" || identity.Kind == "User") && strings.HasPrefix(identity.Name, "system:") && identity.Name != userAnonymous:
		return remit.Errorf(remit.Forbidden, op, "%s is a part of the cluster itself, which would not work without it", identity)
	case identity.Kind != "Group" && identity.Kind != "User" && identity.Kind != "ServiceAccount" && identity.Kind != "Node":
		return remit.Errorf(remit.Unsupported, op, "Kubernetes does not grant anything to %s", identity)
	}
	return nil
}

// account reads a service account.
func (e *Enforcer) account(ctx context.Context, op string, ref remit.Ref) (*corev1.ServiceAccount, error) {
	var account corev1.ServiceAccount
	err := e.get(ctx, "ServiceAccount", ref.Namespace, ref.Name, &account)
	if apierrors.IsForbidden(err) { // the login for reading, with which plans are previewed, lists
		found := false
		options := metav1.ListOptions{FieldSelector: "metadata.name=" + ref.Name}
		_, _, err = e.client.page(ctx, listingOf["ServiceAccount"], ref.Namespace, options, func(o runtime.Object) {
			if a, ok := o.(*corev1.ServiceAccount); ok && a.Name == ref.Name {
				account, found = *a, true
			}
		})
		if err == nil && !found {
			return nil, remit.Errorf(remit.NotFound, op, "there is no %s", ref)
		}
	}
	if apierrors.IsNotFound(err) {
		return nil, remit.Errorf(remit.NotFound, op, "there is no %s", ref)
	}
	return &account, e.explain(op, err)
}

// kubernetesObject is an object with its metadata.
type kubernetesObject interface {
	metav1.Object
	runtime.Object
}

// lines writes a difference: each line with its sign.
func lines(sign string, text ...string) string {
	var b strings.Builder
	for _, line := range text {
		fmt.Fprintf(&b, "%s %s\n", sign, line)
	}
	return b.String()
}
