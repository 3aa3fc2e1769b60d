package report

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"

	"remit"
)

// Schema names the format of [Document]. It changes only when a reader of the
// former format would go wrong; docs/reference/scan-document.md says what is
// promised.
const Schema = "remit-scan/1"

// Document is the JSON document of a scan as a reader holds it in memory; see
// [ReadJSON]. Writers use a [Source] instead, which a Document can be made into.
type Document struct {
	Schema    string    `json:"schema"`
	Generated time.Time `json:"generated"`
	Remit     string    `json:"remit"`

	// Recorded says that at least one system was read from a recording or a
	// dump: the document is as old as that, whatever Generated says.
	Recorded bool `json:"recorded"`

	Systems     []remit.System     `json:"systems"`
	Identities  []remit.Identity   `json:"identities"`
	Credentials []remit.Credential `json:"credentials"`
	Roles       []remit.Role       `json:"roles"`
	Grants      []remit.Grant      `json:"grants"`
	Relations   []remit.Relation   `json:"relations"`
	Resources   []remit.Resource   `json:"resources"`
	Findings    []remit.Finding    `json:"findings"`

	Summary Summary `json:"summary"`
}

// Source offers the document's records to a writer. Schema, Recorded and Summary
// are not taken over: a writer works them out anew.
func (d *Document) Source() Source { return documentSource{d} }

type documentSource struct{ d *Document }

func (s documentSource) Header() Header {
	return Header{Generated: s.d.Generated, Version: s.d.Remit}
}

func (s documentSource) Systems() iter.Seq2[remit.System, error] { return Records(s.d.Systems) }

func (s documentSource) Identities() iter.Seq2[remit.Identity, error] { return Records(s.d.Identities) }

func (s documentSource) Credentials() iter.Seq2[remit.Credential, error] {
	return Records(s.d.Credentials)
}
func (s documentSource) Roles() iter.Seq2[remit.Role, error]         { return Records(s.d.Roles) }
func (s documentSource) Grants() iter.Seq2[remit.Grant, error]       { return Records(s.d.Grants) }
func (s documentSource) Relations() iter.Seq2[remit.Relation, error] { return Records(s.d.Relations) }

func (s documentSource) Resources() iter.Seq2[remit.Resource, error] { return Records(s.d.Resources) }

func (s documentSource) Findings() iter.Seq2[remit.Finding, error] { return Records(s.d.Findings) }

// Summary counts a scan.
type Summary struct {
	Systems     []SystemSummary   `json:"systems"` // in the order of Document.Systems
	Identities  IdentitySummary   `json:"identities"`
	Credentials CredentialSummary `json:"credentials"`
	Roles       int               `json:"roles"`
	Grants      GrantSummary      `json:"grants"`
	Relations   int               `json:"relations"`
	Resources   int               `json:"resources"`
	Findings    FindingSummary    `json:"findings"`
}

// SystemSummary counts what one system brought.
type SystemSummary struct {
	System      remit.ID `json:"system"`
	Name        string   `json:"name"`
	Gaps        int      `json:"gaps"`
	Identities  int      `json:"identities"`
	Machines    int      `json:"machines"`
	Unowned     int      `json:"unowned"`
	Credentials int      `json:"credentials"`
	NeverExpire int      `json:"never_expire"`
	Grants      int      `json:"grants"`
	Findings    int      `json:"findings"` // that stand
}

// IdentitySummary counts identities.
type IdentitySummary struct {
	Total   int                        `json:"total"`
	ByType  map[remit.IdentityType]int `json:"by_type"` // every type, also those with none
	BuiltIn int                        `json:"built_in"`

	// Machines are the identities that act without a person; Unowned those
	// machines for which nobody answers, without what the platform brings
	// and without what it does not (any longer) have.
	Machines int `json:"machines"`
	Unowned  int `json:"unowned"`

	// Unused were last active more than 90 days before the document was
	// made. ActivityUnknown are those of which nothing tells.
	Unused          int `json:"unused"`
	ActivityUnknown int `json:"activity_unknown"`

	// WithFindings is how many identities (or, where none is concerned,
	// other subjects) have findings that stand.
	WithFindings int `json:"with_findings"`
}

// CredentialSummary counts credentials. All but Total and ByType count only
// those that are active.
type CredentialSummary struct {
	Total        int                          `json:"total"`
	ByType       map[remit.CredentialType]int `json:"by_type"` // every type, also those with none
	Active       int                          `json:"active"`
	NeverExpire  int                          `json:"never_expire"`
	Expired      int                          `json:"expired"` // past their end when the document was made, though active
	Exposed      int                          `json:"exposed"` // readable where secrets should not lie
	Unused       int                          `json:"unused"`  // last used more than 90 days before
	UsageUnknown int                          `json:"usage_unknown"`
}

// GrantSummary counts grants.
type GrantSummary struct {
	Total    int `json:"total"`
	Dangling int `json:"dangling"`
}

// FindingSummary counts findings. A finding stands while it is neither
// suppressed nor resolved; BySeverity and Policies count those.
type FindingSummary struct {
	Total      int                        `json:"total"`
	Standing   int                        `json:"standing"`
	ByState    map[remit.FindingState]int `json:"by_state"`    // every state, also those with none
	BySeverity map[remit.Severity]int     `json:"by_severity"` // every severity, also those with none
	Policies   []PolicySummary            `json:"policies"`    // the worst first
}

// PolicySummary counts the standing findings of one policy at one severity.
type PolicySummary struct {
	Policy   string         `json:"policy"`
	Title    string         `json:"title"`
	Severity remit.Severity `json:"severity"`
	Count    int            `json:"count"`
}

// unusedAfter is when something that was used before counts as unused.
const unusedAfter = 90 * 24 * time.Hour

var (
	identityTypes = []remit.IdentityType{
		remit.Human, remit.ServiceAccount, remit.Workload, remit.Application,
		remit.Agent, remit.AssumableRole, remit.Group,
	}
	credentialTypes = []remit.CredentialType{
		remit.APIKey, remit.StaticToken, remit.ShortLivedToken, remit.ClientSecret, remit.Certificate,
		remit.SSHKey, remit.PrivateKey, remit.Password, remit.FederatedTrust,
	}
	findingStates = []remit.FindingState{remit.Open, remit.Acknowledged, remit.Suppressed, remit.Resolved}
)

// Summarize counts all that a source holds.
func Summarize(src Source) (Summary, error) {
	t := newTally(src.Header().Generated)
	if err := t.all(src); err != nil {
		return Summary{}, err
	}
	for _, err := range src.Roles() {
		if err != nil {
			return Summary{}, err
		}
		t.summary.Roles++
	}
	for _, err := range src.Relations() {
		if err != nil {
			return Summary{}, err
		}
		t.summary.Relations++
	}
	for _, err := range src.Resources() {
		if err != nil {
			return Summary{}, err
		}
		t.summary.Resources++
	}
	return t.finish(), nil
}

// tally counts records as they pass by.
type tally struct {
	now     time.Time
	systems []remit.System
	at      map[remit.ID]int // where a system's counts are in summary.Systems
	summary Summary
	groups  map[groupKey]*group
	scores  map[remit.ID]*score
}

func newTally(now time.Time) *tally {
	t := &tally{now: now, at: map[remit.ID]int{}, groups: map[groupKey]*group{}, scores: map[remit.ID]*score{}}
	t.summary.Identities.ByType = zeroes(identityTypes)
	t.summary.Credentials.ByType = zeroes(credentialTypes)
	t.summary.Findings.ByState = zeroes(findingStates)
	t.summary.Findings.BySeverity = zeroes(remit.Severities)
	return t
}

func zeroes[K comparable](keys []K) map[K]int {
	m := make(map[K]int, len(keys))
	for _, k := range keys {
		m[k] = 0
	}
	return m
}

// all counts what reports for people speak of.
func (t *tally) all(src Source) error {
	for s, err := range src.Systems() {
		if err != nil {
			return err
		}
		t.system(&s)
	}
	for i, err := range src.Identities() {
		if err != nil {
			return err
		}
		t.identity(&i)
	}
	for c, err := range src.Credentials() {
		if err != nil {
			return err
		}
		t.credential(&c)
	}
	for g, err := range src.Grants() {
		if err != nil {
			return err
		}
		t.grant(&g)
	}
	for f, err := range src.Findings() {
		if err != nil {
			return err
		}
		t.finding(&f)
	}
	return nil
}

func (t *tally) system(s *remit.System) {
	t.systems = append(t.systems, *s)
	t.at[s.ID] = len(t.summary.Systems)
	t.summary.Systems = append(t.summary.Systems, SystemSummary{System: s.ID, Name: s.Name, Gaps: len(s.Gaps)})
}

// of returns where a system's counts go. Records of a system that the source
// does not list are counted in total only.
func (t *tally) of(system remit.ID) *SystemSummary {
	if at, ok := t.at[system]; ok {
		return &t.summary.Systems[at]
	}
	return &SystemSummary{}
}

func (t *tally) identity(i *remit.Identity) {
	all, one := &t.summary.Identities, t.of(i.System)
	all.Total++
	one.Identities++
	all.ByType[i.Type]++
	if i.BuiltIn {
		all.BuiltIn++
	}
	if i.Type.Machine() {
		all.Machines++
		one.Machines++
	}
	if unowned(i) {
		all.Unowned++
		one.Unowned++
	}
	switch {
	case i.LastActive.IsZero():
		all.ActivityUnknown++
	case t.now.Sub(i.LastActive) > unusedAfter:
		all.Unused++
	}
}

// unowned says whether somebody should answer for the identity and nobody does.
func unowned(i *remit.Identity) bool {
	return i.Type.Machine() && !i.BuiltIn && i.Status != remit.Absent && len(i.Owners) == 0
}

func (t *tally) credential(c *remit.Credential) {
	all, one := &t.summary.Credentials, t.of(c.System)
	all.Total++
	one.Credentials++
	all.ByType[c.Type]++
	if c.Status != remit.Active && c.Status != "" {
		return
	}
	all.Active++
	if c.NeverExpires {
		all.NeverExpire++
		one.NeverExpire++
	}
	if !c.Expires.IsZero() && c.Expires.Before(t.now) {
		all.Expired++
	}
	if len(c.Exposure) > 0 {
		all.Exposed++
	}
	switch {
	case c.LastUsed.IsZero():
		all.UsageUnknown++
	case t.now.Sub(c.LastUsed) > unusedAfter:
		all.Unused++
	}
}

func (t *tally) grant(g *remit.Grant) {
	t.summary.Grants.Total++
	t.of(g.System).Grants++
	if g.Status == remit.Dangling {
		t.summary.Grants.Dangling++
	}
}

func (t *tally) finding(f *remit.Finding) {
	all := &t.summary.Findings
	all.Total++
	all.ByState[stateOf(f)]++
	if !standing(f) {
		return
	}
	all.Standing++
	t.of(f.System).Findings++
	all.BySeverity[f.Severity]++

	key := groupKey{f.Severity, f.Policy}
	g := t.groups[key]
	if g == nil {
		g = &group{groupKey: key, title: f.Title, remedy: f.Remedy, oneRemedy: true}
		t.groups[key] = g
	}
	g.add(f)

	whom := concerns(f)
	s := t.scores[whom]
	if s == nil {
		s = &score{}
		t.scores[whom] = s
	}
	s[f.Severity.Rank()]++
}

// finish returns the counts. The tally may go on afterwards.
func (t *tally) finish() Summary {
	s := t.summary
	if s.Systems == nil {
		s.Systems = []SystemSummary{}
	}
	s.Identities.WithFindings = len(t.scores)
	s.Findings.Policies = []PolicySummary{}
	for _, g := range t.sorted() {
		s.Findings.Policies = append(s.Findings.Policies, PolicySummary{g.policy, g.title, g.severity, g.count})
	}
	return s
}

// sorted returns the groups of findings, the worst first.
func (t *tally) sorted() []*group {
	return slices.SortedFunc(maps.Values(t.groups), func(a, b *group) int {
		return cmp.Or(
			cmp.Compare(b.severity.Rank(), a.severity.Rank()),
			cmp.Compare(b.count, a.count),
			cmp.Compare(a.policy, b.policy),
			cmp.Compare(a.severity, b.severity),
		)
	})
}

// recorded says whether any of the systems was read from a recording.
func (t *tally) recorded() bool {
	return slices.ContainsFunc(t.systems, func(s remit.System) bool { return s.Recorded })
}

// systemName is the user's word for a system, or its ID where the source does not
// list it.
func (t *tally) systemName(id remit.ID) string {
	if at, ok := t.at[id]; ok {
		return t.systems[at].Name
	}
	return string(id)
}
