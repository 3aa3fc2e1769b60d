package openai

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// PollerOptions say which organization's audit log is asked for, and as whom.
type PollerOptions struct {
	// Organization is the organization's ID, such as org-AbC123. The key
	// decides whose log it is; this names the system, which the events do not.
	Organization string

	// TokenFile is the path of a file with an admin API key that has the scope
	// api.audit_logs.read. It is read at every request.
	TokenFile string

	// BaseURL is the API's address, https://api.openai.com when it is empty.
	BaseURL string

	// LookBack is how long after its time an event may appear in the log, ten
	// minutes when it is 0. OpenAI promises no time.
	LookBack time.Duration
}

// Poller asks for the audit log of an organization. It implements
// [connector.Poller].
// Source: https://platform.openai.com/docs/api-reference/audit-logs/list
type Poller struct {
	native string
	api    *connector.Fetcher
	log    connector.NewestFirst
}

var _ connector.Poller = (*Poller)(nil)

const (
	pageLimit    = "100" // the most that the API gives
	pollLookBack = 10 * time.Minute
)

// NewPoller checks the options; it asks nothing yet. Errors are [remit.Invalid].
func NewPoller(o PollerOptions) (*Poller, error) {
	o.Organization = strings.TrimSpace(o.Organization)
	p := &Poller{native: o.Organization}
	p.log = connector.NewestFirst{Op: "poll the OpenAI audit log of " + o.Organization, LookBack: o.LookBack, Ask: p.ask, Time: effectiveAt}
	switch {
	case o.Organization == "":
		return nil, remit.Errorf(remit.Invalid, "poll an OpenAI audit log", "name the organization")
	case o.LookBack < 0:
		return nil, remit.Errorf(remit.Invalid, p.log.Op, "the look-back is negative")
	case o.LookBack == 0:
		p.log.LookBack = pollLookBack
	}
	if o.BaseURL == "" {
		o.BaseURL = "https://api.openai.com"
	}
	var err error
	p.api, err = connector.NewFetcher(connector.FetchOptions{
		Op: p.log.Op, BaseURL: o.BaseURL, TokenFile: o.TokenFile,
		Right: "an admin API key with the scope api.audit_logs.read, and audit logging switched on",
		Authorize: func(h http.Header, token string) {
			h.Set("Authorization", "Bearer "+token)
		},
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Source is that of [Audit].
func (p *Poller) Source() connector.Source { return Audit.Source() }

// Native is the organization's ID, as the options have it.
func (p *Poller) Native() string { return p.native }

// Poll hands out one window of time. See [connector.Poller] and
// [connector.NewestFirst].
func (p *Poller) Poll(ctx context.Context, position []byte, since time.Time, emit func(raw []byte) error) (next []byte, more bool, err error) {
	return p.log.Poll(ctx, position, since, emit)
}

func (p *Poller) ask(ctx context.Context, from, to time.Time, cursor string) (*connector.Answer, error) {
	query := url.Values{
		"effective_at[gte]": {strconv.FormatInt(from.Unix(), 10)},
		"limit":             {pageLimit},
	}
	if !to.IsZero() {
		query.Set("effective_at[lt]", strconv.FormatInt(to.Unix(), 10))
	}
	if cursor != "" {
		query.Set("after", cursor)
	}
	return p.api.Get(ctx, "/v1/organization/audit_logs", query)
}

func effectiveAt(raw []byte) time.Time {
	v, err := fastjson.ParseBytes(raw)
	if err != nil {
		return time.Time{}
	}
	seconds := v.GetFloat64("effective_at")
	if !(seconds > 0 && seconds < 1e11) {
		return time.Time{}
	}
	return time.UnixMilli(int64(seconds * 1000)).UTC()
}
