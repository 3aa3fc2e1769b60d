package leak

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"remit"
	"remit/connector"
)

// GitHub is the scanner's name of what GitHub reports.
const GitHub = "github"

// GitHubKeysURL is where GitHub publishes the keys with which it signs what it
// sends to the partners of its secret scanning
// (https://docs.github.com/en/code-security/secret-scanning/secret-scanning-partnership-program/secret-scanning-partner-program).
const GitHubKeysURL = "https://api.github.com/meta/public_keys/secret_scanning"

// GitHubAPI is the base of GitHub's API.
const GitHubAPI = "https://api.github.com"

// GitHubKeys are the public keys of GitHub's secret scanning. They are asked for
// when they are first needed, once a day, and when a delivery names another, at
// most every half minute. It is safe for concurrent use.
type GitHubKeys struct {
	URL    string           // https, or http to this machine; "" is [GitHubKeysURL]
	Client *http.Client     // nil is http.DefaultClient
	Now    func() time.Time // nil is time.Now

	mu    sync.Mutex
	keys  map[string]*ecdsa.PublicKey
	read  time.Time
	tried time.Time
}

const (
	keysFresh   = 24 * time.Hour
	keysPause   = 30 * time.Second
	keysTimeout = 5 * time.Second
	maxKeySet   = 256 << 10
	maxKeys     = 32
)

const verifyOp = "verify GitHub's signature"

// Verify checks that GitHub has signed a body: identifier and signature are the
// headers Github-Public-Key-Identifier and Github-Public-Key-Signature.
// [remit.Forbidden] when it has not, [remit.Unavailable] when its keys cannot be
// had.
func (k *GitHubKeys) Verify(ctx context.Context, body []byte, identifier, signature string) error {
	raw, err := base64.StdEncoding.DecodeString(signature)
	if err != nil || len(raw) == 0 || identifier == "" || len(identifier) > maxText {
		return remit.Errorf(remit.Forbidden, verifyOp, "the headers Github-Public-Key-Identifier and Github-Public-Key-Signature are missing or damaged")
	}
	key, err := k.key(ctx, identifier)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	if !ecdsa.VerifyASN1(key, sum[:], raw) {
		return remit.Errorf(remit.Forbidden, verifyOp, "the signature is not GitHub's for this body")
	}
	return nil
}

func (k *GitHubKeys) key(ctx context.Context, identifier string) (*ecdsa.PublicKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if k.Now != nil {
		now = k.Now()
	}
	key := k.keys[identifier]
	if (key == nil || now.Sub(k.read) > keysFresh) && now.Sub(k.tried) >= keysPause {
		k.tried = now
		fresh, err := k.fetch(ctx)
		if err != nil {
			return nil, remit.Errorf(remit.Unavailable, verifyOp, "GitHub's keys could not be read: %w", err)
		}
		k.keys, k.read = fresh, now
		if key = k.keys[identifier]; key == nil {
			return nil, remit.Errorf(remit.Forbidden, verifyOp, "GitHub has no key of this identifier")
		}
	}
	if key == nil {
		return nil, remit.Errorf(remit.Unavailable, verifyOp, "the key is not known, and GitHub's keys are asked for at most every %s", keysPause)
	}
	return key, nil
}

func (k *GitHubKeys) fetch(ctx context.Context) (map[string]*ecdsa.PublicKey, error) {
	address := k.URL
	if address == "" {
		address = GitHubKeysURL
	}
	ctx, cancel := context.WithTimeout(ctx, keysTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	client := k.Client
	if client == nil {
		client = http.DefaultClient
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, remit.Errorf(remit.Unavailable, "", "the answer is %s", response.Status)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxKeySet))
	if err != nil {
		return nil, err
	}
	return readKeys(text)
}

// readKeys reads GitHub's list of public keys; only those of the curve that it
// signs with, P-256, are kept.
func readKeys(text []byte) (map[string]*ecdsa.PublicKey, error) {
	var list struct {
		Keys []struct {
			Identifier string `json:"key_identifier"`
			Key        string `json:"key"`
		} `json:"public_keys"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, remit.Errorf(remit.Invalid, "", "the answer is no list of public keys")
	}
	keys := map[string]*ecdsa.PublicKey{}
	for _, k := range list.Keys {
		block, _ := pem.Decode([]byte(k.Key))
		if block == nil || len(keys) == maxKeys {
			continue
		}
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			continue
		}
		if key, ok := parsed.(*ecdsa.PublicKey); ok && key.Curve == elliptic.P256() {
			keys[k.Identifier] = key
		}
	}
	if len(keys) == 0 {
		return nil, remit.Errorf(remit.Invalid, "", "there is no key of the curve P-256 in the answer")
	}
	return keys, nil
}

// VerifyHook checks the signature of a webhook delivery, the header
// X-Hub-Signature-256, under the webhook's secret. [remit.Forbidden] when it is
// not right.
func VerifyHook(hookSecret, body []byte, signature string) error {
	given, ok := strings.CutPrefix(signature, "sha256=")
	sum, err := hex.DecodeString(given)
	mac := hmac.New(sha256.New, hookSecret)
	mac.Write(body)
	if !ok || err != nil || len(hookSecret) == 0 || !hmac.Equal(mac.Sum(nil), sum) {
		return remit.Errorf(remit.Forbidden, verifyOp, "X-Hub-Signature-256 is missing or not that of this body under the webhook's secret")
	}
	return nil
}

// DecodePartner reads what GitHub sends to a partner of its secret scanning.
// [remit.Invalid], without what stands there, for anything else.
func DecodePartner(body []byte) ([]Report, error) {
	var list []struct {
		Token  text `json:"token"`
		Type   text `json:"type"`
		URL    text `json:"url"`
		Source text `json:"source"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, remit.Errorf(remit.Invalid, decodeOp, "the body is no JSON list of tokens")
	}
	reports := make([]Report, 0, len(list))
	for _, m := range list {
		place := placeOf(string(m.URL))
		if place.File == "" {
			place.File = string(m.Source) // "content", "commit", "issue_title"
		}
		reports = append(reports, Report{Scanner: GitHub, Rule: string(m.Type), Place: place, Secrets: [][]byte{[]byte(m.Token)}})
	}
	return reports, nil
}

// placeOf reads the address of a file on GitHub: OWNER/NAME/blob/COMMIT/PATH.
func placeOf(address string) Place {
	p := Place{URL: withoutLogin(address)}
	u, err := url.Parse(p.URL)
	if err != nil {
		return p
	}
	parts := strings.SplitN(strings.TrimPrefix(u.Path, "/"), "/", 5)
	if len(parts) < 2 {
		return p
	}
	p.Repository = parts[0] + "/" + parts[1]
	if len(parts) == 5 && (parts[2] == "blob" || parts[2] == "raw") {
		p.Commit, p.File = parts[3], parts[4]
	} else if len(parts) == 4 && parts[2] == "commit" {
		p.Commit = parts[3]
	}
	return p
}

// Alert is a delivery of the webhook secret_scanning_alert or
// secret_scanning_alert_location: it tells of a secret, and does not hold it.
type Alert struct {
	Action     string // created, reopened, publicly_leaked, resolved, …
	Repository string // OWNER/NAME
	Number     int
	Rule       string
	Place      Place
}

// repositoryName is how GitHub names repositories; it becomes a part of a path.
var repositoryName = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}/[A-Za-z0-9._-]{1,128}$`)

// DecodeAlert reads a delivery of either webhook. [remit.Invalid] for anything
// else.
func DecodeAlert(body []byte) (Alert, error) {
	var v struct {
		Action text `json:"action"`
		Alert  *struct {
			Number number `json:"number"`
			Type   text   `json:"secret_type"`
			URL    text   `json:"html_url"`
		} `json:"alert"`
		Location   *alertLocation `json:"location"`
		Repository struct {
			Name text `json:"full_name"`
		} `json:"repository"`
	}
	if err := json.Unmarshal(body, &v); err != nil || v.Alert == nil {
		return Alert{}, remit.Errorf(remit.Invalid, decodeOp, "the body tells of no secret scanning alert")
	}
	a := Alert{
		Action: string(v.Action), Repository: string(v.Repository.Name), Number: int(v.Alert.Number), Rule: string(v.Alert.Type),
		Place: Place{Repository: string(v.Repository.Name), URL: withoutLogin(string(v.Alert.URL))},
	}
	_, repository, _ := strings.Cut(a.Repository, "/")
	if !repositoryName.MatchString(a.Repository) || repository == "." || repository == ".." || a.Number == 0 {
		return Alert{}, remit.Errorf(remit.Invalid, decodeOp, "the body names no repository, or the alert no number")
	}
	if v.Location != nil {
		v.Location.into(&a.Place)
	}
	return a, nil
}

// Exposes says whether the delivery tells of a secret that is out. Others tell
// what somebody decided about it, which mends nothing here.
func (a *Alert) Exposes() bool {
	switch a.Action {
	case "created", "reopened", "publicly_leaked", "validated":
		return true
	}
	return false
}

type alertLocation struct {
	Details struct {
		Path   text   `json:"path"`
		Line   number `json:"start_line"`
		Commit text   `json:"commit_sha"`
	} `json:"details"`
}

func (l *alertLocation) into(p *Place) {
	p.File, p.Line, p.Commit = string(l.Details.Path), int(l.Details.Line), string(l.Details.Commit)
}

// AlertReader asks GitHub for the secret of an alert, which its webhook leaves
// out.
type AlertReader struct{ api *connector.Fetcher }

// NewAlertReader makes a reader of the API at base ("" is [GitHubAPI]), with the
// token that a file holds.
func NewAlertReader(base, tokenFile string) (*AlertReader, error) {
	if base == "" {
		base = GitHubAPI
	}
	api, err := connector.NewFetcher(connector.FetchOptions{
		Op: "read a secret scanning alert", BaseURL: base, TokenFile: tokenFile, Timeout: 4 * time.Second, MaxBody: 4 << 20,
		Right: `the permission "Secret scanning alerts: read" on the repository`,
		Authorize: func(h http.Header, token string) {
			h.Set("Authorization", "Bearer "+token)
			h.Set("Accept", "application/vnd.github+json")
			h.Set("X-GitHub-Api-Version", "2022-11-28")
		},
	})
	if err != nil {
		return nil, err
	}
	return &AlertReader{api: api}, nil
}

// Report makes a report of an alert, with its secret and, where the delivery did
// not tell it, the place of the first of its locations.
func (r *AlertReader) Report(ctx context.Context, a *Alert) (Report, error) {
	path := "/repos/" + a.Repository + "/secret-scanning/alerts/" + itoa(a.Number)
	answer, err := r.api.Get(ctx, path, nil)
	if err != nil {
		return Report{}, err
	}
	var v struct {
		Secret text `json:"secret"`
	}
	if err := json.Unmarshal(answer.JSON, &v); err != nil {
		return Report{}, remit.Errorf(remit.Unavailable, "read a secret scanning alert", "the answer is no JSON object")
	}
	report := a.Report()
	report.Secrets = [][]byte{[]byte(v.Secret)}
	if report.Place.File == "" {
		answer, err := r.api.Get(ctx, path+"/locations", url.Values{"per_page": {"1"}})
		var list []alertLocation
		if err == nil && json.Unmarshal(answer.JSON, &list) == nil && len(list) > 0 {
			list[0].into(&report.Place)
		}
	}
	return report, nil
}

// Report makes a report of an alert without its secret.
func (a *Alert) Report() Report {
	return Report{Scanner: GitHub, Rule: a.Rule, Place: a.Place}
}
