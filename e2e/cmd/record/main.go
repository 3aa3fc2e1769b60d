// Command record makes the recording behind `remit demo`: it starts a real API
// server, plants a cluster with known problems in it, lets the controllers and
// kubelets do their work, and writes down what the API server then lists.
package main

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"remit/e2e/cluster"
	"remit/e2e/planted"
)

// recorded are the listings that the connector makes.
var recorded = []struct{ group, version, resource string }{
	{"", "v1", "namespaces"},
	{"", "v1", "nodes"},
	{"", "v1", "serviceaccounts"},
	{"", "v1", "secrets"},
	{"", "v1", "configmaps"},
	{"", "v1", "pods"},
	{"apps", "v1", "deployments"},
	{"apps", "v1", "statefulsets"},
	{"apps", "v1", "daemonsets"},
	{"apps", "v1", "replicasets"},
	{"batch", "v1", "jobs"},
	{"batch", "v1", "cronjobs"},
	{"rbac.authorization.k8s.io", "v1", "roles"},
	{"rbac.authorization.k8s.io", "v1", "clusterroles"},
	{"rbac.authorization.k8s.io", "v1", "rolebindings"},
	{"rbac.authorization.k8s.io", "v1", "clusterrolebindings"},
	{"certificates.k8s.io", "v1", "certificatesigningrequests"},
	{"admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations"},
	{"admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations"},
	{"apiregistration.k8s.io", "v1", "apiservices"},
}

func main() {
	out := flag.String("o", "recording.json.gz", "where to write the recording")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := record(ctx, *out); err != nil {
		log.Fatal(err)
	}
}

func record(ctx context.Context, out string) (err error) {
	c, err := cluster.Run(ctx, cluster.Options{Nodes: 3})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	plan, err := planted.New()
	if err != nil {
		return err
	}
	if err := plan.Plant(ctx, c.Admin); err != nil {
		return err
	}
	if err := planted.Settle(ctx, c.Client, plan); err != nil {
		return err
	}
	items, err := list(ctx, c.Admin)
	if err != nil {
		return err
	}
	version, err := c.Client.Discovery().ServerVersion()
	if err != nil {
		return err
	}
	log.Printf("recorded %d objects of a %s API server", len(items), version.GitVersion)
	return write(out, map[string]any{"apiVersion": "v1", "kind": "List", "items": items})
}

func list(ctx context.Context, config *rest.Config) ([]any, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	var items []any
	for _, r := range recorded {
		found, err := client.Resource(schema.GroupVersionResource{Group: r.group, Version: r.version, Resource: r.resource}).
			List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", r.resource, err)
		}
		for _, item := range found.Items {
			items = append(items, item.Object)
		}
	}
	return items, nil
}

// write puts the whole document in place at once. The gzip header tells when it
// was recorded.
func write(out string, document any) (err error) {
	f, err := os.CreateTemp(filepath.Dir(out), ".recording-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	zipped, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err != nil {
		return err
	}
	zipped.ModTime = time.Now()
	if err := errors.Join(json.NewEncoder(zipped).Encode(document), zipped.Close(), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), out)
}
