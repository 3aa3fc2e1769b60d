package kubernetes

import (
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit"
)

// workload is the reduced form of a pod and of everything that makes pods.
type workload struct {
	// controller is what made it, from its controller reference; zero for
	// what was made by hand.
	controller    remit.Ref
	controllerUID string

	account  remit.Ref
	template *template // nil where the controller in the model has it already
	replicas *int32
	disabled bool // it has finished, or is suspended

	issuers []string // that the flags of an API server name

	// addresses and node are where a pod runs; "" until it does. They tell
	// from where the tokens that are bound to it may be used.
	addresses, node string
}

// template is what a workload's pods are like.
type template struct {
	images                         []string
	automount                      *bool
	privileged, network, processes bool
	secrets, configMaps            []string // that it mounts, takes variables from or pulls images with
	pulls                          bool     // it names pull secrets itself
	credentials                    []remit.Credential
	claims                         []claim // of the template's own labels
	agent                          agentMatch
}

// maxMounts bounds how many Secrets of one workload are noted.
const maxMounts = 500

func (w *workload) mentions(self remit.Ref, f func(remit.Ref, mentionKind)) {
	if w.template != nil && w.account.Name != "" {
		f(w.account, byWorkload)
	}
	for _, issuer := range w.issuers {
		f(remit.Ref{Kind: "OIDCIssuer", Name: issuer}, byFlag)
	}
}

// podControllers are the kinds that make pods and that the connector lists.
var podControllers = map[string]bool{
	"Deployment": true, "StatefulSet": true, "DaemonSet": true, "ReplicaSet": true,
	"ReplicationController": true, "Job": true, "CronJob": true, "Pod": true,
}

// reservedKinds are words of the model that a custom resource may use too. As
// the kind of a controller they are written with their group.
var reservedKinds = map[string]bool{
	"User": true, "Group": true, "OIDCIssuer": true, "Namespace": true, "Node": true, "ServiceAccount": true,
	"Secret": true, "ConfigMap": true, "Role": true, "ClusterRole": true, "RoleBinding": true, "ClusterRoleBinding": true,
	"CertificateSigningRequest": true, "ValidatingWebhookConfiguration": true, "MutatingWebhookConfiguration": true, "APIService": true,
}

// controllerGroups are the API groups of the pod controllers, so that a custom
// resource that is also called Job is not taken for one.
var controllerGroups = map[string]string{
	"Deployment": "apps", "StatefulSet": "apps", "DaemonSet": "apps", "ReplicaSet": "apps",
	"ReplicationController": "", "Job": "batch", "CronJob": "batch", "Pod": "",
}

// customKind is the word for a kind of custom resource, or of any controller.
func customKind(group, kind string) string {
	if reservedKinds[kind] {
		return kind + "." + group
	}
	if want, ok := controllerGroups[kind]; ok && want != group && group != "extensions" {
		return kind + "." + group
	}
	return kind
}

// controller reads the reference to what made an object. A static pod is made
// by its node's kubelet from a file: it is its own workload.
func controller(o metav1.Object) (remit.Ref, string) {
	for _, ref := range o.GetOwnerReferences() {
		if ref.Controller == nil || !*ref.Controller || ref.Name == "" || ref.Kind == "" {
			continue
		}
		group := ""
		if i := strings.LastIndexByte(ref.APIVersion, '/'); i >= 0 {
			group = ref.APIVersion[:i]
		}
		if ref.Kind == "Node" && group == "" {
			return remit.Ref{}, ""
		}
		return remit.Ref{
			Kind:      truncate(customKind(group, ref.Kind), maxLabel),
			Namespace: strings.Clone(o.GetNamespace()),
			Name:      truncate(ref.Name, maxLabel),
		}, strings.Clone(string(ref.UID))
	}
	return remit.Ref{}, ""
}

// controllerOf returns the controller of an object in the model.
func controllerOf(o *object) remit.Ref {
	if o == nil {
		return remit.Ref{}
	}
	if w, ok := o.body.(*workload); ok {
		return w.controller
	}
	return remit.Ref{}
}

func (r *reducer) deployment(d *appsv1.Deployment) *workload {
	return r.controllerBody("Deployment", d, d.Spec.Replicas, &d.Spec.Template)
}

func (r *reducer) cronJob(c *batchv1.CronJob) *workload {
	w := r.controllerBody("CronJob", c, nil, &c.Spec.JobTemplate.Spec.Template)
	w.disabled = c.Spec.Suspend != nil && *c.Spec.Suspend
	return w
}

func (r *reducer) job(j *batchv1.Job) *workload {
	w := r.controllerBody("Job", j, nil, &j.Spec.Template)
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			w.disabled = true
		}
	}
	if j.Spec.Suspend != nil && *j.Spec.Suspend {
		w.disabled = true
	}
	return w
}

// controllerBody reduces anything that makes pods from a template.
func (r *reducer) controllerBody(kind string, o metav1.Object, replicas *int32, t *corev1.PodTemplateSpec) *workload {
	if t == nil { // a ReplicationController may have none
		t = &corev1.PodTemplateSpec{}
	}
	w := r.podBody(remit.Ref{Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName()}, o, &t.ObjectMeta, &t.Spec)
	if replicas != nil {
		v := *replicas
		w.replicas = &v
	}
	return w
}

func (r *reducer) pod(o *corev1.Pod) *workload {
	w := r.podBody(remit.Ref{Kind: "Pod", Namespace: o.Namespace, Name: o.Name}, o, &o.ObjectMeta, &o.Spec)
	w.disabled = o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed
	if w.template != nil {
		// A pod's labels are its template's: they would be counted twice.
		w.template.claims = nil
	}
	for _, issuer := range apiServerFlags(o)["oidc-issuer-url"] {
		w.issuers = append(w.issuers, truncate(issuer, maxLabel))
	}
	if !w.disabled {
		w.addresses, w.node = podAddresses(o), truncate(o.Spec.NodeName, maxLabel)
	}
	return w
}

// podAddresses lists a pod's addresses, those of both families.
func podAddresses(o *corev1.Pod) string {
	var list []string
	for _, ip := range o.Status.PodIPs {
		if len(list) < maxAddresses && ip.IP != "" {
			list = append(list, truncate(ip.IP, maxLabel))
		}
	}
	if len(list) == 0 && o.Status.PodIP != "" {
		list = append(list, truncate(o.Status.PodIP, maxLabel))
	}
	return strings.Join(list, ",")
}

// maxAddresses bounds how many addresses of a pod or node are noted. Kubernetes
// gives a pod two, one of each family.
const maxAddresses = 8

// place projects where a running pod is, whatever it is part of.
func (p *projection) place(ref remit.Ref, o *object) {
	w, ok := o.body.(*workload)
	if !ok || w.addresses == "" {
		return
	}
	r := remit.Resource{Record: p.record(remit.ResourceID(p.system, ref), ref, &o.meta), Type: "pod"}
	r.Labels = nil // they are its workload's
	set(&r.Attributes, "addresses", w.addresses)
	set(&r.Attributes, "node", w.node)
	set(&r.Attributes, "service-account", w.account.Name)
	p.out.Resources = append(p.out.Resources, r)
}

// podBody reduces a pod, or the template of one. o is the object that holds the
// template, which is the pod itself for a pod.
func (r *reducer) podBody(self remit.Ref, o metav1.Object, podMeta *metav1.ObjectMeta, spec *corev1.PodSpec) *workload {
	w := &workload{}
	w.controller, w.controllerUID = controller(o)
	name := spec.ServiceAccountName
	if name == "" {
		name = spec.DeprecatedServiceAccount
	}
	if name == "" {
		name = "default" // as the ServiceAccount admission controller does
	}
	w.account = remit.Ref{Kind: "ServiceAccount", Namespace: strings.Clone(o.GetNamespace()), Name: truncate(name, maxLabel)}

	t := &template{
		network:     spec.HostNetwork,
		processes:   spec.HostPID,
		pulls:       len(spec.ImagePullSecrets) > 0,
		credentials: bound(r.credentials.fromPodSpec(self, podMeta, spec)),
		claims:      r.owners.claims(podMeta.Labels, podMeta.Annotations),
		agent:       r.agents.match(o, podMeta, spec),
	}
	if spec.AutomountServiceAccountToken != nil {
		v := *spec.AutomountServiceAccountToken
		t.automount = &v
	}
	images, secrets, configMaps := map[string]struct{}{}, map[string]struct{}{}, map[string]struct{}{}
	note := func(set map[string]struct{}, name string) {
		if name != "" && len(set) < maxMounts {
			set[name] = struct{}{}
		}
	}
	for _, s := range spec.ImagePullSecrets {
		note(secrets, s.Name)
	}
	eachContainer(spec, func(c *corev1.Container) {
		note(images, c.Image)
		if c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged {
			t.privileged = true
		}
		for _, from := range c.EnvFrom {
			if from.SecretRef != nil {
				note(secrets, from.SecretRef.Name)
			}
			if from.ConfigMapRef != nil {
				note(configMaps, from.ConfigMapRef.Name)
			}
		}
		for _, env := range c.Env {
			if env.ValueFrom == nil {
				continue
			}
			if ref := env.ValueFrom.SecretKeyRef; ref != nil {
				note(secrets, ref.Name)
			}
			if ref := env.ValueFrom.ConfigMapKeyRef; ref != nil {
				note(configMaps, ref.Name)
			}
		}
	})
	for _, v := range spec.Volumes {
		switch {
		case v.Secret != nil:
			note(secrets, v.Secret.SecretName)
		case v.ConfigMap != nil:
			note(configMaps, v.ConfigMap.Name)
		case v.Projected != nil:
			for _, source := range v.Projected.Sources {
				if source.Secret != nil {
					note(secrets, source.Secret.Name)
				}
				if source.ConfigMap != nil {
					note(configMaps, source.ConfigMap.Name)
				}
			}
		case v.CSI != nil && v.CSI.NodePublishSecretRef != nil:
			note(secrets, v.CSI.NodePublishSecretRef.Name)
		}
	}
	t.images, t.secrets, t.configMaps = cloneSorted(images), cloneSorted(secrets), cloneSorted(configMaps)
	w.template = t
	return w
}

// eachContainer calls f for every container of a pod, of whatever sort.
func eachContainer(spec *corev1.PodSpec, f func(*corev1.Container)) {
	for i := range spec.InitContainers {
		f(&spec.InitContainers[i])
	}
	for i := range spec.Containers {
		f(&spec.Containers[i])
	}
	for i := range spec.EphemeralContainers {
		c := corev1.Container(spec.EphemeralContainers[i].EphemeralContainerCommon)
		f(&c)
	}
}

func cloneSorted(set map[string]struct{}) []string {
	if len(set) == 0 {
		return nil
	}
	out := make([]string, 0, len(set))
	for s := range set {
		out = append(out, truncate(s, maxLabel))
	}
	slices.Sort(out)
	return out
}

// slim drops what a controller in the model says already: of the thousands of
// pods and old ReplicaSets only the bones stay. The pods of a StatefulSet or
// DaemonSet keep theirs, for the account that these run as may change and leave
// pods behind that are then workloads of their own; a ReplicaSet's does not.
func (m *model) slim(o *object) {
	w, ok := o.body.(*workload)
	if !ok || w.controller == (remit.Ref{}) || len(w.issuers) > 0 || !steady[w.controller.Kind] || !passing[o.ref.Kind] {
		return
	}
	owner := m.get(w.controller)
	if owner == nil {
		return
	}
	if made, ok := owner.body.(*workload); ok && madeBy(o, w, owner, made) {
		w.template = nil
		o.meta = meta{uid: o.meta.uid}
	}
}

// steady are the controllers whose pods are all alike for as long as they live,
// or that reach their pods through one that is.
var steady = map[string]bool{"ReplicaSet": true, "Job": true, "Deployment": true, "CronJob": true}

// madeBy says whether an object is really what its controller reference says.
// Anybody who may create pods may write any reference into one, and hide it
// behind somebody else's Deployment. Another uid is another controller; a pod
// that runs as another account than its controller's template is its own
// workload, whatever it claims.
func madeBy(o *object, w *workload, owner *object, made *workload) bool {
	if w.controllerUID != "" && owner.meta.uid != "" && w.controllerUID != owner.meta.uid {
		return false
	}
	return o.ref.Kind != "Pod" || w.account == made.account
}

// passing are the kinds that are shown as part of what controls them. A
// Deployment is shown even where an operator made it: it is what people know.
var passing = map[string]bool{"ReplicaSet": true, "Job": true, "Pod": true}

// rolledUp says whether an object is shown as part of its controller.
func (p *projection) rolledUp(o *object) bool {
	const deep = 8 // ReplicaSet, Deployment, and a few of an operator's own
	for range deep {
		w, ok := o.body.(*workload)
		if !ok || w.controller == (remit.Ref{}) || !passing[o.ref.Kind] {
			return ok && o.ref != p.unit.ref
		}
		owner := p.lookup(w.controller)
		if owner == nil {
			return true // it is the evidence for its controller
		}
		if made, ok := owner.body.(*workload); ok {
			if !madeBy(o, w, owner, made) {
				return o.ref != p.unit.ref
			}
		} else {
			return true // a custom resource that is known itself
		}
		o = owner
	}
	return false // a circle of references hides nobody
}

// workload projects something that runs: a controller, a pod of its own, or a
// custom resource that an agent rule names.
func (p *projection) workload(ref remit.Ref, o *object) {
	var w *workload
	m := &meta{}
	isCustom := false
	var agent agentMatch
	if o != nil {
		m = &o.meta
		switch body := o.body.(type) {
		case *custom:
			isCustom = true
			agent = body.agent
		case *workload:
			if ref.Kind == "Pod" {
				p.place(ref, o)
			}
			if p.rolledUp(o) {
				return
			}
			w = body
		}
	}
	if w == nil || w.template == nil {
		// What it is like shows in what it controls.
		if evidence := p.evidence(ref); evidence != nil {
			controlled, _ := evidence.body.(*workload)
			w = &workload{account: controlled.account, template: controlled.template, disabled: controlled.disabled}
			if o == nil {
				m = &meta{claims: evidence.meta.claims, environment: evidence.meta.environment, origin: evidence.meta.origin, created: evidence.meta.created, since: evidence.meta.created}
			}
		}
	}
	if w == nil && !isCustom {
		return
	}

	id := p.identityID(ref)
	identity := remit.Identity{
		Record:  p.record(id, ref, m),
		Type:    remit.Workload,
		Status:  remit.Active,
		Purpose: m.purpose,
		Expires: m.expires,
	}
	sets := []ownedBy{{meta: m}}
	if w != nil && w.template != nil {
		t := w.template
		sets = append(sets, ownedBy{prefix: "pod template", meta: &meta{claims: t.claims}})
		if agent.rule == "" {
			agent = t.agent
		}
		if w.disabled {
			identity.Status = remit.Disabled
		}
		set(&identity.Attributes, "service-account", w.account.Name)
		set(&identity.Attributes, "images", strings.Join(t.images, ","))
		if t.automount != nil {
			set(&identity.Attributes, "automount", strconv.FormatBool(*t.automount))
		}
		if w.replicas != nil {
			set(&identity.Attributes, "replicas", strconv.Itoa(int(*w.replicas)))
		}
		for name, on := range map[string]bool{"privileged": t.privileged, "host-network": t.network, "host-pid": t.processes} {
			if on {
				set(&identity.Attributes, name, "true")
			}
		}
		p.relate(remit.RunsAs, ref, w.account, p.identityID(w.account))
		p.holds(ref, w)
		for _, c := range t.credentials {
			if c.Attributes["automounted"] == "true" && t.automount == nil && p.accountRefusesMount(w.account) {
				continue
			}
			c.ID = remit.CredentialID(p.system, ref, c.Key)
			c.Ref = ref
			p.out.Credentials = append(p.out.Credentials, p.credential(c, ref, m))
		}
	}
	if agent.rule != "" {
		identity.Type = remit.Agent
		set(&identity.Attributes, "agent", agent.rule)
		set(&identity.Attributes, "agent-name", agent.name)
		set(&identity.Attributes, "agent-kind", agent.kind)
		set(&identity.Attributes, "agent-known", strconv.FormatBool(agent.known))
		set(&identity.Attributes, "model-provider", agent.providers)
	}
	if ref.Namespace != "" {
		if ns := p.object("Namespace", "", ref.Namespace); ns != nil {
			sets = append(sets, ownedBy{prefix: "namespace", meta: &ns.meta})
		}
	}
	identity.Owners = p.owners(sets...)
	p.out.Identities = append(p.out.Identities, identity)
}

// accountRefusesMount says whether the account forbids the token that a silent
// pod would be given.
func (p *projection) accountRefusesMount(account remit.Ref) bool {
	o := p.lookup(account)
	if o == nil {
		return false
	}
	a, ok := o.body.(*serviceAccount)
	return ok && a.automount != nil && !*a.automount
}

// evidence picks the object that shows best what a controller's pods are like:
// one that still runs before one that has finished, then the newest.
func (p *projection) evidence(of remit.Ref) *object {
	var best *object
	for _, ref := range p.controlled(of) {
		o := p.get(ref)
		if o == nil {
			continue
		}
		w, ok := o.body.(*workload)
		if !ok || w.template == nil || !passing[ref.Kind] && p.get(of) == nil {
			continue
		}
		if best == nil || better(o, best) {
			best = o
		}
	}
	return best
}

func better(a, b *object) bool {
	if x, y := a.body.(*workload).disabled, b.body.(*workload).disabled; x != y {
		return y
	}
	if !a.meta.created.Equal(b.meta.created) {
		return a.meta.created.After(b.meta.created)
	}
	return compareRefs(a.ref, b.ref) < 0
}

// holds relates a workload to the Secrets that its pods are given, and to the
// ConfigMaps in which credentials lie.
func (p *projection) holds(ref remit.Ref, w *workload) {
	secrets := w.template.secrets
	if !w.template.pulls {
		// A pod that names no pull secret is given its account's.
		if o := p.lookup(w.account); o != nil {
			if a, ok := o.body.(*serviceAccount); ok {
				secrets = slices.Concat(secrets, a.pullSecrets)
				slices.Sort(secrets)
				secrets = slices.Compact(secrets)
			}
		}
	}
	for _, name := range secrets {
		to := remit.Ref{Kind: "Secret", Namespace: ref.Namespace, Name: name}
		p.relate(remit.Holds, ref, to, remit.ResourceID(p.system, to))
	}
	for _, name := range w.template.configMaps {
		to := remit.Ref{Kind: "ConfigMap", Namespace: ref.Namespace, Name: name}
		if o := p.lookup(to); o != nil && len(bodyCredentials(o.body)) > 0 {
			p.relate(remit.Holds, ref, to, remit.ResourceID(p.system, to))
		}
	}
}
