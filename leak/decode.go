package leak

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"strconv"
	"strings"

	"remit"
)

// Format is how a file of reports is written.
type Format string

// The formats.
const (
	Gitleaks   Format = "gitleaks"   // gitleaks --report-format json
	TruffleHog Format = "trufflehog" // trufflehog --json
	SARIF      Format = "sarif"      // SARIF 2.1.0
)

// Formats lists all there are.
var Formats = []Format{Gitleaks, TruffleHog, SARIF}

// MaxFile is the size of the largest file of reports that is read, in bytes.
const MaxFile = 64 << 20

const decodeOp = "read leaks"

func itoa(n int) string { return strconv.Itoa(n) }

// Decode reads a file of reports and hands each to the caller; format "" is to
// recognise it. [remit.Invalid] for what is no such file, with the place and
// never with what stands there: it may be a secret.
func Decode(r io.Reader, format Format, each func(*Report) error) error {
	text, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err != nil {
		return remit.Errorf(remit.Unavailable, decodeOp, "%w", err)
	}
	if len(text) > MaxFile {
		return remit.Errorf(remit.Invalid, decodeOp, "the file is larger than %d MiB: split it", MaxFile>>20)
	}
	text = bytes.TrimSpace(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")))
	if format == "" {
		if format, err = recognise(text); err != nil {
			return err
		}
	}
	switch format {
	case Gitleaks:
		return decodeGitleaks(text, each)
	case TruffleHog:
		return decodeTruffleHog(text, each)
	case SARIF:
		return decodeSARIF(text, each)
	}
	return remit.Errorf(remit.Invalid, decodeOp, "no format %q: use one of %v", format, Formats)
}

func recognise(text []byte) (Format, error) {
	switch {
	case len(text) == 0:
		return TruffleHog, nil // which writes nothing when it finds nothing
	case text[0] == '[':
		return Gitleaks, nil
	}
	first, _, _ := bytes.Cut(text, []byte("\n"))
	var line map[string]json.RawMessage
	if json.Unmarshal(first, &line) == nil && line != nil && line["runs"] == nil {
		return TruffleHog, nil
	}
	var whole struct {
		Runs json.RawMessage `json:"runs"`
	}
	if json.Unmarshal(text, &whole) == nil && whole.Runs != nil {
		return SARIF, nil
	}
	return "", remit.Errorf(remit.Invalid, decodeOp, "neither a report of gitleaks (JSON) nor of TruffleHog (JSON lines) nor SARIF: name its format")
}

// wrong is an error with its place and without what stands there.
func wrong(format Format, where string, err error) error {
	var typed *json.UnmarshalTypeError
	if errors.As(err, &typed) && typed.Field != "" && len(typed.Field) < 64 {
		return remit.Errorf(remit.Invalid, decodeOp, "%s, as %s: %s has another type there", where, format, typed.Field)
	}
	return remit.Errorf(remit.Invalid, decodeOp, "%s is no JSON of %s", where, format)
}

// text is a string, and "" for anything else: scanners write null and numbers.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*t = text(s)
	}
	return nil
}

// number is a whole number from 0, and 0 for anything else.
type number int

func (n *number) UnmarshalJSON(b []byte) error {
	var i int
	if json.Unmarshal(b, &i) == nil && i > 0 {
		*n = number(i)
	}
	return nil
}

func decodeGitleaks(data []byte, each func(*Report) error) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return wrong(Gitleaks, "the file", err)
	}
	for n := 1; d.More(); n++ {
		var f struct {
			RuleID    text   `json:"RuleID"`
			StartLine number `json:"StartLine"`
			Match     text   `json:"Match"`
			Secret    text   `json:"Secret"`
			File      text   `json:"File"`
			Commit    text   `json:"Commit"`
			Link      text   `json:"Link"`
		}
		if err := d.Decode(&f); err != nil {
			return wrong(Gitleaks, "finding "+itoa(n), err)
		}
		r := Report{
			Scanner: string(Gitleaks), Rule: string(f.RuleID), Secrets: [][]byte{[]byte(f.Secret)},
			Place: Place{File: string(f.File), Line: int(f.StartLine), Commit: string(f.Commit), URL: withoutLogin(string(f.Link))},
		}
		if f.Match != f.Secret && !redacted([]byte(f.Secret)) && !redacted([]byte(f.Match)) {
			r.Around = [][]byte{[]byte(f.Match)}
		}
		if err := each(&r); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return wrong(Gitleaks, "the end of the file", err)
	}
	return nil
}

func decodeTruffleHog(data []byte, each func(*Report) error) error {
	n := 0
	for line := range bytes.Lines(data) {
		n++
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		var f struct {
			SourceMetadata struct {
				Data map[string]json.RawMessage `json:"Data"`
			} `json:"SourceMetadata"`
			SourceName   text `json:"SourceName"`
			DetectorName text `json:"DetectorName"`
			Raw          text `json:"Raw"`
			RawV2        text `json:"RawV2"`
			Redacted     text `json:"Redacted"`
			Level        any  `json:"level"`
		}
		if err := json.Unmarshal(line, &f); err != nil {
			return wrong(TruffleHog, "line "+itoa(n), err)
		}
		if f.DetectorName == "" {
			if f.Level != nil {
				continue // its own log, in the same stream
			}
			return remit.Errorf(remit.Invalid, decodeOp, "line %d is no finding of TruffleHog: it names no detector", n)
		}
		r := Report{
			Scanner: string(TruffleHog), Rule: string(f.DetectorName),
			Secrets: [][]byte{[]byte(f.Raw)}, Public: [][]byte{[]byte(f.Redacted)},
		}
		if f.RawV2 != "" && f.RawV2 != f.Raw {
			r.Secrets = append(r.Secrets, []byte(f.RawV2))
			// Of a pair, as of an access key, each half is known by itself.
			if id, rest, ok := strings.Cut(string(f.RawV2), ":"); ok && len(id) >= 8 && len(rest) >= 8 {
				r.Secrets = append(r.Secrets, []byte(id), []byte(rest))
			} else if rest, ok := strings.CutPrefix(string(f.RawV2), string(f.Raw)); ok && len(rest) >= 8 {
				r.Secrets = append(r.Secrets, []byte(rest))
			}
		}
		for _, raw := range f.SourceMetadata.Data {
			var m struct {
				Repository text   `json:"repository"`
				File       text   `json:"file"`
				Line       number `json:"line"`
				Commit     text   `json:"commit"`
				Link       text   `json:"link"`
				Bucket     text   `json:"bucket"`
				Image      text   `json:"image"`
			}
			if json.Unmarshal(raw, &m) == nil {
				r.Place = Place{
					Repository: withoutLogin(string(m.Repository + m.Bucket + m.Image)), File: string(m.File), Line: int(m.Line),
					Commit: string(m.Commit), URL: withoutLogin(string(m.Link)),
				}
			}
		}
		if err := each(&r); err != nil {
			return err
		}
	}
	return nil
}

// sarif is what is read of a SARIF log; see
// https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
type sarif struct {
	Runs []struct {
		Tool struct {
			Driver struct {
				Name text `json:"name"`
			} `json:"driver"`
		} `json:"tool"`
		VersionControl []struct {
			Repository text `json:"repositoryUri"`
			Revision   text `json:"revisionId"`
		} `json:"versionControlProvenance"`
		Results []sarifResult `json:"results"`
	} `json:"runs"`
}

type sarifResult struct {
	RuleID text `json:"ruleId"`
	Rule   struct {
		ID text `json:"id"`
	} `json:"rule"`
	Kind      text `json:"kind"`
	Locations []struct {
		Physical struct {
			Artifact struct {
				URI text `json:"uri"`
			} `json:"artifactLocation"`
			Region sarifRegion `json:"region"`
			Around sarifRegion `json:"contextRegion"`
		} `json:"physicalLocation"`
	} `json:"locations"`
	Fingerprints map[string]text `json:"partialFingerprints"`
	Hosted       text            `json:"hostedViewerUri"`
}

type sarifRegion struct {
	StartLine number `json:"startLine"`
	Snippet   struct {
		Text text `json:"text"`
	} `json:"snippet"`
}

func decodeSARIF(data []byte, each func(*Report) error) error {
	var log sarif
	if err := json.Unmarshal(data, &log); err != nil {
		return wrong(SARIF, "the file", err)
	}
	if log.Runs == nil {
		return remit.Errorf(remit.Invalid, decodeOp, "the file is no SARIF log: it has no runs")
	}
	for _, run := range log.Runs {
		for i := range run.Results {
			result := &run.Results[i]
			if result.Kind == "pass" || result.Kind == "notApplicable" {
				continue
			}
			r := Report{Scanner: string(run.Tool.Driver.Name), Rule: string(result.RuleID)}
			if r.Scanner == "" {
				r.Scanner = string(SARIF)
			}
			if r.Rule == "" {
				r.Rule = string(result.Rule.ID)
			}
			r.Place.URL = withoutLogin(string(result.Hosted))
			r.Place.Commit = string(result.Fingerprints["commitSha"])
			if len(run.VersionControl) > 0 {
				r.Place.Repository = withoutLogin(string(run.VersionControl[0].Repository))
				if r.Place.Commit == "" {
					r.Place.Commit = string(run.VersionControl[0].Revision)
				}
			}
			for n, l := range result.Locations {
				if n == 0 {
					r.Place.File, r.Place.Line = withoutLogin(string(l.Physical.Artifact.URI)), int(l.Physical.Region.StartLine)
				}
				for _, s := range []text{l.Physical.Region.Snippet.Text, l.Physical.Around.Snippet.Text} {
					if s != "" && !redacted([]byte(s)) {
						r.Around = append(r.Around, []byte(s))
					}
				}
			}
			if err := each(&r); err != nil {
				return err
			}
		}
	}
	return nil
}

// withoutLogin takes user and password out of an address: repositories are named
// by the URL they were cloned from.
func withoutLogin(address string) string {
	if !strings.Contains(address, "@") || !strings.Contains(address, "://") {
		return address
	}
	u, err := url.Parse(address)
	if err != nil {
		// What cannot be read may hold a password all the same.
		_, rest, _ := strings.Cut(address, "@")
		return rest
	}
	u.User = nil
	return u.String()
}
