// Package authorize is where platforms ask Remit, before they carry a request out,
// whether it refuses it.
package authorize

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"remit"
	"remit/server/token"
)

// Pattern is where a Kubernetes cluster asks, for the name of its system.
const Pattern = "POST /v1/kubernetes/{system}/authorize"

// Path is the same for one system.
func Path(system string) string { return "/v1/kubernetes/" + url.PathEscape(system) + "/authorize" }

// Handler hands what a platform asks to what answers for its system. Who asks
// needs a bearer token (RFC 6750) of scope [token.Authorize], for this system or
// for any.
//
// It answers no 500, 504 or 429 by itself, after which an API server would try
// again while the request waits.
type Handler struct {
	// Tokens checks who asks, at every request: it should remember, see
	// [token.Cache].
	Tokens interface {
		Check(ctx context.Context, presented string, scope token.Scope) (token.Token, error)
	}

	// Answers answer, by the name of the system.
	Answers map[string]http.Handler

	Log *slog.Logger

	told atomic.Int64 // when a refusal was last logged, in Unix nanoseconds
}

// tellsAgain is how long refusals are not logged after one was: a platform may ask
// thousands of times a second.
const tellsAgain = 10 * time.Second

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("system")
	caller, err := h.Tokens.Check(r.Context(), token.Bearer(r), token.Authorize)
	switch {
	case remit.KindOf(err) == remit.Unauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="remit"`)
		h.refuse(w, r, http.StatusUnauthorized, err.Error())
		return
	case remit.KindOf(err) == remit.Forbidden:
		h.refuse(w, r, http.StatusForbidden, err.Error())
		return
	case err != nil:
		if r.Context().Err() == nil {
			h.Log.Error("a token could not be checked", "error", err)
		}
		http.Error(w, http.StatusText(http.StatusServiceUnavailable), http.StatusServiceUnavailable)
		return
	case caller.System != "" && caller.System != name:
		h.refuse(w, r, http.StatusForbidden, "the token is for another system")
		return
	}
	answer := h.Answers[name]
	if answer == nil {
		h.refuse(w, r, http.StatusNotFound, "no system of this name is answered for: set authorize: true under systems in remit.yaml")
		return
	}
	answer.ServeHTTP(w, r)
}

func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, status int, why string) {
	now, last := time.Now().UnixNano(), h.told.Load()
	if now-last > int64(tellsAgain) && h.told.CompareAndSwap(last, now) {
		h.Log.Warn("a platform that asks was refused", "status", status, "reason", why, "system", r.PathValue("system"), "from", r.RemoteAddr)
	}
	http.Error(w, why, status)
}
