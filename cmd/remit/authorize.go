package main

import (
	"context"
	"log/slog"
	"net/http"

	"golang.org/x/sync/errgroup"

	"remit"
	"remit/connector/kubernetes"
	"remit/server"
	"remit/server/authorize"
	"remit/server/token"
)

// authorizing answers the API servers that ask Remit about each request.
type authorizing struct {
	systems map[string]*kubernetes.Authorizer
	handler *authorize.Handler
}

// openAuthorizing connects to the systems that are to be answered for; nil when
// there are none.
func openAuthorizing(c *config, tokens *token.Tokens, log *slog.Logger) (*authorizing, error) {
	a := &authorizing{systems: map[string]*kubernetes.Authorizer{}}
	answers := map[string]http.Handler{}
	for _, s := range c.Systems {
		if !s.Authorize {
			continue
		}
		one, err := kubernetes.OpenAuthorizer(kubernetes.Config{Name: s.Name, Kubeconfig: s.Kubeconfig, Context: s.Context, Logger: log.With("system", s.Name)})
		if err != nil {
			return nil, remit.Errorf(remit.KindOf(err), "connect "+s.Name, "%w", err)
		}
		a.systems[s.Name], answers[s.Name] = one, one
	}
	switch {
	case len(answers) == 0:
		return nil, nil
	case c.Listen.Address == "":
		return nil, remit.Errorf(remit.Invalid, "serve", "authorize: true needs an address at which the API server can ask: set listen.address in remit.yaml, or --listen")
	}
	a.handler = &authorize.Handler{Tokens: token.NewCache(tokens), Answers: answers, Log: log}
	return a, nil
}

// start follows what is refused.
func (a *authorizing) start(ctx context.Context, work *errgroup.Group) {
	if a == nil {
		return
	}
	for _, one := range a.systems {
		work.Go(func() error { return one.Run(ctx) })
	}
}

// mount adds where API servers ask.
func (a *authorizing) mount(mux *http.ServeMux) {
	if a != nil {
		mux.Handle(authorize.Pattern, a.handler)
	}
}

// listenOnly serves them where no events are taken in.
func (a *authorizing) listenOnly(ctx context.Context, work *errgroup.Group, c *config, data *dataDir, log *slog.Logger) error {
	certificates, err := c.Listen.certificates(data)
	if err != nil {
		return err
	}
	l, err := server.Listen(c.Listen.Address, certificates)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	a.mount(mux)
	mountHealth(mux)
	log.Info("listening", "address", l.Addr().String())
	work.Go(func() error { return server.Serve(ctx, l, mux, log) })
	return nil
}
