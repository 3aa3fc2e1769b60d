// Package leak takes reports of leaked secrets, from secret scanners and from
// GitHub, and finds the credentials that they expose.
//
// Each reported secret is turned into keyed fingerprints and public identifiers
// at once ([Digester]) and forgotten: what is kept of a report is where the secret
// lay and what it is known by. A report is kept whether or not a credential
// matches it now: the credential may be read into the inventory later.
package leak

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"remit/connector/secret"
)

// Report is one leaked secret as a scanner tells of it. It holds the secret, and
// is never stored or shown; [Digester.Digest] makes a [Leak] of it.
type Report struct {
	Scanner string
	Rule    string
	Place   Place

	// Secrets are the texts that are, or hold, the secret. Around are texts in
	// which it stands with what is around it, as a line of code. Public are
	// texts that only name the credential, as the identifier of a key.
	Secrets [][]byte
	Around  [][]byte
	Public  [][]byte
}

// Place is where a leaked secret lies.
type Place struct {
	Repository string `json:"repository,omitempty"`
	File       string `json:"file,omitempty"`
	Line       int    `json:"line,omitempty"` // from 1; 0 is unknown
	Commit     string `json:"commit,omitempty"`
	URL        string `json:"url,omitempty"`
}

// String tells the place in one line, for messages. It does not escape.
func (p Place) String() string {
	var b strings.Builder
	b.WriteString(p.Repository)
	if p.File != "" {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(p.File)
		if p.Line > 0 {
			b.WriteString(":" + itoa(p.Line))
		}
	}
	if p.Commit != "" {
		b.WriteString(" in commit " + p.Commit[:min(12, len(p.Commit))])
	}
	if b.Len() == 0 {
		b.WriteString(cmp.Or(p.URL, "a place that the report does not name"))
	}
	return strings.TrimSpace(b.String())
}

// Leak is what is kept of a report: no secret, and nothing to find it out by.
type Leak struct {
	Scanner string    `json:"scanner"`
	Rule    string    `json:"rule"`
	Place   Place     `json:"place"`
	Seen    time.Time `json:"seen"` // when it was first reported

	// Fingerprints are those of the secret, or of all secrets that it holds;
	// see [secret.Fingerprinter]. Natives are the IDs that a system's log writes
	// for it: "JTI=…", "X509SHA256=…", an access key's ID.
	Fingerprints []string `json:"fingerprints,omitempty"`
	Natives      []string `json:"natives,omitempty"`
	Claims       []Claim  `json:"claims,omitempty"`

	// Redacted says that the report did not hold the secret.
	Redacted bool `json:"redacted,omitempty"`
}

// Claim is what a leaked token of a Kubernetes service account says of itself.
// Its signature has not been verified.
type Claim struct {
	Native     string    `json:"native,omitempty"` // "JTI=…"; "" of a legacy token
	Issuer     string    `json:"issuer"`
	Namespace  string    `json:"namespace"`
	Account    string    `json:"account"`
	AccountUID string    `json:"account_uid,omitempty"`
	Secret     string    `json:"secret,omitempty"` // that keeps a legacy token
	Expires    time.Time `json:"expires,omitzero"` // zero: never
}

// key tells one leak from others: the same secret in the same place is one,
// however often it is reported.
func (l *Leak) key() string {
	h := sha256.New()
	for _, part := range append(append([]string{
		l.Rule, l.Place.Repository, l.Place.File, itoa(l.Place.Line), l.Place.Commit, l.Place.URL,
	}, l.Fingerprints...), l.Natives...) {
		h.Write([]byte(itoa(len(part)) + ":" + part))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Digester turns reports into leaks. It is safe for concurrent use.
type Digester struct {
	scanner     *secret.Scanner
	fingerprint *secret.Fingerprinter
}

// NewDigester makes a digester under the installation's key, under which the
// inventory's fingerprints are made.
func NewDigester(installationKey []byte) (*Digester, error) {
	fingerprint, err := secret.NewFingerprinter(installationKey)
	if err != nil {
		return nil, err
	}
	scanner, err := secret.NewScanner()
	if err != nil {
		return nil, err
	}
	return &Digester{scanner: scanner, fingerprint: fingerprint}, nil
}

// masked stands in a place for the secret that was there.
const masked = "[secret]"

// The bounds of what is kept of one report.
const (
	maxText  = 512
	maxKnown = 64
	least    = 4 // bytes of a secret
)

// Digest makes a leak of a report. What of the place or of the rule holds the
// secret, as a file that is named like it, is masked.
func (d *Digester) Digest(r *Report, now time.Time) Leak {
	l := Leak{Scanner: clip(r.Scanner), Rule: clip(r.Rule), Place: r.Place, Seen: now.UTC()}
	k := &known{digester: d}
	var whole [][]byte
	for _, s := range r.Secrets {
		if !redacted(s) {
			whole = append(whole, s)
		}
	}
	l.Redacted = len(whole) == 0 && len(r.Around) == 0
	for _, s := range whole {
		k.value(s)
	}
	for _, s := range r.Around {
		k.around(s)
	}
	for _, s := range r.Public {
		for _, f := range d.scanner.Scan("", s, nil).Found {
			k.native(f.Native)
		}
	}
	l.Fingerprints, l.Natives, l.Claims = unique(k.fingerprints), unique(k.natives), k.claims
	mask := masker(append(whole, k.values...))
	for _, text := range []*string{&l.Rule, &l.Place.Repository, &l.Place.File, &l.Place.Commit, &l.Place.URL} {
		*text = clip(mask(*text))
	}
	return l
}

// known gathers by what a secret can be recognised.
type known struct {
	digester     *Digester
	fingerprints []string
	natives      []string
	claims       []Claim
	values       [][]byte // secrets that were taken out of a text around them
}

func (k *known) print(text []byte) string {
	p := k.digester.fingerprint.Fingerprint(text)
	if p != "" && len(k.fingerprints) < maxKnown {
		k.fingerprints = append(k.fingerprints, p)
	}
	return p
}

func (k *known) native(id string) {
	if id != "" && len(id) <= maxText && len(k.natives) < maxKnown {
		k.natives = append(k.natives, id)
	}
}

// value takes a text that is a secret or a document that holds some, in the ways
// in which connectors read the same: see connector/secret.
func (k *known) value(text []byte) {
	if len(text) > secret.MaxValue {
		text = text[:secret.MaxValue]
	}
	trimmed := bytes.TrimSpace(text)
	if len(trimmed) < least {
		return // too little to be told from anything else
	}
	k.print(text)
	k.print(trimmed)
	text = secret.Unwrap(trimmed)
	if !bytes.Equal(text, trimmed) {
		k.print(text)
	}
	k.parts(text)
}

// parts takes the secrets within a text.
func (k *known) parts(text []byte) {
	if secret.IsKubeconfig(text) {
		users, _ := secret.ParseKubeconfig(text, k.print)
		for i := range users {
			if c := users[i].Certificate; c != nil {
				k.native(c.Native)
			}
			if t := users[i].Token; t != nil {
				k.token(t)
			}
		}
		return
	}
	bundle, _ := secret.ParseBundle(text, k.print)
	for _, c := range bundle.Certificates {
		// A certificate alone is public, but that of a client says whose key is
		// about.
		if len(bundle.Keys) > 0 || c.Client && !c.CA {
			k.native(c.Native)
		}
	}
	if bytes.Contains(text, []byte(`"auths"`)) {
		_, _ = secret.ParseDockerConfig(text, k.print)
	}
	for _, f := range k.digester.scanner.Scan("", text, k.print).Found {
		k.native(f.Native)
		if f.Token != nil {
			k.token(f.Token)
		}
	}
}

// around takes a text in which a secret stands, as a line of code.
func (k *known) around(text []byte) {
	if len(text) > secret.MaxValue {
		text = text[:secret.MaxValue]
	}
	k.value(text)
	for line := range bytes.Lines(text) {
		// NAME=value and "name": "value" as scanners' own rules read them.
		if at := bytes.IndexAny(line, "=:"); at >= 0 {
			value := bytes.Trim(line[at+1:], " \t\r\n'\"`,;>=")
			if len(value) >= least {
				k.print(value)
				k.values = append(k.values, bytes.Clone(value))
			}
		}
		if len(k.values) >= maxKnown {
			break
		}
	}
	k.values = append(k.values, bytes.TrimSpace(text))
}

func (k *known) token(t *secret.Token) {
	var native string
	if t.ID != "" {
		native = "JTI=" + t.ID
		k.native(native)
	}
	if t.ServiceAccount == "" || len(k.claims) == maxKnown {
		return
	}
	c := Claim{
		Native: native, Issuer: t.Issuer, Namespace: t.Namespace, Account: t.ServiceAccount, AccountUID: t.AccountUID, Expires: t.Expires,
	}
	if t.Legacy {
		c.Secret = t.Secret
	}
	if !slices.Contains(k.claims, c) {
		k.claims = append(k.claims, c)
	}
}

// redacted says whether a scanner has hidden the secret.
func redacted(text []byte) bool {
	t := strings.TrimSpace(string(text))
	upper := strings.ToUpper(t)
	return t == "" || strings.Trim(t, t[:1]) == "" || strings.Contains(upper, "REDACTED") || strings.Contains(t, "****") ||
		len(t) <= maxText && (strings.HasSuffix(t, "...") || strings.HasSuffix(t, "…"))
}

// masker returns what replaces every one of the secrets in a text.
func masker(secrets [][]byte) func(string) string {
	var pairs []string
	slices.SortFunc(secrets, func(a, b []byte) int { return cmp.Compare(len(b), len(a)) })
	for _, s := range secrets {
		if s = bytes.TrimSpace(s); len(s) >= least && len(s) <= 64<<10 {
			pairs = append(pairs, string(s), masked)
		}
	}
	if len(pairs) == 0 {
		return func(s string) string { return s }
	}
	return strings.NewReplacer(pairs...).Replace
}

func unique(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// clip bounds a text from outside, and makes it valid.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "�")
	if len(s) <= maxText {
		return s
	}
	n := maxText
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
