package kubernetes_test

import (
	"context"
	"fmt"
	"testing/fstest"

	"remit/connector"
	"remit/connector/kubernetes"
)

// Files of a cluster are read like the cluster itself.
func ExampleOpenFS() {
	manifests := fstest.MapFS{"app.yaml": {Data: []byte(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: deployer, namespace: shop, labels: {team: retail}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: deployer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: deployer, namespace: shop}]
`)}}
	c, err := kubernetes.OpenFS(manifests, "shop", kubernetes.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = c.Inventory(context.Background(), func(_ context.Context, page connector.Page) error {
		for _, id := range page.Records.Identities {
			if !id.BuiltIn {
				fmt.Println(id.Ref, "is owned by", id.Owners[0].Name)
			}
		}
		for _, g := range page.Records.Grants {
			fmt.Println(g.Subject, "has", g.RoleRef)
		}
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// ServiceAccount shop/deployer is owned by retail
	// ServiceAccount shop/deployer has ClusterRole cluster-admin
}
