package server

import (
	"cmp"
	"context"
	"database/sql"
	"log/slog"
	"strconv"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/rivertype"

	"remit"
	"remit/response"
)

// Responding answers findings by rules and carries plans out. What is new is
// answered at once; all else is jobs in the store's database, which are made from
// the plans again and again: a job that is lost is no plan that is lost.
type Responding struct {
	Responses *response.Responses
	Responder *response.Responder
	Jobs      riverdriver.Driver[*sql.Tx]
	Log       *slog.Logger

	// Every is how often all findings and plans are looked at; 0 is 15 seconds.
	Every time.Duration

	announced chan []remit.Finding
	client    *river.Client[*sql.Tx]
	boot      string
}

// NewResponding returns what has yet to Run.
func NewResponding(r Responding) *Responding {
	r.announced = make(chan []remit.Finding, 256)
	r.boot = strconv.FormatInt(time.Now().UnixNano(), 36)
	return &r
}

// answering is how many announcements are answered at the same time, working how
// many jobs are done.
const (
	answering = 8
	working   = 8
)

// longest is how long one plan may be worked on at a stretch.
const longest = 15 * time.Minute

// Announced has findings answered soon. It waits for nothing: what does not fit is
// found at the next look.
func (r *Responding) Announced(findings []remit.Finding) {
	select {
	case r.announced <- findings:
	default:
	}
}

// Run works until ctx ends.
func (r *Responding) Run(ctx context.Context) error {
	workers := river.NewWorkers()
	river.AddWorker(workers, &lookWorker{of: r})
	river.AddWorker(workers, &planWorker{of: r})
	every := cmp.Or(r.Every, 15*time.Second)
	var err error
	r.client, err = river.NewClient(r.Jobs, &river.Config{
		Queues:     map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: working}},
		Workers:    workers,
		JobTimeout: longest, RescueStuckJobsAfter: 2 * longest,
		CompletedJobRetentionPeriod: time.Hour,
		FetchPollInterval:           2 * time.Second,
		Logger:                      slog.New(quieter{r.Log.Handler()}),
		PeriodicJobs: []*river.PeriodicJob{
			river.NewPeriodicJob(river.PeriodicInterval(every), func() (river.JobArgs, *river.InsertOpts) {
				return lookJob{Boot: r.boot}, nil
			}, &river.PeriodicJobOpts{RunOnStart: true}),
		},
	})
	if err != nil {
		return remit.Errorf(remit.Internal, "start jobs", "%w", err)
	}
	if err := r.client.Start(ctx); err != nil {
		return remit.Errorf(remit.Unavailable, "start jobs", "%w", err)
	}
	// The periodic look comes when the queue has found out that the process before
	// this one is gone. What that one left undone is done at once.
	if _, err := r.client.Insert(ctx, lookJob{Boot: r.boot}, nil); err != nil && ctx.Err() == nil {
		r.Log.Error("the first look at findings and plans is late", "error", err)
	}
	slots := make(chan struct{}, answering)
	for {
		select {
		case <-ctx.Done():
			<-r.client.Stopped()
			for range answering { // those that are still answering
				slots <- struct{}{}
			}
			return ctx.Err()
		case findings := <-r.announced:
			slots <- struct{}{}
			go func() {
				defer func() { <-slots }()
				if err := r.Responder.Answer(ctx, findings); err != nil && ctx.Err() == nil {
					r.Log.Error("findings could not be answered; they are at the next look", "error", err)
				}
			}()
		}
	}
}

// lookJob looks at all findings and plans. Boot tells this process's jobs from
// those that one before it left behind, which would keep the same from being
// inserted.
type lookJob struct {
	Boot string `json:"boot" river:"unique"`
}

// Kind implements [river.JobArgs].
func (lookJob) Kind() string { return "look" }

// InsertOpts has one look wait at a time.
func (lookJob) InsertOpts() river.InsertOpts {
	return river.InsertOpts{MaxAttempts: 1, UniqueOpts: river.UniqueOpts{ByArgs: true, ByState: unfinished}}
}

// unfinished are the states in which a job keeps another like it from being made.
var unfinished = []rivertype.JobState{
	rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRunning, rivertype.JobStateRetryable, rivertype.JobStateScheduled,
}

type lookWorker struct {
	river.WorkerDefaults[lookJob]
	of *Responding
}

// Work implements [river.Worker].
func (w *lookWorker) Work(ctx context.Context, _ *river.Job[lookJob]) error {
	plans, err := w.of.Responses.Due(ctx)
	if err != nil {
		return err
	}
	for _, p := range plans {
		if time.Now().Before(p.Due) || p.State == remit.ResponseProposed && time.Now().Before(p.Expires) {
			continue
		}
		if _, err := w.of.client.Insert(ctx, planJob{Plan: p.ID, Boot: w.of.boot}, nil); err != nil {
			return err
		}
	}
	return w.of.Responder.Look(ctx)
}

// planJob works on one plan.
type planJob struct {
	Plan remit.ID `json:"plan" river:"unique"`
	Boot string   `json:"boot" river:"unique"`
}

// Kind implements [river.JobArgs].
func (planJob) Kind() string { return "plan" }

// InsertOpts has one job of a plan wait at a time. It is tried once: the next look
// makes another, when the plan is due.
func (planJob) InsertOpts() river.InsertOpts {
	return river.InsertOpts{MaxAttempts: 1, UniqueOpts: river.UniqueOpts{ByArgs: true, ByState: unfinished}}
}

type planWorker struct {
	river.WorkerDefaults[planJob]
	of *Responding
}

// Work implements [river.Worker].
func (w *planWorker) Work(ctx context.Context, job *river.Job[planJob]) error {
	again, err := w.of.Responder.Work(ctx, job.Args.Plan)
	if err != nil {
		if ctx.Err() == nil {
			w.of.Log.Error("a plan did not get on", "plan", job.Args.Plan, "error", err)
		}
		return err
	}
	if wait := time.Until(again); !again.IsZero() && wait < cmp.Or(w.of.Every, 15*time.Second) {
		return river.JobSnooze(max(wait, 0))
	}
	return nil
}

// quieter lets only what somebody should look at through.
type quieter struct{ slog.Handler }

// Enabled implements [slog.Handler].
func (q quieter) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && q.Handler.Enabled(ctx, level)
}
