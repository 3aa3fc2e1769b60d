package report

import (
	"encoding/csv"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"

	"remit"
)

// CSVOptions choose what a CSV file lists.
type CSVOptions struct {
	// Of is the kind of record: [remit.KindFinding] (also when empty),
	// [remit.KindIdentity], [remit.KindCredential] or [remit.KindGrant].
	Of remit.RecordKind
}

// WriteCSV writes one kind of record as comma-separated values (RFC 4180, UTF-8,
// LF) with a line of names first. Findings are those that stand, the worst first;
// other records come as the source has them. Lists within a cell are separated by
// "; ". Any other kind is [remit.Unsupported].
//
// Cells are written for spreadsheets: see [Cell].
func WriteCSV(w io.Writer, src Source, o CSVOptions) error {
	out := csv.NewWriter(w)
	var err error
	switch o.Of {
	case "", remit.KindFinding:
		err = csvFindings(out, src)
	case remit.KindIdentity:
		err = csvRows(out, src.Identities(), identityCSV)
	case remit.KindCredential:
		err = csvRows(out, src.Credentials(), credentialCSV)
	case remit.KindGrant:
		err = csvRows(out, src.Grants(), grantCSV)
	default:
		return remit.Errorf(remit.Unsupported, "write CSV", "no table of kind %q: there are finding, identity, credential and grant", o.Of)
	}
	if err != nil {
		return err
	}
	out.Flush()
	return out.Error()
}

// Cell makes a text safe to open in a spreadsheet: what could begin a formula
// (=, +, -, @, and their full-width forms) or already begins with an apostrophe
// gets an apostrophe in front, which spreadsheets hide. One apostrophe taken from
// the front gives the text back. Tabs, line breaks and other controls are spelled
// out as [Visible] does, so that none of them begins a cell either.
// See OWASP, CSV Injection.
func Cell(s string) string {
	s = Visible(s)
	if s == "" {
		return s
	}
	if strings.ContainsRune("=+-@'", rune(s[0])) {
		return "'" + s
	}
	for _, wide := range []string{"＝", "＋", "－", "＠"} {
		if strings.HasPrefix(s, wide) {
			return "'" + s
		}
	}
	return s
}

// column is one column of a table of records.
type column[T any] struct {
	name string
	cell func(*T) string
}

func csvHead[T any](out *csv.Writer, columns []column[T]) error {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	return out.Write(names)
}

func csvBody[T any](out *csv.Writer, records iter.Seq2[T, error], columns []column[T]) error {
	cells := make([]string, len(columns))
	for r, err := range records {
		if err != nil {
			return err
		}
		for i, c := range columns {
			cells[i] = Cell(c.cell(&r))
		}
		if err := out.Write(cells); err != nil {
			return err
		}
	}
	return nil
}

func csvRows[T any](out *csv.Writer, records iter.Seq2[T, error], columns []column[T]) error {
	if err := csvHead(out, columns); err != nil {
		return err
	}
	return csvBody(out, records, columns)
}

func csvFindings(out *csv.Writer, src Source) error {
	t := newTally(src.Header().Generated)
	for s, err := range src.Systems() {
		if err != nil {
			return err
		}
		t.system(&s)
	}
	for f, err := range src.Findings() {
		if err != nil {
			return err
		}
		t.finding(&f)
	}
	columns := findingCSV(t.systemName)
	if err := csvHead(out, columns); err != nil {
		return err
	}
	return eachGroup(src, t.sorted(), func(_ *group, findings iter.Seq2[remit.Finding, error]) error {
		return csvBody(out, findings, columns)
	})
}

func findingCSV(system func(remit.ID) string) []column[remit.Finding] {
	return []column[remit.Finding]{
		{"severity", func(f *remit.Finding) string { return string(f.Severity) }},
		{"policy", func(f *remit.Finding) string { return f.Policy }},
		{"title", func(f *remit.Finding) string { return f.Title }},
		{"system", func(f *remit.Finding) string { return system(f.System) }},
		{"record", func(f *remit.Finding) string { return string(f.Subject.Record) }},
		{"kind", func(f *remit.Finding) string { return f.Subject.Kind }},
		{"namespace", func(f *remit.Finding) string { return f.Subject.Namespace }},
		{"name", func(f *remit.Finding) string { return f.Subject.Name }},
		{"message", func(f *remit.Finding) string { return f.Message }},
		{"evidence", func(f *remit.Finding) string {
			facts := make([]string, len(f.Evidence))
			for i, fact := range f.Evidence {
				facts[i] = fact.Name + ": " + fact.Value
			}
			return strings.Join(facts, "; ")
		}},
		{"remedy", func(f *remit.Finding) string { return strings.Join(strings.Fields(f.Remedy), " ") }},
		{"risks", func(f *remit.Finding) string { return strings.Join(f.Risks, "; ") }},
		{"controls", func(f *remit.Finding) string { return strings.Join(f.Controls, "; ") }},
		{"state", func(f *remit.Finding) string { return string(stateOf(f)) }},
		{"first", func(f *remit.Finding) string { return csvTime(f.First) }},
		{"last", func(f *remit.Finding) string { return csvTime(f.Last) }},
		{"id", func(f *remit.Finding) string { return string(f.ID) }},
		{"subject_id", func(f *remit.Finding) string { return string(f.Subject.ID) }},
		{"identity_id", func(f *remit.Finding) string { return string(concernsIdentity(f)) }},
	}
}

var identityCSV = []column[remit.Identity]{
	{"type", func(i *remit.Identity) string { return string(i.Type) }},
	{"kind", func(i *remit.Identity) string { return i.Kind }},
	{"namespace", func(i *remit.Identity) string { return i.Namespace }},
	{"name", func(i *remit.Identity) string { return i.Name }},
	{"status", func(i *remit.Identity) string { return string(i.Status) }},
	{"principal", func(i *remit.Identity) string { return i.Principal }},
	{"environment", func(i *remit.Identity) string { return i.Environment }},
	{"owners", func(i *remit.Identity) string {
		names := make([]string, len(i.Owners))
		for n, o := range i.Owners {
			names[n] = o.Name
		}
		return strings.Join(names, "; ")
	}},
	{"owner_source", func(i *remit.Identity) string {
		if len(i.Owners) == 0 {
			return ""
		}
		return i.Owners[0].Source
	}},
	{"built_in", func(i *remit.Identity) string { return strconv.FormatBool(i.BuiltIn) }},
	{"created", func(i *remit.Identity) string { return csvTime(i.Created) }},
	{"expires", func(i *remit.Identity) string { return csvTime(i.Expires) }},
	{"last_active", func(i *remit.Identity) string { return csvTime(i.LastActive) }},
	{"id", func(i *remit.Identity) string { return string(i.ID) }},
	{"system_id", func(i *remit.Identity) string { return string(i.System) }},
}

var credentialCSV = []column[remit.Credential]{
	{"type", func(c *remit.Credential) string { return string(c.Type) }},
	{"kind", func(c *remit.Credential) string { return c.Kind }},
	{"namespace", func(c *remit.Credential) string { return c.Namespace }},
	{"name", func(c *remit.Credential) string { return c.Name }},
	{"key", func(c *remit.Credential) string { return c.Key }},
	{"status", func(c *remit.Credential) string { return string(c.Status) }},
	{"holder_kind", func(c *remit.Credential) string { return c.Holder.Kind }},
	{"holder_namespace", func(c *remit.Credential) string { return c.Holder.Namespace }},
	{"holder_name", func(c *remit.Credential) string { return c.Holder.Name }},
	{"provider", func(c *remit.Credential) string { return c.Provider }},
	{"environment", func(c *remit.Credential) string { return c.Environment }},
	{"never_expires", func(c *remit.Credential) string { return strconv.FormatBool(c.NeverExpires) }},
	{"created", func(c *remit.Credential) string { return csvTime(c.Created) }},
	{"issued", func(c *remit.Credential) string { return csvTime(c.Issued) }},
	{"expires", func(c *remit.Credential) string { return csvTime(c.Expires) }},
	{"last_used", func(c *remit.Credential) string { return csvTime(c.LastUsed) }},
	{"rotated", func(c *remit.Credential) string { return csvTime(c.Rotated) }},
	{"lifetime_seconds", func(c *remit.Credential) string { return csvNumber(c.Lifetime) }},
	{"granted_lifetime_seconds", func(c *remit.Credential) string { return csvNumber(c.GrantedLifetime) }},
	{"exposure", func(c *remit.Credential) string { return strings.Join(c.Exposure, "; ") }},
	{"id", func(c *remit.Credential) string { return string(c.ID) }},
	{"identity_id", func(c *remit.Credential) string { return string(c.Identity) }},
	{"system_id", func(c *remit.Credential) string { return string(c.System) }},
}

var grantCSV = []column[remit.Grant]{
	{"kind", func(g *remit.Grant) string { return g.Kind }},
	{"namespace", func(g *remit.Grant) string { return g.Namespace }},
	{"name", func(g *remit.Grant) string { return g.Name }},
	{"status", func(g *remit.Grant) string { return string(g.Status) }},
	{"subject_kind", func(g *remit.Grant) string { return g.Subject.Kind }},
	{"subject_namespace", func(g *remit.Grant) string { return g.Subject.Namespace }},
	{"subject_name", func(g *remit.Grant) string { return g.Subject.Name }},
	{"role_kind", func(g *remit.Grant) string { return g.RoleRef.Kind }},
	{"role_namespace", func(g *remit.Grant) string { return g.RoleRef.Namespace }},
	{"role_name", func(g *remit.Grant) string { return g.RoleRef.Name }},
	{"permissions", func(g *remit.Grant) string {
		return strings.Join(permissionLines(g.Permissions), "; ")
	}},
	{"scope", func(g *remit.Grant) string { return g.Scope }},
	{"condition", func(g *remit.Grant) string { return g.Condition }},
	{"origin", func(g *remit.Grant) string { return g.Origin }},
	{"built_in", func(g *remit.Grant) string { return strconv.FormatBool(g.BuiltIn) }},
	{"created", func(g *remit.Grant) string { return csvTime(g.Created) }},
	{"expires", func(g *remit.Grant) string { return csvTime(g.Expires) }},
	{"id", func(g *remit.Grant) string { return string(g.ID) }},
	{"identity_id", func(g *remit.Grant) string { return string(g.Identity) }},
	{"role_id", func(g *remit.Grant) string { return string(g.Role) }},
	{"system_id", func(g *remit.Grant) string { return string(g.System) }},
}

// csvTime is a time in RFC 3339, UTC, or nothing when it is not known.
func csvTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return sane(t).Format(time.RFC3339)
}

func csvNumber(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}
