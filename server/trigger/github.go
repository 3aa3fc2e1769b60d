package trigger

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"remit"
	"remit/leak"
)

// The paths at which GitHub reports leaked secrets.
const (
	GitHubHookPath    = "/v1/leaks/github"
	GitHubPartnerPath = "/v1/leaks/github/partner"
)

// maxHook is the size of the largest delivery; GitHub sends none above 25 MB.
const maxHook = 25 << 20

// hookTime is how long a delivery may take: GitHub gives up after ten seconds.
const hookTime = 8 * time.Second

// GitHub takes what GitHub's secret scanning reports, by webhook or as one of its
// partners. 200 means that what follows from the delivery is on disk. It asks for
// no token of Remit's: GitHub signs what it sends, and has no other.
type GitHub struct {
	Desk *leak.Desk
	Log  *slog.Logger

	Keys   *leak.GitHubKeys       // of partner deliveries; nil takes none
	Secret func() ([]byte, error) // of the webhook; nil takes none
	Alerts *leak.AlertReader      // reads the secrets of alerts; nil takes alerts without

	slots limiter
}

// NewGitHub returns g, ready to serve.
func NewGitHub(g GitHub) *GitHub {
	g.slots = make(limiter, 8)
	return &g
}

// leaksTaken is the answer to a delivery.
type leaksTaken struct {
	Leaks    int `json:"leaks"`
	Findings int `json:"findings"`
}

// Partner serves [GitHubPartnerPath].
func (g *GitHub) Partner(w http.ResponseWriter, r *http.Request) {
	g.serve(w, r, func(ctx context.Context, body []byte) ([]leak.Report, error) {
		err := g.Keys.Verify(ctx, body, r.Header.Get("Github-Public-Key-Identifier"), r.Header.Get("Github-Public-Key-Signature"))
		if err != nil {
			return nil, err
		}
		return leak.DecodePartner(body)
	})
}

// Hook serves [GitHubHookPath].
func (g *GitHub) Hook(w http.ResponseWriter, r *http.Request) {
	g.serve(w, r, func(ctx context.Context, body []byte) ([]leak.Report, error) {
		secret, err := g.Secret()
		if err != nil {
			return nil, err
		}
		if err := leak.VerifyHook(secret, body, r.Header.Get("X-Hub-Signature-256")); err != nil {
			return nil, err
		}
		switch event := r.Header.Get("X-GitHub-Event"); event {
		case "secret_scanning_alert", "secret_scanning_alert_location":
		case "ping":
			return nil, nil
		default:
			return nil, remit.Errorf(remit.Invalid, "", "only the events secret_scanning_alert and secret_scanning_alert_location are taken")
		}
		alert, err := leak.DecodeAlert(body)
		if err != nil || !alert.Exposes() {
			return nil, err
		}
		if g.Alerts == nil {
			return []leak.Report{alert.Report()}, nil
		}
		report, err := g.Alerts.Report(ctx, &alert)
		if err != nil {
			// GitHub shows the delivery as failed, and delivers it again when
			// somebody asks it to.
			return nil, remit.Errorf(remit.Unavailable, "", "%w", err)
		}
		return []leak.Report{report}, nil
	})
}

func (g *GitHub) serve(w http.ResponseWriter, r *http.Request, read func(context.Context, []byte) ([]leak.Report, error)) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		refuse(w, r, g.Log, http.StatusMethodNotAllowed, "deliver with POST")
		return
	}
	leave, ok := g.slots.enter(w, r, g.Log)
	if !ok {
		return
	}
	defer leave()
	text, err := body(w, r, maxHook)
	if err != nil {
		fail(w, r, g.Log, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), hookTime)
	defer cancel()
	reports, err := read(ctx, text)
	if err != nil {
		fail(w, r, g.Log, err)
		return
	}
	if len(reports) == 0 {
		answer(w, http.StatusOK, leaksTaken{})
		return
	}
	leaks := make([]leak.Leak, len(reports))
	for i := range reports {
		leaks[i] = g.Desk.Digester.Digest(&reports[i], time.Now())
	}
	results, err := g.Desk.Take(ctx, leaks)
	if err != nil {
		fail(w, r, g.Log, err)
		return
	}
	taken := leaksTaken{Leaks: len(results)}
	for i := range results {
		taken.Findings += len(results[i].Findings)
	}
	answer(w, http.StatusOK, taken)
}
