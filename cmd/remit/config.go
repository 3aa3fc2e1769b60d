package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/goccy/go-yaml"

	"remit"
	"remit/connector/kubernetes"
	"remit/connector/openbao"
	"remit/connector/postgres"
	"remit/inventory"
	"remit/lifecycle"
	"remit/response"
)

// config is remit.yaml, documented in docs/reference/configuration.md.
type config struct {
	// Systems are what `remit serve` watches and what `remit scan` reads when
	// its --system names one.
	Systems []systemConfig `yaml:"systems"`

	// People is a file of those who can answer for an identity; Policies and
	// Agents add to the built-in ones. Paths are relative to the file.
	People   string   `yaml:"people"`
	Policies []string `yaml:"policies"`
	Agents   []string `yaml:"agents"`

	// Owners and Environments are the labels and annotations that say who
	// owns an object and where it belongs, beside the usual ones.
	Owners       []string `yaml:"owners"`
	Environments []string `yaml:"environments"`

	// Guard is the admission guard of all clusters that have none of their own.
	Guard *guardConfig `yaml:"guard"`

	// Protected are identities that no response may touch, as "payments/api", or
	// with their kind, as "User alice".
	Protected []string `yaml:"protected"`

	// Respond are rules by which findings are answered.
	Respond []ruleConfig `yaml:"respond"`

	// Rotation says where the new secrets of credentials go.
	Rotation []rotationConfig `yaml:"rotation"`
	// Lifecycle says until when credentials may be used, and what happens to
	// identities that are not needed any more.
	Lifecycle lifecycle.Config `yaml:"lifecycle"`

	// Listen is where events and metrics are served; without an address
	// nothing listens.
	Listen listenConfig `yaml:"listen"`

	// Logs are files of events that `remit serve` follows.
	Logs []logConfig `yaml:"logs"`

	// Polls are systems that `remit serve` asks for their events.
	Polls []pollConfig `yaml:"polls"`

	// Signals are identity providers whose signals are taken in, Transmit where
	// Remit's own go, and Leaks who reports leaked secrets by webhook.
	Signals  []signalConfig `yaml:"signals"`
	Transmit transmitConfig `yaml:"transmit"`
	Leaks    leaksConfig    `yaml:"leaks"`

	// Queue is where received events wait, Archive how long events are kept.
	Queue   queueConfig   `yaml:"queue"`
	Archive archiveConfig `yaml:"archive"`

	people inventory.People
}

// listenConfig is where Remit listens. It always speaks TLS.
type listenConfig struct {
	Address string `yaml:"address"` // "0.0.0.0:8443"

	// Hosts are the names and addresses under which senders reach it, for the
	// certificate of Remit's own authority. Certificate and Key are PEM files
	// of a certificate that takes its place.
	Hosts       []string `yaml:"hosts"`
	Certificate string   `yaml:"certificate"`
	Key         string   `yaml:"key"`
}

// logConfig is one file that is followed.
type logConfig struct {
	Path   string `yaml:"path"`
	System string `yaml:"system"` // "" when the events tell
	Source string `yaml:"source"` // "" to recognise it
}

// queueConfig is the queue: in the data directory, or an external one.
type queueConfig struct {
	URL     string `yaml:"url"` // nats://…
	MaxSize size   `yaml:"max_size"`
}

// archiveConfig is how long events are kept; zero is for good.
type archiveConfig struct {
	Keep    span                  `yaml:"keep"`
	KeepRaw span                  `yaml:"keep_raw"`
	MaxSize size                  `yaml:"max_size"`
	Systems map[string]keepConfig `yaml:"systems"` // by name, in place of the above
}

type keepConfig struct {
	Keep    span `yaml:"keep"`
	KeepRaw span `yaml:"keep_raw"`
	MaxSize size `yaml:"max_size"`
}

// systemConfig is one connected system.
type systemConfig struct {
	Name       string `yaml:"name"`
	Connector  string `yaml:"connector"` // "kubernetes" is the default; postgres, openbao
	Kubeconfig string `yaml:"kubeconfig"`
	Context    string `yaml:"context"`
	Secrets    string `yaml:"secrets"` // values, metadata or none

	// Address is the URL of an OpenBao or Vault server, Namespace one in it.
	Address   string `yaml:"address"`
	Namespace string `yaml:"namespace"`

	// ExtendTokenExpiration says whether the API server extends automounted
	// tokens to a year; without it the server's own flag or default counts.
	ExtendTokenExpiration *bool `yaml:"extend_token_expiration"`

	// Mode is how far Remit may go: observe (the default), recommend or enforce.
	// Enforce is the login with which it changes the system, another one than
	// that with which it reads; in mode observe it is not loaded. Approvals is
	// how many people beside the one who asks must approve a plan, 1 when it is
	// left out.
	Mode      remit.Mode    `yaml:"mode"`
	Enforce   enforceConfig `yaml:"enforce"`
	Approvals *int          `yaml:"approvals"`

	// Guard is what the cluster is to refuse from now on, in place of the one
	// for all.
	Guard *guardConfig `yaml:"guard"`

	guard kubernetes.Guard // of Guard, or of the one for all
}

// enforceConfig is a login with the right to change a system.
type enforceConfig struct {
	Kubeconfig string `yaml:"kubeconfig"`
	Context    string `yaml:"context"`

	// Of PostgreSQL: a file with the connection URL. Of OpenBao: one with a token,
	// and one with the certificates of its authority.
	URLFile   string `yaml:"url_file"`
	TokenFile string `yaml:"token_file"`
	CAFile    string `yaml:"ca_file"`
}

// ruleConfig says what Remit does about findings without being asked.
type ruleConfig struct {
	Name     string         `yaml:"name"`
	Policies []string       `yaml:"policies"` // of findings; patterns
	Severity remit.Severity `yaml:"severity"` // at least
	Systems  []string       `yaml:"systems"`
	Do       remit.Action   `yaml:"do"`
	Grades   []remit.Grade  `yaml:"grades"`
	Escalate []remit.Grade  `yaml:"escalate"`

	// Approval is "person", the default, or "none": then its plans are carried out
	// at once in systems of mode enforce, those of no more than Hourly identities.
	Approval string `yaml:"approval"`
	Hourly   int    `yaml:"hourly"`
}

// rules are the rules by which findings are answered.
func (c *config) rules() []response.Rule {
	all := make([]response.Rule, len(c.Respond))
	for i, r := range c.Respond {
		all[i] = response.Rule{
			Name: r.Name, Policies: r.Policies, Severity: r.Severity, Systems: r.Systems,
			Action: r.Do, Grades: r.Grades, Escalate: r.Escalate, Unapproved: r.Approval == "none", Hourly: r.Hourly,
		}
	}
	return all
}

// checkRules says what is wrong with the rules.
func (c *config) checkRules(op, path string) error {
	names := map[string]bool{}
	for i, rule := range c.rules() {
		where := fmt.Sprintf("%s: respond[%d]", path, i)
		if a := c.Respond[i].Approval; a != "" && a != "none" && a != "person" {
			return remit.Errorf(remit.Invalid, op, "%s: no approval %q: use person or none", where, a)
		}
		if err := rule.Check(); err != nil {
			return remit.Errorf(remit.Invalid, op, "%s: %w", where, err)
		}
		if names[rule.Name] {
			return remit.Errorf(remit.Invalid, op, "%s: another is called %s too: its plans are known by its name", where, rule.Name)
		}
		names[rule.Name] = true
		for _, name := range rule.Systems {
			if !slices.ContainsFunc(c.Systems, func(s systemConfig) bool { return s.Name == name }) {
				return remit.Errorf(remit.Invalid, op, "%s: systems: there is no system %q in this file", where, name)
			}
		}
	}
	return nil
}

// readConfig reads the configuration: the file that --config names, or
// remit.yaml in the data directory if there is one.
func readConfig(f *globalFlags) (*config, error) {
	const op = "read configuration"
	path := f.config
	if path == "" && f.dataDir != "" {
		path = filepath.Join(f.dataDir, "remit.yaml")
	}
	var c config
	if path == "" {
		return &c, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && f.config == "" {
		return &c, nil
	}
	if err != nil {
		return nil, remit.Errorf(remit.Invalid, op, "%w", err)
	}
	if err := decodeConfig(text, &c); err != nil {
		return nil, remit.Errorf(remit.Invalid, op, "%s: %s", path, err)
	}
	dir := filepath.Dir(path)
	resolve(dir, &c.People)
	resolve(dir, &c.Listen.Certificate)
	resolve(dir, &c.Listen.Key)
	if (c.Listen.Certificate == "") != (c.Listen.Key == "") {
		return nil, remit.Errorf(remit.Invalid, op, "%s: listen: certificate and key go together", path)
	}
	for i := range c.Logs {
		if c.Logs[i].Path == "" {
			return nil, remit.Errorf(remit.Invalid, op, "%s: logs[%d]: give it a path", path, i)
		}
		if _, err := decoderNamed(c.Logs[i].Source); err != nil {
			return nil, remit.Errorf(remit.Invalid, op, "%s: logs[%d]: %w", path, i, err)
		}
		resolve(dir, &c.Logs[i].Path)
		// Its position is kept under this name, from wherever Remit is started.
		if c.Logs[i].Path, err = filepath.Abs(c.Logs[i].Path); err != nil {
			return nil, remit.Errorf(remit.Invalid, op, "%s: logs[%d]: %w", path, i, err)
		}
	}
	for i := range c.Policies {
		resolve(dir, &c.Policies[i])
	}
	for i := range c.Agents {
		resolve(dir, &c.Agents[i])
	}
	names := map[string]bool{}
	for i := range c.Polls {
		p := &c.Polls[i]
		resolve(dir, &p.TokenFile)
		resolve(dir, &p.CredentialsFile)
		if p.Name == "" || names[p.Name] {
			return nil, remit.Errorf(remit.Invalid, op, "%s: polls[%d]: give it a name of its own: its position is kept under it", path, i)
		}
		names[p.Name] = true
		if _, err := p.poller(); err != nil {
			return nil, remit.Errorf(remit.KindOf(err), op, "%s: polls[%d] %s: %w", path, i, p.Name, err)
		}
	}
	clear(names)
	if err := c.checkTriggers(dir); err != nil {
		return nil, remit.Errorf(remit.KindOf(err), op, "%s: %w", path, err)
	}
	for i := range c.Systems {
		s := &c.Systems[i]
		resolve(dir, &s.Kubeconfig)
		for _, file := range []*string{&s.Enforce.Kubeconfig, &s.Enforce.URLFile, &s.Enforce.TokenFile, &s.Enforce.CAFile} {
			resolve(dir, file)
		}
		switch s.Mode {
		case "", remit.ModeObserve, remit.ModeRecommend, remit.ModeEnforce:
		default:
			return nil, remit.Errorf(remit.Invalid, op, "%s: systems[%d]: no mode %q: use observe, recommend or enforce", path, i, s.Mode)
		}
		if s.Guard == nil {
			s.Guard = c.Guard
		}
		if s.guard, err = s.Guard.guard(&c, s); err != nil {
			return nil, remit.Errorf(remit.Invalid, op, "%s: systems[%d]: %w", path, i, err)
		}
		if s.Approvals != nil && (*s.Approvals < 0 || *s.Approvals > 2) {
			return nil, remit.Errorf(remit.Invalid, op, "%s: systems[%d]: approvals: %d: use 0, 1 or 2", path, i, *s.Approvals)
		}
		if !s.watched() && s.Connector != postgres.Name && s.Connector != openbao.Name {
			return nil, remit.Errorf(remit.Invalid, op, "%s: systems[%d]: no connector %q: use kubernetes, postgres or openbao", path, i, s.Connector)
		}
		if err := s.checkLogin(); err != nil {
			return nil, remit.Errorf(remit.Invalid, op, "%s: systems[%d]: %w", path, i, err)
		}
		if s.Name == "" || names[s.Name] {
			return nil, remit.Errorf(remit.Invalid, op, "%s: systems[%d]: give it a name of its own", path, i)
		}
		names[s.Name] = true
	}
	if err := c.checkRules(op, path); err != nil {
		return nil, err
	}
	if err := c.checkRotation(op, path); err != nil {
		return nil, err
	}
	if err := c.Lifecycle.Complete(path, text, "$.lifecycle"); err != nil {
		return nil, err
	}
	if c.People != "" {
		if c.people, err = readPeople(c.People); err != nil {
			return nil, err
		}
	}
	return &c, nil
}

// decodeConfig reads a configuration strictly. The decoder panics on some nodes that
// have a tag and nothing else.
func decodeConfig(text []byte, c *config) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it cannot be read: is there a tag (!) without a value? (%v)", p)
		}
	}()
	err = yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(c)
	if err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	return errors.New(yaml.FormatError(err, false, false))
}

func readPeople(path string) (inventory.People, error) {
	f, err := os.Open(path)
	if err != nil {
		return inventory.People{}, remit.Errorf(remit.Invalid, "read people", "%w", err)
	}
	defer f.Close()
	return inventory.ReadPeople(path, f)
}

func resolve(dir string, path *string) {
	if *path != "" && !filepath.IsAbs(*path) {
		*path = filepath.Join(dir, *path)
	}
}
