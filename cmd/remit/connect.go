package main

import (
	"github.com/spf13/cobra"

	"remit"
	"remit/connector"
)

// connectFlags say which system a command reads, and how.
type connectFlags struct {
	systemConfig
	from []string
}

func (f *connectFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.Kubeconfig, "kubeconfig", "", "kubeconfig `file`; the default is what kubectl would use")
	flags.StringVar(&f.Context, "context", "", "`context` of the kubeconfig; the default is the current one")
	flags.StringVar(&f.Name, "system", "", "`name` of the system: of one in the configuration, or the one to give this cluster")
	flags.StringVar(&f.Secrets, "secrets", "", "what to read of Secrets: `values|metadata|none` (default values, which are recognised and dropped)")
	flags.StringArrayVar(&f.from, "from", nil, "read manifests, or what kubectl get -o yaml wrote, from a `path` instead of a cluster; repeatable")
}

// connect makes the connector that the flags and the configuration describe.
func (f *connectFlags) connect(c *config, key []byte) (connector.Watcher, error) {
	system := f.systemConfig
	for _, known := range c.Systems {
		if known.Name == f.Name {
			if !known.watched() {
				return nil, remit.Errorf(remit.Unsupported, "", "the system %s is of the connector %s, whose inventory Remit does not read", known.Name, known.Connector)
			}
			system = known.with(system)
		}
	}
	return connectKubernetes(system, f.from, c, key)
}

// with lets what was said on the command line override the configuration.
func (s systemConfig) with(over systemConfig) systemConfig {
	for _, field := range []struct{ to, from *string }{
		{&s.Kubeconfig, &over.Kubeconfig}, {&s.Context, &over.Context}, {&s.Secrets, &over.Secrets},
	} {
		if *field.from != "" {
			*field.to = *field.from
		}
	}
	return s
}
