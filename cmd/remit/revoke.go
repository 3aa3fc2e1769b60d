package main

import (
	"github.com/spf13/cobra"

	"remit"
	"remit/response"
)

func newRevokeCommand(global *globalFlags) *cobra.Command {
	var f askFlags
	cmd := &cobra.Command{
		Use:   "revoke CREDENTIAL",
		Short: "End a credential for good",
		Long: `Revoke makes a plan that ends a credential, and carries it out when the
configuration asks for no approval. With --plan it shows who uses the credential
and would notice, and changes nothing.

The credential is one of the inventory (by its ID crd_…, or by the object that it
lies in: payments/api-token), or as the log writes it (JTI=…, X509SHA256=…,
legacy-token=NAMESPACE/ACCOUNT), or the ID of a finding about one.

A long-lived token of a service account and a bootstrap token end with their
Secret. A single short-lived token and a client certificate cannot be revoked in
Kubernetes: they are frozen, which leaves them able to read, and the plan says
what would end them. What another platform accepts can only be revoked there.`,
		Example: `  remit revoke payments/api-token --plan
  remit revoke crd_7h4… --as alice`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.ask(cmd, global, args[0], credentialOnly, func(q *response.Request) { q.Action = remit.Revoke })
		},
	}
	f.add(cmd)
	return cmd
}
