package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"remit"
	"remit/activity"
	"remit/activity/archive"
	"remit/activity/queue"
	"remit/connector"
	"remit/server"
	"remit/server/ingest"
	"remit/server/token"
)

// takesEvents says whether there is any way in for events.
func (c *config) takesEvents() bool {
	return c.Listen.takesEvents() || len(c.Logs) > 0 || len(c.Polls) > 0
}

// takesEvents says whether events may be handed in where Remit listens.
func (l *listenConfig) takesEvents() bool { return l.Address != "" && (l.Events == nil || *l.Events) }

// intake is everything that takes events in and reads them.
type intake struct {
	data     *dataDir
	config   *config
	log      *slog.Logger
	tokens   *token.Tokens
	queue    *queue.Queue
	ingest   *ingest.Intake
	activity *server.Activity
	listener net.Listener // nil when nothing listens
	unlock   func()       // of the queue's directory; nil when it is not here
	metrics  *server.Metrics
	expected []string // names of systems that a watch is about to make
	triggers *triggers

	authorizing *authorizing // nil when nobody is answered
}

// openIntake opens the queue and the listener. The queue comes first: what is
// acknowledged must have a place.
func (f *serveFlags) openIntake(ctx context.Context, data *dataDir, c *config, r *responding, log *slog.Logger) (_ *intake, err error) {
	i := &intake{data: data, config: c, log: log}
	defer func() {
		if err != nil {
			i.Close()
		}
	}()
	if !f.noWatch {
		for _, s := range c.Systems {
			i.expected = append(i.expected, s.Name)
		}
		if f.Name != "" {
			i.expected = append(i.expected, f.Name)
		}
	}
	if i.tokens, err = token.New(data.Store, data.Key, nil); err != nil {
		return nil, err
	}
	dead, err := data.deadLetters()
	if err != nil {
		return nil, err
	}
	if c.Queue.URL == "" {
		// Two processes in one queue's files would destroy them.
		if i.unlock, err = lockFile(filepath.Join(data.path, "queue.lock"), "open queue",
			"another `remit serve` takes events in with this data directory: stop it, or name another directory"); err != nil {
			return nil, err
		}
	}
	if i.queue, err = queue.Open(ctx, queue.Options{
		Dir: filepath.Join(data.path, "queue"), URL: c.Queue.URL, MaxBytes: int64(c.Queue.MaxSize),
	}); err != nil {
		return nil, err
	}
	i.metrics = server.NewMetrics(server.Gauges{Waiting: i.queue.Waiting, Findings: data.Store.FindingCounts, Plans: r.responses.Counts})
	i.ingest = &ingest.Intake{Queue: i.queue, Decoders: decoders, DeadLetter: dead.Put, Observe: i.metrics.Received}
	retention, err := c.Archive.retention(ctx, data)
	if err != nil {
		return nil, err
	}
	i.activity = &server.Activity{
		Queue: i.queue,
		Open: func(ctx context.Context) (*activity.Pipeline, func() error, error) {
			p, err := f.openPipeline(ctx, data)
			if err != nil {
				return nil, nil, err
			}
			return p.Pipeline, p.Close, nil
		},
		Decoder: decoderNamed, Positions: data.Store, Every: f.checkpoint, Retention: retention,
		Observe: i.metrics.Counted, Announced: r.Announced, Log: log,
	}
	if c.Listen.Address == "" {
		return i, nil
	}
	certificates, err := c.Listen.certificates(data)
	if err != nil {
		return nil, err
	}
	i.listener, err = server.Listen(c.Listen.Address, certificates)
	return i, err
}

// certificates are the user's own, or those of Remit's authority.
func (l *listenConfig) certificates(data *dataDir) (*server.Certificates, error) {
	if l.Certificate != "" {
		return server.FileCertificates(l.Certificate, l.Key)
	}
	authority, err := server.OpenAuthority(data.path)
	if err != nil {
		return nil, err
	}
	return server.OwnCertificates(authority, l.names())
}

// names are what the certificate of Remit's own authority is for, beside the
// loopback's.
func (l *listenConfig) names() []string {
	names := slices.Clone(l.Hosts)
	if host, _, err := net.SplitHostPort(l.Address); err == nil && host != "" {
		names = append(names, host)
	}
	return names
}

// retention looks up for how long the events of each system are kept.
func (a *archiveConfig) retention(ctx context.Context, data *dataDir) (func(remit.ID) archive.Retention, error) {
	of := func(k keepConfig) archive.Retention {
		return archive.Retention{Age: time.Duration(k.Keep), RawAge: time.Duration(k.KeepRaw), Bytes: int64(k.MaxSize)}
	}
	all := keepConfig{Keep: a.Keep, KeepRaw: a.KeepRaw, MaxSize: a.MaxSize}
	if all == (keepConfig{}) && len(a.Systems) == 0 {
		return nil, nil
	}
	return func(id remit.ID) archive.Retention {
		// A system may have been named, or renamed, meanwhile.
		systems, err := data.Store.Systems(ctx)
		if err != nil {
			return archive.Retention{} // keep, until it is known
		}
		for _, s := range systems {
			if own, ok := a.Systems[s.Name]; ok && s.ID == id {
				return of(own)
			}
		}
		return of(all)
	}, nil
}

// Close ends what start does not.
func (i *intake) Close() {
	if i.listener != nil {
		i.listener.Close()
	}
	if i.queue != nil {
		i.queue.Close()
	}
	if i.unlock != nil {
		i.unlock()
	}
}

// mountHealth adds where it can be asked whether Remit runs.
func mountHealth(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
}

// start has everything run until ctx ends.
func (i *intake) start(ctx context.Context, work *errgroup.Group) {
	work.Go(func() error { return i.activity.Run(ctx) })
	work.Go(func() error { return i.watchQueue(ctx) })
	if i.listener != nil {
		mux := http.NewServeMux()
		if i.config.Listen.takesEvents() {
			mux.Handle(ingest.Path, ingest.NewHandler(ingest.Handler{
				Intake: i.ingest, Tokens: i.tokens, System: i.system, Decoder: decoderNamed, Log: i.log,
			}))
			i.triggers.mount(mux)
		}
		mux.Handle("GET /metrics", i.metrics.Handler(i.tokens))
		mountHealth(mux)
		i.authorizing.mount(mux)
		i.log.Info("listening", "address", i.listener.Addr().String())
		work.Go(func() error { return server.Serve(ctx, i.listener, mux, i.log) })
	}
	for _, l := range i.config.Logs {
		work.Go(func() error {
			return supervise(ctx, i.log, "follow "+l.Path, func() error { return i.follow(ctx, l) })
		})
	}
	for _, p := range i.config.Polls {
		work.Go(func() error {
			return supervise(ctx, i.log, "poll "+p.Name, func() error { return i.poll(ctx, &p) })
		})
	}
}

// watchQueue ends the server when the queue has stopped working, which only
// opening it again mends: whoever started it starts it again, and senders, who
// have no acknowledgement, send again.
func (i *intake) watchQueue(ctx context.Context) error {
	const longest = 20 * time.Second
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
		if since := i.queue.Failing(); !since.IsZero() && time.Since(since) > longest {
			return remit.Errorf(remit.Unavailable, "serve", "the queue has taken nothing since %s: see whether its disk is full, and start again", since.Format(time.TimeOnly))
		}
	}
}

func (i *intake) follow(ctx context.Context, l logConfig) error {
	decoder, err := decoderNamed(l.Source)
	if err != nil {
		return err
	}
	from := ingest.Origin{Name: "file " + l.Path, Decoder: decoder}
	if l.System != "" {
		if from.System, err = i.system(ctx, l.System, decoder); err != nil {
			return err
		}
	}
	t := ingest.Tail{Path: l.Path, From: from, Intake: i.ingest, Positions: i.data.Store, Log: i.log}
	return t.Run(ctx)
}

func (i *intake) poll(ctx context.Context, c *pollConfig) error {
	poller, err := c.poller()
	if err != nil {
		return err
	}
	decoder, err := decoderNamed(poller.Source().Name)
	if err != nil {
		return err
	}
	from := ingest.Origin{Name: "poll " + c.Name, Decoder: decoder}
	if !c.eventsTell() {
		if from.System, err = i.polled(ctx, c, poller); err != nil {
			return err
		}
	}
	p := ingest.Poll{
		Name: c.Name, Poller: poller, From: from,
		Intake: i.ingest, Positions: i.data.Store, Log: i.log, Every: c.every(),
		Since: time.Now().Add(-cmp.Or(time.Duration(c.Since), pollSince)),
	}
	return p.Run(ctx)
}

// polled is the system that a poller asks, which is made under the poll's name
// when it is not known yet.
func (i *intake) polled(ctx context.Context, c *pollConfig, p connector.Poller) (remit.ID, error) {
	kind := p.Source().Connector
	id := remit.SystemID(kind, p.Native())
	systems, err := i.data.Store.Systems(ctx)
	if err != nil || slices.ContainsFunc(systems, func(s remit.System) bool { return s.ID == id }) {
		return id, err
	}
	return id, i.data.Store.PutSystem(ctx, remit.System{ID: id, Connector: kind, Name: c.Name, Native: p.Native(), Mode: remit.ModeObserve})
}

// system finds the system of a name, or makes it when no watch is about to.
func (i *intake) system(ctx context.Context, name string, of connector.Decoder) (remit.ID, error) {
	if slices.Contains(i.expected, name) {
		systems, err := i.data.Store.Systems(ctx)
		if err != nil {
			return "", err
		}
		for _, s := range systems {
			if s.Name == name {
				return s.ID, nil
			}
		}
		return "", remit.Errorf(remit.Unavailable, "", "the system %s has not been read yet: send its events again later", name)
	}
	if of == nil {
		return systemOf(ctx, i.data, name, nil)
	}
	return systemOf(ctx, i.data, name, []connector.Decoder{of})
}

// supervise does something until ctx ends, again and again when it fails, with a
// pause that grows to a minute.
func supervise(ctx context.Context, log *slog.Logger, what string, do func() error) error {
	pause := time.Second
	for {
		err := do()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			err = errors.New("ended")
		}
		log.Error("starting it again", "what", what, "error", err, "pause", pause)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, time.Minute)
	}
}
