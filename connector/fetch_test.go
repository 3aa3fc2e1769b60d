package connector

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"remit"
)

func TestNextLink(t *testing.T) {
	for _, test := range []struct {
		links []string
		after string // "-": none
		wrong bool
	}{
		{nil, "-", false},
		{[]string{`<https://a.example/?after=1>; rel="next"`}, "1", false},
		{[]string{`<https://a.example/?after=1>;rel=next`}, "1", false},
		{[]string{`<https://a.example/?after=1>; title="x"; REL="prev NEXT"`}, "1", false},
		{[]string{`<https://a.example/?before=0>; rel="prev", <https://a.example/?after=a%7Cb%3D>; rel="next"`}, "a|b=", false},
		{[]string{`<https://a.example/?after=0>; rel="self"`, `<https://a.example/?after=1>; rel="next"`}, "1", false},
		{[]string{`<https://a.example/?after=0>; rel="nextish"`}, "-", false},
		{[]string{`<https://a.example/?after=0>`, ``, `,`, `;`, `rel="next"`}, "-", false},
		{[]string{`<https://a.example/?after=1`}, "", true},
		{[]string{`<:>; rel="next"`}, "", true},
		{[]string{`<?%zz>; rel="next"`}, "", true},
	} {
		query, err := NextLink(http.Header{"Link": test.links})
		if (err != nil) != test.wrong {
			t.Errorf("%q: %v", test.links, err)
		} else if got := query.Get("after"); err == nil && (query == nil) != (test.after == "-") || query != nil && got != test.after {
			t.Errorf("%q: %q", test.links, query)
		}
	}
}

func FuzzNextLink(f *testing.F) {
	f.Add(`<https://a.example/?before=0>; rel="prev", <https://a.example/?after=1>; rel="next"`)
	f.Fuzz(func(_ *testing.T, link string) {
		_, _ = NextLink(http.Header{"Link": {link, link}})
	})
}

// FuzzSays looks for the token in what is told of an error.
func FuzzSays(f *testing.F) {
	const token = "sk-admin-0123456789abcdefghij"
	f.Add([]byte(`{"error":{"message":"Incorrect API key provided: sk-admin-********ghij"}}`))
	f.Add([]byte(`{"message":"Bearer sk-admin-0123456789abcdefghij is wrong\n"}`))
	f.Add([]byte(`{"errorSummary":"` + strings.Repeat("e", 2000) + `"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		said := says(body, token)
		if sharesPiece(said, token) || len([]rune(said)) > 301 {
			t.Errorf("%q", said)
		}
	})
}

func fetcher(t *testing.T, handler http.HandlerFunc, set func(*FetchOptions)) *Fetcher {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("a-token-of-some-length\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := FetchOptions{
		Op: "test", BaseURL: server.URL + "/base/", TokenFile: file, Right: "the right",
		Authorize: func(h http.Header, token string) { h.Set("X-Api-Key", token) },
	}
	if set != nil {
		set(&o)
	}
	f, err := NewFetcher(o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFetchAsks(t *testing.T) {
	f := fetcher(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Api-Key") != "a-token-of-some-length" || r.URL.String() != "/base/path?q=a+b" {
			t.Errorf("%v %v", r.URL, r.Header)
		}
		_, _ = w.Write([]byte(`[1]`))
	}, nil)
	answer, err := f.Get(t.Context(), "/path", url.Values{"q": {"a b"}})
	if err != nil || string(answer.JSON) != "[1]" || answer.Status != 200 || time.Since(answer.Date()) > time.Minute {
		t.Errorf("%+v %v", answer, err)
	}
}

// A token must reach nobody but the host that the user named.
func TestFetchDoesNotFollowElsewhere(t *testing.T) {
	var asked bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer elsewhere.Close()
	f := fetcher(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusMovedPermanently)
	}, nil)
	if _, err := f.Get(t.Context(), "/", nil); remit.KindOf(err) != remit.Unavailable || asked {
		t.Errorf("asked there: %v, %v", asked, err)
	}
	f = fetcher(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/base/old" {
			http.Redirect(w, r, "/base/new", http.StatusMovedPermanently)
			return
		}
		_, _ = w.Write([]byte(`{}`))
	}, nil)
	if _, err := f.Get(t.Context(), "/old", nil); err != nil {
		t.Error(err)
	}
	f = fetcher(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, nil)
	if _, err := f.Get(t.Context(), "/", nil); remit.KindOf(err) != remit.Unavailable {
		t.Error(err)
	}
}

func TestFetchIsBounded(t *testing.T) {
	f := fetcher(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`"` + strings.Repeat("x", 1000) + `"`))
	}, func(o *FetchOptions) { o.MaxBody = 100 })
	if _, err := f.Get(t.Context(), "/", nil); remit.KindOf(err) != remit.Unavailable {
		t.Error(err)
	}
	release := make(chan struct{})
	f = fetcher(t, func(http.ResponseWriter, *http.Request) { <-release }, func(o *FetchOptions) { o.Timeout = 20 * time.Millisecond })
	_, err := f.Get(t.Context(), "/", nil)
	close(release)
	if remit.KindOf(err) != remit.Unavailable {
		t.Error(err)
	}
}

func TestFetchWaits(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	date := now.UTC().Format(http.TimeFormat)
	for _, test := range []struct {
		status int
		header map[string]string
		want   time.Duration
	}{
		{429, map[string]string{"Retry-After": "120"}, 2 * time.Minute},
		{429, map[string]string{"Retry-After": now.Add(90 * time.Second).UTC().Format(http.TimeFormat)}, 90 * time.Second},
		{429, map[string]string{"Retry-After": "99999999"}, time.Hour},
		{429, map[string]string{"Retry-After": "soon"}, time.Minute},
		{429, map[string]string{"X-Rate-Limit-Reset": unix(now.Add(45 * time.Second))}, 45 * time.Second},
		{403, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": unix(now.Add(45 * time.Second))}, 45 * time.Second},
		{403, map[string]string{"Retry-After": "60"}, time.Minute},
		{403, nil, time.Minute}, // by its message
		{503, nil, 30 * time.Second},
		{503, map[string]string{"Retry-After": "0"}, time.Second},
	} {
		f := fetcher(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", date)
			for name, value := range test.header {
				w.Header().Set(name, value)
			}
			w.WriteHeader(test.status)
			_, _ = w.Write([]byte(`{"message":"You have exceeded a secondary rate limit."}`))
		}, nil)
		_, err := f.Get(t.Context(), "/", nil)
		var later *RetryLater
		if remit.KindOf(err) != remit.Unavailable || !errors.As(err, &later) || later.After != test.want {
			t.Errorf("%d %v: %+v", test.status, test.header, later)
		}
	}
}

func unix(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

func TestFetchNames(t *testing.T) {
	f := fetcher(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"error":{"message":"Missing scopes: api.audit_logs.read"}}`))
	}, nil)
	_, err := f.Get(t.Context(), "/", nil)
	if remit.KindOf(err) != remit.Forbidden || !strings.Contains(err.Error(), "the right: Missing scopes: api.audit_logs.read") {
		t.Error(err)
	}
}

func TestHandedForgetsTheOldest(t *testing.T) {
	var r Round
	var events []RawEvent
	begin := time.Unix(1_700_000_000, 0)
	for i := range 3 * handedMost {
		events = append(events, RawEvent{Time: begin.Add(time.Duration(i) * time.Second), JSON: []byte(strconv.Itoa(i))})
	}
	var taken int
	count := func(raw []byte) error {
		values, ok := SplitArray(raw)
		if !ok {
			t.Errorf("%q", raw)
		}
		taken += len(values)
		return nil
	}
	if err := r.Emit(events, count); err != nil || taken != len(events) {
		t.Fatal(taken, err)
	}
	var again Round
	if err := ReadPosition("test", WritePosition(r), &again); err != nil {
		t.Fatal(err)
	}
	taken = 0
	if err := again.Emit(events, count); err != nil || taken != len(events)-handedMost {
		t.Errorf("%d events of %d a second time: %v", taken, len(events), err)
	}
}
