package github

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"remit"
	"remit/connector"
	"remit/connector/connectortest"
)

// auditLog is the audit log's API, after
// https://docs.github.com/en/enterprise-cloud@latest/rest/orgs/orgs#get-the-audit-log-for-an-organization
// and the use of the Link header in
// https://docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api.
type auditLog struct {
	path    string
	events  []auditEvent // by time, then in the order of their coming
	size    int
	expired int
}

type auditEvent struct {
	at     int64
	number int
	json   string
}

func newAuditLog() connectortest.LogAPI {
	return &auditLog{path: "/api/v3/orgs/acme/audit-log", size: 100}
}

func (l *auditLog) Add(id string, at, _ time.Time) {
	e := auditEvent{at: at.UnixMilli(), number: len(l.events)}
	e.json = fmt.Sprintf(`{"@timestamp":%d,"_document_id":%q,"action":"git.clone","actor":"octocat","org":"acme","repo":"acme/shop"}`, e.at, id)
	if e.number%2 == 1 {
		e.json = fmt.Sprintf(`{"@timestamp":%d,"_document_id":%q,"action":"team.create","actor":"octocat","org":"acme","created_at":%d}`, e.at, id, e.at-60_000)
	}
	l.events = append(l.events, e)
	slices.SortStableFunc(l.events, func(a, b auditEvent) int { return int(a.at - b.at) })
}

func (l *auditLog) PageSize(n int) { l.size = n }
func (l *auditLog) Expire()        { l.expired++ }

func (l *auditLog) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	since, err := time.Parse(time.RFC3339, strings.TrimPrefix(query.Get("phrase"), "created:>="))
	if r.URL.Path != l.path || query.Get("order") != "asc" || query.Get("include") != "all" || err != nil ||
		r.Header.Get("X-GitHub-Api-Version") == "" || r.Header.Get("Accept") != "application/vnd.github+json" {
		http.Error(w, `{"message":"Not Found"}`, http.StatusNotFound)
		return
	}
	// A cursor is the time and the number of the last event of its page.
	after := auditEvent{at: -1}
	if cursor := query.Get("after"); cursor != "" {
		var age int
		if _, err := fmt.Sscanf(cursor, "%d|%d|%d", &after.at, &after.number, &age); err != nil || age != l.expired {
			http.Error(w, `{"message":"Invalid cursor"}`, http.StatusBadRequest)
			return
		}
	}
	size, _ := strconv.Atoi(query.Get("per_page"))
	size = min(size, l.size)
	page := []json.RawMessage{}
	for i, e := range l.events {
		if e.at < since.UnixMilli() || e.at < after.at || e.at == after.at && e.number <= after.number {
			continue
		}
		page = append(page, json.RawMessage(e.json))
		if len(page) == size && i+1 < len(l.events) {
			next := url.Values{"phrase": query["phrase"], "after": {fmt.Sprintf("%d|%d|%d", e.at, e.number, l.expired)}, "before": {""}}
			w.Header().Set("Link", fmt.Sprintf(`<https://elsewhere.example/organizations/1/audit-log?before=x>; rel="first", <https://elsewhere.example/organizations/1/audit-log?%s>; rel="next"`, next.Encode()))
			break
		}
	}
	_ = json.NewEncoder(w).Encode(page)
}

func TestPoller(t *testing.T) {
	suite := connectortest.PollSuite{
		Decoder: Audit,
		API:     newAuditLog,
		Poller: func(url, tokenFile string) (connector.Poller, error) {
			return NewPoller(PollerOptions{Organization: "acme", BaseURL: url + "/api/v3/", TokenFile: tokenFile})
		},
		Token: func(r *http.Request) string {
			return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		},
		Late: 4 * time.Minute, Resolution: time.Millisecond,
	}
	t.Run("many pages", func(t *testing.T) { connectortest.Poll(t, suite) })
	suite.Poller = func(url, tokenFile string) (connector.Poller, error) {
		p, err := NewPoller(PollerOptions{Organization: "acme", BaseURL: url + "/api/v3/", TokenFile: tokenFile})
		p.pages = 1
		return p, err
	}
	t.Run("a page a poll", func(t *testing.T) { connectortest.Poll(t, suite) })
}

func TestPollerOptions(t *testing.T) {
	for _, bad := range []PollerOptions{
		{TokenFile: "f"},
		{TokenFile: "f", Organization: "a", Enterprise: "b"},
		{TokenFile: "f", Organization: "a/../b"},
		{TokenFile: "f", Organization: "a", LookBack: -1},
		{TokenFile: "f", Organization: "a", BaseURL: "http://github.example"},
		{TokenFile: "f", Organization: "a", BaseURL: "https://user:password@github.example"},
		{Organization: "a"},
	} {
		if _, err := NewPoller(bad); remit.KindOf(err) != remit.Invalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
