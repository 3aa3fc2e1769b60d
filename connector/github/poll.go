package github

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

// PollerOptions say which audit log is asked for. Organization or Enterprise is
// needed, and not both.
type PollerOptions struct {
	// Organization is the name (login) of an organization.
	Organization string

	// Enterprise is the name in the address (slug) of an enterprise, whose log
	// has the events of all its organizations.
	Enterprise string

	// TokenFile is the path of a file with a token: of an owner of the
	// organization or an administrator of the enterprise, with the scope
	// read:audit_log; or one with the permission "Administration: read" of the
	// organization. It is read at every request.
	TokenFile string

	// BaseURL is the API's address, https://api.github.com when it is empty.
	// That of GitHub Enterprise Server is https://HOST/api/v3.
	BaseURL string

	// LookBack is how long after its time an event may appear in the log, five
	// minutes when it is 0. GitHub promises no time.
	LookBack time.Duration
}

// Poller asks for the audit log of an organization or an enterprise. It
// implements [connector.Poller].
// Source: https://docs.github.com/en/enterprise-cloud@latest/rest/orgs/orgs#get-the-audit-log-for-an-organization
// and https://docs.github.com/en/enterprise-cloud@latest/rest/enterprise-admin/audit-log
type Poller struct {
	op, native, path, right string
	lookBack                time.Duration
	api                     *connector.Fetcher
	pages                   int // in one poll, at most
}

var _ connector.Poller = (*Poller)(nil)

const (
	apiVersion   = "2022-11-28"
	perPage      = "100" // the most that the API gives
	pagesAPoll   = 10
	pollLookBack = 5 * time.Minute
)

// NewPoller checks the options; it asks nothing yet. Errors are [remit.Invalid].
func NewPoller(o PollerOptions) (*Poller, error) {
	p := &Poller{native: o.Organization, path: "/orgs/" + o.Organization + "/audit-log", lookBack: o.LookBack, pages: pagesAPoll}
	p.right = "the scope read:audit_log of an owner of the organization, or its permission \"Administration: read\""
	if o.Enterprise != "" {
		p.native, p.path = o.Enterprise, "/enterprises/"+o.Enterprise+"/audit-log"
		p.right = "the scope read:audit_log of an administrator of the enterprise"
	}
	p.op = "poll the audit log of " + p.native
	switch {
	case (o.Organization == "") == (o.Enterprise == ""):
		return nil, remit.Errorf(remit.Invalid, "poll a GitHub audit log", "name an organization or an enterprise")
	case strings.Trim(p.native, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "":
		return nil, remit.Errorf(remit.Invalid, "poll a GitHub audit log", "%q is no name of an organization or an enterprise", p.native)
	case o.LookBack < 0:
		return nil, remit.Errorf(remit.Invalid, p.op, "the look-back is negative")
	case o.LookBack == 0:
		p.lookBack = pollLookBack
	}
	if o.BaseURL == "" {
		o.BaseURL = "https://api.github.com"
	}
	var err error
	p.api, err = connector.NewFetcher(connector.FetchOptions{
		Op: p.op, BaseURL: o.BaseURL, TokenFile: o.TokenFile, Right: p.right,
		Authorize: func(h http.Header, token string) {
			h.Set("Authorization", "Bearer "+token)
			h.Set("Accept", "application/vnd.github+json")
			h.Set("X-GitHub-Api-Version", apiVersion)
		},
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Source is that of [Audit].
func (p *Poller) Source() connector.Source { return Audit.Source() }

// Native is the name of the organization or the enterprise.
func (p *Poller) Native() string { return p.native }

// position is where a poller is: in a round, behind the cursor of the last page
// that was handed out, "" at the round's begin.
type position struct {
	connector.Round
	After string `json:"after,omitempty"`
}

// Poll hands out up to ten pages. See [connector.Poller].
func (p *Poller) Poll(ctx context.Context, stored []byte, since time.Time, emit func(raw []byte) error) (next []byte, more bool, err error) {
	at := position{Round: connector.Round{Since: since.UTC().Truncate(time.Second)}}
	if len(stored) > 0 {
		at.Since = time.Time{}
		if err := connector.ReadPosition(p.op, stored, &at); err != nil {
			return stored, false, err
		}
		if at.Since.IsZero() {
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

// page hands out the next page and says whether another follows in the round.
func (p *Poller) page(ctx context.Context, at *position, emit func(raw []byte) error) (more bool, err error) {
	answer, err := p.ask(ctx, at)
	if at.After != "" && (answer.Status == http.StatusBadRequest || answer.Status == http.StatusUnprocessableEntity) {
		// The cursor is no longer known: once more from the round's begin.
		at.After = ""
		answer, err = p.ask(ctx, at)
	}
	if answer.Status == http.StatusNotFound {
		// GitHub does not tell who may not see a thing that it exists.
		return false, remit.Errorf(remit.Forbidden, p.op, "there is none for this token: it needs %s, and the audit log is part of GitHub Enterprise: %w", p.right, err)
	}
	if err != nil {
		return false, err
	}
	at.Answered(answer.Date())
	values, ok := connector.SplitArray(answer.JSON)
	if !ok {
		return false, remit.Errorf(remit.Unavailable, p.op, "the answer is not a page of events")
	}
	events := make([]connector.RawEvent, len(values))
	for i, value := range values {
		events[i] = connector.RawEvent{Time: rawTime(value), JSON: value}
	}
	link, err := connector.NextLink(answer.Header)
	if err != nil {
		return false, remit.Errorf(remit.Unavailable, p.op, "%w", err)
	}
	after := link.Get("after")
	if link != nil && (after == "" || after == at.After) {
		return false, remit.Errorf(remit.Unavailable, p.op, "the answer says that more follows, and not how to get it")
	}
	if err := at.Emit(events, emit); err != nil {
		return false, err
	}
	if at.After = after; after == "" {
		at.Again(p.lookBack)
		return false, nil
	}
	return true, nil
}

func (p *Poller) ask(ctx context.Context, at *position) (*connector.Answer, error) {
	query := url.Values{
		"phrase":   {"created:>=" + at.Since.UTC().Format("2006-01-02T15:04:05Z")},
		"include":  {"all"}, // Git events too
		"order":    {"asc"},
		"per_page": {perPage},
	}
	if at.After != "" {
		query.Set("after", at.After)
	}
	return p.api.Get(ctx, p.path, query)
}

// rawTime reads the time by which the log is ordered: Git events have no other,
// and created_at may be earlier.
func rawTime(raw []byte) time.Time {
	v, err := fastjson.ParseBytes(raw)
	if err != nil {
		return time.Time{}
	}
	if t := timeOf(v.Get("@timestamp")); !t.IsZero() {
		return t
	}
	return timeOf(v.Get("created_at"))
}
