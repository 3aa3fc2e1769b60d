package kubernetes

import (
	corev1 "k8s.io/api/core/v1"

	"remit"
	"remit/connector/secret"
)

// publishedRoots are ConfigMaps that a controller copies into every namespace,
// each with the same public certificate to trust. They would be one credential
// a namespace of which nobody holds the key.
var publishedRoots = map[string]bool{
	"kube-root-ca.crt":         true, // the controller manager's root-ca-cert-publisher
	"openshift-service-ca.crt": true,
	"istio-ca-root-cert":       true,
}

// fromConfigMap makes credentials of what a ConfigMap, which is not meant for
// them, holds; their exposure is "configmap". A list of more than 16
// certificates without a key is a list of roots to trust and no credential.
func (c *credentials) fromConfigMap(cm *corev1.ConfigMap) []remit.Credential {
	if publishedRoots[cm.Name] {
		return nil
	}
	p := placeOf(remit.Ref{Kind: "ConfigMap", Namespace: cm.Namespace, Name: cm.Name}, &cm.ObjectMeta)
	p.location = remit.ResourceID(c.System, p.ref)
	p.rotated = dataChanged(&cm.ObjectMeta)
	p.exposure = "configmap"
	f := c.at(p)
	for _, key := range entryNames(cm.Data) {
		f.value(key, key, []byte(cm.Data[key]), secret.NamedInPlain)
	}
	for _, key := range entryNames(cm.BinaryData) {
		f.value(key, key, cm.BinaryData[key], nil)
	}
	return f.done()
}
