package anthropic

import (
	"cmp"
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

// activities is the API of the Activity Feed, after
// https://platform.claude.com/docs/en/manage-claude/compliance-activity-feed:
// newest first, equal times by ID, cursors that name an activity.
type activities struct {
	events []activityEvent
	size   int
}

type activityEvent struct {
	at       time.Time
	id, json string
}

func (l *activities) Add(id string, at, _ time.Time) {
	l.events = append(l.events, activityEvent{at, id, fmt.Sprintf(
		`{"id":%q,"created_at":%q,"organization_id":null,"organization_uuid":null,"actor":{"type":"user_actor","email_address":"a@acme.example","user_id":"user_1","ip_address":"192.0.2.2"},"type":"sso_login_succeeded"}`,
		id, at.Format(time.RFC3339Nano))})
	slices.SortFunc(l.events, func(a, b activityEvent) int {
		return cmp.Or(b.at.Compare(a.at), strings.Compare(b.id, a.id))
	})
}

func (l *activities) PageSize(n int) { l.size = n }
func (l *activities) Expire()        {} // cursors stay valid

func (l *activities) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	limit, err := strconv.Atoi(query.Get("limit"))
	from, err2 := time.Parse(time.RFC3339, query.Get("created_at.gte"))
	to := time.Unix(1<<40, 0)
	var err3 error
	if lt := query.Get("created_at.lt"); lt != "" {
		to, err3 = time.Parse(time.RFC3339, lt)
	}
	behind := -1
	if after := query.Get("after_id"); after != "" {
		if behind = slices.IndexFunc(l.events, func(e activityEvent) bool { return "cursor:"+e.id == after }); behind < 0 {
			err = fmt.Errorf("no such cursor")
		}
	}
	if r.URL.Path != "/v1/compliance/activities" || err != nil || err2 != nil || err3 != nil || limit < 1 || limit > 5000 ||
		r.Header.Get("Anthropic-Version") != "2023-06-01" {
		http.Error(w, `{"error":{"type":"invalid_request_error","message":"Invalid request"}}`, http.StatusBadRequest)
		return
	}
	answer := struct {
		Data    []json.RawMessage `json:"data"`
		HasMore bool              `json:"has_more"`
		FirstID *string           `json:"first_id"`
		LastID  *string           `json:"last_id"`
	}{Data: []json.RawMessage{}}
	for _, e := range l.events[behind+1:] {
		if e.at.Before(from) || !e.at.Before(to) {
			continue
		}
		if len(answer.Data) == min(limit, l.size) {
			answer.HasMore = true
			break
		}
		cursor := "cursor:" + e.id // opaque
		if answer.FirstID == nil {
			answer.FirstID = &cursor
		}
		answer.LastID = &cursor
		answer.Data = append(answer.Data, json.RawMessage(e.json))
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func TestPoller(t *testing.T) {
	suite := connectortest.PollSuite{
		Decoder: Activity,
		API:     func() connectortest.LogAPI { return &activities{size: 5000} },
		Poller: func(url, tokenFile string) (connector.Poller, error) {
			return NewPoller(PollerOptions{Organization: "org_1", BaseURL: url, TokenFile: tokenFile})
		},
		Token: func(r *http.Request) string { return r.Header.Get("X-Api-Key") },
		Late:  4 * time.Minute, Resolution: time.Nanosecond,
	}
	t.Run("one window", func(t *testing.T) { connectortest.Poll(t, suite) })
	suite.Poller = func(url, tokenFile string) (connector.Poller, error) {
		p, err := NewPoller(PollerOptions{Organization: "org_1", BaseURL: url, TokenFile: tokenFile})
		p.log.Most = 5
		return p, err
	}
	t.Run("many windows", func(t *testing.T) { connectortest.Poll(t, suite) })
}

func TestPollerOptions(t *testing.T) {
	for _, bad := range []PollerOptions{
		{TokenFile: "f"},
		{TokenFile: "f", Organization: "org_1", LookBack: -1},
		{TokenFile: "f", Organization: "org_1", BaseURL: "http://anthropic.example"},
		{Organization: "org_1"},
	} {
		if _, err := NewPoller(bad); remit.KindOf(err) != remit.Invalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
