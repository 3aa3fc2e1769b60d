package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"remit"
	"remit/connector"
)

// WorkloadDestination is a workload that has to start again for a new secret, or
// that refers to the Secret in which it lies. It implements
// [connector.Destination].
type WorkloadDestination struct {
	*Rotator
	ref remit.Ref
}

var _ connector.Destination = (*WorkloadDestination)(nil)

// workloadKinds are those that make pods from a template.
var workloadKinds = []string{"Deployment", "StatefulSet", "DaemonSet", "CronJob"}

// WorkloadDestination is the workload at "NAMESPACE/KIND/NAME".
func (r *Rotator) WorkloadDestination(address string) (*WorkloadDestination, error) {
	parts := strings.Split(address, "/")
	if len(parts) != 3 || parts[0] == "" || parts[2] == "" || !slices.Contains(workloadKinds, parts[1]) {
		return nil, remit.Errorf(remit.Invalid, "read destination", "%q does not name a workload: write workload:NAMESPACE/KIND/NAME, with the kind %s", address, strings.Join(workloadKinds, ", "))
	}
	return &WorkloadDestination{r, remit.Ref{Kind: parts[1], Namespace: parts[0], Name: parts[2]}}, nil
}

// podOwner is a workload, or a pod without one.
type podOwner struct {
	ref  remit.Ref
	meta metav1.ObjectMeta
	spec corev1.PodSpec
}

func (w podOwner) address() string {
	return "workload:" + w.ref.Namespace + "/" + w.ref.Kind + "/" + w.ref.Name
}

func workloadAddresses(all []podOwner) (out []string) {
	for _, w := range all {
		out = append(out, w.address())
	}
	return out
}

func refs(all []podOwner) (out []remit.Ref) {
	for _, w := range all {
		out = append(out, w.ref)
	}
	return out
}

// listed is a list of things with what they do.
func listed(all []remit.Ref, one, many string) string {
	names := make([]string, len(all))
	for i, r := range all {
		names[i] = r.String()
	}
	if len(all) == 1 {
		return names[0] + " " + one
	}
	return strings.Join(names, ", ") + " " + many
}

// podContainers are those of a pod that run for longer or start it.
func podContainers(spec *corev1.PodSpec) []corev1.Container {
	return slices.Concat(spec.InitContainers, spec.Containers)
}

// readsAtStart says whether a change of a Secret is seen only by a pod that starts:
// in an environment variable, or in a file that is mounted by a path of its own.
func (w podOwner) readsAtStart(secret string) bool {
	volumes := map[string]bool{}
	for _, v := range w.spec.Volumes {
		volumes[v.Name] = volumeSecrets(v)[secret]
	}
	for _, c := range podContainers(&w.spec) {
		for _, e := range c.EnvFrom {
			if e.SecretRef != nil && e.SecretRef.Name == secret {
				return true
			}
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil && e.ValueFrom.SecretKeyRef.Name == secret {
				return true
			}
		}
		for _, m := range c.VolumeMounts {
			if (m.SubPath != "" || m.SubPathExpr != "") && volumes[m.Name] {
				return true
			}
		}
	}
	return false
}

// volumeSecrets are the Secrets of a volume.
func volumeSecrets(v corev1.Volume) map[string]bool {
	names := map[string]bool{}
	if v.Secret != nil {
		names[v.Secret.SecretName] = true
	}
	if v.Projected != nil {
		for _, s := range v.Projected.Sources {
			if s.Secret != nil {
				names[s.Secret.Name] = true
			}
		}
	}
	return names
}

func (w podOwner) refersTo(secret string) bool {
	for _, v := range w.spec.Volumes {
		if volumeSecrets(v)[secret] {
			return true
		}
	}
	return w.readsAtStart(secret)
}

// notProjectable says why a projected token cannot take the place of a Secret; ""
// when it can.
func (w podOwner) notProjectable(secret, account string) string {
	runsAs := w.spec.ServiceAccountName
	if runsAs == "" {
		runsAs = "default"
	}
	if runsAs != account {
		return fmt.Sprintf("runs as the account %s and not as %s, whose token it is", runsAs, account)
	}
	if w.readsAtStart(secret) {
		return "has the token in a variable or by a path of its own, where it would not be renewed"
	}
	for _, v := range w.spec.Volumes {
		if volumeSecrets(v)[secret] && v.Secret == nil {
			return "has it in a projected volume already, which has to be changed by hand"
		}
		if v.Secret != nil && v.Secret.SecretName == secret && len(v.Secret.Items) > 0 {
			return "chooses items of it"
		}
	}
	return ""
}

// referring lists the workloads of a namespace that refer to a Secret, and the pods
// that do and that nothing makes anew.
func (r *Rotator) referring(ctx context.Context, op, namespace, secret string) (workloads []podOwner, byHand []remit.Ref, err error) {
	var all []podOwner
	add := func(kind string, m metav1.ObjectMeta, spec corev1.PodSpec) {
		all = append(all, podOwner{remit.Ref{Kind: kind, Namespace: m.Namespace, Name: m.Name}, m, spec})
	}
	var deployments appsv1.DeploymentList
	var statefulSets appsv1.StatefulSetList
	var daemonSets appsv1.DaemonSetList
	var cronJobs batchv1.CronJobList
	var pods corev1.PodList
	for kind, into := range map[string]kubernetesList{"Deployment": &deployments, "StatefulSet": &statefulSets, "DaemonSet": &daemonSets, "CronJob": &cronJobs, "Pod": &pods} {
		if err := r.list(ctx, kind, namespace, into); err != nil {
			return nil, nil, r.explain(op, err)
		}
	}
	for _, o := range deployments.Items {
		add("Deployment", o.ObjectMeta, o.Spec.Template.Spec)
	}
	for _, o := range statefulSets.Items {
		add("StatefulSet", o.ObjectMeta, o.Spec.Template.Spec)
	}
	for _, o := range daemonSets.Items {
		add("DaemonSet", o.ObjectMeta, o.Spec.Template.Spec)
	}
	for _, o := range cronJobs.Items {
		add("CronJob", o.ObjectMeta, o.Spec.JobTemplate.Spec.Template.Spec)
	}
	for _, w := range all {
		if w.refersTo(secret) {
			workloads = append(workloads, w)
		}
	}
	for _, o := range pods.Items {
		pod := podOwner{remit.Ref{Kind: "Pod", Namespace: o.Namespace, Name: o.Name}, o.ObjectMeta, o.Spec}
		if metav1.GetControllerOf(&o) == nil && pod.refersTo(secret) {
			byHand = append(byHand, pod.ref)
		}
	}
	return workloads, byHand, nil
}

// workloadState is what a delivery to a workload found.
type workloadState struct {
	UID types.UID `json:"uid"`

	// Secret is the name to which the template refers and that changes, ""
	// when it only starts again. Volumes are those that a projected token takes
	// the place of, as they were.
	Secret  string                     `json:"secret,omitempty"`
	Volumes map[string]json.RawMessage `json:"volumes,omitempty"`
}

// workloadReceipt is what a workload was started again for.
type workloadReceipt struct {
	Rotated string `json:"rotated"`
}

// rotatedWorkload is a workload as the API server sends it, so that nothing is lost of
// what this program does not know.
type rotatedWorkload struct {
	object   map[string]any
	meta     metav1.ObjectMeta
	template map[string]any // of pods
	path     string         // of the template, as a JSON pointer
}

func (d *WorkloadDestination) read(ctx context.Context, op string) (*rotatedWorkload, error) {
	request, err := d.request("GET", d.ref.Kind, d.ref.Namespace, d.ref.Name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(quiet(ctx), enforceTimeout)
	defer cancel()
	result := request.SetHeader("Accept", "application/json").Do(ctx)
	if err := result.Error(); err != nil {
		return nil, d.explain(op, err)
	}
	raw, err := result.Raw()
	if err != nil {
		return nil, d.explain(op, err)
	}
	w := &rotatedWorkload{path: "/spec/template"}
	steps := []string{"spec", "template"}
	if d.ref.Kind == "CronJob" {
		w.path, steps = "/spec/jobTemplate/spec/template", []string{"spec", "jobTemplate", "spec", "template"}
	}
	var with struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
	}
	if err = json.Unmarshal(raw, &w.object); err == nil {
		err = json.Unmarshal(raw, &with)
	}
	w.meta, w.template = with.Metadata, w.object
	for _, step := range steps {
		w.template, _ = w.template[step].(map[string]any)
	}
	if err != nil || w.template == nil {
		return nil, remit.Errorf(remit.Unavailable, op, "%s cannot be read: %w", d.ref, err)
	}
	return w, nil
}

// annotations are those of the pods.
func (w *rotatedWorkload) annotations() map[string]any {
	m, _ := w.template["metadata"].(map[string]any)
	a, _ := m["annotations"].(map[string]any)
	return a
}

func (w *rotatedWorkload) rotated() string {
	text, _ := w.annotations()[annotationRotated].(string)
	return text
}

// patchOp is an operation of a JSON patch (RFC 6902).
type patchOp struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

func pointer(key string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}

// references calls each for every place of the template that names a Secret.
func (w *rotatedWorkload) references(each func(path, name string)) {
	spec, _ := w.template["spec"].(map[string]any)
	at := w.path + "/spec"
	name := func(o map[string]any, path, key string, steps ...string) {
		for _, step := range steps {
			o, _ = o[step].(map[string]any)
			path += "/" + step
		}
		if text, ok := o[key].(string); ok {
			each(path+"/"+key, text)
		}
	}
	items := func(o map[string]any, path, key string, visit func(map[string]any, string)) {
		list, _ := o[key].([]any)
		for i, item := range list {
			if item, ok := item.(map[string]any); ok {
				visit(item, path+"/"+key+"/"+strconv.Itoa(i))
			}
		}
	}
	items(spec, at, "volumes", func(v map[string]any, path string) {
		name(v, path, "secretName", "secret")
		projected, _ := v["projected"].(map[string]any)
		items(projected, path+"/projected", "sources", func(s map[string]any, path string) { name(s, path, "name", "secret") })
	})
	for _, list := range []string{"initContainers", "containers"} {
		items(spec, at, list, func(c map[string]any, path string) {
			items(c, path, "envFrom", func(e map[string]any, path string) { name(e, path, "name", "secretRef") })
			items(c, path, "env", func(e map[string]any, path string) { name(e, path, "name", "valueFrom", "secretKeyRef") })
		})
	}
}

// volumes calls each for every volume.
func (w *rotatedWorkload) volumes(each func(path string, v map[string]any)) {
	spec, _ := w.template["spec"].(map[string]any)
	list, _ := spec["volumes"].([]any)
	for i, v := range list {
		if v, ok := v.(map[string]any); ok {
			each(w.path+"/spec/volumes/"+strconv.Itoa(i), v)
		}
	}
}

// Plan implements [connector.Destination].
func (d *WorkloadDestination) Plan(ctx context.Context, l connector.Delivery) (connector.PlannedDelivery, error) {
	const op = "plan delivery"
	planned := connector.PlannedDelivery{Refers: true}
	w, err := d.read(ctx, op)
	if err != nil {
		return planned, err
	}
	state := workloadState{UID: w.meta.UID}
	for _, old := range l.Replaces {
		if old.Kind != "Secret" || old.Namespace != d.ref.Namespace {
			continue
		}
		w.references(func(_, name string) {
			if name == old.Name {
				state.Secret = name
			}
		})
		w.volumes(func(_ string, v map[string]any) {
			secret, _ := v["secret"].(map[string]any)
			if name, _ := v["name"].(string); secret != nil && secret["secretName"] == old.Name {
				if state.Volumes == nil {
					state.Volumes = map[string]json.RawMessage{}
				}
				state.Volumes[name] = mustJSON(secret)
			}
		})
	}
	step := remit.Step{
		Object: d.ref, Does: fmt.Sprintf("Start the pods of %s again, a few at a time as its strategy says, so that they read the new secret.", d.ref),
		Diff: lines("+", "annotation "+annotationRotated+": the new credential"), Undo: "Start them again.",
		Breaks: "Nobody, if it can be rolled out without a break.", Before: mustJSON(state),
	}
	if state.Secret != "" {
		step.Does = fmt.Sprintf("Let %s refer to the new credential in place of Secret %s, and roll that out.", d.ref, state.Secret)
		step.Diff = lines("-", "refers to Secret "+state.Secret) + lines("+", "refers to the new one") + step.Diff
		step.Undo = "Let it refer to Secret " + state.Secret + " again, and roll that out."
	}
	if d.ref.Kind == "CronJob" {
		step.Does += " Jobs that run now keep what they have."
	}
	if paused, _ := w.spec()["paused"].(bool); paused {
		planned.Why = append(planned.Why, fmt.Sprintf("%s is paused: nothing is rolled out before it is resumed.", d.ref))
	}
	if strategy, _ := w.spec()["updateStrategy"].(map[string]any); strategy["type"] == "OnDelete" {
		planned.Why = append(planned.Why, fmt.Sprintf("%s starts pods again only when somebody deletes them (OnDelete): the old one lives until that is done.", d.ref))
	}
	if manager := putsBack(&w.meta); manager != "" {
		planned.Why = append(planned.Why, fmt.Sprintf("%s is managed by %s. The old credential does not end when that happens within the grace.", d.ref, manager))
	}
	planned.Step = step
	return planned, nil
}

func (w *rotatedWorkload) spec() map[string]any {
	spec, _ := w.object["spec"].(map[string]any)
	return spec
}

// Deliver implements [connector.Destination].
func (d *WorkloadDestination) Deliver(ctx context.Context, step remit.Step, l connector.Delivery) (json.RawMessage, error) {
	const op = "deliver"
	var state workloadState
	if err := json.Unmarshal(step.Before, &state); err != nil {
		return nil, remit.Errorf(remit.Invalid, op, "the step about %s cannot be read: %w", d.ref, err)
	}
	from := map[string]bool{}
	for _, old := range l.Replaces {
		if old.Kind == "Secret" && old.Namespace == d.ref.Namespace {
			from[old.Name] = true
		}
	}
	to := l.Issued.Ref.Name
	err := d.change(ctx, op, to, func(w *rotatedWorkload) (ops []patchOp) {
		if state.Secret == "" {
			return nil
		}
		if l.Issued.Mints != (remit.Ref{}) {
			w.volumes(func(path string, v map[string]any) {
				name, _ := v["name"].(string)
				if _, planned := state.Volumes[name]; !planned || v["secret"] == nil {
					return
				}
				var was corev1.SecretVolumeSource
				_ = json.Unmarshal(state.Volumes[name], &was) // an unreadable one has no mode
				ops = append(ops, patchOp{"remove", path + "/secret", nil}, patchOp{"add", path + "/projected", projectedToken(was.DefaultMode)})
			})
			return ops
		}
		w.references(func(path, name string) {
			if from[name] {
				ops = append(ops, patchOp{"replace", path, to})
			}
		})
		return ops
	})
	if err != nil {
		return nil, err
	}
	return mustJSON(workloadReceipt{Rotated: to}), nil
}

// projectedToken is a volume with what a token Secret has in it.
func projectedToken(mode *int32) *corev1.ProjectedVolumeSource {
	lasts := int64(3607) // as what the API server adds to pods: its kubelet extension
	return &corev1.ProjectedVolumeSource{DefaultMode: mode, Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: corev1.ServiceAccountTokenKey, ExpirationSeconds: &lasts}},
		{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}, Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
		}},
		{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}},
		}}},
	}}
}

// change patches the template and marks it with what it was started again for,
// unless it is so already.
func (d *WorkloadDestination) change(ctx context.Context, op, rotated string, ops func(*rotatedWorkload) []patchOp) error {
	err := d.untilAlone(ctx, func() error {
		w, err := d.read(ctx, op)
		if err != nil {
			return err
		}
		todo := ops(w)
		if len(todo) == 0 && w.rotated() == rotated {
			return nil
		}
		// The API server compares it, and says that others came in between.
		todo = append([]patchOp{{"replace", "/metadata/resourceVersion", w.meta.ResourceVersion}}, todo...)
		switch m, _ := w.template["metadata"].(map[string]any); {
		case m == nil:
			todo = append(todo, patchOp{"add", w.path + "/metadata", map[string]any{"annotations": map[string]string{annotationRotated: rotated}}})
		case w.annotations() == nil:
			todo = append(todo, patchOp{"add", w.path + "/metadata/annotations", map[string]string{annotationRotated: rotated}})
		default:
			todo = append(todo, patchOp{"add", w.path + "/metadata/annotations/" + pointer(annotationRotated), rotated})
		}
		request, err := d.request("PATCH", d.ref.Kind, d.ref.Namespace, d.ref.Name)
		if err != nil {
			return err
		}
		return d.send(ctx, request.SetHeader("Content-Type", string(types.JSONPatchType)).Body([]byte(mustJSON(todo))), nil)
	})
	return d.explained(op, err)
}

// Verify implements [connector.Destination].
func (d *WorkloadDestination) Verify(ctx context.Context, _ remit.Step, receipt json.RawMessage) error {
	const op = "verify delivery"
	var got workloadReceipt
	if err := json.Unmarshal(receipt, &got); err != nil || got.Rotated == "" {
		return remit.Errorf(remit.Invalid, op, "the receipt of %s cannot be read: %w", d.ref, err)
	}
	w, err := d.read(ctx, op)
	if remit.KindOf(err) == remit.NotFound {
		return nil // who is gone needs no secret
	} else if err != nil {
		return err
	}
	if w.rotated() != got.Rotated {
		return remit.Errorf(remit.Conflict, op, "somebody else has changed the pods of %s: it was started again for %s, and now says %q", d.ref, got.Rotated, w.rotated())
	}
	return d.rolledOut(op, w)
}

// rolledOut is a [remit.Unavailable] error as long as pods of an older template
// run.
// Source: what kubectl rollout status looks at,
// https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#complete-deployment
func (d *WorkloadDestination) rolledOut(op string, w *rotatedWorkload) error {
	status, _ := w.object["status"].(map[string]any)
	number := func(m map[string]any, key string) int64 {
		n, _ := m[key].(float64)
		return int64(n)
	}
	wanted := int64(1)
	if n, ok := w.spec()["replicas"].(float64); ok {
		wanted = int64(n)
	}
	var ready bool
	switch d.ref.Kind {
	case "Deployment":
		ready = number(status, "updatedReplicas") >= wanted && number(status, "replicas") <= number(status, "updatedReplicas") &&
			number(status, "availableReplicas") >= number(status, "updatedReplicas")
	case "StatefulSet":
		ready = wanted == 0 || number(status, "updatedReplicas") >= wanted && number(status, "readyReplicas") >= wanted && status["currentRevision"] == status["updateRevision"]
	case "DaemonSet":
		wanted = number(status, "desiredNumberScheduled")
		ready = number(status, "updatedNumberScheduled") >= wanted && number(status, "numberAvailable") >= wanted
	default: // a CronJob's next Job has the new template
		return nil
	}
	if !ready || number(status, "observedGeneration") < w.meta.Generation {
		return remit.Errorf(remit.Unavailable, op, "%s is rolling out: %s", d.ref, rollOutWords(status))
	}
	return nil
}

func rollOutWords(status map[string]any) string {
	conditions, _ := status["conditions"].([]any)
	for _, c := range conditions {
		if c, _ := c.(map[string]any); c["reason"] == "ProgressDeadlineExceeded" {
			return "its progress deadline is exceeded, look at its pods"
		}
	}
	return "pods of the former template still run, or those of the new one are not ready"
}

// Restore implements [connector.Destination].
func (d *WorkloadDestination) Restore(ctx context.Context, step remit.Step) error {
	const op = "restore"
	var state workloadState
	if err := json.Unmarshal(step.Before, &state); err != nil {
		return remit.Errorf(remit.Invalid, op, "the step about %s cannot be read: %w", d.ref, err)
	}
	w, err := d.read(ctx, op)
	if remit.KindOf(err) == remit.NotFound {
		return nil
	} else if err != nil {
		return err
	}
	current := w.rotated()
	if current != "" && !strings.HasPrefix(current, restoredPrefix) {
		err := d.change(ctx, op, restoredPrefix+current, func(w *rotatedWorkload) (ops []patchOp) {
			if state.Secret == "" {
				return nil
			}
			w.references(func(path, name string) {
				if name == current {
					ops = append(ops, patchOp{"replace", path, state.Secret})
				}
			})
			w.volumes(func(path string, v map[string]any) {
				name, _ := v["name"].(string)
				if was, planned := state.Volumes[name]; planned && v["secret"] == nil && v["projected"] != nil {
					ops = append(ops, patchOp{"remove", path + "/projected", nil}, patchOp{"add", path + "/secret", was})
				}
			})
			return ops
		})
		if err != nil {
			return err
		}
		if w, err = d.read(ctx, op); err != nil {
			return err
		}
	}
	return d.rolledOut(op, w)
}

// restoredPrefix marks what was given back.
const restoredPrefix = "restored-from "
