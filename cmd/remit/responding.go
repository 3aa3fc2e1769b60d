package main

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"remit"
	"remit/response"
	"remit/server"
)

// responding is what answers findings and carries plans out while Remit serves.
type responding struct {
	*server.Responding
	config    *config
	responses *response.Responses
	log       *slog.Logger
	closeJobs func() error
	guarding  guarding
}

func (f *serveFlags) openResponding(ctx context.Context, data *dataDir, c *config, log *slog.Logger) (*responding, error) {
	jobs, closeJobs, err := data.Store.Jobs(ctx)
	if err != nil {
		return nil, err
	}
	responses := (&responseFlags{}).responses(c, data, false)
	r := &responding{config: c, responses: responses, log: log, closeJobs: closeJobs}
	r.guarding = guarding{data: data, config: c, log: log, every: guardEvery}
	r.Responding = server.NewResponding(server.Responding{
		Responses: responses, Responder: response.NewResponder(responses, c.rules(), log), Jobs: jobs, Log: log,
	})
	return r, nil
}

// Close ends what start does not.
func (r *responding) Close() { _ = r.closeJobs() }

// start has it run until ctx ends. Where Remit acts by itself, what it will need is
// installed ahead of that.
func (r *responding) start(ctx context.Context, work *errgroup.Group) {
	work.Go(func() error { return r.Run(ctx) })
	for _, s := range r.config.Systems {
		if s.Mode == remit.ModeEnforce && s.watched() {
			work.Go(func() error { return r.prepare(ctx, s.Name) })
		}
		if s.Mode == remit.ModeEnforce || s.Mode == remit.ModeRecommend {
			work.Go(func() error { return r.guarding.run(ctx, s) })
		}
	}
}

// prepareEvery is how often it is made sure that what containment needs is in
// place: somebody may have removed it.
const prepareEvery = 10 * time.Minute

// prepare keeps what containment needs in place in a system. Without it plans are
// slower, and not impossible.
func (r *responding) prepare(ctx context.Context, system string) error {
	retry := time.Second
	said := ""
	for {
		err := r.responses.Prepare(ctx, system)
		wait := prepareEvery
		if err == nil {
			retry, said = time.Second, ""
		} else if ctx.Err() == nil {
			if err.Error() != said && remit.KindOf(err) != remit.NotFound {
				r.log.Error("what containment needs could not be put in place", "system", system, "error", err)
				said = err.Error()
			}
			wait, retry = retry, min(2*retry, time.Minute)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}
