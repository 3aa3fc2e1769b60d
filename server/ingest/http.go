package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/time/rate"

	"remit"
	"remit/connector"
	"remit/server/token"
)

// Path is where events are handed in.
const Path = "/ingest/v1/events"

// The bounds of a request: what it may hold after decompression, and how many are
// read at once; further ones are asked to come again.
const (
	maxBody     = 64 << 20
	maxRequests = 16
)

// Handler takes events by HTTP: POST [Path] with a bearer token (RFC 6750), and
// in the body JSON lines, or any list that a decoder knows, as the EventList of a
// Kubernetes audit webhook; plain, or compressed by gzip or zstd.
//
// 200 means that every event is on disk. 408, 429 and 503 mean that it has to be sent
// again, after Retry-After; events that were sent twice count once. Events of
// which nothing can be made do not stop the others: they are kept aside, and
// counted in the answer.
type Handler struct {
	Intake *Intake
	Tokens *token.Tokens

	// System finds the system that a token names. [remit.Unavailable] while it
	// is not known yet, [remit.NotFound] when it never will be.
	System func(ctx context.Context, name string, of connector.Decoder) (remit.ID, error)

	// Decoder finds the decoder of a source by its name; nil for "".
	Decoder func(name string) (connector.Decoder, error)

	Log *slog.Logger

	slots chan struct{}
	busy  *rate.Sometimes // to log that senders were asked to come again
}

// busyInterval is how often it is logged at most that senders are asked to come
// again: after a restart every batch that waited is sent at once, and again.
const busyInterval = 10 * time.Second

// NewHandler returns h, ready to serve.
func NewHandler(h Handler) *Handler {
	h.slots = make(chan struct{}, maxRequests)
	h.busy = &rate.Sometimes{Interval: busyInterval}
	return &h
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		h.refuse(w, r, http.StatusMethodNotAllowed, "hand events in with POST")
		return
	}
	caller, err := h.Tokens.Check(r.Context(), token.Bearer(r), token.SendEvents)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	default:
		w.Header().Set("Retry-After", "1")
		h.refuse(w, r, http.StatusTooManyRequests, "too many requests at once: send this one again")
		return
	}
	from := Origin{Name: "client " + caller.Client}
	if from.Decoder, err = h.Decoder(caller.Source); err != nil {
		h.fail(w, r, err)
		return
	}
	if caller.System != "" {
		if from.System, err = h.System(r.Context(), caller.System, from.Decoder); err != nil {
			h.fail(w, r, err)
			return
		}
	}
	body := &sent{Reader: http.MaxBytesReader(w, r.Body, maxBody)}
	taken, err := h.Intake.Take(r.Context(), from, body, maxBody)
	if body.broken != nil {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
		h.refuse(w, r, http.StatusRequestTimeout, "the request did not arrive whole: send it again: "+body.broken.Error())
		return
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	answer(w, http.StatusOK, struct {
		Events int64 `json:"events"`
		Dead   int64 `json:"dead"`
	}{taken.Events, taken.Dead})
}

// sent is a request's body that tells a connection that broke from what is wrong
// with what was sent.
type sent struct {
	io.Reader
	broken error
}

func (s *sent) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if tooLarge := (*http.MaxBytesError)(nil); err != nil && !errors.Is(err, io.EOF) && !errors.As(err, &tooLarge) {
		s.broken = err
	}
	return n, err
}

// retryAfter is when a sender should try again that met a full queue, in seconds.
const retryAfter = 2

// fail answers with what an error means for the sender.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		h.refuse(w, r, http.StatusRequestEntityTooLarge, "more than "+strconv.Itoa(maxBody>>20)+" MiB: send smaller batches")
		return
	}
	switch remit.KindOf(err) {
	case remit.Unauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="remit"`)
		h.refuse(w, r, http.StatusUnauthorized, err.Error())
	case remit.Forbidden:
		h.refuse(w, r, http.StatusForbidden, err.Error())
	case remit.Invalid, remit.NotFound:
		h.refuse(w, r, http.StatusBadRequest, err.Error())
	case remit.Unavailable:
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
		h.refuse(w, r, http.StatusServiceUnavailable, err.Error())
	default:
		// What went wrong inside is for our own log.
		h.Log.Error("events could not be taken", "error", err)
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
		answer(w, http.StatusInternalServerError, problem{Title: http.StatusText(http.StatusInternalServerError), Status: http.StatusInternalServerError})
	}
}

// problem is an answer by RFC 9457.
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, status int, detail string) {
	tell := func() { h.Log.Warn("events refused", "status", status, "reason", detail, "from", r.RemoteAddr) }
	switch status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusRequestTimeout:
		h.busy.Do(tell)
	default:
		tell()
	}
	answer(w, status, problem{Title: http.StatusText(status), Status: status, Detail: detail})
}

func answer(w http.ResponseWriter, status int, body any) {
	kind := "application/json"
	if status >= 400 {
		kind = "application/problem+json"
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the sender may be gone
}
