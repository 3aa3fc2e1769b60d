package connectortest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fastjson"
	"pgregory.net/rapid"

	"remit"
	"remit/connector"
)

// LogAPI is an API of audit events that a test stands in for, written from the
// system's documentation. It is used by one request at a time. Answers have the
// Date of the test's own clock.
type LogAPI interface {
	http.Handler

	// Add makes an event visible from now on. id is the ID that the decoder
	// reads; at is its time, now the time at which it appears.
	Add(id string, at, now time.Time)

	// PageSize says how many events the API gives at most in one page, however
	// many are asked for.
	PageSize(n int)

	// Expire makes the API forget the cursors that it has given so far. It
	// does nothing where cursors do not expire.
	Expire()
}

// PollSuite says what [Poll] runs.
type PollSuite struct {
	Decoder connector.Decoder

	// API returns an API without events; each has a base address of its own.
	API func() LogAPI

	// Poller returns a poller of the API at an address; tokenFile holds its
	// token.
	Poller func(url, tokenFile string) (connector.Poller, error)

	// Token returns the token that a request shows; nil where a request does
	// not show it, and the suite cannot check it.
	Token func(r *http.Request) string

	// Login makes the content of the file from a token; nil where it is the
	// token alone.
	Login func(token string) string

	// Late is how long after its time an event may appear: less than the
	// poller looks back.
	Late time.Duration

	// Resolution is how exactly events are handed out in the order of their
	// times; 0 means in the order in which they appeared.
	Resolution time.Duration
}

// Poll holds a poller to the contract of [connector.Poller]: every event is
// handed out at least once and as its decoder expects it, whatever the system
// and emit do in between; in order; errors have their kind and no token; and
// any position it ever returned can be gone on from.
func Poll(t *testing.T, s PollSuite) {
	t.Run("identity", s.identity)
	t.Run("errors", s.errors)
	t.Run("positions", s.positions)
	t.Run("rotation", s.rotation)
	t.Run("late", s.late)
	t.Run("interleavings", func(t *testing.T) {
		dir := t.TempDir()
		rapid.Check(t, func(rt *rapid.T) {
			b := s.bench(rt, dir)
			defer b.close()
			b.interleave(rt)
		})
	})
}

// failer is what testing.T and rapid.T share.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// pollBench is one API with one poller.
type pollBench struct {
	PollSuite
	t      failer
	api    LogAPI
	server *httptest.Server
	poller connector.Poller
	file   string

	mu     sync.Mutex
	token  string
	now    time.Time
	faults []pollFault
	asked  int

	events   map[string]pollEvent // visible, by ID
	position []byte
	since    time.Time
	got      map[string]bool // handed out on the way to position
	complete int             // how many events there were when the last round ended there
	expired  bool            // since the last poll
}

type pollEvent struct {
	at     time.Time
	number int
	late   bool
}

// A pollFault is what happens to one request in the place of its answer.
type pollFault struct {
	status int // 0: nothing happens to it
	header http.Header
	body   string
	torn   bool // half of the answer
}

var errEmit = errors.New("emit does not take it")

func (s PollSuite) bench(t failer, dir string) *pollBench {
	t.Helper()
	b := &pollBench{
		PollSuite: s, t: t, api: s.API(), file: filepath.Join(dir, "token"),
		now: time.Now().UTC().Truncate(time.Minute).Add(-6 * time.Hour), events: map[string]pollEvent{}, got: map[string]bool{},
	}
	b.since = b.now.Add(-s.Late - time.Minute)
	b.rotate()
	b.server = httptest.NewUnstartedServer(b)
	b.server.Config.ErrorLog = log.New(io.Discard, "", 0) // torn answers
	b.server.Start()
	var err error
	if b.poller, err = s.Poller(b.server.URL, b.file); err != nil {
		b.server.Close()
		t.Fatalf("%v", err)
	}
	return b
}

func (b *pollBench) close() { b.server.Close() }

// rotate gives a new token, which alone is accepted from then on.
func (b *pollBench) rotate() {
	token := rand.Text()
	content := token + "\n"
	if b.Login != nil {
		content = b.Login(token)
	}
	if err := os.WriteFile(b.file, []byte(content), 0o600); err != nil {
		b.t.Fatalf("%v", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.token = token
}

func (b *pollBench) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	w.Header().Set("Date", b.now.Format(http.TimeFormat))
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "a poller only reads", http.StatusMethodNotAllowed)
		return
	}
	if b.Token != nil && b.Token(r) != b.token {
		http.Error(w, `{"message":"not this token"}`, http.StatusUnauthorized)
		return
	}
	var f pollFault
	if len(b.faults) > 0 {
		f, b.faults = b.faults[0], b.faults[1:]
	}
	if f.status == 0 && !f.torn {
		b.api.ServeHTTP(w, r)
		return
	}
	if f.torn {
		answer := httptest.NewRecorder()
		b.api.ServeHTTP(answer, r)
		maps.Copy(w.Header(), answer.Header())
		w.Header().Set("Content-Length", strconv.Itoa(max(answer.Body.Len(), 2)))
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes()[:answer.Body.Len()/2])
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), f.header)
	w.WriteHeader(f.status)
	body := f.body
	if body == "" { // as bad as it gets: the system repeats the token
		message := fmt.Sprintf("Bad request with token %s (%s…), try https://example.org/?t=%s", b.token, b.token[:10], b.token)
		text, _ := json.Marshal(message)
		body = fmt.Sprintf(`{"message":%s,"errorSummary":%s,"error":{"message":%s}}`, text, text, text)
	}
	_, _ = io.WriteString(w, body)
}

// add makes an event visible, late by that much.
func (b *pollBench) add(late time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addLocked(late)
}

func (b *pollBench) addLocked(late time.Duration) {
	n := len(b.events) + 1
	e := pollEvent{at: b.now.Add(-late), number: n, late: late > 0}
	id := fmt.Sprintf("audit_log-%d", n) // OpenAI's are known by their beginning
	b.events[id] = e
	b.api.Add(id, e.at, b.now)
}

func (b *pollBench) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

func (b *pollBench) fail(faults ...pollFault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = faults
}

// poll polls once; the emitFails'th call of emit fails, none when it is 0, and
// during events appear while the first is being taken. It returns how many
// events were handed out.
func (b *pollBench) poll(emitFails, during int) (handed int, more bool, err error) {
	b.t.Helper()
	visible := slices.Collect(maps.Keys(b.events))
	calls := 0
	var last pollEvent
	next, more, err := b.poller.Poll(context.Background(), b.position, b.since, func(raw []byte) error {
		calls++
		for ; during > 0; during-- {
			b.add(0)
		}
		if calls == emitFails {
			return errEmit
		}
		for id, at := range b.decode(raw) {
			e, ok := b.events[id]
			if !ok {
				b.t.Fatalf("%s was handed out and never happened", id)
			}
			if !at.Equal(e.at) {
				b.t.Fatalf("%s is decoded with the time %v, not %v", id, at, e.at)
			}
			handed++
			b.got[id] = true
		}
		for _, id := range b.order(raw) {
			e := b.events[id]
			out := last.number > e.number
			if b.Resolution > 0 {
				out = last.at.Truncate(b.Resolution).After(e.at.Truncate(b.Resolution))
			}
			if out && !b.expired {
				b.t.Fatalf("%s (%v) was handed out behind one of %v", id, e.at, last.at)
			}
			last = e
		}
		clear(raw) // is Poll's again, and no longer of use
		return nil
	})
	b.expired = false
	b.position = bytes.Clone(next)
	if err != nil {
		if more {
			b.t.Fatalf("more together with an error: %v", err)
		}
		b.clean(err)
	} else if !more {
		for _, id := range visible {
			// A late event may have come behind a round that lasted over
			// several polls; the next one must have it.
			if e := b.events[id]; !b.got[id] && !(e.late && e.number > b.complete) {
				b.t.Fatalf("there is no more to read, and %s (%v) was not handed out; the position is %s", id, e.at, b.position)
			}
		}
		b.complete = len(visible)
	}
	return handed, more, err
}

// decode returns the times of the events in a document by their IDs.
func (b *pollBench) decode(raw []byte) map[string]time.Time {
	out := map[string]time.Time{}
	for _, e := range b.decoded(raw) {
		out[e.ID] = e.Time
	}
	return out
}

func (b *pollBench) order(raw []byte) (ids []string) {
	for _, e := range b.decoded(raw) {
		ids = append(ids, e.ID)
	}
	return ids
}

func (b *pollBench) decoded(raw []byte) (events []connector.Event) {
	b.t.Helper()
	v, err := fastjson.ParseBytes(raw)
	if err != nil {
		b.t.Fatalf("%v in what was handed out: %s", err, raw)
	}
	if !b.Decoder.Recognizes(v) {
		b.t.Fatalf("the decoder does not recognize %s", raw)
	}
	var in connector.Interner
	for _, one := range b.Decoder.Split(v) {
		var e connector.Event
		if err := b.Decoder.Decode(one, &in, &e); err != nil {
			b.t.Fatalf("%v: %s", err, raw)
		}
		events = append(events, e)
	}
	return events
}

// clean fails when an error tells the token, or much of it.
func (b *pollBench) clean(err error) {
	b.t.Helper()
	const piece = 8
	text := fmt.Sprintf("%v %+v", err, err)
	for i := 0; i+piece <= len(b.token); i++ {
		if strings.Contains(text, b.token[i:i+piece]) {
			b.t.Fatalf("the error tells of the token: %v", err)
		}
	}
}

// drain polls until there is no more, and then until nothing is handed out.
func (b *pollBench) drain() {
	b.t.Helper()
	b.fail()
	ends := 0
	for range 10_000 {
		_, more, err := b.poll(0, 0)
		if err != nil {
			b.t.Fatalf("%v", err)
		}
		if !more {
			ends++
		}
		if ends == 2 { // the second round has what came late in the first
			return
		}
	}
	b.t.Fatalf("there is more without end; the position is %s", b.position)
}

// idle fails when events are handed out again and again while none come.
func (b *pollBench) idle() {
	b.t.Helper()
	b.drain()
	before := bytes.Clone(b.position)
	if n, _, err := b.poll(0, 0); n > 0 || err != nil {
		b.t.Fatalf("%d events were handed out again behind %s: %v", n, before, err)
	}
}

// interleave does things in any order, and at the end nothing may be missing.
func (b *pollBench) interleave(t *rapid.T) {
	type saved struct {
		position []byte
		got      map[string]bool
		complete int
	}
	var all []saved
	seconds := rapid.SampledFrom([]int{0, 0, 0, 1, 1, 7, 60, 90, 3600})
	retry := http.Header{"Retry-After": {"7"}}
	t.Repeat(map[string]func(*rapid.T){
		"add": func(t *rapid.T) {
			for range rapid.IntRange(1, 12).Draw(t, "events") {
				b.pass(time.Duration(seconds.Draw(t, "seconds")) * time.Second)
				var late time.Duration
				if b.Late > 0 && rapid.Bool().Draw(t, "late") {
					tenths := rapid.SampledFrom([]time.Duration{10, 9, 6, 3, 1, 0}).Draw(t, "tenths")
					late = (b.Late * tenths / 10).Truncate(time.Second)
				}
				b.add(late)
			}
		},
		"page": func(t *rapid.T) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.api.PageSize(rapid.IntRange(1, 20).Draw(t, "size"))
		},
		"fault": func(t *rapid.T) {
			faults := make([]pollFault, rapid.IntRange(0, 3).Draw(t, "before"), 4)
			// as many requests work before it
			b.fault(faults, rapid.SampledFrom([]pollFault{
				{status: 500},
				{status: 502, body: "<html>"},
				{status: 503, header: retry},
				{status: 429, header: retry},
				{status: 200, body: "<html>no"},
				{torn: true},
			}).Draw(t, "fault"))
		},
		"expire": func(*rapid.T) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.api.Expire()
			b.expired = true
		},
		"poll": func(t *rapid.T) {
			_, _, err := b.poll(rapid.IntRange(0, 3).Draw(t, "emit fails"), rapid.IntRange(0, 2).Draw(t, "during"))
			if err != nil && !errors.Is(err, errEmit) && remit.KindOf(err) != remit.Unavailable {
				t.Fatalf("an error of the kind %q: %v", remit.KindOf(err), err)
			}
			all = append(all, saved{b.position, maps.Clone(b.got), b.complete})
		},
		"restart": func(t *rapid.T) {
			if len(all) == 0 {
				return
			}
			from := all[rapid.IntRange(0, len(all)-1).Draw(t, "position")]
			b.position, b.got = bytes.Clone(from.position), maps.Clone(from.got)
			b.complete = from.complete
		},
	})
	b.idle()
}

// fault lets as many requests through as there are in pass, and then fails.
func (b *pollBench) fault(pass []pollFault, f pollFault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = append(pass, f)
}

func (s PollSuite) identity(t *testing.T) {
	b := s.bench(t, t.TempDir())
	defer b.close()
	if b.poller.Native() == "" {
		t.Error("the poller does not name its system")
	}
	if b.poller.Source() != s.Decoder.Source() {
		t.Errorf("the poller's source is %v, the decoder's %v", b.poller.Source(), s.Decoder.Source())
	}
	// Nothing yet, then something.
	if n, more, err := b.poll(0, 0); n != 0 || more || err != nil {
		t.Fatalf("of an empty log: %d events, more %v, %v", n, more, err)
	}
	b.add(0)
	if n, more, err := b.poll(0, 0); n != 1 || more || err != nil {
		t.Fatalf("of one event: %d events, more %v, %v", n, more, err)
	}
}

func (s PollSuite) errors(t *testing.T) {
	reset := strconv.FormatInt(time.Now().Add(-6*time.Hour).Add(90*time.Second).Unix(), 10)
	for name, test := range map[string]struct {
		fault pollFault
		kind  remit.ErrorKind
		after time.Duration // at least; 0: no RetryLater
	}{
		"401":          {pollFault{status: 401}, remit.Unauthorized, 0},
		"403":          {pollFault{status: 403}, remit.Forbidden, 0},
		"429":          {pollFault{status: 429, header: http.Header{"Retry-After": {"7"}}}, remit.Unavailable, 7 * time.Second},
		"429 bare":     {pollFault{status: 429}, remit.Unavailable, time.Second},
		"429 nonsense": {pollFault{status: 429, header: http.Header{"Retry-After": {"-1"}, "X-Ratelimit-Reset": {reset + "0000000"}}}, remit.Unavailable, time.Second},
		"500":          {pollFault{status: 500}, remit.Unavailable, time.Second},
		"503":          {pollFault{status: 503, header: http.Header{"Retry-After": {"7"}}}, remit.Unavailable, time.Second},
		"torn":         {pollFault{torn: true}, remit.Unavailable, 0},
		"no answer":    {pollFault{status: 200, body: "<html>"}, remit.Unavailable, 0},
		"other JSON":   {pollFault{status: 200, body: `{"data":1}`}, remit.Unavailable, 0},
		"deep JSON":    {pollFault{status: 200, body: strings.Repeat("[", 1<<20)}, remit.Unavailable, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := s.bench(t, t.TempDir())
			defer b.close()
			for range 3 {
				b.add(0)
			}
			b.fail(test.fault)
			_, _, err := b.poll(0, 0)
			if remit.KindOf(err) != test.kind {
				t.Fatalf("the kind is %q, not %q: %v", remit.KindOf(err), test.kind, err)
			}
			var later *connector.RetryLater
			if errors.As(err, &later) != (test.after > 0) || later != nil && (later.After < test.after || later.After > time.Hour) {
				t.Fatalf("asked to wait: %+v", later)
			}
			b.idle()
		})
	}
	t.Run("no server", func(t *testing.T) {
		b := s.bench(t, t.TempDir())
		b.close()
		if _, _, err := b.poll(0, 0); remit.KindOf(err) != remit.Unavailable {
			t.Fatalf("%v", err)
		}
	})
	t.Run("no token", func(t *testing.T) {
		b := s.bench(t, t.TempDir())
		defer b.close()
		for _, content := range []string{"", " \n", strings.Repeat("x", 100_000), "two tokens", "nul\x00"} {
			if err := os.WriteFile(b.file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, _, err := b.poll(0, 0); remit.KindOf(err) != remit.Unauthorized {
				t.Errorf("%q: %v", content[:min(len(content), 10)], err)
			}
		}
		if err := os.Remove(b.file); err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.poll(0, 0); remit.KindOf(err) != remit.Unauthorized {
			t.Error(err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		b := s.bench(t, t.TempDir())
		defer b.close()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, _, err := b.poller.Poll(ctx, nil, b.since, func([]byte) error { return nil })
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func (s PollSuite) positions(t *testing.T) {
	b := s.bench(t, t.TempDir())
	defer b.close()
	b.add(0)
	b.drain()
	good := bytes.Clone(b.position)
	for _, bad := range []string{
		"x", "{}", "null", "[]", `""`, "1", `{"other":1}`, "\x00", string(good) + "x", string(good[:len(good)-1]), string(good) + string(good),
		strings.Repeat("[", 100_000),
	} {
		next, more, err := b.poller.Poll(t.Context(), []byte(bad), b.since, func([]byte) error { return nil })
		if remit.KindOf(err) != remit.Invalid || more || string(next) != bad {
			t.Errorf("%.40q: %q, %v, %v", bad, next, more, err)
		}
	}
}

func (s PollSuite) rotation(t *testing.T) {
	if s.Token == nil {
		t.Skip("a request does not show its token")
	}
	b := s.bench(t, t.TempDir())
	defer b.close()
	for range 3 {
		b.add(0)
		b.drain()
		b.rotate()
	}
}

// late has an event appear behind where a long round has come, as late as may
// be, and the round go on for hours after it.
func (s PollSuite) late(t *testing.T) {
	b := s.bench(t, t.TempDir())
	defer b.close()
	b.api.PageSize(2)
	const events = 24
	for range events {
		b.pass(s.Late / (events / 2))
		b.add(0)
	}
	for range 10_000 {
		if len(b.got) > events/2+1 { // the late one will be at the middle
			break
		}
		if _, _, err := b.poll(0, 0); err != nil {
			t.Fatal(err)
		}
	}
	b.add(s.Late)
	for range events {
		b.pass(time.Hour / events * 3)
		b.add(0)
	}
	b.idle()
}
