package remit

import (
	"context"
	"time"
)

// Presence is what the log has shown of one identity in all.
type Presence struct {
	System    ID           `json:"system"`
	Identity  ID           `json:"identity"`
	Actor     Ref          `json:"actor"`
	Principal string       `json:"principal"`
	Type      IdentityType `json:"type,omitempty"`
	First     time.Time    `json:"first"`
	Last      time.Time    `json:"last"`
	Count     int64        `json:"count"`
	Denied    int64        `json:"denied,omitempty"`
}

// Lineage is one credential's place in the tree of credentials, and what the
// log has shown of it.
type Lineage struct {
	System     ID             `json:"system"`
	Credential string         `json:"credential"` // as the log writes it
	Type       CredentialType `json:"type,omitempty"`
	Identity   ID             `json:"identity"` // whom it authenticates
	Holder     Ref            `json:"holder"`   // the same in its system's words
	Bound      Ref            `json:"bound,omitzero"`

	// Parent minted it, or minted what did, where those between have ended and
	// are no longer kept; "" for a root, which was not seen to be minted. Root is
	// the first of the lineage, itself for a root; Depth counts mintings.
	Parent string `json:"parent,omitempty"`
	Root   string `json:"root"`
	Depth  int    `json:"depth,omitempty"`

	Minted  time.Time `json:"minted,omitzero"`
	Expires time.Time `json:"expires,omitzero"` // zero: the log does not tell

	First time.Time `json:"first,omitzero"` // uses
	Last  time.Time `json:"last,omitzero"`
	Uses  int64     `json:"uses"`

	// Allowed is the last use that was not refused.
	Allowed time.Time `json:"allowed,omitzero"`

	// Addresses and UserAgents are the first few it was used from (MaxPlaces).
	Addresses  []string `json:"addresses,omitempty"`
	UserAgents []string `json:"user_agents,omitempty"`

	Children int64 `json:"children"`       // how many it minted in all
	Gone     int64 `json:"gone,omitempty"` // descendants that ended and are no longer kept one by one

	// SelfMinted: its parent is a credential of the same identity. Forked: it
	// was itself minted by another and yet minted for its own identity, or did
	// so twice, so that two lines go on from it.
	SelfMinted bool `json:"self_minted,omitempty"`
	Forked     bool `json:"forked,omitempty"`

	// Announced says that it was written ahead of the checkpoint that it belongs
	// to: its place in the tree is right, and the events that showed it are not
	// counted yet.
	Announced bool `json:"announced,omitempty"`
}

// MaxPlaces is how many addresses and user agents a lineage entry keeps.
const MaxPlaces = 8

// Alive says whether the credential can still be used at that time: until it
// expires or, where the log does not tell when, until it has rested for idle.
func (l *Lineage) Alive(at time.Time, idle time.Duration) bool {
	if !l.Expires.IsZero() {
		return at.Before(l.Expires)
	}
	last := l.Last
	if last.Before(l.Minted) {
		last = l.Minted
	}
	return at.Sub(last) < idle
}

// Position is how far a source has been read, in the source's own terms: a
// sequence number of the queue, an offset in a file.
type Position struct {
	Source  string    // "queue", "file sha256:…"
	Offset  int64     // everything before it is counted and archived
	Detail  []byte    // the source's own notes
	Updated time.Time // wall clock
}

// SeenChunk is a set of hashes of event IDs that were counted.
type SeenChunk struct {
	System ID
	Hour   int64  // of the events, since 1970
	IDs    []byte // 8 bytes each
}

// State is what a part of the pipeline keeps for itself between runs.
type State struct {
	System ID     // "" for what belongs to no single system
	Kind   string // "baseline", "correlation", "incident"
	Key    string
	Data   []byte // nil removes it
}

// ArchiveFile is a finished file of the archive, as the store's manifest lists
// it. Only files that are listed are read. See package archive for the fields.
type ArchiveFile struct {
	Path       string    `json:"path"` // below the archive's directory
	System     ID        `json:"system"`
	SystemName string    `json:"system_name"`
	Hour       time.Time `json:"hour"`
	Rows       int64     `json:"rows"`
	Bytes      int64     `json:"bytes"`
	MinTime    time.Time `json:"min_time"`
	MaxTime    time.Time `json:"max_time"`
	Checksum   string    `json:"checksum"`
	Footer     uint32    `json:"footer"`
	Mark       string    `json:"mark"`
	Sequence   int       `json:"sequence"`
	Raw        bool      `json:"raw"`
	Compacted  bool      `json:"compacted"`
}

// Checkpoint is everything that a stretch of events changed. It is written in
// one transaction with the positions, so that a stretch that is read again
// after a crash counts once.
type Checkpoint struct {
	Now       time.Time // wall clock
	Positions []Position

	Presences    []Presence // in full
	Usage        []Usage    // Count is added; First and Last are extended
	Lineage      []Lineage  // in full
	LineageEnded []Lineage  // removed, by System and Credential
	Seen         []SeenChunk
	States       []State
	Findings     []Finding // of detections, in full; see PutDetections
	ArchiveAdded []ArchiveFile
	ArchiveGone  []string
}

// ActivityWriter keeps what is aggregated from activity. One process writes at
// a time, which its caller sees to.
type ActivityWriter interface {
	Checkpoint(ctx context.Context, c Checkpoint) error
}

// ActivityReader answers what the activity of the past amounts to.
type ActivityReader interface {
	Positions(ctx context.Context) ([]Position, error)
	// Presence and the lists by identity answer nothing for the unknown.
	Presences(ctx context.Context, f ActivityFilter, page PageRequest) ([]Presence, string, error)
	Usage(ctx context.Context, f ActivityFilter, page PageRequest) ([]Usage, string, error)
	Lineage(ctx context.Context, f ActivityFilter, page PageRequest) ([]Lineage, string, error)
	Seen(ctx context.Context, system ID, hour int64) ([]SeenChunk, error)
	// States lists the states of a kind, of one key or, with "", of all.
	States(ctx context.Context, system ID, kind, key string) ([]State, error)
	ArchiveFiles(ctx context.Context, system ID, from, to time.Time) ([]ArchiveFile, error)
}

// ActivityFilter chooses presences, usage and lineage. Its zero value chooses
// all; fields combine with and, values of a field with or.
type ActivityFilter struct {
	System      ID
	Identities  []ID
	Credentials []string // lineage
	Parents     []string // lineage
	Roots       []string // lineage and usage
	Forked      bool     // lineage: only forks
	SelfMinted  bool     // lineage: only what was minted by its own identity
	Bindings    []Ref    // usage
	Since       time.Time
}

// Each calls f with every entry of a list, such as [ActivityReader]'s Usage, and
// returns its first error.
func Each[T any](ctx context.Context, f ActivityFilter, list func(context.Context, ActivityFilter, PageRequest) ([]T, string, error), each func(T) error) error {
	page := PageRequest{Limit: 1000}
	for {
		some, next, err := list(ctx, f, page)
		if err != nil {
			return err
		}
		for _, one := range some {
			if err := each(one); err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		page.After = next
	}
}
