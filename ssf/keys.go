package ssf

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"remit"
)

// Keys are a transmitter's public keys. They are asked for when they are first
// needed, again after an hour, and when a token names a key that is not among
// them: at most every half minute, so that nobody can have a transmitter asked by
// sending tokens. Keys that cannot be renewed go on for a day. It is safe for
// concurrent use.
type Keys struct {
	// URL is where the JSON Web Key Set is (https only), or File holds it; with
	// neither they are found by the transmitter's metadata (SSF 1.0, section 7).
	URL  string
	File string

	Issuer string           // whose metadata
	Client *http.Client     // nil is http.DefaultClient
	Now    func() time.Time // nil is time.Now

	mu    sync.Mutex
	set   []jose.JSONWebKey
	read  time.Time
	tried time.Time
}

const (
	keysFresh   = time.Hour
	keysStale   = 24 * time.Hour
	keysPause   = 30 * time.Second
	keysTimeout = 10 * time.Second
	maxKeySet   = 1 << 20
	maxKeys     = 64
	leastRSA    = 2048
)

// Key returns the key of that ID for an algorithm. A token without an ID is
// verified when there is only one key. [Refusal] when there is no such key, and
// [remit.Unavailable] when the keys cannot be had, or not yet again.
func (k *Keys) Key(ctx context.Context, id, algorithm string) (*jose.JSONWebKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if k.Now != nil {
		now = k.Now()
	}
	found, asked := k.find(id, algorithm), false
	if (found == nil || now.Sub(k.read) > keysFresh) && (k.tried.IsZero() || now.Sub(k.tried) >= keysPause) {
		k.tried, asked = now, true
		if set, err := k.fetch(ctx); err == nil {
			k.set, k.read = set, now
		} else if found == nil && len(k.set) == 0 || now.Sub(k.read) > keysStale {
			return nil, remit.Errorf(remit.Unavailable, "read the transmitter's keys", "%w", err)
		}
		found = k.find(id, algorithm)
	}
	switch {
	case found != nil && now.Sub(k.read) <= keysStale:
		return found, nil
	case !asked || k.read != now:
		// The key may be one that came since.
		return nil, remit.Errorf(remit.Unavailable, "read the transmitter's keys", "they are asked for at most every %s: send the token again then", keysPause)
	}
	return nil, refuse(InvalidKey, "no key of the transmitter has this kid and suits the algorithm")
}

func (k *Keys) find(id, algorithm string) (found *jose.JSONWebKey) {
	for i := range k.set {
		key := &k.set[i]
		if id == "" && len(k.set) > 1 || id != "" && key.KeyID != id || key.Algorithm != "" && key.Algorithm != algorithm {
			continue
		}
		return key
	}
	return nil
}

func (k *Keys) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	text, err := k.text(ctx)
	if err != nil {
		return nil, err
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, remit.Errorf(remit.Invalid, "", "no JSON Web Key Set: it is no JSON object with keys")
	}
	var usable []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		// A key of a kind that is not known here must not hide the others.
		if key.UnmarshalJSON(raw) != nil || !key.IsPublic() || !key.Valid() || key.Use != "" && key.Use != "sig" {
			continue
		}
		if r, ok := key.Key.(*rsa.PublicKey); ok && r.N.BitLen() < leastRSA {
			continue
		}
		if usable = append(usable, key); len(usable) == maxKeys {
			break
		}
	}
	if len(usable) == 0 {
		return nil, remit.Errorf(remit.Invalid, "", "the JSON Web Key Set has no public key for signatures")
	}
	return usable, nil
}

func (k *Keys) text(ctx context.Context) ([]byte, error) {
	if k.File != "" {
		return os.ReadFile(k.File)
	}
	address := k.URL
	if address == "" {
		metadata, err := Discover(ctx, k.Client, k.Issuer)
		if err != nil {
			return nil, err
		}
		address = metadata.JWKS
	}
	return get(ctx, k.Client, address)
}

// Metadata is what a transmitter tells of itself (SSF 1.0, section 7.1), as far
// as it is used here.
type Metadata struct {
	SpecVersion      string   `json:"spec_version,omitempty"`
	Issuer           string   `json:"issuer"`
	JWKS             string   `json:"jwks_uri"`
	DeliveryMethods  []string `json:"delivery_methods_supported,omitempty"`
	Configuration    string   `json:"configuration_endpoint,omitempty"`
	Status           string   `json:"status_endpoint,omitempty"`
	Verification     string   `json:"verification_endpoint,omitempty"`
	Authorization    []Scheme `json:"authorization_schemes,omitempty"`
	DefaultSubjects  string   `json:"default_subjects,omitempty"`
	CriticalSubjects []string `json:"critical_subject_members,omitempty"`
}

// Scheme is a way to authorize at the endpoints.
type Scheme struct {
	URN string `json:"spec_urn"`
}

// Discover reads a transmitter's metadata.
func Discover(ctx context.Context, client *http.Client, issuer string) (Metadata, error) {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" {
		return Metadata{}, remit.Errorf(remit.Invalid, "", "the issuer is no URL: name its keys with jwks")
	}
	u.Path = WellKnown + strings.TrimSuffix(u.Path, "/")
	text, err := get(ctx, client, u.String())
	if err != nil {
		return Metadata{}, err
	}
	var m Metadata
	if err := json.Unmarshal(text, &m); err != nil {
		return Metadata{}, remit.Errorf(remit.Invalid, "", "%s holds no JSON object of the expected types", u.Redacted())
	}
	if m.Issuer != issuer || m.JWKS == "" {
		return Metadata{}, remit.Errorf(remit.Invalid, "", "%s names another issuer, or no keys", u.Redacted())
	}
	return m, nil
}

// get reads a small document by TLS.
func get(ctx context.Context, client *http.Client, address string) ([]byte, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, remit.Errorf(remit.Invalid, "", "no https URL: keys are read by TLS only")
	}
	ctx, cancel := context.WithTimeout(ctx, keysTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	if client == nil {
		client = http.DefaultClient
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, remit.Errorf(remit.Unavailable, "", "%s answers %s", u.Redacted(), response.Status)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxKeySet+1))
	if err == nil && len(text) > maxKeySet {
		err = remit.Errorf(remit.Invalid, "", "%s is larger than %d bytes", u.Redacted(), maxKeySet)
	}
	return text, err
}
