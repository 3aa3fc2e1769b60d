package main

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"remit"
	"remit/connector/kubernetes"
	"remit/report"
	"remit/server"
	"remit/server/authorize"
	"remit/server/ingest"
	"remit/server/token"
)

func newTokenCommand(global *globalFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make and revoke the tokens with which others talk to Remit",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTokenCreateCommand(global), newTokenListCommand(global), newTokenRevokeCommand(global),
		newTokenAuthorityCommand(global), newTokenAuthorizerCommand(global))
	return cmd
}

// openTokens opens the tokens of a data directory.
func openTokens(cmd *cobra.Command, global *globalFlags) (*dataDir, *token.Tokens, error) {
	data, err := openDataDir(cmd.Context(), global, false)
	if err != nil {
		return nil, nil, err
	}
	tokens, err := token.New(data.Store, data.Key, nil)
	if err != nil {
		data.Close()
		return nil, nil, err
	}
	return data, tokens, nil
}

func newTokenCreateCommand(global *globalFlags) *cobra.Command {
	var r token.Request
	lifetime := span(token.DefaultLifetime)
	var webhook string
	cmd := &cobra.Command{
		Use:   "create CLIENT",
		Short: "Make a token and print it, once",
		Long: `Create makes a token for a client and prints it. It is kept nowhere: only its
fingerprint is, in the inventory, where it ages and expires like any other
credential. A client may have several, so that one can be replaced without a
pause: create, install, revoke the former.

With --webhook it prints the file that a Kubernetes API server takes as its
--audit-webhook-config-file or, with --for authorize, the kubeconfig that its
authorization configuration names ("remit token authorizer").`,
		Example: `  remit token create prod-audit --system prod --source kubernetes --webhook https://remit.example.com:8443 > webhook.yaml
  remit token create collector --owner platform --expires 90d
  remit token create prometheus --for metrics
  remit token create prod-authorize --for authorize --system prod --webhook https://remit.example.com:8443 > remit.kubeconfig
  remit token create okta --for signals`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Client, r.Lifetime = args[0], time.Duration(lifetime)
			return createToken(cmd, global, r, webhook)
		},
	}
	flags := cmd.Flags()
	flags.StringVar((*string)(&r.Scope), "for", string(token.SendEvents), "`what` it is for: events, metrics, signals (an identity provider's), streams (receiving Remit's), triggers or authorize (an API server's questions)")
	flags.StringVar(&r.System, "system", "", "`name` of the system whose events are sent with it, or which asks with it; the default is that the events tell")
	flags.StringVar(&r.Source, "source", "", "`source` of the events, as kubernetes; the default is to recognise it")
	flags.StringVar(&r.Owner, "owner", "", "the `team` or person that answers for the client")
	flags.Var(&lifetime, "expires", "after how long it ends")
	flags.StringVar(&webhook, "webhook", "", "`URL` of this Remit as the API server reaches it: print a webhook configuration")
	return cmd
}

func createToken(cmd *cobra.Command, global *globalFlags, r token.Request, webhook string) error {
	if _, err := decoderNamed(r.Source); err != nil {
		return err
	}
	var host, path string
	if webhook != "" {
		u, err := url.Parse(webhook)
		if err != nil || u.Scheme != "https" || u.Host == "" {
			return remit.Errorf(remit.Invalid, "", "--webhook %s: write https://HOST:PORT; API servers send by TLS only", webhook)
		}
		host = u.Hostname()
		switch {
		case r.Scope == token.SendEvents:
			path = ingest.Path
		case r.Scope == token.Authorize && r.System == "":
			return remit.Errorf(remit.Invalid, "", "--webhook and --for authorize need the name of the system that asks: add --system")
		case r.Scope == token.Authorize:
			path = authorize.Path(r.System)
		default:
			return remit.Errorf(remit.Invalid, "", "--webhook is for sending events, or with --for authorize for asking: leave --for %s out", r.Scope)
		}
	}
	if r.Scope == token.Authorize && r.Source != "" {
		return remit.Errorf(remit.Invalid, "", "--source is for tokens with which events are sent: leave it out")
	}
	data, tokens, err := openTokens(cmd, global)
	if err != nil {
		return err
	}
	defer data.Close()
	c, err := readConfig(global)
	if err != nil {
		return err
	}
	if r.System != "" {
		if err := tokenSystem(cmd, data, c, &r); err != nil {
			return err
		}
	}
	secret, made, err := tokens.Create(cmd.Context(), r)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "token %s of %s, until %s; it is not shown again\n", made.ID, made.Client, made.Expires.Format(time.DateOnly))
	if webhook == "" {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), secret)
		return err
	}
	var authority []byte
	if c.Listen.Certificate == "" {
		own, err := server.OpenAuthority(data.path)
		if err != nil {
			return err
		}
		authority = own.PEM()
		if loopback := host == "localhost" || net.ParseIP(host).IsLoopback(); !loopback && !slices.Contains(c.Listen.names(), host) {
			fmt.Fprintf(cmd.ErrOrStderr(), "the certificate does not name %s yet: add it to listen.hosts in remit.yaml\n", report.Visible(host))
		}
	}
	return writeWebhook(cmd.OutOrStdout(), strings.TrimSuffix(webhook, "/")+path, authority, secret)
}

// tokenSystem makes sure that events for a system of that name will find it.
func tokenSystem(cmd *cobra.Command, data *dataDir, c *config, r *token.Request) error {
	systems, err := data.Store.Systems(cmd.Context())
	if err != nil {
		return err
	}
	known := slices.ContainsFunc(systems, func(s remit.System) bool { return s.Name == r.System }) ||
		slices.ContainsFunc(c.Systems, func(s systemConfig) bool { return s.Name == r.System })
	switch {
	case known:
	case r.Scope == token.Authorize:
		fmt.Fprintf(cmd.ErrOrStderr(), "no system %s is known yet: add it under systems in remit.yaml, with authorize: true\n", report.Visible(r.System))
	case r.Source == "":
		return remit.Errorf(remit.Invalid, "create token", "no system %q is known yet: scan it first, or name the --source of its events (%s)", r.System, strings.Join(sourceNames(), ", "))
	default:
		fmt.Fprintf(cmd.ErrOrStderr(), "no system %s is known yet: it is made when its first event comes, or when `remit serve --system %[1]s` reads it\n", report.Visible(r.System))
	}
	return nil
}

// writeWebhook writes a webhook configuration, which is a kubeconfig.
func writeWebhook(w io.Writer, endpoint string, authority []byte, secret string) error {
	const name = "remit"
	text, err := clientcmd.Write(api.Config{
		Clusters:       map[string]*api.Cluster{name: {Server: endpoint, CertificateAuthorityData: authority}},
		AuthInfos:      map[string]*api.AuthInfo{name: {Token: secret}},
		Contexts:       map[string]*api.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	})
	if err != nil {
		return remit.Errorf(remit.Internal, "write webhook configuration", "%w", err)
	}
	_, err = w.Write(text)
	return err
}

func newTokenListCommand(global *globalFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the tokens, their ends and when they were last used",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			data, tokens, err := openTokens(cmd, global)
			if err != nil {
				return err
			}
			defer data.Close()
			all, err := tokens.List(cmd.Context())
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
			fmt.Fprintln(w, "CLIENT\tTOKEN\tFOR\tSYSTEM\tSTATUS\tEXPIRES\tLAST USED")
			for _, t := range all {
				status := t.Status
				if status == remit.Active && !time.Now().Before(t.Expires) {
					status = remit.Expired
				}
				used := "never"
				if !t.LastUsed.IsZero() {
					used = t.LastUsed.Format("2006-01-02 15h")
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", t.Client, t.ID, t.Scope, report.Visible(orDash(t.System)), status, t.Expires.Format(time.DateOnly), used)
			}
			return w.Flush()
		},
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func newTokenRevokeCommand(global *globalFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "revoke TOKEN|CLIENT",
		Short:   "End a token, or all of a client, at once",
		Example: "  remit token revoke 4f6c1b0a92de\n  remit token revoke prod-audit",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, tokens, err := openTokens(cmd, global)
			if err != nil {
				return err
			}
			defer data.Close()
			ended, err := tokens.Revoke(cmd.Context(), args[0])
			for _, t := range ended {
				fmt.Fprintf(cmd.OutOrStdout(), "revoked %s of %s\n", t.ID, t.Client)
			}
			return err
		},
	}
}

func newTokenAuthorityCommand(global *globalFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "authority",
		Short: "Print the certificate with which senders recognise Remit",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if global.dataDir == "" {
				return remit.Errorf(remit.Invalid, "", "name the data directory with --data-dir")
			}
			if _, err := os.Stat(filepath.Clean(global.dataDir)); err != nil {
				return remit.Errorf(remit.NotFound, "print certificate", "%w", err)
			}
			authority, err := server.OpenAuthority(global.dataDir)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(authority.PEM())
			return err
		},
	}
}

func newTokenAuthorizerCommand(_ *globalFlags) *cobra.Command {
	var kubeconfig string
	var except []string
	cmd := &cobra.Command{
		Use:   "authorizer",
		Short: "Print the configuration with which a Kubernetes API server asks Remit",
		Long: `Authorizer prints an AuthorizationConfiguration (Kubernetes 1.32 and later) with
which an API server asks Remit about each request, for the grade
refuse-credentials. The API server takes it as --authorization-config, in place
of --authorization-mode. It names the kubeconfig that
"remit token create --for authorize --webhook" prints.

Administrators (system:masters), nodes, the parts of the cluster itself and those
that --except names are left out: they are never asked about, and never refused.
While Remit does not answer, requests go on; failurePolicy: Deny refuses them.`,
		Example: `  remit token authorizer --kubeconfig /etc/kubernetes/remit.kubeconfig > authorization.yaml`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(kubernetes.AuthorizationConfiguration(kubeconfig, except))
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&kubeconfig, "kubeconfig", "/etc/kubernetes/remit.kubeconfig", "the `file` with the token, as the API server sees it")
	flags.StringSliceVar(&except, "except", []string{"system:serviceaccount:remit:remit", "system:serviceaccount:remit-system:remit-enforcer"},
		"the `users` by whose names the cluster knows Remit's own logins")
	return cmd
}
