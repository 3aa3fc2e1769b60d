package okta

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// PollerOptions say which organization's System Log is asked for, and as whom.
type PollerOptions struct {
	// URL is the organization's address: https://acme.okta.com, or its own
	// domain.
	URL string

	// TokenFile is the path of a file with a token that may read the log. It
	// is read at every request.
	TokenFile string

	// Scheme is how the token is shown: "SSWS", also when it is empty, for an
	// API token; "Bearer" for an OAuth 2.0 access token with the scope
	// okta.logs.read.
	Scheme string
}

// Poller asks for the System Log of an organization. It implements
// [connector.Poller].
// Source: https://developer.okta.com/docs/reference/system-log-query/#list-events
type Poller struct {
	op, native string
	api        *connector.Fetcher
	pages      int // in one poll, at most
}

var _ connector.Poller = (*Poller)(nil)

const (
	pageLimit  = "1000" // the most that the API gives
	pagesAPoll = 10
	longest    = 8 << 10 // bytes of a link's query

	// What is older than retention the log does not have, and to ask for it
	// can be an error.
	retention = 90 * 24 * time.Hour
)

// NewPoller checks the options; it asks nothing yet. Errors are [remit.Invalid].
func NewPoller(o PollerOptions) (*Poller, error) {
	scheme := "SSWS"
	switch {
	case strings.EqualFold(o.Scheme, "Bearer"):
		scheme = "Bearer"
	case o.Scheme != "" && !strings.EqualFold(o.Scheme, scheme):
		return nil, remit.Errorf(remit.Invalid, "poll an Okta System Log", "the scheme %q is neither SSWS nor Bearer", o.Scheme)
	}
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" {
		return nil, remit.Errorf(remit.Invalid, "poll an Okta System Log", "name the organization's address: https://acme.okta.com")
	}
	p := &Poller{op: "poll the System Log of " + u.Host, native: strings.ToLower(u.Hostname()), pages: pagesAPoll}
	p.api, err = connector.NewFetcher(connector.FetchOptions{
		Op: p.op, BaseURL: o.URL, TokenFile: o.TokenFile,
		Right: "an administrator's role that may view the System Log (read-only administrator), or the scope okta.logs.read",
		Authorize: func(h http.Header, token string) {
			h.Set("Authorization", scheme+" "+token)
		},
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Source is that of [SystemLog].
func (p *Poller) Source() connector.Source { return SystemLog.Source() }

// Native is the host of the organization's address.
func (p *Poller) Native() string { return p.native }

// position is behind the last page: the query of the link that its answer gave,
// "" before the first. Okta orders such a stream by when it stored an event, so
// that none appears behind a link; Since is from where to begin again when a
// link is no longer known.
type position struct {
	Since time.Time `json:"since"`
	Next  string    `json:"next,omitempty"`
}

// Poll hands out up to ten pages, until one is empty. See [connector.Poller].
func (p *Poller) Poll(ctx context.Context, stored []byte, since time.Time, emit func(raw []byte) error) (next []byte, more bool, err error) {
	at := position{Since: since.UTC()}
	if len(stored) > 0 {
		at.Since = time.Time{}
		if err := connector.ReadPosition(p.op, stored, &at); err != nil {
			return stored, false, err
		}
		if at.Since.IsZero() || len(at.Next) > longest {
			return stored, false, remit.Errorf(remit.Invalid, p.op, "the stored position cannot be read: it does not say from when")
		}
	}
	for range p.pages {
		more, err := p.page(ctx, &at, emit)
		if err != nil || !more {
			return connector.WritePosition(at), false, err
		}
	}
	return connector.WritePosition(at), true, nil
}

// page hands out the next page and says whether it had events: the stream has
// no last page, only an empty one.
func (p *Poller) page(ctx context.Context, at *position, emit func(raw []byte) error) (more bool, err error) {
	answer, err := p.ask(ctx, at)
	if at.Next != "" && (answer.Status == http.StatusBadRequest || answer.Status == http.StatusNotFound || answer.Status == http.StatusGone) {
		// The link is no longer known. A minute is for clocks that differ.
		at.Next, at.Since = "", at.Since.Add(-time.Minute)
		answer, err = p.ask(ctx, at)
	}
	if err != nil {
		return false, err
	}
	values, ok := connector.SplitArray(answer.JSON)
	if !ok {
		return false, remit.Errorf(remit.Unavailable, p.op, "the answer is not a page of events")
	}
	link, err := connector.NextLink(answer.Header)
	if err != nil {
		return false, remit.Errorf(remit.Unavailable, p.op, "%w", err)
	}
	query := link.Encode()
	if len(query) > longest {
		return false, remit.Errorf(remit.Unavailable, p.op, "the link to the next page has %d bytes", len(query))
	}
	if len(values) > 0 {
		if err := emit(answer.JSON); err != nil {
			return false, err
		}
	}
	for _, value := range values {
		// Okta stores an event at its time or later: what is not yet handed
		// out was stored after the newest that is.
		if t := published(value); t.After(at.Since) && !t.After(answer.Date()) {
			at.Since = t
		}
	}
	switch {
	case link != nil && query == at.Next && len(values) > 0:
		return false, remit.Errorf(remit.Unavailable, p.op, "the link to the next page leads to the same page")
	case link != nil:
		at.Next = query
		return len(values) > 0, nil
	}
	// Without a link the next page begins at the newest event, which is
	// handed out twice then.
	at.Next = ""
	return false, nil
}

func (p *Poller) ask(ctx context.Context, at *position) (*connector.Answer, error) {
	query, err := url.ParseQuery(at.Next)
	if err != nil {
		return &connector.Answer{}, remit.Errorf(remit.Invalid, p.op, "the stored position has a link that is none")
	}
	if at.Next == "" {
		since := at.Since
		if oldest := time.Now().Add(-retention); since.Before(oldest) {
			since = oldest
		}
		// Without "until", and ascending, it is a polling request.
		query = url.Values{
			"since":     {since.UTC().Format("2006-01-02T15:04:05.000Z")},
			"sortOrder": {"ASCENDING"},
			"limit":     {pageLimit},
		}
	}
	return p.api.Get(ctx, "/api/v1/logs", query)
}

func published(raw []byte) time.Time {
	v, err := fastjson.ParseBytes(raw)
	if err != nil {
		return time.Time{}
	}
	return connector.ParseTime(v.GetStringBytes("published"))
}
