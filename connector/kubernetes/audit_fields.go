package kubernetes

// FieldAliases lead from the names that Sigma rules for Kubernetes have for
// fields to where an audit event has them. hostPath and capabilities are of the
// pod that a request makes, and in the log at level Request and above only.
var FieldAliases = map[string]string{
	"apiGroup":     "objectRef.apiGroup",
	"hostPath":     "requestObject.spec.volumes.hostPath",
	"capabilities": "requestObject.spec.containers.securityContext.capabilities.add requestObject.spec.initContainers.securityContext.capabilities.add",
}

// Fields are the first keys of audit events.
// Source: https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/
var Fields = []string{
	"kind", "apiVersion", "level", "auditID", "stage", "requestURI", "verb", "user", "impersonatedUser", "authenticationMetadata",
	"sourceIPs", "userAgent", "objectRef", "responseStatus", "requestObject", "responseObject", "requestReceivedTimestamp",
	"stageTimestamp", "annotations",
}
