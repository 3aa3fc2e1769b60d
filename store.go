package remit

import (
	"context"
	"time"
)

// The contracts of the store. sqlstore implements all of them, over SQLite and
// over PostgreSQL; package storetest is the suite that every implementation
// passes. Callers take the smallest contract that serves them. All methods are
// safe for concurrent use, and all of them are trusted calls: who may ask is
// checked by the server before it gets here.

// InventoryWriter receives what connectors see.
type InventoryWriter interface {
	// PutSystem adds a system or replaces what is known of it. A second
	// system with the same Name and another ID is a [Conflict].
	PutSystem(ctx context.Context, s System) error

	// StartRun begins to write one system's inventory; the system must have
	// been put. A run lives in memory: one that a crash ended is simply
	// started again from the beginning, and nothing is removed meanwhile.
	StartRun(ctx context.Context, system ID) (InventoryRun, error)
}

// InventoryRun is one pass over a system's inventory, or the watch that follows
// it. Records belong to sections, the listings that they were seen in. Only a
// section that was begun, applied without a hole and completed removes what it
// did not show again; what a partial listing did not see stays.
type InventoryRun interface {
	// Begin starts, or starts again, the full listing of a section.
	Begin(section string)

	// Apply writes records and deletions of a section in one transaction.
	// An unchanged record costs no write; a changed one leaves its former
	// version in the history. A record that moved here from another section
	// belongs to this one from now on. Of several records with one ID the
	// last counts, and one that is also deleted goes; a deletion holds
	// whichever section showed the record last. learned is when Remit saw it.
	Apply(ctx context.Context, section string, learned time.Time, records Records, deleted []ID) (Changes, error)

	// Complete ends the full listing of a section and removes every record of
	// it that was not applied since Begin. Without a Begin in this run it
	// is a [Conflict] and removes nothing.
	Complete(ctx context.Context, section string, learned time.Time) (Changes, error)
}

// Changes is what a write did.
type Changes struct {
	Added, Updated, Removed, Unchanged int

	// Touched are the records whose picture changed: those written and
	// removed, and with them the identities that hold a changed credential,
	// receive a changed grant or stand at an end of a changed relation.
	// Sorted, each once.
	Touched []ID
}

// InventoryReader answers questions about the inventory, now or at any past
// time.
type InventoryReader interface {
	Systems(ctx context.Context) ([]System, error)

	// The lists answer in the order that page asks for, with a stable total
	// order, and with the cursor of the next page ("" at the end). A cursor
	// that was not made by the same list is [Invalid].
	Identities(ctx context.Context, f Filter, page PageRequest) ([]Identity, string, error)
	Credentials(ctx context.Context, f Filter, page PageRequest) ([]Credential, string, error)
	Roles(ctx context.Context, f Filter, page PageRequest) ([]Role, string, error)
	Grants(ctx context.Context, f Filter, page PageRequest) ([]Grant, string, error)
	Relations(ctx context.Context, f Filter, page PageRequest) ([]Relation, string, error)
	Resources(ctx context.Context, f Filter, page PageRequest) ([]Resource, string, error)

	// Counts answers how many records of a kind have each value of each
	// facet, in one system or ("") in all, from counters, not by scanning.
	// The facet "" with the value "" is the total.
	Counts(ctx context.Context, kind RecordKind, system ID) ([]FacetCount, error)

	// History lists the versions of one record, the newest first, none when
	// it was never seen; the records inside are of the type that its ID
	// names. [Invalid] when that is no kind of inventory record.
	History(ctx context.Context, id ID) ([]Version, error)
}

// FacetCount is how many records have one value of a facet.
type FacetCount struct {
	Facet string `json:"facet"` // "type", "status", "namespace", "environment", "built_in", "owned", …
	Value string `json:"value"`
	Count int64  `json:"count"`
}

// Version is one version of a record: it was so in its system from From until
// To (zero: still), and Remit learned of it at Learned.
type Version struct {
	From    time.Time `json:"from"`
	To      time.Time `json:"to,omitzero"`
	Learned time.Time `json:"learned"`
	Removed bool      `json:"removed,omitempty"` // To is the time of its removal
	Record  any       `json:"record"`            // Identity, Credential, Role, Grant, Relation or Resource
}

// Filter chooses records. Its zero value chooses all; fields combine with and,
// the values within a field with or. A field that the kind of record does not
// have chooses nothing of it only when it is set.
type Filter struct {
	System       ID
	IDs          []ID
	Kinds        []string // Ref.Kind
	Namespaces   []string
	Names        []string // Ref.Name, exact
	Types        []string
	Statuses     []Status
	Environments []string
	BuiltIn      *bool

	// Search chooses names in which every word of it begins some word; words
	// are runs of letters and digits, compared in lower case.
	Search string

	// At asks for the state at that time; zero is now. It was true in the
	// system then, whenever Remit learned it.
	At time.Time

	// Identities: its own ID; the holder of a credential; the receiver of a
	// grant; the From of a relation.
	Identities []ID
	To         []ID // relations
	Grantors   []ID // Via of relations
	RoleIDs    []ID // grants
	Locations  []ID // credentials

	Owner   string // identities with an owner of that name
	Unowned bool   // identities without an owner

	Natives      []string // credentials
	Fingerprints []string // credentials
	Providers    []string // credentials

	ExpiresBefore time.Time // credentials and grants that end, before then
	UsedBefore    time.Time // credentials last used before then, or never
	NeverExpires  *bool     // credentials
}

// PageRequest asks for one page of a list.
type PageRequest struct {
	Limit int    // 1 to 1000; 0 means 100
	After string // the cursor that the page before returned; "" is the first page

	// Sort is "name" (default: namespace, name), "kind", "created", "expires"
	// or "id"; of findings also "severity", the worst first, their default.
	Sort string
}

// FindingStore keeps findings over time.
type FindingStore interface {
	// PutFindings opens new findings, confirms those that are known (their
	// text and evidence follow, First stays) and opens again those that had
	// been resolved. An acknowledged finding, and a suppressed one until its
	// date, keeps its state. now becomes their Last.
	PutFindings(ctx context.Context, now time.Time, findings []Finding) (FindingChanges, error)

	// ResolveFindings resolves every unresolved finding in scope that was not
	// put at or after since.
	ResolveFindings(ctx context.Context, scope FindingScope, since, now time.Time) (FindingChanges, error)

	// SetFindingState acknowledges, suppresses (until then) or opens findings by
	// hand. [NotFound] when the ID is unknown; [Invalid] for Resolved, which
	// only mending brings, and for an until that is not after now; [Conflict]
	// when the finding is resolved, which only its return changes.
	SetFindingState(ctx context.Context, id ID, state FindingState, until, now time.Time) error

	Findings(ctx context.Context, f FindingFilter, page PageRequest) ([]Finding, string, error)

	// FindingCounts counts unresolved findings by "severity", "policy",
	// "state", "risk" and, under "", in total.
	FindingCounts(ctx context.Context, system ID) ([]FacetCount, error)
}

// FindingScope is what an evaluation looked at, so what it may resolve: the
// given policies on the given subjects of a system. An empty Subjects is all of
// them; an empty Policies is none, for an evaluation that ran no policy has
// nothing to say.
type FindingScope struct {
	System   ID
	Policies []string
	Subjects []ID
}

// FindingChanges is what a write of findings did. Opened includes Reopened.
type FindingChanges struct{ Opened, Reopened, Confirmed, Resolved int }

// FindingFilter chooses findings; its zero value chooses all.
type FindingFilter struct {
	System          ID
	IDs             []ID
	Policies        []string
	MinimumSeverity Severity
	States          []FindingState
	Subjects        []ID
	Identities      []ID // the subject or the identity concerned
	Namespaces      []string
	Risks           []string
	Search          string // in the subject's name, as Filter.Search
}
