package kubernetes

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit"
	"remit/connector/secret"
)

const (
	helmRelease = "helm.sh/release.v1"

	// Labels that the API server and the legacy token cleaner set
	// (https://kubernetes.io/docs/reference/labels-annotations-taints/).
	labelLastUsed     = "kubernetes.io/legacy-token-last-used"
	labelInvalidSince = "kubernetes.io/legacy-token-invalid-since"
)

func secretPlace(meta *metav1.ObjectMeta, c *credentials) place {
	p := placeOf(remit.Ref{Kind: "Secret", Namespace: meta.Namespace, Name: meta.Name}, meta)
	p.location = remit.ResourceID(c.System, p.ref)
	p.rotated = dataChanged(meta)
	return p
}

// holdsNoCredential tells a Secret in which Helm keeps the state of a release (its
// manifests, compressed), and the one that lists what Remit has contained.
func holdsNoCredential(meta *metav1.ObjectMeta, typ string) bool {
	return typ == helmRelease || strings.HasPrefix(meta.Name, "sh.helm.release.v1.") ||
		meta.Namespace == enforceSystemNamespace && meta.Name == containedName
}

// fromSecret makes credentials of a Secret's type and values. At most
// [secret.MaxValue] bytes of a value are looked at.
func (c *credentials) fromSecret(sec *corev1.Secret) []remit.Credential {
	if holdsNoCredential(&sec.ObjectMeta, string(sec.Type)) {
		return nil
	}
	data := sec.Data
	if len(sec.StringData) > 0 { // manifests only: the API server merges it into data
		data = make(map[string][]byte, len(sec.Data)+len(sec.StringData))
		for k, v := range sec.Data {
			data[k] = v
		}
		for k, v := range sec.StringData {
			data[k] = []byte(v)
		}
	}
	f := c.at(secretPlace(&sec.ObjectMeta, c))
	switch sec.Type {
	case corev1.SecretTypeServiceAccountToken:
		cred := f.legacyToken(&sec.ObjectMeta)
		if token := bytes.TrimSpace(data[corev1.ServiceAccountTokenKey]); len(token) > 0 {
			cred.Fingerprint = c.Fingerprint(token)
			if t, err := secret.ParseToken(token); err == nil {
				cred.Issuer, cred.Algorithm = t.Issuer, t.Algorithm
			}
		} else if cred.Status == remit.Active && sec.UID != "" {
			// The token controller has not filled it in yet. In a manifest,
			// which has no uid, it never is and will be in the cluster.
			cred.Status = remit.Pending
		}
	case corev1.SecretTypeBootstrapToken:
		f.bootstrapToken(data)
	case corev1.SecretTypeDockerConfigJson, corev1.SecretTypeDockercfg:
		for _, key := range []string{corev1.DockerConfigJsonKey, corev1.DockerConfigKey} {
			// One that cannot be read holds no login that anyone could use.
			if logins, err := secret.ParseDockerConfig(data[key], c.Fingerprint); err == nil {
				f.registries(key, logins)
			}
		}
	case corev1.SecretTypeBasicAuth:
		f.basicAuth(data)
	default:
		byName := secret.Named
		if sec.Type != "" && sec.Type != corev1.SecretTypeOpaque {
			// The known types say what they hold, and a foreign type's
			// entries are as those of an Opaque one.
			if sec.Type == corev1.SecretTypeTLS || sec.Type == corev1.SecretTypeSSHAuth {
				byName = nil
			}
		}
		for _, key := range entryNames(data) {
			f.value(key, key, data[key], byName)
		}
	}
	out := f.done()
	c.lastApplied(&sec.ObjectMeta, data, out)
	return out
}

func (f *found) legacyToken(meta *metav1.ObjectMeta) *remit.Credential {
	cred := f.add(corev1.ServiceAccountTokenKey, remit.StaticToken)
	cred.Provider = "kubernetes"
	cred.Issued = cred.Created
	cred.NeverExpires = true
	cred.Attributes["legacy"] = "true"
	if account := meta.Annotations[corev1.ServiceAccountNameKey]; account != "" {
		f.c.authenticates(cred, remit.Ref{Kind: "ServiceAccount", Namespace: meta.Namespace, Name: account})
	}
	if uid := meta.Annotations[corev1.ServiceAccountUIDKey]; uid != "" {
		cred.Attributes["account-uid"] = uid
	}
	if t, err := time.Parse(time.DateOnly, meta.Labels[labelLastUsed]); err == nil {
		cred.LastUsed = t
	}
	if since := meta.Labels[labelInvalidSince]; since != "" {
		cred.Status = remit.Revoked
		cred.Attributes["invalid-since"] = since
	}
	return cred
}

// bootstrapToken reads a bootstrap token
// (https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/).
func (f *found) bootstrapToken(data map[string][]byte) {
	id := string(bytes.TrimSpace(data["token-id"]))
	if id == "" {
		id = strings.TrimPrefix(f.at.ref.Name, "bootstrap-token-")
	}
	cred := f.add("token-secret", remit.StaticToken)
	cred.Provider = "kubernetes"
	cred.Issued = cred.Created
	cred.Attributes["bootstrap"] = "true"
	f.c.authenticates(cred, remit.Ref{Kind: "User", Name: "system:bootstrap:" + id})
	if tok := bytes.TrimSpace(data["token-secret"]); len(tok) > 0 {
		// As it is presented, so that a copy of it elsewhere is recognised.
		cred.Fingerprint = f.c.Fingerprint([]byte(id + "." + string(tok)))
	}
	if data == nil {
		return
	}
	if exp := bytes.TrimSpace(data["expiration"]); len(exp) == 0 {
		cred.NeverExpires = true
	} else if t, err := time.Parse(time.RFC3339, string(exp)); err == nil {
		cred.Expires = t.UTC()
	}
	var usages []string
	for _, u := range []string{"authentication", "signing"} {
		if string(bytes.TrimSpace(data["usage-bootstrap-"+u])) == "true" {
			usages = append(usages, u)
		}
	}
	cred.Attributes["usages"] = strings.Join(usages, ",")
	if groups := string(bytes.TrimSpace(data["auth-extra-groups"])); groups != "" && len(groups) <= 1024 {
		cred.Attributes["groups"] = groups
	}
}

func (f *found) basicAuth(data map[string][]byte) {
	for _, key := range entryNames(data) {
		if key != corev1.BasicAuthPasswordKey {
			if key != corev1.BasicAuthUsernameKey {
				f.value(key, key, data[key], secret.Named)
			}
			continue
		}
		before := len(f.out)
		f.value(key, key, data[key], nil) // a token used as the password
		if len(f.out) > before {
			continue
		}
		// The type says that it is one, even if it looks like nothing; only
		// what plainly is not there is left out.
		if v := bytes.TrimSpace(data[key]); len(v) > 0 && !secret.Placeholder(v) {
			cred := f.add(key, remit.Password)
			cred.Fingerprint = f.c.Fingerprint(v)
			if user := string(data[corev1.BasicAuthUsernameKey]); user != "" && len(user) <= 256 {
				cred.Attributes["username"] = user
			}
			if secret.Hashed(v) {
				cred.Attributes["hashed"] = "true"
			}
		}
	}
}

// maxAnnotation is the limit that the API server sets to the annotations of one
// object, keys and values together.
const maxAnnotation = 256 << 10

// lastApplied marks credentials whose values stand in the annotation that
// `kubectl apply` leaves on the Secret: who may only read metadata, as caches,
// backups and dashboards do, reads the secret there. An older value in the
// annotation is not this credential any more.
func (c *credentials) lastApplied(meta *metav1.ObjectMeta, data map[string][]byte, creds []remit.Credential) {
	applied, ok := appliedData(meta)
	if !ok || len(creds) == 0 {
		return
	}
	exposed := func(key string) bool {
		v, ok := applied[key]
		return ok && len(v) > 0 && (data == nil || bytes.Equal(v, data[key]))
	}
	for i := range creds {
		// KEY, KEY#2 and KEY/USER lie in the entry KEY; keys of Secrets have
		// neither sign.
		key := creds[i].Key
		if j := strings.IndexAny(key, "#/"); j > 0 {
			key = key[:j]
		}
		if exposed(key) && (creds[i].Type != remit.Certificate || creds[i].Attributes["private-key"] == "true") {
			creds[i].Exposure = append(creds[i].Exposure, "annotation")
		}
	}
	// A certificate's key lies in an entry of its own.
	if exposed(corev1.TLSPrivateKeyKey) {
		for i := range creds {
			if creds[i].Attributes["private-key"] == "true" && !slices.Contains(creds[i].Exposure, "annotation") {
				creds[i].Exposure = append(creds[i].Exposure, "annotation")
			}
		}
	}
}

func appliedData(meta *metav1.ObjectMeta) (map[string][]byte, bool) {
	last := meta.Annotations[corev1.LastAppliedConfigAnnotation]
	if last == "" || len(last) > maxAnnotation {
		return nil, false
	}
	var obj struct {
		Data       map[string][]byte `json:"data"`
		StringData map[string]string `json:"stringData"`
	}
	if json.Unmarshal([]byte(last), &obj) != nil {
		return nil, false
	}
	if obj.Data == nil {
		obj.Data = make(map[string][]byte, len(obj.StringData))
	}
	for k, v := range obj.StringData {
		obj.Data[k] = []byte(v)
	}
	return obj.Data, len(obj.Data) > 0
}

// fromSecretMetadata makes credentials of what a Secret's metadata tells when
// its values are not read: its type ("" where that is not known either), name,
// labels, annotations, and the names of its entries, which the managed fields
// have. They carry the attribute unread and no fingerprint.
func (c *credentials) fromSecretMetadata(meta *metav1.PartialObjectMetadata, typ string) []remit.Credential {
	m := &meta.ObjectMeta
	if holdsNoCredential(m, typ) {
		return nil
	}
	f := c.at(secretPlace(m, c))
	keys := dataKeys(m)
	if typ == "" {
		typ = guessType(m, keys)
	}
	has := func(key string) bool { return slices.Contains(keys, key) }
	switch corev1.SecretType(typ) {
	case corev1.SecretTypeServiceAccountToken:
		f.legacyToken(m)
	case corev1.SecretTypeBootstrapToken:
		f.bootstrapToken(nil)
	case corev1.SecretTypeDockerConfigJson:
		f.add(corev1.DockerConfigJsonKey, remit.Password)
	case corev1.SecretTypeDockercfg:
		f.add(corev1.DockerConfigKey, remit.Password)
	case corev1.SecretTypeBasicAuth:
		if len(keys) == 0 || has(corev1.BasicAuthPasswordKey) {
			f.add(corev1.BasicAuthPasswordKey, remit.Password)
		}
	case corev1.SecretTypeSSHAuth:
		f.add(corev1.SSHAuthPrivateKey, remit.SSHKey)
	case corev1.SecretTypeTLS:
		cred := f.add(corev1.TLSCertKey, remit.Certificate)
		cred.Attributes["private-key"] = "true" // the API server insists on both entries
	default:
		for _, key := range keys {
			if t, ok := secret.NamedType(key); ok {
				f.add(key, t).Attributes[attrRecognisedBy] = "name"
			}
		}
	}
	for i := range f.out {
		f.out[i].Attributes[attrUnread] = "true"
	}
	out := f.done()
	c.lastApplied(m, nil, out)
	return out
}

func guessType(m *metav1.ObjectMeta, keys []string) string {
	switch {
	case m.Annotations[corev1.ServiceAccountNameKey] != "":
		return string(corev1.SecretTypeServiceAccountToken)
	case m.Namespace == metav1.NamespaceSystem && strings.HasPrefix(m.Name, "bootstrap-token-"):
		return string(corev1.SecretTypeBootstrapToken)
	case slices.Contains(keys, corev1.DockerConfigJsonKey):
		return string(corev1.SecretTypeDockerConfigJson)
	case slices.Contains(keys, corev1.DockerConfigKey):
		return string(corev1.SecretTypeDockercfg)
	case slices.Contains(keys, corev1.TLSCertKey) && slices.Contains(keys, corev1.TLSPrivateKeyKey):
		return string(corev1.SecretTypeTLS)
	case slices.Contains(keys, corev1.SSHAuthPrivateKey):
		return string(corev1.SecretTypeSSHAuth)
	}
	return ""
}
