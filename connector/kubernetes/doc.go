// Package kubernetes connects Remit to a Kubernetes cluster, live or written to
// files.
//
// There is one code path for all three ways of reading. A [Connector] feeds
// objects, whether they come from a listing, a watch or a file, into a model of
// the cluster, which keeps of each object only what the inventory needs. Units
// of the model (an account, a workload, a binding, a subject) are projected to
// records as pure functions of the model, and each projection notes which facts
// it read. A change of a fact projects again exactly the units that read it. So
// a snapshot is "everything has changed", an offline reading is a snapshot of
// files, and a watch is a snapshot that goes on.
//
// What becomes what is written down in docs/connectors/kubernetes.md. The least
// privilege that a live cluster needs is deploy/kubernetes/clusterrole.yaml.
package kubernetes
