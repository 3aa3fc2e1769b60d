package report

import (
	"bytes"
	"strings"
	"testing"

	"remit"
)

func sampleStanding() remit.Standing {
	at := sampleTime
	return remit.Standing{
		Credential: "crd_1", System: "sys_1", Ref: remit.Ref{Kind: "Secret", Namespace: "ci", Name: "runner"}, Key: "token", Type: remit.StaticToken,
		Identity: "idn_1", Holder: remit.Ref{Kind: "ServiceAccount", Namespace: "ci", Name: "runner"}, Owner: "alice@example.com",
		At: at, Policy: "tokens", State: remit.LifecycleInGrace, Start: at.AddDate(0, 0, -100), LastUsed: at.AddDate(0, 0, -40), UsesKnown: at,
		NeverExpires: true, Age: 100 * 86400, Idle: 40 * 86400,
		Demands: []remit.LifecycleDemand{
			{Demand: "max_age", State: remit.LifecycleInGrace, Words: "may be at most 90 days old", Due: at.AddDate(0, 0, -10), Ends: at.AddDate(0, 0, 4)},
			{Demand: "max_idle", State: remit.LifecycleUnknown, Words: "may be unused for at most 30 days; when it was last used is not known"},
		},
		Next:     remit.LifecycleStep{Step: "revoke", At: at.AddDate(0, 0, 4)},
		Response: "rsp_1", ResponseAction: remit.Rotate, ResponseState: remit.ResponseProposed,
	}
}

// TestStandings holds what a person is told: how many are in which state, what comes
// next for each and when, what is under way, and what each is measured by.
func TestStandings(t *testing.T) {
	now := sampleStanding()
	now.Name, now.State, now.Owner, now.Response = "late", remit.LifecycleOverdue, "", ""
	now.Next.At = sampleTime.AddDate(0, 0, -3)
	foreign := remit.Standing{Ref: remit.Ref{Kind: "Secret", Name: "foreign"}, At: sampleTime, State: remit.LifecycleNoPolicy}
	counts := LifecycleCount{remit.LifecycleOverdue: 1, remit.LifecycleInGrace: 1, remit.LifecycleNoPolicy: 1000}
	write := func(o TableOptions) string {
		t.Helper()
		var b bytes.Buffer
		if err := WriteStandings(&b, counts, 1002, Records([]remit.Standing{now, sampleStanding(), foreign}), o); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	list := write(TableOptions{})
	for _, want := range []string{
		"1,002 credentials · 1 overdue · 1 in grace · 1,000 without a policy\n\nCREDENTIAL ",
		"revoke now, since " + day(now.Next.At),
		"revoke " + day(sampleStanding().Next.At) + " (in 4 days) (rotate proposed, rsp_1)",
		"3 months", "40 days", "nobody", "not known  no policy",
	} {
		if !strings.Contains(list, want) {
			t.Errorf("%q is not in\n%s", want, list)
		}
	}
	for _, want := range []string{"tokens: it may be at most 90 days old, due ", "grace until ", "never expires", "when it was last used is not known"} {
		if full := write(TableOptions{Verbose: true}); !strings.Contains(strings.Join(strings.Fields(full), " "), want) {
			t.Errorf("%q is not in\n%s", want, full)
		}
	}
}
