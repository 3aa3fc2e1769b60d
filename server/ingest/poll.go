package ingest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"remit"
	"remit/connector"
)

// Poll asks a system for its events again and again.
type Poll struct {
	Name      string // of the position; must stay the same
	Poller    connector.Poller
	From      Origin
	Intake    *Intake
	Positions Positions
	Log       *slog.Logger

	Every time.Duration // 0 is a minute
	Since time.Time     // where to begin when it was never asked
}

// longestPause is how long a system that does not answer is left alone at most.
const longestPause = 15 * time.Minute

// Source is under what name the position is kept.
func (p *Poll) Source() string { return "poll " + p.Name }

// Run asks until ctx ends. A system that does not answer, or refuses, is asked
// again after a pause that grows; only errors of the store end it.
func (p *Poll) Run(ctx context.Context) error {
	every := cmp.Or(p.Every, time.Minute)
	at, err := position(ctx, p.Positions, p.Source())
	if err != nil {
		return err
	}
	pause := every
	for {
		more, err := p.once(ctx, &at)
		var later *connector.RetryLater
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errStore):
			return err
		case err == nil && more:
			continue
		case err == nil:
			pause = every
		case errors.As(err, &later):
			pause = max(later.After, every)
			p.Log.Warn("the system asks to wait", "poll", p.Name, "error", err, "pause", pause)
		default:
			pause = min(max(2*pause, 10*time.Second), longestPause)
			p.Log.Error("the system could not be asked for its events", "poll", p.Name, "error", err, "pause", pause)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause + rand.N(pause/10+1)): // not all pollers at once
		}
	}
}

var errStore = errors.New("the position cannot be kept")

// once asks one time, and keeps the position behind what was taken.
func (p *Poll) once(ctx context.Context, at *remit.Position) (more bool, err error) {
	next, more, pollErr := p.Poller.Poll(ctx, at.Detail, p.Since, func(raw []byte) error {
		return patiently(ctx, p.Log, func() error {
			_, err := p.Intake.Take(ctx, p.From, bytes.NewReader(raw), 0)
			return err
		})
	})
	if !bytes.Equal(next, at.Detail) {
		at.Detail, at.Updated = next, time.Now().UTC()
		err := p.Positions.Checkpoint(ctx, remit.Checkpoint{Now: at.Updated, Positions: []remit.Position{*at}})
		if err != nil {
			return false, errors.Join(errStore, err)
		}
	}
	return more, pollErr
}
