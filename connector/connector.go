// Package connector is the contract between Remit and the systems it governs.
//
// A connector knows one kind of system and translates it into the vocabulary.
// It reads; it decides nothing and keeps nothing. To add one, implement
// [Connector] in a folder of its own, let it pass the suite in connectortest
// against the real system, and give it a page under docs/connectors.
package connector

import (
	"context"

	"remit"
)

// Connector offers the inventory of one connected system.
type Connector interface {
	// Describe tells what the connector finds and what rights it needs. It
	// makes no request.
	Describe() Description

	// System tells which instance is connected. It fails with
	// [remit.Unavailable] when the system does not answer and with
	// [remit.Unauthorized] when the login is not accepted.
	System(ctx context.Context) (remit.System, error)

	// Inventory reads the whole system once and hands it to emit, page by
	// page, section by section. What cannot be read becomes a page with a
	// Gap, and the rest goes on; Inventory itself fails only when nothing
	// more can be read, when emit fails (with emit's error) or when ctx ends
	// (with ctx's). It waits and tries again, with backoff and as the system
	// asks, before it calls anything unreadable, and goes on from the page
	// that broke.
	Inventory(ctx context.Context, emit Emit) error
}

// Watcher is a connector that also tells of changes as they happen.
type Watcher interface {
	Connector

	// Watch does what Inventory does and then goes on: each change of the
	// system becomes a page, in an order in which the last page about a
	// record is the truth. A lost connection is taken up again, or the
	// section listed anew (Begin to Complete), without a gap. It returns only
	// when ctx ends, when emit fails or when the login is no longer accepted.
	Watch(ctx context.Context, emit Emit) error
}

// Emit takes a page. Connectors call it from one goroutine at a time and do not
// touch the page afterwards. When it returns an error the connector stops.
type Emit func(ctx context.Context, page Page) error

// Page is a part of one section of the inventory.
type Page struct {
	// Section is the listing that the page belongs to; Describe names them.
	Section string

	// Begin marks the first page of a full listing of the section, Complete
	// the last of one in which everything was seen: only then is what was not
	// shown gone from the system. Both may be set on one page. A listing with
	// a gap never completes.
	Begin, Complete bool

	Records remit.Records
	Deleted []remit.ID

	// Gap says that (part of) the section could not be read; nil when all
	// is well.
	Gap *remit.Gap
}

// Description is what a connector offers.
type Description struct {
	Name     string // "kubernetes": the first part of a system's identity
	Title    string // "Kubernetes"
	Sections []Section
	Can      []Capability
}

// Section is one listing of a connector.
type Section struct {
	Name  string
	Finds string // what it yields, in words
	Needs string // the least right that it needs, in the system's words
}

// Capability is what a connector can do beyond Inventory.
type Capability string

// The capabilities.
const (
	CanWatch    Capability = "watch"
	CanActivity Capability = "activity"
	CanEnforce  Capability = "enforce"
)
