package connector

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/valyala/fastjson"

	"remit"
)

// Fetcher asks an HTTP API for pages of JSON. Its errors have the kinds that
// [Poller] promises and never contain the token. It is safe for concurrent use.
type Fetcher struct {
	op        string
	base      *url.URL
	tokenFile string
	authorize func(h http.Header, token string)
	right     string
	client    *http.Client
	maxBody   int64
}

// FetchOptions say what a [Fetcher] asks, and as whom.
type FetchOptions struct {
	// Op begins its errors: "poll the audit log of acme".
	Op string

	// BaseURL is the API's address: https, or http to this machine only, for
	// a token must not cross a network in the clear.
	BaseURL string

	// TokenFile holds the token and nothing else; space around it does not
	// count. It is read at every request, so that a rotated token is taken up
	// without a restart.
	TokenFile string

	// Authorize puts the token, and what the API wants beside it, into the
	// header of a request.
	Authorize func(h http.Header, token string)

	// Right is what the token must be allowed, in the system's own words, for
	// the error of a request that is refused.
	Right string

	// Timeout is for one request with its answer; a minute when it is 0.
	Timeout time.Duration

	// MaxBody is how many bytes an answer may have; 64 MiB when it is 0.
	MaxBody int64
}

const (
	fetchTimeout   = time.Minute
	fetchBody      = 64 << 20
	fetchErrorBody = 64 << 10
	fetchRedirects = 3
	tokenBytes     = 16 << 10

	// How long to wait when a system asks for it without saying how long, and
	// the longest that is believed.
	waitLimited = time.Minute
	waitBroken  = 30 * time.Second
	waitLongest = time.Hour
)

// fetchTransport is shared, and so are its connections. It differs from the
// default one in that no system may keep a request waiting for its header.
var fetchTransport = func() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = fetchTimeout
	t.MaxIdleConnsPerHost = 2
	return t
}()

// NewFetcher checks the options; it asks nothing yet and does not read the
// token. Errors are [remit.Invalid].
func NewFetcher(o FetchOptions) (*Fetcher, error) {
	base, err := url.Parse(strings.TrimRight(o.BaseURL, "/"))
	if err != nil || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		return nil, remit.Errorf(remit.Invalid, o.Op, "the address is not one of an API: give https://HOST, with a path if there is one and without a query")
	}
	if base.Scheme != "https" && (base.Scheme != "http" || !isLoopback(base.Hostname())) {
		return nil, remit.Errorf(remit.Invalid, o.Op, "the address %s does not begin with https://: the token would be readable on the way", base.Redacted())
	}
	if o.TokenFile == "" {
		return nil, remit.Errorf(remit.Invalid, o.Op, "no file with the token is named")
	}
	if o.Timeout == 0 {
		o.Timeout = fetchTimeout
	}
	if o.MaxBody == 0 {
		o.MaxBody = fetchBody
	}
	return &Fetcher{
		op: o.Op, base: base, tokenFile: o.TokenFile, authorize: o.Authorize, right: o.Right, maxBody: o.MaxBody,
		client: &http.Client{Transport: fetchTransport, Timeout: o.Timeout, CheckRedirect: sameHost},
	}, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// sameHost follows a redirect (of an organization that was renamed) only to
// where the token was going anyway.
func sameHost(r *http.Request, via []*http.Request) error {
	if first := via[0].URL; r.URL.Scheme != first.Scheme || r.URL.Host != first.Host {
		return errors.New("it redirects to another address, which is not followed with a token")
	}
	if len(via) > fetchRedirects {
		return errors.New("it redirects without end")
	}
	return nil
}

// Answer is what a system answered to one request.
type Answer struct {
	// Status is that of HTTP, also of an answer that became an error; 0 when
	// there was none.
	Status int
	Header http.Header
	// JSON is the body, which has been parsed once: it is one whole value.
	JSON []byte
}

// Date returns when the system made the answer, by its own clock; without
// that, by ours.
func (a *Answer) Date() time.Time {
	if t, err := http.ParseTime(a.Header.Get("Date")); err == nil {
		return t
	}
	return time.Now().UTC().Truncate(time.Second)
}

// Get asks for a path below the base address. Of an answer that is no success
// the Answer still tells the status, with which an API refuses a cursor that it
// no longer knows. Errors: [remit.Unauthorized] for 401 and a token that cannot
// be read; [remit.Forbidden] for 403; [RetryLater] for 429, for 5xx, and for
// 403 where it means a limit; [remit.Unavailable] when there is no whole
// answer; [remit.NotFound] for 404 and 410; [remit.Invalid] for what else is
// no success.
func (f *Fetcher) Get(ctx context.Context, path string, query url.Values) (*Answer, error) {
	answer := &Answer{}
	token, err := f.token()
	if err != nil {
		return answer, err
	}
	target := *f.base
	target.Path = f.base.Path + path
	target.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return answer, remit.Errorf(remit.Invalid, f.op, "%s is no address", path)
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "remit")
	f.authorize(request.Header, token)
	response, err := f.client.Do(request)
	if err != nil {
		return answer, f.unavailable(ctx, err)
	}
	defer response.Body.Close()
	answer.Status, answer.Header = response.StatusCode, response.Header
	if response.StatusCode != http.StatusOK {
		// What was said of the error helps, but need not be whole.
		body, _ := io.ReadAll(io.LimitReader(response.Body, fetchErrorBody))
		return answer, f.refused(answer, says(body, token))
	}
	// A body that is longer than the limit is not worth reading to its end.
	answer.JSON, err = io.ReadAll(io.LimitReader(response.Body, f.maxBody+1))
	if err != nil {
		return answer, f.unavailable(ctx, err)
	}
	if int64(len(answer.JSON)) > f.maxBody {
		return answer, remit.Errorf(remit.Unavailable, f.op, "the answer has more than %d bytes", f.maxBody)
	}
	if !json.Valid(answer.JSON) {
		return answer, remit.Errorf(remit.Unavailable, f.op, "the answer is no whole JSON: something between here and %s may have made it", f.base.Host)
	}
	return answer, nil
}

// token reads the token. The error tells of the file, never of what is in it.
func (f *Fetcher) token() (string, error) {
	file, err := os.Open(f.tokenFile)
	if err != nil {
		return "", remit.Errorf(remit.Unauthorized, f.op, "read the token: %w", err)
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, tokenBytes+1))
	if err != nil {
		return "", remit.Errorf(remit.Unauthorized, f.op, "read the token: %w", err)
	}
	token := bytes.TrimSpace(b)
	usable := len(token) > 0 && len(b) <= tokenBytes
	for _, c := range token {
		usable = usable && ' ' < c && c < 0x7f
	}
	if !usable {
		return "", remit.Errorf(remit.Unauthorized, f.op, "the file %s does not hold a token and nothing else", f.tokenFile)
	}
	return string(token), nil
}

// unavailable is for a request that was not answered whole.
func (f *Fetcher) unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return remit.Errorf(remit.Unavailable, f.op, "%w", context.Cause(ctx))
	}
	// An url.Error repeats the address with its query, which is long and
	// tells nothing.
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return remit.Errorf(remit.Unavailable, f.op, "%s: %w", f.base.Host, err)
}

// refused is the error for an answer that is no success. said is what the
// system told about it.
func (f *Fetcher) refused(answer *Answer, said string) error {
	if said != "" {
		said = ": " + said
	}
	status := answer.Status
	switch {
	case status == http.StatusUnauthorized:
		return remit.Errorf(remit.Unauthorized, f.op, "%s does not accept the token in %s (it needs: %s)%s", f.base.Host, f.tokenFile, f.right, said)
	case status == http.StatusTooManyRequests,
		status == http.StatusForbidden && limited(answer.Header, said):
		return &RetryLater{
			Err:   remit.Errorf(remit.Unavailable, f.op, "%s asks to wait (HTTP %d)%s", f.base.Host, status, said),
			After: after(answer, waitLimited),
		}
	case status == http.StatusForbidden:
		return remit.Errorf(remit.Forbidden, f.op, "the token in %s is not allowed to: it needs %s%s", f.tokenFile, f.right, said)
	case status >= 500:
		return &RetryLater{
			Err:   remit.Errorf(remit.Unavailable, f.op, "%s does not work at the moment (HTTP %d)%s", f.base.Host, status, said),
			After: after(answer, waitBroken),
		}
	case status == http.StatusNotFound, status == http.StatusGone:
		return remit.Errorf(remit.NotFound, f.op, "%s answers HTTP %d%s", f.base.Host, status, said)
	}
	return remit.Errorf(remit.Invalid, f.op, "%s answers HTTP %d%s", f.base.Host, status, said)
}

// limited says whether a 403 means that too much was asked, as GitHub has it:
// https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
func limited(h http.Header, said string) bool {
	return h.Get("Retry-After") != "" || h.Get("X-RateLimit-Remaining") == "0" || h.Get("X-Rate-Limit-Remaining") == "0" ||
		strings.Contains(strings.ToLower(said), "rate limit")
}

// after returns how long to wait: Retry-After in seconds or as a date (RFC
// 9110, section 10.2.3), else when the limit is renewed, in seconds since 1970,
// which GitHub and Okta say in headers of nearly the same name.
func after(answer *Answer, otherwise time.Duration) time.Duration {
	wait := otherwise
	now := answer.Date()
	if said := answer.Header.Get("Retry-After"); said != "" {
		if seconds, err := strconv.ParseUint(said, 10, 31); err == nil {
			wait = time.Duration(seconds) * time.Second
		} else if at, err := http.ParseTime(said); err == nil {
			wait = at.Sub(now)
		}
	} else {
		for _, name := range [...]string{"X-RateLimit-Reset", "X-Rate-Limit-Reset"} {
			if unix, err := strconv.ParseInt(answer.Header.Get(name), 10, 40); err == nil {
				wait = time.Unix(unix, 0).Sub(now)
			}
		}
	}
	return min(max(wait, time.Second), waitLongest)
}

// says finds the message in an error's body, in the forms that GitHub
// (message), Okta (errorSummary), OpenAI and Anthropic (error.message) give it.
// An API may repeat what it was sent, whole or in part: what shares a piece
// with the token is taken out.
func says(body []byte, token string) string {
	v, err := fastjson.ParseBytes(body)
	if err != nil {
		return ""
	}
	var b []byte
	for _, path := range [...][]string{{"error", "message"}, {"message"}, {"errorSummary"}} {
		if b = v.GetStringBytes(path...); len(b) > 0 {
			break
		}
	}
	const longest = 300
	b, _ = stripText(b[:min(len(b), 4*longest)])
	words := strings.FieldsFunc(string(b), func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
	for i, word := range words {
		if strings.Contains(word, "**") || sharesPiece(word, token) {
			words[i] = Stripped
		}
	}
	said := strings.ToValidUTF8(strings.Join(words, " "), "")
	if runes := []rune(said); len(runes) > longest {
		said = string(runes[:longest]) + "…"
	}
	return said
}

// sharesPiece says whether a and b have eight bytes in common.
func sharesPiece(a, b string) bool {
	const piece = 8
	if len(b) < piece {
		return len(b) > 0 && strings.Contains(a, b)
	}
	for i := 0; i+piece <= len(b); i++ {
		if strings.Contains(a, b[i:i+piece]) {
			return true
		}
	}
	return false
}

// NextLink returns the query of the link with the relation "next" in Link
// headers (RFC 8288), nil when there is none. Only the query: where to ask is
// what the user has said, not what an answer says, which may be made by others.
func NextLink(h http.Header) (url.Values, error) {
	for _, line := range h.Values("Link") {
		for line != "" {
			_, rest, ok := strings.Cut(line, "<")
			if !ok {
				break
			}
			target, rest, ok := strings.Cut(rest, ">")
			if !ok {
				return nil, fmt.Errorf("the Link header has an address without an end")
			}
			// The next link, if there is one, begins behind a comma; one
			// within a parameter in quotes is the rare price of simplicity,
			// and no API has one.
			parameters, rest, _ := strings.Cut(rest, ",")
			if line = rest; !isNext(parameters) {
				continue
			}
			u, err := url.Parse(target)
			if err != nil {
				return nil, fmt.Errorf("the Link header has an address that is none")
			}
			query, err := url.ParseQuery(u.RawQuery)
			if err != nil {
				return nil, fmt.Errorf("the Link header has an address with a query that is none")
			}
			return query, nil
		}
	}
	return nil, nil
}

func isNext(parameters string) bool {
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(parameter, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "rel") {
			continue
		}
		for relation := range strings.FieldsSeq(strings.Trim(strings.TrimSpace(value), `"`)) {
			if strings.EqualFold(relation, "next") {
				return true
			}
		}
	}
	return false
}
