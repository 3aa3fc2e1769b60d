package main

import (
	"cmp"
	"context"
	"os"
	"os/user"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"remit"
	"remit/connector"
	"remit/connector/kubernetes"
	"remit/response"
)

// responseFlags are those of the commands that plan and change.
type responseFlags struct {
	as         string
	kubeconfig string
	context    string

	// guard, if not nil, changes the guard that the configuration asks for.
	guard func(*kubernetes.Guard)
}

func (f *responseFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.as, "as", "", "`who` acts, for the history of the plan; the default is the user of this machine")
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig `file` of a login that may change the cluster; the default is the configuration's systems[].enforce")
	flags.StringVar(&f.context, "context", "", "`context` of that kubeconfig")
}

// actor is who acts.
func (f *responseFlags) actor() string {
	if f.as != "" {
		return f.as
	}
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return cmp.Or(os.Getenv("USER"), "somebody")
}

// responsesOf opens the responses of a data directory. preview also plans where
// nothing may be changed: a plan only reads.
func (f *responseFlags) responsesOf(global *globalFlags, data *dataDir, preview bool) (*response.Responses, error) {
	c, err := readConfig(global)
	if err != nil {
		return nil, err
	}
	return f.responses(c, data, preview), nil
}

func (f *responseFlags) responses(c *config, data *dataDir, preview bool) *response.Responses {
	configured := func(id remit.ID) (systemConfig, remit.System) {
		// It may have been read for the first time, or renamed, meanwhile. An error
		// is that of a system that is not known: nothing is changed there.
		systems, err := data.Store.Systems(context.Background())
		if err != nil {
			return systemConfig{Name: string(id)}, remit.System{}
		}
		for _, known := range systems {
			if known.ID != id {
				continue
			}
			for _, s := range c.Systems {
				if s.Name == known.Name {
					return s, known
				}
			}
			return systemConfig{Name: known.Name}, known
		}
		return systemConfig{Name: string(id)}, remit.System{}
	}
	rotate := &rotators{flags: f, config: c, preview: preview, of: configured}
	open := &enforcers{flags: f, preview: preview, open: map[string]connector.Enforcer{}}
	return response.New(response.Options{
		Store: data.Store,
		Enforcer: func(_ context.Context, id remit.ID) (connector.Enforcer, error) {
			s, known := configured(id)
			if known.Connector != kubernetes.Name {
				return nil, remit.Errorf(remit.Unsupported, "", "%s is no Kubernetes cluster: Remit cannot change it yet", s.Name)
			}
			return open.of(s)
		},
		Issuer: rotate.issuer, Destination: rotate.destination, Rotation: rotate.rotation,
		Approvals: func(id remit.ID) int {
			if s, _ := configured(id); s.Approvals != nil {
				return *s.Approvals
			}
			return 1
		},
		Mode: func(id remit.ID) remit.Mode {
			s, _ := configured(id)
			return cmp.Or(s.Mode, remit.ModeObserve)
		},
		Protected: func(ref remit.Ref) bool {
			return slices.Contains(c.Protected, fullName(ref)) || slices.Contains(c.Protected, ref.String()) ||
				ref.Namespace != "" && slices.Contains(c.Protected, ref.Namespace+"/"+ref.Name)
		},
	})
}

// enforcers keeps what changes systems open, by their names: their connections are
// used again.
type enforcers struct {
	flags   *responseFlags
	preview bool
	mu      sync.Mutex
	open    map[string]connector.Enforcer
}

func (e *enforcers) of(s systemConfig) (connector.Enforcer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if one := e.open[s.Name]; one != nil {
		return one, nil
	}
	one, err := e.flags.enforcer(s, e.preview)
	if err == nil {
		e.open[s.Name] = one
	}
	return one, err
}

// enforcer opens what changes a cluster. In mode observe, the default, that is
// refused, and no login with such rights is even read; a preview reads with the
// one that there is for reading.
func (f *responseFlags) enforcer(s systemConfig, preview bool) (connector.Enforcer, error) {
	if !preview && cmp.Or(s.Mode, remit.ModeObserve) == remit.ModeObserve {
		return nil, remit.Errorf(remit.Forbidden, "", "the system %s is in mode observe, in which nothing is changed: set mode: recommend or enforce, and the login to change it with (enforce.kubeconfig), under systems in remit.yaml", s.Name)
	}
	return kubernetes.OpenEnforcer(f.login(s, preview))
}

// login is that with which a cluster is changed.
func (f *responseFlags) login(s systemConfig, preview bool) kubernetes.Config {
	login := kubernetes.Config{Name: s.Name, Kubeconfig: s.Enforce.Kubeconfig, Context: s.Enforce.Context, Guard: s.guard}
	if f.guard != nil {
		f.guard(&login.Guard)
	}
	switch {
	case f.kubeconfig != "" || f.context != "":
		login.Kubeconfig, login.Context = f.kubeconfig, f.context
	case preview && cmp.Or(s.Mode, remit.ModeObserve) == remit.ModeObserve:
		login.Kubeconfig, login.Context = s.Kubeconfig, s.Context
	}
	return login
}
