package anthropic

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

// PollerOptions say which organization's Activity Feed is asked for, and as
// whom.
type PollerOptions struct {
	// Organization is the ID of the organization, or of the parent of several,
	// whose feed it is. The key decides whose that is; this names the system,
	// which sign-ins and some other activities do not.
	Organization string

	// TokenFile is the path of a file with a Compliance Access Key or an Admin
	// API key that has the scope read:compliance_activities. It is read at
	// every request.
	TokenFile string

	// BaseURL is the API's address, https://api.anthropic.com when it is empty.
	BaseURL string

	// LookBack is how long after its time an activity may appear in the feed,
	// five minutes when it is 0. Anthropic documents one minute, and advises
	// to look back for a few.
	LookBack time.Duration
}

// Poller asks for the Activity Feed of an organization. It implements
// [connector.Poller].
// Source: https://platform.claude.com/docs/en/manage-claude/compliance-activity-feed
// and compliance-integration-patterns beside it.
type Poller struct {
	native string
	api    *connector.Fetcher
	log    connector.NewestFirst
}

var _ connector.Poller = (*Poller)(nil)

const (
	apiVersion   = "2023-06-01"
	pageLimit    = "1000" // of 5000 that the API would give: an answer stays small
	pollLookBack = 5 * time.Minute
)

// NewPoller checks the options; it asks nothing yet. Errors are [remit.Invalid].
func NewPoller(o PollerOptions) (*Poller, error) {
	o.Organization = strings.TrimSpace(o.Organization)
	p := &Poller{native: o.Organization}
	p.log = connector.NewestFirst{Op: "poll the Anthropic activity feed of " + o.Organization, LookBack: o.LookBack, Ask: p.ask, Time: createdAt}
	switch {
	case o.Organization == "":
		return nil, remit.Errorf(remit.Invalid, "poll an Anthropic activity feed", "name the organization")
	case o.LookBack < 0:
		return nil, remit.Errorf(remit.Invalid, p.log.Op, "the look-back is negative")
	case o.LookBack == 0:
		p.log.LookBack = pollLookBack
	}
	if o.BaseURL == "" {
		o.BaseURL = "https://api.anthropic.com"
	}
	var err error
	p.api, err = connector.NewFetcher(connector.FetchOptions{
		Op: p.log.Op, BaseURL: o.BaseURL, TokenFile: o.TokenFile,
		Right: "a key with the scope read:compliance_activities, made after the Compliance API was switched on",
		Authorize: func(h http.Header, token string) {
			h.Set("X-Api-Key", token)
			h.Set("Anthropic-Version", apiVersion)
		},
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Source is that of [Activity].
func (p *Poller) Source() connector.Source { return Activity.Source() }

// Native is the organization's ID, as the options have it.
func (p *Poller) Native() string { return p.native }

// Poll hands out one window of time. See [connector.Poller] and
// [connector.NewestFirst].
func (p *Poller) Poll(ctx context.Context, position []byte, since time.Time, emit func(raw []byte) error) (next []byte, more bool, err error) {
	return p.log.Poll(ctx, position, since, emit)
}

func (p *Poller) ask(ctx context.Context, from, to time.Time, cursor string) (*connector.Answer, error) {
	query := url.Values{
		"created_at.gte": {from.UTC().Format(time.RFC3339)},
		"limit":          {pageLimit},
	}
	if !to.IsZero() {
		query.Set("created_at.lt", to.UTC().Format(time.RFC3339))
	}
	if cursor != "" {
		query.Set("after_id", cursor)
	}
	return p.api.Get(ctx, "/v1/compliance/activities", query)
}

func createdAt(raw []byte) time.Time {
	v, err := fastjson.ParseBytes(raw)
	if err != nil {
		return time.Time{}
	}
	return connector.ParseTime(v.GetStringBytes("created_at"))
}
