package trigger

import (
	"errors"
	"log/slog"
	"mime"
	"net/http"
	"strconv"

	"remit"
	"remit/server/token"
	"remit/ssf"
)

// SignalsPath is below which signals are pushed, each source to its own name.
const SignalsPath = "/v1/signals/"

// Push takes Security Event Tokens by push (RFC 8935): POST to the path of a
// source, with a bearer token of the scope "signals" and one signed token as the
// body. 202 means that what follows from it is on disk.
type Push struct {
	Receiver *ssf.Receiver
	Tokens   *token.Tokens
	Log      *slog.Logger

	slots limiter
}

// NewPush returns p, ready to serve.
func NewPush(p Push) *Push {
	p.slots = make(limiter, 16)
	return &p
}

// Handler serves one source.
func (p *Push) Handler(from *ssf.Source) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, from) })
}

func (p *Push) serve(w http.ResponseWriter, r *http.Request, from *ssf.Source) {
	refused := func(status int, refusal *ssf.Refusal) {
		p.Log.Warn("signal not taken", "source", from.Name, "status", status, "code", refusal.Code, "reason", refusal.Description, "from", r.RemoteAddr)
		w.Header().Set("Content-Language", "en")
		answer(w, status, refusal)
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		refuse(w, r, p.Log, http.StatusMethodNotAllowed, "deliver tokens with POST")
		return
	}
	if _, err := p.Tokens.Check(r.Context(), token.Bearer(r), token.SendSignals); err != nil {
		switch remit.KindOf(err) {
		case remit.Unauthorized:
			w.Header().Set("WWW-Authenticate", `Bearer realm="remit"`)
			refused(http.StatusUnauthorized, &ssf.Refusal{Code: ssf.AuthenticationFailed, Description: "the bearer token is not accepted"})
		case remit.Forbidden:
			refused(http.StatusForbidden, &ssf.Refusal{Code: ssf.AccessDenied, Description: err.Error()})
		default:
			fail(w, r, p.Log, err)
		}
		return
	}
	leave, ok := p.slots.enter(w, r, p.Log)
	if !ok {
		return
	}
	defer leave()
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != ssf.MediaType {
		refused(http.StatusUnsupportedMediaType, &ssf.Refusal{Code: ssf.InvalidRequest, Description: "the content type is not " + ssf.MediaType})
		return
	}
	raw, err := body(w, r, ssf.MaxToken)
	if err != nil {
		fail(w, r, p.Log, err)
		return
	}
	err = p.Receiver.Receive(r.Context(), from, raw)
	var refusal *ssf.Refusal
	switch {
	case err == nil:
		w.WriteHeader(http.StatusAccepted)
	case errors.As(err, &refusal):
		refused(http.StatusBadRequest, refusal)
	case remit.KindOf(err) == remit.Unavailable:
		p.Log.Error("signal not taken", "source", from.Name, "error", err)
		w.Header().Set("Retry-After", strconv.Itoa(30))
		answer(w, http.StatusServiceUnavailable, problem{Title: http.StatusText(http.StatusServiceUnavailable), Status: http.StatusServiceUnavailable, Detail: "not now: send the token again"})
	default:
		fail(w, r, p.Log, err)
	}
}
