package kubernetes

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit"
	"remit/connector/secret"
)

const (
	// automountKey is the key of the token that the ServiceAccount admission
	// controller mounts into pods, the same in a template and in its pods.
	automountKey = "automount"

	automountVolume = "kube-api-access-"
	automountPath   = "/var/run/secrets/kubernetes.io/serviceaccount"

	// What the API server does with lifetimes, in seconds
	// (k8s.io/kubernetes pkg/serviceaccount: WarnOnlyBoundTokenExpirationSeconds,
	// ExpirationExtensionSeconds; pkg/apis/core: the default of a projected
	// token, and the least that the API accepts).
	automountLifetime = 3607
	extendedLifetime  = 365 * 24 * 3600
	defaultLifetime   = 3600
	leastLifetime     = 600

	mirrorAnnotation = "kubernetes.io/config.mirror"
)

// fromPodSpec makes credentials of what the pods of a workload are given: tokens
// of their service account, and secrets written into environment variables,
// commands and arguments. The credentials have the owner as their ref, so that a
// template and the pods made of it yield the same ones when they are asked with
// the same owner.
//
// Whether the service account itself refuses automounting is not known here: a
// token that is implied carries the attribute automounted, and the caller
// removes it where the account says no and the pod says nothing.
func (c *credentials) fromPodSpec(owner remit.Ref, meta *metav1.ObjectMeta, spec *corev1.PodSpec) []remit.Credential {
	if spec == nil {
		return nil
	}
	if meta == nil {
		meta = &metav1.ObjectMeta{}
	}
	f := c.at(placeOf(owner, meta))
	// A static pod's mirror is run by the kubelet and has no account.
	if _, mirror := meta.Annotations[mirrorAnnotation]; !mirror {
		f.tokens(meta, spec)
	}

	f.at.exposure = "environment"
	for _, ct := range containers(spec) {
		for _, e := range ct.env {
			if e.Value != "" && e.ValueFrom == nil {
				f.value(ct.name+"/"+e.Name, e.Name, []byte(e.Value), secret.NamedInPlain)
			}
		}
	}
	f.pair() // certificates and keys of the environment, before the exposure changes
	f.at.exposure = "arguments"
	for _, ct := range containers(spec) {
		f.arguments(ct.name+"/args", append(slices.Clone(ct.command), ct.args...))
	}
	return f.done()
}

// container is what is of interest of a container of any of the three kinds.
type container struct {
	name          string
	env           []corev1.EnvVar
	command, args []string
	mounts        []corev1.VolumeMount
}

func containers(spec *corev1.PodSpec) []container {
	var out []container
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for _, ct := range list {
			out = append(out, container{ct.Name, ct.Env, ct.Command, ct.Args, ct.VolumeMounts})
		}
	}
	for _, ct := range spec.EphemeralContainers {
		out = append(out, container{ct.Name, ct.Env, ct.Command, ct.Args, ct.VolumeMounts})
	}
	return out
}

// tokens finds the projected tokens of a pod's volumes and the implied one.
func (f *found) tokens(meta *metav1.ObjectMeta, spec *corev1.PodSpec) {
	namespace := f.at.ref.Namespace
	if meta.Namespace != "" {
		namespace = meta.Namespace
	}
	account := spec.ServiceAccountName
	if account == "" {
		account = spec.DeprecatedServiceAccount
	}
	if account == "" {
		account = "default"
	}
	holder := remit.Ref{Kind: "ServiceAccount", Namespace: namespace, Name: account}

	automounted := false
	for _, v := range spec.Volumes {
		if v.Projected == nil {
			continue
		}
		injected := strings.HasPrefix(v.Name, automountVolume)
		for _, src := range v.Projected.Sources {
			t := src.ServiceAccountToken
			if t == nil {
				continue
			}
			lifetime := int64(defaultLifetime)
			if t.ExpirationSeconds != nil {
				lifetime = max(*t.ExpirationSeconds, leastLifetime)
			}
			if injected && !automounted {
				automounted = true
				f.projected(automountKey, holder, t.Audience, lifetime).Attributes["automounted"] = "true"
				continue
			}
			f.projected(v.Name+"/"+t.Path, holder, t.Audience, lifetime)
		}
	}
	switch {
	case automounted:
	case spec.AutomountServiceAccountToken != nil && !*spec.AutomountServiceAccountToken:
	case f.at.ref.Kind == "Pod" && meta.UID != "":
		// Admission has seen this pod: what is not among its volumes was not
		// mounted.
	case mountsItself(spec):
	default:
		f.projected(automountKey, holder, "", automountLifetime).Attributes["automounted"] = "true"
	}
}

// mountsItself tells whether every container has a volume of its own where the
// token would go; admission then adds none.
func mountsItself(spec *corev1.PodSpec) bool {
	all := append(slices.Clone(spec.InitContainers), spec.Containers...)
	if len(all) == 0 {
		return false
	}
	for _, ct := range all {
		if !slices.ContainsFunc(ct.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == automountPath }) {
			return false
		}
	}
	return true
}

func (f *found) projected(key string, account remit.Ref, audience string, lifetime int64) *remit.Credential {
	cred := f.add(key, remit.ShortLivedToken)
	f.c.authenticates(cred, account)
	cred.Lifetime, cred.GrantedLifetime = lifetime, lifetime
	switch audience {
	case "", "https://kubernetes.default.svc", "https://kubernetes.default.svc.cluster.local", "kubernetes.default.svc", "api":
		cred.Provider = "kubernetes"
		// Extended is only what asks for exactly the automounted token's
		// lifetime, from the API server's own audience, for a pod.
		if lifetime == automountLifetime && f.c.ExtendTokenExpiration {
			cred.GrantedLifetime = extendedLifetime
		}
	case "sts.amazonaws.com":
		cred.Provider = "aws"
	case "api://AzureADTokenExchange":
		cred.Provider = "azure"
	default:
		switch {
		case strings.Contains(audience, "iam.googleapis.com"), strings.HasSuffix(audience, ".svc.id.goog"):
			cred.Provider = "gcp"
		case strings.Contains(audience, "vault"):
			cred.Provider = "vault"
		}
	}
	if audience != "" {
		cred.Audiences = []string{audience}
	}
	return cred
}

// arguments looks for secrets in a command line: --password=…, --token …, and
// whatever a script contains.
func (f *found) arguments(key string, args []string) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		flag := strings.TrimLeft(arg, "-")
		if flag == arg || flag == "" || strings.ContainsAny(arg, " \n") {
			f.value(key, "", []byte(arg), nil)
			continue
		}
		name, value, ok := strings.Cut(flag, "=")
		if !ok {
			if i+1 == len(args) || strings.HasPrefix(args[i+1], "-") {
				continue
			}
			i++
			value = args[i]
		}
		f.value(key, name, []byte(value), secret.NamedInPlain)
	}
}
