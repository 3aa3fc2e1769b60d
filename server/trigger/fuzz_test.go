package trigger

import (
	"strings"
	"testing"
	"unicode"

	"remit"
)

// FuzzReport holds that no document makes the reader panic, that what is accepted
// is within the bounds, and that errors say nothing that stands in the document.
func FuzzReport(f *testing.F) {
	const planted = "sk_live_51H8xQ2eZvKYlo2C9aBcDeFgHiJkLmNoPqRs"
	for _, seed := range []string{
		`{"subject":"a","reason":"b","severity":"low","links":["https://x"],"resolved":false}`, `{"subject":"` + planted + `"}`,
		`{"` + planted + `":1}`, `{"subject":{"a":"` + planted + `"}}`, `{"subject":"a","reason":"b"} trailing`, `null`, `[`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		q, err := decodeReport(text)
		if err != nil {
			if remit.KindOf(err) != remit.Invalid || strings.Contains(err.Error(), planted) || len(err.Error()) > 200 {
				t.Errorf("%v", err)
			}
			return
		}
		if q.Subject == "" || len(q.Subject) > maxSubject || len(q.Reason) > maxReason || len(q.Links) > maxLinks ||
			q.Reason == "" && !q.Resolved || strings.ContainsFunc(q.Subject+q.Reason+q.Source, unicode.IsControl) {
			t.Errorf("accepted: %+v", q)
		}
	})
}
