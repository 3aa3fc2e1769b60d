package trigger

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"remit"
	"remit/server/token"
	"remit/ssf"
)

// Streams serves the signals that Remit sends: the transmitter's metadata and its
// keys to anybody, and to who has a token of the scope "streams" a stream of its
// own, which it makes, polls and ends (SSF 1.0, section 8; RFC 8936).
type Streams struct {
	Transmitter *ssf.Transmitter
	Tokens      *token.Tokens
	Log         *slog.Logger

	slots limiter
}

// maxStreamRequest bounds the documents by which streams are managed.
const maxStreamRequest = 64 << 10

// Mount adds the paths to a mux.
func (s *Streams) Mount(mux *http.ServeMux) {
	s.slots = make(limiter, 64) // polls wait
	wellKnown := ssf.WellKnown
	if u, err := url.Parse(s.Transmitter.Issuer); err == nil {
		wellKnown += strings.TrimSuffix(u.Path, "/")
	}
	mux.HandleFunc("GET "+wellKnown, func(w http.ResponseWriter, _ *http.Request) { open(w, s.Transmitter.Metadata()) })
	mux.HandleFunc("GET "+ssf.StreamPath+"/jwks.json", func(w http.ResponseWriter, _ *http.Request) { open(w, s.Transmitter.Signer.JWKS()) })
	mux.HandleFunc("POST "+ssf.StreamPath, s.as(s.create))
	mux.HandleFunc("GET "+ssf.StreamPath, s.as(s.read))
	mux.HandleFunc("PATCH "+ssf.StreamPath, s.as(s.change(false)))
	mux.HandleFunc("PUT "+ssf.StreamPath, s.as(s.change(true)))
	mux.HandleFunc("DELETE "+ssf.StreamPath, s.as(s.remove))
	mux.HandleFunc("GET "+ssf.StreamPath+"/status", s.as(s.status))
	mux.HandleFunc("POST "+ssf.StreamPath+"/status", s.as(s.setStatus))
	mux.HandleFunc("POST "+ssf.StreamPath+"/verify", s.as(s.verify))
	mux.HandleFunc("POST "+ssf.StreamPath+"/{id}/poll", s.as(s.poll))
}

// open answers with what anybody may read.
func open(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "max-age=300")
	_ = json.NewEncoder(w).Encode(body) // the reader may be gone
}

// call is a request of a client; it returns what to answer with, nothing for 204.
type call struct {
	*http.Request
	w      http.ResponseWriter
	client string
}

func (c *call) text(limit int64) ([]byte, error) { return body(c.w, c.Request, limit) }

func (s *Streams) as(do func(context.Context, *call) (int, any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		caller, ok := allowed(w, r, s.Tokens, s.Log, token.ReadSignals)
		if !ok {
			return
		}
		leave, ok := s.slots.enter(w, r, s.Log)
		if !ok {
			return
		}
		defer leave()
		status, out, err := do(r.Context(), &call{r, w, caller.Client})
		switch {
		case err != nil && r.Context().Err() != nil:
		case err != nil:
			fail(w, r, s.Log, err)
		case out == nil:
			w.WriteHeader(status)
		default:
			answer(w, status, out)
		}
	}
}

func (s *Streams) create(ctx context.Context, c *call) (int, any, error) {
	text, err := c.text(maxStreamRequest)
	if err != nil {
		return 0, nil, err
	}
	q, err := ssf.DecodeStreamRequest(text)
	if err != nil {
		return 0, nil, err
	}
	made, err := s.Transmitter.CreateStream(ctx, c.client, q)
	return http.StatusCreated, made, err
}

func (s *Streams) read(_ context.Context, c *call) (int, any, error) {
	id := c.URL.Query().Get("stream_id")
	if id == "" {
		return http.StatusOK, s.Transmitter.Streams(c.client), nil
	}
	one, err := s.Transmitter.StreamOf(c.client, id)
	return http.StatusOK, one, err
}

func (s *Streams) change(replace bool) func(context.Context, *call) (int, any, error) {
	return func(ctx context.Context, c *call) (int, any, error) {
		text, err := c.text(maxStreamRequest)
		if err != nil {
			return 0, nil, err
		}
		q, err := ssf.DecodeStreamRequest(text)
		if err != nil {
			return 0, nil, err
		}
		changed, err := s.Transmitter.ChangeStream(ctx, c.client, q, replace)
		return http.StatusOK, changed, err
	}
}

func (s *Streams) remove(ctx context.Context, c *call) (int, any, error) {
	return http.StatusNoContent, nil, s.Transmitter.DeleteStream(ctx, c.client, c.URL.Query().Get("stream_id"))
}

func (s *Streams) status(_ context.Context, c *call) (int, any, error) {
	status, err := s.Transmitter.StreamStatus(c.client, c.URL.Query().Get("stream_id"))
	return http.StatusOK, status, err
}

func (s *Streams) setStatus(ctx context.Context, c *call) (int, any, error) {
	var q ssf.Status
	if err := c.decode(&q); err != nil {
		return 0, nil, err
	}
	status, err := s.Transmitter.SetStreamStatus(ctx, c.client, q)
	return http.StatusOK, status, err
}

func (s *Streams) verify(ctx context.Context, c *call) (int, any, error) {
	var q struct {
		StreamID string `json:"stream_id"`
		State    string `json:"state"`
	}
	if err := c.decode(&q); err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, s.Transmitter.Verify(ctx, c.client, q.StreamID, q.State)
}

func (s *Streams) poll(ctx context.Context, c *call) (int, any, error) {
	text, err := c.text(ssf.MaxPollRequest)
	if err != nil {
		return 0, nil, err
	}
	q, err := ssf.DecodePoll(text)
	if err != nil {
		return 0, nil, err
	}
	out, err := s.Transmitter.Poll(ctx, c.client, c.PathValue("id"), q)
	return http.StatusOK, out, err
}

func (c *call) decode(into any) error {
	text, err := c.text(maxStreamRequest)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return remit.Errorf(remit.Invalid, "", "the body is no JSON object of the expected members")
	}
	return nil
}
