package kubernetes

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"remit"
	"remit/connector/secret"
)

// entryNames sorts the keys of a map, so that what is numbered or cut off is the
// same at each look.
func entryNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// judge decides whether an entry is a credential by its name.
type judge func(name string, value []byte) (remit.CredentialType, bool)

// value makes credentials of one entry: key is the credential's key, name what
// the entry is called, and byName judges what nothing else recognises.
func (f *found) value(key, name string, data []byte, byName judge) {
	if len(bytes.TrimSpace(data)) == 0 {
		return
	}
	if kind := secret.Keystore(data); kind != "" {
		if !strings.Contains(strings.ToLower(name), "trust") {
			cred := f.add(key, remit.PrivateKey)
			cred.Fingerprint = f.c.Fingerprint(data)
			cred.Attributes[attrRule] = kind
		}
		return
	}
	data = secret.Unwrap(data)
	if secret.IsKubeconfig(data) {
		if users, err := secret.ParseKubeconfig(data, f.c.Fingerprint); err == nil {
			f.kubeconfig(key, users)
			return
		}
	}
	// What is broken in a bundle is no credential; what can be read is.
	bundle, _ := secret.ParseBundle(data, f.c.Fingerprint)
	f.bundle(key, bundle)
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN ")) || len(bundle.Certificates)+len(bundle.Keys) > 0 && data[0] == 0x30 {
		return
	}
	if bytes.Contains(data, []byte(`"auths"`)) {
		if logins, err := secret.ParseDockerConfig(data, f.c.Fingerprint); err == nil {
			f.registries(key, logins)
			return
		}
	}
	scanned := f.c.Scanner.Scan(name, data, f.c.Fingerprint)
	recognised := len(bundle.Keys)+len(bundle.Certificates) > 0
	for _, s := range scanned.Found {
		if !s.ByName {
			recognised = true
			f.scanned(key, s, scanned.Cut)
		}
	}
	if recognised || byName == nil {
		return
	}
	if typ, ok := byName(name, data); ok {
		cred := f.add(key, typ)
		cred.Fingerprint = f.c.Fingerprint(bytes.TrimSpace(data))
		cred.Attributes[attrRecognisedBy] = "name"
		if secret.Hashed(data) {
			cred.Attributes["hashed"] = "true"
		}
	}
}

func (f *found) scanned(key string, s secret.Found, cut bool) {
	cred := f.add(key, s.Type)
	cred.Provider, cred.Native, cred.Fingerprint = s.Provider, s.Native, s.Fingerprint
	if s.Token != nil {
		f.token(cred, s.Token)
		cred.Provider = s.Provider
	} else {
		cred.Attributes[attrRule] = s.Rule
	}
	if s.Account != "" {
		cred.Attributes["account"] = s.Account
	}
	if cut {
		cred.Attributes[attrPartial] = "true"
	}
}

// token fills in what the claims of a JSON Web Token tell.
func (f *found) token(cred *remit.Credential, t *secret.Token) {
	cred.Issuer, cred.Subject = t.Issuer, t.Subject
	cred.Issued, cred.Expires, cred.NeverExpires = t.Issued, t.Expires, t.Expires.IsZero()
	cred.Type = remit.ShortLivedToken
	if cred.NeverExpires {
		cred.Type = remit.StaticToken
	}
	cred.Audiences = t.Audiences
	cred.Algorithm = t.Algorithm
	if t.ID != "" {
		cred.Native = "JTI=" + t.ID
	}
	if !t.Issued.IsZero() && t.Expires.After(t.Issued) {
		cred.GrantedLifetime = int64(t.Expires.Sub(t.Issued).Seconds())
	}
	cred.Attributes["jwt"] = "true"
	if t.ServiceAccount == "" {
		return
	}
	f.c.authenticates(cred, remit.Ref{Kind: "ServiceAccount", Namespace: t.Namespace, Name: t.ServiceAccount})
	cred.Provider = "kubernetes"
	if t.Legacy {
		cred.Attributes["legacy"] = "true"
	}
	for name, v := range map[string]string{"bound-pod": t.Pod, "bound-node": t.Node, "bound-secret": t.Secret} {
		if v != "" {
			cred.Attributes[name] = v
		}
	}
}

// trustBundle is how many certificates without a key make a value a list of
// roots to trust instead of a chain to show.
const trustBundle = 16

// bundle keeps certificates and keys until the object was read as a whole.
func (f *found) bundle(key string, b secret.Bundle) {
	for _, k := range b.Keys {
		f.private = append(f.private, privateAt{key, k})
	}
	if len(b.Keys) == 0 && len(b.Certificates) > trustBundle {
		return
	}
	for _, c := range b.Certificates {
		f.certificates = append(f.certificates, certificateAt{key, c})
	}
}

// pair makes credentials of the certificates, each with the private key that
// lies beside it, and of the keys that have none.
func (f *found) pair() {
	used := make([]bool, len(f.private))
	for _, c := range f.certificates {
		cred := f.add(c.key, remit.Certificate)
		f.certificate(cred, &c.cert)
		paired := false
		for i, p := range f.private {
			// Of an encrypted key nothing can be compared; in a value or an
			// object with one leaf certificate it is that one's.
			if p.pk.KeyID == c.cert.KeyID && p.pk.KeyID != "" || p.pk.Encrypted && p.pk.KeyID == "" && !p.pk.OpenSSH && !c.cert.CA {
				used[i], paired = true, true
				cred.Fingerprint = p.pk.Fingerprint
			}
		}
		if paired {
			cred.Attributes["private-key"] = "true"
		} else {
			cred.Exposure = nil // a certificate without its key is public
		}
	}
	for i, p := range f.private {
		if used[i] {
			continue
		}
		typ := remit.PrivateKey
		if p.pk.OpenSSH || sshName(p.key) {
			typ = remit.SSHKey
		}
		cred := f.add(p.key, typ)
		cred.Algorithm, cred.KeyBits, cred.Fingerprint = p.pk.Algorithm, p.pk.KeyBits, p.pk.Fingerprint
		if p.pk.Encrypted {
			cred.Attributes["encrypted"] = "true"
		}
	}
	f.certificates, f.private = nil, nil
}

func sshName(key string) bool {
	k := strings.ToLower(key)
	return strings.Contains(k, "ssh") || strings.Contains(k, "id_rsa") || strings.Contains(k, "id_ecdsa") ||
		strings.Contains(k, "id_ed25519") || strings.Contains(k, "id_dsa")
}

func (f *found) certificate(cred *remit.Credential, c *secret.Certificate) {
	cred.Native, cred.Subject, cred.Issuer = c.Native, c.Subject, c.Issuer
	cred.Issued, cred.Expires = c.NotBefore, c.NotAfter
	cred.Algorithm, cred.KeyBits = c.Algorithm, c.KeyBits
	cred.GrantedLifetime = int64(c.NotAfter.Sub(c.NotBefore).Seconds())
	if c.CA {
		cred.Attributes["ca"] = "true"
	}
	if c.SelfSigned {
		cred.Attributes["self-signed"] = "true"
	}
	var usage []string
	if c.Server {
		usage = append(usage, "server")
	}
	if c.Client {
		usage = append(usage, "client")
	}
	if len(usage) > 0 {
		cred.Attributes["usage"] = strings.Join(usage, ",")
	}
}

func (f *found) kubeconfig(key string, users []secret.KubeUser) {
	for _, u := range users {
		k := key + "/" + u.Name
		add := func(typ remit.CredentialType) *remit.Credential {
			cred := f.add(k, typ)
			cred.Provider = "kubernetes"
			cred.Attributes["kubeconfig"] = "true"
			if u.Server != "" {
				cred.Attributes["server"] = u.Server
			}
			return cred
		}
		switch {
		case u.Certificate != nil:
			cred := add(remit.Certificate)
			f.certificate(cred, u.Certificate)
			if u.Certificate.CommonName != "" {
				f.c.authenticates(cred, refOfUser(u.Certificate.CommonName))
			}
			if len(u.Certificate.Organizations) > 0 {
				cred.Attributes["groups"] = strings.Join(u.Certificate.Organizations, ",")
			}
			if u.HasKey {
				cred.Attributes["private-key"] = "true"
			} else {
				cred.Exposure = nil
			}
			if u.Key != nil {
				cred.Fingerprint = u.Key.Fingerprint
			}
		case u.HasKey:
			cred := add(remit.PrivateKey)
			if u.Key != nil {
				cred.Algorithm, cred.KeyBits, cred.Fingerprint = u.Key.Algorithm, u.Key.KeyBits, u.Key.Fingerprint
			}
		}
		if u.HasToken {
			cred := add(remit.StaticToken)
			if u.Token != nil {
				f.token(cred, u.Token)
				cred.Provider = "kubernetes" // which accepts tokens of other issuers
			}
			cred.Fingerprint = u.TokenFingerprint
		}
		if u.HasPassword {
			cred := add(remit.Password)
			cred.Fingerprint = u.PasswordFingerprint
			if u.Username != "" {
				f.c.authenticates(cred, refOfUser(u.Username))
			}
		}
		if u.HasProviderToken {
			cred := add(remit.StaticToken)
			cred.Provider = u.AuthProvider
			cred.Fingerprint = u.ProviderFingerprint
		}
	}
}

func (f *found) registries(key string, logins []secret.RegistryLogin) {
	for _, l := range logins {
		typ := remit.Password
		if l.Token {
			typ = remit.StaticToken
		}
		cred := f.add(key+"/"+l.Host, typ)
		cred.Provider, _, _ = strings.Cut(l.Host, "/")
		cred.Fingerprint = l.Fingerprint
		if l.Username != "" {
			cred.Attributes["username"] = l.Username
		}
	}
}

// joinAWS makes one credential of the two halves of an AWS access key: the id
// names it, the secret is it. It does so only where it is plain which belong
// together: those of one entry in their order, as a credentials file has its
// profiles, or one of each in the object.
func (f *found) joinAWS() {
	type halves struct{ ids, secrets []int }
	entries := make(map[string]*halves)
	var all halves
	for i, cred := range f.out {
		entry, _, _ := strings.Cut(cred.Key, "#")
		h := entries[entry]
		if h == nil {
			h = new(halves)
			entries[entry] = h
		}
		switch cred.Attributes[attrRule] {
		case "aws-access-token":
			h.ids, all.ids = append(h.ids, i), append(all.ids, i)
		case "aws-secret-access-key":
			h.secrets, all.secrets = append(h.secrets, i), append(all.secrets, i)
		}
	}
	drop := make(map[int]bool)
	join := func(h *halves) {
		for i, id := range h.ids {
			f.out[h.secrets[i]].Native = f.out[id].Native
			drop[id] = true
		}
	}
	if len(all.ids) == 1 && len(all.secrets) == 1 {
		join(&all)
	} else {
		for _, h := range entries {
			if len(h.ids) == len(h.secrets) {
				join(h)
			}
		}
	}
	if len(drop) == 0 {
		return
	}
	// What remains of an entry is numbered anew: KEY, KEY#2, ….
	clear(f.keys)
	kept := f.out[:0]
	for i, cred := range f.out {
		if drop[i] {
			continue
		}
		cred.Key, cred.ID = f.key(strings.SplitN(cred.Key, "#", 2)[0])
		kept = append(kept, cred)
	}
	f.out = kept
}
