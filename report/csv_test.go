package report

import (
	"bytes"
	"encoding/csv"
	"testing"

	"remit"
)

func TestCSV(t *testing.T) {
	for name, kind := range map[string]remit.RecordKind{
		"findings.csv": "", "identities.csv": remit.KindIdentity, "credentials.csv": remit.KindCredential, "grants.csv": remit.KindGrant,
	} {
		var b bytes.Buffer
		if err := WriteCSV(&b, sample().Source(), CSVOptions{Of: kind}); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.Bytes())
	}
	if err := WriteCSV(&bytes.Buffer{}, sample().Source(), CSVOptions{Of: remit.KindRelation}); remit.KindOf(err) != remit.Unsupported {
		t.Errorf("a table that there is not: %v", err)
	}
}

func TestCSVRoundTrip(t *testing.T) {
	d := sample()
	d.Findings = d.Findings[:1]
	d.Findings[0].Message = "two \"words\", and a comma; =not a formula"
	d.Findings[0].Title = "=HYPERLINK(\"https://evil.example\")"
	var b bytes.Buffer
	if err := WriteCSV(&b, d.Source(), CSVOptions{}); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&b).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	row := map[string]string{}
	for i, name := range rows[0] {
		row[name] = rows[1][i]
	}
	for name, want := range map[string]string{
		"message": d.Findings[0].Message, "title": "'" + d.Findings[0].Title, "severity": "high", "id": string(d.Findings[0].ID),
		"system": "prod", "evidence": "made: 2025-10-07; last used: 2026-07-26", "identity_id": string(d.Identities[0].ID),
	} {
		if row[name] != want {
			t.Errorf("%s is %q, want %q", name, row[name], want)
		}
	}
}
