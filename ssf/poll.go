package ssf

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"remit"
)

// Poll asks a transmitter for its tokens (RFC 8936), again and again. The
// transmitter keeps a token until it is acknowledged, and it is acknowledged when
// what follows from it is on disk; so there is no position to keep.
type Poll struct {
	Source   *Source
	Receiver *Receiver
	Log      *slog.Logger

	Endpoint  string
	TokenFile string       // the bearer token for it, read at each request; "" is none
	Client    *http.Client // nil is http.DefaultClient

	// Every is the least time between two requests that bring nothing; 0 is ten
	// seconds. A transmitter that can keeps a request open until there is
	// something.
	Every time.Duration
}

// The bounds of a poll.
const (
	pollMost     = 100
	pollTimeout  = 2 * time.Minute
	pollPause    = 10 * time.Second
	pollLongest  = 5 * time.Minute
	maxPollBytes = (pollMost + 1) * MaxToken
)

// pollRequest and pollResponse are those of RFC 8936, section 2.
type pollRequest struct {
	MaxEvents         int                 `json:"maxEvents"`
	ReturnImmediately bool                `json:"returnImmediately"`
	Ack               []string            `json:"ack,omitempty"`
	SetErrs           map[string]*Refusal `json:"setErrs,omitempty"`
}

type pollResponse struct {
	Sets          map[string]string `json:"sets"`
	MoreAvailable bool              `json:"moreAvailable,omitempty"`
}

// Run asks until ctx ends.
func (p *Poll) Run(ctx context.Context) error {
	every := p.Every
	if every <= 0 {
		every = pollPause
	}
	request := pollRequest{MaxEvents: pollMost}
	pause := time.Second
	for {
		began := time.Now()
		answer, err := p.ask(ctx, request)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var wait time.Duration
		if err != nil {
			p.Log.Error("the transmitter could not be asked for its signals", "source", p.Source.Name, "error", err, "pause", pause)
			wait = pause + rand.N(pause/10+1)
			pause = min(2*pause, pollLongest)
		} else {
			pause = time.Second
			request.Ack, request.SetErrs = nil, nil
			// A token that could not be taken just now is not acknowledged, and
			// comes again.
			if err := p.take(ctx, answer, &request); err != nil {
				p.Log.Error("signals could not be taken", "source", p.Source.Name, "error", err)
				wait = every
			} else if len(answer.Sets) == 0 {
				wait = every - time.Since(began)
			}
			// An acknowledgement must not wait for the next event.
			request.ReturnImmediately = len(request.Ack) > 0 || len(request.SetErrs) > 0
		}
		if wait <= 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// take receives the tokens of an answer, and notes in the next request what
// became of each. Its error is the last of those that were not taken.
func (p *Poll) take(ctx context.Context, answer pollResponse, next *pollRequest) (failed error) {
	ids := make([]string, 0, len(answer.Sets))
	for id := range answer.Sets {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		err := p.Receiver.Receive(ctx, p.Source, []byte(answer.Sets[id]))
		var refusal *Refusal
		switch {
		case err == nil:
			next.Ack = append(next.Ack, id)
		case errors.As(err, &refusal):
			if next.SetErrs == nil {
				next.SetErrs = map[string]*Refusal{}
			}
			next.SetErrs[id] = refusal
		default:
			failed = err
		}
	}
	return failed
}

func (p *Poll) ask(ctx context.Context, q pollRequest) (answer pollResponse, err error) {
	body, err := json.Marshal(q)
	if err != nil {
		return answer, err
	}
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.Endpoint, bytes.NewReader(body))
	if err != nil {
		return answer, remit.Errorf(remit.Invalid, "", "%w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	if err := authorize(request, p.TokenFile); err != nil {
		return answer, err
	}
	response, err := clientOr(p.Client).Do(request)
	if err != nil {
		return answer, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return answer, remit.Errorf(remit.Unavailable, "", "the transmitter answers %s", response.Status)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxPollBytes+1))
	if err != nil {
		return answer, err
	}
	return readPoll(text)
}

// readPoll reads the answer of a transmitter.
func readPoll(text []byte) (answer pollResponse, err error) {
	if len(text) > maxPollBytes {
		return answer, remit.Errorf(remit.Invalid, "", "the transmitter's answer is larger than %d bytes", maxPollBytes)
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return answer, remit.Errorf(remit.Invalid, "", "the transmitter's answer is no JSON object with sets")
	}
	return answer, nil
}

// authorize adds the bearer token that a file holds.
func authorize(r *http.Request, file string) error {
	if file == "" {
		return nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return remit.Errorf(remit.Unavailable, "read token", "%w", err)
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(text)))
	return nil
}

func clientOr(c *http.Client) *http.Client {
	if c != nil {
		return c
	}
	return http.DefaultClient
}
