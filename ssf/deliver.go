package ssf

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"remit"
)

// PollRequest is what a receiver asks for by poll (RFC 8936, section 2.2).
type PollRequest struct {
	MaxEvents         *int                `json:"maxEvents"`
	ReturnImmediately bool                `json:"returnImmediately"`
	Ack               []string            `json:"ack"`
	SetErrs           map[string]*Refusal `json:"setErrs"`
}

// MaxPollRequest is the size of the largest request, in bytes.
const MaxPollRequest = 1 << 20

// DecodePoll reads a request; [remit.Invalid] for what is none.
func DecodePoll(text []byte) (PollRequest, error) {
	var q PollRequest
	if err := json.Unmarshal(text, &q); err != nil {
		return q, remit.Errorf(remit.Invalid, "read poll", "the body is no JSON object of a poll request")
	}
	if q.MaxEvents != nil && *q.MaxEvents < 0 {
		return q, remit.Errorf(remit.Invalid, "read poll", "maxEvents is negative")
	}
	return q, nil
}

// longPoll is for how long a request is kept open when there is nothing.
const longPoll = 30 * time.Second

// Poll takes the acknowledgements of a request and answers it with events. When
// there are none and the request allows it, it waits for some.
func (t *Transmitter) Poll(ctx context.Context, client, id string, q PollRequest) (map[string]any, error) {
	most := pollMost
	if q.MaxEvents != nil {
		most = min(most, *q.MaxEvents)
	}
	deadline := time.NewTimer(longPoll)
	defer deadline.Stop()
	for first := true; ; first = false {
		sets, more, changed, err := t.poll(ctx, client, id, q, most, first)
		if err != nil {
			return nil, err
		}
		if len(sets) > 0 || q.ReturnImmediately || most == 0 {
			return map[string]any{"sets": sets, "moreAvailable": more}, nil
		}
		select {
		case <-changed:
		case <-time.After(time.Second): // what was refused comes again by the clock
		case <-t.ended:
			return map[string]any{"sets": sets, "moreAvailable": false}, nil
		case <-deadline.C:
			return map[string]any{"sets": sets, "moreAvailable": false}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (t *Transmitter) poll(ctx context.Context, client, id string, q PollRequest, most int, first bool) (map[string]string, bool, chan struct{}, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, err := t.stream(client, id)
	if err != nil {
		return nil, false, nil, err
	}
	if first {
		if err := t.settle(ctx, id, q.Ack, q.SetErrs); err != nil {
			return nil, false, nil, err
		}
	}
	sets := map[string]string{}
	if s.Status != StreamEnabled {
		return sets, false, t.changed, nil
	}
	pending := t.pending(id, t.now())
	for _, one := range pending[:min(most, len(pending))] {
		if sets[one.Token], err = t.Signer.sign(one.Claims, t.now()); err != nil {
			return nil, false, nil, err
		}
	}
	return sets, len(pending) > most, t.changed, nil
}

// Push is where the events of a stream are pushed to.
type Push struct {
	Receiver  string // its name in the configuration
	Endpoint  string
	TokenFile string       // the bearer token for it, read at each delivery; "" is none
	Client    *http.Client // nil is http.DefaultClient
}

const (
	pushTimeout = 30 * time.Second
	pushLongest = 15 * time.Minute
)

// Deliver pushes the events of a configured receiver's stream until ctx ends: one
// after the other, the oldest first. A receiver that cannot be reached is tried
// again after a pause that grows; an event that it refuses does not hold up the
// others.
func (t *Transmitter) Deliver(ctx context.Context, to Push) error {
	id := ConfiguredStream(to.Receiver)
	pause := time.Second
	for {
		changed, err := t.deliver(ctx, id, to)
		wait := time.Second
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			t.Log.Error("signals could not be delivered", "receiver", to.Receiver, "error", err, "pause", pause)
			wait = pause + rand.N(pause/10+1)
			pause = min(2*pause, pushLongest)
			changed = nil // a new event does not make it reachable
		} else {
			pause = time.Second
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-time.After(wait):
		}
	}
}

// deliver pushes what is pending now.
func (t *Transmitter) deliver(ctx context.Context, id string, to Push) (chan struct{}, error) {
	t.mu.Lock()
	pending, changed := t.pending(id, t.now()), t.changed
	if s := t.streams[id]; s == nil || s.Status != StreamEnabled {
		pending = nil
	}
	t.mu.Unlock()
	for _, q := range pending {
		token, err := t.Signer.sign(q.Claims, t.now())
		if err != nil {
			return changed, err
		}
		refusal, err := push(ctx, to, token)
		if err != nil {
			return changed, err
		}
		var acked []string
		refused := map[string]*Refusal{}
		if refusal != nil {
			refused[q.Token] = refusal
		} else {
			acked = []string{q.Token}
		}
		t.mu.Lock()
		err = t.settle(ctx, id, acked, refused)
		t.mu.Unlock()
		if err != nil {
			return changed, err
		}
		if refusal == nil {
			t.Log.Info("signal delivered", "receiver", to.Receiver, "token", q.Token)
		}
	}
	return changed, nil
}

// push delivers one token (RFC 8935, section 2).
func push(ctx context.Context, to Push, token string) (*Refusal, error) {
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to.Endpoint, strings.NewReader(token))
	if err != nil {
		return nil, remit.Errorf(remit.Invalid, "", "%w", err)
	}
	request.Header.Set("Content-Type", MediaType)
	request.Header.Set("Accept", "application/json")
	if err := authorize(request, to.TokenFile); err != nil {
		return nil, err
	}
	response, err := clientOr(to.Client).Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusAccepted, http.StatusOK, http.StatusNoContent:
		return nil, nil
	case http.StatusBadRequest:
		refusal := &Refusal{Code: InvalidRequest}
		text, _ := io.ReadAll(io.LimitReader(response.Body, 16<<10))
		_ = json.Unmarshal(text, refusal) // its words are for the log only
		return refusal, nil
	}
	return nil, remit.Errorf(remit.Unavailable, "", "the receiver answers %s", response.Status)
}
