package connector

import (
	"context"
	"time"

	"remit"
)

// Enforcer changes its system, by steps of a stored plan. It needs a login of its
// own, with the rights that Describe names for it; in mode observe none is loaded.
//
// Each step is about one object. Plan writes into it what it found (Before) and
// what is to be (After); the other methods stand on those alone, so that a step
// can be carried out by another process than the one that planned it, and any of
// them can be called again after a crash: what is done already stays as it is.
// Errors are [remit.Conflict] when somebody else has changed the object since it
// was planned (a new plan is needed), [remit.Unauthorized] or [remit.Forbidden]
// when a right is missing, and [remit.Unavailable] when trying again may help.
type Enforcer interface {
	// Prepare installs, ahead of need, what steps will use, and brings it up to
	// date, so that they are in effect the sooner. It is idempotent; a step that
	// needs what is missing installs it itself.
	Prepare(ctx context.Context) error

	// Plan tells the steps that would do what is ordered, in their order. It
	// changes nothing. [remit.NotFound] when the subject does not exist,
	// [remit.Unsupported] when the connector cannot do it, [remit.Forbidden]
	// when it must not be done, as to the last administrator.
	Plan(ctx context.Context, o Order) (Planned, error)

	// Do makes the object what After says, if it is as Before says.
	Do(ctx context.Context, step remit.Step) error

	// Verify asks the system whether the step is in effect; [remit.Conflict]
	// when it is not.
	Verify(ctx context.Context, step remit.Step) error

	// Undo makes the object what Before says, if it is as After says or as
	// Before says already.
	Undo(ctx context.Context, step remit.Step) error
}

// Order is what is to be done to whom.
type Order struct {
	Action  remit.Action
	Subject remit.Subject

	// Identity is whom the subject is or authenticates, in the system's words.
	Identity remit.Ref

	// Stolen are credentials, as the log writes them, that the legitimate
	// holder uses as well: they must not mint any more, and otherwise work on.
	// Forged are those that only the attacker has: all they do is cut. To revoke
	// and to disable, all that is to be cut is in Forged: the credential and what
	// it minted, or every live one of the identity.
	Stolen, Forged []string

	// Credentials is, to revoke, what the inventory and the log know of the
	// credential, and, to disable and to remove, what the inventory knows of those
	// that authenticate the identity.
	Credentials []remit.Credential

	// Minters are whom these authenticate. What they mint until they are cut off
	// is in no log yet, and can mint as well.
	Minters []remit.Ref

	// Grades are the grades of containment that are asked for; nil lets the
	// connector choose the mildest that cuts.
	Grades []remit.Grade

	// Use is, to reduce, what the identity did; nil otherwise.
	Use *Use
}

// Use is what an identity did within a period that the log covers as a whole.
type Use struct {
	Since, Until time.Time

	// Used is what it did or tried, each with the binding that allowed it, where
	// the log tells.
	Used []remit.Usage

	// Logged are actions that the log is known to hold, of anybody. An action
	// that is not among them may be one that the log leaves out.
	Logged []string

	// Names is how many resources, and how many namespaces, a right may be
	// narrowed to by name; 0 narrows to none.
	Names int
}

// Planned is a connector's answer to an order.
type Planned struct {
	Steps []remit.Step
	Why   []string // why these, and what to know: a manager that will put it back, a grade that is not available
}
