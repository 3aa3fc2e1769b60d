package response

import (
	"context"
	"encoding/json"
	"time"

	"remit"
)

// stop is what is stored while nothing may be changed.
type stop struct {
	By  string    `json:"by"`
	At  time.Time `json:"at"`
	Why string    `json:"why,omitempty"`
}

// Where it is stored.
const (
	stopKind = "response"
	stopKey  = "stop"
)

// Stop lets no plan be carried out any further, in any system, until
// [Responses.Resume]. A step that is being done at this instant is done; undoing
// goes on.
func (s *Responses) Stop(ctx context.Context, by, why string) error {
	data, err := json.Marshal(stop{By: by, At: s.o.Now().UTC(), Why: why})
	if err != nil {
		return remit.Errorf(remit.Internal, "stop", "%w", err)
	}
	return s.o.Store.Checkpoint(ctx, remit.Checkpoint{Now: s.o.Now(), States: []remit.State{{Kind: stopKind, Key: stopKey, Data: data}}})
}

// Resume ends a stop.
func (s *Responses) Resume(ctx context.Context) error {
	return s.o.Store.Checkpoint(ctx, remit.Checkpoint{Now: s.o.Now(), States: []remit.State{{Kind: stopKind, Key: stopKey}}})
}

// stopped gives a [remit.Forbidden] error while everything is stopped.
func (s *Responses) stopped(ctx context.Context) error {
	some, err := s.o.Store.States(ctx, "", stopKind, stopKey)
	if err != nil || len(some) == 0 {
		return err
	}
	var by stop
	if err := json.Unmarshal(some[0].Data, &by); err != nil {
		return remit.Errorf(remit.Internal, "read stop", "%w", err)
	}
	why := ""
	if by.Why != "" {
		why = " (" + by.Why + ")"
	}
	return remit.Errorf(remit.Forbidden, "carry out plan", "%s stopped all responses at %s%s: `remit stop-all --resume` ends that",
		by.By, by.At.Format("2006-01-02 15:04:05 UTC"), why)
}
