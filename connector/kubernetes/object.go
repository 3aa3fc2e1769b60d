package kubernetes

import (
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit"
)

// object is what the model keeps of one object of the cluster.
type object struct {
	ref  remit.Ref
	meta meta

	// body is the part that depends on the kind: *serviceAccount, *workload,
	// *role, *binding, *holder, *node, *request, *integration, *custom, or nil.
	body body
}

// body is the reduced form of an object beyond its metadata. Bodies are
// compared with reflect.DeepEqual to see whether an object changed in any way
// that matters.
type body interface {
	// mentions calls f for each identity that the object names.
	mentions(self remit.Ref, f func(who remit.Ref, by mentionKind))
}

// meta is what the model keeps of an object's metadata.
type meta struct {
	uid            string
	created, since time.Time
	labels         map[string]string
	claims         []claim // owners named on the object, the strongest first
	environment    string  // as the object's own labels say
	purpose        string
	origin         string
	expires        time.Time
	assumed        bool // the file named no namespace

	// foreign says that somebody other than the control plane has written to
	// the object since it was made, as far as the field managers tell.
	foreign bool
}

// The bounds on what is kept of one object's metadata. Kubernetes bounds the
// sum of annotations (256 KiB) but not what a forged file holds.
const (
	maxLabels   = 64
	maxLabel    = 512 // a key is at most 317 characters, a value 63
	maxPurpose  = 400
	maxClaims   = 16
	maxClaim    = 200
	maxMeaning  = 100 // an environment's name, an origin
	maxManagers = 200
)

// reduceMeta keeps what matters of an object's metadata. It looks at
// managedFields and annotations here and keeps neither.
func (r *reducer) reduceMeta(o metav1.Object) meta {
	annotations := o.GetAnnotations()
	m := meta{
		uid:         truncate(string(o.GetUID()), maxLabel),
		created:     utc(o.GetCreationTimestamp().Time),
		labels:      boundLabels(o.GetLabels()),
		claims:      r.owners.claims(o.GetLabels(), annotations),
		environment: r.environments.named(o.GetLabels(), annotations),
		purpose:     purpose(annotations),
		expires:     expiry(o.GetLabels(), annotations),
	}
	var last metav1.ManagedFieldsEntry
	for i, entry := range o.GetManagedFields() {
		if i == maxManagers {
			break
		}
		if controlPlane[entry.Manager] {
			continue
		}
		if entry.Subresource == "" {
			m.foreign = true
			if entry.Time != nil && entry.Time.After(m.since) {
				m.since = utc(entry.Time.Time)
			}
			if last.Time == nil || entry.Time != nil && entry.Time.After(last.Time.Time) {
				last = entry
			}
		}
		if person, ok := personManager(entry.Manager); ok && len(m.claims) < maxClaims {
			m.claims = append(m.claims, claim{name: person, source: "field manager", rank: rankManager})
		}
	}
	if m.since.IsZero() {
		m.since = m.created
	}
	m.origin = origin(o.GetLabels(), annotations)
	if m.origin == "" {
		m.origin = truncate(last.Manager, maxMeaning)
	}
	m.claims = append(m.claims, markerClaims(o.GetLabels(), annotations)...)
	slices.SortStableFunc(m.claims, func(a, b claim) int { return a.rank - b.rank })
	m.claims = slices.Clip(distinctClaims(m.claims))
	return m
}

// controlPlane are the field managers under which Kubernetes itself writes.
var controlPlane = map[string]bool{
	"kube-apiserver":                     true,
	"kube-controller-manager":            true,
	"kube-scheduler":                     true,
	"kubelet":                            true,
	"clusterrole-aggregation-controller": true,
}

func purpose(annotations map[string]string) string {
	for _, key := range []string{"description", "kubernetes.io/description", "openshift.io/description", "a8r.io/description", "purpose"} {
		if v := strings.TrimSpace(annotations[key]); v != "" {
			return truncate(v, maxPurpose)
		}
	}
	return ""
}

// expiry reads the date until which an object is wanted. It is Remit's own key:
// Kubernetes has none.
func expiry(sets ...map[string]string) time.Time {
	const key = "remit.dev/expires"
	for _, set := range sets {
		for _, layout := range []string{time.RFC3339, time.DateOnly} {
			if t, err := time.Parse(layout, set[key]); err == nil {
				return utc(t)
			}
		}
	}
	return time.Time{}
}

// origin says by what an object was put into the cluster.
func origin(labels, annotations map[string]string) string {
	switch {
	case annotations["meta.helm.sh/release-name"] != "", labels["app.kubernetes.io/managed-by"] == "Helm":
		return "helm"
	case annotations["argocd.argoproj.io/tracking-id"] != "", labels["argocd.argoproj.io/instance"] != "":
		return "argocd"
	case labels["kustomize.toolkit.fluxcd.io/name"] != "", labels["helm.toolkit.fluxcd.io/name"] != "":
		return "flux"
	case labels["olm.owner"] != "":
		return "olm"
	}
	return truncate(labels["app.kubernetes.io/managed-by"], maxMeaning)
}

// boundLabels copies labels, so that a page of objects can be freed, and leaves
// out what no API server would accept.
func boundLabels(labels map[string]string) map[string]string {
	if len(labels) == 0 {
		return nil
	}
	out := make(map[string]string, min(len(labels), maxLabels))
	keys := slices.Collect(maps.Keys(labels))
	if len(keys) > maxLabels {
		slices.Sort(keys)
		keys = keys[:maxLabels]
	}
	for _, k := range keys {
		if len(k) <= maxLabel {
			out[strings.Clone(k)] = truncate(labels[k], maxLabel)
		}
	}
	return out
}

// truncate cuts s to at most n bytes, at a rune, and copies it, so that what is
// kept does not hold the page it came from in memory.
func truncate(s string, n int) string {
	if len(s) <= n {
		return strings.Clone(s)
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n] + "…"
}

// utc makes times comparable and drops what cannot be a time of a cluster.
func utc(t time.Time) time.Time {
	if t.IsZero() || t.Year() < 1970 || t.Year() > 9999 {
		return time.Time{}
	}
	return t.UTC()
}
