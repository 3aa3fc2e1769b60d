// Package trigger takes in by HTTP what must cause a response: the signals of
// identity providers, reports of leaked secrets, and what a script or another
// tool reports. Whoever sends gets its acknowledgement when the finding is on
// disk. It also serves the signals that Remit sends itself.
package trigger

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"remit"
	"remit/server/token"
)

// retryAfter is when a sender should try again, in seconds.
const retryAfter = 5

// problem is an answer by RFC 9457.
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

func answer(w http.ResponseWriter, status int, body any) {
	kind := "application/json"
	if _, ok := body.(problem); ok {
		kind = "application/problem+json"
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the sender may be gone
}

// refuse answers with a problem, and logs it: a sender that is refused is either
// set up wrongly or not who it says.
func refuse(w http.ResponseWriter, r *http.Request, log *slog.Logger, status int, detail string) {
	log.Warn("request refused", "path", r.URL.Path, "status", status, "reason", detail, "from", r.RemoteAddr)
	answer(w, status, problem{Title: http.StatusText(status), Status: status, Detail: detail})
}

// fail answers with what an error means for the sender.
func fail(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		refuse(w, r, log, http.StatusRequestEntityTooLarge, "at most "+strconv.FormatInt(tooLarge.Limit, 10)+" bytes are taken")
		return
	}
	switch remit.KindOf(err) {
	case remit.Unauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="remit"`)
		refuse(w, r, log, http.StatusUnauthorized, err.Error())
	case remit.Forbidden:
		refuse(w, r, log, http.StatusForbidden, err.Error())
	case remit.Invalid:
		refuse(w, r, log, http.StatusBadRequest, err.Error())
	case remit.NotFound:
		refuse(w, r, log, http.StatusNotFound, err.Error())
	case remit.Conflict:
		refuse(w, r, log, http.StatusConflict, err.Error())
	case remit.Unavailable:
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
		refuse(w, r, log, http.StatusServiceUnavailable, err.Error())
	default:
		// What went wrong inside is for our own log.
		log.Error("request failed", "path", r.URL.Path, "error", err)
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
		status := http.StatusInternalServerError
		answer(w, status, problem{Title: http.StatusText(status), Status: status})
	}
}

// allowed says whether a request has a token of the scope; when not, it has been
// answered.
func allowed(w http.ResponseWriter, r *http.Request, tokens *token.Tokens, log *slog.Logger, scope token.Scope) (token.Token, bool) {
	caller, err := tokens.Check(r.Context(), token.Bearer(r), scope)
	if err != nil {
		fail(w, r, log, err)
		return token.Token{}, false
	}
	return caller, true
}

// body reads a request's body of at most limit bytes. Its error is one for fail.
func body(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err == nil {
		return text, nil
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, err
	}
	return nil, remit.Errorf(remit.Invalid, "read request", "the body broke off")
}

// limiter bounds how many requests are worked on at once.
type limiter chan struct{}

// enter says whether there is room; leave it with the function that comes back.
func (l limiter) enter(w http.ResponseWriter, r *http.Request, log *slog.Logger) (func(), bool) {
	select {
	case l <- struct{}{}:
		return func() { <-l }, true
	case <-time.After(time.Second):
	case <-r.Context().Done():
	}
	w.Header().Set("Retry-After", "1")
	refuse(w, r, log, http.StatusTooManyRequests, "too many requests at once: send this one again")
	return nil, false
}
