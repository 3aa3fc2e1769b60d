package okta

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"remit"
	"remit/connector"
	"remit/connector/connectortest"
)

// logsAPI is the System Log's API, after
// https://developer.okta.com/docs/reference/system-log-query/#list-events: a
// request without "until" in ascending order gives events in the order in which
// they were stored, and always a next link.
type logsAPI struct {
	events  []logEvent
	size    int
	expired int
}

type logEvent struct {
	stored time.Time
	json   string
}

func (l *logsAPI) Add(id string, at, now time.Time) {
	l.events = append(l.events, logEvent{now, fmt.Sprintf(
		`{"uuid":%q,"published":%q,"eventType":"user.session.start","actor":{"id":"00u1","type":"User","alternateId":"a@acme.example"},"outcome":{"result":"SUCCESS"},"version":"0"}`,
		id, at.Format("2006-01-02T15:04:05.000Z"))})
}

func (l *logsAPI) PageSize(n int) { l.size = n }
func (l *logsAPI) Expire()        { l.expired++ }

func (l *logsAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	limit, err := strconv.Atoi(query.Get("limit"))
	if r.URL.Path != "/api/v1/logs" || query.Get("sortOrder") != "ASCENDING" || query.Has("until") || err != nil || limit > 1000 ||
		query.Has("since") == query.Has("after") || !strings.HasPrefix(r.Header.Get("Authorization"), "SSWS ") {
		http.Error(w, `{"errorCode":"E0000001","errorSummary":"Api validation failed"}`, http.StatusBadRequest)
		return
	}
	var from int
	if after := query.Get("after"); after != "" {
		var age int
		if _, err := fmt.Sscanf(after, "%d_%d", &from, &age); err != nil || age != l.expired {
			http.Error(w, `{"errorCode":"E0000031","errorSummary":"Invalid after"}`, http.StatusBadRequest)
			return
		}
	} else {
		since, err := time.Parse(time.RFC3339, query.Get("since"))
		if err != nil {
			http.Error(w, `{"errorCode":"E0000001","errorSummary":"Api validation failed: 'since'"}`, http.StatusBadRequest)
			return
		}
		for from < len(l.events) && l.events[from].stored.Before(since) {
			from++
		}
	}
	page := []json.RawMessage{}
	for ; from < len(l.events) && len(page) < min(limit, l.size); from++ {
		page = append(page, json.RawMessage(l.events[from].json))
	}
	next := url.Values{"after": {fmt.Sprintf("%d_%d", from, l.expired)}, "sortOrder": {"ASCENDING"}, "limit": query["limit"]}
	w.Header().Add("Link", fmt.Sprintf(`<https://elsewhere.example/api/v1/logs?%s>; rel="self"`, r.URL.RawQuery))
	w.Header().Add("Link", fmt.Sprintf(`<https://elsewhere.example/api/v1/logs?%s>; rel="next"`, next.Encode()))
	_ = json.NewEncoder(w).Encode(page)
}

func TestPoller(t *testing.T) {
	suite := connectortest.PollSuite{
		Decoder: SystemLog,
		API:     func() connectortest.LogAPI { return &logsAPI{size: 1000} },
		Poller: func(url, tokenFile string) (connector.Poller, error) {
			return NewPoller(PollerOptions{URL: url, TokenFile: tokenFile})
		},
		Token: func(r *http.Request) string {
			return strings.TrimPrefix(r.Header.Get("Authorization"), "SSWS ")
		},
		Late: time.Hour, // however late: the order is that of storing
	}
	t.Run("many pages", func(t *testing.T) { connectortest.Poll(t, suite) })
	suite.Poller = func(url, tokenFile string) (connector.Poller, error) {
		p, err := NewPoller(PollerOptions{URL: url, TokenFile: tokenFile})
		p.pages = 2
		return p, err
	}
	t.Run("few pages a poll", func(t *testing.T) { connectortest.Poll(t, suite) })
}

func TestPollerOptions(t *testing.T) {
	for _, bad := range []PollerOptions{
		{TokenFile: "f"},
		{TokenFile: "f", URL: "acme.okta.com"},
		{TokenFile: "f", URL: "http://acme.okta.com"},
		{TokenFile: "f", URL: "https://acme.okta.com", Scheme: "Basic"},
		{URL: "https://acme.okta.com"},
	} {
		if _, err := NewPoller(bad); remit.KindOf(err) != remit.Invalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	p, err := NewPoller(PollerOptions{URL: "https://Acme.okta.com/", TokenFile: "f", Scheme: "bearer"})
	if err != nil || p.Native() != "acme.okta.com" {
		t.Error(p, err)
	}
}
