package openai

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"remit"
	"remit/connector"
	"remit/connector/connectortest"
)

// auditLogs is the API of the audit log, after
// https://platform.openai.com/docs/api-reference/audit-logs/list.
type auditLogs struct {
	events []auditLog // the newest first
	size   int
}

type auditLog struct {
	at       int64
	id, json string
}

func (l *auditLogs) Add(id string, at, _ time.Time) {
	l.events = slices.Insert(l.events, 0, auditLog{at.Unix(), id, fmt.Sprintf(
		`{"object":"organization.audit_log","id":%q,"type":"project.archived","effective_at":%d,"actor":{"type":"session","session":{"user":{"id":"user-1","email":"a@acme.example"},"ip_address":"192.0.2.1"}},"project.archived":{"id":"proj_1"}}`,
		id, at.Unix())})
	slices.SortStableFunc(l.events, func(a, b auditLog) int { return int(b.at - a.at) })
}

func (l *auditLogs) PageSize(n int) { l.size = n }
func (l *auditLogs) Expire()        {} // a cursor is the ID of an event

func (l *auditLogs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	limit, err := strconv.Atoi(query.Get("limit"))
	from, err2 := strconv.ParseInt(query.Get("effective_at[gte]"), 10, 64)
	to := int64(1 << 62)
	var err3 error
	if lt := query.Get("effective_at[lt]"); lt != "" {
		to, err3 = strconv.ParseInt(lt, 10, 64)
	}
	behind := -1
	if after := query.Get("after"); after != "" {
		if behind = slices.IndexFunc(l.events, func(e auditLog) bool { return e.id == after }); behind < 0 {
			err = fmt.Errorf("no such event")
		}
	}
	if r.URL.Path != "/v1/organization/audit_logs" || err != nil || err2 != nil || err3 != nil || limit < 1 || limit > 100 {
		http.Error(w, `{"error":{"message":"Invalid request","type":"invalid_request_error"}}`, http.StatusBadRequest)
		return
	}
	answer := struct {
		Object  string            `json:"object"`
		Data    []json.RawMessage `json:"data"`
		FirstID *string           `json:"first_id"`
		LastID  *string           `json:"last_id"`
		HasMore bool              `json:"has_more"`
	}{Object: "list", Data: []json.RawMessage{}}
	for _, e := range l.events[behind+1:] {
		if e.at < from || e.at >= to {
			continue
		}
		if len(answer.Data) == min(limit, l.size) {
			answer.HasMore = true
			break
		}
		if answer.FirstID == nil {
			answer.FirstID = &e.id
		}
		answer.LastID = &e.id
		answer.Data = append(answer.Data, json.RawMessage(e.json))
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func TestPoller(t *testing.T) {
	suite := connectortest.PollSuite{
		Decoder: Audit,
		API:     func() connectortest.LogAPI { return &auditLogs{size: 100} },
		Poller: func(url, tokenFile string) (connector.Poller, error) {
			return NewPoller(PollerOptions{Organization: "org-1", BaseURL: url, TokenFile: tokenFile})
		},
		Token: func(r *http.Request) string {
			return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		},
		Late: 9 * time.Minute, Resolution: time.Second,
	}
	t.Run("one window", func(t *testing.T) { connectortest.Poll(t, suite) })
	suite.Poller = func(url, tokenFile string) (connector.Poller, error) {
		p, err := NewPoller(PollerOptions{Organization: "org-1", BaseURL: url, TokenFile: tokenFile})
		p.log.Most = 5
		return p, err
	}
	t.Run("many windows", func(t *testing.T) { connectortest.Poll(t, suite) })
}

func TestPollerOptions(t *testing.T) {
	for _, bad := range []PollerOptions{
		{TokenFile: "f"},
		{TokenFile: "f", Organization: "org-1", LookBack: -1},
		{TokenFile: "f", Organization: "org-1", BaseURL: "http://openai.example"},
		{Organization: "org-1"},
	} {
		if _, err := NewPoller(bad); remit.KindOf(err) != remit.Invalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
