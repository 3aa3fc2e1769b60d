package kubernetes

import (
	"log/slog"
	"time"

	"remit"
	"remit/connector/secret"
)

// Config says what to connect to and how to read it. Its zero value reads the
// current context of the user's kubeconfig, with the values of Secrets.
type Config struct {
	// Kubeconfig is the path of a kubeconfig; "" means what kubectl would use:
	// $KUBECONFIG (which may list several files), ~/.kube/config, or, inside a
	// pod without either, the pod's own account.
	Kubeconfig string

	// Context is the kubeconfig's context; "" means its current one.
	Context string

	// Name is the user's word for the system; "" means the name that the
	// context gives to its cluster, and for files that of the first path.
	Name string

	// Namespaces restricts the reading to these namespaces; empty means all.
	// What is not in a namespace is read all the same, as far as it may be.
	Namespaces []string

	// Secrets says how much of Secrets and ConfigMaps is read; "" means
	// SecretValues.
	Secrets SecretsMode

	// OwnerKeys and EnvironmentKeys are labels and annotations that name an
	// owner or an environment, the strongest first. A key without a slash
	// also matches behind any prefix ("team" matches "example.com/team").
	// They come before the built-in ones.
	OwnerKeys       []string
	EnvironmentKeys []string

	// Environment is that of everything for which nothing else tells.
	Environment string

	// AgentRules are the user's own rules for recognising AI agents (see
	// ParseAgentRules). They come before the built-in ones, and what they
	// match counts as known.
	AgentRules []AgentRule

	// ExtendTokenExpiration overrides what the API server's own flags tell
	// about --service-account-extend-token-expiration; nil means to ask, and
	// to take Kubernetes' default, true, where it cannot be seen.
	ExtendTokenExpiration *bool

	// FileNamespace is the namespace of objects in files that name none; ""
	// means "default", where kubectl would put them.
	FileNamespace string

	// Guard is what the cluster is to refuse; an [Enforcer] plans towards it.
	Guard Guard

	// Fingerprint turns a secret into a keyed fingerprint; nil leaves
	// fingerprints empty. It must be safe for concurrent use.
	Fingerprint func([]byte) string

	// Scanner recognises secrets; nil means the built-in rules.
	Scanner *secret.Scanner

	// Now is the clock; nil means time.Now.
	Now func() time.Time

	// Logger is told what a user may want to know while things go on
	// (retries, lost watches); nil discards it.
	Logger *slog.Logger

	// retry and pageLimit are replaced by tests that cannot wait and that want
	// many pages of little.
	retry     retryPolicy
	pageLimit int64
}

// SecretsMode says how much of Secrets and ConfigMaps is read.
type SecretsMode string

// The modes. Values never leave the process in any of them.
const (
	// SecretValues reads the values, recognises credentials in them and
	// forgets them at once.
	SecretValues SecretsMode = "values"
	// SecretMetadata reads names, labels and types only; the API server does
	// not even send the values. The right to list Secrets is needed all the
	// same: Kubernetes has no lesser one.
	SecretMetadata SecretsMode = "metadata"
	// SecretNone does not ask for Secrets and ConfigMaps.
	SecretNone SecretsMode = "none"
)

func (c Config) withDefaults() (Config, error) {
	switch c.Secrets {
	case "":
		c.Secrets = SecretValues
	case SecretValues, SecretMetadata, SecretNone:
	default:
		return c, remit.Errorf(remit.Invalid, "open kubernetes",
			"no way of reading Secrets is called %q: use values, metadata or none", c.Secrets)
	}
	if c.FileNamespace == "" {
		c.FileNamespace = "default"
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Scanner == nil {
		scanner, err := secret.NewScanner()
		if err != nil {
			return c, err
		}
		c.Scanner = scanner
	}
	if c.retry == (retryPolicy{}) {
		c.retry = defaultRetry
	}
	return c, nil
}
