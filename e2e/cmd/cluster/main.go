//go:build unix

// Command cluster runs a Kubernetes cluster of package cluster until it is
// interrupted, to look at things by hand:
//
//	go run ./e2e/cmd/cluster -nodes 2
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"remit/e2e/cluster"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run() error {
	var o cluster.Options
	flag.IntVar(&o.Nodes, "nodes", 0, "nodes that run pods")
	flag.StringVar(&o.AuditWebhookURL, "audit-webhook", "", "URL that gets the audit events as well")
	auditPolicy := flag.String("audit-policy", "", "file with an audit policy (default: everything at level Metadata)")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *auditPolicy != "" {
		policy, err := os.ReadFile(*auditPolicy)
		if err != nil {
			return fmt.Errorf("read the audit policy: %w", err)
		}
		o.AuditPolicy = string(policy)
	}
	c, err := cluster.Run(ctx, o)
	if err != nil {
		return err
	}
	fmt.Printf("export KUBECONFIG=%s\nalias kubectl=%s\n# audit log: %s\n# interrupt (Ctrl-C) to end\n",
		c.Kubeconfig, c.Binaries.Kubectl, c.AuditLog)
	<-ctx.Done()
	return c.Close()
}
