package kubernetes

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"remit"
	"remit/connector/secret"
)

// newTestReducer makes a reducer as Open does.
func newTestReducer(t testing.TB, cfg Config) *reducer {
	t.Helper()
	scanner, err := secret.NewScanner()
	if err != nil {
		t.Fatal(err)
	}
	c, err := newCredentials(credentialConfig{
		System: testSystem, Scanner: scanner, ExtendTokenExpiration: true,
		Now: func() time.Time { return time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return newReducer(cfg, c, newAgentMatcher(cfg.AgentRules))
}

var testSystem = remit.SystemID(Name, "test")

// collected are records by ID, as JSON, with their section.
type collected map[remit.ID]string

func (c collected) add(section string, records remit.Records, deleted []remit.ID) error {
	for _, id := range deleted {
		delete(c, id)
	}
	put := func(id remit.ID, record any) {
		b, err := json.Marshal(record)
		if err != nil {
			panic(err)
		}
		c[id] = section + " " + string(b)
	}
	for _, r := range records.Identities {
		put(r.ID, r)
	}
	for _, r := range records.Credentials {
		put(r.ID, r)
	}
	for _, r := range records.Roles {
		put(r.ID, r)
	}
	for _, r := range records.Grants {
		put(r.ID, r)
	}
	for _, r := range records.Relations {
		put(r.ID, r)
	}
	for _, r := range records.Resources {
		put(r.ID, r)
	}
	return nil
}

func (c collected) gone(_ string, deleted []remit.ID) error {
	for _, id := range deleted {
		delete(c, id)
	}
	return nil
}

// TestModelFollows compares, over many random histories, what a model gives that
// followed every change with what one gives that sees only the end. It is the
// property that makes a watch right: nothing that depends on something else may
// miss its change.
func TestModelFollows(t *testing.T) {
	reducer := newTestReducer(t, Config{})
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 7))
		live := newModel(testSystem, Config{}, reducer.agents, false, true)
		setAllComplete(live)
		seen := collected{}
		world := map[remit.Ref]runtime.Object{}
		for step := range 250 {
			if r.IntN(4) == 0 && len(world) > 0 {
				// As in a cluster, what a controller made goes with it.
				var doomed []remit.Ref
				for ref := range world {
					doomed = append(doomed, ref)
				}
				victim := doomed[r.IntN(len(doomed))]
				removeTree(live, world, victim)
			} else {
				l, o := randomObject(r)
				ref := l.refOf(o.(metav1.Object))
				if !ownerThere(world, o) {
					continue
				}
				world[ref] = o
				live.put(reducer.reduce(l, o.DeepCopyObject()))
			}
			if step%5 == r.IntN(5) {
				if err := live.flush(seen.add, seen.gone); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := live.flush(seen.add, seen.gone); err != nil {
			t.Fatal(err)
		}

		fresh := newModel(testSystem, Config{}, reducer.agents, false, false)
		setAllComplete(fresh)
		for ref, o := range world {
			fresh.put(reducer.reduce(listingOf[ref.Kind], o.DeepCopyObject()))
		}
		want := collected{}
		if err := fresh.flush(want.add, want.gone); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(seen, want) {
			for id, w := range want {
				if seen[id] != w {
					t.Errorf("seed %d:\nfollowed %s\nfresh    %s", seed, seen[id], w)
				}
			}
			for id, s := range seen {
				if _, ok := want[id]; !ok {
					t.Errorf("seed %d: not deleted: %s", seed, s)
				}
			}
			t.FailNow()
		}
		// What nobody depends on any more must not be remembered.
		for ref := range world {
			removeTree(live, world, ref)
		}
		if err := live.flush(seen.add, seen.gone); err != nil {
			t.Fatal(err)
		}
		if len(seen) != len(alwaysThere)+1 { // the groups, and a membership
			t.Fatalf("seed %d: %d records of an empty cluster: %v", seed, len(seen), seen)
		}
		if len(live.units) > len(alwaysThere) || len(live.mentioned) > 0 || len(live.owned) > 0 || len(live.byName) > 0 {
			t.Fatalf("seed %d: an empty cluster keeps %d units, %d mentions, %d controllers, %d names", seed, len(live.units), len(live.mentioned), len(live.owned), len(live.byName))
		}
	}
}

func setAllComplete(m *model) {
	for _, l := range listings {
		m.setComplete(l.resource, true)
	}
}

func removeTree(m *model, world map[remit.Ref]runtime.Object, ref remit.Ref) {
	if world[ref] == nil {
		return
	}
	delete(world, ref)
	m.remove(ref)
	for other, o := range world {
		if c, _ := controller(o.(metav1.Object)); c == ref {
			removeTree(m, world, other)
		}
	}
}

func ownerThere(world map[remit.Ref]runtime.Object, o runtime.Object) bool {
	c, _ := controller(o.(metav1.Object))
	return c == (remit.Ref{}) || c.Kind == "Rollout" || world[c] != nil
}

// randomObject makes an object out of few names, so that they refer to each
// other.
func randomObject(r *rand.Rand) (*listing, runtime.Object) {
	name := fmt.Sprintf("n%d", r.IntN(4))
	other := fmt.Sprintf("n%d", r.IntN(4))
	ns := fmt.Sprintf("ns%d", r.IntN(2))
	m := metav1.ObjectMeta{Name: name, Namespace: ns, CreationTimestamp: metav1.Unix(1_700_000_000, 0)}
	if r.IntN(3) == 0 {
		m.Labels = map[string]string{"team": other}
	}
	pod := func(account string) corev1.PodSpec {
		spec := corev1.PodSpec{ServiceAccountName: account, Containers: []corev1.Container{{
			Name: "c", Image: "image-" + other,
			EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: other}}}},
			Env:     []corev1.EnvVar{{ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: other}}}}},
		}}}
		if r.IntN(3) == 0 {
			v := r.IntN(2) == 0
			spec.AutomountServiceAccountToken = &v
		}
		return spec
	}
	owned := func(kind, group, name string) {
		yes := true
		m.OwnerReferences = []metav1.OwnerReference{{APIVersion: group, Kind: kind, Name: name, Controller: &yes, UID: types.UID(kind + name)}}
	}
	m.UID = types.UID("none")
	subjects := []rbacv1.Subject{
		{Kind: "ServiceAccount", Namespace: ns, Name: other},
		{Kind: "User", Name: "u" + other},
		{Kind: "Group", Name: "g" + name},
		{Kind: "User", Name: "system:node:" + other},
		{Kind: "User", Name: "system:serviceaccount:ns1:" + name},
	}[r.IntN(3):]
	rules := [][]rbacv1.PolicyRule{
		{{Verbs: []string{"create"}, APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, ResourceNames: []string{other}}},
		{{Verbs: []string{"impersonate"}, APIGroups: []string{""}, Resources: []string{"users", "groups", "serviceaccounts"}, ResourceNames: []string{other}}},
		{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{other}}},
		{{Verbs: []string{"create"}, APIGroups: []string{""}, Resources: []string{"pods/exec"}, ResourceNames: []string{other}}},
		{{Verbs: []string{"bind"}, APIGroups: []string{"*"}, Resources: []string{"roles", "clusterroles"}, ResourceNames: []string{other}}},
		{{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}}},
	}[r.IntN(6)]
	roleRef := rbacv1.RoleRef{Kind: []string{"Role", "ClusterRole"}[r.IntN(2)], Name: other}

	kind := []string{"Namespace", "Node", "ServiceAccount", "Secret", "ConfigMap", "Deployment", "StatefulSet", "ReplicaSet", "Pod", "Job", "CronJob", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "APIService"}[r.IntN(16)]
	l := listingOf[kind]
	if !l.namespaced {
		m.Namespace = ""
	}
	m.UID = types.UID(kind + name)
	switch kind {
	case "Namespace":
		m.Name = ns
		return l, &corev1.Namespace{ObjectMeta: m}
	case "Node":
		return l, &corev1.Node{ObjectMeta: m}
	case "ServiceAccount":
		sa := &corev1.ServiceAccount{ObjectMeta: m, ImagePullSecrets: []corev1.LocalObjectReference{{Name: other}}}
		if r.IntN(2) == 0 {
			v := r.IntN(2) == 0
			sa.AutomountServiceAccountToken = &v
		}
		if r.IntN(3) == 0 {
			sa.Annotations = map[string]string{"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/" + other}
		}
		return l, sa
	case "Secret":
		m.Annotations = map[string]string{corev1.ServiceAccountNameKey: other}
		return l, &corev1.Secret{ObjectMeta: m, Type: corev1.SecretTypeServiceAccountToken, Data: map[string][]byte{"token": []byte("x")}}
	case "ConfigMap":
		data := map[string]string{"a": "b"}
		if r.IntN(2) == 0 {
			data["url"] = "postgres://user:Xk29fjw02jf20fjw@db/x"
		}
		return l, &corev1.ConfigMap{ObjectMeta: m, Data: data}
	case "Deployment":
		return l, &appsv1.Deployment{ObjectMeta: m, Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: pod(other)}}}
	case "StatefulSet":
		return l, &appsv1.StatefulSet{ObjectMeta: m, Spec: appsv1.StatefulSetSpec{Template: corev1.PodTemplateSpec{Spec: pod(other)}}}
	case "CronJob":
		c := &batchv1.CronJob{ObjectMeta: m}
		c.Spec.JobTemplate.Spec.Template.Spec = pod(other)
		return l, c
	case "ReplicaSet":
		switch r.IntN(4) {
		case 0, 1:
			owned("Deployment", "apps/v1", other)
		case 2:
			owned("Rollout", "argoproj.io/v1", other)
		}
		return l, &appsv1.ReplicaSet{ObjectMeta: m, Spec: appsv1.ReplicaSetSpec{Template: corev1.PodTemplateSpec{Spec: pod(name)}}}
	case "Job":
		if r.IntN(2) == 0 {
			owned("CronJob", "batch/v1", other)
		}
		return l, &batchv1.Job{ObjectMeta: m, Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: pod(name)}}}
	case "Pod":
		account := other
		switch r.IntN(6) {
		case 0, 1:
			owned("ReplicaSet", "apps/v1", other)
		case 2:
			owned("StatefulSet", "apps/v1", other)
		case 3:
			owned("Rollout", "argoproj.io/v1", other)
		case 4:
			owned("Job", "batch/v1", other)
			account = name // perhaps not what the Job says
		}
		return l, &corev1.Pod{ObjectMeta: m, Spec: pod(account)}
	case "Role":
		return l, &rbacv1.Role{ObjectMeta: m, Rules: rules}
	case "ClusterRole":
		return l, &rbacv1.ClusterRole{ObjectMeta: m, Rules: rules}
	case "RoleBinding":
		return l, &rbacv1.RoleBinding{ObjectMeta: m, RoleRef: roleRef, Subjects: subjects}
	case "ClusterRoleBinding":
		roleRef.Kind = "ClusterRole"
		return l, &rbacv1.ClusterRoleBinding{ObjectMeta: m, RoleRef: roleRef, Subjects: subjects}
	}
	a := &apiService{ObjectMeta: m}
	a.Spec.Service = &struct {
		Namespace string `json:"namespace,omitempty"`
		Name      string `json:"name,omitempty"`
	}{ns, other}
	return l, a
}
