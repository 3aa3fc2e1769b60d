//go:build tools

// Package kubeapi exists to pin the servers below in this module's go.mod and
// go.sum; it is never compiled. Package remit/e2e/cluster builds the binaries.
package kubeapi

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kubectl"
)
