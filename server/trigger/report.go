package trigger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"remit"
	"remit/server/token"
)

// ReportPath is where a script or another tool reports what must cause a
// response.
const ReportPath = "/v1/triggers"

// ReportedPolicy is the rule's id of the findings.
const ReportedPolicy = "reported"

// The bounds of a report.
const (
	maxReport  = 64 << 10
	maxSubject = 1024
	maxReason  = 2048
	maxLinks   = 16
)

// Concerned is what a report is about.
type Concerned struct {
	System   remit.ID
	Subject  remit.Subject
	Identity remit.ID // the holder of a credential; "" where it is the subject
	Native   string   // of a credential, as the log writes it; ""
}

// Reports takes reports: POST [ReportPath] with a token of the scope "triggers"
// and a JSON document. 201 means that a finding was opened, or opened again, and
// 200 that there was one already, or that one was resolved; both, that it is on
// disk.
type Reports struct {
	Tokens *token.Tokens
	Store  remit.FindingStore
	Log    *slog.Logger

	// Subject finds what is named: [remit.NotFound] when it is unknown,
	// [remit.Invalid] when it may be several. system is a name, or "".
	Subject func(ctx context.Context, system, name string) (Concerned, error)

	// Observe, if not nil, is told of every report that was taken.
	Observe func(client string)

	// Announced, if not nil, is told of a new finding.
	Announced func(findings []remit.ID)

	Now func() time.Time // nil is time.Now
}

// report is the document.
type report struct {
	Subject  string   `json:"subject"`
	System   string   `json:"system"`
	Reason   string   `json:"reason"`
	Severity string   `json:"severity"`
	Source   string   `json:"source"`
	Links    []string `json:"links"`
	Resolved bool     `json:"resolved"`
}

// reported is the answer.
type reported struct {
	Finding  remit.ID           `json:"finding"`
	State    remit.FindingState `json:"state"`
	Subject  remit.Subject      `json:"subject"`
	Severity remit.Severity     `json:"severity,omitempty"`
}

func (h *Reports) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		refuse(w, r, h.Log, http.StatusMethodNotAllowed, "report with POST")
		return
	}
	caller, ok := allowed(w, r, h.Tokens, h.Log, token.SendTriggers)
	if !ok {
		return
	}
	text, err := body(w, r, maxReport)
	if err != nil {
		fail(w, r, h.Log, err)
		return
	}
	q, err := decodeReport(text)
	if err != nil {
		fail(w, r, h.Log, err)
		return
	}
	// A token that is for one system reports about that one only.
	if caller.System != "" {
		if q.System != "" && q.System != caller.System {
			fail(w, r, h.Log, remit.Errorf(remit.Forbidden, "", "the token is for the system %s", caller.System))
			return
		}
		q.System = caller.System
	}
	about, err := h.Subject(r.Context(), q.System, q.Subject)
	if err != nil {
		fail(w, r, h.Log, err)
		return
	}
	status, out, err := h.take(r.Context(), caller.Client, q, about)
	if err != nil {
		fail(w, r, h.Log, err)
		return
	}
	h.Log.Info("report taken", "client", caller.Client, "subject", about.Subject.String(), "finding", out.Finding, "state", out.State)
	if h.Observe != nil {
		h.Observe(caller.Client)
	}
	answer(w, status, out)
}

// decodeReport reads a document. Its errors are [remit.Invalid], and name the
// member and not what is in it.
func decodeReport(text []byte) (*report, error) {
	const op = "read report"
	var q report
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		var typed *json.UnmarshalTypeError
		switch {
		case errors.As(err, &typed) && len(typed.Field) < 64:
			return nil, remit.Errorf(remit.Invalid, op, "%s: another type is wanted", typed.Field)
		case strings.HasPrefix(err.Error(), "json: unknown field"):
			return nil, remit.Errorf(remit.Invalid, op, "a member is not known: use subject, system, reason, severity, source, links and resolved")
		}
		return nil, remit.Errorf(remit.Invalid, op, "the body is no JSON object")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, remit.Errorf(remit.Invalid, op, "something follows the JSON object")
	}
	for _, m := range []struct {
		name, value string
		most        int
		needed      bool
	}{
		{"subject", q.Subject, maxSubject, true},
		{"system", q.System, maxSubject, false},
		{"reason", q.Reason, maxReason, !q.Resolved},
		{"source", q.Source, maxSubject, false},
	} {
		switch {
		case m.needed && strings.TrimSpace(m.value) == "":
			return nil, remit.Errorf(remit.Invalid, op, "%s is missing", m.name)
		case len(m.value) > m.most:
			return nil, remit.Errorf(remit.Invalid, op, "%s is longer than %d bytes", m.name, m.most)
		case strings.ContainsFunc(m.value, unicode.IsControl):
			return nil, remit.Errorf(remit.Invalid, op, "%s has control characters in it", m.name)
		}
	}
	if len(q.Links) > maxLinks || slices.ContainsFunc(q.Links, func(l string) bool {
		return len(l) > maxSubject || !strings.HasPrefix(l, "https://") || strings.ContainsFunc(l, unicode.IsControl)
	}) {
		return nil, remit.Errorf(remit.Invalid, op, "links: at most %d addresses that begin with https://", maxLinks)
	}
	if q.Severity == "" {
		q.Severity = string(remit.High)
	}
	if _, err := remit.ParseSeverity(q.Severity); err != nil {
		return nil, remit.Errorf(remit.Invalid, op, "severity: use info, low, medium, high or critical")
	}
	return &q, nil
}

// take writes what a report says.
func (h *Reports) take(ctx context.Context, client string, q *report, about Concerned) (int, reported, error) {
	now := time.Now().UTC()
	if h.Now != nil {
		now = h.Now().UTC()
	}
	out := reported{Finding: remit.FindingID(ReportedPolicy, about.Subject.ID), Subject: about.Subject}
	var changes remit.FindingChanges
	var err error
	if q.Resolved {
		changes, err = h.Store.ResolveFindings(ctx, remit.FindingScope{
			System: about.System, Policies: []string{ReportedPolicy}, Subjects: []remit.ID{about.Subject.ID},
		}, now.Add(time.Microsecond), now)
	} else {
		changes, err = h.Store.PutFindings(ctx, now, []remit.Finding{h.finding(out.Finding, client, q, about)})
	}
	if err != nil {
		return 0, out, err
	}
	found, _, err := h.Store.Findings(ctx, remit.FindingFilter{IDs: []remit.ID{out.Finding}}, remit.PageRequest{Limit: 1})
	if err != nil {
		return 0, out, err
	}
	if len(found) == 0 {
		return 0, out, remit.Errorf(remit.NotFound, "", "nothing was reported about %s", about.Subject)
	}
	out.State, out.Severity = found[0].State, found[0].Severity
	if changes.Opened > 0 {
		if h.Announced != nil {
			h.Announced([]remit.ID{out.Finding})
		}
		return http.StatusCreated, out, nil
	}
	return http.StatusOK, out, nil
}

func (h *Reports) finding(id remit.ID, client string, q *report, about Concerned) remit.Finding {
	by := client
	if q.Source != "" {
		by = fmt.Sprintf("%s (%s)", q.Source, client)
	}
	f := remit.Finding{
		ID: id, Policy: ReportedPolicy, Title: "Reported from outside", Severity: remit.Severity(q.Severity), System: about.System,
		Subject: about.Subject, Identity: about.Identity, Message: about.Subject.String() + " was reported by " + by + ": " + q.Reason,
		Evidence: []remit.Fact{{Name: "reported by", Value: by}, {Name: "reason", Value: q.Reason}},
		Risks:    []string{"T1078"}, Controls: []string{"NIST SP 800-53 IR-4", "SOC 2 CC7.4"},
		Remedy: "See what was done with it: remit activity. Whoever reported it says when it is over.",
	}
	if about.Native != "" {
		f.Credentials = []string{about.Native}
	}
	for _, l := range q.Links {
		f.Evidence = append(f.Evidence, remit.Fact{Name: "address", Value: l})
	}
	return f
}
