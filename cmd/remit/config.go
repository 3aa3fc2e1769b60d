package main

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/goccy/go-yaml"

	"remit"
	"remit/inventory"
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

	people inventory.People
}

// systemConfig is one connected system.
type systemConfig struct {
	Name       string `yaml:"name"`
	Connector  string `yaml:"connector"` // "kubernetes" is the default
	Kubeconfig string `yaml:"kubeconfig"`
	Context    string `yaml:"context"`
	Secrets    string `yaml:"secrets"` // values, metadata or none

	// ExtendTokenExpiration says whether the API server extends automounted
	// tokens to a year; without it the server's own flag or default counts.
	ExtendTokenExpiration *bool `yaml:"extend_token_expiration"`
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
	err = yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(&c)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, remit.Errorf(remit.Invalid, op, "%s: %s", path, yaml.FormatError(err, false, false))
	}
	dir := filepath.Dir(path)
	resolve(dir, &c.People)
	for i := range c.Policies {
		resolve(dir, &c.Policies[i])
	}
	for i := range c.Agents {
		resolve(dir, &c.Agents[i])
	}
	names := map[string]bool{}
	for i := range c.Systems {
		s := &c.Systems[i]
		resolve(dir, &s.Kubeconfig)
		if s.Connector != "" && s.Connector != "kubernetes" {
			return nil, remit.Errorf(remit.Invalid, op, "%s: systems[%d]: no connector %q: use kubernetes", path, i, s.Connector)
		}
		if s.Name == "" || names[s.Name] {
			return nil, remit.Errorf(remit.Invalid, op, "%s: systems[%d]: give it a name of its own", path, i)
		}
		names[s.Name] = true
	}
	if c.People != "" {
		if c.people, err = readPeople(c.People); err != nil {
			return nil, err
		}
	}
	return &c, nil
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
